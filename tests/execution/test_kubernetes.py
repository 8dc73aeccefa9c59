"""Requests to the Dask operator, checked against the schemas of the operator and of Kubernetes.

The schema of ``DaskCluster`` is the one that dask-kubernetes ships for the operator's helm chart; it holds Kubernetes'
own schema of pods. It is applied strictly, because an API server drops unknown keys. Pods are also checked against
the models of Kubernetes' Python client.
"""

from __future__ import annotations

import threading
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from clustering.errors import ConfigError, ExecutionError
from clustering.execution.dask_clusters import ClusterStatus, environment
from clustering.execution.engine import connect
from clustering.execution.kubernetes import describe_pods, manifest, within

CHART = "operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"
LEAST: dict[str, Any] = {
    "image": "registry.example/clustering:1.0",
    "threads": 1,
    "resources": {"requests": {"cpu": "1", "memory": "1000"}, "limits": {"cpu": "1", "memory": "1000"}},
    "env": {},
    "secrets": (),
    "pod": {},
    "service": "ClusterIP",
    "idle_timeout": 600,
}
FULL: dict[str, Any] = {
    **LEAST,
    "env": {"AWS_DEFAULT_REGION": "eu-central-1"},
    "secrets": ["bucket"],
    "pod": {
        "serviceAccountName": "reader",
        "nodeSelector": {"pool": "batch"},
        "tolerations": [{"key": "batch", "operator": "Exists", "effect": "NoSchedule"}],
        "imagePullSecrets": [{"name": "registry"}],
    },
    "service": "LoadBalancer",
}


def strict(schema: Any) -> Any:
    """Refuse keys that a schema does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: strict(part) for key, part in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        parts["additionalProperties"] = False
    return parts


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    definition = yaml.safe_load((files("dask_kubernetes") / CHART).read_text())
    (version,) = definition["spec"]["versions"]
    cluster_schema: dict[str, Any] = strict(version["schema"]["openAPIV3Schema"])
    # The fields of every resource belong to the API server, and the schema of the operator lacks them.
    cluster_schema["properties"] |= {
        "apiVersion": {"const": "kubernetes.dask.org/v1"},
        "kind": {"const": "DaskCluster"},
    }
    cluster_schema["properties"]["metadata"] = {"type": "object", "properties": {"name": {"type": "string"}}}
    return cluster_schema


@pytest.mark.parametrize("options", [LEAST, FULL], ids=["least", "full"])
def test_the_manifest_is_a_cluster_of_the_operator(options: dict[str, Any], schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema).validate(manifest("clustering-1", 3, **options))


def test_a_key_that_pods_do_not_have_does_not_pass(schema: dict[str, Any]) -> None:
    wrong = manifest("clustering-1", 3, **{**LEAST, "pod": {"nodeSelektor": {"pool": "batch"}}})
    with pytest.raises(jsonschema.ValidationError, match="nodeSelektor"):
        jsonschema.Draft202012Validator(schema).validate(wrong)


@pytest.mark.parametrize("part", ["scheduler", "worker"])
def test_pods_are_those_of_kubernetes_client(part: str) -> None:
    from kubernetes import client

    spec = manifest("clustering-1", 3, **FULL)["spec"][part]["spec"]
    api = client.ApiClient()
    pod = api._ApiClient__deserialize(spec, "V1PodSpec")
    # A key that the models do not have would be lost on the way.
    assert api.sanitize_for_serialization(pod) == spec


def test_workers_have_what_is_asked_for_and_schedulers_no_secrets() -> None:
    spec = manifest("clustering-1", 3, **FULL)["spec"]
    (worker,) = spec["worker"]["spec"]["containers"]
    (scheduler,) = spec["scheduler"]["spec"]["containers"]
    assert spec["worker"]["replicas"] == 3
    assert worker["resources"] == FULL["resources"]
    assert worker["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    assert "envFrom" not in scheduler
    variables = {variable["name"]: variable["value"] for variable in worker["env"]}
    assert variables == {**environment(), "AWS_DEFAULT_REGION": "eu-central-1"}
    assert worker["image"] == scheduler["image"] == FULL["image"]
    assert spec["worker"]["spec"]["nodeSelector"] == spec["scheduler"]["spec"]["nodeSelector"] == {"pool": "batch"}
    assert spec["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == "clustering-1"


def test_containers_are_not_given_twice() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.kubernetes\.pod holds containers"):
        connect({"kubernetes": {"image": "a", "pod": {"containers": []}}}).__enter__()


def kubeconfig(folder: Path) -> Path:
    """Write a kubeconfig for a Kubernetes server that does not exist."""
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:9"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "default"}}],
        "users": [{"name": "me", "user": {"token": "none"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("there", [True, False], ids=["closed", "not configured"])
def test_a_kubernetes_that_does_not_answer_is_reported(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path) if there else tmp_path / "none"))
    with pytest.raises(ExecutionError, match="Kubernetes does not give a cluster: ") as caught:
        connect({"kubernetes": {"image": "a"}}, wait_seconds=5).__enter__()
    assert "check the kubeconfig and compute.cluster.kubernetes" in str(caught.value)
    assert "\n" not in str(caught.value)


def pod(phase: str, *, waiting: dict[str, str] | None = None, condition: dict[str, str] | None = None) -> Any:
    status: dict[str, Any] = {"phase": phase}
    if waiting:
        status["containerStatuses"] = [{"name": "worker", "state": {"waiting": waiting}}]
    if condition:
        status["conditions"] = [{"type": "PodScheduled", "status": "False", **condition}]
    return {"kind": "Pod", "status": status}


def test_pods_in_one_state_are_reported_together() -> None:
    pull = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "a"'}
    full = {"reason": "Unschedulable", "message": "0/3 nodes are available:\n3 Insufficient cpu."}
    pods = [
        pod("Running"),
        pod("Pending", waiting=pull),
        pod("Pending", condition=full),
        pod("Pending", condition=full),
    ]
    assert describe_pods(pods, []) == ClusterStatus(
        '1 pod is Running, 1 pod is waiting (ImagePullBackOff: Back-off pulling image "a"), '
        "2 pods are Pending (Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.)"
    )


def test_the_last_warning_is_reported() -> None:
    warnings = [
        {"lastTimestamp": "2026-01-01T00:00:02Z", "message": "exceeded quota: team"},
        {"lastTimestamp": None, "eventTime": "2026-01-01T00:00:01Z", "message": "older"},
    ]
    text = "there are no pods: does the Dask operator run, the last warning: exceeded quota: team"
    assert describe_pods([], warnings) == ClusterStatus(text)


def test_what_never_returns_is_given_up() -> None:
    with pytest.raises(TimeoutError):
        within(0.05, threading.Event().wait)
    assert within(60, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 // 0)
