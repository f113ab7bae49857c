"""Stage `gard`: regression of the reference on a model's large-scale fields, cell by cell.

Perfect prognosis: relations of the reference to predictors of the same days (a reanalysis, or a
model that follows it) are applied to the predictors of a simulation. Of every day there is a
distribution: P(wet), and mean and standard deviation of the (wet) value on a scale on which errors
are normal. The deterministic product is its expected value, the stochastic one a draw from it at
the quantile that a correlated random field says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from finescale import calendars, disaggregate, fields, noise, regression, regrid
from finescale.blocks import Tile, slabs, tiles
from finescale.calendars import Days, standard_slots
from finescale.disaggregate import Interpolation
from finescale.errors import ConfigError, ContractError
from finescale.fields import Field
from finescale.grids import Grid
from finescale.job import Job
from finescale.noise import Noise
from finescale.regression import ANALOG_KINDS, AnalogKind, Scale, Season, Transform
from finescale.standardise import DTR_FLOOR, within
from finescale.store import Piece, Store
from finescale.variables import MM_PER_DAY, VARIABLES

Mode = Literal["regression", "analog_regression", "analog"]
Values = NDArray[np.floating[Any]]

CELLS = 128
"""Trained and predicted at a time."""
DAYS_PER_PARAMETER = 10
"""Least training days of a window, over the number of coefficients and the error."""
LEAST_ROOT = 0.1  # [mm^(1/3)] of the excess over the threshold: 0.001 mm/day
BOX, BOXES, CELLS_PER_BOX = 48, 9, 32
"""Of the sample that tells the correlation lengths: boxes of the grid, whatever the tiles."""


@dataclass(frozen=True)
class Options:
    """How a cell is trained, as the config section `gard` describes it."""

    variable_id: str
    predictors: tuple[str, ...]
    mode: Mode = "regression"
    half_window: int = 45
    n_analogs: int = 200
    analog_kind: AnalogKind = "mean"
    transform: Transform = "none"
    threshold: float = 1.0
    window_step: int = 5

    @property
    def is_rain(self) -> bool:
        """Whether days are wet or dry."""
        return self.variable_id == "pr"

    @property
    def least(self) -> int:
        """Return the least training days of a window."""
        return DAYS_PER_PARAMETER * (len(self.predictors) + 2)

    @property
    def scale(self) -> Transform:
        """Return the scale of the predictand on which errors are normal."""
        if VARIABLES[self.variable_id].kind == "+":
            return "none"
        if self.transform in ("cube_root", "log"):
            return self.transform
        return "cube_root" if self.is_rain else "none"

    def to_scale(self, y: Values) -> NDArray[np.float64]:
        """Return a predictand on the scale; of pr [mm/day] the excess over the threshold."""
        y = y.astype(np.float64) - (self.threshold if self.is_rain else 0.0)
        if self.scale == "none":
            return y
        return np.cbrt(y) if self.scale == "cube_root" else np.log(np.maximum(y, LEAST_ROOT**3))

    def from_scale(self, z: Values) -> Values:
        """Return the predictand at z on the scale; roots below `LEAST_ROOT` count as that."""
        if self.scale == "cube_root":
            root = np.maximum(z, LEAST_ROOT)
            z = root * root * root
        elif self.scale == "log":
            z = np.maximum(np.exp(z), LEAST_ROOT**3)
        return z + self.threshold if self.is_rain else z

    def expected(self, mean: Values, error: Values) -> Values:
        """Return the expected predictand of a normal distribution on the scale."""
        if self.scale == "cube_root":  # E[(m + s r)^3] = m^3 + 3 m s^2
            value = self.from_scale(mean)
            return value + 3 * np.maximum(mean, LEAST_ROOT) * error * error
        return self.from_scale(mean + (0.5 * error * error if self.scale == "log" else 0.0))


@dataclass(frozen=True, eq=False)
class Model:
    """The trained model of some cells.

    Parameters
    ----------
    scales
        Of each predictor.
    season
        Training days by slot.
    amount
        `least_squares` of the (wet) predictand; the predictors (cell, time, p) and the predictand
        (cell, time) on the scale, if analogs are searched.
    wet
        `logistic` of pr, unless its probability is that of plain analogs.
    n_pooled
        (cell,) slots whose amounts of rain are those of the year.
    """

    options: Options
    scales: list[Scale]
    season: Season
    amount: tuple[Values, Values]
    wet: tuple[Values, Values] | None
    n_pooled: NDArray[np.int32]

    @classmethod
    def fit(cls, x: Sequence[Values], y: Values, season: Season, options: Options) -> Self:
        """Return the model of training series, (cell, time) all; NaN in y is missing."""
        transforms = [_transform_of(v, options.transform) for v in options.predictors]
        scales = [Scale.fit(v, t) for v, t in zip(x, transforms, strict=True)]
        predictors = _stack(scales, x)
        if options.is_rain:
            y = y / MM_PER_DAY
        on_scale, wet = options.to_scale(y), None
        if options.is_rain and options.mode != "analog":
            step = options.window_step
            wet = regression.logistic(predictors, y, options.threshold, *season, step)
        if options.is_rain:
            on_scale[y <= options.threshold] = np.nan if options.mode == "regression" else -np.inf
        if options.mode != "regression":
            none = np.zeros(len(y), dtype=np.int32)
            return cls(options, scales, season, (predictors, on_scale), wet, none)
        *amount, n = regression.least_squares(predictors, on_scale, *season, options.least)
        pooled = (n < options.least).sum(axis=1, dtype=np.int32)
        return cls(options, scales, season, (amount[0], amount[1]), wet, pooled)

    def predict(
        self,
        x: Sequence[Values],
        slots: NDArray[np.int16],
        own: NDArray[np.int64],
        r: Values | None,
    ) -> Values:
        """Return the product, (cell, time), before limits: its expected value, or a draw.

        Parameters
        ----------
        x
            Predictors, (cell, time) each.
        slots, own
            (time,) slot of each day; its place among the training days, or -1.
        r
            (cell, time) standard-normal noise; None for the expected value.
        """
        predictors = _stack(self.scales, x)
        p, mean, error, is_wet = self._distribution(predictors, slots, own, r)
        options = self.options
        if not options.is_rain:
            if r is None:
                return options.expected(mean, error)
            return options.from_scale(mean + error * r)
        if r is None:
            return np.where(is_wet, options.expected(mean, error), 0.0) * MM_PER_DAY
        # u > 1 - P in terms of 1 - u, which keeps its digits where rain is heavy
        exceeded = ndtr(-r)
        within_wet = np.clip(exceeded / np.maximum(p, 1e-300), 1e-12, 1 - 1e-12)
        amount = options.from_scale(mean - error * ndtri(within_wet))
        return np.where(exceeded < p, amount, 0.0) * MM_PER_DAY

    def _distribution(
        self, x: Values, slots: NDArray[np.int16], own: NDArray[np.int64], r: Values | None
    ) -> tuple[Values, Values, Values, NDArray[np.bool_]]:
        """Return P(wet), mean and standard deviation on the scale, and whether wet is expected."""
        options = self.options
        if options.mode == "regression":
            coefficients, errors = self.amount
            mean = regression.predict(x, coefficients, slots)
            p, error = np.ones_like(mean), np.ascontiguousarray(errors[:, slots])
        else:
            kind = "regression" if options.mode == "analog_regression" else options.analog_kind
            u = np.zeros(x.shape[:2]) if r is None else ndtr(r)
            p, mean, error = regression.analogs(
                *self.amount, *self.season, x, slots, own,
                options.n_analogs, ANALOG_KINDS[kind], options.least, u,
            )  # fmt: skip
        if self.wet is None:
            return p, mean, error, p > 0.5
        odds = regression.predict(x, self.wet[0], slots)
        return 1 / (1 + np.exp(-odds)), mean, error, odds > self.wet[1][:, slots]


@dataclass(frozen=True, eq=False)
class Predictors:
    """Coarse series of several variables on the same days: `index` is their place in each."""

    series: list[Field]
    days: Days
    index: list[NDArray[np.int64]]
    valid: NDArray[np.bool_]

    def read(self, lat: slice, lon: slice) -> list[NDArray[np.float32]]:
        """Return the series of a box, (time, cell) each."""
        pairs = zip(self.series, self.index, strict=True)
        return [field.series(slice(None), lat, lon)[index] for field, index in pairs]


@dataclass(frozen=True, eq=False)
class Truth:
    """The reference on training days: `index` is their place in its days `period`."""

    series: Field
    days: Days
    period: slice
    index: NDArray[np.int64]

    @classmethod
    def on(cls, series: Field, days: Days) -> Self:
        """Return the reference on days that it has."""
        place = _match(series.days, days)
        period = slice(int(place[0]), int(place[-1]) + 1)
        return cls(series, days, period, place - place[0])

    def read(self, lat: slice, lon: slice) -> NDArray[np.float32]:
        """Return a box, (time, cell)."""
        return self.series.series(self.period, lat, lon)[self.index]


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a tile that belong to the product, in parts of at most `CELLS`.

    Parameters
    ----------
    tile, box
        Fine rows and columns, and the coarse ones they are interpolated from.
    matrix
        From the coarse box to the cells.
    parts, inside
        For each part: its slice of the cells, and their places in the tile.
    numbers
        (cell,) places in the grid.
    """

    tile: Tile
    box: tuple[slice, slice]
    matrix: regrid.Matrix
    parts: list[slice]
    inside: list[NDArray[np.int64]]
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, tile: Tile, mask: NDArray[np.bool_], matrix: regrid.Matrix) -> Self:
        """Return the cells of a tile where `mask` (lat, lon) of the whole grid is True."""
        inside = np.flatnonzero(mask[tile.lat, tile.lon])
        numbers = tile.rows(mask.shape[1])[inside]
        local, lat, lon = regrid.localise(matrix, numbers)
        parts = slabs(inside.size, CELLS)
        return cls(tile, (lat, lon), local, parts, [inside[p] for p in parts], numbers)

    def fine(self, coarse: Sequence[Values], part: slice) -> list[Values]:
        """Return coarse series (time, cell) interpolated to the cells of a part, (cell, time)."""
        rows = np.arange(part.start, part.stop)
        found = (regrid.apply(self.matrix, v, min_valid_fraction=0.0, rows=rows) for v in coarse)
        return [np.ascontiguousarray(v.T) for v in found]

    def train(
        self,
        past: Predictors,
        truth: Truth,
        season: Season,
        options: Options,
        check: Callable[[Values, NDArray[np.int64]], None],
    ) -> list[Model]:
        """Return the model of each part; `check` its predictand (cell, time) of cells first."""
        predictors, predictand = past.read(*self.box), truth.read(self.tile.lat, self.tile.lon)
        models = []
        for part, inside in zip(self.parts, self.inside, strict=True):
            y = np.ascontiguousarray(predictand[:, inside].T)
            check(y, self.numbers[part])
            models.append(Model.fit(self.fine(predictors, part), y, season, options))
        return models


