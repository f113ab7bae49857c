"""The slow change that MACA sets aside: the climatology of the years around each day.

Per day of the year, because the seasons warm at different rates: a change of the winters must not
leak into the summers.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from finescale import calendars
from finescale.calendars import Days
from finescale.errors import ConfigError
from finescale.variables import Kind


def trend(
    values: NDArray[np.floating],
    days: Days,
    *,
    train: NDArray[np.bool_],
    span_years: int = 31,
    smooth_days: int = 21,
    kind: Kind,
    floor: float = 0.0,
) -> NDArray[np.float64]:
    """Return the change of the climatology since the training period, (time, cell).

    The climatology of an epoch is the mean over its years and over the days of the year around.
    Near the ends of a run of consecutive years the nearest full epoch holds, in a shorter run the
    whole run.

    Parameters
    ----------
    values : (time, cell)
        Daily series; NaN is skipped.
    days : (time,) Days
        Their dates, checked by `calendars.check_daily`.
    train : (time,) bool
        Training days.
    span_years, smooth_days : int
        Odd numbers of years and of existing slots; slots wrap at the year's end and never cross
        the gap of a season.
    kind : "+" or "*"
        A difference [units of `values`] or a ratio [1].
    floor : float
        Kind "*": least climatology on either side of the ratio [units of `values`], above 0.

    Returns
    -------
    (time, cell) float64
        NaN where there is nothing to average.

    Raises
    ------
    ConfigError
        If a width is not odd and positive, a `floor` is missing, or there is no training day.

    References
    ----------
    Abatzoglou & Brown (2012), doi:10.1002/joc.2312.
    """
    for name, width in (("span_years", span_years), ("smooth_days", smooth_days)):
        if width < 1 or width % 2 == 0:
            raise ConfigError(f"`{name}` must be odd to be centred, found {width}")
    if not train.any():
        raise ConfigError("no training day lies on the time axis; check the training period")
    if kind == "*" and not floor > 0.0:
        raise ConfigError(
            f"changes of kind '*' need a `floor` above 0, found {floor}: the climatology that "
            "counts as nothing, in the units of the data"
        )
    filled = np.zeros(calendars.n_slots(days.calendar), np.bool_)
    slots = calendars.slots(days)
    filled[slots] = True
    existing = np.flatnonzero(filled)
    years, row = np.unique(days.year, return_inverse=True)
    return _changes(
        np.ascontiguousarray(values.T),
        train,
        row.reshape(-1),
        np.searchsorted(existing, slots),
        _epochs(years, span_years),
        calendars.windows(filled, smooth_days // 2)[existing],
        kind == "*",
        floor,
    ).T


def _epochs(years: NDArray[np.int32], span: int) -> NDArray[np.int64]:
    """First and last plus one of the rows of `years` in the epoch of each, (n_years, 2)."""
    bounds = np.empty((years.size, 2), dtype=np.int64)
    for run in np.split(np.arange(years.size), np.flatnonzero(np.diff(years) != 1) + 1):
        length = min(span, run.size)
        first = np.clip(run - span // 2, run[0], run[-1] + 1 - length)
        bounds[run] = np.stack([first, first + length], axis=1)
    return bounds


@numba.njit(nogil=True, cache=True)
def _changes(series, train, row, place, epochs, windows, is_ratio, floor):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return changes of the climatology, (cell, time).

    `series` (cell, time); of each day its `row` of `epochs` (year, 2) and its `place` in `windows`
    (existing slot, 2).
    """
    n_years, n_slots = epochs.shape[0], windows.shape[0]
    is_trained = np.zeros(n_years, np.bool_)
    for t in range(row.size):
        if train[t]:
            is_trained[row[t]] = True
    out = np.empty(series.shape)
    table, change = np.empty((2, n_years, n_slots))
    # Number and sum of what precedes, in years and slots; the first slots follow the last again.
    sums = np.zeros((2, n_years + 1, n_slots + windows[:, 1].max() + 1))
    for c in range(series.shape[0]):
        table[:] = np.nan
        for t in range(row.size):
            table[row[t], place[t]] = series[c, t]
        for y in range(n_years):
            number, total = 0.0, 0.0
            for p in range(sums.shape[2] - 1):
                value = table[y, p if p < n_slots else p - n_slots]
                if not np.isnan(value):
                    number += 1.0
                    total += value
                sums[0, y + 1, p + 1] = sums[0, y, p + 1] + number
                sums[1, y + 1, p + 1] = sums[1, y, p + 1] + total
        for y in range(n_years):
            for s in range(n_slots):
                days = _box(sums[0], epochs[y], windows[s])
                change[y, s] = _box(sums[1], epochs[y], windows[s]) / days if days > 0.0 else np.nan
        for s in range(n_slots):
            base, n_base = 0.0, 0.0
            for y in range(n_years):
                if is_trained[y] and not np.isnan(change[y, s]):
                    base += change[y, s]
                    n_base += 1.0
            base = base / n_base if n_base > 0.0 else np.nan
            for y in range(n_years):
                if np.isnan(change[y, s]) or np.isnan(base):
                    change[y, s] = np.nan
                elif is_ratio:
                    change[y, s] = max(change[y, s], floor) / max(base, floor)
                else:
                    change[y, s] -= base
        for t in range(row.size):
            out[c, t] = change[row[t], place[t]]
    return out


@numba.njit(nogil=True, cache=True)
def _box(sums, years, slots):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return what some years, first and end, and slots, start and length, have of the total."""
    first, end, left, right = years[0], years[1], slots[0], slots[0] + slots[1]
    return (sums[end, right] - sums[first, right]) - (sums[end, left] - sums[first, left])
