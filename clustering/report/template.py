"""Pages from the templates of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import jinja2
from markupsafe import Markup

from clustering.report.figures import Figure
from clustering.report.svg import halo_rules
from clustering.report.words import number

GENERATOR = "zarr-clustering"
"""Who made a page, in its head."""
_HEAD = 400
"""Bytes of a page that hold its generator."""


def fill(template: str, drawn: Sequence[Figure], **content: Any) -> str:
    """Fill in a page.

    Parameters
    ----------
    template
        Name of the template.
    drawn
        Figures of the page.
    **content
        Values of the template.
    """
    # Rules of style hold no text from users, only colours that a pattern has matched.
    halos = Markup(halo_rules([figure.drawing for figure in drawn]))
    return (
        _environment()
        .get_template(template)
        .render(generator=f"{GENERATOR} {version(GENERATOR)}", halos=halos, **content)
    )


def compile_templates() -> None:
    """Compile all templates, which takes longer than to fill one in."""
    environment = _environment()
    for name in environment.list_templates(("html", "css")):
        environment.get_template(name)


@cache
def _environment() -> jinja2.Environment:
    """Make the environment of the templates, which keeps compiled ones."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clustering.report", "."),
        # Names of variables and clusters come from users, and must not become HTML.
        autoescape=True,
        # A misspelt name in the template is an error, instead of an empty place on the page.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["short"] = _short
    return environment


def is_page(content: bytes) -> bool:
    """Return whether the beginning of a file is that of a page of this module.

    Parameters
    ----------
    content
        The file, or its beginning.
    """
    return f'<meta name="generator" content="{GENERATOR} '.encode() in content[:_HEAD]


def _short(value: float | None) -> str:
    """Write a number with four digits, so that the columns of all criteria fit on a page."""
    return "" if value is None else f"{value:.4g}"
