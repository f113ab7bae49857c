"""Which rows and columns of a grid a domain needs; imported by the plan, so plain Python.

A grid here is the mapping a lock holds: `lat`, `lon` (centres as the source has them) and
`lat_bnds`, `lon_bnds` (pairs, or None where the source has no bounds).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from finescale.errors import ConfigError

GridLists = dict[str, Any]
TOLERANCE = 1e-6
"""[degree] Slack when centres are compared with a box: sources store float32 coordinates."""


@dataclass(frozen=True)
class Selection:
    """Rows of the ascending latitudes, column ranges of the source in their final order.

    `west` is the lowest longitude of the convention of the selected columns.
    """

    lat: tuple[int, int]
    lon: tuple[tuple[int, int], ...]
    west: float

    def parameters(self) -> dict[str, Any]:
        """Return the selection as a stage takes it."""
        return {"lat": list(self.lat), "lon": [list(part) for part in self.lon], "west": self.west}


def wrap(lon: float, west: float) -> float:
    """Return the longitude in [west, west + 360) (a hair below `west` counts as `west`)."""
    return west + (lon - west + TOLERANCE) % 360.0 - TOLERANCE


def _columns(lon: list[float], west: float) -> tuple[list[int], list[float]]:
    """Return the source's column numbers in the order of the wrapped longitudes, and those."""
    wrapped = [wrap(v, west) for v in lon]
    order = sorted(range(len(lon)), key=wrapped.__getitem__)
    return order, [wrapped[i] for i in order]


def _ranges(order: list[int]) -> tuple[tuple[int, int], ...]:
    """Return column numbers as contiguous ascending ranges."""
    parts: list[list[int]] = []
    for i in order:
        if parts and i == parts[-1][1]:
            parts[-1][1] += 1
        else:
            parts.append([i, i + 1])
    return tuple((a, b) for a, b in parts)


def _is_global(lon: list[float]) -> bool:
    step = (max(lon) - min(lon)) / max(len(lon) - 1, 1)
    return len(lon) > 1 and abs(step * len(lon) - 360.0) < 0.5 * step


def select_box(
    grid: GridLists, lat: tuple[float, float] | None, lon: tuple[float, float] | None, *, where: str
) -> Selection:
    """Return the cells whose centres lie in the box; all of the grid where a side is None.

    Raises
    ------
    ConfigError
        The box holds no cell centre, or reaches more than a cell beyond the grid.
    """
    rows = sorted(grid["lat"])
    first, last = 0, len(rows)
    if lat is not None:
        first, last = bisect_left(rows, lat[0] - TOLERANCE), bisect_right(rows, lat[1] + TOLERANCE)
        _inside(lat, rows, "lat", where)
    west = min(grid["lon"]) if lon is None else lon[0]
    order, columns = _columns(grid["lon"], west)
    if lon is not None:
        order = [i for i, v in zip(order, columns, strict=True) if v <= lon[1] + TOLERANCE]
        if not _is_global(grid["lon"]):
            centre = (lon[0] + lon[1]) / 2.0
            _inside(lon, sorted(wrap(v, centre - 180.0) for v in grid["lon"]), "lon", where)
    if first >= last or not order:
        raise ConfigError(
            f"{where}: no cell centre lies in lat {lat}, lon {lon}; the grid spans "
            f"lat {rows[0]:g}..{rows[-1]:g}, lon {min(grid['lon']):g}..{max(grid['lon']):g}"
        )
    return Selection((first, last), _ranges(order), west)


def _inside(box: tuple[float, float], centres: list[float], side: str, where: str) -> None:
    cell = (centres[-1] - centres[0]) / max(len(centres) - 1, 1)
    if box[0] < centres[0] - cell or box[1] > centres[-1] + cell:
        raise ConfigError(
            f"{where}: {side} {list(box)} reaches beyond the reference, whose cell centres span "
            f"{centres[0]:g}..{centres[-1]:g}; make the domain smaller"
        )


