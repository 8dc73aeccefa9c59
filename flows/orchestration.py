"""Whether, and with which settings, Prefect runs a job. Does not import Prefect: that takes a second."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from clustering.errors import MissingDependencyError

DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    # The embedded API needs 10 to 20 seconds on a busy machine, and Prefect gives it 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
"""Settings for the embedded API; what the user has set comes first."""


def api_configured() -> bool:
    """Tell whether a Prefect API is configured: by the environment, or by the active profile."""
    if "PREFECT_API_URL" in os.environ:
        return bool(os.environ["PREFECT_API_URL"])
    home = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect"))
    path = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, ValueError):
        return False
    active = os.environ.get("PREFECT_PROFILE", content.get("active", ""))
    profile = content.get("profiles", {}).get(active, {})
    return bool(profile.get("PREFECT_API_URL"))


def prepare() -> None:
    """Settle the environment before Prefect is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def require(what: str, otherwise: str = "") -> None:
    """Settle the environment and import Prefect.

    Parameters
    ----------
    what
        Needs it.
    otherwise
        What else would do.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    prepare()
    try:
        import prefect  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs the package 'prefect'; pip install 'zarr-clustering[prefect]'{otherwise}"
        ) from error
