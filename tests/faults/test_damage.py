"""Damage of every kind to the stores of every stage, on disk and behind gs://.

`verify` names what is damaged and nothing else; `heal` computes no more than that again, and every
byte is then as it was.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import damage
import fsspec
import numpy as np
import pytest
from faults.world import RULES, World, contents, cut, files
from numpy.typing import NDArray
from server import BUCKET, environment, server

from finescale import manifest, regrid
from finescale.errors import SourceError, StoreError
from finescale.heal import Healed, heal
from finescale.identity import STAGE_VERSION
from finescale.manifest import Manifest
from finescale.plan import Artefact
from finescale.storage import Objects
from finescale.store import (
    MANIFEST,
    MARKERS,
    PROVENANCE,
    SENTINEL,
    Array,
    Contract,
    Header,
    Writer,
    open_store,
)
from finescale.verify import verify_all

# Read when gcsfs is imported, by whichever test comes first.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


def first_value(becomes: Callable[[float], float]) -> damage.Damage:
    """Return a damage: the first value of a chunk that is not NaN becomes another."""

    def change(values: NDArray[Any]) -> None:
        first = np.flatnonzero(~np.isnan(values))[0]
        values.flat[first] = becomes(values.flat[first])

    return partial(damage.rewritten, change=change)


class Harm(NamedTuple):
    """A kind of damage: what is done, to which object, and what `verify` calls it.

    An object is named by its key, or is a chunk that a block writes: one that has values, or any
    one. `{axis}` is the array of a coordinate.
    """

    does: Callable[..., None]
    to: str
    kind: str


HARMS = {
    "missing": Harm(damage.missing, "any", "missing"),
    "truncated": Harm(damage.truncated, "any", "truncated"),
    "emptied": Harm(damage.emptied, "any", "truncated"),
    "prolonged": Harm(damage.prolonged, "any", "unreadable"),
    "zeroed": Harm(damage.zeroed, "any", "unreadable"),
    "garbled": Harm(damage.garbled, "any", "unreadable"),
    "bit flipped": Harm(damage.bit_flipped, "any", "bit-flipped"),
    "without values": Harm(damage.without_values, "values", "nan"),
    "one NaN": Harm(first_value(lambda _: np.nan), "values", "nan"),
    "out of range": Harm(first_value(lambda _: 1e9), "values", "range"),
    "other values": Harm(first_value(lambda v: 1.01 * v), "values", "foreign"),
    "another chunk": Harm(damage.replaced, "values", "foreign"),
    "coordinate missing": Harm(damage.missing, "{axis}/0", "missing"),
    "coordinate bit flipped": Harm(damage.bit_flipped, "{axis}/0", "bit-flipped"),
    "array edited": Harm(damage.edited, "{axis}/.zarray", "metadata"),
    "array's attributes missing": Harm(damage.missing, "{axis}/.zattrs", "metadata"),
    "attributes edited": Harm(damage.edited, ".zattrs", "metadata"),
    "group emptied": Harm(damage.emptied, ".zgroup", "metadata"),
    "sentinel truncated": Harm(damage.truncated, SENTINEL, "metadata"),
    "provenance missing": Harm(damage.missing, PROVENANCE, "metadata"),
    "chunk left behind": Harm(damage.added, "{axis}/7.7.7", "extra"),
    "part left behind": Harm(damage.added, "{axis}/0.ab12.partial", "extra"),
    "manifest missing": Harm(damage.missing, MANIFEST, "manifest"),
}
PASSES = (
    ("one NaN", "other values", "missing", "emptied", "chunk left behind"),
    ("out of range", "without values", "truncated", "bit flipped", "array edited"),
    ("another chunk", "prolonged", "garbled", "coordinate missing", "attributes edited"),
    ("zeroed", "coordinate bit flipped", "array's attributes missing", "sentinel truncated",
     "group emptied", "provenance missing", "part left behind"),
    ("manifest missing",),
)  # fmt: skip
"""Each of these damages a store of every stage at the same time, each kind another block."""
OTHERWISE = {
    ("out of range", "weights"): "foreign",  # any number may be one
    ("out of range", "evaluate"): "foreign",
    ("another chunk", "weights"): "unreadable",  # it is of another array
}
"""What a kind of damage is in the stores of one stage."""
WEIGHTS = ["S/0", "frac_b/0", "col/0", "row/0", "mask_a/0"]
"""Chunks of a table of weights, those of real numbers first."""
BLOCKS = dict.fromkeys(RULES, 6) | {"reference": 14, "weights": 0}
"""That a stage cuts its work into; what `weights` writes is small and written in any case."""
MANY = 3
"""Chunks to damage where several are, each another block's."""


