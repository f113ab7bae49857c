"""Stage `gard`: the product of models of which the answer is known."""

from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from chain import Chain, grids
from scipy.special import ndtr

from finescale import chunking, gard
from finescale.calendars import Days, slots, standard_slots
from finescale.engines import engine
from finescale.errors import ConfigError, ContractError
from finescale.fields import Field
from finescale.gard import Options
from finescale.grids import Grid
from finescale.store import Store
from finescale.variables import MM_PER_DAY

FINE, COARSE = grids(n_lat=8, n_lon=8)
DAYS = oracles.decade(last=1996)
TRAIN = ("1991-01-01", "1996-12-31")
LENGTHS = {"length_km": 120.0, "length_days": 1.5}
NOISY = {"stochastic": True, "seed": 3, **LENGTHS}


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def weather(days: Days, grid: Grid = COARSE, seed: int = 0) -> np.ndarray:
    """Return standard-normal large-scale weather of an annual cycle, float32."""
    rng = np.random.default_rng(seed)
    cycle = np.cos(2 * np.pi * standard_slots(days) / 366)[:, None, None]
    field = (
        cycle
        + rng.normal(0, 1, (len(days), 1, 1))
        + 0.3 * rng.normal(size=(len(days), *grid.shape))
    )
    return field.astype("f4")


def local(coarse: np.ndarray) -> np.ndarray:
    return oracles.bilinear(coarse.astype(float), COARSE, FINE)


def product(
    chain: Chain,
    truth: np.ndarray,
    past: dict[str, np.ndarray],
    future: dict[str, np.ndarray] | None = None,
    *,
    name: str = "product",
    variable_id: str = "tas",
    output: str = "",
    days: Days = DAYS,
    later: Days | None = None,
    tasmax: Store | None = None,
    train: tuple[str, str] = TRAIN,
    season: str | None = None,
    **options: Any,
) -> Field:
    """Return the product of predictors by name, `future` on the days `later`."""
    reference = chain.daily(
        "reference", name, variable_id, days, FINE, truth, layout="tiles", season=season
    )
    later, future = later or days, past if future is None else future
    stores = {
        f"{role}_{v}": chain.daily(
            "simulation", f"{name}-{role}-{v}", v, axis, COARSE, values, season=season
        )
        for role, axis, series in (("train", days, past), ("apply", later, future))
        for v, values in series.items()
    }
    work = chain.job("gard", name, variable_id=output or variable_id)
    gard.run(
        work,
        reference=reference,
        climatology=chain.climatology(name, reference, train),
        weights=chain.weights(name, COARSE, FINE, "bilinear"),
        tasmax=tasmax,
        variable_id=output or variable_id,
        predictors=list(past),
        train=train,
        **{"mode": "regression", "calendar": None, "attributes": {}, **options},
        **stores,
    )
    return Field(chain.keep(work))


