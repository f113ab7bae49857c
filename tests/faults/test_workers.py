"""What can die of a Dask cluster, killed in the middle of a block, and what is computed again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from faults.world import PIECES, World, contents, files, store_of

from finescale import blocks, engines
from finescale.errors import TransientError
from finescale.plan import Artefact
from finescale.store import PROVENANCE

LIBRARY = Path(__file__).parents[2] / "workflow" / "lib"
TWELVE_BLOCKS = {**PIECES, "finescale.chunking.TILE": 4}
SECONDS = 0.3  # that a block takes, at least
CLUSTER = {"threads": 5, "mem_mb": 2500}
WORKERS, THREADS, _ = engines.cluster_sizes(**CLUSTER)
MOST_AGAIN = 2 * THREADS
"""Blocks that die with a worker: those in hand, and as many whose end it had not told yet."""
GREED = 1_000_000_000  # [bytes], more than a worker may have


def processes(word: str) -> list[psutil.Process]:
    """Return the processes of the cluster whose command line holds a word."""
    children = psutil.Process().children(recursive=True)
    found = []
    for child in children:
        with suppress(psutil.NoSuchProcess):
            found += [child] if word in " ".join(child.cmdline()) else []
    return found


@dataclass(frozen=True)
class Slow:
    """Blocks of a job that take their time, and note in a file that they begin."""

    world: World
    artefact: Artefact
    folder: Path

    @property
    def begun(self) -> list[str]:
        """Return the names of the blocks that began, each as often as it did."""
        file = self.folder / "begun"
        return file.read_text().split() if file.exists() else []

    def make(self, mapper: engines.Mapper, *, extra: Callable[[str], Any] = len) -> None:
        """Make the store; `extra` is called with the name of each block as it begins."""
        file = self.folder / "begun"

        def slowly(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
            def slow(task: Any) -> Any:
                with file.open("a") as begun:
                    begun.write(f"{blocks.name(task)}\n")
                kept = extra(blocks.name(task))
                time.sleep(SECONDS)
                del kept
                return function(task)

            return mapper(slow, tasks)

        self.world.make(self.artefact, self.folder / "stores", slowly, TWELVE_BLOCKS)

    def assert_is_as_if_nothing_had_happened(self) -> None:
        """Compare with a store that was made in peace: bytes, and no file beside them."""
        calm = self.folder / "calm"
        in_order = lambda f, tasks: list(map(f, tasks))  # noqa: E731
        self.world.make(self.artefact, calm, in_order, TWELVE_BLOCKS)
        store, truth = (store_of(self.artefact, root) for root in (self.folder / "stores", calm))
        made = contents(truth)
        assert contents(store) == made
        assert files(self.folder / "stores") == {store / k for k in made} | {store / PROVENANCE}


@pytest.fixture
def slow(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slow:
    monkeypatch.setenv("PYTHONPATH", str(LIBRARY))
    return Slow(world, world.run.plan.stage("bcsd")[0], tmp_path)


@contextmanager
def after(slow: Slow, moment: int, action: Callable[[], Any]) -> Iterator[None]:
    """Do something once so many blocks have begun."""
    done: list[Any] = []

    def wait() -> None:
        while len(slow.begun) < moment:
            time.sleep(0.01)
        action()
        done.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()
    assert done


def cluster(slow: Slow, **settings: Any) -> Any:
    return engines.engine(
        "cluster", **{**CLUSTER, **settings}, scratch=str(slow.folder), rule="bcsd"
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_job_whose_worker_is_killed_ends_with_the_same_bytes(seed: int, slow: Slow) -> None:
    """The nanny starts another worker, and what the dead one had in hand runs again."""
    rng = np.random.default_rng(seed)
    moment = WORKERS * THREADS + int(rng.integers(1, 7))  # later than some blocks are finished

    def kill() -> None:
        time.sleep(rng.uniform(0, SECONDS))
        processes("spawn_main")[rng.integers(WORKERS)].kill()

    with cluster(slow) as mapper, after(slow, moment, kill):
        slow.make(mapper)
    slow.assert_is_as_if_nothing_had_happened()
    assert len(set(slow.begun)) == 12
    assert len(slow.begun) <= 12 + MOST_AGAIN, "blocks that were told finished began again"


def test_a_job_that_loses_a_worker_for_good_goes_on_with_the_others(slow: Slow) -> None:
    """As when a node is gone: nobody is left who could start that worker again."""

    def kill() -> None:
        nanny = processes("distributed.Nanny")[0]
        for process in [nanny, *nanny.children(recursive=True)]:
            process.kill()

    with cluster(slow) as mapper, after(slow, WORKERS * THREADS + 1, kill):
        slow.make(mapper)
    slow.assert_is_as_if_nothing_had_happened()
    assert len(set(slow.begun)) == 12
    assert len(slow.begun) <= 12 + MOST_AGAIN


def test_a_job_whose_scheduler_dies_ends_and_the_next_does_the_rest(slow: Slow) -> None:
    """Dask's client would try to connect for ever, or show an error that nobody understands."""

    def kill() -> None:
        processes("distributed.Scheduler")[0].kill()

    with (
        pytest.raises(TransientError, match=r"^bcsd: the Dask scheduler or all workers are gone"),
        cluster(slow) as mapper,
        after(slow, 2 * WORKERS * THREADS + 1, kill),
    ):
        slow.make(mapper)
    assert processes("distributed") == [], "workers outlived their scheduler"
    finished = len(slow.begun) - len(set(slow.begun)) + len(set(slow.begun)) - WORKERS * THREADS
    begun = len(slow.begun)
    with cluster(slow) as mapper:
        slow.make(mapper)
    slow.assert_is_as_if_nothing_had_happened()
    assert len(slow.begun) - begun <= 12 - finished, "finished blocks were computed again"


