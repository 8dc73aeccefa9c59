"""Registry of all models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from typing import Any, NamedTuple, get_type_hints

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


class ModelOption(NamedTuple):
    """An option that models declare, beside `k`."""

    annotation: Any
    """Type of its values."""
    default: Any
    text: str
    """What it means, in a sentence or two."""
    kinds: tuple[str, ...]
    """Models that have it."""


@cache
def model_options() -> Mapping[str, ModelOption]:
    """List the options of all models by name, from the fields and the docstrings of their classes."""
    options: dict[str, ModelOption] = {}
    for kind, model in MODELS.items():
        hints, texts = get_type_hints(model), _parameter_texts(model.__doc__ or "")
        for field in fields(model):
            # Every model has k, which configs and forms declare once.
            if field.name == "k":
                continue
            meaning = f"{texts[field.name]} Default: {field.default}."
            option = options.get(field.name)
            if option is None:
                option = ModelOption(hints[field.name], field.default, f"Of {kind}: {meaning}", (kind,))
            else:
                # Models may share an option. A meaning that they share as well is written once.
                if option.text.endswith(f": {meaning}"):
                    text = f"{option.text.removesuffix(f': {meaning}')} and {kind}: {meaning}"
                else:
                    text = f"{option.text} Of {kind}: {meaning}"
                option = ModelOption(option.annotation | hints[field.name], option.default, text, (*option.kinds, kind))
            options[field.name] = option
    return options


def _parameter_texts(docstring: str) -> dict[str, str]:
    """Read the texts of the parameters in a docstring of NumPy's style, without its marks of code."""
    import docstring_parser

    parsed = docstring_parser.parse(docstring, docstring_parser.DocstringStyle.NUMPYDOC)
    return {one.arg_name: " ".join((one.description or "").replace("``", "").split()) for one in parsed.params}


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
