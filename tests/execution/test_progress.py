from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clustering.data.access import open_source
from clustering.execution import progress as module
from clustering.execution.engine import connect
from clustering.execution.passes import pass_runner
from clustering.execution.progress import PassProgress, ProgressReporter, listen_to_progress, progress_reporter

USES = {"variables": ["t"], "sample_dims": ["time", "lat", "lon"]}


@dataclass(frozen=True)
class Block:
    read: int
    blocks: int = 1


@dataclass(frozen=True)
class Count:
    n: int

    def __add__(self, other: Count) -> Count:
        return Count(self.n + other.n)


def rows(block: Any) -> Count:
    return Count(len(block))


@pytest.mark.parametrize("cluster", ["synchronous", "threads", pytest.param("local", marks=pytest.mark.slow)])
def test_every_block_is_reported(cluster: str, field_store: Path) -> None:
    source = open_source(field_store, **USES)
    plan = source.plan(block_bytes=1000, memory=10**9)
    heard: list[PassProgress] = []
    with (
        connect(cluster, 2) as engine,
        listen_to_progress(engine, heard.append),
        pass_runner(source, plan, engine, memory=10**9) as work,
    ):
        for _ in range(2):
            assert work.run([rows]).statistics == (Count(12 * 9 * 10),)
        if engine.client is not None:
            # Reports travel through the scheduler, so it answers requests of the client after them.
            _settle(engine, heard, 2 * len(plan))
    assert len(plan) > 4
    first, second = sorted({one.number for one in heard})
    assert second > first
    for number in (first, second):
        assert sum(one.blocks for one in heard if one.number == number) == len(plan)
    assert {one.of for one in heard} == {len(plan)}
    assert sum(one.bytes for one in heard if one.number == first) == plan.cells * plan.row_bytes


def _settle(engine: Any, heard: list[PassProgress], blocks: int) -> None:
    for _ in range(1000):
        if sum(one.blocks for one in heard) >= blocks:
            return
        engine.client.run_on_scheduler(lambda: None)


def test_where_nobody_listens_nothing_is_reported() -> None:
    with connect("synchronous") as engine:
        assert progress_reporter(engine, 3) is None
        with listen_to_progress(engine, print):
            assert progress_reporter(engine, 3) is not None
        assert progress_reporter(engine, 3) is None


def test_long_tasks_report_as_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 0.4, 1.2, 1.2, 1.5, 2.5, 2.5, 2.6])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(moments))
    heard: list[PassProgress] = []
    with connect("synchronous") as engine, listen_to_progress(engine, heard.append):
        made = ProgressReporter(engine.session, 5, 9, False).of_blocks(Block(10) for _ in range(5))
        assert [one.read for one in made] == [10] * 5
    assert heard == [PassProgress(5, 2, 9, 20), PassProgress(5, 2, 9, 20), PassProgress(5, 1, 9, 10)]


def blocks() -> Iterator[Block]:
    yield Block(1)
    raise RuntimeError("a block that cannot be read")


def test_what_fails_fails_as_it_is() -> None:
    with connect("synchronous") as engine, listen_to_progress(engine, print):
        with pytest.raises(RuntimeError, match="cannot be read"):
            list(ProgressReporter(engine.session, 1, 2, False).of_blocks(blocks()))
