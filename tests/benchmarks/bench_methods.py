"""What each method costs on one world of 100,000 cells: `./run bench methods`.

The plan's jobs run their scripts one after the other, each in a process of its own, from committed
reference and simulations to the product of a scenario. A method's time is that of all jobs its
product needs, without their imports, its memory that of the largest. They stand beside BCSD's and
beside the floor of `bench_end_to_end`. Ratios are of processor time, over both threads: jobs are
too many to repeat until the machine is quiet. Fewer years than P4 has, since GARD and MACA fit
every cell; what is compared has the same years.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zarr
from bench import QUICK, publish
from bench_end_to_end import Seconds, floor
from bench_memory import Axes, Spans, apart, job, write_world

from finescale.store import SENTINEL, open_store

METHODS = ("bcsd", "qplad", "maca", "gard")
THREADS, MEM_MB = 2, 4000
YEARS = 2 if QUICK else 4
STEP, RATIO = 0.1, 8
LARGE, SMALL = (288, 352), (48, 64)
"""Rows and columns; a world of few cells goes before, so that no job compiles while it counts."""
GIVEN = ("reference", "simulation")
"""Stages whose stores are the committed inputs."""


def axes(cells: tuple[int, int]) -> tuple[Axes, Axes]:
    """Return the fine grid and the coarse one, two cells wider all round."""
    south, wide = 36.0, RATIO * STEP
    north, east = south + cells[0] * STEP, cells[1] * STEP
    return (
        {"lat": (south, north, STEP), "lon": (0, east, STEP)},
        {
            "lat": (south - 2 * wide, north + 2 * wide, wide),
            "lon": (-2 * wide, east + 2 * wide, wide),
        },
    )


def config(fine: Axes, spans: Spans) -> dict[str, Any]:
    """Return the configuration of every method of one variable."""
    variables = {"variables": ["tasmax"]}
    return {
        "name": "methods",
        "domains": {"whole": {name: list(axis[:2]) for name, axis in fine.items()}},
        "periods": {"train": list(spans["historical"])},
        "references": {"OBS": {"path": "OBS.zarr", **variables}},
        "simulations": [
            {
                "source_id": "GCM",
                "experiment_id": list(spans),
                "path": "{experiment_id}.zarr",
                **variables,
            }
        ],
        "products": [
            {
                "domain": "whole",
                "reference": "OBS",
                "train": "train",
                "source_id": "GCM",
                "variable_id": "tasmax",
                "method": list(METHODS),
            }
        ],
    }


def needed(artefact: Any) -> Iterator[Any]:
    """Yield what an artefact is made from, the first first, then itself."""
    for each in artefact.inputs.values():
        yield from needed(each)
    yield artefact


def products(cells: tuple[int, int], years: int) -> dict[str, Any]:
    """Write a world into the working directory; return the product of each method."""
    spans = {"historical": (2015 - years, 2014), "ssp585": (2015, 2014 + years)}
    fine, coarse = axes(cells)
    plan = write_world(config(fine, spans), spans, fine, coarse)
    return {
        method: next(
            artefact
            for artefact in plan.stage(method)
            if artefact.facets["experiment_id"] == "ssp585"
        )
        for method in METHODS
    }


def least(product: Any, given: list[Any]) -> Seconds:
    """Return what reading the inputs once and writing the product once takes."""
    zarr.config.set({"threading.max_workers": THREADS, "async.concurrency": 4})
    opened = [
        open_store(f"stores/{each.path}".removesuffix(f"/{SENTINEL}")) for each in (*given, product)
    ]
    return floor(opened[:-1], opened[-1], Path("."))


def cost(artefacts: list[Any], taken: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the sum of times and the highest peak of memory of some jobs."""
    rows = [taken[path] for path in {each.path for each in artefacts}]
    total = {key: sum(row[key] for row in rows) for key in ("seconds", "CPU seconds")}
    return {**total, "MB": max(row["MB"] for row in rows)}


def measure() -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]], Seconds]:
    """Return the cost of each method and of each job, and the floor."""
    tasks = {"threads": THREADS, "mem_mb": MEM_MB}
    with tempfile.TemporaryDirectory() as folder:
        for place in ("first", "world"):
            os.makedirs(f"{folder}/{place}")
            os.chdir(f"{folder}/{place}")
            is_first = place == "first"
            made = products(SMALL if is_first or QUICK else LARGE, 2 if is_first else YEARS)
            every = {a.path: a for product in made.values() for a in needed(product)}
            if is_first:
                apart(*(job(artefact, **tasks) for artefact in every.values()))
        taken = {path: apart(job(artefact, **tasks)) for path, artefact in every.items()}
        given = [a for a in every.values() if a.stage in GIVEN]
        lowest = least(made["bcsd"], given)
        os.chdir("/")
    methods = {
        method: cost([a for a in needed(product) if a.stage not in GIVEN], taken)
        for method, product in made.items()
    }
    return methods, {every[path].name: row for path, row in taken.items()}, lowest


def main() -> None:
    """Measure and print the result."""
    methods, jobs, lowest = measure()
    cpu = {method: found["CPU seconds"] for method, found in methods.items()}
    rows, columns = SMALL if QUICK else LARGE
    publish(
        "methods",
        what=f"each method, tasmax, {rows * columns} cells, {YEARS} years of training, as many of"
        f" the scenario, {THREADS} threads",
        ours=cpu,
        unit="s, CPU",
        peers={"floor": lowest["CPU seconds"]},
        ratio={f"{method} / floor": spent / lowest["CPU seconds"] for method, spent in cpu.items()}
        | {f"{method} / bcsd": cpu[method] / cpu["bcsd"] for method in METHODS[1:]},
        memory=max(found["MB"] for found in methods.values()),
        details={
            **methods,
            "floor": lowest,
            "memory / BCSD's": {
                method: found["MB"] / methods["bcsd"]["MB"] for method, found in methods.items()
            },
            **jobs,
        },
    )


if __name__ == "__main__":
    main()
