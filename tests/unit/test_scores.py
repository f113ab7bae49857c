"""Scores, change signal and gates against numpy and scipy one-liners."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from finescale import scores
from finescale.errors import ContractError
from finescale.variables import Kind

N_TIME = 730
YEAR = np.repeat([2001, 2002], 365)
MONTH = np.tile(np.repeat(np.arange(1, 13), [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]), 2)
FOLLOWS = np.arange(N_TIME) != 300  # days are missing before this one
SEEDS = st.integers(0, 2**32 - 1)


def pair(seed: int, *, rain: bool = False, gaps: float = 0.1) -> tuple[Any, Any]:
    """Two correlated (time, cell) series with a season and independent gaps."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(N_TIME, 3)) + 3 * np.sin(MONTH / 12 * 2 * np.pi)[:, None]
    both = []
    for _ in range(2):
        values = common + rng.normal(scale=rng.uniform(0.2, 2), size=common.shape)
        values = np.maximum(values, 0) * scores.WET_DAY if rain else values + 280
        both.append(np.where(rng.random(values.shape) < gaps, np.nan, values).astype("f4"))
    return both[0], both[1]


def score(
    product: NDArray[Any], reference: NDArray[Any], *, rain: bool = False, follows: Any = FOLLOWS
) -> dict[str, NDArray[np.float64]]:
    return scores.cell_scores(
        product,
        reference,
        months=MONTH[: len(product)],
        season_year=YEAR[: len(product)],
        follows=follows[: len(product)],
        kind="*" if rain else "+",
        variable_id="pr" if rain else "tas",
    )


def spell_length(wet: NDArray[np.bool_], valid: NDArray[np.bool_], follows: Any, sort: bool) -> Any:
    """Return the mean length of wet or dry spells, counted by the eye: one letter a day."""
    letters = ["x" if not v else "w" if w else "d" for w, v in zip(wet, valid, strict=True)]
    text = "".join(("" if f else "x") + c for f, c in zip(follows, letters, strict=True))
    runs = re.findall("w+" if sort else "d+", text)
    return np.mean([len(run) for run in runs]) if runs else np.nan


def by_the_book(product: NDArray[Any], reference: NDArray[Any], *, rain: bool) -> dict[str, float]:
    """The scores of one cell, each from another library."""
    valid = ~np.isnan(product) & ~np.isnan(reference)
    x, y = product[valid].astype("f8"), reference[valid].astype("f8")
    month = (YEAR * 100 + MONTH)[valid]
    monthly = np.array([(x[month == m].mean(), y[month == m].mean()) for m in np.unique(month)])
    spells = [
        spell_length(series >= scores.WET_DAY, valid, FOLLOWS, sort)
        for sort in (True, False)
        for series in (product.astype("f8"), reference.astype("f8"))
    ]
    book = {
        "mean": np.mean(x),
        "reference_mean": np.mean(y),
        "bias": np.mean(x - y),
        "relative_bias": np.mean(x) / np.mean(y) - 1,
        "rmse": np.sqrt(np.mean((x - y) ** 2)),
        "correlation": stats.pearsonr(x, y).statistic,
        "seasonal_correlation": np.corrcoef(monthly.T)[0, 1],
        "std_ratio": np.std(x) / np.std(y),
        "p1_bias": np.percentile(x, 1) - np.percentile(y, 1),
        "p99_bias": np.percentile(x, 99) - np.percentile(y, 99),
        "wet_day_ratio": np.mean(x >= scores.WET_DAY) / np.mean(y >= scores.WET_DAY),
        "wet_spell_ratio": spells[0] / spells[1],
        "dry_spell_ratio": spells[2] / spells[3],
        "n_days": x.size,
    }
    rain_only = ("relative_bias", "wet_day_ratio", "wet_spell_ratio", "dry_spell_ratio")
    return {name: float(v) for name, v in book.items() if rain or name not in rain_only}


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, rain=st.booleans())
def test_every_score_equals_that_of_another_library(seed: int, rain: bool) -> None:
    product, reference = pair(seed, rain=rain)
    ours = score(product, reference, rain=rain)
    for cell in range(product.shape[1]):
        book = by_the_book(product[:, cell], reference[:, cell], rain=rain)
        assert {name: values[cell] for name, values in ours.items()} == pytest.approx(
            book, rel=1e-9, abs=1e-11 if not rain else 1e-15
        )


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_product_equal_to_its_reference_has_the_ideal_scores(seed: int) -> None:
    _, reference = pair(seed, rain=True)
    for name, values in score(reference, reference, rain=True).items():
        ideal = scores.CELL_SCORES[name].ideal
        if ideal is not None:
            np.testing.assert_allclose(values, ideal, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, cell=st.integers(0, 2))
