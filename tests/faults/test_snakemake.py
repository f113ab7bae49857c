"""Snakemake itself killed, or two of them on one root of stores: the same command ends it."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
from faults.world import contents, parents_first
from trial import CONFIG, Workflow

from finescale.plan import Artefact

pytestmark = pytest.mark.slow

ONE_PRODUCT = {"products": [{**CONFIG["products"][0], "variable_id": "tasmax"}]}
NOTES = """
import os, sys, time

def note(event, arguments):
    if event in ("os.rename", "os.link") and ".zarr/" in str(arguments[1]):
        os.write(notes, f"{time.monotonic()} {os.getpid()} {arguments[1]}\\n".encode())
        time.sleep(float(os.environ.get("WRITES_TAKE", "0")))

if "WRITES_SEEN" in os.environ:
    notes = os.open(os.environ["WRITES_SEEN"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    sys.addaudithook(note)
"""
"""A process with this in it notes when it writes which object of a store, and can be slow at it."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Return a workflow that made one product undisturbed."""
    made = Workflow(tmp_path_factory.mktemp("undisturbed"))
    made.configure(**ONE_PRODUCT)
    made.write_sources()
    outcome = made.snakemake("--until", "bcsd")
    assert outcome.code == 0, outcome.text
    return made


@pytest.fixture
def product(undisturbed: Workflow) -> Artefact:
    return undisturbed.artefact("bcsd", "tasmax")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return what lets a workflow note who writes what."""
    (tmp_path / "sitecustomize.py").write_text(NOTES)
    return {"PYTHONPATH": str(tmp_path), "WRITES_SEEN": str(tmp_path / "seen")}


@pytest.fixture
def fresh(undisturbed: Workflow, tmp_path: Path) -> Callable[..., Workflow]:
    """Return a function that gives a workflow that has made nothing: `fresh(name, **sections)`."""

    def made(name: str, **sections: object) -> Workflow:
        shutil.copytree(undisturbed.folder / "sources", tmp_path / name / "sources")
        workflow = Workflow(tmp_path / name)
        workflow.configure(**ONE_PRODUCT, **sections)
        return workflow

    return made


def assert_made_as_undisturbed(stores: Path, undisturbed: Workflow) -> None:
    """Neither more nor less: no journal and no lease is left."""
    assert contents(stores) == contents(undisturbed.folder / "stores")


def assert_one_writer_at_a_time(seen: Path) -> None:
    spans: dict[str, dict[str, list[float]]] = {}
    for line in seen.read_text().splitlines():
        moment, process, path = line.split(maxsplit=2)
        store = path[: path.index(".zarr/")]
        spans.setdefault(store, {}).setdefault(process, []).append(float(moment))
    assert spans
    for store, writers in spans.items():
        in_turn = sorted((moments[0], moments[-1]) for moments in writers.values())
        for (_, last), (first, _) in pairwise(in_turn):
            assert last < first, f"{store} had two writers at once"


def main_process(workflow: Workflow) -> psutil.Process:
    """Return the Snakemake that we started, not one that it started."""
    (found,) = (p for p in psutil.Process().children() if str(workflow.configfile) in p.cmdline())
    return found


@pytest.mark.parametrize("seed", range(3))
def test_after_a_killed_snakemake_the_same_command_ends_it(
    seed: int,
    fresh: Callable[..., Workflow],
    undisturbed: Workflow,
    product: Artefact,
    environment: dict[str, str],
) -> None:
    """Jobs of the dead one live on, slowly here, while the living one comes to their stores."""
    workflow, rng = fresh("killed"), np.random.default_rng(seed)
    target = workflow.sentinel(product)
    store = workflow.store(rng.choice(parents_first([product])))
    with ThreadPoolExecutor() as pool:
        killed = pool.submit(workflow.snakemake, target, **environment, WRITES_TAKE="0.1")
        while not (store.exists() or killed.done()):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 2))
        main_process(workflow).kill()
        assert workflow.snakemake("--unlock").code == 0
        again = workflow.snakemake(target, **environment)
    assert killed.result().code == -signal.SIGKILL
    assert again.code == 0, again.text
    assert_made_as_undisturbed(workflow.folder / "stores", undisturbed)
    assert_one_writer_at_a_time(Path(environment["WRITES_SEEN"]))
    assert not workflow.snakemake("--dry-run", target).jobs


@pytest.mark.parametrize("lag", [0, 3])
def test_two_runs_on_one_root_of_stores_make_what_one_makes(
    lag: float,
    fresh: Callable[..., Workflow],
    undisturbed: Workflow,
    product: Artefact,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """Who finds a store in the making waits for it.

    A store that was not there when a run began is taken by its Snakemake for a remnant, once its
    turn comes: the other run may find it gone, and ends with what it says after any failure. Then
    the same command ends well, and there is never another byte or a second writer.
    """
    shared = tmp_path / "shared"
    first, second = (fresh(name, stores=str(shared)) for name in ("first", "second"))
    target = f"{shared}/{product.path}"
    with ThreadPoolExecutor() as pool:
        begun = pool.submit(first.snakemake, target, **environment)
        time.sleep(lag)
        outcomes = {second: second.snakemake(target, **environment), first: begun.result()}
    for workflow, outcome in outcomes.items():
        if outcome.code != 0:
            assert "Type the same command again" in outcome.text
            again = workflow.snakemake(target, **environment)
            assert again.code == 0, again.text
    assert_made_as_undisturbed(shared, undisturbed)
    assert_one_writer_at_a_time(Path(environment["WRITES_SEEN"]))
