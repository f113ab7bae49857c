"""Daily fields: the layout of a store with one variable of (time, lat, lon), and its reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finescale import store
from finescale.blocks import tiles
from finescale.calendars import Days
from finescale.chunking import Layout, chunks
from finescale.grids import Grid
from finescale.store import Array, Contract, Store
from finescale.variables import VARIABLES

TIME_UNITS = "days since 1850-01-01"


def declare(
    variable_id: str,
    days: Days,
    grid: Grid,
    *,
    layout: Layout,
    nan: Literal["never", "mask", "allowed"],
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Array]:
    """Return the arrays of a store that holds one daily variable, coordinates included.

    `variable_id` is a name of `VARIABLES`; `attributes` adds to its CF attributes.
    """
    variable = VARIABLES[variable_id]
    shape = (len(days), *grid.shape)
    cf = {
        "units": variable.units,
        "standard_name": variable.standard_name,
        "long_name": variable.long_name,
        "cell_methods": variable.cell_methods,
    }
    data = Array(
        ("time", "lat", "lon"),
        shape,
        chunks(shape, layout),
        "<f4",
        {**cf, **(attributes or {})},
        Contract(variable.valid_range, nan),
    )
    return {variable_id: data, **time_axis(days), **horizontal(grid)}


def time_axis(days: Days, bounds: NDArray[np.float64] | None = None) -> dict[str, Array]:
    """Return the arrays `time` and `time_bnds`; bounds default to whole days."""
    time = days.to_cf()
    if bounds is None:
        bounds = np.stack([time - 0.5, time + 0.5], axis=1)
    units = {"units": TIME_UNITS, "calendar": days.calendar}
    return {
        "time": store.coordinate(
            ("time",), time, **units, standard_name="time", axis="T", bounds="time_bnds"
        ),
        "time_bnds": store.coordinate(("time", "bnds"), bounds, **units),
    }


def horizontal(grid: Grid) -> dict[str, Array]:
    """Return the arrays `lat`, `lon` and their bounds."""
    return {
        "lat": store.coordinate(
            ("lat",),
            grid.lat,
            units="degrees_north",
            standard_name="latitude",
            axis="Y",
            bounds="lat_bnds",
        ),
        "lat_bnds": store.coordinate(("lat", "bnds"), grid.lat_bnds),
        "lon": store.coordinate(
            ("lon",),
            grid.lon,
            units="degrees_east",
            standard_name="longitude",
            axis="X",
            bounds="lon_bnds",
        ),
        "lon_bnds": store.coordinate(("lon", "bnds"), grid.lon_bnds),
    }


def flag(values: NDArray[Any], long_name: str, meanings: str) -> Array:
    """Return the declaration of a (lat, lon) int8 mask with CF flag attributes."""
    return store.coordinate(
        ("lat", "lon"),
        values.astype(np.int8),
        long_name=long_name,
        flag_values=[0, 1],
        flag_meanings=meanings,
    )


def complete(opened: Store, name: str) -> NDArray[np.bool_]:
    """Return the (lat, lon) cells of an array (..., lat, lon) without NaN; read tile by tile."""
    array = opened.array(name)
    found = np.empty(array.shape[-2:], dtype=np.bool_)
    for tile in tiles(array.shape, array.chunks):
        values = opened.read(name, (slice(None), tile.lat, tile.lon))
        found[tile.lat, tile.lon] = ~np.isnan(values).any(axis=0)
    return found


def read_grid(opened: Store) -> Grid:
    """Return the grid of a store that has lat, lon and their bounds."""
    return Grid(*(opened.read(name) for name in ("lat", "lon", "lat_bnds", "lon_bnds")))


@dataclass(frozen=True)
class Field:
    """A committed daily field."""

    store: Store
    variable_id: str = field(init=False)

    def __post_init__(self) -> None:
        facets = self.store.attributes["finescale_facets"]
        object.__setattr__(self, "variable_id", facets["variable_id"])

    @cached_property
    def days(self) -> Days:
        """Return the time axis."""
        time = self.store.array("time")
        return Days.from_cf(
            np.asarray(time[...]), str(time.attrs["units"]), str(time.attrs["calendar"])
        )

    @cached_property
    def grid(self) -> Grid:
        """Return the horizontal grid."""
        return read_grid(self.store)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return the chunk shape of the variable."""
        return tuple(self.store.array(self.variable_id).chunks)

    @property
    def season(self) -> dict[str, str]:
        """Return the attribute that declares a seasonal axis, empty for a whole year."""
        season = self.store.attributes.get("season")
        return {} if season is None else {"season": season}

    def read(
        self,
        time: slice = slice(None),
        lat: slice = slice(None),
        lon: slice = slice(None),
    ) -> NDArray[np.float32]:
        """Return a region (time, lat, lon), float32."""
        return self.store.read(self.variable_id, (time, lat, lon))

    def series(
        self, time: slice = slice(None), lat: slice = slice(None), lon: slice = slice(None)
    ) -> NDArray[np.float32]:
        """Return a region as (time, cell)."""
        block = self.read(time, lat, lon)
        return block.reshape(block.shape[0], -1)
