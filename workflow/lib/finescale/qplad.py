"""Stage `qplad`: quantile-preserving localised analogs, the daily product.

An adjusted coarse value has a rank among the values around it. The training day on which the
coarse reference had that rank gives what is fine in it: for every fine cell of the coarse cell,
its difference from the coarse reference (kind "+") or its ratio to it ("*").

    rank of the adjusted value .62        coarse reference, 31 days x 20 years, ascending
                       `-------------->   ... 1994-07-03 [.619]  2002-06-21 [.621] ...
    product = adjusted + (fine - coarse reference) on 2002-06-21

Their area mean over a coarse cell is nothing, so the product's is the adjusted value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from finescale import calendars, disaggregate, fields, regrid
from finescale.blocks import Tile
from finescale.calendars import Days
from finescale.disaggregate import Interpolation, limited, product_limits
from finescale.distributions import gather_blocks
from finescale.fields import Field
from finescale.job import Job
from finescale.quantiles import POSITIONS, Positions
from finescale.standardise import within
from finescale.store import Store
from finescale.variables import MM_PER_DAY, VARIABLES

SAME_RANK = 1e-3
"""[ranks] Rounding of a stored probability; what is nearer to half a rank counts as half."""


def run(
    work: Job,
    *,
    adjusted: Store,
    coarse: Store,
    reference: Store,
    climatology: Store,
    weights: Store,
    tasmax: Store | None = None,
    variable_id: str,
    train: tuple[str, str],
    half_window: int,
    wet_day: float,
    pr_ceiling: float,
    dtr_ceiling: float,
    positions: Positions = "weibull",
    calendar: str | None,
    attributes: dict[str, Any],
) -> None:
    """Write the daily product of one variable, (time, lat, lon) on the fine grid.

    Parameters
    ----------
    adjusted
        The GCM adjusted by QDM, with its ranks; for tasmin beside `tasmax`, its dtr.
    coarse, reference
        The reference on the GCM's grid and on its own.
    climatology
        Of `reference`: it says which fine cells belong to the product.
    weights
        From the coarse grid to the fine one, nearest: the coarse cell of each fine cell.
    tasmax
        The product of tasmax, from which a tasmin is made as tasmax - dtr: never above it.
    train
        First and last day that analogs are taken from.
    half_window, wet_day, pr_ceiling, dtr_ceiling
        As the config section `qplad` describes them.
    positions
        Plotting positions of the ranks, as `adjust` took them.
    calendar
        Convert the product's axis to this calendar; None keeps the GCM's.

    References
    ----------
    Gergel et al. (2024), doi:10.5194/gmd-17-191-2024.
    """
    daily, means, fine = Field(adjusted), Field(coarse), Field(reference)
    treated, is_ratio = daily.variable_id, VARIABLES[daily.variable_id].kind == "*"
    upper = None if tasmax is None else Field(tasmax)
    days = slice(*within(means.days, train, where=coarse.url))
    fine_days = slice(*within(fine.days, train, where=reference.url))
    low, high = product_limits(treated, pr_ceiling=pr_ceiling)
    high = dtr_ceiling if treated == "dtr" else high
    dry = wet_day * MM_PER_DAY if treated == "pr" else VARIABLES[treated].trace
    valid = adjusted.read("valid") == 1
    interpolation = Interpolation.between(weights, coarse=daily.grid, fine=fine.grid, valid=valid)

    def finish(
        tile: Tile, count: NDArray[np.int32]
    ) -> Callable[[NDArray[Any], Days, slice], NDArray[Any]]:
        local, lat, lon = regrid.localise(interpolation.matrix, tile.rows(fine.grid.shape[1]))
        series = means.series(days, lat, lon)
        analogs = choose(
            np.ascontiguousarray(series.T),
            adjusted.read("rank", (slice(None), lat, lon)).reshape(len(daily.days), -1),
            means.days[days],
            daily.days,
            half_window=half_window,
            positions=positions,
        )
        above = departures(
            fine.series(fine_days, tile.lat, tile.lon), series, local.indices,
            is_ratio=is_ratio, dry=dry,
        )  # fmt: skip
        index = disaggregate.product_axis(daily.days, calendar)[1]

        def finished(plain: NDArray[Any], _: Days, time: slice) -> NDArray[Any]:
            chosen = analogs[index[time]][:, local.indices]
            departure = np.take_along_axis(above, chosen, axis=0).reshape(plain.shape)
            value = plain * departure if is_ratio else plain + departure
            if treated == "pr":
                value = np.where(value < dry, 0.0, value)
            value = limited(value, (low, high), count)
            return value if upper is None else upper.read(time, tile.lat, tile.lon) - value

        return finished

    disaggregate.run(
        work,
        coarse=daily,
        interpolation=interpolation,
        mask=fields.complete(climatology, treated),
        fine=fine.grid,
        variable_id=variable_id,
        calendar=calendar,
        attributes=attributes,
        anomaly=lambda lat, lon: lambda block, days: block,
        finish=finish,
    )


def departures(
    fine: NDArray[np.float32],
    coarse: NDArray[np.float32],
    owner: NDArray[np.integer],
    *,
    is_ratio: bool,
    dry: float,
) -> NDArray[np.float32]:
    """Return `fine` less its coarse cell, or over it, (training day, fine cell).

    0 or 1 where a fine value is missing, or a coarse value of a ratio is below `dry`: such a day
    has no pattern.

    Parameters
    ----------
    fine : (training day, fine cell)
    coarse : (training day, coarse cell)
    owner : (fine cell,)
        The coarse cell that each fine cell lies in.
    """
    base = coarse[:, owner]
    if is_ratio:
        known = ~np.isnan(fine) & (base > 0) & (base >= dry)
        return np.divide(fine, base, out=np.ones_like(fine), where=known)
    return np.where(np.isnan(fine), np.float32(0), fine - base)


def choose(
    ref: NDArray[np.float32],
    rank: NDArray[np.float32],
    ref_days: Days,
    days: Days,
    *,
    half_window: int,
    positions: Positions,
) -> NDArray[np.int32]:
    """Return the training day of the same rank, (time, cell): an index into `ref_days`.

    The nearest rank, the lower of two equally near; of equal values the earlier day ranks lower.

    Parameters
    ----------
    ref : (cell, training day)
        NaN for no value: such a day is never chosen.
    rank : (time, cell)
        Probabilities of the values to place; 0 is chosen where they are NaN.
    half_window : int
        Days of the year, of those that exist, on either side.
    """
    slots = calendars.standard_slots(ref_days)
    filled = np.isin(np.arange(calendars.N_SLOTS), slots)
    windows = calendars.windows(filled, half_window)[calendars.reference_slots(days.calendar)]
    trained = gather_blocks(np.searchsorted(np.flatnonzero(filled), slots), int(filled.sum()))
    placed = gather_blocks(calendars.slots(days), calendars.n_slots(days.calendar))
    out = np.zeros((len(ref), len(days)), np.int32)
    _choose(
        ref, np.ascontiguousarray(rank.T), windows, trained.order, trained.bounds, placed.order,
        placed.bounds, *POSITIONS[positions], out,
    )  # fmt: skip
    return np.ascontiguousarray(out.T)


@njit(nogil=True, cache=True)
def _choose(
    ref: NDArray[np.float32],
    rank: NDArray[np.float32],
    windows: NDArray[np.int32],
    order: NDArray[np.int64],
    bounds: NDArray[np.int64],
    placed: NDArray[np.int64],
    placed_bounds: NDArray[np.int64],
    a: float,
    b: float,
    out: NDArray[np.int32],
) -> None:
    n_blocks = bounds.size - 1
    pool = np.empty(order.size, np.int64)
    for cell in range(ref.shape[0]):
        for slot in range(windows.shape[0]):
            times = placed[placed_bounds[slot] : placed_bounds[slot + 1]]
            if times.size == 0:
                continue
            n = 0
            for block in range(windows[slot, 0], windows[slot, 0] + windows[slot, 1]):
                p = block % n_blocks
                for i in range(bounds[p], bounds[p + 1]):
                    if not np.isnan(ref[cell, order[i]]):
                        pool[n] = order[i]
                        n += 1
            if n == 0:
                continue
            days = np.sort(pool[:n])  # by date, so that a stable sort breaks ties by it
            days = days[np.argsort(ref[cell][days], kind="mergesort")]
            for t in times:
                if not np.isnan(rank[cell, t]):
                    place = rank[cell, t] * (n + b) + a - 0.5 - SAME_RANK
                    out[cell, t] = days[min(max(int(np.ceil(place)), 1), n) - 1]
