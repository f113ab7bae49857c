"""What runs again and what does not: nothing in vain, and nothing half-made is kept."""

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from trial import VARIABLES, Workflow

from finescale.errors import StoreError
from finescale.store import open_store

pytestmark = pytest.mark.slow

REPORT = ["index_products", "tabulate_scores", "check_gates", "write_summary", "all"]


def test_a_finished_workflow_has_nothing_to_do(workflow: Workflow) -> None:
    outcome = workflow.snakemake()
    assert outcome.code == 0
    assert "Nothing to be done" in outcome.text
    assert not outcome.jobs


def test_a_fresh_checkout_has_nothing_to_do(workflow: Workflow, tmp_path: Path) -> None:
    """Git gives every file the time of the checkout: Snakemake's `code` trigger would redo all."""
    fresh = tmp_path / "fresh"
    no_caches = shutil.ignore_patterns("__pycache__")
    for name in ("workflow", "profiles"):
        source, target = workflow.checkout / name, fresh / name
        shutil.copytree(source, target, copy_function=shutil.copyfile, ignore=no_caches)
    shutil.copyfile(workflow.checkout / "Snakefile", fresh / "Snakefile")
    again = replace(workflow, checkout=fresh)
    assert "Nothing to be done" in again.snakemake("--dry-run").text
    triggered = again.snakemake("--dry-run", "--rerun-triggers", "code")
    assert triggered.jobs["weights"] == 2, "no script is newer than what it made"


def test_sources_that_moved_are_what_they_were(workflow: Workflow) -> None:
    """Their content is their identity; neither place nor time is."""
    moved = workflow.folder / "elsewhere"
    shutil.copytree(workflow.folder / "sources", moved, copy_function=shutil.copyfile)
    shutil.rmtree(workflow.folder / "sources")
    text = workflow.configfile.read_text()
    workflow.configfile.write_text(text.replace("sources/", "elsewhere/"))
    assert "Nothing to be done" in workflow.snakemake("--dry-run").text


def test_memory_and_threads_are_no_reason(workflow: Workflow) -> None:
    outcome = workflow.snakemake(
        "--dry-run", "--set-resources", "bcsd:mem_mb=1234", "--set-threads", "bcsd=2"
    )
    assert "Nothing to be done" in outcome.text


def test_a_changed_parameter_runs_what_it_reaches_and_going_back_is_free(
    workflow: Workflow,
) -> None:
    old = workflow.artefact("bcsd", "tasmax")
    before = workflow.bytes_of_stores()
    workflow.configure(adjust={"half_window": 10})
    new = workflow.artefact("bcsd", "tasmax")
    planned = workflow.snakemake("--dry-run")
    made = {"adjust": 2, "bcsd": 2, "aggregate": 2, "evaluate": 2}
    assert planned.jobs == Counter({**made, "draw_maps": 2, **dict.fromkeys(REPORT, 1)})
    assert len(planned.reasons) == planned.jobs.total()
    missing = f"Missing output files: {workflow.sentinel(new)};"
    assert any(reason.startswith(missing) for reason in planned.reasons)

    outcome = workflow.snakemake("--until", "index_products")
    assert outcome.code == 0, outcome.text
    del made["evaluate"]
    assert outcome.jobs == Counter({**made, "index_products": 1})
    assert before.items() < workflow.bytes_of_stores().items(), "a store of old was touched"
    for artefact in (old, new):
        assert open_store(str(workflow.store(artefact))).identity == artefact.identity
    assert old.identity != new.identity
    assert new.identity in workflow.index()

    workflow.configure()
    back = workflow.snakemake("--until", "index_products")
    assert back.jobs == Counter({"index_products": 1})
    assert old.identity in workflow.index() and new.identity not in workflow.index()


