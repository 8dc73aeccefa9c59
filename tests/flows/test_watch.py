from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from distributed import Client

from clustering.execution.engine import Engine, connect
from clustering_flows.log_lines import LIBRARY
from clustering_flows.relay import MOST_LINES, relayed

LOGGER = logging.getLogger("clustering.data.stored")


@contextmanager
def hearing(engine: Engine) -> Iterator[list[tuple[str, str]]]:
    heard: list[tuple[str, str]] = []
    with relayed(engine, lambda line: heard.append(("say", line)), lambda line: heard.append(("warn", line))):
        yield heard


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with connect("threads", 2) as engine:
        yield engine


def test_what_the_library_logs_is_passed_on_from_any_thread(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with hearing(engine) as heard:
        LOGGER.warning("chunk %r is bad", "c/0")
        thread = threading.Thread(target=LOGGER.error, args=("worse",))
        thread.start()
        thread.join()
    assert heard == [("warn", "chunk 'c/0' is bad"), ("warn", "worse")]
    assert caplog.records == [], "what is passed on is said nowhere else"


def test_each_line_is_passed_on_once(engine: Engine) -> None:
    with hearing(engine) as heard:
        for line in ("a", "b", "a"):
            LOGGER.warning(line)
    assert heard == [("warn", "a"), ("warn", "b")]


def test_a_flood_is_cut_off_and_that_is_reported(engine: Engine) -> None:
    with hearing(engine) as heard:
        for i in range(3 * MOST_LINES):
            LOGGER.warning("chunk %d is bad", i)
    assert [line for _, line in heard] == [
        *(f"chunk {i} is bad" for i in range(MOST_LINES)),
        f"more than {MOST_LINES} such lines; further ones are left out",
    ]


def test_what_is_waited_for_is_passed_on_and_details_are_not(engine: Engine) -> None:
    with hearing(engine) as heard:
        LOGGER.info("compiling")
        LOGGER.debug("nobody asked")
    assert heard == [("say", "compiling")]


def test_loggers_are_left_as_they_were(engine: Engine) -> None:
    logger = logging.getLogger(LIBRARY)
    handlers, level = logger.handlers, logger.level
    with suppress(RuntimeError), hearing(engine):
        raise RuntimeError("a pass that fails")
    assert (logger.handlers, logger.propagate, logger.level) == (handlers, True, level)


@pytest.mark.slow
def test_what_workers_log_comes_from_every_worker() -> None:
    with connect("local", 2) as engine, hearing(engine) as heard:
        engine.client.run(_warn)
        while len(heard) < 2:
            pass
        engine.client.run(_warn)
        engine.client.run_on_scheduler(lambda: None)
    assert len(heard) == len(set(heard)) == 2


def test_what_workers_in_this_process_log_is_heard_without_being_sent() -> None:
    options = {"n_workers": 2, "processes": False, "dashboard_address": "127.0.0.1:0", "set_as_default": False}
    with Client(**options) as client, connect(client) as engine, hearing(engine) as heard:
        client.run(_warn)
        # A worker that sent records to its own logger would send them again without end.
        assert len(logging.getLogger(LIBRARY).handlers) == 1
    assert heard == [("warn", f"from process {os.getpid()}")]


def _warn() -> None:
    logging.getLogger("clustering.somewhere").warning("from process %d", os.getpid())
