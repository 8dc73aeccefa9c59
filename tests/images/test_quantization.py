from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from skimage import data

import clustering as c
from clustering.errors import ConfigError, OutputError, SourceError
from clustering.images.patches import from_patch_rows, patch_rows
from clustering.plots.rate_distortion import rate_distortion

CAT = data.chelsea()[60:151, 90:191]
"""Part of a photograph ``(91, 101, 3)``, with sides that are no multiples of 2, 3 or 4."""
LECTURE = [2, 3, 10, 64]


def recomputed_psnr(picture: np.ndarray, file: Path) -> float:
    """PSNR of a written file, by the textbook."""
    with Image.open(file) as written:
        pixels = np.asarray(written.convert("RGB" if picture.ndim == 3 else "L"), float)
    return float(10 * np.log10(255**2 / np.mean((picture - pixels) ** 2)))


@pytest.mark.parametrize("block", [1, 2, 3])
def test_the_psnr_is_that_of_the_written_pictures(block: int, tmp_path: Path) -> None:
    quantized = c.quantize(CAT, k=LECTURE, block=block)
    quantized.save(tmp_path / "out")
    for k in LECTURE:
        file = tmp_path / "out" / f"image-1-k{k}.png"
        assert quantized.psnr[k] == pytest.approx(recomputed_psnr(CAT, file), rel=1e-12)
        with Image.open(file) as written:
            assert written.size == (101, 91)
            assert written.mode == ("P" if block == 1 else "RGB")
            np.testing.assert_array_equal(np.asarray(written.convert("RGB")), quantized.image(k))


def test_more_colours_keep_more_of_the_picture() -> None:
    psnr = list(c.quantize(CAT, k=LECTURE).psnr.values())
    assert psnr == sorted(psnr)
    assert psnr[0] > 15
    assert psnr[-1] > 33


def test_each_palette_is_that_of_a_fit_of_its_k_alone() -> None:
    quantized = c.quantize(CAT, k=LECTURE)
    for k in LECTURE:
        alone = c.fit(CAT.reshape(-1, 3), c.KMeans(k=k))
        np.testing.assert_array_equal(np.sort(quantized.palettes[k], axis=0), np.sort(np.rint(alone.centers), axis=0))


def test_the_rate_is_the_logarithm_of_k_over_the_pixels_of_a_patch() -> None:
    quantized = c.quantize(CAT, k=[1, 4, 10], block=2)
    assert quantized.bits_per_pixel == {1: 0.0, 4: 0.5, 10: math.log2(10) / 4}
    assert quantized.palettes[10].shape == (10, 2, 2, 3)
    assert all(quantized.entropy_per_pixel[k] <= quantized.bits_per_pixel[k] for k in (1, 4, 10))


def test_the_entropy_is_that_of_the_shares_of_the_colours() -> None:
    picture = np.repeat(np.uint8([0, 100, 200]), [8, 4, 4]).reshape(4, 4)
    quantized = c.quantize(picture, k=3)
    assert quantized.entropy_per_pixel == {3: 1.5}
    assert quantized.psnr == {3: math.inf}
    np.testing.assert_array_equal(quantized.image(3)[..., 0], picture)


def test_a_shared_palette_is_that_of_all_pixels_and_an_own_one_that_of_each_picture() -> None:
    other = np.ascontiguousarray(data.coffee()[100:150, 200:260])
    shared = c.quantize([CAT, other], k=[2, 8])
    both = np.concatenate([CAT.reshape(-1, 3), other.reshape(-1, 3)])[None]
    np.testing.assert_array_equal(shared.palette(8), c.quantize(both, k=8).palette(8))
    np.testing.assert_array_equal(shared.palette(8, 0), shared.palette(8, 1))
    own = c.quantize([CAT, other], k=[2, 8], palette="own")
    for i, picture in enumerate((CAT, other)):
        np.testing.assert_array_equal(own.palette(8, i), c.quantize(picture, k=8).palette(8))
    errors = [own.by_image[name][1].squared_error for name in ("image-1", "image-2")]
    assert own.psnr[8] == pytest.approx(10 * math.log10(255**2 / (sum(errors) / both.size)))


@pytest.mark.parametrize("block", [1, 2])
def test_a_stack_in_zarr_gives_the_bits_of_its_pages_in_memory(block: int, tmp_path: Path) -> None:
    stack = np.stack([CAT, CAT[::-1], CAT[:, ::-1]])
    zarr.create_array(tmp_path / "stack.zarr", data=stack, chunks=(1, 30, 50, 3))
    stored = c.quantize(tmp_path / "stack.zarr", k=[2, 8], block=block, workers=3)
    held = c.quantize(list(stack), k=[2, 8], block=block, workers=1)
    assert [picture.name for picture in stored.pictures] == ["stack-1", "stack-2", "stack-3"]
    np.testing.assert_array_equal(stored.palette(8), held.palette(8))
    np.testing.assert_array_equal(stored.image(8, 2), held.image(8, 2))
    assert stored.psnr == held.psnr


