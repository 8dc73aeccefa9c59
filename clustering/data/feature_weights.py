"""Weights of features, from variables or arrays along the feature dimensions of the selected source."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from clustering.data.alignment import align_by_name
from clustering.data.angles import cosine
from clustering.data.coordinates import check_latitude
from clustering.data.in_memory_variables import decode_values
from clustering.data.source import Source
from clustering.deferred import xr
from clustering.errors import DataError, SourceError, nearest

# The last group asks for a second bracket only where there is a first one, after sqrt.
_COSINE = re.compile(r"(sqrt\()?cos\((\w+)\)(?(1)\)|)")
_LISTED = 5
"""Names that a message lists at most."""


def feature_weights(source: Source, given: str | xr.DataArray) -> NDArray[np.float64]:
    """Read the weights of all features.

    Parameters
    ----------
    source
        Selected source.
    given
        Variable or coordinate along feature dimensions; or ``cos(lat)`` or ``sqrt(cos(lat))`` of a latitude in degrees
        or radians, as its units say. Or an array along feature dimensions, matched by name and label, or along
        ``variable`` with names of variables, or along ``feature`` with names of features.

    Returns
    -------
    ndarray
        Weights ``(d,)``; 1 for variables without any of the dimensions of `given`.

    Raises
    ------
    SourceError
        If there is no such variable, or it does not fit the feature dimensions or their labels.
    DataError
        For weights that are negative or not finite, or none above zero.
    """
    if isinstance(given, xr.DataArray):
        subject = "feature_weights"
        listing = _by_feature(source, given)
        if listing is not None:
            check_feature_weights(listing)
            return listing
        variable = align_by_name(source.dataset, subject, given, source.feature_dims, "feature").variable
    else:
        subject = f"feature_weights {given!r}"
        variable = _variable(source, given, subject)
    if variable.dtype.kind not in "biuf":
        raise SourceError(f"{subject} are no numbers, but of type {variable.dtype}; name a variable of numbers")
    values = np.asarray(variable.values, np.float64)
    weights = _expand_to_features(source, values, tuple(map(str, variable.dims)), subject)
    check_feature_weights(weights, subject)
    return weights


def _variable(source: Source, name: str, subject: str) -> xr.Variable:
    """Read the variable with a name, or the cosine (or its root) of one."""
    formula = _COSINE.fullmatch(name)
    key = formula[2] if formula else name
    if key in source.unusable:
        raise SourceError(f"variable {key!r} in {subject} cannot be used: {source.unusable[key]}")
    if key not in source.dataset.variables:
        names = [str(variable_name) for variable_name in source.dataset.variables]
        raise SourceError(f"unknown variable {key!r} in {subject}; {nearest(key, names)}")
    variable = source.dataset[key].variable
    dims = tuple(str(d) for d in variable.dims)
    if not dims or not set(dims) <= set(source.feature_dims):
        along = ", ".join(source.feature_dims) or "none here"
        raise SourceError(
            f"{subject} lie along {', '.join(dims) or 'no dimension'}, and features along {along}; "
            "name a variable along feature dimensions, or sample weights in source.weights"
        )
    # Coordinates of dimensions are labels and keep their numbers.
    if key not in source.dataset.sizes:
        variable, _, _ = decode_values(key, variable, None, valid=source.valid_range == "cf")
    if formula is None:
        return variable
    check_latitude(variable, key, name)
    cosines = cosine(variable.values, variable, key)
    # Weights multiply features, so they count squared in distances. The root gives distances weighted by area.
    return xr.Variable(dims, np.sqrt(cosines) if formula[1] else cosines)


def _by_feature(source: Source, given: xr.DataArray) -> NDArray[np.float64] | None:
    """Match weights to the names of features or of variables; None for an array along other dimensions."""
    kind = str(given.dims[0]) if given.ndim == 1 else ""
    if kind not in ("feature", "variable") or kind in source.feature_dims or given.dtype.kind not in "biuf":
        return None
    if kind not in given.indexes:
        # Without labels, weights go by position.
        return given.values.astype(np.float64) if kind == "feature" and len(given) == source.n_features else None
    names = [feature.variable if kind == "variable" else str(feature) for feature in source.features]
    labels = [str(label) for label in given[kind].values]
    lacking = [name for name in names if labels.count(name) != 1]
    spare = [label for label in labels if label not in names]
    if lacking or spare:
        raise SourceError(
            f"feature_weights name the {kind}s {', '.join(labels[:_LISTED])}, and the data have "
            f"{', '.join(dict.fromkeys(names[:_LISTED]))}; give each of them one weight"
        )
    return np.asarray(given.values, np.float64)[[labels.index(name) for name in names]]


def _expand_to_features(
    source: Source, values: NDArray[np.float64], dims: tuple[str, ...], subject: str
) -> NDArray[np.float64]:
    """Broadcast weights along some feature dimensions to all features ``(d,)``."""
    factors = []
    for each in source.variables:
        own = [d for d in source.feature_dims if d in source.dataset[each].dims]
        lengths = [source.dataset.sizes[d] for d in own]
        if not set(dims) & set(own):
            # Weights along depth do not concern a variable at the surface.
            factors.append(np.ones(math.prod(lengths)))
            continue
        if not set(dims) <= set(own):
            raise SourceError(
                f"{subject} lie along {', '.join(dims)}, and variable {each!r} along {', '.join(own)} "
                "only; name weights along dimensions that the variable has"
            )
        # Features lie in C order of the feature dimensions of the variable, whatever the order of the weights.
        order = [dims.index(d) for d in own if d in dims]
        shape = [n if d in dims else 1 for d, n in zip(own, lengths, strict=True)]
        factors.append(np.broadcast_to(values.transpose(order).reshape(shape), lengths).reshape(-1))
    return np.concatenate(factors)


def check_feature_weights(weights: NDArray[np.float64], subject: str = "feature_weights") -> None:
    """Refuse invalid weights of features.

    Parameters
    ----------
    weights
        Weights ``(d,)``.
    subject
        Their name in messages.

    Raises
    ------
    DataError
        For weights that are negative or not finite, or none above zero.
    """
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0.0)))
    if len(bad):
        raise DataError(
            f"{subject} are {weights[bad[0]]:g} for feature {bad[0]}; a finite number of 0 or more is needed"
        )
    if not weights.any():
        raise DataError(f"{subject} are all 0, so that no feature counts; give one of them a weight above 0")
