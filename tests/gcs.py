"""A proxy that makes an S3 server answer as Google's storage: with generations, and with 404 for deleted objects."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from s3 import _serving

_NOBODY = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"


class _Translating(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, target: str, *args: Any) -> None:
        self.target = target
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # Clients percent-encode the hyphens of names too.
        path, sign, query = self.path.partition("?")
        self.path = unquote(path) + sign + query
        expected, source = self.headers.get("x-goog-if-generation-match"), self.headers.get("x-goog-copy-source")
        if expected is not None and self._generation() != expected:
            return self._answer(412, {}, b"")
        if self.command == "DELETE" and self._generation() == "0":
            return self._answer(404, {}, b"")
        return self._answer(
            *self._ask(self.command, sent, {"x-amz-copy-source": f"/{unquote(source)}"} if source else {})
        )

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def _generation(self) -> str:
        status, headers, _ = self._ask("HEAD")
        return headers["x-goog-generation"] if status == 200 else "0"

    def _ask(
        self, method: str, sent: bytes = b"", more: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.target)
        kept = {name: self.headers[name] for name in ("Range", "Content-Type") if name in self.headers}
        with closing(connection):
            connection.request(method, self.path, sent, {"Authorization": _NOBODY, **kept, **(more or {})})
            answer = connection.getresponse()
            body = answer.read()
            headers = {name.lower(): value for name, value in answer.getheaders()}
        if "etag" in headers:
            headers["x-goog-generation"] = str(int(headers["etag"].strip('"')[:12], 16) + 1)
        return answer.status, headers, body

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name not in ("transfer-encoding", "connection", "server", "date", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", headers.get("content-length", str(len(body))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def google(server: str, file: Path) -> Iterator[None]:
    """Serve the buckets of an S3 server as Google does. `file` receives the address and the credentials."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with _serving(partial(_Translating, server.removeprefix("http://"))) as address:
        content = {"type": "service_account", "gcs_base_url": address, "disable_oauth": True, "client_email": "nobody"}
        file.write_text(json.dumps({**content, "private_key": key.decode(), "private_key_id": "none"}))
        yield
