"""Which models there are."""

from __future__ import annotations

from typing import Any

from clustering.models.kmeans import KMeans
from clustering.models.mixture import GaussianMixture
from clustering.models.soft_kmeans import SoftKMeans

MODELS: dict[str, Any] = {model.kind: model for model in (KMeans, SoftKMeans, GaussianMixture)}
"""Models by the name that configs and files give them."""
