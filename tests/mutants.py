"""Defects, each switchable: an oracle must fail with it.

Published implementations had most of them; the others are the nearest mistakes to make here.
`MUTANTS` are those of daily BCSD; those of other methods are in tests/conformance/test_defects.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import oracles
import zarr
from chain import Chain
from numpy.typing import NDArray
from pytest import MonkeyPatch

from finescale import (
    adjust,
    aggregate,
    analogs,
    bcsd,
    calendars,
    domains,
    gard,
    identity,
    noise,
    plan,
    regrid,
    seasonal,
    store,
    trends,
)
from finescale.adjust import Adjusted, Series
from finescale.calendars import Days
from finescale.errors import SourceError
from finescale.storage import Objects

Inject = Callable[[MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    """A defect, the oracle that must fail with it, and what that says (a pattern)."""

    inject: Inject
    oracle: Callable[[Chain], None]
    found: str


def swapped_reference_and_model(patch: MonkeyPatch) -> None:
    right = adjust.quantile_map

    def swapped(ref: Any, hist: Any, sim: Any, **options: Any) -> Any:
        slots = {"ref_slots": options.pop("hist_slots"), "hist_slots": options.pop("ref_slots")}
        return right(hist, ref, sim, **slots, **options)

    patch.setattr(adjust, "quantile_map", swapped)


def trend_of_nine_rows(patch: MonkeyPatch) -> None:
    """A running mean over nine days of a series whose trend is that of nine years."""

    def trend(
        values: NDArray[Any], days: Days, *, train: NDArray[Any], window_years: int = 9
    ) -> NDArray[Any]:
        padded = np.pad(values.astype(float), ((4, 4), (0, 0)), mode="edge")
        rows = np.lib.stride_tricks.sliding_window_view(padded, window_years, axis=0)
        return rows.mean(axis=-1) - values[train].mean(axis=0)

    patch.setattr(trends, "trend", trend)


def trend_of_all_months_together(patch: MonkeyPatch) -> None:
    right = trends.trend

    def trend(values: NDArray[Any], days: Days, **options: Any) -> NDArray[Any]:
        slow = right(values, days, **options)
        for year in np.unique(days.year):
            slow[days.year == year] = slow[days.year == year].mean(axis=0)
        return slow

    patch.setattr(trends, "trend", trend)


def model_alone_detrended(patch: MonkeyPatch) -> None:
    right = trends.trend
    is_reference = itertools.cycle([True, False, False])  # ref, training days, whole axis

    def trend(values: NDArray[Any], days: Days, **options: Any) -> NDArray[Any]:
        return right(values, days, **options) * (0.0 if next(is_reference) else 1.0)

    patch.setattr(trends, "trend", trend)


def intercept_of_each_period(patch: MonkeyPatch) -> None:
    """The trend that is put back is relative to its own period, not to the training days."""
    right = adjust._detrend

    def detrend(series: Series, years: int) -> tuple[Series, NDArray[Any]]:
        rest, slow = right(series, years)
        slow = slow.copy()
        if not series.train.all():
            slow[~series.train] -= slow[~series.train].mean(axis=0)
        return rest, slow

    patch.setattr(adjust, "_detrend", detrend)


def own_distribution_of_each_period(patch: MonkeyPatch) -> None:
    right = adjust.adjust_series

    def each(ref: Series, sim: Series, *rest: Any, **options: Any) -> Adjusted:
        parts = np.split(np.arange(len(sim.days)), np.flatnonzero(np.diff(sim.train)) + 1)
        period = options.pop("period", slice(None))
        made = [
            right(
                ref,
                Series(sim.values[part], sim.days[part], np.ones(part.size, bool)),
                *rest,
                **options,
            ).values
            for part in parts
        ]
        return Adjusted(np.concatenate(made)[period])

    patch.setattr(adjust, "adjust_series", each)


def rain_added(patch: MonkeyPatch) -> None:
    added = {**bcsd.VARIABLES, "pr": replace(bcsd.VARIABLES["pr"], kind="+")}
    patch.setattr(bcsd, "VARIABLES", added)


def tasmin_on_its_own(patch: MonkeyPatch) -> None:
    right = Chain.bcsd

    def apart(self: Chain, name: str, *pair: Any, tasmax: Any = None, **options: Any) -> Any:
        if tasmax is not None:
            pair = (self.made["reference/tasmin"], self.made["simulation/tasmin"])
        return right(self, name, *pair, **options)

    patch.setattr(Chain, "bcsd", apart)


def extrapolated_ratios(patch: MonkeyPatch) -> None:
    right = regrid._bracket

    def bracket(centres: NDArray[Any], x: NDArray[Any]) -> Any:
        lower, upper, _ = right(centres, x)
        step = np.where(upper > lower, centres[upper] - centres[lower], 1.0)
        return lower, upper, (x - centres[lower]) / step

    patch.setattr(regrid, "_bracket", bracket)


def sampled_reference(patch: MonkeyPatch) -> None:
    """The reference at the coarse centres stands for the mean of the cell."""
    patch.setitem(regrid.METHODS, "conservative", regrid.bilinear)


def harmonics_of_one_season(patch: MonkeyPatch) -> None:
    patch.setattr(seasonal, "MIN_HARMONIC_SLOTS", 0)


def refused_360_day(patch: MonkeyPatch) -> None:
    right = calendars.check_daily

    def check(days: Days, **options: Any) -> None:
        if days.calendar == "360_day":
            raise SourceError("calendar 360_day is not supported")
        right(days, **options)

    patch.setattr(calendars, "check_daily", check)


def day_number_of_360_taken_for_the_date(patch: MonkeyPatch) -> None:
    right = calendars.reference_slots
    patch.setattr(
        calendars,
        "reference_slots",
        lambda calendar: (
            np.arange(360, dtype=np.int16) if calendar == "360_day" else right(calendar)
        ),
    )


def noise_by_place_in_the_axis(patch: MonkeyPatch) -> None:
    right = adjust.uniform

    def uniform(seed: int, variable: str, lat: Any, lon: Any, days: Days) -> NDArray[Any]:
        return right(seed, variable, lat, lon, Days._at(np.arange(len(days)), days.calendar))

    patch.setattr(adjust, "uniform", uniform)


def noise_of_ten_years(patch: MonkeyPatch) -> None:
    right = adjust.uniform

    def uniform(seed: int, variable: str, lat: Any, lon: Any, days: Days) -> NDArray[Any]:
        return right(seed, variable, lat, lon, replace(days, year=days.year % 10 + 2000))

    patch.setattr(adjust, "uniform", uniform)


def box_of_the_reference_ignored(patch: MonkeyPatch) -> None:
    right = domains.select_box
    patch.setattr(domains, "select_box", lambda grid, lat, lon, **o: right(grid, None, None, **o))


def identity_without_parameters(patch: MonkeyPatch) -> None:
    right = identity.recipe
    patch.setattr(
        identity, "recipe", lambda stage, facets, _, inputs: right(stage, facets, {}, inputs)
    )


def sentinel_first(patch: MonkeyPatch) -> None:
    right = store.Writer.create

    def create(self: store.Writer, attributes: Any) -> store.Writer:
        made = right(self, attributes)
        objects = Objects(self.url)
        metadata = {key: objects.get(key) for key in store.metadata_keys(self.arrays)}
        objects.put(store.SENTINEL, store.consolidated(metadata))
        return made

    def unchecked(self: store.Store) -> Any:
        return zarr.open_group(self.url, mode="r", zarr_format=2, use_consolidated=True)

    patch.setattr(store.Writer, "create", create)
    patch.setattr(store.Store, "group", property(unchecked))


def sum_of_nothing(patch: MonkeyPatch) -> None:
    right = seasonal.accumulate

    def accumulate(total: Any, valid: Any, values: Any, group: Any) -> None:
        right(total, valid, np.nan_to_num(values), group)

    patch.setattr(aggregate.seasonal, "accumulate", accumulate)


def every_tasmin_on_its_own(patch: MonkeyPatch) -> None:
    """Of all methods: no plan makes a tasmin of its tasmax."""
    patch.setattr(plan.Case, "is_paired", property(lambda case: False))


def own_day_an_analog(patch: MonkeyPatch) -> None:
    right = analogs.search
    patch.setattr(analogs, "search", lambda *of, **o: right(*of, **{**o, "exclude_days": -1}))


def regions_side_by_side(patch: MonkeyPatch) -> None:
    """Each place belongs to the region whose middle is nearest, wholly."""

    def shares(axis: analogs.Axis, x: NDArray[Any]) -> NDArray[Any]:
        nearest = np.clip(np.rint((x - axis.first) / axis.step), 0, axis.n - 1)
        return (np.arange(axis.n)[:, None] == nearest).astype(float)

    patch.setattr(analogs.Axis, "shares", shares)


def probability_of_dry_for_wet(patch: MonkeyPatch) -> None:
    right = gard.Model._distribution

    def distribution(self: gard.Model, *of: Any) -> Any:
        p, mean, error, is_wet = right(self, *of)
        return 1 - p, mean, error, ~is_wet

    patch.setattr(gard.Model, "_distribution", distribution)


def fields_of_ten_years(patch: MonkeyPatch) -> None:
    right = noise.uniform

    def uniform(seed: int, variable: str, lat: Any, lon: Any, days: Days) -> NDArray[Any]:
        return right(seed, variable, lat, lon, replace(days, year=days.year % 10 + 2000))

    patch.setattr(noise, "uniform", uniform)


PUBLISHED: dict[str, tuple[Inject, ...]] = {
    "reference and model swapped": (swapped_reference_and_model,),
    "a trend of nine days for one of nine years": (trend_of_nine_rows,),
    "each period mapped on its own distribution": (own_distribution_of_each_period,),
    "rain disaggregated by addition": (rain_added,),
    "an intercept of each period": (intercept_of_each_period,),
    "the box ignored for observations": (box_of_the_reference_ignored,),
    "the own day among the analogs": (own_day_an_analog,),
    "hard seams between regions": (regions_side_by_side,),
    "the probability of dry for that of wet": (probability_of_dry_for_wet,),
    "noise that repeats every ten years": (noise_of_ten_years, fields_of_ten_years),
    "tasmin above tasmax": (tasmin_on_its_own, every_tasmin_on_its_own),
    "360-day calendars refused": (refused_360_day,),
    "a sum of 0 of a month without values": (sum_of_nothing,),
    "a cache without the parameters in its keys": (identity_without_parameters,),
    "metadata before the data": (sentinel_first,),
}
"""What the predecessor got wrong, and each as a mutant."""


MUTANTS = (
    Mutant(
        swapped_reference_and_model,
        oracles.a_shifted_and_scaled_model_is_mapped_back,
        "mean .relative.: off by",
    ),
    Mutant(
        trend_of_nine_rows,
        oracles.training_days_get_the_distribution_of_the_reference,
        "standard deviation .ratio.: off by",
    ),
    Mutant(
        trend_of_all_months_together,
        oracles.a_warming_of_winter_stays_in_winter,
        "June to August .K.: off by",
    ),
    Mutant(
        model_alone_detrended,
        oracles.a_perfect_model_is_returned_and_disaggregated,
        "adjusted perfect model: off by",
    ),
    Mutant(
        intercept_of_each_period,
        oracles.there_is_no_step_between_historical_and_scenario,
        "step at 2014/2015",
    ),
    Mutant(
        own_distribution_of_each_period,
        oracles.a_warming_of_three_kelvin_stays_three_kelvin,
        "change .K.: off by",
    ),
    Mutant(
        own_distribution_of_each_period,
        oracles.rain_times_one_and_a_half_stays_so,
        "ratio: off by",
    ),
    Mutant(rain_added, oracles.rain_is_disaggregated_by_ratios, "off by"),
    Mutant(tasmin_on_its_own, oracles.tasmin_never_exceeds_tasmax, "tasmin exceeds tasmax"),
    Mutant(
        extrapolated_ratios,
        oracles.nothing_is_extrapolated_beyond_the_outer_centres,
        "beyond the outer lat centre",
    ),
    Mutant(
        sampled_reference,
        oracles.a_perfect_model_is_returned_and_disaggregated,
        "adjusted perfect model: off by",
    ),
    Mutant(
        harmonics_of_one_season,
        oracles.a_perfect_model_of_one_season_is_returned,
        "must lie within 150..400 K",
    ),
    Mutant(refused_360_day, oracles.a_model_of_360_days_keeps_the_seasons, "not supported"),
    Mutant(
        day_number_of_360_taken_for_the_date,
        oracles.a_model_of_360_days_keeps_the_seasons,
        "mean of each month .K.: off by",
    ),
    Mutant(noise_by_place_in_the_axis, oracles.noise_belongs_to_the_date, "place in the axis"),
    Mutant(noise_of_ten_years, oracles.noise_belongs_to_the_date, "repeats ten years later"),
    Mutant(
        box_of_the_reference_ignored, oracles.observations_are_cut_to_the_domain, "grid of .12, 16."
    ),
    Mutant(
        identity_without_parameters,
        oracles.a_changed_parameter_names_another_store,
        "share a store",
    ),
    Mutant(sentinel_first, oracles.an_unfinished_store_cannot_be_opened, "100% of it is NaN"),
    Mutant(sum_of_nothing, oracles.a_month_without_values_has_no_mean, "NaN is not where"),
)
