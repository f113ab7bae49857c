"""P4: BCSD of one variable from committed inputs to the product: `./run bench P4`.

The floor is what nobody can avoid: every input decoded once and the product encoded once, by Zarr
alone, in regions of many chunks, in the same process with as many threads.

The case scales: `./run python tests/benchmarks/bench_end_to_end.py --lat 721 --lon 1440 --years 2`
has the cells of a global quarter degree; a year of it takes 1.5 GB a store, so have 10 GB of disk.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numcodecs
import numpy as np
import zarr
from bench import QUICK, publish
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from chain import Chain

from finescale import bcsd, blocks, engines, fields
from finescale.blocks import tiles
from finescale.calendars import Days
from finescale.fields import Field
from finescale.grids import Grid
from finescale.job import Job
from finescale.store import COMPRESSOR, Piece, Store

THREADS, RATIO, GOAL, MOST_BYTES = 2, 8, 2.0, 1.3
N_LAT, N_LON, YEARS = (48, 64, 2) if QUICK else (288, 352, 20)
Seconds = dict[str, float]
"""Of the wall clock and of the processor."""
MODELS = 5
"""That the stores made of the reference alone are shared by."""


@contextmanager
def timed(into: dict[str, Seconds], name: str) -> Iterator[None]:
    """Add what is spent inside to that of a name."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spent = into.setdefault(name, {"seconds": 0.0, "CPU seconds": 0.0})
    spent["seconds"] += time.perf_counter() - wall
    spent["CPU seconds"] += time.process_time() - cpu


def reference(chain: Chain, days: Days, fine: Grid) -> Store:
    """Return a committed fine reference: a cycle, terrain, noise; sea in a corner."""
    work: Job = chain.job("reference", "ref", variable_id="tasmax")
    arrays = fields.declare("tasmax", days, fine, layout="tiles", nan="allowed")
    shape, chunks = arrays["tasmax"].shape, arrays["tasmax"].chunks
    cycle = (288 + 10 * np.sin(np.arange(shape[0]) * 2 * np.pi / 365.25)).astype("f4")

    def compute(tile: blocks.Tile) -> Iterator[Piece]:
        rng = np.random.default_rng([tile.lat.start, tile.lon.start])
        values = rng.standard_normal((shape[0], *tile.shape), dtype="f4") * 3
        values += cycle[:, None, None] + rng.standard_normal(tile.shape, dtype="f4") * 4
        if tile.lat.start == tile.lon.start == 0:
            values[:, :30, :30] = np.nan
        yield "tasmax", (slice(0, shape[0]), tile.lat, tile.lon), values

    work.fill(work.create(arrays, {}), compute, tiles(shape, chunks))
    return chain.keep(work)


def centred(n: int) -> NDArray[np.float64]:
    """Return centres a tenth of a degree apart around 0."""
    return np.linspace(-0.05, 0.05, n) * (n - 1)


def coarse(fine: Grid) -> Grid:
    """Return the grid whose cells are blocks of the fine one; those at an end may be smaller."""
    axes = []
    for axis in (fine.lat, fine.lon):
        starts = np.arange(0, axis.size, RATIO)
        axes.append(np.add.reduceat(axis, starts) / np.diff(starts, append=axis.size))
    return Grid.from_centres(*axes)


def floor(inputs: list[Store], product: Store, folder: Path) -> Seconds:
    """Return what decoding every input once and encoding the product once takes."""
    arrays = [opened.array(Field(opened).variable_id) for opened in (*inputs, product)]
    plain = [
        zarr.open_array(opened.url, path=array.basename, mode="r", zarr_format=2)
        for opened, array in zip((*inputs, product), arrays, strict=True)
    ]
    target = zarr.create_array(
        str(folder / "floor.zarr"), shape=plain[-1].shape, chunks=plain[-1].chunks, dtype="<f4",
        zarr_format=2, compressors=numcodecs.get_codec(COMPRESSOR), fill_value=np.nan,
    )  # fmt: skip
    taken: dict[str, Seconds] = {}
    for array in plain:
        for part in blocks.slabs(array.shape[0], array.chunks[0]):
            if array is not plain[-1]:
                with timed(taken, "floor"):
                    array[part]
                continue
            values = array[part]
            with timed(taken, "floor"):
                target[part] = values
    return taken["floor"]


def size(*stores: Store) -> int:
    return sum(p.stat().st_size for s in stores for p in Path(s.url).rglob("*") if p.is_file())


def measure(n_lat: int, n_lon: int, years: int) -> None:
    """Publish the figures of P4."""
    zarr.config.set({"threading.max_workers": THREADS, "async.concurrency": 4})
    fine = Grid.from_centres(centred(n_lat), centred(n_lon))
    grid = coarse(fine)
    days = Days.range("1995-01-01", f"{1994 + years}-12-31", "standard")
    future = Days.range("2015-01-01", f"{2014 + years}-12-31", "noleap")
    past = Days.range("1995-01-01", f"{1994 + years}-12-31", "noleap")
    seconds: dict[str, Seconds] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        engines.engine("threads", threads=THREADS, mem_mb=4000) as mapper,
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
    ours = {clock: sum(spent[clock] for spent in seconds.values()) for clock in least}
    ratio = {clock: ours[clock] / least[clock] for clock in least}
    publish(
        "P4",
        what=f"BCSD of tasmax, {n_lat * n_lon} cells, {years} years, {THREADS} threads",
        ours=ours["seconds"],
        unit="s",
        peers={"floor": least["seconds"]},
        ratio={
            "time / floor": ratio["seconds"],
            "CPU time / floor": ratio["CPU seconds"],
            "bytes written / product": written / made,
        },
        goal=f"<= {GOAL} of the floor by wall clock and by processor; bytes <= {MOST_BYTES}",
        met=max(ratio.values()) <= GOAL and written / made <= MOST_BYTES,
        details={**seconds, "floor": least},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lat", type=int, default=N_LAT)
    parser.add_argument("--lon", type=int, default=N_LON)
    parser.add_argument("--years", type=int, default=YEARS)
    parser.add_argument("--quick", action="store_true", help="small by default")
    chosen = parser.parse_args()
    measure(chosen.lat, chosen.lon, chosen.years)
