"""Jobs killed at any moment: the same command again makes the same bytes and wastes little.

`FINESCALE_KILLS=500 ./run pytest tests/faults/test_kills.py` tries more moments, `FINESCALE_SEED`
others. A moment is a step of one phase of a job (before a file is opened, renamed, linked or
removed), or any instant of it; the job that goes on may be killed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from faults.world import METHODS, RULES, Attempt, Stop, World, contents, files, recorded, store_of

from finescale.errors import StoreError
from finescale.leases import FOLDER
from finescale.plan import Artefact
from finescale.storage import PARTIAL
from finescale.store import PROVENANCE, SENTINEL, open_store

SEED = int(os.environ.get("FINESCALE_SEED", "1"))
KILLS = int(os.environ.get("FINESCALE_KILLS", "60"))
PHASES = ("blocks", "commit", "any", "create", "audit", "blocks")
MOST_IN_A_ROW = 3


@dataclass(frozen=True)
class Case:
    """One of some rules and a phase to be killed in; the number is the seed of everything else."""

    number: int
    rules: tuple[str, ...] = RULES

    @property
    def rule(self) -> str:
        return self.rules[self.number % len(self.rules)]

    @property
    def phase(self) -> str:
        return PHASES[self.number // len(self.rules) % len(PHASES)]

    def __str__(self) -> str:
        return f"{self.number}-{self.rule}-{self.phase}"


CASES = [Case(n) for n in range(KILLS)] + [Case(n, METHODS) for n in range(KILLS // 4)]


def many_blocks(artefacts: list[Artefact]) -> list[Artefact]:
    """Return artefacts without climatologies of the coarse grid, which are a single block."""
    return [a for a in artefacts if a.facets.get("grid", "fine") == "fine"]


def a_moment(rng: np.random.Generator, phase: str, calm: Attempt) -> Stop:
    """Return a random moment of a job, of the phase that is asked for."""
    if phase == "any":
        return Stop(seconds=rng.uniform(0, calm.seconds))
    return Stop(phase, int(rng.integers(calm.steps[phase])))


def assert_nothing_half_made_is_read(store: Path, truth: dict[str, bytes]) -> None:
    if (store / SENTINEL).exists():
        found = {k: v for k, v in contents(store).items() if not k.endswith(PARTIAL)}
        assert found == truth, "it can be read and is not whole"
        open_store(str(store))
    else:
        with pytest.raises(StoreError, match="is not committed"):
            open_store(str(store))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_job_killed_at_any_moment_goes_on_and_makes_the_same_bytes(
    case: Case, world: World, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A rerun from the start would compute finished blocks again; a blind one would skip some."""
    rng = np.random.default_rng([SEED, case.number])
    targets = many_blocks(world.run.plan.stage(case.rule))
    artefact = targets[rng.integers(len(targets))]
    calm = world.undisturbed(artefact, tmp_path / "calm")
    truth = contents(store_of(artefact, world.stores))
    root, threads = tmp_path / "stores", int(rng.integers(1, 3))
    store = store_of(artefact, root)
    moments = [a_moment(rng, case.phase, calm) for _ in range(rng.integers(1, MOST_IN_A_ROW + 1))]

    finished: set[str] = set()
    attempts: list[Attempt] = []
    late = 0
    for moment in (*moments, Stop()):
        attempts.append(world.attempt(artefact, root, moment, threads=threads))
        assert not finished & set(attempts[-1].began), "a finished block was computed again"
        if not attempts[-1].was_killed:
            break  # at the latest without a moment to be killed at
        assert_nothing_half_made_is_read(store, truth)
        before, finished = finished, recorded(store)
        if (store / SENTINEL).exists():
            (store / SENTINEL).unlink()  # as Snakemake does with the output of a job that died
            late += 1
        else:
            assert before <= finished
            assert len(set(attempts[-1].began) - finished) <= threads, "more than was in flight"

    assert contents(store) == truth
    left = files(root) - {store / key for key in truth} - {store / PROVENANCE}
    # Who dies while he makes his lease leaves what `finescale gc` takes away.
    assert not {path for path in left if path.parent.name != FOLDER or path.suffix != PARTIAL}
    assert open_store(str(store)).identity == artefact.identity
    total, redone = len(calm.began), len(attempts[-1].began)
    assert redone == total - len(finished)
    kills = {"kills": len(attempts) - 1, "after commit": late}
    done = {"blocks": total, "finished": len(finished), "redone": redone}
    twice = sum(len(attempt.began) for attempt in attempts) - total
    record_property(
        "fault", {"rule": case.rule, "phase": case.phase, **kills, **done, "twice": twice}
    )
