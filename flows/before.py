"""The version that a run is going to follow: what is published in the output while the run makes its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from clustering.errors import ClusteringError, OutputError
from clustering.fitting.comparison import comparison
from clustering.fitting.fitted import Fitted
from clustering.fitting.labelling import LabelStatistics, Wanted
from clustering.storage.earlier import Earlier, earlier_labels
from clustering.storage.label_pass import LABELS
from clustering.storage.model import load_model
from flows.opened import Job


@dataclass(frozen=True, eq=False)
class Before:
    """A published version."""

    run: str
    fitted: Fitted
    labels: Earlier | None
    """None where it has none on these sample dimensions."""

    def compare(self, fitted: Fitted, sums: LabelStatistics | None) -> dict[str, Any]:
        """Tell what a new version changes, see `clustering.fitting.comparison`."""
        return comparison(self.run, self.fitted, fitted, sums)


def version_before(job: Job) -> Before | None:
    """Find the version that is published; None in a new output.

    Raises
    ------
    OutputError
        If its model or its labels cannot be read.
    """
    run = job.output.finished
    if run is None:
        return None
    place = job.output.published
    try:
        return Before(run, load_model(place)[0], earlier_labels(place / LABELS, job.source))
    except (ClusteringError, OSError, ValueError) as error:
        raise OutputError(
            f"the version before, of run {run}, cannot be read, and labels keep its ids ({error}); restore {place}, "
            "or name another output.store"
        ) from error


def wanted_after(job: Job, before: Before | None) -> Wanted:
    """Say what is told of each row: beside what the config asks for, whether its label changed."""
    output = job.config.output
    known = before is not None and before.labels is not None
    return replace(job.wanted, changed=known and output.labels and output.changed)
