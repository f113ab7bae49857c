"""Stage `weights`: a matrix as a store, refused for other grids (formulas: test_regrid.py)."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from chain import Chain, grids

from finescale import regrid, weights
from finescale.errors import StoreError
from finescale.grids import Grid

FINE, COARSE = grids()


@pytest.mark.parametrize("method", ["conservative", "bilinear", "nearest"])
def test_a_store_gives_back_the_matrix(method: str, chain: Chain) -> None:
    src, dst = (FINE, COARSE) if method == "conservative" else (COARSE, FINE)
    read = weights.read(chain.weights("pair", src, dst, method), src=src, dst=dst)
    built = regrid.build(src, dst, method)
    for name in ("row", "col", "S"):
        assert np.array_equal(getattr(read, name), getattr(built, name)), name
    assert (read.n_src, read.n_dst, read.method) == (src.shape, dst.shape, method)


def test_the_store_is_the_table_that_esmf_reads(chain: Chain) -> None:
    """Numbers count from 1, and the first dimension of a grid is its longitude."""
    ds = xr.open_zarr(chain.weights("pair", COARSE, FINE, "bilinear").url)
    assert ds.row.min() == 1 and ds.row.max() == FINE.size
    assert ds.col.min() >= 1 and ds.col.max() <= COARSE.size
    assert ds.src_grid_dims.values.tolist() == list(COARSE.shape[::-1])
    assert ds.dst_grid_dims.values.tolist() == list(FINE.shape[::-1])
    assert np.bincount(ds.row.values, ds.S.values)[1:] == pytest.approx(np.ones(FINE.size))


def test_the_store_names_its_grids_and_engine(chain: Chain) -> None:
    attributes = chain.weights("pair", COARSE, FINE, "bilinear").attributes
    assert attributes["src_grid"] == COARSE.digest()
    assert attributes["dst_grid"] == FINE.digest()
    assert attributes["engine"] == "rectilinear"


@pytest.mark.parametrize("side", ["src", "dst"])
def test_a_matrix_of_other_grids_is_refused(side: str, chain: Chain) -> None:
    """Grids of one shape: applied to them the matrix would give numbers, and wrong ones."""
    opened = chain.weights("pair", COARSE, FINE, "bilinear")
    used = {"src": COARSE, "dst": FINE}
    used[side] = Grid.from_centres(used[side].lat + 0.1, used[side].lon)
    with pytest.raises(StoreError, match=f"its {side}_grid is .*delete the store and run again"):
        weights.read(opened, **used)
