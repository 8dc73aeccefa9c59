"""The compiled E-step and sums of a block: responsibilities and moments, one sub-block of rows at a time.

A sub-block is small enough that its rows, responsibilities and differences stay in the cache. Only the loading of rows
depends on their type, so one compiled version serves all types. The kinds of covariance differ in the distances and in
the moments; a kind is chosen by the type of its tuple, so that only the one in use is compiled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from clustering.compiling import INNER, njit
from clustering.models import covariance_kernels, difference_kernels, soft_kernels
from clustering.models.kernels import FAST, aligned
from clustering.models.lane_turns import transposed
from clustering.models.lane_types import ELEMENT_BYTES, wide, widened
from clustering.models.lanes import WIDE, element, load, memory, prefetch, store

Array = NDArray[np.float64]


class Alike(NamedTuple):
    """Components of the same variance in all directions, 1 for all of them."""

    centers: Array
    """Centers less the origin ``(k, d)``."""


class Spherical(NamedTuple):
    """Components of one variance each, the same in all directions."""

    centers: Array
    inverse: Array
    """Inverse variances ``(k,)``."""


class Diagonal(NamedTuple):
    """Components with a variance for each feature."""

    centers: Array
    inverse: Array
    """Inverse variances ``(k, d)``."""


class Full(NamedTuple):
    """Components with a matrix each."""

    centers: Array
    factors: Array
    """Factors A, packed by `covariance_kernels.pack`, with AᵀA the inverse covariance."""


class Tied(NamedTuple):
    """Components that share one matrix."""

    centers: Array
    factor: Array
    """Factor A, packed like those of `Full` with k = 1."""
    white: Array
    """Centers times the factor ``(k, d)``."""
    near: bool
    """Whether second moments may be taken about the origin."""


Kind = Alike | Spherical | Diagonal | Full | Tied


class Sums(NamedTuple):
    """Moments of the rows, which are added to."""

    weight: Array
    """Σ s ``(k,)``, with s a row's weight times its responsibility."""
    first: Array
    """Σ s (x − c) ``(k, d)``."""
    second: Array
    """Second moments: ``(k, d)`` of each feature, ``(k,)`` of all, ``(k, d, d)``, ``(1, d, d)`` of all components, or
    empty."""
    overlap: Array
    """Σ s_i s_j / w ``(k, k)``; only tied components that are not near add to it."""


@njit(**INNER, **FAST)
def _fill(values, code, start, n, d, origin, columns):  # type: ignore[no-untyped-def]
    """Put rows from `start` on, less the origin, into columns ``(d, m)``."""
    m = columns.shape[1]
    whole = m - m % WIDE
    strip = aligned(WIDE * WIDE)
    ahead, size = memory(values, np.uint8), ELEMENT_BYTES[code]
    for r in range(0, whole, WIDE):
        for j in range(0, d, WIDE):
            few = min(WIDE, d - j)
            for q in range(WIDE):
                at = (start + r + q) * d + j
                # Rows of the next sub-block arrive while this one is worked on.
                prefetch(ahead, (at + m * d) * size)
                # Elements behind the last feature are those of the next row. Memory behind the last row is not read.
                lanes = wide(values, code, at) if at + WIDE <= n * d else widened(values, code, at, few)
                store(strip, q * WIDE, lanes - load(origin, j))
            c0, c1, c2, c3, c4, c5, c6, c7 = transposed(
                load(strip, 0), load(strip, 8), load(strip, 16), load(strip, 24),
                load(strip, 32), load(strip, 40), load(strip, 48), load(strip, 56),
            )  # fmt: skip
            i = j * m + r
            store(columns, i, c0)
            if few > 1:
                store(columns, i + m, c1)
            if few > 2:
                store(columns, i + 2 * m, c2)
            if few > 3:
                store(columns, i + 3 * m, c3)
            if few > 4:
                store(columns, i + 4 * m, c4)
            if few > 5:
                store(columns, i + 5 * m, c5)
            if few > 6:
                store(columns, i + 6 * m, c6)
            if few > 7:
                store(columns, i + 7 * m, c7)
    for r in range(whole, m):
        for j in range(0, d, WIDE):
            few = min(WIDE, d - j)
            store(strip, 0, widened(values, code, (start + r) * d + j, few) - load(origin, j))
            for q in range(few):
                columns[j + q, r] = strip[q]


def squares_of(kind, columns, out):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Compute squared Mahalanobis distances of columns from all centers.

    Parameters
    ----------
    kind
        One of the kinds of covariance.
    columns
        Columns less the origin ``(d, m)``.
    out
        Gets the squares ``(k, m)``.
    """
    raise TypeError("squares_of is part of compiled code, and no function of Python")


@overload(squares_of, jit_options=FAST)  # type: ignore[arg-type]
def _squares_of_kind(kind, columns, out):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return {
        Alike: _alike_squares, Spherical: _spherical_squares, Diagonal: _diagonal_squares, Full: _full_squares,
        Tied: _tied_squares,
    }[kind.instance_class]  # fmt: skip


def _alike_squares(kind, columns, out):  # type: ignore[no-untyped-def]
    difference_kernels.squares(columns, kind.centers, out)


def _spherical_squares(kind, columns, out):  # type: ignore[no-untyped-def]
    difference_kernels.squares(columns, kind.centers, out)
    for k in range(out.shape[0]):
        for r in range(out.shape[1]):
            out[k, r] *= kind.inverse[k]


def _diagonal_squares(kind, columns, out):  # type: ignore[no-untyped-def]
    difference_kernels.scaled_squares(columns, kind.centers, kind.inverse, out)


def _full_squares(kind, columns, out):  # type: ignore[no-untyped-def]
    covariance_kernels.factored_squares(columns, kind.centers, kind.factors, out)


def _tied_squares(kind, columns, out):  # type: ignore[no-untyped-def]
    white = np.empty(columns.shape)
    covariance_kernels.multiply(kind.factor, columns, white)
    difference_kernels.squares(white, kind.white, out)


def add_moments(kind, columns, squares, weighted_resp, weights, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Add the moments of a sub-block to the sums.

    Parameters
    ----------
    kind
        One of the kinds of covariance.
    columns, squares, weighted_resp
        Columns less the origin ``(d, m)``, what `squares_of` makes of them, and responsibilities times weights
        ``(k, m)``. Only spherical components take squares.
    weights
        Weights of the rows ``(m,)``.
    sums
        Sums that are added to.
    """
    raise TypeError("add_moments is part of compiled code, and no function of Python")


