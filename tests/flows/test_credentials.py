"""Credentials come from the environment, Python or a Prefect block, and are in no output, log or message."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings
from s3 import Bucket, Plan, proxy

import clustering as c
from clustering.config import JobConfig, check_config
from clustering.data.access import open_source
from clustering.data.stores import connect
from clustering.errors import ConfigError, MissingDependencyError, StoreError
from clustering.run.prepare import open_configured
from clustering_flows.credentials import access_of, load_credentials, merged

SECRET = "hunter2-do-not-tell"
COMMAND = "from clustering_flows.cli import main; main()"
USES: dict[str, Any] = {"variables": ["t"], "sample_dims": ["time", "lat"]}


def job(store: str, out: Path, **source: Any) -> dict[str, Any]:
    return {
        "source": {"store": store, **USES, **source},
        "model": {"k": 3},
        "fit": {"restarts": 2},
        "output": {"store": str(out)},
    }


def secrets_in(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    return [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("cluster", ["threads", pytest.param("local", marks=pytest.mark.slow)])
def test_secrets_of_the_environment_are_nowhere_in_a_run(
    bucket: Bucket, field_store: Path, tmp_path: Path, cluster: str
) -> None:
    content = job(bucket.upload(field_store), tmp_path / "out")
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump({**content, "compute": {"cluster": cluster, "workers": 2}}))
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "fit", str(config), "--no-prefect", "--json"],
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": SECRET},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["source"] == content["source"]["store"]
    assert SECRET not in done.stdout + done.stderr
    assert secrets_in(tmp_path / "out") == []


def test_secrets_given_in_python_are_nowhere(
    bucket: Bucket,
    field_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    url = bucket.upload(field_store)
    plan = Plan(lambda key, _: "unknown key" if "/q/c/" in key else None)
    with caplog.at_level(logging.DEBUG), proxy(bucket.server, plan) as address:
        for route in ({}, {"cache_regions": False}):
            options = {"key": "test", "secret": SECRET, "token": SECRET, "endpoint_url": address, **route}
            source = open_source(url, **USES, storage_options=options)
            fit = c.fit(source, c.KMeans(k=3), restarts=2)
            fit.save(tmp_path / f"model-{len(route)}")
            with pytest.raises(StoreError) as caught:
                c.fit(url, c.KMeans(k=3), **{**USES, "variables": ["q"]}, storage_options=options)
            objects = [caught.value, source, fit, fit.centers, connect(url, options)]
            assert SECRET not in "".join(repr(thing) + str(thing) for thing in objects)
    written = capfd.readouterr()
    ours = [record for record in caplog.records if record.name.split(".")[0] in ("clustering", "clustering_flows")]
    assert SECRET not in "".join(record.getMessage() for record in ours) + written.out + written.err
    assert secrets_in(tmp_path) == []


def test_a_url_is_shown_in_what_is_left(bucket: Bucket, field_store: Path) -> None:
    config = check_config(job(bucket.upload(field_store), field_store / "out"))
    assert open_configured(config.source, access=access_of(config.source)).shape == (12, 9)


# A Prefect block


def test_without_an_api_the_block_is_refused_in_one_line() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        with pytest.raises(ConfigError, match=r"no Prefect API is configured; set PREFECT_API_URL") as caught:
            load_credentials("secret/reader")
    assert "\n" not in str(caught.value)


def test_without_prefect_the_block_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect.blocks.system", None)
    with pytest.raises(MissingDependencyError, match=r"zarr-clustering\[prefect\]"):
        load_credentials("secret/reader")


def test_secret_options_are_added_to_those_of_the_config() -> None:
    options = {"endpoint_url": "http://x", "client_kwargs": {"region_name": "r"}}
    secret = {"secret": "s", "client_kwargs": {"aws_access_key_id": "k"}}
    assert merged(options, secret) == {
        "endpoint_url": "http://x",
        "secret": "s",
        "client_kwargs": {"region_name": "r", "aws_access_key_id": "k"},
    }


def test_the_identity_of_a_job_leaves_credentials_out(tmp_path: Path) -> None:
    one, two = (check_config(job("s3://b/a", tmp_path, **more)) for more in ({}, {"credentials": "secret/reader"}))
    assert isinstance(one, JobConfig)
    assert one.result_keys == two.result_keys
