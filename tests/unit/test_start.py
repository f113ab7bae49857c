"""Reading the Snakefile: what the jobs of a run inherit."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from finescale import start


@pytest.fixture
def small(tmp_path: Path) -> tuple[dict[str, object], SimpleNamespace]:
    mapping = {
        "name": "small",
        "domains": {"all": {}},
        "periods": {"train": [2000, 2004]},
        "references": {"OBS": {"synthetic": {"n_lat": 12, "n_lon": 16}, "variables": ["tas"]}},
        "simulations": [
            {
                "source_id": "FS-B",
                "experiment_id": "historical",
                "synthetic": {"n_lat": 12, "n_lon": 16},
                "variables": ["tas"],
            }
        ],
        "products": [
            {
                "domain": "all",
                "reference": "OBS",
                "train": "train",
                "source_id": "FS-B",
                "variable_id": "tas",
                "method": "bcsd",
            }
        ],
    }
    return mapping, SimpleNamespace(
        global_resources={}, configfiles=[tmp_path / "small.yaml"], is_main_process=True
    )


def test_jobs_find_the_library_and_compute_with_one_thread_each(
    small: tuple[dict[str, object], SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """BLAS with several threads sums in an order that depends on their number."""
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    for name in start.ONE_THREAD:
        monkeypatch.setenv(name, "8")
    start.prepare(*small, library="lib")
    assert os.environ["PYTHONPATH"].split(os.pathsep) == ["lib", "elsewhere"]
    assert {os.environ[name] for name in start.ONE_THREAD} == {"1"}


def test_only_the_main_process_writes_the_lock(
    small: tuple[dict[str, object], SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that looked sources up would see others than the run it belongs to."""
    for name in (*start.ONE_THREAD, "PYTHONPATH"):
        monkeypatch.setenv(name, "")
    mapping, workflow = small
    lock = workflow.configfiles[0].with_suffix(".lock.json")
    job = SimpleNamespace(
        global_resources={}, configfiles=workflow.configfiles, is_main_process=False
    )
    with pytest.raises(SystemExit):
        start.prepare(mapping, job, library="lib")
    assert not lock.exists()
    made = start.prepare(mapping, workflow, library="lib")
    assert lock.exists()
    assert start.prepare(mapping, job, library="lib").plan == made.plan
