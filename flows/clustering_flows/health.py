"""Health checks of the containers, which need nothing but Python.

Run ``python -m clustering_flows.health URL``, or ``python -m clustering_flows.health schedules``.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.request import Request, urlopen

TIMEOUT = 5.0
"""Time within which an answer has to arrive, in seconds."""
_COMING = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}


def check_answer(url: str) -> None:
    """Request a page.

    Raises
    ------
    OSError
        If there is no answer, or the answer is an error.
    """
    with urlopen(url, timeout=TIMEOUT) as answer:
        answer.read()


def check_schedules(environment: Mapping[str, str]) -> None:
    """Check that Prefect's scheduler works. It may stop silently, and then schedules no more runs.

    Raises
    ------
    OSError
        If a deployment has a schedule and no run is scheduled, or if the API does not answer.
    """
    # The server answers health checks even if its scheduler has stopped, so scheduled runs are counted.
    waiting = [deployment["name"] for deployment in _ask(environment, "deployments/filter", {}) if _is_due(deployment)]
    if waiting and not _ask(environment, "flow_runs/count", _COMING):
        raise OSError(f"no run is scheduled for {', '.join(waiting)}; restart the background services")


def _is_due(deployment: Mapping[str, Any]) -> bool:
    """Return whether a deployment has an active schedule, so that a run has to be scheduled."""
    return not deployment["paused"] and any(schedule["active"] for schedule in deployment["schedules"])


def _ask(environment: Mapping[str, str], path: str, body: Mapping[str, Any]) -> Any:
    if not (api := environment.get("PREFECT_API_URL")):
        raise ValueError("PREFECT_API_URL is not set; set it to the URL of Prefect's API")
    headers = {"Content-Type": "application/json"}
    # A server with a password answers only its health pages without a login.
    if user := environment.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    request = Request(f"{api}/{path}", json.dumps(body).encode(), headers)
    with urlopen(request, timeout=TIMEOUT) as answer:
        return json.load(answer)


def main(what: str, environment: Mapping[str, str]) -> int:
    """Run a check, print its error, and return the exit code: 0 for healthy, 1 otherwise."""
    try:
        if what == "schedules":
            check_schedules(environment)
        else:
            check_answer(what)
    except (OSError, HTTPException, ValueError) as error:
        print(f"unhealthy: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], os.environ))
