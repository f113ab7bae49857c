"""The variables Finescale knows: CMIP6 names, CF attributes, physics of each.

Table of facts, imported by the plan: standard library only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["+", "*"]

MM_PER_DAY = 1.0 / 86400.0
"""One mm/day of liquid water [kg m-2 s-1]."""


@dataclass(frozen=True)
class Variable:
    """CF attributes of a variable, the physics of it.

    `kind` of its changes; range of sane values; `trace`, of kind "*": what counts as nothing;
    `limits` that no product may pass.
    """

    kind: Kind
    units: str
    standard_name: str
    long_name: str
    cell_methods: str
    valid_range: tuple[float, float]
    trace: float = 0.0
    limits: tuple[float, float] = (-math.inf, math.inf)

    @property
    def legal_range(self) -> tuple[float, float]:
        """Return the least and greatest value of a product."""
        low, high = zip(self.valid_range, self.limits, strict=True)
        return max(low), min(high)


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
        "time: mean", (0.0, 2000.0 * MM_PER_DAY), 0.05 * MM_PER_DAY, (0.0, math.inf),
    ),
    "dtr": Variable(
        "*", "K", "air_temperature", "Diurnal Temperature Range (tasmax - tasmin)",
        "time: range", (0.0, 100.0), 0.1, (0.0, math.inf),
    ),
    "hurs": Variable(
        "*", "%", "relative_humidity", "Near-Surface Relative Humidity",
        "time: mean", (-10.0, 150.0), 1.0, (0.0, 100.0),
    ),
    "huss": Variable(
        "*", "1", "specific_humidity", "Near-Surface Specific Humidity",
        "time: mean", (0.0, 0.1), 1e-5, (0.0, math.inf),
    ),
    "sfcWind": Variable(
        "*", "m s-1", "wind_speed", "Daily-Mean Near-Surface Wind Speed",
        "time: mean", (0.0, 100.0), 0.1, (0.0, math.inf),
    ),
    "rsds": Variable(
        "*", "W m-2", "surface_downwelling_shortwave_flux_in_air",
        "Surface Downwelling Shortwave Radiation",
        "time: mean", (-1.0, 700.0), 1.0, (0.0, math.inf),
    ),
    "psl": Variable(
        "+", "Pa", "air_pressure_at_mean_sea_level", "Sea Level Pressure",
        "time: mean", (85000.0, 110000.0),
    ),
    "uas": Variable(
        "+", "m s-1", "eastward_wind", "Eastward Near-Surface Wind",
        "time: mean", (-100.0, 100.0),
    ),
    "vas": Variable(
        "+", "m s-1", "northward_wind", "Northward Near-Surface Wind",
        "time: mean", (-100.0, 100.0),
    ),
    "ta850": Variable(
        "+", "K", "air_temperature", "Air Temperature at 850 hPa",
        "time: mean", (150.0, 350.0),
    ),
    "hus850": Variable(
        "*", "1", "specific_humidity", "Specific Humidity at 850 hPa",
        "time: mean", (0.0, 0.1), 1e-5, (0.0, math.inf),
    ),
    "zg500": Variable(
        "+", "m", "geopotential_height", "Geopotential Height at 500 hPa",
        "time: mean", (3500.0, 7000.0),
    ),
}  # fmt: skip
"""By CMIP6 name. `dtr` is derived inside; the others are read. Models leave the limits slightly."""
