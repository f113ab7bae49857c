"""The configuration: one frozen pydantic model, one section per stage word.

`load` turns the mapping that Snakemake (or YAML) gives into a `Config`, or raises one
`ConfigError` that lists everything wrong with it. The JSON schema and the reference page
are generated from these classes (`finescale schema`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from finescale.errors import ConfigError
from finescale.variables import VARIABLES

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")]
"""Names go into paths: letters, digits, dot and hyphen; no underscore, which separates facets."""


ProductStage = Literal["bcsd", "qplad", "maca", "gard", "interpolate"]
PRODUCT_STAGES: tuple[str, ...] = get_args(ProductStage)
Calendar = Literal[
    "standard", "gregorian", "proleptic_gregorian", "julian", "noleap", "365_day", "all_leap",
    "366_day", "360_day",
]  # fmt: skip
Gate = Literal[
    "missing_values", "values_outside_mask", "below_range", "above_range", "tasmin_above_tasmax",
    "time_steps", "trend_distortion",
]  # fmt: skip


def _as_list(value: Any) -> Any:
    return value if value is None or isinstance(value, list | tuple | dict) else [value]


SomeNames = Annotated[tuple[Name, ...], Field(min_length=1)]
Names = Annotated[SomeNames, BeforeValidator(_as_list, json_schema_input_type=Name | SomeNames)]
"""A list; a single name will do."""


def _hint(name: str, known: Iterable[str]) -> str:
    """Return the known name that was probably meant, as the end of a message."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.65)
    return f"; did you mean `{near[0]}`?" if near else ""


READABLE = tuple(name for name in VARIABLES if name != "dtr")
"""What a config may ask for; dtr is derived inside, for tasmin."""


def _known_variable(value: Any) -> Any:
    if isinstance(value, str) and value not in READABLE:
        hint = _hint(value, READABLE)
        raise ValueError(f"unknown variable `{value}`{hint} (known: {', '.join(READABLE)})")
    return value


Variable = Annotated[
    str, BeforeValidator(_known_variable, json_schema_input_type=Literal[READABLE])
]
SomeVariables = Annotated[tuple[Variable, ...], Field(min_length=1)]


def _as_date(value: Any, *, last: bool) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        value = str(value)
    text = f"{value:04d}-{'12-31' if last else '01-01'}" if isinstance(value, int) else value
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", text):
        raise ValueError(f"expected a year or a date YYYY-MM-DD, found {value!r}")
    return text


def _as_period(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) == 2:
        first, last = _as_date(value[0], last=False), _as_date(value[1], last=True)
        if first > last:
            raise ValueError(f"the period starts ({first}) after its end ({last})")
        return (first, last)
    raise ValueError(f"expected [first, last] (years or YYYY-MM-DD), found {value!r}")


Period = Annotated[
    tuple[str, str], BeforeValidator(_as_period, json_schema_input_type=tuple[int | str, int | str])
]
"""First and last day, inclusive. A bare year means its first or last day in any calendar."""


def _as_interval(value: Any) -> Any:
    if (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
        and value[0] < value[1]
    ):
        return (float(value[0]), float(value[1]))
    raise ValueError(f"expected [low, high] in degrees with low < high, found {value!r}")


Interval = Annotated[
    tuple[float, float],
    BeforeValidator(_as_interval, json_schema_input_type=tuple[float, float]),
]


def _as_season(value: Any) -> Any:
    initials = 2 * "JFMAMJJASOND"
    if isinstance(value, str) and sum(initials.startswith(value, i) for i in range(12)) != 1:
        raise ValueError(f"expected the initials of consecutive months (DJF), found {value!r}")
    return value


Season = Annotated[str, BeforeValidator(_as_season, json_schema_input_type=str)]


