"""Drawings of matplotlib as SVG in a page: they follow its colours and font, and one run gives the same bytes."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import Collection, PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from clustering.plots.canvas import INK, MASKED, PAPER, SOFT

VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", PAPER: "var(--paper)", MASKED: "var(--masked)"}
"""Colours of plots that are no data, and the variables of the page's style that stand for them."""
DPI = 150
"""Resolution of parts that are pixels, such as maps and many points."""
MANY = 2000
"""Lines and areas with more vertices than this, or so many points, are pixels: as shapes they would fill the page."""
POINTS = 250
LIGHT, DARK = "#ffffff", "#161b22"
"""Papers of the two schemes of the page's style."""
FAINT = 1.8
"""Lines with less contrast than this get a rim. Most colours of clusters have 3 or more on one paper at least."""

_STYLE = {
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    # Browsers write the texts, in the font of the page, which has the scripts that matplotlib's font lacks.
    "svg.fonttype": "none",
    # Names come from the data: a $ in them must not begin a formula.
    "text.parse_math": False,
    # Heat maps hold one pixel for each cell, which browsers enlarge.
    "image.composite_image": False,
}  # fmt: skip
_LOCK = threading.RLock()
_TAG = re.compile(r"<[^<>]+>")
_FONT = re.compile(r" ?font-family: [^;\"]*;?")
_DIGITS = re.compile(r"(\.\d\d)\d+")
_STROKE = re.compile(r"stroke: (#[0-9a-f]{6})(?:;|\")")
_DARK = "(prefers-color-scheme: dark)"
_COLOURS = re.compile("|".join(VARIABLES))
_ROOT = re.compile(r'<svg [^<>]*viewBox="([^"]*)"[^<>]*>\s*(?:<metadata>.*?</metadata>\s*)?<defs>.*?</defs>', re.DOTALL)


@contextmanager
def styled(key: str = "") -> Iterator[None]:
    """Draw in the style of reports, whatever style the process has chosen for its own plots.

    Parameters
    ----------
    key
        Name of the drawing, which its ids are made from.
    """
    # The style belongs to the whole process. One drawing at a time changes it, so that each puts back what was there.
    with _LOCK, matplotlib.rc_context():
        params: Any = matplotlib.rcParams
        defaults: Any = matplotlib.rcParamsDefault
        own = {**defaults, **_STYLE, "svg.hashsalt": key}
        # The backend stays: setting it would load one. Values are defaults, which need no check.
        dict.update(params, {name: value for name, value in own.items() if name != "backend"})
        # Sizes of texts are measured in a font that may lack their script. The filter stays: restoring the filters
        # would undo those that another thread sets while this one draws.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def svg(figure: Figure) -> tuple[str, str]:
    """Render a figure inside `styled`.

    Parameters
    ----------
    figure
        Figure of matplotlib; it is changed.

    Returns
    -------
    tuple of str
        The view box, and the elements below the root.
    """
    figure.patch.set_visible(False)
    for axes in figure.axes:
        # A search among all artists would make the ticks of axes before their limits are known.
        for artist in (*axes.lines, *axes.collections):
            if _is_large(artist):
                artist.set_rasterized(True)
        # The paper shows through, but for the grey of masked cells.
        if axes.get_facecolor()[:3] == (1.0, 1.0, 1.0):
            axes.patch.set_visible(False)
    buffer = io.StringIO()
    figure.set_dpi(DPI)
    # `savefig` would draw the whole figure twice. Without these entries there are no metadata, and with them no date.
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=metadata)  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    root = _ROOT.search(text)
    assert root is not None
    # The style element at the root would hold for the whole page. The page has a rule for drawings instead.
    body = text[root.end() : text.rindex("</svg>")]
    # Texts and attributes are escaped, so that < and > are of tags alone.
    return root[1], _TAG.sub(_fitted, body).replace("\n", " ")


def _fitted(match: re.Match[str]) -> str:
    """Fit a tag to the page."""
    tag = match[0]
    # Groups have names that come again in each drawing, and nothing refers to them.
    if tag.startswith("<g id="):
        return "<g>" if "clip-path" not in tag else re.sub(r' id="[^"]*"', "", tag)
    if tag.startswith("<image"):
        return tag.replace("data:image/png;base64,\n", "data:image/png;base64,")
    return _COLOURS.sub(lambda colour: VARIABLES[colour[0]], _DIGITS.sub(r"\1", _FONT.sub("", tag)))


def _is_large(artist: Any) -> bool:
    """Return whether an artist is drawn as pixels."""
    if isinstance(artist, QuadMesh):
        return True
    if isinstance(artist, Line2D):
        return bool(np.shape(artist.get_path().vertices)[0] > MANY)
    if isinstance(artist, PathCollection):
        return bool(np.shape(artist.get_offsets())[0] > POINTS)
    if isinstance(artist, Collection):
        return bool(sum(np.shape(path.vertices)[0] for path in artist.get_paths()) > MANY)
    return False


def halo_rules(drawings: Sequence[str]) -> str:
    """Make rules of style that give lines a rim where their colour is hard to see on the paper.

    A cluster has one colour on light and on dark paper, in figures and in tables, so a rim has to tell it apart.

    Parameters
    ----------
    drawings
        Elements of all drawings of a page.

    Returns
    -------
    str
        Rules for the element ``style``; empty where all colours are clear.
    """
    colours = sorted({colour for drawing in drawings for colour in _STROKE.findall(drawing)})
    rules = []
    for paper, media in ((LIGHT, "print, (prefers-color-scheme: light)"), (DARK, f"screen and {_DARK}")):
        faint = [colour for colour in colours if contrast(colour, paper) < FAINT]
        if faint:
            chosen = ", ".join(f'.drawing [style*="stroke: {colour}"]' for colour in faint)
            rules.append(f"@media {media} {{ {chosen} {{ filter: var(--rim); }} }}")
    return "\n".join(rules)


def contrast(one: str, other: str) -> float:
    """Compute the contrast of two colours, 1 … 21 (WCAG 2.2, relative luminance).

    Parameters
    ----------
    one, other
        Colours ``#rrggbb``.
    """
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
