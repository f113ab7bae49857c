"""Point values of coarse cells: area means that stay, holes that are smooth, nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
from chain import Chain, grids
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from finescale import regrid
from finescale.disaggregate import Interpolation, area_means, laplacian, point_solver, point_system
from finescale.errors import ContractError
from finescale.store import Store

FINE, COARSE = grids(16, 24)
FRACTION = 0.4
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("disaggregate"))


@pytest.fixture(scope="module")
def there(chain: Chain) -> Store:
    return chain.weights("there", COARSE, FINE, "bilinear")


@pytest.fixture(scope="module")
def back(chain: Chain) -> Store:
    return chain.weights("back", FINE, COARSE, "conservative")


def mean_over(mask: Mask, fine: Floats) -> tuple[Floats, Floats]:
    """Return block means (time, lat, lon) over `mask`, and how much of a block it covers."""
    share = oracles.coarse_means(mask[None].astype(float))
    with np.errstate(invalid="ignore"):
        return oracles.coarse_means(np.where(mask, fine, 0.0)) / share, share[0]


def solved(there: Store, anomalies: Floats, valid: Mask, **options: Any) -> tuple[Floats, Floats]:
    """Return the point values and what becomes of them on the fine grid."""
    made = Interpolation.between(there, coarse=COARSE, fine=FINE, valid=valid, **options)
    assert made.system is not None
    solve = point_solver(made.system, valid, where="anomalies")
    points = solve(np.where(valid, anomalies, np.nan))
    return points, oracles.bilinear(points, COARSE, FINE)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Mask, Mask, Floats]:
    """Draw a fine mask, coarse cells that have values, and their anomalies [K]."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    mask = rng.random(FINE.shape) < draw(st.floats(0.3, 1.0))
    valid = rng.random(COARSE.shape) < draw(st.floats(0.2, 1.0))
    valid[draw(st.integers(0, 3)), draw(st.integers(0, 5))] = True
    return mask, valid, rng.normal(0, 3, (4, *COARSE.shape))


@settings(max_examples=25, deadline=None)
@given(world=worlds(), fill=st.sampled_from(["nearest", "smooth"]))
def test_the_mean_over_the_product_is_the_coarse_anomaly(
    world: tuple[Mask, Mask, Floats], fill: str, there: Store, back: Store
) -> None:
    """Of cells that are covered well enough; the others keep the anomaly as a point value."""
    mask, valid, anomalies = world
    means = area_means(back, coarse=COARSE, fine=FINE, mask=mask, min_valid_fraction=FRACTION)
    points, fine = solved(there, anomalies, valid, fill=fill, means=means)
    found, share = mean_over(mask, fine)
    preserved = valid & (share >= FRACTION)
    assert np.abs(found - anomalies)[:, preserved].max(initial=0) < 1e-9
    assert np.abs(points - anomalies)[:, valid & ~preserved].max(initial=0) < 1e-9


@settings(max_examples=25, deadline=None)
@given(world=worlds())
def test_a_smooth_fill_is_the_mean_of_its_neighbours(
    world: tuple[Mask, Mask, Floats], there: Store
) -> None:
    """Laplace's equation cell by cell; values of valid cells are untouched."""
    _, valid, anomalies = world
    anomalies[0] = 1.0
    if valid.all():
        valid[0, 0] = False
    points, _ = solved(there, anomalies, valid, fill="smooth")
    assert np.abs(points - anomalies)[:, valid].max() < 1e-9
    rows, columns = COARSE.shape
    for j, i in np.argwhere(~valid):
        near = [(j - 1, i), (j + 1, i), (j, i - 1), (j, i + 1)]
        inside = [points[:, a, b] for a, b in near if 0 <= a < rows and 0 <= b < columns]
        assert np.abs(points[:, j, i] - np.mean(inside, axis=0)).max() < 1e-9
    assert np.abs(points[0] - 1).max() < 1e-9


@pytest.mark.parametrize("fill", ["nearest", "smooth"])
def test_a_uniform_anomaly_stays_uniform(fill: str, there: Store, back: Store) -> None:
    mask = np.random.default_rng(1).random(FINE.shape) < 0.6
    valid = np.random.default_rng(2).random(COARSE.shape) < 0.5
    means = area_means(back, coarse=COARSE, fine=FINE, mask=mask, min_valid_fraction=FRACTION)
    anomalies = np.full((4, *COARSE.shape), -2.5)
    _, fine = solved(there, anomalies, valid, fill=fill, means=means)
    assert np.abs(fine + 2.5).max() < 1e-9


def test_means_are_of_the_masked_cells_alone(back: Store) -> None:
    """A sliver of land says nothing of its coarse cell: it has no mean."""
    mask = np.zeros(FINE.shape, bool)
    mask[:4, :2] = mask[4, 4] = True
    means = area_means(back, coarse=COARSE, fine=FINE, mask=mask, min_valid_fraction=FRACTION)
    rows, columns = means.nonzero()
    assert set(rows) == {0}
    assert set(columns) == set(np.flatnonzero(mask[:4].reshape(-1)))
    assert means.sum() == pytest.approx(1)


def test_nothing_flows_across_the_edge_of_a_box() -> None:
    assert laplacian((1, 3)).toarray().tolist() == [[1, -1, 0], [-1, 2, -1], [0, -1, 1]]
    assert laplacian((1, 1)).toarray().tolist() == [[0]]


def test_the_published_way_needs_no_system(there: Store) -> None:
    """And reads, bit for bit, the nearest valid cell in place of a hole."""
    valid = np.random.default_rng(2).random(COARSE.shape) < 0.5
    made = Interpolation.between(there, coarse=COARSE, fine=FINE, valid=valid)
    assert made.system is None
    index, _ = regrid.fill_nearest(valid, COARSE)
    wanted = regrid.compose(regrid.bilinear(COARSE, FINE), index).csr()
    for name in ("indptr", "indices", "data"):
        assert np.array_equal(getattr(made.matrix, name), getattr(wanted, name))


@pytest.mark.parametrize("faint", [0.0, 1e-14])
def test_means_that_leave_point_values_open_are_refused(faint: float) -> None:
    """Two cells with one mean: any difference between them would do."""
    system = np.eye(COARSE.size)
    system[:2, :2] = [[0.1, 0.9], [0.1, 0.9 + faint]]
    everywhere = np.ones(COARSE.shape, bool)
    with pytest.raises(ContractError, match=r"^gcm: .* 24 valid cells.*raise `coarsen.min_valid"):
        point_solver(sparse.csc_array(system), everywhere, where="gcm")


def test_days_are_solved_alike_in_any_company() -> None:
    """Solved several at once, they have other bits for another number of them."""
    shape = (40, 60)
    valid = np.broadcast_to(np.arange(60) < 10, shape)
    no_means = sparse.csr_array((valid.size, valid.size))
    solve = point_solver(
        point_system(valid.reshape(-1), laplacian(shape), no_means), valid, where="gcm"
    )
    known = np.random.default_rng(2).normal(size=(366, *shape))
    few = [solve(known[start : start + 7]) for start in range(0, 366, 7)]
    assert np.array_equal(np.concatenate(few), solve(known))
