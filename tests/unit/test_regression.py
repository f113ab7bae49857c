"""Kernels of regression against independent brute force: numpy, scipy, full sorts."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from finescale import calendars, regression
from finescale.calendars import Days
from finescale.regression import ANALOG_KINDS, Scale, season

DAYS = Days.range("1991-01-01", "1996-12-31", "standard")
SLOTS = calendars.slots(DAYS)
HALF = 20
LEAST = 40


def series(seed: int = 0, n_cells: int = 2, p: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_cells, len(DAYS), p)).astype("f4")
    cycle = np.cos(2 * np.pi * SLOTS / 366)
    y = 285 + 8 * cycle + (1 + cycle) * x[..., 0] - x[..., 1] + rng.normal(size=x.shape[:2])
    return x, y


def window(slot: int, half: int = HALF, slots: np.ndarray = SLOTS) -> np.ndarray:
    """Return the training days of a slot's window, counted slot by slot."""
    distance = np.abs(slots.astype(int) - slot)
    return np.flatnonzero(np.minimum(distance, 366 - distance) <= half)


def some_slots() -> Iterator[int]:
    yield from (0, 19, 59, 100, 250, 365)


# --------------------------------------------------------------------------------------
# Least squares


def test_least_squares_equals_numpy() -> None:
    """A window that loses or repeats a slot, or a wrong intercept, gives others."""
    x, y = series()
    y[1, ::7] = np.nan
    beta, error, n_days = regression.least_squares(x, y, *season(SLOTS, HALF), LEAST)
    for c in range(2):
        for slot in some_slots():
            days = window(slot)
            days = days[~np.isnan(y[c, days])]
            design = np.column_stack([np.ones(days.size), x[c, days].astype(float)])
            wanted, rss, *_ = np.linalg.lstsq(design, y[c, days], rcond=None)
            np.testing.assert_allclose(beta[c, slot], wanted, rtol=1e-8, atol=1e-8)
            assert error[c, slot] == pytest.approx(np.sqrt(rss[0] / (days.size - 4)), rel=1e-8)
            assert n_days[c, slot] == days.size


def test_predictions_follow_each_days_own_model() -> None:
    x, y = series(n_cells=1)
    beta = regression.least_squares(x, y, *season(SLOTS, HALF), LEAST)[0]
    made = regression.predict(x, beta, SLOTS)
    t = 1000
    wanted = beta[0, SLOTS[t], 0] + beta[0, SLOTS[t], 1:] @ x[0, t]
    assert made[0, t] == pytest.approx(wanted, rel=1e-12)


def test_collinear_and_constant_predictors_change_no_prediction() -> None:
    """Without a ridge the Cholesky factor of the same predictor twice holds NaN."""
    x, y = series(n_cells=1, p=2)
    plain = regression.predict(
        x, regression.least_squares(x, y, *season(SLOTS, HALF), LEAST)[0], SLOTS
    )
    more = np.concatenate([x, x[..., :1], np.zeros_like(x[..., :1])], axis=2)
    beta = regression.least_squares(more, y, *season(SLOTS, HALF), LEAST)[0]
    np.testing.assert_allclose(regression.predict(more, beta, SLOTS), plain, atol=1e-6)


def test_a_cell_alone_gets_the_same_bits() -> None:
    x, y = series(n_cells=3)
    every = season(SLOTS, HALF)
    together = regression.least_squares(x, y, *every, LEAST)
    alone = regression.least_squares(x[1:2].copy(), y[1:2].copy(), *every, LEAST)
    for a, b in zip(together, alone, strict=True):
        assert np.array_equal(a[1:2], b)


def test_windows_with_few_days_take_the_year_and_years_with_few_days_the_mean() -> None:
    x, y = series(n_cells=3)
    rainy = np.flatnonzero((SLOTS < 60) | (SLOTS > 300))
    y[0] = np.where(np.isin(np.arange(len(DAYS)), rainy), y[0], np.nan)
    y[1, 5:] = np.nan
    y[2] = np.nan
    beta, error, n_days = regression.least_squares(x, y, *season(SLOTS, HALF), LEAST)
    design = np.column_stack([np.ones(rainy.size), x[0, rainy].astype(float)])
    wanted = np.linalg.lstsq(design, y[0, rainy], rcond=None)[0]
    assert n_days[0, 180] == 0
    np.testing.assert_allclose(beta[0, 180], wanted, rtol=1e-7)
    assert beta[1, 180].tolist() == pytest.approx([y[1, :5].mean(), 0, 0, 0])
    assert error[1, 180] == pytest.approx(y[1, :5].std(ddof=1))
    assert not beta[2].any()
    assert not error[2].any()


