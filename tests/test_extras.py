"""The package works without its extras, and what needs one says in one line which to install."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
OWN = {"all", "stack", "test", "dev"}
"""Extras that are made of other extras, and those of the repository itself."""
# Dask needs PyYAML itself. zarr looks for zarrs wherever it is installed, so that one cannot be hidden.
OPTIONAL = {canonicalize_name(Requirement(line).name) for name in EXTRAS.keys() - OWN for line in EXTRAS[name]} - {
    "pyyaml",
    "zarr-clustering",
    "zarrs",
}
BLOCKED = sorted(
    module for module, names in packages_distributions().items() if {canonicalize_name(n) for n in names} & OPTIONAL
)
"""Modules that an installation without extras may lack."""


def python(folder: Path, code: str, *arguments: str, without: list[str]) -> subprocess.CompletedProcess[str]:
    """Run code where modules cannot be imported."""
    block = f"import sys; sys.modules.update(dict.fromkeys({without!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", block + code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def clustering(folder: Path, *arguments: str, without: list[str]) -> subprocess.CompletedProcess[str]:
    return python(folder, "from clustering_flows.__main__ import main; main()", *arguments, without=without)


@pytest.fixture
def folder(field_store: Path, tmp_path: Path) -> Path:
    job = {
        "source": {"store": field_store.name, "variables": ["t"], "sample_dims": ["time", "lat"]},
        "model": {"k": 3},
        "output": {"store": "out"},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    return tmp_path


FITS = """
import numpy as np, xarray as xr, dask.array, clustering as c
rows = np.random.default_rng(0).standard_normal((300, 4))
field = xr.open_zarr("field.zarr", consolidated=False)["t"]
for data in (rows, dask.array.from_array(rows, 100), field, "field.zarr"):
    options = {"sample_dims": ["time", "lat"]} if data is field or data is "field.zarr" else {}
    options |= {"variables": ["t"]} if data is "field.zarr" else {}
    fit = c.fit(data, c.GaussianMixture(2), **options)
    fit.predict(data)
fit.save("model.zarr")
assert c.load_fit("model.zarr").objective == fit.objective
run = c.run("field.zarr", c.KMeans(3), variables=["t"], sample_dims=["time", "lat"], output="run", report=False)
print(run.labels["labels"].shape)
"""


def test_fits_and_jobs_need_no_extra(folder: Path) -> None:
    done = python(folder, FITS, without=BLOCKED)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "(12, 9)\n"


def test_the_command_says_which_extra_installs_it(folder: Path) -> None:
    done = clustering(folder, "--help", without=BLOCKED)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "clustering: the command needs the package 'cyclopts'; pip install 'zarr-clustering[cli]'\n"


REPORT = "drawing the report needs the package 'matplotlib'; pip install 'zarr-clustering[plot]'"


def test_a_report_that_nothing_can_draw_is_refused_before_the_first_pass(folder: Path) -> None:
    done = clustering(folder, "fit", "job.yaml", "--no-prefect", without=["matplotlib"])

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"clustering: {REPORT}, or set output.report to false"
    assert not (folder / "out").exists()

    run = 'import clustering as c; c.run("field.zarr", c.KMeans(3), variables=["t"], output="out")'
    done = python(folder, run, without=["matplotlib"])
    assert done.stderr.splitlines()[-1] == (
        f"clustering.errors.MissingDependencyError: {REPORT}, or set report to false"
    )
    assert not (folder / "out").exists()


def test_jobs_without_a_report_need_nothing_that_draws_one(folder: Path) -> None:
    settings = ("--set", "output.report=false", "--no-prefect")
    done = clustering(folder, "fit", "job.yaml", *settings, without=["matplotlib", "jinja2"])
    assert done.returncode == 0, done.stderr

    done = clustering(folder, "inspect", "job.yaml", "--json", without=["matplotlib"])
    assert json.loads(done.stdout.splitlines()[-1])["faults"][0].startswith(REPORT)

    done = clustering(folder, "report", "out", without=["jinja2"])
    assert (done.returncode, done.stderr) == (2, f"clustering: {REPORT.replace('matplotlib', 'jinja2')}\n")

    done = clustering(folder, "models", "name", "out", "0", "deep", without=["matplotlib"])
    assert done.returncode == 0, done.stderr


def test_a_cluster_is_not_named_where_its_report_could_not_show_the_name(folder: Path) -> None:
    assert clustering(folder, "fit", "job.yaml", "--no-prefect", without=[]).returncode == 0
    done = clustering(folder, "models", "name", "out", "0", "deep", without=["matplotlib"])

    assert (done.returncode, done.stderr) == (2, f"clustering: {REPORT}\n")
    assert not (folder / "out" / "names.json").exists()


def test_every_extra_that_a_message_names_exists() -> None:
    texts = [path.read_text() for name in ("clustering", "flows") for path in (ROOT / name).rglob("*.py")]
    texts += [path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]]
    named = {
        name
        for text in texts
        for found in re.findall(r"zarr-clustering\[([a-z,]+)\]", text)
        for name in found.split(",")
    }

    assert {"all", "cli", "cloud", "plot", "prefect"} <= named <= EXTRAS.keys()


def test_extras_for_users_are_in_all_or_need_a_cluster_or_a_server_or_are_for_exports() -> None:
    (line,) = EXTRAS["all"]

    assert EXTRAS.keys() - Requirement(line).extras - OWN == {
        "slurm",
        "kubernetes",
        "gateway",
        "server",
        "export",
        "geotiff",
    }
