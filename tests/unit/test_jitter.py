"""The noise of dry days: seeded, uniform, independent of anything but place, date, variable."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from finescale.calendars import Days
from finescale.jitter import jitter_dry, restore_dry, uniform

DAYS = Days.range("1990-01-01", "1999-12-31", "standard")
# The quarter-degree neighbours differ in few bits of their keys: the hard case for a hash.
LAT = np.repeat(np.arange(38.0, 43.0, 0.25), 20)
LON = np.tile(np.arange(-5.0, 0.0, 0.25), 20)
U = uniform(7, "pr", LAT, LON, DAYS)


def assert_uncorrelated(x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Sample correlation of independent numbers is N(0, 1/n): five sigmas."""
    assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 5 / np.sqrt(x.size)


def test_noise_is_uniform_on_the_open_unit_interval() -> None:
    counts, _ = np.histogram(U, bins=1000, range=(0, 1))
    chi2 = np.sum((counts - U.size / 1000) ** 2) / (U.size / 1000)
    assert U.min() > 0
    assert U.max() < 1
    # 999 degrees of freedom: mean 999, sigma 44.7.
    assert abs(chi2 - 999) < 5 * np.sqrt(2 * 999)


def test_every_cell_and_every_day_has_its_own_uniform_noise() -> None:
    # Means of n uniform numbers have sigma 1 / sqrt(12 n); maxima over 400 and 3652 of them.
    assert np.abs(U.mean(axis=0) - 0.5).max() < 5 / np.sqrt(12 * len(DAYS))
    assert np.abs(U.mean(axis=1) - 0.5).max() < 5.5 / np.sqrt(12 * LAT.size)


@pytest.mark.parametrize("lag", [1, 7, 365])
def test_days_are_independent(lag: int) -> None:
    assert_uncorrelated(U[lag:], U[:-lag])


@pytest.mark.parametrize("lag", [1, 20])
def test_neighbouring_cells_are_independent(lag: int) -> None:
    assert_uncorrelated(U[:, lag:], U[:, :-lag])


def test_no_number_occurs_twice() -> None:
    assert np.unique(U).size == U.size


@pytest.mark.parametrize(("seed", "variable"), [(8, "pr"), (7, "prc"), (-7, "pr")])
def test_seeds_and_variables_are_independent(seed: int, variable: str) -> None:
    assert_uncorrelated(U, uniform(seed, variable, LAT, LON, DAYS))


def test_noise_is_the_same_in_every_session_and_version() -> None:
    days = Days.range("2000-02-28", "2000-03-01", "standard")
    # Computed apart with Python's integers, modulo 2^64.
    expected = [[0.20098292933578732], [0.7259085701336631], [0.9873304971590254]]
    np.testing.assert_array_equal(
        uniform(1, "pr", np.array([40.25]), np.array([-3.75]), days), expected
    )


@given(first=st.integers(0, 3000), n=st.integers(1, 600), cells=st.slices(400))
def test_any_part_equals_that_part_of_the_whole(first: int, n: int, cells: slice) -> None:
    part = uniform(7, "pr", LAT[cells], LON[cells], DAYS[first : first + n])
    np.testing.assert_array_equal(part, U[first : first + n, cells])


def test_a_date_has_the_same_noise_in_every_calendar() -> None:
    noleap = Days.range("1992-02-20", "1992-03-05", "noleap")
    standard = Days.range("1992-02-20", "1992-03-05", "standard")
    without_leap_day = np.arange(len(standard)) != 9
    np.testing.assert_array_equal(
        uniform(7, "pr", LAT, LON, noleap),
        uniform(7, "pr", LAT, LON, standard)[without_leap_day],
    )


@pytest.mark.parametrize(("west", "east"), [(-3.75, 356.25), (-180.0, 180.0), (-1e-6, 0.0)])
def test_both_longitude_conventions_share_the_noise(west: float, east: float) -> None:
    one, other = (uniform(7, "pr", LAT[:1], np.array([x]), DAYS) for x in (west, east))
    np.testing.assert_array_equal(one, other)


def test_coordinates_of_either_precision_share_the_noise() -> None:
    lat, lon = np.arange(-89.95, 90, 0.1), np.arange(0.05, 180, 0.1)
    np.testing.assert_array_equal(
        uniform(7, "pr", lat, lon, DAYS[:2]),
        uniform(7, "pr", lat.astype(np.float32), lon.astype(np.float32), DAYS[:2]),
    )


def amounts(dtype: Any) -> NDArray[Any]:
    rng = np.random.default_rng(3)
    values = rng.gamma(0.3, 1e-5, U.shape) * (rng.random(U.shape) < 0.5)
    values[rng.random(U.shape) < 0.01] = np.nan
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threshold", [0.05 / 86400, 1.0 / 86400])
def test_only_dry_days_change_and_stay_dry(dtype: Any, threshold: float) -> None:
    values = amounts(dtype)
    before = values.copy()
    out = jitter_dry(values, threshold=threshold, u=U)
    dry = values < dtype(threshold)
    assert out.dtype == dtype
    assert (out[dry] > 0).all()
    assert (out[dry] < dtype(threshold)).all()
    np.testing.assert_array_equal(out[~dry], values[~dry])
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("extreme", [2.0**-53, 1 - 2.0**-53])
def test_rounding_makes_no_dry_day_wet_or_zero(extreme: float) -> None:
    # threshold * u rounds to the threshold itself in float32, which would count as wet
    threshold = 0.05 / 86400
    out = jitter_dry(np.zeros(1, np.float32), threshold=threshold, u=np.array([extreme]))
    assert 0 < out[0] < np.float32(threshold)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_restoring_undoes_the_jitter_down_to_the_threshold(dtype: Any) -> None:
    values, threshold = amounts(dtype), 0.05 / 86400
    restored = restore_dry(jitter_dry(values, threshold=threshold, u=U), threshold=threshold)
    assert restored.dtype == dtype
    np.testing.assert_array_equal(restored, np.where(values < dtype(threshold), 0, values))
