"""Stage `evaluate`: how good one product is, cell by cell, beside the raw GCM interpolated.

Reads committed stores only. The table over all products is made by the rules of `report`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finescale import calendars, fields, regrid, scores, store
from finescale.blocks import Tile, tiles
from finescale.calendars import Days
from finescale.disaggregate import Interpolation
from finescale.fields import Field
from finescale.job import Job
from finescale.standardise import within
from finescale.store import Array, Contract, Piece, Store
from finescale.variables import MM_PER_DAY, VARIABLES

COUNTS = (
    "n_values",
    "n_nan",
    "n_missing",
    "n_stray",
    "n_below",
    "n_above",
    "n_tasmin_above_tasmax",
    "n_corrected",
)
CHANGE_FLOOR = 0.1 * MM_PER_DAY
"""[kg m-2 s-1] A month with less rain has no relative change."""


def run(
    work: Job,
    *,
    product: Store,
    reference: Store,
    simulation: Store,
    weights: Store,
    product_hist: Store | None = None,
    simulation_hist: Store | None = None,
    tasmax: Store | None = None,
    wet_day: float,
    period: tuple[str, str] | None,
    product_period: tuple[str, str],
) -> None:
    """Write the scores of a daily product.

    `score`, `baseline` (score_name, lat, lon): the product, and the raw GCM interpolated, against
    the reference on the days both have. `pattern`, `pattern_raw` (moment, day, row, column): the
    `scores.MOMENTS` of each block and such day. `change`, `change_raw` (month, lat, lon): from
    historical to scenario, of the product and of the raw GCM. `cycle`, `cycle_raw`,
    `cycle_reference` (month, lat, lon): means of calendar months, over the days scored if there
    are any. `counts` (count, row, column): `scores.invariants` of each block of the product.

    Parameters
    ----------
    product_hist, simulation_hist
        Historical, where `product` is a scenario.
    tasmax
        The product of tasmax, where `product` is tasmin.
    wet_day
        Least value of a wet day [mm/day].
    period
        Days to score; None for all.
    product_period
        First and last day that the product must have.
    """
    made, truth = Field(product), Field(reference)
    variable_id = made.variable_id
    kind = VARIABLES[variable_id].kind
    names = [n for n, s in scores.CELL_SCORES.items() if s.applies(kind, variable_id)]
    mask = ~np.isnan(made.read(slice(0, 1))[0])
    raw = Raw.of(Field(simulation), weights, truth)
    pairs = _pairs(made.days, truth.days, period)
    pairs_raw = _pairs(raw.field.days, truth.days, period)
    before = None if product_hist is None else Field(product_hist)
    raw_hist = None if simulation_hist is None else Raw.of(Field(simulation_hist), weights, truth)
    upper = None if tasmax is None else Field(tasmax)

    expected = expected_days(made, product_period)
    n_scored = len(pairs[0]), len(pairs_raw[0])
    arrays = _declare(made, names, n_scored=n_scored, changed=before is not None)
    writer = work.create(
        arrays, {**made.season, "n_time": len(made.days), "n_time_expected": expected}
    )
    blocks = tiles((len(made.days), *made.grid.shape), made.chunks)
    threshold = wet_day * MM_PER_DAY
    area = made.grid.cell_area()

    def score(
        values: NDArray[np.float32], days: Days, tile: Tile, pair: tuple[NDArray[Any], ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        mine, theirs = pair
        observed = truth.series(slice(theirs.min(), theirs.max() + 1), tile.lat, tile.lon)
        both, months = (values[mine], observed[theirs - theirs.min()]), days.month[mine]
        cells = scores.cell_scores(
            *both,
            months=months,
            season_year=days.year[mine],
            follows=np.diff(days.ordinal[mine], prepend=-1) == 1,
            kind=kind,
            variable_id=variable_id,
            wet_threshold=threshold,
        )
        weight = area[tile.lat, tile.lon].reshape(-1)
        moments = scores.pattern_moments(*both, months=months, area=weight, kind=kind)
        table = np.stack([cells[n] for n in names]).astype(np.float32).reshape(-1, *tile.shape)
        return table, moments[:, :, None, None]

    def compute(tile: Tile) -> Iterator[Piece]:
        values = made.series(slice(None), tile.lat, tile.lon)
        inside = mask[tile.lat, tile.lon]
        counts = scores.invariants(
            values,
            variable_id=variable_id,
            mask=inside.reshape(-1),
            tasmax=None if upper is None else upper.series(slice(None), tile.lat, tile.lon),
        )
        if "n_corrected" in made.store:
            corrected = made.store.read("n_corrected", (tile.lat, tile.lon))
            counts["n_corrected"] = int(corrected.sum())
        here = _block_index(tile, made.chunks)
        table = np.array([counts.get(n, 0) for n in COUNTS], dtype=np.int64).reshape(-1, 1, 1)
        yield "counts", (slice(0, len(COUNTS)), *here), table
        plain = raw.interpolate(tile, inside)
        if len(pairs[0]):
            for suffix, table_of, series, days, pair in (
                ("", "score", values, made.days, pairs),
                ("_raw", "baseline", plain, raw.field.days, pairs_raw),
            ):
                cells, moments = score(series, days, tile, pair)
                yield table_of, (slice(0, len(names)), tile.lat, tile.lon), cells
                every = slice(0, len(scores.MOMENTS)), slice(0, len(pair[0]))
                yield f"pattern{suffix}", (*every, *here), moments
        whole = scores.monthly_means(values, made.days.month)
        whole_raw = scores.monthly_means(plain, raw.field.days.month)
        cycles = {"cycle": whole, "cycle_raw": whole_raw}
        if len(pairs[0]):
            observed = truth.series(slice(None), tile.lat, tile.lon)
            for name, series, days, chosen in (
                ("cycle", values, made.days, pairs[0]),
                ("cycle_raw", plain, raw.field.days, pairs_raw[0]),
                ("cycle_reference", observed, truth.days, pairs[1]),
            ):
                cycles[name] = scores.monthly_means(series[chosen], days.month[chosen])
        if before is not None and raw_hist is not None:
            past = before.series(slice(None), tile.lat, tile.lon)
            past_raw = raw_hist.interpolate(tile, inside)
            signal = scores.change(
                scores.monthly_means(past, before.days.month),
                whole,
                scores.monthly_means(past_raw, raw_hist.field.days.month),
                whole_raw,
                kind=kind,
                floor=CHANGE_FLOOR if kind == "*" else 0.0,
            )
            cycles |= {"change": signal["product_change"], "change_raw": signal["gcm_change"]}
        for name, monthly in cycles.items():
            block = monthly.astype(np.float32).reshape(12, *tile.shape)
            yield name, (slice(0, 12), tile.lat, tile.lon), block

    work.fill(writer, compute, blocks)


@dataclass(frozen=True, eq=False)
class Raw:
    """A simulation that is interpolated tile by tile."""

    field: Field
    interpolation: Interpolation

    @classmethod
    def of(cls, field: Field, weights: Store, fine: Field) -> Raw:
        """Return a simulation with its interpolation to the grid of `fine`."""
        valid = fields.complete(field.store, field.variable_id)
        between = Interpolation.between(weights, coarse=field.grid, fine=fine.grid, valid=valid)
        return cls(field, between)

    def interpolate(self, tile: Tile, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return (time, cell) on a tile, NaN outside the mask `inside`."""
        n_lon = self.interpolation.matrix.n_dst[1]
        local, lat, lon = regrid.localise(self.interpolation.matrix, tile.rows(n_lon))
        smooth = regrid.apply(
            local, self.field.series(slice(None), lat, lon), min_valid_fraction=0.0
        )
        smooth[:, ~inside.reshape(-1)] = np.nan
        return smooth


