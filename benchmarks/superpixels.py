"""Superpixels beside those of scikit-image: seconds, variation that is left, missed borders; and a large image.

Photographs are those that scikit-image brings. Its ``slic`` is asked for as many superpixels as ours has, since both
take the wanted number only as a guide. Borders are known on a drawing of cells of flat colours, blurred and with noise.
The large image is made of the photographs with noise, in Zarr, and is cut in a process of its own.

    python -m benchmarks.superpixels --megapixels 100
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage import color, data, transform
from skimage.segmentation import find_boundaries, slic

import clustering as c
from benchmarks.results import Result, save

PHOTOGRAPHS = ("chelsea", "coffee", "astronaut", "rocket", "retina")
SEGMENTS = 500
COMPACTNESS = 10.0
NEAR = 2
"""A border counts as there where one of ours is that many pixels away at most."""
SIDE = 1000
"""Side of a chunk of the large image, in pixels."""
MEMORY = "1GiB"

Labels = NDArray[Any]


def cells(
    height: int = 600, width: int = 800, sites: int = 80, noise: float = 12.0
) -> tuple[NDArray[np.uint8], Labels]:
    """Draw cells of flat colours, blurred and with noise; return the image and the true cells."""
    generator = np.random.default_rng(5)
    places = generator.uniform(0, [height, width], (sites, 2))
    grid = np.stack(np.mgrid[:height, :width], axis=-1).reshape(-1, 2)
    truth = cKDTree(places).query(grid)[1].reshape(height, width)
    image = generator.uniform(40, 215, (sites, 3))[truth]
    image = ndimage.gaussian_filter(image, (1.0, 1.0, 0.0)) + generator.normal(0, noise, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), truth


def missed_borders(labels: Labels, truth: Labels) -> float:
    """Return the share of true border pixels without a border near them; one less the boundary recall."""
    near = ndimage.binary_dilation(find_boundaries(labels, mode="inner"), np.ones((2 * NEAR + 1,) * 2))
    return float(1 - near[find_boundaries(truth, mode="inner")].mean())


def border_density(labels: Labels) -> float:
    """Return the share of pixels on a border. More borders are near the true ones by chance."""
    return float(find_boundaries(labels, mode="inner").mean())


def unexplained(image: NDArray[np.uint8], labels: Labels) -> float:
    """Return the share of the variance of L, a and b that lies inside superpixels."""
    lab = color.rgb2lab(image).reshape(-1, 3)
    flat = labels.reshape(-1)
    sizes = np.bincount(flat)
    means = np.stack([np.bincount(flat, lab[:, i]) / np.maximum(sizes, 1) for i in range(3)], axis=1)
    return float(np.square(lab - means[flat]).sum() / np.square(lab - lab.mean(axis=0)).sum())


def as_many(image: NDArray[np.uint8], count: int) -> int:
    """Find the wanted number for which scikit-image makes about `count` superpixels."""
    wanted = count
    for _ in range(6):
        made = len(np.unique(slic(image, wanted, COMPACTNESS, start_label=0)))
        if abs(made - count) <= 0.02 * count:
            break
        wanted = max(1, round(wanted * count / made))
    return wanted


def shortest(work: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Return the seconds of all threads in the fastest of some rounds, and the outcome.

    scikit-image has one thread, and ours has several; other work on the machine matters less to this than to wall time.
    """
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        outcome = work()
        seconds.append(time.process_time() - began)
    return min(seconds), outcome


