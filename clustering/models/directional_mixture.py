"""Drawing rows from a mixture of von Mises–Fisher distributions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.preparation import Preparation
from clustering.errors import ConfigError
from clustering.models import directional
from clustering.models.sampling import BLOCK, Labels, block_stream, draw_components, draw_labels

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DirectionalMixture:
    """A mixture that directions are drawn from; see `clustering.models.sampling.RowGenerator`."""

    weights: Array
    """Mixing weights ``(k,)``, adding up to 1."""
    directions: Array
    """Mean directions ``(k, d)``, of length 1."""
    concentrations: Array
    """κ of each component ``(k,)``."""

    @property
    def k(self) -> int:
        """Number of components."""
        return len(self.directions)

    @property
    def d(self) -> int:
        """Number of features."""
        return int(self.directions.shape[1])

    def draw(self, n: int, seed: int, length: int) -> Iterator[tuple[Array, Labels]]:
        """Draw n rows of length 1, so many at a time.

        Parameters
        ----------
        n
            Number of rows.
        seed
            Seed of all draws.
        length
            Number of rows in memory at a time; it does not change the draws.

        Yields
        ------
        ndarray, ndarray
            Rows ``(m, d)`` and the components ``(m,)`` that they were drawn from.
        """
        rows, labels = np.zeros((0, self.d)), np.zeros(0, np.int64)
        for start in range(0, n, BLOCK):
            more = self._block(seed, start // BLOCK)
            rows = np.concatenate([rows, more[0][: n - start]])
            labels = np.concatenate([labels, more[1][: n - start]])
            # A part may span two blocks, so rows that do not fill one wait for the next block.
            whole = len(rows) if start + BLOCK >= n else len(rows) - len(rows) % length
            for first in range(0, whole, length):
                yield rows[first : min(whole, first + length)], labels[first : min(whole, first + length)]
            rows, labels = rows[whole:], labels[whole:]

    def _block(self, seed: int, block: int) -> tuple[Array, Labels]:
        """Draw all rows of a block, even if fewer are needed, so that row i depends on the seed and i alone."""
        stream = block_stream(seed, block)
        labels = draw_components(self.weights, stream)
        rows = np.empty((BLOCK, self.d))
        for component, kappa in enumerate(self.concentrations):
            own = np.flatnonzero(labels == component)
            rows[own] = directional.draw_directions(self.directions[component], float(kappa), len(own), stream)
        return rows, labels

    def draw_labels(self, n: int, seed: int, length: int) -> Iterator[Labels]:
        """Draw the components of the rows of `draw` alone.

        Parameters
        ----------
        n, seed, length
            As for `draw`.
        """
        return draw_labels(self.weights, n, seed, length)

    def before(self, preparation: Preparation) -> DirectionalMixture:
        """Refuse: directions of decoded rows do not follow from those of prepared ones.

        Parameters
        ----------
        preparation
            How the rows were prepared.

        Raises
        ------
        ConfigError
            Always.
        """
        raise ConfigError(
            f"the model is a mixture of directions of prepared rows ({preparation.words}), and decoded rows do not "
            "follow from them; name a model fitted without preprocess"
        )

    def to_json(self) -> dict[str, Any]:
        """Describe the parameters, as JSON."""
        return {
            "weights": self.weights.tolist(),
            "directions": self.directions.tolist(),
            "concentrations": self.concentrations.tolist(),
        }
