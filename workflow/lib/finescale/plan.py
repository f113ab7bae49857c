"""The plan: which stores a configuration needs, and of what each is made.

A pure function of config and lock, built once when the Snakefile is read; nothing heavier than
pydantic is imported. Snakemake's input functions only look things up here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, wraps
from typing import Any, Concatenate, ParamSpec

from finescale import domains, identity, memory
from finescale.config import Adjust, Climatology, Config, Maca, Products, Section, Simulation
from finescale.errors import ConfigError
from finescale.methods import METHODS
from finescale.resolve import Lock, reference_key, run_facets, simulation_key
from finescale.variables import VARIABLES

HISTORICAL = "historical"
SENTINEL = ".zmetadata"
MOST_THREADS = 4
VALUES_PER_THREAD = 100_000_000
"""Fine values that are worth a thread: below it, jobs side by side beat threads in a job."""


@dataclass(frozen=True)
class Artefact:
    """A store that the plan needs.

    `facets` are readable and name it, `parameters` are what its stage takes, `inputs` map the
    roles of its stage to other artefacts. `mem_mb` and `threads` are operational: not in the
    identity.
    """

    stage: str
    facets: dict[str, str]
    parameters: dict[str, Any]
    inputs: dict[str, Artefact] = field(default_factory=dict)
    threads: int = 1
    mem_mb: int = memory.BASE_MB

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Return what the identity is a digest of."""
        inputs = {role: parent.identity for role, parent in self.inputs.items()}
        return identity.recipe(self.stage, self.facets, self.parameters, inputs)

    @cached_property
    def identity(self) -> str:
        """Return the identity, 64 hex digits."""
        return identity.digest(self.recipe)

    @cached_property
    def name(self) -> str:
        """Return the store's name: readable facets, then 16 digits of its identity."""
        return "_".join(v for v in self.facets.values() if v) + f"-{self.identity[:16]}"

    @property
    def path(self) -> str:
        """Return where the sentinel lies below the root of stores."""
        return f"{self.stage}/{self.name}.zarr/{SENTINEL}"

    @property
    def spec(self) -> dict[str, Any]:
        """Return what a script gets as `params.spec`; only what the identity covers."""
        return {
            "stage": self.stage,
            "identity": self.identity,
            "facets": self.facets,
            "parameters": self.parameters,
            "recipe": self.recipe,
            "inputs": {role: parent.identity for role, parent in self.inputs.items()},
        }


@dataclass(frozen=True)
class Product:
    """A published store and what `index.json` says of it."""

    artefact: Artefact
    facets: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """All artefacts by (stage, name), the products and their evaluations."""

    artefacts: dict[tuple[str, str], Artefact]
    products: tuple[Product, ...]
    evaluations: tuple[Artefact, ...]

    def stage(self, stage: str) -> list[Artefact]:
        """Return the artefacts of one stage."""
        return [a for a in self.artefacts.values() if a.stage == stage]


def build(config: Config, lock: Lock, *, most_mb: float = math.inf) -> Plan:
    """Return the plan of a configuration.

    Parameters
    ----------
    most_mb
        Memory that a job can get: one that takes more has fewer threads.

    Raises
    ------
    ConfigError
        The data cannot give what is asked: periods, domains, variables, experiments.
    """
    planner = Planner(config, lock, most_mb)
    for block in config.products:
        for case in planner.cases(block):
            planner.add(case)
    if not planner.products:
        raise ConfigError("products: every combination is excluded; nothing is left to make")
    return Plan(
        dict(sorted(planner.artefacts.items())),
        tuple(sorted(planner.products.values(), key=lambda p: p.artefact.path)),
        tuple(sorted(planner.evaluations.values(), key=lambda a: a.path)),
    )


