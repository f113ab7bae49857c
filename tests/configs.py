"""A configuration that is right, and a way to change it at some places."""

from __future__ import annotations

import copy
from typing import Any

WORLD = {"n_lat": 12, "n_lon": 16, "ratio": 4}
GONE = object()
"""Takes a key away."""
VARIABLES = ["tasmax", "tasmin", "pr"]
RIGHT = {
    "name": "small",
    "stores": "stores",
    "domains": {"island": {}},
    "periods": {"train": [2000, 2014]},
    "references": {"OBS": {"synthetic": WORLD, "variables": VARIABLES}},
    "simulations": [
        {
            "source_id": "FS-A",
            "experiment_id": ["historical", "ssp245"],
            "synthetic": WORLD,
            "variables": VARIABLES,
        }
    ],
    "products": [
        {
            "domain": "island",
            "reference": "OBS",
            "train": "train",
            "source_id": "FS-A",
            "variable_id": "tasmax",
            "method": "bcsd",
        }
    ],
}


BRIEF = {"n_lat": 12, "n_lon": 16, "ratio": 4, "first_year": 2012, "last_year": 2015}
PAIR = ["tasmax", "tasmin"]
METHODS_WORLD: dict[str, Any] = {
    "name": "small",
    "domains": {"island": {}},
    "periods": {"train": [2012, 2014]},
    "references": {"OBS": {"synthetic": BRIEF, "variables": PAIR}},
    "simulations": [
        {
            "source_id": "FS-B",
            "experiment_id": ["historical", "ssp245"],
            "synthetic": BRIEF,
            "variables": PAIR,
        }
    ],
    "products": [
        {
            "domain": "island",
            "reference": "OBS",
            "train": "train",
            "source_id": "FS-B",
            "variable_id": PAIR,
            "method": ["bcsd", "qplad", "maca", "gard"],
        },
        {
            "domain": "island",
            "reference": "OBS",
            "train": "train",
            "source_id": "FS-B",
            "experiment_id": "historical",
            "variable_id": "tasmax",
            "method": "interpolate",
        },
    ],
    "aggregate": {"frequencies": ["mon"]},
}
"""Every method on a world of two years and few cells."""


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the right configuration with the values at some places changed."""
    mapping: Any = copy.deepcopy(RIGHT)
    for place, value in changes.items():
        *parents, last = (int(p) if p.isdecimal() else p for p in place.split("/"))
        section = mapping
        for part in parents:
            section = section.setdefault(part, {}) if isinstance(section, dict) else section[part]
        if value is GONE:
            del section[last]
        else:
            section[last] = value
    return mapping
