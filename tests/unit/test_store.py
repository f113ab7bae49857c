"""Stores: what is read is what was written, and nothing half-made is ever read."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fsspec
import google_crc32c
import numcodecs
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array
from numpy.typing import NDArray

from finescale import manifest as manifest_module
from finescale import store
from finescale.blocks import slabs
from finescale.errors import ContractError, StoreError
from finescale.storage import Objects
from finescale.store import Array, Contract, Header, Region, Writer, open_store

HEADER = Header("bcsd", "ab" * 32, {"variable_id": "tas"}, {"stage": "bcsd", "version": 1})
DIMS = ("time", "lat", "lon")
SHAPE, CHUNKS = (5, 4, 6), (2, 2, 3)
"""Twelve chunks, the last ones in time half empty."""


@pytest.fixture(params=["folder", "object store"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give a place for a store, on disk and in memory."""
    if request.param == "folder":
        yield str(tmp_path / "x.zarr")
        return
    yield "memory://stores/x.zarr"
    fsspec.filesystem("memory").rm("/stores", recursive=True)


def declared(
    shape: tuple[int, ...] = SHAPE,
    chunks: tuple[int, ...] = CHUNKS,
    dtype: str = "<f4",
    **contract: Any,
) -> dict[str, Array]:
    units = {"units": "K"}
    return {"tas": Array(DIMS[-len(shape) :], shape, chunks, dtype, units, Contract(**contract))}


def blocks(array: Array) -> list[Region]:
    """Return the regions of an array that are one chunk each."""
    return list(product(*map(slabs, array.shape, array.chunks)))


