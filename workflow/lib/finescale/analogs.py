r"""Stage `analogs`: the days of the reference that look most like each day of the model.

Per region, on the coarse grid, for variables that are chosen together. A large domain has regions
that overlap by half; what they say of a cell is blended with shares that fall to 0 at their edges:

    share  1 ----.     .--.     .----     Only two regions of an axis share a cell, and their
                  \   /    \   /          shares sum to one.
                   \ /      \ /
                    X        X
                   / \      / \
           0 -----'   '----'   '-----
             west                east

A matrix product of BLAS, whose last bits depend on shapes and threads, only says which days cannot
be among the best; those are found by distances that are summed in one order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from finescale import calendars, fields, regrid
from finescale.blocks import slabs
from finescale.calendars import Days
from finescale.errors import ContractError
from finescale.fields import Field
from finescale.grids import FULL_CIRCLE, Grid, band_height
from finescale.job import Job
from finescale.standardise import within
from finescale.store import Array, Contract, Piece, Store, coordinate
from finescale.variables import VARIABLES

Floats = NDArray[np.float64]

SLACK = 1e-11
"""[1] More than the rounding of a distance by BLAS, relative to the squares it is made of."""
DEPENDENT = 1e-10
"""[1] An analog that the better ones explain but for this part of its square gets no weight."""
MONTH_DAYS = Days.range("2000-01-01", "2000-12-31", "all_leap")


@dataclass(frozen=True)
class Axis:
    """Middles of the regions along one axis, `step` apart, each reaching as far to both sides."""

    first: float
    step: float
    n: int
    periodic: bool = False

    @classmethod
    def cover(cls, start: float, stop: float, size: float, *, periodic: bool = False) -> Self:
        """Return as few regions of at most `size` degrees as reach from `start` to `stop`."""
        length = stop - start
        n = max(int(np.ceil(2 * length / size - regrid.SNAP)) - (not periodic), 1)
        step = length / (n if periodic else n + 1)
        return cls(start + step, step, n, periodic)

    def touches(self, bnds: Floats) -> NDArray[np.bool_]:
        """Return which cells, (cell, 2) bounds, reach into each region, (region, cell)."""
        middles = self.first + self.step * np.arange(self.n)
        apart = np.abs(bnds.mean(axis=1) - middles[:, None])
        if self.periodic:
            apart = np.minimum(apart % FULL_CIRCLE, -apart % FULL_CIRCLE)
        width = bnds[:, 1] - bnds[:, 0]
        return apart < self.step + (0.5 - regrid.SNAP) * width

    def shares(self, x: Floats) -> Floats:
        """Return the share of each region in each place, (region, place); they sum to 1."""
        place = (x - self.first) / self.step
        place = place % self.n if self.periodic else np.clip(place, 0, self.n - 1)
        lower = np.minimum(place.astype(np.int64), self.n - 1)
        upper = (lower + 1) % self.n
        u = place - lower
        # Smooth like a cosine, of arithmetic that has the same bits on every machine.
        rise = u * u * (3.0 - 2.0 * u)
        found = np.zeros((self.n, x.size))
        every = np.arange(x.size)
        found[upper, every] = rise
        found[lower, every] += 1.0 - rise
        return found


@dataclass(frozen=True)
class Regions:
    """Overlapping boxes that cover a domain, numbered row by row."""

    lat: Axis
    lon: Axis

    def __len__(self) -> int:
        return self.lat.n * self.lon.n

    def shares(self, grid: Grid) -> tuple[Floats, Floats]:
        """Return the shares along both axes, (row, lat) and (column, lon), of a grid's centres.

        The share of a region in a cell is the product of the two.
        """
        return self.lat.shares(grid.lat), self.lon.shares(grid.lon)

    def cells(self, region: int, grid: Grid) -> NDArray[np.int64]:
        """Return the cells of a grid that reach into a region, flat."""
        row, column = divmod(region, self.lon.n)
        lat, lon = self.lat.touches(grid.lat_bnds), self.lon.touches(grid.lon_bnds)
        return np.flatnonzero(np.outer(lat[row], lon[column]))

    def bounds(self) -> Floats:
        """Return south, north, west and east of each region, (region, 4) [degrees]."""
        ends = [
            a.first + a.step * (np.arange(a.n)[:, None] + np.array([-1.0, 1.0]))
            for a in (self.lat, self.lon)
        ]
        row, column = np.divmod(np.arange(len(self)), self.lon.n)
        return np.concatenate([ends[0][row], ends[1][column]], axis=1)


def regions(grid: Grid, degrees: float) -> Regions:
    """Return the regions of a coarse grid: of at most `degrees`, half overlapping."""
    (south, north), (west, east) = (b[[0, -1], [0, 1]] for b in (grid.lat_bnds, grid.lon_bnds))
    return Regions(
        Axis.cover(south, north, degrees),
        Axis.cover(west, east, degrees, periodic=grid.periodic),
    )


def run(
    work: Job,
    *,
    variables: Sequence[str],
    train: tuple[str, str],
    n_analogs: int,
    day_window: int,
    exclude_days: int,
    ridge: float,
    region_degrees: float,
    **stores: Store,
) -> None:
    """Write the analogs of each day in each region, best first, and the weights of each variable.

    Parameters
    ----------
    variables
        Chosen together.
    train
        First and last day of the reference that may be an analog.
    n_analogs
        How many.
    day_window
        Days of the year on either side of the target's, of those that the reference has.
    exclude_days
        Days before and after its own date that are no analogs of a day; -1 allows it itself.
    ridge
        As `ridge_weights` takes it.
    region_degrees
        Largest region.
    stores
        `ref_<variable>`, the reference on the GCM's grid, and `adjusted_<variable>`.

    Raises
    ------
    ContractError
        Variables on different days, or fewer candidates than analogs.

    References
    ----------
    Abatzoglou & Brown (2012), doi:10.1002/joc.2312.
    """
    refs, sims = ([Field(stores[f"{role}_{v}"]) for v in variables] for role in ("ref", "adjusted"))
    for group in (refs, sims):
        _check_same_days(group)
    days, grid = sims[0].days, sims[0].grid
    start, stop = within(refs[0].days, train, where=refs[0].store.url)
    past = refs[0].days[start:stop]
    valid = np.all([sim.store.read("valid") == 1 for sim in sims], axis=0)
    nearest, _ = regrid.fill_nearest(valid, grid)
    covering = regions(grid, region_degrees)
    area = np.repeat(band_height(*grid.lat_bnds.T), grid.shape[1])
    writer = work.create(
        _declare(variables, days, n_analogs, len(past), covering, valid),
        {**sims[0].season, "train": list(train)},
    )

    def compute(task: slice) -> Iterator[Piece]:
        inside = covering.cells(task.start, grid)
        own = inside[valid.reshape(-1)[inside]]
        # A region without any valid cell looks at those its holes are filled from.
        cells = own if own.size else np.unique(nearest[inside])
        weight = area[cells] / area[cells].sum()
        patterns = [_patterns(ref, slice(start, stop), cells) for ref in refs]
        targets = [_patterns(sim, slice(None), cells) for sim in sims]
        index, distance = search(
            targets,
            patterns,
            days=days,
            past=past,
            area=weight,
            n_analogs=n_analogs,
            day_window=day_window,
            exclude_days=exclude_days,
            where=f"{work.output}: region {task.start}",
        )
        region = (task, slice(0, len(days)), slice(0, n_analogs))
        yield "analog", region, index[None].astype(np.int32)
        yield "distance", region, distance[None].astype(np.float32)
        for v, target, pattern in zip(variables, targets, patterns, strict=True):
            found = ridge_weights(target, pattern, index, weight, ridge, VARIABLES[v].kind == "+")
            yield f"weight_{v}", region, found[None]

    work.fill(writer, compute, slabs(len(covering), 1))


def search(
    targets: Sequence[Floats],
    patterns: Sequence[Floats],
    *,
    days: Days,
    past: Days,
    area: Floats,
    n_analogs: int,
    day_window: int,
    exclude_days: int,
    where: str,
) -> tuple[NDArray[np.int64], Floats]:
    """Return the best analogs of each day and their distances, (day, rank) both.

    The distance is the root of the area-weighted mean square over cells, of each variable divided
    by the standard deviation of its candidates around their mean pattern, summed over variables.
    Ties go to the earlier day. A day of `past` with a missing value is none.

    Parameters
    ----------
    targets, patterns : (day, cell), (past day, cell)
        Of each variable.
    days, past
        Their dates.
    area : (cell,)
        Weights that sum to 1.
    """
    whole = ~np.any([np.isnan(p).any(axis=1) for p in patterns], axis=0)
    slot, past_slot = calendars.standard_slots(days), calendars.standard_slots(past)
    filled = np.zeros(calendars.N_SLOTS, np.bool_)
    filled[past_slot] = True
    existing = np.flatnonzero(filled)
    windows = calendars.windows(filled, day_window)
    date, past_date = _dates(days, past)
    index = np.empty((len(days), n_analogs), dtype=np.int64)
    distance = np.empty(index.shape)
    for s in np.unique(slot):
        at = np.flatnonzero(slot == s)
        begin, length = windows[s]
        near = np.zeros(calendars.N_SLOTS, np.bool_)
        near[existing[(begin + np.arange(length)) % existing.size]] = True
        candidates = np.flatnonzero(near[past_slot] & whole)
        excluded = np.abs(date[at, None] - past_date[candidates]) <= exclude_days
        left = candidates.size - excluded.sum(axis=1)
        if left.min() < n_analogs:
            raise ContractError(
                f"{where} must have {n_analogs} candidates for "
                f"{days.isoformat(at[left.argmin()])}, found {left.min()} of {len(past)} training "
                "days; lengthen `train`, widen `day_window` or lower `n_analogs`"
            )
        x, y = _standardised([t[at] for t in targets], [p[candidates] for p in patterns], area)
        square, other = (np.einsum("ij,ij->i", a, a) for a in (x, y))
        rough = square[:, None] + other - 2.0 * (x @ y.T)
        rough[excluded] = np.inf
        limit = np.partition(rough, n_analogs - 1)[:, n_analogs - 1]
        limit += SLACK * (square + other.max())
        found, distance[at] = _best(x, y, rough, limit, n_analogs)
        index[at] = candidates[found]
    return index, distance


def _standardised(
    targets: Sequence[Floats], patterns: Sequence[Floats], area: Floats
) -> tuple[Floats, Floats]:
    """Features (day, variable x cell) whose squared differences sum to squared distances."""
    x, y = [], []
    for target, pattern in zip(targets, patterns, strict=True):
        mean = pattern.mean(axis=0)
        spread = float((area * ((pattern - mean) ** 2).mean(axis=0)).sum())
        scale = np.sqrt(area / (spread if spread > 0 else 1.0))
        x.append((target - mean) * scale)
        y.append((pattern - mean) * scale)
    return np.concatenate(x, axis=1), np.concatenate(y, axis=1)


def _dates(days: Days, past: Days) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the days of both axes whose difference is their distance [days].

    Where the calendars differ, each day is the standard one of its month and day; a day of 360
    that at its place in the year.
    """
    if days.calendar == past.calendar:
        return days.ordinal, past.ordinal
    slots = [calendars.standard_slots(d) for d in (days, past)]
    dates = [
        Days("standard", d.year, MONTH_DAYS.month[s], MONTH_DAYS.day[s]).ordinal
        for d, s in zip((days, past), slots, strict=True)
    ]
    return dates[0], dates[1]


