"""What happens when the Snakefile is read: config checked, lock completed, plan built."""

from __future__ import annotations

import gc
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finescale import resolve, sample
from finescale.config import Config, load
from finescale.errors import ConfigError, FinescaleError
from finescale.plan import Plan, build

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Parallelism is over blocks; the last bits of a BLAS product depend on its threads."""
NEW_OBJECTS = 100_000
"""Between two searches for garbage: the million objects of a large DAG stay, none of them is."""


@dataclass(frozen=True)
class Run:
    """A configuration, its inputs lock and its plan."""

    config: Config
    lock: resolve.Lock
    plan: Plan

    @property
    def plans(self) -> list[Plan]:
        """Return the plan, and that of the sample whose measures tell about it."""
        size = self.config.sample
        if size is None or size.active:
            return [self.plan]
        narrow = sample.narrow(self.config, self.lock, size)
        return [self.plan, build(narrow, self.lock)]


def prepare(mapping: dict[str, Any], workflow: Any, *, library: str) -> Run:
    """Return the run of a Snakemake workflow; a wrong config ends the process with one message.

    Sources are looked up in the main process only; its jobs read the lock that it wrote, and
    find `library` on their path.
    """
    _set_environment(library)
    gc.set_threshold(NEW_OBJECTS)
    configfile = Path(workflow.configfiles[0] if workflow.configfiles else "config/config.yaml")
    try:
        limit = workflow.global_resources.get("mem_mb")
        most_mb = getattr(limit, "value", limit)  # a plain number up to Snakemake 9.13
        return read(mapping, configfile, look_up=workflow.is_main_process, most_mb=most_mb)
    except FinescaleError as error:
        print(f"\nfinescale: {error}\n", file=sys.stderr)
        raise SystemExit(2) from None


def _set_environment(library: str) -> None:
    """Set what jobs inherit, before their numpy is imported."""
    paths = [library, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))


def read(
    mapping: dict[str, Any],
    configfile: Path,
    *,
    look_up: bool = True,
    most_mb: float | None = None,
) -> Run:
    """Return the run of a configuration.

    Parameters
    ----------
    mapping
        The configuration as read.
    configfile
        Its file, for messages and the lock's place.
    look_up
        Complete the lock; otherwise it is read as it is.
    most_mb
        Memory that a job can get.

    Raises
    ------
    FinescaleError
        The configuration or a source is wrong.
    """
    config = configure({k: v for k, v in mapping.items() if k != "lock"}, configfile)
    path = resolve.lock_path(configfile)
    lock = resolve.resolve(config, path) if look_up else resolve.read(path)
    if config.sample and config.sample.active:
        config = sample.narrow(config, lock, config.sample)
    return Run(config, lock, build(config, lock, most_mb=most_mb or math.inf))


def configure(mapping: dict[str, Any], configfile: Path) -> Config:
    """Return the configuration with the environment's variables put into its root of stores.

    Raises
    ------
    ConfigError
        The configuration is wrong, or a variable is not set.
    """
    config = load(mapping, where=str(configfile))
    root = os.path.expanduser(os.path.expandvars(config.stores)).rstrip("/")
    if "$" in root or not root:
        raise ConfigError(
            f"{configfile}: stores: {config.stores!r} is empty or names an environment variable "
            "that is not set; give a folder or a URL"
        )
    return config.model_copy(update={"stores": root})
