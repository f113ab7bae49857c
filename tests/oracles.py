"""What a correct BCSD must do, whatever the data: each oracle raises AssertionError where it fails.

Used as tests (test_bcsd.py) and against switchable defects (test_mutants.py). Each says what a
wrong implementation gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from chain import Chain, grids
from numpy.typing import NDArray

from finescale import adjust, aggregate, reference, start, synthetic
from finescale.adjust import QuantileMapping, Series
from finescale.calendars import Days, standard_slots
from finescale.errors import StoreError
from finescale.fields import Field
from finescale.grids import Grid
from finescale.job import Job
from finescale.plan import Plan
from finescale.store import open_store
from finescale.variables import MM_PER_DAY

Values = NDArray[np.float64]
SEED = 20240501
PLAIN = QuantileMapping(15, "weibull", "parametric", 0, 0.05, 0)


def decade(calendar: str = "standard", first: int = 1991, last: int = 2000) -> Days:
    end = "12-30" if calendar == "360_day" else "12-31"
    return Days.range(f"{first}-01-01", f"{last}-{end}", calendar)


def temperature(days: Days, grid: Grid, *, seed: int = SEED, warming: float = 0.0) -> Values:
    """Return temperatures [K] with a terrain, a seasonal cycle, weather and a trend [K/decade]."""
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * days.ordinal / 365.25
    weather = rng.normal(0, 3, (len(days), 1, 1)) + rng.normal(0, 1, (len(days), *grid.shape))
    terrain = np.random.default_rng(7).normal(0, 4, grid.shape)
    year = (days.ordinal - days.ordinal[0]) / 3652.5
    cycle = -10 * np.cos(phase)[:, None, None]
    return 285 + terrain + cycle + weather + warming * year[:, None, None]


def rain(days: Days, grid: Grid, *, seed: int = SEED) -> Values:
    """Return precipitation [kg m-2 s-1] that is dry on about half of the days."""
    rng = np.random.default_rng(seed)
    wet = rng.random((len(days), 1, 1)) < 0.5
    amount = rng.gamma(0.8, 8.0, (len(days), *grid.shape)) * rng.gamma(1.0, 1.0, (len(days), 1, 1))
    place = np.random.default_rng(7).uniform(0.5, 2.0, grid.shape)
    return np.where(wet, amount * place, 0.0) * MM_PER_DAY


def coarse_means(fine: Values, ratio: int = 4) -> Values:
    """Return block means weighted by area: independent of the library's weights."""
    lat = 40.25 + 0.5 * np.arange(fine.shape[1])
    area = np.sin(np.deg2rad(lat + 0.25)) - np.sin(np.deg2rad(lat - 0.25))
    n_lat, n_lon = fine.shape[1] // ratio, fine.shape[2] // ratio
    weighted = (fine * area[:, None]).reshape(-1, n_lat, ratio, n_lon, ratio).sum(axis=(2, 4))
    return weighted / (area.reshape(n_lat, ratio).sum(axis=1)[:, None] * ratio)


def bilinear(coarse: Values, source: Grid, target: Grid) -> Values:
    """Return plain bilinear interpolation, constant beyond the outer centres."""
    along = np.stack([[np.interp(target.lat, source.lat, col) for col in f.T] for f in coarse])
    return np.stack([[np.interp(target.lon, source.lon, row) for row in f.T] for f in along])


def close(found: Any, wanted: Any, tolerance: float, what: str) -> None:
    worst = float(np.max(np.abs(np.asarray(found) - np.asarray(wanted))))
    assert worst <= tolerance, f"{what}: off by {worst:.3g}, allowed {tolerance:g}"


# --------------------------------------------------------------------------------------
# 1. Identity


