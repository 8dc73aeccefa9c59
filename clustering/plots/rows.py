"""Some rows of a source for plots that show single rows: spread over it, the same in every call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.preparation import only_unit_norm
from clustering.data.reading import read_block
from clustering.data.rows import Rows, unit_weights
from clustering.data.source import Source
from clustering.errors import ConfigError, DataError
from clustering.fitting.fitted_model import FittedModel
from clustering.models.model import is_soft

Array = NDArray[np.float64]

PLACES = 8
"""Largest number of blocks that the rows are taken from."""


@dataclass(frozen=True, eq=False)
class SampledRows:
    """Some complete rows of a source, with their labels under a model."""

    values: NDArray[Any]
    """Decoded rows ``(n, d)``, of length 1 where the preparation has unit norm."""
    prepared: NDArray[Any]
    """The same rows as the model sees them ``(n, p)``."""
    positions: NDArray[np.int64]
    """Row number of the cluster of each ``(n,)``."""
    complete: bool
    """Whether these are all complete rows of the source."""

    @property
    def words(self) -> str:
        """How many rows these are, for a label."""
        return f"{len(self.values):,} rows" + ("" if self.complete else " from all over the data")


class SpreadRows(NamedTuple):
    """Some decoded rows without missing features, spread over a source."""

    parts: tuple[Rows, ...]
    """Rows of each block that has any."""
    complete: bool
    """Whether these are all rows of the source."""

    def with_length_one(self, fitted: FittedModel) -> SpreadRows:
        """Return the rows as a plot shows them: of length 1 where the preparation of a model has unit norm.

        A zero row has no direction, and so no cluster: it is left out there.

        Parameters
        ----------
        fitted
            Fitted model.
        """
        if fitted.preparation is None or not fitted.preparation.unit_norm:
            return self
        parts = [only_unit_norm(part.values.shape[1]).apply(part) for part in self.parts]
        complete = self.complete and sum(map(len, parts)) == sum(map(len, self.parts))
        return SpreadRows(tuple(part for part in parts if len(part)), complete)


def spread_rows(source: Source, n: int) -> SpreadRows:
    """Read some decoded rows without missing features, spread over a source.

    Parameters
    ----------
    source
        Source to read from.
    n
        Largest number of rows, up to rounding.
    """
    # Blocks are small, so that hardly more rows are read than are drawn.
    plan = source.plan(block_bytes=max(1, n * source.row_bytes // PLACES))
    blocks = np.unique(np.linspace(0, len(plan) - 1, PLACES).astype(np.int64))
    each = -(-n // len(blocks))
    parts, read, kept = [], 0, 0
    for index in blocks:
        rows = read_block(source, plan.block(int(index)))
        read += len(rows)
        chosen = np.zeros(len(rows), bool)
        chosen[np.unique(np.linspace(0, len(rows) - 1, min(each, len(rows))).astype(np.int64))] = True
        # Rows with missing features cannot be plotted.
        part = rows.select(chosen if rows.has_missing is None else chosen & ~rows.has_missing)
        kept += len(part)
        if len(part):
            parts.append(part)
    return SpreadRows(tuple(parts), len(blocks) == len(plan) and kept == read)


def sampled_rows(source: Source, fitted: FittedModel, n: int) -> SampledRows:
    """Read some rows and label them.

    Parameters
    ----------
    source
        Source to read from, whose features are those of the model.
    fitted
        Fitted model.
    n
        Largest number of rows, up to rounding, 1 or more.

    Raises
    ------
    ConfigError
        If the number is not a whole number of 1 or more.
    DataError
        If no row is complete.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ConfigError(f"sample is {n!r}; a whole number of rows of 1 or more is needed")
    rows = spread_rows(source, int(n)).with_length_one(fitted)
    if not rows.parts:
        raise DataError("no row of the data is complete, so none can be drawn; check the mask and missing values")
    return labelled_rows(rows, fitted)


def labelled_rows(rows: SpreadRows, fitted: FittedModel) -> SampledRows:
    """Label rows.

    Parameters
    ----------
    rows
        Rows of 1 part or more, as a plot shows them.
    fitted
        Fitted model.
    """
    parts = rows.parts
    prepared = [as_model_sees(fitted, part) for part in parts]
    labels = [fitted.model.assign(fitted.params, part).labels for part in prepared]
    return SampledRows(
        np.concatenate([part.decoded().values for part in parts]).astype(np.float64),
        np.concatenate([part.decoded().values for part in prepared]).astype(np.float64),
        np.concatenate(labels).astype(np.int64),
        rows.complete,
    )


def as_model_sees(fitted: FittedModel, rows: Rows) -> Rows:
    """Prepare rows, and give each the weight 1: rows of weight 0 have labels and responsibilities too.

    Parameters
    ----------
    fitted
        Fitted model.
    rows
        Decoded rows.
    """
    prepared = rows if fitted.preparation is None else fitted.preparation.apply(rows)
    return replace(prepared, weights=unit_weights(len(prepared)))


def responsibilities(fitted: FittedModel, rows: Rows) -> Array:
    """Compute the responsibilities of decoded rows ``(n, k)``.

    Parameters
    ----------
    fitted
        Fitted soft model.
    rows
        Decoded rows.
    """
    return _responsibilities(fitted, as_model_sees(fitted, rows))


def responsibilities_of(fitted: FittedModel, sample: SampledRows) -> Array:
    """Compute the responsibilities of sampled rows ``(n, k)``.

    Parameters
    ----------
    fitted
        Fitted soft model.
    sample
        Rows.
    """
    return _responsibilities(fitted, _as_rows(sample))


def _responsibilities(fitted: FittedModel, prepared: Rows) -> Array:
    model = fitted.model
    assert is_soft(model)
    resp = np.empty((len(prepared), model.k))
    for part in model.e_step(fitted.params, prepared):
        resp[part.row_index] = (part.weighted_resp / part.weighted_resp.sum(axis=0)).T
    return resp


def distances(fitted: FittedModel, sample: SampledRows) -> Array:
    """Compute the distances of sampled rows from every center ``(n, k)``.

    Parameters
    ----------
    fitted
        Fitted model.
    sample
        Rows.
    """
    made = np.empty((len(sample.prepared), fitted.model.k))
    for part in fitted.model.distances(fitted.params, _as_rows(sample)):
        made[part.row_index] = part.distances.T
    return made


def _as_rows(sample: SampledRows) -> Rows:
    n = len(sample.prepared)
    return Rows(sample.prepared, unit_weights(n), shape=(n,), grid=(n,), prepared=True)
