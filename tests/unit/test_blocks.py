"""Blocks: every cell once, and the same bits whatever runs them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from chain import Chain, Mapper, grids
from hypothesis import given
from hypothesis import strategies as st

from finescale import chunking, fields, store
from finescale.blocks import (
    JOB_RESERVE_MB,
    WORKER_MB,
    Fill,
    Tile,
    cluster_sizes,
    engine,
    slabs,
    tiles,
)
from finescale.calendars import Days
from finescale.errors import ConfigError, StoreError
from finescale.store import Writer

ROOT = Path(__file__).parents[2]
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


# --------------------------------------------------------------------------------------
# Engines


def slow_square(number: int) -> int:
    """Finish in another order than started."""
    time.sleep(0.002 * (7 - number % 8))
    return number**2


def test_results_come_in_the_order_of_their_tasks() -> None:
    with engine("threads", threads=4, mem_mb=1000) as run:
        assert run(slow_square, range(24)) == [n**2 for n in range(24)]
        assert run(slow_square, []) == []


def assert_errors_come_out_as_they_are(run: Mapper) -> None:
    """An error wrapped by the engine would lose the one clear message of the run."""
    with pytest.raises(StoreError, match=r"^absent\.zarr is not committed"):
        run(store.open_store, ["absent.zarr"])


def test_what_a_block_raises_comes_out_as_it_is() -> None:
    with engine("threads", threads=2, mem_mb=1000) as run:
        assert_errors_come_out_as_they_are(run)


def test_an_engine_that_does_not_exist_is_refused() -> None:
    with (
        pytest.raises(ConfigError) as caught,
        engine("slurm", threads=1, mem_mb=1000),
    ):
        pass
    assert str(caught.value) == (
        "the profile's resource `dask` must be threads or cluster, found 'slurm'"
    )


def coarsened(folder: Path, run: Mapper) -> dict[str, bytes]:
    """Return the bytes of a real stage of six blocks."""
    chain = Chain(folder, map=run)
    fine, coarse = grids(n_lat=16, n_lon=24)
    days = Days.range("2001-01-01", "2002-12-31", "noleap")
    values = np.random.default_rng(2).normal(280, 5, (len(days), *fine.shape))
    truth = Chain(folder).daily("reference", "obs", "tas", days, fine, values, layout="tiles")
    made = chain.coarsen("tas", truth, coarse)
    assert len(tiles(made.array("tas").shape, made.array("tas").chunks)) == 6
    return {
        str(path.relative_to(made.url)): path.read_bytes()
        for path in Path(made.url).rglob("*")
        if path.is_file() and path.name != store.PROVENANCE
    }


def in_order(function: Callable[[Any], Any], tasks: Any) -> list[Any]:
    return [function(task) for task in tasks]


def test_threads_and_workers_give_the_bits_of_one_block_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the cluster of a job, once the job is over, leaves no process behind."""
    monkeypatch.setattr(chunking, "FULL_TIME_BYTES", 4 * 730 * 4)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "workflow" / "lib"))
    serial = coarsened(tmp_path / "serial", in_order)
    with engine("threads", threads=3, mem_mb=1000) as run:
        assert coarsened(tmp_path / "threads", run) == serial
    before = psutil.Process().children(recursive=True)
    with engine("cluster", threads=8, mem_mb=2500, scratch=str(tmp_path)) as run:
        workers = set(psutil.Process().children(recursive=True)) - set(before)
        assert len(workers) >= 2, "no process of its own did the work"
        assert coarsened(tmp_path / "cluster", run) == serial
        assert_errors_come_out_as_they_are(run)
    left = psutil.wait_procs(workers, timeout=10)[1]
    assert left == []


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


@given(threads=st.integers(1, 256), mem_mb=st.integers(0, 1_000_000))
def test_a_cluster_stays_within_its_job(threads: int, mem_mb: int) -> None:
    """Limits that sum to more than the job's memory would let the kernel kill the job."""
    if mem_mb < JOB_RESERVE_MB + WORKER_MB:
        with pytest.raises(ConfigError, match=f"mem_mb={mem_mb} leaves {mem_mb - JOB_RESERVE_MB} "):
            cluster_sizes(threads, mem_mb)
        return
    workers, each, limit = cluster_sizes(threads, mem_mb)
    assert workers >= 1 and each >= 1
    assert workers * each <= threads
    assert workers * limit <= (mem_mb - JOB_RESERVE_MB) * 1e6
    assert limit >= WORKER_MB * 1e6
    assert workers == 1 or each >= 2, "processes cost memory, threads do not"
