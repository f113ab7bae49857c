"""A sample of a configuration: the same rules on a few coarse cells and years of it.

`try: {cells: 4, years: 3}` makes a run one of its sample: before a long run it shows that all goes
well, and what it took tells what the whole will take (`estimate`). Sample and whole are different
stores; the results of the sample lie in `results/<name>-try/`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from finescale import domains
from finescale.config import Config, Domain, Products, Simulation, Try
from finescale.plan import HISTORICAL
from finescale.resolve import Lock, reference_key, run_facets, simulation_key

Period = tuple[str, str]


def narrow(config: Config, lock: Lock, size: Try) -> Config:
    """Return a configuration of the middle of its domains and the last years of its periods.

    Scenarios keep their first years. A domain is cut to `size.cells` coarse cells a side, of the
    coarsest model, around `size.lat`, `size.lon` or its middle.
    """
    periods = {name: _last_years(period, size.years) for name, period in config.periods.items()}
    trained = [
        periods[name] for block in config.products for name in (block.train, block.score) if name
    ]
    known = min(first for first, _ in trained), max(last for _, last in trained)
    references = {
        name: dataset.model_copy(update={"period": known})
        for name, dataset in config.references.items()
    }
    return config.model_copy(
        update={
            "name": f"{config.name}-try",
            "domains": {name: _box(config, lock, name, size) for name in config.domains},
            "periods": periods,
            "references": references,
            "simulations": tuple(
                _shorter(config, run, lock, known, size.years) for run in config.simulations
            ),
        }
    )


def _last_years(period: Period, years: int) -> Period:
    first, last = period
    # A winter that begins in December counts to the year in which it ends.
    year = int(last[:4]) - years + (first[5:] <= last[5:])
    return max(first, f"{year:04d}{first[4:]}"), last


def _first_years(period: Period, years: int) -> Period:
    first, last = period
    year = int(first[:4]) + years - (first[5:] <= last[5:])
    return first, min(last, f"{year:04d}{last[4:]}")


def _shorter(config: Config, run: Simulation, lock: Lock, known: Period, years: int) -> Simulation:
    """Return a model run whose historical covers the training, its scenarios their first years."""
    wanted: dict[str, Period] = {}
    for block in config.products:
        for facets in run_facets(run, block.source_id, block.member_id):
            experiment = facets["experiment_id"]
            entry = lock["sources"][simulation_key(facets, block.variable_id[0])]
            whole = run.period.get(experiment) or tuple(entry["span"])
            if experiment == HISTORICAL or HISTORICAL not in run.experiment_id:
                wanted[experiment] = max(whole[0], known[0]), min(whole[1], known[1])
            else:
                wanted[experiment] = _first_years(whole, years)
    return run.model_copy(update={"period": {**run.period, **wanted}})


def _box(config: Config, lock: Lock, name: str, size: Try) -> Domain:
    """Return a domain cut to a few coarse cells."""
    domain = config.domains[name]
    blocks = [block for block in config.products if name in block.domain]
    if not blocks:
        return domain
    grid = lock["grids"][
        _grid_of(lock, reference_key(blocks[0].reference, blocks[0].variable_id[0]))
    ]
    selection = domains.select_box(grid, domain.lat, domain.lon, where=f"domains.{name}")
    fine = domains.crop(grid, selection)
    steps = _steps(config, lock, blocks)
    cut = {}
    for axis, at, step in zip(("lat", "lon"), (size.lat, size.lon), steps, strict=True):
        middle = fine[axis][len(fine[axis]) // 2] if at is None else at
        half = step * size.cells / 2
        cut[axis] = (max(fine[axis][0], middle - half), min(fine[axis][-1], middle + half))
    return Domain(**cut)


def _steps(config: Config, lock: Lock, blocks: list[Products]) -> tuple[float, float]:
    """Return the widest spacing of the models' latitudes and longitudes [degrees]."""
    grids = [
        lock["grids"][_grid_of(lock, simulation_key(facets, block.variable_id[0]))]
        for block in blocks
        for run in config.simulations
        for facets in run_facets(run, block.source_id, block.member_id)
    ]
    lat, lon = (max(_spacing(grid[axis]) for grid in grids) for axis in ("lat", "lon"))
    return lat, lon


def _spacing(centres: list[float]) -> float:
    ordered = sorted(b - a for a, b in pairwise(sorted(centres)))
    return ordered[len(ordered) // 2]


def _grid_of(lock: Lock, key: str) -> Any:
    return lock["sources"][key]["grid"]
