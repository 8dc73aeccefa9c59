"""The Prefect flow that compares numbers of clusters."""

from __future__ import annotations

from typing import Any

from prefect import flow

from clustering.config import JobConfig
from clustering.data.addresses import shown
from clustering.run.select import run_select
from clustering_flows.credentials import access_of
from clustering_flows.prefect_watch import PrefectWatch, say_mistakes_plainly


@flow(name="select-k", description="Compare numbers of clusters, and publish the recommended model.")
def select_k(config: JobConfig) -> dict[str, Any]:
    """Compare numbers of clusters, and publish the recommended model, if the criteria agree on one.

    Parameters
    ----------
    config
        The job; its section ``select`` says what is compared.

    Returns
    -------
    dict
        The content of ``selection.json``.
    """
    # This comes before anything can fail, because Prefect logs every error with its traceback.
    say_mistakes_plainly()
    watch = PrefectWatch(shown(config.output.store))
    return run_select(config, watch, watch.step, access_of(config.source))