@njit(nogil=True, cache=True)
def _best(x, y, rough, limit, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Rows of `y` (candidate, feature) nearest to each row of `x`, and distances, (row, n) both.

    Those whose `rough` squared distance (row, candidate) is above the `limit` (row,) are not.
    """
    index = np.full((len(x), n), -1, np.int64)
    square = np.full((len(x), n), np.inf)
    for t in range(len(x)):
        for k in range(len(y)):
            if rough[t, k] <= limit[t]:
                total = 0.0
                for f in range(x.shape[1]):
                    total += (x[t, f] - y[k, f]) ** 2
                # Among equals the one that came first, which is the earlier, stays.
                place = n
                while place > 0 and total < square[t, place - 1]:
                    place -= 1
                for p in range(n - 1, place, -1):
                    square[t, p], index[t, p] = square[t, p - 1], index[t, p - 1]
                if place < n:
                    square[t, place], index[t, place] = total, k
    return index, np.sqrt(square)


@njit(nogil=True, cache=True, error_model="numpy")
def ridge_weights(target, patterns, index, area, ridge, is_shift):  # type: ignore[no-untyped-def]
    """Return the weights of the analogs that make each target pattern, (day, rank) float64.

    Ridge regression; a target of zeros alone has no weights of kind "*". Where the zero of the
    scale means nothing (`is_shift`, kind "+"), it is of the departures from the best analog, so
    that the weights sum to 1: in kelvin, the penalty would otherwise outweigh all that
    distinguishes the analogs.

    Parameters
    ----------
    target, patterns : (day, cell), (past day, cell) float64
    index : (day, rank) int64
        The analogs, best first.
    area : (cell,) float64
    ridge : float
        Penalty, in mean diagonals of the Gram matrix.
    is_shift : bool
    """
    first = 1 if is_shift else 0
    m = index.shape[1] - first
    weights = np.zeros(index.shape)
    gram, base = np.empty((m, m)), np.zeros(target.shape[1])
    for t in range(len(target)):
        best = patterns[index[t, 0]]
        if is_shift:
            base[:] = best
        elif not target[t].any():
            continue
        # What is to be added to the weights of the best analog alone: exactly nothing if it is the
        # target, however near to singular the matrix.
        change, trace = weights[t, first:], 0.0
        for i in range(m):
            a = patterns[index[t, i + first]]
            for c in range(base.size):
                change[i] += area[c] * (a[c] - base[c]) * (target[t, c] - best[c])
            for j in range(i + 1):
                b = patterns[index[t, j + first]]
                total = 0.0
                for c in range(base.size):
                    total += area[c] * (a[c] - base[c]) * (b[c] - base[c])
                gram[i, j] = total
            trace += gram[i, i]
        penalty = ridge * trace / max(m, 1)
        for i in range(m):
            gram[i, i] += penalty
        if not is_shift:
            change[0] -= penalty
        _solve(gram, change)
        weights[t, 0] += 1.0 - (change.sum() if is_shift else 0.0)
    return weights


@njit(nogil=True, cache=True, error_model="numpy")
def _solve(matrix, vector):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Solve in place for a symmetric `matrix` given by its lower triangle, by Cholesky.

    An unknown that depends on those before it is 0.
    """
    n = vector.size
    for i in range(n):
        least = DEPENDENT * matrix[i, i]
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i == j:
                matrix[i, i] = np.sqrt(total) if total > least else 0.0
            else:
                matrix[i, j] = total / matrix[j, j] if matrix[j, j] > 0.0 else 0.0
        for k in range(i):
            vector[i] -= matrix[i, k] * vector[k]
        vector[i] = vector[i] / matrix[i, i] if matrix[i, i] > 0.0 else 0.0
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            vector[i] -= matrix[k, i] * vector[k]
        vector[i] = vector[i] / matrix[i, i] if matrix[i, i] > 0.0 else 0.0


def _patterns(field: Field, time: slice, cells: NDArray[np.integer]) -> Floats:
    """Values of some cells, (time, cell)."""
    row, column = np.divmod(cells, field.grid.shape[1])
    lat, lon = (slice(int(i.min()), int(i.max()) + 1) for i in (row, column))
    block = field.read(time, lat, lon)
    return block[:, row - lat.start, column - lon.start].astype(np.float64)


def _declare(
    variables: Sequence[str],
    days: Days,
    n_analogs: int,
    n_past: int,
    covering: Regions,
    valid: NDArray[np.bool_],
) -> dict[str, Array]:
    """Return the arrays of the store."""
    shape = (len(covering), len(days), n_analogs)

    def ranked(dtype: str, contract: Contract, long_name: str) -> Array:
        attributes = {"long_name": long_name, "units": "1"}
        dims = ("region", "time", "rank")
        return Array(dims, shape, (1, *shape[1:]), dtype, attributes, contract)

    positive = Contract((0.0, np.inf))
    place = Contract((0, n_past - 1))
    return {
        "analog": ranked("<i4", place, "analog, counted from the first training day"),
        "distance": ranked("<f4", positive, "distance of the standardised patterns"),
        **{
            f"weight_{v}": ranked("<f8", Contract(), f"weight of the analog's {v}")
            for v in variables
        },
        "valid": fields.flag(valid, "coarse cell has values of all variables", "no yes"),
        "region_bnds": coordinate(
            ("region", "edge"),
            covering.bounds(),
            long_name="south, north, west, east",
            units="degrees",
        ),
        **fields.time_axis(days),
    }


def _check_same_days(group: Sequence[Field]) -> None:
    for other in group[1:]:
        if not np.array_equal(group[0].days.ordinal, other.days.ordinal):
            raise ContractError(
                f"analogs: variables chosen together must have the same days, but "
                f"{group[0].store.url} has {len(group[0].days)} and {other.store.url} "
                f"{len(other.days)}; give all variables the same `period`"
            )
