"""P7: what a job costs that has next to nothing to do: `./run bench P7`.

Snakemake makes the weights and the coarse reference of the tiniest world and leaves the scripts it
ran, each with its preamble. These are run again, alone, on an empty output: all of the wall time
but the stage's own computing is overhead. Where it goes comes from one more run, which imports the
libraries one by one and times what the job does; Snakemake's own start is not in it.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import QUICK, best_of, publish

sys.path.insert(0, str(Path(__file__).parents[1]))

ROUNDS, GOAL = (1 if QUICK else 5), 1.5
STAGES = ("weights", "coarsen")
IMPORTS = {
    "Snakemake's preamble": ["snakemake.iocontainers", "snakemake.logging"],
    "numpy": ["numpy"],
    "numba": ["numba"],
    "fsspec": ["fsspec"],
    "zarr": ["zarr", "numcodecs", "google_crc32c"],
    "the stage's modules": ["finescale.job", "finescale.blocks"],  # and the stage itself
}
TIMED = {
    "open inputs": ("finescale.job", "_open"),
    "compute": ("finescale.regrid", "apply"),
    "build weights": ("finescale.regrid", "build"),
    "lease": ("finescale.leases", "acquire"),
    "create the store": ("finescale.store", "Writer.create"),
    "write blocks, with compute": ("finescale.store", "Writer.write_block"),
    "commit": ("finescale.store", "Writer.commit"),
}


def timed(function: Callable[..., Any], taken: dict[str, float], name: str) -> Callable[..., Any]:
    """Return the function, adding its seconds to those of its name."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            taken[name] = taken.get(name, 0.0) + time.perf_counter() - begin

    return run


def dissect(script: str, stage: str) -> dict[str, float]:
    """Return what this process spent on each part of a job [s], by running its script."""
    taken: dict[str, float] = {}
    for name, modules in IMPORTS.items():
        timed(lambda modules: [import_module(module) for module in modules], taken, name)(modules)
    timed(import_module, taken, "the stage's modules")(f"finescale.{stage}")
    for name, (module, path) in TIMED.items():
        holder: Any = import_module(module)
        *outer, attribute = path.split(".")
        for part in outer:
            holder = getattr(holder, part)
        setattr(holder, attribute, timed(getattr(holder, attribute), taken, name))
    timed(runpy.run_path, taken, "the script")(script)
    inner = [taken.get(name, 0.0) for name in TIMED if name not in ("compute", "build weights")]
    taken["the script, all else"] = taken.pop("the script") - sum(inner)
    return taken


def environment() -> dict[str, str]:
    """Return the environment that a job of the workflow has."""
    from finescale.start import ONE_THREAD

    return {**os.environ, **dict.fromkeys(ONE_THREAD, "1")}


def scripts(folder: Path) -> dict[str, Path]:
    """Return a script of each stage as Snakemake ran it, in a folder that holds its inputs."""
    from trial import Workflow

    workflow = Workflow(folder)
    workflow.write_sources()
    workflow.configure()
    outcome = workflow.snakemake("--until", "coarsen", "--skip-script-cleanup")
    assert outcome.code == 0, outcome.text
    found = sorted((folder / ".snakemake" / "scripts").glob("*.py"))
    return {stage: next(p for p in found if p.name.endswith(f".{stage}.py")) for stage in STAGES}


def again(script: Path, folder: Path, *command: str) -> str:
    """Return what a process says that runs a script on an empty output."""
    output = re.search(rf"stores/{script.suffixes[-2][1:]}/[\w.-]+\.zarr", script.read_text())
    assert output is not None
    shutil.rmtree(folder / output[0])
    return subprocess.run(
        [sys.executable, *command, str(script)],
        cwd=folder,
        env=environment(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def main() -> None:
    """Measure each stage and print the result."""
    overhead, details = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stage, script in scripts(folder).items():
            taken = best_of(
                ROUNDS,
                {
                    "job": lambda script=script: again(script, folder),
                    "python": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
                },
            )
            parts = json.loads(again(script, folder, __file__, "--dissect", stage))
            work = parts.get("build weights", 0.0)
            overhead[stage] = taken["job"] - work
            details[f"{stage}: where the time goes"] = {
                "Python's start": taken["python"],
                **{name: round(seconds, 3) for name, seconds in parts.items()},
            }
    publish(
        "P7",
        what="a job with next to nothing to do, its work excluded",
        ours=overhead,
        unit="s",
        goal=f"<= {GOAL} s",
        met=max(overhead.values()) <= GOAL,
        details=details,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--dissect"]:
        stage, script = sys.argv[2:]
        print(json.dumps(dissect(script, stage)))
    else:
        main()
