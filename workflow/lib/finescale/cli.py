"""The command `finescale`: looks at configurations and stores, and repairs what is damaged.

Exit codes: 0 all is well, 1 something is damaged, 2 the command or the configuration is wrong, 3 a
store or a source cannot be reached.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finescale import config, resolve, schema, start, words
from finescale.errors import ConfigError, FinescaleError, TransientError
from finescale.start import Run

OK, DAMAGED, WRONG, UNREACHABLE = 0, 1, 2, 3
DEFAULT = Path("config/config.yaml")
DAY = 86400.0

DESCRIPTION = """\
Look at Finescale's configurations and stores, and repair what is damaged. What is missing is made
by `snakemake --configfile F`, which reads the same files.
"""
EXAMPLES = """\
examples:
  finescale plan --configfile config/examples/iberia.yaml   what a run would make
  finescale ls                                              what has been made, and who needs it
  finescale why stores/bcsd/NAME.zarr                       what it was made from, or why it is not
  finescale verify --deep results/iberia/index.json         is every published value as committed?
  finescale heal                                            recompute what is damaged
  finescale trace stores/bcsd/NAME.zarr --lat 40.2 --lon -3.7 --time 2008-07-14
  finescale gc --configfile mine.yaml theirs.yaml           what neither of them needs
  finescale resolve --configfile my.yaml                    accept sources that have changed
  finescale doctor --stores gs://bucket/stores              can a run work here?

exit codes:
  0 all is well, 1 something is damaged, 2 the command or the configuration is wrong,
  3 something cannot be reached
"""

Told = tuple[dict[str, Any], list[str]]
"""A document for --json and lines for people."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of a command line (that of the process by default)."""
    chosen = _parser().parse_args(arguments)
    try:
        document, lines = chosen.command(chosen)
    except FinescaleError as error:
        print(f"finescale: {error}", file=sys.stderr)
        finding = {"kind": type(error).__name__, "detail": str(error)}
        document, lines = {"ok": False, "findings": [finding]}, []
        code = UNREACHABLE if isinstance(error, TransientError) else WRONG
    else:
        document = {"ok": not document.get("findings"), "findings": [], **document}
        code = OK if document["ok"] else DAMAGED
    if chosen.json:
        lines = [json.dumps(document, indent=1)]
    for line in lines:
        print(line)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "finescale",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, function: Callable[[argparse.Namespace], Told]) -> Any:
        text = (function.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=text[0].lower() + text[1:-1], description=text)
        command.add_argument("--json", action="store_true", help="print one JSON object")
        command.set_defaults(command=function)
        return command

    def configured(command: Any, meaning: str, *, several: bool = False) -> None:
        command.add_argument(
            "--configfile", metavar="F", type=Path, nargs="+" if several else None,
            help=f"{meaning} (default: {DEFAULT})",
        )  # fmt: skip

    def on_stores(command: Any, *, jobs: str) -> None:
        command.add_argument(
            "targets", metavar="STORE|INDEX|CONFIG", nargs="*",
            help="stores, index.json of a run, or configurations (default: --configfile)",
        )  # fmt: skip
        command.add_argument("--stores", metavar="ROOT", help="all stores below a root")
        command.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count(), help=jobs)

    configured(add("plan", show_plan), "the configuration")
    listing = add("ls", list_stores)
    listing.add_argument("--stores", metavar="ROOT", help="a root of stores: a folder or a URL")
    configured(listing, "configurations that may need them", several=True)
    reasons = add("why", explain)
    reasons.add_argument("store", metavar="STORE", help="its path, or its name in a plan")
    configured(reasons, "configurations that may want it", several=True)
    checking = add("verify", verify_stores)
    on_stores(checking, jobs="threads (default: all processors)")
    checking.add_argument(
        "--deep", action="store_true", help="read every chunk, not only a listing"
    )
    configured(checking, "verify what it has made")
    healing = add("heal", heal_stores)
    on_stores(healing, jobs="blocks at a time (default: all processors)")
    configured(healing, "heal what it has made; also where sources are found")
    tracing = add("trace", trace_value)
    tracing.add_argument("store", metavar="STORE", help="a committed store")
    tracing.add_argument("--lat", type=float, required=True, help="degrees north")
    tracing.add_argument("--lon", type=float, required=True, help="degrees east")
    tracing.add_argument("--time", metavar="DATE", required=True, help="a day, 2008-07-14")
    configured(tracing, "where sources are found")
    collecting = add("gc", collect_garbage)
    collecting.add_argument("--stores", metavar="ROOT", help="default: that of the configuration")
    collecting.add_argument(
        "--grace", metavar="DAYS", type=float, default=7.0,
        help="nothing younger goes (default: %(default)g)",
    )  # fmt: skip
    collecting.add_argument("--yes", action="store_true", help="delete; without it, list only")
    configured(collecting, "every configuration whose stores are to stay", several=True)
    configured(add("resolve", accept_sources), "the configuration")
    examining = add("doctor", examine_environment)
    examining.add_argument("--stores", metavar="ROOT", help="default: that of the configuration")
    configured(examining, "the configuration")
    add("schema", describe_configuration).add_argument(
        "--write",
        action="store_true",
        help="write workflow/schemas/config.schema.json and docs/configuration.md instead",
    )
    return parser


