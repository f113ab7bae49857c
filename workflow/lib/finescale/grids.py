"""Rectilinear latitude-longitude grids: centres, bounds, areas and identity."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finescale.errors import ContractError

Floats = NDArray[np.float64]

FULL_CIRCLE = 360.0  # [degrees]
PERIODIC_TOLERANCE = 1e-6 * FULL_CIRCLE  # [degrees], float32 bounds of a global grid
EDGE_TOLERANCE = 1e-3  # [cell widths], float32 bounds of neighbours and of their centres
IDENTITY_DECIMALS = 9  # [degrees], well below a metre on the ground


@dataclass(frozen=True, eq=False)
class Grid:
    """A rectilinear grid in degrees, latitudes and longitudes ascending.

    Parameters
    ----------
    lat, lon : (ny,), (nx,) float64
        Cell centres [degrees]; `lon` may start anywhere but spans less than 360 degrees.
    lat_bnds, lon_bnds : (ny, 2), (nx, 2) float64
        Lower and upper edges [degrees]; neighbouring cells share an edge.

    Raises
    ------
    ContractError
        If an axis is not ascending, leaves its range, or its cells leave gaps or overlap.
    """

    lat: Floats
    lon: Floats
    lat_bnds: Floats
    lon_bnds: Floats

    def __post_init__(self) -> None:
        for field in fields(self):
            values = np.array(getattr(self, field.name), dtype=np.float64)
            values.flags.writeable = False
            object.__setattr__(self, field.name, values)
        _check_axis("lat", self.lat, self.lat_bnds)
        _check_axis("lon", self.lon, self.lon_bnds)
        if self.lat_bnds[0, 0] < -90 or self.lat_bnds[-1, 1] > 90:
            raise ContractError(
                f"lat bounds must lie within -90..90, found {self.lat_bnds[0, 0]} .. "
                f"{self.lat_bnds[-1, 1]}; check the units of lat"
            )
        span = self.lon_bnds[-1, 1] - self.lon_bnds[0, 0]
        if self.lon[-1] - self.lon[0] >= FULL_CIRCLE or span > FULL_CIRCLE + PERIODIC_TOLERANCE:
            raise ContractError(
                f"lon must go round the globe at most once, found {self.lon[0]} .. {self.lon[-1]} "
                f"with bounds that span {span} degrees; drop the repeated columns"
            )

    @classmethod
    def from_centres(
        cls,
        lat: ArrayLike,
        lon: ArrayLike,
        lat_bnds: ArrayLike | None = None,
        lon_bnds: ArrayLike | None = None,
    ) -> "Grid":
        """Return the grid of these centres, with bounds half way between them unless given.

        Parameters
        ----------
        lat, lon : (ny,), (nx,)
            Ascending cell centres [degrees].
        lat_bnds, lon_bnds : (ny, 2), (nx, 2), optional
            Bounds in any order within a cell, `lon_bnds` in any longitude convention.
            Without them the outermost cells are symmetric, and latitudes stop at the poles.
        """
        lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
        lat_edges = (
            _midpoint_bounds("lat", lat) if lat_bnds is None else _given("lat", lat, lat_bnds)
        )
        if lon_bnds is None:
            lon_edges = _midpoint_bounds("lon", lon)
        else:
            lon_edges = _given("lon", lon, lon_bnds)
            # A cell around 0 may come as (359, 1): bring each edge to the turn of its centre.
            turns = np.rint((lon_edges - lon[:, None]) / FULL_CIRCLE)
            lon_edges = lon_edges - FULL_CIRCLE * turns
        return cls(
            lat=lat,
            lon=lon,
            lat_bnds=np.sort(np.clip(lat_edges, -90.0, 90.0), axis=1),
            lon_bnds=np.sort(lon_edges, axis=1),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.lat.size, self.lon.size

    @property
    def size(self) -> int:
        """Number of cells."""
        return self.lat.size * self.lon.size

    @property
    def periodic(self) -> bool:
        """Whether the columns close the circle, so that the last is next to the first."""
        span = self.lon_bnds[-1, 1] - self.lon_bnds[0, 0]
        return bool(abs(span - FULL_CIRCLE) <= PERIODIC_TOLERANCE)

    def cell_area(self) -> Floats:
        """Return the area of every cell on the unit sphere, (ny, nx) [steradian]."""
        widths = np.deg2rad(self.lon_bnds[:, 1] - self.lon_bnds[:, 0])
        return np.outer(band_height(self.lat_bnds[:, 0], self.lat_bnds[:, 1]), widths)

    def digest(self) -> str:
        """Return the sha256 of shape, centres and bounds, equal for grids equal to 1e-9 degrees."""
        parts = [np.array(self.shape), self.lat, self.lon, self.lat_bnds, self.lon_bnds]
        # Adding zero turns -0.0, which rounding can leave behind, into 0.0.
        exact = [np.round(part, IDENTITY_DECIMALS).astype("<f8") + 0.0 for part in parts]
        return hashlib.sha256(b"".join(part.tobytes() for part in exact)).hexdigest()

    def to_json(self) -> dict[str, list[Any]]:
        """Return centres and bounds as plain lists that `from_json` reads back exactly."""
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}

    @classmethod
    def from_json(cls, lists: Mapping[str, list[Any]]) -> "Grid":
        """Return the grid that `to_json` wrote."""
        return cls(**{field.name: np.array(lists[field.name]) for field in fields(cls)})

    def crop(self, rows: slice, cols: slice) -> "Grid":
        """Return the grid of these rows and columns, which must be neighbours."""
        return Grid(self.lat[rows], self.lon[cols], self.lat_bnds[rows], self.lon_bnds[cols])


def band_height(south: Floats, north: Floats) -> Floats:
    """Return sin(north) - sin(south) of parallels in degrees, exact in thin bands at a pole."""
    middle, half = np.deg2rad((north + south) / 2), np.deg2rad((north - south) / 2)
    return 2 * np.cos(middle) * np.sin(half)


def wrap_longitude(lon: ArrayLike, west: float) -> Floats:
    """Return `lon` in [west, west + 360) degrees; values already there are unchanged."""
    lon = np.asarray(lon, dtype=np.float64)
    wrapped = lon - FULL_CIRCLE * np.floor((lon - west) / FULL_CIRCLE)
    # Rounding can carry a value just west of `west` onto the open end.
    return np.where((wrapped < west) | (wrapped >= west + FULL_CIRCLE), west, wrapped)


def _midpoint_bounds(name: str, centres: Floats) -> Floats:
    if centres.ndim != 1 or centres.size < 2:
        raise ContractError(
            f"{name}: bounds can be derived from two centres or more in one dimension, "
            f"found shape {centres.shape}; give {name}_bnds"
        )
    inner = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - inner[0], 2 * centres[-1] - inner[-1]
    edges = np.concatenate([[first], inner, [last]])
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _given(name: str, centres: Floats, bnds: ArrayLike) -> Floats:
    edges = np.asarray(bnds, dtype=np.float64)
    if centres.ndim != 1 or edges.shape != (centres.size, 2):
        raise ContractError(
            f"{name}_bnds must have shape (n, 2) for {name} of shape (n,), found {edges.shape} "
            f"for {centres.shape}; drop the bounds to have them derived"
        )
    return edges


def _check_axis(name: str, centres: Floats, bnds: Floats) -> None:
    if centres.ndim != 1 or centres.size == 0 or bnds.shape != (centres.size, 2):
        raise ContractError(
            f"{name} must be (n,) with bounds (n, 2) and n > 0, found {centres.shape} and "
            f"{bnds.shape}; select at least one cell and give bounds for each"
        )
    if not np.isfinite(centres).all() or not np.isfinite(bnds).all():
        raise ContractError(f"{name} and its bounds must be finite; drop the missing coordinates")
    if (np.diff(centres) <= 0).any():
        at = int(np.argmax(np.diff(centres) <= 0))
        raise ContractError(
            f"{name} must be strictly ascending, found {centres[at]} before {centres[at + 1]} "
            f"at position {at}; sort the data along {name} within one convention"
        )
    widths = bnds[:, 1] - bnds[:, 0]
    slack = EDGE_TOLERANCE * widths
    outside = (widths <= 0) | (centres < bnds[:, 0] - slack) | (centres > bnds[:, 1] + slack)
    parted = np.append(np.abs(bnds[1:, 0] - bnds[:-1, 1]) > slack[1:], False)
    if (outside | parted).any():
        at = int(np.argmax(outside | parted))
        raise ContractError(
            f"{name}: cells must hold their centres and share edges with their neighbours, found "
            f"bounds {bnds[at].tolist()} around {centres[at]} at position {at}; "
            "correct the bounds or drop them to have them derived"
        )
