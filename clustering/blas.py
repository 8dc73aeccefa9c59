"""One BLAS thread for all work that decides bits of a result."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from functools import lru_cache

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager[object]:
    """Limit BLAS to one thread in a context, as the number of threads changes the order of sums."""
    limit: AbstractContextManager[object] = _libraries(len(sys.modules)).limit(limits=1, user_api="blas")
    return limit


# The search takes longer than a small pass. Imports alone load libraries, so it is repeated only after one.
@lru_cache(maxsize=1)
def _libraries(number_of_modules: int) -> ThreadpoolController:  # noqa: ARG001
    """Find the BLAS libraries of this process."""
    return ThreadpoolController()
