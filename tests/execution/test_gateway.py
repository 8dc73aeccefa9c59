"""A real gateway on loopback, which starts schedulers and workers as processes of this machine."""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import dask
import pytest

from clustering.errors import ClusteringError, ConfigError, ExecutionError
from clustering.execution.engine import connect

# The import adds settings to Dask, which the tests change for a while.
dask_gateway = pytest.importorskip("dask_gateway")
pytest.importorskip("dask_gateway_server", reason="dask-gateway-server is not installed")

CONFIG = """
from dask_gateway_server.options import Integer, Options
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.DaskGateway.address = "127.0.0.1:{api}"
c.Proxy.address = "127.0.0.1:{proxy}"
c.SimpleAuthenticator.password = "swordfish"
c.Backend.cluster_options = Options(Integer("worker_cores", default=1, min=1, max=2))
c.ClusterConfig.scheduler_cmd = ["{python}", "-m", "distributed.cli.dask_scheduler"]
c.ClusterConfig.worker_cmd = ["{python}", "-m", "distributed.cli.dask_worker"]
c.ClusterConfig.cluster_max_workers = 2
c.UnsafeLocalBackend.clusters_directory = "{folder}"
c.UnsafeLocalBackend.inherited_environment = ["PATH", "PYTHONPATH", "HOME"]
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where the gateway and its proxy for schedulers are, as a config names them."""
    folder = tmp_path_factory.mktemp("gateway")
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        api, proxy = one.getsockname()[1], other.getsockname()[1]
    config = folder / "config.py"
    config.write_text(CONFIG.format(api=api, proxy=proxy, python=sys.executable, folder=folder / "clusters"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "dask_gateway_server", "--config", str(config)]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{api}"
        while running.poll() is None and not answers(address):
            pass
        assert running.poll() is None, (folder / "log").read_text()
        yield {"address": address, "proxy_address": f"tls://127.0.0.1:{proxy}"}
    finally:
        running.terminate()
        running.wait(60)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/health", timeout=1):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@pytest.fixture
def credentials() -> Iterator[None]:
    """Set the user and the password, as the environment would."""
    who = {"username": getpass.getuser(), "password": "swordfish"}
    with dask.config.set({"gateway.auth.kwargs": who}):
        yield


def refusal(options: dict[str, Any], kind: type[ClusteringError], workers: int | None = None, wait: float = 60) -> str:
    with pytest.raises(kind) as caught:
        connect({"gateway": options}, workers, None, wait).__enter__()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.usefixtures("credentials")
def test_a_gateway_starts_a_cluster_and_stops_it(places: dict[str, str]) -> None:
    with connect({"gateway": {**places, "options": {"worker_cores": 2}}}, 1, None, 240) as engine:
        assert (engine.workers, engine.threads) == (1, 2)
        assert engine.compute({"a": (abs, -3)}, "a") == 3
        assert engine.dashboard is not None
        assert engine.dashboard.startswith(places["address"])
    assert dask_gateway.Gateway(places["address"]).list_clusters() == []


def test_a_gateway_that_does_not_know_us_is_reported(places: dict[str, str]) -> None:
    text = refusal(places, ExecutionError)
    assert "does not give a cluster" in text
    assert "Unauthorized" in text
    assert "in the environment who you are" in text


@pytest.mark.usefixtures("credentials")
def test_an_option_that_a_gateway_does_not_offer_is_named(places: dict[str, str]) -> None:
    text = refusal({**places, "options": {"worker_core": 1}}, ConfigError)
    assert "the gateway offers no 'worker_core'; did you mean 'worker_cores'?" in text


@pytest.mark.usefixtures("credentials")
def test_a_value_that_a_gateway_does_not_offer_is_named(places: dict[str, str]) -> None:
    text = refusal({**places, "options": {"worker_cores": 9}}, ConfigError)
    assert "cluster.gateway.options: worker_cores is 9; " in text


@pytest.mark.usefixtures("credentials")
def test_more_workers_than_a_gateway_gives_are_not_waited_for(places: dict[str, str]) -> None:
    assert "would exceed resource limit of 2 workers" in refusal(places, ExecutionError, workers=5, wait=240)


@pytest.mark.usefixtures("credentials")
def test_a_cluster_that_a_gateway_does_not_start_in_time_is_reported(places: dict[str, str]) -> None:
    # A busy machine may take a second to look for the first time.
    text = refusal(places, ExecutionError, wait=0.01)
    assert re.search(r"is PENDING after \d+ s; see the gateway's log", text)


def test_a_gateway_that_does_not_answer_is_reported() -> None:
    assert "the gateway http://127.0.0.1:9 does not give a cluster" in refusal(
        {"address": "http://127.0.0.1:9"}, ExecutionError
    )