# --------------------------------------------------------------------------------------
# What a command line names


def _run(path: Path | None) -> Run:
    """Return the run of a configuration; sources are looked up if there is no lock yet."""
    path = path or DEFAULT
    return start.read(config.parse(path), path, look_up=not resolve.lock_path(path).exists())


def _runs(paths: Sequence[Path] | None, *, optional: bool = False) -> list[Run]:
    """Return the runs of configurations; without any, of the default one (`optional`: if there)."""
    return [
        _run(path) for path in paths or ([] if optional and not DEFAULT.exists() else [DEFAULT])
    ]


def _plans(runs: Sequence[Run]) -> list[tuple[str, Any]]:
    return [(run.config.name, run.plan) for run in runs]


def _stores(chosen: argparse.Namespace) -> list[tuple[str, str | None]]:
    """Return the stores that a command line names, each with its identity where that is known."""
    from finescale import store

    found: list[tuple[str, str | None]] = []
    targets = list(chosen.targets)
    if chosen.stores:
        if not store.exists(chosen.stores):
            raise TransientError(f"{chosen.stores}: there is no such root of stores")
        found += [(f"{chosen.stores}/{path}", None) for path in store.list_stores(chosen.stores)]
    elif not targets:
        targets.append(str(chosen.configfile or DEFAULT))
    for target in targets:
        if target.endswith((".yaml", ".yml")):
            run = _run(Path(target))
            made = set(store.list_stores(run.config.stores))
            found += [
                (f"{run.config.stores}/{a.path}", a.identity)
                for a in run.plan.artefacts.values()
                if a.path in made
            ]
        elif target.endswith(".json"):
            found += _listed(Path(target))
        else:
            found.append((target, None))
    return [(url.rstrip("/").removesuffix(f"/{store.SENTINEL}"), known) for url, known in found]


def _listed(index: Path) -> list[tuple[str, str | None]]:
    """Return the products in an index with their identities."""
    try:
        products = json.loads(index.read_text())["products"]
        return [(product["path"], product["identity"]) for product in products]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{index}: no index of products can be read there ({error}); give the index.json "
            "that a run has written to its results"
        ) from error


