"""Heal: recompute the damaged blocks of committed stores from their inputs, and recommit.

The identity says that the result is what was there: the store's manifest must come out the same,
to the bit, or nothing is committed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import groupby
from typing import Any

from finescale import engines, identity, manifest, store
from finescale.errors import StoreError
from finescale.identity import STAGE_VERSION
from finescale.job import Job, root_of
from finescale.manifest import Manifest
from finescale.plan import Artefact
from finescale.storage import Objects
from finescale.store import Repair, open_store
from finescale.verify import Finding, verify_all


@dataclass(frozen=True)
class Healed:
    """What was done to a store: how many of its blocks were recomputed."""

    url: str
    findings: tuple[Finding, ...]
    n_recomputed: int


def heal(
    urls: Sequence[str],
    *,
    planned: Mapping[str, Artefact],
    lock: Mapping[str, Any],
    threads: int,
    told: Callable[[Healed], None] = lambda healed: None,
) -> list[Healed]:
    """Return what was done to each damaged store of a list, inputs before what is made of them.

    Parameters
    ----------
    planned
        What a configuration plans, by identity: a store whose manifest is lost is known from it.
    lock
        Its inputs lock, by which sources are found.
    threads
        Blocks, or chunks to verify, at a time.
    told
        Called after each store.

    Raises
    ------
    StoreError
        A store cannot be healed: it is not committed, or nobody knows how it was made (nothing has
        been touched then); an input is damaged or gone; blocks come out otherwise than they were.
    SourceError
        A source has changed.
    """
    damaged = _damage([(url, None) for url in urls], threads=threads)
    recipes = {url: _recipe(url, found, planned) for url, found in damaged.items()}
    whole = set(urls) - damaged.keys()
    done: list[Healed] = []
    for url in _inputs_first(recipes):
        inputs = _sound_inputs(url, recipes[url], whole, threads=threads)
        healed = _heal(url, damaged[url], recipes[url], inputs, lock=lock, threads=threads)
        whole.add(url)
        told(healed)
        done.append(healed)
    return done


def _damage(
    stores: Sequence[tuple[str, str | None]], *, threads: int
) -> dict[str, tuple[Finding, ...]]:
    """Return what is damaged, by the url of its store."""
    findings = verify_all(stores, deep=True, jobs=threads)
    return {url: tuple(found) for url, found in groupby(findings, key=lambda f: f.store)}


def _heal(
    url: str,
    findings: tuple[Finding, ...],
    recipe: Mapping[str, Any],
    inputs: Mapping[str, store.Store],
    *,
    lock: Mapping[str, Any],
    threads: int,
) -> Healed:
    known, bad = _manifest(url, findings), {finding.key for finding in findings}
    sound = {key: row for key, row in known.by_key.items() if key not in bad} if known else {}
    counted: list[int] = []
    with engines.engine("threads", threads=threads, mem_mb=0) as mapper:

        def counting(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
            counted.append(len(tasks))
            return mapper(function, tasks)

        work = Job(
            stage=recipe["stage"],
            output=url,
            identity=identity.digest(recipe),
            facets=recipe["facets"],
            recipe=recipe,
            inputs=inputs,
            lock=lock,
            map=counting,
            repair=Repair(sound, known.digest if known else ""),
        )
        with work.closing:
            importlib.import_module(f"finescale.{work.stage}").run(
                work, **inputs, **recipe["parameters"]
            )
    return Healed(url, findings, sum(counted))


def _manifest(url: str, findings: Iterable[Finding]) -> Manifest | None:
    """Return the manifest of a store; None if it is lost, changed or another store's."""
    if any(finding.kind == "manifest" for finding in findings):
        return None
    return manifest.parse(Objects(url).get(store.MANIFEST), where=url)


def _recipe(
    url: str, findings: Iterable[Finding], planned: Mapping[str, Artefact]
) -> Mapping[str, Any]:
    """Return how a store was made: as its manifest says, or as the configuration plans it.

    Raises
    ------
    StoreError
        It is not committed, nobody knows how it was made, or another version made it.
    """
    if any(finding.kind == "uncommitted" for finding in findings):
        raise StoreError(f"{url} is not committed; run the workflow again, it makes it")
    if known := _manifest(url, findings):
        recipe = known.recipe
    else:
        paths = {a.path.rpartition("/")[0]: a.recipe for a in planned.values()}
        try:
            recipe = paths[url.removeprefix(f"{root_of(url)}/")]
        except KeyError as error:
            raise StoreError(
                f"{url}: its manifest is lost and the configuration does not plan such a store; "
                "give the one that it was made for (--configfile F), or delete it"
            ) from error
    stage, version = recipe["stage"], recipe["version"]
    if version != STAGE_VERSION[stage]:
        raise StoreError(
            f"{url} was made by version {version} of stage {stage}, this is version "
            f"{STAGE_VERSION[stage]}; run the workflow: it makes a store of its own"
        )
    return recipe


def _inputs_first(recipes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the stores in an order in which each comes after those that it is made of."""
    known = {(root_of(url), identity.digest(recipe)): url for url, recipe in recipes.items()}
    made_of = {
        url: [
            known[root_of(url), wanted]
            for wanted in recipe["inputs"].values()
            if (root_of(url), wanted) in known
        ]
        for url, recipe in recipes.items()
    }
    return list(TopologicalSorter(made_of).static_order())


def _sound_inputs(
    url: str, recipe: Mapping[str, Any], whole: set[str], *, threads: int
) -> dict[str, store.Store]:
    """Return the opened inputs of a store by role, all of them verified: then they are in `whole`.

    Raises
    ------
    StoreError
        One of them is gone or damaged.
    """
    root = root_of(url)
    there = {path.rpartition("/")[0] for path in store.list_stores(root)}
    by_name = {path.removesuffix(".zarr")[-16:]: f"{root}/{path}" for path in there}
    opened = {}
    for role, wanted in recipe["inputs"].items():
        path = by_name.get(wanted[:16])
        if path is None:
            raise StoreError(
                f"{url} is made of a store {wanted[:16]} ({role}) that is not below {root}; "
                "run the workflow again, it makes both"
            )
        if path not in whole and (found := _damage([(path, wanted)], threads=threads)):
            first = found[path][0]
            raise StoreError(
                f"{url} is made of {path} ({role}), which is damaged itself ({first.kind} "
                f"{first.key}); heal that first: `finescale heal {path}`"
            )
        whole.add(path)
        opened[role] = open_store(path).require(wanted)
    return opened
