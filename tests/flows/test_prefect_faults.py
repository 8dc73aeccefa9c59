"""Runs that are cancelled, and runs that lose Prefect's API, with a real server and real processes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import xarray as xr
import zarr
from s3 import web
from server import Server, eventually, running

from clustering.config import JobConfig, check_config
from clustering.run.job import run_fit
from tests.run.notes import Notes

pytestmark = [pytest.mark.prefect, pytest.mark.chaos, pytest.mark.timeout(1800)]

PASSES = 200
ENDED = ("Completed", "Failed", "Crashed", "Cancelled")
SERVE = """
from prefect import serve
from prefect.types.entrypoint import EntrypointType
from clustering_flows.fit import fit
serve(fit.to_deployment("nightly", entrypoint_type=EntrypointType.MODULE_PATH), pause_on_shutdown=False)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("prefect")) as server:
        yield server


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows without clusters, on which a mixture does not converge soon."""
    path = tmp_path_factory.mktemp("data") / "rows.zarr"
    rows = np.random.default_rng(3).random((10_000, 8), np.float32)
    zarr.create_array(str(path), data=rows, chunks=(1_000, 8))
    return path


@pytest.fixture(scope="module")
def store(rows: Path) -> Iterator[str]:
    """The address of the rows on a server that delays each answer, so that passes take long."""
    with web(rows.parent, delay=0.05) as address:
        yield f"{address}/{rows.name}"


def job(store: str | Path, out: Path, **compute: Any) -> JobConfig:
    return check_config(
        {
            "source": {"store": str(store)},
            "model": {"kind": "gaussian_mixture", "k": 24, "covariance": "full"},
            "fit": {"restarts": 1, "sample_rows": 2000, "tolerance": 0, "max_iterations": PASSES},
            # Memory for a part of the rows, so each pass reads the others again.
            "compute": {"memory": "400KB", "block": "32KB", **compute},
            "output": {"store": str(out), "report": False},
        }
    )


def result(out: Path) -> tuple[bytes, ...]:
    """The bytes of a model and its labels."""
    model = xr.open_dataset(str(out / "model.zarr"), engine="zarr", consolidated=False, chunks=None)
    labels = xr.open_dataset(str(out / "labels.zarr"), engine="zarr", consolidated=False, chunks=None)
    names = ("params_centers", "params_covariances", "history")
    return (*(model[name].values.tobytes() for name in names), labels["labels"].values.tobytes())


@pytest.fixture(scope="module")
def calm(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, ...]:
    """The result of a run without a fault."""
    out = tmp_path_factory.mktemp("calm") / "out"
    run_fit(job(rows, out), Notes())
    return result(out)


def logged_passes(lines: list[str]) -> list[int]:
    return [int(line.split()[1]) for line in lines if line.startswith("pass ") and "log L" in line]


def _says(process: psutil.Process, word: str) -> bool:
    try:
        return word in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture
def deployment(server: Server) -> str:
    server.run("-c", SERVE, log="runner.log")
    deployments = eventually(lambda: server.ask("/deployments/filter", {}))
    assert deployments, (server.home / "runner.log").read_text()
    return str(deployments[0]["id"])


def start(server: Server, deployment: str, config: JobConfig) -> str:
    asked = {"parameters": {"config": config.model_dump(mode="json")}, "state": {"type": "SCHEDULED"}}
    return str(server.ask(f"/deployments/{deployment}/create_flow_run", asked)["id"])


def state(server: Server, run: str) -> str:
    return str(server.ask(f"/flow_runs/{run}")["state"]["name"])


def test_a_run_that_is_cancelled_goes_on_to_the_same_bits(
    server: Server, deployment: str, store: str, calm: tuple[bytes, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    config = job(store, out, cluster="local", workers=2)
    before = {p.pid for p in psutil.process_iter()}
    run = start(server, deployment, config)
    eventually(lambda: len(logged_passes(server.logs(run))) > 2 or state(server, run) in ENDED)
    passes = logged_passes(server.logs(run))
    assert 2 < len(passes) < PASSES / 2, server.logs(run)
    workers = [p for p in psutil.process_iter() if p.pid not in before and _says(p, "spawn_main")]
    assert len(workers) >= 2

    server.ask(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert eventually(lambda: state(server, run), lambda name: name in ENDED) == "Cancelled"
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    assert not (out / "run.json").exists()
    assert not any("Traceback" in line for line in server.logs(run))
    page = server.artifacts(run)["fit-live"]
    assert "the same job goes on from there" in page["description"]

    again = start(server, deployment, config)
    assert eventually(lambda: state(server, again), lambda name: name in ENDED) == "Completed"
    lines = eventually(lambda: server.logs(again), lambda lines: any("labelled" in line for line in lines))
    (line,) = [line for line in lines if line.startswith("continuing unfinished run")]
    done = int(line.rpartition(" ")[2])
    assert 2 < done < PASSES
    assert logged_passes(lines) == list(range(done + 1, PASSES + 1))
    assert result(out) == calm


def test_a_run_goes_on_while_the_api_is_gone(
    server: Server, store: str, calm: tuple[bytes, ...], tmp_path: Path
) -> None:
    out, config = tmp_path / "out", tmp_path / "job.json"
    config.write_text(job(store, out).model_dump_json())
    log = server.home / "fit.log"
    command = ("-c", "from clustering_flows.cli import main; main()", "fit", str(config), "--prefect", "--json")
    # Prefect's own retries would go on for a minute.
    fit = server.run(*command, log=log.name, PREFECT_CLIENT_MAX_RETRIES="0")

    def said() -> list[str]:
        return log.read_text().splitlines()

    def passes() -> int:
        return sum("log L" in line and "pass " in line for line in said())

    assert eventually(passes, lambda n: n > 2) > 2, said()
    server.kill()
    gone = passes()
    assert eventually(lambda: any("API does not answer" in line for line in said())), said()
    assert eventually(passes, lambda n: n > gone + 5) > gone + 5
    assert fit.poll() is None
    # The run is stopped meanwhile, so that the API is back before it ends.
    fit.send_signal(signal.SIGSTOP)
    server.start()
    fit.send_signal(signal.SIGCONT)
    assert fit.wait(600) == 0, said()
    assert [sum(f"API {word}" in line for line in said()) for word in ("does not answer", "answers again")] == [1, 1]
    assert json.loads(said()[-1])["status"] == "finished"
    assert result(out) == calm
    run = max(server.ask("/flow_runs/filter", {}), key=lambda one: one["created"])
    assert run["state_name"] == "Completed"
    artifacts = server.artifacts(run["id"])
    assert float(artifacts["fit-progress"]["data"]) == 100.0
    assert "fit-report" in artifacts
