"""Spread of the rows of each cluster around its center, for the bands of profiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.fitting.fitted_model import FittedModel
from clustering.models import covariances as kinds

Array = NDArray[np.float64]

QUANTILES = (0.1, 0.9)
"""Quantiles of the rows of a cluster at the edges of its band."""
FEW = 10
"""A cluster needs this many rows for quantiles."""


@dataclass(frozen=True, eq=False)
class Spread:
    """Lower and upper edge of the band of each cluster, in the data's own units."""

    low: Array
    """Lower edges ``(k, d)``; NaN where a cluster has too few rows."""
    high: Array
    words: str
    """What the band is, for a legend."""


def covariances_in_data_units(fitted: FittedModel) -> Iterator[Array]:
    """Yield the covariance of each component of a mixture in the units of the data ``(d, d)``, one at a time.

    Parameters
    ----------
    fitted
        Fitted mixture.
    """
    components = fitted.components
    assert components.covariance is not None
    covariances = np.zeros(0) if components.covariances is None else components.covariances
    k, p = fitted.params.centers.shape
    for cluster in range(k):
        matrix = kinds.as_full(components.covariance, covariances, cluster, p)
        # Components describe prepared rows.
        yield matrix if fitted.preparation is None else fitted.preparation.covariance_to_data_units(matrix)


def spread_of_components(fitted: FittedModel) -> Spread | None:
    """Return a band of one standard deviation from the covariances of a mixture; None for other models.

    Parameters
    ----------
    fitted
        Fitted model.
    """
    if fitted.components.covariance is None:
        return None
    variances = [np.diagonal(covariance) for covariance in covariances_in_data_units(fitted)]
    # Rounding may leave a variance slightly below 0.
    deviations = np.sqrt(np.clip(variances, 0.0, None))
    return Spread(fitted.centers - deviations, fitted.centers + deviations, "±σ of the component")


def spread_of_rows(values: NDArray[Any], labels: NDArray[np.int64], k: int) -> Spread:
    """Return a band of quantiles of rows.

    Parameters
    ----------
    values
        Decoded rows ``(n, d)``.
    labels
        Row number of the cluster of each ``(n,)``.
    k
        Number of clusters.
    """
    low, high = np.full((2, k, values.shape[1]), np.nan)
    for cluster in range(k):
        own = values[labels == cluster]
        if len(own) >= FEW:
            low[cluster], high[cluster] = np.quantile(own, QUANTILES, axis=0)
    few, many = (f"{100 * share:.0f}" for share in QUANTILES)
    return Spread(low, high, f"{few}–{many} % of {len(values):,} rows")
