from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from PIL import Image
from skimage import data

import clustering as c
from clustering.images import segmented_store
from clustering_flows.cli import run

CAT = data.chelsea()[60:151, 90:191]


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(CAT).save("photo.png")
    Image.fromarray(CAT[..., 0]).save("grey.png")
    Path("text.png").write_text("no image")
    return tmp_path


def test_quantize_shows_a_table_and_writes_pictures(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quantize", "photo.png", "--k", "2,3,10,64", "--output", "out", "--json"]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out.splitlines()[-1])
    quantized = c.quantize(CAT, k=[2, 3, 10, 64])
    assert [row["psnr"] for row in record["table"]] == list(quantized.psnr.values())
    heads, *rows = (line.split() for line in out.splitlines()[:5])
    assert heads == ["k", "PSNR,", "dB", "MSE", "bits/pixel", "entropy", "used"]
    assert [row[:2] for row in rows] == [[str(k), f"{psnr:.2f}"] for k, psnr in quantized.psnr.items()]
    assert sorted(record["written"]) == sorted(
        str(path.relative_to(photo)) for path in Path("out").resolve().glob("[!.]*")
    )
    assert "starts of 4 choices" in err


def test_quantize_says_which_codebooks_a_limit_ended(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quantize", "photo.png", "--k", "2,64", "--max-iterations", "1"]) == 0
    assert "k = 64: stopped by max_iterations after " in capsys.readouterr().err
    assert run(["quantize", "photo.png", "--k", "2", "--output", "finished"]) == 0
    assert "stopped by" not in capsys.readouterr().err


def test_quantize_shows_each_image_and_all_together(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quantize", "photo.png", "grey.png", "--k", "2..3", "--palette", "own", "--block", "2"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if not line.startswith("  ")] == [
        "photo", "grey", "all images", "written    6 files in quantized",
    ]  # fmt: skip


def test_segment_writes_labels_and_borders(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["segment", "photo.png", "--segments", "50", "--tile", "40", "--borders", "borders.png", "--json"]
    assert run(command) == 0
    out, err = capsys.readouterr()
    summary, segmented = json.loads(out.splitlines()[-1]), c.segment(CAT, 50)
    assert summary["segments"] == segmented.count
    assert summary["explained_variation"] == segmented.explained_variation
    assert summary["written"] == ["labels.zarr", "borders.png"]
    labels = xr.open_zarr("labels.zarr", consolidated=False, mask_and_scale=False)["labels"]
    np.testing.assert_array_equal(labels, segmented.labels)
    drawn = CAT.copy()
    drawn[segmented.borders] = (255, 221, 0)
    with Image.open("borders.png") as file:
        np.testing.assert_array_equal(np.asarray(file), drawn)
    assert f"segments   {segmented.count}, of " in out
    assert "pass 1 of 10: centers move by" in err
    assert run([*command, "--overwrite"]) == 0


def test_borders_of_images_higher_than_a_band_have_no_seams(photo: Path) -> None:
    tall = np.tile(CAT[:, :20], (13, 1, 1))
    Image.fromarray(tall).save("tall.png")
    assert run(["segment", "tall.png", "--segments", "40", "--borders", "borders.png"]) == 0
    expected = tall.copy()
    expected[c.segment(tall, 40).borders] = (255, 221, 0)
    with Image.open("borders.png") as file:
        np.testing.assert_array_equal(np.asarray(file), expected)


def test_an_interruption_while_borders_are_drawn_leaves_nothing_in_the_way(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["segment", "photo.png", "--segments", "50", "--borders", "borders.png"]
    before = sorted(photo.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(segmented_store, "borders_of", interrupt)
        assert run(command) == 1
    assert sorted(photo.iterdir()) == before
    assert run(command) == 0


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


MISTAKES = {
    "no image": (["quantize"], "there is no image; name one at least"),
    "an absent image": (["quantize", "nowhere.png"], "there is no image 'nowhere.png'; check the path"),
    "no picture": (["segment", "text.png"], "'text.png' is no picture that can be read, or it is damaged"),
    "words": (["quantize", "photo.png", "--k", "2,many"], "--k is '2,many'; a list of whole numbers of 1 or more"),
    "no colour": (["quantize", "photo.png", "--k", "0"], "--k is '0'; a list of whole numbers of 1 or more"),
    "backwards": (["quantize", "photo.png", "--k", "9..2"], "k is '9..2'; a list such as [2, 3, 5] or a range"),
    "too many colours": (["quantize", "grey.png", "--k", "2,257"], "image 'grey': k is 257 and there are "),
    "a large patch": (["quantize", "photo.png", "--block", "92"], "block is 92, and image 'photo' has 91 × 101"),
    "unlike images": (["quantize", "photo.png", "grey.png"], "image 'photo' has 3 channels and 'grey' has 1 channel"),
    "a taken place": (["quantize", "photo.png", "--output", "taken"], "'taken/quantize.json' is not a file as 'quant"),
    "too many segments": (["segment", "photo.png", "--segments", "9999"], "segments is 9,999, and image 'photo' has "),
    "a taken store": (["segment", "photo.png", "--output", "taken"], "'taken' holds 'quantize.json': it is not super"),
    "a file as a folder": (
        ["quantize", "photo.png", "--output", "text.png"],
        "'text.png/quantize.json' cannot be writ",
    ),
    "a folder in a file": (["segment", "photo.png", "--output", "text.png/a"], "'text.png/a' cannot be written, becau"),
    "borders in labels": (["segment", "photo.png", "--borders", "labels.zarr/b.png"], "'labels.zarr/b.png' is inside "),
    "borders as JPEG": (["segment", "photo.png", "--borders", "b.jpg"], "borders are drawn as PNG, and 'b.jpg' has an"),
    "no images": (["segment", "empty.zarr"], "'empty.zarr' holds no arrays of 8 or 16 bits over two dimensions or m"),
    "a place in a store": (["quantize", "photo.png", "--output", "empty.zarr"], "'empty.zarr/quantize.json' is inside"),
    "a taken picture": (["segment", "photo.png", "--borders", "grey.png"], "'grey.png' is not a file as 'segment'"),
}


@pytest.mark.parametrize(("tokens", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named_in_one_line(
    tokens: list[str], said: str, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photo / "taken").mkdir()
    (photo / "taken" / "quantize.json").write_text("mine")
    zarr.create_group(photo / "empty.zarr")
    before = sorted(path for path in photo.rglob("*"))
    assert run(tokens) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(f"clustering: {said}")
    assert sorted(path for path in photo.rglob("*")) == before


@pytest.mark.parametrize("command", ["quantize", "segment"])
def test_help_of_the_image_commands_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Example: clustering {command} photo.jpg" in out
    assert "--json" in out
