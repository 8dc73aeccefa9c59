"""Everything that the documents point to exists: files, headings, make targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = {str(path.relative_to(ROOT)): path for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])}
pages = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


def prose(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Names of the headings, as links have them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pages
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    # Only code is searched, because `make` is also a word.
    for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


@pages
def test_tests_and_modules_named_with_their_folder_exist(page: Path) -> None:
    for name in re.findall(r"`((?:clustering|flows|tests|benchmarks)/[\w/]+\.py)`", page.read_text()):
        assert (ROOT / name).is_file(), name


def test_every_decision_is_in_the_index() -> None:
    index = prose(ROOT / "docs" / "decisions" / "README.md")
    for record in (ROOT / "docs" / "decisions").glob("*.md"):
        assert record.name == "README.md" or f"({record.name})" in index


def test_every_page_is_in_the_list_of_the_site() -> None:
    listed = (ROOT / "docs" / "index.md").read_text().splitlines()
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        assert name in ("index", *listed) or f"{name.rpartition('/')[0]}/*" in listed, name
