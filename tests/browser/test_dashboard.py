"""Prefect's UI in Chromium, during a run and after it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from seasons import write_seasons
from server import ROOT, Server, eventually, running

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDTH, HEIGHT = 1280, 1240

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; apt-get install chromium"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("prefect")) as server:
        yield server


expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        with playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser:
            yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that reaches this machine only, as in a closed network."""
    with browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light") as context:
        context.set_default_timeout(60_000)
        context.route(lambda url: urlsplit(url).scheme != "file" and urlsplit(url).hostname != "127.0.0.1", _refuse)
        yield context.new_page()


def _refuse(route: Any) -> None:
    route.abort()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of screenshots: that of SCREENSHOTS, or else a temporary one."""
    asked = os.environ.get("SCREENSHOTS")
    return ROOT / asked if asked else tmp_path_factory.mktemp("screenshots")


def take(page: Page, path: Path) -> None:
    """Take a screenshot, small enough for a document."""
    page.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < 300_000


def open_page(page: Page, url: str, text: str) -> None:
    """Open a page of Prefect and wait for a text; as a person would, load it anew where a request of it was lost."""
    for _ in range(2):
        page.goto(url)
        with suppress(AssertionError):
            expect(page.get_by_text(text).first).to_be_visible(timeout=20_000)
            return
    page.goto(url)
    expect(page.get_by_text(text).first).to_be_visible()


def drawn(page: Page, title: str) -> None:
    """Wait for a picture inside the page to be decoded."""
    picture = page.get_by_role("img", name=title).last
    expect(picture).to_be_visible()
    assert picture.evaluate("picture => picture.naturalWidth") > 100


def test_a_run_can_be_followed_and_its_outcome_read(server: Server, page: Page, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "climate"
    write_seasons(tmp_path / "temperature.zarr")
    config = {
        "source": {
            "store": "temperature.zarr", "variables": ["t2m"], "sample_dims": ["lat", "lon"],
            "feature_dims": ["month"], "weights": "cos(lat)",
        },
        "model": {"kind": "kmeans", "k": 12},
        # A poor start, so that there are many passes to look at.
        "fit": {"init": "random", "restarts": 1, "sample_rows": 500},
        "compute": {"cluster": "local", "workers": 2, "memory": "1GiB"},
        "output": {"store": "runs/climate"},
    }  # fmt: skip
    (tmp_path / "climate.yaml").write_text(yaml.safe_dump(config))
    command = ("-c", "from clustering_flows.cli import main; main()", "fit", "climate.yaml", "--prefect")
    fit = server.run(*command, log="fit.log", where=tmp_path)
    log = server.home / "fit.log"
    (flow_run,) = eventually(lambda: server.ask("/flow_runs/filter", {}))
    run, name = flow_run["id"], flow_run["name"]
    assert eventually(lambda: "pass  25" in log.read_text() or fit.poll() is not None), log.read_text()
    assert fit.poll() is None, log.read_text()

    # The page of the run shows the progress after one click on the tab.
    open_page(page, f"{server.ui}/v2/runs/flow-run/{run}?tab=Artifacts", name)
    expect(page.get_by_text("Running").first).to_be_visible()
    expect(page.get_by_text(re.compile(r"^\d+ passes")).first).to_be_visible()
    expect(page.get_by_text(re.compile(r"^(about|at most) .* to go$")).first).to_be_visible()
    drawn(page, "objective by pass")

    # The details of the fit.
    page.get_by_text("fit-live", exact=True).click()
    page.get_by_role("link", name=server.artifacts(run)["fit-live"]["id"][:8]).click()
    for cell_text in ("objective J", "rows", "read", "peak memory"):
        expect(page.get_by_role("cell", name=cell_text, exact=True)).to_be_visible()
    expect(page.get_by_role("cell", name="the fullest of 3 processes")).to_be_visible()
    assert page.get_by_role("link", name="dashboard of the workers").get_attribute("href") in log.read_text()
    for title in ("progress", "objective by pass", "effective sizes"):
        drawn(page, title)
    take(page, pictures / "dashboard-running.png")
    assert fit.poll() is None, "the run was over before it could be looked at"

    open_page(page, f"{server.ui}/v2/runs/flow-run/{run}?tab=Logs", "pass 0: 1,036,800 rows")

    # The outcome.
    assert fit.wait(900) == 0, log.read_text()
    open_page(page, f"{server.ui}/v2/runs/flow-run/{run}?tab=Artifacts", "Completed")
    expect(page.get_by_text("100 % done").first).to_be_visible()
    expect(page.get_by_text("runs/climate/report.html").first).to_be_visible()
    page.get_by_text("fit-report", exact=True).click()
    page.get_by_role("link", name=server.artifacts(run)["fit-report"]["id"][:8]).click()
    expect(page.get_by_role("heading", name="12 clusters of 1,036,800 rows")).to_be_visible()
    expect(page.get_by_text((out / "current").resolve().name).first).to_be_visible()
    drawn(page, "Labels")
    take(page, pictures / "dashboard-finished.png")

    open_page(page, f"{server.ui}/v2/artifacts/artifact/{server.artifacts(run)['fit-passes']['id']}", "rows per second")

    # The older of Prefect's two UIs.
    page.goto(f"{server.ui}/artifacts/artifact/{server.artifacts(run)['fit-live']['id']}")
    expect(page.get_by_role("cell", name="objective J", exact=True)).to_be_visible()
    drawn(page, "effective sizes")

    page.goto((out / "report.html").as_uri())
    expect(page.get_by_role("img").first).to_be_visible()
    assert page.title().startswith("Twelve clusters of 1.04 million rows")
