"""The worlds, each made once: products are made when a test first asks for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from conformance import worlds
from conformance.kit import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    """Return a function that gives a world of `worlds` by its name and parameters."""

    @cache
    def made(name: str, *parameters: Any) -> World:
        make: Callable[..., World] = getattr(worlds, name)
        return make(tmp_path_factory.mktemp(name), *parameters)

    return made
