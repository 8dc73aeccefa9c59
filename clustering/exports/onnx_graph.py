"""ONNX: a graph in double precision that labels rows as the model does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from clustering.exports.content import Content, optional
from clustering.exports.rule import Gaussians, Linear, Nearest, Rule, UnitNorm, check_complete_rows, rule_of

TARGET = "ONNX"
OPSET, IR = 18, 9
"""Versions of the operators and of the file, which runtimes since 2023 read."""


class _Graph:
    """Nodes and constants of a graph that is being made; each method adds nodes and returns the name of a result."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any) -> str:
        """Add a constant."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node."""
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name


def to_onnx(content: Content) -> Any:
    """Make the graph.

    Parameters
    ----------
    content
        The model.

    Returns
    -------
    onnx.ModelProto
        Input ``rows (n, d)`` of float64, outputs ``labels (n,)``, the ids of the clusters as int64, and
        ``scores (n, k)``, the largest of which decides.

    Raises
    ------
    OutputError
        If the model labels rows with missing features.
    MissingDependencyError
        If the package onnx is not installed.
    """
    onnx = optional("onnx", TARGET)
    check_complete_rows(content, TARGET)
    rule, fitted = rule_of(content), content.fitted
    graph = _Graph(onnx)
    scores = graph.add("Identity", _scores(graph, rule, _steps(graph, rule)), output="scores")
    best = graph.add("ArgMax", scores, axis=1, keepdims=0)
    graph.add("Gather", graph.constant(np.asarray(content.clusters.ids, np.int64)), best, output="labels")
    d, double, whole = len(fitted.features), onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64
    info = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            fitted.model.kind,
            [info("rows", double, ["n", d])],
            [info("labels", whole, ["n"]), info("scores", double, ["n", fitted.model.k])],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="zarr-clustering",
    )
    about = {
        "kind": content.kind,
        "features": json.dumps([str(feature) for feature in fitted.features]),
        "names": json.dumps(content.clusters.display_names),
    }
    onnx.helper.set_model_props(made, about)
    onnx.checker.check_model(made)
    return made


def write(content: Content, path: Path) -> None:
    """Write the graph.

    Parameters
    ----------
    content
        The model.
    path
        Path of the file.
    """
    path.write_bytes(to_onnx(content).SerializeToString(deterministic=True))


def _steps(graph: _Graph, rule: Rule) -> str:
    """Add the steps that rows go through."""
    rows = "rows"
    for step in rule.steps:
        if isinstance(step, UnitNorm):
            squares = graph.add("ReduceSum", graph.add("Mul", rows, rows), graph.constant(np.array([1])), keepdims=1)
            rows = graph.add("Div", rows, graph.add("Sqrt", squares))
            continue
        less = graph.add("Sub", rows, graph.constant(step.offset))
        rows = graph.add("Mul" if step.matrix.ndim == 1 else "MatMul", less, graph.constant(step.matrix))
    return graph.add("Sub", rows, graph.constant(rule.origin)) if rule.origin.any() else rows


def _scores(graph: _Graph, rule: Rule, rows: str) -> str:
    """Add the scores of the rows ``(n, k)``."""
    decision = rule.decision
    match decision:
        case Nearest(centers):
            # −½ ‖x − m‖², less what depends on x alone.
            return _linear(graph, rows, centers, -0.5 * (centers**2).sum(axis=1))
        case Linear(slopes, shifts):
            return _linear(graph, rows, slopes, shifts)
        case Gaussians(kind="tied" | "full"):
            return _full_gaussians(graph, decision, rows)
        case Gaussians():
            return _diagonal_gaussians(graph, decision, rows)


def _linear(graph: _Graph, rows: str, slopes: Any, shifts: Any) -> str:
    return graph.add("Add", graph.add("MatMul", rows, graph.constant(slopes.T)), graph.constant(shifts))


def _diagonal_gaussians(graph: _Graph, gaussians: Gaussians, rows: str) -> str:
    means = gaussians.means
    precisions = np.ones_like(means)
    if gaussians.covariances.size:
        precisions = np.broadcast_to(1.0 / gaussians.covariances.reshape(len(means), -1), means.shape)
    shifts = gaussians.constants - 0.5 * (means**2 * precisions).sum(axis=1)
    bent = graph.add("MatMul", graph.add("Mul", rows, rows), graph.constant(-0.5 * precisions.T))
    return graph.add("Add", bent, _linear(graph, rows, means * precisions, shifts))


def _full_gaussians(graph: _Graph, gaussians: Gaussians, rows: str) -> str:
    # One tied factor serves all components.
    factors = gaussians.factors if gaussians.kind == "full" else gaussians.factors[None]
    turned = (factors @ gaussians.means[:, :, None])[:, :, 0]
    # A batch of products: rows (n, p) by each factor (k, p, p), less the turned mean.
    white = graph.add("MatMul", rows, graph.constant(factors.mT))
    less = graph.add("Sub", white, graph.constant(turned[:, None, :]))
    squares = graph.add("ReduceSum", graph.add("Mul", less, less), graph.constant(np.array([2])), keepdims=0)
    halves = graph.add("Mul", graph.add("Transpose", squares, perm=[1, 0]), graph.constant(np.array(-0.5)))
    return graph.add("Add", halves, graph.constant(gaussians.constants))
