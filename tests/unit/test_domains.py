"""Which cells a domain takes from a grid, in any orientation and longitude convention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finescale import domains
from finescale.domains import Selection
from finescale.errors import ConfigError
from finescale.grids import Grid


def lists(lat: Any, lon: Any, *, lat_bnds: Any = None, lon_bnds: Any = None) -> domains.GridLists:
    """Return a grid as a lock holds it."""
    arrays = {"lat": lat, "lon": lon, "lat_bnds": lat_bnds, "lon_bnds": lon_bnds}
    return {k: None if v is None else np.asarray(v, float).tolist() for k, v in arrays.items()}


def cells(low: float, high: float, step: float) -> Any:
    return np.arange(low + step / 2, high, step)


GLOBE = lists(cells(-90, 90, 10), cells(0, 360, 10))


def box(grid: domains.GridLists, lat: Any, lon: Any) -> Grid:
    """Return the grid that a box selects, checked to be a grid."""
    return Grid.from_json(domains.crop(grid, domains.select_box(grid, lat, lon, where="d")))


# --------------------------------------------------------------------------------------
# Longitudes


@given(st.integers(-360, 720), st.integers(-180, 180))
def test_a_wrapped_longitude_is_the_same_place_in_the_convention(lon: int, west: int) -> None:
    wrapped = domains.wrap(float(lon), float(west))
    assert west <= wrapped < west + 360
    assert (wrapped - lon) % 360 == 0


def test_a_longitude_in_the_convention_keeps_its_bits() -> None:
    """A product whose coordinates differ from the reference's in the last bit does not align."""
    rng = np.random.default_rng(1)
    assert all(domains.wrap(v, -180.0) == v for v in rng.uniform(-180, 180, 1000).tolist())
    grid = lists([0.1, 0.2, 0.3], [-1.1, -1.0, -0.9])
    assert box(grid, None, None).lon.tolist() == grid["lon"]


def test_a_longitude_a_hair_below_the_west_is_not_sent_round_the_globe() -> None:
    west = float(np.float32(0.1))
    assert domains.wrap(0.1, west) == 0.1 < west


# --------------------------------------------------------------------------------------
# A box of cells


def test_a_box_takes_the_cells_whose_centres_lie_in_it() -> None:
    grid = box(GLOBE, (30.0, 50.0), (0.0, 30.0))
    assert grid.lat.tolist() == [35.0, 45.0]
    assert grid.lon.tolist() == [5.0, 15.0, 25.0]
    assert grid.lat_bnds[0].tolist() == [30.0, 40.0]


def test_a_centre_on_the_edge_is_inside() -> None:
    grid = box(GLOBE, (35.0, 45.0), (5.0, 15.0))
    assert grid.shape == (2, 2)


def test_descending_rows_are_counted_from_the_south() -> None:
    north_first = GLOBE | {"lat": GLOBE["lat"][::-1]}
    selection = domains.select_box(north_first, (-90.0, -60.0), None, where="d")
    assert selection.lat == (0, 3)
    assert domains.crop(north_first, selection)["lat"] == [-85.0, -75.0, -65.0]


@pytest.mark.parametrize(
    ("lon", "centres", "parts"),
    [
        ((-20.0, 20.0), [-15, -5, 5, 15], ((34, 36), (0, 2))),
        ((340.0, 380.0), [345, 355, 365, 375], ((34, 36), (0, 2))),
        ((160.0, 200.0), [165, 175, 185, 195], ((16, 20),)),
        ((-180.0, -160.0), [-175, -165], ((18, 20),)),
    ],
)
def test_the_box_sets_the_convention(lon: Any, centres: list[int], parts: Any) -> None:
    selection = domains.select_box(GLOBE, None, lon, where="d")
    assert selection.lon == parts
    assert domains.crop(GLOBE, selection)["lon"] == centres


@given(
    shift=st.integers(0, 35),
    start=st.integers(-36, 36),
    width=st.integers(1, 36),
    convention=st.sampled_from([0.0, -180.0]),
    bounds=st.booleans(),
)
def test_the_columns_do_not_depend_on_how_the_file_is_turned(
    shift: int, start: int, width: int, convention: float, bounds: bool
) -> None:
    """A globe cut anywhere, in either convention, with bounds or without."""
    lon = np.roll(cells(0, 360, 10), shift)
    lon = (lon - convention) % 360 + convention
    edges = np.stack([lon - 5, lon + 5], axis=1)
    edges = (edges - convention) % 360 + convention  # some cells hold the seam: (355, 0)
    turned = lists([5.0, 15.0], lon, lon_bnds=edges if bounds else None)
    west, east = 10.0 * start, 10.0 * (start + width)
    found = box(turned, None, (west, east))
    assert np.allclose(found.lon, cells(west, east, 10), rtol=0, atol=1e-9)
    assert np.allclose(found.lon_bnds[:, 0], found.lon - 5, rtol=0, atol=1e-9)


@given(
    west=st.integers(-179, 179),
    n=st.integers(2, 200),
    convention=st.sampled_from([0, -180]),
    is_sorted=st.booleans(),
)
def test_a_regional_grid_is_one_piece_wherever_its_seam_lies(
    west: int, n: int, convention: int, is_sorted: bool
) -> None:
    """A seam inside would be a gap of most of a circle between neighbours."""
    lon = (west + np.arange(n) + 0.5 - convention) % 360 + convention
    grid = box(lists([0.5, 1.5], np.sort(lon) if is_sorted else lon), None, None)
    assert np.allclose(np.diff(grid.lon), 1.0)
    assert np.allclose(grid.lon_bnds[:, 1] - grid.lon_bnds[:, 0], 1.0)
    assert (grid.lon[0] - west - 0.5) % 360 == 0
    assert grid.lon[0] < 180 or not grid.lon[0] < 360 <= grid.lon[-1]


