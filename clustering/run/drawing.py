"""The packages that draw reports: an extra of the installation, which only a job with a report loads."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from threading import Thread

from clustering.deferred import load_module
from clustering.errors import MissingDependencyError

PAGE = "clustering.report.page"
"""Module that draws a report."""
_PACKAGES = ("matplotlib", "jinja2", "yaml")


def check_drawing(otherwise: str = "") -> None:
    """Check that the packages that draw a report are installed. None of them is loaded.

    Parameters
    ----------
    otherwise
        Another remedy, which the message ends with.

    Raises
    ------
    MissingDependencyError
        If one of them is missing.
    """
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise MissingDependencyError(
                f"drawing the report needs the package {package!r}; pip install 'zarr-clustering[plot]'{otherwise}"
            )


def load_drawing() -> None:
    """Begin to load what draws a report, in a thread of its own: rows can be read and labels written meanwhile."""
    Thread(target=_load_page, name="report").start()


def _load_page() -> None:
    # The report itself raises the error again, where it can be told.
    with suppress(Exception):
        load_module(PAGE)
