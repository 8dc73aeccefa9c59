"""Names that configs and users give, without what they stand for: light to load."""

from __future__ import annotations

from typing import Literal, get_args

Divergence = Literal["squared_euclidean", "cosine", "kullback_leibler", "itakura_saito", "mahalanobis"]
DIVERGENCES: tuple[Divergence, ...] = get_args(Divergence)

Covariance = Literal["identity", "spherical", "diagonal", "tied", "full"]
COVARIANCES: tuple[Covariance, ...] = get_args(Covariance)
