"""Stage `bcsd`: every oracle of the method, in all calendars, whatever the blocks do."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from chain import Chain, Mapper, grids, in_order

from finescale import bcsd, chunking
from finescale.engines import engine
from finescale.fields import Field


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


@pytest.mark.parametrize("oracle", oracles.ORACLES, ids=lambda f: f.__name__)
def test_oracle(oracle: Callable[[Chain], None], chain: Chain) -> None:
    oracle(chain)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "all_leap"])
def test_identity_holds_in_every_calendar(calendar: str, chain: Chain) -> None:
    oracles.a_perfect_model_is_returned_and_disaggregated(chain, calendar)


# --------------------------------------------------------------------------------------
# Whatever runs the blocks


def small_blocks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chunking, "TILE", 8)
    patch.setattr(chunking, "SLAB", 400)
    patch.setattr(chunking, "FULL_TIME_BYTES", 4 * 730 * 4)


def product(folder: Path, *, run: Mapper = in_order, sea: Any = False, **options: Any) -> Field:
    """Return the product of a world of six tiles; its coarse stores have six, too."""
    made = Chain(folder, map=run)
    fine, coarse = grids(n_lat=16, n_lon=24)
    days = oracles.decade("noleap", 1991, 1992)
    truth = np.where(sea, np.nan, oracles.rain(days, fine))
    reference = made.daily("reference", "obs", "pr", days, fine, truth, layout="tiles")
    model = 1.3 * oracles.coarse_means(oracles.rain(days, fine, seed=5))
    hist = made.daily("simulation", "gcm", "pr", days, coarse, model)
    return made.bcsd("pr", reference, hist, train=("1991-01-01", "1992-12-31"), **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".provenance.json"
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Field:
    """Return the product made block after block."""
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch)
        return product(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def undisturbed(whole: Field) -> dict[str, bytes]:
    """Return the files of all its stores."""
    found = contents(Path(whole.store.url).parents[1])
    for stage in ("coarsen/pr", "adjust/pr", "bcsd/pr"):
        assert len([name for name in found if name.startswith(f"{stage}.zarr/pr/0.")]) == 6
    return found


def shuffled(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    """Run the blocks in another order than they were given."""
    order = random.Random(4).sample(range(len(tasks)), len(tasks))
    return [function(tasks[i]) for i in order]


def test_the_order_of_blocks_changes_no_byte(
    undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that keeps something from block to block gives other bytes."""
    small_blocks(monkeypatch)
    product(tmp_path, run=shuffled)
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize(
    ("kind", "threads"), [("threads", 1), ("threads", 2), ("threads", 4), ("cluster", 8)]
)
def test_threads_and_workers_change_no_byte(
    kind: str,
    threads: int,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Codecs that split work by threads, or sums across blocks, give other bytes."""
    small_blocks(monkeypatch)
    with engine(kind, threads=threads, mem_mb=2200, scratch=str(tmp_path)) as run:
        product(tmp_path / "stores", run=run)
    assert contents(tmp_path / "stores") == undisturbed


KILLED = """
import os, signal, sys
from pathlib import Path
import pytest, test_bcsd

def killed(function, tasks):
    for number, task in enumerate(tasks):
        function(task)
        if number == 2 and Path(sys.argv[1], "bcsd").exists():
            os.kill(os.getpid(), signal.SIGKILL)
    return []

test_bcsd.small_blocks(pytest.MonkeyPatch())
test_bcsd.product(Path(sys.argv[1]), run=killed)
"""


def test_a_killed_job_leaves_no_store_and_starts_again(
    undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the middle of the product. What it left must neither be opened nor be kept."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(here), str(here.parent)])},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    store = tmp_path / "bcsd/pr.zarr"
    assert list(store.glob("pr/*"))
    assert not (store / ".zmetadata").exists()
    small_blocks(monkeypatch)
    product(tmp_path)
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize(("tile", "slab"), [(5, 365), (24, 100)])
def test_values_do_not_depend_on_the_tiles(
    tile: int,
    slab: int,
    whole: Field,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interpolation, climatology or coarsening that sees only its tile breaks at the edges."""
    monkeypatch.setattr(chunking, "TILE", tile)
    monkeypatch.setattr(chunking, "SLAB", slab)
    cut = product(tmp_path)
    assert cut.chunks != whole.chunks
    assert np.array_equal(cut.read(), whole.read())


# --------------------------------------------------------------------------------------
# Point values instead of area means

SHARP = {"interpolation": "mean_preserving", "fill": "smooth"}
SEA = np.zeros((16, 24), bool)
SEA[:5, 7:], SEA[9, 3] = True, True


def test_point_values_depend_on_neither_tiles_nor_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They couple all coarse cells: solved for what a tile sees, they would differ at its edge."""
    small_blocks(monkeypatch)
    whole = product(tmp_path / "in order", sea=SEA, **SHARP)
    with engine("threads", threads=3, mem_mb=2200) as run:
        product(tmp_path / "threads", run=run, sea=SEA, **SHARP)
    assert contents(tmp_path / "threads") == contents(tmp_path / "in order")
    monkeypatch.setattr(chunking, "TILE", 5)
    monkeypatch.setattr(chunking, "SLAB", 100)
    cut = product(tmp_path / "cut", sea=SEA, **SHARP)
    assert np.array_equal(cut.read(), whole.read(), equal_nan=True)
    assert np.array_equal(np.isnan(whole.read()[0]), SEA)
    assert float(np.nanmin(whole.read())) == 0.0, "ratios that undershoot are clipped"
    assert whole.store.attributes["interpolation"] == "mean_preserving, holes filled: smooth"


@pytest.mark.parametrize("sharp", [True, False])
def test_the_mean_of_the_product_is_the_adjusted_value(sharp: bool, chain: Chain) -> None:
    """Of whole coarse cells, when asked for; bilinear interpolation alone is off by over 0.3 K."""
    fine, coarse = grids(n_lat=16, n_lon=24)
    days = oracles.decade("noleap", 1991, 1992)
    truth = np.where(SEA, np.nan, oracles.temperature(days, fine))
    reference = chain.daily("reference", "obs", "tas", days, fine, truth, layout="tiles")
    model = oracles.temperature(days, coarse, seed=5)
    hist = chain.daily("simulation", "gcm", "tas", days, coarse, model)
    made = chain.bcsd(
        "tas", reference, hist, train=("1991-01-01", "1992-12-31"), **(SHARP if sharp else {})
    )
    adjusted = Field(chain.made["adjust/tas"]).read()
    error = oracles.coarse_means(made.read().astype(float)) - adjusted
    whole = np.isfinite(error).all(axis=0)
    assert whole.sum() == 13
    worst = np.abs(error[:, whole]).max()
    assert worst < 1e-3 if sharp else worst > 0.3


@pytest.mark.parametrize("options", [{}, SHARP], ids=["published", "sharp"])
def test_a_product_converted_to_another_calendar_has_every_day(
    options: dict[str, Any], chain: Chain
) -> None:
    """Inserted days repeat the day before; nothing is interpolated in time."""
    _, grid = grids()
    days = oracles.decade("360_day", 1991, 1994)
    truth = oracles.temperature(oracles.decade("standard", 1991, 1994), grid)
    standard = oracles.decade("standard", 1991, 1994)
    reference = chain.daily("reference", "obs", "tas", standard, grid, truth, layout="tiles")
    hist = chain.daily("simulation", "gcm", "tas", days, grid, oracles.temperature(days, grid))
    train = ("1991-01-01", "1994-12-31")
    made = chain.bcsd("converted", reference, hist, train=train, calendar="standard", **options)
    assert made.days.calendar == "standard"
    assert len(made.days) == 1461
    assert not np.isnan(made.read()).any()
    assert made.store.attributes["calendar_converted_from"] == "360_day"


def test_the_stage_writes_cf_attributes(tmp_path: Path) -> None:
    made = product(tmp_path)
    attributes = dict(made.store.array("pr").attrs)
    assert attributes["units"] == "kg m-2 s-1"
    assert attributes["standard_name"] == "precipitation_flux"
    assert made.store.attributes["Conventions"] == "CF-1.8"
    assert made.store.attributes["finescale_stage"] == bcsd.__name__.rpartition(".")[2]
