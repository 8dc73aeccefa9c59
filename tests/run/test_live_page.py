from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest

from clustering.execution.passes import ReadStats
from clustering.fitting.loop import PassRecord, StoppingRule
from clustering.run.live_page import BARS, POINTS, SHOWN_WARNINGS, bars, card, curves, page
from clustering.run.progress import ProgressSnapshot

SVG = "{http://www.w3.org/2000/svg}"


def record(iteration: int, objective: float = 10.0, **changes: Any) -> PassRecord:
    defaults = {"active": 1, "change": -0.5 / iteration if iteration > 1 else None, "sizes": (0.5, 0.3, 0.2)}
    return PassRecord(
        iteration=iteration, symbol="J", objective=objective, rows=2_000_000, seconds=2.0,
        read_stats=ReadStats(4, 8_000_000), remaining_seconds=30.0, **{**defaults, **changes},
    )  # fmt: skip


def progress(passes: int = 3, **changes: Any) -> ProgressSnapshot:
    records = tuple(record(i, 100.0 / i) for i in range(1, passes + 1))
    snapshot = ProgressSnapshot(
        "fit", 0.4, 95.0, 30.0, 0.25, 1.5, 3 * 2**30, 2**20, records, StoppingRule(tolerance=1e-3), 1.5
    )
    return replace(snapshot, **changes)


def drawings(text: str) -> list[ET.Element]:
    """The pictures of a page, as a browser would parse them."""
    images = re.findall(r"!\[[^]]*\]\(data:image/svg\+xml;base64,([^)]*)\)", text)
    return [ET.fromstring(base64.b64decode(one)) for one in images]


def words(drawing: ET.Element) -> list[str]:
    return [str(one.text) for one in drawing.iter(f"{SVG}text")]


def table(text: str) -> dict[str, str]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in rows}


def test_the_page_shows_all_that_is_known() -> None:
    text = page(progress(), ["a chunk is bad"], 2**31, 3, "http://127.0.0.1:8787/status")
    assert table(text) == {
        "40 % done": "3 passes, 25 % of the next",
        "time": "2 min, about 30 s to go",
        "objective J": "33.33333333, changed by -1.67e-01",
        "rows": "2,000,000, 1.00 M rows/s in the last pass",
        "read": "3.0 GiB, at 1.0 MiB/s; 1.5 full reads of the source",
        "peak memory": "2.0 GiB, the fullest of 3 processes",
        "Dask": "[dashboard of the workers](http://127.0.0.1:8787/status)",
    }
    assert "3 clusters, from 50 % to 20 % of the weight" in text
    assert text.endswith("- a chunk is bad")
    assert len(drawings(text)) == 3


def test_before_the_first_pass_nothing_is_made_up() -> None:
    before = progress(
        0, stage="sample", pass_share=None, seconds_left=None, pass_seconds_left=None, bytes_per_second=0.0
    )
    text = page(before, [], 0, 1, None)
    assert table(text) == {"40 % done": "pass 0", "time": "2 min", "read": "3.0 GiB"}
    assert len(drawings(text)) == 1
    assert "nan" not in text


def test_memory_of_one_process_is_just_that() -> None:
    assert table(page(progress(), [], 2**30, 1, None))["peak memory"] == "1.0 GiB"


def test_only_the_last_warnings_are_shown() -> None:
    text = page(progress(), [f"warning {i}" for i in range(SHOWN_WARNINGS + 2)], 0, 1, None)
    assert "warning 1\n" not in text
    assert text.endswith(f"- warning {SHOWN_WARNINGS + 1}\n- and 2 before, in the log")


def test_several_candidates_are_reported() -> None:
    text = page(replace(progress(), records=(record(1, active=4),)), [], 0, 1, None)
    assert table(text)["rows"] == "2,000,000, for each of 4 candidates, 4.00 M rows/s in the last pass"


def test_the_bar_is_as_long_as_what_is_done() -> None:
    for share in (0.0, 0.4, 1.0):
        drawing = drawings(page(progress(share=share), [], 0, 1, None))[0]
        whole, done = (float(one.attrib["width"]) for one in drawing.iter(f"{SVG}rect"))
        assert done == pytest.approx(share * whole)


def test_the_curves_show_the_ends_and_the_tolerance() -> None:
    drawing = ET.fromstring(curves(progress(4)))
    assert words(drawing) == [
        "J after the update", "100", "25", "pass 1", "4",
        "relative change, log scale", "tolerance", "2.5e-01", "1.0e-03", "pass 2", "4",
    ]  # fmt: skip
    assert len(list(drawing.iter(f"{SVG}polyline"))) == 2


def test_without_a_tolerance_none_is_drawn() -> None:
    assert "tolerance" not in curves(progress(4, rule=StoppingRule()))


FLAT = {
    "one pass": [10.0],
    "always the same": [10.0] * 5,
    "zero": [0.0] * 3,
}


@pytest.mark.parametrize("objectives", FLAT.values(), ids=FLAT)
def test_flat_curves_are_drawn_too(objectives: list[float]) -> None:
    records = tuple(record(i, value, change=0.0) for i, value in enumerate(objectives, 1))
    drawing = ET.fromstring(curves(progress(records=records, rule=StoppingRule())))
    (line,) = drawing.iter(f"{SVG}polyline")
    assert len(line.attrib["points"].split()) == len(objectives)
    assert "nan" not in line.attrib["points"]


def test_a_long_history_is_thinned_and_keeps_its_ends() -> None:
    drawing = ET.fromstring(curves(progress(10 * POINTS, rule=StoppingRule())))
    points = next(iter(drawing.iter(f"{SVG}polyline"))).attrib["points"].split()
    assert POINTS <= len(points) <= POINTS + 1
    assert points[0].split(",")[1] == "28.0"
    assert points[-1].split(",") == ["316.0", "158.0"]


@pytest.mark.parametrize("k", [2, 12, BARS + 1, 1024])
def test_sizes_are_drawn_largest_first(k: int) -> None:
    drawing = ET.fromstring(bars([i / k for i in range(k)]))
    heights = [float(one.attrib["height"]) for one in drawing.iter(f"{SVG}rect")]
    assert len(heights) == min(k, BARS)
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == 76.0


def test_empty_clusters_are_drawn_empty() -> None:
    assert [one.attrib["height"] for one in ET.fromstring(bars([0.0, 0.0])).iter(f"{SVG}rect")] == ["0.0", "0.0"]


def test_the_card_has_short_lines_and_a_drawing() -> None:
    text = card(progress())
    assert text.splitlines()[:5:2] == ["3 passes, 25 % of the next", "J 33.3333 · 40 % done", "about 30 s to go"]
    assert len(drawings(text)) == 1
    assert max(len(line) for line in text.splitlines() if not line.startswith("!")) <= 34
