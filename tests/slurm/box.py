"""A real Slurm of one node: what a user asks it, and what the tests ask the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BOX = Path(__file__).parent / "slurmbox"
LINK = Path("/etc/slurm/slurm.conf")
FIELDS = (
    "JobIDRaw", "JobName", "State", "ExitCode", "ReqMem", "AllocCPUS", "TimelimitRaw",
    "ElapsedRaw", "MaxRSS", "Account", "Partition", "Comment",
)  # fmt: skip


@dataclass(frozen=True)
class Slurm:
    """A running Slurm: what a user needs to know of it, and what he asks it."""

    folder: Path
    account: str = "lab"
    partition: str = "main"

    @property
    def env(self) -> dict[str, str]:
        """Return the environment in which Slurm's commands find it."""
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """Return what a command prints; an error if it fails."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def jobs(self, *, steps: bool = False, name: str = "") -> list[dict[str, str]]:
        """Return every job that accounting knows, by name of the field; with its steps if asked."""
        asked = [f"--format={','.join(f'{field}%250' for field in FIELDS)}", "--parsable2"]
        asked += ["--noheader", "--duplicates", "--starttime=now-1days"]
        asked += [] if steps else ["--allocations"]
        asked += [f"--name={name}"] if name else []
        lines = self.run("sacct", *asked).splitlines()
        return [dict(zip(FIELDS, line.split("|"), strict=True)) for line in lines]

    def queued(self) -> list[str]:
        """Return the numbers of the jobs that wait, run or are about to end."""
        return self.run("squeue", "--noheader", "--format=%i").split()

    def wait(self, until: Callable[[], object], *, seconds: float = 60) -> None:
        """Wait until something is true.

        Raises
        ------
        TimeoutError
            It did not become so in time.
        """
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                raise TimeoutError(f"{until} after {seconds} s; jobs: {self.jobs()}")
            time.sleep(0.2)

    def start_now(self, number: str) -> None:
        """Start a job that Slurm has put back into the queue, where it would wait two minutes."""
        self.wait(lambda: number in self.run("squeue", "-h", "-tPD", "-o%i").split())
        self.run("scontrol", "update", f"JobId={number}", "StartTime=now")

    def processes(self) -> list[str]:
        """Return the command lines of what runs in jobs."""
        jobs = Path("/proc").glob("[0-9]*/environ")
        return [line for path in jobs if (line := _of_a_job(path))]

    def restart_controller(self, *, after: float = 0) -> None:
        """Kill slurmctld and start another one some seconds later, as after a crash."""
        pid = int((self.folder / "run" / "slurmctld.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        time.sleep(after)
        box("controller", self.folder)


def box(*arguments: str | Path) -> None:
    """Call `slurmbox`; an error if it fails."""
    done = subprocess.run([BOX, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)


def lives(pid: int) -> bool:
    """Tell whether there is such a process, and not as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _of_a_job(environ: Path) -> str:
    """Return the command line of a process that has the environment of a Slurm job."""
    try:
        if b"\0SLURM_JOB_ID=" not in b"\0" + environ.read_bytes():
            return ""
        return (environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
