"""Stage `report`: the index others read, the tables, the gates that stop a run, the page."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain import Chain, grids
from oracles import temperature

from finescale import evaluate, identity, report, scores
from finescale.calendars import Days
from finescale.errors import ContractError
from finescale.job import Job
from finescale.store import Store

FINE, COARSE = grids()
PAST = Days.range("2013-01-01", "2014-12-31", "noleap")
FUTURE = Days.range("2015-01-01", "2016-12-31", "noleap")
FACETS = {
    "source_id": "GCM", "experiment_id": "historical", "member_id": "r1i1p1f1", "domain": "all",
    "reference": "OBS", "method": "bcsd", "train": "2013-2014", "period": "2013-2014",
}  # fmt: skip


@pytest.fixture
def make(chain: Chain) -> Callable[..., Job]:
    """Return a function that gives a job whose outputs are the files it names."""

    def job(**files: str) -> Job:
        return Job("report", "", files={k: str(chain.folder / v) for k, v in files.items()})

    return job


@pytest.fixture
def world(chain: Chain) -> dict[str, Any]:
    """Return a historical product 1 K too warm, a scenario 2 K warmer, and their evaluations."""
    land = np.random.default_rng(5).random(FINE.shape) < 0.7
    truth = np.where(land, temperature(PAST, FINE), np.nan)
    reference = chain.daily("reference", "obs", "tas", PAST, FINE, truth, layout="tiles")
    weights = chain.weights("up", COARSE, FINE, "bilinear")
    made: dict[str, Any] = {"reference": reference, "products": [], "evaluations": []}
    for name, days, warming in (("historical", PAST, 1.0), ("ssp245", FUTURE, 3.0)):
        facets = FACETS | {"experiment_id": name}
        product = chain.daily(
            "bcsd", name, "tas", days, FINE, truth + warming, layout="tiles", **facets
        )
        gcm = temperature(PAST, COARSE) + warming - 1
        simulation = chain.daily("simulation", name, "tas", days, COARSE, gcm)
        made.setdefault("simulation", simulation)
        made["products"].append(product)
        past = {"product_hist": made["products"][0], "simulation_hist": made["simulation"]}
        work = chain.job("evaluate", name, variable_id="tas", **facets)
        evaluate.run(
            work,
            product=product,
            reference=reference,
            simulation=simulation,
            weights=weights,
            wet_day=1.0,
            period=None,
            product_period=(days.isoformat(0), days.isoformat(len(days) - 1)),
            **(past if name == "ssp245" else {}),
        )
        made["evaluations"].append(chain.keep(work))
    return made


def rows(path: str) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------------------
# Index


def test_the_index_has_the_schema_others_read(
    world: dict[str, Any], make: Callable[..., Job], chain: Chain
) -> None:
    """Products sorted by path, absolute and without the sentinel, with all 64 digits."""
    entry = {
        "stage": "bcsd", "method": "bcsd", "source_id": "GCM", "experiment_id": "historical",
        "member_id": "r1i1p1f1", "grid_label": "gn", "variable_id": "tas", "reference": "OBS",
        "domain": "all", "train": ["2013-01-01", "2014-12-31"],
        "period": ["2013-01-01", "2014-12-31"], "frequency": "day", "units": "K",
    }  # fmt: skip
    entries = [entry, entry | {"experiment_id": "ssp245"}]
    work = make(index="index.json")
    report.index_products(
        work,
        products=world["products"][::-1],
        entries=entries[::-1],
        name="test",
        stores=str(chain.folder),
    )
    index = json.loads(Path(work.files["index"]).read_text())
    assert index.keys() == {"schema", "name", "stores", "products"}
    assert (index["schema"], index["name"], index["stores"]) == (1, "test", str(chain.folder))
    assert [p["experiment_id"] for p in index["products"]] == ["historical", "ssp245"]
    for listed, wanted in zip(index["products"], entries, strict=True):
        path = chain.folder / "bcsd" / f"{wanted['experiment_id']}.zarr"
        expected = identity.digest(["bcsd", wanted["experiment_id"]])
        assert listed == wanted | {"path": str(path), "identity": expected}
        assert (Path(listed["path"]) / ".zmetadata").is_file()
        assert len(listed["identity"]) == 64


def test_urls_are_left_as_they_are(make: Callable[..., Job]) -> None:
    work = make(index="index.json")
    report.index_products(work, products=[], entries=[], name="test", stores="gs://bucket/stores")
    assert json.loads(Path(work.files["index"]).read_text())["stores"] == "gs://bucket/stores"


# --------------------------------------------------------------------------------------
# Tables


def tables(work: Job, evaluations: list[Store], **given: Any) -> tuple[Any, Any]:
    report.tabulate_scores(work, evaluations=evaluations, waive=given.get("waive", []))
    return rows(work.files["scores"]), rows(work.files["verdicts"])


def test_the_scores_are_area_weighted(world: dict[str, Any], make: Callable[..., Job]) -> None:
    table, _ = tables(make(scores="scores.csv", verdicts="verdicts.csv"), world["evaluations"])
    of = {(row["experiment_id"], row["method"]): row for row in table}
    assert of.keys() == {(e, m) for e in ("historical", "ssp245") for m in ("bcsd", report.RAW)}
    product = of["historical", "bcsd"]
    assert float(product["bias"]) == pytest.approx(1.0, abs=1e-4)
    assert float(product["rmse"]) == pytest.approx(1.0, abs=1e-4)
    assert float(product["pattern_correlation"]) == pytest.approx(1.0, abs=1e-4)
    assert float(of["ssp245", "bcsd"]["change"]) == pytest.approx(2.0, abs=1e-4)
    assert float(of["ssp245", report.RAW]["change"]) == pytest.approx(2.0, abs=1e-3)
    assert product["change"] == "" and of["ssp245", "bcsd"]["bias"] == ""
    opened = world["evaluations"][0]
    names = [str(n) for n in opened.read("score_name")]
    cells = dict(
        zip(names, opened.read("baseline").reshape(len(names), -1).astype(float), strict=True)
    )
    area = FINE.cell_area().reshape(-1)
    valid = ~np.isnan(cells["bias"])
    bias = np.average(cells["bias"][valid], weights=area[valid])
    raw = of["historical", report.RAW]
    assert float(raw["bias"]) == pytest.approx(bias, rel=1e-5)
    moments = opened.read("pattern_raw").sum(axis=(2, 3))
    wanted = scores.pattern_correlation(moments)
    assert float(raw["pattern_correlation"]) == pytest.approx(wanted, rel=1e-5)
    assert wanted < 0.9 and of["ssp245", "bcsd"]["pattern_correlation"] == ""
    square = np.average(cells["rmse"][valid] ** 2, weights=area[valid])
    assert float(raw["rmse"]) == pytest.approx(np.sqrt(square), rel=1e-5)


def test_products_that_differ_by_their_training_have_their_own_rows(
    world: dict[str, Any], make: Callable[..., Job], chain: Chain
) -> None:
    work = chain.job("evaluate", "other", **{**FACETS, "variable_id": "tas", "train": "1991-2000"})
    evaluate.run(
        work,
        product=world["products"][0],
        reference=world["reference"],
        simulation=world["simulation"],
        weights=chain.made["weights/up-bilinear"],
        wet_day=1.0,
        period=None,
        product_period=("2013-01-01", "2014-12-31"),
    )
    both = [world["evaluations"][0], chain.keep(work)]
    table, _ = tables(make(scores="scores.csv", verdicts="verdicts.csv"), both)
    assert sum(row["method"] == "bcsd" for row in table) == 2


def test_every_gate_has_a_verdict(world: dict[str, Any], make: Callable[..., Job]) -> None:
    _, verdicts = tables(make(scores="s.csv", verdicts="v.csv"), world["evaluations"])
    assert [v["gate"] for v in verdicts[: len(verdicts) // 2]] == [
        "missing_values", "values_outside_mask", "below_range", "above_range",
        "tasmin_above_tasmax", "time_steps",
    ]  # fmt: skip
    assert {v["passed"] for v in verdicts} == {"True"}
    assert {v["stops"] for v in verdicts} == {"False"}
    steps = verdicts[5]
    assert (steps["value"], steps["limit"]) == ("730", "730")


# --------------------------------------------------------------------------------------
# Gates


def verdict(gate: scores.Gate) -> dict[str, Any]:
    facets = {**FACETS, "variable_id": "tas"}
    return {f: facets[f] for f in report.FACETS} | vars(gate) | {"stops": gate.stops}


def check(work: Job, *gates: scores.Gate) -> Any:
    path = Path(work.files["gates"]).with_name("verdicts.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(verdict(gates[0])))
        writer.writeheader()
        writer.writerows(verdict(g) for g in gates)
    report.check_gates(work, verdicts=str(path))
    return json.loads(Path(work.files["gates"]).read_text())


SHUT = scores.Gate("below_range", 3.0, 0.0, False)
OPEN = scores.Gate("time_steps", 730.0, 730.0, True)


def test_open_gates_let_the_run_pass(make: Callable[..., Job]) -> None:
    assert check(make(gates="gates.json"), OPEN, OPEN) == {"gates": 2, "waived": []}


def test_a_shut_gate_fails_the_run_with_one_message(make: Callable[..., Job]) -> None:
    work = make(gates="gates.json")
    with pytest.raises(ContractError) as error:
        check(work, OPEN, SHUT)
    message = str(error.value)
    assert message.startswith("1 of 2 gates are shut: below_range 3.0 (limit 0.0) of tas GCM ")
    assert message.endswith("or waive a gate by name in `evaluate: {waive: [...]}`")
    assert not Path(work.files["gates"]).exists()


def test_a_waived_gate_is_reported_and_does_not_stop(make: Callable[..., Job]) -> None:
    waived = replace(SHUT, waived=True)
    assert check(make(gates="gates.json"), OPEN, waived) == {"gates": 2, "waived": ["below_range"]}
    with pytest.raises(ContractError, match=r"^1 of 2 gates are shut: time_steps"):
        check(make(gates="again.json"), waived, replace(OPEN, value=720.0, passed=False))


def test_a_product_that_lacks_days_shuts_its_gate(
    world: dict[str, Any], make: Callable[..., Job], chain: Chain
) -> None:
    """From a store to the message, through the tables; waived by name it passes."""
    work = chain.job("evaluate", "short", variable_id="tas", **FACETS)
    evaluate.run(
        work,
        product=world["products"][0],
        reference=world["reference"],
        simulation=world["simulation"],
        weights=chain.made["weights/up-bilinear"],
        wet_day=1.0,
        period=None,
        product_period=("2012-01-01", "2014-12-31"),
    )
    short = [chain.keep(work)]
    tabulated = make(scores="scores.csv", verdicts="verdicts.csv")
    tables(tabulated, short)
    with pytest.raises(ContractError, match=r"time_steps 730 \(limit 1095\) of tas GCM historical"):
        report.check_gates(make(gates="g.json"), verdicts=tabulated.files["verdicts"])
    tables(tabulated, short, waive=["time_steps"])
    gates = make(gates="g.json")
    report.check_gates(gates, verdicts=tabulated.files["verdicts"])
    assert json.loads(Path(gates.files["gates"]).read_text())["waived"] == ["time_steps"]


# --------------------------------------------------------------------------------------
# Figures and the page


def test_figures_are_drawn_of_present_and_change(
    world: dict[str, Any], make: Callable[..., Job]
) -> None:
    work = make(figure="figures/tas.png", change="figures/tas_change.png")
    report.draw_maps(work, **world)
    pictures = [Path(work.files[k]).read_bytes() for k in ("figure", "change")]
    assert all(p.startswith(b"\x89PNG") and len(p) > 10_000 for p in pictures)
    assert pictures[0] != pictures[1]


def test_the_page_stands_alone(world: dict[str, Any], make: Callable[..., Job]) -> None:
    """Scores, figures and products in one file that needs no other and no network."""
    work = make(
        scores="scores.csv", verdicts="verdicts.csv", index="index.json", summary="summary.html"
    )
    tables(work, world["evaluations"])
    entries = [{"experiment_id": e} for e in ("historical", "ssp245")]
    report.index_products(
        work, products=world["products"], entries=entries, name="<test>", stores="stores"
    )
    picture = Path(work.files["index"]).with_name("tas.png")
    picture.write_bytes(b"\x89PNG")
    report.write_summary(
        work,
        index=work.files["index"],
        table=work.files["scores"],
        verdicts=work.files["verdicts"],
        pictures=[str(picture)],
        name="<test>",
    )
    page = Path(work.files["summary"]).read_text()
    assert "<h1>&lt;test&gt;</h1>" in page
    assert "2 committed products" in page
    assert world["products"][1].url in page
    assert "data:image/png;base64,iVBORw" in page
    assert "pattern correlation" in page
    assert "http" not in page.replace(world["products"][0].url, "")
