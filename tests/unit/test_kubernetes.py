"""Pods: what they may do, how their ends are told, and requests that are repeated."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.rest import ApiException
from snakemake_executor_plugin_kubernetes import Executor as PluginExecutor
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
from urllib3.exceptions import MaxRetryError

from finescale import kubernetes
from finescale.kubernetes import End, Executor, end, obstacle, secured


def job(**status: Any) -> client.V1Job:
    """Return a job as the plugin makes it."""
    container = client.V1Container(name="snakemake", image="x", env=[], volume_mounts=[])
    container.resources = client.V1ResourceRequirements(limits={"memory": "700M"})
    spec = client.V1PodSpec(containers=[container], node_selector={}, volumes=[])
    return client.V1Job(
        metadata=client.V1ObjectMeta(name="a", labels={"app": "snakemake"}),
        spec=client.V1JobSpec(template=client.V1PodTemplateSpec(spec=spec)),
        status=client.V1JobStatus(**status),
    )


def pod(phase: str, *, waiting: Any = None, ended: Any = None, **status: Any) -> client.V1Pod:
    """Return the pod of `job()`; `ended`: exit code and reason; `waiting`: reason and message."""
    state = client.V1ContainerState()
    if ended:
        code, reason = ended
        state.terminated = client.V1ContainerStateTerminated(exit_code=code, reason=reason)
    if waiting:
        reason, message = waiting
        state.waiting = client.V1ContainerStateWaiting(reason=reason, message=message)
    one = client.V1ContainerStatus(
        name="snakemake", image="x", image_id="x", ready=False, restart_count=0, state=state
    )
    statuses = [one] if waiting or ended else None
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name="a-1", labels={"job-name": "a"}),
        spec=job().spec.template.spec,
        status=client.V1PodStatus(phase=phase, container_statuses=statuses, **status),
    )


def test_the_plugin_is_the_one_that_was_read() -> None:
    """What we replace is private to it: another version must be read first."""
    assert version("snakemake-executor-plugin-kubernetes") == "0.5.1"
    replaced = ("register_secret", "run_job", "_kubernetes_retry", "check_active_jobs")
    assert all(hasattr(PluginExecutor, name) for name in (*replaced, "safe_delete_job"))


def test_our_executor_takes_the_place_of_the_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = ExecutorPluginRegistry().get_plugin("kubernetes")
    monkeypatch.setattr(plugin, "executor", PluginExecutor)
    kubernetes.install()
    assert plugin.executor is Executor


def test_a_pod_may_do_nothing_but_compute() -> None:
    made = secured(job(), run="r")
    spec = made.spec.template.spec
    (container,) = spec.containers
    assert spec.security_context.run_as_non_root and spec.security_context.run_as_user > 0
    assert spec.security_context.seccomp_profile.type == "RuntimeDefault"
    assert spec.automount_service_account_token is False
    assert container.security_context.allow_privilege_escalation is False
    assert container.security_context.read_only_root_filesystem is True
    assert container.security_context.capabilities.drop == ["ALL"]
    assert [mount.mount_path for mount in container.volume_mounts] == ["/tmp"]
    assert made.spec.template.metadata.labels == {"app": "snakemake", kubernetes.RUN: "r"}
    assert spec.node_selector == {} and spec.tolerations is None


def test_only_a_job_that_has_a_dask_cluster_made_is_given_a_token() -> None:
    assert secured(job(), run="r", token=True).spec.template.spec.automount_service_account_token


def test_a_request_that_is_repeated_asks_for_the_same() -> None:
    made, again = job(), job()
    secured(made, run="r", spot=True)
    assert made == again


def test_a_pod_goes_to_a_spot_node_if_that_is_wanted() -> None:
    spec = secured(job(), run="r", spot=True).spec.template.spec
    assert spec.node_selector == {kubernetes.SPOT: "true"}
    assert [one.key for one in spec.tolerations] == [kubernetes.SPOT]


@pytest.mark.parametrize(
    ("found", "its_pod", "expected"),
    [
        (job(), pod("Pending"), None),
        (job(), pod("Running"), None),
        (job(succeeded=1), None, ""),
        (job(), pod("Running", ended=(0, "Completed")), ""),
        (None, pod("Running"), "deleted by somebody else"),
        (job(failed=1), None, "its pod is gone"),
        (job(failed=1), pod("Failed", ended=(1, "Error")), "exit code 1"),
        (job(), pod("Failed", ended=(137, "OOMKilled")), "its limit of 700M"),
        (job(failed=1), pod("Failed", reason="Evicted", message="disk"), "Evicted: disk"),
        (job(), pod("Unknown", reason="NodeLost"), "NodeLost: its node was taken away"),
        (job(), pod("Unknown"), "its node does not answer"),
        (job(failed=1), pod("Running", ended=(0, "Completed")), ""),
    ],
)
def test_the_end_of_a_job_is_told_in_one_sentence(
    found: Any, its_pod: Any, expected: str | None
) -> None:
    """The last: what other containers of a pod do is not the job's end."""
    told = end(found, its_pod)
    if expected is None:
        assert told is None
    else:
        assert told is not None and expected in told.failure
        assert bool(told.failure) == bool(expected)


