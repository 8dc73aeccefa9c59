"""Annealing: choose β for soft k-means on the row sample (Rose 1998, doi:10.1109/5.726788).

Below the first critical value β_c = 1 / (2 λ_max), with λ_max the largest eigenvalue of the covariance, all centers of
soft k-means are equal. As β rises, centers split, and each split finds structure of a smaller size. The stopping rule
compares variances: soft k-means at β assumes that each feature varies by 1 / (2β) around its center, and it measures
E / (W d), where E = Σ w r D. While the measured variance is below the assumed one, β is too low. The β at which both
are equal is the maximum likelihood of the mixture that soft k-means is; it is taken once all k centers have split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import Rows, in_memory_rows
from clustering.errors import DataError
from clustering.models import divergences as geometry
from clustering.models.divergences import TINY
from clustering.models.kmeans_params import KMeansParams
from clustering.models.missing_features import fill_missing
from clustering.models.objective import rank_candidates
from clustering.models.option_names import Divergence
from clustering.models.soft import Moments
from clustering.models.soft_kmeans_params import SoftKMeansParams
from clustering.models.starts import SamplePasses
from clustering.models.survey import RowSample, Survey

Array = NDArray[np.float64]

STEP = 1.15
"""Factor from one β to the next."""
MOST_LEVELS = 400
"""Values of β that are tried at most."""
ROWS = 25_000
"""Rows of the sample that annealing runs on."""
BETA_TOLERANCE = 1e-4
"""Relative change of β at which its search stops."""
_TOLERANCE, _MOST_PASSES = 1e-7, 200
"""Tolerance and number of passes of the runs on the sample."""
_NUDGE = 1e-2
"""Centers are moved at random by this share of 1/√(2β), the deviation that β assumes, so that equal ones can split."""
_APART = 1e-2
"""Centers whose squared distance is below this, in units of 1/β, count as one."""


class SoftClusters(Protocol):
    """The part of soft k-means that annealing needs."""

    @property
    def k(self) -> int:
        """Number of clusters."""

    @property
    def divergence(self) -> Divergence:
        """Divergence of rows from centers."""

    def statistics(self, params: SoftKMeansParams, rows: Rows) -> Moments:
        """Make the statistics of some rows.

        Parameters
        ----------
        params
            Params with the β that is tried.
        rows
            Prepared rows of the sample ``(n, d)``.
        """


class AnnealingResult(NamedTuple):
    """Outcome of annealing."""

    params: SoftKMeansParams
    splits: tuple[tuple[float, int], ...]
    """β at each split, with the number of distinct centers after it."""
    critical: float
    """β_c, where the first split is possible."""
    given: bool = False
    """Whether a start from hard clusters reached a lower free energy at the same β, and was taken."""

    @property
    def note(self) -> str:
        """Message for the user: the chosen β and its splits."""
        splits_text = ", ".join(f"{beta:.4g} ({count})" for beta, count in self.splits)
        return (
            f"beta set to {self.params.beta:.6g} by annealing; first critical value {self.critical:.4g}; "
            f"splits at beta (centers): {splits_text or 'none'}"
            + (
                "; a start from hard clusters ended lower at that beta, and was refined by the same rule"
                if self.given
                else ""
            )
        )


def critical_value(divergence: Divergence, covariance: Array) -> float:
    """Compute β_c, below which all centers of soft k-means are one; infinite where rows do not vary.

    Parameters
    ----------
    divergence
        Divergence of soft k-means.
    covariance
        Covariance of the rows where `divergences.embed` maps them ``(d, d)``, or its diagonal ``(d,)``.
    """
    full = np.diag(covariance) if covariance.ndim == 1 else covariance
    largest = float(np.linalg.eigvalsh(full)[-1])
    return 1.0 / (2.0 * geometry.CURVATURE[divergence] * largest) if largest > 0 else np.inf


def anneal(
    model: SoftClusters,
    survey: Survey,
    on_sample: Callable[[RowSample], AbstractContextManager[SamplePasses]],
    hard: Sequence[KMeansParams],
) -> AnnealingResult:
    """Raise β from below its first critical value until all centers have split and β fits the variance of the rows.

    Parameters
    ----------
    model
        Soft k-means; its own β is not used.
    survey
        Survey of the prepared rows, with their sample.
    on_sample
        Opens passes over rows of the sample.
    hard
        Other starts, from hard clusters. If one of them has a lower free energy at the final β, it is taken instead,
        and its β is set by the same rule.

    Raises
    ------
    DataError
        If all rows are equal, or the centers do not split.
    """
    origin = geometry.choose_origin(model.divergence, survey.origin)
    matrix = geometry.whitening(model.divergence, survey.covariance)
    # The sample grows with k, so that no center has only a few rows to split on.
    sample = survey.sample.highest(max(ROWS, 200 * model.k))
    rows = in_memory_rows(sample.values, sample.represented, allow_missing=True)
    embed = partial(geometry.embed, model.divergence, origin=origin, matrix=matrix)
    # The covariance needs all features, so missing ones count as the mean here. The passes leave them out.
    embedded_rows = embed(fill_missing(sample.values, survey.mean))
    weights = sample.represented / sample.represented.sum()
    middle = weights @ embedded_rows
    covariance = (embedded_rows - middle).T @ (weights[:, None] * (embedded_rows - middle))
    critical = critical_value(model.divergence, covariance)
    if not critical < np.inf:
        raise DataError("all rows are equal and beta is 'auto': nothing tells what it should be; give beta a number")
    k, d = model.k, len(middle)
    # The draws only push equal centers apart, so they need no seed of the user.
    generator = np.random.Generator(np.random.PCG64(0))
    # Below the critical value all centers are one, so the search begins with a known number of centers.
    beta, count, splits = 0.9 * critical, 1, []
    centers = np.repeat(middle[None], k, axis=0)
    with on_sample(sample) as passes:
        for _ in range(MOST_LEVELS):
            # Where a feature varies less than β assumes, the assumed deviation would throw centers out of the data.
            size = np.minimum(np.sqrt(np.diagonal(covariance)), np.sqrt(0.5 / beta))
            # Equal centers get equal responsibilities and stay equal for ever, so nothing would split without a nudge.
            centers = centers + _NUDGE * size * generator.standard_normal((k, d))
            released = geometry.unembed(model.divergence, centers, matrix)
            # The mean of one row is that row. So this update moves no center, but gives those of the cosine length 1.
            start = SoftKMeansParams(
                origin, geometry.update_centers(model.divergence, np.ones(k), released, released), beta, matrix
            )
            params = passes.converge(model, [start], _TOLERANCE, _MOST_PASSES)[0].params
            centers = embed(params.centers + origin)
            distinct = _distinct(centers, _APART / beta)
            if distinct > count:
                splits.append((beta, distinct))
                count = distinct
            likeliest = _likeliest_beta(model, params, rows)
            if count == k and likeliest <= beta * (1 + BETA_TOLERANCE):
                # Annealing may end in a local minimum too, so hard clusters compete with it at the same β.
                starts = (params, *(SoftKMeansParams.from_hard_clusters(start, beta) for start in hard))
                ends = passes.converge(model, starts, _TOLERANCE, _MOST_PASSES)
                best = rank_candidates(ends)[0]
                if best is ends[0]:
                    return AnnealingResult(params, tuple(splits), critical)
                return AnnealingResult(_converge_beta(model, best.params, passes, rows), tuple(splits), critical, True)
            # Near the fitting β a whole step would jump over it, so the rule itself gives the next value.
            beta = likeliest if count == k and likeliest < beta * STEP else beta * STEP
    if count == k:
        raise DataError(
            "beta is 'auto', and all rows lie at their centers, so it has no upper limit; lower k, or give "
            "beta a number"
        )
    raise DataError(
        f"beta is 'auto', and after {MOST_LEVELS} steps {count} of {k} centers are distinct; lower k, or give beta a "
        "number"
    )


def _likeliest_beta(model: SoftClusters, params: SoftKMeansParams, rows: Rows) -> float:
    """Compute the β whose assumed variance of each observed feature equals the measured one."""
    statistics = model.statistics(params, rows)
    d = params.centers.shape[1]
    seen = statistics.observed.sum() if statistics.observed.size else d * statistics.weight.sum()
    # Rows that all lie at their centers measure a variance of 0; the bound keeps β finite.
    return float(seen) / (2.0 * max(statistics.neg_expected_complete_log_likelihood, TINY))


def _converge_beta(model: SoftClusters, params: SoftKMeansParams, passes: SamplePasses, rows: Rows) -> SoftKMeansParams:
    """Repeat the rule for β until it changes no more."""
    for _ in range(MOST_LEVELS):
        beta = _likeliest_beta(model, params, rows)
        if abs(beta - params.beta) <= BETA_TOLERANCE * params.beta:
            break
        params = passes.converge(model, [replace(params, beta=beta)], _TOLERANCE, _MOST_PASSES)[0].params
    return params


def _distinct(centers: Array, apart: float) -> int:
    """Count centers ``(k, d)`` that are no nearer to an earlier one than `apart`, squared."""
    kept: list[Array] = []
    for center in centers:
        if all(float(np.sum((center - other) ** 2)) > apart for other in kept):
            kept.append(center)
    return len(kept)
