"""Stage `simulation`: a GCM as it is, in whole series, with every day that its product needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from chain import Chain, grids

from finescale import chunking, simulation, synthetic
from finescale.calendars import Days
from finescale.fields import Field
from finescale.store import open_store
from finescale.synthetic import World

Standardise = Callable[..., Field]
AUTUMN = Days.range("2014-09-01", "2014-11-30", "360_day")
MODEL = {"source_id": "FS-A", "days": AUTUMN}


def test_a_region_equals_the_data_cropped_by_hand(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    path = synthetic.write(
        synthetic.dataset(small_world, "tas", **MODEL, descending=True, east=True),
        tmp_path / "tas.zarr",
        "zarr3",
    )
    found = standardise(path, stage="simulation", lat=(35.0, 39.0), lon=(-3.0, 2.0))
    hand = synthetic.dataset(small_world, "tas", **MODEL).sel(lat=slice(35, 39), lon=slice(-3, 2))
    assert np.array_equal(found.read(), hand.tas.values)
    assert found.grid.lat.tolist() == hand.lat.values.tolist()
    assert found.grid.lon.tolist() == hand.lon.values.tolist()
    assert found.days.calendar == "360_day"


def test_chunks_hold_whole_series(
    small_world: World,
    standardise: Standardise,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunking, "FULL_TIME_BYTES", 4 * len(AUTUMN) * 4)
    ds = synthetic.dataset(small_world, "tas", **MODEL, descending=True, east=True)
    found = standardise(synthetic.write(ds, tmp_path / "tas.nc"), stage="simulation")
    n_lat, n_lon = found.grid.shape
    assert found.chunks == (len(AUTUMN), 2, 2)
    assert min(n_lat, n_lon) > 2, "one tile says nothing of the order of tiles"
    whole = synthetic.dataset(small_world, "tas", **MODEL)
    assert np.array_equal(found.read(), whole.tas.values)


def test_the_range_of_a_simulation_has_every_day(chain: Chain) -> None:
    """The product of tasmin needs them all: a NaN there would be a hole in it."""
    _, coarse = grids()
    rng = np.random.default_rng(1)
    tasmin = rng.uniform(270, 280, (len(AUTUMN), *coarse.shape)).astype("f4")
    tasmax = tasmin + rng.uniform(1, 9, tasmin.shape).astype("f4")
    tasmax[3, 0, 0] = tasmin[3, 0, 0] - 0.5
    tasmax[4, 0, 0] = tasmin[4, 0, 0]
    stores = {
        name: chain.daily("simulation", name, name, AUTUMN, coarse, values)
        for name, values in (("tasmax", tasmax), ("tasmin", tasmin))
    }
    work = chain.job("simulation", "dtr", variable_id="dtr")
    simulation.run(work, **stores)
    made = open_store(work.output)
    expected = np.where(tasmax > tasmin, tasmax - tasmin, np.float32(0.01))
    assert np.array_equal(made.read("dtr"), expected)
    assert made.read("n_inverted")[0, 0] == 2
    assert made.read("n_inverted").sum() == 2
    assert Field(made).chunks[0] == len(AUTUMN)
