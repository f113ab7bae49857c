"""A synthetic world with known answers: an island's weather, and climate models that are wrong.

The weather of a day is a pure function of the world, the stream (the reference, or a model's
experiment and member) and the date, so that any slab of time is made alone, bitwise the same as
within a longer read. Models have the reference's climate at the height they see, changed by the
constants in `MODELS`: those are the answers that tests know.

    terrain --- as is, or averaged to a model's cells ---------------------.
    daily draws on nodes --- mean over preceding days --- smooth bumps --- latent N(0, 1) maps
                                                                           |
                  tas, tasmax, tasmin, pr = season + height + warming + weather
"""

from __future__ import annotations

import functools
import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from finescale import calendars
from finescale.errors import ConfigError, SourceError
from finescale.variables import MM_PER_DAY, VARIABLES

if TYPE_CHECKING:
    import xarray as xr

VERSION = 1
"""Part of a synthetic source's identity; changes whenever the numbers do."""

Float = NDArray[np.float64]
Format = Literal["netcdf", "zarr2", "zarr3"]

GENERATED = ("tas", "tasmax", "tasmin", "pr")
REFERENCE_CALENDAR = "standard"
SCENARIO_START = 2015  # as in CMIP6, `historical` ends with 2014
BASE_YEAR = 1998  # warming is zero when it begins
WETTING = 0.04  # relative increase of precipitation amounts [K-1 of warming], in every stream

LAND_FRACTION = 0.6
PEAK = 2400.0  # [m]
LAPSE_RATE = 6.5e-3  # [K m-1]
DTR_SIGMA = 0.35  # of ln(dtr)
PR_POWER = 1.2  # amounts are powers of an exponential variable: Weibull of shape 1 / 1.2
MEMORY_DAYS = 6  # how many days' draws make one day's weather
SCALES = ((0.8, 0.75), (0.2, 0.4))  # variance and day-to-day persistence, large and small weather
BATCH = 366  # days held as float64


@dataclass(frozen=True)
class World:
    """Size, place, time and seed of a world; plain scalars, as a config file gives them."""

    name: str = "island"
    seed: int = 1
    n_lat: int = 60
    n_lon: int = 90
    ratio: int = 6
    west: float = -34.0
    south: float = 36.0
    resolution: float = 0.25
    first_year: int = 1998
    last_year: int = 2026

    def __post_init__(self) -> None:
        """Refuse worlds that have no room for cells, models, history or future."""
        where = f"synthetic world {self.name!r}"
        if min(self.n_lat, self.n_lon) < 2 or self.ratio < 1 or self.resolution <= 0:
            raise ConfigError(
                f"{where}: expected n_lat and n_lon >= 2, ratio >= 1 and resolution > 0, found "
                f"{self.n_lat}, {self.n_lon}, {self.ratio} and {self.resolution}"
            )
        if not self.first_year < SCENARIO_START <= self.last_year:
            raise ConfigError(
                f"{where}: expected first_year < {SCENARIO_START} <= last_year, found "
                f"{self.first_year} and {self.last_year}"
            )
        margin = 4 * self.ratio * self.resolution
        north = self.south + self.n_lat * self.resolution
        width = self.n_lon * self.resolution + 2 * margin
        if self.south - margin < -90 or north + margin > 90 or width > 360:
            raise ConfigError(
                f"{where}: the models' grids, {margin:g} degrees wider on every side, would leave "
                "the globe; choose another `south` or a smaller `n_lat`, `n_lon`, `ratio` or "
                "`resolution`"
            )


@dataclass(frozen=True)
class Model:
    """How a stream of weather differs from the reference's climate.

    `seasonal_bias` is added in mid-January and subtracted in mid-July, `spread` multiplies the
    standard deviation of daily temperature, `drizzle` the number of wet days and `wetness` mean
    precipitation. `spacing` (lat, lon) is the size of a cell in units of `World.ratio`, `shift`
    (lat, lon) moves the grid by so many of them.
    """

    calendar: str
    warming: dict[str, float]  # [K per decade] by experiment
    offset: float = 0.0  # [K]
    seasonal_bias: float = 0.0  # [K]
    spread: float = 1.0
    dtr: float = 1.0
    drizzle: float = 1.0
    wetness: float = 1.0
    spacing: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def experiments(self) -> tuple[str, ...]:
        """The experiments the model has run, `historical` first."""
        return tuple(self.warming)


