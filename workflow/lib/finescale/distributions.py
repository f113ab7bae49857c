"""Empirical distributions in sliding windows, and the maps between them: the compiled kernels.

A window holds the values of some days of the year, of all years. Two kinds slide here:

`Training` holds its window sorted. The whole series is sorted once; a window is then what is left
of a sorted parent when the values of all other days are passed over, which needs no comparison of
values and no branch. The parents, of some tens and of a few more days, serve several windows:

    series    |================= year ==================|
    parent    .....|======= window + 72 days =======|....
    parent    .........|= window + 12 days =|............
    window    ............|== 31 days ==|................

`Own` holds its window year by year and unsorted, because a window that also slides over the years
serves one value only: to count the values below it is then cheaper than to keep them sorted.

All of this is in one file because numba's cache does not notice a change in another one.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.floating]

QM, DQM, QDM, RANK = 0, 1, 2, 3
CONSTANT, LINEAR, PARAMETRIC = 0, 1, 2

# Days that the parents reach beyond the window; above them is the whole year.
AHEAD = (0, 72, 12)
# Bits of a digit of the radix sort: its 2048 counters stay in the nearest cache.
DIGIT = 11
# No distribution is fitted to fewer values.
TAIL_NODES = 10
# A spread below this fraction of the values is the rounding of float32, not climate.
RESOLUTION = 1e-6
# Weibull shapes outside are not told apart: coefficients of variation of 3e5 and 1e-3.
SHAPES = (0.05, 1000.0)


class Mapping(NamedTuple):
    """How to map.

    method : QM, DQM, QDM or RANK
    a, b : plotting positions (i - a)/(n + b)
    tails : CONSTANT, LINEAR or PARAMETRIC
    is_ratio : whether the kind is "*"
    floor : tails are fitted to the values above it
    trace, max_ratio : guards of a ratio, see `guarded_ratio`
    """

    method: int
    a: float
    b: float
    tails: int
    is_ratio: bool
    floor: float
    trace: float
    max_ratio: float


class Blocks(NamedTuple):
    """The entries of a time axis gathered by slot: block p is order[bounds[p]:bounds[p + 1]]."""

    order: NDArray[np.int64]
    bounds: NDArray[np.int64]


class Training(NamedTuple):
    """Room for a training series of one cell and for the window that slides over it.

    A block is all days of one slot that exists. The blocks share out a circle of 65536 phases,
    which integers of 16 bits go round by themselves.

    phase_of : (time,) uint16, the first phase of each day's block
    floor : moments are of the values above it
    values, phases : (3, time), ascending values and their phases: the series and two parents
    bits : `values` as integers
    spans : (4, 3) int64, first block, number of blocks and of values: of each row, of the window
    nodes : (time,), the window's values, ascending
    moments : (block, 3) float64, number, mean and squared deviations of the values above `floor`
    """

    phase_of: NDArray[np.uint16]
    floor: float
    values: Floats
    phases: NDArray[np.uint16]
    bits: NDArray[np.signedinteger]
    spans: NDArray[np.int64]
    nodes: Floats
    moments: NDArray[np.float64]


class Own(NamedTuple):
    """Room for a series of one cell, by block and year, and for its window of days.

    n_blocks : int
    block_of, year_of : (time,) int64, block and year of each day
    spans : (year, 2) int64, first and end year of the window of each year
    table : (year, block + days), NaN for no value; the first blocks follow the last once more
    sums : (2, 1 + year, 1 + block + days) float64, number and sum of what precedes in `table`
    held : (year x days,), the window's values, a year after the other
    window : (2,) int64, its first block and number of blocks
    """

    n_blocks: int
    block_of: NDArray[np.int64]
    year_of: NDArray[np.int64]
    spans: NDArray[np.int64]
    table: Floats
    sums: NDArray[np.float64]
    held: Floats
    window: NDArray[np.int64]


def training_room(
    slots: NDArray[np.integer], present: NDArray[np.integer], *, floor: float, dtype: np.dtype
) -> Training:
    """Return room for one series after the other, without values.

    Parameters
    ----------
    slots : (time,) int
        Day-of-year slots.
    present : (block,) int
        Ascending; the slots that exist.
    floor : float
        Moments are of the values above it.
    dtype : float32 or float64
        Of the series.
    """
    values = np.empty((len(AHEAD), slots.size), dtype)
    return Training(
        (np.searchsorted(present, slots) * 65536 // present.size).astype(np.uint16),
        floor,
        values,
        np.empty(values.shape, np.uint16),
        values.view(f"i{values.itemsize}"),
        np.zeros((len(AHEAD) + 1, 3), np.int64),
        np.empty(slots.size, dtype),
        np.zeros((present.size, 3)),
    )


def own_room(
    slots: NDArray[np.integer],
    present: NDArray[np.integer],
    years: NDArray[np.integer],
    *,
    span: int | None,
    days: int,
    dtype: np.dtype,
) -> Own:
    """Return room for one series after the other, without values.

    Parameters
    ----------
    slots, present, dtype
        As for `training_room`.
    years : (time,) int
        Each slot at most once in each.
    span : int or None
        Odd number of years in a window: centred, near the ends of a run of consecutive years the
        nearest full one, in a shorter run the run. None: all years.
    days : int
        Blocks in the longest window.
    """
    distinct, year_of = np.unique(years, return_inverse=True)
    spans = np.tile(np.array([0, distinct.size]), (distinct.size, 1))
    if span is not None:
        for run in np.split(np.arange(distinct.size), np.flatnonzero(np.diff(distinct) > 1) + 1):
            length = min(span, run.size)
            first = np.clip(run - span // 2, run[0], run[-1] + 1 - length)
            spans[run] = np.stack([first, first + length], axis=1)
    table = np.empty((distinct.size, present.size + days), dtype)
    return Own(
        present.size,
        np.searchsorted(present, slots),
        year_of,
        spans,
        table,
        np.zeros((2, 1 + distinct.size, 1 + present.size + days)),
        np.empty(distinct.size * days, dtype),
        np.zeros(2, np.int64),
    )


def gather_blocks(slots: NDArray[np.integer], n_slots: int) -> Blocks:
    """Return the entries of a time axis, (time,) slots, gathered by slot."""
    order = np.argsort(slots, kind="stable")
    return Blocks(order, np.searchsorted(slots[order], np.arange(n_slots + 1)))


@njit(nogil=True, cache=True)
def map_cells(
    ref: Floats,
    hist: Floats,
    sim: Floats,
    ref_training: Training,
    ref_windows: NDArray[np.int32],
    hist_training: Training,
    hist_windows: NDArray[np.int32],
    own: Own,
    own_windows: NDArray[np.int32],
    sim_blocks: Blocks,
    mapping: Mapping,
    out: Floats,
) -> None:
    """Fill `out`, (cell, time), with the map of `sim`; NaN where a window has too few values.

    Windows are (slot, 2), start and length, as positions among the slots that exist.
    """
    for cell in range(sim.shape[0]):
        train(ref_training, ref[cell])
        train(hist_training, hist[cell])
        if mapping.method != QM:
            gather(own, sim[cell])
        for slot in range(hist_windows.shape[0]):
            times = sim_blocks.order[sim_blocks.bounds[slot] : sim_blocks.bounds[slot + 1]]
            if times.size == 0:
                continue
            n_ref = slide(ref_training, ref_windows[slot, 0], ref_windows[slot, 1]).size
            n_hist = slide(hist_training, hist_windows[slot, 0], hist_windows[slot, 1]).size
            if n_ref < 2 or n_hist < 2:
                continue
            if mapping.method != QM:
                hold(own, own_windows[slot, 0], own_windows[slot, 1])
            if mapping.method in (QDM, RANK):
                _map_ranks(ref_training, hist_training, own, sim[cell], times, mapping, out[cell])
            else:
                _map_values(ref_training, hist_training, own, sim[cell], times, mapping, out[cell])


@njit(nogil=True, cache=True)
def _map_values(
    ref: Training,
    hist: Training,
    own: Own,
    sim: Floats,
    times: NDArray[np.int64],
    mapping: Mapping,
    out: Floats,
) -> None:
    """QM or DQM of one slot."""
    ref_nodes, nodes = window(ref), window(hist)
    lowest, highest = np.float64(nodes[0]), np.float64(nodes[-1])
    room = np.empty((3, times.size))
    xs, changes, inside = room[0], room[1], room[2]
    for q in range(times.size):
        xs[q] = sim[times[q]]
    if mapping.method == DQM:
        _remove_changes(mapping, nodes, own, times, xs, changes)
    for q in range(times.size):
        inside[q] = min(max(xs[q], lowest), highest)
    below = np.empty(times.size, np.uint32)
    locate(nodes, inside, below)
    lower = upper = (False, np.nan)
    for q in range(times.size):
        x = xs[q]
        if np.isnan(x):
            continue
        tau = (rank(nodes, inside[q], below[q]) - mapping.a) / (nodes.size + mapping.b)
        y = inverse(ref_nodes, tau, mapping.a, mapping.b)
        # Few windows meet values beyond their ends, and a Weibull shape costs a microsecond.
        if x < lowest:
            if np.isnan(lower[1]):
                lower = tail(mapping, False, ref, hist)
            y = _beyond(x, lowest, y, lower)
        elif x > highest:
            if np.isnan(upper[1]):
                upper = tail(mapping, True, ref, hist)
            y = _beyond(x, highest, y, upper)
        if mapping.method == DQM:
            y = y * changes[q] if mapping.is_ratio else y + changes[q]
        out[times[q]] = max(y, 0.0) if mapping.is_ratio else y


@njit(nogil=True, cache=True)
def _remove_changes(
    mapping: Mapping,
    nodes: Floats,
    own: Own,
    times: NDArray[np.int64],
    xs: NDArray[np.float64],
    changes: NDArray[np.float64],
) -> None:
    """Take the change of the mean since training out of `xs`, and say which in `changes`."""
    trained = 0.0
    for node in nodes:
        trained += node
    trained /= nodes.size
    for q in range(times.size):
        mean = own_mean(own, own.year_of[times[q]])
        if mapping.is_ratio:
            changes[q] = guarded_ratio(mean, trained, mapping.trace, mapping.max_ratio)
            # Where all is dry there is nothing to scale.
            xs[q] /= changes[q] if changes[q] > 0.0 else 1.0
        else:
            changes[q] = mean - trained
            xs[q] -= changes[q]


@njit(nogil=True, cache=True)
def _map_ranks(
    ref: Training,
    hist: Training,
    own: Own,
    sim: Floats,
    times: NDArray[np.int64],
    mapping: Mapping,
    out: Floats,
) -> None:
    """QDM of one slot, or its ranks."""
    ref_nodes, nodes, a, b = window(ref), window(hist), mapping.a, mapping.b
    fewest = min(ref_nodes.size, nodes.size)
    for t in times:
        x, year = np.float64(sim[t]), own.year_of[t]
        number = own_number(own, year)
        if np.isnan(x) or number < 2:
            continue
        tau = (own_rank(own, year, sim[t]) - a) / (number + b)
        if mapping.method == RANK:
            out[t] = tau
            continue
        if mapping.tails == CONSTANT or 1.0 <= tau * (fewest + b) + a <= fewest:
            y, base = inverse(ref_nodes, tau, a, b), inverse(nodes, tau, a, b)
        else:
            y, base = quantile(mapping, ref, tau), quantile(mapping, hist, tau)
        if mapping.is_ratio:
            ratio = guarded_ratio(x, base, mapping.trace, mapping.max_ratio)
            out[t] = max(y * ratio, 0.0)
        else:
            out[t] = x + (y - base)


@njit(nogil=True, cache=True)
def _beyond(x: float, x_end: float, y_end: float, course: tuple[bool, float]) -> float:
    is_power, c = course
    if is_power:
        return y_end * (max(x, 0.0) / x_end) ** c
    return y_end + c * (x - x_end)


@njit(nogil=True, cache=True)
def ecdf(nodes: Floats, x: float, a: float, b: float) -> float:
    """Return the probability of `x`: linear between nodes, the mid-rank at ties.

    Parameters
    ----------
    nodes : (n,)
        Ascending, n > 0.
    x : float
        Not NaN; beyond the nodes it takes the probability of the end node.
    a, b : float
        Plotting positions (i - a)/(n + b), see `POSITIONS`.
    """
    x = min(max(x, nodes[0]), nodes[-1])
    return (rank(nodes, x, int(np.searchsorted(nodes, x))) - a) / (nodes.size + b)


@njit(nogil=True, cache=True)
def rank(nodes: Floats, x: float, below: int) -> float:
    """Return the rank of `x`, from 1: linear between nodes, the middle one at ties.

    Parameters
    ----------
    nodes : (n,)
        Ascending.
    x : float
        Within the nodes.
    below : int
        How many nodes are less than `x`.
    """
    above = np.float64(nodes[below])
    if above > x:
        last = np.float64(nodes[below - 1])
        return below + (x - last) / (above - last)
    if below + 1 == nodes.size or nodes[below + 1] > x:
        return below + 1.0
    return 0.5 * (below + 1 + np.searchsorted(nodes, x, side="right"))


@njit(nogil=True, cache=True)
def inverse(nodes: Floats, tau: float, a: float, b: float) -> float:
    """Return the value at probability `tau`: linear between nodes, the end node beyond them.

    `nodes`, `a` and `b` as for `ecdf`.
    """
    n = nodes.size
    place = tau * (n + b) + a - 1.0
    if place <= 0.0:
        return np.float64(nodes[0])
    if place >= n - 1:
        return np.float64(nodes[n - 1])
    i = int(place)
    low, high = np.float64(nodes[i]), np.float64(nodes[i + 1])
    # Rounding must not lift a value over the next node, or the map would not be monotone.
    return min(low + (place - i) * (high - low), high)


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
def end_slope(nodes: Floats, upper: bool, b: float) -> float:
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
def normal_quantile(tau: float) -> float:
    """Return the value at probability `tau`, in (0, 1), of the standard normal distribution."""
    p = min(tau, 1.0 - tau)
    low, high = -40.0, 0.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if 0.5 * math.erfc(-middle * math.sqrt(0.5)) < p:
            low = middle
        else:
            high = middle
    return high if tau < 0.5 else -high


@njit(nogil=True, cache=True)
def guarded_ratio(x: float, base: float, trace: float, max_ratio: float) -> float:
    """Return x / base, `base` at least half a trace; at most `max_ratio` where it is below ten."""
    base = max(base, 0.5 * trace)
    return min(x / base, max_ratio) if base < 10.0 * trace else x / base


@njit(nogil=True, cache=True)
def tail(mapping: Mapping, upper: bool, ref: Training, hist: Training) -> tuple[bool, float]:
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
    ref, hist : Training
        With their windows.
    """
    nodes = window(hist)
    end = np.float64(nodes[-1] if upper else nodes[0])
    if mapping.tails == PARAMETRIC:
        (ref_mean, ref_sigma), (hist_mean, hist_sigma) = spread(ref), spread(hist)
        if ref_sigma > 0.0 and hist_sigma > 0.0:
            if upper or not mapping.is_ratio:
                return False, ref_sigma / hist_sigma
            if end > 0.0:
                k_hist = weibull_shape(hist_sigma / hist_mean)
                return True, k_hist / weibull_shape(ref_sigma / ref_mean)
    elif mapping.tails == LINEAR:
        ref_slope = end_slope(window(ref), upper, mapping.b)
        hist_slope = end_slope(nodes, upper, mapping.b)
        if ref_slope > 0.0 and hist_slope > 0.0:
            return False, ref_slope / hist_slope
    return bool(mapping.is_ratio and end > (mapping.floor if upper else 0.0)), 1.0


