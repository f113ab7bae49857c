"""Which rows and columns of a grid a domain needs; imported by the plan, so plain Python.

A grid here is the mapping a lock holds: `lat`, `lon` (centres as the source has them) and
`lat_bnds`, `lon_bnds` (pairs, or None where the source has no bounds).
"""

from __future__ import annotations

import math
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
    """Return the longitude in [west, west + 360), unchanged if it is there or a hair below."""
    return lon - 360.0 * math.floor((lon - west + TOLERANCE) / 360.0)


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


def _widest_gap(lon: list[float]) -> tuple[float, float]:
    """Return the longitude east of the widest gap between neighbours on the circle, and its width.

    A regional grid begins there, also one that crosses the seam of its convention.
    """
    ring = sorted(lon, key=lambda v: v % 360.0)
    gaps = [(b - a) % 360.0 for a, b in zip(ring[-1:] + ring[:-1], ring, strict=True)]
    widest = max(range(len(ring)), key=gaps.__getitem__)
    return ring[widest], gaps[widest] or 360.0


def _is_global(lon: list[float]) -> bool:
    return len(lon) > 1 and _widest_gap(lon)[1] < 1.5 * 360.0 / len(lon)


def _western_end(lon: list[float]) -> float:
    """Return the lowest longitude of a grid as one piece, within -180..180 if it crosses 0."""
    if _is_global(lon):
        return min(lon)
    start, gap = _widest_gap(lon)
    return start - 360.0 if start < 360.0 < start + 360.0 - gap else start


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
    west = _western_end(grid["lon"]) if lon is None else lon[0]
    order, columns = _columns(grid["lon"], west)
    if lon is not None:
        order = [i for i, v in zip(order, columns, strict=True) if v <= lon[1] + TOLERANCE]
        if not _is_global(grid["lon"]):
            centre = (lon[0] + lon[1]) / 2.0
            _inside(lon, sorted(wrap(v, centre - 180.0) for v in grid["lon"]), "lon", where)
    if first >= last or not order:
        raise ConfigError(
            f"{where}: no cell centre of the reference lies in "
            + ", ".join(f"{side} {list(box)}" for side, box in (("lat", lat), ("lon", lon)) if box)
            + f"; its centres span lat {rows[0]:g}..{rows[-1]:g}, lon {min(grid['lon']):g}.."
            f"{max(grid['lon']):g}; make the domain larger"
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
    """Return the coarse cells needed for a fine grid: centres on both sides of each of its own.

    Where the coarse grid ends inside the fine extent, its last row or column serves.

    Raises
    ------
    ConfigError
        The grids do not overlap.
    """
    rows = sorted(grid["lat"])
    lat, lon = fine["lat"], fine["lon"]
    first = max(bisect_right(rows, lat[0]) - 1, 0)
    last = min(bisect_left(rows, lat[-1]) + 1, len(rows))
    west = (lon[0] + lon[-1]) / 2.0 - 180.0
    order, columns = _columns(grid["lon"], west)
    start = max(bisect_right(columns, lon[0]) - 1, 0)
    stop = min(bisect_left(columns, lon[-1]) + 1, len(columns))
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
            f"lon {lon[0]:g}..{lon[-1]:g}); choose another domain or simulation"
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
    lon_bnds = grid["lon_bnds"] or _longitude_midpoints(grid["lon"])
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
    return sorted(b - 360.0 * math.floor((b - centre + 180.0) / 360.0) for b in pair)


def _longitude_midpoints(centres: list[float]) -> list[list[float]]:
    """Return bounds in the source's order, between neighbours on the circle."""
    order, columns = _columns(centres, _western_end(centres))
    between = dict(zip(order, _midpoints(columns, limit=None), strict=True))
    return [between[i] for i in range(len(centres))]


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
