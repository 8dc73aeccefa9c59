"""One stack for all tests, built from a Docker engine and Debian's packages alone, and removed afterwards."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from building import build_all, name_of_trial, remove_all, remove_left
from engine import ROOT, Stack, eventually, missing

SERVICES = ("postgres", "redis", "store", "server", "services", "worker", "scheduler", "dask-worker")
ONCE = ("migrate", "init")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack of docker-compose.yml, healthy, with a deployment that runs every minute."""
    if reason := missing():
        pytest.skip(f"{reason}; .ci/compose installs and starts what this needs")
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("images are made with debootstrap, as root; .ci/compose installs it")
    remove_left()
    name = name_of_trial()
    scratch = tmp_path_factory.mktemp("stack")
    with ExitStack() as ending:
        ending.callback(remove_all, name)
        images = build_all(name, scratch)
        chosen = {
            "POSTGRES_PASSWORD": secrets.token_hex(16),
            "PREFECT_AUTH": f"admin:{secrets.token_hex(16)}",
            "S3_ACCESS_KEY": secrets.token_hex(10),
            "S3_SECRET_KEY": secrets.token_hex(16),
        }
        ports = _free_ports("PREFECT_PORT", "DASK_PORT", "S3_PORT")
        settings = scratch / "env"
        others = {**images, **{key: str(port) for key, port in ports.items()}, "CLUSTERING_CRON": "* * * * *"}
        settings.write_text("".join(f"{key}={value}\n" for key, value in {**_example(), **chosen, **others}.items()))
        made = Stack(name, settings, chosen, ports)
        made.compose("up", "--detach", "--no-build")
        for service in SERVICES:
            eventually(f"{service} is healthy", lambda service=service: made.health(service) == {"healthy"})
        yield made


def _example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _free_ports(*names: str) -> dict[str, int]:
    with ExitStack() as held:
        probes = [held.enter_context(closing(socket.socket())) for _ in names]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return {name: probe.getsockname()[1] for name, probe in zip(names, probes, strict=True)}
