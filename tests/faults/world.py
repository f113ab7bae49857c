"""A small world whose stores have many blocks, and jobs on it that die where one likes."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.threaded  # noqa: F401  imported here once, not in every child
import pytest
from trial import CONFIG, VARIABLES

from finescale import blocks, engines, start
from finescale.job import Job
from finescale.plan import Artefact
from finescale.store import CREATED, HEADER, JOURNAL, PROVENANCE, open_store

RULES = (
    "reference", "simulation", "weights", "coarsen", "climatology", "adjust", "bcsd",
    "interpolate", "aggregate", "evaluate",
)  # fmt: skip
METHODS = ("qplad", "analogs", "maca", "gard")
"""Stages of the methods that have no other rules of their own."""
LONGEST = 60  # [s] that a job may take; it takes less than one
Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
WORLD = {"n_lat": 12, "n_lon": 16, "ratio": 4, "first_year": 2012, "last_year": 2015}
PRODUCTS = [stage for stage in METHODS if stage != "analogs"]
MAPPING: dict[str, Any] = {
    **CONFIG,
    "references": {"OBS": {"synthetic": WORLD, "variables": VARIABLES}},
    "simulations": [
        {
            "source_id": "FS-B",
            "experiment_id": "historical",
            "synthetic": WORLD,
            "variables": VARIABLES,
        }
    ],
    "products": [{**CONFIG["products"][0], "method": ["bcsd", "interpolate", *PRODUCTS]}],
    "maca": {"region_degrees": 4.0},
}  # fmt: skip
PIECES = {
    "finescale.chunking.TILE": 6,
    "finescale.chunking.SLAB": 180,
    "finescale.chunking.FULL_TIME_BYTES": 4 * 1096 * 4,
    "finescale.chunking.MOST_VALUES": 1,
    "finescale.chunking.BLOCK_VALUES": 1,
}
"""With these every stage but `weights` cuts its work on `WORLD` into six blocks or more."""


@contextmanager
def cut(pieces: Mapping[str, int] = PIECES) -> Iterator[None]:
    """Let stages cut their stores and their work into pieces of other sizes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in pieces.items():
            patch.setattr(name, value)
        yield


@dataclass(frozen=True)
class Stop:
    """When a job is killed: before the n-th step of a phase, or after some seconds."""

    phase: str = ""
    step: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Attempt:
    """How a job in a process of its own ended: the blocks it began, its steps in each phase."""

    was_killed: bool
    seconds: float
    began: tuple[str, ...]
    steps: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Steps:
    """An audit hook that counts what this process does to files, and kills it at one step."""

    root: str
    stop: Stop
    phase: str = "create"
    seen: Counter[str] = field(default_factory=Counter)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.link"):
            path = str(arguments[1])
        elif event in ("os.remove", "os.rmdir", "os.mkdir") or (
            event == "open" and self.root in str(arguments[0])
        ):
            path = str(arguments[0])
        else:
            return
        if self.phase == "blocks" and event == "open" and re.search(r"\.journal/.*\.json$", path):
            self.phase = "audit"
        if self.phase == "audit" and "/.manifest.json." in path:
            self.phase = "commit"
        if (self.stop.phase, self.stop.step) == (self.phase, self.seen[self.phase]):
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen[self.phase] += 1
        if event == "os.rename" and path.endswith(f"/{CREATED}.json"):
            self.phase = "blocks"


@dataclass(frozen=True, eq=False)
class World:
    """A plan and its stores, made without disturbance."""

    run: start.Run
    stores: Path
    calm: dict[str, Attempt] = field(default_factory=dict)

    def make(
        self, artefact: Artefact, root: Path, mapper: Mapper, pieces: Mapping[str, int] = PIECES
    ) -> None:
        """Run a job as its script does: inputs from the undisturbed stores, output below `root`."""
        inputs = {
            role: open_store(str(store_of(parent, self.stores))).require(parent.identity)
            for role, parent in artefact.inputs.items()
        }
        work = Job(
            artefact.stage,
            str(store_of(artefact, root)),
            artefact.identity,
            artefact.facets,
            artefact.recipe,
            inputs=inputs,
            lock=self.run.lock,
            map=mapper,
        )
        stage = importlib.import_module(f"finescale.{artefact.stage}")
        with cut(pieces):
            stage.run(work, **inputs, **artefact.parameters)

    def make_all(self) -> None:
        """Make every store of the plan, one after the other in this process."""
        for artefact in parents_first(self.run.plan.artefacts.values()):
            with engines.engine("threads", threads=1, mem_mb=0) as mapper:
                self.make(artefact, self.stores, mapper)

    def undisturbed(self, artefact: Artefact, root: Path) -> Attempt:
        """Return the attempt at a job that nobody disturbed; it is made below `root`, once."""
        if artefact.identity not in self.calm:
            self.calm[artefact.identity] = self.attempt(artefact, root)
            assert contents(store_of(artefact, root)) == contents(store_of(artefact, self.stores))
        return self.calm[artefact.identity]

    def attempt(
        self, artefact: Artefact, root: Path, stop: Stop = Stop(), *, threads: int = 1
    ) -> Attempt:
        """Run a job in a process of its own that may be killed, and return how it ended."""
        reader, writer = os.pipe()
        begun = time.monotonic()
        with warnings.catch_warnings():
            # Zarr's idle thread stays behind, which Zarr knows; Python 3.12 warns of any thread.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            self._as_child(writer, artefact, root, stop, threads)
        os.close(writer)
        if stop.seconds is not None:
            time.sleep(stop.seconds)
            os.kill(child, signal.SIGKILL)
        with open(reader) as lines:
            told = [json.loads(line) for line in lines]
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        seconds = time.monotonic() - begun
        assert status in (0, -signal.SIGKILL), (status, *told[-1:])
        began = tuple(line["begins"] for line in told if "begins" in line)
        ended = told[-1] if status == 0 else {}
        return Attempt(status != 0, seconds, began, ended.get("steps", {}))

    def _as_child(
        self, writer: int, artefact: Artefact, root: Path, stop: Stop, threads: int
    ) -> None:
        def tell(**what: Any) -> None:
            os.write(writer, json.dumps(what).encode() + b"\n")

        code = 1
        try:
            signal.alarm(LONGEST)
            steps = Steps(str(root), stop)
            sys.addaudithook(steps)
            with engines.engine("threads", threads=threads, mem_mb=0) as mapper:

                def telling(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
                    def noted(task: Any) -> Any:
                        tell(begins=blocks.name(task))
                        return function(task)

                    return mapper(noted, tasks)

                self.make(artefact, root, telling)
            tell(steps=steps.seen)
            code = 0
        except BaseException:
            tell(error=traceback.format_exc())
        finally:
            os._exit(code)


def parents_first(artefacts: Iterable[Artefact]) -> list[Artefact]:
    """Return artefacts and what they are made of, each after its inputs."""
    found: dict[str, Artefact] = {}
    for artefact in artefacts:
        for one in (*parents_first(artefact.inputs.values()), artefact):
            found.setdefault(one.identity, one)
    return list(found.values())


def store_of(artefact: Artefact, root: Path) -> Path:
    return (root / artefact.path).parent


def contents(folder: Path) -> dict[str, bytes]:
    """Return every object below a folder that is a function of the data."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != PROVENANCE
    }


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def recorded(store: Path) -> set[str]:
    """Return the blocks that the journal of a store holds; none if its header is gone."""
    journal = Path(f"{store}{JOURNAL}")
    if not (journal / HEADER).exists():
        return set()
    return {path.stem for path in journal.glob("*.json")} - {CREATED, Path(HEADER).stem}
