"""Leases: one writer at a time, whatever clocks, processes and threads do."""

from __future__ import annotations

import json
import logging
import os
import pickle
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finescale import leases
from finescale.errors import TransientError
from finescale.leases import FOLDER, Watch, acquire, list_held
from finescale.storage import Objects

pytest.register_assert_rewrite("lease_cases")
from lease_cases import *  # noqa: E402, F403  the tests that hold wherever a lease lies

ELSEWHERE = json.dumps({"host": "b", "machine": "another", "pid": 1, "seconds": 10}).encode()
"""The lease of a process that cannot be seen from here."""


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Return a root of stores that other processes reach, too."""
    return str(tmp_path / "stores")


@given(st.lists(st.tuples(st.floats(0, 15), st.none() | st.integers(-(10**6), 10**7))))
def test_a_lease_is_over_once_it_was_seen_unchanged_for_its_length(
    steps: list[tuple[float, int | None]],
) -> None:
    """By the clock of who looks: those of the holder and of the storage say anything."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder, "x.1").write_bytes(ELSEWHERE)
        watched, now, seen_first = Watch(Objects(folder)), 0.0, None
        patch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: now))
        for n, (passed, wall_clock) in enumerate(steps):
            now += passed
            if wall_clock is not None:
                os.utime(Path(folder, "x.1"), (0, wall_clock * 1000 + n))
            if wall_clock is not None or seen_first is None:
                seen_first = now
            assert watched.is_over("x.1") == (now - seen_first > 10)


def test_a_look_that_takes_long_takes_nothing_over(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network may be slow, or this process asleep, between question and answer."""
    objects, version, now = Objects(f"{root}/{FOLDER}"), Objects.version, 0.0
    objects.put("x.1", ELSEWHERE)

    def slow(self: Objects, key: str) -> str | None:
        nonlocal now
        found = version(self, key)
        now += 100
        return found

    monkeypatch.setattr(Objects, "version", slow)
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: now))
    watched = Watch(objects)
    assert [watched.is_over("x.1") for _ in range(3)] == [False, False, True]


def test_a_lease_outlives_renewals_that_fail(
    root: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    renew, failures = Objects.renew, [TransientError("a"), OSError("b"), TransientError("c")]

    def failing(self: Objects, key: str) -> bool:
        if failures:
            raise failures.pop(0)
        return renew(self, key)

    monkeypatch.setattr(Objects, "renew", failing)
    lease = acquire(root, "x", seconds=0.6)
    before = lease.fence.objects.version("x.1")
    time.sleep(0.8)
    assert lease.fence.objects.version("x.1") != before
    lease.release()
    assert [record.getMessage() for record in caplog.records] == [
        f"x.1 could not be renewed: {name}" for name in "abc"
    ]


def test_giving_a_lease_back_over_a_network_that_fails_fails_nothing(
    root: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is committed by then, or the error that matters is another one."""

    def away(self: Objects, key: str) -> bytes:
        raise TransientError("away")

    lease = acquire(root, "x")
    monkeypatch.setattr(Objects, "get", away)
    lease.release()
    assert caplog.messages == ["x.1 could not be given back and runs out: away"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"seconds": null}'])
def test_a_lease_that_cannot_be_read_runs_out(
    content: bytes, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Objects(f"{root}/{FOLDER}").put("x.7", content)
    monkeypatch.setattr(leases, "SECONDS", 0.3)
    begun = time.monotonic()
    lease = acquire(root, "x", seconds=60)
    assert time.monotonic() - begun > 0.3
    assert lease.fence.number == 8
    lease.release()


def test_a_lease_that_waits_says_for_whom(root: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="finescale")
    objects = Objects(f"{root}/{FOLDER}")
    objects.put("x.1", ELSEWHERE)
    watched = Watch(objects)
    for _ in range(3):
        watched.is_over("x.1")
    assert caplog.messages == ["waiting for x.1, held by b"]


def test_a_fence_can_be_sent_to_another_process(root: str) -> None:
    lease = acquire(root, "x")
    sent = pickle.loads(pickle.dumps(lease.fence))
    sent.check()
    lease.release()
    assert not sent.holds()


def test_leases_are_listed_with_their_holders(root: str) -> None:
    assert list_held(root) == {}
    lease = acquire(root, "x")
    Objects(f"{root}/{FOLDER}").put("y.3", b"{")
    held = list_held(root)
    assert held.keys() == {"x.1", "y.3"} and held["y.3"] == {}
    assert held["x.1"]["pid"] == os.getpid() and held["x.1"]["owner"] == lease.fence.owner
    lease.release()