def test_a_waived_gate_judges_anew_and_computes_nothing(workflow: Workflow) -> None:
    workflow.configure(evaluate={"waive": ["trend_distortion"]})
    outcome = workflow.snakemake("--dry-run")
    assert outcome.jobs == Counter(["tabulate_scores", "check_gates", "write_summary", "all"])


def test_a_store_without_sentinel_is_made_again_and_what_is_made_of_it(
    workflow: Workflow,
) -> None:
    """But nothing that it was made of, and not the product beside it."""
    lost = workflow.artefact("bcsd", "tasmin")
    (workflow.folder / workflow.sentinel(lost)).unlink()
    outcome = workflow.snakemake("--dry-run")
    assert outcome.jobs == Counter(["bcsd", "aggregate", "evaluate", "draw_maps", *REPORT])
    assert f"Missing output files: {workflow.sentinel(lost)}" in outcome.reasons


DIES = """
import os, re, signal, sys

def die(event, arguments):
    if event in ("os.rename", "os.link"):
        path = arguments[1]
    elif event == "open" and isinstance(arguments[1], str) and set("wxa+") & set(arguments[1]):
        path = arguments[0]
    else:
        return
    if re.search(os.environ["DIES_WRITING"], str(path)):
        os.kill(os.getpid(), signal.SIGKILL)

if "DIES_WRITING" in os.environ:
    sys.addaudithook(die)
"""
"""A process with this in it is killed at the moment it begins to write or to name some file."""


def test_a_job_killed_at_any_moment_leaves_no_sentinel_and_the_rerun_repairs(
    workflow: Workflow, finished: Workflow, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(DIES)
    product = workflow.artefact("bcsd", "tasmax")
    store, target = workflow.store(product), workflow.sentinel(product)
    (workflow.folder / target).unlink()
    seen = []
    for moment in ("/.zattrs", "/tasmax/0.0.0", "/.manifest.json", "/.zmetadata"):
        outcome = workflow.snakemake(
            target, PYTHONPATH=str(tmp_path), DIES_WRITING=f"{re.escape(store.name + moment)}$"
        )
        assert outcome.code == 1, f"nothing was killed at {moment}: {outcome.text}"
        assert outcome.jobs == Counter(["bcsd"])
        assert "Type the same command again" in outcome.text
        assert not (store / ".zmetadata").exists()
        with pytest.raises(StoreError, match="is not committed"):
            open_store(str(store))
        seen.append({path.name for path in store.rglob("*") if path.is_file()})
    assert [".zgroup" in names for names in seen] == [True] * 4
    assert [".manifest.json" in names for names in seen] == [False, False, False, True]

    outcome = workflow.snakemake(target)
    assert outcome.code == 0, outcome.text
    assert outcome.jobs == Counter(["bcsd"])
    assert workflow.bytes_of_stores() == finished.bytes_of_stores()


def test_a_stage_can_be_forced_and_gives_the_same_bytes(
    workflow: Workflow, finished: Workflow
) -> None:
    """All of the stage: also the tasmin that is made of a tasmax, of which none is missing."""
    products = workflow.artefacts("bcsd")
    stores = [workflow.store(product) for product in products]
    before = [(store / ".provenance.json").stat().st_ino for store in stores]
    outcome = workflow.snakemake(*map(workflow.sentinel, products), "--forcerun", "bcsd")
    assert outcome.code == 0, outcome.text
    assert outcome.jobs == Counter({"bcsd": len(VARIABLES)})
    for store, inode in zip(stores, before, strict=True):
        assert (store / ".provenance.json").stat().st_ino != inode, "not written anew"
    assert workflow.bytes_of_stores() == finished.bytes_of_stores()
    assert "Nothing to be done" in workflow.snakemake("--dry-run").text


def test_snakemake_reports_on_it(workflow: Workflow) -> None:
    outcome = workflow.snakemake("--report", "report.html")
    assert outcome.code == 0, outcome.text
    page = (workflow.folder / "report.html").read_text()
    for category in ("Present climate", "Scorecard", "Summary"):
        assert category in page