def run(
    work: Job,
    *,
    reference: Store,
    climatology: Store,
    weights: Store,
    tasmax: Store | None = None,
    variable_id: str,
    predictors: list[str],
    train: tuple[str, str],
    mode: Mode,
    half_window: int = 45,
    n_analogs: int = 200,
    analog_kind: AnalogKind = "mean",
    transform: Transform = "none",
    threshold: float = 1.0,
    window_step: int = 5,
    pr_ceiling: float = 2000.0,
    stochastic: bool = False,
    seed: int = 0,
    length_km: float | None = None,
    length_days: float | None = None,
    correlation: float = 0.75,
    calendar: str | None,
    attributes: dict[str, Any],
    **stores: Store,
) -> None:
    """Write the daily product of one variable, (time, lat, lon) on the fine grid.

    Beside it: `filled`; `n_corrected`, values set to a limit of the variable; for the regression
    of pr `n_pooled`, slots of the year whose amounts have too few wet days of their own.

    Memory of a thread, bytes, with n training and m other days, C cells of a tile, c coarse ones
    under it, p predictors: 4 n C + 8 (n + m) p c + 1,000 n (p + 5) + 10,000 C, and for the models
    3,000 C (p + 2), of pr twice, or of analogs 4 n C (p + 2).

    Parameters
    ----------
    reference
        Fine series of the predictand; for tasmin beside `tasmax`, of dtr.
    climatology
        Of the same variable: its cells without NaN belong to the product.
    weights
        From the coarse grid to the fine one, bilinear.
    tasmax
        The product of tasmax, from which a tasmin is made as tasmax - dtr: never above it.
    predictors
        Names v of the `stores` train_v and apply_v, daily fields on the coarse grid.
    train
        First and last training day; of these, days that all train_v and the reference have.
    mode, half_window, n_analogs, analog_kind, transform, threshold, window_step, stochastic, seed
        As the config section `gard` describes them.
    length_km, length_days
        Of the noise; None estimates them from the reference.
    correlation
        Of the noise of dtr with that of a stochastic `tasmax`.
    calendar
        Convert the product's axis to this calendar; None keeps the simulation's.

    Raises
    ------
    ContractError
        Predictors miss days of the simulation, or a window has too few training days.

    References
    ----------
    Gutmann et al. (2022), doi:10.1175/JHM-D-21-0142.1.
    """
    if mode == "analog" and analog_kind == "sample" and not stochastic:
        raise ConfigError("gard: `analog_kind: sample` draws at random; set `stochastic: true`")
    target, upper = Field(reference), None if tasmax is None else Field(tasmax)
    options = Options(
        target.variable_id, tuple(predictors), mode, half_window, n_analogs, analog_kind,
        transform, threshold, window_step,
    )  # fmt: skip
    trained, applied = (
        [Field(stores[f"{role}_{v}"]) for v in predictors] for role in ("train", "apply")
    )
    _check_grids(applied + trained)
    past, future = _training(trained, target, train), _simulation(applied)
    truth = Truth.on(target, past.days)
    mask = fields.complete(climatology, target.variable_id)
    fine = fields.read_grid(climatology)
    trained_slots, slots = standard_slots(past.days), standard_slots(future.days)
    _check_seasons(trained_slots, future.days, slots)
    season = regression.season(trained_slots, half_window)
    interpolation = Interpolation.between(
        weights, coarse=future.series[0].grid, fine=fine, valid=past.valid & future.valid
    )
    told: dict[str, Any] = {"mode": mode, "predictors": list(predictors), "train": list(train)}
    sources: list[tuple[float, dict[str, Any]]] = []
    if stochastic:
        lengths = _lengths(truth, mask, length_km, length_days)
        sources = _noises(target.variable_id, seed, lengths, upper, correlation)
        names = "noise_length_km", "noise_length_days", "noise_seed"
        told |= dict(zip(names, (*lengths, seed), strict=True))
    days, index = disaggregate.product_axis(future.days, calendar)
    told |= disaggregate.converted_from(future.days, days)
    own = _match(past.days, future.days)
    pooled = {
        "n_pooled": ("slots of the year whose amounts are those of the year", calendars.N_SLOTS)
    }
    arrays = disaggregate.declare(
        variable_id,
        days,
        fine,
        interpolation.filled & mask,
        corrected=f"values of {options.variable_id} set to a limit",
        counts=pooled if options.is_rain and options.mode == "regression" else None,
    )
    season_of = future.series[0].season
    writer = work.create(arrays, {**attributes, **season_of, **told}, mask=mask)
    chunks = arrays[variable_id].chunks
    limits = _limits(target.variable_id, pr_ceiling)

    def compute(tile: Tile) -> Iterator[Piece]:
        box = (tile.lat, tile.lon)
        cells = Cells.of(tile, mask, interpolation.matrix)
        models = cells.train(past, truth, season, options, _needed(season, slots, options, fine))
        noises = [(weight, Noise(fine, *box, **source)) for weight, source in sources]
        driving = future.read(*cells.box)
        corrected = np.zeros(mask[box].size, dtype=np.int32)
        for time in slabs(len(days), chunks[0]):
            at = index[time]
            drawn = [weight * field.draw(future.days[at]) for weight, field in noises]
            whole = np.sum(drawn, axis=0) if drawn else None
            block: NDArray[np.float32] = np.full((at.size, corrected.size), np.nan, "<f4")
            for part, inside, model in zip(cells.parts, cells.inside, models, strict=True):
                x = cells.fine([v[at] for v in driving], part)
                r = None if whole is None else np.ascontiguousarray(whole[:, inside].T)
                made = model.predict(x, slots[at], own[at], r).astype(np.float32)
                wrong = (made < limits[0]) | (made > limits[1])
                corrected[inside] += wrong.sum(axis=1, dtype=np.int32)
                block[:, inside] = np.clip(made, *limits).T
            block = block.reshape(at.size, *tile.shape)
            if upper is not None:
                block = upper.read(time, *box) - block
            yield variable_id, (time, *box), block
        yield "n_corrected", box, corrected.reshape(tile.shape)
        if "n_pooled" in arrays:
            pooled = np.zeros_like(corrected)
            for inside, model in zip(cells.inside, models, strict=True):
                pooled[inside] = model.n_pooled
            yield "n_pooled", box, pooled.reshape(tile.shape)

    work.fill(writer, compute, tiles(arrays[variable_id].shape, chunks))


