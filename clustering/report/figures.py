"""Figures of a report: plots of `clustering.plots` as SVG with their words, and pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from clustering.report import svg

Part = Literal["clusters", "rows", "changes", "quality"]
"""Section of the page that a figure belongs to."""

NARROW, WIDE = 5.4, 10.4
"""Width of a figure in inches, beside another one and alone; texts then have their usual size on a wide page."""
LARGE_PNG = 400_000
"""Pictures with more bytes than this as PNG become JPEG, so that the page stays small."""
_DPI = 110


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure with its title and caption."""

    key: str
    """Name of the figure, which its ids on the page begin with."""
    title: str
    caption: str
    alt: str
    """What is to be seen, for readers who do not see it."""
    part: Part = "clusters"
    wide: bool = False
    """Whether it takes the whole width of the page."""
    view_box: str = ""
    drawing: str = ""
    """Elements of the SVG; empty for a picture."""
    canvas: Canvas | None = field(default=None, repr=False)
    """Figure of matplotlib behind the SVG; None for a picture."""
    pixels: bytes = field(default=b"", repr=False)
    """PNG or JPEG of a picture."""

    @property
    def markup(self) -> Markup:
        """HTML of the figure without its title and caption. All texts are escaped."""
        if self.pixels:
            return Markup('<img src="{}" alt="{}">').format(_uri(self.pixels), self.alt)
        name = escape(self.key)
        return Markup(
            '<svg class="drawing" viewBox="{}" role="img" aria-labelledby="{}-title" aria-describedby="{}-desc">'
            '<title id="{}-title">{}</title><desc id="{}-desc">{}</desc>{}</svg>'
        ).format(self.view_box, *[name] * 3, self.title, name, self.alt, Markup(self.drawing))

    @cached_property
    def png(self) -> bytes:
        """The figure as PNG on white, for places that show no SVG; a picture as it is."""
        return self.pixels if self.canvas is None else png(self.canvas)

    @property
    def uri(self) -> str:
        """The figure as a data URI of pixels."""
        return _uri(self.png)


def _uri(pixels: bytes) -> str:
    kind = "png" if pixels.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(pixels).decode()


def drawn(
    key: str, title: str, caption: str, alt: str, plot: Callable[[Canvas], Any], part: Part = "clusters", *,
    wide: bool = False,
) -> Figure:  # fmt: skip
    """Draw a figure.

    Parameters
    ----------
    key, title, caption, alt, part, wide
        As in `Figure`.
    plot
        Draws on an empty figure of matplotlib.
    """
    with svg.styled(key):
        canvas = Canvas(layout="constrained")
        plot(canvas)
        width, height = canvas.get_size_inches()
        scale = (WIDE if wide else NARROW) / width
        # Texts keep their size when a figure is made smaller, so its height shrinks less.
        canvas.set_size_inches(width * scale, height * max(scale, 0.85))
        view_box, drawing = svg.svg(canvas)
    return Figure(key, title, caption, alt, part, wide, view_box, drawing, canvas)


def picture(key: str, title: str, caption: str, alt: str, pixels: NDArray[Any]) -> Figure:
    """Make a figure of an image, with one pixel per sample.

    Parameters
    ----------
    key, title, caption, alt
        As in `Figure`.
    pixels
        Colours ``(y, x, 3)`` as bytes.
    """
    from PIL import Image

    image, buffer = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    image.save(buffer, "png")
    if buffer.tell() > LARGE_PNG:
        buffer = io.BytesIO()
        image.save(buffer, "jpeg", quality=88)
    return Figure(key, title, caption, alt, pixels=buffer.getvalue())


def png(canvas: Canvas) -> bytes:
    """Render a figure on white as PNG bytes, which are the same for the same figure.

    Parameters
    ----------
    canvas
        Figure of matplotlib, drawn in the style of reports.
    """
    buffer = io.BytesIO()
    with svg.styled():
        canvas.patch.set_visible(True)
        # Without software and date, the same run gives the same bytes.
        canvas.savefig(buffer, format="png", dpi=_DPI, facecolor="w", metadata={"Software": None})
    return buffer.getvalue()