class Section(BaseModel):
    """A part of the configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --------------------------------------------------------------------------------------
# Named things: domains, periods, references, simulations, methods


class Domain(Section):
    """A box of fine cells, by their centres. Its longitudes set the convention of the product."""

    lat: Interval | None = Field(None, description="[south, north]; the whole reference if absent")
    lon: Interval | None = Field(None, description="[west, east], in -180..180 or 0..360")


class SourceVariable(Section):
    """How one variable is found in its dataset, where the defaults do not fit."""

    name: str | None = Field(None, description="name in the dataset; default: the CMIP6 name")
    units: str | None = Field(
        None, description="units of the data, if its attribute is absent or wrong"
    )
    path: str | None = Field(None, description="path of this variable, if it has its own")


def _as_variables(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: {} if details is None else details for name, details in value.items()}
    names = _as_list(value)
    if names is not None and not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected a list of names, or a mapping name -> details, found {value!r}")
    return names and {name: {} for name in names}


Variables = Annotated[
    dict[Variable, SourceVariable],
    BeforeValidator(
        _as_variables,
        json_schema_input_type=Variable | SomeVariables | dict[Variable, SourceVariable | None],
    ),
    Field(min_length=1),
]


class Dataset(Section):
    """What reference and simulation have in common: where the data lie and how to read them."""

    path: str | None = Field(
        None,
        description="Zarr store, netCDF file or glob; local or URL (gs://, s3://, https://). "
        "`$NAME` is the environment, `{variable_id}`, `{source_id}`, ... are facets",
    )
    synthetic: dict[str, Any] | None = Field(
        None, description="generate the data: parameters of the synthetic [World](#world)"
    )
    format: Literal["zarr", "netcdf"] | None = Field(
        None, description="default: by the path's ending"
    )
    version: str | None = Field(
        None,
        description="published version, for archives that never change under one (CMIP6, ARCO "
        "ERA5): identity is then facets + version + metadata instead of every byte",
    )
    storage_options: dict[str, Any] = Field(
        {}, description="for remote paths, as fsspec takes them"
    )
    variables: Variables = Field(description="a list of CMIP6 names, or a mapping name -> details")
    season: Season | None = Field(
        None, description="initials of months (DJF) if the axis holds only those"
    )
    licence: str | None = Field(None, description="default: the dataset's own attribute")
    citation: str | None = Field(None, description="default: the dataset's own attribute")

    @model_validator(mode="after")
    def _one_origin(self) -> Dataset:
        generated = self.synthetic is not None
        missing = [name for name, v in self.variables.items() if not (self.path or v.path)]
        if generated and (self.path or len(missing) < len(self.variables)):
            raise ValueError("give either `path` or `synthetic`, found both")
        read = {"format", "version", "storage_options", "season"} & self.model_fields_set
        if generated and (read or any(v.model_fields_set for v in self.variables.values())):
            raise ValueError(
                "`synthetic` data have their own names, units and whole years; remove "
                + ", ".join(f"`{key}`" for key in sorted(read or {"variables: details"}))
            )
        if missing and not generated:
            raise ValueError(
                f"give either `path` or `synthetic`, found neither for {', '.join(missing)}"
            )
        return self


class Reference(Dataset):
    """An observation-based dataset on the fine grid."""

    period: Period | None = Field(None, description="days to use; default: all")


class Simulation(Dataset):
    """One or several runs of a GCM; lists of facets expand to their combinations."""

    source_id: Names = Field(description="the models")
    experiment_id: Names = Field(description="`historical`, and the scenarios that continue it")
    member_id: Names = Field(("r1i1p1f1",), description="the members of each")
    table_id: Name = Field("day", description="CMIP6 table")
    grid_label: Name = Field("gn", description="CMIP6 grid label")
    period: dict[Name, Period] = Field({}, description="experiment -> days to use; default: all")
    pad_experiment: Name | None = Field(
        None,
        description="scenario whose first years pad historical; default: the first listed",
    )


class Adjust(Section):
    """Bias adjustment on the GCM's grid (docs/stages/adjust.md); methods fix some of these keys."""

    method: Literal["qm", "dqm", "qdm", "edcdfm"] = Field(
        "qm",
        description="by day of year: quantile mapping, the same without and with the change of the "
        "mean, quantile delta mapping in a window of years or over the whole period",
    )
    half_window: int = Field(15, ge=0, le=91, description="days on either side of the day of year")
    positions: Literal["weibull", "cunnane", "hazen", "type7"] = Field(
        "weibull", description="plotting positions of the empirical distributions"
    )
    tails: Literal["parametric", "linear", "constant"] = Field(
        "parametric", description="how values beyond the training range are mapped"
    )
    trend_years: int = Field(
        9,
        ge=0,
        description="running mean taken out of temperatures before mapping and put back after; "
        "odd; 0: none",
    )
    year_window: int = Field(
        21, ge=1, description="odd; years around a value that dqm and qdm rank it in"
    )
    epoch_years: int = Field(
        0,
        ge=0,
        description="odd; climatology of so many years taken out before, which `maca` puts back; "
        "0: none",
    )
    max_ratio: float = Field(
        2.0, gt=0, description="largest factor of dqm, qdm and edcdfm where hist is nearly 0"
    )
    keep_mean_change: bool = Field(
        False,
        description="kind *, not of edcdfm: scale in windows of days and years, so that the mean "
        "changes as the model's",
    )
    dry_threshold: float = Field(0.05, ge=0, description="[mm/day]; pr below it is dry")
    dry_floor: float = Field(
        0.0, ge=0, lt=1, description="of the threshold; dry days are jittered from it upwards"
    )
    seed: int = Field(0, ge=0, description="of the jitter on dry days")

    @field_validator("trend_years", "year_window", "epoch_years")
    @classmethod
    def _centred(cls, value: int) -> int:
        if value and value % 2 == 0:
            raise ValueError(f"expected an odd number, so that the mean is centred, found {value}")
        return value

    @model_validator(mode="after")
    def _on_one_axis(self) -> Self:
        if self.keep_mean_change and self.method == "edcdfm":
            raise ConfigError(
                "adjust: `keep_mean_change` needs all years mapped on one axis, and `edcdfm` maps "
                "each period by itself; set it to false, or choose another `method`"
            )
        return self


