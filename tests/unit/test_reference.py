"""Stage `reference`: observations as they are, cut, with days of inverted extremes left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from chain import Chain, grids

from finescale import chunking, reference, sources, synthetic
from finescale import standardise as rules
from finescale.calendars import Days
from finescale.errors import ContractError, SourceError
from finescale.fields import Field
from finescale.store import open_store
from finescale.synthetic import World
from finescale.variables import MM_PER_DAY

Standardise = Callable[..., Field]
SPRING = Days.range("2014-03-01", "2014-05-31", "standard")


@pytest.mark.parametrize(
    "quirks", [{}, {"descending": True, "east": True}], ids=["plain", "turned"]
)
def test_a_region_equals_the_data_cropped_by_hand(
    quirks: dict[str, Any], small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    ds = synthetic.dataset(small_world, "tasmax", days=SPRING, **quirks)
    path = synthetic.write(ds, tmp_path / "tasmax.nc")
    found = standardise(
        path, "tasmax", lat=(36.5, 38.0), lon=(-0.75, 1.25), period=("2014-03-30", "2014-04-30")
    )
    whole = synthetic.dataset(small_world, "tasmax", days=SPRING)
    hand = whole.sel(
        lat=slice(36.5, 38.0), lon=slice(-0.75, 1.25), time=slice("2014-03-30", "2014-04-30")
    )
    assert found.read().shape == (32, 6, 8)
    assert np.array_equal(found.read(), hand.tasmax.values, equal_nan=True)
    assert found.grid.lat.tolist() == hand.lat.values.tolist()
    assert found.grid.lon.tolist() == hand.lon.values.tolist()
    assert found.grid.lon_bnds.tolist() == hand.lon_bnds.values.tolist()


def test_xarray_reads_the_store_as_cf(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    ds = synthetic.dataset(small_world, "pr", days=SPRING, everyday_units=True, hour=0.0)
    found = standardise(synthetic.write(ds, tmp_path / "pr.nc"), "pr")
    opened = xr.open_zarr(found.store.url)
    assert opened.pr.dims == ("time", "lat", "lon")
    assert opened.pr.dtype == np.float32
    assert opened.pr.attrs["units"] == "kg m-2 s-1"
    assert opened.pr.attrs["standard_name"] == "precipitation_flux"
    assert opened.time.dt.strftime("%Y-%m-%d").values[[0, -1]].tolist() == [
        "2014-03-01", "2014-05-31",
    ]  # fmt: skip
    assert opened.lat.attrs["bounds"] == "lat_bnds"


def test_blocks_of_any_size_give_the_same_store(
    small_world: World,
    standardise: Standardise,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunking, "SLAB", 10)
    monkeypatch.setattr(chunking, "TILE", 5)
    ds = synthetic.dataset(small_world, "tas", days=SPRING, descending=True, east=True)
    path = synthetic.write(ds, tmp_path / "tas.nc")
    whole = standardise(path, name="whole")
    made = [whole]
    for name, limits in {
        "slabs": {"BLOCK_VALUES": 1},
        "bands": {"BLOCK_VALUES": 1, "MOST_VALUES": 1},
        "steps": {"STEP_VALUES": 1},
    }.items():
        for limit, value in limits.items():
            monkeypatch.setattr(rules if limit == "STEP_VALUES" else chunking, limit, value)
        made.append(standardise(path, name=name))
    written = [
        {c.name: c.read_bytes() for c in Path(field.store.url, "tas").glob("*.*.*")}
        for field in made
    ]
    assert len(written[0]) == 10 * 3 * 4
    assert all(other == written[0] for other in written)


def test_bands_hold_every_value_once_in_whole_chunks() -> None:
    for shape, chunks in (((731, 60, 90), (366, 30, 45)), ((366, 721, 1440), (366, 46, 48))):
        held = np.zeros(shape[:2], dtype=np.int8)
        for block in rules.bands(shape):
            assert block.time is not None and block.lon == slice(0, shape[2])
            for part, length, n in zip((block.time, block.lat), chunks, shape, strict=False):
                assert part.start % length == 0 and (part.stop % length == 0 or part.stop == n)
            held[block.time, block.lat] += 1
            size = (block.time.stop - block.time.start) * (block.lat.stop - block.lat.start)
            assert size * shape[2] <= chunking.MOST_VALUES
        assert (held == 1).all()


def test_a_period_outside_the_data_is_refused(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    path = synthetic.write(synthetic.dataset(small_world, "tas", days=SPRING), tmp_path / "tas.nc")
    with pytest.raises(SourceError, match=r"no day of 1990.*the data span 2014-03-01..2014-05-31"):
        standardise(path, period=("1990-01-01", "1999-12-31"))


def test_values_nobody_can_mean_are_refused(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    """Degrees Celsius called kelvin."""
    ds = synthetic.dataset(small_world, "tas", days=SPRING, everyday_units=True)
    ds.tas.attrs["units"] = "K"
    with pytest.raises(ContractError, match=r"must lie within 150..400 K.*check the units"):
        standardise(synthetic.write(ds, tmp_path / "tas.nc"))


def test_rain_below_zero_within_rounding_is_set_to_zero_and_said(
    small_world: World, standardise: Standardise, tmp_path: Path
) -> None:
    ds = synthetic.dataset(small_world, "pr", days=SPRING)
    row, column = np.argwhere(synthetic.land(small_world))[0]
    truth = ds.pr.values.copy()
    ds.pr.values[5, row, column] = -0.09 * MM_PER_DAY
    truth[5, row, column] = 0.0
    found = standardise(synthetic.write(ds, tmp_path / "a.nc"), "pr")
    assert np.array_equal(found.read(), truth, equal_nan=True)
    assert found.store.attributes["repair"] == rules.NEGATIVE_PR_REPAIR
    ds.pr.values[5, row, column] = -0.11 * MM_PER_DAY
    with pytest.raises(ContractError, match=r"`pr` .* must lie within 0.."):
        standardise(synthetic.write(ds, tmp_path / "b.nc"), "pr", name="b")


def test_days_of_inverted_extremes_have_no_range_and_are_counted(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swapped, they would teach the range of days that never were; as zeros, divide by it."""
    monkeypatch.setattr(chunking, "SLAB", 4)
    fine, _ = grids()
    rng = np.random.default_rng(1)
    tasmin = rng.uniform(270, 280, (len(SPRING), *fine.shape)).astype("f4")
    tasmax = tasmin + rng.uniform(1, 9, tasmin.shape).astype("f4")
    tasmax[3, 0, 0] = tasmin[3, 0, 0] - 0.5
    tasmax[4, 0, 0] = tasmin[4, 0, 0]
    tasmax[7, 2, 5] = tasmin[7, 2, 5] - 2
    tasmax[:, 1, 1] = np.nan
    stores = {
        name: chain.daily("reference", name, name, SPRING, fine, values, layout="tiles")
        for name, values in (("tasmax", tasmax), ("tasmin", tasmin))
    }
    work = chain.job("reference", "dtr", variable_id="dtr")
    reference.run(work, **stores)
    made = open_store(work.output)
    expected = np.where(tasmax > tasmin, tasmax - tasmin, np.nan)
    assert np.array_equal(made.read("dtr"), expected, equal_nan=True)
    count = np.zeros(fine.shape, int)
    count[0, 0], count[2, 5] = 2, 1
    assert np.array_equal(made.read("n_inverted"), count)
    assert not np.isnan(made.read("dtr")[:, 0, 1]).any()


