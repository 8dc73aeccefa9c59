"""Seeding: the choice of starting centers among the sampled rows of pass 0, without a further read."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.deferred import xr
from clustering.errors import ConfigError
from clustering.models import seeding_kernels as kernels
from clustering.models.assignment import rounding_bound
from clustering.models.lanes import NARROW
from clustering.models.lloyd_buffers import CENTERS_AT_ONCE, slopes_and_offsets
from clustering.models.parameters import read_array

Array = NDArray[np.float64]
Init = Literal["kmeans++", "random"]

FAR_EXPONENT = 200
"""Rows beyond two to this power, or its inverse, are scaled before their squares are taken."""


class SeedingRows(NamedTuple):
    """Rows to choose centers from, as the kernels take them; shared by all restarts."""

    rows: Array
    """Sampled rows ``(m, d)`` less the origin."""
    weights: Array
    """Weight that each of them represents ``(m,)``, above zero."""
    columns: NDArray[np.float32]
    """Scaled rows as columns, sixteen rows side by side ``(n / 16, d, 16)``; n is m rounded up."""
    norms: NDArray[np.float32]
    """Squared norms of the scaled rows ``(n,)``."""
    compared: Array
    """Rows whose distances are computed ``(m, d)``: the rows themselves, unless squares would leave float64."""
    scale: float
    """Power of two that takes the rows to the range of float32."""
    unit: float
    """Factor that takes squared distances of the compared rows to the scale of the columns."""
    bound: tuple[float, float]
    """Rounding bound of an estimate of a squared distance, as `rounding_bound` gives it."""


def seeding_rows(rows: Array, weights: Array) -> SeedingRows:
    """Prepare rows to choose centers from.

    Parameters
    ----------
    rows
        Sampled rows ``(m, d)`` less the origin.
    weights
        Weight that each of them represents ``(m,)``, above zero.
    """
    m, d = rows.shape
    n = -(-m // NARROW) * NARROW
    exponent = int(np.clip(np.frexp(np.abs(rows).max(initial=0.0))[1], -1000, 1000))
    scale = 2.0**-exponent
    scaled = np.zeros((n, d))
    np.multiply(rows, scale, out=scaled[:m])
    columns = np.ascontiguousarray(scaled.reshape(-1, NARROW, d).transpose(0, 2, 1), np.float32)
    norms = np.einsum("nd,nd->n", scaled, scaled).astype(np.float32)
    in_range = abs(exponent) <= FAR_EXPONENT
    return SeedingRows(
        rows, weights, columns, norms, rows if in_range else scaled[:m], scale,
        scale * scale if in_range else 1.0, rounding_bound(d),
    )  # fmt: skip


def seed_centers(rows: SeedingRows, k: int, init: Init, spare: Array, generator: np.random.Generator) -> Array:
    """Choose k starting centers among the rows.

    Parameters
    ----------
    rows
        Rows to choose from, as `seeding_rows` prepares them.
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
    chosen = _random(rows.rows, rows.weights, k, generator) if init == "random" else Search(rows, k, generator).run()
    if len(chosen) < k:
        # Adding 0 turns −0.0 into 0.0, so that equal rows have equal bytes.
        chosen_keys = {(row + 0.0).tobytes() for row in chosen}
        more = [row for row in spare if (row + 0.0).tobytes() not in chosen_keys]
        chosen = np.concatenate([chosen, np.reshape(more[: k - len(chosen)], (-1, spare.shape[1]))])
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


