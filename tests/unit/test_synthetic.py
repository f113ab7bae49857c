"""The synthetic world gives the answers it promises."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from finescale import synthetic
from finescale.calendars import Days, slots
from finescale.errors import ConfigError, SourceError
from finescale.synthetic import MODELS, World

TINY = World(n_lat=8, n_lon=12, ratio=2, first_year=2013, last_year=2016)
BLOCKS = World(n_lat=24, n_lon=36, ratio=6)
MEMBER = "r1i1p1f1"


def days_of(source_id: str | None, first: str = "2013-06-01", last: str = "2016-05-30") -> Days:
    model = synthetic.REFERENCE if source_id is None else MODELS[source_id]
    return Days.range(first, last, model.calendar)


def read(
    world: World, variable_id: str, source_id: str | None, days: Days, experiment: str = "ssp245"
) -> NDArray[np.float32]:
    if source_id is None:
        return synthetic.read_reference(world, variable_id, days)
    return synthetic.read_simulation(world, variable_id, source_id, experiment, MEMBER, days)


def block_means(values: NDArray[Any]) -> NDArray[np.float64]:
    """Means over the fine cells inside each cell of FS-A; NaN where one is at sea."""
    n = BLOCKS.ratio
    *lead, n_lat, n_lon = values.shape
    blocks = values.reshape(*lead, n_lat // n, n, n_lon // n, n)
    return blocks.mean(axis=(-3, -1), dtype=np.float64)


@pytest.fixture(scope="module")
def climates() -> dict[str, dict[str, NDArray[np.float64]]]:
    """Twenty years of reference and FS-A on the FS-A cells that are land all over."""
    is_land = block_means(synthetic.land(BLOCKS)) == 1
    assert is_land.sum() >= 5
    reference, simulation = (
        days_of(None, "1995-01-01", "2014-12-31"),
        days_of("FS-A", "1995-01-01", "2014-12-30"),
    )
    wet = synthetic.read_reference(BLOCKS, "pr", reference) > 0
    climates: dict[str, dict[str, NDArray[np.float64]]] = {
        "reference": {"wet": block_means(wet)[:, is_land]},
        "FS-A": {},
    }
    for variable_id in synthetic.GENERATED:
        fine = read(BLOCKS, variable_id, None, reference)
        coarse = read(BLOCKS, variable_id, "FS-A", simulation, "historical")
        climates["reference"][variable_id] = block_means(fine)[:, is_land]
        climates["FS-A"][variable_id] = coarse[:, 2:-2, 2:-2][:, is_land].astype(np.float64)
    climates["FS-A"]["wet"] = (climates["FS-A"]["pr"] > 0).astype(np.float64)
    return climates


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_days_are_bitwise_those_of_a_longer_read(data: st.DataObject) -> None:
    source_id = data.draw(st.sampled_from([None, *MODELS]))
    variable_id = data.draw(st.sampled_from(synthetic.GENERATED))
    days = days_of(source_id, "2014-06-01", "2015-08-30")
    some = np.array(data.draw(st.lists(st.integers(0, len(days) - 1), min_size=1, max_size=9)))
    whole = read(TINY, variable_id, source_id, days)
    np.testing.assert_array_equal(read(TINY, variable_id, source_id, days[some]), whole[some])
    cut = int(some[0])
    parts = [read(TINY, variable_id, source_id, part) for part in (days[:cut], days[cut:])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), n_lat=st.integers(4, 20), n_lon=st.integers(4, 20),
    ratio=st.integers(2, 6), source_id=st.sampled_from(list(MODELS)),
)  # fmt: skip
def test_models_reach_two_cells_beyond_the_fine_grid(
    seed: int, n_lat: int, n_lon: int, ratio: int, source_id: str
) -> None:
    world = World(seed=seed, n_lat=n_lat, n_lon=n_lon, ratio=ratio)
    fine, coarse = synthetic.reference_grid(world), synthetic.simulation_grid(world, source_id)
    for axis in ("lat_bnds", "lon_bnds"):
        inner, outer = getattr(fine, axis), getattr(coarse, axis)
        cell = 2 * (outer[0, 1] - outer[0, 0]) - 1e-9
        assert outer[0, 0] <= inner[0, 0] - cell
        assert outer[-1, 1] >= inner[-1, 1] + cell
    assert abs(synthetic.land(world).mean() - synthetic.LAND_FRACTION) <= 1 / (n_lat * n_lon)


def test_only_the_first_models_cells_are_blocks_of_fine_cells() -> None:
    fine = synthetic.reference_grid(TINY)
    edges = np.append(fine.lat_bnds[:, 0], fine.lat_bnds[-1, 1])
    for source_id, is_nested in (("FS-A", True), ("FS-B", False)):
        coarse = synthetic.simulation_grid(TINY, source_id).lat_bnds[:, 0]
        inside = coarse[(coarse > edges[0]) & (coarse < edges[-1])]
        distance = np.abs(inside[:, None] - edges).min(axis=1)
        assert (distance.max() < 1e-9) == is_nested


@pytest.mark.parametrize("variable_id", synthetic.GENERATED)
def test_the_reference_has_data_on_land_and_models_everywhere(variable_id: str) -> None:
    fine = read(TINY, variable_id, None, days_of(None))
    np.testing.assert_array_equal(np.isfinite(fine).all(axis=0), synthetic.land(TINY))
    np.testing.assert_array_equal(np.isnan(fine).all(axis=0), ~synthetic.land(TINY))
    for source_id in MODELS:
        assert np.isfinite(read(TINY, variable_id, source_id, days_of(source_id))).all()


@pytest.mark.parametrize("source_id", [None, *MODELS])
def test_minimum_mean_and_maximum_are_in_order(source_id: str | None) -> None:
    days = days_of(source_id)
    low, middle, high = (read(TINY, v, source_id, days) for v in ("tasmin", "tas", "tasmax"))
    exists = np.isfinite(middle)
    assert (low < middle)[exists].all() and (middle < high)[exists].all()
    assert 3 < (high - low)[exists].mean() < 15


@pytest.mark.parametrize(
    ("source_id", "experiment"),
    [(None, "historical"), ("FS-A", "ssp245"), ("FS-A", "ssp585"), ("FS-B", "ssp245")],
)
def test_the_known_warming_is_found_in_a_long_series(
    source_id: str | None, experiment: str
) -> None:
    days = days_of(source_id, "2015-01-01", "2074-12-30")
    series = np.nanmean(read(TINY, "tas", source_id, days, experiment), axis=(1, 2))
    years = np.unique(days.year)
    found = [series[days.year == year].mean() for year in years]
    truth = synthetic.true_warming(TINY, source_id, experiment, years)
    slope = [np.polyfit(years, warming, 1)[0] * 10 for warming in (found, truth)]
    assert slope[0] == pytest.approx(slope[1], abs=0.06)


def test_scenarios_continue_the_past_with_their_own_warming() -> None:
    warming = synthetic.true_warming(TINY, "FS-A", "ssp585", [1998, 2013, 2014, 2015, 2016])
    np.testing.assert_allclose(
        np.diff(warming), [15 * 0.025, 0.025, (0.025 + 0.1) / 2, 0.1], rtol=1e-12
    )


def test_scenarios_share_the_weather_of_the_past_only() -> None:
    days = days_of("FS-A", "2014-12-01", "2015-01-30")
    mild, severe = (read(TINY, "pr", "FS-A", days, e) for e in ("ssp245", "ssp585"))
    past = days.year < 2015
    np.testing.assert_array_equal(mild[past], severe[past])
    assert (mild != severe)[~past].mean() > 0.3


def test_members_worlds_and_sources_have_weather_of_their_own() -> None:
    days = days_of("FS-A")

    def tas(world: World, member_id: str) -> NDArray[np.float32]:
        return synthetic.read_simulation(world, "tas", "FS-A", "ssp245", member_id, days)[:, 4, 4]

    mine, sister = tas(TINY, MEMBER), tas(TINY, "r2i1p1f1")
    stranger = tas(World(**{**vars(TINY), "seed": 2}), MEMBER)
    season = np.cos(2 * np.pi * (slots(days) - 15) / 360)
    weather = [x - np.polyval(np.polyfit(season, x, 1), season) for x in (mine, sister, stranger)]
    assert np.abs(np.corrcoef(weather)[np.triu_indices(3, 1)]).max() < 0.25


def test_the_reference_is_wet_on_a_plausible_share_of_days() -> None:
    days = days_of(None, "2000-01-01", "2009-12-31")
    pr = read(TINY, "pr", None, days)[:, synthetic.land(TINY)] * 86400
    for wet in (pr > 0, pr >= 1):
        assert wet.mean(axis=0).min() > 0.2 and wet.mean(axis=0).max() < 0.6
    assert 3 < pr[pr > 0].mean() < 15
    assert pr.max() < 500


def test_mountains_are_colder_and_wetter() -> None:
    days = days_of(None, "2000-01-01", "2009-12-31")
    exists = synthetic.land(TINY)
    height = synthetic.elevation(TINY)[exists]
    lat = np.repeat(synthetic.reference_grid(TINY).lat[:, None], TINY.n_lon, axis=1)[exists]
    tas = read(TINY, "tas", None, days)[:, exists].mean(axis=0)
    design = np.stack([np.ones_like(height), lat, height], axis=1)
    lapse_rate = -np.linalg.lstsq(design, tas.astype(np.float64))[0][2]
    assert lapse_rate == pytest.approx(synthetic.LAPSE_RATE, rel=0.05)
    pr = read(TINY, "pr", None, days)[:, exists].mean(axis=0)
    assert np.corrcoef(height, pr)[0, 1] > 0.8


@pytest.mark.parametrize("variable_id", ["tas", "pr"])
def test_weather_is_alike_nearby_and_unlike_far_away(variable_id: str) -> None:
    world = World(n_lat=4, n_lon=48, ratio=3)
    days = days_of("FS-B", "2000-01-01", "2009-12-31")
    row = read(world, variable_id, "FS-B", days)[:, 2].astype(np.float64)
    january = row[days.month == 1]
    correlation = np.corrcoef(january.T)
    by_lag = [np.diagonal(correlation, k).mean() for k in (1, 2, 3, 12)]
    assert by_lag[0] > 0.7
    assert all(a > b for a, b in itertools.pairwise(by_lag[:3]))
    assert abs(by_lag[-1]) < 0.2


def test_weather_remembers_yesterday() -> None:
    days = days_of("FS-B", "2000-01-01", "2009-12-31")
    tas = read(TINY, "tas", "FS-B", days).astype(np.float64).mean(axis=(1, 2))
    january = [tas[(days.month == 1) & (days.year == y)] for y in np.unique(days.year)]
    today, tomorrow = (np.concatenate([x[s] for x in january]) for s in (np.s_[:-1], np.s_[1:]))
    assert 0.5 < np.corrcoef(today, tomorrow)[0, 1] < 0.85


def test_models_see_the_mean_height_of_their_cells() -> None:
    fine = block_means(synthetic.elevation(BLOCKS))
    coarse = synthetic.elevation(BLOCKS, "FS-A")
    np.testing.assert_allclose(coarse[2:-2, 2:-2], fine, atol=1e-6)
    assert coarse[0].max() == coarse[:, -1].max() == 0
    assert coarse.max() < synthetic.elevation(BLOCKS).max()


def test_the_known_bias_of_temperature_is_found(
    climates: dict[str, dict[str, NDArray[np.float64]]],
) -> None:
    model, years = MODELS["FS-A"], np.arange(1995, 2015)
    warming = [
        synthetic.true_warming(BLOCKS, source_id, "historical", years).mean()
        for source_id in ("FS-A", None)
    ]
    cycles = []
    for name in ("FS-A", "reference"):
        tas = climates[name]["tas"].mean(axis=1)
        phase = 2 * np.pi * ((np.arange(tas.size) + 0.5) * 20 / tas.size % 1 - 15 / 366)
        cycles.append(np.linalg.lstsq(np.stack([phase**0, np.cos(phase)], axis=1), tas)[0])
    offset, seasonal_bias = cycles[0] - cycles[1]
    assert offset == pytest.approx(model.offset + warming[0] - warming[1], abs=0.35)
    assert seasonal_bias == pytest.approx(model.seasonal_bias, abs=0.45)


def test_the_known_factors_of_range_and_rain_are_found(
    climates: dict[str, dict[str, NDArray[np.float64]]],
) -> None:
    model, (coarse, fine) = MODELS["FS-A"], (climates["FS-A"], climates["reference"])
    ranges = [(c["tasmax"] - c["tasmin"]).mean() for c in (coarse, fine)]
    assert ranges[0] / ranges[1] == pytest.approx(model.dtr, rel=0.03)
    assert coarse["wet"].mean() / fine["wet"].mean() == pytest.approx(model.drizzle, rel=0.06)
    assert coarse["pr"].mean() / fine["pr"].mean() == pytest.approx(model.wetness, rel=0.12)


def test_the_known_spread_is_found() -> None:
    spread = []
    for source_id in ("FS-A", None):
        days = days_of(source_id, "1990-01-01", "2019-12-30")
        tas = read(TINY, "tas", source_id, days).astype(np.float64)
        july = tas[days.month == 7]
        spread.append(np.nanmean(july.std(axis=0)))
    assert spread[0] / spread[1] == pytest.approx(MODELS["FS-A"].spread, rel=0.08)


def test_a_360_day_model_has_a_30th_of_february() -> None:
    first, last = synthetic.span(TINY, "FS-A", "historical")
    assert (first, last) == ("2013-01-01", "2014-12-30")
    days = days_of("FS-A", first, last)
    assert len(days) == 720 and days.isoformat(59) == "2013-02-30"
    assert synthetic.span(TINY, "FS-B", "ssp245") == ("2015-01-01", "2016-12-31")
    assert synthetic.span(TINY, None, None) == ("2013-01-01", "2014-12-31")


def test_the_numbers_are_those_of_this_version() -> None:
    days = days_of("FS-A", "2014-12-01", "2015-01-30")
    found = [
        float(read(TINY, variable_id, "FS-A", days)[:, 3, 4].astype(np.float64).sum())
        for variable_id in synthetic.GENERATED
    ]
    assert synthetic.VERSION == 1
    expected = [16610.198516845703, 16788.326751708984, 16432.070190429688, 0.001559259271175506]
    np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg="raise synthetic.VERSION")


@pytest.mark.parametrize("format", ["netcdf", "zarr2", "zarr3"])
@pytest.mark.parametrize("source_id", [None, "FS-A"])
def test_files_hold_what_is_read(
    tmp_path: Path, format: synthetic.Format, source_id: str | None
) -> None:
    days = days_of(source_id, "2014-02-01", "2014-02-28")
    ds = synthetic.dataset(TINY, "pr", source_id=source_id, days=days)
    path = synthetic.write(ds, tmp_path / "pr.store", format)
    with xr.open_dataset(path, engine="netcdf4" if format == "netcdf" else "zarr") as found:
        np.testing.assert_array_equal(found.pr, read(TINY, "pr", source_id, days, "historical"))
        assert found.pr.dtype == np.float32
        assert found.time.dt.calendar == ("proleptic_gregorian" if not source_id else "360_day")
        assert (found.time.dt.day == days.day).all() and (found.time.dt.hour == 12).all()
        assert found.lat.attrs["bounds"] == "lat_bnds" and found.lat_bnds.shape == (ds.lat.size, 2)


def test_quirks_change_the_form_and_not_the_content(tmp_path: Path) -> None:
    days = days_of(None, "2014-02-01", "2014-02-28")
    for variable_id, units, back, step in (
        ("tasmax", "degC", lambda x: x + 273.15, 0.01),
        ("pr", "mm day-1", lambda x: x / 86400, 0.1 / 86400),
    ):
        ds = synthetic.dataset(
            TINY, variable_id, days=days, everyday_units=True, descending=True, east=True,
            hour=0, bounds=False, height=True, packed=True, extra=True,
        )  # fmt: skip
        path = synthetic.write(ds, tmp_path / f"{variable_id}.nc")
        with xr.open_dataset(path, decode_cf=False) as raw:
            assert raw[variable_id].dtype == np.int16
            assert raw[variable_id].attrs["units"] == units
        with xr.open_dataset(path) as found:
            assert (np.diff(found.lat) < 0).all() and found.lon.min() > 180
            assert (found.time.dt.hour == 0).all()
            assert found.height == 2 and f"{variable_id}_spread" in found
            assert "lat_bnds" not in found and "bounds" not in found.lat.attrs
            values = back(found[variable_id].values[:, ::-1])
        expected = read(TINY, variable_id, None, days)
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=0.51 * step)
        if variable_id == "pr":
            assert (values[expected == 0] == 0).all()


def test_longitudes_and_their_bounds_turn_together() -> None:
    world = World(n_lat=4, n_lon=8, ratio=2, west=-1.0)
    days = days_of(None, "2014-02-01", "2014-02-02")
    ds = synthetic.dataset(world, "pr", days=days, east=True)
    plain = synthetic.dataset(world, "pr", days=days)
    np.testing.assert_allclose(ds.lon_bnds.mean("bnds"), ds.lon)
    np.testing.assert_allclose(ds.lon, [0.125, 0.375, 0.625, 0.875, 359.125, 359.375, 359.625,
                                        359.875])  # fmt: skip
    np.testing.assert_array_equal(ds.pr, plain.pr.roll(lon=4))


def test_files_split_by_years_join_to_the_whole(tmp_path: Path) -> None:
    paths = synthetic.write_files(TINY, tmp_path, variables=["tas"], years_per_file=1)
    assert len(paths) == 2 * (1 + 3 + 2)
    assert paths == [path for path in paths if path.exists()]
    parts = sorted(tmp_path.glob("tas_day_FS-A_historical_*.nc"))
    assert [path.stem[-17:] for path in parts] == ["20130101-20131230", "20140101-20141230"]
    with xr.open_mfdataset(parts, data_vars="minimal", compat="equals") as found:
        days = days_of("FS-A", "2013-01-01", "2014-12-30")
        np.testing.assert_array_equal(found.tas, read(TINY, "tas", "FS-A", days, "historical"))


def test_what_does_not_exist_is_named_with_the_choices() -> None:
    days = days_of("FS-A")
    with pytest.raises(SourceError, match=r"'hurs' is not generated; choose one of tas, tasmax"):
        read(TINY, "hurs", "FS-A", days)
    with pytest.raises(SourceError, match=r"'FS-C' does not exist; choose one of FS-A, FS-B"):
        synthetic.simulation_grid(TINY, "FS-C")
    with pytest.raises(SourceError, match=r"'ssp585' does not exist; choose one of historical"):
        synthetic.span(TINY, "FS-B", "ssp585")
    with pytest.raises(SourceError, match=r"'noleap', days of '360_day' were asked for"):
        read(TINY, "tas", "FS-B", days)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ratio": 0}, "ratio >= 1"),
        ({"first_year": 2015}, "first_year < 2015"),
        ({"south": 75.0}, "leave the globe"),
    ],
)
def test_impossible_worlds_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        World(**fields)
