"""`snakemake --profile gke` on a small config: what goes to the cluster, and what comes of it."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from gke.conftest import Deployment, small
from trial import ROOT, Outcome, Workflow

from finescale import start

pytestmark = pytest.mark.slow
RUNS = ("fails", "resumes", "has nothing to do")
QUANTITY = re.compile(r"[1-9][0-9]*[mM]")
CREDENTIAL = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAIza[0-9A-Za-z_-]{35}|\bya29[.][0-9A-Za-z_-]{20}"
    r"|\bgh[opsu]_[0-9A-Za-z]{36}|\bAKIA[0-9A-Z]{16}\b|\beyJ[0-9A-Za-z_-]{10,}[.]eyJ"
    r"|\"private_key(_id)?\"\s*:\s*\"|(?i:\b(password|passwd|secret_key|api_key|access_token)"
    r"[\"']?\s*[:=]\s*[\"'][^\"'$ {}]{8,})"
)
"""What keys and tokens look like: PEM, Google, GitHub, AWS, JWT, and assignments of words."""


@pytest.fixture(scope="module")
def small_deployment(
    deployment: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Deployment:
    """Return the deployment with a prefix of its own and a small config outside of the clone."""
    configfile = tmp_path_factory.mktemp("elsewhere") / "config.yaml"
    configfile.write_text(yaml.safe_dump(small()))
    prefix = f"{deployment.prefix}/small"
    variables = {**deployment.variables, "FINESCALE_PREFIX": prefix, "CONFIG": str(configfile)}
    return replace(deployment, prefix=prefix, variables=variables)


@pytest.fixture(scope="module")
def outcomes(small_deployment: Deployment) -> dict[str, tuple[Outcome, int]]:
    """Return three runs, and how many pods each of them had; in the first one `adjust` fails."""
    cluster = small_deployment.cluster
    cluster.reset()
    cluster.fates.append(("--target-jobs 'adjust", lambda pod: pod.end(1, "Error")))
    found = {}
    for name in RUNS:
        before = len(cluster.jobs)
        outcome = small_deployment.snakemake(
            *("--configfile", small_deployment.variables["CONFIG"], "--retries", "0")
        )
        found[name] = outcome, len(cluster.jobs) - before
    return found


@pytest.fixture(scope="module")
def jobs(
    outcomes: dict[str, tuple[Outcome, int]], small_deployment: Deployment
) -> list[dict[str, Any]]:
    """Return every job as the cluster got it."""
    return small_deployment.cluster.jobs


def test_a_run_goes_on_where_another_one_failed(
    outcomes: dict[str, tuple[Outcome, int]],
) -> None:
    (failed, pods), (resumed, more), (nothing, none) = outcomes.values()
    assert failed.code == 1 and failed.text.count("its command ended with exit code 1") == 1
    assert "Finescale: small is not complete." in failed.text
    assert resumed.code == 0, resumed.text
    assert "Finescale: small is complete." in resumed.text
    rules = set(re.findall(r"^ *rule (\w+):$", resumed.text, re.MULTILINE))
    assert rules & {"reference", "simulation", "weights", "coarsen", "climatology"} == set()
    assert {"adjust", "bcsd", "aggregate", "evaluate"} <= rules
    assert (pods, none) == (3, 0) and 3 <= more <= 5
    assert nothing.code == 0 and "Nothing to be done" in nothing.text


def test_stores_are_those_of_the_local_profile(
    outcomes: dict[str, tuple[Outcome, int]], small_deployment: Deployment, tmp_path: Path
) -> None:
    """The same names, so the same identities, and the same bytes."""
    local = Workflow(tmp_path)
    local.configfile.write_text(yaml.safe_dump(small()))
    outcome = local.snakemake()
    assert outcome.code == 0, outcome.text
    assert small_deployment.bytes_of_stores() == local.bytes_of_stores()
    index, same = (
        json.loads(text)
        for text in (
            small_deployment.get("results/small/index.json"),
            (tmp_path / "results/small/index.json").read_bytes(),
        )
    )
    assert [p["identity"] for p in index["products"]] == [p["identity"] for p in same["products"]]
    assert index["stores"] == f"{small_deployment.prefix}/stores"


def test_nothing_is_left_in_the_cluster_or_beside_the_bucket(
    jobs: list[dict[str, Any]], small_deployment: Deployment
) -> None:
    cluster = small_deployment.cluster
    assert not cluster.objects["jobs"] and not cluster.objects["secrets"]
    assert not any((small_deployment.clone / name).exists() for name in ("stores", "results"))


def test_specs_are_what_kubernetes_takes(
    jobs: list[dict[str, Any]], small_deployment: Deployment
) -> None:
    for spec in small_deployment.cluster.specs:
        kubernetes_validate.validate(spec, "1.32", strict=True)
    for pod in (job["spec"]["template"]["spec"] for job in jobs):
        assert pod["restartPolicy"] == "Never"
        resources = pod["containers"][0]["resources"]
        assert set(resources["limits"]) == {"cpu", "memory", "ephemeral-storage"}
        for quantities in resources.values():
            assert all(QUANTITY.fullmatch(quantity) for quantity in quantities.values())


def test_pods_ask_for_what_the_plan_says(
    jobs: list[dict[str, Any]], small_deployment: Deployment
) -> None:
    """Their memory is that of the store, and 400 MB for the Snakemake around it."""
    configfile = Path(small_deployment.variables["CONFIG"])
    plan = start.read(yaml.safe_load(configfile.read_text()), configfile, look_up=False).plan
    (adjust,) = plan.stage("adjust")
    (simulation,) = plan.stage("simulation")
    asked = {
        match[1]: job["spec"]["template"]["spec"]
        for job in jobs
        if (match := re.search("--target-jobs '(adjust|simulation):", str(job)))
    }
    for artefact in (adjust, simulation):
        pod = asked[artefact.stage]
        limits = pod["containers"][0]["resources"]["limits"]
        assert limits["memory"] == f"{artefact.mem_mb + 400}M"
        assert limits["cpu"] == f"{artefact.threads * 1000}m"
        assert limits["ephemeral-storage"] == "1000M"
        assert pod["serviceAccountName"] == "finescale"
        assert pod["nodeSelector"] == {"cloud.google.com/gke-spot": "true"}


def test_jobs_of_a_group_have_the_memory_of_one_in_turn(
    outcomes: dict[str, tuple[Outcome, int]],
    jobs: list[dict[str, Any]],
    small_deployment: Deployment,
) -> None:
    """A pod has the memory of its largest job, so that two at a time would be killed."""
    commands = [job["spec"]["template"]["spec"]["containers"][0]["args"][-1] for job in jobs]
    assert all("--resources serial=1" in command for command in commands)
    groups = [log for log in small_deployment.cluster.logs if log.count("localrule ") > 1]
    turns = [re.findall(r"^(localrule|Finished jobid)", log, re.MULTILINE) for log in groups]
    assert turns and all(turn == turn[:2] * (len(turn) // 2) for turn in turns)


def test_pods_may_do_nothing_but_compute(jobs: list[dict[str, Any]]) -> None:
    for pod in (job["spec"]["template"]["spec"] for job in jobs):
        container = pod["containers"][0]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }


def test_there_is_no_credential_anywhere(
    outcomes: dict[str, tuple[Outcome, int]], small_deployment: Deployment
) -> None:
    """Specs, secrets, logs of pods, what Snakemake printed, and the repository."""
    cluster = small_deployment.cluster
    secrets = [spec["data"] for spec in cluster.specs if spec["kind"] == "Secret"]
    names = {name for data in secrets for name in data}
    assert names == {
        "google_cloud_project", "storage_emulator_host", "gcsfs_experimental_zb_hns_support",
        "snakemake_storage_gcs_project",
    }  # fmt: skip
    decoded = [base64.b64decode(value).decode() for data in secrets for value in data.values()]
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    texts = [
        *decoded, json.dumps(cluster.specs), *cluster.logs,
        *(outcome.text for outcome, _ in outcomes.values()),
        *((ROOT / name).read_text(errors="replace") for name in listed if (ROOT / name).is_file()),
    ]  # fmt: skip
    assert [match[0] for text in texts if (match := CREDENTIAL.search(text))] == []


@pytest.mark.parametrize(
    "planted",
    [
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        '"private_' + 'key": "x"',
        "AKIA" + "A" * 16,
        "ya29." + "a" * 30,
        "password" + " = 'correct-horse'",
        "eyJ" + "hbGciOiJSUzI1" + ".eyJ" + "zdWIi",
    ],
)
def test_a_credential_would_be_found(planted: str) -> None:
    assert CREDENTIAL.search(f"some text {planted} and more")


@pytest.mark.parametrize("name", ["FINESCALE_PREFIX", "GOOGLE_CLOUD_PROJECT", "FINESCALE_IMAGE"])
def test_a_variable_that_is_not_set_is_named(name: str, deployment: Deployment) -> None:
    outcome = deployment.snakemake("-n", **{name: ""})
    assert outcome.code != 0
    assert f"profiles/gke: {name} is not set; export {name}=" in outcome.text
    assert "Traceback" not in outcome.text
