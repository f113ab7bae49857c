"""Kinds of damage to a store, on disk or behind a URL: each a function of its url and a key."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numcodecs
import numpy as np
from numpy.typing import NDArray

from finescale import store
from finescale.storage import Objects

Damage = Callable[[str, str], None]
Change = Callable[[NDArray[Any]], None]


def missing(url: str, key: str) -> None:
    Objects(url).remove([key])


def truncated(url: str, key: str, keep: int = 20) -> None:
    Objects(url).put(key, Objects(url).get(key)[:keep])


def emptied(url: str, key: str) -> None:
    truncated(url, key, 0)


def bit_flipped(url: str, key: str, position: int = 170) -> None:
    """Turn a bit, counted from the lowest one of the first byte."""
    content = bytearray(Objects(url).get(key))
    content[position // 8] ^= 1 << position % 8
    Objects(url).put(key, bytes(content))


def zeroed(url: str, key: str) -> None:
    """Leave the size and no byte, as a file system may after a power cut."""
    Objects(url).put(key, bytes(len(Objects(url).get(key))))


def garbled(url: str, key: str) -> None:
    """Leave header and size, with noise behind them."""
    content = Objects(url).get(key)
    noise = np.random.default_rng(0).bytes(len(content) - 16)
    Objects(url).put(key, content[:16] + noise)


def prolonged(url: str, key: str) -> None:
    Objects(url).put(key, Objects(url).get(key) + b"\0")


def replaced(url: str, key: str, *, by: str, of: str | None = None) -> None:
    """Put another chunk in a chunk's place, of another store perhaps."""
    Objects(url).put(key, Objects(of or url).get(by))


def swapped(url: str, key: str, other: str) -> None:
    first, second = (Objects(url).get(k) for k in (key, other))
    Objects(url).put(key, second)
    Objects(url).put(other, first)


def rewritten(url: str, key: str, change: Change) -> None:
    """Change values of a chunk and write it as a healthy one is written."""
    array = json.loads(Objects(url).get(f"{key.rpartition('/')[0]}/.zarray"))
    codec = numcodecs.get_codec(array["compressor"])
    values = np.frombuffer(codec.decode(Objects(url).get(key)), array["dtype"])
    values = values.reshape(array["chunks"]).copy()
    change(values)
    Objects(url).put(key, codec.encode(values))


def without_values(url: str, key: str) -> None:
    """Let a chunk hold nothing but NaN, what readers make of a chunk that is lost."""
    rewritten(url, key, lambda values: values.fill(np.nan))


def one_nan(url: str, key: str) -> None:
    rewritten(url, key, lambda values: values.put(0, np.nan))


def out_of_range(url: str, key: str) -> None:
    rewritten(url, key, lambda values: values.put(0, 1e9))


def other_values(url: str, key: str) -> None:
    rewritten(url, key, lambda values: values.put(0, values.flat[1]))


def added(url: str, key: str) -> None:
    Objects(url).put(key, b"left behind")


def edited(url: str, key: str, **changes: Any) -> None:
    """Set members of a JSON object."""
    content = json.loads(Objects(url).get(key))
    Objects(url).put(key, json.dumps({**content, **(changes or {"note": "by hand"})}).encode())


def uncommitted(url: str, key: str = store.SENTINEL) -> None:
    missing(url, key)
