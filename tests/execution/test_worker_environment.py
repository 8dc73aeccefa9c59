from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import distributed
import pytest
import threadpoolctl
from daskworkers import IN_PROCESS, process, scheduler, worker

from clustering.errors import ExecutionError
from clustering.execution.address import read_scheduler_file
from clustering.execution.engine import connect
from clustering.execution.worker_environment import one_blas_thread_on_workers


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with scheduler() as scheduler_address:
        yield scheduler_address


def refusal(address: str) -> str:
    with pytest.raises(ExecutionError) as caught:
        connect({"address": address}, wait_seconds=120).__enter__()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def claim(folder: Path, package: str, version: str) -> Path:
    """Make an import folder in which a package seems to be installed in another version."""
    about = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    return folder


def test_workers_like_this_process_are_taken(address: str) -> None:
    with worker(address), connect({"address": address}, wait_seconds=120) as engine:
        assert engine.compute({"a": (abs, -1)}, "a") == 1


@pytest.mark.parametrize("package", ["zarr-clustering", "numba", "distributed"])
def test_a_worker_with_another_version_is_named(package: str, address: str, tmp_path: Path) -> None:
    with worker(address, path=claim(tmp_path, package, "0.0.9")):
        text = refusal(address)
    assert text.startswith("the worker tcp://127.0.0.1:")
    assert f"of the cluster at {address} has {package} 0.0.9 and this process " in text
    assert "install the same versions" in text


def test_a_worker_that_cannot_import_this_package_is_named(address: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['clustering'] = None\n")
    with worker(address, path=tmp_path):
        text = refusal(address)
    assert "cannot import clustering (No module named " in text
    assert "install zarr-clustering on the workers" in text


def test_a_scheduler_of_another_version_is_named(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    with process("dask_scheduler", f"--scheduler-file={file}", path=claim(tmp_path, "distributed", "2020.1.0")):
        with worker(read_scheduler_file(str(file), 120)):
            with pytest.raises(ExecutionError, match=r"the scheduler of the cluster .* has distributed 2020\.1\.0 and"):
                connect({"scheduler_file": str(file)}, wait_seconds=120).__enter__()


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


def blas_threads_of_a_worker() -> list[set[int]]:
    """BLAS threads of a worker before, during and after their limit."""
    with distributed.LocalCluster(n_workers=1, **IN_PROCESS) as local, distributed.Client(local) as client:
        thread_counts = [set.union(*client.run(blas_threads).values())]
        with one_blas_thread_on_workers(client), one_blas_thread_on_workers(client):
            thread_counts.append(set.union(*client.run(blas_threads).values()))
        return [*thread_counts, set.union(*client.run(blas_threads).values())]


@pytest.mark.slow
def test_workers_without_a_nanny_have_one_blas_thread_too_and_get_theirs_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # This runs in a process of its own, as the present one may be limited to one thread.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(variable, "2")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(blas_threads_of_a_worker).result() == [{2}, {1}, {2}]
