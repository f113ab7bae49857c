"""Stage `interpolate`: the raw GCM on the fine grid, no more than its neighbours say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chain import Chain, grids
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from finescale import chunking, interpolate
from finescale.calendars import Days
from finescale.fields import Field

FINE, COARSE = grids()
DAYS = Days.range("2001-01-01", "2001-01-20", "noleap")
LAND = np.ones(FINE.shape, bool)


def run(
    chain: Chain,
    values: NDArray[Any],
    *,
    days: Days = DAYS,
    land: NDArray[np.bool_] = LAND,
    calendar: str | None = None,
    name: str = "i",
) -> Field:
    """Return the product of coarse values (time, lat, lon) where the reference has `land`."""
    simulation = chain.daily("simulation", name, "tas", days, COARSE, values)
    year = Days.range("1991-01-01", "1991-12-31", "noleap")
    truth = np.where(land, 285.0, np.nan) + np.zeros((len(year), 1, 1))
    reference = chain.daily("reference", name, "tas", year, FINE, truth, layout="tiles")
    work = chain.job("interpolate", name, variable_id="tas")
    interpolate.run(
        work,
        simulation=simulation,
        climatology=chain.climatology(name, reference, ("1991-01-01", "1991-12-31")),
        weights=chain.weights(name, COARSE, FINE, "bilinear"),
        variable_id="tas",
        calendar=calendar,
        attributes={"title": "t"},
    )
    return Field(chain.keep(work))


def weather(days: Days = DAYS, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(260, 300, (len(days), *COARSE.shape))


def test_a_constant_is_kept(chain: Chain) -> None:
    found = run(chain, np.full((len(DAYS), *COARSE.shape), 287.25)).read()
    assert np.abs(found - 287.25).max() < 1e-4


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000))
def test_nothing_lies_beyond_the_coarse_values(seed: int, chain: Chain) -> None:
    """Extrapolated past the outer centres one August day became 455 mm."""
    values = weather(seed=seed)
    found = run(chain, values).read()
    assert (found.min(axis=(1, 2)) >= values.min(axis=(1, 2)) - 1e-3).all()
    assert (found.max(axis=(1, 2)) <= values.max(axis=(1, 2)) + 1e-3).all()
    outside = FINE.lon > COARSE.lon[-1]
    assert np.array_equal(found[:, :, outside], found[:, :, outside][:, :, :1].repeat(2, axis=2))


def test_a_plane_is_interpolated_exactly_between_the_centres(chain: Chain) -> None:
    def plane(lat: Any, lon: Any) -> NDArray[np.float64]:
        return np.asarray(280 + 2.0 * lat[:, None] - 3.0 * lon[None, :] - 80)

    values = np.broadcast_to(plane(COARSE.lat, COARSE.lon), (len(DAYS), *COARSE.shape))
    found = run(chain, values).read()
    lat, lon = (
        np.clip(fine, coarse[0], coarse[-1])
        for fine, coarse in ((FINE.lat, COARSE.lat), (FINE.lon, COARSE.lon))
    )
    assert np.abs(found - plane(lat, lon)).max() < 1e-3


def test_values_are_exactly_where_the_reference_has_them(chain: Chain) -> None:
    land = np.random.default_rng(3).random(FINE.shape) < 0.6
    found = run(chain, weather(), land=land).read()
    assert np.array_equal(~np.isnan(found), np.broadcast_to(land, found.shape))


def test_holes_of_the_gcm_are_filled_from_the_nearest_cell_and_flagged(chain: Chain) -> None:
    """Only what comes from beyond one coarse cell is flagged, and nothing at sea."""
    values = weather()
    values[:, :, 1:] = np.nan
    land = LAND.copy()
    land[0] = False
    made = run(chain, values, land=land)
    found = made.read()
    assert np.array_equal(~np.isnan(found), np.broadcast_to(land, found.shape))
    east = found[:, 1:, FINE.lon > COARSE.lon[0]]
    west = found[:, 1:, FINE.lon < COARSE.lon[0]]
    assert np.array_equal(east, west[:, :, :1].repeat(east.shape[2], axis=2))
    filled = made.store.read("filled")
    reads_far_cell = FINE.lon > COARSE.lon[1]
    assert np.array_equal(filled, (land & reads_far_cell).astype("i1"))
    assert dict(made.store.array("tas").attrs)["ancillary_variables"] == "filled n_corrected"
    assert dict(made.store.array("filled").attrs)["flag_meanings"] == "near filled"


def test_nothing_is_flagged_where_the_gcm_has_everything(chain: Chain) -> None:
    assert not run(chain, weather()).store.read("filled").any()


# --------------------------------------------------------------------------------------
# Calendars


def test_the_product_keeps_the_calendar_of_the_gcm(chain: Chain) -> None:
    days = Days.range("2001-01-01", "2001-12-30", "360_day")
    made = run(chain, weather(days), days=days)
    assert (made.days.calendar, len(made.days)) == ("360_day", 360)
    assert "calendar_converted_from" not in made.store.attributes


def test_converted_to_a_longer_year_inserted_days_repeat_the_day_before(chain: Chain) -> None:
    """No NaN, and no blend of two days: a blend of wet and dry would rain on both."""
    days = Days.range("1999-01-01", "2000-12-30", "360_day")
    values = weather(days)
    plain = run(chain, values, days=days).read()
    made = run(chain, values, days=days, calendar="standard", name="standard")
    found = made.read()
    assert (made.days.isoformat(0), made.days.isoformat(730)) == ("1999-01-01", "2000-12-31")
    assert len(made.days) == 731
    assert not np.isnan(found).any()
    assert made.store.attributes["calendar_converted_from"] == "360_day"
    repeats = np.flatnonzero((found[1:] == found[:-1]).all(axis=(1, 2))) + 1
    assert len(repeats) == 5 + 6
    assert np.array_equal(np.delete(found, repeats, axis=0), plain)
    assert np.diff(repeats).min() > 50, "inserted days are spread over the year"


def test_converted_to_a_shorter_year_days_are_left_out(chain: Chain) -> None:
    days = Days.range("2000-01-01", "2000-12-31", "standard")
    values = weather(days)
    plain = run(chain, values, days=days).read()
    made = run(chain, values, days=days, calendar="noleap", name="noleap")
    assert len(made.days) == 365
    assert np.array_equal(made.read(), np.delete(plain, 59, axis=0))
    assert made.store.attributes["calendar_converted_from"] == "standard"


@pytest.mark.parametrize("alias", ["noleap", "365_day"])
def test_a_calendar_by_another_name_is_no_conversion(alias: str, chain: Chain) -> None:
    made = run(chain, weather(), calendar=alias)
    assert len(made.days) == len(DAYS)
    assert "calendar_converted_from" not in made.store.attributes


def test_values_do_not_depend_on_the_blocks(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    land = np.random.default_rng(3).random(FINE.shape) < 0.6
    whole = run(chain, weather(), land=land).read()
    monkeypatch.setattr(chunking, "TILE", 5)
    monkeypatch.setattr(chunking, "SLAB", 7)
    cut = run(chain, weather(), land=land, name="cut").read()
    assert np.array_equal(whole, cut, equal_nan=True)
