"""A stand-in for the Kubernetes API that really runs the command of every pod.

Real: what goes over the wire (secrets, jobs, pods, logs, label selectors, Status errors), the
environment from secrets, the command run by a user who is not root, in a mount namespace of its
own with a root that cannot be written and empty volumes, exit codes, what a node that goes away
leaves behind.
Not real: scheduling, images, limits of CPU and memory, RBAC, DNS, watches; and compiled functions
outlive a pod, so that the tests are quicker.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PATH = re.compile(
    r"/(?:api/v1|apis/batch/v1)/namespaces/(?P<namespace>[^/]+)/(?P<kind>secrets|jobs|pods)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<part>log|status))?"
)
KINDS = {"secrets": ("v1", "Secret"), "jobs": ("batch/v1", "Job"), "pods": ("v1", "Pod")}
ENTER = """
set -e
for pair in $POD_VOLUMES; do mount --rbind "${pair%%:*}" "${pair#*:}"; done
mount -o remount,bind,ro /
cd "$POD_FOLDER"
user=$POD_USER
unset POD_VOLUMES POD_FOLDER POD_USER
read="-all,+dac_read_search"
exec setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
    --inh-caps="$read" --ambient-caps="$read" --bounding-set="$read" "$@"
"""
"""What a container runtime does between a pod's volumes and its command.

Everything can be read, as in an image; this machine's Python may lie in a home of root's.
"""

CACHE = ".compiled"
"""Folder of a pod that they all share."""

Fate = Callable[["Pod"], None]
"""What becomes of a pod instead of its command being run to its end."""


class Refusal(Exception):
    """An answer that is a Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.document = {
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": code, "reason": reason, "message": message,
        }  # fmt: skip


