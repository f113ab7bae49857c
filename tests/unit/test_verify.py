"""Verification: whatever is damaged is found and named, and nothing else."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import damage
import fsspec
import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finescale import fields, store, verify
from finescale.calendars import Days
from finescale.errors import StoreError, TransientError
from finescale.grids import Grid
from finescale.storage import Entry, Objects
from finescale.store import Array, Contract, Header, Writer, coordinate
from finescale.verify import Finding, verify_all

DAYS = Days.range("2011-01-01", "2011-02-19", "noleap")
LAT, LON = 40.25 + 0.5 * np.arange(4), -5.75 + 0.5 * np.arange(6)
SHAPE = (50, 4, 6)
"""In twelve chunks of 20 x 2 x 3, the last ones in time half empty."""
LAND = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0], [1] * 6], dtype=bool)
KEY, EXTENT = "tas/1.1.0", "time 2011-01-21..2011-02-09, lat 41.25..41.75, lon -5.75..-4.75"
BLANK = "tas/1.0.1"
"""A chunk of the sea: nothing but NaN."""
IDENTITY = "ab" * 32


def write(url: str, *, seed: int = 0, identity: str = IDENTITY, time: int = 20) -> str:
    """Return the url, with a store of every kind of array: masked, of integers, texts, a scalar.

    A chunk has `time` days.
    """
    values = np.random.default_rng(seed).normal(280, 9, SHAPE).astype(np.float32)
    n_days = np.zeros((7, 4), dtype=np.int32)
    n_days[0] = 5
    arrays = {
        "tas": Array(
            ("time", "lat", "lon"), SHAPE, (time, 2, 3), contract=Contract((150.0, 350.0), "mask")
        ),
        "n_days": Array(("slot", "lat"), n_days.shape, (3, 4), "<i4"),
        **fields.time_axis(DAYS),
        **fields.horizontal(Grid.from_centres(LAT, LON)),
        "score": coordinate(("score",), np.array(["rmse", "bias"])),
        "height": coordinate((), np.float64(2.0)),
    }
    header = Header("bcsd", identity, {"variable_id": "tas"}, {"stage": "bcsd"})
    writer = Writer(url, header, arrays, LAND).create({"title": "é"})
    every = tuple(slice(0, n) for n in SHAPE)
    pieces = [("tas", every, np.where(LAND, values, np.nan).astype(np.float32))]
    pieces += [("n_days", (slice(0, 7), slice(0, 4)), n_days)]
    writer.write_block("all", pieces)
    writer.commit()
    return url


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Return the objects of a store, by key."""
    objects = Objects(write("memory://once/x.zarr"))
    return {key: objects.get(key) for key in objects.list()}


def lay(url: str, contents: dict[str, bytes]) -> str:
    """Return the url, with these objects below it and no others."""
    fs, root = fsspec.core.url_to_fs(url, auto_mkdir=True)
    if fs.exists(root):
        fs.rm(root, recursive=True)
    for key, content in contents.items():
        fs.pipe_file(f"{root}/{key}", content)
    return url


@pytest.fixture(params=["folder", "object store"])
def url(request: pytest.FixtureRequest, tmp_path: Path, contents: dict[str, bytes]) -> str:
    """Give a store, on disk and in memory."""
    folder = str(tmp_path) if request.param == "folder" else "memory://verified"
    return lay(f"{folder}/x.zarr", contents)


def named(findings: list[Finding]) -> list[tuple[str, str]]:
    """Return (kind, key) of each finding."""
    return [(f.kind, f"{f.array}/{f.chunk}".lstrip("/")) for f in findings]


# --------------------------------------------------------------------------------------
# Nothing is found where nothing is wrong


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_store_has_no_findings(url: str, deep: bool) -> None:
    assert verify.verify(url, deep=deep) == []
    assert verify.verify(f"{url}/.zmetadata", deep=deep, expected=IDENTITY) == []


