"""What the profile makes of a plan, before any Slurm sees it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from trial import ROOT, Workflow

from finescale import estimate, start
from finescale.plan import Plan


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    made = Workflow(tmp_path)
    made.configure()
    made.write_sources()
    return made


@pytest.fixture
def plan(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(workflow.folder)
    return start.read(yaml.safe_load(workflow.configfile.read_text()), workflow.configfile).plan


def requests(workflow: Workflow, **environment: str) -> list[tuple[str, dict[str, str]]]:
    """Return the rule of each job of a dry run, and its resources."""
    files = ("--snakefile", ROOT / "Snakefile", "--profile", ROOT / "profiles" / "slurm")
    text = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--configfile", workflow.configfile, *files],
        cwd=workflow.folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.findall(r"^ *rule (\w+):\n(?: +.*\n)*? +resources: (.*)$", text, re.MULTILINE)
    pairs = re.compile(r"(\w+)=([^,]+)")
    return [(rule, dict(pairs.findall(resources))) for rule, resources in found]


@pytest.mark.slow
def test_every_job_asks_for_memory_and_time(workflow: Workflow, plan: Plan) -> None:
    """A job without them would get whatever the site has for a default."""
    asked = requests(workflow, SBATCH_ACCOUNT="a-7", SBATCH_PARTITION="long")
    assert {rule for rule, _ in asked} >= {"bcsd", "evaluate", "index_products", "check_gates"}
    own = {stage: {a.mem_mb for a in plan.stage(stage)} for stage in ("bcsd", "evaluate")}
    for rule, resources in asked:
        assert (resources["slurm_account"], resources["slurm_partition"]) == ("a-7", "long")
        assert int(resources["runtime"]) >= estimate.LEAST_MINUTES
        if rule in own:
            assert int(resources["mem_mb"]) - 300 in own[rule]


@pytest.mark.slow
def test_account_and_partition_are_slurms_unless_said(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SBATCH_ACCOUNT", "SBATCH_PARTITION"):
        monkeypatch.delitem(os.environ, name, raising=False)
    asked = requests(workflow)
    assert asked and not [rule for rule, resources in asked if "slurm_account" in resources]


def test_time_grows_with_the_work_and_with_each_attempt(plan: Plan) -> None:
    """With a floor: the start of a job depends on the node, not on what it has to do."""
    (artefact, *_) = plan.stage("bcsd")
    assert [estimate.minutes(artefact, n) for n in (1, 2, 3)] == [10, 20, 40]
    long = estimate.MARGIN * estimate.work(artefact, {"bcsd": 1e4}).seconds / 60
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(estimate.RATES, "bcsd", 1e4)
        assert long - 1e-9 <= estimate.minutes(artefact) <= long + 1
