"""Making a new stack ready, against a real S3 server; with the rest of the stack in tests/compose."""

from __future__ import annotations

from pathlib import Path

import pytest
from s3 import Bucket, Plan, proxy

import clustering as c
from clustering.errors import ConfigError, StoreError
from clustering.storage.paths import BucketPath
from clustering_flows.cli import run
from clustering_flows.init import app, bucket_of, make_bucket, upload_sample
from clustering_flows.loading import load_config

CONFIG = str(Path(__file__).parents[2] / "configs" / "compose.yaml")
ARGUMENTS = [CONFIG, "--cron", "0 3 * * *"]


def test_a_bucket_is_made_once(bucket: Bucket) -> None:
    assert make_bucket("new-one") is True
    assert make_bucket("new-one") is False


def test_the_first_data_are_those_of_the_config(bucket: Bucket) -> None:
    place = BucketPath(f"{bucket.url}/data/north-america.zarr")
    config = load_config(CONFIG).source

    assert bucket_of(place) == bucket.name
    assert upload_sample(place) is True
    source = c.open_source(
        str(place),
        variables=config.variables,
        sample_dims=config.sample_dims,
        feature_dims=config.feature_dims,
        weights=config.weights,
    )
    assert source.shape == (37, 49)
    assert source.n_features == 240


def test_data_that_are_there_stay(bucket: Bucket) -> None:
    place = BucketPath(f"{bucket.url}/data/north-america.zarr")
    bucket.ask("PUT", "/data/north-america.zarr/zarr.json", b"mine")

    assert upload_sample(place) is False
    assert bucket.content() == {"data/north-america.zarr/zarr.json": b"mine"}


def test_an_upload_that_is_cut_short_is_done_again(bucket: Bucket) -> None:
    place = BucketPath(f"{bucket.url}/data/north-america.zarr")
    upload_sample(place)
    whole = bucket.content()
    # The metadata of the root are uploaded last; without them there is no store.
    (place / "zarr.json").unlink()

    assert upload_sample(place) is True
    assert bucket.content() == whole


def test_a_store_that_refuses_is_reported_in_one_line(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(bucket.server, Plan(fault=lambda *_: "unknown key")) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StoreError, match=r"^cannot make s3://other: 403 .*; check the credentials"):
            make_bucket("other")


def test_a_store_that_is_not_there_is_reported_in_one_line(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    assert run(ARGUMENTS, app) == 1
    assert capsys.readouterr().err == (
        "clustering: cannot make s3://clustering: no answer; "
        "check the network and the endpoint, and run the job again\n"
    )


def test_without_an_api_the_remedy_is_shown(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ARGUMENTS, app) == 2
    captured = capsys.readouterr()
    assert "bucket clustering: made" in captured.out
    assert captured.err.startswith("clustering: no Prefect API is configured")
    assert captured.err.count("\n") == 1


def test_jobs_of_folders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("source: {store: photo.zarr}\noutput: {store: s3://clustering/runs/photo}\n")

    assert run([str(path), "--cron", "0 3 * * *"], app) == 2
    with pytest.raises(ConfigError, match=r"source\.store is 'photo\.zarr'.*name an s3:// URL"):
        app([str(path), "--cron", "0 3 * * *"], exit_on_error=False, print_error=False)
