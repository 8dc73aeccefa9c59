"""Which models there are."""

from __future__ import annotations

from typing import Any

from clustering.models.kmeans import KMeans

MODELS: dict[str, Any] = {model.kind: model for model in (KMeans,)}
"""Models by the name that configs and files give them."""
