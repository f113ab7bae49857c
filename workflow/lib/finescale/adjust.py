"""Stage `adjust`: a GCM on its own grid with the distribution of the coarsened reference.

Historical and scenario lie on one axis and are mapped by the same training distributions; mapping
each period on its own would erase the change. What distinguishes the methods is the distribution
that a value is ranked in (`quantiles`), and the slow change that is taken out before:

    trend_years   running mean of months, "+" only; put back after
    epoch_years   climatology of the years around; left to the product stage to put back

A map of quantiles bends the change of the mean of a ratio; `keep_mean_change` puts it right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finescale import calendars, epochs, fields, trends
from finescale.blocks import Tile, tiles
from finescale.calendars import Days
from finescale.errors import ContractError
from finescale.fields import Field
from finescale.jitter import jitter_dry, restore_dry, uniform
from finescale.job import Job
from finescale.quantiles import Positions, Tails, quantile_map
from finescale.standardise import within
from finescale.store import Array, Contract, Piece, Region, Store
from finescale.variables import MM_PER_DAY, VARIABLES

Method = Literal["qm", "dqm", "qdm", "edcdfm"]
Values = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class QuantileMapping:
    """Parameters of the mapping, as the config section `adjust` describes them."""

    half_window: int
    positions: Positions
    tails: Tails
    trend_years: int
    dry_threshold: float
    seed: int
    method: Method = "qm"
    year_window: int = 21
    epoch_years: int = 0
    max_ratio: float = 2.0
    dry_floor: float = 0.0
    keep_mean_change: bool = False


@dataclass(frozen=True, eq=False)
class Series:
    """Daily series of some cells: `values` (time, cell) and `train` (time,), its training days."""

    values: NDArray[np.floating[Any]]
    days: Days
    train: NDArray[np.bool_]


class Adjusted(NamedTuple):
    """What is made of a series, (time, cell): `rank` and `trend` if they were asked for."""

    values: Values
    rank: Values | None = None
    trend: Values | None = None


def run(
    work: Job,
    *,
    ref: Store,
    hist: Store,
    scen: Store | None = None,
    target: str,
    train: tuple[str, str],
    ranks: bool = False,
    **parameters: Any,
) -> None:
    """Write the adjusted series of one experiment, (time, lat, lon) on the GCM's grid.

    Beside it: `valid`, the cells that have values; `rank`, if it is asked for; and `trend`, if
    `epoch_years` takes one out.

    Parameters
    ----------
    ref
        The reference on the GCM's grid.
    hist
        The experiment that holds the training period.
    scen
        The experiment that continues it: a scenario, or what pads historical.
    target
        `hist` or `scen`: which of them is written.
    train
        First and last training day.
    ranks
        Whether the probability of each value in its own window is written, too.
    parameters
        Of `QuantileMapping`.
    """
    reference, parts = Field(ref), [Field(s) for s in (hist, scen) if s is not None]
    mapping = QuantileMapping(**parameters)
    axis = Days.concatenate([part.days for part in parts])
    calendars.check_daily(
        axis, season=parts[0].season.get("season"), where=work.output, allow_year_gaps=True
    )
    written = parts[0 if target == "hist" else 1]
    begin = 0 if target == "hist" else len(parts[0].days)
    variable_id = written.variable_id
    ref_train = _training(reference.days, train, ref.url)
    sim_train = _training(axis, train, hist.url)
    period = slice(begin, begin + len(written.days))
    arrays = _declare(written, ranks=ranks, trend=mapping.epoch_years > 0)
    writer = work.create(
        arrays, {**written.season, "adjustment": mapping.method, "train": list(train)}
    )
    lat, lon = (
        a.reshape(-1) for a in np.meshgrid(written.grid.lat, written.grid.lon, indexing="ij")
    )

    def compute(tile: Tile) -> Iterator[Piece]:
        cells = tile.rows(written.grid.shape[1])
        values = np.concatenate([p.series(slice(None), tile.lat, tile.lon) for p in parts])
        found = adjust_series(
            Series(reference.series(slice(None), tile.lat, tile.lon), reference.days, ref_train),
            Series(values, axis, sim_train),
            mapping,
            period=period,
            variable_id=variable_id,
            lat=lat[cells],
            lon=lon[cells],
            season=written.season.get("season"),
            ranks=ranks,
        )
        _check_whole(found.values, written, lat[cells], lon[cells])
        every: Region = slice(0, len(written.days)), tile.lat, tile.lon
        for name, series in zip((variable_id, "rank", "trend"), found, strict=True):
            if series is not None:
                yield name, every, series.reshape(-1, *tile.shape).astype(np.float32)
        valid = np.asarray(~np.isnan(found.values).any(axis=0))
        yield "valid", every[1:], valid.reshape(tile.shape).astype(np.int8)

    work.fill(writer, compute, tiles(arrays[variable_id].shape, arrays[variable_id].chunks))


def _declare(written: Field, *, ranks: bool, trend: bool) -> dict[str, Array]:
    """Return the arrays of the store."""
    variable = VARIABLES[written.variable_id]
    arrays = fields.declare(
        written.variable_id, written.days, written.grid, layout="full_time", nan="allowed"
    )
    series = arrays[written.variable_id]
    if ranks:
        attributes = {"long_name": "probability in its own window", "units": "1"}
        arrays["rank"] = replace(
            series, attributes=attributes, contract=Contract((0.0, 1.0), nan="allowed")
        )
    if trend:
        units = variable.units if variable.kind == "+" else "1"
        attributes = {"long_name": "change of the climatology since training", "units": units}
        arrays["trend"] = replace(series, attributes=attributes, contract=Contract(nan="allowed"))
    arrays["valid"] = Array(
        ("lat", "lon"),
        written.grid.shape,
        series.chunks[1:],
        "|i1",
        {"long_name": "cell has values", "flag_values": [0, 1], "flag_meanings": "no yes"},
    )
    return arrays


def _check_whole(
    adjusted: Values, written: Field, lat: NDArray[np.float64], lon: NDArray[np.float64]
) -> None:
    """Raise a ContractError if a cell has values on some of its days, (time, cell), only."""
    gaps = np.isnan(adjusted)
    partly = np.flatnonzero(gaps.any(axis=0) & ~gaps.all(axis=0))
    if partly.size:
        cell, day = partly[0], int(np.flatnonzero(gaps[:, partly[0]])[0])
        raise ContractError(
            f"{written.store.url}: `{written.variable_id}` is missing on "
            f"{written.days.isoformat(day)} (lat {lat[cell]:g}, lon {lon[cell]:g}) in a cell that "
            "has values on other days; limit the simulation's `period` to days that are whole"
        )


def adjust_series(
    ref: Series,
    sim: Series,
    mapping: QuantileMapping,
    *,
    period: slice = slice(None),
    variable_id: str,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
    season: str | None = None,
    ranks: bool = False,
) -> Adjusted:
    """Return the days `period` of `sim` with the training distribution of `ref`, (time, cell).

    Kind "+" with `trend_years`: the trend of `ref` and of the training days of `sim` is taken out
    before the distributions are built, each from training years alone; the trend of the whole axis
    of `sim` is taken out before mapping and put back after. With `epoch_years` that of `sim` is
    taken out and returned beside. pr: dry days are jittered before, 0 after. Kind "*" with
    `keep_mean_change`: what is mapped has, at last, the change of the model's mean.

    References
    ----------
    Thrasher et al. (2012), doi:10.5194/hess-16-3309-2012; Abatzoglou & Brown (2012),
    doi:10.1002/joc.2312; Pierce et al. (2015), doi:10.1175/JHM-D-14-0236.1.
    """
    variable = VARIABLES[variable_id]
    threshold = mapping.dry_threshold * MM_PER_DAY if variable_id == "pr" else 0.0
    keeps = mapping.keep_mean_change and variable.kind == "*"
    trained_ref, trained_hist, whole = _select(ref, ref.train), _select(sim, sim.train), sim
    back: Values | float = 0.0
    left = None
    if mapping.epoch_years:
        slow = epochs.trend(
            sim.values, sim.days, train=sim.train, span_years=mapping.epoch_years,
            kind=variable.kind, floor=variable.trace,
        )  # fmt: skip
        left = slow[period]
        steady = sim.values / slow if variable.kind == "*" else sim.values - slow
        whole = Series(steady, sim.days, sim.train)
        trained_hist = _select(whole, sim.train)
    elif variable.kind == "+" and mapping.trend_years:
        trained_ref, trained_hist = (
            _detrend(s, mapping.trend_years)[0] for s in (trained_ref, trained_hist)
        )
        whole, slow = _detrend(sim, mapping.trend_years)
        back = slow[period]
    if threshold > 0:
        trained_ref, trained_hist, whole = (
            _jitter(s, mapping, variable_id, lat, lon) for s in (trained_ref, trained_hist, whole)
        )

    def quantiles(chosen: slice, *, rank: bool) -> Values:
        return quantile_series(
            trained_ref, trained_hist, whole, mapping, chosen,
            variable_id=variable_id, season=season, rank=rank,
        )  # fmt: skip

    mapped = quantiles(slice(None) if keeps else period, rank=False)
    if threshold > 0:
        mapped = restore_dry(mapped, threshold=threshold)
    if keeps:
        model = restore_dry(whole.values, threshold=threshold)
        factors = mean_factors(model, mapped, sim, mapping, floor=variable.trace)
        mapped = (mapped * factors)[period]
    return Adjusted(mapped + back, quantiles(period, rank=True) if ranks else None, left)


def mean_factors(
    model: Values, adjusted: Values, axis: Series, mapping: QuantileMapping, *, floor: float
) -> NDArray[np.float64]:
    """Return factors that give the mean of `adjusted` the change that `model` has, (time, cell).

    A change is that of a window of days and years, as of the mapping, to those of the training
    years. A factor is at most `max_ratio`, at least its inverse; all are 1 where both are equal.

    Parameters
    ----------
    model, adjusted : (time, cell)
        Of kind "*", on the days of `axis`; dry days, those of `adjusted`, are 0.
    floor : float
        Means below it count as that [units of `model`].

    References
    ----------
    Pierce et al. (2015), doi:10.1175/JHM-D-14-0236.1: "PresRat".
    """
    change, bent = (
        epochs.trend(
            values, axis.days, train=axis.train, span_years=mapping.year_window,
            smooth_days=2 * mapping.half_window + 1, kind="*", floor=floor,
        )
        for values in (model, adjusted)
    )  # fmt: skip
    change /= bent
    return np.clip(change, 1 / mapping.max_ratio, mapping.max_ratio, out=change)


def quantile_series(
    ref: Series,
    hist: Series,
    sim: Series,
    mapping: QuantileMapping,
    period: slice,
    *,
    variable_id: str,
    season: str | None = None,
    rank: bool = False,
) -> Values:
    """Return the days `period` of `sim`, (time, cell), mapped or as ranks in their own windows.

    Only `qm` needs no other day than the one it maps; `edcdfm` ranks in the period that is written.
    """
    variable = VARIABLES[variable_id]
    if mapping.method in ("qm", "edcdfm"):
        sim, period = _select(sim, period), slice(None)
    return quantile_map(
        *(np.ascontiguousarray(s.values.T) for s in (ref, hist, sim)),
        ref_slots=calendars.standard_slots(ref.days),
        hist_slots=calendars.slots(hist.days),
        sim_slots=calendars.slots(sim.days),
        sim_years=calendars.season_year(sim.days, season),
        calendar=sim.days.calendar,
        method="rank" if rank else "qdm" if mapping.method == "edcdfm" else mapping.method,
        half_window=mapping.half_window,
        year_window=None if mapping.method == "edcdfm" else mapping.year_window,
        positions=mapping.positions,
        tails=mapping.tails,
        kind=variable.kind,
        wet_threshold=mapping.dry_threshold * MM_PER_DAY if variable_id == "pr" else 0.0,
        trace=variable.trace,
        max_ratio=mapping.max_ratio,
    ).T[period]


def _training(days: Days, train: tuple[str, str], where: str) -> NDArray[np.bool_]:
    start, stop = within(days, train, where=where)
    chosen = np.zeros(len(days), dtype=np.bool_)
    chosen[start:stop] = True
    return chosen


def _select(series: Series, chosen: slice | NDArray[np.bool_]) -> Series:
    return Series(series.values[chosen], series.days[chosen], series.train[chosen])


def _detrend(series: Series, years: int) -> tuple[Series, NDArray[np.float64]]:
    slow = trends.trend(series.values, series.days, train=series.train, window_years=years)
    return Series(series.values - slow, series.days, series.train), slow


def _jitter(
    series: Series,
    mapping: QuantileMapping,
    variable_id: str,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
) -> Series:
    u = uniform(mapping.seed, variable_id, lat, lon, series.days)
    threshold, lowest = mapping.dry_threshold * MM_PER_DAY, mapping.dry_floor
    values = jitter_dry(series.values, threshold=threshold, u=u, lowest=lowest)
    return Series(values, series.days, series.train)
