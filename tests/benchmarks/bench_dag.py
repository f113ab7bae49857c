"""P6: `snakemake -n` of a large matrix, against the same DAG of empty rules: `./run bench P6`.

30 models x (historical, 4 scenarios) x 3 variables x 4 methods, and a tenth of it. The empty rules
have the same names, inputs and outputs, read from our dry-run, and nothing else: no library, no
plan, no log, benchmark, params, resources, script. A second peer adds those: the difference to the
first is Snakemake's own, the difference to ours the library's. Same flags, in turns, best of the
rounds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from bench import QUICK, publish

from finescale import config, identity, resolve, sources

ROOT = Path(__file__).parents[2]
ROUNDS = {1: 1} if QUICK else {3: 3, 30: 2}
"""Of so many models."""
GOAL = 1.2
VARIABLES = ["tasmax", "tasmin", "pr"]
SCENARIOS = ["ssp126", "ssp245", "ssp370", "ssp585"]
SPANS = {True: ("1950-01-01", "2014-12-31", 23741), False: ("2015-01-01", "2100-12-31", 31411)}
JOB = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", re.MULTILINE)
DIRECTIVES = """\
    params: spec=lambda wildcards: {{"stage": "{rule}", "key": str(wildcards)}}
    threads: 1
    resources: mem_mb=lambda wildcards, attempt: 1000 * attempt
    log: "logs/{rule}/{wildcard}.log"
    benchmark: "benchmarks/{rule}/{wildcard}.tsv"
    conda: "{root}/envs/finescale.yaml"
    script: "{root}/workflow/scripts/{rule}.py"
"""
Jobs = dict[str, dict[str, list[str]]]  # rule -> value of its wildcard -> inputs


def configuration(n_models: int) -> dict[str, Any]:
    """Return a config of so many models over Europe."""
    models = [f"M{number:02d}" for number in range(n_models)]
    dataset = {"path": "sources/{variable_id}.nc", "variables": VARIABLES}
    run = {"source_id": models, "experiment_id": ["historical", *SCENARIOS], **dataset}
    return {
        "name": "matrix",
        "domains": {"europe": {"lat": [30, 70], "lon": [-15, 45]}},
        "periods": {"train": [1981, 2014]},
        "references": {"ERA5": dataset},
        "simulations": [run],
        "methods": {
            "no-trend": {"stage": "bcsd", "adjust": {"trend_years": 0}},
            "narrow": {"stage": "bcsd", "adjust": {"half_window": 10}},
        },
        "products": [
            {
                "domain": "europe",
                "reference": "ERA5",
                "train": "train",
                "source_id": models,
                "variable_id": VARIABLES,
                "method": ["bcsd", "no-trend", "narrow", "interpolate"],
            }
        ],
    }


def globe(step: float) -> dict[str, Any]:
    """Return a global grid as a lock holds it."""
    n_lat, n_lon = round(180 / step), round(360 / step)
    lat = [-90 + 180 / n_lat * (i + 0.5) for i in range(n_lat)]
    lon = [360 / n_lon * i for i in range(n_lon)]
    return {"lat": lat, "lon": lon, "lat_bnds": None, "lon_bnds": None}


def lock(mapping: dict[str, Any]) -> resolve.Lock:
    """Return the lock of a config as if its sources were there; each model has its own grid."""
    found: resolve.Lock = {"schema": resolve.SCHEMA, "sources": {}, "grids": {}}
    for name, request in resolve.requests(config.load(mapping)).items():
        model = request["facets"].get("source_id")
        grid = globe(0.25 if model is None else 1.0 + int(model[1:]) / 30)
        key = identity.digest(grid)
        found["grids"][key] = grid
        past = model is None or request["facets"]["experiment_id"] == "historical"
        first, last, n_days = SPANS[past]
        found["sources"][name] = {
            "request": request,
            "content": identity.digest(request),
            "fingerprint": sources.fingerprint(request),
            "calendar": "standard",
            "span": [first, last],
            "n_days": n_days,
            "grid": key,
            "licence": "CC BY 4.0",
            "citation": "",
            "tracking_id": "",
        }
    return found


def prepare(folder: Path, n_models: int) -> None:
    """Write config, sources and lock into the working directory of a dry-run."""
    (folder / "sources").mkdir(parents=True)
    for variable in VARIABLES:
        (folder / "sources" / f"{variable}.nc").touch()
    mapping = configuration(n_models)
    (folder / "config.yaml").write_text(yaml.safe_dump(mapping))
    os.chdir(folder)
    (folder / "config.lock.json").write_text(json.dumps(lock(mapping)))


def dry_run(folder: Path, snakefile: Path, *more: str) -> str:
    """Return what `snakemake -n` says."""
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", str(snakefile)]
    command += ["--directory", str(folder), "--profile", str(ROOT / "profiles" / "local"), *more]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def listed(block: str, directive: str) -> list[str]:
    """Return what a job's block says of a directive."""
    found = re.search(rf"^    {directive}: (.+)$", block, re.MULTILINE)
    return found[1].split(", ") if found else []


