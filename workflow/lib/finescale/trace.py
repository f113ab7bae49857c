"""One number followed back through every stage: value, formula, stores, source.

Each step computes its value anew from what it names, by the kernels of its stage, and tells how
far the stored value is from it. At each step the input that weighs most is followed, the others
are listed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from finescale import (
    adjust,
    calendars,
    climatology,
    qplad,
    quantiles,
    regrid,
    seasonal,
    store,
    trends,
)
from finescale import weights as weights_stage
from finescale.adjust import Adjusted, QuantileMapping, Series
from finescale.blocks import slabs
from finescale.calendars import N_SLOTS, Days
from finescale.disaggregate import Interpolation, area_means
from finescale.errors import ConfigError, FinescaleError, StoreError
from finescale.fields import Field
from finescale.grids import wrap_longitude
from finescale.jitter import jitter_dry, uniform
from finescale.job import Job
from finescale.sources import Source, expand
from finescale.standardise import DTR_FLOOR, NEGATIVE_PR, within
from finescale.units import conversion
from finescale.variables import MM_PER_DAY, VARIABLES

SHOWN = 3
"""Cells of an area mean that are listed."""

NEIGHBOURS = 4
"""Coarse cells of an interpolation that are listed: all that are bilinear."""
LEAST_WEIGHT = 1e-6
"""[1] A coarse cell below it does not take part."""

Index = tuple[int, int, int]
"""Time (of a climatology: slot), row and column of a value."""
Weighted = tuple[float, int, int]
"""Weight, row and column of a cell."""


@dataclass(frozen=True)
class Step:
    """A value, how it came about, and what it was made of.

    `role` and `weight` are what it is to the step it is an input of. A value that is only listed
    has no formula, no recomputed value and no inputs. `note` tells what `inputs` leave out.
    """

    stage: str
    store: str
    array: str
    index: Index
    date: str
    lat: float
    lon: float
    value: float
    units: str
    role: str = ""
    weight: float | None = None
    formula: str = ""
    numbers: str = ""
    note: str = ""
    recomputed: float | None = None
    inputs: tuple[Step, ...] = ()

    @property
    def difference(self) -> float | None:
        """Return the recomputed less the stored value; None for what is only listed."""
        return None if self.recomputed is None else self.recomputed - self.value


def trace(
    url: str, *, lat: float, lon: float, date: str, lock: Mapping[str, Any] | None = None
) -> Step:
    """Return the value of a store in the cell that holds a point, followed back to its sources.

    Parameters
    ----------
    url
        A committed store of daily values, of means over days, or of a climatology (whose day of
        the year is that of `date`), in its root of stores.
    lat, lon
        A point in the cell [degrees]; longitudes in any convention.
    date
        A day of the store's calendar, "2014-07-01".
    lock
        The inputs lock; with it the trace goes on into the sources themselves.

    Raises
    ------
    ConfigError
        The store is of a stage without dates, or has no value there.
    StoreError
        The store, or one it was made from, is not committed.
    """
    described = store.describe(url)
    if described.stage not in EXPLAIN:
        raise ConfigError(
            f"{described.url}: what stage {described.stage} makes has no day and cell to follow; "
            f"trace a store of one of {', '.join(EXPLAIN)}"
        )
    root = described.url.rpartition("/")[0].rpartition("/")[0] or "."
    named = {}
    for sentinel in store.list_stores(root):
        path = sentinel.removesuffix(f"/{store.SENTINEL}")
        named[path.removesuffix(".zarr")[-16:]] = f"{root}/{path}"
    field = Field(store.open_store(described.url))
    index = (_moment(field, date), *_cell(field, lat, lon))
    found = _bare(field, index)
    if np.isnan(found.value):
        raise ConfigError(
            f"{described.url}: no value on {found.date} at lat {found.lat:g}, lon {found.lon:g}: "
            "outside the mask, or missing in the source; choose a cell that has values"
        )
    return _follow(_Trail(root, named, lock), field, index)


def document(step: Step) -> dict[str, Any]:
    """Return a step and what lies behind it as plain lists and dictionaries, for JSON."""
    inputs = [document(part) for part in step.inputs]
    return {**vars(step), "difference": step.difference, "inputs": inputs}


def lines(step: Step) -> list[str]:
    """Return a step and what lies behind it as an indented tree, for people."""
    weight = "" if step.weight is None else f" (w {step.weight:.6g})"
    head = f"{step.role}{weight}: " if step.role else ""
    place = f" of {step.store}" if step.stage == "source" else ""
    told = [
        f"{head}{step.value:.6g} {step.units}, {step.stage} {step.array}{place}, "
        f"{step.date}, lat {step.lat:g}, lon {step.lon:g}"
    ]
    if not step.formula:
        return told
    if step.difference is not None:
        same = f"the stored value differs by {-step.difference:.1g}"
        same = same if step.difference else "as stored"
        result = f" = {step.recomputed:.6g} {step.units}, {same}"
        if step.numbers:
            told += [f"  = {step.formula}", f"  = {step.numbers}{result}"]
        else:
            told.append(f"  = {step.formula}{result}")
    told += [f"  {text}" for text in (step.note, step.store) if text]
    return told + [f"    {line}" for part in step.inputs for line in lines(part)]


# --------------------------------------------------------------------------------------
# The way from value to value


@dataclass(frozen=True)
class _Trail:
    """The stores below a root by the 16 digits that name them, and the inputs lock."""

    root: str
    named: Mapping[str, str]
    lock: Mapping[str, Any] | None


@dataclass(frozen=True)
class _At:
    """The value to explain, and the way to what its store was made from."""

    trail: _Trail
    field: Field
    index: Index
    recipe: Mapping[str, Any]

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Return what the stage of the store took."""
        return self.recipe["parameters"]

    @property
    def cell(self) -> tuple[slice, slice]:
        """Return row and column as slices."""
        _, row, col = self.index
        return slice(row, row + 1), slice(col, col + 1)

    def store(self, role: str) -> store.Store:
        """Return the store of an input, which must be the one that the value was made from."""
        identity = self.recipe["inputs"][role]
        if identity[:16] not in self.trail.named:
            raise StoreError(
                f"{self.field.store.url}: its input {role}, a store named ...-{identity[:16]}, is "
                f"not committed below {self.trail.root}; run the workflow again, it makes it"
            )
        return store.open_store(self.trail.named[identity[:16]]).require(identity)

    def input(self, role: str) -> Field:
        """Return the field of an input."""
        return Field(self.store(role))

    def list(self, role: str, field: Field, index: Index, weight: float | None = None) -> Step:
        """Return an input's value alone."""
        return replace(_bare(field, index), role=role, weight=weight)

    def follow(self, role: str, field: Field, index: Index, weight: float | None = None) -> Step:
        """Return an input's value with what lies behind it."""
        return replace(_follow(self.trail, field, index), role=role, weight=weight)