def test_a_cell_has_the_same_scores_to_the_bit_in_any_block(seed: int, cell: int) -> None:
    product, reference = pair(seed)
    whole = score(product, reference)
    alone = score(product[:, cell : cell + 1], reference[:, cell : cell + 1])
    for name, values in whole.items():
        assert values[cell].tobytes() == alone[name][0].tobytes(), name


def test_days_that_one_side_lacks_count_for_neither() -> None:
    product, reference = pair(1, gaps=0.0)
    gone = product.copy()
    gone[:100] = np.nan
    assert score(gone, reference)["mean"] == pytest.approx(product[100:].mean(axis=0), rel=1e-5)
    wanted = reference[100:].mean(axis=0)
    assert score(gone, reference)["reference_mean"] == pytest.approx(wanted, rel=1e-5)


def test_a_cell_without_data_is_nan_and_counts_no_day() -> None:
    product, reference = pair(2)
    product[:, 1] = np.nan
    ours = score(product, reference)
    assert ours.pop("n_days")[1] == 0
    assert all(np.isnan(values[1]) and not np.isnan(values[0]) for values in ours.values())


def test_a_constant_series_has_no_correlation_and_no_spread() -> None:
    constant = np.full((N_TIME, 1), 280.1, "f4")
    varying = constant + np.sin(np.arange(N_TIME, dtype="f4"))[:, None]
    assert np.isnan(score(varying, constant)["std_ratio"]).all()
    assert np.isnan(score(constant, varying)["correlation"]).all()
    assert score(constant, varying)["std_ratio"] == 0


def test_rounding_of_a_mean_is_no_spread() -> None:
    constant = np.full(N_TIME, 280.1)  # no binary number: its mean is not quite 280.1
    assert constant.mean() != 280.1
    _, _, spread, _, correlation = scores._moments(constant, np.arange(float(N_TIME)))
    assert spread == 0 and np.isnan(correlation)


def test_a_day_of_exactly_one_millimetre_is_wet_in_float32() -> None:
    reference = np.full((N_TIME, 1), 1.0, "f4") * np.float32(1 / 86400)
    half_dry = np.where(np.arange(N_TIME)[:, None] % 2, reference, np.float32(0.99 / 86400))
    assert score(half_dry.astype("f4"), reference, rain=True)["wet_day_ratio"] == 0.5
    rounded_down = np.nextafter(reference, np.float32(0))
    assert score(rounded_down, reference, rain=True)["wet_day_ratio"] == 1


def test_a_reference_without_wet_days_has_no_wet_day_ratio() -> None:
    product, _ = pair(3, rain=True)
    ours = score(product, np.zeros_like(product), rain=True)
    assert np.isnan(ours["wet_day_ratio"]).all() and np.isnan(ours["relative_bias"]).all()


def test_a_spell_ends_where_days_are_missing() -> None:
    """A winter's last wet days are not one spell with the next winter's first; nor across NaN."""
    wet = np.full((10, 1), scores.WET_DAY, "f4")
    dry = np.zeros((10, 1), "f4")
    split = np.where(np.arange(10)[:, None] < 5, wet, dry)  # 5 wet, 5 dry days
    whole = np.ones(10, bool)
    gap = np.arange(10) != 3
    one_spell, cut = (score(wet, split, rain=True, follows=f) for f in (whole, gap))
    assert one_spell["wet_spell_ratio"] == 10 / 5
    assert cut["wet_spell_ratio"] == (10 / 2) / (5 / 2)
    missing = wet.copy()
    missing[7] = np.nan
    assert score(missing, split, rain=True, follows=whole)["wet_spell_ratio"] == (9 / 2) / 5
    assert np.isnan(one_spell["dry_spell_ratio"]).all(), "the product has none"
    assert np.isnan(score(split, dry, rain=True)["wet_spell_ratio"]).all()


