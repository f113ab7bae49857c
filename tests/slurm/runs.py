"""Snakemake on Slurm in a folder of its own, slow enough that something can happen to its jobs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from slurm.box import Slurm
from trial import ROOT, Workflow

QUICK = {
    "cores": 2,
    "resources": {"mem_mb": 8000, "serial": 1},
    "latency-wait": 5,
    "slurm-init-seconds-before-status-checks": 2,
}
"""What a second profile says on one small idle node."""
HOOK = """
import os, sys, time

def note(event, arguments):
    if event == "os.rename" and ".zarr" in str(arguments[1]):
        os.write(notes, f"{arguments[1]}\\n".encode())
        time.sleep(float(os.environ.get("WRITES_TAKE", "0")))
        if "BALLAST_MB" in os.environ and not ballast:
            ballast.append(bytearray(int(os.environ["BALLAST_MB"]) << 20))

ballast = []
if "WRITES_SEEN" in os.environ:
    import finescale.chunking as chunking

    chunking.TILE, chunking.SLAB, chunking.BLOCK_VALUES, chunking.MOST_VALUES = 6, 180, 1, 1
    notes = os.open(os.environ["WRITES_SEEN"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    sys.addaudithook(note)
"""
"""A process with this in it cuts its store into six blocks, notes what it writes, and is slow."""


def copy_checkout(to: Path) -> Path:
    """Return a checkout that nobody edits meanwhile: finished blocks of other code are not kept."""
    for name in ("workflow", "profiles", "envs"):
        shutil.copytree(ROOT / name, to / name)
    shutil.copy(ROOT / "Snakefile", to)
    return to


@dataclass(frozen=True)
class Writes:
    """What a run wrote, in turn, and what of it belongs to its product."""

    seen: Path
    checkout: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Return what lets processes note it."""
        (self.seen.parent / "sitecustomize.py").write_text(HOOK)
        library = self.checkout / "workflow" / "lib"
        paths = os.pathsep.join([str(self.seen.parent), str(library)])
        return {"PYTHONPATH": paths, "WRITES_SEEN": str(self.seen), **more}

    @property
    def chunks(self) -> Counter[tuple[str, str]]:
        """Return how often each chunk of the product was written, by its block and its name."""
        paths = self.seen.read_text().splitlines() if self.seen.exists() else []
        names = [
            path.rsplit("/", 1)[-1] for path in paths if "/bcsd/" in path and "/tasmax/" in path
        ]
        return Counter((name.partition(".")[2], name) for name in names if name[0].isdigit())

    @property
    def blocks(self) -> set[str]:
        """Return the blocks that were begun."""
        return {block for block, _ in self.chunks}

    @property
    def redone(self) -> set[str]:
        """Return the blocks of which something was written again."""
        return {block for (block, _), times in self.chunks.items() if times > 1}


@dataclass
class Run:
    """A call of Snakemake that is under way."""

    process: subprocess.Popen[str]
    output: Path
    writes: Writes
    slurm: Slurm
    jobs: list[dict[str, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.output.read_text()

    def running(self) -> str:
        """Return the number of the one job that runs, once it does."""
        self.slurm.wait(lambda: self.slurm.run("squeue", "-h", "-tR", "-o%i").split())
        (number,) = self.slurm.run("squeue", "-h", "-tR", "-o%i").split()
        return number

    def once_written(self, blocks: int) -> str:
        """Return the number of the job once it is in the middle of its store."""
        self.slurm.wait(lambda: self.process.poll() is not None or self._has(blocks))
        assert self.process.poll() is None, self.text
        return self.running()

    def _has(self, blocks: int) -> bool:
        return len(self.writes.blocks) > blocks

    def end(self, *, seconds: float = 180) -> int:
        """Return the code with which Snakemake ends; what accounting says is in `jobs` then."""
        code = self.process.wait(seconds)
        self.slurm.wait(lambda: not self.slurm.processes())
        name = self.text.partition("SLURM run ID: ")[2].split()[0]
        self.slurm.wait(lambda: all(map(_is_over, self.slurm.jobs(name=name))))
        self.jobs = self.slurm.jobs(name=name)
        return code


def _is_over(job: dict[str, str]) -> bool:
    return job["State"].split()[0] not in ("PENDING", "RUNNING", "COMPLETING")


@contextmanager
def snakemake(
    slurm: Slurm,
    workflow: Workflow,
    *arguments: str,
    profile: Mapping[str, object] | None = None,
    hooked: bool = True,
    **env: str,
) -> Iterator[Run]:
    """Run Snakemake on Slurm for as long as the context lasts; as a user would unless `hooked`."""
    quick = workflow.folder / "quick.yaml"
    quick.write_text(yaml.safe_dump({**QUICK, **(profile or {})}))
    output, writes = (
        workflow.folder / "output",
        Writes(workflow.folder / "hooks" / "seen", workflow.checkout),
    )
    writes.seen.parent.mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "snakemake", *arguments),
        *("--configfile", str(workflow.configfile)),
        *("--snakefile", str(workflow.checkout / "Snakefile"), "--directory", str(workflow.folder)),
        *("--profile", str(workflow.checkout / "profiles" / "slurm"), "--profile", str(quick)),
    ]
    asked = {"SBATCH_ACCOUNT": slurm.account, "SBATCH_PARTITION": slurm.partition}
    environment = {**slurm.env, **asked, **(writes.environment() if hooked else {}), **env}
    # A shell lets what it starts in the background ignore Ctrl-C, and so would our children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with output.open("w") as file:
        process = subprocess.Popen(
            command, cwd=workflow.folder, env=environment, stdout=file, stderr=file, text=True
        )
    signal.signal(signal.SIGINT, before)
    try:
        yield Run(process, output, writes, slurm)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        slurm.run("scancel", "--user=root")
