"""Criteria of a choice, from the sums of its partition.

Weights count as repeated rows in every criterion. Distances are Euclidean, between prepared rows where the divergence
of the model embeds them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from clustering.models.partition import PartitionSums, SilhouetteSums

Array = NDArray[np.float64]


def partition_criteria(means: Array, sums: PartitionSums, silhouettes: SilhouetteSums) -> dict[str, float | None]:
    """Compute the criteria of a partition. A criterion that it does not have, such as those of one cluster, is None.

    Parameters
    ----------
    means
        Mean of each label ``(k, p)``.
    sums, silhouettes
        Sums of the first and the second read of the partition.

    Returns
    -------
    dict
        ``within``: the sum of squared distances from the means. ``calinski_harabasz`` (doi:10.1080/03610927408827101):
        higher is better. ``davies_bouldin`` (doi:10.1109/TPAMI.1979.4766909): lower is better. ``silhouette``, with
        squared Euclidean distances (Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7), ``silhouette_by_cluster``, the
        mean over clusters in place of rows, and ``simplified_silhouette``, with distances from centers: higher is
        better. ``smallest``: the weight of the smallest cluster.
    """
    used = np.flatnonzero(sums.weight > 0.0)
    weight, spread, mean = sums.weight[used], sums.spread[used], means[used]
    total, k = float(weight.sum()), len(used)
    within = float(weight @ spread)
    smallest = float(sums.weight.min())
    criteria: dict[str, float | None] = {
        "within": within, "calinski_harabasz": None, "davies_bouldin": None, "silhouette": None,
        "silhouette_by_cluster": None, "simplified_silhouette": None, "smallest": smallest,
    }  # fmt: skip
    if k < 2:
        return criteria
    middle = weight @ mean / total
    between = float(weight @ np.square(mean - middle).sum(axis=1))
    if within > 0.0 and total > k:
        criteria["calinski_harabasz"] = (between / (k - 1)) / (within / (total - k))
    criteria["davies_bouldin"] = _davies_bouldin(mean, silhouettes.distance[used] / weight)
    criteria["silhouette"] = float(silhouettes.silhouette.sum()) / total
    criteria["silhouette_by_cluster"] = float(np.mean(silhouettes.silhouette[used] / weight))
    criteria["simplified_silhouette"] = float(silhouettes.simplified.sum()) / total
    return criteria


def _davies_bouldin(means: Array, distances: Array) -> float | None:
    """Compute the mean over clusters of the largest (s_i + s_j) / ‖m_i − m_j‖."""
    worst = np.zeros(len(means))
    for i, center in enumerate(means):
        apart = np.sqrt(np.square(means - center).sum(axis=1))
        apart[i] = np.inf
        if not apart.all():
            # Two clusters with one mean have no finite ratio.
            return None
        worst[i] = ((distances[i] + distances) / apart).max()
    return float(worst.mean())


def likelihood_criteria(
    parameters: int, log_likelihood: float, entropy: float, weight: float, share: float
) -> dict[str, float | None]:
    """Compute AIC, BIC and ICL of a mixture; lower is better.

    AIC = 2p − 2 log L (Akaike 1974, doi:10.1109/TAC.1974.1100705), BIC = p log n − 2 log L (Schwarz 1978,
    doi:10.1214/aos/1176344136), and ICL = BIC + 2 entropy (Biernacki, Celeux & Govaert 2000, doi:10.1109/34.865189),
    with p parameters and n independent rows. Rows that repeat what their neighbours say count in part: n is the weight
    times the share of independent rows, and log L and the entropy are those of n average rows.

    Parameters
    ----------
    parameters
        Number of free parameters.
    log_likelihood, entropy
        Sums over all rows.
    weight
        Total weight of the rows.
    share
        Share of the rows that are independent.
    """
    rows = weight * share
    log_likelihood, entropy = log_likelihood * share, entropy * share
    bic = parameters * math.log(rows) - 2.0 * log_likelihood
    return {
        "parameters": parameters,
        "aic": 2.0 * parameters - 2.0 * log_likelihood,
        "bic": bic,
        "icl": bic + 2.0 * entropy,
        "log_likelihood": log_likelihood,
        "entropy": entropy,
    }


def bic_by_component(bic: float, parameters: int, responsible: Array) -> float:
    """Compute BIC where the parameters of each component count against its own rows; lower is better.

    The penalty of BIC for the parameters of a component is that of numbers which all n rows tell about. Only its own
    n π_j rows do, so that it is p log(n π_j) for p parameters (Figueiredo & Jain 2002, doi:10.1109/34.990138). That is
    less, most of all for small components of many features.

    Parameters
    ----------
    bic
        BIC of the mixture.
    parameters
        Number of free parameters of a component.
    responsible
        Weight that each component is responsible for ``(k,)``.
    """
    shares = responsible[responsible > 0.0] / responsible.sum()
    return bic + parameters * float(np.log(shares).sum())


def numbers_per_parameter(parameters: int, sums: PartitionSums, features: int, share: float) -> float:
    """Count the numbers that the smallest component is fitted to, for each of its parameters.

    A component of n rows in d features has n d numbers. Rows that repeat what their neighbours say count in part.

    Parameters
    ----------
    parameters
        Number of free parameters of the mixture.
    sums
        Sums of the partition by the likeliest components.
    features
        Number of features d.
    share
        Share of the rows that are independent.
    """
    return float(sums.weight.min()) * share * features * len(sums.weight) / parameters


def elbow(ks: Array, costs: Array) -> tuple[int | None, float]:
    """Choose the elbow of a cost curve: the k whose log cost is farthest below the chord of the curve.

    Both axes are scaled to 0 … 1, log cost against log k (Satopää et al. 2011, doi:10.1109/ICDCSW.2011.20, without
    their smoothing).

    Parameters
    ----------
    ks, costs
        Numbers of clusters, ascending, and their costs ``(m,)``.

    Returns
    -------
    int or None
        The k of the elbow; None where there are fewer than three choices, or the curve has none.
    float
        Its strength: the distance below the chord, 0 … 1.
    """
    positive = costs > 0.0
    ks, costs = ks[positive], costs[positive]
    if len(ks) < 3 or not costs[-1] < costs[0]:
        return None, 0.0
    across, down = np.log(ks), np.log(costs)
    x = (across - across[0]) / (across[-1] - across[0])
    y = (down - down[-1]) / (down[0] - down[-1])
    below = (1.0 - x) - y
    best = int(np.argmax(below))
    return (int(ks[best]), float(below[best])) if below[best] > 0.0 else (None, 0.0)
