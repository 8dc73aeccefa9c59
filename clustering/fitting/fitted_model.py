"""The fitted model: model, params, and all that is known about the fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.layout import FeatureLayout
from clustering.data.preparation import Preparation
from clustering.data.reading_options import ReadingOptions
from clustering.data.source import About, Feature
from clustering.execution.passes import PassResult
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.labelling import LabelStatistics
from clustering.fitting.loop import State, Stop
from clustering.fitting.preprocessing import zero_row_notes
from clustering.models import covariances as kinds
from clustering.models.components import Components
from clustering.models.model import AnyModel, Params
from clustering.models.param_arrays import read_only
from clustering.models.survey import Survey

Array = NDArray[np.float64]

EQUAL = 1e-9
"""Sizes and centers that differ by no more than this share count as equal, so that rounding never orders clusters."""
LIMITS = (Stop.MAX_ITERATIONS, Stop.MAX_SECONDS)
"""Limits that may end a fit before its stopping test is met."""
_NUMBERED = re.compile(r"\b(cluster|component) (\d+)\b")
"""Matches the number of a cluster in a note. Numbers change where clusters are put in another order."""


@dataclass(frozen=True, eq=False)
class Summary:
    """Numbers of the rows, from pass 0, in the data's own units."""

    cells: int
    """Number of cells of the sample grid, masked ones included."""
    count: int
    """Number of rows that take part."""
    weight: float
    """Total weight of those rows, Σ w."""
    mean: Array
    """Weighted mean of each feature ``(d,)``."""
    variance: Array
    """Weighted variance of each feature ``(d,)``."""
    least: Array
    """Least value of each feature ``(d,)``."""
    greatest: Array
    """Greatest value of each feature ``(d,)``."""
    sampled: int
    """Number of rows in the row sample, on which seeding and restarts work."""
    drawn: int | None = None
    """Number of rows that the fit went over, where that is only a part; mean and variance are theirs. None: all."""

    @classmethod
    def from_survey(cls, survey: Survey) -> Summary:
        """Take the summary from a survey.

        Parameters
        ----------
        survey
            Survey of the decoded rows.
        """
        return cls(
            survey.cells, survey.count, survey.weight, survey.mean, survey.variance, survey.least, survey.greatest,
            len(survey.sample.weights),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class FittedModel:
    """Model, params and all that is known about the fit. Immutable."""

    model: AnyModel
    params: Params
    features: tuple[Feature, ...]
    summary: Summary
    objective: float
    history: Array
    """Objective after the assignment step and after the update step of each pass ``(passes, 2)``."""
    iterations: int
    """Passes over the full data that updated the params."""
    stop: Stop
    shares: Array
    """Share of each cluster in the total weight, by responsibilities ``(k,)``."""
    reads: float
    """Number of full reads of the source. A partial read counts by its share of the blocks."""
    bytes_read: int
    """Decoded bytes read from the source."""
    notes: tuple[str, ...] = ()
    """Warnings for the user."""
    remarks: tuple[str, ...] = ()
    """Choices that the fit made by itself, such as β, in words for a user."""
    criteria: dict[str, float] | None = None
    """Information criteria of a mixture, as `information_criteria` makes them; None for other models."""
    track: Mapping[str, Array] = field(default_factory=dict)
    """Numbers of each cluster in each pass ``(passes, k)``, by name."""
    bad_chunks: tuple[str, ...] = ()
    """Names of chunks of the source that do not decode. Their cells are masked."""
    preparation: Preparation | None = None
    """Preparation of the rows; params, distances and the objective are those of prepared rows. None: none."""
    about: About = field(default_factory=dict)
    """Units and names of the variables and the feature dimensions, as in `Source.about`."""
    ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Ids of the clusters in labels ``(k,)``, ascending; 0 … k − 1 where none are given."""
    sample_dims: tuple[str, ...] = ()
    """Sample dimensions of the data of the fit; empty in models of early versions, which did not record them."""
    feature_dims: tuple[str, ...] = ()
    largest_id: int = -1
    """Largest id that any model of this output ever used. New clusters get ids above it, so no id is used twice."""
    marginalized: bool = False
    """Whether rows with missing features take part, with the features that they have."""
    reading: ReadingOptions = field(default_factory=lambda: ReadingOptions(False, {}))
    """How the numbers of the data were read; empty in models of early versions, which did not record it."""

    def __post_init__(self) -> None:
        ids = _read_only(np.asarray(self.ids if len(self.ids) else np.arange(self.model.k), np.int64))
        # A frozen dataclass allows no other way to set a field.
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "largest_id", max(self.largest_id, int(ids.max())))
        object.__setattr__(self, "params", read_only(self.params))
        object.__setattr__(self, "track", {name: _read_only(array) for name, array in self.track.items()})
        for name in ("history", "shares"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))

    @property
    def layout(self) -> FeatureLayout:
        """The variables and dimensions it was fitted on, and how their numbers were read."""
        variables = dict.fromkeys(feature.variable for feature in self.features)
        return FeatureLayout(tuple(variables), self.sample_dims, self.feature_dims, self.reading)

    @property
    def converged(self) -> bool:
        """Whether the stopping test was met."""
        return self.stop in (Stop.CONVERGED, Stop.TOLERANCE)

    @property
    def early_stop(self) -> str | None:
        """The warning that a limit ended the fit before its stopping test was met; None where none did."""
        return early_stop_note(self.stop, self.iterations) if self.stop in LIMITS and self.iterations else None

    @property
    def clusters(self) -> ClusterNames:
        """Ids of its clusters, without the names that users give."""
        return ClusterNames(self.ids)

    @cached_property
    def components(self) -> Components:
        """Mixing weights, covariances and other numbers of the clusters, for prepared rows."""
        return self.model.components(self.params)

    @property
    def weights(self) -> Array:
        """Mixing weights of a mixture, shares of other models ``(k,)``."""
        mixing = self.components.weights
        return self.shares if mixing is None else mixing

    @property
    def covariances(self) -> Array | None:
        """Covariances, in the shape of their kind; None where the model has none.

        They are in the data's own units, or in those of the prepared rows where `covariances_prepared`.
        """
        covariances, kind = self.components.covariances, self.components.covariance
        if covariances is None or kind is None or self.preparation is None or self.covariances_prepared:
            return covariances
        return _read_only(kinds.scaled_covariances(kind, covariances, self.preparation.inverse))

    @property
    def covariances_prepared(self) -> bool:
        """Whether `covariances` are those of prepared rows.

        That is so where components mix features, and for spherical covariances, whose one variance has no counterpart
        after features are scaled by different factors.
        """
        kind = self.components.covariance
        return self.preparation is not None and not (self.preparation.rescales and kind in kinds.SCALABLE)

    @property
    def centers(self) -> Array:
        """Centers ``(k, d)`` in the data's own units."""
        prepared = self.centers_prepared
        return prepared if self.preparation is None else _read_only(self.preparation.to_data_units(prepared))

    @property
    def centers_prepared(self) -> Array:
        """Centers ``(k, p)`` in the space of the prepared rows."""
        with np.errstate(over="ignore"):
            return _read_only(self.params.origin + self.params.centers)

    def with_measured(self, result: PassResult, blocks: int) -> FittedModel:
        """Replace objective, sizes and criteria by those of a label pass, which are exact at the final params.

        Parameters
        ----------
        result
            Result of the label pass, with its `LabelStatistics` first.
        blocks
            Number of blocks in the plan of that pass.
        """
        sums: LabelStatistics = result.statistics[0]
        return replace(
            self,
            objective=self.model.to_user_objective(sums.objective, float(sums.weight.sum())),
            # All rows may have weight 0, as the labelled rows need not be those of the fit.
            shares=sums.weight / (sums.weight.sum() or 1.0),
            reads=self.reads + result.read_stats.blocks / blocks,
            bytes_read=self.bytes_read + result.read_stats.bytes,
            bad_chunks=tuple(sorted({*self.bad_chunks, *result.read_stats.bad})),
            criteria=information_criteria(self.model, self.params.centers.shape[1], sums),
            # Pass 0 may have given the same warning already.
            notes=(*self.notes, *(n for n in _notes(sums) if n not in self.notes)),
        )

    def reordered(self, order: NDArray[np.int64]) -> FittedModel:
        """Put the clusters in another order. Ids do not move: the first cluster has the first id.

        Parameters
        ----------
        order
            For each new place the present place of its cluster ``(k,)``.
        """
        # `numbers` holds the new place of each cluster, by which notes name it.
        params, numbers = self.params, np.argsort(order)
        along = {name: dims.index("cluster") for name, dims in params.dims.items() if "cluster" in dims}
        moved = {name: np.take(getattr(params, name), order, axis) for name, axis in along.items()}
        return replace(
            self,
            params=replace(params, **moved),
            shares=self.shares[order],
            track={name: array[:, order] for name, array in self.track.items()},
            notes=tuple(_NUMBERED.sub(lambda match: f"{match[1]} {numbers[int(match[2])]}", n) for n in self.notes),
        )

    def labelled_over(self, sums: LabelStatistics, cells: int, *, held_out: int = 0) -> FittedModel:
        """Replace the counts of the summary by those of the labelled rows, where these are not the rows of the fit.

        Parameters
        ----------
        sums
            Statistics of the label pass.
        cells
            Number of cells of the labelled grid.
        held_out
            Number of labelled rows in held-out blocks, which the fit did not see.
        """
        rows, weight = int(sums.rows.sum()), float(sums.weight.sum())
        drawn = rows - held_out if held_out else None
        remark = (
            (f"fitted on {drawn:,} of {rows:,} rows, the others being held out to score it on",) if held_out else ()
        )
        summary = replace(self.summary, cells=cells, count=rows, weight=weight, drawn=drawn)
        return replace(self, summary=summary, remarks=(*remark, *self.remarks))

    def labelled_on_all(self, sums: LabelStatistics) -> FittedModel:
        """Replace the counts of the summary by those of all rows, where the fit went over a drawn part of them.

        Parameters
        ----------
        sums
            Statistics of a label pass over all rows.
        """
        rows, drawn = int(sums.rows.sum()), self.summary.count
        remark = f"fitted on {drawn:,} of {rows:,} rows ({100 * drawn / max(1, rows):.3g} %)"
        summary = replace(self.summary, count=rows, weight=float(sums.weight.sum()), drawn=drawn)
        return replace(self, summary=summary, remarks=(remark, *self.remarks))


def early_stop_note(stop: Stop, passes: int) -> str:
    """Write the warning that a limit ended a fit before its stopping test was met.

    Parameters
    ----------
    stop
        The limit.
    passes
        Number of passes of the fit.
    """
    counted = f"{passes} pass{'' if passes == 1 else 'es'}"
    return f"stopped by {stop} after {counted} before the stopping test was met"


def _notes(sums: LabelStatistics) -> tuple[str, ...]:
    """Make the warnings of a label pass."""
    if np.isfinite(sums.objective):
        return zero_row_notes(sums.zero_rows)
    remote = (
        "rows lie so far out that their squares are beyond float64: they have the label of the nearest center, and the "
        "objective is infinite; mask such rows with source.mask, or rescale the data"
    )
    return (*zero_row_notes(sums.zero_rows), remote)


def information_criteria(model: AnyModel, d: int, sums: LabelStatistics) -> dict[str, float] | None:
    """Compute the information criteria of a mixture; lower is better.

    AIC = 2p − 2 log L, BIC = p log W − 2 log L (Schwarz 1978, doi:10.1214/aos/1176344136), and ICL = BIC + 2 entropy
    (Biernacki, Celeux & Govaert 2000, doi:10.1109/34.865189), with p the number of free parameters and W the total
    weight of the rows.

    Parameters
    ----------
    model
        The model that was fitted.
    d
        Number of features of a prepared row.
    sums
        Statistics of a label pass at the final params.

    Returns
    -------
    dict or None
        Criteria by name, with the numbers they are made of; None for a model whose objective is no likelihood.
    """
    # The objective of a mixture is −log L.
    p, log_likelihood = model.free_parameters(d), -sums.objective
    if p is None:
        return None
    bic = p * float(np.log(sums.weight.sum())) - 2.0 * log_likelihood
    return {
        "aic": 2.0 * p - 2.0 * log_likelihood, "bic": bic, "icl": bic + 2.0 * sums.entropy, "parameters": p,
        "log_likelihood": log_likelihood, "entropy": sums.entropy,
    }  # fmt: skip


def order_by_size(fitted: FittedModel) -> FittedModel:
    """Put the clusters in the order of their weights, largest first; equal ones in the order of their centers.

    The random order of seeding has no meaning. Restarts that reach the same optimum in different orders end with the
    same numbers this way.

    Parameters
    ----------
    fitted
        A fitted model whose starts were drawn.
    """
    centers = fitted.centers
    # Far from zero, rounding may exceed a share of the range, so the spacing of floats is added.
    with np.errstate(over="ignore"):
        apart = EQUAL * np.ptp(centers, axis=0) + 64 * np.spacing(np.abs(centers).max(axis=0))
    # Without a pass the sizes are NaN, and the centers alone give the order.
    weights = np.nan_to_num(fitted.weights)
    keys = [(-weights, EQUAL * weights.max(initial=0.0)), *zip(centers.T, apart, strict=True)]
    # Sort by the first key, split where neighbours differ by more than the tolerance, and sort each part by the next
    # key. A plain lexicographic sort would let rounding of the weights decide.
    order: list[int] = []
    groups = [(np.arange(len(weights)), 0)]
    while groups:
        members, key = groups.pop()
        if len(members) == 1 or key == len(keys):
            order.extend(members.tolist())
            continue
        values, tolerance = keys[key]
        members = members[np.argsort(values[members], kind="stable")]
        parts = np.split(members, np.flatnonzero(np.diff(values[members]) > tolerance) + 1)
        # The group added last is sorted next, so parts are added in reverse.
        groups.extend((part, key + 1) for part in reversed(parts))
    return fitted.reordered(np.array(order))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view that cannot be written to; no values are copied."""
    view = array.view()
    view.flags.writeable = False
    return view


def from_state(
    model: AnyModel,
    state: State,
    features: tuple[Feature, ...],
    summary: Summary,
    reads: float,
    bytes_read: int,
    remarks: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
    bad_chunks: tuple[str, ...] = (),
    preparation: Preparation | None = None,
    about: About | None = None,
    dims: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
    *,
    drawn: bool = False,
) -> FittedModel:
    """Make a fitted model of the best candidate of a finished loop.

    Parameters
    ----------
    model
        The model that was fitted.
    state
        State of the loop after its last pass.
    features
        Features of the source, in the order of the columns.
    summary
        Numbers of the rows.
    reads
        Number of full reads of the source.
    bytes_read
        Decoded bytes read from the source.
    remarks
        Choices that the fit made by itself, in words for a user.
    warnings
        Warnings from before the loop.
    bad_chunks
        Names of chunks that do not decode.
    preparation
        Preparation of the rows; None where they are taken as decoded.
    about
        Units and names of variables and dimensions.
    dims
        Sample dimensions, and feature dimensions.
    drawn
        Whether the start was drawn. If so, clusters are put in the order of `order_by_size`.
    """
    best = state.best
    assert best.stop is not None
    notes = (*warnings, *best.notes)
    if best.stop in LIMITS and best.history:
        notes += (early_stop_note(best.stop, len(best.history)),)
    # Without a pass, as for max_iterations = 0, sizes are unknown until rows are labelled.
    weight = np.full(model.k, np.nan) if best.sums is None else best.sums["weight"]
    total = float(weight.sum())
    history = model.to_user_objective(np.array(best.history).reshape(-1, 2), total)
    names = best.track[0] if best.track else ()
    made = FittedModel(
        model,
        best.params,
        features,
        summary,
        model.to_user_objective(best.objective, total),
        history,
        len(best.history),
        best.stop,
        weight / total,
        reads,
        bytes_read,
        notes,
        remarks,
        track={name: np.array([measures[name] for measures in best.track]) for name in names},
        bad_chunks=bad_chunks,
        preparation=preparation,
        about=about or {},
        sample_dims=dims[0],
        feature_dims=dims[1],
    )
    # Users know the numbers of centers that they gave, and of an earlier model, so these stay.
    return order_by_size(made) if drawn else made
