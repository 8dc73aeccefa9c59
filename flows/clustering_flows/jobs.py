"""How commands run a job: in one process of an allocation, and as a Prefect flow or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clustering.config import JobConfig
    from clustering.run.drawing_process import DrawingProcess


def its_part_in(job: JobConfig) -> AbstractContextManager[None]:
    """Let one process do the job where srun starts this command several times in one allocation."""
    from clustering.execution.slurm_runner import in_allocation

    return in_allocation(job.cluster, job.memory_bytes)


def orchestrated(chosen: bool | None) -> bool:
    """Return whether the job runs as a Prefect flow, and check that Prefect is ready for it."""
    from clustering_flows import orchestration

    if not (orchestration.api_configured() if chosen is None else chosen):
        return False
    orchestration.ready("running as a flow", ", or use --no-prefect")
    return True


@contextmanager
def drawing_beside(job: JobConfig) -> Iterator[DrawingProcess | None]:
    """Offer a process that draws the report of a job; None where there is none to draw, or no process for it."""
    from clustering.run.drawing_process import DrawingProcess

    process = DrawingProcess.start() if job.output.report else None
    try:
        yield process
    finally:
        if process is not None:
            process.close()
