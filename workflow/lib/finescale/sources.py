"""Datasets outside Finescale: found, described for the lock, and read region by region.

The one place that copes with how the world stores data: Zarr v2/v3 or netCDF, files per decade,
packing, bounds, names of coordinates, orientation, stamps at noon or midnight. Everything
returned is in file order; `reference` and `simulation` put it in ours.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import os
import string
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finescale import calendars, identity, synthetic
from finescale.errors import ConfigError, SourceError, TransientError
from finescale.units import conversion
from finescale.variables import VARIABLES

if TYPE_CHECKING:
    import xarray as xr

Request = dict[str, Any]
"""What the config says of one variable of one dataset: see `resolve.requests`."""


@dataclass(frozen=True, eq=False)
class Part:
    """One file or store that holds some consecutive days."""

    values: xr.DataArray
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Source:
    """One variable as its dataset holds it.

    `days` (time,); `lat` (ny,), `lon` (nx,) in file order; bounds (n, 2) or None.
    """

    name: str
    days: calendars.Days
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    lat_bnds: NDArray[np.float64] | None
    lon_bnds: NDArray[np.float64] | None
    units: str
    attributes: dict[str, Any]
    parts: tuple[Part, ...] = ()
    generate: Any = None
    datasets: tuple[xr.Dataset, ...] = ()

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Return the lengths (time, lat, lon) of what is decoded at once; None if that is nothing.

        Files without chunks are read where they are asked for, synthetic data are made so.
        """
        if not self.parts:
            return None
        values = self.parts[0].values
        lengths = values.encoding.get("preferred_chunks")
        return lengths and tuple(int(lengths[dim]) for dim in values.dims)

    def close(self) -> None:
        """Close the files; nothing can be read after."""
        for ds in self.datasets:
            ds.close()

    def read(
        self, time: slice, lat: slice, lon: tuple[tuple[int, int], ...], *, variable_id: str
    ) -> NDArray[np.float64]:
        """Return days `time`, rows `lat` (file order), columns `lon`, in CMIP6 units.

        Shape (time, lat, lon), float64, NaN where missing.
        """
        if self.generate is not None:
            block = self.generate(self.days[time])[:, lat]
            raw = np.concatenate([block[:, :, a:b] for a, b in lon], axis=2).astype(np.float64)
        else:
            raw = np.concatenate(
                [
                    np.concatenate([_region(part, time, lat, slice(a, b)) for a, b in lon], axis=2)
                    for part in self.parts
                    if part.start < time.stop and part.stop > time.start
                ]
            )
        factor, offset = conversion(self.units, variable_id, where=self.name)
        return raw if (factor, offset) == (1.0, 0.0) else raw * factor + offset


def _region(part: Part, time: slice, lat: slice, lon: slice) -> NDArray[np.float64]:
    begin, end = max(time.start, part.start), min(time.stop, part.stop)
    region = part.values[begin - part.start : end - part.start, lat, lon]
    return np.asarray(region.values, dtype=np.float64)


# --------------------------------------------------------------------------------------
# Opening


def open_source(request: Request) -> Source:
    """Return the dataset's variable, opened lazily.

    Raises
    ------
    SourceError
        It cannot be found or read, or it is not a daily field on a rectilinear grid.
    """
    if request.get("synthetic") is not None:
        return _open_synthetic(request)
    where = request["name"]
    datasets = [_open_dataset(path, request) for path in locate(request)]
    pieces = sorted(
        ((_days(_variable(ds, request), ds, where), ds) for ds in datasets),
        key=lambda piece: int(piece[0].ordinal[0]),
    )
    parts, start = [], 0
    for days, ds in pieces:
        parts.append(Part(_variable(ds, request), start, start + len(days)))
        start += len(days)
    first = pieces[0][1]
    values = parts[0].values
    lat, lon = (_horizontal(values, axis, where) for axis in ("latitude", "longitude"))
    units = request.get("units") or str(values.attrs.get("units", ""))
    return Source(
        name=where,
        days=calendars.Days.concatenate([days for days, _ in pieces]),
        lat=lat.values.astype(np.float64),
        lon=lon.values.astype(np.float64),
        lat_bnds=_bounds(first, lat),
        lon_bnds=_bounds(first, lon),
        units=units,
        attributes={**first.attrs, **values.attrs},
        parts=tuple(parts),
        datasets=tuple(datasets),
    )


