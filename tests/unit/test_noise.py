"""Noise: standard normal, of the lengths asked for, a function of place and date alone."""

import numpy as np
import pytest
from scipy import stats

from finescale.calendars import Days
from finescale.errors import ContractError
from finescale.grids import Grid
from finescale.noise import Noise, estimate

GRID = Grid.from_centres(40.25 + 0.5 * np.arange(12), -5.75 + 0.5 * np.arange(16))
BOX = slice(0, 12), slice(0, 16)
LENGTHS = {"length_km": 200.0, "length_days": 3.0}


def days(first: int, last: int, calendar: str = "noleap") -> Days:
    return Days.range(f"{first}-01-01", f"{last}-12-30", calendar)


def field(axis: Days, lat: slice = BOX[0], lon: slice = BOX[1], **changed: object) -> np.ndarray:
    options = {"seed": 1, "variable": "tas", **LENGTHS, **changed}
    return Noise(GRID, lat, lon, **options).draw(axis)


@pytest.fixture(scope="module")
def decades() -> np.ndarray:
    return field(days(1981, 2020))


def test_each_cell_is_standard_normal(decades: np.ndarray) -> None:
    """Weights that are not scaled by their squares give another variance at every cell."""
    assert abs(decades.mean()) < 0.03
    assert np.abs(decades.var(axis=0) - 1).max() < 0.12
    assert abs(decades.var(axis=0).mean() - 1) < 0.03
    thinned = decades[::30, ::37]
    assert stats.kstest(thinned.reshape(-1), "norm").pvalue > 0.01


@pytest.mark.parametrize(("km", "length_days"), [(150.0, 1.0), (300.0, 4.0), (800.0, 2.0)])
def test_the_lengths_asked_for_are_found_again(km: float, length_days: float) -> None:
    axis = days(1951, 2010)
    every = {"lat": slice(0, 12, 3), "lon": slice(0, 16, 3)}
    made = field(axis, **every, length_km=km, length_days=length_days)
    cells = np.meshgrid(GRID.lat[::3], GRID.lon[::3], indexing="ij")
    found = estimate(made, axis, *(a.reshape(-1) for a in cells))
    assert found[0] == pytest.approx(km, rel=0.1)
    assert found[1] == pytest.approx(length_days, rel=0.1)


def test_estimates_ignore_the_annual_cycle() -> None:
    """An annual cycle left in is a correlation of a thousand kilometres and of months."""
    axis = days(1981, 2000)
    cycle = 280 - 10 * np.cos(2 * np.pi * axis.ordinal / 365)[:, None]
    cells = [a.reshape(-1) for a in np.meshgrid(GRID.lat[::3], GRID.lon[::3], indexing="ij")]
    made = field(axis, slice(0, 12, 3), slice(0, 16, 3))
    scaled = cycle + (2 + cycle / 280) * made
    assert estimate(scaled, axis, *cells) == pytest.approx(estimate(made, axis, *cells), rel=0.03)
    scaled[100:130, 3] = np.nan
    assert np.isfinite(estimate(scaled, axis, *cells)).all()


def test_nothing_repeats(decades: np.ndarray) -> None:
    """Noise made for ten years and used again correlates with itself after a decade."""
    year = 365
    for n_years in (1, 10, 20):
        a, b = decades[: -n_years * year, 0], decades[n_years * year :, 0]
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


@pytest.mark.parametrize("changed", [{"seed": 2}, {"variable": "pr"}])
def test_another_seed_or_variable_is_another_field(
    changed: dict[str, object], decades: np.ndarray
) -> None:
    other = field(days(1981, 2020), **changed)
    assert abs(np.corrcoef(decades[:, 0], other[:, 0])[0, 1]) < 0.06


def test_a_day_is_the_same_whatever_is_asked_beside_it(decades: np.ndarray) -> None:
    """A recursion that starts with the period gives other numbers, so does one per tile."""
    axis = days(1981, 2020)
    chosen = np.array([40, 3, 3, 4000, 9000])
    box = slice(5, 6), slice(3, 10)
    part = field(axis[chosen], *box)
    assert np.array_equal(part, decades.reshape(-1, 12, 16)[chosen, 5, 3:10])
    assert np.array_equal(field(axis[8000:8001]), decades[8000:8001])


@pytest.mark.parametrize("calendar", ["standard", "360_day", "julian"])
def test_every_calendar_has_noise(calendar: str) -> None:
    made = field(days(2001, 2003, calendar), slice(0, 1), slice(0, 1))
    assert np.isfinite(made).all()
    assert 0.5 < made.std() < 1.5


def test_the_globe_has_no_seam_and_poles_have_noise() -> None:
    """A lattice that ends at a meridian makes independent neighbours; one of meridians that meet
    at the pole, too much noise there."""
    grid = Grid.from_centres([-89.9, 0.0, 89.9], 0.05 + 0.1 * np.arange(3600))
    every = slice(0, 3), slice(0, 3600, 3599)
    noise = Noise(grid, *every, seed=1, variable="tas", length_km=500.0, length_days=0.0)
    made = noise.draw(days(1991, 1993)).reshape(-1, 3, 2)
    assert np.corrcoef(made[:, 1, 0], made[:, 1, 1])[0, 1] > 0.99
    assert np.abs(made.var(axis=0) - 1).max() < 0.15


def test_without_memory_days_are_independent() -> None:
    made = field(days(1981, 2000), length_days=0.0)[:, 0]
    assert abs(np.corrcoef(made[1:], made[:-1])[0, 1]) < 0.05


@pytest.mark.parametrize("changed", [{"length_km": 0.0}, {"length_days": -1.0}])
def test_a_length_that_cannot_be_is_told(changed: dict[str, object]) -> None:
    with pytest.raises(ContractError, match="length_km"):
        field(days(2001, 2001), **changed)


def test_one_cell_has_no_length() -> None:
    axis = days(2001, 2003)
    with pytest.raises(ContractError, match="two cells"):
        estimate(field(axis)[:, :1], axis, GRID.lat[:1], GRID.lon[:1])
