from __future__ import annotations

import json
from inspect import Parameter, signature
from typing import Any

import pytest

from clustering.cluster_options import AddressCluster, GatewayOptions, KubernetesOptions, SlurmOptions
from clustering.config import JobConfig, check_config
from clustering.errors import ConfigError
from clustering.execution.address import connect_scheduler
from clustering.execution.dask_clusters import available_processors
from clustering.execution.gateway import gateway
from clustering.execution.kubernetes import kubernetes
from clustering.execution.slurm import slurm
from clustering.run.inspect import workers_of

LEAST: dict[str, Any] = {"source": {"store": "in.zarr"}, "output": {"store": "out"}}
FORMS = [
    "threads",
    "synchronous",
    "local",
    {"address": "tcp://scheduler:8786"},
    {"address": "tls://scheduler:8786", "ca_file": "ca.pem", "cert_file": "cert.pem", "key_file": "key.pem"},
    {"scheduler_file": "scheduler.json"},
    {"slurm": {}},
    {"slurm": {"cores": 8, "processes": 2, "queue": "batch", "walltime": "02:00:00", "directives": ["--nice"]}},
    {"slurm": {"runner": True}},
    {"kubernetes": {"image": "a/b:1"}},
    {"kubernetes": {"image": "a/b:1", "resources": {"limits": {"cpu": "2"}}, "secrets": ["bucket"]}},
    {"gateway": {"address": "https://gateway.example", "auth": "jupyterhub", "options": {"worker_cores": 2}}},
    {"class": "dask_jobqueue.PBSCluster", "options": {"cores": 1, "memory": "4GB"}},
]


def configured(cluster: Any, **compute: Any) -> JobConfig:
    return check_config({**LEAST, "compute": {"cluster": cluster, **compute}})


