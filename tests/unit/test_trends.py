"""Trends: running means over years, month by month, against a brute force and known answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from finescale.calendars import Days
from finescale.errors import ConfigError
from finescale.trends import trend


def years(first: int, last: int, calendar: str = "noleap") -> Days:
    return Days.range(f"{first}-01-01", f"{last + 1}-01-01", calendar)[:-1]


def only(days: Days, months: list[int]) -> Days:
    return days[np.isin(days.month, months)]


def brute_trend(
    values: NDArray[np.float64], days: Days, train: NDArray[np.bool_], window: int
) -> NDArray[np.float64]:
    """Compute one cell's trend with dictionaries of months and `np.interp`."""
    mean: dict[tuple[int, int], float] = {}
    mean_train: dict[tuple[int, int], float] = {}
    for y, m in sorted(set(zip(days.year.tolist(), days.month.tolist(), strict=True))):
        inside = (days.year == y) & (days.month == m)
        for found, chosen in ((mean, inside), (mean_train, inside & train)):
            known = values[chosen][~np.isnan(values[chosen])]
            found[y, m] = known.mean() if known.size else np.nan
    smooth: dict[tuple[int, int], float] = {}
    for y, m in mean:
        run = {y}
        for step in (-1, 1):
            while (y2 := (min(run) if step < 0 else max(run)) + step, m) in mean:
                run.add(y2)
        ordered = sorted(run)
        start = min(max(y - window // 2, ordered[0]), max(ordered[-1] - window + 1, ordered[0]))
        members = [mean[y2, m] for y2 in ordered if start <= y2 < start + window]
        base = [v for (_, m2), v in mean_train.items() if m2 == m and not np.isnan(v)]
        known = [v for v in members if not np.isnan(v)]
        smooth[y, m] = np.mean(known) - np.mean(base) if known and base else np.nan
    out = np.full(len(days), np.nan)
    for part in np.split(np.arange(len(days)), np.flatnonzero(np.diff(days.ordinal) > 2) + 1):
        where, what = [], []
        for y, m in sorted(
            set(zip(days.year[part].tolist(), days.month[part].tolist(), strict=True))
        ):
            inside = days.ordinal[(days.year == y) & (days.month == m)]
            if not np.isnan(smooth[y, m]):
                where.append((inside.min() + inside.max()) / 2)
                what.append(smooth[y, m])
        if where:
            out[part] = np.interp(days.ordinal[part], where, what)
    return out


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    calendar=st.sampled_from(["standard", "noleap", "360_day"]),
    n_years=st.integers(1, 9),
    gap=st.integers(0, 4),
    window=st.sampled_from([1, 3, 5]),
    months=st.sampled_from([list(range(1, 13)), [12, 1, 2], [6, 7, 8]]),
    cut=st.integers(0, 40),
)
def test_the_trend_is_what_a_brute_force_gives(
    seed: int,
    calendar: str,
    n_years: int,
    gap: int,
    window: int,
    months: list[int],
    cut: int,
) -> None:
    rng = np.random.default_rng(seed)
    days = Days.concatenate(
        [
            years(2000, 2000 + n_years, calendar),
            years(2001 + n_years + gap, 2004 + n_years + gap, calendar),
        ]
        if gap
        else [years(2000, 2000 + n_years, calendar)]
    )
    days = only(days, months)[cut:]
    values = rng.normal(280, 10, (len(days), 3))
    values[rng.random(values.shape) < 0.1] = np.nan
    for _ in range(3):  # whole months, some in several years running
        month, since = rng.choice(months), rng.integers(2000, 2008)
        values[(days.month == month) & (abs(days.year - since) < 3), 1] = np.nan
    train = days.year <= 2000 + n_years // 2
    found = trend(values, days, train=train, window_years=window)
    for cell in range(3):
        expected = brute_trend(values[:, cell], days, train, window)
        np.testing.assert_allclose(found[:, cell], expected, rtol=0, atol=1e-10)


def test_a_warming_of_three_hundredths_a_year_is_recovered_year_by_year() -> None:
    # nine consecutive rows instead of nine years would follow the seasons, not the slope
    days = years(1981, 2010)
    season = 10 * np.cos(2 * np.pi * days.ordinal / 365.0)
    values = (season + 0.03 * days.year)[:, None]
    found = trend(values, days, train=np.ones(len(days), dtype=bool))[:, 0]
    mid_month = (days.day == 16) & (days.month == 7)
    inside = (days.year >= 1985) & (days.year <= 2006)
    np.testing.assert_allclose(
        found[mid_month & inside], 0.03 * (days.year[mid_month & inside] - 1995.5), atol=1e-10
    )
    np.testing.assert_allclose(found[days.year < 1985], 0.03 * (1985 - 1995.5), atol=1e-10)
    np.testing.assert_allclose(found[(days.year > 2006)], 0.03 * (2006 - 1995.5), atol=1e-10)


@given(calendar=st.sampled_from(["standard", "julian", "360_day", "all_leap"]))
@settings(max_examples=4, deadline=None)
def test_a_seasonal_cycle_without_change_has_no_trend(calendar: str) -> None:
    days = years(1990, 2004, calendar)
    values = (280 + 5.0 * days.month).astype(np.float32)[:, None]
    assert (trend(values, days, train=days.year < 2000) == 0).all()


def test_the_trend_of_the_training_years_has_no_mean_over_a_single_window() -> None:
    days = years(1991, 1999)
    values = np.random.default_rng(1).normal(280, 5, (len(days), 2))
    found = trend(values, days, train=np.ones(len(days), dtype=bool))
    np.testing.assert_allclose(found, 0, atol=1e-10)


def test_a_warming_of_the_winters_stays_in_the_winters() -> None:
    days = years(1981, 2020)
    is_winter = np.isin(days.month, [12, 1, 2])
    values = (280 + np.where(is_winter, 0.05 * (days.year - 1981), 0.0))[:, None]
    found = trend(values, days, train=days.year <= 2010)[:, 0]
    after_march = (days.month > 3) | ((days.month == 3) & (days.day >= 16))
    before_november = (days.month < 11) | ((days.month == 11) & (days.day <= 15))
    assert (found[after_march & before_november] == 0).all()
    assert found[(days.year == 2018) & (days.month == 1)].min() > 0.5


def test_a_step_after_a_gap_is_all_in_the_trend() -> None:
    days = Days.concatenate([years(1981, 2000), years(2041, 2060)])
    is_later = days.year > 2000
    values = (280 + 5.0 * days.month + 3.0 * is_later)[:, None]
    found = trend(values, days, train=~is_later)[:, 0]
    np.testing.assert_allclose(found, 3.0 * is_later, atol=1e-12)


def test_nothing_is_interpolated_from_one_winter_to_the_next() -> None:
    days = only(years(1990, 1999), [12, 1, 2])[59:]
    values = np.where(days.month == 12, 1.0 * days.year, 0.0)[:, None]
    found = trend(values, days, train=np.ones(len(days), dtype=bool), window_years=1)[:, 0]
    after_mid_february = (days.month == 2) & (days.day >= 15)
    assert (found[after_mid_february] == 0).all()
    assert (found[(days.month == 12) & (days.year == 1998) & (days.day <= 16)] == 3.5).all()


def test_a_segment_shorter_than_the_window_takes_its_own_mean() -> None:
    days = Days.concatenate([years(1981, 2000), years(2050, 2053)])
    values = np.where(days.year < 2001, 0.0, days.year - 2050.0)[:, None]
    found = trend(values, days, train=days.year < 2001)[:, 0]
    np.testing.assert_allclose(found[days.year >= 2050], 1.5, atol=1e-12)
    np.testing.assert_allclose(found[days.year < 2001], 0.0, atol=1e-12)


def test_a_cell_without_training_data_has_no_trend_and_spares_its_neighbour() -> None:
    days = years(1990, 2004)
    values = np.random.default_rng(2).normal(0, 1, (len(days), 2))
    alone = trend(values[:, :1], days, train=days.year < 2000)
    values[days.year < 2000, 1] = np.nan
    found = trend(values, days, train=days.year < 2000)
    assert np.isnan(found[:, 1]).all()
    assert np.array_equal(found[:, :1], alone)


def test_the_bits_do_not_depend_on_the_tiling() -> None:
    days = years(1990, 2004, "standard")
    rng = np.random.default_rng(3)
    values = rng.normal(280, 10, (len(days), 7)).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = np.nan
    train = days.year < 2000
    whole = trend(values, days, train=train)
    parts = [trend(values[:, i:j], days, train=train) for i, j in ((0, 1), (1, 4), (4, 7))]
    assert np.array_equal(whole, np.concatenate(parts, axis=1))


@pytest.mark.parametrize("window", [0, 8])
def test_a_window_without_a_centre_is_refused(window: int) -> None:
    days = years(1990, 1990)
    with pytest.raises(ConfigError, match=f"must be odd to be centred, found {window}"):
        trend(np.zeros((len(days), 1)), days, train=days.year > 0, window_years=window)


def test_an_axis_without_a_training_day_is_refused() -> None:
    days = years(1990, 1990)
    with pytest.raises(ConfigError, match="no training day"):
        trend(np.zeros((len(days), 1)), days, train=days.year > 2000)
