"""Every wrong configuration is refused with one clear message before any job starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from configs import GONE, RIGHT, WORLD, changed

from finescale import start, synthetic
from finescale.calendars import Days
from finescale.errors import FinescaleError

ROOT = Path(__file__).parents[2]
QUICKSTART = (ROOT / "config" / "config.yaml").read_text()


def message(mapping: Any, configfile: Path = Path("config.yaml")) -> str:
    with pytest.raises(FinescaleError) as caught:
        start.read(mapping, configfile)
    return str(caught.value)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)


def test_the_right_configuration_is_planned() -> None:
    run = start.read(changed({}), Path("config.yaml"))
    assert {p.facets["experiment_id"] for p in run.plan.products} == {"historical", "ssp245"}


KNOWN = "tas, tasmax, tasmin, pr, hurs, huss, sfcWind, rsds, psl, uas, vas, ta850, hus850, zg500"
FILE = {"references/OBS/synthetic": GONE, "references/OBS/path": "obs.nc"}
ISLAND = "lat 36.125..38.875, lon -33.875..-30.125"
FACETS = "domain, experiment_id, member_id, method, source_id, variable_id"
CALENDAR_NAMES = (
    "'standard', 'gregorian', 'proleptic_gregorian', 'julian', 'noleap', '365_day', 'all_leap', "
    "'366_day' or '360_day'"
)
NAMES = "names are made of letters, digits, dot and hyphen"
DAYS = "a daily axis must hold every day once and in order"
REPAIR = "repair the source, or choose another period or `season`"


def wrong(name: str, changes: dict[str, Any], expected: str) -> Any:
    return pytest.param(changes, expected, id=name)


FORM = [
    wrong(
        "an unknown section",
        {"domainz": {}},
        "domainz: unknown key; did you mean `domains`?",
    ),
    wrong(
        "an unknown key of a domain",
        {"domains/island/latt": [1, 2]},
        "domains.island.latt: unknown key; did you mean `lat`?",
    ),
    wrong(
        "an unknown key of a reference",
        {"references/OBS/licenze": "free"},
        "references.OBS.licenze: unknown key; did you mean `licence`?",
    ),
    wrong(
        "an unknown key of a variable",
        {"references/OBS/variables": {"tasmax": {"unit": "K"}}},
        "references.OBS.variables.tasmax.unit: unknown key; did you mean `units`?",
    ),
    wrong(
        "a misspelt key that is required",
        {"simulations/0/sorce_id": "FS-A", "simulations/0/source_id": GONE},
        "\n  - simulations.0.source_id: required, but not given"
        "\n  - simulations.0.sorce_id: unknown key; did you mean `source_id`?",
    ),
    wrong(
        "an unknown key of a block of products",
        {"products/0/varable_id": "pr"},
        "products.0.varable_id: unknown key; did you mean `variable_id`?",
    ),
    wrong(
        "an unknown key of a stage",
        {"adjust/half_windw": 3},
        "adjust.half_windw: unknown key; did you mean `half_window`?",
    ),
    wrong(
        "an unknown key that resembles none",
        {"evaluate/zzz": 3},
        "evaluate.zzz: unknown key (known here: waive, wet_day)",
    ),
    wrong(
        "an unknown key of a method",
        {"methods/mine": {"stage": "bcsd", "adjst": {}}},
        "methods.mine.adjst: unknown key; did you mean `adjust`?",
    ),
    wrong(
        "an unknown key in what a method overrides",
        {"methods/mine": {"stage": "bcsd", "adjust": {"trend_year": 3}}},
        "methods.mine.adjust.trend_year: unknown key; did you mean `trend_years`?",
    ),
    wrong(
        "a wrong value in what a method overrides",
        {"methods/mine": {"stage": "bcsd", "climatology": {"harmonics": 0}}},
        "methods.mine.climatology.harmonics: must be greater than or equal to 1, found 0",
    ),
    wrong(
        "a key of another section in what a method overrides",
        {"methods/mine": {"stage": "bcsd", "climatology": {"tails": "linear"}}},
        "methods.mine.climatology.tails: unknown key "
        "(known here: floor, half_window, harmonics, min_valid_fraction)",
    ),
    wrong(
        "a method without its stage",
        {"methods/mine": {}},
        "methods.mine: give `stage`, one of bcsd, qplad, maca, gard, interpolate",
    ),
    wrong(
        "a method of a stage that does not exist",
        {"methods/mine": {"stage": "bscd"}},
        "methods.mine.stage: must be 'bcsd', 'qplad', 'maca', 'gard' or 'interpolate', "
        "found 'bscd'",
    ),
    wrong(
        "a choice that does not exist",
        {"adjust/tails": "gumbel"},
        "adjust.tails: must be 'parametric', 'linear' or 'constant', found 'gumbel'",
    ),
    wrong(
        "a running mean that has no centre",
        {"adjust/trend_years": 8},
        "adjust.trend_years: expected an odd number, so that the mean is centred, found 8",
    ),
    wrong(
        "text for a number",
        {"adjust/half_window": "fifteen"},
        "adjust.half_window: must be a valid integer, unable to parse string as an integer, "
        "found 'fifteen'",
    ),
    wrong(
        "a section that is empty",
        {"adjust": None},
        "adjust: empty; give it a value ({} for the defaults) or remove the line",
    ),
    wrong(
        "a named thing that is empty",
        {"domains/island": None},
        "domains.island: empty; give it a value ({} for the defaults) or remove the line",
    ),
    wrong(
        "a list that is left blank",
        {"products": None},
        "products: empty; give it a value or remove the line",
    ),
    wrong(
        "a mapping with nothing in it",
        {"domains": {}},
        "domains: must not be empty",
    ),
    wrong(
        "a mapping for a list",
        {"products": {"domain": "island"}},
        "products: must be a list, found {'domain': 'island'}",
    ),
    wrong(
        "text for a section",
        {"references/OBS": "obs.nc"},
        "references.OBS: must be a mapping (key: value), found 'obs.nc'",
    ),
    wrong(
        "a required key left out",
        {"products/0/train": GONE},
        "products.0.train: required, but not given",
    ),
    wrong(
        "a list of mappings for variables",
        {"references/OBS/variables": [{"tasmax": {}}]},
        "references.OBS.variables: expected a list of names, or a mapping name -> details, "
        "found [{'tasmax': {}}]",
    ),
    wrong(
        "a name that leaves the folder of results",
        {"name": "../x"},
        f"name: {NAMES}, found '../x'",
    ),
    wrong(
        "a name that leaves the root of stores",
        {"simulations/0/source_id": "../x"},
        f"simulations.0.source_id.0: {NAMES}, found '../x'",
    ),
    wrong(
        "a named thing that leaves the root of stores",
        {"methods/..": {"stage": "bcsd"}},
        f"methods...: {NAMES}, found '..'",
    ),
    wrong(
        "a name with an underscore, which separates facets",
        {"periods/my_years": [2000, 2014]},
        f"periods.my_years: {NAMES}, found 'my_years'",
    ),
    wrong(
        "a number for a name",
        {"name": 2020},
        "name: must be text, found 2020; put it in quotes",
    ),
    wrong(
        "a number for the name of a period",
        {"periods": {2000: [2000, 2014]}, "products/0/train": "2000"},
        "periods.2000: must be text, found 2000; put it in quotes",
    ),
    wrong(
        "a period that ends before it starts",
        {"periods/train": [2014, 2000]},
        "periods.train: the period starts (2014-01-01) after its end (2000-12-31)",
    ),
    wrong(
        "a thirteenth month",
        {"periods/train": ["2000-13-01", 2014]},
        "periods.train: expected a year or a date YYYY-MM-DD, found '2000-13-01'",
    ),
    wrong(
        "a period of one year",
        {"periods/train": [2000]},
        "periods.train: expected [first, last] (years or YYYY-MM-DD), found [2000]",
    ),
    wrong(
        "a period as text",
        {"periods/train": "2000-2014"},
        "periods.train: expected [first, last] (years or YYYY-MM-DD), found '2000-2014'",
    ),
    wrong(
        "a box upside down",
        {"domains/island/lat": [39, 36]},
        "domains.island.lat: expected [low, high] in degrees with low < high, found [39, 36]",
    ),
    wrong(
        "a season of no months",
        {"references/OBS/season": "XYZ"},
        "references.OBS.season: expected the initials of consecutive months (DJF), found 'XYZ'",
    ),
    wrong(
        "a season that could be any of three months",
        {"references/OBS/season": "J"},
        "references.OBS.season: expected the initials of consecutive months (DJF), found 'J'",
    ),
    wrong(
        "a calendar that CF does not know",
        {"products/0/calendar": "martian"},
        f"products.0.calendar: must be {CALENDAR_NAMES}, found 'martian'",
    ),
    wrong(
        "a gate that does not exist",
        {"evaluate/waive": ["time_step"]},
        "evaluate.waive.0: must be 'missing_values', 'values_outside_mask', 'below_range', "
        "'above_range', 'tasmin_above_tasmax', 'time_steps' or 'trend_distortion', "
        "found 'time_step'",
    ),
    wrong(
        "a format that is not read",
        {"references/OBS/format": "grib"},
        "references.OBS.format: must be 'zarr' or 'netcdf', found 'grib'",
    ),
    wrong(
        "a path and a synthetic world",
        {"references/OBS/path": "obs.nc"},
        "references.OBS: give either `path` or `synthetic`, found both",
    ),
    wrong(
        "neither a path nor a synthetic world",
        {"references/OBS/synthetic": GONE, "references/OBS/variables/0": "tasmax"},
        "references.OBS: give either `path` or `synthetic`, found neither for tasmax, tasmin, pr",
    ),
    wrong(
        "a path for one variable only",
        {
            "references/OBS/synthetic": GONE,
            "references/OBS/variables": {"tasmax": {"path": "x.nc"}, "pr": None},
        },
        "references.OBS: give either `path` or `synthetic`, found neither for pr",
    ),
    wrong(
        "an environment variable that is not set, for the stores",
        {"stores": "$NO_SUCH_FOLDER/stores"},
        "stores: '$NO_SUCH_FOLDER/stores' is empty or names an environment variable that is not "
        "set; give a folder or a URL",
    ),
]

REFERENCES_BETWEEN_NAMES = [
    wrong(
        "an unknown variable",
        {"products/0/variable_id": "tasmx"},
        "products.0.variable_id.0: unknown variable `tasmx`; did you mean `tasmax`? "
        f"(known: {KNOWN})",
    ),
    wrong(
        "an unknown variable of a reference",
        {"references/OBS/variables": ["rain"]},
        f"references.OBS.variables.rain: unknown variable `rain` (known: {KNOWN})",
    ),
    wrong(
        "a variable that only the library makes",
        {"products/0/variable_id": "dtr"},
        f"products.0.variable_id.0: unknown variable `dtr` (known: {KNOWN})",
    ),
    wrong(
        "a variable that neither dataset has",
        {"products/0/variable_id": "tas"},
        "\n  - products.0.variable_id: reference `OBS` has no `tas` (it has: tasmax, tasmin, pr)"
        "\n  - products.0.variable_id: simulation `FS-A` has no `tas` (it has: tasmax, tasmin, pr)",
    ),
    wrong(
        "an unknown method",
        {"products/0/method": "bscd"},
        "products.0.method: no method named `bscd`; did you mean `bcsd`? "
        "(defined: bcsd, gard, interpolate, maca, qplad)",
    ),
    wrong(
        "an unknown domain",
        {"products/0/domain": "islands"},
        "products.0.domain: no domain named `islands`; did you mean `island`? (defined: island)",
    ),
    wrong(
        "an unknown period to train on",
        {"products/0/train": "past"},
        "products.0.train: no period named `past` (defined: train)",
    ),
    wrong(
        "an unknown period to score",
        {"products/0/score": "trains"},
        "products.0.score: no period named `trains`; did you mean `train`? (defined: train)",
    ),
    wrong(
        "an unknown reference",
        {"products/0/reference": "ERA5"},
        "products.0.reference: no reference named `ERA5` (defined: OBS)",
    ),
    wrong(
        "an unknown simulation",
        {"products/0/source_id": "CanESM5"},
        "products.0.source_id: no simulation named `CanESM5` (defined: FS-A)",
    ),
    wrong(
        "an experiment that is not in the simulation",
        {"products/0/experiment_id": "ssp585"},
        "products.0.experiment_id: no experiment named `ssp585`; did you mean `ssp245`? "
        "(defined: historical, ssp245)",
    ),
    wrong(
        "a member that is not in the simulation",
        {"products/0/member_id": "r9i1p1f1"},
        "products.0.member_id: no member named `r9i1p1f1`; did you mean `r1i1p1f1`? "
        "(defined: r1i1p1f1)",
    ),
    wrong(
        "a period of an experiment that is not in the simulation",
        {"simulations/0/period": {"rcp85": [2015, 2020]}},
        "simulations.0.period: no experiment named `rcp85` (defined: historical, ssp245)",
    ),
    wrong(
        "padding by no scenario",
        {"simulations/0/pad_experiment": "historical"},
        "simulations.0.pad_experiment: no scenario named `historical` (defined: ssp245)",
    ),
    wrong(
        "one run of a model in two entries",
        {"simulations": RIGHT["simulations"] * 2},
        "simulations.1: FS-A historical r1i1p1f1 day gn is already in simulations.0; "
        "put its variables into one entry, each with a `path` if they lie apart",
    ),
    wrong(
        "an exclusion by a facet that does not exist",
        {"products/0/exclude": [{"variable": "tasmax"}]},
        "products.0.exclude: no facet named `variable`; did you mean `variable_id`? "
        f"(defined: {FACETS})",
    ),
    wrong(
        "an exclusion that excludes nothing",
        {"products/0/exclude": [{"experiment_id": "ssp242"}]},
        "products.0.exclude: experiment_id `ssp242` is not asked for here; "
        "did you mean `ssp245`? (asked for: historical, ssp245)",
    ),
]

DATA = [
    wrong(
        "training before the reference begins",
        {"periods/train": [1990, 2014], "products/0/method": "interpolate"},
        "periods.train: training 1990-01-01..2014-12-31 is not covered by reference OBS tasmax, "
        "which spans 1998-01-01..2014-12-31; shorten it",
    ),
    wrong(
        "training on days of the scenario",
        {"periods/train": [2000, 2016]},
        "periods.train: training 2000-01-01..2016-12-31 is not covered by simulation FS-A "
        "historical tasmax, which spans 1998-01-01..2014-12-30; shorten it",
    ),
    wrong(
        "training on days of the reference that its period leaves out",
        {"references/OBS/period": [2005, 2014]},
        "periods.train: training 2000-01-01..2014-12-31 is not covered by reference OBS tasmax, "
        "which spans 2005-01-01..2014-12-31; shorten it",
    ),
    wrong(
        "a product beyond the data",
        {"simulations/0/period": {"ssp245": [2015, 2100]}},
        "simulations FS-A: period.ssp245: 2015-01-01..2100-12-31 is not covered by the data, "
        "which span 2015-01-01..2026-12-30; shorten it",
    ),
    wrong(
        "a reference beyond its data",
        {"references/OBS/period": [1998, 2020]},
        "references.OBS.period: 1998-01-01..2020-12-31 is not covered by the data, "
        "which span 1998-01-01..2014-12-31; shorten it",
    ),
    wrong(
        "a score of days without a reference",
        {"products/0/score": "late", "periods/late": [2090, 2099]},
        "periods.late: no day of 2090-01-01..2099-12-31 can be scored, since the reference OBS "
        "tasmax spans 1998-01-01..2014-12-31",
    ),
    wrong(
        "a domain outside the reference",
        {"domains/island/lat": [50, 60]},
        "domains.island: lat [50.0, 60.0] reaches beyond the reference, whose cell centres span "
        "36.125..38.875; make the domain smaller",
    ),
    wrong(
        "a domain on another continent",
        {"domains/island/lon": [0, 10]},
        "domains.island: lon [0.0, 10.0] reaches beyond the reference, whose cell centres span "
        "-33.875..-30.125; make the domain smaller",
    ),
    wrong(
        "a domain that falls between the cells",
        {"domains/island/lat": [36.3, 36.31]},
        "domains.island: no cell centre of the reference lies in lat [36.3, 36.31]; "
        f"its centres span {ISLAND}; make the domain larger",
    ),
    wrong(
        "a model of another part of the globe",
        {"simulations/0/synthetic": {**WORLD, "south": -40.0}},
        "simulations/FS-A/historical/r1i1p1f1/day/gn/tasmax: its grid (lat -41.5..-35.5, "
        f"lon -35.5..-28.5) does not overlap the domain ({ISLAND}); "
        "choose another domain or simulation",
    ),
    wrong(
        "everything excluded",
        {"products/0/exclude": [{"variable_id": "tasmax"}]},
        "products: every combination is excluded; nothing is left to make",
    ),
    wrong(
        "a file that does not exist",
        FILE,
        "references/OBS/tasmax: nothing found at obs.nc; correct `path`, or the environment "
        "variable in it",
    ),
    wrong(
        "a glob that matches nothing",
        {**FILE, "references/OBS/path": "obs/*.nc"},
        "references/OBS/tasmax: nothing found at obs/*.nc; correct `path`, or the environment "
        "variable in it",
    ),
    wrong(
        "an environment variable that is not set, in a path",
        {**FILE, "references/OBS/path": "$NO_SUCH_FOLDER/obs.nc"},
        "references/OBS/tasmax: the path '$NO_SUCH_FOLDER/obs.nc' needs the environment variable "
        "NO_SUCH_FOLDER; set it",
    ),
    wrong(
        "a facet in a path that the dataset does not have",
        {**FILE, "references/OBS/path": "{source_id}.nc"},
        "references/OBS/tasmax: the path '{source_id}.nc' names a facet 'source_id' that is "
        "unknown (known: reference, variable_id)",
    ),
    wrong(
        "a synthetic model that does not exist",
        {"simulations/0/source_id": "FS-Z", "products/0/source_id": "FS-Z"},
        "synthetic source 'FS-Z' does not exist; choose one of FS-A, FS-B",
    ),
    wrong(
        "an experiment that the synthetic model has not run",
        {"simulations/0/experiment_id": ["historical", "ssp126"]},
        "synthetic source FS-A: experiment 'ssp126' does not exist; choose one of historical, "
        "ssp245, ssp585",
    ),
    wrong(
        "an unknown parameter of the synthetic world",
        {"references/OBS/synthetic": {"n_lats": 12}},
        "references/OBS/tasmax: `synthetic: {n_lats: 12}` is unknown; the world takes name, seed, "
        "n_lat, n_lon, ratio, west, south, resolution, first_year, last_year",
    ),
    wrong(
        "a parameter of the synthetic world that is no number",
        {"references/OBS/synthetic": {"n_lat": "twelve"}},
        "references/OBS/tasmax: `synthetic: {n_lat: 'twelve'}` must be of type int",
    ),
]


@pytest.mark.parametrize(("changes", "expected"), FORM + REFERENCES_BETWEEN_NAMES)
def test_a_wrong_configuration_is_told_without_a_look_at_the_data(
    changes: dict[str, Any], expected: str
) -> None:
    found = message(changed(changes))
    assert found == f"config.yaml:{expected if expected[0] == chr(10) else ' ' + expected}"
    assert not Path("config.lock.json").exists()


@pytest.mark.parametrize(("changes", "expected"), DATA)
def test_what_the_data_cannot_give_is_told(changes: dict[str, Any], expected: str) -> None:
    assert message(changed(changes)) == expected


# --------------------------------------------------------------------------------------
# Datasets that are not what they should be


def unlike(time: Any = slice(None), **quirks: Any) -> xr.Dataset:
    """Return three months of observations, some of their days."""
    days = Days.range("2000-01-01", "2000-03-31", "standard")
    ds = synthetic.dataset(synthetic.World(**WORLD), "tasmax", days=days, **quirks)
    return ds.isel(time=time)


def with_units(units: str | None) -> xr.Dataset:
    ds = unlike()
    ds.tasmax.attrs["units"] = units or ""
    return ds


def curvilinear() -> xr.Dataset:
    ds = unlike(bounds=False).rename(lat="y", lon="x")
    lat, lon = np.meshgrid(ds.y, ds.x, indexing="ij")
    ds = ds.drop_vars(["x", "y"])
    ds["lat"] = (("y", "x"), lat, {"units": "degrees_north"})
    ds["lon"] = (("y", "x"), lon, {"units": "degrees_east"})
    return ds.set_coords(["lat", "lon"])


def nameless_axis() -> xr.Dataset:
    ds = unlike(bounds=False).rename(lon="cell")
    ds.cell.attrs.clear()
    return ds


def raw_time(**attributes: str) -> xr.Dataset:
    ds = unlike()
    return ds.assign_coords(time=("time", np.arange(ds.time.size), attributes))


SOURCES: list[Any] = [
    wrong(
        "no variable of that name",
        lambda: unlike().rename(tasmax="tx"),
        "no variable `tasmax` in the dataset (it holds: tx, lat_bnds, lon_bnds); "
        "set `variables: {tasmax: {name: ...}}`",
    ),
    wrong(
        "units that nobody knows",
        lambda: with_units("bananas"),
        "units 'bananas' of `tasmax` are unknown (CF expects for example 'K'); "
        "set `variables: {tasmax: {units: ...}}` of this dataset in the config",
    ),
    wrong(
        "units of another quantity",
        lambda: with_units("kg m-2"),
        "`tasmax` must be in K or units that convert to it, found 'kg m-2'; "
        "set `variables: {tasmax: {units: ...}}` of this dataset in the config",
    ),
    wrong(
        "no units",
        lambda: with_units(None),
        "`tasmax` must be in K or units that convert to it, found ''; "
        "set `variables: {tasmax: {units: ...}}` of this dataset in the config",
    ),
    wrong(
        "a curvilinear grid",
        curvilinear,
        "latitude has dimensions ('y', 'x'); only rectilinear grids are read "
        "(regrid curvilinear data first)",
    ),
    wrong(
        "a dimension without a meaning",
        nameless_axis,
        "no longitude coordinate found on `tasmax` (coordinates: time, lat, cell); "
        "CF needs units or standard_name on it",
    ),
    wrong(
        "a dimension too many",
        lambda: unlike().expand_dims(height=[2.0, 10.0]),
        "`tasmax` must have the dimensions time, latitude, longitude; "
        "found ('height', 'time', 'lat', 'lon')",
    ),
    wrong(
        "one map for each month",
        lambda: unlike(time=[0, 31, 60]),
        f"{DAYS}; missing: 2000-01-02 to 2000-01-31, 2000-02-02 to 2000-02-29; {REPAIR}",
    ),
    wrong(
        "days that are missing",
        lambda: unlike(time=[*range(40), *range(42, 91)]),
        f"{DAYS}; missing: 2000-02-10 to 2000-02-11; {REPAIR}",
    ),
    wrong(
        "a day given twice",
        lambda: unlike(time=[*range(41), *range(40, 91)]),
        f"{DAYS}; duplicated: 2000-02-10; {REPAIR}",
    ),
    wrong(
        "days in disorder",
        lambda: unlike(time=[0, 2, 1, *range(3, 91)]),
        f"{DAYS}; unordered: 2000-01-02; {REPAIR}",
    ),
    wrong(
        "no days at all",
        lambda: unlike(time=slice(0)),
        "the time axis is empty",
    ),
    wrong(
        "a time axis without an origin",
        raw_time,
        "time has units None, expected e.g. 'days since 1850-01-01'",
    ),
    wrong(
        "a calendar of another planet",
        lambda: raw_time(units="days since 2000-01-01", calendar="martian"),
        "calendar 'martian' is not a CF calendar; expected one of standard, gregorian, "
        "proleptic_gregorian, julian, noleap, 365_day, all_leap, 366_day, 360_day; "
        "correct the time axis' `calendar` attribute",
    ),
]


@pytest.mark.parametrize(("make", "expected"), SOURCES)
def test_a_dataset_that_is_not_what_it_should_be_is_told(
    make: Callable[[], xr.Dataset], expected: str
) -> None:
    synthetic.write(make(), Path("obs.nc"))
    assert message(changed(FILE)) == f"references/OBS/tasmax: {expected}"
    assert not Path("config.lock.json").exists()


def test_days_outside_the_declared_season_are_told() -> None:
    synthetic.write(unlike(), Path("obs.nc"))
    assert message(changed({**FILE, "references/OBS/season": "DJF"})) == (
        f"references/OBS/tasmax: {DAYS}; outside season DJF: 2000-03-01 to 2000-03-31; {REPAIR}"
    )


def test_a_file_that_is_no_dataset_is_told() -> None:
    Path("obs.nc").write_text("tasmax, 293.15")
    found = message(changed(FILE))
    assert found.startswith("references/OBS/tasmax: obs.nc cannot be opened as a netCDF file (")
    assert found.endswith("); check the file, or set `format`")


def test_a_source_that_changed_since_the_lock_is_told() -> None:
    mapping = changed({**FILE, "periods/train": ["2000-01-01", "2000-03-31"]})
    path = synthetic.write(unlike(), Path("obs.nc"))
    before = start.read(mapping, Path("config.yaml")).lock["sources"]["references/OBS/tasmax"]
    ds = unlike()
    ds.tasmax[-1] += 1
    synthetic.write(ds, Path("new.nc")).replace(path)
    found = message(mapping)
    now = re.search("now ([0-9a-f]{12})", found)
    assert now
    assert found == (
        "references/OBS/tasmax: the data have changed since they were locked (content "
        f"{before['content'][:12]}, now {now.group(1)}); run `finescale resolve --configfile F` "
        "to accept them, which makes new stores beside the old"
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param('{"schema": 1, "sou', id="cut off"),
        pytest.param("[]", id="no mapping"),
        pytest.param('{"schema": 0, "sources": {}, "grids": {}}', id="of another format"),
        pytest.param('{"schema": 1, "sources": {"x": {}}, "grids": {}}', id="with a hole"),
    ],
)
def test_a_lock_that_cannot_be_read_is_told(text: str) -> None:
    Path("config.lock.json").write_text(text)
    assert message(changed({})) == (
        "config.lock.json is not an inputs lock of format 1; delete it, the next run writes it anew"
    )
    assert Path("config.lock.json").read_text() == text


def test_a_lock_that_cannot_be_written_is_told() -> None:
    assert message(changed({}), Path("nowhere/config.yaml")) == (
        "the inputs lock nowhere/config.lock.json cannot be written (No such file or directory); "
        "put the config file in a folder you can write"
    )


def test_a_source_that_the_lock_lacks_is_told_by_a_job() -> None:
    with pytest.raises(FinescaleError) as caught:
        start.read(changed({}), Path("config.yaml"), look_up=False)
    assert str(caught.value) == (
        "references/OBS/tasmax is not in the inputs lock; run `finescale resolve --configfile F`"
    )


def test_several_wrong_things_are_told_at_once() -> None:
    found = message(changed({"adjust/seeed": 1, "products/0/method": 1, "periods/x": None}))
    assert found == (
        "config.yaml:"
        "\n  - periods.x: expected [first, last] (years or YYYY-MM-DD), found None"
        "\n  - products.0.method.0: must be text, found 1; put it in quotes"
        "\n  - adjust.seeed: unknown key; did you mean `seed`?"
    )


def test_the_page_on_configurations_shows_a_message_as_it_is() -> None:
    found = message(
        changed({"products/0/train": GONE, "products/0/trains": "train"}), Path("my.yaml")
    )
    assert f"```text\nfinescale: {found}\n```" in (ROOT / "config" / "README.md").read_text()


# --------------------------------------------------------------------------------------
# Through Snakemake


def snakemake(configfile: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a dry run of the workflow with its working directory elsewhere."""
    return subprocess.run(
        [
            sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--snakefile",
            str(ROOT / "Snakefile"), "--directory", str(folder), "--configfile", str(configfile),
            *arguments,
        ],
        env={k: v for k, v in os.environ.items() if k != "SNAKEMAKE_PROFILE"},
        capture_output=True,
        text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            yaml.safe_dump(changed({"adjust/half_windw": 3})),
            "finescale: {file}: adjust.half_windw: unknown key; did you mean `half_window`?",
            id="a misspelt key",
        ),
        pytest.param(
            yaml.safe_dump(changed({"periods": GONE})),
            "finescale: {file}: periods: required, but not given",
            id="a section that the quickstart has",
        ),
        pytest.param(
            yaml.safe_dump(changed({"domains/island/lat": [50, 60]})),
            "finescale: domains.island: lat [50.0, 60.0] reaches beyond the reference, whose cell "
            "centres span 36.125..38.875; make the domain smaller",
            id="a domain outside the reference",
        ),
        pytest.param(
            yaml.safe_dump(changed(FILE)),
            "finescale: references/OBS/tasmax: nothing found at obs.nc; correct `path`, or the "
            "environment variable in it",
            id="a file that does not exist",
        ),
        pytest.param(
            "- just\n- a list\n",
            "Config file must be given as JSON or YAML with keys at top level.",
            id="no mapping",
        ),
    ],
)
def test_snakemake_stops_with_the_message_alone(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    run = snakemake(file, tmp_path)
    assert run.returncode != 0
    assert (run.stdout + run.stderr).count(expected.format(file=file)) == 1
    assert "Traceback" not in run.stdout + run.stderr
    assert "rule" not in run.stdout


def test_nothing_of_the_quickstart_gets_into_another_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(changed({"aggregate": {"frequencies": []}})))
    run = snakemake(file, tmp_path)
    assert run.returncode == 0, run.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", run.stdout, re.MULTILINE))
    assert jobs["bcsd"] == jobs["simulation"] == "2"
    assert not {"interpolate", "aggregate"} & jobs.keys()
    assert "results/quickstart" not in run.stdout + run.stderr
    for name in ("FS-OBS", "FS-B", "ssp585", "tasmin"):
        assert name in QUICKSTART
        assert name not in run.stdout + run.stderr
