from __future__ import annotations

import json
import os
import subprocess
import sys
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import dask
import distributed
import pytest
from daskworkers import IN_PROCESS, scheduler

from clustering.errors import ClusteringError, ConfigError, ExecutionError, MissingDependencyError
from clustering.execution.dask_clusters import SETTINGS, environment, worker_memory
from clustering.execution.engine import connect
from clustering.execution.gateway import gateway
from clustering.execution.kubernetes import kubernetes
from clustering.execution.slurm import slurm

LOCAL = "distributed.LocalCluster"


def refusal(cluster: Any, kind: type[ClusteringError], workers: int | None = None) -> str:
    with pytest.raises(kind) as caught:
        connect(cluster, workers, wait_seconds=1).__enter__()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_settings_are_those_that_dask_reads_from_the_environment() -> None:
    code = "import json, sys, dask, distributed; print(json.dumps([dask.config.get(n) for n in sys.argv[1:]]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *SETTINGS],
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == list(SETTINGS.values())


def test_every_setting_is_one_that_dask_knows() -> None:
    for name in SETTINGS:
        assert dask.config.get(name, "unknown") != "unknown"


def test_workers_of_this_machine_have_the_settings_and_room_for_their_budget() -> None:
    def settings() -> list[Any]:
        return [dask.config.get(name) for name in SETTINGS]

    before = settings()
    with connect("local", 1, 2**20) as engine:
        assert list(engine.client.run(settings).values()) == [list(SETTINGS.values())]
        assert engine.client.run_on_scheduler(settings) == list(SETTINGS.values())
        (about,) = engine.client.scheduler_info(n_workers=-1)["workers"].values()
        assert about["memory_limit"] == worker_memory(2**20)
        assert list(engine.client.run(os.environ.get, "OMP_NUM_THREADS").values()) == ["1"]
        assert engine.dashboard is not None
    assert settings() == before


def test_any_class_that_a_client_takes_is_a_cluster() -> None:
    with connect({"class": LOCAL, "options": IN_PROCESS}, 2) as engine:
        assert (engine.name, engine.workers, engine.threads) == (LOCAL, 2, 2)
        cluster = engine.client.cluster
        assert engine.compute({"a": (abs, -3)}, "a") == 3
    assert cluster.status.name == "closed"


def test_a_class_may_give_an_address_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours.py").write_text("class Ours(str):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with scheduler(1) as address, connect({"class": "ours.Ours", "options": {"object": address}}) as engine:
        assert engine.compute({"a": (abs, -3)}, "a") == 3


def test_a_cluster_of_a_class_is_closed_in_an_error_too() -> None:
    clusters: list[Any] = []

    def fail() -> None:
        with connect({"class": LOCAL, "options": {**IN_PROCESS, "n_workers": 1}}) as engine:
            clusters.append(engine.client.cluster)
            engine.compute({"a": (divmod, 1, 0)}, "a")

    with pytest.raises(ZeroDivisionError):
        fail()
    assert clusters[0].status.name == "closed"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nowhere.Cluster", "No module named 'nowhere'"),
        ("distributed.LocalClutter", "has no attribute 'LocalClutter'"),
        ("LocalCluster", "give the full name, such as package.Class"),
        ("", "give the full name"),
        (".Cluster", "cannot be imported"),
    ],
    ids=["no module", "no class", "short", "empty", "relative"],
)
def test_a_class_that_cannot_be_imported_is_named(path: str, why: str) -> None:
    text = refusal({"class": path}, ConfigError)
    assert f"cluster.class {path!r} cannot be imported" in text
    assert why in text


def test_an_option_that_a_class_does_not_take_is_named_with_the_nearest() -> None:
    text = refusal({"class": "distributed.SpecCluster", "options": {"worker_": {}}}, ConfigError)
    assert "distributed.SpecCluster takes no option 'worker_'; did you mean 'worker" in text


def test_an_option_that_a_class_refuses_is_reported() -> None:
    text = refusal({"class": "distributed.SSHCluster", "options": {"hosts": []}}, ExecutionError)
    assert text.startswith("the cluster distributed.SSHCluster does not start: ")
    assert "check its options" in text


def test_a_class_that_gives_nothing_for_a_client_is_reported() -> None:
    text = refusal({"class": "collections.OrderedDict"}, ExecutionError)
    assert text.startswith("the cluster collections.OrderedDict does not start: ")


def test_a_cluster_of_a_class_without_workers_is_reported() -> None:
    text = refusal({"class": LOCAL, "options": {**IN_PROCESS, "n_workers": 0}}, ExecutionError)
    assert f"the cluster {LOCAL} has 0 of 1 workers after" in text


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("slurm", {"quue": "main"}, "unknown key 'quue' of cluster.slurm; did you mean 'queue'?"),
        (
            "kubernetes",
            {"image": "a", "namspace": "b"},
            "unknown key 'namspace' of cluster.kubernetes; did you",
        ),
        ("kubernetes", {}, "key 'image' of cluster.kubernetes is missing"),
        ("gateway", {"password": "hunter2"}, "unknown key 'password' of cluster.gateway; allowed: address, "),
        ("slurm", None, "cluster.slurm is None; names and values are needed: cores, "),
        ("slurm", {"runner": True, "cores": 2}, "unknown key 'runner' of cluster.slurm"),
    ],
    ids=["slurm", "kubernetes", "missing", "gateway", "nothing", "runner with jobs"],
)
def test_options_of_a_kind_are_checked(kind: str, options: Any, said: str) -> None:
    text = refusal({kind: options}, ConfigError)
    assert said in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("cluster", "module", "extra"),
    [
        ("local", "distributed", "distributed"),
        ({"address": "tcp://127.0.0.1:1"}, "distributed", "distributed"),
        ({"slurm": {}}, "dask_jobqueue", "slurm"),
        ({"kubernetes": {"image": "a"}}, "dask_kubernetes.operator", "kubernetes"),
        ({"gateway": {}}, "dask_gateway", "gateway"),
    ],
    ids=["local", "address", "slurm", "kubernetes", "gateway"],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    cluster: Any, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert refusal(cluster, MissingDependencyError).endswith(f"pip install 'zarr-clustering[{extra}]'")


@pytest.mark.parametrize("start", [slurm, kubernetes, gateway])
def test_kinds_take_their_options_by_name(start: Any) -> None:
    kinds = [p.kind for p in signature(start).parameters.values()]
    assert kinds == [Parameter.POSITIONAL_OR_KEYWORD, *[Parameter.KEYWORD_ONLY] * (len(kinds) - 1)]


def test_a_client_is_waited_for_like_any_other() -> None:
    with distributed.LocalCluster(n_workers=0, **IN_PROCESS) as local, distributed.Client(local) as client:
        assert "the cluster of the client has 0 of 1 workers" in refusal(client, ExecutionError)
