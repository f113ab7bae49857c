"""Stage `interpolate`: the raw GCM on the fine grid by bilinear interpolation, the baseline."""

from __future__ import annotations

from typing import Any

from finescale import disaggregate, fields
from finescale.disaggregate import Interpolation, limited
from finescale.fields import Field
from finescale.job import Job
from finescale.store import Store
from finescale.variables import VARIABLES


def run(
    work: Job,
    *,
    simulation: Store,
    climatology: Store,
    weights: Store,
    variable_id: str,
    calendar: str | None,
    attributes: dict[str, Any],
) -> None:
    """Write the daily product of one variable, (time, lat, lon) on the fine grid.

    Parameters
    ----------
    climatology
        Of the reference: it says which fine cells belong to the product.
    calendar
        Convert the product's axis to this calendar; None keeps the GCM's.
    """
    coarse, fine = Field(simulation), fields.read_grid(climatology)
    valid = fields.complete(simulation, coarse.variable_id)
    limits = VARIABLES[variable_id].limits
    disaggregate.run(
        work,
        coarse=coarse,
        interpolation=Interpolation.between(weights, coarse=coarse.grid, fine=fine, valid=valid),
        mask=fields.complete(climatology, variable_id),
        fine=fine,
        variable_id=variable_id,
        calendar=calendar,
        attributes=attributes,
        anomaly=lambda lat, lon: lambda block, days: block,
        finish=lambda tile, count: lambda smooth, days, time: limited(smooth, limits, count),
    )
