"""Parts of other packages that the flows use, and that these do not promise to keep; see `clustering.compat`."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import Any, NoReturn


def end_process(code: int) -> NoReturn:
    """Wait for threads, call all that waits for the end of the process, flush, and end it.

    This is the way of ``sys.exit``, but for its last step: Python would take all modules apart, one by one, which takes
    longer than a small job. The system gives the memory back all the same.

    Parameters
    ----------
    code
        Exit code.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def load_block(kind: Any, name: str) -> Any:
    """Load a block of Prefect, and wait for it.

    Without ``_sync``, which its documentation does not describe, Prefect 3 returns a coroutine inside a running event
    loop.

    Parameters
    ----------
    kind
        Class of the block, such as ``Secret``.

    Raises
    ------
    ValueError
        If there is no such block.
    """
    return kind.load(name, _sync=True)
