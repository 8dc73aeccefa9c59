"""Compiled inner loops of pass 0: draws and digests of rows, moments and extremes."""

from __future__ import annotations

import numpy as np

from clustering.compiling import INNER, njit
from clustering.models.kernels import BARE


@njit(**INNER, **BARE)
def _mix(x):  # type: ignore[no-untyped-def]
    """Scramble 64 bits (the finaliser of splitmix64, doi:10.1145/2714064.2660195)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(**BARE)
def uniform(seed, positions, numbers):  # type: ignore[no-untyped-def]
    """Fill an array with draws in (0, 1], each a function of the seed and of its row's position alone.

    Parameters
    ----------
    seed, positions, numbers
        Seed, positions of the rows on the sample grid ``(n,)``, and the array ``(n,)`` to fill.
    """
    start = _mix(np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15))
    for i in range(positions.shape[0]):
        bits = _mix(start + np.uint64(positions[i]) * np.uint64(0x9E3779B97F4A7C15))
        # The upper 53 bits are all that float64 holds. Adding 1 keeps draws above 0, because priorities divide by them.
        numbers[i] = (np.float64(bits >> np.uint64(11)) + 1.0) * 2.0**-53


@njit(**BARE)
def hash_rows(rows, bits, factors, hashes):  # type: ignore[no-untyped-def]
    """Compute a 64-bit digest of each row; equal rows have equal digests.

    Multilinear hashing (Carter & Wegman 1979, doi:10.1016/0022-0000(79)90044-8), scrambled at the end.

    Parameters
    ----------
    rows, bits
        Rows ``(n, d)`` in float64, and the same memory as uint64.
    factors
        Memory for a factor of each feature ``(d,)``, in uint64.
    hashes
        Gets the digests ``(n,)``.
    """
    n, d = rows.shape
    for j in range(d):
        # Odd factors have inverses modulo 2⁶⁴, so rows that differ in one feature have different digests.
        factors[j] = _mix(np.uint64(j + 1) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
    for r in range(n):
        digest = np.uint64(0)
        for j in range(d):
            # −0.0 equals 0.0. Numbers with few digits have zeros in their low half, so the high half is mixed in.
            word = np.uint64(0) if rows[r, j] == 0.0 else bits[r, j]
            digest += (word ^ (word >> np.uint64(32))) * factors[j]
        hashes[r] = _mix(digest)


@njit(**BARE)
def centred_moments(rows, weights, weight, step, scatter):  # type: ignore[no-untyped-def]
    """Compute the mean less the first row, and Σ w (x − mean)², with sums in one order on every processor.

    Parameters
    ----------
    rows, weights, weight
        Rows ``(n, d)``, their weights ``(n,)``, and the sum of these.
    step, scatter
        Zeros ``(d,)`` that get the mean less the first row, and the scatter.
    """
    n, d = rows.shape
    # Sums about the first row keep the digits of data far from zero.
    for r in range(n):
        for j in range(d):
            step[j] += weights[r] * (rows[r, j] - rows[0, j])
    for j in range(d):
        step[j] /= weight
    for r in range(n):
        for j in range(d):
            x = (rows[r, j] - rows[0, j]) - step[j]
            scatter[j] += weights[r] * x * x


@njit(**BARE)
def extremes(rows, weights, least, greatest):  # type: ignore[no-untyped-def]
    """Update the range of each feature with rows of positive weight.

    Parameters
    ----------
    rows, weights
        Rows ``(n, d)`` and their weights ``(n,)``.
    least, greatest
        Minimum and maximum so far ``(d,)``, which are updated.
    """
    for r in range(rows.shape[0]):
        # A row of weight 0 must not change the range, and with it the origin.
        if not weights[r] > 0.0:
            continue
        for j in range(rows.shape[1]):
            x = rows[r, j]
            # NaN fails both comparisons, so a missing feature changes nothing.
            least[j] = x if x < least[j] else least[j]
            greatest[j] = x if x > greatest[j] else greatest[j]
