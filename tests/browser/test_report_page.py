"""The report in Chromium: on a telephone and on paper, light and dark, by keyboard, and with markup in every name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from playwright.sync_api import Browser, Page, Request, sync_playwright

import clustering as c
from clustering.run.naming import name_cluster
from clustering_flows.cli import run

CHROMIUM = shutil.which("chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
KINDS = ("run", "fit", "sweep")
RAN = "window.ran = true"
IMAGE, SCRIPT = f'"><img src=x onerror="{RAN}">', f"<script>{RAN}</script>"
LOADS = f"'><svg onload='{RAN}'>]]>-->"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; apt-get install chromium"),
]

# Contrast of every text with what lies behind it, as WCAG 2.2 computes it; texts on data are left out.
CONTRASTS = """
() => {
  const parse = text => {
    const parts = text.match(/[\\d.]+/g).map(Number);
    return [...parts.slice(0, 3), parts[3] ?? 1];
  };
  const linear = v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = rgb => 0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2]);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0) return colour;
    }
    return [255, 255, 255, 1];
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
    if (!text || element.closest("style, title, desc") || !element.getClientRects().length) continue;
    const style = getComputedStyle(element), drawn = element.closest("svg");
    const ink = parse(drawn ? style.fill : style.color);
    if (drawn && /fill: (#ffffff|#1a1a1a)/.test(element.getAttribute("style") ?? "")) continue;
    const [low, high] = [light(ink), light(behind(element))].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), text]);
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        with playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser:
            yield browser


