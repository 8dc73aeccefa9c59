from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from prefect import flow
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
)
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from s3 import Bucket
from zarr.codecs import ZstdCodec

from clustering.config import JobConfig, check_config
from clustering.errors import ConfigError, SourceError
from clustering.run.job import run_fit
from clustering_flows.credentials import load_credentials
from clustering_flows.fit import fit
from clustering_flows.predict import predict
from clustering_flows.prefect_watch import PrefectWatch
from clustering_flows.select import select_k
from clustering_flows.terminal import terminal_watch

pytestmark = [
    pytest.mark.prefect,
    # Raised inside Prefect and the libraries under it, where nothing here can prevent them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SECRET = "hunter2-do-not-tell"


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    # Without the heartbeat thread a flow ends at once; Prefect joins it in steps of a second.
    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield str(PREFECT_API_URL.value())


def config_for(store: Path, output: Path, **fit_options: Any) -> JobConfig:
    return check_config(
        {
            "source": {"store": str(store), "variables": ["t"], "sample_dims": ["time", "lat"]},
            "model": {"k": 3},
            "fit": {"restarts": 2, **fit_options},
            "output": {"store": str(output)},
        }
    )


def run_records(flow_run_id: Any) -> tuple[list[Any], list[Any], list[str]]:
    """Artifacts, task runs and log lines of a flow run, from the API."""

    async def ask() -> tuple[list[Any], list[Any], list[str]]:
        async with get_client() as client:
            artifacts = await client.read_artifacts(
                artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
            )
            tasks = await client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])), task_run_filter=TaskRunFilter()
            )
            logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id])))
            return artifacts, tasks, [log.message for log in logs]

    return asyncio.run(ask())


def eventually(ask: Any, good: Any) -> Any:
    """Ask until the answer is good: logs and task runs reach the API from background threads."""
    from time import monotonic

    until = monotonic() + 30
    while not good(answer := ask()) and monotonic() < until:
        pass
    return answer


def test_flow_leaves_tasks_logs_and_artifacts(api: str, field_store: Path, tmp_path: Path) -> None:
    state = fit(config_for(field_store, tmp_path / "out"), return_state=True)
    record = state.result()
    flow_run_id = state.state_details.flow_run_id

    artifacts, tasks, logs = eventually(
        lambda: run_records(flow_run_id),
        lambda records: len(records[1]) == 5 and sum("pass " in line for line in records[2]) > record["iterations"],
    )

    assert state.is_completed()
    assert {"open", "sample", "fit", "label", "report"} == {task.name for task in tasks}
    assert record["iterations"] == sum(line.startswith("pass ") and "J " in line for line in logs)
    by_key = {artifact.key: artifact for artifact in artifacts}
    assert {"fit-live", "fit-progress", "fit-passes", "fit-report", "fit-link"} == set(by_key)
    assert len(artifacts) == len(by_key), "an artifact is updated in place"
    assert float(by_key["fit-progress"].data) == 100.0
    assert by_key["fit-live"].description.startswith("finished\n\nJ ")
    assert "| 100 % done | finished |" in by_key["fit-live"].data
    link = tmp_path / "out" / "report.html"
    assert by_key["fit-link"].data == f"[{link}]({link.as_uri()})"
    assert record["run"] in by_key["fit-link"].description
    passes = json.loads(by_key["fit-passes"].data)
    assert [row["pass"] for row in passes] == list(range(1, record["iterations"] + 1))
    page = by_key["fit-report"].data
    assert f"{record['n_rows']:,} rows" in page
    assert f"| run | `{record['run']}` |" in page
    assert "data:image/png;base64," in page


def test_a_flow_compares_numbers_of_clusters(api: str, field_store: Path, tmp_path: Path) -> None:
    config = config_for(field_store, tmp_path / "out")
    # One sampled field without clusters gives no clear answer, so k is chosen on request.
    section = config.select.model_validate({"k": [2, 3], "criteria": ["silhouette"], "publish": 3})
    state = select_k(config.model_copy(update={"select": section}), return_state=True)
    selection = state.result()
    flow_run_id = state.state_details.flow_run_id
    artifacts, tasks, _ = eventually(lambda: run_records(flow_run_id), lambda records: len(records[1]) == 6)

    assert state.is_completed()
    assert {"open", "sample", "fit", "choose", "label", "report"} == {task.name for task in tasks}
    page = next(artifact.data for artifact in artifacts if artifact.key == "select-k")
    assert selection["reason"] in page
    assert "| 3 |" in page
    assert json.loads((tmp_path / "out" / "run.json").read_text())["k"] == 3


def test_flow_and_plain_run_give_the_same_bits(api: str, field_store: Path, tmp_path: Path) -> None:
    fit(config_for(field_store, tmp_path / "flow"))
    with terminal_watch(sys.stderr) as watch:
        run_fit(config_for(field_store, tmp_path / "plain"), watch)

    one, other = (
        xr.open_dataset(str(tmp_path / name / "model.zarr"), engine="zarr", consolidated=False, chunks=None)
        for name in ("flow", "plain")
    )
    for variable in ("centers", "params_centers", "history", "weights"):
        assert one[variable].values.tobytes() == other[variable].values.tobytes()


