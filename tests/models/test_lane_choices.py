"""Lanes that are chosen by labels."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from clustering.models.lane_choices import add_where, chosen
from clustering.models.lanes import MANY_REGISTERS, WIDE, load, store


@njit
def _choose(numbers, labels, out):  # type: ignore[no-untyped-def]
    store(out, 0, chosen(numbers, WIDE, load(labels, 0)))


@pytest.mark.skipif(not MANY_REGISTERS, reason="the processor has no such instruction")
def test_labels_choose_among_eight_numbers() -> None:
    numbers, labels, out = np.arange(16.0), np.array([0.0, 7, 3, 3, 1, 6, 2, 0]), np.empty(WIDE)
    _choose(numbers, labels, out)
    np.testing.assert_array_equal(out, numbers[WIDE + labels.astype(int)])


@njit
def _add(total, vector, labels, label, out):  # type: ignore[no-untyped-def]
    store(out, 0, add_where(load(total, 0), load(vector, 0), load(labels, 0), label))


def test_lanes_of_other_labels_keep_every_bit() -> None:
    total = np.array([-0.0, 1, 2, 3, np.inf, 5, 6, 7])
    vector = np.array([0.0, 0.1, np.nan, 0.3, -np.inf, np.inf, 0.6, 0.7])
    labels, out = np.array([1.0, 2, 1, 2, 1, 0, 2, -1]), np.empty(WIDE)
    _add(total, vector, labels, 2.0, out)
    with np.errstate(invalid="ignore"):
        expected = np.where(labels == 2, total + vector, total)
    assert out.tobytes() == expected.tobytes()