def _world(request: Request) -> synthetic.World:
    given = request["synthetic"]
    known = {f.name: f.type for f in dataclasses.fields(synthetic.World)}
    for name, value in given.items():
        where = f"{request['name']}: `synthetic: {{{name}: {value!r}}}`"
        if name not in known:
            raise ConfigError(f"{where} is unknown; the world takes {', '.join(known)}")
        kinds = {"str": str, "int": int, "float": int | float}[str(known[name])]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ConfigError(f"{where} must be of type {known[name]}")
    return synthetic.World(**given)


def _open_synthetic(request: Request) -> Source:
    world = _world(request)
    facets, variable = request["facets"], request["variable_id"]
    if "source_id" in facets:
        model, experiment, member = (facets[k] for k in ("source_id", "experiment_id", "member_id"))
        span = synthetic.span(world, model, experiment)
        calendar = synthetic.MODELS[model].calendar
        grid = synthetic.simulation_grid(world, model)

        def generate(days: calendars.Days) -> NDArray[np.float32]:
            return synthetic.read_simulation(world, variable, model, experiment, member, days)
    else:
        calendar, grid = synthetic.REFERENCE_CALENDAR, synthetic.reference_grid(world)
        span = synthetic.span(world, None, None)

        def generate(days: calendars.Days) -> NDArray[np.float32]:
            return synthetic.read_reference(world, variable, days)

    return Source(
        name=request["name"],
        days=calendars.Days.range(*span, calendar),
        lat=grid[0],
        lon=grid[1],
        lat_bnds=grid[2],
        lon_bnds=grid[3],
        units=VARIABLES[variable].units,
        attributes={
            "license": "synthetic data, no restriction",
            "title": f"Finescale synthetic world {world.name}",
        },
        generate=generate,
    )


def expand(path: str, facets: dict[str, str], *, where: str) -> str:
    """Return the path with environment variables ($NAME) and facets ({name}) put in.

    Raises
    ------
    SourceError
        A variable is not set or a facet is unknown.
    """
    template = string.Template(path)
    missing = sorted({n for n in template.get_identifiers() if n not in os.environ})
    if missing:
        raise SourceError(
            f"{where}: the path {path!r} needs the environment variable "
            f"{', '.join(missing)}; set it"
        )
    try:
        return os.path.expanduser(template.substitute(os.environ)).format(**facets)
    except (KeyError, IndexError, ValueError) as error:
        raise SourceError(
            f"{where}: the path {path!r} names a facet {error} that is unknown "
            f"(known: {', '.join(sorted(facets))})"
        ) from error


def locate(request: Request) -> list[str]:
    """Return the dataset's paths: one store, or the files a glob matches, sorted."""
    where = request["name"]
    path = expand(request["path"], request["facets"], where=where)
    if "://" in path:
        return [path]
    found = sorted(glob.glob(path)) if glob.has_magic(path) else [path] * os.path.exists(path)
    if not found:
        raise SourceError(
            f"{where}: nothing found at {path}; correct `path`, or the environment variable in it"
        )
    return found


def _is_zarr(path: str, request: Request) -> bool:
    if request.get("format"):
        return bool(request["format"] == "zarr")
    return path.rstrip("/").endswith(".zarr") or ("://" not in path and os.path.isdir(path))


