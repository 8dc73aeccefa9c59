"""A real Prefect server with its UI on loopback, for tests that need more of it than an API."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

PATIENCE = 600.0
"""Seconds after which waiting ends."""
ROOT = Path(__file__).parents[1]


def eventually(ask: Callable[[], T], good: Callable[[T], Any] = bool) -> T:
    """Ask until the answer is good; the last answer otherwise."""
    until = monotonic() + PATIENCE
    while not good(answer := ask()) and monotonic() < until:
        sleep(0.5)
    return answer


class Server:
    """A server that may be killed, and started again with the same address and data."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.ui = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.ui}/api"
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the server and of its clients."""
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.url,
            "PREFECT_UI_STATIC_DIRECTORY": str(self.home / "ui"),
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    def start(self) -> None:
        """Start it, and wait until it answers."""
        address = ("--host", "127.0.0.1", "--port", str(self.port))
        self.server = self.run("-m", "prefect", "server", "start", *address, log="server.log")
        assert eventually(self._answers), (self.home / "server.log").read_text()

    def kill(self) -> None:
        """End it at once, as a loss of power would."""
        self.server.kill()
        self.server.wait()

    def run(self, *arguments: str, log: str, where: Path = ROOT, **more: str) -> subprocess.Popen[bytes]:
        """Run Python beside the server, with more environment variables. Its output goes to a file in `home`."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / log).open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, *arguments], env={**self.environment, **more}, cwd=where, stdout=file, stderr=file,
                # Tests in the background ignore SIGINT, which is the only way to stop Prefect's workers.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def ask(self, path: str, content: Mapping[str, Any] | None = None) -> Any:
        """Call the API: by POST with content, by GET without; again while its database is busy, as its clients do."""

        def call() -> httpx.Response:
            return client.get(self.url + path) if content is None else client.post(self.url + path, json=content)

        with httpx.Client(timeout=60.0) as client:
            answer = eventually(call, lambda answer: answer.status_code != httpx.codes.SERVICE_UNAVAILABLE)
        answer.raise_for_status()
        return answer.json()

    def artifacts(self, run: str) -> dict[str, Any]:
        """Artifacts of a flow run, by key; each key once."""
        artifacts = self.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        assert len({artifact["key"] for artifact in artifacts}) == len(artifacts)
        return {artifact["key"]: artifact for artifact in artifacts}

    def logs(self, run: str) -> list[str]:
        """Lines of the log of a flow run, in order."""
        asked = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        return [line["message"] for line in self.ask("/logs/filter", asked)]

    def _answers(self) -> bool:
        try:
            return bool(self.ask("/health"))
        except httpx.HTTPError:
            return False


@contextmanager
def running(home: Path) -> Iterator[Server]:
    """Run a server, and end it and all processes that were started beside it."""
    server = Server(home)
    try:
        server.start()
        yield server
    finally:
        for process in reversed(server.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
