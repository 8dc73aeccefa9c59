"""Plots of single rows: silhouettes, responsibilities, margins, and their principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from clustering.errors import ConfigError
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.models import covariances as kinds
from clustering.plots.canvas import INK, PAPER, SOFT, Colours, Place, axes_for, colours_of, finish, legend, tick, tidy
from clustering.plots.ellipses import draw_ellipses
from clustering.plots.rows import SampledRows, distances

Array = NDArray[np.float64]

BINS = 50
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Marks of clusters in a scatter plot; the next one begins after each five clusters."""


def simplified_silhouettes(far: Array, positions: NDArray[np.int64]) -> Array:
    """Compute the simplified silhouette of each row: (b − a) / max(a, b), from the distances of rows to centers.

    a is the distance from the own center, b that from the nearest other one; 0 where both are 0, or for k = 1. See
    E. R. Hruschka et al. (2004), doi:10.1109/ICDM.2004.10073.

    Parameters
    ----------
    far
        Distances ``(n, k)``.
    positions
        Row number of the own center ``(n,)``.

    Returns
    -------
    ndarray
        Silhouettes ``(n,)``, −1 … 1.
    """
    if far.shape[1] == 1:
        return np.zeros(len(far))
    own = far[np.arange(len(far)), positions]
    others = far.copy()
    others[np.arange(len(far)), positions] = np.inf
    other = others.min(axis=1)
    most = np.maximum(own, other)
    return np.asarray(np.divide(other - own, most, out=np.zeros(len(far)), where=(most > 0) & np.isfinite(most)))


def silhouette(
    fitted: FittedModel, sample: SampledRows, clusters: ClusterNames | None = None, ax: Place = None
) -> Axes:
    """Draw the simplified silhouettes of sampled rows: a blade for each cluster, its rows from the largest on.

    Parameters
    ----------
    fitted
        Fitted model.
    sample
        Rows.
    clusters
        Ids, names and colours of the clusters; ids of the model where None.
    ax
        See `clustering.plots.canvas.Place`.

    Returns
    -------
    Axes
        The axes, with one area for each cluster, and a line at the mean of all rows.
    """
    clusters = clusters or fitted.clusters
    k, values = clusters.k, simplified_silhouettes(distances(fitted, sample), sample.positions)
    axes = axes_for(ax, (7.2, float(np.clip(1.6 + 0.28 * k, 3.0, 9.0))))
    gap = max(1.0, 0.01 * len(values))
    at, middles = 0.0, np.empty(k)
    for cluster, colour in enumerate(colours_of(clusters)):
        own = np.sort(values[sample.positions == cluster])[::-1]
        # A blade of one row would have no height, so each row is a step of height 1.
        edges = at + np.arange(len(own) + 1)
        # A rim shows blades in colours near that of the paper.
        ends = np.append(own, own[-1:]) if len(own) else [0.0]
        axes.fill_betweenx(edges, 0.0, ends, step="post", facecolor=colour, edgecolor=SOFT, linewidth=0.3)
        middles[cluster] = at + len(own) / 2
        at += len(own) + gap
    mean = float(values.mean())
    axes.axvline(
        mean, color=INK, linestyle="--", linewidth=1.2, label=f"mean {mean:.3f}" if k > 1 else "no other cluster"
    )
    axes.set_ylim(at, -gap)
    axes.set_xlim(min(-0.05, 1.05 * float(values.min())), 1.0)
    axes.set_xlabel(f"simplified silhouette ({sample.words})")
    axes.set_ylabel("cluster")
    tick(axes.yaxis, clusters, middles)
    tidy(axes, "x")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), fontsize="small")
    finish(axes)
    return axes


