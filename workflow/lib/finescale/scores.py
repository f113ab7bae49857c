"""Scores of a product against a reference, the change signal, and the gates a product must pass.

Everything here is a pure function of arrays. `product` and `reference` lie on the same days and
cells; a free-running GCM has no true days, so for its products only the scores that compare
distributions mean something (`Score.needs_pairs` is False). The same function computes both sorts.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from finescale.errors import ContractError
from finescale.variables import MM_PER_DAY, VARIABLES, Kind

WET_DAY = MM_PER_DAY  # [kg m-2 s-1], the wet day of VALUE and ETCCDI

# Least and greatest legal value of a product, in the units on disk.
VALID_RANGE: Mapping[str, tuple[float, float]] = MappingProxyType(
    {name: variable.legal_range for name, variable in VARIABLES.items()}
)
UNBOUNDED = (-math.inf, math.inf)


@dataclass(frozen=True)
class Score:
    """One score per cell: how it is named, what it applies to and how it is read.

    `units` is "same" for the units of the variable, otherwise the units themselves. `ideal` is
    the value of a perfect product, None where there is none. `needs_pairs`: the score compares
    the same days, and says nothing about a free-running model.
    """

    name: str
    units: str
    long_name: str
    ideal: float | None
    needs_pairs: bool = False
    kinds: str = "+*"
    variables: tuple[str, ...] = ()

    def applies(self, kind: Kind, variable_id: str) -> bool:
        """Tell whether the score is defined for this kind and variable."""
        return kind in self.kinds and (not self.variables or variable_id in self.variables)

    def units_of(self, variable_units: str) -> str:
        """Return the units of the score, given those of the variable."""
        return variable_units if self.units == "same" else self.units


CELL_SCORES: Mapping[str, Score] = MappingProxyType(
    {
        score.name: score
        for score in (
            Score("mean", "same", "mean of the product", None),
            Score("reference_mean", "same", "mean of the reference", None),
            Score("bias", "same", "mean of product minus reference", 0.0),
            Score("relative_bias", "1", "bias divided by the reference mean", 0.0, kinds="*"),
            Score("rmse", "same", "root mean square error of days", 0.0, needs_pairs=True),
            Score("correlation", "1", "Pearson correlation of days", 1.0, needs_pairs=True),
            Score(
                "seasonal_correlation",
                "1",
                "Pearson correlation of monthly means",
                1.0,
                needs_pairs=True,
            ),
            Score("std_ratio", "1", "standard deviation, product over reference", 1.0),
            Score("p1_bias", "same", "bias of the 1st percentile of days", 0.0),
            Score("p99_bias", "same", "bias of the 99th percentile of days", 0.0),
            Score(
                "wet_day_ratio",
                "1",
                "number of wet days, product over reference",
                1.0,
                kinds="*",
                variables=("pr",),
            ),
            Score(
                "wet_spell_ratio",
                "1",
                "mean length of wet spells, product over reference",
                1.0,
                kinds="*",
                variables=("pr",),
            ),
            Score(
                "dry_spell_ratio",
                "1",
                "mean length of dry spells, product over reference",
                1.0,
                kinds="*",
                variables=("pr",),
            ),
            Score("n_days", "1", "days with both a product and a reference value", None),
        )
    }
)
PATTERN = Score(
    "pattern_correlation", "1", "correlation over cells, mean of days", 1.0, needs_pairs=True
)
SCORES: Mapping[str, Score] = MappingProxyType({**CELL_SCORES, PATTERN.name: PATTERN})
"""Those of cells and that of whole fields."""
MOMENTS = ("area", "product", "reference", "product^2", "reference^2", "product x reference")
"""Sums over cells, weighted by area, that a pattern correlation is made of."""

_STATISTICS = (
    "n_days",
    "mean",
    "reference_mean",
    "mean_square_error",
    "correlation",
    "seasonal_correlation",
    "variation",
    "reference_variation",
    "p1",
    "reference_p1",
    "p99",
    "reference_p99",
    "wet_days",
    "reference_wet_days",
    "wet_spells",
    "reference_wet_spells",
    "dry_spells",
    "reference_dry_spells",
)
_N_STATISTICS = len(_STATISTICS)


@njit(nogil=True, cache=True)
def _moments(x: Any, y: Any) -> Any:
    """Return both means, both root sums of squares about them, and the correlation."""
    n = x.size
    mean_x, mean_y, big_x, big_y = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        mean_x += x[i]
        mean_y += y[i]
        big_x = max(big_x, abs(x[i]))
        big_y = max(big_y, abs(y[i]))
    mean_x /= n
    mean_y /= n
    sxx, syy, sxy = 0.0, 0.0, 0.0
    for i in range(n):
        dx, dy = x[i] - mean_x, y[i] - mean_y
        sxx += dx * dx
        syy += dy * dy
        sxy += dx * dy
    # The mean of equal values is off by rounding, which must not pass for variability;
    # float32 data cannot vary by less than 6e-8 of their size.
    if sxx <= n * (1e-12 * big_x) ** 2:
        sxx = 0.0
    if syy <= n * (1e-12 * big_y) ** 2:
        syy = 0.0
    correlation = np.nan
    if sxx > 0.0 and syy > 0.0:
        correlation = min(1.0, max(-1.0, sxy / (np.sqrt(sxx) * np.sqrt(syy))))
    return mean_x, mean_y, np.sqrt(sxx), np.sqrt(syy), correlation


@njit(nogil=True, cache=True)
def _extremes(values: Any) -> Any:
    """Return the 1st and 99th percentile, linear between order statistics (type 7).

    Only the tails are sorted: a partition leaves them in place in linear time.
    """
    low, high = 0.01 * (values.size - 1), 0.99 * (values.size - 1)
    last = min(int(low) + 1, values.size - 1)
    below = np.sort(np.partition(values, last)[: last + 1])
    above = np.sort(np.partition(values, int(high))[int(high) :])
    p1 = below[int(low)] + (low - int(low)) * (below[-1] - below[int(low)])
    next_above = above[min(1, above.size - 1)]
    return p1, above[0] + (high - int(high)) * (next_above - above[0])


@njit(nogil=True, cache=True)
def _statistics(
    product: Any, reference: Any, group: Any, n_groups: int, follows: Any, wet: float
) -> Any:
    """Return the `_STATISTICS` of each cell over the days on which both series have a value."""
    n_time, n_cell = product.shape
    out = np.full((n_cell, _N_STATISTICS), np.nan)
    x, y = np.empty(n_time), np.empty(n_time)
    month_x, month_y = np.empty(n_groups), np.empty(n_groups)
    month_n = np.empty(n_groups)
    for cell in range(n_cell):
        month_x[:], month_y[:], month_n[:] = 0.0, 0.0, 0.0
        n, square, last = 0, 0.0, -2
        wet_x, wet_y, was_x, was_y = 0, 0, 0, 0
        wets_x, wets_y, dries_x, dries_y = 0, 0, 0, 0
        for time in range(n_time):
            # numba's float() would leave a float32 as it is
            a, b = np.float64(product[time, cell]), np.float64(reference[time, cell])
            if np.isnan(a) or np.isnan(b):
                continue
            x[n], y[n] = a, b
            n += 1
            square += (a - b) * (a - b)
            is_x, is_y = int(a >= wet), int(b >= wet)
            begins = last != time - 1 or not follows[time]
            if begins or is_x != was_x:
                wets_x += is_x
                dries_x += 1 - is_x
            if begins or is_y != was_y:
                wets_y += is_y
                dries_y += 1 - is_y
            last, was_x, was_y = time, is_x, is_y
            wet_x += is_x
            wet_y += is_y
            month_x[group[time]] += a
            month_y[group[time]] += b
            month_n[group[time]] += 1.0
        out[cell, 0] = n
        if n == 0:
            continue
        mean_x, mean_y, root_x, root_y, correlation = _moments(x[:n], y[:n])
        seen = month_n > 0.0
        monthly = _moments(month_x[seen] / month_n[seen], month_y[seen] / month_n[seen])[4]
        out[cell, 1], out[cell, 2], out[cell, 3] = mean_x, mean_y, square / n
        out[cell, 4], out[cell, 5] = correlation, monthly
        out[cell, 6], out[cell, 7] = root_x, root_y
        out[cell, 8], out[cell, 10] = _extremes(x[:n])
        out[cell, 9], out[cell, 11] = _extremes(y[:n])
        out[cell, 12], out[cell, 13] = wet_x, wet_y
        out[cell, 14], out[cell, 15] = wets_x, wets_y
        out[cell, 16], out[cell, 17] = dries_x, dries_y
    return out


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    """Return `above / below`, NaN where `below` is not positive."""
    quotient = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=quotient, where=below > 0.0)
    return quotient


def cell_scores(
    product: NDArray[np.floating],
    reference: NDArray[np.floating],
    *,
    months: NDArray[np.integer],
    season_year: NDArray[np.integer],
    follows: NDArray[np.bool_],
    kind: Kind,
    variable_id: str,
    wet_threshold: float = WET_DAY,
) -> dict[str, NDArray[np.float64]]:
    """Return the scores of each cell, by name, in the order of `CELL_SCORES`.

    Only days on which both series have a value count; a cell without any has `n_days` 0 and NaN
    elsewhere, and a score whose denominator is 0 is NaN. A cell's scores do not depend, to the
    bit, on the cells beside it.

    Parameters
    ----------
    product, reference : (time, cell)
        Daily values on the same days [units of the variable].
    months, season_year : (time,)
        Calendar month and year of each day; a (year, month) pair makes one monthly mean, over
        the days both series have.
    follows : (time,)
        Whether the row before is the day before: a spell ends where it is not, and where either
        series lacks a day.
    kind, variable_id
        Choose the scores (`Score.applies`).
    wet_threshold
        Least value of a wet day [units of the variable].

    Returns
    -------
    dict of (cell,) float64
        Percentiles are linear between order statistics (type 7).

    Raises
    ------
    ContractError
        If the arrays do not lie on the same days and cells.
    """
    if product.ndim != 2 or product.shape != reference.shape:
        raise ContractError(
            f"scores: product and reference must be (time, cell) on the same days, found shapes "
            f"{product.shape} and {reference.shape}; align them by date first"
        )
    if not len(months) == len(season_year) == len(follows) == len(product):
        raise ContractError(
            "scores: months, season_year and follows need one entry for each of "
            f"{len(product)} days, found {len(months)}, {len(season_year)} and {len(follows)}"
        )
    month_of_axis = np.asarray(season_year, np.int64) * 12 + np.asarray(months, np.int64)
    kept, group = np.unique(month_of_axis, return_inverse=True)
    # 1 mm/day is no float32 in kg m-2 s-1, and packed observations hold it exactly: without the
    # millionth, rounding would decide which of those days are wet.
    wet = wet_threshold * (1.0 - 1e-6)
    table = _statistics(
        np.ascontiguousarray(product), np.ascontiguousarray(reference), group, kept.size,
        np.asarray(follows), wet,
    )  # fmt: skip
    of = dict(zip(_STATISTICS, table.T, strict=True))
    bias = of["mean"] - of["reference_mean"]

    def mean_length(whose: str, sort: str) -> NDArray[np.float64]:
        wet_days = of[f"{whose}wet_days"]
        days = wet_days if sort == "wet" else of["n_days"] - wet_days
        return _ratio(days, of[f"{whose}{sort}_spells"])

    scores = {
        "mean": of["mean"],
        "reference_mean": of["reference_mean"],
        "bias": bias,
        "relative_bias": _ratio(bias, of["reference_mean"]),
        "rmse": np.sqrt(of["mean_square_error"]),
        "correlation": of["correlation"],
        "seasonal_correlation": of["seasonal_correlation"],
        "std_ratio": _ratio(of["variation"], of["reference_variation"]),
        "p1_bias": of["p1"] - of["reference_p1"],
        "p99_bias": of["p99"] - of["reference_p99"],
        "wet_day_ratio": _ratio(of["wet_days"], of["reference_wet_days"]),
        **{
            f"{sort}_spell_ratio": _ratio(mean_length("", sort), mean_length("reference_", sort))
            for sort in ("wet", "dry")
        },
        "n_days": of["n_days"],
    }
    return {
        name: np.ascontiguousarray(scores[name])
        for name, score in CELL_SCORES.items()
        if score.applies(kind, variable_id)
    }


@njit(nogil=True, cache=True)
def _month_sums(values: Any, months: Any, sums: Any, count: Any) -> None:
    for time in range(values.shape[0]):
        month = months[time] - 1
        for cell in range(values.shape[1]):
            value = np.float64(values[time, cell])
            if not np.isnan(value):
                sums[month, cell] += value
                count[month, cell] += 1


def monthly_means(values: NDArray[np.floating], months: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the (12, cell) mean over all days of each calendar month, NaN where there is none.

    `values` is (time, cell), `months` (time,) from 1 to 12; NaN days do not count.
    """
    sums = np.zeros((12, values.shape[1]))
    count = np.zeros((12, values.shape[1]), np.int64)
    _month_sums(np.ascontiguousarray(values), np.asarray(months, np.int64), sums, count)
    return _ratio(sums, count)


