"""A command ends soon and in one line where no Prefect API answers at its address."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import yaml

from clustering.errors import ConfigError, ExecutionError
from clustering_flows import api_check
from clustering_flows.api_check import check_reachable
from clustering_flows.cli import run


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as site:
        site.answer = (status, body)  # type: ignore[attr-defined]
        Thread(target=site.serve_forever).start()
        yield f"http://127.0.0.1:{site.server_port}/api"
        site.shutdown()


@contextmanager
def listening(says: bytes | None) -> Iterator[str]:
    """A socket that sends ``says`` to every client; with None it accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as held:

        def serve() -> None:
            while True:
                try:
                    connection = held.enter_context(listener.accept()[0])
                except OSError:
                    return
                if says is not None:
                    connection.sendall(says)
                    connection.close()

        Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"


FAULTS = {
    "a page": (answering(200, b"<html>Welcome</html>"), "does not answer as one"),
    "nothing": (answering(200, b""), "does not answer as one"),
    "another path": (answering(404, b"{}"), "answers 404 Not Found"),
    "a broken server": (answering(500, b"oops"), "answers 500 Internal Server Error"),
    "a proxy without a server": (answering(503, b"<html>"), "answers 503 Service Unavailable"),
    "another protocol": (listening(b"SSH-2.0-OpenSSH\r\n"), "does not answer as one"),
    "a cut connection": (listening(b""), "does not answer ("),
    "silence": (listening(None), "does not answer (no answer within 0.3 s)"),
}


@pytest.mark.parametrize(("server", "said"), FAULTS.values(), ids=FAULTS)
def test_what_is_no_api_is_reported(server: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_check, "SECONDS", 0.3 if "0.3" in said else 5.0)
    with server as url, pytest.raises(ExecutionError) as caught:
        check_reachable(url, ", or else")
    assert str(caught.value).startswith(f"the Prefect API at {url} {said}")
    assert str(caught.value).endswith("check PREFECT_API_URL, such as http://127.0.0.1:4200/api, or else")


@pytest.mark.parametrize(
    "server", [answering(200, b"true"), answering(401, b"no"), answering(302, b"")], ids=["healthy", "guarded", "moved"]
)
def test_who_may_ask_is_left_to_prefects_client(server: Any) -> None:
    with server as url:
        check_reachable(url)


def test_a_name_that_takes_for_ever_to_find_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_check, "SECONDS", 0.1)
    name_resolved = Event()
    monkeypatch.setattr(api_check, "_fault", lambda _: name_resolved.wait() and "")
    with pytest.raises(ExecutionError, match=r"no answer within 0\.1 s"):
        check_reachable("http://host/api")
    name_resolved.set()


MALFORMED = [
    "127.0.0.1:4200/api", "localhost", "http://", "http:///api", "ftp://host/api", "http://host:port/api",
    "http://host:99999/api", "http://[::1/api", "http://a b/api", "http://host/api\n", "nonsense",
]  # fmt: skip


@pytest.mark.parametrize("url", MALFORMED, ids=repr)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"PREFECT_API_URL is .* has to be a URL, such as http"):
        check_reachable(url)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(ExecutionError) as caught:
        check_reachable("http://me:hunter2@127.0.0.1:9/api")
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def config(field_store: Path, tmp_path: Path) -> str:
    content = {
        "source": {"store": str(field_store), "variables": ["t"], "sample_dims": ["time", "lat", "lon"]},
        "output": {"store": str(tmp_path / "out")},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


COMMANDS = {
    "fit": (["fit", "CONFIG"], ", or use --no-prefect\n"),
    "fit by Prefect": (["fit", "CONFIG", "--prefect"], ", or use --no-prefect\n"),
    "predict": (["predict", "model", "CONFIG"], ", or use --no-prefect\n"),
    "deploy": (["deploy", "CONFIG", "--pool", "local"], "/api\n"),
    "serve": (["deploy", "CONFIG", "--serve"], "/api\n"),
    "credentials": (
        ["fit", "CONFIG", "--no-prefect", "--set", "source.credentials=secret/a"],
        ", or give credentials by the environment\n",
    ),
    "inspection": (["inspect", "CONFIG", "--set", "source.credentials=secret/a"], "by the environment\n"),
}


@pytest.mark.parametrize(("tokens", "end"), COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("source", ["environment", "profile"])
def test_every_command_that_asks_the_api_says_so_in_one_line(
    tokens: list[str],
    end: str,
    source: str,
    config: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(api_check, "SECONDS", 0.2)
    with listening(None) as url:
        if source == "environment":
            monkeypatch.setenv("PREFECT_API_URL", url)
        else:
            profiles = tmp_path / "profiles.toml"
            profiles.write_text(f'active = "a"\n[profiles.a]\nPREFECT_API_URL = "{url}"\n')
            monkeypatch.setenv("PREFECT_PROFILES_PATH", str(profiles))
        assert run([config if token == "CONFIG" else token for token in tokens]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"clustering: the Prefect API at {url} does not answer (no answer within 0.2 s); ")
    assert err.endswith(end)
    assert (out, err.count("\n")) == ("", 1)
    assert not (tmp_path / "out").exists()
