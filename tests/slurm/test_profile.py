"""`snakemake --profile slurm` on the quickstart: what was asked of Slurm, and what came out."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml
from slurm.box import Slurm
from slurm.runs import Run, copy_checkout, snakemake
from trial import ROOT, Workflow

from finescale import estimate, start
from finescale.plan import Plan

pytestmark = pytest.mark.slow

TOGETHER = {
    "reference": "inputs",
    "weights": "inputs",
    "coarsen": "inputs",
    "simulation": "simulations",
    "climatology": "climatologies",
    "adjust": "adjusted",
    "aggregate": "summaries",
    "evaluate": "scores",
    "draw_maps": "maps",
    "index_products": "report",
    "tabulate_scores": "report",
    "write_summary": "report",
}
PROFILE = {
    "groups": TOGETHER,
    "group-components": dict.fromkeys(("inputs", "climatologies", "adjusted", "maps"), 4)
    | {"simulations": 2, "summaries": 8, "scores": 8},
}
"""Most jobs of the quickstart take less than the two Snakemakes of a job on Slurm."""
SNAKEMAKES_MB = 300


@pytest.fixture(scope="module")
def made(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workflow, Run]:
    """Return the quickstart as Slurm made it, and the run that made it."""
    folder = tmp_path_factory.mktemp("quickstart")
    workflow = Workflow(folder / "run", copy_checkout(folder / "checkout"))
    workflow.folder.mkdir()
    shutil.copy(ROOT / "config" / "config.yaml", workflow.configfile)
    with snakemake(slurm, workflow, profile=PROFILE, hooked=False) as run:
        assert run.end(seconds=1500) == 0, run.text
    return workflow, run


@pytest.fixture(scope="module")
def plan(made: tuple[Workflow, Run]) -> Plan:
    workflow, _ = made
    mapping = yaml.safe_load(workflow.configfile.read_text())
    return start.read(mapping, workflow.configfile, look_up=False).plan


def test_stores_are_those_of_a_local_run(
    made: tuple[Workflow, Run], local_quickstart: Workflow
) -> None:
    """Bit for bit, whatever node, group or attempt wrote them; nothing else lies beside them."""
    workflow, _ = made
    assert workflow.bytes_of_stores() == local_quickstart.bytes_of_stores()


def test_every_product_is_in_the_index(made: tuple[Workflow, Run], plan: Plan) -> None:
    workflow, _ = made
    index = json.loads((workflow.folder / "results" / "quickstart" / "index.json").read_text())
    wanted = {product.artefact.identity for product in plan.products}
    assert {product["identity"] for product in index["products"]} == wanted


def test_accounting_shows_what_the_plan_asks_for(made: tuple[Workflow, Run], plan: Plan) -> None:
    """Memory, processors, time and a comment that names rule and store, for every single job."""
    _, run = made
    assert {job["State"] for job in run.jobs} == {"COMPLETED"}
    assert {(job["Account"], job["Partition"]) for job in run.jobs} == {("lab", "main")}
    assert all(job["JobName"].startswith("finescale_") for job in run.jobs)
    comments = {job["Comment"]: job for job in run.jobs}
    for artefact in plan.stage("bcsd"):
        job = comments[f"rule_bcsd_wildcards_{artefact.name}"]
        assert job["ReqMem"] == f"{artefact.mem_mb + SNAKEMAKES_MB}M"
        assert job["AllocCPUS"] == f"{artefact.threads}"
        assert job["TimelimitRaw"] == f"{estimate.minutes(artefact)}"


def test_a_group_asks_for_its_largest_job_and_for_the_time_of_all(
    made: tuple[Workflow, Run], plan: Plan
) -> None:
    """Its jobs run one after the other: the sum of their memory would idle."""
    _, run = made
    groups = [job for job in run.jobs if job["Comment"] == "rule_scores_evaluate"]
    largest = max(artefact.mem_mb for artefact in plan.stage("evaluate"))
    assert len(groups) == math.ceil(len(plan.stage("evaluate")) / 8)
    for job in groups:
        assert int(job["ReqMem"].removesuffix("M")) <= largest + SNAKEMAKES_MB
        assert int(job["TimelimitRaw"]) == 8 * estimate.LEAST_MINUTES


def test_a_second_run_has_nothing_to_do(made: tuple[Workflow, Run], slurm: Slurm) -> None:
    workflow, first = made
    with snakemake(slurm, workflow, profile=PROFILE, hooked=False) as again:
        assert again.process.wait(120) == 0, again.text
    assert "Nothing to be done" in again.text
    assert Counter(j["JobName"] for j in slurm.jobs())[first.jobs[0]["JobName"]] == len(first.jobs)


def test_logs_lie_where_one_looks_for_them(made: tuple[Workflow, Run]) -> None:
    """Those of successful jobs go; ours stay, one for each rule and store."""
    workflow, _ = made
    assert not list(Path(workflow.folder, "logs", "slurm").rglob("*.log"))
    assert len(list(Path(workflow.folder, "logs", "bcsd").glob("*.log"))) == 15