class Climatology(Section):
    """Day-of-year climatology of the reference (docs/stages/climatology.md)."""

    harmonics: int = Field(3, ge=1, le=12, description="of the year, that it is smoothed by")
    half_window: int = Field(
        15, ge=0, le=91, description="days on either side, where a season leaves under 300 of them"
    )
    min_valid_fraction: float = Field(
        0.5, gt=0, le=1, description="of training days, else the cell is masked"
    )
    floor: float = Field(
        0.05, gt=0, description="[mm/day]; lowest climatology of pr (ratios divide by it)"
    )


class Weights(Section):
    """Regridding matrices (docs/stages/weights.md)."""

    engine: Literal["rectilinear", "esmf"] = Field(
        "rectilinear", description="esmf needs esmpy, which only conda-forge ships"
    )


class Coarsen(Section):
    """The reference averaged onto the GCM's grid (docs/stages/coarsen.md)."""

    min_valid_fraction: float = Field(
        0.5, gt=0, le=1, description="of a coarse cell's area, else NaN"
    )


class Bcsd(Section):
    """Spatial disaggregation (docs/stages/bcsd.md); the defaults are the published method."""

    interpolation: Literal["bilinear", "mean_preserving"] = Field(
        "bilinear",
        description="of coarse anomalies; mean_preserving: so that their area means are kept",
    )
    fill: Literal["nearest", "smooth"] = Field(
        "nearest",
        description="of coarse cells without values: the nearest valid cell, or Laplace's equation",
    )


class Interpolate(Section):
    """The raw model, interpolated (docs/stages/interpolate.md): nothing to choose."""


class Qplad(Section):
    """Quantile-preserving analogs of the reference's training days (docs/stages/qplad.md)."""

    half_window: int = Field(
        15, ge=0, le=91, description="training days on either side of the day of year"
    )
    wet_day: float = Field(1.0, ge=0, description="[mm/day]; pr below it becomes 0")
    pr_ceiling: float = Field(2000.0, gt=0, description="[mm/day]; highest pr")
    dtr_ceiling: float = Field(70.0, gt=0, description="[K]; highest diurnal range")


class Maca(Section):
    """Constructed analogs and a fine adjustment (docs/stages/maca.md, docs/stages/analogs.md)."""

    n_analogs: int = Field(10, ge=1, description="training days that a day is made of")
    day_window: int = Field(45, ge=0, le=182, description="days of the year they may be away")
    exclude_days: int = Field(7, ge=0, description="on either side of the day itself, not used")
    ridge: float = Field(0.1, ge=0, description="of the mean diagonal of their Gram matrix")
    region_degrees: float = Field(
        20.0, gt=0, description="side of the overlapping regions that have their own analogs"
    )
    half_window: int = Field(
        22, ge=0, le=91, description="days on either side, of the fine adjustment"
    )
    max_ratio: float = Field(5.0, gt=0, description="of the fine adjustment")
    pr_ceiling: float = Field(2000.0, gt=0, description="[mm/day]; highest pr")


