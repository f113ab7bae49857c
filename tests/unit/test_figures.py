"""Figures: the same bytes each time, units on every scale, colours that can be told apart."""

import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from finescale import figures
from finescale.figures import Curve, Panel

RNG = np.random.default_rng(0)
LAT, LON = np.arange(36.25, 44, 0.5), np.arange(-9.75, 4, 0.5)
LAND = RNG.random((LAT.size, LON.size)) > 0.3
FIELD = np.where(LAND, RNG.normal(285, 5, LAND.shape), np.nan)
TAS = Panel("fine", FIELD, LAT, LON, "K", "air temperature")
RAIN = Panel("rain", np.abs(FIELD - 285), LAT, LON, "kg m-2 s-1", "precipitation", cmap="pr")
COARSE = Panel(
    "coarse", RNG.normal(285, 5, (6, 9)), np.arange(35, 48, 2.5), np.arange(-15, 6, 2.5), "K"
)


def curves(n: int) -> list[Curve]:
    """Return a reference, the raw model and two products."""
    sample = RNG.normal(285, 5, (4, n))
    return [
        Curve("observed", sample[0], "reference"),
        Curve("model", sample[1] - 2, "raw"),
        Curve("bcsd", sample[2]),
        Curve("maca", sample[3]),
    ]


def story() -> Figure:
    return figures.coarse_to_fine(
        [COARSE, TAS, TAS], cycles=curves(12), samples=curves(500), title="From coarse to fine"
    )


def maps_of(fig: Figure) -> list[Axes]:
    """Return the axes that hold cells and are no colour bar."""
    return [
        ax
        for ax in fig.axes
        if ax.get_label() != "<colorbar>" and any(isinstance(c, QuadMesh) for c in ax.collections)
    ]


def bars_of(fig: Figure) -> list[str]:
    return [ax.get_xlabel() for ax in fig.axes if ax.get_label() == "<colorbar>"]


def limits_of(ax: Axes) -> tuple[Any, Any]:
    (mesh,) = (artist for artist in ax.collections if isinstance(artist, QuadMesh))
    return mesh.norm.vmin, mesh.norm.vmax


def test_two_drawings_of_one_figure_have_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        figures.save(
            figures.map_panels([TAS, RAIN], title="Maps"), tmp_path / f"{name}.png", dpi=60
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"matplotlib" not in (tmp_path / "a.png").read_bytes().lower()


def test_saving_replaces_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "map.png"
    target.write_bytes(b"old")
    figures.save(figures.map_panels([TAS], title="Map"), target, dpi=60)
    assert target.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(self: Figure, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    target = tmp_path / "map.png"
    target.write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", torn)
    with pytest.raises(OSError, match="disk full"):
        figures.save(Figure(), target)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"map.png": b"old"}


def test_drawing_leaves_the_settings_of_the_caller_alone() -> None:
    with matplotlib.rc_context({"font.size": 3.0, "text.color": "red"}):
        before = dict(matplotlib.rcParams)
        figures.map_panels([TAS], title="Map")
        assert dict(matplotlib.rcParams) == before


def test_panels_read_alike_share_one_bar_that_names_quantity_and_units() -> None:
    alike = figures.map_panels([TAS, TAS, TAS, TAS], title="Four", columns=2)
    assert len(maps_of(alike)) == 4
    assert bars_of(alike) == ["air temperature [K]"]
    mixed = figures.map_panels([TAS, TAS, RAIN, TAS], title="Mixed", columns=2)
    assert bars_of(mixed) == [
        "air temperature [K]",
        "precipitation [kg m⁻² s⁻¹]",
        "air temperature [K]",
    ]


@settings(max_examples=8, deadline=None)
@given(
    offsets=st.lists(st.floats(-50, 50), min_size=2, max_size=4),
    cmap=st.sampled_from(["sequential", "pr", "diverging", "pr_diverging"]),
)
def test_one_bar_means_one_scale(offsets: list[float], cmap: figures.ColourMap) -> None:
    panels = [replace(TAS, values=FIELD - 285 + o, cmap=cmap) for o in offsets]
    fig = figures.map_panels(panels, title="Panels")
    ((low, high),) = {limits_of(ax) for ax in maps_of(fig)}
    assert low < high
    if cmap.endswith("diverging"):
        bulk = np.nanpercentile([panel.values for panel in panels], [1, 99])
        assert -low == high == max(abs(bulk))
    if cmap == "pr":
        assert low <= 0


def test_given_limits_are_kept() -> None:
    fig = figures.map_panels([replace(TAS, vmin=270.0, vmax=300.0)], title="Map")
    assert limits_of(maps_of(fig)[0]) == (270, 300)


def test_a_map_without_any_value_can_be_drawn(tmp_path: Path) -> None:
    empty = replace(TAS, values=np.full(LAND.shape, np.nan))
    figures.save(figures.map_panels([empty], title="Empty"), tmp_path / "empty.png", dpi=50)


def test_a_kilometre_is_as_long_east_as_north() -> None:
    ax = maps_of(figures.map_panels([TAS], title="Map"))[0]
    assert ax.get_aspect() == pytest.approx(1 / math.cos(math.radians(40)))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_coast_has_one_segment_between_each_dry_and_wet_neighbour(seed: int) -> None:
    land = np.random.default_rng(seed).random((4, 5)) > 0.5
    panel = Panel("", np.where(land, 1.0, np.nan), np.arange(4.0), np.arange(5.0), "1")
    drawn = {tuple(np.ravel(segment)) for segment in figures._coast(panel)}
    wanted = set()
    for i, j in np.ndindex(land.shape):
        if j < 4 and land[i, j] != land[i, j + 1]:
            wanted.add((j + 0.5, i - 0.5, j + 0.5, i + 0.5))
        if i < 3 and land[i, j] != land[i + 1, j]:
            wanted.add((j - 0.5, i + 0.5, j + 0.5, i + 0.5))
    assert drawn == wanted


def test_every_map_of_the_story_shows_the_same_region_scale_and_coast(tmp_path: Path) -> None:
    fig = story()
    maps = maps_of(fig)
    assert [ax.get_title(loc="left") for ax in maps] == ["coarse", "fine", "fine"]
    assert [ax.get_title(loc="right") for ax in maps] == ["2.5°", "0.5°", "0.5°"]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in maps}) == 1
    assert len({limits_of(ax) for ax in maps}) == 1
    assert bars_of(fig) == ["air temperature [K]"]
    figures.save(fig, tmp_path / "story.png", dpi=50)


