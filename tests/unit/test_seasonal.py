"""Climatologies: sums by slab, harmonics against least squares, window means against a loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from finescale.calendars import Days, n_slots, slots
from finescale.seasonal import accumulate, apply_floor, day_of_year_sums, smooth


def sums_of(
    values: NDArray[np.floating], days: Days
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return day_of_year_sums(values, slots(days), n_slots(days.calendar))


def axis(calendar: str, first: int = 1991, last: int = 1994) -> Days:
    return Days.range(f"{first}-01-01", f"{last + 1}-01-01", calendar)[:-1]


def winters(calendar: str = "standard") -> Days:
    days = axis(calendar)
    return days[np.isin(days.month, [12, 1, 2])]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 1460), max_size=6),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_sums_have_the_same_bits_whatever_the_slabs(
    seed: int, cuts: list[int], dtype: type
) -> None:
    rng = np.random.default_rng(seed)
    days = axis("standard")
    values: NDArray[np.floating] = rng.normal(280, 20, (len(days), 3)).astype(dtype)
    values[rng.random(values.shape) < 0.2] = np.nan
    whole, n_whole = sums_of(values, days)
    sums, counts = np.zeros((366, 3)), np.zeros((366, 3), dtype=np.int64)
    for slab in np.split(np.arange(len(days)), sorted(cuts)):
        accumulate(sums, counts, values[slab], slots(days)[slab])
    assert np.array_equal(sums, whole)
    assert np.array_equal(counts, n_whole)


def test_sums_and_counts_are_those_of_each_slot() -> None:
    days = axis("standard")
    values = np.random.default_rng(0).normal(0, 1, (len(days), 2))
    values[::7, 1] = np.nan
    sums, counts = sums_of(values, days)
    own = slots(days)
    for slot in (0, 58, 59, 60, 365):
        np.testing.assert_allclose(sums[slot], np.nansum(values[own == slot], axis=0), atol=1e-12)
        assert counts[slot].tolist() == (~np.isnan(values[own == slot])).sum(axis=0).tolist()
    assert counts[59, 0] == 1
    assert counts[60, 0] == 4


@settings(max_examples=20, deadline=None)
@given(
    calendar=st.sampled_from(["standard", "noleap", "360_day", "all_leap"]),
    harmonics=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_harmonics_are_the_least_squares_fit_to_all_days(
    calendar: str, harmonics: int, seed: int
) -> None:
    # a fit to slot means with equal weights would count 29 February four times too much
    rng = np.random.default_rng(seed)
    days = axis(calendar)
    n = n_slots(calendar)
    values = rng.gamma(0.5, 8, (len(days), 2))
    values[rng.random(len(days)) < 0.3, 1] = np.nan

    def basis(slot: NDArray[np.integer]) -> NDArray[np.float64]:
        phase = np.exp(2j * np.pi * np.outer((slot + 0.5) / n, np.arange(harmonics + 1)))
        return np.concatenate([phase.real, phase.imag[:, 1:]], axis=1)

    clim = smooth(*sums_of(values, days), harmonics=harmonics)
    for cell in range(2):
        known = ~np.isnan(values[:, cell])
        fit, *_ = np.linalg.lstsq(basis(slots(days)[known]), values[known, cell], rcond=None)
        np.testing.assert_allclose(clim[:, cell], basis(np.arange(n)) @ fit, rtol=0, atol=1e-9)


def test_a_cycle_of_three_harmonics_is_returned_on_every_slot() -> None:
    days = axis("noleap")
    angle = 2 * np.pi * (np.arange(366) + 0.5) / 366
    cycle = 280 + 9 * np.cos(angle - 0.3) + 2 * np.sin(2 * angle) - np.cos(3 * angle)
    clim = smooth(*sums_of(cycle[slots(days)][:, None], days))
    np.testing.assert_allclose(clim[:, 0], cycle, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    calendar=st.sampled_from(["standard", "noleap", "360_day"]),
    is_seasonal=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_climatology_of_the_area_mean_is_the_area_mean_of_climatologies(
    calendar: str, is_seasonal: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    days = winters(calendar) if is_seasonal else axis(calendar)
    fine = rng.normal(280, 15, (len(days), 6))
    area = rng.random(6)
    area /= area.sum()
    coarse = (fine * area).sum(axis=1, keepdims=True)
    fine_clim = smooth(*sums_of(fine, days))
    coarse_clim = smooth(*sums_of(coarse, days))
    np.testing.assert_allclose(
        (fine_clim * area).sum(axis=1), coarse_clim[:, 0], rtol=0, atol=1e-10
    )


def test_a_seasonal_axis_takes_window_means_that_stop_at_the_seasons_ends() -> None:
    days = winters()
    values = np.random.default_rng(4).normal(0, 1, (len(days), 1))
    clim = smooth(*sums_of(values, days), half_window=15)[:, 0]
    own = slots(days)
    existing = sorted(set(own.tolist()), key=lambda slot: (slot < 335, slot))
    for place, slot in enumerate(existing):
        inside = existing[max(place - 15, 0) : place + 16]
        assert clim[slot] == pytest.approx(values[np.isin(own, inside), 0].mean(), abs=1e-12)
    assert clim[200] == clim[59]


def test_a_long_season_below_the_limit_is_not_fitted() -> None:
    days = axis("noleap")
    days = days[(slots(days) < 299)]
    values = (slots(days) == 100).astype(np.float64)[:, None]
    clim = smooth(*sums_of(values, days), half_window=0)
    assert clim[100, 0] == 1.0
    assert (clim[101:] == 0).all()


def test_a_cell_without_data_is_nan_and_the_others_do_not_notice() -> None:
    days = axis("standard")
    values = np.random.default_rng(5).normal(280, 5, (len(days), 5)).astype(np.float32)
    values[:, 1] = np.nan
    values[~np.isin(days.month, [6, 7, 8]), 2] = np.nan
    values[days.month == 6, 3] = np.nan
    clim = smooth(*sums_of(values, days))
    assert np.isnan(clim[:, 1]).all()
    assert np.isfinite(clim[:, [0, 2, 3, 4]]).all()
    for cell in range(5):
        alone = smooth(*sums_of(values[:, [cell]], days))
        assert np.array_equal(clim[:, [cell]], alone, equal_nan=True)


def test_a_floor_raises_low_values_only() -> None:
    clim = np.array([[-0.1, 0.2], [np.nan, 0.05]])
    assert np.array_equal(apply_floor(clim, 0.05), [[0.05, 0.2], [np.nan, 0.05]], equal_nan=True)
    assert clim[0, 0] == -0.1
