"""Rechunking: a source in whole maps, or any other chunks, read once for a store in tiles.

Where a chunk of the source serves many blocks of the store, it is not read again for each: values
go through scratch,

    source                  scratch                           store
    whole maps, some days   the same, but the part of each    some rows, many days
                            block of the store in one piece

so that everything is read once, and a job holds no more than its memory allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import fsspec
import numpy as np
import zarr
from numpy.typing import NDArray

from finescale import blocks
from finescale.blocks import Tile, slabs
from finescale.errors import ConfigError, StoreError
from finescale.job import Job
from finescale.memory import BASE_MB
from finescale.storage import Objects, reported
from finescale.store import Region, Writer

REREADS = 1.8
"""Reads of a chunk of the source that cost as much as one by way of scratch, measured."""
BLOCK_BYTES = 200_000_000
"""Largest block that goes into scratch: a larger one is no faster."""
ITEM = 4
"""Bytes of a value."""

Lengths = tuple[int, ...]
"""A shape, or the lengths of a chunk: (time, lat, lon)."""
Read = Callable[[slice, slice, slice], NDArray[np.float32]]
"""Days, rows, columns -> values (time, lat, lon)."""


def once(
    work: Job, writer: Writer | None, tasks: Sequence[Tile], read: Read, *, source: Lengths | None
) -> Read:
    """Return what to read the blocks of a store from: `read` itself, or scratch filled by it.

    Scratch lies beside the store and goes with the lease of the job.

    Parameters
    ----------
    writer
        Of a store whose first array is (time, lat, lon); None if there is nothing to write.
    tasks
        All tiles of the store; those left to write count.
    read
        The source, in the store's coordinates.
    source
        Lengths of the chunks that it decodes; None if it has none.

    Raises
    ------
    ConfigError
        The job's memory is too small for the chunks (`block_lengths`).
    """
    if writer is None or source is None:
        return read
    shape = next(iter(writer.arrays.values())).shape
    left = [_region(tile, shape[0]) for tile in unfinished(writer, tasks)]
    if rereads(left, source) <= REREADS:
        return read
    target = tuple(max(map(_length, parts)) for parts in zip(*left, strict=True))
    room = (work.memory_mb - BASE_MB) * 1_000_000 // work.threads
    block = block_lengths(shape, source, target, room=room)
    scratch = Scratch(f"{work.output}.scratch", shape, block, target)
    work.closing.callback(scratch.clear)  # before the lease goes: another run has the same name
    scratch.clear()
    work.map(lambda region: scratch.put(region, read(*region)), scratch.blocks())
    return scratch.read


def unfinished(writer: Writer, tasks: Sequence[Tile]) -> list[Tile]:
    """Return the tiles that neither an earlier attempt has written nor a store under repair has."""
    sound = writer.repair.sound.keys() if writer.repair else set()
    return [
        tile
        for tile in tasks
        if blocks.name(tile) not in writer.finished
        and not blocks.keys(tile, writer.arrays) <= sound
    ]


def rereads(regions: Sequence[Region], chunks: Lengths) -> float:
    """Return how often a chunk is read, on average, if each region is read by itself."""
    read = [
        tuple(part.start // length for part, length in zip(cut, chunks, strict=True))
        for region in regions
        for cut in product(*map(_cut, region, chunks))
    ]
    return len(read) / max(len(set(read)), 1)


def block_lengths(shape: Lengths, source: Lengths, target: Lengths, *, room: int) -> Lengths:
    """Return what to read at once: whole chunks of the source, as many as memory allows.

    Parameters
    ----------
    shape, source, target
        Lengths of the field, of the chunks that are read, of the chunks that are written.
    room
        Memory of one thread [bytes]: for a block, and for the chunks on their way into it or out.

    Raises
    ------
    ConfigError
        The chunks are too large for it.

    References
    ----------
    The planner is rechunker's, https://rechunker.readthedocs.io/en/latest/algorithm.html.
    """
    from rechunker.algorithm import rechunking_plan

    chunk, series = ITEM * prod(source), ITEM * prod(target)
    # zarr reads so many chunks at once, encoded and decoded; it writes one series as it was
    # gathered, one padded and one encoded.
    beside = max(2 * zarr.config.get("async.concurrency") * chunk, 3 * series)
    least = beside + max(chunk, series)
    if room < least:
        raise ConfigError(
            f"rechunk: chunks of {source} and {target} need {-(-least // 10**6)} MB for each "
            f"thread beside {BASE_MB} for the job, found {room // 10**6}; raise its mem_mb"
        )
    most = min(room - beside, max(BLOCK_BYTES, chunk, series))
    read, _, _ = rechunking_plan(shape, source, target, ITEM, most, consolidate_writes=False)
    # The plan may end a block within a chunk, which would then be read twice.
    return tuple(r if r >= n else r // c * c for r, c, n in zip(read, source, shape, strict=True))


@dataclass(frozen=True)
class Scratch:
    """A field on its way: an object for each block, in it the part of each chunk in one piece.

    `shape` of the field, lengths of a `block` and of the chunks of the `target`.
    """

    url: str
    shape: Lengths
    block: Lengths
    target: Lengths

    def blocks(self) -> list[Region]:
        """Return the regions of the blocks."""
        return list(product(*map(slabs, self.shape, self.block)))

    def put(self, region: Region, values: NDArray[np.float32]) -> None:
        """Write a block: row by row of chunks, in each row chunk by chunk."""
        _, lat, lon = region
        with reported(self.url), fsspec.open(f"{self.url}/{_name(region)}", "wb") as file:
            for rows, columns in product(_cut(lat, self.target[1]), _cut(lon, self.target[2])):
                part = values[:, _within(rows, lat), _within(columns, lon)]
                file.write(np.ascontiguousarray(part))

    def read(self, time: slice, lat: slice, lon: slice) -> NDArray[np.float32]:
        """Return the values (time, lat, lon) of a block of the store, or of some of its days.

        Raises
        ------
        StoreError
            A block of scratch is shorter than it was written.
        """
        fs, root = fsspec.core.url_to_fs(self.url)
        whole = time, lat, lon
        found = np.empty([_length(part) for part in whole], np.float32)
        for part in product(*map(_cut, whole, self.block)):
            days, rows, columns = part
            here = found[tuple(map(_within, part, whole))]
            piece = here if here.flags.c_contiguous else np.empty(here.shape, np.float32)
            block = self._around(part)
            before = _start(rows, columns, block) * _length(block[0])
            before += (days.start - block[0].start) * piece[0].size
            with reported(self.url), fs.open(f"{root}/{_name(block)}", "rb") as file:
                file.seek(before * ITEM)
                if file.readinto(piece) != piece.nbytes:
                    raise StoreError(f"{self.url}: a block is not whole; run the workflow again")
            if piece is not here:
                here[...] = piece
        return found

    def clear(self) -> None:
        """Remove all blocks."""
        Objects(self.url).clear()

    def _around(self, part: Region) -> Region:
        """Return the region of the block that holds a part of it."""
        starts = [p.start // length * length for p, length in zip(part, self.block, strict=True)]
        stops = map(min, map(sum, zip(starts, self.block, strict=True)), self.shape)
        return tuple(map(slice, starts, stops))


def _region(tile: Tile, n_time: int) -> Region:
    """Return time, rows and columns of a tile."""
    return tile.time or slice(0, n_time), tile.lat, tile.lon


def _length(part: slice) -> int:
    return int(part.stop - part.start)


def _name(block: Region) -> str:
    return "-".join(str(part.start) for part in block)


def _start(rows: slice, columns: slice, block: Region) -> int:
    """Return how many cells of a block lie before those of a chunk."""
    _, lat, lon = block
    return (rows.start - lat.start) * _length(lon) + _length(rows) * (columns.start - lon.start)


def _cut(part: slice, length: int) -> list[slice]:
    """Return a slice cut at the multiples of `length`."""
    edges = range(part.start // length * length, part.stop, length)
    return [slice(max(e, part.start), min(e + length, part.stop)) for e in edges]


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)