class Gard(Section):
    """Regression on coarse predictors, cell by cell (docs/stages/gard.md)."""

    predictors: tuple[Variable, ...] = Field(
        (), description="CMIP6 names; default: the variable itself"
    )
    train_on: Literal["reference", "simulation"] = Field(
        "reference",
        description="reference: its coarse means, and the model adjusted to them; simulation: the "
        "model as it is, which must follow the observed days (a reanalysis)",
    )
    mode: Literal["regression", "analog_regression", "analog"] = Field(
        "regression", description="on all days of the season, on the nearest, or their values"
    )
    transform: Literal["none", "cube_root", "log", "quantile"] | None = Field(
        None, description="of the predictors; default: cube_root where pr is made, none elsewhere"
    )
    half_window: int = Field(45, ge=1, le=182, description="days of the year on either side")
    window_step: int = Field(5, ge=1, description="days of the year that share a logistic model")
    n_analogs: int = Field(200, ge=3, description="nearest days")
    analog_kind: Literal["mean", "best", "sample", "weighted"] = Field(
        "mean", description="of the mode analog"
    )
    threshold: float = Field(1.0, gt=0, description="[mm/day]; pr above it is wet")
    pr_ceiling: float = Field(2000.0, gt=0, description="[mm/day]; highest pr")
    stochastic: bool = Field(False, description="add a random field in space and time")
    seed: int = Field(0, ge=0, description="of the random field: members differ in it")
    length_km: float | None = Field(
        None, gt=0, description="of the random field; default: estimated from the reference"
    )
    length_days: float | None = Field(None, gt=0, description="likewise")
    correlation: float = Field(
        0.75, ge=-1, le=1, description="of the random fields of tasmax and its diurnal range"
    )


class Method(Section):
    """A named method: a product stage and what differs from the stage sections."""

    stage: ProductStage | None = Field(None, description="default: the method's name")
    adjust: dict[str, Any] = Field({}, description="keys of `adjust` that differ for this method")
    climatology: dict[str, Any] = Field({}, description="keys of `climatology` that differ")
    settings: dict[str, Any] = Field(
        {}, description="keys of the section of its product stage that differ"
    )


class Aggregate(Section):
    """Means over months and years of each product (docs/stages/aggregate.md)."""

    frequencies: tuple[Literal["mon", "yr"], ...] = Field(
        ("mon", "yr"), description="which of them are made; `[]` for none"
    )


class Evaluate(Section):
    """The scorecard (docs/stages/evaluate.md)."""

    wet_day: float = Field(1.0, gt=0, description="[mm/day]; least precipitation of a wet day")
    waive: tuple[Gate, ...] = Field((), description="gates that may fail without failing the run")


class Prices(Section):
    """What a run costs where it is paid for, in any currency; without prices no cost is told."""

    core_hour: float = Field(0.0, ge=0, description="of one processor for an hour")
    million_writes: float = Field(0.0, ge=0, description="of a million objects written")
    gb_month: float = Field(0.0, ge=0, description="of a gigabyte stored for a month")


class Try(Section):
    """A sample of the whole: the same rules on a few coarse cells and years."""

    cells: int = Field(4, ge=1, description="coarse cells a side, of the coarsest model")
    years: int = Field(3, ge=1, description="last ones of each period, first ones of scenarios")
    lat: float | None = Field(None, description="middle of the sample; default: of each domain")
    lon: float | None = Field(None, description="likewise")
    active: bool = Field(
        True, description="false: run the whole, and plan it by what the sample took"
    )


class Verify(Section):
    """Verification of stores by Snakemake (docs/running/stores.md)."""

    depth: Literal["quick", "deep"] = Field(
        "quick", description="quick: sizes and metadata by a listing; deep: read every chunk"
    )
    gate: bool = Field(False, description="verify at the end of every run that made something")


