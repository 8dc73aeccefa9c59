"""A Docker engine and a stack of services on it, used through the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

ROOT = Path(__file__).parents[2]
LONG = 1500.0
"""Seconds that a command may take: a few minutes on an idle machine, many on a busy one."""
T = TypeVar("T")


def docker(*arguments: str, stdin: Any = None, timeout: float = LONG) -> str:
    """Run a command of the engine and return its output; an assertion shows the end of its output if it fails."""
    return _said(["docker", *arguments], stdin=stdin, timeout=timeout)


def missing() -> str | None:
    """Return why no engine can be used, or None if one can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    done = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        return f"no Docker engine answers: {done.stderr.strip().splitlines()[-1]}"
    if not _compose():
        return "there is neither docker-compose nor the compose command of docker"
    return None


def _compose() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    has_plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    return ["docker", "compose"] if has_plugin else []


def _said(command: list[str], stdin: Any = None, timeout: float = LONG) -> str:
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT)
    said = f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{said}"
    return done.stdout


def eventually(what: str, ask: Callable[[], T], within: float = LONG) -> T:
    """Ask until the answer is true, and return it."""
    until = time.monotonic() + within
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < until, f"{what}: not within {within:g} s"
        time.sleep(1.0)


@dataclass(frozen=True)
class Stack:
    """The services of docker-compose.yml, brought up under a name of their own."""

    name: str
    settings: Path
    """The file that takes the place of ``.env``."""
    secrets: dict[str, str]
    """The secrets, by their names in the settings."""
    ports: dict[str, int]
    """Ports of this machine, by their names in the settings."""

    def compose(self, *arguments: str, timeout: float = LONG) -> str:
        """Run a command of compose."""
        options = [
            "--project-name",
            self.name,
            "--env-file",
            str(self.settings),
            "--file",
            str(ROOT / "docker-compose.yml"),
        ]
        return _said([*_compose(), *options, *arguments], timeout=timeout)

    def cli(self, *arguments: str, timeout: float = LONG) -> str:
        """Run a command in the service for it."""
        return self.compose("run", "--rm", "-T", "cli", *arguments, timeout=timeout)

    def containers(self, service: str) -> list[str]:
        """List the ids of the containers of a service."""
        own = ["--filter", f"label=com.docker.compose.project={self.name}"]
        ids = docker("ps", "--all", "--quiet", *own, "--filter", f"label=com.docker.compose.service={service}")
        return ids.split()

    def about(self, service: str) -> list[dict[str, Any]]:
        """Return what the engine knows of the containers of a service."""
        names = self.containers(service)
        return list(json.loads(docker("inspect", *names))) if names else []

    def health(self, service: str) -> set[str]:
        """Return the health states of the containers of a service."""
        return {about["State"]["Health"]["Status"] for about in self.about(service)}

    def logs(self, services: Iterable[str]) -> str:
        """Return all that the containers of services have printed."""
        names = [name for service in services for name in self.containers(service)]
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return "".join(subprocess.run(["docker", "logs", name], **both, text=True, check=True).stdout for name in names)

    def ask(self, path: str, body: Any = None) -> Any:
        """Post to Prefect's API."""
        user, _, password = self.secrets["PREFECT_AUTH"].partition(":")
        url = f"http://127.0.0.1:{self.ports['PREFECT_PORT']}/api/{path}"
        answer = httpx.post(url, json=body or {}, auth=(user, password), timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def runs(self, deployment: str, *states: str) -> list[dict[str, Any]]:
        """List the runs of a deployment that are in one of the given states, in the order in which they were due."""
        query = {
            "deployments": {"name": {"any_": [deployment]}},
            "flow_runs": {"state": {"type": {"any_": list(states)}}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        return list(self.ask("flow_runs/filter", query))
