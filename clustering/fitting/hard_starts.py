"""Hard clusters to start from: the best restarts on the row sample, means of labelled rows, or centers of the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.preparation import Preparation
from clustering.errors import ConfigError, DataError, DomainError
from clustering.execution.engine import Engine
from clustering.execution.map_reduce import apply_to_each
from clustering.execution.passes import PassResult, PassRunner
from clustering.fitting.loop import Candidate
from clustering.fitting.on_sample import sample_passes
from clustering.fitting.options import Options
from clustering.fitting.seeding import Init, as_centers, generators, seed_centers, seeding_rows
from clustering.models import divergences as geometry
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.kmeans_statistics import KMeansStatistics
from clustering.models.missing_features import fill_missing
from clustering.models.model import AnyModel
from clustering.models.objective import rank_candidates
from clustering.models.starts import MOST_SAMPLE_PASSES, RESTART_TOLERANCE
from clustering.models.survey import RowSample, Survey
from clustering.options import DEFAULT_RESTARTS, MANY_CLUSTERS, FitOptions

Array = NDArray[np.float64]

SAMPLE_TOLERANCE = 1e-5
"""Least relative change of the objective at which finalists stop on the sample: below it they follow what sets the
sample apart from all rows, and save no passes over these."""
RESTART_ROWS = 25_000
"""Number of sampled rows on which restarts compete; 50 rows per cluster where that is more."""
LEAST_RESTARTS = 2
"""Least default number of restarts."""
SEEDING_PASSES, SAMPLE_PASSES, FULL_PASSES = 10, 20, 15
"""Passes that the seeding of a restart costs as much as, those that it usually makes over the restart rows, and those
over all rows that starts may cost."""
FEW_PRODUCTS = 2e10
"""Products that starts may always cost, which take about a second."""


def params_at_origin(model: AnyModel, survey: Survey) -> KMeansParams:
    """Make params of hard clusters with all centers at the origin.

    Parameters
    ----------
    model
        The model that starts from hard clusters; gives k and the divergence.
    survey
        Survey of the prepared rows.
    """
    divergence = model.start_divergence
    origin = geometry.choose_origin(divergence, survey.origin)
    matrix = geometry.whitening(divergence, survey.covariance)
    # The total scatter bounds J only for squared Euclidean distances, and only where no feature is missing.
    has_total_scatter = divergence == "squared_euclidean" and survey.observed is None
    total_scatter = (
        float(np.sum(survey.variance + (survey.mean - origin) ** 2) * survey.weight) if has_total_scatter else np.inf
    )
    return KMeansParams(origin, np.zeros((model.k, len(origin))), total_scatter, matrix)


def hard_clusters(
    runner: PassRunner, model: AnyModel, survey: Survey, options: Options, preparation: Preparation | None
) -> tuple[list[KMeansParams], PassResult | None]:
    """Choose the hard clusters to start from.

    Parameters
    ----------
    runner
        Runs the pass over the full data that a start from labels needs.
    model
        The model to start.
    survey
        Survey of the prepared rows.
    options
        How to fit.
    preparation
        Preparation of the rows; None where they are taken as decoded.

    Returns
    -------
    list of KMeansParams
        One for each finalist, the best first; a single one for starts from labels or given centers.
    PassResult or None
        Result of the pass over labelled rows; None where no pass was made.
    """
    at_origin, hard_model = params_at_origin(model, survey), KMeans(model.k, model.start_divergence)
    if options.fit.uses_labels:
        labelled = runner.run([partial(hard_model.labelled_statistics, at_origin)])
        return [_class_means(model, at_origin, labelled.statistics[0])], labelled
    if not options.fit.draws_starts:
        return [_user_centers(model, survey, options.fit.init, preparation)], None
    restart_rows = restart_sample(survey, model.k)
    # Restarts only have to show which starts are good, so a coarse tolerance is enough.
    ranked_restarts = run_restarts(
        hard_model, survey, restart_rows, options, max(RESTART_TOLERANCE, options.rule.tolerance), runner.engine
    )
    # Finalists run on the whole sample, to a finer tolerance, which saves passes over the full data.
    best = [candidate.params for candidate in ranked_restarts[: options.finalists]]
    with sample_passes(survey.sample, runner.engine) as sample:
        tolerance = min(RESTART_TOLERANCE, max(SAMPLE_TOLERANCE, options.rule.tolerance))
        ends = sample.converge(hard_model, best, tolerance, MOST_SAMPLE_PASSES)
    # Later passes go over all rows, whose total scatter bounds J again.
    return [replace(end.params, total_scatter=at_origin.total_scatter) for end in ends], None


def restart_sample(survey: Survey, k: int) -> RowSample:
    """Return the sampled rows on which restarts compete: those of highest priority, which are a row sample again.

    Parameters
    ----------
    survey
        Survey of the prepared rows.
    k
        Number of clusters.
    """
    return survey.sample.highest(max(RESTART_ROWS, 50 * k))


def number_of_restarts(options: FitOptions, k: int, survey: Survey) -> int:
    """Return the number of restarts: that of the user, or one that costs no more than the passes over all rows.

    It follows from sizes alone, so that no result depends on the speed of a machine.

    Parameters
    ----------
    options
        How to fit.
    k
        Number of clusters.
    survey
        Survey of the prepared rows.
    """
    if options.restarts is not None:
        return options.restarts
    if k < MANY_CLUSTERS:
        return DEFAULT_RESTARTS
    d = len(survey.mean)
    rows = len(restart_sample(survey, k).weights)
    restart = k * d * rows * (SEEDING_PASSES + SAMPLE_PASSES)
    allowed = max(k * d * survey.count * FULL_PASSES, FEW_PRODUCTS)
    return int(np.clip(allowed // restart, max(LEAST_RESTARTS, options.finalists or 1), DEFAULT_RESTARTS))


def run_restarts(
    hard_model: KMeans, survey: Survey, restart_rows: RowSample, options: Options, tolerance: float, engine: Engine
) -> list[Candidate]:
    """Seed every restart and run Lloyd's algorithm on the restart rows; the least J comes first.

    Parameters
    ----------
    hard_model
        Hard k-means with the divergence of the start.
    survey
        Survey of the prepared rows.
    restart_rows
        Rows on which the restarts compete, as `restart_sample` returns them.
    options
        How to fit; gives seed, number of restarts and kind of seeding.
    tolerance
        Relative change of the objective at which a restart stops; 0 runs it until no assignment changes.
    engine
        Engine that seeds the restarts side by side.

    Raises
    ------
    DataError
        If fewer than k rows differ.
    """
    k, divergence = hard_model.k, hard_model.divergence
    at_origin = params_at_origin(hard_model, survey)
    embed = partial(geometry.embed, divergence, origin=at_origin.origin, matrix=at_origin.matrix)
    # Seeding works on Euclidean distances, so rows are placed where these are near the root of the divergence.
    rows = embed(fill_missing(restart_rows.values, survey.mean))
    spare = embed(fill_missing(survey.distinct.values, survey.mean))
    init: Init = "random" if options.fit.init == "random" else "kmeans++"
    seed_one = partial(seed_centers, seeding_rows(rows, restart_rows.represented), k, init, spare)
    with sample_passes(restart_rows, engine) as runner:
        # Each restart has a stream of its own, so its draws do not depend on which restart runs first.
        streams = generators(options.fit.seed, number_of_restarts(options.fit, k, survey))
        starts = apply_to_each(seed_one, streams, runner.runner.engine)
        # Pass 0 found k distinct rows, but rows may become equal by rounding or in direction.
        if any(len(centers) < k for centers in starts):
            if divergence == "cosine":
                raise DataError(
                    f"k is {k} and fewer rows differ in direction, and the cosine compares nothing else; lower k"
                )
            raise DataError(
                f"k is {k} and fewer rows differ after the mean is subtracted, in float64: the values span too many "
                "orders of magnitude; lower k, or rescale the data"
            )
        released = [geometry.unembed(divergence, centers, at_origin.matrix) for centers in starts]
        # The total scatter is that of all rows. It is no bound for J on a sample.
        seeded = [replace(at_origin, centers=centers, total_scatter=np.inf) for centers in released]
        restarts = runner.converge(hard_model, seeded, tolerance, MOST_SAMPLE_PASSES)
    return rank_candidates(restarts)


def _class_means(model: AnyModel, at_origin: KMeansParams, labelled: KMeansStatistics) -> KMeansParams:
    """Make centers of the means of the rows of each label."""
    empty = np.flatnonzero(labelled.weight <= 0.0)
    if len(empty):
        raise DataError(
            f"no row of positive weight has label {empty[0]}; a start from labels needs all of 0 … {model.k - 1}; "
            "lower model.k, or label a row of each cluster"
        )
    # With missing features, each feature has its own weight of observed rows.
    weight = labelled.observed if labelled.observed.size else labelled.weight
    divergence = model.start_divergence
    centers = geometry.update_centers(divergence, weight, labelled.first, at_origin.centers)
    lost = np.flatnonzero(~centers.any(axis=1)) if divergence == "cosine" else empty
    if len(lost):
        raise DataError(
            f"the rows of label {lost[0]} point everywhere, so that their directions have no mean, which the cosine "
            "needs; label other rows, or choose another model.divergence"
        )
    return replace(at_origin, centers=centers)


def _user_centers(model: AnyModel, survey: Survey, init: Any, preparation: Preparation | None) -> KMeansParams:
    """Check the centers that a user gave in the data's units, and prepare them as the rows."""
    at_origin = params_at_origin(model, survey)
    d = len(at_origin.origin) if preparation is None else len(preparation.offset)
    centers = as_centers(init["centers"] if isinstance(init, Mapping) else init, model.k, d)
    if preparation is not None:
        centers = preparation.to_prepared(centers)
    divergence = model.start_divergence
    try:
        geometry.check_domain(divergence, centers)
    except DomainError as error:
        raise ConfigError(f"init holds {error}") from None
    # Finite centers may still be so far from the data that their squared distances are infinite.
    shifted = centers - at_origin.origin
    with np.errstate(over="ignore"):
        reach = np.square(shifted).sum(axis=1)
    if geometry.is_translation_invariant(divergence) and not np.isfinite(reach).all():
        far = int(np.argmin(np.isfinite(reach)))
        raise ConfigError(
            f"starting center {far} reaches {np.abs(centers[far]).max():.3g}, and the squares of distances overflow "
            "float64; give centers among the data, or rescale both"
        )
    return replace(at_origin, centers=geometry.unit_rows(shifted) if divergence == "cosine" else shifted)