class Products(Section):
    """One block of the matrix: every combination of these lists is a product."""

    domain: Names = Field(description="names in `domains`")
    reference: Name = Field(description="a name in `references`")
    train: Name = Field(description="a name in `periods`: the days that distributions are built on")
    score: Name | None = Field(
        None, description="a name in `periods`: the days to score; default: all of the product"
    )
    source_id: Names = Field(description="models of `simulations`")
    member_id: Names | None = Field(None, description="default: all of the simulation")
    experiment_id: Names | None = Field(None, description="default: all of the simulation")
    variable_id: Annotated[
        SomeVariables, BeforeValidator(_as_list, json_schema_input_type=Variable | SomeVariables)
    ] = Field(description="CMIP6 names; tasmax and tasmin belong together")
    method: Names = Field(description="a product stage (bcsd, qplad, ...) or a name in `methods`")
    settings: dict[ProductStage, dict[str, Any]] = Field(
        {}, description="product stage -> keys of its section that differ in this block"
    )
    exclude: tuple[dict[str, str], ...] = Field(
        (), description="facets of combinations to leave out"
    )
    calendar: Calendar | None = Field(
        None, description="convert products to this CF calendar; default: the GCM's"
    )

    def excluded(self, facets: dict[str, str]) -> bool:
        """Tell whether a combination is left out."""
        return any(all(facets.get(k) == v for k, v in rule.items()) for rule in self.exclude)


class Config(Section):
    """Everything a run needs to know."""

    name: Name = Field(description="results go to `results/<name>/`")
    stores: str = Field(
        "stores", description="root of all stores, shared by configs: a folder or a URL"
    )
    domains: dict[Name, Domain] = Field(min_length=1, description="where: boxes of the fine grid")
    periods: dict[Name, Period] = Field(
        min_length=1,
        description="when: [first, last], years or dates, both included; a bare year is its first "
        "or its last day in any calendar",
    )
    references: dict[Name, Reference] = Field(min_length=1, description="observations")
    simulations: tuple[Simulation, ...] = Field(min_length=1, description="global models")
    methods: dict[Name, Method] = Field(
        {}, description="variants of methods; those of the defaults are named as their stage"
    )
    products: tuple[Products, ...] = Field(min_length=1, description="what is made")
    weights: Weights = Field(Weights(), description="regridding")
    coarsen: Coarsen = Field(Coarsen(), description="averaging onto the model's grid")
    climatology: Climatology = Field(Climatology(), description="day-of-year climatologies")
    adjust: Adjust = Field(Adjust(), description="bias adjustment")
    bcsd: Bcsd = Field(Bcsd(), description="spatial disaggregation")
    qplad: Qplad = Field(Qplad(), description="quantile-preserving analogs")
    maca: Maca = Field(Maca(), description="constructed analogs")
    gard: Gard = Field(Gard(), description="regression")
    interpolate: Interpolate = Field(Interpolate(), description="the baseline")
    aggregate: Aggregate = Field(Aggregate(), description="monthly and annual summaries")
    evaluate: Evaluate = Field(Evaluate(), description="the scorecard and its gates")
    verify: Verify = Field(Verify(), description="integrity of the stores")
    sample: Try | None = Field(
        None, alias="try", description="run on a sample of itself first, to `results/<name>-try/`"
    )
    prices: Prices = Field(Prices(), description="for the cost that `finescale plan` tells")

    def stage(self, method: str) -> str:
        """Return the product stage of a method."""
        return (method in self.methods and self.methods[method].stage) or method

    def adjusted(self, method: str, fixed: Mapping[str, Any]) -> Adjust:
        """Return the complete `adjust` of a method; `fixed` is what its stage prescribes."""
        return Adjust(**{**self.adjust.model_dump(), **fixed, **self._own(method).adjust})

    def climatologies(self, method: str) -> Climatology:
        """Return the complete `climatology` of a method."""
        return Climatology(**{**self.climatology.model_dump(), **self._own(method).climatology})

    def settings(self, method: str, block: Products) -> Section:
        """Return the complete section of a method's stage: its own keys, the block's, the rest."""
        stage = self.stage(method)
        section: Section = getattr(self, stage)
        inner = block.settings.get(stage, {})  # type: ignore[call-overload]
        return type(section)(**{**section.model_dump(), **inner, **self._own(method).settings})

    def variables(self, block: Products) -> tuple[str, ...]:
        """Return the variables of a block and those that its methods predict them from."""
        sections = (self.settings(method, block) for method in block.method)
        more = (v for section in sections if isinstance(section, Gard) for v in section.predictors)
        return tuple(dict.fromkeys([*block.variable_id, *more]))

    def _own(self, method: str) -> Method:
        return self.methods.get(method, Method(stage=None))


