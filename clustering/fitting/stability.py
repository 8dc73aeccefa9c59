"""Stability of a choice on the row sample: how alike the labels of repeated fits are.

A fit with as many clusters as the data have gives the same labels from other starts and on other halves of the rows.
With more clusters, some are split at places that chance decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.preparation import Preparation
from clustering.data.rows import Rows, in_memory_rows
from clustering.errors import DataError
from clustering.execution.engine import Engine
from clustering.fitting.initialization import StartsFromSource
from clustering.fitting.on_sample import SampleRunner, sample_passes
from clustering.fitting.options import Options
from clustering.models.model import AnyModel
from clustering.models.starts import RESTART_TOLERANCE
from clustering.models.survey import RowSample, Survey

Array = NDArray[np.float64]
Labels = NDArray[np.int32]

ROWS, ROWS_PER_CLUSTER = 2500, 60
"""Rows of the sample that fits are repeated on, at most: the larger of this and of so many for each cluster."""
RESTARTS, SPLITS = 5, 3
"""Single starts whose labels are compared with each other, and splits into two halves."""
STARTS_OF_HALF = 3
"""Starts of the fit to a half, of which the best counts."""
MOST_PASSES = 60
_STREAM = 0x53544142


class Stability(NamedTuple):
    """Adjusted Rand indices of repeated fits: 1 where all labels agree, about 0 where they agree by chance."""

    restarts: float | None
    """Mean over pairs of single starts; None where no start could be fitted."""
    halves: float | None
    """Mean over pairs of fits to two halves of the rows, compared on all of them."""


def stability(
    model: AnyModel, params: Any, survey: Survey, options: Options, preparation: Preparation | None, engine: Engine
) -> Stability:
    """Repeat a fit on rows of the sample, from single starts and on halves.

    Parameters
    ----------
    model, params
        A fitted model, whose clusters both halves get their share of.
    survey
        Survey of the prepared rows.
    options
        How to fit.
    preparation
        Preparation of the rows.
    engine
        Engine of the fit.
    """
    sample = survey.sample.highest(max(ROWS, ROWS_PER_CLUSTER * int(model.k)))
    missing = survey.observed is not None
    rows = in_memory_rows(sample.values, sample.represented, allow_missing=missing)
    refit = _Refit(model, survey, options, preparation, engine)
    seeds = np.random.SeedSequence([options.fit.seed, _STREAM, int(model.k)]).spawn(SPLITS)
    single = [refit.labels(sample, rows, seed=options.fit.seed + 1 + i, starts=1) for i in range(RESTARTS)]
    # A model with a likelihood compares more starts than it is given, and needs many passes for each.
    starts = STARTS_OF_HALF if model.free_parameters(sample.values.shape[1]) is None else 1
    halves = []
    strata = model.assign(params, rows).labels
    for i, seed in enumerate(seeds):
        parts = _halves(strata, np.random.Generator(np.random.PCG64(seed)))
        own = [refit.labels(_part(sample, half), rows, seed=options.fit.seed + i, starts=starts)
               for half in parts]  # fmt: skip
        halves.append((own[0], own[1]))
    weights = rows.weights
    pairs = [(single[i], single[j]) for i in range(RESTARTS) for j in range(i)]
    return Stability(_mean_index(pairs, weights), _mean_index(halves, weights))


class _Refit(NamedTuple):
    """Fits a model to rows of the sample anew."""

    model: AnyModel
    survey: Survey
    options: Options
    preparation: Preparation | None
    engine: Engine

    def labels(self, sample: RowSample, rows: Rows, *, seed: int, starts: int) -> Labels | None:
        """Fit to a sample and label rows; None where the fit fails."""
        fit = self.options.fit.model_copy(update={"seed": seed, "restarts": starts, "finalists": 1})
        options, survey = replace(self.options, fit=fit), replace(self.survey, samples=(sample,))
        with self._passes(sample) as runner:
            offered = StartsFromSource(runner.runner, self.model, survey, options, self.preparation)
            try:
                begun = self.model.initialize(offered).params[:1]
                tolerance = max(RESTART_TOLERANCE, options.rule.tolerance)
                (end,) = runner.converge(self.model, begun, tolerance, MOST_PASSES)
            except DataError:
                return None
        return self.model.assign(end.params, rows).labels

    def _passes(self, sample: RowSample) -> AbstractContextManager[SampleRunner]:
        return sample_passes(sample, self.engine, self.options.acceleration)


def _halves(strata: Labels, generator: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split rows at random into two halves that have equal parts of each stratum."""
    order = generator.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    return np.sort(order[::2]), np.sort(order[1::2])


def _part(sample: RowSample, index: NDArray[np.intp]) -> RowSample:
    return RowSample(
        sample.priorities[index], sample.positions[index], sample.weights[index], sample.values[index],
        sample.threshold,
    )  # fmt: skip


def _mean_index(pairs: Sequence[tuple[Labels | None, Labels | None]], weights: Array) -> float | None:
    values = [adjusted_rand_index(one, other, weights) for one, other in pairs if one is not None and other is not None]
    return float(np.mean(values)) if values else None


def adjusted_rand_index(one: Labels, other: Labels, weights: Array) -> float:
    """Compute the adjusted Rand index of two labellings (Hubert & Arabie 1985, doi:10.1007/BF01908075).

    Parameters
    ----------
    one, other
        Labels ``(n,)``, 0 or more.
    weights
        Weights ``(n,)``, which count as repeated rows once they are scaled to a mean of 1.
    """
    table = np.zeros((int(one.max()) + 1, int(other.max()) + 1))
    np.add.at(table, (one, other), weights * (len(weights) / weights.sum()))
    both, rows, columns = (_pairs(part) for part in (table, table.sum(axis=1), table.sum(axis=0)))
    total = float(_pairs(table.sum()))
    expected = rows * columns / total if total else 0.0
    largest = (rows + columns) / 2.0
    # Two labellings of a single cluster are alike, and no chance is left to subtract.
    return 1.0 if largest == expected else float((both - expected) / (largest - expected))


def _pairs(counts: Any) -> float:
    return float(np.sum(np.maximum(counts * (counts - 1.0), 0.0)) / 2.0)
