"""Stage `adjust` against a plain implementation of the whole step, and its contract."""

from __future__ import annotations

import calendar as months
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pytest
from chain import Chain, grids
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import gamma

from finescale import adjust, epochs, jitter
from finescale.adjust import Adjusted, QuantileMapping, Series
from finescale.calendars import Days
from finescale.errors import ContractError, SourceError, StoreError
from finescale.fields import Field
from finescale.grids import Grid
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


def plain_map(ref: Values, hist: Values, x: float, *, is_ratio: bool, wet: float) -> float:
    """Return the mapped value of one day from the training values of its window."""
    ref, hist = np.sort(ref), np.sort(hist)
    n, m = len(hist), len(ref)
    tau = np.interp(x, hist, np.arange(1, n + 1) / (n + 1))
    y = float(np.interp(tau, np.arange(1, m + 1) / (m + 1), ref))
    if hist[0] <= x <= hist[-1]:
        return y
    fitted_ref, fitted_hist = (v[v > wet] if is_ratio else v for v in (ref, hist))
    if is_ratio and x < hist[0]:
        return y * (x / hist[0]) ** (weibull_shape(fitted_hist) / weibull_shape(fitted_ref))
    return y + fitted_ref.std() / fitted_hist.std() * (x - (hist[0] if x < hist[0] else hist[-1]))


def plain_step(ref: pd.Series, sim: pd.Series, variable_id: str, noise: list[Values]) -> Values:
    """Return `sim` adjusted; `noise` of ref and of sim is for dry days."""
    wet = 0.05 * MM_PER_DAY if variable_id == "pr" else 0.0
    ref_train, train = ((s.index.year >= TRAIN[0]) & (s.index.year <= TRAIN[1]) for s in (ref, sim))
    back = np.zeros(len(sim))
    if variable_id == "pr":
        ref, sim = (s.where(s >= wet, wet * u) for s, u in zip((ref, sim), noise, strict=True))
    trained, hist = ref[ref_train], sim[train]
    if variable_id == "tas":
        trained, hist = (s - plain_trend(s, np.ones(len(s), bool)) for s in (trained, hist))
        back = plain_trend(sim, train)
    days = [day_of_leap_year(s.index) for s in (trained, hist, sim)]
    out = np.empty(len(sim))
    for t, x in enumerate(sim.to_numpy() - back):
        near = [np.abs((d - days[2][t] + 183) % 366 - 183) <= 15 for d in days[:2]]
        windows = [s.to_numpy()[chosen] for s, chosen in zip((trained, hist), near, strict=True)]
        out[t] = plain_map(*windows, x, is_ratio=variable_id != "tas", wet=wet)
    return np.where(out < wet, 0.0, out) if variable_id == "pr" else out + back


def index_of(days: Days) -> Any:
    return pd.DatetimeIndex([pd.Timestamp(days.isoformat(i)) for i in range(len(days))])


def diurnal_range(days: Days, grid: Grid, *, seed: int = 1) -> Values:
    rng = np.random.default_rng(seed)
    season = np.cos(2 * np.pi * days.ordinal / 365.25)[:, None, None]
    return rng.gamma(3.0, 2.0, (len(days), *grid.shape)) * (1 - 0.3 * season) + 0.5


MAKE: dict[str, Callable[..., Values]] = {
    "tas": partial(oracles.temperature, warming=3.0),
    "pr": oracles.rain,
    "dtr": diurnal_range,
}


@pytest.mark.parametrize("variable_id", MAKE)
def test_the_step_equals_a_plain_implementation(variable_id: str) -> None:
    """Trend, windows, mapping, tails, noise and putting back, all at once, on one cell.

    The reference starts earlier than it is trained on, the model goes on for three years after;
    the axis is standard, so windows meet 29 February.
    """
    _, grid = grids()
    days, longer = oracles.decade("standard", 1989, 2000), oracles.decade("standard", 1991, 2003)
    truth = MAKE[variable_id](days, grid)[:, :1, 0]
    model = 1.3 * MAKE[variable_id](longer, grid, seed=4)[:, :1, 0]
    model[-80:-40] *= 1.4  # beyond the training range, on both sides
    model[-40:] *= 0.1
    place = {"lat": np.array([41.0]), "lon": np.array([-5.0])}
    sides = [
        Series(values, axis, (axis.year >= TRAIN[0]) & (axis.year <= TRAIN[1]))
        for values, axis in ((truth, days), (model, longer))
    ]
    made = adjust.adjust_series(*sides, TODAY, variable_id=variable_id, **place).values[:, 0]
    series = [pd.Series(side.values[:, 0], index_of(side.days)) for side in sides]
    noise = [jitter.uniform(3, "pr", *place.values(), side.days)[:, 0] for side in sides]
    wanted = plain_step(*series, variable_id, noise)
    scale = MM_PER_DAY if variable_id == "pr" else 1.0
    oracles.close(made / scale, wanted / scale, 1e-6, "adjusted")


