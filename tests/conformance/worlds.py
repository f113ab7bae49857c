"""Small worlds: smooth weather over terrain, and a model of other weather that is biased."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from chain import grids
from conformance.kit import Series, Values, World
from numpy.typing import NDArray
from oracles import coarse_means, decade
from scipy.ndimage import gaussian_filter

from finescale.calendars import Days, standard_slots
from finescale.variables import MM_PER_DAY

WIDE = grids(n_lon=20)
TRAIN = (2009, 2014)
OBSERVED, LATER = decade("noleap", *TRAIN), decade("noleap", 2051, 2056)
HOLE = np.s_[..., 3:]
"""Coarse columns where the model of the coast has no values."""


def sea() -> NDArray[np.bool_]:
    """Return the fine cells of the coast without reference: most of a coarse cell, an inlet."""
    mask = np.zeros(WIDE[0].shape, np.bool_)
    mask[:3, :4] = mask[5, 9] = True
    return mask


def weather(days: Days, *, seed: int, shape: tuple[int, int] = (8, 12)) -> Values:
    """Return maps of mean 0 and deviation 1, correlated over two cells, new on each day."""
    noise = np.random.default_rng(seed).normal(size=(len(days), *shape))
    smooth = gaussian_filter(noise, (0, 2, 2), mode="reflect")
    return smooth / smooth.std()


def seasonal(days: Days) -> Values:
    return np.cos(2 * np.pi * standard_slots(days) / 366)[:, None, None]


def terrain(shape: tuple[int, int]) -> Values:
    return np.random.default_rng(7).normal(0, 2, shape)


def fine(variable: str, days: Days, *, seed: int = 1, shape: tuple[int, int] = (8, 12)) -> Values:
    """Return the fine fields of a variable in its units."""
    w, cycle, place = weather(days, seed=seed, shape=shape), seasonal(days), terrain(shape)
    spread = 0.02 + 4 * np.abs(weather(days, seed=seed + 100, shape=shape))
    made = {
        "tas": lambda: 285 - 10 * cycle + place + 4 * w,
        "tasmax": lambda: 290 - 10 * cycle + place + 4 * w,
        "tasmin": lambda: 290 - 10 * cycle + place + 4 * w - spread,
        "pr": lambda: np.exp(place / 5) * 8 * MM_PER_DAY * np.maximum(w, 0) ** 1.5,
        "hurs": lambda: 98 / (1 + np.exp(-1.5 - w - place / 4)),
        "huss": lambda: 8e-3 * np.exp(0.3 * w - 0.4 * cycle + place / 20),
        "sfcWind": lambda: 4 * np.exp(0.5 * w + place / 10),
        "rsds": lambda: (150 - 100 * cycle) * np.exp(0.15 * w),
        "psl": lambda: 101_300 + 900 * w + 20 * place,
        "uas": lambda: 4 * w + 0.5 * place,
        "vas": lambda: 3 * w[::-1] + 1.0 * cycle,
    }
    return made[variable]()


def modelled(
    variable: str, days: Days, *, seed: int = 2, shape: tuple[int, int] = (8, 12)
) -> Values:
    """Return the model's coarse fields: too variable, too warm, too wet."""
    true = coarse_means(fine(variable, days, seed=seed, shape=shape))
    if variable in ("tas", "tasmax", "tasmin"):
        return 285 + 1.2 * (true - 285) + 2
    if variable == "psl":
        return 101_300 + 1.3 * (true - 101_300) - 200
    return 1.3 * true


def coast(folder: Path, calendar: str, **changed: Any) -> World:
    """Return a world with sea, a hole in the model, and days that the reference lacks."""
    days = decade("standard", 2013, 2014)
    shape = WIDE[0].shape
    missing = np.zeros((len(days), *shape), np.bool_)
    missing[np.random.default_rng(3).random(len(days)) < 0.05, 4, 12] = True
    missing[[100, 101, 400]] = True
    missing |= sea()
    observed = {
        v: (days, np.where(missing, np.nan, fine(v, days, shape=shape)))
        for v in ("tasmax", "tasmin", "pr")
    }
    runs: dict[tuple[str, str], Series] = {}
    for experiment, years in (("historical", (2013, 2014)), ("ssp245", (2015, 2015))):
        axis = decade(calendar, *years)
        for variable in observed:
            values = modelled(variable, axis, seed=years[0], shape=shape)
            values[HOLE] = np.nan
            runs[experiment, variable] = axis, values
    return World(folder, observed, runs, (2013, 2014), WIDE, **changed)