def test_twice_as_long_spells_as_in_the_reference() -> None:
    days = np.arange(240)[:, None]
    product, reference = (np.where(days // n % 2, scores.WET_DAY, 0).astype("f4") for n in (6, 3))
    ours = score(product, reference, rain=True, follows=np.ones(240, bool))
    assert ours["wet_day_ratio"] == 1
    assert ours["wet_spell_ratio"] == ours["dry_spell_ratio"] == 2


# --------------------------------------------------------------------------------------
# Whole fields

AREA = np.array([1.0, 2.5, 0.5])


def moments(product: Any, reference: Any, *, rain: bool, cells: Any = slice(None)) -> Any:
    return scores.pattern_moments(
        product[:, cells], reference[:, cells], months=MONTH, area=AREA[cells],
        kind="*" if rain else "+",
    )  # fmt: skip


def mean_pattern_correlation(product: Any, reference: Any, *, rain: bool) -> float:
    """Return the mean over days of the weighted correlation, by numpy's own covariance."""
    gone = np.isnan(product) | np.isnan(reference)
    x, y = (np.where(gone, np.nan, v).astype("f8") for v in (product, reference))
    if not rain:
        for month in range(1, 13):
            for v in (x, y):
                v[month == MONTH] -= np.nanmean(v[month == MONTH], axis=0)
    found = []
    for day in range(len(x)):
        seen = ~gone[day]
        if seen.sum() < 2 or np.ptp(y[day, seen]) == 0:
            continue
        covariance = np.cov(x[day, seen], y[day, seen], aweights=AREA[seen])
        varies = np.ptp(x[day, seen]) > 0
        found.append(
            covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]) if varies else 0.0
        )
    return float(np.mean(found))


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, rain=st.booleans())
def test_the_pattern_correlation_is_the_mean_over_days_of_that_of_numpy(
    seed: int, rain: bool
) -> None:
    product, reference = pair(seed, rain=rain)
    ours = scores.pattern_correlation(moments(product, reference, rain=rain))
    assert ours == pytest.approx(mean_pattern_correlation(product, reference, rain=rain), abs=1e-8)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, rain=st.booleans())
def test_moments_of_tiles_add_up_to_those_of_the_field(seed: int, rain: bool) -> None:
    product, reference = pair(seed, rain=rain)
    whole = moments(product, reference, rain=rain)
    parts = [moments(product, reference, rain=rain, cells=c) for c in (slice(0, 1), slice(1, None))]
    np.testing.assert_allclose(parts[0] + parts[1], whole, rtol=1e-12, atol=1e-12)


def test_relief_season_and_bias_are_no_pattern_of_temperature() -> None:
    _, reference = pair(7, gaps=0.0)
    shifted = reference + 5 * np.sin(MONTH)[:, None] * np.arange(3) + np.arange(3)
    own = scores.pattern_correlation(moments(shifted, reference, rain=False))
    assert own == pytest.approx(1, abs=1e-5)
    climatology = scores.monthly_means(reference, MONTH)[MONTH - 1]
    assert scores.pattern_correlation(moments(climatology, reference, rain=False)) == 0


def test_days_without_rain_have_no_pattern_and_a_product_without_any_has_none_of_it() -> None:
    _, reference = pair(8, rain=True, gaps=0.0)
    reference[::2] = 0
    assert scores.pattern_correlation(moments(reference, reference, rain=True)) == pytest.approx(1)
    reference[1::2] = np.float32([1e-5, 2e-5, 5e-5])
    half = np.where(np.arange(N_TIME)[:, None] % 4 == 1, reference, 0)
    found = scores.pattern_correlation(moments(half, reference, rain=True))
    assert found == pytest.approx(np.mean(np.arange(1, N_TIME, 2) % 4 == 1))
    assert np.isnan(scores.pattern_correlation(moments(half, 0 * half, rain=True)))


def test_scores_come_in_the_order_of_the_table_and_only_where_they_apply() -> None:
    product, reference = pair(4)
    assert list(score(product, reference, rain=True)) == list(scores.CELL_SCORES)
    assert "wet_day_ratio" not in score(product, reference)
    paired = {name for name, s in scores.CELL_SCORES.items() if s.needs_pairs}
    assert paired == {"rmse", "correlation", "seasonal_correlation"}
    assert scores.CELL_SCORES["bias"].units_of("K") == "K"
    assert scores.CELL_SCORES["std_ratio"].units_of("K") == "1"


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_scores_without_pairs_do_not_depend_on_the_order_of_days(seed: int) -> None:
    product, reference = pair(seed, gaps=0.0)
    shuffled = np.random.default_rng(seed).permutation(product)
    before, after = score(product, reference), score(shuffled, reference)
    for name in before:
        same = np.allclose(before[name], after[name], rtol=1e-9, atol=1e-9)
        assert same != scores.CELL_SCORES[name].needs_pairs, name


