"""The repository as a whole: one word per stage, nothing of one machine, no dangling link."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
import yte
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import finescale
from finescale.identity import STAGE_VERSION

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "workflow" / "lib" / "finescale"
HOSTS = re.compile(r"pypi[.]org|pythonhosted[.]org|anaconda[.]org|npmjs[.]org|proxy[.]golang[.]org")
MACHINE = re.compile(r"(?<![\w.~$})-])/(work|root|farm)\b(?!-)")


def repository_files() -> list[Path]:
    """Return the files that are, or would be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def found(pattern: re.Pattern[str], text: str) -> list[str]:
    return [match.group() for match in pattern.finditer(text)]


def test_no_file_names_a_package_registry() -> None:
    lock = ROOT / "envs" / "conda-lock.yml"  # each of its entries is the address of one file
    named = {path: found(HOSTS, text_of(path)) for path in repository_files() if path != lock}
    assert len(named) > 20
    assert not {path: hosts for path, hosts in named.items() if hosts}


def test_no_file_names_a_path_of_one_machine() -> None:
    paths = {
        path: found(MACHINE, text_of(path)) for path in repository_files() if path.suffix != ".lock"
    }
    assert not {path: hits for path, hits in paths.items() if hits}


@pytest.mark.parametrize("folder", ["work", "root", "farm"])
@pytest.mark.parametrize("text", ["see /{}/x", "('/{}/.cache')", "cd /{} && ls", 'root: "/{}"'])
def test_a_path_of_one_machine_is_noticed(text: str, folder: str) -> None:
    assert found(MACHINE, text.format(folder))


@pytest.mark.parametrize("text", ["../workflow", "/workflow/lib", "$HOME/work", "stores/root"])
def test_other_paths_are_not_mistaken_for_it(text: str) -> None:
    assert not found(MACHINE, text)


@pytest.mark.parametrize("word", STAGE_VERSION)
@pytest.mark.parametrize(
    "place",
    [
        "workflow/rules/{}.smk",
        "workflow/lib/finescale/{}.py",
        "tests/unit/test_{}.py",
        "docs/stages/{}.md",
    ],
)
def test_a_stage_is_one_word_everywhere(word: str, place: str) -> None:
    assert (ROOT / place.format(word)).is_file()


def test_no_rule_file_or_page_stands_outside_the_stages() -> None:
    rules = {path.stem for path in (ROOT / "workflow" / "rules").glob("*.smk")}
    pages = {path.stem for path in (ROOT / "docs" / "stages").glob("*.md")}
    assert rules - STAGE_VERSION.keys() <= {"common", "stores"}
    assert pages <= STAGE_VERSION.keys()


def test_the_library_imports_only_declared_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    distributions = packages_distributions()
    undeclared = {
        (path.name, module)
        for path in LIBRARY.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for module in imported(node)
        if module != "finescale" and module not in sys.stdlib_module_names
        if not declared & {canonicalize_name(name) for name in distributions.get(module, [])}
    }
    assert not undeclared


def imported(node: ast.AST) -> list[str]:
    """Return the top-level modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [(node.module or "").partition(".")[0]]
    return []


def test_every_relative_link_leads_to_a_file() -> None:
    dangling = [
        (path.relative_to(ROOT), target)
        for path in repository_files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert not dangling


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    latest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert citation["version"] == latest == finescale.__version__


def test_decisions_are_numbered_without_a_gap() -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


def test_every_profile_is_reachable_by_name_from_the_root() -> None:
    profiles = [path.parent for path in (ROOT / "profiles").glob("*/config.yaml")]
    assert profiles
    assert "default" not in {path.name for path in profiles}, "Snakemake would load it unasked"
    for profile in profiles:
        assert (ROOT / profile.name).readlink() == Path("profiles", profile.name)


def test_the_local_profile_leaves_room_in_the_machines_memory() -> None:
    with (ROOT / "profiles" / "local" / "config.yaml").open() as file:
        profile = yte.process_yaml(file, require_use_yte=True)
    meminfo = Path("/proc/meminfo").read_text()
    physical_mb = int(re.findall(r"MemTotal:\s+(\d+)", meminfo)[0]) * 1024 / 1e6
    assert 0 < profile["resources"]["mem_mb"] <= 0.9 * physical_mb
    assert profile["rerun-triggers"] == ["mtime", "params", "input"]
