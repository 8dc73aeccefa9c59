"""Vector quantisation of pictures: palettes and codebooks of several sizes, with distortion and rate of each.

A codebook of k vectors replaces each patch of a picture by its nearest vector (Linde, Buzo and Gray 1980,
doi:10.1109/TCOM.1980.1094577). Its fixed rate is log₂ k bits for each patch.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clustering.data.rows import in_memory_rows
from clustering.deferred import load_module
from clustering.errors import ConfigError, SourceError, nearest
from clustering.images.codebooks import fit_codebooks
from clustering.images.patches import Bytes, bands, from_patch_rows, patch_rows
from clustering.images.picture import Picture, open_pictures
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.options import SelectCall
from clustering.run.watch import LogWatch, Watch
from clustering.signatures import check_call

logger = logging.getLogger(__name__)

PEAK = 255
"""Largest number of a pixel of 8 bits."""
PALETTES = ("shared", "own")


@dataclass(frozen=True)
class Distortion:
    """What one codebook costs and loses on one picture, or on several together."""

    k: int
    squared_error: int
    """Σ (pixel − written pixel)² over all channels."""
    numbers: int
    """Pixels times channels."""
    pixels: int
    side: int
    """Side of a patch, in pixels."""
    entropy_per_pixel: float
    """Rate of an ideal entropy code of the patches, in bits per pixel."""
    used: int
    """Number of code vectors that are used."""

    @property
    def mse(self) -> float:
        """Mean squared error of a number."""
        return self.squared_error / self.numbers

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio in dB, 10 log₁₀(255² / MSE); infinite where nothing is lost."""
        return math.inf if self.squared_error == 0 else 10.0 * math.log10(PEAK**2 / self.mse)

    @property
    def bits_per_pixel(self) -> float:
        """Fixed rate log₂ k / side²: each patch takes log₂ k bits."""
        return math.log2(self.k) / self.side**2

    def row(self) -> dict[str, Any]:
        """Return the numbers by name, as JSON has them: a lossless picture has no PSNR."""
        return {
            "k": self.k,
            "psnr": None if self.squared_error == 0 else self.psnr,
            "mse": self.mse,
            "bits_per_pixel": self.bits_per_pixel,
            "entropy_per_pixel": self.entropy_per_pixel,
            "used": self.used,
        }


