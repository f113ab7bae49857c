"""What a run says at its end, and which figures it draws; imported by the plan's side only."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finescale import failures
from finescale.config import Config
from finescale.errors import FinescaleError
from finescale.plan import Artefact, Plan
from finescale.start import Run


def figure_groups(plan: Plan) -> dict[str, list[Artefact]]:
    """Return the evaluations that share a figure, by its name."""
    groups: dict[str, list[Artefact]] = {}
    for evaluation in plan.evaluations:
        f = evaluation.facets
        shared = ("source_id", "member_id", "variable_id", "domain", "reference", "train")
        name = "_".join(f[facet] for facet in shared)
        groups.setdefault(name, []).append(evaluation)
    return dict(sorted(groups.items()))


def figure_spec(evaluations: list[Artefact]) -> dict[str, Any]:
    """Return the spec of `draw_maps`: the identities of its inputs."""
    first = evaluations[0].inputs
    return {
        "stage": "report",
        "inputs": {
            "evaluations": [e.identity for e in evaluations],
            "products": [e.inputs["product"].identity for e in evaluations],
            "reference": first["reference"].identity,
            "simulation": first["simulation"].identity,
        },
    }


def report_spec(rule: str, config: Config, plan: Plan) -> dict[str, Any]:
    """Return the spec of a rule of the report."""
    inputs: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    if rule == "index_products":
        inputs = {"products": [p.artefact.identity for p in plan.products]}
        parameters = {
            "entries": [p.facets for p in plan.products],
            "name": config.name,
            "stores": config.stores,
        }
    elif rule == "tabulate_scores":
        inputs = {"evaluations": [e.identity for e in plan.evaluations]}
        parameters = {"waive": list(config.evaluate.waive)}
    elif rule in ("verify", "verify_stores"):
        identities = [artefact.identity for artefact in plan.artefacts.values()]
        parameters = {"identities": identities, "deep": config.verify.depth == "deep"}
        if rule == "verify":
            paths = [f"{config.stores}/{artefact.path}" for artefact in plan.artefacts.values()]
            parameters["stores"] = paths
    elif rule == "write_summary":
        parameters = {"name": config.name}
    return {"stage": "report", "inputs": inputs, "parameters": parameters}


def opening_words(run: Run) -> str:
    """Return in five lines what a run will take."""
    from finescale import estimate, store

    committed = set(store.list_stores(run.config.stores))
    rates = estimate.measured(run.plans, Path("benchmarks"))
    return "\n".join(estimate.digest(run.config, estimate.forecast(run.plan, committed, rates)))


def closing_words(run: Run) -> str:
    """Return where products, figures and summary lie, or how many products are not indexed yet."""
    config, plan, results = run.config, run.plan, run.results
    wanted = {product.artefact.identity for product in plan.products}
    if left := len(wanted - _indexed(results)):
        return (
            f"\nFinescale: what was asked for is there; {left} of the {len(wanted)} products of "
            f"{config.name} are not in its index.\n  `snakemake` without a target makes them all.\n"
        )
    daily = [p for p in plan.products if p.facets["frequency"] == "day"]
    shown = [f"    {config.stores}/{p.artefact.path.rsplit('/', 1)[0]}" for p in daily[:3]]
    more = [f"    ... {len(daily) - 3} more, all in the index"] if len(daily) > 3 else []
    return "\n".join(
        [
            "",
            f"Finescale: {config.name} is complete.",
            f"  {len(daily)} daily products (xarray.open_zarr reads them):",
            *shown,
            *more,
            f"  index    {results}/index.json",
            f"  scores   {results}/scores.csv",
            f"  figures  {results}/figures/",
            f"  summary  {results}/summary.html",
            "",
        ]
    )


def _indexed(results: str) -> set[str]:
    """Return the identities of the products in an index; none if there is no index."""
    from finescale.storage import Objects

    try:
        index = json.loads(Objects(results).get("index.json"))
        return {product["identity"] for product in index["products"]}
    except (OSError, ValueError, KeyError, FinescaleError):
        return set()


def failing_words(config: Mapping[str, Any], scheduler: Any, log: object) -> str:
    """Return which jobs failed and why, and the command that makes what is missing.

    Parameters
    ----------
    config
        Of Snakemake.
    scheduler
        Of Snakemake, if it came so far.
    log
        Snakemake's own.
    """
    told = failures.tell(config, getattr(scheduler, "failed", ()))
    resume = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return "\n".join(
        [
            "",
            f"Finescale: {config['name']} is not complete.",
            *told,
            "  Type the same command again: finished stores and blocks stay, the rest is made.",
            f"    {resume}",
            f"  Snakemake's own log: {', '.join(map(str, log)) if isinstance(log, list) else log}",
            "",
        ]
    )
