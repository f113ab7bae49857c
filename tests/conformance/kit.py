"""Products of any registered method from arrays, made by the real plan and stages, no Snakemake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from chain import Mapper, grids, in_order
from numpy.typing import NDArray

from finescale import start
from finescale.calendars import Days
from finescale.fields import TIME_UNITS, Field
from finescale.grids import Grid
from finescale.job import Job
from finescale.methods import METHODS, Promise
from finescale.plan import Artefact
from finescale.store import SENTINEL, Store, open_store
from finescale.variables import VARIABLES

Values = NDArray[np.floating[Any]]
Series = tuple[Days, Values]

NOISE = {"stochastic": True, "length_km": 100.0, "length_days": 1.5}
VARIANTS: dict[str, dict[str, Any]] = {
    "gard-analog": {"stage": "gard", "settings": {"mode": "analog", "n_analogs": 10}},
    "gard-both": {"stage": "gard", "settings": {"mode": "analog_regression", "n_analogs": 60}},
    "gard-noise": {"stage": "gard", "settings": NOISE},
}
"""Methods that a configuration would define, beside those that need no definition."""
KEPT_BY: dict[str, set[Promise]] = {"gard-noise": {"variability"}}
"""What a variant promises beyond its stage."""
NAMES = (*METHODS, *VARIANTS)


def promises(name: str) -> frozenset[Promise]:
    """Return what a method or a variant promises."""
    stage = VARIANTS.get(name, {}).get("stage", name)
    return METHODS[stage].promises | KEPT_BY.get(name, set())


def of(promise: Promise) -> list[str]:
    """Return the names that promise something."""
    return [name for name in NAMES if promise in promises(name)]


@dataclass
class World:
    """Observations and runs of a model, and a folder for what is made of them.

    Parameters
    ----------
    observed, modelled
        variable -> (its days, fine values); (experiment, variable) -> (its days, coarse values).
    config
        Sections that differ from the defaults.
    """

    folder: Path
    observed: Mapping[str, Series]
    modelled: Mapping[tuple[str, str], Series]
    train: tuple[int, int]
    grids: tuple[Grid, Grid] = field(default_factory=grids)
    map: Mapper = in_order
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for variable, series in self.observed.items():
            write(self.folder / f"OBS_{variable}.nc", variable, series, self.grids[0])
        for (experiment, variable), series in self.modelled.items():
            write(self.folder / f"{experiment}_{variable}.nc", variable, series, self.grids[1])
        variables = list(self.observed)
        experiments = list(dict.fromkeys(experiment for experiment, _ in self.modelled))
        mapping = {
            "name": "kit",
            "stores": str(self.folder / "stores"),
            "domains": {"all": {}},
            "periods": {"train": list(self.train)},
            "references": {
                "OBS": {"path": f"{self.folder}/OBS_{{variable_id}}.nc", "variables": variables}
            },
            "simulations": [
                {"source_id": "GCM", "experiment_id": experiments, "variables": variables,
                 "path": f"{self.folder}/{{experiment_id}}_{{variable_id}}.nc"}
            ],
            "methods": VARIANTS,
            "products": [
                {"domain": "all", "reference": "OBS", "train": "train", "source_id": "GCM",
                 "variable_id": variables, "method": list(NAMES)}
            ],
            "aggregate": {"frequencies": []},
            **self.config,
        }  # fmt: skip
        self.run = start.read(mapping, self.folder / "config.yaml")
        self.products = {
            tuple(p.facets[k] for k in ("method", "variable_id", "experiment_id")): p.artefact
            for p in self.run.plan.products
        }

    def product(self, method: str, variable: str, experiment: str = "historical") -> Field:
        """Return a product; it and what it is made of are made when they are first asked for."""
        return Field(self.store(self.products[method, variable, experiment]))

    def store(self, artefact: Artefact) -> Store:
        """Return the store of an artefact."""
        url = f"{self.run.config.stores}/{artefact.path}".removesuffix(f"/{SENTINEL}")
        if not Path(url, SENTINEL).exists():
            inputs = {role: self.store(parent) for role, parent in artefact.inputs.items()}
            work = Job(
                artefact.stage, url, artefact.identity, facets=artefact.facets,
                recipe=artefact.recipe, lock=self.run.lock, map=self.map,
            )  # fmt: skip
            stage = import_module(f"finescale.{artefact.stage}")
            with work.closing:
                stage.run(work, **inputs, **artefact.parameters)
        return open_store(url).require(artefact.identity)


def write(path: Path, variable: str, series: Series, grid: Grid) -> None:
    """Write a dataset as one may be found."""
    days, values = series
    time = {"units": TIME_UNITS, "calendar": days.calendar}
    units = {"units": VARIABLES[variable].units}
    xr.Dataset(
        {variable: (("time", "lat", "lon"), values.astype("f4"), units)},
        {
            "time": ("time", days.to_cf(), time),
            "lat": ("lat", grid.lat, {"units": "degrees_north"}),
            "lon": ("lon", grid.lon, {"units": "degrees_east"}),
        },
    ).to_netcdf(path)
