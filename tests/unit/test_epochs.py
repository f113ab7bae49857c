"""Epoch trends: climatologies of years around, against a brute force and known answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from finescale import calendars
from finescale.calendars import Days
from finescale.epochs import trend
from finescale.errors import ConfigError


def years(first: int, last: int, calendar: str = "noleap") -> Days:
    return Days.range(f"{first}-01-01", f"{last + 1}-01-01", calendar)[:-1]


def only(days: Days, months: list[int]) -> Days:
    return days[np.isin(days.month, months)]


def column(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[:, None]


def brute_trend(
    values: NDArray[np.float64], days: Days, train: NDArray[np.bool_], span: int, width: int
) -> NDArray[np.float64]:
    """Compute the additive trend of one cell day by day, from sets of years and of slots."""
    slots = calendars.slots(days)
    n = calendars.n_slots(days.calendar)
    present = sorted(set(slots.tolist()))

    def around(slot: int) -> set[int]:
        found = {slot}
        for step in (1, -1):
            place = slot
            for _ in range(width // 2):
                gap = next(g for g in range(1, n + 1) if (place + step * g) % n in present)
                if gap > 2:
                    break
                place = (place + step * gap) % n
                found.add(place)
        return found

    def epoch(t: int, own_year: int) -> float:
        run = {own_year}
        for step in (1, -1):
            year = own_year + step
            while year in days.year:
                run.add(year)
                year += step
        ordered = sorted(run)
        length = min(span, len(ordered))
        first = min(max(own_year - span // 2, ordered[0]), ordered[-1] + 1 - length)
        near = np.isin(slots, list(around(int(slots[t])))) & ~np.isnan(values)
        own = near & (days.year >= first) & (days.year < first + length)
        return float(values[own].mean()) if own.any() else np.nan

    out = np.full(len(days), np.nan)
    for t in range(len(days)):
        trained = [epoch(t, int(year)) for year in np.unique(days.year[train])]
        if not np.isnan(trained).all():
            out[t] = epoch(t, int(days.year[t])) - np.nanmean(trained)
    return out


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    calendar=st.sampled_from(["standard", "noleap", "360_day"]),
    n_years=st.integers(1, 5),
    gap=st.integers(0, 3),
    span=st.sampled_from([1, 3, 5]),
    months=st.sampled_from([[12, 1, 2], [2, 3], [6]]),
)
def test_the_trend_is_what_a_brute_force_gives(
    seed: int, calendar: str, n_years: int, gap: int, span: int, months: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    parts = [years(1996, 1998, calendar), years(1999 + gap, 1998 + gap + n_years, calendar)]
    days = Days.concatenate([only(part, months) for part in parts])
    values = rng.normal(285, 5, len(days))
    values[rng.random(len(days)) < 0.3] = np.nan
    train = days.year < 1999
    found = trend(column(values), days, train=train, span_years=span, smooth_days=21, kind="+")
    wanted = brute_trend(values, days, train, span, 21)
    np.testing.assert_allclose(found[:, 0], wanted, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("calendar", ["standard", "noleap", "all_leap", "360_day"])
def test_a_step_of_three_kelvin_is_found(calendar: str) -> None:
    """After a gap, which an epoch does not cross: one that did would give less."""
    days = Days.concatenate([years(1971, 2000, calendar), years(2041, 2100, calendar)])
    cycle = -10 * np.cos(2 * np.pi * calendars.slots(days) / calendars.n_slots(calendar))
    later = days.year > 2000
    found = trend(column(285 + cycle + 3 * later), days, train=~later, kind="+")[:, 0]
    np.testing.assert_allclose(found, 3.0 * later, atol=0.02)


def test_a_linear_warming_is_found() -> None:
    """Halfway between the edges exactly; at them the nearest full epoch, which is 15 years off."""
    days = years(1951, 2050)
    train = (days.year >= 1986) & (days.year <= 2016)
    found = trend(column(0.04 * days.year), days, train=train, kind="+")[:, 0]
    inner = (days.year >= 1966) & (days.year <= 2035)
    np.testing.assert_allclose(found[inner], 0.04 * (days.year[inner] - 2001), atol=1e-9)
    np.testing.assert_allclose(found[days.year > 2035], 0.04 * (2035 - 2001), atol=1e-9)


def test_noise_has_no_trend_in_training() -> None:
    """The mean over the training days, of one epoch, is that of nothing."""
    days = years(1971, 2001)
    values = np.random.default_rng(1).normal(285, 4, (len(days), 3))
    found = trend(values, days, train=np.ones(len(days), np.bool_), kind="+")
    np.testing.assert_allclose(found, 0.0, atol=1e-9)
    later = years(1971, 2060)
    values = np.random.default_rng(1).normal(285, 4, (len(later), 3))
    train = later.year <= 2000
    found = trend(values, later, train=train, kind="+")
    assert np.abs(found[train].mean(axis=0)).max() < 0.1
    assert found[~train].std() < 0.3


def test_a_warming_of_winter_stays_in_winter() -> None:
    """One climatology of the year, or wider smoothing, warms July."""
    days = Days.concatenate([years(1971, 2000), years(2041, 2100)])
    winter = np.isin(days.month, [12, 1, 2]) & (days.year > 2000)
    found = trend(column(285 + 3.0 * winter), days, train=days.year <= 2000, kind="+")[:, 0]
    last = days.year > 2045
    np.testing.assert_allclose(found[last & np.isin(days.month, [4, 5, 6, 7, 8, 9, 10])], 0.0)
    np.testing.assert_allclose(found[last & (days.month == 1)], 3.0)


def test_a_ratio_is_found_and_guarded() -> None:
    """Rain of a desert over nothing is no change, and no infinity."""
    days = Days.concatenate([years(1971, 2000), years(2041, 2100)])
    later = days.year > 2000
    values = np.stack([2.0 + 1.0 * later, 0.0 * later, 1e-9 * later], axis=1)
    found = trend(values, days, train=~later, kind="*", floor=1e-6)
    last = days.year > 2045
    np.testing.assert_allclose(found[last], [[1.5, 1.0, 1.0]] * int(last.sum()))


def test_other_cells_change_no_bit() -> None:
    days = years(1971, 1990)
    values = np.random.default_rng(2).normal(285, 4, (len(days), 5)).astype("f4")
    whole = trend(values, days, train=days.year < 1980, kind="+", span_years=11)
    alone = trend(values[:, 3:4], days, train=days.year < 1980, kind="+", span_years=11)
    assert np.array_equal(whole[:, 3:4], alone)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"span_years": 30}, "span_years"),
        ({"smooth_days": 0}, "smooth_days"),
        ({"kind": "*"}, "floor"),
        ({"train": np.zeros(365, np.bool_)}, "training"),
    ],
)
def test_parameters_are_checked(options: dict[str, object], named: str) -> None:
    given_ = {"train": np.ones(365, np.bool_), "kind": "+", **options}
    with pytest.raises(ConfigError, match=named):
        trend(np.zeros((365, 1)), years(2001, 2001), **given_)  # type: ignore[arg-type]
