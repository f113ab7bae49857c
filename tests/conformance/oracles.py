"""What promises mean, for any method and any world: AssertionError where one is broken.

Each says what a wrong implementation gives; test_defects.py switches those on.
"""

from __future__ import annotations

import numpy as np
from conformance.kit import World
from oracles import coarse_means
from scipy.ndimage import maximum_filter

from finescale.fields import Field
from finescale.variables import MM_PER_DAY

RUNS = ("historical", "ssp245")
DRY = 1.0 * MM_PER_DAY
"""Below it a method may call a day dry."""


def a_perfect_model_comes_back(made: World, name: str) -> None:
    """To 0.001 K; rain from 1 mm/day to 1e-4 of it, and below that no more than that.

    A wrong climatology, day or sign gives another season; jitter that stays gives drizzle.
    """
    truth = made.observed["tas"][1]
    worst = np.abs(made.product(name, "tas").read() - truth).max()
    assert worst <= 1e-3, f"perfect model, temperature: off by {worst:.3g} K"
    truth, found = made.observed["pr"][1], made.product(name, "pr").read()
    wet = truth >= DRY
    worst = np.abs(found[wet] / truth[wet] - 1).max()
    assert worst <= 1e-4, f"perfect model, wet days: off by {worst:.3g} of the value"
    assert found[~wet].max() <= DRY, "perfect model: dry days are wet"


def the_change_is_kept(made: World, name: str) -> None:
    """3 K to 0.05 K in the mean; half as much rain again to 4 %. The model is biased.

    Mapping each period on its own distribution gives 0 K and 1.0; a model whose spread is 1.2 times
    that observed, mapped by its training quantiles alone, 2.5 K.
    """
    before, after = (
        {v: made.product(name, v, e).read().mean(dtype=float) for v in ("tas", "pr")} for e in RUNS
    )
    change, ratio = after["tas"] - before["tas"], after["pr"] / before["pr"]
    assert abs(change - 3) <= 0.05, f"change: {change:.3f} K of 3 K"
    assert abs(ratio / 1.5 - 1) <= 0.04, f"change: rain times {ratio:.3f}, not 1.5"


def mean_rain_changes_as_the_model_s(made: World, name: str) -> None:
    """To 2 percentage points, though light rain lessens and heavy rain grows.

    A model's change at each quantile, weighed by observed amounts, is 8 (QDM) or 11 points off.
    """
    product, model = (
        [values.mean(dtype=float) for values in runs]
        for runs in (
            [made.product(name, "pr", e).read() for e in RUNS],
            [made.modelled[e, "pr"][1] for e in RUNS],
        )
    )
    beyond = product[1] / product[0] - model[1] / model[0]
    assert abs(beyond) <= 0.02, f"mean rain: its change is {100 * beyond:+.1f} points off"


def area_means_are_the_adjusted_values(made: World, name: str, variable: str) -> None:
    """To 1e-3 K, or 1e-4 of it. Bilinear interpolation alone is off by over 0.3 K."""
    product = made.products[name, variable, "historical"]
    adjusted = Field(made.store(product.inputs["adjusted"])).read().astype(float)
    means = coarse_means(Field(made.store(product)).read().astype(float))
    worst = np.abs(means / adjusted - 1).max()
    limit = 1e-3 / 285 if variable == "tas" else 1e-4
    assert worst <= limit, f"area means of {variable}: off by {worst:.3g} of the value"


def days_vary_as_observed(made: World, name: str) -> None:
    """Standard deviation of training days, every cell: 5 % for temperature, 10 % for rain.

    Interpolated ratios give 0.73 for rain; a regression without noise 0.94 of temperature's.
    """
    for variable, limit in (("tas", 0.05), ("pr", 0.10)):
        observed = made.observed[variable][1].std(axis=0)
        ratio = made.product(name, variable).read().astype(float).std(axis=0) / observed
        worst = np.abs(ratio - 1).max()
        assert worst <= limit, f"standard deviation of {variable}: off by {worst:.1%}"


