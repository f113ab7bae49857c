"""Maps, curves and tables of scores, for the report and the documentation.

Each function returns a `Figure` (or text) and touches no global state of matplotlib: no pyplot,
no display. `save` writes the same bytes for the same figure. Colours are told apart by readers
with any colour vision: maps run monotonically in lightness, curves use the palette of
Okabe & Ito (2008).
"""

import html
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from finescale.scores import CELL_SCORES, Score

ColourMap = Literal["sequential", "pr", "diverging", "pr_diverging"]
Role = Literal["reference", "raw", "interpolated", "product"]
Row = Mapping[str, Any]

INK, MUTED, RULE, SEA = "#1f2933", "#66717e", "#dde2e7", "#e6e9ec"
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same bytes on every machine
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.titlepad": 5.0,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "auto",
    "savefig.bbox": None,
    "savefig.pad_inches": 0.1,
}

ROLE_COLOUR = {"reference": INK, "raw": "#d55e00", "interpolated": "#e69f00"}
PRODUCT_COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9")
COLOURS: dict[str, tuple[str, ...]] = {
    "sequential": ("#1b1044", "#4b1a72", "#8a2a7c", "#c74660", "#ec7a40", "#fab549", "#fcf0ae"),
    "pr": ("#fbfaf1", "#d3e9d6", "#95cfc4", "#4fa6b8", "#2d78a6", "#244a8b", "#1d2057"),
    "diverging": ("#123a6d", "#3a78b5", "#8fbadb", "#f5f4f1", "#eeb195", "#c65c43", "#701827"),
    "pr_diverging": ("#543005", "#a0692a", "#dcc08a", "#f5f4f1", "#92cdc3", "#2f8b82", "#033f37"),
}
PAIRED_MARK = "†"
PAIRED_NOTE = f"{PAIRED_MARK} compares the same days: says nothing about a free-running model"
ABSENT = "–"

P = ParamSpec("P")


@dataclass(frozen=True, eq=False)
class Panel:
    """One map: `values` (lat, lon) with NaN where there is none, and how to show them.

    `lat` and `lon` are cell centres, ascending. Limits left open follow from the panels that
    share units, long name and colours.
    """

    title: str
    values: NDArray[np.floating]
    lat: NDArray[np.floating]
    lon: NDArray[np.floating]
    units: str
    long_name: str = ""
    cmap: ColourMap = "sequential"
    vmin: float | None = None
    vmax: float | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """One line: `values` (12,) for an annual cycle, a sample (n,) for quantiles.

    `band` (2, 12) is a lower and an upper bound to shade, such as the range of years.
    """

    label: str
    values: NDArray[np.floating]
    role: Role = "product"
    band: NDArray[np.floating] | None = None


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def pretty_units(units: str) -> str:
    """Return CF units as a reader writes them: `kg m-2 s-1` as kg m⁻² s⁻¹, `degC` as °C."""
    superscript = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    raised = re.sub(r"(?<=[A-Za-z])-?\d+", lambda m: m[0].translate(superscript), units)
    return re.sub(r"\bdegC\b", "°C", raised)


def _axis_label(long_name: str, units: str) -> str:
    return f"{long_name} [{pretty_units(units)}]".strip()


def colour_map(name: ColourMap) -> LinearSegmentedColormap:
    """Return a colour map of `COLOURS`; NaN is left transparent, for the sea below to show."""
    return LinearSegmentedColormap.from_list(name, COLOURS[name], N=256)


def _heading(fig: Figure, title: str, note: str = "") -> None:
    fig.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    if note:
        fig.supxlabel(note, x=0.01, ha="left", fontsize=8, color=MUTED)


