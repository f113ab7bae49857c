"""What a rule's script works with: its opened inputs, its parameters, its output, its engine.

`running` is the one place where Snakemake's object becomes Finescale's: logging, threads,
opening and identity checks, and one clear message when something is wrong.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finescale import failures
from finescale.errors import FinescaleError, SourceError

log = logging.getLogger("finescale")


@dataclass(frozen=True)
class Job:
    """One run of one rule.

    Parameters
    ----------
    output
        Where the product goes: a store without its sentinel, or files by name.
    inputs
        Role -> opened store, or a list of them; the path of anything else.
    spec
        Parameters of the stage, by keyword.
    map
        Maps a function over tasks (`engines.engine`).
    threads, memory_mb
        What this process has.
    repair
        What is known of a damaged store (`store.Repair`); None for a store that is made.
    closing
        What is given back when the job ends.
    """

    stage: str
    output: str
    identity: str = ""
    facets: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    lock: Mapping[str, Any] = field(default_factory=dict)
    map: Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]] = lambda function, tasks: [
        function(task) for task in tasks
    ]
    threads: int = 1
    memory_mb: int = 2000
    repair: Any = None
    closing: ExitStack = field(default_factory=ExitStack)

    def create(
        self, arrays: Mapping[str, Any], attributes: Mapping[str, Any], *, mask: Any = None
    ) -> Any:
        """Return the writer of this job's store, its metadata and coordinates written.

        The lease of the store is ours from here on. None if another run, for which we waited, has
        committed the store meanwhile.
        """
        from finescale import leases
        from finescale.storage import Objects
        from finescale.store import JOURNAL, Header, Writer, is_committed

        lease = leases.acquire(root_of(self.output), self.identity)
        self.closing.callback(lease.release)
        if lease.waited and is_committed(self.output, self.identity):
            log.info("%s: another run has made %s", self.stage, self.output)
            Objects(self.output + JOURNAL).clear()  # of a writer that died once it was committed
            return None
        header = Header(self.stage, self.identity, self.facets, self.recipe)
        return Writer(self.output, header, arrays, mask, lease.fence, self.repair).create(
            {"Conventions": "CF-1.8", **attributes}
        )

    def fill(
        self, writer: Any, compute: Callable[[Any], Iterable[Any]], tasks: Sequence[Any]
    ) -> None:
        """Write what `compute` yields for every unfinished task, then commit the store."""
        from finescale import blocks

        with self.closing:
            if writer is None:
                return
            writer.forget(writer.finished - set(map(blocks.name, tasks)))
            left = [
                task
                for task in tasks
                if blocks.name(task) not in writer.finished
                and not writer.adopt(blocks.name(task), blocks.keys(task, writer.arrays))
            ]
            log.info("%s: %d of %d blocks to write", self.stage, len(left), len(tasks))
            self.map(blocks.Fill(writer, compute), left)
            writer.commit()
            log.info("%s: committed %s", self.stage, self.output)

    def source(self, content: str) -> Any:
        """Return the dataset with this content id, opened, after a check that it is unchanged.

        Raises
        ------
        SourceError
            The lock has no such entry, or the data have changed.
        """
        from finescale import resolve, sources

        for entry in self.lock["sources"].values():
            if entry["content"] == content:
                resolve.check_unchanged(entry)
                return sources.open_source(entry["request"])
        raise SourceError(
            f"{self.output}: no source with content {content[:12]} in the inputs lock; "
            "run `finescale resolve --configfile F`"
        )


@contextmanager
def running(snakemake: Any) -> Iterator[Job]:
    """Give the job of a rule's script.

    A `FinescaleError` ends the script with its message alone; the traceback goes to the log.
    """
    logfile = Path(snakemake.log[0]) if snakemake.log else None
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if logfile is not None:
        logfile.parent.mkdir(parents=True, exist_ok=True)
        handlers = [logging.FileHandler(logfile, mode="w")]
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        handlers=handlers,
        force=True,
    )
    try:
        from finescale.engines import engine

        spec = snakemake.params.get("spec", {})
        with engine(
            snakemake.resources.get("dask", "threads"),
            threads=snakemake.threads,
            mem_mb=snakemake.resources.get("mem_mb", 2000),
            scratch=snakemake.resources.get("tmpdir"),
            rule=snakemake.rule,
            settings=dict(snakemake.resources.items()),
        ) as mapper:
            work = _job(snakemake, spec, mapper)
            with work.closing:
                yield work
    except FinescaleError as error:
        log.exception("%s failed", snakemake.rule)
        failures.record(snakemake, error)
        print(f"\n{snakemake.rule}: {error}\n", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception as error:
        log.exception("%s failed", snakemake.rule)
        failures.record(snakemake, error)
        raise


def _job(snakemake: Any, spec: Mapping[str, Any], mapper: Any) -> Job:
    import zarr

    zarr.config.set({"threading.max_workers": snakemake.threads, "async.concurrency": 4})
    outputs = dict(snakemake.output.items())
    store = outputs.pop("store", "")
    return Job(
        stage=spec.get("stage", snakemake.rule),
        output=store.removesuffix("/.zmetadata"),
        identity=spec.get("identity", ""),
        facets=spec.get("facets", {}),
        recipe=spec.get("recipe", {}),
        inputs={**dict(snakemake.input.items()), **_open(snakemake.input, spec.get("inputs", {}))},
        spec=spec.get("parameters", {}),
        files=outputs,
        lock=snakemake.config.get("lock", {}),
        map=mapper,
        threads=snakemake.threads,
        memory_mb=snakemake.resources.get("mem_mb", 2000),
    )


def _open(inputs: Any, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stores of a rule's inputs by role, each with the identity the plan expects.

    A role with a list of identities is a list of stores. An input that another run is making at
    this moment is waited for.
    """
    from finescale import leases
    from finescale.storage import Objects
    from finescale.store import SENTINEL, open_store

    def opened(path: str, identity: str) -> Any:
        url = path.removesuffix(f"/{SENTINEL}")
        if Objects(url).version(SENTINEL) is None:
            leases.wait(root_of(url), identity)
        return open_store(url).require(identity)

    return {
        role: [opened(p, i) for p, i in zip(inputs[role], wanted, strict=True)]
        if isinstance(wanted, list)
        else opened(inputs[role], wanted)
        for role, wanted in expected.items()
    }


def root_of(store: str) -> str:
    """Return the root of stores that holds `<root>/<stage>/<store>`."""
    return store.rpartition("/")[0].rpartition("/")[0] or "."
