"""Stage `aggregate`: means over months and years, honest about what they stand on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from chain import Chain, grids
from numpy.typing import NDArray

from finescale import aggregate, chunking
from finescale.calendars import Days
from finescale.store import Store

GRID, _ = grids(4, 4, ratio=2)
SHAPE = GRID.shape


def run(
    chain: Chain,
    days: Days,
    values: NDArray[Any],
    frequency: str,
    *,
    season: str | None = None,
    name: str = "a",
) -> Store:
    product = chain.daily("bcsd", name, "tas", days, GRID, values, layout="tiles", season=season)
    work = chain.job("aggregate", f"{name}-{frequency}", variable_id="tas")
    aggregate.run(work, product=product, frequency=frequency, attributes={"title": "t"})
    return chain.keep(work)


def weather(days: Days) -> NDArray[np.float64]:
    return np.random.default_rng(1).uniform(270, 300, (len(days), *SHAPE))


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
@pytest.mark.parametrize(("frequency", "rule"), [("mon", "MS"), ("yr", "YS")])
def test_means_equal_those_of_xarray(
    frequency: str, rule: str, calendar: str, chain: Chain
) -> None:
    """An axis that starts and ends within a month."""
    days = Days.range("1999-11-05", "2001-02-10", calendar)
    values = weather(days)
    values[np.random.default_rng(2).random(values.shape) < 0.1] = np.nan
    made = run(chain, days, values, frequency)
    daily = xr.open_zarr(str(chain.folder / "bcsd" / "a.zarr")).tas
    expected = daily.astype("f8").resample(time=rule).mean()
    assert np.allclose(made.read("tas"), expected.values, rtol=0, atol=2e-5)
    opened = xr.open_zarr(made.url)
    assert opened.time.dt.strftime("%Y-%m").values.tolist() == (
        expected.time.dt.strftime("%Y-%m").values.tolist()
        if frequency == "mon"
        else ["1999-12", "2000-07", "2001-01"]
    )
    counts = daily.isel(lat=0, lon=0).fillna(0).resample(time=rule).count()
    assert made.read("n_days").tolist() == counts.values.tolist()


def test_a_cell_without_values_stays_missing(chain: Chain) -> None:
    """The sum of nothing is 0, which as a monthly mean would be a temperature of 0 K."""
    days = Days.range("2000-01-01", "2000-12-31", "noleap")
    values = weather(days)
    values[:, 0, 0] = np.nan
    values[:31, 0, 1] = np.nan
    values[5, 0, 2] = np.nan
    found = run(chain, days, values, "mon").read("tas")
    assert np.isnan(found[:, 0, 0]).all()
    assert np.isnan(found[:, 0, 1]).tolist() == [True] + [False] * 11
    assert found[0, 0, 2] == pytest.approx(np.nanmean(values[:31, 0, 2]), abs=1e-4)
    assert np.isnan(run(chain, days, values, "yr").read("tas")[:, 0, :3]).tolist() == [
        [True, False, False]
    ]


def test_the_year_of_a_season_is_that_of_its_january(chain: Chain) -> None:
    """By calendar year, December would be averaged with the winter eleven months before it."""
    whole = Days.range("1999-12-01", "2001-02-28", "standard")
    days = whole[np.isin(whole.month, [12, 1, 2])]
    values = np.where(days.month == 12, 270.0, 280.0)[:, None, None] + np.zeros(SHAPE)
    made = run(chain, days, values, "yr", season="DJF")
    assert made.read("n_days").tolist() == [31 + 31 + 29, 31 + 31 + 28]
    assert made.read("tas")[:, 0, 0] == pytest.approx([280 - 10 * 31 / 91, 280 - 10 * 31 / 90])
    bounds = xr.open_zarr(made.url, decode_times=False).time_bnds.values
    assert np.diff(bounds, axis=1).ravel().tolist() == [91.0, 90.0]
    assert made.attributes["season"] == "DJF"
    undeclared = run(chain, days, values, "yr", name="plain")
    assert undeclared.read("n_days").tolist() == [31, 31 + 29 + 31, 31 + 28]


def test_bounds_hold_the_days_and_the_stamp_lies_between(chain: Chain) -> None:
    days = Days.range("2000-01-01", "2000-12-31", "standard")
    ds = xr.open_zarr(run(chain, days, weather(days), "mon").url, decode_times=False)
    width = np.diff(ds.time_bnds.values, axis=1).ravel()
    assert width.tolist() == [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    assert (ds.time_bnds.values[1:, 0] == ds.time_bnds.values[:-1, 1]).all()
    assert (ds.time.values == ds.time_bnds.values.mean(axis=1)).all()
    decoded = xr.open_zarr(str(chain.folder / "aggregate" / "a-mon.zarr"))
    assert str(decoded.time_bnds.values[0, 0])[:16] == "2000-01-01T00:00"
    assert decoded.tas.attrs["cell_methods"] == "time: mean within days time: mean over days"
    assert decoded.attrs["frequency"] == "mon"
    assert decoded.attrs["title"] == "t"


def test_means_do_not_depend_on_the_blocks(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    days = Days.range("1999-11-05", "2001-02-10", "standard")
    whole = run(chain, days, weather(days), "mon").read("tas")
    monkeypatch.setattr(chunking, "TILE", 3)
    monkeypatch.setattr(chunking, "SLAB", 17)
    assert np.array_equal(whole, run(chain, days, weather(days), "mon", name="cut").read("tas"))