def compare(name: str, image: NDArray[np.uint8], truth: Labels | None, rounds: int) -> list[Result]:
    """Cut an image with both, into about as many superpixels."""
    mine, segmented = shortest(partial(c.segment, image, SEGMENTS, compactness=COMPACTNESS), rounds)
    wanted = as_many(image, segmented.count)
    theirs, labels = shortest(partial(slic, image, wanted, COMPACTNESS, start_label=0), rounds)
    made = len(np.unique(labels))
    case = f"{name}, {image.shape[1]} × {image.shape[0]}"
    left = unexplained(image, segmented.labels), unexplained(image, labels)
    dense = border_density(segmented.labels), border_density(labels)
    print(
        f"{case}: {segmented.count} and {made} superpixels; {mine:.3f} and {theirs:.3f} s; variation left "
        f"{100 * left[0]:.2f} and {100 * left[1]:.2f} %; on borders {100 * dense[0]:.1f} and {100 * dense[1]:.1f} %",
        flush=True,
    )
    peer = "scikit-image"
    results = [
        Result("superpixels, seconds of the processors", case, mine, "s", {peer: theirs}, "≥", 1.0),
        Result("superpixels, variation left", case, 100 * left[0], "%", {peer: 100 * left[1]}, "≥", 1.0),
    ]
    if truth is not None:
        missed = missed_borders(segmented.labels, truth), missed_borders(labels, truth)
        print(f"{case}: {100 * missed[0]:.3f} and {100 * missed[1]:.3f} % of the true borders are missed", flush=True)
        results.append(Result("superpixels, borders missed", case, 100 * missed[0], "%", {peer: 100 * missed[1]}, "≥"))
    return results


def write_large(path: Path, megapixels: float) -> None:
    """Write an image of photographs with noise, chunk by chunk, of which no part repeats another exactly."""
    side = max(1, round((megapixels * 1e6) ** 0.5 / SIDE))
    array = zarr.create_array(
        path, shape=(side * SIDE, side * SIDE, 3), chunks=(SIDE, SIDE, 3), dtype="u1", dimension_names=("y", "x", "c")
    )
    generator = np.random.default_rng(0)
    photographs = [transform.resize(getattr(data, name)(), (SIDE, SIDE)) * 255 for name in PHOTOGRAPHS[:3]]
    for i in range(side):
        for j in range(side):
            noisy = photographs[(i + j) % 3] + generator.normal(0, 3, (SIDE, SIDE, 3))
            array[i * SIDE : (i + 1) * SIDE, j * SIDE : (j + 1) * SIDE] = np.clip(noisy, 0, 255).astype(np.uint8)


def cut_large(folder: str, megapixels: float) -> list[Result]:
    """Cut the large image from store to store in a process of its own."""
    path = Path(folder) / "large.zarr"
    write_large(path, megapixels)
    command = [sys.executable, "-m", "benchmarks.superpixels", "--child", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    outcome = json.loads(done.stdout.splitlines()[-1])
    case = f"{outcome['pixels'] / 1e6:,.0f} megapixels, {outcome['count']:,} superpixels"
    print(f"{case}: {outcome['seconds']:.1f} s, peak {outcome['peak'] / 2**20:,.0f} MiB", flush=True)
    # The image as 8-bit numbers and its labels, both of which would be in memory without tiles.
    bound = {"image and labels": outcome["pixels"] * (3 + 4) / 2**20}
    return [
        Result("superpixels of a large image, memory", case, outcome["peak"] / 2**20, "MiB", bound, "≤"),
        Result("superpixels of a large image, seconds", case, outcome["seconds"], "s", {"a minute": 60.0}, "≤"),
    ]


def child(path: str) -> None:
    pixels = int(np.prod(zarr.open_array(path, mode="r").shape[:2]))
    began = time.perf_counter()
    labels = str(Path(path).with_name("labels.zarr"))
    segmented = c.segment(path, pixels // 1000, compactness=COMPACTNESS, to=labels, memory=MEMORY)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - began
    print(json.dumps({"pixels": pixels, "count": segmented.count, "seconds": seconds, "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument("--folder", default=None, help="where the large image is written")
    parser.add_argument("--child", metavar="STORE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    # Kernels are compiled once per machine.
    c.segment(data.chelsea(), 10)
    results: list[Result] = []
    for name in PHOTOGRAPHS:
        results += compare(name, getattr(data, name)(), None, options.rounds)
    drawing, truth = cells()
    results += compare("drawn cells", drawing, truth, options.rounds)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results += cut_large(folder, options.megapixels)
    save("superpixels", results)


if __name__ == "__main__":
    main()
