"""What happens when the Snakefile is read: config checked, lock completed, plan built."""

from __future__ import annotations

import gc
import math
import os
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from finescale import identity, resolve, sample
from finescale.config import Config, load
from finescale.errors import ConfigError, FinescaleError
from finescale.plan import Plan, build

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Parallelism is over blocks; the last bits of a BLAS product depend on its threads."""
NEW_OBJECTS = 100_000
"""Between two searches for garbage: the million objects of a large DAG stay, none of them is."""


@dataclass(frozen=True)
class Run:
    """A configuration, its inputs lock and its plan.

    `prefix`: of the storage where a run without a shared file system keeps everything; else "".
    """

    config: Config
    lock: resolve.Lock
    plan: Plan
    prefix: str = ""

    @property
    def results(self) -> str:
        """Return the folder of the result files, or its URL."""
        return _below(self.prefix, f"results/{self.config.name}")

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
    prefix = (workflow.storage_settings.default_storage_prefix or "").rstrip("/")
    is_main = workflow.is_main_process
    try:
        limit = workflow.global_resources.get("mem_mb")
        most_mb = getattr(limit, "value", limit)  # a plain number up to Snakemake 9.13
        run = read(mapping, configfile, look_up=is_main, most_mb=most_mb, prefix=prefix)
        _take_plugins_places(run, is_main=is_main)
        if prefix and is_main:
            _send_along(workflow)
        return run
    except FinescaleError as error:
        print(f"\nfinescale: {error}\n", file=sys.stderr)
        raise SystemExit(2) from None


def _set_environment(library: str) -> None:
    """Set what jobs inherit, before their numpy is imported."""
    paths = [library, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))


def _take_plugins_places(run: Run, *, is_main: bool) -> None:
    """Put our classes in the place of two plugins', where the run uses them."""
    if run.config.stores.startswith("gs://"):
        from finescale import sentinels

        files = (run.results, f"{run.prefix}/benchmarks") if run.prefix else ()
        sentinels.install(run.config.stores, *files)
    if run.prefix and is_main and find_spec("snakemake_executor_plugin_kubernetes"):
        from finescale import kubernetes

        kubernetes.install()


def _send_along(workflow: Any) -> None:
    """Let the config file and its lock travel to jobs that have no access to ours.

    Snakemake sends the files below the working directory that git knows, and the config files.
    A config that lies elsewhere is copied to where it can be sent from.
    """
    for files in (workflow.config_settings.configfiles, workflow.configfiles):
        files[:] = [_sendable(Path(file)) for file in files]
    locks = [resolve.lock_path(file) for file in workflow.configfiles]
    workflow.configfiles += [lock for lock in locks if lock.exists()]


def _sendable(file: Path) -> Path:
    """Return a config file below the working directory, a copy with its lock if need be."""
    if Path.cwd() in file.resolve().parents:
        return file
    folder = Path(".snakemake", "configs", identity.digest(str(file.resolve()))[:16]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for source in (file, resolve.lock_path(file)):
        if source.exists():
            shutil.copy(source, folder / source.name)
    return folder / file.name


def read(
    mapping: dict[str, Any],
    configfile: Path,
    *,
    look_up: bool = True,
    most_mb: float | None = None,
    prefix: str = "",
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
    prefix
        Of the storage below which a root of stores lies that is no path from `/` and no URL.

    Raises
    ------
    FinescaleError
        The configuration or a source is wrong.
    """
    config = configure({k: v for k, v in mapping.items() if k != "lock"}, configfile)
    config = config.model_copy(update={"stores": _below(prefix, config.stores)})
    path = resolve.lock_path(configfile)
    lock = resolve.resolve(config, path) if look_up else resolve.read(path)
    if config.sample and config.sample.active:
        config = sample.narrow(config, lock, config.sample)
    return Run(config, lock, build(config, lock, most_mb=most_mb or math.inf), prefix)


def _below(prefix: str, path: str) -> str:
    """Return a path below the prefix of a storage; one that leads elsewhere as it is."""
    return path if not prefix or "://" in path or path.startswith("/") else f"{prefix}/{path}"


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
