"""Blocks are read ahead in order, one at most, and runs of cached blocks are worked on together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from clustering.data.access import open_source
from clustering.data.plan import Axis, plan_blocks
from clustering.data.rows import Rows
from clustering.errors import ExecutionError
from clustering.execution import passes
from clustering.execution.block_cache import release
from clustering.execution.engine import connect
from clustering.execution.passes import pass_runner, read_ahead
from clustering.models.run_statistics import RunStatistics
from clustering.models.tree import fold


def test_blocks_come_in_order_each_read_once() -> None:
    read: list[int] = []

    def note(index: int) -> int:
        read.append(index)
        return index * index

    assert list(read_ahead(note, range(7), lambda _: True)) == [i * i for i in range(7)]
    assert read == list(range(7))
    assert list(read_ahead(note, [], lambda _: True)) == []


def test_the_next_block_is_read_while_one_is_worked_on_and_no_other() -> None:
    started = [threading.Event() for _ in range(4)]
    threads = set()

    def read(index: int) -> int:
        started[index].set()
        threads.add(threading.get_ident())
        return index

    for index in read_ahead(read, range(4), lambda _: True):
        if index < 3:
            assert started[index + 1].wait(10)
        assert not any(event.is_set() for event in started[index + 2 :])
    assert len(threads) == 2


def test_cached_blocks_need_no_thread() -> None:
    threads = []
    list(read_ahead(lambda _: threads.append(threading.get_ident()), range(5), lambda _: False))
    assert set(threads) == {threading.get_ident()}


def test_a_fault_comes_through_in_its_turn_and_no_thread_stays() -> None:
    def read(index: int) -> int:
        if index == 2:
            raise ArithmeticError("block 2")
        return index

    seen = []
    before = threading.active_count()
    with pytest.raises(ArithmeticError, match="block 2"):
        seen.extend(read_ahead(read, range(5), lambda _: True))
    assert seen in ([], [0, 1])
    assert threading.active_count() == before


def test_an_early_stop_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    ahead = read_ahead(lambda index: index, range(5), lambda _: True)
    assert next(ahead) == 0
    ahead.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@dataclass(frozen=True)
class Text:
    text: str

    def __add__(self, other: Text) -> Text:
        return Text(f"({self.text}+{other.text})")


class Calls(RunStatistics[Text]):
    """Writes down the lengths of the runs that it is called with; its sums show their order."""

    row_operations = 100.0

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def of_run(self, blocks: Sequence[Rows]) -> Text:
        self.lengths.append(len(blocks))
        return fold(Text(str(rows.start[0])) for rows in blocks)


@pytest.mark.parametrize(("most", "length"), [(1e10, 8), (4000.0, 4), (1999.0, 1), (1.0, 1)])
def test_a_run_of_cached_blocks_is_a_few_calls_that_do_not_take_long(
    most: float, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "LONGEST_CALL", most)
    source = open_source(np.arange(130.0)[:, None])
    plan = plan_blocks([Axis(130, 10)], row_bytes=8, block_bytes=80)
    with connect("synchronous") as engine, pass_runner(source, plan, engine, memory=1 << 20) as runner:
        read, cached = Calls(), Calls()
        first = runner.run([read]).statistics[0]
        again = runner.run([cached])
    assert read.lengths == [1] * 13
    # The 13 blocks are four runs of four, of which the last holds one.
    assert max(cached.lengths) == min(length, 4)
    assert sum(cached.lengths) == 13
    assert again.statistics[0] == first
    assert again.read_stats.blocks == 0


def test_a_pass_that_has_ended_stops_before_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "LONGEST_CALL", 1.0)
    plan = plan_blocks([Axis(40, 10)], row_bytes=8, block_bytes=80)
    with (
        connect("threads", 1) as engine,
        pass_runner(open_source(np.arange(40.0)[:, None]), plan, engine, memory=1 << 20) as runner,
    ):
        runner.run([Calls()])

        class Ending(Calls):
            def of_run(self, blocks: Sequence[Rows]) -> Text:
                release(runner.cache.session)
                return super().of_run(blocks)

        ending = Ending()
        with pytest.raises(ExecutionError, match="have ended"):
            runner.run([ending])
    assert ending.lengths == [1]
