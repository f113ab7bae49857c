"""Stage `reference`: observations in Finescale's form, on the fine grid, cut to a domain."""

from __future__ import annotations

from typing import Any

from finescale import standardise
from finescale.fields import Field
from finescale.job import Job
from finescale.store import Store


def run(
    work: Job, *, tasmax: Store | None = None, tasmin: Store | None = None, **spec: Any
) -> None:
    """Write a variable of the reference: read from its source, or dtr from tasmax and tasmin.

    Parameters
    ----------
    spec
        As `standardise.run` takes it; nothing for dtr.
    """
    if tasmax is not None and tasmin is not None:
        standardise.derive_dtr(
            work, tasmax=Field(tasmax), tasmin=Field(tasmin), layout="tiles", inverted="missing"
        )
    else:
        standardise.run(work, layout="tiles", **spec)
