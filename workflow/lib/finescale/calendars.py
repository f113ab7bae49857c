"""Daily time axes in every CF calendar: dates, day-of-year slots, windows and their checks.

An axis is a `Days`: one calendar date per entry, as integers. Nothing here builds an object per
day or a numpy datetime, so that all years from 1 to 9999 work and 55,000 days cost milliseconds.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import cftime
import numpy as np
from numpy.typing import ArrayLike, NDArray

from finescale.errors import ConfigError, SourceError

N_SLOTS = 366

CALENDARS = {
    "standard": "standard",
    "gregorian": "standard",
    "proleptic_gregorian": "proleptic_gregorian",
    "julian": "julian",
    "noleap": "noleap",
    "365_day": "noleap",
    "all_leap": "all_leap",
    "366_day": "all_leap",
    "360_day": "360_day",
}

# A year that begins on 1 March has its leap day last, which makes leap rules plain divisions.
_DAYS_PER_YEAR = {
    "proleptic_gregorian": 365.2425,
    "julian": 365.25,
    "noleap": 365.0,
    "all_leap": 366.0,
}
_GREGORIAN_FROM = 15821015  # the day after 4 October 1582 in the standard calendar
_FEB_29 = 59
_MONTH_STARTS = np.cumsum([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30])
_INITIALS = "JFMAMJJASOND"


def reread(calendar: str) -> str:
    """Return the canonical name of a CF calendar or of one of its aliases.

    Raises
    ------
    SourceError
        If CF knows no such calendar.
    """
    try:
        return CALENDARS[calendar.lower()]
    except KeyError:
        raise SourceError(
            f"calendar {calendar!r} is not a CF calendar; expected one of {', '.join(CALENDARS)}; "
            "correct the time axis' `calendar` attribute"
        ) from None


@dataclass(frozen=True, eq=False)
class Days:
    """A daily axis: calendar dates, one per entry, in any CF calendar.

    Attributes
    ----------
    calendar : str
        Canonical CF name.
    year, month, day : (n,) int32, int8, int8
    """

    calendar: str
    year: NDArray[np.int32]
    month: NDArray[np.int8]
    day: NDArray[np.int8]

    @classmethod
    def from_cf(cls, values: ArrayLike, units: str, calendar: str) -> Self:
        """Return the dates of CF time `values`, whatever their hour of the day.

        Raises
        ------
        SourceError
            If units or calendar are not CF's, a value is missing, or a year is not in 1-9999.
        """
        calendar = reread(calendar)
        try:
            epoch, following = cftime.num2date([0, 1], units, calendar)
        except ValueError as error:
            raise SourceError(
                f"time units {units!r} cannot be read in calendar {calendar!r} ({error}); "
                "expected e.g. 'days since 1850-01-01'"
            ) from error
        elapsed = np.asarray(values, dtype=np.float64)
        if not np.isfinite(elapsed).all():
            raise SourceError("the time axis holds missing values; every entry must have a date")
        unit = (following - epoch).total_seconds()
        clock = epoch.hour * 3600 + epoch.minute * 60 + epoch.second + epoch.microsecond * 1e-6
        # whole milliseconds: a midnight written as a rounded fraction must not fall a day early
        since_midnight = np.round((clock + elapsed * unit) * 1000).astype(np.int64)
        # BC years are counted without a year 0 in some calendars
        year = epoch.year + (epoch.year < 0 and not epoch.has_year_zero)
        first = _ordinal(year, epoch.month, epoch.day, calendar)
        days = cls._at(first + since_midnight // 86_400_000, calendar)
        if len(days) and (days.year.min() < 1 or days.year.max() > 9999):
            raise SourceError(
                f"time units {units!r} give years {days.year.min()} to {days.year.max()}; "
                "expected 1 to 9999: check the axis' `units`"
            )
        return days

    @classmethod
    def range(cls, first: str, last: str, calendar: str) -> Self:
        """Return every day from `first` to `last` ("1990-01-01"), both included.

        Raises
        ------
        ConfigError
            If a date is malformed or does not exist in `calendar`, or `last` precedes `first`.
        """
        calendar = reread(calendar)
        start, stop = (_parse_date(text, calendar) for text in (first, last))
        if stop < start:
            raise ConfigError(f"a period must not end before it starts: {first} to {last}")
        return cls._at(np.arange(start, stop + 1), calendar)

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Return the entries of all `parts`, which share one calendar, one after the other.

        Raises
        ------
        SourceError
            If the calendars differ.
        """
        calendars = {part.calendar for part in parts}
        if len(calendars) != 1:
            raise SourceError(
                f"axes of one calendar can be joined, these have {sorted(calendars)}; "
                "convert them first (`calendar:` in the config)"
            )
        year, month, day = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("year", "month", "day")
        )
        return cls(calendars.pop(), year, month, day)

    @classmethod
    def _at(cls, ordinal: NDArray[np.int64], calendar: str) -> Self:
        year, month, day = _date(ordinal, calendar)
        return cls(calendar, year.astype(np.int32), month.astype(np.int8), day.astype(np.int8))

    def __len__(self) -> int:
        return self.year.size

    def __getitem__(self, index: slice | NDArray[Any]) -> Self:
        return type(self)(self.calendar, self.year[index], self.month[index], self.day[index])

    @cached_property
    def ordinal(self) -> NDArray[np.int64]:
        """Days since 1850-01-01 in the axis' own calendar, (n,)."""
        return _ordinal(self.year, self.month, self.day, self.calendar)

    def to_cf(self) -> NDArray[np.float64]:
        """Return noon of each day in "days since 1850-01-01", (n,)."""
        return self.ordinal.astype(np.float64) + 0.5

    def isoformat(self, i: int | np.integer[Any]) -> str:
        """Return the date of entry `i` as "1990-01-01"."""
        return f"{self.year[i]:04d}-{self.month[i]:02d}-{self.day[i]:02d}"


