"""All figures of the gallery: what each computes, and how it becomes a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib as mpl

from docs.gallery import frames, k_means, mixtures, soft_k_means
from docs.gallery.style import SETTINGS, as_png


class GalleryFigure(NamedTuple):
    """A figure of the gallery."""

    compute: Callable[[], Any]
    """Fits what its configs describe, and returns what it shows."""
    picture: Callable[[Any], bytes]
    """Draws that as the content of a file."""


def _still(draw: Callable[[Any], Any]) -> Callable[[Any], bytes]:
    return lambda shown: as_png(draw(shown))


FIGURES = {
    "alternating-steps.png": GalleryFigure(k_means.alternating_steps, _still(k_means.draw_alternating_steps)),
    "bad-optimum.png": GalleryFigure(k_means.bad_optimum, _still(k_means.draw_bad_optimum)),
    "soft-and-hard.png": GalleryFigure(soft_k_means.soft_and_hard, _still(soft_k_means.draw_soft_and_hard)),
    "stiffness.png": GalleryFigure(soft_k_means.stiffness, _still(soft_k_means.draw_stiffness)),
    "unequal.png": GalleryFigure(mixtures.unequal, _still(mixtures.draw_unequal)),
    "three-gaussians.png": GalleryFigure(mixtures.three_gaussians, _still(mixtures.draw_three_gaussians)),
    "densities.png": GalleryFigure(mixtures.densities, _still(mixtures.draw_densities)),
    "em-frames.gif": GalleryFigure(frames.em_frames, frames.as_gif),
    "limit.png": GalleryFigure(soft_k_means.limit, _still(soft_k_means.draw_limit)),
}
"""Figures by the names of their files, in the order of the lecture."""


def picture(name: str, shown: Any) -> bytes:
    """Draw a figure in the style of all figures.

    Parameters
    ----------
    name
        Name of its file.
    shown
        What it computed.
    """
    with mpl.rc_context(SETTINGS):
        return FIGURES[name].picture(shown)
