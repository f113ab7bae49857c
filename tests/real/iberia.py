"""The Iberian examples, run by their rules, beside the raw observations."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FINESCALE_DATA", ROOT.parent / "shared" / "data"))

Open = Callable[..., xr.Dataset]

SECONDS = 86400.0
N_LAND = 289
TRAINED, SCORED = slice("1991", "2000"), slice("2001", "2010")
WET = 1.0 / SECONDS * (1 - 1e-6)  # packed observations hold 1 mm/day exactly
SET_A = "A_iberia_yearround_1991-2010/zarr/obs_day_E-OBS-v16_0.5deg_1991-2010.zarr"
SET_B = "B_iberia_djf_CNRM-CM5_hist_rcp85/zarr/CMIP5.CNRM-CERFACS.CNRM-CM5.{}.r1i1p1.day.gn.zarr"


def run_example(name: str, folder: Path) -> None:
    """Run `config/examples/<name>.yaml` in a folder, or skip the test if there are no data."""
    if not (DATA / "iberia").is_dir():
        pytest.skip(f"no real data at {DATA / 'iberia'}; set FINESCALE_DATA")
    config = folder / f"{name}.yaml"
    config.write_text((ROOT / "config/examples" / config.name).read_text())
    command = ["snakemake", "--snakefile", ROOT / "Snakefile", "--configfile", config]
    environment = {**os.environ, "FINESCALE_DATA": str(DATA)}
    environment["SNAKEMAKE_PROFILE"] = str(ROOT / "profiles/local")
    run = subprocess.run(
        [*map(str, command), "--directory", str(folder)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]


def products(results: Path) -> Open:
    """Return a function that opens the one committed daily product with the facets it is given."""
    listed = json.loads((results / "index.json").read_text())["products"]

    def find(**facets: str) -> xr.Dataset:
        wanted = {"frequency": "day", "experiment_id": "historical", **facets}
        (found,) = [p for p in listed if all(p[k] == v for k, v in wanted.items())]
        return xr.open_zarr(found["path"], consolidated=True, chunks=None)

    return find


def observed(name: str, years: slice = SCORED) -> xr.DataArray:
    """Return some years of E-OBS v16 in K or mm/day, (time, lat, lon)."""
    ds = xr.open_zarr(DATA / "iberia" / SET_A, consolidated=True, chunks=None)
    values = ds[name].transpose("time", "lat", "lon").sel(time=years).load()
    return values if name == "pr" else values + 273.15


def scored(ds: xr.Dataset, name: str, years: slice = SCORED) -> xr.DataArray:
    """Return some years of a product in K or mm/day, on the stamps of the observations."""
    values = ds[name].sel(time=years).load()
    values = values.assign_coords(time=values.time.dt.floor("D"))
    return values * SECONDS if name == "pr" else values


def weights(values: xr.DataArray) -> xr.DataArray:
    """Return the relative area of the cells of each latitude."""
    return np.cos(np.deg2rad(values.lat))


def pooled_rmse(made: xr.DataArray, truth: xr.DataArray) -> float:
    """Return the RMSE over all cells and days, cells weighted by area."""
    square = (made - truth.assign_coords(lat=made.lat, lon=made.lon)) ** 2
    return float(np.sqrt(square.weighted(weights(square)).mean()))