def responsibilities(resp: Array, clusters: ClusterNames, words: str, ax: Place = None) -> Axes:
    """Draw the responsibilities of rows, stacked: rows in the order of their cluster, the surest first.

    Parameters
    ----------
    resp
        Responsibilities ``(n, k)``.
    clusters
        Ids, names and colours of the clusters.
    words
        How many rows these are, for the label of the axis.
    ax
        See `clustering.plots.canvas.Place`.

    Returns
    -------
    Axes
        The axes, with one area for each cluster.
    """
    axes = axes_for(ax, (7.2, 3.2))
    own = resp.argmax(axis=1)
    order = np.lexsort((-resp[np.arange(len(resp)), own], own))
    # Each row is a step of width 1, so that a few rows are seen too.
    edges = np.arange(len(resp) + 1)
    tops = np.cumsum(resp[order], axis=1)
    low = np.zeros(len(resp) + 1)
    for cluster, colour in enumerate(colours_of(clusters)):
        high = np.append(tops[:, cluster], tops[-1:, cluster])
        axes.fill_between(
            edges, low, high, step="post", color=colour, linewidth=0, label=clusters.display_names[cluster]
        )
        low = high
    axes.set_xlim(0, len(resp))
    axes.set_ylim(0, 1)
    axes.set_xlabel(f"{words}, by cluster")
    axes.set_ylabel("responsibility")
    axes.spines[["top", "right"]].set_visible(False)
    legend(axes, clusters.k)
    finish(axes)
    return axes


def margins(values: Array, positions: NDArray[np.int64], clusters: ClusterNames, soft: bool, ax: Place = None) -> Axes:
    """Draw how clear labels are, as a histogram stacked by cluster.

    Parameters
    ----------
    values
        Margins ``(n,)``; infinite ones, of k = 1, are counted in the label alone.
    positions
        Row number of the cluster of each ``(n,)``.
    clusters
        Ids, names and colours of the clusters.
    soft
        Whether these are margins of responsibilities, 0 … 1.
    ax
        See `clustering.plots.canvas.Place`.

    Returns
    -------
    Axes
        The axes, with one area for each cluster.
    """
    finite = np.isfinite(values)
    what = "largest less second responsibility" if soft else "distance of the nearest other center less that of the own"
    beyond = "" if finite.all() else f"; {np.sum(~finite):,} rows without another center"
    top = 1.0 if soft or not finite.any() else max(float(np.quantile(values[finite], 0.99)), 1e-300)
    return histogram(values, positions, clusters, f"margin: {what}{beyond}", ax, ends=(0.0, top))


def histogram(
    values: Array,
    positions: NDArray[np.int64],
    clusters: ClusterNames,
    label: str,
    ax: Place = None,
    *,
    ends: tuple[float, float] | None = None,
) -> Axes:
    """Draw a histogram of numbers of rows, stacked by cluster.

    Parameters
    ----------
    values
        Numbers ``(n,)``; those that are not finite are left out.
    positions
        Row number of the cluster of each ``(n,)``.
    clusters
        Ids, names and colours of the clusters.
    label
        Label of the axis.
    ax
        See `clustering.plots.canvas.Place`.
    ends
        Ends of the axis, which hold all that lie beyond; quantiles 1 % and 99 % where None.

    Returns
    -------
    Axes
        The axes, with one area for each cluster.
    """
    axes = axes_for(ax, (7.2, 3.2))
    finite = np.isfinite(values)
    if ends is None:
        low, high = np.quantile(values[finite], (0.01, 0.99)) if finite.any() else (0.0, 1.0)
        # Equal numbers would leave no room for bins.
        ends = (float(low), float(high)) if high - low > 1e-9 * abs(high) else (float(low) - 0.5, float(low) + 0.5)
    edges, base = np.linspace(*ends, BINS + 1), np.zeros(BINS)
    for cluster, colour in enumerate(colours_of(clusters)):
        # The bins at the ends hold all that lie beyond them.
        own = np.clip(values[finite & (positions == cluster)], *ends)
        tops = base + np.histogram(own, edges)[0]
        axes.stairs(tops, edges, baseline=base, fill=True, color=colour, label=clusters.display_names[cluster])
        base = tops
    axes.set_xlabel(label)
    axes.set_ylabel(f"rows of {len(values):,}")
    axes.set_xlim(*ends)
    axes.set_ylim(bottom=0)
    tidy(axes, "y")
    legend(axes, clusters.k)
    finish(axes)
    return axes


def principal_plane(rows: Array) -> tuple[Array, Array, Array]:
    """Find the two principal components of rows.

    Parameters
    ----------
    rows
        Rows ``(n, p)``.

    Returns
    -------
    tuple of ndarray
        The mean ``(p,)``, the directions ``(p, 2)`` and their shares of the variance ``(2,)``. For p = 1, or rows that
        vary along fewer directions, the rest is 0.
    """
    mean = rows.mean(axis=0)
    _, deviations, turned = np.linalg.svd(rows - mean, full_matrices=False)
    plane, variances, total = np.zeros((rows.shape[1], 2)), np.zeros(2), float((deviations**2).sum())
    count = min(2, int((deviations > 0).sum()))
    # The largest part of each direction is positive, so that the plot does not flip from one machine to another.
    signs = np.sign(turned[np.arange(count), np.abs(turned[:count]).argmax(axis=1)])
    plane[:, :count] = (signs[:, None] * turned[:count]).T
    variances[:count] = deviations[:count] ** 2
    return mean, plane, variances / total if total > 0 else variances


