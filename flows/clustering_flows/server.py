"""Makes work pools and deployments on a Prefect server, and an automation that ends runs of dead machines."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from prefect.automations import AutomationCore
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.runner import Runner
from prefect.runner.storage import LocalStorage
from prefect.schedules import Cron, Interval, Schedule
from prefect.types import BANNED_CHARACTERS
from prefect.types.entrypoint import EntrypointType
from prefect.workers.base import BaseWorker

from clustering import __version__
from clustering.config import JobConfig
from clustering.errors import ConfigError, nearest
from clustering_flows import orchestration
from clustering_flows.arguments import Collision
from clustering_flows.fit import fit
from clustering_flows.predict import predict
from clustering_flows.prefect_api import connected

HEARTBEAT = 30
"""Seconds between two heartbeats of a run. Prefect allows no shorter time."""
TAG = "clustering"
"""Tag of deployments made here, and of their runs."""
AUTOMATION = "clustering-crash-silent-runs"
GRACE_SECONDS = 600
"""Seconds that a worker may take to start a run before its slot is free again; the pull of a large image takes long."""
_STRATEGIES = {"cancel-new": ConcurrencyLimitStrategy.CANCEL_NEW, "enqueue": ConcurrencyLimitStrategy.ENQUEUE}
_FREQUENCY = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut", "Suspended", "AwaitingRetry")
"""States after which a run sends no more heartbeats."""


def make_pool(name: str, *, kind: str = "process") -> None:
    """Make a work pool if it does not exist.

    Parameters
    ----------
    name
        Name of the pool.
    kind
        Type of its workers: process, or a type of an installed Prefect package (docker, kubernetes).

    Raises
    ------
    ConfigError
        If a pool of that name has workers of another type, or no installed package knows the type.
    """
    worker = BaseWorker.get_worker_class_from_type(kind)
    if worker is None:
        kinds = BaseWorker.get_all_available_worker_types()
        raise ConfigError(f"work pools of type {kind!r} are not known here; {nearest(kind, sorted(kinds))}")
    with connected() as client:
        try:
            pool = client.read_work_pool(name)
        except ObjectNotFound:
            # Without a template, the pool would refuse settings of deployments until its first worker has started.
            template = worker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template))
            return
    if pool.type != kind:
        raise ConfigError(f"the work pool {name!r} is of type {pool.type!r}, not {kind!r}; name another pool")


def make_zombie_automation(*, heartbeat: int = HEARTBEAT) -> None:
    """Make an automation of the server that ends runs without heartbeats, as after the death of a machine.

    Otherwise such a run would stay Running for ever. The automation is limited to runs of deployments made here, as
    other runs of the same server may send heartbeats less often.

    Parameters
    ----------
    heartbeat
        Seconds between two heartbeats of a run. It is ended after three times as long without one.
    """
    wanted = AutomationCore(
        name=AUTOMATION,
        description="A run without heartbeats is set to Crashed, so that the next one may go on from its checkpoint.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{state}" for state in _ENDS)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification({"prefect.resource.id": [f"prefect.tag.{TAG}"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=3 * heartbeat),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"no heartbeat for {3 * heartbeat} s")],
    )
    with connected() as client:
        automations = client.read_automations_by_name(AUTOMATION)
        if not automations:
            client.create_automation(wanted)
        # An automation of an earlier version, or one that was changed by hand, is repaired.
        elif _automation_text(automations[0]) != _automation_text(wanted):
            client.update_automation(automations[0].id, wanted)


def _automation_text(automation: AutomationCore) -> dict[str, Any]:
    """Return the fields of an automation that are compared with the wanted ones."""
    return automation.model_dump(include={"description", "enabled", "trigger", "actions"})


def deploy(
    config: JobConfig,
    *,
    name: str,
    pool: str,
    cron: str | None = None,
    interval: timedelta | None = None,
    timezone: str = "UTC",
    collision: Collision = "cancel-new",
    paused: bool = False,
    model: str | None = None,
) -> str:
    """Deploy a job to a work pool. A deployment of the same name is replaced.

    Parameters
    ----------
    config
        The job, with paths that its workers can use.
    name
        Name of the deployment.
    pool
        Work pool whose workers run the job.
    cron, interval
        Schedule, one or neither; without one the job runs on request only. Intervals count from midnight of 1 January
        2020.
    timezone
        IANA time zone of the schedule.
    collision
        What happens to a scheduled run while another run is still running.
    paused
        Whether the schedule starts paused.
    model
        A model, or the output of a run, to label with; None to fit.

    Returns
    -------
    str
        Full name, as Prefect's commands take it: ``fit/<name>`` or ``predict/<name>``.

    Raises
    ------
    ConfigError
        If the schedule is not valid, the pool does not exist, or the API is not configured or refuses the password.
    ExecutionError
        If the server does not answer or refuses the deployment.
    """
    deployment = _deployment(config, name, cron, interval, timezone, collision, paused, model)
    orchestration.ready("a deployment")
    with connected() as client:
        _check_pool(client, pool)
        make_zombie_automation()
        deployment.work_pool_name = pool
        # By default, runs send a heartbeat every 180 s, and the automation would end all of them.
        deployment.job_variables = {"env": {_FREQUENCY: str(HEARTBEAT)}}
        # Without a working folder, a run would first copy the whole folder of its worker, including any data there.
        deployment.storage = LocalStorage("/")
        deployment.apply()
    return deployment.full_name


def serve(
    config: JobConfig,
    *,
    name: str,
    cron: str | None = None,
    interval: timedelta | None = None,
    timezone: str = "UTC",
    collision: Collision = "cancel-new",
    paused: bool = False,
    model: str | None = None,
    ready: Callable[[str], None],
) -> None:
    """Deploy a job and run it from this process, without a work pool, until it is stopped.

    When this process is stopped, the schedule is paused and a present run ends. Other parameters and errors are those
    of `deploy`.

    Parameters
    ----------
    ready
        Called with the full name of the deployment once it is registered.
    """
    deployment = _deployment(config, name, cron, interval, timezone, collision, paused, model)
    orchestration.ready("a deployment")
    with connected():
        make_zombie_automation()
        # Set to None explicitly, so that a deployment that had a pool before leaves it.
        deployment.work_pool_name = None
        runner = Runner(name=name, heartbeat_seconds=HEARTBEAT)
        runner.add_deployment(deployment)
    ready(deployment.full_name)
    # Both are ways to stop a served job, and no faults. The runner has paused the schedule by then.
    with suppress(KeyboardInterrupt, TerminationSignal):
        asyncio.run(runner.start())


def _deployment(
    config: JobConfig,
    name: str,
    cron: str | None,
    interval: timedelta | None,
    timezone: str,
    collision: Collision,
    paused: bool,
    model: str | None,
) -> RunnerDeployment:
    if not name or any(sign in name for sign in BANNED_CHARACTERS):
        raise ConfigError(
            f"the name of the deployment is {name!r}; give --name, without any of {' '.join(BANNED_CHARACTERS)}"
        )
    schedule = _schedule(cron, interval, timezone)
    flow = fit if model is None else predict
    parameters: dict[str, Any] = {} if model is None else {"model": model}
    # A worker imports the module of the flow from its installed package, so that no code is sent.
    deployment = flow.to_deployment(
        name,
        schedule=schedule,
        # Prefect stores parameters as JSON.
        parameters={**parameters, "config": config.model_dump(mode="json")},
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=_STRATEGIES[collision], grace_period_seconds=GRACE_SECONDS
        ),
        paused=paused,
        tags=[TAG],
        version=__version__,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    # Inside an event loop, Prefect returns a coroutine instead.
    assert isinstance(deployment, RunnerDeployment)
    return deployment


def _schedule(cron: str | None, interval: timedelta | None, timezone: str) -> Schedule | None:
    if cron is not None and interval is not None:
        raise ConfigError("cron and interval are both given, and a deployment has one schedule; leave one of them out")
    if timezone not in available_timezones():
        close = difflib.get_close_matches(timezone, available_timezones(), n=1)
        raise ConfigError(
            f"the time zone {timezone!r} is not known; {f'did you mean {close[0]!r}? ' if close else ''}"
            "names are those of the IANA database, such as Europe/Berlin or UTC"
        )
    if interval is not None:
        if interval < timedelta(seconds=1):
            raise ConfigError(f"the interval is {interval.total_seconds():g} s; it has to be 1 s or more")
        # With a fixed anchor, deploying again does not move the times of the runs.
        return Interval(interval, anchor_date=datetime(2020, 1, 1, tzinfo=ZoneInfo(timezone)), timezone=timezone)
    if cron is None:
        return None
    try:
        return Cron(cron, timezone=timezone)
    except ValueError:
        raise ConfigError(
            f"cron is {cron!r}; it has to be five fields (minute, hour, day of the month, month, day of the week), "
            "such as '0 3 * * *' for every day at 3"
        ) from None


def _check_pool(client: SyncPrefectClient, pool: str) -> None:
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        # Pools of type prefect-agent belong to agents of Prefect 2, and no worker serves them.
        pools = sorted(work_pool.name for work_pool in client.read_work_pools() if work_pool.type != "prefect-agent")
        raise ConfigError(
            f"there is no work pool {pool!r}; {nearest(pool, pools)}; "
            f"make it with: prefect work-pool create {pool!r} --type process"
        ) from None
