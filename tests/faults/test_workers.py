"""A Dask worker killed in the middle of a block: its job ends right, and computes little twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from faults.world import PIECES, World, contents, files, store_of

from finescale import blocks
from finescale.store import PROVENANCE

LIBRARY = Path(__file__).parents[2] / "workflow" / "lib"
TWELVE_BLOCKS = {**PIECES, "finescale.chunking.TILE": 4}
SECONDS = 0.3  # that a block takes, at least
CLUSTER = {"threads": 5, "mem_mb": 2500}
WORKERS, THREADS, _ = blocks.cluster_sizes(**CLUSTER)


def workers() -> list[psutil.Process]:
    """Return the processes that compute; each has a nanny, which starts it again."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("seed", range(3))
def test_a_job_whose_worker_is_killed_ends_with_the_same_bytes(
    seed: int, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nanny starts another worker, and what the dead one had in hand runs again."""
    monkeypatch.setenv("PYTHONPATH", str(LIBRARY))
    rng = np.random.default_rng(seed)
    artefact = world.run.plan.stage("bcsd")[0]
    killed: list[psutil.Process] = []
    begun = tmp_path / "begun"
    begun.touch()

    def slowly(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        def slow(task: Any) -> Any:
            with begun.open("a") as file:
                file.write(f"{blocks.name(task)}\n")
            time.sleep(SECONDS)
            return function(task)

        return mapper(slow, tasks)

    def kill() -> None:
        while len(begun.read_text().split()) < moment:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, SECONDS))
        chosen = workers()[rng.integers(WORKERS)]
        chosen.kill()
        killed.append(chosen)

    moment = WORKERS * THREADS + int(rng.integers(1, 7))  # later than some blocks are finished
    with blocks.engine("cluster", **CLUSTER, scratch=str(tmp_path)) as mapper:
        killer = threading.Thread(target=kill)
        killer.start()
        world.make(artefact, tmp_path / "stores", slowly, TWELVE_BLOCKS)
        killer.join()
    assert killed

    world.make(artefact, tmp_path / "calm", lambda f, tasks: list(map(f, tasks)), TWELVE_BLOCKS)
    store, calm = (store_of(artefact, tmp_path / name) for name in ("stores", "calm"))
    truth = contents(calm)
    assert contents(store) == truth
    assert files(tmp_path / "stores") == {store / k for k in truth} | {store / PROVENANCE}
    names = begun.read_text().split()
    assert len(set(names)) == 12
    assert len(names) <= 12 + THREADS, "blocks that were finished were computed again"
