"""The benchmarks' table of contents and page; what they measure is not tested here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import bench  # noqa: E402

MACHINE = {"cpu": "any", "cores": 2}
RESULT: dict[str, Any] = {
    "what": "a task", "ours": 1.0, "unit": "s", "peers": {"x|y": 2.0}, "ratio": {"x|y": 0.5},
    "goal": "<= 1", "met": True, "memory": 200, "command": "./run bench P3",
    "details": {"a part": {"first": 0.25}},
}  # fmt: skip


def rows(page: str) -> list[list[str]]:
    """Return the cells of all rows of tables."""
    return [line.split(" | ") for line in page.splitlines() if line.startswith("|")]


def test_every_benchmark_has_its_script() -> None:
    assert {f"P{number}" for number in range(1, 8)} <= set(bench.SCRIPTS)
    assert [name for name in bench.SCRIPTS.values() if not (BENCHMARKS / name).exists()] == []


def test_help_names_every_benchmark() -> None:
    command = [sys.executable, str(BENCHMARKS / "bench.py"), "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "./run bench" in said
    assert ", ".join(bench.SCRIPTS) in " ".join(said.split())


def test_rows_of_the_page_have_as_many_cells_as_their_heads() -> None:
    # A bar in the name of a peer would open another cell.
    text = bench.page({"machine": MACHINE, "P3": RESULT})
    assert {len(cells) for cells in rows(text)} == {len(bench.COLUMNS), 3}
    assert "cpu any, cores 2" in text


def test_a_missed_goal_and_a_failed_benchmark_stand_out_on_the_page() -> None:
    failed = {"what": "failed: a reason", "met": False, "command": "./run bench P1"}
    missed = {**RESULT, "met": False}
    text = bench.page({"machine": MACHINE, "P1": failed, "P3": missed})
    assert text.count("**no**") == 2
    assert "failed: a reason" in text


def test_figures_have_three_digits_and_keep_the_large_ones_whole() -> None:
    assert bench.shown({"a": 0.123456, "b": 12345.6, "c": 7}) == "a 0.123, b 12346, c 7"


def test_the_shortest_round_counts_after_one_that_warms() -> None:
    # Rounds of 1, 5 and 3: the first compiles and warms files, however short it was.
    times = iter([0.0, 1.0, 10.0, 15.0, 20.0, 23.0])
    assert bench.best_of(2, {"task": lambda: None}, lambda: next(times)) == {"task": 3.0}


def test_a_benchmark_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # As one that prints something else than its result does; the others must still run.
    for name, text in (("exit.py", "raise SystemExit(3)"), ("other.py", "print('{}')")):
        (tmp_path / name).write_text(text)
        monkeypatch.setitem(bench.SCRIPTS, "P1", str(tmp_path / name))
        found = bench.run("P1")
        assert found["what"].startswith("failed: ")
        assert found["met"] is False
