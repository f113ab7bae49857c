"""Jobs as pods that come to an end: what Snakemake's executor for Kubernetes leaves out.

Version 0.5.1 of the plugin aborts a run when it cannot read the log of a failed pod, forgets a
job when the API server answers its question with an error, waits for ever for a pod that cannot
start, and sets nothing that limits what a pod may do. This executor, put in its place, asks for
all jobs of a run in two requests, and says in one sentence why a pod failed.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config  # type: ignore[import-untyped]
from kubernetes.client.rest import ApiException  # type: ignore[import-untyped]
from snakemake_executor_plugin_kubernetes import (  # type: ignore[import-untyped]
    Executor as PluginExecutor,
)
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import (  # type: ignore[import-untyped]
    SubmittedJobInfo,
)
from snakemake_interface_executor_plugins.registry import (  # type: ignore[import-untyped]
    ExecutorPluginRegistry,
)

from finescale import failures

RUN = "finescale-run"
"""The label of all jobs and pods of a run."""
USER = 1000
"""Who runs in a pod, and owns its volumes."""
SPOT = "cloud.google.com/gke-spot"
"""Label and taint of nodes that may be taken back at any time."""
KEPT = 86400
"""A job whose run died stays so long [s]."""
ANSWER_SECONDS = 30.0
"""The API server answers in this time."""
AWAY_SECONDS = float(os.environ.get("FINESCALE_API_WAIT", "600"))
"""An API server that is upgraded comes back in this time [s]."""
START_SECONDS = float(os.environ.get("FINESCALE_POD_WAIT", "1800"))
"""A pod starts in this time, its node's included [s]."""
IMAGE_SECONDS = 300.0
"""A registry that can give the image does so in this time."""
BUSY = {408, 429, 500, 502, 503, 504}
NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


def install() -> None:
    """Let Snakemake use this executor for `--executor kubernetes`."""
    ExecutorPluginRegistry().get_plugin("kubernetes").executor = Executor


# --------------------------------------------------------------------------------------
# What a job is


def secured(
    job: client.V1Job, *, run: str, spot: bool = False, token: bool = False
) -> client.V1Job:
    """Return a copy of a job whose pod may do nothing but compute, on a spot node if wanted.

    Its root file system is read-only; `/tmp` and the working directory are volumes of its own. It
    has no access to the cluster unless it needs a `token`, to have a Dask cluster made: a service
    account of Google's cloud comes from the metadata server, without one.
    """
    job = copy.deepcopy(job)
    pod = job.spec.template.spec
    container = pod.containers[0]
    job.metadata.labels[RUN] = run
    job.spec.template.metadata = client.V1ObjectMeta(labels=dict(job.metadata.labels))
    job.spec.ttl_seconds_after_finished = KEPT
    pod.automount_service_account_token = token
    pod.security_context = client.V1PodSecurityContext(
        run_as_non_root=True,
        run_as_user=USER,
        run_as_group=USER,
        fs_group=USER,
        seccomp_profile=client.V1SeccompProfile(type="RuntimeDefault"),
    )
    container.security_context = client.V1SecurityContext(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=client.V1Capabilities(drop=["ALL"]),
    )
    pod.volumes.append(client.V1Volume(name="tmp", empty_dir=client.V1EmptyDirVolumeSource()))
    container.volume_mounts.append(client.V1VolumeMount(name="tmp", mount_path="/tmp"))
    container.env.append(client.V1EnvVar(name="HOME", value="/tmp"))
    if spot:
        pod.node_selector[SPOT] = "true"
        pod.tolerations = [
            *(pod.tolerations or []),
            client.V1Toleration(key=SPOT, operator="Equal", value="true", effect="NoSchedule"),
        ]
    return job


class _Client(client.ApiClient):  # type: ignore[misc]
    """Gives up on an answer that does not come."""

    def call_api(self, *arguments: Any, **options: Any) -> Any:
        options["_request_timeout"] = options.get("_request_timeout") or ANSWER_SECONDS
        return super().call_api(*arguments, **options)


class _Jobs(client.BatchV1Api):  # type: ignore[misc]
    """Creates jobs that are secured; one that was created before its answer was lost is ours."""

    def __init__(self, api: client.ApiClient, run: str) -> None:
        super().__init__(api)
        self.run, self.spot, self.token = run, False, False

    def create_namespaced_job(self, namespace: str, body: client.V1Job, **options: Any) -> Any:
        try:
            job = secured(body, run=self.run, spot=self.spot, token=self.token)
            return super().create_namespaced_job(namespace, job, **options)
        except ApiException as error:
            if error.status != 409:
                raise
            return self.read_namespaced_job(body.metadata.name, namespace)


