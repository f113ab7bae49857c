"""Stage `report`: index, scorecard, gates, figures and one page, made of committed stores.

Its outputs are small files under `results/<name>/`, not stores.
"""

from __future__ import annotations

import csv
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finescale import evaluate, figures, scores
from finescale.blocks import tiles
from finescale.errors import ContractError
from finescale.fields import Field, read_grid
from finescale.figures import Curve, Panel
from finescale.job import Job
from finescale.store import Store
from finescale.variables import VARIABLES

INDEX_SCHEMA = 1
FACETS = (
    "variable_id", "source_id", "experiment_id", "member_id", "domain", "reference", "train",
    "method",
)  # fmt: skip
RAW = "raw GCM, bilinear"


def index_products(
    work: Job, *, products: list[Store], entries: list[dict[str, Any]], name: str, stores: str
) -> None:
    """Write index.json: every committed product, its facets, path and identity, sorted by path."""
    listed = [
        {**entry, "path": _absolute(opened.url), "identity": opened.identity}
        for entry, opened in zip(entries, products, strict=True)
    ]
    document = {
        "schema": INDEX_SCHEMA,
        "name": name,
        "stores": _absolute(stores),
        "products": sorted(listed, key=lambda p: p["path"]),
    }
    _write(work.files["index"], json.dumps(document, indent=1, sort_keys=True) + "\n")


def tabulate_scores(work: Job, *, evaluations: list[Store], waive: list[str]) -> None:
    """Write scores.csv (one row per product and per raw GCM) and verdicts.csv (one per gate)."""
    rows: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    for opened in evaluations:
        rows += _score_rows(opened)
        verdicts += _verdicts(opened, waive)
    unique = {tuple(row[f] for f in FACETS): row for row in rows}
    _write_csv(work.files["scores"], [unique[key] for key in sorted(unique)])
    _write_csv(work.files["verdicts"], verdicts)


def _score_rows(opened: Store) -> list[dict[str, Any]]:
    """Return the area-weighted scores of a product and of the raw GCM below it."""
    facets = opened.attributes["finescale_facets"]
    area = read_grid(opened).cell_area().reshape(-1)
    units = VARIABLES[facets["variable_id"]].units
    rows = []
    for method, score, suffix in ((facets["method"], "score", ""), (RAW, "baseline", "_raw")):
        row = {**{f: facets[f] for f in FACETS}, "method": method, "units": units}
        if score in opened:
            names = [str(n) for n in opened.read("score_name")]
            table = opened.read(score).astype(np.float64).reshape(len(names), -1)
            row |= scores.area_scores(dict(zip(names, table, strict=True)), area)
            moments = opened.read(f"pattern{suffix}").sum(axis=(2, 3))
            row[scores.PATTERN.name] = scores.pattern_correlation(moments)
        if "change" in opened:
            monthly = opened.read(f"change{suffix}").astype(np.float64).reshape(12, -1)
            row["change"] = float(scores.area_mean(scores.area_mean(monthly, area), np.ones(12)))
        rows.append(row)
    rows[0]["n_corrected"] = _counts(opened)["n_corrected"]
    return rows


def _counts(opened: Store) -> dict[str, int]:
    table = opened.read("counts").sum(axis=(1, 2))
    return {n: int(v) for n, v in zip(evaluate.COUNTS, table, strict=True)}


def _verdicts(opened: Store, waive: Sequence[str]) -> list[dict[str, Any]]:
    facets = opened.attributes["finescale_facets"]
    counts = _counts(opened)
    attributes = opened.attributes
    verdicts = scores.gates(
        counts,
        n_time=attributes["n_time"],
        n_time_expected=attributes["n_time_expected"],
        waived=waive,
    )
    return [{**{f: facets[f] for f in FACETS}, **vars(v), "stops": v.stops} for v in verdicts]


def check_gates(work: Job, *, verdicts: str) -> None:
    """Write gates.json if every gate is passed or waived.

    Raises
    ------
    ContractError
        A gate is shut; the message names the products.
    """
    with open(verdicts) as file:
        rows = list(csv.DictReader(file))
    shut = [row for row in rows if row["stops"] == "True"]
    if shut:
        listed = "; ".join(
            f"{row['gate']} {row['value']} (limit {row['limit']}) of "
            + " ".join(row[f] for f in FACETS)
            for row in shut[:5]
        )
        raise ContractError(
            f"{len(shut)} of {len(rows)} gates are shut: {listed}; see {verdicts}, "
            "or waive a gate by name in `evaluate: {waive: [...]}`"
        )
    waived = sorted({row["gate"] for row in rows if row["passed"] == "False"})
    _write(work.files["gates"], json.dumps({"gates": len(rows), "waived": waived}) + "\n")


