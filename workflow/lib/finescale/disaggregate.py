"""From the coarse to the fine grid: what every product stage shares.

Fine cells need only their coarse neighbours, so a product is written in one pass: read the small
coarse store, interpolate, apply what the method adds, write. No fine intermediate exists.

An interpolation may first solve for the point values of the coarse cells. That couples all of
them, but no two days: it is done once, before the tiles, and the coarse series stay in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from finescale import calendars, chunking, fields, regrid
from finescale import weights as weights_stage
from finescale.blocks import Tile, slabs, tiles
from finescale.calendars import Days
from finescale.errors import ContractError
from finescale.fields import Field
from finescale.grids import Grid
from finescale.job import Job
from finescale.store import Array, Contract, Piece, Store
from finescale.variables import MM_PER_DAY, VARIABLES

Anomaly = Callable[[slice, slice], Callable[[NDArray[Any], Days], NDArray[Any]]]
"""(coarse rows, columns) -> (coarse block (time, lat, lon) of these, its days) -> what is
interpolated."""
Count = NDArray[np.int32]
Finish = Callable[[Tile, Count], Callable[[NDArray[Any], Days, slice], NDArray[Any]]]
"""(tile, its corrected days) -> (interpolated (time, lat, lon), its days, time slice of the
product) -> the product, whose corrections are counted."""


Fill = Literal["nearest", "smooth"]
UNIFORM = 1e-6  # [1], how well a uniform field must survive the solver


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Bilinear interpolation from valid coarse cells, and how holes get values.

    Parameters
    ----------
    matrix
        From the coarse to the fine grid.
    filled
        (lat, lon) fine cells that are served from beyond one coarse cell.
    valid
        (lat, lon) coarse cells that have values.
    system
        `point_system` of the coarse grid, if `matrix` takes what `point_solver` makes of valid
        values; without one it takes these themselves.
    """

    matrix: regrid.Matrix
    filled: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    system: sparse.csc_array | None = None

    @classmethod
    def between(
        cls,
        weights: Store,
        *,
        coarse: Grid,
        fine: Grid,
        valid: NDArray[np.bool_],
        fill: Fill = "nearest",
        means: sparse.csr_array | None = None,
    ) -> Interpolation:
        """Return the interpolation for a coarse mask `valid` (lat, lon).

        Parameters
        ----------
        fill
            A hole takes the nearest valid value, or the solution of Laplace's equation.
        means
            (coarse cell, fine cell) `area_means` to be preserved; by default none are.
        """
        table = weights_stage.read(weights, src=coarse, dst=fine)
        index, distance = regrid.fill_nearest(valid, coarse)
        filled = regrid.filled_mask(table, distance).reshape(fine.shape)
        if fill == "nearest" and means is None:
            return cls(regrid.compose(table, index).csr(), filled, valid)
        every = sparse.eye_array(coarse.size, format="csr")
        filling = laplacian(coarse.shape) if fill == "smooth" else every - every[index]
        kept = sparse.csr_array((coarse.size, fine.size)) if means is None else means
        system = point_system(valid.reshape(-1), filling, kept @ _scipy(table))
        return cls(table.csr(), filled, valid, system)


def area_means(
    weights: Store,
    *,
    coarse: Grid,
    fine: Grid,
    mask: NDArray[np.bool_],
    min_valid_fraction: float,
) -> sparse.csr_array:
    """Return the matrix (coarse cell, fine cell) of conservative means over the cells of `mask`.

    The row of a coarse cell is empty where these cover less than `min_valid_fraction` of its area.
    """
    means = _scipy(weights_stage.read(weights, src=fine, dst=coarse))
    means = means @ sparse.diags_array(mask.reshape(-1).astype(np.float64))
    covered = means.sum(axis=1)
    enough = (covered > 0) & (covered >= min_valid_fraction - regrid.COVERED)
    means = sparse.diags_array(np.where(enough, 1 / np.where(enough, covered, 1), 0)) @ means
    means.eliminate_zeros()
    return means.tocsr()