def test_a_seasonal_reference_has_a_seasonal_range(chain: Chain) -> None:
    fine, _ = grids()
    values = np.full((len(SPRING), *fine.shape), 280.0)
    stores = {
        name: chain.daily(
            "reference", name, name, SPRING, fine, values + offset, layout="tiles", season="MAM"
        )
        for name, offset in (("tasmax", 4.0), ("tasmin", 0.0))
    }
    work = chain.job("reference", "dtr", variable_id="dtr")
    reference.run(work, **stores)
    made = Field(open_store(work.output))
    assert made.season == {"season": "MAM"}
    assert (made.read() == 4.0).all()


def test_a_map_too_large_for_a_block_is_decoded_once(
    small_world: World, standardise: Standardise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row by row of chunks, every map would be decoded three times."""
    monkeypatch.setattr(chunking, "TILE", 4)
    monkeypatch.setattr(chunking, "SLAB", 30)
    monkeypatch.setattr(chunking, "MOST_VALUES", 100)
    ds = synthetic.dataset(small_world, "tasmax", days=SPRING)
    ds.chunk(time=5).to_zarr(tmp_path / "maps.zarr", zarr_format=2, consolidated=True)
    decoded = []
    original = sources.Source.read

    def counting(self: sources.Source, time: slice, *rest: Any, **options: Any) -> Any:
        decoded.append(time)
        return original(self, time, *rest, **options)

    monkeypatch.setattr(sources.Source, "read", counting)
    found = standardise(tmp_path / "maps.zarr", "tasmax")
    assert sum(time.stop - time.start for time in decoded) == len(SPRING)
    assert np.array_equal(found.read(), ds.tasmax.values, equal_nan=True)
    assert not list(tmp_path.rglob("*.scratch"))