REFERENCE = Model(REFERENCE_CALENDAR, {"historical": 0.2})
MODELS: dict[str, Model] = {
    "FS-A": Model(
        "360_day", {"historical": 0.25, "ssp245": 0.5, "ssp585": 1.0},
        offset=1.8, seasonal_bias=0.8, spread=1.25, dtr=0.8, drizzle=1.5, wetness=1.25,
    ),
    "FS-B": Model(
        "noleap", {"historical": 0.15, "ssp245": 0.4},
        offset=-1.2, seasonal_bias=-0.6, spread=0.8, dtr=1.15, drizzle=1.25, wetness=0.85,
        spacing=(1.1, 1.3), shift=(0.3, 0.45),
    ),
}  # fmt: skip
"""By source_id. Cells of FS-A are blocks of fine cells, those of FS-B fit nothing."""


class Axes(NamedTuple):
    """Centres (n,), ascending, and bounds (n, 2) of a rectilinear grid [degrees]."""

    lat: Float
    lon: Float
    lat_bnds: Float
    lon_bnds: Float


class _Stream(NamedTuple):
    """Weather to make: whose, and on which cells."""

    name: str
    experiment: str
    model: Model
    axes: Axes
    height: Float  # (lat, lon) [m]
    land: NDArray[np.bool_]  # (lat, lon) where there is data


def reference_grid(world: World) -> Axes:
    """Return the fine grid of the reference."""
    step = world.resolution
    return _axes((world.south, world.west), (step, step), (world.n_lat, world.n_lon))


def simulation_grid(world: World, source_id: str) -> Axes:
    """Return the grid of a model: two to four of its cells wider than the reference's all round.

    Raises
    ------
    SourceError
        If there is no such model.
    """
    model = _model(source_id)
    start, step, count = [], [], []
    for axis, (origin, n) in enumerate(((world.south, world.n_lat), (world.west, world.n_lon))):
        cells = world.ratio * model.spacing[axis]
        before = 2 + model.shift[axis]
        step.append(cells * world.resolution)
        start.append(origin - before * step[-1])
        count.append(math.ceil(before + n / cells) + 2)
    return _axes(start, step, count)


def span(world: World, source_id: str | None, experiment_id: str | None) -> tuple[str, str]:
    """Return the first and last day that a source offers, in its own calendar.

    `source_id` None is the reference. The generator itself knows no end: `read_reference` and
    `read_simulation` serve any day.

    Raises
    ------
    SourceError
        If there is no such model or experiment.
    """
    model = _model(source_id)
    experiment = experiment_id or "historical"
    _check_experiment(model, source_id, experiment)
    is_past = experiment == "historical"
    first = world.first_year if is_past else SCENARIO_START
    last = SCENARIO_START - 1 if is_past else world.last_year
    return f"{first}-01-01", f"{last}-12-{30 if model.calendar == '360_day' else 31}"


def elevation(world: World, source_id: str | None = None) -> Float:
    """Return the height (lat, lon) [m], 0 at sea, of the fine terrain or as a model sees it.

    A model sees the mean over each of its cells; for FS-A that of the fine cells inside.
    """
    if source_id is None:
        axes = reference_grid(world)
        return _height(world, axes.lat, axes.lon)
    axes = simulation_grid(world, source_id)
    n = world.ratio
    inside = (np.arange(n) + 0.5) / n
    lat, lon = (
        (bnds[:, :1] + (bnds[:, 1:] - bnds[:, :1]) * inside).ravel()
        for bnds in (axes.lat_bnds, axes.lon_bnds)
    )
    return _height(world, lat, lon).reshape(axes.lat.size, n, axes.lon.size, n).mean(axis=(1, 3))


def land(world: World) -> NDArray[np.bool_]:
    """Return where the reference has data (lat, lon): `LAND_FRACTION` of the fine cells."""
    return elevation(world) > 0


def true_warming(world: World, source_id: str | None, experiment_id: str, year: ArrayLike) -> Float:
    """Return the warming of whole calendar years since the beginning of `BASE_YEAR` [K].

    It is the same on every cell, in every season and for every temperature.
    """
    model = _model(source_id)
    _check_experiment(model, source_id, experiment_id)
    return _warming(model, experiment_id, np.asarray(year) + 0.5)


