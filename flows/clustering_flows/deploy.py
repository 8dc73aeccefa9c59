"""Deploys a job. Before a server is asked, its paths are made absolute, and it is checked as far as possible here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel

from clustering.config import JobConfig
from clustering.data.addresses import absolute, local_path
from clustering.errors import ConfigError
from clustering.option_values import holds_path
from clustering_flows import orchestration
from clustering_flows.arguments import Collision

Section = TypeVar("Section", bound=BaseModel)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def deploy_job(
    config: JobConfig,
    *,
    name: str,
    cron: str | None,
    interval: str | None,
    timezone: str,
    pool: str | None,
    serve: bool,
    model: str | None,
    collision: Collision,
    paused: bool,
    on_deployed: Callable[[dict[str, Any]], None],
) -> None:
    """Deploy a job to a work pool, or serve it from this process until that is stopped.

    Parameters
    ----------
    config
        The job, with paths relative to the working directory.
    interval
        Interval as `seconds` reads it.
    serve
        Whether this process runs the job, without a pool.
    model
        Path or URL of a model, or of the output of a run, to label with; None to fit.
    on_deployed
        Called with the facts of the deployment once it is made; for a served job, before its first run.

    Raises
    ------
    ClusteringError
        If the job cannot run, the schedule is not valid, or server or pool do not exist.
    """
    if serve == (pool is not None):
        fault = "both given" if serve else "both missing"
        raise ConfigError(
            f"--pool and --serve are {fault}; name a work pool with --pool, or run the job here by --serve"
        )
    orchestration.require("a deployment")
    period = None if interval is None else seconds(interval)
    settled_config, model_path = settled(config), None if model is None else absolute(model)
    # A job whose paths are on other machines cannot be opened here, so it is not checked.
    cautions = [*unseen(config, model)] or [*preflight_errors(settled_config, model_path)]
    if cron is not None or period is not None:
        cautions += repeated(settled_config, model_path)

    # Prefect takes seconds to import. Mistakes in the job are reported before.
    from clustering_flows import server

    schedule: dict[str, Any] = {"cron": cron, "timezone": timezone, "collision": collision, "paused": paused}

    def announce(full_name: str) -> None:
        on_deployed({"deployment": full_name, "pool": pool, **schedule, "interval": period, "warnings": cautions})

    options = {
        "name": name,
        "model": model_path,
        **schedule,
        "interval": None if period is None else timedelta(seconds=period),
    }
    if pool is None:
        # `serve` returns only when it is stopped, so it announces the deployment itself.
        server.serve(settled_config, ready=announce, **options)
    else:
        announce(server.deploy(settled_config, pool=pool, **options))


def deployed_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Format the facts of a deployment, as `deploy_job` makes them, for a terminal."""
    pool = facts["pool"]
    yield f"deployed   {facts['deployment']}, {'served by this process' if pool is None else f'to work pool {pool}'}"
    when = facts["cron"] if facts["interval"] is None else f"every {facts['interval']:,} s"
    zone, paused = facts["timezone"], ", paused" if facts["paused"] else ""
    yield f"schedule   {'none' if when is None else f'{when}, {zone}{paused}'}"
    late = {"cancel-new": "is cancelled", "enqueue": "waits"}[facts["collision"]]
    yield f"overlap    a run that is due while another one is under way {late}"
    yield f"run now    prefect deployment run {facts['deployment']!r}"
    if pool is not None:
        yield f"worker     prefect worker start --pool {pool!r}"
    for caution in facts["warnings"]:
        yield f"warning    {caution}"


def seconds(interval: str) -> int:
    """Convert an interval, such as ``90``, ``90s``, ``30m``, ``1h`` or ``1d``, to seconds.

    Raises
    ------
    ConfigError
        If it is not an interval of 1 s or more.
    """
    match = re.fullmatch(r"(\d+)\s*([smhd]?)", interval.strip())
    if match is None or int(match[1]) == 0:
        raise ConfigError(
            f"--interval is {interval!r}; it has to be 1 or more seconds, or a number with s, m, h or d: 30m"
        )
    return int(match[1]) * _UNITS[match[2]]


def settled(config: JobConfig) -> JobConfig:
    """Make the paths of a config absolute, as deployed runs start in other folders."""
    return _settled_section(config)


def _settled_section(section: Section) -> Section:
    changes: dict[str, Any] = {}
    for name, option in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            changes[name] = _settled_section(value)
        elif isinstance(value, str) and holds_path(option):
            changes[name] = absolute(value)
    return section.model_copy(update=changes)


def unseen(config: JobConfig, model: str | None) -> Iterator[str]:
    """Name absolute paths that do not exist on this machine. They may exist on the machines of the workers."""
    for key, store in (("source.store", config.source.store), ("--model", model)):
        path = None if store is None else local_path(store)
        if path is not None and path.is_absolute() and not path.exists():
            yield f"{key} {store!r} is not on this machine, so the job was not checked; its workers have to find it"


def preflight_errors(config: JobConfig, model: str | None) -> tuple[str, ...]:
    """Open a job whose paths are all on this machine, and say why it would not run with the present output.

    Jobs with buckets are not checked, as only the workers may have the credentials.

    Raises
    ------
    ClusteringError
        If something that the config names is missing or does not fit.
    """
    paths = (config.source.store, config.output.store, *(() if model is None else (model,)))
    if any(local_path(path) is None for path in paths):
        return ()
    # These imports load compiled kernels, which takes time. Mistakes in the command are reported before.
    from clustering.run.prepare import preflight_errors, prepare_job
    from clustering.storage.model import load_model
    from clustering_flows.credentials import access_of

    fitted = None if model is None else load_model(model)[0]
    # `repeated` warns of a finished output, for all runs of the schedule.
    replacing = config.output.model_copy(update={"overwrite": True})
    replaced = config.model_copy(update={"output": replacing})
    return preflight_errors(prepare_job(replaced, fitted, access_of(config.source)))


def repeated(config: JobConfig, model: str | None) -> Iterator[str]:
    """Warn if the second run of a schedule would fail, because its output is finished."""
    # Predictions, and fits from the current model, add a version to a finished output.
    if config.output.overwrite or model is not None or config.fit.init == "model":
        return
    yield (
        "a run fails if the output holds a finished run; set fit.init to 'model' to continue from it, or "
        "output.overwrite to true to begin anew each time"
    )
