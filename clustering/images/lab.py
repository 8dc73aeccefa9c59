"""CIELAB in whole numbers, from sRGB of 8 or 16 bits.

A colour of a pixel comes from tables and sums of integers alone, so that it does not depend on the pixels beside it nor
on how a loop over them is compiled. White is D65, and greys have a = b = 0 exactly.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SCALE = 128
"""Steps of a unit of L, a and b. The smallest step of an 8-bit colour is more than ten times as large."""
MATRIX_BITS = 15
ROOT_BITS = 14
_LIGHT = 65535
"""Largest linear light of a channel."""
# IEC 61966-2-1 with D65: red, green and blue to X, Y and Z. Each row is divided by the white point.
_TO_XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
])  # fmt: skip


class LabTables(NamedTuple):
    """Tables that a kernel reads colours from."""

    light: NDArray[np.int64]
    """Number of a channel → linear light, 0 … 65535."""
    matrix: NDArray[np.int64]
    """Linear light → X, Y, Z relative to white ``(3, 3)``, in steps of 2⁻¹⁵; rows add up to 2¹⁵."""
    roots: NDArray[np.int64]
    """X, Y or Z of 0 … 65535 → f of CIELAB, in steps of 2⁻¹⁴."""


@cache
def lab_tables(bits: int) -> LabTables:
    """Make the tables for channels of 8 or 16 bits.

    Parameters
    ----------
    bits
        Bits of a channel.
    """
    value = np.arange(1 << bits) / ((1 << bits) - 1)
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = np.rint(_TO_XYZ / _TO_XYZ.sum(axis=1, keepdims=True) * (1 << MATRIX_BITS)).astype(np.int64)
    # Each row adds up to one, so that white is exactly white; green takes the rounding.
    matrix[:, 1] += (1 << MATRIX_BITS) - matrix.sum(axis=1)
    xyz = np.arange(_LIGHT + 1) / _LIGHT
    roots = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return LabTables(
        np.rint(light * _LIGHT).astype(np.int64), matrix, np.rint(roots * (1 << ROOT_BITS)).astype(np.int64)
    )
