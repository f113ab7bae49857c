"""What rechunking costs: `./run bench P2`.

A year of a global quarter-degree field goes from daily chunks to whole series, under 600 MB and
with 2 threads: by the two passes that stage `reference` makes, by the stage itself, by Dask, by
rechunker (on Zarr 2, in an environment of its own). Beside them a plain copy, the least that
reading and writing these bytes takes. Each runs in a process of its own, in turns; its peak is
that of the whole process.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import QUICK, peak_mb, publish, python_of

SHAPE = (60, 181, 360) if QUICK else (366, 721, 1440)
DAILY, SERIES = (1, *SHAPE[1:]), (SHAPE[0], 48, 48)
THREADS = 2
MEMORY_MB = 600
LIBRARIES_MB = 240
"""What Python and the stage's libraries take of it."""
ROOM_MB = MEMORY_MB - LIBRARIES_MB
STAGE_MB = 1200
"""The least its bands of all columns need is 1080."""
ROUNDS = 1 if QUICK else 3
GOAL = 1.15
OURS = "rechunk"
COMMITTED, STAGE = f"{OURS}, checked and committed", "stage reference"
COPIES = {"copy 1x30": (1, 30), "copy 2x15": (2, 15), "copy 2x5": (2, 5)}
"""Callers of zarr and days at a time; the fastest one counts."""

# What a process of its own does: it imports only what it measures.


def passes(folder: Path, *, contract: bool) -> Callable[[], None]:
    """Return the stage's two passes, on bare zarr arrays or with all that a commit takes."""
    from finescale.blocks import name, tiles
    from finescale.engines import engine
    from finescale.rechunk import Scratch, block_lengths
    from finescale.store import open_store

    block = block_lengths(SHAPE, DAILY, SERIES, room=ROOM_MB * 1_000_000 // THREADS)
    scratch = Scratch(str(folder / "scratch"), SHAPE, block, SERIES)
    source = open_store(str(folder / "x.zarr")).array("tas") if contract else opened(folder)
    writer = written(folder / "out.zarr", SERIES) if contract else None
    target = None if contract else created(folder, SERIES)

    def write(tile: Any) -> None:
        region = slice(0, SHAPE[0]), tile.lat, tile.lon
        values = scratch.read(*region)
        if writer is not None:
            writer.write_block(name(tile), [("tas", region, values)])
        elif target is not None:
            target[region] = values

    def run() -> None:
        with engine("threads", threads=THREADS, mem_mb=MEMORY_MB) as mapped:
            mapped(lambda region: scratch.put(region, source[region]), scratch.blocks())
            mapped(write, tiles(SHAPE, SERIES))
        scratch.clear()
        if writer is not None:
            writer.commit()

    return run


def stage(folder: Path) -> Callable[[], None]:
    """Return the stage as its script runs it: sources read by xarray, float64 until written."""
    from finescale import domains, reference, resolve
    from finescale.engines import engine
    from finescale.job import Job

    facets = {"reference": "x", "variable_id": "tas"}
    request = {"name": "x", "season": None, "facets": facets, "path": str(folder / "x.zarr")}
    entry, grid = resolve.describe({**request, "variable_id": "tas"})

    def run() -> None:
        with engine("threads", threads=THREADS, mem_mb=MEMORY_MB) as mapped:
            work = Job(
                "reference", str(folder / "reference" / "x"), "ab" * 32, map=mapped,
                lock={"sources": {"x": entry}}, threads=THREADS, memory_mb=STAGE_MB,
            )  # fmt: skip
            reference.run(
                work, source=entry["content"], variable_id="tas", period=tuple(entry["span"]),
                select=domains.select_box(grid, None, None, where="x").parameters(),
                season=None, attributes={},
            )  # fmt: skip

    return run


def copy(folder: Path, *, callers: int, days: int) -> Callable[[], None]:
    """Return a copy of the source, its chunks unchanged."""
    from concurrent.futures import ThreadPoolExecutor

    from finescale.blocks import slabs

    source, target = opened(folder), created(folder, DAILY)

    def part(time: slice) -> None:
        target[time] = source[time]

    def run() -> None:
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(part, slabs(SHAPE[0], days)))

    return run


def by_dask(folder: Path) -> Callable[[], None]:
    import dask
    import dask.array

    source, target = opened(folder), created(folder, SERIES)

    def run() -> None:
        with dask.config.set(scheduler="threads", num_workers=THREADS):
            dask.array.from_zarr(source).rechunk(SERIES).store(target, lock=False)

    return run


def by_rechunker(folder: Path) -> Callable[[], None]:
    import dask
    import numcodecs
    import rechunker
    import zarr

    numcodecs.blosc.use_threads = False
    source = zarr.open_array(str(folder / "x.zarr" / "tas"), mode="r")
    plan = rechunker.rechunk(
        source,
        SERIES,
        max_mem=ROOM_MB * 1_000_000 // THREADS,
        target_store=str(folder / "out.zarr"),
        temp_store=str(folder / "scratch"),
        target_options={"compressor": source.compressor},
    )

    def run() -> None:
        with dask.config.set(scheduler="threads", num_workers=THREADS):
            plan.execute()

    return run


CANDIDATES: dict[str, Callable[[Path], Callable[[], None]]] = {
    **{name: partial(copy, callers=callers, days=days) for name, (callers, days) in COPIES.items()},
    OURS: partial(passes, contract=False),
    COMMITTED: partial(passes, contract=True),
    STAGE: stage,
    "dask": by_dask,
    "rechunker 0.5.4, zarr 2": by_rechunker,
}


