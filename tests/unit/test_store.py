"""Stores: what is read is what was written, and nothing half-made is ever read."""

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fsspec
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array
from numpy.typing import NDArray

from finescale import store
from finescale.blocks import slabs
from finescale.errors import ContractError, StoreError
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


def filled(writer: Writer, values: NDArray[Any], name: str = "tas") -> Writer:
    for region in blocks(writer.arrays[name]):
        writer.write(name, region, values[region])
    return writer


def made(url: str, values: NDArray[Any], arrays: dict[str, Array] | None = None) -> store.Store:
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
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    dtype = draw(st.sampled_from(["<f4", "<f8", "|i1", "<i4", "<i8"]))
    return draw(any_array(dtype, shape)), chunks


@given(arrays_in_chunks())
@settings(max_examples=60)
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
@settings(max_examples=60)
def test_the_manifest_holds_the_statistics_that_numpy_finds(
    case: tuple[NDArray[Any], tuple[int, ...]],
) -> None:
    """Sums are float64 in C order: numpy's own pairwise sum would differ with the chunk's shape."""
    values, chunks = case
    arrays = declared(values.shape, chunks, values.dtype.str, nan="allowed")
    with np.errstate(over="ignore", invalid="ignore"):
        table = chunk_table_of_finite(values, arrays)
        for key, region in zip(sorted(table), sorted(blocks(arrays["tas"]), key=str), strict=True):
            del key, region
    for region in blocks(arrays["tas"]):
        index = ".".join(str(s.start // c) for s, c in zip(region, chunks, strict=True))
        chunk = np.where(np.isfinite(values[region]), values[region], np.nan).astype(np.float64)
        valid = chunk[~np.isnan(chunk)]
        expected = [None] * 3
        if valid.size:
            expected = [valid.min(), valid.max(), np.add.accumulate(valid)[-1]]
        assert table[f"tas/{index}"][2:] == [chunk.size, chunk.size - valid.size, *expected]