def perfect(folder: Path) -> World:
    """Return a world whose model is the reference, on the fine grid."""
    grid = grids(4, 4, 1)
    made = {v: (OBSERVED, fine(v, OBSERVED, shape=(4, 4))) for v in ("tas", "pr")}
    return World(
        folder, made, {("historical", v): series for v, series in made.items()}, TRAIN, grid
    )


def changing(folder: Path) -> World:
    """Return a world whose biased model warms by 3 K, and rains half as much again."""
    observed = {v: (OBSERVED, fine(v, OBSERVED)) for v in ("tas", "pr")}
    runs: dict[tuple[str, str], Series] = {}
    for variable in observed:
        past = modelled(variable, OBSERVED)
        future = past + 3 if variable == "tas" else 1.5 * past
        runs["historical", variable] = OBSERVED, past
        runs["ssp245", variable] = LATER, future
    return World(folder, observed, runs, TRAIN)


def bending(folder: Path) -> World:
    """Return a world whose model has its rain on too many days, and later on fewer: 10 % less."""
    past = modelled("pr", OBSERVED) ** 0.6
    future = past**1.4
    runs = {
        ("historical", "pr"): (OBSERVED, 4 * MM_PER_DAY / past.mean() * past),
        ("ssp245", "pr"): (LATER, 0.9 * 4 * MM_PER_DAY / future.mean() * future),
    }
    return World(folder, {"pr": (OBSERVED, fine("pr", OBSERVED))}, runs, TRAIN)


def going_on(folder: Path) -> World:
    """Return a world whose model warms by 2 K in ten years, historical and scenario alike."""
    days = decade("noleap", 2009, 2019)
    model = modelled("tas", days) + 0.2 * (days.ordinal - days.ordinal[0])[:, None, None] / 365
    past = days.year <= 2014
    runs = {
        ("historical", "tas"): (days[past], model[past]),
        ("ssp245", "tas"): (days[~past], model[~past]),
    }
    return World(folder, {"tas": (OBSERVED, fine("tas", OBSERVED))}, runs, TRAIN)


SMALL = (8, 8)
OTHERS = ("hurs", "huss", "sfcWind", "rsds", "psl", "uas", "vas")


def others(folder: Path) -> World:
    """Return a world of variables beyond three."""
    days = decade("noleap", 2013, 2014)
    observed = {v: (days, fine(v, days, shape=SMALL)) for v in OTHERS}
    runs = {("historical", v): (days, modelled(v, days, shape=SMALL)) for v in OTHERS}
    return World(folder, observed, runs, (2013, 2014), grids(*SMALL))


def damp(folder: Path) -> World:
    """Return a world whose model is above saturation on most days, later more so."""
    days, later = decade("noleap", 2013, 2014), decade("noleap", 2051, 2052)
    model = modelled("hurs", days, shape=SMALL)
    runs = {("historical", "hurs"): (days, model), ("ssp245", "hurs"): (later, 1.15 * model)}
    observed = {"hurs": (days, fine("hurs", days, shape=SMALL))}
    return World(folder, observed, runs, (2013, 2014), grids(*SMALL))


def exact(folder: Path) -> World:
    """Return a world whose model has the coarse means of the reference; four regions of analogs."""
    shape = (8, 24)
    made = {v: fine(v, OBSERVED, shape=shape) for v in ("tas", "pr")}
    return World(
        folder,
        {v: (OBSERVED, values) for v, values in made.items()},
        {("historical", v): (OBSERVED, coarse_means(values)) for v, values in made.items()},
        TRAIN,
        grids(*shape),
        config={"maca": {"region_degrees": 5.0}},
    )


def twice(folder: Path) -> World:
    """Return a world whose scenario has the weather of its historical run ten years later."""
    days, later = decade("noleap", 2013, 2014), decade("noleap", 2023, 2024)
    model = modelled("tas", days)
    runs = {("historical", "tas"): (days, model), ("ssp245", "tas"): (later, model)}
    return World(folder, {"tas": (days, fine("tas", days))}, runs, (2013, 2014))
