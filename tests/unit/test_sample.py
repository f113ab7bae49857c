"""A sample of a configuration: the same rules and methods on a few cells and years of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from configs import changed

from finescale import config, estimate, start
from finescale.config import load
from finescale.start import Run

WORLD = {"n_lat": 36, "n_lon": 48, "ratio": 4, "first_year": 2000, "last_year": 2024}
LONG = {
    "periods": {"train": [2000, 2014]},
    "references/OBS/synthetic": WORLD,
    "simulations/0/synthetic": WORLD,
}


def run(folder: Path, **changes: Any) -> Run:
    return start.read(changed({**LONG, **changes}), folder / "long.yaml")


def test_a_sample_has_the_stages_and_methods_of_the_whole(tmp_path: Path) -> None:
    whole, part = run(tmp_path), run(tmp_path, **{"try": {"cells": 2, "years": 3}})
    assert {s for s, _ in part.plan.artefacts} == {s for s, _ in whole.plan.artefacts}
    assert len(part.plan.products) == len(whole.plan.products)
    assert part.config.name == f"{whole.config.name}-try"


def test_a_sample_is_as_large_as_asked_for(tmp_path: Path) -> None:
    part = run(tmp_path, **{"try": {"cells": 2, "years": 3}})
    (reference, *_) = part.plan.stage("reference")
    days, rows, columns = estimate.shape(reference)
    assert days == 1096
    assert 8 <= rows <= 9 and 8 <= columns <= 9
    spans = {p.facets["experiment_id"]: p.facets["period"] for p in part.plan.products}
    assert spans["historical"][0][:4] == "2012"
    assert all(int(b[:4]) - int(a[:4]) == 2 for a, b in spans.values())


def test_a_sample_can_lie_elsewhere_and_is_never_larger_than_the_domain(tmp_path: Path) -> None:
    boxes = [
        run(tmp_path, **{"try": size}).plan.stage("reference")[0].parameters["select"]["lat"]
        for size in ({"cells": 2}, {"cells": 2, "lat": 36.0}, {"cells": 99})
    ]
    assert boxes[0][0] > boxes[1][0] == 0
    assert boxes[2] == run(tmp_path).plan.stage("reference")[0].parameters["select"]["lat"]


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (("1982-12-01", "2002-02-28"), "1999-12-01"),  # three winters
        (("2000-01-01", "2014-12-31"), "2012-01-01"),
        (("2013-06-01", "2014-12-31"), "2013-06-01"),
    ],
)
def test_periods_keep_their_last_years(period: tuple[str, str], expected: str) -> None:
    from finescale.sample import _last_years

    assert _last_years(period, 3) == (expected, period[1])


def test_what_the_sample_took_plans_the_whole(tmp_path: Path) -> None:
    """A sample kept in the configuration, but not active, is where rates come from."""
    part = run(tmp_path, **{"try": {"cells": 2, "years": 3}})
    for artefact in part.plan.stage("bcsd"):
        tsv = tmp_path / "benchmarks" / "bcsd" / f"{artefact.name}.tsv"
        tsv.parent.mkdir(parents=True, exist_ok=True)
        tsv.write_text("cpu_time\n700.0\n")
    whole = run(tmp_path, **{"try": {"cells": 2, "years": 3, "active": False}})
    assert whole.config.name == load(changed(LONG)).name
    rates = estimate.measured(whole.plans, tmp_path / "benchmarks")
    assert rates["bcsd"] > 10 * estimate.RATES["bcsd"]
    assert rates["adjust"] == estimate.RATES["adjust"]


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(config.ConfigError, match=r"try\.cells"):
        load(changed({**LONG, "try": {"cells": 0}}))
