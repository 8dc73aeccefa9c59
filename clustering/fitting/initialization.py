"""From pass 0 to the candidates that go over the full data: seeding and restarts on the sample in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clustering.data.excluded_rows import explain_excluded_rows, explain_no_rows
from clustering.data.plan import MIB, Plan
from clustering.data.preparation import Preparation, only_unit_norm
from clustering.data.source import Source
from clustering.errors import ConfigError, DataError
from clustering.execution.engine import Engine
from clustering.execution.fraction import RowFraction
from clustering.execution.passes import PassResult, PassRunner, ReadStats
from clustering.fitting.annealing import anneal, critical_value
from clustering.fitting.loop import Candidate, State, StoppingRule, apply_limits, rank_candidates
from clustering.fitting.mixture_starts import likeliest
from clustering.fitting.on_sample import converge, sample_passes
from clustering.fitting.preprocessing import (
    Preprocess,
    fit_preparation,
    prepare_survey,
    scatter_refusal,
    zero_row_notes,
)
from clustering.fitting.seeding import Init, as_centers, fill_missing, generators, seed_centers
from clustering.models import covariances as kinds
from clustering.models import divergences as geometry
from clustering.models.kmeans import KMeans, KMeansParams, KMeansStatistics
from clustering.models.mixture import GaussianMixture
from clustering.models.mixture_params import MixtureParams
from clustering.models.option_names import Divergence
from clustering.models.parameters import starting_covariances
from clustering.models.soft_kmeans import SoftKMeans
from clustering.models.survey import WIDEST_COVARIANCE, RowSample, Survey, SurveyModel, priority_floor

Array = NDArray[np.float64]

RESTART_ROWS = 25_000
"""Rows of the nested sample on which restarts compete, or 200 per cluster where that is more."""
RESTART_TOLERANCE = 1e-4
FINALIST_PASSES = 300
STARTS_SHARE = 0.5
"""Of the seconds that a fit may take, those for restarts of a mixture."""
SAMPLE_BYTES = 128 * MIB
"""The row sample is no larger, whatever memory there is: memory decides nothing that a fit ends with."""
SAMPLE_SHARE = 16
"""Of a worker's memory, the sample takes one part in this many and leaves room for what is made of it."""
LEAST_RANGE = 2.0**-460
"""Where no feature has values farther apart, squares of smaller differences lose digits, or are zero."""