def a_perfect_model_is_returned_and_disaggregated(chain: Chain, calendar: str = "standard") -> None:
    """hist = coarse ref. Detrending only one of the two breaks this by up to 1 K."""
    fine, coarse = grids()
    days = decade(calendar)
    truth = temperature(days, fine, warming=1.5)
    reference = chain.daily("reference", "obs", "tas", days, fine, truth, layout="tiles")
    hist = chain.daily("simulation", "perfect", "tas", days, coarse, coarse_means(truth))
    made = chain.bcsd("identity", reference, hist)
    adjusted = Field(chain.made["adjust/identity"]).read()
    close(adjusted, Field(hist).read(), 1e-3, "adjusted perfect model")
    cycles = [chain.made[f"climatology/identity-{g}"].read("tas") for g in ("coarse", "fine")]
    slots = standard_slots(days)
    anomaly = Field(hist).read().astype(float) - cycles[0][slots]
    close(made.read(), bilinear(anomaly, coarse, fine) + cycles[1][slots], 2e-3, "product")


def a_perfect_model_of_one_season_is_returned(chain: Chain) -> None:
    """Winters only. Windows or trends across the gap, or harmonics of one season, give others."""
    fine, coarse = grids()
    days = decade()
    days = days[np.isin(days.month, (12, 1, 2))][59:-31]
    truth = temperature(days, fine, warming=1.5)
    reference = chain.daily(
        "reference", "winters", "tas", days, fine, truth, layout="tiles", season="DJF"
    )
    hist = chain.daily(
        "simulation", "winters", "tas", days, coarse, coarse_means(truth), season="DJF"
    )
    made = chain.bcsd("winters", reference, hist, train=("1991-12-01", "2000-02-29"))
    close(Field(chain.made["adjust/winters"]).read(), Field(hist).read(), 1e-3, "adjusted")
    assert made.season == {"season": "DJF"}
    means = [
        np.stack([v[days.month == m].mean(axis=0) for m in (12, 1, 2)])
        for v in (made.read(), truth)
    ]
    close(means[0].mean(axis=(1, 2)), means[1].mean(axis=(1, 2)), 0.05, "mean of each month")


def a_model_of_360_days_keeps_the_seasons(chain: Chain) -> None:
    """Its day 270 is the reference's day 275: read as day 270, October is 0.8 K too warm.

    Many implementations refuse the calendar.
    """
    _, grid = grids()
    days, short = decade("standard"), decade("360_day")
    truth, model = (
        285
        - 10 * np.cos(2 * np.pi * (d.ordinal - d.ordinal[0]) / len(d) * 10)[:, None, None]
        + np.random.default_rng(SEED).normal(0, 1, (len(d), *grid.shape))
        for d in (days, short)
    )
    reference = chain.daily("reference", "year", "tas", days, grid, truth, layout="tiles")
    hist = chain.daily("simulation", "year", "tas", short, grid, 1.5 * (model - 285) + 287)
    made = chain.bcsd("year", reference, hist)
    assert len(made.days) == 3600
    assert made.days.calendar == "360_day"
    found = made.read().reshape(10, 12, 30, -1).mean(axis=(0, 2, 3))
    middle = 2 * np.pi * (np.arange(360) + 0.5) / 360
    cycle = (285 - 10 * np.cos(middle)).reshape(12, 30).mean(axis=1)
    close(found, cycle, 0.25, "mean of each month [K]")


def a_perfect_model_on_the_fine_grid_is_the_product(chain: Chain) -> None:
    """fine = coarse: the input comes back. A wrong climatology or sign gives another season."""
    _, grid = grids()
    days = decade()
    truth = temperature(days, grid)
    reference = chain.daily("reference", "obs", "tas", days, grid, truth, layout="tiles")
    hist = chain.daily("simulation", "perfect", "tas", days, grid, truth)
    close(chain.bcsd("same", reference, hist).read(), truth.astype("f4"), 2e-3, "product")