def empty_rules(said: str, folder: Path) -> dict[str, Path]:
    """Write Snakefiles with the jobs that a dry-run listed; without and with directives."""
    jobs: Jobs = {}
    outputs: dict[str, tuple[str, list[str]]] = {}
    for rule, block in JOB.findall(said):
        name, _, value = "".join(listed(block, "wildcards")).partition("=")
        wildcard = f"{{{name}}}" if name else ""
        jobs.setdefault(rule, {})[value] = listed(block, "input")
        pattern = [
            path.replace(value, wildcard) if name else path for path in listed(block, "output")
        ]
        outputs.setdefault(rule, (name, pattern))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    head = 'import json\n\nJOBS = json.load(open("jobs.json"))\n'
    texts = {"empty rules": head, "empty rules with our directives": head}
    for rule, (name, output) in sorted(outputs.items(), key=lambda item: item[0] != "all"):
        inputs = (
            f'lambda wildcards: JOBS["{rule}"][wildcards.{name}]' if name else f'JOBS["{rule}"][""]'
        )
        text = f"\nrule {rule}:\n    input: {inputs}\n"
        text += f"    output: {', '.join(map(repr, output))}\n" if output else ""
        wildcard = f"{{{name}}}" if name else "it"
        directives = DIRECTIVES.format(rule=rule, wildcard=wildcard, root=ROOT) if output else ""
        texts["empty rules"] += text
        texts["empty rules with our directives"] += text + directives
    paths = {name: folder / f"{name.replace(' ', '-')}.smk" for name in texts}
    for name, path in paths.items():
        path.write_text(texts[name])
    return paths


def measure(n_models: int) -> tuple[int, dict[str, float], dict[str, float]]:
    """Return the number of jobs, and the wall and CPU seconds of each DAG."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, n_models)
        ours = ("--configfile", "config.yaml")
        said = dry_run(folder, ROOT / "Snakefile", *ours)
        candidates: dict[str, tuple[Any, ...]] = {"ours": (ROOT / "Snakefile", *ours)}
        candidates |= {peer: (path,) for peer, path in empty_rules(said, folder).items()}
        counts = {len(JOB.findall(said))}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
        for _ in range(ROUNDS[n_models]):
            for candidate, arguments in candidates.items():
                begin, before = time.perf_counter(), children_seconds()
                counts.add(len(JOB.findall(dry_run(folder, *arguments))))
                seconds = time.perf_counter() - begin, children_seconds() - before
                taken[candidate].append(seconds)
        os.chdir(ROOT)
    assert len(counts) == 1, f"the DAGs have {sorted(counts)} jobs"
    least = [{name: min(r[i] for r in rounds) for name, rounds in taken.items()} for i in (0, 1)]
    return counts.pop(), least[0], least[1]


def children_seconds() -> float:
    """Return the processor time of all processes that this one has waited for [s]."""
    used = os.times()
    return used.children_user + used.children_system


def main() -> None:
    """Measure both sizes and print the result."""
    ratio: dict[str, float] = {}
    details: dict[str, Any] = {}
    for n_models in ROUNDS:
        n_jobs, wall, cpu = measure(n_models)
        ours = wall.pop("ours")
        cpu_ours = cpu.pop("ours")
        ratio |= {f"{peer}, {n_jobs} jobs": ours / seconds for peer, seconds in wall.items()}
        details[f"{n_jobs} jobs: seconds"] = {"ours": ours, **wall}
        details[f"{n_jobs} jobs: CPU, ours over"] = {k: cpu_ours / v for k, v in cpu.items()}
    publish(
        "P6",
        what=f"`snakemake -n`, {n_jobs} jobs",
        ours=ours,
        unit="s",
        peers=wall,
        ratio=ratio,
        goal=f"<= {GOAL} of empty rules",
        met=all(ratio[name] <= GOAL for name in ratio if name.startswith("empty rules, ")),
        details=details,
    )


if __name__ == "__main__":
    main()
