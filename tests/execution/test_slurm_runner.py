from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest
from distributed import Scheduler, Worker

from clustering.execution.slurm_runner import SPEAKERS, is_news


@pytest.mark.parametrize("filtered", [False, True], ids=["all lines", "news"])
def test_a_worker_that_misses_its_scheduler_is_no_news(filtered: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(**_: Any) -> None:
        raise RuntimeError("the pool of connections is closed")

    async def lose() -> None:
        async with (
            Scheduler(host="127.0.0.1", port=0, dashboard_address=":0") as scheduler,
            Worker(scheduler.address) as worker,
        ):
            scheduler.handlers["heartbeat_worker"] = fail
            with suppress(RuntimeError):
                await worker.heartbeat()

    loggers = [logging.getLogger(name) for name in SPEAKERS if filtered]
    for logger in loggers:
        logger.addFilter(is_news)
    try:
        asyncio.run(lose())
    finally:
        for logger in loggers:
            logger.removeFilter(is_news)
    logged = [record for record in caplog.records if record.name == "distributed.worker" and record.exc_info]
    assert bool(logged) is not filtered


def test_what_a_worker_has_to_say_beside_is_news() -> None:
    def line(said: str, error: BaseException | None = None) -> logging.LogRecord:
        about = None if error is None else (type(error), error, None)
        return logging.LogRecord("distributed.worker", logging.ERROR, __file__, 1, said, None, about)

    assert is_news(line("Compute Failed", MemoryError()))
    assert is_news(line("Worker failed to heartbeat for 300s; attempting restart"))
    assert not is_news(line("Exception in a handler", asyncio.CancelledError()))
    assert not is_news(line("Received heartbeat from unregistered worker 'tcp://127.0.0.1:4000'."))