def _transform_of(predictor: str, transform: Transform) -> Transform:
    """Return the transform of a predictor: amounts alone are transformed."""
    return transform if VARIABLES[predictor].kind == "*" else "none"


def _stack(scales: list[Scale], x: Sequence[Values]) -> NDArray[np.float32]:
    """Return normalised predictors, (cell, time, p)."""
    return np.stack([scale(v) for scale, v in zip(scales, x, strict=True)], axis=2)


def _limits(variable_id: str, pr_ceiling: float) -> tuple[np.float32, np.float32]:
    low, high = disaggregate.product_limits(variable_id, pr_ceiling=pr_ceiling)
    return DTR_FLOOR if variable_id == "dtr" else np.float32(low), np.float32(high)


# --------------------------------------------------------------------------------------
# Days


def _dates(days: Days) -> NDArray[np.int64]:
    return 10_000 * days.year.astype(np.int64) + 100 * days.month.astype(np.int64) + days.day


def _match(days: Days, wanted: Days) -> NDArray[np.int64]:
    """Return the place in `days` of each date of `wanted`, -1 where there is none."""
    dates, sought = _dates(days), _dates(wanted)
    place = np.minimum(np.searchsorted(dates, sought), dates.size - 1)
    return np.where(dates[place] == sought, place, -1)


