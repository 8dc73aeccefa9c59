"""The gap statistic on the row sample: how much less spread clusters have than those of rows without structure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.execution.engine import Engine
from clustering.fitting.on_sample import SampleRunner, sample_passes
from clustering.fitting.seeding import SeedingRows, seed_centers, seeding_rows
from clustering.models import divergences as geometry
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.missing_features import fill_missing
from clustering.models.option_names import Divergence
from clustering.models.survey import RowSample, Survey

Array = NDArray[np.float64]

ROWS, ROWS_PER_CLUSTER = 2000, 50
"""Rows of the sample that are clustered, at most: the larger of this and of so many for each cluster."""
REFERENCES = 10
"""Sets of rows without structure."""
STARTS = 2
"""Starts of k-means for each set and each k, of which the best counts."""
TOLERANCE, MOST_PASSES = 1e-3, 40
_STREAM = 0x474150


class Gap(NamedTuple):
    """Gap statistic of one k."""

    gap: float
    """Mean log W of the rows without structure, less log W of the rows; W is the within-cluster sum of squares."""
    error: float
    """Standard error of the mean, with the factor √(1 + 1/B) for B sets."""


def gap_statistic(ks: Sequence[int], survey: Survey, divergence: Divergence, seed: int, engine: Engine) -> list[Gap]:
    """Compute the gap statistic (Tibshirani, Walther & Hastie 2001, doi:10.1111/1467-9868.00293).

    Rows without structure are uniform in a box along the principal components of the rows. Rows are compared where
    Euclidean distances are near the root of the divergence.

    Parameters
    ----------
    ks
        Numbers of clusters, each at most the number of distinct rows.
    survey
        Survey of the prepared rows, with the row sample.
    divergence
        Divergence of the hard clusters.
    seed
        Seed of the fit.
    engine
        Engine of the fit.
    """
    sample = survey.sample.highest(max(ROWS, ROWS_PER_CLUSTER * max(ks)))
    matrix = geometry.whitening(divergence, survey.covariance)
    values = fill_missing(sample.values, survey.mean)
    points = geometry.embed(divergence, values, geometry.choose_origin(divergence, survey.origin), matrix)
    weights = sample.represented
    points = points - weights @ points / weights.sum()
    axes = np.linalg.svd(points * np.sqrt(weights)[:, None], full_matrices=False)[2]
    turned = points @ axes.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    streams = np.random.SeedSequence([seed, _STREAM]).spawn(REFERENCES + 1)
    logs = _logs(ks, points, weights, streams[0], engine)
    references = np.empty((REFERENCES, len(ks)))
    for row, stream in zip(references, streams[1:], strict=True):
        drawn = np.random.Generator(np.random.PCG64(stream)).uniform(low, high, turned.shape)
        row[:] = _logs(ks, drawn @ axes, weights, stream.spawn(1)[0], engine)
    gaps, errors = references.mean(axis=0) - logs, references.std(axis=0) * np.sqrt(1.0 + 1.0 / REFERENCES)
    return [Gap(float(gap), float(error)) for gap, error in zip(gaps, errors, strict=True)]


def _logs(ks: Sequence[int], points: Array, weights: Array, stream: np.random.SeedSequence, engine: Engine) -> Array:
    """Return log W for each k ``(len(ks),)``."""
    rows = seeding_rows(points, weights)
    n = len(points)
    sample = RowSample(np.arange(n, 0.0, -1.0), np.arange(n), weights, points)
    with sample_passes(sample, engine) as passes:
        return np.array([_log_within(passes, k, rows, s) for k, s in zip(ks, stream.spawn(len(ks)), strict=True)])


def _log_within(passes: SampleRunner, k: int, rows: SeedingRows, stream: np.random.SeedSequence) -> float:
    """Return the log of the least within-cluster sum of squares of a few starts."""
    p = rows.rows.shape[1]
    seed = partial(seed_centers, rows, k, "kmeans++", np.zeros((0, p)))
    origin = np.zeros(p)
    starts = [seed(np.random.Generator(np.random.PCG64(one))) for one in stream.spawn(STARTS if k > 1 else 1)]
    params = [KMeansParams(origin, centers) for centers in starts if len(centers) == k]
    if not params:
        return -np.inf
    ends = passes.converge(KMeans(k), params, TOLERANCE, MOST_PASSES)
    return float(np.log(max(min(end.objective for end in ends), np.finfo(np.float64).tiny)))