def opened(folder: Path) -> Any:
    import zarr

    return zarr.open_array(str(folder / "x.zarr"), path="tas", mode="r", zarr_format=2)


def created(folder: Path, chunks: tuple[int, ...]) -> Any:
    import numcodecs
    import numpy as np
    import zarr

    from finescale.store import COMPRESSOR

    return zarr.create_array(
        str(folder / "out.zarr"), shape=SHAPE, chunks=chunks, dtype="<f4", zarr_format=2,
        compressors=numcodecs.get_codec(COMPRESSOR), fill_value=np.nan,
    )  # fmt: skip


def written(url: Path, chunks: tuple[int, ...]) -> Any:
    """Return the writer of a store of this field."""
    from dataclasses import replace

    import numpy as np

    from finescale import fields
    from finescale.calendars import Days
    from finescale.grids import Grid
    from finescale.store import Header, Writer

    days = Days.range("2000-01-01", "2000-12-31", "standard")[: SHAPE[0]]
    lat, lon = np.linspace(-90, 90, SHAPE[1]), np.arange(SHAPE[2]) * 360 / SHAPE[2]
    grid = Grid.from_centres(lat, lon)
    arrays = fields.declare("tas", days, grid, layout="tiles", nan="never")
    arrays["tas"] = replace(arrays["tas"], chunks=chunks)
    return Writer(str(url), Header("reference", "ab" * 32, {}, {}), arrays).create({})


def make_source(folder: Path) -> Callable[[], None]:
    """Return what writes a year of temperatures with noise."""
    import numpy as np

    from finescale.blocks import slabs

    def run() -> None:
        rng = np.random.default_rng(0)
        north = np.linspace(-1, 1, SHAPE[1])[:, None]
        mean = (290 - 40 * np.abs(north) ** 1.5 + np.zeros(SHAPE[2])).astype(np.float32)
        writer = written(folder / "x.zarr", DAILY)
        every = (slice(0, SHAPE[1]), slice(0, SHAPE[2]))
        for days in slabs(SHAPE[0], 30):
            noise = rng.standard_normal((days.stop - days.start, *SHAPE[1:]), np.float32)
            writer.write_block(f"{days.start}", [("tas", (days, *every), mean + 3 * noise)])
        writer.commit()

    return run


def alone(name: str, folder: Path) -> dict[str, float]:
    """Return what one candidate took, in this process."""
    import zarr

    if zarr.__version__[0] == "3":
        zarr.config.set({"threading.max_workers": THREADS, "async.concurrency": 4})
    run = make_source(folder) if name == "source" else CANDIDATES[name](folder)
    begin, cpu = time.perf_counter(), time.process_time()
    run()
    return {
        "seconds": round(time.perf_counter() - begin, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_MB": peak_mb(),
    }


# What compares them.


def apart(name: str, folder: Path) -> dict[str, float]:
    """Return what one candidate took, in a process of its own; its output is removed."""
    python, environment = sys.executable, dict(os.environ)
    if name.startswith("rechunker "):
        python = python_of(".venv-rechunker", "rechunker-requirements.lock")
        environment.pop("PYTHONPATH", None)  # ours
    command = [python, __file__, "--alone", name, str(folder), *["--quick"] * QUICK]
    try:
        ended = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
    finally:
        for left in ("out.zarr", "out.zarr.journal", "scratch", "reference"):
            shutil.rmtree(folder / left, ignore_errors=True)
        os.sync()  # nobody pays for what the one before has left to write
    return json.loads(ended.stdout)


def measure() -> None:
    """Publish medians of each candidate, and the ratio to the fastest copy of the same round."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in CANDIDATES}
    failed = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        apart("source", folder)
        for _ in range(ROUNDS):
            for name in [name for name in CANDIDATES if name not in failed]:
                try:
                    taken[name].append(apart(name, folder))
                except subprocess.CalledProcessError as error:
                    failed[name] = str(error)
    median = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in taken.items()
        if name not in failed
    }

    def ratio(name: str, key: str) -> float:
        copies = zip(*(taken[copy] for copy in COPIES), strict=True)
        fastest = [min(run[key] for run in runs) for runs in copies]
        each = (run[key] / least for run, least in zip(taken[name], fastest, strict=True))
        return round(statistics.median(each), 2)

    peak = median[OURS]["peak_MB"]
    publish(
        "P2",
        what=f"rechunk {SHAPE} float32, {DAILY} -> {SERIES}, {MEMORY_MB} MB, {THREADS} threads",
        ours=median[OURS]["seconds"],
        unit="s",
        peers={n: run["seconds"] for n, run in median.items() if n not in (OURS, COMMITTED, STAGE)},
        ratio={
            "the fastest copy": ratio(OURS, "seconds"),
            "with checked reads, contract, journal and commit": ratio(COMMITTED, "seconds"),
            "stage reference": ratio(STAGE, "seconds"),
        },
        goal=f"<= {GOAL} of the fastest copy, < {MEMORY_MB} MB",
        met=ratio(OURS, "seconds") <= GOAL and peak < MEMORY_MB,
        memory=int(peak),
        details={
            **median,
            "CPU seconds / those of the cheapest copy": {
                name: ratio(name, "cpu_seconds") for name in (OURS, COMMITTED, STAGE)
            },
            **failed,
        },
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        print(json.dumps(alone(sys.argv[2], Path(sys.argv[3]))))
    else:
        measure()
