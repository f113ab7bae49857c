"""Leases in a bucket: what holds in a folder holds here, over a network that fails."""

from __future__ import annotations

import time

import pytest
from server import Flaky

from finescale.leases import acquire

pytest.register_assert_rewrite("lease_cases")
from lease_cases import *  # noqa: E402, F403  the tests that hold wherever a lease lies


@pytest.fixture
def root(bucket: str) -> str:
    """Return a root of stores that other processes reach, too."""
    return bucket


def test_a_lease_outlives_a_service_that_is_away_for_a_while(root: str, proxy: Flaky) -> None:
    lease = acquire(root, "x", seconds=0.6)
    before = lease.fence.objects.version("x.1")
    proxy.fail("PATCH", 1, status=503)
    for _ in range(100):
        time.sleep(0.1)
        if lease.fence.objects.version("x.1") != before:
            break
    else:
        raise AssertionError("it is not renewed any more")
    assert proxy.faults[0].times == 0
    lease.fence.check()
    lease.release()