def _coverage(field: Field) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the cells (lat, lon) with values on all days (time,) that have any, and these."""
    if "valid" in field.store:
        return field.store.read("valid") == 1, np.ones(len(field.days), dtype=np.bool_)
    shape = (len(field.days), *field.grid.shape)
    parts = tiles(shape, field.chunks)
    present = np.zeros(shape[0], dtype=np.bool_)
    for tile in parts:
        present |= ~np.isnan(field.series(slice(None), tile.lat, tile.lon)).all(axis=1)
    valid = np.empty(shape[1:], dtype=np.bool_)
    for tile in parts:
        values = field.read(slice(None), tile.lat, tile.lon)[present]
        valid[tile.lat, tile.lon] = ~np.isnan(values).any(axis=0)
    return valid, present


def _training(series: list[Field], target: Field, train: tuple[str, str]) -> Predictors:
    """Return the predictors on the days of `train` that the reference and all of them have."""
    start, stop = within(target.days, train, where=target.store.url)
    days = target.days[start:stop]
    valid = np.ones(series[0].grid.shape, dtype=np.bool_)
    for field in series:
        cells, present = _coverage(field)
        valid &= cells
        place = _match(field.days, days)
        days = days[(place >= 0) & present[place]]
    if len(days) == 0:
        raise ContractError(
            f"{series[0].store.url}: no training day {train[0]}..{train[1]} on which all "
            f"predictors and the reference {target.store.url} have values; change `train` or the "
            "predictors"
        )
    return Predictors(series, days, [_match(field.days, days) for field in series], valid)


def _simulation(series: list[Field]) -> Predictors:
    """Return the predictors on the days of the first one, which all must have."""
    days = series[0].days
    valid = np.ones(series[0].grid.shape, dtype=np.bool_)
    places = []
    for field in series:
        cells, present = _coverage(field)
        place = _match(field.days, days)
        missing = np.flatnonzero((place < 0) | ~present[place])
        if missing.size:
            raise ContractError(
                f"{field.store.url}: `{field.variable_id}` has no values on "
                f"{days.isoformat(missing[0])}, a day of {series[0].store.url}; limit the "
                "simulation's `period` to days that all predictors have, or leave this one out"
            )
        valid &= cells
        places.append(place)
    return Predictors(series, days, places, valid)


def _check_grids(series: list[Field]) -> None:
    """Raise a ContractError if predictors do not lie on the grid of the first one."""
    for field in series:
        if field.grid.digest() != series[0].grid.digest():
            raise ContractError(
                f"{field.store.url}: predictors to train with and to apply must lie on one grid, "
                f"this one does not lie on that of {series[0].store.url}; regrid it first"
            )


def _check_seasons(trained: NDArray[np.int16], days: Days, slots: NDArray[np.int16]) -> None:
    """Raise a ContractError if a day is further than one slot from those that are trained.

    One slot, because 29 February may be absent from either.
    """
    exists = np.bincount(trained, minlength=calendars.N_SLOTS) > 0
    near = exists | np.roll(exists, 1) | np.roll(exists, -1)
    outside = np.flatnonzero(~near[slots])
    if outside.size:
        raise ContractError(
            f"gard: {days.isoformat(outside[0])} is to be downscaled, but the training days hold "
            "no day of its season; give the simulation the `season` of the reference"
        )


def _needed(
    season: Season, slots: NDArray[np.int16], options: Options, fine: Grid
) -> Callable[[Values, NDArray[np.int64]], None]:
    """Return the check that cells have the least training days in the windows of `slots`."""
    needed = np.unique(slots)
    first, length = season.windows[needed].T

    def check(y: Values, cells: NDArray[np.int64]) -> None:
        present = ~np.isnan(y[:, season.order])
        per_block = np.add.reduceat(present, season.bounds[:-1], axis=1, dtype=np.int64)
        summed = np.cumsum(np.pad(np.tile(per_block, 2), ((0, 0), (1, 0))), axis=1)
        n_days = summed[:, first + length] - summed[:, first]
        if (n_days < options.least).any():
            cell, place = np.argwhere(n_days < options.least)[0]
            row, column = np.divmod(cells[cell], fine.shape[1])
            raise ContractError(
                f"gard: lat {fine.lat[row]:g}, lon {fine.lon[column]:g} has {n_days[cell, place]} "
                f"training days in the window of slot {needed[place]}, needs {options.least}; "
                "lengthen `train`, widen `half_window`, or choose fewer predictors"
            )

    return check


# --------------------------------------------------------------------------------------
# Noise


def _noises(
    variable_id: str,
    seed: int,
    lengths: tuple[float, float],
    upper: Field | None,
    correlation: float,
) -> list[tuple[float, dict[str, Any]]]:
    """Return weights and parameters of the fields whose sum is the noise of a variable.

    Its own, and if it is subtracted from a stochastic tasmax, that one's.
    """
    names = "variable", "seed", "length_km", "length_days"
    own = dict(zip(names, (variable_id, seed, *lengths), strict=True))
    if upper is None or "noise_seed" not in upper.store.attributes:
        return [(1.0, own)]
    told = (upper.store.attributes[f"noise_{name}"] for name in names[1:])
    theirs = dict(zip(names, (upper.variable_id, *told), strict=True))
    return [(correlation, theirs), (float(np.sqrt(1 - correlation**2)), own)]


def _lengths(
    truth: Truth, mask: NDArray[np.bool_], length_km: float | None, length_days: float | None
) -> tuple[float, float]:
    """Return the correlation lengths of the noise, estimated where they are not given."""
    if length_km is not None and length_days is not None:
        return length_km, length_days
    boxes = [box for box in tiles(mask.shape, (BOX, BOX)) if mask[box.lat, box.lon].any()]
    values, numbers = [], []
    for box in _spaced(boxes, BOXES):
        chosen = _spaced(np.flatnonzero(mask[box.lat, box.lon]), CELLS_PER_BOX)
        values.append(truth.read(box.lat, box.lon)[:, chosen])
        numbers.append(box.rows(mask.shape[1])[chosen])
    row, column = np.divmod(np.concatenate(numbers), mask.shape[1])
    lat, lon = truth.series.grid.lat[row], truth.series.grid.lon[column]
    km, days = noise.estimate(np.concatenate(values, axis=1), truth.days, lat, lon)
    return km if length_km is None else length_km, days if length_days is None else length_days


def _spaced(things: Any, most: int) -> Any:
    """Return at most so many things, evenly spaced in their list."""
    places = np.unique(np.linspace(0, len(things) - 1, min(most, len(things))).round().astype(int))
    return [things[i] for i in places]
