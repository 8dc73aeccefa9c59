from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr
from scipy import ndimage
from skimage import data
from skimage.color import rgb2lab

import clustering as c
from clustering.errors import ConfigError, OutputError, SourceError
from clustering.images.lab import SCALE, lab_tables
from clustering.images.picture import open_pictures
from clustering.images.superpixel_kernels import COLOUR_BITS, PLACE_BITS, to_lab
from clustering.images.superpixels import Centers, Lattice, Tile, assign_tile

CAT = data.chelsea()[60:187, 90:237]
"""Part of a photograph ``(127, 147, 3)``."""
NOISE = np.random.default_rng(1).integers(0, 256, (83, 61, 3), np.uint8)
"""Colours without any region, so that nearly every pixel is a region of its own."""


def lab_of(pixels: np.ndarray) -> np.ndarray:
    """L, a and b of pixels ``(3, y, x)``, in steps of 1/128."""
    lab = np.empty((3, *pixels.shape[:2]), np.int16)
    to_lab(pixels, *lab_tables(8 * pixels.itemsize), lab)
    return lab


TILES = [1000, 128, 64, 50, 33, 17]


@pytest.mark.parametrize(("image", "segments"), [(CAT, 120), (CAT, 9), (NOISE, 60)], ids=["many", "few", "noise"])
def test_tiles_and_threads_do_not_change_a_bit(image: np.ndarray, segments: int) -> None:
    whole = c.segment(image, segments, workers=1)
    for tile, workers in zip(TILES, (1, 2, 3, 4, 2, 2), strict=True):
        tiled = c.segment(image, segments, tile=tile, workers=workers)
        np.testing.assert_array_equal(tiled.labels, whole.labels)
        np.testing.assert_array_equal(tiled.sizes, whole.sizes)
        np.testing.assert_array_equal(tiled.colours, whole.colours)
        assert tiled.explained_variation == whole.explained_variation
        assert tiled.iterations == whole.iterations


def test_tiles_of_single_pixels_give_the_same_labels() -> None:
    image = CAT[:12, :15]
    np.testing.assert_array_equal(c.segment(image, 6, tile=1).labels, c.segment(image, 6).labels)


def test_little_memory_does_not_change_a_bit() -> None:
    # Half of it holds the colours of three tiles; the others are read in every pass.
    little = c.segment(CAT, 120, tile=32, memory=2 * 3 * 6 * 32 * 32)
    np.testing.assert_array_equal(little.labels, c.segment(CAT, 120).labels)


@pytest.mark.parametrize("image", [CAT, NOISE], ids=["photograph", "noise"])
@pytest.mark.parametrize("compactness", [1.0, 10.0, 60.0])
def test_every_superpixel_is_connected_and_none_is_small(image: np.ndarray, compactness: float) -> None:
    segmented = c.segment(image, 40, compactness=compactness)
    labels = segmented.labels
    assert labels.min() == 0
    assert labels.max() == segmented.count - 1
    for label in range(segmented.count):
        assert ndimage.label(labels == label)[1] == 1
    np.testing.assert_array_equal(np.bincount(labels.reshape(-1)), segmented.sizes)
    assert segmented.sizes.min() * 4 * 40 >= labels.size


def test_superpixels_are_numbered_in_the_order_of_reading() -> None:
    labels = c.segment(CAT, 120).labels.reshape(-1)
    _, firsts = np.unique(labels, return_index=True)
    assert (np.diff(firsts) > 0).all()


def test_there_are_about_as_many_as_wanted() -> None:
    for segments in (10, 100, 700):
        assert c.segment(CAT, segments).count == pytest.approx(segments, rel=0.25)
    assert c.segment(CAT, 1).count == 1
    # Each pixel is a superpixel of its own, where that many are wanted and the place alone counts.
    for compactness in (1e6, 1e200):
        assert c.segment(CAT[:5, :4], 20, compactness=compactness).count == 20


@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1), (4, 2000)])
def test_narrow_images_are_cut_into_as_many_pieces_as_wanted(shape: tuple[int, int]) -> None:
    segmented = c.segment(np.random.default_rng(0).integers(0, 256, shape, np.uint8), 20, compactness=100)
    assert segmented.count == pytest.approx(20, rel=0.25)
    assert segmented.spacing == shape[0] * shape[1] / 20 / min(shape)


