"""The doctor: a sound environment is well, and each fault is found and has a remedy."""

from __future__ import annotations

import errno
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from finescale import cli, doctor
from finescale.doctor import Check
from finescale.storage import Objects

ROOT = Path(__file__).parents[2]


def by_name(checks: Any) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_sound_folder_is_well_and_left_as_it_was(tmp_path: Path) -> None:
    checks = by_name(doctor.stores(str(tmp_path)))
    assert {check.state for check in checks.values()} <= {"ok", "warning"}
    assert {"stores: write", "stores: create", "stores: renew", "stores: delete"} <= set(checks)
    assert list(tmp_path.iterdir()) == []


def test_objects_in_a_bucket_are_tried_too() -> None:
    checks = by_name(doctor.stores("memory://doctor"))
    assert checks["stores: write"].state == "ok"
    assert "stores: space" not in checks, "a bucket is never full"


def test_a_folder_that_may_not_be_written_is_found(monkeypatch: Any, tmp_path: Path) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    assert "not permitted" in by_name(doctor.stores(str(tmp_path)))["stores"].detail


def test_a_full_disk_is_found(monkeypatch: Any, tmp_path: Path) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    found = by_name(doctor.stores(str(tmp_path)))["stores"]
    assert (found.state, "no space is left" in found.detail) == ("wrong", True)


def test_a_file_system_on_which_two_can_create_one_file_is_found(
    monkeypatch: Any, tmp_path: Path
) -> None:
    """Two runs would write one store."""
    monkeypatch.setattr(Objects, "create", lambda self, key, data: self.put(key, data) or True)
    found = by_name(doctor.stores(str(tmp_path)))["stores: create"]
    assert found.state == "wrong" and "leases" in found.detail


def test_little_space_is_a_warning(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "ROOM", 1e18)
    assert by_name(doctor.stores(str(tmp_path)))["stores: space"].state == "warning"


def test_a_scratch_folder_that_does_not_exist_is_found(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    found = doctor.scratch()
    assert found.state == "wrong" and "TMPDIR" in found.detail


def test_a_locale_without_utf8_is_found(monkeypatch: Any) -> None:
    monkeypatch.setattr("locale.getpreferredencoding", lambda _: "ANSI_X3.4-1968")
    found = doctor.text()
    assert found.state == "wrong" and "LC_ALL=C.UTF-8" in found.detail


def test_an_old_library_is_found(monkeypatch: Any) -> None:
    monkeypatch.setitem(doctor.FLOORS, "zarr", "9999")
    monkeypatch.setitem(doctor.FLOORS, "no-such-package", "1")
    found = by_name(doctor.versions())["libraries"]
    assert found.state == "wrong"
    assert re.search(r"zarr \S+, needs 9999; no-such-package missing, needs 1", found.detail)


def test_the_floors_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = dict(
        re.match(r"([a-z0-9-]+) >=([\d.]+)", line).groups()  # type: ignore[union-attr]
        for line in project["dependencies"]
        if ">=" in line
    )
    assert {name: wanted.get(name) for name in doctor.FLOORS} == doctor.FLOORS
    assert project["requires-python"] == ">=" + ".".join(map(str, doctor.PYTHON))


def fake(folder: Path, monkeypatch: Any, **commands: str) -> None:
    """Put commands on an otherwise empty path."""
    for name, script in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_without_slurm_nothing_is_wrong(monkeypatch: Any, tmp_path: Path) -> None:
    fake(tmp_path, monkeypatch)
    assert [check.state for check in doctor.slurm()] == ["ok"]


def test_a_missing_command_of_slurm_is_named(monkeypatch: Any, tmp_path: Path) -> None:
    fake(tmp_path, monkeypatch, sbatch="", squeue="", srun="", scancel="")
    (found,) = doctor.slurm()
    assert found.state == "wrong" and found.detail.startswith("sacct not on PATH")


def test_a_controller_that_does_not_answer_is_found(monkeypatch: Any, tmp_path: Path) -> None:
    usual = dict.fromkeys(("sbatch", "squeue", "srun", "scancel", "sinfo"), "echo main*")
    fake(tmp_path, monkeypatch, **usual, sacct="exit 1", scontrol="echo 'Slurmctld is DOWN'")
    states = {name: check.state for name, check in by_name(doctor.slurm()).items()}
    assert states == {
        "slurm: controller": "wrong", "slurm: partitions": "ok", "slurm: accounting": "warning",
    }  # fmt: skip


def test_the_command_tells_each_check_and_fails_if_one_is_wrong(
    monkeypatch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("locale.getpreferredencoding", lambda _: "ascii")
    assert cli.main(["doctor", "--stores", str(tmp_path), "--json"]) == cli.DAMAGED
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert "locale" in {finding["kind"] for finding in document["findings"]}
    monkeypatch.undo()
    cli.main(["doctor", "--stores", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ("ok", "warning", "wrong") for line in lines)
