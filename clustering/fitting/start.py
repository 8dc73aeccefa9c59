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

from clustering.data.causes import nothing_left, why_left_out
from clustering.data.plan import MIB, Plan
from clustering.data.preparation import Preparation, only_unit_norm
from clustering.data.source import Source
from clustering.errors import ConfigError, DataError
from clustering.execution.engine import Engine
from clustering.execution.fraction import Fraction
from clustering.execution.passes import Passed, Reading, Rounds
from clustering.fitting.annealing import anneal, critical_value
from clustering.fitting.loop import Candidate, Rule, State, halted, ranked
from clustering.fitting.mixture_starts import likeliest
from clustering.fitting.on_sample import passes_over, settle
from clustering.fitting.preprocessing import Preprocess, prepare, prepared, scatter_refusal, undirected_notes
from clustering.fitting.seeding import Init, as_centers, filled, generators, seed_centers
from clustering.models import covariances as kinds
from clustering.models import divergences as geometry
from clustering.models.kmeans import KMeans, KMeansParams, KMeansStatistics
from clustering.models.mixture import GaussianMixture
from clustering.models.mixture_params import MixtureParams
from clustering.models.names import Divergence
from clustering.models.parameters import starting
from clustering.models.soft_kmeans import SoftKMeans
from clustering.models.survey import WIDEST_COVARIANCE, Sample, Survey, SurveyModel, priority_floor

Array = NDArray[np.float64]

SCOUT_ROWS = 25_000
"""Rows of the nested sample on which restarts compete, or 200 per cluster where that is more."""
SCOUT_TOLERANCE = 1e-4
POLISH_PASSES = 300
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
    rule: Rule = field(default_factory=Rule)
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
    def draws(self) -> bool:
        """Whether starts are drawn, so that which cluster is which says nothing."""
        return isinstance(self.init, str) and self.init != "labels"

    @property
    def drawn(self) -> Fraction | None:
        """Which rows take part in the fit; None: all."""
        return None if self.fraction == 1.0 else Fraction(float(self.fraction), int(self.seed))


@dataclass(frozen=True, eq=False)
class Begun:
    """What is known before the first pass."""

    survey: Survey
    """Of the rows in the data's units."""
    state: State
    reading: Reading
    """Read so far: pass 0, and what a start from full data takes."""
    seconds: float
    """Of that, the passes over the full data took this wall time, in seconds."""
    remarks: tuple[str, ...] = ()
    """What was chosen on the way."""
    warnings: tuple[str, ...] = ()
    preparation: Preparation | None = None
    """What the passes have to put rows through; None: they take them as decoded."""


def begin(rounds: Rounds, model: Any, options: Options, memory: int) -> Begun:
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
    check_combination(rounds.source, model, options)
    surveyed, passed = survey(rounds, model, options, memory)
    reading, seconds = passed.reading, passed.seconds
    remarks: tuple[str, ...] = ()
    found, preparation = surveyed, prepare(options.preprocess, surveyed, rounds.source)
    if preparation is not None:
        found = prepared(surveyed, preparation, model.starter.divergence)
        rounds = replace(rounds, preparation=preparation)
        remarks = (f"preprocessing: {preparation.words}",)
    # Where a part of the rows is drawn, the labels tell how many of all are left out.
    warnings = undirected_notes(surveyed.undirected if options.drawn is None else 0)
    most = surveyed.count * 2 < surveyed.cells * _drawn(rounds, options)
    warnings = (*warnings, *(why_left_out(rounds.source, rounds.plan) if most else ()))
    params: list[Any] = []
    if isinstance(model, GaussianMixture) and options.draws:
        params = _mixtures_on_sample(model, found, options, rounds.engine)
    if not params:
        hard, known = _hard_clusters(rounds, model, found, options, preparation)
        if known is not None:
            reading, seconds = reading + known.reading, seconds + known.seconds
        params = list(hard)
        if isinstance(model, SoftKMeans):
            if model.beta == "auto":
                annealed = anneal(model, found, rounds.engine, hard)
                params, remarks = [annealed.params], (*remarks, annealed.note)
            else:
                params = [model.softened(start, float(model.beta)) for start in hard]
                warnings = (*warnings, *_dull(model, found))
                if options.draws:
                    params = _converged(model, params, found.sample, options.rule.tolerance, rounds.engine)
        elif isinstance(model, GaussianMixture) and isinstance(options.init, Mapping):
            covariances = _given_covariances(model, options.init, preparation)
            params = [model.given(found, options.init["weights"], hard[0].shift + hard[0].centers, covariances)]
        elif isinstance(model, GaussianMixture):
            firsts = rounds.run(
                [partial(model.first_statistics, start, found.variance, _known(options)) for start in hard]
            )
            pairs = zip(hard, firsts.statistics, strict=True)
            params = [model.first_params(found, start, statistics) for start, statistics in pairs]
            reading, seconds = reading + firsts.reading, seconds + firsts.seconds
    state = State(tuple(Candidate(start) for start in params), seconds=time.perf_counter() - began)
    return Begun(surveyed, halted(state, options.rule), reading, seconds, remarks, warnings, preparation)


