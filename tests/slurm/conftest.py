"""A real Slurm of one node, on this machine, for the time of a module."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm.box import LINK, Slurm, box, lives

LOCK = Path(tempfile.gettempdir(), "finescale-slurmbox.lock")


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """Return a Slurm that lives as long as a module of tests, and leaves nothing behind.

    There can be one on a machine: another worker of pytest waits here until its module is done.
    """
    if os.geteuid() != 0:
        pytest.skip("a Slurm of its own is started by root only")
    missing = [name for name in ("slurmctld", "slurmdbd", "mariadbd") if shutil.which(name) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip(
            f"no {missing[0]}: `tests/slurm/slurmbox install` installs it, and so does CI=1"
        )
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if missing:
            box("install")
        if LINK.is_symlink() and (left := LINK.readlink().parent).name.startswith("slurmbox-"):
            box("down", left)  # by a pytest that was killed: we hold its lock
        folder = Path(tempfile.mkdtemp(prefix="slurmbox-"))
        try:
            box("up", folder)
            yield Slurm(folder)
        finally:
            daemons = [int(path.read_text()) for path in (folder / "run").glob("*.pid")]
            box("down", folder)
    assert not [pid for pid in daemons if lives(pid)]
    assert not folder.exists() and not LINK.is_symlink()
    assert not list(Path("/sys/fs/cgroup").glob("*/slurm*/*/"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what happened to jobs, and how many of their blocks were done again."""
    reports = terminalreporter.getreports("passed")
    rows = [value for r in reports for name, value in r.user_properties if name == "slurm"]
    if rows:
        terminalreporter.section("jobs on Slurm")
    for row in rows:
        terminalreporter.write_line(", ".join(f"{name} {value}" for name, value in row.items()))