def test_arrays_that_do_not_match_are_refused() -> None:
    product, reference = pair(5)
    with pytest.raises(ContractError, match="align them by date"):
        score(product[1:], reference)
    with pytest.raises(
        ContractError, match="one entry for each of 730 days, found 729, 730 and 730"
    ):
        scores.cell_scores(
            product, reference, months=MONTH[1:], season_year=YEAR, follows=FOLLOWS, kind="+",
            variable_id="tas",
        )  # fmt: skip


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, start=st.integers(0, 300), length=st.integers(1, 400))
def test_monthly_means_are_those_of_numpy_in_any_block(seed: int, start: int, length: int) -> None:
    values, months = pair(seed)[0][start : start + length], MONTH[start : start + length]
    masked = np.ma.masked_invalid(values.astype("f8"))
    book = [masked[months == month].mean(axis=0).filled(np.nan) for month in range(1, 13)]
    ours = scores.monthly_means(values, months)
    np.testing.assert_allclose(ours, np.array(book), rtol=1e-12)
    alone = scores.monthly_means(values[:, :1], months)
    assert alone.tobytes() == np.ascontiguousarray(ours[:, :1]).tobytes()


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(["+", "*"]))
def test_a_product_that_keeps_the_change_of_its_gcm_has_no_change_error(
    seed: int, kind: Kind
) -> None:
    rng = np.random.default_rng(seed)
    gcm, product, signal = rng.uniform(0.5, 2, size=(3, 12, 4))
    apply = np.add if kind == "+" else np.multiply
    result = scores.change(product, apply(product, signal), gcm, apply(gcm, signal), kind=kind)
    np.testing.assert_allclose(result["change_error"], 0, atol=1e-12)
    np.testing.assert_allclose(result["product_change"], signal - (kind == "*"), atol=1e-12)
    # the other kind would see another change
    assert not np.allclose(result["gcm_change"], signal - (kind != "*"))


def test_a_month_without_rain_has_no_relative_change() -> None:
    hist, scen = np.array([[0.0, 1e-9, 2.0]]), np.array([[1.0, 1.0, 3.0]])
    changes = scores.change_signal(hist, scen, kind="*", floor=1e-6)
    np.testing.assert_array_equal(changes, [[np.nan, np.nan, 0.5]])


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_the_area_mean_is_that_of_the_cells_with_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, area = rng.normal(size=(2, 9)), rng.uniform(0.1, 1, 9)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[0, 0] = 1.0
    masked = np.ma.average(np.ma.masked_invalid(values), axis=-1, weights=area)
    np.testing.assert_allclose(scores.area_mean(values, area), np.ma.filled(masked, np.nan))


def test_sea_does_not_dilute_the_scores_of_the_region() -> None:
    product, reference = pair(6, gaps=0.0)
    land = scores.area_scores(score(product, reference), np.ones(3))
    sea = np.full((N_TIME, 2), np.nan, "f4")
    padded = score(np.hstack([product, sea]), np.hstack([reference, sea]))
    assert scores.area_scores(padded, np.ones(5)) == pytest.approx(land)
    assert land["n_days"] == N_TIME


def test_a_region_without_values_has_no_mean() -> None:
    assert np.isnan(scores.area_mean(np.full(3, np.nan), np.ones(3)))


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_the_pooled_rmse_is_the_rmse_of_all_days_of_all_cells(seed: int) -> None:
    product, reference = pair(seed)
    area = np.array([1.0, 0.5, 0.25])
    ours = scores.area_scores(score(product, reference), area)
    square = (product.astype("f8") - reference) ** 2
    weights = np.where(np.isnan(square), 0, area)
    assert ours["rmse"] == pytest.approx(math.sqrt(np.nansum(square * weights) / weights.sum()))
    assert ours["bias"] == pytest.approx(
        np.average(score(product, reference)["bias"], weights=area)
    )