def rain_of_a_perfect_model_is_returned_and_drizzle_is_dry(chain: Chain) -> None:
    """Values at or above the threshold return, those below become 0; additive rain goes below 0."""
    _, grid = grids()
    days = decade()
    truth = rain(days, grid)
    reference = chain.daily("reference", "obs", "pr", days, grid, truth, layout="tiles")
    hist = chain.daily("simulation", "perfect", "pr", days, grid, truth)
    made = chain.bcsd("rain", reference, hist).read()
    wet = truth >= 0.05 * MM_PER_DAY
    assert made.min() >= 0, "negative precipitation"
    close(made[wet] / truth[wet], 1.0, 2e-5, "wet days")
    assert not made[~wet].any(), "dry days are not dry"


def rain_is_disaggregated_by_ratios(chain: Chain) -> None:
    """Interpolated ratio times the fine climatology; added instead, dry days fall below 0."""
    fine, coarse = grids()
    days = decade()
    truth = rain(days, fine)
    reference = chain.daily("reference", "wet", "pr", days, fine, truth, layout="tiles")
    model = chain.daily("simulation", "wet", "pr", days, coarse, coarse_means(truth))
    made = chain.bcsd("wet", reference, model).read()
    assert made.min() >= 0, f"negative precipitation: {made.min() / MM_PER_DAY:.2g} mm/day"
    cycles = [chain.made[f"climatology/wet-{g}"].read("pr") for g in ("coarse", "fine")]
    slots = standard_slots(days)
    amount = Field(model).read().astype(float)
    amount[amount < 0.05 * MM_PER_DAY] = 0.0
    wanted = bilinear(amount / cycles[0][slots], coarse, fine) * cycles[1][slots]
    close(made / MM_PER_DAY, wanted / MM_PER_DAY, 2e-3, "product [mm/day]")


# --------------------------------------------------------------------------------------
# 2. Shift and scale


def a_shifted_and_scaled_model_is_mapped_back(chain: Chain) -> None:
    """hist = a + b ref. With hist and ref swapped the bias doubles: 292.0 for 285.2 K."""
    _, grid = grids()
    days = decade()
    truth = temperature(days, grid).reshape(len(days), -1)
    everything = np.ones(len(days), bool)
    cells = np.meshgrid(grid.lat, grid.lon, indexing="ij")
    mapped = adjust.adjust_series(
        Series(truth, days, everything),
        Series(5.0 + 1.6 * truth, days, everything),
        PLAIN,
        variable_id="tas",
        lat=cells[0].ravel(),
        lon=cells[1].ravel(),
    ).values
    close(mapped.mean(axis=0) / truth.mean(axis=0), 1.0, 1e-6, "mean (relative)")
    close(mapped.std(axis=0) / truth.std(axis=0), 1.0, 1e-6, "standard deviation (relative)")


def a_shifted_model_in_float32_is_mapped_back(chain: Chain) -> None:
    """The same through the stage, from and to float32 stores."""
    _, grid = grids()
    days = decade()
    truth = temperature(days, grid).astype("f4")
    ref = chain.daily("coarsen", "shift", "tas", days, grid, truth)
    hist = chain.daily("simulation", "shift", "tas", days, grid, 285 + 5.0 + 1.6 * (truth - 285))
    mapped = Field(chain.adjust("shift", ref, hist, trend_years=0)).read().astype(float)
    for name in ("mean", "std"):
        wanted = getattr(truth.astype(float), name)(axis=0)
        close(getattr(mapped, name)(axis=0), wanted, 1e-4, f"{name} [K]")


def training_days_get_the_distribution_of_the_reference(chain: Chain) -> None:
    """With the trend step on. A "trend" of nine days keeps the model's own variability."""
    _, grid = grids()
    days = decade()
    truth = temperature(days, grid)
    slow = np.cumsum(np.random.default_rng(3).normal(0, 1, (len(days), 1, 1)), axis=0)
    slow -= np.convolve(slow[:, 0, 0], np.ones(61) / 61, mode="same")[:, None, None]
    truth = truth + slow
    ref = chain.daily("coarsen", "obs", "tas", days, grid, truth)
    hist = chain.daily("simulation", "wild", "tas", days, grid, 2.0 + 1.7 * (truth - 285) + 285)
    mapped = Field(chain.adjust("wild", ref, hist)).read().astype(float)
    close(mapped.std(axis=0) / truth.std(axis=0), 1.0, 0.02, "standard deviation (ratio)")


