"""Quantile mapping against a brute force, the identity, the shift and the signal, and xsdba."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import optimize, stats

from finescale.calendars import Days, n_slots, season_year, slots
from finescale.errors import ConfigError, ContractError
from finescale.jitter import jitter_dry, restore_dry, uniform
from finescale.quantiles import quantile_map

Series = NDArray[Any]

POSITIONS = ["weibull", "cunnane", "hazen", "type7"]
TAILS = ["constant", "linear", "parametric"]
KINDS = ["+", "*"]
METHODS = ["qm", "dqm", "qdm"]
# (a, b) of (i - a)/(n + b), written down apart from the library's table.
AB = {"weibull": (0, 1), "cunnane": (0.4, 0.2), "hazen": (0.5, 0), "type7": (1, -1)}

few_examples = settings(max_examples=40, deadline=None)


# --- the brute force -------------------------------------------------------------------------


def brute_window(existing: list[int], slot: int, half: int, n: int) -> list[int]:
    """Slots of the window: walk out from the centre until a gap of more than one slot."""
    centre = max((s for s in existing if s <= slot), default=existing[-1])
    chosen = {centre}
    for direction in (1, -1):
        at, steps = centre, 0
        while steps < half and len(chosen) < len(existing):
            ahead = [(at + direction * k) % n for k in (1, 2)]
            found = [s for s in ahead if s in existing]
            if not found:
                break
            at, steps = found[0], steps + 1
            chosen.add(at)
    return sorted(chosen)


def brute_weibull_shape(sample: Series) -> float:
    """Moment fit through scipy's own moments of the distribution."""
    wanted = np.log(sample.std() / sample.mean())

    def excess(log_k: float) -> float:
        mean, variance = stats.weibull_min.stats(np.exp(log_k), moments="mv")
        return float(0.5 * np.log(variance) - np.log(mean) - wanted)

    return float(np.exp(optimize.brentq(excess, np.log(0.1), np.log(500), xtol=1e-13)))


def brute_tail(
    x: Series, x0: float, y0: float, ref: Series, hist: Series, *, upper: bool, options: Any
) -> Series:
    """The three tails, with scipy's distributions moved to meet the node, no algebra."""
    is_ratio, floor = options["kind"] == "*", options.get("wet_threshold", 0.0)
    a, b = AB[options["positions"]]
    if options["tails"] == "linear":
        slopes = []
        for nodes in (ref, hist):
            p = (np.arange(1, nodes.size + 1) - a) / (nodes.size + b)
            end = slice(-10, None) if upper else slice(10)
            slopes.append(np.polyfit(p[end], nodes[end], 1)[0])
        if min(slopes) > 1e-9:
            return y0 + slopes[0] / slopes[1] * (x - x0)
    if options["tails"] == "parametric":
        r, h = (v[v > floor] if is_ratio else v for v in (ref, hist))
        if min(r.size, h.size) >= 10 and min(r.std(), h.std()) > 1e-9:
            # The curves meet at any common probability: 0.3 stands for the node's.
            if is_ratio and not upper:
                if x0 > 0:
                    k_r, k_h = brute_weibull_shape(r), brute_weibull_shape(h)
                    unit_r, unit_h = stats.weibull_min(k_r), stats.weibull_min(k_h)
                    p = unit_h.cdf(x / x0 * unit_h.ppf(0.3))
                    return y0 * unit_r.ppf(p) / unit_r.ppf(0.3)
            else:
                family = stats.gumbel_r if is_ratio else stats.norm
                to = np.sqrt(6) / np.pi if is_ratio else 1.0
                loc_h = x0 - family.isf(0.3, scale=h.std() * to)
                loc_r = y0 - family.isf(0.3, scale=r.std() * to)
                # The far end of either tail needs its own side of the distribution.
                if upper:
                    p = family.logsf(x, loc_h, h.std() * to)
                    return family.isf(np.exp(p), loc_r, r.std() * to)
                p = family.logcdf(x, loc_h, h.std() * to)
                return family.ppf(np.exp(p), loc_r, r.std() * to)
    if is_ratio and x0 > (floor if upper else 0):
        return y0 * x / x0
    return y0 + x - x0