@dataclass(frozen=True)
class _Told:
    """What a stage tells of one of its values: fields of a `Step`."""

    formula: str
    numbers: str = ""
    recomputed: float | np.floating[Any] | None = None
    inputs: tuple[Step, ...] = ()
    note: str = ""


def _follow(trail: _Trail, field: Field, index: Index) -> Step:
    recipe = store.describe(field.store.url).recipe
    told = EXPLAIN[recipe["stage"]](_At(trail, field, index, recipe))
    # Every stage rounds to float32 last.
    recomputed = None if told.recomputed is None else float(np.float32(told.recomputed))
    return replace(_bare(field, index), **{**vars(told), "recomputed": recomputed})


def _bare(field: Field, index: Index) -> Step:
    array = field.store.array(field.variable_id)
    return Step(
        stage=str(field.store.attributes["finescale_stage"]),
        store=field.store.url,
        array=field.variable_id,
        index=index,
        date=_date(field, index[0]),
        lat=float(field.grid.lat[index[1]]),
        lon=float(field.grid.lon[index[2]]),
        value=float(np.asarray(array[index])),
        units=str(array.attrs["units"]),
    )


def _date(field: Field, moment: int) -> str:
    """Return the date of an entry; first and last of a mean; month and day of a slot."""
    if "slot" in field.store:
        return Days.range("2000-01-01", "2000-12-31", "standard").isoformat(moment)[5:]
    time = field.store.array("time").attrs
    first, last = field.store.read("time_bnds", (slice(moment, moment + 1), slice(0, 2)))[0]
    ends = Days.from_cf([first, last - 1], str(time["units"]), str(time["calendar"]))
    return "..".join(dict.fromkeys(ends.isoformat(i) for i in range(2)))


