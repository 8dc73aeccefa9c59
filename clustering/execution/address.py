"""Connects to a Dask scheduler that is already running, with or without TLS."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clustering.errors import ConfigError, ExecutionError, reason
from clustering.execution.dask_clusters import ANSWER_SECONDS, Cluster, ClusterRequest, connect_client, distributed

_LOOK_SECONDS = 0.2
"""Interval between looks for the scheduler file, in seconds."""


@contextmanager
def connect_scheduler(
    demand: ClusterRequest,
    *,
    address: str | None = None,
    scheduler_file: str | None = None,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
) -> Iterator[Cluster]:
    """Connect to a scheduler, and leave it running afterwards.

    Parameters
    ----------
    demand
        Cluster request; its workers are waited for, 1 by default.
    address
        Address such as ``tcp://scheduler:8786`` or ``tls://scheduler:8786``; not with `scheduler_file`.
    scheduler_file
        File that the scheduler wrote with ``--scheduler-file``; not with `address`.
    ca_file, cert_file, key_file
        PEM files for ``tls://``: the authority that signed the scheduler's certificate, and this process's own
        certificate and key. Dask's settings give those that are None.

    Raises
    ------
    ConfigError
        If address or TLS files are missing or do not fit.
    ExecutionError
        If the scheduler does not answer, or refuses the certificate.
    """
    d, limit = distributed(), demand.wait_seconds or ANSWER_SECONDS
    if (address is None) == (scheduler_file is None):
        raise ConfigError("a cluster has either an address or a scheduler_file; give one of them")
    where = read_scheduler_file(scheduler_file, limit) if scheduler_file is not None else str(address)
    files = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
    security = _security(d, where, files)
    try:
        if "://" not in where:
            # Dask would take such an address for tcp://, even where tls:// was meant.
            raise ValueError("no protocol")
        client = connect_client(where, timeout=limit, security=security)
    except ssl.SSLError as error:
        raise ConfigError(f"the files of TLS for {where!r} do not fit together ({reason(error)}); {_FILES}") from error
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        raise ExecutionError(_unreachable(where, error, limit)) from error
    with client:
        yield Cluster(f"at {where}", client, demand.workers or 1, limit)


_FILES = "check ca_file, cert_file and key_file of compute.cluster"


def read_scheduler_file(path: str, limit: float) -> str:
    """Wait for a scheduler file, and return the address in it.

    Parameters
    ----------
    path
        File that ``dask scheduler --scheduler-file`` writes.
    limit
        How long to wait, in seconds.

    Raises
    ------
    ConfigError
        If the file holds no address.
    ExecutionError
        If the file does not appear in time.
    """
    until = time.monotonic() + limit
    # The scheduler may start at the same time as this process, in another job of a queue.
    while not Path(path).exists():
        if time.monotonic() > until:
            raise ExecutionError(
                f"the scheduler file {path!r} is not there after {limit:.0f} s; start the scheduler with "
                "--scheduler-file, on a folder that this machine sees, or raise compute.wait_seconds"
            )
        time.sleep(_LOOK_SECONDS)
    try:
        return str(json.loads(Path(path).read_text())["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the scheduler file {path!r} holds no address ({reason(error)}); name a file that "
            "'dask scheduler --scheduler-file' wrote"
        ) from error


def _security(d: Any, address: str, files: dict[str, str | None]) -> Any:
    given = {name: path for name, path in files.items() if path is not None}
    if not address.startswith("tls://"):
        # Files of TLS without encryption are a mistake that would send all data in the clear.
        if given:
            raise ConfigError(f"{', '.join(given)} are of TLS, and the address is {address!r}; use tls://")
        return None
    for name, path in given.items():
        if not Path(path).is_file():
            raise ConfigError(f"{name} is {path!r}, and there is no such file; {_FILES}")
    names = {"ca_file": "tls_ca_file", "cert_file": "tls_client_cert", "key_file": "tls_client_key"}
    # Dask's settings fill in the files that were not given.
    security = d.Security(require_encryption=True, **{names[name]: path for name, path in given.items()})
    absent = [name for name, attribute in names.items() if getattr(security, attribute) is None]
    if absent:
        raise ConfigError(f"the address is {address!r} and {', '.join(absent)} are missing; {_FILES}")
    return security


def _unreachable(address: str, error: Exception, limit: float) -> str:
    """Describe why a scheduler was not reached; a refused certificate hides in the causes of the error."""
    faults: list[BaseException] = [error]
    while (before := faults[-1].__cause__ or faults[-1].__context__) is not None:
        faults.append(before)
    refused = next((fault for fault in faults if isinstance(fault, ssl.SSLError)), None)
    # With this reason, the other side speaks no TLS at all, so its certificate is not at fault.
    if refused is not None and refused.reason != "WRONG_VERSION_NUMBER":
        return (
            f"the scheduler at {address!r} and this process do not accept each other's certificates "
            f"({reason(refused)}); {_FILES}"
        )
    return (
        f"no Dask scheduler answers at {address!r} within {limit:.0f} s ({reason(error)}); check that it runs and "
        "whether it is tcp:// or tls://, or use 'threads' or 'local'"
    )
