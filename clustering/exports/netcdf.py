"""NetCDF-4 by the CF conventions: the model in one file, the labels on the sample grid in another."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.deferred import xr
from clustering.errors import ClusteringError, OutputError, reason
from clustering.exports.content import Content, optional
from clustering.fitting.center_fields import center_fields
from clustering.models.covariances import DIMS

_COMPRESSED = {"zlib": True, "complevel": 4}
_CONVENTIONS = "CF-1.11"
_LONG_NAMES = {"cluster": "id of the cluster", "rank": "rank of the cluster by responsibility, from 0"}
"""Long names of coordinates that are ours."""
_TIME_UNITS = {"days": "D", "hours": "h", "minutes": "m", "seconds": "s", "milliseconds": "ms"}
"""Units of time that readers of CF know, by the names of numpy; shorter ones are unknown to netCDF-Java."""


def labels_name(path: Path) -> str:
    """Return the name of the file of the labels.

    Parameters
    ----------
    path
        Path of the file of the model.
    """
    return f"{path.stem}-labels{path.suffix}"


def model_dataset(content: Content) -> xr.Dataset:
    """Describe the model: centers of each variable on its feature dimensions, and numbers of each cluster.

    Parameters
    ----------
    content
        Model to write.

    Returns
    -------
    xarray.Dataset
        ``<variable>_center (cluster, *feature_dims)``, in the units of the data; ``cluster_name``, ``cluster_share``,
        and ``cluster_weight (cluster)``, ``cluster_covariance`` where the kind has it, and ``objective_history``.
    """
    fitted, clusters = content.fitted, content.clusters
    fields = {f"{name}_center": field for name, field in center_fields(fitted).items()}
    arrays: dict[str, Any] = {
        "cluster_name": ("cluster", clusters.display_names, {"long_name": "name of the cluster"}),
        "cluster_share": ("cluster", fitted.shares, {"long_name": "share in the total weight", "units": "1"}),
        "cluster_weight": ("cluster", fitted.weights, {"long_name": "mixing weight or share", "units": "1"}),
        "objective_history": (
            ("pass", "step"), fitted.history, {"long_name": "objective after the assignment and the update step"}
        ),
    }  # fmt: skip
    kind = fitted.components.covariance
    if fitted.covariances is not None and kind is not None:
        space = "prepared rows" if fitted.covariances_prepared else "the data"
        dims = tuple(d if d == "cluster" else f"covariance_{d}" for d in DIMS[kind])
        arrays["cluster_covariance"] = (dims, fitted.covariances, {"long_name": f"covariance, in units of {space}"})
    dataset = xr.Dataset({**fields, **arrays})
    return dataset.assign_attrs(
        Conventions=_CONVENTIONS,
        history=f"fitted by zarr-clustering {version('zarr-clustering')}",
        title=f"centers of {fitted.model.kind} with {fitted.model.k} clusters",
        kind=fitted.model.kind,
        model=json.dumps(_options(content)),
        features=json.dumps([str(feature) for feature in fitted.features]),
        objective=fitted.objective,
        iterations=fitted.iterations,
        stop_reason=str(fitted.stop),
        total_weight=fitted.summary.weight,
    )


def _options(content: Content) -> dict[str, Any]:
    from clustering.models.registry import model_to_json

    return dict(model_to_json(content.fitted.model))


def write(content: Content, path: Path) -> None:
    """Write the model, and the labels if there are any.

    Parameters
    ----------
    content
        Model to write.
    path
        Path of the file of the model.
    """
    optional("h5netcdf", "netcdf")
    _save(model_dataset(content), path)
    if content.labels_path is not None:
        _save(labels_dataset(content), path.with_name(labels_name(path)))


def labels_dataset(content: Content) -> xr.Dataset:
    """Open the labels, described by the CF conventions.

    Parameters
    ----------
    content
        Labels to write.

    Returns
    -------
    xarray.Dataset
        Labels and further outputs on the sample grid, not read yet.
    """
    labels, model = content.open_labels("netcdf"), content.fitted.model
    for array in labels.variables.values():
        if "flag_values" in array.attrs:
            # Flags are of the type of their variable.
            array.attrs["flag_values"] = np.asarray(array.attrs["flag_values"], array.dtype)
    # xarray keeps whole numbers only without a fill value, and Panoply leaves out what is below the valid range.
    labels["labels"].attrs["valid_min"] = labels["labels"].dtype.type(0)
    mappings = [name for name, array in labels.coords.items() if {"grid_mapping_name", "crs_wkt"} & {*array.attrs}]
    for name in mappings:
        labels[name].attrs.setdefault("long_name", "coordinate reference system")
    attributes = {name: _attribute(value) for name, value in labels.attrs.items()}
    made = f"labelled by zarr-clustering {attributes['version']}, run {attributes['run']}"
    # A grid mapping is no coordinate, so it has no place in the list of coordinates.
    return labels.reset_coords(mappings).assign_attrs(
        {
            "title": f"labels of {model.kind} with {model.k} clusters",
            **attributes,
            "history": "\n".join(filter(None, [str(attributes.get("history", "")), made])),
            "Conventions": _CONVENTIONS,
        }
    )


def time_encoding(dates: NDArray[np.datetime64]) -> dict[str, Any]:
    """Count dates in the longest unit that loses nothing.

    Parameters
    ----------
    dates
        Dates of any shape.

    Returns
    -------
    dict
        Encoding for xarray; empty where the unit is shorter than readers of CF know.
    """
    present = dates[~np.isnat(dates)]
    for unit, code in _TIME_UNITS.items():
        if (present == present.astype(f"M8[{code}]")).all():
            counts = present.astype(f"M8[{code}]").astype(np.int64)
            dtype = "int32" if np.abs(counts).max(initial=0) < 2**31 else "int64"
            return {"units": f"{unit} since 1970-01-01", **({"dtype": dtype} if len(present) == dates.size else {})}
    return {}


def _attribute(value: Any) -> Any:
    """Return an attribute as NetCDF can hold it: objects, lists of text and truth values become text."""
    plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return value if plain else json.dumps(value)


def _save(dataset: xr.Dataset, path: Path) -> None:
    dataset = dataset.drop_encoding()
    # NetCDF has no half precision; its values are the same in single precision.
    halves = [name for name, array in dataset.variables.items() if array.dtype == np.float16]
    dataset = dataset.assign({name: dataset[name].astype(np.float32) for name in halves})
    encoding: dict[Any, dict[str, Any]] = {
        name: _COMPRESSED for name, array in dataset.data_vars.items() if array.dtype.kind in "iuf" and array.ndim
    }
    for name, array in dataset.coords.items():
        if name in dataset.dims and array.dtype.kind == "f":
            # CF conventions, section 2.5.1: a coordinate variable has no missing values.
            encoding[name] = {"_FillValue": None}
            # Labels are opened as they are stored, so their fill value is an attribute.
            array.attrs.pop("_FillValue", None)
        if array.dtype == np.int64 and np.abs(array.values).max(initial=0) < 2**31:
            # Older readers do not know whole numbers of 64 bits.
            encoding[name] = {"dtype": "int32"}
        if array.dtype.kind == "M":
            encoding[name] = time_encoding(array.values)
        if name in _LONG_NAMES and "standard_name" not in array.attrs:
            array.attrs.setdefault("long_name", _LONG_NAMES[str(name)])
    try:
        dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    except (ClusteringError, OSError):
        raise
    # Names and attributes come from the data, and NetCDF does not hold all of them.
    except Exception as error:
        raise OutputError(f"NetCDF cannot hold this ({reason(error)}); export to npz or csv") from error