# --------------------------------------------------------------------------------------
# What is wrong, in words


def _unknown(where: str, names: Iterable[str], defined: Collection[str], kind: str) -> list[str]:
    return [
        f"{where}: no {kind} named `{name}`{_hint(name, defined)} "
        f"(defined: {', '.join(sorted(defined)) or 'none'})"
        for name in names
        if name not in defined
    ]


def _check_names(config: Config) -> list[str]:
    """Return what is wrong in the references between named things."""
    return [
        *_check_methods(config),
        *_check_simulations(config),
        *(line for i, b in enumerate(config.products) for line in _check_block(config, i, b)),
    ]


def _check_methods(config: Config) -> list[str]:
    wrong = []
    for name, method in config.methods.items():
        if method.stage is None and name not in PRODUCT_STAGES:
            wrong.append(f"methods.{name}: give `stage`, one of {', '.join(PRODUCT_STAGES)}")
            continue
        wrong += _check_keys(config.adjust, method.adjust, f"methods.{name}.adjust")
        wrong += _check_keys(config.climatology, method.climatology, f"methods.{name}.climatology")
        section = getattr(config, config.stage(name))
        wrong += _check_keys(section, method.settings, f"methods.{name}.settings")
    return wrong


def _check_keys(section: Section, keys: Mapping[str, Any], where: str) -> list[str]:
    """Return what is wrong with keys that replace some of a section."""
    try:
        type(section).model_validate({**section.model_dump(), **keys})
    except ValidationError as error:
        return _messages(error, type(section), within=where)
    return []


def _check_simulations(config: Config) -> list[str]:
    wrong = []
    taken: dict[tuple[str, ...], int] = {}
    for i, run in enumerate(config.simulations):
        where = f"simulations.{i}"
        scenarios = [e for e in run.experiment_id if e != "historical"]
        pad = [run.pad_experiment] if run.pad_experiment else []
        wrong += _unknown(f"{where}.period", run.period, run.experiment_id, "experiment")
        wrong += _unknown(f"{where}.pad_experiment", pad, scenarios, "scenario")
        each = product(
            run.source_id, run.experiment_id, run.member_id, [run.table_id], [run.grid_label]
        )
        twice = next((facets for facets in each if taken.setdefault(facets, i) != i), None)
        if twice is not None:
            wrong.append(
                f"{where}: {' '.join(twice)} is already in simulations.{taken[twice]}; "
                "put its variables into one entry, each with a `path` if they lie apart"
            )
    return wrong


def _check_block(config: Config, number: int, block: Products) -> list[str]:
    where = f"products.{number}"
    runs = [run for run in config.simulations if set(run.source_id) & set(block.source_id)]
    known: dict[str, Collection[str]] = {
        "source_id": {s for run in config.simulations for s in run.source_id},
        "experiment_id": {e for run in runs for e in run.experiment_id},
        "member_id": {m for run in runs for m in run.member_id},
    }
    wrong = [
        *(
            line
            for stage, keys in block.settings.items()
            for line in _check_keys(getattr(config, stage), keys, f"{where}.settings.{stage}")
        ),
        *_unknown(f"{where}.domain", block.domain, config.domains, "domain"),
        *_unknown(f"{where}.reference", [block.reference], config.references, "reference"),
        *_unknown(f"{where}.train", [block.train], config.periods, "period"),
        *_unknown(f"{where}.score", [block.score] if block.score else [], config.periods, "period"),
        *_unknown(f"{where}.source_id", block.source_id, known["source_id"], "simulation"),
        *_unknown(f"{where}.method", block.method, {*config.methods, *PRODUCT_STAGES}, "method"),
    ]
    if runs:
        for facet, kind in (("experiment_id", "experiment"), ("member_id", "member")):
            names = getattr(block, facet) or ()
            wrong += _unknown(f"{where}.{facet}", names, known[facet], kind)
    datasets: list[tuple[str, Dataset]] = [
        (f"simulation `{', '.join(run.source_id)}`", run) for run in runs
    ]
    if block.reference in config.references:
        datasets.insert(0, (f"reference `{block.reference}`", config.references[block.reference]))
    wrong += [
        f"{where}.variable_id: {name} has no `{variable}` (it has: {', '.join(dataset.variables)})"
        for variable in block.variable_id
        for name, dataset in datasets
        if variable not in dataset.variables
    ]
    asked = {
        "domain": block.domain,
        "source_id": block.source_id,
        "member_id": block.member_id or known["member_id"],
        "experiment_id": block.experiment_id or known["experiment_id"],
        "variable_id": block.variable_id,
        "method": block.method,
    }
    for rule in block.exclude:
        wrong += _unknown(f"{where}.exclude", rule, asked, "facet")
        wrong += [
            f"{where}.exclude: {facet} `{name}` is not asked for here{_hint(name, asked[facet])} "
            f"(asked for: {', '.join(sorted(asked[facet]))})"
            for facet, name in rule.items()
            if name not in asked.get(facet, [name])
        ]
    return wrong


