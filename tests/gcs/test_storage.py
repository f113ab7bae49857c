"""Objects: whole or not at all, in a folder, in memory and in a bucket whose network fails."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from gcsfs.retry import HttpError
from hypothesis import given, settings
from hypothesis import strategies as st
from server import BUCKET, Flaky

from finescale.errors import FinescaleError, StoreError, TransientError
from finescale.storage import Objects, reported

UPLOAD, DOWNLOAD, LIST, RENEW, REMOVE = (
    "POST .*/o[?]",
    "GET /download",
    "GET .*/o[?]",
    "PATCH",
    "DELETE",
)


@pytest.fixture(scope="module", params=["folder", "memory", "bucket"])
def base(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, connected: Flaky
) -> str:
    """Return where the tests of this module may write."""
    folder = str(tmp_path_factory.mktemp("objects"))
    return {"folder": folder, "memory": "memory:/" + folder, "bucket": f"gs://{BUCKET}"}[
        request.param
    ]


@pytest.fixture
def root(base: str) -> str:
    """Return a root of its own for a test."""
    return f"{base}/{uuid.uuid4().hex}"


# --------------------------------------------------------------------------------------
# What objects are

KEYS = st.sampled_from(["a", "b.json", "c/0.0", "c/0.1", "c/d/e"])
DATA = st.binary(max_size=40)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, DATA),
        st.tuples(st.just("create"), KEYS, DATA),
        st.tuples(st.sampled_from(["renew", "remove"]), KEYS),
        st.tuples(st.just("clear")),
    ),
    max_size=8,
)


def change(content: dict[str, bytes], do: str, *arguments: Any) -> bool | None:
    """Do to a dictionary what a method of `Objects` does to storage, and return the same."""
    key, *data = arguments or ("",)
    there = key in content
    if do == "put":
        content[key] = data[0]
    elif do == "create":
        return content.setdefault(key, data[0]) == data[0]
    elif do == "renew":
        return there
    elif do == "remove":
        content.pop(key, None)
    else:
        content.clear()
    return None


@given(STEPS)
@settings(max_examples=25)
def test_objects_behave_like_a_dictionary(base: str, steps: list[tuple[Any, ...]]) -> None:
    objects = Objects(f"{base}/{uuid.uuid4().hex}")
    content: dict[str, bytes] = {}
    for do, *arguments in steps:
        given_to = [arguments] if do == "remove" else arguments
        assert getattr(objects, do)(*given_to) == change(content, do, *arguments)
    listed = objects.list()
    assert {key: entry.size for key, entry in listed.items()} == {
        key: len(data) for key, data in content.items()
    }
    assert {key: objects.get(key) for key in listed} == content
    checksums = {key: f"{google_crc32c.value(data):08x}" for key, data in content.items()}
    if base.startswith("gs://"):
        assert {key: entry.crc32c for key, entry in listed.items()} == checksums


def test_what_is_not_there_is_said_to_be_missing(root: str) -> None:
    objects = Objects(root)
    assert not objects.exists()
    assert objects.list() == {}
    assert objects.version("a") is None
    with pytest.raises(FileNotFoundError):
        objects.get("a")
    objects.put("a", b"1")
    assert objects.exists()


def test_a_version_changes_whenever_an_object_is_written_or_renewed(root: str) -> None:
    """Twice the same bytes, too; a look changes nothing."""
    objects = Objects(root)
    seen = []
    for step in (objects.put, objects.put, lambda key, _: objects.renew(key), objects.put):
        step("a", b"1")
        seen.append(objects.version("a"))
        assert objects.get("a") == b"1"
        assert objects.version("a") == seen[-1]
    objects.renew("a")
    objects.renew("a")
    assert len({*seen, objects.version("a")}) == len(seen) + 1


def test_an_object_that_is_renewed_after_it_was_removed_stays_removed(root: str) -> None:
    objects = Objects(root)
    objects.put("a", b"1")
    objects.remove(["a"])
    assert not objects.renew("a")
    assert objects.list() == {}


def test_roots_whose_names_begin_alike_are_apart(root: str) -> None:
    """As those of a store and its journal."""
    store, journal = Objects(root), Objects(f"{root}.journal")
    journal.put("a", b"1")
    assert not store.exists() and store.list() == {}
    store.clear()
    store.put("b/c", b"2")
    store.clear()
    assert not store.exists()
    assert journal.list().keys() == {"a"}


@pytest.mark.parametrize("base", ["folder", "bucket"], indirect=True)
def test_one_of_many_creates_an_object(root: str) -> None:
    """Not in memory, which fsspec has not made for several writers of one object."""
    for n in range(5):

        def create(data: bytes, key: str = f"lease/{n}") -> bool:
            return Objects(root).create(key, data)

        offered = [bytes([i]) * 1000 for i in range(8)]
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, offered))
        assert won.count(True) == 1
        assert Objects(root).get(f"lease/{n}") == offered[won.index(True)]
    assert len(Objects(root).list()) == 5, "nothing else is left"


# --------------------------------------------------------------------------------------
# A network that fails

PUT = """
import sys
from finescale.errors import StoreError
from finescale.storage import Objects
try:
    Objects(sys.argv[1]).put("a", b"1")
