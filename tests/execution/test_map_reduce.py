from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import dask.local
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.execution.engine import Engine, connect
from clustering.execution.map_reduce import (
    TASKS_PER_THREAD,
    _add_node,
    _fold_nodes,
    map_reduce,
    most_tasks,
    split_runs,
)
from clustering.models.tree import fold

BLOCKS = st.integers(1, 70)
THREADS = st.integers(1, 9)


@dataclass(frozen=True)
class Trace:
    """A value that records the order of its additions."""

    text: str

    def __add__(self, other: Trace) -> Trace:
        return Trace(f"({self.text}+{other.text})")


def leaf(index: int) -> Trace:
    return Trace(str(index))


def canonical_tree(n: int) -> str:
    nodes = [str(index) for index in range(n)]
    while len(nodes) > 1:
        pairs = [nodes[i : i + 2] for i in range(0, len(nodes), 2)]
        nodes = [f"({pair[0]}+{pair[1]})" if len(pair) == 2 else pair[0] for pair in pairs]
    return nodes[0]


def in_any_order(seed: int) -> Callable[..., Any]:
    """Make a Dask `get` that carries out tasks one by one, each time a random one of those that are ready."""

    def get(graph: Mapping[Any, Any], key: Any) -> Any:
        order, done, waiting = random.Random(seed), {}, list(graph)

        def needs(value: Any) -> list[Any]:
            if isinstance(value, tuple) and value and callable(value[0]):
                return [a for a in value[1:] if isinstance(a, (str, tuple)) and a in graph]
            return [value] if isinstance(value, (str, tuple)) and value in graph else []

        while waiting:
            ready = [k for k in waiting if all(n in done for n in needs(graph[k]))]
            chosen = order.choice(ready)
            waiting.remove(chosen)
            value = graph[chosen]
            if isinstance(value, tuple) and value and callable(value[0]):
                value = value[0](*(done[a] if a in needs(graph[chosen]) else a for a in value[1:]))
            elif needs(value):
                value = done[value]
            done[chosen] = value
        return done[key]

    return get


def leaves_of(run: range) -> Iterator[Trace]:
    return map(leaf, run)


@given(BLOCKS, THREADS)
def test_additions_follow_the_canonical_tree_whatever_the_number_of_threads(n_blocks: int, threads: int) -> None:
    engine = Engine("test", dask.local.get_sync, threads)
    assert map_reduce(leaves_of, n_blocks, engine).text == canonical_tree(n_blocks)


@given(BLOCKS, THREADS, st.integers(0, 2**32))
def test_additions_follow_the_canonical_tree_in_whatever_order_tasks_finish(
    n_blocks: int, threads: int, seed: int
) -> None:
    engine = Engine("test", in_any_order(seed), threads)
    assert map_reduce(leaves_of, n_blocks, engine).text == canonical_tree(n_blocks)


@pytest.mark.parametrize("workers", [1, 3, 8], ids="{} threads".format)
def test_additions_follow_the_canonical_tree_on_real_threads(workers: int) -> None:
    with connect("threads", workers) as engine:
        assert map_reduce(leaves_of, 61, engine).text == canonical_tree(61)