# --------------------------------------------------------------------------------------
# How a job ends


@dataclass(frozen=True)
class End:
    """How a job ended; why, if it failed."""

    failure: str = ""


def end(job: client.V1Job | None, pod: client.V1Pod | None) -> End | None:
    """Return how a job ended; None while it goes on.

    The container is asked first: others beside it may keep a pod alive.
    """
    if job is None:
        return End("its job was deleted by somebody else")
    status = pod.status if pod else client.V1PodStatus()
    ended = _container(pod).terminated
    if (ended and ended.exit_code == 0) or (job.status.succeeded and not ended):
        return End()
    if ended and ended.reason == "OOMKilled":
        limit = pod.spec.containers[0].resources.limits["memory"] if pod else "?"
        return End(f"it needed more memory than its limit of {limit} (OOMKilled)")
    if status.reason:
        return End(f"{status.reason}: {status.message or 'its node was taken away'}")
    if status.phase == "Unknown":
        return End("its node does not answer")
    if ended:
        return End(f"its command ended with exit code {ended.exit_code}")
    if job.status.failed:
        return End("its pod is gone (a spot node was taken back, or somebody deleted it)")
    return None


@dataclass(frozen=True)
class Obstacle:
    """Why a pod has not started, and for how long that may be so [s]."""

    why: str
    seconds: float
    is_image: bool = False


def obstacle(pod: client.V1Pod | None) -> Obstacle | None:
    """Return what keeps a pod from starting; None if it has started."""
    if pod is None or pod.status.phase != "Pending":
        return None
    waiting = _container(pod).waiting
    if waiting and waiting.reason in NO_IMAGE:
        image = pod.spec.containers[0].image
        why = f"the image {image} cannot be pulled ({waiting.reason}: {waiting.message or ''})"
        return Obstacle(why, min(IMAGE_SECONDS, START_SECONDS), is_image=True)
    if waiting and waiting.reason not in ("ContainerCreating", "PodInitializing"):
        return Obstacle(f"{waiting.reason}: {waiting.message or ''}", START_SECONDS)
    conditions = [c for c in pod.status.conditions or [] if c.status == "False" and c.message]
    return Obstacle(conditions[0].message if conditions else "no node takes it", START_SECONDS)


def _container(pod: client.V1Pod | None) -> client.V1ContainerState:
    """Return the state of the container that runs the job."""
    states = (pod.status.container_statuses if pod else None) or []
    found = next((one.state for one in states if one.name == "snakemake"), None)
    return found or client.V1ContainerState()


# --------------------------------------------------------------------------------------
# The executor