def _open_dataset(path: str, request: Request) -> xr.Dataset:
    import cf_xarray  # noqa: F401  registers Dataset.cf
    import xarray as xr

    options = request.get("storage_options") or None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if _is_zarr(path, request):
                ds = xr.open_zarr(path, decode_times=False, chunks=None, storage_options=options)
            elif "://" in path:
                import fsspec

                local = fsspec.open_local(
                    f"simplecache::{path}", **{path.split("://")[0]: options or {}}
                )
                ds = xr.open_dataset(local, decode_times=False)
            else:
                ds = xr.open_dataset(path, decode_times=False, engine="netcdf4")
    except Exception as error:
        if "://" in path and _is_unreachable(error):
            raise TransientError(
                f"{request['name']}: {path} cannot be reached ({type(error).__name__}: {error}); "
                "check the network and the host's name, then run again"
            ) from error
        kind = "a consolidated Zarr store" if _is_zarr(path, request) else "a netCDF file"
        raise SourceError(
            f"{request['name']}: {path} cannot be opened as {kind} "
            f"({type(error).__name__}: {error}); check the file, or set `format`"
        ) from error
    guessed: xr.Dataset = ds.cf.guess_coord_axis()
    guessed.set_close(ds.close)
    return guessed


def _is_unreachable(error: BaseException) -> bool:
    import aiohttp

    return isinstance(error, ConnectionError | TimeoutError | aiohttp.ClientConnectionError)


def _variable(ds: xr.Dataset, request: Request) -> xr.DataArray:
    name = request.get("variable_name") or request["variable_id"]
    if name not in ds:
        raise SourceError(
            f"{request['name']}: no variable `{name}` in the dataset (it holds: "
            f"{', '.join(map(str, ds.data_vars))}); "
            f"set `variables: {{{request['variable_id']}: {{name: ...}}}}`"
        )
    values = ds[name].squeeze(
        [d for d in ds[name].dims if ds.sizes[d] == 1 and d not in ("time", "lat", "lon")]
    )
    if values.ndim != 3:
        raise SourceError(
            f"{request['name']}: `{name}` must have the dimensions time, latitude, longitude; "
            f"found {values.dims}"
        )
    order = [
        _coordinate(values, key, request["name"]).dims[0]
        for key in ("time", "latitude", "longitude")
    ]
    return values.transpose(*order)


def _coordinate(values: xr.DataArray, key: str, where: str) -> xr.DataArray:
    try:
        found: xr.DataArray = values.cf[key]
    except KeyError as error:
        raise SourceError(
            f"{where}: no {key} coordinate found on `{values.name}` (coordinates: "
            f"{', '.join(map(str, values.coords))}); CF needs units or standard_name on it"
        ) from error
    if found.ndim != 1:
        raise SourceError(
            f"{where}: {key} has dimensions {found.dims}; only rectilinear grids are read "
            "(regrid curvilinear data first)"
        )
    return found


def _horizontal(values: xr.DataArray, axis: str, where: str) -> xr.DataArray:
    found = _coordinate(values, axis, where)
    steps = np.diff(found.values.astype(np.float64))
    if axis == "longitude" and np.any(steps <= 0):  # one step may cross the seam of 360 degrees
        steps = (steps + 180.0) % 360.0 - 180.0
    if not (np.all(steps > 0) or np.all(steps < 0)):
        raise SourceError(f"{where}: {axis} is not strictly monotonic")
    if axis == "longitude" and np.any(steps < 0):
        raise SourceError(f"{where}: longitude must ascend")
    return found


def _bounds(ds: xr.Dataset, coordinate: xr.DataArray) -> NDArray[np.float64] | None:
    name = coordinate.attrs.get("bounds") or coordinate.encoding.get("bounds")
    if name is None or name not in ds or ds[name].shape != (coordinate.size, 2):
        return None
    return np.asarray(ds[name].values, dtype=np.float64)


