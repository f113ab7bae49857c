"""Where blocks run: in threads of the job, or on Dask workers inside it, beside it, or in pods.

The profile chooses, with the resource `dask` and settings beside it (docs/running/dask.md). Blocks
never see each other and each is journalled as it ends, so no choice, no lost worker and no second
attempt changes a bit; nothing of this is part of an identity.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finescale.errors import ConfigError, StoreError, TransientError

log = logging.getLogger("finescale")

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
Options = dict[str, Any]

JOB_RESERVE_MB = 450
"""Two Snakemakes (300) and a Dask scheduler with its client (150), measured."""
WORKER_MB = 800
"""Least memory worth a worker process of its own: the imports alone take 250."""
NANNY_MB = 100
"""The process beside each worker that starts it again, measured."""
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
LATENCY = 60.0
"""Longest that a shared file system hides a file which another machine has written [s]."""

DASK: Options = {
    "distributed.scheduler.allowed-failures": 1,
    "distributed.scheduler.no-workers-timeout": "10 minutes",
    "distributed.scheduler.worker-ttl": "5 minutes",
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.profile.enabled": False,
    "distributed.comm.timeouts.connect": "30s",
    "distributed.comm.timeouts.tcp": "60s",
}
"""Dask's settings, each with its reason in docs/running/dask.md."""

SETTINGS = {
    "dask_workers", "dask_threads", "dask_mem_mb", "dask_runtime", "dask_wait", "dask_scratch",
    "dask_interface", "dask_image", "dask_namespace", "dask_service_account", "dask_parents",
}  # fmt: skip
"""Resources of a profile that say something to an engine."""


@dataclass(frozen=True)
class Room:
    """What a job has, and what its profile says about workers.

    `settings` are the job's resources by name; `scratch` is a folder of the job's machine.
    """

    rule: str
    threads: int
    mem_mb: int
    scratch: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def whole(self, name: str, default: int, *, least: int = 1) -> int:
        """Return a setting that is a whole number.

        Raises
        ------
        ConfigError
            It is something else, or less than `least`.
        """
        value = self.settings.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(
                f"the profile's resource `{name}` must be a whole number, {least} or more, for "
                f"rule {self.rule}, found {value!r}"
            )
        return value


