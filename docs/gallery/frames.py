"""EM frame by frame (lecture, "How Can We Fit a Mixture of Gaussians?")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clustering.plots.canvas import INK, palette, pass_axis, tidy
from clustering.plots.curves import ASSIGNMENT
from clustering.plots.ellipses import draw_ellipses
from docs.gallery import jobs
from docs.gallery.jobs import Array
from docs.gallery.style import figure, mixed, panel, scatter


@dataclass(frozen=True, eq=False)
class EMFrames:
    """EM pass by pass."""

    rows: Array
    """Rows ``(n, 2)``."""
    resp: Array
    """Responsibilities under the mixture after each pass ``(passes, n, k)``."""
    weights: Array
    """Mixing weights after each pass ``(passes, k)``."""
    means: Array
    """Means after each pass ``(passes, k, 2)``."""
    covariances: Array
    """Covariances after each pass ``(passes, k, 2, 2)``."""
    log_likelihood: Array
    """Mean log-likelihood after each pass ``(passes,)``."""


def em_frames() -> EMFrames:
    """Run EM on Old Faithful pass by pass."""
    name = "lecture/em-frames"
    # The start is far less likely than what the first pass makes of it, and would flatten the curve.
    _, *fits = jobs.each_pass(name)
    rows, orders = jobs.rows_of(name), [np.arange(fits[0].model.k)]
    resp = [jobs.responsibilities(fits[0], name)]
    for fit in fits[1:]:
        orders.append(jobs.in_step(resp[-1].T @ rows / resp[-1].sum(axis=0)[:, None], fit))
        resp.append(jobs.responsibilities(fit, name)[:, orders[-1]])
    ordered = list(zip(fits, orders, strict=True))
    return EMFrames(
        rows,
        np.array(resp),
        np.array([np.asarray(fit.weights)[order] for fit, order in ordered]),
        np.array([np.asarray(fit.centers)[order] for fit, order in ordered]),
        np.array([np.asarray(fit.covariances)[order] for fit, order in ordered]),
        np.array([fit.objective for fit in fits]),
    )


def draw_frame(found: EMFrames, number: int) -> Figure:
    """Draw the mixture after one pass, and the log-likelihood up to it.

    Parameters
    ----------
    found
        EM pass by pass.
    number
        Number of the frame, from 0.
    """
    drawn = figure(3.9)
    left, right = drawn.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_mixture(left, found, number)
    panel(left, f"after pass {number + 1}", "eruption, min", "waiting, min")
    passes = np.arange(1, len(found.log_likelihood) + 1)
    right.plot(passes, found.log_likelihood, color="0.85", linewidth=1.2)
    right.plot(passes[: number + 1], found.log_likelihood[: number + 1], "o-", color=ASSIGNMENT, markersize=4)
    panel(right, f"log-likelihood by row: −{-found.log_likelihood[number]:.4f}")
    pass_axis(right, len(passes))
    return drawn


def _draw_mixture(axes: Axes, found: EMFrames, number: int) -> None:
    scatter(axes, found.rows, mixed(found.resp[number]))
    colours = palette(found.means.shape[1])
    for center, covariance, colour in zip(found.means[number], found.covariances[number], colours, strict=True):
        draw_ellipses(axes, center, covariance, colour)
        axes.plot(*center, "x", color=INK, markersize=7, markeredgewidth=1.8)
    low, high = found.rows.min(axis=0), found.rows.max(axis=0)
    # One frame for all passes, whatever their ellipses.
    axes.set_xlim(low[0] - 0.6, high[0] + 0.6)
    axes.set_ylim(low[1] - 8, high[1] + 8)
    tidy(axes)
