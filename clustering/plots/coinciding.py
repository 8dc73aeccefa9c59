"""Curves that coincide: which do, how they are drawn so that all are seen, and how a legend says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Groups = tuple[tuple[int, ...], ...]

CLOSE = 0.01
"""Curves coincide if they are nowhere farther apart than this share of the range of all curves."""
MOST = 400
"""Largest number of curves that are compared, as each is compared with each."""
DASH = 5.0
"""Length of a dash, in widths of the line."""


def coinciding(curves: Array) -> Groups:
    """Find groups of curves that coincide: each curve of a group is close to the first.

    Parameters
    ----------
    curves
        Values of the curves ``(k, n)``.

    Returns
    -------
    tuple
        Groups of two or more, as row numbers in rising order.
    """
    if not 1 < len(curves) <= MOST:
        return ()
    finite = np.where(np.isfinite(curves), curves, 0.0)
    # Halves cannot overflow where the range of all curves would.
    limit = CLOSE * (finite.max() / 2 - finite.min() / 2)
    halves = finite / 2
    groups: list[tuple[int, ...]] = []
    rest = np.arange(len(curves))
    while len(rest):
        # The first one is close to itself.
        close = np.abs(halves[rest] - halves[rest[0]]).max(axis=1, initial=0.0) <= limit
        if close.sum() > 1:
            groups.append(tuple(rest[close].tolist()))
        rest = rest[~close]
    return tuple(groups)


def dashes(groups: Groups, k: int) -> list[Any]:
    """Choose a line style for each curve: those that coincide get dashes that alternate, so that all colours show.

    Parameters
    ----------
    groups
        Groups from `coinciding`.
    k
        Number of curves.

    Returns
    -------
    list
        A style of matplotlib for each curve; None where it coincides with none.
    """
    styles: list[Any] = [None] * k
    for group in groups:
        # The first is drawn whole, and each further one leaves a gap for those before it.
        for place, curve in enumerate(group[1:], 1):
            styles[curve] = (place * DASH, (DASH, DASH * (len(group) - 1)))
    return styles


def groups_text(groups: Groups, names: Sequence[str]) -> str:
    """Say which curves coincide, such as ``0 = 3, 1 = 4``; empty where none do.

    Parameters
    ----------
    groups
        Groups from `coinciding`.
    names
        Name of each curve.
    """
    return ", ".join(" = ".join(names[i] for i in group) for group in groups)
