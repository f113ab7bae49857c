"""What lies below a root of stores: what is there, why, and what nobody needs.

One listing of the root answers most of it. A plan says which stores a configuration reaches; what
no plan reaches is garbage once it is old enough, by the clock of the storage.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from finescale import identity, leases, manifest, store, words
from finescale.errors import ConfigError, StoreError
from finescale.plan import Artefact, Plan
from finescale.storage import PARTIAL, Entry, Objects
from finescale.store import ATTRIBUTES, CREATED, HEADER, JOURNAL, MANIFEST, SENTINEL

Plans = Sequence[tuple[str, Plan]]
"""Configurations: (name, plan)."""
Told = tuple[dict[str, Any], list[str]]
"""A document for programs and lines for people."""
Recipe = Mapping[str, Any]

GRACE = 7 * 86400.0
"""Nothing younger is garbage [s]."""
READERS = 16
"""Small objects read at a time."""
STORE = re.compile(
    r"(?P<path>[^/]+/[^/]+-(?P<digits>[0-9a-f]{16})[.]zarr)"
    rf"(?P<journal>{re.escape(JOURNAL)})?/(?P<key>.+)"
)
IDENTITY = "finescale_identity"
INPUT = "input "
WIDTH, LENGTH = 48, 16
"""Most characters of a value and most rows of a comparison, so that it fits a screen."""


# --------------------------------------------------------------------------------------
# What is there


@dataclass(frozen=True)
class Found:
    """A store in a listing, whole or not: its objects and those of its journal, by key."""

    path: str
    objects: dict[str, Entry] = field(default_factory=dict)
    journal: dict[str, Entry] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """Return the word of its stage."""
        return self.path.partition("/")[0]

    @property
    def name(self) -> str:
        """Return its name: facets, then 16 digits of its identity."""
        return self.path.partition("/")[2].removesuffix(".zarr")

    @property
    def digits(self) -> str:
        """Return the 16 digits of its identity that its name ends in."""
        return self.name[-16:]

    @property
    def label(self) -> str:
        """Return the facets in its name."""
        return self.name[:-17].replace("_", " ")

    @property
    def is_committed(self) -> bool:
        """Tell whether it has its sentinel."""
        return SENTINEL in self.objects

    @property
    def size(self) -> int:
        """Return the bytes of everything it consists of."""
        return sum(e.size for e in (*self.objects.values(), *self.journal.values()))

    @property
    def modified(self) -> float:
        """Return when its newest object was written; before any time if there is none."""
        entries = (*self.objects.values(), *self.journal.values())
        return max(map(_modified, entries), default=-math.inf)

    @property
    def committed(self) -> str | None:
        """Return the date with time of its sentinel, where the storage reports it."""
        entry = self.objects.get(SENTINEL)
        if entry is None or entry.modified is None:
            return None
        return datetime.fromtimestamp(entry.modified, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _modified(entry: Entry) -> float:
    """Return when an object was written; later than any time where the storage does not say."""
    return math.inf if entry.modified is None else entry.modified


def survey(listing: Mapping[str, Entry]) -> dict[str, Found]:
    """Return the stores in a listing of a root, by path, sorted."""
    found: dict[str, Found] = {}
    for key, entry in listing.items():
        if match := STORE.fullmatch(key):
            one = found.setdefault(match["path"], Found(match["path"]))
            (one.journal if match["journal"] else one.objects)[match["key"]] = entry
    return dict(sorted(found.items()))


def _store(artefact: Artefact) -> str:
    return artefact.path.removesuffix(f"/{SENTINEL}")


def reach(plans: Plans) -> dict[str, list[str]]:
    """Return the names of the configurations that need a store, by its path."""
    found: dict[str, list[str]] = {}
    for name, plan in plans:
        for artefact in plan.artefacts.values():
            found.setdefault(_store(artefact), []).append(name)
    return found


def ls(root: str, plans: Plans = ()) -> Told:
    """Return the stores below a root: stage, size, age, identity, who needs them, facets.

    `entries` are committed, `unfinished` are not; `needed_by` is there if plans are given.
    """
    listing = Objects(root).list()
    found, needed = survey(listing), reach(plans)
    with ThreadPoolExecutor(READERS) as pool:
        told = dict(
            zip(found, pool.map(lambda one: _entry(root, one), found.values()), strict=True)
        )
    for path, entry in told.items() if plans else ():
        entry["needed_by"] = needed.get(path, [])
    states = _states(root, listing, [one for one in found.values() if not one.is_committed])
    made = [one for path, one in found.items() if path not in states]
    head = ("stage", "size", "age", "identity", *(("needed by",) if plans else ()), "facets")
    rows = [
        (
            one.stage,
            words.size(one.size),
            words.age(one.committed) if one.committed else "-",
            one.digits,
            *((", ".join(needed.get(one.path, "-")),) if plans else ()),
            one.label,
        )
        for one in made
    ]
    total = words.size(sum(one.size for one in made))
    lines = [*words.table([head, *rows]), "", f"{len(made)} committed, {total}: {root}"]
    if states:
        rest = [(path, words.size(found[path].size), state) for path, state in states.items()]
        lines += ["", "not committed:", *(f"  {line}" for line in words.table(rest))]
    document = {
        "stores": root,
        "entries": [told[one.path] for one in made],
        "unfinished": [{**told[path], "state": state} for path, state in states.items()],
    }
    return document, lines


def _entry(root: str, one: Found) -> dict[str, Any]:
    """Return what a store says of itself; its name says less, if it cannot be read."""
    attributes: dict[str, Any] = {}
    with suppress(FileNotFoundError, ValueError):
        attributes = json.loads(Objects(root).get(f"{one.path}/{ATTRIBUTES}"))
    return {
        "url": f"{root}/{one.path}",
        "stage": one.stage,
        "identity": attributes.get(IDENTITY, one.digits),
        "facets": attributes.get("finescale_facets", {}),
        "size": one.size,
        "committed": one.committed,
    }


def _states(root: str, listing: Mapping[str, Entry], unfinished: Sequence[Found]) -> dict[str, str]:
    """Return how far stores without a sentinel have come, and who is at them, by path."""
    makers = {}
    for key, holder in leases.list_held(root).items() if unfinished else ():
        entry = listing.get(f"{leases.FOLDER}/{key}")
        if entry and time.time() - _modified(entry) <= _length(holder):
            makers[key[:16]] = f"being made by {holder.get('host')}, process {holder.get('pid')}"
    return {
        one.path: f"{makers.get(one.digits, 'unfinished')}: {_progress(root, one)}"
        for one in unfinished
    }


def _length(holder: Mapping[str, Any]) -> float:
    return float(holder.get("seconds", leases.SECONDS))


def _progress(root: str, one: Found) -> str:
    """Return how far an unfinished store has come."""
    blocks = {key for key in one.journal if key.endswith(".json")} - {HEADER, f"{CREATED}.json"}
    written = [key for key in one.objects if "/" in key and not re.search(r"/[.]|[.]partial$", key)]
    expected = 0
    for key in (key for key in one.objects if key.endswith("/.zarray")):
        with suppress(FileNotFoundError, ValueError):
            declared = json.loads(Objects(root).get(f"{one.path}/{key}"))
            expected += math.prod(
                -(-n // c) for n, c in zip(declared["shape"], declared["chunks"], strict=True)
            )
    return f"{len(blocks)} blocks journalled, {len(written)} of {expected} chunks written"


# --------------------------------------------------------------------------------------
# Why


@dataclass(frozen=True)
class Difference:
    """An ingredient of an identity that two stores do not share; None where there is none.

    `because` follows an input down to the first ingredient that is not itself an input.
    """

    ingredient: str
    here: Any
    there: Any
    because: str = ""


@dataclass(frozen=True)
class Recipes:
    """Recipes by identity: those of plans, and those in the manifests below a root."""

    root: str
    paths: Mapping[str, str]
    """Committed stores by the 16 digits of their identity."""
    known: dict[str, Recipe | None]
    """By the same digits."""

    def of(self, wanted: str) -> Recipe | None:
        """Return the recipe of an identity, or of its 16 digits; None if nobody has it."""
        digits = wanted[:16]
        if digits not in self.known:
            self.known[digits] = self._read(self.paths.get(digits))
        return self.known[digits]

    def _read(self, path: str | None) -> Recipe | None:
        if path is None:
            return None
        key = f"{path}/{MANIFEST}"
        try:
            return manifest.parse(Objects(self.root).get(key), where=f"{self.root}/{key}").recipe
        except (FileNotFoundError, StoreError):
            return None

    def nearest(
        self, here: Recipe, candidates: Mapping[str, str]
    ) -> tuple[str | None, list[Difference]]:
        """Return the candidate (path: identity) that shares most, and what it does not share."""
        with ThreadPoolExecutor(READERS) as pool:
            recipes = zip(candidates, pool.map(self.of, candidates.values()), strict=True)
            compared = [(path, self.compare(here, there)) for path, there in recipes if there]
        path, differences = min(compared, key=lambda pair: len(pair[1]), default=(None, []))
        return path, [replace(one, because=self._because(one)) for one in differences]

    def compare(self, here: Recipe, there: Recipe) -> list[Difference]:
        """Return what differs between two recipes, inputs last."""
        a, b = _ingredients(here), _ingredients(there)
        return [
            Difference(name, a.get(name), b.get(name))
            for name in dict.fromkeys((*a, *b))
            if identity.canonical(a.get(name)) != identity.canonical(b.get(name))
        ]

    def _because(self, one: Difference) -> str:
        """Return the first ingredient that makes an input another store."""
        if not one.ingredient.startswith(INPUT) or one.here is None or one.there is None:
            return ""
        here, there = self.of(one.here), self.of(one.there)
        if here is None or there is None:
            return f"{(one.here if here is None else one.there)[:16]} is not there any more"
        first = self.compare(here, there)[0]
        after, before = _shown(first)
        name = f"{here['stage']} {first.ingredient}"
        deeper = self._because(first)
        return f"{name} differs: {deeper}" if deeper else f"{name} {before} -> {after}"


def _ingredients(recipe: Recipe) -> dict[str, Any]:
    """Return all that an identity is a digest of, by name, inputs last."""
    return {
        "stage version": recipe["version"],
        **dict(words.leaves(recipe["parameters"])),
        **dict(words.leaves(recipe["facets"], "facet ")),
        **dict(words.leaves(recipe["inputs"], INPUT)),
    }


def _shown(one: Difference) -> tuple[str, str]:
    """Return both sides in a few characters that differ: if need be, by a digest."""
    if one.ingredient.startswith(INPUT):
        return str(one.here or "-")[:16], str(one.there or "-")[:16]
    sides = (one.here, one.there)
    texts = ["-" if value is None else words.shown(value) for value in sides]
    texts = [text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..." for text in texts]
    if texts[0] == texts[1]:
        texts = [f"{t} #{identity.digest(v)[:8]}" for t, v in zip(texts, sides, strict=True)]
    return texts[0], texts[1]


def why(target: str, plans: Plans = (), *, root: str | None = None) -> Told:
    """Return what a store was made from, or why it is to be made.

    Parameters
    ----------
    target
        Path of a store or of its sentinel, a name from a plan, or an identity (16 digits do).
    plans
        Of configurations that may want it.
    root
        Of stores, where `target` does not lie below one.

    Raises
    ------
    StoreError
        Nothing of this name is there or planned; or it is unfinished and nobody plans it.
    """
    above, name = _split(target)
    root = above or root or "."
    found = survey(Objects(root).list())
    planned = {_store(a): a for _, plan in plans for a in plan.artefacts.values()}
    path = _locate(name, {*found, *planned}, target=target, root=root)
    made = {p: one.digits for p, one in found.items() if one.is_committed}
    if path not in {*made, *planned}:
        raise StoreError(
            f"{root}/{path} is not committed (no {SENTINEL}), and no configuration that was given "
            "plans it; give the one that does with --configfile, or run the workflow again"
        )
    known = {a.identity[:16]: json.loads(identity.canonical(a.recipe)) for a in planned.values()}
    recipes = Recipes(root, {digits: p for p, digits in made.items()}, known)
    wanted_by = reach(plans).get(path, [])
    needs = f"needed by {', '.join(wanted_by)}" if wanted_by else "no given configuration needs it"
    needs = needs if plans else ""
    if path in made:
        told = _made(store.describe(f"{root}/{path}"), recipes, needs, found[path].size)
    else:
        begun = f"unfinished: {_progress(root, found[path])}" if path in found else "not begun"
        told = _to_make(f"{root}/{path}", planned[path], needs, begun)
    document, lines = told
    document |= {"needed_by": wanted_by, "nearest": None, "differences": []}
    if plans and not (wanted_by and path in made):
        others = {p: a.identity for p, a in planned.items()} if path in made else made
        stage = path.partition("/")[0]
        others = {p: whole for p, whole in others.items() if p.startswith(f"{stage}/")}
        nearest, differences = recipes.nearest(document["recipe"], others)
        document |= {"nearest": nearest, "differences": [asdict(one) for one in differences]}
        lines += _comparison(nearest, differences, "planned" if path in made else "there")
    return document, lines


def _split(target: str) -> tuple[str, str]:
    """Return the root that a path names, if it does, and the name of the store."""
    path = target.rstrip("/").removesuffix(f"/{SENTINEL}").removesuffix(JOURNAL)
    folder, _, name = path.rpartition("/")
    return folder.rpartition("/")[0], name.removesuffix(".zarr")


def _locate(name: str, paths: Iterable[str], *, target: str, root: str) -> str:
    """Return the store with this name or identity."""
    names = {Found(path).name: path for path in sorted(paths)}
    for known, path in names.items():
        if known == name or known.endswith(f"-{name[:16]}"):
            return path
    close = [names[near] for near in difflib.get_close_matches(name, names, n=5, cutoff=0.3)]
    hint = f"; it could be {', '.join(close)}" if close else ""
    raise StoreError(
        f"{target}: no store of this name lies below {root}, and no configuration that was given "
        f"plans one{hint}; `finescale ls` lists what is there"
    )


def _head(url: str, whole: str, recipe: Recipe, *facts: str) -> list[str]:
    stage = f"of stage {recipe['stage']}, version {recipe['version']}"
    return [url, *(f"  {fact}" for fact in (f"identity {whole}", stage, *facts) if fact)]


def _to_make(url: str, wanted: Artefact, needs: str, begun: str) -> Told:
    document = {"store": url, "identity": wanted.identity, "committed": None, "state": begun}
    lines = _head(url, wanted.identity, wanted.recipe, needs, f"not committed, {begun}")
    return {**document, "recipe": wanted.recipe}, lines


def _made(made: store.Description, recipes: Recipes, needs: str, size: int) -> Told:
    """Return the ingredients of a committed store."""
    recipe = made.recipe
    inputs = {
        role: {"identity": whole, "path": recipes.paths.get(whole[:16])}
        for role, whole in recipe["inputs"].items()
    }
    sections: dict[str, list[tuple[str, str]]] = {
        "facets": list(made.facets.items()),
        "parameters": list(words.flat(recipe["parameters"])),
        "inputs": [
            (role, i["path"] or f"{i['identity']} (elsewhere)") for role, i in inputs.items()
        ],
    }
    state = f"committed {made.committed} ({words.age(made.committed)} ago), {words.size(size)}"
    lines = _head(made.url, made.identity, recipe, needs, state)
    for title, rows in sections.items():
        lines += ["", title, *(f"  {line}" for line in words.table(rows or [("none",)]))]
    document = {
        "store": made.url,
        "identity": made.identity,
        "committed": made.committed,
        "size": size,
        "recipe": recipe,
        "inputs": inputs,
    }
    return document, lines


def _comparison(path: str | None, differences: Sequence[Difference], where: str) -> list[str]:
    """Return what differs from the nearest relative, on one screen."""
    if path is None:
        return ["", f"nothing of its stage is {where} to compare it with"]
    rows = [(one.ingredient, *_shown(one)) for one in differences[:LENGTH]]
    more = len(differences) - len(rows)
    return [
        "",
        f"the nearest that is {where}: {path}",
        *(f"  {line}" for line in words.table([("ingredient", "here", "there"), *rows])),
        *([f"  and {more} more"] if more else []),
        *(f"{d.ingredient} differs: {d.because}" for d in differences[:LENGTH] if d.because),
    ]


# --------------------------------------------------------------------------------------
# Garbage


@dataclass(frozen=True)
class Garbage:
    """What nobody needs, below a root; size in bytes, age in seconds.

    `modified`: when its newest object was written, by the clock of the storage.
    """

    path: str
    kind: Literal["store", "unfinished", "lease", "partial"]
    size: int
    age: float
    modified: float


def gc(
    root: str, plans: Plans, *, grace_seconds: float = GRACE, now: float | None = None
) -> list[Garbage]:
    """Return what no plan reaches and nobody has written to for a while; deletes nothing.

    Parameters
    ----------
    root
        Of stores.
    plans
        Of every configuration whose stores are to stay.
    grace_seconds
        What has an object younger than this stays, and a store with a lease younger than this.
    now
        Seconds since 1970 (default: what the clock of the storage says).

    Raises
    ------
    ConfigError
        No plan is given.
    """
    if not plans:
        raise ConfigError(
            "gc: no configuration is given, so every store would be garbage; name each one whose "
            "stores are to stay with --configfile"
        )
    objects = Objects(root)
    if not objects.exists():
        return []
    listing, clock = _list_with_clock(objects)
    now = clock if now is None else now
    needed = reach(plans)
    held = {f"{leases.FOLDER}/{k}": _length(holder) for k, holder in leases.list_held(root).items()}

    def candidate(path: str, kind: Any, size: int, modified: float) -> Garbage:
        return Garbage(path, kind, size, now - modified, modified)

    candidates = [
        candidate(one.path, "store" if one.is_committed else "unfinished", one.size, one.modified)
        for one in survey(listing).values()
        if one.path not in needed
    ]
    candidates += [
        candidate(key, "lease" if key in held else "partial", entry.size, _modified(entry))
        for key, entry in listing.items()
        if key in held or key.endswith(PARTIAL)
    ]
    old = {g.path: g for g in candidates if g.age > max(grace_seconds, held.get(g.path, 0.0))}
    busy = {_lease_digits(key) for key in held.keys() - old.keys()}
    return [g for g in old.values() if _is_free(g, old, busy)]


def _is_free(one: Garbage, old: Mapping[str, Garbage], busy: set[str]) -> bool:
    """Tell whether nobody works on the store, and whether an object does not go with its store."""
    match = STORE.match(f"{one.path}/.")
    if match is None:
        return True
    return match["digits"] not in busy and (one.kind != "partial" or match["path"] not in old)


def _lease_digits(key: str) -> str:
    return key.rpartition("/")[2][:16]


def _list_with_clock(objects: Objects) -> tuple[dict[str, Entry], float]:
    """Return a listing and when it was begun, by the clock that its times are of."""
    probe = f".{uuid.uuid4().hex}{PARTIAL}"
    objects.put(probe, b"")
    try:
        listing = objects.list()
    finally:
        objects.remove([probe])
    return listing, listing.pop(probe).modified or 0.0


def collect(root: str, garbage: Sequence[Garbage]) -> list[Garbage]:
    """Delete garbage; return what was deleted.

    A store that was written to since it was judged, or that somebody works on, stays. Its
    sentinel goes first and its journal second: what an interruption leaves is never read, and
    never taken for finished blocks.
    """
    single = [one for one in garbage if one.kind in ("lease", "partial")]
    Objects(root).remove(one.path for one in single)
    busy = {_lease_digits(key) for key in leases.list_held(root)}
    stores = [one for one in garbage if one not in single and Found(one.path).digits not in busy]
    return [*single, *(one for one in stores if _remove(root, one))]


def _remove(root: str, one: Garbage) -> bool:
    """Remove a store under its lease, so that nobody begins to write it; tell whether it went."""
    lying, journal = Objects(f"{root}/{one.path}"), Objects(f"{root}/{one.path}{JOURNAL}")
    lease = leases.acquire(root, _identity(lying, journal) or Found(one.path).digits)
    try:
        found = Found(one.path, lying.list(), journal.list())
        if found.modified != one.modified:
            return False
        store.unmark(lying.url)
        lying.remove([SENTINEL])
        journal.clear()
        lying.clear()
    finally:
        lease.release()
    return True


def _identity(lying: Objects, journal: Objects) -> str | None:
    """Return the identity that a store, whole or not, was begun for."""
    for objects, key, name in ((lying, ATTRIBUTES, IDENTITY), (journal, HEADER, "identity")):
        with suppress(FileNotFoundError, ValueError, KeyError):
            return str(json.loads(objects.get(key))[name])
    return None


def tell(root: str, garbage: Sequence[Garbage], *, deleted: bool) -> Told:
    """Return a list of garbage as a document and lines."""
    total = sum(one.size for one in garbage)
    rows = [(one.kind, words.size(one.size), words.duration(one.age), one.path) for one in garbage]
    verb = "deleted" if deleted else "to delete"
    lines = [
        *words.table([("kind", "size", "age", "path"), *rows]),
        "",
        f"{len(garbage)} {verb}, {words.size(total)} ({total} bytes): {root}",
    ]
    document = {"stores": root, "deleted": deleted, "bytes": total}
    return {**document, "garbage": [asdict(one) for one in garbage]}, lines
