"""Why jobs failed: a record that a job leaves for the process that started it.

Snakemake knows how a job ended, not why, and would retry all of them. A job that fails writes an
object `<stores>/.failures/<config>/<key>`; `heed` lets Snakemake look at it before it tries again.
A job that was killed leaves no record and is tried again. Records last as long as a run. A job
that may not write there says it in what it prints; who reads that calls `hear`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from finescale.errors import FinescaleError, TransientError
from finescale.identity import digest

log = logging.getLogger("finescale")

FOLDER = ".failures"
SAID = "finescale-failure "
"""What a record begins with that is printed: its key and itself follow."""
MOST = 12
"""Failures that are told one by one."""


_heard: dict[str, bytes] = {}
"""The printed records, by key."""


@dataclass(frozen=True)
class Failure:
    """Why a job failed; `is_permanent` if it would fail again."""

    message: str
    is_permanent: bool


def record(snakemake: Any, error: Exception) -> None:
    """Leave a record of what ended a job, given the object of its script.

    The error is the user's, so that a storage that does not answer now must not hide it.
    """
    if "stores" not in snakemake.config:
        return
    lasting = isinstance(error, FinescaleError) and not isinstance(error, TransientError)
    text = str(error) if isinstance(error, FinescaleError) else f"{type(error).__name__}: {error}"
    content = json.dumps(asdict(Failure(text, lasting)))
    key = _key(snakemake.params, snakemake.log)
    try:
        _records(snakemake.config).put(key, content.encode())
    except (FinescaleError, OSError) as away:
        log.warning("no record of this failure could be left: %s", away)
        print(f"{SAID}{key} {content}", file=sys.stderr)


def hear(printed: str) -> None:
    """Keep the records in what jobs printed."""
    for line in printed.splitlines():
        if line.startswith(SAID):
            key, _, content = line.removeprefix(SAID).partition(" ")
            _heard[key] = content.encode()


def find(config: Mapping[str, Any], job: Any) -> Failure | None:
    """Return what a job of Snakemake left behind; None if it left no word, or none can be read."""
    key = _key(job.params, job.log)
    try:
        return Failure(**json.loads(_heard.get(key) or _records(config).get(key)))
    except (FinescaleError, OSError):
        return None


def forget(config: Mapping[str, Any]) -> None:
    """Remove the records of a configuration's last run."""
    _heard.clear()
    _records(config).clear()


def heed(config: Mapping[str, Any]) -> None:
    """Make Snakemake, in this process, never retry a job that failed for good.

    Before a retry it asks a job, or a group of jobs that share a node, for its `restart_times`;
    a group with such a job in it is not retried.
    """
    from snakemake.jobs import GroupJob, Job

    def of_job(job: Any) -> int:
        found = find(config, job)
        return 0 if found and found.is_permanent else job.rule.restart_times

    def of_group(group: Any) -> int:
        return min(map(of_job, group.jobs))

    Job.restart_times = property(of_job)
    GroupJob.restart_times = property(of_group)


def tell(config: Mapping[str, Any], failed: Iterable[Any]) -> list[str]:
    """Return which jobs of Snakemake failed, why, and where the rest is said."""
    told = sorted({lines for job in failed for lines in _of(config, job)})
    more = [f"  and {len(told) - MOST} more, named above"] if len(told) > MOST else []
    return [*(line for lines in told[:MOST] for line in lines), *more]


def _of(config: Mapping[str, Any], job: Any) -> Iterator[tuple[str, ...]]:
    """Yield the lines of those in a job, or in a group of them, that left a record; or of all."""
    members = list(job.jobs) if job.is_group() else [job]
    found = [(one, find(config, one)) for one in members]
    recorded = [(one, failure.message) for one, failure in found if failure]
    often = f"{job.attempt} attempt{'s' if job.attempt > 1 else ''}"
    silent = f"no word from {often}: killed, cancelled, or short of memory or time"
    for one, why in recorded or [(one, silent) for one in members]:
        name = " ".join([one.rule.name, *one.wildcards_dict.values()])
        yield f"  {name}: {why}", *(f"      {path}" for path in one.log)


def _records(config: Mapping[str, Any]) -> Any:
    from finescale.storage import Objects

    return Objects(f"{config['stores']}/{FOLDER}/{config['name']}")


def _key(params: Any, logs: Any) -> str:
    """Return what names a job in every process: its store's identity, or that of its log."""
    return str(params.get("spec", {}).get("identity") or digest([str(path) for path in logs]))
