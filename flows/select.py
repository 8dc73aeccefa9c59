"""The Prefect flow that compares numbers of clusters."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from clustering.config import JobConfig
from clustering.data.addresses import shown
from clustering.report.markdown import selection_page
from clustering.run.select import run_select
from flows.credentials import access_of
from flows.prefect_watch import PrefectWatch, say_mistakes_plainly


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
    selection = run_select(config, watch, watch.step, access_of(config.source))
    try:
        create_markdown_artifact(selection_page(selection), key="select-k", description="Choices of k and their criteria")
    except Exception:
        # The output holds the same. A fault of Prefect must not fail the run.
        watch.warn("Prefect's API did not accept the table of choices; see the output")
    return selection
