"""Quantised pictures as PNG files, with their numbers as JSON and a figure."""

from __future__ import annotations

import io
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from clustering.deferred import load_module
from clustering.errors import MissingDependencyError
from clustering.exports.placing import check_file_place, check_replaceable, write_files
from clustering.images.quantization import Quantized, picture_name

RECORD = "quantize.json"
FIGURE = "rate-distortion.png"
WRITER = "quantize"
INDEXED = 256
"""Largest palette of a PNG with a palette."""


def check_folder(folder: str | os.PathLike[str], names: list[str], ks: list[int], overwrite: bool) -> None:
    """Refuse a folder that holds files which cannot be replaced, before the work begins.

    Parameters
    ----------
    folder
        Folder of the outputs, which may not exist.
    names
        Names of the pictures.
    ks
        Sizes of the palettes.
    overwrite
        Whether files of an earlier quantisation may be replaced.

    Raises
    ------
    OutputError
        If the folder cannot be one, or a file is there that may not be replaced.
    MissingDependencyError
        If Pillow is not installed.
    """
    if find_spec("PIL") is None:
        raise MissingDependencyError("PNG files need the package 'pillow'; pip install 'zarr-clustering[ingest]'")
    check_file_place(Path(folder) / RECORD)
    check_replaceable([Path(folder) / name for name in _names(names, ks)], overwrite, WRITER)


def write_quantized(quantized: Quantized, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """Write each picture of each k as PNG, and their numbers.

    Pictures of up to 256 colours are PNG with a palette. Where matplotlib is installed, a figure shows PSNR over rate.

    Parameters
    ----------
    quantized
        The pictures.
    folder
        Folder of the outputs; it is made where it does not exist.
    overwrite
        Whether files of an earlier quantisation are replaced. Others are never replaced.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    OutputError
        If a file is there that may not be replaced, or the disk refuses.
    MissingDependencyError
        If Pillow is not installed.
    """
    names = [picture.name for picture in quantized.pictures]
    check_folder(folder, names, list(quantized.ks), overwrite)

    def write(record: Path) -> None:
        for i, name in enumerate(names):
            for k in quantized.ks:
                _write_png(quantized, k, i, record.with_name(picture_name(name, k)))
        _draw(quantized, record.with_name(FIGURE))
        record.write_text(load_module("clustering.storage.paths").json_text(record_of(quantized), indent=1) + "\n")

    return write_files(Path(folder) / RECORD, _names(names, list(quantized.ks))[1:], overwrite, write, WRITER)


def record_of(quantized: Quantized) -> dict[str, Any]:
    """Give the content of ``quantize.json``: rates and distortions of each picture and of all, and the palettes.

    Parameters
    ----------
    quantized
        The pictures.
    """
    own = enumerate(quantized.pictures)
    return {
        "block": quantized.block,
        "palette": "shared" if quantized.shared else "own",
        "table": [one.row() for one in quantized.total],
        "images": [
            {
                "name": picture.name,
                "shape": picture.shape,
                "table": [one.row() for one in quantized.by_image[picture.name]],
                "files": {str(k): picture_name(picture.name, k) for k in quantized.ks},
                **({} if quantized.shared else {"palettes": _palettes(quantized, i)}),
            }
            for i, picture in own
        ],
        **({"palettes": _palettes(quantized, 0)} if quantized.shared else {}),
    }


def _palettes(quantized: Quantized, image: int) -> dict[str, Any]:
    return {str(k): quantized.palette(k, image).tolist() for k in quantized.ks}


def _names(names: list[str], ks: list[int]) -> list[str]:
    return [RECORD, *(picture_name(name, k) for name in names for k in ks), FIGURE]


def _write_png(quantized: Quantized, k: int, image: int, path: Path) -> None:
    from PIL import Image

    if quantized.block > 1 or k > INDEXED:
        pixels = quantized.image(k, image)
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path, format="PNG")
        return
    # A greyscale palette is written as colours of three equal channels.
    colours = np.broadcast_to(quantized.palette(k, image), (k, 3))
    indexed = Image.fromarray(quantized.labels(k, image).astype(np.uint8))
    indexed.putpalette(colours.tobytes())
    indexed.save(path, format="PNG")


def _draw(quantized: Quantized, path: Path) -> None:
    """Draw PSNR over rate, where matplotlib is installed and there is a curve."""
    rows = [one.row() for one in quantized.total]
    if find_spec("matplotlib") is None or all(row["psnr"] is None for row in rows):
        return
    from matplotlib.figure import Figure

    plot = load_module("clustering.plots.rate_distortion")
    figure = Figure(layout="constrained")
    plot.rate_distortion(rows, figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    path.write_bytes(buffer.getvalue())