# --------------------------------------------------------------------------------------
# 3. Signal


def _signal(
    chain: Chain,
    variable: str,
    hist: Values,
    scen: Values,
    *,
    name: str,
    observed: Values | None = None,
) -> Values:
    """Return product change per month and cell; historical is perfect if nothing is `observed`."""
    _, grid = grids()
    days, later = decade("noleap"), decade("noleap", 2011, 2020)
    truth = hist if observed is None else observed
    reference = chain.daily("reference", f"obs-{name}", variable, days, grid, truth, layout="tiles")
    past = chain.daily("simulation", f"hist-{name}", variable, days, grid, hist)
    future = chain.daily("simulation", f"scen-{name}", variable, later, grid, scen)
    made = [
        chain.bcsd(f"{name}-hist", reference, past, future, target="hist"),
        chain.bcsd(f"{name}-scen", reference, past, future),
    ]
    means = [
        np.stack([m.read()[m.days.month == month].mean(axis=0) for month in range(1, 13)])
        for m in made
    ]
    return means[1] / means[0] if variable == "pr" else means[1] - means[0]


def a_warming_of_three_kelvin_stays_three_kelvin(chain: Chain) -> None:
    """Ten years later, across a gap. Mapping each period on its own distribution gives 0 K."""
    _, grid = grids()
    hist = temperature(decade("noleap"), grid)
    change = _signal(chain, "tas", hist, hist + 3.0, name="warm")
    close(change.mean(axis=0), 3.0, 0.05, "change [K]")


def rain_times_one_and_a_half_stays_so(chain: Chain) -> None:
    """x1.51 in, x0.999 out where each period had its own distribution."""
    _, grid = grids()
    hist = rain(decade("noleap"), grid)
    change = _signal(chain, "pr", hist, 1.5 * hist, name="wet")
    close(change.mean(), 1.5, 0.015, "ratio")


def a_warming_of_winter_stays_in_winter(chain: Chain) -> None:
    """Also of a model that is too variable. A trend of all months together warms the summer."""
    _, grid = grids()
    days = decade("noleap")
    truth = temperature(days, grid)
    hist = 287 + 1.6 * (truth - 285)
    winter = np.isin(days.month, (12, 1, 2))[:, None, None]
    change = _signal(chain, "tas", hist, hist + 3.0 * winter, name="winter", observed=truth).mean(
        axis=(1, 2)
    )
    close(change[[5, 6, 7]], 0.0, 0.05, "June to August [K]")
    close(change[[0]], 3.0, 0.25, "January [K]")


# --------------------------------------------------------------------------------------
# 4. Continuity


def there_is_no_step_between_historical_and_scenario(chain: Chain) -> None:
    """Means of 2010-14 and 2015-19 differ as in the GCM; re-based trends gave a step of -1.15 K."""
    _, grid = grids()
    days = decade("noleap", 2000, 2019)
    split = int(np.searchsorted(days.year, 2015))
    model = temperature(days, grid, warming=2.0) + 2.0
    truth = temperature(days[:split], grid, seed=SEED + 1, warming=2.0)
    reference = chain.daily("reference", "step", "tas", days[:split], grid, truth, layout="tiles")
    past = chain.daily("simulation", "past", "tas", days[:split], grid, model[:split])
    future = chain.daily("simulation", "future", "tas", days[split:], grid, model[split:])
    train = ("2000-01-01", "2014-12-31")
    made = [
        chain.bcsd("past", reference, past, future, target="hist", train=train),
        chain.bcsd("future", reference, past, future, train=train),
    ]
    before = made[0].days.year >= 2010
    steps = [
        b.mean() - a[before].mean()
        for a, b in ((made[0].read(), made[1].read()), (model[:split], model[split:]))
    ]
    close(steps[0], steps[1], 0.1, "step at 2014/2015 beyond the GCM's [K]")


