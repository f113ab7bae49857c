"""Stage `bcsd`: every oracle of the method, in all calendars, whatever the blocks do."""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from chain import Chain, Mapper, grids

from finescale import bcsd, fields
from finescale.fields import Field
from finescale.store import open_store


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


@pytest.mark.parametrize("oracle", oracles.ORACLES, ids=lambda f: f.__name__)
def test_oracle(oracle: Callable[[Chain], None], chain: Chain) -> None:
    oracle(chain)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "all_leap", "julian"])
def test_identity_holds_in_every_calendar(calendar: str, chain: Chain) -> None:
    oracles.a_perfect_model_is_returned_and_disaggregated(chain, calendar)


def shuffled(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    """Run the blocks in another order than they were given."""
    order = random.Random(4).sample(range(len(tasks)), len(tasks))
    return [function(tasks[i]) for i in order]


def threaded(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(function, tasks))


def product(folder: Path, *, run: Mapper | None = None) -> Field:
    """Return the product of a world of several tiles."""
    made = Chain(folder) if run is None else Chain(folder, map=run)
    fine, coarse = grids(n_lat=16, n_lon=24)
    days = oracles.decade("noleap", 1991, 1993)
    truth = oracles.rain(days, fine)
    reference = made.daily("reference", "obs", "pr", days, fine, truth, layout="tiles")
    model = 1.3 * oracles.coarse_means(oracles.rain(days, fine, seed=5))
    hist = made.daily("simulation", "gcm", "pr", days, coarse, model)
    return made.bcsd("pr", reference, hist, train=("1991-01-01", "1993-12-31"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".provenance.json"
    }


@pytest.mark.parametrize("run", [shuffled, threaded], ids=["order of blocks", "threads"])
def test_stores_are_bitwise_the_same_whatever_runs_the_blocks(
    run: Mapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "TILE", 8)
    monkeypatch.setattr(fields, "SLAB", 100)
    product(tmp_path / "a")
    product(tmp_path / "b", run=run)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(open_store(str(tmp_path / "a/bcsd/pr.zarr")).read("filled")) == 16


def test_values_do_not_depend_on_the_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = product(tmp_path / "a").read()
    for tile, slab in ((5, 366), (7, 31), (16, 1)):
        monkeypatch.setattr(fields, "TILE", tile)
        monkeypatch.setattr(fields, "SLAB", max(slab, 31))
        monkeypatch.setattr(fields, "FULL_TIME_BYTES", 4 * 1095 * tile)
        cut = product(tmp_path / f"{tile}-{slab}").read()
        assert np.array_equal(whole, cut), f"tiles of {tile}, slabs of {slab}"


def test_a_product_converted_to_another_calendar_has_every_day(chain: Chain) -> None:
    """Inserted days repeat the day before; nothing is interpolated in time."""
    _, grid = grids()
    days = oracles.decade("360_day", 1991, 1994)
    truth = oracles.temperature(oracles.decade("standard", 1991, 1994), grid)
    standard = oracles.decade("standard", 1991, 1994)
    reference = chain.daily("reference", "obs", "tas", standard, grid, truth, layout="tiles")
    hist = chain.daily("simulation", "gcm", "tas", days, grid, oracles.temperature(days, grid))
    train = ("1991-01-01", "1994-12-31")
    made = chain.bcsd("converted", reference, hist, train=train, calendar="standard")
    assert made.days.calendar == "standard"
    assert len(made.days) == 1461
    assert not np.isnan(made.read()).any()
    assert made.store.attributes["calendar_converted_from"] == "360_day"


def test_the_stage_writes_cf_attributes(tmp_path: Path) -> None:
    made = product(tmp_path)
    attributes = dict(made.store.array("pr").attrs)
    assert attributes["units"] == "kg m-2 s-1"
    assert attributes["standard_name"] == "precipitation_flux"
    assert made.store.attributes["Conventions"] == "CF-1.8"
    assert made.store.attributes["finescale_stage"] == bcsd.__name__.rpartition(".")[2]