@dataclass(frozen=True)
class Case:
    """One combination of the matrix."""

    block: Products
    run: Simulation
    method: str
    stage: str
    adjust: Adjust
    climatology: Climatology
    settings: Section
    domain: str
    reference: str
    train: tuple[str, str]
    variable: str
    facets: dict[str, str]

    @property
    def experiment(self) -> str:
        """Return the experiment that is downscaled."""
        return self.facets["experiment_id"]

    @property
    def is_paired(self) -> bool:
        """Return whether this is a tasmin that is made of its tasmax."""
        return self.variable == "tasmin" and "tasmax" in self.block.variable_id

    @property
    def treated(self) -> str:
        """Return the variable that the method works on."""
        return "dtr" if self.is_paired else self.variable

    @property
    def trained(self) -> Case:
        """Return the case of the experiment that holds the training period."""
        experiments = self.run.experiment_id
        hist = HISTORICAL if HISTORICAL in experiments else self.experiment
        return replace(self, facets=self.of(hist))

    def of(self, experiment: str) -> dict[str, str]:
        """Return the facets of another experiment of the same run."""
        return {**self.facets, "experiment_id": experiment}

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Return what tells a case from others of the same planner."""
        names = self.method, self.domain, self.variable, *self.facets.values()
        return id(self.block), id(self.run), *names


P = ParamSpec("P")
Maker = Callable[Concatenate["Planner", Case, P], Artefact]


def _once(make: Maker[P]) -> Maker[P]:
    """Return the method with its results kept: a case asks for most of its artefacts repeatedly."""

    @wraps(make)
    def kept(planner: Planner, case: Case, /, *args: P.args, **kwargs: P.kwargs) -> Artefact:
        key = (make, case.key, args, *kwargs.items())
        if key not in planner.made:
            planner.made[key] = make(planner, case, *args, **kwargs)
        return planner.made[key]

    return kept


class Planner:
    """Collects artefacts; the same one asked for twice is made once."""

    def __init__(self, config: Config, lock: Lock, most_mb: float) -> None:
        self.config = config
        self.lock = lock
        self.most_mb = most_mb
        self.artefacts: dict[tuple[str, str], Artefact] = {}
        self.products: dict[str, Product] = {}
        self.evaluations: dict[str, Artefact] = {}
        self.made: dict[tuple[object, ...], Artefact] = {}
        # By content: models, members and experiments on one grid share its crop and its weights,
        # whose digests are the dear ones.
        self._grids: dict[str, tuple[domains.Selection, domains.GridLists]] = {}
        self._weights: dict[tuple[object, ...], Artefact] = {}

    # ---- the matrix

    def cases(self, block: Products) -> Iterable[Case]:
        """Yield the combinations of one block of the matrix, historical before its scenarios."""
        train = self.config.periods[block.train]
        for run in self.config.simulations:
            for facets in run_facets(run, block.source_id, block.member_id):
                if block.experiment_id and facets["experiment_id"] not in block.experiment_id:
                    continue
                for domain in block.domain:
                    for variable in block.variable_id:
                        for method in block.method:
                            named = {**facets, "domain": domain}
                            named |= {"variable_id": variable, "method": method}
                            if not block.excluded(named):
                                stage = self.config.stage(method)
                                yield Case(
                                    block, run, method, stage,
                                    self.config.adjusted(method, METHODS[stage].adjust),
                                    self.config.climatologies(method),
                                    self.config.settings(method, block),
                                    domain, block.reference, train, variable, facets,
                                )  # fmt: skip

    def add(self, case: Case) -> None:
        """Add a product with its aggregates and its evaluation."""
        product = self.product(case)
        self._publish(product, case, "day")
        for frequency in self.config.aggregate.frequencies:
            self._publish(self.aggregate(product, case, frequency), case, frequency)
        self.evaluate(product, case)

    def _publish(self, artefact: Artefact, case: Case, frequency: str) -> None:
        self.products[artefact.path] = Product(
            artefact,
            {
                "stage": artefact.stage,
                "method": case.method,
                **{
                    k: case.facets[k]
                    for k in ("source_id", "experiment_id", "member_id", "grid_label")
                },
                "variable_id": case.variable,
                "reference": case.reference,
                "domain": case.domain,
                "train": list(case.train),
                "period": list(self.simulation_period(case.run, case.facets, case.variable)),
                "frequency": frequency,
                "units": VARIABLES[case.variable].units,
            },
        )

    # ---- sources, periods, grids

    def entry(self, key: str) -> dict[str, Any]:
        """Return an entry of the inputs lock."""
        try:
            return self.lock["sources"][key]
        except KeyError as error:
            raise ConfigError(
                f"{key} is not in the inputs lock; run `finescale resolve --configfile F`"
            ) from error

    def reference_period(self, reference: str, variable: str) -> tuple[str, str]:
        """Return first and last day of a reference."""
        entry = self.entry(reference_key(reference, variable))
        wanted = self.config.references[reference].period
        return _covered(wanted, entry, where=f"references.{reference}.period")

    def simulation_period(
        self, run: Simulation, facets: dict[str, str], variable: str
    ) -> tuple[str, str]:
        """Return first and last day of an experiment."""
        experiment = facets["experiment_id"]
        entry = self.entry(simulation_key(facets, variable))
        where = f"simulations {facets['source_id']}: period.{experiment}"
        return _covered(run.period.get(experiment), entry, where=where)

    def fine_grid(self, case: Case) -> tuple[domains.Selection, domains.GridLists]:
        """Return which cells of the reference the domain has, and their grid."""
        name = self.entry(reference_key(case.reference, case.variable))["grid"]
        key = f"{name}/{case.domain}"
        if key not in self._grids:
            domain = self.config.domains[case.domain]
            grid = self.lock["grids"][name]
            selection = domains.select_box(
                grid, domain.lat, domain.lon, where=f"domains.{case.domain}"
            )
            self._grids[key] = selection, domains.crop(grid, selection)
        return self._grids[key]

    def coarse_grid(
        self, case: Case, variable: str | None = None
    ) -> tuple[domains.Selection, domains.GridLists]:
        """Return which cells of the model's variable lie around the domain, and their grid."""
        source = simulation_key(case.facets, variable or case.variable)
        name = self.entry(source)["grid"]
        _, fine = self.fine_grid(case)
        key = f"{name}/{id(fine)}"
        if key not in self._grids:
            grid = self.lock["grids"][name]
            selection = domains.select_around(grid, fine, where=source)
            self._grids[key] = selection, domains.crop(grid, selection)
        return self._grids[key]

    # ---- artefacts

    def keep(self, artefact: Artefact) -> Artefact:
        """Return the artefact, or the one that is the same and was planned before."""
        return self.artefacts.setdefault((artefact.stage, artefact.name), artefact)

    @_once
    def reference(self, case: Case, variable: str | None = None) -> Artefact:
        """Return the standardised reference."""
        variable = variable or case.variable
        source = "tasmax" if variable == "dtr" else variable
        period = self.reference_period(case.reference, source)
        facets = {
            "reference": case.reference,
            "variable_id": variable,
            "domain": case.domain,
            "period": _label(period),
        }
        if variable == "dtr":
            parents = {v: self.reference(case, v) for v in ("tasmax", "tasmin")}
            room = self.room(case, memory.interpolate, threads=1)
            return self.keep(Artefact("reference", facets, {}, parents, **room))
        selection, _ = self.fine_grid(_with(case, variable))
        dataset = self.config.references[case.reference]
        entry = self.entry(reference_key(case.reference, variable))
        parameters = {
            **self._source_parameters(entry, variable, selection, period, dataset.season),
            "attributes": _origin(dataset, entry, {"reference": case.reference}),
        }
        room = self.room(case, memory.reference, threads=1)
        return self.keep(Artefact("reference", facets, parameters, {}, **room))

    @_once
    def simulation(self, case: Case, experiment: str, variable: str | None = None) -> Artefact:
        """Return an experiment of the model, standardised."""
        variable = variable or case.variable
        source = "tasmax" if variable == "dtr" else variable
        run_facets = case.of(experiment)
        period = self.simulation_period(case.run, run_facets, source)
        facets = {
            "source": f"{run_facets['source_id']}-{run_facets['grid_label']}",
            "experiment_id": experiment,
            "member_id": run_facets["member_id"],
            "variable_id": variable,
            "domain": case.domain,
            "reference": case.reference,
            "period": _label(period),
        }
        room = self.room(case, memory.simulation, threads=1)
        if variable == "dtr":
            parents = {v: self.simulation(case, experiment, v) for v in ("tasmax", "tasmin")}
            return self.keep(Artefact("simulation", facets, {}, parents, **room))
        # A predictor need not be among the variables of the reference.
        selection, _ = self.coarse_grid(case, variable)
        entry = self.entry(simulation_key(run_facets, variable))
        parameters = {
            **self._source_parameters(entry, variable, selection, period, case.run.season),
            "attributes": _origin(case.run, entry, run_facets),
        }
        return self.keep(Artefact("simulation", facets, parameters, {}, **room))

    def _source_parameters(
        self,
        entry: dict[str, Any],
        variable: str,
        selection: domains.Selection,
        period: tuple[str, str],
        season: str | None,
    ) -> dict[str, Any]:
        return {
            "source": entry["content"],
            "variable_id": variable,
            "select": selection.parameters(),
            "period": list(period),
            "season": season,
        }

    def weights(self, case: Case, method: str) -> Artefact:
        """Return the matrix to the GCM's grid (conservative), or back from it (bilinear)."""
        _, fine = self.fine_grid(case)
        _, coarse = self.coarse_grid(case)
        model = f"{case.facets['source_id']}-{case.facets['grid_label']}"
        down = method == "conservative"
        src, dst = (fine, coarse) if down else (coarse, fine)
        facets = {
            "src": case.reference if down else model,
            "dst": model if down else case.reference,
            "domain": case.domain,
            "regrid": method,
        }
        key = (*facets.values(), id(src), id(dst))
        if key not in self._weights:
            parameters = {
                "src": src, "dst": dst, "method": method, "engine": self.config.weights.engine
            }  # fmt: skip
            room = self.room(case, memory.weights, threads=1)
            self._weights[key] = self.keep(Artefact("weights", facets, parameters, {}, **room))
        return self._weights[key]

    @_once
    def coarsen(self, case: Case, variable: str) -> Artefact:
        """Return the reference on the model's grid."""
        reference = self.reference(case, variable)
        _, coarse = self.coarse_grid(case)
        facets = {
            "reference": case.reference,
            "source": f"{case.facets['source_id']}-{case.facets['grid_label']}",
            "variable_id": variable,
            "domain": case.domain,
            "period": reference.facets["period"],
        }
        parameters = {
            "grid": coarse, "min_valid_fraction": self.config.coarsen.min_valid_fraction
        }  # fmt: skip
        inputs = {"reference": reference, "weights": self.weights(case, "conservative")}
        room = self.room(case, memory.coarsen, threads=1)
        return self.keep(Artefact("coarsen", facets, parameters, inputs, **room))

    @_once
    def climatology(self, case: Case, variable: str, *, fine: bool) -> Artefact:
        """Return the climatology of the reference, on its own or on the model's grid."""
        self._check_training(
            case,
            f"reference {case.reference} {case.variable}",
            self.reference_period(case.reference, case.variable),
        )
        series = self.reference(case, variable) if fine else self.coarsen(case, variable)
        source = "fine" if fine else f"{case.facets['source_id']}-{case.facets['grid_label']}"
        facets = {
            "reference": case.reference,
            "grid": source,
            "variable_id": variable,
            "domain": case.domain,
            "train": _label(case.train),
        }
        parameters = {"train": list(case.train), **case.climatology.model_dump()}
        room = self.room(case, memory.climatology, threads=None if fine else 1)
        return self.keep(Artefact("climatology", facets, parameters, {"series": series}, **room))

    @_once
    def adjust(self, case: Case, variable: str, *, ranks: bool = False) -> Artefact:
        """Return the adjusted model, with its ranks if a method needs them."""
        experiment = case.experiment
        hist, scen, target = self._axis(case)
        self._check_training(
            case,
            f"simulation {case.facets['source_id']} {hist} {case.variable}",
            self.simulation_period(case.run, case.of(hist), case.variable),
        )
        facets = {
            "method": case.adjust.method,
            "source": f"{case.facets['source_id']}-{case.facets['grid_label']}",
            "experiment_id": experiment,
            "member_id": case.facets["member_id"],
            "variable_id": variable,
            "reference": case.reference,
            "domain": case.domain,
            "train": _label(case.train),
        }
        inputs = {
            "ref": self.coarsen(case, variable),
            "hist": self.simulation(case, hist, variable),
        }
        if scen is not None:
            inputs["scen"] = self.simulation(case, scen, variable)
        is_wide = ranks or case.adjust.epoch_years > 0
        room = self.room(case, partial(memory.adjust, is_wide=is_wide))
        parameters = {
            "target": target,
            "train": list(case.train),
            "ranks": ranks,
            **case.adjust.model_dump(),
        }
        return self.keep(Artefact("adjust", facets, parameters, inputs, **room))

    def _axis(self, case: Case) -> tuple[str, str | None, str]:
        """Return (training experiment, the one that continues it, which of them is the target)."""
        experiments = case.run.experiment_id
        if HISTORICAL not in experiments:
            return case.experiment, None, "hist"
        scenarios = [e for e in experiments if e != HISTORICAL]
        if case.experiment != HISTORICAL:
            return HISTORICAL, case.experiment, "scen"
        return HISTORICAL, case.run.pad_experiment or next(iter(scenarios), None), "hist"

    def _check_training(self, case: Case, where: str, period: tuple[str, str]) -> None:
        if case.train[0] < period[0] or _last_day(case.train[1]) > _last_day(period[1]):
            raise ConfigError(
                f"periods.{case.block.train}: training {case.train[0]}..{case.train[1]} is not "
                f"covered by {where}, which spans {period[0]}..{period[1]}; shorten it"
            )

    @_once
    def product(self, case: Case) -> Artefact:
        """Return the daily product."""
        parameters: dict[str, Any] = {
            "variable_id": case.variable,
            "calendar": case.block.calendar,
            "attributes": self._product_attributes(case),
        }
        method = METHODS[case.stage]
        parameters |= method.parameters(self, case)
        inputs = method.inputs(self, case)
        if case.is_paired and "simulation" not in inputs:
            inputs["tasmax"] = self.product(_with(case, "tasmax"))
        room = self.room(case, partial(method.memory, case))
        return self.keep(
            Artefact(case.stage, self._product_facets(case), parameters, inputs, **room)
        )

    @_once
    def analogs(self, case: Case) -> Artefact:
        """Return the analogs of a variable, or of those that are chosen together."""
        assert isinstance(case.settings, Maca)
        variables = _together(case)
        facets = {**self.adjust(case, variables[0]).facets, "variable_id": "-".join(variables)}
        parameters = {
            "variables": list(variables),
            "train": list(case.train),
            **case.settings.model_dump(exclude={"half_window", "max_ratio", "pr_ceiling"}),
        }
        inputs = {}
        for variable in variables:
            inputs[f"ref_{variable}"] = self.coarsen(case, variable)
            inputs[f"adjusted_{variable}"] = self.adjust(case, variable)
        room = self.room(case, partial(memory.analogs, n_variables=len(variables)), threads=1)
        return self.keep(Artefact("analogs", facets, parameters, inputs, **room))

    def _product_facets(self, case: Case) -> dict[str, str]:
        period = self.simulation_period(case.run, case.facets, case.variable)
        return {
            "method": case.method,
            **{
                k: case.facets[k] for k in ("source_id", "experiment_id", "member_id", "grid_label")
            },
            "variable_id": case.variable,
            "reference": case.reference,
            "domain": case.domain,
            "train": _label(case.train),
            "period": _label(period),
        }

    def _product_attributes(self, case: Case) -> dict[str, str]:
        """Return the attributes a product inherits from both of its sources."""
        dataset = self.config.references[case.reference]
        reference = _origin(dataset, self.entry(reference_key(case.reference, case.variable)), {})
        run = _origin(case.run, self.entry(simulation_key(case.facets, case.variable)), {})
        joined = {
            name: f"reference {case.reference}: {reference.get(name, 'not stated')}; "
            f"simulation {case.facets['source_id']}: {run.get(name, 'not stated')}"
            for name in ("license", "references")
        }
        return {
            "title": f"{case.method} downscaling of {case.facets['source_id']} "
            f"{case.experiment} by {case.reference}",
            **joined,
            "tracking_id": run.get("tracking_id", ""),
            "frequency": "day",
            **{
                k: case.facets[k] for k in ("source_id", "experiment_id", "member_id", "grid_label")
            },
            "variable_id": case.variable,
        }

    def aggregate(self, product: Artefact, case: Case, frequency: str) -> Artefact:
        """Return the means of a product over months or years."""
        facets = {**product.facets, "frequency": frequency}
        attributes = {k: v for k, v in product.parameters["attributes"].items() if k != "frequency"}
        n_groups = self.sizes(case).n_days // {"mon": 28, "yr": 360}[frequency] + 1
        room = self.room(case, partial(memory.aggregate, n_groups=n_groups), threads=1)
        parameters = {"frequency": frequency, "attributes": attributes}
        return self.keep(Artefact("aggregate", facets, parameters, {"product": product}, **room))

    def evaluate(self, product: Artefact, case: Case) -> None:
        """Add the evaluation of a product."""
        settings = self.config.evaluate
        inputs = {
            "product": product,
            "reference": self.reference(case),
            "simulation": self.simulation(case, case.experiment),
            "weights": self.weights(case, "bilinear"),
        }
        hist, scen, target = self._axis(case)
        if target == "scen" and scen is not None:
            before = replace(case, facets=case.of(hist))
            inputs["product_hist"] = self.product(before)
            inputs["simulation_hist"] = self.simulation(case, hist)
        if case.is_paired:
            inputs["tasmax"] = self.product(_with(case, "tasmax"))
        parameters = {
            "wet_day": settings.wet_day,
            "period": self._score_period(case),
            "product_period": list(self.simulation_period(case.run, case.facets, case.variable)),
        }
        room = self.room(case, memory.evaluate)
        evaluation = self.keep(
            Artefact("evaluate", dict(product.facets), parameters, inputs, **room)
        )
        self.evaluations[evaluation.path] = evaluation

    def _score_period(self, case: Case) -> list[str] | None:
        if case.block.score is None:
            return None
        first, last = period = self.config.periods[case.block.score]
        known = self.reference_period(case.reference, case.variable)
        if last < known[0] or first > known[1]:
            raise ConfigError(
                f"periods.{case.block.score}: no day of {first}..{last} can be scored, since the "
                f"reference {case.reference} {case.variable} spans {known[0]}..{known[1]}"
            )
        return list(period)

    def room(
        self,
        case: Case,
        needed: Callable[[memory.Sizes], float],
        *,
        threads: int | None = None,
    ) -> dict[str, int]:
        """Return threads and memory [MB] of a job: as many threads as it is worth and as fit.

        Parameters
        ----------
        needed
            Sizes -> bytes.
        threads
            How many, where that does not depend on the case.
        """
        sizes = self.sizes(case)
        most = threads or sizes.n_threads
        for n in range(most, 0, -1):
            mem_mb = memory.mb(needed(replace(sizes, n_threads=n)))
            if mem_mb <= self.most_mb:
                break
        return {"threads": n, "mem_mb": mem_mb}

    def sizes(self, case: Case) -> memory.Sizes:
        """Return what memory follows from: days, cells, and the threads that they are worth."""
        (_, fine), (_, coarse) = self.fine_grid(case), self.coarse_grid(case)
        shape, around = ((len(grid["lat"]), len(grid["lon"])) for grid in (fine, coarse))
        hist, scen, target = self._axis(case)
        other = {"hist": scen, "scen": hist}[target]
        n_days, n_past = (
            0 if e is None else int(self.entry(simulation_key(case.of(e), case.variable))["n_days"])
            for e in (case.experiment, other)
        )
        n_ref = int(self.entry(reference_key(case.reference, case.variable))["n_days"])
        n_train = min(n_ref, round(366 * (int(case.train[1][:4]) - int(case.train[0][:4]) + 1)))
        worth = shape[0] * shape[1] * n_days // VALUES_PER_THREAD
        threads = max(1, min(MOST_THREADS, worth))
        return memory.Sizes(n_days, n_past, n_ref, n_train, shape, around, threads)


