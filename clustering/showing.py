"""Warnings to users of the library, at the line of their program that called it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

from clustering.errors import ClusteringWarning


def show(cautions: Iterable[str], category: type[ClusteringWarning] = ClusteringWarning) -> None:
    """Show warnings to the user, at the line outside this package that called it.

    Parameters
    ----------
    cautions
        A line for each warning.
    category
        Category of the warnings.
    """
    inside = f"{Path(__file__).parent}{os.sep}"
    frame, level = sys._getframe(1), 2
    # From Python 3.12 on, `skip_file_prefixes` of `warnings.warn` does this.
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    for caution in cautions:
        warnings.warn(caution, category, stacklevel=level)


def show_one(caution: str) -> None:
    """Show a warning to the user, as `show` does.

    Parameters
    ----------
    caution
        The line of the warning.
    """
    show((caution,))
