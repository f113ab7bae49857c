"""Stage `adjust` against a plain implementation of the whole step, and its contract."""

from __future__ import annotations

import calendar as months
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pytest
from chain import Chain, grids
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gamma

from finescale import adjust, jitter
from finescale.adjust import QuantileMapping, Series
from finescale.calendars import Days
from finescale.errors import ContractError, SourceError, StoreError
from finescale.fields import Field
from finescale.store import open_store
from finescale.variables import MM_PER_DAY

Values = NDArray[np.float64]
TRAIN = (1991, 2000)
TODAY = QuantileMapping(15, "weibull", "parametric", 9, 0.05, 3)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


# --------------------------------------------------------------------------------------
# The whole step, plainly


def plain_trend(series: pd.Series, train: NDArray[np.bool_]) -> Values:
    """Return the trend of an axis without gaps, by tables of year and month."""
    dates: Any = series.index
    table = series.groupby([dates.year, dates.month]).mean().unstack()
    trained = series[train]
    base = trained.groupby([trained.index.year, trained.index.month]).mean().unstack().mean()
    smooth = (table - base).rolling(9, center=True).mean().bfill().ffill().stack()
    middles = [
        pd.Timestamp(year, month, 1)
        + pd.Timedelta(days=(months.monthrange(year, month)[1] - 1) / 2)
        for year, month in smooth.index
    ]
    return np.interp(dates.asi8, pd.DatetimeIndex(middles).as_unit(dates.unit).asi8, smooth)


def day_of_leap_year(dates: Any) -> NDArray[np.int64]:
    return np.array([pd.Timestamp(2000, d.month, d.day).day_of_year - 1 for d in dates])


def weibull_shape(values: Values) -> float:
    variance = (values.std() / values.mean()) ** 2
    return brentq(lambda k: gamma(1 + 2 / k) / gamma(1 + 1 / k) ** 2 - 1 - variance, 0.1, 50)


def plain_map(ref: Values, hist: Values, x: float, *, is_rain: bool, wet: float) -> float:
    """Return the mapped value of one day from the training values of its window."""
    ref, hist = np.sort(ref), np.sort(hist)
    n, m = len(hist), len(ref)
    tau = np.interp(x, hist, np.arange(1, n + 1) / (n + 1))
    y = float(np.interp(tau, np.arange(1, m + 1) / (m + 1), ref))
    if hist[0] <= x <= hist[-1]:
        return y
    fitted_ref, fitted_hist = (v[v > wet] if is_rain else v for v in (ref, hist))
    if is_rain and x < hist[0]:
        k_ref, k_hist = weibull_shape(fitted_ref), weibull_shape(fitted_hist)
        return y * (x / hist[0]) ** (k_hist / k_ref)
    return y + fitted_ref.std() / fitted_hist.std() * (x - (hist[0] if x < hist[0] else hist[-1]))


def plain_step(ref: pd.Series, sim: pd.Series, *, noise: tuple[Values, Values] | None) -> Values:
    """Return `sim` adjusted; `noise` (of ref and of sim) makes it rain."""
    is_rain = noise is not None
    wet = 0.05 * MM_PER_DAY
    train = np.array([TRAIN[0] <= d.year <= TRAIN[1] for d in sim.index])
    ref_train = np.array([TRAIN[0] <= d.year <= TRAIN[1] for d in ref.index])
    hist, back = sim[train], np.zeros(len(sim))
    trained = ref[ref_train]
    if noise is None:
        trained = trained - plain_trend(trained, np.ones(len(trained), bool))
        hist = hist - plain_trend(hist, np.ones(len(hist), bool))
        back = plain_trend(sim, train)
        sim = sim - back
    else:
        trained = trained.where(trained >= wet, wet * noise[0][ref_train])
        sim = sim.where(sim >= wet, wet * noise[1])
        hist = sim[train]
    days = [day_of_leap_year(s.index) for s in (trained, hist, sim)]
    out = np.empty(len(sim))
    for t, x in enumerate(sim.to_numpy()):
        near = [np.abs((d - days[2][t] + 183) % 366 - 183) <= 15 for d in days[:2]]
        windows = [s.to_numpy()[chosen] for s, chosen in zip((trained, hist), near, strict=True)]
        out[t] = plain_map(*windows, x, is_rain=is_rain, wet=wet) + back[t]
    return np.where(out < wet, 0.0, out) if is_rain else out


def index_of(days: Days) -> Any:
    return pd.DatetimeIndex([pd.Timestamp(days.isoformat(i)) for i in range(len(days))])


@pytest.mark.parametrize("variable_id", ["tas", "pr"])
def test_the_step_equals_a_plain_implementation(variable_id: str) -> None:
    """Trend, windows, mapping, tails, noise and putting back, all at once, on one cell.

    The reference starts earlier than it is trained on, the model goes on for three years after;
    the axis is standard, so windows meet 29 February.
    """
    _, grid = grids()
    days, longer = oracles.decade("standard", 1989, 2000), oracles.decade("standard", 1991, 2003)
    make = oracles.rain if variable_id == "pr" else oracles.temperature
    options: dict[str, Any] = {} if variable_id == "pr" else {"warming": 3.0}
    truth = make(days, grid, **options)[:, :1, 0]
    model = 1.3 * make(longer, grid, seed=4, **options)[:, :1, 0]
    model[-40:] *= 1.4  # beyond the training range
    place = {"lat": np.array([41.0]), "lon": np.array([-5.0])}
    sides = [
        Series(values, axis, (axis.year >= TRAIN[0]) & (axis.year <= TRAIN[1]))
        for values, axis in ((truth, days), (model, longer))
    ]
    made = adjust.adjust_series(*sides, TODAY, variable_id=variable_id, **place)[:, 0]
    noise = tuple(jitter.uniform(3, "pr", *place.values(), s.days)[:, 0] for s in sides)
    wanted = plain_step(
        *(pd.Series(s.values[:, 0], index_of(s.days)) for s in sides),
        noise=noise if variable_id == "pr" else None,
    )
    scale = MM_PER_DAY if variable_id == "pr" else 1.0
    oracles.close(made / scale, wanted / scale, 1e-6, "adjusted")


