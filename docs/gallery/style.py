"""One style for all figures: sizes, colours, points, centers, and files whose bytes repeat."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from clustering.plots.canvas import INK, palette, tidy
from docs.gallery.jobs import Array

GREY = "#9ca3af"
WIDTH = 9.6
"""Width of a figure in inches."""
DPI, ANIMATION_DPI = 144, 108
"""Dots per inch of a picture, and of an animation."""
SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "legend.fontsize": 8.5,
}
COLOURS, METHOD = 128, Image.Quantize.MAXCOVERAGE
"""Number of colours of a file, which is then a third as large, and how they are chosen: rare ones count too."""
FRAME_MS, LAST_MS = 500, 3000
"""How long each frame of an animation and the last one are shown, in milliseconds."""


def figure(height: float) -> Figure:
    """Make an empty figure.

    Parameters
    ----------
    height
        Height in inches.
    """
    return Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")


def mixed(resp: Array) -> Array:
    """Mix the colours of the clusters by responsibilities ``(n, 3)``.

    Parameters
    ----------
    resp
        Responsibilities ``(n, k)``.
    """
    return np.clip(resp @ palette(resp.shape[1]), 0.0, 1.0)


def one_hot(labels: NDArray[np.int64], k: int) -> Array:
    """Write labels as responsibilities of 0 and 1 ``(n, k)``.

    Parameters
    ----------
    labels
        Labels ``(n,)``.
    k
        Number of clusters.
    """
    return np.eye(k)[labels]


def scatter(axes: Axes, rows: Array, colours: Any, size: float = 11.0) -> None:
    """Draw rows.

    Parameters
    ----------
    axes
        Axes to draw on.
    rows
        Rows ``(n, 2)``.
    colours
        One colour, or one for each row ``(n, 3)``.
    size
        Area of a point, in square points.
    """
    axes.scatter(rows[:, 0], rows[:, 1], c=colours, s=size, linewidths=0, alpha=0.85)


def crosses(axes: Axes, centers: Array, colours: Any = None) -> None:
    """Draw centers as crosses with a white edge.

    Parameters
    ----------
    axes
        Axes to draw on.
    centers
        Centers ``(k, 2)``.
    colours
        Colours of the clusters ``(k, 3)``; dark where None.
    """
    for i, center in enumerate(centers):
        colour = INK if colours is None else 0.75 * np.asarray(colours[i])
        axes.plot(*center, "X", color=colour, markersize=10, markeredgecolor="white", markeredgewidth=1.2, zorder=5)


def panel(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """Name a panel and its axes.

    Parameters
    ----------
    axes
        Axes of the panel.
    title, x, y
        Title, and labels of the axes.
    """
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    tidy(axes)


def pixels(drawn: Figure, dpi: int) -> Image.Image:
    """Draw a figure as an image in memory.

    Parameters
    ----------
    drawn
        The figure.
    dpi
        Dots per inch.
    """
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=dpi)
    return Image.open(file).convert("RGB")


def as_png(image: Image.Image) -> bytes:
    """Write an image as a PNG of few colours, without date, so that equal images give equal bytes.

    Parameters
    ----------
    image
        The image.
    """
    file = io.BytesIO()
    image.quantize(COLOURS, METHOD, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def as_gif(images: Sequence[Image.Image]) -> bytes:
    """Write images as an animated GIF that repeats.

    Parameters
    ----------
    images
        Its frames, of one size.
    """
    # One palette for all frames keeps what stands still the same, which then takes no bytes.
    strip = Image.new("RGB", (images[0].width, images[0].height * len(images)))
    for number, image in enumerate(images):
        strip.paste(image, (0, number * image.height))
    shared = strip.quantize(COLOURS, METHOD)
    first, *others = (image.quantize(palette=shared, dither=Image.Dither.NONE) for image in images)
    file = io.BytesIO()
    durations = [FRAME_MS] * len(others) + [LAST_MS]
    first.save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return file.getvalue()