@dataclass(eq=False)
class Place:
    """A copy of the world's stores, in a folder or a bucket; `before` are its objects."""

    root: str
    world: World = field(repr=False)
    before: dict[str, bytes] = field(repr=False)
    is_touched: bool = False

    @property
    def stores(self) -> list[tuple[str, str | None]]:
        """Return every store with its identity."""
        return [(self.url(a), a.identity) for a in self.world.run.plan.artefacts.values()]

    def artefact(self, stage: str) -> Artefact:
        """Return the one of a stage that is damaged: of bcsd, where there are others."""
        like = {"variable_id": "tasmax", "grid": "fine"}
        like |= {"method": "qm"} if stage == "adjust" else {}
        return next(
            artefact
            for artefact in self.world.run.plan.stage(stage)
            if like.items() <= {**like, **artefact.facets}.items()
        )

    def url(self, named: Artefact | str) -> str:
        artefact = self.artefact(named) if isinstance(named, str) else named
        return f"{self.root}/{artefact.path.rpartition('/')[0]}"

    def verify(self, *, deep: bool) -> dict[str, set[tuple[str, str]]]:
        """Return (kind, key) of what is found in any store, by the url of the store."""
        found: dict[str, set[tuple[str, str]]] = {}
        for finding in verify_all(self.stores, deep=deep, jobs=2):
            found.setdefault(finding.store, set()).add((finding.kind, finding.key))
        return found

    def heal(self, *stages: str, **changed: Any) -> list[Healed]:
        """Heal the stores of some stages."""
        run = self.world.run
        known = {"planned": run.plan.artefacts, "lock": run.lock, "threads": 1, **changed}
        self.is_touched = True
        with cut():
            return heal([self.url(stage) for stage in stages], **known)

    def chunks(self, stage: str) -> list[str]:
        """Return a chunk of each of several blocks of a store, those with most values first."""
        if stage == "weights":
            return WEIGHTS
        rows = manifest_of(self.url(stage)).by_key
        array = "cycle" if stage == "evaluate" else "tasmax"
        numbers = [key.split("/")[1].split(".") for key in rows if key.startswith(f"{array}/")]
        n_times = 1 + max(int(time) for time, *_ in numbers)
        tiles = sorted({(row, column) for _, row, column in numbers})
        keys = [f"{array}/{i % n_times}.{'.'.join(tile)}" for i, tile in enumerate(tiles)]
        return sorted(keys, key=lambda key: rows[key].n_nan)

    def hurt(self, stage: str, n_chunks: int = 1) -> None:
        """Remove chunks of a store."""
        self.is_touched = True
        for key in self.chunks(stage)[:n_chunks]:
            damage.missing(self.url(stage), key)

    def objects(self) -> dict[str, bytes]:
        """Return every object that is a function of the data."""
        fs, base = fsspec.core.url_to_fs(self.root)
        keys = [key for key in Objects(self.root).list() if not key.endswith(PROVENANCE)]
        found = fs.cat([f"{base}/{key}" for key in keys])
        return {key: found[f"{base}/{key}"] for key in keys}

    def assert_is_as_before(self) -> None:
        now = self.objects()
        assert {
            k
            for k in now.keys() | self.before.keys()
            if now.get(k) != self.before.get(k) and not k.startswith(f"{MARKERS}/")
        } == set()
        self.is_touched = False


def manifest_of(url: str) -> Manifest:
    return manifest.parse(Objects(url).get(MANIFEST), where=url)


def lay(root: str, contents: Mapping[str, bytes]) -> None:
    """Make these the objects below a root."""
    Objects(root).clear()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(Objects(root).put, contents.keys(), contents.values()))


