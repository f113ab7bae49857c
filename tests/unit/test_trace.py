"""`finescale trace`: every step of the way back computes the number that is stored."""

import importlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from finescale import start, store, synthetic, trace
from finescale.calendars import Days
from finescale.errors import ConfigError, StoreError
from finescale.fields import Field
from finescale.job import Job
from finescale.plan import Artefact
from finescale.trace import Step

WORLD = synthetic.World(n_lat=12, n_lon=16, ratio=4, first_year=2012, last_year=2015)
VARIABLES = ["tasmax", "tasmin", "pr"]
BCSD = {
    "keeping": {"stage": "bcsd", "settings": {"interpolation": "mean_preserving"}},
    "smooth": {"stage": "bcsd", "settings": {"fill": "smooth"}},
}
CONFIG: dict[str, Any] = {
    "name": "traced",
    "domains": {"island": {}},
    "periods": {"train": [2013, 2014]},
    "references": {"OBS": {"path": "{variable_id}.nc", "variables": VARIABLES}},
    "simulations": [
        {
            "source_id": "FS-A",
            "experiment_id": ["historical", "ssp245"],
            "path": "{variable_id}_{experiment_id}.nc",
            "variables": VARIABLES,
        }
    ],
    "methods": BCSD,
    "products": [
        {
            "domain": "island",
            "reference": "OBS",
            "train": "train",
            "source_id": "FS-A",
            "experiment_id": ["ssp245"],
            "variable_id": VARIABLES,
            "method": ["bcsd"],
            "calendar": "standard",
        },
        {
            "domain": "island",
            "reference": "OBS",
            "train": "train",
            "source_id": "FS-A",
            "experiment_id": ["historical"],
            "variable_id": ["pr"],
            "method": ["bcsd", "interpolate", *BCSD],
        },
        {
            "domain": "island",
            "reference": "OBS",
            "train": "train",
            "source_id": "FS-A",
            "experiment_id": ["ssp245"],
            "variable_id": VARIABLES,
            "method": ["qplad", "maca", "gard"],
            "exclude": [{"method": method, "variable_id": "pr"} for method in ("maca", "gard")],
        },
    ],
    "aggregate": {"frequencies": ["mon"]},
}
REPAIRED = "2013-02-30"
"""A day of the model (whose calendar has it) with tasmin above tasmax and rain below 0."""


