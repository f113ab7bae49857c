"""The kit is sharp: each published defect, switched on in a test, is caught by an oracle of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutants
import numpy as np
import pytest
from conformance import oracles, worlds
from conformance.kit import World

from finescale import adjust
from finescale.errors import FinescaleError


@dataclass(frozen=True)
class Caught:
    """A defect, a method that has it, the world and the oracle that show it, what that says."""

    inject: mutants.Inject
    method: str
    world: tuple[Any, ...]
    oracle: Callable[[World, str], None]
    found: str


def mean_left_to_quantiles(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(adjust, "mean_factors", lambda model, adjusted, *of, **o: np.ones_like(adjusted))


CHANGING, COAST, EXACT = ("changing",), ("coast", "360_day"), ("exact",)
CAUGHT = (
    Caught(
        mutants.swapped_reference_and_model,
        "bcsd", CHANGING, oracles.training_means_are_observed, "training mean of tas",
    ),
    Caught(
        mutants.own_distribution_of_each_period,
        "bcsd", CHANGING, oracles.the_change_is_kept, r"change: .* of 3 K",
    ),
    Caught(
        mutants.intercept_of_each_period,
        "bcsd", ("going_on",), oracles.there_is_no_step_at_the_scenario_s_begin, "step at",
    ),
    Caught(
        mutants.rain_added,
        "bcsd", EXACT, oracles.no_rain_falls_from_dry_cells, "dry cells",
    ),
    *(
        Caught(
            mutants.every_tasmin_on_its_own,
            method, COAST, oracles.nothing_is_impossible, "tasmin exceeds tasmax",
        )
        for method in ("bcsd", "qplad", "maca", "gard")
    ),
    *(
        Caught(
            mutants.refused_360_day,
            method, COAST, oracles.nothing_is_impossible, "360_day is not supported",
        )
        for method in ("bcsd", "interpolate")
    ),
    Caught(
        mutants.own_day_an_analog, "maca", EXACT, oracles.the_answer_is_not_looked_up, "own days"
    ),
    Caught(
        mutants.regions_side_by_side, "maca", EXACT, oracles.there_are_no_seams, "seam index of 1"
    ),
    *(
        Caught(
            mutants.probability_of_dry_for_wet,
            method, EXACT, oracles.wet_days_are_wet, "wet days are wetter by -",
        )
        for method in ("gard", "gard-noise")
    ),
    Caught(
        mutants.fields_of_ten_years,
        "gard-noise", ("twice",), oracles.noise_does_not_repeat, "noise repeats ten years later",
    ),
    Caught(
        mean_left_to_quantiles,
        "qplad", ("bending",), oracles.mean_rain_changes_as_the_model_s, r"change is \+7",
    ),
)  # fmt: skip


def name(caught: Caught) -> str:
    return f"{caught.inject.__name__}-{caught.method}"


@pytest.mark.parametrize("caught", CAUGHT, ids=name)
def test_the_oracle_passes_without_the_defect(caught: Caught, world: Callable[..., World]) -> None:
    caught.oracle(world(*caught.world), caught.method)


@pytest.mark.parametrize("caught", CAUGHT, ids=name)
def test_the_oracle_fails_with_the_defect(
    caught: Caught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught.inject(monkeypatch)
    make, *parameters = caught.world
    with pytest.raises((AssertionError, FinescaleError), match=caught.found):
        caught.oracle(getattr(worlds, make)(tmp_path, *parameters), caught.method)


def test_every_published_defect_is_caught() -> None:
    """Here or by the oracles of daily BCSD (tests/unit/test_mutants.py)."""
    tried = {mutant.inject for mutant in (*CAUGHT, *mutants.MUTANTS)}
    assert len(mutants.PUBLISHED) == 15
    for defect, injected in mutants.PUBLISHED.items():
        assert injected and set(injected) <= tried, defect