def brute_force(lab: np.ndarray, lattice: Lattice, centers: Centers) -> np.ndarray:
    """Labels by the definition, pixel by pixel in float32 as the kernel computes, over all centers."""
    height, width = lab.shape[1:]
    reach = round(lattice.spacing * 256)
    labels = np.empty((height, width), np.int32)
    colours = centers.colours.astype(np.float32) * np.float32(1 / (1 << COLOUR_BITS))
    for y in range(height):
        for x in range(width):
            offset = np.array([y, x]) * (1 << PLACE_BITS) - centers.places
            inside = (np.abs(offset) <= reach).all(axis=1)
            labels[y, x] = y * lattice.down // height * lattice.across + x * lattice.across // width
            if inside.any():
                squares = [(np.float32(lab[i, y, x]) - colours[:, i]) ** 2 for i in range(3)]
                dy, dx = (offset.astype(np.float32) ** 2 * lattice.place_weight).T
                distances = squares[0] + squares[1] + squares[2] + (dy + dx)
                labels[y, x] = np.where(inside, distances, np.inf).argmin()
    return labels


@pytest.mark.parametrize("spread", [0, 9], ids=["near the grid", "far from the grid"])
def test_pixels_join_the_nearest_center_whose_window_they_lie_in(spread: int) -> None:
    image, rng = CAT[:40, :50], np.random.default_rng(3)
    lab, lattice = lab_of(image), Lattice(40, 50, 30, 10.0)
    places = np.stack(np.meshgrid(np.arange(lattice.down), np.arange(lattice.across), indexing="ij"), axis=-1)
    places = (places.reshape(-1, 2) + 0.5) * [40 / lattice.down, 50 / lattice.across]
    places = np.clip(places + rng.normal(0, spread, places.shape), 0, [39, 49])
    y, x = places.astype(int).T
    centers = Centers((lab[:, y, x].T.astype(np.int32) << COLOUR_BITS), (places * 256).astype(np.int64))
    expected = brute_force(lab, lattice, centers)
    tile = Tile(slice(0, 40), slice(0, 50))
    np.testing.assert_array_equal(assign_tile(lab, tile, lattice, centers), expected)
    part = Tile(slice(13, 29), slice(7, 50))
    np.testing.assert_array_equal(assign_tile(lab[:, *part], part, lattice, centers), expected[part])


def test_colours_are_those_of_cielab() -> None:
    lab = lab_of(CAT) / SCALE
    assert np.abs(lab.transpose(1, 2, 0) - rgb2lab(CAT)).max() < 0.1
    greys = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    assert (lab_of(greys)[1:] == 0).all()
    assert lab_of(greys)[0, 0, [0, 255]].tolist() == [0, 100 * SCALE]


def test_a_grey_picture_has_the_superpixels_of_equal_channels() -> None:
    grey = data.camera()[::6, ::6]
    np.testing.assert_array_equal(c.segment(grey, 50).labels, c.segment(np.dstack([grey] * 3), 50).labels)


def test_16_bits_that_say_the_same_as_8_give_the_same_superpixels() -> None:
    np.testing.assert_array_equal(c.segment(CAT.astype(np.uint16) * 257, 80).labels, c.segment(CAT, 80).labels)


def test_the_explained_variation_is_that_of_the_mean_colours() -> None:
    segmented, lab = c.segment(CAT, 80), lab_of(CAT).reshape(3, -1).T / SCALE
    labels = segmented.labels.reshape(-1)
    means = np.stack([lab[labels == i].mean(axis=0) for i in range(segmented.count)])
    np.testing.assert_allclose(segmented.colours, means, rtol=1e-12, atol=1e-12)
    within = np.square(lab - means[labels]).sum()
    assert segmented.explained_variation == pytest.approx(1 - within / np.square(lab - lab.mean(axis=0)).sum())
    assert np.isnan(c.segment(np.full((9, 9), 7, np.uint8), 3).explained_variation)


def test_regions_of_one_colour_are_found_exactly() -> None:
    quarters = np.zeros((40, 60, 3), np.uint8)
    quarters[:20, 30:], quarters[20:, :30], quarters[20:, 30:] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    labels = c.segment(quarters, 24, compactness=1).labels
    for label in range(labels.max() + 1):
        assert len(np.unique(quarters[labels == label], axis=0)) == 1


def test_passes_stop_where_no_center_moves() -> None:
    quarters = np.kron(np.uint8([[0, 255], [255, 0]]), np.ones((20, 20), np.uint8))
    segmented = c.segment(quarters, 4, iterations=50)
    assert segmented.iterations < 5
    assert c.segment(CAT, 80, iterations=0).iterations == 0


