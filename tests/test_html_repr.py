"""What notebooks and consoles show of fits, sources and runs."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import xarray as xr

import clustering as c

SCRIPT = "<script>alert(1)</script>"
FIELD = xr.DataArray(
    np.random.default_rng(0).standard_normal((20, 30)),
    {"depth": np.arange(30.0)},
    ("time", "depth"),
    SCRIPT,
    {"units": "<b>K</b>"},
)


class _Balanced(HTMLParser):
    """Checks that every element is closed in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.names.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = c.run(FIELD, c.KMeans(3), output=tmp_path_factory.mktemp("run") / "out", report=False, sample_dims="time")
    fit = c.fit(FIELD, c.KMeans(3), sample_dims="time")
    return {"fit": fit, "source": c.open_source(FIELD, sample_dims="time"), "run": made}


@pytest.mark.parametrize("name", ["fit", "source", "run"])
def test_html_is_whole_escaped_and_needs_nothing_from_outside(shown: dict[str, Any], name: str) -> None:
    html = shown[name]._repr_html_()
    parser = _Balanced()
    parser.feed(html)
    assert not parser.open
    assert "script" not in parser.names
    assert "b" not in parser.names
    assert "http" not in html
    assert "src=" not in html


@pytest.mark.parametrize("name", ["fit", "source", "run"])
def test_text_is_one_short_line(shown: dict[str, Any], name: str) -> None:
    text = repr(shown[name])
    assert "\n" not in text
    assert len(text) < 400


def test_long_tables_say_how_much_more_there_is(shown: dict[str, Any]) -> None:
    assert "and 18 more" in shown["fit"]._repr_html_()


def test_the_source_names_its_dimensions(shown: dict[str, Any]) -> None:
    assert repr(shown["source"]) == f"<Source of {SCRIPT}: time 20; 30 features, float64>"


def test_a_plain_array_is_shown_too() -> None:
    rows = np.arange(12.0).reshape(6, 2)
    assert "KMeans" in c.fit(rows, c.KMeans(2))._repr_html_()
    assert "float64" in c.open_source(rows)._repr_html_()
