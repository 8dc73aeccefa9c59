"""Rows turned into columns by moving lanes."""

from __future__ import annotations

import numpy as np
from numba import njit

from clustering.models.lane_turns import turned, turned_four, turned_singles
from clustering.models.lanes import NARROW, WIDE, store


@njit
def _turn(rows, at, step, factor, out):  # type: ignore[no-untyped-def]
    for i, column in enumerate(turned(rows, at, step, factor)):
        store(out, i * NARROW, column)


def test_sixteen_rows_become_eight_columns_each_number_scaled_and_rounded_once() -> None:
    width, first = 24, 8
    rows = np.random.default_rng(0).standard_normal((NARROW, width))
    out = np.empty((WIDE, NARROW), np.float32)
    _turn(rows, first, width, 0.25, out)
    np.testing.assert_array_equal(out, (0.25 * rows[:, first : first + WIDE]).T.astype(np.float32))


@njit
def _turn_singles(rows, at, step, origin, first, factor, out):  # type: ignore[no-untyped-def]
    for i, column in enumerate(turned_singles(rows, at, step, origin, first, factor)):
        store(out, i * NARROW, column)


def test_rows_of_float32_become_columns_less_their_origin() -> None:
    width, first = 24, 8
    rng = np.random.default_rng(0)
    rows, origin = rng.standard_normal((NARROW, width), np.float32), rng.standard_normal(width, np.float32)
    out = np.empty((WIDE, NARROW), np.float32)
    _turn_singles(rows, first, width, origin, first, np.float32(0.25), out)
    np.testing.assert_array_equal(out, (0.25 * (rows - origin)[:, first : first + WIDE]).T)


@njit
def _turn_four(rows, at, step, out):  # type: ignore[no-untyped-def]
    for i, column in enumerate(turned_four(rows, at, step)):
        store(out, i * NARROW, column)


def test_four_features_of_sixteen_rows_become_columns() -> None:
    width, first = 7, 3
    rows = np.random.default_rng(0).standard_normal((NARROW, width), np.float32)
    out = np.empty((4, NARROW), np.float32)
    _turn_four(rows, first, width, out)
    np.testing.assert_array_equal(out, rows[:, first : first + 4].T)
