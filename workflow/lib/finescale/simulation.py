"""Stage `simulation`: one experiment of a GCM in Finescale's form, cut to what a domain needs."""

from __future__ import annotations

from typing import Any

from finescale import standardise
from finescale.fields import Field
from finescale.job import Job
from finescale.store import Store


def run(
    work: Job, *, tasmax: Store | None = None, tasmin: Store | None = None, **spec: Any
) -> None:
    """Write a variable of a simulation: read from its source, or dtr from tasmax and tasmin.

    Parameters
    ----------
    spec
        As `standardise.run` takes it; nothing for dtr.
    """
    if tasmax is not None and tasmin is not None:
        standardise.derive_dtr(
            work, tasmax=Field(tasmax), tasmin=Field(tasmin), layout="full_time", inverted="floor"
        )
    else:
        standardise.run(work, layout="full_time", **spec)
