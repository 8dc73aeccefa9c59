"""All stored results beside their targets: a page, a figure, and the table of README.md.

python -m benchmarks.summary
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS, Result, load, stored_results

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->"
"""What the table of README.md lies between."""
ROW, LEFT, MIDDLE, RIGHT, TOP = 26, 470, 720, 960, 34
"""Places in the figure: height of a row, left end, target and right end of the axis, top of the rows."""
STYLE = """
text { fill: #1f2937; } .faint { fill: #6b7280; } .line { stroke: #d1d5db; } .target { stroke: #6b7280; }
.met { fill: #2563eb; fill-opacity: 0.75; }
.missed { stroke: #dc2626; stroke-width: 2.2; } .missed-text { fill: #dc2626; }
@media (prefers-color-scheme: dark) {
text { fill: #e5e7eb; } .faint { fill: #9ca3af; } .line { stroke: #374151; } .target { stroke: #9ca3af; }
.met { fill: #60a5fa; } .missed { stroke: #f87171; } .missed-text { fill: #f87171; }
}
"""


def bars(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Group the results that have a target by their bar, in order."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        if result.target is not None:
            groups.setdefault(result.bar, []).append(result)
    return groups


def worst(cases: Sequence[Result]) -> Result:
    """Return the case that is farthest from its target; one without a ratio is worst of all."""
    return min(cases, key=lambda case: -1.0 if math.isnan(case.margin) else case.margin)


def number(value: float) -> str:
    """Write a number with three digits."""
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def target(result: Result) -> str:
    return "" if result.target is None else f"{result.sign} {result.target:g}"


def short_table(results: Iterable[Result]) -> str:
    """Write a row for each bar: its target, its worst case, and how many cases meet the target."""
    groups = bars(results)
    if not groups:
        return ""
    lines = ["| bar | target | ratio, worst case | that case | met |", "|---|---|---|---|---|"]
    for bar, cases in groups.items():
        case, met = worst(cases), sum(bool(case.met) for case in cases)
        ratio = number(case.ratio) if case.met else f"**{number(case.ratio)}**"
        verdict = f"{met} of {len(cases)}" if met == len(cases) else f"**{met} of {len(cases)}**"
        lines.append(f"| {bar} | {target(case)} | {ratio} | {case.case} | {verdict} |")
    return "\n".join(lines) + "\n"


def page(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Write every result, by benchmark, with the machine that it comes from."""
    lines = [
        "# Results of `make bench`",
        "",
        "Less is better: seconds, bytes, reads, costs. For a target with ≥, the ratio is the best of the peers over "
        "ours; for one with ≤, ours over the best of the peers. Results without a target are only shown; ∞ never comes "
        "to the end.",
        "",
        "![The worst and all other cases of each bar, against its target](bars.svg)",
        "",
        short_table(stored_results(files)),
    ]
    for name, content in files.items():
        about = content["machine"]
        versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
        lines += [
            f"## {name}",
            "",
            f"{content['date']}; {about['processor']}, {about['processors']} processors; BLAS: {about['blas']}; "
            f"Python {about['python']}, {versions}.",
            "",
            "| bar | case | ours | peers | ratio | target | met |",
            "|---|---|---|---|---|---|---|",
        ]
        for result in stored_results({name: content}):
            peers = ", ".join(f"{peer} {number(value)}" for peer, value in result.peers.items())
            met = {True: "met", False: "**missed**", None: ""}[result.met]
            lines.append(
                f"| {result.bar} | {result.case} | {number(result.ours)} {result.unit} | {peers} | "
                f"{number(result.ratio)} | {target(result)} | {met} |"
            )
        lines.append("")
    return "\n".join(lines)


def figure(groups: Mapping[str, Sequence[Result]]) -> str:
    """Draw a row for each bar, with a mark for each case, on a logarithmic axis whose middle is the target."""
    height = TOP + ROW * len(groups) + 44
    # The axis reaches over the farthest case, to a power of two.
    margins = [case.margin for cases in groups.values() for case in cases if 0 < case.margin < math.inf]
    reach = max(1, math.ceil(max((abs(math.log2(margin)) for margin in margins), default=1)))

    def x(margin: float) -> float:
        place = math.log2(margin) if 0 < margin < math.inf else reach if margin > 0 else -reach
        return MIDDLE + place / reach * (RIGHT - MIDDLE - 10)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {RIGHT + 90} {height}" font-size="13" '
        "font-family=\"system-ui, -apple-system, 'Segoe UI', sans-serif\">",
        "<title>Ratio of every case against its target</title>",
        f"<style>{STYLE}</style>",
    ]
    bottom = TOP + ROW * len(groups)
    step = -(-reach // 3)
    for power in range(-reach // step * step, reach + 1, step):
        if abs(power) > reach:
            continue
        kind, at = "target" if power == 0 else "line", x(2.0**power)
        label = "target" if power == 0 else f"{2**power} ×" if power > 0 else f"1/{2**-power}"
        parts.append(f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="faint" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    parts.append(f'<text class="faint" x="{MIDDLE}" y="{bottom + 36}" text-anchor="middle">← missed · met →</text>')
    parts.append(f'<text class="faint" x="{RIGHT + 10}" y="{TOP - 12}">worst ratio</text>')
    for i, (bar, cases) in enumerate(groups.items()):
        y, last = TOP + ROW * i + ROW / 2, worst(cases)
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(bar)} '
            f'<tspan class="faint">{target(last)}</tspan></text>'
        )
        parts.append(f'<line class="line" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        for case in cases:
            at, about = x(case.margin), f"<title>{escape(case.case)}: {number(case.ratio)}</title>"
            if case.met:
                parts.append(f'<circle class="met" cx="{at:.1f}" cy="{y:.1f}" r="4.5">{about}</circle>')
            else:
                cross = f"M{at - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
                parts.append(f'<path class="missed" d="{cross}">{about}</path>')
        kind = "" if last.met else ' class="missed-text"'
        parts.append(f'<text{kind} x="{RIGHT + 10}" y="{y + 4:.1f}">{number(last.ratio)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def with_results(readme: str, files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text of README.md with the table of stored results, or with none if there are none."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md has no lines {BEGIN.strip()!r} and {END!r}")
    table = short_table(stored_results(files))
    text = f"{table}\n[All cases](benchmarks/results/README.md)\n" if table else ""
    return f"{before}{begin}{text}{end}{after}"


def main() -> None:
    """Write the page, the figure and the table from what is stored."""
    files = load()
    groups = bars(stored_results(files))
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "README.md").write_text(page(files))
    (RESULTS / "bars.svg").write_text(figure(groups))
    README.write_text(with_results(README.read_text(), files))
    print(short_table(stored_results(files)), end="")


if __name__ == "__main__":
    main()
