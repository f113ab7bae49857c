"""Standard-normal noise, correlated in space and time, that belongs to place and date alone.

White noise on a lattice is a hash of node and date (`jitter`); a day of the field is a weighted
sum of it over the nodes around and the days before. No state, no recursion, no stored field:
tiles, threads, the period that is asked for and the order of days cannot change a bit, and nothing
repeats.

    time    weights exp(-k / length_days) of the days before: the correlation of AR(1),
            exp(-lag / length_days)
    space   Gaussian weights on a lattice as wide as their standard deviation, length_km / 2: the
            correlation exp(-(d / length_km)^2)

Each cell's weights are scaled to unit variance exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.spatial import KDTree
from scipy.special import ndtri

from finescale import seasonal
from finescale.calendars import N_SLOTS, Days, standard_slots
from finescale.errors import ContractError
from finescale.fields import TIME_UNITS
from finescale.grids import Grid
from finescale.jitter import uniform

Floats = NDArray[np.float64]

EARTH_RADIUS = 6371.0  # [km]
REACH = 3.5  # [standard deviations] The weight there is 0.002 of the largest.
FORGOTTEN = 1e-4  # [1] weight of the oldest day
LONGEST = 20_000.0  # [km] half the Earth's circumference


@dataclass(frozen=True, eq=False)
class Noise:
    """A standard-normal field over the cells of a box of a grid, rows of longitudes.

    Parameters
    ----------
    grid
        The whole grid.
    lat, lon
        Rows and columns of the box.
    seed, variable
        Fields of another seed or variable are independent.
    length_km, length_days
        At these distances the correlation is 1/e; 0 days is white noise in time.

    Raises
    ------
    ContractError
        A length is not positive (not finite, below 0 days).
    """

    grid: Grid
    lat: slice
    lon: slice
    seed: int
    variable: str
    length_km: float
    length_days: float
    _nodes: tuple[Floats, Floats] = field(init=False)
    _weights: tuple[NDArray[np.int64], NDArray[np.int64], Floats] = field(init=False)
    _memory: Floats = field(init=False)

    def __post_init__(self) -> None:
        if not (0 < self.length_km <= LONGEST and 0 <= self.length_days < np.inf):
            raise ContractError(
                f"noise of {self.variable}: the correlation lengths must be above 0 and up to "
                f"{LONGEST:g} km, and at least 0 days, found {self.length_km} km and "
                f"{self.length_days} days; correct `length_km` and `length_days`"
            )
        lat, lon = self.grid.lat[self.lat], self.grid.lon[self.lon]
        nodes, weights = _spread(lat, lon, self.length_km / 2)
        object.__setattr__(self, "_nodes", nodes)
        object.__setattr__(self, "_weights", weights)
        n_days = int(np.ceil(-np.log(FORGOTTEN) * self.length_days))
        memory = np.exp(-np.arange(n_days + 1) / max(self.length_days, 1e-9))
        object.__setattr__(self, "_memory", memory / np.sqrt((memory**2).sum()))

    def draw(self, days: Days) -> Floats:
        """Return the field of any days, (time, cell) float64."""
        if len(days) == 0:
            return np.empty((0, self._weights[0].size - 1))
        first = days.ordinal.min() - self._memory.size + 1
        span = np.arange(first, days.ordinal.max() + 1)
        axis = Days.from_cf(span, TIME_UNITS, days.calendar)
        white = ndtri(uniform(self.seed, f"{self.variable} noise", *self._nodes, axis))
        return _filter(white, days.ordinal - first, self._memory, *self._weights)


def estimate(values: Floats, days: Days, lat: Floats, lon: Floats) -> tuple[float, float]:
    """Return the correlation lengths of daily series, (km, days), rounded to 1 km and 0.01 days.

    Of their anomalies from the day-of-year climatology, standardised by the day-of-year standard
    deviation. In space: the length whose exp(-(d / length)^2) fits the correlations of all pairs
    of cells by least squares; in time: that of the mean correlation of a day with the next.

    Parameters
    ----------
    values : (time, cell)
        NaN is skipped.
    lat, lon : (cell,)
        Centres [degrees].

    Raises
    ------
    ContractError
        There are fewer than two cells or two consecutive days with values.
    """
    anomalies = _standardise(values, standard_slots(days))
    pairs = np.triu_indices(lat.size, 1)
    rho = _pair_correlations(anomalies, *pairs)
    points = _unit_vectors(lat, lon)
    chord = np.sqrt(((points[pairs[0]] - points[pairs[1]]) ** 2).sum(axis=1))
    distance = 2 * EARTH_RADIUS * np.arcsin(np.minimum(chord / 2, 1))
    known = np.isfinite(rho) & (distance > 0)
    follows = np.flatnonzero(np.diff(days.ordinal) == 1)
    lag_one = _lagged_correlation(anomalies, follows)
    if not known.any() or not np.isfinite(lag_one):
        raise ContractError(
            f"noise: correlation lengths need at least two cells and two consecutive days with "
            f"values, found {lat.size} cells and {len(days)} days; give `length_km`, `length_days`"
        )
    distance, rho = distance[known], rho[known]

    def misfit(log_length: float) -> float:
        return float(((rho - np.exp(-((distance * np.exp(-log_length)) ** 2))) ** 2).sum())

    bounds = np.log([distance.min() / 2, LONGEST])
    found = minimize_scalar(misfit, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    tau = -1 / np.log(lag_one) if lag_one > 0 else 0.0
    return float(max(round(np.exp(found.x)), 1)), round(float(tau), 2)


def _standardise(values: Floats, slots: NDArray[np.int16]) -> Floats:
    """Return anomalies over their day-of-year standard deviation, (time, cell)."""
    mean = seasonal.smooth(*seasonal.day_of_year_sums(values, slots, N_SLOTS))
    anomalies = np.asarray(values - mean[slots], dtype=np.float64)
    sums, counts = seasonal.day_of_year_sums(anomalies**2, slots, N_SLOTS)
    variance = seasonal.smooth(sums, counts, harmonics=1)[slots]
    safe = variance > 0
    return np.where(safe, anomalies / np.sqrt(np.where(safe, variance, 1)), np.nan)


def _unit_vectors(lat: Floats, lon: Floats) -> Floats:
    phi, lam = np.deg2rad(lat), np.deg2rad(lon)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def _spread(
    lat: Floats, lon: Floats, sigma: float
) -> tuple[tuple[Floats, Floats], tuple[NDArray[np.int64], NDArray[np.int64], Floats]]:
    """Return the lattice nodes (lat, lon) around cells, and weights (indptr, indices, data).

    Rows of nodes lie `sigma` [km] apart from the equator on; so do, at most, the nodes of a row.
    """
    step = np.rad2deg(sigma / EARTH_RADIUS)
    reach = REACH * step * 1.001
    rows = np.arange(np.floor((lat.min() - reach) / step), np.ceil((lat.max() + reach) / step) + 1)
    rows = rows[np.abs(rows * step) <= 90]
    numbers = np.ceil(360 * np.cos(np.deg2rad(rows * step)) / step).astype(np.int64)
    numbers = np.maximum(numbers, 1)
    node_lat = np.repeat(rows * step, numbers)
    node_lon = np.concatenate([np.arange(n) * (360 / n) for n in numbers])
    nodes = _unit_vectors(node_lat, node_lon)
    cells = _unit_vectors(*(a.reshape(-1) for a in np.meshgrid(lat, lon, indexing="ij")))
    radius = 2 * np.sin(min(np.deg2rad(reach) / 2, np.pi / 2))
    near = KDTree(nodes).query_ball_point(cells, radius, return_sorted=True)
    counts = np.array([len(found) for found in near])
    node = np.concatenate(near).astype(np.int64)
    cell = np.repeat(np.arange(len(cells)), counts)
    chord = np.sqrt(((cells[cell] - nodes[node]) ** 2).sum(axis=1))
    weight = np.exp(-0.5 * (2 * np.arcsin(np.minimum(chord / 2, 1)) * EARTH_RADIUS / sigma) ** 2)
    kept = weight >= np.exp(-0.5 * REACH**2)
    cell, node, weight = cell[kept], node[kept], weight[kept]
    indptr = np.searchsorted(cell, np.arange(len(cells) + 1))
    weight /= np.sqrt(np.repeat(np.add.reduceat(weight**2, indptr[:-1]), np.diff(indptr)))
    used, indices = np.unique(node, return_inverse=True)
    return (node_lat[used], node_lon[used]), (indptr, indices.reshape(-1), weight)


@njit(nogil=True, cache=True)
def _filter(
    white: Floats,
    rows: NDArray[np.int64],
    memory: Floats,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int64],
    weights: Floats,
) -> Floats:
    """Return the sums over days before and nodes around, each in a fixed order."""
    out = np.empty((rows.size, indptr.size - 1))
    red = np.empty(white.shape[1])
    for t in range(rows.size):
        red[:] = 0.0
        for k in range(memory.size):
            for n in range(red.size):
                red[n] += memory[k] * white[rows[t] - k, n]
        for c in range(out.shape[1]):
            total = 0.0
            for i in range(indptr[c], indptr[c + 1]):
                total += weights[i] * red[indices[i]]
            out[t, c] = total
    return out


@njit(nogil=True, cache=True)
def _pair_correlations(
    series: Floats, first: NDArray[np.int64], second: NDArray[np.int64]
) -> Floats:
    """Return the correlations of pairs of standardised series about 0; NaN without common days.

    By hand, because the order of BLAS's summation is not ours to fix.
    """
    columns = np.ascontiguousarray(series.T)
    out = np.empty(first.size)
    for p in range(first.size):
        x, y = columns[first[p]], columns[second[p]]
        xx, yy, xy = 0.0, 0.0, 0.0
        for t in range(x.size):
            if np.isfinite(x[t]) and np.isfinite(y[t]):
                xx += x[t] * x[t]
                yy += y[t] * y[t]
                xy += x[t] * y[t]
        out[p] = xy / np.sqrt(xx * yy) if xx * yy > 0 else np.nan
    return out


@njit(nogil=True, cache=True)
def _lagged_correlation(series: Floats, first: NDArray[np.int64]) -> float:
    """Return the correlation of the days `first` with the next ones over all cells; or NaN."""
    xx, yy, xy = 0.0, 0.0, 0.0
    for t in first:
        for c in range(series.shape[1]):
            x, y = series[t, c], series[t + 1, c]
            if np.isfinite(x) and np.isfinite(y):
                xx += x * x
                yy += y * y
                xy += x * y
    return xy / np.sqrt(xx * yy) if xx * yy > 0 else np.nan
