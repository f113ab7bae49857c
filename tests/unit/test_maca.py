"""Stages `analogs` and `maca`: what constructed analogs must do, whatever the blocks do."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from chain import Chain, Mapper, grids, in_order
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from finescale import analogs, chunking, fields, maca
from finescale.blocks import tiles
from finescale.calendars import Days, standard_slots
from finescale.engines import engine
from finescale.fields import Field
from finescale.grids import Grid
from finescale.store import Contract, Store
from finescale.variables import MM_PER_DAY, VARIABLES

Values = NDArray[np.float64]
FINE, COARSE = grids(n_lat=16, n_lon=24)
TRAIN = ("1991-01-01", "1994-12-31")
SEARCH: dict[str, Any] = {
    "n_analogs": 10,
    "day_window": 45,
    "exclude_days": 7,
    "ridge": 0.1,
}
ADJUST: dict[str, Any] = {
    "method": "edcdfm",
    "half_window": 22,
    "trend_years": 0,
    "epoch_years": 31,
    "max_ratio": 5.0,
}
OWN_DAY = {"exclude_days": -1, "ridge": 0.0}
MAPPING: dict[str, Any] = {
    "half_window": 15,
    "positions": "weibull",
    "tails": "parametric",
    "max_ratio": 5.0,
    "dry_threshold": 0.05,
    "seed": 0,
}


def decade(calendar: str = "noleap", first: int = 1991, last: int = 1994) -> Days:
    return oracles.decade(calendar, first, last)


def weather(days: Days, *, seed: int = 1, grid: Grid = FINE) -> Values:
    """Return maps of mean 0 and deviation 1, correlated over three cells, new on each day."""
    noise = np.random.default_rng(seed).normal(size=(len(days), *grid.shape))
    smooth = gaussian_filter(noise, (0, 3, 3), mode="reflect")
    return smooth / smooth.std()


def temperature(days: Days, *, seed: int = 1) -> Values:
    terrain = 4 * np.random.default_rng(7).normal(size=FINE.shape)
    cycle = -10 * np.cos(2 * np.pi * standard_slots(days) / 366)
    return 285 + terrain + cycle[:, None, None] + 4 * weather(days, seed=seed)


def rain(days: Days, *, seed: int = 1) -> Values:
    place = np.random.default_rng(7).uniform(0.5, 2.0, FINE.shape)
    return place * 8 * MM_PER_DAY * np.maximum(weather(days, seed=seed), 0.0) ** 1.5


@dataclass
class World:
    """A folder of stores, and the parameters of both stages in it."""

    chain: Chain
    train: tuple[str, str] = TRAIN
    degrees: float = 6.0

    def adjusted(
        self,
        name: str,
        variable_id: str,
        days: Days,
        values: Values,
        *,
        trend: Values | float | None = None,
        season: str | None = None,
    ) -> Store:
        """Return what the stage `adjust` would have left, with the trend still out."""
        work = self.chain.job("adjust", name, variable_id=variable_id)
        arrays = fields.declare(variable_id, days, COARSE, layout="full_time", nan="allowed")
        arrays["trend"] = replace(arrays[variable_id], contract=Contract(nan="allowed"))
        valid = ~np.isnan(values).any(axis=0)
        arrays["valid"] = fields.flag(valid, "cell has values", "no yes")
        slow = 1.0 if VARIABLES[variable_id].kind == "*" else 0.0
        slow = np.broadcast_to(slow if trend is None else trend, values.shape)
        pieces = {variable_id: values, "trend": np.where(valid, slow, np.nan)}
        every = slice(0, len(days))
        work.fill(
            work.create(arrays, {"season": season} if season else {}),
            lambda t: [
                (name, (every, t.lat, t.lon), v[:, t.lat, t.lon].astype("f4"))
                for name, v in pieces.items()
            ],
            tiles(values.shape, arrays[variable_id].chunks),
        )
        return self.chain.keep(work)

    def reference(
        self, variable_id: str, days: Days, values: Values, *, season: str | None = None
    ) -> None:
        """Keep a reference, its coarse means, its climatology and the weights."""
        chain, v = self.chain, variable_id
        made = chain.daily("reference", v, v, days, FINE, values, layout="tiles", season=season)
        chain.coarsen(v, made, COARSE)
        chain.climatology(v, made, self.train)
        chain.weights(v, COARSE, FINE, "bilinear")

    def analogs(self, name: str, adjusted: dict[str, Store], **changed: Any) -> Store:
        work = self.chain.job("analogs", name)
        stores = {f"adjusted_{v}": s for v, s in adjusted.items()}
        stores |= {f"ref_{v}": self.chain.made[f"coarsen/{v}"] for v in adjusted}
        settings = {**SEARCH, **changed, "region_degrees": self.degrees}
        analogs.run(work, variables=list(adjusted), train=self.train, **settings, **stores)
        return self.chain.keep(work)

    def product(
        self,
        name: str,
        adjusted: Store,
        found: Store,
        *,
        hist: tuple[Store, Store] | None = None,
        **changed: Any,
    ) -> Field:
        """Return the product; `hist` are adjusted series and analogs of the training days."""
        made, v = self.chain.made, Field(adjusted).variable_id
        adjusted_hist, analogs_hist = hist or (adjusted, found)
        work = self.chain.job("maca", name, variable_id=changed.get("variable_id", v))
        settings = {"variable_id": v, "calendar": None, "attributes": {}, **MAPPING, **changed}
        maca.run(
            work,
            analogs=found,
            analogs_hist=analogs_hist,
            adjusted=adjusted,
            adjusted_hist=adjusted_hist,
            ref=made[f"coarsen/{v}"],
            reference=made[f"reference/{v}"],
            climatology=made[f"climatology/{v}"],
            weights=made[f"weights/{v}-bilinear"],
            train=self.train,
            region_degrees=self.degrees,
            pr_ceiling=2000.0,
            **settings,
        )
        return Field(self.chain.keep(work))

    def perfect(
        self,
        variable_id: str,
        days: Days,
        truth: Values,
        *,
        season: str | None = None,
        **search: Any,
    ) -> Field:
        """Return the product of a model that is the coarse reference itself."""
        self.reference(variable_id, days, truth, season=season)
        coarse = Field(self.chain.made[f"coarsen/{variable_id}"]).read()
        model = self.adjusted("perfect", variable_id, days, coarse, season=season)
        found = self.analogs("perfect", {variable_id: model}, **search)
        return self.product("perfect", model, found)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Chain(tmp_path))


# --------------------------------------------------------------------------------------
# Identity


@pytest.mark.parametrize("calendar", ["standard", "360_day"])
def test_a_perfect_model_is_returned_if_its_own_days_may_be_analogs(
    calendar: str, world: World
) -> None:
    """Wrong indices, shares that do not sum to one or a residual on top give other days."""
    world.train = ("1991-01-01", "1994-12-30")
    days = decade(calendar)
    truth = temperature(days).astype("f4")
    made = world.perfect("tas", days, truth, **OWN_DAY)
    days = made.days
    inside = slice(0, len(days) if calendar == "360_day" else len(days) - 1)
    np.testing.assert_allclose(made.read()[inside], truth[inside], rtol=0, atol=7e-5)
    found = world.chain.made["analogs/perfect"]
    assert np.array_equal(found.read("analog")[0, inside, 0], np.arange(len(truth))[inside])
    assert len(found.read("region_bnds")) == 6


def test_rain_of_a_perfect_model_is_returned(world: World) -> None:
    days = decade()
    truth = rain(days).astype("f4")
    made = world.perfect("pr", days, truth, **OWN_DAY).read()
    wet = truth >= 0.05 * MM_PER_DAY
    np.testing.assert_allclose(made[wet], truth[wet], rtol=2e-6)
    assert not made[~wet].any()


def test_without_its_own_days_a_perfect_model_is_not_returned(world: World) -> None:
    """Its skill would be that of looking up the answer. It is still better than interpolation."""
    days = decade()
    truth = temperature(days)
    made = world.perfect("tas", days, truth).read()
    smooth = oracles.bilinear(oracles.coarse_means(truth), COARSE, FINE)
    smooth += truth.mean(axis=0) - smooth.mean(axis=0)
    errors = [np.sqrt(np.mean((v - truth) ** 2)) for v in (made, smooth)]
    assert errors[0] > 0.3
    np.testing.assert_allclose(made.std(axis=0), truth.std(axis=0), rtol=0.02)
    assert np.corrcoef(made.ravel(), truth.ravel())[0, 1] > 0.97


# --------------------------------------------------------------------------------------
# Whatever runs the blocks


def small_blocks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chunking, "TILE", 8)
    patch.setattr(maca, "BLOCK_VALUES", 40 * 730)


def sea() -> NDArray[np.bool_]:
    mask = np.zeros(FINE.shape, np.bool_)
    mask[:5, 3:13], mask[9, 3] = True, True
    return mask


def scarce(folder: Path, *, run: Mapper = in_order) -> Field:
    """Return the product of rain by a coast in two years."""
    world = World(Chain(folder, map=run), ("1991-01-01", "1992-12-31"))
    days = decade(last=1992)
    world.reference("pr", days, np.where(sea(), np.nan, rain(days)))
    coarse = Field(world.chain.made["coarsen/pr"]).read()
    model = world.adjusted("model", "pr", days, 1.3 * np.roll(coarse, 3, axis=0))
    return world.product("model", model, world.analogs("model", {"pr": model}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Field:
    return scarce(tmp_path_factory.mktemp("whole"))


def shuffled(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    order = random.Random(4).sample(range(len(tasks)), len(tasks))
    return [function(tasks[i]) for i in order]


@pytest.mark.parametrize("how", ["shuffled", "threads"])
def test_neither_tiles_nor_order_nor_threads_change_a_bit(
    how: str, whole: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums over the cells of a block, or what one block leaves to the next, would."""
    small_blocks(monkeypatch)
    with engine("threads", threads=3, mem_mb=2200) as threads:
        made = scarce(tmp_path, run=shuffled if how == "shuffled" else threads)
    assert made.chunks != whole.chunks
    for name in ("pr", "n_corrected", "filled"):
        assert np.array_equal(made.store.read(name), whole.store.read(name), equal_nan=True)
    stores = [Path(f.store.url).parents[1] / "analogs/model.zarr" for f in (made, whole)]
    chunks = [sorted(p for p in s.rglob("*") if p.name[0].isdigit()) for s in stores]
    assert len(chunks[0]) > 12
    assert [p.read_bytes() for p in chunks[0]] == [p.read_bytes() for p in chunks[1]]