@dataclass(frozen=True, eq=False)
class Quantized:
    """Pictures with codebooks of several sizes. Immutable; pictures are made when they are asked for."""

    pictures: tuple[Picture, ...]
    block: int
    """Side of a patch, in pixels."""
    shared: bool
    """Whether all pictures have the same codebooks."""
    codebooks: tuple[Mapping[int, Bytes], ...]
    """For each picture, code vectors ``(k, side · side · channels)`` by k."""
    by_image: Mapping[str, tuple[Distortion, ...]]
    """For each picture by its name, its distortions in the order of k."""

    @property
    def ks(self) -> tuple[int, ...]:
        """Sizes of the codebooks, ascending."""
        return tuple(self.codebooks[0])

    @property
    def palettes(self) -> Mapping[int, Bytes]:
        """Palettes ``(k, channels)`` of the first picture by k, or codebooks ``(k, side, side, channels)``."""
        return {k: self.palette(k) for k in self.ks}

    def palette(self, k: int, image: int = 0) -> Bytes:
        """Return the palette ``(k, channels)``, or the codebook ``(k, side, side, channels)`` for larger patches.

        Parameters
        ----------
        k
            Number of colours, or of code vectors.
        image
            Number of the picture. It matters where each has its own.

        Raises
        ------
        LookupError
            If there is no such palette or picture.
        """
        vectors = self._codebook(k, image)
        channels = self.pictures[image].shape[2]
        return vectors if self.block == 1 else vectors.reshape(k, self.block, self.block, channels)

    @property
    def total(self) -> tuple[Distortion, ...]:
        """Distortions of all pictures together, in the order of k."""
        return tuple(_together(rows) for rows in zip(*self.by_image.values(), strict=True))

    @property
    def psnr(self) -> Mapping[int, float]:
        """PSNR of all pictures together in dB, by k. It is that of the written pictures, whose colours have 8 bits."""
        return {one.k: one.psnr for one in self.total}

    @property
    def bits_per_pixel(self) -> Mapping[int, float]:
        """Fixed rate in bits per pixel, by k."""
        return {one.k: one.bits_per_pixel for one in self.total}

    @property
    def entropy_per_pixel(self) -> Mapping[int, float]:
        """Rate of an ideal entropy code in bits per pixel, by k."""
        return {one.k: one.entropy_per_pixel for one in self.total}

    def labels(self, k: int, image: int = 0) -> NDArray[np.int32]:
        """Return the number of the code vector of each patch ``(patches down, patches across)``.

        Parameters
        ----------
        k
            Number of colours, or of code vectors.
        image
            Number of the picture.

        Raises
        ------
        LookupError
            If there is no such palette or picture.
        """
        vectors, picture = self._codebook(k, image), self.pictures[image]
        parts = [_nearest(vectors, rows) for _, rows in _patches(picture, self.block)]
        return np.concatenate(parts).reshape(-1, -(-picture.shape[1] // self.block))

    def image(self, k: int, image: int = 0) -> Bytes:
        """Return a quantised picture ``(y, x, channel)``.

        Parameters
        ----------
        k
            Number of colours, or of code vectors.
        image
            Number of the picture.

        Raises
        ------
        LookupError
            If there is no such palette or picture.
        """
        vectors = self._codebook(k, image)
        return from_patch_rows(vectors[self.labels(k, image).reshape(-1)], self.pictures[image].shape, self.block)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write each picture of each k as PNG, their numbers to ``quantize.json``, and a figure of PSNR over rate.

        Parameters
        ----------
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
        # The writer needs this class.
        saved: list[Path] = load_module("clustering.images.quantized_files").write_quantized(
            self, folder, overwrite=overwrite
        )
        return saved

    def _codebook(self, k: int, image: int) -> Bytes:
        if not 0 <= image < len(self.pictures):
            raise LookupError(f"image is {image}, and there are {len(self.pictures)}, from 0 on")
        if k not in self.codebooks[image]:
            raise LookupError(f"there is no palette of {k}; {nearest(str(k), map(str, self.ks))}")
        return self.codebooks[image][k]

    def __repr__(self) -> str:
        psnr = ", ".join(f"{k}: {value:.2f}" for k, value in self.psnr.items())
        return f"<Quantized: {len(self.pictures)} images, patches {self.block} × {self.block}, PSNR in dB by k {psnr}>"


def quantize(
    images: Any,
    k: int | Sequence[int] | str = (2, 3, 10, 64),
    *,
    block: int = 1,
    palette: Literal["shared", "own"] = "shared",
    seed: int = 0,
    restarts: int = 10,
    max_iterations: int = 300,
    workers: int | None = None,
    memory: str | int = "2GiB",
) -> Quantized:
    """Replace the colours, or the patches, of pictures by those of palettes of several sizes.

    All sizes come from one sweep of k-means, whose passes they share.

    Parameters
    ----------
    images
        Path of an image (PNG, JPEG, TIFF and others that Pillow reads) or of a Zarr store; an array ``(y, x)``,
        ``(y, x, channel)``, ``(page, y, x)`` or ``(page, y, x, channel)`` of 8-bit numbers; or a list of these.
    k
        Number of colours, several of them, or a range such as ``"2..40"``.
    block
        Side of the patches that are quantised, in pixels: 1 for colours, 2 for patches of 2 × 2 pixels.
    palette
        ``shared`` makes one palette for all images, ``own`` one for each.
    seed
        Seed of the starts; the same seed gives the same bits.
    restarts
        Number of starts on the row sample, of which the best goes on.
    max_iterations
        Largest number of passes.
    workers
        Number of threads. Default: the number of processors.
    memory
        Memory budget of the passes, such as ``2GiB``.

    Returns
    -------
    Quantized
        Palettes, PSNR and rate of each k, and the pictures.

    Raises
    ------
    ConfigError
        If k is larger than the number of distinct colours or patches, or an option has a wrong value.
    SourceError
        If an image cannot be used, or the images of a shared palette have different channels.

    Examples
    --------
    >>> import numpy as np, clustering as c
    >>> picture = np.array([[[0, 0, 0], [2, 2, 2]], [[250, 0, 0], [254, 0, 0]]], np.uint8)
    >>> c.quantize(picture, k=2).palettes[2].tolist()
    [[1, 1, 1], [252, 0, 0]]
    """
    options = check_call(
        SelectCall,
        {
            "k": k if isinstance(k, str) else _sizes(k),
            "seed": seed,
            "restarts": restarts,
            "max_iterations": max_iterations,
            "workers": workers,
            "memory": memory,
        },
    )
    return quantize_pictures(open_pictures(images), block, palette, options, LogWatch(logger.warning))


def _sizes(k: Any) -> list[int]:
    """Return the sizes of palettes as a list of whole numbers."""
    sizes = list(k) if np.iterable(k) else [k]
    wrong = [one for one in sizes if isinstance(one, bool) or not isinstance(one, (int, np.integer)) or one < 1]
    if wrong or not sizes:
        shown = wrong[0] if wrong else k
        raise ConfigError(f"k is {shown!r}; whole numbers of 1 or more are needed, or a range such as '2..16'")
    return [int(one) for one in sizes]


def quantize_pictures(
    pictures: Sequence[Picture], block: int, palette: str, options: SelectCall, watch: Watch
) -> Quantized:
    """Quantise opened pictures by checked options, as `quantize` does.

    Parameters
    ----------
    pictures
        The pictures.
    block, palette
        As for `quantize`.
    options
        Sizes of the codebooks, and how to fit them.
    watch
        Receives messages and the record of every pass.
    """
    shared = _check(pictures, block, palette)
    groups = [tuple(pictures)] if shared else [(picture,) for picture in pictures]
    fitted = [fit_codebooks(group, block, options, watch) for group in groups]
    codebooks = tuple(fitted) if len(fitted) == len(pictures) else tuple(fitted * len(pictures))
    measured = {
        picture.name: _measure(picture, block, vectors) for picture, vectors in zip(pictures, codebooks, strict=True)
    }
    return Quantized(tuple(pictures), block, shared, codebooks, measured)


def _check(pictures: Sequence[Picture], block: int, palette: str) -> bool:
    """Check what does not depend on the colours; return whether the palette is shared."""
    if palette not in PALETTES:
        raise ConfigError(f"palette is {palette!r}; {nearest(str(palette), PALETTES)}")
    if isinstance(block, bool) or not isinstance(block, (int, np.integer)) or block < 1:
        raise ConfigError(f"block is {block!r}; a whole number of pixels of 1 or more is needed")
    for picture in pictures:
        height, width, _ = picture.shape
        if picture.dtype != np.uint8:
            raise SourceError(
                f"image {picture.name!r} has 16 bits, and palettes have colours of 8 bits; convert it to 8 bits first"
            )
        if block > min(height, width):
            raise ConfigError(
                f"block is {block}, and image {picture.name!r} has {height} × {width} pixels; at most "
                f"{min(height, width)} is allowed"
            )
    first = pictures[0]
    other = next((one for one in pictures if one.shape[2] != first.shape[2]), None)
    if palette == "shared" and other is not None:
        raise SourceError(
            f"image {first.name!r} has {_channels(first)} and {other.name!r} has {_channels(other)}, so they cannot "
            "share a palette; use --palette own (palette='own' in Python), or convert one of them"
        )
    return palette == "shared"


def _channels(picture: Picture) -> str:
    return "1 channel" if picture.shape[2] == 1 else f"{picture.shape[2]} channels"


def _patches(picture: Picture, side: int) -> Iterator[tuple[Bytes, Bytes]]:
    """Yield the pixels of each band of a picture, and their patches as rows."""
    for band in bands(picture, side):
        pixels: Any = picture.read(band, slice(None))
        yield pixels, patch_rows(pixels, side)


def _nearest(vectors: Bytes, rows: Bytes) -> NDArray[np.int32]:
    """Label patches with their nearest code vectors, by the definition of the model's own labels."""
    params = KMeansParams(np.zeros(vectors.shape[1]), vectors.astype(np.float64))
    return KMeans(k=len(vectors)).assign(params, in_memory_rows(rows)).labels


def _measure(picture: Picture, side: int, codebooks: Mapping[int, Bytes]) -> tuple[Distortion, ...]:
    """Measure the written picture of each codebook. Errors are whole numbers, so their sum is exact."""
    errors = dict.fromkeys(codebooks, 0)
    counts = {k: np.zeros(k, np.int64) for k in codebooks}
    for pixels, rows in _patches(picture, side):
        for k, vectors in codebooks.items():
            labels = _nearest(vectors, rows)
            difference = pixels.astype(np.int32) - from_patch_rows(vectors[labels], pixels.shape, side)
            errors[k] += int(np.square(difference, out=difference).sum(dtype=np.int64))
            counts[k] += np.bincount(labels, minlength=k)
    height, width, channels = picture.shape
    return tuple(
        Distortion(
            k,
            errors[k],
            height * width * channels,
            height * width,
            side,
            _entropy(counts[k]) / side**2,
            int(np.count_nonzero(counts[k])),
        )
        for k in codebooks
    )


def _entropy(counts: NDArray[np.int64]) -> float:
    """Return the entropy of labels in bits, −Σ p log₂ p."""
    shares = counts[counts > 0] / counts.sum()
    # Without the zero, a single label would have the entropy −0.
    return 0.0 - float((shares * np.log2(shares)).sum())


def _together(rows: Sequence[Distortion]) -> Distortion:
    """Add up the distortions of several pictures at one k. Each picture has an entropy code of its own."""
    pixels = sum(row.pixels for row in rows)
    return Distortion(
        rows[0].k,
        sum(row.squared_error for row in rows),
        sum(row.numbers for row in rows),
        pixels,
        rows[0].side,
        sum(row.entropy_per_pixel * row.pixels for row in rows) / pixels,
        max(row.used for row in rows),
    )


def picture_name(name: str, k: int) -> str:
    """Name the file of a quantised picture.

    Parameters
    ----------
    name
        Name of the picture.
    k
        Number of colours, or of code vectors.
    """
    return f"{name}-k{k}.png"
