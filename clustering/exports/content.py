"""What an export is made of: a fitted model, the names of its clusters, and where its labels are."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from clustering.deferred import xr
from clustering.errors import MissingDependencyError, OutputError
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.storage.layout import VERSIONS, current_version
from clustering.storage.model import load_model
from clustering.storage.names_file import load_cluster_names
from clustering.storage.paths import StoragePath, storage_path, zarr_store


@dataclass(frozen=True, eq=False)
class Content:
    """A model to export, with the labels of its run."""

    fitted: FittedModel
    clusters: ClusterNames
    """Ids, names and colours of its clusters."""
    labels_path: StoragePath | None = None
    """Path of a ``labels.zarr``; None where there are none."""

    @property
    def kind(self) -> str:
        """Name of the model, with its divergence or covariance, for messages."""
        model = self.fitted.model
        about = self.fitted.components.covariance or model.start_divergence
        return f"{model.kind} ({about})"

    def open_labels(self, target: str) -> xr.Dataset:
        """Open the labels on the sample grid, without reading them.

        Parameters
        ----------
        target
            Name of the target, for the message.

        Raises
        ------
        OutputError
            If there are no labels.
        """
        if self.labels_path is None:
            raise OutputError(
                f"the target {target!r} needs labels, and there are none; export the output of a run with "
                "output.labels: true, or choose a target for models, such as npz"
            )
        opened: xr.Dataset = xr.open_zarr(zarr_store(self.labels_path), consolidated=False, mask_and_scale=False)
        opened["labels"].attrs.update(self.clusters.attributes)
        return opened


def open_content(run: str) -> Content:
    """Open what a run has to export.

    Parameters
    ----------
    run
        Path or URL of the output of a run, of a version of it, or of a ``model.zarr``.

    Raises
    ------
    SourceError
        If there is no model.
    """
    return content_of_version(current_version(storage_path(run)))


def content_of_version(version: StoragePath) -> Content:
    """Open what a version of an output, or a saved model, has to export.

    Parameters
    ----------
    version
        Path of the version, or of a ``model.zarr``.
    """
    fitted, _ = load_model(version)
    output = _output_of(version)
    clusters = fitted.clusters if output is None else load_cluster_names(output, fitted.ids)
    labels = version / "labels.zarr"
    return Content(fitted, clusters, labels if (labels / "labels" / "zarr.json").is_file() else None)


def _output_of(version: StoragePath) -> StoragePath | None:
    """Return the output that a version, or the model in one, lies in; None for a saved model."""
    parts = str(version).rstrip("/").split("/")
    if VERSIONS not in parts[-3:-1]:
        return None
    place = len(parts) - 1 - parts[::-1].index(VERSIONS)
    return storage_path("/".join(parts[:place]))


def optional(package: str, target: str, extra: str = "export", module: str | None = None) -> Any:
    """Import a package that comes with an extra.

    Parameters
    ----------
    package
        Name of the package.
    target
        Name of the target that needs it.
    extra
        Name of the extra.
    module
        Name of the module to import, where it is not that of the package.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        return import_module(module or package)
    except ImportError as error:
        raise MissingDependencyError(
            f"exporting to {target} needs the package {package!r}; pip install 'zarr-clustering[{extra}]'"
        ) from error


def plain_arrays(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the arrays of a dataset, coordinates too, that numpy can store without pickle.

    Parameters
    ----------
    dataset
        Dataset in memory. Text becomes fixed-width text; objects such as dates of other calendars are left out.
    """
    arrays = {}
    for name, variable in dataset.variables.items():
        values = np.asarray(variable.values)
        if values.dtype.kind in "OT":
            if not all(isinstance(value, str) for value in values.ravel()):
                continue
            values = values.astype(str)
        arrays[str(name)] = values
    return arrays
