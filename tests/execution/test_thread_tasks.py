from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from operator import add
from typing import Any

import dask
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.execution.thread_tasks import get_in_threads


@st.composite
def graphs(draw: st.DrawFn) -> dict[Any, Any]:
    """Graphs of constants, aliases, tasks of constants, and sums of earlier entries."""
    graph: dict[Any, Any] = {"one": 1}
    for i in range(draw(st.integers(1, 12))):
        a, b = (draw(st.sampled_from(list(graph))) for _ in range(2))
        graph[("key", i)] = draw(st.sampled_from([i, a, (add, i, 10), (add, "one", i), (add, a, b)]))
    return graph


@given(graphs(), st.integers(1, 3))
def test_values_are_those_of_dask(graph: dict[Any, Any], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        keys = list(graph)
        assert get_in_threads(pool, graph, keys) == list(dask.get(graph, keys))
        assert get_in_threads(pool, graph, keys[-1]) == dask.get(graph, keys[-1])


def test_tasks_run_side_by_side() -> None:
    both = threading.Barrier(2, timeout=30)
    with ThreadPoolExecutor(2) as pool:
        get_in_threads(pool, {0: (both.wait,), 1: (both.wait,), "sum": (add, 0, 1)}, "sum")


def test_an_error_cancels_the_tasks_that_have_not_begun() -> None:
    begun = []
    graph = {i: (begun.append, i) for i in range(50)} | {"first": (int, "no number")}
    graph = {"first": graph.pop("first"), "held": (threading.Event().wait, 0.2), **graph, "sum": (add, "first", 0)}
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="no number"):
        get_in_threads(pool, graph, "sum")
    assert len(begun) < 50
