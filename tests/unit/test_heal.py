"""Heal: what is known of a damaged store, and in which order several are repaired.

Every kind of damage to every stage's stores is in tests/faults/test_damage.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import pytest
from chain import grids
from hypothesis import given
from hypothesis import strategies as st

from finescale import identity, weights
from finescale.errors import StoreError
from finescale.heal import Healed, _inputs_first, heal
from finescale.job import Job
from finescale.leases import FOLDER
from finescale.plan import Artefact
from finescale.storage import Objects
from finescale.store import ATTRIBUTES, MANIFEST, PROVENANCE, SENTINEL, Writer
from finescale.verify import verify

SRC, DST = grids()
CONSERVATIVE, BILINEAR = (
    Artefact(
        "weights",
        {"src": "fine", "dst": "coarse", "regrid": method},
        {"src": SRC.to_json(), "dst": DST.to_json(), "method": method, "engine": "rectilinear"},
    )
    for method in ("conservative", "bilinear")
)
PLANNED = {CONSERVATIVE.identity: CONSERVATIVE}
LOST = "its manifest is lost and the configuration does not plan such a store"


def make(artefact: Artefact, root: Path) -> str:
    """Return the url of an artefact's store, made below a root."""
    url = f"{root}/{artefact.path.removesuffix(f'/{SENTINEL}')}"
    work = Job(artefact.stage, url, artefact.identity, artefact.facets, artefact.recipe)
    weights.run(work, **artefact.parameters)
    return url


def contents(url: str) -> dict[str, bytes]:
    objects = Objects(url)
    return {key: objects.get(key) for key in objects.list() if key != PROVENANCE}


def healed(url: str, planned: dict[str, Artefact]) -> list[Healed]:
    return heal([url], planned=planned, lock={}, threads=1)


# --------------------------------------------------------------------------------------
# What is known of a store


@pytest.mark.parametrize("key", [ATTRIBUTES, SENTINEL])
@pytest.mark.parametrize("harm", [damage.truncated, damage.edited, damage.zeroed])
def test_one_of_two_copies_of_its_digest_vouches_for_the_manifest(
    key: str, harm: damage.Damage, tmp_path: Path
) -> None:
    """A configuration is not needed then."""
    before = contents(url := make(CONSERVATIVE, tmp_path))
    harm(url, key)
    (done,) = healed(url, {})
    assert (done.url, [f.key for f in done.findings], done.n_recomputed) == (url, [key], 0)
    assert contents(url) == before


def lose_manifest(url: str) -> None:
    damage.missing(url, MANIFEST)


def lose_both_copies(url: str) -> None:
    damage.zeroed(url, ATTRIBUTES)
    damage.zeroed(url, SENTINEL)


def hold_another(url: str) -> None:
    """Let the store be another one, whole: its name says what it must be."""
    other = contents(make(BILINEAR, Path(url).parents[1]))
    Objects(url).clear()
    for key, content in other.items():
        Objects(url).put(key, content)


@pytest.mark.parametrize("lose", [lose_manifest, lose_both_copies, hold_another])
def test_a_store_without_its_manifest_is_made_as_it_is_planned(
    lose: Callable[[str], None], tmp_path: Path
) -> None:
    """Without a plan nobody knows how; a plan of other stores does not help."""
    before = contents(url := make(CONSERVATIVE, tmp_path))
    lose(url)
    lost = contents(url)
    for planned in ({}, {BILINEAR.identity: BILINEAR}):
        with pytest.raises(StoreError, match=LOST):
            healed(url, planned)
        assert contents(url) == lost
    healed(url, PLANNED)
    assert contents(url) == before
    assert verify(url, deep=True, expected=CONSERVATIVE.identity) == []


def test_an_uncommitted_store_is_no_store_without_manifest(tmp_path: Path) -> None:
    """As a killed job leaves it."""
    url = make(CONSERVATIVE, tmp_path)
    damage.uncommitted(url)
    damage.missing(url, MANIFEST)
    for planned in ({}, PLANNED):
        with pytest.raises(StoreError, match="is not committed; run the workflow again"):
            healed(url, planned)


def test_a_whole_store_is_left_alone(tmp_path: Path) -> None:
    url = make(CONSERVATIVE, tmp_path)
    provenance = Objects(url).get(PROVENANCE)
    assert healed(url, {}) == []
    assert Objects(url).get(PROVENANCE) == provenance


def test_a_heal_that_fails_gives_its_lease_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the job that makes the store would wait for this process to end."""

    def fail(*_: Any) -> None:
        raise StoreError("no space is left")

    url = make(CONSERVATIVE, tmp_path)
    damage.missing(url, "S/0")
    monkeypatch.setattr(Writer, "_declare", fail)
    with pytest.raises(StoreError, match="no space is left"):
        healed(url, {})
    assert Objects(f"{tmp_path}/{FOLDER}").list() == {}


# --------------------------------------------------------------------------------------
# Inputs first

Made = dict[str, dict[str, Any]]


@st.composite
def recipes(draw: st.DrawFn) -> tuple[Made, list[tuple[str, str]]]:
    """Return damaged stores below two roots, in any order, and (store, input) of all pairs."""
    n = draw(st.integers(1, 8))
    made: list[dict[str, Any]] = []
    parents: list[list[int]] = []
    for number in range(n):
        mine = draw(st.lists(st.integers(0, number - 1), unique=True)) if number else []
        inputs = {f"role{i}": identity.digest(made[i]) for i in mine}
        made.append({"number": number, "inputs": inputs})
        parents.append(mine)
    places = [(root, number) for root in "ab" for number in range(n)]
    damaged = draw(st.lists(st.sampled_from(places), unique=True, min_size=1))
    url = {(root, i): f"{root}/stage/{i}.zarr" for root, i in places}
    pairs = [
        (url[root, i], url[root, parent])
        for root, i in damaged
        for parent in parents[i]
        if (root, parent) in damaged
    ]
    return {url[place]: made[place[1]] for place in damaged}, pairs


@given(recipes(), st.integers())
def test_every_store_comes_after_its_inputs(
    case: tuple[Made, list[tuple[str, str]]], seed: int
) -> None:
    """Inputs below another root are another store's; each store comes once."""
    damaged, pairs = case
    shuffled = random.Random(seed).sample(sorted(damaged), len(damaged))
    order = _inputs_first({url: damaged[url] for url in shuffled})
    assert sorted(order) == sorted(damaged)
    for made, parent in pairs:
        assert order.index(parent) < order.index(made)
