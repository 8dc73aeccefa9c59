"""The folder that a make target gives to pytest holds all tests of the suite."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("suite", ["browser", "chaos", "compose", "slurm"])
def test_a_suite_lies_in_the_folder_of_its_target(suite: str) -> None:
    recipe = re.search(rf"^{suite}-test: .*\n\t(.+)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert recipe is not None
    folder = re.search(r"tests/\w+", recipe[1])
    assert folder is not None
    mark = re.compile(rf"pytest\.mark\.{suite}\b")
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if mark.search(path.read_text())]
    assert marked
    assert all(path.is_relative_to(ROOT / folder[0]) for path in marked)
