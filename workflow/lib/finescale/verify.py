"""Verification: every damaged object of a store by name, and how it is damaged.

Quick is one listing and a look at the metadata; deep reads every chunk besides. A chunk that looks
wrong in the listing is read either way, so that it can be said what lies there instead.
"""

from __future__ import annotations

import json
import logging
import math
import re
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, Literal, TypeVar

import google_crc32c
import numcodecs.blosc
import numpy as np
from numba import njit
from numpy.typing import NDArray

from finescale import manifest
from finescale.calendars import Days
from finescale.errors import SourceError, StoreError
from finescale.job import Job
from finescale.manifest import Manifest, Row
from finescale.storage import PARTIAL, Entry, Objects
from finescale.store import (
    ATTRIBUTES,
    MANIFEST,
    PROVENANCE,
    SENTINEL,
    consolidated,
    statistics,
)

log = logging.getLogger("finescale")

ROOT = {".zgroup", ATTRIBUTES, SENTINEL, PROVENANCE}
METADATA = ROOT | {MANIFEST, ".zarray"}
COORDINATES = ("time", "lat", "lon")
FRAME = struct.Struct("<4xI4xI")  # Blosc's header: bytes of values, bytes of the frame itself
OPEN = (-math.inf, math.inf)
MOST = 10
"""Findings in a message."""
CASTAGNOLI = 0x82F63B78  # the polynomial of CRC-32C, lowest bit first

Kind = Literal[
    "missing", "truncated", "bit-flipped", "unreadable", "foreign", "extra", "nan", "range",
    "metadata", "manifest", "uncommitted",
]  # fmt: skip
Label = Callable[[int], object]
Document = dict[str, Any]
Statistics = tuple[int, int, Any, Any, Any]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Finding:
    """A damaged object; `chunk` is the last part of its key, `extent` what the chunk covers."""

    store: str
    array: str
    chunk: str
    extent: str
    kind: Kind
    detail: str

    @property
    def key(self) -> str:
        """Return the key of the object in its store."""
        return f"{self.array}/{self.chunk}" if self.array else self.chunk

    @property
    def order(self) -> tuple[str, str, list[int], str]:
        """Return what findings are sorted by; chunks by number, after other objects."""
        parts = self.chunk.split(".")
        number = [int(part) for part in parts] if all(map(str.isdecimal, parts)) else []
        return self.store, self.array, number, self.chunk


def verify(
    url: str,
    *,
    deep: bool = False,
    expected: str | None = None,
    map: Callable[[Callable[[str], list[Finding]], list[str]], Iterable[list[Finding]]] = map,
) -> list[Finding]:
    """Return what is wrong with one store, sorted by array and chunk; empty if it is whole.

    Parameters
    ----------
    url
        Of the store, with or without its sentinel.
    deep
        Read every chunk and compare it with its row of the manifest.
    expected
        The identity (64 hex digits) that the plan wants there.
    map
        Maps a function over the chunks that must be read.

    Raises
    ------
    StoreError, TransientError
        The storage cannot be reached.
    """
    look = _look(url, expected, deep=deep)
    read = chain.from_iterable(map(look.check, look.keys))
    return sorted([*look.findings, *read], key=lambda finding: finding.order)