@njit(nogil=True, cache=True)
def quantile(mapping: Mapping, training: Training, tau: float) -> float:
    """Return the value at probability `tau` of a window, by its tail beyond the end nodes."""
    nodes = window(training)
    n, a, b = nodes.size, mapping.a, mapping.b
    y = inverse(nodes, tau, a, b)
    place = tau * (n + b) + a
    if mapping.tails == CONSTANT or 1.0 <= place <= n:
        return y
    upper = place > n
    end = ((n if upper else 1) - a) / (n + b)
    if mapping.tails == LINEAR:
        return y + end_slope(nodes, upper, b) * (tau - end)
    mean, sigma = spread(training)
    if sigma == 0.0:
        return y
    if not mapping.is_ratio:
        return y + sigma * (normal_quantile(tau) - normal_quantile(end))
    if upper:
        scale = sigma * math.sqrt(6.0) / math.pi
        return y - scale * (math.log(-math.log(tau)) - math.log(-math.log(end)))
    return y * (math.log1p(-tau) / math.log1p(-end)) ** (1.0 / weibull_shape(sigma / mean))


@njit(nogil=True, cache=True)
def locate(nodes: Floats, xs: NDArray[np.float64], below: NDArray[np.uint32]) -> None:
    """Write how many nodes are less than each of `xs`, which are not above the last node.

    The searches go in step and without a branch, so that several are under way at once.
    """
    below[:] = 0
    n = nodes.size
    while n > 1:
        half = n >> 1
        probes = nodes[half - 1 :]
        for q in range(xs.size):
            below[q] += half if probes[below[q]] < xs[q] else 0
        n -= half
    for q in range(xs.size):
        below[q] += nodes[below[q]] < xs[q]