@njit(nogil=True, cache=True)
def _departure(value: float, base: float) -> float:
    """Return `value - base`, 0 where it is the rounding of a mean; float32 data depart by more."""
    departure = value - base
    return 0.0 if abs(departure) < 1e-10 * abs(base) else departure


@njit(nogil=True, cache=True)
def _pattern_moments(x: Any, y: Any, base_x: Any, base_y: Any, months: Any, area: Any) -> Any:
    """Return the moments of departures from (12, cell) bases, over the cells with both."""
    out = np.zeros((6, x.shape[0]))
    for time in range(x.shape[0]):
        month = months[time] - 1
        for cell in range(x.shape[1]):
            a, b = np.float64(x[time, cell]), np.float64(y[time, cell])
            if np.isnan(a) or np.isnan(b):
                continue
            dx, dy = _departure(a, base_x[month, cell]), _departure(b, base_y[month, cell])
            weight = area[cell]
            out[0, time] += weight
            out[1, time] += weight * dx
            out[2, time] += weight * dy
            out[3, time] += weight * dx * dx
            out[4, time] += weight * dy * dy
            out[5, time] += weight * dx * dy
    return out


def pattern_moments(
    product: NDArray[np.floating],
    reference: NDArray[np.floating],
    *,
    months: NDArray[np.integer],
    area: NDArray[np.float64],
    kind: Kind,
) -> NDArray[np.float64]:
    """Return the `MOMENTS` of each day over the cells where both have a value, (moment, time).

    Those of tiles add up to those of the field. For `kind "+"` they are of departures from each
    series' own mean of the calendar month, so that neither relief nor season count; for `"*"` of
    the values, since all dry days depart from their mean by the same pattern.

    Parameters
    ----------
    product, reference : (time, cell)
        Daily values on the same days [units of the variable].
    months : (time,)
        Calendar month of each day.
    area : (cell,)
        Weights.
    """
    missing = np.isnan(product) | np.isnan(reference)
    x, y = (np.where(missing, np.float32(np.nan), values) for values in (product, reference))
    base_x, base_y = (
        monthly_means(v, months) if kind == "+" else np.zeros((12, len(area))) for v in (x, y)
    )
    return np.asarray(_pattern_moments(x, y, base_x, base_y, np.asarray(months, np.int64), area))


