"""Do a whole job: ``clustering.run(data, model, output=…)`` fits, labels, publishes, and resumes after an interruption.

This package is also the room of the steps of a job: `prepare`, `initialize`, `fit`, `label`, `publish`, the `gate`,
`following` an earlier version, and `inspect`. They know no files of options, no Prefect, and print nothing.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallableRoom(ModuleType):
    """A package that can be called, as it has the name of a function of the public interface.

    Python sets the attribute ``run`` of `clustering` to this package as soon as one of its modules is imported.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return _function()(*arguments, **options)


def _function() -> Any:
    from clustering import api

    return api.run


def __getattr__(name: str) -> Any:
    """Give the signature of the function to `inspect` and to editors."""
    if name in ("__signature__", "__wrapped__"):
        return getattr(_function(), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = _CallableRoom
