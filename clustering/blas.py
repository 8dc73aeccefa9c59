"""One BLAS thread for all work that decides bits of a result, also in libraries that are loaded while it goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from threading import RLock
from types import ModuleType

from threadpoolctl import ThreadpoolController

from clustering.deferred import load_module


class _OneThread:
    """Limits BLAS to one thread in this process, as long as anyone asks for it."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.asking = 0
        self.limits = ExitStack()

    def begin(self) -> None:
        with self.lock:
            self.asking += 1
            # Limits are of the whole process. If each caller set and lifted its own, the first one to end would lift
            # those of the others, and the last one would restore a limit.
            if self.asking == 1:
                self.limit()

    def end(self) -> None:
        with self.lock:
            self.asking -= 1
            if not self.asking:
                self.limits.close()

    def limit(self) -> None:
        self.limits.enter_context(_libraries(len(sys.modules)).limit(limits=1, user_api="blas"))

    def load(self, name: str) -> ModuleType:
        """Import a module. If it brings a BLAS library, the present limit holds for that library too."""
        # Only one thread at a time may import, so the import takes place outside the lock.
        module = load_module(name)
        with self.lock:
            if self.asking:
                self.limit()
        return module


_one_thread = _OneThread()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread in a context, as the number of threads changes the order of sums."""
    _one_thread.begin()
    try:
        yield
    finally:
        _one_thread.end()


# The search takes longer than a small pass. Imports alone load libraries, so it is repeated only after one.
@lru_cache(maxsize=1)
def _libraries(number_of_modules: int) -> ThreadpoolController:  # noqa: ARG001
    """Find the BLAS libraries of this process."""
    return ThreadpoolController()


class _SciPy:
    """The subpackages of SciPy as attributes, which are loaded when they are first used."""

    def __getattr__(self, name: str) -> ModuleType:
        module = _one_thread.load(f"scipy.{name}")
        # The next use finds the module without this function.
        setattr(self, name, module)
        return module


# SciPy takes as long to load as everything else of a small fit, and it has a BLAS library of its own.
scipy = _SciPy()
"""SciPy, which the rest of this library takes from here: an import in the midst of a pass would load a BLAS library
without the limit of `one_blas_thread`."""