def pattern_correlation(moments: NDArray[np.float64]) -> float:
    """Return the correlation over cells of product and reference, mean over days.

    `moments` are those of the field, (moment, time). Days on which the reference is the same
    everywhere, such as days without rain, do not count; where only the product is, it is 0.

    References
    ----------
    The centred pattern correlation of Taylor (2001), doi:10.1029/2000JD900719, of each day.
    """
    x, y, xx, yy, xy = (_ratio(moment, moments[0]) for moment in moments[1:])
    # A uniform field keeps a spread by rounding, which must not pass for a pattern.
    spread = [np.where(s - m * m > 1e-12 * s, s - m * m, 0.0) for m, s in ((x, xx), (y, yy))]
    size = np.sqrt(spread[0] * spread[1])
    each = np.where(size > 0.0, _ratio(xy - x * y, size), 0.0)
    counted = spread[1] > 0.0
    return float(each[counted].mean()) if counted.any() else np.nan


def change_signal(
    hist: NDArray[np.float64], scen: NDArray[np.float64], *, kind: Kind, floor: float = 0.0
) -> NDArray[np.float64]:
    """Return the change from `hist` to `scen`: their difference, or their ratio less 1.

    Both are climatologies of one shape, such as (12, cell). For `kind "*"` the change is NaN
    where `hist` is not above `floor` [units of the variable]: a month without rain has no ratio.
    """
    if kind == "+":
        return scen - hist
    return np.where(hist > floor, _ratio(scen, hist) - 1.0, np.nan)