def _drawn(rounds: Rounds, options: Options) -> float:
    """Give the share of the cells that a fit goes over, where none is masked."""
    return options.fraction * (1.0 if rounds.held_out is None else 1.0 - 1.0 / rounds.held_out.every)


def _known(options: Options) -> bool:
    return isinstance(options.init, str) and options.init == "labels"


def _dull(model: SoftKMeans, found: Survey) -> tuple[str, ...]:
    """Warn of a β at which no center can differ from another."""
    if model.k == 1 or model.divergence != "squared_euclidean":
        return ()
    critical = critical_value(model.divergence, found.covariance)
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
    options.preprocess.check(source, model.starter.divergence)
    if _known(options) and source.labels is None:
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
    return max(source.row_bytes, 8 * source.n_features if options.preprocess.asked else 1)


def few_rows(source: Source, plan: Plan, *, refused: bool = False) -> bool:
    """Tell whether rows are so few, and features so many, that the full scatter of pass 0 would be the larger.

    Parameters
    ----------
    refused
        Whether the scatter has no room; then a mask is given the chance to leave few rows.
    """
    d = source.n_features
    return d > WIDEST_COVARIANCE and (plan.cells < d or (refused and source.mask is not None))


def survey(rounds: Rounds, model: Any, options: Options, memory: int) -> tuple[Survey, Passed]:
    """Make pass 0 and check that k clusters can be found."""
    k, d, wish = model.k, rounds.source.n_features, options.preprocess
    m = min(options.sample_rows, max(k, sample_limit(rounds.source, options)))
    even = rounds.source.weights is None and rounds.source.mask is None
    floor = priority_floor(int(rounds.plan.cells * _drawn(rounds, options)), m) if even else 0.0
    # Before the mean is taken off, nothing tells whether a divergence is defined.
    divergence: Divergence = "squared_euclidean" if wish.centres else model.starter.divergence
    refusal = scatter_refusal(d, rounds.plan, rounds.engine, memory) if wish.rotates else None
    # Principal components of few rows follow from the rows, where the sample has them all.
    few = wish.rotates and few_rows(rounds.source, rounds.plan, refused=refusal is not None)
    if refusal is not None and not few:
        raise DataError(refusal)
    gaps, whole = rounds.source.missing == "marginalize", wish.rotates and not few
    how = SurveyModel(options.seed, m, k, floor, divergence, gaps, whole)
    if wish.unit_norm:
        rounds = replace(rounds, preparation=only_unit_norm(d))
    passed = rounds.run([how.statistics])
    found: Survey = passed.statistics[0]
    if floor and len(found.sample.weights) < min(m, found.count):
        # Most cells turned out to be missing: without a floor the sample gets its rows.
        again = rounds.run([replace(how, floor=0.0).statistics])
        found = again.statistics[0]
        passed = Passed((found,), passed.reading + again.reading, passed.seconds + again.seconds)
    if few and found.weighty and not (found.sample.complete and found.weighty < d):
        if refusal is not None:
            raise DataError(refusal)
        again = rounds.run([replace(how, floor=0.0, whole=True).statistics])
        found = again.statistics[0]
        passed = Passed((found,), passed.reading + again.reading, passed.seconds + again.seconds)
    if found.count == 0 and options.drawn is not None:
        raise DataError(
            f"fraction is {options.fraction:g}, and none of the rows of {found.cells} cells was drawn; "
            "raise fit.fraction, or check source.mask and the fill values"
        )
    if found.count == 0:
        raise DataError(nothing_left(rounds.source, rounds.plan, zeros=bool(found.undirected)))
    if found.weight <= 0:
        raise DataError(f"the weights of all {found.count} rows are zero; check source.weights")
    if found.observed is not None and not (found.observed > 0.0).all():
        feature = rounds.source.features[int(np.argmin(found.observed))]
        raise DataError(
            f"feature {feature} of variable {feature.variable!r} is missing in every row; leave it out with "
            "source.select or source.variables"
        )
    with np.errstate(over="ignore"):
        # The variance of rows of small weight may be beyond float64 where their scatter is not.
        bounded = np.isfinite(found.scatter).all() and np.isfinite(found.variance.sum())
    if not bounded:
        raise DataError(
            f"the values reach {max(-found.least.min(), found.greatest.max()):.3g}, "
            "and their squares overflow float64; rescale the data"
        )
    _check_range(found, model, options, rounds.source)
    distinct = len(found.distinct.digests)
    if distinct < k:
        causes = why_left_out(rounds.source, rounds.plan) if found.count < found.cells else ()
        raise DataError("; ".join((
            f"k is {k} and the data have {distinct} distinct row{'s' * (distinct != 1)} of positive weight",
            "lower k" + (", or raise fit.fraction" if options.drawn is not None else ""),
            *causes,
        )))  # fmt: skip
    return found, passed


