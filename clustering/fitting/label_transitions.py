"""Label transitions: the weight of each pair of a previous label and a present one. Only pairs that occur are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LabelTransitions = tuple[NDArray[np.int64], Array]
"""Pairs of previous and present labels ``(t, 2)``, sorted and distinct, and their weights ``(t,)``, above zero."""


def label_transitions(before: NDArray[np.int64], now: NDArray[np.int64], weights: Array) -> LabelTransitions:
    """Add up the weights of rows by their pair of labels, in the order of the rows.

    Parameters
    ----------
    before
        Previous labels ``(n,)``; −1 for none.
    now
        Present labels ``(n,)``, 0 or more.
    weights
        Weights of the rows ``(n,)``.
    """
    if not len(before):
        return np.zeros((0, 2), np.int64), np.zeros(0)
    # One number for each pair, so that a single count over integers adds up the weights.
    width = int(now.max()) + 1
    codes = (before + 1) * width + now
    kinds = (int(before.max()) + 2) * width
    if kinds <= 4 * len(codes):
        present = np.arange(kinds)
        total = np.bincount(codes, weights, kinds)
    else:
        # With very many clusters, a table of all pairs would be far larger than the rows.
        present, index = np.unique(codes, return_inverse=True)
        total = np.bincount(index, weights, len(present))
    present_codes = np.flatnonzero(total)
    return np.stack([present[present_codes] // width - 1, present[present_codes] % width], axis=1), np.asarray(
        total[present_codes], np.float64
    )


def add_transitions(one: LabelTransitions, other: LabelTransitions) -> LabelTransitions:
    """Add two transitions up, with the same bits as a table of all pairs would have.

    Parameters
    ----------
    one, other
        Transitions of different rows.
    """
    if not len(other[1]):
        return one
    # A pair occurs at most once on each side, so its weight is one addition, whose bits are certain.
    pairs, index = np.unique(np.concatenate([one[0], other[0]]), axis=0, return_inverse=True)
    # NumPy 2.0 returns this inverse as a column, other versions as a vector.
    total = np.bincount(index.reshape(-1), np.concatenate([one[1], other[1]]), len(pairs))
    return pairs, np.asarray(total, np.float64)


def as_unchanged(moves: LabelTransitions) -> LabelTransitions:
    """Make the transitions of the same rows where no label changes.

    Parameters
    ----------
    moves
        Transitions whose present labels are kept, and become the previous labels too.
    """
    pairs, weights = moves
    now, index = np.unique(pairs[:, 1], return_inverse=True)
    total = np.bincount(index, weights, len(now)) if len(now) else np.zeros(0)
    return np.stack([now, now], axis=1), np.asarray(total, np.float64)
