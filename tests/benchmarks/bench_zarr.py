"""Zarr's settings, each against today's: `./run bench zarr`.

Synthetic weather on a fine grid, float32 as a product has it: temperature, whose last digits are
noise to a compressor, and precipitation, of which half are zeros. Codecs work on chunks alone, in
one thread, by processor time, in turns. Chunk shapes and concurrency go through Zarr and files.
Nothing is rounded: a store holds what was computed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from bench import QUICK, best_of, publish
from numpy.typing import NDArray

from finescale.blocks import slabs
from finescale.calendars import Days
from finescale.chunking import SLAB, TILE
from finescale.store import COMPRESSOR, statistics
from finescale.synthetic import World, read_simulation

SIDE, LAST = (48, "2000-12-30") if QUICK else (96, "2001-12-30")
COARSE_SIDE, COARSE_LAST = (24, "2001-12-30") if QUICK else (24, "2029-12-30")
ROUNDS = 1 if QUICK else 3
LEVELS = {"lz4": (1, 5, 9), "zstd": (1, 3, 5)}
SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
BLOCKS = {"blocks of 128 kB": 2**17, "256 kB": 2**18, "512 kB": 2**19, "1 MB": 2**20, "4 MB": 2**22}


def blosc(name: str, level: int, shuffle: str, block: int = 0) -> dict[str, Any]:
    """Return the setting of a codec; a block of 0 bytes is Blosc's own choice."""
    number = SHUFFLES.index(shuffle)
    return {"id": "blosc", "cname": name, "clevel": level, "shuffle": number, "blocksize": block}


CODECS: dict[str, dict[str, Any]] = {
    **{
        f"blosc {name} {level} {shuffle}": blosc(name, level, shuffle)
        for name, levels in LEVELS.items()
        for level, shuffle in product(levels, SHUFFLES)
    },
    "blosc zstd 9 shuffle": blosc("zstd", 9, "shuffle"),
    **{
        f"blosc zstd 1 shuffle, {label}": blosc("zstd", 1, "shuffle", block)
        for label, block in BLOCKS.items()
    },
    **{
        f"blosc {name} {level} {shuffle}, 1 MB": blosc(name, level, shuffle, 2**20)
        for name, level, shuffle in (
            ("zstd", 3, "shuffle"), ("zstd", 1, "bitshuffle"), ("lz4", 5, "shuffle"),
            ("lz4", 5, "bitshuffle"),
        )
    },
    "zstd 1": {"id": "zstd", "level": 1},
    "zstd 3": {"id": "zstd", "level": 3},
    "gzip 1": {"id": "gzip", "level": 1},
}  # fmt: skip
TODAY = next(name for name, codec in CODECS.items() if codec == COMPRESSOR)
SHAPES = ((366, 48, 48), (366, 24, 24), (731, 48, 48), (92, 96, 96), (92, 48, 48), (31, 96, 96))
COARSE_SHAPES = tuple((10_800, side, side) for side in (6, 8, 12, 24))
"""Whole series: 1.6, 2.8, 6.2 and 25 MB of thirty years, without padding at the edges."""
CONCURRENCY, CALLERS = (1, 2, 4, 8), (1, 2)
ALL_BUT = 1.05
"""Another setting counts as better from this ratio on."""
Values = NDArray[np.float32]


def weather(variable_id: str, side: int = SIDE, last: str = LAST) -> Values:
    """Return days of a model whose cells are fine ones: terrain, and no gaps."""
    world = World(n_lat=side, n_lon=side, ratio=1, resolution=0.1)
    days = Days.range("2000-01-01", last, "360_day")
    values = read_simulation(world, variable_id, "FS-A", "historical", "r1i1p1f1", days)
    return np.ascontiguousarray(values[:, :side, :side])


def cut(values: Values, shape: tuple[int, ...]) -> list[Values]:
    """Return the whole chunks of a field."""
    parts = product(*map(slabs, values.shape, shape))
    return [np.ascontiguousarray(values[part]) for part in parts]


def by_codec(values: Values) -> dict[str, dict[str, float]]:
    """Return encoding and decoding [MB/s], and size as a share, of each codec."""
    chunks = cut(values, (SLAB, TILE, TILE))
    megabytes = values.nbytes / 1e6
    encoded, work = {}, {}
    for name, setting in CODECS.items():
        codec = numcodecs.get_codec(setting)
        encoded[name] = [codec.encode(chunk) for chunk in chunks]
        work["encode", name] = partial(each, codec.encode, chunks)
        work["decode", name] = partial(each, codec.decode, encoded[name])
    taken = best_of(ROUNDS, work, time.process_time)
    return {
        name: {
            "encode MB/s": round(megabytes / taken["encode", name]),
            "decode MB/s": round(megabytes / taken["decode", name]),
            "size": round(sum(len(part) for part in parts) / values.nbytes, 3),
        }
        for name, parts in encoded.items()
    }


def each(function: Callable[[Any], Any], items: list[Any]) -> None:
    for item in items:
        function(item)


def dominance(found: Mapping[str, Mapping[str, float]]) -> tuple[float, str]:
    """Return by how much today's codec loses in all of speed and size at once, and to whom."""
    ours = found[TODAY]
    return max(
        (
            min(
                other["encode MB/s"] / ours["encode MB/s"],
                other["decode MB/s"] / ours["decode MB/s"],
                ours["size"] / other["size"],
            ),
            name,
        )
        for name, other in found.items()
        if name != TODAY
    )


