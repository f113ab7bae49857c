"""Why a store is fresh: the digest of what determines its bytes.

An identity covers the stage word, its version, its parameters and facets, and the
identities of its inputs; nothing operational (memory, threads, paths, time, git).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

STAGE_VERSION: dict[str, int] = {
    "reference": 2,
    "simulation": 2,
    "weights": 2,
    "coarsen": 2,
    "climatology": 2,
    "adjust": 2,
    "bcsd": 2,
    "qplad": 1,
    "analogs": 1,
    "maca": 1,
    "gard": 1,
    "interpolate": 2,
    "aggregate": 2,
    "evaluate": 2,
    "report": 1,
}
"""Raise a stage's number when its results change; see CHANGELOG.md, "Results"."""


def canonical(document: Any) -> str:
    """Return the one JSON text of a document: sorted keys, no spaces, ASCII, finite numbers only.

    Floats print as Python's shortest repr, which is the same on every platform; integers that
    came as floats stay floats, so a parameter is spelled as its schema's type.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(document: Any) -> str:
    """Return the sha256 (64 hex digits) of a document's canonical JSON."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def recipe(
    stage: str, facets: dict[str, str], parameters: dict[str, Any], inputs: dict[str, str]
) -> dict[str, Any]:
    """Return the document whose digest is a store's identity."""
    return {
        "stage": stage,
        "version": STAGE_VERSION[stage],
        "facets": facets,
        "parameters": parameters,
        "inputs": inputs,
    }
