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
        global_resources={},
        configfiles=[tmp_path / "small.yaml"],
        is_main_process=True,
        storage_settings=SimpleNamespace(default_storage_prefix=None),
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
    job = SimpleNamespace(**{**vars(workflow), "is_main_process": False})
    with pytest.raises(SystemExit):
        start.prepare(mapping, job, library="lib")
    assert not lock.exists()
    made = start.prepare(mapping, workflow, library="lib")
    assert lock.exists()
    assert start.prepare(mapping, job, library="lib").plan == made.plan


def test_config_and_lock_travel_to_jobs_without_a_shared_file_system(
    small: tuple[dict[str, object], SimpleNamespace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Snakemake leaves out what lies outside of the working directory, and the lock anyway."""
    for name in (*start.ONE_THREAD, "PYTHONPATH"):
        monkeypatch.setenv(name, "")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    mapping, workflow = small
    (tmp_path / "small.yaml").write_text("name: small")
    workflow.storage_settings.default_storage_prefix = "s3://bucket/run/"
    workflow.config_settings = SimpleNamespace(configfiles=list(workflow.configfiles))
    run = start.prepare(mapping, workflow, library="lib")
    assert run.config.stores == "s3://bucket/run/stores"
    assert run.results == "s3://bucket/run/results/small"
    sent, lock = workflow.configfiles
    assert workflow.config_settings.configfiles == [sent]
    assert (sent.name, lock.name) == ("small.yaml", "small.lock.json")
    assert tmp_path / "work" in sent.parents and sent.parent == lock.parent
    assert lock.read_bytes() == (tmp_path / "small.lock.json").read_bytes()


@pytest.mark.parametrize("root", ["/mnt/stores", "gs://other/stores"])
def test_a_root_of_stores_that_says_where_it_is_stays_there(root: str) -> None:
    assert start._below("gs://bucket/run", root) == root
