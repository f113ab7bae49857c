"""Analogs: regions, the search and the weights, against brute force in numpy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from finescale import calendars
from finescale.analogs import regions, ridge_weights, search
from finescale.calendars import Days
from finescale.errors import ContractError
from finescale.grids import Grid

Floats = NDArray[np.float64]
OPTIONS: dict[str, Any] = {
    "n_analogs": 4,
    "day_window": 45,
    "exclude_days": 7,
    "where": "here",
}


def years(first: int, last: int, calendar: str = "noleap") -> Days:
    return Days.range(f"{first}-01-01", f"{last + 1}-01-01", calendar)[:-1]


def regular(n_lat: int, n_lon: int, step: float, south: float = -30.0, west: float = -10.0) -> Grid:
    return Grid.from_centres(
        south + step * (np.arange(n_lat) + 0.5), west + step * (np.arange(n_lon) + 0.5)
    )


# --------------------------------------------------------------------------------------
# Regions


@settings(max_examples=50, deadline=None)
@given(
    n_lat=st.integers(2, 30),
    n_lon=st.integers(2, 40),
    step=st.sampled_from([0.5, 1.0, 2.5]),
    cells=st.floats(4, 50),
)
def test_shares_sum_to_one_and_regions_are_no_larger_than_asked(
    n_lat: int, n_lon: int, step: float, cells: float
) -> None:
    coarse, fine = regular(n_lat, n_lon, step), regular(5 * n_lat, 5 * n_lon, step / 5)
    found = regions(coarse, cells * step)
    south, north, west, east = found.bounds().T
    assert (north - south).max() <= max(cells * step, n_lat * step) + 1e-9
    assert (east - west).max() <= max(cells * step, n_lon * step) + 1e-9
    assert (south.min(), west.min()) == pytest.approx((-30, -10))
    assert (north.max(), east.max()) == pytest.approx((-30 + n_lat * step, -10 + n_lon * step))
    lat, lon = found.shares(fine)
    share = (lat[:, None, :, None] * lon[None, :, None, :]).reshape(len(found), *fine.shape)
    np.testing.assert_allclose(share.sum(axis=0), 1.0, rtol=1e-14)
    assert share.min() >= 0
    assert ((share > 0).sum(axis=0) <= 4).all()
    for r in range(len(found)):
        inside = np.outer(
            (fine.lat > south[r]) & (fine.lat < north[r]),
            (fine.lon > west[r]) & (fine.lon < east[r]),
        )
        assert not share[r][~inside].any()


def test_shares_fall_smoothly_to_nothing_at_the_edge() -> None:
    """A cell across the edge of a region, 0.01 of it away, gets less than a thousandth."""
    fine = regular(4, 4000, 0.01)
    lon = regions(regular(4, 40, 1.0), 10.0).lon.shares(fine.lon)
    assert np.abs(np.diff(lon, axis=1)).max() < 0.0031
    assert np.abs(np.diff(lon, n=2, axis=1)).max() < 1e-4


def test_regions_close_the_circle() -> None:
    """The first and the last column of a globe share their regions; a cut there is a seam."""
    globe = Grid.from_centres(np.arange(-85.0, 90, 10), np.arange(5.0, 360, 10))
    lon = regions(globe, 60.0).lon
    assert lon.n == 12
    shares = lon.shares(np.array([0.01, 359.99, 719.99]))
    np.testing.assert_allclose(shares.sum(axis=0), 1.0)
    np.testing.assert_allclose(shares[:, 0], shares[:, 1], atol=0.01)
    np.testing.assert_allclose(shares[:, 1], shares[:, 2], atol=1e-9)


def test_a_small_domain_is_one_region() -> None:
    found = regions(regular(3, 5, 1.0), 10.0)
    assert len(found) == 1
    assert (found.lon.shares(np.array([-20.0, -7.0, 40.0])) == 1).all()


def test_a_region_looks_at_every_cell_that_reaches_into_it() -> None:
    """By centres alone, it would not see rain in the outer half of a cell that it is to make."""
    globe = Grid.from_centres(np.arange(-85.0, 90, 10), np.arange(5.0, 360, 10))
    for grid, degrees in ((regular(7, 9, 2.5), 7.0), (globe, 50.0), (globe, 720.0)):
        found = regions(grid, degrees)
        lat = np.linspace(grid.lat_bnds[0, 0] + 0.01, grid.lat_bnds[-1, 1] - 0.01, 700)
        lon = np.linspace(grid.lon_bnds[0, 0] + 0.01, grid.lon_bnds[-1, 1] - 0.01, 1500)
        rows = np.searchsorted(grid.lat_bnds[:, 1], lat)
        columns = np.searchsorted(grid.lon_bnds[:, 1], lon)
        shares = found.lat.shares(lat) > 0, found.lon.shares(lon) > 0
        for r in range(len(found)):
            i, j = divmod(r, found.lon.n)
            seen = {
                y * grid.shape[1] + x
                for y in set(rows[shares[0][i]].tolist())
                for x in set(columns[shares[1][j]].tolist())
            }
            assert set(found.cells(r, grid).tolist()) == seen


# --------------------------------------------------------------------------------------
# The search


def brute_search(
    targets: list[Floats], patterns: list[Floats], days: Days, past: Days, area: Floats
) -> NDArray[np.int64]:
    """Sort all candidates of each day by (distance, date)."""
    slot, past_slot = calendars.standard_slots(days), calendars.standard_slots(past)
    existing = np.unique(past_slot)
    gaps = np.diff(existing, append=existing[0] + 366) > 2
    assert not gaps.any()
    index = np.empty((len(days), OPTIONS["n_analogs"]), dtype=np.int64)
    position, past_position = (np.searchsorted(existing, s) for s in (slot, past_slot))
    for t in range(len(days)):
        apart = np.abs(position[t] - past_position)
        apart = np.minimum(apart, existing.size - apart)
        near = (apart <= OPTIONS["day_window"]) & ~np.isnan(patterns[0]).any(axis=1)
        square = np.zeros(len(past))
        for x, y in zip(targets, patterns, strict=True):
            spread = (area * y[near].var(axis=0)).sum()
            square += (area * (x[t] - y) ** 2).sum(axis=1) / spread
        excluded = np.abs(days.ordinal[t] - past.ordinal) <= OPTIONS["exclude_days"]
        near &= ~excluded
        found = sorted(np.flatnonzero(near).tolist(), key=lambda k: (np.round(square[k], 12), k))
        index[t] = found[: OPTIONS["n_analogs"]]
    return index


@pytest.mark.parametrize("n_variables", [1, 2])
def test_the_search_is_exhaustive_and_ties_go_by_date(n_variables: int) -> None:
    """Of many equal days. Chosen by BLAS alone, rounding decides between them."""
    rng = np.random.default_rng(3)
    past, days = years(2001, 2004), years(2004, 2005)[::5]
    kinds = [rng.normal(285, 5, (40, 6)) for _ in range(n_variables)]
    kinds[-1] = kinds[-1] * 1e-5
    which = rng.integers(0, 40, len(past))
    patterns = [k[which] for k in kinds]
    patterns[0][::50, 2] = np.nan
    seen, drawn = rng.random((len(days), 1)) < 0.5, rng.integers(0, 40, len(days))
    targets = [np.where(seen, k[drawn], k[0] * 1.01) for k in kinds]
    area = rng.random(6)
    area /= area.sum()
    index, distance = search(targets, patterns, days=days, past=past, area=area, **OPTIONS)
    assert np.array_equal(index, brute_search(targets, patterns, days, past, area))
    assert (np.diff(distance, axis=1) >= 0).all()
    assert (distance[:, 0] == 0).mean() > 0.3


def test_distances_are_root_mean_squares_of_standard_deviations() -> None:
    rng = np.random.default_rng(4)
    past = years(2001, 2003)
    pattern = 285 + 4.0 * rng.normal(size=(len(past), 2))
    target = np.full((1, 2), 285.0)
    area = np.array([0.25, 0.75])
    options = OPTIONS | {"day_window": 183}
    index, distance = search([target], [pattern], days=past[:1], past=past, area=area, **options)
    spread = (area * pattern.var(axis=0)).sum()
    wanted = np.sqrt((area * (pattern[index[0]] - 285) ** 2).sum(axis=1) / spread)
    np.testing.assert_allclose(distance[0], wanted)


@pytest.mark.parametrize(
    ("calendar", "past_calendar"),
    [("standard", "standard"), ("noleap", "standard"), ("360_day", "standard")],
)
def test_no_day_finds_its_own_week_in_another_calendar(calendar: str, past_calendar: str) -> None:
    """A model day that equals the observed one is no evidence; a day before 2001 excludes none."""
    past, days = years(2001, 2003, past_calendar), years(2000, 2003, calendar)
    year = np.array([2001, 2002, 2003])
    place = [d.year + calendars.standard_slots(d) / 366 for d in (days, past)]
    targets, patterns = (np.stack([np.sin(3e4 * p), p], axis=1) for p in place)
    index, _ = search([targets], [patterns], days=days, past=past, area=np.full(2, 0.5), **OPTIONS)
    apart = np.abs(366 * (place[1][index] - place[0][:, None]))
    inside = np.isin(days.year, year)
    assert apart[inside].min() > 6
    slot, past_slot = calendars.standard_slots(days), calendars.standard_slots(past)[index]
    circle = np.abs(slot[:, None].astype(int) - past_slot)
    assert np.minimum(circle, 366 - circle).max() <= 46
    allowed = OPTIONS | {"exclude_days": -1, "n_analogs": 1}
    if calendar == past_calendar:
        own, distance = search(
            [targets[inside]],
            [patterns],
            days=days[inside],
            past=past,
            area=np.full(2, 0.5),
            **allowed,
        )
        assert np.array_equal(own[:, 0], np.arange(len(past)))
        assert not distance.any()


def test_a_seasons_days_have_analogs_of_the_season() -> None:
    """December's window ends with November; counted in days of the year it would have none."""
    past = years(2001, 2004)
    past = past[np.isin(past.month, [12, 1, 2])]
    pattern = np.random.default_rng(5).normal(size=(len(past), 3))
    index, _ = search([pattern], [pattern], days=past, past=past, area=np.full(3, 1 / 3), **OPTIONS)
    december = index[(past.month == 12) & (past.day == 1)]
    assert set(past.month[december].ravel().tolist()) <= {12, 1}


