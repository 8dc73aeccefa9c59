"""Names of options that users give. The module has no heavy imports, so that configs load fast."""

from __future__ import annotations

from typing import Literal, get_args

Divergence = Literal["squared_euclidean", "cosine", "kullback_leibler", "itakura_saito", "mahalanobis"]
DIVERGENCES: tuple[Divergence, ...] = get_args(Divergence)

Covariance = Literal["identity", "spherical", "diagonal", "tied", "full"]
COVARIANCES: tuple[Covariance, ...] = get_args(Covariance)