@dataclass(frozen=True)
class Made:
    """A folder in which every store of a plan was made."""

    folder: Path
    run: start.Run

    def stores(self, stage: str, *words: str) -> list[str]:
        """Return the stores of a stage whose names hold all of these words."""
        found = sorted(Path("stores", stage).glob("*.zarr"))
        return [str(p) for p in found if set(words) <= set(re.split("[_-]", p.stem))]

    def store(self, stage: str, *words: str) -> str:
        (found,) = self.stores(stage, *words)
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return the products of a small plan; sources are files in everyday units."""
    folder = tmp_path_factory.mktemp("traced")
    for variable in VARIABLES:
        seen = synthetic.dataset(WORLD, variable, everyday_units=True, descending=True, east=True)
        synthetic.write(seen, folder / f"{variable}.nc")
        for experiment in ("historical", "ssp245"):
            ds = synthetic.dataset(WORLD, variable, source_id="FS-A", experiment_id=experiment)
            if experiment == "historical":
                days = Days.range("2012-01-01", "2014-12-30", "360_day")
                t = [days.isoformat(i) for i in range(len(days))].index(REPAIRED)
                ds[variable][t] = {"tasmax": 285.0, "tasmin": 286.0, "pr": -1e-7}[variable]
            synthetic.write(ds, folder / f"{variable}_{experiment}.nc")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = Made(folder, start.read({**CONFIG, "stores": "stores"}, Path("config.yaml")))
        for product in done.run.plan.products:
            make(product.artefact, done.run.lock)
    return done


def make(artefact: Artefact, lock: Any, **wrong: Any) -> store.Store:
    """Return the store of an artefact, made with what it needs unless it is there.

    `wrong` are parameters to make it with, other than those it says it was made with.
    """
    output = f"stores/{artefact.path}".removesuffix(f"/{store.SENTINEL}")
    if not Path("stores", artefact.path).exists():
        inputs = {role: make(parent, lock) for role, parent in artefact.inputs.items()}
        work = Job(
            artefact.stage, output, artefact.identity, artefact.facets, artefact.recipe, lock=lock
        )
        stage = importlib.import_module(f"finescale.{artefact.stage}")
        stage.run(work, **inputs, **{**artefact.parameters, **wrong})
    return store.open_store(output)


@pytest.fixture(autouse=True)
def in_folder(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.folder)


def cells(url: str) -> list[tuple[float, float]]:
    """Return the places of a store that have values."""
    field = Field(store.open_store(url))
    whole = ~np.isnan(field.store.read(field.variable_id)).any(axis=0)
    return [(float(field.grid.lat[r]), float(field.grid.lon[c])) for r, c in np.argwhere(whole)]


def dates(url: str) -> list[str]:
    days = Field(store.open_store(url)).days
    return [days.isoformat(i) for i in range(len(days))]


def walk(step: Step) -> Iterator[Step]:
    yield step
    for part in step.inputs:
        yield from walk(part)


def follow(made: Made, url: str, place: int = 0, day: int = 0) -> Step:
    """Return the trace of one of the cells and days that a store has."""
    lat, lon = (found := cells(url))[place % len(found)]
    date = (axis := dates(url))[day % len(axis)]
    return trace.trace(url, lat=lat, lon=lon, date=date, lock=made.run.lock)


# --------------------------------------------------------------------------------------
# What is told is what is stored

some = st.integers(0, 10_000)


@settings(max_examples=10, deadline=None)
@given(
    stage=st.sampled_from(["bcsd", "qplad", "interpolate", "aggregate"]),
    which=some,
    place=some,
    day=some,
)
def test_every_step_recomputes_the_stored_value(
    stage: str, which: int, place: int, day: int, made: Made
) -> None:
    """A wrong day, cell, weight, window or unit anywhere on the way gives another number."""
    urls = [u for u in made.stores(stage) if Path(u).name[:4] not in ("maca", "gard")]
    told = follow(made, urls[which % len(urls)], place, day)
    followed = [step for step in walk(told) if step.formula]
    assert all(step.recomputed == pytest.approx(step.value, rel=1e-6) for step in followed)
    assert {"simulation", "source"} <= {step.stage for step in walk(told)}


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_product_is_followed_through_every_stage_that_made_it(variable: str, made: Made) -> None:
    told = follow(made, made.store("bcsd", "bcsd", "ssp245", variable), day=90)
    assert {step.stage for step in walk(told) if step.formula} == {
        *("bcsd", "adjust", "climatology", "coarsen", "reference", "simulation")
    }
    assert {step.difference for step in walk(told) if step.formula} == {0}
    sources = {step.store for step in walk(told) if step.stage == "source"}
    read = ["tasmax", "tasmin"] if variable == "tasmin" else [variable]
    assert sources == {f"{v}{end}.nc" for v in read for end in ("", "_ssp245")}


@pytest.mark.parametrize(
    ("method", "variable"),
    [
        ("qplad", "tasmax"),
        ("qplad", "tasmin"),
        ("qplad", "pr"),
        ("maca", "tasmax"),
        ("maca", "tasmin"),
        ("gard", "tasmin"),
    ],
)
def test_products_of_the_other_methods_are_followed(method: str, variable: str, made: Made) -> None:
    """QPLAD from one day is computed anew; MACA and GARD stand on whole series, which is said."""
    for place, day in ((0, 10), (40, 200), (77, 301)):
        told = follow(made, made.store(method, method, "ssp245", variable), place, day)
        steps = {step.stage: step for step in walk(told) if step.formula}
        assert {method, "adjust", "simulation"} <= steps.keys()
        assert steps["adjust"].difference == 0
        if method == "qplad":
            assert told.recomputed == pytest.approx(told.value, rel=1e-6, abs=1e-9)
        else:
            assert told.recomputed is None and "whole series" in told.note


def test_places_dates_and_values_are_those_that_other_tools_find(made: Made) -> None:
    told = follow(made, made.store("aggregate", "bcsd", "ssp245", "tasmax"), day=3)
    for step in walk(told):
        if step.stage == "source":
            ds = xr.open_dataset(step.store)
        else:
            ds = xr.open_zarr(step.store, decode_timedelta=False)
        with ds:
            found = ds[step.array][step.index]
            assert float(found) == pytest.approx(step.value)
            assert found.attrs["units"] == step.units
            assert (float(found.lat), float(found.lon)) == pytest.approx((step.lat, step.lon))
            if "time" in found.coords and step is not told:
                assert str(found.time.dt.strftime("%Y-%m-%d").values) == step.date
    assert told.date == "2015-04-01..2015-04-30"


def evaluated(numbers: str) -> float:
    return float(eval(numbers))


@pytest.mark.parametrize("method", ["bcsd", *BCSD])
def test_the_numbers_of_a_product_give_its_value(
    method: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where each fine cell leans on all coarse cells: their weights are those of a solver."""
    monkeypatch.setattr(trace, "NEIGHBOURS", 100)
    url = made.store("bcsd", method, "historical", "pr")
    values = Field(store.open_store(url)).read()
    wet = int(np.argmax((values > 0).sum(axis=(1, 2))))
    for place in (3, 77):
        told = follow(made, url, place, wet)
        assert evaluated(told.numbers) == pytest.approx(told.value, rel=1e-4, abs=1e-9)
        weights = [step.weight or 0.0 for step in told.inputs if step.role == "adjusted"]
        assert sum(weights) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("stage", ["interpolate", "aggregate", "simulation", "reference"])
