"""Figures of Gaussian mixtures: three Gaussians, densities, and clusters of unequal widths and weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

import clustering as c
from clustering.plots.canvas import INK, palette
from clustering.plots.ellipses import draw_ellipses
from docs.gallery import jobs
from docs.gallery.jobs import Array
from docs.gallery.style import GREY, crosses, figure, mixed, one_hot, panel, scatter

GRID = 121
"""Points along each axis where a density is computed."""
PURPLE = "#6d28d9"


def matched(fitted: NDArray[np.int64], truth: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Find the cluster that holds most rows of each component, each cluster once ``(k,)``.

    Parameters
    ----------
    fitted, truth
        Labels, and components that rows were drawn from ``(n,)``.
    k
        Number of both.
    """
    together = one_hot(truth, k).T @ one_hot(fitted, k)
    return np.asarray(linear_sum_assignment(-together)[1], np.int64)


@dataclass(frozen=True, eq=False)
class ThreeGaussians:
    """Rows of three Gaussians, and the mixture that is fitted to them."""

    rows: Array
    """Rows ``(n, 2)``."""
    truth: NDArray[np.int64]
    """Components that they were drawn from ``(n,)``."""
    weights: Array
    """Mixing weights of the fit ``(k,)``, in the order of the components."""
    means: Array
    """Means ``(k, 2)``."""
    covariances: Array
    """Covariances ``(k, 2, 2)``."""
    resp: Array
    """Responsibilities ``(n, k)``."""


def three_gaussians() -> ThreeGaussians:
    """Fit the mixture of three Gaussians."""
    name = "lecture"
    fit, truth = jobs.fit(name), jobs.truth_of(name)
    order = matched(jobs.labels(fit, name), truth, fit.model.k)
    return ThreeGaussians(
        jobs.rows_of(name),
        truth,
        np.asarray(fit.weights)[order],
        np.asarray(fit.centers)[order],
        np.asarray(fit.covariances)[order],
        jobs.responsibilities(fit, name)[:, order],
    )


def draw_three_gaussians(found: ThreeGaussians) -> Figure:
    """Draw samples from p(x | z), from p(x), and responsibilities p(z | x), as in the lecture.

    Parameters
    ----------
    found
        Rows and their mixture.
    """
    drawn, k = figure(3.3), len(found.means)
    panels = drawn.subplots(1, 3)
    titles = ("samples from p(x | z)", "samples from p(x)", "responsibilities p(z | x)")
    for axes, title, colours in zip(
        panels, titles, (mixed(one_hot(found.truth, k)), PURPLE, mixed(found.resp)), strict=True
    ):
        scatter(axes, found.rows, colours)
        axes.set_aspect("equal", adjustable="datalim")
        panel(axes, title)
    for center, covariance, colour in zip(found.means, found.covariances, palette(k), strict=True):
        draw_ellipses(panels[2], center, covariance, colour)
    return drawn


@dataclass(frozen=True, eq=False)
class Densities:
    """Densities of mixtures in one and in two dimensions."""

    waiting: Array
    """Rows in one dimension ``(n,)``."""
    x: Array
    """Where the densities are computed ``(m,)``."""
    single: Array
    """Density of one Gaussian ``(m,)``."""
    mixture: Array
    """Density of the mixture of two ``(m,)``."""
    parts: Array
    """Each of its components, times its mixing weight ``(k, m)``."""
    likelihoods: tuple[float, float]
    """Mean log-likelihood of one Gaussian, and of the mixture."""
    rows: Array
    """Rows in two dimensions ``(n, 2)``."""
    axes: tuple[Array, Array]
    """Coordinates of a grid ``(m,)`` each."""
    surface: Array
    """Density on the grid ``(m, m)``, the second coordinate first."""
    means: Array
    """Means in two dimensions ``(k, 2)``."""
    covariances: Array
    """Covariances ``(k, 2, 2)``."""


def densities() -> Densities:
    """Fit Old Faithful in one dimension, with one Gaussian and with two, and in two dimensions."""
    line, plane = "lecture/waiting-times", "lecture/eruptions"
    one, two, both = jobs.fit(line, "model.k=1"), jobs.fit(line), jobs.fit(plane)
    waiting, rows = jobs.rows_of(line), jobs.rows_of(plane)
    x, y = _around(rows[:, 0]), _around(rows[:, 1])
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    along = _around(waiting[:, 0])
    single, mixture = (_density(fit, along[:, None], line) for fit in (one, two))
    resp = np.asarray(two.responsibilities(jobs.dataset(along[:, None], line)))
    return Densities(
        waiting[:, 0],
        along,
        single,
        mixture,
        # By Bayes' rule, a component is its responsibility times the density of the mixture.
        resp.T * mixture,
        (one.objective, two.objective),
        rows,
        (x, y),
        _density(both, points, plane).reshape(GRID, GRID),
        np.asarray(both.centers),
        np.asarray(both.covariances),
    )


