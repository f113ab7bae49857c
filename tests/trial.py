"""A small workflow in a folder of its own, run by Snakemake as a user would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finescale import start, synthetic
from finescale.calendars import Days
from finescale.plan import Artefact

ROOT = Path(__file__).parents[1]
WORLD = synthetic.World(n_lat=12, n_lon=16, ratio=4, first_year=2012, last_year=2015)
VARIABLES = ["tasmax", "tasmin"]
CONFIG: dict[str, Any] = {
    "name": "small",
    "stores": "stores",
    "domains": {"island": {}},
    "periods": {"train": [2012, 2014]},
    "references": {"OBS": {"path": "sources/{variable_id}_OBS.nc", "variables": VARIABLES}},
    "simulations": [
        {
            "source_id": "FS-B",
            "experiment_id": "historical",
            "path": "sources/{variable_id}_{source_id}.nc",
            "variables": VARIABLES,
        }
    ],
    "products": [
        {
            "domain": "island",
            "reference": "OBS",
            "train": "train",
            "source_id": "FS-B",
            "variable_id": VARIABLES,
            "method": "bcsd",
        }
    ],
    "aggregate": {"frequencies": ["yr"]},
}


@dataclass(frozen=True)
class Outcome:
    """How a call of Snakemake ended."""

    code: int
    text: str

    @property
    def jobs(self) -> Counter[str]:
        """Return how many jobs of each rule it ran, or would have."""
        return Counter(re.findall(r"^(?:local)?rule (\w+):$", self.text, re.MULTILINE))

    @property
    def reasons(self) -> list[str]:
        """Return why, job by job."""
        return re.findall(r"^ +reason: (.*)$", self.text, re.MULTILINE)


@dataclass(frozen=True)
class Workflow:
    """A folder with a config, its sources, and what Snakemake made of them."""

    folder: Path
    checkout: Path = ROOT

    @property
    def configfile(self) -> Path:
        return self.folder / "config.yaml"

    def write_sources(self) -> None:
        """Write observations and the simulation as files."""
        for source_id, name, calendar in ((None, "OBS", "standard"), ("FS-B", "FS-B", "noleap")):
            days = Days.range("2012-01-01", "2014-12-31", calendar)
            for variable in VARIABLES:
                ds = synthetic.dataset(WORLD, variable, source_id=source_id, days=days)
                synthetic.write(ds, self.folder / "sources" / f"{variable}_{name}.nc")

    def configure(self, **sections: Any) -> None:
        """Write the config, with some sections other than they were."""
        self.configfile.write_text(yaml.safe_dump({**CONFIG, **sections}))

    def snakemake(self, *arguments: str, **environment: str) -> Outcome:
        """Run Snakemake from the folder as a user would."""
        run = subprocess.run(
            [
                *(sys.executable, "-m", "snakemake", *arguments),
                *("--configfile", str(self.configfile)),
                *("--snakefile", str(self.checkout / "Snakefile"), "--directory", str(self.folder)),
                *("--profile", str(self.checkout / "profiles" / "local")),
            ],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Outcome(run.returncode, run.stdout)

    def artefacts(self, stage: str) -> list[Artefact]:
        """Return the artefacts of a stage that the config plans."""
        mapping = yaml.safe_load(self.configfile.read_text())
        return start.read(mapping, self.configfile, look_up=False).plan.stage(stage)

    def artefact(self, stage: str, variable_id: str) -> Artefact:
        (found,) = (a for a in self.artefacts(stage) if a.facets["variable_id"] == variable_id)
        return found

    def store(self, artefact: Artefact) -> Path:
        return (self.folder / "stores" / artefact.path).parent

    def sentinel(self, artefact: Artefact) -> str:
        """Return the sentinel of an artefact as a target."""
        return f"stores/{artefact.path}"

    def index(self) -> set[str]:
        """Return the identities that the index lists."""
        listed = json.loads((self.folder / "results" / "small" / "index.json").read_text())
        return {product["identity"] for product in listed["products"]}

    def bytes_of_stores(self) -> dict[str, bytes]:
        """Return every object of every store that is a function of the data."""
        stores = self.folder / "stores"
        return {
            str(path.relative_to(stores)): path.read_bytes()
            for path in stores.rglob("*")
            if path.is_file() and path.name != ".provenance.json"
        }

    def copy(self, to: Path) -> Workflow:
        """Return a copy; times of files and Snakemake's records go with it."""
        shutil.copytree(self.folder, to)
        return Workflow(to, self.checkout)
