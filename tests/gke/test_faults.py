"""What goes wrong in a cluster: tried again or refused, with one clear message."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml
from gke.conftest import Deployment, small
from gke.kubernetes_api import Pod, Refusal
from trial import Outcome

pytestmark = pytest.mark.slow
Run = Callable[..., Outcome]
TARGET = "weights"
"""A rule whose jobs take a second and share a pod."""


@pytest.fixture
def run(deployment: Deployment, request: pytest.FixtureRequest) -> Run:
    """Return a function that makes a few small stores in one pod, for each test anew."""
    deployment.cluster.reset()
    deployment.proxy.reset()
    prefix = f"{deployment.prefix}/{request.node.name.translate(str.maketrans('[]', '--'))}"
    configfile = deployment.clone / "config" / "small.yaml"
    configfile.write_text(yaml.safe_dump(small()))

    def snakemake(*arguments: str, **variables: str) -> Outcome:
        return deployment.snakemake(
            *("--until", TARGET, "--configfile", "config/small.yaml", *arguments),
            **{"FINESCALE_PREFIX": prefix, **variables},
        )

    return snakemake


def end_by_signal(pod: Pod) -> None:
    """Let the pod's memory run out, as the kernel tells a kubelet."""
    pod.end(137, "OOMKilled")


def preempt(pod: Pod) -> None:
    """Take the pod away with its node; the Job controller counts it as failed."""
    pod.cluster.remove(pod)


FATES = {
    "deleted": (preempt, "its pod is gone (a spot node was taken back"),
    "evicted": (
        lambda pod: pod.lose("Failed", "Evicted", "The node was low on resource: memory."),
        "Evicted: The node was low on resource: memory.",
    ),
    "node lost": (
        lambda pod: pod.lose("Unknown", "NodeLost", "Node n1 is unresponsive", job=False),
        "NodeLost: Node n1 is unresponsive",
    ),
    "killed": (end_by_signal, "(OOMKilled)"),
}


def test_pods_that_end_early_are_tried_again(run: Run, deployment: Deployment) -> None:
    """Four ways in a row: each of them is told, none of them ends the run."""
    cluster = deployment.cluster
    cluster.fates += [("weights", fate) for fate, _ in FATES.values()]
    outcome = run("--retries", "4")
    assert outcome.code == 0, outcome.text
    for _, message in FATES.values():
        assert outcome.text.count(message) == 1, outcome.text
    assert len(cluster.jobs) == 1 + len(FATES)
    assert not cluster.objects["jobs"] and not cluster.objects["secrets"]


def test_a_job_that_ran_out_of_memory_gets_more(run: Run, deployment: Deployment) -> None:
    deployment.cluster.fates += [("weights", end_by_signal)]
    assert run().code == 0
    limits = [
        int(job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"][:-1])
        for job in deployment.cluster.jobs
    ]
    assert len(limits) == 2 and limits[1] > limits[0]


def test_an_image_that_cannot_be_pulled_ends_the_run(run: Run, deployment: Deployment) -> None:
    """The plugin would wait for ever."""

    def waiting(pod: Pod) -> None:
        reason = {"reason": "ImagePullBackOff", "message": "401 Unauthorized"}
        pod.state("Pending", {"waiting": reason})

    deployment.cluster.fates += [("weights", waiting)]
    outcome = run(FINESCALE_POD_WAIT="3")
    assert outcome.code == 1
    said = "the image example.org/finescale:test cannot be pulled (ImagePullBackOff: 401"
    assert said in outcome.text, outcome.text
    assert "Traceback" not in outcome.text
    assert not deployment.cluster.objects["jobs"], deployment.cluster.requests
    assert not deployment.cluster.objects["secrets"], deployment.cluster.requests


def test_a_pod_that_no_node_takes_is_given_up(run: Run, deployment: Deployment) -> None:
    def unschedulable(pod: Pod) -> None:
        condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: memory"}
        pod.document["status"] = {"phase": "Pending", "conditions": [condition]}

    deployment.cluster.fates += [("weights", unschedulable)]
    outcome = run("--retries", "0", FINESCALE_POD_WAIT="3")
    assert outcome.code == 1
    assert outcome.text.count("it has not started in 3 s: 0/3 nodes: memory") == 1, outcome.text


def test_an_api_server_that_is_away_for_a_while_is_no_failure(
    run: Run, deployment: Deployment
) -> None:
    """Every kind of request, the look at running jobs above all: the plugin forgets the job."""
    refusals = {kind: [500, 429, 503] for kind in ("secrets", "jobs", "pods")}

    def refuse(verb: str, kind: str) -> Refusal | None:
        if refusals[kind]:
            return Refusal(refusals[kind].pop(), "Busy", "as the test wants it")
        return None

    deployment.cluster.refuse = refuse
    outcome = run()
    assert outcome.code == 0, outcome.text
    assert len(deployment.cluster.jobs) == 1, deployment.cluster.requests
    assert not any(refusals.values()), refusals


def test_an_account_without_a_role_is_refused(run: Run, deployment: Deployment) -> None:
    deployment.cluster.refuse = lambda verb, kind: (
        Refusal(403, "Forbidden", "no") if (verb, kind) == ("POST", "jobs") else None
    )
    outcome = run()
    assert outcome.code == 1
    assert "Kubernetes refuses this account in namespace finescale (403 Forbidden)" in outcome.text
    assert "Traceback" not in outcome.text, outcome.text


def test_a_bucket_that_fails_now_and_then_is_no_failure(run: Run, deployment: Deployment) -> None:
    deployment.proxy.fail("POST .*/o[?]", 2, status=503)
    deployment.proxy.fail("GET /", 3, status=503)
    deployment.proxy.fail("GET /", 5, delay=2.0)
    outcome = run()
    assert outcome.code == 0, outcome.text


def test_a_bucket_that_pods_may_not_write_is_told(run: Run, deployment: Deployment) -> None:
    """They cannot say so in the bucket, only in their logs; no second pod would fare better."""

    def forbidden(pod: Pod) -> None:
        deployment.proxy.fail("POST .*/o[?]", 9999, status=403)
        pod.run()

    deployment.cluster.fates += [("weights", forbidden)]
    outcome = run("--retries", "2")
    assert outcome.code == 1
    assert "weights: gs://" in outcome.text, outcome.text
    assert "writing or reading there is not permitted" in outcome.text
    assert len(deployment.cluster.jobs) == 1
    assert "Traceback" not in outcome.text
