"""Blocks: one function mapped over tiles of a store (`engines` decides where).

A task is one tile: it reads regions of its inputs, computes, and hands regions to the writer.
Blocks never see each other, so neither tiling order, threads nor workers change a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finescale import store
from finescale.store import Array, Piece, Region, Writer


@dataclass(frozen=True)
class Tile:
    """Rows and columns of one task; all of time, or a slice of it."""

    lat: slice
    lon: slice
    time: slice | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Return the number of rows and columns."""
        return self.lat.stop - self.lat.start, self.lon.stop - self.lon.start

    def rows(self, n_lon: int) -> NDArray[np.int64]:
        """Return the flat cell numbers of the tile in a grid of `n_lon` columns."""
        lat = np.arange(self.lat.start, self.lat.stop)
        lon = np.arange(self.lon.start, self.lon.stop)
        return (lat[:, None] * n_lon + lon[None, :]).reshape(-1)


def tiles(shape: tuple[int, ...], chunks: tuple[int, ...]) -> list[Tile]:
    """Return the tiles of a (..., lat, lon) array, one per chunk column."""
    return [
        Tile(lat, lon)
        for lat in slabs(shape[-2], chunks[-2])
        for lon in slabs(shape[-1], chunks[-1])
    ]


def slabs(n: int, length: int) -> list[slice]:
    """Return 0..n in consecutive slices of `length`."""
    return [slice(start, min(start + length, n)) for start in range(0, n, length)]


Task = Tile | slice
"""A tile with all of time, or a slab of the first dimension."""


def name(task: Task) -> str:
    """Return the name of a task in the journal of its store."""
    ranges = [task] if isinstance(task, slice) else [task.time, task.lat, task.lon]
    return "_".join(f"{s.start}-{s.stop}" for s in ranges if s is not None)


def keys(task: Task, arrays: Mapping[str, Array]) -> set[str]:
    """Return the keys of the chunks that a task writes: of every array that has no values yet.

    An array without lat and lon has one row and column for each tile.
    """
    written = {name: array for name, array in arrays.items() if array.values is None}
    horizontal = next((a for a in written.values() if a.dims[-2:] == ("lat", "lon")), None)
    found: set[str] = set()
    for label, array in written.items():
        whole = tuple(slice(0, n) for n in array.shape)
        if isinstance(task, slice):
            region: Region = (task, *whole[1:])
        elif array.dims[-2:] == ("lat", "lon") or horizontal is None:
            leading = whole[:-2] if task.time is None else (task.time, *whole[1:-2])
            region = (*leading, task.lat, task.lon)
        else:
            row, column = (
                s.start // c
                for s, c in zip((task.lat, task.lon), horizontal.chunks[-2:], strict=True)
            )
            region = (*whole[:-2], slice(row, row + 1), slice(column, column + 1))
        found |= store.keys(label, array, region)
    return found


@dataclass(frozen=True, repr=False)  # Dask names tasks by it: all arrays of the writer, printed
class Fill:
    """The task of a block: write every piece that `compute` yields for it."""

    writer: Writer
    compute: Callable[[Any], Iterable[Piece]]

    def __call__(self, task: Task) -> None:
        """Compute and write one block."""
        rows = self.writer.write_block(name(task), self.compute(task))
        assert {row.key for row in rows} == keys(task, self.writer.arrays), name(task)
