"""The image: what the Dockerfile says of it, and, on demand, the image itself, built and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from trial import ROOT, Workflow

import finescale
from finescale.kubernetes import USER

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PIP = ROOT / "deploy" / "gke" / "pip"
TOOLS = ["debootstrap", "buildah", "podman", "runc"]
LISTING = (
    "import importlib.metadata as m, json;"
    "print(json.dumps({d.name: d.version for d in m.distributions()}))"
)
# Raising limits takes a capability that containers of a test machine may lack.
LIMITS = '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'


def locked() -> set[tuple[str, str]]:
    """Return names and versions of the lock; some have one for each version of Python."""
    lock = (ROOT / "envs" / "requirements.lock").read_text()
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE)
    return {(canonicalize_name(name), version) for name, version in pins}


def test_pods_run_as_the_user_of_the_image() -> None:
    assert f"useradd --uid {USER} " in DOCKERFILE
    assert re.findall(r"^USER (\S+)$", DOCKERFILE.partition("FROM base AS uv")[0], re.M) == [
        f"{USER}:{USER}"
    ]


def test_the_last_stage_is_the_image_and_no_root() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert stages[-1] == ("base", "finescale"), "`docker build .` makes the last one"
    assert ("base", "esmf") in stages


def test_the_image_has_the_version_of_the_library() -> None:
    assert re.findall(r"^ARG VERSION=(\S+)$", DOCKERFILE, re.M) == [finescale.__version__]
    assert set(re.findall(r"-t finescale:([\d.]+)", DOCKERFILE)) == {finescale.__version__}


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    first, *kept = [line for line in lines if line and not line.startswith("#")]
    assert first == "*"
    seen = {path for line in kept for path in ROOT.glob(line.removeprefix("!"))}
    sources = re.findall(r"^COPY (?:--chmod=\d+ )?(?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    assert seen == {ROOT / name for line in sources for name in line.split()}


def test_pip_in_a_pod_accepts_what_is_in_the_image() -> None:
    done = pip("snakemake-storage-plugin-gcs")
    assert done.returncode == 0
    assert "is in the image" in done.stdout


def test_pip_in_a_pod_names_what_is_not_in_the_image() -> None:
    done = pip("snakemake-storage-plugin-gcs", "snakemake-storage-plugin-nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("snakemake-storage-plugin-nowhere is not in this image")


def pip(*packages: str) -> subprocess.CompletedProcess[str]:
    """Run the image's pip as Snakemake's line for a pod does."""
    line = [sys.executable, str(PIP), "install", "--target", ".snakemake/pip-deployments"]
    return subprocess.run([*line, *packages], capture_output=True, text=True)


# --------------------------------------------------------------------------------------
# On demand: minutes, root, and a mirror of Debian


@dataclass(frozen=True)
class Engine:
    """Podman and buildah with a storage of their own."""

    folder: Path

    def __call__(self, tool: str, *arguments: str) -> str:
        """Return what a command prints; it fails with all of it."""
        storage = ["--root", str(self.folder / "images"), "--runroot", str(self.folder / "run")]
        done = subprocess.run(
            [tool, *storage, *arguments],
            env={**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def run(self, *command: str, options: tuple[str, ...] = ()) -> str:
        """Run a command as a pod would: confined, read-only, and here without a network."""
        return self(
            "podman", "--runtime", "runc", "run", "--rm", "--network=none",
            "--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:rw,mode=1777",
            "--cap-drop=ALL", "--security-opt=no-new-privileges", *options,
            "finescale:test", *command,
        )  # fmt: skip


@pytest.fixture(scope="session")  # as wide as `local_quickstart`: what skips must come before
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Build the image on a Debian made here: registries of images are not needed."""
    if os.environ.get("FINESCALE_TEST_IMAGE") != "1":
        pytest.skip("takes minutes; FINESCALE_TEST_IMAGE=1 builds and runs the image")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid():
        pytest.skip(f"building the image needs root and {', '.join(missing or TOOLS)}")
    folder = tmp_path_factory.mktemp("image")
    engine = Engine(folder)
    (folder / "containers.conf").write_text(LIMITS)
    try:
        engine(
            "buildah", "bud", "--isolation=chroot", "--network=host", "--pull-never",
            "--target=finescale", f"--build-arg=BASE={_debian(engine)}", "--tag=finescale:test",
            str(ROOT),
        )  # fmt: skip
        yield engine
    finally:
        shutil.rmtree(folder)


def _debian(engine: Engine) -> str:
    """Return an image of a minimal Debian; it trusts the certificates that this machine trusts."""
    root = engine.folder / "debian"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", str(root)], check=True)
    changes = []
    if bundle := os.environ.get("SSL_CERT_FILE"):
        shutil.copy(bundle, root / "opt" / "ca.crt")
        changes = ["--change=ENV SSL_CERT_FILE=/opt/ca.crt", "--change=ENV PIP_CERT=/opt/ca.crt"]
    archive = str(engine.folder / "debian.tar")
    subprocess.run(["tar", "-C", str(root), "-cf", archive, "."], check=True)
    engine("podman", "import", *changes, archive, "localhost/debian:test")
    shutil.rmtree(root)
    return "localhost/debian:test"


@pytest.mark.slow
def test_the_image_holds_what_runs_and_no_tool_of_development(engine: Engine) -> None:
    listing = engine.run("python", "-c", LISTING)
    found = {canonicalize_name(name): version for name, version in json.loads(listing).items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {canonicalize_name(Requirement(t).name) for t in project["project"]["dependencies"]}
    tools = {canonicalize_name(Requirement(t).name) for t in project["dependency-groups"]["dev"]}
    assert wanted <= found.keys()
    assert not (tools | {"pip", "uv"}) & found.keys()
    assert not found.items() - locked()


@pytest.mark.slow
def test_a_confined_pod_writes_only_to_its_volumes(engine: Engine) -> None:
    script = (
        "id -u; touch /tmp/x && pip install --target x snakemake-storage-plugin-gcs; ! touch /opt/x"
    )
    said = engine.run("sh", "-c", script)
    assert said.startswith(f"{USER}\nsnakemake-storage-plugin-gcs")
    assert "Read-only file system" in said


@pytest.mark.slow
def test_the_quickstart_in_the_image_gives_the_same_bytes(
    engine: Engine, local_quickstart: Workflow, tmp_path: Path
) -> None:
    workflow = Workflow(tmp_path)
    shutil.copy(local_quickstart.configfile, workflow.configfile)
    os.chown(tmp_path, USER, USER)
    engine.run(
        "snakemake", "--snakefile=/finescale/Snakefile", "--configfile=config.yaml",
        "--profile=/finescale/profiles/local",
        options=(f"--volume={ROOT}:/finescale:ro", f"--volume={tmp_path}:/workdir"),
    )  # fmt: skip
    gates = json.loads((tmp_path / "results" / "quickstart" / "gates.json").read_text())
    assert gates["gates"] and not gates["waived"]
    assert workflow.bytes_of_stores() == local_quickstart.bytes_of_stores()
