"""Stage `climatology`: the smooth day-of-year cycle of the reference, fine or coarse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from finescale import calendars, chunking, fields, seasonal
from finescale.blocks import Tile, slabs, tiles
from finescale.fields import Field
from finescale.job import Job
from finescale.standardise import within
from finescale.store import Array, Contract, Piece, Store, coordinate
from finescale.variables import MM_PER_DAY, VARIABLES

DTR_FLOOR = 0.1
"""[K] Least climatological diurnal range: ratios divide by it."""


def run(
    work: Job,
    *,
    series: Store,
    train: tuple[str, str],
    harmonics: int,
    half_window: int,
    min_valid_fraction: float,
    floor: float,
) -> None:
    """Write the climatology (slot, lat, lon) of the training days of `series`.

    Parameters
    ----------
    series
        A daily field of the reference, fine or coarsened, in any calendar.
    harmonics, half_window
        As `seasonal.smooth` takes them.
    min_valid_fraction
        Cells with fewer valid training days are NaN: they are outside the product.
    floor
        Least value of a climatology of pr [mm/day].
    """
    daily = Field(series)
    variable_id = daily.variable_id
    start, stop = within(daily.days, train, where=series.url)
    slots = calendars.standard_slots(daily.days[start:stop])
    n_slots = calendars.N_SLOTS
    shape = (n_slots, *daily.grid.shape)
    variable = VARIABLES[variable_id]
    arrays = {
        variable_id: Array(
            ("slot", "lat", "lon"),
            shape,
            (n_slots, *chunking.chunks((n_slots, *daily.grid.shape), "tiles")[1:]),
            "<f4",
            {
                "units": variable.units,
                "standard_name": variable.standard_name,
                "long_name": f"day-of-year climatology of {variable.long_name}",
                "cell_methods": f"{variable.cell_methods} within days time: mean over years",
            },
            Contract(variable.valid_range, "allowed"),
        ),
        "slot": coordinate(
            ("slot",),
            np.arange(n_slots, dtype=np.int32),
            long_name="month-day slot, 29 February included",
        ),
        **fields.horizontal(daily.grid),
    }
    writer = work.create(arrays, {**daily.season, "train": list(train)})
    lowest = {"pr": floor * MM_PER_DAY, "dtr": DTR_FLOOR}.get(variable_id, -np.inf)

    def compute(tile: Tile) -> Iterator[Piece]:
        sums = np.zeros((n_slots, tile.shape[0] * tile.shape[1]))
        counts = np.zeros(sums.shape, dtype=np.int64)
        for part in slabs(stop - start, daily.chunks[0]):
            time = slice(part.start + start, part.stop + start)
            seasonal.accumulate(sums, counts, daily.series(time, tile.lat, tile.lon), slots[part])
        clim = seasonal.smooth(sums, counts, harmonics=harmonics, half_window=half_window)
        clim = seasonal.apply_floor(clim, lowest)
        clim[:, counts.sum(axis=0) < min_valid_fraction * (stop - start)] = np.nan
        block = clim.reshape(n_slots, *tile.shape).astype(np.float32)
        yield variable_id, (slice(0, n_slots), tile.lat, tile.lon), block

    work.fill(writer, compute, tiles(shape, arrays[variable_id].chunks))
