"""The model on disk: a Zarr group of plain arrays and JSON attributes, which xarray opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from clustering.data.source import Feature
from clustering.errors import SourceError
from clustering.fitting.fitted import Fitted, Summary
from clustering.fitting.loop import Stop
from clustering.models.kinds import MODELS
from clustering.models.model import stored

FORMAT = 1
"""Version of the layout."""


def to_dataset(fitted: Fitted) -> xr.Dataset:
    """Describe a fitted model as labelled arrays.

    Returns
    -------
    xarray.Dataset
        ``centers (cluster, feature)`` in the data's own units, ``weights (cluster)``, ``covariances`` where the kind
        has them, ``history (pass, step)``, the exact params (``params_…``), what was measured of each cluster in each
        pass (``track_…``) and what pass 0 found out about each feature. Labels of the feature dimensions are
        coordinates of ``feature``.
    """
    summary, params = fitted.summary, fitted.params
    covariances = fitted.covariances
    attributes = {
        "format": FORMAT,
        "kind": fitted.model.kind,
        "k": int(fitted.model.k),
        "model": {name: value for name, value in asdict(fitted.model).items() if value is not None},
        "features": [[f.variable, *([d, v] for d, v in f.at)] for f in fitted.features],
        "objective": fitted.objective,
        "iterations": fitted.iterations,
        "stop_reason": str(fitted.stop),
        "reads": fitted.reads,
        "bytes_read": fitted.bytes_read,
        "n_cells": summary.cells,
        "n_rows": summary.count,
        "n_sampled": summary.sampled,
        "total_weight": summary.weight,
        "notes": list(fitted.notes),
        "remarks": list(fitted.remarks),
        **({} if fitted.criteria is None else {"criteria": fitted.criteria}),
    }
    return xr.Dataset(
        {
            "centers": (("cluster", "feature"), fitted.centers),
            **({} if covariances is None else {"covariances": (params.dims["covariances"], covariances)}),
            "shares": ("cluster", fitted.shares),
            "weights": ("cluster", fitted.weights),
            "history": (("pass", "step"), fitted.history, {"steps": ["assignment", "update"]}),
            **{f"params_{name}": (params.dims[name], array) for name, array in stored(params).items()},
            **{f"track_{name}": (("pass", "cluster"), array) for name, array in fitted.track.items()},
            "mean": ("feature", summary.mean),
            "variance": ("feature", summary.variance),
            "minimum": ("feature", summary.least),
            "maximum": ("feature", summary.greatest),
        },
        coords={"cluster": np.arange(fitted.model.k), **feature_coordinates(fitted.features)},
        attrs=attributes,
    )


_TAKEN = (
    "centers", "weights", "shares", "covariances", "history", "mean", "variance", "minimum", "maximum", "cluster",
    "feature", "feature_too", "pass", "step",
)  # fmt: skip


def feature_coordinates(features: tuple[Feature, ...], taken: tuple[str, ...] = _TAKEN) -> dict[str, Any]:
    """Give numeric labels of the feature dimensions; others are found in the attribute ``features`` alone.

    Parameters
    ----------
    taken
        Names that stand for something else already.
    """
    found: dict[str, Any] = {}
    for d in dict.fromkeys(d for feature in features for d, _ in feature.at):
        labels = [dict(feature.at).get(d, np.nan) for feature in features]
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in labels):
            found[f"feature_{d}" if d in taken else d] = ("feature", np.asarray(labels))
    return found


def from_dataset(dataset: xr.Dataset) -> Fitted:
    """Rebuild what `to_dataset` described, to the last bit."""
    a = dataset.attrs
    array = {str(name): np.asarray(dataset[name].values) for name in dataset.data_vars}
    model = MODELS[a["kind"]](**a["model"])
    return Fitted(
        model=model,
        params=model.restored(_group(array, "params_")),
        features=tuple(Feature(f[0], tuple((d, v) for d, v in f[1:])) for f in a["features"]),
        summary=Summary(
            a["n_cells"], a["n_rows"], a["total_weight"], array["mean"], array["variance"], array["minimum"],
            array["maximum"], a["n_sampled"],
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
        criteria=a.get("criteria"),
        track=_group(array, "track_"),
    )  # fmt: skip


def _group(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def save_model(fitted: Fitted, path: str | Path, attributes: Mapping[str, Any] | None = None) -> None:
    """Write the model as a Zarr group, replacing one that is there.

    Parameters
    ----------
    attributes
        More JSON attributes, such as where the model comes from.
    """
    dataset = to_dataset(fitted).assign_attrs(json.loads(json.dumps(dict(attributes or {}))))
    dataset.to_zarr(str(path), mode="w", consolidated=False, zarr_format=3)


def load_model(path: str | Path) -> tuple[Fitted, dict[str, Any]]:
    """Read a model: the path of a ``model.zarr``, or of a run's output that holds one.

    Returns
    -------
    Fitted
    dict
        The attributes given to `save_model`, and those of the layout.

    Raises
    ------
    SourceError
        If there is no model there.
    """
    found = next((p for p in (Path(path) / "model.zarr", Path(path)) if (p / "zarr.json").is_file()), None)
    if found is None:
        raise SourceError(f"no model at {str(path)!r}; name a model.zarr, or the output of a finished run")
    try:
        dataset = xr.open_dataset(str(found), engine="zarr", consolidated=False, chunks=None)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise SourceError(f"{str(found)!r} is not a model ({reason}); name a model.zarr written by 'fit'") from error
    if "format" not in dataset.attrs or "centers" not in dataset:
        raise SourceError(f"the Zarr group at {str(found)!r} is not a model; name a model.zarr written by 'fit'")
    if dataset.attrs["format"] != FORMAT:
        raise SourceError(
            f"the model at {str(found)!r} has format {dataset.attrs['format']}; this version reads format {FORMAT}"
        )
    with dataset:
        return from_dataset(dataset), dict(dataset.attrs)
