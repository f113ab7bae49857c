"""A clone of the repository, a bucket and a cluster on loopback: what `--profile gke` needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from gke.kubernetes_api import CACHE, Cluster, running
from server import BUCKET, Flaky, environment, flaky, server
from trial import CONFIG, ROOT, Outcome

from finescale.storage import Objects
from finescale.store import PROVENANCE

if os.geteuid():
    pytest.skip("mount namespaces of pods need root", allow_module_level=True)

os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # read when gcsfs is imported
OVERLAY = "tests/gke/emulator.yaml"
IMAGE = {
    "PATH": f"{Path(__file__).with_name('image')}:{Path(sys.executable).parent}:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "NUMBA_CACHE_DIR": f"/workdir/{CACHE}",
}
"""The environment inside the image: this one, with a `pip` that has nothing to do."""
WORLD = {"first_year": 2012, "last_year": 2015, "n_lat": 12, "n_lon": 16, "ratio": 4}


@dataclass(frozen=True)
class Deployment:
    """A fresh clone, and the servers that its profile is pointed at."""

    clone: Path
    cluster: Cluster
    proxy: Flaky
    prefix: str
    variables: Mapping[str, str]

    def snakemake(self, *arguments: str, **variables: str) -> Outcome:
        """Type `snakemake --profile gke` in the clone."""
        found = subprocess.run(
            [
                *(sys.executable, "-m", "snakemake", "--profile", "gke"),
                *("--profile", OVERLAY, *arguments),
            ],
            cwd=self.clone,
            env={**os.environ, **self.variables, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Outcome(found.returncode, found.stdout)

    def get(self, key: str) -> bytes:
        """Return an object below the prefix."""
        return Objects(self.prefix).get(key)

    def bytes_of_stores(self) -> dict[str, bytes]:
        """Return every object of every store that is a function of the data."""
        objects = Objects(f"{self.prefix}/stores")
        keys = [key for key in objects.list() if not key.startswith(".")]
        with ThreadPoolExecutor(8) as pool:
            content = dict(zip(keys, pool.map(objects.get, keys), strict=True))
        return {key: data for key, data in content.items() if not key.endswith(PROVENANCE)}


def clone(to: Path) -> Path:
    """Return a fresh clone of what is checked out, with what is not committed yet."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=to, check=True)
    return to


def small(**sections: Any) -> dict[str, Any]:
    """Return a config of a few stores whose sources need no files."""
    synthetic = {"synthetic": WORLD, "variables": ["tasmax"]}
    return {
        **CONFIG,
        "references": {"OBS": synthetic},
        "simulations": [{"source_id": "FS-B", "experiment_id": "historical", **synthetic}],
        "products": [{**CONFIG["products"][0], "variable_id": ["tasmax"]}],
        **sections,
    }


@pytest.fixture(scope="package")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Give a clone, a bucket behind a proxy, and a cluster."""
    folder = tmp_path_factory.mktemp("gke")
    kubeconfig = folder / "kubeconfig"
    with (
        server() as url,
        flaky(url) as proxy,
        running(folder, IMAGE, ROOT, Path(sys.prefix), Path(sys.base_prefix)) as cluster,
    ):
        kubeconfig.write_text(json.dumps(_kubeconfig(cluster.url)))
        variables = {
            **environment(proxy.url),
            "KUBECONFIG": str(kubeconfig),
            "FINESCALE_PREFIX": f"gs://{BUCKET}/run",
            "FINESCALE_IMAGE": "example.org/finescale:test",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with mock.patch.dict(os.environ, environment(proxy.url)):
            yield Deployment(
                clone(folder / "clone"), cluster, proxy, f"gs://{BUCKET}/run", variables
            )


def _kubeconfig(url: str) -> dict[str, Any]:
    """Return how a client reaches the cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
