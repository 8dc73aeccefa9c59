"""The code in the documents: Python runs, configs are accepted, and commands and options exist.

Tutorials are run by `make docs`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

import clustering as c
from clustering.config import JobConfig, check_config
from clustering.models.registry import model_options
from clustering_flows.cli import app
from clustering_flows.loading import load_config

ROOT = Path(__file__).parent.parent
PATHS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in PATHS}
TUTORIALS = [name for name in TEXTS if name.startswith("docs/tutorials/")]
FRAGMENTS = {"docs/adding-a-model.md", "CONTRIBUTING.md"}
"""Pages whose Python is a part of a model, or is to be measured."""
BEFORE = """
import numpy as np, xarray as xr
import clustering as c
ds = xr.open_zarr("ocean.zarr", consolidated=False).load()[["temp"]]
rows = np.random.default_rng(0).normal(size=(60, 3)) + 4 * (np.arange(60) % 3)[:, None]
data, other = rows, xr.open_zarr("today.zarr", consolidated=False).load()
"""
"""What examples take for granted."""
VARIABLES = ["temp", "salt"]


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", TEXTS[page], flags=re.M | re.S)
    return [textwrap.dedent(text) for _, text in found]


def pages(language: str, without: set[str] = frozenset()) -> Any:
    return pytest.mark.parametrize("page", [page for page in TEXTS if blocks(page, language) and page not in without])


def make_stores(folder: Path) -> None:
    rng = np.random.default_rng(0)
    depth, lat, lon = np.array([5.0, 100.0, 400.0]), np.linspace(-40.0, 40.0, 5), np.arange(0.0, 360.0, 60.0)
    kind = np.arange(30).reshape(5, 6) % 2
    fields = {
        name: (("time", "depth", "lat", "lon"), 10.0 * kind + rng.normal(size=(2, 3, 5, 6))) for name in VARIABLES
    }
    time = np.array(["2024-01-01", "2024-07-01"], "datetime64[ns]")
    ocean = xr.Dataset(fields, {"time": time, "depth": depth, "lat": lat, "lon": lon})
    for name in ("ocean", "today"):
        ocean.to_zarr(folder / f"{name}.zarr", zarr_format=3, consolidated=False)
    pixels = rng.integers(0, 255, (200, 300, 3)).astype(np.uint8)
    xr.Dataset({"image": (("y", "x", "channel"), pixels)}).to_zarr(
        folder / "mosaic.zarr", zarr_format=3, consolidated=False
    )


def make_runs(folder: Path) -> None:
    ocean = {"variables": VARIABLES, "feature_dims": ["depth"], "output": folder / "runs" / "ocean"}
    c.run(folder / "ocean.zarr", c.KMeans(2), **ocean, report=False)
    pixels = np.random.default_rng(0).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    photo = xr.DataArray(pixels, dims=("y", "x", "channel"), name="image")
    c.run(photo, c.KMeans(3), feature_dims=["channel"], output=folder / "runs" / "photo", report=False)


def run(code: str, folder: Path) -> str:
    command, environment = [sys.executable, "-c", code], {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pages("python", without={"README.md", "docs/quickstart.md", *FRAGMENTS})
def test_python_runs_from_the_first_block_to_the_last(page: str, tmp_path: Path) -> None:
    code = "\n".join(blocks(page, "python"))
    make_stores(tmp_path)
    if "runs/" in code and "c.run(" not in code:
        make_runs(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    run(BEFORE + code, tmp_path)

    # Nothing hidden is left beside what a page names.
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") and path.suffix != ".json"]
    assert (
        page != "docs/python.md"
        or {"labels.zarr", "runs", "model.zarr"} <= {p.name for p in tmp_path.iterdir()} - before
    )


def test_the_quickstart_goes_from_a_store_to_labels(tmp_path: Path) -> None:
    page = "docs/quickstart.md"
    draw, read, load = blocks(page, "python")
    (config,) = blocks(page, "yaml")
    (tmp_path / "job.yaml").write_text(config)
    run(draw, tmp_path)
    lines = [words for text in blocks(page, "sh") for words in commands(text)]
    assert [words[0] for words in lines] == ["ingest", "inspect", "fit", "predict", "select-k"]
    # The first converts a file of the reader's, and the last ones need other data or time.
    for words in lines[1:3]:
        command = [sys.executable, "-m", "clustering_flows", *words]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)

    said = run(read + load, tmp_path)
    assert "('lat', 'lon')" in said
    # The planted climates are found: means and ranges of `draw.py`.
    (july,) = re.findall(r"\[(.*)\]", said)
    assert sorted(map(float, july.split())) == pytest.approx([286, 292, 296, 301], abs=0.5)
    assert (tmp_path / "runs" / "air" / "report.html").is_file()


@pages("yaml")
def test_configs_are_accepted(page: str) -> None:
    for text in blocks(page, "yaml"):
        content = yaml.safe_load(text)
        if content is None or content.keys() == {"distributed"}:
            continue
        if content.keys() <= JobConfig.model_fields["compute"].annotation.model_fields.keys():
            content = {"compute": content}
        needed = {"source": {"store": "a.zarr"}, "output": {"store": "out"}}
        check_config({**content, **{name: {**part, **content.get(name, {})} for name, part in needed.items()}})


def test_the_config_explained_names_every_section() -> None:
    content = yaml.safe_load(blocks("docs/config.md", "yaml")[1])

    assert set(content) == set(JobConfig.model_fields)


def commands(text: str) -> list[list[str]]:
    """Words of the commands of a block, without the name of the program."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if re.match(r"(\$ )?clustering ", line)]
    return [words[words.index("clustering") + 1 :] for words in found]


@pages("(?:sh|console)")
def test_commands_exist_with_their_options(page: str, tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("source: {store: a.zarr}\noutput: {store: out}\n")
    for text in blocks(page, "(?:sh|console)"):
        for words in commands(text):
            app.parse_args(words, exit_on_error=False, print_error=False)
            changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            load_config(config, [change for change in changes if "…" not in change])


@pytest.mark.parametrize("page", TEXTS)
def test_options_exist(page: str) -> None:
    sections = "|".join(JobConfig.model_fields)
    # Files such as `model.zarr` and calls such as `fit.predict()` look alike, and `fit.centers` is of Python.
    for section, name in re.findall(rf"`({sections})\.(?!zarr\b)(\w+)\b(?!\()", TEXTS[page]):
        known = {
            *JobConfig.model_fields[section].annotation.model_fields,
            *(model_options() if section == "model" else ()),
        }
        assert name in known or (section == "fit" and hasattr(c.Fit, name)), f"{section}.{name}"


@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_ends_with_the_lines_for_data_of_ones_own(page: str) -> None:
    assert "{code-cell}" in TEXTS[page]
    last = TEXTS[page].rpartition("\n## ")[2]

    assert "own" in last.splitlines()[0]
    assert "```yaml" in last
    assert "clustering fit" in last
