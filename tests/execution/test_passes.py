"""Reading ahead keeps the order, reads one block at most before it is asked for, and passes faults on."""

from __future__ import annotations

import threading

import pytest

from clustering.execution.passes import read_ahead


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
