"""Set-up and tear-down, run against a `gcloud` and a `kubectl` that remember what they are told."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from trial import ROOT

import finescale

FOLDER = ROOT / "deploy" / "gke"
# A cloud in a folder: what was created can be described until it is deleted.
CLOUD = """#!/bin/sh
cd "$CLOUD"
printf '%s' "${0##*/}" >> calls
for word; do printf ' %s' "$word" | tr '\\n' ' ' >> calls; done
echo >> calls
[ "${0##*/}" = gcloud ] || exit 0
kind= verb= name=
for word; do
    case $word in
        --*) ;;
        describe | list | create | delete | rm) verb=$word ;;
        *) [ -z "$verb" ] && kind=$kind.$word || name=${name:-$word} ;;
    esac
done
[ "$kind" != .storage ] || kind=.storage.buckets
[ "$kind" != .iam.service-accounts ] || name=${name%%@*}
[ "$kind" != .billing.budgets ] || name=${name:-id}
case $verb in
    list) ls -A | sed -n "s/^$kind://p" ;;
    describe) [ -e "$kind:$(basename "$name")" ] ;;
    create) [ ! "$FAIL" ] || [ "$kind" != "$FAIL" ] || exit 1
        : > "$kind:$(basename "$name")" ;;
    delete | rm) rm "$kind:$(basename "$name")" ;;
