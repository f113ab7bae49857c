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
    clim = np.full(sums.shape, np.nan)
    filled = counts > 0
    n_filled = filled.sum(axis=0)
    fitted = np.flatnonzero(n_filled >= MIN_HARMONIC_SLOTS)
    clim[:, fitted] = _fit_harmonics(
        sums[:, fitted], counts[:, fitted], _annual_basis(sums.shape[0], harmonics)
    )
    others = np.flatnonzero((n_filled > 0) & (n_filled < MIN_HARMONIC_SLOTS))
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
    sums: NDArray[np.float64], counts: NDArray[np.int64], basis: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted least squares by normal equations and Cholesky, each cell on its own."""
    n_slots, n_terms = basis.shape
    clim = np.empty(sums.shape)
    normal = np.empty((n_terms, n_terms))
    solution = np.empty(n_terms)
    for c in range(sums.shape[1]):
        normal[:] = 0.0
        solution[:] = 0.0
        for s in range(n_slots):
            if counts[s, c] == 0:
                continue
            for i in range(n_terms):
                # weight times slot mean is the slot's sum
                solution[i] += basis[s, i] * sums[s, c]
                for j in range(i + 1):
                    normal[i, j] += counts[s, c] * basis[s, i] * basis[s, j]
        _solve_cholesky(normal, solution)
        for s in range(n_slots):
            value = 0.0
            for i in range(n_terms):
                value += basis[s, i] * solution[i]
            clim[s, c] = value
    return clim


@numba.njit(nogil=True, cache=True)
def _solve_cholesky(matrix: NDArray[np.float64], vector: NDArray[np.float64]) -> None:
    """Solve in place for a symmetric positive definite `matrix` given by its lower triangle.

    By hand, because LAPACK's order of summation is not ours to fix.
    """
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