def _declare(
    made: Field, names: list[str], *, n_scored: tuple[int, int], changed: bool
) -> dict[str, Array]:
    """Return the arrays of an evaluation; `n_scored` days of the product and of the raw GCM."""
    shape, chunks = made.grid.shape, made.chunks[1:]
    units = VARIABLES[made.variable_id].units
    rows, columns = (-(-n // c) for n, c in zip(shape, chunks, strict=True))
    arrays = {
        "counts": Array(
            ("count", "row", "column"), (len(COUNTS), rows, columns), (len(COUNTS), 1, 1), "<i8",
            {"long_name": "values of each block that break a rule", "units": "1"},
        ),
        "count": store.coordinate(("count",), np.array(COUNTS)),
        **fields.horizontal(made.grid),
    }  # fmt: skip
    anything, scored = Contract(nan="allowed"), n_scored[0] > 0
    if scored:
        arrays["moment"] = store.coordinate(("moment",), np.array(scores.MOMENTS))
        for suffix, n_days in zip(("", "_raw"), n_scored, strict=True):
            moments = len(scores.MOMENTS), n_days
            arrays[f"pattern{suffix}"] = Array(
                ("moment", f"day{suffix}", "row", "column"), (*moments, rows, columns),
                (*moments, 1, 1), "<f8", {"long_name": "sums over the cells of a block"},
            )  # fmt: skip
        for name, what in (("score", "product"), ("baseline", "raw GCM, interpolated")):
            arrays[name] = Array(
                ("score_name", "lat", "lon"), (len(names), *shape), (len(names), *chunks), "<f4",
                {"long_name": f"scores of the {what}"}, anything,
            )  # fmt: skip
        arrays["score_name"] = store.coordinate(("score_name",), np.array(names))
    relative = "1" if VARIABLES[made.variable_id].kind == "*" else units
    monthly = {"cycle": units, "cycle_raw": units}
    monthly |= {"cycle_reference": units} if scored else {}
    monthly |= {"change": relative, "change_raw": relative} if changed else {}
    for name, unit in monthly.items():
        what = "calendar month" if name.startswith("cycle") else "change of calendar month"
        arrays[name] = Array(
            ("month", "lat", "lon"), (12, *shape), (12, *chunks), "<f4",
            {"long_name": f"{what}, {name}", "units": unit}, anything,
        )  # fmt: skip
    arrays["month"] = store.coordinate(("month",), np.arange(1, 13, dtype=np.int32))
    return arrays


def _block_index(tile: Tile, chunks: tuple[int, ...]) -> tuple[slice, slice]:
    row, column = tile.lat.start // chunks[-2], tile.lon.start // chunks[-1]
    return slice(row, row + 1), slice(column, column + 1)


def _pairs(
    made: Days, truth: Days, period: tuple[str, str] | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions, in both axes, of the dates that both have within the period."""
    mine, theirs = (
        d.year.astype(np.int64) * 10000 + d.month.astype(np.int64) * 100 + d.day
        for d in (made, truth)
    )
    _, i, j = np.intersect1d(mine, theirs, return_indices=True)
    if period is not None and len(i):
        first, last = (int(date.replace("-", "")) for date in period)
        kept = (mine[i] >= first) & (mine[i] <= last)
        i, j = i[kept], j[kept]
    return i, j


def expected_days(opened: Field, period: tuple[str, str]) -> int:
    """Return how many days a product of a period must have, by its calendar and season.

    Of a seasonal product whole seasons may be missing, days of a season may not.
    """
    own = opened.days.calendar
    source = opened.store.attributes.get("calendar_converted_from", own)
    end = "12-30" if source == "360_day" else "12-31"
    years = Days.range(f"{period[0][:4]}-01-01", f"{period[1][:4]}-{end}", source)
    start, stop = within(years, period, where=opened.store.url)
    whole, _ = calendars.convert(years[start:stop], own)
    season = opened.season.get("season")
    if season is None:
        return len(whole)
    expected = np.isin(whole.month, calendars.season_months(season))
    present = calendars.season_year(opened.days, season)
    return int((expected & np.isin(calendars.season_year(whole, season), present)).sum())
