"""A server of Google Cloud Storage for the tests of this folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from unittest import mock

import pytest
from server import BUCKET, Flaky, environment, flaky, server
from zarr.core.sync import sync

os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # read at the next line
import gcsfs


@pytest.fixture(scope="module")
def connected() -> Iterator[Flaky]:
    """Let gs:// mean a server of this module, behind a proxy."""
    with server() as url, flaky(url) as proxy, mock.patch.dict(os.environ, environment(proxy.url)):
        yield proxy
        for client in gcsfs.GCSFileSystem._cache.values():
            if client.asynchronous and client._session:  # at exit gcsfs would use another loop
                sync(client._session.close())
        gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.fixture
def proxy(connected: Flaky) -> Flaky:
    """Give the proxy, which does nothing wrong as yet."""
    connected.reset()
    return connected


@pytest.fixture
def bucket(proxy: Flaky) -> str:
    """Return a root of its own for a test."""
    return f"gs://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list of pauses that the client makes before it tries again; none takes time."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=sleep))
    return made
