"""Matching: finds the new components that are old ones, so that ids keep their meaning from version to version.

New and old components are paired by the Hungarian method (Kuhn 1955, doi:10.1002/nav.3800020109). The cost of a pair is
the square of a distance that depends on the kind of model:

- kmeans and soft_kmeans: the Euclidean distance of the centers where `divergences.embed` places them. It is near the
  root of the divergence: the Mahalanobis distance, the Hellinger distance for kullback_leibler, the distance of the
  logarithms for itakura_saito, the chord for the cosine.
- gaussian_mixture: the root of Bhattacharyya's distance, which also distinguishes components of equal mean by their
  covariances.

A pair is accepted if the new component is nearer to the old one than half the distance from the old one to its nearest
other old component. This rule needs no threshold. By the triangle inequality, such a new component is nearer to this
old one than to any other, so two old components never compete for it. (The root of Bhattacharyya's distance obeys the
triangle inequality where covariances are equal; otherwise the cost decides.) A pair beyond this limit costs as much as
no partner, so a component that appears far from all others does not change the pairs of the others.

- k grew: when a cluster splits, the nearer part keeps the id and the other part is new.
- k shrank: when two clusters merge, the result keeps the id of the nearer one; half-way between them it is new.
- With one old component (k = 1), the nearest new one always keeps its id, as there is no other to confuse it with.
- Old components in the same position cannot be distinguished. The limit is then set by the nearest one elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clustering.fitting.component_space import ComparedComponents, compare_components, incomparable_reason
from clustering.fitting.fitted_model import FittedModel

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

SAME_POSITION = 1e-9
"""Old components count as being in the same position up to this share of the distance of the farthest one."""
AT_ONCE = 4_000_000
"""Approximate number of distances that are held in memory at once."""


def match_ids(fitted: FittedModel, previous: FittedModel) -> FittedModel:
    """Give the components of a new model the ids of their old partners, and sort them by id.

    Components without a partner get ids above every id that was ever used. If the models cannot be compared, all
    components get new ids, and a remark says why.

    Parameters
    ----------
    fitted
        The new fitted model.
    previous
        The fitted model of the previous version.
    """
    reason = incomparable_reason(fitted, previous)
    if reason is not None:
        remark = f"labels start anew at {previous.largest_id + 1}: {reason}"
        return renumber(replace(fitted, remarks=(*fitted.remarks, remark)), previous.largest_id + 1)
    partners = match(*compare_components(fitted, previous))
    ids = previous.ids[partners]
    new = np.flatnonzero(partners < 0)
    # New ids go to the largest component first, so that they do not depend on the order of the fit.
    ids[new[np.argsort(-fitted.shares[new], kind="stable")]] = previous.largest_id + 1 + np.arange(len(new))
    return reorder(replace(fitted, largest_id=previous.largest_id), ids)


def renumber(fitted: FittedModel, first: int) -> FittedModel:
    """Give the components consecutive ids, in their present order.

    Parameters
    ----------
    fitted
        A fitted model.
    first
        Id of its first component.
    """
    return replace(fitted, ids=first + np.arange(fitted.model.k))


def reorder(fitted: FittedModel, ids: Ids) -> FittedModel:
    """Give the components new ids, and sort them by id.

    Parameters
    ----------
    fitted
        A fitted model.
    ids
        Ids of its components in their present order ``(k,)``, all different.
    """
    # Labels are looked up by a search in sorted ids, see `ClusterNames.positions`.
    order = np.argsort(ids)
    return replace(fitted.reordered(order), ids=ids[order])


def match(new: ComparedComponents, old: ComparedComponents) -> Ids:
    """Find the old partner of each new component.

    Parameters
    ----------
    new
        Components of the new model.
    old
        Components of the previous model, in the same space.

    Returns
    -------
    ndarray
        Row number of the old partner of each new component ``(k,)``; −1 for none.
    """
    k, limits = len(new.centers), _limits(old)
    partners, parts = np.full(k, -1), []
    for part in _parts(k, len(limits)):
        apart = new.distances(old, part)
        row, column = np.nonzero(apart < limits)
        parts.append((row + part.start, column, apart[row, column]))
    row, column, near = (np.concatenate(one) for one in zip(*parts, strict=True))
    # A pair costs 1 at the limit, which is also the cost of no partner. With a single old component the limit is
    # infinite, and is replaced by a number above twice all distances so that every pair costs less than 1.
    cost = (near / np.where(np.isinf(limits), 2.0 * near.max(initial=0.0) + 1.0, limits)[column]) ** 2
    # Groups of components without a possible pair between them are matched on their own. The outcome is the same, and
    # no table of all pairs is needed.
    # Only versions after the first are matched, and these imports take a while.
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

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
    """Split the rows of a table of distances so that each part has about `AT_ONCE` distances."""
    step = max(1, AT_ONCE // columns)
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]
