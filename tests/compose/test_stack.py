"""The stack as users run it: it starts, runs on schedule, loses machines, and goes on to the same bits."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import obstore
import pytest
from conftest import ONCE, SERVICES
from engine import Stack, docker, eventually
from obstore.store import S3Store

# The limit leaves time to build all images, and to wait until Prefect marks a lost run as crashed.
pytestmark = [pytest.mark.compose, pytest.mark.timeout(3600)]

OURS = ("server", "services", "worker", "scheduler", "dask-worker")
CONFIG = "configs/compose.yaml"
NIGHTLY = "s3://clustering/runs/climate-zones"
# A mixture of all values of the field. It does not stop before the last of its many passes.
LONG = {
    "source.sample_dims": "[time, latitude, longitude]",
    "source.feature_dims": "[]",
    "model": "{kind: gaussian_mixture, k: 8}",
    "fit": "{restarts: 2, sample_rows: 20000, tolerance: 0, max_iterations: 120}",
    "compute.block": "512KiB",
}
EMBEDDED = {"compute.cluster": "threads"}


def options(output: str, *settings: dict[str, str]) -> list[str]:
    """Settings of a job as the command line takes them."""
    given = {"output.store": output}.items()
    return [
        part
        for key, value in [*given, *(item for group in settings for item in group.items())]
        for part in ("--set", f"{key}={value}")
    ]


def objects(stack: Stack, prefix: str) -> dict[str, bytes]:
    """The contents of all objects below a prefix of the bucket, by their keys below it."""
    store = S3Store(
        "clustering",
        prefix=prefix,
        endpoint=f"http://127.0.0.1:{stack.ports['S3_PORT']}",
        access_key_id=stack.secrets["S3_ACCESS_KEY"],
        secret_access_key=stack.secrets["S3_SECRET_KEY"],
        region="us-east-1",
        client_options={"allow_http": True},
    )
    contents = {}
    for key in sorted(item["path"] for page in obstore.list(store) for item in page):
        # A run under way removes objects of its own, such as old checkpoints.
        with suppress(FileNotFoundError):
            contents[key] = bytes(obstore.get(store, key).bytes())
    return contents


def bits(stack: Stack, output: str) -> dict[str, bytes]:
    """The chunks of the published labels and model, without the metadata: these name the run."""
    contents = objects(stack, output.removeprefix("s3://clustering/"))
    return {
        key: content
        for key, content in contents.items()
        if key.startswith(("labels.zarr/", "model.zarr/")) and not key.endswith("zarr.json")
    }


def summary(said: str) -> dict[str, Any]:
    """The record that a command with ``--json`` prints last."""
    return dict(json.loads(said.strip().splitlines()[-1]))


@pytest.fixture(scope="module")
def embedded(stack: Stack) -> dict[str, bytes]:
    """The chunks that the job of the stack gives in one process, on threads and without Prefect."""
    output = "s3://clustering/runs/embedded"
    stack.cli("clustering", "fit", CONFIG, "--no-prefect", *options(output, EMBEDDED))
    return bits(stack, output)


def test_every_service_is_well_and_keeps_to_itself(stack: Stack) -> None:
    for service in ONCE:
        assert [about["State"]["ExitCode"] for about in stack.about(service)] == [0], service
    by_service = {service: stack.about(service) for service in SERVICES}
    assert len(by_service["dask-worker"]) == 2
    for service, containers in by_service.items():
        for about in containers:
            assert about["HostConfig"]["Memory"] > 0, service
            bound = {to["HostIp"] for place in about["NetworkSettings"]["Ports"].values() for to in place or ()}
            assert bound <= {"127.0.0.1"}, service
    for service in OURS:
        for name in stack.containers(service):
            assert docker("exec", name, "id", "-u").strip() == "1000"
            assert "docker-init" in docker("exec", name, "cat", "/proc/1/cmdline")


def test_starting_again_changes_nothing(stack: Stack) -> None:
    def state() -> Any:
        names = [pool["name"] for pool in stack.ask("work_pools/filter")]
        deployments = [deployment["name"] for deployment in stack.ask("deployments/filter")]
        automations = [automation["name"] for automation in stack.ask("automations/filter")]
        return names, deployments, automations, objects(stack, "data")

    before = state()
    said = stack.compose("run", "--rm", "-T", "init")

    assert "bucket clustering: there" in said
    assert "data s3://clustering/data/north-america.zarr: there" in said
    assert state() == before
    assert before[0:2] == (["clustering"], ["nightly"])
    assert len(before[2]) == 1


def test_a_run_by_hand_gives_the_bits_of_an_embedded_one(stack: Stack, embedded: dict[str, bytes]) -> None:
    output = "s3://clustering/runs/by-hand"
    record = summary(stack.cli("clustering", "fit", CONFIG, "--json", *options(output)))

    assert record["status"] == "finished"
    assert bits(stack, output) == embedded
    assert embedded


def test_a_run_is_scheduled_and_run_by_itself(stack: Stack, embedded: dict[str, bytes]) -> None:
    def done() -> list[dict[str, Any]]:
        return [run for run in stack.runs("nightly", "COMPLETED") if run["auto_scheduled"]]

    eventually("a scheduled run completes", done)
    # A second scheduled run may have ended since: it also writes which labels changed.
    chunks = {key: content for key, content in bits(stack, NIGHTLY).items() if "/changed/" not in key}
    assert chunks == embedded
    (nightly,) = stack.ask("deployments/filter")
    stack.ask(f"deployments/{nightly['id']}/pause_deployment")


def test_a_lost_worker_of_dask_and_a_lost_worker_of_prefect_cost_no_bit(stack: Stack) -> None:
    output, checkpoints = "s3://clustering/runs/long", "runs/long/checkpoints"
    stack.cli(
        "clustering", "deploy", CONFIG, "--name", "long", "--pool", "clustering", "--cron", "* * * * *",
        *options(output, LONG),
    )  # fmt: skip
    (run,) = eventually("a scheduled run is running", lambda: stack.runs("long", "RUNNING"))
    first = eventually("it has made a pass", lambda: objects(stack, checkpoints))

    docker("kill", stack.containers("dask-worker")[0])
    second = eventually("it goes on", lambda: objects(stack, checkpoints).keys() - first.keys())
    docker("kill", *stack.containers("worker"))
    # Docker's restart policy does this after a crash, but not after a kill by hand.
    docker("start", *stack.containers("worker"), stack.containers("dask-worker")[0])

    output_at_once = "s3://clustering/runs/long-embedded"
    stack.cli("clustering", "fit", CONFIG, "--no-prefect", *options(output_at_once, LONG, EMBEDDED))
    state = eventually("it is taken for dead", lambda: crashed(stack, run["id"]))
    assert "no heartbeat" in state["message"]
    assert second

    (ended,) = eventually("a later run ends", lambda: stack.runs("long", "COMPLETED"))
    assert ended["id"] != run["id"]
    said = [line["message"] for line in stack.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [ended["id"]]}}})]
    continued = [line for line in said if line.startswith("continuing unfinished run")]
    assert len(continued) == 1
    assert bits(stack, output) == bits(stack, output_at_once)


def crashed(stack: Stack, run: str) -> dict[str, Any] | None:
    (flow_run,) = stack.ask("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    return flow_run["state"] if flow_run["state"]["type"] == "CRASHED" else None


def test_no_secret_is_shown(stack: Stack) -> None:
    text = stack.logs([*SERVICES, *ONCE])
    text += json.dumps(stack.ask("logs/filter")) + json.dumps(stack.ask("deployments/filter"))
    text += docker("history", "--no-trunc", stack.about("server")[0]["Image"])

    assert len(text) > 10_000
    for name, secret in stack.secrets.items():
        assert secret.rpartition(":")[2] not in text, name
