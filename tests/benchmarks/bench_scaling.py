"""How blocks scale with Dask workers, and where its scheduler saturates: `./run bench scaling`.

Measured here: blocks/s of a real stage's kernel with 1, 2 and 4 workers, the seconds of one block,
and what the scheduler spends on a task that does nothing. For more workers than this machine has
cores, a queue is simulated with these: the scheduler hands out one task at a time, a worker takes a
block's time for each.
"""

from __future__ import annotations

import heapq
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from bench import QUICK, ROOT, publish

sys.path.insert(0, str(ROOT / "workflow" / "lib"))

WORKERS = (1, 2) if QUICK else (1, 2, 4)
BLOCKS, EMPTY = (8, 200) if QUICK else (48, 4000)
SIMULATED = (1, 10, 100, 1000)
BLOCK_SECONDS = (0.1, 1.0, 10.0)


def simulate(workers: int, block: float, overhead: float, *, tasks: int) -> float:
    """Return blocks per second: one scheduler serves a task in `overhead`, a worker in `block`."""
    free = [0.0] * workers
    scheduler = end = 0.0
    for _ in range(tasks):
        scheduler = max(scheduler, free[0]) + overhead
        heapq.heapreplace(free, scheduler + block)
        end = max(end, scheduler + block)
    return tasks / end


def on_workers(n: int, tasks: int, function: Callable[[int], Any]) -> float:
    """Return the seconds that tasks take on so many workers of one thread, once warm."""
    from finescale import engines

    with tempfile.TemporaryDirectory() as scratch:
        options = engines.in_job(engines.Room("bench", n, 8000, scratch))
        options |= {"n_workers": n, "worker_kwargs": {**options["worker_kwargs"], "nthreads": 1}}
        engines.CLUSTERS = {"cluster": (lambda _: options, *engines.CLUSTERS["cluster"][1:])}
        with engines.engine("cluster", threads=n, mem_mb=8000) as mapper:
            mapper(function, range(4 * n))
            begin = time.perf_counter()
            mapper(function, range(tasks))
            return time.perf_counter() - begin


def block(seed: int) -> None:
    """Sort and interpolate as an adjustment does: numpy on a block of 40 MB."""
    import numpy as np

    values = np.random.default_rng(seed).normal(size=(365 * 10, 256)).astype(np.float32)
    ordered = np.sort(values, axis=0)
    for cell in range(values.shape[1]):
        np.interp(values[:, cell], ordered[:, cell], ordered[:, cell])


def main() -> None:
    """Measure, simulate and print the result."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    rates = {n: BLOCKS / on_workers(n, BLOCKS, block) for n in WORKERS}
    begin = time.perf_counter()
    for seed in range(8):
        block(seed)
    seconds = (time.perf_counter() - begin) / 8
    overhead = on_workers(2, EMPTY, lambda _: None) / EMPTY
    simulated = {
        f"blocks of {length:g} s": {
            f"{n} workers": round(simulate(n, length, overhead, tasks=20 * n) * length / n, 3)
            for n in SIMULATED
        }
        for length in BLOCK_SECONDS
    }
    publish(
        "scaling",
        what="blocks/s on Dask workers of one thread, this machine",
        ours={f"{n} workers": round(rate, 2) for n, rate in rates.items()},
        unit="blocks/s",
        goal=None,
        met=None,
        details={
            "one block, without Dask [s]": seconds,
            "the scheduler's time for a task [ms]": overhead * 1e3,
            "workers that it keeps busy": {
                f"blocks of {length:g} s": round(length / overhead) for length in BLOCK_SECONDS
            },
            **{f"simulated efficiency, {name}": found for name, found in simulated.items()},
        },
    )


if __name__ == "__main__":
    main()
