"""Regressions of one cell's series on predictors: windowed least squares, logistic, analogs.

Each day of the year has its own model, from the training days of the slots around it:

    least squares   sums of products per slot, added up afresh for each window in the order of slots
    logistic        Newton's method from the solution of the window before
    analogs         the k days nearest in predictor space, of equals the earlier

The kernels take cells one by one in a fixed order, without BLAS: bits depend on the cell alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import ndtri

from finescale import calendars

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Transform = Literal["none", "cube_root", "log", "quantile"]
AnalogKind = Literal["mean", "weighted", "best", "sample", "regression"]

ANALOG_KINDS: dict[AnalogKind, int] = {
    "mean": 0, "weighted": 1, "best": 2, "sample": 3, "regression": 4,
}  # fmt: skip
RIDGE = 1e-10  # [variance of a predictor] Makes the coefficients of collinear predictors unique.
SEPARATION = 1e-6  # [1 per day] Keeps the coefficients finite where predictors tell wet from dry.
CERTAIN = 30.0  # [log odds] of a window all wet, or minus that, all dry
MOST_STEPS, LONGEST_STEP, CONVERGED = 30, 3.0, 1e-9  # [1], [log odds], [log odds]
LOG_FLOOR = 0.01  # [training mean] The least value whose logarithm is taken.
LEAST_DISTANCE = 1e-6  # [standard deviations] Nearer analogs weigh no more.


class Season(NamedTuple):
    """Training days by slot: block b is order[bounds[b]:bounds[b + 1]].

    `windows` (slot, 2): first block and number of blocks of each slot's window, which wraps.
    """

    order: NDArray[np.int64]
    bounds: NDArray[np.int64]
    windows: NDArray[np.int32]


def season(slots: Integers, half_window: int) -> Season:
    """Return the windows of training days of these slots, (time,), of 366."""
    counts = np.bincount(slots, minlength=calendars.N_SLOTS)
    bounds = np.concatenate([[0], np.cumsum(counts[counts > 0])])
    windows = calendars.windows(counts > 0, half_window)
    return Season(np.argsort(slots, kind="stable"), bounds, windows)


@dataclass(frozen=True, eq=False)
class Scale:
    """A transform of a predictor, then its distance from the training mean in training std."""

    transform: Transform
    floor: Floats
    tables: list[tuple[Floats, Floats]]
    mean: Floats
    std: Floats

    @classmethod
    def fit(cls, values: Floats, transform: Transform) -> Self:
        """Return the scale of training values, (cell, time); NaN is skipped.

        A constant predictor, which says nothing, becomes 0.
        """
        tables = [_normal_scores(row) for row in values] if transform == "quantile" else []
        floor = LOG_FLOOR * moments(values)[0]
        start = np.zeros(len(values)), np.ones(len(values))
        transformed = cls(transform, floor, tables, *start)._transform(values)
        mean, std = moments(transformed)
        return cls(
            transform, floor, tables, mean, np.where(std > 1e-12 * np.abs(mean), std, np.inf)
        )

    def __call__(self, values: Floats) -> NDArray[np.float32]:
        """Return values (cell, time) on the scale."""
        scaled = (self._transform(values) - self.mean[:, None]) / self.std[:, None]
        return scaled.astype(np.float32)

    def _transform(self, values: Floats) -> NDArray[np.float64]:
        values = values.astype(np.float64)
        if self.transform == "cube_root":
            values = np.cbrt(values)
        if self.transform == "log":
            values = np.log(np.maximum(values, np.maximum(self.floor, 1e-30)[:, None]))
        if self.transform == "quantile":
            rows = [np.interp(v, *table) for v, table in zip(values, self.tables, strict=True)]
            values = np.array(rows)
        return np.asarray(values, dtype=np.float64)


def _normal_scores(values: Floats) -> tuple[Floats, Floats]:
    """Return the distinct values of a sample and their normal scores; ties take their mid-rank."""
    nodes, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    rank = np.cumsum(counts) - counts / 2
    return nodes.astype(np.float64), ndtri(rank / max(rank.size and counts.sum(), 1))


@njit(nogil=True, cache=True)
def moments(values: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of each row of (cell, time) without NaN; or NaN."""
    mean, std = np.full(values.shape[0], np.nan), np.full(values.shape[0], np.nan)
    for c in range(values.shape[0]):
        n, total, square = 0, 0.0, 0.0
        for x in values[c]:
            if not np.isnan(x):
                n += 1
                total += np.float64(x)
        if n > 0:
            mean[c] = total / n
            for x in values[c]:
                if not np.isnan(x):
                    square += (x - mean[c]) ** 2
            std[c] = np.sqrt(square / n)
    return mean, std


