"""Square patches of a picture as rows, and rows back to a picture: the vectors of vector quantisation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clustering.images.picture import Picture

Bytes = NDArray[np.uint8]
BAND_BYTES = 16 << 20
"""Size of the pixels that are worked on at once, in bytes."""


def patch_rows(pixels: Bytes, side: int) -> Bytes:
    """Cut pixels into patches. Where a side is no multiple of that of a patch, the last row or column is repeated.

    Parameters
    ----------
    pixels
        Pixels ``(y, x, channel)``.
    side
        Side of a patch, in pixels.

    Returns
    -------
    ndarray
        Patches in the order of reading ``(n, side · side · channels)``.
    """
    height, width, channels = pixels.shape
    if side == 1:
        return pixels.reshape(-1, channels)
    padded = np.pad(pixels, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    down, across = padded.shape[0] // side, padded.shape[1] // side
    grid = padded.reshape(down, side, across, side, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(down * across, side * side * channels)


def from_patch_rows(rows: Bytes, shape: tuple[int, int, int], side: int) -> Bytes:
    """Put patches together to pixels, without the repeated rows and columns.

    Parameters
    ----------
    rows
        Patches as `patch_rows` makes them ``(n, side · side · channels)``.
    shape
        Height, width and number of channels of the pixels.
    side
        Side of a patch, in pixels.
    """
    height, width, channels = shape
    if side == 1:
        return rows.reshape(shape)
    down, across = -(-height // side), -(-width // side)
    grid = rows.reshape(down, across, side, side, channels).transpose(0, 2, 1, 3, 4)
    return grid.reshape(down * side, across * side, channels)[:height, :width]


def bands(picture: Picture, side: int) -> Iterator[slice]:
    """Cut the rows of pixels of a picture into bands of whole patches.

    Parameters
    ----------
    picture
        The picture.
    side
        Side of a patch, in pixels.
    """
    height, width, channels = picture.shape
    # Bands of whole chunks decode each chunk once.
    unit = side if picture.chunks[0] == 0 else int(np.lcm(side, picture.chunks[0]))
    unit = unit if unit <= height else side
    length = unit * max(1, BAND_BYTES // (unit * width * channels))
    for start in range(0, height, length):
        yield slice(start, min(height, start + length))
