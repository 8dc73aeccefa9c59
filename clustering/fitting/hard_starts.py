"""Hard clusters to start from: the best restarts on the row sample, means of labelled rows, or centers of the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from clustering.fitting.on_sample import sample_passes, threads_for
from clustering.fitting.options import Options
from clustering.fitting.race import number_of_restarts, plan_race
from clustering.fitting.seeding import Init, as_centers, generators, seed_centers, seeding_rows
from clustering.models import divergences as geometry
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.kmeans_statistics import KMeansStatistics
from clustering.models.missing_features import fill_missing
from clustering.models.model import AnyModel
from clustering.models.objective import rank_candidates
from clustering.models.starts import MOST_SAMPLE_PASSES
from clustering.models.survey import RowSample, Survey

Array = NDArray[np.float64]

RESTART_ROWS = 25_000
"""Number of sampled rows on which restarts compete that are all wanted; 50 rows per cluster where that is more."""


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
    ends = race_restarts(hard_model, survey, options, runner.engine)
    # Later passes go over all rows, whose total scatter bounds J again.
    return [replace(end.params, total_scatter=at_origin.total_scatter) for end in ends[: options.finalists]], None


def race_restarts(hard_model: KMeans, survey: Survey, options: Options, engine: Engine) -> list[Candidate]:
    """Seed restarts, and let them race on more and more rows of the sample; the least J of the finalists comes first.

    Parameters
    ----------
    hard_model
        Hard k-means with the divergence of the start.
    survey
        Survey of the prepared rows.
    options
        How to fit.
    engine
        Engine that seeds the restarts side by side.

    Raises
    ------
    DataError
        If fewer than k rows differ.
    """
    race = plan_race(options.fit, hard_model.k, survey)
    # Rows of a stage are taken from those of the next, which are fewer to look through than the whole sample.
    parts = [survey.sample.highest(race[-1].rows)]
    for stage in reversed(race[:-1]):
        parts.append(parts[-1].highest(stage.rows))
    params = seed_restarts(hard_model, survey, parts[-1], race[0].candidates, options, engine)
    ends: Sequence[Candidate] = ()
    for stage, part in zip(race, reversed(parts), strict=True):
        # The order of the starts stays, because it decides among equal ones.
        params = [end.params for end in _keep_best(ends, stage.candidates)] if ends else params
        with sample_passes(part, engine) as sample:
            ends = sample.converge(hard_model, params, stage.tolerance, stage.passes)
    return rank_candidates(ends)


def _keep_best(ends: Sequence[Candidate], most: int) -> list[Candidate]:
    """Keep the candidates of the least J, in the order of their starts."""
    best = rank_candidates(ends)[:most]
    return [end for end in ends if any(end is kept for kept in best)]


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
    params = seed_restarts(
        hard_model, survey, restart_rows, number_of_restarts(options.fit, hard_model.k, survey), options, engine
    )
    with sample_passes(restart_rows, engine) as runner:
        return rank_candidates(runner.converge(hard_model, params, tolerance, MOST_SAMPLE_PASSES))


def seed_restarts(
    hard_model: KMeans, survey: Survey, rows: RowSample, restarts: int, options: Options, engine: Engine
) -> list[KMeansParams]:
    """Choose the centers that each restart begins with among some rows.

    Parameters
    ----------
    hard_model
        Hard k-means with the divergence of the start.
    survey
        Survey of the prepared rows.
    rows
        Rows of the sample.
    restarts
        Number of restarts.
    options
        How to fit; gives the seed and the kind of seeding.
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
    points = embed(fill_missing(rows.values, survey.mean))
    spare = embed(fill_missing(survey.distinct.values, survey.mean))
    init: Init = "random" if options.fit.init == "random" else "kmeans++"
    seed_one = partial(seed_centers, seeding_rows(points, rows.represented), k, init, spare)
    # Each restart has a stream of its own, so its draws do not depend on which restart runs first.
    with threads_for(engine) as local:
        starts = apply_to_each(seed_one, generators(options.fit.seed, restarts), local)
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
    return [replace(at_origin, centers=centers, total_scatter=np.inf) for centers in released]


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
