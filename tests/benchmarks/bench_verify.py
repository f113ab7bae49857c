"""What verification costs: quick of 10,000 chunks, deep over a bare read: `./run bench verify`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from bench import QUICK, best_of, publish

from finescale.blocks import slabs
from finescale.store import Array, Header, Region, Writer, open_store
from finescale.verify import verify_all

Shape = tuple[int, int, int]
THREADS = 2
ROUNDS = 1 if QUICK else 5
MANY: Shape = (100, 40 if QUICK else 200, 200)
LARGE: Shape = (732 if QUICK else 3660, 96, 96)


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


def main() -> None:
    """Write the stores, measure, print."""
    with tempfile.TemporaryDirectory() as folder:
        many, large = f"{folder}/many.zarr", f"{folder}/large.zarr"
        n_many = write(many, MANY, (10, 4, 10))
        write(large, LARGE, (366, 48, 48))
        taken = best_of(ROUNDS, {"quick": partial(verify, many, deep=False)})
        taken |= best_of(
            ROUNDS, {"bare read": partial(read, large), "deep": partial(verify, large, deep=True)}
        )
    publish(
        "verify",
        what=f"quick: {n_many} chunks; deep: {4 * np.prod(LARGE) / 1e6:.0f} MB, {THREADS} threads",
        ours={name: taken[name] for name in ("quick", "deep")},
        unit="s",
        peers={"bare read": taken["bare read"]},
        ratio={"deep / bare read": taken["deep"] / taken["bare read"]},
        details={"quick, chunks a second": n_many / taken["quick"]},
    )


if __name__ == "__main__":
    main()
