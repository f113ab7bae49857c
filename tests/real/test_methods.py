"""What each method makes of the same Iberian data, computed here from committed stores."""

import csv
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from real.iberia import Open, observed, pooled_rmse, products, run_example, scored, weights

SCORED = slice("2001-01-01", "2010-11-25")
METHODS = ("interpolate", "bcsd", "qplad", "maca", "gard", "gard-noise")
DRIVER = {"tas": "NCEP-R1", "pr": "NCEP-R1", "tasmax": "EOBS-PM", "tasmin": "EOBS-PM"}

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the results of the example that runs every method."""
    folder = tmp_path_factory.mktemp("methods")
    run_example("iberia-methods", folder)
    return folder / "results/iberia-methods"


@pytest.fixture(scope="module")
def product(results: Path) -> Open:
    """Return a function that opens the one committed product with these facets."""
    return products(results)


def both(product: Open, method: str, name: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Return a product and the observations, (time, lat, lon) on the days that are scored."""
    ds = product(method=method, source_id=DRIVER[name], variable_id=name)
    made = scored(ds, name, SCORED)
    return made, observed(name, SCORED).assign_coords(lat=made.lat, lon=made.lon)


def mean(values: xr.DataArray) -> float:
    return float(values.weighted(weights(values)).mean())


def wet_day_ratio(made: xr.DataArray, truth: xr.DataArray) -> float:
    wet = [(a >= 1 - 1e-6).sum("time").where(truth.notnull().any("time")) for a in (made, truth)]
    return mean(wet[0] / wet[1])


def test_regression_on_a_reanalysis_has_daily_skill_in_temperature(product: Open) -> None:
    """1.35 K; monthly quantile mapping has 1.69 K, a mean correction of months 1.67 K."""
    assert pooled_rmse(*both(product, "gard", "tas")) <= 1.40


def test_regression_has_daily_skill_in_rain_and_the_right_wet_days(product: Open) -> None:
    """3.43 mm/day and 0.63; bilinear interpolation has 3.65 mm/day and 0.59."""
    made, truth = both(product, "gard", "pr")
    assert pooled_rmse(made, truth) <= 3.5
    assert mean(xr.corr(made, truth, "time")) >= 0.61
    assert 0.95 <= wet_day_ratio(made, truth) <= 1.05


def test_an_expected_value_lacks_the_variance_that_noise_restores(product: Open) -> None:
    """The mean has 0.82 of the standard deviation of rain; a member has it, and less skill."""
    ratio = {}
    for method in ("gard", "gard-noise"):
        made, truth = both(product, method, "pr")
        ratio[method] = mean(made.std("time") / truth.std("time"))
        assert 0.95 <= wet_day_ratio(made, truth) <= 1.05
    assert ratio["gard"] <= 0.85
    assert ratio["gard-noise"] == pytest.approx(0.98, abs=0.05)


@pytest.mark.parametrize(("name", "rmse"), [("tasmax", 1.10), ("tasmin", 0.97)])
def test_regression_beats_interpolation_of_a_perfect_model(
    name: str, rmse: float, product: Open
) -> None:
    """The limits are those of bilinear interpolation with a monthly climatology."""
    assert pooled_rmse(*both(product, "gard", name)) <= rmse - 0.03


@pytest.mark.parametrize("method", METHODS[1:])
def test_every_method_is_better_than_the_raw_model_for_temperature(
    method: str, product: Open
) -> None:
    """3.77 K interpolated, 2.94 K by climatology, at most 1.97 K by a method (QPLAD)."""
    assert pooled_rmse(*both(product, method, "tas")) <= 2.0


def change(product: Open, method: str, name: str) -> float:
    """Return the change of the mean over land and all winter days, [K] or [1]."""
    past, future = (
        mean(
            product(
                method=method, source_id="CNRM-CM5", variable_id=name, experiment_id=experiment
            )[name]
            .load()
            .mean("time")
        )
        for experiment in ("historical", "rcp85")
    )
    return future - past if name == "tas" else future / past - 1


@pytest.mark.parametrize("method", METHODS[1:])
def test_every_method_keeps_the_warming_of_its_model(method: str, product: Open) -> None:
    assert change(product, "interpolate", "tas") == pytest.approx(3.26, abs=0.02)
    assert change(product, method, "tas") == pytest.approx(3.26, abs=0.10)


def test_qplad_keeps_the_change_of_mean_rain(product: Open) -> None:
    """-9.1 % of the model's -8.9 %; QDM alone, without the factor of the mean, has -4.8 %."""
    kept, model = (100 * change(product, name, "pr") for name in ("qplad", "interpolate"))
    assert model == pytest.approx(-8.9, abs=0.1)
    assert abs(kept - model) <= 1.0


@pytest.mark.parametrize(
    ("method", "percent"), [("bcsd", -7.4), ("maca", -4.8), ("gard", -6.6), ("gard-noise", -5.6)]
)
def test_no_other_method_keeps_the_change_of_mean_rain(
    method: str, percent: float, product: Open
) -> None:
    """The model has -8.9 %: light rain it has too often lessens, heavy rain grows.

    Methods that keep the ratio of each quantile weigh these ratios by observed amounts, in which
    light rain counts less (docs/methods/comparison.md). An upward change would be an error.
    """
    assert 100 * change(product, method, "pr") == pytest.approx(percent, abs=0.3)


def row(results: Path, method: str, name: str) -> dict[str, float]:
    """Return the scores of a product against EOBS-v16."""
    facets = {"source_id": DRIVER[name], "variable_id": name, "method": method}
    with open(results / "scores.csv") as file:
        (found,) = [r for r in csv.DictReader(file) if all(r[k] == v for k, v in facets.items())]
    wanted = ("wet_spell_ratio", "dry_spell_ratio", "pattern_correlation")
    return {score: float(found[score]) for score in wanted}


def spell_length(is_it: NDArray[np.bool_]) -> float:
    """Return the mean length of the spells of a whole series."""
    return float(is_it.sum() / (is_it[0] + (is_it[1:] & ~is_it[:-1]).sum()))


def test_the_scorecard_has_these_spells_and_patterns(results: Path, product: Open) -> None:
    made, truth = both(product, "gard", "pr")
    land = truth.notnull().all("time").values
    area = np.broadcast_to(weights(truth).values[:, None], land.shape)[land]
    x, y = made.values[:, land], truth.values[:, land]
    found = row(results, "gard", "pr")
    wet = [v >= 1 - 1e-6 for v in (x, y)]
    for name, series in (("wet", wet), ("dry", [~w for w in wet])):
        lengths = [[spell_length(s) for s in whose.T] for whose in series]
        expected = np.average(np.divide(*lengths), weights=area)
        assert found[f"{name}_spell_ratio"] == pytest.approx(expected, rel=1e-3)
    each = []
    for day in np.flatnonzero(np.ptp(y, axis=1) > 0):
        covariance = np.cov(x[day], y[day], aweights=area)
        size = np.sqrt(covariance[0, 0] * covariance[1, 1])
        each.append(covariance[0, 1] / size if size > 0 else 0.0)
    assert found["pattern_correlation"] == pytest.approx(np.mean(each), abs=2e-3)
