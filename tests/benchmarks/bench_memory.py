"""P5: the peak memory of every rule against what the plan predicts: `./run bench P5`.

Noise in files goes through the scripts of all rules, for a domain and for a tenth of it, with the
threads and the memory that the plan gives the larger one. Each job is a process of its own. Its
peak is compared net of what a job takes that only imports; the plan's figure net of its own base.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import QUICK, peak_mb, publish

sys.path.insert(0, str(Path(__file__).parents[1]))

YEARS = 2 if QUICK else 5
SPANS = {"historical": (2015 - YEARS, 2014), "ssp585": (2015, 2014 + YEARS)}
STEP, COARSE_STEP = 0.25, 0.26
"""[degree] A tenth must hold chunks as large as those of the whole, or it would take less."""
FINE = {"lat": (0, 80, STEP), "lon": (0, 72, STEP)}
COARSE = {"lat": (-3, 83, COARSE_STEP), "lon": (-3, 75, COARSE_STEP)}
DOMAINS = {"tenth": {"lat": [0, 24], "lon": [0, 24]}, "whole": {"lat": [0, 80], "lon": [0, 72]}}
RULES = (
    "reference", "simulation", "weights", "coarsen", "climatology", "adjust", "bcsd",
    "interpolate", "aggregate", "evaluate",
)  # fmt: skip
LEAVES = ("aggregate", "evaluate")
"""Rules of which the largest job is enough, for nothing needs their stores."""
READER = ("cf_xarray", "dask.array")
LATE = {"reference": READER, "simulation": READER, "weights": READER}
"""What a rule imports while it runs."""
LIMIT_MB, LEAST, FLAT = 1000, 0.5, 1.1
Axes = Mapping[str, tuple[float, float, float]]
"""First and last edge and step of lat and lon [degree]."""
Spans = Mapping[str, tuple[int, int]]
"""First and last year of each experiment."""
CONFIG: dict[str, Any] = {
    "name": "memory",
    "domains": DOMAINS,
    "periods": {"train": list(SPANS["historical"])},
    "references": {"OBS": {"path": "OBS.zarr", "variables": ["tasmax"]}},
    "simulations": [
        {
            "source_id": "GCM",
            "experiment_id": list(SPANS),
            "path": "{experiment_id}.zarr",
            "variables": ["tasmax"],
        }
    ],
    "products": [
        {
            "domain": list(DOMAINS),
            "reference": "OBS",
            "train": "train",
            "source_id": "GCM",
            "variable_id": "tasmax",
            "method": ["bcsd", "interpolate"],
        }
    ],
    "aggregate": {"frequencies": ["mon"]},
}


def write_source(path: str, years: tuple[int, int], axes: Axes, mean: float) -> None:
    """Write daily temperatures [K], NaN in a corner, as a Zarr store with a few days in a chunk."""
    import numpy as np
    import zarr

    from finescale.calendars import Days
    from finescale.fields import TIME_UNITS

    days = Days.range(f"{years[0]}-01-01", f"{years[1]}-12-31", "standard")
    lat, lon = (
        np.arange(start + step / 2, stop, step) for start, stop, step in (axes["lat"], axes["lon"])
    )
    shape = (len(days), lat.size, lon.size)
    group = zarr.create_group(path, zarr_format=2)

    def array(name: str, dims: list[str], values: Any, **attributes: str) -> None:
        made = group.create_array(name, data=values)
        made.attrs.update({"_ARRAY_DIMENSIONS": dims, **attributes})

    array("time", ["time"], days.to_cf(), units=TIME_UNITS, calendar="standard")
    array("lat", ["lat"], lat, units="degrees_north", standard_name="latitude")
    array("lon", ["lon"], lon, units="degrees_east", standard_name="longitude")
    made = group.create_array("tasmax", shape=shape, chunks=(10, *shape[1:]), dtype="<f4")
    made.attrs.update({"_ARRAY_DIMENSIONS": ["time", "lat", "lon"], "units": "K"})
    rng = np.random.default_rng(0)
    for begin in range(0, len(days), 100):
        values = rng.standard_normal((100, *shape[1:]), dtype=np.float32) * 3 + np.float32(mean)
        values[:, :3, :3] = np.nan
        made[begin : begin + 100] = values[: len(days) - begin]
    zarr.consolidate_metadata(path, zarr_format=2)


def write_world(config: Mapping[str, Any], spans: Spans, fine: Axes, coarse: Axes) -> Any:
    """Write sources and lock into the working directory and return the plan."""
    from finescale import start

    write_source("OBS.zarr", spans["historical"], fine, 288)
    for experiment, years in spans.items():
        write_source(f"{experiment}.zarr", years, coarse, 290)
    run = start.read(dict(config), Path("config.yaml"))
    Path("lock.json").write_text(json.dumps(run.lock))
    return run.plan


def alone(*tasks: dict[str, Any]) -> dict[str, float]:
    """Return what the scripts of rules take, run in this process, or what one only imports."""
    from standin import run_script, standin

    for task in tasks:
        import_only(task["rule"])
    begin, cpu = time.perf_counter(), time.process_time()
    for task in tasks:
        if "output" in task:
            lock = {"lock": json.loads(Path("lock.json").read_text())}
            run_script(standin(log=Path("log"), config=lock, **task))
    return {
        "seconds": time.perf_counter() - begin,
        "CPU seconds": time.process_time() - cpu,
        "MB": peak_mb(),
    }


def import_only(rule: str) -> None:
    """Import what a rule's job does and load its compiled code."""
    import numpy as np

    from finescale.store import statistics

    for module in (f"finescale.{rule}", "dask", *LATE.get(rule, ())):
        import_module(module)
    statistics(np.zeros((1, 1, 1), dtype=np.float32))


