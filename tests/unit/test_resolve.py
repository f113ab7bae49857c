"""The inputs lock: what the sources are, looked up once and never silently replaced."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from finescale import resolve, sources, synthetic
from finescale.calendars import Days
from finescale.config import Config, load
from finescale.errors import ConfigError, SourceError
from finescale.job import Job
from finescale.synthetic import World

DAYS = Days.range("2014-11-01", "2015-02-28", "standard")


@pytest.fixture
def archive(small_world: World, tmp_path: Path) -> Path:
    """Return a folder with tas of the reference and of FS-A, historical and ssp245."""
    world, folder = small_world, tmp_path / "data"
    synthetic.write(synthetic.dataset(world, "tas", days=DAYS[:61]), folder / "obs.nc")
    for experiment, first, last in (
        ("historical", "2014-11-01", "2014-12-30"),
        ("ssp245", "2015-01-01", "2015-02-30"),
    ):
        ds = synthetic.dataset(
            world,
            "tas",
            source_id="FS-A",
            experiment_id=experiment,
            days=Days.range(first, last, "360_day"),
        )
        synthetic.write(ds, folder / f"FS-A_{experiment}.zarr", "zarr2")
    return folder


def config(folder: Path, **changed: Any) -> Config:
    """Return the configuration of one product block over the archive."""
    run = {
        "source_id": "FS-A",
        "experiment_id": ["historical"],
        "path": f"{folder}/{{source_id}}_{{experiment_id}}.zarr",
        "variables": ["tas"],
        **changed,
    }
    document = {
        "name": "test",
        "domains": {"all": {}},
        "periods": {"train": ["2014-11-01", "2014-12-30"]},
        "references": {"OBS": {"path": f"{folder}/obs.nc", "variables": ["tas"]}},
        "simulations": [run],
        "products": [
            {
                "domain": "all",
                "reference": "OBS",
                "train": "train",
                "source_id": "FS-A",
                "variable_id": "tas",
                "method": "bcsd",
            }
        ],
    }
    return load(document, where="config.yaml")


HISTORICAL = "simulations/FS-A/historical/r1i1p1f1/day/gn/tas"
SSP245 = "simulations/FS-A/ssp245/r1i1p1f1/day/gn/tas"
OBS = "references/OBS/tas"


def touch(path: Path) -> None:
    """Give a file another time, as a copy or a restored backup has."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def change_one_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_an_entry_says_all_that_the_plan_needs(archive: Path, tmp_path: Path) -> None:
    lock = resolve.resolve(config(archive), tmp_path / "config.lock.json")
    assert sorted(lock["sources"]) == [OBS, HISTORICAL]
    entry = lock["sources"][HISTORICAL]
    assert entry["calendar"] == "360_day"
    assert entry["span"] == ["2014-11-01", "2014-12-30"]
    assert entry["n_days"] == 60
    assert entry["licence"] == "CC0-1.0"
    assert entry["content"] == sources.content(entry["request"])
    grid = lock["grids"][entry["grid"]]
    axes = synthetic.simulation_grid(World(n_lat=12, n_lon=16, ratio=4, west=-2.0), "FS-A")
    assert grid["lat"] == axes.lat.tolist()
    assert grid["lon_bnds"] == axes.lon_bnds.tolist()


