"""P4: BCSD of one variable from committed inputs to the product, over the floor of its bytes.

`./run python tests/benchmarks/bench_end_to_end.py [--lat 288 --lon 352 --years 20]`. The floor is
what nobody can avoid: every input decoded once and the product encoded once, by Zarr alone, in
regions of many chunks, in the same process with as many threads.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr

sys.path.insert(0, str(Path(__file__).parents[1]))
from chain import Chain

from finescale import blocks, fields
from finescale.blocks import tiles
from finescale.calendars import Days
from finescale.fields import Field
from finescale.grids import Grid
from finescale.job import Job
from finescale.store import COMPRESSOR, Store

THREADS, RATIO, GOAL = 2, 8, 2.0
MODELS = 5
"""That the stores made of the reference alone are shared by."""


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    into[name] = round(time.perf_counter() - begin, 2)


def reference(chain: Chain, days: Days, fine: Grid) -> Store:
    """Return a committed fine reference: a cycle, terrain, noise; sea in a corner."""
    work: Job = chain.job("reference", "ref", variable_id="tasmax")
    arrays = fields.declare("tasmax", days, fine, layout="tiles", nan="allowed")
    shape, chunks = arrays["tasmax"].shape, arrays["tasmax"].chunks
    cycle = (288 + 10 * np.sin(np.arange(shape[0]) * 2 * np.pi / 365.25)).astype("f4")

    def compute(tile: blocks.Tile) -> Iterator[blocks.Piece]:
        rng = np.random.default_rng([tile.lat.start, tile.lon.start])
        values = rng.standard_normal((shape[0], *tile.shape), dtype="f4") * 3
        values += cycle[:, None, None] + rng.standard_normal(tile.shape, dtype="f4") * 4
        if tile.lat.start == tile.lon.start == 0:
            values[:, :30, :30] = np.nan
        yield "tasmax", (slice(0, shape[0]), tile.lat, tile.lon), values

    work.fill(work.create(arrays, {}), compute, tiles(shape, chunks))
    return chain.keep(work)


def coarse(fine: Grid) -> Grid:
    """Return the grid whose cells are blocks of the fine one."""
    return Grid.from_centres(
        *(axis.reshape(-1, RATIO).mean(axis=1) for axis in (fine.lat, fine.lon))
    )


def floor(inputs: list[Store], product: Store, folder: Path) -> float:
    """Return the seconds of decoding every input once and encoding the product once."""
    arrays = [opened.array(Field(opened).variable_id) for opened in (*inputs, product)]
    plain = [
        zarr.open_array(opened.url, path=array.basename, mode="r", zarr_format=2)
        for opened, array in zip((*inputs, product), arrays, strict=True)
    ]
    target = zarr.create_array(
        str(folder / "floor.zarr"), shape=plain[-1].shape, chunks=plain[-1].chunks, dtype="<f4",
        zarr_format=2, compressors=numcodecs.get_codec(COMPRESSOR), fill_value=np.nan,
    )  # fmt: skip
    taken = 0.0
    for array in plain:
        for part in blocks.slabs(array.shape[0], array.chunks[0]):
            begin = time.perf_counter()
            values = array[part]
            if array is plain[-1]:
                begin = time.perf_counter()  # the product is not decoded, only encoded
                target[part] = values
            taken += time.perf_counter() - begin
    return taken


def size(*stores: Store) -> int:
    return sum(p.stat().st_size for s in stores for p in Path(s.url).rglob("*") if p.is_file())


def measure(n_lat: int, n_lon: int, years: int) -> dict[str, Any]:
    """Return the figures of P4."""
    zarr.config.set({"threading.max_workers": THREADS, "async.concurrency": 4})
    fine = Grid.from_centres(40 + 0.1 * np.arange(n_lat), 0.1 * np.arange(n_lon))
    grid = coarse(fine)
    days = Days.range("1995-01-01", f"{1994 + years}-12-31", "standard")
    future = Days.range("2015-01-01", f"{2014 + years}-12-31", "noleap")
    past = Days.range("1995-01-01", f"{1994 + years}-12-31", "noleap")
    seconds: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        blocks.engine("threads", threads=THREADS, mem_mb=4000) as mapper,
    ):
        chain = Chain(Path(name), map=mapper)
        observed = reference(chain, days, fine)
        rng = np.random.default_rng(1)
        hist, scen = (
            chain.daily(
                "simulation", label, "tasmax", axis, grid,
                (289 + 9 * np.sin(np.arange(len(axis)) * 2 * np.pi / 365)[:, None, None]
                 + rng.standard_normal((len(axis), *grid.shape)) * 3).astype("f4"),
            )
            for label, axis in (("hist", past), ("scen", future))
        )  # fmt: skip
        train = ("1995-01-01", f"{1994 + years}-12-31")
        chain.weights("warm", grid, fine, "bilinear")  # compiles
        with timed(seconds, "coarsen"):
            ref = chain.coarsen("c", observed, grid)
        with timed(seconds, "climatology"):
            clim_fine = chain.climatology("fine", observed, train)
            clim_coarse = chain.climatology("coarse", ref, train)
        with timed(seconds, "adjust"):
            adjusted = chain.adjust("a", ref, hist, scen, train=train)
        with timed(seconds, "weights"):
            bilinear = chain.weights("b", grid, fine, "bilinear")
        with timed(seconds, "bcsd"):
            from finescale import bcsd

            work = replace(chain.job("bcsd", "p", variable_id="tasmax"), map=mapper)
            bcsd.run(
                work, adjusted=adjusted, coarse_climatology=clim_coarse,
                fine_climatology=clim_fine, weights=bilinear, variable_id="tasmax", calendar=None,
                attributes={}, interpolation="bilinear", fill="nearest",
            )  # fmt: skip
            product = chain.keep(work)
        least = floor([observed, hist, scen], product, Path(name))
        shared = size(observed, ref, clim_fine, clim_coarse, bilinear) / MODELS
        written = size(product, adjusted) + shared
        made = size(product)
    ours = sum(seconds.values())
    return {
        "P4": {
            "what": f"BCSD of tasmax, {n_lat * n_lon} cells, {years} years, {THREADS} threads",
            "ours": round(ours, 2),
            "peers": {"floor": round(least, 2)},
            "ratio": {
                "time / floor": round(ours / least, 2),
                "bytes written / product": round(written / made, 3),
            },
            "memory": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
            "unit": "s",
            "goal": "time / floor <= 2, bytes <= 1.3",
            "met": ours / least <= GOAL and written / made <= 1.3,
            "stages": seconds,
            "command": "./run bench P4",
        }
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lat", type=int, default=288)
    parser.add_argument("--lon", type=int, default=352)
    parser.add_argument("--years", type=int, default=20)
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.lat, chosen.lon, chosen.years), indent=1))
