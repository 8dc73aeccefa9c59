"""Divergences of rows from centers: Bregman divergences, whose best center is the mean, and the cosine.

For a convex φ the divergence is D(x, c) = φ(x) − φ(c) − ⟨x − c, ∇φ(c)⟩, and the weighted mean minimises Σ w D(x, c)
whatever φ is (Banerjee, Merugu, Dhillon & Ghosh 2005, JMLR 6:1705–1749).

==================  =====================================  ==============================
name                D(x, c)                                rows
==================  =====================================  ==============================
squared_euclidean   Σ (x − c)²                             any
mahalanobis         ‖M (x − c)‖², MᵀM the inverse of       any
                    the covariance of all rows
kullback_leibler    Σ x log(x / c) − x + c                 zero or more
itakura_saito       Σ x / c − log(x / c) − 1               above zero
cosine              1 − x·c / (‖x‖ ‖c‖)                    not all zero; centers are of length 1
==================  =====================================  ==============================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import in_memory_rows
from clustering.errors import ConfigError, DataError, DomainError, nearest
from clustering.models import difference_kernels, divergence_kernels, lloyd, soft_kernels
from clustering.models.assignment import AssignedRows, sub_blocks
from clustering.models.option_names import DIVERGENCES, Divergence
from clustering.models.prepared_centers import PreparedCenters, prepare_centers

Array = NDArray[np.float64]
Fill = Callable[[Array, Array, Array], None]

CURVATURE: dict[Divergence, float] = {
    "squared_euclidean": 1.0, "mahalanobis": 1.0, "cosine": 0.5, "kullback_leibler": 2.0, "itakura_saito": 0.5,
}  # fmt: skip
"""Divergence of two close rows, per unit of their squared distance where `embed` maps them."""

METRIC_FACTOR: dict[Divergence, float] = {"squared_euclidean": 1.0, "mahalanobis": 1.0, "cosine": 0.5}
"""Divergence of two rows, per unit of their squared distance where `metric_points` maps them; without the divergences
that are no squares of a metric."""

TINY = float(np.finfo(float).tiny)
"""Zeros of centers count as this number in logarithms, so that no divergence is infinite."""


_REMEDY = "mask such rows with source.mask, or choose another model or divergence"


def check_divergence(divergence: Any) -> None:
    """Refuse an unknown divergence.

    Parameters
    ----------
    divergence
        Name that a user gave.

    Raises
    ------
    ConfigError
        If it is not one of `DIVERGENCES`.
    """
    if divergence not in DIVERGENCES:
        raise ConfigError(f"divergence is {divergence!r}; {nearest(str(divergence), DIVERGENCES)}")


def check_domain(divergence: Divergence, values: NDArray[Any]) -> None:
    """Refuse rows that a divergence is not defined for.

    Parameters
    ----------
    divergence
        Divergence of the model.
    values
        Rows ``(n, d)``, not less an origin.

    Raises
    ------
    DomainError
        With the first such value.
    """
    if not len(values) or is_translation_invariant(divergence):
        return
    if divergence == "cosine":
        whole = values.any(axis=1)
        if not whole.all():
            raise DomainError(
                "a row of zeros", "it has no direction, and the cosine compares directions", None, _REMEDY
            )
        return
    positive = divergence == "itakura_saito"
    least = values.min()
    if least < 0 or (positive and least <= 0):
        # One minimum shows whether all is well, so the place is looked for only in the error.
        row, column = np.unravel_index(int(np.argmax(values <= 0 if positive else values < 0)), values.shape)
        need = "above zero" if positive else "of zero or more"
        raise DomainError(
            f"value {values[row, column]:.6g}", f"{divergence} compares numbers {need}", int(column), _REMEDY
        )


def choose_origin(divergence: Divergence, middle: Array) -> Array:
    """Choose the origin ``(d,)``: the middle of the rows, or zero where divergences depend on the distance from zero.

    Parameters
    ----------
    divergence
        Divergence of the model.
    middle
        Middle of the rows ``(d,)``.
    """
    return middle if is_translation_invariant(divergence) else np.zeros_like(middle)


def is_translation_invariant(divergence: Divergence) -> bool:
    """Return whether a divergence depends on x − c alone, so that sums may be taken about any point.

    Parameters
    ----------
    divergence
        Divergence of the model.
    """
    return divergence in ("squared_euclidean", "mahalanobis")


def rounding_error(divergence: Divergence, matrix: Array, row: Array, center: Array) -> float:
    """Bound the divergence between a row and an equal center that rounding may cause.

    Parameters
    ----------
    divergence
        Divergence of the model.
    matrix
        M of the Mahalanobis distance ``(d, d)``.
    row, center
        Row and center ``(d,)``, both less the origin.
    """
    match divergence:
        case "mahalanobis":
            # Either point may be off by about 50 ε of its size, and a squared distance by the square of that.
            turned_row, turned_center = matrix @ row, matrix @ center
            return 1e-28 * float(turned_row @ turned_row + turned_center @ turned_center)
        case "kullback_leibler":
            return 1e-14 * float(row.sum() + center.sum())
        case "itakura_saito":
            return 1e-14 * len(row)
        case _:
            return 1e-28 * float(row @ row + center @ center)


def whitening(divergence: Divergence, covariance: Array) -> Array:
    """Make the matrix M of the Mahalanobis distance ``(d, d)``; empty for other divergences.

    Parameters
    ----------
    divergence
        Divergence of the model.
    covariance
        Covariance of all rows ``(d, d)``, or its diagonal ``(d,)``.

    Raises
    ------
    DataError
        If the covariance is singular.
    """
    if divergence != "mahalanobis":
        return np.zeros((0, 0))
    full = np.diag(covariance) if covariance.ndim == 1 else covariance
    roots = np.sqrt(np.diagonal(full))
    singular = DataError(
        "the covariance of the data is singular, and the mahalanobis distance needs its inverse: features are "
        "constant or depend on each other; drop such features, or choose another model.divergence"
    )
    if not (roots > 0).all():
        raise singular
    try:
        # Pivots of the correlation matrix do not depend on the scale of the features.
        lower = np.linalg.cholesky(full / np.outer(roots, roots))
    except np.linalg.LinAlgError as error:
        raise singular from error
    if not (np.diagonal(lower) ** 2 > 16 * len(full) * np.finfo(float).eps).all():
        raise singular
    # The inverse of a lower triangle is one too; only rounding leaves numbers above its diagonal.
    matrix: Array = np.tril(np.linalg.inv(lower)) / roots
    return np.ascontiguousarray(matrix)


def embed(divergence: Divergence, values: NDArray[Any], origin: Array, matrix: Array) -> Array:
    """Map rows to where squared Euclidean distance is near the divergence, for seeding and matching.

    Parameters
    ----------
    divergence
        Divergence of the model.
    values
        Rows or centers ``(n, d)``, not less the origin.
    origin
        Origin of the params ``(d,)``.
    matrix
        M of the Mahalanobis distance ``(d, d)``.

    Returns
    -------
    Array
        Mapped rows ``(n, d)``.
    """
    rows: Array = values.astype(np.float64)
    match divergence:
        case "squared_euclidean":
            rows = rows - origin
        case "mahalanobis":
            rows = (rows - origin) @ matrix.T
        case "cosine":
            rows = unit_rows(rows)
        case "kullback_leibler":
            # Where x is near c, x log(x / c) − x + c is about 2 (√x − √c)².
            rows = np.sqrt(rows)
        case "itakura_saito":
            # Where x is near c, x / c − log(x / c) − 1 is about ½ (log x − log c)².
            rows = np.log(rows)
    return np.ascontiguousarray(rows)


def unembed(divergence: Divergence, points: Array, matrix: Array) -> Array:
    """Map points of `embed` back to centers less the origin ``(k, d)``.

    Parameters
    ----------
    divergence
        Divergence of the model.
    points
        Points where `embed` maps centers ``(k, d)``.
    matrix
        M of the Mahalanobis distance ``(d, d)``.
    """
    match divergence:
        case "mahalanobis":
            back: Array = np.asarray(np.linalg.solve(matrix, points.T).T, np.float64)
            return back
        case "kullback_leibler":
            return points**2
        case "itakura_saito":
            return np.asarray(np.exp(points), np.float64)
        case _:
            return points


def unit_rows(rows: Array) -> Array:
    """Scale rows to length 1, also where squares overflow or underflow.

    Parameters
    ----------
    rows
        Rows ``(n, d)``, none of zeros.
    """
    largest = np.abs(rows).max(axis=1)
    extreme = ~((largest > 1e-250) & (largest < 1e250))
    if extreme.any():
        # The length of such a row overflows or underflows; scaling by a power of two loses no digit.
        rows = rows.copy()
        rows[extreme] = np.ldexp(rows[extreme], -np.frexp(largest[extreme])[1][:, None])
    return rows / _norms(rows)[:, None]


def normalized(divergence: Divergence, columns: Array) -> Array:
    """Scale columns to length 1 for the cosine; other divergences take them unchanged.

    Parameters
    ----------
    divergence
        Divergence of the model.
    columns
        Rows as columns ``(d, m)``.
    """
    if divergence != "cosine":
        return columns
    return np.ascontiguousarray(unit_rows(np.ascontiguousarray(columns.T)).T)


def _norms(rows: Array) -> Array:
    largest = np.abs(rows).max(axis=1)
    # Features are divided by the largest one first, so that no square leaves float64.
    norms: Array = largest * np.sqrt(np.einsum("nd,nd->n", rows / largest[:, None], rows / largest[:, None]))
    return norms


def metric_points(divergence: Divergence, matrix: Array, centers: Array) -> Array:
    """Map centers ``(k, d)`` to where `assign_rows` compares their Euclidean distances from rows.

    Parameters
    ----------
    divergence
        Divergence of the model, one of `METRIC_FACTOR`.
    matrix
        M of the Mahalanobis distance ``(d, d)``.
    centers
        Centers less the origin ``(k, d)``; for the cosine of length 1.
    """
    # Rows and centers go through the same loop, so that a row at its center has distance 0 exactly.
    return _whitened(matrix, centers) if divergence == "mahalanobis" else centers


def assign_rows(
    divergence: Divergence,
    values: NDArray[Any],
    origin: Array,
    matrix: Array,
    centers: Array,
    *,
    margins: bool = False,
) -> Iterator[AssignedRows]:
    """Assign rows to the centers of least divergence, a sub-block at a time.

    Parameters
    ----------
    divergence
        Divergence of the model, other than squared_euclidean, which `lloyd` assigns by.
    values
        Rows ``(n, d)``, not less the origin.
    origin, matrix, centers
        As in the params: ``(d,)``, M of the Mahalanobis distance ``(d, d)``, and ``(k, d)`` less the origin.
    margins
        Whether margins are wanted; only for a divergence of `METRIC_FACTOR`.

    Yields
    ------
    AssignedRows
        Rows less the origin with labels and divergences; for the cosine, rows of length 1.

    Raises
    ------
    DomainError
        If a row has a value that the divergence is not defined for.
    """
    check_domain(divergence, values)
    prepared = prepare_centers(np.zeros(centers.shape[1]), metric_points(divergence, matrix, centers))
    for start, stop, rows in sub_blocks(values, origin):
        match divergence:
            case "mahalanobis":
                yield AssignedRows(start, stop, rows, *_label(_whitened(matrix, rows), prepared, margins))
            case "cosine":
                rows[:] = unit_rows(rows)
                labels, squares, apart = _label(rows, prepared, margins)
                # The squared distance of two rows of length 1 is twice 1 less their cosine.
                yield AssignedRows(start, stop, rows, labels, 0.5 * squares, apart)
            case _:
                columns = np.ascontiguousarray(rows.T)
                out = np.empty((len(centers), len(rows)))
                make_divergences(divergence, matrix, centers)(columns, np.zeros(0), out)
                labels, least = np.empty(len(rows), np.int32), np.empty(len(rows))
                divergence_kernels.least_of(out, labels, least)
                yield AssignedRows(start, stop, rows, labels, least)


def _label(rows: Array, prepared: PreparedCenters, margins: bool) -> tuple[NDArray[np.int32], Array, Array | None]:
    """Return labels, squared distances and margins ``(m,)`` of rows; no margins where they are not wanted."""
    if not margins:
        return *lloyd.label(in_memory_rows(rows), prepared), None
    # No row is above an infinite budget, so none is added up as a far one.
    split = lloyd.start_split(len(rows), prepared, np.full(len(prepared.centers.centers), np.inf))
    return *lloyd.label(in_memory_rows(rows), prepared, split), split.margins


def _whitened(matrix: Array, rows: Array) -> Array:
    """Multiply rows ``(n, d)`` by the matrix, with sums always in the same order."""
    made = np.empty(rows.shape[::-1])
    soft_kernels.multiply(matrix, np.ascontiguousarray(rows.T), made)
    return np.ascontiguousarray(made.T)


def make_divergences(divergence: Divergence, matrix: Array, centers: Array) -> Fill:
    """Make a function that fills ``(k, m)`` with the divergences of columns ``(d, m)`` from all centers.

    For the cosine, the function also scales the columns to length 1 in place.

    Parameters
    ----------
    divergence
        Divergence of the model.
    matrix
        M of the Mahalanobis distance ``(d, d)``.
    centers
        Centers less the origin ``(k, d)``.

    Returns
    -------
    callable
        Takes columns less the origin, their squared norms ``(m,)``, and the array to fill.
    """
    match divergence:
        case "squared_euclidean":
            return partial(_squared_euclidean, centers)
        case "mahalanobis":
            return partial(_mahalanobis, matrix, _whitened(matrix, centers))
        case "cosine":
            return partial(_cosine, centers)
        case "kullback_leibler":
            logs = np.log(np.maximum(centers, TINY))
            return partial(_kullback_leibler, centers, logs)
        case "itakura_saito":
            return partial(_itakura_saito, np.maximum(centers, TINY))


def _squared_euclidean(centers: Array, columns: Array, _: Array, out: Array) -> None:
    difference_kernels.squares(columns, centers, out)


def _mahalanobis(matrix: Array, centers: Array, columns: Array, _: Array, out: Array) -> None:
    white = np.empty(columns.shape)
    soft_kernels.multiply(matrix, columns, white)
    difference_kernels.squares(white, centers, out)


def _cosine(centers: Array, columns: Array, _: Array, out: Array) -> None:
    columns[:] = normalized("cosine", columns)
    difference_kernels.squares(columns, centers, out)
    out *= 0.5


def _kullback_leibler(centers: Array, logs: Array, columns: Array, _: Array, out: Array) -> None:
    divergence_kernels.kullback_leibler(columns, centers, logs, out)


def _itakura_saito(centers: Array, columns: Array, _: Array, out: Array) -> None:
    divergence_kernels.itakura_saito(columns, centers, out)


def objective_decrease(
    divergence: Divergence, matrix: Array, weight: Array, total: Array, new: Array, old: Array
) -> float:
    """Compute the decrease of Σ w D when centers move from `old` to `new`.

    Where `new` is the mean, Σ w D(x, old) = Σ w D(x, new) + W D(new, old).

    Parameters
    ----------
    divergence
        Divergence of the model.
    matrix
        M of the Mahalanobis distance ``(d, d)``.
    weight, total
        Σ w ``(k,)`` and Σ w x ``(k, d)``.
    new, old
        Centers ``(k, d)``; the new ones as `update_centers` gives them.
    """
    if divergence == "cosine":
        # 1 − x·c is linear in c, and a center of the cosine is no mean, so the identity above does not hold.
        return float(np.sum(total * (new - old)))
    return float(weight @ _between(divergence, matrix, new, old))


def _between(divergence: Divergence, matrix: Array, new: Array, old: Array) -> Array:
    """Divergence of each new center from its old one ``(k,)``."""
    match divergence:
        case "mahalanobis":
            each = ((new - old) @ matrix.T) ** 2
        case "kullback_leibler":
            logs = np.log(np.maximum(new, TINY)) - np.log(np.maximum(old, TINY))
            each = new * logs - new + old
        case "itakura_saito":
            ratio = np.maximum(new, TINY) / np.maximum(old, TINY)
            each = ratio - np.log(ratio) - 1.0
        case _:
            each = (new - old) ** 2
    # A divergence is never negative, but rounding between close centers may be.
    total: Array = each.sum(axis=1).clip(0.0)
    return total


def update_centers(divergence: Divergence, weight: Array, first: Array, before: Array) -> Array:
    """Compute centers of least divergence ``(k, d)``: the mean, scaled to length 1 for the cosine.

    Parameters
    ----------
    divergence
        Divergence of the model.
    weight, first
        Σ w ``(k,)`` or ``(k, d)``, and Σ w x ``(k, d)``.
    before
        Present centers ``(k, d)``, which stay where there are no rows.
    """
    weights = np.broadcast_to(weight[:, None] if weight.ndim == 1 else weight, first.shape)
    filled = weights > 0.0
    centers = np.where(filled, first / np.where(filled, weights, 1.0), before)
    if divergence == "cosine":
        norms = np.sqrt(np.einsum("kd,kd->k", centers, centers))
        # Directions that cancel out have no mean direction, so the center stays.
        directed = norms > 1e-12
        centers = np.where(directed[:, None], centers / np.where(directed, norms, 1.0)[:, None], before)
    return centers