def pca(
    fitted: FittedModel,
    sample: SampledRows,
    clusters: ClusterNames | None = None,
    ax: Place = None,
    colours: Colours | None = None,
) -> Axes:
    """Draw sampled rows on their two principal components, with ellipses of 1 and 2 standard deviations.

    Rows are drawn as the model sees them. Ellipses are those of the components of a mixture, and of the drawn rows of
    each cluster for other models.

    Parameters
    ----------
    fitted
        Fitted model.
    sample
        Rows.
    clusters
        Ids, names and colours of the clusters; ids of the model where None.
    ax
        See `clustering.plots.canvas.Place`.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1; those of `clusters` where None.

    Returns
    -------
    Axes
        The axes, with one set of points for each cluster, two ellipses each, and a line of crosses at the centers.
    """
    clusters = clusters or fitted.clusters
    colours = colours_of(clusters) if colours is None else colours
    axes = axes_for(ax, (6.6, 5.2))
    mean, plane, shares = principal_plane(sample.prepared)
    points, centers = (sample.prepared - mean) @ plane, (fitted.centers_prepared - mean) @ plane
    size = float(np.clip(9000 / len(points), 4.0, 18.0))
    covariances = _covariances(fitted)
    for cluster, colour in enumerate(colours):
        own = points[sample.positions == cluster]
        mark, name = MARKS[cluster // 5 % len(MARKS)], clusters.display_names[cluster]
        axes.scatter(own[:, 0], own[:, 1], color=[colour], s=size, marker=mark, linewidths=0, alpha=0.7, label=name)
        if covariances is not None:
            draw_ellipses(axes, centers[cluster], plane.T @ covariances(cluster) @ plane, colour)
        elif len(own) > 2:
            draw_ellipses(axes, own.mean(axis=0), np.cov(own.T), colour)
    many = clusters.k > 12
    axes.plot(
        *centers.T, marker="" if many else "x", linestyle="", color=INK, markersize=6, markeredgewidth=1.6, zorder=4
    )
    if many:
        # A legend of many colours cannot be matched with the points, so names stand at the centers.
        for center, name in zip(centers, clusters.display_names, strict=True):
            text = axes.text(center[0], center[1], name, ha="center", va="center", fontsize="small", color=INK)
            text.set(zorder=5, clip_on=True)
            text.set_path_effects([withStroke(linewidth=2.5, foreground=PAPER)])
    axes.set_xlabel(f"principal component 1 ({100 * shares[0]:.1f} % of the variance)")
    axes.set_ylabel(f"principal component 2 ({100 * shares[1]:.1f} %)")
    of = "the components" if covariances is not None else "the rows of each cluster"
    axes.set_title(f"{sample.words}; ellipses: 1 and 2 σ of {of}", fontsize="small", loc="left")
    tidy(axes)
    if not many:
        legend(axes, clusters.k)
        marks: Any = axes.get_legend()
        for handle in marks.legend_handles:
            handle.set(sizes=[30.0], alpha=1.0)
    finish(axes)
    return axes


def _covariances(fitted: FittedModel) -> Any:
    """Return a function of the covariance of a component, for prepared rows; None where the model has none."""
    components = fitted.components
    if components.covariance is None:
        return None
    kind, stored = components.covariance, components.covariances
    p = fitted.params.centers.shape[1]
    return lambda cluster: kinds.as_full(kind, np.zeros(0) if stored is None else stored, cluster, p)


def check_soft(fitted: FittedModel) -> None:
    """Refuse a model without responsibilities.

    Parameters
    ----------
    fitted
        Fitted model.

    Raises
    ------
    ConfigError
        If its rows belong to one cluster each.
    """
    if not fitted.model.soft:
        raise ConfigError(
            f"the model is {fitted.model.kind}, whose rows belong to one cluster each and have no responsibilities; "
            "draw plot.margin(), or fit soft_kmeans or gaussian_mixture"
        )
