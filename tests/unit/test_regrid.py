"""Regridding: weights against brute force, their application, filling and exchange."""

import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from finescale import regrid
from finescale.errors import ConfigError, ContractError
from finescale.grids import Grid, band_height

METHODS = ["conservative", "bilinear", "nearest"]
Floats = NDArray[np.float64]
quick = settings(max_examples=40, deadline=None)


def of_edges(lat: NDArray[Any], lon: NDArray[Any]) -> Grid:
    """Return the grid with these edges and its centres half way."""
    lat_bnds, lon_bnds = (np.stack([x[:-1], x[1:]], axis=1) for x in (lat, lon))
    return Grid(lat_bnds.mean(axis=1), lon_bnds.mean(axis=1), lat_bnds, lon_bnds)


@st.composite
def grids(draw: st.DrawFn, *, covering: bool | None = None) -> Grid:
    """Draw a global or regional grid with uneven cells in any longitude convention."""
    widths = st.lists(st.integers(1, 5), min_size=1, max_size=6)
    lat, lon = (np.cumsum([0, *draw(widths)]) for _ in range(2))
    west = draw(st.sampled_from([-180.0, 0.0, -9.75, 350.0]))
    if draw(st.booleans()) if covering is None else covering:
        return of_edges(-90 + lat / lat[-1] * 180, west + lon / lon[-1] * 360)
    south = draw(st.sampled_from([-80.0, -3.0, 36.25]))
    return of_edges(south + lat * 0.75, west + lon * 1.25)


def regular(south: float, west: float, ny: int, nx: int, step: float) -> Grid:
    """Return a grid of square cells whose first corner is (south, west)."""
    return of_edges(south + step * np.arange(ny + 1), west + step * np.arange(nx + 1))


def field_on(grid: Grid, seed: int, *, n_time: int = 3, holes: float = 0.0) -> Floats:
    """Return random values (time, cell), NaN in a share `holes` of the cells of each step."""
    random = np.random.default_rng(seed)
    values = random.normal(280, 10, (n_time, grid.size))
    return np.where(random.random(values.shape) < holes, np.nan, values)


def dense(weights: regrid.Weights) -> Floats:
    """Return the weights as a plain (n_dst, n_src) matrix."""
    matrix = np.zeros((np.prod(weights.n_dst), np.prod(weights.n_src)))
    matrix[weights.row, weights.col] = weights.S
    return matrix


def holder(grid: Grid, lat: float, lon: float) -> int | None:
    """Return the number of the cell that holds a point."""
    in_row = (grid.lat_bnds[:, 0] < lat) & (lat < grid.lat_bnds[:, 1])
    in_col = (lon - grid.lon_bnds[:, 0]) % 360 < grid.lon_bnds[:, 1] - grid.lon_bnds[:, 0]
    if not in_row.any() or not in_col.any():
        return None
    return int(np.argmax(in_row)) * grid.lon.size + int(np.argmax(in_col))


def shared_areas(src: Grid, dst: Grid) -> Floats:
    """Return the fraction of each target cell in each source cell, piece by piece.

    Cuts the sphere along every edge of both grids and asks who holds the middle of each piece.
    """
    lat_cuts = np.unique(np.concatenate([src.lat_bnds, dst.lat_bnds]).round(9))
    lon_cuts = np.unique(np.concatenate([src.lon_bnds, dst.lon_bnds]).round(9) % 360)
    lon_cuts = np.append(lon_cuts, lon_cuts[0] + 360)
    shared = np.zeros((dst.size, src.size))
    for south, north in pairwise(lat_cuts):
        for west, east in pairwise(lon_cuts):
            middle = (south + north) / 2, (west + east) / 2
            source, target = holder(src, *middle), holder(dst, *middle)
            if source is not None and target is not None:
                shared[target, source] += band_height(south, north) * np.deg2rad(east - west)
    return shared / dst.cell_area().reshape(-1, 1)


def chords(src: Grid, dst: Grid) -> Floats:
    """Return the chord from every target to every source centre, by the haversine."""
    lat_s, lat_d = (np.deg2rad(np.repeat(g.lat, g.lon.size)) for g in (src, dst))
    lon_s, lon_d = (np.deg2rad(np.tile(g.lon, g.lat.size)) for g in (src, dst))
    across = np.multiply.outer(np.cos(lat_d), np.cos(lat_s))
    across *= np.sin(np.subtract.outer(lon_d, lon_s) / 2) ** 2
    return 2 * np.sqrt(np.sin(np.subtract.outer(lat_d, lat_s) / 2) ** 2 + across)