def _moment(field: Field, date: str) -> int:
    """Return the entry of the time axis, or the slot, that a date belongs to."""
    if "slot" in field.store:
        return int(calendars.standard_slots(Days.range(date, date, "all_leap"))[0])
    noon = Days.range(date, date, field.days.calendar).to_cf()[0]
    bounds = field.store.read("time_bnds")
    found = np.flatnonzero((bounds[:, 0] < noon) & (noon < bounds[:, 1]))
    if found.size == 0:
        season = "".join(f", season {name}" for name in field.season.values())
        raise ConfigError(
            f"{field.store.url}: {date} is not on its axis, which spans {_date(field, 0)[:10]}.."
            f"{_date(field, len(bounds) - 1)[-10:]}{season}; choose a day of it"
        )
    return int(found[0])


def _cell(field: Field, lat: float, lon: float) -> tuple[int, int]:
    """Return row and column of the cell that holds a point."""
    grid = field.grid
    east = float(wrap_longitude(lon, grid.lon_bnds[0, 0]))
    place = []
    for name, asked, at, bounds in (
        ("lat", lat, lat, grid.lat_bnds),
        ("lon", lon, east, grid.lon_bnds),
    ):
        i = int(np.searchsorted(bounds[:, 1], at))
        if i == len(bounds) or at < bounds[0, 0]:
            raise ConfigError(
                f"{field.store.url}: {name} {asked:g} is outside its grid, whose cells span "
                f"{bounds[0, 0]:g}..{bounds[-1, 1]:g}; choose a point in it"
            )
        place.append(i)
    return place[0], place[1]


def _n(value: float) -> str:
    """Return a number for a formula."""
    return f"{value:.6g}" if value >= 0 else f"({value:.6g})"


# --------------------------------------------------------------------------------------
# Stages whose values are weighted means of others


@dataclass(frozen=True, eq=False)
class _Mean:
    """The weighted mean over a box of cells of one grid that makes a cell of another."""

    matrix: regrid.Matrix
    lat: slice
    lon: slice

    @classmethod
    def at(cls, at: _At, matrix: regrid.Matrix) -> _Mean:
        """Return the mean that makes the cell of a value."""
        _, row, col = at.index
        return cls(*regrid.localise(matrix, np.array([row * at.field.grid.lon.size + col])))

    def cells(self) -> list[Weighted]:
        """Return the cells, the heaviest first."""
        rows, cols = np.divmod(self.matrix.indices, self.matrix.n_src[1])
        return _heaviest(self.matrix.data, rows + self.lat.start, cols + self.lon.start)

    def apply(self, box: NDArray[Any], min_valid_fraction: float = 0.0) -> np.floating[Any]:
        """Return the mean of the values (1, lat, lon) of the box."""
        mean = regrid.apply(self.matrix, box.reshape(1, -1), min_valid_fraction=min_valid_fraction)
        return mean[0, 0]


def _heaviest(
    weights: NDArray[np.float64], rows: NDArray[np.integer], cols: NDArray[np.integer]
) -> list[Weighted]:
    order = np.argsort(-np.abs(weights), kind="stable")
    columns = (values[order].tolist() for values in (weights, rows, cols))
    return list(zip(*columns, strict=True))


def _day(at: _At, own: Days) -> slice:
    """Return the coarse day that a product takes."""
    day, wanted = at.index[0], at.parameters["calendar"]
    if wanted is not None and calendars.reread(wanted) != own.calendar:
        # An inserted day repeats the day before it.
        day = max(int(calendars.convert(own, wanted)[1][: day + 1].max()), 0)
    return slice(day, day + 1)


def _bcsd(at: _At) -> _Told:
    roles = ("adjusted", "coarse_climatology", "fine_climatology")
    adjusted, coarse, fine = (at.input(role) for role in roles)
    base = coarse.store.read(coarse.variable_id)
    day = _day(at, adjusted.days)
    (slot,) = calendars.standard_slots(adjusted.days[day]).tolist()
    (own_slot,) = calendars.standard_slots(at.field.days[at.index[0] : at.index[0] + 1]).tolist()
    sign, put = ("/", "*") if VARIABLES[adjusted.variable_id].kind == "*" else ("-", "+")

    def anomaly(lat: slice = slice(None), lon: slice = slice(None)) -> NDArray[Any]:
        block, clim = adjusted.read(day, lat, lon), base[slot, lat, lon]
        return block / clim if sign == "/" else block - clim

    valid = (adjusted.store.read("valid") == 1) & ~np.isnan(base).any(axis=0)
    smooth, cells = _disaggregated(at, adjusted, fine, valid, anomaly)
    cycle = at.follow("fine_climatology", fine, (own_slot, *at.index[1:]))
    inputs, summed = [cycle], list[str]()
    for weight, r, c in cells[:NEIGHBOURS]:
        tell = at.list if summed else at.follow
        part = tell("adjusted", adjusted, (day.start, r, c), weight)
        level = tell("coarse_climatology", coarse, (slot, r, c), weight)
        inputs += [part, level]
        summed.append(f"{_n(weight)} * ({_n(part.value)} {sign} {_n(level.value)})")
    formula = f"fine_climatology {put} sum of w * (adjusted {sign} coarse_climatology)"
    more, note = "", ""
    if len(cells) > NEIGHBOURS:
        more, note = " + ...", f"{len(cells)} coarse cells take part; {NEIGHBOURS} are shown"
    numbers = f"{_n(cycle.value)} {put} ({' + '.join(summed)}{more})"
    value = np.float32(cycle.value)
    value = smooth * value if put == "*" else smooth + value
    if put == "*" and value < 0:
        formula, value = f"{formula}, not below 0", np.float32(0)
    if "tasmax" in at.recipe["inputs"]:
        upper = at.list("tasmax", at.input("tasmax"), at.index)
        inputs.insert(0, upper)
        formula, numbers = f"tasmax - {formula}", f"{_n(upper.value)} - {numbers}"
        value = np.float32(upper.value) - value
    return _Told(formula, numbers, value, tuple(inputs), note)