def _days(values: xr.DataArray, ds: xr.Dataset, where: str) -> calendars.Days:
    time = _coordinate(values, "time", where)
    units, calendar = time.attrs.get("units"), time.attrs.get("calendar", "standard")
    if units is None or " since " not in str(units):
        raise SourceError(
            f"{where}: time has units {units!r}, expected e.g. 'days since 1850-01-01'"
        )
    if time.size == 0:
        raise SourceError(f"{where}: the time axis is empty")
    try:
        return calendars.Days.from_cf(time.values, units, calendar)
    except SourceError as error:
        raise SourceError(f"{where}: {error}") from error


# --------------------------------------------------------------------------------------
# Content: what a dataset's identity stands on


def content(request: Request) -> str:
    """Return the digest of what is read of a dataset: variable, units and substance.

    netCDF: sha256 of each file. Zarr: the sorted listing (key, size, checksum) of the variable and
    its coordinates. With `version`: facets, version, tracking_id and array metadata, not the bytes.
    Synthetic: its parameters and the generator's version.
    """
    taken = {
        "variable": request.get("variable_name") or request["variable_id"],
        "units": request.get("units"),
    }
    return identity.digest({**taken, **_substance(request)})


def _substance(request: Request) -> dict[str, Any]:
    if request.get("synthetic") is not None:
        world = _world(request)
        return {
            "synthetic": vars(world),
            "generator": synthetic.VERSION,
            "facets": request["facets"],
        }
    paths = locate(request)
    if request.get("version"):
        return {
            "facets": request["facets"],
            "version": request["version"],
            "metadata": [_metadata(path, request) for path in paths],
        }
    if _is_zarr(paths[0], request):
        return {"zarr": [list(_listing(path, request)) for path in paths]}
    return {"files": sorted(_sha256(path, request) for path in paths)}


def _metadata(path: str, request: Request) -> dict[str, Any]:
    with _open_dataset(path, request) as ds:
        return _describe_variable(_variable(ds, request))


def _describe_variable(values: xr.DataArray) -> dict[str, Any]:
    return {
        "tracking_id": str(values.attrs.get("tracking_id", "")),
        "shape": list(values.shape),
        "attributes": {k: str(v) for k, v in sorted(values.attrs.items())},
        "coordinates": {
            str(k): hashlib.sha256(np.ascontiguousarray(c.values).tobytes()).hexdigest()
            for k, c in sorted(values.coords.items())
            if c.ndim == 1
        },
    }


def _sha256(path: str, request: Request) -> str:
    import fsspec

    total = hashlib.sha256()
    with fsspec.open(path, "rb", **request.get("storage_options", {})) as file:
        while piece := file.read(1 << 22):
            total.update(piece)
    return total.hexdigest()


def _listing(path: str, request: Request) -> Iterator[list[Any]]:
    """Yield (key, size, checksum) of the objects of a store that the variable is made of."""
    import fsspec

    with _open_dataset(path, request) as ds:
        values = _variable(ds, request)
    coordinates = [c for c in values.coords.values() if c.ndim == 1]
    bounds = [c.attrs.get("bounds") or c.encoding.get("bounds") for c in coordinates]
    arrays = {str(values.name), *(str(c.name) for c in coordinates), *(str(b) for b in bounds if b)}
    fs, root = fsspec.core.url_to_fs(path, **request.get("storage_options", {}))
    for key, info in sorted(fs.find(root, detail=True).items()):
        inner = key[len(root.rstrip("/")) + 1 :]
        if inner.split("/")[0] in arrays:
            checksum = next(
                (str(info[k]) for k in ("crc32c", "md5Hash", "ETag", "etag") if info.get(k)), None
            )
            yield [inner, info["size"], checksum or hashlib.sha256(fs.cat_file(key)).hexdigest()]


def fingerprint(request: Request) -> str | None:
    """Return a digest of sizes and times of local files, None where that says nothing (remote)."""
    if request.get("synthetic") is not None:
        return None
    paths = locate(request)
    if any("://" in path for path in paths):
        return None
    stats = []
    for path in paths:
        files = sorted(p for p in Path(path).rglob("*") if p.is_file()) or [Path(path)]
        stats += [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return identity.digest(stats)
