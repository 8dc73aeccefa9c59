"""Workers in SLURM jobs: submitted, waited for, and cancelled afterwards."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clustering.compat.dask import close_certificates, fail_jobs_without_id
from clustering.errors import ConfigError, ExecutionError, reason
from clustering.execution.dask_clusters import (
    QUEUE_SECONDS,
    Cluster,
    ClusterRequest,
    ClusterStatus,
    connect_client,
    dask_settings,
    environment,
    import_optional,
    worker_memory,
)

WALLTIME = "01:00:00"
"""Default time limit of a job."""
_RESERVE_SECONDS = 300.0
"""Longest time between the end of a worker and that of its job, in seconds."""
_ENDED = re.compile(
    "BOOT_FAIL|CANCELLED|COMPLETED|COMPLETING|DEADLINE|FAILED|NODE_FAIL|OUT_OF_MEMORY|PREEMPTED|REVOKED|TIMEOUT"
)
"""States of jobs that have no running workers any more."""
_WALLTIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})")
_SQUEUE_SECONDS = 30.0


def jobqueue() -> Any:
    """Import `dask_jobqueue`, an optional package."""
    return import_optional("dask_jobqueue", "cluster.slurm", "slurm")


@contextmanager
def slurm(
    demand: ClusterRequest,
    *,
    cores: int = 1,
    processes: int = 1,
    memory: str | None = None,
    queue: str | None = None,
    account: str | None = None,
    walltime: str = WALLTIME,
    interface: str | None = None,
    directives: Sequence[str] = (),
    prologue: Sequence[str] = (),
    python: str | None = None,
    logs: str | None = None,
    death_timeout: float = 60.0,
    tls: bool = False,
) -> Iterator[Cluster]:
    """Submit jobs with workers, for a scheduler in this process.

    Parameters
    ----------
    demand
        Cluster request; its worker processes are rounded up to whole jobs. Default: one job.
    cores
        Processors of a job, spread over its processes as threads.
    processes
        Worker processes of a job.
    memory
        Memory of a job, such as ``8GiB``. Default: enough for the budget of its workers.
    queue, account
        Partition and account of the jobs. Default: those of the user.
    walltime
        Time limit of a job. Workers leave a little earlier, so that no task is cut off.
    interface
        Network interface of scheduler and workers, such as ``ib0``.
    directives
        Further options of sbatch, such as ``--constraint=haswell``.
    prologue
        Shell lines that a job runs first, such as ``module load python``.
    python
        Interpreter of the workers. Default: that of this process.
    logs
        Folder for the output of the jobs. Default: the working directory.
    death_timeout
        Seconds after which a worker without a scheduler ends.
    tls
        Whether connections are encrypted, with certificates made for this run.

    Raises
    ------
    ConfigError
        If the walltime is not valid.
    ExecutionError
        If SLURM does not accept the jobs.
    MissingDependencyError
        If dask-jobqueue is not installed.
    """
    from dask.utils import format_bytes

    jobs = -(-(demand.workers or processes) // processes)
    lifetime, stagger = lifetime_of(walltime)
    room = memory or format_bytes(processes * worker_memory(demand.memory)).replace(" ", "")
    made = jobqueue().SLURMCluster
    with dask_settings(), ExitStack() as stack:
        try:
            cluster = made(
                cores=cores,
                processes=processes,
                memory=room,
                queue=queue,
                account=account,
                walltime=walltime,
                interface=interface,
                job_extra_directives=list(directives),
                job_script_prologue=[*exports(), *prologue],
                worker_extra_args=["--lifetime", f"{lifetime}s", "--lifetime-stagger", f"{stagger}s"],
                python=python,
                log_directory=logs,
                death_timeout=death_timeout,
                job_name="clustering",
                security=True if tls else None,
                # Jobs run on other machines, which read the certificates from a shared folder.
                shared_temp_directory=(logs or str(Path.cwd())) if tls else None,
                scheduler_options={"dashboard_address": ":0"},
                silence_logs=50,
            )
            stack.callback(_close, cluster)
            # `scale` would submit the jobs in the background, where errors are lost.
            for _ in range(jobs):
                cluster.worker_spec.update(cluster.new_worker_spec())
            cluster.sync(_submitted, cluster)
        except Exception as error:
            raise ExecutionError(f"SLURM does not take the jobs: {_refusal(error)}") from error
        client = stack.enter_context(connect_client(cluster))
        ids = [job.job_id for job in cluster.workers.values()]
        yield Cluster(
            "of SLURM",
            client,
            jobs * processes,
            demand.wait_seconds or QUEUE_SECONDS,
            partial(job_status, ids, processes),
            _REMEDY,
        )


_REMEDY = "see the jobs' output, change compute.cluster.slurm, lower compute.workers, or raise compute.wait_seconds"


def exports() -> list[str]:
    """Return Dask's settings as shell lines, for the script of a job."""
    return [f"export {name}='{value}'" for name, value in environment().items()]