@dataclass(frozen=True)
class Options:
    """How to fit; see the keys of `fit` in the config.

    Raises
    ------
    ConfigError
        For a value outside its range.
    """

    seed: int = 0
    restarts: int = 10
    """Starts that compete on the sample."""
    finalists: int = 1
    """Best of them carried to the full data."""
    sample_rows: int = 200_000
    init: Init | Literal["labels"] | NDArray[Any] | Mapping[str, Any] = "kmeans++"
    """``kmeans++``, ``random``, or ``labels``: the clusters known for some rows. Or, which no restart competes with,
    centers ``(k, d)`` in the data's units, or ``{centers, weights, covariances}`` of a mixture, as a fit gives them."""
    rule: StoppingRule = field(default_factory=StoppingRule)
    fraction: float = 1.0
    """Share of the rows, drawn at random, that pass 0 and the passes go over; labels are for all."""
    preprocess: Preprocess = field(default_factory=Preprocess)
    """What is done to rows first."""

    def __post_init__(self) -> None:
        for name, least in (("restarts", 1), ("finalists", 1), ("sample_rows", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ConfigError(f"{name} is {value!r}; a whole number of {least} or more is needed")
        if self.seed >= 2**63:
            raise ConfigError(f"seed is {self.seed}; a whole number below 2**63 is needed")
        if self.finalists > self.restarts:
            raise ConfigError(
                f"finalists is {self.finalists} and restarts is {self.restarts}; there cannot be more finalists"
            )
        if isinstance(self.init, str) and self.init not in ("kmeans++", "random", "labels"):
            raise ConfigError(
                f"init is {self.init!r}; allowed: kmeans++, random, labels, or an array of centers (k, d)"
            )
        number = isinstance(self.fraction, (int, float, np.number)) and not isinstance(self.fraction, bool)
        if not number or not 0.0 < self.fraction <= 1.0:
            raise ConfigError(f"fraction is {self.fraction!r}; a number above 0 and up to 1 is needed")

    @property
    def draws_starts(self) -> bool:
        """Whether starts are drawn, so that which cluster is which says nothing."""
        return isinstance(self.init, str) and self.init != "labels"

    @property
    def row_fraction(self) -> RowFraction | None:
        """Which rows take part in the fit; None: all."""
        return None if self.fraction == 1.0 else RowFraction(float(self.fraction), int(self.seed))


@dataclass(frozen=True, eq=False)
class Initialization:
    """What is known before the first pass."""

    survey: Survey
    """Of the rows in the data's units."""
    state: State
    read_stats: ReadStats
    """Read so far: pass 0, and what a start from full data takes."""
    seconds: float
    """Of that, the passes over the full data took this wall time, in seconds."""
    remarks: tuple[str, ...] = ()
    """What was chosen on the way."""
    warnings: tuple[str, ...] = ()
    preparation: Preparation | None = None
    """What the passes have to put rows through; None: they take them as decoded."""


def initialize(runner: PassRunner, model: Any, options: Options, memory: int) -> Initialization:
    """Make pass 0, and choose the candidates for the full data.

    Restarts of hard clustering compete by J on a nested sample, mixtures that start from their clusters by likelihood.
    The best are then run on the whole sample, so that the full data are passed over a few times only.

    Parameters
    ----------
    memory
        Memory budget of a worker, in bytes: what does not fit is refused. It changes nothing else.

    Raises
    ------
    ConfigError
        If a start that the user gives does not fit.
    DataError
        If no row takes part, all weights are zero, or k is above the number of distinct rows.
    """
    began = time.perf_counter()
    check_combination(runner.source, model, options)
    surveyed, result = run_survey(runner, model, options, memory)
    reading, seconds = result.read_stats, result.seconds
    remarks: tuple[str, ...] = ()
    prepared_survey, preparation = surveyed, fit_preparation(options.preprocess, surveyed, runner.source)
    if preparation is not None:
        prepared_survey = prepare_survey(surveyed, preparation, model.initial_model.divergence)
        runner = replace(runner, preparation=preparation)
        remarks = (f"preprocessing: {preparation.words}",)
    # Where a part of the rows is drawn, the labels tell how many of all are left out.
    warnings = zero_row_notes(surveyed.zero_rows if options.row_fraction is None else 0)
    most = surveyed.count * 2 < surveyed.cells * _fitted_share(runner, options)
    warnings = (*warnings, *(explain_excluded_rows(runner.source, runner.plan) if most else ()))
    params: list[Any] = []
    if isinstance(model, GaussianMixture) and options.draws_starts:
        params = _mixtures_on_sample(model, prepared_survey, options, runner.engine)
    if not params:
        hard_params, labelled = _hard_clusters(runner, model, prepared_survey, options, preparation)
        if labelled is not None:
            reading, seconds = reading + labelled.read_stats, seconds + labelled.seconds
        params = list(hard_params)
        if isinstance(model, SoftKMeans):
            if model.beta == "auto":
                annealed = anneal(model, prepared_survey, runner.engine, hard_params)
                params, remarks = [annealed.params], (*remarks, annealed.note)
            else:
                params = [model.from_hard_clusters(start, float(model.beta)) for start in hard_params]
                warnings = (*warnings, *_low_beta_warning(model, prepared_survey))
                if options.draws_starts:
                    params = _converged(model, params, prepared_survey.sample, options.rule.tolerance, runner.engine)
        elif isinstance(model, GaussianMixture) and isinstance(options.init, Mapping):
            covariances = _user_covariances(model, options.init, preparation)
            params = [
                model.params_from_user(
                    prepared_survey,
                    options.init["weights"],
                    hard_params[0].origin + hard_params[0].centers,
                    covariances,
                )
            ]
        elif isinstance(model, GaussianMixture):
            initial_moments = runner.run(
                [
                    partial(model.initial_moments, start, prepared_survey.variance, _uses_labels(options))
                    for start in hard_params
                ]
            )
            pairs = zip(hard_params, initial_moments.statistics, strict=True)
            params = [model.initial_params(prepared_survey, start, statistics) for start, statistics in pairs]
            reading, seconds = reading + initial_moments.read_stats, seconds + initial_moments.seconds
    state = State(tuple(Candidate(start) for start in params), seconds=time.perf_counter() - began)
    return Initialization(surveyed, apply_limits(state, options.rule), reading, seconds, remarks, warnings, preparation)


def _fitted_share(runner: PassRunner, options: Options) -> float:
    """Give the share of the cells that a fit goes over, where none is masked."""
    return options.fraction * (1.0 if runner.held_out is None else 1.0 - 1.0 / runner.held_out.every)


def _uses_labels(options: Options) -> bool:
    return isinstance(options.init, str) and options.init == "labels"


def _low_beta_warning(model: SoftKMeans, survey: Survey) -> tuple[str, ...]:
    """Warn of a β at which no center can differ from another."""
    if model.k == 1 or model.divergence != "squared_euclidean":
        return ()
    critical = critical_value(model.divergence, survey.covariance)
    if float(model.beta) >= critical:
        return ()
    return (
        f"beta is {model.beta:g}, below the critical value {critical:.4g} of these data: all centers become one; "
        "raise beta, or set it to auto",
    )


def check_combination(source: Source, model: Any, options: Options) -> None:
    """Refuse what cannot go together, before anything is read.

    Raises
    ------
    ConfigError
        Naming both.
    """
    if source.missing == "marginalize" and getattr(model, "divergence", "squared_euclidean") != "squared_euclidean":
        raise ConfigError(
            f"missing is 'marginalize' and divergence is {model.divergence!r}; only squared_euclidean leaves out "
            "single features; set source.missing to 'drop'"
        )
    options.preprocess.check(source, model.initial_model.divergence)
    if _uses_labels(options) and source.labels is None:
        raise ConfigError("init is 'labels' and no labels are named; set source.labels to a variable of known clusters")
    if isinstance(options.init, Mapping):
        keys = {"centers", "weights", "covariances"}
        if not isinstance(model, GaussianMixture) or not {"centers", "weights"} <= set(options.init) <= keys:
            raise ConfigError(
                f"init has the keys {', '.join(map(str, options.init))}; a mixture starts from centers, weights and "
                "covariances, other models from an array of centers"
            )


def sample_limit(source: Source, options: Options) -> int:
    """Rows of the sample at most: as many as are asked for, or as `SAMPLE_BYTES` hold."""
    return min(options.sample_rows, SAMPLE_BYTES // sampled_row_bytes(source, options))


def sampled_row_bytes(source: Source, options: Options) -> int:
    """Size of a row of the sample, in bytes."""
    # Prepared rows of the sample are in double precision.
    return max(source.row_bytes, 8 * source.n_features if options.preprocess.requested else 1)


def few_rows(source: Source, plan: Plan, *, refused: bool = False) -> bool:
    """Tell whether rows are so few, and features so many, that the full scatter of pass 0 would be the larger.

    Parameters
    ----------
    refused
        Whether the scatter has no room; then a mask is given the chance to leave few rows.
    """
    d = source.n_features
    return d > WIDEST_COVARIANCE and (plan.cells < d or (refused and source.mask is not None))


def run_survey(runner: PassRunner, model: Any, options: Options, memory: int) -> tuple[Survey, PassResult]:
    """Make pass 0 and check that k clusters can be found."""
    k, d, preprocess = model.k, runner.source.n_features, options.preprocess
    m = min(options.sample_rows, max(k, sample_limit(runner.source, options)))
    even = runner.source.weights is None and runner.source.mask is None
    floor = priority_floor(int(runner.plan.cells * _fitted_share(runner, options)), m) if even else 0.0
    # Before the mean is taken off, nothing tells whether a divergence is defined.
    divergence: Divergence = "squared_euclidean" if preprocess.removes_mean else model.initial_model.divergence
    refusal = scatter_refusal(d, runner.plan, runner.engine, memory) if preprocess.needs_covariance else None
    # Principal components of few rows follow from the rows, where the sample has them all.
    few = preprocess.needs_covariance and few_rows(runner.source, runner.plan, refused=refusal is not None)
    if refusal is not None and not few:
        raise DataError(refusal)
    allow_missing, full_scatter = runner.source.missing == "marginalize", preprocess.needs_covariance and not few
    survey_model = SurveyModel(options.seed, m, k, floor, divergence, allow_missing, full_scatter)
    if preprocess.unit_norm:
        runner = replace(runner, preparation=only_unit_norm(d))
    result = runner.run([survey_model.statistics])
    survey: Survey = result.statistics[0]
    if floor and len(survey.sample.weights) < min(m, survey.count):
        # Most cells turned out to be missing: without a floor the sample gets its rows.
        again = runner.run([replace(survey_model, floor=0.0).statistics])
        survey = again.statistics[0]
        result = PassResult((survey,), result.read_stats + again.read_stats, result.seconds + again.seconds)
    if few and survey.n_positive and not (survey.sample.complete and survey.n_positive < d):
        if refusal is not None:
            raise DataError(refusal)
        again = runner.run([replace(survey_model, floor=0.0, full_scatter=True).statistics])
        survey = again.statistics[0]
        result = PassResult((survey,), result.read_stats + again.read_stats, result.seconds + again.seconds)
    if survey.count == 0 and options.row_fraction is not None:
        raise DataError(
            f"fraction is {options.fraction:g}, and none of the rows of {survey.cells} cells was drawn; "
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
        # The variance of rows of small weight may be beyond float64 where their scatter is not.
        bounded = np.isfinite(survey.scatter).all() and np.isfinite(survey.variance.sum())
    if not bounded:
        raise DataError(
            f"the values reach {max(-survey.least.min(), survey.greatest.max()):.3g}, "
            "and their squares overflow float64; rescale the data"
        )
    _check_range(survey, model, options, runner.source)
    distinct = len(survey.distinct.digests)
    if distinct < k:
        causes = explain_excluded_rows(runner.source, runner.plan) if survey.count < survey.cells else ()
        raise DataError("; ".join((
            f"k is {k} and the data have {distinct} distinct row{'s' * (distinct != 1)} of positive weight",
            "lower k" + (", or raise fit.fraction" if options.row_fraction is not None else ""),
            *causes,
        )))  # fmt: skip
    return survey, result


def _check_range(survey: Survey, model: Any, options: Options, source: Source) -> None:
    """Refuse rows of numbers so small that distances between them would be zero, or wrong."""
    apart = np.where(survey.greatest > survey.least, survey.greatest - survey.least, 0.0)
    if options.preprocess.standardize == "per_feature":
        # Each is divided by its own deviation.
        low = np.flatnonzero((apart > 0.0) & (apart < LEAST_RANGE))
        if len(low):
            feature = source.features[low[0]]
            raise DataError(
                f"feature {feature} of variable {feature.variable!r}: its values differ by {apart[low[0]]:.3g} at "
                "most, and their squares underflow float64; rescale the data"
            )
    squared = geometry.is_translation_invariant(model.initial_model.divergence) or options.preprocess.requested
    if squared and 0.0 < apart.max() < LEAST_RANGE:
        raise DataError(
            f"the values differ by {apart.max():.3g} at most, and their squares underflow float64; rescale the data"
        )
    _check_logarithms(survey, model.initial_model.divergence)


def _check_logarithms(survey: Survey, divergence: str) -> None:
    """Refuse numbers below the normal ones of float64, whose ratios the divergences of ratios cannot tell."""
    # Shares of a row add up, so that its large features decide; every spectrum's feature counts by its own ratio.
    small = {"kullback_leibler": survey.greatest.max(), "itakura_saito": survey.least.min()}.get(divergence, 0.0)
    if 0.0 < small < geometry.TINY:
        raise DataError(
            f"the values go down to {small:.3g}, and {divergence} needs {geometry.TINY:.3g} or more in float64; "
            "rescale the data"
        )


def _params_at_origin(model: Any, survey: Survey) -> KMeansParams:
    """Make the params of hard clusters, all at the origin."""
    divergence = model.initial_model.divergence
    origin = geometry.choose_origin(divergence, survey.origin)
    matrix = geometry.whitening(divergence, survey.covariance)
    has_total_scatter = divergence == "squared_euclidean" and survey.observed is None
    total_scatter = (
        float(np.sum(survey.variance + (survey.mean - origin) ** 2) * survey.weight) if has_total_scatter else np.inf
    )
    return KMeansParams(origin, np.zeros((model.k, len(origin))), total_scatter, matrix)


def _class_means(model: Any, at_origin: KMeansParams, labelled: KMeansStatistics) -> KMeansParams:
    empty = np.flatnonzero(labelled.weight <= 0.0)
    if len(empty):
        raise DataError(
            f"no row of positive weight has label {empty[0]}; a start from labels needs all of 0 … {model.k - 1}; "
            "lower model.k, or label a row of each cluster"
        )
    weight = labelled.observed if labelled.observed.size else labelled.weight
    divergence = model.initial_model.divergence
    centers = geometry.update_centers(divergence, weight, labelled.first, at_origin.centers)
    lost = np.flatnonzero(~centers.any(axis=1)) if divergence == "cosine" else empty
    if len(lost):
        raise DataError(
            f"the rows of label {lost[0]} point everywhere, so that their directions have no mean, which the cosine "
            "needs; label other rows, or choose another model.divergence"
        )
    return replace(at_origin, centers=centers)


def _user_centers(model: Any, survey: Survey, init: Any, preparation: Preparation | None) -> KMeansParams:
    at_origin = _params_at_origin(model, survey)
    d = len(at_origin.origin) if preparation is None else len(preparation.offset)
    centers = as_centers(init["centers"] if isinstance(init, Mapping) else init, model.k, d)
    if preparation is not None:
        centers = preparation.to_prepared(centers)
    divergence = model.initial_model.divergence
    try:
        geometry.check_domain(divergence, centers)
    except geometry.DomainError as error:
        raise ConfigError(f"init holds {error}") from None
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


def _user_covariances(model: GaussianMixture, init: Mapping[str, Any], preparation: Preparation | None) -> Any:
    """Take starting covariances to where the prepared rows are, if they are in the data's units."""
    kind, given = model.covariance, init.get("covariances")
    if preparation is None or not preparation.rescales or kind not in kinds.SCALABLE:
        return given
    return kinds.scaled_covariances(kind, starting_covariances(kind, model.k, preparation.p, given), preparation.matrix)


def _hard_clusters(
    runner: PassRunner, model: Any, survey: Survey, options: Options, preparation: Preparation | None
) -> tuple[list[KMeansParams], PassResult | None]:
    """Choose the hard clusters to start from, in the pass over the full data that labels take; None: in none."""
    at_origin = _params_at_origin(model, survey)
    if _uses_labels(options):
        labelled = runner.run([partial(model.initial_model.labelled_statistics, at_origin)])
        return [_class_means(model, at_origin, labelled.statistics[0])], labelled
    if not options.draws_starts:
        return [_user_centers(model, survey, options.init, preparation)], None
    hard_model, restart_rows = model.initial_model, _restart_rows(survey, model.k)
    ranked_restarts = _run_restarts(
        hard_model, survey, restart_rows, options, max(RESTART_TOLERANCE, options.rule.tolerance), runner.engine
    )
    best = [candidate.params for candidate in ranked_restarts[: options.finalists]]
    finalists = _converged(
        hard_model, best, survey.sample, min(RESTART_TOLERANCE, options.rule.tolerance), runner.engine
    )
    return [replace(params, total_scatter=at_origin.total_scatter) for params in finalists], None


def _mixtures_on_sample(
    model: GaussianMixture, survey: Survey, options: Options, engine: Engine
) -> list[MixtureParams]:
    """Choose the mixtures to start from; none where all runs on the sample end in a singular covariance."""
    restart_rows = _restart_rows(survey, model.k)
    hard = _run_restarts(model.initial_model, survey, restart_rows, options, 0.0, engine)
    tolerance = max(GaussianMixture.tolerance, options.rule.tolerance)
    seconds = math.inf if options.rule.max_seconds is None else STARTS_SHARE * options.rule.max_seconds
    best = likeliest(model, survey, hard, tolerance, seconds, options.finalists, engine)
    if not best or survey.sample.complete:
        # Passes over all rows would be no longer, and are seen and kept.
        return best
    try:
        return _converged(model, best, survey.sample, max(RESTART_TOLERANCE, options.rule.tolerance), engine)
    except DataError:
        return best


def _restart_rows(survey: Survey, k: int) -> RowSample:
    """Give the rows that restarts compete on."""
    return survey.sample.highest(max(RESTART_ROWS, 200 * k))


def _run_restarts(
    hard_model: KMeans, survey: Survey, restart_rows: RowSample, options: Options, tolerance: float, engine: Engine
) -> list[Candidate]:
    """Seed every restart, and run Lloyd's algorithm on the restart rows; the least J comes first."""
    k, divergence = hard_model.k, hard_model.divergence
    at_origin = _params_at_origin(hard_model, survey)
    embed = partial(geometry.embed, divergence, origin=at_origin.origin, matrix=at_origin.matrix)
    rows = embed(fill_missing(restart_rows.values, survey.mean))
    spare = embed(fill_missing(survey.distinct.values, survey.mean))
    init: Init = "random" if options.init == "random" else "kmeans++"
    seed_one = partial(seed_centers, rows, restart_rows.represented, k, init, spare)
    with sample_passes(restart_rows, engine) as runner:
        streams = generators(options.seed, options.restarts)
        starts = runner.engine.compute(
            {("seed", i): (partial(seed_one, s),) for i, s in enumerate(streams)},
            [("seed", i) for i in range(len(streams))],
        )
        if any(len(centers) < k for centers in starts):
            if divergence == "cosine":
                raise DataError(
                    f"k is {k} and fewer rows differ in direction, and the cosine compares nothing else; lower k"
                )
            raise DataError(
                f"k is {k} and fewer rows differ once the mean is taken off, in float64: the values span too many "
                "orders of magnitude; lower k, or rescale the data"
            )
        released = [geometry.unembed(divergence, centers, at_origin.matrix) for centers in starts]
        # The total scatter is that of all rows, and bounds no J here.
        seeded = [replace(at_origin, centers=centers, total_scatter=np.inf) for centers in released]
        restarts = converge(hard_model, runner, seeded, StoppingRule(tolerance, FINALIST_PASSES))
    return rank_candidates(restarts.candidates)


def _converged(model: Any, starts: Sequence[Any], sample: RowSample, tolerance: float, engine: Engine) -> list[Any]:
    """Run starts on the sample until they change by no more than the tolerance."""
    with sample_passes(sample, engine) as runner:
        converged = converge(model, runner, starts, StoppingRule(tolerance, FINALIST_PASSES))
    return [candidate.params for candidate in converged.candidates]