TEXTS = {
    "missing": "required, but not given",
    "string_type": "must be text",
    "string_pattern_mismatch": "names are made of letters, digits, dot and hyphen",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "too_short": "must not be empty",
}
"""Our words for pydantic's kinds of error, where its own speak of Python."""


def _messages(error: ValidationError, model: type[BaseModel], *, within: str = "") -> list[str]:
    """Return one line per problem: where, what was expected, what came."""
    lines = []
    for problem in error.errors():
        location, kind, came = problem["loc"], problem["type"], problem["input"]
        if kind == "too_short" and came:
            continue  # pydantic counts the valid items only; what is wrong with the others is said
        where = ".".join(str(p) for p in (within, *location) if p not in ("", "[key]"))
        text = TEXTS.get(kind, problem["msg"].replace("Input should be", "must be"))
        if kind == "extra_forbidden":
            known = _keys_at(location, model)
            hint = _hint(str(location[-1]), known) or f" (known here: {', '.join(known)})"
            text = f"unknown key{hint}"
        elif kind == "value_error":
            text = str(problem["ctx"]["error"])
        elif came is None:
            defaults = "({} for the defaults) " if "mapping" in text else ""
            text = f"empty; give it a value {defaults}or remove the line"
        elif kind not in ("missing", "too_short"):
            shown = repr(came)
            text += ", found " + (shown if len(shown) < 60 else f"{shown[:57]}...")
            text += "; put it in quotes" if kind == "string_type" else ""
        lines.append(f"{where}: {text}" if where else text)
    return lines


def _keys_at(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Return the keys that the section around a location knows."""
    section: type[BaseModel] | None = model
    parts = iter(location[:-1])
    for part in parts:
        annotation = section.model_fields[str(part)].annotation if section else None
        if not isinstance(annotation, type):
            next(parts, None)  # a name in a mapping, a number in a list
        section = _section_in(annotation)
    return sorted(f.alias or name for name, f in section.model_fields.items()) if section else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the Section class inside an annotation such as dict[str, Section]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section_in(part) for part in getattr(annotation, "__args__", ()))
    return next(filter(None, inner), None)


def parse(path: Path) -> dict[str, Any]:
    """Return the mapping that a configuration file holds.

    Raises
    ------
    ConfigError
        There is no such file, it is no YAML, or it holds something other than a mapping.
    """
    try:
        mapping = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path}: the configuration cannot be read ({error.strerror}); "
            "give its path with --configfile"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigError(
            f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}"
        ) from error
    if not isinstance(mapping, dict):
        raise ConfigError(
            f"{path}: a configuration is a mapping (key: value) with `name`, `domains`, ... at its "
            f"top, found {type(mapping).__name__}"
        )
    return mapping


def load(mapping: dict[str, Any], *, where: str = "the configuration") -> Config:
    """Return the validated configuration.

    Parameters
    ----------
    mapping
        What YAML or Snakemake read.
    where
        The file's name, for messages.

    Raises
    ------
    ConfigError
        One message that lists everything wrong, each with its place and remedy.
    """
    try:
        config = Config.model_validate(mapping)
    except ValidationError as error:
        wrong = _messages(error, Config)
    else:
        wrong = _check_names(config)
        if not wrong:
            return config
    lines = list(dict.fromkeys(wrong))
    raise ConfigError(f"{where}:" + "\n  - ".join(["", *lines] if lines[1:] else [f" {lines[0]}"]))