def test_too_few_candidates_are_named() -> None:
    past = years(2001, 2001)
    pattern = np.zeros((365, 1))
    with pytest.raises(ContractError, match=r"2001-01-07, found 3 of 365"):
        search(
            [pattern], [pattern], days=past, past=past, area=np.ones(1),
            **OPTIONS | {"day_window": 8},
        )  # fmt: skip


def test_other_days_change_no_bit() -> None:
    """Shapes of the matrix product must not matter."""
    rng = np.random.default_rng(6)
    past, days = years(2001, 2003), years(2011, 2020)
    pattern, target = rng.normal(size=(len(past), 30)), rng.normal(size=(len(days), 30))
    area = np.full(30, 1 / 30)
    whole = search([target], [pattern], days=days, past=past, area=area, **OPTIONS)
    some = slice(100, 131)
    part = search([target[some]], [pattern], days=days[some], past=past, area=area, **OPTIONS)
    for a, b in zip(whole, part, strict=True):
        assert np.array_equal(a[some], b)


# --------------------------------------------------------------------------------------
# The weights


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ridge=st.sampled_from([0.01, 0.1, 1.0]))
def test_weights_are_those_of_ridge_regression(seed: int, ridge: float) -> None:
    rng = np.random.default_rng(seed)
    patterns, target = rng.gamma(1.0, 2.0, (20, 30)), rng.gamma(1.0, 2.0, (3, 30))
    index = np.stack([rng.permutation(20)[:5] for _ in range(3)])
    area = rng.random(30)
    found = [ridge_weights(target, patterns, index, area, ridge, shift) for shift in (True, False)]
    for t in range(3):
        best = patterns[index[t, 0]]
        for shift, base, first in ((0, best, 1), (1, np.zeros(30), 0)):
            a = (patterns[index[t, first:]] - base).T
            gram = a.T @ (area[:, None] * a)
            penalty = ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
            wanted = np.linalg.solve(gram + penalty, a.T @ (area * (target[t] - base)))
            np.testing.assert_allclose(found[shift][t, first:], wanted, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found[0].sum(axis=1), 1.0)


