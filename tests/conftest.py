"""What many tests start from: a small world, a folder of stores, a dataset put into our form."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chain import Chain
from trial import ROOT, Workflow

from finescale import domains, reference, resolve, simulation
from finescale.fields import Field
from finescale.job import Job
from finescale.synthetic import World

STAGES = {"reference": reference.run, "simulation": simulation.run}
Box = tuple[float, float]


@pytest.fixture
def small_world() -> World:
    """Return a world of 12 x 16 cells that lies across the meridian of Greenwich."""
    return World(n_lat=12, n_lon=16, ratio=4, west=-2.0, first_year=2013, last_year=2016)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """Return an empty folder of stores."""
    return Chain(tmp_path / "stores")


@pytest.fixture
def make_job(chain: Chain) -> Callable[..., Job]:
    """Return a function that gives the job of a stage: `make_job(stage, name, **facets)`."""
    return chain.job


@pytest.fixture
def standardise(chain: Chain) -> Callable[..., Field]:
    """Return a function that takes a dataset through lock, selection and stage, as a run does."""

    def standardised(
        path: object,
        variable_id: str = "tas",
        *,
        name: str = "made",
        stage: str = "reference",
        lat: Box | None = None,
        lon: Box | None = None,
        period: tuple[str, str] | None = None,
        **request: Any,
    ) -> Field:
        facets = {"reference": name, "variable_id": variable_id}
        asked = {"name": name, "variable_id": variable_id, "facets": facets, "season": None}
        entry, grid = resolve.describe({**asked, "path": str(path), **request})
        work = replace(
            chain.job(stage, name, variable_id=variable_id), lock={"sources": {name: entry}}
        )
        STAGES[stage](
            work,
            source=entry["content"],
            variable_id=variable_id,
            select=domains.select_box(grid, lat, lon, where=name).parameters(),
            period=period or tuple(entry["span"]),
            season=entry["request"]["season"],
            attributes={},
        )
        return Field(chain.keep(work))

    return standardised


@pytest.fixture(scope="session")
def local_quickstart(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Return the quickstart as it was made on this machine, once for all workers of pytest."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "local_quickstart"
    folder.mkdir(exist_ok=True)
    workflow = Workflow(folder)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            shutil.copy(ROOT / "config" / "config.yaml", workflow.configfile)
            outcome = workflow.snakemake()
            assert outcome.code == 0, outcome.text
            (folder / "made").touch()
    return workflow
