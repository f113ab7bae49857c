"""What a lease is, wherever it lies: the same tests for a folder and for a bucket.

A module that imports them gives a `root` of stores that other processes reach, too.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from finescale.errors import TransientError
from finescale.leases import FOLDER, Lease, Watch, acquire, wait
from finescale.storage import Objects

LONG = 60.0
"""A lease that does not run out within a test."""
N_CONTENDERS, N_TIMES = 8, 2
COUNT = """
import sys, time
from pathlib import Path
from finescale.leases import acquire
root, counter, times = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
for _ in range(times):
    lease = acquire(root, "x", seconds=2)
    number = int(counter.read_text())
    time.sleep(0.01)
    counter.write_text(str(number + 1))
    lease.release()
"""
HOLD = """
import sys
from finescale.errors import TransientError
from finescale.leases import acquire
lease = acquire(sys.argv[1], "x", seconds=float(sys.argv[2]))
print("held", flush=True)
sys.stdin.readline()
try:
    lease.fence.check()
except TransientError as error:
    print(error)
lease.release()
"""


@contextmanager
def holder(root: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Give a process that holds the lease until a line is sent to it, then shows its fence."""
    command = [sys.executable, "-c", HOLD, root, str(seconds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def beside(do: Callable[[], Any]) -> Future[Any]:
    """Let something run beside the test, which need not wait for its end."""
    future: Future[Any] = Future()
    threading.Thread(target=lambda: future.set_result(do()), daemon=True).start()
    return future


def lying(root: str) -> set[str]:
    return set(Objects(f"{root}/{FOLDER}").list())


def test_a_lease_that_is_given_back_leaves_nothing(root: str) -> None:
    lease = acquire(root, "x")
    assert lying(root) == {"x.1"} and lease.fence.number == 1 and not lease.waited
    lease.fence.check()
    lease.release()
    assert lying(root) == set()
    with pytest.raises(TransientError):
        lease.fence.check()
    lease.release()


def test_stores_have_leases_of_their_own(root: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        held = [pool.submit(acquire, root, name).result(10) for name in ("x.1", "xy", "x")]
    assert lying(root) == {"x.1", "xy.1", "x.1.1"}
    for lease in held:
        lease.release()


def test_threads_hold_a_lease_one_after_the_other(root: str, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count(_: int) -> None:
        lease = acquire(root, "x", seconds=2)
        number = int(counter.read_text())
        time.sleep(0.01)
        counter.write_text(str(number + 1))
        lease.release()

    with ThreadPoolExecutor(N_CONTENDERS) as pool:
        list(pool.map(count, range(N_CONTENDERS * N_TIMES)))
    assert int(counter.read_text()) == N_CONTENDERS * N_TIMES
    assert lying(root) == set()


def test_processes_hold_a_lease_one_after_the_other(root: str, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, root, str(counter), str(N_TIMES)]
    n = 3 if "://" in root else N_CONTENDERS  # a process takes a second to import its client
    contenders = [subprocess.Popen(command) for _ in range(n)]
    assert [contender.wait(60) for contender in contenders] == [0] * n
    assert int(counter.read_text()) == n * N_TIMES
    assert lying(root) == set()


def test_a_holder_that_renews_is_never_taken_over(root: str) -> None:
    lease = acquire(root, "x", seconds=1)
    other = beside(lambda: acquire(root, "x"))
    time.sleep(2.5)
    assert not other.done() and lying(root) == {"x.1"}
    lease.fence.check()
    lease.release()
    taken = other.result(10)
    assert taken.waited
    taken.release()


def test_a_holder_that_stood_still_is_taken_over_and_stops(root: str) -> None:
    with holder(root, seconds=0.5) as process:
        process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        lease = acquire(root, "x", seconds=LONG)
        assert time.monotonic() - begun > 0.5
        assert lying(root) == {"x.2"} and lease.fence.number == 2 and lease.waited
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate("\n", timeout=10)
    assert said == (
        f"{root}/{FOLDER}/x.1: this job stood still for longer than its lease "
        "and another run took over the store; nothing is lost: type the same command again\n"
    )
    lease.fence.check()
    assert lying(root) == {"x.2"}, "what the other gave back was not ours"
    lease.release()


def test_a_process_of_this_machine_that_died_is_taken_over_at_once(root: str) -> None:
    for number in (1, 2):
        with holder(root, LONG) as process:
            assert lying(root) == {f"x.{number}"}
            process.kill()
            process.wait()
    begun = time.monotonic()
    lease = acquire(root, "x")
    assert time.monotonic() - begun < 5
    assert lease.fence.number == 3, "it grows with each who takes over"
    lease.release()


def test_waiting_ends_at_once_when_nobody_holds_the_lease(root: str) -> None:
    other = acquire(root, "another")
    wait(root, "x")
    other.release()


def test_waiting_ends_when_the_lease_is_given_back(root: str) -> None:
    lease = acquire(root, "x", seconds=1)
    waiting = beside(lambda: wait(root, "x"))
    time.sleep(0.5)
    assert not waiting.done()
    lease.release()
    waiting.result(10)


def test_waiting_ends_when_the_holder_is_gone(root: str) -> None:
    with holder(root, LONG) as process:
        process.kill()
        process.wait()
    wait(root, "x")
    assert lying(root) == {"x.1"}, "who only reads takes nothing over"


def give_back_and_take(root: str) -> Lease:
    """Take over, give back, and take what is free then: the name of the lease that ran out."""
    acquire(root, "x").release()
    return acquire(root, "x")


def taken_over_twice(root: str) -> Lease:
    """Let another come first and die, so that one more takes over."""
    with holder(root, LONG) as process:
        process.kill()
        process.wait()
    return acquire(root, "x")


@pytest.mark.parametrize(
    ("dead", "others"), [(True, give_back_and_take), (False, taken_over_twice)]
)
def test_whoever_comes_between_look_and_step_keeps_the_lease(
    dead: bool, others: Callable[[str], Lease], root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A contender that stands still before its step finds the name free that it means to take."""
    if dead:
        with holder(root, LONG) as process:
            process.kill()
            process.wait()
    create, came = Objects.create, Future[Lease]()

    def late(self: Objects, key: str, data: bytes) -> bool:
        monkeypatch.setattr(Objects, "create", create)
        came.set_result(others(root))
        return create(self, key, data)

    monkeypatch.setattr(Objects, "create", late)
    contender = beside(lambda: acquire(root, "x", seconds=LONG))
    other = came.result(20)
    time.sleep(0.5)
    assert not contender.done()
    other.fence.check()
    other.release()
    lease = contender.result(10)
    assert lease.waited
    lease.fence.check()
    lease.release()


def test_a_lease_that_is_taken_anew_within_a_look_is_not_over(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, version = acquire(root, "x"), Objects.version
    monkeypatch.setattr(Objects, "version", lambda self, key: None)
    watched = Watch(Objects(f"{root}/{FOLDER}"))
    assert not watched.is_over("x.1")
    monkeypatch.setattr(Objects, "version", version)
    assert not watched.is_over("x.1")
    lease.release()
    assert not watched.is_over("x.1")


def test_a_lease_that_was_given_back_at_the_first_look_was_waited_for(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its store may be committed by now, and must not be made anew."""
    before, version = acquire(root, "x"), Objects.version

    def late(self: Objects, key: str) -> str | None:
        before.release()
        return version(self, key)

    monkeypatch.setattr(Objects, "version", late)
    lease = acquire(root, "x")
    assert lease.waited and lease.fence.number == 1
    lease.release()
