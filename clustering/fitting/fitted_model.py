"""What a fit ends with."""

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
from clustering.data.source import About, Feature
from clustering.execution.passes import PassResult
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.labelling import LabelStatistics
from clustering.fitting.loop import State, Stop
from clustering.fitting.preprocessing import zero_row_notes
from clustering.models import covariances as kinds
from clustering.models.components import Components
from clustering.models.model import AnyModel, Params, read_only
from clustering.models.survey import Survey

Array = NDArray[np.float64]

EQUAL = 1e-9
"""Sizes and centers that differ by no more than this share are equal: rounding orders no clusters."""
_NUMBERED = re.compile(r"\b(cluster|component) (\d+)\b")
"""How notes name a cluster."""


@dataclass(frozen=True, eq=False)
class Summary:
    """What pass 0 told about the rows."""

    cells: int
    """Cells of the sample grid, masked ones included."""
    count: int
    """Rows that take part."""
    weight: float
    """Σ w of them."""
    mean: Array
    """Weighted mean of each feature ``(d,)``."""
    variance: Array
    """Weighted variance of each feature ``(d,)``."""
    least: Array
    """``(d,)``."""
    greatest: Array
    """``(d,)``."""
    sampled: int
    """Rows in the sample that seeding and restarts worked on."""
    drawn: int | None = None
    """Rows that the fit went over, where a part was drawn; the moments are theirs. None: all."""

    @classmethod
    def from_survey(cls, survey: Survey) -> Summary:
        """Sum up pass 0."""
        return cls(
            survey.cells, survey.count, survey.weight, survey.mean, survey.variance, survey.least, survey.greatest,
            len(survey.sample.weights),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A fitted model with everything that is known about it. Immutable."""

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
    """Full reads of the source; a part counts by its blocks."""
    bytes_read: int
    """Decoded bytes read from the source."""
    notes: tuple[str, ...] = ()
    """What a user should be warned of."""
    remarks: tuple[str, ...] = ()
    """What was chosen on the way, such as β."""
    criteria: dict[str, float] | None = None
    """Information criteria of a mixture, as `information_criteria` makes them; None for other models."""
    track: Mapping[str, Array] = field(default_factory=dict)
    """What was measured of each cluster in each pass ``(passes, k)``."""
    bad_chunks: tuple[str, ...] = ()
    """Chunks of the source that do not decode and are masked, by name."""
    preparation: Preparation | None = None
    """What rows go through first; params, distances and the objective are those of prepared rows."""
    about: About = field(default_factory=dict)
    """Units and names of the variables and the feature dimensions, as `Source.about` tells them."""
    ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """What labels call the clusters ``(k,)``, ascending; 0 … k − 1 where none are given."""
    sample_dims: tuple[str, ...] = ()
    """Of the data it was fitted on; empty where an earlier version did not write them down."""
    feature_dims: tuple[str, ...] = ()
    largest_id: int = -1
    """The largest id that ever stood for a cluster in this line of models: others begin above it."""

    def __post_init__(self) -> None:
        ids = _read_only(np.asarray(self.ids if len(self.ids) else np.arange(self.model.k), np.int64))
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "largest_id", max(self.largest_id, int(ids.max())))
        object.__setattr__(self, "params", read_only(self.params))
        object.__setattr__(self, "track", {name: _read_only(array) for name, array in self.track.items()})
        for name in ("history", "shares"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))

    @property
    def layout(self) -> FeatureLayout:
        """The variables and dimensions it was fitted on."""
        variables = dict.fromkeys(feature.variable for feature in self.features)
        return FeatureLayout(tuple(variables), self.sample_dims, self.feature_dims)

    @property
    def converged(self) -> bool:
        """Whether the stopping test was met."""
        return self.stop in (Stop.CONVERGED, Stop.TOLERANCE)

    @property
    def clusters(self) -> ClusterNames:
        """What its clusters are called, where people gave them no names."""
        return ClusterNames(self.ids)

    @cached_property
    def components(self) -> Components:
        """Weights, covariances and other numbers of the clusters, of the prepared rows."""
        return self.model.components(self.params)

    @property
    def weights(self) -> Array:
        """Mixing weights of a mixture, shares of other models ``(k,)``."""
        mixing = self.components.weights
        return self.shares if mixing is None else mixing

    @property
    def covariances(self) -> Array | None:
        """Covariances, in the shape of their kind; None where the model has none.

        In the data's own units, or those of the prepared rows where `covariances_prepared`.
        """
        covariances, kind = self.components.covariances, self.components.covariance
        if covariances is None or kind is None or self.preparation is None or self.covariances_prepared:
            return covariances
        return _read_only(kinds.scaled_covariances(kind, covariances, self.preparation.inverse))

    @property
    def covariances_prepared(self) -> bool:
        """Whether `covariances` are those of prepared rows: where features are mixed, or the kind has one width."""
        kind = self.components.covariance
        return self.preparation is not None and not (self.preparation.rescales and kind in kinds.SCALABLE)

    @property
    def centers(self) -> Array:
        """Centers ``(k, d)`` in the data's own units."""
        prepared = self.centers_prepared
        return prepared if self.preparation is None else _read_only(self.preparation.to_data_units(prepared))

    @property
    def centers_prepared(self) -> Array:
        """Centers ``(k, p)`` where the prepared rows are."""
        with np.errstate(over="ignore"):
            return _read_only(self.params.origin + self.params.centers)

    def with_measured(self, result: PassResult, blocks: int) -> FittedModel:
        """Take in what a labelling pass over so many blocks told at the final params: the objective and the sizes."""
        sums: LabelStatistics = result.statistics[0]
        return replace(
            self,
            objective=self.model.to_user_objective(sums.objective, float(sums.weight.sum())),
            shares=sums.weight / (sums.weight.sum() or 1.0),
            reads=self.reads + result.read_stats.blocks / blocks,
            bytes_read=self.bytes_read + result.read_stats.bytes,
            bad_chunks=tuple(sorted({*self.bad_chunks, *result.read_stats.bad})),
            criteria=information_criteria(self.model, self.params.centers.shape[1], sums),
            notes=(*self.notes, *(n for n in _notes(sums) if n not in self.notes)),
        )

    def reordered(self, order: NDArray[np.int64]) -> FittedModel:
        """Put the clusters in another order: `order` ``(k,)`` holds their places now. Ids stay with the places."""
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
        """Say which rows were labelled, where they are others than those of the fit.

        Parameters
        ----------
        held_out
            How many of them the fit did not see.
        """
        rows, weight = int(sums.rows.sum()), float(sums.weight.sum())
        drawn = rows - held_out if held_out else None
        remark = (
            (f"fitted on {drawn:,} of {rows:,} rows, the others being held out to score it on",) if held_out else ()
        )
        summary = replace(self.summary, cells=cells, count=rows, weight=weight, drawn=drawn)
        return replace(self, summary=summary, remarks=(*remark, *self.remarks))

    def labelled_on_all(self, sums: LabelStatistics) -> FittedModel:
        """Say that the fit went over a part of the rows that were labelled."""
        rows, drawn = int(sums.rows.sum()), self.summary.count
        remark = f"fitted on {drawn:,} of {rows:,} rows ({100 * drawn / max(1, rows):.3g} %)"
        summary = replace(self.summary, count=rows, weight=float(sums.weight.sum()), drawn=drawn)
        return replace(self, summary=summary, remarks=(remark, *self.remarks))


def _notes(sums: LabelStatistics) -> tuple[str, ...]:
    """Say what a labelling pass met."""
    if np.isfinite(sums.objective):
        return zero_row_notes(sums.zero_rows)
    remote = (
        "rows lie so far out that their squares are beyond float64: they have the label of the nearest center, and the "
        "objective is infinite; mask such rows with source.mask, or rescale the data"
    )
    return (*zero_row_notes(sums.zero_rows), remote)


def information_criteria(model: AnyModel, d: int, sums: LabelStatistics) -> dict[str, float] | None:
    """Weigh the likelihood of a mixture against its number of parameters; lower is better.

    AIC = 2p − 2 log L, BIC = p log W − 2 log L (Schwarz 1978, doi:10.1214/aos/1176344136), and ICL = BIC + 2 entropy
    (Biernacki, Celeux & Govaert 2000, doi:10.1109/34.865189), with W the total weight of the rows.
    """
    p, log_likelihood = model.free_parameters(d), -sums.objective
    if p is None:
        return None
    bic = p * float(np.log(sums.weight.sum())) - 2.0 * log_likelihood
    return {
        "aic": 2.0 * p - 2.0 * log_likelihood, "bic": bic, "icl": bic + 2.0 * sums.entropy, "parameters": p,
        "log_likelihood": log_likelihood, "entropy": sums.entropy,
    }  # fmt: skip


def order_by_size(fitted: FittedModel) -> FittedModel:
    """Put the clusters in the order of their weights, largest first; equal ones in that of their centers.

    The order that starts were drawn in tells nothing, and where several lead to one optimum, it is an accident which
    of them got there first.
    """
    centers = fitted.centers
    with np.errstate(over="ignore"):
        apart = EQUAL * np.ptp(centers, axis=0) + 64 * np.spacing(np.abs(centers).max(axis=0))
    weights = np.nan_to_num(fitted.weights)
    keys = [(-weights, EQUAL * weights.max(initial=0.0)), *zip(centers.T, apart, strict=True)]
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
        groups.extend((part, key + 1) for part in reversed(parts))
    return fitted.reordered(np.array(order))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
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
    """Take the best candidate of a finished loop.

    Parameters
    ----------
    drawn
        Whether its start was drawn, so that the order of the clusters is ours: see `order_by_size`.
    """
    best = state.best
    assert best.stop is not None
    notes = (*warnings, *best.notes)
    if best.stop in (Stop.MAX_ITERATIONS, Stop.MAX_SECONDS) and best.history:
        notes += (f"stopped by {best.stop} after {len(best.history)} passes before the stopping test was met",)
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
    return order_by_size(made) if drawn else made
