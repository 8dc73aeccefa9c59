"""The commands for images: palettes and codebooks, and superpixels."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from clustering.errors import ConfigError
from clustering_flows.arguments import AsJson

Images = Annotated[
    str, Parameter(name="IMAGE", help="Images (PNG, JPEG, TIFF), or Zarr stores of an image or a stack.")
]
Image = Annotated[str, Parameter(name="IMAGE", help="An image (PNG, JPEG, TIFF), or a Zarr store of one.")]
Palette = Literal["shared", "own"]


def quantize(
    *images: Images,
    k: str = "2,3,10,64",
    block: int = 1,
    palette: Palette = "shared",
    output: str = "quantized",
    seed: int = 0,
    restarts: int = 10,
    max_iterations: int = 300,
    workers: int | None = None,
    memory: str = "2GiB",
    overwrite: bool = False,
    json_: AsJson = False,
) -> None:
    """Reduce images to palettes of several sizes, and show what each keeps and costs.

    Writes PNG files, quantize.json and a figure. All sizes share the passes of one sweep of k-means.

    Example: clustering quantize photo.jpg --k 2,3,10,64 --output quantized

    Parameters
    ----------
    k
        Numbers of colours: a list such as 2,3,10, or a range such as 2..16.
    block
        Side of the patches that are replaced, in pixels; 1 replaces single colours.
    palette
        One palette for all images, or one each.
    output
        Folder of the outputs.
    seed
        Seed of the starts.
    restarts
        Number of starts on the row sample.
    max_iterations
        Largest number of passes.
    workers
        Number of threads. Default: the number of processors.
    memory
        Memory budget of the passes.
    overwrite
        Replace what an earlier quantize wrote there.
    """
    from clustering.images.picture import open_pictures
    from clustering.images.quantization import quantize_pictures
    from clustering.images.quantized_files import check_folder, record_of, write_quantized
    from clustering.option_values import expanded
    from clustering.options import SelectCall
    from clustering.signatures import check_call
    from clustering_flows.terminal import terminal_watch

    options = check_call(
        SelectCall,
        {
            "k": _counts(k),
            "seed": seed,
            "restarts": restarts,
            "max_iterations": max_iterations,
            "workers": workers,
            "memory": memory,
        },
    )
    pictures = open_pictures(list(images))
    check_folder(output, [picture.name for picture in pictures], expanded(options.k), overwrite)
    with terminal_watch(sys.stderr) as watch:
        quantized = quantize_pictures(pictures, block, palette, options, watch)
    written = write_quantized(quantized, output, overwrite=overwrite)
    record = record_of(quantized)
    if len(pictures) > 1:
        for image in record["images"]:
            print(image["name"])
            _print(_distortion_lines(image["table"]))
        print("all images")
    _print(_distortion_lines(record["table"]))
    print(f"written    {len(written)} files in {output}")
    if json_:
        from clustering.storage.paths import json_text

        print(json_text({**record, "written": [str(path) for path in written]}))


def segment(
    image: Image,
    /,
    *,
    segments: int = 1000,
    compactness: float = 10.0,
    iterations: int = 10,
    output: str = "labels.zarr",
    borders: str | None = None,
    tile: int = 512,
    workers: int | None = None,
    memory: str = "2GiB",
    overwrite: bool = False,
    json_: AsJson = False,
) -> None:
    """Cut an image of any size into superpixels: connected regions of similar colour.

    Example: clustering segment photo.jpg --segments 1000 --output labels.zarr --borders borders.png

    Parameters
    ----------
    segments
        Wanted number of superpixels. There may be a few more or less.
    compactness
        Weight of the place against the colour. Larger values make the superpixels more square.
    iterations
        Largest number of passes that move the centers.
    output
        Folder of the Zarr group of the labels.
    borders
        PNG file of the image with the borders drawn. Default: none.
    tile
        Side of the tiles that are worked on at once, in pixels. It does not change labels.
    workers
        Number of threads. Default: the number of processors.
    memory
        Memory budget; half of it keeps colours that would be read again in every pass.
    overwrite
        Replace what an earlier segment wrote there.
    """
    import numpy as np

    from clustering.images.picture import open_pictures
    from clustering.images.segmentation import SegmentOptions, only_picture
    from clustering.images.segmented_store import check_places, segment_to
    from clustering.options import ComputeOptions
    from clustering.signatures import check_call

    began = time.perf_counter()
    options = SegmentOptions(segments, compactness, iterations, tile)
    compute = check_call(ComputeOptions, {"workers": workers, "memory": memory})
    pictures = open_pictures(image)
    picture = only_picture(pictures, options)
    check_places(output, borders, overwrite)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    segmented = segment_to(pictures, options, compute, output, borders=borders, overwrite=overwrite, say=say)
    summary = {
        "image": picture.name,
        "shape": picture.shape,
        "segments": segmented.count,
        "wanted": segments,
        "spacing": segmented.spacing,
        "iterations": segmented.iterations,
        "sizes": {"least": segmented.sizes.min(), "median": np.median(segmented.sizes), "most": segmented.sizes.max()},
        "explained_variation": segmented.explained_variation,
        "seconds": time.perf_counter() - began,
        "written": [output] if borders is None else [output, borders],
    }
    _print(_segment_lines(summary))
    if json_:
        from clustering.storage.paths import json_text

        print(json_text(summary))


def _segment_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    height, width, _ = summary["shape"]
    sizes = summary["sizes"]
    yield f"image      {width:,} × {height:,} pixels"
    yield f"segments   {summary['segments']:,}, of {sizes['least']:,} to {sizes['most']:,} pixels"
    yield f"passes     {summary['iterations']}"
    if not math.isnan(summary["explained_variation"]):
        yield f"explained  {100 * summary['explained_variation']:.1f} % of the variation of L, a and b"
    yield f"time       {summary['seconds']:.1f} s"
    yield f"written    {', '.join(summary['written'])}"


def _counts(text: str) -> str | list[int]:
    """Read numbers of clusters: a list with commas, or a range, which options check themselves."""
    parts = [part.strip() for part in text.split(",")]
    if ".." in text:
        return text
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise ConfigError(
            f"--k is {text!r}; a list of whole numbers of 1 or more such as 2,3,10, or a range such as 2..16, is needed"
        )
    return [int(part) for part in parts]


def _distortion_lines(table: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Format rates and distortions, a line for each k."""
    heads = ("k", "PSNR, dB", "MSE", "bits/pixel", "entropy", "used")
    rows = [
        (
            str(row["k"]),
            "lossless" if row["psnr"] is None else f"{row['psnr']:.2f}",
            f"{row['mse']:.4g}",
            f"{row['bits_per_pixel']:.4g}",
            f"{row['entropy_per_pixel']:.4g}",
            str(row["used"]),
        )
        for row in table
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        yield "  " + "  ".join(map(str.rjust, row, widths))


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line)