def _check_range(found: Survey, model: Any, options: Options, source: Source) -> None:
    """Refuse rows of numbers so small that distances between them would be zero, or wrong."""
    apart = np.where(found.greatest > found.least, found.greatest - found.least, 0.0)
    if options.preprocess.standardize == "per_feature":
        # Each is divided by its own deviation.
        low = np.flatnonzero((apart > 0.0) & (apart < LEAST_RANGE))
        if len(low):
            feature = source.features[low[0]]
            raise DataError(
                f"feature {feature} of variable {feature.variable!r}: its values differ by {apart[low[0]]:.3g} at "
                "most, and their squares underflow float64; rescale the data"
            )
    squared = geometry.straight(model.starter.divergence) or options.preprocess.asked
    if squared and 0.0 < apart.max() < LEAST_RANGE:
        raise DataError(
            f"the values differ by {apart.max():.3g} at most, and their squares underflow float64; rescale the data"
        )
    _check_logarithms(found, model.starter.divergence)


def _check_logarithms(found: Survey, divergence: str) -> None:
    """Refuse numbers below the normal ones of float64, whose ratios the divergences of ratios cannot tell."""
    # Shares of a row add up, so that its large features decide; every spectrum's feature counts by its own ratio.
    small = {"kullback_leibler": found.greatest.max(), "itakura_saito": found.least.min()}.get(divergence, 0.0)
    if 0.0 < small < geometry.TINY:
        raise DataError(
            f"the values go down to {small:.3g}, and {divergence} needs {geometry.TINY:.3g} or more in float64; "
            "rescale the data"
        )


def _nowhere(model: Any, found: Survey) -> KMeansParams:
    """Make the params of hard clusters, all at the origin."""
    divergence = model.starter.divergence
    shift = geometry.origin(divergence, found.origin)
    matrix = geometry.whitening(divergence, found.covariance)
    known = divergence == "squared_euclidean" and found.observed is None
    spread = float(np.sum(found.variance + (found.mean - shift) ** 2) * found.weight) if known else np.inf
    return KMeansParams(shift, np.zeros((model.k, len(shift))), spread, matrix)


def _class_means(model: Any, nowhere: KMeansParams, known: KMeansStatistics) -> KMeansParams:
    empty = np.flatnonzero(known.weight <= 0.0)
    if len(empty):
        raise DataError(
            f"no row of positive weight has label {empty[0]}; a start from labels needs all of 0 … {model.k - 1}; "
            "lower model.k, or label a row of each cluster"
        )
    weight = known.observed if known.observed.size else known.weight
    divergence = model.starter.divergence
    centers = geometry.refitted(divergence, weight, known.first, nowhere.centers)
    lost = np.flatnonzero(~centers.any(axis=1)) if divergence == "cosine" else empty
    if len(lost):
        raise DataError(
            f"the rows of label {lost[0]} point everywhere, so that their directions have no mean, which the cosine "
            "needs; label other rows, or choose another model.divergence"
        )
    return replace(nowhere, centers=centers)


def _given(model: Any, found: Survey, init: Any, preparation: Preparation | None) -> KMeansParams:
    nowhere = _nowhere(model, found)
    d = len(nowhere.shift) if preparation is None else len(preparation.offset)
    centers = as_centers(init["centers"] if isinstance(init, Mapping) else init, model.k, d)
    if preparation is not None:
        centers = preparation.forward(centers)
    divergence = model.starter.divergence
    try:
        geometry.check_domain(divergence, centers)
    except geometry.DomainError as error:
        raise ConfigError(f"init holds {error}") from None
    shifted = centers - nowhere.shift
    with np.errstate(over="ignore"):
        reach = np.square(shifted).sum(axis=1)
    if geometry.straight(divergence) and not np.isfinite(reach).all():
        far = int(np.argmin(np.isfinite(reach)))
        raise ConfigError(
            f"starting center {far} reaches {np.abs(centers[far]).max():.3g}, and the squares of distances overflow "
            "float64; give centers among the data, or rescale both"
        )
    return replace(nowhere, centers=geometry.directions(shifted) if divergence == "cosine" else shifted)


