"""Stage `maca`: multivariate adaptive constructed analogs, the daily product.

    constructed   the fine days of the analogs times their weights; regions blended by their shares
    residual      what the same sum lacks on the coarse grid, interpolated bilinearly
    mapped        both together, by EDCDFm against the fine reference; training days are made alike
    product       mapped with the change of the climatology, which was left out until here

The reference's training days of a tile are read once and stay in memory beside the tile's product;
all else is made for some cells at a time. A thread holds about

    4 C (2 N + T) + 12 (K + 10 R) (N + T) + 60 B bytes

of N training days, T days of the product, C cells of a tile, K coarse cells around them, R regions
(4 to 9), 10 analogs and a block of B = `BLOCK_VALUES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from finescale import adjust, disaggregate, fields, regrid
from finescale.adjust import QuantileMapping, Series
from finescale.analogs import Regions, regions
from finescale.blocks import Tile, slabs, tiles
from finescale.calendars import Days, standard_slots
from finescale.disaggregate import Interpolation
from finescale.fields import Field
from finescale.grids import Grid
from finescale.job import Job
from finescale.standardise import within
from finescale.store import Piece, Store
from finescale.variables import VARIABLES

BLOCK_VALUES = 2_000_000
"""Days x cells, of the product and of both trainings, that are worked on at a time."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Model:
    """One experiment: its adjusted series, the analogs of its days, and which days are used."""

    adjusted: Field
    analogs: Store
    time: slice

    @property
    def days(self) -> Days:
        """Return the days that are used."""
        return self.adjusted.days[self.time]

    def choice(self, region: int) -> tuple[NDArray[np.int32], Floats]:
        """Return analogs and weights of a region, (day, rank) both."""
        name = f"weight_{self.adjusted.variable_id}"
        part = (slice(region, region + 1), self.time, slice(None))
        return self.analogs.read("analog", part)[0], self.analogs.read(name, part)[0]