def refusal(cluster: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        configured(cluster)
    text = str(caught.value)
    assert "\n" not in text
    assert not {"pydantic", "http", "Config", "validation"} & set(text.split())
    return text


@pytest.mark.parametrize("cluster", FORMS, ids=str)
def test_a_cluster_is_passed_on_as_connect_takes_it(cluster: Any) -> None:
    assert configured(cluster).cluster == cluster


@pytest.mark.parametrize("cluster", FORMS, ids=str)
def test_a_config_goes_through_json_as_it_is(cluster: Any) -> None:
    config = configured(cluster)
    assert JobConfig.model_validate(json.loads(config.model_dump_json())) == config
    assert JobConfig.model_validate(config.model_dump(mode="json")) == config


def test_where_passes_run_does_not_change_what_a_run_is() -> None:
    assert len({json.dumps(configured(cluster, workers=3, wait_seconds=5).result_keys) for cluster in FORMS}) == 1


def test_a_section_whose_keys_are_commented_out_has_the_defaults() -> None:
    assert configured({"slurm": None}) == configured({"slurm": {}})


def test_numbers_of_kubernetes_may_be_written_as_numbers() -> None:
    config = configured({"kubernetes": {"image": "a", "resources": {"limits": {"cpu": 2}}, "env": {"N": 1}}})
    assert config.cluster == {"kubernetes": {"image": "a", "resources": {"limits": {"cpu": "2"}}, "env": {"N": "1"}}}


@pytest.mark.parametrize(
    ("model", "start"),
    [
        (SlurmOptions, slurm),
        (KubernetesOptions, kubernetes),
        (GatewayOptions, gateway),
        (AddressCluster, connect_scheduler),
    ],
    ids=["slurm", "kubernetes", "gateway", "address"],
)
def test_a_config_has_the_keys_and_defaults_of_the_library(model: Any, start: Any) -> None:
    taken = {p.name: p.default for p in signature(start).parameters.values() if p.kind is Parameter.KEYWORD_ONLY}
    fields = {name: field for name, field in model.model_fields.items() if name != "runner"}
    assert list(fields) == list(taken)
    for name, field in fields.items():
        if not field.is_required():
            # An empty default may be None on one side and an empty collection on the other.
            assert (field.get_default(call_default_factory=True) or None) == (taken[name] or None)


def test_every_key_is_described_for_forms() -> None:
    schema = JobConfig.model_json_schema()["$defs"]
    for name in ("AddressCluster", "SlurmOptions", "KubernetesOptions", "GatewayOptions", "ClassCluster"):
        assert all(field["description"] for field in schema[name]["properties"].values())
    assert "1800" in schema["ComputeOptions"]["properties"]["wait_seconds"]["description"]


MISTAKES = {
    "kind": ({"slrum": {}}, "unknown key 'compute.cluster.slrum'; did you mean 'slurm'?"),
    "address": ({"adress": "tcp://x:1"}, "unknown key 'compute.cluster.adress'; did you mean 'address'?"),
    "beside an address": (
        {"address": "tcp://x:1", "ca_fil": "a"},
        "unknown key 'compute.cluster.ca_fil'; did you mean",
    ),
    "beside a class": ({"class": "a.B", "option": {}}, "unknown key 'compute.cluster.option'; did you mean 'options'?"),
    "two kinds": ({"slurm": {}, "gateway": {}}, "unknown key 'compute.cluster.gateway'; allowed: slurm"),
    "key of slurm": ({"slurm": {"quue": "a"}}, "unknown key 'compute.cluster.slurm.quue'; did you mean 'queue'?"),
    "key of kubernetes": ({"kubernetes": {"imgae": "a"}}, "kubernetes.imgae'; did you mean 'image'?"),
    "key of a gateway": ({"gateway": {"adress": "a"}}, "'compute.cluster.gateway.adress'; did you mean 'address'?"),
    "number for text": ({"address": 8786}, "compute.cluster.address is 8786; text is needed"),
    "two places": ({"address": "tcp://x:1", "scheduler_file": "a"}, "one of them is needed, and not both"),
    "no place": ({"address": None}, "one of them is needed, and not both"),
    "fraction": ({"slurm": {"cores": 1.5}}, "compute.cluster.slurm.cores is 1.5; "),
    "none": ({"slurm": {"processes": 0}}, "compute.cluster.slurm.processes is 0; "),
    "size": ({"slurm": {"memory": "lots"}}, "compute.cluster.slurm.memory is 'lots'; a size such as 2GiB"),
    "list for options": ({"slurm": []}, "compute.cluster.slurm is []; it is a section; allowed keys: runner, cores, "),
    "runner with jobs": (
        {"slurm": {"runner": True, "queue": "a"}},
        "compute.cluster.slurm.runner is true and submits no jobs, so q",
    ),
    "service": ({"kubernetes": {"image": "a", "service": "clusterip"}}, "compute.cluster.kubernetes.service is 'clus"),
    "class": ({"class": 5}, "compute.cluster.class is 5; text is needed"),
    "word": ("slurm", "compute.cluster is 'slurm'; allowed: threads, synchronous, local, {address: tcp://host:port}, "),
}


@pytest.mark.parametrize(("cluster", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_remedy(cluster: Any, said: str) -> None:
    assert said in refusal(cluster)


@pytest.mark.parametrize("seconds", [0, -1, True, "soon"], ids=repr)
def test_waiting_takes_some_time(seconds: Any) -> None:
    with pytest.raises(ConfigError, match=r"compute\.wait_seconds is "):
        configured("threads", wait_seconds=seconds)


@pytest.mark.parametrize(
    "cluster",
    [
        {"gateway": {"options": {"password": "hunter2"}}},
        {"gateway": {"address": "https://me:hunter2@gateway.example"}},
        {"class": "a.B", "options": {"kwargs": {"api_token": "hunter2"}}},
        {"kubernetes": {"image": "a", "env": {"AWS_SECRET_ACCESS_KEY": "hunter2"}}},
        {"kubernetes": {"image": "a", "pod": {"password": "hunter2"}}},
        {"address": "tcp://me:hunter2@scheduler:8786"},
    ],
    ids=["gateway", "url", "class", "variable", "pod", "address"],
)
def test_a_secret_is_refused_and_not_repeated(cluster: Any) -> None:
    text = refusal(cluster)
    assert "holds a secret, which a config must not; give it by the environment" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("cluster", "workers", "processes", "threads"),
    [
        ("threads", None, 1, available_processors()),
        ("threads", 3, 1, 3),
        ("synchronous", 3, 1, 1),
        ("local", 3, 3, 1),
        ({"address": "tcp://x:1"}, None, 1, 1),
        ({"address": "tcp://x:1"}, 4, 4, 1),
        ({"slurm": {"cores": 8, "processes": 2}}, None, 2, 4),
        ({"slurm": {"cores": 8, "processes": 2}}, 5, 6, 4),
        ({"slurm": {"processes": 2}}, 2, 2, 1),
        ({"slurm": {"runner": True}}, None, 1, 1),
        ({"kubernetes": {"image": "a", "threads": 4}}, 3, 3, 4),
        ({"gateway": {}}, 3, 3, 1),
        ({"class": "a.B"}, None, 1, 1),
    ],
    ids=str,
)
def test_workers_are_counted_beforehand(cluster: Any, workers: int | None, processes: int, threads: int) -> None:
    actual = workers_of(configured(cluster).compute.cluster, workers)
    assert (actual.processes, actual.threads) == (processes, threads)