@dataclass
class Pod:
    """A pod, the job it belongs to and the process of its command."""

    cluster: Cluster
    document: dict[str, Any]
    job: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    has_log: bool = True

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])

    @property
    def container(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["spec"]["containers"][0]
        return found

    @property
    def command(self) -> str:
        return " ".join([*self.container["command"], *self.container["args"]])

    @property
    def log(self) -> Path:
        return self.cluster.folder / f"{self.name}.log"

    def run(self) -> None:
        """Run the command to its end, as a kubelet would."""
        with self.cluster.slots:
            self._start()
            assert self.process is not None
            code = self.process.wait()
        if code == 0:
            return self.end(0, "Completed")
        code = 128 - code if code < 0 else code
        self.end(code, "OOMKilled" if code == 137 else "Error")

    def _start(self) -> None:
        if self.document["metadata"].get("deletionTimestamp"):
            raise Refusal(410, "Gone", "deleted before it began")
        spec, box = self.document["spec"], tempfile.mkdtemp(dir=self.cluster.folder)
        user = spec["securityContext"]["runAsUser"]
        volumes = {volume["name"]: Path(box, volume["name"]) for volume in spec["volumes"]}
        for volume in volumes.values():
            volume.mkdir()
            os.chown(volume, user, user)
        compiled = volumes["workdir"] / CACHE
        compiled.mkdir()
        # What the image holds stays to be seen, even if this machine keeps it in /tmp.
        shown = [path for path in self.cluster.shown if Path("/tmp") in path.parents]
        pairs = [(path, volumes["tmp"] / path.relative_to("/tmp")) for path in shown]
        for _, within in pairs:
            within.mkdir(parents=True)
        mounts = [
            f"{self.cluster.folder / CACHE}:{compiled}",
            *(f"{path}:{within}" for path, within in pairs),
            *(f"{volumes[m['name']]}:{m['mountPath']}" for m in self.container["volumeMounts"]),
        ]
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *self.container["command"], *self.container["args"]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment()
                | {"POD_VOLUMES": " ".join(mounts), "POD_USER": str(user)}
                | {"POD_FOLDER": self.container["workingDir"]},
                start_new_session=True,
            )
        self.state("Running", {"running": {"startedAt": _now()}})

    def _environment(self) -> dict[str, str]:
        found = dict(self.cluster.image)
        for variable in self.container.get("env") or []:
            reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
            if reference is None:
                found[variable["name"]] = variable["value"]
                continue
            secret = self.cluster.objects["secrets"][reference["name"]]
            found[variable["name"]] = base64.b64decode(secret["data"][reference["key"]]).decode()
        return found

    def state(self, phase: str, state: dict[str, Any], **status: Any) -> None:
        """Set what the API says of the pod."""
        container = {
            "name": "snakemake", "image": "x", "imageID": "x", "ready": phase == "Running",
            "restartCount": 0, "state": state, "lastState": {},
        }  # fmt: skip
        self.document["status"] = {"phase": phase, "containerStatuses": [container], **status}

    def end(self, code: int, reason: str, **status: Any) -> None:
        """Say that the container has ended, and that the job has."""
        ended = {"exitCode": code, "reason": reason, "finishedAt": _now()}
        self.state("Failed" if code else "Succeeded", {"terminated": ended}, **status)
        self.job["status"] = {"failed": 1} if code else {"succeeded": 1}

    def lose(self, phase: str, reason: str, message: str, *, job: bool = True) -> None:
        """End it as a node does that goes away: no state of a container, no log any more."""
        self.kill()
        self.document["status"] = {"phase": phase, "reason": reason, "message": message}
        self.has_log = False
        if job:
            self.job["status"] = {"failed": 1}

    def kill(self) -> None:
        """Kill its processes."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class Cluster:
    """Objects by kind and name, what was asked for, and what is to go wrong.

    `refuse` is asked before every request: ("POST", "jobs") -> an answer instead, or None.
    `fates` are taken by the pods whose command matches, each once.
    """

    folder: Path
    image: dict[str, str]
    shown: tuple[Path, ...] = ()
    slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(2))
    objects: dict[str, dict[str, Any]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    pods: dict[str, Pod] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    specs: list[dict[str, Any]] = field(default_factory=list)
    """Every job and secret as it came."""
    logs: list[str] = field(default_factory=list)
    """Of every pod that is gone."""
    fates: list[tuple[str, Fate]] = field(default_factory=list)
    refuse: Callable[[str, str], Refusal | None] = lambda verb, kind: None
    url: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """Return every job that was ever created."""
        return [spec for spec in self.specs if spec["kind"] == "Job"]

    def answer(self, verb: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        """Return the answer to a request."""
        match = PATH.fullmatch(path)
        if match is None:
            raise Refusal(404, "NotFound", f"the server could not find {path}")
        kind, name, part = match["kind"], match["name"], match["part"]
        self.requests.append(f"{verb} {kind}{'/' + part if part else ''}")
        if refusal := self.refuse(verb, kind):
            raise refusal
        with self.lock:
            if verb == "POST":
                return self._create(kind, body, match["namespace"])
            if name is None:
                return self._list(kind, query)
            if name not in self.objects[kind]:
                raise Refusal(404, "NotFound", f'{kind} "{name}" not found')
            if part == "log":
                return self._log(self.pods[name], query)
            return self._delete(kind, name) if verb == "DELETE" else self.objects[kind][name]

    def _create(self, kind: str, body: dict[str, Any], namespace: str) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if name in self.objects[kind]:
            raise Refusal(409, "AlreadyExists", f'{kind} "{name}" already exists')
        version, word = KINDS[kind]
        body.update(apiVersion=version, kind=word)
        self.specs.append(json.loads(json.dumps(body)))
        body["metadata"].update(
            namespace=namespace, uid=str(uuid.uuid4()), creationTimestamp=_now()
        )
        self.objects[kind][name] = body
        if kind == "jobs":
            body["status"] = {}
            self._spawn(body, namespace)
        return body

    def _spawn(self, job: dict[str, Any], namespace: str) -> None:
        template = json.loads(json.dumps(job["spec"]["template"]))
        name = f"{job['metadata']['name']}-{uuid.uuid4().hex[:5]}"
        labels = {**template["metadata"]["labels"], "job-name": job["metadata"]["name"]}
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        document = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {**metadata, "creationTimestamp": _now()}, "spec": template["spec"],
            "status": {"phase": "Pending"},
        }  # fmt: skip
        self.objects["pods"][name] = document
        self.pods[name] = pod = Pod(self, document, job)
        fate = next((f for f in self.fates if re.search(f[0], pod.command)), None)
        if fate is not None:
            self.fates.remove(fate)
        act = pod.run if fate is None else lambda: fate[1](pod)
        threading.Thread(target=_quietly, args=(act,), daemon=True).start()

    def _list(self, kind: str, query: dict[str, list[str]]) -> dict[str, Any]:
        selector = query.get("labelSelector", [""])[0]
        wanted = dict(pair.split("=", 1) for pair in selector.split(",") if pair).items()
        version, word = KINDS[kind]
        items = [
            item
            for item in self.objects[kind].values()
            if wanted <= item["metadata"].get("labels", {}).items()
        ]
        return {"apiVersion": version, "kind": f"{word}List", "metadata": {}, "items": items}

    def _log(self, pod: Pod, query: dict[str, list[str]]) -> str:
        if query.get("previous", [""])[0].lower() == "true":  # of restartPolicy Never: never any
            message = f'previous terminated container "snakemake" in pod "{pod.name}" not found'
            raise Refusal(400, "BadRequest", message)
        if not pod.has_log:
            raise Refusal(
                500, "InternalError", "Get https://10.0.0.7:10250/containerLogs: no route"
            )
        return pod.log.read_text(errors="replace") if pod.log.exists() else ""

    def _delete(self, kind: str, name: str) -> dict[str, Any]:
        gone = self.objects[kind].pop(name)
        gone["metadata"]["deletionTimestamp"] = _now()
        if kind == "pods":
            self.remove(self.pods[name])
        for pod in [p for p in self.pods.values() if p.job is gone]:
            self.remove(pod)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def remove(self, pod: Pod) -> None:
        """Let a pod be gone; its job has failed if it had not ended."""
        with self.lock:
            pod.kill()
            if pod.log.exists():
                self.logs.append(pod.log.read_text(errors="replace"))
            self.objects["pods"].pop(pod.name, None)
            del self.pods[pod.name]
            pod.job["status"] = pod.job["status"] or {"failed": 1}

    def reset(self) -> None:
        """Forget what was asked for and what is to go wrong."""
        for seen in (self.requests, self.specs, self.logs, self.fates):
            seen.clear()
        self.refuse = lambda verb, kind: None


def _quietly(act: Callable[[], None]) -> None:
    """Let a pod live; that it was deleted meanwhile is no error."""
    with suppress(Refusal):
        act()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *arguments: Any) -> None:
        """Say nothing: the cluster notes every request."""

    def _pass(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            found = self.server.cluster.answer(
                self.command, url.path, parse_qs(url.query), json.loads(body or b"null")
            )
            code = 201 if self.command == "POST" else 200
        except Refusal as refusal:
            found, code = refusal.document, refusal.document["code"]
        kind = "text/plain" if isinstance(found, str) else "application/json"
        data = found.encode() if isinstance(found, str) else json.dumps(found).encode()
        self.send_response_only(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    cluster: Cluster

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


@contextmanager
def running(folder: Path, image: dict[str, str], *shown: Path) -> Iterator[Cluster]:
    """Give a cluster that listens; its pods end with it.

    `image` is the environment inside every container, `shown` the folders that it sees.
    """
    workdir = Path("/workdir")
    made = not workdir.exists()
    workdir.mkdir(exist_ok=True)
    with _Server(("127.0.0.1", 0), _Handler) as httpd:
        (folder / CACHE).mkdir()
        (folder / CACHE).chmod(0o777)
        httpd.cluster = Cluster(folder, image, shown)
        httpd.cluster.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield httpd.cluster
        finally:
            httpd.shutdown()
            thread.join()
            for pod in list(httpd.cluster.pods.values()):
                pod.kill()
            if made:
                shutil.rmtree(workdir, ignore_errors=True)
