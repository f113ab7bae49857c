"""Blocks: every cell once, and everything that was computed is written."""

from pathlib import Path

import numpy as np
from chain import grids
from hypothesis import given
from hypothesis import strategies as st

from finescale import fields, store
from finescale.blocks import Fill, Tile, slabs, tiles
from finescale.calendars import Days
from finescale.store import Writer

size = st.integers(1, 40)


@given(shape=st.tuples(size, size, size), chunks=st.tuples(size, size, size))
def test_tiles_hold_every_cell_once(
    shape: tuple[int, int, int], chunks: tuple[int, int, int]
) -> None:
    times = np.zeros(shape[1:], dtype=int)
    cut = tiles(shape, chunks)
    for tile in cut:
        assert tile.shape == times[tile.lat, tile.lon].shape, "beyond the end of the array"
        assert tile.lat.start % chunks[1] == 0 and tile.lon.start % chunks[2] == 0
        times[tile.lat, tile.lon] += 1
    assert (times == 1).all()
    assert len(cut) == -(-shape[1] // chunks[1]) * -(-shape[2] // chunks[2])


@given(n=st.integers(0, 100), length=size)
def test_slabs_follow_each_other_from_begin_to_end(n: int, length: int) -> None:
    assert [i for s in slabs(n, length) for i in range(s.start, s.stop)] == list(range(n))
    assert all(s.stop - s.start == length for s in slabs(n, length)[:-1])


@given(shape=st.tuples(size, size), chunks=st.tuples(size, size))
def test_rows_of_a_tile_are_its_cells_in_the_flat_grid(
    shape: tuple[int, int], chunks: tuple[int, int]
) -> None:
    flat = np.arange(shape[0] * shape[1]).reshape(shape)
    for tile in tiles(shape, chunks):
        assert np.array_equal(tile.rows(shape[1]), flat[tile.lat, tile.lon].reshape(-1))


def test_a_block_writes_every_piece_it_computes(tmp_path: Path) -> None:
    arrays = fields.declare(
        "tas", Days.range("2001-01-01", "2001-01-05", "noleap"), grids()[0],
        layout="tiles", nan="never",
    )  # fmt: skip
    header = store.Header("bcsd", "0" * 64, {}, {})
    writer = Writer(str(tmp_path / "x.zarr"), header, arrays).create({})
    values = np.full((5, 8, 12), 280, dtype=np.float32)
    whole = Tile(slice(0, 8), slice(0, 12))
    Fill(writer, lambda tile: [("tas", (slice(0, 5), tile.lat, tile.lon), values)])(whole)
    writer.commit()
    assert np.array_equal(store.open_store(writer.url).read("tas"), values)
