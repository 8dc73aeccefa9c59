"""Rows are the same wherever a store lies; failed requests are repeated, and lasting faults give one line."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs
import xarray as xr
import zarr
from s3 import Bucket, Plan, answering, proxy, web
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, ObjectStore, ZipStore

import clustering as c
from clustering.data import buckets, store_errors
from clustering.data.access import open_source
from clustering.data.reading import read_block
from clustering.data.source_fingerprint import source_fingerprint
from clustering.data.stores import Entry, connect, entries, listable, shown
from clustering.data.wrapped_stores import RetryingStore, UnlistableStore
from clustering.errors import ConfigError, DataError, MissingDependencyError, SourceError, StoreError

CUBE = np.random.default_rng(3).standard_normal((8, 6, 4)).astype("f4")
USES: dict[str, Any] = {"variables": ["t"], "sample_dims": ["time", "lat"], "weights": "cos(lat)"}
S3FS = {"cache_regions": False}
"""An option that obstore does not have."""
ROUTES = {"obstore": {}, "s3fs": S3FS}
routes = pytest.mark.parametrize("options", ROUTES.values(), ids=ROUTES)


def write(path: Path, zarr_format: Any = 3, *, shards: bool = False, consolidated: bool = False) -> Path:
    dataset = xr.Dataset(
        {"t": (("time", "lat", "lon"), CUBE), "q": (("time", "lat", "lon"), -CUBE)},
        {"time": np.arange(8), "lat": np.linspace(-50, 50, 6), "lon": np.arange(4.0)},
    )
    encoding: dict[str, Any] = {"chunks": (2, 3, 4), **({"shards": (4, 6, 4)} if shards else {})}
    dataset.to_zarr(path, zarr_format=zarr_format, consolidated=False, encoding={"t": encoding, "q": encoding})
    if consolidated:
        if zarr_format == 2:
            zarr.consolidate_metadata(str(path))
        else:
            with pytest.warns(UserWarning, match="Consolidated metadata"):
                zarr.consolidate_metadata(str(path))
    return path


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return write(tmp_path / "field.zarr")


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat failed requests for a short time only."""
    for module in (store_errors, buckets):
        monkeypatch.setattr(module, "TRIES", 2)
        monkeypatch.setattr(module, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)


def rows(source: Any, **plan: Any) -> Any:
    cut = source.plan(block_bytes=1, **plan)
    return [
        (block.values.tobytes(), block.weights.tobytes())
        for block in map(partial(read_block, source), map(cut.block, range(len(cut))))
    ]


def get(store: Any, key: str) -> bytes | None:
    buffer = sync(store.get(key, default_buffer_prototype()))
    return None if buffer is None else buffer.to_bytes()


# Which store


def test_a_store_is_opened_once_for_all_threads(local: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: connect(str(local)), range(32)))
    assert len({id(store) for store in opened}) == 1
    assert isinstance(opened[0], LocalStore)
    assert opened[0].read_only


@pytest.mark.parametrize("name", ["{}", "file://{}", "{}/"])
def test_a_local_store_is_named_by_path_or_url(local: Path, name: str) -> None:
    assert get(connect(name.format(local)), "t/zarr.json") == (local / "t" / "zarr.json").read_bytes()


@routes
def test_the_store_of_a_bucket_reads_alone_and_pickles(bucket: Bucket, local: Path, options: dict[str, Any]) -> None:
    store = connect(bucket.upload(local), options)
    assert type(store) is (RetryingStore if options else ObjectStore)
    assert store.read_only
    assert connect(f"{bucket.url}/{local.name}", options) is store
    again = pickle.loads(pickle.dumps(store))
    assert get(again, "t/zarr.json") == (local / "t" / "zarr.json").read_bytes()
    assert get(again, "nothing") is None


def test_credentials_renewed_in_the_environment_are_used(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    before = connect(bucket.url)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "renewed")
    assert connect(bucket.url) is not before


