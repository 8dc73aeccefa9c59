"""Colours of pages: every text is readable on every ground, and every cluster is seen on either paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import clustering.report
from clustering.fitting.cluster_names import default_colour
from clustering.plots.canvas import INK, MASKED, PAPER, SOFT
from clustering.report.svg import DARK, FAINT, LIGHT, VARIABLES, contrast, halo_rules

STYLE = (Path(clustering.report.__file__).parent / "style.css").read_text()
SCHEMES = dict(
    zip(
        ("light", "dark"),
        ({m[1]: m[2] for m in re.finditer(r"--([a-z]+): (#[0-9a-f]{6});", part)} for part in STYLE.split("@media")[:2]),
        strict=True,
    )
)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ink", ["ink", "soft", "accent", "failed"])
@pytest.mark.parametrize("ground", ["paper", "back", "chosen"])
def test_texts_are_readable_on_every_ground(scheme: str, ink: str, ground: str) -> None:
    """WCAG 2.2, success criterion 1.4.3, asks for 4.5."""
    colours = SCHEMES[scheme]
    assert contrast(colours[ink], colours[ground]) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_marks_of_warnings_are_seen(scheme: str) -> None:
    colours = SCHEMES[scheme]
    assert min(contrast(colours[mark], colours["paper"]) for mark in ("alert", "accent")) >= 3.0


def test_the_papers_of_the_rims_are_those_of_the_style() -> None:
    assert (SCHEMES["light"]["paper"], SCHEMES["dark"]["paper"]) == (LIGHT, DARK)
    assert set(VARIABLES) == {INK, SOFT, PAPER, MASKED}
    assert {value[6:-1] for value in VARIABLES.values()} <= set(SCHEMES["light"])


def test_lines_of_every_cluster_are_seen_on_either_paper() -> None:
    colours = [default_colour(i) for i in range(60)]
    rules = halo_rules([f'<path style="fill: none; stroke: {colour}; stroke-width: 1.6"/>' for colour in colours])
    for paper, rule in zip((LIGHT, DARK), rules.split("\n"), strict=True):
        rimmed = set(re.findall(r"stroke: (#[0-9a-f]{6})", rule))
        assert rimmed == {colour for colour in colours if contrast(colour, paper) < FAINT}
        assert rimmed
    assert halo_rules(["<path/>"]) == ""


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)
    assert contrast("#123456", "#123456") == 1.0