class Search:
    """Greedy k-means++ and a local search, which know the two nearest centers of each row.

    Parameters
    ----------
    rows
        Rows to choose from.
    k
        Number of centers, 1 or more.
    generator
        Random generator of this start.
    """

    def __init__(self, rows: SeedingRows, k: int, generator: np.random.Generator) -> None:
        n = len(rows.rows)
        self.rows, self.k, self.generator = rows, k, generator
        self.trials = trials(k)
        self.chosen: list[int] = []
        self.owner, self.runner = np.full(n, -1), np.full(n, -1)
        self.first, self.second, self.distances = np.full(n, np.inf), np.full(n, np.inf), np.empty(n)
        # A few points are tried in one step.
        filled = -(-self.trials // CENTERS_AT_ONCE) * CENTERS_AT_ONCE
        self.estimates = np.empty((filled, len(rows.norms)), np.float32)

    def run(self) -> Array:
        """Choose the centers."""
        self._greedy()
        self._local_search()
        return self.rows.rows[self.chosen]

    def _greedy(self) -> None:
        """Draw centers by w·D², each the best of 2 + ln k draws (Arthur & Vassilvitskii 2007, SODA, section 7).

        D is the distance of a row from its nearest center so far. The best draw leaves the least Σ w D².
        """
        weights = self.rows.weights
        first = int(np.searchsorted(np.cumsum(weights), self.generator.uniform() * weights.sum(), side="right"))
        index: NDArray[np.intp] | None = np.array([min(first, len(weights) - 1)])
        while index is not None:
            trial = self.best(index) if self.chosen else 0
            self.measure(int(index[trial]), trial)
            kernels.add_center(self.distances, len(self.chosen), self.owner, self.runner, self.first, self.second)
            self.chosen.append(int(index[trial]))
            index = self._draw(self.trials) if len(self.chosen) < self.k else None

    def best(self, index: NDArray[np.intp]) -> int:
        """Try rows as a further center, and choose the one that lowers the potential most; the first among equals.

        Parameters
        ----------
        index
            Indices of the rows ``(t,)``.
        """
        self.try_rows(index)
        gains = [
            kernels.gain(*self._tried(int(row), trial), self.first, self.rows.weights)
            for trial, row in enumerate(index)
        ]
        return int(np.argmax(gains))

    def _local_search(self) -> None:
        """Swap centers for rows drawn by w·D² where that helps (Lattanzi & Sohler 2019, PMLR 97:3662–3671)."""
        centers, potentials = self.rows.compared[self.chosen], np.empty(len(self.chosen))
        potential = float(self.rows.weights @ self.first)
        for _ in range(len(centers) if len(centers) > 1 else 0):
            index = self._draw(1)
            if index is None:
                break
            self.try_rows(index)
            self.measure(int(index[0]), 0)
            kernels.swap_potentials(self.distances, self.owner, self.first, self.second, self.rows.weights, potentials)
            out = int(np.argmin(potentials))
            if not potentials[out] < potential:
                continue
            self.chosen[out] = int(index[0])
            centers[out] = self.rows.compared[index[0]]
            potential = float(potentials[out])
            kernels.after_swap(
                self.rows.compared, centers, out, self.distances, self.owner, self.runner, self.first, self.second
            )

    def _draw(self, count: int) -> NDArray[np.intp] | None:
        """Draw rows by w·D²; None where all rows are at a center, so that there are fewer than k distinct rows."""
        reach = np.cumsum(self.rows.weights * self.first)
        if not reach[-1] > 0:
            return None
        index = np.searchsorted(reach, self.generator.uniform(size=count) * reach[-1], side="right")
        # Rounding may carry a draw past the last row of positive distance.
        drawn: NDArray[np.intp] = np.minimum(index, np.searchsorted(reach, reach[-1], side="left"))
        return drawn

    def try_rows(self, index: NDArray[np.intp]) -> None:
        """Estimate the distances of all rows from some of them.

        Parameters
        ----------
        index
            Indices of the rows ``(t,)``, no more than are tried at once.
        """
        slopes, offsets = slopes_and_offsets(self.rows.rows[index] * self.rows.scale)
        kernels.estimate(self.rows.columns, self.rows.norms, slopes, offsets, self.estimates)

    def measure(self, row: int, trial: int) -> None:
        """Compute the distances from a row that was tried, where they may be less than those of `second`.

        Parameters
        ----------
        row, trial
            Index of the row, and its number among those that were tried last.
        """
        kernels.distances_below(*self._tried(row, trial), self.second, self.distances)

    def _tried(self, row: int, trial: int) -> tuple[Any, ...]:
        """Give what the kernels take of a row that was tried."""
        rows, estimates = self.rows, self.estimates[trial]
        return rows.compared, rows.compared[row], rows.norms, rows.norms[row], estimates, *rows.bound, rows.unit


def trials(k: int) -> int:
    """Return how many points greedy k-means++ tries for each center.

    Parameters
    ----------
    k
        Number of centers, 1 or more.
    """
    return 2 + int(math.log(k))


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
