"""Each published defect is caught by an oracle that passes without it."""

from pathlib import Path

import oracles
import pytest
from chain import Chain
from mutants import MUTANTS, Mutant

from finescale.errors import FinescaleError


def name(mutant: Mutant) -> str:
    return f"{mutant.inject.__name__}-{mutant.oracle.__name__}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=name)
def test_the_oracle_fails_with_the_defect(
    mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.inject(monkeypatch)
    with pytest.raises((AssertionError, FinescaleError), match=mutant.found):
        mutant.oracle(Chain(tmp_path))


def test_every_oracle_of_a_defect_is_a_test_without_it() -> None:
    assert {mutant.oracle for mutant in MUTANTS} <= set(oracles.ORACLES)