def test_the_file_is_what_was_returned(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.lock.json"
    lock = resolve.resolve(config(archive), path)
    assert resolve.read(path) == lock
    assert resolve.lock_path(tmp_path / "config.yaml") == path
    assert [p.name for p in tmp_path.glob("*lock*")] == ["config.lock.json"]


def test_a_second_look_reads_no_content(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise every start of Snakemake would hash terabytes."""
    path = tmp_path / "config.lock.json"
    lock = resolve.resolve(config(archive), path)
    written = path.stat().st_mtime_ns

    def read_again(request: object) -> str:
        raise AssertionError(f"content of {request} read although nothing was touched")

    monkeypatch.setattr(sources, "content", read_again)
    assert resolve.resolve(config(archive), path) == lock
    assert path.stat().st_mtime_ns == written


def test_completion_keeps_what_is_locked(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.lock.json"
    before = resolve.resolve(config(archive), path)
    more = config(archive, experiment_id=["historical", "ssp245"])
    after = resolve.resolve(more, path)
    assert sorted(after["sources"]) == [OBS, HISTORICAL, SSP245]
    assert {k: after["sources"][k] for k in before["sources"]} == before["sources"]
    assert resolve.resolve(config(archive), path) == before, "an entry nobody asks for stayed"


def test_another_request_is_looked_up_anew(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.lock.json"
    before = resolve.resolve(config(archive), path)["sources"]
    changed = config(archive, variables={"tas": {"units": "K"}})
    after = resolve.resolve(changed, path)["sources"]
    assert after[OBS] == before[OBS]
    assert after[HISTORICAL]["content"] != before[HISTORICAL]["content"]


def test_a_changed_source_is_an_error_that_names_it(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.lock.json"
    before = resolve.resolve(config(archive), path)["sources"][OBS]["content"]
    text = path.read_text()
    change_one_byte(archive / "obs.nc")
    with pytest.raises(SourceError) as error:
        resolve.resolve(config(archive), path)
    now = sources.content(json.loads(text)["sources"][OBS]["request"])
    assert str(error.value) == (
        f"{OBS}: the data have changed since they were locked (content {before[:12]}, now "
        f"{now[:12]}); run `finescale resolve --configfile F` to accept them, which makes new "
        "stores beside the old"
    )
    assert path.read_text() == text, "the lock took in what it refused"


def test_a_changed_chunk_of_a_zarr_store_is_noticed(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.lock.json"
    resolve.resolve(config(archive), path)
    change_one_byte(archive / "FS-A_historical.zarr" / "tas" / "0.0.0")
    with pytest.raises(SourceError, match=f"^{HISTORICAL}: the data have changed"):
        resolve.resolve(config(archive), path)


def test_refreshing_accepts_the_change(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.lock.json"
    before = resolve.resolve(config(archive), path)["sources"]
    ds = synthetic.dataset(World(n_lat=12, n_lon=16, ratio=4), "tas", days=DAYS[:60])
    synthetic.write(ds, archive / "obs.nc")
    after = resolve.resolve(config(archive), path, refresh=True)["sources"]
    assert after[OBS]["content"] != before[OBS]["content"]
    assert after[OBS]["n_days"] == 60
    assert resolve.resolve(config(archive), path)["sources"] == after


def test_a_file_with_another_time_and_the_same_content_is_unchanged(
    archive: Path, tmp_path: Path
) -> None:
    path = tmp_path / "config.lock.json"
    before = resolve.resolve(config(archive), path)["sources"]
    touch(archive / "obs.nc")
    touch(archive / "FS-A_historical.zarr" / "tas" / "0.0.0")
    after = resolve.resolve(config(archive), path)["sources"]
    for name in (OBS, HISTORICAL):
        assert after[name]["content"] == before[name]["content"]
        assert after[name]["fingerprint"] != before[name]["fingerprint"]


def test_moved_data_keep_their_content_id(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.lock.json"
    before = resolve.resolve(config(archive), path)["sources"]
    moved = Path(shutil.move(archive, tmp_path / "moved"))
    after = resolve.resolve(config(moved), path)["sources"]
    assert {k: v["content"] for k, v in after.items()} == {
        k: v["content"] for k, v in before.items()
    }


def test_units_nobody_knows_are_found_before_any_job(archive: Path, tmp_path: Path) -> None:
    changed = config(archive, variables={"tas": {"units": "degQ"}})
    with pytest.raises(SourceError, match=f"^{HISTORICAL}: units 'degQ' of `tas` are unknown"):
        resolve.resolve(changed, tmp_path / "config.lock.json")
    assert not (tmp_path / "config.lock.json").exists()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "sources": {"a": {}}, "grids": {}}', "null"],
)
def test_what_is_no_lock_is_refused_with_what_to_do(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.lock.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"is not an inputs lock of format 1; delete it"):
        resolve.read(path)


def test_a_synthetic_source_changes_with_its_parameters(tmp_path: Path) -> None:
    def content(**world: Any) -> str:
        facets = {"reference": "OBS"}
        asked = {"name": OBS, "variable_id": "tas", "facets": facets, "season": None}
        return sources.content({**asked, "synthetic": world})

    assert content() == content(seed=1), "a default that is written out is no change"
    assert len({content(), content(seed=2), content(n_lat=12), content(last_year=2030)}) == 4


# --------------------------------------------------------------------------------------
# In a job


def test_a_job_opens_the_source_its_parameters_name(archive: Path, tmp_path: Path) -> None:
    lock = resolve.resolve(config(archive), tmp_path / "config.lock.json")
    work = Job("simulation", "out.zarr", lock=lock)
    found = work.source(lock["sources"][HISTORICAL]["content"])
    assert found.name == HISTORICAL
    with pytest.raises(SourceError, match=r"out\.zarr: no source with content 000000000000"):
        work.source("0" * 64)


def test_a_job_refuses_a_source_that_changed_after_the_plan(archive: Path, tmp_path: Path) -> None:
    """The store's identity would name data that it was not made of."""
    lock = resolve.resolve(config(archive), tmp_path / "config.lock.json")
    change_one_byte(archive / "obs.nc")
    work = Job("reference", "out.zarr", lock=lock)
    with pytest.raises(SourceError, match=f"^{OBS}: the data have changed"):
        work.source(lock["sources"][OBS]["content"])