@contextmanager
def _progress(chosen: argparse.Namespace, text: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give a function that shows how far we are, where somebody is looking."""
    if chosen.json or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text)
        yield lambda done, known: bar.update(task, completed=done, total=known)


# --------------------------------------------------------------------------------------
# Commands


def show_plan(chosen: argparse.Namespace) -> Told:
    """Show what a configuration needs, what is still to make, and what that takes."""
    from finescale import estimate, store

    path = chosen.configfile or DEFAULT
    run = start.read(config.parse(path), path)
    root = run.config.stores
    committed = set(store.list_stores(root))
    rates = estimate.measured(run.plans, Path("benchmarks"))
    stages = estimate.forecast(run.plan, committed, rates)
    products = [
        {
            **product.facets,
            "path": f"{root}/{product.artefact.path.rpartition('/')[0]}",
            "identity": product.artefact.identity,
            "committed": product.artefact.path in committed,
        }
        for product in run.plan.products
    ]
    lines = [
        *estimate.tell(run.config, stages),
        "",
        f"{len(products)} products:",
        *(f"  {'made   ' if p['committed'] else 'to make'}  {p['path']}" for p in products),
    ]
    document = {
        "name": run.config.name,
        "stores": root,
        "stages": [stage.document for stage in stages],
        "products": products,
    }
    return document, lines


def list_stores(chosen: argparse.Namespace) -> Told:
    """List stores: stage, size, age, identity, who needs them."""
    from finescale import inventory, store

    if chosen.stores and not store.exists(chosen.stores):
        raise TransientError(
            f"{chosen.stores}: there is no such root of stores; give a folder or a URL"
        )
    runs = _runs(chosen.configfile) if chosen.configfile or not chosen.stores else []
    return inventory.ls(chosen.stores or _root(runs), _plans(runs))


def explain(chosen: argparse.Namespace) -> Told:
    """Tell what a store was made from, or why it is to be made."""
    from finescale import inventory

    runs = _runs(chosen.configfile, optional=True)
    return inventory.why(chosen.store, _plans(runs), root=runs[0].config.stores if runs else None)


def verify_stores(chosen: argparse.Namespace) -> Told:
    """Look for damage: in a listing, or in every chunk."""
    from finescale.verify import verify_all

    stores = _stores(chosen)
    with _progress(chosen, "verifying") as progress:
        found = verify_all(stores, deep=chosen.deep, jobs=chosen.jobs, progress=progress)
    depth = "every chunk" if chosen.deep else "listings; --deep reads every chunk"
    damaged = len({finding.store for finding in found})
    lines = [
        f"{f.store}/{f.key}: {f.kind}, {f.detail}" + (f" ({f.extent})" if f.extent else "")
        for f in found
    ]
    lines += [f"{len(stores)} stores, {damaged} damaged ({depth})"]
    if found:
        lines.append("`finescale heal` with the same arguments recomputes what is damaged")
    return {
        "stores": len(stores),
        "deep": chosen.deep,
        "findings": [asdict(f) for f in found],
    }, lines


def heal_stores(chosen: argparse.Namespace) -> Told:
    """Recompute the damaged blocks of stores from their inputs, to the same bytes."""
    from finescale.heal import Healed, heal

    path = chosen.configfile or DEFAULT
    run = _run(path) if chosen.configfile or path.exists() else None
    stores = _stores(chosen)

    def told(healed: Healed) -> None:
        print(f"healed {healed.url}: {healed.n_recomputed} blocks", file=sys.stderr)

    done = heal(
        [url for url, _ in stores],
        planned={} if run is None else {a.identity: a for a in run.plan.artefacts.values()},
        lock={} if run is None else run.lock,
        threads=chosen.jobs,
        told=told,
    )
    document = {
        "stores": len(stores),
        "healed": [
            {"store": h.url, "blocks": h.n_recomputed, "damage": [asdict(f) for f in h.findings]}
            for h in done
        ],
    }
    return document, [f"{len(stores)} stores, {len(done)} healed"]


def trace_value(chosen: argparse.Namespace) -> Told:
    """Follow one number back through every stage to its source."""
    from finescale import trace

    path = chosen.configfile or DEFAULT
    lock = resolve.read(resolve.lock_path(path)) if path.exists() else None
    step = trace.trace(chosen.store, lat=chosen.lat, lon=chosen.lon, date=chosen.time, lock=lock)
    return trace.document(step), trace.lines(step)


def collect_garbage(chosen: argparse.Namespace) -> Told:
    """List what no configuration needs, and delete it with --yes."""
    from finescale import inventory

    runs = _runs(chosen.configfile)
    root = chosen.stores or _root(runs)
    found = inventory.gc(root, _plans(runs), grace_seconds=chosen.grace * DAY)
    if chosen.yes:
        found = inventory.collect(root, found)
    return inventory.tell(root, found, deleted=chosen.yes)


def _root(runs: Sequence[Run]) -> str:
    """Return the one root of stores of configurations."""
    roots = sorted({run.config.stores for run in runs})
    if len(roots) != 1:
        raise ConfigError(f"which root of stores, {', '.join(roots)}? name it with --stores ROOT")
    return roots[0]


def accept_sources(chosen: argparse.Namespace) -> Told:
    """Look up all sources anew and accept what is found."""
    configfile = chosen.configfile or DEFAULT
    path = resolve.lock_path(configfile)
    wanted = start.configure(config.parse(configfile), configfile)
    before = resolve.read(path)["sources"]
    lock = resolve.resolve(wanted, path, refresh=True)
    sources = [
        {"name": name, "state": _state(before.get(name), entry), "span": entry["span"],
         "calendar": entry["calendar"], "content": entry["content"]}
        for name, entry in lock["sources"].items()
    ]  # fmt: skip
    rows = [(s["state"], s["name"], s["calendar"], "..".join(s["span"])) for s in sources]
    return {"lock": str(path), "sources": sources}, [
        *words.table(rows),
        "",
        f"{len(rows)} in {path}",
    ]


def examine_environment(chosen: argparse.Namespace) -> Told:
    """Look at the environment, the root of stores and Slurm, and say what is wrong there."""
    from finescale import doctor

    path = chosen.configfile or DEFAULT
    root = chosen.stores or start.configure(config.parse(path), path).stores
    checks = doctor.examine(root)
    rows = [(check.state, check.name, check.detail) for check in checks]
    document = {
        "stores": root,
        "checks": [asdict(check) for check in checks],
        "findings": [{"kind": c.name, "detail": c.detail} for c in checks if c.state == "wrong"],
    }
    return document, words.table(rows)


def describe_configuration(chosen: argparse.Namespace) -> Told:
    """Print the JSON schema of configurations."""
    document = schema.schema()
    if not chosen.write:
        return {"schema": document}, [schema.schema_text().rstrip()]
    written = schema.write()
    return {"written": [str(path) for path in written]}, [f"wrote {path}" for path in written]


# --------------------------------------------------------------------------------------
# Words


def _state(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    if before is None:
        return "new"
    return "same" if before["content"] == now["content"] else "changed"


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `finescale ls | head` ends quietly
    sys.exit(main())
