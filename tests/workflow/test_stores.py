"""Integrity through Snakemake: verification as a target and as a gate, healing beside it."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from trial import ROOT, Outcome, Workflow

pytestmark = pytest.mark.slow


def finescale(workflow: Workflow, *arguments: str) -> Outcome:
    """Run the command in the folder of a workflow."""
    run = subprocess.run(
        [sys.executable, "-m", "finescale.cli", *arguments],
        cwd=workflow.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "lib")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Outcome(run.returncode, run.stdout)


def damage(workflow: Workflow) -> Path:
    """Turn a bit of a chunk of a product; return the chunk."""
    store = workflow.store(workflow.artefact("bcsd", "tasmax"))
    chunk = store / "tasmax" / "0.0.0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    return chunk


def test_verification_is_a_target_that_runs_whenever_it_is_asked_for(
    workflow: Workflow, finished: Workflow
) -> None:
    for _ in range(2):
        outcome = workflow.snakemake("verify")
        assert (outcome.code, outcome.jobs) == (0, Counter(["verify"])), outcome.text
    chunk = damage(workflow)
    workflow.configure(verify={"depth": "deep"})
    outcome = workflow.snakemake("verify")
    assert outcome.code == 1
    assert f"{chunk.relative_to(workflow.folder)}: bit-flipped, bit 0 of byte" in outcome.text
    assert "`finescale heal --configfile F` recomputes what is damaged" in outcome.text
    assert (chunk.parents[1] / ".zmetadata").exists(), "what is damaged is not thrown away"

    healed = finescale(workflow, "heal", "--configfile", "config.yaml")
    assert healed.code == 0, healed.text
    assert workflow.snakemake("verify").code == 0
    assert workflow.bytes_of_stores() == finished.bytes_of_stores()


def test_a_finished_run_can_be_gated(workflow: Workflow) -> None:
    workflow.configure(verify={"gate": True, "depth": "deep"})
    damage(workflow)
    assert workflow.snakemake().code == 1
    assert finescale(workflow, "heal", "--configfile", "config.yaml").code == 0
    outcome = workflow.snakemake()
    assert outcome.code == 0, outcome.text
    assert outcome.jobs == Counter(["verify_stores", "all"])
    found = json.loads((workflow.folder / "results" / "small" / "verified.json").read_text())
    assert found["deep"] is True and found["stores"] > 10
    assert "Nothing to be done" in workflow.snakemake().text


def test_a_damaged_input_stops_a_job_and_is_named(workflow: Workflow) -> None:
    """Read as it is, it would be a hole in a month, or a wrong number in a map."""
    chunk = damage(workflow)
    workflow.configure(aggregate={"frequencies": ["mon"]})
    outcome = workflow.snakemake("--until", "aggregate")
    assert outcome.code == 1
    assert "chunk tasmax/0.0.0 is not what was committed; `finescale heal" in outcome.text
    assert finescale(workflow, "heal", str(chunk.parents[1])).code == 0
    assert workflow.snakemake("--until", "aggregate").code == 0
