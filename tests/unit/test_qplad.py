"""Stage `qplad`: the training day of the same rank, and what its fine pattern keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
from chain import Chain, grids
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from finescale import calendars, chunking, qplad
from finescale.calendars import Days
from finescale.engines import engine
from finescale.fields import Field
from finescale.variables import MM_PER_DAY

FREE = {"wet_day": 0.0, "pr_ceiling": 1e9, "dtr_ceiling": 1e9}


def brute_force(
    ref: NDArray[Any], rank: NDArray[Any], ref_days: Days, days: Days, half_window: int
) -> NDArray[np.int64]:
    """Return for each day the training day of the nearest rank, by sorting each window afresh."""
    slots = calendars.standard_slots(ref_days)
    target = calendars.reference_slots(days.calendar)[calendars.slots(days)]
    present = np.unique(slots)
    chosen = np.zeros(rank.shape, np.int64)
    for t in range(len(days)):
        near = np.abs(np.searchsorted(present, slots) - np.searchsorted(present, target[t]))
        near = np.minimum(near, present.size - near) <= half_window
        for cell in range(len(ref)):
            pool = np.flatnonzero(near & ~np.isnan(ref[cell]))
            pool = pool[np.lexsort((pool, ref[cell][pool]))]
            positions = np.arange(1, pool.size + 1) / (pool.size + 1)
            away = np.round(np.abs(positions - rank[t, cell]), 6)
            chosen[t, cell] = pool[np.argmin(away)]  # the first, so the lower of two
    return chosen


@settings(max_examples=20)
@given(st.sampled_from(["noleap", "360_day", "standard"]), st.integers(0, 20), st.booleans())
def test_the_day_chosen_is_that_of_brute_force(
    calendar: str, half_window: int, has_ties: bool
) -> None:
    ref_days = Days.range("1999-01-01", "2002-12-31", "standard")
    days = Days.range("2000-02-20", "2000-03-05", calendar)
    rng = np.random.default_rng(half_window)
    ref = rng.normal(0, 3, (2, len(ref_days))).astype("f4")
    ref = np.round(ref) if has_ties else ref
    ref[:, rng.random(len(ref_days)) < 0.1] = np.nan
    rank = rng.integers(1, 9, (len(days), 2)).astype("f4") / np.float32(9)
    found = qplad.choose(ref, rank, ref_days, days, half_window=half_window, positions="weibull")
    assert np.array_equal(found, brute_force(ref, rank, ref_days, days, half_window))


@pytest.mark.parametrize("calendar", ["noleap", "standard", "360_day"])
def test_area_means_are_the_adjusted_values(calendar: str, chain: Chain) -> None:
    """Fine less coarse averages to nothing; a pattern of another day than the coarse one does not.

    With the fine day one off, the means differ by kelvins.
    """
    fine, coarse = grids()
    days, own = oracles.decade(), oracles.decade(calendar)
    truth = oracles.temperature(days, fine)
    model = 288 + 1.4 * (oracles.coarse_means(oracles.temperature(own, fine, seed=2)) - 285)
    reference = chain.daily("reference", "means", "tas", days, fine, truth, layout="tiles")
    hist = chain.daily("simulation", "means", "tas", own, coarse, model)
    made = chain.qplad("means", reference, hist).read().astype(float)
    adjusted = Field(chain.made["adjust/means"]).read()
    oracles.close(oracles.coarse_means(made), adjusted, 1e-4, "area means [K]")


def test_area_means_of_rain_are_the_adjusted_values(chain: Chain) -> None:
    """Ratios to a coarse value average to one, weighted by area."""
    fine, coarse = grids()
    days = oracles.decade()
    reference = chain.daily(
        "reference", "rain", "pr", days, fine, oracles.rain(days, fine), layout="tiles"
    )
    model = 1.5 * oracles.coarse_means(oracles.rain(days, fine, seed=2))
    hist = chain.daily("simulation", "rain", "pr", days, coarse, model)
    made = chain.qplad("rain", reference, hist, settings=FREE).read().astype(float)
    adjusted = Field(chain.made["adjust/rain"]).read().astype(float)
    wet = adjusted > 0
    oracles.close(oracles.coarse_means(made)[wet] / adjusted[wet], 1.0, 1e-4, "area means")
    assert not made[np.repeat(np.repeat(~wet, 4, axis=1), 4, axis=2)].any(), "dry days are not dry"


def test_a_perfect_model_gives_the_reference_itself(chain: Chain) -> None:
    """Its ranks are those of the reference, so each day is its own analog.

    A rank that is one off takes another day: the weather of the fine cells is lost.
    """
    fine, coarse = grids()
    days = oracles.decade()
    truth = oracles.temperature(days, fine)
    reference = chain.daily("reference", "self", "tas", days, fine, truth, layout="tiles")
    hist = chain.daily("simulation", "self", "tas", days, coarse, oracles.coarse_means(truth))
    made = chain.qplad("self", reference, hist).read()
    same = np.abs(made - truth) < 1e-3
    assert same.mean() > 0.999, f"{same.mean():.4f} of the values are the reference's"


def test_a_change_of_a_biased_model_is_kept(chain: Chain) -> None:
    """+3 K of a model that is 2 K too warm and too variable; QM would make 1.9 K of it."""
    fine, coarse = grids()
    days, later = oracles.decade("noleap"), oracles.decade("noleap", 2011, 2020)
    truth = oracles.temperature(days, fine)
    model = 2 + 1.6 * (oracles.coarse_means(truth) - 285) + 285
    reference = chain.daily("reference", "warm", "tas", days, fine, truth, layout="tiles")
    past = chain.daily("simulation", "past", "tas", days, coarse, model)
    future = chain.daily("simulation", "future", "tas", later, coarse, model + 3)
    before, after = (
        chain.qplad(f"warm-{target}", reference, past, future, target=target).read()
        for target in ("hist", "scen")
    )
    change = oracles.coarse_means((after - before).astype(float)).mean(axis=0)
    oracles.close(change, 3.0, 0.05, "change [K]")


def test_there_is_no_step_between_historical_and_scenario(chain: Chain) -> None:
    """Without padding, the last years of one and the first of the other share no window."""
    _, grid = grids()
    days = oracles.decade("noleap", 2000, 2019)
    split = int(np.searchsorted(days.year, 2015))
    model = oracles.temperature(days, grid, warming=2.0) + 2.0
    truth = oracles.temperature(days[:split], grid, seed=3, warming=2.0)
    reference = chain.daily("reference", "step", "tas", days[:split], grid, truth, layout="tiles")
    past = chain.daily("simulation", "past", "tas", days[:split], grid, model[:split])
    future = chain.daily("simulation", "future", "tas", days[split:], grid, model[split:])
    train = ("2000-01-01", "2014-12-31")
    before, after = (
        chain.qplad(f"step-{target}", reference, past, future, target=target, train=train).read()
        for target in ("hist", "scen")
    )
    late = days[:split].year >= 2010
    step = after.mean() - before[late].mean()
    wanted = model[split:].mean() - model[:split][late].mean()
    oracles.close(step, wanted, 0.1, "step at 2014/2015 beyond the GCM's [K]")


def test_light_rain_is_dry_and_ceilings_are_counted(chain: Chain) -> None:
    fine, coarse = grids()
    days = oracles.decade("noleap", 1991, 1993)
    reference = chain.daily(
        "reference", "wet", "pr", days, fine, oracles.rain(days, fine), layout="tiles"
    )
    model = oracles.coarse_means(oracles.rain(days, fine, seed=2))
    hist = chain.daily("simulation", "wet", "pr", days, coarse, model)
    free = chain.qplad("wet", reference, hist, train=("1991-01-01", "1993-12-31"), settings=FREE)
    made = chain.qplad(
        "capped", reference, hist, train=("1991-01-01", "1993-12-31"),
        settings={"wet_day": 1.0, "pr_ceiling": 40.0},
    )  # fmt: skip
    amounts, raw = made.read() / MM_PER_DAY, free.read() / MM_PER_DAY
    assert not ((amounts > 0) & (amounts < 0.999)).any()
    assert amounts.max() <= 40.001 < raw.max()
    assert np.array_equal(made.store.read("n_corrected"), (raw > 40.0).sum(axis=0))


def test_tasmin_never_exceeds_tasmax_and_the_sea_has_no_values(chain: Chain) -> None:
    fine, coarse = grids()
    days = oracles.decade("noleap", 1991, 1993)
    rng = np.random.default_rng(1)
    upper, dtr = (
        oracles.temperature(days, fine),
        rng.gamma(0.7, 2.0, (len(days), *fine.shape)) + 0.02,
    )
    upper[:, :, 9:] = dtr[:, :, 9:] = np.nan
    stores = {}
    for name, values in (("tasmax", upper), ("dtr", dtr)):
        model = oracles.coarse_means(np.nan_to_num(values, nan=np.nanmean(values)))
        stores[name] = (
            chain.daily("reference", name, name, days, fine, values, layout="tiles"),
            chain.daily("simulation", name, name, days, coarse, model),
        )
    train = ("1991-01-01", "1993-12-31")
    tasmax = chain.qplad("tasmax", *stores["tasmax"], train=train)
    tasmin = chain.qplad(
        "tasmin", *stores["dtr"], train=train, tasmax=tasmax.store, variable_id="tasmin"
    )
    lower, high = tasmin.read(), tasmax.read()
    assert np.array_equal(np.isnan(lower), np.isnan(upper))
    assert not (lower > high).any()


def test_a_missing_fine_day_has_no_pattern(chain: Chain) -> None:
    """The cell then takes the coarse value of the day, not NaN."""
    base = np.array([[280.0], [281.0]], np.float32)
    fine = np.array([[282.0, np.nan], [280.0, 283.0]], np.float32)
    found = qplad.departures(fine, base, np.array([0, 0]), is_ratio=False, dry=0.0)
    assert found.tolist() == [[2.0, 0.0], [-1.0, 2.0]]


@pytest.mark.parametrize("threads", [1, 2])
def test_products_are_the_same_whatever_the_blocks(
    threads: int, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine, coarse = grids(n_lat=16, n_lon=24)
    days = oracles.decade("noleap", 1991, 1992)
    truth, train = oracles.rain(days, fine), ("1991-01-01", "1992-12-31")
    model = oracles.coarse_means(oracles.rain(days, fine, seed=5))
    with engine("threads", threads=threads, mem_mb=2000) as mapper:
        made = []
        for name, tile in (("one", 48), ("many", 7)):
            monkeypatch.setattr(chunking, "TILE", tile)
            monkeypatch.setattr(chunking, "SLAB", 366 if tile == 48 else 100)
            work = Chain(chain.folder / name, map=mapper)
            reference = work.daily("reference", "r", "pr", days, fine, truth, layout="tiles")
            hist = work.daily("simulation", "s", "pr", days, coarse, model)
            made.append(work.qplad("p", reference, hist, train=train).read())
    assert np.array_equal(*made)
