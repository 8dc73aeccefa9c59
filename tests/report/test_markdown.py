from __future__ import annotations

from typing import Any

import pytest
from markdown_it import MarkdownIt
from test_page import Page

from clustering.execution.passes import ReadStats
from clustering.fitting.loop import PassRecord
from clustering.report.figures import Figure
from clustering.report.markdown import PASSES_LISTED, page_of, table_of

RECORD = {
    "run": "r2", "kind": "kmeans", "k": 3, "n_rows": 1234, "n_masked": 0, "n_features": 2, "objective": 1.5,
    "iterations": 4, "converged": True, "stop_reason": "converged", "reads": 1, "bytes_read": 2048,
    "seconds": {"total": 3.0}, "peak_rss_bytes": 2**30, "warnings": ["take care"], "remarks": [],
    "config": {"output": {"store": "out"}},
}  # fmt: skip


def test_the_page_shows_what_was_new_and_what_that_changed() -> None:
    followed = {
        "run": "r1", "refresh": "full", "blocks": 40, "new": 3, "changed": 1, "unchanged": 36, "gone": 0,
        "where": {"time": ["2026-01-01", "2026-01-03"]},
        "told": "3 new and 1 changed of 40 blocks (time 2026-01-01 … 2026-01-03)",
    }  # fmt: skip
    comparison = {
        "with": "r1", "churn": 0.0123, "churn_by_cluster": {}, "sizes": {}, "largest_size_change": 0.05,
        "new_clusters": [4], "lost_clusters": [],
        "held_out": {"rows": 1000, "objective": 2.5, "objective_before": 2.25},
    }  # fmt: skip
    page = page_of({**RECORD, "followed": followed, "comparison": comparison}, [])
    for line in (
        "| follows run | `r1` |",
        "| what was new | 3 new and 1 changed of 40 blocks (time 2026-01-01 … 2026-01-03) |",
        "| compared with run | `r1` |",
        "| changed their label | 1.23 % of the weight |",
        "| largest change of a size | 5 % |",
        "| new clusters | 4 |",
        "| held out | 2.5 on 1,000 rows, 2.25 before |",
        "- take care",
    ):
        assert line in page
    assert "lost clusters" not in page


def test_the_page_shows_the_key_figures() -> None:
    expected = {
        "run": "`r2`",
        "model": "kmeans, k = 3",
        "rows": "1,234 of 2 features",
        "objective": "1.5",
        "passes": "4, converged; 1 full read of the source, 2.0 KiB",
        "time": "3.0 s, peak memory 1.0 GiB",
        "output": "`out`",
    }
    first, *others = [f"| {name} | {value} |" for name, value in expected.items()]
    lines = ["# 3 clusters of 1,234 rows", "", first, "|---|---|", *others]
    assert page_of(RECORD, []).splitlines() == [*lines, "", "## Worth knowing", "", "- take care"]


def test_the_page_shows_what_is_not_as_wished() -> None:
    page = page_of({**RECORD, "converged": False, "stop_reason": "max_seconds", "reads": 2.5, "n_masked": 7}, [])
    assert "| rows | 1,234 of 2 features; 7 cells masked |" in page
    assert "| passes | 4, stopped by max_seconds; 2.5 full reads of the source, 2.0 KiB |" in page


@pytest.mark.parametrize("more", [{}, {"followed": None, "comparison": None}], ids=["none", "null"])
def test_the_page_of_a_first_run_compares_nothing(more: dict[str, Any]) -> None:
    page = page_of({**RECORD, **more}, [])
    assert "compared" not in page
    assert "what was new" not in page


def test_a_page_shows_pictures_with_their_words() -> None:
    pictures = [Figure("sizes", "Sizes", "Share of each cluster.", "Bars.", pixels=b"\x89PNG")]
    assert page_of(RECORD, pictures).endswith(
        "## Sizes\n\n![Sizes](data:image/png;base64,iVBORw==)\n\nShare of each cluster."
    )


HOSTILE = (
    "<script>alert(1)</script>", "[click](javascript:alert(1))", "a | b", "`code` ``more``", "**bold** _slanted_",
    "![x](http://x)", "line\n# head", "max_iterations",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_users_is_shown_as_it_is(text: str) -> None:
    """A renderer with tables, as that of Prefect, gives the text back, and no element that the page did not ask for."""
    record = {
        **RECORD, "run": text, "kind": text, "stop_reason": text, "converged": False, "warnings": [text],
        "config": {"output": {"store": text}}, "status": "held", "gate": {"reasons": [text]},
        "comparison": {
            "with": text, "churn": None, "churn_by_cluster": {}, "sizes": {}, "largest_size_change": 0.1,
            "new_clusters": [], "lost_clusters": [], "held_out": None,
        },
    }  # fmt: skip
    figure = Figure("f", text, text, text, pixels=b"\x89PNG")
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(page_of(record, [figure]))
    page = Page(html)
    expected = " ".join(text.split())
    # The run, the one compared with, the output, model, reason to stop, warning, gate, title and caption.
    assert page.text.count(expected) >= 9
    assert page.alts == [expected]
    assert page.tags.count("table") == page.tags.count("h1") == page.tags.count("img") == page.tags.count("strong") == 1
    assert set(page.tags) <= {
        "h1", "h2", "table", "thead", "tbody", "tr", "th", "td", "p", "ul", "li", "code", "img", "strong",
    }  # fmt: skip
    assert page.tags.count("td") == 2 * (page.tags.count("tr") - 1)


def test_the_last_passes_are_listed() -> None:
    records = [PassRecord(i, "J", 2.0, None, 2, 30, 0.5, ReadStats(1, 64), None) for i in range(1, PASSES_LISTED + 2)]
    rows = table_of(records)
    assert [rows[0]["pass"], rows[-1]["pass"]] == [2, PASSES_LISTED + 1]
    assert rows[0] == {
        "pass": 2, "objective": 2.0, "change": None, "candidates": 2, "rows": 30, "seconds": 0.5,
        "rows per second": 120, "bytes read": 64,
    }  # fmt: skip
