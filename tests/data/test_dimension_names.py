"""OME-Zarr images name their axes and channels; groups of groups and arrays without names are refused by name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from images import CHANNELS, PIXELS, formats, image, tree

import clustering
from clustering.data.access import open_source
from clustering.data.reading import read_block
from clustering.data.source_fingerprint import source_fingerprint
from clustering.errors import SourceError


def rows(source: Any) -> np.ndarray:
    plan = source.plan()
    return np.concatenate([read_block(source, plan.block(i)).values for i in range(len(plan))])


@formats
@pytest.mark.parametrize("inside", ["", "plate/A/1"], ids=["root", "nested"])
def test_a_level_of_an_image_has_its_axes_and_channels(tmp_path: Path, zarr_format: Any, inside: str) -> None:
    path = image(tmp_path / "i.zarr", zarr_format, inside=inside)
    source = open_source(
        path, group=f"{inside}/1", sample_dims=["y", "x"], feature_dims="c", select={"c": ["CD3", "CD8"]}
    )
    assert source.shape == (8, 6)
    assert [str(f) for f in source.features] == ["values[c=CD3]", "values[c=CD8]"]
    assert np.array_equal(rows(source), PIXELS[1:, ::2, ::2].reshape(2, -1).T)


@formats
@pytest.mark.parametrize("by", ["path", "array", "group"])
def test_a_level_is_the_same_however_it_is_opened(tmp_path: Path, zarr_format: Any, by: str) -> None:
    path = image(tmp_path / "i.zarr", zarr_format)
    opened = {
        "path": lambda: open_source(path / "0", sample_dims=["y", "x"]),
        "array": lambda: open_source(zarr.open_array(path / "0", mode="r"), sample_dims=["y", "x"]),
        "group": lambda: open_source(path, group="/0/", sample_dims=["y", "x"]),
    }
    source = opened[by]()
    assert source.feature_dims == ("c",)
    assert source.dataset.c.values.tolist() == list(CHANNELS)


def test_names_of_the_array_itself_come_first(tmp_path: Path) -> None:
    path = image(tmp_path / "i.zarr", 3, named=True)
    zarr.create_array(path / "0", data=PIXELS, dimension_names=("c", "row", None), overwrite=True)
    source = open_source(path, group="0", sample_dims=["row", "x"], isel={"c": 0})
    assert source.dataset["values"].dims == ("row", "x")
    assert source.dataset.c.item() == "DAPI"


@formats
def test_a_model_of_channels_keeps_their_names_on_disk(tmp_path: Path, zarr_format: Any) -> None:
    path = image(tmp_path / "i.zarr", zarr_format)
    options: dict[str, Any] = {"group": "0", "sample_dims": ["y", "x"], "select": {"c": ["DAPI", "CD8"]}}
    fit = clustering.fit(path, clustering.KMeans(k=2), **options)
    fit.save(tmp_path / "model.zarr")
    again = clustering.load_fit(tmp_path / "model.zarr")
    assert [str(f) for f in again.fitted.features] == ["values[c=DAPI]", "values[c=CD8]"]
    assert again.predict(path, **options).identical(fit.predict(path, **options))


@formats
@pytest.mark.parametrize(
    "labels",
    [None, (), CHANNELS[:2], ("DAPI", "", "CD8")],
    ids=["untold", "empty", "too-few", "one-nameless"],
)
def test_channels_that_are_not_all_labelled_have_no_names(tmp_path: Path, zarr_format: Any, labels: Any) -> None:
    source = open_source(image(tmp_path / "i.zarr", zarr_format, labels), group="0", sample_dims=["y", "x"])
    assert source.feature_dims == ("c",)
    assert "c" not in source.dataset.coords


STRANGE: list[Any] = [
    {"ome": 3},
    {"multiscales": {}},
    {"multiscales": [3]},
    {"multiscales": [{"datasets": 3, "axes": 3}]},
    {"multiscales": [{"datasets": [{"path": "0"}], "axes": [{"name": "c"}]}]},
    {"multiscales": [{"datasets": [{"path": "0"}], "axes": [{"name": "y"}] * 3}]},
    {"multiscales": [{"datasets": [{"path": "1"}], "axes": [{"name": a} for a in "cyx"]}]},
    {"multiscales": [{"datasets": [{"path": "0"}], "axes": [{"name": a} for a in "zyx"]}], "omero": 3},
]


@formats
@pytest.mark.parametrize("attributes", STRANGE, ids=map(json.dumps, STRANGE))
def test_attributes_that_tell_no_axes_leave_numbers(tmp_path: Path, zarr_format: Any, attributes: Any) -> None:
    group = zarr.open_group(tmp_path / "i.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("0", data=PIXELS)
    group.attrs.update(attributes)
    dims = open_source(tmp_path / "i.zarr", group="0").dataset["values"].dims
    assert dims == (("z", "y", "x") if "omero" in attributes else ("dim_0", "dim_1", "dim_2"))


def refusal_message(tmp_path: Path, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path / "i.zarr", **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@formats
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
def test_an_image_is_refused_and_its_levels_are_named(tmp_path: Path, zarr_format: Any, named: bool) -> None:
    image(tmp_path / "i.zarr", zarr_format, named=named and zarr_format == 3)
    assert "OME-Zarr image of several resolutions; name one as its group: 0, 1" in refusal_message(tmp_path)
    image(tmp_path / "i.zarr", zarr_format, inside="a/b")
    assert "name one as its group: a/b/0, a/b/1" in refusal_message(tmp_path, group="a/b")
    assert "holds no variables of its own; name a group that does: a/b, a/b/labels/tissue" in refusal_message(tmp_path)


def test_an_image_of_one_named_level_is_a_group_of_one_variable(tmp_path: Path) -> None:
    path = image(tmp_path / "i.zarr", 3, named=True, levels=1)
    assert open_source(path, sample_dims=["y", "x"]).variables == ("0",)


@formats
def test_a_group_of_unnamed_arrays_is_refused_and_they_are_named(tmp_path: Path, zarr_format: Any) -> None:
    group = zarr.open_group(tmp_path / "i.zarr", mode="w", zarr_format=zarr_format).require_group("g")
    for name in ("a", "b"):
        group.create_array(name, data=PIXELS)
    message = refusal_message(tmp_path, group="g")
    assert "name no dimensions; name one as its group: g/a, g/b; or name them in the store" in message


@formats
def test_an_unknown_dimension_of_an_unnamed_array_is_answered_with_how_to_name_it(
    tmp_path: Path, zarr_format: Any
) -> None:
    zarr.create_array(tmp_path / "i.zarr", data=PIXELS, zarr_format=zarr_format)
    for options in ({"sample_dims": ["y"]}, {"select": {"y": 1}}, {"isel": {"y": 1}}):
        message = refusal_message(tmp_path, **options)
        assert "unknown dimension 'y'" in message
        assert "dim_0, dim_1, dim_2; the array names no dimensions: use these, or name them" in message


@formats
def test_a_group_of_groups_is_refused_and_those_with_arrays_are_named(tmp_path: Path, zarr_format: Any) -> None:
    tree(tmp_path / "i.zarr", zarr_format)
    listed = refusal_message(tmp_path).rpartition("name a group that does: ")[2]
    assert listed == "quality, bands/r10m, bands/r20m"
    listed = refusal_message(tmp_path, group="bands").rpartition("name a group that does: ")[2]
    assert sorted(listed.split(", ")) == ["bands/r10m", "bands/r20m"]
    assert open_source(tmp_path / "i.zarr", group="bands/r20m").shape == (4,)


@formats
def test_a_group_without_any_array_is_refused(tmp_path: Path, zarr_format: Any) -> None:
    zarr.open_group(tmp_path / "i.zarr", mode="w", zarr_format=zarr_format).require_group("a")
    assert refusal_message(tmp_path).endswith(
        "holds no variables of its own; nor does any group in it; name another store"
    )


@formats
@pytest.mark.parametrize("consolidated", [True, False])
def test_consolidated_metadata_that_are_older_than_the_store_are_not_believed(
    tmp_path: Path, zarr_format: Any, consolidated: bool
) -> None:
    path = tmp_path / "s.zarr"
    dataset = xr.Dataset({"t": (("row", "feature"), PIXELS[0].astype("f4"))})
    dataset.to_zarr(path, consolidated=False, zarr_format=zarr_format)
    if consolidated:
        with warnings.catch_warnings():
            # Version 3 does not specify it yet.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(path)
    before = open_source(path)
    first = source_fingerprint(before)
    zarr.open_array(path / "t").attrs["scale_factor"] = 2.0
    after = open_source(path)
    assert np.array_equal(rows(after), 2.0 * rows(before))
    assert source_fingerprint(after) != first