def test_mistake_fails_the_flow_in_one_line(api: str, tmp_path: Path) -> None:
    state = fit(config_for(tmp_path / "nowhere.zarr", tmp_path / "out"), return_state=True)

    assert state.is_failed()
    with pytest.raises(SourceError, match="no store at"):
        state.result()
    _, _, logs = eventually(
        lambda: run_records(state.state_details.flow_run_id),
        lambda records: any("no store at" in line for line in records[2]),
    )
    assert any("no store at" in line for line in logs)
    assert not any("Traceback" in line for line in logs)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A store of which two chunks do not decode, each in several blocks."""
    path = tmp_path / "spoilt.zarr"
    values = np.random.default_rng(1).standard_normal((64, 2)).astype(np.float32)
    zarr.create_array(str(path), data=values, chunks=(8, 2), compressors=[ZstdCodec(checksum=True)])
    for chunk in ("1", "5"):
        (path / "c" / chunk / "0").write_bytes(b"not what it was")
    return path


@pytest.mark.parametrize("cluster", ["threads", pytest.param("local", marks=pytest.mark.slow)])
def test_what_workers_log_is_in_the_log_of_the_run_once(api: str, cluster: str, spoilt: Path, tmp_path: Path) -> None:
    config = check_config(
        {
            "source": {"store": str(spoilt), "on_bad_chunk": "mask"},
            "model": {"k": 2},
            "compute": {"cluster": cluster, "workers": 2, "block": "64B"},
            "output": {"store": str(tmp_path / "out")},
        }
    )
    state = fit(config, return_state=True)
    expected = [f"chunk 'values/c/{i}/0' does not decode and is masked" for i in (1, 5)]

    artifacts, _, logs = eventually(
        lambda: run_records(state.state_details.flow_run_id), lambda records: {*expected} <= {*records[2]}
    )

    assert state.result()["n_masked"] == 16
    assert sorted(line for line in logs if line.endswith("and is masked")) == expected
    (page,) = [artifact.data for artifact in artifacts if artifact.key == "fit-live"]
    assert all(f"- {line}" in page for line in expected)
    assert logging.getLogger("clustering").propagate


def test_events_report_what_became_of_an_output(api: str) -> None:
    @flow
    def telling() -> None:
        PrefectWatch("s3://bucket/out").event("published", {"run": "r1"})

    telling()

    async def ask() -> list[Any]:
        async with get_client() as client:
            answer = await client._client.post("/events/filter", json={})
            return [e for e in answer.json()["events"] if e["event"] == "clustering.published"]

    (event,) = eventually(lambda: asyncio.run(ask()), lambda events: events)
    assert event["resource"]["prefect.resource.id"] == "clustering.output.s3://bucket/out"
    assert event["payload"] == {"run": "r1"}
    assert any(one["prefect.resource.role"] == "flow-run" for one in event["related"])


def test_predict_flow_labels_with_a_model(api: str, field_store: Path, tmp_path: Path) -> None:
    fit(config_for(field_store, tmp_path / "fitted"))
    record = predict(str(tmp_path / "fitted"), config_for(field_store, tmp_path / "predicted"))

    assert record["n_rows"] == 12 * 9
    fitted, predicted = (
        xr.open_dataset(str(tmp_path / name / "labels.zarr"), engine="zarr", consolidated=False, chunks=None)["labels"]
        for name in ("fitted", "predicted")
    )
    np.testing.assert_array_equal(fitted.values, predicted.values)


@pytest.mark.slow
def test_command_uses_the_api_that_is_configured(api: str, field_store: Path, tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(config_for(field_store, tmp_path / "out").model_dump_json())
    done = subprocess.run(
        [sys.executable, "-c", "from clustering_flows.cli import main; main()", "fit", str(config), "--json"],
        env={**os.environ, "PREFECT_API_URL": api},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "Beginning flow run" in done.stderr + done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "finished"


def test_form_shows_every_field_with_its_description() -> None:
    schema = fit.parameters.model_dump()
    sections = {"SourceSection", "ModelSection", "FollowOptions", "ComputeOptions", "OutputSection", "JobConfig"}

    assert sections <= set(schema["definitions"])
    for name in sections - {"JobConfig"}:
        for key, field in schema["definitions"][name]["properties"].items():
            assert field.get("description"), f"{name}.{key} has no description"


@pytest.fixture(scope="module")
def blocks(api: str) -> None:
    Secret(value={"key": "test", "secret": SECRET}).save("reader")
    Secret(value=json.dumps({"token": SECRET})).save("as-text")
    Secret(value="no JSON").save("word")


def test_a_block_gives_storage_options(blocks: None) -> None:
    assert load_credentials("secret/reader") == {"key": "test", "secret": SECRET}
    assert load_credentials("secret/as-text") == {"token": SECRET}


@pytest.mark.parametrize(("name", "said"), [("nobody", "there is no Prefect block"), ("word", "holds no JSON object")])
def test_a_block_that_is_wrong_is_reported_in_one_line(blocks: None, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_credentials(f"secret/{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_flow_reads_with_a_block_and_leaves_nothing_of_it(
    api: str, blocks: None, bucket: Bucket, field_store: Path, tmp_path: Path
) -> None:
    plain = config_for(field_store, tmp_path / "out").model_dump(mode="json")
    plain["source"] |= {"store": bucket.upload(field_store), "credentials": "secret/reader"}
    config = tmp_path / "job.yaml"
    config.write_text(json.dumps(plain))
    done = subprocess.run(
        [sys.executable, "-c", "from clustering_flows.cli import main; main()", "fit", str(config), "--json"],
        env={**{n: v for n, v in os.environ.items() if "ACCESS_KEY" not in n}, "PREFECT_API_URL": api},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["config"]["source"]["credentials"] == "secret/reader"
    assert SECRET not in done.stdout + done.stderr
    files = [path for path in tmp_path.joinpath("out").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
