"""Stores: a Zarr store exists if and only if it has been written whole and verified.

The only module that touches storage of ours. The protocol (docs/decisions/0001):

    create    metadata, not consolidated: nobody opens it by accident
    write     every chunk, region by region, each checked against its array's contract
    journal   <store>.journal/<region>.json: what was written, seen as it went out
    audit     the listing holds every expected chunk, none extra, sizes as journalled
    manifest  .manifest.json: the chunk table; its digest goes into .zattrs
    commit    .zmetadata, last and atomic; then the journal goes

Local folders and URLs (gs://, s3://, memory://) go the same way through fsspec.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import os
import platform
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import fsspec
import google_crc32c
import numcodecs
import numpy as np
import zarr
from numba import njit
from numpy.typing import NDArray
from zarr.core.buffer import Buffer
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from finescale import __version__, identity
from finescale.errors import ContractError, StoreError, TransientError

numcodecs.blosc.use_threads = False  # otherwise the same data encode to different bytes
# A chunk that equals its fill value is written too; as an argument this is lost on reopening.
zarr.config.set({"array.write_empty_chunks": True})

SENTINEL = ".zmetadata"
MANIFEST = ".manifest.json"
PROVENANCE = ".provenance.json"
PARTIAL = ".partial"  # zarr's word too for a file that is not yet renamed
MANIFEST_FORMAT = 1
COMPRESSOR = {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 1, "blocksize": 0}

Region = tuple[slice, ...]


@dataclass(frozen=True)
class Contract:
    """What the values of an array must be.

    `nan`: "never"; "mask": exactly where the writer's mask (over the trailing dims) is False;
    "allowed": anywhere.
    """

    valid_range: tuple[float, float] = (-np.inf, np.inf)
    nan: Literal["never", "mask", "allowed"] = "never"


@dataclass(frozen=True)
class Array:
    """The declaration of one array of a store.

    `values` are written at creation (coordinates, small tables); without them the array is
    filled region by region.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str = "<f4"
    attributes: Mapping[str, Any] = field(default_factory=dict)
    contract: Contract = Contract()
    values: NDArray[Any] | None = None


def coordinate(dims: tuple[str, ...], values: NDArray[Any], **attributes: Any) -> Array:
    """Return the declaration of a small array written whole, in one chunk."""
    values = np.asarray(values)
    shape = values.shape
    chunks = tuple(max(n, 1) for n in shape)
    dtype = values.dtype.newbyteorder("<").str if values.dtype.kind != "U" else values.dtype.str
    contract = Contract(nan="allowed")
    return Array(dims, shape, chunks, dtype, attributes, contract, values)


@dataclass(frozen=True)
class Header:
    """Who a store is: written into its root attributes and its manifest."""

    stage: str
    identity: str
    facets: Mapping[str, str]
    recipe: Mapping[str, Any]


# --------------------------------------------------------------------------------------
# Statistics and contract in one pass over a chunk


@njit(nogil=True, cache=True)
def _chunk_statistics(values, mask):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return count, NaN count, min, max, sum (float64, C order), unexpected NaN, unexpected values.

    `values` (n, m) with `mask` (m,): True where a value is expected.
    """
    n_nan = 0
    missing = 0
    surplus = 0
    low = np.inf
    high = -np.inf
    total = 0.0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            v = np.float64(values[i, j])
            if np.isnan(v):
                n_nan += 1
                if mask[j]:
                    missing += 1
            else:
                if not mask[j]:
                    surplus += 1
                low = min(low, v)
                high = max(high, v)
                total += v
    return values.size, n_nan, low, high, total, missing, surplus


class _Recorder(WrapperStore[Any]):
    """Passes everything on and notes size and crc32c of each object as it is written."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.written: dict[str, tuple[int, int]] = {}

    def with_read_only(self, read_only: bool = False) -> _Recorder:
        copy = _Recorder(self._store.with_read_only(read_only))
        copy.written = self.written
        return copy

    async def set(self, key: str, value: Buffer) -> None:
        data = value.to_bytes()
        self.written[key] = (len(data), google_crc32c.value(data))
        await self._store.set(key, value)


def _zarr_store(url: str, *, read_only: bool = False) -> Any:
    if "://" in url:
        return FsspecStore.from_url(url, read_only=read_only)
    return LocalStore(url, read_only=read_only)


# --------------------------------------------------------------------------------------
# Writing


