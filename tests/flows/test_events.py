from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from clustering.config import check_config
from clustering_flows.fit import fit

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.slow,
    # Raised inside Prefect and the libraries under it, where nothing here can prevent them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def api() -> Iterator[None]:
    # Without the heartbeat thread a flow ends at once; Prefect joins it in steps of a second.
    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


def events_of(resource: str) -> list[dict[str, Any]]:
    """Events that the API has about a resource, oldest first."""

    async def ask() -> Any:
        async with get_client() as client:
            query = {"filter": {"resource": {"id": [resource]}, "order": "ASC"}}
            answer = await client._client.post("/events/filter", json=query)
            return answer.json()["events"]

    return list(asyncio.run(ask()))


def test_a_version_that_waits_or_is_published_is_an_event_of_its_output(
    api: None, field_store: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")

    def job(**output: Any) -> Any:
        return check_config(
            {
                "source": {"store": str(field_store), "variables": ["t"], "sample_dims": ["time", "lat"]},
                "model": {"k": 3},
                "output": {"store": out, "report": False, **output},
            }
        )

    first = fit(job())
    waiting = fit(job(publish="manual", overwrite=True))
    until = monotonic() + 60
    # Events reach the API from a background thread.
    while len(events := events_of(f"clustering.output.{out}")) < 2 and monotonic() < until:
        pass
    reported = [(event["event"], event["payload"]["run"], event["payload"]["remedy"]) for event in events]
    assert reported == [
        ("clustering.model.published", first["run"], None),
        ("clustering.model.waiting", waiting["run"], f"clustering models promote {out} {waiting['run']}"),
    ]
    assert events[1]["payload"]["current"] == first["run"]
    # An automation can select the event by its flow run.
    assert any(one["prefect.resource.id"].startswith("prefect.flow-run.") for one in events[1]["related"])
