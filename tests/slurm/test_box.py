"""The Slurm of these tests is a real one: it limits, accounts and ends what it starts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from slurm.box import BOX, Slurm

pytestmark = pytest.mark.slow
GREEDY = "x = bytearray(400 << 20); import time; time.sleep(4)"


def ended(slurm: Slurm, *command: str) -> dict[str, str]:
    """Return what accounting says of a job once it has ended."""
    number = slurm.run("sbatch", "--parsable", "--output=/dev/null", *command).strip()
    slurm.wait(lambda: number not in slurm.queued() or states(slurm, number) - {"R", "PD", "CG"})
    slurm.wait(lambda: [j for j in slurm.jobs() if j["JobIDRaw"] == number and done(j)])
    (job,) = (job for job in slurm.jobs() if job["JobIDRaw"] == number)
    return job


def done(job: dict[str, str]) -> bool:
    return job["State"].split()[0] not in ("PENDING", "RUNNING", "COMPLETING")


def states(slurm: Slurm, number: str) -> set[str]:
    return set(slurm.run("squeue", "--states=all", "-h", "-o%t", f"-j{number}").split())


def test_a_job_leaves_its_resources_in_accounting(slurm: Slurm) -> None:
    job = ended(slurm, "--mem=300", "--time=7", "--comment=a word", "--account=lab", "--wrap=true")
    assert (job["State"], job["ReqMem"], job["TimelimitRaw"]) == ("COMPLETED", "300M", "7")
    assert (job["Comment"], job["Account"], job["Partition"]) == ("a word", "lab", "main")


def test_a_job_over_its_memory_is_killed(slurm: Slurm) -> None:
    job = ended(slurm, "--mem=100", f"--wrap=python3 -c '{GREEDY}'")
    assert job["State"] in ("OUT_OF_MEMORY", "FAILED", "CANCELLED by 0")


def test_a_second_one_is_refused(slurm: Slurm, tmp_path: Path) -> None:
    again = subprocess.run([BOX, "up", tmp_path / "b"], capture_output=True, text=True)
    assert again.returncode == 1 and "another slurmbox runs" in again.stderr
    assert slurm.run("sinfo", "--noheader")
