"""The locked environments: in step with their specifications, whole, and free of addresses."""

import re
import socket
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ENVS = ROOT / "envs"
PIP_LOCKS = ["bootstrap.lock", "requirements.lock"]
PYTHONS = ["3.11", "3.12", "3.13"]

# The same library under another name.
CONDA_NAMES = {"matplotlib": "matplotlib-base", "snakemake": "snakemake-minimal"}
# Runtime libraries of pyproject.toml without which a conda environment still computes every stage.
PIP_ONLY = {
    "dask-jobqueue": "only for Dask over several Slurm jobs or nodes",
    "dask-kubernetes": "only for Dask over several pods",
    "kubernetes": "only for the main process of a run in pods",
    "pygments": "presentation",
    "rich": "presentation",
    "s3fs": "only for stores on S3",
    "snakemake-executor-plugin-kubernetes": "only for the main process of a run in pods",
    "snakemake-storage-plugin-gcs": "only for stores in a bucket",
}
# What conda adds: ESMF, which has no wheel, and what goes with it or with a cluster.
CONDA_ONLY = {
    "esmf",
    "esmpy",
    "flox",
    "python",
    "xesmf",
}


@pytest.fixture(scope="module")
def packages() -> list[dict[str, Any]]:
    lock: dict[str, Any] = yaml.load((ENVS / "conda-lock.yml").read_text(), Loader=yaml.CSafeLoader)
    found: list[dict[str, Any]] = lock["package"]
    return found


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirements(name: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Yield the requirements of a pip lock, each with its hashes."""
    text = re.sub(r"^#.*$", "", (ENVS / name).read_text(), flags=re.MULTILINE)
    for entry in text.replace("\\\n", " ").splitlines():
        if entry.strip():
            requirement, *options = re.split(r"\s+--", entry.strip())
            yield Requirement(requirement), options


def conda_spec() -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((ENVS / "finescale.yaml").read_text())
    return spec


def conda_name(requirement: str) -> str:
    name = canonicalize_name(Requirement(requirement).name)
    return CONDA_NAMES.get(name, name)


def conda_lock_matches(spec: Path, lock: Path) -> bool:
    """Return whether a conda lock was made from this spec, as conda-lock itself decides it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # conda-lock vendors parts of conda that are deprecated
        from conda_lock.content_hash import backwards_compatible_content_hashes
        from conda_lock.lockfile import parse_conda_lock_file
        from conda_lock.src_parser import make_lock_spec
        from conda_lock.virtual_package import default_virtual_package_repodata

        locked = parse_conda_lock_file(lock).metadata
        specs = make_lock_spec(
            src_files=[spec], platform_overrides=locked.platforms, mapping_url="file:///nonexistent"
        )
        virtual = default_virtual_package_repodata()
        with virtual:  # its __enter__ returns None: `with ... as virtual` would hash without it
            return all(
                locked.content_hash[platform]
                in backwards_compatible_content_hashes(specs, virtual, platform)
                for platform in locked.platforms
            )


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("this check needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("no_network")
def test_conda_lock_belongs_to_its_spec() -> None:
    assert conda_lock_matches(ENVS / "finescale.yaml", ENVS / "conda-lock.yml")


@pytest.mark.usefixtures("no_network")
def test_conda_lock_of_a_changed_spec_is_stale(tmp_path: Path) -> None:
    changed = tmp_path / "finescale.yaml"
    changed.write_text((ENVS / "finescale.yaml").read_text() + "  - geopandas\n")
    assert not conda_lock_matches(changed, ENVS / "conda-lock.yml")


def test_conda_channels_are_searched_in_order_and_without_defaults() -> None:
    assert conda_spec()["channels"] == ["conda-forge", "bioconda", "nodefaults"]
    lock = (ENVS / "conda-lock.yml").read_text()
    assert re.findall(r"^  - url: (\S+)$", lock, re.MULTILINE) == ["conda-forge", "bioconda"]


def test_every_conda_package_is_pinned_to_one_file(packages: list[dict[str, Any]]) -> None:
    address = r"https://conda\.anaconda\.org/(conda-forge|bioconda)/(linux-64|noarch)/"
    wrong = [
        package["name"]
        for package in packages
        if not re.fullmatch(
            rf"{address}{re.escape(package['name'])}-{re.escape(package['version'])}"
            r"-[^-/]+(\.conda|\.tar\.bz2)",
            package["url"],
        )
        or not re.fullmatch("[0-9a-f]{64}", package["hash"].get("sha256", ""))
        or not re.fullmatch("[0-9a-f]{32}", package["hash"].get("md5", ""))
    ]
    assert packages and not wrong


def test_conda_lock_holds_every_dependency_of_its_packages(packages: list[dict[str, Any]]) -> None:
    locked = {package["name"] for package in packages}
    wanted = {name for package in packages for name in package["dependencies"]}
    assert not {name for name in wanted - locked if not name.startswith("__")}
    assert len(locked) == len(packages), "a package is locked twice"


@pytest.mark.parametrize("name", PIP_LOCKS)
def test_every_pip_requirement_has_one_version_and_hashes(name: str) -> None:
    entries = list(requirements(name))
    wrong = [
        str(requirement)
        for requirement, options in entries
        if not re.fullmatch(r"==[^*,]+", str(requirement.specifier))
        or not options
        or not all(re.fullmatch(r"hash=sha256:[0-9a-f]{64}", option) for option in options)
    ]
    assert entries and not wrong


@pytest.mark.parametrize("name", PIP_LOCKS)
def test_pip_locks_name_no_host(name: str) -> None:
    found = re.findall(r"https?://|--(?:extra-)?index-url|--find-links", (ENVS / name).read_text())
    assert not found


@pytest.mark.parametrize("python", PYTHONS)
def test_pip_lock_satisfies_pyproject(project: dict[str, Any], python: str) -> None:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.7",
        "sys_platform": "linux",
        "platform_system": "Linux",
    }
    locked: dict[str, list[str]] = {}
    for requirement, _ in requirements("requirements.lock"):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            version = str(requirement.specifier).removeprefix("==")
            locked.setdefault(canonicalize_name(requirement.name), []).append(version)
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    wrong = {}
    for text in wanted:
        requirement = Requirement(text)
        versions = locked.get(canonicalize_name(requirement.name), [])
        if len(versions) != 1 or not requirement.specifier.contains(versions[0]):
            wrong[text] = versions
    assert not wrong


def test_conda_lock_satisfies_pyproject(
    project: dict[str, Any], packages: list[dict[str, Any]]
) -> None:
    versions: dict[str, str] = {
        canonicalize_name(package["name"]): package["version"] for package in packages
    }
    wrong = {
        text: versions.get(conda_name(text))
        for text in project["project"]["dependencies"]
        if conda_name(text) not in PIP_ONLY
        and not Requirement(text).specifier.contains(versions.get(conda_name(text), "0"))
    }
    assert not wrong
    assert not PIP_ONLY.keys() & versions.keys(), "in the conda lock after all: take it out above"


def test_conda_spec_names_the_libraries_of_pyproject(project: dict[str, Any]) -> None:
    asked = {
        canonicalize_name(re.split(r"[ <>=!]", spec, maxsplit=1)[0])
        for spec in conda_spec()["dependencies"]
    }
    named = {conda_name(text) for text in project["project"]["dependencies"]}
    assert asked - named == CONDA_ONLY
