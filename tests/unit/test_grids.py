"""Grids: bounds, areas, identity and longitude conventions."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finescale.errors import ContractError
from finescale.grids import Grid, band_height, wrap_longitude


def regular(ny: int, nx: int, west: float = 0.0) -> Grid:
    """Return a regular global grid whose first column starts at `west`."""
    return Grid.from_centres(
        -90 + 180 / ny * (np.arange(ny) + 0.5), west + 360 / nx * (np.arange(nx) + 0.5)
    )


@settings(max_examples=30, deadline=None)
@given(ny=st.integers(2, 40), nx=st.integers(2, 40), west=st.sampled_from([-180.0, 0.0, 17.3]))
def test_cells_of_a_global_grid_cover_the_sphere_once(ny: int, nx: int, west: float) -> None:
    grid = regular(ny, nx, west)
    assert grid.periodic
    assert math.isclose(grid.cell_area().sum(), 4 * math.pi, rel_tol=1e-13)


def test_area_of_a_cell_is_the_integral_of_cos_lat() -> None:
    grid = Grid.from_centres([50.0, 51.0], [10.0, 12.0])
    lat = np.deg2rad(np.linspace(49.5, 50.5, 2001))
    expected = np.trapezoid(np.cos(lat), lat) * np.deg2rad(2.0)
    assert grid.cell_area()[0, 1] == pytest.approx(expected, rel=1e-9)


def test_band_height_stays_exact_at_the_pole() -> None:
    thin = 1e-6  # a plain difference of sines is 0 or off by 60 % here
    expected = 2 * math.sin(math.radians(thin) / 2) ** 2
    height = band_height(np.array([90 - thin]), np.array([90.0]))
    assert height[0] == pytest.approx(expected, rel=1e-6)


def test_derived_bounds_lie_half_way_and_stop_at_the_poles() -> None:
    grid = Grid.from_centres([-90.0, -60.0, 0.0, 80.0], [0.0, 1.0, 3.0])
    np.testing.assert_array_equal(grid.lat_bnds, [[-90, -75], [-75, -30], [-30, 40], [40, 90]])
    np.testing.assert_array_equal(grid.lon_bnds, [[-0.5, 0.5], [0.5, 2.0], [2.0, 4.0]])


def test_gaussian_rows_do_not_reach_the_pole_unless_bounds_say_so() -> None:
    lat = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(8)[0]))
    assert Grid.from_centres(lat, [0.0, 180.0]).lat_bnds[-1, 1] < 90


def test_given_bounds_may_descend_and_cross_the_meridian() -> None:
    lat_bnds = [[1.0, 0.0], [2.0, 1.0]]
    lon_bnds = [[359.0, 1.0], [1.0, 3.0]]
    grid = Grid.from_centres([0.5, 1.5], [0.0, 2.0], lat_bnds, lon_bnds)
    np.testing.assert_array_equal(grid.lat_bnds, [[0, 1], [1, 2]])
    np.testing.assert_array_equal(grid.lon_bnds, [[-1, 1], [1, 3]])


def test_one_cell_may_go_round_the_globe() -> None:
    grid = Grid.from_centres([0.0], [10.0], [[-90, 90]], [[-170.0, 190.0]])
    assert grid.periodic
    assert grid.cell_area()[0, 0] == pytest.approx(4 * math.pi)


def test_a_region_is_not_periodic() -> None:
    assert not regular(6, 12).crop(slice(0, 6), slice(0, 11)).periodic


@pytest.mark.parametrize(
    ("lat", "lon", "message"),
    [
        ([10.0, 0.0], [0.0, 1.0], "ascending"),
        ([0.0, 10.0], [350.0, 0.0], "ascending"),
        ([0.0, 0.0], [0.0, 1.0], "ascending"),
        ([0.0, 1.0], [0.0, 180.0, 360.0], "once"),
        ([0.0, math.nan], [0.0, 1.0], "finite"),
        ([0.0], [0.0, 1.0], "lat_bnds"),
    ],
)
def test_axes_out_of_order_are_refused(lat: list[float], lon: list[float], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Grid.from_centres(lat, lon)


@pytest.mark.parametrize(
    "lat_bnds",
    [
        [[0.0, 1.0], [1.5, 2.0]],  # a gap
        [[0.0, 1.2], [1.0, 2.0]],  # an overlap
        [[1.0, 2.0], [2.0, 3.0]],  # of other cells
        [[0.0, 1.0, 2.0]],  # edges, not pairs
    ],
)
def test_bounds_that_do_not_tile_are_refused(lat_bnds: list[list[float]]) -> None:
    with pytest.raises(ContractError, match="lat"):
        Grid.from_centres([0.5, 1.5], [0.0, 1.0], lat_bnds)


def test_latitudes_beyond_the_pole_are_refused() -> None:
    with pytest.raises(ContractError, match=r"-90\.\.90"):
        Grid(np.array([91.0]), np.array([0.5]), np.array([[90.0, 92.0]]), np.array([[0.0, 1.0]]))


def test_a_grid_keeps_its_own_unwritable_copy() -> None:
    lat = np.array([0.0, 1.0])
    grid = Grid.from_centres(lat, [0.0, 1.0])
    lat[0] = -5
    assert grid.lat[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.lat[0] = 1


@settings(max_examples=30, deadline=None)
@given(ny=st.integers(2, 9), nx=st.integers(2, 9), west=st.floats(-180, 180))
def test_json_gives_the_same_grid_back(ny: int, nx: int, west: float) -> None:
    grid = regular(ny, nx, west)
    again = Grid.from_json(json.loads(json.dumps(grid.to_json())))
    assert again.digest() == grid.digest()
    np.testing.assert_array_equal(again.lon_bnds, grid.lon_bnds)


def test_digest_tells_grids_apart_and_forgives_rounding() -> None:
    grid = regular(6, 8)
    same = Grid(grid.lat + 1e-13, grid.lon - 1e-13, grid.lat_bnds.clip(-90, 90), grid.lon_bnds)
    assert same.digest() == grid.digest()
    other_bounds = Grid.from_centres(grid.lat, grid.lon, None, grid.lon_bnds + 0.001)
    others = [regular(8, 6), regular(6, 8, west=-180.0), other_bounds]
    assert len({grid.digest(), *(other.digest() for other in others)}) == 4


def test_digest_does_not_change_between_releases() -> None:
    grid = Grid.from_centres([-1.0, 0.0, 1.0], [0.0, 90.0, 180.0, 270.0])
    assert grid.digest().startswith("0c2d2d78518914de")


def test_digest_sees_where_lat_ends_and_lon_begins() -> None:
    def of(lat: list[float], lon: list[float]) -> str:
        bnds = [np.stack([np.array(x) - 0.5, np.array(x) + 0.5], axis=1) for x in (lat, lon)]
        return Grid(np.array(lat), np.array(lon), *bnds).digest()

    assert of([1.0, 2.0], [3.0]) != of([1.0], [2.0, 3.0])


def test_crop_keeps_bounds() -> None:
    part = regular(6, 8).crop(slice(1, 3), slice(4, 8))
    assert part.shape == (2, 4)
    assert part.size == 8
    np.testing.assert_array_equal(part.lat_bnds, [[-60, -30], [-30, 0]])


@settings(max_examples=200, deadline=None)
@given(lon=st.floats(-1e4, 1e4), west=st.floats(-360, 360))
def test_wrapped_longitude_is_the_same_place_in_range(lon: float, west: float) -> None:
    wrapped = float(wrap_longitude(lon, west))
    assert west <= wrapped < west + 360
    assert math.isclose(math.cos(math.radians(wrapped - lon)), 1, abs_tol=1e-12)


def test_longitudes_in_range_are_not_touched() -> None:
    lon = np.array([-180.0, -0.1, 0.0, 0.1, 179.9])
    np.testing.assert_array_equal(wrap_longitude(lon, -180.0), lon)
