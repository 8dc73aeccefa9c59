"""Connects to the configured Prefect API, and turns its errors into one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.deployments.runner import DeploymentApplyError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from pydantic import ValidationError

from clustering.data.addresses import shown
from clustering.errors import ConfigError, ExecutionError
from clustering_flows.api_check import SECONDS, SUCH_AS, parts_of


def check_api(otherwise: str = "") -> None:
    """Check that the configured API answers and accepts the login. Without a configured API nothing is checked.

    Raises
    ------
    ClusteringError
        As for `connected`, within `SECONDS` and without retries.
    """
    if not PREFECT_API_URL.value():
        return
    # By default, Prefect repeats a failed request five times, with pauses. A command has to fail within seconds.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), connected(otherwise, timeout=SECONDS) as client:
        try:
            # The health page answers without a login, so a request that needs one is made.
            client.read_flows(limit=1)
        # Another server may answer with JSON, which does not have the form of a list of flows.
        except (ValidationError, TypeError) as error:
            raise ExecutionError(_no_api(str(PREFECT_API_URL.value()), otherwise)) from error
        try:
            client.raise_for_api_version_mismatch()
        except RuntimeError as error:
            raise ExecutionError(
                f"the Prefect API at {shown(str(PREFECT_API_URL.value()))} cannot be used: {error}"
            ) from error


@contextmanager
def connected(otherwise: str = "", **options: Any) -> Iterator[SyncPrefectClient]:
    """Connect to the configured API.

    Parameters
    ----------
    otherwise
        Another remedy, which messages end with.
    **options
        Options of the HTTP client.

    Raises
    ------
    ConfigError
        If no API is configured, its URL is not valid, or it refuses the login.
    ExecutionError
        If it does not answer, or the answer is not that of an API.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise ConfigError(
            "no Prefect API is configured, and a schedule needs one that stays; start one with 'prefect server start', "
            f"and set PREFECT_API_URL, {SUCH_AS}"
        )
    parts_of(url)
    at = f"the Prefect API at {shown(url)}"
    try:
        with get_client(httpx_settings=options or None, sync_client=True) as client:
            yield client
    # Errors of the caller's requests arrive here too, as they are raised at the `yield`.
    except DeploymentApplyError as error:
        raise ExecutionError(f"{at} refuses the deployment: {error}") from error
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise ConfigError(
                f"{at} refuses who asks ({status}); set PREFECT_API_AUTH_STRING to the user:password of the server, "
                f"or PREFECT_API_KEY{otherwise}"
            ) from error
        raise ExecutionError(
            f"{at} answers {status} {error.response.reason_phrase}; check PREFECT_API_URL, {SUCH_AS}{otherwise}"
        ) from error
    except httpx.TransportError as error:
        fault = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error) or "no answer"
        raise ExecutionError(
            f"{at} does not answer ({fault}); see that the server runs, and check PREFECT_API_URL, {SUCH_AS}{otherwise}"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, httpx.DecodingError) as error:
        raise ExecutionError(_no_api(url, otherwise)) from error


def _no_api(url: str, otherwise: str) -> str:
    return f"the Prefect API at {shown(url)} does not answer as one; check PREFECT_API_URL, {SUCH_AS}{otherwise}"