@pytest.fixture(scope="module", params=["folder", "gs"])
def laid(
    request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Place, dict[str, bytes]]]:
    """Give the copy of the world, and all that is in it."""
    every = {str(p.relative_to(world.stores)): p.read_bytes() for p in files(world.stores)}
    with ExitStack() as stack:
        root = str(tmp_path_factory.mktemp("damaged") / "stores")
        if request.param == "gs":
            url = stack.enter_context(server())
            stack.enter_context(mock.patch.dict(os.environ, environment(url)))
            root = f"gs://{BUCKET}/stores"
        lay(root, every)
        yield Place(root, world, contents(world.stores)), every


@pytest.fixture
def place(laid: tuple[Place, dict[str, bytes]]) -> Iterator[Place]:
    """Give the copy of the world; what a test leaves damaged is laid anew."""
    place, every = laid
    yield place
    if place.is_touched:
        lay(place.root, every)
        place.is_touched = False


on_disk = pytest.mark.parametrize("laid", ["folder"], indirect=True)


# --------------------------------------------------------------------------------------
# Found, named and repaired


def test_every_kind_of_damage_has_its_pass() -> None:
    assert sorted(chain(*PASSES)) == sorted(HARMS)


@dataclass
class Expected:
    """What `verify` must find in a damaged store, and `heal` recompute."""

    found: set[tuple[str, str]] = field(default_factory=set)
    n_recomputed: int = 0


def inflict(place: Place, stage: str, names: Sequence[str]) -> Expected:
    """Damage the store of a stage in every way that is named."""
    url, chunks, expected = place.url(stage), place.chunks(stage), Expected()
    axis = "dst_grid_dims" if stage == "weights" else "lat"
    hurt = 0
    for name in names:
        does, to, kind = HARMS[name]
        key = to.format(axis=axis)
        if to in ("any", "values"):
            key, spare = chunks[hurt], chunks[hurt + 1]
            assert to == "any" or manifest_of(url).by_key[key].low is not None, "it has no value"
            does, hurt = (partial(does, by=spare) if does is damage.replaced else does), hurt + 1
        does(url, key)
        expected.found.add((OTHERWISE.get((name, stage), kind), key))
    is_lost = MANIFEST in {key for _, key in expected.found}
    expected.n_recomputed = BLOCKS[stage] if is_lost else min(hurt, BLOCKS[stage])
    return expected


def is_seen_in_a_listing(place: Place, url: str, kind: str, key: str) -> bool:
    """Tell whether size or checksum, where there is one, show the damage of an object."""
    if place.root.startswith("gs:") or kind in ("missing", "extra", "metadata", "manifest"):
        return True
    before = place.before[f"{url.removeprefix(place.root)[1:]}/{key}"]
    return len(Objects(url).get(key)) != len(before)


@pytest.mark.parametrize("names", PASSES, ids=", ".join)
def test_what_is_damaged_is_named_and_nothing_else_and_healed_to_the_same_bytes(
    names: Sequence[str], place: Place
) -> None:
    """Quick sees what a listing shows; heal recomputes the damaged blocks, and no other."""
    place.is_touched = True
    expected = {place.url(stage): inflict(place, stage, names) for stage in RULES}
    found = {url: hurt.found for url, hurt in expected.items()}
    listed = {
        url: {(kind, key) for kind, key in hurt if is_seen_in_a_listing(place, url, kind, key)}
        for url, hurt in found.items()
    }
    assert place.verify(deep=True) == found
    assert place.verify(deep=False) == {url: hurt for url, hurt in listed.items() if hurt}

    done = place.heal(*RULES[::-1])
    assert {h.url: h.n_recomputed for h in done} == {
        url: hurt.n_recomputed for url, hurt in expected.items()
    }
    assert {h.url: {(f.kind, f.key) for f in h.findings} for h in done} == found
    place.assert_is_as_before()
    assert place.verify(deep=False) == {}


