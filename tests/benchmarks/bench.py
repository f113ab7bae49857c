"""Measure: `./run bench [NAME ...] [--json FILE] [--quick] [--write]`.

A name is one of P1..P7 (all of them by default), `store`, `verify`, `zarr`, `methods`, `scaling` or
`bucket`. Each benchmark is a script that prints one JSON object, {name: {"what", "ours", "unit",
"peers", "ratio", "goal", "met", "memory", "command", "details"}}. A ratio is ours over a peer: less
is better. Memory is the peak of ours [MB]. All of P1..P7, or --write, renew docs/benchmarks.md;
--quick tries scripts at small sizes and writes no page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
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
    "zarr": "bench_zarr.py",
    "methods": "bench_methods.py",
    "scaling": "bench_scaling.py",
    "bucket": "bench_bucket.py",
}
PACKAGES = ("numpy", "numba", "zarr", "snakemake")
COLUMNS = ("name", "what", "ours", "peers", "ratio", "goal", "met", "memory")
MOST_SECONDS = 900
"""Of one benchmark: one that hangs doesn't stop the others."""
QUICK = "--quick" in sys.argv
"""Whether this process is to measure small sizes, once."""
Result = dict[str, Any]
Name = TypeVar("Name")


def best_of(
    rounds: int,
    functions: Mapping[Name, Callable[[], Any]],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, float]:
    """Return the shortest time of each function [s].

    They take turns, so that a busy moment of the machine meets all alike; one round goes before,
    which warms files and compiled code. `clock` may be that of the processor.
    """
    taken: dict[Name, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            begin = clock()
            function()
            taken[name].append(clock() - begin)
    return {name: min(times[1:]) for name, times in taken.items()}


def peak_mb() -> int:
    """Return the peak memory of this process [MB]; `getrusage` would include its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024 // 10**6


def publish(name: str, **found: Any) -> None:
    """Print the result of the benchmark that calls this, with its peak of memory and command."""
    usual = {"peers": {}, "ratio": {}, "memory": peak_mb(), "command": f"./run bench {name}"}
    print(json.dumps({name: {**usual, **found}}))


def python_of(venv: str, lock: str) -> str:
    """Return the Python of an environment for peers, made from its hash-pinned lock on demand."""
    path, pins = ROOT / venv, HERE / lock
    stamp = path / f".made-from-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
    python = path / "bin" / "python"
    if not stamp.exists():
        subprocess.run(["uv", "venv", "-q", "--clear", "-p", sys.executable, str(path)], check=True)
        sync = ["uv", "pip", "sync", "-q", "--require-hashes", "-p", str(python), str(pins)]
        subprocess.run(sync, check=True)
        stamp.touch()
    return str(python)


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


def run(name: str, *options: str) -> Result:
    """Return what one benchmark found, or why it found nothing."""
    command = [sys.executable, str(HERE / SCRIPTS[name]), *options]
    try:
        ended = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, timeout=MOST_SECONDS
        )
        result: Result = json.loads(ended.stdout)[name]
    except (subprocess.SubprocessError, ValueError, KeyError) as error:
        why = f"failed: {type(error).__name__}: {error}"
        return {"what": why, "met": False, "command": f"./run bench {name}"}
    return result


def shown(value: Any) -> str:
    """Return a figure, or figures by name, as a cell of a table."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(inner)}" for name, inner in value.items())
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    text = f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else value
    text = f"{value:.0f}" if isinstance(text, float) else str("" if text is None else text)
    return text.replace("|", "/").replace("\n", " ")


def row(name: str, result: Result) -> list[str]:
    """Return the cells of one result."""
    cells = {column: shown(result.get(column)) for column in COLUMNS}
    cells["name"] = f"`{name}`"
    cells["ours"] = f"{cells['ours']} {result.get('unit', '')}".strip()
    cells["memory"] += " MB" if cells["memory"] else ""
    return [cells[column] for column in COLUMNS]


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def page(found: dict[str, Any]) -> str:
    """Return docs/benchmarks.md."""
    results = {name: found[name] for name in SCRIPTS if name in found}
    on = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    details = [
        [f"`{name}`", shown(what), shown(value)]
        for name, result in results.items()
        for what, value in result.get("details", {}).items()
    ]
    return f"""\
# Benchmarks

Written by `./run bench`, which measures everything; `./run bench P3` measures one, and
`--json FILE` keeps the figures. What is compared takes turns on one machine, in one run. A ratio
is ours over a peer: less is better, and it depends on the machine less than seconds do. Memory is
the peak of ours.

Machine: {on}.

{table(COLUMNS, [row(name, result) for name, result in results.items()])}

## In detail

{table(("name", "what", "found"), details)}

What was profiled and gained, and what a missed goal needs:
[decision 0008](decisions/0008-benchmarks.md).
"""


def main() -> int:
    """Run what is asked for and write what was found."""
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCRIPTS))
    parser.add_argument("--json", type=Path, help="write the results there, beside what it holds")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--write", action="store_true", help="renew docs/benchmarks.md")
    asked = parser.parse_args()
    if unknown := set(asked.names) - SCRIPTS.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    numbered = [name for name in SCRIPTS if name.startswith("P")]
    names = asked.names or numbered
    kept = asked.json and asked.json.exists() and json.loads(asked.json.read_text())
    found: dict[str, Any] = {**(kept or {}), "machine": machine()}
    for name in names:
        print(f"bench: {name}", file=sys.stderr)
        found[name] = run(name, *["--quick"] * asked.quick)
        print(" | ".join(row(name, found[name])), flush=True)
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1) + "\n")
    if not asked.quick and (asked.write or set(numbered) <= found.keys()):
        PAGE.write_text(page(found))
    return int(any("ours" not in found[name] for name in names))


if __name__ == "__main__":
    raise SystemExit(main())
