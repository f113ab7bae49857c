"""Objects below a root, a folder or a URL: each is there whole or not at all.

What a store, a journal and a lease are made of. Errors of file systems and services come out as
ours: a full disk or a refused permission ends a run with one message, a failing network is worth
a retry (the service's client has retried with growing pauses before it gives up).
"""

from __future__ import annotations

import base64
import errno
import logging
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import fsspec

from finescale.errors import FinescaleError, StoreError, TransientError

# It would print a traceback for each failure that comes out as one of our errors.
logging.getLogger("gcsfs").addHandler(logging.NullHandler())

PARTIAL = ".partial"  # zarr's word too for a file that is not yet renamed
FULL = {errno.ENOSPC, errno.EDQUOT}
NETWORK = ("aiohttp", "requests", "google", "botocore", "urllib3")


@contextmanager
def reported(url: str) -> Iterator[None]:
    """Turn a failure of storage into an error that says what to do; others pass unchanged."""
    try:
        yield
    except (FinescaleError, FileNotFoundError, FileExistsError):
        raise  # an answer, and the caller's to judge
    except Exception as error:
        ours = _ours(error, url)
        if ours is None:
            raise
        raise ours from error


def _ours(error: Exception, url: str) -> FinescaleError | None:
    number, code = getattr(error, "errno", None), str(getattr(error, "code", ""))
    if number in FULL:
        return StoreError(
            f"{url}: no space is left; what is finished is kept: make room and type the same "
            "command again (`finescale gc` lists what no configuration needs)"
        )
    first_line = str(error).partition("\n")[0]
    refused = isinstance(error, PermissionError) or number == errno.EROFS
    if refused or code in ("401", "403") or str(error).startswith("Forbidden"):
        return StoreError(
            f"{url}: writing or reading there is not permitted ({first_line}); "
            "check the owner of the folder, or the roles of the account on the bucket"
        )
    away = isinstance(error, ConnectionError | TimeoutError) or code[:1] == "5" or code == "429"
    if away or type(error).__module__.startswith(NETWORK):
        return TransientError(
            f"{url}: the storage does not answer ({type(error).__name__}: {error}); "
            "type the same command again, what is finished is kept"
        )
    return None


@dataclass(frozen=True)
class Entry:
    """An object in a listing; the rest where the storage reports it.

    `crc32c` as 8 hex digits, `modified` in seconds since 1970 by the clock of the storage.
    """

    size: int
    crc32c: str | None = None
    modified: float | None = None


