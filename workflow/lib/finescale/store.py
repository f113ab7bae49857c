"""Stores: a Zarr store exists if and only if it has been written whole and verified.

The protocol (docs/decisions/0001, docs/manifest.md):

    lease     one writer at a time (`leases`), shown before every block
    create    metadata, not consolidated: nobody opens it by accident
    write     every chunk, region by region, each checked against its array's contract
    journal   <store>.journal/<block>.json: what was written, seen as it went out
    audit     the listing holds every expected chunk, none extra, as journalled
    manifest  .manifest.json: the chunk table; its digest goes into .zattrs
    commit    .zmetadata, last and atomic; then the journal goes

In a bucket a commit is announced by an empty object, so that one listing finds all stores.

A writer that finds the journal of an interrupted attempt goes on where that one stopped.

Local folders and URLs (gs://, s3://, memory://) go the same way through fsspec.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import logging
import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property, lru_cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import fsspec
import google_crc32c
import numba
import numcodecs
import numpy as np
import zarr
from numba import njit
from numpy.typing import NDArray
from zarr.core.buffer import Buffer
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from finescale import __version__, identity, manifest
from finescale.errors import ContractError, FinescaleError, StoreError, TransientError
from finescale.leases import Fence
from finescale.manifest import Manifest, Row
from finescale.storage import PARTIAL, Entry, Objects, reported

log = logging.getLogger("finescale")

numcodecs.blosc.use_threads = False  # otherwise the same data encode to different bytes
# A chunk that equals its fill value is written too; as an argument this is lost on reopening.
zarr.config.set({"array.write_empty_chunks": True})

SENTINEL = ".zmetadata"
MANIFEST = ".manifest.json"
PROVENANCE = ".provenance.json"
ATTRIBUTES = ".zattrs"
JOURNAL = ".journal"
HEADER = "header.json"
MARKERS = ".committed"
"""Below the root of stores in a bucket: an empty object for each store, `<stage>/<name>.zarr`."""
READERS = 32
"""Small objects asked for at a time."""
CREATED = "create"
"""The record of what `Writer.create` wrote: coordinates and small tables."""
NUMERIC = ("numpy", "scipy", "numba", "zarr", "numcodecs")
COMPRESSOR = {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 1, "blocksize": 524288}

Region = tuple[slice, ...]
Piece = tuple[str, Region, NDArray[Any]]
"""(array, region, values): whole chunks."""


@dataclass(frozen=True)
class Contract:
    """What the values of an array must be.

    `nan`: "never"; "mask": exactly where the writer's mask (over the trailing dims) is False;
    "allowed": anywhere.
    """

    valid_range: tuple[float, float] = (-np.inf, np.inf)
    nan: Literal["never", "mask", "allowed"] = "never"

    def to_json(self) -> dict[str, Any]:
        """Return the contract as a manifest holds it; an open end of the range is null."""
        ends = [float(v) if np.isfinite(v) else None for v in self.valid_range]
        return {"valid_range": ends, "nan": self.nan}


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


def statistics(
    chunk: NDArray[Any], mask: NDArray[np.bool_] | None = None
) -> tuple[tuple[int, int, float | None, float | None, float | None], int, int]:
    """Return count, NaN count, min, max, sum as a manifest has them; missing and stray values.

    Parameters
    ----------
    chunk
        Any shape; what is not a number has only a count.
    mask
        (lat, lon) of its last two dimensions: where a value is expected (default: everywhere).
    """
    if chunk.dtype.kind not in "fiub":
        return (int(chunk.size), 0, None, None, None), 0, 0
    # Integers as float64: one compiled function less to load in every job.
    plain = chunk if chunk.dtype.kind == "f" else chunk.astype(np.float64)
    cells = int(np.prod(chunk.shape[-2:]))
    expected = np.ones(cells, dtype=np.bool_) if mask is None else np.ascontiguousarray(mask)
    flat = np.ascontiguousarray(plain).reshape(-1, cells)
    n_nan, low, high, total, missing, stray = _of_cells(flat, expected.reshape(-1))
    found = (None, None, None) if n_nan == chunk.size else (float(low), float(high), float(total))
    return (int(chunk.size), int(n_nan), *found), int(missing), int(stray)


@njit(nogil=True, cache=True)
def _of_cells(values, mask):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return NaN count, min, max, sum, NaN where the mask is True, values where it is False.

    `values` (n, cell), `mask` (cell,). Cell by cell side by side, so that the compiler can use
    vectors: sums over n of each cell in float64, then over the cells in order.
    """
    n, n_cells = values.shape
    total = np.zeros(n_cells)
    low = np.full(n_cells, np.inf, values.dtype)
    high = np.full(n_cells, -np.inf, values.dtype)
    n_nan = np.zeros(n_cells, np.int32)
    for i in range(n):
        for j in range(n_cells):
            v = values[i, j]
            valid = v == v
            total[j] += np.float64(v) if valid else 0.0
            low[j] = v if v < low[j] else low[j]
            high[j] = v if v > high[j] else high[j]
            n_nan[j] += 0 if valid else 1
    all_nan = missing = stray = 0
    lowest, highest, summed = np.inf, -np.inf, 0.0
    for j in range(n_cells):
        all_nan += n_nan[j]
        missing += n_nan[j] if mask[j] else 0
        stray += 0 if mask[j] else n - n_nan[j]
        lowest, highest = min(lowest, low[j]), max(highest, high[j])
        summed += total[j]
    return all_nan, lowest, highest, summed, missing, stray


