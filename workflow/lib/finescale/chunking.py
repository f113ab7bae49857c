"""How daily fields lie in chunks, and which of them a block holds: functions of shapes alone.

Imported by the plan: standard library only. Chunk shapes belong to the identity of a store.
"""

from __future__ import annotations

from typing import Literal

FULL_TIME_BYTES = 16_000_000
"""Largest chunk of a coarse store, whose chunks hold whole series."""
TILE = 48
"""Most rows and columns of a chunk of a fine store."""
SLAB = 366
"""Days of a chunk of a fine store."""
BLOCK_VALUES, MOST_VALUES = 12_500_000, 100_000_000
"""Of a block that is read from maps: as many where there is a choice, and in any case."""

Layout = Literal["full_time", "tiles"]
Shape = tuple[int, int, int]


def split_evenly(n: int, most: int) -> int:
    """Return the chunk length that covers n in as few equal pieces of at most `most`."""
    return -(-n // -(-n // most))


def chunks(shape: Shape, layout: Layout) -> Shape:
    """Return the chunk shape of a float32 daily field: a function of shape and layout only."""
    n_time, n_lat, n_lon = shape
    if layout == "tiles":
        return min(n_time, SLAB), split_evenly(n_lat, TILE), split_evenly(n_lon, TILE)
    cells = max(FULL_TIME_BYTES // (4 * n_time), 1)
    side = max(int(cells**0.5), 1)
    lat = split_evenly(n_lat, side)
    return n_time, lat, split_evenly(n_lon, max(cells // lat, 1))


def band(shape: Shape) -> tuple[int, int]:
    """Return days and rows of a block of a tiled field that is read from maps: all columns.

    All rows, and as many days as make a block, where one chunk's days of a whole map fit; else
    one row of chunks, and a source in whole maps goes through scratch.
    """
    length, height, _ = chunks(shape, "tiles")
    _, n_lat, n_lon = shape
    rows = n_lat if n_lat * n_lon * length <= MOST_VALUES else height
    return max(BLOCK_VALUES // (n_lon * rows) // length, 1) * length, rows
