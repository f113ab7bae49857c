"""What verification costs: JSON of quick on 10,000 chunks, and of deep against a bare zarr read."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from finescale.blocks import slabs
from finescale.store import Array, Header, Region, Writer, open_store
from finescale.verify import verify_all

THREADS = 2
ROUNDS = 5
Shape = tuple[int, int, int]


def regions(shape: Sequence[int], chunks: Sequence[int]) -> list[Region]:
    return list(product(*map(slabs, shape, chunks)))


def write(url: str, shape: Shape, chunks: Shape) -> int:
    """Commit a store of one field and return the number of its chunks."""
    arrays = {"tas": Array(("time", "lat", "lon"), shape, chunks)}
    writer = Writer(url, Header("bcsd", "ab" * 32, {}, {"stage": "bcsd"}), arrays).create({})
    values = np.random.default_rng(0).normal(280, 5, shape).astype(np.float32)
    rows = writer.write_block("all", [("tas", tuple(slice(0, n) for n in shape), values)])
    writer.commit()
    return len(rows)


def read(url: str) -> None:
    """Read every chunk and do nothing with it."""
    array: Any = open_store(url).array("tas")
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda region: array[region].size, regions(array.shape, array.chunks)):
            pass


def verify(url: str, *, deep: bool) -> None:
    assert verify_all([(url, None)], deep=deep, jobs=THREADS) == []


def best_of(*functions: Callable[[], object]) -> list[float]:
    """Return the shortest time of each [s]; in turns, so that a busy moment meets all alike."""
    times: list[list[float]] = []
    for _ in range(ROUNDS + 1):  # the first one warms files and compiled code
        times.append([])
        for function in functions:
            started = time.perf_counter()
            function()
            times[-1].append(time.perf_counter() - started)
    return np.min(times[1:], axis=0).tolist()


def main() -> None:
    """Write the stores, measure, print."""
    with tempfile.TemporaryDirectory() as folder:
        many, large = f"{folder}/many.zarr", f"{folder}/large.zarr"
        n_many = write(many, (100, 200, 200), (10, 4, 10))
        write(large, (3660, 96, 96), (366, 48, 48))
        (quick,) = best_of(partial(verify, many, deep=False))
        bare, deep = best_of(partial(read, large), partial(verify, large, deep=True))
    print(
        json.dumps(
            {
                "quick": {"chunks": n_many, "seconds": quick, "chunks_per_s": n_many / quick},
                "deep": {"seconds": deep, "zarr_read_seconds": bare, "ratio": deep / bare},
                "threads": THREADS,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