class AnyOrder(Executor):
    """Finishes all tasks as they are submitted; `wait` then gives them in the order of a set."""

    def submit(self, function, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[Any] = Future()
        future.set_result(function(*args, **kwargs))
        return future


@given(BLOCKS, THREADS)
def test_nodes_of_threads_are_added_in_the_order_of_the_tree(n_blocks: int, threads: int) -> None:
    pool: Any = AnyOrder()
    engine = Engine("threads", dask.local.get_sync, threads, pool=pool)
    assert map_reduce(leaves_of, n_blocks, engine).text == canonical_tree(n_blocks)


@given(BLOCKS)
def test_nodes_that_come_in_order_wait_one_for_each_level_at_most(n: int) -> None:
    nodes: dict[tuple[int, int], Trace] = {}
    for i in range(n):
        _add_node(nodes, i, leaf(i), n)
        assert len(nodes) <= n.bit_length()
    assert [node.text for node in nodes.values()] == [canonical_tree(n)]


def test_an_error_ends_a_pass_of_threads_although_an_earlier_task_goes_on() -> None:
    failed, begun = threading.Event(), []

    def work(run: range) -> Iterator[Trace]:
        begun.append(run.start)
        if run.start == 0:
            # The first task ends after the error of the second.
            assert failed.wait(30)
        if run.start == 1:
            raise ArithmeticError("block 1")
        return map(leaf, run)

    with connect("threads", 2) as engine:
        with pytest.raises(ArithmeticError, match="block 1"):
            map_reduce(work, 8, engine)
        failed.set()
    assert len(begun) < 8


@given(BLOCKS)
def test_fold_adds_in_the_order_of_the_tree(n: int) -> None:
    assert fold(leaf(index) for index in range(n)).text == canonical_tree(n)


@given(st.integers(1, 1000))
def test_fold_holds_one_node_per_level_at_most(n: int) -> None:
    live: weakref.WeakSet[Trace] = weakref.WeakSet()
    most = 0

    class Counted:
        def __init__(self) -> None:
            live.add(self)

        def __add__(self, other: Counted) -> Counted:
            return Counted()

    def leaves() -> Iterator[Counted]:
        nonlocal most
        for _ in range(n):
            made = Counted()
            most = max(most, len(live))
            yield made

    fold(leaves())
    # Two more are alive for a moment: variables hold the newest node and the leaf before it.
    assert most <= n.bit_length() + 2


@given(st.integers(1, 5000), THREADS)
def test_a_pass_has_at_most_a_few_tasks_per_thread_and_each_block_is_in_one(n_blocks: int, threads: int) -> None:
    tasks: list[Any] = []
    blocks: list[int] = []

    def get(graph: Mapping[Any, Any], key: Any) -> Any:
        tasks.extend(t for t in graph.values() if isinstance(t, tuple) and callable(t[0]) and t[0] is not _fold_nodes)
        return dask.local.get_sync(graph, key)

    def number(index: int) -> int:
        blocks.append(index)
        return 1

    assert map_reduce(lambda run: map(number, run), n_blocks, Engine("test", get, threads)) == n_blocks
    assert len(tasks) <= TASKS_PER_THREAD * threads
    # There are as many tasks as the limit allows, so that every thread has work.
    assert len(tasks) == n_blocks or 2 * len(tasks) > TASKS_PER_THREAD * threads
    assert sorted(blocks) == list(range(n_blocks))


@given(st.integers(1, 10**7), st.integers(1, 10**5))
def test_runs_are_aligned_and_as_short_as_the_number_of_tasks_allows(n_blocks: int, threads: int) -> None:
    runs = split_runs(n_blocks, threads)
    most = most_tasks(n_blocks, threads)
    length = len(runs[0])
    assert [runs[0].start, runs[-1].stop] == [0, n_blocks]
    assert {len(run) for run in runs[:-1]} <= {length}
    assert len(runs) == 1 or length.bit_count() == 1
    assert len(runs) <= most
    assert length == 1 or 2 * len(runs) >= most


def test_many_threads_leave_the_scheduler_few_tasks() -> None:
    # Half of the blocks as tasks cost the scheduler less than more of them would save the threads.
    assert most_tasks(4096, 10**5) == 32 * 64
    assert most_tasks(1024, 10**5) == 1024
    assert most_tasks(10**6, 100) == 400


def test_passes_share_no_keys() -> None:
    seen: list[set[Any]] = []

    def get(graph: Mapping[Any, Any], key: Any) -> Any:
        seen.append(set(graph))
        return dask.local.get_sync(graph, key)

    engine = Engine("test", get, 2)
    for _ in range(3):
        map_reduce(leaves_of, 9, engine)
    assert len(set.union(*seen)) == sum(map(len, seen))


@pytest.mark.parametrize("cluster", ["synchronous", "threads"])
def test_an_error_in_a_block_comes_through_as_it_is(cluster: str) -> None:
    def refuse(index: int) -> Trace:
        if index == 5:
            raise ArithmeticError("block 5")
        return leaf(index)

    with connect(cluster) as engine, pytest.raises(ArithmeticError, match="block 5"):
        map_reduce(lambda run: map(refuse, run), 9, engine)
