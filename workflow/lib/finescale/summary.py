"""What a run says at its end, and which figures it draws; imported by the plan's side only."""

from __future__ import annotations

from typing import Any

from finescale.config import Config
from finescale.plan import Artefact, Plan


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


def closing_words(config: Config, plan: Plan) -> str:
    """Return where products, figures and summary lie."""
    daily = [p for p in plan.products if p.facets["frequency"] == "day"]
    shown = [f"    {config.stores}/{p.artefact.path.rsplit('/', 1)[0]}" for p in daily[:3]]
    more = [f"    ... {len(daily) - 3} more, all in the index"] if len(daily) > 3 else []
    results = f"results/{config.name}"
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


def failing_words(config: Config, log: object) -> str:
    """Return what to do after a failure."""
    return "\n".join(
        [
            "",
            f"Finescale: {config.name} is not complete; the failed rules and logs are named above.",
            "  Type the same command again: finished stores stay, the rest is made.",
            f"  Snakemake's own log: {', '.join(map(str, log)) if isinstance(log, list) else log}",
            "",
        ]
    )