def test_a_seasons_windows_end_with_it() -> None:
    winter = np.flatnonzero(np.isin(DAYS.month, (12, 1, 2)))
    x, y = (a[:, winter].copy() for a in series(n_cells=1))
    n_days = regression.least_squares(x, y, *season(SLOTS[winter], HALF), LEAST)[2]
    assert n_days[0, 59] == (SLOTS[winter] >= 59 - HALF).sum() - (SLOTS[winter] > 300).sum()


# --------------------------------------------------------------------------------------
# Logistic


def wet(x: np.ndarray, slope: float = 1.5, seed: int = 3) -> np.ndarray:
    """Return amounts above 1 with the probability expit(slope x0 - 0.5)."""
    u = np.random.default_rng(seed).random(x.shape[:2])
    return np.where(u < expit(slope * x[..., 0] - 0.5), 5.0, 0.2)


def test_logistic_regression_equals_the_maximum_of_the_likelihood() -> None:
    x, _ = series()
    y = wet(x)
    y[0, 11::13] = np.nan
    beta, _ = regression.logistic(x, y, 1.0, *season(SLOTS, HALF), 1)
    for c, slot in ((0, 0), (0, 200), (1, 59), (1, 365)):
        days = window(slot)
        days = days[~np.isnan(y[c, days])]
        design = np.column_stack([np.ones(days.size), x[c, days].astype(float)])
        sign = np.where(y[c, days] > 1, 1, -1)
        found = minimize(
            lambda b, d=design, s=sign: np.logaddexp(0, -s * (d @ b)).sum(),
            np.zeros(4),
            jac=lambda b, d=design, s=sign: -(d.T @ (s * expit(-s * (d @ b)))),
            method="BFGS",
            options={"gtol": 1e-4},
        )
        np.testing.assert_allclose(beta[c, slot], found.x, atol=2e-4)


def test_the_probability_is_that_of_rain() -> None:
    """A published implementation returned 1 - P: rain where it is dry."""
    x, _ = series(n_cells=1)
    y = wet(x)
    beta, _ = regression.logistic(x, y, 1.0, *season(SLOTS, HALF), 5)
    p = expit(regression.predict(x, beta, SLOTS))[0]
    assert p[y[0] > 1].mean() > p[y[0] < 1].mean() + 0.2
    assert p.mean() == pytest.approx((y > 1).mean(), abs=0.01)
    assert np.corrcoef(p, expit(1.5 * x[0, :, 0] - 0.5))[0, 1] > 0.97


def test_as_many_training_days_exceed_the_cut_as_are_wet() -> None:
    """P > 1/2 instead gives too few wet days wherever rain is rarer than not."""
    x, _ = series(n_cells=1)
    y = wet(x, slope=0.5)
    beta, cut = regression.logistic(x, y, 1.0, *season(SLOTS, HALF), 1)
    for slot in some_slots():
        days = window(slot)
        odds = beta[0, slot, 0] + x[0, days] @ beta[0, slot, 1:]
        assert (odds > cut[0, slot]).sum() == (y[0, days] > 1).sum()


def test_separated_dry_and_wet_windows_stay_finite() -> None:
    x, _ = series(n_cells=3)
    y = np.where(x[..., 0] > 0.2, 5.0, 0.0)
    y[1], y[2] = 0.0, 5.0
    beta, cut = regression.logistic(x, y, 1.0, *season(SLOTS, HALF), 5)
    assert np.isfinite(beta).all()
    assert np.isfinite(cut).all()
    p = expit(regression.predict(x, beta, SLOTS))
    assert ((p[0] > 0.5) == (y[0] > 1)).mean() > 0.98
    assert p[1].max() < 1e-9
    assert p[2].min() > 1 - 1e-9


def test_other_slots_take_the_nearest_model() -> None:
    x, _ = series(n_cells=1)
    beta, cut = regression.logistic(x, wet(x), 1.0, *season(SLOTS, HALF), 5)
    every, _ = regression.logistic(x, wet(x), 1.0, *season(SLOTS, HALF), 1)
    for slot, own in ((100, 100), (102, 100), (103, 105), (365, 365)):
        np.testing.assert_allclose(beta[0, slot], every[0, own], atol=1e-6)
    assert cut[0, 102] == cut[0, 100]


# --------------------------------------------------------------------------------------
# Analogs


