"""Identities: one text per document, and the same digest in every process and version."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finescale import identity

scalars = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


def reordered(document: Any, order: random.Random) -> Any:
    """Return the same document with the keys of every mapping in another order."""
    if isinstance(document, dict):
        keys = order.sample(sorted(document), len(document))
        return {key: reordered(document[key], order) for key in keys}
    if isinstance(document, list):
        return [reordered(item, order) for item in document]
    return document


@given(document=documents, order=st.randoms())
def test_the_order_of_keys_says_nothing(document: Any, order: random.Random) -> None:
    other = reordered(document, order)
    assert identity.canonical(other) == identity.canonical(document)
    assert identity.digest(other) == identity.digest(document)


@given(documents)
def test_nothing_is_lost_in_the_text(document: Any) -> None:
    """Two documents of one text would be two stores of one name."""
    text = identity.canonical(document)
    read = json.loads(text)
    assert read == document
    assert identity.canonical(read) == text
    assert text.isascii()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"half_window": 15}, {"half_window": 16}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": None}, {}),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 0.1}, {"a": 0.1 + 2**-56}),
        ({"a": {"b": 1}}, {"a": {}, "b": 1}),
    ],
)
def test_different_documents_have_different_digests(one: Any, other: Any) -> None:
    assert identity.digest(one) != identity.digest(other)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_json_has_no_identity(number: float) -> None:
    """NaN is not equal to itself: a parameter that is NaN would never be found again."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        identity.canonical({"a": number})


def test_the_digest_of_a_document_never_changes() -> None:
    """Every store that exists would be made again if a new Python wrote a number differently."""
    document = {
        "stage": "adjust",
        "parameters": {"tail": 0.1, "small": 1e-7, "large": 1e22, "whole": 15.0, "n": 15},
        "facets": {"name": "\u00c5lesund", "quote": 'a "b" \\ \n'},
        "inputs": [None, True, [], {}, -0.0],
    }
    assert identity.canonical(document) == (
        '{"facets":{"name":"\\u00c5lesund","quote":"a \\"b\\" \\\\ \\n"},'
        '"inputs":[null,true,[],{},-0.0],'
        '"parameters":{"large":1e+22,"n":15,"small":1e-07,"tail":0.1,"whole":15.0},'
        '"stage":"adjust"}'
    )
    assert identity.digest(document) == (
        "6f1a3d6c0c94408b5b8a6a40117f23f8a948ab84500cfbd58b61cd7b1a5a283e"
    )


RECIPE: dict[str, Any] = {
    "stage": "coarsen",
    "facets": {"variable_id": "pr"},
    "parameters": {"min_valid_fraction": 0.5},
    "inputs": {"reference": "ab" * 32},
}


@pytest.mark.parametrize(
    "change",
    [
        lambda recipe: recipe | {"stage": "climatology"},
        lambda recipe: recipe | {"facets": {"variable_id": "tas"}},
        lambda recipe: recipe | {"parameters": {"min_valid_fraction": 0.6}},
        lambda recipe: recipe | {"inputs": {"reference": "cd" * 32}},
        lambda recipe: recipe | {"inputs": {"series": "ab" * 32}},
    ],
    ids=["stage", "facets", "parameters", "inputs", "roles of inputs"],
)
def test_an_identity_covers(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    before = identity.digest(identity.recipe(**RECIPE))
    assert identity.digest(identity.recipe(**change(RECIPE))) != before


def test_an_identity_covers_the_version_of_its_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a store made by an older formula would be taken for a new one."""
    before = identity.digest(identity.recipe(**RECIPE))
    monkeypatch.setitem(identity.STAGE_VERSION, "adjust", 99)
    assert identity.digest(identity.recipe(**RECIPE)) == before
    monkeypatch.setitem(identity.STAGE_VERSION, "coarsen", 99)
    assert identity.digest(identity.recipe(**RECIPE)) != before
