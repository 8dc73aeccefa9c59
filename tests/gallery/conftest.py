"""The stores of the lecture, made once, and what each figure shows, computed once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from docs.gallery.figures import FIGURES
from docs.gallery.jobs import make_stores


@pytest.fixture(scope="session")
def lecture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands of the lecture's configs run."""
    folder = tmp_path_factory.mktemp("lecture")
    with contextlib.chdir(folder):
        make_stores()
    return folder


@pytest.fixture(scope="session")
def shown(lecture_folder: Path) -> Callable[[str], Any]:
    """What a figure shows, by the name of its file."""
    computed: dict[str, Any] = {}

    def compute(name: str) -> Any:
        if name not in computed:
            with contextlib.chdir(lecture_folder):
                computed[name] = FIGURES[name].compute()
        return computed[name]

    return compute
