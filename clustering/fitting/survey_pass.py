"""Pass 0: makes the survey of the rows and the row sample, and refuses data that cannot be clustered."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.data.excluded_rows import explain_excluded_rows, explain_no_rows
from clustering.data.plan import MIB, Plan
from clustering.data.preparation import only_unit_norm
from clustering.data.source import Source
from clustering.errors import DataError
from clustering.execution.passes import PassResult, PassRunner
from clustering.fitting.options import Options
from clustering.fitting.preprocessing import (
    scatter_refusal,
)
from clustering.models import divergences as geometry
from clustering.models.option_names import Divergence
from clustering.models.survey import WIDEST_COVARIANCE, Survey, SurveyModel, priority_floor
from clustering.options import PreprocessOptions

Array = NDArray[np.float64]

SAMPLE_BYTES = 128 * MIB
"""Largest size of the row sample, in bytes. It does not depend on the memory of a worker, as no result may."""
SIDE_SHARE = 32
"""Samples of parts may take one part in this many of a worker's memory before they are joined."""
SAMPLE_SHARE = 16
"""The row sample should take at most one part in this many of a worker's memory, as restarts copy it."""
ROWS_OF_CLUSTER = 50
"""Sampled rows of each cluster that are enough. Otherwise the sample has to be half full at least."""
LEAST_RANGE = 2.0**-460
"""Least range of a feature. Below it, squares of differences lose digits or underflow to zero."""


class SurveyNeeds(Protocol):
    """What pass 0 has to know of the models that start from it; a model says so of itself."""

    @property
    def k(self) -> int:
        """Largest number of clusters."""

    @property
    def start_divergence(self) -> Divergence | None:
        """Divergence whose domain the rows have to be in; None where there are several, which are checked later."""

    @property
    def start_needs_covariance(self) -> bool:
        """Whether a start uses the covariance of all rows."""