def test_what_is_not_committed_is_named_and_not_healed(place: Place) -> None:
    """Neither is anything else that is healed in the same call."""
    place.is_touched = True
    sentinels = {url: Objects(url).get(SENTINEL) for url in map(place.url, RULES)}
    for url in sentinels:
        damage.uncommitted(url)
    for deep in (False, True):
        assert place.verify(deep=deep) == {url: {("uncommitted", "")} for url in sentinels}
    Objects(place.url("reference")).put(SENTINEL, b"damaged")
    with pytest.raises(StoreError, match=f"^{place.url('coarsen')} is not committed; run the"):
        place.heal("reference", "coarsen")
    assert Objects(place.url("reference")).get(SENTINEL) == b"damaged"
    for url, content in sentinels.items():
        Objects(url).put(SENTINEL, content)
    place.is_touched = False


@pytest.mark.parametrize("harm", [damage.missing, damage.bit_flipped], ids=["missing", "altered"])
def test_a_damaged_chunk_is_not_read(harm: damage.Damage, place: Place) -> None:
    """Zarr alone would give NaN, or the other values."""
    place.is_touched = True
    says = "is missing" if harm is damage.missing else "is not what was committed"
    for stage in RULES:
        url, key = place.url(stage), place.chunks(stage)[0]
        content = Objects(url).get(key)
        harm(url, key)
        with pytest.raises(StoreError, match=f"{url}: chunk {key} {says}; `finescale heal {url}`"):
            open_store(url).read(key.partition("/")[0])
        Objects(url).put(key, content)
    place.is_touched = False


# --------------------------------------------------------------------------------------
# Nothing is found where nothing is wrong


def write_coast(url: str) -> None:
    """Write a store of small chunks: half of them sea, a quarter without a drop of rain."""
    shape, chunks = (12, 24, 36), (4, 3, 3)
    values = np.random.default_rng(0).gamma(1, 1e-5, shape).astype(np.float32)
    land = np.ones(shape[1:], dtype=np.bool_)
    land[:, 18:] = False
    values[:, :12] = 0.0
    values[:, ~land] = np.nan
    arrays = {"pr": Array(("time", "lat", "lon"), shape, chunks, contract=Contract((0, 1), "mask"))}
    writer = Writer(url, Header("bcsd", "ab" * 32, {}, {}), arrays, land).create({})
    writer.write_block("all", [("pr", tuple(slice(0, n) for n in shape), values)])
    writer.commit()


@pytest.mark.parametrize("deep", [False, True], ids=["quick", "deep"])
def test_a_thousand_healthy_chunks_are_no_finding(deep: bool, place: Place) -> None:
    coast = f"{place.root}-coast/bcsd/coast.zarr"
    write_coast(coast)
    rows = [row for url, _ in [*place.stores, (coast, None)] for row in manifest_of(url).rows]
    assert len(rows) > 1000
    assert sum(row.n_nan == row.count for row in rows) > 100
    assert sum(row.low is not None and row.low == row.high for row in rows) > 50
    assert verify_all([*place.stores, (coast, None)], deep=deep, jobs=2) == []


# --------------------------------------------------------------------------------------
# What is not healed


@on_disk
def test_inputs_are_healed_first(place: Place) -> None:
    """The order of the command line does not matter."""
    made_of = ["evaluate", "bcsd", "adjust", "coarsen", "reference"]
    for stage in made_of:
        place.hurt(stage)
    assert [healed.url for healed in place.heal(*made_of)] == [place.url(s) for s in made_of[::-1]]
    place.assert_is_as_before()


@on_disk
def test_a_store_whose_input_is_damaged_waits_for_it(place: Place) -> None:
    place.hurt("reference")
    place.hurt("coarsen")
    url, key = place.url("reference"), place.chunks("reference")[0]
    with pytest.raises(StoreError) as refused:
        place.heal("coarsen")
    assert str(refused.value) == (
        f"{place.url('coarsen')} is made of {url} (reference), which is damaged itself "
        f"(missing {key}); heal that first: `finescale heal {url}`"
    )
    assert [h.n_recomputed for h in place.heal("reference") + place.heal("coarsen")] == [1, 1]
    place.assert_is_as_before()


@on_disk
def test_a_store_whose_input_is_gone_is_made_by_the_workflow(place: Place) -> None:
    place.hurt("coarsen")
    Objects(place.url("reference")).clear()
    with pytest.raises(StoreError, match=r"\(reference\) that is not below .*; run the workflow"):
        place.heal("coarsen")


