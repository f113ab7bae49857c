"""Calendars: dates, slots, windows, checks and conversion."""

from datetime import date, timedelta

import cftime
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finescale.calendars import (
    CALENDARS,
    Days,
    check_daily,
    convert,
    n_slots,
    reference_slots,
    reread,
    season_months,
    season_year,
    slots,
    windows,
)
from finescale.errors import ConfigError, SourceError

EPOCH = "days since 1850-01-01"
calendar_names = st.sampled_from(sorted(CALENDARS))
canonical_names = st.sampled_from(sorted(set(CALENDARS.values())))


def dates(days: Days) -> list[tuple[int, int, int]]:
    return list(zip(days.year.tolist(), days.month.tolist(), days.day.tolist(), strict=True))


def winters(first: int, last: int, calendar: str = "standard") -> Days:
    """Return the whole winters whose Januaries are in the years `first` to `last`."""
    days = Days.range(f"{first - 1:04d}-12-01", f"{last:04d}-12-01", calendar)[:-1]
    return days[np.isin(days.month, [12, 1, 2])]


@given(calendar=calendar_names, values=st.lists(st.integers(-660_000, 2_900_000), max_size=30))
def test_dates_are_those_of_cftime(calendar: str, values: list[int]) -> None:
    expected = cftime.num2date(values, EPOCH, calendar) if values else []
    days = Days.from_cf(np.array(values) + 0.25, EPOCH, calendar)
    assert dates(days) == [(d.year, d.month, d.day) for d in expected]
    assert days.ordinal.tolist() == values
    assert Days.from_cf(days.to_cf(), EPOCH, calendar).ordinal.tolist() == values


@given(
    calendar=calendar_names,
    unit=st.sampled_from(["days", "hours", "minutes", "seconds"]),
    epoch=st.dates(date(1, 1, 1), date(2300, 12, 28)).filter(lambda d: d.day <= 28),
    hour=st.integers(0, 23),
    n=st.integers(0, 40_000),
)
def test_every_unit_and_hour_gives_the_day_cftime_gives(
    calendar: str, unit: str, epoch: date, hour: int, n: int
) -> None:
    units = f"{unit} since {epoch.isoformat()} {hour:02d}:30:00"
    if (1582, 10, 4) < epoch.timetuple()[:3] < (1582, 10, 15):
        return
    values = n * {"days": 1, "hours": 24, "minutes": 1440, "seconds": 86400}[unit]
    expected = cftime.num2date(values, units, calendar)
    assert dates(Days.from_cf([values], units, calendar)) == [
        (expected.year, expected.month, expected.day)
    ]


def test_a_midnight_written_as_a_rounded_fraction_stays_on_its_day() -> None:
    days = Days.from_cf(np.array([24, 48]) / 24.0 * (1 - 1e-15), "days since 2000-01-01", "noleap")
    assert dates(days) == [(2000, 1, 2), (2000, 1, 3)]


def test_the_standard_calendar_leaves_out_ten_days_in_1582() -> None:
    assert dates(Days.range("1582-10-04", "1582-10-15", "gregorian")) == [
        (1582, 10, 4),
        (1582, 10, 15),
    ]


@given(first=st.dates(date(1583, 1, 1), date(9990, 1, 1)), length=st.integers(0, 800))
def test_a_range_holds_every_date_of_the_real_calendar(first: date, length: int) -> None:
    try:
        last = first + timedelta(days=length)
    except OverflowError:
        return
    days = Days.range(first.isoformat(), last.isoformat(), "standard")
    assert len(days) == length + 1
    assert [days.isoformat(i) for i in range(0, len(days), 97)] == [
        (first + timedelta(days=i)).isoformat() for i in range(0, len(days), 97)
    ]


@pytest.mark.parametrize(
    ("calendar", "n"), [("noleap", 365), ("all_leap", 366), ("360_day", 360), ("standard", 366)]
)
def test_a_leap_year_has_the_calendars_number_of_days(calendar: str, n: int) -> None:
    last = "30" if calendar == "360_day" else "31"
    assert len(Days.range("2000-01-01", f"2000-12-{last}", calendar)) == n


