"""The version of the package is the same in all files that name it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import clustering

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_package_has_the_version_of_the_project() -> None:
    assert clustering.__version__ == VERSION


@pytest.mark.parametrize("name", ["docker-compose.yml", ".env.example"])
def test_the_image_has_the_version_of_the_project(name: str) -> None:
    assert set(re.findall(r"zarr-clustering:(\d[\w.]*)", (ROOT / name).read_text())) == {VERSION}


def test_the_citation_is_of_this_version_and_license() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert (citation["version"], citation["license"]) == (VERSION, project["license"])