# --------------------------------------------------------------------------------------
# The change of the mean

QDM = QuantileMapping(15, "weibull", "parametric", 0, 1.0, 3, "qdm", dry_floor=0.5)
KEEPING = replace(QDM, keep_mean_change=True)
PAST, FUTURE = oracles.decade("noleap", 1981, 2000), oracles.decade("noleap", 2071, 2090)


def gamma_rain(
    days: Days, *, shape: float, wet: float, mean: float, seed: int, season: float = 0.0
) -> Values:
    """Return rain [kg m-2 s-1] of 20 years: each day has the same 20 amounts, in random years.

    So no month's mean changes by chance. Wet days have at least 1 mm/day; winter has more of it,
    and with `season` also more even amounts.
    """
    rng = np.random.default_rng(seed)
    ranks = rng.permuted(np.tile(np.arange(20), (365, 4, 1)), axis=2).transpose(2, 0, 1)
    probability = (ranks.reshape(len(days), 4) + 0.5) / 20
    cycle = np.cos(2 * np.pi * (days.ordinal - days.ordinal[0]) / 365)[:, None]
    shape = shape * (1 + season * cycle)
    amount = stats.gamma.ppf(np.maximum(1 - (1 - probability) / wet, 0), shape, scale=mean / shape)
    return np.where(probability > 1 - wet, 1 + amount, 0.0) * (1.3 + 0.3 * cycle) * MM_PER_DAY


def bent_world() -> tuple[Series, Series]:
    """Return observations, and a model whose days become fewer and its heavy rain heavier."""
    observed = gamma_rain(PAST, shape=1.4, wet=0.3, mean=5.0, seed=1)
    runs = [
        gamma_rain(PAST, shape=0.9, wet=0.5, mean=5.0, seed=2),
        gamma_rain(FUTURE, shape=0.6, wet=0.4, mean=6.0, seed=3, season=0.3),
    ]
    axis = Days.concatenate([PAST, FUTURE])
    trained = np.ones(len(PAST), np.bool_)
    return Series(observed, PAST, trained), Series(np.concatenate(runs), axis, axis.year <= 2000)


def changes_of_the_mean(values: Values) -> Values:
    """Return the change of each month's mean over all cells, past to future [percent]."""
    past, future = (
        [v[d.month == m].mean() for m in range(1, 13)]
        for d, v in zip((PAST, FUTURE), np.split(values.astype(float), 2), strict=True)
    )
    return 100 * (np.divide(future, past) - 1)


def kept(ref: Series, sim: Series, mapping: QuantileMapping = KEEPING, **options: Any) -> Adjusted:
    n = ref.values.shape[1]
    place = {"lat": 30.0 + np.arange(n), "lon": np.full(n, 5.0)}
    return adjust.adjust_series(ref, sim, mapping, variable_id="pr", **place, **options)


def the_change_of_mean_rain_is_the_model_s(mapping: QuantileMapping) -> None:
    """In each month, to 0.1 percentage points; the training mean is that observed, to 0.5 %."""
    ref, sim = bent_world()
    made = kept(ref, sim, mapping).values
    trained = made[sim.train].mean() / ref.values.mean()
    assert abs(trained - 1) <= 0.005, f"training mean: {trained:.3f} of that observed"
    worst = np.abs(changes_of_the_mean(made) - changes_of_the_mean(sim.values)).max()
    assert worst <= 0.1, f"change of a month's mean: {worst:.2f} percentage points off"


def test_the_change_of_mean_rain_is_the_model_s() -> None:
    """The model's mean lessens by 8.0 to 10.8 %; by QDM alone it grows by up to 3 %."""
    the_change_of_mean_rain_is_the_model_s(KEEPING)
    with pytest.raises(AssertionError, match=r"month's mean: 12\.\d"):
        the_change_of_mean_rain_is_the_model_s(QDM)


