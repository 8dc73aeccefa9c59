from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from clustering_flows.cli import run


@pytest.fixture
def config(tmp_path: Path, blobs: np.ndarray) -> Path:
    """A config that compares numbers of clusters of four groups of rows."""
    store = tmp_path / "rows.zarr"
    xr.Dataset({"x": (("row", "feature"), blobs)}).to_zarr(store, consolidated=False, zarr_format=3)
    content = {
        "source": {"store": str(store), "variables": ["x"], "sample_dims": ["row"]},
        "select": {"k": "2..6"},
        "output": {"store": str(tmp_path / "out"), "report": False},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_command_prints_a_table_the_choice_and_a_summary(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["select-k", str(config), "--no-prefect", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["k", "cost"]
    chosen = [line for line in lines if line.startswith("* ")]
    assert len(chosen) == 1
    assert chosen[0].split()[1] == "4"
    assert "choice     k = 4" in lines
    assert json.loads(lines[-1])["recommended"] == {"k": 4}
    assert (config.parent / "out" / "model.zarr").is_dir()


def test_no_clear_answer_is_a_success(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The best is at an end of the range.
    assert run(["select-k", str(config), "--no-prefect", "--set", "select.k=2..4"]) == 0
    out = capsys.readouterr().out
    assert "choice     no clear answer" in out
    assert "compare larger ones" in out
    assert not (config.parent / "out" / "run.json").exists()
    assert (config.parent / "out" / "selection.json").is_file()


def test_a_failed_choice_is_a_line_of_the_table(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--set", "select.k=[3, 4, 5, 900]", "--set", "select.criteria=[silhouette]"]
    assert run(["select-k", str(config), "--no-prefect", *options]) == 0
    assert "900  " in (out := capsys.readouterr().out)
    assert "failed: k is 900 and the data have 600 distinct rows" in out


def test_another_choice_is_published_on_request_twice_in_a_row(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in (5, 3):
        options = ["--set", "select.criteria=[silhouette]", "--set", "output.overwrite=true"]
        assert run(["select-k", str(config), "--no-prefect", *options, "--publish", f"k={k}"]) == 0
        assert f"published  k = {k}, on request" in capsys.readouterr().out
        assert json.loads((config.parent / "out" / "run.json").read_text())["k"] == k


@pytest.mark.parametrize("publish", ["five", "k=", "k=5,", "{k", "5.5"])
def test_a_request_that_is_no_choice_is_refused(config: Path, capsys: pytest.CaptureFixture[str], publish: str) -> None:
    assert run(["select-k", str(config), "--publish", publish]) == 2
    assert "allowed: recommended, none, or a choice such as k=5 or k=5,covariance=full" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["select.k=2...5"], 2, "select.k"),
        (["select.k=[]"], 2, "select.k"),
        (["select.ks=[2]"], 2, "did you mean 'k'"),
        (["select.covariance=[full]"], 2, "kmeans has no option 'covariance'"),
        (["select.publish=9"], 2, "select.k does not hold it"),
        (["select.criteria=[silhouete]"], 2, "select.criteria"),
        (["fit.init=labels"], 2, "fit.init is 'labels', which has one number of clusters"),
        (["select.k=[700, 900]"], 1, "k is 700 and the data have 600 distinct rows"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(
    config: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, message: str
) -> None:
    overrides: list[Any] = [part for option in options for part in ("--set", option)]
    assert run(["select-k", str(config), "--no-prefect", *overrides]) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("clustering: ")
    assert message in error


def test_a_second_sweep_needs_leave_to_replace_the_first(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["select-k", str(config), "--no-prefect", "--set", "select.criteria=[silhouette, davies_bouldin]"]
    assert run(command) == 0
    assert run(command) == 2
    assert "set output.overwrite to true" in capsys.readouterr().err
    assert run([*command, "--set", "output.overwrite=true"]) == 0
