"""Zarr arrays of local files, read and written in the calling thread.

zarr runs on an event loop in a thread of its own, which hands each file and each chunk to further threads. A task that
reads a block waits for five changes of thread. Meanwhile its processor is idle for a sixth of a pass. Here the same
coroutines run to their end in the thread that asks. Requests to other stores overlap, so these stay on zarr's loop.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

import numpy as np
from numpy.typing import NDArray

from clustering.deferred import zarr

T = TypeVar("T")
Args = TypeVarTuple("Args")
Selection = tuple[slice, ...]


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that runs what it would hand to other threads."""

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Args], T], *args: *Args) -> asyncio.Future[T]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


_idle: list[_Loop] = []
"""Loops that no thread uses now: to make one takes longer than to read a small chunk."""


def read(array: zarr.Array[Any], selection: Selection) -> NDArray[Any]:
    """Read a part of an array.

    Parameters
    ----------
    array
        Stored array.
    selection
        A slice along each dimension.
    """
    return np.asarray(_run(array.async_array.getitem(selection)) if _runs_here(array) else array[selection])


def write(array: zarr.Array[Any], selection: Selection, values: NDArray[Any]) -> None:
    """Write a part of an array.

    Parameters
    ----------
    array, selection
        As for `read`.
    values
        Numbers of the shape of the selection.
    """
    if _runs_here(array):
        _run(array.async_array.setitem(selection, values))
    else:
        array[selection] = values


def _runs_here(array: zarr.Array[Any]) -> bool:
    """Return whether an array is in local files, and whether this thread can run an event loop."""
    if not isinstance(array.store_path.store, zarr.storage.LocalStore):
        return False
    try:
        # The thread of a notebook runs one already, and there cannot be two.
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        loop = _idle.pop()
    except IndexError:
        loop = _Loop()
    try:
        result = loop.run_until_complete(coroutine)
    except BaseException:
        # Of several chunks one has failed, and the others still wait for their turn.
        loop.run_until_complete(_cancel(asyncio.all_tasks(loop)))
        loop.close()
        raise
    _idle.append(loop)
    return result


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@atexit.register
def _close() -> None:
    while _idle:
        _idle.pop().close()
