"""Decides whether Prefect runs a job, and prepares its settings, without importing Prefect, which takes a second."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from pydantic import ValidationError

from clustering.errors import ConfigError, MissingDependencyError
from clustering.temporary import ensure, ensure_home, home_folder, is_writable
from clustering_flows.api_check import check_reachable

DEFAULTS = {
    # A profile of the user may switch the embedded API off, and a flow needs one.
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    # The embedded API needs 10 to 20 seconds on a busy machine, and Prefect gives it 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Without these two, the server and its clients send usage data to the makers of Prefect.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # Prefect would otherwise warn about log lines that belong to no flow run.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
"""Default settings for the embedded API. Variables that the user has set take precedence."""


def api_configured() -> bool:
    """Return whether a Prefect API is configured, by the environment or by the active profile."""
    return bool(api_url())


def api_url() -> str:
    """Return the URL of the configured Prefect API; empty where none is configured."""
    if "PREFECT_API_URL" in os.environ:
        return os.environ["PREFECT_API_URL"]
    home = _home()
    path = os.environ.get("PREFECT_PROFILES_PATH") or (None if home is None else home / "profiles.toml")
    if path is None:
        return ""
    try:
        content = tomllib.loads(Path(path).read_text())
    except (OSError, ValueError):
        return ""
    active = os.environ.get("PREFECT_PROFILE", content.get("active", ""))
    profile = content.get("profiles", {}).get(active, {})
    return str(profile.get("PREFECT_API_URL") or "")


def _home() -> Path | None:
    """Return the folder of Prefect's profiles and database; None where the user has no home folder."""
    folder = os.environ.get("PREFECT_HOME")
    if folder:
        return Path(folder)
    home = home_folder()
    return None if home is None else home / ".prefect"


def prepare() -> None:
    """Set environment variables for Prefect. This must be done before Prefect is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    ensure_home()
    home = _home()
    if home is None or not is_writable(home):
        ensure("PREFECT_HOME", "prefect", f"Prefect cannot write {home or 'a folder of its own'}")


def require(what: str, otherwise: str = "") -> None:
    """Set the environment and import Prefect.

    Parameters
    ----------
    what
        Feature that needs Prefect, for messages.
    otherwise
        Another remedy, which messages end with.

    Raises
    ------
    MissingDependencyError
        If Prefect is not installed.
    ConfigError
        If Prefect refuses one of its settings.
    """
    prepare()
    try:
        import prefect  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs the package 'prefect'; pip install 'zarr-clustering[prefect]'{otherwise}"
        ) from error
    except ValidationError as error:
        # Prefect checks its settings as it is imported.
        first = error.errors(include_url=False)[0]
        name = "_".join(str(part) for part in ("PREFECT", *first["loc"])).upper()
        raise ConfigError(
            f"Prefect does not take its setting {name}: {first['msg'].lower()}; correct it in the environment or the "
            f"profile{otherwise}"
        ) from None


def ready(what: str, otherwise: str = "") -> None:
    """Check within seconds that Prefect can be used, and that the configured API answers.

    Parameters
    ----------
    what, otherwise
        As for `require`.

    Raises
    ------
    ClusteringError
        If Prefect or the API cannot be used.
    """
    url = api_url()
    if url:
        # This comes before the import of Prefect, which takes seconds.
        check_reachable(url, otherwise)
    require(what, otherwise)
    from clustering_flows.prefect_api import check_api

    check_api(otherwise)
