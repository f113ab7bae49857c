"""The plan: what a parameter reaches is made anew, and nothing else is."""

import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import configs
import pytest

from finescale import identity, start, synthetic
from finescale.config import Config
from finescale.plan import Artefact, Plan, build

LIBRARY = Path(__file__).parents[2] / "workflow" / "lib"
WORLD = {"n_lat": 12, "n_lon": 16, "ratio": 4, "first_year": 2009, "last_year": 2016}
VARIABLES = ["tasmax", "tasmin", "pr"]
BASE: dict[str, Any] = {
    "name": "small",
    "domains": {"island": {}},
    "periods": {"train": [2010, 2014], "late": [2013, 2014]},
    "references": {"OBS": {"path": "obs/{variable_id}.nc", "variables": VARIABLES}},
    "simulations": [
        {
            "source_id": ["FS-A"],
            "experiment_id": ["historical", "ssp245", "ssp585"],
            "synthetic": WORLD,
            "variables": VARIABLES,
        },
        {
            "source_id": ["FS-B"],
            "experiment_id": ["historical", "ssp245"],
            "synthetic": WORLD,
            "variables": VARIABLES,
        },
    ],
    "products": [
        {
            "domain": ["island"],
            "reference": "OBS",
            "train": "train",
            "source_id": ["FS-A", "FS-B"],
            "variable_id": VARIABLES,
            "method": ["bcsd", "interpolate"],
        }
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the observations as files."""
    folder = tmp_path_factory.mktemp("plan")
    for variable in VARIABLES:
        ds = synthetic.dataset(synthetic.World(**WORLD), variable)
        synthetic.write(ds, folder / "obs" / f"{variable}.nc")
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the base configuration with the values at some places changed."""
    mapping: Any = json.loads(json.dumps(BASE))  # no object is shared between its places
    for place, value in changes.items():
        *parents, last = (int(p) if p.isdecimal() else p for p in place.split("/"))
        section = mapping
        for part in parents:
            section = section.setdefault(part, {}) if isinstance(section, dict) else section[part]
        section[last] = value
    return mapping


def plan(mapping: dict[str, Any] = BASE) -> Plan:
    return start.read(mapping, Path("config.yaml")).plan


def by_label(planned: Plan) -> dict[str, Artefact]:
    """Return artefacts by stage and facets, less the periods that a change may rename."""
    return {
        " ".join((a.stage, *(v for k, v in a.facets.items() if k not in ("period", "train")))): a
        for a in planned.artefacts.values()
    }


# --------------------------------------------------------------------------------------
# What a setting reaches

Where = dict[str, dict[str, str]]
PRODUCTS: Where = {"bcsd": {}, "interpolate": {}}
FS_A = {"source": "FS-A-gn"}


def is_reached(artefact: Artefact, where: Where) -> bool:
    """Tell whether an artefact is made by one of these stages, or of anything that is."""
    facets = where.get(artefact.stage)
    return (facets is not None and facets.items() <= artefact.facets.items()) or any(
        is_reached(parent, where) for parent in artefact.inputs.values()
    )


@pytest.mark.parametrize(
    ("place", "value", "where"),
    [
        ("adjust/half_window", 16, {"adjust": {}}),
        ("adjust/positions", "hazen", {"adjust": {}}),
        ("adjust/tails", "linear", {"adjust": {}}),
        ("adjust/trend_years", 11, {"adjust": {}}),
        ("adjust/dry_threshold", 0.1, {"adjust": {}}),
        ("adjust/seed", 1, {"adjust": {}}),
        ("adjust/year_window", 11, {"adjust": {}}),
        ("adjust/epoch_years", 31, {"adjust": {}}),
        ("adjust/max_ratio", 3.0, {"adjust": {}}),
        ("adjust/dry_floor", 0.5, {"adjust": {}}),
        ("climatology/harmonics", 4, {"climatology": {}}),
        ("climatology/half_window", 10, {"climatology": {}}),
        ("climatology/min_valid_fraction", 0.6, {"climatology": {}}),
        ("climatology/floor", 0.1, {"climatology": {}}),
        ("coarsen/min_valid_fraction", 0.6, {"coarsen": {}}),
        ("weights/engine", "esmf", {"weights": {}}),
        ("evaluate/wet_day", 2.0, {"evaluate": {}}),
        ("products/0/score", "late", {"evaluate": {}}),
        ("products/0/calendar", "standard", PRODUCTS),
        ("methods/bcsd", {"adjust": {"half_window": 16}}, {"adjust": {}}),
        ("methods/bcsd", {"settings": {"fill": "smooth"}}, {"bcsd": {}}),
        ("bcsd/fill", "smooth", {"bcsd": {}}),
        ("bcsd/interpolation", "mean_preserving", {"bcsd": {}}),
        ("products/0/settings", {"bcsd": {"interpolation": "mean_preserving"}}, {"bcsd": {}}),
        ("periods/train", [2011, 2014], {"climatology": {}, "adjust": {}, **PRODUCTS}),
        ("domains/island/lat", [36.5, 38.5], {"reference": {}, "simulation": {}, "weights": {}}),
        ("references/OBS/period", [2010, 2014], {"reference": {}}),
        ("references/OBS/licence", "CC-BY-4.0", {"reference": {}, **PRODUCTS}),
        ("references/OBS/citation", "Somebody (2020)", {"reference": {}, **PRODUCTS}),
        (
            "references/OBS/variables",
            {"tasmax": None, "tasmin": None, "pr": {"units": "mm day-1"}},
            {"reference": {"variable_id": "pr"}},
        ),
        ("simulations/0/licence", "CC-BY-4.0", {"simulation": FS_A}),
        (
            "simulations/0/period",
            {"ssp585": [2015, 2015]},
            {"simulation": {**FS_A, "experiment_id": "ssp585"}},
        ),
        (
            "simulations/0/pad_experiment",
            "ssp585",
            {"adjust": {**FS_A, "experiment_id": "historical"}},
        ),
        ("simulations/0/synthetic/seed", 2, {"simulation": FS_A}),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_a_setting_reaches_its_stage_and_what_is_made_of_it(
    place: str, value: Any, where: Where
) -> None:
    """A store it should reach and does not is stale; one that it should not is made in vain."""
    mapping = changed({place: value})
    before, after = by_label(plan()), by_label(plan(mapping))
    assert before.keys() == after.keys()
    renewed = {label for label in before if before[label].identity != after[label].identity}
    assert renewed == {label for label in before if is_reached(before[label], where)}
    assert renewed


def test_half_windows_of_the_adjustment_leave_reference_and_climatology_alone() -> None:
    """The same as above in words, of the one parameter that people change most."""
    before, after = plan(), plan(changed({"adjust/half_window": 16}))
    for stage in ("reference", "simulation", "weights", "coarsen", "climatology", "interpolate"):
        assert before.stage(stage) == after.stage(stage)
    for stage in ("adjust", "bcsd"):
        old, new = ({a.identity for a in p.stage(stage)} for p in (before, after))
        assert len(new) == len(old) and not new & old
    for stage in ("aggregate", "evaluate"):
        of_bcsd = [
            {a.identity for a in p.stage(stage) if a.facets["method"] == "bcsd"}
            for p in (before, after)
        ]
        assert not of_bcsd[0] & of_bcsd[1]


def names(planned: Plan) -> set[str]:
    return {artefact.path for artefact in planned.artefacts.values()}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("name", "another"),
        ("stores", "/somewhere/else"),
        ("stores", "gs://bucket/stores"),
        ("evaluate/waive", ["time_steps"]),
        ("periods/unused", [1990, 1999]),
        ("methods/mine", {"stage": "bcsd"}),
    ],
)
def test_what_changes_no_byte_changes_no_name(place: str, value: Any) -> None:
    assert names(plan(changed({place: value}))) == names(plan())


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_keys_and_lists_says_nothing(seed: int) -> None:
    """Except that scenarios are listed in the order in which they pad `historical`."""
    order = random.Random(seed)

    def shuffled(section: Any, key: str = "") -> Any:
        if isinstance(section, dict):
            return {k: shuffled(section[k], k) for k in order.sample(list(section), len(section))}
        if isinstance(section, list) and key not in ("experiment_id", "train", "late"):
            return [shuffled(item) for item in order.sample(section, len(section))]
        return section

    mapping = shuffled(BASE)
    assert json.dumps(mapping) != json.dumps(BASE)
    assert names(plan(mapping)) == names(plan())


def test_a_source_is_its_content_wherever_it_lies(folder: Path) -> None:
    shutil.copytree(folder / "obs", folder / "moved", dirs_exist_ok=True)
    moved = plan(changed({"references/OBS/path": str(folder / "moved" / "{variable_id}.nc")}))
    assert names(moved) == names(plan())


def test_memory_and_threads_are_not_in_an_identity() -> None:
    artefact = plan().stage("bcsd")[0]
    assert replace(artefact, threads=8, mem_mb=64_000).identity == artefact.identity


# --------------------------------------------------------------------------------------
# What is shared


def test_two_configurations_share_what_both_need() -> None:
    one = plan(changed({"products/0/source_id": "FS-A", "products/0/method": "bcsd"}))
    other = plan(
        changed({"name": "other", "products/0/method": "bcsd", "products/0/variable_id": "pr"})
    )
    shared = [one.artefacts[key] for key in one.artefacts.keys() & other.artefacts.keys()]
    of_one = {a.path for a in one.artefacts.values() if is_made_for(a, "FS-A", "pr")}
    assert {a.path for a in shared} == of_one
    assert {a.stage for a in shared} == {
        *("reference", "simulation", "weights", "coarsen", "climatology"),
        *("adjust", "bcsd", "aggregate", "evaluate"),
    }


def is_made_for(artefact: Artefact, source_id: str, variable_id: str) -> bool:
    facets = artefact.facets
    return facets.get("variable_id", variable_id) == variable_id and not any(
        facets.get(name, "").startswith(other)
        for name in ("source", "source_id", "src", "dst", "grid")
        for other in {"FS-A", "FS-B"} - {source_id}
    )


def test_historical_is_made_once_for_all_scenarios() -> None:
    planned = by_label(plan(changed({"products/0/method": "bcsd"})))
    tail = "r1i1p1f1 gn pr OBS island"
    past = planned[f"bcsd bcsd FS-A historical {tail}"]
    for scenario in ("ssp245", "ssp585"):
        evaluation = planned[f"evaluate bcsd FS-A {scenario} {tail}"]
        assert evaluation.inputs["product_hist"].identity == past.identity
        adjusted = planned[f"bcsd bcsd FS-A {scenario} {tail}"].inputs["adjusted"]
        assert adjusted.inputs["hist"] == past.inputs["adjusted"].inputs["hist"]
        assert adjusted.inputs["scen"].facets["experiment_id"] == scenario
    assert past.inputs["adjusted"].inputs["scen"].facets["experiment_id"] == "ssp245"
    assert sum(label.startswith("simulation FS-A-gn historical") for label in planned) == 4


def test_preserved_means_are_those_that_coarsen_makes() -> None:
    """The same weights and the same least fraction; the published method needs neither."""
    sharp = {"bcsd/interpolation": "mean_preserving", "coarsen/min_valid_fraction": 0.7}
    for artefact in plan(changed(sharp)).stage("bcsd"):
        coarsened = artefact.inputs["adjusted"].inputs["ref"]
        assert artefact.inputs["area_weights"] == coarsened.inputs["weights"]
        assert artefact.parameters["min_valid_fraction"] == 0.7
    for artefact in plan().stage("bcsd"):
        assert not {"area_weights", "min_valid_fraction"} & {*artefact.inputs, *artefact.parameters}


def test_all_products_of_one_model_share_its_grid() -> None:
    planned = plan()
    assert len(planned.stage("weights")) == 2 * 2, "to and from each of two grids"
    assert len(planned.stage("coarsen")) == 2 * 3, "tasmax, dtr and pr on each"
    fine = [a for a in planned.stage("climatology") if a.facets["grid"] == "fine"]
    assert len(fine) == 4, "tasmax, tasmin, dtr and pr"


# --------------------------------------------------------------------------------------
# Its form


def test_inputs_of_every_artefact_are_artefacts_of_the_plan() -> None:
    planned = plan()
    for artefact in planned.artefacts.values():
        for parent in artefact.inputs.values():
            assert planned.artefacts[parent.stage, parent.name].identity == parent.identity


def test_a_path_names_the_store_and_tells_it_from_all_others() -> None:
    planned = plan()
    paths = [artefact.path for artefact in planned.artefacts.values()]
    assert len(set(paths)) == len(paths) > 100
    for artefact in planned.artefacts.values():
        assert artefact.path == f"{artefact.stage}/{artefact.name}.zarr/.zmetadata"
        assert artefact.name.endswith(f"-{artefact.identity[:16]}")
        assert len(artefact.identity) == 64
        assert artefact.spec["identity"] == identity.digest(artefact.spec["recipe"])


def test_a_spec_is_plain_json_as_snakemake_hands_it_to_a_job() -> None:
    """A tuple would come back as a list, and Snakemake would find its parameters changed."""
    for artefact in plan().artefacts.values():
        assert json.loads(json.dumps(artefact.spec)) == artefact.spec


def test_planning_grows_with_the_plan_and_digests_grids_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every job plans again; to digest a grid of thousands of numbers for each member is slow."""
    digest, stages = identity.digest, Counter[str]()

    def counting(document: Any) -> str:
        stages[document["stage"]] += 1
        return digest(document)

    def digests(members: int) -> Counter[str]:
        realisations = [f"r{i}i1p1f1" for i in range(1, members + 1)]
        mapping = changed({"simulations/1/member_id": realisations, "products/0/source_id": "FS-B"})
        run = start.read(mapping, Path("config.yaml"))
        stages.clear()
        with monkeypatch.context() as patched:
            patched.setattr(identity, "digest", counting)
            planned = build(run.config, run.lock)
        assert len(planned.stage("bcsd")) == 6 * members
        return stages.copy()

    few, many = digests(4), digests(12)
    assert many["weights"] == few["weights"] == 2
    assert few.total() < many.total() < 3 * few.total()


HEAVY = ("numpy", "numba", "zarr", "xarray", "pandas", "dask", "scipy", "fsspec")


def loaded_by(code: str, folder: Path) -> set[str]:
    """Return which heavy libraries a process has loaded after this code."""
    shown = f"import json, sys\n{code}\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    run = subprocess.run(
        [sys.executable, "-c", shown],
        cwd=folder,
        env={"PYTHONPATH": str(LIBRARY)},
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(run.stdout))


def test_a_job_of_the_workflow_plans_with_nothing_heavier_than_pydantic(folder: Path) -> None:
    """Snakemake reads the plan again in every job: numpy and Numba would cost each a second."""
    plan()
    (folder / "mapping.json").write_text(json.dumps(BASE))
    code = (
        "from pathlib import Path; from finescale import start, summary\n"
        "mapping = json.loads(Path('mapping.json').read_text())\n"
        "run = start.read(mapping, Path('config.yaml'), look_up=False)\n"
        "assert run.plan.products and summary.figure_groups(run.plan)"
    )
    assert loaded_by(code, folder) == set()
    assert "numpy" in loaded_by("import finescale.store", folder), "the check sees what is loaded"


def test_a_plan_is_a_function_of_config_and_lock_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No source is looked at: a job on another machine may not see them."""
    run = start.read(BASE, Path("config.yaml"))
    monkeypatch.chdir("/")
    config = Config.model_validate(BASE)
    assert names(build(config, json.loads(json.dumps(run.lock)))) == names(run.plan)


def test_a_job_has_as_many_threads_as_fit_into_its_memory(tmp_path: Path) -> None:
    """The identity does not depend on it: the same stores on a small machine."""
    world = {"n_lat": 720, "n_lon": 960, "ratio": 24, "resolution": 0.05}
    changes = {"references/OBS/synthetic": world, "simulations/0/synthetic": world}
    wide, narrow = (
        start.read(configs.changed(changes), tmp_path / "small.yaml", most_mb=most).plan
        for most in (None, 800)
    )
    assert wide.artefacts.keys() == narrow.artefacts.keys()
    (many, *_), (few, *_) = wide.stage("evaluate"), narrow.stage("evaluate")
    assert many.threads == 4 > few.threads >= 1
    assert few.mem_mb < many.mem_mb
    assert all(a.mem_mb <= 800 or a.threads == 1 for a in narrow.artefacts.values())