def test_a_grey_picture_stays_grey(tmp_path: Path) -> None:
    grey = data.camera()[::8, ::8]
    quantized = c.quantize(grey, k=[4, 300][:1])
    quantized.save(tmp_path)
    assert quantized.palettes[4].shape == (4, 1)
    assert quantized.psnr[4] == pytest.approx(recomputed_psnr(grey, tmp_path / "image-1-k4.png"), rel=1e-12)


def test_more_colours_than_a_palette_of_png_holds_are_written_as_they_are(tmp_path: Path) -> None:
    quantized = c.quantize(CAT, k=300, restarts=1, max_iterations=3)
    quantized.save(tmp_path)
    with Image.open(tmp_path / "image-1-k300.png") as written:
        assert written.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(written), quantized.image(300))


def test_the_record_holds_the_table_and_the_palettes(tmp_path: Path) -> None:
    quantized = c.quantize([CAT, CAT[:50]], k=[2, 3])
    files = quantized.save(tmp_path)
    record = json.loads((tmp_path / "quantize.json").read_text())
    assert [row["k"] for row in record["table"]] == [2, 3]
    assert [row["psnr"] for row in record["table"]] == list(quantized.psnr.values())
    assert record["palettes"]["3"] == quantized.palettes[3].tolist()
    assert [image["files"]["2"] for image in record["images"]] == ["image-1-k2.png", "image-2-k2.png"]
    assert {file.name for file in files} == {
        "quantize.json", "rate-distortion.png", *(f"image-{i}-k{k}.png" for i in (1, 2) for k in (2, 3)),
    }  # fmt: skip


def test_only_what_quantize_wrote_is_replaced(tmp_path: Path) -> None:
    quantized = c.quantize(CAT, k=2)
    quantized.save(tmp_path)
    with pytest.raises(OutputError, match=r"exists; name another destination, or use --overwrite"):
        quantized.save(tmp_path)
    quantized.save(tmp_path, overwrite=True)
    (tmp_path / "image-1-k2.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match="is not a file as 'quantize' wrote it"):
        quantized.save(tmp_path, overwrite=True)
    assert (tmp_path / "image-1-k2.png").read_bytes() == b"mine"


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 13), st.integers(1, 13), st.sampled_from([1, 3]), st.integers(1, 5), st.integers(0, 9))
def test_pictures_come_back_from_their_patches(height: int, width: int, channels: int, side: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    rows = patch_rows(pixels, side)
    assert rows.shape == (-(-height // side) * -(-width // side), side * side * channels)
    np.testing.assert_array_equal(from_patch_rows(rows, pixels.shape, side), pixels)
    # What hangs over the edge repeats it, so no patch has a number that the picture has not.
    assert set(np.unique(rows)) == set(np.unique(pixels))


def test_the_figure_names_each_k() -> None:
    table = [one.row() for one in c.quantize(CAT, k=[2, 16]).total]
    axes = rate_distortion(table, Figure())
    assert [text.get_text() for text in axes.texts] == ["k = 2", "k = 16"]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1.0, 4.0])
    with pytest.raises(ConfigError, match="keeps the whole picture"):
        rate_distortion([{**table[0], "psnr": None}])


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "more colours than there are": (
        {"images": np.uint8([[0, 1], [2, 2]]), "k": [2, 4]},
        ConfigError,
        "image 'image-1': k is 4 and there are 3 distinct colours; lower k",
    ),
    "more patches than there are": (
        {"images": [np.zeros((4, 4), np.uint8)] * 2, "k": 2, "block": 2},
        ConfigError,
        "the 2 images together: k is 2 and the data have 1 distinct row",
    ),
    "no colour": ({"images": CAT, "k": 0}, ConfigError, "k is 0; whole numbers of 1 or more are needed"),
    "a patch larger than the picture": (
        {"images": CAT, "block": 92},
        ConfigError,
        "block is 92, and image 'image-1' has 91 × 101 pixels; at most 91 is allowed",
    ),
    "no patch": ({"images": CAT, "block": 0}, ConfigError, "block is 0; a whole number of pixels of 1 or more"),
    "unequal channels": (
        {"images": [CAT, CAT[..., 0]]},
        SourceError,
        "image 'image-1' has 3 channels and 'image-2' has 1 channel, so they cannot share a palette",
    ),
    "16 bits": ({"images": CAT.astype(np.uint16)}, SourceError, "has 16 bits, and palettes have colours of 8 bits"),
    "another palette": ({"images": CAT, "palette": "owned"}, ConfigError, "did you mean 'own'? allowed: shared, own"),
    "a wrong option": ({"images": CAT, "restarts": 0}, ConfigError, "restarts is 0; 1 or more is needed"),
}


@pytest.mark.parametrize(("call", "kind", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_quantised_is_named_in_one_line(call: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as caught:
        c.quantize(**call)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_palette_that_is_not_there_is_named() -> None:
    quantized = c.quantize(CAT, k=[2, 16])
    assert "PSNR in dB by k 2: " in repr(quantized)
    with pytest.raises(LookupError, match="there is no palette of 15; allowed: 2, 16"):
        quantized.image(15)
    with pytest.raises(LookupError, match="image is 1, and there are 1, from 0 on"):
        quantized.labels(2, 1)
