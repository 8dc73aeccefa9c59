"""Prefetching: the next block is read while one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import zip_longest
from typing import TypeVar

T = TypeVar("T")


def read_ahead(read: Callable[[int], T], indices: Iterable[int], takes_time: Callable[[int], bool]) -> Iterator[T]:
    """Yield the results of reading blocks in order; each is read while the caller works on the one before.

    Parameters
    ----------
    read
        Reads the block of an index.
    indices
        Numbers of the blocks, in order.
    takes_time
        Returns whether a block must be read; a cached one is not worth a thread.
    """
    with ExitStack() as stack:
        thread: ThreadPoolExecutor | None = None
        coming: Future[T] | None = None
        order = list(indices)
        for index, following in zip_longest(order, order[1:]):
            now = read(index) if coming is None else coming.result()
            coming = None
            if following is not None and takes_time(following):
                if thread is None:
                    thread = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="clustering-read"))
                coming = thread.submit(read, following)
            yield now