CONFIGS: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, Any] | None]] = {
    "nothing": ({}, {}, {}),
    "anon": ({"anon": True, "key": "a", "secret": "b"}, {}, {"skip_signature": True}),
    "not anon": ({"anon": False}, {}, {}),
    "endpoint": ({"endpoint_url": "http://x"}, {"AWS_ENDPOINT_URL": "http://y"}, {"endpoint": "http://x"}),
    "endpoint of the environment": ({}, {"AWS_ENDPOINT_URL": "http://y"}, {"endpoint": "http://y"}),
    "client_kwargs": (
        {"client_kwargs": {"endpoint_url": "http://x", "region_name": "r", "aws_access_key_id": "k"}},
        {},
        {"endpoint": "http://x", "region": "r", "access_key_id": "k"},
    ),
    "keys": (
        {"key": "k", "secret": "s", "token": None},
        {},
        {"access_key_id": "k", "secret_access_key": "s"},
    ),
    "path style": ({"config_kwargs": {"s3": {"addressing_style": "path"}}}, {}, {}),
    "virtual style": (
        {"config_kwargs": {"s3": {"addressing_style": "virtual"}}},
        {},
        {"virtual_hosted_style_request": True},
    ),
    "requester pays": ({"requester_pays": True}, {}, {"request_payer": True}),
    "profile": ({"profile": "me"}, {}, None),
    "other config": ({"config_kwargs": {"max_pool_connections": 3}}, {}, None),
    "other client": ({"client_kwargs": {"verify": False}}, {}, None),
}