@njit(nogil=True, cache=True)
def least_squares(
    x: Floats,
    y: Floats,
    order: Integers,
    bounds: Integers,
    windows: Integers,
    least: int,
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return coefficients (cell, slot, 1 + p), residual std (cell, slot) and days (cell, slot).

    A window with fewer than `least` days with values takes all training days instead; of fewer
    than `least` the model is mean and standard deviation, of none it is 0.

    Parameters
    ----------
    x : (cell, time, p)
        Normalised predictors, without NaN.
    y : (cell, time)
        Predictand; days without a value are left out.
    order, bounds, windows
        `season` of the training days.
    """
    n_cells, p = x.shape[0], x.shape[2]
    n_slots, n_blocks = windows.shape[0], bounds.size - 1
    coefficients = np.zeros((n_cells, n_slots, p + 1))
    error = np.zeros((n_cells, n_slots))
    n_days = np.zeros((n_cells, n_slots), dtype=np.int64)
    sums = np.empty((n_blocks, p + 2, p + 2))
    row = np.empty(p + 2)
    for c in range(n_cells):
        base = _mean(y[c])
        sums[:] = 0.0
        for b in range(n_blocks):
            for i in range(bounds[b], bounds[b + 1]):
                t = order[i]
                if not np.isnan(y[c, t]):
                    _take(row, x[c, t], y[c, t] - base)
                    _add_products(sums[b], row)
        everything = np.zeros((p + 2, p + 2))
        for b in range(n_blocks):
            everything += sums[b]
        for s in range(n_slots):
            first, length = windows[s]
            if s > 0 and first == windows[s - 1, 0] and length == windows[s - 1, 1]:
                coefficients[c, s], error[c, s] = coefficients[c, s - 1], error[c, s - 1]
                n_days[c, s] = n_days[c, s - 1]
                continue
            gram = np.zeros((p + 2, p + 2))
            for k in range(length):
                gram += sums[(first + k) % n_blocks]
            n_days[c, s] = np.int64(gram[0, 0])
            chosen = gram if gram[0, 0] >= least else everything
            error[c, s] = _solve(chosen, least, coefficients[c, s])
            coefficients[c, s, 0] += base
    return coefficients, error, n_days


@njit(nogil=True, cache=True)
def predict(x: Floats, coefficients: Floats, slots: Integers) -> Floats:
    """Return the linear prediction, (cell, time), of x (cell, time, p) by the models of `slots`."""
    out = np.empty(x.shape[:2])
    for c in range(x.shape[0]):
        for t in range(x.shape[1]):
            out[c, t] = _linear(x[c, t], coefficients[c, slots[t]])
    return out


@njit(nogil=True, cache=True)
def logistic(
    x: Floats,
    y: Floats,
    threshold: float,
    order: Integers,
    bounds: Integers,
    windows: Integers,
    step: int,
) -> tuple[Floats, Floats]:
    """Return the log odds' coefficients (cell, slot, 1 + p) of y > threshold, and the cut.

    The cut (cell, slot) is the log odds that as many training days of the window exceed as exceed
    the threshold. Every `step`-th slot has its own model, the others take the nearest one's.

    Parameters
    ----------
    x, y, order, bounds, windows
        As in `least_squares`.
    """
    n_cells, p, n_slots = x.shape[0], x.shape[2], windows.shape[0]
    coefficients = np.zeros((n_cells, n_slots, p + 1))
    cut = np.zeros((n_cells, n_slots))
    days = np.empty(order.size, dtype=np.int64)
    odds = np.empty(order.size)
    for c in range(n_cells):
        beta = np.zeros(p + 1)
        for s in range(0, n_slots, step):
            n, n_wet = 0, 0
            for k in range(windows[s, 1]):
                b = (windows[s, 0] + k) % (bounds.size - 1)
                for i in range(bounds[b], bounds[b + 1]):
                    if not np.isnan(y[c, order[i]]):
                        days[n] = order[i]
                        n_wet += y[c, order[i]] > threshold
                        n += 1
            if n_wet == 0 or n_wet == n:
                coefficients[c, s, 0] = CERTAIN if n_wet > 0 else -CERTAIN
                continue
            _newton(x[c], y[c], threshold, days[:n], beta)
            coefficients[c, s] = beta
            for i in range(n):
                odds[i] = _linear(x[c, days[i]], beta)
                days[i] = i
            _select(odds, days, n, n - n_wet)
            cut[c, s] = 0.5 * (odds[: n - n_wet].max() + odds[n - n_wet : n].min())
        last = (n_slots - 1) // step * step
        for s in range(n_slots):
            own = min((s + step // 2) // step * step, last)
            if own != s:
                coefficients[c, s], cut[c, s] = coefficients[c, own], cut[c, own]
    return coefficients, cut


@njit(nogil=True, cache=True)
def analogs(
    x_train: Floats,
    y: Floats,
    order: Integers,
    bounds: Integers,
    windows: Integers,
    x: Floats,
    slots: Integers,
    own: Integers,
    k: int,
    kind: int,
    least: int,
    u: Floats,
) -> tuple[Floats, Floats, Floats]:
    """Return P(wet), the mean of the wet and their standard deviation, (cell, time) each.

    Parameters
    ----------
    x_train, y, order, bounds, windows
        As in `least_squares`; y is -inf on dry days, which count in P alone.
    x : (cell, time, p)
        Predictors of the days that are predicted.
    slots, own : (time,)
        Their slots; their place among the training days, which is no analog of itself, or -1.
    k
        Number of analogs; all days of the window if it has fewer.
    kind
        Of `ANALOG_KINDS`: plain mean; weighted by 1/distance; the nearest day, without error; the
        day whose rank among the k is at probability `u`, without error; the regression on the
        predictors, which needs `least` wet days and is a mean without them.
    u : (cell, time)
        Probabilities for `sample`, which else are not read.
    """
    n_cells, n_time, p = x.shape
    wet, mean, error = np.zeros((3, n_cells, n_time))
    distance, day = np.empty(order.size), np.empty(order.size, dtype=np.int64)
    near, value = np.empty((order.size, p)), np.empty(order.size)
    row, beta = np.empty(p + 2), np.empty(p + 1)
    for c in range(n_cells):
        for i in range(order.size):
            near[i], value[i] = x_train[c, order[i]], y[c, order[i]]
        for t in range(n_time):
            n = 0
            for j in range(windows[slots[t], 1]):
                b = (windows[slots[t], 0] + j) % (bounds.size - 1)
                for i in range(bounds[b], bounds[b + 1]):
                    if np.isnan(value[i]) or order[i] == own[t]:
                        continue
                    square = 0.0
                    for m in range(p):
                        square += (near[i, m] - x[c, t, m]) ** 2
                    distance[n], day[n] = square, order[i]
                    n += 1
            found = min(k, n)
            if found == 0:
                continue
            _select(distance, day, n, found)
            if kind == 2 or kind == 3:
                one = _one_of(distance, day, y[c], found, u[c, t] if kind == 3 else -1.0)
                if one > -np.inf:
                    wet[c, t], mean[c, t] = 1.0, one
                continue
            gram = np.zeros((p + 2, p + 2))
            weights, rained = 0.0, 0.0
            for i in range(found):
                w = 1.0 / max(np.sqrt(distance[i]), LEAST_DISTANCE) if kind == 1 else 1.0
                weights += w
                if y[c, day[i]] > -np.inf:
                    rained += w
                    _take(row, x_train[c, day[i]], y[c, day[i]])
                    if kind == 1:
                        row *= np.sqrt(w)
                    _add_products(gram, row)
            wet[c, t] = rained / weights
            if kind == 4:
                error[c, t] = _solve(gram, least, beta)
                mean[c, t] = _linear(x[c, t], beta)
            elif rained > 0:
                mean[c, t] = gram[p + 1, 0] / rained
                spread = gram[p + 1, p + 1] / rained - mean[c, t] ** 2
                error[c, t] = np.sqrt(max(spread, 0.0))
    return wet, mean, error


@njit(nogil=True, cache=True)
def _mean(values: Floats) -> float:
    """Return the mean of the finite values, 0 without any."""
    total, n = 0.0, 0
    for value in values:
        if not np.isnan(value):
            total += value
            n += 1
    return total / max(n, 1)


@njit(nogil=True, cache=True)
def _take(row: Floats, x: Floats, y: float) -> None:
    """Set `row` to (1, x, y)."""
    row[0], row[row.size - 1] = 1.0, y
    for j in range(x.size):
        row[j + 1] = x[j]


@njit(nogil=True, cache=True)
def _add_products(gram: Floats, row: Floats) -> None:
    """Add to the lower triangle of `gram`."""
    for i in range(row.size):
        for j in range(i + 1):
            gram[i, j] += row[i] * row[j]


@njit(nogil=True, cache=True)
def _linear(x: Floats, beta: Floats) -> float:
    total = beta[0]
    for j in range(x.size):
        total += beta[j + 1] * x[j]
    return total


@njit(nogil=True, cache=True)
def _solve(gram: Floats, least: int, beta: Floats) -> float:
    """Set `beta` from the sums of products of (1, x, y), lower triangle; return the residual std.

    Of fewer than `least` rows: mean and standard deviation alone; 0 of none.
    """
    n, p = gram[0, 0], beta.size - 1
    beta[:] = 0.0
    if n < 1:
        return 0.0
    slopes = p if n >= least else 0
    matrix, slope = np.empty((slopes, slopes)), np.empty(slopes)
    for i in range(slopes):
        for j in range(i + 1):
            matrix[i, j] = gram[i + 1, j + 1] - gram[i + 1, 0] * gram[j + 1, 0] / n
        matrix[i, i] += RIDGE * n
        slope[i] = gram[p + 1, i + 1] - gram[p + 1, 0] * gram[i + 1, 0] / n
    residual = gram[p + 1, p + 1] - gram[p + 1, 0] ** 2 / n
    right = slope.copy()
    _cholesky(matrix, slope)
    mean = gram[p + 1, 0] / n
    for i in range(slopes):
        beta[i + 1] = slope[i]
        mean -= slope[i] * gram[i + 1, 0] / n
        residual -= slope[i] * right[i]
    beta[0] = mean
    return np.sqrt(max(residual, 0.0) / max(n - slopes - 1, 1.0))


@njit(nogil=True, cache=True)
def _cholesky(matrix: Floats, vector: Floats) -> None:
    """Solve in place for a positive definite `matrix` given by its lower triangle."""
    n = vector.size
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = np.sqrt(total) if i == j else total / matrix[j, j]
        for k in range(i):
            vector[i] -= matrix[i, k] * vector[k]
        vector[i] /= matrix[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            vector[i] -= matrix[k, i] * vector[k]
        vector[i] /= matrix[i, i]


@njit(nogil=True, cache=True)
def _newton(x: Floats, y: Floats, threshold: float, days: Integers, beta: Floats) -> None:
    """Maximise the likelihood of y > threshold on `days`, slopes slightly ridged, from `beta` on.

    Steps are cut to `LONGEST_STEP`: a start from another window can lie where the curvature is 0.
    """
    size, n = beta.size, days.size
    for _ in range(MOST_STEPS):
        hessian, step = np.zeros((size, size)), np.zeros(size)
        for t in days:
            wet = 1.0 / (1.0 + np.exp(-_linear(x[t], beta)))
            weight = wet * (1.0 - wet)
            residual = (1.0 if y[t] > threshold else 0.0) - wet
            for i in range(size):
                a = 1.0 if i == 0 else x[t, i - 1]
                step[i] += residual * a
                for j in range(i + 1):
                    hessian[i, j] += weight * a * (1.0 if j == 0 else x[t, j - 1])
        for i in range(size):
            hessian[i, i] += SEPARATION * n
            if i > 0:
                step[i] -= SEPARATION * n * beta[i]
        _cholesky(hessian, step)
        longest = np.abs(step).max()
        beta += step * min(1.0, LONGEST_STEP / max(longest, 1e-300))
        if longest < CONVERGED:
            break


@njit(nogil=True, cache=True)
def _select(key: Floats, label: Integers, n: int, k: int) -> None:
    """Move the k least of the first n keys to the front; of equal keys those of lower label."""
    low, high = 0, n - 1
    while low < high:
        middle = (low + high) // 2
        pivot, tie = key[middle], label[middle]
        i, j = low, high
        while i <= j:
            while key[i] < pivot or (key[i] == pivot and label[i] < tie):
                i += 1
            while key[j] > pivot or (key[j] == pivot and label[j] > tie):
                j -= 1
            if i <= j:
                key[i], key[j] = key[j], key[i]
                label[i], label[j] = label[j], label[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


@njit(nogil=True, cache=True)
def _one_of(distance: Floats, day: Integers, y: Floats, n: int, u: float) -> float:
    """Return the value of the nearest of n days (u < 0), or that at probability `u` among them."""
    if u < 0:
        _select(distance, day, n, 1)
        return y[day[0]]
    values = np.empty(n)
    for i in range(n):
        values[i] = y[day[i]]
    return np.sort(values)[min(int(u * n), n - 1)]