# --------------------------------------------------------------------------------------
# 5. Invariants


def tasmin_never_exceeds_tasmax(chain: Chain) -> None:
    """tasmin = tasmax - dtr. Adjusted on its own, tasmin passes tasmax on days of small range."""
    fine, coarse = grids()
    days = decade()
    rng = np.random.default_rng(SEED)
    upper = temperature(days, fine)
    range_fine = rng.gamma(0.7, 2.0, upper.shape) + 0.02
    lower = upper - range_fine
    stores = {}
    for stage, grid, make in (
        ("reference", fine, lambda v: v),
        ("simulation", coarse, lambda v: coarse_means(v) + rng.normal(0, 0.5, (len(days), 2, 3))),
    ):
        layout: Any = "tiles" if stage == "reference" else "full_time"
        for name, values in (("tasmax", upper), ("tasmin", lower), ("dtr", range_fine)):
            data = np.maximum(make(values), 0.01) if name == "dtr" else make(values)
            stores[stage, name] = chain.daily(stage, name, name, days, grid, data, layout=layout)
    pair = [(stores["reference", v], stores["simulation", v]) for v in ("tasmax", "tasmin", "dtr")]
    tasmax = chain.bcsd("tasmax", *pair[0])
    tasmin = chain.bcsd("tasmin", *pair[2], tasmax=tasmax.store, variable_id="tasmin")
    above = int((tasmin.read() > tasmax.read()).sum())
    assert above == 0, f"tasmin exceeds tasmax on {above} cell-days"


def values_are_exactly_where_the_reference_has_them(chain: Chain) -> None:
    """Sea stays NaN, all land has a value on every day, far cells are flagged as filled."""
    fine, coarse = grids(n_lon=24)
    days = decade("noleap", 1991, 1994)
    truth = temperature(days, fine)
    sea = np.zeros(fine.shape, bool)
    sea[:, 8:20] = True
    truth[:, sea] = np.nan
    model = temperature(days, coarse)
    model[:, :, 2:] = np.nan  # the GCM has nothing near the eastern shore
    train = ("1991-01-01", "1994-12-31")
    reference = chain.daily("reference", "sea", "tas", days, fine, truth, layout="tiles")
    hist = chain.daily("simulation", "sea", "tas", days, coarse, model)
    made = chain.bcsd("sea", reference, hist, train=train)
    assert np.array_equal(np.isnan(made.read()), np.broadcast_to(sea, truth.shape))
    filled = made.store.read("filled").astype(bool)
    assert filled[:, 20:].all() and not filled[:, :8].any() and not filled[sea].any()


def nothing_is_extrapolated_beyond_the_outer_centres(chain: Chain) -> None:
    """One August day became 455 mm where ratios were extrapolated."""
    fine, coarse = grids()
    days = decade("noleap", 1991, 1993)
    every = np.ones((len(days), 1, 1))
    truth = temperature(days, Grid.from_centres([0.0, 1.0], [0.0, 1.0]))[:, :1, :1]
    row, column = np.ogrid[: coarse.shape[0], : coarse.shape[1]]
    slope = np.random.default_rng(1).normal(0, 5, every.shape) * (row + column)
    train = ("1991-01-01", "1993-12-31")
    reference = chain.daily(
        "reference", "edge", "tas", days, fine, truth * np.ones(fine.shape), layout="tiles"
    )
    hist = chain.daily("simulation", "edge", "tas", days, coarse, truth + slope)
    values = chain.bcsd("edge", reference, hist, train=train, trend_years=0).read()
    for axis, name in ((1, "lat"), (2, "lon")):
        along = np.moveaxis(values, axis, 0)
        inner, outer = getattr(coarse, name), getattr(fine, name)
        for side, beyond in ((0, outer < inner[0]), (-1, outer > inner[-1])):
            edge = along[beyond]
            close(edge, edge[[0]], 1e-3, f"beyond the outer {name} centre {side} [K]")


