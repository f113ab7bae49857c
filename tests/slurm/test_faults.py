"""What happens to jobs on a cluster: each of it ends right, with few blocks done again."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from faults.world import contents
from slurm.box import Slurm
from slurm.runs import Run, Writes, copy_checkout, snakemake
from trial import CONFIG, Workflow

from finescale.plan import Artefact

pytestmark = pytest.mark.slow

ONE_PRODUCT = {"products": [{**CONFIG["products"][0], "variable_id": "tasmax"}]}
SLOW = {"WRITES_TAKE": "0.15"}
"""Seconds of a write: a job takes about eight then."""
IN_FLIGHT = 2
"""Blocks that a job on this node works on at a time."""
Start = Callable[..., AbstractContextManager[Run]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Return a workflow that made one product, in six blocks, on this machine."""
    folder = tmp_path_factory.mktemp("undisturbed")
    made = Workflow(folder / "run", copy_checkout(folder / "checkout"))
    made.folder.mkdir()
    made.configure(**ONE_PRODUCT)
    made.write_sources()
    (made.folder / "hooks").mkdir()
    hooks = Writes(made.folder / "hooks" / "seen", made.checkout).environment()
    outcome = made.snakemake("--until", "bcsd", **hooks)
    assert outcome.code == 0, outcome.text
    shutil.rmtree(made.folder / "hooks")
    return made


@pytest.fixture
def product(undisturbed: Workflow) -> Artefact:
    return undisturbed.artefact("bcsd", "tasmax")


@pytest.fixture
def workflow(undisturbed: Workflow, product: Artefact, tmp_path: Path) -> Workflow:
    """Return one that has all but the product."""
    copy = undisturbed.copy(tmp_path / "copy")
    shutil.rmtree(copy.store(product))
    return copy


@pytest.fixture
def start(slurm: Slurm, workflow: Workflow, product: Artefact) -> Iterator[Start]:
    """Return a function that has Slurm make the product; nothing is left of it in the end."""
    temporary = set(Path(tempfile.gettempdir()).iterdir())

    def started(*targets: str, **more: str) -> AbstractContextManager[Run]:
        wanted = targets or (workflow.sentinel(product),)
        return snakemake(slurm, workflow, *wanted, **{**SLOW, **more})

    yield started
    assert not slurm.queued() or not slurm.processes()
    left = set(Path(tempfile.gettempdir()).iterdir()) - temporary
    assert not [path for path in left if path.name.startswith(("dask", "finescale"))]
    assert not list(workflow.folder.rglob("*.partial"))


@pytest.fixture
def ends_right(
    undisturbed: Workflow, workflow: Workflow, product: Artefact, request: pytest.FixtureRequest
) -> Callable[..., None]:
    """Return a function that compares the product of a run that ended, and notes what it took."""

    def compared(run: Run, *states: str, redone: int = IN_FLIGHT) -> None:
        assert run.process.returncode == 0, run.text
        assert contents(workflow.store(product)) == contents(undisturbed.store(product))
        assert not list((workflow.folder / "stores").glob(".leases/*"))
        assert [job["State"].split()[0] for job in run.jobs] == list(states)
        assert len(run.writes.blocks) == 6
        assert len(run.writes.redone) <= redone, run.writes.redone
        row = {"event": request.node.name, "jobs": len(run.jobs)}
        row |= {"blocks": 6, "redone": len(run.writes.redone)}
        request.node.user_properties.append(("slurm", row))

    return compared


def megabytes(job: dict[str, str]) -> int:
    return int(job["ReqMem"].removesuffix("M"))


def test_a_job_that_is_cancelled_is_done_again(
    start: Start, slurm: Slurm, ends_right: Callable[..., None]
) -> None:
    """A status command of sacct would wait for it for ever."""
    with start() as run:
        slurm.run("scancel", run.once_written(2))
        assert run.end() == 0, run.text
        ends_right(run, "CANCELLED", "COMPLETED")
        assert megabytes(run.jobs[1]) > megabytes(run.jobs[0])