def _given_covariances(model: GaussianMixture, init: Mapping[str, Any], preparation: Preparation | None) -> Any:
    """Take starting covariances to where the prepared rows are, if they are in the data's units."""
    kind, given = model.covariance, init.get("covariances")
    if preparation is None or not preparation.rescales or kind not in kinds.SCALABLE:
        return given
    return kinds.scaled(kind, starting(kind, model.k, preparation.p, given), preparation.matrix)


def _hard_clusters(
    rounds: Rounds, model: Any, found: Survey, options: Options, preparation: Preparation | None
) -> tuple[list[KMeansParams], Passed | None]:
    """Choose the hard clusters to start from, in the pass over the full data that labels take; None: in none."""
    nowhere = _nowhere(model, found)
    if _known(options):
        known = rounds.run([partial(model.starter.known_statistics, nowhere)])
        return [_class_means(model, nowhere, known.statistics[0])], known
    if not options.draws:
        return [_given(model, found, options.init, preparation)], None
    starter, scouts = model.starter, _scouts(found, model.k)
    scouted = _scouted(starter, found, scouts, options, max(SCOUT_TOLERANCE, options.rule.tolerance), rounds.engine)
    best = [candidate.params for candidate in scouted[: options.finalists]]
    polished = _converged(starter, best, found.sample, min(SCOUT_TOLERANCE, options.rule.tolerance), rounds.engine)
    return [replace(params, spread=nowhere.spread) for params in polished], None


def _mixtures_on_sample(model: GaussianMixture, found: Survey, options: Options, engine: Engine) -> list[MixtureParams]:
    """Choose the mixtures to start from; none where all runs on the sample end in a singular covariance."""
    scouts = _scouts(found, model.k)
    hard = _scouted(model.starter, found, scouts, options, 0.0, engine)
    tolerance = max(GaussianMixture.tolerance, options.rule.tolerance)
    seconds = math.inf if options.rule.max_seconds is None else STARTS_SHARE * options.rule.max_seconds
    best = likeliest(model, found, hard, tolerance, seconds, options.finalists, engine)
    if not best or found.sample.complete:
        # Passes over all rows would be no longer, and are seen and kept.
        return best
    try:
        return _converged(model, best, found.sample, max(SCOUT_TOLERANCE, options.rule.tolerance), engine)
    except DataError:
        return best


def _scouts(found: Survey, k: int) -> Sample:
    """Give the rows that restarts compete on."""
    return found.sample.highest(max(SCOUT_ROWS, 200 * k))


def _scouted(
    starter: KMeans, found: Survey, scouts: Sample, options: Options, tolerance: float, engine: Engine
) -> list[Candidate]:
    """Seed every restart, and run Lloyd on the scouts; the least J comes first."""
    k, divergence = starter.k, starter.divergence
    nowhere = _nowhere(starter, found)
    place = partial(geometry.embedded, divergence, shift=nowhere.shift, matrix=nowhere.matrix)
    rows = place(filled(scouts.values, found.mean))
    spare = place(filled(found.distinct.values, found.mean))
    init: Init = "random" if options.init == "random" else "kmeans++"
    seed_one = partial(seed_centers, rows, scouts.represented, k, init, spare)
    with passes_over(scouts, engine) as passes:
        streams = generators(options.seed, options.restarts)
        starts = passes.engine.compute(
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
        released = [geometry.released(divergence, centers, nowhere.matrix) for centers in starts]
        # No bound on J is known on the scouts alone.
        seeded = [replace(nowhere, centers=centers, spread=np.inf) for centers in released]
        scouted = settle(starter, passes, seeded, Rule(tolerance, POLISH_PASSES))
    return ranked(scouted.candidates)


def _converged(model: Any, starts: Sequence[Any], sample: Sample, tolerance: float, engine: Engine) -> list[Any]:
    """Run starts on the sample until they change by no more than the tolerance."""
    with passes_over(sample, engine) as passes:
        settled = settle(model, passes, starts, Rule(tolerance, POLISH_PASSES))
    return [candidate.params for candidate in settled.candidates]