def _crc32c(value: Buffer) -> str:
    """Return the checksum of an object, 8 hex digits, without a copy of it."""
    data = value.as_numpy_array().view()
    data.flags.writeable = False
    return f"{google_crc32c.value(data):08x}"


class _Recorder(WrapperStore[Any]):
    """Passes everything on and notes size and crc32c of each object as it is written."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.written: dict[str, tuple[int, str]] = {}

    def with_read_only(self, read_only: bool = False) -> _Recorder:
        copy = _Recorder(self._store.with_read_only(read_only))
        copy.written = self.written
        return copy

    async def set(self, key: str, value: Buffer) -> None:
        self.written[key] = (len(value), _crc32c(value))
        await self._store.set(key, value)


class _Checked(WrapperStore[Any]):
    """Passes chunks on that are what was committed, and refuses any other.

    A missing chunk would otherwise read as fill value, without a word.
    """

    def __init__(self, store: Any, url: str = "", digest: str = "") -> None:
        super().__init__(store)
        self.url, self.digest = url, digest

    def with_read_only(self, read_only: bool = False) -> _Checked:
        return _Checked(self._store.with_read_only(read_only), self.url, self.digest)

    async def get(self, key: str, *arguments: Any, **options: Any) -> Buffer | None:
        value: Buffer | None = await self._store.get(key, *arguments, **options)
        expected = _checksums(self.url, self.digest).get(key)
        if expected is not None:
            found = None if value is None else _crc32c(value)
            if found != expected:
                raise StoreError(
                    f"{self.url}: chunk {key} is "
                    f"{'missing' if found is None else 'not what was committed'}; "
                    f"`finescale heal {self.url}` recomputes it"
                )
        return value


@lru_cache(maxsize=64)
def _checksums(url: str, digest: str) -> dict[str, str]:
    """Return the checksum of each chunk, by key, of the manifest that has this digest."""
    try:
        content = Objects(url).get(MANIFEST)
    except FileNotFoundError:
        content = b""
    if manifest.sha256(content) != digest:
        raise StoreError(
            f"{url}: its {MANIFEST} is {'not the one it was committed with' if content else 'gone'}"
            f"; `finescale heal --configfile F {url}` makes the store anew"
        )
    return {row.key: row.crc32c for row in manifest.parse(content, where=url).rows}


def _zarr_store(url: str, *, read_only: bool = False) -> Any:
    if "://" in url:
        return FsspecStore.from_url(url, read_only=read_only)
    return LocalStore(url, read_only=read_only)


# --------------------------------------------------------------------------------------
# Writing


@dataclass(frozen=True)
class Repair:
    """What is known of a damaged store: its sound chunks by key, and what it must be again.

    `digest` is that of its manifest; empty if that is lost, too.
    """

    sound: Mapping[str, Row] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True)
class Writer:
    """A store that is being written; picklable, so that blocks can be written by any process.

    `finished` names the blocks that an earlier attempt has written.
    """

    url: str
    header: Header
    arrays: Mapping[str, Array]
    mask: NDArray[np.bool_] | None = None
    fence: Fence | None = None
    repair: Repair | None = None
    finished: frozenset[str] = frozenset()
    _targets: dict[str, tuple[_Recorder, zarr.Array[Any]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; it opens the arrays itself."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"_targets": {}}

    @property
    def journal(self) -> Objects:
        """Return where the records of finished blocks lie."""
        return Objects(self.url + JOURNAL)

    def create(self, attributes: Mapping[str, Any]) -> Writer:
        """Write the metadata and the arrays that have values; return the writer of the blocks.

        Whatever lies there counts for nothing, but for the sound chunks of a store to repair and
        the blocks of an attempt that was interrupted: same identity, same library, same numeric
        libraries, chunks as they were written.
        """
        objects, journal = Objects(self.url), self.journal
        unmark(self.url)
        objects.remove([SENTINEL])
        kept = self._finished()
        # Chunks that will be written again stay until then: another run may be reading them.
        objects.remove(objects.list().keys() - expected_keys(self.arrays))
        journal.remove(journal.list().keys() - {HEADER, *map(_record, kept)})
        journal.put(HEADER, self.journal_header())
        with reported(self.url):
            rows = self._declare(attributes)
        journal.put(_record(CREATED), manifest.record(CREATED, rows))
        return replace(self, finished=frozenset(kept))

    def _declare(self, attributes: Mapping[str, Any]) -> list[Row]:
        group = zarr.open_group(
            _zarr_store(self.url),
            mode="a",
            zarr_format=2,
            attributes={
                **attributes,
                "finescale_stage": self.header.stage,
                "finescale_identity": self.header.identity,
                "finescale_facets": dict(self.header.facets),
            },
        )
        rows = []
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
                rows += self.write(name, tuple(slice(0, n) for n in array.shape), array.values)
        return rows

    def journal_header(self) -> bytes:
        """Return what must be equal for an attempt to go on where another one stopped."""
        libraries = {name: version for name, version in _provenance().items() if name in NUMERIC}
        return identity.canonical(
            {
                "format": manifest.FORMAT,
                "identity": self.header.identity,
                "library": _library_digest(),
                "versions": libraries,
            }
        ).encode()

    def _finished(self) -> dict[str, list[Row]]:
        """Return the blocks of an interrupted attempt that count, by name."""
        try:
            if self.journal.get(HEADER) != self.journal_header():
                return {}
        except FileNotFoundError:
            return {}
        expected, lying = expected_keys(self.arrays), Objects(self.url).list()
        found = {}
        for block, rows in self._records().items():
            if block != CREATED and all(
                row.key in expected and self._is_whole(row, lying) for row in rows
            ):
                found[block] = rows
        return found

    def _records(self) -> dict[str, list[Row]]:
        """Return the journal's records that can be read, by block."""
        journal = self.journal
        names = [key for key in journal.list() if key.endswith(".json") and key != HEADER]
        records = {name: manifest.read_record(journal.get(name)) for name in sorted(names)}
        for name in (name for name, found in records.items() if found is None):
            log.warning("%s/%s cannot be read: its block counts as unwritten", journal.url, name)
        return dict(found for found in records.values() if found is not None)

    def _is_whole(self, row: Row, lying: Mapping[str, Entry]) -> bool:
        """Tell whether a chunk lies there as it was written."""
        entry = lying.get(row.key)
        if entry is None or entry.size != row.size:
            return False
        content = None if entry.crc32c else Objects(self.url).get(row.key)
        return row.crc32c == (entry.crc32c or f"{google_crc32c.value(content):08x}")

    def write_block(self, block: str, pieces: Iterable[Piece]) -> list[Row]:
        """Check and write the pieces of a block, then its record: from then on it is finished."""
        self._check_fence()
        rows = [row for piece in pieces for row in self.write(*piece)]
        self._check_fence()
        self.journal.put(_record(block), manifest.record(block, rows))
        return rows

    def adopt(self, block: str, chunks: Iterable[str]) -> bool:
        """Count a block as finished if all of its chunks are sound; tell whether."""
        sound = self.repair.sound if self.repair else {}
        rows = [sound[key] for key in sorted(chunks) if key in sound]
        whole = len(rows) == len(set(chunks))
        if whole:
            self.journal.put(_record(block), manifest.record(block, rows))
        return whole

    def forget(self, blocks: Iterable[str]) -> None:
        """Take back records of blocks: those of an attempt that cut its work up otherwise."""
        self.journal.remove(map(_record, blocks))

    def _check_fence(self) -> None:
        if self.fence is not None:
            self.fence.check()

    def write(self, name: str, region: Region, values: NDArray[Any]) -> list[Row]:
        """Check a region that is a whole number of chunks and write it; return its chunks' rows.

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
        statistics = self._check(name, array, region, values)
        recorder, target = self._target(name)
        with reported(self.url):
            target[region] = values
        return [
            Row(key, *recorder.written.pop(key), *found)
            for key, found in sorted(statistics.items())
        ]

    def _target(self, name: str) -> tuple[_Recorder, zarr.Array[Any]]:
        """Return an array to write to, opened once in a process."""
        if name not in self._targets:
            recorder = _Recorder(_zarr_store(self.url))
            with reported(self.url):
                target = zarr.open_array(recorder, path=name, mode="r+", zarr_format=2)
            self._targets.setdefault(name, (recorder, target))
        return self._targets[name]

    def _check(
        self, name: str, array: Array, region: Region, values: NDArray[Any]
    ) -> dict[str, list[Any]]:
        """Return the statistics of each chunk of a region, by key, once the contract holds."""
        records: dict[str, list[Any]] = {}
        for index in _indices(array, region):
            inner = tuple(
                slice(i * c - s.start, min((i + 1) * c, n) - s.start)
                for i, c, n, s in zip(index, array.chunks, array.shape, region, strict=True)
            )
            outer = tuple(
                slice(a.start + s.start, a.stop + s.start)
                for a, s in zip(inner, region, strict=True)
            )
            records[_key(name, index)] = self._statistics(name, array, outer, values[inner])
        return records

    def _statistics(self, name: str, array: Array, outer: Region, chunk: NDArray[Any]) -> list[Any]:
        contract = array.contract
        where = f"{self.url}: `{name}` {_extent(outer)}"
        mask = self.mask if contract.nan == "mask" else None
        if contract.nan == "mask" and mask is None:
            raise ContractError(f"{self.url}: `{name}` needs a mask and its stage gave none")
        found, missing, stray = statistics(chunk, None if mask is None else mask[outer[-2:]])
        count, _, low, high, _ = found
        if contract.nan != "allowed" and missing:
            raise ContractError(
                f"{where} has {missing} NaN where a value is expected (of {count}); "
                "an input is missing days or cells there"
            )
        if stray:
            raise ContractError(f"{where} has {stray} values where the mask expects NaN")
        least, most = contract.valid_range
        if (
            low is not None
            and high is not None
            and not (least <= low and high <= most and np.isfinite(low) and np.isfinite(high))
        ):
            raise ContractError(
                f"{where} must lie within {least:g}..{most:g} {array.attributes.get('units', '')}, "
                f"found {low:g}..{high:g}; check the units of the sources"
            )
        return list(found)

    def commit(self) -> None:
        """Audit what lies there against the journal, write the manifest, then the sentinel.

        Raises
        ------
        StoreError
            A chunk is missing, extra or not what was written.
        """
        objects, journal = Objects(self.url), self.journal
        self._check_fence()
        rows = sorted(chain.from_iterable(self._records().values()), key=lambda row: row.key)
        lying = objects.list()
        partial = {key for key in lying if key.endswith(PARTIAL)}
        objects.remove(partial)  # a killed worker's, whose task ran again elsewhere
        self._audit(rows, {key: lying[key] for key in lying.keys() - partial})
        metadata = {key: objects.get(key) for key in metadata_keys(self.arrays)}
        made = Manifest(
            self.header.identity,
            self.header.recipe,
            {
                key: manifest.attributes_digest(json.loads(content))
                if key == ATTRIBUTES
                else manifest.sha256(content)
                for key, content in sorted(metadata.items())
            },
            {name: array.contract.to_json() for name, array in sorted(self.arrays.items())},
            None if self.mask is None else _describe_mask(self.mask),
            tuple(rows),
        )
        if self.repair and self.repair.digest not in ("", made.digest):
            journal.clear()
            raise StoreError(
                f"{self.url}: recomputed blocks differ from what was committed, since other "
                f"versions of libraries made it (see its {PROVENANCE}); it is not committed any "
                "more: run the workflow again, it makes all of it anew"
            )
        objects.put(MANIFEST, made.text.encode())
        attributes = {**json.loads(metadata[ATTRIBUTES]), manifest.DIGEST: made.digest}
        metadata[ATTRIBUTES] = json.dumps(attributes, sort_keys=True, indent=1).encode()
        objects.put(ATTRIBUTES, metadata[ATTRIBUTES])
        objects.put(PROVENANCE, json.dumps(_provenance(), sort_keys=True, indent=1).encode())
        self._check_fence()
        _mark(self.url)
        if not objects.create(SENTINEL, consolidated(metadata)):
            raise StoreError(
                f"{self.url}: another run committed other data for the same identity; "
                "delete the store and run the workflow again"
            )
        journal.clear()

    def _audit(self, rows: Sequence[Row], lying: Mapping[str, Entry]) -> None:
        expected = expected_keys(self.arrays)
        journalled = {row.key: row for row in rows}
        times = Counter(row.key for row in rows)
        metadata = metadata_keys(self.arrays)
        wrong = [f"{k}: missing" for k in sorted(expected - lying.keys())]
        wrong += [f"{k}: not journalled" for k in sorted(expected - journalled.keys())]
        wrong += [f"{k}: written {n} times" for k, n in sorted(times.items()) if n > 1]
        wrong += [f"{k}: unexpected object" for k in sorted(lying.keys() - expected - metadata)]
        wrong += [
            f"{k}: {lying[k].size} bytes, wrote {row.size}"
            for k, row in sorted(journalled.items())
            if k in lying and lying[k].size != row.size
        ]
        if not wrong:
            # A writer that lost its lease may have been about to write: then all is read again.
            suspect = self.fence is not None and self.fence.number > 1
            wrong = [
                f"{k}: not what was written"
                for k, row in sorted(journalled.items())
                if (suspect or lying[k].crc32c) and not self._is_whole(row, lying)
            ]
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise StoreError(
                f"{self.url} is not whole, so it is not committed: {'; '.join(wrong[:5])}{more}"
            )


def _extent(region: Region) -> str:
    return "[" + ", ".join(f"{s.start}:{s.stop}" for s in region) + "]"


def _record(block: str) -> str:
    return f"{block}.json"


def _key(name: str, index: tuple[int, ...]) -> str:
    return f"{name}/" + (".".join(map(str, index)) or "0")


def _indices(array: Array, region: Region) -> Iterator[tuple[int, ...]]:
    """Yield the indices of the chunks of a region."""
    return itertools.product(
        *(range(s.start // c, -(-s.stop // c)) for s, c in zip(region, array.chunks, strict=True))
    )


def keys(name: str, array: Array, region: Region) -> set[str]:
    """Return the keys of the chunks of a region."""
    return {_key(name, index) for index in _indices(array, region)}


def expected_keys(arrays: Mapping[str, Array]) -> set[str]:
    """Return the keys of every chunk that the declared arrays have."""
    return {
        key
        for name, array in arrays.items()
        for key in keys(name, array, tuple(slice(0, n) for n in array.shape))
    }


def metadata_keys(arrays: Iterable[str]) -> set[str]:
    """Return the keys of the metadata of a store with these arrays."""
    return {".zgroup", ATTRIBUTES} | {f"{n}/{f}" for n in arrays for f in (".zarray", ".zattrs")}


def consolidated(metadata: Mapping[str, bytes]) -> bytes:
    """Return the content of the sentinel: all metadata by key."""
    parts = {key: json.loads(content) for key, content in sorted(metadata.items())}
    return json.dumps({"metadata": parts, "zarr_consolidated_format": 1}, indent=1).encode()


def _describe_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    return {"sha256": manifest.sha256(np.packbits(mask).tobytes()), "count": int(mask.sum())}


def _provenance() -> dict[str, Any]:
    return {
        "finescale": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": version("scipy"),
        "numba": numba.__version__,
        "zarr": zarr.__version__,
        "numcodecs": numcodecs.__version__,
        "host": platform.node(),
        "committed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


@cache
def _library_digest() -> str:
    """Return the digest of this library's source."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


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
            with reported(self.url):
                plain = _zarr_store(self.url, read_only=True)
                consolidated: dict[str, Any] = {"mode": "r", "zarr_format": 2}
                consolidated |= {"use_consolidated": True}
                digest = zarr.open_group(plain, **consolidated).attrs[manifest.DIGEST]
                _checksums(self.url, str(digest))
                return zarr.open_group(_Checked(plain, self.url, str(digest)), **consolidated)
        except (ValueError, FileNotFoundError, KeyError) as error:
            with suppress(FinescaleError):  # so that a run after this one knows, too
                unmark(self.url)
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
        with reported(self.url):
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


