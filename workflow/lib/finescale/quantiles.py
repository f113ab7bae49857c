"""Quantile mapping: exact empirical distributions in sliding day-of-year windows.

A distribution is its n order statistics, the i-th at probability (i - a)/(n + b), joined by
lines. A tie is a vertical step, of which F takes the middle:

      F |         /       Beside a tie F and its inverse still undo each other, so hist = ref
        |       /         returns every input, not only the values of the training series.
        |      |
        |      |  <- tau
        |     /
        +------------ x

Every slot's values are sorted once; from slot to slot the window then drops the sorted values of
the day that leaves and merges those of the day that enters, instead of sorting 366 windows.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from finescale import calendars
from finescale.errors import ConfigError, ContractError

Floats = NDArray[np.floating]
Kind = Literal["+", "*"]
Positions = Literal["weibull", "cunnane", "hazen", "type7"]
Tails = Literal["constant", "linear", "parametric"]

# a and b of (i - a)/(n + b): Hyndman & Fan (1996), doi:10.1080/00031305.1996.10473566.
POSITIONS = {
    "weibull": (0.0, 1.0),
    "cunnane": (0.4, 0.2),
    "hazen": (0.5, 0.0),
    "type7": (1.0, -1.0),
}

CONSTANT, LINEAR, PARAMETRIC = 0, 1, 2
TAILS = {"constant": CONSTANT, "linear": LINEAR, "parametric": PARAMETRIC}

# The line of a tail goes through so many nodes, and no distribution is fitted to fewer values.
TAIL_NODES = 10
# A spread below this fraction of the values is the rounding of float32, not climate.
RESOLUTION = 1e-6
# Weibull shapes outside are not told apart: coefficients of variation of 3e5 and 1e-3.
SHAPES = (0.05, 1000.0)


class Blocks(NamedTuple):
    """The entries of a time axis gathered by slot: block p is order[bounds[p]:bounds[p + 1]]."""

    order: NDArray[np.int64]
    bounds: NDArray[np.int64]


class Mapping(NamedTuple):
    """How to map.

    a, b : plotting positions (i - a)/(n + b)
    tails : one of the values of `TAILS`
    is_ratio : whether the kind is "*"
    floor : tails are fitted to the values above it
    """

    a: float
    b: float
    tails: int
    is_ratio: bool
    floor: float


class Training(NamedTuple):
    """A training series of one cell, sorted by block, and the window that slides over it.

    values : (time,) float64; block p is values[bounds[p] : bounds[p] + counts[p]], ascending
    bounds, counts : (block + 1,), (block,) int64
    moments : (block, 3) float64, number, mean and squared deviations of the values above a floor
    nodes : (2, time) float64, the window's values, ascending, and room for the next window
    held : (4,) int64, first block, end block, number of values and row in `nodes` of the window
    """

    values: NDArray[np.float64]
    bounds: NDArray[np.int64]
    counts: NDArray[np.int64]
    moments: NDArray[np.float64]
    nodes: NDArray[np.float64]
    held: NDArray[np.int64]


def quantile_map(
    ref: Floats,
    hist: Floats,
    sim: Floats,
    *,
    ref_slots: NDArray[np.integer],
    hist_slots: NDArray[np.integer],
    sim_slots: NDArray[np.integer],
    calendar: str,
    half_window: int = 15,
    positions: Positions = "weibull",
    tails: Tails = "parametric",
    kind: Kind = "+",
    wet_threshold: float = 0.0,
) -> Floats:
    """Return `sim` mapped by F_ref^-1(F_hist(x)), day of year by day of year.

    Parameters
    ----------
    ref, hist, sim : (cell, time) float32 or float64
        Training reference, training model and the series to map, in one unit; NaN is missing.
    ref_slots, hist_slots, sim_slots : (time,) int
        Day-of-year slots, 0-based: of 366 for `ref`, of n_slots(calendar) for the others.
    calendar : str
        Calendar of `hist` and `sim`.
    half_window : int
        Slots that exist on either side of the window's centre.
    positions : str
        Plotting positions of the nodes, see `POSITIONS`.
    tails : str
        The map below x0 and above xn, the end nodes of `hist`, from y0 = F_ref^-1(F_hist(x0)).
        "constant": the offset (kind "*": factor) of the end node. "linear": the ratio of the
        slopes of the least-squares lines, value against probability, through the last ten nodes
        of each. "parametric": normal distributions; for kind "*" zero-bounded Weibull below and
        Gumbel above; fitted by moments to all (kind "*": wet) values of the window and shifted
        or scaled to meet the end node. Where there is nothing to fit: as "constant".
    kind : "+" or "*"
        "*" never returns less than 0.
    wet_threshold : float
        Kind "*": values above it are wet; no factor is taken from an upper node that is dry.

    Returns
    -------
    (cell, time), dtype of `sim`
        Finite for finite `sim`, except where a window holds fewer than two valid values: NaN.

    Raises
    ------
    ConfigError
        For a name that is no option.
    ContractError
        If shapes or slots do not fit each other.

    References
    ----------
    Thrasher et al. (2012), doi:10.5194/hess-16-3309-2012.
    """
    for name, value, options in (
        ("positions", positions, list(POSITIONS)),
        ("tails", tails, list(TAILS)),
        ("kind", kind, ["+", "*"]),
    ):
        if value not in options:
            raise ConfigError(f"quantile mapping: `{name}` must be one of {options}, not {value!r}")
    n_slots = calendars.n_slots(calendar)
    _check_series("ref", ref, ref_slots, cells=sim.shape[0], n_slots=calendars.N_SLOTS)
    _check_series("hist", hist, hist_slots, cells=sim.shape[0], n_slots=n_slots)
    _check_series("sim", sim, sim_slots, cells=sim.shape[0], n_slots=n_slots)
    ref_blocks, ref_windows = _training_blocks(ref_slots, calendars.N_SLOTS, half_window)
    hist_blocks, hist_windows = _training_blocks(hist_slots, n_slots, half_window)
    is_ratio = kind == "*"
    mapping = Mapping(
        *POSITIONS[positions], TAILS[tails], is_ratio, wet_threshold if is_ratio else -np.inf
    )
    # One dtype for all keeps the number of compiled kernels at two.
    dtype = np.result_type(ref, hist, sim, np.float32)
    out = np.full(sim.shape, np.nan, dtype)
    _map_cells(
        np.ascontiguousarray(ref, dtype),
        np.ascontiguousarray(hist, dtype),
        np.ascontiguousarray(sim, dtype),
        ref_blocks,
        ref_windows[calendars.reference_slots(calendar)],
        hist_blocks,
        hist_windows,
        gather_blocks(sim_slots, np.arange(n_slots)),
        mapping,
        out,
    )
    return out.astype(sim.dtype, copy=False)


def gather_blocks(slots: NDArray[np.integer], present: NDArray[np.integer]) -> Blocks:
    """Return the entries of a time axis gathered by slot, one block for each of `present`.

    Parameters
    ----------
    slots : (time,) int
    present : (block,) int
        Ascending; holds every slot that occurs in `slots`.
    """
    order = np.argsort(slots, kind="stable")
    bounds = np.append(np.searchsorted(slots[order], present), slots.size)
    return Blocks(order.astype(np.int64), bounds.astype(np.int64))


@njit(nogil=True, cache=True)
def ecdf(nodes: NDArray[np.float64], x: float, a: float, b: float) -> float:
    """Return the probability of `x`: linear between nodes, the mid-rank at ties.

    Parameters
    ----------
    nodes : (n,) float64
        Ascending, n > 0.
    x : float
        Not NaN; beyond the nodes it takes the probability of the end node.
    a, b : float
        Plotting positions (i - a)/(n + b), see `POSITIONS`.
    """
    n = nodes.size
    x = min(max(x, nodes[0]), nodes[n - 1])
    below = np.searchsorted(nodes, x)
    if nodes[below] > x:
        rank = below + (x - nodes[below - 1]) / (nodes[below] - nodes[below - 1])
    elif below + 1 == n or nodes[below + 1] > x:
        rank = below + 1.0
    else:
        rank = 0.5 * (below + 1 + np.searchsorted(nodes, x, side="right"))
    return (rank - a) / (n + b)


@njit(nogil=True, cache=True)
def inverse(nodes: NDArray[np.float64], tau: float, a: float, b: float) -> float:
    """Return the value at probability `tau`: linear between nodes, the end node beyond them.

    `nodes`, `a` and `b` as for `ecdf`.
    """
    n = nodes.size
    place = tau * (n + b) + a - 1.0
    if place <= 0.0:
        return nodes[0]
    if place >= n - 1:
        return nodes[n - 1]
    i = int(place)
    # Rounding must not lift a value over the next node, or the map would not be monotone.
    return min(nodes[i] + (place - i) * (nodes[i + 1] - nodes[i]), nodes[i + 1])


@njit(nogil=True, cache=True)
def weibull_shape(variation: float) -> float:
    """Return the shape k of the Weibull distribution with this coefficient of variation.

    The root of variation^2 = Gamma(1 + 2/k) / Gamma(1 + 1/k)^2 - 1, within `SHAPES`.
    """
    target = math.log1p(variation * variation)
    low, high = math.log(SHAPES[0]), math.log(SHAPES[1])
    for _ in range(45):
        middle = 0.5 * (low + high)
        scale = math.exp(-middle)
        if math.lgamma(1.0 + 2.0 * scale) - 2.0 * math.lgamma(1.0 + scale) > target:
            low = middle
        else:
            high = middle
    return math.exp(0.5 * (low + high))


@njit(nogil=True, cache=True)
def end_slope(nodes: NDArray[np.float64], upper: bool, b: float) -> float:
    """Return d value / d probability of the least-squares line through the ten end nodes.

    0 where these nodes do not differ. `nodes` and `b` as for `ecdf`.
    """
    n = nodes.size
    m = min(n, TAIL_NODES)
    first = n - m if upper else 0
    covariance = 0.0
    for i in range(m):
        covariance += (i - 0.5 * (m - 1)) * nodes[first + i]
    per_rank = 12.0 * covariance / (m * (m * m - 1.0))
    if per_rank * (m - 1) <= RESOLUTION * abs(nodes[n - 1 if upper else 0]):
        return 0.0
    return per_rank * (n + b)


@njit(nogil=True, cache=True)
def train(series: Floats, blocks: Blocks, floor: float) -> Training:
    """Return the sorted blocks of one series and their moments, with an empty window.

    Parameters
    ----------
    series : (time,)
        NaN is missing.
    blocks : Blocks
    floor : float
        Moments are of the values above it.
    """
    n_blocks = blocks.bounds.size - 1
    values = np.empty(series.size, np.float64)
    counts = np.zeros(n_blocks, np.int64)
    moments = np.zeros((n_blocks, 3))
    for p in range(n_blocks):
        first = blocks.bounds[p]
        last = first
        for t in blocks.order[first : blocks.bounds[p + 1]]:
            if not np.isnan(series[t]):
                values[last] = series[t]
                last += 1
        values[first:last].sort()
        counts[p] = last - first
        above = values[first:last]
        above = above[np.searchsorted(above, floor, side="right") :]
        if above.size > 0:
            mean = above.mean()
            moments[p, 0], moments[p, 1] = above.size, mean
            moments[p, 2] = ((above - mean) ** 2).sum()
    nodes = np.empty((2, series.size))
    return Training(values, blocks.bounds, counts, moments, nodes, np.zeros(4, np.int64))


@njit(nogil=True, cache=True)
def slide(training: Training, start: int, length: int) -> NDArray[np.float64]:
    """Return the values of blocks start ... start + length - 1 (cyclic), ascending.

    The window of `training` moves there: what it returned before is overwritten.
    """
    n_blocks = training.counts.size
    held = training.held
    start = held[0] + (start - held[0]) % n_blocks
    end = start + length
    if start >= held[1] or end < held[1]:
        held[0], held[1], held[2] = start, start, 0
    n, row = held[2], held[3]
    steps_out, steps_in = start - held[0], end - held[1]
    for step in range(max(steps_out, steps_in)):
        leaving = _block(training, held[0] + step, step < steps_out)
        entering = _block(training, held[1] + step, step < steps_in)
        n = _exchange(training.nodes[row, :n], leaving, entering, training.nodes[1 - row])
        row = 1 - row
    held[0], held[1], held[2], held[3] = start % n_blocks, start % n_blocks + length, n, row
    return training.nodes[row, :n]


@njit(nogil=True, cache=True)
def spread(training: Training, start: int, length: int) -> tuple[float, float]:
    """Return mean and standard deviation of a window's values above the floor of `train`.

    Squares within and between blocks are added up, so that nothing cancels and nothing drifts.
    The deviation is 0 where there are fewer than ten values or they differ by rounding only.
    """
    moments = training.moments
    number, total, squares = 0.0, 0.0, 0.0
    for p in range(start, start + length):
        p %= moments.shape[0]
        number += moments[p, 0]
        total += moments[p, 0] * moments[p, 1]
    if number < TAIL_NODES:
        return 0.0, 0.0
    mean = total / number
    for p in range(start, start + length):
        p %= moments.shape[0]
        squares += moments[p, 2] + moments[p, 0] * (moments[p, 1] - mean) ** 2
    deviation = math.sqrt(squares / number)
    return mean, deviation if deviation > RESOLUTION * abs(mean) else 0.0


@njit(nogil=True, cache=True)
def tail(
    mapping: Mapping,
    upper: bool,
    ref: NDArray[np.float64],
    hist: NDArray[np.float64],
    ref_spread: tuple[float, float],
    hist_spread: tuple[float, float],
) -> tuple[bool, float]:
    """Return `is_power` and `c` of the map beyond an end node of `hist`, x0 -> y0.

        y = y0 (x / x0)^c  if is_power,  else  y = y0 + c (x - x0)

    Two normal or two Gumbel distributions that share the probability at x0 and y0 give the line
    with c = sigma_ref / sigma_hist; two Weibull distributions, each scaled to its node, give the
    power with c = k_hist / k_ref, because -log(1 - tau) = (x / scale)^k.

    Parameters
    ----------
    mapping : Mapping
    upper : bool
        Which end.
    ref, hist : (n,) float64
        Nodes.
    ref_spread, hist_spread : (float, float)
        From `spread`.
    """
    end = hist[hist.size - 1] if upper else hist[0]
    if mapping.tails == PARAMETRIC and ref_spread[1] > 0.0 and hist_spread[1] > 0.0:
        if upper or not mapping.is_ratio:
            return False, ref_spread[1] / hist_spread[1]
        if end > 0.0:
            k_hist = weibull_shape(hist_spread[1] / hist_spread[0])
            return True, k_hist / weibull_shape(ref_spread[1] / ref_spread[0])
    elif mapping.tails == LINEAR:
        ref_slope, hist_slope = end_slope(ref, upper, mapping.b), end_slope(hist, upper, mapping.b)
        if ref_slope > 0.0 and hist_slope > 0.0:
            return False, ref_slope / hist_slope
    return mapping.is_ratio and end > (mapping.floor if upper else 0.0), 1.0


@njit(nogil=True, cache=True)
def _block(training: Training, p: int, wanted: bool) -> NDArray[np.float64]:
    """Cyclic block p, or no values."""
    p %= training.counts.size
    first = training.bounds[p]
    return training.values[first : first + (training.counts[p] if wanted else 0)]


@njit(nogil=True, cache=True)
def _exchange(
    nodes: NDArray[np.float64],
    leaving: NDArray[np.float64],
    entering: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    """Write `nodes` without `leaving` and with `entering`, all ascending; how many these are."""
    i, j, k, n = 0, 0, 0, 0
    while j < leaving.size or k < entering.size:
        is_leaving = k == entering.size or (j < leaving.size and leaving[j] <= entering[k])
        x = leaving[j] if is_leaving else entering[k]
        while i < nodes.size and nodes[i] < x:
            out[n] = nodes[i]
            i += 1
            n += 1
        if is_leaving:
            i += 1
            j += 1
        else:
            out[n] = x
            n += 1
            k += 1
    while i < nodes.size:
        out[n] = nodes[i]
        i += 1
        n += 1
    return n


@njit(nogil=True, cache=True)
def _map_cells(
    ref: Floats,
    hist: Floats,
    sim: Floats,
    ref_blocks: Blocks,
    ref_windows: NDArray[np.int32],
    hist_blocks: Blocks,
    hist_windows: NDArray[np.int32],
    sim_blocks: Blocks,
    mapping: Mapping,
    out: Floats,
) -> None:
    for cell in range(sim.shape[0]):
        ref_training = train(ref[cell], ref_blocks, mapping.floor)
        hist_training = train(hist[cell], hist_blocks, mapping.floor)
        for slot in range(hist_windows.shape[0]):
            times = sim_blocks.order[sim_blocks.bounds[slot] : sim_blocks.bounds[slot + 1]]
            if times.size > 0:
                _map_slot(
                    ref_training,
                    ref_windows[slot],
                    hist_training,
                    hist_windows[slot],
                    sim[cell],
                    times,
                    mapping,
                    out[cell],
                )


@njit(nogil=True, cache=True)
def _map_slot(
    ref_training: Training,
    ref_window: NDArray[np.int32],
    hist_training: Training,
    hist_window: NDArray[np.int32],
    sim: Floats,
    times: NDArray[np.int64],
    mapping: Mapping,
    out: Floats,
) -> None:
    ref = slide(ref_training, ref_window[0], ref_window[1])
    hist = slide(hist_training, hist_window[0], hist_window[1])
    if ref.size < 2 or hist.size < 2:
        return
    ref_spread = spread(ref_training, ref_window[0], ref_window[1])
    hist_spread = spread(hist_training, hist_window[0], hist_window[1])
    lowest, highest = hist[0], hist[hist.size - 1]
    lower = upper = (False, np.nan)
    for t in times:
        x = np.float64(sim[t])
        if np.isnan(x):
            continue
        y = inverse(ref, ecdf(hist, x, mapping.a, mapping.b), mapping.a, mapping.b)
        # Few windows meet values beyond their ends, and a Weibull shape costs a microsecond.
        if x < lowest:
            if np.isnan(lower[1]):
                lower = tail(mapping, False, ref, hist, ref_spread, hist_spread)
            y = _beyond(x, lowest, y, lower)
        elif x > highest:
            if np.isnan(upper[1]):
                upper = tail(mapping, True, ref, hist, ref_spread, hist_spread)
            y = _beyond(x, highest, y, upper)
        out[t] = max(y, 0.0) if mapping.is_ratio else y


@njit(nogil=True, cache=True)
def _beyond(x: float, x_end: float, y_end: float, course: tuple[bool, float]) -> float:
    is_power, c = course
    if is_power:
        return y_end * (max(x, 0.0) / x_end) ** c
    return y_end + c * (x - x_end)


def _training_blocks(
    slots: NDArray[np.integer], n_slots: int, half_window: int
) -> tuple[Blocks, NDArray[np.int32]]:
    filled = np.zeros(n_slots, np.bool_)
    filled[slots] = True
    return gather_blocks(slots, np.flatnonzero(filled)), calendars.windows(filled, half_window)


def _check_series(
    name: str, series: Floats, slots: NDArray[np.integer], *, cells: int, n_slots: int
) -> None:
    if series.shape != (cells, slots.size):
        raise ContractError(
            f"quantile mapping: `{name}` must be (cell, time) = {(cells, slots.size)}, the cells "
            f"of `sim` by its own slots, found {series.shape}; pass all three on one grid"
        )
    if slots.size and (slots.min() < 0 or slots.max() >= n_slots):
        raise ContractError(
            f"quantile mapping: slots of `{name}` must be in 0-{n_slots - 1}, found {slots.min()}-"
            f"{slots.max()}; take them from calendars.slots in the calendar of the series"
        )
    if name != "sim" and slots.size == 0:
        raise ContractError(
            f"quantile mapping: `{name}` has no days; choose a training period the data cover"
        )