@pytest.mark.parametrize(
    ("text", "calendar"),
    [
        ("1999-02-29", "standard"),
        ("2000-02-29", "noleap"),
        ("2000-01-31", "360_day"),
        ("1900-13-01", "julian"),
        ("1582-10-10", "standard"),
        ("0000-01-01", "noleap"),
        ("1990", "standard"),
        ("soon", "standard"),
    ],
)
def test_a_date_that_does_not_exist_is_refused(text: str, calendar: str) -> None:
    with pytest.raises(ConfigError, match=f"'{text}' is no date in calendar '{calendar}'"):
        Days.range(text, "2100-01-01", calendar)


def test_a_period_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ConfigError, match="2000-01-02 to 2000-01-01"):
        Days.range("2000-01-02", "2000-01-01", "standard")


@pytest.mark.parametrize(
    ("values", "units", "calendar", "message"),
    [
        ([0], EPOCH, "lunar", "'lunar' is not a CF calendar"),
        ([0], "fortnights since 1850-01-01", "standard", "cannot be read"),
        ([0, np.nan], EPOCH, "standard", "missing values"),
        ([0], "days since 0000-06-01", "noleap", "give years 0 to 0"),
        ([4_000_000], EPOCH, "360_day", "expected 1 to 9999"),
    ],
)
def test_an_unreadable_time_axis_says_why(
    values: list[float], units: str, calendar: str, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        Days.from_cf(values, units, calendar)


def test_aliases_share_one_name() -> None:
    assert [reread(name) for name in ("Gregorian", "365_day", "366_day", "360_day")] == [
        "standard",
        "noleap",
        "all_leap",
        "360_day",
    ]


def test_axes_join_in_the_order_given_and_only_within_a_calendar() -> None:
    late, early = (Days.range(f"{y}-01-01", f"{y}-01-02", "noleap") for y in (2001, 1999))
    joined = Days.concatenate([late, early])
    assert [joined.isoformat(i) for i in range(4)] == [
        "2001-01-01",
        "2001-01-02",
        "1999-01-01",
        "1999-01-02",
    ]
    with pytest.raises(SourceError, match=r"\['360_day', 'noleap'\]"):
        Days.concatenate([late, Days.range("1999-01-01", "1999-01-02", "360_day")])


@given(calendar=canonical_names, year=st.integers(1600, 2400))
def test_slots_of_a_year_ascend_and_a_date_has_the_same_slot_in_each_year(
    calendar: str, year: int
) -> None:
    days = Days.range(f"{year}-01-01", f"{year}-12-30", calendar)
    own = slots(days)
    assert (np.diff(own) > 0).all()
    assert own[0] == 0
    assert own[-1] == n_slots(calendar) - (1 if calendar == "360_day" else 2)
    if calendar != "360_day":
        is_leap_day = (days.month == 2) & (days.day == 29)
        assert ((own == 59) == is_leap_day).all()


def test_a_360_day_axis_takes_the_reference_slot_at_the_same_fraction_of_the_year() -> None:
    taken = reference_slots("360_day")
    expected = [int(np.floor((d - 0.5) / 360 * 366)) for d in range(1, 361)]
    assert taken.tolist() == expected
    assert (taken[0], taken[-1]) == (0, 365)
    assert reference_slots("noleap").tolist() == list(range(366))


def brute_window(filled: np.ndarray, slot: int, half: int) -> set[int]:
    """Return the slots of a window, walked one by one."""
    n = filled.size
    while not filled[slot]:
        slot = (slot - 1) % n
    found = {slot}
    for step in (-1, 1):
        at, taken, missed = slot, 0, 0
        while taken < half and missed < 2:
            at = (at + step) % n
            if at == slot:
                break
            if filled[at]:
                found.add(at)
                taken, missed = taken + 1, 0
            else:
                missed += 1
    return found


@settings(max_examples=60)
@given(filled=st.lists(st.booleans(), min_size=3, max_size=25), half=st.integers(0, 14))
def test_windows_hold_the_slots_that_a_walk_in_both_directions_finds(
    filled: list[bool], half: int
) -> None:
    exists = np.array(filled)
    if not exists.any():
        assert (windows(exists, half) == 0).all()
        return
    cyclic = np.flatnonzero(exists)
    for slot, (start, length) in enumerate(windows(exists, half)):
        inside = cyclic[(start + np.arange(length)) % cyclic.size]
        assert len(set(inside)) == length
        assert set(inside.tolist()) == brute_window(exists, slot, half)


def test_windows_wrap_at_new_year() -> None:
    window = windows(np.ones(366, dtype=bool), 15)
    assert window[0].tolist() == [351, 31]
    assert window[365].tolist() == [350, 31]
    assert window[180].tolist() == [165, 31]


def test_windows_step_over_the_29_february_that_noleap_lacks() -> None:
    filled = np.ones(366, dtype=bool)
    filled[59] = False
    window = windows(filled, 15)
    assert window[60].tolist() == [44, 31]  # 14 February to 16 March
    assert window[59].tolist() == window[58].tolist()
    assert (window[:, 1] == 31).all()


def test_windows_of_a_winter_reach_over_new_year_but_not_over_the_summer() -> None:
    filled = np.zeros(366, dtype=bool)
    filled[slots(winters(1991, 2000))] = True
    window = windows(filled, 15)
    existing = np.flatnonzero(filled)
    first_of_december, leap_day, new_year = 335, 59, 0
    assert existing[window[first_of_december, 0]] == first_of_december
    assert window[first_of_december, 1] == 16
    assert window[leap_day].tolist() == [44, 16]
    assert window[new_year].tolist() == [existing.size - 15, 31]
    assert window[200].tolist() == window[leap_day].tolist()


def test_seasons_are_runs_of_initials() -> None:
    assert season_months("DJF") == [12, 1, 2]
    assert season_months("AMJJAS") == [4, 5, 6, 7, 8, 9]
    assert season_months(None) == list(range(1, 13))
    for wrong in ("", "J", "DJA", "djf", "JFMAMJJASONDJ"):
        with pytest.raises(ConfigError, match="month initials"):
            season_months(wrong)


def test_december_counts_to_the_winter_it_opens() -> None:
    days = Days.range("1990-10-01", "1991-03-31", "standard")
    of_winter = season_year(days, "DJF")
    assert set(of_winter[days.month == 12]) == {1991}
    assert set(of_winter[days.month == 10]) == {1990}
    assert set(of_winter[days.month == 1]) == {1991}
    assert (season_year(days, None) == days.year).all()
    assert (season_year(days, "JJA") == days.year).all()


@given(
    calendar=canonical_names,
    first=st.integers(1600, 2200),
    drop=st.sets(st.integers(1, 700), max_size=12),
)
def test_exactly_the_missing_days_are_named(calendar: str, first: int, drop: set[int]) -> None:
    days = Days.range(f"{first}-01-01", f"{first + 1}-12-30", calendar)
    kept = days[np.setdiff1d(np.arange(len(days)), list(drop))]
    if not drop:
        check_daily(kept, season=None, where="here")
        return
    with pytest.raises(SourceError) as caught:
        check_daily(kept, season=None, where="here")
    text = str(caught.value)
    assert text.startswith("here: a daily axis must hold every day once and in order; missing: ")
    assert days.isoformat(min(drop)) in text


def test_the_message_names_every_kind_of_fault() -> None:
    days = Days.range("1990-01-01", "1990-01-20", "standard")
    faulty = days[np.array([0, 1, 3, 3, 6, 5, 7, 9, 10, 12, 14, 16, 17, 18, 19])]
    with pytest.raises(SourceError) as caught:
        check_daily(faulty, season=None, where="pr of CanESM5")
    assert str(caught.value) == (
        "pr of CanESM5: a daily axis must hold every day once and in order; "
        "unordered: 1990-01-06; duplicated: 1990-01-04; "
        "missing: 1990-01-03, 1990-01-05, 1990-01-09, 1990-01-12, 1990-01-14 and 1 more days; "
        "repair the source, or choose another period or `season`"
    )
    gap = days[np.array([0, 1, 2, 6, 7])]
    with pytest.raises(SourceError, match="missing: 1990-01-04 to 1990-01-06; repair"):
        check_daily(gap, season=None, where="here")


def test_an_empty_axis_is_refused() -> None:
    nothing = Days.range("1990-01-01", "1990-01-01", "noleap")[:0]
    with pytest.raises(SourceError, match="here: the time axis is empty"):
        check_daily(nothing, season=None, where="here")


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_a_declared_season_may_lack_whole_seasons_only(calendar: str) -> None:
    days = Days.concatenate([winters(1983, 1986, calendar), winters(2082, 2084, calendar)])
    check_daily(days, season="DJF", where="here")
    with pytest.raises(SourceError, match="missing: 1983-03-01 to 1983-11-30"):
        check_daily(days, season=None, where="here")
    with pytest.raises(SourceError, match="missing: 1983-01-05;"):
        check_daily(
            days[np.arange(len(days)) != int(np.flatnonzero(days.year == 1983)[4])],
            season="DJF",
            where="here",
        )
    mid_winter = days[(days.year <= 1983) | (days.year >= 2083)]
    with pytest.raises(SourceError, match="missing: 1984-01-01 to "):
        check_daily(mid_winter, season="DJF", where="here")


def test_days_outside_the_season_are_named() -> None:
    days = Days.range("1989-12-01", "1990-03-02", "standard")
    with pytest.raises(SourceError, match="outside season DJF: 1990-03-01 to 1990-03-02"):
        check_daily(days, season="DJF", where="here")


def test_year_gaps_between_experiments_are_legal_on_request() -> None:
    parts = [Days.range(f"{y}-01-01", f"{y + 1}-12-31", "standard") for y in (1990, 2041)]
    days = Days.concatenate(parts)
    check_daily(days, season=None, where="here", allow_year_gaps=True)
    with pytest.raises(SourceError, match="missing: 1992-01-01 to 2040-12-31"):
        check_daily(days, season=None, where="here")
    uneven = Days.concatenate([parts[0], parts[1][5:]])
    with pytest.raises(SourceError, match="missing: 1992-01-01 to 2041-01-05"):
        check_daily(uneven, season=None, where="here", allow_year_gaps=True)


not_360 = st.sampled_from(sorted(set(CALENDARS.values()) - {"360_day"}))


@given(source=not_360, target=not_360, first=st.integers(1590, 2200))
def test_conversion_between_real_years_keeps_the_date(source: str, target: str, first: int) -> None:
    days = Days.range(f"{first}-01-01", f"{first + 4}-12-31", source)
    new, index = convert(days, target)
    kept = index >= 0
    assert dates(new[kept]) == dates(days[index[kept]])
    assert dates(new) == dates(Days.range(f"{first}-01-01", f"{first + 4}-12-31", target))
    assert {d[1:] for d in dates(new[~kept])} <= {(2, 29)}


@given(target=not_360, first=st.integers(1600, 2200))
def test_360_days_spread_over_the_year_and_come_back_unchanged(target: str, first: int) -> None:
    days = Days.range(f"{first}-01-01", f"{first + 2}-12-30", "360_day")
    new, index = convert(days, target)
    assert dates(new) == dates(Days.range(f"{first}-01-01", f"{first + 2}-12-31", target))
    assert index[index >= 0].tolist() == list(range(len(days)))
    back, source = convert(new, "360_day")
    assert dates(back) == dates(days)
    assert index[source].tolist() == list(range(len(days)))


@pytest.mark.parametrize("year", [2000, 2001])
def test_day_d_of_360_lands_where_the_formula_says(year: int) -> None:
    days = Days.range(f"{year}-01-01", f"{year}-12-30", "360_day")
    n = 366 if year == 2000 else 365
    _, index = convert(days, "standard")
    expected = [int(np.floor((d - 0.5) / 360 * n)) for d in range(1, 361)]
    assert np.flatnonzero(index >= 0).tolist() == expected
    assert (expected[0], expected[-1]) == (0, n - 1)


def test_the_gaps_of_a_seasonal_axis_stay_gaps() -> None:
    days = winters(1983, 1985, "noleap")
    new, index = convert(days, "standard")
    assert dates(new) == dates(winters(1983, 1985, "standard"))
    assert [new.isoformat(i) for i in np.flatnonzero(index < 0)] == ["1984-02-29"]
    shorter, source = convert(new, "noleap")
    assert dates(shorter) == dates(days)
    assert index[source].tolist() == list(range(len(days)))


def test_fifty_five_thousand_days_are_one_axis() -> None:
    days = Days.range("1850-01-01", "2000-12-31", "standard")
    check_daily(days, season=None, where="here")
    assert days[-1:].ordinal[0] == (date(2000, 12, 31) - date(1850, 1, 1)).days
