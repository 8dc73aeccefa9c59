"""FAISS: an inverted-file index whose trained quantiser is the centers, ready to take and search vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clustering.exports.content import Content, optional
from clustering.exports.rule import (
    Affine,
    Array,
    Nearest,
    Step,
    UnitNorm,
    cannot_hold,
    check_complete_rows,
    rule_of,
)

TARGET = "FAISS"


def to_faiss(content: Content) -> Any:
    """Make the index, in single precision as all of FAISS.

    Parameters
    ----------
    content
        The model.

    Returns
    -------
    faiss.Index
        ``IndexIVFFlat`` with a list for each center, by inner product for cosine distances; in an
        ``IndexPreTransform`` where rows are prepared first. List numbers are positions of the centers.

    Raises
    ------
    OutputError
        If the model does not label by the nearest center.
    MissingDependencyError
        If FAISS is not installed.
    """
    faiss = optional("faiss-cpu", TARGET, module="faiss")
    check_complete_rows(content, TARGET)
    rule = rule_of(content)
    if not isinstance(rule.decision, Nearest):
        raise cannot_hold(
            content, TARGET, "its index has only centers: fit kmeans or soft_kmeans, or export to onnx or npz"
        )
    centers = rule.decision.centers + rule.origin
    k, p = centers.shape
    angular = rule.kind == "angular"
    quantiser = faiss.IndexFlatIP(p) if angular else faiss.IndexFlatL2(p)
    quantiser.add(_single(centers))
    index = faiss.IndexIVFFlat(quantiser, p, k, faiss.METRIC_INNER_PRODUCT if angular else faiss.METRIC_L2)
    index.is_trained = True
    if not rule.steps:
        return index
    made = faiss.IndexPreTransform(index)
    width = p
    for step in reversed(rule.steps):
        transform, width = _transform(faiss, step, width)
        made.prepend_transform(transform)
    made.is_trained = True
    return made


def write(content: Content, path: Path) -> None:
    """Write the index; ``faiss.read_index`` reads it.

    Parameters
    ----------
    content
        The model.
    path
        Path of the file.
    """
    index = to_faiss(content)
    optional("faiss-cpu", TARGET, module="faiss").write_index(index, str(path))


def _transform(faiss: Any, step: Step, width: int) -> tuple[Any, int]:
    """Return the transform of a step that makes rows of a width, and the width of the rows before it."""
    if isinstance(step, UnitNorm):
        return faiss.NormalizationTransform(width, 2.0), width
    assert isinstance(step, Affine)
    matrix = np.diag(step.matrix) if step.matrix.ndim == 1 else step.matrix
    before = len(step.offset)
    made = faiss.LinearTransform(before, width, True)
    faiss.copy_array_to_vector(_single(matrix.T).ravel(), made.A)
    faiss.copy_array_to_vector(_single(-(step.offset @ matrix)), made.b)
    made.is_trained = True
    made.set_is_orthonormal()
    return made, before


def _single(values: Array) -> Any:
    return np.ascontiguousarray(values, np.float32)
