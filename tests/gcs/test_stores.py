"""Stores in a bucket: the same bytes as in a folder, whatever the network does."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import bit_flipped, missing
from server import Flaky

from finescale import store
from finescale.blocks import Tile, tiles
from finescale.errors import FinescaleError, StoreError, TransientError
from finescale.job import Job
from finescale.storage import Objects
from finescale.store import Array, coordinate, open_store

SHAPE, CHUNKS = (50, 8, 12), (50, 4, 4)
VALUES = np.random.default_rng(0).normal(280, 9, SHAPE).astype(np.float32)
ARRAYS = {
    "tas": Array(("time", "lat", "lon"), SHAPE, CHUNKS),
    "lat": coordinate(("lat",), np.arange(8.0)),
}
TILES = tiles(SHAPE, CHUNKS)
"""Six blocks of one chunk of 3 kB."""
UPLOAD, DOWNLOAD = "POST .*/o[?]", "GET /download"

Hook = Callable[[int], None]


def url_of(root: str) -> str:
    return f"{root}/bcsd/x.zarr"


def make(root: str, before_block: Hook = lambda n: None) -> list[int]:
    """Make a store as a rule's script does; return the numbers of the blocks it computed."""
    computed: list[int] = []

    def compute(tile: Tile) -> Iterator[Any]:
        computed.append(TILES.index(tile))
        before_block(len(computed))
        yield "tas", (slice(0, 50), tile.lat, tile.lon), VALUES[:, tile.lat, tile.lon]

    work = Job("bcsd", url_of(root), "ab" * 32, {"variable_id": "tas"}, {"stage": "bcsd"})
    with work.closing:
        work.fill(work.create(ARRAYS, {}), compute, TILES)
    return computed


