"""A stand-in for the object that Snakemake puts into a script, and a script run with it."""

from __future__ import annotations

import logging
import os
import runpy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import zarr
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, ResourceList

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"


def standin(
    rule: str,
    *,
    log: Path | None,
    input: Mapping[str, Any] | None = None,
    output: Mapping[str, str] | None = None,
    spec: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    threads: int = 1,
    **resources: Any,
) -> Any:
    """Return what a script of this rule would be given."""
    return SimpleNamespace(
        rule=rule,
        input=InputFiles(fromdict=input or {}),
        output=OutputFiles(fromdict=output or {}),
        params=Params(fromdict={} if spec is None else {"spec": spec}),
        log=Log([] if log is None else [str(log)]),
        resources=ResourceList(fromdict=resources),
        config=config or {},
        threads=threads,
    )


@contextmanager
def restored() -> Iterator[None]:
    """Undo what a script does to its process: logging, environment, Zarr's settings."""
    logger = logging.getLogger()
    level, handlers = logger.level, logger.handlers[:]
    kept = {name: zarr.config.get(name) for name in ("threading.max_workers", "async.concurrency")}
    with mock.patch.dict(os.environ), zarr.config.set(kept):
        logger.handlers.clear()  # or `logging.basicConfig` would close them
        try:
            yield
        finally:
            for handler in logger.handlers:
                handler.close()
            logger.handlers[:] = handlers
            logger.setLevel(level)


def run_script(snakemake: Any) -> None:
    """Run the script of a rule as Snakemake would, in this process."""
    with restored():
        runpy.run_path(str(SCRIPTS / f"{snakemake.rule}.py"), {"snakemake": snakemake})
