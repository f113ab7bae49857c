"""The command `finescale`: what it prints, what it returns, what it leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import yaml
from configs import GONE, WORLD, changed

from finescale import cli, identity, schema, start, store, synthetic, weights
from finescale.calendars import Days
from finescale.job import Job
from finescale.plan import Artefact, Plan

COMMANDS = (
    "plan", "ls", "why", "verify", "heal", "trace", "gc", "resolve", "doctor", "schema",
)  # fmt: skip
COMMAND = Path(__file__).parents[2] / "workflow" / "bin" / "finescale"
FILE = {
    "references/OBS/synthetic": GONE,
    "references/OBS/path": "obs.nc",
    "periods/train": ["2000-01-01", "2000-03-31"],
}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    configure({})


def configure(changes: dict[str, Any]) -> None:
    Path("small.yaml").write_text(yaml.safe_dump(changed(changes)))


def planned() -> Plan:
    return start.read(changed({}), Path("small.yaml")).plan


def commit(artefact: Artefact, root: str = "stores") -> str:
    """Return a store committed at an artefact's place, with something small in it."""
    url = f"{root}/{artefact.path.removesuffix('/' + store.SENTINEL)}"
    header = store.Header(artefact.stage, artefact.identity, artefact.facets, artefact.recipe)
    arrays = {"x": store.coordinate(("x",), np.arange(100.0))}
    store.Writer(url, header, arrays).create({}).commit()
    return url


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs a command line and gives (exit code, output, error output)."""

    def said(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        return code, *capsys.readouterr()

    return said


@pytest.fixture
def tell(say: Any) -> Any:
    """Return a function that runs a command line with --json and gives the object."""

    def told(*arguments: str) -> dict[str, Any]:
        code, out, _ = say(*arguments, "--json")
        document: dict[str, Any] = json.loads(out)
        assert document["ok"] is (code == cli.OK)
        return document

    return told


# --------------------------------------------------------------------------------------
# plan


def test_a_plan_counts_what_is_committed_and_what_is_to_make(tell: Any) -> None:
    weights = planned().stage("weights")
    for artefact in weights:
        commit(artefact)
    told = tell("plan", "--configfile", "small.yaml")
    counts = {row.pop("stage"): row for row in told["stages"]}
    numbers = ("stores", "committed", "to_make")
    assert [counts["weights"][n] for n in numbers] == [2, len(weights), 0]
    assert [counts["bcsd"][n] for n in numbers] == [2, 0, 2]
    assert counts["weights"]["bytes_written"] == 0 < counts["bcsd"]["bytes_written"]
    assert sum(row["stores"] for row in counts.values()) == len(planned().artefacts)


def test_a_store_of_other_parameters_is_not_counted(tell: Any) -> None:
    commit(planned().stage("adjust")[0])
    configure({"adjust/tails": "linear"})
    told = tell("plan", "--configfile", "small.yaml")
    assert {row["stage"]: row["committed"] for row in told["stages"]}["adjust"] == 0


def test_a_plan_lists_its_products_and_marks_the_finished(say: Any, tell: Any) -> None:
    product = planned().stage("bcsd")[0]
    url = commit(product)
    products = tell("plan", "--configfile", "small.yaml")["products"]
    assert [p["path"] for p in products if p["committed"]] == [url]
    assert {p["frequency"] for p in products} == {"day", "mon", "yr"}
    _, out, _ = say("plan", "--configfile", "small.yaml")
    assert f"  made     {url}\n" in out
    assert out.count("\n  to make  ") == len(products) - 1


def test_a_plan_makes_nothing_but_the_lock(say: Any) -> None:
    assert say("plan", "--configfile", "small.yaml")[0] == cli.OK
    assert sorted(p.name for p in Path().iterdir()) == ["small.lock.json", "small.yaml"]


# --------------------------------------------------------------------------------------
# ls


def test_committed_stores_are_listed_and_no_others(say: Any, tell: Any) -> None:
    kept, broken, *_ = planned().artefacts.values()
    url = commit(kept)
    Path(commit(broken), store.SENTINEL).unlink()
    (entry,) = tell("ls", "--configfile", "small.yaml")["entries"]
    assert entry == {
        "url": url,
        "stage": kept.stage,
        "identity": kept.identity,
        "facets": kept.facets,
        "size": sum(p.stat().st_size for p in Path(url).rglob("*") if p.is_file()),
        "committed": entry["committed"],
        "needed_by": ["small"],
    }
    assert datetime.now(UTC) - datetime.fromisoformat(entry["committed"]) < timedelta(minutes=1)
    _, out, _ = say("ls", "--stores", "stores")
    head, row, _, total, *_ = out.splitlines()
    assert head.split() == ["stage", "size", "age", "identity", "facets"]
    assert row.split()[-len(kept.facets) :] == [v for v in kept.facets.values() if v]
    assert kept.identity[:16] in row
    assert total.startswith("1 committed, ")


def test_no_stores_yet_is_no_fault_of_a_configuration(tell: Any) -> None:
    assert tell("ls", "--configfile", "small.yaml")["entries"] == []


def test_a_root_by_name_that_is_not_there_cannot_be_reached(say: Any) -> None:
    code, out, err = say("ls", "--stores", "nowhere")
    assert (code, out) == (cli.UNREACHABLE, "")
    assert err == "finescale: nowhere: there is no such root of stores; give a folder or a URL\n"


def test_a_host_that_does_not_answer_cannot_be_reached(say: Any) -> None:
    code, _, err = say("ls", "--stores", "http://127.0.0.1:9/stores")
    assert code == cli.UNREACHABLE
    assert err.startswith("finescale: http://127.0.0.1:9/stores")


def test_stores_at_a_url_are_listed(tell: Any) -> None:
    artefact = planned().stage("weights")[0]
    try:
        commit(artefact, "memory://listed")
        (entry,) = tell("ls", "--stores", "memory://listed")["entries"]
    finally:
        fsspec.filesystem("memory").store.clear()
    assert entry["identity"] == artefact.identity


def test_a_root_may_have_signs_that_a_pattern_would_read(tell: Any) -> None:
    commit(planned().stage("weights")[0], "of [2026]*")
    assert len(tell("ls", "--stores", "of [2026]*")["entries"]) == 1


# --------------------------------------------------------------------------------------
# why


def test_why_tells_all_that_the_identity_is_a_digest_of(tell: Any) -> None:
    artefact = planned().stage("adjust")[0]
    told = tell("why", commit(artefact))
    assert told["recipe"] == artefact.recipe
    assert identity.digest(told["recipe"]) == told["identity"] == artefact.identity


def test_why_names_the_inputs_that_lie_below_the_same_root(say: Any) -> None:
    artefact = planned().stage("adjust")[0]
    url = commit(artefact)
    near = commit(artefact.inputs["ref"])
    code, out, _ = say("why", f"{url}/{store.SENTINEL}")
    assert code == cli.OK
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert ["ref", near.removeprefix("stores/")] in lines
    assert ["hist", f"{artefact.inputs['hist'].identity} (elsewhere)"] in lines
    assert ["tails", '"parametric"'] in lines


def test_why_shortens_a_grid_to_its_ends(say: Any) -> None:
    _, out, _ = say("why", commit(planned().stage("weights")[0]))
    assert "36.125 .. 38.875 (12)" in out
    assert max(map(len, out.splitlines())) < 160


@pytest.mark.parametrize("kept", [True, False])
def test_why_is_refused_for_what_is_not_there_and_nobody_plans(say: Any, kept: bool) -> None:
    url = commit(planned().stage("weights")[0]) if kept else "stores/weights/x.zarr"
    Path(url, store.SENTINEL).unlink(missing_ok=True)
    code, out, err = say("why", url)
    assert (code, out) == (cli.WRONG, "")
    assert ("is not committed" if kept else "no store of this name lies below stores") in err


def test_why_tells_what_a_store_that_is_to_make_does_not_share_with_one_that_is_there(
    tell: Any,
) -> None:
    """The answer to: why does this run again?"""
    commit(planned().stage("adjust")[0])
    configure({"adjust/half_window": 7})
    run = start.read(changed({"adjust/half_window": 7}), Path("small.yaml"))
    told = tell("why", run.plan.stage("adjust")[0].name, "--configfile", "small.yaml")
    assert told["committed"] is None
    (difference,) = told["differences"]
    assert {"ingredient": "half_window", "here": 7, "there": 15}.items() <= difference.items()


def test_a_store_without_its_manifest_is_told(say: Any) -> None:
    url = commit(planned().stage("weights")[0])
    Path(url, store.MANIFEST).unlink()
    code, _, err = say("why", url)
    assert code == cli.WRONG
    assert err == (
        f"finescale: {url} has no readable .manifest.json; delete the store and run the workflow "
        "again\n"
    )


# --------------------------------------------------------------------------------------
# verify, heal, trace, gc


def fault(url: str, key: str) -> None:
    """Damage one byte of an object."""
    path = Path(url, key)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def named(url: str) -> tuple[list[str], ...]:
    """Return the ways to name a store on a command line."""
    run = start.read(changed({}), Path("small.yaml"))
    (artefact,) = (a for a in run.plan.artefacts.values() if url.endswith(f"{a.name}.zarr"))
    index = {"products": [{"path": url, "identity": artefact.identity}]}
    Path("index.json").write_text(json.dumps(index))
    return [url], [f"{url}/.zmetadata"], ["index.json"], ["small.yaml"], ["--stores", "stores"], [
        "--configfile", "small.yaml"
    ]  # fmt: skip


def test_damage_is_found_however_the_store_is_named(say: Any, tell: Any) -> None:
    url = commit(planned().stage("bcsd")[0])
    ways = named(url)
    for way in ways:
        assert say("verify", "--deep", *way)[::2] == (cli.OK, "")
    fault(url, "x/0")
    for way in ways:
        assert tell("verify", *way)["findings"] == [], "sizes are as they were"
        assert say("verify", "--deep", *way)[0] == cli.DAMAGED
        (finding,) = tell("verify", "--deep", *way)["findings"]
        assert (finding["array"], finding["chunk"]) == ("x", "0")
        assert Path(finding["store"]) == Path(url)


def test_a_product_of_an_index_that_is_gone_is_damage(tell: Any) -> None:
    named(url := commit(planned().stage("bcsd")[0]))
    Path(url, store.SENTINEL).unlink()
    (finding,) = tell("verify", "index.json")["findings"]
    assert finding["kind"] == "uncommitted"
    assert tell("verify", "small.yaml")["stores"] == 0, "what is to make is no damage"


def test_what_is_damaged_is_recomputed(say: Any, tell: Any) -> None:
    run = start.read(changed({}), Path("small.yaml"))
    artefact = run.plan.stage("weights")[0]
    url = f"stores/{artefact.path.removesuffix('/' + store.SENTINEL)}"
    weights.run(
        Job("weights", url, artefact.identity, artefact.facets, artefact.recipe),
        **artefact.parameters,
    )
    before = Path(url, "S/0").read_bytes()
    fault(url, "S/0")
    told = tell("heal", "--configfile", "small.yaml")
    assert [(h["store"], h["blocks"]) for h in told["healed"]] == [(url, 0)]
    assert Path(url, "S/0").read_bytes() == before
    assert say("heal", url) == (cli.OK, "1 stores, 0 healed\n", "")


def test_garbage_is_listed_and_goes_only_on_demand(say: Any, tell: Any) -> None:
    kept = commit(planned().stage("adjust")[0])
    configure({"adjust/half_window": 7})
    for way in ([], ["--yes"]):
        assert tell("gc", "--configfile", "small.yaml", *way)["garbage"] == [], "it is too young"
    told = tell("gc", "--configfile", "small.yaml", "--grace", "0")
    assert [f"stores/{g['path']}" for g in told["garbage"]] == [kept]
    assert told["bytes"] > 0 and Path(kept).exists()
    tell("gc", "--configfile", "small.yaml", "--grace", "0", "--yes")
    assert not Path(kept).exists()


def test_configurations_of_several_roots_need_one_named(say: Any) -> None:
    Path("other.yaml").write_text(yaml.safe_dump(changed({"stores": "elsewhere"})))
    code, _, err = say("gc", "--configfile", "small.yaml", "other.yaml")
    assert code == cli.WRONG
    assert err == (
        "finescale: which root of stores, elsewhere, stores? name it with --stores ROOT\n"
    )


def test_a_store_without_values_of_days_is_not_traced(say: Any) -> None:
    url = commit(planned().stage("weights")[0])
    where = ("--lat", "37", "--lon", "-33", "--time", "2000-01-01")
    code, out, err = say("trace", url, *where, "--configfile", "small.yaml")
    assert (code, out) == (cli.WRONG, "")
    assert "weights" in err


# --------------------------------------------------------------------------------------
# resolve


def observe(*, warmer: float) -> None:
    days = Days.range("2000-01-01", "2000-03-31", "standard")
    ds = synthetic.dataset(synthetic.World(**WORLD), "tasmax", days=days)
    ds.tasmax[:] += warmer
    synthetic.write(ds, Path("new.nc")).replace("obs.nc")


def test_resolving_accepts_a_source_that_changed_and_says_so(say: Any, tell: Any) -> None:
    def states() -> dict[str, str]:
        told = tell("resolve", "--configfile", "small.yaml")
        return {source["name"]: source["state"] for source in told["sources"]}

    configure(FILE)
    observe(warmer=0.0)
    assert set(states().values()) == {"new"}
    observe(warmer=1.0)
    code, _, err = say("plan", "--configfile", "small.yaml")
    assert code == cli.WRONG
    assert "have changed since they were locked" in err
    found = states()
    assert found.pop("references/OBS/tasmax") == "changed"
    assert set(found.values()) == {"same"}
    assert say("plan", "--configfile", "small.yaml")[0] == cli.OK


# --------------------------------------------------------------------------------------
# schema


def test_the_schema_is_printed_as_it_is_written(say: Any) -> None:
    assert say("schema")[1] == schema.SCHEMA_PATH.read_text()


def test_schema_and_page_are_written_on_request(
    say: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(schema, "SCHEMA_PATH", tmp_path / "schemas" / "config.schema.json")
    monkeypatch.setattr(schema, "PAGE_PATH", tmp_path / "docs" / "configuration.md")
    code, out, _ = say("schema", "--write")
    assert code == cli.OK
    assert out == f"wrote {schema.SCHEMA_PATH}\nwrote {schema.PAGE_PATH}\n"
    assert schema.PAGE_PATH.read_text() == schema.page()


# --------------------------------------------------------------------------------------
# All commands


@pytest.mark.parametrize("command", ["plan", "ls", "resolve"])
def test_a_wrong_configuration_ends_with_its_message(say: Any, command: str) -> None:
    configure({"adjust/half_windw": 3})
    message = "small.yaml: adjust.half_windw: unknown key; did you mean `half_window`?"
    assert say(command, "--configfile", "small.yaml") == (
        cli.WRONG, "", f"finescale: {message}\n"
    )  # fmt: skip
    code, out, _ = say(command, "--configfile", "small.yaml", "--json")
    assert code == cli.WRONG
    assert json.loads(out) == {
        "ok": False,
        "findings": [{"kind": "ConfigError", "detail": message}],
    }


@pytest.mark.parametrize("command", ["plan", "ls", "resolve"])
def test_a_configuration_that_is_not_there_is_told(say: Any, command: str) -> None:
    assert say(command) == (
        cli.WRONG,
        "",
        "finescale: config/config.yaml: the configuration cannot be read "
        "(No such file or directory); give its path with --configfile\n",
    )


def test_a_source_that_does_not_answer_cannot_be_reached(say: Any) -> None:
    configure({**FILE, "references/OBS/path": "http://127.0.0.1:9/obs.nc"})
    code, _, err = say("plan", "--configfile", "small.yaml")
    assert code == cli.UNREACHABLE
    assert err.startswith(
        "finescale: references/OBS/tasmax: http://127.0.0.1:9/obs.nc cannot be reached ("
    )


def test_help_names_every_command_and_fits_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for arguments in ([], *([command] for command in COMMANDS)):
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, "--help"])
        assert ended.value.code == cli.OK
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 100
        assert arguments or all(f"\n    {command} " in text for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments", [[], ["bake"], ["why"], ["trace", "x.zarr"], ["gc", "--grace", "soon"]]
)
def test_a_wrong_command_line_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == cli.WRONG
    assert capsys.readouterr().err.startswith("usage: finescale")


def test_the_command_runs_from_any_folder() -> None:
    commit(planned().stage("weights")[0])
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = subprocess.run(
        [COMMAND, "ls", "--stores", "stores"], env=environment, capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (cli.OK, "")
    assert "\n1 committed, " in run.stdout
