"""The configuration: what it takes, what it makes of it, how it is described."""

from __future__ import annotations

import copy
import datetime
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest
import yaml
from configs import GONE, RIGHT, changed
from hypothesis import given
from hypothesis import strategies as st

from finescale import config, schema, scores
from finescale.calendars import CALENDARS, season_months
from finescale.config import Config, load
from finescale.errors import ConfigError

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "config" / "config.yaml", *sorted((ROOT / "config" / "examples").glob("*.yaml"))]
DAYS = st.dates(datetime.date(1000, 1, 1), datetime.date(9999, 12, 31))


def small(**changes: Any) -> Config:
    return load(changed({k.replace("__", "/"): v for k, v in changes.items()}))


def sections() -> list[type[pydantic.BaseModel]]:
    return [config.Config, *(c for c in config.Section.__subclasses__() if c is not config.Config)]


# --------------------------------------------------------------------------------------
# What is taken


@given(st.integers(1000, 9999), st.integers(0, 500))
def test_a_period_of_years_is_the_same_as_its_first_and_last_day(first: int, more: int) -> None:
    last = min(first + more, 9999)
    dates = (f"{first}-01-01", f"{last}-12-31")
    periods = [[first, last], list(dates), [datetime.date(first, 1, 1), last]]
    read = {load(changed({"periods": {"train": p}})).periods["train"] for p in periods}
    assert read == {dates}


@given(DAYS, DAYS)
def test_a_period_is_taken_if_and_only_if_it_does_not_end_before_it_starts(
    first: datetime.date, last: datetime.date
) -> None:
    mapping = changed({"periods/train": [first, str(last)]})
    if first <= last:
        assert load(mapping).periods["train"] == (str(first), str(last))
    else:
        with pytest.raises(ConfigError, match="after its end"):
            load(mapping)


def test_the_thirtieth_of_february_is_a_day_of_some_calendar() -> None:
    assert small(periods__train=["2000-02-30", 2014]).periods["train"][0] == "2000-02-30"


@pytest.mark.parametrize("key", ["domain", "source_id", "method", "experiment_id"])
def test_a_single_name_is_a_list_of_one(key: str) -> None:
    name = {"domain": "island", "source_id": "FS-A", "method": "bcsd", "experiment_id": "ssp245"}[
        key
    ]
    one, many = (small(**{f"products__0__{key}": v}) for v in (name, [name]))
    assert one == many
    assert getattr(one.products[0], key) == (name,)


@pytest.mark.parametrize("variables", ["tasmax", ["tasmax"], {"tasmax": None}, {"tasmax": {}}])
def test_variables_are_a_name_a_list_or_a_mapping(variables: Any) -> None:
    taken = small(references__OBS__variables=variables).references["OBS"].variables
    assert taken == {"tasmax": config.SourceVariable()}


def of_a_season(season: str) -> dict[str, Any]:
    """Return a configuration whose reference is a file of one season."""
    file = {"season": season, "synthetic": None, "path": "obs.nc"}
    return changed({f"references/OBS/{key}": value for key, value in file.items()})


@given(st.integers(0, 11), st.integers(2, 11))
def test_a_season_is_what_the_calendar_takes_for_one(start: int, length: int) -> None:
    season = ("JFMAMJJASOND" * 2)[start : start + length]
    assert len(season_months(season)) == length
    assert load(of_a_season(season)).references["OBS"].season == season


@given(st.text("JFMASOND", min_size=1, max_size=11))
def test_what_the_calendar_does_not_take_for_a_season_is_refused(season: str) -> None:
    mapping = of_a_season(season)
    try:
        season_months(season)
    except ConfigError:
        with pytest.raises(ConfigError, match="initials of consecutive months"):
            load(mapping)
    else:
        load(mapping)


def test_a_method_differs_from_the_stage_where_it_says_so_and_only_there() -> None:
    made = small(
        adjust__half_window=10,
        methods={"linear": {"stage": "bcsd", "adjust": {"tails": "linear"}}},
    )
    adjust = made.adjusted("linear", {})
    assert (made.stage("linear"), adjust.tails, adjust.half_window) == ("bcsd", "linear", 10)
    assert made.climatologies("linear") == made.climatology
    assert (made.stage("bcsd"), made.adjusted("bcsd", {})) == ("bcsd", made.adjust)


def test_what_a_stage_fixes_of_adjust_holds_unless_the_method_says_otherwise() -> None:
    made = small(
        adjust={"year_window": 11, "method": "dqm"},
        methods={"mine": {"stage": "qplad", "adjust": {"method": "edcdfm"}}},
    )
    found = made.adjusted("qplad", {"method": "qdm"})
    assert (found.method, found.year_window) == ("qdm", 11)
    assert made.adjusted("mine", {"method": "qdm"}).method == "edcdfm"


def test_a_mean_change_is_kept_on_one_axis_only() -> None:
    """Of edcdfm, which maps each period by itself, training and future have no common factor."""
    kept = small(methods={"mine": {"stage": "qplad", "adjust": {"method": "edcdfm"}}})
    with pytest.raises(ConfigError, match="`keep_mean_change` needs all years mapped on one axis"):
        kept.adjusted("mine", {"method": "qdm", "keep_mean_change": True})


