"""Pictures of every mode become the numbers that the file holds, all pages of them, and missing parts are named."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image, TiffImagePlugin

from clustering.data.ingest import ingest
from clustering.errors import DataError
from tests.ingested import take

RNG = np.random.default_rng(5)
H, W = 5, 8
BYTES = RNG.integers(0, 256, (H, W, 4), np.uint8)
WORDS = RNG.integers(0, 1 << 16, (H, W, 4), np.uint16)
RGB = Image.fromarray(BYTES[..., :3])
PAGES = [Image.fromarray(RNG.integers(0, 256, (H, W, 3), np.uint8)) for _ in range(3)]


def png16(path: Path, pixels: np.ndarray, kind: int) -> None:
    """Write a PNG of 16 bits, which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    ends = chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + ends)


def tiff(path: Path, pixels: np.ndarray, color: int = 1, order: str = "<", **more: Any) -> None:
    """Write pixels ``(y, x, channel)`` of any type as a TIFF of one strip, with additional tags."""
    y, x, n = pixels.shape
    planar = more.pop("planar", False)
    data = np.ascontiguousarray(np.moveaxis(pixels, -1, 0) if planar else pixels)
    raw = data.astype(pixels.dtype.newbyteorder(order)).tobytes()
    packed = more.pop("packed", False)
    raw = zlib.compress(raw) if packed else raw
    bits, kind = pixels.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    strips = n if planar else 1
    offsets, counts = [8 + i * (len(raw) // strips) for i in range(strips)], [len(raw) // strips] * strips
    tags: dict[int, Sequence[int]] = {
        256: [x], 257: [y], 258: [bits] * n, 259: [8 if packed else 1], 262: [color], 273: offsets, 277: [n],
        278: [y], 279: counts, 284: [2 if planar else 1], 339: [kind] * n,
        **{tag: [value] for tag, value in more.pop("tags", {}).items()},
    }  # fmt: skip
    place = 8 + len(raw) + len(raw) % 2
    outside = place + 2 + 12 * len(tags) + 4
    entries, rest = b"", b""
    for tag, values in sorted(tags.items()):
        listed = struct.pack(f"{order}{len(values)}I", *values)
        inside = listed if len(values) == 1 else struct.pack(f"{order}I", outside + len(rest))
        rest += b"" if len(values) == 1 else listed
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + inside
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, place)
    body = start + raw + b"\0" * (len(raw) % 2)
    path.write_bytes(body + struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4 + rest)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize(
    ("kind", "n", "color"),
    [("u1", 1, 1), ("u2", 1, 1), ("i1", 1, 1), ("i2", 1, 1), ("i4", 1, 1), ("f4", 1, 1), ("u1", 3, 2), ("u2", 3, 2),
     ("u2", 4, 2), ("u1", 4, 5), ("u2", 4, 5)],
)  # fmt: skip
def test_a_tiff_of_any_type_and_order_of_bytes_keeps_its_numbers(
    tmp_path: Path, kind: str, n: int, color: int, order: str, packed: bool
) -> None:
    pixels = np.ascontiguousarray(WORDS).view("f4" if kind == "f4" else f"{kind[0]}{kind[1]}")
    pixels = np.nan_to_num(pixels.reshape(H, -1)[:, : W * n].reshape(H, W, n))
    tiff(tmp_path / "a.tif", pixels, color, order, packed=packed)
    taken = take(tmp_path / "a.tif")
    assert np.array_equal(taken.arrays["image"], pixels)
    assert (taken.arrays["image"].dtype, taken.warnings) == (pixels.dtype, [])


def test_whole_numbers_of_32_bits_without_a_sign_keep_it(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 1 << 32, (H, W, 1), np.uint32)
    tiff(tmp_path / "a.tif", pixels)
    assert np.array_equal(take(tmp_path / "a.tif").arrays["image"], pixels)


@pytest.mark.parametrize(("kind", "n"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["grey", "color", "grey-alpha", "alpha"])
def test_a_png_of_16_bits_keeps_all_of_them(tmp_path: Path, kind: int, n: int) -> None:
    png16(tmp_path / "a.png", WORDS[..., :n], kind)
    assert np.array_equal(take(tmp_path / "a.png").arrays["image"], WORDS[..., :n])


MODES: dict[str, tuple[Callable[[], Image.Image], str, dict[str, Any], Callable[[], Any]]] = {
    "one bit": (lambda: RGB.convert("1"), ".png", {}, lambda: RGB.convert("1")),
    "one bit, bmp": (lambda: RGB.convert("1"), ".bmp", {}, lambda: RGB.convert("1")),
    "one bit, tiff": (lambda: RGB.convert("1"), ".tif", {}, lambda: RGB.convert("1")),
    "palette": (lambda: RGB.convert("P"), ".png", {}, lambda: RGB.convert("P").convert("RGB")),
    "palette with a clear color": (
        lambda: RGB.convert("P"),
        ".png",
        {"transparency": b"\x80" * 256},
        lambda: np.dstack([np.asarray(RGB.convert("P").convert("RGB")), np.full((H, W), 128, "u1")]),
    ),
    "a clear color": (lambda: RGB, ".png", {"transparency": (0, 0, 0)}, lambda: RGB.convert("RGBA")),
    "grey and alpha": (lambda: Image.fromarray(BYTES[..., :2]), ".png", {}, lambda: BYTES[..., :2]),
    "alpha": (lambda: Image.fromarray(BYTES), ".tif", {}, lambda: BYTES),
    "alpha, webp": (
        lambda: Image.fromarray(BYTES | np.array([0, 0, 0, 1], "u1")),
        ".webp",
        {"lossless": True},
        lambda: BYTES | np.array([0, 0, 0, 1], "u1"),
    ),
    "inks": (lambda: Image.frombytes("CMYK", (W, H), BYTES.tobytes()), ".tif", {}, lambda: BYTES),
    "jpeg 2000": (lambda: RGB, ".jp2", {"irreversible": False}, lambda: RGB),
    "jpeg 2000 of 16 bits": (lambda: Image.fromarray(WORDS[..., 0]), ".jp2", {}, lambda: WORDS[..., 0]),
}


@pytest.mark.parametrize("name", MODES)
def test_a_picture_of_any_mode_keeps_its_channels(tmp_path: Path, name: str) -> None:
    make, suffix, options, make_expected = MODES[name]
    make().save(tmp_path / f"a{suffix}", **options)
    taken = take(tmp_path / f"a{suffix}")
    assert np.array_equal(np.squeeze(taken.arrays["image"]), np.asarray(make_expected()))
    assert (taken.dims["image"], taken.warnings) == (("y", "x", "channel"), [])


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", ".tif"), ("RGB", ".tif"), ("I;16", ".tif"), ("L", ".png"), ("I;16", ".png"), ("L", ".jpg"), ("RGB", ".jpg")],
)
def test_a_turned_picture_is_held_upright(tmp_path: Path, mode: str, suffix: str) -> None:
    picture = Image.fromarray(WORDS[..., 0]) if mode == "I;16" else RGB.convert(mode)
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(tmp_path / f"a{suffix}", exif=turned)
    picture.save(tmp_path / f"b{suffix}")
    upright = np.rot90(take(tmp_path / f"b{suffix}").arrays["image"], -1)
    assert np.array_equal(take(tmp_path / f"a{suffix}").arrays["image"], upright)


def test_a_turned_picture_of_16_bits_and_three_channels_is_held_upright(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif", WORDS[..., :3], 2, tags={274: 6})
    assert np.array_equal(take(tmp_path / "a.tif").arrays["image"], np.rot90(WORDS[..., :3], -1))


@pytest.mark.parametrize(
    ("suffix", "options"), [(".tif", {}), (".png", {}), (".webp", {"lossless": True}), (".gif", {})]
)
def test_all_pages_are_taken(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    PAGES[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=PAGES[1:], **options)
    taken = take(tmp_path / f"a{suffix}")
    assert (taken.dims["image"], taken.warnings) == (("page", "y", "x", "channel"), [])
    # A GIF has 256 colours at most, and these pages have fewer.
    assert np.array_equal(taken.arrays["image"], np.stack([np.asarray(page) for page in PAGES]))


def test_many_pages_of_16_bits_are_taken(tmp_path: Path) -> None:
    pages = [Image.fromarray(WORDS[..., i]) for i in range(4)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert np.array_equal(take(tmp_path / "a.tif").arrays["image"][..., 0], np.moveaxis(WORDS, -1, 0))


@pytest.mark.parametrize(
    "other", [RGB.resize((W, H + 1)), RGB.convert("L"), Image.fromarray(WORDS[..., 0])], ids=["size", "mode", "type"]
)
def test_of_pages_that_differ_the_first_is_taken_and_it_is_said(tmp_path: Path, other: Image.Image) -> None:
    PAGES[0].save(tmp_path / "a.tif", save_all=True, append_images=[PAGES[1], other])
    taken = take(tmp_path / "a.tif")
    assert np.array_equal(taken.arrays["image"], PAGES[0])
    assert taken.said("page 1 of 3 is taken", "page 3")


def test_of_a_photograph_with_previews_the_first_is_taken_and_it_is_said(tmp_path: Path) -> None:
    # Pillow 11 damages files of three pages.
    PAGES[0].save(tmp_path / "a.mpo", save_all=True, append_images=PAGES[1:2])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    taken = take(tmp_path / "a.jpg")
    assert taken.arrays["image"].shape == (H, W, 3)
    assert taken.said("page 1 of 2 is taken")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_channels_that_are_passed_over_are_named(tmp_path: Path, dtype: Any) -> None:
    pixels = WORDS.astype(dtype)
    tiff(tmp_path / "a.tif", pixels, 2, tags={338: 0})
    taken = take(tmp_path / "a.tif")
    assert np.array_equal(taken.arrays["image"], pixels[..., :3])
    assert taken.said("channel 4 is left out")


@pytest.mark.parametrize(
    ("pixels", "options", "said"),
    [
        pytest.param(WORDS[..., :3], {"color": 2, "planar": True}, "8 of the 16 bits", id="planes of 16 bits"),
        pytest.param(WORDS, {"color": 1}, "convert it to .npy", id="four bands"),
        pytest.param(RNG.random((H, W, 1)), {}, "convert it to .npy", id="64 bits"),
    ],
)
def test_a_tiff_whose_numbers_cannot_be_had_is_refused(
    tmp_path: Path, pixels: np.ndarray, options: dict[str, Any], said: str
) -> None:
    tiff(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(DataError, match=said):
        ingest(tmp_path / "a.tif", tmp_path / "out.zarr")


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp", ".bmp", ".jpg", ".jp2"])
def test_a_picture_that_is_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    RGB.resize((90, 90)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(DataError) as caught:
        ingest(path, tmp_path / "out.zarr")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_an_animation_that_is_cut_short_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    PAGES[0].save(path, save_all=True, append_images=PAGES[1:])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert take(path).said("'a.gif'", "cut short")


@pytest.mark.parametrize("name", ["a", "a.csv", "a.nc", "a.jpg"])
def test_a_picture_is_known_by_how_it_starts(tmp_path: Path, name: str) -> None:
    RGB.save(tmp_path / "b.png")
    (tmp_path / "b.png").rename(tmp_path / name)
    taken = take(tmp_path / name)
    assert np.array_equal(taken.arrays["image"], RGB)
    assert taken.said("a picture") == (name in ("a.csv", "a.nc"))


@pytest.mark.parametrize(("stated", "kept"), [("-9999", -9999), ("-9999.0\0", -9999), ("nan", None), ("1e40", None)])
def test_the_number_of_a_geotiff_that_means_no_data_becomes_the_fill_value(
    tmp_path: Path, stated: str, kept: int | None
) -> None:
    more = TiffImagePlugin.ImageFileDirectory_v2()
    more.tagtype[42113], more[42113] = 2, stated
    more.tagtype[33550], more[33550] = 12, (10.0, 10.0, 0.0)
    Image.fromarray(WORDS[..., 0].view("i2").astype("i4")).save(tmp_path / "a.tif", tiffinfo=more)
    taken = take(tmp_path / "a.tif")
    assert zarr.open_array(tmp_path / "taken.zarr" / "image", mode="r").attrs.get("_FillValue") == kept
    assert taken.said("place of the pixels on the ground")
    assert taken.said("no data is left out", repr(stated)) == (kept is None)
