"""Engines: the same results whatever runs the blocks, and one message for each wrong setting."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import dask
import jsonschema
import kubernetes_validate
import numpy as np
import psutil
import pytest
import yaml
from chain import Chain, grids
from distributed.deploy.subprocess import SubprocessCluster
from hypothesis import given
from hypothesis import strategies as st

from finescale import chunking, engines, store
from finescale.blocks import name, tiles
from finescale.calendars import Days
from finescale.engines import (
    CLUSTERS,
    DASK,
    JOB_RESERVE_MB,
    NANNY_MB,
    SETTINGS,
    WORKER_MB,
    Mapper,
    Room,
    cluster_sizes,
    engine,
)
from finescale.errors import ConfigError, StoreError

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "workflow" / "lib"
IMAGE = {"dask_image": "example.org/finescale:1"}
IN_SLURM = {"mpi": "srun --mpi=none", "tasks": 5, "nodes": 2}


def room(**settings: Any) -> Room:
    return Room("bcsd", 4, 3000, "/scratch", settings)


# --------------------------------------------------------------------------------------
# What comes out


def slow_square(number: int) -> int:
    """Finish in another order than started."""
    time.sleep(0.002 * (7 - number % 8))
    return number**2


def test_results_come_in_the_order_of_their_tasks() -> None:
    with engine("threads", threads=4, mem_mb=1000) as run:
        assert run(slow_square, range(24)) == [n**2 for n in range(24)]
        assert run(slow_square, []) == []


def assert_errors_come_out_as_they_are(run: Mapper) -> None:
    """An error wrapped by the engine would lose the one clear message of the run."""
    with pytest.raises(StoreError, match=r"^absent\.zarr is not committed"):
        run(store.open_store, ["absent.zarr"])


def test_what_a_block_raises_comes_out_as_it_is() -> None:
    with engine("threads", threads=2, mem_mb=1000) as run:
        assert_errors_come_out_as_they_are(run)


def coarsened(folder: Path, run: Mapper) -> dict[str, bytes]:
    """Return the bytes of a real stage of six blocks."""
    chain = Chain(folder, map=run)
    fine, coarse = grids(n_lat=16, n_lon=24)
    days = Days.range("2001-01-01", "2002-12-31", "noleap")
    values = np.random.default_rng(2).normal(280, 5, (len(days), *fine.shape))
    truth = Chain(folder).daily("reference", "obs", "tas", days, fine, values, layout="tiles")
    made = chain.coarsen("tas", truth, coarse)
    assert len(tiles(made.array("tas").shape, made.array("tas").chunks)) == 6
    return {
        str(path.relative_to(made.url)): path.read_bytes()
        for path in Path(made.url).rglob("*")
        if path.is_file() and path.name != store.PROVENANCE
    }


def in_order(function: Callable[[Any], Any], tasks: Any) -> list[Any]:
    return [function(task) for task in tasks]


def test_threads_and_workers_give_the_bits_of_one_block_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the cluster of a job starts no process in vain and leaves none behind."""
    monkeypatch.setattr(chunking, "FULL_TIME_BYTES", 4 * 730 * 4)
    monkeypatch.setenv("PYTHONPATH", str(LIBRARY))
    serial = coarsened(tmp_path / "serial", in_order)
    with engine("threads", threads=3, mem_mb=1000) as run:
        assert coarsened(tmp_path / "threads", run) == serial
    before = set(psutil.Process().children(recursive=True))
    with engine("cluster", threads=8, mem_mb=2500, scratch=str(tmp_path)) as run:
        assert run(abs, []) == []
        assert set(psutil.Process().children(recursive=True)) == before, "nothing to do yet"
        assert coarsened(tmp_path / "cluster", run) == serial
        workers = set(psutil.Process().children(recursive=True)) - before
        names = ("distributed.worker.memory.terminate", "distributed.worker.memory.pause")
        seen = run(lambda _: (os.getpid(), *map(dask.config.get, names)), range(20))
        assert {found[0] for found in seen} <= {worker.pid for worker in workers}
        assert {found[1:] for found in seen} == {(0.95, False)}, (
            "workers have settings of their own"
        )
        assert_errors_come_out_as_they_are(run)
    left = psutil.wait_procs(workers, timeout=10)[1]
    assert left == []


def test_a_job_of_threads_loads_nothing_of_a_cluster() -> None:
    """It would take a second longer to start, in every small job."""
    code = (
        "import sys; from finescale.engines import engine\n"
        "with engine('threads', threads=2, mem_mb=1) as run: assert run(abs, [-1, 2]) == [1, 2]\n"
        "print([m for m in sys.modules if m.startswith(('distributed', 'dask_', 'kubernetes'))])"
    )
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


# --------------------------------------------------------------------------------------
# Settings


def refused(kind: str, **settings: Any) -> str:
    with (
        pytest.raises(ConfigError) as caught,
        engine(kind, threads=4, mem_mb=3000, rule="bcsd", settings=settings),
    ):
        pass
    return str(caught.value)