@njit(nogil=True, cache=True)
def train(training: Training, series: Floats) -> None:
    """Sort the values of one series, (time,) with NaN for missing, into `training`."""
    n = _sort(training, series)
    moments, n_blocks = training.moments, training.moments.shape[0]
    training.spans[:] = 0
    # Whichever block it starts from, the year goes all round.
    training.spans[0, 1], training.spans[0, 2] = 2 * n_blocks, n
    moments[:] = 0.0
    values, phases = training.values[0, :n], training.phases[0, :n]
    wet = np.searchsorted(values, training.floor, side="right")
    for i in range(wet, n):
        p = _block(phases[i], n_blocks)
        moments[p, 0] += 1.0
        moments[p, 1] += values[i]
    for p in range(n_blocks):
        if moments[p, 0] > 0.0:
            moments[p, 1] /= moments[p, 0]
    for i in range(wet, n):
        p = _block(phases[i], n_blocks)
        deviation = values[i] - moments[p, 1]
        moments[p, 2] += deviation * deviation


@njit(nogil=True, cache=True)
def slide(training: Training, start: int, length: int) -> Floats:
    """Return the values of blocks start ... start + length - 1 (cyclic), ascending.

    The window of `training` moves there: what it returned before is overwritten.
    """
    spans, n_blocks = training.spans, training.moments.shape[0]
    for level in range(1, len(AHEAD)):
        ahead = (start - spans[level, 0]) % n_blocks
        if ahead + length > spans[level, 1]:
            room = spans[level - 1, 1] - (start - spans[level - 1, 0]) % n_blocks
            spans[level, 0], spans[level, 1] = start, min(length + AHEAD[level], room)
            _narrow(training, level)
    spans[-1, 0], spans[-1, 1] = start, length
    n_parent = spans[-2, 2]
    values, phases = training.values[-1, :n_parent], training.phases[-1, :n_parent]
    first, reach = _arc(start, length, n_blocks)
    nodes, n = training.nodes, 0
    for i in range(n_parent):
        nodes[n] = values[i]
        n += int(np.uint16(phases[i] - first) < reach)
    spans[-1, 2] = n
    return nodes[:n]


