"""Units as CF spells them become those of CMIP6."""

from __future__ import annotations

import numpy as np
import pytest

from finescale.errors import SourceError
from finescale.units import conversion
from finescale.variables import MM_PER_DAY, VARIABLES


def converted(value: float, units: str, variable_id: str) -> float:
    factor, offset = conversion(units, variable_id, where="obs")
    return value * factor + offset


@pytest.mark.parametrize("variable_id", VARIABLES)
def test_the_units_of_cmip6_are_left_alone(variable_id: str) -> None:
    assert conversion(VARIABLES[variable_id].units, variable_id, where="obs") == (1.0, 0.0)


@pytest.mark.parametrize("units", ["degC", "Celsius", "celsius", "deg_C", "degree_Celsius"])
def test_degrees_celsius_have_many_names(units: str) -> None:
    assert converted(0.0, units, "tas") == pytest.approx(273.15, abs=1e-12)
    assert converted(-40.0, units, "tas") == pytest.approx(233.15, abs=1e-12)


def test_degrees_fahrenheit_have_another_slope() -> None:
    assert converted(212.0, "degF", "tasmax") == pytest.approx(373.15, abs=1e-9)


@pytest.mark.parametrize(
    "units", ["mm day-1", "mm/day", "mm d-1", "mm/d", "kg m-2 day-1", "kg m**-2 d**-1"]
)
def test_a_millimetre_of_rain_is_a_kilogram_per_square_metre(units: str) -> None:
    assert converted(3.0, units, "pr") == pytest.approx(3.0 * MM_PER_DAY, rel=1e-12)


@pytest.mark.parametrize(
    ("units", "mm_per_day"),
    [("m day-1", 1000.0), ("m s-1", 86_400_000.0), ("mm h-1", 24.0), ("cm/day", 10.0)],
)
def test_depths_of_water_per_time_are_fluxes(units: str, mm_per_day: float) -> None:
    assert converted(1.0, units, "pr") == pytest.approx(mm_per_day * MM_PER_DAY, rel=1e-12)


def test_zero_stays_zero_where_units_have_no_offset() -> None:
    assert converted(0.0, "mm day-1", "pr") == 0.0


@pytest.mark.parametrize(
    ("units", "variable_id"),
    [("Pa", "tas"), ("K", "pr"), ("mm", "pr"), ("m", "tasmin"), ("1", "pr")],
)
def test_units_of_another_dimension_are_refused(units: str, variable_id: str) -> None:
    """A depth of rain without a time is an amount of unknown length, not a flux."""
    with pytest.raises(SourceError) as error:
        conversion(units, variable_id, where="references/obs")
    assert str(error.value) == (
        f"references/obs: `{variable_id}` must be in {VARIABLES[variable_id].units} or units that "
        f"convert to it, found {units!r}; set `variables: {{{variable_id}: {{units: ...}}}}` of "
        "this dataset in the config"
    )


@pytest.mark.parametrize("units", ["furlong parsec", "degQ", "???", "mm per", ""])
def test_unknown_units_are_refused_with_what_to_do(units: str) -> None:
    with pytest.raises(SourceError, match=r"^obs: .*tas.*set `variables: \{tas: \{units"):
        conversion(units, "tas", where="obs")


def test_a_conversion_is_affine() -> None:
    """Values are converted in blocks by factor and offset alone."""
    values = np.linspace(-60.0, 60.0, 7)
    factor, offset = conversion("degC", "tasmin", where="obs")
    assert factor == pytest.approx(1.0, abs=1e-12)
    assert np.allclose(values * factor + offset, values + 273.15, rtol=0, atol=1e-10)
