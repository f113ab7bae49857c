"""Sliding windows against fresh sorts, counts and means; the formulas of the tails."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from finescale import distributions

DTYPES = [np.float32, np.float64]

few_examples = settings(max_examples=60, deadline=None)


def trained(
    values: NDArray[Any], blocks: NDArray[np.int64], floor: float = -np.inf
) -> distributions.Training:
    """A window over values whose slots are the blocks themselves."""
    present = np.arange(blocks.max() + 1)
    training = distributions.training_room(blocks, present, floor=floor, dtype=values.dtype)
    distributions.train(training, values)
    return training


@pytest.mark.parametrize("dtype", DTYPES)
@few_examples
@given(data=st.data())
def test_a_series_is_sorted_whatever_its_numbers(dtype: Any, data: st.DataObject) -> None:
    """Negative, infinite and denormal numbers: the sort goes by their bits."""
    values = data.draw(arrays(dtype, st.integers(1, 80)))
    training = trained(values, np.arange(values.size))
    n = training.spans[0, 2]
    np.testing.assert_array_equal(training.values[0, :n], np.sort(values[~np.isnan(values)]))
    block = np.searchsorted(training.phase_of, training.phases[0, :n])
    np.testing.assert_array_equal(values[block], training.values[0, :n])


@pytest.mark.parametrize("n_blocks", [3, 90, 200, 366])
@few_examples
@given(data=st.data())
def test_the_window_may_move_anywhere(n_blocks: int, data: st.DataObject) -> None:
    """Steps within the parents, off their ends and round the year, at any length."""
    blocks = np.repeat(np.arange(n_blocks), 3)
    rng = np.random.default_rng(data.draw(st.integers(0, 5)))
    values = np.round(rng.gamma(2, 5, blocks.size), 1)
    values[rng.random(values.size) < 0.1] = np.nan
    floor = 4.0
    training = trained(values, blocks, floor)
    steps = st.tuples(st.integers(-30, 90), st.integers(1, min(n_blocks, 80)) | st.just(n_blocks))
    start = 0
    for step, length in data.draw(st.lists(steps, max_size=12)):
        start = (start + step) % n_blocks
        inside = np.isin(blocks, (start + np.arange(length)) % n_blocks) & ~np.isnan(values)
        expected = np.sort(values[inside])
        np.testing.assert_array_equal(distributions.slide(training, start, length), expected)
        np.testing.assert_array_equal(distributions.window(training), expected)
        wet = expected[expected > floor]
        mean, deviation = distributions.spread(training)
        if wet.size < 10:
            assert deviation == 0
        else:
            assert mean == pytest.approx(wet.mean(), rel=1e-12)
            assert deviation == pytest.approx(wet.std(), rel=1e-9)


@pytest.mark.parametrize("step", [1, 3, 11])
def test_a_walk_round_the_year_misses_no_value(step: int) -> None:
    """A parent must not reach beyond its own parent, and no row round the year's end."""
    n_blocks, length = 365, 31
    values = np.random.default_rng(1).permutation(n_blocks).astype(float)
    training = trained(values, np.arange(n_blocks))
    for start in np.arange(0, 2 * n_blocks, step) % n_blocks:
        expected = np.sort(values[(start + np.arange(length)) % n_blocks])
        np.testing.assert_array_equal(distributions.slide(training, start, length), expected)


def test_values_that_differ_by_rounding_have_no_spread() -> None:
    values = np.full(40, 280.0) + np.tile([0, 1e-5], 20)
    training = trained(values, np.zeros(40, np.int64))
    distributions.slide(training, 0, 1)
    assert distributions.spread(training)[1] == 0


def brute_years(years: list[int], year: int, width: int | None) -> list[int]:
    """The window of the run of years around one, moved until it fits, or the run."""
    if width is None:
        return years
    low = high = year
    while low - 1 in years:
        low -= 1
    while high + 1 in years:
        high += 1
    fits = [list(range(first, first + width)) for first in range(low, high - width + 2)]
    around = [some for some in fits if year in some]
    return min(around, key=lambda w: abs(w[width // 2] - year), default=list(range(low, high + 1)))


@pytest.mark.parametrize("dtype", DTYPES)
@few_examples
@given(data=st.data(), span=st.sampled_from([None, 1, 3, 5]))
def test_the_own_window_holds_its_days_and_years(
    dtype: Any, data: st.DataObject, span: int | None
) -> None:
    years = sorted(data.draw(st.sets(st.integers(1990, 2003), min_size=1)))
    n_slots = data.draw(st.integers(1, 9))
    slot, year = (a.ravel() for a in np.meshgrid(np.arange(n_slots), years))
    tenths = st.integers(-20, 20).map(lambda i: i / 10) | st.just(np.nan)
    values = data.draw(arrays(dtype, slot.size, elements=tenths.map(dtype)))
    own = distributions.own_room(
        slot, np.arange(n_slots), year, span=span, days=n_slots, dtype=values.dtype
    )
    distributions.gather(own, values)
    start, length = data.draw(st.tuples(st.integers(0, n_slots - 1), st.integers(1, n_slots)))
    distributions.hold(own, start, length)
    days = np.isin(slot, (start + np.arange(length)) % n_slots)
    for place, of in enumerate(years):
        sample = values[days & np.isin(year, brute_years(years, of, span)) & ~np.isnan(values)]
        assert distributions.own_number(own, place) == sample.size
        if sample.size == 0:
            assert np.isnan(distributions.own_mean(own, place))
            continue
        assert distributions.own_mean(own, place) == pytest.approx(
            sample.mean(dtype=float), abs=1e-12
        )
        x = sample[0]
        middle = ((sample < x).sum() + (sample <= x).sum() + 1) / 2
        assert distributions.own_rank(own, place, x) == middle


@given(p=st.floats(1e-12, 1 - 1e-12))
def test_normal_quantiles_are_those_of_the_distribution(p: float) -> None:
    assert distributions.normal_quantile(p) == pytest.approx(stats.norm.ppf(p), rel=1e-7, abs=1e-12)


@given(k=st.floats(0.2, 200))
def test_weibull_shape_has_the_given_coefficient_of_variation(k: float) -> None:
    variation = stats.weibull_min.std(k) / stats.weibull_min.mean(k)
    assert distributions.weibull_shape(variation) == pytest.approx(k, rel=1e-6)
