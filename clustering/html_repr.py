"""HTML of objects in notebooks: a header and sections that open and close, without scripts and outside resources."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

SHOWN = 12
"""Largest number of rows and columns of a table that are shown."""
# The variables are those of JupyterLab, so that both themes fit; elsewhere, the colours are those around the object.
_STYLE = (
    ".clustering-repr{max-width:760px;line-height:1.6;color:var(--jp-content-font-color0,inherit)}"
    ".clustering-repr header{border-bottom:1px solid var(--jp-border-color2,rgba(128,128,128,.5));padding-bottom:4px;"
    "margin-bottom:4px}"
    ".clustering-repr header span{opacity:.6;margin-right:12px}"
    ".clustering-repr summary{cursor:pointer;font-weight:500}"
    ".clustering-repr details.empty summary{opacity:.5;cursor:default;list-style:none;padding-left:14px}"
    ".clustering-repr .scroll{overflow-x:auto;margin:0 0 4px 14px}"
    ".clustering-repr table{border-collapse:collapse;color:inherit;font-size:.95em}"
    ".clustering-repr th{text-align:left;font-weight:500;opacity:.6;padding:0 14px 0 0}"
    ".clustering-repr td{text-align:left;padding:0 14px 0 0;font-variant-numeric:tabular-nums}"
    ".clustering-repr tr{background:none!important}"
)


def section(
    title: str,
    rows: Iterable[Sequence[str]],
    *,
    count: int | None,
    is_open: bool = False,
    head: Sequence[str] = (),
) -> str:
    """Make a section with a table. All texts are escaped.

    Parameters
    ----------
    title
        Title.
    rows
        Rows of the table, of which the first `SHOWN` are shown.
    count
        Number of all rows, shown beside the title; None where it says nothing.
    is_open
        Whether the section is open at first.
    head
        Titles of the columns.
    """
    table = list(rows)
    name = escape(title) + ("" if count is None else f" ({count:,})")
    if not table:
        return f'<details class="empty"><summary>{name}</summary></details>'
    lines = [f"<tr>{''.join(f'<th>{escape(one)}</th>' for one in head)}</tr>"] if head else []
    lines += [f"<tr>{''.join(f'<td>{escape(one)}</td>' for one in row)}</tr>" for row in table[:SHOWN]]
    more = max(len(table), count or 0) - SHOWN
    note = f"<div>and {more:,} more</div>" if more > 0 else ""
    body = f'<div class="scroll"><table>{"".join(lines)}</table>{note}</div>'
    return f"<details{' open' if is_open else ''}><summary>{name}</summary>{body}</details>"


def page(kind: str, header: str, *sections: str) -> str:
    """Put sections below a header. Its texts are escaped.

    Parameters
    ----------
    kind
        Name of the class.
    header
        What the object is, in a line.
    sections
        HTML of `section`.
    """
    first = f"<header><span>{escape(kind)}</span>{escape(header)}</header>"
    return f'<div class="clustering-repr"><style>{_STYLE}</style>{first}{"".join(sections)}</div>'
