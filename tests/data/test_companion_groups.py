"""A mask, weights or labels from another group of the store are those of the data's own group."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from images import PIXELS, TISSUE, formats, image, tree

import clustering
from clustering.data.access import open_source
from clustering.data.reading import read_block
from clustering.data.source import Source
from clustering.data.source_fingerprint import check_unchanged, source_fingerprint
from clustering.errors import DataError, SourceError

IMAGE: dict[str, Any] = {"group": "0", "sample_dims": ["y", "x"], "feature_dims": "c"}


def read(source: Source) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    plan = source.plan(block_bytes=1)
    block_rows = [read_block(source, plan.block(i)) for i in range(len(plan))]
    labels = None if source.labels is None else np.concatenate([np.asarray(r.labels) for r in block_rows])
    return np.concatenate([r.values for r in block_rows]), np.concatenate([r.weights for r in block_rows]), labels


@formats
@pytest.mark.parametrize("name", ["labels/tissue/0", "/labels/tissue/0"], ids=["relative", "absolute"])
def test_the_tissue_of_an_image_masks_its_pixels(tmp_path: Path, zarr_format: Any, name: str) -> None:
    path = image(tmp_path / "i.zarr", zarr_format)
    source = open_source(path, **IMAGE, mask=f"{name} > 0", weights=name, labels=name)
    values, weights, labels = read(source)
    used = np.flatnonzero(blockwise(source, TISSUE))
    assert np.array_equal(values, np.stack([blockwise(source, plane) for plane in PIXELS], 1)[used])
    assert np.array_equal(weights, blockwise(source, TISSUE)[used])
    assert np.array_equal(labels, blockwise(source, TISSUE)[used])
    assert (source.mask, len(used)) == (f"{name} > 0", np.count_nonzero(TISSUE))


def blockwise(source: Source, plane: np.ndarray) -> np.ndarray:
    """Put the cells of a plane into the order of the blocks of a source."""
    plan = source.plan(block_bytes=1)
    return np.concatenate([plane[plan.block(i).slices].reshape(-1) for i in range(len(plan))])


@formats
def test_the_selection_of_the_data_is_that_of_the_mask(tmp_path: Path, zarr_format: Any) -> None:
    path = image(tmp_path / "i.zarr", zarr_format)
    isel: dict[str, Any] = {"y": {"start": 3, "stop": 15, "step": 2}, "x": [9, 1, 1]}
    source = open_source(path, **IMAGE, isel=isel, mask="labels/tissue/0 > 0", select={"c": "CD3"})
    taken = np.ix_(range(3, 15, 2), [9, 1, 1])
    used = blockwise(source, TISSUE[taken] > 0)
    assert np.array_equal(read(source)[0][:, 0], blockwise(source, PIXELS[1][taken])[used])


def test_an_image_without_axes_takes_a_mask_of_its_shape(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "i", mode="w")
    root.create_array("pixels", data=PIXELS)
    root.create_array("aside/mask", data=TISSUE)
    root.create_array("aside/turned", data=TISSUE.T)
    options: dict[str, Any] = {"group": "pixels", "feature_dims": "dim_0"}
    expected = PIXELS[:, TISSUE > 0].T
    assert np.array_equal(read(open_source(tmp_path / "i", **options, mask="aside/mask > 0"))[0], expected)
    # The mask is not transposed where the sample dimensions are named in another order.
    turned = open_source(tmp_path / "i", **options, sample_dims=["dim_2", "dim_1"], mask="aside/mask > 0")
    assert np.array_equal(read(turned)[0], PIXELS[:, TISSUE > 0].T[np.argsort(np.nonzero(TISSUE)[1], kind="stable")])
    with pytest.raises(SourceError, match=r"names no dimensions and has shape \(12, 16\); .*dim_1, dim_2.*\(16, 12\)"):
        open_source(tmp_path / "i", **options, mask="aside/turned")


def test_dimensions_of_length_one_do_not_count(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "i", mode="w")
    root.create_array("pixels", data=PIXELS[:, :1], dimension_names=("c", "y", "x"))
    root.create_array("unnamed", data=TISSUE[None, None, 0])
    root.create_array("named", data=TISSUE[None, :1], dimension_names=("c", "y", "x"))
    expected = PIXELS[:, 0, TISSUE[0] > 0].T
    for name in ("/unnamed", "/named"):
        source = open_source(tmp_path / "i", group="pixels", feature_dims="c", mask=f"{name} > 0")
        assert np.array_equal(read(source)[0], expected)


@formats
@pytest.mark.parametrize("name", ["quality/good", "/quality/good", "/quality"], ids=["array", "absolute", "group"])
def test_a_mask_of_another_node_of_a_tree_is_that_of_the_node_itself(
    tmp_path: Path, zarr_format: Any, name: str
) -> None:
    path = tree(tmp_path / "t.zarr", zarr_format)
    options: dict[str, Any] = {"group": "bands/r10m", "feature_dims": [], "select": {"y": {"start": 2, "stop": 6}}}
    data = xr.open_zarr(path, group="bands/r10m", consolidated=False).load()
    data["good"] = xr.open_zarr(path, group="quality", consolidated=False).good.load()
    expected = read(open_source(data, variables="t", mask="good", feature_dims=[], select=options["select"]))[0]
    assert 0 < len(expected) < 30
    assert np.array_equal(read(open_source(path, **options, mask=name))[0], expected)


TREE: dict[str, Any] = {"group": "bands/r10m", "feature_dims": []}


def beside(path: Path, group: str, array: xr.DataArray, zarr_format: Any = 3) -> str:
    """Write an array into a group of its own, and name it."""
    array.load().to_dataset().to_zarr(path, group=group, consolidated=False, zarr_format=zarr_format)
    return f"{group}/{array.name}"


@formats
@pytest.mark.parametrize("order", ["turned", "shuffled", "larger", "transposed"])
def test_labels_in_another_order_are_matched(tmp_path: Path, zarr_format: Any, order: str) -> None:
    path = tree(tmp_path / "t.zarr", zarr_format)
    good = xr.open_zarr(path, group="quality", consolidated=False).good.load()
    name = beside(path, "other", {
        "turned": good[::-1, ::-1],
        "shuffled": good[[3, 0, 7, 1, 2, 6, 5, 4]],
        "larger": good.reindex(y=np.arange(-2.0, 11.0), fill_value=True)[::-1],
        "transposed": good[::-1].T,
    }[order], zarr_format)  # fmt: skip
    for options in ({"mask": name}, {"mask": f"{name} > 0"}, {"mask": name, "isel": {"y": [5, 1, 2]}}):
        own = {**options, "mask": options["mask"].replace("other", "quality")}
        source = open_source(path, **TREE, **options)
        expected = read(open_source(path, **TREE, **own))[0]
        assert len(expected) > 0
        assert np.array_equal(read(source)[0], expected)
        assert np.array_equal(read(pickle.loads(pickle.dumps(source)))[0], expected)
    weighed = open_source(path, **TREE, weights=name, labels=name)
    assert np.array_equal(read(weighed)[1], good.values.ravel())
    assert np.array_equal(read(weighed)[2], good.values.ravel())


def test_labels_by_which_a_mask_was_matched_are_part_of_the_source(tmp_path: Path) -> None:
    path = tree(tmp_path / "t.zarr")
    good = xr.open_zarr(path, group="quality", consolidated=False).good
    name = beside(path, "turned", good[::-1])
    source = open_source(path, **TREE, mask=name)
    before = source_fingerprint(source)
    zarr.open_array(path / "turned" / "y", mode="r+")[:] = np.roll(good.y.values[::-1], 1)
    assert source_fingerprint(open_source(path, **TREE, mask=name)) != before
    with pytest.raises(DataError, match="'turned/y'"):
        check_unchanged(source)


def test_a_mask_on_other_coordinates_is_refused(tmp_path: Path) -> None:
    path = tree(tmp_path / "t.zarr")
    good = xr.open_zarr(path, group="quality", consolidated=False).good
    for group, array in {
        "shifted": good.assign_coords(x=good.x + 0.5),
        "part": good[2:],
        "twice": good[[0, 1, 2, 3, 4, 5, 6, 7, 6]],
        "close": good.assign_coords(x=(good.x + 1e-9).astype("f4")),
    }.items():
        beside(path, group, array)
    with pytest.raises(SourceError, match="'weights' 'shifted/good' has no value for 6 of 6 labels of 'x'"):
        open_source(path, **TREE, weights="shifted/good")
    with pytest.raises(SourceError, match="'mask' 'part/good' has no value for 2 of 8 labels of 'y'"):
        open_source(path, **TREE, mask="part/good")
    with pytest.raises(SourceError, match="'mask' 'twice/good' has several values for 1 of 8 labels of 'y'"):
        open_source(path, **TREE, mask="twice/good")
    assert open_source(path, **TREE, mask="close/good").mask == "close/good"


FAULTS = {
    "nothing-there": ({"mask": "labels/tisue/0"}, ["'mask'", "from the root", "did you mean 'labels/tissue/0'?"]),
    "another-resolution": ({"mask": "labels/tissue/1"}, ["length 8 along 'y'", "the data have 16", "same grid"]),
    "an-image": ({"labels": "labels/tissue"}, ["'labels'", "several resolutions", "labels/tissue/0"]),
    "too-many-dimensions": ({"weights": "/0"}, ["'weights' variable '/0' varies along 'c'"]),
    "text": ({"mask": "/"}, ["'mask' '/'", "OME-Zarr image"]),
}


@formats
@pytest.mark.parametrize(("options", "fragments"), FAULTS.values(), ids=FAULTS.keys())
def test_what_does_not_fit_is_refused(
    tmp_path: Path, zarr_format: Any, options: dict[str, Any], fragments: list[str]
) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(image(tmp_path / "i.zarr", zarr_format), **IMAGE, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert [f for f in fragments if f not in message] == []


def test_a_level_opened_as_its_own_store_has_no_room_for_others(tmp_path: Path) -> None:
    path = image(tmp_path / "i.zarr", 3)
    with pytest.raises(SourceError, match="is part of a larger one, name the larger one"):
        open_source(path / "0", feature_dims="c", mask="labels/tissue/0 > 0")


def test_a_group_of_several_variables_is_answered_with_their_names(tmp_path: Path) -> None:
    path = tree(tmp_path / "t.zarr")
    xr.Dataset(dict.fromkeys("ab", (("y", "x"), TISSUE[:8, :6]))).to_zarr(
        path, group="many", consolidated=False, zarr_format=3
    )
    with pytest.raises(SourceError, match="'/many' is a group of 2 variables; name one; allowed: /many/a, /many/b"):
        open_source(path, group="bands/r10m", feature_dims=[], mask="/many")


def test_a_variable_in_memory_may_have_a_slash_in_its_name() -> None:
    dataset = xr.Dataset({"t": (("y", "x"), np.ones((8, 6))), "a/b": (("y", "x"), TISSUE[:8, :6] > 0)})
    assert (
        len(read(open_source(dataset, variables="t", feature_dims=[], mask="a/b > 0"))[0]) == (TISSUE[:8, :6] > 0).sum()
    )
    with pytest.raises(SourceError, match="unknown variable 'a/c' in 'mask'"):
        open_source(dataset, variables="t", feature_dims=[], mask="a/c")


@formats
def test_another_process_opens_the_same_mask(tmp_path: Path, zarr_format: Any) -> None:
    source = open_source(image(tmp_path / "i.zarr", zarr_format), **IMAGE, mask="labels/tissue/0 > 0")
    (tmp_path / "source").write_bytes(pickle.dumps(source))
    code = (
        "import pickle, sys\n"
        "s = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "from clustering.data.reading import read_block\n"
        "from clustering.data.source_fingerprint import source_fingerprint\n"
        "print(len(read_block(s, s.plan().block(0))), source_fingerprint(s))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "source")], capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == [str(np.count_nonzero(TISSUE)), source_fingerprint(source)]


@formats
def test_the_fingerprint_follows_the_mask_wherever_it_lies(tmp_path: Path, zarr_format: Any) -> None:
    path = image(tmp_path / "i.zarr", zarr_format)
    masked = source_fingerprint(open_source(path, **IMAGE, mask="labels/tissue/0 > 0"))
    plain = source_fingerprint(open_source(path, **IMAGE))
    assert masked != plain
    zarr.open_array(path / "labels/tissue/0")[0, 0] = 7
    assert source_fingerprint(open_source(path, **IMAGE)) == plain
    assert source_fingerprint(open_source(path, **IMAGE, mask="labels/tissue/0 > 0")) != masked


@formats
def test_pixels_outside_the_tissue_have_no_label(tmp_path: Path, zarr_format: Any) -> None:
    options = {**IMAGE, "mask": "labels/tissue/0 > 0"}
    path = image(tmp_path / "i.zarr", zarr_format)
    labels = clustering.fit(path, clustering.KMeans(k=2), **options).predict(path, **options)
    assert labels.dims == ("y", "x")
    assert np.array_equal(labels.values < 0, TISSUE == 0)
