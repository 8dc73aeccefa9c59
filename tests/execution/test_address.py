from __future__ import annotations

import gc
import json
import warnings
from pathlib import Path
from typing import Any

import dask
import distributed
import pytest
from certificates import write_certificates
from daskworkers import scheduler

from clustering.errors import ClusteringError, ConfigError, ExecutionError
from clustering.execution.engine import connect


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_certificates(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def encrypted(files: dict[str, str]) -> Any:
    """The address of a scheduler with one worker, which accepts only clients with our certificates."""
    security = distributed.Security(
        require_encryption=True,
        tls_ca_file=files["ca_file"],
        **{
            f"tls_{role}_{kind}": files[f"{kind}_file"]
            for role in ("client", "scheduler", "worker")
            for kind in ("cert", "key")
        },
    )
    with scheduler(1, protocol="tls", security=security) as address:
        yield address


def refusal(cluster: dict[str, str], kind: type[ClusteringError], wait: float = 1) -> str:
    with pytest.raises(kind) as caught:
        connect(cluster, wait_seconds=wait).__enter__()
    text = str(caught.value)
    assert "\n" not in text
    with warnings.catch_warnings():
        # Dask leaves connections open that fail while they are made.
        warnings.simplefilter("ignore", ResourceWarning)
        del caught
        gc.collect()
    return text


def test_a_scheduler_that_encrypts_is_reached_with_its_certificates(encrypted: str, files: dict[str, str]) -> None:
    assert encrypted.startswith("tls://")
    with connect({"address": encrypted, **files}) as engine:
        assert engine.compute({"a": (abs, -3)}, "a") == 3
        assert all(worker.startswith("tls://") for worker in engine.client.nthreads())


@pytest.mark.parametrize("theirs", [("ca_file",), ("cert_file", "key_file")], ids=["authority", "certificate"])
def test_certificates_of_somebody_else_are_refused_by_either_side(
    encrypted: str, files: dict[str, str], theirs: tuple[str, ...], tmp_path: Path
) -> None:
    other = write_certificates(tmp_path / "theirs")
    text = refusal({"address": encrypted, **files, **{name: other[name] for name in theirs}}, ExecutionError)
    assert "do not accept each other's certificates" in text or "no Dask scheduler answers" in text
    assert encrypted in text


def test_files_of_tls_in_each_others_place_are_named(encrypted: str, files: dict[str, str]) -> None:
    swapped = {"ca_file": files["ca_file"], "cert_file": files["key_file"], "key_file": files["cert_file"]}
    assert "check ca_file, cert_file and key_file" in refusal({"address": encrypted, **swapped}, ConfigError)


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
def test_a_file_of_tls_that_is_not_there_is_named(name: str, files: dict[str, str]) -> None:
    text = refusal({"address": "tls://127.0.0.1:1", **files, name: "/nowhere/a.pem"}, ConfigError)
    assert text.startswith(f"{name} is '/nowhere/a.pem', and there is no such file")


def test_an_address_of_tls_without_files_names_them() -> None:
    assert "ca_file, cert_file, key_file are missing" in refusal({"address": "tls://127.0.0.1:1"}, ConfigError)


def test_files_of_tls_come_from_dasks_settings_too(encrypted: str, files: dict[str, str]) -> None:
    tls = "distributed.comm.tls"
    settings = {
        f"{tls}.ca-file": files["ca_file"],
        f"{tls}.client.cert": files["cert_file"],
        f"{tls}.client.key": files["key_file"],
    }
    with dask.config.set(settings):
        with connect({"address": encrypted}) as engine:
            assert engine.compute({"a": (abs, -3)}, "a") == 3


def test_files_of_tls_without_tls_are_named(files: dict[str, str]) -> None:
    text = refusal({"address": "tcp://127.0.0.1:1", **files}, ConfigError)
    assert "ca_file, cert_file, key_file are of TLS" in text
    assert "use tls://" in text


def test_an_encrypted_scheduler_does_not_answer_those_who_do_not_encrypt(encrypted: str) -> None:
    text = refusal({"address": encrypted.replace("tls://", "tcp://")}, ExecutionError)
    assert "whether it is tcp:// or tls://" in text


def test_a_plain_scheduler_does_not_answer_those_who_encrypt(files: dict[str, str]) -> None:
    with scheduler(1) as address:
        text = refusal({"address": address.replace("tcp://", "tls://"), **files}, ExecutionError)
    assert "whether it is tcp:// or tls://" in text


def test_a_scheduler_is_found_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "scheduler.json"
    with scheduler(1) as address:
        with distributed.Client(address, set_as_default=False) as client:
            client.write_scheduler_file(str(path))
        with connect({"scheduler_file": str(path)}) as engine:
            assert engine.name == f"at {address}"
            assert engine.compute({"a": (abs, -3)}, "a") == 3


def test_a_file_of_a_scheduler_that_does_not_come_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scheduler.json"
    assert f"{str(path)!r} is not there after 0 s" in refusal({"scheduler_file": str(path)}, ExecutionError, 0.1)


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"adress": "tcp://x:1"})], ids=["empty", "list", "misspelt"])
def test_a_file_that_no_scheduler_wrote_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "scheduler.json"
    path.write_text(content)
    assert f"{str(path)!r} holds no address" in refusal({"scheduler_file": str(path)}, ConfigError)


def test_an_address_and_a_file_are_not_given_both() -> None:
    text = refusal({"address": "tcp://127.0.0.1:1", "scheduler_file": "scheduler.json"}, ConfigError)
    assert "either an address or a scheduler_file" in text


def test_there_is_a_dashboard() -> None:
    with scheduler(1) as address, connect({"address": address}) as engine:
        assert engine.dashboard is not None
        assert engine.dashboard.startswith("http://127.0.0.1:")
        assert engine.dashboard == engine.client.dashboard_link


@pytest.mark.parametrize("cluster", ["threads", "synchronous"])
def test_threads_have_no_dashboard(cluster: str) -> None:
    with connect(cluster) as engine:
        assert engine.dashboard is None