def apart(*tasks: dict[str, Any]) -> dict[str, float]:
    """Return what jobs take, in a process of their own."""
    from finescale.start import ONE_THREAD

    command = [sys.executable, str(Path(__file__)), "--alone", json.dumps(tasks)]
    environment = {**os.environ, **dict.fromkeys(ONE_THREAD, "1")}
    ended = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


def job(artefact: Any, *, threads: int, mem_mb: int) -> dict[str, Any]:
    """Return the task of an artefact: what its rule would give to its script."""
    return {
        "rule": artefact.stage,
        "input": {role: f"stores/{each.path}" for role, each in artefact.inputs.items()},
        "output": {"store": f"stores/{artefact.path}"},
        "spec": artefact.spec,
        "threads": threads,
        "mem_mb": mem_mb,
    }


def measure(rule: str, artefacts: list[Any]) -> dict[str, float]:
    """Return what the plan predicts for a rule, what its jobs take, and their base [MB]."""
    from finescale.memory import BASE_MB

    threads = max(artefact.threads for artefact in artefacts)
    mem_mb = max(artefact.mem_mb for artefact in artefacts)
    peak = dict.fromkeys(DOMAINS, 0.0)
    for artefact in artefacts:
        found = apart(job(artefact, threads=threads, mem_mb=mem_mb))
        domain = artefact.facets["domain"]
        peak[domain] = max(peak[domain], found["MB"])
    base = apart({"rule": rule})["MB"]
    net = {domain: most - base for domain, most in peak.items()}
    return {
        "threads": threads,
        "predicted": mem_mb,
        "measured": peak["whole"],
        "base predicted": BASE_MB,
        "base measured": base,
        "net predicted": mem_mb - BASE_MB,
        "net measured": net["whole"],
        "net, measured / predicted": net["whole"] / max(mem_mb - BASE_MB, 1),
        "whole / tenth": peak["whole"] / peak["tenth"],
        "net, whole / tenth": net["whole"] / max(net["tenth"], 1),
    }


def chosen(rule: str, artefacts: list[Any]) -> list[Any]:
    """Return the artefacts of a rule that are made: of a leaf the one with the most inputs."""
    if rule not in LEAVES:
        return artefacts
    return [
        max((a for a in artefacts if a.facets["domain"] == domain), key=lambda a: len(a.inputs))
        for domain in DOMAINS
    ]


def main() -> None:
    """Measure every rule and print the result."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        plan = write_world(CONFIG, SPANS, FINE, COARSE)
        found = {rule: measure(rule, chosen(rule, plan.stage(rule))) for rule in RULES}
        os.chdir("/")
    large = {rule: row for rule, row in found.items() if row["predicted"] > LIMIT_MB}
    share = {rule: row["net, measured / predicted"] for rule, row in large.items()}
    growth = {rule: row["whole / tenth"] for rule, row in found.items()}
    publish(
        "P5",
        what="peak memory of the largest job",
        ours=max(row["measured"] for row in found.values()),
        unit="MB",
        ratio={f"{rule}, of predicted": value for rule, value in share.items()}
        | {"a tenfold domain, worst rule": max(growth.values())},
        goal=f"net {LEAST} to 1 of what is predicted above {LIMIT_MB} MB; "
        f"<= {FLAT} times as much for a tenfold domain",
        met=all(LEAST <= value <= 1 for value in share.values()) and max(growth.values()) <= FLAT,
        memory=max(row["measured"] for row in found.values()),
        details={
            f"{rule} [MB]": {name: round(value, 2) for name, value in row.items()}
            for rule, row in found.items()
        },
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        print(json.dumps(alone(*json.loads(sys.argv[2]))))
    else:
        main()
