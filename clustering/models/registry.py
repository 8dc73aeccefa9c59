"""The models that there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clustering.models.kmeans import KMeans
from clustering.models.mixture import GaussianMixture
from clustering.models.model import AnyModel
from clustering.models.soft_kmeans import SoftKMeans

MODELS: Mapping[str, type[AnyModel]] = {
    model.kind: model
    for model in (
        KMeans,
        SoftKMeans,
        GaussianMixture,
    )
}
"""Models by the name that configs and files give them."""


def model_to_json(model: AnyModel) -> dict[str, Any]:
    """Describe a model as JSON: its kind and its options.

    Parameters
    ----------
    model
        One of `MODELS`.
    """
    return {"kind": model.kind, **asdict(model)}


def model_from_json(described: Mapping[str, Any]) -> AnyModel:
    """Make the model that `model_to_json` described.

    Parameters
    ----------
    described
        Its kind and its options.

    Raises
    ------
    KeyError, TypeError, ConfigError
        If there is no such model, or it has no such option.
    """
    options = dict(described)
    return MODELS[options.pop("kind")](**options)