def change(
    product_hist: NDArray[np.float64],
    product_scen: NDArray[np.float64],
    gcm_hist: NDArray[np.float64],
    gcm_scen: NDArray[np.float64],
    *,
    kind: Kind,
    floor: float = 0.0,
) -> dict[str, NDArray[np.float64]]:
    """Return `product_change`, `gcm_change` and their difference `change_error`.

    The four climatologies are (12, cell) from `monthly_means`, the GCM's regridded to the cells
    of the product; changes as in `change_signal` ([units of the variable] or [1]).
    """
    of_product = change_signal(product_hist, product_scen, kind=kind, floor=floor)
    of_gcm = change_signal(gcm_hist, gcm_scen, kind=kind, floor=floor)
    return {
        "product_change": of_product,
        "gcm_change": of_gcm,
        "change_error": of_product - of_gcm,
    }


def area_mean(values: NDArray[np.float64], area: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis weighted by `area` (cell,); NaN cells do not count."""
    weight = np.where(np.isnan(values), 0.0, area)
    weighted = np.sum(np.where(np.isnan(values), 0.0, values) * weight, axis=-1)
    return _ratio(weighted, np.sum(weight, axis=-1))


def pooled_rmse(
    rmse: NDArray[np.float64], n_days: NDArray[np.float64], area: NDArray[np.float64]
) -> float:
    """Return the RMSE over all days of all cells, each day of a cell weighted by its area.

    sqrt(sum w rmse^2 / sum w) with w = n_days x area; the mean of the cells' RMSE would be less.
    """
    return float(np.sqrt(area_mean(rmse**2, area * n_days)))


def area_scores(
    scores: Mapping[str, NDArray[np.float64]], area: NDArray[np.float64]
) -> dict[str, float]:
    """Return each of the `cell_scores` for the region: area-weighted means, the RMSE pooled.

    Cells without a common day, such as sea, do not count, nor does their `n_days` of 0.
    """
    land = np.where(scores["n_days"] > 0, area, 0.0)
    return {
        name: pooled_rmse(values, scores["n_days"], land)
        if name == "rmse"
        else float(area_mean(values, land))
        for name, values in scores.items()
    }


def valid_range(variable_id: str) -> tuple[float, float]:
    """Return the legal (least, greatest) value of a variable, infinite where nothing is known."""
    return VALID_RANGE.get(variable_id, UNBOUNDED)


def _count(flags: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(flags))


def invariants(
    values: NDArray[np.floating],
    *,
    variable_id: str,
    mask: NDArray[np.bool_] | None = None,
    tasmin: NDArray[np.floating] | None = None,
    tasmax: NDArray[np.floating] | None = None,
) -> dict[str, int]:
    """Return how many values of a block break the rules every product must keep.

    Parameters
    ----------
    values : (time, cell)
        Daily values [units on disk].
    mask : (cell,) bool
        True where the product must have values and False where it must have none; without it
        every cell must.
    tasmin, tasmax : (time, cell)
        The daily extremes that belong to `values`: give `tasmax` with `tasmin`, both with `tas`.

    Returns
    -------
    dict of int
        `n_values`; `n_nan`; `n_missing` and `n_stray`, NaN inside and values outside the mask;
        `n_below` and `n_above` the `VALID_RANGE`, infinities included; where the extremes are
        given, `n_tasmin_above_tasmax` or, for `tas`, `n_tas_outside_extremes`. Add up the counts
        of blocks with `total_counts`.
    """
    least, greatest = valid_range(variable_id)
    is_nan = np.isnan(values)
    expected = np.ones(values.shape[1], bool) if mask is None else mask
    counts = {
        "n_values": values.size,
        "n_nan": _count(is_nan),
        "n_missing": _count(is_nan & expected),
        "n_stray": _count(~is_nan & ~expected),
        # The limits are rounded to the type of the data, so that data clipped at a limit pass.
        "n_below": _count((values < least) | np.isneginf(values)),
        "n_above": _count((values > greatest) | np.isposinf(values)),
    }
    if variable_id == "tasmin" and tasmax is not None:
        counts["n_tasmin_above_tasmax"] = _count(values > tasmax)
    if variable_id == "tas" and tasmin is not None and tasmax is not None:
        outside = (values < tasmin) | (values > tasmax)
        counts["n_tas_outside_extremes"] = _count(outside)
    return counts


def total_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums, by name, of the `invariants` of several blocks."""
    sums: dict[str, int] = {}
    for block in counts:
        for name, count in block.items():
            sums[name] = sums.get(name, 0) + count
    return sums


@dataclass(frozen=True)
class Gate:
    """One verdict on a product: what was measured and what was allowed."""

    gate: str
    value: float
    limit: float
    passed: bool
    waived: bool = False

    @property
    def stops(self) -> bool:
        """Tell whether the run has to fail: the gate is shut and nobody waived it."""
        return not (self.passed or self.waived)


# `n_tas_outside_extremes` is reported but is no gate: the methods adjust tas by itself.
_GATED_COUNTS = MappingProxyType(
    {
        "n_missing": "missing_values",
        "n_stray": "values_outside_mask",
        "n_below": "below_range",
        "n_above": "above_range",
        "n_tasmin_above_tasmax": "tasmin_above_tasmax",
    }
)
GATES = (*_GATED_COUNTS.values(), "time_steps", "trend_distortion")


def gates(
    counts: Mapping[str, int],
    *,
    n_time: int,
    n_time_expected: int,
    trend_distortion: float | None = None,
    trend_limit: float | None = None,
    waived: Collection[str] = (),
) -> list[Gate]:
    """Return the verdicts on one product, in the order of `GATES`.

    `counts` come from `invariants` and must be 0; `trend_distortion` (trend of the product less
    that of the regridded GCM, any units) is judged by its size where a `trend_limit` is set, and
    NaN does not pass. `waived` names gates that may be shut without failing the run.
    """
    verdicts = [
        (gate, float(counts[name]), 0.0, counts[name] == 0)
        for name, gate in _GATED_COUNTS.items()
        if name in counts
    ]
    verdicts.append(
        ("time_steps", float(n_time), float(n_time_expected), n_time == n_time_expected)
    )
    if trend_limit is not None:
        distortion = np.nan if trend_distortion is None else trend_distortion
        passed = bool(abs(distortion) <= trend_limit)
        verdicts.append(("trend_distortion", distortion, trend_limit, passed))
    return [Gate(*verdict, waived=verdict[0] in waived) for verdict in verdicts]
