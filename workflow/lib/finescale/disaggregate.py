"""From the coarse to the fine grid: what every product stage shares.

Fine cells need only their coarse neighbours, so a product is written in one pass: read the small
coarse store, interpolate, apply what the method adds, write. No fine intermediate exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finescale import calendars, fields, regrid
from finescale import weights as weights_stage
from finescale.blocks import Piece, Tile, slabs, tiles
from finescale.calendars import Days
from finescale.fields import Field
from finescale.grids import Grid
from finescale.job import Job
from finescale.store import Store

Anomaly = Callable[[NDArray[Any], Days, slice, slice], NDArray[Any]]
"""(coarse block (time, lat, lon), its days, coarse rows and columns) -> what is interpolated."""
Finish = Callable[[NDArray[Any], Days, slice, Tile], NDArray[Any]]
"""(interpolated (time, lat, lon), its days, time slice of the product, tile) -> the product."""


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Bilinear interpolation from valid coarse cells; holes are filled from the nearest."""

    matrix: regrid.Matrix
    filled: NDArray[np.bool_]

    @classmethod
    def between(
        cls, weights: Store, *, coarse: Grid, fine: Grid, valid: NDArray[np.bool_]
    ) -> Interpolation:
        """Return the interpolation for a coarse mask `valid` (lat, lon)."""
        table = weights_stage.read(weights, src=coarse, dst=fine)
        index, distance = regrid.fill_nearest(valid, coarse)
        filled = regrid.filled_mask(table, distance).reshape(fine.shape)
        return cls(regrid.compose(table, index).csr(), filled)


def run(
    work: Job,
    *,
    coarse: Field,
    weights: Store,
    mask: NDArray[np.bool_],
    fine: Grid,
    valid: NDArray[np.bool_],
    variable_id: str,
    calendar: str | None,
    attributes: Mapping[str, Any],
    anomaly: Anomaly,
    finish: Finish,
) -> None:
    """Write a daily product on the fine grid, NaN exactly where `mask` is False.

    Parameters
    ----------
    coarse
        What is interpolated.
    mask
        (lat, lon) fine cells that belong to the product.
    valid
        (lat, lon) coarse cells that have values.
    calendar
        Convert the product's axis to this calendar; an inserted day repeats the day before it.
    anomaly, finish
        What the method does before and after the interpolation.
    """
    days, index = _product_axis(coarse.days, calendar)
    interpolation = Interpolation.between(weights, coarse=coarse.grid, fine=fine, valid=valid)
    arrays = fields.declare(
        variable_id,
        days,
        fine,
        layout="tiles",
        nan="mask",
        attributes={"ancillary_variables": "filled"},
    )
    arrays["filled"] = fields.flag(
        interpolation.filled & mask, "coarse value taken from beyond one coarse cell", "near filled"
    )
    own = coarse.days.calendar
    converted = {} if days.calendar == own else {"calendar_converted_from": own}
    writer = work.create(arrays, {**attributes, **coarse.season, **converted}, mask=mask)
    chunks = arrays[variable_id].chunks

    def compute(tile: Tile) -> Iterator[Piece]:
        rows = tile.rows(fine.shape[1])
        inside = mask[tile.lat, tile.lon].reshape(-1)
        local, lat, lon = regrid.localise(interpolation.matrix, rows)
        series = coarse.read(slice(None), lat, lon)
        for time in slabs(len(days), chunks[0]):
            taken, dates = series[index[time]], days[time]
            quantity = anomaly(taken, coarse.days[index[time]], lat, lon)
            smooth = regrid.apply(local, quantity.reshape(len(dates), -1), min_valid_fraction=0.0)
            block = finish(smooth.reshape(-1, *tile.shape), dates, time, tile)
            block = np.ascontiguousarray(block, dtype=np.float32)
            block.reshape(len(dates), -1)[:, ~inside] = np.nan
            yield variable_id, (time, tile.lat, tile.lon), block

    work.fill(writer, compute, tiles(arrays[variable_id].shape, chunks))


def _product_axis(days: Days, calendar: str | None) -> tuple[Days, NDArray[np.int64]]:
    """Return the product's days and, for each, the day of the coarse series it takes."""
    if calendar is None or calendars.reread(calendar) == days.calendar:
        return days, np.arange(len(days))
    target, index = calendars.convert(days, calendar)
    return target, np.maximum.accumulate(np.where(index < 0, 0, index))