@quick
@given(src=grids(), dst=grids())
def test_conservative_weights_are_the_shared_areas(src: Grid, dst: Grid) -> None:
    found = dense(regrid.conservative(src, dst))
    np.testing.assert_allclose(found, shared_areas(src, dst), atol=1e-7)


@quick
@given(src=grids(covering=True), dst=grids(covering=True), seed=st.integers(0, 99))
def test_global_mean_is_conserved(src: Grid, dst: Grid, seed: int) -> None:
    field = field_on(src, seed)
    regridded = regrid.apply(regrid.conservative(src, dst), field)
    before, after = field @ src.cell_area().ravel(), regridded @ dst.cell_area().ravel()
    np.testing.assert_allclose(after, before, rtol=1e-12)


@quick
@given(src=grids(), dst=grids(), method=st.sampled_from(METHODS))
def test_constants_are_kept(src: Grid, dst: Grid, method: str) -> None:
    weights = regrid.build(src, dst, method)
    constant = regrid.apply(weights, np.full((1, src.size), 287.5), min_valid_fraction=0)[0]
    served = weights.row_sums() > 0
    np.testing.assert_allclose(constant[served], 287.5, rtol=1e-12)
    assert np.isnan(constant[~served]).all()
    if method != "conservative":
        np.testing.assert_allclose(weights.row_sums(), 1, rtol=1e-15)


@quick
@given(grid=grids(), method=st.sampled_from(METHODS), turns=st.sampled_from([-360.0, 0.0, 360.0]))
def test_a_grid_onto_itself_returns_the_field(grid: Grid, method: str, turns: float) -> None:
    turned = Grid(grid.lat, grid.lon + turns, grid.lat_bnds, grid.lon_bnds + turns)
    field = field_on(grid, 1)
    found = regrid.apply(regrid.build(grid, turned, method), field)
    np.testing.assert_allclose(found, field, rtol=1e-12)
    if method != "conservative" or turns == 0:
        np.testing.assert_array_equal(found, field)


@quick
@given(src=grids(), dst=grids())
def test_bilinear_is_exact_for_fields_linear_in_latitude(src: Grid, dst: Grid) -> None:
    field = np.repeat(2 * src.lat - 7, src.lon.size)[None]
    held = np.clip(dst.lat, src.lat[0], src.lat[-1])  # the nearest row beyond the outer centres
    expected = np.repeat(2 * held - 7, dst.lon.size)
    np.testing.assert_allclose(
        regrid.apply(regrid.bilinear(src, dst), field)[0], expected, atol=1e-7
    )


@quick
@given(src=grids(covering=True), dst=grids(), seed=st.integers(0, 99))
def test_bilinear_crosses_the_seam_of_a_global_grid(src: Grid, dst: Grid, seed: int) -> None:
    ring = np.random.default_rng(seed).normal(size=src.lon.size)
    found = regrid.apply(regrid.bilinear(src, dst), np.tile(ring, src.lat.size)[None])[0]
    expected = np.interp(dst.lon, src.lon, ring, period=360)
    np.testing.assert_allclose(found, np.tile(expected, dst.lat.size), atol=1e-8)


@quick
@given(
    turns=st.sampled_from([-360.0, 0.0, 360.0]),
    lat=st.floats(30, 60),
    offset=st.floats(0.01, 100),
    east=st.booleans(),
)
def test_bilinear_takes_the_nearest_column_off_a_region(
    turns: float, lat: float, offset: float, east: bool
) -> None:
    src = regular(30.0, -10.0, 3, 4, 2.0)
    lon = (src.lon[-1] + offset if east else src.lon[0] - offset) + turns
    dst = of_edges(np.array([lat - 0.1, lat + 0.1]), np.array([lon - 0.1, lon + 0.1]))
    weights = regrid.bilinear(src, dst)
    assert set(weights.col % 4) == {3 if east else 0}