def is_committed(url: str, identity: str) -> bool:
    """Tell whether a store is committed and has this identity."""
    try:
        return open_store(url).identity == identity
    except StoreError:
        return False


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
    return Objects(root).exists()


def list_stores(root: str) -> list[str]:
    """Return the sentinels of the committed stores below a root, relative to it, sorted.

    Raises
    ------
    StoreError, TransientError
        Listing is not permitted; the root cannot be reached.
    """
    try:
        if not Objects(root).is_local:
            return sorted(committed(root))
        with reported(root):
            fs, base = fsspec.core.url_to_fs(root)
            found = fs.glob(f"{glob.escape(base.rstrip('/'))}/*/*.zarr/{SENTINEL}")
    except FinescaleError:
        raise
    except Exception as error:
        raise TransientError(
            f"{root}: the root of stores cannot be reached ({type(error).__name__}: {error}); "
            "check its address, the network and your credentials"
        ) from error
    return sorted("/".join(path.split("/")[-3:]) for path in found)


def committed(root: str) -> dict[str, float | None]:
    """Return the sentinels of the stores in a bucket, relative to its root, with their times.

    Two listings that do not go into stores: what is marked, and what lies there. A store that
    lies there unmarked, since it was copied into the bucket, is asked for its sentinel; one whose
    marker says more than is true is found out when it is opened.
    """
    markers = Objects(f"{root}/{MARKERS}")
    marked = {key: entry.modified for key, entry in markers.list().items()}
    stages = [stage for stage in Objects(root).folders() if not stage.startswith(".")]
    with ThreadPoolExecutor(READERS) as pool:
        names = pool.map(lambda stage: Objects(f"{root}/{stage}").folders(), stages)
        lying = {
            f"{stage}/{name}"
            for stage, found in zip(stages, names, strict=True)
            for name in found
            if name.endswith(".zarr")
        }
        unmarked = sorted(lying - marked.keys())
        whole = pool.map(lambda path: Objects(f"{root}/{path}").version(SENTINEL), unmarked)
        copied = [path for path, version in zip(unmarked, whole, strict=True) if version]
        list(pool.map(lambda path: _mark(f"{root}/{path}"), copied))
    times = marked | dict.fromkeys(copied)
    return {f"{path}/{SENTINEL}": times[path] for path in lying & times.keys()}


