"""What a plan takes: blocks, chunks, bytes, memory and time, from the shapes in it alone.

Bytes are of values as they are in memory, float32; on disk they are about two thirds of it. Time
is of one processor, from rates that a run measures (`benchmarks/` of Snakemake); the rates below
are of the quickstart on a small machine.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from finescale import words
from finescale.chunking import Shape, band, chunks
from finescale.config import Config, Prices
from finescale.plan import Artefact, Plan

START = 0.6
"""Of a job, before it does anything [CPU s]: Python, its libraries, compiled kernels from disk."""
ON_DISK = 0.67
"""Bytes on disk for each in memory: noisy daily temperature, compressed."""
RATES: dict[str, float] = {
    "reference": 0.09,
    "simulation": 0.6,
    "weights": 0.5,
    "coarsen": 0.02,
    "climatology": 0.02,
    "adjust": 0.57,
    "bcsd": 0.03,
    "qplad": 0.12,
    "analogs": 0.87,
    "maca": 0.12,
    "gard": 0.46,
    "interpolate": 0.045,
    "aggregate": 0.008,
    "evaluate": 0.03,
}
"""CPU seconds for a million values read or written, whichever are more."""
KNOWN = 5.0
"""Million values that these rates weigh as much as."""
MARGIN = 5.0
"""Predicted times that a job may take."""
LEAST_MINUTES = 10
"""That a job may take, however small: a busy node, a cold file system."""
COARSE = ("adjusted", "simulation", "apply_")
"""Beginnings of the roles whose days are those of a product."""


@dataclass(frozen=True)
class Work:
    """What making stores takes; `memory_mb` is of the largest job, `seconds` of one processor."""

    stores: int = 0
    blocks: int = 0
    chunks: int = 0
    read: int = 0
    written: int = 0
    memory_mb: int = 0
    seconds: float = 0.0

    def __add__(self, other: Work) -> Work:
        """Return the work of both."""
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)}
        return Work(**{**sums, "memory_mb": max(self.memory_mb, other.memory_mb)})


def work(artefact: Artefact, rates: Mapping[str, float] = RATES) -> Work:
    """Return what making one store takes."""
    size = shape(artefact)
    layout = chunk_shape(artefact)
    n_chunks = math.prod(-(-n // c) for n, c in zip(size, layout, strict=True))
    if artefact.stage == "reference" and not artefact.inputs:
        n_blocks = math.prod(-(-n // b) for n, b in zip(size, band(size), strict=False))
    else:
        n_blocks = math.prod(-(-n // c) for n, c in zip(size[-2:], layout[-2:], strict=True))
    written = 4 * math.prod(size)
    read = sum(4 * math.prod(shape(parent)) for parent in artefact.inputs.values()) or written
    seconds = START + rates[artefact.stage] * max(read, written) / 4e6
    return Work(1, n_blocks, n_chunks, read, written, artefact.mem_mb, seconds)


def disk_mb(artefact: Artefact) -> int:
    """Return what a job writes at most [MB]: its store, and scratch as large as that.

    Only the reference of a map that is too large for a block takes scratch.
    """
    size = shape(artefact)
    has_scratch = artefact.stage == "reference" and band(size)[1] < size[1]
    return 10 + math.ceil(4 * math.prod(size) * (2 if has_scratch else 1) / 1e6)


def minutes(artefact: Artefact, attempt: int = 1) -> int:
    """Return how long a job may take [min]: ample, since one that is cut off is done again.

    Rates are of one processor with nothing else to do, and a slow file system can be the limit.
    """
    predicted = MARGIN * work(artefact).seconds / 60
    return math.ceil(max(predicted, LEAST_MINUTES)) * 2 ** (attempt - 1)


def total(artefacts: Iterable[Artefact], rates: Mapping[str, float] = RATES) -> Work:
    """Return what making some stores takes."""
    return sum((work(artefact, rates) for artefact in artefacts), Work())


def chunk_shape(artefact: Artefact) -> Shape:
    """Return the chunk shape of the main array of a store."""
    size = shape(artefact)
    if artefact.stage in ("simulation", "coarsen", "adjust"):
        return chunks(size, "full_time")
    if artefact.stage in ("weights", "evaluate", "aggregate", "climatology"):
        return (size[0], *chunks(size, "tiles")[1:])
    return chunks(size, "tiles")


def shape(artefact: Artefact) -> Shape:
    """Return the shape (time or its like, lat, lon) of the main array of a store.

    Days are counted by dates of the standard calendar, so those of others are up to 1.5 % fewer.
    """
    parents, parameters = artefact.inputs, artefact.parameters
    if artefact.stage in ("reference", "simulation"):
        if parents:
            return shape(parents["tasmax"])
        rows, columns = parameters["select"]["lat"], parameters["select"]["lon"]
        width = sum(stop - start for start, stop in columns)
        return _days(*parameters["period"]), rows[1] - rows[0], width
    if artefact.stage == "weights":
        fine = max((parameters["src"], parameters["dst"]), key=lambda grid: len(grid["lat"]))
        return 4, len(fine["lat"]), len(fine["lon"])
    if artefact.stage == "coarsen":
        grid = parameters["grid"]
        return shape(parents["reference"])[0], len(grid["lat"]), len(grid["lon"])
    if artefact.stage == "climatology":
        return 366, *shape(parents["series"])[1:]
    if artefact.stage == "adjust":
        return shape(parents[parameters["target"]])
    if artefact.stage == "aggregate":
        days, *horizontal = shape(parents["product"])
        length = {"mon": 30.44, "yr": 365.25}[parameters["frequency"]]
        return max(round(days / length), 1), horizontal[0], horizontal[1]
    if artefact.stage == "evaluate":
        return 100, *shape(parents["product"])[1:]
    coarse = next(parents[role] for role in parents if role.startswith(COARSE))
    if artefact.stage == "analogs":
        return shape(coarse)[0], 1, parameters["n_analogs"]
    fine = parents.get("fine_climatology") or parents["climatology"]
    return shape(coarse)[0], *shape(fine)[1:]


def _days(first: str, last: str) -> int:
    """Return the days of a period; 30 February is a day of a 360-day year."""
    ends = [date(int(d[:4]), int(d[5:7]), min(int(d[8:]), 28)) for d in (first, last)]
    return (ends[1] - ends[0]).days + 1 + max(int(last[8:]) - 28, 0)


@dataclass(frozen=True)
class Stage:
    """A stage of a plan: how many stores it needs, how many there are, what the others take."""

    word: str
    stores: int
    work: Work

    @property
    def document(self) -> dict[str, Any]:
        """Return it as `finescale plan --json` prints it."""
        left = self.work
        return {
            "stage": self.word,
            "stores": self.stores,
            "committed": self.stores - left.stores,
            "to_make": left.stores,
            "blocks": left.blocks,
            "chunks": left.chunks,
            "bytes_read": left.read,
            "bytes_written": left.written,
            "memory_mb": left.memory_mb,
            "core_hours": round(left.seconds / 3600, 4),
        }


def forecast(
    plan: Plan, committed: Collection[str], rates: Mapping[str, float] = RATES
) -> list[Stage]:
    """Return what every stage of a plan needs; `committed` are sentinels that are there already."""
    stages = []
    for word in RATES:
        planned = plan.stage(word)
        left = total((a for a in planned if a.path not in committed), rates)
        if planned:
            stages.append(Stage(word, len(planned), left))
    return stages


def tell(config: Config, stages: Sequence[Stage]) -> list[str]:
    """Return a table of stages with its sum, and the cost if there are prices."""
    head = ("stage", "stores", "to make", "blocks", "chunks", "read", "written", "peak", "core h")
    left = sum((stage.work for stage in stages), Work())
    both = [*stages, Stage("all", sum(stage.stores for stage in stages), left)]
    rows = [
        (
            s.word, f"{s.stores}", f"{s.work.stores}", f"{s.work.blocks}", f"{s.work.chunks}",
            words.size(s.work.read), words.size(s.work.written), f"{s.work.memory_mb} MB",
            f"{s.work.seconds / 3600:.2g}",
        )
        for s in both
    ]  # fmt: skip
    first = f"{config.name}: {both[-1].stores} stores, {left.stores} to make below {config.stores}"
    return [first, "", *words.table([head, *rows]), *_cost(config.prices, left)]


def digest(config: Config, stages: Sequence[Stage]) -> list[str]:
    """Return in five lines what a run will take."""
    left = sum((stage.work for stage in stages), Work())
    made = sum(stage.stores for stage in stages) - left.stores
    peak = max(stages, key=lambda stage: stage.work.memory_mb)
    return [
        f"{config.name}: {left.stores} stores to make, {made} there, below {config.stores}",
        f"  {left.blocks} blocks, {left.chunks} chunks",
        f"  reads {words.size(left.read)}, writes {words.size(left.written)} (uncompressed)",
        f"  largest job {left.memory_mb} MB ({peak.word})",
        f"  about {left.seconds / 3600:.2g} core hours"
        + "".join(f", {line}" for line in _cost(config.prices, left)),
    ]


def _cost(prices: Prices, left: Work) -> list[str]:
    """Return the cost of what is left to make; nothing without prices."""
    if not any(prices.model_dump().values()):
        return []
    once = prices.core_hour * left.seconds / 3600 + prices.million_writes * left.chunks / 1e6
    kept = prices.gb_month * left.written * ON_DISK / 1e9
    return [f"cost {once:.2f} to make, {kept:.2f} a month to keep"]


def measured(plans: Iterable[Plan], benchmarks: Path) -> dict[str, float]:
    """Return the rates that runs in this folder have shown, those above for other stages.

    Parameters
    ----------
    plans
        The plan, then others whose runs tell as much (a sample of it).
    benchmarks
        Folder of Snakemake's benchmarks: `<stage>/<name>.tsv` with a column `cpu_time` [s].
    """
    rates: dict[str, float] = {}
    for plan in plans:
        for stage in RATES.keys() - rates.keys():
            known = [
                (work(artefact), seconds)
                for artefact in plan.stage(stage)
                if (seconds := _cpu_time(benchmarks / stage / f"{artefact.name}.tsv")) is not None
            ]
            if known:
                # Small jobs say little of the rate: most of what they take is their start, and
                # what is known of other runs counts as so many values more.
                start = min(3 * START, median(seconds for _, seconds in known))
                values = sum(max(one.read, one.written) for one, _ in known) / 4e6
                spent = sum(max(seconds - start, 0.0) for _, seconds in known)
                rates[stage] = (spent + RATES[stage] * KNOWN) / (values + KNOWN)
    return RATES | rates


def _cpu_time(path: Path) -> float | None:
    try:
        with path.open() as file:
            return sum(float(row["cpu_time"]) for row in csv.DictReader(file, delimiter="\t"))
    except (OSError, KeyError, ValueError):
        return None
