"""Stage `weights`: the sparse matrix of a pair of grids, computed once (formulas: `regrid`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from finescale import regrid, store
from finescale.errors import StoreError
from finescale.grids import Grid
from finescale.job import Job


def run(work: Job, *, src: dict[str, Any], dst: dict[str, Any], method: str, engine: str) -> None:
    """Write the weights from `src` to `dst` (grids as lists) in the COO table that ESMF uses.

    Parameters
    ----------
    method
        `conservative`, `bilinear` or `nearest`.
    engine
        `rectilinear` or `esmf`.
    """
    src_grid, dst_grid = Grid.from_json(src), Grid.from_json(dst)
    weights = regrid.build(src_grid, dst_grid, method, engine)
    arrays = {
        name: store.coordinate((dim,), values)
        for name, (dim, values) in regrid.esmf_table(weights).items()
    }
    attributes = {
        **regrid.esmf_attributes(weights),
        "engine": engine,
        "src_grid": src_grid.digest(),
        "dst_grid": dst_grid.digest(),
    }
    work.fill(work.create(arrays, attributes), lambda _: (), [])


def read(opened: store.Store, *, src: Grid, dst: Grid) -> regrid.Weights:
    """Return the weights of a store, checked to belong to these two grids.

    Raises
    ------
    StoreError
        They were made for other grids.
    """
    attributes = opened.attributes
    for name, grid in (("src_grid", src), ("dst_grid", dst)):
        if attributes[name] != grid.digest():
            raise StoreError(
                f"{opened.url}: its {name} is {attributes[name][:12]}, the data have "
                f"{grid.digest()[:12]}; delete the store and run again"
            )
    return regrid.Weights(
        row=opened.read("row") - np.int32(1),
        col=opened.read("col") - np.int32(1),
        S=opened.read("S"),
        n_src=src.shape,
        n_dst=dst.shape,
        method=attributes["finescale_facets"]["regrid"],
    )
