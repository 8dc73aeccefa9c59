"""Seeding: the choice of starting centers among the sampled rows of pass 0, without a further read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.deferred import xr
from clustering.errors import ConfigError
from clustering.models import seeding_kernels as kernels
from clustering.models.assignment import rounding_bound
from clustering.models.lanes import NARROW
from clustering.models.parameters import read_array
from clustering.models.scored_centers import slopes_and_offsets
from clustering.models.seeding_kernels import POINTS_AT_ONCE

Array = NDArray[np.float64]
Init = Literal["kmeans++", "random"]

MOST_POINTS = 64
"""Points that are tried in one sweep over the rows, at most."""
TRIALS = 3
"""Points that greedy k-means++ tries for each center. More cost more than a longer local search, and gain less."""
LEAST_DRAWS, MOST_ROUNDS = 32, 16
"""Draws of a round of the local search, or k where that is more, and rounds at most."""
BLOCKS_OF_K = 4
"""Blocks of points that make k draws together. Longer ones are soon out of date."""
LEAST_GAIN = 0.003
"""Share of the potential that a round of the local search has to gain for another round."""
ROUNDING = 1e-12
"""Share of the potential below which a change is rounding."""
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
    """Rows whose distances are computed ``(m, d)``, C-contiguous: the rows themselves, unless squares would leave
    float64."""
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
        rows, weights, columns, norms, np.ascontiguousarray(rows if in_range else scaled[:m]), scale,
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


class Draws:
    """Draws by w·D², used up in turns while D² falls.

    A draw that counts with the share of its D² that is left follows w·D² of its turn (rejection sampling).

    Parameters
    ----------
    before
        D² of each drawn row ``(t,)`` when it was drawn.
    uniform
        A number from 0 to 1 for each of them ``(t,)``.
    """

    def __init__(self, before: Array, uniform: Array) -> None:
        self.before, self.least, self.position = before, uniform * before, 0

    def next(self, now: Array, count: int) -> list[int]:
        """Return the numbers of the next draws that count, fewer where no more are left.

        Parameters
        ----------
        now
            D² of each drawn row ``(t,)`` at present.
        count
            Largest number of draws.
        """
        # Where nothing has changed, no rounding may refuse a draw.
        counting = (self.least < now) | (now >= self.before)
        turn: list[int] = (self.position + np.flatnonzero(counting[self.position :])[:count]).tolist()
        self.position = turn[-1] + 1 if turn else len(self.before)
        return turn


class Search:
    """Greedy k-means++ and a local search, which know the two nearest centers of each row.

    Draws are tried in blocks, as one sweep over the rows costs little more for many points than for a few. A draw is
    by w·D² of the start of its block, and counts with the share of that which D² has left when its turn comes: so it
    follows w·D² of that moment, whatever the blocks.

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
        m = len(rows.rows)
        self.rows, self.k, self.generator = rows, k, generator
        self.chosen: list[int] = []
        self.owner, self.runner = np.full(m, -1), np.full(m, -1)
        self.first, self.second = np.full(m, np.inf), np.full(m, np.inf)
        self.most = np.empty(len(rows.norms), np.float32)
        # Rows that are closer to each point of a block; their memory is touched as far as it is filled.
        most_points = block_size(k)
        self.near, self.distances = np.empty((most_points, m), np.int32), np.empty((most_points, m))
        self.counts = np.zeros(most_points, np.int64)

    def run(self) -> Array:
        """Choose the centers."""
        self._greedy()
        self._local_search()
        return self.rows.rows[self.chosen]

    def _greedy(self) -> None:
        """Draw centers by w·D², each the best of a few draws (Arthur & Vassilvitskii 2007, SODA, section 7).

        D is the distance of a row from its nearest center so far. The best draw leaves the least Σ w D².
        """
        reach = np.cumsum(self.rows.weights)
        first = int(np.searchsorted(reach, self.generator.uniform() * reach[-1], side="right"))
        first = min(first, len(reach) - 1)
        self.try_rows(np.array([first]))
        self._add(first, 0)
        while len(self.chosen) < self.k:
            drawn = self.draw(block_size(len(self.chosen)))
            if drawn is None:
                break
            self.try_rows(drawn)
            left = Draws(self.first[drawn], self.generator.uniform(size=len(drawn)))
            # The first draws of a block all count. Later ones that are too few are drawn again.
            while len(self.chosen) < self.k and len(turn := left.next(self.first[drawn], TRIALS)) == TRIALS:
                best = self.best(turn)
                self._add(int(drawn[best]), best)

    def best(self, tried: Sequence[int]) -> int:
        """Choose among rows that were tried the one that lowers the potential most; the first among equals.

        Parameters
        ----------
        tried
            Their numbers among those that were tried last.
        """
        return tried[int(np.argmax([kernels.gain(*self.closer(t), self.first, self.rows.weights) for t in tried]))]

    def _add(self, row: int, t: int) -> None:
        """Add a row that was tried to the centers."""
        kernels.add_center(*self.closer(t), len(self.chosen), self.owner, self.runner, self.first, self.second)
        self.chosen.append(row)

    def _local_search(self) -> None:
        """Swap centers for rows drawn by w·D² where that helps (Lattanzi & Sohler 2019, PMLR 97:3662–3671).

        The draws come in rounds. A round that lowers the potential by little is the last: where clusters overlap, swaps
        lower it slowly and without end, and k-means makes up for them.
        """
        k = len(self.chosen)
        if k < 2:
            return
        swaps = Swaps(self)
        draws = max(LEAST_DRAWS, k)
        for _ in range(MOST_ROUNDS):
            before = swaps.potential
            swaps.make_round(draws)
            if not swaps.potential < before * (1.0 - LEAST_GAIN):
                break

    def draw(self, count: int) -> NDArray[np.intp] | None:
        """Draw rows by w·D²; None where all rows are at a center, so that there are fewer than k distinct rows.

        Parameters
        ----------
        count
            Number of draws.
        """
        reach = np.cumsum(self.rows.weights * self.first)
        if not reach[-1] > 0:
            return None
        index = np.searchsorted(reach, self.generator.uniform(size=count) * reach[-1], side="right")
        # Rounding may carry a draw past the last row of positive distance.
        drawn: NDArray[np.intp] = np.minimum(index, np.searchsorted(reach, reach[-1], side="left"))
        return drawn

    def try_rows(self, points: NDArray[np.intp]) -> None:
        """List the rows that are closer to each of some rows than to their second nearest center.

        Parameters
        ----------
        points
            Indices of the rows ``(t,)``, no more than `block_size` ever gives.
        """
        rows, filled = self.rows, -(-len(points) // POINTS_AT_ONCE) * POINTS_AT_ONCE
        scaled = np.zeros((filled, rows.rows.shape[1]))
        scaled[: len(points)] = rows.rows[points] * rows.scale
        slopes, offsets = slopes_and_offsets(scaled)
        relative, absolute = rows.bound
        kernels.bound_estimates(self.second, rows.norms, relative, absolute, rows.unit, self.most)
        shares = (2.0 * relative * offsets.astype(np.float64)).astype(np.float32)
        kernels.closer_rows(
            rows.columns, rows.norms, slopes, offsets, shares, self.most, rows.compared, points, self.second, self.near,
            self.distances, self.counts,
        )  # fmt: skip

    def closer(self, t: int) -> tuple[NDArray[np.int32], Array]:
        """Give the rows that are closer to a row that was tried than to their second nearest center.

        Parameters
        ----------
        t
            Its number among those that were tried last.

        Returns
        -------
        ndarray, ndarray
            Indices of the rows, ascending, and their squared distances from it.
        """
        return self.near[t, : self.counts[t]], self.distances[t, : self.counts[t]]


class Swaps:
    """Swaps of the centers of a search for rows.

    Points are tried in blocks here too. After a swap the lists of the points of a block lack rows that have lost a
    center. So the potential of a further swap is only bounded from above, which never makes it worse.

    Parameters
    ----------
    search
        Search with its centers, two or more.
    """

    def __init__(self, search: Search) -> None:
        k, rows = len(search.chosen), search.rows
        self.search, self.centers = search, np.array(search.chosen)
        self.changed = np.zeros(len(rows.rows), np.bool_)
        filled = -(-k // NARROW) * NARROW
        self.places = np.zeros((filled // NARROW, rows.rows.shape[1], NARROW), np.float32)
        self.lengths, self.shares = np.full(filled, np.inf, np.float32), np.zeros(filled, np.float32)
        for out in range(k):
            self._place(out)
        self.lost, self.potentials = np.empty(k), np.empty(k)
        self.memory = kernels.swap_memory(*rows.rows.shape)
        self.potential = self._measure()
        # The more rows have lost a center, the less a block is worth.
        self.block = min(MOST_POINTS, len(search.counts), max(POINTS_AT_ONCE, k // BLOCKS_OF_K))

    def make_round(self, draws: int) -> None:
        """Make some draws, and every swap that lowers the potential.

        Parameters
        ----------
        draws
            Number of draws.
        """
        search = self.search
        while draws > 0:
            drawn = search.draw(min(self.block, draws))
            if drawn is None:
                return
            draws -= len(drawn)
            self.try_rows(drawn)
            left = Draws(search.first[drawn], search.generator.uniform(size=len(drawn)))
            while turn := left.next(search.first[drawn], 1):
                (t,) = turn
                out, potential = self.best(t)
                # A smaller gain is rounding.
                if potential < self.potential * (1.0 - ROUNDING):
                    self.swap(out, int(drawn[t]), t)

    def try_rows(self, points: NDArray[np.intp]) -> None:
        """Begin a block.

        Parameters
        ----------
        points
            As `Search.try_rows` takes them.
        """
        self.search.try_rows(points)
        self.changed[:] = False

    def best(self, t: int) -> tuple[int, float]:
        """Choose the center that a row should replace; return it, and a bound of the potential without it.

        Parameters
        ----------
        t
            Number of the row among those that were tried last.
        """
        search, weights = self.search, self.search.rows.weights
        kernels.swap_potentials(
            *search.closer(t), search.owner, search.first, search.second, weights, self.potential, self.lost,
            self.potentials,
        )  # fmt: skip
        out = int(np.argmin(self.potentials))
        return out, float(self.potentials[out])

    def swap(self, out: int, row: int, t: int) -> None:
        """Replace a center by a row.

        Parameters
        ----------
        out
            Index of the center.
        row, t
            Index of the row, and its number among those that were tried last.
        """
        search, rows = self.search, self.search.rows
        search.chosen[out] = self.centers[out] = row
        self._place(out)
        kernels.after_swap(
            rows.compared, rows.columns, rows.norms, (*rows.bound, rows.unit), self.centers, self.places, self.lengths,
            self.shares, out, *search.closer(t), self.changed,
            (search.owner, search.runner, search.first, search.second), self.memory,
        )  # fmt: skip
        self.potential = self._measure()

    def _place(self, out: int) -> None:
        """Write a center where the kernels compare rows with all of them."""
        rows, row = self.search.rows, self.centers[out]
        self.places[out // NARROW, :, out % NARROW] = rows.columns[row // NARROW, :, row % NARROW]
        self.lengths[out] = rows.norms[row]
        self.shares[out] = 2.0 * rows.bound[0] * float(rows.norms[row])

    def _measure(self) -> float:
        """Compute the potential, and its rise without each center."""
        search = self.search
        return float(kernels.losses(search.owner, search.first, search.second, search.rows.weights, self.lost))


def block_size(chosen: int) -> int:
    """Return how many points are tried in one sweep over the rows.

    Parameters
    ----------
    chosen
        Number of centers so far. Draws of a few centers are soon out of date.
    """
    return -(-max(TRIALS, min(2 * chosen, MOST_POINTS)) // POINTS_AT_ONCE) * POINTS_AT_ONCE


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
