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


@njit(**INNER, **BARE)
def _uniform(stream, position):  # type: ignore[no-untyped-def]
    """Draw in (0, 1] by a position alone."""
    bits = _mix(stream + np.uint64(position) * np.uint64(0x9E3779B97F4A7C15))
    # The upper 53 bits are all that float64 holds. Adding 1 keeps draws above 0, because priorities divide by them.
    return (np.float64(bits >> np.uint64(11)) + 1.0) * 2.0**-53


@njit(**BARE)
def uniform(seed, positions, numbers):  # type: ignore[no-untyped-def]
    """Fill an array with draws in (0, 1], each a function of the seed and of its row's position alone.

    Parameters
    ----------
    seed, positions, numbers
        Seed, positions of the rows on the sample grid ``(n,)``, and the array ``(n,)`` to fill.
    """
    stream = _mix(np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15))
    for i in range(positions.shape[0]):
        numbers[i] = _uniform(stream, positions[i])


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
def draw_rows(  # type: ignore[no-untyped-def]
    seed, n, weights, cells, start, shape, grid, floor, index, positions, priorities
):
    """Draw the rows of a block by priority w / u, with u as `uniform` gives it for the row's position.

    Parameters
    ----------
    seed, n
        Seed, and number of rows.
    weights, cells
        Weights ``(n,)``, empty where all are 1, and flat cells of the block ``(n,)``, empty where each is a row.
    start, shape, grid
        First position of the block along the sample dimensions, its shape, and that of the whole grid ``(s,)``.
    floor
        Least priority of a drawn row.
    index, positions, priorities
        Get the drawn rows, their positions on the sample grid, and their priorities ``(n,)``.

    Returns
    -------
    int, int
        Number of drawn rows, and of rows of positive weight.
    """
    stream = _mix(np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15))
    last = shape.shape[0] - 1
    # The cells of a line along the last dimension have positions side by side.
    first = np.int64(0)
    end = np.int64(0)
    at = np.int64(0)
    drawn = 0
    positive = 0
    for r in range(n):
        w = weights[r] if weights.shape[0] else 1.0
        if not w > 0.0:
            continue
        positive += 1
        cell = cells[r] if cells.shape[0] else np.int64(r)
        if not first <= cell < end:
            line = cell // shape[last]
            first = line * shape[last]
            end = first + shape[last]
            at = start[last]
            factor = grid[last]
            for a in range(last - 1, -1, -1):
                at += (line % shape[a] + start[a]) * factor
                line //= shape[a]
                factor *= grid[a]
        position = at + (cell - first)
        priority = w / _uniform(stream, position)
        if priority >= floor:
            index[drawn] = r
            positions[drawn] = position
            priorities[drawn] = priority
            drawn += 1
    return drawn, positive


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
    # Sums about the first row keep the digits of data far from zero. Four rows are added one after the other, so that
    # sums stay in registers meanwhile.
    whole = n - n % 4
    for r in range(0, whole, 4):
        u, v, w, z = weights[r], weights[r + 1], weights[r + 2], weights[r + 3]
        for j in range(d):
            first = rows[0, j]
            total = step[j] + u * (rows[r, j] - first)
            total += v * (rows[r + 1, j] - first)
            total += w * (rows[r + 2, j] - first)
            step[j] = total + z * (rows[r + 3, j] - first)
    for r in range(whole, n):
        for j in range(d):
            step[j] += weights[r] * (rows[r, j] - rows[0, j])
    for j in range(d):
        step[j] /= weight
    for r in range(0, whole, 4):
        u, v, w, z = weights[r], weights[r + 1], weights[r + 2], weights[r + 3]
        for j in range(d):
            first, mean = rows[0, j], step[j]
            a = (rows[r, j] - first) - mean
            b = (rows[r + 1, j] - first) - mean
            c = (rows[r + 2, j] - first) - mean
            e = (rows[r + 3, j] - first) - mean
            total = scatter[j] + u * a * a
            total += v * b * b
            total += w * c * c
            scatter[j] = total + z * e * e
    for r in range(whole, n):
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
    n, d = rows.shape
    # NaN fails both comparisons, so a missing feature changes nothing.
    for r in range(0, n - n % 4, 4):
        # A row of weight 0 must not change the range, and with it the origin.
        if weights[r] > 0.0 and weights[r + 1] > 0.0 and weights[r + 2] > 0.0 and weights[r + 3] > 0.0:
            for j in range(d):
                low, high = least[j], greatest[j]
                x = rows[r, j]
                low = x if x < low else low
                high = x if x > high else high
                x = rows[r + 1, j]
                low = x if x < low else low
                high = x if x > high else high
                x = rows[r + 2, j]
                low = x if x < low else low
                high = x if x > high else high
                x = rows[r + 3, j]
                least[j] = x if x < low else low
                greatest[j] = x if x > high else high
        else:
            for i in range(r, r + 4):
                _widen(rows, i, weights[i], least, greatest)
    for r in range(n - n % 4, n):
        _widen(rows, r, weights[r], least, greatest)


@njit(**INNER, **BARE)
def _widen(rows, r, weight, least, greatest):  # type: ignore[no-untyped-def]
    """Update the range of each feature with one row."""
    if weight > 0.0:
        for j in range(rows.shape[1]):
            x = rows[r, j]
            least[j] = x if x < least[j] else least[j]
            greatest[j] = x if x > greatest[j] else greatest[j]
