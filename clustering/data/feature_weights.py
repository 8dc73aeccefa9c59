"""Weights of features, read from the source: along its feature dimensions, after the selection."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from clustering.data.source import Source
from clustering.errors import DataError, SourceError, nearest

_COSINE = re.compile(r"(sqrt\()?cos\((\w+)\)(?(1)\)|)")


def feature_weights(source: Source, name: str) -> NDArray[np.float64]:
    """Read the weights of all features.

    Parameters
    ----------
    name
        Variable or coordinate along feature dimensions; or ``cos(lat)`` or ``sqrt(cos(lat))`` of a coordinate in
        degrees.

    Returns
    -------
    ndarray
        ``(d,)``. Variables that lack all of its dimensions have weights of 1.

    Raises
    ------
    SourceError
        If there is no such variable, or it does not lie along the feature dimensions.
    DataError
        For weights that are negative or not finite, or none above zero.
    """
    cosine = _COSINE.fullmatch(name)
    key = cosine[2] if cosine else name
    if key not in source.dataset.variables:
        known = [str(found) for found in source.dataset.variables]
        raise SourceError(f"unknown variable {key!r} in feature_weights {name!r}; {nearest(key, known)}")
    variable = source.dataset[key].variable
    dims = tuple(str(d) for d in variable.dims)
    if not dims or not set(dims) <= set(source.feature_dims):
        along = ", ".join(source.feature_dims) or "none here"
        raise SourceError(
            f"feature_weights {name!r} lie along {', '.join(dims) or 'no dimension'}, and features along {along}; "
            "name a variable along feature dimensions, or sample weights in source.weights"
        )
    try:
        values = np.asarray(variable.values, np.float64)
    except (TypeError, ValueError):
        raise SourceError(f"feature_weights {name!r} are no numbers; name a variable of numbers") from None
    if cosine:
        # At the poles the cosine of the rounded angle may fall a hair below zero.
        values = np.clip(np.cos(np.deg2rad(values)), 0.0, None)
        values = np.sqrt(values) if cosine[1] else values
    found = []
    for each in source.variables:
        own = [d for d in source.feature_dims if d in source.dataset[each].dims]
        lengths = [source.dataset.sizes[d] for d in own]
        if not set(dims) & set(own):
            found.append(np.ones(math.prod(lengths)))
            continue
        if not set(dims) <= set(own):
            raise SourceError(
                f"feature_weights {name!r} lie along {', '.join(dims)}, and variable {each!r} along {', '.join(own)} "
                "only; name weights along dimensions that the variable has"
            )
        order = [dims.index(d) for d in own if d in dims]
        shape = [n if d in dims else 1 for d, n in zip(own, lengths, strict=True)]
        found.append(np.broadcast_to(values.transpose(order).reshape(shape), lengths).reshape(-1))
    weights = np.concatenate(found)
    check_feature_weights(weights, name)
    return weights


def check_feature_weights(weights: NDArray[np.float64], name: str | None = None) -> None:
    """Refuse weights ``(d,)`` that measure nothing.

    Raises
    ------
    DataError
        For weights that are negative or not finite, or none above zero.
    """
    told = "feature_weights" if name is None else f"feature_weights {name!r}"
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0.0)))
    if len(bad):
        raise DataError(f"{told} are {weights[bad[0]]:g} for feature {bad[0]}; a finite number of 0 or more is needed")
    if not weights.any():
        raise DataError(f"{told} are all 0, so that no feature counts; give one of them a weight above 0")
