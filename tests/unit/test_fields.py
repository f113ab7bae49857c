"""Daily fields: their chunks, their coordinates, and how they are read."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from chain import Chain, grids
from hypothesis import given
from hypothesis import strategies as st

from finescale import chunking, fields
from finescale.calendars import Days
from finescale.fields import Field
from finescale.store import open_store
from finescale.variables import VARIABLES


@given(n=st.integers(1, 5000), most=st.integers(1, 500))
def test_a_length_is_split_into_as_few_pieces_as_there_can_be(n: int, most: int) -> None:
    length = chunking.split_evenly(n, most)
    pieces = -(-n // length)
    assert length <= most
    assert pieces == -(-n // most)
    assert length == -(-n // pieces), "pieces of one length, as far as they go"


CALENDARS = ["standard", "proleptic_gregorian", "julian", "noleap", "all_leap", "360_day"]
days_and_grid = st.tuples(st.integers(1, 60_000), st.integers(1, 1500), st.integers(1, 1500))


@given(days_and_grid)
def test_tiles_are_small_in_every_direction(shape: tuple[int, int, int]) -> None:
    chunk = chunking.chunks(shape, "tiles")
    assert all(1 <= c <= n for c, n in zip(chunk, shape, strict=True))
    assert chunk[0] <= chunking.SLAB and max(chunk[1:]) <= chunking.TILE
    assert 4 * int(np.prod(chunk)) < 4_000_000


@given(days_and_grid)
def test_full_time_chunks_hold_whole_series_and_fit_in_memory(shape: tuple[int, int, int]) -> None:
    chunk = chunking.chunks(shape, "full_time")
    assert chunk[0] == shape[0]
    assert all(1 <= c <= n for c, n in zip(chunk, shape, strict=True))
    assert 4 * int(np.prod(chunk)) <= chunking.FULL_TIME_BYTES


@pytest.mark.parametrize("layout", ["full_time", "tiles"])
@pytest.mark.parametrize("calendar", CALENDARS)
def test_xarray_finds_days_cells_and_bounds(
    calendar: str, layout: fields.Layout, tmp_path: Path
) -> None:
    """A day is stamped at noon and lasts from midnight to midnight, in the calendar's own count."""
    grid, _ = grids()
    days = Days.range("2003-12-30", "2004-03-01", calendar)
    values = np.random.default_rng(0).normal(280, 5, (len(days), *grid.shape))
    made = Chain(tmp_path).daily("simulation", "x", "tas", days, grid, values, layout=layout)
    with xr.open_zarr(made.url, decode_times=xr.coders.CFDatetimeCoder(use_cftime=True)) as ds:
        assert np.array_equal(ds.tas.values, values.astype("f4"))
        assert ds.tas.dims == ("time", "lat", "lon")
        stamps = [t.isoformat() for t in ds.time.values]
        assert stamps == [f"{days.isoformat(i)}T12:00:00" for i in range(len(days))]
        assert ds.time.dt.calendar == calendar
        begin, end = ds.time_bnds.values.T
        assert begin[0].isoformat() == "2003-12-30T00:00:00"
        assert (begin[1:] == end[:-1]).all(), "a gap or an overlap of days"
        assert ds.tas.attrs["standard_name"] == "air_temperature"
        for axis, bounds in (("lat", grid.lat_bnds), ("lon", grid.lon_bnds)):
            assert np.array_equal(ds[ds[axis].attrs["bounds"]].values, bounds)


@pytest.mark.parametrize("variable_id", sorted(VARIABLES))
def test_a_variable_carries_its_cf_attributes_and_those_of_its_source(variable_id: str) -> None:
    grid, _ = grids()
    days = Days.range("2001-01-01", "2001-01-02", "noleap")
    more = {"units": "furlong", "comment": "a source's own"}
    declared = fields.declare(variable_id, days, grid, layout="tiles", nan="mask", attributes=more)[
        variable_id
    ]
    known = VARIABLES[variable_id]
    assert declared.contract.valid_range == known.valid_range
    assert declared.contract.nan == "mask"
    assert declared.dtype == "<f4"
    assert dict(declared.attributes) == {
        **{k: getattr(known, k) for k in ("standard_name", "long_name", "cell_methods")},
        **more,
    }


def test_a_field_is_read_as_it_was_written(tmp_path: Path) -> None:
    grid, _ = grids()
    days = Days.range("2001-01-01", "2002-12-30", "360_day")
    values = np.random.default_rng(0).normal(280, 5, (len(days), *grid.shape)).astype("f4")
    made = Chain(tmp_path).daily("simulation", "x", "tas", days, grid, values, season="DJF")
    field = Field(open_store(made.url))
    assert field.variable_id == "tas"
    assert field.chunks == (720, 8, 12)
    assert field.season == {"season": "DJF"}
    assert field.days.calendar == "360_day"
    assert np.array_equal(field.days.ordinal, days.ordinal)
    assert field.grid.digest() == grid.digest()
    assert np.array_equal(field.read(), values)
    part = slice(3, 9), slice(1, 4), slice(5, 12)
    assert np.array_equal(field.read(*part), values[part])
    assert np.array_equal(field.series(*part), values[part].reshape(6, -1))


def test_a_field_of_whole_years_declares_no_season(tmp_path: Path) -> None:
    grid, _ = grids()
    days = Days.range("2001-01-01", "2001-12-31", "noleap")
    made = Chain(tmp_path).daily("simulation", "x", "tas", days, grid, np.full((365, 8, 12), 280.0))
    assert Field(made).season == {}


def test_a_flag_says_what_its_numbers_mean() -> None:
    mask = np.array([[True, False], [False, True]])
    array = fields.flag(mask, "cells without data", "filled observed")
    assert array.values is not None and array.values.tolist() == [[1, 0], [0, 1]]
    assert array.dtype == "|i1"
    assert array.attributes["flag_meanings"] == "filled observed"
    assert array.attributes["flag_values"] == [0, 1]
