"""All figures of the gallery: what each computes, and how it becomes a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from docs.gallery import frames, k_means, mixtures, soft_k_means
from docs.gallery.style import ANIMATION_DPI, DPI, SETTINGS, as_gif, as_png, pixels


class GalleryFigure(NamedTuple):
    """A figure of the gallery."""

    compute: Callable[[], Any]
    """Fits what its configs describe, and returns what it shows."""
    draw: Callable[[Any, int], Figure]
    """Draws one frame of that, by its number from 0."""
    frames: Callable[[Any], int]
    """Number of its frames."""


def _still(compute: Callable[[], Any], draw: Callable[[Any], Figure]) -> GalleryFigure:
    return GalleryFigure(compute, lambda shown, _: draw(shown), lambda _: 1)


FIGURES = {
    "alternating-steps.png": _still(k_means.alternating_steps, k_means.draw_alternating_steps),
    "bad-optimum.png": _still(k_means.bad_optimum, k_means.draw_bad_optimum),
    "soft-and-hard.png": _still(soft_k_means.soft_and_hard, soft_k_means.draw_soft_and_hard),
    "stiffness.png": _still(soft_k_means.stiffness, soft_k_means.draw_stiffness),
    "unequal.png": _still(mixtures.unequal, mixtures.draw_unequal),
    "three-gaussians.png": _still(mixtures.three_gaussians, mixtures.draw_three_gaussians),
    "densities.png": _still(mixtures.densities, mixtures.draw_densities),
    "em-frames.gif": GalleryFigure(frames.em_frames, frames.draw_frame, lambda shown: len(shown.means)),
    "limit.png": _still(soft_k_means.limit, soft_k_means.draw_limit),
}
"""Figures by the names of their files, in the order of the lecture."""


def images(name: str, shown: Any, numbers: Iterable[int]) -> list[Image.Image]:
    """Draw frames of a figure, in the style of all figures.

    Parameters
    ----------
    name
        Name of its file.
    shown
        What it computed.
    numbers
        Numbers of the frames.
    """
    dpi = ANIMATION_DPI if name.endswith(".gif") else DPI
    with mpl.rc_context(SETTINGS):
        return [pixels(FIGURES[name].draw(shown, number), dpi) for number in numbers]


def picture(name: str, shown: Any) -> bytes:
    """Draw a figure as the content of its file.

    Parameters
    ----------
    name, shown
        As for `images`.
    """
    drawn = images(name, shown, range(FIGURES[name].frames(shown)))
    return as_gif(drawn) if name.endswith(".gif") else as_png(drawn[0])
