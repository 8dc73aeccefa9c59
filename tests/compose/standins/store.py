"""An S3 server in memory on port 8333, with the health check of the store that it stands in for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

s3 = DomainDispatcherApplication(create_backend_app)


def serve(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/healthz":
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"ok\n"]
    return s3(environ, start)


run_simple("0.0.0.0", 8333, serve, threaded=True)
