"""A real S3 server on loopback, and a proxy in front of it that injects faults."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an S3 server that holds nothing yet."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as lines:
        server = subprocess.Popen(
            [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)],
            stdout=lines,
            stderr=lines,
            env={**os.environ, **ENVIRONMENT},
        )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@dataclass
class Bucket:
    """A bucket of a server, filled over HTTP."""

    server: str
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def ask(self, method: str, path: str = "", body: bytes = b"") -> None:
        """Send a request with a dummy signature, which the server does not check."""
        connection = http.client.HTTPConnection(self.server.removeprefix("http://"))
        with closing(connection):
            headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}
            connection.request(method, f"/{self.name}{path}", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 300, text

    def upload(self, folder: Path) -> str:
        """Copy a local store, and give its URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.ask("PUT", f"/{folder.name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.url}/{folder.name}"

    def content(self, prefix: str = "") -> dict[str, bytes]:
        """Objects under a prefix, by their key relative to it."""
        store = S3Store(self.name, prefix=prefix or None, endpoint=self.server, client_options={"allow_http": True})
        keys = sorted(entry["path"] for page in obstore.list(store) for entry in page)
        return {key: bytes(obstore.get(store, key).bytes()) for key in keys}


_NUMBERS = iter(range(10**6))


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket. The environment holds its address and credentials."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    made = Bucket(s3_server, f"bucket-{next(_NUMBERS)}")
    made.ask("PUT")
    return made


def denied(code: str = "AccessDenied") -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>no</Message></Error>'.encode()


FAULTS = {
    "500": (500, denied("InternalError")),
    "503": (503, denied("SlowDown")),
    "429": (429, denied("TooManyRequests")),
    "403": (403, denied()),
    "unknown key": (403, denied("InvalidAccessKeyId")),
}
"""Status and body by fault. Another fault, ``cut``, ends the connection in the middle of the body."""


@dataclass
class Plan:
    """Which requests for objects go wrong, and how."""

    fault: Callable[[str, int], str | None] = lambda *_: None
    """Fault for a key and the number of earlier requests for it; None for no fault."""
    hides_missing: bool = False
    """Answer 403 for missing keys and for listings, as a bucket that allows reading of keys but no listing."""
    unheard: tuple[str, ...] = ()
    """Headers that the proxy drops, in lower case."""
    made: Counter[str] = field(default_factory=Counter)
    """Number of injected faults, by fault."""
    asked: Counter[str] = field(default_factory=Counter)
    lock: Any = field(default_factory=Lock)


class _Forwarding(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise each answer waits for the acknowledgement of its headers.
    disable_nagle_algorithm = True

    def __init__(self, target: str, plan: Plan, *args: Any) -> None:
        self.target, self.plan = target, plan
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        # The body of the request is read in any case, also before a fault.
        self.sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        listing = "list-type" in query
        with self.plan.lock:
            fault = None if listing else self.plan.fault(path, self.plan.asked[path])
            self.plan.asked[path] += 1
        if fault in FAULTS:
            return self._fault(fault)
        status, headers, body = self._forwarded()
        if self.plan.hides_missing and (status == 404 or listing):
            return self._fault("403")
        if fault == "cut" and status < 300 and len(body) > 1:
            with self.plan.lock:
                self.plan.made["cut"] += 1
            self._answer(status, headers, body[: len(body) // 2], len(body))
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        return self._answer(status, headers, body, int(headers.get("Content-Length", len(body))))

    def _forwarded(self) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.target)
        with closing(connection):
            dropped = ("host", "connection", *self.plan.unheard)
            kept = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            connection.request(self.command, self.path, self.sent, kept)
            answer = connection.getresponse()
            body = answer.read()
            own = ("transfer-encoding", "connection", "server", "date")
            return answer.status, {n: v for n, v in answer.getheaders() if n.lower() not in own}, body

    def _fault(self, fault: str) -> None:
        with self.plan.lock:
            self.plan.made[fault] += 1
        status, body = FAULTS[fault]
        self._answer(status, {"Content-Type": "application/xml"}, body, len(body))

    def _answer(self, status: int, headers: dict[str, str], body: bytes, length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Quiet(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, delay: float = 0.0, **options: Any) -> None:
        self.delay = delay
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        time.sleep(self.delay)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _serving(handler: Any) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def proxy(server: str, plan: Plan) -> Iterator[str]:
    """Address of a proxy in front of a server. The proxy injects the faults of a plan."""
    with _serving(partial(_Forwarding, server.removeprefix("http://"), plan)) as address:
        yield address


@contextmanager
def web(folder: Path, delay: float = 0.0) -> Iterator[str]:
    """Address of a web server for a folder. It waits `delay` seconds before each answer."""
    with _serving(partial(_Quiet, directory=str(folder), delay=delay)) as address:
        yield address


@contextmanager
def answering(status: int, headers: dict[str, str]) -> Iterator[str]:
    """Address of a server that gives every request the same answer."""

    class Same(_Quiet):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET()

    with _serving(Same) as address:
        yield address
