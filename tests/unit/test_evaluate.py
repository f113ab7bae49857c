"""Stage `evaluate`: what numpy says of the opened stores, and every broken rule is counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from chain import Chain, grids
from numpy.typing import NDArray
from oracles import bilinear, rain, temperature

from finescale import chunking, evaluate, fields, interpolate, scores
from finescale.blocks import tiles
from finescale.calendars import Days
from finescale.evaluate import COUNTS, expected_days
from finescale.fields import Field
from finescale.store import Contract, Store
from finescale.variables import MM_PER_DAY

FINE, COARSE = grids()
DAYS = Days.range("1999-01-01", "2000-12-31", "noleap")
TRUE_DAYS = Days.range("1998-07-01", "2000-12-31", "standard")
PERIOD = ("1999-01-01", "2000-12-31")
LAND = np.random.default_rng(5).random(FINE.shape) < 0.7
FACETS = {
    "source_id": "GCM", "experiment_id": "historical", "member_id": "r1i1p1f1", "domain": "all",
    "reference": "OBS", "method": "bcsd", "train": "1991-2000", "period": "1999-2000",
}  # fmt: skip


def unchecked(
    chain: Chain, name: str, variable_id: str, days: Days, values: NDArray[Any], **facets: str
) -> Store:
    """Return a store whose values no contract looked at, as damage or a bug would leave it."""
    work = chain.job("bcsd", name, variable_id=variable_id, **facets)
    arrays = fields.declare(variable_id, days, FINE, layout="tiles", nan="allowed")
    arrays[variable_id] = replace(arrays[variable_id], contract=Contract(nan="allowed"))
    every = slice(0, len(days))
    work.fill(
        work.create(arrays, {}),
        lambda t: [(variable_id, (every, t.lat, t.lon), values[:, t.lat, t.lon].astype("f4"))],
        tiles(values.shape, arrays[variable_id].chunks),
    )
    return chain.keep(work)


def made(days: Days, variable_id: str, seed: int) -> NDArray[np.float64]:
    """Return fine values with the sea left out."""
    values = (
        rain(days, FINE, seed=seed) if variable_id == "pr" else temperature(days, FINE, seed=seed)
    )
    return np.where(LAND, values, np.nan)


def coarse(days: Days, variable_id: str, seed: int) -> NDArray[np.float64]:
    return (
        rain(days, COARSE, seed=seed)
        if variable_id == "pr"
        else temperature(days, COARSE, seed=seed)
    )


class World:
    """A product, a reference and a simulation of one variable; `run` evaluates them."""

    def __init__(self, chain: Chain, variable_id: str = "tas", days: Days = DAYS) -> None:
        self.chain, self.variable_id, self.days = chain, variable_id, days
        self.product_values = made(days, variable_id, 1)
        self.truth = made(TRUE_DAYS, variable_id, 2)
        self.gcm = coarse(days, variable_id, 3)
        self.reference = chain.daily(
            "reference", "obs", variable_id, TRUE_DAYS, FINE, self.truth, layout="tiles"
        )
        self.weights = chain.weights("up", COARSE, FINE, "bilinear")

    def product(self, name: str, values: NDArray[Any]) -> Store:
        return unchecked(self.chain, name, self.variable_id, self.days, values, **FACETS)

    def simulation(self, name: str, values: NDArray[Any]) -> Store:
        return self.chain.daily("simulation", name, self.variable_id, self.days, COARSE, values)

    def run(self, name: str = "e", **given: Any) -> Store:
        product = given.pop("product", None) or self.product(name, self.product_values)
        work = self.chain.job("evaluate", name, variable_id=self.variable_id, **FACETS)
        settings: dict[str, Any] = {"wet_day": 1.0, "period": None, "product_period": PERIOD}
        evaluate.run(
            work,
            product=product,
            reference=self.reference,
            simulation=self.simulation(name, self.gcm),
            weights=self.weights,
            **{**settings, **given},
        )
        return self.chain.keep(work)


def number(days: Days) -> NDArray[np.int64]:
    return days.year.astype(np.int64) * 10000 + days.month.astype(np.int64) * 100 + days.day


def mean_length(is_it: NDArray[np.bool_], days: Days) -> float:
    """Return the mean length of spells, which begin where the day before is not or is missing."""
    missing = np.diff(days.ordinal, prepend=-1) != 1
    n = (is_it & (missing | ~np.roll(is_it, 1))).sum()
    return float(is_it.sum() / n) if n else np.nan


def direct(x: NDArray[Any], y: NDArray[Any], days: Days, wet: float) -> dict[str, float]:
    """Return the scores of one cell by plain numpy; x and y float32 on the same days."""
    x, y = x.astype(float), y.astype(float)
    month = days.year.astype(int) * 12 + days.month
    monthly = [np.array([v[month == m].mean() for m in np.unique(month)]) for v in (x, y)]
    return {
        "mean": x.mean(),
        "reference_mean": y.mean(),
        "bias": x.mean() - y.mean(),
        "relative_bias": x.mean() / y.mean() - 1,
        "rmse": np.sqrt(((x - y) ** 2).mean()),
        "correlation": np.corrcoef(x, y)[0, 1],
        "seasonal_correlation": np.corrcoef(*monthly)[0, 1],
        "std_ratio": x.std() / y.std(),
        "p1_bias": np.percentile(x, 1) - np.percentile(y, 1),
        "p99_bias": np.percentile(x, 99) - np.percentile(y, 99),
        "wet_day_ratio": (x >= wet).sum() / (y >= wet).sum(),
        "wet_spell_ratio": mean_length(x >= wet, days) / mean_length(y >= wet, days),
        "dry_spell_ratio": mean_length(x < wet, days) / mean_length(y < wet, days),
        "n_days": len(x),
    }


@pytest.mark.parametrize("variable_id", ["tas", "pr"])
@pytest.mark.parametrize("period", [None, ("1999-03-01", "2000-06-30")], ids=["all", "period"])
def test_scores_equal_numpy_on_the_opened_stores(
    variable_id: str, period: Any, chain: Chain
) -> None:
    """The dates both have: 29 February 2000 is in the reference alone, and 1998 is too."""
    world = World(chain, variable_id)
    opened = world.run(period=period, wet_day=2.0)
    x, y, gcm = (Field(chain.made[n]).read() for n in ("bcsd/e", "reference/obs", "simulation/e"))
    raw = bilinear(gcm.astype(float), COARSE, FINE).astype("f4")
    first, last = (19990301, 20000630) if period else (0, 99999999)
    common = np.intersect1d(number(DAYS), number(TRUE_DAYS))
    common = common[(common >= first) & (common <= last)]
    mine, theirs = np.isin(number(DAYS), common), np.isin(number(TRUE_DAYS), common)
    assert mine.sum() == theirs.sum() == (730 if period is None else 487)
    names = [str(n) for n in opened.read("score_name")]
    assert ("wet_day_ratio" in names) == (variable_id == "pr")
    for array, values in (("score", x), ("baseline", raw)):
        found = opened.read(array)
        assert np.array_equal(np.isnan(found[names.index("mean")]), ~LAND)
        for i, j in np.argwhere(LAND)[::11]:
            wanted = direct(values[mine, i, j], y[theirs, i, j], DAYS[mine], 2.0 * MM_PER_DAY)
            for n, name in enumerate(names):
                tolerance = 1e-4 if variable_id == "tas" else 1e-4 * max(abs(wanted[name]), 1e-6)
                assert found[n, i, j] == pytest.approx(wanted[name], abs=tolerance), (array, name)


@pytest.mark.parametrize("variable_id", ["tas", "pr"])
def test_the_moments_of_all_blocks_make_the_pattern_correlation_of_whole_fields(
    variable_id: str, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "TILE", 5)
    opened = World(chain, variable_id).run()
    x, y, gcm = (Field(chain.made[n]).read() for n in ("bcsd/e", "reference/obs", "simulation/e"))
    raw = bilinear(gcm.astype(float), COARSE, FINE).astype("f4")
    truth = y[np.isin(number(TRUE_DAYS), number(DAYS))].astype(float)
    area = FINE.cell_area()[LAND]
    for array, values in (("pattern", x), ("pattern_raw", raw)):
        table = opened.read(array)
        assert table.shape[:2] == (6, len(DAYS)) and table[0, 0].size > 1
        a, b = values.astype(float)[:, LAND], truth[:, LAND]
        if variable_id == "tas":
            for month in range(1, 13):
                for v in (a, b):
                    v[DAYS.month == month] -= v[DAYS.month == month].mean(axis=0)
        each = []
        for day in range(len(DAYS)):
            if np.ptp(b[day]):
                covariance = np.cov(a[day], b[day], aweights=area)
                size = np.sqrt(covariance[0, 0] * covariance[1, 1])
                each.append(covariance[0, 1] / size if size else 0.0)
        found = scores.pattern_correlation(table.sum(axis=(2, 3)))
        assert found == pytest.approx(np.mean(each), abs=1e-5), array


def test_cycles_are_means_of_calendar_months(chain: Chain) -> None:
    world = World(chain)
    opened = world.run()
    x = Field(chain.made["bcsd/e"]).read().astype(float)
    for month in (1, 2, 12):
        expected = x[DAYS.month == month].mean(axis=0)
        found = opened.read("cycle")[month - 1]
        assert np.allclose(found[LAND], expected[LAND], rtol=0, atol=1e-4)
        assert np.isnan(found[~LAND]).all()
    raw = bilinear(world.gcm, COARSE, FINE)[DAYS.month == 7].mean(axis=0)
    assert np.allclose(opened.read("cycle_raw")[6][LAND], raw[LAND], rtol=0, atol=1e-3)


def test_the_change_is_that_of_product_and_gcm(chain: Chain) -> None:
    """Per cell and month: product + 2 K in all months, GCM + 3 K in January alone."""
    world = World(chain)
    january = (DAYS.month == 1)[:, None, None]
    opened = world.run(
        product_hist=world.product("past", world.product_values - 2.0),
        simulation_hist=world.simulation("past", world.gcm - np.where(january, 3.0, 0.0)),
    )
    assert np.allclose(opened.read("change")[:, LAND], 2.0, atol=1e-3)
    raw = opened.read("change_raw")[:, LAND]
    assert np.allclose(raw[0], 3.0, atol=1e-3)
    assert np.abs(raw[1:]).max() < 1e-3
    assert np.isnan(opened.read("change")[:, ~LAND]).all()


def test_the_change_of_rain_is_relative_and_undefined_in_dry_months(chain: Chain) -> None:
    world = World(chain, "pr")
    past = world.product_values / 1.5
    past[DAYS.month == 8] = np.where(LAND, 0.09 * MM_PER_DAY, np.nan)
    opened = world.run(
        product_hist=world.product("past", past),
        simulation_hist=world.simulation("past", world.gcm / 0.8),
    )
    wet = np.arange(12) != 7
    assert np.allclose(opened.read("change")[wet][:, LAND], 0.5, atol=1e-4)
    assert np.isnan(opened.read("change")[7]).all()
    assert np.allclose(opened.read("change_raw")[:, LAND], -0.2, atol=1e-4)
    assert dict(opened.array("change").attrs)["units"] == "1"


# --------------------------------------------------------------------------------------
# Invariants


def counts(opened: Store) -> dict[str, int]:
    return dict(zip(COUNTS, opened.read("counts").sum(axis=(1, 2)).tolist(), strict=True))


def test_a_sound_product_breaks_no_rule(chain: Chain) -> None:
    sea = int((~LAND).sum()) * len(DAYS)
    assert counts(World(chain).run()) == {
        "n_values": len(DAYS) * FINE.size, "n_nan": sea, "n_missing": 0, "n_stray": 0,
        "n_below": 0, "n_above": 0, "n_tasmin_above_tasmax": 0, "n_corrected": 0,
    }  # fmt: skip


def test_each_broken_rule_is_counted_where_it_is_broken(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "TILE", 6)
    world = World(chain)
    (a, b), (c, d) = np.argwhere(LAND)[[0, -1]]
    sea = tuple(np.argwhere(~LAND)[0])
    world.product_values[3, a, b] = 149.0
    world.product_values[4, a, b] = 0.0
    world.product_values[3, c, d] = 401.0
    world.product_values[9, c, d] = np.nan
    world.product_values[9, sea[0], sea[1]] = 285.0
    opened = world.run()
    assert counts(opened) | {"n_values": 0, "n_nan": 0} == {
        "n_values": 0, "n_nan": 0, "n_missing": 1, "n_stray": 1, "n_below": 2, "n_above": 1,
        "n_tasmin_above_tasmax": 0, "n_corrected": 0,
    }  # fmt: skip
    table = opened.read("counts")
    assert table.shape == (len(COUNTS), 2, 2)
    below = table[COUNTS.index("n_below")]
    assert below[a // 4, b // 6] == 2 and below.sum() == 2


def test_tasmin_is_held_against_its_tasmax(chain: Chain) -> None:
    world = World(chain, "tasmin")
    upper = world.product_values + 1.0
    cells = np.argwhere(LAND)[:3]
    for i, j in cells:
        upper[7, i, j] -= 1.5
    tasmax = unchecked(chain, "tasmax", "tasmax", DAYS, upper, **FACETS)
    assert counts(world.run(tasmax=tasmax))["n_tasmin_above_tasmax"] == 3
    assert counts(world.run(name="alone"))["n_tasmin_above_tasmax"] == 0


def test_scores_do_not_depend_on_the_blocks(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = World(chain).run()
    monkeypatch.setattr(chunking, "TILE", 5)
    monkeypatch.setattr(chunking, "SLAB", 100)
    cut = World(Chain(chain.folder / "cut")).run()
    for name in ("score", "baseline", "cycle", "cycle_raw", "cycle_reference"):
        assert np.array_equal(whole.read(name), cut.read(name), equal_nan=True), name
    for name in ("pattern", "pattern_raw"):
        sums = [opened.read(name).sum(axis=(2, 3)) for opened in (whole, cut)]
        assert np.allclose(*sums, rtol=1e-9, atol=1e-9 * np.abs(sums[0]).max()), name


# --------------------------------------------------------------------------------------
# Time steps


@pytest.mark.parametrize(
    ("calendar", "first", "last", "period", "n"),
    [
        ("standard", "1999-01-01", "2000-12-31", ("1999-01-01", "2000-12-31"), 731),
        ("noleap", "1999-01-01", "2000-12-31", ("1999-01-01", "2000-12-31"), 730),
        ("360_day", "1999-01-01", "2000-12-30", ("1999-01-01", "2000-12-31"), 720),
        ("360_day", "1999-01-01", "2000-12-30", ("1999-01-01", "2000-12-30"), 720),
        ("360_day", "1999-03-30", "2000-02-30", ("1999-03-30", "2000-02-30"), 331),
        ("noleap", "2000-02-01", "2000-02-28", ("2000-02-01", "2000-02-29"), 28),
    ],
)
def test_the_days_of_a_period_are_counted_in_the_calendar(
    calendar: str, first: str, last: str, period: Any, n: int, chain: Chain
) -> None:
    days = Days.range(first, last, calendar)
    values = np.full((len(days), *FINE.shape), 285.0)
    stored = Field(chain.daily("bcsd", "p", "tas", days, FINE, values, layout="tiles"))
    assert len(days) == n
    assert expected_days(stored, period) == n


def test_a_product_that_lacks_days_is_noticed(chain: Chain) -> None:
    world = World(chain, days=DAYS[:-10])
    attributes = world.run().attributes
    assert (attributes["n_time"], attributes["n_time_expected"]) == (720, 730)


def test_a_seasonal_product_may_lack_seasons_but_no_days_of_one(chain: Chain) -> None:
    whole = Days.range("1997-12-01", "2002-02-28", "noleap")
    winters = whole[np.isin(whole.month, [12, 1, 2])]
    gap = winters[
        (winters.ordinal < winters.ordinal[90]) | (winters.ordinal > winters.ordinal[179])
    ]
    for name, days in (("whole", winters), ("gap", gap), ("short", winters[:-3])):
        values = np.full((len(days), *FINE.shape), 285.0)
        stored = Field(
            chain.daily("bcsd", name, "tas", days, FINE, values, layout="tiles", season="DJF")
        )
        expected = {"whole": 450, "gap": 360, "short": 450}[name]
        assert expected_days(stored, ("1997-12-01", "2002-02-28")) == expected, name


@pytest.mark.parametrize("calendar", ["standard", "noleap", None])
def test_a_converted_product_has_all_its_days(calendar: str | None, chain: Chain) -> None:
    """Its period ends on 30 December, as the GCM's; its own axis ends a day later."""
    days = Days.range("1999-01-01", "2000-12-30", "360_day")
    simulation = chain.daily("simulation", "g", "tas", days, COARSE, temperature(days, COARSE))
    truth = chain.daily(
        "reference", "r", "tas", TRUE_DAYS, FINE, temperature(TRUE_DAYS, FINE), layout="tiles"
    )
    work = chain.job("interpolate", "converted", variable_id="tas")
    interpolate.run(
        work,
        simulation=simulation,
        climatology=chain.climatology("r", truth, ("1999-01-01", "2000-12-31")),
        weights=chain.weights("up", COARSE, FINE, "bilinear"),
        variable_id="tas",
        calendar=calendar,
        attributes={},
    )
    product = Field(chain.keep(work))
    n = {"standard": 731, "noleap": 730, None: 720}[calendar]
    assert len(product.days) == n
    assert expected_days(product, ("1999-01-01", "2000-12-30")) == n
