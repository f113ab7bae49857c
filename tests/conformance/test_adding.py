"""The page that adds a method is right: what it says, done to a copy, gives one that conforms."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "methods" / "adding.md"
NEW = re.compile(r"^New, `([^`]+)`:\n\n```python\n(.*?)^```$", re.M | re.S)
EDIT = re.compile(r"^```diff\n--- (\S+)\n(.*?)^```$", re.M | re.S)
WORLD = {"n_lat": 8, "n_lon": 12, "ratio": 4, "first_year": 2013, "last_year": 2015}
DATA = {"synthetic": WORLD, "variables": "tasmax"}
CONFIG = {
    "name": "toy",
    "domains": {"island": {}},
    "periods": {"train": [2013, 2014]},
    "references": {"OBS": DATA},
    "simulations": [{"source_id": "FS-B", "experiment_id": "historical", **DATA}],
    "products": [
        {"domain": "island", "reference": "OBS", "train": "train", "source_id": "FS-B",
         "variable_id": "tasmax", "method": "mosaic"}
    ],
}  # fmt: skip


def added_lines() -> list[str]:
    """Return the lines that the page adds or changes."""
    text = PAGE.read_text()
    new = [line for _, body in NEW.findall(text) for line in body.splitlines() if line.strip()]
    edits = [line for _, body in EDIT.findall(text) for line in body.splitlines()]
    return new + [line for line in edits if line.startswith("+")]


def add(checkout: Path) -> None:
    """Do to a checkout what the page says, to the letter."""
    text = PAGE.read_text()
    for name, body in NEW.findall(text):
        (checkout / name).write_text(body)
    for name, body in EDIT.findall(text):
        lines = body.splitlines(keepends=True)
        before, after = (
            "".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +")
        )
        whole = (checkout / name).read_text()
        assert whole.count(before) == 1, f"{name} has no single place like this:\n{before}"
        (checkout / name).write_text(whole.replace(before, after))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository with the toy in it."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("workflow", "envs", "tests/conformance"):
        shutil.copytree(ROOT / name, copy / name)
    for path in (ROOT / "Snakefile", ROOT / "pyproject.toml", *(ROOT / "tests").glob("*.py")):
        shutil.copy2(path, copy / path.relative_to(ROOT))
    (copy / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    add(copy)
    return copy


def run(checkout: Path, *command: str) -> str:
    """Run a module of Python in a checkout; return what it says."""
    path = os.pathsep.join([str(checkout / "workflow/lib"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "SNAKEMAKE_PROFILE": "none"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=checkout, env=environment, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_the_toy_has_under_forty_lines() -> None:
    assert 20 < len(added_lines()) < 40


def test_the_toy_conforms(checkout: Path) -> None:
    """The oracles run on it, since they run on what is registered."""
    told = run(
        checkout, "pytest", "-q", "-p", "no:cacheprovider", "tests/conformance", "-k", "mosaic"
    )
    passed = re.search(r"(\d+) passed", told)
    assert passed and int(passed.group(1)) > 25, told[-2000:]


@pytest.mark.slow
def test_the_toy_runs_as_a_rule(checkout: Path) -> None:
    run(
        checkout, "snakemake", "--configfile", "config.yaml", "--cores", "2", "--until", "mosaic",
    )  # fmt: skip
    assert len(list((checkout / "stores/mosaic").glob("*.zarr/.zmetadata"))) == 1
