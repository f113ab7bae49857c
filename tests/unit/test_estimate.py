"""Estimates: shapes of a plan are those of its stores, sums are sums, rates come from runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from configs import changed

from finescale import config, estimate, start
from finescale.estimate import RATES, Stage, Work
from finescale.plan import Plan


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("plan")
    return start.read(changed({}), folder / "small.yaml").plan


def test_every_stage_of_a_plan_has_a_rate(plan: Plan) -> None:
    assert {stage for stage, _ in plan.artefacts} <= RATES.keys()


def test_what_is_committed_is_not_estimated(plan: Plan) -> None:
    paths = [artefact.path for artefact in plan.artefacts.values()]
    stages = estimate.forecast(plan, paths[::2])
    assert sum(stage.stores for stage in stages) == len(paths)
    assert sum(stage.work.stores for stage in stages) == len(paths) - len(paths[::2])
    assert sum((s.work for s in estimate.forecast(plan, paths)), Work()) == Work()


def test_the_work_of_a_stage_is_the_sum_of_its_stores_and_its_memory_the_largest(
    plan: Plan,
) -> None:
    for stage in estimate.forecast(plan, []):
        each = [estimate.work(artefact) for artefact in plan.stage(stage.word)]
        assert stage.work.written == sum(one.written for one in each)
        assert stage.work.memory_mb == max(one.memory_mb for one in each)


def test_twice_the_domain_is_twice_the_bytes(plan: Plan, tmp_path: Path) -> None:
    world = {"n_lat": 24, "n_lon": 16, "ratio": 4}
    changes = {"references/OBS/synthetic": world, "simulations/0/synthetic": world}
    larger = start.read(changed(changes), tmp_path / "large.yaml").plan
    for stage in ("reference", "bcsd", "aggregate"):
        small, large = (estimate.total(p.stage(stage)) for p in (plan, larger))
        assert large.written == 2 * small.written
        assert large.seconds > small.seconds


def test_rates_are_those_of_runs_in_the_folder(plan: Plan, tmp_path: Path) -> None:
    """A job that took ten times what was expected; a small one moves the rate a little only."""
    (artefact, *_) = plan.stage("adjust")
    one = estimate.work(artefact)
    values = max(one.read, one.written) / 4e6
    file = tmp_path / "adjust" / f"{artefact.name}.tsv"
    file.parent.mkdir()
    taken = 3 * estimate.START + 1000 * values
    file.write_text(f"s\tmax_rss\tcpu_time\n9.9\t200\t{taken}\n")
    rates = estimate.measured([plan], tmp_path)
    weight = estimate.KNOWN / (values + estimate.KNOWN)
    assert rates["adjust"] == pytest.approx(1000 * (1 - weight) + RATES["adjust"] * weight)
    assert rates["bcsd"] == RATES["bcsd"], "nothing has been measured"
    file.write_text("s\tmax_rss\n9.9\t200\n")
    assert estimate.measured([plan], tmp_path) == RATES


def test_a_job_that_only_started_says_nothing_of_its_rate(plan: Plan, tmp_path: Path) -> None:
    (artefact, *_) = plan.stage("adjust")
    file = tmp_path / "adjust" / f"{artefact.name}.tsv"
    file.parent.mkdir()
    file.write_text(f"cpu_time\n{2 * estimate.START}\n")
    assert estimate.measured([plan], tmp_path)["adjust"] <= RATES["adjust"]


def test_a_digest_is_five_lines_and_a_cost_needs_prices(plan: Plan) -> None:
    free = config.load(changed({}))
    priced = config.load(changed({"prices/core_hour": 2.0, "prices/gb_month": 3.0}))
    stages = [Stage("bcsd", 3, Work(2, 8, 80, 10**9, 3 * 10**9, 900, 7200.0))]
    assert estimate.digest(free, stages) == [
        "small: 2 stores to make, 1 there, below stores",
        "  8 blocks, 80 chunks",
        "  reads 1 GB, writes 3 GB (uncompressed)",
        "  largest job 900 MB (bcsd)",
        "  about 2 core hours",
    ]
    assert estimate.digest(priced, stages)[-1] == (
        "  about 2 core hours, cost 4.00 to make, 6.03 a month to keep"
    )
    assert len(estimate.tell(priced, stages)) == len(estimate.tell(free, stages)) + 1
