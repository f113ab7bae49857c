"""Datasets outside: however a file holds a field, the standardised store is the same."""

from __future__ import annotations

import functools
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from finescale import sources, synthetic
from finescale.calendars import Days
from finescale.errors import SourceError, TransientError
from finescale.fields import Field
from finescale.grids import Grid
from finescale.synthetic import World
from finescale.variables import MM_PER_DAY

Standardise = Callable[..., Field]
WINTER = Days.range("2013-12-01", "2014-02-28", "standard")
GREENWICH = {"lon": (-2.0, 2.0)}


def request(path: object, variable_id: str = "tas", **changed: Any) -> sources.Request:
    facets = {"reference": "obs", "variable_id": variable_id}
    return {
        "name": "obs",
        "variable_id": variable_id,
        "path": str(path),
        "facets": facets,
    } | changed


def winter(world: World, variable_id: str = "tas", **quirks: Any) -> xr.Dataset:
    return synthetic.dataset(world, variable_id, days=WINTER, **quirks)


def same(found: Field, truth: np.ndarray[Any, Any], world: World, *, days: Days = WINTER) -> None:
    """Assert that a store holds these values, bitwise, on the world's grid and days."""
    assert np.array_equal(found.read(), truth, equal_nan=True)
    assert np.array_equal(found.days.ordinal, days.ordinal)
    assert found.days.calendar == days.calendar
    assert found.grid.digest() == Grid(*synthetic.reference_grid(world)).digest()


# --------------------------------------------------------------------------------------
# Quirks that change no bit


@pytest.mark.parametrize("format", ["netcdf", "zarr2", "zarr3"])
@pytest.mark.parametrize(
    "quirks",
    [
        {},
        {"descending": True},
        {"east": True},
        {"hour": 0.0},
        {"hour": 23.75},
        {"bounds": False},
        {"height": True},
        {"extra": True},
        {"descending": True, "east": True, "bounds": False, "height": True, "extra": True},
    ],
    ids=lambda quirks: "-".join(quirks) or "plain",
)
def test_a_quirk_of_the_file_changes_no_bit(
    quirks: dict[str, Any],
    format: synthetic.Format,
    small_world: World,
    standardise: Standardise,
    tmp_path: Path,
) -> None:
    suffix = "nc" if format == "netcdf" else "zarr"
    path = synthetic.write(winter(small_world, **quirks), tmp_path / f"tas.{suffix}", format)
    truth = synthetic.read_reference(small_world, "tas", WINTER)
    same(standardise(path, **GREENWICH), truth, small_world)