except StoreError as error:
    print(error)
"""

DO: dict[str, Callable[[Objects], Any]] = {
    UPLOAD: lambda objects: objects.put("a", b"1"),
    "POST .*ifGenerationMatch=0": lambda objects: objects.create("new", b"1"),
    DOWNLOAD: lambda objects: objects.get("a"),
    LIST: lambda objects: objects.list(),
    RENEW: lambda objects: objects.renew("a"),
    REMOVE: lambda objects: objects.remove(["a"]),
}


@pytest.fixture(params=DO, ids=["put", "create", "get", "list", "renew", "remove"])
def request_(request: pytest.FixtureRequest, bucket: str) -> tuple[str, Callable[[], Any]]:
    """Return the pattern of a request and what makes it, on a root that holds one object."""
    objects = Objects(bucket)
    objects.put("a", b"1")
    return request.param, lambda: DO[request.param](objects)


Asked = tuple[str, Callable[[], Any]]


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_that_is_refused_for_a_while_is_repeated_with_growing_pauses(
    request_: Asked, status: int, proxy: Flaky, pauses: list[float]
) -> None:
    pattern, do = request_
    proxy.reset()
    proxy.fail(pattern, 4, status=status)
    do()
    assert len(pauses) == 4
    assert pauses == sorted(pauses) and pauses[-1] > 4 * pauses[0]
    assert proxy.count(pattern) >= 5


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_stays_away_is_worth_another_run(
    request_: Asked, status: int, proxy: Flaky, pauses: list[float], bucket: str
) -> None:
    pattern, do = request_
    proxy.fail(pattern, 100, status=status)
    with pytest.raises(TransientError) as caught:
        do()
    assert str(caught.value) == (
        f"{bucket}: the storage does not answer (HttpError: as the test wants it, {status}); "
        "type the same command again, what is finished is kept"
    )
    assert 3 <= len(pauses) <= 10 and sum(pauses) < 120, "it ends"


@pytest.mark.parametrize("status", [401, 403])
def test_a_request_that_is_not_permitted_is_not_repeated(
    request_: Asked, status: int, proxy: Flaky, pauses: list[float], bucket: str
) -> None:
    pattern, do = request_
    proxy.reset()
    proxy.fail(pattern, 100, status=status)
    with pytest.raises(StoreError) as caught:
        do()
    message = str(caught.value)
    assert message.startswith(f"{bucket}: writing or reading there is not permitted (")
    assert message.endswith("or the roles of the account on the bucket") and "\n" not in message
    assert pauses == [] and proxy.count(pattern) == 1


@pytest.mark.parametrize("do", [DO[UPLOAD], DO["POST .*ifGenerationMatch=0"], DO[LIST]])
def test_a_missing_bucket_is_named(do: Callable[[Objects], Any], proxy: Flaky) -> None:
    with pytest.raises(StoreError) as caught:
        do(Objects("gs://no-such-bucket/stores"))
    assert str(caught.value) == (
        "gs://no-such-bucket/stores: there is no such bucket; create it, or correct `stores` in "
        "the configuration"
    )


@pytest.mark.parametrize("old", [None, b"old" * 1000])
@pytest.mark.parametrize("after", [0, 300, 200_000])
def test_an_upload_that_is_cut_leaves_what_was_there_and_is_repeated(
    after: int, old: bytes | None, bucket: str, proxy: Flaky, pauses: list[float]
) -> None:
    data, objects = os.urandom(300_000), Objects(bucket)
    if old:
        objects.put("a", old)
    proxy.fail(UPLOAD, 100, upload=after)
    with pytest.raises(TransientError):
        objects.put("a", data)
    assert {key: objects.get(key) for key in objects.list()} == ({"a": old} if old else {})
    proxy.reset()
    proxy.fail(UPLOAD, 2, upload=after)
    objects.put("a", data)
    assert objects.get("a") == data
    assert objects.list()["a"].crc32c == f"{google_crc32c.value(data):08x}"


@pytest.mark.parametrize("after", [0, 200_000])
def test_a_download_that_is_cut_is_repeated(
    after: int, bucket: str, proxy: Flaky, pauses: list[float]
) -> None:
    data, objects = os.urandom(300_000), Objects(bucket)
    objects.put("a", data)
    proxy.fail(DOWNLOAD, 2, answer=after)
    assert objects.get("a") == data
    assert len(pauses) == 2
    proxy.fail(DOWNLOAD, 100, answer=after)
    with pytest.raises(TransientError):
        objects.get("a")


def test_a_creation_whose_answer_is_lost_knows_its_own_object(
    bucket: str, proxy: Flaky, pauses: list[float]
) -> None:
    """The repeated request is told that the object is there; it is ours, not another's."""
    proxy.fail(UPLOAD, 1, answer=0)
    assert Objects(bucket).create("a", b"mine")
    assert proxy.count(UPLOAD) == 2
    proxy.fail(UPLOAD, 1, answer=0)
    assert not Objects(bucket).create("a", b"another's")
    assert Objects(bucket).get("a") == b"mine"