def test_values_are_where_the_mask_says_and_clips_are_counted(whole: Field) -> None:
    values, clipped = whole.read(), whole.store.read("n_corrected")
    assert np.array_equal(np.isnan(values), np.broadcast_to(sea(), values.shape))
    assert np.nanmin(values) == 0.0
    assert clipped.dtype == np.int32
    assert not clipped[sea()].any()
    assert 0 < clipped.max() < len(values)
    attributes = dict(whole.store.array("pr").attrs)
    assert attributes["ancillary_variables"] == "filled n_corrected"


def test_days_that_the_reference_lacks_leave_no_hole(world: World) -> None:
    """In a cell of the product: the climatology stands in for an analog that is missing there."""
    days = decade(last=1992)
    truth = temperature(days)
    truth[np.random.default_rng(9).random(len(days)) < 0.3, 3, 5] = np.nan
    world.train = ("1991-01-01", "1992-12-31")
    made = world.perfect("tas", days, truth).read()
    assert np.isfinite(made).all()
    np.testing.assert_allclose(made[:, 3, 5].mean(), np.nanmean(truth[:, 3, 5]), atol=0.7)


# --------------------------------------------------------------------------------------
# Seams


def seam_index(values: Values, reference: Values, edges: NDArray[np.int64]) -> float:
    """Return mean |step across lines| over mean |step elsewhere|, over that of the reference."""
    ratios = []
    for field in (values, reference):
        step = np.abs(np.diff(field - field.mean(axis=0), axis=2)).mean(axis=(0, 1))
        inner = np.setdiff1d(np.arange(step.size), edges)
        ratios.append(step[edges].mean() / step[inner].mean())
    return float(ratios[0] / ratios[1])