def read_reference(world: World, variable_id: str, days: calendars.Days) -> NDArray[np.float32]:
    """Return a variable of the reference (time, lat, lon), NaN at sea, in CMIP6 units.

    Raises
    ------
    SourceError
        If the variable is not generated or `days` are of another calendar.
    """
    height = elevation(world)
    stream = _Stream(
        "reference", "historical", REFERENCE, reference_grid(world), height, height > 0
    )
    return _read(world, stream, variable_id, days)


def read_simulation(
    world: World,
    variable_id: str,
    source_id: str,
    experiment_id: str,
    member_id: str,
    days: calendars.Days,
) -> NDArray[np.float32]:
    """Return a variable of a model (time, lat, lon), without gaps, in CMIP6 units.

    Members differ in their weather alone. Scenarios share the weather of `historical` before
    2015, so that they continue it without a step.

    Raises
    ------
    SourceError
        If model, experiment or variable do not exist or `days` are of another calendar.
    """
    model = _model(source_id)
    _check_experiment(model, source_id, experiment_id)
    height = elevation(world, source_id)
    stream = _Stream(
        f"{source_id}/{member_id}",
        experiment_id,
        model,
        simulation_grid(world, source_id),
        height,
        np.ones(height.shape, dtype=np.bool_),
    )
    return _read(world, stream, variable_id, days)


def _model(source_id: str | None) -> Model:
    if source_id is None:
        return REFERENCE
    if source_id not in MODELS:
        raise SourceError(
            f"synthetic source {source_id!r} does not exist; choose one of {', '.join(MODELS)}"
        )
    return MODELS[source_id]


def _check_experiment(model: Model, source_id: str | None, experiment_id: str) -> None:
    if experiment_id not in model.experiments:
        raise SourceError(
            f"synthetic source {source_id or 'reference'}: experiment {experiment_id!r} does not "
            f"exist; choose one of {', '.join(model.experiments)}"
        )


def _axes(start: Iterable[float], step: Iterable[float], count: Iterable[int]) -> Axes:
    """Axes from (lat, lon) pairs of lower edge, cell size and number of cells."""
    edges = [a + d * np.arange(n + 1) for a, d, n in zip(start, step, count, strict=True)]
    lat, lon = ((e[:-1] + e[1:]) / 2 for e in edges)
    lat_bnds, lon_bnds = (np.stack([e[:-1], e[1:]], axis=1) for e in edges)
    return Axes(lat, lon, lat_bnds, lon_bnds)


def _warming(model: Model, experiment_id: str, date: Float) -> Float:
    """Warming [K] at dates in years: linear, with a kink where scenarios start."""
    past, future = model.warming["historical"], model.warming[experiment_id]
    before = np.minimum(date, SCENARIO_START) - BASE_YEAR
    after = np.maximum(date - SCENARIO_START, 0.0)
    return (past * before + future * after) / 10