def test_a_slow_answer_is_waited_for(bucket: str, proxy: Flaky, pauses: list[float]) -> None:
    proxy.fail(UPLOAD, 1, delay=0.5)
    Objects(bucket).put("a", b"1")
    assert pauses == [] and Objects(bucket).get("a") == b"1"


def test_a_server_that_is_gone_is_a_failure_of_the_network(
    proxy: Flaky, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match="gone/x: the storage does not answer"):
        Objects("gs://gone/x").put("a", b"1")


def test_a_failure_is_told_once(bucket: str, proxy: Flaky) -> None:
    """Left alone, gcsfs prints a traceback of its own for each."""
    proxy.fail(UPLOAD, 100, status=401)
    ran = subprocess.run(
        [sys.executable, "-c", PUT, bucket], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith(f"{bucket}: writing or reading there is not permitted")
    assert ran.stdout.count("\n") == 1 and ran.stderr == ""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), StoreError),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), StoreError),
        (OSError(errno.EROFS, "Read-only file system"), StoreError),
        (PermissionError("Access Denied"), StoreError),
        (ConnectionResetError(errno.ECONNRESET, "reset"), TransientError),
        (TimeoutError(), TransientError),
        (FileNotFoundError("x"), FileNotFoundError),
        (ZeroDivisionError("a defect"), ZeroDivisionError),
        (HttpError({"code": 500, "message": "backend error"}), TransientError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else repr(value),
)
def test_failures_are_told_apart(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, reported("x"):
        raise error
    assert type(caught.value) is kind
    assert not isinstance(caught.value, FinescaleError) or caught.value.__cause__ is error


# --------------------------------------------------------------------------------------
# A disk that fails


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Give a function that mounts a tiny file system on the test's folder, or again otherwise."""

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")

    yield mount
    subprocess.run(["umount", str(tmp_path)], check=False, capture_output=True)


def full(*_: Any) -> None:
    """Fail as a system call does on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("write", [Objects.put, Objects.create])
def test_a_full_disk_leaves_no_half_object(
    write: Callable[[Objects, str, bytes], Any], tmp_path: Path, mounted: Callable[[str], None]
) -> None:
    mounted("size=64k")
    objects = Objects(str(tmp_path))
    objects.put("old", b"old" * 1000)
    for key in ("old", "new") if write is Objects.put else ("new",):
        with pytest.raises(StoreError) as caught:
            write(objects, key, bytes(100_000))
        assert str(caught.value) == (
            f"{tmp_path}: no space is left; what is finished is kept: make room and type the same "
            "command again (`finescale gc` lists what no configuration needs)"
        )
    assert files(tmp_path) == {"old": b"old" * 1000}


@pytest.mark.parametrize("last_step", ["replace", "link"])
def test_a_disk_that_is_full_at_the_last_step_leaves_no_half_object(
    last_step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, last_step, full)
    objects = Objects(str(tmp_path))
    with pytest.raises(StoreError, match="no space is left"):
        (objects.put if last_step == "replace" else objects.create)("a/b", b"1")
    assert files(tmp_path) == {}


def test_a_read_only_folder_is_refused_with_one_message(
    tmp_path: Path, mounted: Callable[[str], None]
) -> None:
    mounted("size=64k")
    objects = Objects(str(tmp_path))
    objects.put("a", b"1")
    mounted("remount,ro")
    for do in (
        lambda: objects.put("a", b"2"),
        lambda: objects.create("b", b"2"),
        lambda: objects.renew("a"),
        lambda: objects.remove(["a"]),
        lambda: objects.put("folder/c", b"2"),
    ):
        with pytest.raises(StoreError, match="writing or reading there is not permitted"):
            do()
    assert objects.list().keys() == {"a"} and objects.get("a") == b"1"


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing without what could not be read would look like chunks that are missing."""
    objects = Objects(str(tmp_path))
    objects.put("a/b/c", b"1")
    scandir = os.scandir

    def refused(path: str) -> Any:
        if str(path).endswith("b"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(StoreError, match="not permitted"):
        objects.list()


def test_a_listing_says_when_an_object_was_written(root: str) -> None:
    objects = Objects(root)
    objects.put("a", b"1")
    first = objects.list()["a"].modified
    objects.put("b", b"1")
    second = objects.list()["b"].modified
    assert first and second and 1.6e9 < first <= second
