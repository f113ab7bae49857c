"""Sparse regridding matrices between rectilinear grids: how to make, exchange and apply them.

Two engines make the same `Weights`: `rectilinear`, analytic and always there, and `esmf`, which
asks xESMF. Grids are flattened row by row, so that cell = row * nx + column.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from finescale.errors import ConfigError, ContractError
from finescale.grids import FULL_CIRCLE, Floats, Grid, band_height, wrap_longitude

if TYPE_CHECKING:
    import xarray as xr

Integers = NDArray[np.int64]
Unsigned = NDArray[np.uint64]
Four = tuple[float, float, float, float]
Shape = tuple[int, int]
Axis = tuple[Integers, Integers, Floats]  # target, source, weight along one dimension

SLIVER = 1e-12  # [target cells], an overlap that only rounding makes
SNAP = 1e-10  # [source cells], a target this near to a centre lies on it
TIE = 1e-9  # [Earth radii], 6 mm: distances this close are equal
COVERED = 1e-9  # [1], a weight sum this near to one is one

NOTHING: Four = (0.0, 0.0, 0.0, 0.0)

ESMF_METHODS = {  # as ESMF_RegridWeightGen names them in its files
    "conservative": "First-order Conservative",
    "bilinear": "Bilinear",
    "nearest": "Nearest source to destination",
}
XESMF_METHODS = {
    "conservative": {"method": "conservative"},
    # Beyond the outer centres our bilinear takes the nearest one; ESMF would leave a hole.
    "bilinear": {"method": "bilinear", "extrap_method": "nearest_s2d"},
    "nearest": {"method": "nearest_s2d"},
}


@dataclass(frozen=True, eq=False)
class Matrix:
    """Weights in compressed sparse rows, ready to be applied any number of times."""

    indptr: Integers
    indices: NDArray[np.int32]
    data: Floats
    n_src: Shape
    n_dst: Shape


@dataclass(frozen=True, eq=False)
class Weights:
    """A regridding matrix as coordinates, sorted by (row, col), each pair once.

    Parameters
    ----------
    row, col : (nnz,) int32
        Target and source cell, 0-based.
    S : (nnz,) float64
        Weight [1]. For `conservative` the fraction of the target cell's area, so that a row
        sums to the covered fraction; otherwise rows sum to 1.
    n_src, n_dst : (ny, nx)
        Shapes of the two grids.
    method : str
        `conservative`, `bilinear` or `nearest`.

    Raises
    ------
    ContractError
        If the entries are not sorted, repeat a pair or point outside the grids.
    """

    row: NDArray[np.int32]
    col: NDArray[np.int32]
    S: Floats
    n_src: Shape
    n_dst: Shape
    method: str

    def __post_init__(self) -> None:
        sizes = self.n_dst[0] * self.n_dst[1], self.n_src[0] * self.n_src[1]
        for name, cells, size in zip(("row", "col"), (self.row, self.col), sizes, strict=True):
            if cells.size and (cells.min() < 0 or cells.max() >= size):
                raise ContractError(
                    f"weights: {name} must lie in 0..{size - 1}, found {cells.min()}.."
                    f"{cells.max()}; make the weights of this pair of grids again"
                )
        order = self.row.astype(np.int64) * sizes[1] + self.col
        if not self.row.shape == self.col.shape == self.S.shape or (np.diff(order) <= 0).any():
            raise ContractError(
                "weights: row, col and S must be equally long, sorted by (row, col), each pair "
                "once; make the weights of this pair of grids again"
            )

    def row_sums(self) -> Floats:
        """Return the sum of weights of every target cell, (n_dst,) [1]."""
        sums = np.bincount(self.row, weights=self.S, minlength=self.n_dst[0] * self.n_dst[1])
        return sums.astype(np.float64)

    def csr(self) -> Matrix:
        """Return the same matrix in compressed sparse rows."""
        counts = np.bincount(self.row, minlength=self.n_dst[0] * self.n_dst[1])
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        indices = np.ascontiguousarray(self.col, dtype=np.int32)
        data = np.ascontiguousarray(self.S, dtype=np.float64)
        return Matrix(indptr, indices, data, self.n_src, self.n_dst)


def conservative(src: Grid, dst: Grid) -> Weights:
    """Return first-order conservative weights: overlap area over the target cell's area.

    Parallels are the cells' edges, so areas separate into a latitude and a longitude factor.
    Longitudes overlap modulo 360 degrees. A target cell outside the source has no weights.

    References
    ----------
    Jones (1999), doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2, first order.
    """
    lat = _overlaps(src.lat_bnds, dst.lat_bnds, [0], band_height)
    first = int(np.floor((dst.lon_bnds.min() - src.lon_bnds.max()) / FULL_CIRCLE))
    last = int(np.ceil((dst.lon_bnds.max() - src.lon_bnds.min()) / FULL_CIRCLE))
    lon = _overlaps(src.lon_bnds, dst.lon_bnds, range(first, last + 1), lambda lo, hi: hi - lo)
    return _outer(lat, lon, src, dst, method="conservative")


def bilinear(src: Grid, dst: Grid) -> Weights:
    """Return weights that are linear in latitude and longitude between source centres.

    Periodic sources interpolate across their seam. Beyond the outermost centres, towards a pole
    or off a regional grid, the nearest row or column is taken; rows always sum to 1.
    """
    lat = _linear(*_bracket(src.lat, dst.lat))
    n = src.lon.size
    closed = np.append(src.lon, src.lon[0] + FULL_CIRCLE)
    west, east, fraction = _bracket(closed, wrap_longitude(dst.lon, float(src.lon[0])))
    if not src.periodic:
        fraction = np.where(east == n, np.rint(fraction), fraction)
    return _outer(lat, _linear(west, east % n, fraction), src, dst, method="bilinear")


def nearest(src: Grid, dst: Grid) -> Weights:
    """Return weights that take the source centre nearest on the great circle.

    Among equally near centres the lowest cell number wins.
    """
    col = _nearest_points(_unit_vectors(src), _unit_vectors(dst))
    return _canonical(np.arange(dst.size), col, np.ones(dst.size), src.shape, dst.shape, "nearest")


METHODS: dict[str, Callable[[Grid, Grid], Weights]] = {
    "conservative": conservative,
    "bilinear": bilinear,
    "nearest": nearest,
}


def build_rectilinear(src: Grid, dst: Grid, method: str) -> Weights:
    """Return the weights of `method`, computed analytically."""
    return METHODS[method](src, dst)


def build_esmf(src: Grid, dst: Grid, method: str) -> Weights:
    """Return the weights of `method`, computed by ESMF through xESMF.

    ESMF is not thread-safe: call this alone, in a process with one thread.

    Raises
    ------
    ConfigError
        If xESMF or the esmpy below it is not installed.
    """
    try:
        xesmf = importlib.import_module("xesmf")
    except ImportError as error:
        raise ConfigError(
            f"weights: the engine `esmf` needs xesmf and esmpy, but importing them failed "
            f"({error}); install them from conda-forge with envs/finescale.yaml, or choose "
            "`engine: rectilinear`"
        ) from error
    regridder = xesmf.Regridder(
        _esmf_grid(src),
        _esmf_grid(dst),
        periodic=src.periodic,
        unmapped_to_nan=False,
        **XESMF_METHODS[method],
    )
    entries = regridder.weights.data
    row, col = entries.coords
    return _canonical(row, col, entries.data, src.shape, dst.shape, method)


ENGINES: dict[str, Callable[[Grid, Grid, str], Weights]] = {
    "rectilinear": build_rectilinear,
    "esmf": build_esmf,
}


def build(src: Grid, dst: Grid, method: str, engine: str = "rectilinear") -> Weights:
    """Return the weights from `src` to `dst`.

    Parameters
    ----------
    src, dst : Grid
    method : {"conservative", "bilinear", "nearest"}
    engine : {"rectilinear", "esmf"}

    Raises
    ------
    ConfigError
        If method or engine is unknown, or the engine is not installed.
    """
    for word, given, known in (("method", method, METHODS), ("engine", engine, ENGINES)):
        if given not in known:
            raise ConfigError(
                f"weights: {word} must be one of {', '.join(known)}, found {given!r}; "
                f"correct `{word}` in config.yaml"
            )
    return ENGINES[engine](src, dst, method)


def esmf_table(weights: Weights) -> dict[str, tuple[str, NDArray[Any]]]:
    """Return name -> (dimension, values) of ESMF's weight file format, cells 1-based."""
    ones = [np.ones(ny * nx, dtype=np.int32) for ny, nx in (weights.n_src, weights.n_dst)]
    return {
        "S": ("n_s", weights.S),
        "row": ("n_s", weights.row + np.int32(1)),
        "col": ("n_s", weights.col + np.int32(1)),
        "mask_a": ("n_a", ones[0]),
        "mask_b": ("n_b", ones[1]),
        "frac_b": ("n_b", weights.row_sums()),
        # ESMF counts in Fortran order: longitude first.
        "src_grid_dims": ("src_grid_rank", np.array(weights.n_src[::-1], dtype=np.int32)),
        "dst_grid_dims": ("dst_grid_rank", np.array(weights.n_dst[::-1], dtype=np.int32)),
    }


