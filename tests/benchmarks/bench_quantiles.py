"""P1: what quantile mapping costs, per cell: `./run bench P1`.

Three times 30 years of days, a window of 31 days, for QDM also of 21 years. Ours keeps all order
statistics; it is compared with a brute force before it is timed. The peers are xsdba, of this
environment, and ibicus and python-cmethods, of one that is made from `requirements.lock` on demand;
`peer_quantiles.py` says what each leaves out. Everything runs in a process of its own, in turns,
and the least time counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from bench import QUICK, publish, python_of
from peer_quantiles import HALF_WINDOW, PEERS, YEAR_WINDOW, YEARS, draw, timed

HERE = Path(__file__).parent
CELLS, THREADS, ROUNDS = (20, 2, 1) if QUICK else (400, 2, 2)
GOAL_MS, GOALS = 0.8, {"xsdba qm": 1 / 90, "ibicus qm": 1 / 390}
DAYS = np.arange(365)


def ours(method: str, series: tuple[Any, Any, Any], **options: Any) -> Any:
    """Return the map by the library."""
    from finescale.quantiles import quantile_map

    slots = np.tile(DAYS + (DAYS > 58), YEARS)
    return quantile_map(
        *series,
        ref_slots=slots,
        hist_slots=slots,
        sim_slots=slots,
        sim_years=np.repeat(np.arange(YEARS), DAYS.size),
        calendar="noleap",
        method=method,
        half_window=HALF_WINDOW,
        year_window=YEAR_WINDOW,
        **options,
    )


def in_threads(threads: int) -> Callable[[str, int], Callable[[], Any]]:
    """Return what makes the map of some cells in so many threads."""

    def make(method: str, n_cells: int) -> Callable[[], Any]:
        whole = draw(n_cells)
        parts = [
            tuple(values[cells] for values in whole)
            for cells in np.array_split(np.arange(n_cells), threads)
        ]
        pool = ThreadPoolExecutor(threads)
        return lambda: list(pool.map(lambda part: ours(method, part), parts))

    return make


OURS = {f"ours {m} {n}": (in_threads(n), m) for m in ("qm", "qdm") for n in (1, THREADS)}


def brute(method: str, series: tuple[Any, Any, Any], day: int, year: int) -> float:
    """Return the map of one value, from fresh samples of its windows."""
    ref, hist, sim = (values.reshape(YEARS, DAYS.size).astype("f8") for values in series)
    near = (day + np.arange(-HALF_WINDOW, HALF_WINDOW + 1)) % DAYS.size
    o, h = np.sort(ref[:, near].ravel()), np.sort(hist[:, near].ravel())
    p, x = np.arange(1, o.size + 1) / (o.size + 1), sim[year, day]
    if method == "qm":
        return float(np.interp(np.interp(x, h, p), p, o) + x - np.clip(x, h[0], h[-1]))
    first = min(max(year - YEAR_WINDOW // 2, 0), YEARS - YEAR_WINDOW)
    own = sim[first : first + YEAR_WINDOW, near]
    tau = ((own < x).sum() + (own <= x).sum() + 1) / 2 / (own.size + 1)
    return float(np.interp(tau, p, o) + x - np.interp(tau, p, h))


def check() -> None:
    """Compare a cell with the brute force, on days that include the turn of the year."""
    series = draw(1)
    for method in ("qm", "qdm"):
        out = ours(method, series, tails="constant").reshape(YEARS, DAYS.size)
        for day, year in np.ndindex(DAYS.size, YEARS):
            if day % 28 == 0:
                np.testing.assert_allclose(out[year, day], brute(method, series, day, year), 1e-5)


def apart(name: str) -> dict[str, float]:
    """Return what one candidate took, in a process of its own."""
    command = [sys.executable, __file__, "--alone", name]
    if name in PEERS:
        xsdba = name.startswith("xsdba")
        python = sys.executable if xsdba else python_of(".venv-bench", "requirements.lock")
        command = [python, str(HERE / "peer_quantiles.py"), name]
    command += ["--quick"] * QUICK
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(found.splitlines()[-1])
    return figures


def main() -> None:
    """Take the least of each figure and print the result."""
    check()
    rounds = [{name: apart(name) for name in (*OURS, *PEERS)} for _ in range(ROUNDS)]

    def least(key: str) -> dict[str, float]:
        return {name: round(min(each[name][key] for each in rounds), 3) for name in rounds[0]}

    def ratio(figures: dict[str, float], threads: int) -> dict[str, float]:
        """Return what ours takes of each peer's at the same method."""
        return {
            name: figures[f"ours {name.split()[1]} {threads}"] / figures[name] for name in PEERS
        }

    ms, memory = least("ms"), least("peak_MB")
    found = ratio(ms, THREADS)
    ours = f"ours qm {THREADS}"
    publish(
        "P1",
        what="quantile mapping of one cell, 3 x 30 years, 31 days (QDM: and 21 years)",
        ours={name.removeprefix("ours "): ms[name] for name in OURS},
        unit="ms (method, threads)",
        peers={name: ms[name] for name in PEERS},
        ratio=found,
        goal=f"<= {GOAL_MS} ms, 1/90 of xsdba qm, 1/390 of ibicus qm, with {THREADS} threads",
        met=ms[ours] <= GOAL_MS and all(found[peer] <= most for peer, most in GOALS.items()),
        memory=memory[ours],
        details={
            "peers / ours": {name: round(1 / value, 1) for name, value in found.items()},
            "peers / ours, processor time, one thread": {
                name: round(1 / value, 1) for name, value in ratio(least("cpu_ms"), 1).items()
            },
            "memory of each process [MB]": memory,
        },
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        print(timed(*OURS[sys.argv[2]], CELLS))
    else:
        main()
