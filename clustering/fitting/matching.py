"""Which components of a new model are those of the one before: they keep their ids.

New components and old ones are paired by the Hungarian method (Kuhn 1955, doi:10.1002/nav.3800020109). Their cost is
the square of a distance that belongs to the kind of model:

- of kmeans and soft_kmeans, the Euclidean distance of the centers where `divergences.embed` places them, which is
  near the root of the divergence: Mahalanobis' distance, Hellinger's for kullback_leibler, that of the logarithms for
  itakura_saito, the chord for the cosine;
- of gaussian_mixture, the root of Bhattacharyya's distance, which tells components with one mean apart by their shapes.

A pair is accepted where the new component is nearer to the old one than half the distance from there to the nearest
other old one. Nothing in this rule has a scale of its own. By the triangle inequality, such a component is nearer to
that old one than to any other, so that one label cannot be contended for by two clusters of before. (The root of
Bhattacharyya's distance obeys it where shapes are equal; where they are not, the cost decides.) What is farther than
that costs as much as no partner: components that come from nowhere do not drag others away from theirs.

- k grew: of a cluster that split, the nearer part keeps the id, and the other is new.
- k shrank: of two that merged, the one keeps its id that the outcome is nearer to; half-way between them it is new.
- One component before (k = 1) is always found again: there is no other that it could be taken for.
- Old components at one place cannot be told apart; what counts is the nearest one elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clustering.fitting.component_space import ComparedComponents, compare_components, incomparable_reason
from clustering.fitting.fitted_model import FittedModel

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

SAME_POSITION = 1e-9
"""Two old components no farther from each other than this share of the farthest one's distance are at one place."""
AT_ONCE = 4_000_000
"""Distances that are held at once, about."""


def match_ids(fitted: FittedModel, previous: FittedModel) -> FittedModel:
    """Give the components of a new model the ids of those before, and put them in the order of their ids.

    Components without a partner get ids above any that was ever given. All do where the models cannot be compared,
    and a remark says why.
    """
    reason = incomparable_reason(fitted, previous)
    if reason is not None:
        remark = f"labels start anew at {previous.largest_id + 1}: {reason}"
        return renumber(replace(fitted, remarks=(*fitted.remarks, remark)), previous.largest_id + 1)
    partners = match(*compare_components(fitted, previous))
    ids = previous.ids[partners]
    new = np.flatnonzero(partners < 0)
    # The largest first, so that they do not depend on the order that the fit left them in.
    ids[new[np.argsort(-fitted.shares[new], kind="stable")]] = previous.largest_id + 1 + np.arange(len(new))
    return reorder(replace(fitted, largest_id=previous.largest_id), ids)


def renumber(fitted: FittedModel, first: int) -> FittedModel:
    """Give the components ids from `first` on."""
    return replace(fitted, ids=first + np.arange(fitted.model.k))


def reorder(fitted: FittedModel, ids: Ids) -> FittedModel:
    """Give the components their ids ``(k,)``, and put them in the order of these."""
    order = np.argsort(ids)
    return replace(fitted.reordered(order), ids=ids[order])


def match(new: ComparedComponents, old: ComparedComponents) -> Ids:
    """Find the old component that each new one is ``(k,)``: its place, or −1 where it is none of them."""
    k, limits = len(new.centers), _limits(old)
    partners, parts = np.full(k, -1), []
    for part in _parts(k, len(limits)):
        apart = new.distances(old, part)
        row, column = np.nonzero(apart < limits)
        parts.append((row + part.start, column, apart[row, column]))
    row, column, near = (np.concatenate(one) for one in zip(*parts, strict=True))
    # Where there is no other, there is no limit either.
    cost = (near / np.where(np.isinf(limits), 2.0 * near.max(initial=0.0) + 1.0, limits)[column]) ** 2
    # What has no candidate in common is matched on its own, to the same outcome as in one large table.
    count = k + len(limits)
    links = coo_array((np.ones(len(row)), (row, column + k)), (count, count))
    groups = connected_components(links, directed=False)[1][row]
    for group in np.unique(groups):
        own = groups == group
        (left, i), (right, j) = (np.unique(one[own], return_inverse=True) for one in (row, column))
        table = np.ones((len(left), len(right)))
        table[i, j] = cost[own]
        pairs = linear_sum_assignment(table)
        accepted = table[pairs] < 1.0
        partners[left[pairs[0][accepted]]] = right[pairs[1][accepted]]
    return partners


def _limits(old: ComparedComponents) -> Array:
    """Half the distance from each old component to the nearest other one ``(k,)``; infinite where there is none."""
    k = len(old.centers)
    nearest = np.empty(k)
    for part in _parts(k, k):
        apart = old.distances(old, part)
        others = apart > SAME_POSITION * apart.max(axis=1, keepdims=True)
        nearest[part] = np.where(others, apart, np.inf).min(axis=1)
    return nearest / 2.0


def _parts(rows: int, columns: int) -> list[slice]:
    step = max(1, AT_ONCE // columns)
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]