@dataclass(frozen=True, eq=False)
class Constructed:
    """What the days of a model are made of in one tile.

    `choices` as of `Model.choice`, of each of the tile's regions; `residual` (day, coarse cell).
    """

    choices: Sequence[tuple[NDArray[np.int32], Floats]]
    residual: Floats

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        region: NDArray[np.int64],
        share: Floats,
        past: NDArray[np.float32],
        lat: slice,
        lon: slice,
    ) -> Constructed:
        """Return it for coarse rows and columns.

        Parameters
        ----------
        region, share
            Numbers of the regions, and their shares in the coarse cells (region, cell).
        past : (training day, cell)
            The reference in these.
        """
        choices = [model.choice(int(r)) for r in region]
        residual = model.adjusted.series(model.time, lat, lon).astype(np.float64)
        for (index, weight), part in zip(choices, share, strict=True):
            add_analogs(residual, past, index, -weight, part)
        return cls(choices, residual)

    def series(
        self,
        local: regrid.Matrix,
        rows: NDArray[np.int64],
        *,
        share: Floats,
        past: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return the days in the fine cells `rows` of `local`, (day, cell).

        `share` (region, cell) and `past` (training day, cell) are those of the fine cells.
        """
        found = regrid.apply(local, self.residual, min_valid_fraction=0.0, rows=rows)
        for (index, weight), part in zip(self.choices, share, strict=True):
            add_analogs(found, past, index, weight, part)
        return found.astype(np.float32)


def run(
    work: Job,
    *,
    analogs: Store,
    analogs_hist: Store,
    adjusted: Store,
    adjusted_hist: Store,
    ref: Store,
    reference: Store,
    climatology: Store,
    weights: Store,
    tasmax: Store | None = None,
    variable_id: str,
    train: tuple[str, str],
    region_degrees: float,
    pr_ceiling: float,
    calendar: str | None,
    attributes: dict[str, Any],
    **parameters: Any,
) -> None:
    """Write the daily product of one variable, (time, lat, lon) on the fine grid.

    Beside it: `filled`, as of every product, and `n_corrected`, the days of each cell on which the
    constructed value of a kind "*" was below 0, or the product was set to a physical limit.

    Parameters
    ----------
    analogs, adjusted
        Of the experiment that is written; for tasmin beside `tasmax`, of its dtr.
    analogs_hist, adjusted_hist
        Of the experiment that holds the training period.
    ref, reference
        The reference on the GCM's grid and on its own.
    climatology
        Of `reference`; the product has the cells where it is whole. It stands in for days that the
        reference lacks there, where they are analogs.
    weights
        From the coarse grid to the fine one.
    tasmax
        The product of tasmax, from which a tasmin is made as tasmax - dtr: never above it.
    train, region_degrees
        As the analogs were chosen with.
    pr_ceiling
        Highest pr [mm/day].
    calendar
        Convert the product's axis to this calendar; None keeps the GCM's.
    parameters
        Of the mapping on the fine grid, as `adjust.QuantileMapping` takes them.

    References
    ----------
    Abatzoglou & Brown (2012), doi:10.1002/joc.2312.
    """
    coarse, hist, fine = Field(adjusted), Field(adjusted_hist), Field(reference)
    name = coarse.variable_id
    models = (
        Model(hist, analogs_hist, slice(*within(hist.days, train, where=adjusted_hist.url))),
        Model(coarse, analogs, slice(0, len(coarse.days))),
    )
    covering = regions(coarse.grid, region_degrees)
    valid = np.all([model.analogs.read("valid") == 1 for model in models], axis=0)
    interpolation = Interpolation.between(weights, coarse=coarse.grid, fine=fine.grid, valid=valid)
    mask = fields.complete(climatology, name)
    mapping = QuantileMapping(method="edcdfm", trend_years=0, **parameters)
    upper = None if tasmax is None else Field(tasmax)
    days, source = disaggregate.product_axis(coarse.days, calendar)
    arrays = disaggregate.declare(
        variable_id,
        days,
        fine.grid,
        interpolation.filled & mask,
        corrected="days constructed below 0, or set to a physical limit",
    )
    converted = disaggregate.converted_from(coarse.days, days)
    writer = work.create(arrays, {**attributes, **coarse.season, **converted}, mask=mask)
    shape, chunks = arrays[variable_id].shape, arrays[variable_id].chunks

    def compute(tile: Tile) -> Iterator[Piece]:
        inside = np.flatnonzero(mask[tile.lat, tile.lon])
        product = np.empty((len(coarse.days), inside.size), np.float32)
        clipped = np.zeros(tile.shape, np.int32)
        if inside.size:
            clipped.reshape(-1)[inside] = downscale(
                product,
                models,
                tile=tile,
                inside=inside,
                ref=Field(ref),
                reference=fine,
                climatology=climatology,
                matrix=interpolation.matrix,
                covering=covering,
                train=train,
                mapping=mapping,
                limits=disaggregate.product_limits(name, pr_ceiling=pr_ceiling),
            )
        for time in slabs(len(days), chunks[0]):
            block = np.full((time.stop - time.start, *tile.shape), np.nan, np.float32)
            block.reshape(len(block), -1)[:, inside] = product[source[time]]
            if upper is not None:
                block = upper.read(time, tile.lat, tile.lon) - block
            yield variable_id, (time, tile.lat, tile.lon), block
        yield "n_corrected", (tile.lat, tile.lon), clipped

    work.fill(writer, compute, tiles(shape, chunks))


def downscale(
    product: NDArray[np.float32],
    models: tuple[Model, Model],
    *,
    tile: Tile,
    inside: NDArray[np.int64],
    ref: Field,
    reference: Field,
    climatology: Store,
    matrix: regrid.Matrix,
    covering: Regions,
    train: tuple[str, str],
    mapping: QuantileMapping,
    limits: tuple[float, float],
) -> NDArray[np.int32]:
    """Return how often each cell was clipped, (cell,); write the series into `product` (day, cell).

    Parameters
    ----------
    product
        In the days of the second of the `models`; the first has the training days.
    inside : (cell,)
        The cells of the tile to be made.
    matrix
        From the coarse grid to the fine one.
    """
    target, variable_id = models[1].adjusted, models[1].adjusted.variable_id
    is_ratio = VARIABLES[variable_id].kind == "*"
    local, lat, lon = regrid.localise(matrix, tile.rows(reference.grid.shape[1]))
    coarse_share = _shares(covering, ref.grid, lat, lon)
    share = _shares(covering, reference.grid, tile.lat, tile.lon)[:, inside]
    region = np.flatnonzero((coarse_share > 0).any(axis=1) | (share > 0).any(axis=1))
    share = share[region]
    coarse_past = ref.series(slice(*within(ref.days, train, where=ref.store.url)), lat, lon)
    made = [
        Constructed.of(
            model,
            region=region,
            share=coarse_share[region],
            past=coarse_past,
            lat=lat,
            lon=lon,
        )
        for model in models
    ]
    change = target.store.read("trend", (slice(None), lat, lon)).reshape(len(product), -1)
    trained = slice(*within(reference.days, train, where=reference.store.url))
    past = reference.days[trained]
    observed = reference.series(trained, tile.lat, tile.lon)[:, inside]
    cycle = climatology.read(variable_id, (slice(None), tile.lat, tile.lon))
    cycle = cycle.reshape(len(cycle), -1)[:, inside]
    axis = Days.concatenate([model.days for model in models])
    begin = len(models[0].days)
    place = np.meshgrid(reference.grid.lat[tile.lat], reference.grid.lon[tile.lon], indexing="ij")
    y, x = (a.reshape(-1)[inside] for a in place)
    clipped = np.zeros(inside.size, np.int32)
    for cells in slabs(inside.size, max(BLOCK_VALUES // (len(axis) + len(past)), 1)):
        seen = np.ascontiguousarray(observed[:, cells])
        whole = np.where(np.isnan(seen), cycle[standard_slots(past), cells], seen)
        values = np.concatenate(
            [m.series(local, inside[cells], share=share[:, cells], past=whole) for m in made]
        )
        if is_ratio:
            below = values < 0
            values = np.maximum(values, 0)
        adjusted = adjust.adjust_series(
            Series(seen, past, np.ones(len(past), np.bool_)),
            Series(values, axis, np.arange(len(axis)) < begin),
            mapping,
            period=slice(begin, len(axis)),
            variable_id=variable_id,
            lat=y[cells],
            lon=x[cells],
            season=target.season.get("season"),
        )
        slow = regrid.apply(local, change, min_valid_fraction=0.0, rows=inside[cells])
        value = adjusted.values * slow if is_ratio else adjusted.values + slow
        outside = (value < limits[0]) | (value > limits[1])
        if is_ratio:
            outside |= below[begin:]
        clipped[cells] = outside.sum(axis=0)
        product[:, cells] = np.clip(value, *limits)
    return clipped


@njit(nogil=True, cache=True)
def add_analogs(out, past, index, weight, share):  # type: ignore[no-untyped-def]
    """Add to `out` (day, cell) the analogs of each day times their weights and the region's share.

    Parameters
    ----------
    out : (day, cell) float64
    past : (training day, cell) float32
    index, weight : (day, rank)
    share : (cell,)
    """
    for t in range(len(out)):
        for k in range(index.shape[1]):
            row = past[index[t, k]]
            w = weight[t, k]
            for c in range(share.size):
                # Not of a cell without a share: the reference may lack values there.
                out[t, c] += w * share[c] * row[c] if share[c] > 0.0 else 0.0


def _shares(covering: Regions, grid: Grid, lat: slice, lon: slice) -> Floats:
    """Shares of the regions in the cells of some rows and columns, (region, cell)."""
    rows, columns = covering.shares(grid)
    outer = rows[:, None, lat, None] * columns[None, :, None, lon]
    return np.ascontiguousarray(outer.reshape(len(covering), -1))