def _key(*parts: object) -> int:
    """128 bits that name a stream of random numbers."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


# --- terrain ---------------------------------------------------------------------------------


def _relief(world: World, lat: Float, lon: Float) -> Float:
    """Shape of the ground (lat, lon) in no unit: a slanting ridge, waves, falling to the edges."""
    n_waves = 10
    sizes = world.resolution * np.array([[world.n_lat], [world.n_lon]])
    centre = np.array([[world.south], [world.west]]) + sizes / 2
    y = ((lat - centre[0]) / sizes[0] * 2)[:, None]
    x = ((lon - centre[1]) / sizes[1] * 2)[None, :]
    ground = np.exp(-(((y - 0.5 * x) / 0.35) ** 2)) - 1.2 * (x**4 + y**4)
    rng = np.random.Generator(np.random.Philox(key=_key(world.seed, "terrain")))
    for wavelength in (1.6, 0.8, 0.4, 0.2):
        heading, phase = rng.uniform(0, 2 * np.pi, (2, n_waves))
        for k in range(n_waves):
            across = x * np.cos(heading[k]) + y * np.sin(heading[k])
            ground += 0.16 * wavelength**0.9 * np.cos(2 * np.pi / wavelength * across + phase[k])
    return ground


@functools.lru_cache
def _sea_level_and_top(world: World) -> tuple[float, float]:
    axes = reference_grid(world)
    ground = _relief(world, axes.lat, axes.lon)
    return float(np.quantile(ground, 1 - LAND_FRACTION)), float(ground.max())


def _height(world: World, lat: Float, lon: Float) -> Float:
    sea_level, top = _sea_level_and_top(world)
    above = np.maximum(_relief(world, lat, lon) - sea_level, 0) / (top - sea_level)
    return PEAK * above**1.5


# --- weather ---------------------------------------------------------------------------------


def _read(
    world: World, stream: _Stream, variable_id: str, days: calendars.Days
) -> NDArray[np.float32]:
    if variable_id not in GENERATED:
        raise SourceError(
            f"synthetic {stream.name}: variable {variable_id!r} is not generated; "
            f"choose one of {', '.join(GENERATED)}"
        )
    if days.calendar != stream.model.calendar:
        raise SourceError(
            f"synthetic {stream.name}: the calendar is {stream.model.calendar!r}, days of "
            f"{days.calendar!r} were asked for; make them with Days.range(..., "
            f"{stream.model.calendar!r})"
        )
    values = np.empty((len(days), *stream.height.shape), dtype=np.float32)
    fill = _fill_pr if variable_id == "pr" else _fill_temperature
    for start in range(0, len(days), BATCH):
        part = slice(start, start + BATCH)
        fill(values[part], world, stream, variable_id, days[part])
    return values


def _season(days: calendars.Days) -> tuple[Float, Float]:
    """Return cos of the season (n,), 1 in mid-January, and the dates in years (n,)."""
    n = calendars.n_slots(days.calendar)
    slots = calendars.slots(days)
    # a table of fixed shape: a vectorised cosine may depend on its place in the array
    table = np.cos(2 * np.pi * ((np.arange(n) + 0.5) / n - 15 / 366))
    return table[slots], days.year + (slots + 0.5) / n


def _fill_temperature(
    out: NDArray[np.float32],
    world: World,
    stream: _Stream,
    variable_id: str,
    days: calendars.Days,
) -> None:
    model = stream.model
    season, date = _season(days)
    middle = world.south + world.n_lat * world.resolution / 2
    cell_mean = 287.0 - 0.6 * (stream.axes.lat - middle)[:, None] - LAPSE_RATE * stream.height
    day_mean = model.offset + model.seasonal_bias * season
    day_mean = day_mean + _warming(model, stream.experiment, date)
    half = {"tasmin": -0.5, "tas": 0.0, "tasmax": 0.5}[variable_id]
    anomaly = _latent(world, stream, "temperature", days)
    ranges = anomaly
    if half:
        # rain clouds narrow the diurnal range
        ranges = 0.8 * _latent(world, stream, "range", days)
        ranges -= 0.6 * _latent(world, stream, "moisture", days)
    _temperature(
        out,
        stream.land,
        cell_mean,
        8.0 + 1e-3 * stream.height,
        1.0 + 1e-4 * stream.height,
        day_mean,
        season,
        model.spread * (2.5 + 0.7 * season),
        half * model.dtr * (8.0 - 2.5 * season),
        anomaly,
        ranges,
    )


def _fill_pr(
    out: NDArray[np.float32],
    world: World,
    stream: _Stream,
    variable_id: str,
    days: calendars.Days,
) -> None:
    model = stream.model
    season, date = _season(days)
    warming = _warming(model, stream.experiment, date)
    mean_amount = 6.0 * MM_PER_DAY * model.wetness / model.drizzle  # [kg m-2 s-1] of wet days
    _precipitation(
        out,
        stream.land,
        model.drizzle * (0.36 + 6e-5 * stream.height),
        1.0 + 6e-4 * stream.height,
        model.drizzle * 0.1 * season,
        mean_amount / math.gamma(1 + PR_POWER) * (1 + 0.2 * season) * (1 + WETTING * warming),
        _latent(world, stream, "moisture", days),
    )


def _latent(world: World, stream: _Stream, field: str, days: calendars.Days) -> Float:
    """Return maps (time, lat, lon) that are N(0, 1) on every cell, smooth in space and time."""
    axes = stream.axes
    large = 2 * world.ratio * world.resolution
    small = max(large / 4, float(axes.lat[1] - axes.lat[0]))
    bumps = [(_bumps(axes.lat, length), _bumps(axes.lon, length)) for length in (large, small)]
    shapes = [(lat.shape[1], lon.shape[1]) for lat, lon in bumps]
    draws, place = _draw(world, stream, field, days, sum(math.prod(shape) for shape in shapes))
    maps = np.zeros((len(days), axes.lat.size, axes.lon.size))
    first = 0
    for (lat, lon), shape, (variance, persistence) in zip(bumps, shapes, SCALES, strict=True):
        weights: Float = persistence ** np.arange(MEMORY_DAYS, dtype=np.float64)
        weights *= math.sqrt(variance / (weights**2).sum())
        nodes = np.zeros((len(days), math.prod(shape)))
        _add_days(nodes, draws[:, first : first + nodes.shape[1]].copy(), place, weights)
        first += nodes.shape[1]
        _add_maps(maps, nodes.reshape(-1, *shape), lat, np.ascontiguousarray(lon.T))
    return maps


def _bumps(centres: Float, length: float) -> Float:
    """Return weights (cell, node) of Gaussian bumps, one every `length` degrees.

    Squares of a row add up to 1, so that sums of N(0, 1) draws are N(0, 1).
    """
    n = math.ceil((centres[-1] - centres[0]) / length) + 5
    nodes = centres[0] + length * (np.arange(n) - 2)
    distance = np.abs(centres[:, None] - nodes) / length
    weights = np.where(distance < 4, np.exp(-0.5 * distance**2), 0.0)
    return weights / np.sqrt((weights**2).sum(axis=1, keepdims=True))


def _draw(
    world: World, stream: _Stream, field: str, days: calendars.Days, n: int
) -> tuple[Float, NDArray[np.int64]]:
    """Return `n` N(0, 1) numbers for each day needed, and the rows of each day's memory.

    The rows (time, `MEMORY_DAYS`) are those of the day itself, the day before it, and so on.
    """
    needed = days.ordinal[:, None] - np.arange(MEMORY_DAYS)
    drawn, place = np.unique(needed, return_inverse=True)
    draws = np.empty((drawn.size, n))
    first_day = f"{SCENARIO_START}-01-01"
    future = calendars.Days.range(first_day, first_day, days.calendar).ordinal[0]
    for experiment, chosen in (
        ("historical", drawn < future),
        (stream.experiment, drawn >= future),
    ):
        key = _key(world.seed, stream.name, experiment, field)
        rng = np.random.Generator(np.random.Philox(key=key))
        state = rng.bit_generator.state
        for i in np.flatnonzero(chosen):
            # the day is the counter's second word; the first counts the numbers of a day
            state["state"]["counter"][1] = drawn[i : i + 1].view(np.uint64)[0]
            rng.bit_generator.state = state
            rng.standard_normal(out=draws[i])
    return draws, place.reshape(needed.shape)


@njit(nogil=True, cache=True)
def _add_days(nodes: Float, draws: Float, place: NDArray[np.int64], weights: Float) -> None:
    for t in range(nodes.shape[0]):
        for lag in range(weights.size):
            for k in range(nodes.shape[1]):
                nodes[t, k] += weights[lag] * draws[place[t, lag], k]


@njit(nogil=True, cache=True)  # a BLAS product's last bits would depend on the machine
def _add_maps(maps: Float, nodes: Float, lat_bumps: Float, lon_bumps: Float) -> None:
    n_days, n_rows, n_columns = nodes.shape
    n_lat, n_lon = maps.shape[1:]
    rows = np.empty((n_rows, n_lon))
    for t in range(n_days):
        rows[:] = 0.0
        for a in range(n_rows):
            for b in range(n_columns):
                node = nodes[t, a, b]
                for j in range(n_lon):
                    rows[a, j] += node * lon_bumps[b, j]
        for i in range(n_lat):
            for a in range(n_rows):
                bump = lat_bumps[i, a]
                if bump > 0:
                    for j in range(n_lon):
                        maps[t, i, j] += bump * rows[a, j]


@njit(nogil=True, cache=True)
def _temperature(
    out: NDArray[np.float32],
    land: NDArray[np.bool_],
    cell_mean: Float,
    cell_swing: Float,
    cell_range: Float,
    day_mean: Float,
    season: Float,
    day_spread: Float,
    half_range: Float,
    anomaly: Float,
    ranges: Float,
) -> None:
    n_days, n_lat, n_lon = out.shape
    for t in range(n_days):
        for i in range(n_lat):
            for j in range(n_lon):
                if not land[i, j]:
                    out[t, i, j] = np.nan
                    continue
                tas = cell_mean[i, j] + day_mean[t] - cell_swing[i, j] * season[t]
                tas += day_spread[t] * anomaly[t, i, j]
                if half_range[t] != 0.0:
                    # lognormal with mean 1
                    factor = math.exp(DTR_SIGMA * ranges[t, i, j] - 0.5 * DTR_SIGMA**2)
                    tas += half_range[t] * cell_range[i, j] * factor
                out[t, i, j] = tas


@njit(nogil=True, cache=True)
def _precipitation(
    out: NDArray[np.float32],
    land: NDArray[np.bool_],
    cell_chance: Float,
    cell_amount: Float,
    day_chance: Float,
    day_amount: Float,
    moisture: Float,
) -> None:
    n_days, n_lat, n_lon = out.shape
    for t in range(n_days):
        for i in range(n_lat):
            for j in range(n_lon):
                if not land[i, j]:
                    out[t, i, j] = np.nan
                    continue
                chance = cell_chance[i, j] + day_chance[t]
                exceeded = 0.5 * math.erfc(moisture[t, i, j] / math.sqrt(2.0))
                if exceeded < chance:
                    amount = (-math.log(exceeded / chance)) ** PR_POWER
                    out[t, i, j] = day_amount[t] * cell_amount[i, j] * amount
                else:
                    out[t, i, j] = 0.0


# --- files -----------------------------------------------------------------------------------


def dataset(
    world: World,
    variable_id: str,
    *,
    source_id: str | None = None,
    experiment_id: str = "historical",
    member_id: str = "r1i1p1f1",
    days: calendars.Days | None = None,
    everyday_units: bool = False,
    descending: bool = False,
    east: bool = False,
    hour: float = 12.0,
    bounds: bool = True,
    height: bool = False,
    packed: bool = False,
    extra: bool = False,
) -> xr.Dataset:
    """Return a variable of the reference (`source_id` None) or a model as files hold it.

    Parameters
    ----------
    days : Days, optional
        By default all that the source offers.
    everyday_units : bool
        degC and mm day-1 in place of K and kg m-2 s-1.
    descending, east : bool
        Latitudes from north to south; longitudes from 0 to 360.
    hour : float
        Time of day of the stamps.
    bounds : bool
        With `lat_bnds` and `lon_bnds`.
    height : bool
        With the scalar coordinate `height`.
    packed : bool
        int16 when written, in steps of 0.01 K or 0.1 mm/day.
    extra : bool
        With a second variable that nobody asked for.
    """
    import xarray as xr

    if days is None:
        calendar = _model(source_id).calendar
        days = calendars.Days.range(*span(world, source_id, experiment_id), calendar)
    if source_id is None:
        axes, values = reference_grid(world), read_reference(world, variable_id, days)
    else:
        axes = simulation_grid(world, source_id)
        values = read_simulation(world, variable_id, source_id, experiment_id, member_id, days)
    ds = _standard_dataset(variable_id, days, axes, values)
    ds.attrs |= {
        "title": f"Finescale synthetic world {world.name}, version {VERSION}",
        "source_id": source_id or "reference",
        "experiment_id": experiment_id,
    }
    ds["time"] = ds.time.copy(data=ds.time.values + (hour - 12) / 24)
    if everyday_units:
        factor, offset, units = (
            (1 / MM_PER_DAY, 0.0, "mm day-1") if variable_id == "pr" else (1.0, -273.15, "degC")
        )
        ds[variable_id].values[:] = values * np.float32(factor) + np.float32(offset)
        ds[variable_id].attrs["units"] = units
    if packed:
        step = 0.01 if variable_id != "pr" else 0.1 if everyday_units else 0.1 * MM_PER_DAY
        ds[variable_id].encoding = {
            "dtype": "int16", "scale_factor": step, "add_offset": 0.0, "_FillValue": -32768,
        }  # fmt: skip
    if extra:
        ds[f"{variable_id}_spread"] = ds[variable_id] * 0 + 1
    if height:
        ds = ds.assign_coords(height=((), 2.0, {"units": "m", "positive": "up"}))
    if east:
        turned = ds.lon % 360
        ds["lon_bnds"] = ds.lon_bnds + (turned - ds.lon).drop_vars("lon")
        ds = ds.assign_coords(lon=turned.assign_attrs(ds.lon.attrs)).sortby("lon")
    if descending:
        ds = ds.isel(lat=slice(None, None, -1))
    if not bounds:
        ds = ds.drop_vars(["lat_bnds", "lon_bnds"])
        for name in ("lat", "lon"):
            del ds[name].attrs["bounds"]
    return xr.decode_cf(ds)


def _standard_dataset(
    variable_id: str, days: calendars.Days, axes: Axes, values: NDArray[np.float32]
) -> xr.Dataset:
    """Return a dataset in CMIP6 names and units, its time still encoded."""
    import xarray as xr

    variable = VARIABLES[variable_id]
    attrs = {
        name: getattr(variable, name)
        for name in ("standard_name", "long_name", "units", "cell_methods")
    }
    time = {"units": "days since 1850-01-01", "calendar": days.calendar, "axis": "T"}
    lat = {"units": "degrees_north", "standard_name": "latitude", "bounds": "lat_bnds"}
    lon = {"units": "degrees_east", "standard_name": "longitude", "bounds": "lon_bnds"}
    return xr.Dataset(
        {
            variable_id: (("time", "lat", "lon"), values, attrs),
            "lat_bnds": (("lat", "bnds"), axes.lat_bnds),
            "lon_bnds": (("lon", "bnds"), axes.lon_bnds),
        },
        coords={
            "time": ("time", days.to_cf(), {"standard_name": "time", **time}),
            "lat": ("lat", axes.lat, lat),
            "lon": ("lon", axes.lon, lon),
        },
        attrs={"Conventions": "CF-1.11", "license": "CC0-1.0"},
    )


def write(ds: xr.Dataset, path: Path, format: Format = "netcdf") -> Path:
    """Return `path` after writing `ds` to it, as netCDF or as a consolidated Zarr store."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "netcdf":
        ds.to_netcdf(path, engine="netcdf4")
        return path
    with warnings.catch_warnings():
        # Zarr 3 itself has no consolidated metadata, yet archives write it
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        ds.to_zarr(path, mode="w", consolidated=True, zarr_format=2 if format == "zarr2" else 3)
    return path


