"""Figures of soft k-means: soft against hard, the limit of hard assignments, and the choice of β."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

import clustering as c
from clustering.plots.canvas import INK, palette
from clustering.plots.curves import ASSIGNMENT, UPDATE
from docs.gallery import jobs
from docs.gallery.jobs import Array
from docs.gallery.style import crosses, figure, mixed, one_hot, panel, scatter

HARD, SOFT = "lecture/hard-kmeans", "lecture/soft-kmeans"
ALONG = 121
"""Points along the line between two centers."""
SHOWN_BETAS = (20.0, 100.0, 10_000.0)
LIMIT_BETAS = np.geomspace(10.0, 1e5, 17)
ROUNDING = 1e-13
"""Distances up to this are rounding."""
STIFFNESS_BETAS = np.geomspace(2.0, 1000.0, 17)


def _soft(beta: float) -> c.Fit:
    with warnings.catch_warnings():
        # Where beta is below its critical value, a warning says that all centers become one, which the figure shows.
        warnings.simplefilter("ignore", c.ClusteringWarning)
        return jobs.fit(SOFT, f"model.beta={beta!r}")


@dataclass(frozen=True, eq=False)
class SoftAndHard:
    """Hard and soft k-means on the same rows."""

    rows: Array
    """Rows ``(n, 2)``."""
    hard_centers: Array
    """Centers of hard k-means ``(k, 2)``."""
    hard_labels: NDArray[np.int64]
    """Its labels ``(n,)``."""
    beta: float
    """Stiffness that was chosen."""
    soft_centers: Array
    """Centers of soft k-means ``(k, 2)``, in the order of the hard ones."""
    resp: Array
    """Its responsibilities ``(n, k)``."""
    pair: tuple[int, int]
    """Clusters at the ends of the line."""
    line_hard: Array
    """Responsibilities of hard k-means along the line between the soft centers of the pair ``(m, k)``."""
    line_soft: Array
    """Those of soft k-means ``(m, k)``."""

    @property
    def example(self) -> int:
        """Number of the row whose responsibilities are nearest to .7 and .3, the numbers of the lecture."""
        first, second = np.sort(self.resp, axis=1)[:, :-3:-1].T
        return int(np.argmin(np.hypot(first - 0.7, second - 0.3)))


def nearest_order(centers: Array, to: Array) -> NDArray[np.int64]:
    """Find the center nearest to each of others ``(k,)``.

    Parameters
    ----------
    centers
        Centers ``(k, d)`` to choose from.
    to
        Centers ``(k, d)``, in the wanted order.
    """
    return np.asarray(np.linalg.norm(centers - to[:, None], axis=-1).argmin(axis=1), np.int64)


def soft_and_hard() -> SoftAndHard:
    """Fit hard k-means, and soft k-means at the β that fits the rows."""
    hard, soft = jobs.fit(HARD), jobs.fit(SOFT)
    order = nearest_order(np.asarray(soft.centers), np.asarray(hard.centers))
    centers = np.asarray(soft.centers)[order]
    i, j = min(combinations(range(len(centers)), 2), key=lambda pair: np.ptp(centers[list(pair)], axis=0).max())
    line = jobs.dataset(centers[i] + np.linspace(0, 1, ALONG)[:, None] * (centers[j] - centers[i]), SOFT)
    return SoftAndHard(
        jobs.rows_of(SOFT),
        np.asarray(hard.centers),
        jobs.labels(hard, HARD),
        float(soft.params.beta),
        centers,
        jobs.responsibilities(soft, SOFT)[:, order],
        (i, j),
        one_hot(np.asarray(hard.predict(line)), hard.model.k),
        np.asarray(soft.responsibilities(line))[:, order],
    )


def draw_soft_and_hard(fits: SoftAndHard) -> Figure:
    """Draw both fits, and their responsibilities along a line between two centers.

    Parameters
    ----------
    fits
        Hard and soft k-means.
    """
    drawn = figure(3.3)
    panels = drawn.subplots(1, 3)
    _coloured(panels[0], fits.rows, one_hot(fits.hard_labels, len(fits.hard_centers)), fits.hard_centers)
    panel(panels[0], "hard: one cluster for each row")
    _coloured(panels[1], fits.rows, fits.resp, fits.soft_centers)
    panel(panels[1], f"soft: colours mixed, β = {fits.beta:.1f}")
    row = fits.rows[fits.example]
    shares = np.sort(fits.resp[fits.example])[:-3:-1]
    panels[1].plot(*row, "o", markersize=9, markerfacecolor="none", markeredgecolor=INK)
    panels[1].annotate(
        f"{shares[0]:.2f} and {shares[1]:.2f}",
        row,
        (0.97, 0.05),
        textcoords="axes fraction",
        ha="right",
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.8},
    )
    x, colours = np.linspace(0, 1, ALONG), palette(len(fits.soft_centers))
    for cluster in fits.pair:
        panels[2].plot(x, fits.line_soft[:, cluster], color=colours[cluster], linewidth=2)
        panels[2].step(x, fits.line_hard[:, cluster], color=colours[cluster], linewidth=1.2, linestyle="--")
    panel(panels[2], "between two centers", "from one center to the other", "responsibility")
    # Colours are those of the clusters, and only the kinds of lines need names.
    kinds = [Line2D([], [], color="0.3", linewidth=2), Line2D([], [], color="0.3", linewidth=1.2, linestyle="--")]
    panels[2].legend(kinds, ["soft", "hard"], frameon=False, loc="center right")
    return drawn


def _coloured(axes: Axes, rows: Array, resp: Array, centers: Array) -> None:
    scatter(axes, rows, mixed(resp))
    crosses(axes, centers, palette(len(centers)))
    axes.set_aspect("equal", adjustable="datalim")


@dataclass(frozen=True, eq=False)
class Limit:
    """Soft k-means as β grows."""

    rows: Array
    """Rows ``(n, 2)``."""
    shown: Array
    """Responsibilities at each of `SHOWN_BETAS` ``(3, n, k)``."""
    shown_centers: Array
    """Centers there ``(3, k, 2)``."""
    from_one_hot: Array
    """Root of the mean squared distance of the responsibilities from one-hot, at each of `LIMIT_BETAS`."""
    from_hard_centers: Array
    """Largest distance of a center from that of hard k-means, at each of `LIMIT_BETAS`."""


def limit() -> Limit:
    """Fit soft k-means at many values of β, and compare it with hard k-means."""
    hard = np.asarray(jobs.fit(HARD).centers)
    away, far = [], []
    for beta in LIMIT_BETAS:
        fit = _soft(float(beta))
        resp = jobs.responsibilities(fit, SOFT)
        away.append(np.sqrt(np.mean(np.sum((resp - one_hot(resp.argmax(axis=1), resp.shape[1])) ** 2, axis=1))))
        centers = np.asarray(fit.centers)
        far.append(np.linalg.norm(centers[nearest_order(centers, hard)] - hard, axis=1).max())
    fits = [_soft(beta) for beta in SHOWN_BETAS]
    orders = [nearest_order(np.asarray(fit.centers), hard) for fit in fits]
    return Limit(
        jobs.rows_of(SOFT),
        np.array([jobs.responsibilities(fit, SOFT)[:, order] for fit, order in zip(fits, orders, strict=True)]),
        np.array([np.asarray(fit.centers)[order] for fit, order in zip(fits, orders, strict=True)]),
        np.array(away),
        np.array(far),
    )


def draw_limit(found: Limit) -> Figure:
    """Draw the rows at three values of β, and both distances over β.

    Parameters
    ----------
    found
        Soft k-means as β grows.
    """
    drawn = figure(5.4)
    grid = drawn.add_gridspec(2, 6, height_ratios=(1.15, 1))
    for i, beta in enumerate(SHOWN_BETAS):
        axes = drawn.add_subplot(grid[0, 2 * i : 2 * i + 2])
        _coloured(axes, found.rows, found.shown[i], found.shown_centers[i])
        panel(axes, f"β = {beta:,.0f}, σ² = {1 / (2 * beta):.5f}".rstrip("0"))
    curves = (
        ("responsibilities: distance from one-hot", found.from_one_hot, ASSIGNMENT, "o"),
        ("centers: distance from those of k-means", found.from_hard_centers, UPDATE, "s"),
    )
    for i, (title, values, colour, mark) in enumerate(curves):
        axes = drawn.add_subplot(grid[1, 3 * i : 3 * i + 3])
        seen = values > ROUNDING
        axes.loglog(LIMIT_BETAS[seen], values[seen], color=colour, linewidth=1.2, marker=mark, markersize=4)
        # The others have no place on a logarithmic axis, as most of them are 0.
        bottom = np.full(np.count_nonzero(~seen), ROUNDING)
        axes.plot(
            LIMIT_BETAS[~seen],
            bottom,
            mark,
            color=colour,
            markersize=4,
            markerfacecolor="white",
            label="none but rounding",
        )
        panel(axes, title, "β = 1 / 2σ²")
        axes.set_ylim(ROUNDING / 4, 2.0)
        axes.legend(frameon=False, loc="lower left")
    return drawn


@dataclass(frozen=True, eq=False)
class Stiffness:
    """What soft k-means measures at each β, and the β that is chosen."""

    measured: Array
    """Variance around the centers by responsibilities, Σ r ‖x − m‖² / (n d), at each of `STIFFNESS_BETAS`."""
    assumed: Array
    """Variance that β assumes, 1 / 2β."""
    effective: Array
    """Effective number of clusters, exp of the mutual information of rows and clusters."""
    chosen: float
    """β that ``auto`` chooses."""
    critical: float
    """Critical value of β, 1 / 2λ with the largest eigenvalue λ of the covariance."""


def effective_clusters(resp: Array) -> float:
    """Return exp(H(mean of r) − mean of H(r)): 1 where all rows have equal responsibilities, k for k equal clusters.

    Parameters
    ----------
    resp
        Responsibilities ``(n, k)``.
    """
    return float(np.exp(_entropy(resp.mean(axis=0)) - np.mean(_entropy(resp))))


def _entropy(shares: Array) -> Array:
    return np.asarray(-np.sum(shares * np.log(np.maximum(shares, np.finfo(float).tiny)), axis=-1))


def stiffness() -> Stiffness:
    """Fit soft k-means over a range of β, and at the β that fits the rows."""
    store, rows = jobs.config_of(SOFT).source.store, jobs.rows_of(SOFT)
    measured, effective = [], []
    for beta in STIFFNESS_BETAS:
        fit = _soft(float(beta))
        resp = jobs.responsibilities(fit, SOFT)
        measured.append(np.sum(resp * np.asarray(fit.distances(store)) ** 2) / rows.size)
        effective.append(effective_clusters(resp))
    return Stiffness(
        np.array(measured),
        1 / (2 * STIFFNESS_BETAS),
        np.array(effective),
        float(jobs.fit(SOFT).params.beta),
        float(1 / (2 * np.linalg.eigvalsh(np.cov(rows.T, bias=True))[-1])),
    )


def draw_stiffness(found: Stiffness) -> Figure:
    """Draw both variances and the effective number of clusters over β.

    Parameters
    ----------
    found
        What was measured at each β.
    """
    drawn = figure(3.3)
    panels = drawn.subplots(1, 2)
    panels[0].loglog(STIFFNESS_BETAS, found.measured, color=ASSIGNMENT, lw=1.8, label="measured")
    panels[0].loglog(STIFFNESS_BETAS, found.assumed, color=UPDATE, lw=1.8, ls="--", label="assumed, 1 / 2β")
    panel(panels[0], "variance around the centers", "β")
    panels[1].semilogx(STIFFNESS_BETAS, found.effective, color=INK, linewidth=1.8)
    panel(panels[1], "effective number of clusters", "β")
    panels[1].set_ylim(0.9, 3.1)
    for axes in panels:
        axes.axvline(found.critical, color="0.55", linewidth=1, linestyle=":", label=f"critical, {found.critical:.3g}")
        axes.axvline(found.chosen, color="0.2", linewidth=1, label=f"chosen, {found.chosen:.3g}")
    panels[0].legend(frameon=False, loc="upper right")
    panels[1].legend(frameon=False, loc="lower right")
    return drawn
