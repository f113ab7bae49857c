"""Measure: `./run bench [NAME ...] [--json FILE] [--write]`, one benchmark after the other.

A name is one of P1..P7 (all of them by default), `store` or `verify`. Each benchmark is a script
that prints one JSON object, {name: {"what", "ours", "unit", "peers", "ratio", "goal", "met",
"memory_MB", "command"}}. All of P1..P7, or --write, renew docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
SCRIPTS = {
    "P1": "bench_quantiles.py",
    "P2": "bench_rechunk.py",
    "P3": "bench_regrid.py",
    "P4": "bench_end_to_end.py",
    "P5": "bench_memory.py",
    "P6": "bench_dag.py",
    "P7": "bench_job.py",
    "store": "bench_store.py",
    "verify": "bench_verify.py",
}
PACKAGES = ("numpy", "numba", "zarr", "snakemake")
COLUMNS = ("name", "what", "ours", "peers", "ratio", "goal", "met", "memory")
Result = dict[str, Any]


def best_of(rounds: int, functions: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the shortest time of each function [s].

    They take turns, so that a busy moment of the machine meets all alike; one round goes before,
    which warms files and compiled code.
    """
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            taken[name].append(time.perf_counter() - begin)
    return {name: min(times[1:]) for name, times in taken.items()}


def publish(name: str, **found: Any) -> None:
    """Print the result of the benchmark that calls this, with its peak of memory and command."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6
    print(json.dumps({name: {"memory_MB": peak, "command": f"./run bench {name}", **found}}))


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def run(name: str) -> Result:
    """Return what one benchmark found, or why it found nothing."""
    command = [sys.executable, str(HERE / SCRIPTS[name])]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        return {"failed": f"exit code {ended.returncode}", "met": False}
    result: Result = json.loads(ended.stdout)[name]
    return result


def shown(value: Any) -> str:
    """Return a figure, or figures by name, as a cell of a table."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(inner)}" for name, inner in value.items())
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:.3g}" if isinstance(value, float) else str("" if value is None else value)


def row(name: str, result: Result) -> list[str]:
    """Return the cells of one result."""
    unit, memory = result.get("unit", ""), result.get("memory_MB")
    cells = {
        **{column: shown(result.get(column)) for column in COLUMNS},
        "name": f"`{name}`",
        "ours": f"{shown(result.get('ours'))} {unit}".strip(),
        "what": result.get("what") or result.get("failed", ""),
        "memory": f"{memory} MB" if memory else shown(result.get("memory")),
    }
    return [cells[column] for column in COLUMNS]


def table(rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def page(found: dict[str, Any]) -> str:
    """Return docs/benchmarks.md."""
    results = {name: found[name] for name in SCRIPTS if name in found}
    on = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    details = [
        f"| `{name}` | {what} | {shown(value)} |"
        for name, result in results.items()
        for what, value in result.get("details", {}).items()
    ]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Written by `./run bench`, which measures everything; `./run bench P3` measures one.",
            "What is compared takes turns on one machine. The ratio is ours over the fastest peer:",
            "less is better, and it depends on the machine less than seconds do.",
            "",
            f"Machine: {on}.",
            "",
            table([row(name, result) for name, result in results.items()]),
            "",
            "## In detail",
            "",
            "| name | what | found |",
            "| --- | --- | --- |",
            *details,
            "",
            "What was profiled and gained: [decision 0008](decisions/0008-benchmarks.md).",
            "",
        ]
    )


def main() -> int:
    """Run what is asked for and write what was found."""
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCRIPTS))
    parser.add_argument("--json", type=Path, help="write the results there, beside what it holds")
    parser.add_argument("--write", action="store_true", help="renew docs/benchmarks.md")
    asked = parser.parse_args()
    if unknown := set(asked.names) - SCRIPTS.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    numbered = [name for name in SCRIPTS if name.startswith("P")]
    kept = asked.json and asked.json.exists() and json.loads(asked.json.read_text())
    found: dict[str, Any] = {**(kept or {}), "machine": machine()}
    for name in asked.names or numbered:
        print(f"bench: {name}", file=sys.stderr)
        found[name] = run(name)
        print(" | ".join(row(name, found[name])))
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1) + "\n")
    if asked.write or set(numbered) <= found.keys():
        PAGE.write_text(page(found))
    return int(any("failed" in found[name] for name in asked.names or numbered))


if __name__ == "__main__":
    raise SystemExit(main())