def select_around(grid: GridLists, fine: GridLists, *, where: str) -> Selection:
    """Return the coarse cells needed for a fine grid: its extent and one centre beyond each side.

    Where the coarse grid ends inside the fine extent, its last row or column serves.

    Raises
    ------
    ConfigError
        The grids do not overlap.
    """
    rows = sorted(grid["lat"])
    lat, lon = fine["lat"], fine["lon"]
    first = max(bisect_right(rows, lat[0]) - 2, 0)
    last = min(bisect_left(rows, lat[-1]) + 2, len(rows))
    west = (lon[0] + lon[-1]) / 2.0 - 180.0
    order, columns = _columns(grid["lon"], west)
    start = max(bisect_right(columns, lon[0]) - 2, 0)
    stop = min(bisect_left(columns, lon[-1]) + 2, len(columns))
    cell = (columns[-1] - columns[0]) / max(len(columns) - 1, 1)
    height = (rows[-1] - rows[0]) / max(len(rows) - 1, 1)
    apart = (
        lat[-1] < rows[0] - height
        or lat[0] > rows[-1] + height
        or lon[-1] < columns[0] - cell
        or lon[0] > columns[-1] + cell
    )
    if apart or first >= last or start >= stop:
        raise ConfigError(
            f"{where}: its grid (lat {rows[0]:g}..{rows[-1]:g}, lon {columns[0]:g}.."
            f"{columns[-1]:g}) does not overlap the domain (lat {lat[0]:g}..{lat[-1]:g}, "
            f"lon {lon[0]:g}..{lon[-1]:g})"
        )
    if _is_global(grid["lon"]) and (stop - start) * cell > 300.0:
        west = lon[0] - 0.5 * cell
        order, columns = _columns(grid["lon"], west)
        start, stop = 0, len(columns)
    return Selection((first, last), _ranges(order[start:stop]), west)


def crop(grid: GridLists, selection: Selection) -> GridLists:
    """Return the selected grid: latitudes ascending, longitudes in the selection's convention.

    Bounds are made of midpoints of the whole grid where the source has none, so that a cropped
    grid keeps the cells of the grid it was cut from.
    """
    lat_bnds = grid["lat_bnds"] or _midpoints(grid["lat"], limit=90.0)
    lon_bnds = grid["lon_bnds"] or _midpoints(grid["lon"], limit=None)
    rows = sorted(range(len(grid["lat"])), key=grid["lat"].__getitem__)[slice(*selection.lat)]
    columns = [i for part in selection.lon for i in range(*part)]
    lon = [wrap(grid["lon"][i], selection.west) for i in columns]
    shifts = [new - grid["lon"][i] for new, i in zip(lon, columns, strict=True)]
    return {
        "lat": [grid["lat"][i] for i in rows],
        "lon": lon,
        "lat_bnds": [sorted(lat_bnds[i]) for i in rows],
        "lon_bnds": [
            [b + shift for b in _ordered(lon_bnds[i], grid["lon"][i])]
            for shift, i in zip(shifts, columns, strict=True)
        ],
    }


def _ordered(pair: list[float], centre: float) -> list[float]:
    """Return a cell's longitude bounds ascending and around its centre (bounds may wrap)."""
    return sorted(centre + ((b - centre + 180.0) % 360.0 - 180.0) for b in pair)


def _midpoints(centres: list[float], *, limit: float | None) -> list[list[float]]:
    if len(centres) < 2:
        raise ConfigError(
            f"a grid with the single coordinate {centres} needs bounds; add them to the dataset"
        )
    edges = [(a + b) / 2.0 for a, b in pairwise(centres)]
    edges = [2 * centres[0] - edges[0], *edges, 2 * centres[-1] - edges[-1]]
    if limit is not None:
        edges = [max(-limit, min(limit, e)) for e in edges]
    return [[a, b] for a, b in pairwise(edges)]
