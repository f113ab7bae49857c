"""Conversion of units as CF spells them, through cf-xarray's pint registry."""

from __future__ import annotations

from functools import cache

from finescale.errors import SourceError
from finescale.variables import VARIABLES

WATER_DENSITY = "1000 kg m-3"
"""Turns a depth of water into a mass per area: 1 mm is 1 kg m-2."""


@cache
def conversion(units: str, variable_id: str, *, where: str) -> tuple[float, float]:
    """Return (factor, offset): value x factor + offset is in the variable's CMIP6 units.

    Raises
    ------
    SourceError
        The units are unknown, or of another dimension.
    """
    target = VARIABLES[variable_id].units
    if units == target:
        return 1.0, 0.0
    import pint
    from cf_xarray.units import units as registry

    remedy = f"set `variables: {{{variable_id}: {{units: ...}}}}` of this dataset in the config"
    try:
        zero, one = (registry.Quantity(v, registry.Unit(units)) for v in (0.0, 1.0))
        if variable_id == "pr" and zero.check("[length]/[time]"):
            density = registry.Quantity(*_split(WATER_DENSITY))
            zero, one = zero * density, one * density
        low, high = (q.to(registry.Unit(target)).magnitude for q in (zero, one))
    except pint.DimensionalityError as error:
        raise SourceError(
            f"{where}: `{variable_id}` must be in {target} or units that convert to it, "
            f"found {units!r}; {remedy}"
        ) from error
    except Exception as error:  # the parser fails in as many ways as there are strings
        raise SourceError(
            f"{where}: units {units!r} of `{variable_id}` are unknown "
            f"(CF expects for example {target!r}); {remedy}"
        ) from error
    return float(high - low), float(low)


def _split(quantity: str) -> tuple[float, str]:
    number, unit = quantity.split(" ", 1)
    return float(number), unit
