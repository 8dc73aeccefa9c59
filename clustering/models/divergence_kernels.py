"""Compiled inner loops of the divergences that are not distances; rows are columns ``(d, m)``."""

from __future__ import annotations

import math

import numpy as np

from clustering.compiling import njit
from clustering.models.kernels import FAST
from clustering.models.soft_kernels import TIE


@njit(**FAST)
def kullback_leibler(columns, centers, logs, out):  # type: ignore[no-untyped-def]
    """Fill `out` with Σ x log(x / c) − x + c.

    Parameters
    ----------
    columns
        Rows as columns ``(d, m)``, zero or more.
    centers, logs
        Centers ``(k, d)`` and their logarithms, which must be finite.
    out
        Gets the divergences ``(k, m)``.
    """
    d, m = columns.shape
    # Logarithms of rows cost most, so they are taken once, and not once for each center.
    base = np.zeros(m)
    for j in range(d):
        for r in range(m):
            x = columns[j, r]
            # x log x tends to 0, and the logarithm of 0 would make it NaN.
            base[r] += x * math.log(x) - x if x > 0.0 else 0.0
    for k in range(centers.shape[0]):
        total = out[k]
        for r in range(m):
            total[r] = base[r]
        for j in range(d):
            c, slope, x = centers[k, j], logs[k, j], columns[j]
            for r in range(m):
                total[r] += c - slope * x[r]
        for r in range(m):
            # Rounding may take the divergence of a row at its center below zero.
            total[r] = max(total[r], 0.0)


@njit(**FAST)
def itakura_saito(columns, centers, out):  # type: ignore[no-untyped-def]
    """Fill `out` with Σ x / c − log(x / c) − 1.

    Parameters
    ----------
    columns
        Rows as columns ``(d, m)``, above zero.
    centers
        Centers ``(k, d)``, above zero.
    out
        Gets the divergences ``(k, m)``.
    """
    d, m = columns.shape
    base = np.zeros(m)
    for j in range(d):
        for r in range(m):
            base[r] += math.log(columns[j, r])
    for k in range(centers.shape[0]):
        total = out[k]
        constant = 0.0
        for j in range(d):
            constant += math.log(centers[k, j])
        for r in range(m):
            # The logarithms of all features add up first, so that the loop over features needs no logarithm.
            total[r] = (constant - base[r]) - d
        for j in range(d):
            slope, x = 1.0 / centers[k, j], columns[j]
            for r in range(m):
                total[r] += slope * x[r]
        for r in range(m):
            total[r] = max(total[r], 0.0)


@njit(**FAST)
def least_of(out, labels, least):  # type: ignore[no-untyped-def]
    """Find the cluster of least divergence of each row; among divergences equal up to `TIE`, the lowest index.

    Parameters
    ----------
    out
        Divergences ``(k, m)``.
    labels, least
        Get the cluster ``(m,)`` and its divergence ``(m,)``.
    """
    for r in range(out.shape[1]):
        labels[r] = 0
        least[r] = out[0, r]
    for k in range(1, out.shape[0]):
        row = out[k]
        for r in range(out.shape[1]):
            # A later cluster must be clearly nearer, so that the last bits of centers decide no label.
            lower = row[r] < least[r] * (1.0 - TIE)
            labels[r] = k if lower else labels[r]
            least[r] = row[r] if lower else least[r]
