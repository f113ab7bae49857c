"""The small world, made once without disturbance; a table of what killed jobs did again."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from faults.world import MAPPING, World

from finescale import start

COLUMNS = ("kills", "after commit", "blocks", "finished", "redone", "twice")
"""Kills, those of them after the commit; blocks of the jobs, finished at the last kill, computed by
the attempt that ended, begun more than once."""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a world whose stores were made without disturbance, in this process."""
    folder = tmp_path_factory.mktemp("world")
    made = World(start.read(MAPPING, folder / "config.yaml"), folder / "stores")
    made.make_all()
    return made


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was killed and done again, rule by rule; write it where one asks for it."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    rows = [value for r in reports for name, value in r.user_properties if name == "fault"]
    if not rows:
        return
    sums: dict[str, Counter[str]] = {}
    for row in rows:
        for rule in (row["rule"], "all"):
            sums.setdefault(rule, Counter()).update({name: row[name] for name in COLUMNS})
    terminalreporter.section("killed jobs")
    terminalreporter.write_line(f"{'rule':12}" + "".join(f"{name:>14}" for name in COLUMNS))
    for rule, numbers in sorted(sums.items(), key=lambda item: item[0] == "all"):
        line = "".join(f"{numbers[name]:14}" for name in COLUMNS)
        terminalreporter.write_line(f"{rule:12}{line}")
    if path := os.environ.get("FINESCALE_FAULTS_REPORT"):
        Path(path).write_text(json.dumps({"rules": sums, "kills": rows}, indent=1))