def there_is_no_step_at_the_scenario_s_begin(made: World, name: str) -> None:
    """2015-19 less 2010-14, as in the model to 0.25 K. Re-based trends gave a step of -1.15 K."""
    steps = []
    late = made.modelled["historical", "tas"][0].year >= 2010
    products = [made.product(name, "tas", e).read() for e in RUNS]
    for past, future in (products, [made.modelled[e, "tas"][1] for e in RUNS]):
        steps.append(future.mean(dtype=float) - past[late].mean(dtype=float))
    beyond = steps[0] - steps[1]
    assert abs(beyond) <= 0.25, f"step at the scenario's begin: {beyond:.2f} K beyond the model's"


def training_means_are_observed(made: World, name: str) -> None:
    """Of every method that adjusts: 0.3 K, 8 % of rain, over all cells. The model is 2 K too warm.

    With reference and model swapped the bias doubles.
    """
    for variable, limit in (("tas", 0.3 / 285), ("pr", 0.08)):
        ratio = made.product(name, variable).read().mean(dtype=float)
        ratio /= made.observed[variable][1].mean()
        assert abs(ratio - 1) <= limit, f"training mean of {variable}: {ratio:.4f} of that observed"


def nothing_is_impossible(made: World, name: str) -> None:
    """tasmin <= tasmax, also on days of small range; made on its own it is above on some of them.

    Rain is never negative: added to a climatology it is.
    """
    for experiment in RUNS:
        upper, lower, rain = (
            made.product(name, v, experiment).read() for v in ("tasmax", "tasmin", "pr")
        )
        above = np.nansum(lower > upper)
        assert above == 0, f"{experiment}: tasmin exceeds tasmax on {above} cell-days"
        assert np.nanmin(rain) >= 0, f"{experiment}: {np.nanmin(rain) / MM_PER_DAY} mm/day"


def the_answer_is_not_looked_up(made: World, name: str) -> None:
    """The model has the reference's coarse means: with its own day an analog, a day is returned."""
    error = made.product(name, "tas").read() - made.observed["tas"][1]
    rms = float(np.sqrt((error**2).mean()))
    assert rms > 0.5, f"own days: a training day comes back to {rms:.2g} K"


def there_are_no_seams(made: World, name: str) -> None:
    """Steps from column to column, as large as the reference's to 20 %; side by side, 1.6 of it."""
    steps = []
    for values in (made.product(name, "tas").read().astype(float), made.observed["tas"][1]):
        step = np.abs(np.diff(values - values.mean(axis=0), axis=2)).mean(axis=(0, 1))
        steps.append(step / step.mean())
    worst = float((steps[0] / steps[1]).max())
    assert worst <= 1.2, f"seam index of {worst:.2f}"


def wet_days_are_wet(made: World, name: str) -> None:
    """The model has the reference's weather. Of 1 - P, published, dry days are wetter than wet."""
    wet = made.observed["pr"][1] >= DRY
    found = made.product(name, "pr").read() >= 0.999 * DRY
    gain = float(found[wet].mean() - found[~wet].mean())
    assert gain > 0.4, f"wet days are wetter by {gain:.2f}"


def noise_does_not_repeat(made: World, name: str) -> None:
    """The same weather ten years later has other noise; noise of ten years gives the same days."""
    past, future = (made.product(name, "tas", e).read() for e in RUNS)
    differ = float((future - past).std())
    assert differ > 0.5, f"noise repeats ten years later: days differ by {differ:.2g} K"


def no_rain_falls_from_dry_cells(made: World, name: str) -> None:
    """Where the perfect model is dry around a cell, at most 1 % of the fine days are wet.

    Added to a climatology instead of multiplied, rain falls on every mountain: on 22 % of them.
    """
    around = maximum_filter(made.modelled["historical", "pr"][1], (1, 3, 3), mode="nearest")
    dry = np.kron(around < 0.05 * MM_PER_DAY, np.ones((1, 4, 4), bool))
    wet = float((made.product(name, "pr").read()[dry] >= DRY).mean())
    assert wet <= 0.01, f"dry cells: {wet:.0%} of the days are wet"
