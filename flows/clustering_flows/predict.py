"""The Prefect flow that labels data with a fitted model."""

from __future__ import annotations

from typing import Any

from prefect import flow

from clustering.config import JobConfig
from clustering.data.addresses import shown
from clustering.run.job import run_predict
from clustering_flows.credentials import access_of
from clustering_flows.prefect_watch import PrefectWatch, say_mistakes_plainly


@flow(name="predict", description="Label a Zarr source with a fitted model.")
def predict(model: str, config: JobConfig) -> dict[str, Any]:
    """Label a Zarr source with a fitted model.

    Parameters
    ----------
    model
        Path of a ``model.zarr``, or of the output of a run.
    config
        The job, of which source, compute and output are used.

    Returns
    -------
    dict
        The content of ``run.json``.
    """
    # This comes before anything can fail, because Prefect logs every error with its traceback.
    say_mistakes_plainly()
    watch = PrefectWatch(shown(config.output.store))
    return run_predict(model, config, watch, watch.step, access_of(config.source))
