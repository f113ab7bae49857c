"""What lies below a root of stores: it is listed, explained and, when nobody needs it, removed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from configs import changed
from hypothesis import given, settings
from hypothesis import strategies as st

from finescale import inventory, leases, start, storage, store
from finescale.errors import ConfigError, StoreError
from finescale.plan import Artefact, Plan
from finescale.storage import Objects

DAY = 86400.0
MEMORY = "memory://inventory"
CHANGES: dict[str, dict[str, Any]] = {
    "base": {},
    "narrow": {"adjust/half_window": 10},
    "wet": {"products/0/variable_id": "pr"},
}


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    """Return plans that share some of their stores."""
    folder = tmp_path_factory.mktemp("configs")
    return {name: planned(folder, changes) for name, changes in CHANGES.items()}


@pytest.fixture(scope="module")
def saved(plans: dict[str, Plan]) -> dict[str, Any]:
    """Return the objects of the stores of all plans, as the file system in memory holds them."""
    every = {path_of(a): a for plan in plans.values() for a in plan.artefacts.values()}
    commit(MEMORY, *every.values())
    objects = dict(fsspec.filesystem("memory").store)
    fsspec.filesystem("memory").store.clear()
    return objects


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(params=["stores", MEMORY])
def root(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def planned(folder: Path, changes: dict[str, Any]) -> Plan:
    return start.read(changed(changes), folder / "small.yaml").plan


def path_of(artefact: Artefact) -> str:
    return artefact.path.removesuffix(f"/{store.SENTINEL}")


def begin(root: str, artefact: Artefact) -> store.Writer:
    """Return the writer of a store of four chunks, of which none is written."""
    header = store.Header(artefact.stage, artefact.identity, artefact.facets, artefact.recipe)
    arrays = {"x": store.Array(("x",), (100,), (25,), "<f8")}
    return store.Writer(f"{root}/{path_of(artefact)}", header, arrays).create({})


def fill(writer: store.Writer, *blocks: int) -> store.Writer:
    for start_ in blocks:
        region = (slice(start_, start_ + 25),)
        writer.write_block(f"{start_}-{start_ + 25}", [("x", region, np.arange(25.0))])
    return writer


def commit(root: str, *artefacts: Artefact) -> None:
    for artefact in artefacts:
        fill(begin(root, artefact), 0, 25, 50, 75).commit()


def restore(saved: dict[str, Any], artefacts: Iterable[Artefact]) -> None:
    """Have these stores committed below `MEMORY`, and nothing else."""
    paths = {path_of(artefact) for artefact in artefacts}
    lying = fsspec.filesystem("memory").store
    lying.clear()
    lying.update({k: v for k, v in saved.items() if "/".join(k.split("/")[2:4]) in paths})


def contents(root: str) -> set[str]:
    return set(Objects(root).list())


def later(days: float) -> float:
    return time.time() + days * DAY


def garbage(root: str, *plans: Plan, days: float = 8.0) -> list[inventory.Garbage]:
    return inventory.gc(root, [("a", plan) for plan in plans], now=later(days))


@pytest.mark.parametrize(
    "fields",
    [
        {"updated": "2026-01-02T03:04:05.678Z", "timeCreated": "2025-01-01T00:00:00Z"},
        {"LastModified": datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)},
        {"mtime": 1767323045.678, "created": 1.0},
        {"created": 1767323045.678},
    ],
)
def test_when_an_object_was_written_is_read_from_any_storage(fields: dict[str, Any]) -> None:
    assert storage._modified(fields) == pytest.approx(1767323045.678)


# --------------------------------------------------------------------------------------
# ls


def test_stores_are_listed_with_those_who_need_them(root: str, plans: dict[str, Plan]) -> None:
    (shared, *_), adjusted = plans["base"].stage("simulation"), plans["base"].stage("adjust")[0]
    commit(root, shared, adjusted, plans["wet"].stage("adjust")[0])
    asked = [(name, plans[name]) for name in ("base", "narrow")]
    document, lines = inventory.ls(root, asked)
    needed = {e["identity"]: e["needed_by"] for e in document["entries"]}
    assert needed == {
        shared.identity: ["base", "narrow"],
        adjusted.identity: ["base"],
        plans["wet"].stage("adjust")[0].identity: [],
    }
    assert document["unfinished"] == []
    head, *rows, _, total = lines
    assert head.split() == ["stage", "size", "age", "identity", "needed", "by", "facets"]
    assert ["base, narrow" in row for row in rows] == [False, False, True]
    assert sum(f"{digits[:16]}  -  " in row for row in rows for digits in needed) == 1
    assert total.startswith("3 committed, ")


def test_an_entry_says_what_the_store_says_of_itself(root: str, plans: dict[str, Plan]) -> None:
    artefact = plans["base"].stage("weights")[0]
    commit(root, artefact)
    (entry,) = inventory.ls(root)[0]["entries"]
    listed = Objects(f"{root}/{path_of(artefact)}").list()
    assert entry == {
        "url": f"{root}/{path_of(artefact)}",
        "stage": "weights",
        "identity": artefact.identity,
        "facets": artefact.facets,
        "size": sum(found.size for found in listed.values()),
        "committed": entry["committed"],
    }
    told, made = entry["committed"], store.describe(entry["url"]).committed
    assert abs(datetime.fromisoformat(told) - datetime.fromisoformat(made)) <= timedelta(seconds=1)


def test_an_unfinished_store_is_listed_with_how_far_it_has_come(
    root: str, plans: dict[str, Plan]
) -> None:
    artefact = plans["base"].stage("adjust")[0]
    fill(begin(root, artefact), 0, 50)
    document, lines = inventory.ls(root)
    assert document["entries"] == []
    (entry,) = document["unfinished"]
    assert entry["state"] == "unfinished: 2 blocks journalled, 2 of 4 chunks written"
    assert lines[-2] == "not committed:"
    assert lines[-1].split()[0] == path_of(artefact)


def test_a_store_that_is_being_made_names_its_maker(root: str, plans: dict[str, Plan]) -> None:
    artefact = plans["base"].stage("adjust")[0]
    begin(root, artefact)
    lease = leases.acquire(root, artefact.identity)
    try:
        (entry,) = inventory.ls(root)[0]["unfinished"]
    finally:
        lease.release()
    maker, _, progress = entry["state"].partition(": ")
    assert maker == f"being made by {os.uname().nodename}, process {os.getpid()}"
    assert progress == "0 blocks journalled, 0 of 4 chunks written"


def test_a_store_that_cannot_be_read_does_not_hide_the_others(
    root: str, plans: dict[str, Plan]
) -> None:
    broken, whole = plans["base"].stage("weights")
    commit(root, broken, whole)
    Objects(root).put(f"{path_of(broken)}/.zattrs", b"{")
    entries = {e["url"]: e["identity"] for e in inventory.ls(root)[0]["entries"]}
    assert set(entries.values()) == {broken.identity[:16], whole.identity}


def test_what_is_no_store_is_not_listed(root: str) -> None:
    Objects(root).put("notes/readme.txt", b"mine")
    Objects(root).put("data/temperature.zarr/.zmetadata", b"{}")
    assert inventory.ls(root)[1][-1] == f"0 committed, 0 B: {root}"


# --------------------------------------------------------------------------------------
# why


def test_a_committed_store_that_is_needed_says_by_whom(root: str, plans: dict[str, Plan]) -> None:
    artefact = plans["base"].stage("adjust")[0]
    commit(root, artefact, artefact.inputs["ref"])
    document, lines = inventory.why(f"{root}/{artefact.path}", [("base", plans["base"])])
    assert document["recipe"] == artefact.recipe
    assert document["needed_by"] == ["base"]
    assert document["differences"] == []
    assert "  needed by base" in lines
    paths = {role: made["path"] for role, made in document["inputs"].items()}
    assert paths == {"ref": path_of(artefact.inputs["ref"]), "hist": None, "scen": None}


def test_a_committed_store_that_is_not_needed_is_beside_the_one_that_is(
    root: str, plans: dict[str, Plan]
) -> None:
    old, wanted = plans["base"].stage("adjust")[0], plans["narrow"].stage("adjust")[0]
    commit(root, old)
    document, lines = inventory.why(f"{root}/{path_of(old)}", [("narrow", plans["narrow"])])
    assert document["needed_by"] == []
    assert document["nearest"] == path_of(wanted)
    assert differing(document) == {"half_window": (15, 10)}
    assert "  no given configuration needs it" in lines


def differing(document: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {d["ingredient"]: (d["here"], d["there"]) for d in document["differences"]}


@pytest.mark.parametrize(
    ("changes", "stage", "expected"),
    [
        ({"adjust/half_window": 10}, "adjust", {"half_window": (10, 15)}),
        ({"adjust/dry_threshold": 0.1}, "adjust", {"dry_threshold": (0.1, 0.05)}),
        ({"coarsen/min_valid_fraction": 0.25}, "coarsen", {"min_valid_fraction": (0.25, 0.5)}),
        (
            {"periods/train": [2001, 2014]},
            "climatology",
            {
                "train": (["2001-01-01", "2014-12-31"], ["2000-01-01", "2014-12-31"]),
                "facet train": ("2001-2014", "2000-2014"),
            },
        ),
    ],
)
def test_a_miss_shows_exactly_what_was_changed(
    changes: dict[str, Any],
    stage: str,
    expected: dict[str, Any],
    plans: dict[str, Plan],
    saved: dict[str, Any],
) -> None:
    restore(saved, [*plans["base"].artefacts.values(), *plans["wet"].artefacts.values()])
    plan = planned(Path(), changes)
    document, lines = inventory.why(plan.stage(stage)[0].name, [("new", plan)], root=MEMORY)
    assert document["nearest"] == path_of(plans["base"].stage(stage)[0])
    assert differing(document) == expected
    assert len(lines) <= 40


@given(
    half_window=st.integers(1, 60),
    trend_years=st.sampled_from([0, 5, 9]),
    tails=st.sampled_from(["parametric", "linear"]),
)
@settings(max_examples=15, deadline=None)
def test_a_miss_shows_any_change_and_follows_it_down(
    half_window: int, trend_years: int, tails: str, plans: dict[str, Plan], saved: dict[str, Any]
) -> None:
    restore(saved, [plans["base"].stage("bcsd")[0], plans["base"].stage("adjust")[0]])
    made = {"half_window": 15, "trend_years": 9, "tails": "parametric"}
    chosen = {"half_window": half_window, "trend_years": trend_years, "tails": tails}
    plan = planned(Path(), {f"adjust/{name}": value for name, value in chosen.items()})
    changes = {n: (v, made[n]) for n, v in chosen.items() if v != made[n]}
    if not changes:
        return
    told, _ = inventory.why(path_of(plan.stage("adjust")[0]), [("new", plan)], root=MEMORY)
    assert differing(told) == changes
    told, lines = inventory.why(path_of(plan.stage("bcsd")[0]), [("new", plan)], root=MEMORY)
    assert list(differing(told)) == ["input adjusted"]
    first = min(changes)
    here, there = map(json.dumps, changes[first])
    assert lines[-1] == f"input adjusted differs: adjust {first} {there} -> {here}"


def test_another_content_of_a_source_is_followed_down_to_it(
    plans: dict[str, Plan], saved: dict[str, Any]
) -> None:
    restore(saved, plans["base"].artefacts.values())
    plan = planned(Path(), {"references/OBS/synthetic/seed": 7})
    product = plan.stage("bcsd")[0]
    told, lines = inventory.why(product.name, [("new", plan)], root=MEMORY)
    assert all(name.startswith("input ") for name in differing(told))
    old, new = (p.stage("reference")[0].parameters["source"] for p in (plans["base"], plan))
    told, _ = inventory.why(plan.stage("reference")[0].name, [("new", plan)], root=MEMORY)
    assert differing(told) == {"source": (new, old)}
    (line,) = [line for line in lines if line.startswith("input fine_climatology differs")]
    assert "climatology input series differs: reference source " in line
    assert len(lines) <= 40


def test_an_input_that_is_gone_is_said_to_be(plans: dict[str, Plan]) -> None:
    product = plans["base"].stage("bcsd")[0]
    commit(MEMORY, product)
    wanted = plans["narrow"].stage("bcsd")[0]
    _, lines = inventory.why(wanted.name, [("narrow", plans["narrow"])], root=MEMORY)
    gone = product.inputs["adjusted"].identity[:16]
    assert lines[-1] == f"input adjusted differs: {gone} is not there any more"


def test_the_nearest_is_the_one_with_the_fewest_differences(plans: dict[str, Plan]) -> None:
    wanted = plans["narrow"].stage("adjust")[0]
    far = replace(wanted, parameters={**wanted.parameters, "seed": 1, "tails": "linear"})
    commit(MEMORY, *plans["wet"].stage("adjust"), far, plans["base"].stage("adjust")[0])
    told, _ = inventory.why(wanted.name, [("narrow", plans["narrow"])], root=MEMORY)
    assert told["nearest"] == path_of(plans["base"].stage("adjust")[0])


def test_a_grid_that_differs_inside_does_not_look_the_same(plans: dict[str, Plan]) -> None:
    wanted = plans["base"].stage("weights")[0]
    src = wanted.parameters["src"]
    bent = {**src, "lat": [*src["lat"][:2], 0.0, *src["lat"][3:]]}
    commit(MEMORY, replace(wanted, parameters={**wanted.parameters, "src": bent}))
    told, lines = inventory.why(wanted.name, [("base", plans["base"])], root=MEMORY)
    assert differing(told) == {"src.lat": (src["lat"], bent["lat"])}
    (row,) = [line for line in lines if "src.lat" in line]
    here, there = (cell for cell in row.split("  ") if "#" in cell)
    assert here != there


def test_a_comparison_of_any_length_fits_a_screen(plans: dict[str, Plan]) -> None:
    wanted = plans["base"].stage("adjust")[0]
    many = {f"option_{n}": "x" * 200 for n in range(50)}
    commit(MEMORY, replace(wanted, parameters={**wanted.parameters, **many}))
    told, lines = inventory.why(wanted.name, [("base", plans["base"])], root=MEMORY)
    assert differing(told) == {name: (None, value) for name, value in many.items()}
    assert lines[-1] == f"  and {len(many) - inventory.LENGTH} more"
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120


def test_with_no_relative_there_is_nothing_to_compare(root: str, plans: dict[str, Plan]) -> None:
    wanted = plans["base"].stage("adjust")[0]
    begin(root, wanted)
    told, lines = inventory.why(wanted.name, [("base", plans["base"])], root=root)
    assert told["nearest"] is None
    assert lines[-1] == "nothing of its stage is there to compare it with"
    assert lines[-3] == ("  not committed, unfinished: 0 blocks journalled, 0 of 4 chunks written")


@pytest.mark.parametrize(
    "form",
    [
        "{root}/{path}", "{root}/{path}/", "{root}/{path}/.zmetadata", "{root}/{path}.journal",
        "{path}", "{name}", "{digits}", "{whole}",
    ],
)  # fmt: skip
def test_a_store_may_be_named_in_many_ways(form: str, root: str, plans: dict[str, Plan]) -> None:
    artefact = plans["base"].stage("weights")[0]
    commit(root, artefact)
    target = form.format(
        root=root,
        path=path_of(artefact),
        name=artefact.name,
        digits=artefact.identity[:16],
        whole=artefact.identity,
    )
    assert inventory.why(target, root=root)[0]["identity"] == artefact.identity


def test_an_unknown_name_is_told_with_what_it_could_be(root: str, plans: dict[str, Plan]) -> None:
    artefact = plans["base"].stage("weights")[0]
    wrong = artefact.name[:-16] + "0" * 16
    with pytest.raises(StoreError, match="no store of this name lies below") as caught:
        inventory.why(wrong, [("base", plans["base"])], root=root)
    assert path_of(artefact) in str(caught.value)


def test_an_unfinished_store_that_nobody_plans_is_refused(
    root: str, plans: dict[str, Plan]
) -> None:
    artefact = plans["base"].stage("adjust")[0]
    begin(root, artefact)
    with pytest.raises(StoreError, match=r"is not committed \(no .zmetadata\), and no conf"):
        inventory.why(f"{root}/{artefact.path}", [("wet", plans["wet"])])


# --------------------------------------------------------------------------------------
# gc


@given(kept=st.sets(st.sampled_from(sorted(CHANGES)), min_size=1))
@settings(max_examples=7, deadline=None)
def test_what_a_given_plan_reaches_stays_and_all_else_goes(
    kept: set[str], plans: dict[str, Plan], saved: dict[str, Any]
) -> None:
    every = {path_of(a): a for plan in plans.values() for a in plan.artefacts.values()}
    restore(saved, every.values())
    before = Objects(MEMORY).list()
    reached = {path_of(a) for name in kept for a in plans[name].artefacts.values()}
    found = garbage(MEMORY, *(plans[name] for name in kept))
    assert {one.path for one in found} == every.keys() - reached
    assert Objects(MEMORY).list() == before, "looking deletes nothing"
    assert inventory.collect(MEMORY, found) == found
    after = Objects(MEMORY).list()
    assert after == {k: e for k, e in before.items() if k.split(".zarr/")[0] + ".zarr" in reached}
    assert sum(one.size for one in found) == sum(
        e.size for k, e in before.items() if k not in after
    )


@given(ages=st.lists(st.floats(0, 20), min_size=6, max_size=6), grace=st.floats(0.01, 20))
@settings(max_examples=20, deadline=None)
def test_nothing_with_an_object_younger_than_the_grace_period_goes(
    ages: list[float], grace: float, plans: dict[str, Plan], tmp_path_factory: Any
) -> None:
    root = str(tmp_path_factory.mktemp("aged"))
    stores = list(plans["base"].artefacts.values())[:3]
    now = time.time()
    newest = {}
    for artefact, *pair in zip(stores, ages[:3], ages[3:], strict=True):
        for key, age in zip((".zattrs", "x/0"), pair, strict=True):
            Objects(root).put(f"{path_of(artefact)}/{key}", b"data")
            written = now - age * DAY
            os.utime(f"{root}/{path_of(artefact)}/{key}", (written, written))
        newest[path_of(artefact)] = min(pair)
    found = inventory.gc(root, [("wet", plans["wet"])], grace_seconds=grace * DAY, now=now)
    expected = {path for path, age in newest.items() if age > grace + 1e-6}
    unsure = {path for path, age in newest.items() if abs(age - grace) <= 1e-6}
    assert expected <= {one.path for one in found} <= expected | unsure


def test_the_clock_is_that_of_the_storage(
    root: str, plans: dict[str, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(root, plans["wet"].stage("adjust")[0])
    wanted = [("base", plans["base"])]
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert inventory.gc(root, wanted) == []
    (one,) = inventory.gc(root, wanted, grace_seconds=-1)
    assert 0 <= one.age < 60
    assert not any(key.endswith(".partial") for key in contents(root))


def test_what_has_no_known_time_counts_as_new(
    root: str, plans: dict[str, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(root, plans["wet"].stage("adjust")[0])
    real = Objects.list
    listed = {key: replace(entry, modified=None) for key, entry in Objects(root).list().items()}
    monkeypatch.setattr(Objects, "list", lambda self: {**real(self), **listed})
    assert garbage(root, plans["base"]) == []


def test_unfinished_stores_and_journals_without_a_store_are_garbage(
    root: str, plans: dict[str, Plan]
) -> None:
    begun, gone = plans["wet"].stage("adjust")
    fill(begin(root, begun), 0)
    fill(begin(root, plans["base"].stage("adjust")[0]), 0)
    Objects(root).put(f"{path_of(gone)}.journal/header.json", b"{}")
    found = garbage(root, plans["base"])
    assert [(one.path, one.kind) for one in found] == [
        (path, "unfinished") for path in sorted(map(path_of, (begun, gone)))
    ]
    assert inventory.collect(root, found) == found
    assert not any(path_of(a) in key for key in contents(root) for a in (begun, gone))


def test_what_is_no_store_of_ours_is_never_garbage(root: str, plans: dict[str, Plan]) -> None:
    Objects(root).put("notes/readme.txt", b"mine")
    Objects(root).put("data/temperature.zarr/.zmetadata", b"{}")
    assert garbage(root, plans["base"]) == []


def test_a_store_with_a_holder_stays(root: str, plans: dict[str, Plan]) -> None:
    artefact = plans["wet"].stage("adjust")[0]
    fill(begin(root, artefact), 0)
    lease = leases.acquire(root, artefact.identity)
    try:
        assert inventory.gc(root, [("base", plans["base"])], grace_seconds=-1) == []
        found = garbage(root, plans["base"])
        stores = [one for one in found if one.kind == "unfinished"]
        assert inventory.collect(root, stores) == []
    finally:
        lease.release()
    assert [one.kind for one in garbage(root, plans["base"])] == ["unfinished"]


def test_leases_without_a_holder_go_and_young_ones_stay(root: str, plans: dict[str, Plan]) -> None:
    Objects(root).put(".leases/" + "a" * 64 + ".3", json.dumps({"seconds": 20 * DAY}).encode())
    Objects(root).put(".leases/" + "b" * 64 + ".1", b"")
    (over,) = garbage(root, plans["base"])
    assert (over.path, over.kind) == (".leases/" + "b" * 64 + ".1", "lease")
    inventory.collect(root, [over])
    assert contents(root) == {".leases/" + "a" * 64 + ".3"}


def test_partial_objects_go_from_a_store_that_stays(root: str, plans: dict[str, Plan]) -> None:
    kept, unneeded = plans["base"].stage("adjust")[0], plans["wet"].stage("adjust")[0]
    commit(root, kept, unneeded)
    whole = {key for key in contents(root) if path_of(kept) in key}
    for place in (path_of(kept), path_of(unneeded), "elsewhere"):
        Objects(root).put(f"{place}/x/0.abc.partial", b"half")
    found = garbage(root, plans["base"])
    assert {(one.path, one.kind) for one in found} == {
        (path_of(unneeded), "store"),
        (f"{path_of(kept)}/x/0.abc.partial", "partial"),
        ("elsewhere/x/0.abc.partial", "partial"),
    }
    inventory.collect(root, found)
    assert contents(root) == whole


def test_a_store_that_was_written_since_stays(root: str, plans: dict[str, Plan]) -> None:
    artefact = plans["wet"].stage("adjust")[0]
    commit(root, artefact)
    found = garbage(root, plans["base"])
    commit(root, artefact)
    assert inventory.collect(root, found) == []
    assert leases.list_held(root) == {}
    assert store.open_store(f"{root}/{path_of(artefact)}").identity == artefact.identity


@pytest.mark.parametrize("done", [0, 1])
def test_an_interrupted_collection_leaves_nothing_that_is_read(
    done: int, root: str, plans: dict[str, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact = plans["wet"].stage("adjust")[0]
    commit(root, artefact)
    Objects(f"{root}/{path_of(artefact)}.journal").put("header.json", b"{}")
    clear, calls = Objects.clear, iter(range(9))

    def die_half_way(objects: Objects) -> None:
        if next(calls) < done:
            return clear(objects)
        objects.remove(sorted(objects.list())[1::2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Objects, "clear", die_half_way)
        inventory.collect(root, garbage(root, plans["base"]))
    assert len(contents(root)) > 1
    assert leases.list_held(root) == {}
    with pytest.raises(StoreError, match="is not committed"):
        store.open_store(f"{root}/{path_of(artefact)}")
    inventory.collect(root, garbage(root, plans["base"]))
    assert contents(root) == set()


def test_what_another_has_collected_is_not_collected_again(
    root: str, plans: dict[str, Plan]
) -> None:
    commit(root, plans["wet"].stage("adjust")[0])
    found = garbage(root, plans["base"])
    assert [inventory.collect(root, found) for _ in range(2)] == [found, []]


def test_without_a_plan_nothing_can_be_judged(root: str) -> None:
    with pytest.raises(ConfigError, match="every store would be garbage; name each one whose"):
        inventory.gc(root, [])


def test_a_root_that_is_not_there_has_no_garbage_and_is_not_made(
    root: str, plans: dict[str, Plan]
) -> None:
    assert garbage(root, plans["base"]) == []
    assert not Objects(root).exists()


def test_bytes_are_reported(root: str, plans: dict[str, Plan]) -> None:
    commit(root, plans["wet"].stage("adjust")[0])
    size = sum(entry.size for entry in Objects(root).list().values())
    found = garbage(root, plans["base"])
    document, lines = inventory.tell(root, found, deleted=False)
    assert document["bytes"] == size
    assert lines[-1].startswith("1 to delete, ")
    assert f"({size} bytes)" in lines[-1]
    assert f"8 d  {found[0].path}" in lines[1]
