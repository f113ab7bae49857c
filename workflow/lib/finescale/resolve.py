"""The inputs lock: what the sources are, looked up once, so that the plan does no I/O.

`resolve` writes `<config>.lock.json`: per variable of each dataset its content id, calendar, span
and grid. The plan reads config and lock and nothing else. A lock that lacks an entry, or holds one
made for another request, is completed; a source whose content has changed is an error.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from finescale import identity
from finescale.config import Config, Dataset
from finescale.errors import ConfigError, SourceError

SCHEMA = 1
ENTRY = ("request", "content", "fingerprint", "calendar", "span", "n_days", "grid")
"""What an entry must hold."""
Lock = dict[str, Any]
Request = dict[str, Any]


def lock_path(configfile: str | Path) -> Path:
    """Return where the lock of `config.yaml` lies: beside it, `config.lock.json`."""
    return Path(configfile).with_suffix(".lock.json")


def requests(config: Config) -> dict[str, Request]:
    """Return what the products of a config need of the outside: name of entry -> request.

    Only datasets that some product uses are looked up.
    """
    found: dict[str, Request] = {}
    for block in config.products:
        reference = config.references[block.reference]
        for variable in config.variables(block):
            if variable in reference.variables:
                name = reference_key(block.reference, variable)
                found[name] = _request(name, reference, variable, {"reference": block.reference})
            for run in config.simulations:
                for facets in run_facets(run, block.source_id, block.member_id):
                    if variable in run.variables:
                        name = simulation_key(facets, variable)
                        found[name] = _request(name, run, variable, facets)
    return dict(sorted(found.items()))


def run_facets(run: Any, source_ids: Any, member_ids: Any) -> list[dict[str, str]]:
    """Return the facets of each model run of a `simulations` entry that is asked for."""
    return [
        {
            "source_id": source,
            "experiment_id": experiment,
            "member_id": member,
            "table_id": run.table_id,
            "grid_label": run.grid_label,
        }
        for source in run.source_id
        if source in source_ids
        for member in run.member_id
        if member_ids is None or member in member_ids
        for experiment in run.experiment_id
    ]


def reference_key(reference: str, variable: str) -> str:
    """Return the name of a reference's entry in the lock."""
    return f"references/{reference}/{variable}"


def simulation_key(facets: dict[str, str], variable: str) -> str:
    """Return the name of a simulation's entry in the lock."""
    order = ("source_id", "experiment_id", "member_id", "table_id", "grid_label")
    return "simulations/" + "/".join(facets[f] for f in order) + f"/{variable}"


def _request(name: str, dataset: Dataset, variable: str, facets: dict[str, str]) -> Request:
    details = dataset.variables[variable]
    path = details.path or dataset.path
    request: Request = {
        "name": name,
        "variable_id": variable,
        "facets": {**facets, "variable_id": variable},
        "season": dataset.season,
    }
    if dataset.synthetic is not None:
        return {**request, "facets": facets, "synthetic": dataset.synthetic}
    optional = {
        "variable_name": details.name,
        "units": details.units,
        "format": dataset.format,
        "version": dataset.version,
        "storage_options": dataset.storage_options or None,
    }
    return {**request, "path": path, **{k: v for k, v in optional.items() if v is not None}}


def read(path: Path) -> Lock:
    """Return the lock, an empty one if there is none yet.

    Raises
    ------
    ConfigError
        The file is not a lock of this format.
    """
    if not path.exists():
        return {"schema": SCHEMA, "sources": {}, "grids": {}}
    try:
        lock: Lock = json.loads(path.read_text())
        if lock["schema"] != SCHEMA:
            raise KeyError("schema")
        for entry in lock["sources"].values():
            lock["grids"][entry["grid"]], *(entry[key] for key in ENTRY)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not an inputs lock of format {SCHEMA}; "
            "delete it, the next run writes it anew"
        ) from error
    return lock


def resolve(config: Config, path: Path, *, refresh: bool = False) -> Lock:
    """Return the lock for a config, looking up what it lacks and writing it if it changed.

    Parameters
    ----------
    config, path
        The configuration and its lock's place.
    refresh
        Look up everything anew and accept what is found.

    Raises
    ------
    SourceError
        A dataset is missing or unreadable, or has changed since it was locked.
    """
    old = read(path)
    lock: Lock = {"schema": SCHEMA, "sources": {}, "grids": {}}
    for name, request in requests(config).items():
        entry = old["sources"].get(name)
        if entry is None or refresh or entry["request"] != request:
            entry, grid = describe(request)
            lock["grids"][entry["grid"]] = grid
        else:
            entry = check_unchanged(entry)
            lock["grids"][entry["grid"]] = old["grids"][entry["grid"]]
        lock["sources"][name] = entry
    if lock != old:
        _write(path, lock)
    return lock


def describe(request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a source's lock entry and its grid, read from the dataset."""
    from finescale import calendars, sources
    from finescale.units import conversion

    with closing(sources.open_source(request)) as source:
        conversion(source.units, request["variable_id"], where=source.name)
        calendars.check_daily(source.days, season=request["season"], where=source.name)
        grid = {
            "lat": source.lat.tolist(),
            "lon": source.lon.tolist(),
            "lat_bnds": None if source.lat_bnds is None else source.lat_bnds.tolist(),
            "lon_bnds": None if source.lon_bnds is None else source.lon_bnds.tolist(),
        }
        last = len(source.days) - 1
        entry = {
            "request": request,
            "content": sources.content(request),
            "fingerprint": sources.fingerprint(request),
            "calendar": source.days.calendar,
            "span": [source.days.isoformat(0), source.days.isoformat(last)],
            "n_days": last + 1,
            "grid": identity.digest(grid),
            "licence": _first(source.attributes, "license", "licence", "rights"),
            "citation": _first(source.attributes, "citation", "references", "reference"),
            "tracking_id": _first(source.attributes, "tracking_id"),
        }
    return entry, grid


def _first(attributes: dict[str, Any], *names: str) -> str:
    return next((str(attributes[n]) for n in names if attributes.get(n)), "")


def check_unchanged(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry with its fingerprint renewed if the content is still what was locked.

    Raises
    ------
    SourceError
        The content differs.
    """
    if entry["request"].get("synthetic") is not None:
        found, fingerprint = _content(entry), None
    else:
        fingerprint = _fingerprint(entry)
        if fingerprint is None or fingerprint == entry["fingerprint"]:
            return entry
        found = _content(entry)
    if found != entry["content"]:
        name = entry["request"]["name"]
        raise SourceError(
            f"{name}: the data have changed since they were locked (content "
            f"{entry['content'][:12]}, now {found[:12]}); run `finescale resolve --configfile F` "
            "to accept them, which makes new stores beside the old"
        )
    return {**entry, "fingerprint": fingerprint}


def _content(entry: dict[str, Any]) -> str:
    from finescale import sources

    return sources.content(entry["request"])


def _fingerprint(entry: dict[str, Any]) -> str | None:
    from finescale import sources

    return sources.fingerprint(entry["request"])


def _write(path: Path, lock: Lock) -> None:
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            json.dump(lock, file, sort_keys=True, indent=1)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise ConfigError(
            f"the inputs lock {path} cannot be written ({error.strerror}); "
            "put the config file in a folder you can write"
        ) from error
