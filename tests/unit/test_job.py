"""A rule's script: what it is given, and one clear message when something is wrong."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from chain import Chain, grids
from standin import restored, standin

from finescale import job, sources
from finescale.calendars import Days
from finescale.errors import ConfigError, SourceError
from finescale.fields import TIME_UNITS, Field
from finescale.job import Job
from finescale.store import open_store


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Give the process back as it was."""
    with restored():
        yield


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "adjust" / "x.log"


@pytest.fixture
def stored(tmp_path: Path) -> Field:
    """Return a committed store."""
    days, (_, grid) = Days.range("2001-01-01", "2001-01-31", "noleap"), grids()
    values = np.full((31, *grid.shape), 280.0)
    return Field(Chain(tmp_path).daily("simulation", "x", "tas", days, grid, values))


def sentinel(field: Field) -> str:
    return f"{field.store.url}/.zmetadata"


def test_a_script_gets_opened_inputs_parameters_and_an_output(stored: Field, log: Path) -> None:
    spec = {
        "stage": "bcsd",
        "identity": "ab" * 32,
        "facets": {"variable_id": "tas"},
        "recipe": {"stage": "bcsd"},
        "parameters": {"half_window": 15},
        "inputs": {"hist": stored.store.identity, "both": [stored.store.identity] * 2},
    }
    snakemake = standin(
        "adjust",
        log=log,
        input={
            "hist": sentinel(stored), "both": [sentinel(stored)] * 2, "table": "scores.csv"
        },
        output={"store": "stores/bcsd/x.zarr/.zmetadata", "figure": "x.png"},
        spec=spec,
        config={"lock": {"sources": {}}},
    )  # fmt: skip
    with job.running(snakemake) as work:
        assert work.stage == "bcsd"
        assert work.output == "stores/bcsd/x.zarr"
        assert work.files == {"figure": "x.png"}
        assert work.spec == {"half_window": 15}
        assert (work.identity, work.recipe) == ("ab" * 32, {"stage": "bcsd"})
        assert work.inputs["hist"].identity == stored.store.identity
        assert [opened.url for opened in work.inputs["both"]] == [stored.store.url] * 2
        assert work.inputs["table"] == "scores.csv"
        assert work.lock == {"sources": {}}
        assert work.map(abs, [-1, 2, -3]) == [1, 2, 3]


def fails(snakemake: Any, error: Exception | None = None) -> tuple[type[BaseException], Any]:
    """Return what ends a script, and with which code."""
    with pytest.raises((SystemExit, ZeroDivisionError)) as caught, job.running(snakemake):
        if error is not None:
            raise error
    return caught.type, getattr(caught.value, "code", None)


