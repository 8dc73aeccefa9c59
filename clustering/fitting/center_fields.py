"""Centers as fields: each variable on its own feature dimensions, with their coordinates and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.plain_dataset import PlainVariable
from clustering.data.source import DATES, About
from clustering.deferred import xr
from clustering.fitting.fitted_model import FittedModel


def center_fields(fitted: FittedModel) -> dict[str, xr.DataArray]:
    """Arrange the centers of each variable on its feature dimensions, as arrays of xarray; see `plain_fields`.

    Parameters
    ----------
    fitted
        The fitted model.
    """
    return {name: field.to_xarray() for name, field in plain_fields(fitted).items()}


def plain_fields(fitted: FittedModel) -> dict[str, PlainVariable]:
    """Arrange the centers of each variable on its feature dimensions.

    Parameters
    ----------
    fitted
        The fitted model.

    Returns
    -------
    dict
        For each variable its centers ``(cluster, *feature_dims)`` in the data's own units. Coordinates that were dates
        in the data are dates here. A variable whose features do not fill a grid lies along ``<variable>_feature``. A
        variable or dimension named ``cluster`` is renamed ``feature_cluster``, as the clusters have that name.
    """
    columns: dict[str, list[int]] = {}
    for column, feature in enumerate(fitted.features):
        columns.setdefault(feature.variable, []).append(column)
    arrays: dict[str, PlainVariable] = {}
    for name, indices in columns.items():
        at = [fitted.features[i].at for i in indices]
        labels = {d: list(dict.fromkeys(dict(pairs).get(d) for pairs in at)) for d, _ in at[0]}
        values = fitted.centers[:, indices]
        # Features fill a grid where every combination of labels occurs, the last dimension running fastest.
        grid = [tuple(zip(labels, combined, strict=True)) for combined in product(*labels.values())]
        if grid == at:
            values = values.reshape(len(values), *map(len, labels.values()))
            dims = tuple(_free(d) for d in labels)
        else:
            labels, dims = {}, (f"{name}_feature",)
        coordinates = {
            _free(d): PlainVariable((_free(d),), given, cf_attributes(fitted.about, d))
            for d, one in labels.items()
            if (given := _coordinate(one, fitted.about.get(d, {}))) is not None
        }
        arrays[_free(name)] = PlainVariable(
            ("cluster", *dims),
            values,
            cf_attributes(fitted.about, name),
            coords={"cluster": PlainVariable(("cluster",), fitted.ids), **coordinates},
        )
    return arrays


def cf_attributes(about: About, name: str) -> dict[str, str]:
    """Return the attributes of a variable or dimension that its array in xarray gets.

    The calendar is left out: xarray adds it when it encodes dates, and refuses a second one.

    Parameters
    ----------
    about
        Attributes by variable and dimension, as `Source.about` holds them.
    name
        Name of a variable or dimension.
    """
    return {key: value for key, value in about.get(name, {}).items() if key != "calendar"}


def coordinate_values(labels: Sequence[Any], about: Mapping[str, str]) -> NDArray[Any] | None:
    """Turn labels of a feature dimension into an array ``(m,)``: numbers, or dates where it has a calendar.

    Parameters
    ----------
    labels
        Labels as features hold them: numbers, or text for dates and names.
    about
        Attributes of the dimension.

    Returns
    -------
    ndarray or None
        None for labels that are neither numbers nor dates.
    """
    if all(isinstance(label, (int, float)) and not isinstance(label, bool) for label in labels):
        return np.asarray(labels)
    if "calendar" not in about or not all(isinstance(label, str) for label in labels):
        return None
    import cftime

    try:
        if about["calendar"] == DATES:
            return np.array(labels, "datetime64[ns]")
        return np.array([cftime.datetime.strptime(s, "%Y-%m-%d %H:%M:%S", calendar=about["calendar"]) for s in labels])
    except ValueError:
        return None


def _coordinate(labels: Sequence[Any], about: Mapping[str, str]) -> NDArray[Any] | None:
    values = coordinate_values(labels, about)
    # Names, such as those of channels, are a coordinate too, although they are neither numbers nor dates.
    return np.asarray(labels) if values is None and all(isinstance(label, str) for label in labels) else values


def _free(name: str) -> str:
    return "feature_cluster" if name == "cluster" else name