def brute_map(ref: Series, hist: Series, x: Series, options: Any) -> Series:
    """QM of one window: nodes by a fresh sort, lines by np.interp."""
    ref, hist = np.sort(ref[~np.isnan(ref)]), np.sort(hist[~np.isnan(hist)])
    if min(ref.size, hist.size) < 2:
        return np.full(x.shape, np.nan)
    a, b = AB[options["positions"]]
    p_ref = (np.arange(1, ref.size + 1) - a) / (ref.size + b)
    p_hist = (stats.rankdata(hist) - a) / (hist.size + b)

    def tau(v: float) -> float:
        if v in hist:
            return float(p_hist[hist == v][0])
        i = int((hist < v).sum())
        weight = (v - hist[i - 1]) / (hist[i] - hist[i - 1])
        return float((i + weight - a) / (hist.size + b))

    y = np.full(x.shape, np.nan)
    inside = (x >= hist[0]) & (x <= hist[-1])
    y[inside] = np.interp([tau(v) for v in x[inside]], p_ref, ref)
    for beyond, end in ((x < hist[0], 0), (x > hist[-1], -1)):
        if beyond.any():
            y0 = float(np.interp(p_hist[end], p_ref, ref))
            y[beyond] = brute_tail(
                x[beyond], hist[end], y0, ref, hist, upper=end == -1, options=options
            )
    return np.maximum(y, 0) if options["kind"] == "*" else y


def brute_quantile(tau: float, nodes: Series, options: Any) -> float:
    """F^-1 by np.interp, and beyond the ends by scipy's distributions moved to meet the node."""
    a, b = AB[options["positions"]]
    nodes = np.sort(nodes[~np.isnan(nodes)])
    p = (np.arange(1, nodes.size + 1) - a) / (nodes.size + b)
    upper, is_ratio = tau > p[-1], options["kind"] == "*"
    y, end = float(np.interp(tau, p, nodes)), p[-1] if upper else p[0]
    if p[0] <= tau <= p[-1] or options["tails"] == "constant":
        return y
    if options["tails"] == "linear":
        last = slice(-10, None) if upper else slice(10)
        return y + float(np.polyfit(p[last], nodes[last], 1)[0]) * (tau - end)
    sample = nodes[nodes > options["wet_threshold"]] if is_ratio else nodes
    if is_ratio and not upper:
        unit = stats.weibull_min(brute_weibull_shape(sample))
        return y * float(unit.ppf(tau) / unit.ppf(end))
    unit = stats.gumbel_r(0, sample.std() * np.sqrt(6) / np.pi) if is_ratio else None
    unit = unit or stats.norm(0, sample.std())
    return y + float(unit.ppf(tau) - unit.ppf(end))


def three_years(years: Series, year: int) -> Series:
    """The window of three years of the run before or after 2045, moved until it fits."""
    run = years[(years < 2045) == (year < 2045)]
    centre = min(max(year, run.min() + 1), run.max() - 1)
    return run[abs(run - centre) <= 1]


def brute_change(x: float, ref: Series, hist: Series, own: Series, options: Any) -> float:
    """DQM or QDM of one value, from the samples of its windows."""
    is_ratio = options["kind"] == "*"

    def ratio(x: float, base: float) -> float:
        found = x / max(base, options["trace"] / 2)
        return min(found, options["max_ratio"]) if base < 10 * options["trace"] else found

    if options["method"] == "dqm":
        mean, trained = float(np.nanmean(own)), float(np.nanmean(hist))
        change = ratio(mean, trained) if is_ratio else mean - trained
        inner = np.array([x / change if is_ratio else x - change])
        y = float(brute_map(ref, hist, inner, options)[0])
        return y * change if is_ratio else y + change
    a, b = AB[options["positions"]]
    own = own[~np.isnan(own)]
    tau = (float(stats.rankdata(own)[own == x][0]) - a) / (own.size + b)
    y, base = (brute_quantile(tau, nodes, options) for nodes in (ref, hist))
    return max(y * ratio(x, base), 0) if is_ratio else y + x - base


# --- data ------------------------------------------------------------------------------------


def days(first: int, years: int, calendar: str, season: str | None) -> Days:
    """Whole years, or their winters."""
    last = 30 if calendar == "360_day" else 31
    axis = Days.range(f"{first}-01-01", f"{first + years - 1}-12-{last}", calendar)
    return axis[np.isin(axis.month, (12, 1, 2))] if season else axis