def test_a_wrong_choice_is_refused_before_anything_starts() -> None:
    assert refused("slurm") == (
        "the profile's resource `dask` must be threads, cluster, nodes, jobs, operator, "
        "found 'slurm' for rule bcsd"
    )


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("jobs", {"dask_worker": 4}, "resource dask_worker says nothing to an engine; there are"),
        ("jobs", {"dask_workers": 0}, "`dask_workers` must be a whole number, 1 or more"),
        ("jobs", {"dask_workers": "four"}, "found 'four'"),
        ("jobs", {"dask_threads": True}, "found True"),
        ("jobs", {"dask_mem_mb": 500}, "`dask_mem_mb` must be a whole number, 900 or more"),
        ("jobs", {"runtime": "soon"}, "`runtime` must be a whole number"),
        ("jobs", {"dask_wait": 0}, "`dask_wait` must be"),
        ("nodes", {}, "dask: nodes needs a Slurm job of several tasks for rule bcsd"),
        ("operator", {}, "dask: operator needs the resource dask_image"),
    ],
)
def test_a_wrong_setting_is_one_message(
    kind: str, settings: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert words in refused(kind, **settings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"tasks": 1}, "`tasks` must be"), ({"tasks": 9}, "leaves 410 MB for each of 9 tasks on 2")],
)
def test_tasks_that_cannot_work_are_refused(
    changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task would be a scheduler without a worker; Dask would wait for one."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert words in refused("nodes", **{**IN_SLURM, **changes})


@given(threads=st.integers(1, 256), mem_mb=st.integers(0, 1_000_000))
def test_a_cluster_stays_within_its_job(threads: int, mem_mb: int) -> None:
    """Limits that sum to more than the job's memory would let the kernel kill the job."""
    if mem_mb < JOB_RESERVE_MB + WORKER_MB + NANNY_MB:
        with pytest.raises(ConfigError, match=f"mem_mb={mem_mb} leaves {mem_mb - JOB_RESERVE_MB} "):
            cluster_sizes(threads, mem_mb)
        return
    workers, each, limit = cluster_sizes(threads, mem_mb)
    assert workers >= 1 and each >= 1
    assert workers * each <= threads
    assert workers * (limit + NANNY_MB * 1e6) <= (mem_mb - JOB_RESERVE_MB) * 1e6
    assert limit >= WORKER_MB * 1e6
    assert workers == 1 or each >= 2, "processes cost memory, threads do not"


def test_tasks_of_a_node_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    options = engines.over_nodes(Room("bcsd", 4, 6000, None, IN_SLURM))
    assert options["command"][:4] == ["srun", "--mpi=none", "--ntasks=5", "--nodes=2"]
    # Five tasks on two nodes: one of them has three.
    assert options["tasks"]["limit"] == ((6000 - JOB_RESERVE_MB) // 3 - NANNY_MB) * 10**6
    assert options["tasks"]["threads"] == 4


def test_a_worker_job_is_as_large_as_its_rule_unless_set() -> None:
    usual = engines.as_jobs(room(runtime=30, slurm_partition="long", slurm_account="lab"))
    assert (usual["cores"], usual["job_mem"], usual["walltime"]) == (4, "3000M", "30")
    assert usual["memory"] == (3000 - NANNY_MB) * 10**6, "the nanny needs some of it"
    assert (usual["queue"], usual["account"]) == ("long", "lab")
    other = engines.as_jobs(room(dask_threads=8, dask_mem_mb=16000, dask_runtime=90, runtime=30))
    assert (other["cores"], other["job_mem"], other["walltime"]) == (8, "16000M", "90")


def test_the_script_of_a_worker_job_says_what_slurm_needs(tmp_path: Path, monkeypatch: Any) -> None:
    from dask_jobqueue.slurm import SLURMJob

    monkeypatch.chdir(tmp_path)
    options = engines.as_jobs(room(slurm_partition="long", dask_scratch="/local/$USER"))
    for key in ("n_workers", "scheduler_options"):
        del options[key]
    script = SLURMJob("tcp://10.0.0.1:8786", name="w", **options).job_script()
    for line in (
        "#SBATCH -J dask-bcsd", "#SBATCH -p long", "#SBATCH --mem=3000M",
        "#SBATCH --cpus-per-task=4", "#SBATCH -t 60", "#SBATCH --requeue",
        "#SBATCH -e logs/dask/dask-bcsd-%J.err",
    ):  # fmt: skip
        assert line in script.splitlines()
    assert "--local-directory /local/$USER --no-dashboard" in script
    assert "--nthreads 4 --memory-limit 2.70GiB" in script


@pytest.mark.parametrize("name", ["distributed.comm.timeouts.tcp", *DASK])
def test_dask_knows_every_setting_that_we_make(name: str) -> None:
    """A name that a later Dask does not have would change nothing, without a word."""
    assert dask.config.get(name, "unknown") != "unknown"


def test_a_variable_of_the_users_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"
    assert engines.environment()[name] == "1"
    monkeypatch.setenv(name, "5")
    with engines._settings():
        assert os.environ[name] == "5"
        assert dask.config.get("distributed.worker.memory.spill") is False
    assert "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL" not in os.environ


def test_the_page_explains_every_setting() -> None:
    page = (ROOT / "docs" / "running" / "dask.md").read_text()
    assert [n for n in (*DASK, *SETTINGS, *CLUSTERS) if f"`{n}" not in page] == []


# --------------------------------------------------------------------------------------
# Files of another machine


def test_a_task_waits_for_what_it_does_not_see_yet() -> None:
    begun: list[float] = []

    def read(task: int) -> int:
        begun.append(time.monotonic())
        if len(begun) < 3:
            raise StoreError("x.zarr is not committed")
        return task

    assert engines.Patient(read, 5)(7) == 7
    assert len(begun) == 3


@pytest.mark.parametrize("error", [StoreError("not there"), FileNotFoundError("not there")])
def test_what_is_not_there_is_an_error_after_a_while(error: Exception) -> None:
    def read(task: int) -> int:
        raise error

    begin = time.monotonic()
    with pytest.raises(type(error), match=r"^not there$"):
        engines.Patient(read, 0.5)(7)
    assert 0.2 < time.monotonic() - begin < 2


def test_another_error_is_not_waited_for() -> None:
    """A wrong value stays wrong, however often it is computed."""
    with pytest.raises(ZeroDivisionError):
        engines.Patient(lambda task: task / 0, 60)(1)


# --------------------------------------------------------------------------------------
# Pods


def schemas() -> dict[str, Any]:
    """Return the schema of each resource of the Dask operator, as dask-kubernetes ships them."""
    folder = resources.files("dask_kubernetes") / "operator/deployment/helm"
    files = [p for p in Path(str(folder)).rglob("*.yaml") if p.parent.name == "crds"]
    found = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return {
        crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for crd in found
    }


def strict(schema: Any) -> Any:
    """Return a schema that refuses what it doesn't know, which an API server would drop."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(part) for key, part in schema.items()}
    lists = isinstance(schema.get("properties"), dict)
    if lists and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def wrong_in(spec: dict[str, Any]) -> list[str]:
    schema = strict(schemas()["DaskCluster"])
    schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
    errors = jsonschema.Draft7Validator(schema).iter_errors(spec)
    return ["/".join(map(str, error.absolute_path)) for error in errors]


def test_the_pods_are_what_the_operator_understands() -> None:
    spec = engines.as_pods(room(**IMAGE, dask_workers=3, dask_service_account="runner"))["spec"]
    assert wrong_in(spec) == []
    broken = copy.deepcopy(spec)
    broken["spec"]["worker"]["replica"] = 3
    broken["spec"]["worker"]["spec"]["containers"][0]["sizes"] = {}
    broken["spec"]["scheduler"]["service"]["ports"][0]["port"] = "x"
    assert len(wrong_in(broken)) == 3, "the check must see what is wrong"
    for part in ("scheduler", "worker"):
        pod = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
            "spec": spec["spec"][part]["spec"],
        }  # fmt: skip
        kubernetes_validate.validate(pod, "1.32", strict=True)


def test_pods_are_sized_as_the_job_and_may_do_little() -> None:
    spec = engines.as_pods(room(**IMAGE, dask_workers=3, dask_service_account="runner"))["spec"]
    worker, scheduler = (spec["spec"][part]["spec"] for part in ("worker", "scheduler"))
    (container,) = worker["containers"]
    size = {"cpu": "4", "memory": "3000M"}
    assert container["resources"] == {"requests": size, "limits": size}
    assert spec["spec"]["worker"]["replicas"] == 3
    assert container["args"][3:5] == ["--memory-limit", "2900000000"]
    names = {variable["name"] for variable in container["env"]}
    assert {"NUMBA_NUM_THREADS", "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE"} <= names
    for pod in (worker, scheduler):
        assert pod["serviceAccountName"] == "runner"
        assert pod["securityContext"]["runAsNonRoot"] is True
        allowed = pod["containers"][0]["securityContext"]
        assert allowed["allowPrivilegeEscalation"] is False
        assert allowed["readOnlyRootFilesystem"] is True
        assert allowed["capabilities"] == {"drop": ["ALL"]}
    assert spec["spec"]["idleTimeout"] > 0, "a cluster whose job is gone must end"


def test_two_jobs_of_a_rule_have_clusters_of_their_own() -> None:
    names = [engines.as_pods(Room("to_grid", 1, 2000, None, IMAGE))["spec"] for _ in range(2)]
    first, second = (spec["metadata"]["name"] for spec in names)
    assert first != second
    assert first.startswith("to-grid-"), "a name with an underscore is refused"


def test_pods_get_the_library_of_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The image may hold none, or another one. Processes of this machine stand in for pods."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)

    def standin(custom_cluster_spec: Any, namespace: Any, quiet: bool) -> Any:
        return SubprocessCluster(
            n_workers=1, threads_per_worker=1, worker_kwargs={"local_directory": str(tmp_path)}
        )

    monkeypatch.setattr("dask_kubernetes.operator.KubeCluster", standin)
    with engine("operator", threads=1, mem_mb=3000, settings=IMAGE) as run:
        assert run(name, [slice(0, 3), slice(3, 5)]) == ["0-3", "3-5"]