def test_a_thousand_whole_chunks_raise_no_alarm() -> None:
    """Among them chunks of fill values, of nothing but NaN, and half ones at the edges."""
    url, shape = "memory://thousand/x.zarr", (19, 20, 25)
    sea = np.zeros(shape[1:], dtype=bool)
    sea[:6, :9] = True
    values = np.random.default_rng(1).gamma(0.2, 3, shape).astype(np.float32)
    values[:4] = 0
    values[:, sea] = np.nan
    counts = np.zeros((40, 25), dtype=np.int16)
    chunks = (2, 2, 3)
    arrays = {
        "pr": Array(("time", "lat", "lon"), shape, chunks, contract=Contract((0, 1e4), "mask")),
        "tas": Array(("time", "lat", "lon"), shape, chunks, contract=Contract(nan="allowed")),
        "count": Array(("slot", "lon"), counts.shape, (4, 3), "<i2"),
    }
    every = tuple(slice(0, n) for n in shape)
    writer = Writer(url, Header("bcsd", IDENTITY, {}, {}), arrays, ~sea).create({})
    blank = np.full(shape, np.nan, dtype=np.float32)
    count = ("count", tuple(slice(0, n) for n in counts.shape), counts)
    rows = writer.write_block("all", [("pr", every, values), ("tas", every, blank), count])
    writer.commit()
    assert len(rows) > 1000
    assert sum(row.low is None for row in rows) > 500, "chunks of NaN"
    assert sum(row.low == row.high == 0 for row in rows) > 90, "chunks of zeros"
    assert verify.verify(url, deep=True) == []


# --------------------------------------------------------------------------------------
# Every kind of damage to a chunk

CHUNK_DAMAGE: list[tuple[damage.Damage, str, str]] = [
    (damage.missing, "missing", "there is no such object"),
    (damage.truncated, "truncated", "truncated to 20 of {size} bytes"),
    (damage.emptied, "truncated", "truncated to 0 of {size} bytes"),
    (damage.bit_flipped, "bit-flipped", "bit 2 of byte 21"),
    (partial(damage.bit_flipped, position=0), "bit-flipped", "bit 0 of byte 0"),
    (damage.zeroed, "unreadable", "it has {size} bytes and says 0"),
    (damage.garbled, "unreadable", "error during blosc decompression: -1"),
    (damage.prolonged, "unreadable", "it has {size_and_one} bytes and says {size}"),
    (partial(damage.replaced, by="tas/1.0.0"), "foreign", "it holds chunk tas/1.0.0 of this store"),
    (
        partial(damage.replaced, by="lat/0"),
        "unreadable",
        "it holds 32 bytes of values, a chunk has 480",
    ),
    (damage.other_values, "foreign", "it is a whole chunk of other values"),
    (damage.one_nan, "nan", "1 NaN among 120 values, 0 expected"),
    (damage.without_values, "nan", "120 NaN among 120 values, 0 expected"),
    (damage.out_of_range, "range", "values 253.647..1e+09, must lie within 150..350"),
]


@pytest.mark.parametrize("case", CHUNK_DAMAGE, ids=lambda case: f"{case[1]}: {case[2]}")
def test_a_damaged_chunk_is_named(case: tuple[damage.Damage, str, str], url: str) -> None:
    harm, kind, detail = case
    size = Objects(url).list()[KEY].size
    harm(url, KEY)
    expected = detail.format(size=size, size_and_one=size + 1)
    assert verify.verify(url, deep=True) == [
        Finding(url, "tas", "1.1.0", EXTENT, kind, expected)  # type: ignore[arg-type]
    ]
    if Objects(url).list().get(KEY, Entry(0)).size != size:
        assert named(verify.verify(url)) == [(kind, KEY)], "the listing shows as much"


