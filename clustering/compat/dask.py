"""Parts of dask, distributed and dask-jobqueue that are not public."""

from __future__ import annotations

from typing import Any


def holds_masked_arrays(data: Any) -> bool:
    """Tell whether the chunks of a dask array are masked arrays.

    Dask keeps an empty example of a chunk for this, and gives it no public name.

    Parameters
    ----------
    data
        A dask array. Nothing is computed.
    """
    import numpy as np

    return isinstance(data._meta, np.ma.MaskedArray)


def fail_jobs_without_id(cluster: Any) -> None:
    """Mark the jobs of a cluster that were not submitted as failed.

    Closing a cluster of dask-jobqueue 0.9 asserts that every job is closed or failed, and never closes a job without
    an id.

    Parameters
    ----------
    cluster
        A cluster of dask-jobqueue.
    """
    from distributed import Status

    for job in cluster.workers.values():
        if job.job_id is None:
            job.status = Status.failed


def close_certificates(cluster: Any) -> None:
    """Remove the files of the certificates that a cluster made for its workers.

    dask-jobqueue 0.9 removes them only when the cluster is collected as garbage.

    Parameters
    ----------
    cluster
        A cluster of dask-jobqueue, with certificates or without.
    """
    for name in ("_job_ca_file", "_job_cert", "_job_key"):
        if name in vars(cluster):
            vars(cluster)[name].close()
