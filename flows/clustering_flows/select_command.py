"""The command that compares numbers of clusters."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from clustering.deferred import load_module
from clustering.errors import ConfigError, cut
from clustering_flows.arguments import AsJson, Orchestrated, Overrides
from clustering_flows.jobs import its_part_in, orchestrated

Publish = Annotated[
    str | None,
    Parameter(
        help="Which model is published: recommended, none, or another choice, such as k=5 or k=5,covariance=full. "
        "Default: select.publish of the config, which is recommended."
    ),
]


def select_k(
    config: str,
    *,
    publish: Publish = None,
    set_: Overrides = None,
    prefect: Orchestrated = None,
    json_: AsJson = False,
) -> None:
    """Compare numbers of clusters, and publish the recommended model, if the criteria agree on one.

    After an interruption, the same command resumes after the last finished pass.

    Example: clustering select-k configs/choose-k.yaml --set select.k=2..12

    Example: clustering select-k configs/choose-k.yaml --publish k=5,covariance=full

    Parameters
    ----------
    config
        YAML file of the job; its section select says what is compared.
    """
    from clustering_flows.loading import load_config

    overrides = list(set_ or ())
    if publish is not None:
        overrides.append(f"select.publish={_as_yaml(publish)}")
    job = load_config(config, overrides)
    with its_part_in(job):
        if orchestrated(prefect):
            from clustering_flows.select import select_k as flow

            selection = flow(job)
        else:
            load_module("clustering.run.select")
            from clustering.run.select import run_select
            from clustering_flows.credentials import access_of
            from clustering_flows.terminal import terminal_watch

            with terminal_watch(sys.stderr) as watch:
                selection = run_select(job, watch, watch.step, access_of(job.source))
        from clustering.storage.paths import json_text
        from clustering_flows.tables import selection_lines

        for line in selection_lines(selection):
            print(line)
        if json_:
            print(json_text(selection))


def _as_yaml(publish: str) -> str:
    """Write ``k=5,covariance=full`` as the YAML of the key ``select.publish``; a single word or number is that already.

    Raises
    ------
    ConfigError
        If a part has no name or no value.
    """
    parts = [part.partition("=") for part in publish.split(",")]
    if all(name.strip() and value.strip() for name, _, value in parts):
        return f"{{{', '.join(f'{name.strip()}: {value.strip()}' for name, _, value in parts)}}}"
    if publish in ("recommended", "none") or publish.isdecimal():
        return publish
    raise ConfigError(
        f"--publish is {cut(repr(publish))}; allowed: recommended, none, or a choice such as k=5 or k=5,covariance=full"
    )