def sample_limit(source: Source, options: Options) -> int:
    """Return the largest number of sampled rows: `FitOptions.sample_rows`, or as many as `SAMPLE_BYTES` hold.

    Parameters
    ----------
    source
        Data to cluster.
    options
        How to fit.
    """
    return min(options.fit.sample_rows, SAMPLE_BYTES // sampled_row_bytes(source, options))


def sampled_row_bytes(source: Source, options: Options) -> int:
    """Return the size of a sampled row, in bytes.

    Parameters
    ----------
    source
        Data to cluster.
    options
        How to fit.
    """
    # Decoded rows may be in single precision; prepared rows are in double precision.
    return max(source.row_bytes, 8 * source.n_features if options.preprocess.requested else 1)


def few_rows(source: Source, plan: Plan, *, refused: bool = False) -> bool:
    """Return whether there are so many features and so few rows that all rows take less room than the full scatter.

    Parameters
    ----------
    source
        Data to cluster.
    plan
        Blocks of pass 0, which count the cells.
    refused
        Whether the scatter does not fit into memory. A source with a mask then counts as one with few rows, as only
        pass 0 can count them.
    """
    d = source.n_features
    return d > WIDEST_COVARIANCE and (plan.cells < d or (refused and source.mask is not None))


def makes_full_scatter(model: SurveyNeeds, preprocess: PreprocessOptions, d: int, *, few: bool) -> bool:
    """Return whether pass 0 makes the full scatter: where preprocessing or the start of the model uses covariances.

    Parameters
    ----------
    model
        The model to fit.
    preprocess
        How rows are prepared.
    d
        Number of features.
    few
        Whether principal components follow from the rows, as `few_rows` tells.
    """
    by_preprocessing = preprocess.needs_covariance and not few
    return by_preprocessing or (model.start_needs_covariance and d <= WIDEST_COVARIANCE)


def fitted_share(runner: PassRunner, options: Options) -> float:
    """Return the share of the cells that a fit goes over, where none is masked.

    Parameters
    ----------
    runner
        Pass runner of the fit, which may hold blocks out.
    options
        How to fit; gives the fraction of drawn rows.
    """
    return options.fit.fraction * (1.0 if runner.held_out is None else 1.0 - 1.0 / runner.held_out.every)


def run_survey(
    runner: PassRunner, model: SurveyNeeds, options: Options, memory: int, least_k: int | None = None
) -> tuple[Survey, PassResult]:
    """Make pass 0, and check that the rows can form k clusters.

    Parameters
    ----------
    runner
        Runs passes over decoded rows.
    model
        The model to fit.
    options
        How to fit.
    memory
        Memory budget of a worker, in bytes.
    least_k
        Number of distinct rows that there must be; k of the model where None.

    Returns
    -------
    Survey
        Survey of the decoded rows, or of rows of length 1 where ``unit_norm`` is set.
    PassResult
        Reads and time of pass 0; of both passes where it had to be repeated.

    Raises
    ------
    DataError
        If no row takes part, all weights are zero, fewer than k rows differ, numbers are too large or too small for
        float64, or the scatter does not fit into memory.
    """
    k, d, preprocess = model.k, runner.source.n_features, options.preprocess
    # Seeding needs k rows, however large a row is.
    m = min(options.fit.sample_rows, max(k, sample_limit(runner.source, options)))
    even = runner.source.weights is None and runner.source.mask is None
    # Rows below the floor are never sent to be merged. With weights or a mask, no floor can be chosen beforehand.
    floor = priority_floor(int(runner.plan.cells * fitted_share(runner, options)), m) if even else 0.0
    # The domain of a divergence concerns prepared rows. Where the mean is subtracted, decoded rows are not checked.
    divergence: Divergence = (not preprocess.removes_mean and model.start_divergence) or "squared_euclidean"
    refusal = scatter_refusal(d, runner.plan, runner.engine, memory) if preprocess.needs_covariance else None
    # With fewer rows than features, principal components follow from the rows, if the sample holds all of them.
    few = preprocess.needs_covariance and few_rows(runner.source, runner.plan, refused=refusal is not None)
    if refusal is not None and not few:
        raise DataError(refusal)
    allow_missing = runner.source.missing == "marginalize"
    full_scatter = makes_full_scatter(model, preprocess, d, few=few)
    survey_model = SurveyModel(
        options.fit.seed, m, k, floor, divergence, allow_missing, full_scatter, memory // SIDE_SHARE
    )
    if preprocess.unit_norm:
        runner = replace(runner, preparation=only_unit_norm(d))
    result = runner.run([survey_model.statistics])
    survey: Survey = result.statistics[0]
    if floor and len(survey.sample.weights) < min(m, max(m // 2, ROWS_OF_CLUSTER * k), survey.count):
        # Most cells turned out to be missing, and too few rows reached the floor. A pass without it fills the sample.
        again = runner.run([replace(survey_model, floor=0.0).statistics])
        survey = again.statistics[0]
        result = PassResult((survey,), result.read_stats + again.read_stats, result.seconds + again.seconds)
    # The rows turned out to be too many after all, so the full scatter is needed.
    if few and survey.n_positive and not (survey.sample.complete and survey.n_positive < d):
        if refusal is not None:
            raise DataError(refusal)
        again = runner.run([replace(survey_model, floor=0.0, full_scatter=True).statistics])
        survey = again.statistics[0]
        result = PassResult((survey,), result.read_stats + again.read_stats, result.seconds + again.seconds)
    if survey.count == 0 and options.row_fraction is not None:
        raise DataError(
            f"fraction is {options.fit.fraction:g}, and none of the rows of {survey.cells} cells was drawn; "
            "raise fit.fraction, or check source.mask and the fill values"
        )
    if survey.count == 0:
        raise DataError(explain_no_rows(runner.source, runner.plan, zeros=bool(survey.zero_rows)))
    if survey.weight <= 0:
        raise DataError(f"the weights of all {survey.count} rows are zero; check source.weights")
    if survey.observed is not None and not (survey.observed > 0.0).all():
        feature = runner.source.features[int(np.argmin(survey.observed))]
        raise DataError(
            f"feature {feature} of variable {feature.variable!r} is missing in every row; leave it out with "
            "source.select or source.variables"
        )
    with np.errstate(over="ignore"):
        # Where weights are small, the variance may overflow although the scatter does not.
        bounded = np.isfinite(survey.scatter).all() and np.isfinite(survey.variance.sum())
    if not bounded:
        raise DataError(
            f"the values reach {max(-survey.least.min(), survey.greatest.max()):.3g}, "
            "and their squares overflow float64; rescale the data"
        )
    if model.start_divergence is not None:
        check_range(survey, model.start_divergence, preprocess, runner.source)
    least_k = k if least_k is None else least_k
    if len(survey.distinct.digests) < least_k:
        # Excluded rows may be the reason why so few rows differ.
        causes = explain_excluded_rows(runner.source, runner.plan) if survey.count < survey.cells else ()
        raise DataError("; ".join((few_distinct_rows(least_k, survey, options), *causes)))
    # The joined sample replaces its parts, which may hold the memory of whole blocks.
    return replace(survey, samples=(survey.sample,)), result


def few_distinct_rows(k: int, survey: Survey, options: Options) -> str:
    """Say that there are fewer distinct rows than clusters.

    Parameters
    ----------
    k
        Number of clusters.
    survey
        Survey with fewer distinct rows.
    options
        How to fit.
    """
    distinct = len(survey.distinct.digests)
    remedy = "lower k" + (", or raise fit.fraction" if options.row_fraction is not None else "")
    return f"k is {k} and the data have {distinct} distinct row{'s' * (distinct != 1)} of positive weight; {remedy}"


def check_range(survey: Survey, divergence: Divergence, preprocess: PreprocessOptions, source: Source) -> None:
    """Refuse rows whose differences are so small that squared distances or logarithms would underflow.

    Parameters
    ----------
    survey
        Survey of the decoded rows.
    divergence
        Divergence of the model.
    preprocess
        How rows are prepared.
    source
        Data to cluster, for the names of features.

    Raises
    ------
    DataError
        Naming the values.
    """
    apart = np.where(survey.greatest > survey.least, survey.greatest - survey.least, 0.0)
    if preprocess.standardize == "per_feature":
        # Each feature is divided by its own standard deviation, so each must have a large enough range.
        low = np.flatnonzero((apart > 0.0) & (apart < LEAST_RANGE))
        if len(low):
            feature = source.features[low[0]]
            raise DataError(
                f"feature {feature} of variable {feature.variable!r}: its values differ by {apart[low[0]]:.3g} at "
                "most, and their squares underflow float64; rescale the data"
            )
    squared = geometry.is_translation_invariant(divergence) or preprocess.requested
    if squared and 0.0 < apart.max() < LEAST_RANGE:
        raise DataError(
            f"the values differ by {apart.max():.3g} at most, and their squares underflow float64; rescale the data"
        )
    _check_logarithms(survey, divergence)


def _check_logarithms(survey: Survey, divergence: str) -> None:
    """Refuse numbers below the normal range of float64, where divergences of ratios lose their digits."""
    # For kullback_leibler large features decide, so the greatest value counts. For itakura_saito every feature counts
    # by its own ratio, so the least value counts.
    small = {"kullback_leibler": survey.greatest.max(), "itakura_saito": survey.least.min()}.get(divergence, 0.0)
    if 0.0 < small < geometry.TINY:
        raise DataError(
            f"the values go down to {small:.3g}, and {divergence} needs {geometry.TINY:.3g} or more in float64; "
            "rescale the data"
        )