def brute(
    x: np.ndarray, y: np.ndarray, target: np.ndarray, slot: int, own: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest days and their distances, by a full sort on distance, then date."""
    days = np.array([d for d in window(slot) if d != own and not np.isnan(y[d])])
    distance = ((x[days].astype(float) - target.astype(float)) ** 2).sum(axis=1)
    nearest = np.lexsort([days, distance])[:k]
    return days[nearest], np.sqrt(distance[nearest])


@pytest.mark.parametrize("kind", ANALOG_KINDS)
def test_analogs_equal_a_full_sort(kind: str) -> None:
    """Predictors of few values: most distances tie, and the earlier day is the nearer."""
    rng = np.random.default_rng(4)
    x = rng.integers(0, 4, (2, len(DAYS), 2)).astype("f4")
    y = np.where(rng.random(x.shape[:2]) < 0.6, rng.normal(2, 1, x.shape[:2]) + x[..., 0], -np.inf)
    y[:, ::11] = np.nan
    chosen = np.array([0, 59, 700, 2000])
    own = np.array([-1, 59, -1, 2000])
    target = x[:, chosen] + np.float32(0.1)
    u = rng.random((2, 4))
    k = 60
    found = regression.analogs(
        x, y, *season(SLOTS, HALF), target, SLOTS[chosen], own, k, ANALOG_KINDS[kind], 10, u
    )
    for c in range(2):
        for t, day in enumerate(chosen):
            days, distance = brute(x[c], y[c], target[c, t], SLOTS[day], own[t], k)
            values = y[c, days]
            rainy = values > -np.inf
            weight = 1 / distance if kind == "weighted" else np.ones(k)
            p, mean, error = (a[c, t] for a in found)
            if kind in ("best", "sample"):
                one = values[0] if kind == "best" else np.sort(values)[int(u[c, t] * k)]
                assert p == (one > -np.inf)
                assert mean == (one if one > -np.inf else 0)
                assert error == 0
                continue
            assert p == pytest.approx(weight[rainy].sum() / weight.sum())
            if kind == "regression":
                design = np.column_stack([np.ones(rainy.sum()), x[c, days[rainy]].astype(float)])
                b, rss, *_ = np.linalg.lstsq(design, values[rainy], rcond=None)
                assert mean == pytest.approx(b[0] + b[1:] @ target[c, t].astype(float))
                assert error == pytest.approx(np.sqrt(rss[0] / (rainy.sum() - 3)), rel=1e-6)
            else:
                wanted = np.average(values[rainy], weights=weight[rainy])
                spread = np.average((values[rainy] - wanted) ** 2, weights=weight[rainy])
                assert mean == pytest.approx(wanted)
                assert error == pytest.approx(np.sqrt(spread))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.data())
def test_the_selected_are_the_least(keys: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(keys)))
    labels = np.array(data.draw(st.permutations(range(len(keys)))))
    key, label = np.array(keys, float), labels.copy()
    regression._select(key, label, len(keys), k)
    wanted = np.lexsort([labels, np.array(keys)])[:k]
    assert sorted(label[:k].tolist()) == sorted(labels[wanted].tolist())


# --------------------------------------------------------------------------------------
# Scales


@pytest.mark.parametrize("transform", ["none", "cube_root", "log", "quantile"])
def test_training_values_have_mean_zero_and_variance_one(transform: str) -> None:
    values = np.random.default_rng(5).gamma(0.5, 3.0, (2, 3000)).astype("f4")
    values[:, ::3] = 0
    values[0, 7] = np.nan
    scaled = Scale.fit(values, transform)(values)
    assert np.isnan(scaled).sum() == 1
    np.testing.assert_allclose(np.nanmean(scaled, axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(np.nanstd(scaled, axis=1), 1, rtol=1e-4)
    order = np.argsort(values[1], kind="stable")
    assert (np.diff(scaled[1, order]) >= 0).all()


def test_other_values_keep_the_scale_of_the_training() -> None:
    values = np.random.default_rng(6).normal(280, 5, (1, 2000)).astype("f4")
    scale = Scale.fit(values, "none")
    shift = scale(values + np.float32(3)) - scale(values)
    np.testing.assert_allclose(shift, 3 / values.std(), rtol=1e-3)


def test_normal_scores_are_normal_and_ties_share_one() -> None:
    values = np.random.default_rng(7).gamma(0.5, 3.0, (1, 2001))
    values[0, :500] = 0
    made = Scale.fit(values, "quantile")
    nodes, scores = made.tables[0]
    assert nodes[0] == 0
    assert scores[0] == pytest.approx(-1.15, abs=0.01)
    assert np.interp(np.median(values), nodes, scores) == pytest.approx(0, abs=2e-3)


def test_a_constant_predictor_is_zero() -> None:
    values = np.full((1, 100), 0.3, "f4")
    assert not Scale.fit(values, "none")(values).any()