def esmf_attributes(weights: Weights) -> dict[str, str]:
    """Return the attributes of ESMF's weight file format."""
    return {"ESMF_regrid_method": ESMF_METHODS[weights.method], "normalization": "destarea"}


def write_esmf(weights: Weights) -> xr.Dataset:
    """Return the weights as a dataset in ESMF's weight file format."""
    import xarray as xr

    return xr.Dataset(esmf_table(weights), attrs=esmf_attributes(weights))


def read_esmf(
    ds: xr.Dataset,
    *,
    n_src: Shape | None = None,
    n_dst: Shape | None = None,
    method: str | None = None,
) -> Weights:
    """Return the weights held in ESMF's weight file format.

    Parameters
    ----------
    ds : Dataset
        `row`, `col` (1-based) and `S`, and what the keywords don't say: `src_grid_dims`,
        `dst_grid_dims` and the attribute `ESMF_regrid_method`. Files of xESMF lack these.
    n_src, n_dst : (ny, nx), optional
    method : {"conservative", "bilinear", "nearest"}, optional

    Raises
    ------
    ContractError
        If a variable is missing or the grids or the method are not known.
    """
    shapes = []
    for name, shape in (("src_grid_dims", n_src), ("dst_grid_dims", n_dst)):
        found = shape or tuple(int(n) for n in np.ravel(ds.get(name, []))[::-1])
        if len(found) != 2:
            raise ContractError(
                f"weight file: {name} must hold (nx, ny), found {found[::-1]}; "
                "give n_src and n_dst when the file does not say"
            )
        shapes.append((found[0], found[1]))
    title = str(ds.attrs.get("ESMF_regrid_method"))
    known = method or {title: ours for ours, title in ESMF_METHODS.items()}.get(title)
    absent = {"row", "col", "S"} - set(ds.variables)
    if absent or known is None:
        raise ContractError(
            f"weight file: needs row, col, S and a known method, lacks {sorted(absent)} and says "
            f"{title!r}; give `method`, or write the file with ESMF_RegridWeightGen"
        )
    row, col = (ds[name].values.astype(np.int64) - 1 for name in ("row", "col"))
    return _canonical(row, col, ds["S"].values, shapes[0], shapes[1], known)


