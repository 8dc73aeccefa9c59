from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clustering.config import check_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = blocks("python")
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    # Half of 18 × 36 places are three units away from the others.
    assert "converged" in done.stdout
    assert "('lat', 'lon')" in done.stdout
    assert "324" in done.stdout
    assert "(2, 24)" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_config_has_six_lines_and_is_that_of_the_docs() -> None:
    (text,) = blocks("yaml")

    assert len(text.splitlines()) == 6
    assert check_config(yaml.safe_load(text)).model.k == 8
    assert text in (ROOT / "docs" / "config.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_config_writes_to_a_folder_that_is_thrown_away_or_to_the_store_of_the_stack(path: Path) -> None:
    prefix = "s3://clustering/" if path.name == "compose.yaml" else "demo/"

    assert check_config(yaml.safe_load(path.read_text())).output.store.startswith(prefix)


@pytest.mark.parametrize("target", re.findall(r"!\[[^]]*\]\(([^)]+)\)", README))
def test_pictures_exist(target: str) -> None:
    assert (ROOT / target).is_file()


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)) - {"test-", "and"}:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
