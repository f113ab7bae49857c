"""One rule spread over Slurm: the bits of threads, whatever is cancelled, and nothing left."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from faults.world import MAPPING, PIECES, World, contents, store_of
from slurm.box import Slurm

from finescale import start

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]
LIBRARY = TESTS.parent / "workflow" / "lib"
BLOCKS = 12
SCRIPT = """
import json, sys, time
from pathlib import Path
from faults.world import MAPPING, PIECES, World
from finescale import blocks, engines, start

kind, folder, settings = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
world = World(start.read(MAPPING, folder / "config.yaml"), folder / "stores")
artefact = world.run.plan.stage("bcsd")[0]
room = {"threads": 1, "mem_mb": 3500, "rule": "bcsd", "settings": settings}
with engines.engine(kind, **room) as mapper:
    def slowly(function, tasks):
        begun = str(folder / "begun")
        def slow(task):
            with open(begun, "a") as file:
                file.write(blocks.name(task) + "\\n")
            time.sleep(1)
            return function(task)
        return mapper(slow, tasks)
    world.make(artefact, folder / kind, slowly, {**PIECES, "finescale.chunking.TILE": 4})
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("spread")
    made = World(start.read(MAPPING, folder / "config.yaml"), folder / "stores")
    made.make_all()
    (folder / "job.py").write_text(SCRIPT)
    return made


def begin(slurm: Slurm, world: World, kind: str, **settings: Any) -> tuple[str, Path]:
    """Return the number of a Slurm job that runs `bcsd` on an engine, and its folder."""
    folder = world.stores.parent
    (folder / "begun").unlink(missing_ok=True)
    command = [sys.executable, "job.py", kind, ".", json.dumps(settings)]
    script = "#!/bin/sh\n" + " ".join(f"'{part}'" for part in command)
    (folder / "job.sh").write_text(script)
    environment = f"ALL,PYTHONPATH={LIBRARY}:{TESTS}"
    tasks = settings.get("tasks", 1)
    number = slurm.run(
        "sbatch", "--parsable", f"--ntasks={tasks}", "--mem=3500", "--time=10",
        f"--export={environment}", f"--chdir={folder}", "--output=job.out",
        f"--account={slurm.account}", str(folder / "job.sh"),
    )  # fmt: skip
    return number.strip(), folder


def begun(folder: Path) -> list[str]:
    file = folder / "begun"
    return file.read_text().split() if file.exists() else []


def end(slurm: Slurm, folder: Path) -> str:
    """Return what the job said, once nothing of it is left."""
    slurm.wait(lambda: not slurm.queued(), seconds=150)
    slurm.wait(lambda: not slurm.processes(), seconds=30)
    assert list((folder / ".snakemake").glob("dask-*")) == []
    return (folder / "job.out").read_text()


def assert_as_in_threads(world: World, kind: str, said: str) -> None:
    artefact = world.run.plan.stage("bcsd")[0]
    threads = world.stores.parent / "threads"
    if not threads.exists():
        pieces = {**PIECES, "finescale.chunking.TILE": 4}
        world.make(artefact, threads, lambda f, tasks: list(map(f, tasks)), pieces)
    spread = store_of(artefact, world.stores.parent / kind)
    assert contents(spread) == contents(store_of(artefact, threads)), said


def test_a_rule_spread_over_worker_jobs_gives_the_bits_of_threads(
    slurm: Slurm, world: World
) -> None:
    sizes = {"dask_workers": 2, "dask_mem_mb": 1000, "dask_runtime": 5}
    _, folder = begin(slurm, world, "jobs", **sizes, slurm_account=slurm.account)
    said = end(slurm, folder)
    assert_as_in_threads(world, "jobs", said)
    assert len(begun(folder)) == len(set(begun(folder))) == BLOCKS
    workers = [job for job in slurm.jobs() if job["JobName"] == "dask-bcsd"]
    assert [job["ReqMem"] for job in workers] == ["1000M", "1000M"]


def test_a_rule_spread_over_tasks_gives_the_bits_of_threads(slurm: Slurm, world: World) -> None:
    _, folder = begin(slurm, world, "nodes", mpi="srun", tasks=2, nodes=1)
    said = end(slurm, folder)
    assert_as_in_threads(world, "nodes", said)
    assert len(begun(folder)) == len(set(begun(folder))) == BLOCKS


def test_a_worker_job_cancelled_in_the_middle_of_a_block_costs_that_block(
    slurm: Slurm, world: World, record_property: Any
) -> None:
    """A scheduler that waited for it, or a job that ended with it, would do far more again."""
    shutil.rmtree(world.stores.parent / "jobs", ignore_errors=True)
    sizes = {"dask_workers": 2, "dask_mem_mb": 1000, "dask_runtime": 5}
    earlier = {job["JobIDRaw"] for job in slurm.jobs()}
    _, folder = begin(slurm, world, "jobs", **sizes, slurm_account=slurm.account)
    slurm.wait(lambda: len(begun(folder)) >= 4)
    running = slurm.run("squeue", "--name=dask-bcsd", "--states=R", "-h", "-o%i").split()
    slurm.run("scancel", next(number for number in running if number not in earlier))
    said = end(slurm, folder)
    assert_as_in_threads(world, "jobs", said)
    redone = len(begun(folder)) - len(set(begun(folder)))
    record_property("blocks redone", redone)
    assert len(set(begun(folder))) == BLOCKS
    assert redone <= 1
