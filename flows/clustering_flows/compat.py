"""Parts of other packages that the flows use, and that these do not promise to keep; see `clustering.compat`."""

from __future__ import annotations

from typing import Any


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