def verify_all(
    stores: Sequence[tuple[str, str | None]],
    *,
    deep: bool,
    jobs: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Return what is wrong with any of the stores, sorted by store, array and chunk.

    Parameters
    ----------
    stores
        (url, expected identity or None).
    deep
        As of `verify`.
    jobs
        Threads; each holds one chunk. So many manifests and a few are in memory.
    progress
        Called with (steps done, steps known): a step is a store listed or a chunk read, and the
        chunks of a store are known once it is listed.

    Raises
    ------
    StoreError, TransientError
        The storage cannot be reached.
    """
    findings: list[Finding] = []
    done, known = 0, len(stores)

    def keep(found: list[Finding], more: int = 0) -> None:
        nonlocal done, known
        done, known = done + 1, known + more
        findings.extend(found)
        if progress:
            progress(done, known)

    with ThreadPoolExecutor(jobs) as pool:

        def chunks() -> Iterator[tuple[_Look, str]]:
            for look in _ahead(pool, lambda s: _look(*s, deep=deep), stores, ahead=jobs):
                keep(look.findings, len(look.keys))
                yield from ((look, key) for key in look.keys)

        for found in _ahead(pool, lambda task: task[0].check(task[1]), chunks(), ahead=2 * jobs):
            keep(found)
    return sorted(findings, key=lambda finding: finding.order)


def run(work: Job, *, stores: list[str], identities: list[str], deep: bool) -> None:
    """Write verified.json, where it is asked for, if no store is damaged.

    Parameters
    ----------
    stores, identities
        Sentinels, and the identity (64 hex digits) of each; what is not made yet is no damage.
    deep
        Read every chunk, not only the listings.

    Raises
    ------
    StoreError
        A store is damaged; the message names what is.
    """
    known = list(zip(stores, identities, strict=True))
    every = verify_all(known, deep=deep, jobs=work.threads)
    found = [finding for finding in every if finding.kind != "uncommitted"]
    log.info("%d of %d stores verified", len(known) - len(every) + len(found), len(known))
    if found:
        listed = "".join(f"\n  {f.store}/{f.key}: {f.kind}, {f.detail}" for f in found[:MOST])
        more = f"\n  and {len(found) - MOST} more" if len(found) > MOST else ""
        raise StoreError(
            f"{len(found)} objects are damaged in {len(stores)} stores:{listed}{more}\n"
            "`finescale heal --configfile F` recomputes what is damaged"
        )
    if "verified" in work.files:
        folder, _, name = work.files["verified"].rpartition("/")
        document = {"stores": len(stores), "deep": deep}
        Objects(folder).put(name, f"{json.dumps(document)}\n".encode())


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], tasks: Iterable[T], *, ahead: int
) -> Iterator[R]:
    """Yield results in order; no more than `ahead` tasks are taken before they are asked for."""
    running: deque[Future[R]] = deque()
    for task in tasks:
        running.append(pool.submit(function, task))
        if len(running) > ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


# --------------------------------------------------------------------------------------
# The listing and the metadata


def _look(url: str, expected: str | None, *, deep: bool) -> _Look:
    """Return what the listing and the metadata of a store show, and the chunks to read."""
    objects = Objects(url.rstrip("/").removesuffix(f"/{SENTINEL}"))
    look = _Look(objects, deep)
    listing = objects.list()
    if SENTINEL not in listing:
        detail = f"there is no {SENTINEL}" if listing else "there is nothing"
        look.findings.append(look.finding("", "uncommitted", detail))
        return look
    contents = {
        key: content
        for key in listing
        if key.rpartition("/")[2] in METADATA and (content := _content(objects, key)) is not None
    }
    parsed = {key: _document(content) for key, content in contents.items() if key != MANIFEST}
    found = _manifest(contents.get(MANIFEST), parsed)
    if isinstance(found, str):
        wrong = _unreadable(ROOT | parsed.keys(), contents, parsed)
        look.findings.append(look.finding(MANIFEST, "manifest", found))
    else:
        wrong = _changed(found, contents, parsed)
        intact = {key: parsed[key] for key in found.metadata if key not in wrong}
        look = _Look(objects, deep, found, intact)
        look.compare(listing)
        if other := _other_identity(objects.url, found, expected, intact.get(ATTRIBUTES, {})):
            look.findings.append(look.finding(MANIFEST, "manifest", other))
    look.findings.extend(look.finding(key, "metadata", detail) for key, detail in wrong.items())
    return look


def _content(objects: Objects, key: str) -> bytes | None:
    """Return an object; nothing of one that the disk does not give, None if it is gone."""
    try:
        return objects.get(key)
    except FileNotFoundError:
        return None
    except OSError:
        return b""


def _document(content: bytes) -> Document:
    """Return the JSON object in a file; an empty one if it holds none."""
    try:
        return _mapping(json.loads(content))
    except ValueError:
        return {}


def _mapping(value: Any) -> Document:
    return value if isinstance(value, dict) else {}


def _manifest(content: bytes | None, parsed: Mapping[str, Document]) -> Manifest | str:
    """Return the manifest, or what is wrong with it.

    Two objects hold its digest; one that agrees is enough, and shows the other to be damaged.
    """
    if content is None:
        return "it is missing"
    attributes = parsed.get(ATTRIBUTES, {})
    copies = _mapping(parsed.get(SENTINEL, {}).get("metadata"))
    copy = _mapping(copies.get(ATTRIBUTES))
    try:
        found = manifest.parse(content, where=MANIFEST)
    except StoreError as error:
        return str(error)
    if manifest.sha256(content) in (attributes.get(manifest.DIGEST), copy.get(manifest.DIGEST)):
        return found
    here = attributes.get("finescale_identity", copy.get("finescale_identity"))
    if found.identity != here:
        return f"it belongs to the store of identity {found.identity}, this one is {here}"
    return f"its digest is not the one in {ATTRIBUTES}"


def _unreadable(
    keys: Iterable[str], contents: Mapping[str, bytes], parsed: Mapping[str, Document]
) -> dict[str, str]:
    """Return what is wrong with metadata that hold no JSON object, by key."""
    return {
        key: "it holds no JSON object" if key in contents else "it is missing"
        for key in keys
        if not parsed.get(key)
    }


def _changed(
    found: Manifest, contents: Mapping[str, bytes], parsed: Mapping[str, Document]
) -> dict[str, str]:
    """Return what is wrong with metadata, by key."""
    wrong = _unreadable(ROOT | found.metadata.keys(), contents, parsed)
    for key in found.metadata.keys() - wrong.keys():
        content, digest = contents[key], manifest.sha256(contents[key])
        if key == ATTRIBUTES:
            sealed = {**parsed[key], manifest.DIGEST: manifest.sha256(contents[MANIFEST])}
            content = json.dumps(sealed, sort_keys=True, indent=1).encode()
            digest = manifest.attributes_digest(sealed)
        if (content, digest) != (contents[key], found.metadata[key]):
            wrong[key] = "it is not as it was written"
    intact = {key: contents[key] for key in found.metadata if key not in wrong}
    if SENTINEL not in wrong:
        copies = _mapping(parsed[SENTINEL].get("metadata"))
        if any(copies.get(key) != parsed[key] for key in intact) or (
            len(intact) == len(found.metadata) and contents[SENTINEL] != consolidated(intact)
        ):
            wrong[SENTINEL] = "it is not what the metadata it gathers give"
    return wrong


def _other_identity(
    url: str, found: Manifest, expected: str | None, attributes: Document
) -> str | None:
    """Return whose store it is, if not the one that it should be."""
    name = re.search(r"-([0-9a-f]{16})\.zarr$", url)
    wanted = {
        "the plan wants": expected,
        "its name says": name and name[1],
        f"its {ATTRIBUTES} say": attributes.get("finescale_identity"),
    }
    for who, identity in wanted.items():
        if identity and not found.identity.startswith(identity):
            return f"the store is of identity {found.identity}, {who} {identity}"
    return None


# --------------------------------------------------------------------------------------
# Chunks


@dataclass(frozen=True, eq=False)
class _Look:
    """A store in its listing: what is wrong already, and the chunks that must be read.

    `manifest` is None if it is unusable; `intact` are the metadata that are as they were written.
    """

    objects: Objects
    deep: bool
    manifest: Manifest | None = None
    intact: Mapping[str, Document] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @cached_property
    def rows(self) -> dict[str, Row]:
        return self.manifest.by_key if self.manifest else {}

    @cached_property
    def owners(self) -> dict[tuple[int, str], str]:
        """Return the first chunk by size and checksum."""
        return {(row.size, row.crc32c): row.key for row in reversed(self.rows.values())}

    def compare(self, listing: Mapping[str, Entry]) -> None:
        """Note the chunks that are not there, what should not be, and the chunks to read."""
        assert self.manifest is not None
        for key, row in self.rows.items():
            entry = listing.get(key)
            if entry is None:
                self.findings.append(self.finding(key, "missing", "there is no such object"))
            elif self.deep or entry.size != row.size or entry.crc32c not in (None, row.crc32c):
                self.keys.append(key)
        ours = self.rows.keys() | self.manifest.metadata.keys() | ROOT | {MANIFEST}
        for key in listing.keys() - ours:
            detail = "a killed writer left it" if key.endswith(PARTIAL) else "it belongs to nothing"
            self.findings.append(self.finding(key, "extra", detail))

    def finding(self, key: str, kind: Kind, detail: str) -> Finding:
        array, _, chunk = key.rpartition("/")
        extent = self._extent(array, chunk) if key in self.rows else ""
        return Finding(self.objects.url, array, chunk, extent, kind, detail)

    def check(self, key: str) -> list[Finding]:
        """Return what is wrong with a chunk, at most one finding."""
        try:
            wrong = self._judge(key, self.objects.get(key))
        except FileNotFoundError:
            wrong = "missing", "there is no such object"
        except OSError as error:
            wrong = "unreadable", str(error)
        return [self.finding(key, *wrong)] if wrong else []

    def _judge(self, key: str, data: bytes) -> tuple[Kind, str] | None:
        row, n = self.rows[key], len(data)
        differing = google_crc32c.value(data) ^ int(row.crc32c, 16)
        same = n == row.size and not differing
        if same and not (self.deep and self._zarray(key)):
            return None
        if n < FRAME.size or (n < row.size and FRAME.unpack_from(data)[1] > n):
            return "truncated", f"truncated to {n} of {row.size} bytes"
        if n == row.size and not same:
            position = _flipped_bit(differing, 8 * n)
            if position >= 0 and self._mends(key, data, position):
                return "bit-flipped", f"bit {position % 8} of byte {position // 8}"
        try:
            found = statistics(self._values(key, data))[0]
        except ValueError as error:
            return "unreadable", str(error)
        return None if same and found == _recorded(row) else self._kind(row, data, found)

    def _kind(self, row: Row, data: bytes, found: Statistics) -> tuple[Kind, str]:
        """Tell what a whole chunk is that should be another."""
        assert self.manifest is not None
        count, n_nan, low, high, _ = found
        owner = self.owners.get((len(data), f"{google_crc32c.value(data):08x}"))
        # All chunks of nothing but NaN are alike: whose it was is not known.
        if owner not in (None, row.key) and n_nan < count:
            return "foreign", f"it holds chunk {owner} of this store"
        if n_nan > row.n_nan:
            return "nan", f"{n_nan} NaN among {count} values, {row.n_nan} expected"
        ends = self.manifest.contracts[row.key.rpartition("/")[0]]["valid_range"]
        least, most = (d if end is None else end for end, d in zip(ends, OPEN, strict=True))
        if low is not None and not (
            least <= low and high <= most and math.isfinite(low) and math.isfinite(high)
        ):
            return "range", f"values {low:g}..{high:g}, must lie within {least:g}..{most:g}"
        return "foreign", "it is a whole chunk of other values"

    def _mends(self, key: str, data: bytes, position: int) -> bool:
        """Tell whether turning one bit gives the chunk: another one may share its checksum."""
        mended = bytearray(data)
        mended[position // 8] ^= 1 << position % 8
        try:
            return statistics(self._values(key, bytes(mended)))[0] == _recorded(self.rows[key])
        except ValueError:
            return False

    def _zarray(self, key: str) -> Document:
        return self.intact.get(f"{key.rpartition('/')[0]}/.zarray", {})

    def _values(self, key: str, data: bytes) -> NDArray[Any]:
        """Return the values of a chunk that lie in its array; ValueError says why they cannot be.

        Blosc believes what a frame says of its size, so it sees only those that speak the truth.
        """
        zarray = self._zarray(key)
        if not zarray:
            raise ValueError("the .zarray of its array is damaged")
        chunks, dtype = zarray["chunks"], np.dtype(zarray["dtype"])
        values = np.empty(math.prod(chunks) * dtype.itemsize, dtype=np.uint8)
        held, length = FRAME.unpack_from(data)
        if length != len(data):
            raise ValueError(f"it has {len(data)} bytes and says {length}")
        if held != values.size:
            raise ValueError(f"it holds {held} bytes of values, a chunk has {values.size}")
        try:
            numcodecs.blosc.decompress(data, values)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        spans = _spans(key.rpartition("/")[2], chunks, zarray["shape"])
        inside = tuple(slice(0, last + 1 - first) for first, last in spans)
        return np.asarray(values.view(dtype).reshape(chunks)[inside])

    def _extent(self, array: str, chunk: str) -> str:
        """Return what a chunk covers; empty if what would tell it is damaged."""
        zarray = self.intact.get(f"{array}/.zarray", {"chunks": [], "shape": []})
        dims = self.intact.get(f"{array}/.zattrs", {}).get("_ARRAY_DIMENSIONS", [])
        spans = zip(dims, _spans(chunk, zarray["chunks"], zarray["shape"]), strict=False)
        told = [
            f"{dim} {label(first)}..{label(last)}"
            for dim, (first, last) in spans
            if (label := self._labels.get(dim, int)) is not None
        ]
        return ", ".join(told) if len(told) == len(dims) else ""

    @cached_property
    def _labels(self) -> dict[str, Label | None]:
        """Return how positions on an axis with coordinates are told; None if these are damaged."""
        return {name: self._label(name) for name in COORDINATES if f"{name}/0" in self.rows}

    def _label(self, name: str) -> Label | None:
        key = f"{name}/0"
        attributes = self.intact.get(f"{name}/.zattrs")
        try:
            data = self.objects.get(key)
            if attributes is None or f"{google_crc32c.value(data):08x}" != self.rows[key].crc32c:
                return None
            values = self._values(key, data)
            if name == "time":
                calendar = attributes.get("calendar", "standard")
                return Days.from_cf(values, attributes["units"], calendar).isoformat
        except (OSError, ValueError, KeyError, SourceError):
            return None
        return lambda i: f"{values[i]:g}"


def _spans(chunk: str, chunks: list[int], shape: list[int]) -> list[tuple[int, int]]:
    """Return first and last position of a chunk on each axis of its array."""
    return [
        (int(i) * length, min((int(i) + 1) * length, n) - 1)
        for i, length, n in zip(chunk.split("."), chunks, shape, strict=False)
    ]


def _recorded(row: Row) -> Statistics:
    return row.count, row.n_nan, row.low, row.high, row.total


@njit(nogil=True, cache=True)
def _flipped_bit(differing, n_bits):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return the bit whose flip makes checksums differ by these bits; -1 if no single one does.

    A CRC is linear: the difference of two of equal length depends only on where messages differ,
    and one bit earlier is one more step of the register.
    """
    register = CASTAGNOLI
    for position in range(n_bits - 1, -1, -1):
        if register == differing:
            return position
        register = (register >> 1) ^ (CASTAGNOLI if register & 1 else 0)
    return -1
