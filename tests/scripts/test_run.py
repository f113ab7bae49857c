"""Every script runs: a whole plan made in one process, with a stand-in for Snakemake's object."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from configs import METHODS_WORLD as CONFIG
from standin import SCRIPTS, run_script, standin

from finescale import estimate, start, summary
from finescale.plan import Artefact
from finescale.store import open_store


class Made:
    """A folder in which every rule has been run."""

    def __init__(self, folder: Path) -> None:
        mapping = {**CONFIG, "stores": str(folder / "stores")}
        self.folder = folder
        self.run = start.read(mapping, folder / "config.yaml")
        self.rules: list[str] = []

    def sentinel(self, artefact: Artefact) -> str:
        return f"{self.run.config.stores}/{artefact.path}"

    def result(self, name: str) -> str:
        return str(self.folder / "results" / name)

    def script(self, rule: str, log: str, **given: Any) -> None:
        self.rules.append(rule)
        lock = {"lock": self.run.lock}
        run_script(standin(rule, log=self.folder / "logs" / log, config=lock, **given))

    def store(self, artefact: Artefact) -> None:
        """Run the script of an artefact, and before it those of what it is made of."""
        if Path(self.sentinel(artefact)).exists():
            return
        for parent in artefact.inputs.values():
            self.store(parent)
        self.script(
            artefact.stage,
            f"{artefact.name}.log",
            input={role: self.sentinel(parent) for role, parent in artefact.inputs.items()},
            output={"store": self.sentinel(artefact)},
            spec=artefact.spec,
            mem_mb=artefact.mem_mb,
        )

    def report(self, rule: str, output: dict[str, str], **inputs: Any) -> None:
        spec = summary.report_spec(rule, self.run.config, self.run.plan)
        places = {role: self.result(name) for role, name in output.items()}
        self.script(rule, f"{rule}.log", input=inputs, output=places, spec=spec)

    def figure(self, name: str, evaluations: list[Artefact]) -> str:
        first = evaluations[0].inputs
        self.script(
            "draw_maps",
            f"{name}.log",
            input={
                "evaluations": [self.sentinel(e) for e in evaluations],
                "products": [self.sentinel(e.inputs["product"]) for e in evaluations],
                "reference": self.sentinel(first["reference"]),
                "simulation": self.sentinel(first["simulation"]),
            },
            output={
                "figure": self.result(f"{name}.png"), "change": self.result(f"change-{name}.png")
            },
            spec=summary.figure_spec(evaluations),
        )  # fmt: skip
        return self.result(f"{name}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Run the rules in the order of the workflow, and give the folder they filled."""
    made = Made(tmp_path_factory.mktemp("scripts"))
    plan = made.run.plan
    for artefact in plan.artefacts.values():
        made.store(artefact)
    products = [made.sentinel(product.artefact) for product in plan.products]
    evaluations = [made.sentinel(evaluation) for evaluation in plan.evaluations]
    made.report("index_products", {"index": "index.json"}, products=products)
    made.report(
        "tabulate_scores",
        {"scores": "scores.csv", "verdicts": "verdicts.csv"},
        evaluations=evaluations,
    )
    made.report("check_gates", {"gates": "gates.json"}, verdicts=made.result("verdicts.csv"))
    made.report(
        "write_summary",
        {"summary": "summary.html"},
        index=made.result("index.json"),
        table=made.result("scores.csv"),
        verdicts=made.result("verdicts.csv"),
        pictures=[made.figure(*group) for group in summary.figure_groups(plan).items()],
    )
    stores = [made.sentinel(artefact) for artefact in plan.artefacts.values()]
    made.report("verify_stores", {"verified": "verified.json"}, stores=stores)
    made.report("verify", {})
    yield made


def test_no_script_is_left_out(made: Made) -> None:
    assert set(made.rules) == {path.stem for path in SCRIPTS.glob("*.py")}


def test_every_store_is_committed_with_the_identity_its_plan_gives_it(made: Made) -> None:
    for artefact in made.run.plan.artefacts.values():
        opened = open_store(made.sentinel(artefact)).require(artefact.identity)
        assert opened.attributes["finescale_stage"] == artefact.stage
        assert opened.attributes["finescale_facets"] == artefact.facets


def test_stores_are_as_large_as_their_plan_estimates(made: Made) -> None:
    """By days of the standard calendar: those of others are at most 1.5 % fewer."""
    for artefact in made.run.plan.artefacts.values():
        opened = open_store(made.sentinel(artefact))
        shape, chunks = estimate.shape(artefact), estimate.chunk_shape(artefact)
        if artefact.stage in ("weights", "evaluate", "analogs"):  # several arrays of their own
            continue
        array = opened.array(artefact.facets["variable_id"])
        assert array.shape[1:] == shape[1:] and array.chunks[1:] == chunks[1:]
        assert abs(array.shape[0] - shape[0]) <= max(1, 0.015 * shape[0])


def test_nothing_lies_beside_the_stores_of_the_plan(made: Made) -> None:
    """No journal, no partial file, no scratch."""
    root = Path(made.run.config.stores)
    lying = {str(path.relative_to(root)) for path in root.glob("*/*")}
    assert lying == {str(Path(a.path).parent) for a in made.run.plan.artefacts.values()}


def test_every_script_writes_its_log(made: Made) -> None:
    for artefact in made.run.plan.artefacts.values():
        text = (made.folder / "logs" / f"{artefact.name}.log").read_text()
        assert f"{artefact.stage}: committed" in text


def test_the_index_lists_every_product_as_it_lies_there(made: Made) -> None:
    index = json.loads(Path(made.result("index.json")).read_text())
    assert {key: index[key] for key in ("schema", "name", "stores")} == {
        "schema": 1,
        "name": "small",
        "stores": made.run.config.stores,
    }
    assert len(index["products"]) == len(made.run.plan.products) == 2 * (4 * 4 + 1)
    assert [p["path"] for p in index["products"]] == sorted(p["path"] for p in index["products"])
    for product in index["products"]:
        opened = open_store(product["path"]).require(product["identity"])
        assert opened.array(product["variable_id"]).attrs["units"] == product["units"]


def test_the_tables_have_a_row_for_every_product_and_for_the_raw_gcm(made: Made) -> None:
    with open(made.result("scores.csv")) as file:
        rows = list(csv.DictReader(file))
    each = [method for method in ("bcsd", "gard", "maca", "qplad") for _ in range(4)]
    raw = ["raw GCM, bilinear"] * 4
    assert sorted(row["method"] for row in rows) == sorted(["interpolate", *each, *raw])


def test_the_page_holds_its_pictures(made: Made) -> None:
    page = Path(made.result("summary.html")).read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page.replace("http://www.w3.org", "")
