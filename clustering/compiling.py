"""Compiles kernels with numba and caches them: compiling takes up to twenty seconds, starting from a cache a second.

numba caches beside the sources or in the home folder. It raises an error where neither can be written, as in containers
with a read-only installation and a user without a home. Then kernels are cached in a temporary folder.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from threading import Lock, Timer
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserWideCacheLocator

from clustering.compat.numba import (
    is_linked,
    kernel_compiler,
    kernel_locators,
    linked_compiler,
    plain_kernel_errors,
    set_cache_files,
    set_kernel_cache,
    set_kernel_locators,
    set_locator_folder,
    start_kernel_runtime,
)
from clustering.deferred import without_collections
from clustering.temporary import home_folder, temporary_folder

logger = logging.getLogger(__name__)

_VARIABLE = "NUMBA_CACHE_DIR"


INNER: dict[str, Any] = {"no_cpython_wrapper": True, "pipeline_class": linked_compiler()}
"""Options of a function that only kernels call. It is optimised and becomes machine code as a part of them alone."""
INLINED: dict[str, Any] = {**INNER, "forceinline": True}
"""Options of a function that becomes a part of every kernel that calls it. With numba's own ``inline``, it would be
typed again in each of them."""


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator like `numba.njit` that also works with ``cache=True`` where no cache can be written.

    Parameters
    ----------
    options
        Arguments of `numba.njit`.
    """
    cached = options.pop("cache", False)
    # numba would also compile a way into each kernel for programs in C, which nobody uses.
    options.setdefault("no_cfunc_wrapper", True)
    options.setdefault("pipeline_class", kernel_compiler())

    def decorate(function: Callable[..., Any]) -> Any:
        kernel = numba.njit(**options)(function)
        # With NUMBA_DISABLE_JIT, numba returns the function itself.
        if kernel is function:
            return function
        kernel.compile = _without_collections(kernel.compile)
        if cached:
            # numba raises RuntimeError where no folder can be written. Then each process compiles the kernel.
            with suppress(RuntimeError):
                set_kernel_cache(kernel, _Cache(function))
        return kernel

    return decorate


def _without_collections(compile_kernel: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Pause the garbage collector while a kernel is compiled: it would search all that numba makes, again and again."""

    def compile_paused(signature: Any) -> Any:
        try:
            with without_collections(), plain_kernel_errors():
                return compile_kernel(signature)
        finally:
            _notice.end()

    return compile_paused


class _Temporary(UserWideCacheLocator):
    """Caches kernels in a temporary folder of this user."""

    def __init__(self, function: Callable[..., Any], path: str) -> None:
        super().__init__(function, path)
        set_locator_folder(self, os.path.join(str(_last_resort()), self.get_suitable_cache_subpath(path)))

    @classmethod
    def from_function(cls, function: Callable[..., Any], path: str) -> Any:
        return None if _last_resort() is None else super().from_function(function, path)


class _AtHome(UserWideCacheLocator):
    """Caches kernels in the home folder, if there is one; numba would make a folder named ``~`` otherwise."""

    @classmethod
    def from_function(cls, function: Callable[..., Any], path: str) -> Any:
        there = os.environ.get("XDG_CACHE_HOME") or home_folder()
        return super().from_function(function, path) if there else None


class _CacheLocations(CompileResultCacheImpl):
    """Files of a cache, in the first folder that can be written."""

    def check_cachable(self, result: Any) -> bool:
        # Code of a part that is yet to be optimised may hold an address of this process. Its kernels need not.
        if is_linked(result.library) and result.library.has_dynamic_globals:
            return False
        return bool(super().check_cachable(result))


# The temporary folder comes last, because it may be emptied between runs.
set_kernel_locators(
    _CacheLocations,
    [*(_AtHome if kind is UserWideCacheLocator else kind for kind in kernel_locators()), _Temporary],
)


class _Cache(FunctionCache):
    """A cache whose broken or unwritable files cost time and never raise errors."""

    def load_overload(self, signature: Any, target: Any) -> Any:
        kernel = None
        try:
            # numba would prepare for compiling first, which takes longer than loading all kernels of a fit. It does so
            # again before it compiles, so nothing is lost.
            start_kernel_runtime(target)
            with self._guard_against_spurious_io_errors():
                kernel = self._load_overload(signature, target)
        except Exception as error:
            # The file was cut off by a full disk, or written by another version.
            logger.info("compiled kernels in %s cannot be read (%s); they are compiled again", self.cache_path, error)
            with suppress(OSError):
                self.flush()
        if kernel is None:
            _notice.begin()
        return kernel

    def save_overload(self, signature: Any, kernel: Any) -> None:
        try:
            super().save_overload(signature, kernel)
        except OSError as error:
            self.disable()
            _log_cache_loss(str(self.cache_path), error.strerror or "it cannot be written")


set_cache_files(_Cache, _CacheLocations)


@cache
def _last_resort() -> str | None:
    """Return a temporary folder for compiled kernels, and log a warning; None where there is none.

    Child processes inherit it through the environment.
    """
    folder = temporary_folder("kernels")
    if folder is None:
        logger.warning(
            "compiled kernels cannot be kept, because no folder for them can be written: each process compiles them, "
            "which takes up to twenty seconds; set %s or TMPDIR to a folder that can be written",
            _VARIABLE,
        )
        return None
    os.environ[_VARIABLE] = str(folder)
    logger.warning(
        "compiled kernels are kept in %s: neither the installation nor a cache in the home folder can be written; "
        "set %s to a folder that stays",
        folder,
        _VARIABLE,
    )
    return str(folder)


class _Notice:
    """Says once in a process that kernels are being compiled, as soon as that has taken a second."""

    def __init__(self, patience: float = 1.0) -> None:
        self.left, self.began = patience, 0.0
        self.timer: Timer | None = None
        self.lock = Lock()

    def begin(self) -> None:
        """Start the clock, where it does not run."""
        with self.lock:
            if self.timer is None and self.left > 0.0:
                self.began = time.monotonic()
                self.timer = Timer(self.left, self.say)
                self.timer.daemon = True
                self.timer.start()

    def end(self) -> None:
        """Stop the clock, and keep the time that it ran. The next kernel goes on from there."""
        if self.timer is None:
            return
        with self.lock:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
                self.left -= time.monotonic() - self.began

    def say(self) -> None:
        """Log the line, and write it for a person at a terminal or a notebook who does not listen to the log."""
        self.left = 0.0
        logger.info("%s", _COMPILING)
        someone = "ipykernel" in sys.modules or sys.stderr.isatty()
        if someone and not _heard():
            sys.stderr.write(f"clustering: {_COMPILING}\n")


_COMPILING = "compiling kernels, once per machine; this takes up to twenty seconds"
_notice = _Notice()


def _heard() -> bool:
    """Return whether a handler gets the notes of the log."""
    now: logging.Logger | None = logger
    while now is not None and logger.isEnabledFor(logging.INFO):
        if any(not isinstance(handler, logging.NullHandler) for handler in now.handlers):
            return True
        now = now.parent if now.propagate else None
    return False


@cache
def _log_cache_loss(path: str, why: str) -> None:
    logger.warning("compiled kernels are not kept in %s: %s", path, why)
