"""One quantile mapping of a peer, timed in this process: `python peer_quantiles.py NAME [--quick]`.

It prints JSON: milliseconds per cell and the process' peak memory. Each peer comes as near to the
task of `bench_quantiles.py` as its options allow; what differs stands in its docstring.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from bench import QUICK, peak_mb

YEARS = 30
HALF_WINDOW, YEAR_WINDOW = 15, 21
Series = Any


def draw(n_cells: int) -> tuple[Series, Series, Series]:
    """Return daily temperatures of 30 years of 365 days [K], (cell, time): ref, hist, sim."""
    rng = np.random.default_rng(0)
    season = 10 * np.sin(np.arange(YEARS * 365) / 365 * 2 * np.pi)
    shape = (n_cells, season.size)
    mean_and_spread = ((285, 3), (288, 4), (290, 4))
    ref, hist, sim = (m + season + s * rng.standard_normal(shape) for m, s in mean_and_spread)
    return ref.astype("f4"), hist.astype("f4"), sim.astype("f4")


def xsdba(method: str, n_cells: int) -> Callable[[], Any]:
    """Return the map by day of year, 31 days, and the nearest of 50 quantiles; QDM of all years."""
    import xarray as xr
    import xsdba

    warnings.simplefilter("ignore")
    time_axis = xr.date_range("1961-01-01", periods=YEARS * 365)
    ref, hist, sim = (
        xr.DataArray(v, dims=("cell", "time"), coords={"time": time_axis}, attrs={"units": "K"})
        for v in draw(n_cells)
    )
    peer = {"qm": xsdba.EmpiricalQuantileMapping, "qdm": xsdba.QuantileDeltaMapping}[method]
    group = xsdba.Grouper("time.dayofyear", window=2 * HALF_WINDOW + 1)
    return lambda: (
        peer.train(ref, hist, nquantiles=50, kind="+", group=group)
        .adjust(sim, interp="nearest")
        .load()
    )


def ibicus(method: str, n_cells: int) -> Callable[[], Any]:
    """Return the map by empirical distributions, 31 days, and for QDM 21 years."""
    import logging

    import cftime
    from ibicus.debias import QuantileDeltaMapping, QuantileMapping

    warnings.simplefilter("ignore")
    logging.disable()
    days = cftime.num2date(np.arange(YEARS * 365), "days since 1961-01-01", "noleap")
    # (time, lat, lon)
    ref, hist, sim = (v.T[:, :, None].astype("f8") for v in draw(n_cells))
    window = {
        "running_window_mode": True,
        "running_window_length": 2 * HALF_WINDOW + 1,
        "running_window_step_length": 1,
    }
    if method == "qm":
        peer = QuantileMapping.from_variable(
            "tas", mapping_type="nonparametric", detrending="no_detrending", **window
        )
    else:
        peer = QuantileDeltaMapping.from_variable(
            "tas",
            mapping_type="nonparametric",
            running_window_over_years_of_cm_future_length=YEAR_WINDOW,
            running_window_over_years_of_cm_future_step_length=1,
            **window,
        )
    return lambda: peer.apply(
        ref, hist, sim, time_obs=days, time_cm_hist=days, time_cm_future=days, progressbar=False
    )


def cmethods(method: str, n_cells: int) -> Callable[[], Any]:
    """Return the map of the whole series at once, by 50 bins: there are no windows."""
    import xarray as xr
    from cmethods import adjust

    ref, hist, sim = (
        xr.DataArray(v.astype("f8"), dims=("cell", "time"), name="tas") for v in draw(n_cells)
    )
    name = {"qm": "quantile_mapping", "qdm": "quantile_delta_mapping"}[method]
    return lambda: adjust(
        method=name, obs=ref, simh=hist, simp=sim, n_quantiles=50, kind="+"
    ).load()


# What to call, and for how many cells: a call of xsdba takes seconds before its first cell.
PEERS = {
    "xsdba qm": (xsdba, 150),
    "xsdba qdm": (xsdba, 150),
    "ibicus qm": (ibicus, 10),
    "ibicus qdm": (ibicus, 1),
    "cmethods qm": (cmethods, 100),
    "cmethods qdm": (cmethods, 100),
}


def timed(make: Callable[[str, int], Callable[[], Any]], method: str, n_cells: int) -> str:
    """Return time and processor time per cell [ms] and the process' peak memory [MB], as JSON."""
    make(method, 1)()
    function = make(method, n_cells)
    begin, cpu = time.perf_counter(), time.process_time()
    function()
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return json.dumps(
        {"ms": 1000 * wall / n_cells, "cpu_ms": 1000 * cpu / n_cells, "peak_MB": peak_mb()}
    )


if __name__ == "__main__":
    chosen, cells = PEERS[sys.argv[1]]
    print(timed(chosen, sys.argv[1].split()[1], min(cells, 10) if QUICK else cells))
