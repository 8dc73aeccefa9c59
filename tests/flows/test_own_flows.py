"""A package of the user that is called ``flows`` is never taken for ours, in a command, an import or a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import stack
from prefect.settings import PREFECT_API_URL, temporary_settings
from stack import eventually

from clustering_flows import server

COMMAND = str(Path(sys.executable).parent / "clustering")


@pytest.fixture
def folder(field_store: Path, tmp_path: Path) -> Path:
    """A folder of a user: a package that cannot be imported, a store and a job."""
    package = tmp_path / "flows"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('the package of the user was imported')\n")
    job = {
        "source": {"store": field_store.name, "variables": ["t"], "sample_dims": ["time", "lat"]},
        "model": {"k": 3},
        "output": {"store": "out"},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    return tmp_path


def done(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the folder of the user, whose packages Python finds before all others."""
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ".", **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_package_of_the_user_comes_first(folder: Path) -> None:
    assert "the package of the user was imported" in done(folder, sys.executable, "-c", "import flows").stderr


@pytest.mark.parametrize(
    "command",
    [
        (COMMAND, "--help"),
        (COMMAND, "fit", "job.yaml", "--no-prefect"),
        (sys.executable, "-m", "clustering_flows", "--version"),
        (sys.executable, "-c", "import clustering.run.job, clustering_flows.fit, clustering_flows.server"),
    ],
    ids=["help", "fit", "module", "import"],
)
def test_no_command_and_no_import_takes_it(folder: Path, command: tuple[str, ...]) -> None:
    ended = done(folder, *command)

    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.prefect
@pytest.mark.slow
@pytest.mark.timeout(600)
# Prefect and its libraries raise these warnings. Nothing in this project can prevent them.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_neither_a_flow_nor_a_worker_takes_it(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with stack.server(tmp_path_factory.mktemp("server")) as api, temporary_settings({PREFECT_API_URL: api}):
        flow = done(folder, COMMAND, "fit", "job.yaml", "--prefect", PREFECT_API_URL=api)
        assert flow.returncode == 0, flow.stderr

        server.make_pool("local")
        deploy = (COMMAND, "deploy", "job.yaml", "--pool", "local", "--name", "own", "--set", "output.store=nightly")
        assert done(folder, *deploy, PREFECT_API_URL=api).returncode == 0
        # The processes of the worker start in other folders, so the path has to be absolute.
        command = [*stack.PREFECT, "worker", "start", "--pool", "local"]
        settings = {"PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "1", "PYTHONPATH": str(folder)}
        worker = stack.start(command, folder, **settings)
        try:
            flow_run = stack.run_of("fit/own")
            assert eventually(lambda: stack.state(flow_run), lambda s: s in ("Completed", "Failed", "Crashed")) == (
                "Completed"
            ), stack.message(flow_run)
        finally:
            stack.end(worker)
        first, second = (json.loads((folder / name / "run.json").read_text()) for name in ("out", "nightly"))
        assert first["objective"] == second["objective"]
