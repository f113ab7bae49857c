"""Rechunking: the same values in other chunks, each decoded once, within the memory of the job."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from chain import Chain
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from finescale import chunking, fields, manifest, rechunk
from finescale.blocks import slabs, tiles
from finescale.calendars import Days
from finescale.engines import engine
from finescale.errors import ConfigError, StoreError
from finescale.fields import Field
from finescale.grids import Grid
from finescale.job import Job
from finescale.rechunk import BASE_MB, Lengths, Scratch, block_lengths, rereads
from finescale.storage import Objects
from finescale.store import MANIFEST, Repair, Store, _Checked, open_store
from finescale.verify import verify_all

DAYS = Days.range("2001-01-01", "2001-04-30", "noleap")
GRID = Grid.from_centres(40 + 0.5 * np.arange(11), -5 + 0.5 * np.arange(13))
SHAPE = (len(DAYS), *GRID.shape)
Lists = st.tuples(*(st.integers(1, 40) for _ in range(3)))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference in chunks of (50, 6, 7), its series in chunks of (120, 3, 4 or 5)."""
    monkeypatch.setattr(chunking, "TILE", 7)
    monkeypatch.setattr(chunking, "SLAB", 50)
    monkeypatch.setattr(chunking, "FULL_TIME_BYTES", 4 * len(DAYS) * 15)


@pytest.fixture
def values() -> NDArray[np.float32]:
    found = np.random.default_rng(1).uniform(250, 310, SHAPE).astype(np.float32)
    found[:, 2:5, 3:9] = np.nan
    return found


@pytest.fixture
def reference(chain: Chain, values: NDArray[np.float32]) -> Store:
    return chain.daily("reference", "r", "tas", DAYS, GRID, values, layout="tiles", season="DJF")


def rechunked(work: Job, reference: Store) -> None:
    """Write a daily field again in chunks of whole series."""
    fine = Field(reference)
    name = fine.variable_id
    arrays = fields.declare(name, fine.days, fine.grid, layout="full_time", nan="allowed")
    tasks = tiles(arrays[name].shape, arrays[name].chunks)
    with work.closing:
        writer = work.create(arrays, fine.season)
        read = rechunk.once(work, writer, tasks, fine.read, source=fine.chunks)
        every = slice(0, len(fine.days))
        work.fill(
            writer, lambda t: [(name, (every, t.lat, t.lon), read(every, t.lat, t.lon))], tasks
        )


