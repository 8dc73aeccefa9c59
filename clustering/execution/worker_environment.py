"""Checks that workers have the package versions and BLAS threads of this process, because both decide bits."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

# threadpoolctl limits only BLAS libraries that are loaded, and these imports load them.
import numpy  # noqa: F401
import scipy.linalg  # noqa: F401
from distributed import WorkerPlugin

from clustering.blas import one_blas_thread
from clustering.errors import ExecutionError, reason

_SCHEDULER = ("python", "dask", "distributed", "cloudpickle", "tornado")
"""Packages that a scheduler needs in the same version."""
_WORKER = (*_SCHEDULER, "zarr-clustering", "numpy", "numba", "scipy", "zarr")
"""Packages that workers need in the same version."""


def check_worker_versions(client: Any, name: str) -> None:
    """Compare package versions of scheduler and workers with those of this process.

    Parameters
    ----------
    client
        The `distributed.Client`.
    name
        Name of the cluster in messages.

    Raises
    ------
    ExecutionError
        If a version differs, or a worker cannot import this package; the message names the first.
    """
    versions = client.get_versions(packages=list(_WORKER[len(_SCHEDULER) :]))
    ours = _versions(versions["client"])
    members: list[tuple[str, Any, tuple[str, ...]]] = [("scheduler", versions["scheduler"], _SCHEDULER)]
    members += [(f"worker {address}", about, _WORKER) for address, about in versions["workers"].items()]
    for member, about, packages in members:
        theirs = _versions(about)
        for package in packages:
            if theirs.get(package) != ours.get(package):
                raise ExecutionError(
                    f"the {member} of the cluster {name} has {package} {theirs.get(package) or '(not installed)'} and "
                    f"this process {ours.get(package) or '(not installed)'}; install the same versions on all of them, "
                    "from one image or requirements.lock"
                )
    for address, outcome in client.run(import_module, "clustering.execution.passes", on_error="return").items():
        if isinstance(outcome, Exception):
            raise ExecutionError(
                f"worker {address} of the cluster {name} cannot import clustering ({reason(outcome)}); "
                "install zarr-clustering on the workers"
            )


def _versions(about: Any) -> dict[str, str | None]:
    packages = dict(about["packages"])
    # Pickled functions work across releases of one minor version of Python.
    packages["python"] = ".".join(str(packages.get("python", "")).split(".")[:2])
    return packages


class OneBlasThread(WorkerPlugin):
    """Limits BLAS to one thread per task on workers, because bits depend on it; only a nanny would set that itself."""

    def __init__(self) -> None:
        # Dask keeps one plugin per name, and several connections to one cluster each need their own.
        self.name = f"clustering-one-blas-thread-{uuid.uuid4().hex[:8]}"

    def setup(self, worker: Any) -> None:
        """Set the limit when the plugin or the worker starts.

        Parameters
        ----------
        worker
            The `distributed.Worker`.
        """
        self.limits = one_blas_thread()
        self.limits.__enter__()

    def teardown(self, worker: Any) -> None:
        """Lift the limit.

        Parameters
        ----------
        worker
            The `distributed.Worker`.
        """
        # Leaving the context also gives up the right to set limits, which one thread of a process has.
        self.limits.__exit__(None, None, None)


@contextmanager
def one_blas_thread_on_workers(client: Any) -> Iterator[None]:
    """Limit BLAS to one thread in every worker, also in later ones, as long as the context lasts.

    Parameters
    ----------
    client
        The `distributed.Client`.
    """
    plugin = OneBlasThread()
    client.register_plugin(plugin)
    try:
        yield
    finally:
        # A cluster that is gone has no limits to lift.
        with suppress(Exception):
            client.unregister_worker_plugin(plugin.name)
