"""README and docs say what is there: graph, tables, parameters, examples, links."""

import re
import shutil
import subprocess
from itertools import pairwise, product
from pathlib import Path

import pytest
import yaml

from finescale import config
from finescale.identity import STAGE_VERSION

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
SECTIONS = ["Formula", "Parameters", "Contract", "What it does not do", "Source", "Files"]
CONFIGURED = {
    word: field.annotation
    for word, field in config.Config.model_fields.items()
    if word in STAGE_VERSION
}
NAMED = re.compile(r"`((?:workflow|tests|docs|config|envs|profiles)/[\w./-]+)`")
LINK = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

TOY = "mosaic"
"""The method that docs/methods/adding.md adds."""

Edges = set[tuple[str, str]]


def edges(mermaid: str) -> Edges:
    """Return the arrows of a flowchart: `a & b --> c --> d`, identifiers replaced by labels."""
    labels = dict(re.findall(r"^\s*(\w+)\[(\w+)\]", mermaid, re.MULTILINE))
    found = set()
    for line in mermaid.splitlines():
        groups = [part.split("&") for part in line.split("-->")]
        for left, right in pairwise(groups):
            for a, b in product(left, right):
                found.add((labels.get(a.strip(), a.strip()), labels.get(b.strip(), b.strip())))
    return found


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [body for tag, body in FENCED.findall(text) if tag == language]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row."""
    return [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def anchors(text: str) -> set[str]:
    """Return the anchors that headings get: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}


def test_the_flowchart_is_read_with_chains_and_groups() -> None:
    assert edges("a & b --> c --> d") == {("a", "c"), ("b", "c"), ("c", "d")}
    assert edges("id0[x]\nid1[y]\nid0 --> id1") == {("x", "y")}


def test_the_graph_is_the_graph_of_the_rules(tmp_path: Path) -> None:
    shutil.copy(ROOT / "config" / "config.yaml", tmp_path)
    command = ["snakemake", "--snakefile", ROOT / "Snakefile", "--rulegraph", "mermaid-js"]
    command += ["--configfile", tmp_path / "config.yaml", "--directory", tmp_path]
    run = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    of_rules = {(a, b) for a, b in edges(run.stdout) if b != "all"}
    assert len(of_rules) > len(STAGE_VERSION)
    assert edges(blocks(README, "mermaid")[0]) == of_rules


def test_the_first_screen_has_sentence_picture_commands_graph_and_table_in_this_order() -> None:
    order = [
        "\nFinescale turns ",
        "![",
        "./run quickstart",
        "./run test",
        "```mermaid",
        "| stage |",
    ]
    places = [README.index(text) for text in [*order, "\n## "]]
    assert places == sorted(places)


def test_the_table_leads_from_each_stage_to_its_files() -> None:
    listed = [row for row in rows(README) if row[0] in STAGE_VERSION]
    assert [row[0] for row in listed] == list(STAGE_VERSION)
    for word, *cells in listed:
        rule, module, page = (re.findall(r"\]\((.+)\)", cell)[0] for cell in cells)
        assert rule == f"workflow/rules/{word}.smk"
        assert module == f"workflow/lib/finescale/{word}.py"
        assert page == f"docs/stages/{word}.md"
        assert all((ROOT / path).is_file() for path in (rule, module, page))


def test_the_index_lists_the_stages_in_the_same_order() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert re.findall(r"^\| \[(\w+)\]\(stages/\1\.md\)", index, re.MULTILINE) == list(STAGE_VERSION)


@pytest.mark.parametrize("word", STAGE_VERSION)
def test_a_stage_page_answers_the_same_questions_on_one_screen(word: str) -> None:
    text = (ROOT / "docs" / "stages" / f"{word}.md").read_text()
    assert text.startswith(f"# `{word}`: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert len(text.splitlines()) <= 90
    files = text[text.index("## Files") :]
    for place in ("rules/{}.smk", "lib/finescale/{}.py"):
        assert f"workflow/{place.format(word)}" in files


@pytest.mark.parametrize("word", CONFIGURED)
def test_a_stage_page_names_each_parameter_and_its_default(word: str) -> None:
    text = (ROOT / "docs" / "stages" / f"{word}.md").read_text()
    told = {row[0]: row[1] for row in rows(text)}
    for name, field in CONFIGURED[word].model_fields.items():
        default = field.default
        shown = str(default).replace("'", '"')
        assert told.get(f"`{name}`") == f"`{shown}`", f"{word}.{name}"


def test_sections_of_the_configuration_were_found() -> None:
    stages = {"weights", "coarsen", "climatology", "adjust", "aggregate", "evaluate"}
    assert set(CONFIGURED) == stages | set(config.PRODUCT_STAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_files_that_exist(page: Path) -> None:
    named = [name for name in NAMED.findall(page.read_text()) if TOY not in name]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_into_a_page_leads_to_a_heading(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        aim = (page.parent / target) if target else page
        assert anchor in anchors(aim.read_text()), f"{target}#{anchor}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached or page.suffix != ".md" or not page.is_file():
            continue
        reached.add(page)
        targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
        waiting += [page.parent / target for target in targets if "://" not in target]
    assert {page.resolve() for page in PAGES} <= reached


def test_the_configuration_shown_is_a_right_one() -> None:
    (shown,) = blocks(README, "yaml")
    assert config.load(yaml.safe_load(shown)).name == "alps"


def test_the_methods_shown_belong_to_a_right_configuration() -> None:
    (shown,) = blocks((ROOT / "docs" / "methods" / "README.md").read_text(), "yaml")
    whole = yaml.safe_load((ROOT / "config" / "config.yaml").read_text()) | yaml.safe_load(shown)
    loaded = config.load(whole)
    stage, adjust = loaded.stage("bcsd-no-trend"), loaded.adjusted("bcsd-no-trend", {})
    assert (stage, adjust.trend_years) == ("bcsd", 0)


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert max(picture.stat().st_size for picture in pictures) < 300_000
