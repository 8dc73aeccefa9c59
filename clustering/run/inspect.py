"""Inspection of a job before it runs: what it would read and keep, how long it would take, and advice."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from clustering.cluster_options import KubernetesCluster, SlurmCluster
from clustering.config import JobConfig
from clustering.data.inspection import inspect_source
from clustering.data.preparation import usable_memory
from clustering.execution.dask_clusters import available_processors
from clustering.fitting.advice import advise
from clustering.fitting.forecast import Workers, forecast, resident_memory
from clustering.fitting.probe import probe
from clustering.run.prepare import SourceAccess, preflight_errors, prepare_job


def inspect_job(config: JobConfig, access: SourceAccess | None = None) -> dict[str, Any]:
    """Inspect a job before it runs: exact facts, estimates from a short probe, and advice. Nothing is written.

    Parameters
    ----------
    config
        The job.
    access
        What the config cannot hold of the source; None where it says all.

    Returns
    -------
    dict
        As JSON: the fields of `Inspection`, ``forecast`` with the fields of `Forecast`, ``advice``, ``remarks``, and
        ``faults``, which are the preflight errors of the job.

    Raises
    ------
    ClusteringError
        If something that the config names is missing or does not fit.
    """
    job = prepare_job(config, access=access)
    # The probe itself takes memory, so the memory of libraries is measured before it.
    libraries = resident_memory()
    source, memory, compute = job.source, config.memory_bytes, config.compute
    within = usable_memory(source, memory, bool(job.options.preprocess.requested))
    # The label pass may have other blocks than the fit, see `clustering.run.label`.
    label_plan = source.plan(block_bytes=config.block_bytes, memory=within, whole_chunks=False)
    inspection = inspect_source(source, job.plan, label_plan)
    workers = workers_of(compute.cluster, compute.workers)
    # The probe runs on this machine, which may have fewer processors than the cluster.
    threads = min(workers.processes * workers.threads, available_processors())
    measured = probe(source, job.plan, job.model, job.options, job.label_outputs, threads=threads)
    expected = forecast(
        source,
        job.plan,
        inspection,
        measured,
        job.options,
        workers,
        memory=memory,
        scratch=compute.scratch,
        libraries=libraries,
    )
    advice = tuple(advise(source, job.plan, inspection, expected, workers, job.options, memory=memory))
    return {
        **asdict(inspection),
        "model": str(job.model),
        "workers": asdict(workers),
        "memory": memory,
        # `asdict` leaves out properties.
        "forecast": {**asdict(expected), "reread_share": expected.reread_share},
        "remarks": job.remarks,
        # Faults are listed and not raised, so that the user sees the estimates all the same.
        "faults": preflight_errors(job),
        "advice": advice,
    }


def workers_of(cluster: Any, workers: int | None) -> Workers:
    """Return how many processes and threads a cluster will have.

    Numbers that the config does not set are taken as 1: the threads of workers that others start, and their number if
    ``compute.workers`` is not given.

    Parameters
    ----------
    cluster
        The option ``cluster``.
    workers
        The option ``workers``.
    """
    match cluster:
        case "synchronous":
            return Workers(1, 1)
        case "threads":
            return Workers(1, workers or available_processors())
        case "local":
            return Workers(workers or available_processors(), 1)
        case SlurmCluster(slurm=jobs) if not jobs.runner:
            # Slurm starts whole jobs, so the number of workers is rounded up.
            number = -(-(workers or 1) // jobs.processes)
            return Workers(number * jobs.processes, max(1, jobs.cores // jobs.processes))
        case KubernetesCluster(kubernetes=pods):
            return Workers(workers or 1, pods.threads)
        case _:
            return Workers(workers or 1, 1)