def planted(names: tuple[str, str], units: str, shift: float = 0.0) -> xr.Dataset:
    """Series of three kinds of places, with a masked corner."""
    rng, month = np.random.default_rng(0), np.arange(12.0)
    kind = np.repeat(np.arange(3), 8)[:, None, None]
    values = 10 * kind + (kind + 1) * np.cos(month / 2) + rng.normal(0, 1.5, (24, 30, 12)) + shift
    values[:4, :6] = np.nan
    data = {
        name: (("lat", "lon", "month"), scale * values, {"units": units})
        for name, scale in zip(names, (1, -2), strict=True)
    }
    lat = ("lat", np.linspace(-60, 60, 24), {"units": "degrees_north"})
    return xr.Dataset(data, {"lat": lat, "lon": ("lon", np.arange(30) * 12.0), "month": month})


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of a run with earlier versions, of a fit in memory and of a sweep, of data whose names hold markup."""
    folder = tmp_path_factory.mktemp("pages")
    store, out = folder / f"{IMAGE}.zarr", folder / "out"
    names = (IMAGE, LOADS)
    where: dict[str, Any] = {"variables": list(names), "sample_dims": ["lat", "lon"], "feature_dims": ["month"]}
    outputs: dict[str, Any] = {
        "responsibilities": "all", "margin": True, "distance": True, "log_density": True, "outlier_score": True,
    }  # fmt: skip
    for night in range(3):
        planted(names, SCRIPT, 0.3 * night).to_zarr(store, mode="w", consolidated=False, zarr_format=3)
        later = {"init": "model"} if night else {}
        c.run(str(store), c.GaussianMixture(3), output=str(out), overwrite=True, **outputs, **where, **later)
        if not night:
            name_cluster(str(out), 0, SCRIPT, "#2d0087")
            name_cluster(str(out), 1, IMAGE)
    memory = planted((SCRIPT, IMAGE), LOADS)
    fit = c.fit(memory, c.KMeans(3), **{**where, "variables": [SCRIPT, IMAGE]})
    config = {
        "source": {"store": str(store), **where}, "model": {"kind": "kmeans"}, "select": {"k": [2, 3, 4]},
        "fit": {"restarts": 2}, "output": {"store": str(folder / "swept")},
    }  # fmt: skip
    (folder / "sweep.yaml").write_text(yaml.safe_dump(config))
    assert run(["select-k", str(folder / "sweep.yaml"), "--no-prefect"]) == 0
    return {
        "run": out / "report.html",
        "sweep": folder / "swept" / "selection.html",
        "fit": fit.report(folder / "fit.html", data=memory, **{**where, "variables": [SCRIPT, IMAGE]}),
    }


def opened(browser: Browser, path: Path, width: int, scheme: Any = "light", **more: Any) -> tuple[Page, list[str]]:
    """Open a page, and collect what it asks for beside itself."""
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **more).new_page()
    asked: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith(("data:", "file:///")) or request.resource_type != "document":
            asked.append(request.url[:80])

    page.on("request", note)
    page.goto(path.as_uri())
    return page, [url for url in asked if not url.startswith("data:")]


@pytest.mark.parametrize("kind", KINDS)
def test_markup_in_names_never_runs_and_is_shown(browser: Browser, pages: dict[str, Path], kind: str) -> None:
    page, asked = opened(browser, pages[kind], 1280)
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") is None
    assert page.locator("script, [onerror], [onload], iframe, object, embed, link").count() == 0
    assert not asked
    text = page.evaluate("document.body.textContent")
    assert IMAGE in text
    if kind == "sweep":
        return
    assert SCRIPT in text
    assert LOADS in text
    # Names are in the drawings too, as texts of the SVG.
    drawn = page.evaluate("[...document.querySelectorAll('svg text, svg desc')].map(one => one.textContent).join(' ')")
    assert SCRIPT in drawn


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_overflows_and_every_text_is_readable(
    browser: Browser, pages: dict[str, Path], kind: str, width: int, scheme: str
) -> None:
    page, _ = opened(browser, pages[kind], width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 60
    assert [one for one in contrasts if one[0] < 4.5] == []


def test_figures_follow_the_scheme(browser: Browser, pages: dict[str, Path]) -> None:
    inks = []
    for scheme in ("light", "dark"):
        page, _ = opened(browser, pages["run"], 1280, scheme)
        inks.append(page.evaluate("getComputedStyle(document.querySelector('.drawing text')).fill"))
    assert inks == ["rgb(17, 24, 39)", "rgb(230, 237, 243)"]


@pytest.mark.parametrize("kind", KINDS)
def test_on_paper_everything_is_open_and_within_the_width(browser: Browser, pages: dict[str, Path], kind: str) -> None:
    # 182 mm, which A4 has between the margins, are 688 pixels.
    page, _ = opened(browser, pages[kind], 688, "dark")
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(17, 24, 39)"
    for details in page.locator("details").all():
        inside = details.locator("table, pre").first
        assert inside.evaluate("one => one.checkVisibility({contentVisibilityAuto: true}) && one.offsetHeight > 20")
    cut = (
        "[...document.querySelectorAll('.scroll, .frame')].filter(one => one.scrollWidth > one.clientWidth + 1).length"
    )
    assert page.evaluate(cut) == 0


def test_the_keyboard_leads_to_everything(browser: Browser, pages: dict[str, Path]) -> None:
    page, _ = opened(browser, pages["run"], 390)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#content"
    seen: set[str] = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.tagName"))
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    assert page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1
    # Wide figures and tables scroll in themselves, so they can be reached.
    assert "DIV" in seen


def test_drawings_have_names_and_the_page_has_landmarks(browser: Browser, pages: dict[str, Path]) -> None:
    page, _ = opened(browser, pages["run"], 1280)
    assert page.locator("html").get_attribute("lang") == "en"
    for landmark in ("banner", "main", "contentinfo", "navigation"):
        assert page.get_by_role(landmark).count() == 1  # type: ignore[arg-type]
    for drawing in page.locator("svg").all():
        assert drawing.locator("title").text_content()
        assert len(str(drawing.locator("desc").text_content())) > 20
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
    assert page.get_by_role("img", name="Labels", exact=True).count() == 1
