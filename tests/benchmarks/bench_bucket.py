"""Start-up with all stores in a bucket: requests and seconds of `snakemake --profile gke -n`.

The matrix of P6; nearly all of its stores are committed, each answer takes 20 ms. Beside it the
same start-up with Snakemake's own plugin for buckets, at a size that can be waited for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from bench import QUICK, publish
from bench_dag import ROOT, prepare

from finescale import start, store

sys.path.insert(0, str(ROOT / "tests"))
from listing import listing
from server import BUCKET, environment, flaky

LATENCY = 0.02
"""Of each answer [s]."""
SMALL, LARGE = 1, 1 if QUICK else 30
"""Of so many models."""
MISSING = 100
"""One in so many stores is not committed."""
GOAL = 100
PREFIX = f"gs://{BUCKET}/run"
PLUGIN = """\
import sys

sys.path.insert(0, "{root}/workflow/lib")
from finescale import sentinels

sentinels.install = lambda *folders: None


include: "{root}/Snakefile"
"""
"""A Snakefile that leaves Snakemake's plugin in its place."""


@dataclass(frozen=True)
class Start:
    """What a start-up took."""

    stores: int
    requests: int
    seconds: float
    jobs: int


def names(folder: Path) -> tuple[int, list[str]]:
    """Return how many stores are planned, and the objects of those that are committed."""
    configfile = folder / "config.yaml"
    mapping = yaml.safe_load(configfile.read_text())
    plan = start.read(mapping, configfile, look_up=False, prefix=PREFIX).plan
    paths = [
        artefact.path.removesuffix(f"/{store.SENTINEL}") for artefact in plan.artefacts.values()
    ]
    there = [path for number, path in enumerate(sorted(paths)) if number % MISSING]
    objects = [
        f"run/{key}"
        for path in there
        for key in (
            f"stores/{path}/{store.SENTINEL}",
            f"stores/{path}/tas/0.0.0",
            f"stores/{store.MARKERS}/{path}",
            f"benchmarks/{path.removesuffix('.zarr')}.tsv",
        )
    ]
    return len(paths), objects


def dry_run(n_models: int, *, plugin: bool = False) -> Start:
    """Return what `snakemake --profile gke -n` took for so many models."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, n_models)
        stores, objects = names(folder)
        snakefile = folder / "plugin.smk" if plugin else ROOT / "Snakefile"
        if plugin:
            snakefile.write_text(PLUGIN.format(root=ROOT))
        command = [sys.executable, "-m", "snakemake", "all", "-n", "--snakefile", str(snakefile)]
        command += ["--profile", str(ROOT / "profiles" / "gke"), "--configfile", "config.yaml"]
        with listing(objects) as bucket, flaky(bucket.url) as proxy:
            proxy.fail("", 10**9, delay=LATENCY)
            variables = {"FINESCALE_PREFIX": PREFIX, "FINESCALE_IMAGE": "unused"}
            begun = time.perf_counter()
            said = subprocess.run(
                command,
                env={**os.environ, **environment(proxy.url), **variables},
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
            seconds = time.perf_counter() - begun
        os.chdir(ROOT)
        jobs = len(re.findall(r"^(?:local)?rule ", said, re.MULTILINE))
        return Start(stores, len(proxy.requests), seconds, jobs)


def main() -> None:
    """Measure the plugin at a small size, ours at both, and print the result."""
    plugin, small, ours = dry_run(SMALL, plugin=True), dry_run(SMALL), dry_run(LARGE)
    assert plugin.jobs == small.jobs, f"{plugin.jobs} jobs with the plugin, {small.jobs} with ours"
    publish(
        "bucket",
        what=f"requests of `snakemake --profile gke -n`, {ours.stores} stores, 99 % committed",
        ours=ours.requests,
        peers={f"the plugin, {plugin.stores} stores": plugin.requests},
        ratio={f"{plugin.stores} stores": small.requests / plugin.requests},
        goal=f"<= {GOAL}",
        met=ours.requests <= GOAL,
        details={
            f"ours, {ours.stores} stores": vars(ours),
            f"ours, {small.stores} stores": vars(small),
            f"the plugin, {plugin.stores} stores": vars(plugin),
        },
    )


if __name__ == "__main__":
    main()