def laplacian(shape: tuple[int, int]) -> sparse.csr_array:
    """Return the matrix (cell, cell) of each cell's differences to its four neighbours, summed.

    Nothing flows across the edge of the box, a seam of longitudes included; all cells count alike.
    """
    steps = [np.diff(np.eye(n), axis=0) for n in shape]
    lat, lon = (sparse.csr_array(step.T @ step) for step in steps)
    return sparse.kronsum(lon, lat, format="csr")


def point_system(
    valid: NDArray[np.bool_], filling: sparse.csr_array, means: sparse.csr_array
) -> sparse.csc_array:
    """Return the matrix that takes point values of the coarse grid to what is known of them.

    Parameters
    ----------
    valid
        (cell,) cells whose value is known.
    filling
        (cell, cell); its row times the point values is 0 in a hole.
    means
        (cell, cell); its row times the point values is the known value of a valid cell. Where the
        row is empty the known value is the point value.
    """
    preserved = valid & (np.diff(means.indptr) > 0)
    rows = (~valid, filling), (preserved, means), (valid & ~preserved, sparse.eye_array(valid.size))
    system = sum(sparse.diags_array(chosen.astype(np.float64)) @ matrix for chosen, matrix in rows)
    system = sparse.csc_array(system)
    system.eliminate_zeros()
    return system


def point_solver(
    system: sparse.csc_array, valid: NDArray[np.bool_], *, where: str
) -> Callable[[NDArray[Any]], NDArray[np.float64]]:
    """Return the function from known values to point values, (time, lat, lon) both.

    Parameters
    ----------
    system
        `point_system` of `valid`.
    valid
        (lat, lon) cells whose value is known; the others' may be anything, and get one.
    where
        The store that is solved for, for messages.

    Raises
    ------
    ContractError
        What is known does not determine the point values.

    References
    ----------
    In the spirit of Rymes & Myers (2001), doi:10.1016/S0038-092X(01)00052-4.
    """
    try:
        factors = splu(system)
        error = np.abs(factors.solve(valid.reshape(-1).astype(np.float64)) - 1).max()
    except RuntimeError:  # how SciPy says that a matrix is singular
        error = np.inf
    if not error <= UNIFORM:
        raise ContractError(
            f"{where}: its area means must determine the point values of its {int(valid.sum())} "
            f"valid cells, but a uniform anomaly comes back off by {error:.1g}; raise "
            "`coarsen.min_valid_fraction` or set `bcsd: {interpolation: bilinear}`"
        )

    def solve(known: NDArray[Any]) -> NDArray[np.float64]:
        days = np.where(valid, known, 0).astype(np.float64).reshape(-1, valid.size)
        # Day by day: the bits of several solved together depend on how many they are.
        return np.reshape([factors.solve(day) for day in days], known.shape)

    return solve


def run(
    work: Job,
    *,
    coarse: Field,
    interpolation: Interpolation,
    mask: NDArray[np.bool_],
    fine: Grid,
    variable_id: str,
    calendar: str | None,
    attributes: Mapping[str, Any],
    anomaly: Anomaly,
    finish: Finish,
) -> None:
    """Write a daily product on the fine grid, NaN exactly where `mask` is False.

    Parameters
    ----------
    coarse
        What is interpolated.
    mask
        (lat, lon) fine cells that belong to the product.
    calendar
        Convert the product's axis to this calendar; an inserted day repeats the day before it.
    anomaly, finish
        What the method does before and after the interpolation.
    """
    days, index = product_axis(coarse.days, calendar)
    points = None
    if interpolation.system is not None:
        solve = point_solver(interpolation.system, interpolation.valid, where=coarse.store.url)
        points = coarse.read()
        departures = anomaly(slice(None), slice(None))
        for time in slabs(len(points), chunking.SLAB):
            points[time] = solve(departures(points[time], coarse.days[time]))
    arrays = declare(variable_id, days, fine, interpolation.filled & mask)
    converted = converted_from(coarse.days, days)
    writer = work.create(arrays, {**attributes, **coarse.season, **converted}, mask=mask)
    chunks = arrays[variable_id].chunks

    def compute(tile: Tile) -> Iterator[Piece]:
        rows = tile.rows(fine.shape[1])
        inside = mask[tile.lat, tile.lon].reshape(-1)
        local, lat, lon = regrid.localise(interpolation.matrix, rows)
        corrected = np.zeros(tile.shape, np.int32)
        complete = finish(tile, corrected)
        series = coarse.read(slice(None), lat, lon) if points is None else points[:, lat, lon]
        departures = anomaly(lat, lon) if points is None else None
        for time in slabs(len(days), chunks[0]):
            quantity, dates = series[index[time]], days[time]
            if departures is not None:
                quantity = departures(quantity, coarse.days[index[time]])
            smooth = regrid.apply(local, quantity.reshape(len(dates), -1), min_valid_fraction=0.0)
            block = complete(smooth.reshape(-1, *tile.shape), dates, time)
            block = np.ascontiguousarray(block, dtype=np.float32)
            block.reshape(len(dates), -1)[:, ~inside] = np.nan
            yield variable_id, (time, tile.lat, tile.lon), block
        yield "n_corrected", (tile.lat, tile.lon), np.where(mask[tile.lat, tile.lon], corrected, 0)

    work.fill(writer, compute, tiles(arrays[variable_id].shape, chunks))


