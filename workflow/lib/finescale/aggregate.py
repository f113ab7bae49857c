"""Stage `aggregate`: means of a daily product over months or years."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finescale import calendars, fields, seasonal
from finescale.blocks import Tile, slabs, tiles
from finescale.fields import Field
from finescale.job import Job
from finescale.store import Array, Contract, Piece, Store, coordinate
from finescale.variables import VARIABLES


def run(work: Job, *, product: Store, frequency: str, attributes: dict[str, Any]) -> None:
    """Write the means of a daily product, (time, lat, lon), one per month (`mon`) or year (`yr`).

    A year of a seasonal product is its season, December counted to the next year. A cell without
    values is NaN (never 0). `n_days` tells how many days a mean stands on.
    """
    daily = Field(product)
    variable_id, days, grid = daily.variable_id, daily.days, daily.grid
    season = daily.season.get("season")
    month = days.year.astype(np.int64) * 12 + days.month - 1
    group = month if frequency == "mon" else calendars.season_year(days, season)
    numbers, index, counts = np.unique(group, return_inverse=True, return_counts=True)
    variable = VARIABLES[variable_id]
    shape = (len(numbers), *grid.shape)
    arrays = {
        variable_id: Array(
            ("time", "lat", "lon"),
            shape,
            (shape[0], *daily.chunks[1:]),
            "<f4",
            {
                "units": variable.units,
                "standard_name": variable.standard_name,
                "long_name": variable.long_name,
                "cell_methods": f"{variable.cell_methods} within days time: mean over days",
            },
            Contract(variable.valid_range, "allowed"),
        ),
        **_group_axis(days, index),
        **fields.horizontal(grid),
        "n_days": coordinate(
            ("time",), counts.astype(np.int32), long_name="days in the mean", units="1"
        ),
    }
    writer = work.create(arrays, {**attributes, **daily.season, "frequency": frequency})

    def compute(tile: Tile) -> Iterator[Piece]:
        total = np.zeros((len(numbers), tile.shape[0] * tile.shape[1]))
        valid = np.zeros(total.shape, dtype=np.int64)
        for time in slabs(len(days), daily.chunks[0]):
            seasonal.accumulate(
                total, valid, daily.series(time, tile.lat, tile.lon), index[time].astype(np.int16)
            )
        mean = np.divide(total, valid, out=np.full(total.shape, np.nan), where=valid > 0)
        block = mean.reshape(-1, *tile.shape).astype(np.float32)
        yield variable_id, (slice(0, len(numbers)), tile.lat, tile.lon), block

    work.fill(writer, compute, tiles(shape, daily.chunks))


def _group_axis(days: calendars.Days, index: NDArray[np.intp]) -> dict[str, Array]:
    """Return the time axis of groups of days: bounds around them, the middle as the stamp."""
    time = days.to_cf()
    first = np.searchsorted(index, np.arange(index.max() + 1))
    last = np.searchsorted(index, np.arange(index.max() + 1), side="right") - 1
    bounds = np.stack([time[first] - 0.5, time[last] + 0.5], axis=1)
    axis = fields.time_axis(days, bounds)
    middle = coordinate(("time",), bounds.mean(axis=1), **axis["time"].attributes)
    return {**axis, "time": middle}
