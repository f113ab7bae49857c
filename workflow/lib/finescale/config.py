"""The configuration: one frozen pydantic model, one section per stage word.

`load` turns the mapping that Snakemake (or YAML) gives into a `Config`, or raises one
`ConfigError` that lists everything wrong with it. The JSON schema and the reference page
are generated from these classes (`finescale schema`).
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from finescale.errors import ConfigError
from finescale.variables import VARIABLES

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")]
"""Names go into paths: letters, digits, dot and hyphen; no underscore, which separates facets."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[Name, ...], BeforeValidator(_as_list), Field(min_length=1)]


def _known_variable(value: str) -> str:
    if value not in VARIABLES:
        near = difflib.get_close_matches(value, VARIABLES, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise ValueError(f"unknown variable `{value}`{hint} (known: {', '.join(VARIABLES)})")
    return value


Variable = Annotated[str, BeforeValidator(_known_variable)]


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


Period = Annotated[tuple[str, str], BeforeValidator(_as_period)]
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


Interval = Annotated[tuple[float, float], BeforeValidator(_as_interval)]


class Section(BaseModel):
    """A part of the configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


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
    if isinstance(value, list | tuple):
        return {name: {} for name in value}
    return (
        {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value
    )


Variables = Annotated[
    dict[Variable, SourceVariable], BeforeValidator(_as_variables), Field(min_length=1)
]


class Dataset(Section):
    """What reference and simulation have in common: where the data lie and how to read them."""

    path: str | None = Field(
        None,
        description="Zarr store, netCDF file or glob; local or URL (gs://, s3://, https://). "
        "$NAME is the environment, {variable_id}, {source_id}, ... are facets",
    )
    synthetic: dict[str, int | float | str] | None = Field(
        None, description="generate the data: parameters of the synthetic world ({} for defaults)"
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
    season: str | None = Field(
        None,
        pattern=r"^[JFMASOND]{1,11}$",
        description="initials of months (DJF) if the axis holds only those",
    )
    licence: str | None = Field(None, description="default: the dataset's own attribute")
    citation: str | None = Field(None, description="default: the dataset's own attribute")

    @model_validator(mode="after")
    def _one_origin(self) -> Dataset:
        given = self.path is not None or any(v.path for v in self.variables.values())
        if given == (self.synthetic is not None):
            raise ValueError("give either `path` or `synthetic`")
        return self


class Reference(Dataset):
    """An observation-based dataset on the fine grid."""

    period: Period | None = Field(None, description="days to use; default: all")


class Simulation(Dataset):
    """One or several runs of a GCM; lists of facets expand to their combinations."""

    source_id: Names
    experiment_id: Names = Field(description="`historical` first; scenarios continue it")
    member_id: Names = ("r1i1p1f1",)
    table_id: Name = "day"
    grid_label: Name = "gn"
    period: dict[Name, Period] = Field({}, description="experiment -> days to use; default: all")
    pad_experiment: Name | None = Field(
        None,
        description="scenario whose first years pad historical; default: the first listed",
    )


class Adjust(Section):
    """Bias adjustment on the GCM's grid (docs/stages/adjust.md)."""

    method: Literal["qm"] = "qm"
    half_window: int = Field(15, ge=0, le=91, description="days on either side of the day of year")
    positions: Literal["weibull", "cunnane", "hazen", "type7"] = "weibull"
    tails: Literal["parametric", "linear", "constant"] = "parametric"
    trend_years: int = Field(
        9, ge=0, description="running mean taken out of kind + variables; 0: none"
    )
    dry_threshold: float = Field(0.05, ge=0, description="[mm/day]; pr below it is dry")
    seed: int = Field(0, ge=0, description="of the jitter on dry days")


class Climatology(Section):
    """Day-of-year climatology of the reference (docs/stages/climatology.md)."""

    harmonics: int = Field(3, ge=1, le=12)
    half_window: int = Field(
        15, ge=0, le=91, description="used where a season leaves under 300 days"
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


class Method(Section):
    """A named method: a product stage and what differs from the stage sections."""

    stage: Literal["bcsd", "interpolate"] | None = Field(
        None, description="default: the method's name"
    )
    adjust: dict[str, Any] = Field({}, description="keys of `adjust` that differ for this method")
    climatology: dict[str, Any] = Field({}, description="keys of `climatology` that differ")


class Aggregate(Section):
    """Means over months and years of each product (docs/stages/aggregate.md)."""

    frequencies: tuple[Literal["mon", "yr"], ...] = ("mon", "yr")


class Evaluate(Section):
    """The scorecard (docs/stages/evaluate.md)."""

    wet_day: float = Field(1.0, gt=0, description="[mm/day]")
    waive: tuple[str, ...] = Field((), description="gates that may fail without failing the run")


class Products(Section):
    """One block of the matrix: every combination of these lists is a product."""

    domain: Names
    reference: Name
    train: Name = Field(description="a name in `periods`: the days that distributions are built on")
    score: Name | None = Field(
        None, description="a name in `periods`: the days to score; default: all of the product"
    )
    source_id: Names
    member_id: Names | None = None
    experiment_id: Names | None = Field(None, description="default: all of the simulation")
    variable_id: Annotated[tuple[Variable, ...], BeforeValidator(_as_list), Field(min_length=1)]
    method: Names
    exclude: tuple[dict[str, str], ...] = Field(
        (), description="facets of combinations to leave out"
    )
    calendar: str | None = Field(
        None, description="convert products to this CF calendar; default: the GCM's"
    )

    def excluded(self, facets: dict[str, str]) -> bool:
        """Tell whether a combination is left out."""
        return any(all(facets.get(k) == v for k, v in rule.items()) for rule in self.exclude)


class Config(Section):
    """Everything a run needs to know."""

    name: Name = Field(description="results go to results/<name>/")
    stores: str = Field(
        "stores", description="root of all stores, shared by configs: a folder or a URL"
    )
    domains: dict[Name, Domain] = Field(min_length=1)
    periods: dict[Name, Period] = Field(min_length=1)
    references: dict[Name, Reference] = Field(min_length=1)
    simulations: tuple[Simulation, ...] = Field(min_length=1)
    methods: dict[Name, Method] = Field({}, description="beyond those named as their stage")
    products: tuple[Products, ...] = Field(min_length=1)
    weights: Weights = Weights()
    coarsen: Coarsen = Coarsen()
    climatology: Climatology = Climatology()
    adjust: Adjust = Adjust()
    aggregate: Aggregate = Aggregate()
    evaluate: Evaluate = Evaluate()

    def method(self, name: str) -> tuple[str, Adjust, Climatology]:
        """Return the product stage of a method and its complete `adjust` and `climatology`."""
        method = self.methods.get(name, Method(stage=None))
        stage = method.stage or name
        return (
            stage,
            Adjust(**{**self.adjust.model_dump(), **method.adjust}),
            Climatology(**{**self.climatology.model_dump(), **method.climatology}),
        )


PRODUCT_STAGES = ("bcsd", "interpolate")


def _check_names(config: Config) -> list[str]:
    """Return what is wrong in the references between named things."""
    wrong = []

    def known(where: str, names: Any, defined: Any, kind: str) -> None:
        for name in names:
            if name not in defined:
                near = difflib.get_close_matches(name, defined, n=1)
                hint = f"; did you mean `{near[0]}`?" if near else ""
                wrong.append(
                    f"{where}: no {kind} named `{name}`{hint} "
                    f"(defined: {', '.join(sorted(defined))})"
                )

    source_ids = {s for run in config.simulations for s in run.source_id}
    methods = {*config.methods, *PRODUCT_STAGES}
    for name, method in config.methods.items():
        if method.stage is None and name not in PRODUCT_STAGES:
            wrong.append(f"methods.{name}: give `stage`, one of {', '.join(PRODUCT_STAGES)}")
        for section, overrides, model in (
            ("adjust", method.adjust, Adjust),
            ("climatology", method.climatology, Climatology),
        ):
            try:
                model(**{**getattr(config, section).model_dump(), **overrides})
            except ValidationError as error:
                wrong += _messages(error, prefix=f"methods.{name}.{section}.")
    for i, block in enumerate(config.products):
        where = f"products.{i}"
        known(f"{where}.domain", block.domain, config.domains, "domain")
        known(f"{where}.reference", [block.reference], config.references, "reference")
        known(f"{where}.train", [block.train], config.periods, "period")
        known(f"{where}.score", [block.score] if block.score else [], config.periods, "period")
        known(f"{where}.source_id", block.source_id, source_ids, "simulation")
        known(f"{where}.method", block.method, methods, "method")
        runs = [run for run in config.simulations if set(run.source_id) & set(block.source_id)]
        experiments = {e for run in runs for e in run.experiment_id}
        members = {m for run in runs for m in run.member_id}
        if runs:
            known(f"{where}.experiment_id", block.experiment_id or (), experiments, "experiment")
            known(f"{where}.member_id", block.member_id or (), members, "member")
        reference = config.references.get(block.reference)
        if reference is None:
            continue
        for variable in block.variable_id:
            if variable not in reference.variables:
                wrong.append(
                    f"{where}.variable_id: reference `{block.reference}` has no `{variable}` "
                    f"(it has: {', '.join(reference.variables)})"
                )
            for run in runs:
                if variable not in run.variables:
                    wrong.append(
                        f"{where}.variable_id: simulation `{', '.join(run.source_id)}` has no "
                        f"`{variable}` (it has: {', '.join(run.variables)})"
                    )
        facets = {"domain", "source_id", "member_id", "experiment_id", "variable_id", "method"}
        for rule in block.exclude:
            known(f"{where}.exclude", rule, facets, "facet")
    for i, run in enumerate(config.simulations):
        known(f"simulations.{i}.period", run.period, run.experiment_id, "experiment")
        if run.pad_experiment is not None:
            known(
                f"simulations.{i}.pad_experiment",
                [run.pad_experiment],
                run.experiment_id,
                "experiment",
            )
    return wrong


def _messages(error: ValidationError, *, prefix: str = "") -> list[str]:
    """Return one line per problem: where, what came, what to do."""
    lines = []
    for problem in error.errors():
        parts = [str(p) for p in problem["loc"]]
        where = prefix + ".".join(parts)
        if problem["type"] == "extra_forbidden":
            known = sorted(_keys_at(problem["loc"], prefix))
            near = difflib.get_close_matches(parts[-1], known, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else f" (known here: {', '.join(known)})"
            lines.append(f"{where}: unknown key{hint}")
        elif problem["type"] == "missing":
            lines.append(f"{where}: required, but not given")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            came = (
                ""
                if "found" in message or "unknown" in message
                else f", found {problem['input']!r}"
            )
            lines.append(f"{where}: {message[0].lower()}{message[1:]}{came}"[:400])
    return lines


def _keys_at(location: tuple[Any, ...], prefix: str) -> set[str]:
    """Return the keys that the section around `location` knows."""
    if prefix:
        return set((Adjust if ".adjust." in prefix else Climatology).model_fields)
    model: type[BaseModel] = Config
    for part in location[:-1]:
        if part in model.model_fields:
            model = _section_in(model.model_fields[part].annotation) or model
    return set(model.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the Section class inside an annotation such as dict[str, Section]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _section_in(part)
        if found is not None:
            return found
    return None


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
        config = Config(**mapping)
    except ValidationError as error:
        wrong = _messages(error)
    else:
        wrong = _check_names(config)
        if not wrong:
            return config
    lines = list(dict.fromkeys(wrong))
    raise ConfigError(
        f"{where}: " + ("; ".join(lines) if len(lines) == 1 else "\n  - " + "\n  - ".join(lines))
    )
