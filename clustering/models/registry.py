"""Registry of all models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clustering.models.kmeans import KMeans
from clustering.models.mixture import GaussianMixture
from clustering.models.model import AnyModel
from clustering.models.soft_kmeans import SoftKMeans
from clustering.models.von_mises_fisher import VonMisesFisher

MODELS: Mapping[str, type[AnyModel]] = {
    model.kind: model
    for model in (
        KMeans,
        SoftKMeans,
        GaussianMixture,
        VonMisesFisher,
    )
}
"""Model classes by their names in configs and files."""


def model_to_json(model: AnyModel) -> dict[str, Any]:
    """Describe a model as JSON: its kind and its options.

    Parameters
    ----------
    model
        One of `MODELS`.
    """
    return {"kind": model.kind, **asdict(model)}


def model_from_json(described: Mapping[str, Any]) -> AnyModel:
    """Make a model from the description of `model_to_json`.

    Parameters
    ----------
    described
        Kind and options of the model.

    Raises
    ------
    KeyError, TypeError, ConfigError
        If there is no such model, or it has no such option.
    """
    # The mapping of the caller must keep its kind.
    options = dict(described)
    return MODELS[options.pop("kind")](**options)
