"""The page that shows a job while it runs: Markdown with small SVG drawings, for Prefect's UI."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from html import escape

from clustering.fitting.loop import PassRecord
from clustering.report.units import duration, size
from clustering.run.progress import ProgressSnapshot

BLUE, GREY, FAINT = "#2f7bf6", "#808692", "#80869240"
"""Colours that read well on light and dark pages alike."""
SHOWN_WARNINGS = 10
BARS = 200
"""Largest number of clusters that have a bar of their own."""
POINTS = 300
"""Largest number of passes that are drawn."""


def page(
    progress: ProgressSnapshot, warnings: Sequence[str], memory: int, processes: int, dashboard: str | None
) -> str:
    """Write the page as Markdown.

    Parameters
    ----------
    progress
        Progress of the job.
    warnings
        All warnings so far, oldest first.
    memory
        Peak memory of the process that uses most, in bytes; 0 where it is not known yet.
    processes
        Number of processes.
    dashboard
        URL of Dask's dashboard; None where there is none.
    """
    facts = {
        f"{100 * progress.share:.0f} % done": progress.headline,
        "time": f"{duration(progress.seconds)}{', ' * bool(progress.outlook)}{progress.outlook}",
        **_pass_facts(progress.records),
        "read": size(progress.bytes),
    }
    if progress.bytes_per_second:
        facts["read"] += f", at {size(progress.bytes_per_second)}/s"
    if progress.records:
        facts["read"] += f"; {progress.reads:.3g} full reads of the source"
    if memory:
        facts["peak memory"] = size(memory) + (f", the fullest of {processes} processes" if processes > 1 else "")
    if dashboard:
        facts["Dask"] = f"[dashboard of the workers]({dashboard})"
    # A table in Markdown needs a header, so the first fact serves as one.
    first, *others = [f"| {name} | {value} |" for name, value in facts.items()]
    lines = [_image("progress", bar(progress.share)), "", first, "|---|---|", *others]
    if progress.records:
        lines += ["", "### Objective by pass", "", _image("objective by pass", curves(progress))]
        sizes = progress.records[-1].sizes
        if len(sizes) > 1:
            sizes_text = (
                f"of {len(sizes):,} clusters, from {100 * max(sizes):.3g} % to {100 * min(sizes):.3g} % of the weight"
            )
            lines += ["", "### Effective sizes", "", sizes_text, "", _image("effective sizes", bars(sizes))]
    if warnings:
        lines += ["", "### Warnings", "", *(f"- {line}" for line in warnings[-SHOWN_WARNINGS:])]
        if len(warnings) > SHOWN_WARNINGS:
            lines.append(f"- and {len(warnings) - SHOWN_WARNINGS:,} before, in the log")
    return "\n".join(lines)


def card(progress: ProgressSnapshot) -> str:
    """Write the short description on the page of the run: progress in a few lines, and a drawing.

    Parameters
    ----------
    progress
        Progress of the job.
    """
    drawing = spark([r.objective for r in progress.records]) if len(progress.records) > 1 else bar(progress.share, 320)
    return "\n\n".join(progress.lines) + f"\n\n{_image('objective by pass', drawing)}"


def _pass_facts(records: Sequence[PassRecord]) -> dict[str, str]:
    if not records:
        return {}
    last = records[-1]
    # A change of −0.0 would be shown with a minus sign, so 0 is added.
    change = "" if last.change is None else f", changed by {last.change + 0.0:+.2e}"
    several = f", for each of {last.active} candidates" if last.active > 1 else ""
    rate = last.rows * last.active / last.seconds if last.seconds else 0.0
    return {
        f"objective {last.symbol}": f"{last.objective:.10g}{change}",
        "rows": f"{last.rows:,}{several}, {rate / 1e6:.2f} M rows/s in the last pass",
    }


def bar(share: float, width: int = 680) -> str:
    """Draw a progress bar for a share between 0 and 1.

    Parameters
    ----------
    share
        Share of the bar that is filled, 0 to 1.
    width
        Width in pixels.
    """
    done = max(0.0, min(1.0, share)) * width
    return _svg(
        width, 18,
        f'<rect width="{width}" height="10" y="4" rx="5" fill="{FAINT}"/>'
        f'<rect width="{done:.1f}" height="10" y="4" rx="5" fill="{BLUE}"/>',
    )  # fmt: skip


def spark(values: Sequence[float]) -> str:
    """Draw values as a line without axes.

    Parameters
    ----------
    values
        Objective of each pass.
    """
    return _svg(320, 64, _line(values, 2, 4, 316, 56))


def curves(progress: ProgressSnapshot) -> str:
    """Draw the objective of each pass, and its relative change on a logarithmic scale.

    Parameters
    ----------
    progress
        Progress of the job.
    """
    records = progress.records
    objective = [(r.iteration, r.objective) for r in records]
    # A change of 0 has no logarithm, and the first pass has no change.
    changes = [(r.iteration, math.log10(abs(r.change))) for r in records if r.change]
    objective_chart = _chart(objective, 0, f"{records[-1].symbol} after the update", "{:.5g}".format)
    if len(changes) < 2:
        return _svg(680, 190, objective_chart)
    rule = math.log10(progress.rule.tolerance) if progress.rule.tolerance else None
    return _svg(
        680, 190, objective_chart + _chart(changes, 350, "relative change, log scale", lambda v: f"{10**v:.1e}", rule)
    )


def bars(sizes: Sequence[float]) -> str:
    """Draw the shares of clusters, largest first.

    Parameters
    ----------
    sizes
        Shares of the clusters in the total weight.
    """
    order = sorted(sizes, reverse=True)
    # Of very many clusters, every n-th is drawn.
    thinned = order if len(order) <= BARS else [order[int(i * len(order) / BARS)] for i in range(BARS)]
    step, top = 680 / len(thinned), thinned[0] or 1.0
    gap = min(3.0, 0.2 * step)
    drawn = "".join(
        f'<rect x="{i * step:.1f}" y="{80 - 76 * s / top:.1f}" width="{step - gap:.1f}" height="{76 * s / top:.1f}" '
        f'fill="{BLUE}"/>'
        for i, s in enumerate(thinned)
    )
    return _svg(680, 84, drawn + f'<path d="M0 80.5H680" stroke="{GREY}"/>')


def _chart(
    points: Sequence[tuple[int, float]], x: int, title: str, form: Callable[[float], str], rule: float | None = None
) -> str:
    values = [value for _, value in points]
    low, high = min(values), max(values)
    # The line of the tolerance has to lie inside the chart.
    if rule is not None:
        low = min(low, rule)
    drawn = f'<text x="{x}" y="14" font-weight="600">{escape(title)}</text>'
    drawn += f'<path d="M{x} 24V164H{x + 320}" fill="none" stroke="{FAINT}"/>'
    drawn += _line(values, x + 2, 28, 314, 130, low, high)
    if rule is not None and high > low:
        y = 28 + 130 * (high - rule) / (high - low)
        drawn += f'<path d="M{x} {y:.1f}h320" stroke="{GREY}" stroke-dasharray="4 4"/>'
        drawn += f'<text x="{x + 6}" y="{y - 4:.1f}">tolerance</text>'
    drawn += f'<text x="{x + 320}" y="36" text-anchor="end">{form(high)}</text>'
    if high > low:
        drawn += f'<text x="{x + 8}" y="156">{form(low)}</text>'
    drawn += f'<text x="{x}" y="182">pass {points[0][0]}</text>'
    if len(points) > 1:
        drawn += f'<text x="{x + 320}" y="182" text-anchor="end">{points[-1][0]}</text>'
    return drawn


def _line(
    values: Sequence[float], x: float, y: float, width: float, height: float,
    low: float | None = None, high: float | None = None,
) -> str:  # fmt: skip
    low, high = min(values) if low is None else low, max(values) if high is None else high
    count, span = len(values), (high - low) or 1.0
    every = max(1, math.ceil(count / POINTS))
    # The last pass is always drawn, because the circle marks it.
    kept = [*range(0, count - 1, every), count - 1]
    points = [(x + width * i / max(1, count - 1), y + height * (high - values[i]) / span) for i in kept]
    end_x, end_y = points[-1]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{BLUE}" stroke-width="2" stroke-linejoin="round"/>'
        f'<circle cx="{end_x:.1f}" cy="{end_y:.1f}" r="3.5" fill="{BLUE}"/>'
    )


def _svg(width: int, height: int, drawn: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="system-ui,sans-serif" font-size="12" fill="{GREY}">{drawn}</svg>'
    )


def _image(title: str, svg: str) -> str:
    # The page is one text, so that a drawing has to be inside it.
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"