def test_curves_carry_units_and_one_colour_each() -> None:
    for fig in (
        figures.annual_cycle(curves(12), long_name="precipitation", units="mm day-1", title="Year"),
        figures.quantile_quantile(
            curves(400), long_name="precipitation", units="mm day-1", title="Quantiles"
        ),
    ):
        (ax,) = fig.axes
        assert ax.get_ylabel() == "precipitation [mm day⁻¹]"
        named = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
        assert len({line.get_color() for line in named}) == len(named) == 4


def test_a_sample_like_the_reference_lies_on_the_diagonal() -> None:
    truth = curves(400)[0]
    shifted = Curve("warm", truth.values + 2.0)
    fig = figures.quantile_quantile(
        [truth, Curve("same", truth.values), shifted], long_name="tas", units="K", title="QQ"
    )
    lines = {line.get_label(): line for line in fig.axes[0].lines}
    x, y = (np.asarray(v) for v in lines["same"].get_data())
    np.testing.assert_allclose(y, x)
    x, y = (np.asarray(v) for v in lines["warm"].get_data())
    np.testing.assert_allclose(y, x + 2)


def lightness(colours: NDArray[Any]) -> NDArray[np.float64]:
    """CIE 1976 L* of sRGB."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


@pytest.mark.parametrize("name", ["sequential", "pr", "diverging", "pr_diverging"])
def test_a_map_can_be_read_by_lightness_alone(name: figures.ColourMap) -> None:
    steps = lightness(figures.colour_map(name)(np.linspace(0, 1, 65))[:, :3])
    rising = np.diff(steps) if name != "pr" else -np.diff(steps)
    if name.endswith("diverging"):  # light in the middle, dark at both ends
        rising[32:] *= -1
    assert (rising > 0).all()
    assert np.ptp(steps) > 60


def test_curves_can_be_told_apart_in_grey_or_by_line() -> None:
    shades = lightness(np.array([to_rgb(c) for c in figures.PRODUCT_COLOURS]))
    assert np.diff(np.sort(shades)).min() > 3


ROWS: list[dict[str, Any]] = [
    {"method": "bcsd", "bias": 0.1, "rmse": 1.5, "std_ratio": 0.9, "n_days": 7305.0, "gates": True},
    {"method": "raw <gcm>", "bias": -2.0, "rmse": math.nan, "std_ratio": 1.05, "gates": False},
]


class Table(HTMLParser):
    """Cells of the rows of a table, and the tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_the_html_table_is_well_formed_and_says_what_the_rows_say() -> None:
    text = figures.score_table_html(ROWS)
    table = Table()
    table.feed(text)
    assert not table.open
    assert table.rows == [
        ["method", "bias", "rmse †", "std ratio", "n days", "gates"],
        ["bcsd", "0.100", "1.50", "0.900", "7305", "pass"],
        ["raw <gcm>", "−2.00", "–", "1.05", "–", "FAIL"],
    ]
    assert "free-running" in text and "http" not in text


def test_the_markdown_table_has_the_same_cells_and_a_column_each() -> None:
    lines = figures.score_table_markdown([*ROWS, {"method": "a|b"}]).splitlines()
    assert lines[0] == "| method | bias | rmse † | std_ratio | n_days | gates |"
    assert lines[2] == "| bcsd | 0.100 | 1.50 | 0.900 | 7305 | pass |"
    assert lines[3] == "| raw <gcm> | −2.00 | – | 1.05 | – | FAIL |"
    assert lines[4] == "| a\\|b | – | – | – | – | – |"


def test_a_table_without_paired_scores_has_no_footnote() -> None:
    rows = [{"method": "bcsd", "bias": 0.1}]
    assert "†" not in figures.score_table_markdown(rows) + figures.score_table_html(rows)


def test_the_heatmap_marks_the_method_nearest_to_the_ideal(tmp_path: Path) -> None:
    fig = figures.heatmap_scores(ROWS, units="K", title="Scores")
    (ax,) = fig.axes
    heads = [tick.get_text() for tick in ax.get_xticklabels()]
    assert heads == ["bias\n[K]", "rmse †\n[K]", "std\nratio\n[1]"]  # n_days has no ideal
    cells = {text.get_text(): text.get_fontweight() for text in ax.texts}
    # 1.05 is nearer to the ideal ratio 1 than 0.9, though the smaller bias is the best bias
    assert [name for name, weight in cells.items() if weight == "bold"] == ["0.100", "1.50", "1.05"]
    figures.save(fig, tmp_path / "heat.png", dpi=50)
