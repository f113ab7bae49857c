"""Sources put into Finescale's form: CMIP6 names and units, ascending latitudes, one convention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finescale import chunking, domains, fields, rechunk
from finescale.blocks import Tile, slabs, tiles
from finescale.calendars import Days, check_daily
from finescale.errors import SourceError
from finescale.grids import Grid
from finescale.job import Job
from finescale.store import Array, Piece
from finescale.variables import MM_PER_DAY

NEGATIVE_PR = -0.1 * MM_PER_DAY
"""[kg m-2 s-1] Round-off of spectral models and of reanalyses' accumulations reaches below 0."""
NEGATIVE_PR_REPAIR = "pr from -0.1 mm/day up to 0 set to 0 (round-off of the source)"
STEP_VALUES = 2_000_000
"""Decoded at a time, in float64."""


def run(
    work: Job,
    *,
    source: str,
    variable_id: str,
    select: Mapping[str, Any],
    period: tuple[str, str],
    season: str | None,
    attributes: Mapping[str, Any],
    layout: chunking.Layout,
) -> None:
    """Write one variable of one dataset, standardised.

    Parameters
    ----------
    source
        Content id in the inputs lock.
    select
        Rows and columns (`domains.Selection.parameters`).
    period
        First and last day.

    Raises
    ------
    SourceError
        Days of the period are missing from the source, or all its values.
    """
    opened = work.source(source)
    selection = domains.Selection(
        tuple(select["lat"]), tuple(tuple(part) for part in select["lon"]), select["west"]
    )
    lists = {
        name: None if (values := getattr(opened, name)) is None else values.tolist()
        for name in ("lat", "lon", "lat_bnds", "lon_bnds")
    }
    grid = Grid.from_json(domains.crop(lists, selection))
    start, stop = within(opened.days, period, where=opened.name)
    days = opened.days[start:stop]
    check_daily(days, season=season, where=opened.name)
    descending = opened.lat[0] > opened.lat[-1]
    n_lat = opened.lat.size

    arrays = fields.declare(variable_id, days, grid, layout=layout, nan="allowed")
    declared = {"season": season} if season else {}
    repaired = {"repair": NEGATIVE_PR_REPAIR} if variable_id == "pr" else {}
    writer = work.create(arrays, {**attributes, **declared, **repaired})

    def read(time: slice, lat: slice, columns: tuple[tuple[int, int], ...]) -> Any:
        rows = slice(lat.start + selection.lat[0], lat.stop + selection.lat[0])
        if descending:
            rows = slice(n_lat - rows.stop, n_lat - rows.start)
        time = slice(time.start + start, time.stop + start)
        block = opened.read(time, rows, columns, variable_id=variable_id)
        if variable_id == "pr":
            block = np.where((block < 0) & (block >= NEGATIVE_PR), 0.0, block)
        return block[:, ::-1] if descending else block

    def block(time: slice, lat: slice, lon: slice) -> NDArray[np.float32]:
        columns = _columns(selection.lon, lon)
        found = np.empty([part.stop - part.start for part in (time, lat, lon)], dtype=np.float32)
        step = max(STEP_VALUES // found[0].size, 1)
        for part in slabs(len(found), step):
            shifted = slice(part.start + time.start, part.stop + time.start)
            found[part] = read(shifted, lat, columns)
        return found

    shape = (len(days), *grid.shape)
    tasks = bands(shape) if layout == "tiles" else tiles(shape, arrays[variable_id].chunks)
    with work.closing:
        get = rechunk.once(work, writer, tasks, block, source=opened.chunks)

        def compute(tile: Tile) -> Iterator[Piece]:
            region = tile.time or slice(0, len(days)), tile.lat, tile.lon
            yield variable_id, region, get(*region)

        work.fill(writer, compute, tasks)


def bands(shape: chunking.Shape) -> list[Tile]:
    """Return the blocks of a tiled field that is read from maps (`chunking.band`)."""
    n_time, n_lat, n_lon = shape
    days, rows = chunking.band(shape)
    return [
        Tile(lat, slice(0, n_lon), time)
        for time in slabs(n_time, days)
        for lat in slabs(n_lat, rows)
    ]


def within(days: Days, period: tuple[str, str], *, where: str) -> tuple[int, int]:
    """Return the slice of a daily axis that a period covers.

    Raises
    ------
    SourceError
        The axis holds no day of it.
    """
    number = days.year.astype(np.int64) * 10000 + days.month.astype(np.int64) * 100 + days.day
    first, last = (int(date.replace("-", "")) for date in period)
    start, stop = (int(i) for i in np.searchsorted(number, [first, last + 1]))
    if start >= stop:
        raise SourceError(
            f"{where}: no day of {period[0]}..{period[1]}; the data span "
            f"{days.isoformat(0)}..{days.isoformat(len(days) - 1)}"
        )
    return start, stop


def _columns(parts: tuple[tuple[int, int], ...], lon: slice) -> tuple[tuple[int, int], ...]:
    """Return the source's column ranges of a slice of the selected columns."""
    chosen, offset = [], 0
    for a, b in parts:
        start, stop = max(lon.start - offset, 0), min(lon.stop - offset, b - a)
        if start < stop:
            chosen.append((a + start, a + stop))
        offset += b - a
    return tuple(chosen)


def derive_dtr(
    work: Job,
    *,
    tasmax: fields.Field,
    tasmin: fields.Field,
    layout: chunking.Layout,
    inverted: Literal["missing", "floor"],
) -> None:
    """Write the diurnal range tasmax - tasmin.

    Days with tasmax <= tasmin are NaN (`missing`, of observations: left out of the training) or
    `DTR_FLOOR` (`floor`, of a simulation: the product needs every day); `n_inverted` counts them.
    """
    days, grid = tasmax.days, tasmax.grid
    arrays = fields.declare("dtr", days, grid, layout=layout, nan="allowed")
    chunks = arrays["dtr"].chunks
    arrays["n_inverted"] = Array(
        ("lat", "lon"),
        grid.shape,
        chunks[1:],
        "<i4",
        {"long_name": "days with tasmax <= tasmin", "units": "1"},
    )
    writer = work.create(arrays, tasmax.season)

    def compute(tile: Tile) -> Iterator[Piece]:
        count = np.zeros(tile.shape, dtype=np.int32)
        for time in slabs(len(days), chunks[0]):
            dtr = tasmax.read(time, tile.lat, tile.lon) - tasmin.read(time, tile.lat, tile.lon)
            bad = dtr <= 0
            count += bad.sum(axis=0, dtype=np.int32)
            dtr[bad] = np.nan if inverted == "missing" else DTR_FLOOR
            yield "dtr", (time, tile.lat, tile.lon), dtr
        yield "n_inverted", (tile.lat, tile.lon), count

    work.fill(writer, compute, tiles(arrays["dtr"].shape, chunks))


DTR_FLOOR = np.float32(0.01)
"""[K] Least diurnal range of a simulation."""