def lifetime_of(walltime: str) -> tuple[int, int]:
    """Choose the lifetime of a worker and its random variation, so that it leaves before its job ends.

    Parameters
    ----------
    walltime
        In a form of sbatch: ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``,
        ``days-hours:minutes`` or ``days-hours:minutes:seconds``.

    Returns
    -------
    int
        Lifetime of a worker, in seconds.
    int
        Largest variation to either side, in seconds.

    Raises
    ------
    ConfigError
        If the walltime is not valid, or shorter than a minute.
    """
    match = _WALLTIME.fullmatch(walltime)
    if match is None:
        raise ConfigError(f"cluster.slurm: walltime is {walltime!r}; allowed: such as 01:30:00, 90 (minutes), 2-12")
    clock = [int(part) for part in match["clock"].split(":")]
    # As for sbatch, the clock begins with hours after days or where it has three parts, and otherwise with minutes.
    units = (3600, 60, 1) if match["days"] or len(clock) == 3 else (60, 1)
    seconds = int(match["days"] or 0) * 86400 + sum(n * unit for n, unit in zip(clock, units, strict=False))
    if seconds < 60:
        raise ConfigError(
            f"cluster.slurm: walltime is {walltime!r}, {seconds} s; a minute is the least that SLURM counts"
        )
    # The variation is below the reserve, so even the longest-lived worker leaves in time.
    reserve = min(_RESERVE_SECONDS, seconds / 12)
    return int(seconds - reserve), int(reserve * 0.8)


def _close(cluster: Any) -> None:
    """Cancel the jobs, and remove the certificates that were made for them."""
    try:
        cluster.close()
    finally:
        close_certificates(cluster)


async def _submitted(cluster: Any) -> None:
    """Wait until all jobs are submitted."""
    try:
        await cluster
    except Exception:
        fail_jobs_without_id(cluster)
        raise


def _refusal(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename == "sbatch":
        return "there is no sbatch on this machine; run on a machine that has SLURM's commands"
    said = re.findall(r"^sbatch: error: (.+)$", str(error), re.MULTILINE)
    what = "; ".join(line.strip().rstrip(".") for line in said) or reason(error)
    return f"{what}; change compute.cluster.slurm"


@dataclass(frozen=True)
class SlurmJob:
    """A job in the output of squeue."""

    id: str
    state: str
    reason: str
    output: str
    """File of its standard error, in which %J stands for the id."""


def job_status(ids: Sequence[str], processes: int) -> ClusterStatus:
    """Ask squeue for the state of jobs.

    Parameters
    ----------
    ids
        Ids of the jobs.
    processes
        Worker processes of a job.
    """
    # Without all states, squeue leaves out jobs that have just failed, and their reason is the one that helps.
    command = ["squeue", "--noheader", "--states=all", f"--jobs={','.join(ids)}"]
    # Reasons may hold spaces, so the columns end in a bar.
    columns = "JobID:|,State:|,Reason:|,STDERR:|"
    try:
        answer = subprocess.run(
            [*command, f"--Format={columns}"], capture_output=True, text=True, timeout=_SQUEUE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return ClusterStatus(f"squeue does not answer: {reason(error)}")
    # squeue refuses an id that it has forgotten, which tells that this job is gone.
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return ClusterStatus(f"squeue does not answer: {' '.join(answer.stderr.split())}")
    jobs = [SlurmJob(*line.split("|")[:4]) for line in answer.stdout.splitlines() if line.count("|") == 4]
    return describe_jobs(jobs, ids, processes)


def describe_jobs(listed: Iterable[SlurmJob], ids: Sequence[str], processes: int) -> ClusterStatus:
    """Describe the state of jobs in one clause.

    Parameters
    ----------
    listed
        Jobs in the output of squeue, which drops a job some minutes after its end.
    ids
        Ids of all jobs.
    processes
        Worker processes of a job.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    jobs = {job.id: job for job in listed}
    for id_ in ids:
        job = jobs.get(id_)
        alike["gone from the queue" if job is None else f"{job.state} ({job.reason})"].append(id_)
    said = [f"{'job' if len(group) == 1 else 'jobs'} {_listed(group)} {state}" for state, group in alike.items()]
    ended = [job for job in jobs.values() if _ENDED.fullmatch(job.state)]
    last = next((line for line in map(_last_line, ended) if line), None)
    if last is not None:
        said.append(f"the last line of one: {last}")
    return ClusterStatus(", ".join(said), (len(jobs) - len(ended)) * processes)


def _listed(ids: Sequence[str], most: int = 5) -> str:
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")


def _last_line(job: SlurmJob) -> str:
    """Return the last line that a job wrote; empty where there is none."""
    # dask-jobqueue names the files with %J, which squeue does not replace.
    path = Path(job.output.replace("%J", job.id).replace("%j", job.id))
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