@quick
@given(src=grids(), dst=grids(), seed=st.integers(0, 99))
def test_bilinear_never_leaves_the_range_of_its_neighbours(src: Grid, dst: Grid, seed: int) -> None:
    field = field_on(src, seed)
    found = regrid.apply(regrid.bilinear(src, dst), field)
    lower, upper = field.min(axis=1, keepdims=True), field.max(axis=1, keepdims=True)
    assert ((found >= lower - 1e-9) & (found <= upper + 1e-9)).all()


@quick
@given(src=grids(), dst=grids())
def test_nearest_is_the_lowest_of_the_nearest_centres(src: Grid, dst: Grid) -> None:
    weights = regrid.nearest(src, dst)
    chord = chords(src, dst)
    excess = chord - chord.min(axis=1, keepdims=True)
    clear = ~((excess > 1e-11) & (excess < 1e-7)).any(axis=1)
    np.testing.assert_array_equal(weights.row, np.arange(dst.size))
    np.testing.assert_array_equal(weights.col[clear], np.argmax(excess <= 1e-9, axis=1)[clear])


def test_nearest_at_the_pole_takes_the_first_of_a_ring() -> None:
    src = Grid.from_centres([-60.0, 60.0], 30.0 * np.arange(12))
    dst = Grid(
        np.array([90.0]), np.array([200.0]), np.array([[80.0, 90]]), np.array([[190.0, 210]])
    )
    assert regrid.nearest(src, dst).col.tolist() == [12]


@quick
@given(
    src=grids(),
    dst=grids(),
    method=st.sampled_from(METHODS),
    seed=st.integers(0, 99),
    holes=st.sampled_from([0.0, 0.3, 0.8]),
    least=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_values_are_renormalised_by_what_is_valid(
    src: Grid, dst: Grid, method: str, seed: int, holes: float, least: float, dtype: type
) -> None:
    weights = regrid.build(src, dst, method)
    field: NDArray[Any] = field_on(src, seed, holes=holes).astype(dtype)
    found = regrid.apply(weights, field, min_valid_fraction=least)
    covered = (~np.isnan(field)).astype(float) @ dense(weights).T
    total = np.nan_to_num(field).astype(float) @ dense(weights).T
    kept = (covered >= least - 1e-9) & (covered > 0)
    expected = np.where(kept, total / np.where(kept, covered, 1), np.nan)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype is np.float32 else 1e-11)


@pytest.mark.parametrize(("n_valid", "value"), [(4, 2.5), (2, 1.5), (1, np.nan)])
def test_half_a_cell_is_enough_and_less_is_not(n_valid: int, value: float) -> None:
    src, dst = regular(-0.5, 0.0, 1, 4, 1.0), regular(-2.0, 0.0, 1, 1, 4.0)
    src = Grid(src.lat, src.lon, np.array([[-2.0, 2.0]]), src.lon_bnds)
    field = np.where(np.arange(4) < n_valid, [1.0, 2.0, 3.0, 4.0], np.nan)[None]
    np.testing.assert_allclose(regrid.apply(regrid.conservative(src, dst), field), [[value]])


@pytest.mark.parametrize("n", range(2, 60, 2))
def test_half_a_cell_is_half_in_spite_of_rounding(n: int) -> None:
    src = of_edges(np.array([36.0, 37.0]), -9.7 + np.arange(n + 1) / n)
    weights = regrid.conservative(src, regular(36.0, -9.7, 1, 1, 1.0))
    field = np.where(np.arange(n) < n / 2, 280.0, np.nan)[None]
    np.testing.assert_allclose(regrid.apply(weights, field), [[280.0]])


@quick
@given(src=grids(covering=True), dst=grids(), seed=st.integers(0, 99))
def test_whole_cells_are_the_plain_product_bitwise(src: Grid, dst: Grid, seed: int) -> None:
    weights = regrid.conservative(src, dst)
    field = field_on(src, seed, n_time=1)
    product = np.zeros(dst.size)
    for row, col, share in zip(weights.row, weights.col, weights.S, strict=True):
        product[row] += share * field[0, col]
    np.testing.assert_array_equal(regrid.apply(weights, field)[0], product)


