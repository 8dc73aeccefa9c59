"""The page of the package index, as an index renders it: no link leads to a file that the index does not have."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from readme_renderer.markdown import render

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PICTURES = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
_SPEC = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
assert _SPEC is not None
assert _SPEC.loader is not None
hatch_build = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(hatch_build)


def rendered(text: str) -> str:
    page = render(text)
    assert page is not None
    return page


def targets(page: str) -> list[str]:
    """What pictures and links of a page lead to, except headings of the page."""
    return [target for target in re.findall(r'(?:src|href)="([^"]*)"', page) if not target.startswith("#")]


def test_the_page_of_a_wheel_has_no_link_to_a_file(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    page = rendered(str(metadata.get_payload()))

    assert targets(page)
    assert all(target.startswith("https://") for target in targets(page))
    assert "](" not in re.sub(r"<pre.*?</pre>|<code>.*?</code>", "", page, flags=re.S)


def test_without_an_address_a_picture_is_described_and_its_file_named() -> None:
    page = rendered(hatch_build.long_description(README, "", ""))

    assert "<img" not in page
    assert PICTURES
    assert all(re.search(rf"<em>[^<]+: {re.escape(target)}</em>", page) for target in PICTURES)


def test_with_an_address_every_picture_and_page_is_shown_from_there() -> None:
    page = rendered(hatch_build.long_description(README, "https://files.example/v1/", "https://pages.example/v1"))

    assert re.findall(r'<img[^>]* src="([^"]*)"', page) == [f"https://files.example/v1/{target}" for target in PICTURES]
    assert "https://pages.example/v1/docs/clusters.md#where-rows-live" in targets(page)
    assert all(target.startswith("https://") for target in targets(page))


@pytest.mark.parametrize("text", ["```python\nrows[0](a.md)\n```\n", "[a](#heading)", "[a](https://x.example/a.md)"])
def test_code_headings_and_whole_addresses_stay(text: str) -> None:
    assert hatch_build.long_description(text, "https://a.example", "https://b.example") == text
