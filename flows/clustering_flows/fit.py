"""The Prefect flow that fits a model."""

from __future__ import annotations

from typing import Any

from prefect import flow

from clustering.config import JobConfig
from clustering.data.addresses import shown
from clustering.run.job import run_fit
from clustering_flows.credentials import access_of
from clustering_flows.prefect_watch import PrefectWatch, say_mistakes_plainly


@flow(name="fit", description="Cluster a Zarr source and write the model, labels and a report.")
def fit(config: JobConfig) -> dict[str, Any]:
    """Cluster a Zarr source and write the model, labels and a report.

    Parameters
    ----------
    config
        The job.

    Returns
    -------
    dict
        The content of ``run.json``.
    """
    # This comes before anything can fail, because Prefect logs every error with its traceback.
    say_mistakes_plainly()
    watch = PrefectWatch(shown(config.output.store))
    return run_fit(config, watch, watch.step, access_of(config.source))
