"""What is installed: the files of a wheel, and an environment with the package and what it needs, and no extra."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=280, check=False
    )


def built(target: str, source: Path, folder: Path) -> Path:
    """Build a distribution, and return its path."""
    done = run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, cwd=source)
    assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_wheel_holds_two_packages_and_takes_no_name_that_users_take(wheel: Path) -> None:
    files = contents(wheel)
    entry_points = files[f"zarr_clustering-{PROJECT['version']}.dist-info/entry_points.txt"].decode()

    assert {name.split("/")[0] for name in files} == {
        "clustering", "clustering_flows", f"zarr_clustering-{PROJECT['version']}.dist-info"
    }  # fmt: skip
    assert {"clustering/report/page.html", "clustering/report/style.css", "clustering_flows/fit.py"} <= files.keys()
    assert "clustering = clustering_flows.__main__:main" in entry_points


def test_a_wheel_made_of_the_source_distribution_is_the_same(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(built("sdist", ROOT, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("zarr_clustering-*")

    assert contents(built("wheel", source, tmp_path / "wheel")) == contents(wheel)


def needed(lines: Iterable[str]) -> set[str]:
    """Names of the packages that requirements stand for, with all that these need in turn."""
    names: set[str] = set()
    left = [(Requirement(line), "") for line in lines]
    seen = set()
    while left:
        requirement, extra = left.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        names.add(name)
        for wanted in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, wanted))
            left += [(Requirement(line), wanted) for line in requires(name) or ()]
    return names


def environment(folder: Path, names: set[str], wheel: Path) -> Path:
    """Make an environment with packages at the versions and hashes of the lock file, and with a wheel."""
    blocks = re.split(r"^(?=\S)", (ROOT / "requirements.lock").read_text(), flags=re.M)
    lock = folder / "requirements.txt"
    lock.write_text("".join(block for block in blocks if re.split(r"[\[=]", block)[0] in names))
    assert run(sys.executable, "-m", "venv", "--without-pip", folder / "venv").returncode == 0
    python = folder / "venv" / "bin" / "python"
    uv = (Path(sys.executable).parent / "uv", "pip", "install", "--quiet", "--python", python, "--no-deps")
    locked = (*uv, "--require-hashes", "-r", lock)
    # `make` has filled the cache of uv, so that no index is asked. The home folder of the tests is empty.
    home = {"HOME": pwd.getpwuid(os.getuid()).pw_dir}
    done = run(*locked, "--offline", **home)
    if done.returncode != 0:
        done = run(*locked, **home)
    if done.returncode != 0:
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
        done = run(*pip, "--require-hashes", "-r", lock, **home)
    assert done.returncode == 0, done.stderr
    assert run(*uv, "--offline", wheel).returncode == 0
    return python


JOB = """
import clustering as c
run = c.run("field.zarr", c.KMeans(3), variables=["t"], sample_dims=["time", "lat"], output="run", report=False)
print(run.labels["labels"].shape, c.fit(run.labels["labels"].values.astype(float), c.KMeans(2)).centers.shape)
"""


@pytest.mark.slow
def test_the_package_works_with_what_it_needs_alone(wheel: Path, field_store: Path, tmp_path: Path) -> None:
    names = needed(PROJECT["dependencies"])
    assert not names & {"matplotlib", "cyclopts", "rich", "jinja2", "prefect", "distributed"}
    python = environment(tmp_path, names, wheel)

    done = run(python, "-c", JOB, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(12, 9) (2, 9)\n"
    command = run(python.parent / "clustering", "--help", cwd=tmp_path)
    assert (command.returncode, command.stderr) == (
        2, "clustering: the command needs the package 'cyclopts'; pip install 'zarr-clustering[cli]'\n"
    )  # fmt: skip


@pytest.mark.slow
def test_two_extras_make_the_command_and_its_report(wheel: Path, field_store: Path, tmp_path: Path) -> None:
    extras = PROJECT["optional-dependencies"]
    python = environment(tmp_path, needed([*PROJECT["dependencies"], *extras["cli"], *extras["plot"]]), wheel)
    job = {
        "source": {"store": "field.zarr", "variables": ["t"], "sample_dims": ["time", "lat"]},
        "model": {"k": 3},
        "output": {"store": "out"},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))

    done = run(python.parent / "clustering", "fit", "job.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    command = run(python.parent / "clustering", "fit", "job.yaml", "--prefect", cwd=tmp_path)
    assert command.returncode == 2
    assert "pip install 'zarr-clustering[prefect]'" in command.stderr
