"""The methods: what each makes its product of, and what it promises.

A method is a product stage. Its entry here says which stores a plan gives to its rule, what it
fixes of the bias adjustment, and which oracles its promises make it pass (tests/conformance). To
add one: docs/methods/adding.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from finescale import memory
from finescale.config import Bcsd, Gard, Maca
from finescale.errors import ConfigError
from finescale.memory import Sizes

if TYPE_CHECKING:
    from finescale.plan import Artefact, Case, Planner

Inputs = dict[str, "Artefact"]
Promise = Literal[
    "identity",  # a perfect model on the fine grid comes back
    "change",  # the change of a biased model's mean is kept
    "mean_change",  # of rain also where its distribution changes its shape
    "area_means",  # means over a coarse cell are the adjusted coarse value
    "variability",  # the day-to-day variance of the reference
]


@dataclass(frozen=True)
class Entry:
    """How a plan makes a product of one stage.

    Parameters
    ----------
    inputs
        (planner, case) -> role -> store, besides the product of tasmax that a tasmin needs.
    adjust
        Keys of the section `adjust` that the method fixes.
    promises
        What the conformance kit holds it to.
    parameters
        (planner, case) -> parameters of the stage, by default those of its section.
    memory
        (case, sizes) -> bytes of a job.
    """

    inputs: Callable[[Planner, Case], Inputs]
    adjust: Mapping[str, Any] = field(default_factory=dict)
    promises: frozenset[Promise] = frozenset()
    parameters: Callable[[Planner, Case], dict[str, Any]] = lambda planner, case: (
        case.settings.model_dump()
    )
    memory: Callable[[Case, Sizes], float] = lambda case, sizes: memory.interpolate(sizes)


def _interpolate(planner: Planner, case: Case) -> Inputs:
    return {
        "simulation": planner.simulation(case, case.experiment),
        "climatology": planner.climatology(case, case.variable, fine=True),
        "weights": planner.weights(case, "bilinear"),
    }


def _bcsd(planner: Planner, case: Case) -> Inputs:
    inputs = {
        "adjusted": planner.adjust(case, case.treated),
        "coarse_climatology": planner.climatology(case, case.treated, fine=False),
        "fine_climatology": planner.climatology(case, case.treated, fine=True),
        "weights": planner.weights(case, "bilinear"),
    }
    if _preserves_means(case):
        inputs["area_weights"] = planner.weights(case, "conservative")
    return inputs


def _bcsd_parameters(planner: Planner, case: Case) -> dict[str, Any]:
    covered = {"min_valid_fraction": planner.config.coarsen.min_valid_fraction}
    return case.settings.model_dump() | (covered if _preserves_means(case) else {})


def _preserves_means(case: Case) -> bool:
    assert isinstance(case.settings, Bcsd)
    return case.settings.interpolation == "mean_preserving"


def _qplad(planner: Planner, case: Case) -> Inputs:
    return {
        "adjusted": planner.adjust(case, case.treated, ranks=True),
        "coarse": planner.coarsen(case, case.treated),
        "reference": planner.reference(case, case.treated),
        "climatology": planner.climatology(case, case.treated, fine=True),
        "weights": planner.weights(case, "nearest"),
    }


def _maca(planner: Planner, case: Case) -> Inputs:
    hist = case.trained
    return {
        "analogs": planner.analogs(case),
        "analogs_hist": planner.analogs(hist),
        "adjusted": planner.adjust(case, case.treated),
        "adjusted_hist": planner.adjust(hist, case.treated),
        "ref": planner.coarsen(case, case.treated),
        "reference": planner.reference(case, case.treated),
        "climatology": planner.climatology(case, case.treated, fine=True),
        "weights": planner.weights(case, "bilinear"),
    }


def _qplad_parameters(planner: Planner, case: Case) -> dict[str, Any]:
    own = {"train": list(case.train), "positions": case.adjust.positions}
    return case.settings.model_dump() | own


def _maca_parameters(planner: Planner, case: Case) -> dict[str, Any]:
    assert isinstance(case.settings, Maca)
    chosen = {"half_window", "max_ratio", "region_degrees", "pr_ceiling"}
    fine = case.adjust.model_dump(
        include={"positions", "tails", "dry_threshold", "dry_floor", "seed"}
    )
    return {**case.settings.model_dump(include=chosen), **fine, "train": list(case.train)}


def _gard(planner: Planner, case: Case) -> Inputs:
    assert isinstance(case.settings, Gard)
    inputs = {
        "reference": planner.reference(case, case.treated),
        "climatology": planner.climatology(case, case.treated, fine=True),
        "weights": planner.weights(case, "bilinear"),
    }
    for variable in _predictors(case):
        if case.settings.train_on == "reference":
            _require(variable, planner.config.references[case.reference].variables, case)
            inputs[f"train_{variable}"] = planner.coarsen(case, variable)
            inputs[f"apply_{variable}"] = planner.adjust(case, variable)
        else:
            _require(variable, case.run.variables, case)
            inputs[f"train_{variable}"] = planner.simulation(
                case, case.trained.experiment, variable
            )
            inputs[f"apply_{variable}"] = planner.simulation(case, case.experiment, variable)
    return inputs


def _gard_parameters(planner: Planner, case: Case) -> dict[str, Any]:
    assert isinstance(case.settings, Gard)
    own = case.settings.model_dump(exclude={"train_on"})
    own["transform"] = own["transform"] or ("cube_root" if case.treated == "pr" else "none")
    return own | {"predictors": list(_predictors(case)), "train": list(case.train)}


def _gard_memory(case: Case, sizes: Sizes) -> float:
    assert isinstance(case.settings, Gard)
    is_analog = case.settings.mode != "regression"
    return memory.gard(sizes, n_predictors=len(_predictors(case)), is_analog=is_analog)


def _predictors(case: Case) -> tuple[str, ...]:
    assert isinstance(case.settings, Gard)
    return case.settings.predictors or (case.treated,)


def _require(variable: str, known: Mapping[str, Any], case: Case) -> None:
    if variable not in known and variable != "dtr":
        raise ConfigError(
            f"method {case.method}: predictor `{variable}` is not among the variables of its "
            f"{'reference' if known is not case.run.variables else 'simulation'} "
            f"({', '.join(known)}); add it there or choose others"
        )


METHODS: dict[str, Entry] = {
    "bcsd": Entry(
        _bcsd,
        promises=frozenset({"identity"}),
        parameters=_bcsd_parameters,
        memory=lambda case, sizes: memory.bcsd(sizes, is_solved=_preserves_means(case)),
    ),
    "qplad": Entry(
        _qplad,
        adjust={
            "method": "qdm", "trend_years": 0, "dry_threshold": 1.0, "dry_floor": 0.5,
            "keep_mean_change": True,
        },
        promises=frozenset(
            {"identity", "change", "mean_change", "area_means", "variability"}
        ),
        parameters=_qplad_parameters,
        memory=lambda case, sizes: memory.qplad(sizes),
    ),
    "maca": Entry(
        _maca,
        adjust={
            "method": "edcdfm", "half_window": 22, "trend_years": 0, "epoch_years": 31,
            "max_ratio": 5.0, "keep_mean_change": False,
        },
        promises=frozenset({"identity", "change", "variability"}),
        parameters=_maca_parameters,
        memory=lambda case, sizes: memory.maca(sizes),
    ),
    "gard": Entry(_gard, parameters=_gard_parameters, memory=_gard_memory),
    "interpolate": Entry(_interpolate),
}  # fmt: skip
"""By product stage."""
