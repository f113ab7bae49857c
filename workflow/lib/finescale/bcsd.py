"""Stage `bcsd`: bias correction and spatial disaggregation, the daily product.

The adjusted coarse value minus (or over) the coarse climatology of the reference is interpolated
and put on the fine climatology: why a cell on the mountain is colder than its coarse cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finescale import disaggregate, fields
from finescale.blocks import Tile
from finescale.calendars import Days, standard_slots
from finescale.disaggregate import Fill, Interpolation, area_means, limited
from finescale.fields import Field
from finescale.job import Job
from finescale.store import Store
from finescale.variables import VARIABLES


def run(
    work: Job,
    *,
    adjusted: Store,
    coarse_climatology: Store,
    fine_climatology: Store,
    weights: Store,
    area_weights: Store | None = None,
    tasmax: Store | None = None,
    variable_id: str,
    interpolation: Literal["bilinear", "mean_preserving"],
    fill: Fill,
    min_valid_fraction: float = 0.5,
    calendar: str | None,
    attributes: dict[str, Any],
) -> None:
    """Write the daily product of one variable, (time, lat, lon) on the fine grid.

    Parameters
    ----------
    adjusted
        The bias-adjusted GCM; for tasmin beside `tasmax`, its adjusted dtr.
    coarse_climatology, fine_climatology
        Of the same variable as `adjusted`, over the same training days.
    weights
        From the coarse grid to the fine one.
    area_weights
        From the fine grid to the coarse one, for `mean_preserving`: the mean of the interpolated
        anomaly is the coarse one where the product covers `min_valid_fraction` of a coarse cell.
    tasmax
        The product of tasmax, from which a tasmin is made as tasmax - dtr: never above it.
    interpolation, fill
        As the config section `bcsd` describes them.
    calendar
        Convert the product's axis to this calendar; None keeps the GCM's.

    References
    ----------
    Thrasher et al. (2012), doi:10.5194/hess-16-3309-2012.
    """
    coarse = Field(adjusted)
    kind = VARIABLES[coarse.variable_id].kind
    upper = None if tasmax is None else Field(tasmax)
    valid = (adjusted.read("valid") == 1) & fields.complete(coarse_climatology, coarse.variable_id)
    mask = fields.complete(fine_climatology, coarse.variable_id)
    ends = {"coarse": coarse.grid, "fine": fields.read_grid(fine_climatology)}
    means = None
    if area_weights is not None:
        means = area_means(area_weights, **ends, mask=mask, min_valid_fraction=min_valid_fraction)

    def anomaly(
        lat: slice, lon: slice
    ) -> Callable[[NDArray[np.float32], Days], NDArray[np.float32]]:
        cycle = coarse_climatology.read(coarse.variable_id, (slice(None), lat, lon))

        def departures(block: NDArray[np.float32], days: Days) -> NDArray[np.float32]:
            clim = cycle[standard_slots(days)]
            return block / clim if kind == "*" else block - clim

        return departures

    def finish(
        tile: Tile, count: NDArray[np.int32]
    ) -> Callable[[NDArray[Any], Days, slice], NDArray[Any]]:
        cycle = fine_climatology.read(coarse.variable_id, (slice(None), tile.lat, tile.lon))

        def finished(smooth: NDArray[Any], days: Days, time: slice) -> NDArray[Any]:
            clim = cycle[standard_slots(days)]
            value = smooth * clim if kind == "*" else smooth + clim
            value = limited(value, VARIABLES[coarse.variable_id].limits, count)
            return value if upper is None else upper.read(time, tile.lat, tile.lon) - value

        return finished

    disaggregate.run(
        work,
        coarse=coarse,
        interpolation=Interpolation.between(weights, **ends, valid=valid, fill=fill, means=means),
        mask=mask,
        fine=ends["fine"],
        variable_id=variable_id,
        calendar=calendar,
        attributes={**attributes, "interpolation": f"{interpolation}, holes filled: {fill}"},
        anomaly=anomaly,
        finish=finish,
    )
