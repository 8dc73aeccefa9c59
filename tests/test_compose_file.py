"""Checks of the Compose file that need no container engine. tests/compose starts the stack."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from clustering_flows.loading import load_config

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
STACK = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
EXAMPLE = dict(
    line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")
)
SECRETS = {"POSTGRES_PASSWORD", "PREFECT_AUTH", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
ONCE = {"migrate", "init", "cli"}
# ${NAME:-default} or ${NAME:?what to do}
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(?::([-?])([^}]*))?\}")
PINNED = re.compile(r"(?:[a-z0-9.-]+(?::\d+)?/)*[a-z0-9-]+:\d+\.\d+[\w.-]*")
services = pytest.mark.parametrize("service", SERVICES)


def filled(text: str) -> str:
    """Replace the variables of a text by their defaults."""
    return VARIABLE.sub(lambda match: match[3] if match[2] == "-" else "", text)


def test_every_variable_is_in_the_example_with_its_default() -> None:
    variables = {(name, kind, text) for name, kind, text in VARIABLE.findall(TEXT)}

    assert {name for name, _, _ in variables} == set(EXAMPLE)
    assert {(name, text) for name, kind, text in variables if kind == "-"} == {
        (name, EXAMPLE[name]) for name in set(EXAMPLE) - SECRETS
    }


def test_secrets_have_to_be_set_and_are_nowhere() -> None:
    assert {name for name, kind, _ in VARIABLE.findall(TEXT) if kind == "?"} == SECRETS
    assert {name for name, _, text in VARIABLE.findall(TEXT) if not text} == set()
    assert all(EXAMPLE[name] == "" for name in SECRETS)
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"KEY|SECRET|PASSWORD|AUTH_STRING|CONNECTION_URL", name):
                assert VARIABLE.findall(value), name
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


@services
def test_service_is_checked_or_runs_once(service: str) -> None:
    content = SERVICES[service]

    assert ("healthcheck" in content) != (service in ONCE)
    assert content["restart"] == ("no" if service in ONCE else "unless-stopped")


@services
def test_service_has_a_limit_of_memory(service: str) -> None:
    limit = SERVICES[service]["deploy"]["resources"]["limits"]["memory"]

    assert re.fullmatch(r"\d+[mg]", filled(limit))


@services
def test_image_is_pinned_by_a_variable(service: str) -> None:
    image = SERVICES[service]["image"]

    assert VARIABLE.fullmatch(image)
    assert PINNED.fullmatch(filled(image))


def test_base_of_our_image_is_pinned_alike() -> None:
    (default,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), flags=re.M)

    assert PINNED.fullmatch(default)
    assert default == EXAMPLE["BASE_IMAGE"]


def test_ports_are_of_this_machine_alone() -> None:
    ports = {port: name for name, content in SERVICES.items() for port in content.get("ports", ())}

    assert {filled(port): name for port, name in ports.items()} == {
        "127.0.0.1:4200:4200": "server",
        "127.0.0.1:8787:8787": "scheduler",
        "127.0.0.1:8333:8333": "store",
    }


@services
def test_whatever_a_service_waits_for_can_come(service: str) -> None:
    for name, dependency in SERVICES[service].get("depends_on", {}).items():
        condition = dependency["condition"]
        if name in ONCE:
            assert condition == "service_completed_successfully"
        else:
            assert condition in ("service_healthy", "service_started")


def test_what_is_ours_is_one_image_with_no_more_rights_than_it_needs() -> None:
    ours = {name: content for name, content in SERVICES.items() if "build" in content}

    assert set(SERVICES) - set(ours) == {"postgres", "redis", "store"}
    assert len({content["image"] for content in ours.values()}) == 1
    for content in ours.values():
        assert content["init"] is True
        assert content["cap_drop"] == ["ALL"]


def test_what_lasts_is_in_named_volumes() -> None:
    mounted = {mount.split(":")[0] for content in SERVICES.values() for mount in content.get("volumes", ())}

    assert mounted == set(STACK["volumes"]) == {"postgres", "redis", "store", "kernels"}


def test_a_run_gives_signs_of_life_as_often_as_the_rule_expects() -> None:
    from clustering_flows.server import HEARTBEAT

    assert SERVICES["worker"]["environment"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT)


def test_the_job_of_the_stack_is_in_it() -> None:
    config = load_config(ROOT / EXAMPLE["CLUSTERING_CONFIG"])

    assert config.cluster == {"address": "tcp://scheduler:8786"}
    assert config.compute.workers == SERVICES["dask-worker"]["deploy"]["replicas"]
    assert config.source.store.startswith("s3://clustering/")
    assert config.output.store.startswith("s3://clustering/")
    # The memory of a worker fits its container: kept rows, blocks in progress, and 512 MiB of libraries.
    assert 2 * config.memory_bytes + 512 * 1024**2 <= 2 * 1024**3 == _bytes(EXAMPLE["DASK_WORKER_MEMORY"])


def _bytes(limit: str) -> int:
    return int(limit[:-1]) * {"m": 1024**2, "g": 1024**3}[limit[-1]]


def test_the_image_has_what_the_suite_is_run_with() -> None:
    def pins(name: str) -> dict[str, str]:
        pin = r"^([a-z0-9-]+)(?:\[[^\]]*\])?==([^ \\;]+)"
        return dict(re.findall(pin, (ROOT / name).read_text(), flags=re.M))

    image, suite = pins("requirements.image.lock"), pins("requirements.lock")
    assert image.items() <= suite.items()
    assert {"prefect", "prefect-redis", "distributed", "bokeh", "obstore"} <= image.keys()
    assert not {"pytest", "moto", "ruff", "playwright"} & image.keys()
