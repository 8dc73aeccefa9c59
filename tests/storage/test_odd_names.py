"""Names that mean something to this library, or are odd, mean what the data say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.data.access import open_source
from clustering.fitting.cluster_names import default_names
from clustering.fitting.labelling import LabelOutputs
from clustering.storage.labels import cautions_of, coordinate_cautions, create_labels

GROUPS = np.arange(8) % 2
ROWS = GROUPS[:, None] * 9.0 + np.arange(3)
OWN = ["cluster", "feature", "pass", "step", "labels", "weights", "component", "variable", "centers", "history", "k"]
ODD = ["7", "time x", "böse", "a/b", "params_centers", "track_weight", "sample"]


def data(sample: str = "n", feature: str = "z", variable: str = "t") -> xr.DataArray:
    """Two groups of rows with labels along both dimensions."""
    coordinates = {sample: (sample, np.arange(8.0)), feature: (feature, [1.5, 2.5, 3.5])}
    return xr.DataArray(ROWS, coordinates, (sample, feature), variable)


@pytest.mark.parametrize("name", [*OWN, *ODD])
@pytest.mark.parametrize("what", ["sample", "feature", "variable"])
def test_any_name_may_stand_for_anything(what: str, name: str, tmp_path: Path) -> None:
    """Dimensions and variables are found again in the model, its fields and the labels."""
    array = data(**{what: name})
    fit = c.fit(array, c.KMeans(k=2), sample_dims=array.dims[0])
    fit.save(tmp_path / "model.zarr")
    again = c.load_fit(tmp_path / "model.zarr")
    labels = again.predict(array)
    assert labels.dims == array.dims[:1]
    assert np.array_equal(labels == labels[0], GROUPS == 0)
    assert np.array_equal(again.centers, fit.centers)
    (field,) = again.fields.data_vars.values()
    assert sorted(field.values[:, 0]) == [0.0, 9.0]
    source = open_source(array, sample_dims=array.dims[0])
    create_labels(tmp_path / "labels.zarr", source, source.plan(whole_chunks=False), default_names(2), {})
    with xr.open_zarr(tmp_path / "labels.zarr", consolidated=False) as dataset:
        assert dataset["labels"].dims == array.dims[:1]


@pytest.mark.parametrize(("name", "outputs"), [("labels", LabelOutputs()), ("distance", LabelOutputs(distance=True))])
@pytest.mark.parametrize("along", ["its own dimension", "another one"])
def test_a_coordinate_that_gives_way_to_a_result_is_reported(
    along: str, name: str, outputs: LabelOutputs, tmp_path: Path
) -> None:
    dim = name if along == "its own dimension" else "n"
    source = open_source(data(sample=dim).assign_coords({name: (dim, np.arange(8.0))}), sample_dims=dim)
    expected = (f"coordinate {name!r} is left out of labels.zarr: a result is called so; rename it in the source",)
    assert coordinate_cautions(source, default_names(2), outputs, c.KMeans(2)) == expected
    create_labels(tmp_path / "a", source, source.plan(whole_chunks=False), default_names(2), {}, outputs, c.KMeans(2))
    assert cautions_of(tmp_path / "a") == expected


def written(path: Path, **arrays: Any) -> str:
    group = zarr.create_group(path)
    for name, (dims, values, attributes) in arrays.items():
        group.create_array(name, data=values, dimension_names=dims, attributes=attributes)
    return str(path)


@pytest.mark.parametrize("name", ["n", "z"])
def test_an_array_may_be_called_like_a_dimension(name: str, tmp_path: Path) -> None:
    """It is clustered where `variables` names it, and is not taken for labels of features elsewhere."""
    store = written(tmp_path / "a.zarr", **{name: (("n", "z"), ROWS, {})})
    fit = c.fit(store, c.KMeans(k=2), variables=name, sample_dims="n")
    assert sorted(fit.centers.values[:, 0]) == [0.0, 9.0]
    with pytest.raises(c.ClusteringError, match=f"name those to cluster in variables: {name}"):
        c.fit(store, c.KMeans(k=2), sample_dims="n")
    store = written(tmp_path / "b.zarr", **{name: (("n", "z"), ROWS, {}), "t": (("n", "z"), ROWS, {})})
    fit = c.fit(store, c.KMeans(k=2), variables="t", sample_dims="n")
    assert [f.at for f in fit.fitted.features] == [(("z", 0),), (("z", 1),), (("z", 2),)]


def test_coordinates_are_clustered_where_they_are_asked_for(tmp_path: Path) -> None:
    """A coordinate along a dimension of its own name is refused in one line."""
    store = written(
        tmp_path / "a.zarr",
        t=(("n", "z"), ROWS, {"coordinates": "height"}),
        height=(("n",), GROUPS * 5.0, {}),
        n=(("n",), np.arange(8.0), {}),
    )
    fit = c.fit(store, c.KMeans(k=2), variables="height", sample_dims="n", feature_dims=[])
    assert sorted(fit.centers.values[:, 0]) == [0.0, 5.0]
    with pytest.raises(c.ClusteringError, match=r"'n' holds the labels of dimension 'n'.*store them under another"):
        c.fit(store, c.KMeans(k=2), variables="n", sample_dims="n", feature_dims=[])


@pytest.mark.filterwarnings("ignore:Duplicate dimension names")
def test_one_name_for_two_dimensions_is_refused(tmp_path: Path) -> None:
    """Samples cannot be distinguished from features then."""
    store = written(tmp_path / "a.zarr", t=(("n", "n"), np.outer(GROUPS, np.ones(8)), {}))
    with pytest.raises(c.ClusteringError, match="dimension 'n' twice"):
        c.fit(store, c.KMeans(k=2))
