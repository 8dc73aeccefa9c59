"""The choice of a course: how many passes a full read looks ahead, and its budgets, by rows of the row sample."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.fitting.expected_passes import ExpectedPass, ForEach, SampledRows
from clustering.models.course import Course
from clustering.models.margins import MarginStatistics

Array = NDArray[np.float64]

ENOUGH = 2.0
"""Multiple of the expected errors of centers that budgets must allow, where the course is longer than one pass."""
MOST = 2.0**20
"""Largest multiple of the expected errors."""
MOST_PARTS = 4
"""Number of parts of the rows that threads work on, at most."""
ERRORS = 2.0
"""Standard errors by which the share of near rows is kept below its limit."""


def choose_course(
    expected: Iterator[ExpectedPass], sample: SampledRows, share: float, longest: int, for_each: ForEach = map
) -> Course[Any]:
    """Choose the longest course along which budgets allow for the errors of the expected centers.

    The longer the course, the more rows are near a boundary at one of its waypoints, and the less is left for budgets.

    Parameters
    ----------
    expected
        The present pass, and those that are expected to follow, made when they are asked for.
    sample
        Some of the rows.
    share
        Largest share of the rows that is to be near.
    longest
        Largest number of passes to look ahead.
    for_each
        Calls a function for each of some parts of the rows, such as the ``map`` of a pool of threads.
    """
    first = next(expected)
    functions, errors = [first.function], [np.zeros_like(first.errors)]
    parts = [_Multiples(each.standing, first.function) for each in sample.parts(MOST_PARTS)]
    length, multiple = 0, 0.0
    for each in islice(expected, longest):
        functions.append(each.function)
        errors.append(each.errors)
        multiples = np.concatenate(list(for_each(partial(_Multiples.lower, to=each), parts)))
        allowed = min(MOST, choose_multiple(multiples, sample.counts, share))
        # Rows are kept for the first pass in any case: the next estimate needs them most where they are few.
        if allowed >= ENOUGH or not length:
            length, multiple = len(functions) - 1, allowed
        if allowed < ENOUGH:
            break
    return Course(tuple(functions[: length + 1]), multiple * np.array(errors[: length + 1]))


class _Multiples:
    """By which multiple of the expected errors centers may stray before the label of a row changes."""

    def __init__(self, rows: Rows, first: MarginStatistics[Any]) -> None:
        self.rows, self.multiples = rows, np.full(len(rows), np.inf)
        self.labels = first.measure(rows).labels

    def lower(self, to: ExpectedPass) -> Array:
        """Lower them to those of another pass."""
        to.function.lower_multiples(self.rows, to.errors, self.labels, self.multiples)
        return self.multiples


def choose_multiple(multiples: Array, counts: Array, share: float) -> float:
    """Choose the multiple of the expected errors at which a share of the rows is near a boundary.

    Parameters
    ----------
    multiples
        Multiple up to which each of some rows keeps its label ``(m,)``.
    counts
        Number of rows that each stands for ``(m,)``.
    share
        Largest share of the rows that is to be near.
    """
    order = np.argsort(multiples, kind="stable")
    reached = np.cumsum(counts[order])
    # Few rows give a rough estimate, and near rows beyond the room would be read in every pass.
    error = np.sqrt(share * (1.0 - share) * np.square(counts).sum()) / reached[-1]
    place = np.searchsorted(reached, max(0.0, share - ERRORS * error) * reached[-1])
    return float(multiples[order[min(place, len(order) - 1)]])