@dataclass(frozen=True)
class Writer:
    """A store that is being written; picklable, so that blocks can be written by any process."""

    url: str
    header: Header
    arrays: Mapping[str, Array]
    mask: NDArray[np.bool_] | None = None

    @property
    def journal(self) -> str:
        """Return where the records of written regions lie."""
        return self.url + ".journal"

    def create(self, attributes: Mapping[str, Any]) -> Writer:
        """Clear whatever lies there and write the metadata and the arrays that have values."""
        fs, root = fsspec.core.url_to_fs(self.url)
        for path in (f"{root}/{SENTINEL}", root, root + ".journal"):
            if fs.exists(path):
                fs.rm(path, recursive=True)
        fs.invalidate_cache()
        fs.makedirs(root, exist_ok=True)
        group = zarr.open_group(
            _zarr_store(self.url),
            mode="w-",
            zarr_format=2,
            attributes={
                **attributes,
                "finescale_stage": self.header.stage,
                "finescale_identity": self.header.identity,
                "finescale_facets": dict(self.header.facets),
            },
        )
        for name, array in self.arrays.items():
            group.create_array(
                name,
                shape=array.shape,
                chunks=array.chunks,
                dtype=array.dtype,
                compressors=numcodecs.get_codec(COMPRESSOR),
                # A fill value of an integer array would read as missing: CF has it mean that.
                fill_value=np.nan if np.dtype(array.dtype).kind == "f" else None,
                attributes={"_ARRAY_DIMENSIONS": list(array.dims), **array.attributes},
            )
            if array.values is not None:
                self.write(name, tuple(slice(0, n) for n in array.shape), array.values)
        return self

    def write(self, name: str, region: Region, values: NDArray[Any]) -> None:
        """Check a region that is a whole number of chunks, write it, journal it.

        Raises
        ------
        ContractError
            Not whole chunks, wrong shape or dtype, values out of range, NaN where none may be or
            the reverse.
        """
        array = self.arrays[name]
        if not all(
            s.start % c == 0 and (s.stop == n or (s.stop < n and s.stop % c == 0))
            for s, c, n in zip(region, array.chunks, array.shape, strict=True)
        ):
            raise ContractError(
                f"{self.url}: `{name}` region {_extent(region)} must be whole chunks of "
                f"{array.chunks} in {array.shape}; blocks follow the chunks of their store"
            )
        shape = tuple(s.stop - s.start for s in region)
        if values.shape != shape or values.dtype != np.dtype(array.dtype):
            raise ContractError(
                f"{self.url}: `{name}` region {_extent(region)} must be {shape} {array.dtype}, "
                f"found {values.shape} {values.dtype}"
            )
        records = self._check(name, array, region, values)
        recorder = _Recorder(_zarr_store(self.url))
        target = zarr.open_array(recorder, path=name, mode="r+", zarr_format=2)
        target[region] = values
        entries = []
        for key, statistics in sorted(records.items()):
            size, crc = recorder.written[key]
            entries.append([key, size, f"{crc:08x}", *statistics])
        starts = "-".join(str(s.start) for s in region)
        _put(f"{self.journal}/{name}.{starts}.json", json.dumps(entries))

    def _check(
        self, name: str, array: Array, region: Region, values: NDArray[Any]
    ) -> dict[str, list[Any]]:
        """Return the statistics of each chunk of a region, by key, once the contract holds."""
        records: dict[str, list[Any]] = {}
        ranges = [
            range(s.start // c, -(-s.stop // c)) for s, c in zip(region, array.chunks, strict=True)
        ]
        for index in itertools.product(*ranges):
            inner = tuple(
                slice(i * c - s.start, min((i + 1) * c, n) - s.start)
                for i, c, n, s in zip(index, array.chunks, array.shape, region, strict=True)
            )
            key = f"{name}/" + (".".join(map(str, index)) or "0")
            if values.dtype.kind not in "fiub":
                records[key] = [int(values[inner].size), 0, None, None, None]
                continue
            outer = tuple(
                slice(a.start + s.start, a.stop + s.start)
                for a, s in zip(inner, region, strict=True)
            )
            records[key] = self._statistics(name, array, outer, values[inner])
        return records

    def _statistics(self, name: str, array: Array, outer: Region, chunk: NDArray[Any]) -> list[Any]:
        expected = np.ones(chunk.shape[-1] if chunk.ndim else 1, dtype=np.bool_)
        contract = array.contract
        if contract.nan == "mask":
            if self.mask is None:
                raise ContractError(f"{self.url}: `{name}` needs a mask and its stage gave none")
            expected = np.ascontiguousarray(self.mask[outer[-2:]]).reshape(-1)
        # Integers as float64: one compiled function less to load in every job.
        plain = chunk if chunk.dtype.kind == "f" else chunk.astype(np.float64)
        flat = np.ascontiguousarray(plain).reshape(-1, expected.size)
        count, n_nan, low, high, total, missing, surplus = _chunk_statistics(flat, expected)
        where = f"{self.url}: `{name}` {_extent(outer)}"
        if contract.nan != "allowed" and missing:
            raise ContractError(
                f"{where} has {missing} NaN where a value is expected (of {count}); "
                "an input is missing days or cells there"
            )
        if contract.nan == "mask" and surplus:
            raise ContractError(f"{where} has {surplus} values where the mask expects NaN")
        if count == n_nan:
            return [count, n_nan, None, None, None]
        least, most = contract.valid_range
        if not (least <= low and high <= most and np.isfinite(low) and np.isfinite(high)):
            raise ContractError(
                f"{where} must lie within {least:g}..{most:g} {array.attributes.get('units', '')}, "
                f"found {low:g}..{high:g}; check the units of the sources"
            )
        return [count, n_nan, float(low), float(high), float(total)]

    def commit(self) -> None:
        """Audit what lies there against the journal, write the manifest, then the sentinel.

        Raises
        ------
        StoreError
            A chunk is missing, extra or of another size than was written.
        """
        fs, root = fsspec.core.url_to_fs(self.url)
        fs.invalidate_cache()
        entries = [
            entry
            for path in fs.find(root + ".journal")
            if path.endswith(".json")
            for entry in json.loads(fs.cat_file(path))
        ]
        entries.sort(key=lambda entry: entry[0])
        listing = _listing(self.url)
        for key in [key for key in listing if key.endswith(PARTIAL)]:
            fs.rm_file(f"{root}/{key}")  # a killed worker's, whose task ran again elsewhere
            del listing[key]
        _audit(self.url, self.arrays, entries, listing)
        manifest = identity.canonical(
            {
                "format": MANIFEST_FORMAT,
                "identity": self.header.identity,
                "recipe": self.header.recipe,
                "columns": ["key", "bytes", "crc32c", "count", "nan", "min", "max", "sum"],
                "chunks": entries,
            }
        )
        _put(f"{self.url}/{MANIFEST}", manifest)
        attributes = json.loads(fs.cat_file(f"{root}/.zattrs"))
        attributes["finescale_manifest"] = hashlib.sha256(manifest.encode()).hexdigest()
        _put(f"{self.url}/.zattrs", json.dumps(attributes, sort_keys=True, indent=1))
        _put(f"{self.url}/{PROVENANCE}", json.dumps(_provenance(), sort_keys=True, indent=1))
        _put(f"{self.url}/{SENTINEL}", _consolidated(fs, root, self.arrays))
        if fs.exists(root + ".journal"):
            fs.rm(root + ".journal", recursive=True)


def _extent(region: Region) -> str:
    return "[" + ", ".join(f"{s.start}:{s.stop}" for s in region) + "]"


def _put(url: str, text: str) -> None:
    """Write a small object atomically: rename on a file system, one PUT elsewhere."""
    fs, path = fsspec.core.url_to_fs(url)
    if "file" not in fs.protocol and "local" not in fs.protocol:
        fs.pipe_file(path, text.encode())
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = f"{path}.{uuid.uuid4().hex}{PARTIAL}"
    with open(partial, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _listing(url: str) -> dict[str, int]:
    """Return size by key of everything in the store."""
    fs, root = fsspec.core.url_to_fs(url)
    found = fs.find(root, detail=True)
    return {key[len(root.rstrip("/")) + 1 :]: int(info["size"]) for key, info in found.items()}


def expected_keys(arrays: Mapping[str, Array]) -> set[str]:
    """Return the keys of every chunk that the declared arrays have."""
    return {
        f"{name}/" + (".".join(map(str, index)) or "0")
        for name, array in arrays.items()
        for index in itertools.product(
            *(range(-(-n // c)) for n, c in zip(array.shape, array.chunks, strict=True))
        )
    }


def _audit(
    url: str, arrays: Mapping[str, Array], entries: list[list[Any]], listing: dict[str, int]
) -> None:
    expected = expected_keys(arrays)
    journalled = {entry[0]: entry[1] for entry in entries}
    times = Counter(entry[0] for entry in entries)
    metadata = {".zgroup", ".zattrs"} | {f"{n}/{f}" for n in arrays for f in (".zarray", ".zattrs")}
    wrong = [f"{k}: missing" for k in sorted(expected - listing.keys())]
    wrong += [f"{k}: not journalled" for k in sorted(expected - journalled.keys())]
    wrong += [f"{k}: written {n} times" for k, n in sorted(times.items()) if n > 1]
    wrong += [f"{k}: unexpected object" for k in sorted(listing.keys() - expected - metadata)]
    wrong += [
        f"{k}: {listing[k]} bytes, wrote {size}"
        for k, size in sorted(journalled.items())
        if k in listing and listing[k] != size
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise StoreError(
            f"{url} is not whole, so it is not committed: {'; '.join(wrong[:5])}{more}"
        )


def _consolidated(fs: Any, root: str, arrays: Mapping[str, Array]) -> str:
    keys = [".zgroup", ".zattrs", *(f"{n}/{f}" for n in arrays for f in (".zarray", ".zattrs"))]
    metadata = {key: json.loads(fs.cat_file(f"{root}/{key}")) for key in sorted(keys)}
    return json.dumps({"metadata": metadata, "zarr_consolidated_format": 1}, indent=1)


def _provenance() -> dict[str, Any]:
    return {
        "finescale": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "zarr": zarr.__version__,
        "numcodecs": numcodecs.__version__,
        "host": platform.node(),
        "committed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


# --------------------------------------------------------------------------------------
# Reading


@dataclass(frozen=True)
class Store:
    """A committed store, opened for reading."""

    url: str

    @cached_property
    def group(self) -> zarr.Group:
        """Return the consolidated group."""
        try:
            return zarr.open_group(
                _zarr_store(self.url, read_only=True),
                mode="r",
                zarr_format=2,
                use_consolidated=True,
            )
        except (ValueError, FileNotFoundError, KeyError) as error:
            raise StoreError(
                f"{self.url} is not committed (no {SENTINEL}); run the workflow again, it makes it"
            ) from error

    @property
    def attributes(self) -> dict[str, Any]:
        """Return the root attributes."""
        return dict(self.group.attrs)

    @property
    def identity(self) -> str:
        """Return the identity the store was made for."""
        return str(self.attributes.get("finescale_identity", ""))

    def require(self, expected: str) -> Store:
        """Return the store if its identity is the expected one (64 hex digits).

        Raises
        ------
        StoreError
            It is not committed, or holds something else.
        """
        if self.identity != expected:
            raise StoreError(
                f"{self.url} holds identity {self.identity or 'none'}, expected {expected}; "
                "the store was changed by hand, or the plan is another: delete it and run again"
            )
        return self

    def __contains__(self, name: str) -> bool:
        return name in self.group

    def array(self, name: str) -> zarr.Array[Any]:
        """Return an array, unread."""
        found = self.group[name]
        if not isinstance(found, zarr.Array):
            raise StoreError(f"{self.url}: `{name}` is not an array")
        return found

    def read(self, name: str, region: Region | None = None) -> NDArray[Any]:
        """Return a region of an array (all of it by default)."""
        return np.asarray(self.array(name)[region if region is not None else ...])


def open_store(url: str) -> Store:
    """Return a committed store.

    Raises
    ------
    StoreError
        There is no sentinel: the store is unfinished, failed or absent.
    """
    store = Store(url.rstrip("/").removesuffix("/" + SENTINEL))
    store.group  # noqa: B018  opens, so that an uncommitted store is refused here
    return store


# --------------------------------------------------------------------------------------
# Listing


@dataclass(frozen=True)
class Description:
    """What a committed store says of itself, without a look at its chunks."""

    url: str
    stage: str
    identity: str
    facets: dict[str, str]
    recipe: dict[str, Any]
    size: int
    committed: str


def exists(root: str) -> bool:
    """Tell whether a root of stores is there."""
    fs, base = fsspec.core.url_to_fs(root)
    return bool(fs.exists(base))


def list_stores(root: str) -> list[str]:
    """Return the sentinels of the committed stores below a root, relative to it, sorted.

    Raises
    ------
    TransientError
        The root cannot be reached.
    """
    try:
        fs, base = fsspec.core.url_to_fs(root)
        fs.invalidate_cache()
        found = fs.glob(f"{glob.escape(base.rstrip('/'))}/*/*.zarr/{SENTINEL}")
    except Exception as error:
        raise TransientError(
            f"{root}: the root of stores cannot be reached ({type(error).__name__}: {error}); "
            "check its address, the network and your credentials"
        ) from error
    return sorted("/".join(path.split("/")[-3:]) for path in found)


def describe(url: str) -> Description:
    """Return what a committed store says of itself.

    Raises
    ------
    StoreError
        It is not committed, or its manifest is gone.
    """
    url = open_store(url).url
    fs, root = fsspec.core.url_to_fs(url)
    read = {}
    for name in (MANIFEST, PROVENANCE):
        try:
            read[name] = json.loads(fs.cat_file(f"{root}/{name}"))
        except (FileNotFoundError, ValueError) as error:
            raise StoreError(
                f"{url} has no readable {name}; delete the store and run the workflow again"
            ) from error
    manifest = read[MANIFEST]
    return Description(
        url=url,
        stage=manifest["recipe"]["stage"],
        identity=manifest["identity"],
        facets=manifest["recipe"]["facets"],
        recipe=manifest["recipe"],
        size=sum(chunk[1] for chunk in manifest["chunks"]),
        committed=read[PROVENANCE]["committed"],
    )