@settings(max_examples=20, deadline=None)
@given(
    seed=SEEDS,
    variable_id=st.sampled_from(sorted(scores.VALID_RANGE)),
    bad=st.lists(st.sampled_from(["below", "above", "inf", "-inf", "nan"]), max_size=6),
)
def test_every_planted_fault_is_counted_once(seed: int, variable_id: str, bad: list[str]) -> None:
    least, greatest = scores.valid_range(variable_id)
    legal = np.array([least, min(greatest, least + 1e3)], "f4")
    values = np.random.default_rng(seed).choice(legal, size=(7, 3))
    above = np.nextafter(np.float32(greatest), np.float32(np.inf))  # inf stays inf
    below = np.nextafter(np.float32(least), np.float32(-np.inf))
    plant = {"below": below, "above": above, "inf": np.inf, "-inf": -np.inf, "nan": np.nan}
    values.flat[: len(bad)] = [plant[name] for name in bad]
    counts = scores.invariants(values, variable_id=variable_id)
    assert counts["n_values"] == 21
    assert counts["n_nan"] == counts["n_missing"] == bad.count("nan")
    assert counts["n_below"] == bad.count("below") + bad.count("-inf")
    assert counts["n_above"] == bad.count("above") + bad.count("inf")


def test_the_mask_says_where_values_must_be_and_where_not() -> None:
    values = np.array([[np.nan, np.nan, 280.0, 280.0]] * 5)
    mask = np.array([True, False, True, False])
    counts = scores.invariants(values, variable_id="tas", mask=mask)
    assert (counts["n_nan"], counts["n_missing"], counts["n_stray"]) == (10, 5, 5)


def test_crossed_extremes_are_counted() -> None:
    tasmin, tasmax = np.array([[280.0, 285.0, 290.0]]), np.array([[285.0, 285.0, 289.0]])
    counts = scores.invariants(tasmin, variable_id="tasmin", tasmax=tasmax)
    assert counts["n_tasmin_above_tasmax"] == 1
    tas = np.array([[279.0, 285.0, np.nan]])
    counts = scores.invariants(tas, variable_id="tas", tasmin=tasmin, tasmax=tasmax)
    assert counts["n_tas_outside_extremes"] == 1


def test_counts_of_blocks_add_up_and_are_json() -> None:
    values = np.array([[100.0, 280.0, np.nan], [280.0, 500.0, np.nan]])
    whole = scores.invariants(values, variable_id="tas")
    blocks = [scores.invariants(row[None], variable_id="tas") for row in values]
    assert scores.total_counts(blocks) == whole
    assert json.loads(json.dumps(whole)) == whole


def test_a_sound_product_passes_every_gate() -> None:
    counts = scores.invariants(
        np.full((4, 2), 280.0), variable_id="tasmin", tasmax=np.full((4, 2), 281.0)
    )
    verdicts = scores.gates(
        counts, n_time=4, n_time_expected=4, trend_distortion=-0.1, trend_limit=0.2
    )
    assert [gate.gate for gate in verdicts] == list(scores.GATES)
    assert all(gate.passed and not gate.stops for gate in verdicts)


@pytest.mark.parametrize(
    ("gate", "change"),
    [
        ("missing_values", {"n_missing": 1}),
        ("values_outside_mask", {"n_stray": 1}),
        ("below_range", {"n_below": 1}),
        ("above_range", {"n_above": 1}),
        ("tasmin_above_tasmax", {"n_tasmin_above_tasmax": 1}),
        ("time_steps", {"n_time": 364}),
        ("trend_distortion", {"trend_distortion": -0.3}),
        ("trend_distortion", {"trend_distortion": math.nan}),
    ],
)
def test_one_fault_shuts_its_own_gate_unless_it_is_waived(
    gate: str, change: dict[str, Any]
) -> None:
    facts: dict[str, Any] = {"n_time": 365, "trend_distortion": 0.0}
    counts = dict.fromkeys(
        ("n_missing", "n_stray", "n_below", "n_above", "n_tasmin_above_tasmax"), 0
    )
    for name, value in change.items():
        (counts if name in counts else facts)[name] = value
    for waived in ((), (gate,)):
        verdicts = scores.gates(
            counts, n_time_expected=365, trend_limit=0.2, waived=waived, **facts
        )
        assert [verdict.gate for verdict in verdicts if not verdict.passed] == [gate]
        assert any(verdict.stops for verdict in verdicts) != bool(waived)