def _edges(centres: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cell edges half way between centres; the outer cells are symmetric."""
    centre = np.asarray(centres, np.float64)
    if centre.size == 1:
        return centre[0] + np.array([-0.5, 0.5])
    middle = (centre[1:] + centre[:-1]) / 2
    return np.concatenate([[2 * centre[0] - middle[0]], middle, [2 * centre[-1] - middle[-1]]])


def _extent(panel: Panel) -> tuple[float, float, float, float]:
    lat, lon = _edges(panel.lat), _edges(panel.lon)
    return float(lon[0]), float(lon[-1]), float(lat[0]), float(lat[-1])


def _height_per_width(panel: Panel) -> float:
    """Height of a map of width 1; a degree of longitude is cos(lat) of one of latitude."""
    west, east, south, north = _extent(panel)
    return (north - south) / ((east - west) * math.cos(math.radians((north + south) / 2)))


def _coast(panel: Panel) -> list[NDArray[np.float64]]:
    """Segments (2, 2) of lon, lat along the edges between cells with and without a value."""
    lat, lon, valid = _edges(panel.lat), _edges(panel.lon), np.isfinite(panel.values)
    row, col = np.nonzero(valid[:, 1:] != valid[:, :-1])
    upright = [lon[col + 1], lat[row], lon[col + 1], lat[row + 1]]
    row, col = np.nonzero(valid[1:] != valid[:-1])
    level = [lon[col], lat[row + 1], lon[col + 1], lat[row + 1]]
    segments = np.concatenate([np.stack(upright, axis=1), np.stack(level, axis=1)])
    return list(segments.reshape(-1, 2, 2))


def _key(panel: Panel) -> tuple[Any, ...]:
    """Return what panels must have in common to be read with one colour bar."""
    return panel.cmap, panel.units, panel.long_name, panel.vmin, panel.vmax


def _with_limits(panels: Sequence[Panel]) -> list[Panel]:
    """Panels with both limits: where open, the central 98 % of all panels of the same key."""
    closed = []
    for panel in panels:
        peers = [np.ravel(other.values) for other in panels if _key(other) == _key(panel)]
        finite = np.concatenate(peers)
        finite = finite[np.isfinite(finite)]
        low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
        if panel.cmap.endswith("diverging"):
            high = max(abs(low), abs(high))
            low = -high
        elif panel.cmap == "pr":
            low = 0.0
        vmin = float(low) if panel.vmin is None else panel.vmin
        vmax = float(high) if panel.vmax is None else panel.vmax
        if not vmax > vmin:
            vmin, vmax = vmin - 0.5, vmin + 0.5
        closed.append(replace(panel, vmin=vmin, vmax=vmax))
    return closed


def _degrees(positive: str, negative: str) -> FuncFormatter:
    def label(value: float, _: int | None = None) -> str:
        return f"{abs(value):g}°{'' if value == 0 else positive if value > 0 else negative}"

    return FuncFormatter(label)


def _draw_map(
    ax: Axes, panel: Panel, *, frame: Panel, coast: Sequence[NDArray[np.float64]]
) -> QuadMesh:
    """Draw `panel` cut to the extent of `frame`."""
    ax.set_facecolor(SEA)
    mesh = ax.pcolormesh(
        _edges(panel.lon),
        _edges(panel.lat),
        np.ma.masked_invalid(panel.values),
        cmap=colour_map(panel.cmap),
        norm=Normalize(panel.vmin, panel.vmax),
    )
    for colour, width in (("white", 1.6), (INK, 0.6)):  # to be seen on dark and on light cells
        ax.add_collection(
            LineCollection(coast, colors=colour, linewidths=width, capstyle="projecting")
        )
    west, east, south, north = _extent(frame)
    ax.set(xlim=(west, east), ylim=(south, north))
    ax.set_aspect(1 / math.cos(math.radians((south + north) / 2)))
    for axis, signs in ((ax.xaxis, "EW"), (ax.yaxis, "NS")):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 3, 5, 6, 10]))
        axis.set_major_formatter(_degrees(*signs))
    ax.set_title(panel.title)
    return mesh


def _draw_bar(
    fig: Figure | SubFigure, mesh: QuadMesh, axes: Sequence[Axes], panels: Sequence[Panel]
) -> None:
    """One horizontal colour bar under `axes`, pointed where values go beyond its ends."""
    finite = np.concatenate([panel.values[np.isfinite(panel.values)] for panel in panels])
    below = bool(finite.size and finite.min() < mesh.norm.vmin)
    above = bool(finite.size and finite.max() > mesh.norm.vmax)
    ends = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
    bar = fig.colorbar(
        mesh,
        ax=list(axes),
        orientation="horizontal",
        extend=ends,
        shrink=0.9 if len(axes) == 1 else 0.55,
        aspect=22 if len(axes) == 1 else 38,
        pad=0.03,
    )
    bar.outline.set_visible(False)
    bar.ax.xaxis.set_major_locator(MaxNLocator(6))
    bar.set_label(_axis_label(panels[0].long_name, panels[0].units))


def _runs(panels: Sequence[Panel], columns: int) -> list[range]:
    """Neighbours in one row that share a colour bar; all panels, if all share it."""
    if len({_key(panel) for panel in panels}) == 1:
        return [range(len(panels))]
    starts = [
        i for i in range(len(panels)) if i % columns == 0 or _key(panels[i]) != _key(panels[i - 1])
    ]
    return [range(a, b) for a, b in zip(starts, [*starts[1:], len(panels)], strict=True)]


def _draw_maps(
    fig: Figure | SubFigure,
    panels: Sequence[Panel],
    *,
    columns: int,
    coast: Sequence[NDArray[np.float64]],
    frame: Panel | None = None,
) -> list[Axes]:
    rows = math.ceil(len(panels) / columns)
    grid = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in grid[len(panels) :]:
        ax.remove()
    axes: list[Axes] = list(grid[: len(panels)])
    meshes = [
        _draw_map(ax, panel, frame=frame or panel, coast=coast)
        for ax, panel in zip(axes, panels, strict=True)
    ]
    for run in _runs(panels, columns):
        _draw_bar(fig, meshes[run[0]], [axes[i] for i in run], [panels[i] for i in run])
    return axes


@_styled
def map_panels(panels: Sequence[Panel], *, title: str, note: str = "", columns: int = 3) -> Figure:
    """Return a grid of maps; panels read with the same colours share a colour bar.

    Cells without a value are light grey, and a line follows their edge. That line, taken from
    the first panel that has one, is drawn on every panel, so that coarse fields can be placed.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    masked = [panel for panel in panels if not np.isfinite(panel.values).all()]
    width = 5.0 if columns == 1 else 3.3
    height = (width - 0.45) * max(_height_per_width(panel) for panel in panels) + 0.45
    bars = len({run[0] // columns for run in _runs(panels, columns)})
    fig = Figure(figsize=(width * columns, height * rows + 0.65 * bars + 0.5), layout="constrained")
    _draw_maps(
        fig, _with_limits(panels), columns=columns, coast=_coast(masked[0]) if masked else []
    )
    _heading(fig, title, note)
    return fig


def _colours(curves: Sequence[Curve]) -> list[str]:
    """One colour per curve: by role, products in turn."""
    products = iter(PRODUCT_COLOURS * len(curves))
    return [ROLE_COLOUR.get(curve.role) or next(products) for curve in curves]


def _bare(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)


def _line_style(curve: Curve) -> dict[str, Any]:
    """Return the look of a curve: the truth wide and dark underneath, the raw model dashed."""
    if curve.role == "reference":
        return {"linewidth": 3.2, "alpha": 0.85, "zorder": 2}
    return {"linewidth": 1.7, "linestyle": "-" if curve.role == "product" else "--", "zorder": 3}


def _draw_cycle(ax: Axes, curves: Sequence[Curve], *, long_name: str, units: str) -> None:
    months = np.arange(1, 13)
    for curve, colour in zip(curves, _colours(curves), strict=True):
        if curve.band is not None:
            ax.fill_between(months, *curve.band, color=colour, alpha=0.13, linewidth=0)
        ax.plot(months, curve.values, color=colour, label=curve.label, **_line_style(curve))
    ax.set_xticks(months, list("JFMAMJJASOND"))
    ax.set_xlim(0.8, 12.2)
    ax.set_ylabel(_axis_label(long_name, units))
    ax.legend(fontsize=8, handlelength=2.2)
    _bare(ax)


QUANTILES = np.array([0.1, 0.5, 1, 2, *range(5, 100, 5), 98, 99, 99.5, 99.9])  # [%]
MARKED = np.isin(QUANTILES, [1, 25, 50, 75, 99])


def _draw_quantiles(ax: Axes, curves: Sequence[Curve], *, long_name: str, units: str) -> None:
    (truth,) = (curve for curve in curves if curve.role == "reference")
    others = [curve for curve in curves if curve is not truth]
    x = np.nanpercentile(truth.values, QUANTILES)
    ends = [float(x[0]), float(x[-1])]
    ax.plot(ends, ends, color=INK, linewidth=1, zorder=2, label="1:1")
    for curve, colour in zip(others, _colours(others), strict=True):
        y = np.nanpercentile(curve.values, QUANTILES)
        ax.plot(x, y, color=colour, label=curve.label, **_line_style(curve))
        ax.plot(x[MARKED], y[MARKED], "o", color=colour, markersize=4.5, zorder=4)
    ax.set_xlabel(_axis_label(f"{truth.label}: {long_name}", units))
    ax.set_ylabel(_axis_label(long_name, units))
    ax.legend(fontsize=8, handlelength=2.2)
    _bare(ax)


@_styled
def annual_cycle(
    curves: Sequence[Curve], *, long_name: str, units: str, title: str, note: str = ""
) -> Figure:
    """Return the monthly means of reference, raw model and products through the year."""
    fig = Figure(figsize=(5.4, 3.8), layout="constrained")
    _draw_cycle(fig.subplots(), curves, long_name=long_name, units=units)
    _heading(fig, title, note)
    return fig


@_styled
def quantile_quantile(
    curves: Sequence[Curve], *, long_name: str, units: str, title: str, note: str = ""
) -> Figure:
    """Return the quantiles (0.1 to 99.9 %) of each sample against those of the reference.

    Exactly one of `curves` has the role "reference"; dots mark 1, 25, 50, 75 and 99 %.
    """
    fig = Figure(figsize=(4.8, 4.6), layout="constrained")
    ax = fig.subplots()
    _draw_quantiles(ax, curves, long_name=long_name, units=units)
    ax.set_aspect("equal", adjustable="datalim")
    _heading(fig, title, note)
    return fig


@_styled
def coarse_to_fine(
    panels: Sequence[Panel],
    *,
    cycles: Sequence[Curve],
    samples: Sequence[Curve],
    title: str,
    note: str = "",
) -> Figure:
    """Return the story of one downscaling: maps of one field above, its statistics below.

    Parameters
    ----------
    panels
        The same field as the GCM sees it, interpolated, downscaled and, if known, observed.
        All are cut to the domain of the last and share its colours and coast.
    cycles, samples
        Annual cycles, and daily samples for the quantiles, as in `annual_cycle` and
        `quantile_quantile`; their units are those of the panels.
    """
    last = panels[-1]
    alike = [
        replace(p, cmap=last.cmap, units=last.units, long_name=last.long_name,
                vmin=last.vmin, vmax=last.vmax)
        for p in panels
    ]  # fmt: skip
    width = 10.5
    top = (width / len(panels) - 0.35) * _height_per_width(last) + 1.2
    fig = Figure(figsize=(width, top + 3.9), layout="constrained")
    halves: Any = fig.subfigures(2, 1, height_ratios=[top, 3.3], hspace=0.02)
    maps, curves = halves
    axes = _draw_maps(
        maps, _with_limits(alike), columns=len(panels), coast=_coast(last), frame=last
    )
    for ax, panel in zip(axes, panels, strict=True):
        ax.tick_params(labelleft=ax is axes[0])
        step = float(np.median(np.diff(panel.lat)))
        ax.set_title(f"{step:.3g}°", loc="right", color=MUTED, fontsize=8)
    left, right = curves.subplots(1, 2, width_ratios=[1.5, 1])
    _draw_cycle(left, cycles, long_name=last.long_name, units=last.units)
    left.set_title("Annual cycle")
    _draw_quantiles(right, samples, long_name=last.long_name, units=last.units)
    right.set_title("Quantiles of days")
    _heading(fig, title, note)
    return fig


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: object) -> str:
    """Return a table cell: numbers to 3 digits, verdicts as words."""
    if _is_absent(value):
        return ABSENT
    if isinstance(value, bool | np.bool_):
        return "pass" if value else "FAIL"
    if isinstance(value, float | np.floating):
        size = abs(float(value))
        digits = ".1e" if 0 < size < 1e-3 else "#.3g" if size < 100 else ".1f"
        return f"{float(value):{digits if size < 1e3 else '.0f'}}".replace("-", "−")
    return str(value)


def _mark(name: str, scores: Mapping[str, Score]) -> str:
    return f" {PAIRED_MARK}" if name in scores and scores[name].needs_pairs else ""


@_styled
def heatmap_scores(
    rows: Sequence[Row],
    *,
    units: str,
    title: str,
    label: str = "method",
    scores: Mapping[str, Score] = CELL_SCORES,
    note: str = "",
) -> Figure:
    """Return methods x scores of one variable: the darker, the further from the ideal.

    Each row maps `label` to a name and scores to numbers. Shades compare methods within one
    score; the best value of each is bold. Scores without an ideal value are left out.
    """
    shown = [
        score
        for name, score in scores.items()
        if score.ideal is not None and any(not _is_absent(row.get(name)) for row in rows)
    ]
    values = np.array([[row.get(s.name, np.nan) for s in shown] for row in rows], np.float64)
    miss = np.ma.masked_invalid(np.abs(values - [s.ideal for s in shown]))
    worst = np.ma.filled(miss.max(axis=0), 0.0)
    shade = np.ma.masked_invalid(miss / np.where(worst > 0, worst, 1.0))
    fig = Figure(figsize=(1.6 + 1.0 * len(shown), 1.5 + 0.42 * len(rows)), layout="constrained")
    ax = fig.subplots()
    ax.set_facecolor(SEA)
    # past three quarters the map is too dark to tell shades apart
    ax.pcolormesh(
        shade, cmap=colour_map("pr"), norm=Normalize(0, 1 / 0.75), edgecolors="white", linewidth=2
    )
    for row, col in np.ndindex(values.shape):
        best = bool(miss[row, col] == miss[:, col].min()) and not np.ma.is_masked(miss[row, col])
        dark = not np.ma.is_masked(shade[row, col]) and shade[row, col] > 0.62
        ax.text(
            col + 0.5,
            row + 0.5,
            _text(float(values[row, col])),
            ha="center",
            va="center",
            color="white" if dark else INK,
            fontweight="bold" if best else "normal",
        )
    heads = [
        f"{s.name.replace('_', chr(10))}{_mark(s.name, scores)}\n[{unit}]"
        for s in shown
        for unit in [pretty_units(s.units_of(units))]
    ]
    ax.set_xticks(np.arange(len(shown)) + 0.5, heads)
    ax.set_yticks(np.arange(len(rows)) + 0.5, [str(row[label]) for row in rows])
    ax.tick_params(length=0, labeltop=True, labelbottom=False, labelcolor=INK)
    ax.tick_params(axis="y", labelsize=9)
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)
    paired = any(s.needs_pairs for s in shown)
    _heading(fig, title, "\n".join(filter(None, [note, PAIRED_NOTE if paired else ""])))
    return fig


def _columns(rows: Sequence[Row]) -> list[str]:
    """Return the keys of all rows, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def score_table_markdown(rows: Sequence[Row], *, scores: Mapping[str, Score] = CELL_SCORES) -> str:
    """Return the rows as a Markdown table: one column per key, absent values as a dash."""
    names = _columns(rows)
    lines = [[f"{name}{_mark(name, scores)}" for name in names]]
    lines.append(["---:" if name in scores else "---" for name in names])
    lines += [[_text(row.get(name)).replace("|", "\\|") for name in names] for row in rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    paired = any(_mark(name, scores) for name in names)
    return f"{table}\n{PAIRED_NOTE}\n" if paired else table


TABLE_CSS = f"""
.scores {{ border-collapse: collapse; font: 14px/1.4 system-ui, sans-serif; color: {INK};
  font-variant-numeric: tabular-nums; }}
.scores th, .scores td {{ padding: .35em .8em; text-align: left;
  border-bottom: 1px solid {RULE}; }}
.scores th {{ border-bottom: 2px solid {MUTED}; vertical-align: bottom; font-weight: 600; }}
.scores .n {{ text-align: right; }}
.scores .fail {{ color: #a8290f; font-weight: 700; }}
.scores + p {{ font: 12px/1.4 system-ui, sans-serif; color: {MUTED}; }}
"""


def score_table_html(rows: Sequence[Row], *, scores: Mapping[str, Score] = CELL_SCORES) -> str:
    """Return the rows as a self-contained HTML fragment; score names explain themselves on hover.

    One column per key; numbers to three digits, True and False as "pass" and "FAIL".
    """
    names = _columns(rows)

    def head(name: str) -> str:
        hint = f' title="{html.escape(scores[name].long_name)}" class="n"' if name in scores else ""
        return f"<th{hint}>{html.escape(name.replace('_', ' '))}{_mark(name, scores)}</th>"

    def cell(value: object) -> str:
        failed = isinstance(value, bool | np.bool_) and not value
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        sort = "fail" if failed else "n" if number or value is None else ""
        attribute = f' class="{sort}"' if sort else ""
        return f"<td{attribute}>{html.escape(_text(value))}</td>"

    body = "\n".join(f"<tr>{''.join(cell(row.get(name)) for name in names)}</tr>" for row in rows)
    note = f"\n<p>{PAIRED_NOTE}</p>" if any(_mark(name, scores) for name in names) else ""
    return (
        f"<style>{TABLE_CSS}</style>\n"
        f'<table class="scores">\n<thead><tr>{"".join(map(head, names))}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>{note}\n"
    )


def save(fig: Figure, path: str | os.PathLike[str], *, dpi: int = 150) -> None:
    """Write the figure as PNG: whole or not at all, and the same bytes whenever it is written."""
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with matplotlib.rc_context(STYLE):
            fig.savefig(part, format="png", dpi=dpi, metadata={"Software": None})
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
