"""Why jobs failed: what a job leaves behind, and that Snakemake heeds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from standin import restored, standin

from finescale import failures, inventory, job, store
from finescale.errors import ContractError, FinescaleError, StoreError, TransientError

LIBRARY = Path(job.__file__).parents[1]
SNAKEFILE = """
import sys
sys.path.insert(0, {library!r})
from finescale import failures
config.update(name="small", stores="stores")
if workflow.is_main_process:
    failures.heed(config)

rule all:
    input: "good", "bad", "later"

rule good:
    output: "good"
    log: "logs/good.log"
    script: "attempt.py"

rule bad:
    output: "bad"
    log: "logs/bad.log"
    script: "attempt.py"

rule later:
    input: "good"
    output: "later"
    log: "logs/later.log"
    script: "attempt.py"

onerror:
    print("\\n".join(failures.tell(config, workflow.scheduler.failed)))
"""
SCRIPT = """
import os
from pathlib import Path
from finescale import job
from finescale.errors import ContractError, TransientError

with job.running(snakemake):
    with open("attempts", "a") as file:
        file.write(snakemake.rule + "\\n")
    if snakemake.rule == "bad":
        exec(os.environ["ENDS"])
    Path(snakemake.output[0]).touch()
"""


def failed(rule: str, *, spec: dict[str, str], log: str) -> Any:
    """Return a job of Snakemake, as far as a record is looked for."""
    return SimpleNamespace(
        rule=SimpleNamespace(name=rule),
        params={"spec": spec} if spec else {},
        log=[log],
        wildcards_dict={"artefact": "a"},
        attempt=2,
        is_group=lambda: False,
    )


def attempts(folder: Path, ends: str, *arguments: str) -> tuple[list[str], str]:
    """Return the rules whose scripts ran, in turn, and what Snakemake said."""
    (folder / "Snakefile").write_text(SNAKEFILE.format(library=str(LIBRARY)))
    (folder / "attempt.py").write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--retries", "2", "-k", *arguments],
        cwd=folder,
        env={**os.environ, "ENDS": ends, "PYTHONPATH": str(LIBRARY), "SNAKEMAKE_PROFILE": "none"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 1 and (folder / "attempts").exists(), run.stdout
    return (folder / "attempts").read_text().split(), run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "times", "words"),
    [
        ('raise ContractError("`pr` must be in mm")', 1, "bad: `pr` must be in mm"),
        ('raise TransientError("no answer")', 3, "bad: no answer"),
        ('raise KeyError("a bug, or chance")', 3, "bad: KeyError: 'a bug, or chance'"),
        ("os.kill(os.getpid(), 9)", 3, "bad: no word from 3 attempts: killed"),
    ],
)
def test_snakemake_retries_only_what_may_end_otherwise(
    ends: str, times: int, words: str, tmp_path: Path
) -> None:
    """Without `heed`, or if Snakemake asked another way, all of them would run three times."""
    ran, said = attempts(tmp_path, ends)
    assert ran.count("bad") == times
    assert (ran.count("good"), ran.count("later")) == (1, 1)
    assert f"  {words}" in said and "      logs/bad.log" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "times"), [("raise ContractError()", 1), ("raise TransientError()", 3)]
)
def test_a_group_is_retried_unless_one_of_it_failed_for_good(
    ends: str, times: int, tmp_path: Path
) -> None:
    """Snakemake would ask for the largest number of retries of any of its jobs."""
    together = ("--groups", "good=g", "bad=g", "later=g", "--group-components", "g=2")
    ran, said = attempts(tmp_path, ends, *together)
    assert ran.count("bad") == times
    assert said.count("Trying to restart") == times - 1


@pytest.mark.parametrize(
    ("error", "lasting"),
    [(ContractError("broken"), True), (TransientError("away"), False), (KeyError("bug"), False)],
)
def test_a_job_leaves_a_record_of_its_failure(
    error: Exception, lasting: bool, tmp_path: Path
) -> None:
    config = {"name": "small", "stores": str(tmp_path)}
    spec = {"identity": "0" * 64}
    snakemake = standin("adjust", log=tmp_path / "a.log", spec=spec, config=config)
    with restored(), pytest.raises((SystemExit, KeyError)), job.running(snakemake):
        raise error
    found = failures.find(config, failed("adjust", spec=spec, log="elsewhere"))
    assert found is not None and found.is_permanent is lasting
    assert str(error.args[0]) in found.message
    failures.forget(config)
    assert failures.find(config, failed("adjust", spec=spec, log="elsewhere")) is None


def test_a_job_without_a_store_is_known_by_its_log(tmp_path: Path) -> None:
    config = {"name": "small", "stores": str(tmp_path)}
    log = tmp_path / "logs" / "check_gates.log"
    snakemake = standin("check_gates", log=log, config=config)
    failures.record(snakemake, ContractError("a gate is shut"))
    told = failures.tell(config, [failed("check_gates", spec={}, log=str(log))])
    assert told == ["  check_gates a: a gate is shut", f"      {log}"]
    (silent, _) = failures.tell(config, [failed("draw_maps", spec={}, log="other.log")])
    assert silent.startswith("  draw_maps a: no word from 2 attempts")


def test_many_failures_are_counted(tmp_path: Path) -> None:
    config = {"name": "small", "stores": str(tmp_path)}
    jobs = [failed(f"rule{n:02}", spec={}, log=f"{n}.log") for n in range(failures.MOST + 3)]
    told = failures.tell(config, jobs)
    assert told[-1] == "  and 3 more, named above" and len(told) == 2 * failures.MOST + 1


def test_a_storage_that_is_away_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise TransientError("the storage does not answer")

    monkeypatch.setattr("finescale.storage.Objects.put", away)
    monkeypatch.setattr("finescale.storage.Objects.get", away)
    config = {"name": "small", "stores": str(tmp_path)}
    snakemake = standin("adjust", log=tmp_path / "a.log", config=config)
    failures.record(snakemake, FinescaleError("the user's"))
    assert failures.find(config, failed("adjust", spec={}, log="a")) is None


def test_what_a_job_may_not_write_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any) -> None:
        raise StoreError("not permitted")

    monkeypatch.setattr("finescale.storage.Objects.put", refused)
    config, spec = {"name": "small", "stores": str(tmp_path)}, {"identity": "0" * 64}
    snakemake = standin("adjust", log=tmp_path / "a.log", spec=spec, config=config)
    failures.record(snakemake, StoreError("not permitted"))
    failures.hear(f"before\n{capsys.readouterr().err}after\n")
    found = failures.find(config, failed("adjust", spec=spec, log="elsewhere"))
    assert found == failures.Failure("not permitted", is_permanent=True)
    failures.forget(config)
    assert failures.find(config, failed("adjust", spec=spec, log="elsewhere")) is None


def test_records_are_no_stores(tmp_path: Path) -> None:
    config = {"name": "small", "stores": str(tmp_path)}
    failures.record(standin("adjust", log=tmp_path / "a.log", config=config), KeyError("bug"))
    assert list((tmp_path / failures.FOLDER).rglob("*"))
    assert not list(store.list_stores(str(tmp_path)))
    document, _ = inventory.ls(str(tmp_path))
    assert not document["entries"] and not document["unfinished"]