class Executor(PluginExecutor):  # type: ignore[misc]
    """The plugin's executor, for clusters that fail."""

    def register_secret(self) -> None:
        """Connect; a run with nothing to do would leave its secret behind."""
        self._waits_since: dict[str, float] = {}
        self._has_secret = False
        self._connect()

    def _connect(self) -> None:
        """Make clients with the credentials of now."""
        try:
            config.load_kube_config()
        except config.ConfigException:
            config.load_incluster_config()
        api = _Client()
        self.kubeapi, self.batchapi = client.CoreV1Api(api), _Jobs(api, self.run_namespace)

    def run_job(self, job: Any) -> None:
        """Submit a job; with the first one goes a secret, the environment of all pods."""
        if not self._has_secret:
            self._kubernetes_retry(super().register_secret)
            self._has_secret = True
        self.batchapi.spot = bool(job.resources.get("spot", 0))
        self.batchapi.token = job.resources.get("dask") == "operator"
        super().run_job(job)

    def additional_general_args(self) -> str:
        """Return what the Snakemake of a pod is told: a group's jobs have its memory in turn."""
        return "--resources serial=1"

    def unregister_secret(self) -> None:
        """Remove the secret of this run, if it has one."""
        if self._has_secret:
            super().unregister_secret()

    def _kubernetes_retry(self, func: Callable[[], Any]) -> Any:
        """Return the answer to a request; it is repeated while the API server is away or busy."""
        begun, pause = time.monotonic(), 1.0
        while True:
            try:
                with self.lock:
                    return func()
            except ApiException as error:
                if error.status == 409:  # a secret that was created before its answer was lost
                    return None
                if error.status == 401 and pause < 2:
                    self._connect()
                elif error.status not in BUSY:
                    raise WorkflowError(_refusal(error, self.namespace)) from None
                problem = f"{error.status} {error.reason}"
            except (urllib3.exceptions.HTTPError, OSError) as error:
                problem = type(error).__name__
            if time.monotonic() + pause - begun > AWAY_SECONDS:
                raise WorkflowError(
                    f"The Kubernetes API server has not answered for {AWAY_SECONDS:.0f} s "
                    f"({problem}). What is finished is kept; type the same command again."
                )
            self.logger.warning(f"The Kubernetes API server is away ({problem}); asking again.")
            time.sleep(pause)
            pause = min(2 * pause, 30.0)

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report the jobs that have ended and yield the others."""
        if not active_jobs:
            return
        jobs, pods = self._look()
        for info in active_jobs:
            job, pod = jobs.get(info.external_jobid), pods.get(info.external_jobid)
            try:
                ended = end(job, pod) or self._given_up(info.external_jobid, pod)
            except WorkflowError:
                self.cancel_jobs(active_jobs)  # Snakemake does not know them while we look
                raise
            if ended is None:
                yield info
                continue
            if ended.failure:
                logs = self._keep_log(pod)
                # Of a group of jobs Snakemake would print neither.
                said = _last_words(logs, info.job)
                self.logger.error(f"Pod of {info.external_jobid}: {ended.failure}.{said}")
                self.report_job_error(info, aux_logs=logs)
            else:
                self.report_job_success(info)
            if not self.workflow.executor_settings.omit_job_cleanup:
                self._kubernetes_retry(partial(self.safe_delete_job, info.external_jobid))

    def _look(self) -> tuple[Mapping[str, client.V1Job], Mapping[str, client.V1Pod]]:
        """Return the jobs of this run by name, and their pods by the same."""
        of_this_run = {"namespace": self.namespace, "label_selector": f"{RUN}={self.run_namespace}"}
        jobs = self._kubernetes_retry(lambda: self.batchapi.list_namespaced_job(**of_this_run))
        pods = self._kubernetes_retry(lambda: self.kubeapi.list_namespaced_pod(**of_this_run))
        return (
            {job.metadata.name: job for job in jobs.items},
            {pod.metadata.labels["job-name"]: pod for pod in pods.items},
        )

    def _given_up(self, name: str, pod: client.V1Pod | None) -> End | None:
        """Return the end of a job whose pod has not started in time.

        Raises
        ------
        WorkflowError
            There is no image: no other pod would start either.
        """
        found, now = obstacle(pod), time.monotonic()
        if found is None:
            self._waits_since.pop(name, None)
            return None
        if now - self._waits_since.setdefault(name, now) < found.seconds:
            return None
        if found.is_image:
            raise WorkflowError(
                f"Pod of {name}: {found.why}. Correct FINESCALE_IMAGE, or let the nodes read from "
                "the registry; then type the same command again."
            )
        return End(f"it has not started in {found.seconds:.0f} s: {found.why}")

    def _keep_log(self, pod: client.V1Pod | None) -> list[str]:
        """Return the file with what a pod printed, if its node still tells; heed it."""
        if pod is None:
            return []
        try:
            with self.lock:
                text = self.kubeapi.read_namespaced_pod_log(pod.metadata.name, self.namespace)
        except (ApiException, urllib3.exceptions.HTTPError, OSError):
            return []  # gone with its node
        path = self.log_path / f"{pod.metadata.name}.log"
        path.write_text(text)
        failures.hear(text)
        return [str(path)]


def _last_words(logs: list[str], job: Any) -> str:
    """Return what a rule's script said when it failed."""
    rules = tuple(f"{one.rule.name}: " for one in (job.jobs if job.is_group() else [job]))
    lines = [line for log in logs for line in Path(log).read_text().splitlines()]
    return "".join(f"\n  {line}" for line in lines if line.startswith(rules))


def _refusal(error: ApiException, namespace: str) -> str:
    """Return what an answer means for which a repetition is of no use."""
    if error.status in (401, 403):
        return (
            f"Kubernetes refuses this account in namespace {namespace} ({error.status} "
            f"{error.reason}). It may create, list and delete jobs, pods and secrets there, and "
            "read logs, once an administrator has given it that role (deploy/gke)."
        )
    return f"Kubernetes refuses a request in namespace {namespace}: {error.status} {error.body}"