def _disaggregated(
    at: _At,
    coarse: Field,
    fine: Field,
    valid: NDArray[np.bool_],
    anomaly: Callable[..., NDArray[Any]],
) -> tuple[np.floating[Any], list[Weighted]]:
    """Return the interpolated anomaly and the weight in it of each coarse cell's own anomaly."""
    p, grids, means = at.parameters, {"coarse": coarse.grid, "fine": fine.grid}, None
    if "area_weights" in at.recipe["inputs"]:
        mask = ~np.isnan(fine.store.read(fine.variable_id)).any(axis=0)
        fraction = p["min_valid_fraction"]
        means = area_means(
            at.store("area_weights"), **grids, mask=mask, min_valid_fraction=fraction
        )
    interpolation = Interpolation.between(
        at.store("weights"), **grids, valid=valid, fill=p["fill"], means=means
    )
    mean = _Mean.at(at, interpolation.matrix)
    if interpolation.system is None:
        return mean.apply(anomaly(mean.lat, mean.lon)), mean.cells()
    # The mean of the solution is a mean of what is known: by the weights that solve the transpose.
    solver = splu(interpolation.system)
    known = np.where(valid, anomaly()[0], 0).astype(np.float64)
    points = solver.solve(known.reshape(-1)).reshape(valid.shape).astype(np.float32)
    own = np.zeros(valid.shape)
    for weight, row, col in mean.cells():
        own[row, col] = weight
    weights = solver.solve(own.reshape(-1), trans="T").reshape(valid.shape)
    taken = np.nonzero(valid & (np.abs(weights) > LEAST_WEIGHT))
    return mean.apply(points[mean.lat, mean.lon]), _heaviest(weights[taken], *taken)


def _qplad(at: _At) -> _Told:
    p, (_, row, col) = at.parameters, at.index
    adjusted, coarse, fine = (at.input(role) for role in ("adjusted", "coarse", "reference"))
    valid = adjusted.store.read("valid") == 1
    mean = _Mean.at(
        at,
        Interpolation.between(
            at.store("weights"), coarse=adjusted.grid, fine=fine.grid, valid=valid
        ).matrix,
    )
    ((_, row_c, col_c),) = mean.cells()
    day, days = _day(at, adjusted.days), slice(*within(coarse.days, p["train"], where="coarse"))
    (chosen,) = qplad.choose(
        coarse.series(days, mean.lat, mean.lon).T,
        adjusted.store.read("rank", (day, mean.lat, mean.lon)).reshape(1, 1),
        coarse.days[days],
        adjusted.days[day],
        half_window=p["half_window"],
        positions=p["positions"],
    )[0].tolist()
    first = within(fine.days, p["train"], where="reference")[0]
    parts: tuple[Step, ...] = (
        at.follow("adjusted", adjusted, (day.start, row_c, col_c)),
        at.list("reference", fine, (first + chosen, row, col)),
        at.list("coarse", coarse, (days.start + chosen, row_c, col_c)),
    )
    a, b, c = (np.float32(part.value) for part in parts)
    variable, pr = VARIABLES[adjusted.variable_id], adjusted.variable_id == "pr"
    is_ratio, dry = variable.kind == "*", p["wet_day"] * MM_PER_DAY if pr else variable.trace
    pattern = qplad.departures(
        np.array([[b]]), np.array([[c]]), np.array([0]), is_ratio=is_ratio, dry=dry
    )[0, 0]
    value = a * pattern if is_ratio else a + pattern
    formula = "adjusted * reference / coarse" if is_ratio else "adjusted + reference - coarse"
    signs = ("*", "/") if is_ratio else ("+", "-")
    numbers = f"{_n(float(a))} {signs[0]} {_n(float(b))} {signs[1]} {_n(float(c))}"
    if is_ratio and c < dry:
        formula, numbers = "adjusted, since the day is dry", _n(float(a))
    if pr and value < dry:
        formula, value = f"{formula}, below {dry:.6g}: 0", np.float32(0)
    if "tasmax" in at.recipe["inputs"]:
        upper = at.list("tasmax", at.input("tasmax"), at.index)
        parts, formula = (parts[0], upper, *parts[1:]), f"tasmax - {formula}"
        numbers, value = f"{_n(upper.value)} - {numbers}", np.float32(upper.value) - value
    return _Told(formula, numbers, value, parts, "the training day of the nearest rank")


