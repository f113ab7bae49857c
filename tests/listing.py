"""A bucket that can only be read, made of names: it lists as Google does, in pages of a thousand.

The server of the other tests takes minutes to be filled and lists everything in one page.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from server import BUCKET

PAGE = 1000
"""As many objects and folders are in an answer."""


@dataclass
class Bucket:
    """The names of its objects, sorted, and where it listens."""

    names: list[str]
    url: str = ""

    def answer(self, path: str, query: dict[str, str]) -> dict[str, Any] | None:
        """Return the answer to a question: for the bucket, for a list, for an object."""
        _, _, key = path.partition("/o/")
        if key:
            name = unquote(key)
            place = bisect_left(self.names, name)
            return _object(name) if self.names[place : place + 1] == [name] else None
        return self._list(query) if path.endswith("/o") else {"name": BUCKET}

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "\0")
        below = self.names[bisect_left(self.names, prefix) :]
        entries: dict[str, bool] = {}
        for name in takewhile(lambda name: name.startswith(prefix), below):
            folder, cut, _ = name[len(prefix) :].partition(delimiter)
            entries[prefix + folder + cut] = bool(cut)
        first = int(query.get("pageToken", 0))
        page = list(entries)[first : first + PAGE]
        more = {"nextPageToken": str(first + PAGE)} if first + PAGE < len(entries) else {}
        return {
            "kind": "storage#objects",
            "prefixes": [entry for entry in page if entries[entry]],
            "items": [_object(entry) for entry in page if not entries[entry]],
            **more,
        }


def _object(name: str) -> dict[str, str]:
    return {"name": name, "bucket": BUCKET, "size": "2", "updated": "2026-01-01T00:00:00.000Z"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *arguments: Any) -> None:
        """Say nothing: the proxy counts."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: value[0] for key, value in parse_qs(url.query).items()}
        found = self.server.bucket.answer(url.path, query)
        data = json.dumps(found or {"error": {"code": 404, "message": "No such object"}}).encode()
        self.send_response_only(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    bucket: Bucket


@contextmanager
def listing(names: list[str]) -> Iterator[Bucket]:
    """Give a bucket with these objects that listens on loopback."""
    with _Server(("127.0.0.1", 0), _Handler) as httpd:
        url = f"http://127.0.0.1:{httpd.server_port}"
        httpd.bucket = Bucket(sorted(names), url)
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield httpd.bucket
        finally:
            httpd.shutdown()
            thread.join()
