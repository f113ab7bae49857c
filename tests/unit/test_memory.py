"""Predicted memory: bounded by chunks and threads, whatever the domain."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finescale import memory
from finescale.memory import Sizes

REGION = Sizes(31_000, 23_000, 11_000, 7_300, (96, 96), (10, 10))
STAGES = {
    "reference": memory.reference,
    "simulation": memory.simulation,
    "coarsen": memory.coarsen,
    "climatology": memory.climatology,
    "adjust": lambda s: memory.adjust(s, is_wide=True),
    "interpolate": memory.interpolate,
    "qplad": memory.qplad,
    "maca": memory.maca,
    "gard": lambda s: memory.gard(s, n_predictors=4, is_analog=True),
    "aggregate": lambda s: memory.aggregate(s, n_groups=1000),
    "evaluate": memory.evaluate,
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_domain_of_a_hundred_times_the_cells_takes_little_more(stage: str) -> None:
    """A job that held fields would take a hundred times as much: 140 GB for a product."""
    large = replace(REGION, fine=(960, 960), coarse=(100, 100))
    small, grown = (memory.mb(STAGES[stage](sizes)) for sizes in (REGION, large))
    assert grown <= small + 1000


@pytest.mark.parametrize("stage", ["climatology", "adjust", "qplad", "maca", "gard", "evaluate"])
def test_two_threads_take_at_most_twice_the_memory(stage: str) -> None:
    one, two = (STAGES[stage](replace(REGION, n_threads=n)) for n in (1, 2))
    assert one < two <= 2 * one


@given(
    st.sampled_from(sorted(STAGES)),
    st.integers(1, 60_000),
    st.tuples(st.integers(1, 800), st.integers(1, 1500)),
    st.integers(1, 8),
)
def test_memory_is_finite_and_above_that_of_the_libraries(
    stage: str, days: int, fine: tuple[int, int], ratio: int
) -> None:
    coarse = (max(fine[0] // ratio, 1), max(fine[1] // ratio, 1))
    sizes = Sizes(days, days, days, min(days, 7300), fine, coarse)
    assert memory.BASE_MB < memory.mb(STAGES[stage](sizes)) < 100_000