def noise_belongs_to_the_date(chain: Chain) -> None:
    """Dry days become wet by noise: by place in the axis it would repeat, or change with the run.

    Ten years of the same weather, twice; and the later ten alone.
    """
    _, grid = grids()
    days, later = decade("noleap"), decade("noleap", 2001, 2010)
    truth, model = rain(days, grid), rain(days, grid, seed=SEED + 1)
    model[::3] = 0.0  # fewer wet days than observed, so that dry ones become wet
    cells = [a.ravel() for a in np.meshgrid(grid.lat, grid.lon, indexing="ij")]

    def mapped(values: Values, axis: Days) -> Values:
        train = axis.year <= 2000
        obs = Series(truth.reshape(len(days), -1), days, np.ones(len(days), bool))
        sim = Series(values.reshape(len(axis), -1), axis, train)
        place = {"lat": cells[0], "lon": cells[1]}
        return adjust.adjust_series(obs, sim, PLAIN, variable_id="pr", **place).values

    twice = mapped(np.concatenate([model, model]), Days.concatenate([days, later]))
    first, second = twice[: len(days)], twice[len(days) :]
    woken = (model.reshape(first.shape) == 0) & ((first > 0) | (second > 0))
    assert woken.any()
    repeated = float((first == second)[woken].mean())
    assert repeated < 0.01, f"noise of {repeated:.0%} of the days repeats ten years later"
    short = np.concatenate([model, model[:365]])
    apart = mapped(short, Days.concatenate([days, later[:365]]))[len(days) :]
    assert np.array_equal(apart, second[:365]), "a day's noise depends on the days around it"
    gap = 4 * 365
    alone = mapped(np.concatenate([model, model[gap:]]), Days.concatenate([days, later[gap:]]))
    assert np.array_equal(alone[len(days) :], second[gap:]), (
        "noise depends on the place in the axis"
    )


# --------------------------------------------------------------------------------------
# Around the method: domain, identity, stores, means


WORLD = {"n_lat": 12, "n_lon": 16, "first_year": 2013, "last_year": 2015, "ratio": 4}


def _plan(chain: Chain, **changed: Any) -> tuple[Plan, dict[str, Any]]:
    """Return plan and lock of a small world, of which a box is asked for."""
    data = {"synthetic": WORLD, "variables": ["pr"]}
    mapping = {
        "name": "box",
        "domains": {"box": {"lat": [36.5, 37.6], "lon": [-33.1, -31.4]}},
        "periods": {"train": [2013, 2014]},
        "references": {"OBS": data},
        "simulations": [{"source_id": "FS-B", "experiment_id": "historical", **data}],
        "products": [
            {"domain": "box", "reference": "OBS", "train": "train", "source_id": "FS-B",
             "variable_id": "pr", "method": "bcsd"}
        ],
        **changed,
    }  # fmt: skip
    chain.folder.mkdir(exist_ok=True)
    run = start.read(mapping, chain.folder / "box.yaml")
    return run.plan, run.lock


