"""The manifests: valid, as small as what is asked of the cluster, and in step with the profile."""

from __future__ import annotations

import inspect
import re
import subprocess
from ipaddress import ip_network
from typing import Any

import kubernetes_validate
import pytest
import yaml
from snakemake_executor_plugin_kubernetes import Executor as PluginExecutor
from trial import ROOT

from finescale import kubernetes

FOLDER = ROOT / "deploy" / "gke"
VERSION = kubernetes_validate.latest_version()
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
FILES = [*KUSTOMIZATION["resources"], "dask.yaml"]
VERBS = {"create", "get", "list", "watch", "patch", "delete"}
VERB = {"read": "get"}
KIND = {"job": "jobs", "pod": "pods", "pod_log": "pods/log", "secret": "secrets"}


def documents(*names: str) -> list[dict[str, Any]]:
    """Return the objects of some manifests."""
    texts = [(FOLDER / name).read_text() for name in names or FILES]
    return [found for text in texts for found in yaml.safe_load_all(text)]


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = (d for d in documents() if d["kind"] == kind and d["metadata"]["name"] == name)
    return found


def rights(role: dict[str, Any]) -> set[tuple[str, str]]:
    """Return the pairs of resource and verb that a role allows."""
    return {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked() -> set[tuple[str, str]]:
    """Return what the executor asks the cluster for: its module, and what it leaves to the plugin.

    Methods of the plugin that are overridden without being called ask for nothing.
    """
    own = inspect.getsource(kubernetes)
    inherited = {name for name, _ in inspect.getmembers(PluginExecutor, inspect.isfunction)}
    inherited -= vars(kubernetes.Executor).keys() - set(re.findall(r"super\(\)\.(\w+)", own))
    source = own + "".join(inspect.getsource(getattr(PluginExecutor, name)) for name in inherited)
    calls = re.findall(r"\.(create|read|list|delete)_namespaced_(\w+)", source)
    return {(KIND[kind], VERB.get(verb, verb)) for verb, kind in calls}


@pytest.mark.parametrize("name", FILES)
def test_every_object_is_valid(name: str) -> None:
    found = documents(name)
    assert found
    for document in found:
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_an_unknown_key_would_be_noticed() -> None:
    role = one("Role", "finescale-runner")
    role["rules"][0]["verb"] = ["get"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(role, VERSION, strict=True)


def test_the_set_up_leaves_no_manifest_out() -> None:
    others = {"kustomization.yaml", "dask.yaml"}
    assert {path.name for path in FOLDER.glob("*.yaml")} - others == set(KUSTOMIZATION["resources"])


def test_a_runner_may_do_what_the_executor_asks_and_no_more() -> None:
    needed = asked()
    assert len(needed) > 7
    assert rights(one("Role", "finescale-runner")) == needed


@pytest.mark.parametrize("role", ["finescale-runner", "finescale-dask"])
def test_no_role_holds_a_star_or_an_unknown_verb(role: str) -> None:
    allowed = rights(one("Role", role))
    assert {verb for _, verb in allowed} <= VERBS
    assert not {resource for resource, _ in allowed if "*" in resource}


def test_pods_have_no_right_in_the_cluster_unless_dask_is_installed() -> None:
    account = one("ServiceAccount", "finescale")
    assert account["automountServiceAccountToken"] is False
    assert not [d for d in documents(*KUSTOMIZATION["resources"]) if "Binding" in d["kind"]]
    (subject,) = one("RoleBinding", "finescale-dask")["subjects"]
    assert subject["name"] == account["metadata"]["name"]


def test_the_roles_for_dask_do_not_reach_secrets_or_jobs() -> None:
    resources = {resource for resource, _ in rights(one("Role", "finescale-dask"))}
    assert not {r for r in resources if r.split("/")[0] in {"secrets", "jobs", "serviceaccounts"}}
    assert ("daskclusters", "create") in rights(one("Role", "finescale-dask"))


def test_the_namespace_refuses_pods_that_are_not_confined() -> None:
    labels = one("Namespace", "finescale")["metadata"]["labels"]
    assert labels == {"pod-security.kubernetes.io/enforce": "restricted"}


def test_a_pod_is_reached_by_its_neighbours_and_by_nobody_else() -> None:
    policy = one("NetworkPolicy", "finescale")["spec"]
    assert policy["podSelector"] == {} and set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["ingress"] == [{"from": [{"podSelector": {}}]}]


def test_a_pod_reaches_names_its_identity_and_services_over_tls() -> None:
    egress = one("NetworkPolicy", "finescale")["spec"]["egress"]
    anywhere = {p["port"] for rule in egress if "to" not in rule for p in rule["ports"]}
    assert anywhere == {53, 443}
    blocks = [
        to["ipBlock"]["cidr"] for rule in egress for to in rule.get("to", []) if "ipBlock" in to
    ]
    assert blocks and all(ip_network(block).is_link_local for block in blocks)


def test_names_are_those_of_the_profile() -> None:
    profile = (ROOT / "profiles" / "gke" / "config.yaml").read_text()
    for key, kind in (("NAMESPACE", "Namespace"), ("SERVICE_ACCOUNT", "ServiceAccount")):
        (default,) = re.findall(rf'get\("FINESCALE_{key}", "(.+?)"\)', profile)
        assert one(kind, default)
    assert KUSTOMIZATION["namespace"] == "finescale"
    assert {d["metadata"].get("namespace") for d in documents("dask.yaml")} == {"finescale"}


def test_kustomize_puts_everything_into_the_namespace() -> None:
    try:
        built = subprocess.check_output(["kubectl", "kustomize", str(FOLDER)], text=True)
    except FileNotFoundError:
        pytest.skip("kubectl is not installed")
    found = list(yaml.safe_load_all(built))
    assert len(found) == len(documents(*KUSTOMIZATION["resources"]))
    for document in found:
        kubernetes_validate.validate(document, VERSION, strict=True)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "finescale"
