"""The recipe for conda has the names, versions and bounds of the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
TEXT = (ROOT / "conda.recipe" / "recipe.yaml").read_text()
RECIPE = yaml.safe_load(TEXT)
OUTPUTS: dict[str, Any] = {output["package"]["name"]: output for output in RECIPE["outputs"]}
NAMES = {"dask": "dask-core", "docstring-parser": "docstring_parser", "matplotlib": "matplotlib-base"}
"""Names of packages that are others in conda-forge; its `dask` and `matplotlib` bring more than those of pip."""
PIP_ONLY = {"zarrs"}
"""Packages that speed things up, and that the recipe leaves to pip."""


def bounds(lines: list[str]) -> dict[str, SpecifierSet]:
    """Bounds of requirements as pip writes them, by the names of conda."""
    requirements = [Requirement(line) for line in lines]
    return {NAMES.get(one.name, one.name): one.specifier for one in requirements if one.name not in PIP_ONLY}


def bounds_of(output: str, section: str = "run") -> dict[str, SpecifierSet]:
    lines = [line.split() for line in OUTPUTS[output]["requirements"][section] if "${{" not in line]
    return {name: SpecifierSet(limits[0] if limits else "") for name, *limits in lines}


def test_the_core_needs_what_the_project_needs() -> None:
    assert bounds_of("zarr-clustering-core") == bounds(PROJECT["dependencies"])


def test_the_whole_package_is_the_core_with_all_extras_for_users() -> None:
    (line,) = EXTRAS["all"]
    extras = [line for extra in sorted(Requirement(line).extras) for line in EXTRAS[extra]]

    assert bounds_of("zarr-clustering") == bounds(extras)


def test_packages_of_other_clusters_have_the_bounds_of_their_extras() -> None:
    extras = [line for name in ("slurm", "kubernetes", "gateway") for line in EXTRAS[name]]
    wanted = bounds([line for line in extras if not line.startswith("zarr-clustering")])

    assert bounds_of("zarr-clustering-core", "run_constraints") == wanted


def test_versions_and_commands_are_those_of_the_project() -> None:
    core = OUTPUTS["zarr-clustering-core"]
    low, high = re.fullmatch(r">=(\S+),<(\S+)", PROJECT["requires-python"]).groups()
    ((name, target),) = PROJECT["scripts"].items()
    (backend,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]

    assert RECIPE["context"] == {"version": PROJECT["version"], "python_min": low}
    assert core["requirements"]["run"][0] == f"python >=${{{{ python_min }}}},<{high}"
    assert Requirement(backend).specifier == bounds_of("zarr-clustering-core", "host")["hatchling"]
    assert core["build"]["python"]["entry_points"] == [f"{name} = {target}"]
    assert RECIPE["about"]["summary"] == PROJECT["description"]
    assert RECIPE["about"]["license"] == PROJECT["license"]
    assert [RECIPE["about"]["license_file"]] == PROJECT["license-files"]