@on_disk
def test_a_store_of_another_version_is_refused_before_anything_is_touched(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("reference", "coarsen"):
        place.hurt(stage)
    hurt = place.objects()
    monkeypatch.setitem(STAGE_VERSION, "coarsen", 99)
    with pytest.raises(StoreError, match="by version 2 of stage coarsen, this is version 99"):
        place.heal("reference", "coarsen")
    assert place.objects() == hurt


@on_disk
@pytest.mark.parametrize("stage", ["reference", "simulation"])
def test_a_source_that_has_changed_is_refused(stage: str, place: Place) -> None:
    """Its store can still be healed when the source is as it was."""
    place.hurt(stage)
    sources = {
        name: {**entry, "request": {**request, "synthetic": {**request["synthetic"], "seed": 9}}}
        for name, entry in place.world.run.lock["sources"].items()
        for request in [entry["request"]]
    }
    with pytest.raises(SourceError, match="the data have changed since they were locked"):
        place.heal(stage, lock={"sources": sources})
    with pytest.raises(SourceError, match=r"no source with content .* in the inputs lock"):
        place.heal(stage, lock={"sources": {}})
    assert [h.n_recomputed for h in place.heal(stage)] == [1]
    place.assert_is_as_before()


@on_disk
def test_blocks_that_come_out_otherwise_are_not_committed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store of two versions of the same numbers is never read; a job makes it anew."""
    place.hurt("coarsen")
    apply, url = regrid.apply, place.url("coarsen")
    with monkeypatch.context() as patch:
        patch.setattr(regrid, "apply", lambda *a, **k: apply(*a, **k) + np.float32(1e-3))
        with pytest.raises(StoreError, match=r"blocks differ from what was.*\.provenance\.json"):
            place.heal("coarsen")
    with pytest.raises(StoreError, match="is not committed"):
        open_store(url)
    assert len(made_by_a_job(place, "coarsen")) == BLOCKS["coarsen"]
    place.assert_is_as_before()


def made_by_a_job(place: Place, stage: str) -> list[Any]:
    """Make the store of a stage as a job does; return the tasks that it computed."""
    began: list[Any] = []

    def noting(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        began.extend(tasks)
        return [function(task) for task in tasks]

    place.world.make(place.artefact(stage), Path(place.root), noting)
    return began


# --------------------------------------------------------------------------------------
# Killed in the middle

STEPS = [
    "lease", "journal", "coordinates", *("a sound block" for _ in range(3)),
    *("a computed block" for _ in range(3)), "manifest", "attributes", "provenance", "sentinel",
]  # fmt: skip
"""The objects that a heal writes, but for chunks, in their order, if three of six are damaged."""


def heal_killed_before(step: int, place: Place, stage: str) -> None:
    """Heal in a process of its own, which dies instead of writing its n-th object."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as in `World.attempt`
        child = os.fork()
    if child == 0:
        written = count()

        def dying(write: Callable[..., Any]) -> Callable[..., Any]:
            def instead(objects: Objects, key: str, data: bytes) -> Any:
                if next(written) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return write(objects, key, data)

            return instead

        try:
            for name in ("put", "create"):
                setattr(Objects, name, dying(getattr(Objects, name)))
            place.heal(stage)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@on_disk
@pytest.mark.parametrize("step", range(len(STEPS)), ids=lambda step: f"{step}-{STEPS[step]}")
def test_a_heal_that_is_killed_leaves_nothing_that_can_be_read(step: int, place: Place) -> None:
    """A job, or a heal where the store is still committed, makes the same bytes."""
    place.hurt("coarsen", MANY)
    heal_killed_before(step, place, "coarsen")
    if STEPS[step] == "lease":
        assert [h.n_recomputed for h in place.heal("coarsen")] == [MANY]
    else:
        with pytest.raises(StoreError, match="is not committed"):
            open_store(place.url("coarsen"))
        with pytest.raises(StoreError, match="is not committed; run the workflow again"):
            place.heal("coarsen")
        finished = STEPS[:step].count("a sound block") + STEPS[:step].count("a computed block")
        assert len(made_by_a_job(place, "coarsen")) == BLOCKS["coarsen"] - finished
    place.assert_is_as_before()
