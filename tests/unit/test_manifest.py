"""The manifest and the journal: nothing lost, nothing ambiguous, readable without the library."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finescale import identity, manifest
from finescale.errors import StoreError
from finescale.manifest import COLUMNS, Manifest, Row

PAGE = Path(__file__).parents[2] / "docs" / "manifest.md"
values = st.none() | st.floats(allow_nan=False, allow_infinity=False)
rows = st.builds(
    Row,
    key=st.from_regex(r"[a-z]{1,8}/[0-9]{1,3}(\.[0-9]{1,3}){0,3}", fullmatch=True),
    size=st.integers(0, 2**40),
    crc32c=st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
    count=st.integers(0, 2**40),
    n_nan=st.integers(0, 2**40),
    low=values,
    high=values,
    total=values,
)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
manifests = st.builds(
    Manifest,
    identity=digests,
    recipe=st.fixed_dictionaries({"stage": st.text(max_size=8), "version": st.integers(1, 9)}),
    metadata=st.dictionaries(st.text(max_size=8), digests, max_size=3),
    contracts=st.dictionaries(
        st.text(max_size=8),
        st.fixed_dictionaries({"valid_range": st.lists(values, min_size=2, max_size=2)}),
        max_size=3,
    ),
    mask=st.none() | st.fixed_dictionaries({"sha256": digests, "count": st.integers(0, 2**40)}),
    rows=st.lists(rows, max_size=5).map(tuple),
)


@given(manifests)
def test_what_is_written_is_read(made: Manifest) -> None:
    read = manifest.parse(made.text.encode(), where="x.zarr")
    assert read == made
    assert (read.text, read.digest) == (made.text, made.digest)


@given(manifests)
def test_a_manifest_is_json_with_a_chunk_a_line(made: Manifest) -> None:
    read = json.loads(made.text)
    assert read["columns"] == list(COLUMNS)
    assert [dict(zip(COLUMNS, row, strict=True))["key"] for row in read["chunks"]] == [
        row.key for row in made.rows
    ]
    assert made.text.isascii() and made.text.count("\n") == max(len(made.rows), 1) + 2


@given(manifests, rows, st.data())
def test_a_digest_covers_everything(made: Manifest, row: Row, data: st.DataObject) -> None:
    """Whatever differs, the sentinel differs: Snakemake sees nothing else."""
    field = data.draw(st.sampled_from(list(Row.__dataclass_fields__)))
    changed = replace(row, **{field: data.draw(st.just("other") | st.just(0.5))})
    assert replace(made, rows=(row,)).digest != replace(made, rows=(changed,)).digest
    assert replace(made, rows=(*made.rows, row)).digest != made.digest
    for name in ("identity", "recipe", "metadata", "contracts", "mask"):
        assert replace(made, **{name: {"another": name}}).digest != made.digest


@given(st.text(max_size=20), st.lists(rows, max_size=5))
def test_a_record_is_read_as_it_was_written(block: str, made: list[Row]) -> None:
    content = manifest.record(block, made)
    assert manifest.read_record(content) == (block, made)


@given(st.text(max_size=20), st.lists(rows, max_size=5), st.data())
def test_a_record_that_was_cut_is_none(block: str, made: list[Row], data: st.DataObject) -> None:
    content = manifest.record(block, made)
    assert manifest.read_record(content[: data.draw(st.integers(0, len(content) - 1))]) is None


@pytest.mark.parametrize("content", [b"[]", b"null", b'{"block": "a"}', b'{"chunks": []}', b"\xff"])
def test_what_is_no_record_is_none(content: bytes) -> None:
    assert manifest.read_record(content) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no manifest can be read there"),
        (b"[]", "no manifest can be read there"),
        (b'{"format": 2}', "no manifest can be read there"),
        (b'{"format": 1, "chunks": []}', "a manifest of format 1, this version reads format 2"),
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(StoreError, match=f"^x.zarr: {message}"):
        manifest.parse(content, where="x.zarr")


@given(st.dictionaries(st.text(max_size=5), st.integers()), digests)
def test_the_digest_of_attributes_leaves_out_the_digest_of_the_manifest(
    attributes: dict[str, Any], digest: str
) -> None:
    """It is put in afterwards."""
    plain = manifest.attributes_digest(attributes)
    assert manifest.attributes_digest({**attributes, manifest.DIGEST: digest}) == plain
    assert manifest.attributes_digest({**attributes, "more": 1}) != plain


def test_the_page_describes_every_key_and_column() -> None:
    described = set(re.findall(r"`([a-z0-9_]+)`", PAGE.read_text()))
    made = Manifest("", {}, {}, {}, None, ())
    assert {*json.loads(made.text), *COLUMNS} <= described
    assert f"The manifest, format {manifest.FORMAT}" in PAGE.read_text()


def test_a_manifest_never_changes() -> None:
    """Another text for the same work would make every store another one."""
    row = Row("tas/0.0.0", 10, "0a0b0c0d", 4, 1, 271.15, 300.0, 856.5)
    contract = {"tas": {"valid_range": [150.0, None], "nan": "mask"}}
    made = Manifest("ab" * 32, {"stage": "bcsd"}, {".zgroup": "cd"}, contract, None, (row,))
    assert made.text == (
        '{"columns":["key","bytes","crc32c","count","nan","min","max","sum"],'
        '"contracts":{"tas":{"nan":"mask","valid_range":[150.0,null]}},"format":2,'
        f'"identity":"{"ab" * 32}","mask":null,"metadata":{{".zgroup":"cd"}},'
        '"recipe":{"stage":"bcsd"},"chunks":[\n'
        '["tas/0.0.0",10,"0a0b0c0d",4,1,271.15,300.0,856.5]\n]}\n'
    )
    assert made.digest == identity.hashlib.sha256(made.text.encode()).hexdigest()
