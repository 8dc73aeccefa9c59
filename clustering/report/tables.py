"""Tables of the page: clusters, what changed since the version before, criteria, and facts of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.plots.positions import with_units
from clustering.report.units import duration, size
from clustering.report.words import number

LISTED = 64
"""Largest number of clusters in a table: the largest clusters, in the order of their ids."""
COLUMNS = 12
"""Largest number of features, or of variables, with a column in the table."""

CRITERIA = {
    "aic": ("AIC", "2p − 2 log L: fit less a penalty for parameters. Lower is better, among fits of the same rows."),
    "bic": ("BIC", "p log W − 2 log L: as AIC, with a penalty that grows with the rows. Lower is better."),
    "icl": ("ICL", "BIC plus twice the entropy: prefers clusters that do not overlap. Lower is better."),
    "parameters": ("free parameters", "p in these formulas."),
    "log_likelihood": ("log-likelihood", "log L, of all rows under the model. Higher is better."),
    "entropy": ("entropy", "How torn rows are between clusters; 0 if each is sure of its own."),
}
"""Title of each information criterion, and what it says."""


def cluster_rows(fitted: FittedModel, clusters: ClusterNames) -> list[dict[str, Any]]:
    """List the clusters in the order of their ids; of very many, the largest.

    Parameters
    ----------
    fitted
        Fitted model.
    clusters
        Ids, names and colours of the clusters.
    """
    # Equal shares stay in the order of the ids, so that one run always gives the same page.
    listed = np.sort(np.argsort(-fitted.shares, kind="stable")[:LISTED])
    facts, columns = component_facts(fitted), center_columns(fitted)
    return [
        {
            "id": int(clusters.ids[c]),
            "name": clusters.names.get(int(clusters.ids[c])),
            "share": float(fitted.shares[c]),
            "center": [float(values[c]) for values in columns.values()],
            "colour": clusters.hex_colours[c],
            "facts": [float(values[c]) for values in facts.values()],
        }
        for c in listed
    ]


def component_facts(fitted: FittedModel) -> dict[str, NDArray[np.float64]]:
    """Return numbers of each component of a mixture ``(k,)``, by the head of their column.

    Parameters
    ----------
    fitted
        Fitted model.
    """
    components = fitted.components
    if components.weights is None:
        return {}
    columns = {"mixing weight": fitted.weights, "effective size": fitted.shares * fitted.summary.weight}
    conditions = fitted.track.get("conditions")
    if conditions is not None and len(conditions):
        columns["condition of Σ"] = conditions[-1]
    return {**columns, **components.numbers}


def center_columns(fitted: FittedModel) -> dict[str, NDArray[np.float64]]:
    """Return numbers of each center ``(k,)``, by the head of their column.

    Each feature has a column, or each variable with its mean where there are many features.

    Parameters
    ----------
    fitted
        Fitted model.
    """
    columns = fitted.centers
    units = {name: with_units("", attributes) for name, attributes in fitted.about.items()}
    if len(fitted.features) <= COLUMNS:
        return {str(f) + units.get(f.variable, ""): columns[:, i] for i, f in enumerate(fitted.features)}
    indices: dict[str, list[int]] = {}
    for column, feature in enumerate(fitted.features):
        indices.setdefault(feature.variable, []).append(column)
    return {
        f"{name}{units.get(name, '')}" + f", mean of {len(own):,}" * (len(own) > 1): columns[:, own].mean(axis=1)
        for name, own in list(indices.items())[:COLUMNS]
    }


def comparison_table(run: Mapping[str, Any], clusters: ClusterNames) -> dict[str, Any] | None:
    """Prepare the changes since the version before for the template; None where there was none.

    Parameters
    ----------
    run
        The content of ``run.json``.
    clusters
        Names of the clusters.
    """
    comparison = run.get("comparison")
    if comparison is None:
        return None
    rows = [
        {
            "id": int(i),
            "name": clusters.names.get(int(i)),
            "sizes": sizes,
            "churn": comparison["churn_by_cluster"].get(i),
        }
        for i, sizes in comparison["sizes"].items()
    ]
    # A cluster that was large and is empty now matters as much as one that has grown.
    rows = sorted(sorted(rows, key=lambda row: -max(row["sizes"]))[:LISTED], key=lambda row: row["id"])
    sentences = [f"Compared with run {comparison['with']}."]
    if comparison["churn"] is not None:
        sentences.append(f"{100 * comparison['churn']:.2f} % of the weight that had a label has another now.")
    for word in ("new", "lost"):
        ids = [str(i) for i in comparison[f"{word}_clusters"]]
        if ids:
            more = f" and {len(ids) - LISTED:,} more" * (len(ids) > LISTED)
            sentences.append(f"{word.capitalize()} clusters: {', '.join(ids[:LISTED])}{more}.")
    if run.get("followed"):
        sentences.append(f"Of the data: {run['followed']['told']}.")
    return {"rows": rows, "count": len(comparison["sizes"]), "sentences": " ".join(sentences)}


def criteria_rows(run: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """List the information criteria: title, value, and what it says.

    Parameters
    ----------
    run
        The content of ``run.json``.
    """
    values = run.get("criteria") or {}
    return [(title, number(values[name]), words) for name, (title, words) in CRITERIA.items() if name in values]


def facts_of(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield technical facts of a run, with their names; those that it does not have are left out.

    Parameters
    ----------
    run
        The content of ``run.json``.
    """
    if run.get("preprocess"):
        yield "preprocessing", str(run["preprocess"]["words"])
    if run.get("n_fitted") is not None:
        yield "rows of the fit", number(run["n_fitted"])
    for name, words in _FACTS.items():
        if run.get(name) is not None:
            value = run[name]
            yield words, value if isinstance(value, str) else size(value) if name in _BYTES else number(value)
    for stage, seconds in run.get("seconds", {}).items():
        yield f"time: {stage}", duration(seconds)
    for package, version in run.get("versions", {}).items():
        yield package, str(version)


_FACTS = {
    "seed": "seed", "config_sha256": "SHA-256 of the config", "source_fingerprint": "fingerprint of the source",
    "reads": "full reads of the source", "bytes_read": "read, decoded", "peak_rss_bytes": "peak memory of a process",
}  # fmt: skip
_BYTES = ("bytes_read", "peak_rss_bytes")