def draw(kind: str, shape: tuple[int, int], seed: int, bias: float) -> Series:
    """Two cells: smooth numbers, and numbers with ties (for "*" half of them 0); NaN in both."""
    rng = np.random.default_rng(seed)
    if kind == "+":
        values = 280 + bias + (3 + bias) * rng.standard_normal(shape)
    else:
        values = (4 + bias) * rng.gamma(1 + 0.1 * bias, 1, shape)
    values[1] = np.round(values[1] - (0 if kind == "+" else 3), 1)
    values[rng.random(shape) < 0.02] = np.nan
    return values if kind == "+" else np.maximum(values, 0)


AXES = [
    ("noleap", None),
    ("standard", None),
    ("360_day", None),
    ("noleap", "DJF"),
    ("360_day", "DJF"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("calendar", "season"), AXES)
def test_every_window_equals_a_brute_force(calendar: str, season: str | None, kind: str) -> None:
    ref_days = days(1991, 5, "standard", season)
    hist_days = days(1990, 4, calendar, season)
    sim_days = days(2050, 2, calendar, season)
    ref_slots, hist_slots = slots(ref_days), slots(hist_days)
    # Runs and jumps: the window must move by any step, also over the turn of the year.
    wanted = [0, 1, 2, 30, 57, 58, 59, 60, 140, 200, 201, 300, 335, 358, 359, 364, 365]
    sim_slots = slots(sim_days)
    sim_slots = sim_slots[np.isin(sim_slots, wanted)]
    ref = draw(kind, (2, ref_slots.size), 1, 0.0)
    hist = draw(kind, (2, hist_slots.size), 2, 0.7)
    sim = draw(kind, (2, sim_slots.size), 3, 2.5)
    # Below the lowest node, too.
    sim[:, ::7] = sim[:, ::7] - 15 if kind == "+" else sim[:, ::7] / 1000
    n = n_slots(calendar)
    for positions, tails in itertools.product(POSITIONS, TAILS):
        options: dict[str, Any] = {"positions": positions, "tails": tails, "kind": kind}
        if kind == "*":
            options["wet_threshold"] = 0.5
        out = quantile_map(
            ref,
            hist,
            sim,
            ref_slots=ref_slots,
            hist_slots=hist_slots,
            sim_slots=sim_slots,
            calendar=calendar,
            **options,
        )
        expected = np.full_like(sim, np.nan)
        for slot in np.unique(sim_slots):
            centre = (slot + 0.5) / 360 * 366 if n == 360 else slot
            ref_window = brute_window(sorted(set(ref_slots)), int(centre), 15, 366)
            hist_window = brute_window(sorted(set(hist_slots)), slot, 15, n)
            at = sim_slots == slot
            for cell in range(2):
                expected[cell, at] = brute_map(
                    ref[cell, np.isin(ref_slots, ref_window)],
                    hist[cell, np.isin(hist_slots, hist_window)],
                    sim[cell, at],
                    options,
                )
        np.testing.assert_allclose(out, expected, rtol=1e-6, err_msg=f"{positions} {tails}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("calendar", "season"), AXES)
@pytest.mark.parametrize(("method", "year_window"), [("dqm", 3), ("qdm", 3), ("qdm", None)])
def test_every_change_equals_a_brute_force(
    method: str, year_window: int | None, calendar: str, season: str | None, kind: str
) -> None:
    """The axis has a gap, and its first run of years is shorter than the window."""
    ref_days, hist_days = days(1991, 4, "standard", season), days(1990, 2, calendar, season)
    sim_days = Days.concatenate([days(2040, 2, calendar, season), days(2050, 4, calendar, season)])
    ref_slots, hist_slots, sim_slots = slots(ref_days), slots(hist_days), slots(sim_days)
    sim_years = season_year(sim_days, season)
    ref = draw(kind, (2, ref_slots.size), 1, 0.0)
    hist = draw(kind, (2, hist_slots.size), 2, 0.7)
    sim = draw(kind, (2, sim_slots.size), 3, 1.5)
    n = n_slots(calendar)
    wanted = [0, 1, 59, 340, 359]
    options: dict[str, Any] = {"method": method, "kind": kind, "year_window": year_window}
    options |= {"wet_threshold": 0.5, "trace": 0.1, "max_ratio": 2.0}
    for positions, tails in zip(
        POSITIONS, ["linear", "parametric", "constant", "linear"], strict=True
    ):
        options |= {"positions": positions, "tails": tails}
        out = quantile_map(
            ref,
            hist,
            sim,
            ref_slots=ref_slots,
            hist_slots=hist_slots,
            sim_slots=sim_slots,
            sim_years=sim_years,
            calendar=calendar,
            **options,
        )
        for slot in set(wanted) & set(sim_slots.tolist()):
            centre = int((slot + 0.5) / 360 * 366) if n == 360 else slot
            ref_in, hist_in, sim_in = (
                np.isin(at, brute_window(sorted(set(at.tolist())), of, 15, size))
                for at, of, size in (
                    (ref_slots, centre, 366),
                    (hist_slots, slot, n),
                    (sim_slots, slot, n),
                )
            )
            for cell, t in itertools.product(range(2), np.flatnonzero(sim_slots == slot)):
                years = three_years(sim_years, sim_years[t]) if year_window else sim_years
                expected = (
                    np.nan
                    if np.isnan(sim[cell, t])
                    else brute_change(
                        sim[cell, t],
                        ref[cell, ref_in],
                        hist[cell, hist_in],
                        sim[cell, sim_in & np.isin(sim_years, years)],
                        options,
                    )
                )
                assert out[cell, t] == pytest.approx(expected, rel=1e-6, nan_ok=True)


# --- small series of any shape ---------------------------------------------------------------


@st.composite
def small_series(draw: st.DrawFn, kind: str, least: int = 1) -> tuple[Series, NDArray[np.int16]]:
    """Up to 60 values, with ties, in any slots; hundredths, as files hold them."""
    n = draw(st.integers(least, 60))
    low = 0 if kind == "*" else -5000
    scatter = draw(st.sampled_from([0, 3, 5000]))
    hundredths = st.integers(max(low, -scatter), scatter)
    values = draw(arrays(np.float64, (1, n), elements=hundredths.map(lambda i: i / 100)))
    return values, draw(arrays(np.int16, n, elements=st.integers(0, 365)))


any_options = st.fixed_dictionaries(
    {
        "positions": st.sampled_from(POSITIONS),
        "tails": st.sampled_from(TAILS),
        "half_window": st.sampled_from([0, 15, 183]),
    }
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@few_examples
@given(data=st.data(), options=any_options)
def test_a_model_equal_to_the_reference_changes_nothing(
    method: Any, kind: Any, data: st.DataObject, options: Any
) -> None:
    ref, ref_slots = data.draw(small_series(kind))
    # A ratio to a quantile of 0 is guarded; it never is when the quantile is the value.
    is_free = (method, kind) != ("qdm", "*")
    sim, sim_slots = data.draw(small_series(kind)) if is_free else (ref, ref_slots)
    out = quantile_map(
        ref,
        ref,
        sim,
        ref_slots=ref_slots,
        hist_slots=ref_slots,
        sim_slots=sim_slots,
        calendar="noleap",
        method=method,
        sim_years=np.arange(sim_slots.size),
        year_window=None,
        kind=kind,
        trace=0.01,
        **options,
    )

    def number(slots: Series, around: int) -> int:
        window = brute_window(sorted(set(slots)), around, options["half_window"], 366)
        return int(np.isin(slots, window).sum())

    for y, x, slot in zip(out[0], sim[0], sim_slots, strict=True):
        if number(ref_slots, slot) < 2 or (method == "qdm" and number(sim_slots, slot) < 2):
            assert np.isnan(y)
        else:
            assert y == pytest.approx(x, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@few_examples
@given(data=st.data(), options=any_options)
def test_the_map_is_finite_and_never_falls(
    method: Any, kind: Any, data: st.DataObject, options: Any
) -> None:
    ref, ref_slots = data.draw(small_series(kind, least=2))
    hist, hist_slots = data.draw(small_series(kind, least=2))
    sim, _ = data.draw(small_series(kind, least=2))
    x = np.sort(sim)
    y = quantile_map(
        ref,
        hist,
        x,
        ref_slots=np.zeros_like(ref_slots),
        hist_slots=np.zeros_like(hist_slots),
        sim_slots=np.zeros(x.size, np.int16),
        calendar="noleap",
        method=method,
        sim_years=np.arange(x.size),
        year_window=None,
        kind=kind,
        wet_threshold=0.05,
        trace=0.05,
        **options,
    )
    assert np.isfinite(y).all()
    # A power may be off by its last bit. The changes of QDM's quantiles may cross.
    assert method == "qdm" or (np.diff(y) >= -1e-12 * np.abs(y[:, 1:])).all()
    assert kind == "+" or (y >= 0).all()


# --- shift and scale -------------------------------------------------------------------------


def map_year(ref: Series, hist: Series, sim: Series, **options: Any) -> Series:
    """Map series of whole noleap years."""
    year = np.arange(365, dtype=np.int16)
    year[59:] += 1
    axes: dict[str, Any] = {
        f"{name}_slots": np.tile(year, values.shape[1] // 365)
        for name, values in (("ref", ref), ("hist", hist), ("sim", sim))
    }
    axes["sim_years"] = np.repeat(np.arange(sim.shape[1] // 365), 365)
    return quantile_map(ref, hist, sim, calendar="noleap", **(axes | options))


def assert_shift_is_removed(mapped: Any, dtype: Any, rtol: float, atol: float) -> None:
    rng = np.random.default_rng(5)
    season = 10 * np.sin(np.arange(2 * 365) / 365 * 2 * np.pi)
    ref = 285 + season + 3 * rng.standard_normal((3, season.size))
    hist = (20 + 1.1 * ref).astype(dtype)
    out = mapped(ref.astype(dtype), hist, hist)
    np.testing.assert_allclose(out.mean(axis=1), ref.mean(axis=1), rtol=rtol, atol=atol)
    np.testing.assert_allclose(out.std(axis=1), ref.std(axis=1), rtol=rtol, atol=atol)


@pytest.mark.parametrize("tails", TAILS)
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(np.float64, 1e-6, 0), (np.float32, 0, 1e-4)])
def test_shift_and_scale_are_removed(tails: Any, dtype: Any, rtol: float, atol: float) -> None:
    def mapped(ref: Series, hist: Series, sim: Series) -> Series:
        return map_year(ref, hist, sim, tails=tails)

    assert_shift_is_removed(mapped, dtype, rtol, atol)


def test_the_shift_oracle_catches_swapped_training_series() -> None:
    def swapped(ref: Series, hist: Series, sim: Series) -> Series:
        return map_year(hist, ref, sim)

    with pytest.raises(AssertionError):
        assert_shift_is_removed(swapped, np.float64, 1e-6, 0)


@pytest.mark.parametrize("tails", ["linear", "parametric"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_scale_is_removed_beyond_the_training_range(tails: Any, positions: Any) -> None:
    rng = np.random.default_rng(6)
    ref = 3 * rng.standard_normal((2, 2 * 365))
    truth = 3 * ref
    out = map_year(ref, 20 + 2 * ref, 20 + 2 * truth, tails=tails, positions=positions)
    np.testing.assert_allclose(out, truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tails", TAILS)
def test_a_factor_is_removed_beyond_the_training_range(tails: Any) -> None:
    rng = np.random.default_rng(7)
    ref = rng.gamma(2, 3, (2, 2 * 365))
    truth = ref * rng.choice([0.01, 1, 4], ref.shape)
    out = map_year(ref, 1.7 * ref, 1.7 * truth, tails=tails, kind="*")
    np.testing.assert_allclose(out, truth, rtol=1e-9)


# --- changes ---------------------------------------------------------------------------------


def biased(kind: str, years: int = 3) -> tuple[Series, Series]:
    """A reference with a season, and a model that is off in mean and spread."""
    rng = np.random.default_rng(16)
    season = np.sin(np.arange(years * 365) / 365 * 2 * np.pi)
    if kind == "+":
        noise = rng.standard_normal((2, 2, season.size))
        return 285 + 10 * season + 3 * noise[0], 280 + 12 * season + 4 * noise[1]
    amounts = rng.gamma(2, 3 + season, (2, 2, season.size))
    return amounts[0] + 1, 0.5 * amounts[1] ** 1.2 + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["dqm", "qdm"])
def test_a_uniform_change_is_kept_by_the_methods_that_promise_it(method: Any, kind: Any) -> None:
    ref, hist = biased(kind)

    def changed(values: Series) -> Series:
        return values + 3 if kind == "+" else 1.5 * values

    def mapped(sim: Series, method: str) -> Series:
        return map_year(ref, hist, sim, method=method, kind=kind, trace=0.01)

    later = mapped(changed(hist), method)
    np.testing.assert_allclose(later, changed(mapped(hist, method)), rtol=1e-9)
    # QM stretches the change by the ratio of the spreads.
    assert abs(mapped(changed(hist), "qm") - changed(mapped(hist, "qm"))).mean() > 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_the_change_of_every_quantile_is_kept(positions: Any, kind: Any) -> None:
    ref, hist = (values[:, :365] for values in biased(kind))
    rng = np.random.default_rng(17)
    sim = hist * rng.uniform(1, 2, hist.shape) ** 3
    at = np.zeros(365, np.int16)
    out = quantile_map(
        ref,
        hist,
        sim,
        ref_slots=at,
        hist_slots=at,
        sim_slots=at,
        calendar="noleap",
        method="qdm",
        sim_years=np.arange(365),
        year_window=None,
        positions=positions,
        kind=kind,
        trace=0.01,
    )
    order = np.argsort(sim, axis=1)
    y, x = np.take_along_axis(out, order, 1), np.take_along_axis(sim, order, 1)
    o, h = np.sort(ref), np.sort(hist)
    np.testing.assert_allclose(y - o if kind == "+" else y / o, x - h if kind == "+" else x / h)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["dqm", "qdm"])
def test_a_biased_model_becomes_the_reference_in_its_own_training_period(
    method: Any, kind: Any
) -> None:
    ref, _ = biased(kind)
    hist = 20 + 1.1 * ref if kind == "+" else 1.7 * ref
    out = map_year(ref, hist, hist, method=method, kind=kind, trace=0.01)
    np.testing.assert_allclose(out, ref, rtol=1e-9)


@pytest.mark.parametrize("method", ["dqm", "qdm"])
def test_a_warming_of_the_winters_stays_in_the_winters(method: Any) -> None:
    ref, hist = biased("+")
    day = np.arange(hist.shape[1]) % 365
    future = hist + np.where((day < 59) | (day >= 334), 3, 0)
    change = map_year(ref, hist, future, method=method) - map_year(ref, hist, hist, method=method)
    np.testing.assert_allclose(change[:, (day >= 75) & (day < 318)], 0, atol=1e-9)
    np.testing.assert_allclose(change[:, (day >= 350) | (day < 43)], 3, rtol=1e-9)


def test_a_ratio_to_next_to_nothing_is_guarded() -> None:
    """x = 10 over quantiles of 0, of 9 and of 10 traces: unguarded, the first gives infinity."""
    at = np.zeros(4, np.int16)
    for base, factor in ((0, 2), (0.45, 2), (0.5, 20)):
        y = quantile_map(
            np.full((1, 4), 3.0),
            np.full((1, 4), base),
            np.full((1, 4), 10.0),
            ref_slots=at,
            hist_slots=at,
            sim_slots=at,
            calendar="noleap",
            method="qdm",
            sim_years=np.arange(4),
            kind="*",
            trace=0.05,
        )
        np.testing.assert_allclose(y, 3 * factor)


@pytest.mark.parametrize("tails", TAILS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_map_is_continuous_at_the_end_nodes(tails: Any, kind: Any) -> None:
    rng = np.random.default_rng(8)
    # Ties at both ends, where the mid-rank, not the first rank, must be met.
    ref, hist = (np.round(v, 0) for v in (rng.gamma(9, 2, (1, 200)), rng.gamma(6, 4, (1, 150))))
    ends = np.array([hist.min(), hist.max()])
    x = np.array([[ends[0] - 1e-9, ends[0], ends[1], ends[1] + 1e-9]])
    y = quantile_map(
        ref,
        hist,
        x,
        ref_slots=np.zeros(200, np.int16),
        hist_slots=np.zeros(150, np.int16),
        sim_slots=np.zeros(4, np.int16),
        calendar="noleap",
        tails=tails,
        kind=kind,
    )[0]
    assert y[0] == pytest.approx(y[1], abs=1e-7)
    assert y[3] == pytest.approx(y[2], abs=1e-7)


# --- precipitation ---------------------------------------------------------------------------


@pytest.mark.parametrize("tails", TAILS)
def test_rain_returns_and_drizzle_becomes_zero_when_the_model_equals_the_reference(
    tails: Any,
) -> None:
    axis = Days.range("1990-01-01", "1992-12-31", "noleap")
    rng = np.random.default_rng(9)
    lat, lon = np.array([40.0, 40.25, 41.0]), np.array([-3.75, -3.75, 2.0])
    pr = (rng.gamma(0.4, 8, (3, len(axis))) * (rng.random((3, len(axis))) < 0.4)).astype("f4")
    pr[2] = 0  # a desert
    threshold = 0.05
    u = uniform(1, "pr", lat, lon, axis).T
    series = jitter_dry(pr, threshold=threshold, u=u)
    at = slots(axis)
    mapped = quantile_map(
        series,
        series,
        series,
        ref_slots=at,
        hist_slots=at,
        sim_slots=at,
        calendar="noleap",
        kind="*",
        tails=tails,
        wet_threshold=threshold,
    )
    expected = np.where(pr < np.float32(threshold), 0, pr)
    np.testing.assert_allclose(restore_dry(mapped, threshold=threshold), expected, rtol=2.4e-7)


def test_wet_days_become_as_frequent_as_in_the_reference() -> None:
    axis = Days.range("1990-01-01", "1999-12-31", "noleap")
    rng = np.random.default_rng(10)
    place = np.array([40.0]), np.array([-3.75])
    u = uniform(1, "pr", *place, axis).T
    ref, hist = (
        jitter_dry(
            rng.gamma(0.6, scale, u.shape) * (rng.random(u.shape) < wet), threshold=0.05, u=u
        )
        for scale, wet in ((8, 0.3), (3, 0.8))
    )
    out = restore_dry(map_year(ref, hist, hist, kind="*", wet_threshold=0.05), threshold=0.05)
    assert (out > 0).mean() == pytest.approx((ref >= 0.05).mean(), abs=2e-3)
    assert out.mean() == pytest.approx(ref[ref >= 0.05].sum() / ref.size, rel=1e-2)


@pytest.mark.parametrize("tails", ["constant", "parametric"])
def test_a_wet_day_over_a_dry_training_period_is_not_multiplied(tails: Any) -> None:
    # The end nodes are noise below the threshold: their ratio would make 80 mm of 10.
    dry = np.linspace(1e-4, 0.049, 20)[None]
    at = np.zeros(20, np.int16)
    y = quantile_map(
        8 * dry,
        dry,
        np.array([[10.0]]),
        ref_slots=at,
        hist_slots=at,
        sim_slots=at[:1],
        calendar="noleap",
        kind="*",
        tails=tails,
        wet_threshold=0.05,
    )
    assert y[0, 0] == pytest.approx(10 + 7 * 0.049)


# --- missing values, independence, errors ----------------------------------------------------


def test_missing_values_stay_missing_and_teach_nothing() -> None:
    rng = np.random.default_rng(11)
    ref, hist, sim = rng.standard_normal((3, 4, 2 * 365))
    ref[0], hist[1] = np.nan, np.nan
    sim[:, 5] = np.nan
    ref[2, :365] = np.nan
    out = map_year(ref, hist, sim)
    assert np.isnan(out[:2]).all()
    np.testing.assert_array_equal(np.isnan(out[2:]), np.isnan(sim[2:]))
    np.testing.assert_array_equal(out[2:3], map_year(ref[2:3, 365:], hist[2:3], sim[2:3]))


@pytest.mark.parametrize("method", METHODS)
@given(cut=st.integers(0, 6), order=st.permutations(range(6)))
@settings(max_examples=10, deadline=None)
def test_any_split_and_order_of_the_cells_gives_the_same_bits(
    method: str, cut: int, order: list[int]
) -> None:
    rng = np.random.default_rng(12)
    series = rng.gamma(2, 3, (3, 6, 2 * 365))
    options: dict[str, Any] = {"method": method, "kind": "*", "trace": 0.05, "year_window": 1}
    whole = map_year(*series, **options)[order]
    parts = [map_year(*series[:, order[c]], **options) for c in np.s_[:cut, cut:]]
    np.testing.assert_array_equal(np.concatenate(parts).view(np.int64), whole.view(np.int64))


@pytest.mark.parametrize("method", METHODS)
def test_threads_give_the_same_bits_and_change_no_input(method: str) -> None:
    rng = np.random.default_rng(13)
    series = rng.gamma(2, 3, (3, 8, 4 * 365)).astype(np.float32)
    before = series.copy()

    def mapped(cells: slice) -> Series:
        return map_year(*series[:, cells], method=method, kind="*", trace=0.05, year_window=3)

    whole = mapped(slice(8))
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda i: mapped(slice(i, i + 2)), range(0, 8, 2)))
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(series, before)


def test_the_order_of_days_does_not_matter() -> None:
    rng = np.random.default_rng(14)
    at = np.tile(np.arange(366, dtype=np.int16), 2)
    ref, hist, sim = rng.standard_normal((3, 2, at.size))
    shuffle = rng.permutation(at.size)
    straight = quantile_map(
        ref, hist, sim, ref_slots=at, hist_slots=at, sim_slots=at, calendar="all_leap"
    )
    shuffled = quantile_map(
        ref[:, shuffle],
        hist,
        sim,
        ref_slots=at[shuffle],
        hist_slots=at,
        sim_slots=at,
        calendar="all_leap",
    )
    np.testing.assert_array_equal(shuffled, straight)


@pytest.mark.parametrize("option", ["method", "positions", "tails", "kind"])
def test_an_unknown_option_is_named(option: str) -> None:
    one = np.ones((1, 365))
    with pytest.raises(ConfigError, match=f"`{option}` must be one of .* not 'median'"):
        map_year(one, one, one, **{option: "median"})


@pytest.mark.parametrize(
    ("ref", "ref_slots", "message"),
    [
        (np.ones((2, 3)), [0, 1, 2], r"`ref` must be .* \(1, 3\).* found \(2, 3\)"),
        (np.ones((1, 3)), [0, 1, 366], "slots of `ref` must be in 0-365, found 0-366"),
        (np.ones((1, 0)), [], "`ref` has no days"),
    ],
)
def test_series_that_do_not_fit_are_refused(ref: Series, ref_slots: Any, message: str) -> None:
    at = np.zeros(1, np.int16)
    with pytest.raises(ContractError, match=message):
        quantile_map(
            ref,
            np.ones((1, 1)),
            np.ones((1, 1)),
            ref_slots=np.array(ref_slots, np.int16),
            hist_slots=at,
            sim_slots=at,
            calendar="noleap",
        )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"year_window": 20}, ConfigError, "`year_window` must be odd to be centred, found 20"),
        ({"kind": "*"}, ConfigError, "need a `trace` above 0, found 0"),
        ({"sim_years": None}, ContractError, "`sim_years` must have the 365 days .* found None"),
        ({"sim_years": np.zeros(3, int)}, ContractError, r"the 365 days .* found \(3,\)"),
        (
            {"sim_years": np.full(365, 1990), "sim_slots": np.minimum(np.arange(365), 363)},
            ContractError,
            "slot 363 of year 1990 more than once",
        ),
    ],
)
def test_a_change_needs_years_and_a_trace(options: Any, error: Any, message: str) -> None:
    one = np.ones((1, 365))
    with pytest.raises(error, match=message):
        map_year(one, one, one, **({"method": "qdm"} | options))


# --- a peer ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:keys will default to True in jsonpickle")
@pytest.mark.parametrize("method", METHODS)
def test_equals_xsdba_where_the_definition_is_shared(method: Any) -> None:
    """With the n type-7 positions as its quantiles xsdba keeps every order statistic, too."""
    import xsdba

    n = 300
    rng = np.random.default_rng(15)
    ref, hist, sim = (rng.normal(m, s, n) for m, s in ((285, 3), (288, 4), (290, 5)))
    time = xr.date_range("2000-01-01", periods=n, freq="D")
    ref_da, hist_da, sim_da = (
        xr.DataArray(v, dims="time", coords={"time": time}, attrs={"units": "K"})
        for v in (ref, hist, sim)
    )
    peer, how = {
        "qm": (xsdba.EmpiricalQuantileMapping, {"extrapolation": "constant"}),
        "dqm": (xsdba.DetrendedQuantileMapping, {"extrapolation": "constant", "detrend": 0}),
        "qdm": (xsdba.QuantileDeltaMapping, {}),
    }[method]
    theirs = peer.train(
        ref_da, hist_da, nquantiles=np.linspace(0, 1, n), kind="+", group="time"
    ).adjust(sim_da, interp="linear", **how)
    at = np.zeros(n, np.int16)
    ours = quantile_map(
        ref[None],
        hist[None],
        sim[None],
        ref_slots=at,
        hist_slots=at,
        sim_slots=at,
        calendar="noleap",
        method=method,
        sim_years=np.arange(n),
        year_window=None,
        positions="type7",
        tails="constant",
    )
    assert ((sim < hist.min()) | (sim > hist.max())).any()
    np.testing.assert_allclose(ours[0], theirs.values, rtol=1e-9)