def field(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(280, 9, shape).astype(np.float32)


def write(writer: Writer, region: Region, values: NDArray[Any], name: str = "tas") -> None:
    """Write a block that is one region."""
    writer.write_block(_block(region), [(name, region, values[region])])


def _block(region: Region) -> str:
    return "-".join(str(s.start) for s in region)


def filled(writer: Writer, values: NDArray[Any], name: str = "tas") -> Writer:
    """Write every block that no earlier attempt has finished."""
    for region in blocks(writer.arrays[name]):
        if _block(region) not in writer.finished:
            write(writer, region, values, name)
    return writer


def made(url: str, values: NDArray[Any], arrays: dict[str, Array] | None = None) -> store.Store:
    """Return a store with these values, going on where an interrupted attempt stopped."""
    arrays = arrays or declared(values.shape, dtype=values.dtype.str, nan="allowed")
    filled(Writer(url, HEADER, arrays).create({"title": "a test"}), values).commit()
    return open_store(url)


def objects(url: str) -> dict[str, bytes]:
    """Return the content of every object of a store that is a function of its data."""
    fs, root = fsspec.core.url_to_fs(url)
    return {
        path.removeprefix(root + "/"): fs.cat_file(path)
        for path in fs.find(root)
        if not path.endswith(store.PROVENANCE)
    }


def manifest(url: str) -> dict[str, Any]:
    return json.loads(objects(url)[store.MANIFEST])


def chunk_table(url: str) -> dict[str, list[Any]]:
    """Return the manifest's row of each chunk: bytes, crc32c, count, nan, min, max, sum."""
    return {key: row for key, *row in manifest(url)["chunks"]}


# --------------------------------------------------------------------------------------
# What is written is read


@st.composite
def arrays_in_chunks(draw: st.DrawFn) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Draw an array and the shape of its chunks."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    dtype = draw(st.sampled_from(["<f4", "<f8", "|i1", "<i4", "<i8"]))
    numbers = {"allow_infinity": False, "min_value": -1e6, "max_value": 1e6}
    elements = {"<f4": numbers, "<f8": numbers}.get(dtype)
    return draw(any_array(dtype, shape, elements=elements)), chunks


@given(arrays_in_chunks())
@settings(max_examples=50)
def test_what_is_written_is_read(case: tuple[NDArray[Any], tuple[int, ...]]) -> None:
    values, chunks = case
    arrays = declared(values.shape, chunks, values.dtype.str, nan="allowed")
    opened = made("memory://property/x.zarr", values, arrays)
    read = opened.read("tas")
    assert read.dtype == values.dtype
    assert read.tobytes() == values.tobytes()
    assert opened.array("tas").chunks == chunks
    assert len(chunk_table(opened.url)) == len(blocks(arrays["tas"]))


@given(arrays_in_chunks())
@settings(max_examples=50)
def test_the_manifest_holds_the_statistics_of_every_chunk(
    case: tuple[NDArray[Any], tuple[int, ...]],
) -> None:
    """Sums go over each cell in float64, then over the cells; any other order would differ."""
    values, chunks = case
    arrays = declared(values.shape, chunks, values.dtype.str, nan="allowed")
    table = chunk_table(made("memory://property/x.zarr", values, arrays).url)
    for region in blocks(arrays["tas"]):
        chunk = values[region].astype(np.float64)
        valid = chunk[~np.isnan(chunk)]
        expected: list[Any] = [chunk.size, chunk.size - valid.size, None, None, None]
        if valid.size:
            cells = np.nan_to_num(chunk).reshape(-1, int(np.prod(chunk.shape[-2:])))
            total = np.add.accumulate(np.add.accumulate(cells, axis=0)[-1])[-1]
            expected[2:] = [valid.min(), valid.max(), total]
        index = ".".join(str(s.start // c) for s, c in zip(region, chunks, strict=True))
        assert table[f"tas/{index}"][2:] == expected


def test_the_manifest_holds_size_and_checksum_of_every_chunk_as_it_lies_there(url: str) -> None:
    made(url, field())
    lying = objects(url)
    assert len(chunk_table(url)) == 12
    for key, (size, crc, *_) in chunk_table(url).items():
        assert (size, crc) == (len(lying[key]), f"{google_crc32c.value(lying[key]):08x}")


@pytest.mark.parametrize("value", [np.nan, 0.0], ids=["NaN, the fill value", "zeros"])
def test_a_chunk_of_one_value_is_written_like_any_other(value: float, url: str) -> None:
    """Zarr leaves out chunks of fill values, and a chunk left out looks like one that was lost."""
    made(url, np.full(SHAPE, value, dtype=np.float32))
    assert store.expected_keys(declared()) < set(objects(url))


def test_coordinates_and_small_tables_are_written_at_creation(url: str) -> None:
    arrays = {
        **declared(),
        "time": store.coordinate(("time",), np.arange(5.0), units="days since 1850-01-01"),
        "name": store.coordinate(("score",), np.array(["rmse", "bias"])),
        "height": store.coordinate((), np.float64(2.0)),
    }
    opened = made(url, field(), arrays)
    assert opened.read("time").tolist() == [0, 1, 2, 3, 4]
    assert opened.read("name").tolist() == ["rmse", "bias"]
    assert opened.read("height") == 2
    assert dict(opened.array("time").attrs)["units"] == "days since 1850-01-01"


def test_a_store_says_what_it_is(url: str) -> None:
    opened = made(url, field())
    digest = hashlib.sha256(objects(url)[store.MANIFEST]).hexdigest()
    assert opened.attributes == {
        "title": "a test",
        "finescale_stage": "bcsd",
        "finescale_identity": "ab" * 32,
        "finescale_facets": {"variable_id": "tas"},
        "finescale_manifest": digest,
    }
    assert manifest(url)["identity"] == "ab" * 32
    assert manifest(url)["recipe"] == HEADER.recipe
    assert "tas" in opened and "pr" not in opened


def test_xarray_reads_a_store(tmp_path: Path) -> None:
    arrays = {**declared(), "lat": store.coordinate(("lat",), np.arange(4.0))}
    made(str(tmp_path / "x.zarr"), field(), arrays)
    with xr.open_zarr(tmp_path / "x.zarr", consolidated=True) as ds:
        assert ds.tas.dims == DIMS
        assert np.array_equal(ds.tas.values, field())
        assert list(ds.coords) == ["lat"]


# --------------------------------------------------------------------------------------
# The same data are the same bytes


def shuffled(writer: Writer, values: NDArray[Any]) -> None:
    for region in reversed(blocks(writer.arrays["tas"])):
        write(writer, region, values)


def several_at_once(writer: Writer, values: NDArray[Any]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda region: write(writer, region, values), blocks(writer.arrays["tas"])))


def all_chunks_in_one_region(writer: Writer, values: NDArray[Any]) -> None:
    write(writer, tuple(slice(0, n) for n in values.shape), values)


def another_process(writer: Writer, values: NDArray[Any]) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for region in blocks(writer.arrays["tas"]):
            pieces = [("tas", region, values[region])]
            pool.submit(writer.write_block, _block(region), pieces).result()


@pytest.mark.parametrize(
    "write", [shuffled, several_at_once, all_chunks_in_one_region, another_process]
)
def test_bytes_do_not_depend_on_who_writes_or_when(
    write: Callable[[Writer, NDArray[Any]], None], tmp_path: Path
) -> None:
    """Chunks of megabytes: Blosc with threads of its own would cut them up by their number."""
    arrays = declared((300, 60, 60), (150, 60, 60))
    values = field((300, 60, 60))
    made(str(tmp_path / "a.zarr"), values, arrays)
    before = numcodecs.blosc.set_nthreads(4)
    try:
        writer = Writer(str(tmp_path / "b.zarr"), HEADER, arrays).create({"title": "a test"})
        write(writer, values)
        writer.commit()
    finally:
        numcodecs.blosc.set_nthreads(before)
    assert objects(str(tmp_path / "a.zarr")) == objects(str(tmp_path / "b.zarr"))


def test_run_facts_lie_outside_what_is_compared(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made(url, field())
    before = objects(url)
    monkeypatch.setattr(store, "_provenance", lambda: {"host": "elsewhere"})
    made(url, field())
    assert objects(url) == before
    fs, root = fsspec.core.url_to_fs(url)
    assert json.loads(fs.cat_file(f"{root}/{store.PROVENANCE}")) == {"host": "elsewhere"}


def test_the_sentinel_differs_when_one_value_differs(url: str) -> None:
    """Snakemake and readers see only the sentinel: metadata alone would be equal."""
    made(url, field())
    before = objects(url)
    values = field()
    values[4, 3, 5] += 1
    made(url, values)
    changed = {key for key in before if before[key] != objects(url)[key]}
    assert changed == {"tas/2.1.1", store.MANIFEST, ".zattrs", store.SENTINEL}


# --------------------------------------------------------------------------------------
# Nothing half-made is read


def test_a_store_cannot_be_opened_before_it_is_committed(url: str) -> None:
    def refused() -> bool:
        with pytest.raises(StoreError) as caught:
            open_store(url)
        return str(caught.value) == (
            f"{url} is not committed (no .zmetadata); run the workflow again, it makes it"
        )

    assert refused(), "nothing is there"
    writer = Writer(url, HEADER, declared()).create({})
    assert refused(), "its metadata are there"
    filled(writer, field())
    assert store.SENTINEL not in objects(url)
    assert refused(), "its chunks are there"
    writer.commit()
    assert np.array_equal(open_store(url + "/.zmetadata").read("tas"), field())


def test_half_a_sentinel_is_none(url: str) -> None:
    made(url, field())
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/{store.SENTINEL}", objects(url)[store.SENTINEL][:100])
    with pytest.raises(StoreError, match="is not committed"):
        open_store(url)


def test_a_store_of_another_identity_is_refused(url: str) -> None:
    opened = made(url, field())
    assert opened.require("ab" * 32) is opened
    with pytest.raises(StoreError) as caught:
        opened.require("cd" * 32)
    assert str(caught.value) == (
        f"{url} holds identity {'ab' * 32}, expected {'cd' * 32}; "
        "the store was changed by hand, or the plan is another: delete it and run again"
    )


class Crash(Exception):
    """The process dies here."""


def test_a_crash_between_any_two_writes_leaves_nothing_that_can_be_read(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(url, field())
    whole = objects(url)
    put, create, record = Objects.put, Objects.create, store._Recorder.set
    left = 0

    def tick() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Crash

    def dying_put(self: Objects, key: str, data: bytes) -> None:
        tick()
        put(self, key, data)

    def dying_create(self: Objects, key: str, data: bytes) -> bool:
        tick()
        return create(self, key, data)

    async def dying_set(self: Any, key: str, value: Any) -> None:
        tick()
        await record(self, key, value)

    monkeypatch.setattr(Objects, "put", dying_put)
    monkeypatch.setattr(Objects, "create", dying_create)
    monkeypatch.setattr(store._Recorder, "set", dying_set)
    for n in count(1):
        Objects(url).clear()
        left = n
        try:
            made(url, field())
        except Crash:
            with pytest.raises(StoreError, match="is not committed"):
                open_store(url)
            left = -1
            made(url, field())
            assert objects(url) == whole
            assert not Objects(url + store.JOURNAL).exists()
        else:
            break
    commit = 4 if Objects(url).is_local else 5  # with its marker
    assert n - 1 == 2 + 12 + 12 + commit, "header, record of creation, chunks, records, commit"


def test_a_crash_within_the_last_step_leaves_nothing_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "x.zarr")
    writer = filled(Writer(url, HEADER, declared()).create({}), field())
    link = os.link

    def dying(source: str, target: str) -> None:
        if target.endswith(store.SENTINEL):
            raise Crash
        link(source, target)

    monkeypatch.setattr(os, "link", dying)
    with pytest.raises(Crash):
        writer.commit()
    with pytest.raises(StoreError, match="is not committed"):
        open_store(url)


def test_what_lay_there_before_counts_for_nothing(url: str) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    made(url, field((3, 3, 3)), declared((3, 3, 3), (1, 1, 1)))
    put(f"{root}/tas/junk", b"left by a crash", fs)
    put(f"{root}.journal/tas.9-9-9.json", b"[]", fs)
    arrays = declared()
    writer = Writer(url, HEADER, arrays).create({})
    metadata = {".zgroup", ".zattrs", "tas/.zarray", "tas/.zattrs"}
    assert set(objects(url)) - metadata <= store.expected_keys(arrays), "only what is overwritten"
    with pytest.raises(StoreError, match=r"tas/0\.0\.0: not journalled"):
        writer.commit()
    assert {path.rpartition("/")[2] for path in fs.find(root + ".journal")} == {
        store.HEADER,
        "create.json",
    }


def test_the_journal_goes_with_the_commit(url: str) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    writer = filled(Writer(url, HEADER, declared()).create({}), field())
    assert len(fs.find(root + ".journal")) == 12 + 2
    writer.commit()
    assert not fs.exists(root + ".journal")


@pytest.mark.parametrize("place", ["x.zarr/tas/0.0.ab12.partial", "x.zarr.journal/a.partial"])
def test_what_a_killed_worker_left_goes_with_the_commit(place: str, tmp_path: Path) -> None:
    """Its task ran again on another worker: refused, a whole store would be thrown away."""
    url = str(tmp_path / "x.zarr")
    made(url, field())
    whole = objects(url)
    writer = filled(
        Writer(url, HEADER, declared(nan="allowed")).create({"title": "a test"}), field()
    )
    (tmp_path / place).write_bytes(b"half a ch")
    writer.commit()
    assert objects(url) == whole
    assert list(tmp_path.iterdir()) == [tmp_path / "x.zarr"]


# --------------------------------------------------------------------------------------
# An interrupted attempt is taken up again


def interrupted(url: str, n: int = 7) -> Writer:
    """Return the writer of a store of which `n` of 12 blocks were written."""
    writer = Writer(url, HEADER, declared(nan="allowed")).create({"title": "a test"})
    for region in blocks(writer.arrays["tas"])[:n]:
        write(writer, region, field())
    return writer


def again(url: str, header: Header = HEADER, **changed: Any) -> Writer:
    arrays = declared(nan="allowed", **changed)
    return Writer(url, header, arrays).create({"title": "a test"})


def test_finished_blocks_are_kept_and_nothing_else(url: str) -> None:
    made(url, field())
    whole = objects(url)
    interrupted(url)
    add(url, "tas/9.9.9")
    add(url, "tas/1.1.1")
    add(url, store.MANIFEST)
    writer = again(url)
    assert writer.finished == {_block(r) for r in blocks(writer.arrays["tas"])[:7]}
    assert not objects(url).keys() & {"tas/9.9.9", store.MANIFEST}
    filled(writer, field()).commit()
    assert objects(url) == whole


def damage_a_chunk(url: str) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    content = bytearray(objects(url)["tas/0.0.0"])
    content[-1] ^= 1
    fs.pipe_file(f"{root}/tas/0.0.0", bytes(content))


def lose_a_chunk(url: str) -> None:
    take_away(url, "tas/0.0.0")


def damage_a_record(url: str) -> None:
    Objects(url + store.JOURNAL).put("0-0-0.json", b'{"block": "0-0-0", "chu')


@pytest.mark.parametrize("damage", [damage_a_chunk, lose_a_chunk, damage_a_record])
def test_a_block_counts_only_if_it_lies_there_as_it_was_written(
    damage: Callable[[str], None], url: str
) -> None:
    """After a loss of power a file can be empty, or full of nothing, that was written."""
    made(url, field())
    whole = objects(url)
    interrupted(url)
    damage(url)
    writer = again(url)
    assert len(writer.finished) == 6 and "0-0-0" not in writer.finished
    filled(writer, field()).commit()
    assert objects(url) == whole


def other_library(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store, "_library_digest", lambda: "another")


def other_numpy(patch: pytest.MonkeyPatch) -> None:
    facts = store._provenance()
    patch.setattr(store, "_provenance", lambda: {**facts, "numpy": "0.1"})


def no_header(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(manifest_module, "FORMAT", 99)


@pytest.mark.parametrize("change", [other_library, other_numpy, no_header])
def test_another_library_starts_afresh(
    change: Callable[[pytest.MonkeyPatch], None], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers may differ in the last bit: no store is of two of them."""
    interrupted(url)
    change(monkeypatch)
    assert again(url).finished == frozenset()


def test_another_identity_or_other_host_facts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(url)
    facts = store._provenance()
    monkeypatch.setattr(store, "_provenance", lambda: {**facts, "host": "b", "committed": "now"})
    assert len(again(url).finished) == 7, "where it ran is no reason to start afresh"
    assert not again(url, Header("bcsd", "cd" * 32, {}, {})).finished


def test_a_forced_stage_is_computed_anew(url: str) -> None:
    """Snakemake takes the sentinel away; manifest and chunks lie there, and no journal."""
    made(url, field())
    take_away(url, store.SENTINEL)
    assert again(url).finished == frozenset()


# --------------------------------------------------------------------------------------
# A commit refuses what is not whole


def put(path: str, data: bytes, fs: Any) -> None:
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.pipe_file(path, data)


def take_away(url: str, key: str) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    fs.rm(f"{root}/{key}")


def cut(url: str, key: str) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/{key}", objects(url)[key][:-1])


def add(url: str, key: str) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    put(f"{root}/{key}", b"foreign", fs)


def forget(url: str, key: str) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    fs.rm(f"{root}.journal/{key}")


def write_twice(url: str, key: str) -> None:
    whole = tuple(slice(0, n) for n in SHAPE)
    write(Writer(url, HEADER, declared()), (slice(0, 4), *whole[1:]), field())


@pytest.mark.parametrize(
    ("damage", "key", "found"),
    [
        (take_away, "tas/1.0.1", "tas/1.0.1: missing"),
        (cut, "tas/1.0.1", "tas/1.0.1: {cut} bytes, wrote {whole}"),
        (add, "tas/3.0.0", "tas/3.0.0: unexpected object"),
        (add, "pr/0.0.0", "pr/0.0.0: unexpected object"),
        (add, store.MANIFEST, ".manifest.json: unexpected object"),
        (forget, "2-0-3.json", "tas/1.0.1: not journalled"),
        (
            write_twice,
            "",
            "tas/0.0.1: written 2 times; tas/0.1.0: written 2 times; tas/0.1.1: written 2 times; "
            "tas/1.0.0: written 2 times; tas/1.0.1: written 2 times and 2 more",
        ),
    ],
)
def test_a_commit_refuses(
    damage: Callable[[str, str], None], key: str, found: str, url: str
) -> None:
    writer = filled(Writer(url, HEADER, declared()).create({}), field())
    size = len(objects(url).get(key, b""))
    damage(url, key)
    with pytest.raises(StoreError) as caught:
        writer.commit()
    listed = found.format(cut=size - 1, whole=size)
    assert str(caught.value) == f"{url} is not whole, so it is not committed: {listed}"
    assert store.SENTINEL not in objects(url)


# --------------------------------------------------------------------------------------
# The contract of an array

FIRST = (slice(0, 2), slice(0, 2), slice(0, 3))
MASK = np.array([[True, False, True] * 2, [True] * 6] * 2)
NAN = np.float32(np.nan)


def block(**at: float) -> NDArray[np.float32]:
    """Return a block of 280 K, NaN at MASK's holes, changed at some places (tTyYxX)."""
    values = np.full((2, 2, 3), 280, dtype=np.float32)
    for place, value in at.items():
        t, y, x = (int(i) for i in place.strip("i"))
        values[t, y, x] = value
    return values


NEVER = {"valid_range": (150.0, 350.0), "nan": "never"}
MASKED = {**NEVER, "nan": "mask"}
WHERE = "`tas` [0:2, 0:2, 0:3]"
BLOCK = "`tas` region [0:2, 0:2, 0:3]"


@pytest.mark.parametrize(
    ("contract", "region", "values", "message"),
    [
        pytest.param(
            NEVER,
            FIRST,
            block(i112=350.5),
            f"{WHERE} must lie within 150..350 K, found 280..350.5; check the units of the sources",
            id="a value above the range",
        ),
        pytest.param(
            NEVER,
            FIRST,
            block(i000=7),
            f"{WHERE} must lie within 150..350 K, found 7..280; check the units of the sources",
            id="a value below the range",
        ),
        pytest.param(
            {"nan": "allowed"},
            FIRST,
            block(i000=np.inf, i001=NAN),
            f"{WHERE} must lie within -inf..inf K, found 280..inf; check the units of the sources",
            id="infinity where any number may be",
        ),
        pytest.param(
            NEVER,
            FIRST,
            block(i111=NAN),
            f"{WHERE} has 1 NaN where a value is expected (of 12); "
            "an input is missing days or cells there",
            id="NaN where none may be",
        ),
        pytest.param(
            MASKED,
            FIRST,
            block(i001=NAN, i101=NAN, i000=NAN, i110=NAN),
            f"{WHERE} has 2 NaN where a value is expected (of 12); "
            "an input is missing days or cells there",
            id="NaN where the mask expects a value",
        ),
        pytest.param(
            MASKED,
            FIRST,
            block(i001=NAN),
            f"{WHERE} has 1 values where the mask expects NaN",
            id="a value where the mask expects NaN",
        ),
        pytest.param(
            NEVER,
            FIRST,
            block()[:1],
            f"{BLOCK} must be (2, 2, 3) <f4, found (1, 2, 3) float32",
            id="another shape",
        ),
        pytest.param(
            NEVER,
            FIRST,
            block().astype(np.float64),
            f"{BLOCK} must be (2, 2, 3) <f4, found (2, 2, 3) float64",
            id="another type",
        ),
        pytest.param(
            NEVER,
            (slice(0, 2), slice(0, 2), slice(0, 2)),
            block()[:, :, :2],
            "`tas` region [0:2, 0:2, 0:2] must be whole chunks of (2, 2, 3) in (5, 4, 6); "
            "blocks follow the chunks of their store",
            id="half a chunk",
        ),
        pytest.param(
            NEVER,
            (slice(1, 3), slice(0, 2), slice(0, 3)),
            block(),
            "`tas` region [1:3, 0:2, 0:3] must be whole chunks of (2, 2, 3) in (5, 4, 6); "
            "blocks follow the chunks of their store",
            id="between two chunks",
        ),
        pytest.param(
            NEVER,
            (slice(4, 6), slice(0, 2), slice(0, 3)),
            block(),
            "`tas` region [4:6, 0:2, 0:3] must be whole chunks of (2, 2, 3) in (5, 4, 6); "
            "blocks follow the chunks of their store",
            id="beyond the end",
        ),
    ],
)
def test_a_block_that_breaks_the_contract_is_refused_and_not_written(
    contract: dict[str, Any],
    region: Region,
    values: NDArray[Any],
    message: str,
    tmp_path: Path,
) -> None:
    url = str(tmp_path / "x.zarr")
    writer = Writer(url, HEADER, declared(**contract), MASK).create({})
    with pytest.raises(ContractError) as caught:
        writer.write("tas", region, values)
    assert str(caught.value) == f"{url}: {message}"
    assert not {key for key in objects(url) if key.startswith("tas/0")}


def test_a_mask_is_needed_where_the_contract_names_one(tmp_path: Path) -> None:
    url = str(tmp_path / "x.zarr")
    writer = Writer(url, HEADER, declared(**MASKED)).create({})
    with pytest.raises(ContractError) as caught:
        writer.write("tas", FIRST, block())
    assert str(caught.value) == f"{url}: `tas` needs a mask and its stage gave none"


@pytest.mark.parametrize("shape", [(4, 6), (5, 4, 6), (3, 5, 4, 6)])
def test_a_mask_holds_for_the_last_two_dimensions(shape: tuple[int, ...], tmp_path: Path) -> None:
    """A mask read along another axis would expect NaN elsewhere in every chunk."""
    mask = np.random.default_rng(1).random((4, 6)) < 0.5
    array = Array(("a", "b", "c", "d")[: len(shape)], shape, (2, 2, 2, 3)[-len(shape) :],
                  contract=Contract(nan="mask"))  # fmt: skip
    writer = Writer(str(tmp_path / "x.zarr"), HEADER, {"tas": array}, mask).create({})
    filled(writer, np.where(mask, field(shape), NAN)).commit()
    with pytest.raises(ContractError, match="NaN where a value is expected"):
        filled(writer, np.where(np.roll(mask, 1, axis=0), field(shape), NAN))


@given(any_array(np.float32, (3, 2, 3), elements=st.sampled_from([NAN, 150, 280, 350])))
def test_a_contract_accepts_exactly_what_its_mask_says(values: NDArray[np.float32]) -> None:
    mask = MASK[:2, :3]
    arrays = declared((3, 2, 3), (3, 2, 3), valid_range=(150, 350), nan="mask")
    writer = Writer("memory://property/x.zarr", HEADER, arrays, mask)
    region = (slice(0, 3), slice(0, 2), slice(0, 3))
    if all(np.array_equal(~np.isnan(day), mask) for day in values):
        assert set(writer._check("tas", arrays["tas"], region, values)) == {"tas/0.0.0"}
    else:
        with pytest.raises(ContractError):
            writer._check("tas", arrays["tas"], region, values)


# --------------------------------------------------------------------------------------
# Travelling


def test_a_writer_and_an_opened_store_can_be_sent_to_another_process(url: str) -> None:
    writer: Writer = pickle.loads(pickle.dumps(Writer(url, HEADER, declared(), MASK).create({})))
    filled(writer, field()).commit()
    opened: store.Store = pickle.loads(pickle.dumps(open_store(url)))
    assert np.array_equal(opened.read("tas"), field())
    assert opened.identity == HEADER.identity
