"""Stage `adjust`: a GCM on its own grid with the distribution of the coarsened reference.

Historical and scenario lie on one axis and are mapped by the same training distributions; mapping
each period on its own would erase the change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finescale import calendars, fields, trends
from finescale.blocks import Tile, tiles
from finescale.calendars import Days
from finescale.errors import ContractError
from finescale.fields import Field
from finescale.jitter import jitter_dry, restore_dry, uniform
from finescale.job import Job
from finescale.quantiles import Positions, Tails, quantile_map
from finescale.standardise import within
from finescale.store import Array, Piece, Store
from finescale.variables import MM_PER_DAY, VARIABLES


@dataclass(frozen=True)
class QuantileMapping:
    """Parameters of the mapping, as the config section `adjust` describes them."""

    half_window: int
    positions: Positions
    tails: Tails
    trend_years: int
    dry_threshold: float
    seed: int


@dataclass(frozen=True, eq=False)
class Series:
    """Daily series of some cells: `values` (time, cell) and `train` (time,), its training days."""

    values: NDArray[np.floating[Any]]
    days: Days
    train: NDArray[np.bool_]


def run(
    work: Job,
    *,
    ref: Store,
    hist: Store,
    scen: Store | None = None,
    target: str,
    train: tuple[str, str],
    method: str,
    **parameters: Any,
) -> None:
    """Write the quantile-mapped series of one experiment, (time, lat, lon) on the GCM's grid.

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
    method
        `qm`.
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
    arrays = fields.declare(
        variable_id, written.days, written.grid, layout="full_time", nan="allowed"
    )
    chunks = arrays[variable_id].chunks
    arrays["valid"] = Array(
        ("lat", "lon"),
        written.grid.shape,
        chunks[1:],
        "|i1",
        {"long_name": "cell has values", "flag_values": [0, 1], "flag_meanings": "no yes"},
    )
    writer = work.create(arrays, {**written.season, "adjustment": method, "train": list(train)})
    lat, lon = (
        a.reshape(-1) for a in np.meshgrid(written.grid.lat, written.grid.lon, indexing="ij")
    )

    def compute(tile: Tile) -> Iterator[Piece]:
        cells = tile.rows(written.grid.shape[1])
        values = np.concatenate([p.series(slice(None), tile.lat, tile.lon) for p in parts])
        adjusted = adjust_series(
            Series(reference.series(slice(None), tile.lat, tile.lon), reference.days, ref_train),
            Series(values, axis, sim_train),
            mapping,
            variable_id=variable_id,
            lat=lat[cells],
            lon=lon[cells],
        )[begin : begin + len(written.days)]
        gaps = np.isnan(adjusted)
        valid = ~gaps.any(axis=0)
        if (gaps.any(axis=0) & ~gaps.all(axis=0)).any():
            cell = int(np.flatnonzero(gaps.any(axis=0) & ~gaps.all(axis=0))[0])
            day = int(np.flatnonzero(gaps[:, cell])[0])
            raise ContractError(
                f"{written.store.url}: `{variable_id}` is missing on {written.days.isoformat(day)} "
                f"(lat {lat[cells][cell]:g}, lon {lon[cells][cell]:g}) in a cell that has values "
                "on other days; limit the simulation's `period` to days that are whole"
            )
        block = adjusted.reshape(-1, *tile.shape).astype(np.float32)
        yield variable_id, (slice(0, len(written.days)), tile.lat, tile.lon), block
        yield "valid", (tile.lat, tile.lon), valid.reshape(tile.shape).astype(np.int8)

    work.fill(writer, compute, tiles(arrays[variable_id].shape, chunks))


def adjust_series(
    ref: Series,
    sim: Series,
    mapping: QuantileMapping,
    *,
    variable_id: str,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
) -> NDArray[np.floating[Any]]:
    """Return `sim` with the training distribution of `ref`, (time, cell); all of its axis.

    Kind "+": the trend of `ref` and of the training days of `sim` is taken out before the
    distributions are built, each from training years alone; the trend of the whole axis of `sim`
    is taken out before mapping and put back after. pr: dry days are jittered before, 0 after.

    References
    ----------
    Thrasher et al. (2012), doi:10.5194/hess-16-3309-2012.
    """
    kind = VARIABLES[variable_id].kind
    detrend = kind == "+" and mapping.trend_years > 0
    trained_ref, trained_hist = _select(ref, ref.train), _select(sim, sim.train)
    whole = sim
    back: NDArray[np.floating[Any]] | float = 0.0
    if detrend:
        trained_ref, trained_hist = (
            _detrend(s, mapping.trend_years)[0] for s in (trained_ref, trained_hist)
        )
        whole, back = _detrend(sim, mapping.trend_years)
    threshold = mapping.dry_threshold * MM_PER_DAY if variable_id == "pr" else 0.0
    if threshold > 0:
        trained_ref, trained_hist, whole = (
            _jitter(s, threshold, mapping.seed, variable_id, lat, lon)
            for s in (trained_ref, trained_hist, whole)
        )
    mapped = quantile_map(
        *(np.ascontiguousarray(s.values.T) for s in (trained_ref, trained_hist, whole)),
        ref_slots=calendars.standard_slots(trained_ref.days),
        hist_slots=calendars.slots(trained_hist.days),
        sim_slots=calendars.slots(whole.days),
        calendar=sim.days.calendar,
        half_window=mapping.half_window,
        positions=mapping.positions,
        tails=mapping.tails,
        kind=kind,
        wet_threshold=threshold,
    ).T
    if threshold > 0:
        mapped = restore_dry(mapped, threshold=threshold)
    return mapped + back


def _training(days: Days, train: tuple[str, str], where: str) -> NDArray[np.bool_]:
    start, stop = within(days, train, where=where)
    chosen = np.zeros(len(days), dtype=np.bool_)
    chosen[start:stop] = True
    return chosen


def _select(series: Series, chosen: NDArray[np.bool_]) -> Series:
    return Series(series.values[chosen], series.days[chosen], series.train[chosen])


def _detrend(series: Series, years: int) -> tuple[Series, NDArray[np.float64]]:
    slow = trends.trend(series.values, series.days, train=series.train, window_years=years)
    return Series(series.values - slow, series.days, series.train), slow


def _jitter(
    series: Series,
    threshold: float,
    seed: int,
    variable_id: str,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
) -> Series:
    u = uniform(seed, variable_id, lat, lon, series.days)
    return Series(jitter_dry(series.values, threshold=threshold, u=u), series.days, series.train)