@contextmanager
def engine(
    kind: str,
    *,
    threads: int,
    mem_mb: int,
    scratch: str | None = None,
    rule: str = "finescale",
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Mapper]:
    """Give a function that maps tasks, where the profile wants them to run.

    Workers are started by the first tasks: a job that waits for another run's store, or finds
    every block written, holds none.

    Parameters
    ----------
    kind
        `threads` of this process; `cluster`, Dask workers inside this job; `nodes`, Dask over the
        tasks of this Slurm job; `jobs`, each Dask worker a Slurm job; `operator`, each a pod.
    threads, mem_mb
        What the job has.
    scratch
        Folder for the workers' own files.
    rule
        Names worker jobs and messages.
    settings
        The job's resources (`SETTINGS`, and those of Slurm).

    Raises
    ------
    ConfigError
        The choice or a setting is wrong.
    TransientError
        No worker came, workers died of the same block, or the scheduler is gone.
    """
    if kind == "threads":
        yield _in_threads(threads)
        return
    room = Room(rule, threads, mem_mb, scratch, settings or {})
    options, start, wait, latency = _chosen(kind, room)
    mappers: list[Mapper] = []
    with ExitStack() as stack:

        def run(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
            if not mappers and tasks:
                stack.enter_context(_settings())
                client = stack.enter_context(_client(start(options), wait=wait, rule=rule))
                mappers.append(_on_cluster(client, room, latency))
            return mappers[0](function, tasks) if tasks else []

        yield run


def _chosen(kind: str, room: Room) -> tuple[Options, Any, int, float]:
    """Return options of a cluster, what starts it, seconds to wait for workers, and for files."""
    if kind not in CLUSTERS:
        raise ConfigError(
            "the profile's resource `dask` must be threads, "
            f"{', '.join(CLUSTERS)}, found {kind!r} for rule {room.rule}"
        )
    if unknown := {name for name in room.settings if name.startswith("dask_")} - SETTINGS:
        raise ConfigError(
            f"the profile's resource {', '.join(sorted(unknown))} says nothing to an engine; "
            f"there are {', '.join(sorted(SETTINGS))}"
        )
    sized, start, wait, latency = CLUSTERS[kind]
    return sized(room), start, room.whole("dask_wait", wait), latency


@contextmanager
def _settings() -> Iterator[None]:
    """Set what Dask does, here and in processes to come; the user's environment has precedence."""
    import dask
    import distributed  # noqa: F401  its defaults come first: the end of `set` would remove them

    new = {name: value for name, value in DASK.items() if _variable(name) not in os.environ}
    os.environ.update({_variable(name): str(value) for name, value in new.items()})
    try:
        with dask.config.set(new):
            yield
    finally:
        for name in new:
            del os.environ[_variable(name)]


def environment() -> dict[str, str]:
    """Return the environment variables by which a process of Dask learns `DASK`."""
    return {_variable(name): str(value) for name, value in DASK.items()}


def _variable(name: str) -> str:
    return "DASK_" + name.replace(".", "__").replace("-", "_").upper()


@contextmanager
def _client(starting: AbstractContextManager[Any], *, wait: int, rule: str) -> Iterator[Any]:
    """Give a client of a cluster as soon as it has a worker; more may come later."""
    from distributed import Client

    with starting as cluster, Client(cluster, timeout="60s") as client:
        try:
            client.wait_for_workers(1, timeout=wait)
        except TimeoutError as error:
            raise TransientError(
                f"no Dask worker of {rule} has started within {wait} s; where workers queue, wait "
                "longer (dask_wait) or let fewer such jobs run at once (dask_parents)"
            ) from error
        client.register_plugin(_ends_with_its_client(), name="ends-with-its-client")
        yield client


def _ends_with_its_client() -> Any:
    """Return a plugin by which a scheduler, and its workers, do not outlive a killed job."""
    from distributed import SchedulerPlugin

    class Ending(SchedulerPlugin):
        def remove_client(self, scheduler: Any, client: str) -> None:
            def end() -> None:
                if not any(name.startswith("Client-") for name in scheduler.clients):
                    scheduler.loop.add_callback(scheduler.close)

            scheduler.loop.call_later(1, end)

    return Ending()


# --------------------------------------------------------------------------------------
# Threads of this process


def _in_threads(threads: int) -> Mapper:
    def run(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        if threads == 1:
            return [function(task) for task in tasks]
        with ThreadPoolExecutor(threads) as pool:
            try:
                return list(pool.map(function, tasks))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what has not begun never does
                raise

    return run


# --------------------------------------------------------------------------------------
# Processes inside this job


def cluster_sizes(threads: int, mem_mb: int) -> tuple[int, int, int]:
    """Return (workers, threads each, bytes each) for a job of `threads` and `mem_mb`.

    The limits sum to less than the job's memory: a worker that is killed by its nanny is
    restarted, a job that is killed by the kernel is lost.
    """
    room = mem_mb - JOB_RESERVE_MB
    if room < WORKER_MB + NANNY_MB:
        raise ConfigError(
            f"mem_mb={mem_mb} leaves {room} MB for Dask workers, which need "
            f"{WORKER_MB + NANNY_MB}; raise the rule's mem_mb in the profile or use dask: threads"
        )
    workers = max(1, min(-(-threads // 4), room // (WORKER_MB + NANNY_MB)))
    return workers, max(1, threads // workers), int((room / workers - NANNY_MB) * 1e6)


def in_job(room: Room) -> Options:
    """Return the options of a cluster of processes inside the job."""
    workers, each, limit = cluster_sizes(room.threads, room.mem_mb)
    return {
        "n_workers": workers,
        "host": "127.0.0.1",
        "worker_kwargs": {
            "nthreads": each,
            "memory_limit": limit,
            "local_directory": room.settings.get("dask_scratch", room.scratch),
            "dashboard_address": None,
            "preload_nanny": [__name__],
        },
        "scheduler_kwargs": {"dashboard_address": None, "preload": [__name__]},
    }


def dask_setup(server: Any) -> None:
    """Let this process, a scheduler or nanny that loads us, be killed when the job is.

    They have sessions of their own, so that no signal to the job reaches them.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def _in_job(options: Options) -> Iterator[Any]:
    import dask
    from distributed.deploy.subprocess import SubprocessCluster

    cluster: Any = SubprocessCluster(**options)
    gone = True
    try:
        yield cluster
        gone = cluster.scheduler.process.returncode is not None
    finally:
        if gone:  # it would be asked, at length, to let workers go
            cluster.sync(cluster.scheduler.close)
        with dask.config.set({"distributed.comm.timeouts.connect": "2s"}):
            cluster.close()


# --------------------------------------------------------------------------------------
# The tasks of this Slurm job, on one node or several


def over_nodes(room: Room) -> Options:
    """Return the command that starts scheduler and workers in the tasks of the job, and theirs.

    Task 0 is the scheduler. Slurm gives `mem_mb` on each node; this job's own processes and the
    most tasks that a node may have share it.
    """
    if not (os.environ.get("SLURM_JOB_ID") and room.settings.get("mpi")):
        raise ConfigError(
            f"dask: nodes needs a Slurm job of several tasks for rule {room.rule}; run it with "
            "--executor slurm and the resources mpi: srun, tasks: 2 or more (and nodes)"
        )
    tasks, nodes = room.whole("tasks", 0, least=2), room.whole("nodes", 1)
    limit = (room.mem_mb - JOB_RESERVE_MB) // -(-tasks // nodes) - NANNY_MB
    if limit < WORKER_MB:
        raise ConfigError(
            f"mem_mb={room.mem_mb} a node leaves {limit} MB for each of {tasks} tasks on {nodes} "
            f"nodes, which need {WORKER_MB}; raise the rule's mem_mb in the profile"
        )
    return {
        "command": [
            *shlex.split(room.settings["mpi"]), f"--ntasks={tasks}", f"--nodes={nodes}",
            f"--cpus-per-task={room.threads}", "--cpu-bind=none", "--mem=0", "--overlap",
            "--kill-on-bad-exit=0", sys.executable, "-m", "finescale.engines",
        ],
        "tasks": {
            "threads": room.threads,
            "limit": limit * 10**6,
            "scratch": room.settings.get("dask_scratch"),
            "interface": room.settings.get("dask_interface"),
        },
    }  # fmt: skip


@contextmanager
def _over_nodes(options: Options) -> Iterator[Any]:
    """Give the address of the scheduler that runs in task 0 of this job."""
    from distributed.utils import json_load_robust

    file = Path(".snakemake", f"dask-{uuid.uuid4().hex}.json").absolute()  # seen by every node
    file.parent.mkdir(exist_ok=True)
    tasks = json.dumps({**options["tasks"], "file": str(file)})
    with subprocess.Popen([*options["command"], tasks]) as ranks:
        try:
            while not file.exists():
                if ranks.poll() is not None:
                    raise TransientError(
                        f"`{shlex.join(options['command'])}` ended with code {ranks.returncode} "
                        "before Dask's scheduler was there; the log of the Slurm job says why"
                    )
                time.sleep(0.1)
            yield json_load_robust(file, timeout=LATENCY)["address"]
            with suppress(subprocess.TimeoutExpired):  # the scheduler ends when its client leaves
                ranks.wait(timeout=20)
        finally:
            ranks.terminate()
            file.unlink(missing_ok=True)


def serve(options: Mapping[str, Any]) -> None:
    """Be the scheduler or a worker of `over_nodes`, by the number of this Slurm task."""
    from dask_jobqueue.slurm import SLURMRunner

    usual = {"dashboard_address": None, "interface": options["interface"]}
    scratch = os.path.expandvars(options["scratch"] or tempfile.gettempdir())
    SLURMRunner(
        client=False,
        scheduler_file=options["file"],
        scheduler_options=usual,
        worker_class="distributed.Nanny",
        worker_options={
            **usual,
            "nthreads": options["threads"],
            "memory_limit": options["limit"],
            "local_directory": scratch,
        },
    )


# --------------------------------------------------------------------------------------
# Each worker a Slurm job


def as_jobs(room: Room) -> Options:
    """Return the options of dask-jobqueue's cluster: workers as large as the job unless set."""
    threads, mem_mb, limit = _worker(room)
    minutes = room.whole("dask_runtime", room.whole("runtime", 60))
    return {
        "n_workers": room.whole("dask_workers", 2),
        "processes": 1,
        "cores": threads,
        "memory": limit,
        "job_mem": f"{mem_mb}M",
        "walltime": str(minutes),
        "queue": room.settings.get("slurm_partition"),
        "account": room.settings.get("slurm_account"),
        "interface": room.settings.get("dask_interface"),
        "local_directory": room.settings.get("dask_scratch", "${TMPDIR:-/tmp}"),
        "death_timeout": 60,
        "job_name": f"dask-{room.rule}",
        "log_directory": "logs/dask",
        "job_extra_directives": ["--requeue"],  # a worker that was preempted comes back
        "worker_extra_args": ["--no-dashboard"],
        "scheduler_options": {"dashboard_address": None},
    }


def _worker(room: Room) -> tuple[int, int, int]:
    """Return threads, memory [MB] and Dask's limit [bytes] of a worker job or pod."""
    mem_mb = room.whole("dask_mem_mb", room.mem_mb, least=WORKER_MB + NANNY_MB)
    return room.whole("dask_threads", room.threads), mem_mb, (mem_mb - NANNY_MB) * 10**6


@contextmanager
def _as_jobs(options: Options) -> Iterator[Any]:
    from dask_jobqueue.slurm import SLURMCluster

    with SLURMCluster(**options) as cluster:
        yield cluster


# --------------------------------------------------------------------------------------
# Each worker a pod, made by the operator of dask-kubernetes


def as_pods(room: Room) -> Options:
    """Return namespace and DaskCluster resource: pods without privileges, sized as the job."""
    from dask_kubernetes.operator import make_cluster_spec  # type: ignore[import-untyped]

    from finescale.start import ONE_THREAD

    if "dask_image" not in room.settings:
        raise ConfigError(
            f"dask: operator needs the resource dask_image for rule {room.rule}: the image that "
            "the job itself runs in"
        )
    threads, mem_mb, limit = _worker(room)
    spec = make_cluster_spec(
        name=f"{room.rule.replace('_', '-')}-{uuid.uuid4().hex[:8]}",
        image=room.settings["dask_image"],
        n_workers=room.whole("dask_workers", 2),
        resources=_resources(threads, mem_mb),
        env={**dict.fromkeys(ONE_THREAD, "1"), **environment()},
        worker_command=[
            "dask-worker", "--nthreads", str(threads), "--memory-limit", str(limit),
            "--local-directory", "/tmp", "--death-timeout", "60",
        ],
        idle_timeout=600,
    )  # fmt: skip
    for part in (spec["spec"]["scheduler"], spec["spec"]["worker"]):
        _confine(part["spec"], room.settings.get("dask_service_account"))
    spec["spec"]["scheduler"]["spec"]["containers"][0]["resources"] = _resources(1, 1000)
    return {"spec": spec, "namespace": room.settings.get("dask_namespace")}


def _resources(threads: int, mem_mb: int) -> Options:
    """Return what a container asks for and at most gets."""
    size = {"cpu": str(threads), "memory": f"{mem_mb}M"}
    return {"requests": size, "limits": size}


def _confine(pod: Options, account: str | None) -> None:
    """Take from a pod whatever its work doesn't need; it writes below /tmp."""
    pod["securityContext"] = {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    if account:
        pod["serviceAccountName"] = account
    for container in pod["containers"]:
        container["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]
        container["securityContext"] = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@contextmanager
def _as_pods(options: Options) -> Iterator[Any]:
    from dask_kubernetes.operator import KubeCluster
    from distributed import Client
    from distributed.diagnostics.plugin import UploadDirectory

    try:
        cluster = KubeCluster(
            custom_cluster_spec=options["spec"], namespace=options["namespace"], quiet=True
        )
    except (RuntimeError, TimeoutError) as error:
        raise TransientError(
            f"the Dask operator has not made a cluster ({error}); is it installed, and may the "
            "service account of the job create DaskClusters? (docs/running/dask.md)"
        ) from error
    with cluster:
        with Client(cluster, timeout="60s") as client:  # this library: the image may have another
            library = Path(__file__).parents[1]
            client.register_plugin(
                UploadDirectory(library, restart_workers=True, update_path=True, mode="all")
            )
        yield cluster


# --------------------------------------------------------------------------------------
# Tasks on a cluster


@dataclass(frozen=True)
class Patient:
    """A task of another machine, which may not see yet what was just written.

    A block that is begun again does no harm; an error that stays is raised after `seconds`.
    """

    function: Callable[[Any], Any]
    seconds: float

    def __call__(self, task: Any) -> Any:
        """Return what the function returns."""
        end, pause = time.monotonic() + self.seconds, 0.1
        while True:
            try:
                return self.function(task)
            except (StoreError, FileNotFoundError) as error:
                if time.monotonic() + pause > end:
                    raise
                log.warning("not to be seen here yet, or not there: %s", error)
                time.sleep(pause)
                pause = min(2 * pause, 10)


def _on_cluster(client: Any, room: Room, latency: float) -> Mapper:
    from distributed import KilledWorker, as_completed
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import NoWorkerError

    def run(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        patient = Patient(function, latency) if latency else function
        results: list[Any] = [None] * len(tasks)
        try:
            futures = client.map(patient, tasks, pure=False)
            place = {future.key: n for n, future in enumerate(futures)}
            for future, result in as_completed(futures, with_results=True):
                if future.cancelled():  # the scheduler is gone; Dask's loop gives errors as results
                    raise CancelledError
                results[place[future.key]] = result
                future.release()  # or it would be computed again when its worker dies
        except KilledWorker as error:
            raise TransientError(
                f"{room.rule}: two Dask workers in a row died within the same block, most likely "
                f"for want of memory (mem_mb={room.mem_mb}"
                + "".join(f", {n}={v}" for n, v in room.settings.items() if n == "dask_mem_mb")
                + "); the profile's next attempt gets more, or raise it there; finished blocks stay"
            ) from error
        except (CancelledError, CommClosedError, NoWorkerError) as error:
            raise TransientError(
                f"{room.rule}: the Dask scheduler or all workers are gone "
                f"({type(error).__name__}); type the same command again, finished blocks stay"
            ) from error
        return results

    return run


CLUSTERS: Mapping[str, tuple[Callable[[Room], Options], Any, int, float]] = {
    "cluster": (in_job, _in_job, 60, 0.0),
    "nodes": (over_nodes, _over_nodes, 300, LATENCY),
    "jobs": (as_jobs, _as_jobs, 1800, LATENCY),
    "operator": (as_pods, _as_pods, 1800, 0.0),
}
"""Kind -> its options, what starts it, longest wait for a worker [s], and for a file [s]."""


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
