"""What the commit protocol costs: `./run bench store`.

Each pair of figures is measured alternately in one process; the ratio of their medians is what
counts, times are of the machine.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from bench import QUICK, publish
from numpy.typing import NDArray

from finescale.blocks import slabs, tiles
from finescale.store import COMPRESSOR, Array, Contract, Header, Writer, open_store

SHAPE, CHUNKS = (732 if QUICK else 7320, 96, 144), (366, 48, 48)
THREADS = 2
ROUNDS = 1 if QUICK else 7
HEADER = Header("bcsd", "ab" * 32, {"variable_id": "tas"}, {"stage": "bcsd", "version": 1})


Region = tuple[slice, ...]
Block = list[tuple[Region, NDArray[np.float32]]]
"""A tile with all of its time, chunk by chunk: what a product stage computes at a time."""


def blocks() -> list[Block]:
    """Return ten years of temperatures with noise, NaN in a corner."""
    rng = np.random.default_rng(0)
    cycle = 285 + 10 * np.sin(np.arange(SHAPE[0]) * 2 * np.pi / 366)[:, None, None]
    values = (cycle + rng.normal(0, 3, SHAPE)).astype(np.float32)
    values[:, :20, :20] = np.nan
    return [
        [
            (region, np.ascontiguousarray(values[region]))
            for time in slabs(SHAPE[0], CHUNKS[0])
            for region in [(time, tile.lat, tile.lon)]
        ]
        for tile in tiles(SHAPE, CHUNKS)
    ]


def in_threads(function: Callable[[Block], Any], values: list[Block]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(function, values))


def committed(folder: Path, values: list[Block]) -> None:
    """Write a store with everything: checks, statistics, journal, audit, manifest, sentinel."""
    array = Array(("time", "lat", "lon"), SHAPE, CHUNKS, "<f4", {}, Contract((150, 400), "mask"))
    mask = np.ones(SHAPE[1:], dtype=np.bool_)
    mask[:20, :20] = False
    writer = Writer(str(folder / "x.zarr"), HEADER, {"tas": array}, mask).create({})

    def write(block: Block) -> None:
        name = "-".join(str(s.start) for s in block[0][0])
        writer.write_block(name, (("tas", *piece) for piece in block))

    in_threads(write, values)
    writer.commit()


def bare(folder: Path, values: list[Block]) -> None:
    """Write the same chunks with Zarr alone."""
    array = zarr.create_array(
        str(folder / "bare.zarr"), shape=SHAPE, chunks=CHUNKS, dtype="<f4", zarr_format=2,
        compressors=numcodecs.get_codec(COMPRESSOR), fill_value=np.nan,
    )  # fmt: skip

    def write(block: Block) -> None:
        for region, values in block:
            array[region] = values

    in_threads(write, values)


def read_checked(folder: Path, values: list[Block]) -> None:
    """Read a committed store; every chunk is compared with its checksum."""
    array = open_store(str(folder / "x.zarr")).array("tas")
    in_threads(lambda block: [array[region] for region, _ in block], values)


def read_bare(folder: Path, values: list[Block]) -> None:
    """Read the same chunks with Zarr alone."""
    array = zarr.open_array(str(folder / "x.zarr"), path="tas", mode="r", zarr_format=2)
    in_threads(lambda block: [array[region] for region, _ in block], values)


PAIRS = {"commit / bare write": (committed, bare), "checked / bare read": (read_checked, read_bare)}


def measure() -> None:
    """Publish the seconds of each function and the ratio of each pair."""
    values = blocks()
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        committed(folder, values)
        for _ in range(ROUNDS):
            for pair in PAIRS.values():
                for function in pair:
                    if function in (committed, bare):
                        for path in folder.iterdir():
                            shutil.rmtree(path)
                    begin = time.perf_counter()
                    function(folder, values)
                    taken.setdefault(function.__name__, []).append(time.perf_counter() - begin)
                    if function is bare:
                        committed(folder, values)
        store = folder / "x.zarr"
        data = sum(p.stat().st_size for p in store.rglob("*") if not p.name.startswith("."))
        manifest = (store / ".manifest.json").stat().st_size
    median = {name: statistics.median(times) for name, times in taken.items()}
    ratio = {n: median[a.__name__] / median[b.__name__] for n, (a, b) in PAIRS.items()}
    megabytes = sum(v.nbytes for block in values for _, v in block) / 1e6
    publish(
        "store",
        what=f"write and commit, read {megabytes:.0f} MB, {THREADS} threads",
        ours={name: median[name] for name in (committed.__name__, read_checked.__name__)},
        unit="s",
        peers={name: median[name] for name in (bare.__name__, read_bare.__name__)},
        ratio=ratio,
        details={"manifest / data": manifest / data},
    )


if __name__ == "__main__":
    measure()
