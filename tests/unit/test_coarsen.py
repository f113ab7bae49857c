"""Stage `coarsen`: area means, conserved, where enough of a cell has data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chain import Chain, grids
from numpy.typing import NDArray

from finescale import chunking, coarsen
from finescale.calendars import Days
from finescale.fields import Field
from finescale.grids import Grid
from finescale.store import Store, open_store

DAYS = Days.range("2001-01-01", "2001-02-09", "noleap")
FINE, NESTED = grids()
SHIFTED = Grid.from_centres([40.3, 41.7, 43.2], [-5.6, -3.1, -1.0, 1.4])
"""Cells that fit nothing, some of them partly or wholly outside of the fine grid."""


def weather(seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(250, 310, (len(DAYS), *FINE.shape))


def run(
    chain: Chain, values: NDArray[np.float64], grid: Grid, *, share: float = 0.5, name: str = "c"
) -> Field:
    reference = chain.daily("reference", name, "tas", DAYS, FINE, values, layout="tiles")
    work = chain.job("coarsen", name, variable_id="tas")
    weights = chain.weights(name, FINE, grid, "conservative")
    coarsen.run(
        work, reference=reference, weights=weights, grid=grid.to_json(), min_valid_fraction=share
    )
    return Field(open_store(work.output))


def overlap(grid: Grid) -> NDArray[np.float64]:
    """Return the share of each coarse cell that each fine cell covers, (coarse, fine): brute force.

    Every pair of cells is intersected; areas on the sphere are differences of sin(lat) times
    those of lon.
    """
    shares = np.zeros((*grid.shape, *FINE.shape))
    for i, j, k, m in np.ndindex(shares.shape):
        south = max(grid.lat_bnds[i, 0], FINE.lat_bnds[k, 0])
        north = min(grid.lat_bnds[i, 1], FINE.lat_bnds[k, 1])
        width = min(grid.lon_bnds[j, 1], FINE.lon_bnds[m, 1]) - max(
            grid.lon_bnds[j, 0], FINE.lon_bnds[m, 0]
        )
        if north > south and width > 0:
            high, low = np.sin(np.deg2rad([north, south]))
            top, bottom = np.sin(np.deg2rad(grid.lat_bnds[i, ::-1]))
            whole = (top - bottom) * (grid.lon_bnds[j, 1] - grid.lon_bnds[j, 0])
            shares[i, j, k, m] = (high - low) * width / whole
    return shares.reshape(grid.size, FINE.size)


def brute_force(
    values: NDArray[np.float64], grid: Grid, share: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the means (time, lat, lon), NaN below `share`, and the covered shares."""
    flat = values.astype("f4").astype(float).reshape(len(DAYS), -1)
    weight = overlap(grid)
    valid = ~np.isnan(flat)
    covered = valid.astype(float) @ weight.T
    with np.errstate(invalid="ignore"):
        means = np.where(valid, flat, 0) @ weight.T / covered
    means[covered < share] = np.nan
    return means.reshape(-1, *grid.shape), covered.reshape(-1, *grid.shape)


def test_the_area_mean_is_conserved(chain: Chain) -> None:
    """Point sampling, or weights without cos(lat), would not."""
    values = weather()
    means = run(chain, values, NESTED).read().astype(float)
    for field, grid in ((means, NESTED), (values, FINE)):
        area = grid.cell_area()
        field *= area / area.sum()
    assert np.allclose(means.sum(axis=(1, 2)), values.sum(axis=(1, 2)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
@pytest.mark.parametrize("grid", [NESTED, SHIFTED], ids=["nested", "shifted"])
def test_means_equal_brute_force(grid: Grid, share: float, chain: Chain) -> None:
    values = weather()
    values[:, 4:7, 1:3] = np.nan  # sea
    values[np.random.default_rng(2).random(values.shape) < 0.03] = np.nan
    found = run(chain, values, grid, share=share).read()
    expected, covered = brute_force(values, grid, share)
    decided = np.abs(covered - share) > 1e-9
    assert np.array_equal(np.isnan(found)[decided], np.isnan(expected)[decided])
    both = ~np.isnan(found) & ~np.isnan(expected)
    assert both.any()
    assert np.allclose(found[both], expected[both], rtol=0, atol=5e-5)


def test_a_cell_counts_where_enough_of_it_has_data(chain: Chain) -> None:
    """Half of each cell is sea; the fraction decides, and the mean is that of the land."""
    values = weather()
    land = np.zeros(FINE.shape, bool)
    land[:, :2] = land[:, 4:7] = True  # of columns 0-3: 2 of 4, of 4-7: 3 of 4, of 8-11: none
    values[:, ~land] = np.nan
    shares = {
        share: ~np.isnan(run(chain, values, NESTED, share=share, name=f"{share}").read())
        for share in (0.4, 0.6, 0.8)
    }
    assert [shares[s][0, 0].tolist() for s in shares] == [
        [True, True, False],
        [False, True, False],
        [False, False, False],
    ]
    low, high = np.nanmin(values[:, :4, :2], (1, 2)), np.nanmax(values[:, :4, :2], (1, 2))
    first = run(chain, values, NESTED, share=0.4, name="again").read()[:, 0, 0]
    assert ((first >= low - 1e-4) & (first <= high + 1e-4)).all()


def test_cells_outside_the_reference_are_missing(chain: Chain) -> None:
    """Area outside of the source counts as invalid."""
    outside = Grid.from_centres([39.0, 41.0], [-5.0, -3.0])
    found = run(chain, weather(), outside).read()
    assert np.isnan(found[:, 0]).all()
    assert not np.isnan(found[:, 1]).any()


def test_means_do_not_depend_on_how_the_reference_is_read(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "SLAB", 7)
    whole = run(chain, weather(), SHIFTED).read()
    monkeypatch.setattr(coarsen, "READ_BYTES", 1)
    monkeypatch.setattr(chunking, "FULL_TIME_BYTES", 4 * len(DAYS))
    cut = run(chain, weather(), SHIFTED, name="cut")
    assert cut.chunks == (len(DAYS), 1, 1)
    assert np.array_equal(whole, cut.read(), equal_nan=True)


def test_a_season_stays_declared(chain: Chain) -> None:
    days = Days.range("2001-01-01", "2001-02-28", "noleap")
    values = np.full((len(days), *FINE.shape), 280.0)
    reference: Store = chain.daily(
        "reference", "djf", "tas", days, FINE, values, layout="tiles", season="DJF"
    )
    assert Field(chain.coarsen("djf", reference, NESTED)).season == {"season": "DJF"}
