"""Figures of k-means: the alternating steps, and a bad local optimum (lecture, "K-means Algorithm", "Local Minima")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clustering.plots.canvas import palette
from clustering.plots.curves import UPDATE, cost
from docs.gallery import jobs
from docs.gallery.jobs import Array
from docs.gallery.style import GREY, crosses, figure, mixed, one_hot, panel, scatter

SEEDS = 20
"""Number of seeds that starts are tried with."""
SAME = 1.001
"""Costs up to this factor above the least one are taken for the same optimum."""


@dataclass(frozen=True, eq=False)
class AlternatingSteps:
    """k-means step by step."""

    rows: Array
    """Rows ``(n, 2)``."""
    centers: Array
    """Centers at the start and after each refitting step ``(passes + 1, k, 2)``."""
    labels: NDArray[np.int64]
    """Assignment to each of these centers ``(passes + 1, n)``."""
    history: Array
    """Cost after the assignment and after the refitting step of each pass ``(passes, 2)``."""


def alternating_steps() -> AlternatingSteps:
    """Run k-means on Old Faithful pass by pass."""
    name = "lecture/alternating-steps"
    fits, rows = jobs.each_pass(name), jobs.rows_of(name)
    centers, labels = [np.asarray(fits[0].centers)], [jobs.labels(fits[0], name)]
    for fit in fits[1:]:
        resp = one_hot(labels[-1], fit.model.k)
        order = jobs.in_step(resp.T @ rows / resp.sum(axis=0)[:, None], fit)
        centers.append(np.asarray(fit.centers)[order])
        # Position of each id among the clusters in step.
        labels.append(np.argsort(order)[jobs.labels(fit, name)])
    return AlternatingSteps(rows, np.array(centers), np.array(labels), fits[-1].history)


def draw_alternating_steps(steps: AlternatingSteps) -> Figure:
    """Draw the start, the steps of two passes, the end, and the cost curve.

    Parameters
    ----------
    steps
        k-means step by step.
    """
    drawn = figure(5.4)
    grid = drawn.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.35))
    panels = [drawn.add_subplot(grid[i // 3, i % 3]) for i in range(6)]
    titles = ("start", "1st assignment", "1st refitting", "2nd assignment", "2nd refitting", "converged")
    for i, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        # The assignment of step 2t + 1 is to the centers of step 2t.
        shown, assigned = (i // 2, (i - 1) // 2) if i < 5 else (-1, -1)
        _rows_and_centers(axes, steps.rows, steps.centers[shown], steps.labels[assigned] if i else None)
        if i in (2, 4):
            _arrows(axes, steps.centers[shown - 1], steps.centers[shown])
        panel(axes, title, "eruption, min" if i > 2 else "", "waiting, min" if i % 3 == 0 else "")
        if i % 3:
            axes.tick_params(labelleft=False)
        if i < 3:
            axes.tick_params(labelbottom=False)
    curve = drawn.add_subplot(grid[:, 3])
    cost(steps.history, jobs.config_of("lecture/alternating-steps").model.build().objective, curve)
    curve.set_title("cost after each half step", loc="left")
    curve.set_ylim(bottom=0)
    return drawn


def _rows_and_centers(axes: Axes, rows: Array, centers: Array, labels: NDArray[np.int64] | None) -> None:
    k = len(centers)
    scatter(axes, rows, GREY if labels is None else mixed(one_hot(labels, k)), size=8)
    crosses(axes, centers, palette(k))


def _arrows(axes: Axes, before: Array, after: Array) -> None:
    for start, stop in zip(before, after, strict=True):
        axes.annotate("", stop, start, arrowprops={"arrowstyle": "-", "color": "0.15", "linewidth": 1.4})


@dataclass(frozen=True, eq=False)
class BadOptimum:
    """A bad local optimum, and how often restarts end in one."""

    rows: Array
    """Rows ``(n, 2)``."""
    centers: tuple[Array, Array]
    """Centers of one start and of ten ``(k, 2)``."""
    labels: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Labels ``(n,)`` of both."""
    costs: Array
    """Cost of both ``(2,)``."""
    costs_by_seed: Array
    """Cost of both with each of `SEEDS` seeds ``(2, seeds)``."""

    @property
    def factors(self) -> Array:
        """How many times the least cost each of `costs_by_seed` is."""
        return np.asarray(self.costs_by_seed / self.costs_by_seed.min())

    @property
    def best(self) -> NDArray[np.int64]:
        """Number of seeds whose one start, and whose ten starts, reach the least cost ``(2,)``."""
        return np.asarray((self.factors < SAME).sum(axis=1))


def bad_optimum() -> BadOptimum:
    """Fit the three groups from one start and from ten, with many seeds."""
    names = ("lecture/one-start", "lecture/ten-starts")
    fits = [jobs.fit(name) for name in names]
    return BadOptimum(
        jobs.rows_of(names[0]),
        (np.asarray(fits[0].centers), np.asarray(fits[1].centers)),
        (jobs.labels(fits[0], names[0]), jobs.labels(fits[1], names[1])),
        np.array([fit.objective for fit in fits]),
        np.array([[jobs.fit(name, f"fit.seed={seed}").objective for seed in range(SEEDS)] for name in names]),
    )


def draw_bad_optimum(found: BadOptimum) -> Figure:
    """Draw both fits, and the costs of all seeds.

    Parameters
    ----------
    found
        A bad local optimum.
    """
    drawn = figure(3.1)
    panels = drawn.subplots(1, 3)
    titles = ("one start", "the best of ten starts")
    for axes, title, centers, labels, value in zip(
        panels, titles, found.centers, found.labels, found.costs, strict=False
    ):
        _rows_and_centers(axes, found.rows, centers, labels)
        axes.set_aspect("equal", adjustable="datalim")
        panel(axes, f"{title}: J = {value:.1f}")
    for height, factors, best in zip((1, 0), found.factors, found.best, strict=True):
        values, counts = np.unique(factors.round(2), return_counts=True)
        panels[2].scatter(values, np.full(len(values), height), s=12 * counts, color=UPDATE, alpha=0.75, linewidths=0)
        panels[2].text(1.0, height + 0.36, f"{best} of {SEEDS} seeds reach the least cost", fontsize=8.5)
    panel(panels[2], "cost over the least cost", "factor")
    panels[2].set_yticks((1, 0), ("one\nstart", "ten\nstarts"))
    panels[2].set_ylim(-0.6, 1.7)
    panels[2].set_xlim(0.6, max(4.0, float(found.factors.max()) + 0.3))
    return drawn
