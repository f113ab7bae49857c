"""A small workflow run to its end once, and copies of its folder to try things in."""

from __future__ import annotations

from pathlib import Path

import pytest
from trial import Workflow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Return a workflow that ran to its end; it is shared, so work in a copy of it."""
    made = Workflow(tmp_path_factory.mktemp("finished"))
    made.configure()
    made.write_sources()
    outcome = made.snakemake()
    assert outcome.code == 0, outcome.text
    return made


@pytest.fixture
def workflow(finished: Workflow, tmp_path: Path) -> Workflow:
    """Return a finished workflow to do with as a test likes."""
    return finished.copy(tmp_path / "copy")
