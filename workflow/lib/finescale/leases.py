"""Leases: one writer at a time for a store, among all runs that share a root of stores.

A lease is an object `<stores>/.leases/<identity>.<number>` that only one writer can create. Its
holder renews it; whoever sees it unchanged for its length, by his own clock, may take over: he
creates the next number, which again only one can, and removes the one before. A holder that was
asleep meanwhile finds its own number gone, or another's, and stops: the fence. No clock is ever
compared with another machine's.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finescale.errors import FinescaleError, TransientError
from finescale.storage import Objects

log = logging.getLogger("finescale")

FOLDER = ".leases"
SECONDS = 60.0
"""A lease that nobody renewed for so long has no holder."""
BEATS = 6
"""Renewals in that time: a few may fail."""


@dataclass(frozen=True)
class Fence:
    """What a writer shows before it writes; it can be sent to any process."""

    objects: Objects
    key: str
    owner: str

    @property
    def number(self) -> int:
        """Return how many writers held this lease in a row, this one included."""
        return int(self.key.rpartition(".")[2])

    def check(self) -> None:
        """Do nothing while the lease is ours.

        Raises
        ------
        TransientError
            Another writer has taken over.
        """
        if not self.holds():
            raise TransientError(
                f"{self.objects.url}/{self.key}: this job stood still for longer than its lease "
                "and another run took over the store; nothing is lost: type the same command again"
            )

    def holds(self) -> bool:
        """Tell whether the lease is ours."""
        try:
            return bool(_holder(self.objects.get(self.key)).get("owner") == self.owner)
        except FileNotFoundError:
            return False


@dataclass
class Lease:
    """A held lease; renewed by a thread until it is released or the process ends."""

    fence: Fence
    seconds: float
    waited: bool
    """Whether another writer held it before."""
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._renewing = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._renewing.start()

    def _beat(self) -> None:
        while not self._stop.wait(self.seconds / BEATS):
            try:
                if not self.fence.objects.renew(self.fence.key):
                    return
            except (FinescaleError, OSError) as error:
                log.warning("%s could not be renewed: %s", self.fence.key, error)

    def release(self) -> None:
        """Give the lease back; one that was lost is another's and stays.

        Where the storage does not answer it runs out: no reason to fail when the work is done.
        """
        self._stop.set()
        self._renewing.join()
        try:
            if self.fence.holds():
                self.fence.objects.remove([self.fence.key])
        except TransientError as error:
            log.warning("%s could not be given back and runs out: %s", self.fence.key, error)


def acquire(root: str, identity: str, *, seconds: float | None = None) -> Lease:
    """Return the lease of a store, after its present holder has released it or is gone.

    Parameters
    ----------
    root
        Of stores.
    identity
        Of the store.
    seconds
        Length of the lease (default: `SECONDS`).
    """
    objects = Objects(f"{root}/{FOLDER}")
    seconds = SECONDS if seconds is None else seconds
    mine = {**_this_process(), "owner": uuid.uuid4().hex, "seconds": seconds}
    content = json.dumps(mine, sort_keys=True).encode()
    watched, waited = Watch(objects), False
    while True:
        held = _held(objects, identity)
        number, waited = held[-1] if held else 0, waited or bool(held)
        before, key = f"{identity}.{number}", f"{identity}.{number + 1}"
        if held and not watched.is_over(before):
            watched.pause()
        elif objects.create(key, content):
            # Between our look and our step others may have come, to go or to stay.
            alone = _held(objects, identity) == [*held, number + 1]
            if alone and (not held or watched.is_over(before)):
                objects.remove(f"{identity}.{n}" for n in held)
                return Lease(Fence(objects, key, str(mine["owner"])), seconds, waited)
            objects.remove([key])


def wait(root: str, identity: str) -> None:
    """Return once nobody holds the lease of a store; at once if nobody does."""
    objects = Objects(f"{root}/{FOLDER}")
    watched = Watch(objects)
    while (held := _held(objects, identity)) and not watched.is_over(f"{identity}.{held[-1]}"):
        watched.pause()


@dataclass
class Watch:
    """Looks at leases and knows since when each of them is unchanged, by its own clock."""

    objects: Objects
    since: dict[str, tuple[str | None, float]] = field(default_factory=dict)
    holder: dict[str, Any] = field(default_factory=dict)

    def is_over(self, key: str) -> bool:
        """Tell whether a lease has no living holder.

        It is known to be unchanged from after the first look until before the last one, however
        long a look takes, or this process stands still within it.
        """
        begun, version = time.monotonic(), self.objects.version(key)
        seen = time.monotonic()
        try:
            self.holder = _holder(self.objects.get(key))
        except FileNotFoundError:
            return False  # released just now: look again
        if key not in self.since:
            log.info("waiting for %s, held by %s", key, self.holder.get("host", "nobody known"))
        if key not in self.since or self.since[key][0] != version:
            self.since[key] = version, seen
        return _is_dead(self.holder) or begun - self.since[key][1] > self._seconds

    @property
    def _seconds(self) -> float:
        return float(self.holder.get("seconds", SECONDS))

    def pause(self) -> None:
        """Wait a little before the next look."""
        time.sleep(min(self._seconds / BEATS, 1.0))


def list_held(root: str) -> dict[str, dict[str, Any]]:
    """Return what is known of the holder of every lease below a root, by key."""
    objects = Objects(f"{root}/{FOLDER}")
    found = {}
    for key in objects.list():
        try:
            found[key] = _holder(objects.get(key))
        except FileNotFoundError:
            continue
    return found


def _held(objects: Objects, identity: str) -> list[int]:
    """Return the numbers of the leases of a store, ascending; the last one is valid."""
    names = (key.rpartition(".") for key in objects.list())
    return sorted(int(n) for name, _, n in names if name == identity and n.isdigit())


def _holder(content: bytes) -> dict[str, Any]:
    """Return what a lease says; nothing if it cannot be read, so that it runs out."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    known = isinstance(found, dict) and isinstance(found.get("seconds"), int | float)
    return found if known else {}


def _this_process() -> dict[str, Any]:
    """Return who we are, so that others on this machine can see whether we live."""
    return {
        "host": platform.node(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _machine() -> str:
    """Return what names the machine and its process numbers; empty where nothing does."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return when a process began, in ticks of its machine; None if it does not live."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _is_dead(holder: dict[str, Any]) -> bool:
    """Tell whether a holder was a process of this machine that has ended."""
    here = _machine()
    return (
        bool(here)
        and holder.get("machine") == here
        and _started(int(holder["pid"])) != holder.get("started")
    )