@quick
@given(
    src=grids(),
    dst=grids(),
    method=st.sampled_from(METHODS),
    n_time=st.integers(0, 9),
    holes=st.sampled_from([0.0, 0.05, 0.6]),
    least=st.sampled_from([0.0, 0.5, 1.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_each_value_is_a_sum_of_its_own_bitwise(
    src: Grid, dst: Grid, method: str, n_time: int, holes: float, least: float, dtype: type
) -> None:
    """However many steps are summed at once, and whatever is invalid elsewhere."""
    weights = regrid.build(src, dst, method)
    field: NDArray[Any] = field_on(src, 7, n_time=n_time, holes=holes).astype(dtype)
    total, valid = np.zeros((2, n_time, dst.size))
    for row, col, share in zip(weights.row, weights.col, weights.S, strict=True):
        known = ~np.isnan(field[:, col])
        total[known, row] += share * field[known, col].astype(np.float64)
        valid[known, row] += share
    enough = (valid > 0) & (valid >= least - regrid.COVERED)
    valid[np.abs(valid - 1) <= regrid.COVERED] = 1
    expected = np.where(enough, total / np.where(enough, valid, 1), np.nan).astype(dtype)
    found = regrid.apply(weights, field, min_valid_fraction=least)
    np.testing.assert_array_equal(found, expected)


def test_area_outside_the_source_counts_as_invalid() -> None:
    src, dst = regular(-2.0, 0.0, 1, 2, 4.0), regular(-2.0, -1.0, 1, 3, 4.0)
    weights = regrid.conservative(src, dst)
    np.testing.assert_allclose(weights.row_sums(), [0.75, 1.0, 0.25])
    found = regrid.apply(weights, np.array([[4.0, 8.0]]))
    np.testing.assert_allclose(found, [[4.0, 7.0, np.nan]])


@quick
@given(
    src=grids(),
    dst=grids(),
    method=st.sampled_from(METHODS),
    data=st.data(),
    holes=st.sampled_from([0.0, 0.4]),
)
def test_a_tile_equals_the_whole_bitwise(
    src: Grid, dst: Grid, method: str, data: st.DataObject, holes: float
) -> None:
    matrix = regrid.build(src, dst, method).csr()
    field = field_on(src, 5, holes=holes).astype(np.float32)
    rows = np.array(data.draw(st.lists(st.integers(0, dst.size - 1), max_size=8)), dtype=np.int64)
    whole = regrid.apply(matrix, field)
    np.testing.assert_array_equal(regrid.apply(matrix, field, rows=rows), whole[:, rows])
    np.testing.assert_array_equal(regrid.apply(matrix, field[1:2]), whole[1:2])


@quick
@given(src=grids(), dst=grids(), method=st.sampled_from(METHODS), data=st.data())
def test_a_local_matrix_reads_its_box_alone_bitwise(
    src: Grid, dst: Grid, method: str, data: st.DataObject
) -> None:
    matrix = regrid.build(src, dst, method).csr()
    rows = np.array(data.draw(st.lists(st.integers(0, dst.size - 1), max_size=8)), dtype=np.int64)
    field = field_on(src, 5, holes=0.2)
    local, lat, lon = regrid.localise(matrix, rows)
    box = field.reshape(-1, *src.shape)[:, lat, lon].reshape(len(field), -1)
    expected = regrid.apply(matrix, field, rows=rows)
    np.testing.assert_array_equal(regrid.apply(local, box), expected)


def test_a_hole_changes_only_the_cells_that_read_it() -> None:
    src, dst = regular(-30.0, 0.0, 6, 6, 10.0), regular(-20.0, 11.0, 7, 7, 5.0)
    weights = regrid.bilinear(src, dst)
    field = field_on(src, 2)
    holed = field.copy()
    holed[:, 14] = np.nan
    same = ~np.isin(np.arange(dst.size), weights.row[weights.col == 14])
    assert 0 < same.sum() < dst.size
    before, after = regrid.apply(weights, field), regrid.apply(weights, holed)
    np.testing.assert_array_equal(after[:, same], before[:, same])
    assert (after[:, ~same] != before[:, ~same]).all()


@pytest.mark.parametrize("field", [np.zeros((2, 5)), np.zeros(6), np.zeros((2, 6), dtype=np.int32)])
def test_fields_that_do_not_fit_are_refused(field: NDArray[Any]) -> None:
    grid = regular(0.0, 0.0, 2, 3, 1.0)
    with pytest.raises(ContractError, match="shape"):
        regrid.apply(regrid.nearest(grid, grid), field)


@pytest.mark.parametrize("rows", [[-1], [6]])
def test_rows_outside_the_target_are_refused(rows: list[int]) -> None:
    grid = regular(0.0, 0.0, 2, 3, 1.0)
    with pytest.raises(ContractError, match=r"0\.\.5"):
        regrid.apply(regrid.nearest(grid, grid), np.zeros((1, 6)), rows=np.array(rows))


@pytest.mark.parametrize(
    ("row", "col"), [([0, 4], [0, 0]), ([0, 1], [0, -1]), ([1, 0], [0, 0]), ([0, 0], [1, 1])]
)
def test_damaged_weights_are_refused(row: list[int], col: list[int]) -> None:
    with pytest.raises(ContractError, match="weights"):
        regrid.Weights(
            np.array(row, np.int32), np.array(col, np.int32), np.ones(2), (2, 2), (2, 2), "nearest"
        )


@quick
@given(grid=grids(), data=st.data())
def test_holes_are_filled_from_the_nearest_valid_cell(grid: Grid, data: st.DataObject) -> None:
    cells = st.lists(st.booleans(), min_size=grid.size, max_size=grid.size)
    valid = np.array(data.draw(cells.filter(any)))
    index, distance = regrid.fill_nearest(valid.reshape(grid.shape), grid)
    chord = np.where(valid, chords(grid, grid), np.inf)
    excess = chord - chord.min(axis=1, keepdims=True)
    expected = np.where(valid, np.arange(grid.size), np.argmax(excess <= 1e-9, axis=1))
    clear = ~((excess > 1e-11) & (excess < 1e-7)).any(axis=1)
    np.testing.assert_array_equal(index[clear], expected[clear])
    np.testing.assert_array_equal(distance == 0, valid)


def test_fill_distance_counts_cells_and_crosses_the_seam() -> None:
    globe = of_edges(np.array([-30.0, 0.0, 30.0]), 45.0 * np.arange(9))
    valid = np.zeros((2, 8), dtype=bool)
    valid[0, 0] = True
    index, distance = regrid.fill_nearest(valid, globe)
    assert set(index) == {0}
    np.testing.assert_array_equal(
        distance.reshape(2, 8), [[0, 1, 2, 3, 4, 3, 2, 1], [1, 1, 2, 3, 4, 3, 2, 1]]
    )


def test_a_grid_without_a_valid_cell_cannot_be_filled() -> None:
    grid = regular(0.0, 0.0, 2, 3, 1.0)
    with pytest.raises(ContractError, match="valid cell"):
        regrid.fill_nearest(np.zeros((2, 3), dtype=bool), grid)


@quick
@given(src=grids(), dst=grids(), data=st.data(), method=st.sampled_from(["bilinear", "nearest"]))
def test_composed_weights_fill_and_then_interpolate(
    src: Grid, dst: Grid, data: st.DataObject, method: str
) -> None:
    cells = st.lists(st.booleans(), min_size=src.size, max_size=src.size)
    valid = np.array(data.draw(cells.filter(any)))
    index, _ = regrid.fill_nearest(valid.reshape(src.shape), src)
    weights = regrid.build(src, dst, method)
    field = np.where(valid, field_on(src, 3), np.nan)
    composed = regrid.compose(weights, index)
    assert valid[composed.col].all()
    np.testing.assert_allclose(
        regrid.apply(composed, field, min_valid_fraction=1.0),
        regrid.apply(weights, field[:, index]),
        rtol=1e-12,
    )


def test_compose_refuses_the_index_of_another_grid() -> None:
    grid = regular(0.0, 0.0, 2, 3, 1.0)
    with pytest.raises(ContractError, match="source cell"):
        regrid.compose(regrid.nearest(grid, grid), np.zeros(5, dtype=np.int32))


def test_filled_flags_cells_served_from_beyond_one_coarse_cell() -> None:
    src, dst = regular(-10.0, 0.0, 1, 5, 20.0), regular(-5.0, 0.0, 1, 10, 10.0)
    valid = np.array([[True, True, False, False, False]])
    _, distance = regrid.fill_nearest(valid, src)
    np.testing.assert_array_equal(distance, [0, 0, 1, 2, 3])
    # Columns from 60 degrees on, and 50..60 whose eastern neighbour is centred at 70.
    mask = regrid.filled_mask(regrid.bilinear(src, dst), distance)
    np.testing.assert_array_equal(mask, np.arange(10) >= 5)


@quick
@given(src=grids(), dst=grids(), method=st.sampled_from(METHODS))
def test_esmf_datasets_give_the_weights_back(src: Grid, dst: Grid, method: str) -> None:
    weights = regrid.build(src, dst, method)
    ds = regrid.write_esmf(weights)
    again = regrid.read_esmf(ds)
    assert (again.n_src, again.n_dst, again.method) == (src.shape, dst.shape, method)
    for name in ("row", "col", "S"):
        np.testing.assert_array_equal(getattr(again, name), getattr(weights, name))
    assert dict(ds.sizes) == {
        "n_s": weights.S.size,
        "n_a": src.size,
        "n_b": dst.size,
        "src_grid_rank": 2,
        "dst_grid_rank": 2,
    }
    assert ds["src_grid_dims"].values.tolist() == [src.lon.size, src.lat.size]


def test_esmf_files_survive_netcdf(tmp_path: Path) -> None:
    src, dst = regular(-10.0, 0.0, 4, 5, 5.0), regular(-10.0, 0.0, 8, 10, 2.5)
    weights = regrid.bilinear(src, dst)
    regrid.write_esmf(weights).to_netcdf(tmp_path / "weights.nc")
    with xr.open_dataset(tmp_path / "weights.nc") as ds:
        np.testing.assert_array_equal(dense(regrid.read_esmf(ds)), dense(weights))
        assert ds["row"].values.min() == 1


def test_bare_esmf_files_are_read_in_any_order_with_repeats_summed() -> None:
    ds = xr.Dataset(
        {"S": ("n_s", [0.25, 1.0, 0.75]), "row": ("n_s", [2, 1, 2]), "col": ("n_s", [3, 1, 3])}
    )
    weights = regrid.read_esmf(ds, n_src=(1, 3), n_dst=(2, 1), method="bilinear")
    np.testing.assert_array_equal(dense(weights), [[1, 0, 0], [0, 0, 1]])
    with pytest.raises(ContractError, match="src_grid_dims"):
        regrid.read_esmf(ds, n_dst=(2, 1), method="bilinear")
    with pytest.raises(ContractError, match="known method"):
        regrid.read_esmf(ds, n_src=(1, 3), n_dst=(2, 1))


@pytest.mark.parametrize("method", METHODS)
def test_esmf_engine_returns_what_esmf_computed(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst = regular(-10.0, 0.0, 4, 5, 5.0), regular(-10.0, 0.0, 8, 10, 2.5)
    expected = regrid.build(src, dst, method)
    asked: dict[str, Any] = {}

    def regridder(ds_in: Any, ds_out: Any, **options: Any) -> SimpleNamespace:
        asked.update(options, edges=(ds_in["lat_b"], ds_out["lon_b"]))
        coords = np.stack([expected.row, expected.col])[:, ::-1]
        entries = SimpleNamespace(coords=coords, data=expected.S[::-1])
        return SimpleNamespace(weights=SimpleNamespace(data=entries))

    stand_in = ModuleType("xesmf")
    stand_in.Regridder = regridder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xesmf", stand_in)
    found = regrid.build(src, dst, method, "esmf")
    np.testing.assert_array_equal(dense(found), dense(expected))
    assert found.method == method
    assert asked["method"] == {"nearest": "nearest_s2d"}.get(method, method)
    assert asked["unmapped_to_nan"] is False
    np.testing.assert_array_equal(asked["edges"][0], [-10, -5, 0, 5, 10])
    np.testing.assert_array_equal(asked["edges"][1], 2.5 * np.arange(11))


def test_a_missing_esmf_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xesmf", None)
    grid = regular(0.0, 0.0, 2, 3, 1.0)
    with pytest.raises(ConfigError, match="conda-forge"):
        regrid.build(grid, grid, "bilinear", "esmf")


@pytest.mark.parametrize(("method", "engine"), [("cubic", "rectilinear"), ("bilinear", "cdo")])
def test_unknown_words_are_refused(method: str, engine: str) -> None:
    grid = regular(0.0, 0.0, 2, 3, 1.0)
    with pytest.raises(ConfigError, match="must be one of"):
        regrid.build(grid, grid, method, engine)
