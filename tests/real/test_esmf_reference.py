"""Our weights against fields that real ESMF 9 regridded.

The folder is `$FINESCALE_REFERENCE`, by default `shared/reference` beside the checkout.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from finescale import regrid
from finescale.grids import Grid

BESIDE = Path(__file__).parents[3] / "shared" / "reference"
FOLDER = Path(os.environ.get("FINESCALE_REFERENCE", BESIDE))
METHODS = {"conservative": "conservative", "bilinear": "bilinear", "nearest_s2d": "nearest"}
FILES = {method: sorted(FOLDER.glob(f"esmf_*_{theirs}.nc")) for theirs, method in METHODS.items()}
FIELDS = ("smooth", "wavy", "ramp")
TOLERANCE = {"bilinear": 5e-4, "conservative": 2e-3}  # [of the source's max - min]

pytestmark = pytest.mark.skipif(
    not any(FILES.values()),
    reason=f"no ESMF results in {FOLDER}; set FINESCALE_REFERENCE to their folder",
)

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Reference:
    """One file: the two grids, our weights for them and ESMF's results, all flat."""

    def __init__(self, path: Path) -> None:
        with xr.open_dataset(path) as ds:
            self.ds = ds.load()
        self.src, self.dst = self._grid("src_"), self._grid("")
        self.method = METHODS[self.ds.attrs["method"]]
        self.weights = regrid.build(self.src, self.dst, self.method)
        # ESMF joins corners by great circles, we by parallels: they part towards the poles.
        compared = np.full(self.dst.shape, not self.dst.periodic)
        compared[2:-2] = True
        self.compared = compared.ravel()

    def _grid(self, prefix: str) -> Grid:
        edges = [self.ds[f"{prefix}{axis}_b"].values for axis in ("lat", "lon")]
        bnds = [np.stack([edge[:-1], edge[1:]], axis=1) for edge in edges]
        return Grid.from_centres(
            self.ds[f"{prefix}lat"].values, self.ds[f"{prefix}lon"].values, *bnds
        )

    def source(self, name: str) -> Floats:
        return self.ds[f"src_{name}"].values.astype(np.float64).ravel()

    def theirs(self, name: str) -> Floats:
        return self.ds[name].values.astype(np.float64).ravel()

    def ours(self, field: Floats, least: float = 0.5) -> Floats:
        found = regrid.apply(self.weights, field[None], min_valid_fraction=least)[0]
        return found.astype(np.float64)


reference = cache(Reference)


def each_file(*methods: str) -> pytest.MarkDecorator:
    paths = [path for method in methods for path in FILES[method]]
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def nearest_sources(ref: Reference, row: int) -> tuple[NDArray[np.int64], Mask]:
    """Return candidate sources for a row of targets, and which are nearest, (nx, n_candidates)."""
    # Every target has a centre within 2 degrees, so none beyond 4 degrees of latitude can win.
    rows = np.flatnonzero(np.abs(ref.src.lat - ref.dst.lat[row]) < 4)
    nx = ref.src.lon.size
    candidates = np.add.outer(rows * nx, np.arange(nx)).ravel()
    lat_s, lon_s = np.deg2rad(ref.src.lat[candidates // nx]), ref.src.lon[candidates % nx]
    lat, turn = np.deg2rad(ref.dst.lat[row]), np.deg2rad(ref.dst.lon[:, None] - lon_s)
    cosine = np.sin(lat) * np.sin(lat_s) + np.cos(lat) * np.cos(lat_s) * np.cos(turn)
    return candidates, cosine >= cosine.max(axis=1, keepdims=True) - 1e-12


def test_every_method_has_results_of_the_same_pairs() -> None:
    pairs = [{path.stem.split("_to_")[0] for path in paths} for paths in FILES.values()]
    assert pairs[0] == pairs[1] == pairs[2]


@each_file("bilinear", "conservative")
def test_fields_agree_with_esmf(path: Path) -> None:
    ref = reference(path)
    for name in FIELDS:
        source = ref.source(name)
        error = np.abs(ref.ours(source) - ref.theirs(name))[ref.compared]
        assert error.max() <= TOLERANCE[ref.method] * np.ptp(source), name


@each_file("nearest")
def test_nearest_takes_the_cell_that_esmf_takes(path: Path) -> None:
    ref = reference(path)
    source = ref.source("smooth")
    shape = ref.dst.shape
    theirs, ours = (x.reshape(shape) for x in (ref.theirs("smooth"), ref.ours(source)))
    taken = ref.weights.col.reshape(shape)
    for row in range(shape[0]):
        candidates, near = nearest_sources(ref, row)
        # Among equally near centres ESMF takes any, we the lowest.
        assert (near & (source[candidates] == theirs[row, :, None])).any(axis=1).all()
        np.testing.assert_array_equal(taken[row], candidates[np.argmax(near, axis=1)])
        single = near.sum(axis=1) == 1
        np.testing.assert_array_equal(ours[row, single], theirs[row, single])


@each_file("bilinear", "conservative")
def test_holes_agree_with_esmf(path: Path) -> None:
    ref = reference(path)
    source = ref.source("holes")
    valid = ref.ours(np.isfinite(source).astype(np.float64), least=0.0)
    ours, theirs = ref.ours(source), ref.theirs("holes")
    clear = ref.compared & (np.abs(valid - 0.5) > 0.01)
    assert 0 < np.isnan(source).sum() < source.size
    np.testing.assert_array_equal(np.isnan(ours[clear]), np.isnan(theirs[clear]))
    both = clear & np.isfinite(ours)
    # Dividing by the valid fraction magnifies the difference of the weights just as much.
    error = np.abs(ours - theirs)[both] * valid[both]
    assert error.max() <= TOLERANCE[ref.method] * (np.nanmax(source) - np.nanmin(source))


@each_file(*METHODS.values())
def test_rows_sum_to_one_as_those_of_esmf(path: Path) -> None:
    ref = reference(path)
    sums = ref.weights.row_sums()
    np.testing.assert_allclose(sums, 1.0, rtol=1e-12)
    np.testing.assert_allclose(sums[ref.compared], ref.theirs("row_sum")[ref.compared], atol=1e-6)


@each_file(*METHODS.values())
def test_constants_are_kept(path: Path) -> None:
    ref = reference(path)
    np.testing.assert_allclose(ref.ours(np.full(ref.src.size, 287.5)), 287.5, rtol=1e-12)


@each_file("conservative")
def test_area_mean_is_conserved(path: Path) -> None:
    ref = reference(path)
    # Every target is fully covered; of the source counts what lies under the target grid.
    under = regrid.conservative(ref.dst, ref.src).row_sums() * ref.src.cell_area().ravel()
    area = ref.dst.cell_area().ravel()
    for name in FIELDS:
        source = ref.source(name)
        change = np.average(ref.ours(source), weights=area) - np.average(source, weights=under)
        assert abs(change) <= 1e-6 * np.ptp(source), name


@each_file(*METHODS.values())
def test_weights_survive_an_esmf_file(path: Path, tmp_path: Path) -> None:
    ref = reference(path)
    regrid.write_esmf(ref.weights).to_netcdf(tmp_path / "weights.nc")
    with xr.open_dataset(tmp_path / "weights.nc") as ds:
        assert ds["row"].min() == 1
        assert ds["col"].max() <= ref.src.size
        again = regrid.read_esmf(ds)
    assert (again.n_src, again.n_dst) == (ref.src.shape, ref.dst.shape)
    assert again.method == ref.method
    for name in ("row", "col", "S"):
        np.testing.assert_array_equal(getattr(again, name), getattr(ref.weights, name))
