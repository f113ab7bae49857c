"""The manifest of a store and the journal it grows from: JSON, described in docs/manifest.md.

Both are functions of the data alone. What a run adds (host, time, versions) is its provenance.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from finescale import identity
from finescale.errors import StoreError

FORMAT = 2
COLUMNS = ("key", "bytes", "crc32c", "count", "nan", "min", "max", "sum")
DIGEST = "finescale_manifest"
"""The root attribute that holds the digest of the manifest."""


@dataclass(frozen=True)
class Row:
    """One chunk: its object as it was written, and the statistics of its values.

    `low`, `high` and `total` (a float64 sum in C order) are of the values that are not NaN; None
    if there are none, or the values are no numbers.
    """

    key: str
    size: int
    crc32c: str
    count: int
    n_nan: int
    low: float | None
    high: float | None
    total: float | None

    def to_json(self) -> list[Any]:
        """Return the row in the order of `COLUMNS`."""
        return list(vars(self).values())


@dataclass(frozen=True)
class Manifest:
    """What a committed store holds.

    `metadata`: sha256 of each metadata object, of `.zattrs` before this manifest's digest is put
    in. `contracts`: per array the valid range and where NaN may be. `mask`: sha256 of the mask of
    expected values (packed bits) and their number, or None.
    """

    identity: str
    recipe: Mapping[str, Any]
    metadata: Mapping[str, str]
    contracts: Mapping[str, Mapping[str, Any]]
    mask: Mapping[str, Any] | None
    rows: tuple[Row, ...]

    @cached_property
    def text(self) -> str:
        """Return the manifest as it is written: one chunk a line."""
        head = {
            "format": FORMAT,
            "identity": self.identity,
            "recipe": self.recipe,
            "metadata": self.metadata,
            "contracts": self.contracts,
            "mask": self.mask,
            "columns": list(COLUMNS),
        }
        lines = ",\n".join(identity.canonical(row.to_json()) for row in self.rows)
        return f'{identity.canonical(head)[:-1]},"chunks":[\n{lines}\n]}}\n'

    @property
    def digest(self) -> str:
        """Return the sha256 of the text."""
        return sha256(self.text.encode())

    @cached_property
    def by_key(self) -> dict[str, Row]:
        """Return the rows by the key of their chunk."""
        return {row.key: row for row in self.rows}


def parse(content: bytes, *, where: str) -> Manifest:
    """Return the manifest in a file.

    Raises
    ------
    StoreError
        It is no manifest, or of a format that this version does not know.
    """
    try:
        read = json.loads(content)
        form = read["format"]
        if form == FORMAT:
            names = ("identity", "recipe", "metadata", "contracts", "mask")
            rows = tuple(Row(*row) for row in read["chunks"])
            return Manifest(**{name: read[name] for name in names}, rows=rows)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{where}: no manifest can be read there ({error})") from error
    raise StoreError(
        f"{where}: a manifest of format {form}, this version reads format {FORMAT}; "
        "use the version that wrote the store, or delete the store and run again"
    )


def record(block: str, rows: Iterable[Row]) -> bytes:
    """Return the journal's record of a block."""
    return json.dumps({"block": block, "chunks": [row.to_json() for row in rows]}).encode()


def read_record(content: bytes) -> tuple[str, list[Row]] | None:
    """Return the block and the rows of a record; None if it cannot be read."""
    try:
        read = json.loads(content)
        return read["block"], [Row(*row) for row in read["chunks"]]
    except (ValueError, KeyError, TypeError):
        return None


def attributes_digest(attributes: Mapping[str, Any]) -> str:
    """Return the sha256 of root attributes without the manifest's own digest."""
    plain = {key: value for key, value in attributes.items() if key != DIGEST}
    return sha256(identity.canonical(plain).encode())


def sha256(content: bytes) -> str:
    """Return 64 hex digits."""
    return hashlib.sha256(content).hexdigest()