@pytest.mark.parametrize(("options", "environment", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_options_of_s3fs_are_said_to_obstore_where_it_has_words(
    options: dict[str, Any], environment: dict[str, str], expected: Any
) -> None:
    assert buckets.s3_config(options, environment) == expected


def test_google_is_read_by_obstore_where_the_credentials_are_in_reach(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    key.write_text('{"type": "service_account"}')
    credentials_env = {"HOME": str(tmp_path), "GOOGLE_APPLICATION_CREDENTIALS": str(key)}
    assert buckets.gcs_config({"token": "anon"}, {}) == {"skip_signature": True}
    assert buckets.gcs_config({"project": "p"}, credentials_env) == {}
    assert buckets.gcs_config({"token": "google_default"}, credentials_env) == {}
    for options, environment in [
        ({}, {"HOME": str(tmp_path)}),
        ({"token": "cloud"}, credentials_env),
        ({"access": "r"}, credentials_env),
    ]:
        assert buckets.gcs_config(options, environment) is None
    key.write_text('{"type": "external_account"}')
    assert buckets.gcs_config({}, credentials_env) is None


def test_profiles_are_read_by_way_of_botocore(
    bucket: Bucket, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "credentials"
    profile.write_text("[someone]\naws_access_key_id = test\naws_secret_access_key = test\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    monkeypatch.setenv("AWS_PROFILE", "someone")
    buckets._session.cache_clear()
    store = connect(bucket.upload(local))
    assert isinstance(store, ObjectStore)
    assert get(pickle.loads(pickle.dumps(store)), "t/zarr.json") == get(store, "t/zarr.json") is not None
    buckets._session.cache_clear()


@pytest.mark.parametrize("answer", [200, 301, 403])
def test_the_region_of_a_bucket_is_asked_of_the_service(answer: int) -> None:
    with answering(answer, {"x-amz-bucket-region": "eu-north-1"}) as address:
        assert buckets.bucket_region("somewhere", address) == "eu-north-1"
    with answering(answer, {}) as address:
        assert buckets.bucket_region("somewhere", address) is None
    assert buckets.bucket_region("somewhere", "http://127.0.0.1:1") is None


def test_a_bucket_in_another_region_is_reported(bucket: Bucket) -> None:
    with answering(301, {}) as address, pytest.raises(StoreError, match=r"another region; set AWS_REGION"):
        open_source(bucket.url, storage_options={"endpoint_url": address})


def test_a_bucket_without_credentials_is_reported(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    buckets._session.cache_clear()
    with pytest.raises(SourceError, match=r"no credentials for s3://.*AWS_ACCESS_KEY_ID.*anon"):
        open_source(bucket.url)
    buckets._session.cache_clear()


@pytest.mark.parametrize(
    ("url", "package"), [("s3://b/a", "obstore"), ("https://h/a", "obstore"), ("gs://b/a", "gcsfs")]
)
def test_a_package_that_is_not_installed_is_named_with_the_extra(
    url: str, package: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("obstore", "obstore.store", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError) as caught:
        open_source(url)
    assert package in str(caught.value)
    assert "zarr-clustering[cloud]" in str(caught.value)
    assert "\n" not in str(caught.value)


# Names


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/a/b?c@d", "/a/b?c@d"),
        ("s3://b/a.zarr", "s3://b/a.zarr"),
        ("https://u:p@h:1/a@b?sig=x", "https://h:1/a@b"),
        ("simplecache::https://u:p@h/a?x", "simplecache::https://h/a"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, name: str) -> None:
    assert shown(url) == name


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@host/a.zarr",
        "https://hunter2@host/a.zarr",
        "sftp://user:hunter2@host/a",
        "https://host/a.zarr?signature=hunter2",
        "simplecache::s3://key:hunter2@b/a",
    ],
)
def test_a_url_with_a_secret_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(url)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


# The same rows everywhere


LAYOUTS = {
    f"v{zarr_format}{'-shards' * shards}{'-consolidated' * consolidated}": (zarr_format, shards, consolidated)
    for zarr_format, shards in ((2, False), (3, False), (3, True))
    for consolidated in (False, True)
}


@pytest.mark.parametrize(("zarr_format", "shards", "consolidated"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_bucket_gives_the_rows_of_the_local_copy(
    bucket: Bucket, tmp_path: Path, zarr_format: int, shards: bool, consolidated: bool
) -> None:
    path = write(tmp_path / "a.zarr", zarr_format, shards=shards, consolidated=consolidated)
    url = bucket.upload(path)
    there = open_source(path, **USES)
    for options in ROUTES.values():
        here = open_source(url, **USES, storage_options=options)
        assert rows(here) == rows(there)
        assert (here.features, here.chunks) == (there.features, there.chunks)
        assert rows(open_source(f"{url}/q", storage_options=options)) == rows(open_source(path / "q"))


def zipped(path: Path) -> Path:
    archive = path.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as made:
        for file in sorted(path.rglob("*")):
            if file.is_file():
                made.write(file, file.relative_to(path).as_posix())
    return archive


def test_an_archive_gives_the_rows_of_its_folder(local: Path) -> None:
    archive = zipped(local)
    source = open_source(archive, **USES)
    assert isinstance(connect(str(archive)), ZipStore)
    cut = source.plan(block_bytes=1)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(partial(read_block, source), [cut.block(i) for i in range(len(cut))] * 3))
    assert [(b.values.tobytes(), b.weights.tobytes()) for b in read] == rows(open_source(local, **USES)) * 3
    assert np.array_equal(c.fit(archive, c.KMeans(3), **USES).centers, c.fit(local, c.KMeans(3), **USES).centers)


def test_an_archive_that_is_written_anew_is_opened_anew(local: Path) -> None:
    archive = zipped(local)
    before = open_source(archive, **USES)
    first = source_fingerprint(before)
    (zarr.open_array(local / "t"))[0] = 7.0
    zipped(local)
    assert source_fingerprint(open_source(archive, **USES)) != first
    assert rows(open_source(archive, **USES)) == rows(open_source(local, **USES))


def test_a_file_that_is_no_archive_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(SourceError, match="is no zip archive"):
        open_source(tmp_path / "a.zip")


@pytest.mark.parametrize("zarr_format", [2, 3], ids=["v2", "v3"])
@pytest.mark.parametrize("consolidated", [True, False], ids=["consolidated", "named"])
def test_a_web_server_gives_the_rows_of_its_folder(tmp_path: Path, zarr_format: int, consolidated: bool) -> None:
    path = write(tmp_path / "a.zarr", zarr_format, consolidated=consolidated)
    local = rows(open_source(path, **USES))
    with web(tmp_path) as address:
        source = open_source(f"{address}/a.zarr", **USES)
        assert rows(source) == local
        assert set(source.dataset.coords) == {"time", "lat", "lon"}
        assert rows(open_source(f"{address}/a.zarr/t")) == rows(open_source(path / "t"))
        assert source_fingerprint(source) == source_fingerprint(open_source(f"{address}/a.zarr", **USES))
        fit = c.fit(f"{address}/a.zarr", c.KMeans(2), **USES)
        assert fit.objective == c.fit(path, c.KMeans(2), **USES).objective
        store = connect(f"{address}/a.zarr")
        assert not listable(store)
        assert entries(store) is None
        if consolidated:
            assert set(open_source(f"{address}/a.zarr", variables=["q"]).dataset) == {"t", "q"}
        else:
            with pytest.raises(SourceError, match=r"cannot list its keys.*in variables"):
                open_source(f"{address}/a.zarr")


def test_a_group_inside_a_consolidated_store_on_the_web_is_opened(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr" / "inner")
    zarr.open_group(tmp_path / "a.zarr", mode="a")
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(str(tmp_path / "a.zarr"))
    with web(tmp_path) as address:
        source = open_source(f"{address}/a.zarr", group="inner", variables=["t"])
        assert set(source.dataset) == {"t", "q"}
        assert rows(source) == rows(open_source(tmp_path / "a.zarr", group="inner", variables=["t"]))


@pytest.mark.parametrize("cluster", ["threads", pytest.param("local", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_fit_gives_the_bits_of_the_local_copy(bucket: Bucket, local: Path, cluster: str) -> None:
    options: dict[str, Any] = {**USES, "workers": 2, "block_bytes": 1, "seed": 3}
    there = c.fit(local, c.KMeans(k=3), **options)
    here = c.fit(bucket.upload(local), c.KMeans(k=3), cluster=cluster, **options)
    assert here.centers.values.tobytes() == there.centers.values.tobytes()
    assert here.history.tobytes() == there.history.tobytes()


# Listing


def on_disk(local: Path, prefix: str) -> list[tuple[str, int]]:
    files = [path for path in (local / prefix).rglob("*") if path.is_file()]
    return sorted((path.relative_to(local).as_posix(), path.stat().st_size) for path in files)


@pytest.mark.parametrize("kind", ["folder", "archive", "obstore", "s3fs"])
def test_entries_are_what_is_stored_in_the_order_of_keys(bucket: Bucket, local: Path, kind: str) -> None:
    (local / "t.zz").write_bytes(b"between t and t/")
    (local / "t" / "c.x").write_bytes(b"")
    local_copies = {"folder": lambda: local, "archive": lambda: zipped(local)}
    url = str(local_copies[kind]()) if kind in local_copies else bucket.upload(local)
    store = connect(url, ROUTES.get(kind))
    for prefix in ("", "t", "t/c/1", "nothing", "t/zarr.json"):
        iterator = entries(store, prefix)
        assert isinstance(iterator, Iterator)
        listed = list(iterator)
        assert [(entry.key, entry.size) for entry in listed] == on_disk(local, prefix)
        assert all(entry.version is not None for entry in listed)


def test_entries_of_a_folder_come_as_they_are_asked_for(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(str(path)) or scan(path))
    iterator = entries(connect(str(local)))
    assert iterator is not None
    assert next(iterator) == Entry(
        "lat/c/0", (local / "lat/c/0").stat().st_size, (local / "lat/c/0").stat().st_mtime_ns
    )
    assert len(opened) == 3


@routes
def test_the_fingerprint_of_a_bucket_follows_its_objects(bucket: Bucket, local: Path, options: dict[str, Any]) -> None:
    url = bucket.upload(local)

    def fingerprint() -> str:
        return source_fingerprint(open_source(url, **USES, storage_options=options))

    before = fingerprint()
    bucket.ask("PUT", "/field.zarr/q/c/0/0/0", b"another variable")
    assert fingerprint() == before
    bucket.ask("PUT", "/field.zarr/t/c/0/0/0", b"other bytes")
    assert fingerprint() != before


# Faults


@pytest.mark.slow
@routes
@pytest.mark.parametrize("fault", ["500", "503", "429", "cut"])
def test_a_passing_fault_leaves_the_rows_alone(
    bucket: Bucket, local: Path, options: dict[str, Any], fault: str
) -> None:
    url = bucket.upload(local)
    plan = Plan(lambda key, asked: fault if asked == 0 and "no-such-key" not in key else None)
    with proxy(bucket.server, plan) as address:
        actual = rows(open_source(url, **USES, storage_options={**options, "endpoint_url": address}))
    assert actual == rows(open_source(local, **USES))
    chunks = [key for key in plan.asked if "/t/c/" in key]
    assert len(chunks) == 8
    # A missing key has no body that could be cut.
    assert plan.made[fault] >= len(chunks)
    assert all(plan.asked[key] >= 2 for key in chunks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults_of_a_key", "notices"),
    [(store_errors.ATTEMPTS_BEFORE_NOTICE - 1, 0), (store_errors.ATTEMPTS_BEFORE_NOTICE, 1)],
    ids=str,
)
def test_a_fault_that_lasts_a_while_is_logged_once(
    bucket: Bucket,
    local: Path,
    faults_of_a_key: int,
    notices: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = bucket.upload(local)
    plan = Plan(lambda key, asked: "503" if key.endswith("t/c/1/1/0") and asked < faults_of_a_key else None)
    with proxy(bucket.server, plan) as address:
        actual = rows(open_source(url, **USES, storage_options={**S3FS, "endpoint_url": address}))
    assert actual == rows(open_source(local, **USES))
    lines = [record.getMessage() for record in caplog.records if record.name == "clustering.data.wrapped_stores"]
    assert (
        lines
        == [f"{url}, key 't/c/1/1/0': 503 SlowDown, {store_errors.ATTEMPTS_BEFORE_NOTICE} times so far; trying on"]
        * notices
    )


@pytest.mark.slow
@routes
@pytest.mark.parametrize(("fault", "said"), [("503", "503"), ("cut", "no answer"), ("403", "403")])
def test_a_lasting_fault_is_reported_in_one_line(
    bucket: Bucket, local: Path, options: dict[str, Any], fault: str, said: str
) -> None:
    url = bucket.upload(local)
    plan = Plan(lambda key, _: fault if key.endswith("t/c/1/1/0") else None)
    with proxy(bucket.server, plan) as address:
        source = open_source(url, **USES, storage_options={**options, "endpoint_url": address})
        with pytest.raises(StoreError) as caught:
            rows(source)
    message = str(caught.value)
    assert "\n" not in message
    assert url in message
    assert "t/c/1/1/0" in message or fault == "cut"
    assert said in message
    assert plan.made[fault] == (1 if fault == "403" else plan.asked[next(k for k in plan.asked if "c/1/1/0" in k)])
    assert plan.made[fault] > 2 or fault == "403"


@routes
def test_a_server_that_is_not_there_is_reported(options: dict[str, Any], bucket: Bucket) -> None:
    with pytest.raises(StoreError, match=r"cannot read s3://gone/a.*no answer"):
        open_source("s3://gone/a", storage_options={**options, "endpoint_url": "http://127.0.0.1:1"})


@routes
def test_a_missing_bucket_is_reported_as_such(bucket: Bucket, options: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match=r"there is no bucket 'bucket-that-is-not-there'"):
        open_source("s3://bucket-that-is-not-there/a.zarr", storage_options=options)
    with pytest.raises(SourceError, match="holds no Zarr array or group"):
        open_source(f"{bucket.url}/a.zarr", storage_options=options)


HIDDEN = {
    "v2-named-obstore": ({}, 2, False),
    "v3-consolidated-obstore": ({}, 3, True),
    "v2-consolidated-s3fs": (S3FS, 2, True),
    "v3-named-s3fs": (S3FS, 3, False),
}


@pytest.mark.parametrize(("options", "zarr_format", "consolidated"), HIDDEN.values(), ids=HIDDEN)
def test_where_403_means_missing_the_rows_are_the_same(
    bucket: Bucket, tmp_path: Path, options: dict[str, Any], zarr_format: int, consolidated: bool
) -> None:
    path = write(tmp_path / "a.zarr", zarr_format, consolidated=consolidated)
    hole = path / "t" / ("1.1.0" if zarr_format == 2 else "c/1/1/0")
    hole.unlink()
    url, plan = bucket.upload(path), Plan(hides_missing=True)
    with proxy(bucket.server, plan) as address:
        given = {**options, "endpoint_url": address}
        source = open_source(url, **USES, storage_options=given)
        assert rows(source) == rows(open_source(path, **USES))
        assert isinstance(connect(url, given), UnlistableStore)
        assert entries(connect(url, given)) is None
        assert source_fingerprint(source)
        assert rows(open_source(f"{url}/q", storage_options=given)) == rows(open_source(path / "q"))
        with pytest.raises(SourceError, match=r"holds no Zarr.*403.*credentials"):
            open_source(f"{url}/nothing", storage_options=given)
    assert plan.made["403"] > 2


@routes
def test_credentials_that_are_not_known_are_reported(bucket: Bucket, local: Path, options: dict[str, Any]) -> None:
    url, plan = bucket.upload(local), Plan(lambda *_: "unknown key")
    with proxy(bucket.server, plan) as address, pytest.raises(StoreError) as caught:
        open_source(url, storage_options={**options, "endpoint_url": address})
    assert re.search(r"403 InvalidAccessKeyId; check the credentials", str(caught.value))
    assert "<" not in str(caught.value)


def test_a_chunk_that_cannot_be_decoded_is_no_fault_of_the_store(tmp_path: Path) -> None:
    codec = zarr.codecs.GzipCodec()
    zarr.create_array(tmp_path / "a", data=CUBE[0], chunks=(3, 4), compressors=[codec])
    (tmp_path / "a" / "c" / "0" / "0").write_bytes(b"not what gzip writes")
    with pytest.raises(DataError, match=r"chunk 'c/0/0' of variable 'values' does not decode .*gzip"):
        rows(open_source(tmp_path / "a"))


def test_a_local_file_that_cannot_be_read_is_reported(local: Path) -> None:
    source = open_source(local, **USES)
    chunk = local / "t" / "c" / "1" / "1" / "0"
    chunk.unlink()
    chunk.symlink_to(chunk)
    with pytest.raises(StoreError, match=r"cannot read /.*field.zarr.*symbolic links"):
        rows(source)


def test_stores_of_one_kind_stand_behind_the_wrapper(bucket: Bucket, local: Path) -> None:
    store = connect(bucket.upload(local), S3FS)
    assert isinstance(store, RetryingStore)
    assert isinstance(store._store, FsspecStore)
    assert [got for _, got in sync(_many(store, ["t/zarr.json", "nothing"]))] == [
        (local / "t" / "zarr.json").read_bytes(),
        None,
    ]


async def _many(store: Any, keys: list[str]) -> list[tuple[str, bytes | None]]:
    prototype = default_buffer_prototype()
    requests = [(key, prototype, None) for key in keys]
    return [(key, got and got.to_bytes()) async for key, got in store._get_many(requests)]


@pytest.mark.parametrize("zarr_format", [2, 3], ids=["v2", "v3"])
@pytest.mark.parametrize("missing_chunks", [None, "mask"])
def test_stores_whose_path_in_fsspec_is_empty_list_their_chunks(
    tmp_path: Path, zarr_format: int, missing_chunks: Any
) -> None:
    path = write(tmp_path / "a.zarr", zarr_format)
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    documents = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
    refs = {
        str(file.relative_to(path)): file.read_text() if file.name in documents else [str(file), 0, file.stat().st_size]
        for file in files
    }
    (tmp_path / "refs.json").write_text(json.dumps({"version": 1, "refs": refs}))
    shutil.make_archive(str(tmp_path / "a"), "zip", root_dir=path)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for file in files:
            archive.add(file, arcname=str(file.relative_to(path)))
    shutil.make_archive(str(tmp_path / "inside"), "zip", root_dir=tmp_path, base_dir="a.zarr")
    references = {"fo": str(tmp_path / "refs.json")}
    truth = rows(open_source(path, **USES))
    for url, options in (
        ("reference://", references),
        (f"zip://::file://{tmp_path}/a.zip", None),
        (f"tar://::file://{tmp_path}/a.tar", None),
        (f"zip://a.zarr::file://{tmp_path}/inside.zip", None),
        (f"simplecache::file://{path}", None),
    ):
        source = open_source(url, storage_options=options, missing_chunks=missing_chunks, **USES)
        assert rows(source) == truth
        assert all(len(listing.chunks) for listing in source.listings.values())
        assert source.cautions == ()


@pytest.mark.parametrize("name", ["{}/inside.zip", "file://{}/inside.zip", "zip://::file://{}/inside.zip"])
def test_an_archive_of_a_folder_names_the_group_that_opens_it(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.zarr")
    shutil.make_archive(str(tmp_path / "inside"), "zip", root_dir=tmp_path, base_dir="a.zarr")
    url = name.format(tmp_path)
    with pytest.raises(SourceError, match=r"holds one in the folder 'a\.zarr'; name it in group$"):
        open_source(url, **USES)
    with pytest.raises(SourceError, match=r"'a\.zarr'; name it in group, and 'daily' from there"):
        open_source(url, group="daily", **USES)
    assert rows(open_source(url, group="a.zarr", **USES)) == rows(open_source(path, **USES))
