"""What every product is, whatever its method: the one contract of all methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conformance import oracles, worlds
from conformance.kit import NAMES, World
from oracles import bilinear

from finescale import chunking
from finescale.engines import engine
from finescale.fields import Field
from finescale.methods import METHODS
from finescale.variables import VARIABLES

Worlds = Callable[..., World]
COASTS = [
    *[("360_day", name) for name in NAMES],
    *[(calendar, name) for calendar in ("standard", "noleap") for name in METHODS],
]
on_each_coast = pytest.mark.parametrize(("calendar", "name"), COASTS)
of_each_method = pytest.mark.parametrize("name", NAMES)


def products(made: World, name: str) -> Iterator[tuple[str, str, Field]]:
    """Yield (variable, experiment, product) of all products of a method."""
    for experiment, variable in made.modelled:
        yield variable, experiment, made.product(name, variable, experiment)


@on_each_coast
def test_values_are_exactly_where_the_reference_has_them(
    calendar: str, name: str, world: Worlds
) -> None:
    """Sea stays NaN; land has a value on every day, also where a day of the reference is missing.

    A mask of the first day, or days without reference left out of the training of some cells only,
    give NaN on land; ratios to a missing value give them on single days.
    """
    sea = worlds.sea()
    for variable, experiment, product in products(world("coast", calendar), name):
        missing = np.isnan(product.read())
        where = f"{variable} of {experiment}: {missing.sum()} NaN, {sea.sum()} cells of sea"
        assert np.array_equal(missing, np.broadcast_to(sea, missing.shape)), where


@on_each_coast
def test_cells_beyond_the_model_are_flagged_and_no_others(
    calendar: str, name: str, world: Worlds
) -> None:
    """The model has nothing in its eastern columns. Sea has neither flags nor corrections."""
    sea = worlds.sea()
    for variable, _, product in products(world("coast", calendar), name):
        filled, corrected = (product.store.read(a) for a in ("filled", "n_corrected"))
        assert filled[:, 16:].all(), f"{variable}: cells two columns away are not flagged"
        assert not filled[:, :12].any(), f"{variable}: cells beside the model are flagged"
        assert not filled[sea].any() and not corrected[sea].any()
        assert corrected.min() >= 0 and np.issubdtype(corrected.dtype, np.integer)


@on_each_coast
def test_the_axis_is_the_model_s_and_the_grid_the_reference_s(
    calendar: str, name: str, world: Worlds
) -> None:
    """A 360_day model that is put on another axis has other dates, or NaN on the 31st."""
    made = world("coast", calendar)
    for variable, experiment, product in products(made, name):
        days, _ = made.modelled[experiment, variable]
        assert product.days.calendar == days.calendar == calendar
        assert product.days.isoformat(0) == days.isoformat(0)
        assert np.array_equal(product.days.ordinal, days.ordinal)
        for axis in ("lat", "lon"):
            assert np.array_equal(getattr(product.grid, axis), getattr(made.grids[0], axis))


@of_each_method
def test_the_store_says_what_it_holds(name: str, world: Worlds) -> None:
    """CF: units, names, cell methods, the masks that belong to the values; float32."""
    for variable, experiment, product in products(world("coast", "360_day"), name):
        array, facts = product.store.array(variable), VARIABLES[variable]
        told = dict(array.attrs)
        assert array.dtype == np.float32
        assert [told[key] for key in ("units", "standard_name", "cell_methods")] == [
            facts.units, facts.standard_name, facts.cell_methods,
        ]  # fmt: skip
        assert {"filled", "n_corrected"} <= set(told["ancillary_variables"].split())
        attributes = product.store.attributes
        assert attributes["Conventions"].startswith("CF-")
        assert attributes["experiment_id"] == experiment
        assert {"title", "license", "source_id", "variable_id"} <= set(attributes)


@on_each_coast
def test_no_value_is_physically_impossible(calendar: str, name: str, world: Worlds) -> None:
    oracles.nothing_is_impossible(world("coast", calendar), name)


@of_each_method
def test_neither_tiles_nor_order_nor_threads_change_a_bit(
    name: str, world: Worlds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums over the cells of a block, or a state that one block leaves to the next, do."""
    whole = world("coast", "360_day").product(name, "pr")
    monkeypatch.setattr(chunking, "TILE", 5)
    monkeypatch.setattr(chunking, "SLAB", 200)
    monkeypatch.setattr(chunking, "FULL_TIME_BYTES", 4 * 360 * 3)
    with engine("threads", threads=3, mem_mb=2200) as run:
        made = worlds.coast(
            tmp_path, "360_day", map=lambda function, tasks: run(function, tasks[::-1])
        )
        cut = made.product(name, "pr")
        assert cut.chunks != whole.chunks
        for array in ("pr", "filled", "n_corrected"):
            same = np.array_equal(cut.store.read(array), whole.store.read(array), equal_nan=True)
            assert same, array


# --------------------------------------------------------------------------------------
# Variables beyond three


@of_each_method
@pytest.mark.parametrize("variable", worlds.OTHERS)
def test_every_variable_works_by_config_alone(variable: str, name: str, world: Worlds) -> None:
    """Signed winds keep their signs, as ratios they do not; amounts stay above 0, all are near."""
    made = world("others")
    product = made.product(name, variable).read()
    observed = made.observed[variable][1]
    assert not np.isnan(product).any()
    low, high = VARIABLES[variable].limits
    assert product.min() >= low
    assert product.max() <= high
    spread = product.std(axis=0) / observed.std(axis=0)
    assert spread.min() > 0.3
    assert spread.max() < 2.5
    if variable in ("uas", "vas"):
        ends = np.quantile(product, [0.05, 0.95], axis=0)
        assert (ends[0] < -1).all() and (ends[1] > 1).all()
        shares = [(v < 0).mean() for v in (product, observed)]
        assert abs(shares[0] - shares[1]) < 0.05


@of_each_method
@pytest.mark.parametrize("experiment", ["historical", "ssp245"])
def test_humidity_ends_at_saturation_and_corrections_are_counted(
    experiment: str, name: str, world: Worlds
) -> None:
    """The model is above 100 % on most days, later more so; nothing observed is at a limit.

    Unlimited it stays there; limited without a count, values at the limit have none.
    """
    product = world("damp").product(name, "hurs", experiment)
    values, corrected = product.read(), product.store.read("n_corrected")
    assert values.min() >= 0
    assert values.max() <= 100, f"{(values > 100).mean():.0%} of the values are above 100 %"
    at_limit = ((values == 0) | (values == 100)).sum(axis=0)
    assert (at_limit <= corrected + 2).all(), "values at a limit are not counted"


def test_what_exceeds_a_limit_is_counted_exactly(world: Worlds) -> None:
    """Of plain interpolation the number is known."""
    made = world("damp")
    days, values = made.modelled["ssp245", "hurs"]
    raw = bilinear(values.astype("f4").astype(float), made.grids[1], made.grids[0])
    beyond = (raw > 100 * (1 + 1e-12)).sum(axis=0)
    counted = made.product("interpolate", "hurs", "ssp245").store.read("n_corrected")
    assert beyond.sum() > 0.8 * len(days)
    assert np.abs(counted - beyond).max() <= 1
