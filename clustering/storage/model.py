"""The model on disk: a Zarr group of plain arrays and JSON attributes, which xarray opens."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from clustering.data.encoding import encodable
from clustering.data.ownership import SAVED, check_place, check_target, mark_folder
from clustering.data.plain_dataset import PlainDataset, PlainVariable
from clustering.data.preparation import Preparation
from clustering.data.reading_options import ReadingOptions
from clustering.data.replacing import staged
from clustering.data.source import Feature
from clustering.deferred import xr, zarr
from clustering.errors import SourceError, StoreError, damaged, reason
from clustering.fitting.center_fields import cf_attributes, coordinate_values
from clustering.fitting.fitted_model import FittedModel, Summary
from clustering.fitting.loop import Stop
from clustering.models.param_arrays import array_dims, params_to_arrays
from clustering.models.registry import model_from_json, model_to_json
from clustering.storage.bucket_groups import put_group
from clustering.storage.layout import current_version
from clustering.storage.paths import (
    BucketPath,
    StoragePath,
    storage_path,
    translating_read_errors,
    translating_write_errors,
    zarr_store,
)
from clustering.storage.plain_groups import is_plain, write_plain

FORMAT = 1
"""Version of the layout on disk."""


def describe(fitted: FittedModel) -> PlainDataset:
    """Describe a fitted model as labelled arrays.

    Parameters
    ----------
    fitted
        Fitted model.

    Returns
    -------
    PlainDataset
        ``centers (cluster, feature)`` in the units of the data, ``weights (cluster)``, ``covariances`` where the kind
        has them, ``history (pass, step)``, the exact params (``params_…``), measures of each cluster in each pass
        (``track_…``) and the range, mean and variance of each feature from pass 0. Numbers and dates that label the
        feature dimensions are coordinates of ``feature``, and so is ``variable`` where there are several. A model of
        prepared rows also has ``centers_prepared (cluster, component)`` and the map (``preparation_…``). Then the
        params lie along ``component``, and so do covariances that cannot be given in the units of the data.
    """
    summary, params, preparation = fitted.summary, fitted.params, fitted.preparation
    covariances = fitted.covariances
    own = _COMPONENTS if fitted.covariances_prepared else {}
    inner = {} if preparation is None else _COMPONENTS
    units = _common_attributes(fitted)
    attributes = {
        "format": FORMAT,
        "kind": fitted.model.kind,
        "k": fitted.model.k,
        "largest_id": fitted.largest_id,
        **({"marginalized": True} if fitted.marginalized else {}),
        "model": {name: value for name, value in model_to_json(fitted.model).items() if name != "kind"},
        **({"about": {name: dict(own_about) for name, own_about in fitted.about.items()}} if fitted.about else {}),
        **(
            {"sample_dims": list(fitted.sample_dims), "feature_dims": list(fitted.feature_dims)}
            if fitted.sample_dims
            else {}
        ),
        **({"reading": {"stored": reading.stored, **reading.values}} if (reading := fitted.reading).values else {}),
        "features": [[f.variable, *([d, v] for d, v in f.at)] for f in fitted.features],
        "objective": fitted.objective,
        "iterations": fitted.iterations,
        "stop_reason": str(fitted.stop),
        "reads": fitted.reads,
        "bytes_read": fitted.bytes_read,
        "n_cells": summary.cells,
        "n_rows": summary.count,
        "n_sampled": summary.sampled,
        **({} if summary.drawn is None else {"n_fitted": summary.drawn}),
        "total_weight": summary.weight,
        "notes": list(fitted.notes),
        "remarks": list(fitted.remarks),
        **({} if fitted.criteria is None else {"criteria": fitted.criteria}),
        **({} if preparation is None else {"preparation": preparation_to_json(preparation)}),
    }
    arrays: dict[str, tuple[Any, ...]] = {
        "centers": (("cluster", "feature"), fitted.centers, units),
        **({} if covariances is None else {"covariances": (_along(params.dims["covariances"], own), covariances)}),
        "shares": ("cluster", fitted.shares),
        "weights": ("cluster", fitted.weights),
        "history": (("pass", "step"), fitted.history, {"steps": ["assignment", "update"]}),
        **({} if preparation is None else {"centers_prepared": (("cluster", "component"), fitted.centers_prepared)}),
        **{
            f"params_{name}": (_along(array_dims(params)[name], inner), array)
            for name, array in params_to_arrays(params).items()
        },
        **({} if preparation is None else _arrays(preparation, fitted.centers_prepared)),
        **{f"track_{name}": (("pass", "cluster"), array) for name, array in fitted.track.items()},
        "mean": ("feature", summary.mean, units),
        "variance": ("feature", summary.variance),
        "minimum": ("feature", summary.least, units),
        "maximum": ("feature", summary.greatest, units),
    }
    labels = {"cluster": ("cluster", fitted.ids), **feature_coordinates(fitted)}
    variables, coordinates = ({name: _plain(*one) for name, one in group.items()} for group in (arrays, labels))
    return PlainDataset(variables, coordinates, attributes)


def _plain(dims: str | tuple[str, ...], values: Any, attributes: Mapping[str, Any] | None = None) -> PlainVariable:
    return PlainVariable((dims,) if isinstance(dims, str) else dims, np.asarray(values), attributes or {})


def to_dataset(fitted: FittedModel) -> xr.Dataset:
    """Describe a fitted model as labelled arrays of xarray, see `describe`.

    Parameters
    ----------
    fitted
        Fitted model.
    """
    made: xr.Dataset = describe(fitted).in_xarray
    return made


_COMPONENTS = {"feature": "component", "feature_too": "component_too"}
_TAKEN = (
    "centers", "weights", "shares", "covariances", "history", "mean", "variance", "minimum", "maximum", "cluster",
    "feature", "feature_too", "pass", "step", "centers_prepared", "component", "component_too", "variable",
)  # fmt: skip


_OWN = ("params_", "track_", "preparation_")
"""Prefixes of the names of arrays that depend on the model."""


def _along(dims: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(names.get(d, d) for d in dims)


def _arrays(preparation: Preparation, centers: Any) -> dict[str, Any]:
    """Describe the map of a preparation, and the prepared centers ``(k, p)``."""
    along = ("feature",) if preparation.diagonal else ("feature", "component")
    arrays: dict[str, Any] = {
        "centers_prepared": (("cluster", "component"), centers),
        "preparation_offset": ("feature", preparation.offset),
        "preparation_matrix": (along, preparation.matrix),
        "preparation_inverse": (along[::-1], preparation.inverse),
    }
    if preparation.explained.size:
        arrays["preparation_explained"] = ("component", preparation.explained)
    return arrays


def preparation_to_json(preparation: Preparation) -> dict[str, Any]:
    """Return the part of a preparation that JSON can hold; its arrays are written beside it.

    Parameters
    ----------
    preparation
        Fitted preparation.
    """
    return {
        "unit_norm": preparation.unit_norm,
        "wish": dict(preparation.wish),
        "facts": dict(preparation.facts),
        "words": preparation.words,
    }


def preparation_from_arrays(about: Mapping[str, Any] | None, arrays: Mapping[str, Any]) -> Preparation | None:
    """Rebuild a preparation; None where there is none.

    Parameters
    ----------
    about
        JSON of `preparation_to_json`; None where the model has no preparation.
    arrays
        ``offset``, ``matrix``, ``inverse`` and, where there are principal components, ``explained``.
    """
    return None if about is None else Preparation(**about, **arrays)


def feature_coordinates(fitted: FittedModel, taken: tuple[str, ...] = _TAKEN) -> dict[str, Any]:
    """Return the labels of features along each feature dimension: numbers, dates or text.

    Labels of other kinds are only in the attribute ``features``.

    Parameters
    ----------
    fitted
        Fitted model.
    taken
        Names of other arrays: a dimension with such a name gets the prefix ``feature_``.

    Returns
    -------
    dict
        Dimension, labels ``(d,)`` and attributes, by name of the coordinate.
    """
    coordinates: dict[str, Any] = {}
    features, about = fitted.features, fitted.about
    # A dict keeps the order of the features, which a set would not.
    for d in dict.fromkeys(d for feature in features for d, _ in feature.at):
        own = [dict(feature.at).get(d, np.nan) for feature in features]
        labels = coordinate_values(own, about.get(d, {}))
        if labels is None and all(isinstance(label, str) for label in own):
            labels = np.asarray(own, object)
        if labels is not None:
            coordinates[f"feature_{d}" if d in taken or d.startswith(_OWN) else d] = (
                "feature",
                labels,
                cf_attributes(about, d),
            )
    names = list(dict.fromkeys(feature.variable for feature in features))
    if len(names) > 1 and "variable" not in coordinates:
        flags = {"flag_values": list(range(len(names))), "flag_meanings": " ".join(names)}
        coordinates["variable"] = ("feature", np.array([names.index(f.variable) for f in features], np.int32), flags)
    return coordinates


def _common_attributes(fitted: FittedModel) -> dict[str, str]:
    """Return the attributes that all variables share: units and names."""
    per_variable = [cf_attributes(fitted.about, name) for name in dict.fromkeys(f.variable for f in fitted.features)]
    shared = {
        key: value for key, value in per_variable[0].items() if all(one.get(key) == value for one in per_variable)
    }
    return {key: shared[key] for key in ("units", "long_name", "standard_name") if key in shared}


def from_dataset(dataset: xr.Dataset) -> FittedModel:
    """Rebuild the fitted model that `to_dataset` described, to the last bit.

    Parameters
    ----------
    dataset
        Dataset of `to_dataset`, as read back.
    """
    a = dataset.attrs
    array = {str(name): np.asarray(dataset[name].values) for name in dataset.data_vars}
    model = model_from_json({"kind": a["kind"], **a["model"]})
    return FittedModel(
        model=model,
        params=model.params_from_arrays(_group(array, "params_")),
        features=tuple(map(_feature, a["features"])),
        summary=Summary(
            a["n_cells"], a["n_rows"], a["total_weight"], array["mean"], array["variance"], array["minimum"],
            array["maximum"], a["n_sampled"], a.get("n_fitted"),
        ),
        objective=float(a["objective"]),
        history=array["history"],
        iterations=int(a["iterations"]),
        stop=Stop(a["stop_reason"]),
        shares=array["shares"],
        reads=a["reads"],
        bytes_read=a["bytes_read"],
        notes=tuple(a["notes"]),
        remarks=tuple(a["remarks"]),
        # Earlier versions wrote fewer attributes, so the later ones have defaults.
        criteria=a.get("criteria"),
        track=_group(array, "track_"),
        preparation=preparation_from_arrays(a.get("preparation"), _group(array, "preparation_")),
        about={str(name): dict(own_about) for name, own_about in a.get("about", {}).items()},
        sample_dims=tuple(a.get("sample_dims", ())),
        feature_dims=tuple(a.get("feature_dims", ())),
        ids=np.asarray(dataset["cluster"].values),
        largest_id=a.get("largest_id", -1),
        marginalized=a.get("marginalized", False),
        reading=_reading(a.get("reading", {"stored": False})),
    )  # fmt: skip


def _reading(written: Any) -> ReadingOptions:
    return ReadingOptions(written["stored"], {name: value for name, value in written.items() if name != "stored"})


def _feature(written: Any) -> Feature:
    variable, at = written[0], tuple((d, label) for d, label in written[1:])
    if not all(isinstance(name, str) for name in (variable, *(d for d, _ in at))):
        raise ValueError(f"names of the feature {written!r} are no text")
    return Feature(variable, at)


def _group(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _openable(dataset: xr.Dataset) -> xr.Dataset:
    """Bring coordinates and units into a form that xarray opens again, or leave them out.

    All that is left out is in the attributes too.
    """
    for name, variable in dataset.variables.items():
        if (name in dataset.coords and name != "cluster") or " since " in str(variable.attrs.get("units", "")):
            try:
                dataset = dataset.assign({name: encodable(str(name), variable)})
            except SourceError:
                dataset = dataset.drop_vars([name])
    return dataset


def write_model(fitted: FittedModel, path: StoragePath, attributes: Mapping[str, Any] | None = None) -> None:
    """Write the model as a Zarr group to an empty path, such as one in the staging folder of a run.

    Parameters
    ----------
    fitted
        Fitted model.
    path
        Path of the group, where nothing exists yet.
    attributes
        More JSON attributes, such as where the model comes from.
    """
    with translating_write_errors(path):
        _write(fitted, zarr_store(path), attributes)


def _write(fitted: FittedModel, store: Any, attributes: Mapping[str, Any] | None) -> None:
    described = describe(fitted).assign_attrs(json.loads(json.dumps(dict(attributes or {}))))
    if is_plain(described):
        write_plain(described, store)
        return
    dataset = _openable(described.in_xarray)
    with warnings.catch_warnings():
        # Text, such as names of channels, has no final Zarr v3 specification yet.
        warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
        warnings.filterwarnings("ignore", "coordinate .* has a space in its name")
        # This mode refuses a group that is there. Consolidated metadata are no part of the Zarr v3 specification.
        dataset.to_zarr(store, mode="w-", consolidated=False, zarr_format=3)


def save_model(
    fitted: FittedModel, path: str | Path, attributes: Mapping[str, Any] | None = None, *, overwrite: bool = False
) -> None:
    """Write the model as a Zarr group outside of outputs.

    In a folder, the group appears or replaces the one before in one step. In a bucket, the ``zarr.json`` of the group
    is removed first and written last, so that nobody opens half of it.

    Parameters
    ----------
    fitted
        Fitted model.
    path
        A folder, or the URL of a prefix in a bucket.
    attributes
        More JSON attributes, such as where the model comes from.
    overwrite
        Whether a model that was saved there may be replaced. Anything else is never replaced.

    Raises
    ------
    OutputError
        If something exists there that may not be replaced, or the disk refuses.
    """
    resolved_path = storage_path(path)
    if isinstance(resolved_path, BucketPath):
        # The group is made in memory, so that its objects can be put to the bucket in a safe order.
        content: dict[str, Any] = {}
        _write(fitted, zarr.storage.MemoryStore(content), attributes)
        put_group(resolved_path, {key: value.to_bytes() for key, value in content.items()}, SAVED, overwrite, _REMEDY)
        return
    target = check_place(os.fspath(path) if resolved_path == Path(path) else str(resolved_path))
    with staged(target, lambda: check_target(target, SAVED, overwrite, _REMEDY)) as staging:
        _write(fitted, str(staging), attributes)
        mark_folder(staging, SAVED)


_REMEDY = "overwrite=True"


def load_model(path: str | StoragePath) -> tuple[FittedModel, dict[str, Any]]:
    """Read a model from a ``model.zarr``, or from the current version of an output.

    Parameters
    ----------
    path
        Path or URL of a ``model.zarr``, of a version, or of an output.

    Returns
    -------
    FittedModel
        The fitted model.
    dict
        The attributes given to `save_model`, and those of the layout.

    Raises
    ------
    SourceError
        If there is no model, or it is damaged.
    """
    resolved_path = storage_path(path) if isinstance(path, str) else path
    with open_model(resolved_path) as dataset, translating_read_errors(resolved_path), damage_as_error(resolved_path):
        return from_dataset(dataset), dict(dataset.attrs)


def damage_as_error(path: StoragePath) -> AbstractContextManager[None]:
    """Return a context that turns errors of reading into a `SourceError`: the model is damaged.

    Parameters
    ----------
    path
        Path of the model, as messages name it.
    """
    return damaged(SourceError, f"the model at {str(path)!r}", "name another version, or fit it anew")


def open_model(path: StoragePath) -> xr.Dataset:
    """Open the dataset that `to_dataset` described.

    Parameters
    ----------
    path
        Path of a ``model.zarr``, of a version, or of an output.

    Raises
    ------
    SourceError
        If there is no model, or one of another format.
    StoreError
        If the bucket refuses.
    """
    inside = current_version(path)
    group = next((p for p in (inside / "model.zarr", inside) if (p / "zarr.json").is_file()), None)
    if group is None:
        raise SourceError(f"no model at {str(path)!r}; name a model.zarr, or the output of a finished run")
    try:
        with translating_read_errors(group):
            # A model is small, so its arrays need no Dask: with chunks of None, xarray reads them when they are used.
            dataset = xr.open_dataset(zarr_store(group), engine="zarr", consolidated=False, chunks=None)
    except StoreError:
        raise
    # A foreign or damaged group can raise any error of Zarr and xarray.
    except Exception as error:
        raise SourceError(
            f"{str(group)!r} is not a model ({reason(error)}); name a model.zarr written by 'fit'"
        ) from error
    if "format" not in dataset.attrs or "centers" not in dataset:
        raise SourceError(f"the Zarr group at {str(group)!r} is not a model; name a model.zarr written by 'fit'")
    if dataset.attrs["format"] != FORMAT:
        raise SourceError(
            f"the model at {str(group)!r} has format {dataset.attrs['format']}; this version reads format {FORMAT}"
        )
    return dataset