esac
"""
MADE = {
    ".compute.networks:finescale",
    ".compute.networks.subnets:finescale",
    ".storage.buckets:p-finescale",
    ".artifacts.repositories:finescale",
    ".iam.service-accounts:finescale-pods",
    ".iam.service-accounts:finescale-nodes",
    ".container.clusters:finescale",
    ".container.node-pools:spot",
    ".container.node-pools:steady",
}


def named(call: list[str]) -> dict[str, str]:
    """Return the options of a command that have a value."""
    return dict(word.split("=", 1) for word in call if word.startswith("--") and "=" in word)


@dataclass
class Cloud:
    """What a script left behind in a cloud that is a folder."""

    folder: Path

    def run(self, script: str, *arguments: str, **variables: str) -> tuple[int, str]:
        """Run a script; return its exit code and what it prints on standard output."""
        (self.folder / "calls").unlink(missing_ok=True)
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        known = {"PATH": path, "CLOUD": str(self.folder), "FAIL": "", "GOOGLE_CLOUD_PROJECT": "p"}
        done = subprocess.run(
            [str(FOLDER / script), *arguments],
            env={**known, **variables},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout

    @property
    def calls(self) -> list[list[str]]:
        """Return the commands of the last run."""
        return [shlex.split(line) for line in (self.folder / "calls").read_text().splitlines()]

    @property
    def resources(self) -> set[str]:
        return {path.name for path in self.folder.glob(".*")}

    def call(self, *words: str) -> list[str]:
        """Return the arguments of the one command that has all these words."""
        (found,) = (call for call in self.calls if set(words) <= set(call))
        return found

    def roles(self) -> set[tuple[str, str, str]]:
        """Return who was given which role on what."""
        found = set()
        for call in self.calls:
            options = dict(
                word.split("=", 1) for word in call if word.startswith("--") and "=" in word
            )
            if "add-iam-policy-binding" in call:
                on = call[call.index("add-iam-policy-binding") + 1]
                found.add((options["--member"].partition(":")[2], options["--role"], on))
        return found


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """Return a cloud without anything in it."""
    (tmp_path / "bin").mkdir()
    for name in ("gcloud", "kubectl"):
        (tmp_path / "bin" / name).write_text(CLOUD)
        (tmp_path / "bin" / name).chmod(0o755)
    return Cloud(tmp_path)


def test_set_up_makes_everything_and_tear_down_leaves_only_the_data(cloud: Cloud) -> None:
    assert cloud.run("set-up.sh")[0] == 0
    assert cloud.resources == MADE
    assert cloud.run("tear-down.sh")[0] == 0
    in_cluster = {name for name in MADE if "node-pools" in name}  # they go with it
    assert cloud.resources == {".storage.buckets:p-finescale"} | in_cluster
    assert cloud.run("tear-down.sh", "--with-data")[0] == 0
    assert cloud.resources == in_cluster


def test_a_second_set_up_creates_nothing(cloud: Cloud) -> None:
    cloud.run("set-up.sh")
    assert cloud.run("set-up.sh")[0] == 0
    assert not [call for call in cloud.calls if "create" in call]


def test_a_set_up_that_failed_goes_on_where_it_was(cloud: Cloud) -> None:
    assert cloud.run("set-up.sh", FAIL=".container.node-pools")[0] != 0
    assert cloud.resources < MADE
    assert cloud.run("set-up.sh")[0] == 0
    assert cloud.resources == MADE


def test_without_a_project_nothing_is_done(cloud: Cloud) -> None:
    assert cloud.run("set-up.sh", GOOGLE_CLOUD_PROJECT="")[0] != 0
    assert not cloud.resources


def test_set_up_prints_what_the_profile_reads_and_nothing_else(cloud: Cloud) -> None:
    _, printed = cloud.run("set-up.sh")
    said = dict(re.findall(r"^export (\w+)=(\S+)$", printed, re.MULTILINE))
    assert len(said) == len(printed.splitlines())
    profile = (ROOT / "profiles" / "gke" / "config.yaml").read_text()
    assert said.keys() >= set(re.findall(r'needed\("(\w+)"', profile))
    assert said["FINESCALE_PREFIX"] == "gs://p-finescale/run"
    assert said["FINESCALE_IMAGE"].endswith(f"/finescale:{finescale.__version__}")


def test_each_account_has_the_smallest_roles(cloud: Cloud) -> None:
    cloud.run("set-up.sh")
    pods, nodes = (f"finescale-{who}@p.iam.gserviceaccount.com" for who in ("pods", "nodes"))
    assert cloud.roles() == {
        (pods, "roles/storage.objectUser", "gs://p-finescale"),
        (pods, "roles/storage.legacyBucketReader", "gs://p-finescale"),
        (pods, "roles/serviceusage.serviceUsageConsumer", "p"),
        (nodes, "roles/container.defaultNodeServiceAccount", "p"),
        (nodes, "roles/artifactregistry.reader", "finescale"),
        ("p.svc.id.goog[finescale/finescale]", "roles/iam.workloadIdentityUser", pods),
    }
    assert not [call for call in cloud.calls if "keys" in call], "a key was made"


def test_what_was_granted_in_the_project_is_taken_back(cloud: Cloud) -> None:
    cloud.run("set-up.sh")
    given = {(who, role) for who, role, on in cloud.roles() if on == "p"}
    cloud.run("tear-down.sh")
    taken = [call for call in cloud.calls if "remove-iam-policy-binding" in call]
    options = [named(call) for call in taken]
    assert {(o["--member"].partition(":")[2], o["--role"]) for o in options} == given


def test_the_bucket_is_closed_and_forgives_a_deletion(cloud: Cloud) -> None:
    cloud.run("set-up.sh")
    assert {
        "--uniform-bucket-level-access",
        "--public-access-prevention",
        "--soft-delete-duration=7d",
    } <= set(cloud.call("buckets", "create"))
    assert f"--lifecycle-file={FOLDER / 'lifecycle.json'}" in cloud.call("buckets", "update")


def test_only_scratch_leases_and_sources_run_out() -> None:
    rules = json.loads((FOLDER / "lifecycle.json").read_text())["rule"]
    deleting = [rule["condition"] for rule in rules if rule["action"]["type"] == "Delete"]
    assert all(condition["age"] >= 7 for condition in deleting)
    assert {prefix for condition in deleting for prefix in condition["matchesPrefix"]} == {
        "scratch/",
        "run/snakemake-workflow-sources.",
        "run/stores/.leases/",
    }


def test_nodes_are_private_and_pods_have_identities(cloud: Cloud) -> None:
    cloud.run("set-up.sh")
    cluster = set(cloud.call("clusters", "create"))
    assert {"--enable-private-nodes", "--workload-pool=p.svc.id.goog"} <= cluster
    assert "--enable-private-ip-google-access" in cloud.call("subnets", "create")
    pools = [call for call in cloud.calls if "node-pools" in call and "create" in call]
    assert len(pools) == 2
    for call in (cluster, *pools):
        assert "--workload-metadata=GKE_METADATA" in call
        assert "--service-account=finescale-nodes@p.iam.gserviceaccount.com" in call
    assert not [word for call in cloud.calls for word in call if "nat" in re.split(r"\W", word)]


def test_nodes_for_jobs_come_and_go_and_only_the_spot_pool_is_tainted(cloud: Cloud) -> None:
    cloud.run("set-up.sh")
    spot, steady = (cloud.call("node-pools", "create", name) for name in ("spot", "steady"))
    for pool in (spot, steady):
        assert {"--enable-autoscaling", "--min-nodes=0", "--num-nodes=0"} <= set(pool)
    assert {"--spot", "--node-taints=cloud.google.com/gke-spot=true:NoSchedule"} <= set(spot)
    assert not {word for word in steady if "taint" in word or word == "--spot"}


def test_the_largest_pod_of_the_profile_fits_a_node(cloud: Cloud) -> None:
    cloud.run("set-up.sh")
    (machine,) = (w for w in cloud.call("node-pools", "create", "spot") if "--machine-type" in w)
    processors = int(machine.rpartition("-highmem-")[2])
    profile = (ROOT / "profiles" / "gke" / "config.yaml").read_text()
    (cores,) = re.findall(r"^cores: (\d+)$", profile, re.MULTILINE)
    (mem_mb,) = re.findall(r"^resources:\n  mem_mb: (\d+)$", profile, re.MULTILINE)
    assert int(cores) * 0.95 <= processors - 0.5, "the executor asks for 0.95 of each"
    assert int(mem_mb) * 1e6 <= 0.85 * processors * 8 * 2**30, "a node keeps some for itself"


def test_a_budget_is_made_once_if_it_is_wanted_and_goes(cloud: Cloud) -> None:
    account = {"FINESCALE_BILLING_ACCOUNT": "0-1", "FINESCALE_BUDGET": "200EUR"}
    assert cloud.run("set-up.sh", **account)[0] == 0
    budget = set(cloud.call("budgets", "create"))
    assert {"--budget-amount=200EUR", "--filter-projects=projects/p"} <= budget
    assert {f"--threshold-rule=percent={x}" for x in ("0.5", "0.9", "1.0")} <= budget
    cloud.run("set-up.sh", **account)
    assert not [call for call in cloud.calls if "create" in call]
    assert cloud.run("tear-down.sh", **account)[0] == 0
    assert not {name for name in cloud.resources if "budgets" in name}


def test_a_budget_needs_an_amount(cloud: Cloud) -> None:
    assert cloud.run("set-up.sh", FINESCALE_BILLING_ACCOUNT="0-1")[0] != 0


def test_the_api_server_can_be_closed_to_other_addresses(cloud: Cloud) -> None:
    cloud.run("set-up.sh", FINESCALE_ADMIN_RANGE="192.0.2.0/24")
    assert {
        "--enable-master-authorized-networks",
        "--master-authorized-networks=192.0.2.0/24",
    } <= set(cloud.call("clusters", "create"))


def test_set_up_applies_the_manifests_and_binds_the_account(cloud: Cloud) -> None:
    cloud.run("set-up.sh")
    assert cloud.call("kubectl", "apply")[1:] == ["apply", "-k", str(FOLDER)]
    assert "iam.gke.io/gcp-service-account=finescale-pods@p.iam.gserviceaccount.com" in cloud.call(
        "kubectl", "annotate"
    )
    names = [
        d["metadata"]["name"] for d in yaml.safe_load_all((FOLDER / "accounts.yaml").read_text())
    ]
    assert cloud.call("kubectl", "annotate")[3] in names