@overload(add_moments, jit_options=FAST)  # type: ignore[arg-type]
def _add_moments_of_kind(kind, columns, squares, weighted_resp, weights, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return {
        Alike: _first_moments, Spherical: _spherical_moments, Diagonal: _diagonal_moments, Full: _full_moments,
        Tied: _tied_moments,
    }[kind.instance_class]  # fmt: skip


def _first_moments(kind, columns, squares, weighted_resp, weights, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    difference_kernels.first_about(columns, kind.centers, weighted_resp, sums.weight, sums.first)


def _spherical_moments(kind, columns, squares, weighted_resp, weights, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    difference_kernels.first_about(columns, kind.centers, weighted_resp, sums.weight, sums.first)
    difference_kernels.weighted_squares(squares, weighted_resp, kind.inverse, sums.second)


def _diagonal_moments(kind, columns, squares, weighted_resp, weights, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    difference_kernels.diagonal_about(columns, kind.centers, weighted_resp, sums.weight, sums.first, sums.second)


def _full_moments(kind, columns, squares, weighted_resp, weights, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    covariance_kernels.full_about(columns, kind.centers, weighted_resp, sums.weight, sums.first, sums.second)


def _tied_moments(kind, columns, squares, weighted_resp, weights, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001
    difference_kernels.first_about(columns, kind.centers, weighted_resp, sums.weight, sums.first)
    k, m = weighted_resp.shape
    d = columns.shape[0]
    diff = columns
    if not kind.near:
        # About each row's own mean of the centers.
        diff = columns.copy()
        part = np.empty((k, m))
        for i in range(k):
            for r in range(m):
                part[i, r] = weighted_resp[i, r] / weights[r] if weights[r] > 0.0 else 0.0
            for j in range(d):
                c = kind.centers[i, j]
                for r in range(m):
                    diff[j, r] -= c * part[i, r]
        difference_kernels.overlaps(part, weighted_resp, sums.overlap)
    zero = np.zeros((1, d))
    covariance_kernels.full_about(diff, zero, weights.reshape(1, m), np.zeros(1), zero.copy(), sums.second)


@njit(**FAST)
def fill_squares(kind, columns, out):  # type: ignore[no-untyped-def]
    """Do as `squares_of` does, called from Python.

    Parameters
    ----------
    kind, columns, out
        As in `squares_of`.
    """
    squares_of(kind, columns, out)  # type: ignore[no-untyped-call]


@njit(**FAST)
def add_columns(kind, columns, squares, weighted_resp, weights, sums):  # type: ignore[no-untyped-def]
    """Do as `add_moments` does, called from Python.

    Parameters
    ----------
    kind, columns, squares, weighted_resp, weights, sums
        As in `add_moments`.
    """
    add_moments(kind, columns, squares, weighted_resp, weights, sums)  # type: ignore[no-untyped-call]


@njit(**FAST)
def add_block(values, code, n, d, origin, weights, kind, keep, rates, constants, length, sums, labels, own):  # type: ignore[no-untyped-def]
    """Add the moments of the rows of a block to the sums; return Σ w log Σ exp L, and Σ w r L.

    Parameters
    ----------
    values, code, n, d
        Address and type of the rows, and numbers of rows and features.
    origin
        Origin, with zeros up to a whole vector.
    weights
        Address of the weights in float64; 0 where all are 1.
    kind
        One of the kinds of covariance.
    keep
        Whether its moments take the squares, which responsibilities would replace otherwise.
    rates, constants
        Rate and constant of each cluster ``(k,)``.
    length
        Number of rows of a sub-block.
    sums
        Sums that are added to.
    labels, own
        Get the clusters of largest L, and the squares of these clusters ``(n,)``.
    """
    k = rates.shape[0]
    columns_buffer = aligned(d * length)
    resp_buffer = aligned(k * length)
    squares_buffer = aligned(k * length) if keep else resp_buffer
    log_prob = aligned(length)
    ones = np.ones(length)
    log_likelihood = 0.0
    expected = 0.0
    for start in range(0, n, length):
        m = min(length, n - start)
        columns = columns_buffer[: d * m].reshape(d, m)
        resp = resp_buffer[: k * m].reshape(k, m)
        squares = squares_buffer[: k * m].reshape(k, m)
        w = ones[:m]
        if weights:
            given = memory(weights, np.float64)
            for r in range(m):
                w[r] = element(given, start + r)
        _fill(values, code, start, n, d, origin, columns)
        squares_of(kind, columns, squares)  # type: ignore[no-untyped-call]
        part, part_expected = soft_kernels.softmax(
            squares, rates, constants, w, resp, log_prob[:m], labels[start : start + m], own[start : start + m]
        )
        log_likelihood += part
        expected += part_expected
        add_moments(kind, columns, squares, resp, w, sums)  # type: ignore[no-untyped-call]
    return log_likelihood, expected