def noisy_truth(x: np.ndarray, error: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(9)
    return 285 + 2 * local(x) + rng.normal(0, error, (len(x), *FINE.shape))


# --------------------------------------------------------------------------------------
# Temperature


def test_a_linear_world_is_predicted_exactly(chain: Chain) -> None:
    """Two predictors that explain the reference without error; a wrong day, slot or cell shows."""
    x = {"tas": weather(DAYS, seed=1) + 280, "psl": 500 * weather(DAYS, seed=2) + 101_000}
    truth = 5 + local(x["tas"]) - 0.004 * (local(x["psl"]) - 101_000)
    made = product(chain, truth, x)
    assert np.abs(made.read() - truth).max() < 2e-3
    assert not made.store.read("n_corrected").any()
    assert made.store.attributes["predictors"] == ["tas", "psl"]


def test_the_product_is_numpys_least_squares(chain: Chain) -> None:
    x = weather(DAYS)
    truth = noisy_truth(x)
    made = product(chain, truth, {"uas": x}, half_window=20).read()
    distance = np.abs(standard_slots(DAYS).astype(int) - 200)
    chosen = np.flatnonzero(np.minimum(distance, 366 - distance) <= 20)
    for cell in ((0, 0), (3, 5)):
        predictor = local(x)[:, *cell]
        design = np.column_stack([np.ones(chosen.size), predictor[chosen]])
        a, b = np.linalg.lstsq(design, truth[chosen, *cell].astype("f4"), rcond=None)[0]
        days = np.flatnonzero(distance == 0)
        assert np.abs(made[days, *cell] - a - b * predictor[days]).max() < 1e-3


def test_a_warming_of_the_predictor_warms_the_product(chain: Chain) -> None:
    """The mapping is of training days: normalised by its own mean, the change would be lost."""
    x = weather(DAYS) + 280
    later = oracles.decade(first=2091, last=2092)
    warm = weather(later) + 283
    truth = local(x)
    made = product(chain, truth, {"tas": x}, {"tas": warm}, later=later).read()
    assert made.mean() - local(warm - 3).mean() == pytest.approx(3, abs=2e-3)


def test_noise_restores_the_variance_and_only_it(chain: Chain) -> None:
    """Regression alone loses the variance that predictors do not explain."""
    x = weather(DAYS)
    truth = noisy_truth(x, error=2.0)
    mean = product(chain, truth, {"uas": x}, name="mean").read()
    made = product(chain, truth, {"uas": x}, name="noisy", **NOISY)
    ratio = (made.read().std(axis=0) / truth.std(axis=0)).mean()
    assert ratio == pytest.approx(1, abs=0.02)
    assert (mean.std(axis=0) / truth.std(axis=0)).mean() < 0.93
    assert np.abs((made.read() - mean).mean(axis=0)).max() < 0.25
    assert made.store.attributes["noise_length_km"] == 120.0
    member = product(chain, truth, {"uas": x}, name="member", **{**NOISY, "seed": 4}).read()
    assert abs(np.corrcoef((member - mean)[:, 0, 0], (made.read() - mean)[:, 0, 0])[0, 1]) < 0.1


def test_lengths_are_estimated_from_the_reference(chain: Chain) -> None:
    x = weather(DAYS)
    made = product(chain, noisy_truth(x, 0.1), {"uas": x}, stochastic=True, length_days=0.5)
    attributes = made.store.attributes
    assert attributes["noise_length_days"] == 0.5
    assert attributes["noise_length_km"] > 300, "weather is common to all cells"


@pytest.mark.parametrize("kind", ["mean", "weighted", "best", "sample"])
def test_analogs_find_days_of_the_same_weather(kind: str, chain: Chain) -> None:
    x = weather(DAYS)
    options = {"mode": "analog", "analog_kind": kind, "n_analogs": 20, "half_window": 9, **NOISY}
    made = product(chain, noisy_truth(x, 0.2), {"uas": x}, **options).read()
    wanted = 285 + 2 * local(x)
    assert np.corrcoef(made[:, 2, 2], wanted[:, 2, 2])[0, 1] > 0.95
    assert made.mean() == pytest.approx(wanted.mean(), abs=0.1)


def test_regression_on_analogs_follows_a_bend(chain: Chain) -> None:
    """One line for all days misses |x| altogether; analogs bend with it."""
    x = weather(DAYS)
    truth = 285 + 3 * np.abs(local(x))
    options = {"mode": "analog_regression", "n_analogs": 40, "half_window": 9}
    bent = product(chain, truth, {"uas": x}, name="bent", **options).read()
    straight = product(chain, truth, {"uas": x}, name="straight").read()
    assert np.sqrt(((bent - truth) ** 2).mean()) < 0.4
    assert np.sqrt(((straight - truth) ** 2).mean()) > 1


def test_a_training_day_is_no_analog_of_itself(chain: Chain) -> None:
    """With the own day allowed the nearest analog is the truth: a skill that is none."""
    x = weather(DAYS)
    truth = noisy_truth(x, error=3.0)
    made = product(
        chain, truth, {"uas": x}, mode="analog", analog_kind="best", half_window=9
    ).read()
    assert np.abs(made - truth).mean() > 2


# --------------------------------------------------------------------------------------
# Rain


def rain(days: Days = DAYS) -> tuple[np.ndarray, np.ndarray]:
    """Return a predictor and rain [kg m-2 s-1] whose chance and amount rise with it."""
    rng = np.random.default_rng(11)
    x = weather(days)
    wetness = local(x)
    wet = rng.random(wetness.shape) < ndtr(wetness - 0.3)
    amount = 1 + np.maximum(1.2 + 0.3 * wetness + rng.normal(0, 0.4, wetness.shape), 0.1) ** 3
    return x, np.where(wet, amount, 0.3 * rng.random(wetness.shape)) * MM_PER_DAY


@pytest.mark.parametrize("mode", ["regression", "analog_regression", "analog"])
def test_stochastic_rain_has_the_reference_s_distribution(mode: str, chain: Chain) -> None:
    """1 - P, published, gives rain on dry days; amounts without noise have no heavy days."""
    x, truth = rain()
    options = {
        "mode": mode,
        "n_analogs": 20 if mode == "analog" else 80,
        "half_window": 30,
        "transform": "cube_root",
        **NOISY,
    }
    made = product(chain, truth, {"uas": x}, variable_id="pr", **options)
    found, truth = made.read() / MM_PER_DAY, truth / MM_PER_DAY
    assert found.min() >= 0
    assert (found >= 0.9999).mean() / (truth >= 1).mean() == pytest.approx(1, abs=0.04)
    assert found.mean() / truth.mean() == pytest.approx(1, abs=0.06)
    tops = [np.quantile(v, 0.99) for v in (found, truth)]
    assert tops[0] / tops[1] == pytest.approx(1, abs=0.1)
    wet = truth >= 1
    assert (found[wet] >= 0.9999).mean() > (found[~wet] >= 0.9999).mean() + 0.15


def test_the_most_likely_days_are_wet_in_the_deterministic_product(chain: Chain) -> None:
    """As many as in training. P > 1/2 would be fewer."""
    x, truth = rain()
    made = product(chain, truth, {"uas": x}, variable_id="pr").read()
    wet = made > 0.9999 * MM_PER_DAY
    assert wet.mean() / (truth >= MM_PER_DAY).mean() == pytest.approx(1, abs=0.03)
    assert not made[~wet].any()
    assert wet[truth >= MM_PER_DAY].mean() > 0.7


def test_a_dry_month_has_no_rain_and_a_month_of_few_showers_the_amounts_of_the_year(
    chain: Chain,
) -> None:
    x, truth = rain()
    july = np.isin(DAYS.month, (5, 6, 7, 8, 9))
    shower = np.flatnonzero(july)[::600]
    truth[july] = 0
    truth[shower] = 5 * MM_PER_DAY
    made = product(chain, truth, {"uas": x}, variable_id="pr", half_window=20, **NOISY)
    found = made.read()
    assert np.isfinite(found).all()
    assert found[DAYS.month == 7].mean() < 0.02 * found[~july].mean()
    assert (made.store.read("n_pooled") > 60).all()


@pytest.mark.parametrize("scale", ["cube_root", "log", "none"])
def test_the_expected_value_is_the_mean_of_draws(scale: str) -> None:
    """The value at the mean of a scale that bends is the median: rain would be too little."""
    variable = "hurs" if scale == "none" else "pr"
    options = Options(variable, ("uas",), transform=scale)
    assert options.scale == scale
    r = np.random.default_rng(1).normal(size=400_000)
    draws = options.from_scale(1.5 + 0.3 * r)
    expected = options.expected(np.array(1.5), np.array(0.3))
    assert draws.mean() == pytest.approx(float(expected), rel=2e-3)
    assert options.to_scale(draws).std() == pytest.approx(0.3, rel=1e-2)


# --------------------------------------------------------------------------------------
# Limits, masks, calendars, seasons


def test_tasmin_is_below_a_correlated_tasmax(chain: Chain) -> None:
    x = weather(DAYS)
    rng = np.random.default_rng(5)
    tasmax = noisy_truth(x) + 5
    dtr = np.maximum(3 + local(x) + rng.normal(0, 2, tasmax.shape), 0.1)
    upper = product(chain, tasmax, {"uas": x}, name="max", variable_id="tasmax", **NOISY)
    below = {"variable_id": "dtr", "output": "tasmin", "tasmax": upper.store}
    made = product(chain, dtr, {"uas": x}, name="min", **below, **NOISY, correlation=0.8)
    assert made.variable_id == "tasmin"
    assert (made.read() <= upper.read()).all()
    corrected = made.store.read("n_corrected")
    assert (corrected > 0).all()
    plain = product(chain, tasmax, {"uas": x}, name="plain", variable_id="tasmax").read()
    steady = product(chain, dtr, {"uas": x}, name="steady", variable_id="dtr").read()
    noise = [(upper.read() - plain), (upper.read() - made.read()) - steady]
    assert np.corrcoef(noise[0][:, 3, 3], noise[1][:, 3, 3])[0, 1] == pytest.approx(0.8, abs=0.08)


def test_values_beyond_a_limit_are_set_to_it_and_counted(chain: Chain) -> None:
    x = weather(DAYS)
    truth = np.clip(85 + 8 * local(x), 0, 100)
    made = product(chain, truth, {"uas": x}, variable_id="hurs", **NOISY)
    assert made.read().max() == 100
    assert np.array_equal(made.store.read("n_corrected"), (made.read() == 100).sum(axis=0))


def test_values_are_exactly_where_the_reference_has_them(chain: Chain) -> None:
    x = weather(DAYS)
    truth = noisy_truth(x)
    sea = np.zeros(FINE.shape, bool)
    sea[:4], sea[6, 6] = True, True
    truth[:, sea] = np.nan
    truth[100:120, 7, 7] = np.nan
    x[:, 1, 0] = np.nan
    made = product(chain, truth, {"uas": x}, **NOISY)
    assert np.array_equal(np.isnan(made.read()), np.broadcast_to(sea, made.read().shape))


def test_a_model_of_360_days_is_downscaled_in_its_calendar_or_another(chain: Chain) -> None:
    """Its day 270 is the reference's day 275: read as day 270, autumn is up to 0.9 K too warm."""
    x, short = weather(DAYS), oracles.decade("360_day", 2001, 2004)
    later = weather(short, seed=2)
    cycle, middle = (
        285 - 10 * np.cos(2 * np.pi * (at + 0.5) / n)[:, None, None]
        for at, n in ((standard_slots(DAYS), 366), (slots(short), 360))
    )
    options = {"later": short, "half_window": 5, "length_km": 120.0, "length_days": 1.5}
    truth = cycle + 2 * local(x)
    made = product(chain, truth, {"uas": x}, {"uas": later}, name="own", **options)
    assert len(made.days) == 1440
    error = (made.read() - middle - 2 * local(later)).reshape(4, 12, 30, -1).mean(axis=(0, 2, 3))
    assert np.abs(error).max() < 0.2
    options |= {"calendar": "standard", "stochastic": True}
    converted = product(chain, truth, {"uas": x}, {"uas": later}, name="other", **options)
    assert len(converted.days) == 1461
    assert converted.store.attributes["calendar_converted_from"] == "360_day"
    assert (np.diff(converted.read(), axis=0) == 0).all(axis=(1, 2)).sum() == 21


def test_one_season_is_trained_and_downscaled(chain: Chain) -> None:
    """Winters: windows across the gap would mix November's regression into February's."""
    days = DAYS[np.isin(DAYS.month, (12, 1, 2))][59:-31]
    x = weather(days)
    slope = np.where(days.month == 2, 3.0, 1.0)[:, None, None]
    truth = 285 + slope * local(x)
    dates = ("1991-12-01", "1996-02-29")
    made = product(chain, truth, {"uas": x}, days=days, train=dates, season="DJF", half_window=10)
    assert made.season == {"season": "DJF"}
    january = (days.month == 1) & (days.day < 20)
    assert np.abs(made.read()[january] - truth[january]).max() < 2e-3
    with pytest.raises(ContractError, match="season"):
        product(
            chain, truth, {"uas": x}, {"uas": weather(DAYS)}, name="july", days=days, later=DAYS,
            train=dates,
        )  # fmt: skip


def test_days_without_a_predictor_are_left_out_of_training_but_not_of_a_product(
    chain: Chain,
) -> None:
    x = {"uas": weather(DAYS), "vas": weather(DAYS, seed=2)}
    truth = 285 + 2 * local(x["uas"]) + local(x["vas"])
    gap = {**x, "vas": x["vas"].copy()}
    gap["vas"][-36:] = np.nan
    made = product(chain, truth, gap, x, name="trained")
    assert np.abs(made.read() - truth).max() < 2e-3
    with pytest.raises(ContractError, match=r"vas.*1996-11-26"):
        product(chain, truth, x, gap, name="applied")


def test_too_little_training_is_told_with_its_place(chain: Chain) -> None:
    x = weather(DAYS)
    truth = noisy_truth(x)
    truth[1300:, 1, 2] = np.nan
    with pytest.raises(ContractError, match=r"lat 40\.75, lon -4\.75 has 25 training days"):
        product(chain, truth, {"uas": x}, half_window=3)


def test_predictors_of_two_grids_are_refused(chain: Chain) -> None:
    """Of one shape they would be read as one grid: each cell trained with another's weather."""
    x = weather(DAYS)
    product(chain, noisy_truth(x), {"uas": x}, name="made")
    shifted = Grid.from_centres(COARSE.lat + 1, COARSE.lon)
    moved = chain.daily("simulation", "moved", "uas", DAYS, shifted, x)
    made = chain.made
    with pytest.raises(ContractError, match="one grid"):
        gard.run(
            chain.job("gard", "moved", variable_id="tas"),
            reference=made["reference/made"], climatology=made["climatology/made"],
            weights=made["weights/made-bilinear"], variable_id="tas", predictors=["uas"],
            train=TRAIN, mode="regression", calendar=None, attributes={},
            train_uas=moved, apply_uas=made["simulation/made-apply-uas"],
        )  # fmt: skip


def test_a_sample_without_noise_is_refused(chain: Chain) -> None:
    with pytest.raises(ConfigError, match="stochastic"):
        product(chain, noisy_truth(weather(DAYS)), {"uas": weather(DAYS)}, mode="analog",
                analog_kind="sample")  # fmt: skip


# --------------------------------------------------------------------------------------
# Independence


@pytest.mark.parametrize("mode", ["regression", "analog_regression"])
def test_tiles_threads_and_order_change_no_bit(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise per tile, a sum by BLAS, or a state kept from block to block give other bits."""
    days = oracles.decade("noleap", 1991, 1992)
    x, truth = rain(days)
    truth[:, 2, 5:] = np.nan
    train = ("1991-01-01", "1992-12-31")
    options = {"days": days, "variable_id": "pr", "train": train, "mode": mode, **NOISY}
    options["transform"] = "quantile"
    names = {"uas": x, "hus850": 0.0005 * np.exp(weather(days, seed=3))}
    whole = product(Chain(tmp_path / "whole"), truth, names, **options).read()
    monkeypatch.setattr(chunking, "TILE", 3)
    monkeypatch.setattr(chunking, "SLAB", 250)
    monkeypatch.setattr(gard, "CELLS", 4)
    with engine("threads", threads=3, mem_mb=2200) as run:
        cut = product(Chain(tmp_path / "cut", map=run), truth, names, **options)
    assert cut.chunks[1:] == (3, 3)
    assert np.array_equal(cut.read(), whole, equal_nan=True)