def test_a_job_over_its_memory_gets_more(start: Start, ends_right: Callable[..., None]) -> None:
    """It takes what its second or third attempt has; without growth it would fail three times."""
    with start(BALLAST_MB="450") as run:
        assert run.end() == 0, run.text
        killed = [job["State"] for job in run.jobs[:-1]]
        assert killed and set(killed) <= {"FAILED", "OUT_OF_MEMORY", "CANCELLED by 0"}
        ends_right(run, *(state.split()[0] for state in killed), "COMPLETED", redone=6)
        sizes = [megabytes(job) for job in run.jobs]
        assert sizes == sorted(set(sizes))


def test_a_job_over_its_time_gets_more(
    start: Start, slurm: Slurm, ends_right: Callable[..., None]
) -> None:
    """Its limit is cut to seconds; Slurm looks at limits twice a minute."""
    with start(WRITES_TAKE="1") as run:
        number = run.once_written(1)
        slurm.run("scontrol", "update", f"JobId={number}", "TimeLimit=0:01")
        assert run.end(seconds=400) == 0, run.text
        ends_right(run, "TIMEOUT", "COMPLETED")
        assert run.jobs[1]["TimelimitRaw"] == "20"


def test_a_job_that_slurm_starts_again_keeps_its_blocks(
    start: Start, slurm: Slurm, ends_right: Callable[..., None]
) -> None:
    with start() as run:
        slurm.run("scontrol", "requeue", number := run.once_written(2))
        slurm.start_now(number)
        assert run.end() == 0, run.text
        assert {job["JobIDRaw"] for job in run.jobs} == {number}
        ends_right(run, *(job["State"].split()[0] for job in run.jobs))


def test_a_drained_node_ends_its_job_and_starts_no_other(
    start: Start,
    slurm: Slurm,
    workflow: Workflow,
    product: Artefact,
    ends_right: Callable[..., None],
) -> None:
    (yearly,) = workflow.artefacts("aggregate")
    node = slurm.run("sinfo", "-hN", "-o%N").strip()
    with start(workflow.sentinel(yearly)) as run:
        run.once_written(1)
        slurm.run("scontrol", "update", f"NodeName={node}", "State=drain", "Reason=tests")
        slurm.wait(lambda: slurm.run("squeue", "-h", "-tPD", "-o%i").split())
        time.sleep(2)
        assert not slurm.run("squeue", "-h", "-tR", "-o%i").split()
        slurm.run("scontrol", "update", f"NodeName={node}", "State=resume")
        assert run.end() == 0, run.text
        ends_right(run, "COMPLETED", "COMPLETED", redone=0)


def test_a_controller_that_dies_disturbs_nothing(
    start: Start, slurm: Slurm, ends_right: Callable[..., None]
) -> None:
    """Snakemake asks it for its jobs meanwhile, in vain."""
    with start() as run:
        run.once_written(1)
        slurm.restart_controller(after=6)
        assert run.end() == 0, run.text
        ends_right(run, "COMPLETED", redone=0)


def test_what_is_wrong_for_good_is_tried_once(
    start: Start, workflow: Workflow, product: Artefact
) -> None:
    """With the same profile a job that is cancelled is tried again."""
    adjusted = workflow.store(product.inputs["adjusted"])
    for name in (".zattrs", ".zmetadata"):
        text = (adjusted / name).read_text()
        (adjusted / name).write_text(text.replace(product.inputs["adjusted"].identity, "x"))
    with start() as run:
        assert run.end() == 1
    assert [job["State"] for job in run.jobs] == ["FAILED"]
    told = run.text.partition("is not complete.")[2]
    assert f"bcsd {product.name}: " in told and f"{adjusted.name} holds identity x" in told
    assert "snakemake" in told and "--profile" in told


def test_an_interrupted_snakemake_cancels_its_jobs_and_goes_on_later(
    start: Start, workflow: Workflow, slurm: Slurm, ends_right: Callable[..., None]
) -> None:
    with start() as run:
        run.once_written(2)
        run.process.send_signal(signal.SIGINT)
        assert run.end() != 0
        assert [job["State"].split()[0] for job in run.jobs] == ["CANCELLED"]
    with start() as again:
        assert again.end() == 0, again.text
        ends_right(again, "COMPLETED")