def _maca(at: _At) -> _Told:
    return _of_whole_series(
        at, "adjusted", "EDCDFm(sum of weights * analogs + residual), with the epoch's change"
    )


def _gard(at: _At) -> _Told:
    predictor = at.parameters["predictors"][0]
    return _of_whole_series(
        at,
        f"apply_{predictor}",
        f"{at.parameters['mode']} on {', '.join(at.parameters['predictors'])}",
    )


def _of_whole_series(at: _At, role: str, formula: str) -> _Told:
    """Explain a value that stands on all days of its cell: it is not computed anew."""
    coarse = at.input(role)
    table = weights_stage.read(at.store("weights"), src=coarse.grid, dst=at.field.grid)
    day, cells = _day(at, coarse.days), _Mean.at(at, table.csr()).cells()
    inputs = tuple(
        at.list(role, coarse, (day.start, row, col), weight)
        for weight, row, col in cells
        if not np.isnan(coarse.read(day, slice(row, row + 1), slice(col, col + 1))).any()
    )
    if inputs:
        inputs = (at.follow(role, coarse, inputs[0].index, inputs[0].weight), *inputs[1:])
    if "tasmax" in at.recipe["inputs"]:
        formula = f"tasmax - {formula}"
        inputs = (*inputs, at.list("tasmax", at.input("tasmax"), at.index))
    return _Told(formula, inputs=inputs, note="of the whole series of its cell: not computed anew")


def _weighted(
    at: _At, role: str, field: Field, time: int, cells: list[Weighted]
) -> tuple[tuple[Step, ...], str]:
    """Return cells, the first followed, as inputs and as a sum in numbers."""
    parts = tuple(
        (at.list if n else at.follow)(role, field, (time, row, col), weight)
        for n, (weight, row, col) in enumerate(cells)
    )
    return parts, " + ".join(f"{part.weight:.6g} * {_n(part.value)}" for part in parts)


def _interpolate(at: _At) -> _Told:
    simulation = at.input("simulation")
    valid = [
        ~np.isnan(simulation.read(lat=rows)).any(axis=0)
        for rows in slabs(simulation.grid.lat.size, simulation.chunks[1])
    ]
    interpolation = Interpolation.between(
        at.store("weights"),
        coarse=simulation.grid,
        fine=at.field.grid,
        valid=np.concatenate(valid),
    )
    mean, day = _Mean.at(at, interpolation.matrix), _day(at, simulation.days)
    value = mean.apply(simulation.read(day, mean.lat, mean.lon))
    inputs, numbers = _weighted(at, "simulation", simulation, day.start, mean.cells())
    return _Told("sum of w * simulation", numbers, value, inputs)


def _coarsen(at: _At) -> _Told:
    fine, time = at.input("reference"), at.index[0]
    matrix = weights_stage.read(at.store("weights"), src=fine.grid, dst=at.field.grid).csr()
    mean = _Mean.at(at, matrix)
    box = fine.read(slice(time, time + 1), mean.lat, mean.lon)
    value = mean.apply(box, at.parameters["min_valid_fraction"])
    values = {
        (weight, row, col): box[0, row - mean.lat.start, col - mean.lon.start]
        for weight, row, col in mean.cells()
    }
    cells = [cell for cell, v in values.items() if not np.isnan(v)]
    inputs, numbers = _weighted(at, "reference", fine, time, cells[:SHOWN])
    covered = sum(weight for weight, _, _ in cells)
    rest = " + ..." if len(cells) > len(inputs) else ""
    partial = abs(covered - 1.0) > regrid.COVERED
    return _Told(
        "area mean: sum of w * reference" + (" / sum of w" if partial else ""),
        f"({numbers}{rest})" + (f" / {covered:.6g}" if partial else ""),
        value,
        inputs,
        f"{len(cells)} cells have values, {min(values[c] for c in cells):.6g}.."
        f"{max(values[c] for c in cells):.6g} {inputs[0].units}; {len(inputs)} are shown",
    )