@njit(nogil=True, cache=True)
def window(training: Training) -> Floats:
    """Return what `slide` returned last."""
    return training.nodes[: training.spans[-1, 2]]


@njit(nogil=True, cache=True)
def spread(training: Training) -> tuple[float, float]:
    """Return mean and standard deviation of the window's values above the floor of `training`.

    Squares within and between blocks are added up, so that nothing cancels and nothing drifts.
    The deviation is 0 where there are fewer than ten values or they differ by rounding only.
    """
    moments = training.moments
    start, length, n_blocks = training.spans[-1, 0], training.spans[-1, 1], moments.shape[0]
    number, total, squares = 0.0, 0.0, 0.0
    for block in range(start, start + length):
        p = block - n_blocks if block >= n_blocks else block
        number += moments[p, 0]
        total += moments[p, 0] * moments[p, 1]
    if number < TAIL_NODES:
        return 0.0, 0.0
    mean = total / number
    for block in range(start, start + length):
        p = block - n_blocks if block >= n_blocks else block
        squares += moments[p, 2] + moments[p, 0] * (moments[p, 1] - mean) ** 2
    deviation = math.sqrt(squares / number)
    return mean, deviation if deviation > RESOLUTION * abs(mean) else 0.0


@njit(nogil=True, cache=True)
def _arc(start: int, length: int, n_blocks: int) -> tuple[np.uint16, np.uint32]:
    """First phase and number of phases of some blocks."""
    first = (start << 16) // n_blocks
    return np.uint16(first), np.uint32(((start + length) << 16) // n_blocks - first)


@njit(nogil=True, cache=True)
def _block(phase: np.uint16, n_blocks: int) -> int:
    return (int(phase) * n_blocks + 65535) >> 16


@njit(nogil=True, cache=True)
def _narrow(training: Training, level: int) -> None:
    """Fill a row with the values of its blocks out of the row above."""
    spans, n_blocks = training.spans, training.moments.shape[0]
    n_parent = spans[level - 1, 2]
    values, phases = training.values[level - 1, :n_parent], training.phases[level - 1, :n_parent]
    out_values, out_phases = training.values[level], training.phases[level]
    first, reach = _arc(spans[level, 0], spans[level, 1], n_blocks)
    n = 0
    for i in range(n_parent):
        # Every value is written, and written over unless it was wanted.
        out_values[n] = values[i]
        out_phases[n] = phases[i]
        n += int(np.uint16(phases[i] - first) < reach)
    spans[level, 2] = n


@njit(nogil=True, cache=True)
def _sort(training: Training, series: Floats) -> int:
    """Fill the first row with the values of `series`; how many these are.

    A radix sort from the lowest digit up; a negative number's bits are turned over.
    """
    bits, phases = training.bits, training.phases
    passes = 8 * bits.itemsize // DIGIT + 1
    n = 0
    for t in range(series.size):
        if not np.isnan(series[t]):
            training.values[passes % 2, n] = series[t]
            phases[passes % 2, n] = training.phase_of[t]
            n += 1
    for done in range(passes):
        source, target = (passes - done) % 2, (passes - done + 1) % 2
        from_bits, from_phases = bits[source, :n], phases[source, :n]
        to_bits, to_phases = bits[target, :n], phases[target, :n]
        shift, positive = done * DIGIT, 1 << (DIGIT - 1) if done == passes - 1 else 0
        places = np.zeros(1 << DIGIT, np.uint32)
        for i in range(n):
            places[_digit(from_bits[i], shift, positive)] += 1
        before = 0
        for d in range(places.size):
            places[d], before = before, before + places[d]
        for i in range(n):
            digit = _digit(from_bits[i], shift, positive)
            to_bits[places[digit]] = from_bits[i]
            to_phases[places[digit]] = from_phases[i]
            places[digit] += 1
    return n


@njit(nogil=True, cache=True)
def _digit(bits: int, shift: int, positive: int) -> np.uint64:
    turned = bits ^ (bits >> 63)
    return np.uint64((turned >> shift) & ((1 << DIGIT) - 1) | (positive if bits >= 0 else 0))


@njit(nogil=True, cache=True)
def gather(own: Own, series: Floats) -> None:
    """Enter one series, (time,) with NaN for missing, into `own`."""
    table, sums = own.table, own.sums
    table[:] = np.nan
    for t in range(series.size):
        table[own.year_of[t], own.block_of[t]] = series[t]
    for year in range(table.shape[0]):
        number, total = 0.0, 0.0
        for p in range(table.shape[1]):
            if p >= own.n_blocks:
                table[year, p] = table[year, p - own.n_blocks]
            if not np.isnan(table[year, p]):
                number += 1.0
                total += table[year, p]
            sums[0, year + 1, p + 1] = sums[0, year, p + 1] + number
            sums[1, year + 1, p + 1] = sums[1, year, p + 1] + total


@njit(nogil=True, cache=True)
def hold(own: Own, start: int, length: int) -> None:
    """Move the window of `own` to blocks start ... start + length - 1 (cyclic)."""
    own.window[0], own.window[1] = start, length
    for year in range(own.table.shape[0]):
        row = own.table[year, start : start + length]
        held = own.held[year * length : (year + 1) * length]
        for day in range(length):
            held[day] = row[day]


@njit(nogil=True, cache=True)
def own_rank(own: Own, year: int, x: np.floating) -> float:
    """Return the mid-rank, from 1, of `x` among the values in the window of a year: one of them."""
    length = own.window[1]
    held = own.held[own.spans[year, 0] * length : own.spans[year, 1] * length]
    # The rank is (below + not above + 1) / 2. Of 32 bits, twice as many are counted at once.
    twice = np.int32(1)
    for i in range(held.size):
        twice = np.int32(twice + (held[i] < x) + (held[i] <= x))
    return 0.5 * twice


@njit(nogil=True, cache=True)
def own_number(own: Own, year: int) -> float:
    """Return the number of values in the window of a year."""
    return _total(own, 0, year)


@njit(nogil=True, cache=True)
def own_mean(own: Own, year: int) -> float:
    """Return the mean of the values in the window of a year; NaN of none."""
    number = _total(own, 0, year)
    return _total(own, 1, year) / number if number > 0.0 else np.nan


@njit(nogil=True, cache=True)
def _total(own: Own, which: int, year: int) -> float:
    sums, first, end = own.sums[which], own.spans[year, 0], own.spans[year, 1]
    left, right = own.window[0], own.window[0] + own.window[1]
    return (sums[end, right] - sums[first, right]) - (sums[end, left] - sums[first, left])