def test_the_numbers_of_other_stages_give_their_values(stage: str, made: Made) -> None:
    for url in made.stores(stage)[:2]:
        told = follow(made, url, place=7, day=100)
        assert evaluated(told.numbers or str(told.inputs[0].value)) == pytest.approx(
            told.value, rel=1e-4, abs=1e-9
        )


def test_an_area_mean_shows_the_heaviest_cells(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    url = made.store("coarsen", "tasmax")
    told = follow(made, url, day=100)
    assert len(told.inputs) == trace.SHOWN and "; 3 are shown" in told.note
    monkeypatch.setattr(trace, "SHOWN", 100)
    told = follow(made, url, day=100)
    assert evaluated(told.numbers) == pytest.approx(told.value, rel=1e-5)
    weights = [step.weight or 0.0 for step in told.inputs]
    assert weights == sorted(weights, reverse=True)


@pytest.mark.parametrize("variable", ["tasmax", "dtr", "pr"])
def test_the_quantile_of_an_adjustment_and_its_trend_give_the_value(
    variable: str, made: Made
) -> None:
    """The distributions are built again, apart from the stage that mapped by them."""
    url = made.store("adjust", "qm", "ssp245", variable)
    checked = 0
    for day in range(0, 360, 72):
        told = follow(made, url, place=day, day=day)
        if "beyond" not in told.note and "dry" not in told.note and told.value > 0:
            last = told.numbers.rpartition(" = ")[2]  # left out where it is the value itself
            mapped = told.value if last.startswith("F_ref") else evaluated(last)
            assert mapped == pytest.approx(told.value, rel=1e-5)
            checked += 1
    assert checked > 1


def test_a_rank_is_that_among_the_days_of_the_window(made: Made) -> None:
    """Days of the two 360_day training years within 15 days, across the turn of the year."""
    url = made.store("adjust", "qm", "ssp245", "dtr")
    told = follow(made, url, day=355)
    hist = Field(store.open_store(made.store("simulation", "historical", "dtr")))
    series = hist.read(slice(360, 1080))[:, told.index[1], told.index[2]].astype(np.float64)
    apart = np.abs(np.arange(720) % 360 - 355)
    window = np.sort(series[np.minimum(apart, 360 - apart) <= 15])
    rank = np.interp(told.inputs[0].value, window, np.arange(1, 63))
    assert f"rank {rank:.6g} of 62 training days" in told.note
    assert f"F_ref^-1({rank / 63:.6g})" in told.numbers


def test_a_climatology_tells_the_mean_it_smooths(made: Made) -> None:
    told = follow_slot(made, "2001-03-01")
    daily = Field(store.open_store(told.inputs[0].store))
    days, (_, row, col) = daily.days, told.index
    chosen = (days.month == 3) & (days.day == 1) & (days.year >= 2013) & (days.year <= 2014)
    assert f"{daily.read()[chosen, row, col].astype(float).mean():.6g}," in told.note
    assert [step.date for step in told.inputs] == ["2013-03-01", "2014-03-01"]
    assert told.date == "03-01" and told.difference == 0


def test_a_day_of_the_year_without_training_days_is_told(made: Made) -> None:
    """29 February between leap years: the harmonics have a value there."""
    told = follow_slot(made, "2024-02-29")
    assert told.note.endswith("none of them on 02-29")
    assert told.inputs == () and told.difference == 0


def follow_slot(made: Made, date: str) -> Step:
    url = made.store("climatology", "fine", "tasmax")
    lat, lon = cells(url)[0]
    return trace.trace(url, lat=lat, lon=lon, date=date)


@pytest.mark.parametrize(("variable", "words"), [("dtr", "floor 0.01"), ("pr", "round-off")])
def test_a_repair_is_told(variable: str, words: str, made: Made) -> None:
    url = made.store("simulation", "historical", variable)
    lat, lon = cells(url)[0]
    told = trace.trace(url, lat=lat, lon=lon, date=REPAIRED, lock=made.run.lock)
    assert words in told.formula
    assert told.recomputed == told.value == pytest.approx({"dtr": 0.01, "pr": 0.0}[variable])


# --------------------------------------------------------------------------------------
# What is wrong shows


@pytest.mark.parametrize(
    ("stage", "wrong"), [("climatology", {"harmonics": 1}), ("adjust", {"half_window": 2})]
)
def test_a_store_that_is_not_what_its_recipe_says_shows(
    stage: str, wrong: dict[str, Any], made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the step itself, and in what the right store was used for."""
    shutil.copytree(made.folder / "stores", tmp_path / "stores")
    monkeypatch.chdir(tmp_path)
    url = made.store("bcsd", "bcsd", "ssp245", "tasmax")
    place, date = cells(url)[0], dates(url)[90]

    def traced() -> dict[str, Step]:
        told = trace.trace(url, lat=place[0], lon=place[1], date=date)
        return {step.stage: step for step in reversed(list(walk(told))) if step.formula}

    before = traced()
    assert before["bcsd"].difference == before[stage].difference == 0
    (artefact,) = (
        a for a in made.run.plan.stage(stage) if before[stage].store.endswith(f"{a.name}.zarr")
    )
    Path("stores", artefact.path).unlink()
    make(artefact, made.run.lock, **wrong)
    after = traced()
    for word in (stage, "bcsd"):
        assert abs(after[word].difference or 0.0) > 0.01
        told = "\n".join(trace.lines(after[word]))
        assert f"stored value differs by {-(after[word].difference or 0.0):.1g}" in told


def test_an_input_that_is_gone_is_named(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made.folder / "stores", tmp_path / "stores")
    monkeypatch.chdir(tmp_path)
    url = made.store("coarsen", "pr")
    gone = next(Path("stores/weights").glob("*conservative*"))
    shutil.rmtree(gone)
    with pytest.raises(StoreError, match=f"input weights, a store named ...-{gone.stem[-16:]}"):
        follow(made, url)


# --------------------------------------------------------------------------------------
# What cannot be followed is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lat": 89.0}, "lat 89 is outside its grid, whose cells span"),
        ({"lon": 100.0}, "lon 100 is outside its grid"),
        (
            {"date": "2016-01-01"},
            "2016-01-01 is not on its axis, which spans 2015-01-01..2015-12-31",
        ),
        ({"date": "2015-02-30"}, "'2015-02-30' is no date in calendar 'standard'"),
        ({"masked": True}, "outside the mask"),
    ],
    ids=str,
)
def test_a_place_or_a_day_without_a_value_is_refused(
    change: dict[str, Any], words: str, made: Made
) -> None:
    url = made.store("bcsd", "bcsd", "ssp245", "tasmax")
    grid = Field(store.open_store(url)).grid
    every = [(float(lat), float(lon)) for lat in grid.lat for lon in grid.lon]
    inside = cells(url)
    outside = next(place for place in every if place not in inside)
    lat, lon = outside if change.pop("masked", False) else inside[0]
    with pytest.raises(ConfigError, match=re.escape(words)):
        trace.trace(url, **{"lat": lat, "lon": lon, "date": "2015-07-01", **change})


def test_a_store_without_dates_is_refused(made: Made) -> None:
    url = made.stores("weights")[0]
    with pytest.raises(ConfigError, match="stage weights makes has no day"):
        trace.trace(url, lat=0, lon=0, date="2015-07-01")


@pytest.mark.parametrize("turns", [-360.0, 360.0])
def test_a_longitude_is_taken_in_any_convention(turns: float, made: Made) -> None:
    """And a point anywhere in a cell stands for it."""
    url = made.store("interpolate", "historical", "pr")
    lat, lon = cells(url)[0]
    here, there = (
        trace.trace(url, lat=lat + shift, lon=lon + shift + turn, date="2013-07-01")
        for shift, turn in ((0.0, 0.0), (0.1, turns))
    )
    assert here == there


# --------------------------------------------------------------------------------------
# Without sources, and in words


def test_without_a_lock_the_content_of_a_source_is_told(made: Made) -> None:
    url = made.store("reference", "tasmax")
    lat, lon = cells(url)[0]
    told = trace.trace(url, lat=lat, lon=lon, date="2013-07-01")
    content = store.describe(url).recipe["parameters"]["source"]
    assert content in told.note
    assert (told.recomputed, told.difference, told.inputs) == (None, None, ())


def test_a_source_that_changed_is_told(made: Made, tmp_path: Path) -> None:
    url = made.store("reference", "tasmax")
    lock = json.loads(json.dumps(made.run.lock))
    changed = tmp_path / "tasmax.nc"
    synthetic.write(synthetic.dataset(WORLD, "tasmax"), changed)
    lock["sources"]["references/OBS/tasmax"]["request"]["path"] = str(changed)
    lat, lon = cells(url)[0]
    told = trace.trace(url, lat=lat, lon=lon, date="2013-07-01", lock=lock)
    assert "cannot be read" in told.note and "changed since they were locked" in told.note


def test_a_trace_fits_on_a_screen_and_states_units(made: Made) -> None:
    told = follow(made, made.store("bcsd", "bcsd", "ssp245", "tasmax"), place=9, day=180)
    shown = trace.lines(told)
    assert len(shown) <= 45
    assert shown[0].startswith(f"{told.value:.6g} K, bcsd tasmax, 2015-06-30, lat ")
    assert sum("as stored" in line for line in shown) == sum(bool(s.formula) for s in walk(told))
    assert any("degC, source tasmax of tasmax.nc" in line for line in shown)


def test_a_document_is_the_whole_tree(made: Made) -> None:
    told = follow(made, made.store("bcsd", "bcsd", "ssp245", "pr"), day=180)
    read = json.loads(json.dumps(trace.document(told), allow_nan=False))
    assert read["value"] == told.value and read["difference"] == 0
    assert read["inputs"][1]["inputs"][0]["store"] == told.inputs[1].inputs[0].store
