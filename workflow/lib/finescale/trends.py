"""The slow change of a daily series that is set aside while its quantiles are mapped.

Per calendar month, because the months warm at different rates: a change of the winters must not
leak into the summers.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from finescale.calendars import Days
from finescale.errors import ConfigError


def trend(
    values: NDArray[np.floating],
    days: Days,
    *,
    train: NDArray[np.bool_],
    window_years: int = 9,
) -> NDArray[np.float64]:
    """Return the trend of daily series relative to their training climatology, (time, cell).

    The mean of each month, less the mean of that calendar month over the training days; a centred
    running mean over years, month by month; linear interpolation between the middles of months.
    Near the ends of a run of consecutive years the nearest full window holds, in a run shorter
    than the window the mean of the run; nothing crosses a gap of the axis.

    Parameters
    ----------
    values : (time, cell)
        Daily series; NaN days are skipped, also whole months of them.
    days : (time,) Days
        Their dates, checked by `calendars.check_daily`.
    train : (time,) bool
        Training days.
    window_years : int
        Odd number of years in the running mean.

    Returns
    -------
    (time, cell) float64
        In the units of `values`; NaN where a cell has no training data.

    Raises
    ------
    ConfigError
        If `window_years` is not odd and positive, or there is no training day.

    References
    ----------
    Thrasher et al. (2012), doi:10.5194/hess-16-3309-2012.
    """
    if window_years < 1 or window_years % 2 == 0:
        raise ConfigError(f"`window_years` must be odd to be centred, found {window_years}")
    if not train.any():
        raise ConfigError("no training day lies on the time axis; check the training period")
    number = days.year.astype(np.int64) * 12 + days.month - 1
    months, month_of = np.unique(number, return_inverse=True)
    first = np.searchsorted(month_of, np.arange(months.size))
    last = np.searchsorted(month_of, np.arange(months.size), side="right") - 1
    middle = (days.ordinal[first] + days.ordinal[last]) / 2.0
    is_gap = np.diff(days.ordinal) > 2
    stretch = np.concatenate([[0], np.cumsum(is_gap)])[first]

    monthly = _group_means(values, month_of, months.size)
    climatology = _group_means(
        _group_means(values[train], month_of[train], months.size), months % 12, 12
    )
    anomaly = monthly - climatology[months % 12]
    smooth = _row_means(anomaly, _running_years(months, window_years))
    _fill(smooth, middle, stretch)
    lower, upper, weight = _between_middles(days.ordinal, month_of, middle, stretch)
    return _interpolate(smooth, lower, upper, weight)


def _running_years(months: NDArray[np.int64], window_years: int) -> NDArray[np.int64]:
    """Rows of `months` in each month's running mean, (n_months, window_years), -1 where fewer."""
    rows = np.full((months.size, window_years), -1, dtype=np.int64)
    for calendar_month in range(12):
        own = np.flatnonzero(months % 12 == calendar_month)
        for run in np.split(own, np.flatnonzero(np.diff(months[own]) != 12) + 1):
            length = min(window_years, run.size)
            place = np.arange(run.size)
            start = np.clip(place - window_years // 2, 0, run.size - length)
            rows[run, :length] = run[start[:, None] + np.arange(length)]
    return rows


def _between_middles(
    ordinal: NDArray[np.int64],
    month_of: NDArray[np.int64],
    middle: NDArray[np.float64],
    stretch: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows of months on both sides of each day and the weight of the upper, (time,) each."""
    is_after = ordinal >= middle[month_of]
    neighbour = np.clip(month_of + np.where(is_after, 1, -1), 0, middle.size - 1)
    neighbour = np.where(stretch[neighbour] == stretch[month_of], neighbour, month_of)
    lower, upper = np.minimum(month_of, neighbour), np.maximum(month_of, neighbour)
    span = np.where(upper > lower, middle[upper] - middle[lower], 1.0)
    weight = np.where(upper > lower, (ordinal - middle[lower]) / span, 0.0)
    return lower, upper, weight


@numba.njit(nogil=True, cache=True)
def _group_means(
    values: NDArray[np.floating], group: NDArray[np.int64], n_groups: int
) -> NDArray[np.float64]:
    """Means of the rows of each group, NaN skipped, (n_groups, cell)."""
    n_cells = values.shape[1]
    mean = np.zeros((n_groups, n_cells))
    count = np.zeros((n_groups, n_cells))
    for t in range(values.shape[0]):
        for c in range(n_cells):
            value = np.float64(values[t, c])
            if not np.isnan(value):
                mean[group[t], c] += value
                count[group[t], c] += 1.0
    for g in range(n_groups):
        for c in range(n_cells):
            mean[g, c] = mean[g, c] / count[g, c] if count[g, c] > 0.0 else np.nan
    return mean


@numba.njit(nogil=True, cache=True)
def _row_means(values: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means of the given rows (-1: none), NaN skipped, one result per row of `rows`."""
    mean = np.empty((rows.shape[0], values.shape[1]))
    for i in range(rows.shape[0]):
        for c in range(values.shape[1]):
            total, count = 0.0, 0
            for row in rows[i]:
                if row >= 0 and not np.isnan(values[row, c]):
                    total += values[row, c]
                    count += 1
            mean[i, c] = total / count if count > 0 else np.nan
    return mean


@numba.njit(nogil=True, cache=True)
def _fill(
    values: NDArray[np.float64], position: NDArray[np.float64], stretch: NDArray[np.int64]
) -> None:
    """Fill NaN in place, linearly from the neighbours of the same stretch, constant at its ends."""
    n = values.shape[0]
    for c in range(values.shape[1]):
        known = -1
        for i in range(n + 1):
            if i < n and np.isnan(values[i, c]):
                continue
            for j in range(known + 1, i):
                has_left = known >= 0 and stretch[known] == stretch[j]
                has_right = i < n and stretch[i] == stretch[j]
                if has_left and has_right:
                    share = (position[j] - position[known]) / (position[i] - position[known])
                    values[j, c] = values[known, c] + share * (values[i, c] - values[known, c])
                elif has_left:
                    values[j, c] = values[known, c]
                elif has_right:
                    values[j, c] = values[i, c]
            known = i


@numba.njit(nogil=True, cache=True)
def _interpolate(
    values: NDArray[np.float64],
    lower: NDArray[np.int64],
    upper: NDArray[np.int64],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Linear combinations of two rows per day, (time, cell)."""
    out = np.empty((lower.size, values.shape[1]))
    for t in range(lower.size):
        for c in range(values.shape[1]):
            low = values[lower[t], c]
            out[t, c] = low + weight[t] * (values[upper[t], c] - low)
    return out