@pytest.mark.parametrize(
    ("defect", "found"),
    [
        ({"smooth_days": 365}, r"month's mean: 1\.\d"),  # one factor for all seasons
        ({"span_years": 1}, r"month's mean: 0\.\d"),  # each year's weather is a change
        ({"train": np.arange(40 * 365) >= 20 * 365}, "training mean: 1.1"),  # since the end
    ],
)
def test_a_factor_of_other_windows_is_noticed(
    defect: dict[str, Any], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = epochs.trend
    monkeypatch.setattr(epochs, "trend", lambda *of, **o: right(*of, **{**o, **defect}))
    with pytest.raises(AssertionError, match=found):
        the_change_of_mean_rain_is_the_model_s(KEEPING)


def test_a_perfect_model_is_returned_with_its_mean_change() -> None:
    """In and after training, where decades differ: drizzle, which is no rain, must not count.

    Of the mean of all days, drizzle as well, wet days are off by several percent.
    """
    days = oracles.decade("noleap", 1971, 2030)
    rng = np.random.default_rng(5)
    rain = rng.gamma(0.4, 6.0, (len(days), 3)) * MM_PER_DAY
    drizzle = rain < MM_PER_DAY
    rain[(days.year > 2005)[:, None] & drizzle] *= 0.2
    trained = (days.year >= 1981) & (days.year <= 2010)
    whole = Series(rain.astype(np.float32), days, trained)
    made = kept(whole, whole).values
    assert not made[drizzle].any()
    np.testing.assert_allclose(
        made[~drizzle & trained[:, None]], whole.values[~drizzle & trained[:, None]], rtol=1e-6
    )


def test_dry_days_ranks_and_other_cells_know_nothing_of_it() -> None:
    """Zeros stay zeros; each cell has its own factors, one without values has none."""
    ref, sim = bent_world()
    sim.values[:, 2] = np.nan
    made, plain = (kept(ref, sim, mapping, ranks=True) for mapping in (KEEPING, QDM))
    np.testing.assert_array_equal(made.rank, plain.rank)
    np.testing.assert_array_equal(made.values == 0, plain.values == 0)
    assert np.isnan(made.values[:, 2]).all() and not np.isnan(np.delete(made.values, 2, 1)).any()
    first = [Series(s.values[:, :1], s.days, s.train) for s in (ref, sim)]
    np.testing.assert_array_equal(kept(*first).values, made.values[:, :1])


def test_a_factor_has_bounds() -> None:
    """Where a model that was dry has rain later there is nothing to scale by."""
    ref, sim = bent_world()
    sim.values[: len(PAST)] *= 0.05
    made, plain = (kept(ref, sim, mapping).values for mapping in (KEEPING, QDM))
    factor = made[plain > 0] / plain[plain > 0]
    assert factor.max() <= 2.0 * (1 + 1e-6)
    assert factor.max() > 1.9


# --------------------------------------------------------------------------------------
# The stage


@pytest.mark.parametrize("name", ["tas", "pr"])
def test_historical_and_scenario_are_parts_of_one_mapping(name: str, chain: Chain) -> None:
    """Padding each experiment with the other: no window ends where historical does."""
    _, grid = grids()
    days = oracles.decade("noleap", 1991, 2010)
    split = int(np.searchsorted(days.year, 2001))
    if name == "tas":
        truth = oracles.temperature(days[:split], grid)
        model = oracles.temperature(days, grid, seed=2, warming=2.0) + 3.0
        options: dict[str, Any] = {}
    else:
        truth, model = oracles.rain(days[:split], grid), oracles.rain(days, grid, seed=2)
        options = {"method": "qdm", "year_window": 5, "keep_mean_change": True}
    ref = chain.daily("coarsen", "obs", name, days[:split], grid, truth)
    past = chain.daily("simulation", "past", name, days[:split], grid, model[:split])
    future = chain.daily("simulation", "future", name, days[split:], grid, model[split:])
    whole = chain.daily("simulation", "whole", name, days, grid, model)
    parts = [
        Field(chain.adjust("past", ref, past, future, target="hist", **options)),
        Field(chain.adjust("future", ref, past, future, **options)),
    ]
    joined = np.concatenate([part.read() for part in parts])
    assert np.array_equal(joined, Field(chain.adjust("whole", ref, whole, **options)).read())
    assert [len(part.days) for part in parts] == [split, len(days) - split]
    alone = Field(chain.adjust("alone", ref, past, **options)).read()
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