def n_slots(calendar: str) -> int:
    """Return the number of day-of-year slots of a calendar: 366, or 360 for 360_day."""
    return 360 if reread(calendar) == "360_day" else N_SLOTS


def slots(days: Days) -> NDArray[np.int16]:
    """Return each day's slot in the year, 0-based, (n,).

    Calendars of 365 and 366 days share 366 month-day slots, in which 29 February is slot 59;
    a 360_day axis has its own 360.
    """
    month = days.month.astype(np.int64) - 1
    before = 30 * month if days.calendar == "360_day" else _MONTH_STARTS[month]
    return (before + days.day - 1).astype(np.int16)


def reference_slots(calendar: str) -> NDArray[np.int16]:
    """Return the slot of a standard-calendar reference that each slot of `calendar` takes.

    The identity, except for 360_day, whose day d (from 1) takes day
    floor((d - 0.5) / 360 x 366) + 1: the same fraction of the year.
    """
    n = n_slots(calendar)
    return ((2 * np.arange(n) + 1) * N_SLOTS // (2 * n)).astype(np.int16)


def standard_slots(days: Days) -> NDArray[np.int16]:
    """Return the slot of 366 of each day of any calendar, (n,): that of a climatology.

    A day of the 360_day calendar takes the slot at its place in the year.
    """
    return reference_slots(days.calendar)[slots(days)]


def windows(filled: NDArray[np.bool_], half: int) -> NDArray[np.int32]:
    """Return the centred window of every slot among the slots that exist, (n_slots, 2).

    Parameters
    ----------
    filled : (n_slots,) bool
        Slots that exist on the axis.
    half : int
        Existing slots on either side.

    Returns
    -------
    (n_slots, 2) int32
        Start and length, as positions in the cyclic list `np.flatnonzero(filled)`. A window wraps
        at the year's end, ends at a gap of more than one slot and holds no slot twice. A slot
        that does not exist takes the window of the last one before it that does; lengths are 0
        when none does.
    """
    n = filled.size
    existing = np.flatnonzero(filled)
    m = existing.size
    if m == 0:
        return np.zeros((n, 2), dtype=np.int32)
    gap_follows = np.diff(existing, append=existing[0] + n) > 2
    place = np.arange(m)
    if gap_follows.any():
        ends = np.flatnonzero(gap_follows)
        following = np.append(ends, ends[0] + m)
        after = following[np.searchsorted(ends, place)] - place
        preceding = np.append(ends[-1] - m, ends)
        before = place - preceding[np.searchsorted(ends, place)] - 1
        left, right = np.minimum(before, half), np.minimum(after, half)
    else:
        left = np.full(m, half)
        right = np.full(m, half)
    window = np.stack([(place - left) % m, np.minimum(left + right + 1, m)], axis=1)
    owner = (np.searchsorted(existing, np.arange(n), side="right") - 1) % m
    return window[owner].astype(np.int32)


def season_months(season: str | None) -> list[int]:
    """Return the months (1-12) that a season's initials stand for, in the season's order.

    Raises
    ------
    ConfigError
        If `season` is not an unambiguous run of month initials such as "DJF" or "AMJJAS".
    """
    if season is None:
        return list(range(1, 13))
    starts = [i for i in range(12) if (2 * _INITIALS).startswith(season, i)]
    if len(starts) != 1 or len(season) > 12:
        raise ConfigError(
            f"season {season!r} is not one run of month initials; expected e.g. 'DJF' or 'AMJJAS', "
            "at least two months long"
        )
    return [(starts[0] + i) % 12 + 1 for i in range(len(season))]


def season_year(days: Days, season: str | None) -> NDArray[np.int32]:
    """Return the year that each day counts to in annual statistics, (n,).

    The months before New Year of a season that spans it count to the year that follows.
    """
    months = season_months(season)
    autumn = months[: months.index(1)] if 1 in months else []
    return days.year + np.isin(days.month, autumn).astype(np.int32)


def check_daily(
    days: Days, *, season: str | None, where: str, allow_year_gaps: bool = False
) -> None:
    """Return nothing if the axis holds every day once and in order.

    Parameters
    ----------
    days : Days
    season : str or None
        Month initials: only the season's days are expected, and none else allowed; whole seasons
        may be missing.
    where : str
        What to call the axis in the message.
    allow_year_gaps : bool
        Whether whole years may be missing without a season, as between joined experiments.

    Raises
    ------
    SourceError
        Naming the missing, duplicated, unordered and out-of-season dates.
    """
    months = season_months(season)
    if len(days) == 0:
        raise SourceError(f"{where}: the time axis is empty; choose a period the source covers")
    faults = {
        "unordered": days.ordinal[1:][np.diff(days.ordinal) < 0],
        f"outside season {season}": days.ordinal[~np.isin(days.month, months)],
    }
    present, counts = np.unique(days.ordinal, return_counts=True)
    faults["duplicated"] = present[counts > 1]
    within = days.ordinal[np.isin(days.month, months)]
    first, last = (within.min(), within.max()) if within.size else (0, -1)
    calendar = Days._at(np.arange(first, last + 1), days.calendar)
    calendar = calendar[np.isin(calendar.month, months)]
    faults["missing"] = np.setdiff1d(calendar.ordinal, present)
    if season is not None or allow_year_gaps:
        legal = _whole_years(faults["missing"], calendar, months if season is not None else None)
        faults["missing"] = faults["missing"][~legal]
    listed = [
        f"{kind}: {_name_days(ordinal, days)}" for kind, ordinal in faults.items() if ordinal.size
    ]
    if listed:
        raise SourceError(
            f"{where}: a daily axis must hold every day once and in order; {'; '.join(listed)}; "
            "repair the source, or choose another period or `season`"
        )


def convert(days: Days, calendar: str) -> tuple[Days, NDArray[np.int64]]:
    """Return the same span of days in another calendar, and the source day of each.

    The source is the day of the same date; between 360_day and the others it is the day at the
    same fraction of the year: day d of 360 is day floor((d - 0.5) / 360 x n) + 1 of n.

    Parameters
    ----------
    days : Days
        In order, each day once (`check_daily`); its gaps remain gaps.
    calendar : str
        The wanted calendar.

    Returns
    -------
    Days, (n,) int64
        The new axis, and for each of its days the position in `days`, -1 for inserted days
        (which follow a day of the source and have no counterpart).
    """
    calendar = reread(calendar)
    # each day owns the new days from its own date up to its successor's, the first as a copy
    begin = _transfer(days, calendar)
    end = _transfer(Days._at(days.ordinal + 1, days.calendar), calendar)
    owned = end - begin
    source = np.repeat(np.arange(len(days)), owned)
    offset = np.arange(source.size) - np.repeat(np.cumsum(owned) - owned, owned)
    index = np.where(offset == 0, source, -1)
    return Days._at(begin[source] + offset, calendar), index


def _transfer(days: Days, calendar: str) -> NDArray[np.int64]:
    """Ordinals in `calendar` of the first day that is not before each of `days`."""
    if (days.calendar == "360_day") == (calendar == "360_day"):
        return _ordinal(days.year, days.month, days.day, calendar)
    own, new_year, length = days.calendar, {}, {}
    year, january = days.year.astype(np.int64), np.ones(len(days), dtype=np.int64)
    for name in (own, calendar):
        new_year[name] = _ordinal(year, january, january, name)
        length[name] = _ordinal(year + 1, january, january, name) - new_year[name]
    elapsed = days.ordinal - new_year[own]
    if own == "360_day":
        return new_year[calendar] + (2 * elapsed + 1) * length[calendar] // 720
    n = length[own]
    # the first d of 360 whose day of n is not before this one: the inverse of the line above
    return new_year[calendar] - (n - 720 * elapsed) // (2 * n)


def _whole_years(
    missing: NDArray[np.int64], expected: Days, months: list[int] | None
) -> NDArray[np.bool_]:
    """Which missing days belong to gaps of whole years, or of whole seasons if `months`."""
    if missing.size == 0:
        return np.zeros(0, dtype=np.bool_)
    place = np.searchsorted(expected.ordinal, missing)
    starts = np.flatnonzero(np.diff(place, prepend=-2) > 1)
    stops = np.append(starts[1:], missing.size)
    first, resumed = expected[place[starts]], expected[place[stops - 1] + 1]
    legal = (first.month == resumed.month) & (first.day == resumed.day)
    if months is not None and len(months) < 12:
        legal &= (first.month == months[0]) & (first.day == 1)
    return np.repeat(legal, stops - starts)


def _name_days(ordinal: NDArray[np.int64], days: Days, most: int = 5) -> str:
    """Write runs of dates: "1990-02-03 to 1990-02-05, 1991-01-01 and 7 more"."""
    ordinal = np.unique(ordinal)
    starts = np.flatnonzero(np.diff(ordinal, prepend=ordinal[0] - 2) > 1)
    stops = np.append(starts[1:], ordinal.size)
    named = Days._at(ordinal, days.calendar)
    runs = [
        named.isoformat(a) if b - a == 1 else f"{named.isoformat(a)} to {named.isoformat(b - 1)}"
        for a, b in zip(starts[:most], stops[:most], strict=True)
    ]
    left = ordinal.size - int(stops[:most][-1])
    return ", ".join(runs) + (f" and {left} more days" if left else "")


def _parse_date(text: str, calendar: str) -> int:
    """Read the ordinal of an ISO date that exists in `calendar`."""
    try:
        year, month, day = (int(part) for part in text.split("-"))
        ordinal = int(_ordinal(year, month, day, calendar))
        found = tuple(int(part) for part in _date(np.array(ordinal), calendar))
        exists = 1 <= year <= 9999 and found == (year, month, day)
    except (ValueError, IndexError):
        exists = False
    if not exists:
        raise ConfigError(
            f"{text!r} is no date in calendar {calendar!r}; expected year-month-day, "
            "e.g. '1990-01-01', with a day that exists in it"
        )
    return ordinal


def _ordinal(year: Any, month: Any, day: Any, calendar: str) -> NDArray[np.int64]:
    """Days since 1850-01-01; a date that does not exist gives the next one that does."""
    return _count(year, month, day, calendar) - _EPOCH[calendar]


def _count(year: Any, month: Any, day: Any, calendar: str) -> NDArray[np.int64]:
    """Days since an origin that only `_date` knows."""
    year, month, day = (np.asarray(part, dtype=np.int64) for part in (year, month, day))
    if calendar == "360_day":
        return 360 * year + 30 * (month - 1) + day - 1
    if calendar == "standard":
        old = np.minimum(_count(year, month, day, "julian") - _JULIAN_LEAD, _CUTOVER)
        new = _count(year, month, day, "proleptic_gregorian")
        return np.where(10_000 * year + 100 * month + day < _GREGORIAN_FROM, old, new)
    # months since March: 31 30 31 30 31 days, again and again
    march = (month + 9) % 12
    return _year_start(year - (month < 3), calendar) + (153 * march + 2) // 5 + day - 1


def _year_start(year: NDArray[np.int64], calendar: str) -> NDArray[np.int64]:
    """Days before 1 March of a year, since 1 March of year 0."""
    if calendar == "noleap":
        return 365 * year
    if calendar == "all_leap":
        return 366 * year
    if calendar == "julian":
        return 365 * year + year // 4
    return 365 * year + year // 4 - year // 100 + year // 400


def _date(
    ordinal: NDArray[np.int64], calendar: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Year, month and day of days since 1850-01-01."""
    count = np.asarray(ordinal, dtype=np.int64) + _EPOCH[calendar]
    if calendar == "standard":
        is_old = count < _CUTOVER
        old = _date_of(count + _JULIAN_LEAD, "julian")
        new = _date_of(count, "proleptic_gregorian")
        year, month, day = (np.where(is_old, a, b) for a, b in zip(old, new, strict=True))
        return year, month, day
    return _date_of(count, calendar)


def _date_of(
    count: NDArray[np.int64], calendar: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    if calendar == "360_day":
        return count // 360, count % 360 // 30 + 1, count % 30 + 1
    year = np.floor_divide(count, _DAYS_PER_YEAR[calendar]).astype(np.int64)
    # the mean year is at most two days off the true start, so the guess at most one year
    year += _year_start(year + 1, calendar) <= count
    year -= _year_start(year, calendar) > count
    in_year = count - _year_start(year, calendar)
    march = (5 * in_year + 2) // 153
    month = (march + 2) % 12 + 1
    return year + (month < 3), month, in_year - (153 * march + 2) // 5 + 1


# The Julian count runs ahead by the two days that the calendars differ by on 1 March of year 0.
_JULIAN_LEAD = int(_count(1582, 10, 5, "julian") - _count(1582, 10, 15, "proleptic_gregorian"))
_CUTOVER = int(_count(1582, 10, 15, "proleptic_gregorian"))
_EPOCH = {name: int(_count(1850, 1, 1, name)) for name in set(CALENDARS.values())}