# --------------------------------------------------------------------------------------
# Figures


def draw_maps(
    work: Job,
    *,
    evaluations: list[Store],
    products: list[Store],
    reference: Store,
    simulation: Store,
) -> None:
    """Write the figure of one simulated variable: present climate, and change if there is one."""
    present = [e for e in evaluations if "cycle_reference" in e]
    future = [e for e in evaluations if "change" in e]
    Path(work.files["figure"]).parent.mkdir(parents=True, exist_ok=True)
    if present:
        shown = [p for e in present for p in products if _same_product(e, p)]
        figure = _present(present, shown, Field(reference), Field(simulation))
    else:
        figure = _change(future)
    figures.save(figure, work.files["figure"])
    figures.save(_change(future) if future else figure, work.files["change"])


def _same_product(evaluation: Store, product: Store) -> bool:
    mine, theirs = (s.attributes["finescale_facets"] for s in (evaluation, product))
    return all(mine[f] == theirs[f] for f in FACETS)


def _show(variable_id: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """Return values in the units people read: pr in mm/day, temperatures in degC."""
    wide = values.astype(np.float64)
    if variable_id == "pr":
        return wide * 86400.0
    return wide - 273.15 if variable_id != "dtr" else wide


def _shown_units(variable_id: str) -> str:
    return "mm day-1" if variable_id == "pr" else ("K" if variable_id == "dtr" else "degC")


def _present(
    present: list[Store], products: list[Store], reference: Field, simulation: Field
) -> Any:
    """Return the story of one variable in the present climate."""
    facets = present[0].attributes["finescale_facets"]
    variable_id = facets["variable_id"]
    name, units = VARIABLES[variable_id].long_name, _shown_units(variable_id)
    colours: Any = "pr" if variable_id == "pr" else "sequential"
    grid, coarse = read_grid(present[0]), simulation.grid

    def panel(title: str, values: NDArray[Any], g: Any = grid) -> Panel:
        mean = _show(variable_id, values.mean(axis=0))
        return Panel(title, mean, g.lat, g.lon, units, name, colours)

    truth = present[0].read("cycle_reference")
    panels = [
        panel("GCM", simulation.read(), coarse),
        *(panel(_method(e), e.read("cycle")) for e in present),
        panel(f"Reference {facets['reference']}", truth),
    ]
    area = grid.cell_area().reshape(-1)

    def cycle(label: str, values: NDArray[Any], role: Any) -> Curve:
        mean = scores.area_mean(values.reshape(12, -1).astype(np.float64), area)
        return Curve(label, _show(variable_id, mean), role)

    cycles = [
        cycle(facets["reference"], truth, "reference"),
        cycle(RAW, present[0].read("cycle_raw"), "raw"),
        *(cycle(_method(e), e.read("cycle"), "product") for e in present if _method(e) != RAW),
    ]
    tile = _fullest_tile(reference, ~np.isnan(truth[0]))
    samples = [
        Curve(facets["reference"], _sample(variable_id, reference, tile), "reference"),
        *(Curve(_method(p), _sample(variable_id, Field(p), tile), "product") for p in products),
    ]
    return figures.coarse_to_fine(
        panels,
        cycles=cycles,
        samples=samples,
        title=f"{name}: {facets['source_id']} {facets['experiment_id']}, {facets['period']}",
        note=f"domain {facets['domain']}, trained on {facets['train']}; "
        "quantiles: all days of the block with most land",
    )


def _method(opened: Store) -> str:
    facets = opened.attributes["finescale_facets"]
    return RAW if facets["method"] == "interpolate" else str(facets["method"])


def _fullest_tile(reference: Field, land: NDArray[np.bool_]) -> Any:
    candidates = tiles((1, *reference.grid.shape), reference.chunks)
    return max(candidates, key=lambda t: int(land[t.lat, t.lon].sum()))


def _sample(variable_id: str, daily: Field, tile: Any) -> NDArray[np.float64]:
    values = daily.series(slice(None), tile.lat, tile.lon).reshape(-1)
    return _show(variable_id, values[~np.isnan(values)])


def _change(future: list[Store]) -> Any:
    """Return maps of the change in the raw GCM and in each product, one column per scenario."""
    facets = future[0].attributes["finescale_facets"]
    variable = VARIABLES[facets["variable_id"]]
    relative = variable.kind == "*"
    units = "%" if relative else "K"
    name = f"Change of {variable.long_name}"
    grid = read_grid(future[0])

    def panel(opened: Store, array: str, title: str) -> Panel:
        monthly = opened.read(array).reshape(12, -1).astype(np.float64)
        mean = scores.area_mean(monthly.T, np.ones(12)).reshape(grid.shape)
        values = mean * (100.0 if relative else 1.0)
        colours: Any = "pr_diverging" if relative else "diverging"
        return Panel(title, values, grid.lat, grid.lon, units, name, colours)

    panels = []
    for opened in future:
        f = opened.attributes["finescale_facets"]
        label = f"{f['experiment_id']} {f['period']}"
        panels += [
            panel(opened, "change_raw", f"{RAW}\n{label}"),
            panel(opened, "change", f"{_method(opened)}\n{label}"),
        ]
    return figures.map_panels(
        panels,
        title=f"{facets['variable_id']}: change in {facets['source_id']}",
        note=f"{variable.long_name}; from historical; mean over the calendar months",
        columns=2,
    )


# --------------------------------------------------------------------------------------
# The page


def write_summary(
    work: Job, *, index: str, table: str, verdicts: str, pictures: list[str], name: str
) -> None:
    """Write summary.html: what was made, how good it is, and what it looks like; self-contained."""
    products = json.loads(Path(index).read_text())["products"]
    with open(table) as file:
        rows = [_numbers(row) for row in csv.DictReader(file)]
    with open(verdicts) as file:
        gates = list(csv.DictReader(file))
    shut = [row for row in gates if row["passed"] == "False"]
    parts = [
        f"<h1>{html.escape(name)}</h1>",
        f"<p>{len(products)} committed products; {len(gates)} gates, {len(shut)} shut.</p>",
    ]
    for heading, needed in (("Scores", "n_days"), ("Change from historical", "change")):
        chosen = [row for row in rows if row.get(needed, "") != ""]
        parts += [f"<h2>{heading}</h2>"] * bool(chosen) + _tables(chosen, needed)
    parts.append("<h2>Figures</h2>")
    parts += [_embedded(picture) for picture in pictures]
    parts.append("<h2>Products</h2><ul>")
    parts += [f"<li><code>{html.escape(p['path'])}</code></li>" for p in products]
    parts.append("</ul>")
    _write(
        work.files["summary"],
        PAGE.format(title=html.escape(name), body="\n".join(parts), css=figures.TABLE_CSS),
    )


def _tables(rows: list[dict[str, Any]], needed: str) -> list[str]:
    """Return a table for each variable, in units people read, without what all rows share."""
    parts = []
    told = [f for f in FACETS[1:] if f == "method" or len({row[f] for row in rows}) > 1]
    values = ["change"] if needed == "change" else list(scores.SCORES)
    for variable_id in dict.fromkeys(row["variable_id"] for row in rows):
        units, factor = ("mm day-1", 86400.0) if variable_id == "pr" else ("K", 1.0)
        shown = [
            {
                k: v * factor if k in scores.SCORES and _has_units(k) else v
                for k, v in row.items()
                if v != "" and (k in told or k in values)
            }
            for row in rows
            if row["variable_id"] == variable_id
        ]
        title = f"{variable_id}: {VARIABLES[variable_id].long_name} [{units}]"
        if needed == "change" and VARIABLES[variable_id].kind == "*":
            title = f"{variable_id}: {VARIABLES[variable_id].long_name} [1, relative]"
        table = figures.score_table_html(shown, scores=scores.SCORES)
        parts.append(f'<h3>{html.escape(title)}</h3><div class="wide">{table}</div>')
    return parts


def _has_units(score: str) -> bool:
    return scores.SCORES[score].units == "same"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Finescale: {title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1d2730; margin: 2rem auto;
  max-width: 76rem; padding: 0 1rem; }}
img {{ max-width: 100%; height: auto; }} .wide {{ overflow-x: auto; }} code {{ font-size: 12px; }}
{css}
</style></head><body>
{body}
</body></html>
"""


def _embedded(picture: str) -> str:
    import base64

    data = base64.b64encode(Path(picture).read_bytes()).decode()
    return (
        f'<p><img alt="{html.escape(Path(picture).stem)}" src="data:image/png;base64,{data}"></p>'
    )


def _numbers(row: Mapping[str, str]) -> dict[str, Any]:
    def number(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    return {k: v if k in FACETS else number(v) for k, v in row.items()}


def _absolute(url: str) -> str:
    return url if "://" in url else os.path.abspath(url)


def _write(path: str, text: str) -> None:
    part = Path(path).with_name(f".{Path(path).name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(text)
    os.replace(part, path)


def _write_csv(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
    )
    _write(path, text.getvalue())
