"""NetCDF-4 by the CF conventions: the model in one file, the labels on the sample grid in another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from clustering.deferred import xr
from clustering.errors import ClusteringError, OutputError, reason
from clustering.exports.content import Content, optional
from clustering.fitting.center_fields import center_fields
from clustering.models.covariances import DIMS

_COMPRESSED = {"zlib": True, "complevel": 4}


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
        Conventions="CF-1.11",
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
        labels = content.open_labels("netcdf")
        # xarray keeps whole numbers only without a fill value, and Panoply leaves out what is below the valid range.
        labels["labels"].attrs["valid_min"] = labels["labels"].dtype.type(0)
        labels.attrs = {name: _attribute(value) for name, value in labels.attrs.items()} | {"Conventions": "CF-1.11"}
        _save(labels, path.with_name(labels_name(path)))


def _attribute(value: Any) -> Any:
    """Return an attribute as NetCDF can hold it: objects, lists of text and truth values become text."""
    plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return value if plain else json.dumps(value)


def _save(dataset: xr.Dataset, path: Path) -> None:
    dataset = dataset.drop_encoding()
    # NetCDF has no half precision; its values are the same in single precision.
    halves = [name for name, array in dataset.variables.items() if array.dtype == np.float16]
    dataset = dataset.assign({name: dataset[name].astype(np.float32) for name in halves})
    encoding = {
        name: _COMPRESSED for name, array in dataset.data_vars.items() if array.dtype.kind in "iuf" and array.ndim
    }
    try:
        dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    except (ClusteringError, OSError):
        raise
    # Names and attributes come from the data, and NetCDF does not hold all of them.
    except Exception as error:
        raise OutputError(f"NetCDF cannot hold this ({reason(error)}); export to npz or csv") from error
