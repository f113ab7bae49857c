"""Stage `coarsen`: the reference averaged onto the grid of one GCM, conserving area means."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from finescale import fields, regrid
from finescale import weights as weights_stage
from finescale.blocks import Tile, slabs, tiles
from finescale.fields import Field
from finescale.grids import Grid
from finescale.job import Job
from finescale.store import Piece, Store

READ_BYTES = 100_000_000
"""Largest region of the reference held at once."""


def run(
    work: Job,
    *,
    reference: Store,
    weights: Store,
    grid: dict[str, list[float]],
    min_valid_fraction: float,
) -> None:
    """Write the conservative area mean of a reference variable on the coarse `grid`.

    A coarse cell is NaN on days when less than `min_valid_fraction` of its area is covered by
    valid fine cells.
    """
    fine, coarse = Field(reference), Grid.from_json(grid)
    variable_id, days = fine.variable_id, fine.days
    matrix = weights_stage.read(weights, src=fine.grid, dst=coarse).csr()
    arrays = fields.declare(variable_id, days, coarse, layout="full_time", nan="allowed")
    writer = work.create(arrays, fine.season)

    def compute(tile: Tile) -> Iterator[Piece]:
        local, lat, lon = regrid.localise(matrix, tile.rows(coarse.shape[1]))
        out = np.empty((len(days), *tile.shape), dtype=np.float32)
        cells = (lat.stop - lat.start) * (lon.stop - lon.start)
        length = max(READ_BYTES // (4 * cells * fine.chunks[0]), 1) * fine.chunks[0]
        for time in slabs(len(days), length):
            means = regrid.apply(
                local, fine.series(time, lat, lon), min_valid_fraction=min_valid_fraction
            )
            out[time] = means.reshape(-1, *tile.shape)
        yield variable_id, (slice(0, len(days)), tile.lat, tile.lon), out

    work.fill(writer, compute, tiles(arrays[variable_id].shape, arrays[variable_id].chunks))
