"""Figures of the centers for the report: the plots of `clustering.plots.centers`, with titles and captions."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from clustering.fitting.center_fields import center_fields
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.plots.centers import MAPS, Form, centers, departures_show_more, form_of, largest
from clustering.plots.positions import with_units
from clustering.plots.profiles import BANDS
from clustering.plots.rows import SampledRows
from clustering.plots.spread import spread_of_components, spread_of_rows
from clustering.report.figures import Figure, drawn

CAPTIONS = {
    "profiles": "In the data's own units.",
    "swatches": "Each in its own colour, as long as its share of the weight.",
    "heat map": "As standard scores: the distance from the mean in standard deviations.",
}
"""Captions of the forms that are one figure for all variables."""
FLAT = 16
"""Largest number of clusters whose heat map or swatches take the whole width, as more are taller than wide."""
LISTED = 6
"""Largest number of variables that a description names."""


def draw(fitted: FittedModel, clusters: ClusterNames, sample: SampledRows | None = None) -> list[Figure]:
    """Draw the centers in a form that suits their features; maps that are much alike also as departures.

    Parameters
    ----------
    fitted
        Fitted model.
    clusters
        Ids, names and colours of the clusters.
    sample
        Rows whose quantiles are the bands of profiles; None for none. Mixtures have bands of their components instead.
    """

    def plot(canvas: Canvas, form: Form, **options: Any) -> None:
        centers(fitted, clusters, canvas, form=form, **options)

    form, k = form_of(fitted), fitted.model.k
    if form != "maps":
        spread = None
        if form == "profiles" and k <= BANDS:
            spread = spread_of_components(fitted)
            if spread is None and sample is not None:
                spread = spread_of_rows(sample.values, sample.positions, k)
        caption = CAPTIONS[form]
        if spread is not None and np.isfinite(spread.low).any():
            caption += f" Bands: {spread.words}."
        made = partial(plot, form=form, spread=spread)
        return [drawn("centers", "Centers", caption, _alt(fitted, form), made, wide=form == "profiles" or k <= FLAT)]
    figures = []
    for place, name in enumerate(center_fields(fitted)):
        title = with_units(name, center_fields(fitted)[name].attrs)
        caption = f"Of the {MAPS} largest of {k} clusters. " if k > MAPS else ""
        for key, words, shown in (
            ("maps", "In the data's own units.", True),
            ("departures", "Centers less the mean of all rows.", departures_show_more(fitted, name)),
        ):
            if shown:
                head = f"{'Centers' if key == 'maps' else 'Departures'}: {title}"
                made = partial(plot, form=key, variable=name)  # type: ignore[arg-type]
                alt = f"{min(k, MAPS)} maps of {title} with one colour scale, a cluster each."
                figures.append(drawn(f"{key}-{place}", head, caption + words, alt, made, wide=True))
    return figures


def shares_shown(fitted: FittedModel) -> NDArray[Any]:
    """Return what a figure of the centers shows of the shares of the clusters: which are largest, or the shares.

    Parameters
    ----------
    fitted
        Fitted model.
    """
    match form_of(fitted):
        case "maps":
            return largest(fitted)
        case "swatches":
            return fitted.shares
        case _:
            return np.empty(0)


def _alt(fitted: FittedModel, form: Form) -> str:
    """Describe a figure of all centers by the ranges of their variables."""
    columns: dict[str, list[int]] = {}
    for column, feature in enumerate(fitted.features):
        columns.setdefault(feature.variable, []).append(column)
    kinds = {"profiles": "A line", "swatches": "A bar in the colour of the center", "heat map": "A row of a heat map"}
    ranges = [
        f"{with_units(name, fitted.about.get(name, {}))} from {values.min():.4g} to {values.max():.4g}"
        for name, own in list(columns.items())[:LISTED]
        for values in [fitted.centers[:, own]]
    ]
    more = f", and {len(columns) - LISTED:,} more" if len(columns) > LISTED else ""
    return f"{kinds[form]} for each of {fitted.model.k} clusters. Centers have {', '.join(ranges)}{more}."
