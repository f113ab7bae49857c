"""What some methods promise (finescale.methods): each oracle for those that do."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from conformance import oracles, worlds
from conformance.kit import NAMES, World, of
from conformance.kit import promises as promised

from finescale.methods import METHODS, Promise

Worlds = Callable[..., World]
each = pytest.mark.parametrize(
    "name", [name for name in NAMES if name in METHODS or promised(name)]
)


@pytest.mark.parametrize("name", of("identity"))
def test_a_perfect_model_on_the_fine_grid_comes_back(name: str, world: Worlds) -> None:
    oracles.a_perfect_model_comes_back(world("perfect"), name)
    oracles.no_rain_falls_from_dry_cells(world("exact"), name)


@pytest.mark.parametrize("name", of("change"))
def test_the_change_of_a_biased_model_is_kept(name: str, world: Worlds) -> None:
    oracles.the_change_is_kept(world("changing"), name)


@pytest.mark.parametrize("name", of("mean_change"))
def test_mean_rain_changes_as_the_model_s(name: str, world: Worlds) -> None:
    oracles.mean_rain_changes_as_the_model_s(world("bending"), name)


def test_a_method_that_keeps_the_change_of_quantiles_bends_that_of_the_mean(world: Worlds) -> None:
    with pytest.raises(AssertionError, match=r"change is \+11"):
        oracles.mean_rain_changes_as_the_model_s(world("bending"), "maca")


@pytest.mark.parametrize("name", of("area_means"))
def test_means_over_a_coarse_cell_are_its_adjusted_value(name: str, world: Worlds) -> None:
    oracles.area_means_are_the_adjusted_values(world("changing"), name, "tas")
    oracles.area_means_are_the_adjusted_values(world("others"), name, "huss")


@pytest.mark.parametrize("name", of("variability"))
def test_days_vary_as_the_reference_s(name: str, world: Worlds) -> None:
    oracles.days_vary_as_observed(world("changing"), name)


@each
def test_there_is_no_step_between_historical_and_scenario(name: str, world: Worlds) -> None:
    oracles.there_is_no_step_at_the_scenario_s_begin(world("going_on"), name)


def adjusts(name: str, made: World) -> bool:
    """Tell whether a method's product is made of an adjusted model."""
    inputs = made.products[name, "tas", "historical"].inputs.values()
    return any(artefact.stage == "adjust" for artefact in inputs)


@each
def test_the_bias_of_the_model_is_gone(name: str, world: Worlds) -> None:
    if adjusts(name, world("changing")):
        oracles.training_means_are_observed(world("changing"), name)
    else:
        with pytest.raises(AssertionError, match="training mean"):
            oracles.training_means_are_observed(world("changing"), name)


def test_every_promise_is_made_and_none_by_all() -> None:
    """A promise that all make belongs to the contract; one that none makes is not tested."""
    for promise in get_args(Promise):
        assert 0 < len(of(promise)) < len(NAMES)


def test_interpolation_fails_what_it_does_not_promise(world: Worlds) -> None:
    """The oracles tell methods apart: the raw model has another spread, and no area means."""
    assert not METHODS["interpolate"].promises
    with pytest.raises(AssertionError, match="standard deviation"):
        oracles.days_vary_as_observed(world("changing"), "interpolate")
    worst = np.abs(
        worlds.coarse_means(world("changing").product("interpolate", "tas").read().astype(float))
        - world("changing").modelled["historical", "tas"][1]
    ).max()
    assert worst > 0.3