TOGETHER = ("tasmax", "tasmin"), ("uas", "vas")
"""Variables that belong together: one day's analogs serve both."""


def _together(case: Case) -> tuple[str, ...]:
    """Return what the method works on for a variable and those that belong to it."""
    for group in TOGETHER:
        if case.variable in group and set(group) <= set(case.block.variable_id):
            return tuple(_with(case, variable).treated for variable in group)
    return (case.treated,)


def _with(case: Case, variable: str) -> Case:
    return case if variable == case.variable else replace(case, variable=variable)


def _origin(dataset: Any, entry: dict[str, Any], facets: dict[str, str]) -> dict[str, str]:
    """Return the attributes that say where data come from and on what terms."""
    found = {
        "license": dataset.licence or entry["licence"],
        "references": dataset.citation or entry["citation"],
        "tracking_id": entry["tracking_id"],
        **facets,
    }
    return {k: v for k, v in found.items() if v}


def _covered(
    wanted: tuple[str, str] | None, entry: dict[str, Any], *, where: str
) -> tuple[str, str]:
    """Return the wanted period as far as dates of the calendar go; all of the data by default."""
    first, last = entry["span"]
    if wanted is None:
        return first, last
    if wanted[0] < first or _last_day(wanted[1]) > _last_day(last):
        raise ConfigError(
            f"{where}: {wanted[0]}..{wanted[1]} is not covered by the data, "
            f"which span {first}..{last}; shorten it"
        )
    return wanted


def _last_day(date: str) -> str:
    """Return a date with the last days of a month made equal: a 360_day year ends on 12-30."""
    return date[:8] + "30" if date[8:] == "31" else date


def _label(period: Iterable[str]) -> str:
    """Return a period for names: years where it is whole years."""
    first, last = period
    if first[5:] == "01-01" and last[5:] in ("12-31", "12-30"):
        return f"{first[:4]}-{last[:4]}"
    return f"{first.replace('-', '')}-{last.replace('-', '')}"
