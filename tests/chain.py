"""The stages of BCSD one after the other on arrays a test makes, without Snakemake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finescale import adjust, bcsd, climatology, coarsen, fields, identity, qplad, weights
from finescale.blocks import tiles
from finescale.calendars import Days
from finescale.config import Qplad
from finescale.disaggregate import Fill
from finescale.fields import Field
from finescale.grids import Grid
from finescale.job import Job
from finescale.methods import METHODS
from finescale.store import Store, open_store

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
TRAIN = ("1991-01-01", "2000-12-31")
SETTINGS = {
    "method": "qm",
    "half_window": 15,
    "positions": "weibull",
    "tails": "parametric",
    "trend_years": 9,
    "dry_threshold": 0.05,
    "seed": 0,
}
CYCLE = {"harmonics": 3, "half_window": 15, "min_valid_fraction": 0.5, "floor": 0.05}


def in_order(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return [function(task) for task in tasks]


@dataclass
class Chain:
    """A folder of stores; `map` runs the blocks of every stage."""

    folder: Path
    map: Mapper = in_order
    made: dict[str, Store] = field(default_factory=dict)

    def job(self, stage: str, name: str, **facets: str) -> Job:
        output = str(self.folder / stage / f"{name}.zarr")
        return Job(stage, output, identity.digest([stage, name]), facets=facets, map=self.map)

    def keep(self, work: Job) -> Store:
        opened = open_store(work.output)
        self.made[f"{work.stage}/{Path(work.output).stem}"] = opened
        return opened

    def daily(
        self,
        stage: str,
        name: str,
        variable_id: str,
        days: Days,
        grid: Grid,
        values: NDArray[Any],
        *,
        layout: fields.Layout = "full_time",
        season: str | None = None,
        **facets: str,
    ) -> Store:
        """Return a committed daily field of these values (time, lat, lon)."""
        work = self.job(stage, name, variable_id=variable_id, **facets)
        arrays = fields.declare(variable_id, days, grid, layout=layout, nan="allowed")
        writer = work.create(arrays, {"season": season} if season else {})
        every = slice(0, len(days))
        work.fill(
            writer,
            lambda t: [(variable_id, (every, t.lat, t.lon), values[:, t.lat, t.lon].astype("f4"))],
            tiles(values.shape, arrays[variable_id].chunks),
        )
        return self.keep(work)

    def weights(self, name: str, src: Grid, dst: Grid, method: str) -> Store:
        work = self.job("weights", f"{name}-{method}", regrid=method)
        weights.run(work, src=src.to_json(), dst=dst.to_json(), method=method, engine="rectilinear")
        return self.keep(work)

    def coarsen(self, name: str, reference: Store, grid: Grid) -> Store:
        fine = Field(reference)
        work = self.job("coarsen", name, variable_id=fine.variable_id)
        coarsen.run(
            work,
            reference=reference,
            weights=self.weights(name, fine.grid, grid, "conservative"),
            grid=grid.to_json(),
            min_valid_fraction=0.5,
        )
        return self.keep(work)

    def climatology(self, name: str, series: Store, train: tuple[str, str] = TRAIN) -> Store:
        work = self.job("climatology", name, variable_id=Field(series).variable_id)
        climatology.run(work, series=series, train=train, **CYCLE)
        return self.keep(work)

    def adjust(
        self,
        name: str,
        ref: Store,
        hist: Store,
        scen: Store | None = None,
        *,
        train: tuple[str, str] = TRAIN,
        **changed: Any,
    ) -> Store:
        work = self.job("adjust", name, variable_id=Field(hist).variable_id)
        target = "hist" if scen is None or changed.pop("target", "") == "hist" else "scen"
        settings = {**SETTINGS, **changed}
        adjust.run(work, ref=ref, hist=hist, scen=scen, target=target, train=train, **settings)
        return self.keep(work)

    def bcsd(
        self,
        name: str,
        reference: Store,
        hist: Store,
        scen: Store | None = None,
        *,
        train: tuple[str, str] = TRAIN,
        tasmax: Store | None = None,
        variable_id: str = "",
        calendar: str | None = None,
        interpolation: Literal["bilinear", "mean_preserving"] = "bilinear",
        fill: Fill = "nearest",
        **changed: Any,
    ) -> Field:
        """Return the product of all stages from a fine reference and a coarse simulation."""
        grid, fine = Field(hist).grid, Field(reference).grid
        ref = self.coarsen(name, reference, grid)
        work = self.job("bcsd", name, variable_id=variable_id or Field(hist).variable_id)
        bcsd.run(
            work,
            adjusted=self.adjust(name, ref, hist, scen, train=train, **changed),
            coarse_climatology=self.climatology(f"{name}-coarse", ref, train),
            fine_climatology=self.climatology(f"{name}-fine", reference, train),
            weights=self.weights(name, grid, fine, "bilinear"),
            area_weights=self.made[f"weights/{name}-conservative"]
            if interpolation == "mean_preserving"
            else None,
            tasmax=tasmax,
            variable_id=variable_id or Field(hist).variable_id,
            interpolation=interpolation,
            fill=fill,
            calendar=calendar,
            attributes={},
        )
        return Field(self.keep(work))

    def qplad(
        self,
        name: str,
        reference: Store,
        hist: Store,
        scen: Store | None = None,
        *,
        train: tuple[str, str] = TRAIN,
        tasmax: Store | None = None,
        variable_id: str = "",
        calendar: str | None = None,
        settings: Mapping[str, Any] | None = None,
        **changed: Any,
    ) -> Field:
        """Return the product of all stages; `settings` and `changed` of qplad and of adjust."""
        grid, fine = Field(hist).grid, Field(reference).grid
        ref = self.coarsen(name, reference, grid)
        work = self.job("qplad", name, variable_id=variable_id or Field(hist).variable_id)
        adjusted = {**METHODS["qplad"].adjust, **changed}
        qplad.run(
            work,
            adjusted=self.adjust(name, ref, hist, scen, train=train, ranks=True, **adjusted),
            coarse=ref,
            reference=reference,
            climatology=self.climatology(f"{name}-fine", reference, train),
            weights=self.weights(name, grid, fine, "nearest"),
            tasmax=tasmax,
            variable_id=variable_id or Field(hist).variable_id,
            train=train,
            calendar=calendar,
            attributes={},
            **{**Qplad().model_dump(), **(settings or {})},
        )
        return Field(self.keep(work))


def grids(n_lat: int = 8, n_lon: int = 12, ratio: int = 4) -> tuple[Grid, Grid]:
    """Return a fine grid of half degrees and the coarse one whose cells are blocks of it."""
    lat, lon = 40.25 + 0.5 * np.arange(n_lat), -5.75 + 0.5 * np.arange(n_lon)
    block = [axis.reshape(-1, ratio).mean(axis=1) for axis in (lat, lon)]
    return Grid.from_centres(lat, lon), Grid.from_centres(*block)
