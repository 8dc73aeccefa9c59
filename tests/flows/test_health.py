"""Health checks of containers, against real servers."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness
from s3 import answering

from clustering_flows.health import main

harness = [
    pytest.mark.prefect,
    pytest.mark.slow,
    # Raised inside Prefect and the libraries under it, where nothing here can prevent them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_page_that_answers_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(200, {}) as address:
        assert main(f"{address}/health", {}) == 0
    assert capsys.readouterr().out == ""


def test_schedules_of_no_server_are_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("schedules", {}) == 1
    assert capsys.readouterr().out.startswith("unhealthy: PREFECT_API_URL is not set")


@pytest.mark.parametrize("status", [401, 503])
def test_a_page_that_answers_otherwise_is_not(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(status, {}) as address:
        assert main(f"{address}/health", {}) == 1
    assert f"unhealthy: HTTP Error {status}" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["http://127.0.0.1:1/health", "schedules"])
def test_nobody_there_is_not_well(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(what, {"PREFECT_API_URL": "http://127.0.0.1:1/api"}) == 1
    assert "Connection refused" in capsys.readouterr().out


@pytest.fixture
def api() -> Iterator[httpx.Client]:
    with (
        prefect_test_harness(server_startup_timeout=120),
        httpx.Client(base_url=str(PREFECT_API_URL.value())) as client,
    ):
        yield client


def made(answer: httpx.Response) -> str:
    answer.raise_for_status()
    return str(answer.json()["id"])


class TestSchedules:
    pytestmark = harness

    def test_a_schedule_without_a_run_to_come_is_reported(
        self, api: httpx.Client, capsys: pytest.CaptureFixture[str]
    ) -> None:
        environment = {"PREFECT_API_URL": str(api.base_url).rstrip("/")}
        assert main("schedules", environment) == 0

        # The server of the harness schedules no runs, like a server whose scheduler has stopped.
        flow = made(api.post("/flows/", json={"name": "fit"}))
        body = {"name": "nightly", "flow_id": flow, "paused": False, "schedules": [{"schedule": {"cron": "0 3 * * *"}}]}
        deployment = made(api.post("/deployments/", json=body))
        assert main("schedules", environment) == 1
        assert capsys.readouterr().out == (
            "unhealthy: no run is scheduled for nightly; restart the background services\n"
        )

        run = made(api.post(f"/deployments/{deployment}/create_flow_run", json={"state": {"type": "SCHEDULED"}}))
        assert main("schedules", environment) == 0

        api.delete(f"/flow_runs/{run}").raise_for_status()
        assert main("schedules", environment) == 1
        api.post(f"/deployments/{deployment}/pause_deployment").raise_for_status()
        assert main("schedules", environment) == 0
