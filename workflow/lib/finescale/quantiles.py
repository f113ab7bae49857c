"""Quantile mapping: exact empirical distributions in sliding day-of-year windows.

A distribution is its n order statistics, the i-th at probability (i - a)/(n + b), joined by
lines. A tie is a vertical step, of which F takes the middle:

      F |         /       Beside a tie F and its inverse still undo each other, so hist = ref
        |       /         returns every input, not only the values of the training series.
        |      |
        |      |  <- tau
        |     /
        +------------ x

One family of maps, slot of the year by slot of the year; F_sim is of the value's own window, which
also slides over the years:

    QM      F_ref^-1(F_hist(x))
    DQM     QM of x without the change of the mean from hist to sim's window, then with it
    QDM     F_ref^-1(tau) with the change from F_hist^-1(tau) to x, tau = F_sim(x)
    EDCDFm  QDM with sim's whole period as the window
    rank    tau itself

A change is a difference (kind "+") or a ratio ("*").
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finescale import calendars
from finescale.distributions import (
    CONSTANT,
    DQM,
    LINEAR,
    PARAMETRIC,
    QDM,
    QM,
    RANK,
    Floats,
    Mapping,
    gather_blocks,
    map_cells,
    own_room,
    training_room,
)
from finescale.distributions import ecdf as ecdf
from finescale.distributions import inverse as inverse
from finescale.errors import ConfigError, ContractError

Kind = Literal["+", "*"]
Method = Literal["qm", "dqm", "qdm", "rank"]
Positions = Literal["weibull", "cunnane", "hazen", "type7"]
Tails = Literal["constant", "linear", "parametric"]

# a and b of (i - a)/(n + b): Hyndman & Fan (1996), doi:10.1080/00031305.1996.10473566.
POSITIONS = {
    "weibull": (0.0, 1.0),
    "cunnane": (0.4, 0.2),
    "hazen": (0.5, 0.0),
    "type7": (1.0, -1.0),
}

METHODS = {"qm": QM, "dqm": DQM, "qdm": QDM, "rank": RANK}
TAILS = {"constant": CONSTANT, "linear": LINEAR, "parametric": PARAMETRIC}


def quantile_map(
    ref: Floats,
    hist: Floats,
    sim: Floats,
    *,
    ref_slots: NDArray[np.integer],
    hist_slots: NDArray[np.integer],
    sim_slots: NDArray[np.integer],
    calendar: str,
    method: Method = "qm",
    sim_years: NDArray[np.integer] | None = None,
    half_window: int = 15,
    year_window: int | None = 21,
    positions: Positions = "weibull",
    tails: Tails = "parametric",
    kind: Kind = "+",
    wet_threshold: float = 0.0,
    trace: float = 0.0,
    max_ratio: float = 2.0,
) -> Floats:
    """Return `sim` with the distribution of `ref`, by one of the maps above.

    Parameters
    ----------
    ref, hist, sim : (cell, time) float32 or float64
        Training reference, training model and the series to map, in one unit; NaN is missing.
    ref_slots, hist_slots, sim_slots : (time,) int
        Day-of-year slots, 0-based: of 366 for `ref`, of n_slots(calendar) for the others.
    calendar : str
        Calendar of `hist` and `sim`.
    method : "qm", "dqm", "qdm" or "rank"
        EDCDFm is "qdm" with `year_window` None and one period as `sim`.
    sim_years : (time,) int, unless "qm"
        The year that each day of `sim` counts to (`calendars.season_year`).
    half_window : int
        Slots that exist on either side of the window's centre.
    year_window : int or None
        Odd number of years in the own window of a value of `sim`, not for "qm": centred, near the
        ends of a run of consecutive years the nearest full window, in a shorter run the whole run.
        None: all years.
    positions : str
        Plotting positions of the nodes, see `POSITIONS`.
    tails : str
        The map below x0 and above xn, the end nodes of `hist`, from y0 = F_ref^-1(F_hist(x0)).
        "constant": the offset (kind "*": factor) of the end node. "linear": the ratio of the
        slopes of the least-squares lines, value against probability, through the last ten nodes
        of each. "parametric": normal distributions; for kind "*" zero-bounded Weibull below and
        Gumbel above; fitted by moments to all (kind "*": wet) values of the window and shifted
        or scaled to meet the end node. Where there is nothing to fit: as "constant".
        "qdm": F^-1 beyond its end nodes, which only an own window with more values than the
        training's asks for: the end node, the line or the distribution.
    kind : "+" or "*"
        "*" never returns less than 0.
    wet_threshold : float
        Kind "*": values above it are wet; no factor is taken from an upper node that is dry.
    trace, max_ratio : float
        Kind "*", not for "qm": guards of each ratio, see `guarded_ratio`. `trace` must be above 0.

    Returns
    -------
    (cell, time), dtype of `sim`
        Finite for finite `sim`, except where a window holds fewer than two valid values: NaN.

    Raises
    ------
    ConfigError
        For a name that is no option, a `year_window` that is even, a `trace` that is missing.
    ContractError
        If shapes, slots or years do not fit each other.

    References
    ----------
    QM: Thrasher et al. (2012), doi:10.5194/hess-16-3309-2012. DQM and QDM: Cannon et al. (2015),
    doi:10.1175/JCLI-D-14-00754.1, and their package MBC. EDCDFm: Li et al. (2010),
    doi:10.1029/2009JD012882.
    """
    for name, value, options in (
        ("method", method, METHODS),
        ("positions", positions, POSITIONS),
        ("tails", tails, TAILS),
        ("kind", kind, ("+", "*")),
    ):
        if value not in options:
            raise ConfigError(
                f"quantile mapping: `{name}` must be one of {list(options)}, not {value!r}"
            )
    n_slots = calendars.n_slots(calendar)
    _check_series("ref", ref, ref_slots, cells=sim.shape[0], n_slots=calendars.N_SLOTS)
    _check_series("hist", hist, hist_slots, cells=sim.shape[0], n_slots=n_slots)
    _check_series("sim", sim, sim_slots, cells=sim.shape[0], n_slots=n_slots)
    is_ratio = kind == "*"
    if method == "qm":
        sim_years, year_window = np.zeros(sim_slots.size, np.int64), None
    else:
        sim_years = _checked_years(sim_slots, sim_years, year_window)
        if is_ratio and not trace > 0.0:
            raise ConfigError(
                f"quantile mapping: changes of kind '*' need a `trace` above 0, found {trace}: the "
                "amount that counts as nothing, in the units of the data"
            )
    mapping = Mapping(
        METHODS[method],
        *POSITIONS[positions],
        TAILS[tails],
        is_ratio,
        wet_threshold if is_ratio else -np.inf,
        trace,
        max_ratio,
    )
    # One dtype for all keeps the number of compiled kernels at two.
    dtype = np.result_type(ref, hist, sim, np.float32)
    out = np.full(sim.shape, np.nan, dtype)
    ref_present, ref_windows = _windows(ref_slots, calendars.N_SLOTS, half_window)
    hist_present, hist_windows = _windows(hist_slots, n_slots, half_window)
    own_present, own_windows = _windows(sim_slots, n_slots, half_window)
    days = int(own_windows[:, 1].max())
    map_cells(
        np.ascontiguousarray(ref, dtype),
        np.ascontiguousarray(hist, dtype),
        np.ascontiguousarray(sim, dtype),
        training_room(ref_slots, ref_present, floor=mapping.floor, dtype=dtype),
        ref_windows[calendars.reference_slots(calendar)],
        training_room(hist_slots, hist_present, floor=mapping.floor, dtype=dtype),
        hist_windows,
        own_room(sim_slots, own_present, sim_years, span=year_window, days=days, dtype=dtype),
        own_windows,
        gather_blocks(sim_slots, n_slots),
        mapping,
        out,
    )
    return out.astype(sim.dtype, copy=False)


def _windows(
    slots: NDArray[np.integer], n_slots: int, half_window: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Slots that exist, and the window of each slot among them."""
    filled = np.zeros(n_slots, np.bool_)
    filled[slots] = True
    return np.flatnonzero(filled), calendars.windows(filled, half_window)


def _checked_years(
    slots: NDArray[np.integer], years: NDArray[np.integer] | None, year_window: int | None
) -> NDArray[np.integer]:
    if year_window is not None and (year_window < 1 or year_window % 2 == 0):
        raise ConfigError(f"`year_window` must be odd to be centred, found {year_window}")
    if years is None or years.shape != slots.shape:
        raise ContractError(
            f"quantile mapping: `sim_years` must have the {slots.size} days of `sim`, found "
            f"{None if years is None else years.shape}; take them from calendars.season_year"
        )
    days = np.sort(years.astype(np.int64) * calendars.N_SLOTS + slots)
    doubled = days[1:][np.diff(days) == 0]
    if doubled.size:
        year, slot = divmod(int(doubled[0]), calendars.N_SLOTS)
        raise ContractError(
            f"quantile mapping: `sim` has slot {slot} of year {year} more than once; a window of "
            "years needs each day once: check the axis with calendars.check_daily"
        )
    return years


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