@contextmanager
def calls() -> Iterator[Counter[str]]:
    """Count what this process asks of the file system: opened, renamed, made or listed.

    Python keeps the hook until it ends; it stops counting.
    """
    found: Counter[str] = Counter()
    counting = True

    def hook(event: str, _: Any) -> None:
        if counting and (event == "open" or event.startswith("os.")):
            found[event] += 1

    sys.addaudithook(hook)
    try:
        yield found
    finally:
        counting = False


def create(url: Path, values: Values, chunks: tuple[int, ...]) -> Any:
    shutil.rmtree(url, ignore_errors=True)
    return zarr.create_array(
        str(url), shape=values.shape, chunks=chunks, dtype="<f4", zarr_format=2,
        compressors=numcodecs.get_codec(COMPRESSOR), fill_value=np.nan,
    )  # fmt: skip


def by_shape(
    values: Values, shapes: Sequence[tuple[int, ...]], folder: Path
) -> dict[str, dict[str, float]]:
    """Return what a chunk shape costs: Zarr's time, bytes, calls, and values read in vain."""
    arrays, work = {}, {}
    megabytes = values.nbytes / 1e6
    for shape in shapes:
        chunks = tuple(map(min, shape, values.shape))
        arrays[shape] = create(folder / "-".join(map(str, shape)), values, chunks)
        work["write", shape] = partial(arrays[shape].__setitem__, slice(None), values)
        work["read", shape] = partial(arrays[shape].__getitem__, slice(None))
    taken = best_of(ROUNDS, work, time.process_time)
    found = {}
    for shape, array in arrays.items():
        with calls() as made:
            array[...] = values
        stored = array.nbytes_stored()
        rows = array.chunks
        found[str(rows)] = {
            "write MB/s": round(megabytes / taken["write", shape]),
            "read MB/s": round(megabytes / taken["read", shape]),
            "size": round(stored / values.nbytes, 3),
            "chunk MB": round(4 * float(np.prod(rows)) / 1e6, 2),
            "calls a MB written": round(made.total() / megabytes, 2),
            "decoded / asked, a map of 31 days": round(-(-31 // rows[0]) * rows[0] / 31, 1),
            "decoded / asked, one series": rows[1] * rows[2],
        }
    return found


def by_concurrency(values: Values, folder: Path) -> dict[str, dict[str, float]]:
    """Return wall-clock speeds [MB/s] of calls that read or write a tile with all of its time."""
    chunk = 31, TILE, TILE
    """Small, so that a call has many chunks to have under way."""
    array = create(folder / "concurrent", values, chunk)
    regions = list(product([slice(None)], *(slabs(n, TILE) for n in values.shape[1:])))
    work: dict[tuple[str, int, int], Callable[[], Any]] = {}

    def run(function: Callable[[Any], Any], concurrency: int, callers: int) -> None:
        settings = {"async.concurrency": concurrency, "threading.max_workers": callers}
        with zarr.config.set(settings), ThreadPoolExecutor(callers) as pool:
            list(pool.map(function, regions))

    def write(region: Any) -> None:
        array[region] = values[region]

    for n, callers in product(CONCURRENCY, CALLERS):
        work["write", n, callers] = partial(run, write, n, callers)
        work["read", n, callers] = partial(run, array.__getitem__, n, callers)
    taken = best_of(2 * ROUNDS, work)
    return {
        f"async.concurrency {n}, {callers} threads": {
            f"{verb} MB/s": round(values.nbytes / 1e6 / taken[verb, n, callers])
            for verb in ("write", "read")
        }
        for n, callers in product(CONCURRENCY, CALLERS)
    }


def main() -> None:
    """Measure and print the result."""
    data = {name: weather(name) for name in ("tasmax", "pr")}
    codecs = {name: by_codec(values) for name, values in data.items()}
    checked = best_of(ROUNDS, {"x": partial(statistics, data["tasmax"])}, time.process_time)["x"]
    with tempfile.TemporaryDirectory() as folder:
        shapes = {name: by_shape(values, SHAPES, Path(folder)) for name, values in data.items()}
        series = by_shape(weather("tasmax", COARSE_SIDE, COARSE_LAST), COARSE_SHAPES, Path(folder))
        shapes["tasmax, coarse"] = series
        concurrent = by_concurrency(data["tasmax"], Path(folder))
    losses = {name: dominance(found) for name, found in codecs.items()}
    publish(
        "zarr",
        what=f"{TODAY}, {next(iter(data.values())).nbytes / 1e6:.0f} MB of tasmax and of pr",
        ours={name: found[TODAY] for name, found in codecs.items()},
        ratio={f"{name}, {best}": round(loss, 2) for name, (loss, best) in losses.items()},
        goal=f"<= {ALL_BUT}: no other codec is better in encoding, decoding and size at once",
        met=all(loss <= ALL_BUT for loss, _ in losses.values()),
        details={
            **{f"{v}: {n}": row for v, found in codecs.items() for n, row in found.items()},
            **{f"{v}: chunks {n}": row for v, found in shapes.items() for n, row in found.items()},
            **concurrent,
            "beside them, a contract's check MB/s": data["tasmax"].nbytes / 1e6 / checked,
        },
    )


if __name__ == "__main__":
    main()
