"""Stage `climatology`: the cycle of the training days, floored, masked, on any axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chain import CYCLE, Chain, grids
from numpy.typing import NDArray

from finescale import chunking, climatology
from finescale.calendars import Days, reference_slots, slots
from finescale.errors import SourceError
from finescale.fields import Field
from finescale.store import open_store
from finescale.variables import MM_PER_DAY

GRID, _ = grids(4, 4, ratio=2)
YEARS = ("1991-01-01", "1994-12-31")


def axis(calendar: str = "standard", first: int = 1990, last: int = 1996) -> Days:
    end = "12-30" if calendar == "360_day" else "12-31"
    return Days.range(f"{first}-01-01", f"{last}-{end}", calendar)


def run(
    chain: Chain,
    days: Days,
    values: NDArray[Any],
    variable_id: str = "tas",
    *,
    name: str = "c",
    train: tuple[str, str] = YEARS,
    season: str | None = None,
    **changed: Any,
) -> NDArray[np.float32]:
    """Return the climatology (slot, lat, lon) of a daily field."""
    series = chain.daily(
        "reference", name, variable_id, days, GRID, values, layout="tiles", season=season
    )
    work = chain.job("climatology", name, variable_id=variable_id)
    climatology.run(work, series=series, train=train, **{**CYCLE, **changed})
    return chain.keep(work).read(variable_id)


def cycle(n: int = 366) -> NDArray[np.float64]:
    """Return three harmonics of the year about 285 K, with another phase in every cell."""
    phase = 2 * np.pi * (np.arange(n)[:, None, None] + 0.5) / n
    place = np.arange(GRID.size).reshape(GRID.shape) / GRID.size
    return (
        285 + 10 * np.cos(phase - place) + 3 * np.sin(2 * phase + place) + 1.5 * np.cos(3 * phase)
    )


@pytest.mark.parametrize("calendar", ["standard", "noleap", "all_leap", "360_day"])
def test_three_harmonics_are_returned_exactly(calendar: str, chain: Chain) -> None:
    """In every calendar, 29 February included; a plain mean of a noleap slot 59 would be NaN."""
    days = axis(calendar)
    own = reference_slots(calendar)[slots(days)]
    found = run(chain, days, cycle()[own])
    assert found.shape == (366, *GRID.shape)
    assert np.abs(found - cycle()).max() < 1e-4


def test_weather_of_other_frequencies_is_left_out(chain: Chain) -> None:
    """Four years of a daily zigzag and of a ten-day wave that fits no year."""
    days = axis()
    t = days.ordinal[:, None, None]
    noise = 3 * (-1.0) ** t + 2 * np.sin(2 * np.pi * t / 10.3)
    found = run(chain, days, cycle()[slots(days)] + noise)
    assert np.abs(found - cycle()).max() < 0.1


def test_only_training_days_count(chain: Chain) -> None:
    days = axis()
    values = cycle()[slots(days)]
    values[(days.year < 1991) | (days.year > 1994)] += 50
    assert np.abs(run(chain, days, values) - cycle()).max() < 1e-4
    with pytest.raises(SourceError, match=r"no day of 2001-01-01..2010-12-31"):
        run(chain, days, values, train=("2001-01-01", "2010-12-31"))


def test_ratios_never_divide_by_less_than_the_floor(chain: Chain) -> None:
    days = axis()
    rain = np.where(np.arange(366) < 180, 4.0, 0.0)[slots(days)] * MM_PER_DAY
    wet = np.broadcast_to(rain[:, None, None], (len(days), *GRID.shape))
    for floor in (0.05, 0.5):
        found = run(chain, days, wet, "pr", name=f"{floor}", floor=floor)
        lowest = np.float32(floor * MM_PER_DAY)
        assert found.min() == lowest, "three harmonics of a step go below zero"
        assert (found == lowest).mean() > 0.1
        assert found.max() > 3.5 * MM_PER_DAY
    small = np.full(wet.shape, 0.02)
    assert (run(chain, days, small, "dtr") == np.float32(climatology.DTR_FLOOR)).all()


def test_temperatures_have_no_floor(chain: Chain) -> None:
    days = axis()
    found = run(chain, days, np.full((len(days), *GRID.shape), 200.0), floor=300.0)
    assert np.abs(found - 200).max() < 1e-4


def test_cells_with_too_few_training_days_are_masked(chain: Chain) -> None:
    days = axis()
    values = cycle()[slots(days)]
    inside = np.flatnonzero((days.year >= 1991) & (days.year <= 1994))
    rng = np.random.default_rng(1)
    for cell, share in ((0, 0.45), (1, 0.55), (2, 1.0)):
        values[rng.choice(inside, int(share * len(inside)), replace=False), 0, cell] = np.nan
    values[~np.isin(np.arange(len(days)), inside), 0, 3] = np.nan  # outside the training only
    for fraction, cells in ((0.5, [False, True, True, False]), (0.4, [False, False, True, False])):
        found = run(chain, days, values, name=f"{fraction}", min_valid_fraction=fraction)
        assert np.isnan(found[:, 0]).all(axis=0).tolist() == cells
        assert np.isnan(found[:, 0]).any(axis=0).tolist() == cells
        assert np.abs(found[:, 0, 0] - cycle()[:, 0, 0]).max() < 1e-3, "days at random are enough"
        assert not np.isnan(found[:, 1:]).any()


def test_a_season_is_a_window_mean_that_keeps_within_it(chain: Chain) -> None:
    """Harmonics of three months are singular, and a window from February must not reach March."""
    whole = axis(first=1990, last=1996)
    days = whole[np.isin(whole.month, [12, 1, 2])]
    place = (days.ordinal - np.array([Days.range(f"{y}-12-01", f"{y}-12-01", "standard").ordinal[0]
        for y in days.year - (days.month < 3)]))  # fmt: skip
    values = 270 + 0.1 * place[:, None, None] + np.zeros(GRID.shape)
    found = run(chain, days, values, season="DJF", half_window=10)
    slot = {"Dec 1": 335, "Jan 15": 14, "Feb 28": 58}
    assert found[slot["Jan 15"]] == pytest.approx(270 + 0.1 * 45, abs=0.02)
    assert found[slot["Dec 1"]] == pytest.approx(270 + 0.1 * 5, abs=0.02)
    assert (np.abs(found[slot["Feb 28"]] - (270 + 0.1 * 84)) < 0.1).all()
    assert not np.isnan(found[[335, 365, 0, 58, 59]]).any()
    made = Field(open_store(str(chain.folder / "climatology" / "c.zarr")))
    assert made.season == {"season": "DJF"}


def test_values_do_not_depend_on_the_blocks(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    days = axis()
    values = cycle()[slots(days)] + np.random.default_rng(1).normal(0, 3, (len(days), *GRID.shape))
    whole = run(chain, days, values)
    monkeypatch.setattr(chunking, "TILE", 3)
    monkeypatch.setattr(chunking, "SLAB", 50)
    assert np.array_equal(whole, run(chain, days, values, name="cut"))