def test_a_global_grid_keeps_its_own_convention() -> None:
    """However uneven the rounding of its columns: no gap tells where a globe begins."""
    lon = np.float32(cells(0, 360, 1.40625))
    assert box(lists([0.5, 1.5], lon), None, None).lon[0] == np.float64(lon[0])


def test_a_cropped_grid_keeps_the_cells_of_the_whole() -> None:
    """Uneven rows: bounds made after the crop would be symmetric about the outer centres."""
    uneven = lists([0.0, 1.0, 3.0, 7.0], [0.0, 1.0])
    assert box(uneven, (0.5, 3.5), None).lat_bnds.tolist() == [[0.5, 2.0], [2.0, 5.0]]


def test_bounds_of_the_polar_rows_stop_at_the_poles() -> None:
    grid = box(lists(np.linspace(-90, 90, 5), GLOBE["lon"]), None, None)
    assert grid.lat_bnds[[0, -1]].tolist() == [[-90.0, -67.5], [67.5, 90.0]]


@pytest.mark.parametrize(
    ("lat", "lon", "message"),
    [
        ((60.0, 80.0), None, r"d: lat \[60.0, 80.0\] reaches beyond the reference.*35..45"),
        (None, (-60.0, -30.0), r"d: lon \[-60.0, -30.0\] reaches beyond the reference"),
        ((35.1, 35.2), None, r"d: no cell centre of the reference lies in lat \[35.1, 35.2\]"),
    ],
)
def test_a_box_outside_the_grid_is_refused(lat: Any, lon: Any, message: str) -> None:
    small = lists([35.0, 45.0], [5.0, 15.0, 25.0])
    with pytest.raises(ConfigError, match=message):
        domains.select_box(small, lat, lon, where="d")


def test_a_single_row_needs_bounds() -> None:
    with pytest.raises(ConfigError, match=r"single coordinate .* needs bounds"):
        box(lists([35.0], [5.0, 15.0]), None, None)
    with_bounds = lists([35.0], [5.0, 15.0], lat_bnds=[[30.0, 40.0]])
    assert box(with_bounds, None, None).shape == (1, 2)


# --------------------------------------------------------------------------------------
# The coarse cells around a fine grid


def around(coarse: domains.GridLists, lat: Any, lon: Any) -> Grid:
    fine = lists(lat, lon)
    return Grid.from_json(domains.crop(coarse, domains.select_around(coarse, fine, where="g")))


def test_coarse_centres_enclose_the_fine_ones() -> None:
    """One beyond every side: without it bilinear interpolation would have to extrapolate."""
    grid = around(GLOBE, cells(36, 44, 1), cells(-4, 24, 1))
    assert grid.lat.tolist() == [35.0, 45.0]
    assert grid.lon.tolist() == [-5.0, 5.0, 15.0, 25.0]


@given(st.floats(-80, 60), st.floats(-179, 150), st.floats(1, 15), st.sampled_from([0.0, -180.0]))
def test_any_region_is_enclosed_in_its_own_convention(
    south: float, west: float, size: float, convention: float
) -> None:
    lon = (np.asarray(GLOBE["lon"]) - convention) % 360 + convention
    lat, east = np.linspace(south, south + size, 5), np.linspace(west, west + 2 * size, 5)
    grid = around(lists(GLOBE["lat"], lon), lat, east)
    assert grid.lat[0] <= lat[0] and (grid.lat[-1] >= lat[-1] or grid.lat[-1] == 85.0)
    assert grid.lon[0] <= east[0] and grid.lon[-1] >= east[-1]
    assert len(grid.lon) <= 2 * size / 10 + 3, "more columns than a margin of one"


def test_the_last_row_serves_where_the_coarse_grid_ends_early() -> None:
    small = lists([35.0, 45.0], [5.0, 15.0, 25.0])
    grid = around(small, cells(30, 50, 1), cells(0, 30, 1))
    assert grid.lat.tolist() == [35.0, 45.0]
    assert grid.lon.tolist() == [5.0, 15.0, 25.0]


def test_a_fine_globe_takes_the_whole_coarse_globe() -> None:
    grid = around(GLOBE, cells(-90, 90, 2), cells(-180, 180, 2))
    assert grid.shape == (18, 36)
    assert grid.periodic


def test_grids_that_do_not_overlap_are_refused() -> None:
    small = lists([35.0, 45.0], [5.0, 15.0, 25.0])
    for lat, lon in ((cells(60, 70, 1), cells(5, 15, 1)), (cells(35, 45, 1), cells(90, 99, 1))):
        with pytest.raises(ConfigError, match=r"g: its grid \(lat 35..45.*does not overlap"):
            domains.select_around(small, lists(lat, lon), where="g")


def test_parameters_are_what_a_stage_rebuilds_the_selection_from() -> None:
    selection = Selection((1, 3), ((34, 36), (0, 2)), -20.0)
    parameters = selection.parameters()
    assert parameters == {"lat": [1, 3], "lon": [[34, 36], [0, 2]], "west": -20.0}
