"""Blocks: one function mapped over tiles of a store, and where that runs.

A task is one tile: it reads regions of its inputs, computes, and hands regions to the writer.
Blocks never see each other, so neither tiling order, threads nor workers change a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finescale import store
from finescale.errors import ConfigError
from finescale.store import Array, Piece, Region, Writer

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]

JOB_RESERVE_MB = 450
"""Two Snakemakes (300) and a Dask scheduler with its client (150), measured."""
WORKER_MB = 800
"""Least memory worth a worker process of its own: the imports alone take 250."""


@dataclass(frozen=True)
class Tile:
    """Rows and columns of one task; all of time, or a slice of it."""

    lat: slice
    lon: slice
    time: slice | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Return the number of rows and columns."""
        return self.lat.stop - self.lat.start, self.lon.stop - self.lon.start

    def rows(self, n_lon: int) -> NDArray[np.int64]:
        """Return the flat cell numbers of the tile in a grid of `n_lon` columns."""
        lat = np.arange(self.lat.start, self.lat.stop)
        lon = np.arange(self.lon.start, self.lon.stop)
        return (lat[:, None] * n_lon + lon[None, :]).reshape(-1)


def tiles(shape: tuple[int, ...], chunks: tuple[int, ...]) -> list[Tile]:
    """Return the tiles of a (..., lat, lon) array, one per chunk column."""
    return [
        Tile(lat, lon)
        for lat in slabs(shape[-2], chunks[-2])
        for lon in slabs(shape[-1], chunks[-1])
    ]


def slabs(n: int, length: int) -> list[slice]:
    """Return 0..n in consecutive slices of `length`."""
    return [slice(start, min(start + length, n)) for start in range(0, n, length)]


Task = Tile | slice
"""A tile with all of time, or a slab of the first dimension."""


def name(task: Task) -> str:
    """Return the name of a task in the journal of its store."""
    ranges = [task] if isinstance(task, slice) else [task.time, task.lat, task.lon]
    return "_".join(f"{s.start}-{s.stop}" for s in ranges if s is not None)


def keys(task: Task, arrays: Mapping[str, Array]) -> set[str]:
    """Return the keys of the chunks that a task writes: of every array that has no values yet.

    An array without lat and lon has one row and column for each tile.
    """
    written = {name: array for name, array in arrays.items() if array.values is None}
    horizontal = next((a for a in written.values() if a.dims[-2:] == ("lat", "lon")), None)
    found: set[str] = set()
    for label, array in written.items():
        whole = tuple(slice(0, n) for n in array.shape)
        if isinstance(task, slice):
            region: Region = (task, *whole[1:])
        elif array.dims[-2:] == ("lat", "lon") or horizontal is None:
            leading = whole[:-2] if task.time is None else (task.time, *whole[1:-2])
            region = (*leading, task.lat, task.lon)
        else:
            row, column = (
                s.start // c
                for s, c in zip((task.lat, task.lon), horizontal.chunks[-2:], strict=True)
            )
            region = (*whole[:-2], slice(row, row + 1), slice(column, column + 1))
        found |= store.keys(label, array, region)
    return found


@dataclass(frozen=True)
class Fill:
    """The task of a block: write every piece that `compute` yields for it."""

    writer: Writer
    compute: Callable[[Any], Iterable[Piece]]

    def __call__(self, task: Task) -> None:
        """Compute and write one block."""
        rows = self.writer.write_block(name(task), self.compute(task))
        assert {row.key for row in rows} == keys(task, self.writer.arrays), name(task)


@contextmanager
def engine(kind: str, *, threads: int, mem_mb: int, scratch: str | None = None) -> Iterator[Mapper]:
    """Give a function that maps tasks, where the profile wants them to run.

    Parameters
    ----------
    kind
        `threads` of this process, or a `cluster` of Dask workers inside this job.
    threads, mem_mb
        What the job has.
    scratch
        Folder for spilling.
    """
    if kind == "threads":
        yield _in_threads(threads)
    elif kind == "cluster":
        with _cluster(threads, mem_mb, scratch) as client:
            yield _on_cluster(client)
    else:
        raise ConfigError(
            f"the profile's resource `dask` must be threads or cluster, found {kind!r}"
        )


def _in_threads(threads: int) -> Mapper:
    def run(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        if threads == 1:
            return [function(task) for task in tasks]
        import dask

        graph = [dask.delayed(function, pure=False)(task) for task in tasks]
        return list(dask.compute(*graph, scheduler="threads", num_workers=threads))

    return run


def cluster_sizes(threads: int, mem_mb: int) -> tuple[int, int, int]:
    """Return (workers, threads each, bytes each) for a job of `threads` and `mem_mb`.

    The limits sum to less than the job's memory: a worker that is killed by its nanny is
    restarted, a job that is killed by the kernel is lost.
    """
    room = mem_mb - JOB_RESERVE_MB
    if room < WORKER_MB:
        raise ConfigError(
            f"mem_mb={mem_mb} leaves {room} MB for Dask workers, which need {WORKER_MB}; "
            "raise the rule's mem_mb in the profile or use dask: threads"
        )
    workers = max(1, min(-(-threads // 4), room // WORKER_MB))
    return workers, max(1, threads // workers), int(room / workers * 1e6)


@contextmanager
def _cluster(threads: int, mem_mb: int, scratch: str | None) -> Iterator[Any]:
    import dask
    from distributed import Client
    from distributed.deploy.subprocess import SubprocessCluster

    workers, each, limit = cluster_sizes(threads, mem_mb)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        SubprocessCluster(
            n_workers=workers,
            host="127.0.0.1",
            worker_kwargs={
                "nthreads": each,
                "memory_limit": limit,
                "local_directory": scratch,
                "dashboard_address": None,
            },
            scheduler_kwargs={"dashboard_address": None},
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(workers, timeout=60)
        yield client


def _on_cluster(client: Any) -> Mapper:
    from distributed import as_completed

    def run(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        futures = client.map(function, tasks, pure=False)
        place = {future.key: n for n, future in enumerate(futures)}
        results: list[Any] = [None] * len(futures)
        for future, result in as_completed(futures, with_results=True):
            results[place[future.key]] = result
            future.release()  # a result that a worker keeps is computed again when that one dies
        return results

    return run