def test_a_block_too_large_for_its_worker_ends_the_job_and_more_memory_helps(slow: Slow) -> None:
    """A block that killed two workers is not tried on a third; finished blocks stay."""
    victim = "8-12_12-16"

    def extra(name: str) -> Any:
        return np.ones(GREED, dtype=np.int8) if name == victim else None

    with (
        pytest.raises(TransientError, match=r"died within the same block.*\(mem_mb=2500\)"),
        cluster(slow) as mapper,
    ):
        slow.make(mapper, extra=extra)
    assert slow.begun.count(victim) == 2
    first = slow.begun
    with cluster(slow, mem_mb=6000) as mapper:
        slow.make(mapper, extra=extra)
    slow.assert_is_as_if_nothing_had_happened()
    again = slow.begun[len(first) :]
    assert victim in again
    assert len(again) <= 2 * THREADS, "finished blocks were computed again"


def test_a_worker_that_does_not_see_a_file_yet_begins_its_block_again(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the job wrote a moment ago may reach another node's view of a file system later."""
    patient = (*engines.CLUSTERS["cluster"][:3], 20.0)
    monkeypatch.setattr(engines, "CLUSTERS", {"cluster": patient})
    store = store_of(slow.artefact, slow.folder / "stores")
    header = store / slow.artefact.facets["variable_id"] / ".zarray"

    def hide(mapper: engines.Mapper) -> engines.Mapper:
        def hidden(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
            header.rename(slow.folder / "hidden")
            threading.Timer(3, (slow.folder / "hidden").rename, [header]).start()
            return mapper(function, tasks)

        return hidden

    with cluster(slow) as mapper:
        slow.make(hide(mapper))
    slow.assert_is_as_if_nothing_had_happened()


def test_a_killed_job_leaves_no_process_behind(tmp_path: Path) -> None:
    """Scheduler and workers have sessions of their own; nobody else would end them."""
    code = (
        "import time; from finescale.engines import engine\n"
        "with engine('cluster', threads=5, mem_mb=2500, scratch='.') as run:\n"
        "    run(lambda _: print('begun', flush=True) or time.sleep(60), range(9))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, stdout=subprocess.PIPE
    ) as job:
        assert job.stdout is not None and job.stdout.readline() == b"begun\n"
        left = psutil.Process(job.pid).children(recursive=True)
        job.kill()
    assert len(left) >= 2 * WORKERS + 1, "scheduler, nannies and workers"
    assert psutil.wait_procs(left, timeout=20)[1] == []