def test_a_failure_of_ours_is_one_message_and_its_traceback_is_in_the_log(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ConfigError("periods.train: too short; make it longer")
    assert fails(standin("adjust", log=log), error) == (SystemExit, 1)
    printed = capsys.readouterr()
    assert printed.err == "\nadjust: periods.train: too short; make it longer\n\n"
    assert printed.out == ""
    assert "adjust failed\nTraceback (most recent call last)" in log.read_text()
    assert (
        log.read_text().rstrip().endswith("ConfigError: periods.train: too short; make it longer")
    )


def test_a_failure_that_is_a_fault_of_the_program_keeps_its_traceback(log: Path) -> None:
    """Caught here, a bug would look like a mistake of the user."""
    kind, _ = fails(standin("adjust", log=log), ZeroDivisionError("a bug"))
    assert kind is ZeroDivisionError
    assert "ZeroDivisionError: a bug" in log.read_text()


def test_without_a_log_file_messages_go_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with job.running(standin("adjust", log=None)):
        logging.getLogger("finescale").info("two blocks")
    assert "INFO two blocks" in capsys.readouterr().err


@pytest.mark.parametrize("role", ["hist", "both"])
def test_an_input_of_another_identity_stops_the_script(
    role: str, stored: Field, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store changed by hand, or a path that another plan made, would be read in silence."""
    wanted: Any = {"hist": "cd" * 32, "both": [stored.store.identity, "cd" * 32]}[role]
    given: Any = {"hist": sentinel(stored), "both": [sentinel(stored)] * 2}[role]
    snakemake = standin("adjust", log=log, input={role: given}, spec={"inputs": {role: wanted}})
    assert fails(snakemake) == (SystemExit, 1)
    assert capsys.readouterr().err == (
        f"\nadjust: {stored.store.url} holds identity {stored.store.identity}, expected "
        f"{'cd' * 32}; the store was changed by hand, or the plan is another: delete it and run "
        "again\n\n"
    )


def test_an_input_without_sentinel_stops_the_script(
    stored: Field, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(sentinel(stored)).unlink()
    spec = {"inputs": {"hist": stored.store.identity}}
    snakemake = standin("adjust", log=log, input={"hist": sentinel(stored)}, spec=spec)
    assert fails(snakemake) == (SystemExit, 1)
    assert f"{stored.store.url} is not committed" in capsys.readouterr().err


def test_an_engine_that_a_profile_misspells_stops_the_script(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(standin("adjust", log=log, dask="thread")) == (SystemExit, 1)
    assert (
        "`dask` must be threads, cluster, nodes, jobs, operator, found 'thread'"
        in capsys.readouterr().err
    )


# --------------------------------------------------------------------------------------
# Sources


@pytest.fixture
def entry(tmp_path: Path) -> dict[str, Any]:
    """Return the lock's entry of a file of ten days."""
    days = Days.range("2001-01-01", "2001-01-10", "noleap")
    ds = xr.Dataset(
        {"tas": (("time", "lat", "lon"), np.full((10, 2, 2), 280.0), {"units": "K"})},
        {
            "time": ("time", days.to_cf(), {"units": TIME_UNITS, "calendar": "noleap"}),
            "lat": ("lat", [40.0, 41.0], {"units": "degrees_north"}),
            "lon": ("lon", [5.0, 6.0], {"units": "degrees_east"}),
        },
    )  # fmt: skip
    ds.to_netcdf(tmp_path / "tas.nc")
    request = {
        "name": "references/OBS/tas",
        "variable_id": "tas",
        "facets": {},
        "season": None,
        "path": str(tmp_path / "tas.nc"),
    }
    return {
        "request": request,
        "content": sources.content(request),
        "fingerprint": sources.fingerprint(request),
    }


def test_a_source_is_found_by_its_content(entry: dict[str, Any]) -> None:
    work = Job("reference", "x.zarr", lock={"sources": {"references/OBS/tas": entry}})
    assert len(work.source(entry["content"]).days) == 10


def test_a_source_that_is_not_in_the_lock_is_refused(entry: dict[str, Any]) -> None:
    work = Job("reference", "x.zarr", lock={"sources": {"references/OBS/tas": entry}})
    with pytest.raises(SourceError) as caught:
        work.source("ef" * 32)
    assert str(caught.value) == (
        "x.zarr: no source with content efefefefefef in the inputs lock; "
        "run `finescale resolve --configfile F`"
    )


def test_a_source_that_changed_since_it_was_locked_is_refused(entry: dict[str, Any]) -> None:
    """Its store would carry the identity of other data."""
    with xr.open_dataset(entry["request"]["path"]) as ds:
        changed = ds.load() + 1
    changed.to_netcdf(entry["request"]["path"])
    work = Job("reference", "x.zarr", lock={"sources": {"references/OBS/tas": entry}})
    with pytest.raises(SourceError, match="references/OBS/tas: the data have changed since"):
        work.source(entry["content"])


# --------------------------------------------------------------------------------------
# The store of a job


def test_a_store_is_committed_once_every_block_is_written(tmp_path: Path) -> None:
    chain, (_, grid) = Chain(tmp_path), grids()
    days = Days.range("2001-01-01", "2001-01-31", "noleap")
    made = chain.daily("simulation", "x", "tas", days, grid, np.full((31, 2, 3), 280.0))
    assert made.attributes["Conventions"] == "CF-1.8"
    assert made.attributes["finescale_stage"] == "simulation"
    assert made.attributes["finescale_facets"] == {"variable_id": "tas"}


def test_a_block_that_fails_leaves_no_sentinel(tmp_path: Path) -> None:
    chain, (_, grid) = Chain(tmp_path), grids()
    days = Days.range("2001-01-01", "2001-01-31", "noleap")
    with pytest.raises(Exception, match="must lie within"):
        chain.daily("simulation", "x", "tas", days, grid, np.full((31, 2, 3), 2800.0))
    with pytest.raises(Exception, match="is not committed"):
        open_store(str(tmp_path / "simulation" / "x.zarr"))