@pytest.mark.parametrize("case", CHUNK_DAMAGE[:8], ids=lambda case: f"{case[1]}: {case[2]}")
def test_a_chunk_is_named_in_quick_where_the_service_tells_its_checksum(
    case: tuple[damage.Damage, str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Objects.list

    def told(self: Objects) -> dict[str, Entry]:
        return {key: Entry(entry.size, crc32c(self, key)) for key, entry in listed(self).items()}

    def crc32c(objects: Objects, key: str) -> str:
        return f"{google_crc32c.value(objects.get(key)):08x}"

    monkeypatch.setattr(Objects, "list", told)
    case[0](url, KEY)
    assert named(verify.verify(url)) == [(case[1], KEY)]


def test_quick_reads_no_chunk_that_looks_whole(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    damage.bit_flipped(url, KEY)
    get: Callable[[Objects, str], bytes] = Objects.get
    read: list[str] = []

    def noted(self: Objects, key: str) -> bytes:
        read.append(key)
        return get(self, key)

    monkeypatch.setattr(Objects, "get", noted)
    assert verify.verify(url) == []
    assert read
    assert not [key for key in read if key.rpartition("/")[2][0].isdigit()]


def test_swapped_chunks_are_both_foreign_and_told_apart(url: str) -> None:
    damage.swapped(url, KEY, "tas/0.0.0")
    assert [(f.chunk, f.kind, f.detail) for f in verify.verify(url, deep=True)] == [
        ("0.0.0", "foreign", "it holds chunk tas/1.1.0 of this store"),
        ("1.1.0", "foreign", "it holds chunk tas/0.0.0 of this store"),
    ]


def test_a_blank_chunk_is_nan_though_it_equals_that_of_a_sea(url: str) -> None:
    damage.replaced(url, KEY, by=BLANK)
    assert named(verify.verify(url, deep=True)) == [("nan", KEY)]
    damage.replaced(url, BLANK, by="tas/0.0.0")
    assert named(verify.verify(url, deep=True)) == [("foreign", BLANK), ("nan", KEY)]


@pytest.mark.parametrize(
    ("of", "kind", "detail"),
    [
        ({"seed": 1}, "foreign", "it is a whole chunk of other values"),
        ({"time": 10}, "unreadable", "it holds 240 bytes of values, a chunk has 480"),
    ],
)
def test_a_chunk_of_another_store_is_no_chunk_of_this_one(
    of: dict[str, Any], kind: str, detail: str, url: str
) -> None:
    other = write("memory://another/y.zarr", **of)
    damage.replaced(url, KEY, by="tas/0.1.0", of=other)
    (found,) = verify.verify(url, deep=True)
    assert (found.chunk, found.kind, found.detail) == ("1.1.0", kind, detail)


def test_chunks_of_integers_and_texts_and_scalars_are_checked_too(url: str) -> None:
    damage.rewritten(url, "n_days/0.0", lambda values: values.put(0, 11))
    damage.rewritten(url, "score/0", lambda values: values.put(0, "mean"))
    damage.rewritten(url, "height/0", lambda values: values.fill(5))
    assert [(f.array, f.kind, f.extent) for f in verify.verify(url, deep=True)] == [
        ("height", "foreign", ""),
        ("n_days", "foreign", "slot 0..2, lat 40.25..41.75"),
        ("score", "foreign", "score 0..1"),
    ]


@pytest.mark.parametrize(
    ("harm", "kind"), [(damage.garbled, "unreadable"), (damage.other_values, "foreign")]
)
def test_a_checksum_like_that_of_a_flipped_bit_misleads_nobody(
    harm: damage.Damage, kind: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the chunks of 3 MB that are wrong otherwise, one in 180 has such a checksum."""
    harm(url, KEY)
    monkeypatch.setattr(verify, "_flipped_bit", lambda differing, n_bits: 200)
    assert named(verify.verify(url, deep=True)) == [(kind, KEY)]


def test_infinity_is_out_of_any_range(url: str) -> None:
    damage.rewritten(url, "time/0", lambda values: values.put(3, np.inf))
    (found,) = verify.verify(url, deep=True)
    assert (found.kind, found.detail) == ("range", "values 58765.5..inf, must lie within -inf..inf")


# --------------------------------------------------------------------------------------
# Any damage at all


@pytest.fixture(scope="module")
def laid(contents: dict[str, bytes]) -> str:
    """Give a store that many examples damage and put back."""
    return lay("memory://any/x.zarr", contents)


def compared(contents: dict[str, bytes]) -> list[str]:
    """Return the keys of what must be as it was written: all but the facts of the run."""
    return sorted(contents.keys() - {store.PROVENANCE})


@given(st.data())
@settings(max_examples=300)
def test_any_flipped_bit_is_found(
    laid: str, contents: dict[str, bytes], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(compared(contents)))
    position = data.draw(st.integers(0, 8 * len(contents[key]) - 1))
    damage.bit_flipped(laid, key, position)
    found = verify.verify(laid, deep=True)
    Objects(laid).put(key, contents[key])
    if key[-1].isdigit():
        detail = f"bit {position % 8} of byte {position // 8}"
        assert [(f.kind, f.detail) for f in found] == [("bit-flipped", detail)]
    assert [key for _, key in named(found)] == [key]


@given(st.data())
@settings(max_examples=200)
def test_any_truncation_is_found(
    laid: str, contents: dict[str, bytes], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(compared(contents)))
    keep = data.draw(st.integers(0, len(contents[key]) - 1))
    damage.truncated(laid, key, keep)
    found = verify.verify(laid, deep=data.draw(st.booleans()))
    Objects(laid).put(key, contents[key])
    kind = "truncated" if key[-1].isdigit() else "metadata"
    assert named(found) == [("manifest" if key == store.MANIFEST else kind, key)]


# --------------------------------------------------------------------------------------
# Where a chunk lies


def test_extents_are_what_the_coordinates_say(url: str) -> None:
    keys = ["/".join(("tas", f"{t}.{y}.{x}")) for t, y, x in product(range(3), range(2), range(2))]
    for key in keys:
        damage.missing(url, key)
    found = {f"tas/{f.chunk}": f.extent for f in verify.verify(url)}
    assert sorted(found) == keys
    covered = np.zeros(SHAPE, dtype=int)
    dates = [DAYS.isoformat(i) for i in range(50)]
    for key, extent in found.items():
        (t0, t1), (y0, y1), (x0, x1) = (
            part.split(" ")[1].split("..") for part in extent.split(", ")
        )
        time = slice(dates.index(t0), dates.index(t1) + 1)
        lat = np.isin(LAT, np.arange(float(y0), float(y1) + 0.5, 0.5))
        lon = np.isin(LON, np.arange(float(x0), float(x1) + 0.5, 0.5))
        i, j, k = (int(n) for n in key[4:].split("."))
        assert (time.start, int(lat.argmax()), int(lon.argmax())) == (20 * i, 2 * j, 3 * k)
        covered[time] += lat[:, None] & lon
    assert (covered == 1).all()


@pytest.mark.parametrize("part", ["lat/0", "time/0", "tas/.zarray", "tas/.zattrs", "time/.zattrs"])
def test_no_extent_is_told_from_damaged_coordinates(part: str, url: str) -> None:
    damage.missing(url, KEY)
    damage.zeroed(url, part)
    found = verify.verify(url, deep=True)
    assert {key for _, key in named(found)} == {KEY, part}
    assert [f.extent for f in found if f.kind == "missing"] == [""]


def test_a_damaged_description_is_no_damage_of_its_chunks(url: str) -> None:
    damage.edited(url, "tas/.zarray", chunks=[10, 4, 6])
    assert named(verify.verify(url, deep=True)) == [("metadata", "tas/.zarray")]
    damage.bit_flipped(url, KEY)
    found = verify.verify(url, deep=True)
    assert named(found) == [("metadata", "tas/.zarray"), ("unreadable", KEY)]
    assert found[1].detail == "the .zarray of its array is damaged"


def test_findings_are_in_the_order_of_the_chunks(url: str) -> None:
    for key in ("tas/10.0.0", "tas/9.0.0", "tas/2.0.0.partial", "a/0"):
        damage.added(url, key)
    damage.missing(url, "tas/2.0.0")
    damage.missing(url, "tas/0.1.0")
    damage.edited(url, "tas/.zattrs")
    assert named(verify.verify(url)) == [
        ("extra", "a/0"),
        ("metadata", "tas/.zattrs"),
        ("extra", "tas/2.0.0.partial"),
        ("missing", "tas/0.1.0"),
        ("missing", "tas/2.0.0"),
        ("extra", "tas/9.0.0"),
        ("extra", "tas/10.0.0"),
    ]


# --------------------------------------------------------------------------------------
# What is not a chunk

ROOT_OBJECTS = [".zgroup", ".zattrs", ".zmetadata", store.PROVENANCE]
METADATA = [*ROOT_OBJECTS, "tas/.zarray", "tas/.zattrs", "score/.zarray"]


@pytest.mark.parametrize("harm", [damage.truncated, damage.zeroed, damage.edited, damage.missing])
@pytest.mark.parametrize("key", METADATA)
def test_damaged_metadata_are_named(harm: damage.Damage, key: str, url: str) -> None:
    harm(url, key)
    found = named(verify.verify(url))
    if key == store.SENTINEL and harm is damage.missing:
        assert found == [("uncommitted", "")]
    elif key == store.PROVENANCE and harm is damage.edited:
        assert found == [], "the facts of a run are outside what is compared"
    else:
        assert found == [("metadata", key)]


def test_the_sentinel_is_compared_with_what_is_left_of_its_parts(url: str) -> None:
    damage.missing(url, "lat/.zattrs")
    copies = json.loads(Objects(url).get(store.SENTINEL))["metadata"]
    damage.edited(url, store.SENTINEL, metadata={**copies, "lon/.zattrs": {}})
    assert named(verify.verify(url)) == [
        ("metadata", store.SENTINEL),
        ("metadata", "lat/.zattrs"),
    ]


@pytest.mark.parametrize("text", ["[]", "3", '{"metadata": []}', '{"metadata": {".zattrs": 1}}'])
def test_a_sentinel_of_another_form_is_no_more_than_a_finding(text: str, url: str) -> None:
    Objects(url).put(store.SENTINEL, text.encode())
    assert named(verify.verify(url, deep=True)) == [("metadata", store.SENTINEL)]
    damage.edited(url, ".zattrs", finescale_manifest="0")
    (found,) = (f for f in verify.verify(url, deep=True) if f.kind != "metadata")
    assert (found.kind, found.detail) == ("manifest", "its digest is not the one in .zattrs")


def test_a_digest_changed_by_hand_is_damage_of_the_attributes_alone(url: str) -> None:
    damage.edited(url, ".zattrs", finescale_manifest="0" * 64)
    assert named(verify.verify(url)) == [("metadata", ".zattrs")]


def test_attributes_written_anew_are_not_as_they_were(url: str) -> None:
    content = json.loads(Objects(url).get(".zattrs"))
    Objects(url).put(".zattrs", json.dumps(content).encode())
    assert named(verify.verify(url)) == [("metadata", ".zattrs")]


@pytest.mark.parametrize(
    ("harm", "detail"),
    [
        (damage.missing, "it is missing"),
        (damage.zeroed, "no manifest can be read there"),
        (damage.truncated, "no manifest can be read there"),
        (damage.edited, "its digest is not the one in .zattrs"),
        (partial(damage.edited, format=1), "a manifest of format 1"),
    ],
)
def test_a_damaged_manifest_is_the_one_finding(harm: damage.Damage, detail: str, url: str) -> None:
    harm(url, store.MANIFEST)
    damage.missing(url, KEY)
    (found,) = verify.verify(url, deep=True)
    assert (found.kind, found.chunk) == ("manifest", store.MANIFEST)
    assert detail in found.detail


def test_metadata_that_cannot_be_read_are_named_without_a_manifest(url: str) -> None:
    damage.missing(url, store.MANIFEST)
    damage.truncated(url, "lat/.zarray")
    damage.missing(url, ".zattrs")
    assert named(verify.verify(url)) == [
        ("manifest", store.MANIFEST),
        ("metadata", ".zattrs"),
        ("metadata", "lat/.zarray"),
    ]


def test_the_manifest_of_another_store_says_whose_it_is(url: str) -> None:
    other = write("memory://another/y.zarr", identity="cd" * 32)
    damage.replaced(url, store.MANIFEST, by=store.MANIFEST, of=other)
    (found,) = verify.verify(url)
    assert found.detail == (
        f"it belongs to the store of identity {'cd' * 32}, this one is {'ab' * 32}"
    )


def test_a_store_of_another_identity_is_named(tmp_path: Path, contents: dict[str, bytes]) -> None:
    url = lay(str(tmp_path / f"tas-{'ab' * 8}.zarr"), contents)
    assert verify.verify(url, expected=IDENTITY) == []
    (found,) = verify.verify(url, expected="cd" * 32)
    assert found.kind == "manifest"
    assert found.detail == f"the store is of identity {IDENTITY}, the plan wants {'cd' * 32}"
    moved = str(tmp_path / f"tas-{'cd' * 8}.zarr")
    Path(url).rename(moved)
    (found,) = verify.verify(moved, expected=IDENTITY)
    assert found.detail == f"the store is of identity {IDENTITY}, its name says {'cd' * 8}"


def test_of_an_uncommitted_store_nothing_else_is_said(url: str) -> None:
    for key in (KEY, ".zattrs", store.MANIFEST):
        damage.missing(url, key)
    damage.uncommitted(url)
    (found,) = verify.verify(url, deep=True)
    assert found.kind == "uncommitted"
    Objects(url).clear()
    assert verify.verify(url) == [Finding(url, "", "", "", "uncommitted", "there is nothing")]


# --------------------------------------------------------------------------------------
# Storage that fails


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, suffix: str = KEY) -> None:
    get = Objects.get

    def failed(self: Objects, key: str) -> bytes:
        if key.endswith(suffix):
            raise error
        return get(self, key)

    monkeypatch.setattr(Objects, "get", failed)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(FileNotFoundError(), "missing"), (OSError(errno.EIO, "Input/output error"), "unreadable")],
)
def test_a_chunk_that_the_disk_does_not_give_is_damaged(
    error: OSError, kind: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, error)
    assert named(verify.verify(url, deep=True)) == [(kind, KEY)]


@pytest.mark.parametrize("key", [".zgroup", ".zattrs", ".zmetadata", "lat/.zarray"])
def test_metadata_that_the_disk_does_not_give_are_damaged(
    key: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, OSError(errno.EIO, "Input/output error"), key)
    found = verify.verify(url)
    assert ("metadata", key) in named(found)
    assert {f.kind for f in found} == {"metadata"}


@pytest.mark.parametrize("error", [TransientError("away"), StoreError("refused")])
@pytest.mark.parametrize("key", [KEY, ".zattrs", "time/0"])
def test_storage_that_cannot_be_reached_is_no_damage(
    error: Exception, key: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, error, key)
    with pytest.raises(type(error), match=str(error)):
        verify.verify(url, deep=True)
    with pytest.raises(type(error), match=str(error)):
        verify_all([(url, None)], deep=True, jobs=2)


# --------------------------------------------------------------------------------------
# Many stores


@pytest.mark.parametrize("deep", [False, True])
def test_many_stores_have_the_findings_of_each(
    deep: bool, tmp_path: Path, contents: dict[str, bytes]
) -> None:
    stores = [lay(str(tmp_path / f"{name}.zarr"), contents) for name in "dbca"]
    harm: list[Callable[[str, str], None]] = [damage.missing, damage.bit_flipped, damage.emptied]
    for url, hurt in zip(stores, harm, strict=False):
        hurt(url, KEY)
    told: list[tuple[int, int]] = []
    found = verify_all(
        [(url, IDENTITY) for url in stores],
        deep=deep,
        jobs=3,
        progress=lambda done, known: told.append((done, known)),
    )
    assert found == [f for url in sorted(stores) for f in verify.verify(url, deep=deep)]
    assert [f.kind for f in found] == (["bit-flipped"] if deep else []) + ["truncated", "missing"]
    n_chunks = sum(key[-1].isdigit() for key in contents)
    steps = 4 + (4 * n_chunks - 1 if deep else 1)
    assert [done for done, _ in told] == list(range(1, steps + 1))
    assert told[0][1] >= 4
    assert told[-1] == (steps, steps)


def test_no_more_chunks_are_in_memory_than_there_are_threads(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, most, lock = 0, 0, threading.Lock()
    check = verify._Look.check

    def counted(self: Any, key: str) -> list[Finding]:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        found = check(self, key)
        with lock:
            held -= 1
        return found

    monkeypatch.setattr(verify._Look, "check", counted)
    assert verify_all([(url, None)] * 5, deep=True, jobs=2) == []
    assert most == 2


def test_stores_are_listed_only_a_few_ahead() -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for i in range(20):
            taken.append(i)
            yield i

    with ThreadPoolExecutor(2) as pool:
        for i, result in enumerate(verify._ahead(pool, lambda i: i * i, tasks(), ahead=3)):
            assert result == i * i
            assert len(taken) <= i + 4