def observations_are_cut_to_the_domain(chain: Chain) -> None:
    """A box that only the GCM heeds gives the whole reference."""
    plan, lock = _plan(chain)
    (artefact,) = plan.stage("reference")
    work = Job("reference", str(chain.folder / "box.zarr"), artefact.identity,
               facets=artefact.facets, lock=lock)  # fmt: skip
    reference.run(work, **artefact.parameters)
    made = Field(open_store(work.output))
    axes = synthetic.reference_grid(synthetic.World(**WORLD))
    rows, columns = (
        (axes.lat >= 36.5) & (axes.lat <= 37.6),
        (axes.lon >= -33.1) & (axes.lon <= -31.4),
    )
    assert made.grid.shape == (rows.sum(), columns.sum()), f"grid of {made.grid.shape}"
    whole = synthetic.read_reference(synthetic.World(**WORLD), "pr", made.days)
    assert np.array_equal(made.read(), whole[:, rows][:, :, columns], equal_nan=True)


def a_changed_parameter_names_another_store(chain: Chain) -> None:
    """Otherwise a store made with other parameters is reused in silence."""
    plain, wide = (
        _plan(chain, adjust={"half_window": days})[0].stage("bcsd")[0] for days in (15, 30)
    )
    assert plain.path != wide.path, "products of two windows share a store"
    assert plain.identity != wide.identity


def an_unfinished_store_cannot_be_opened(chain: Chain) -> None:
    """A store with `.zmetadata` from the start reads as NaN wherever nothing was written."""

    class Killed(Exception):
        """What ends the job."""

    def killed(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        raise Killed

    _, grid = grids()
    days = decade("noleap", 1991, 1991)
    work = Chain(chain.folder, map=killed)
    with suppress(Killed):
        work.daily("reference", "killed", "tas", days, grid, temperature(days, grid))
    try:
        opened = open_store(str(chain.folder / "reference/killed.zarr"))
    except StoreError:
        return
    missing = np.isnan(opened.read("tas")).mean()
    raise AssertionError(f"an unfinished store was opened; {missing:.0%} of it is NaN")


def a_month_without_values_has_no_mean(chain: Chain) -> None:
    """Sums of nothing are 0, also over sea: the mean of an empty cell is NaN."""
    _, grid = grids()
    days = decade("noleap", 1991, 1992)
    values = rain(days, grid)
    values[:, 0, 0] = np.nan
    values[(days.year == 1992) & (days.month == 7), 1, 2] = np.nan
    daily = chain.daily("bcsd", "sea", "pr", days, grid, values, layout="tiles")
    work = chain.job("aggregate", "sea", variable_id="pr")
    aggregate.run(work, product=daily, frequency="mon", attributes={})
    monthly = open_store(work.output).read("pr")
    wanted = np.zeros(monthly.shape, bool)
    wanted[:, 0, 0] = wanted[18, 1, 2] = True
    assert np.array_equal(np.isnan(monthly), wanted), "NaN is not where there are no values"
    july = values[(days.year == 1991) & (days.month == 7)].mean(axis=0)
    close(monthly[6][~wanted[0]] / july[~wanted[0]], 1.0, 1e-5, "July 1991")


ORACLES = (
    a_perfect_model_is_returned_and_disaggregated,
    a_perfect_model_of_one_season_is_returned,
    a_model_of_360_days_keeps_the_seasons,
    a_perfect_model_on_the_fine_grid_is_the_product,
    rain_of_a_perfect_model_is_returned_and_drizzle_is_dry,
    rain_is_disaggregated_by_ratios,
    a_shifted_and_scaled_model_is_mapped_back,
    a_shifted_model_in_float32_is_mapped_back,
    training_days_get_the_distribution_of_the_reference,
    a_warming_of_three_kelvin_stays_three_kelvin,
    rain_times_one_and_a_half_stays_so,
    a_warming_of_winter_stays_in_winter,
    there_is_no_step_between_historical_and_scenario,
    tasmin_never_exceeds_tasmax,
    values_are_exactly_where_the_reference_has_them,
    nothing_is_extrapolated_beyond_the_outer_centres,
    noise_belongs_to_the_date,
    observations_are_cut_to_the_domain,
    a_changed_parameter_names_another_store,
    an_unfinished_store_cannot_be_opened,
    a_month_without_values_has_no_mean,
)
