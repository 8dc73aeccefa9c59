from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stack
import xarray as xr
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from s3 import web
from stack import eventually

from clustering.config import check_config
from clustering.errors import ConfigError
from clustering_flows import server
from clustering_flows.cli import run
from clustering_flows.loading import load_config

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.slow,
    # A server, a worker and their runs are processes that take long to start on a busy machine.
    pytest.mark.timeout(600),
    # Prefect and its libraries raise these warnings. Nothing in this project can prevent them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

POOL = "local"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # By default, a waiting run asks for its slot again only after 30 s.
    settings = {"PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2"}
    with (
        stack.server(tmp_path_factory.mktemp("server"), **settings) as address,
        temporary_settings({PREFECT_API_URL: address}),
    ):
        server.make_pool(POOL)
        yield address


@pytest.fixture(scope="module")
def worker(api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    process = stack.start_worker(POOL, api, tmp_path_factory.mktemp("worker"))
    yield
    stack.end(process)


@pytest.fixture
def job(field_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A config whose paths are relative to the working directory, as users write them."""
    monkeypatch.chdir(tmp_path)
    content = {
        "source": {"store": field_store.name, "variables": ["t"], "sample_dims": ["time", "lat"]},
        "model": {"k": 3},
        "output": {"store": "out", "report": False},
    }
    Path("job.yaml").write_text(yaml.safe_dump(content))
    return "job.yaml"


@pytest.fixture
def long_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> Iterator[str]:
    """A fit that makes passes until its time limit, and that mostly waits for its slow store."""
    monkeypatch.chdir(tmp_path)
    rows = xr.DataArray(rng.standard_normal((10_000, 4), dtype=np.float32), dims=("row", "feature"), name="rows")
    rows.to_dataset().to_zarr("rows.zarr", consolidated=False, zarr_format=3, encoding={"rows": {"chunks": (1_000, 4)}})
    with web(tmp_path, delay=0.05) as address:
        content = {
            "source": {"store": f"{address}/rows.zarr", "variables": ["rows"]},
            "model": {"kind": "gaussian_mixture", "k": 16},
            "fit": {"restarts": 1, "tolerance": 0, "max_iterations": 10**9, "max_seconds": 20},
            # The memory holds a part of the rows. Each pass reads the others.
            "compute": {"workers": 1, "memory": "100KB", "block": "16KB"},
            "output": {"store": "out", "report": False},
        }
        Path("job.yaml").write_text(yaml.safe_dump(content))
        yield "job.yaml"


def record(folder: str = "out") -> Any:
    return json.loads(Path(folder, "run.json").read_text())


def labels(folder: str = "out") -> np.ndarray:
    with xr.open_dataset(f"{folder}/labels.zarr", engine="zarr", consolidated=False, chunks=None) as dataset:
        return dataset["labels"].values


def completed(name: str) -> list[FlowRun]:
    return [flow_run for flow_run in stack.runs(name) if flow_run.state and flow_run.state.is_completed()]


def test_a_deployment_has_the_schedule_and_the_job(api: str, job: str, tmp_path: Path) -> None:
    command = ["deploy", job, "--pool", POOL, "--name", "listed", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin"]
    assert run([*command, "--set", "model.k=5"]) == 0

    deployment = stack.deployment("fit/listed")
    (schedule,) = deployment.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone, schedule.active) == ("0 3 * * *", "Europe/Berlin", True)
    assert (deployment.entrypoint, deployment.work_pool_name) == ("clustering_flows.fit.fit", POOL)
    # The worker imports the flow from the package that is installed: no code travels, and no folder is copied.
    assert deployment.pull_steps == [{"prefect.deployments.steps.set_working_directory": {"directory": "/"}}]
    assert deployment.parameters["config"]["source"]["store"] == str(tmp_path / "field.zarr")
    assert deployment.parameters["config"]["output"]["store"] == str(tmp_path / "out")
    assert deployment.parameters["config"]["model"]["k"] == 5
    assert deployment.job_variables == {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
    assert deployment.global_concurrency_limit is not None
    assert deployment.global_concurrency_limit.limit == 1
    assert deployment.concurrency_options is not None
    assert deployment.concurrency_options.collision_strategy == "CANCEL_NEW"
    assert deployment.concurrency_options.grace_period_seconds == 600
    # The form in the browser is made from this schema.
    schema = deployment.parameter_openapi_schema
    assert deployment.enforce_parameter_schema
    assert schema["properties"]["config"]["$ref"] == "#/definitions/JobConfig"
    fit = schema["definitions"]["FollowOptions"]["properties"]
    assert fit["sample_rows"]["minimum"] == 1
    assert {"minimum": 1, "type": "integer"} in fit["restarts"]["anyOf"]
    assert fit["restarts"]["description"]


def test_deploying_again_replaces_what_was_deployed(api: str, job: str) -> None:
    command = ["deploy", job, "--pool", POOL, "--name", "again"]
    assert run([*command, "--cron", "0 3 * * *"]) == 0
    first = stack.deployment("fit/again")

    assert run([*command, "--interval", "6h", "--timezone", "Asia/Kolkata", "--collision", "enqueue", "--paused"]) == 0
    second = stack.deployment("fit/again")
    (schedule,) = second.schedules
    assert second.id == first.id
    assert schedule.schedule.interval == timedelta(hours=6)
    assert schedule.schedule.timezone == "Asia/Kolkata"
    assert schedule.schedule.anchor_date.isoformat() == "2020-01-01T00:00:00+05:30"
    assert second.paused
    assert second.concurrency_options is not None
    assert second.concurrency_options.collision_strategy == "ENQUEUE"

    assert run(command) == 0
    third = stack.deployment("fit/again")
    assert third.schedules == []
    assert not third.paused
    assert third.concurrency_options is not None
    assert third.concurrency_options.collision_strategy == "CANCEL_NEW"


def test_the_server_refuses_values_that_no_config_may_have(api: str, job: str) -> None:
    assert run(["deploy", job, "--pool", POOL, "--name", "form"]) == 0
    deployment = stack.deployment("fit/form")
    wrong = {**deployment.parameters["config"], "model": {"kind": "kmeans", "k": 0}}
    with get_client(sync_client=True) as client, pytest.raises(Exception, match="409"):
        client.create_flow_run_from_deployment(deployment.id, parameters={"config": wrong})


def test_a_missing_pool_is_reported_with_those_that_exist(
    api: str, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["deploy", job, "--pool", "locl"]) == 2
    assert capsys.readouterr().err == (
        "clustering: there is no work pool 'locl'; did you mean 'local'? allowed: local; "
        "make it with: prefect work-pool create 'locl' --type process\n"
    )


def test_a_pool_is_made_once(api: str) -> None:
    server.make_pool(POOL)
    with get_client(sync_client=True) as client:
        assert [pool.name for pool in client.read_work_pools()] == [POOL]
    with pytest.raises(ConfigError, match=r"'dokcer' are not known here; allowed: .*process"):
        server.make_pool("containers", kind="dokcer")
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="containers", type="docker"))
        with pytest.raises(ConfigError, match="the work pool 'containers' is of type 'docker', not 'process'"):
            server.make_pool("containers")
        client.delete_work_pool("containers")


def test_an_address_without_its_end_is_reported_in_one_line(
    api: str, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = api.removesuffix("/api")
    with temporary_settings({PREFECT_API_URL: address}):
        assert run(["deploy", job, "--pool", POOL]) == 1
    assert capsys.readouterr().err == (
        f"clustering: the Prefect API at {address} answers 404 Not Found; "
        "check PREFECT_API_URL, such as http://127.0.0.1:4200/api\n"
    )


def test_the_automation_is_made_once_and_follows_the_heartbeat(api: str) -> None:
    def kept() -> Any:
        with get_client(sync_client=True) as client:
            automations = client.request("POST", "/automations/filter", json={}).json()
        (automation,) = [each for each in automations if each["name"] == server.AUTOMATION]
        return automation

    server.make_zombie_automation()
    first = kept()
    server.make_zombie_automation()
    assert kept() == first
    assert first["trigger"]["within"] == 90
    # The automation leaves other runs alone, because their heartbeats may be less frequent.
    assert first["trigger"]["match_related"] == {"prefect.resource.id": ["prefect.tag.clustering"]}
    server.make_zombie_automation(heartbeat=60)
    assert (kept()["id"], kept()["trigger"]["within"]) == (first["id"], 180)
    server.make_zombie_automation()
    assert kept()["trigger"]["within"] == 90


def test_a_scheduled_run_is_made_by_the_server_and_run_by_a_worker(api: str, worker: None, job: str) -> None:
    command = ["deploy", job, "--pool", POOL, "--name", "often", "--set", "output.overwrite=true"]
    assert run([*command, "--interval", "10"]) == 0
    done = eventually(lambda: completed("fit/often"), bool)
    assert run(command) == 0

    assert done, [flow_run.state for flow_run in stack.runs("fit/often")]
    assert all(flow_run.auto_scheduled for flow_run in done)
    assert all("clustering" in flow_run.tags for flow_run in done)
    assert record()["status"] == "finished"
    assert set(np.unique(labels())) == {0, 1, 2}


def test_a_served_job_runs_on_its_schedule_until_it_is_stopped(api: str, job: str, tmp_path: Path) -> None:
    command = ["deploy", str(tmp_path / job), "--serve", "--name", "served", "--interval", "10", "--json"]
    process = subprocess.Popen(
        [*stack.CLUSTERING, *command, "--set", "output.overwrite=true"],
        env={**stack.os.environ, "PYTHONPATH": str(stack.ROOT), "PREFECT_API_URL": api},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        assert process.stdout is not None
        summary = next(json.loads(line) for line in process.stdout if line.startswith("{"))
        done = eventually(lambda: completed("fit/served"), bool)
        process.send_signal(signal.SIGINT)
        said = "".join(process.communicate(timeout=60))

    assert summary["deployment"] == "fit/served"
    assert (summary["pool"], summary["interval"], summary["warnings"]) == (None, 10, [])
    assert done, said
    assert all(flow_run.auto_scheduled for flow_run in done)
    assert process.returncode == 0
    assert "labelled 108 rows" in said
    assert "Traceback" not in said
    assert set(np.unique(labels())) == {0, 1, 2}
    # The deployment is paused, because no process is left to run it.
    assert stack.deployment("fit/served").paused


def test_a_deployment_leaves_its_pool_to_be_served(api: str, job: str, tmp_path: Path) -> None:
    assert run(["deploy", job, "--pool", POOL, "--name", "moved"]) == 0
    process = stack.start(
        [*stack.CLUSTERING, "deploy", str(tmp_path / job), "--serve", "--name", "moved"],
        tmp_path,
        PREFECT_API_URL=api,
    )
    deployment = eventually(lambda: stack.deployment("fit/moved"), lambda latest: latest.work_pool_name is None)
    stack.end(process, signal.SIGINT)
    assert deployment.work_pool_name is None
    assert deployment.job_variables == {}


def test_a_deployed_prediction_takes_the_current_version_of_its_model(
    api: str, worker: None, job: str, tmp_path: Path
) -> None:
    assert run(["fit", job, "--no-prefect", "--set", "output.store=model"]) == 0
    assert run(["deploy", job, "--model", "model", "--pool", POOL, "--name", "labels"]) == 0
    assert stack.deployment("predict/labels").parameters["model"] == str(tmp_path / "model")
    again = [
        "--set",
        "output.store=model",
        "--set",
        "output.overwrite=true",
        "--set",
        "fit.seed=3",
        "--set",
        "model.k=5",
    ]
    assert run(["fit", job, "--no-prefect", *again]) == 0

    flow_run = stack.run_of("predict/labels")
    assert eventually(lambda: stack.state(flow_run), lambda state: state == "Completed") == "Completed"
    assert record()["k"] == 5
    np.testing.assert_array_equal(labels(), labels("model"))


def test_a_run_that_is_due_while_another_is_under_way_is_cancelled_and_a_command_is_refused(
    api: str, worker: None, long_job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["deploy", long_job, "--pool", POOL, "--name", "one"]) == 0
    first = stack.run_of("fit/one")
    assert eventually(lambda: [*Path("out", "checkpoints").glob("pass-*.npz")], bool)
    capsys.readouterr()

    assert run(["fit", long_job, "--no-prefect"]) == 1
    assert "another run is writing to" in capsys.readouterr().err
    assert stack.state(first) == "Running"
    second = stack.run_of("fit/one")
    assert eventually(lambda: stack.state(second), lambda state: state == "Cancelled") == "Cancelled"
    assert "concurrency limit" in stack.message(second)

    assert eventually(lambda: stack.state(first), lambda state: state == "Completed") == "Completed"
    assert record()["stop_reason"] == "max_seconds"


def test_a_run_may_wait_for_the_one_before(api: str, worker: None, long_job: str) -> None:
    command = ["deploy", long_job, "--pool", POOL, "--name", "queue", "--collision", "enqueue"]
    assert run([*command, "--set", "output.overwrite=true", "--set", "fit.max_seconds=6"]) == 0
    first, second = stack.run_of("fit/queue"), stack.run_of("fit/queue")

    states = eventually(
        lambda: [stack.state(first), stack.state(second)], lambda latest: "AwaitingConcurrencySlot" in latest
    )
    assert states.count("AwaitingConcurrencySlot") == 1
    ended = eventually(lambda: [stack.state(first), stack.state(second)], lambda latest: set(latest) == {"Completed"})
    assert ended == ["Completed", "Completed"]
    with get_client(sync_client=True) as client:
        one, other = sorted(
            (client.read_flow_run(flow_run_id) for flow_run_id in (first, second)),
            key=lambda flow_run: flow_run.start_time,
        )
    assert one.end_time <= other.start_time


def test_the_file_for_prefects_own_command_deploys(api: str, tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text((stack.ROOT / "prefect.yaml").read_text())
    process = stack.start(
        [*stack.PREFECT, "--no-prompt", "deploy", "--all"], tmp_path, PREFECT_API_URL=api, PWD=str(tmp_path)
    )
    assert process.wait(240) == 0, (tmp_path / "log").read_text()

    deployment = stack.deployment("fit/quickstart")
    (schedule,) = deployment.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 3 * * *", "Europe/Berlin")
    assert (deployment.entrypoint, deployment.work_pool_name) == ("clustering_flows.fit.fit", POOL)
    assert deployment.pull_steps == [{"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path)}}]
    shipped = load_config(stack.ROOT / "configs" / "quickstart.yaml", ["output={store: demo/nightly, overwrite: true}"])
    assert check_config(deployment.parameters["config"]) == shipped
    assert deployment.job_variables == {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(server.HEARTBEAT)}}
    assert deployment.tags == [server.TAG]


def test_a_server_with_a_password_is_reported_in_one_line(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stack.server(tmp_path / "guarded", PREFECT_SERVER_API_AUTH_STRING="me:secret") as address:
        with temporary_settings({PREFECT_API_URL: address}):
            assert run(["deploy", job, "--pool", POOL]) == 2
            assert f"the Prefect API at {address} refuses who asks (401)" in capsys.readouterr().err
        with temporary_settings({PREFECT_API_URL: address, PREFECT_API_AUTH_STRING: "me:secret"}):
            assert run(["deploy", job, "--pool", POOL]) == 2
            assert "there is no work pool 'local'; allowed: none" in capsys.readouterr().err


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("fate", "ends"),
    [("cancelled", "Cancelled"), ("stopped", "Crashed"), ("lost", "Crashed")],
    ids=["cancelled", "stopped", "lost"],
)
def test_the_next_run_ends_what_one_has_left(fate: str, ends: str, api: str, long_job: str, tmp_path: Path) -> None:
    server.make_pool(fate)
    process = stack.start_worker(fate, api, tmp_path / "first")
    assert run(["deploy", long_job, "--pool", fate, "--name", fate, "--set", "fit.max_seconds=40"]) == 0
    first = stack.run_of(f"fit/{fate}")
    assert eventually(lambda: [*Path("out", "checkpoints").glob("pass-*.npz")], bool)
    if fate == "cancelled":
        stack.cancel(first)
    elif fate == "stopped":
        stack.end(process)
    else:
        stack.kill(process)

    # The server notices only by the missing heartbeat of the run that a worker is gone.
    assert eventually(lambda: stack.state(first), lambda state: state == ends) == ends
    if ends == "Crashed":
        assert stack.message(first) == "no heartbeat for 90 s"
        process = stack.start_worker(fate, api, tmp_path / "second")
    second = stack.run_of(f"fit/{fate}")
    try:
        assert eventually(lambda: stack.state(second), lambda state: state == "Completed") == "Completed"
    finally:
        stack.end(process)
    assert any("continuing unfinished run" in line for line in stack.lines(second))
    assert record()["status"] == "finished"