def _around(values: Array) -> Array:
    low, high = values.min(), values.max()
    return np.linspace(low - 0.15 * (high - low), high + 0.15 * (high - low), GRID)


def _density(fit: c.Fit, points: Array, name: str) -> Array:
    return np.exp(np.asarray(fit.log_density(jobs.dataset(points, name)), np.float64))


def draw_densities(found: Densities) -> Figure:
    """Draw one Gaussian and two over a histogram, and the contours of a mixture in the plane.

    Parameters
    ----------
    found
        Densities.
    """
    drawn = figure(3.7)
    left, right = drawn.subplots(1, 2)
    left.hist(found.waiting, bins=26, density=True, color="0.87")
    left.plot(found.x, found.single, color=GREY, linewidth=1.6, linestyle="--", label="one Gaussian")
    for part, colour in zip(found.parts, palette(len(found.parts)), strict=True):
        left.fill_between(found.x, part, color=colour, alpha=0.35, linewidth=0)
    left.plot(found.x, found.mixture, color=INK, linewidth=1.8, label="mixture of two")
    left.legend(frameon=False, loc="upper left")
    panel(left, "one dimension", "waiting, min", "density")
    levels = found.surface.max() * np.array([0.02, 0.08, 0.2, 0.4, 0.6, 0.8, 1.0])
    right.contourf(*found.axes, found.surface, levels=levels, cmap="Blues", alpha=0.8)
    scatter(right, found.rows, INK, size=5)
    for center, covariance, colour in zip(found.means, found.covariances, palette(len(found.means)), strict=True):
        draw_ellipses(right, center, covariance, colour)
    panel(right, "two dimensions", "eruption, min", "waiting, min")
    return drawn


@dataclass(frozen=True, eq=False)
class Unequal:
    """k-means and a mixture on clusters of unequal widths and weights."""

    rows: Array
    """Rows ``(n, 2)``."""
    truth: NDArray[np.int64]
    """Components that they were drawn from ``(n,)``."""
    labels: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Labels of k-means and of the mixture ``(n,)``, in the numbers of the components."""
    centers: tuple[Array, Array]
    """Centers of both ``(k, 2)``."""
    weights: tuple[Array, Array]
    """Shares of the clusters, and mixing weights ``(k,)``."""
    deviations: Array
    """Standard deviations of the components of the mixture ``(k,)``."""

    @property
    def misplaced(self) -> tuple[float, float]:
        """Share of the rows that are not in the cluster of their component."""
        return tuple(float(np.mean(labels != self.truth)) for labels in self.labels)  # type: ignore[return-value]


def unequal() -> Unequal:
    """Fit both models to a wide cluster and a narrow one."""
    names = ("lecture/unequal-kmeans", "lecture/unequal-mixture")
    fits, truth = [jobs.fit(name) for name in names], jobs.truth_of(names[0])
    found = [jobs.labels(fit, name) for fit, name in zip(fits, names, strict=True)]
    orders = [matched(labels, truth, fit.model.k) for labels, fit in zip(found, fits, strict=True)]
    first, second = (np.argsort(order)[labels] for order, labels in zip(orders, found, strict=True))
    return Unequal(
        jobs.rows_of(names[0]),
        truth,
        (first, second),
        (np.asarray(fits[0].centers)[orders[0]], np.asarray(fits[1].centers)[orders[1]]),
        (np.asarray(fits[0].weights)[orders[0]], np.asarray(fits[1].weights)[orders[1]]),
        np.sqrt(np.asarray(fits[1].covariances))[orders[1]],
    )


def draw_unequal(found: Unequal) -> Figure:
    """Draw what rows were drawn from, and both fits with the rows that they misplace.

    Parameters
    ----------
    found
        Both fits.
    """
    drawn, k = figure(3.1), len(found.deviations)
    panels = drawn.subplots(1, 3)
    names = ("k-means", "mixture")
    for axes, labels in zip(panels, (found.truth, *found.labels), strict=True):
        scatter(axes, found.rows, mixed(one_hot(labels, k)), size=9)
        axes.set_aspect("equal", adjustable="datalim")
    panel(panels[0], "drawn from")
    for i, axes in enumerate(panels[1:]):
        wrong = found.labels[i] != found.truth
        axes.plot(*found.rows[wrong].T, "o", markersize=5, markerfacecolor="none", markeredgecolor=INK, mew=0.8)
        crosses(axes, found.centers[i], palette(k))
        panel(axes, f"{names[i]}: {found.misplaced[i]:.1%} misplaced")
    for center, deviation, colour in zip(found.centers[1], found.deviations, palette(k), strict=True):
        draw_ellipses(panels[2], center, deviation**2 * np.eye(2), colour)
    return drawn
