"""Words for people: tables, sizes, ages, parameters by their dotted names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Rows = Iterable[Sequence[str]]
LONG = 4
"""A longer list, such as a grid's, is shown by its ends and its length."""


def table(rows: Rows) -> list[str]:
    """Return rows as lines with their columns aligned."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def size(count: float) -> str:
    """Return a number of bytes in three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def age(instant: str) -> str:
    """Return how long ago an ISO date with time was."""
    return duration((datetime.now(UTC) - datetime.fromisoformat(instant)).total_seconds())


def duration(seconds: float) -> str:
    """Return a length of time in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of everything in a tree that is not itself a mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def shown(value: Any) -> str:
    """Return a value as JSON; a long list by its ends and length."""
    if isinstance(value, list) and len(value) > LONG:
        return f"{value[0]} .. {value[-1]} ({len(value)})"
    return json.dumps(value, ensure_ascii=False)


def flat(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (dotted name, value as it is shown) of everything in a tree."""
    return ((name, shown(value)) for name, value in leaves(values))
