"""The oracles of BCSD through the real rules: a model made of files, known answers."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from chain import grids
from numpy.typing import NDArray
from oracles import bilinear, close, coarse_means, decade, rain, temperature

from finescale import start
from finescale.calendars import Days, standard_slots
from finescale.fields import Field
from finescale.grids import Grid
from finescale.plan import Artefact, Plan
from finescale.store import open_store
from finescale.variables import MM_PER_DAY

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FINE, COARSE = grids()
HISTORICAL, NEAR, FAR = (decade("noleap", first, first + 9) for first in (1991, 2001, 2011))
THRESHOLD = 0.05 * MM_PER_DAY
SEA = (slice(4, None), slice(9, None))
"""Fine cells of the north-eastern coarse cell, and more: that one has no reference."""
INLAND = FINE.lon <= COARSE.lon[1]
"""Fine columns that no interpolation from the coarse cell at sea reaches."""

VARIABLES = ["tasmax", "tasmin", "pr"]
COMMON = {"domain": "all", "reference": "OBS", "train": "train", "method": "bcsd"}
CONFIG: dict[str, Any] = {
    "name": "oracles",
    "domains": {"all": {}},
    "periods": {"train": [1991, 2000]},
    "references": {"OBS": {"path": "obs_{variable_id}.nc", "variables": VARIABLES}},
    "simulations": [
        {
            "source_id": "PERFECT",  # the coarsened reference
            "experiment_id": ["historical", "near", "far"],
            "path": "{experiment_id}_{variable_id}.nc",
            "pad_experiment": "far",
            "variables": VARIABLES,
        }
    ],
    "products": [
        {
            **COMMON,
            "source_id": "PERFECT",
            "variable_id": VARIABLES,
            "exclude": [  # a job takes its seconds
                {"experiment_id": "near", "variable_id": "pr"},
                {"experiment_id": "near", "variable_id": "tasmin"},
                {"experiment_id": "far", "variable_id": "tasmin"},
            ],
        }
    ],
}


def write(path: Path, variable_id: str, days: Days, grid: Grid, values: NDArray[Any]) -> None:
    units = "kg m-2 s-1" if variable_id == "pr" else "K"
    time = {"units": "days since 1850-01-01", "calendar": days.calendar}
    xr.Dataset(
        {variable_id: (("time", "lat", "lon"), values.astype("f4"), {"units": units})},
        {
            "time": ("time", days.to_cf(), time),
            "lat": ("lat", grid.lat, {"units": "degrees_north"}),
            "lon": ("lon", grid.lon, {"units": "degrees_east"}),
        },
    ).to_netcdf(path)


@cache
def weather() -> dict[str, NDArray[np.float64]]:
    """Return the fine weather of the training years, also where the reference has no values."""
    rng = np.random.default_rng(1)
    tasmax = temperature(HISTORICAL, FINE, warming=1.0)
    tasmin = tasmax - rng.gamma(2.0, 3.0, tasmax.shape) - 0.02
    return {"tasmax": tasmax, "tasmin": tasmin, "pr": rain(HISTORICAL, FINE)}


def write_sources(folder: Path) -> None:
    """Write the reference and a perfect model: it goes on, or changes at once after a gap."""
    for name, values in weather().items():
        observed = values.copy()
        observed[:, *SEA] = np.nan
        write(folder / f"obs_{name}.nc", name, HISTORICAL, FINE, observed)
        model = coarse_means(values)
        changed = 1.5 * model if name == "pr" else model + 3.0
        for experiment, days, data in (
            ("historical", HISTORICAL, model),
            ("near", NEAR, going_on() if name == "tasmax" else model),
            ("far", FAR, changed),
        ):
            write(folder / f"{experiment}_{name}.nc", name, days, COARSE, data)


def going_on() -> NDArray[np.float64]:
    """Return the next ten years of coarse tasmax: the same climate and trend, other weather."""
    both = Days.concatenate([HISTORICAL, NEAR])
    return coarse_means(temperature(both, FINE, seed=9, warming=1.0))[len(HISTORICAL) :]


@dataclass(frozen=True)
class Made:
    """What a run of the real rules has left."""

    folder: Path
    plan: Plan

    def store(self, artefact: Artefact) -> Field:
        return Field(open_store(str(self.folder / "stores" / artefact.path)))

    def artefact(self, variable_id: str, experiment: str) -> Artefact:
        wanted = {"variable_id": variable_id, "experiment_id": experiment}
        (found,) = (a for a in self.plan.stage("bcsd") if wanted.items() <= a.facets.items())
        return found

    def product(self, *facets: str) -> NDArray[np.float64]:
        return self.store(self.artefact(*facets)).read().astype(float)


def snakemake(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder, "--cores", "2",
         "--configfile", folder / "config.yaml", "--quiet", "all", *arguments],
        env={**os.environ, "SNAKEMAKE_PROFILE": str(ROOT / "profiles/local")},
        cwd=folder, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("oracles")
    write_sources(folder)
    configfile = folder / "config.yaml"
    configfile.write_text(yaml.safe_dump(CONFIG))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan = start.read(CONFIG, configfile).plan
    snakemake(folder, "--", *(f"stores/{artefact.path}" for artefact in plan.stage("bcsd")))
    return Made(folder, plan)


def disaggregated(made: Made, artefact: Artefact, coarse: NDArray[np.float64]) -> Any:
    """Return what a coarse series becomes by the formula, (time, lat, lon) inland."""
    inputs = artefact.inputs
    variable_id = inputs["adjusted"].facets["variable_id"]
    slots = standard_slots(HISTORICAL)
    base, cycle = (
        made.store(inputs[f"{side}_climatology"]).store.read(variable_id)[slots].astype(float)
        for side in ("coarse", "fine")
    )
    kept = slice(0, 2)  # the western columns; that at sea has no climatology
    grid = Grid.from_centres(COARSE.lat, COARSE.lon[kept])
    target = Grid.from_centres(FINE.lat, FINE.lon[INLAND])
    if variable_id == "tasmax":
        return bilinear((coarse - base)[..., kept], grid, target) + cycle[..., INLAND]
    return bilinear((coarse / base)[..., kept], grid, target) * cycle[..., INLAND]


def test_a_perfect_model_is_disaggregated_unchanged(made: Made) -> None:
    """Swapped roles, one-sided trends or a sampled reference change it by 0.1 K and more."""
    artefact = made.artefact("tasmax", "historical")
    wanted = disaggregated(made, artefact, coarse_means(weather()["tasmax"]))
    close(made.product("tasmax", "historical")[..., INLAND], wanted, 3e-3, "tasmax [K]")


def test_rain_of_a_perfect_model_is_disaggregated_by_ratios(made: Made) -> None:
    """Values from the threshold on return, those below become 0; added rain falls below 0."""
    artefact = made.artefact("pr", "historical")
    coarse = coarse_means(weather()["pr"])
    coarse[coarse < THRESHOLD] = 0.0
    found = made.product("pr", "historical")[..., INLAND]
    wanted = disaggregated(made, artefact, coarse)
    close(found / MM_PER_DAY, wanted / MM_PER_DAY, 5e-3, "pr [mm/day]")


def test_tasmin_is_tasmax_less_the_range(made: Made) -> None:
    artefact = made.artefact("tasmin", "historical")
    ranges = coarse_means(weather()["tasmax"] - weather()["tasmin"])
    wanted = made.product("tasmax", "historical")[..., INLAND]
    wanted = wanted - disaggregated(made, artefact, ranges)
    close(made.product("tasmin", "historical")[..., INLAND], wanted, 3e-3, "tasmin [K]")


def test_values_are_possible_and_where_the_reference_has_them(made: Made) -> None:
    """No day of rain below 0, no night warmer than its day, nothing at sea, all on land."""
    sea = np.zeros(FINE.shape, bool)
    sea[SEA] = True
    products = {
        (artefact.facets["variable_id"], artefact.facets["experiment_id"]): made.store(artefact)
        for artefact in made.plan.stage("bcsd")
    }
    assert len(products) == 6
    for (variable_id, _), product in products.items():
        values = product.read()
        assert np.array_equal(np.isnan(values), np.broadcast_to(sea, values.shape))
        assert variable_id != "pr" or np.nanmin(values) >= 0
    tasmin, tasmax = (products[v, "historical"].read() for v in ("tasmin", "tasmax"))
    assert (tasmin <= tasmax)[:, ~sea].all()


def test_the_change_of_the_model_is_the_change_of_the_product(made: Made) -> None:
    """Distributions of each period on its own give 0 K and a factor of 1."""
    past, future = (made.product("tasmax", e) for e in ("historical", "far"))
    close(np.nanmean(future - past), 3.0, 0.05, "tasmax [K]")
    past, future = (made.product("pr", e) for e in ("historical", "far"))
    close(np.nanmean(future) / np.nanmean(past), 1.5, 0.015, "pr (ratio)")


def test_there_is_no_step_between_historical_and_scenario(made: Made) -> None:
    """Re-based trends of each period gave a step of -1.15 K."""
    past, future = (made.product("tasmax", e) for e in ("historical", "near"))
    last, first = HISTORICAL.year > 1995, NEAR.year <= 2005
    model = coarse_means(weather()["tasmax"])
    columns = slice(0, 2)  # that at sea is not the product's
    wanted = going_on()[first][..., columns].mean() - model[last][..., columns].mean()
    found = future[first][..., INLAND].mean() - past[last][..., INLAND].mean()
    close(found, wanted, 0.1, "step [K]")


def test_a_cluster_of_workers_writes_the_same_bytes(made: Made) -> None:
    """Forced again, and by Dask workers in place of threads."""
    folder = made.folder / "stores" / made.artefact("pr", "far").path
    before = {
        path: path.read_bytes()
        for path in folder.parent.rglob("*")
        if path.is_file() and path.name != ".provenance.json"
    }
    provenance = (folder.parent / ".provenance.json").read_text()
    target = f"stores/{made.artefact('pr', 'far').path}"
    snakemake(
        made.folder, "--force", "--allowed-rules", "bcsd",
        "--default-resources", "dask='cluster'", "mem_mb=2000",
        "--set-resources", "bcsd:mem_mb=2000", "--", target,
    )  # fmt: skip
    assert (folder.parent / ".provenance.json").read_text() != provenance
    assert all(path.read_bytes() == data for path, data in before.items())
