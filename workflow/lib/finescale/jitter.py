"""Seeded noise for dry days: a number that depends on place, date and variable alone.

A counter-based generator has no state: the noise of one cell and day is a hash of what it belongs
to. Tiles, threads, restarts and the role of a series (`ref` or `hist`) cannot change it.
"""

import hashlib

import numpy as np
from numba import njit
from numpy.typing import NDArray

from finescale.calendars import Days

Floats = NDArray[np.floating]

# splitmix64's increment and finaliser: Steele et al. (2014), doi:10.1145/2660193.2660195.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
# 52 bits, so that neither end of the interval (k + 1/2) / 2^52 rounds to 0 or 1.
_TOP_BITS = np.uint64(12)


def uniform(
    seed: int, variable: str, lat: NDArray[np.floating], lon: NDArray[np.floating], days: Days
) -> NDArray[np.float64]:
    """Return reproducible random numbers, uniform in the open interval (0, 1).

    Parameters
    ----------
    seed : int
    variable : str
        Name; variables have independent numbers.
    lat, lon : (cell,)
        Centres [degrees]; told apart to 1e-4, longitudes whatever their convention.
    days : Days
        The dates; a date has the same number on every axis that holds it.

    Returns
    -------
    (time, cell) float64
    """
    digest = hashlib.sha256(f"{seed} {variable}".encode()).digest()
    key = np.uint64(int.from_bytes(digest[:8], "little"))
    row = np.rint(1e4 * np.asarray(lat, np.float64)).astype(np.int64)
    column = np.rint(1e4 * (np.asarray(lon, np.float64) % 360)).astype(np.int64) % 3_600_000
    date = 10_000 * days.year.astype(np.int64) + 100 * days.month.astype(np.int64) + days.day
    return _draw(key, row.astype(np.uint64), column.astype(np.uint64), date.astype(np.uint64))


def jitter_dry(
    values: Floats, *, threshold: float, u: NDArray[np.float64], lowest: float = 0.0
) -> Floats:
    """Return `values` with those below `threshold` replaced by `threshold` * `u`.

    Parameters
    ----------
    values : any shape, float32 or float64
        Amounts; NaN is kept.
    threshold : float
        The least wet amount, > 0, in the unit of `values`.
    u : shape of `values`, float64
        From `uniform`.
    lowest : float
        Part of `threshold` that `u` = 0 stands for.

    Returns
    -------
    shape and dtype of `values`
        What was dry is above 0 and below `threshold`, also after rounding.
    """
    limit = values.dtype.type(threshold)
    noise = (limit * (lowest + (1 - lowest) * u)).astype(values.dtype)
    noise = np.clip(noise, np.finfo(values.dtype).tiny, np.nextafter(limit, values.dtype.type(0)))
    return np.where(values < limit, noise, values)


def restore_dry(values: Floats, *, threshold: float) -> Floats:
    """Return `values` with those below `threshold` set to 0; NaN is kept."""
    return np.where(values < values.dtype.type(threshold), values.dtype.type(0), values)


@njit(nogil=True, cache=True)
def _mix(h: np.uint64) -> np.uint64:
    """Bijection of 64 bits in which each bit of the input flips half of the output's."""
    h += _GOLDEN
    h = (h ^ (h >> _SHIFTS[0])) * _MULTIPLIERS[0]
    h = (h ^ (h >> _SHIFTS[1])) * _MULTIPLIERS[1]
    return h ^ (h >> _SHIFTS[2])


@njit(nogil=True, cache=True)
def _draw(
    key: np.uint64, row: NDArray[np.uint64], column: NDArray[np.uint64], date: NDArray[np.uint64]
) -> NDArray[np.float64]:
    place = np.empty_like(row)
    for c in range(row.size):
        place[c] = _mix(_mix(key ^ row[c]) ^ column[c])
    out = np.empty((date.size, row.size))
    for t in range(date.size):
        # Hashed before it meets the place: neighbouring dates and places differ in few bits.
        day = _mix(date[t])
        for c in range(row.size):
            out[t, c] = (np.float64(_mix(place[c] ^ day) >> _TOP_BITS) + 0.5) * 2.0**-52
    return out