def test_a_glob_of_files_is_one_series(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    """By name the second part comes first: the axis decides, not the name."""
    for name, days in (("b", WINTER[:31]), ("a", WINTER[31:])):
        synthetic.write(
            synthetic.dataset(small_world, "tas", days=days), tmp_path / f"tas_{name}.nc"
        )
    truth = synthetic.read_reference(small_world, "tas", WINTER)
    same(standardise(tmp_path / "tas_*.nc", **GREENWICH), truth, small_world)
    part = standardise(
        tmp_path / "tas_*.nc", name="part", period=("2013-12-30", "2014-01-02"), **GREENWICH
    )
    same(part, truth[29:33], small_world, days=WINTER[29:33])


def test_facets_and_environment_are_put_into_the_path(
    small_world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    synthetic.write(winter(small_world), tmp_path / "tas" / "obs.nc")
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    asked = request("$SOMEWHERE/{variable_id}/{reference}.nc")
    assert sources.locate(asked) == [str(tmp_path / "tas" / "obs.nc")]


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_the_calendar_of_a_model_is_kept(
    calendar: str, small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    model = {"360_day": "FS-A", "noleap": "FS-B"}[calendar]
    days = Days.range("2014-02-25", "2014-03-03", calendar)
    ds = synthetic.dataset(small_world, "tas", source_id=model, days=days)
    found = standardise(synthetic.write(ds, tmp_path / "tas.nc"), stage="simulation")
    truth = synthetic.read_simulation(small_world, "tas", model, "historical", "r1i1p1f1", days)
    assert np.array_equal(found.read(), truth)
    assert (found.days.calendar, len(found.days)) == (
        calendar,
        {"360_day": 9, "noleap": 7}[calendar],
    )


def test_a_grid_across_greenwich_stays_one_piece_without_a_box(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    """Sorted within 0..360 its halves lie at both ends; as they stand, a gap would part them."""
    for name, quirks in (("with", {}), ("without", {"bounds": False})):
        ds = winter(small_world, east=True, **quirks)
        found = standardise(synthetic.write(ds, tmp_path / f"{name}.nc"), name=name)
        assert found.grid.lon[[0, -1]].tolist() == [-1.875, 1.875]
        same(found, synthetic.read_reference(small_world, "tas", WINTER), small_world)


def test_longitudes_may_wrap_within_the_file(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    ds = winter(small_world, bounds=False)
    ds = ds.assign_coords(lon=(ds.lon % 360).assign_attrs(ds.lon.attrs))
    assert ds.lon.values[[0, -1]].tolist() == [358.125, 1.875]
    found = standardise(synthetic.write(ds, tmp_path / "tas.nc"))
    same(found, synthetic.read_reference(small_world, "tas", WINTER), small_world)


# --------------------------------------------------------------------------------------
# Quirks within rounding


def test_everyday_units_are_converted(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    for variable_id in ("tas", "pr"):
        ds = winter(small_world, variable_id, everyday_units=True)
        found = standardise(
            synthetic.write(ds, tmp_path / f"{variable_id}.nc"), variable_id, name=variable_id
        ).read()
        truth = synthetic.read_reference(small_world, variable_id, WINTER)
        land = ~np.isnan(truth)
        assert np.array_equal(np.isnan(found), ~land)
        np.testing.assert_array_max_ulp(found[land], truth[land], maxulp=1)


def test_packed_values_are_unpacked(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    """Within half a step; the other half of the assertion says that the file was packed at all."""
    for variable_id, step in (("tas", 0.01), ("pr", 0.1 * MM_PER_DAY)):
        ds = winter(small_world, variable_id, everyday_units=True, packed=True)
        path = synthetic.write(ds, tmp_path / f"{variable_id}.nc")
        found = standardise(path, variable_id, name=variable_id).read()
        truth = synthetic.read_reference(small_world, variable_id, WINTER)
        assert np.array_equal(np.isnan(found), np.isnan(truth))
        assert np.nanmax(np.abs(found - truth)) <= 0.51 * step
        assert np.nanmax(np.abs(found - truth)) > 0.1 * step


def test_units_of_the_config_replace_those_of_the_file(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    ds = winter(small_world, everyday_units=True)
    ds.tas.attrs["units"] = "unknown to man"
    path = synthetic.write(ds, tmp_path / "tas.nc")
    truth = synthetic.read_reference(small_world, "tas", WINTER)
    assert np.allclose(standardise(path, units="degC").read(), truth, atol=1e-4, equal_nan=True)
    with pytest.raises(SourceError, match="units 'unknown to man' of `tas` are unknown"):
        standardise(path)


def test_a_variable_is_found_by_the_name_the_config_gives(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    path = synthetic.write(winter(small_world).rename(tas="t2m"), tmp_path / "era.nc")
    found = standardise(path, variable_name="t2m")
    same(found, synthetic.read_reference(small_world, "tas", WINTER), small_world)
    with pytest.raises(SourceError, match=r"no variable `tas`.*it holds: t2m"):
        sources.open_source(request(path))


# --------------------------------------------------------------------------------------
# Time


def test_years_that_numpy_does_not_know_are_read(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    """64-bit nanoseconds span 1677 to 2262."""
    for first, calendar in (("1201-02-27", "standard"), ("2999-12-30", "noleap")):
        days = Days.range(first, f"{int(first[:4]) + 1}-01-02", calendar)
        ds = winter(small_world).isel(time=[0] * len(days)).drop_vars("time")
        time = {"units": "days since 1850-01-01", "calendar": calendar, "standard_name": "time"}
        ds = ds.assign_coords(time=("time", days.to_cf(), time))
        found = standardise(synthetic.write(ds, tmp_path / f"{calendar}.nc"), name=calendar)
        assert found.days.isoformat(0) == first
        assert np.array_equal(found.days.ordinal, days.ordinal)


def without(ds: xr.Dataset, *dates: str) -> xr.Dataset:
    return ds.sel(time=~np.isin(ds.time.dt.strftime("%Y-%m-%d"), dates))


def test_missing_days_are_named(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    ds = without(winter(small_world), "2013-12-24", "2014-01-05", "2014-01-06")
    with pytest.raises(SourceError, match="missing: 2013-12-24, 2014-01-05 to 2014-01-06;"):
        standardise(synthetic.write(ds, tmp_path / "tas.nc"))


def test_a_day_in_two_files_is_named(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    for name, days in (("1", WINTER[:40]), ("2", WINTER[39:])):
        ds = synthetic.dataset(small_world, "tas", days=days)
        synthetic.write(ds, tmp_path / f"tas_{name}.nc")
    with pytest.raises(SourceError, match="duplicated: 2014-01-09;"):
        standardise(tmp_path / "tas_*.nc")


def test_a_season_is_whole_without_the_rest_of_the_year(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    """Undeclared, the same axis lacks nine months; a hole within the season is never legal."""
    whole = synthetic.dataset(
        small_world, "tas", days=Days.range("2013-01-01", "2014-12-31", "standard")
    )
    ds = whole.sel(time=whole.time.dt.month.isin([12, 1, 2]))
    path = synthetic.write(ds, tmp_path / "djf.nc")
    found = standardise(path, season="DJF")
    assert len(found.days) == 2 * 90
    assert found.season == {"season": "DJF"}
    with pytest.raises(SourceError, match="missing: 2013-03-01 to 2013-11-30, 2014-03-01"):
        standardise(path)
    holed = synthetic.write(without(ds, "2014-01-15"), tmp_path / "holed.nc")
    with pytest.raises(SourceError, match="missing: 2014-01-15;"):
        standardise(holed, season="DJF")
    with pytest.raises(SourceError, match="outside season MAM"):
        standardise(path, season="MAM")


# --------------------------------------------------------------------------------------
# What cannot be read


def test_what_is_not_a_daily_field_is_refused(small_world: World, tmp_path: Path) -> None:
    ds = winter(small_world)
    wrong = {
        "must have the dimensions time, latitude, longitude": ds.isel(lat=0, lon=0, drop=True),
        "latitude is not strictly monotonic": ds.isel(lat=[0, 2, 1]),
        "longitude must ascend": ds.isel(lon=slice(None, None, -1)),
        "the time axis is empty": ds.isel(time=slice(0)),
    }
    for number, (message, bad) in enumerate(wrong.items()):
        path = synthetic.write(bad, tmp_path / f"{number}.nc")
        with pytest.raises(SourceError, match=message):
            sources.open_source(request(path))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.nc").write_text("no data")
    with pytest.raises(SourceError, match=r"obs: nothing found at .*absent\.nc"):
        sources.open_source(request(tmp_path / "absent.nc"))
    with pytest.raises(SourceError, match=r"text\.nc cannot be opened as a netCDF file"):
        sources.open_source(request(tmp_path / "text.nc"))
    with pytest.raises(SourceError, match="needs the environment variable NOWHERE_SET"):
        sources.open_source(request("$NOWHERE_SET/tas.nc"))
    with pytest.raises(SourceError, match=r"names a facet 'model' .*known: reference"):
        sources.open_source(request("{model}.nc"))


# --------------------------------------------------------------------------------------
# Over the network


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Return the address of a server of `tmp_path / "public"`."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    (tmp_path / "public").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "public"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("format", ["netcdf", "zarr2", "zarr3"])
def test_a_remote_dataset_gives_the_same_store(
    format: synthetic.Format,
    served: str,
    small_world: World,
    standardise: Standardise,
    tmp_path: Path,
) -> None:
    suffix = "nc" if format == "netcdf" else "zarr"
    synthetic.write(winter(small_world), tmp_path / "public" / f"tas.{suffix}", format)
    found = standardise(f"{served}/tas.{suffix}", **GREENWICH)
    same(found, synthetic.read_reference(small_world, "tas", WINTER), small_world)


def test_a_remote_dataset_has_the_content_id_of_the_local_one(
    served: str, small_world: World, tmp_path: Path
) -> None:
    """The file alone: a server's checksums of chunks are not those we compute."""
    path = synthetic.write(winter(small_world), tmp_path / "public" / "tas.nc")
    assert sources.content(request(f"{served}/tas.nc")) == sources.content(request(path))
    assert sources.fingerprint(request(f"{served}/tas.nc")) is None


def test_an_unreachable_host_is_worth_a_retry_and_an_absent_file_is_not(served: str) -> None:
    with pytest.raises(SourceError, match="cannot be opened"):
        sources.open_source(request(f"{served}/absent.zarr"))
    with pytest.raises(TransientError, match="cannot be reached"):
        sources.open_source(request("http://127.0.0.1:9/tas.zarr"))


# --------------------------------------------------------------------------------------
# Content ids


@pytest.fixture(params=["netcdf", "zarr2", "zarr3"])
def stored(request: pytest.FixtureRequest, small_world: World, tmp_path: Path) -> Path:
    """Return a dataset in each format."""
    suffix = "nc" if request.param == "netcdf" else "zarr"
    return synthetic.write(winter(small_world), tmp_path / f"here.{suffix}", request.param)


def test_the_same_content_elsewhere_has_the_same_id(stored: Path, tmp_path: Path) -> None:
    copy = tmp_path / "there" / f"other{stored.suffix}"
    copy.parent.mkdir()
    (shutil.copytree if stored.is_dir() else shutil.copyfile)(stored, copy)
    assert sources.content(request(copy)) == sources.content(request(stored))
    assert sources.fingerprint(request(copy)) != sources.fingerprint(request(stored))


def test_one_changed_byte_gives_another_id(stored: Path) -> None:
    before = sources.content(request(stored))
    file = stored
    if stored.is_dir():
        file = max((stored / "tas").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sources.content(request(stored)) != before


def test_another_variable_of_a_zarr_store_does_not_matter(
    small_world: World, tmp_path: Path
) -> None:
    """An archive that gains a variable would otherwise make all its products anew."""
    ids = [
        sources.content(
            request(synthetic.write(winter(small_world, extra=e), tmp_path / f"{e}.zarr", "zarr2"))
        )
        for e in (False, True)
    ]
    assert ids[0] == ids[1]


def test_variable_and_units_belong_to_the_id(stored: Path) -> None:
    ids = {
        sources.content(request(stored)),
        sources.content(request(stored, units="K")),
        sources.content(request(stored, units="degC")),
    }
    assert len(ids) == 3


def test_a_published_version_stands_for_the_bytes(small_world: World, tmp_path: Path) -> None:
    """Values are not read; version, facets and metadata are what counts."""
    plain = winter(small_world)
    ids = {}
    for name, ds in {
        "plain": plain,
        "values": plain.assign(tas=plain.tas + 1).assign(
            tas=lambda d: d.tas.assign_attrs(plain.tas.attrs)
        ),
        "tracking_id": plain.assign(tas=plain.tas.assign_attrs(tracking_id="hdl:21")),
        "grid": plain.isel(lat=slice(1, None)),
    }.items():
        path = synthetic.write(ds, tmp_path / f"{name}.zarr", "zarr2")
        ids[name] = sources.content(request(path, version="v20190429"))
    assert ids["plain"] == ids["values"]
    assert len(set(ids.values())) == 3
    path = tmp_path / "plain.zarr"
    assert sources.content(request(path, version="v20200101")) != ids["plain"]
    assert sources.content(request(path)) != ids["plain"]
