"""Doctor: looks at the environment of a run and says what is wrong with it, and what to do."""

from __future__ import annotations

import errno
import locale
import os
import platform
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from finescale.errors import FinescaleError
from finescale.storage import Objects

State = Literal["ok", "warning", "wrong"]
PYTHON = (3, 11)
FLOORS = {
    "snakemake": "9.20", "snakemake-executor-plugin-slurm": "2.8",
    "snakemake-executor-plugin-kubernetes": "0.5.1", "snakemake-storage-plugin-gcs": "1.1.4",
    "numpy": "2", "scipy": "1.14", "numba": "0.61", "zarr": "3.1", "numcodecs": "0.15",
    "xarray": "2025.12", "dask": "2026.1", "distributed": "2026.1", "pydantic": "2.10",
}  # fmt: skip
"""Oldest versions that work; a test compares them with pyproject.toml."""
ROOM = 5e9
"""Bytes of free space below which a run is likely to stop."""
SLURM = ("sbatch", "squeue", "sacct", "srun", "scancel")
SECONDS = 10
"""Longest wait for an answer of Slurm."""


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and what to do if it is not well."""

    name: str
    state: State
    detail: str


def examine(root: str) -> list[Check]:
    """Return all checks for a root of stores, in the order in which they matter."""
    return [*versions(), text(), scratch(), *stores(root), *slurm()]


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())


def versions() -> Iterator[Check]:
    """Yield Python, the libraries, and what is optional."""
    found = platform.python_version()
    floor = ".".join(map(str, PYTHON))
    state: State = "ok" if _release(found) >= PYTHON else "wrong"
    yield Check("python", state, f"{found}, needs {floor}; `./run` makes an environment")
    old = []
    for name, least in FLOORS.items():
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            here = "missing"
        if here == "missing" or _release(here) < _release(least):
            old.append(f"{name} {here}, needs {least}")
    yield Check(
        "libraries", "wrong" if old else "ok",
        "; ".join(old) + "; start with `./run`, it installs the lock" if old else "as locked",
    )  # fmt: skip
    esmf = all(util.find_spec(name) for name in ("esmpy", "xesmf"))
    yield Check(
        "esmf", "ok", "present" if esmf else "absent; only `weights: engine: esmf` needs it"
    )
    git = shutil.which("git")
    yield Check("git", "ok" if git else "warning", git or "missing: reports name no commit")


def text() -> Check:
    """Return whether text is UTF-8."""
    found = locale.getpreferredencoding(False)
    fine = found.lower().replace("-", "") == "utf8"
    advice = "" if fine else "; set LC_ALL=C.UTF-8, or names with accents fail"
    return Check("locale", "ok" if fine else "wrong", found + advice)


def scratch() -> Check:
    """Return whether the folder for temporary files can be used."""
    folder = os.environ.get("TMPDIR") or tempfile.gettempdir()
    if not Path(folder).is_dir():
        return Check("scratch", "wrong", f"{folder} (TMPDIR) is no folder; make or unset it")
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            return _space("scratch", folder)
    except OSError as error:
        return Check("scratch", "wrong", f"{folder}: {error.strerror}; set TMPDIR to another")


def _space(name: str, folder: str) -> Check:
    free = shutil.disk_usage(folder).free
    few = free < ROOM
    advice = f", less than {ROOM / 1e9:.0f}; make room or choose another folder" if few else ""
    return Check(name, "warning" if few else "ok", f"{folder}: {free / 1e9:.1f} GB free{advice}")


def stores(root: str) -> Iterator[Check]:
    """Yield what the root of stores can do: what stores and leases are made of."""
    objects = Objects(f"{root}/.doctor-{uuid.uuid4().hex[:8]}")
    try:
        for name, advice, try_out in PROBES:
            works = try_out(objects)
            yield Check(name, "ok" if works else "wrong", root if works else f"{root}: {advice}")
    except (FinescaleError, OSError) as error:
        full = getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT)
        yield Check("stores", "wrong", f"{root}: no space is left" if full else str(error))
    finally:
        try:
            objects.clear()
        except (FinescaleError, OSError):
            yield Check("stores: delete", "wrong", f"{root}: what was written cannot be deleted")
    if objects.is_local and Path(root).is_dir():
        yield _space("stores: space", root)


def _is_renamed(objects: Objects) -> bool:
    objects.put("a", b"first")
    objects.put("a", b"second")
    return objects.get("a") == b"second" and set(objects.list()) == {"a"}


def _is_exclusive(objects: Objects) -> bool:
    return objects.create("b", b"mine") and not objects.create("b", b"yours")


def _is_renewed(objects: Objects) -> bool:
    before = objects.version("b")
    return objects.renew("b") and objects.version("b") not in (None, before)


def _is_removed(objects: Objects) -> bool:
    objects.remove(["a", "b"])
    return objects.version("a") is None and not objects.list()


PROBES: tuple[tuple[str, str, Callable[[Objects], bool]], ...] = (
    ("stores: write", "a file is not there whole once renamed; use another file system",
     _is_renamed),
    ("stores: create", "two runs can create one file: leases need hard links or O_EXCL; use "
     "another file system", _is_exclusive),
    ("stores: renew", "a lease cannot be renewed; two runs would wait for each other", _is_renewed),
    ("stores: delete", "what was removed is still seen; use another file system", _is_removed),
)  # fmt: skip


def slurm() -> Iterator[Check]:
    """Yield whether Slurm's commands are there and answer; where there are none, that."""
    missing = [name for name in SLURM if shutil.which(name) is None]
    if len(missing) == len(SLURM):
        yield Check("slurm", "ok", "absent; only --profile slurm needs it")
        return
    if missing:
        yield Check("slurm", "wrong", f"{', '.join(missing)} not on PATH; load Slurm's module")
        return
    for name, command, advice in (
        ("slurm: controller", ("scontrol", "ping"), "slurmctld does not answer; ask who runs it"),
        ("slurm: partitions", ("sinfo", "-h", "-o%P"), "no partition is seen; check SLURM_CONF"),
        ("slurm: accounting", ("sacct", "-X", "-n", "-S", "now-1minutes"),
         "sacct does not answer; keep slurm-status-command: squeue"),
    ):  # fmt: skip
        said = _answer(*command)
        state: State = "ok" if said is not None else "wrong"
        if said is None and name == "slurm: accounting":
            state = "warning"
        yield Check(
            name, state, advice if said is None else " ".join(said.split())[:60] or "answers"
        )


def _answer(*command: str) -> str | None:
    """Return what a command prints; None if it fails or says nothing in time."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 and "DOWN" not in done.stdout else None