# --------------------------------------------------------------------------------------
# The stage


def test_historical_and_scenario_are_parts_of_one_mapping(chain: Chain) -> None:
    """Padding each experiment with the other: no window ends where historical does."""
    _, grid = grids()
    days = oracles.decade("noleap", 1991, 2010)
    split = int(np.searchsorted(days.year, 2001))
    truth = oracles.temperature(days[:split], grid)
    model = oracles.temperature(days, grid, seed=2, warming=2.0) + 3.0
    ref = chain.daily("coarsen", "obs", "tas", days[:split], grid, truth)
    past = chain.daily("simulation", "past", "tas", days[:split], grid, model[:split])
    future = chain.daily("simulation", "future", "tas", days[split:], grid, model[split:])
    whole = chain.daily("simulation", "whole", "tas", days, grid, model)
    parts = [
        Field(chain.adjust("past", ref, past, future, target="hist")),
        Field(chain.adjust("future", ref, past, future)),
    ]
    joined = np.concatenate([part.read() for part in parts])
    assert np.array_equal(joined, Field(chain.adjust("whole", ref, whole)).read())
    assert [len(part.days) for part in parts] == [split, len(days) - split]
    alone = Field(chain.adjust("alone", ref, past)).read()
    assert not np.array_equal(alone, parts[0].read())


def test_training_days_alone_decide_the_mapping(chain: Chain) -> None:
    """Reference days outside the training period change nothing."""
    _, grid = grids()
    days = oracles.decade("noleap", 1989, 2000)
    truth, model = oracles.rain(days, grid), oracles.rain(days, grid, seed=2)
    hist = chain.daily("simulation", "gcm", "pr", days, grid, model)
    ref = chain.daily("coarsen", "obs", "pr", days, grid, truth)
    truth[days.year < 1991] *= 5.0
    other = chain.daily("coarsen", "wetter", "pr", days, grid, truth)
    made = [Field(chain.adjust(name, r, hist)).read() for name, r in (("a", ref), ("b", other))]
    assert np.array_equal(*made)
    train = ("1989-01-01", "2000-12-31")
    assert not np.array_equal(Field(chain.adjust("c", other, hist, train=train)).read(), made[1])


def test_a_cell_without_values_is_flagged(chain: Chain) -> None:
    _, grid = grids()
    days = oracles.decade("noleap")
    truth, model = oracles.temperature(days, grid), oracles.temperature(days, grid, seed=2)
    truth[:, 0, 1] = np.nan  # sea
    model[:, 1, 2] = np.nan
    ref = chain.daily("coarsen", "obs", "tas", days, grid, truth)
    made = chain.adjust("sea", ref, chain.daily("simulation", "gcm", "tas", days, grid, model))
    valid = np.ones(grid.shape, bool)
    valid[0, 1] = valid[1, 2] = False
    assert np.array_equal(made.read("valid") == 1, valid)
    assert np.array_equal(np.isnan(made.read("tas")), np.broadcast_to(~valid, truth.shape))


def test_a_model_with_a_gap_is_refused(chain: Chain) -> None:
    """A day without a value would become a hole in every product cell around it."""
    _, grid = grids()
    days = oracles.decade("noleap")
    ref = chain.daily("coarsen", "obs", "tas", days, grid, oracles.temperature(days, grid))
    model = oracles.temperature(days, grid, seed=2)
    model[31 + 27, 1, 2] = np.nan
    hist = chain.daily("simulation", "gcm", "tas", days, grid, model)
    message = (
        rf"{hist.url}: `tas` is missing on 1991-02-28 \(lat {grid.lat[1]:g}, lon {grid.lon[2]:g}\)"
    )
    with pytest.raises(ContractError, match=message):
        chain.adjust("gap", ref, hist)
    with pytest.raises(StoreError):
        open_store(str(chain.folder / "adjust/gap.zarr"))


def test_training_days_outside_the_data_are_refused(chain: Chain) -> None:
    _, grid = grids()
    days = oracles.decade("noleap", 1991, 1992)
    ref = chain.daily("coarsen", "obs", "tas", days, grid, oracles.temperature(days, grid))
    with pytest.raises(SourceError, match=r"no day of 2001-01-01..2002-12-31.*1991-01-01"):
        chain.adjust("late", ref, ref, train=("2001-01-01", "2002-12-31"))


def test_the_store_says_how_it_was_made(chain: Chain) -> None:
    _, grid = grids()
    days = oracles.decade("noleap")
    ref = chain.daily("coarsen", "obs", "tas", days, grid, oracles.temperature(days, grid))
    made = chain.adjust("said", ref, ref)
    assert made.attributes["adjustment"] == "qm"
    assert made.attributes["train"] == ["1991-01-01", "2000-12-31"]
    assert dict(made.array("tas").attrs)["units"] == "K"
