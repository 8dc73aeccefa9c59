"""Seeding: the choice of starting centers among the sampled rows of pass 0, without a further read."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from clustering.errors import ConfigError
from clustering.models import seeding_kernels as kernels
from clustering.models.parameters import read_array

Array = NDArray[np.float64]
Init = Literal["kmeans++", "random"]


def seed_centers(
    rows: Array, weights: Array, k: int, init: Init, spare: Array, generator: np.random.Generator
) -> Array:
    """Choose k starting centers among the rows.

    Parameters
    ----------
    rows
        Sampled rows ``(m, d)`` less the origin.
    weights
        Weight that each of them represents ``(m,)``, above zero.
    k
        Number of centers.
    init
        ``kmeans++`` for greedy k-means++ with local search, ``random`` for rows drawn by weight.
    spare
        Distinct rows of all the data ``(t, d)`` less the origin, for samples with fewer than k distinct rows.
    generator
        Random generator of this start.

    Returns
    -------
    ndarray
        Centers ``(k, d)``, all different; fewer where the rows and `spare` have fewer distinct rows.
    """
    if init == "random":
        chosen = _random(rows, weights, k, generator)
    else:
        chosen = _local_search(rows, weights, _greedy(rows, weights, k, generator), generator)
    if len(chosen) < k:
        # Adding 0 turns −0.0 into 0.0, so that equal rows have equal bytes.
        chosen_keys = {(row + 0.0).tobytes() for row in chosen}
        more = [row for row in spare if (row + 0.0).tobytes() not in chosen_keys]
        chosen = np.concatenate([chosen, np.reshape(more[: k - len(chosen)], (-1, rows.shape[1]))])
    return chosen


def _random(rows: Array, weights: Array, k: int, generator: np.random.Generator) -> Array:
    """Draw distinct rows by weight."""
    # Sorting by −log(u)/w draws by weight without replacement (Efraimidis & Spirakis, doi:10.1016/j.ipl.2005.11.003).
    order = np.argsort(generator.exponential(size=len(rows)) / weights, kind="stable")
    chosen: dict[bytes, Array] = {}
    for index in order:
        chosen.setdefault((rows[index] + 0.0).tobytes(), rows[index])
        if len(chosen) == k:
            break
    return np.array(list(chosen.values()))


def _greedy(rows: Array, weights: Array, k: int, generator: np.random.Generator) -> Array:
    """Draw centers by w·D², each the best of 2 + ln k draws (Arthur & Vassilvitskii 2007, SODA, section 7).

    D is the distance of a row from its nearest center so far. The best draw is the one that leaves the least Σ w D².
    """
    columns = np.ascontiguousarray(rows.T)
    trials = 2 + int(math.log(k))
    first = int(np.searchsorted(np.cumsum(weights), generator.uniform() * weights.sum(), side="right"))
    centers = [rows[min(first, len(rows) - 1)]]
    closest = np.full(len(rows), np.inf)
    kernels.approach(columns, centers[0], closest)
    potentials = np.empty(trials)
    for _ in range(1, k):
        reach = np.cumsum(weights * closest)
        # All rows are at a center, so there are fewer than k distinct rows.
        if not reach[-1] > 0:
            break
        index = np.searchsorted(reach, generator.uniform(size=trials) * reach[-1], side="right")
        # Rounding may carry a draw past the last row of positive distance.
        index = np.minimum(index, np.searchsorted(reach, reach[-1], side="left"))
        kernels.potentials_after(columns, rows[index], closest, weights, potentials)
        best = int(index[np.argmin(potentials)])
        centers.append(rows[best])
        kernels.approach(columns, rows[best], closest)
    return np.array(centers)


def _local_search(rows: Array, weights: Array, centers: Array, generator: np.random.Generator) -> Array:
    """Swap centers for rows drawn by w·D² where that helps (Lattanzi & Sohler 2019, PMLR 97:3662–3671)."""
    k, n = len(centers), len(rows)
    columns = np.ascontiguousarray(rows.T)
    # With the nearest and the second nearest center of each row, the outcome of every swap follows in one pass.
    owner, runner, first, second = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n), np.empty(n)
    kernels.two_nearest(rows, centers, owner, runner, first, second)
    potential = float(weights @ first)
    potentials, d_new = np.empty(k), np.empty(n)
    for _ in range(k if k > 1 else 0):
        reach = np.cumsum(weights * first)
        if not reach[-1] > 0:
            break
        index = min(int(np.searchsorted(reach, generator.uniform() * reach[-1], side="right")), n - 1)
        d_new[:] = np.inf
        kernels.approach(columns, rows[index], d_new)
        kernels.swap_potentials(d_new, owner, first, second, weights, potentials)
        out = int(np.argmin(potentials))
        if not potentials[out] < potential:
            continue
        centers[out] = rows[index]
        potential = float(potentials[out])
        kernels.after_swap(rows, centers, out, d_new, owner, runner, first, second)
    return centers


def generators(seed: int, n: int) -> list[np.random.Generator]:
    """Make n independent random generators from one seed.

    Parameters
    ----------
    seed
        Seed of the fit, 0 or more.
    n
        Number of generators, one for each restart.
    """
    return [np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(seed).spawn(n)]


def as_centers(init: Any, k: int, d: int) -> Array:
    """Read the centers that a user gives.

    Parameters
    ----------
    init
        Array of centers ``(k, d)`` in the data's units. A DataArray with the dimensions ``cluster`` and ``feature`` may
        have them in either order.
    k
        Number of clusters.
    d
        Number of features.

    Returns
    -------
    ndarray
        Centers ``(k, d)``.

    Raises
    ------
    ConfigError
        If their shape or values do not fit.
    """
    if isinstance(init, xr.DataArray) and init.ndim == 2 and "feature" in init.dims:
        init = init.transpose(..., "feature")
    centers = read_array("starting centers", init)
    if centers.shape != (k, d):
        raise ConfigError(f"init has shape {centers.shape}; k = {k} centers of {d} features have shape ({k}, {d})")
    return centers
