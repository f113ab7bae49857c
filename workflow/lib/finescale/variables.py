"""The variables Finescale knows: CMIP6 names, CF attributes, physics of each.

Table of facts, imported by the plan: standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["+", "*"]

MM_PER_DAY = 1.0 / 86400.0
"""One mm/day of liquid water [kg m-2 s-1]."""


@dataclass(frozen=True)
class Variable:
    """CF attributes of a variable, the kind of its changes and the range of sane values."""

    kind: Kind
    units: str
    standard_name: str
    long_name: str
    cell_methods: str
    valid_range: tuple[float, float]


VARIABLES: dict[str, Variable] = {
    "tas": Variable(
        "+", "K", "air_temperature", "Daily Mean Near-Surface Air Temperature",
        "time: mean", (150.0, 400.0),
    ),
    "tasmax": Variable(
        "+", "K", "air_temperature", "Daily Maximum Near-Surface Air Temperature",
        "time: maximum", (150.0, 400.0),
    ),
    "tasmin": Variable(
        "+", "K", "air_temperature", "Daily Minimum Near-Surface Air Temperature",
        "time: minimum", (150.0, 400.0),
    ),
    "pr": Variable(
        "*", "kg m-2 s-1", "precipitation_flux", "Precipitation",
        "time: mean", (0.0, 2000.0 * MM_PER_DAY),
    ),
    "dtr": Variable(
        "*", "K", "air_temperature", "Diurnal Temperature Range (tasmax - tasmin)",
        "time: range", (0.0, 100.0),
    ),
}  # fmt: skip
"""By CMIP6 name. `dtr` is derived inside; the others are read."""
