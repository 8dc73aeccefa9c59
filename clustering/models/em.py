"""The E-step and sums of the rows of one block, in one compiled call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows
from clustering.models import difference_kernels, em_kernels, kernels
from clustering.models.assignment import compiled_for
from clustering.models.columns import sub_block_length
from clustering.models.farthest import FARTHEST, FarthestRows
from clustering.models.lane_types import ELEMENT_CODES
from clustering.models.lanes import WIDE
from clustering.models.soft import FarthestRowsTracker, Responsibilities

Array = NDArray[np.float64]


class BlockTotals(NamedTuple):
    """Totals of the rows of a block, beside the moments."""

    log_likelihood: float
    """Σ w log Σ_k exp L_k."""
    expected_complete_log_likelihood: float
    """Σ w r L."""
    farthest: FarthestRows
    """The farthest rows of positive weight."""


def add_block(
    rows: Rows, origin: Array, components: em_kernels.Kind, rate: float, constants: Array, sums: em_kernels.Sums
) -> BlockTotals:
    """Add the moments of the rows of a block to the sums.

    Parameters
    ----------
    rows
        Prepared rows ``(n, d)`` without missing features.
    origin
        Origin ``(d,)``.
    components
        Components of the pass.
    rate, constants
        Rate of all components, and constant of each ``(k,)``: L = constant − rate · square.
    sums
        Sums that are added to.
    """
    n, d = rows.values.shape
    k = len(constants)
    # Arrays are named by their addresses, so copies must live until the kernel is done.
    values = compiled_for(rows.values)
    weights = np.ascontiguousarray(rows.weights, np.float64) if any(rows.weights.strides) else None
    labels, own = np.empty(n, np.int32), np.empty(n)
    keep = isinstance(components, em_kernels.Spherical)
    log_likelihood, expected = em_kernels.add_block(
        values.ctypes.data, ELEMENT_CODES[values.dtype], n, d, np.append(origin, np.zeros(-d % WIDE)),
        0 if weights is None else weights.ctypes.data, components, keep, np.full(k, rate), constants,
        sub_block_length(d, k), sums, labels, own,
    )  # fmt: skip
    index = kernels.farthest_rows(own, rows.weights, 0.0, min(k, FARTHEST))
    far = FarthestRows(
        own[index], rows.positions(index), labels[index], rows.weights[index],
        rows.values[index].astype(np.float64) - origin,
    )  # fmt: skip
    return BlockTotals(log_likelihood, expected, far)


def add_parts(parts: Iterable[Responsibilities], rows: Rows, about: Array, weight: Array, first: Array) -> BlockTotals:
    """Add up the weights and first moments of rows whose responsibilities are given.

    Parameters
    ----------
    parts
        Responsibilities of all rows, in order.
    rows
        Prepared rows ``(n, d)`` without missing features.
    about
        Points ``(k, d)`` that first moments are taken about.
    weight, first
        Σ s ``(k,)`` and Σ s (x − about) ``(k, d)``, which are added to.
    """
    log_likelihood = expected = 0.0
    tracker = FarthestRowsTracker(rows, len(about))
    for part in parts:
        difference_kernels.first_about(part.columns, about, part.weighted_resp, weight, first)
        log_likelihood += part.log_likelihood
        expected += part.expected_complete_log_likelihood
        tracker.update(part)
    return BlockTotals(log_likelihood, expected, tracker.farthest)