def apply(
    weights: Weights | Matrix,
    field: NDArray[Any],
    *,
    min_valid_fraction: float = 0.5,
    rows: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return `field` on the target grid, renormalised by the valid part of every target cell.

    Parameters
    ----------
    weights : Weights or Matrix
        Pass `weights.csr()` when the same weights are applied more than once.
    field : (time, n_src) float32 or float64
        Values on the source grid; NaN where invalid.
    min_valid_fraction : float
        Target cells whose valid weights sum to less become NaN [1]; area outside the source
        counts as invalid. A cell without any valid source is NaN at 0 too.
    rows : (n_rows,) int64, optional
        Target cells to compute, all by default. A value does not depend on the others asked for.

    Returns
    -------
    (time, n_rows), dtype of `field`; sums are float64.

    Raises
    ------
    ContractError
        If `field` or `rows` do not fit the weights.
    """
    matrix = weights.csr() if isinstance(weights, Weights) else weights
    n_src, n_dst = matrix.n_src[0] * matrix.n_src[1], matrix.n_dst[0] * matrix.n_dst[1]
    if field.ndim != 2 or field.shape[1] != n_src or field.dtype not in (np.float32, np.float64):
        raise ContractError(
            f"regrid: field must be float32 or float64 of shape (time, {n_src}) for a source grid "
            f"of {matrix.n_src}, found {field.dtype} {field.shape}; flatten it as (time, cell)"
        )
    chosen = np.arange(n_dst) if rows is None else np.ascontiguousarray(rows, dtype=np.int64)
    if chosen.size and (chosen.min() < 0 or chosen.max() >= n_dst):
        raise ContractError(
            f"regrid: rows must lie in 0..{n_dst - 1}, found {chosen.min()}..{chosen.max()}; "
            f"number the cells of the target grid {matrix.n_dst}"
        )
    out = np.empty((field.shape[0], chosen.size), dtype=field.dtype)
    # Numba would ask of every signed index whether it counts from the end: half of the time.
    _apply(
        matrix.indptr.view(np.uint64),
        matrix.indices.view(np.uint32),
        matrix.data,
        np.ascontiguousarray(field),
        chosen.view(np.uint64),
        float(min_valid_fraction),
        out,
    )
    return out


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _apply(
    indptr: Unsigned,
    indices: NDArray[np.uint32],
    data: Floats,
    field: NDArray[Any],
    rows: Unsigned,
    least: float,
    out: NDArray[Any],
) -> None:
    """Write the means of all time steps, four at a time: one vector operation serves them all.

    Every sum is in the order of `data`. Adding the 0 that stands for an invalid value changes none.
    """
    broken, whole = _survey(indptr, indices, data, field, rows)
    value = np.empty((field.shape[1], 4))
    known = np.empty_like(value) if broken.any() else np.empty((0, 4))
    last = field.shape[0] - 1
    for t in range(0, field.shape[0], 4):
        # The last steps repeat the last one where fewer than four are left.
        t1, t2, t3 = min(t + 1, last), min(t + 2, last), min(t + 3, last)
        _interleave(field[t], field[t1], field[t2], field[t3], value, known)
        for k in range(np.uint64(rows.size)):
            entries = range(indptr[rows[k]], indptr[rows[k] + np.uint64(1)])
            total = valid = NOTHING
            if broken[k]:
                for p in entries:
                    total = _add(total, data[p], value[indices[p]])
                    valid = _add(valid, data[p], known[indices[p]])
            else:
                for p in entries:
                    total = _add(total, data[p], value[indices[p]])
                if abs(whole[k] - 1.0) <= COVERED:  # as `_mean` would have it, four times
                    out[t, k], out[t1, k], out[t2, k], out[t3, k] = total
                    continue
                valid = whole[k], whole[k], whole[k], whole[k]
            out[t, k] = _mean(total[0], valid[0], least)
            out[t1, k] = _mean(total[1], valid[1], least)
            out[t2, k] = _mean(total[2], valid[2], least)
            out[t3, k] = _mean(total[3], valid[3], least)


@numba.njit(nogil=True, cache=True)
def _add(sums: Four, weight: float, values: Floats) -> Four:
    """Return the sums of four time steps with a weighted value added to each."""
    a, b, c, d = sums
    w = weight
    return a + w * values[0], b + w * values[1], c + w * values[2], d + w * values[3]


@numba.njit(nogil=True, cache=True)
def _survey(
    indptr: Unsigned,
    indices: NDArray[np.uint32],
    data: Floats,
    field: NDArray[Any],
    rows: Unsigned,
) -> tuple[NDArray[np.bool_], Floats]:
    """Return which rows ever meet an invalid value, and the sum of the weights of each."""
    invalid = np.zeros(field.shape[1], dtype=np.bool_)
    for t in range(field.shape[0]):
        for cell in range(field.shape[1]):
            invalid[cell] |= np.isnan(field[t, cell])
    broken, whole = np.zeros(rows.size, dtype=np.bool_), np.zeros(rows.size)
    for k in range(rows.size):
        for p in range(indptr[rows[k]], indptr[rows[k] + np.uint64(1)]):
            broken[k] |= invalid[indices[p]]
            whole[k] += data[p]
    return broken, whole


@numba.njit(nogil=True, cache=True, inline="always")
def _interleave(
    f0: NDArray[Any],
    f1: NDArray[Any],
    f2: NDArray[Any],
    f3: NDArray[Any],
    value: Floats,
    known: Floats,
) -> None:
    """Put four time steps side by side: values, 0 where invalid, and whether they are valid.

    Where `known` is empty all values are valid.
    """
    if known.size == 0:
        for cell in range(np.uint64(f0.size)):
            value[cell, 0] = f0[cell]
            value[cell, 1] = f1[cell]
            value[cell, 2] = f2[cell]
            value[cell, 3] = f3[cell]
    else:
        for cell in range(np.uint64(f0.size)):
            value[cell, 0], known[cell, 0] = _or_zero(f0[cell])
            value[cell, 1], known[cell, 1] = _or_zero(f1[cell])
            value[cell, 2], known[cell, 2] = _or_zero(f2[cell])
            value[cell, 3], known[cell, 3] = _or_zero(f3[cell])


@numba.njit(nogil=True, cache=True)
def _or_zero(x: float) -> tuple[float, float]:
    valid = not np.isnan(x)
    return (np.float64(x) if valid else 0.0), (1.0 if valid else 0.0)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _mean(total: float, valid: float, least: float) -> float:
    """Return a sum renormalised by the valid part of its weights, NaN if that is too little."""
    enough = (valid > 0.0) & (valid >= least - COVERED)
    part = 1.0 if abs(valid - 1.0) <= COVERED else valid
    return total / part if enough else np.nan


def fill_nearest(valid: NDArray[np.bool_], grid: Grid) -> tuple[NDArray[np.int32], Floats]:
    """Return the valid cell that serves each cell, and how many cells away it lies.

    Parameters
    ----------
    valid : (ny, nx) bool
        Cells that have data.
    grid : Grid
        The grid of these cells.

    Returns
    -------
    index : (n,) int32
        The cell itself where valid, else the valid cell nearest on the great circle, the lowest
        number among equals.
    distance : (n,) float64
        The larger of the row and the column distance [cells]; 0 where valid.

    Raises
    ------
    ContractError
        If no cell is valid, or the shapes differ.
    """
    if valid.shape != grid.shape or not valid.any():
        raise ContractError(
            f"fill: needs a mask of shape {grid.shape} with a valid cell, found shape "
            f"{valid.shape} with {int(valid.sum())} valid; check the mask and the domain"
        )
    index = np.arange(grid.size)
    sources, holes = np.flatnonzero(valid), np.flatnonzero(~valid)
    points = _unit_vectors(grid)
    if holes.size:
        index[holes] = sources[_nearest_points(points[sources], points[holes])]
    nx = grid.shape[1]
    down, across = np.abs(np.array(np.divmod(index, nx)) - np.divmod(np.arange(grid.size), nx))
    if grid.periodic:
        across = np.minimum(across, nx - across)
    return index.astype(np.int32), np.maximum(down, across).astype(np.float64)


def compose(weights: Weights, index: NDArray[Any]) -> Weights:
    """Return weights that read source cell `index[c]` wherever `weights` read cell c.

    Parameters
    ----------
    weights : Weights
    index : (n_src,) int
        As `fill_nearest` returns it.
    """
    n_src = weights.n_src[0] * weights.n_src[1]
    if index.shape != (n_src,):
        raise ContractError(
            f"fill: index must have shape ({n_src},), one entry per source cell, found "
            f"{index.shape}; take it from the grid the weights start from"
        )
    return _canonical(
        weights.row, index[weights.col], weights.S, weights.n_src, weights.n_dst, weights.method
    )


def filled_mask(weights: Weights, distance: Floats, *, reach: float = 1.0) -> NDArray[np.bool_]:
    """Return which target cells rely on a source cell that was filled from beyond `reach`.

    Parameters
    ----------
    weights : Weights
        As they were before `compose`.
    distance : (n_src,) float64
        As `fill_nearest` returns it [cells].
    reach : float
        The largest distance that is not flagged [cells].

    Returns
    -------
    (n_dst,) bool
    """
    mask = np.zeros(weights.n_dst[0] * weights.n_dst[1], dtype=bool)
    mask[weights.row[distance[weights.col] > reach]] = True
    return mask


def _canonical(
    row: NDArray[Any], col: NDArray[Any], S: Floats, n_src: Shape, n_dst: Shape, method: str
) -> Weights:
    """Return the entries sorted, repeated pairs summed, zeros dropped."""
    key, inverse = np.unique(
        np.asarray(row, dtype=np.int64) * (n_src[0] * n_src[1]) + col, return_inverse=True
    )
    total = np.bincount(inverse, weights=S, minlength=key.size)
    key, total = key[total != 0], total[total != 0]
    row, col = np.divmod(key, n_src[0] * n_src[1])
    return Weights(row.astype(np.int32), col.astype(np.int32), total, n_src, n_dst, method)


def _outer(lat: Axis, lon: Axis, src: Grid, dst: Grid, *, method: str) -> Weights:
    row = np.add.outer(lat[0] * dst.lon.size, lon[0]).ravel()
    col = np.add.outer(lat[1] * src.lon.size, lon[1]).ravel()
    return _canonical(
        row, col, np.multiply.outer(lat[2], lon[2]).ravel(), src.shape, dst.shape, method
    )


def _overlaps(
    src: Floats,
    dst: Floats,
    turns: range | list[int],
    extent: Callable[[Floats, Floats], Floats],
) -> Axis:
    """Return the fraction of each target interval that each source interval covers."""
    overlap = np.zeros((len(dst), len(src)))
    for turn in turns:
        lower = np.maximum(dst[:, :1], src[:, 0] + turn * FULL_CIRCLE)
        upper = np.minimum(dst[:, 1:], src[:, 1] + turn * FULL_CIRCLE)
        overlap += extent(lower, np.maximum(lower, upper))
    fraction = overlap / extent(dst[:, :1], dst[:, 1:])
    target, source = np.nonzero(fraction > SLIVER)
    return target, source, fraction[target, source]


def _bracket(centres: Floats, x: Floats) -> tuple[Integers, Integers, Floats]:
    """Return the centres below and above `x` and its fraction of the way, held at the ends."""
    lower = np.clip(np.searchsorted(centres, x, side="right") - 1, 0, max(centres.size - 2, 0))
    upper = np.minimum(lower + 1, centres.size - 1)
    step = np.where(upper > lower, centres[upper] - centres[lower], 1.0)
    fraction = np.clip((x - centres[lower]) / step, 0.0, 1.0)
    whole = np.rint(fraction)
    return lower, upper, np.where(np.abs(fraction - whole) < SNAP, whole, fraction)


def _linear(lower: Integers, upper: Integers, fraction: Floats) -> Axis:
    target = np.arange(lower.size)
    return (
        np.concatenate([target, target]),
        np.concatenate([lower, upper]),
        np.concatenate([1.0 - fraction, fraction]),
    )


def _unit_vectors(grid: Grid) -> Floats:
    lat, lon = np.meshgrid(np.deg2rad(grid.lat), np.deg2rad(grid.lon), indexing="ij")
    parts = [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]
    return np.stack([part.ravel() for part in parts], axis=1)


def _nearest_points(sources: Floats, targets: Floats) -> Integers:
    """Return the nearest source of each target; chords order points as great circles do."""
    if len(sources) == 1:
        return np.zeros(len(targets), dtype=np.int64)
    from scipy.spatial import cKDTree

    tree = cKDTree(sources)
    distance, index = tree.query(targets, k=2)
    tied = distance[:, 1] - distance[:, 0] <= TIE
    equals = tree.query_ball_point(targets[tied], distance[tied, 0] + TIE)
    lowest: Integers = index[:, 0].astype(np.int64)
    lowest[tied] = [min(cells) for cells in equals]
    return lowest


def _esmf_grid(grid: Grid) -> dict[str, Floats]:
    return {
        "lat": grid.lat,
        "lon": grid.lon,
        "lat_b": np.append(grid.lat_bnds[:, 0], grid.lat_bnds[-1, 1]),
        "lon_b": np.append(grid.lon_bnds[:, 0], grid.lon_bnds[-1, 1]),
    }


def localise(matrix: Matrix, rows: NDArray[Any]) -> tuple[Matrix, slice, slice]:
    """Return the matrix of some target cells, and the source rows and columns it reads.

    Parameters
    ----------
    matrix : Matrix
    rows : (n_rows,) int64
        Target cells.

    Returns
    -------
    Matrix
        From the source cells of the box `lat`, `lon` to the target cells `rows`, in their order.
    lat, lon : slice
        The smallest box of source cells that holds all that are read; (0:1, 0:1) if none is.
    """
    lengths = np.diff(matrix.indptr)[rows]
    starts = matrix.indptr[:-1][rows]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    entries = np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])
    row, col = np.divmod(matrix.indices[entries].astype(np.int64), matrix.n_src[1])
    if entries.size == 0:
        row = col = np.zeros(1, dtype=np.int64)
    lat, lon = (slice(int(i.min()), int(i.max()) + 1) for i in (row, col))
    width = lon.stop - lon.start
    indices = ((row - lat.start) * width + col - lon.start).astype(np.int32)
    box = (lat.stop - lat.start, width)
    return Matrix(indptr, indices, matrix.data[entries], box, (1, len(rows))), lat, lon