def declare(
    variable_id: str,
    days: Days,
    fine: Grid,
    filled: NDArray[np.bool_],
    *,
    corrected: str = "days set to a physical limit",
    counts: Mapping[str, tuple[str, int]] | None = None,
) -> dict[str, Array]:
    """Return the arrays of a daily product: the variable, `filled`, `n_corrected` and other counts.

    Parameters
    ----------
    filled
        (lat, lon) fine cells of the product that are served from beyond one coarse cell.
    corrected
        What `n_corrected` counts in each cell.
    counts
        Of other counts: name -> (what it counts, the most there can be).
    """
    counted = {"n_corrected": (corrected, len(days)), **(counts or {})}
    ancillary = {"ancillary_variables": " ".join(["filled", *counted])}
    arrays = fields.declare(
        variable_id, days, fine, layout="tiles", nan="mask", attributes=ancillary
    )
    arrays["filled"] = fields.flag(
        filled, "coarse value taken from beyond one coarse cell", "near filled"
    )
    chunks = arrays[variable_id].chunks[1:]
    for name, (meaning, most) in counted.items():
        told = {"long_name": meaning, "units": "1"}
        arrays[name] = Array(("lat", "lon"), fine.shape, chunks, "<i4", told, Contract((0, most)))
    return arrays


def converted_from(own: Days, days: Days) -> dict[str, str]:
    """Return the attribute that tells a product's axis was converted; empty if it was not."""
    return {} if days.calendar == own.calendar else {"calendar_converted_from": own.calendar}


def product_limits(variable_id: str, *, pr_ceiling: float = np.inf) -> tuple[float, float]:
    """Return the least and largest value of a product; `pr_ceiling` in mm/day."""
    low, high = VARIABLES[variable_id].limits
    return low, min(high, pr_ceiling * MM_PER_DAY) if variable_id == "pr" else high


def limited(values: NDArray[Any], limits: tuple[float, float], count: Count) -> NDArray[Any]:
    """Return values (time, lat, lon) within physical limits; `count` gains the days of each cell.

    Parameters
    ----------
    limits
        Least and largest value.
    """
    low, high = limits
    if np.isinf(limits).all():
        return values
    count += ((values < low) | (values > high)).sum(axis=0, dtype=np.int32)
    return np.clip(values, low, high)


def product_axis(days: Days, calendar: str | None) -> tuple[Days, NDArray[np.int64]]:
    """Return the product's days and, for each, the day of the coarse series it takes."""
    if calendar is None or calendars.reread(calendar) == days.calendar:
        return days, np.arange(len(days))
    target, index = calendars.convert(days, calendar)
    return target, np.maximum.accumulate(np.where(index < 0, 0, index))


def _scipy(weights: regrid.Weights) -> sparse.csr_array:
    shape = (weights.n_dst[0] * weights.n_dst[1], weights.n_src[0] * weights.n_src[1])
    return sparse.csr_array((weights.S, (weights.row, weights.col)), shape)