def test_coordinates_of_the_image_are_those_of_the_labels() -> None:
    coords = {"lat": np.linspace(60, 50, 127), "lon": ("lon", np.arange(147.0), {"units": "degrees_east"})}
    image = xr.DataArray(CAT.transpose(2, 0, 1), coords, ("band", "lat", "lon"))
    labels = c.segment(image, 80).labels
    assert labels.dims == ("lat", "lon")
    np.testing.assert_array_equal(labels, c.segment(CAT, 80).labels)
    xr.testing.assert_equal(labels.lat, image.lat)
    assert labels.lon.attrs == {"units": "degrees_east"}


@pytest.mark.parametrize("chunks", [(32, 48, 3), (127, 20, 1), (50, 147, 3)], ids=str)
def test_labels_in_a_store_have_its_chunks_and_the_same_bits(chunks: tuple[int, ...], tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "photo.zarr", data=CAT, chunks=chunks, dimension_names=("y", "x", "c"))
    stored = c.segment(tmp_path / "photo.zarr", 80, tile=40, to=tmp_path / "labels.zarr")
    held = c.segment(CAT, 80)
    np.testing.assert_array_equal(stored.labels, held.labels)
    array = zarr.open_array(tmp_path / "labels.zarr" / "labels")
    assert array.chunks == chunks[:2]
    assert array.dtype == held.labels.dtype == np.int8
    assert array.fill_value == -1
    dataset = xr.open_zarr(tmp_path / "labels.zarr", consolidated=False)
    np.testing.assert_array_equal(dataset["size"], held.sizes)
    np.testing.assert_array_equal(dataset["colour"], held.colours)
    assert dataset.attrs["explained_variation"] == held.explained_variation


def test_dask_arrays_are_read_tile_by_tile() -> None:
    lazy = dask.array.from_array(CAT, chunks=(50, 31, 3))
    (picture,) = open_pictures(lazy)
    assert picture.chunks == (50, 31)
    np.testing.assert_array_equal(c.segment(lazy, 80, tile=40).labels, c.segment(CAT, 80).labels)


def test_only_superpixels_are_replaced(tmp_path: Path) -> None:
    c.segment(CAT, 9, to=tmp_path / "labels.zarr")
    with pytest.raises(OutputError, match="exists; name another destination, or use --overwrite"):
        c.segment(CAT, 9, to=tmp_path / "labels.zarr")
    assert c.segment(CAT, 4, to=tmp_path / "labels.zarr", overwrite=True).count == 4
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not superpixels as 'segment' wrote them"):
        c.segment(CAT, 9, to=tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_names_of_places_are_written_with_the_labels(tmp_path: Path) -> None:
    names = [f"station {i}" for i in range(9)]
    image = xr.DataArray(CAT[:9, :9, 0], {"station": names}, ("station", "x"))
    assert c.segment(image, 4, to=tmp_path / "labels.zarr").labels["station"].values.tolist() == names


@pytest.mark.parametrize("dims", [("labels", "x"), ("y", "segment")])
def test_dimensions_that_bear_names_of_the_output_are_refused(dims: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="uses that name; rename the dimension"):
        c.segment(xr.DataArray(CAT[..., 0], dims=dims), 9, to=tmp_path / "labels.zarr")
    assert list(tmp_path.iterdir()) == []


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "more segments than pixels": (
        {"segments": 18_670},
        ConfigError,
        "segments is 18,670, and image 'image-1' has 18,669 pixels; lower segments",
    ),
    "no segment": ({"segments": 0}, ConfigError, "segments is 0; a whole number of 1 or more is needed"),
    "half a segment": ({"segments": 2.5}, ConfigError, "segments is 2.5; a whole number"),
    "no compactness": ({"compactness": 0}, ConfigError, "compactness is 0; a number above 0 is needed"),
    "a word": ({"compactness": "much"}, ConfigError, "compactness is 'much'; a number above 0 is needed"),
    "no number": ({"compactness": None}, ConfigError, "compactness is None; a number above 0 is needed"),
    "no tile": ({"tile": 0}, ConfigError, "tile is 0; a whole number of 1 or more is needed"),
    "no memory": ({"memory": "lots"}, ConfigError, "memory is 'lots'; a size such as 2GiB"),
    "several images": ({"image": np.zeros((2, 9, 9), np.uint8)}, SourceError, "there are 2 images, and superpixels"),
}


@pytest.mark.parametrize(("call", "kind", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_segmented_is_named_in_one_line(call: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as caught:
        c.segment(**{"image": CAT, **call})
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