def _aggregate(at: _At) -> _Told:
    daily = at.input("product")
    lower, upper = at.field.store.read("time_bnds")[at.index[0]]
    days = np.flatnonzero((daily.days.to_cf() > lower) & (daily.days.to_cf() < upper))
    values = daily.series(slice(days[0], days[-1] + 1), *at.cell).astype(np.float64)
    total, valid = np.zeros((1, 1)), np.zeros((1, 1), dtype=np.int64)
    seasonal.accumulate(total, valid, values, np.zeros(len(values), dtype=np.int16))
    ends = [(tell, int(t)) for tell, t in ((at.follow, days[0]), (at.list, days[-1]))]
    return _Told(
        f"mean over {valid.item()} days",
        f"{_n(total.item())} / {valid.item()}",
        total.item() / valid.item(),
        tuple(tell("product", daily, (t, *at.index[1:]), 1 / len(days)) for tell, t in ends),
        "the first and the last day are shown",
    )


# --------------------------------------------------------------------------------------
# Stages whose values stand on the whole series of a cell


def _climatology(at: _At) -> _Told:
    daily, slot, p = at.input("series"), at.index[0], at.parameters
    start, stop = within(daily.days, p["train"], where=daily.store.url)
    slots = calendars.standard_slots(daily.days[start:stop])
    series = daily.series(slice(start, stop), *at.cell)
    sums, counts = seasonal.day_of_year_sums(series, slots, N_SLOTS)
    smooth = seasonal.smooth(
        sums, counts, harmonics=p["harmonics"], half_window=p["half_window"]
    )[slot].item()  # fmt: skip
    filled = int((counts > 0).sum())
    formula = f"mean over {p['half_window']} days of the year on either side"
    if filled >= seasonal.MIN_HARMONIC_SLOTS:
        formula = f"annual mean and {p['harmonics']} harmonics, fitted to {filled} days of the year"
    floor = {"pr": p["floor"] * MM_PER_DAY, "dtr": climatology.DTR_FLOOR}.get(daily.variable_id)
    if floor is not None and smooth < floor:
        formula, smooth = f"{formula}; not below {floor:.6g}", floor
    same = start + np.flatnonzero((slots == slot) & ~np.isnan(series[:, 0]))
    told = f"none of them on {_date(at.field, slot)}"
    if same.size:
        told = (
            f"the mean of the {same.size} on {_date(at.field, slot)} is "
            f"{sums[slot, 0] / same.size:.6g}, the first and last are shown"
        )
    return _Told(
        formula,
        "",
        smooth,
        tuple(
            at.list("series", daily, (int(t), *at.index[1:])) for t in (*same[:1], *same[1:][-1:])
        ),
        f"{counts.sum()} training days in {'..'.join(p['train'])}; {told}",
    )


