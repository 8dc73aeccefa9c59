from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import distributed
import numpy as np
import pytest
import threadpoolctl
import xarray as xr

import clustering
from clustering.errors import ConfigError, DataError, ExecutionError, MissingDependencyError
from clustering.execution.dask_clusters import available_processors
from clustering.execution.engine import connect

QUIET: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
IN_PROCESS: dict[str, Any] = {**QUIET, "processes": False, "protocol": "tcp"}
MANY_PASSES: dict[str, Any] = {"sample_rows": 100, "restarts": 1, "init": "random", "max_iterations": 9}


@pytest.fixture
def rows_store(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "rows.zarr"
    values = xr.Dataset({"x": (("row", "feature"), rng.standard_normal((6000, 4)))})
    values.to_zarr(path, consolidated=False, zarr_format=3, encoding={"x": {"chunks": (500, 4)}})
    return path


def fit(store: Path, **options: Any) -> clustering.Fit:
    return clustering.fit(
        store, clustering.KMeans(6), sample_dims=["row"], block_bytes=16_000, **MANY_PASSES, **options
    )


@pytest.fixture(scope="module")
def two_workers() -> Iterator[distributed.Client]:
    """A client whose cluster restarts every worker that dies."""
    with (
        distributed.LocalCluster(n_workers=2, **QUIET) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize(
    "cluster",
    ["thread", "", None, 4, {}, {"adress": "tcp://x:1"}, {"address": "tcp://x:1", "port": 2}],
    ids=["misspelt", "empty", "none", "number", "empty mapping", "misspelt key", "too many keys"],
)
def test_an_unknown_cluster_is_refused_with_what_is_allowed(cluster: Any) -> None:
    with pytest.raises(ConfigError, match="allowed: synchronous, threads, local, ") as caught:
        connect(cluster).__enter__()
    assert repr(cluster) in str(caught.value)


def test_threads_follow_the_processors_by_default() -> None:
    with connect() as engine:
        assert (engine.name, engine.threads) == ("threads", available_processors())
    assert available_processors() == len(os.sched_getaffinity(0))


def test_threads_end_with_the_connection() -> None:
    before = set(threading.enumerate())
    with connect("threads", 3) as engine:
        engine.compute({"a": (int,)}, "a")
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("cluster", ["synchronous", "threads"])
def test_a_task_has_one_blas_thread(cluster: str) -> None:
    def blas_threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with connect(cluster) as engine:
            assert engine.compute({"a": (blas_threads,)}, "a") == {1}
        assert blas_threads() == {2}


def test_two_connections_have_sessions_of_their_own() -> None:
    with connect() as one, connect() as other:
        assert one.session != other.session


def test_peak_memory_is_in_bytes() -> None:
    with connect() as engine:
        expected = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        assert expected <= engine.peak_rss() < 1.1 * expected


def test_a_cluster_without_its_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'zarr-clustering\[distributed\]'"):
        connect("local").__enter__()


def test_an_address_where_nobody_listens_is_named() -> None:
    address = f"tcp://127.0.0.1:{closed_port()}"
    with pytest.raises(ExecutionError, match="no Dask scheduler answers") as caught:
        connect({"address": address}, wait_seconds=1).__enter__()
    assert address in str(caught.value)


@pytest.mark.parametrize("address", ["", "scheduler", "http://127.0.0.1:1"], ids=["empty", "no port", "web address"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(ExecutionError, match="no Dask scheduler answers") as caught:
        connect({"address": address}, wait_seconds=1).__enter__()
    assert repr(address) in str(caught.value)


@pytest.mark.parametrize("present", [0, 1], ids="{} workers".format)
def test_a_scheduler_without_enough_workers_is_named(present: int) -> None:
    with distributed.LocalCluster(n_workers=present, **IN_PROCESS) as cluster:
        address = cluster.scheduler_address
        with pytest.raises(ExecutionError, match=f"has {present} of 2 workers") as caught:
            connect({"address": address}, 2, wait_seconds=1).__enter__()
    assert address in str(caught.value)


@pytest.mark.slow
def test_a_scheduler_that_goes_away_during_a_fit_is_an_execution_error(rows_store: Path) -> None:
    with distributed.LocalCluster(n_workers=1, **IN_PROCESS) as cluster:
        address = cluster.scheduler_address

        def close_after_three(record: clustering.api.PassRecord) -> None:
            if record.iteration == 3:
                cluster.close()

        with pytest.raises(ExecutionError, match="lost the work") as caught:
            fit(rows_store, cluster={"address": address}, on_pass=close_after_three)
    assert address in str(caught.value)
    # Later computations of this process with Dask are not sent to the scheduler that is gone.
    assert dask.compute(dask.delayed(abs)(-1)) == (1,)


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, MANY_PASSES["max_iterations"]], ids=["between passes", "after the last pass"])
def test_a_killed_worker_leaves_the_bits_alone(at: int, rows_store: Path, two_workers: distributed.Client) -> None:
    two_workers.wait_for_workers(2)
    victim = next(iter(two_workers.run(os.getpid).values()))

    def kill_one(record: clustering.api.PassRecord) -> None:
        if record.iteration == at:
            os.kill(victim, signal.SIGKILL)

    calm = fit(rows_store, cluster="synchronous")
    shaken = fit(rows_store, cluster=two_workers, on_pass=kill_one)
    assert calm.iterations >= 9
    assert shaken.history.tobytes() == calm.history.tobytes()
    assert shaken.centers.values.tobytes() == calm.centers.values.tobytes()


def refuse() -> None:
    raise DataError("no row takes part")


def test_a_clients_cluster_is_used_as_it_is_and_left_open(rows_store: Path) -> None:
    with distributed.LocalCluster(n_workers=1, **{**IN_PROCESS, "threads_per_worker": 3}) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            with connect(client) as engine:
                assert (engine.threads, engine.workers) == (3, 1)
                # An error of a task reaches the caller unchanged.
                with pytest.raises(DataError, match="no row takes part"):
                    engine.compute({"a": (refuse,)}, "a")
            assert client.submit(int, 3).result() == 3


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_small_memory_budget_suffices_for_local_workers_and_they_end(rows_store: Path) -> None:
    small = 16 * 2**20
    plain = fit(rows_store, cluster="synchronous", memory=small)
    with connect("local", 1, small) as engine:
        pids = list(engine.client.run(os.getpid).values())
        assert len(pids) == 1
        assert fit(rows_store, cluster=engine.client, memory=small).history.tobytes() == plain.history.tobytes()
    assert not Path(f"/proc/{pids[0]}").exists()


@pytest.mark.slow
def test_two_local_clusters_run_side_by_side() -> None:
    with connect("local", 1) as one, connect("local", 1) as other:
        assert one.compute({"a": (abs, -1)}, "a") == other.compute({"a": (abs, -1)}, "a")


def test_an_error_of_a_task_is_not_called_a_lost_cluster() -> None:
    with pytest.raises(ZeroDivisionError), connect("threads", 1) as engine:
        engine.compute({"a": (divmod, 1, 0)}, "a")
