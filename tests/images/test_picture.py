from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr
from PIL import Image

import clustering as c
from clustering.errors import SourceError
from clustering.images.picture import open_pictures

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
STACK = np.stack([PIXELS, PIXELS[::-1]])
PART = (slice(1, 4), slice(2, 6))

LAYOUTS: dict[str, tuple[Any, list[np.ndarray]]] = {
    "colours": (PIXELS, [PIXELS]),
    "grey": (PIXELS[..., 0], [PIXELS[..., :1]]),
    "stack": (STACK, list(STACK)),
    "grey stack": (STACK[..., 0], [STACK[0, ..., :1], STACK[1, ..., :1]]),
    "dask": (dask.array.from_array(PIXELS, chunks=(2, 3, 3)), [PIXELS]),
    "channels first": (xr.DataArray(PIXELS.transpose(2, 0, 1), dims=("band", "lat", "lon")), [PIXELS]),
    "channels before pages": (xr.DataArray(STACK.transpose(3, 0, 1, 2), dims=("c", "time", "y", "x")), list(STACK)),
    "truth": (PIXELS[..., 0] > 99, [np.where(PIXELS[..., :1] > 99, np.uint8(255), np.uint8(0))]),
}


@pytest.mark.parametrize(("image", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_any_part_is_read_in_one_layout(image: Any, expected: list[np.ndarray]) -> None:
    pictures = open_pictures(image)
    assert [picture.shape for picture in pictures] == [pixels.shape for pixels in expected]
    for picture, pixels in zip(pictures, expected, strict=True):
        np.testing.assert_array_equal(picture.pixels(), pixels)
        np.testing.assert_array_equal(picture.read(*PART), pixels[PART])
        assert picture.pixels().dtype == picture.dtype == np.uint8


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("grouped", [False, True], ids=["array", "group"])
def test_stores_are_read_where_they_are_needed(zarr_format: Any, grouped: bool, tmp_path: Path) -> None:
    path = tmp_path / "photo.zarr"
    if grouped:
        image = xr.DataArray(PIXELS, {"y": np.arange(5) * 0.5}, ("y", "x", "channel"), attrs={"units": "1"})
        xr.Dataset({"photo": image}).to_zarr(path, zarr_format=zarr_format, consolidated=False)
    else:
        zarr.create_array(path, data=PIXELS, chunks=(2, 3, 3), zarr_format=zarr_format)
    (picture,) = open_pictures(path)
    assert not picture.in_memory
    assert picture.name == "photo"
    np.testing.assert_array_equal(picture.read(*PART), PIXELS[PART])
    assert {d: list(one.values) for d, one in picture.coords.items()} == (
        {"y": [0.0, 0.5, 1.0, 1.5, 2.0]} if grouped else {}
    )
    assert picture.chunks == ((5, 7) if grouped else (2, 3))


def test_pages_and_files_of_one_name_have_names_of_their_own(tmp_path: Path) -> None:
    frames = [Image.fromarray(pixels) for pixels in STACK]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    (tmp_path / "other").mkdir()
    frames[1].save(tmp_path / "b.png")
    frames[0].save(tmp_path / "other" / "b.png")
    pictures = open_pictures([tmp_path / "a.tif", tmp_path / "b.png", tmp_path / "other" / "b.png"])
    assert [picture.name for picture in pictures] == ["a-1", "a-2", "b", "b-2"]
    np.testing.assert_array_equal(pictures[1].pixels(), STACK[1])
    np.testing.assert_array_equal(pictures[3].pixels(), STACK[0])


def test_an_opaque_alpha_channel_is_left_out(tmp_path: Path) -> None:
    opaque = np.dstack([PIXELS, np.full((5, 7), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(open_pictures(tmp_path / "opaque.png")[0].pixels(), PIXELS)
    opaque[2, 3, 3] = 254
    Image.fromarray(opaque).save(tmp_path / "clear.png")
    with pytest.raises(SourceError, match=r"clear.png' has 1 transparent pixels.*flatten it on a background first"):
        open_pictures(tmp_path / "clear.png")


def test_16_bits_are_kept(tmp_path: Path) -> None:
    deep = PIXELS[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    (picture,) = open_pictures(tmp_path / "deep.png")
    assert picture.peak == 65535
    np.testing.assert_array_equal(picture.pixels()[..., 0], deep)


def written(name: str, folder: Path) -> Any:
    """Make a wrong image by its name."""
    path = folder / "image.png"
    if name == "text":
        path.write_text("no image")
    elif name == "cut short":
        Image.fromarray(np.tile(PIXELS, (40, 40, 1))).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name == "inks":
        path = folder / "image.jpg"
        Image.fromarray(np.dstack([PIXELS, PIXELS[..., :1]]), "CMYK").save(path)
    elif name == "folder":
        path = folder
    elif name == "several":
        path = folder / "many.zarr"
        data = dict.fromkeys(("one", "two"), (("y", "x"), PIXELS[..., 0]))
        xr.Dataset(data).to_zarr(path, zarr_format=3, consolidated=False)
    return path


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_numbers_in_the_other_byte_order_are_read(zarr_format: Any, tmp_path: Path) -> None:
    swapped = (PIXELS.astype(np.uint16) * 257).astype(">u2")
    zarr.create_array(tmp_path / "photo.zarr", data=swapped, zarr_format=zarr_format)
    for image in (swapped, tmp_path / "photo.zarr"):
        (picture,) = open_pictures(image)
        assert picture.pixels().dtype == picture.dtype == np.dtype(np.uint16)
        np.testing.assert_array_equal(picture.pixels(), PIXELS.astype(np.uint16) * 257)
        assert c.segment(image, 2).count == c.segment(PIXELS, 2).count


def test_names_of_arrays_lead_to_no_other_folder(tmp_path: Path) -> None:
    image = xr.DataArray(PIXELS, dims=("y", "x", "channel"), name="../mine\\photo")
    c.quantize(image, 2).save(tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out"]
    assert (tmp_path / "out" / "..-mine-photo-k2.png").is_file()


def test_a_file_of_any_size_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    # Above twice this number of pixels, Pillow raises an error.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert open_pictures(tmp_path / "photo.png")[0].shape == (5, 7, 3)


@pytest.mark.parametrize("work", [c.segment, c.quantize])
def test_a_damaged_chunk_is_named(work: Any, tmp_path: Path) -> None:
    path = tmp_path / "photo.zarr"
    zarr.create_array(path, data=PIXELS, chunks=(5, 4, 3))
    (path / "c" / "0" / "1" / "0").write_bytes(b"damaged")
    with pytest.raises(
        SourceError, match=r"cannot read .*photo.zarr.* in rows .* and columns .* of pixels: .*; restore"
    ):
        work(path, 2)


def test_what_a_file_holds_beside_the_picture_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pages = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[:3])]
    pages[0].save(tmp_path / "photo.tif", save_all=True, append_images=pages[1:])
    assert len(open_pictures(tmp_path / "photo.tif")) == 1
    assert caplog.messages == [
        "photo.tif: page 1 of 2 is taken: page 2 has another size or kind (7 × 3 RGB, the first 7 × 5 RGB)"
    ]


WRONG = {
    "absent": "there is no image",
    "text": "is no picture that can be read, or it is damaged; give PNG, JPEG or TIFF, or a Zarr store",
    "cut short": "cannot read .* check the file",
    "inks": "holds CMYK and no red, green and blue; convert it to RGB",
    "folder": "is no Zarr store that can be read",
    "several": r"holds 2 images of 8 or 16 bits; give the path of one array; allowed: \S+/one, \S+/two",
}


@pytest.mark.parametrize(("name", "said"), WRONG.items(), ids=WRONG)
def test_what_is_no_image_is_named_in_one_line(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        open_pictures(written(name, tmp_path))
    assert "\n" not in str(caught.value)


ARRAYS = {
    "floats": (PIXELS / 255, "holds numbers of type float64; images of 8 or 16 bits"),
    "five channels": (xr.DataArray(np.zeros((4, 4, 5), np.uint8), dims=("y", "x", "band")), "has 5 channels; 1 "),
    "alpha": (np.zeros((4, 4, 4), np.uint8), r"has 4 channels \(red, green, blue and alpha\); 1 "),
    "one dimension": (np.zeros(4, np.uint8), r"has the shape \(4,\); allowed: \(y, x\)"),
    "no pixel": (np.zeros((0, 4), np.uint8), r"has the shape \(0, 4\), and so no pixel"),
    "nothing": ([], "there is no image; name one at least"),
    "a number": (3, "image-1 is a int; give a path, or an array"),
}


@pytest.mark.parametrize(("image", "said"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_are_no_images_are_refused(image: Any, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        open_pictures(image)