def test_regions_leave_no_seams(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a region ends its neighbour stands alone. Regions without overlap are seen."""
    days = decade()
    truth = temperature(days)
    world.degrees = 5.0
    made = world.perfect("tas", days, truth)
    bounds = world.chain.made["analogs/perfect"].read("region_bnds")
    edges = np.searchsorted(FINE.lon, np.unique(bounds[:, 2:].round(9))[1:-1]) - 1
    assert edges.size == 4
    assert seam_index(made.read(), truth, edges) <= 1.05

    def hard(axis: analogs.Axis, x: Values) -> Values:
        place = np.clip(np.rint((x - axis.first) / axis.step), 0, axis.n - 1)
        return (np.arange(axis.n)[:, None] == place).astype(float)

    monkeypatch.setattr(analogs.Axis, "shares", hard)
    model = world.chain.made["adjust/perfect"]
    found = world.analogs("hard", {"tas": model})
    cut = world.product("hard", model, found).read()
    middles = np.unique(bounds[:, 2:].mean(axis=1).round(9))
    between = np.searchsorted(FINE.lon, (middles[1:] + middles[:-1]) / 2) - 1
    assert seam_index(cut, truth, between) > 1.1


# --------------------------------------------------------------------------------------
# Signal


@pytest.mark.parametrize(("variable_id", "change"), [("tas", 3.0), ("pr", 1.5)])
def test_a_change_that_was_left_out_is_put_back(
    variable_id: str, change: float, world: World
) -> None:
    """3 K or half as much again, of another weather. Forgotten or mapped away it is none."""
    days, later = decade(), decade(first=2051, last=2054)
    make = temperature if variable_id == "tas" else rain
    world.reference(variable_id, days, make(days))
    hist = world.adjusted(
        "hist", variable_id, days, oracles.coarse_means(make(days, seed=2)).astype("f4")
    )
    steady = Field(hist).read()
    scen = world.adjusted("scen", variable_id, later, steady, trend=change)
    past, future = (
        world.analogs(s, {variable_id: made}) for s, made in (("hist", hist), ("scen", scen))
    )
    made = [
        world.product("hist", hist, past).read(),
        world.product("scen", scen, future, hist=(hist, past)).read(),
    ]
    means = [m.mean(axis=0) for m in made]
    if variable_id == "tas":
        np.testing.assert_allclose(means[1] - means[0], change, atol=0.25)
        assert np.mean(means[1] - means[0]) == pytest.approx(change, abs=0.05)
    else:
        assert np.mean(means[1]) / np.mean(means[0]) == pytest.approx(change, rel=0.02)


@pytest.mark.parametrize(("variable_id", "change"), [("tas", 3.0), ("pr", 1.5)])
def test_the_change_of_a_biased_model_is_kept(
    variable_id: str, change: float, world: World
) -> None:
    """From the model itself, after a gap. Training quantiles of each period's own give none."""
    days, later = decade(), decade(first=2051, last=2054)
    make = temperature if variable_id == "tas" else rain
    world.reference(variable_id, days, make(days))
    model = oracles.coarse_means(make(days, seed=2))
    biased = 1.3 * (model - 285) + 288 if variable_id == "tas" else 1.3 * model
    changed = biased + change if variable_id == "tas" else biased * change
    runs = [
        world.chain.daily("simulation", name, variable_id, axis, COARSE, values)
        for name, axis, values in (("hist", days, biased), ("scen", later, changed))
    ]
    parts = []
    for name in ("hist", "scen"):
        ref = world.chain.made[f"coarsen/{variable_id}"]
        adjusted = world.chain.adjust(name, ref, *runs, train=world.train, target=name, **ADJUST)
        parts.append((adjusted, world.analogs(name, {variable_id: adjusted})))
    means = [
        world.product(f"{i}", *part, hist=parts[0]).read().mean() for i, part in enumerate(parts)
    ]
    if variable_id == "tas":
        assert means[1] - means[0] == pytest.approx(change, abs=0.05)
    else:
        assert means[1] / means[0] == pytest.approx(change, rel=0.02)


# --------------------------------------------------------------------------------------
# Invariants


def test_tasmin_never_exceeds_tasmax(world: World) -> None:
    """Chosen together with tasmax, and made of it. The analogs of both are the same days."""
    days = decade(last=1992)
    world.train = ("1991-01-01", "1992-12-31")
    upper = temperature(days)
    spread = 0.02 + 3 * np.exp(0.6 * weather(days, seed=3))
    models = {}
    for v, truth in (("tasmax", upper), ("dtr", spread)):
        world.reference(v, days, truth)
        coarse = Field(world.chain.made[f"coarsen/{v}"]).read()
        models[v] = world.adjusted(v, v, days, np.roll(coarse, 2, axis=0))
    found = world.analogs("joint", models)
    tasmax = world.product("tasmax", models["tasmax"], found)
    tasmin = world.product(
        "tasmin", models["dtr"], found, tasmax=tasmax.store, variable_id="tasmin"
    )
    lower = tasmin.read()
    assert tasmin.variable_id == "tasmin"
    assert (lower <= tasmax.read()).all()
    assert (tasmax.read() - lower).mean() == pytest.approx(spread.mean(), rel=0.05)
    assert {"weight_tasmax", "weight_dtr"} <= set(found.group.array_keys())


def test_a_season_has_a_product(world: World) -> None:
    """Winters only: windows that reach into the gap find nothing, or the other end of winter."""
    days = oracles.decade("standard", 1991, 1994)
    days = days[np.isin(days.month, (12, 1, 2))][59:-31]
    world.train = ("1991-12-01", "1994-02-28")
    truth = temperature(days).astype("f4")
    made = world.perfect("tas", days, truth, season="DJF", **OWN_DAY)
    assert made.season == {"season": "DJF"}
    np.testing.assert_allclose(made.read(), truth, rtol=0, atol=7e-5)


def test_a_product_converted_to_another_calendar_has_every_day(world: World) -> None:
    """Inserted days repeat the day before; the analogs of 360 days are those of the season."""
    days = decade("360_day", last=1992)
    world.train = ("1991-01-01", "1992-12-31")
    standard = decade("standard", last=1992)
    world.reference("tas", standard, temperature(standard))
    model = world.adjusted("model", "tas", days, oracles.coarse_means(temperature(days, seed=2)))
    found = world.analogs("model", {"tas": model})
    made = world.product("model", model, found, calendar="standard")
    assert made.days.calendar == "standard"
    assert len(made.days) == 731
    assert made.store.attributes["calendar_converted_from"] == "360_day"
    months = [
        np.stack([v[d.month == m].mean(axis=(0, 1, 2)) for m in range(1, 13)])
        for v, d in ((made.read(), made.days), (temperature(standard), standard))
    ]
    np.testing.assert_allclose(months[0], months[1], atol=0.6)