@dataclass(frozen=True, eq=False)
class _Ranking:
    """The distributions that `adjust` builds for a cell; `lat`, `lon` (1,)."""

    mapping: QuantileMapping
    variable_id: str
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]

    @classmethod
    def of(cls, at: _At) -> _Ranking:
        """Return how the cell of a value was adjusted."""
        p, grid, (lat, lon) = at.parameters, at.field.grid, at.cell
        mapping = QuantileMapping(**{f.name: p[f.name] for f in fields(QuantileMapping)})
        return cls(mapping, at.field.variable_id, grid.lat[lat], grid.lon[lon])

    @property
    def threshold(self) -> float:
        """Return the least wet amount; 0 of a variable without dry days."""
        return self.mapping.dry_threshold * MM_PER_DAY if self.variable_id == "pr" else 0.0

    @property
    def is_detrended(self) -> bool:
        """Return whether a trend is taken out."""
        return VARIABLES[self.variable_id].kind == "+" and self.mapping.trend_years > 0

    def adjusted(self, ref: Series, sim: Series, period: slice, season: str | None) -> Adjusted:
        """Return what the stage makes of the days `period`, (time, 1)."""
        return adjust.adjust_series(
            ref, sim, self.mapping, period=period, variable_id=self.variable_id, lat=self.lat,
            lon=self.lon, season=season, ranks=self.mapping.method != "qm",
        )  # fmt: skip

    def ranked(self, series: Series) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64]]:
        """Return the values as they are ranked and the trend taken out of them, (time,) both."""
        values, slow = series.values, np.zeros(series.values.shape)
        if self.is_detrended:
            years = self.mapping.trend_years
            slow = trends.trend(values, series.days, train=series.train, window_years=years)
            values = values - slow
        if self.threshold > 0:
            u = uniform(self.mapping.seed, self.variable_id, self.lat, self.lon, series.days)
            lowest = self.mapping.dry_floor
            values = jitter_dry(values, threshold=self.threshold, u=u, lowest=lowest)
        return values[:, 0], slow[:, 0]

    def window(
        self, series: Series, slots: NDArray[np.int16], slot: int, n_slots: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the training days around a slot and their ranked values, ascending."""
        chosen = np.flatnonzero(series.train)
        train = Series(series.values[chosen], series.days[chosen], series.train[chosen])
        values = self.ranked(train)[0].astype(np.float64)
        filled = np.isin(np.arange(n_slots), slots[chosen])
        start, length = calendars.windows(filled, self.mapping.half_window)[slot]
        near = np.take(np.flatnonzero(filled), np.arange(start, start + length), mode="wrap")
        inside = np.flatnonzero(np.isin(slots[chosen], near) & ~np.isnan(values))
        order = inside[np.argsort(values[inside], kind="stable")]
        return chosen[order], values[order]


def _adjust(at: _At) -> _Told:
    target, reference, ranking = at.parameters["target"], at.input("ref"), _Ranking.of(at)
    parts = {role: at.input(role) for role in ("hist", "scen") if role in at.recipe["inputs"]}
    ref, sim = (_series(at, some) for some in ([reference], [*parts.values()]))
    begin = 0 if target == "hist" else len(parts["hist"].days)
    t, period = at.index[0] + begin, slice(begin, begin + len(at.field.days))
    made = ranking.adjusted(ref, sim, period, at.field.season.get("season"))
    value = float(made.values[at.index[0], 0])
    if made.rank is not None:
        rank, simulated = (
            float(made.rank[at.index[0], 0]),
            at.follow(target, parts[target], at.index),
        )
        return _Told(
            MAPS[ranking.mapping.method].format(x=target),
            f"x = {_n(simulated.value)}, tau = {rank:.6g}",
            value,
            (simulated,),
            "the distributions are those of the days of the year around"
            + (", less the change of the epoch" if made.trend is not None else ""),
        )
    x, trend = (float(series[t]) for series in ranking.ranked(sim))
    calendar, slots = sim.days.calendar, calendars.slots(sim.days)
    _, own = ranking.window(sim, slots, slots[t], calendars.n_slots(calendar))
    slot = calendars.reference_slots(calendar)[slots[t]]
    days, nodes = ranking.window(ref, calendars.standard_slots(ref.days), slot, N_SLOTS)
    a, b = quantiles.POSITIONS[ranking.mapping.positions]
    tau = quantiles.ecdf(own, x, a, b)
    rank, quantile = tau * (own.size + b) + a, quantiles.inverse(nodes, tau, a, b)

    simulated = at.follow(target, parts[target], at.index)
    nearest = int(days[np.argmin(np.abs(nodes - quantile))])
    observed = at.follow("ref", reference, (nearest, *at.index[1:]))
    back = f" + {_n(trend)}" if ranking.is_detrended else ""
    inner = f"{_n(simulated.value)} - {_n(trend)}" if back else _n(x)
    is_beyond, tails, dry = not own[0] <= x <= own[-1], ranking.mapping.tails, ranking.threshold
    mapped = value - trend if is_beyond else quantile
    notes = {
        f"rank {rank:.6g} of {own.size} training days of hist in the window": True,
        f"ref is shown on that of its {nodes.size} which is nearest to the quantile": True,
        f"beyond {own[0]:.6g}..{own[-1]:.6g} of hist: by the tail `{tails}`": is_beyond,
        f"{target} is dry: {_n(x)} is drawn below {dry:.6g}": simulated.value < dry,
        f"below {dry:.6g}: 0": value < dry,
    }
    last = f" = {_n(mapped)}{back}" if back or _n(mapped) != _n(value) else ""
    return _Told(
        f"F_ref^-1(F_hist({target}{' - trend' if back else ''})){' + trend' if back else ''}",
        f"F_ref^-1(F_hist({inner})){back} = F_ref^-1({tau:.6g}){back}{last}",
        value,
        (simulated, observed),
        "; ".join(note for note, applies in notes.items() if applies),
    )


MAPS = {
    "dqm": "F_ref^-1(F_hist({x} - change)) + change of the mean around {x}",
    "qdm": "F_ref^-1(tau) with the change from F_hist^-1(tau) to {x}, tau = F_{x}({x})",
    "edcdfm": "F_ref^-1(tau) with the change from F_hist^-1(tau) to {x}, tau = F_{x}({x})",
}
"""What the methods of `adjust` beside QM do to a value."""


def _series(at: _At, parts: list[Field]) -> Series:
    """Return the series of a cell over the days of all parts, with its training days."""
    days = Days.concatenate([part.days for part in parts])
    train = np.zeros(len(days), dtype=np.bool_)
    train[slice(*within(days, at.parameters["train"], where=parts[0].store.url))] = True
    values = np.concatenate([part.series(slice(None), *at.cell) for part in parts])
    return Series(values, days, train)


# --------------------------------------------------------------------------------------
# Stages that read sources


def _standardised(at: _At) -> _Told:
    if "source" in at.parameters:
        return _read(at)
    high, low = (at.follow(role, at.input(role), at.index) for role in ("tasmax", "tasmin"))
    value, formula = np.float32(high.value) - np.float32(low.value), "tasmax - tasmin"
    if value <= 0:
        value, formula = DTR_FLOOR, f"{formula}, which is not above 0: the floor {DTR_FLOOR:g}"
    return _Told(formula, f"{_n(high.value)} - {_n(low.value)}", value, (high, low))


def _read(at: _At) -> _Told:
    """Explain a value that was read, as far as the inputs lock leads."""
    content = at.parameters["source"]
    entries = at.trail.lock["sources"].values() if at.trail.lock else ()
    request = next((e["request"] for e in entries if e["content"] == content), None)
    if request is None or at.trail.lock is None:
        return _Told("the source", note=f"source content {content}; an inputs lock names its place")
    work = Job(at.recipe["stage"], at.field.store.url, lock=at.trail.lock)
    try:
        with closing(work.source(content)) as source:
            step, factor, offset = _raw(at, source, request)
    except FinescaleError as error:
        return _Told("the source", note=f"source content {content} cannot be read: {error}")
    value = step.value * factor + offset
    formula, numbers = "the source, whose units are these", ""
    if (factor, offset) != (1.0, 0.0):
        formula = "the source * factor + offset, its units converted"
        numbers = f"{_n(step.value)} * {_n(factor)} + {_n(offset)}"
    if at.field.variable_id == "pr" and NEGATIVE_PR <= value < 0:
        value, formula = 0.0, f"{formula}; round-off below 0 set to 0"
    return _Told(formula, numbers, value, (step,))


def _raw(at: _At, source: Source, request: Mapping[str, Any]) -> tuple[Step, float, float]:
    """Return the value as its source has it, and the factor and offset of its units."""
    (time, row, col), p, variable_id = at.index, at.parameters, at.field.variable_id
    time += within(source.days, p["period"], where=source.name)[0]
    row += p["select"]["lat"][0]
    if source.lat[0] > source.lat[-1]:
        row = source.lat.size - 1 - row
    col = [i for part in p["select"]["lon"] for i in range(*part)][col]
    place = "a synthetic world"
    if "path" in request:
        place = expand(request["path"], request["facets"], where=source.name)
    # A source said to be in our units returns its values as they are.
    plain = replace(source, units=VARIABLES[variable_id].units)
    region = slice(time, time + 1), slice(row, row + 1), ((col, col + 1),)
    step = Step(
        stage="source",
        store=place,
        array=request.get("variable_name", variable_id),
        index=(time, row, col),
        date=source.days.isoformat(time),
        lat=float(source.lat[row]),
        lon=float(source.lon[col]),
        value=plain.read(*region, variable_id=variable_id).item(),
        units=source.units,
        role=source.name,
    )
    return step, *conversion(source.units, variable_id, where=source.name)


EXPLAIN: dict[str, Callable[[_At], _Told]] = {
    "reference": _standardised,
    "simulation": _standardised,
    "coarsen": _coarsen,
    "climatology": _climatology,
    "adjust": _adjust,
    "bcsd": _bcsd,
    "qplad": _qplad,
    "maca": _maca,
    "gard": _gard,
    "interpolate": _interpolate,
    "aggregate": _aggregate,
}
"""What explains one value of a stage."""
