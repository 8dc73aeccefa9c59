"""Credentials of a source, which come from the environment or from a Prefect block at run time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clustering.errors import ConfigError, MissingDependencyError
from clustering_flows import orchestration
from clustering_flows.compat import load_block

if TYPE_CHECKING:
    from clustering.config import SourceSection
    from clustering.run.prepare import SourceAccess


def access_of(source: SourceSection) -> SourceAccess:
    """Say how to reach a source, with the credentials that its config names.

    Raises
    ------
    ClusteringError
        If the Prefect block cannot be read.
    """
    # Opening a source loads numerical packages, which takes time. A wrong name of a block is reported before.
    credentials = None if source.credentials is None else load_credentials(source.credentials)
    from clustering.run.prepare import SourceAccess

    return SourceAccess(storage_options=None if credentials is None else merged(source.storage_options, credentials))


def merged(options: Mapping[str, Any], secret: Mapping[str, Any]) -> dict[str, Any]:
    """Add secret options to those of a config. Nested dicts are merged as well."""
    both = {**options, **secret}
    for name in options.keys() & secret.keys():
        if isinstance(options[name], Mapping) and isinstance(secret[name], Mapping):
            both[name] = merged(options[name], secret[name])
    return both


def load_credentials(name: str) -> dict[str, Any]:
    """Load storage options from a Prefect ``Secret`` block.

    Parameters
    ----------
    name
        ``secret/<name of the block>``; its value is a JSON object of storage options.

    Raises
    ------
    MissingDependencyError
        If Prefect is not installed.
    ConfigError
        If no Prefect API is configured, the block is not there, or it holds something else.
    """
    orchestration.prepare()
    otherwise = ", or give credentials by the environment"
    try:
        from prefect.blocks.system import Secret
        from prefect.context import FlowRunContext
        from prefect.settings import PREFECT_API_URL
    except ImportError as error:
        raise MissingDependencyError(
            f"source.credentials {name!r} needs the package 'prefect'; "
            f"pip install 'zarr-clustering[prefect]'{otherwise}"
        ) from error
    # Inside a flow, Prefect has reached its API already.
    if FlowRunContext.get() is None:
        if not PREFECT_API_URL.value() and not orchestration.api_configured():
            raise ConfigError(
                f"source.credentials names the Prefect block {name!r}, and no Prefect API is configured; "
                f"set PREFECT_API_URL{otherwise}"
            )
        orchestration.ready("source.credentials", otherwise)
    block = name.removeprefix("secret/")
    try:
        options: Any = load_block(Secret, block).get()
    except ValueError as error:
        raise ConfigError(
            f"source.credentials: there is no Prefect block {name!r}; make it with "
            f"Secret(value={{...}}).save({block!r}), or name another"
        ) from error
    except Exception:
        # Errors of Prefect may hold parts of the block, so they are not chained.
        raise ConfigError(
            f"source.credentials: the Prefect API did not give the block {name!r}; "
            "check PREFECT_API_URL and that the server runs"
        ) from None
    if not isinstance(options, dict):
        raise ConfigError(
            f"source.credentials: the Prefect block {name!r} holds no JSON object; "
            'give it storage options, such as {"key": ..., "secret": ...}'
        )
    return options
