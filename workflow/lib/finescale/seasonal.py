"""Day-of-year climatologies: sums that grow slab by slab, then harmonics or window means."""

import numba
import numpy as np
from numpy.typing import NDArray

from finescale.calendars import windows

# Fewer filled slots, as of one season, leave three harmonics next to singular.
MIN_HARMONIC_SLOTS = 300


def day_of_year_sums(
    values: NDArray[np.floating], slots: NDArray[np.int16], n_slots: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return sum and number of the values of each day-of-year slot, (n_slots, cell) both.

    Parameters
    ----------
    values : (time, cell)
        Daily series; NaN is skipped.
    slots : (time,) int16
        Slot of each day (`calendars.slots`).
    n_slots : int
        Slots of the calendar (`calendars.n_slots`).
    """
    sums = np.zeros((n_slots, values.shape[1]))
    counts = np.zeros((n_slots, values.shape[1]), dtype=np.int64)
    accumulate(sums, counts, values, slots)
    return sums, counts


@numba.njit(nogil=True, cache=True)
def accumulate(
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    values: NDArray[np.floating],
    slots: NDArray[np.int16],
) -> None:
    """Return nothing; add a slab's values to the running `sums` and `counts` in place.

    Slabs given in the order of time yield the same bits whatever their sizes. Shapes as in
    `day_of_year_sums`.
    """
    for t in range(values.shape[0]):
        slot = slots[t]
        for c in range(values.shape[1]):
            value = np.float64(values[t, c])
            if not np.isnan(value):
                sums[slot, c] += value
                counts[slot, c] += 1


def smooth(
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    *,
    harmonics: int = 3,
    half_window: int = 15,
) -> NDArray[np.float64]:
    """Return the smooth day-of-year climatology, (n_slots, cell).

    Cells with at least 300 filled slots: the annual mean and `harmonics` of the year, fitted to
    the slot means by least squares with the counts as weights, so that 29 February counts a
    quarter. Others, as on seasonal axes: the mean over the window of `half_window` existing slots
    on either side. Both are linear in `sums`: averaging over cells and smoothing commute as long
    as the cells' counts are the same.

    Parameters
    ----------
    sums, counts : (n_slots, cell)
        From `day_of_year_sums`.
    harmonics : int
        Number of annual harmonics.
    half_window : int
        Slots on either side where there is a window.

    Returns
    -------
    (n_slots, cell) float64
        In the units of the series, also on empty slots; NaN where a cell has no data.

    References
    ----------
    Thrasher et al. (2012), doi:10.5194/hess-16-3309-2012.
    """
    filled = counts > 0
    n_filled = filled.sum(axis=0)
    many = n_filled >= MIN_HARMONIC_SLOTS
    clim = _fit_harmonics(sums, counts, many, _annual_basis(sums.shape[0], harmonics))
    others = np.flatnonzero((n_filled > 0) & ~many)
    patterns, pattern_of = np.unique(filled[:, others], axis=1, return_inverse=True)
    for i in range(patterns.shape[1]):
        cells = others[pattern_of.ravel() == i]
        clim[:, cells] = _window_means(
            sums[:, cells],
            counts[:, cells],
            np.flatnonzero(patterns[:, i]),
            windows(patterns[:, i], half_window),
        )
    return clim


def apply_floor(clim: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """Return the climatology with values below `floor` raised to it; NaN stays NaN.

    Fine and coarse climatologies of a ratio must have the same floor, in the units of `clim`.
    """
    return np.maximum(clim, floor)


def _annual_basis(n_slots: int, harmonics: int) -> NDArray[np.float64]:
    """Constant, cosines and sines of the year at the middle of each slot, (n_slots, n_terms)."""
    angle = 2.0 * np.pi * (np.arange(n_slots) + 0.5) / n_slots
    waves = [wave(k * angle) for k in range(1, harmonics + 1) for wave in (np.cos, np.sin)]
    return np.stack([np.ones(n_slots), *waves], axis=1)


@numba.njit(nogil=True, cache=True)
def _fit_harmonics(
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    basis: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Weighted least squares by normal equations and Cholesky; NaN in cells that are not chosen.

    Cells side by side, as they lie in memory. The equations of the first one serve all that have
    its counts.
    """
    n_slots, n_terms = basis.shape
    n_cells = sums.shape[1]
    clim = np.zeros(sums.shape)
    solution = np.zeros((n_terms, n_cells))
    shared = np.ones(n_cells, dtype=np.bool_)
    first = int(np.argmax(chosen))
    for s in range(n_slots):
        for c in range(n_cells):
            shared[c] &= counts[s, c] == counts[s, first]
        for i in range(n_terms):
            for c in range(n_cells):
                # weight times slot mean is the slot's sum
                solution[i, c] += basis[s, i] * sums[s, c]
    common = _normal_factor(counts, first, basis)
    for c in range(n_cells):
        if chosen[c]:
            _substitute(common if shared[c] else _normal_factor(counts, c, basis), solution[:, c])
        else:
            solution[:, c] = np.nan
    for s in range(n_slots):
        for i in range(n_terms):
            for c in range(n_cells):
                clim[s, c] += basis[s, i] * solution[i, c]
    return clim


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _normal_factor(
    counts: NDArray[np.int64], cell: int, basis: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the lower Cholesky factor of a cell's normal equations.

    By hand, because LAPACK's order of summation is not ours to fix.
    """
    n_slots, n = basis.shape
    matrix = np.zeros((n, n))
    for s in range(n_slots):
        for i in range(n):
            for j in range(i + 1):
                matrix[i, j] += counts[s, cell] * basis[s, i] * basis[s, j]
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = np.sqrt(total) if i == j else total / matrix[j, j]
    return matrix


@numba.njit(nogil=True, cache=True)
def _substitute(factor: NDArray[np.float64], vector: NDArray[np.float64]) -> None:
    """Solve in place for the matrix that has this lower Cholesky factor."""
    n = vector.size
    for i in range(n):
        for k in range(i):
            vector[i] -= factor[i, k] * vector[k]
        vector[i] /= factor[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            vector[i] -= factor[k, i] * vector[k]
        vector[i] /= factor[i, i]


@numba.njit(nogil=True, cache=True)
def _window_means(
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    existing: NDArray[np.int64],
    window: NDArray[np.int32],
) -> NDArray[np.float64]:
    """Sum over count of each slot's window, (n_slots, cell)."""
    clim = np.empty(sums.shape)
    for s in range(window.shape[0]):
        for c in range(sums.shape[1]):
            total, count = 0.0, 0
            for k in range(window[s, 1]):
                slot = existing[(window[s, 0] + k) % existing.size]
                total += sums[slot, c]
                count += counts[slot, c]
            clim[s, c] = total / count
    return clim
