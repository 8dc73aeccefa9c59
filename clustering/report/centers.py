"""Figures of the centers for the report: the plots of `clustering.plots.centers`, with titles and captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clustering.fitting.center_fields import center_fields
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.plots.canvas import Colours
from clustering.plots.centers import MAPS, Form, centers, departures_show_more, form_of
from clustering.plots.positions import with_units
from clustering.plots.profiles import BANDS
from clustering.plots.spread import spread_of_components
from clustering.report.figures import new_figure, png

CAPTIONS = {
    "profiles": "In the data's own units.",
    "swatches": "Each in its own colour, as long as its share of the weight.",
    "heat map": "As standard scores: the distance from the mean in standard deviations.",
}
"""Captions of the forms that are one figure for all variables."""


@dataclass(frozen=True)
class CenterFigure:
    """A figure of the centers."""

    title: str
    caption: str
    png: bytes
    wide: bool = False


def draw(fitted: FittedModel, colours: Colours, clusters: ClusterNames | None = None) -> list[CenterFigure]:
    """Draw the centers in a form that suits their features; maps that are much alike also as departures.

    Parameters
    ----------
    fitted
        Fitted model.
    colours
        Colours of the clusters ``(k, 3)``, in 0 … 1.
    clusters
        Ids, names and colours of the clusters; ids of the model where None.
    """

    def drawn(form: Form, **options: Any) -> bytes:
        figure = new_figure()
        centers(fitted, clusters, figure, form=form, colours=colours, **options)
        return png(figure)

    form, k = form_of(fitted), fitted.model.k
    if form != "maps":
        spread = spread_of_components(fitted) if form == "profiles" and k <= BANDS else None
        caption = CAPTIONS[form] + ("" if spread is None else " Bands: one standard deviation of each component.")
        return [CenterFigure("Centers", caption, drawn(form, spread=spread))]
    figures = []
    for name, field in center_fields(fitted).items():
        title = with_units(name, field.attrs)
        caption = f"Of the {MAPS} largest of {k} clusters. " if k > MAPS else ""
        picture = drawn("maps", variable=name)
        figures.append(CenterFigure(f"Centers: {title}", caption + "In the data's own units.", picture, True))
        if departures_show_more(fitted, name):
            picture = drawn("departures", variable=name)
            figures.append(
                CenterFigure(f"Departures: {title}", caption + "Centers less the mean of all rows.", picture, True)
            )
    return figures