def _marker(url: str) -> tuple[Objects, str]:
    """Return where the marker of a store lies."""
    above, stage, name = url.rsplit("/", 2)
    return Objects(f"{above}/{MARKERS}"), f"{stage}/{name}"


def _mark(url: str) -> None:
    """Announce a store in a bucket that is about to be committed."""
    if not Objects(url).is_local:
        markers, key = _marker(url)
        markers.put(key, b"")


def unmark(url: str) -> None:
    """Take back what announces a store; it goes before its sentinel goes."""
    if not Objects(url).is_local:
        markers, key = _marker(url)
        markers.remove([key])


def describe(url: str) -> Description:
    """Return what a committed store says of itself.

    Raises
    ------
    StoreError
        It is not committed, or its manifest is gone.
    """
    url = open_store(url).url
    read = []
    for name in (MANIFEST, PROVENANCE):
        try:
            read.append(Objects(url).get(name))
        except FileNotFoundError as error:
            raise StoreError(
                f"{url} has no readable {name}; delete the store and run the workflow again"
            ) from error
    found = manifest.parse(read[0], where=f"{url}/{MANIFEST}")
    return Description(
        url=url,
        stage=found.recipe["stage"],
        identity=found.identity,
        facets=found.recipe["facets"],
        recipe=dict(found.recipe),
        size=sum(row.size for row in found.rows),
        committed=json.loads(read[1])["committed"],
    )