@dataclass(frozen=True)
class Objects:
    """The objects below a root; keys are relative to it, with slashes."""

    url: str

    def _at(self, key: str = "") -> tuple[Any, str]:
        fs, root = fsspec.core.url_to_fs(self.url)
        return fs, f"{root.rstrip('/')}/{key}" if key else root

    @property
    def is_local(self) -> bool:
        """Tell whether the root is a folder of this machine."""
        return "://" not in self.url or self.url.startswith(("file://", "local://"))

    def get(self, key: str) -> bytes:
        """Return an object; FileNotFoundError if it is not there."""
        fs, path = self._at(key)
        with reported(self.url):
            return bytes(fs.cat_file(path))

    def put(self, key: str, data: bytes) -> None:
        """Write an object atomically: rename on a file system, one request elsewhere."""
        fs, path = self._at(key)
        with reported(self.url):
            if self.is_local:
                with _partial(path, data) as partial:
                    os.replace(partial, path)
            else:
                with _bucket(self.url):
                    fs.pipe_file(path, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object atomically unless there is one; tell whether it is this one.

        A request that was repeated after a lost answer finds its own object: `data` that no other
        process writes make it certain.
        """
        fs, path = self._at(key)
        with reported(self.url):
            try:
                if self.is_local:
                    with _partial(path, data) as partial:
                        os.link(partial, path)
                else:
                    with _bucket(self.url):
                        fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                with suppress(FileNotFoundError):
                    return self.get(key) == data
                return False
        return True

    def renew(self, key: str) -> bool:
        """Change the version of an object; False if it is gone, and it stays gone."""
        fs, path = self._at(key)
        with reported(self.url), suppress(FileNotFoundError):
            if self.is_local:
                os.utime(path)
            elif hasattr(fs, "setxattrs"):
                fs.setxattrs(path, beat=uuid.uuid4().hex)
            else:
                fs.pipe_file(path, fs.cat_file(path))
            return True
        return False

    def version(self, key: str) -> str | None:
        """Return what changes whenever the object is written or renewed; None if it is gone."""
        fs, path = self._at(key)
        with reported(self.url), suppress(FileNotFoundError):
            fs.invalidate_cache()
            if self.is_local:
                status = os.stat(path)
                return f"{status.st_ino} {status.st_mtime_ns}"
            info = fs.info(path)
            fields = ("generation", "metadata", "ETag", "LastModified", "created")
            return " ".join(str(info.get(name)) for name in fields)
        return None

    def list(self) -> dict[str, Entry]:
        """Return every object below the root, by key; empty if there is no such root.

        Raises
        ------
        StoreError
            There is no such bucket.
        """
        fs, root = self._at()
        with reported(self.url):
            if self.is_local:
                return dict(_below(root))
            fs.invalidate_cache()
            with _bucket(self.url):
                found = fs.find(root, detail=True)
        start = len(root.rstrip("/")) + 1
        return {
            path[start:]: Entry(int(info["size"]), _crc32c(info), _modified(info))
            for path, info in found.items()
        }

    def folders(self) -> tuple[str, ...]:
        """Return the names of the folders in the root, without a look at what lies in them."""
        fs, root = self._at()
        with reported(self.url), suppress(FileNotFoundError):
            fs.invalidate_cache()
            found = fs.ls(root, detail=True)
            folders = (one["name"] for one in found if one["type"] == "directory")
            return tuple(name.rstrip("/").rpartition("/")[2] for name in folders)
        return ()

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""
        fs, _ = self._at()
        with reported(self.url):
            for key in keys:
                with suppress(FileNotFoundError):
                    fs.rm_file(self._at(key)[1])

    def clear(self) -> None:
        """Remove the root and everything below it."""
        fs, root = self._at()
        with reported(self.url), suppress(FileNotFoundError):
            fs.invalidate_cache()
            fs.rm(root, recursive=True)

    def exists(self) -> bool:
        """Tell whether there is such a root."""
        fs, root = self._at()
        with reported(self.url):
            return bool(fs.exists(root))


def _below(folder: str, prefix: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield the files below a folder by key; fsspec would leave out what it cannot read."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir():
                yield from _below(entry.path, f"{prefix}{entry.name}/")
                continue
            with suppress(FileNotFoundError):  # removed since
                status = entry.stat()
                yield prefix + entry.name, Entry(status.st_size, modified=status.st_mtime)


def _crc32c(info: dict[str, Any]) -> str | None:
    reported_by_service = info.get("crc32c")
    return base64.b64decode(reported_by_service).hex() if reported_by_service else None


def _modified(info: dict[str, Any]) -> float | None:
    """Return when an object was last written, from whichever field a file system gives."""
    times = (info.get(name) for name in ("updated", "mtime", "LastModified", "created"))
    found = next((time for time in times if time is not None), None)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    return found.timestamp() if isinstance(found, datetime) else found


@contextmanager
def _bucket(url: str) -> Iterator[None]:
    """Say what is missing when objects cannot be written or listed: the bucket."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(
            f"{url}: there is no such bucket; create it, or correct `stores` in the configuration"
        ) from error


@contextmanager
def _partial(path: str, data: bytes) -> Iterator[str]:
    """Give a file beside `path` with these data; what is left of it is removed."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = f"{path}.{uuid.uuid4().hex}{PARTIAL}"
    try:
        with open(partial, "wb") as file:
            file.write(data)
        yield partial
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)