def write_files(
    world: World,
    folder: Path,
    *,
    variables: Iterable[str] = ("tasmax", "tasmin", "pr"),
    format: Format = "netcdf",
    years_per_file: int | None = None,
    **quirks: Any,
) -> list[Path]:
    """Return the files written: the reference and every experiment of every model.

    Parameters
    ----------
    folder : Path
        Names in it are `<variable>_day_<source>_<experiment>_<first>-<last>.<nc or zarr>`.
    years_per_file : int, optional
        Split at years divisible by it; by default one file holds all days.
    **quirks
        As for `dataset`.
    """
    suffix = "nc" if format == "netcdf" else "zarr"
    written = []
    for source_id in (None, *MODELS):
        model = _model(source_id)
        for experiment_id in model.experiments:
            whole = calendars.Days.range(*span(world, source_id, experiment_id), model.calendar)
            for days in _split(whole, years_per_file):
                dates = (days.isoformat(i).replace("-", "") for i in (0, len(days) - 1))
                name = f"{source_id or 'reference'}_{experiment_id}_{'-'.join(dates)}.{suffix}"
                for variable_id in variables:
                    ds = dataset(
                        world,
                        variable_id,
                        source_id=source_id,
                        experiment_id=experiment_id,
                        days=days,
                        **quirks,
                    )
                    written.append(write(ds, folder / f"{variable_id}_day_{name}", format))
    return written


def _split(days: calendars.Days, years: int | None) -> Iterator[calendars.Days]:
    group = days.year // years if years else np.zeros(len(days), dtype=np.int32)
    for value in np.unique(group):
        yield days[group == value]
