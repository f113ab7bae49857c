"""The command `finescale`: looks at configurations and stores; computes nothing.

Exit codes: 0 all is well, 2 the command or the configuration is wrong, 3 a store or a source
cannot be reached.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finescale import config, resolve, schema, start
from finescale.errors import FinescaleError, TransientError
from finescale.identity import STAGE_VERSION

OK, WRONG, UNREACHABLE = 0, 2, 3

DESCRIPTION = """\
Look at Finescale's configurations and stores. Nothing here computes climate data: that is
`snakemake --configfile F`, which reads the same files and makes what is missing.
"""
EXAMPLES = """\
examples:
  finescale plan --configfile config/examples/iberia.yaml   what a run would make
  finescale ls                                              what has been made, and how large it is
  finescale why stores/bcsd/NAME.zarr                       what a store was made from
  finescale resolve --configfile my.yaml                    accept sources that have changed

exit codes:
  0 all is well, 2 the command or the configuration is wrong, 3 something cannot be reached
"""

Rows = Iterable[Sequence[str]]


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
        document = {"ok": True, "findings": [], **document}
        code = OK
    if chosen.json:
        lines = [json.dumps(document, indent=1)]
    for line in lines:
        print(line)
    return code


def _add_configfile(parser: Any, meaning: str) -> None:
    parser.add_argument(
        "--configfile",
        metavar="F",
        type=Path,
        default=Path("config/config.yaml"),
        help=f"{meaning} (default: %(default)s)",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "finescale",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    configured = argparse.ArgumentParser(add_help=False)
    _add_configfile(configured, "the configuration")

    def add(name: str, function: Any, *parents: argparse.ArgumentParser) -> Any:
        text = function.__doc__.splitlines()[0]
        command = commands.add_parser(
            name, parents=parents, help=text[0].lower() + text[1:-1], description=text
        )
        command.add_argument("--json", action="store_true", help="print one JSON object")
        command.set_defaults(command=function)
        return command

    add("plan", show_plan, configured)
    listing = add("ls", list_committed)
    root = listing.add_mutually_exclusive_group()
    root.add_argument("--stores", metavar="ROOT", help="a root of stores: a folder or a URL")
    _add_configfile(root, "the configuration whose root it is")
    add("why", explain).add_argument("store", metavar="PATH", help="a committed store")
    add("resolve", accept_sources, configured)
    add("schema", describe_configuration).add_argument(
        "--write",
        action="store_true",
        help="write workflow/schemas/config.schema.json and docs/configuration.md instead",
    )
    return parser


# --------------------------------------------------------------------------------------
# Commands: each returns a document for --json and lines for people


def show_plan(chosen: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Show what a configuration needs and what is still to make."""
    from finescale import store

    run = start.read(config.parse(chosen.configfile), chosen.configfile)
    root = run.config.stores
    committed = set(store.list_stores(root))
    stages = []
    for word in STAGE_VERSION:
        paths = {artefact.path for artefact in run.plan.stage(word)}
        made = len(paths & committed)
        if paths:
            stages.append((word, len(paths), made, len(paths) - made))
    products = [
        {
            **product.facets,
            "path": f"{root}/{product.artefact.path.rpartition('/')[0]}",
            "identity": product.artefact.identity,
            "committed": product.artefact.path in committed,
        }
        for product in run.plan.products
    ]
    keys = ("stage", "stores", "committed", "to_make")
    rows = [keys, *(tuple(map(str, row)) for row in stages)]
    total = sum(row[-1] for row in stages)
    lines = [
        f"{run.config.name}: {len(run.plan.artefacts)} stores, {total} to make below {root}",
        "",
        *_table(rows),
        "",
        f"{len(products)} products:",
        *(f"  {'made   ' if p['committed'] else 'to make'}  {p['path']}" for p in products),
    ]
    document = {
        "name": run.config.name,
        "stores": root,
        "stages": [dict(zip(keys, row, strict=True)) for row in stages],
        "products": products,
    }
    return document, lines


def list_committed(chosen: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """List committed stores: stage, size, age, identity, facets."""
    from finescale import store

    root = chosen.stores
    if root is None:
        root = start.configure(config.parse(chosen.configfile), chosen.configfile).stores
    elif not store.exists(root):
        raise TransientError(f"{root}: there is no such root of stores; give a folder or a URL")
    found = [store.describe(f"{root}/{path}") for path in store.list_stores(root)]
    rows = [("stage", "size", "age", "identity", "facets")]
    rows += [
        (d.stage, _size(d.size), _age(d.committed), d.identity[:16], _facets(d.url)) for d in found
    ]
    lines = [
        *_table(rows),
        "",
        f"{len(found)} committed, {_size(sum(d.size for d in found))}: {root}",
    ]
    entries = [{key: v for key, v in vars(d).items() if key != "recipe"} for d in found]
    return {"stores": root, "entries": entries}, lines


def explain(chosen: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Tell what a store was made from: what its identity covers."""
    from finescale import store

    described = store.describe(chosen.store)
    root = described.url.rpartition("/")[0].rpartition("/")[0] or "."
    stores = [path.rpartition("/")[0] for path in store.list_stores(root)]
    named = {path.removesuffix(".zarr")[-16:]: path for path in stores}
    recipe = described.recipe
    inputs = {
        role: {"identity": identity, "path": named.get(identity[:16])}
        for role, identity in recipe["inputs"].items()
    }
    sections: dict[str, list[tuple[str, str]]] = {
        "facets": list(described.facets.items()),
        "parameters": list(_flat(recipe["parameters"])),
        "inputs": [
            (role, i["path"] or f"{i['identity']} (elsewhere)") for role, i in inputs.items()
        ],
    }
    lines = [
        described.url,
        f"  identity {described.identity}",
        f"  of stage {described.stage}, version {recipe['version']}",
        f"  committed {described.committed} ({_age(described.committed)} ago), "
        f"{_size(described.size)}",
    ]
    for title, rows in sections.items():
        lines += ["", title, *(f"  {line}" for line in _table(rows or [("none",)]))]
    document = {
        "store": described.url,
        "identity": described.identity,
        "committed": described.committed,
        "size": described.size,
        "recipe": recipe,
        "inputs": inputs,
    }
    return document, lines


def accept_sources(chosen: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Look up all sources anew and accept what is found."""
    path = resolve.lock_path(chosen.configfile)
    wanted = start.configure(config.parse(chosen.configfile), chosen.configfile)
    before = resolve.read(path)["sources"]
    lock = resolve.resolve(wanted, path, refresh=True)
    sources = [
        {"name": name, "state": _state(before.get(name), entry), "span": entry["span"],
         "calendar": entry["calendar"], "content": entry["content"]}
        for name, entry in lock["sources"].items()
    ]  # fmt: skip
    rows = [(s["state"], s["name"], s["calendar"], "..".join(s["span"])) for s in sources]
    return {"lock": str(path), "sources": sources}, [*_table(rows), "", f"{len(rows)} in {path}"]


def describe_configuration(chosen: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
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


def _table(rows: Rows) -> list[str]:
    """Return rows as lines with their columns aligned."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _facets(url: str) -> str:
    """Return the facets in a store's name, in the order of the name."""
    return url.rpartition("/")[2].rpartition("-")[0].replace("_", " ")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _age(committed: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(committed)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _flat(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield (dotted name, value); long lists, such as a grid's, by their ends and length."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and len(value) > 4:
            yield f"{prefix}{key}", f"{value[0]} .. {value[-1]} ({len(value)})"
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `finescale ls | head` ends quietly
    sys.exit(main())