@pytest.mark.parametrize("n_cells", [1, 3, 40])
@pytest.mark.parametrize("shift", [True, False])
def test_a_day_that_is_its_own_best_analog_is_returned(n_cells: int, shift: bool) -> None:
    """Also with fewer cells than analogs, where others would explain it as well."""
    rng = np.random.default_rng(7)
    patterns = rng.gamma(1.0, 2.0, (20, n_cells)) + (285 if shift else 0)
    index = np.arange(10)[None]
    found = ridge_weights(patterns[:1], patterns, index, np.ones(n_cells), 0.0, shift)
    np.testing.assert_allclose(found[0], np.eye(10)[0], atol=1e-10)


def test_weights_of_kind_plus_do_not_depend_on_the_zero_of_the_scale() -> None:
    """In kelvin as in degrees Celsius: a plain ridge gives all analogs a tenth in kelvin."""
    rng = np.random.default_rng(8)
    patterns, target = rng.normal(10, 4, (10, 30)), rng.normal(10, 4, (1, 30))
    index = np.arange(10)[None]
    celsius, kelvin = (
        ridge_weights(target + zero, patterns + zero, index, np.ones(30), 0.1, True)
        for zero in (0.0, 273.15)
    )
    np.testing.assert_allclose(kelvin, celsius, atol=1e-9)


def test_a_dry_day_among_dry_analogs_has_no_weights() -> None:
    """Division by a Gram matrix of nothing gives NaN."""
    found = ridge_weights(
        np.zeros((1, 4)), np.zeros((5, 4)), np.arange(5)[None], np.ones(4), 0.1, False
    )
    assert not found.any()