def content(root: str) -> dict[str, bytes]:
    """Return every object below a root but for facts of the run and markers."""
    objects = Objects(root)
    keys = (key for key in objects.list() if not key.startswith(store.MARKERS))
    return {key: objects.get(key) for key in keys if not key.endswith(store.PROVENANCE)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the objects of the store, as made in a folder."""
    root = str(tmp_path_factory.mktemp("stores"))
    assert make(root) == [0, 1, 2, 3, 4, 5]
    return content(root)


def test_a_store_in_a_bucket_is_the_one_in_a_folder(
    bucket: str, whole: dict[str, bytes], pauses: list[float]
) -> None:
    make(bucket)
    assert content(bucket) == whole
    assert np.array_equal(open_store(url_of(bucket)).read("tas"), VALUES)
    assert pauses == []


@pytest.mark.parametrize("how", [{"upload": 1000}, {"answer": 0}, {"status": 503}, {"status": 429}])
def test_interrupted_uploads_are_repeated(
    how: dict[str, int], bucket: str, whole: dict[str, bytes], proxy: Flaky, pauses: list[float]
) -> None:
    make(bucket, lambda n: proxy.fail(UPLOAD, 2, **how))
    assert len(pauses) == 12
    assert content(bucket) == whole


def test_a_run_whose_network_fails_goes_on_where_it_stopped(
    bucket: str, whole: dict[str, bytes], proxy: Flaky, pauses: list[float]
) -> None:
    def cut(n: int) -> None:
        if n == 4:
            proxy.fail(UPLOAD, 100, upload=1000)

    with pytest.raises(TransientError, match="what is finished is kept") as caught:
        make(bucket, cut)
    assert str(caught.value).count("\n") == 0
    with pytest.raises(StoreError, match="is not committed"):
        open_store(url_of(bucket))
    proxy.reset()
    assert make(bucket) == [3, 4, 5]
    assert content(bucket) == whole


def test_a_finished_block_that_was_changed_since_is_written_again(
    bucket: str, whole: dict[str, bytes], proxy: Flaky
) -> None:
    def crash(n: int) -> None:
        if n == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(bucket, crash)
    bit_flipped(url_of(bucket), "tas/0.0.1")
    proxy.reset()
    assert make(bucket) == [1, 3, 4, 5]
    assert proxy.count(f"{DOWNLOAD}.*tas%2F0") == 0, "the listing tells, nothing is read"
    assert content(bucket) == whole


def test_a_writer_without_permission_stops_at_once(
    bucket: str, proxy: Flaky, pauses: list[float]
) -> None:
    def forbid(n: int) -> None:
        if n == 4:
            proxy.fail(UPLOAD, 100, status=403)

    with pytest.raises(StoreError, match="is not permitted"):
        make(bucket, forbid)
    assert pauses == []


def test_a_chunk_that_changed_before_the_commit_is_refused(bucket: str) -> None:
    """Of the same size: only the checksum of the listing tells."""

    def change(n: int) -> None:
        if n == 6:
            bit_flipped(url_of(bucket), "tas/0.0.1")

    with pytest.raises(StoreError) as caught:
        make(bucket, change)
    assert str(caught.value) == (
        f"{url_of(bucket)} is not whole, so it is not committed: tas/0.0.1: not what was written"
    )
    with pytest.raises(StoreError, match="is not committed"):
        open_store(url_of(bucket))


@pytest.mark.parametrize(
    ("damage", "word"), [(bit_flipped, "not what was committed"), (missing, "missing")]
)
def test_a_chunk_that_is_not_what_was_committed_is_not_read(
    damage: Callable[[str, str], None], word: str, bucket: str
) -> None:
    make(bucket)
    opened = open_store(url_of(bucket))
    damage(url_of(bucket), "tas/0.1.2")
    with pytest.raises(StoreError) as caught:
        opened.read("tas")
    assert str(caught.value) == (
        f"{url_of(bucket)}: chunk tas/0.1.2 is {word}; "
        f"`finescale heal {url_of(bucket)}` recomputes it"
    )
    sound = (slice(0, 50), slice(0, 4), slice(0, 12))
    assert np.array_equal(opened.read("tas", sound), VALUES[sound])


def test_a_download_that_is_cut_is_read_again(
    bucket: str, proxy: Flaky, pauses: list[float]
) -> None:
    make(bucket)
    opened = open_store(url_of(bucket))
    proxy.fail(f"{DOWNLOAD}.*tas%2F0", 4, answer=1000)
    assert np.array_equal(opened.read("tas"), VALUES)
    assert len(pauses) == 4


@pytest.mark.parametrize("status", [403, 503])
def test_a_store_that_cannot_be_reached_is_not_one_that_is_missing(
    status: int, bucket: str, proxy: Flaky, pauses: list[float]
) -> None:
    """Taken for uncommitted it would be made again."""
    make(bucket)
    proxy.fail("GET", 1000, status=status)
    with pytest.raises(FinescaleError) as caught:
        open_store(url_of(bucket))
    assert isinstance(caught.value, TransientError) == (status == 503)
    assert "is not committed" not in str(caught.value)


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_of_two_runs_at_once_one_makes_the_store_and_the_other_waits(
    place: str, bucket: str, whole: dict[str, bytes], tmp_path: Path
) -> None:
    root = {"folder": str(tmp_path), "bucket": bucket}[place]
    with ThreadPoolExecutor(2) as pool:
        computed = list(pool.map(lambda _: make(root), range(2)))
    assert sorted(computed) == [[], [0, 1, 2, 3, 4, 5]]
    assert content(root) == whole


def test_a_run_on_a_full_disk_goes_on_once_there_is_room(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    def mount(options: str) -> subprocess.CompletedProcess[str]:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = mount("size=64k")
    if done.returncode:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")
    try:
        with pytest.raises(StoreError, match="no space is left; what is finished is kept"):
            make(str(tmp_path))
        assert not list(tmp_path.rglob("*.partial"))
        assert mount("remount,size=1m").returncode == 0
        assert 0 < len(make(str(tmp_path))) < 6
        assert content(str(tmp_path)) == whole
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