def test_settings_are_what_the_method_says_else_the_block_else_the_section() -> None:
    """So that a method whose name says how it differs differs so in every block."""
    smooth, sharp = {"fill": "smooth"}, {"interpolation": "mean_preserving"}
    published = {"interpolation": "bilinear", "fill": "nearest"}
    plain = small()
    assert plain.settings("bcsd", plain.products[0]).model_dump() == published
    made = small(
        bcsd=smooth,
        products__0__settings={"bcsd": sharp},
        methods={
            "far": {"stage": "bcsd", "settings": smooth},
            "old": {"stage": "bcsd", "settings": published},
        },
    )
    block = made.products[0]
    with_section = block.model_copy(update={"settings": {}})
    assert made.settings("bcsd", with_section).model_dump() == published | smooth
    assert made.settings("bcsd", block).model_dump() == sharp | smooth
    assert made.settings("far", block).model_dump() == sharp | smooth
    assert made.settings("old", block).model_dump() == published


def test_a_combination_is_excluded_by_all_facets_of_one_rule() -> None:
    block = small(
        products__0__exclude=[{"experiment_id": "ssp245", "variable_id": "tasmax"}]
    ).products[0]
    assert block.excluded({"experiment_id": "ssp245", "variable_id": "tasmax", "domain": "island"})
    assert not block.excluded({"experiment_id": "historical", "variable_id": "tasmax"})


def test_what_is_read_is_left_as_it_was_and_cannot_be_changed() -> None:
    mapping = changed({})
    made = load(mapping)
    assert mapping == RIGHT
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        made.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "", "5\n"])
def test_a_file_that_holds_no_mapping_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    kind = type(yaml.safe_load(text)).__name__
    with pytest.raises(ConfigError, match=f"is a mapping .*, found {kind}$"):
        config.parse(path)


def test_a_file_that_is_no_yaml_is_told_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("name: x\nstores: [a, b\n")
    with pytest.raises(ConfigError, match=f"^{path}, line 3: not YAML: expected ',' or ']'"):
        config.parse(path)


def test_a_file_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(tmp_path / "config.yaml")
    assert str(caught.value) == (
        f"{tmp_path}/config.yaml: the configuration cannot be read (No such file or directory); "
        "give its path with --configfile"
    )


def test_lists_that_are_repeated_here_are_those_of_the_library() -> None:
    """They are repeated so that the plan need not import numpy."""
    assert config.Gate.__args__ == scores.GATES
    assert set(config.Calendar.__args__) == set(CALENDARS)


# --------------------------------------------------------------------------------------
# How it is described


def plain(mapping: Any) -> Any:
    """Return a configuration as an editor sees it: dates are text."""
    return json.loads(json.dumps(mapping, default=str))


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    written = json.loads(schema.SCHEMA_PATH.read_text())
    jsonschema.Draft202012Validator.check_schema(written)
    return jsonschema.Draft202012Validator(written)


def test_the_schema_file_is_made_from_the_models() -> None:
    assert schema.SCHEMA_PATH.read_text() == schema.schema_text(), "run `finescale schema --write`"


def test_the_page_of_keys_is_made_from_the_models() -> None:
    assert schema.PAGE_PATH.read_text() == schema.page(), "run `finescale schema --write`"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_configurations_here_are_right_by_models_and_by_schema(
    path: Path, validator: jsonschema.Draft202012Validator
) -> None:
    mapping = config.parse(path)
    assert load(mapping).name
    validator.validate(plain(mapping))


@pytest.mark.parametrize(
    "changes",
    [
        {"references/OBS/variables": {"tasmax": None}},
        {"references/OBS/variables": "tasmax"},
        {"products/0/domain": ["island"]},
        {"periods/train": ["2000-01-01", 2014]},
        {"domains/island/lat": [36, 39.5]},
    ],
)
def test_every_way_of_writing_is_right_by_the_schema_too(
    changes: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    load(changed(changes))
    validator.validate(plain(changed(changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"domainz": {}},
        {"domains/island/latt": [1, 2]},
        {"products": []},
        {"products/0/domain": []},
        {"products/0/train": GONE},
        {"products/0/variable_id": "tasmx"},
        {"adjust/half_window": -1},
        {"adjust/tails": "gumbel"},
        {"bcsd/fill": "linear"},
        {"products/0/settings": {"bcds": {}}},
        {"periods/train": [2000]},
        {"name": "../x"},
    ],
)
def test_what_the_models_refuse_by_its_form_the_schema_refuses(
    changes: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    with pytest.raises(ConfigError):
        load(changed(changes))
    assert not validator.is_valid(plain(changed(changes)))


def test_every_key_says_what_it_is() -> None:
    for section in sections():
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_every_key_has_a_row_on_the_page() -> None:
    tables = dict(
        re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", schema.page(), re.DOTALL | re.MULTILINE)
    )
    for section in sections():
        if section is not config.Dataset:
            keys = re.findall(r"^\| `(\w+)` \|", tables[section.__name__], re.MULTILINE)
            assert keys == [f.alias or name for name, f in section.model_fields.items()]


def test_the_example_on_the_page_for_writers_is_right() -> None:
    text = (ROOT / "config" / "README.md").read_text()
    example = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[0])
    mapping = copy.deepcopy(RIGHT)
    run = mapping["simulations"][0]
    mapping |= {
        **example,
        "domains": {"alps": {}},
        "periods": {"1985-2014": [1985, 2014]},
        "simulations": [{**run, "source_id": ["MY-GCM", "OTHER-GCM"]}],
    }
    assert load(mapping).adjusted("bcsd-linear", {}).tails == "linear"


def test_what_synthetic_data_cannot_have_is_refused() -> None:
    """It would be ignored, and the user would believe in a winter that is not there."""
    with pytest.raises(ConfigError, match=r"`synthetic` data have their own .* remove `season`"):
        load(changed({"references/OBS/season": "DJF"}))