def scratch_of(work: Job) -> Path:
    return Path(f"{work.output}.scratch")


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> list[Any]:
    """Return the arguments of every call of a method from now on."""
    calls: list[Any] = []
    original = getattr(owner, method)

    def counting(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return original(self, *arguments, **options)

    monkeypatch.setattr(owner, method, counting)
    return calls


@given(Lists, Lists, Lists, st.integers(1, 40_000))
def test_a_block_is_whole_chunks_and_fits_into_memory(
    shape: Lengths, source: Lengths, target: Lengths, room: int
) -> None:
    source = tuple(map(min, source, shape))
    target = (shape[0], *map(min, target[1:], shape[1:]))
    chunk, series = 4 * prod(source), 4 * prod(target)
    in_flight = max(2 * zarr.config.get("async.concurrency") * chunk, 3 * series)
    if room < in_flight + max(chunk, series):
        with pytest.raises(ConfigError, match="mem_mb"):
            block_lengths(shape, source, target, room=room)
        return
    block = block_lengths(shape, source, target, room=room)
    assert 4 * prod(block) + in_flight <= room
    assert all(
        b == n or (b % s == 0 and s <= b < n) for b, s, n in zip(block, source, shape, strict=True)
    )


@given(Lists, Lists, Lists)
def test_every_value_goes_through_scratch_once(
    shape: Lengths, block: Lengths, target: Lengths
) -> None:
    """Chunks of either side fit nothing of the other: a regular intermediate would overlap."""
    assume(
        prod(shape) < 10_000 and prod(n // b + 1 for n, b in zip(shape, block, strict=True)) < 60
    )
    values = np.arange(prod(shape), dtype=np.float32).reshape(shape)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Scratch(f"{folder}/x", shape, block, (shape[0], *target[1:]))
        for region in scratch.blocks():
            scratch.put(region, values[region])
        assert sum(p.stat().st_size for p in Path(folder, "x").iterdir()) == values.nbytes
        for tile in tiles(shape, target):
            found = scratch.read(slice(0, shape[0]), tile.lat, tile.lon)
            assert np.array_equal(found, values[:, tile.lat, tile.lon])
            some = slice(shape[0] // 3, shape[0] // 2 + 1)
            found = scratch.read(some, tile.lat, tile.lon)
            assert np.array_equal(found, values[some, tile.lat, tile.lon])


@given(Lists, Lists, Lists)
def test_rereads_are_those_of_brute_force(shape: Lengths, source: Lengths, target: Lengths) -> None:
    number = np.add.outer(
        1000 * (np.arange(shape[1]) // source[1]), np.arange(shape[2]) // source[2]
    )
    every = slice(0, shape[0])
    regions = [(every, tile.lat, tile.lon) for tile in tiles(shape, target)]
    read = [np.unique(number[region[1:]]).size for region in regions]
    whole = (shape[0], *source[1:])
    assert rereads(regions, whole) == sum(read) / np.unique(number).size


@pytest.mark.parametrize("threads", [1, 2])
def test_values_are_the_reference_bit_for_bit(
    threads: int, chain: Chain, reference: Store, values: NDArray[np.float32]
) -> None:
    with engine("threads", threads=threads, mem_mb=2000) as mapper:
        work = replace(chain.job("rechunk", "x", variable_id="tas"), threads=threads, map=mapper)
        rechunked(work, reference)
    found = Field(open_store(work.output))
    assert found.chunks == (len(DAYS), 3, 5)
    assert Field(reference).chunks == (50, 6, 7)
    assert found.read().tobytes() == values.tobytes()
    assert found.days.isoformat(-1) == DAYS.isoformat(-1)
    assert np.array_equal(found.grid.lon_bnds, GRID.lon_bnds)
    assert verify_all([(work.output, None)], deep=True, jobs=1) == []


def test_a_chunk_of_the_reference_is_read_once(
    chain: Chain, reference: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Series by series it would be up to four times."""
    read = counted(monkeypatch, _Checked, "get")
    rechunked(chain.job("rechunk", "x", variable_id="tas"), reference)
    chunks = [key for key, *_ in read if key.startswith("tas/") and key[4].isdigit()]
    assert len(chunks) == len(set(chunks)) == 3 * 2 * 2


def test_series_that_share_few_chunks_are_read_straight(
    chain: Chain, values: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "FULL_TIME_BYTES", 4 * prod(SHAPE))
    whole = chain.daily("reference", "w", "tas", DAYS, GRID, values, layout="tiles")
    put = counted(monkeypatch, Scratch, "put")
    work = chain.job("rechunk", "x", variable_id="tas")
    rechunked(work, whole)
    assert not put
    assert Field(open_store(work.output)).read().tobytes() == values.tobytes()


def test_scratch_is_gone_afterwards_and_what_a_dead_run_left_counts_for_nothing(
    chain: Chain, reference: Store, values: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = chain.job("rechunk", "x", variable_id="tas")
    scratch_of(work).mkdir(parents=True)
    (scratch_of(work) / "0-0-0").write_bytes(b"stale")
    put = counted(monkeypatch, Scratch, "put")
    rechunked(work, reference)
    assert put
    assert not scratch_of(work).exists()
    assert Field(open_store(work.output)).read().tobytes() == values.tobytes()


@pytest.mark.parametrize("method", ["put", "read"])
def test_a_failed_run_leaves_no_scratch_and_the_next_one_goes_on(
    method: str, chain: Chain, reference: Store, values: NDArray[np.float32], monkeypatch: Any
) -> None:
    work = chain.job("rechunk", "x", variable_id="tas")
    seen = counted(monkeypatch, Scratch, method)
    original = getattr(Scratch, method)

    def failing(self: Scratch, *arguments: Any) -> Any:
        if len(seen) == 2:
            assert scratch_of(work).exists()
            raise StoreError("the disk is gone")
        return original(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="the disk is gone"):
        patch.setattr(Scratch, method, failing)
        rechunked(work, reference)
    assert not scratch_of(work).exists()

    written = counted(monkeypatch, Scratch, "read")
    rechunked(chain.job("rechunk", "x", variable_id="tas"), reference)
    assert len(written) == len(tiles(SHAPE, (0, 3, 5))) - (2 if method == "read" else 0)
    assert not scratch_of(work).exists()
    assert Field(open_store(work.output)).read().tobytes() == values.tobytes()


def test_a_block_that_is_cut_short_is_noticed(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path / "x"), (4, 3, 3), (4, 3, 3), (4, 3, 3))
    (region,) = scratch.blocks()
    scratch.put(region, np.zeros((4, 3, 3), np.float32))
    (path,) = (tmp_path / "x").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="not whole"):
        scratch.read(slice(0, 4), slice(0, 3), slice(0, 3))


def test_one_damaged_chunk_is_healed_without_scratch(
    chain: Chain, reference: Store, values: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = chain.job("rechunk", "x", variable_id="tas")
    rechunked(work, reference)
    rows = manifest.parse(Objects(work.output).get(MANIFEST), where=work.output).rows
    sound = {row.key: row for row in rows if row.key.startswith("tas/") and row.key != "tas/0.2.1"}
    put = counted(monkeypatch, Scratch, "put")
    read = counted(monkeypatch, Field, "read")
    again = replace(chain.job("rechunk", "x", variable_id="tas"), repair=Repair(sound))
    rechunked(again, reference)
    assert (len(put), len(read)) == (0, 1)
    assert Field(open_store(work.output)).read().tobytes() == values.tobytes()


def test_too_little_memory_is_said_before_anything_is_read(
    chain: Chain, reference: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = counted(monkeypatch, Field, "read")
    work = replace(chain.job("rechunk", "x", variable_id="tas"), memory_mb=BASE_MB)
    with pytest.raises(ConfigError, match=r"need 1 MB for each thread.*found 0; raise its mem_mb"):
        rechunked(work, reference)
    assert not read


def held(n_days: int, *, room_mb: int) -> float:
    """Return by how much the stage raises the peak of this process [MB]: 400 cells a series."""
    chunking.TILE, chunking.SLAB, chunking.FULL_TIME_BYTES = 200, 10, 4 * n_days * 400
    grid = Grid.from_centres(np.linspace(0, 50, 200), np.linspace(0, 50, 200))
    days = Days.from_cf(np.arange(n_days) + 0.5, "days since 2001-01-01", "noleap")
    slab = np.random.default_rng(0).uniform(250, 310, (10, *grid.shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        chain = Chain(Path(folder))
        work = chain.job("reference", "r", variable_id="tas")
        arrays = fields.declare("tas", days, grid, layout="tiles", nan="allowed")
        region = (slice(0, 200), slice(0, 200))
        work.fill(
            work.create(arrays, {}),
            lambda time: [("tas", (time, *region), slab)],
            slabs(n_days, 10),
        )
        reference = chain.keep(work)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work = replace(chain.job("rechunk", "x", variable_id="tas"), memory_mb=BASE_MB + room_mb)
        rechunked(work, reference)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6


def test_memory_stays_within_what_was_planned() -> None:
    """The field is 160 MB. The first, small one loads libraries and compiles."""
    code = (
        "import zarr; zarr.config.set({'threading.max_workers': 1, 'async.concurrency': 4});"
        "from test_rechunk import held; held(20, room_mb=40); print(held(1000, room_mb=40))"
    )
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert float(run.stdout) < 40