def test_what_keeps_a_pod_from_starting_is_known() -> None:
    image = obstacle(pod("Pending", waiting=("ImagePullBackOff", "403")))
    assert image and image.is_image and "403" in image.why
    full = [client.V1PodCondition(type="PodScheduled", status="False", message="0/3 nodes")]
    assert obstacle(pod("Pending", conditions=full)).why == "0/3 nodes"  # type: ignore[union-attr]
    secret = obstacle(pod("Pending", waiting=("CreateContainerConfigError", "no secret")))
    assert secret and "no secret" in secret.why
    assert obstacle(pod("Pending", waiting=("ContainerCreating", None))) is not None
    assert obstacle(pod("Running")) is None
    assert obstacle(None) is None


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return an executor without a workflow, whose pauses take no time."""
    pauses: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: now[0])
    monkeypatch.setattr(kubernetes, "time", clock)
    made: Any = Executor.__new__(Executor)
    made.lock, made.logger, made.namespace = threading.Lock(), logging.getLogger(), "ns"
    made.run_namespace, made._waits_since, made.pauses, made.now = "r", {}, pauses, now
    made._connect = lambda: pauses.append(-1.0)
    return made


def failing(*errors: Exception) -> Callable[[], str]:
    """Return a request that fails so often before it is answered."""
    left = list(errors)

    def request() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    return request


def test_requests_are_repeated_while_the_api_server_is_away(executor: Any) -> None:
    errors = [ApiException(status=code, reason="busy") for code in (500, 503, 429)]
    away = [MaxRetryError(None, "/", None), TimeoutError()]  # type: ignore[arg-type]
    assert executor._kubernetes_retry(failing(*errors, *away)) == "answer"
    assert executor.pauses == [1, 2, 4, 8, 16]


def test_credentials_that_ran_out_are_renewed_once(executor: Any) -> None:
    expired = ApiException(status=401, reason="Unauthorized")
    assert executor._kubernetes_retry(failing(expired)) == "answer"
    assert executor.pauses == [-1, 1]
    with pytest.raises(WorkflowError, match=r"refuses this account in namespace ns \(401"):
        executor._kubernetes_retry(failing(*[expired] * 3))


def test_an_api_server_that_stays_away_ends_the_run(executor: Any) -> None:
    with pytest.raises(WorkflowError, match="has not answered for 600 s"):
        executor._kubernetes_retry(failing(*[ApiException(status=503, reason="x")] * 99))
    assert 500 < sum(executor.pauses) <= 600


def test_what_is_not_permitted_is_not_repeated(executor: Any) -> None:
    with pytest.raises(WorkflowError, match=r"may create, list and delete jobs"):
        executor._kubernetes_retry(failing(ApiException(status=403, reason="Forbidden")))
    assert executor.pauses == []


def test_a_job_whose_creation_was_answered_too_late_is_ours(
    executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = kubernetes._Jobs(client.ApiClient(), "r")
    answers = iter([ApiException(status=409)])

    def create(self: Any, namespace: str, body: Any) -> Any:
        raise next(answers)

    monkeypatch.setattr(client.BatchV1Api, "create_namespaced_job", create)
    monkeypatch.setattr(jobs, "read_namespaced_job", lambda name, namespace: name)
    assert jobs.create_namespaced_job("ns", job()) == "a"


def test_pods_that_cannot_start_are_not_waited_for_without_end(executor: Any) -> None:
    full = pod("Pending")
    assert executor._given_up("a", full) is None
    executor.now[0] += kubernetes.START_SECONDS - 1
    assert executor._given_up("a", full) is None
    executor.now[0] += 1
    assert executor._given_up("a", full) == End("it has not started in 1800 s: no node takes it")
    pulling = pod("Pending", waiting=("ErrImagePull", "denied"))
    assert executor._given_up("b", pulling) is None
    executor.now[0] += kubernetes.IMAGE_SECONDS
    with pytest.raises(WorkflowError, match=r"image x cannot be pulled .* Correct FINESCALE_IMAGE"):
        executor._given_up("b", pulling)


def test_a_pod_that_started_and_waits_again_has_the_whole_time_again(executor: Any) -> None:
    executor._given_up("a", pod("Pending"))
    executor.now[0] += kubernetes.START_SECONDS
    assert executor._given_up("a", pod("Running")) is None
    assert executor._given_up("a", pod("Pending")) is None


def test_all_jobs_of_a_run_are_asked_for_in_two_requests(executor: Any) -> None:
    """The plugin asks twice for each; a hundred jobs would be two hundred requests a look."""
    asked: list[str] = []
    running = [SimpleNamespace(external_jobid=f"job{n}") for n in range(100)]
    jobs = [job() for _ in running]
    for one, made in zip(running, jobs, strict=True):
        made.metadata.name = one.external_jobid

    def listed(items: list[Any]) -> Any:
        def answer(namespace: str, label_selector: str) -> Any:
            asked.append(label_selector)
            return SimpleNamespace(items=items)

        return answer

    executor.batchapi = SimpleNamespace(list_namespaced_job=listed(jobs))
    executor.kubeapi = SimpleNamespace(list_namespaced_pod=listed([]))

    async def look() -> list[Any]:
        return [one async for one in executor.check_active_jobs(running)]

    assert asyncio.run(look()) == running
    assert asked == ["finescale-run=r"] * 2
