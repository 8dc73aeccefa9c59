from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

import numpy as np
import pytest
import xarray as xr
import yaml
from gcs import google
from obstore.store import GCSStore
from s3 import Bucket, Plan, proxy
from zarr.storage import ObjectStore

import clustering as c
from clustering.config import JobConfig, check_config
from clustering.data import buckets
from clustering.errors import CheckpointError, ConfigError, OutputError, SourceError, StoreError
from clustering.run.job import run_fit, run_predict
from clustering.storage.bucket_output import open_output
from clustering_flows.cli import run
from tests.run.notes import Crash, Notes

BLOCKS = 6
PARTS = ("labels.zarr", "model.zarr", "report.html", "run.json")


def ending_after(name: str) -> Callable[[str, Callable[[], Any]], Any]:
    def step(step_name: str, work: Callable[[], Any]) -> Any:
        result = work()
        if step_name == name:
            raise Crash
        return result

    return step


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows without clusters, so that many passes are needed."""
    rng = np.random.default_rng(2)
    data = xr.Dataset({"x": (("row", "feature"), rng.random((6000, 2)))}, {"row": np.arange(6000)})
    path = tmp_path_factory.mktemp("rows") / "rows.zarr"
    data.to_zarr(path, consolidated=False, zarr_format=3, encoding={"x": {"chunks": (1000, 2)}})
    return path


def content(store: Path, out: object, **sections: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "source": {"store": str(store), "sample_dims": ["row"]},
        "model": {"k": 8},
        "fit": {"init": "random", "restarts": 2, "sample_rows": 60, "max_iterations": 4},
        "compute": {"workers": 2, "block": "16KB"},
        "output": {"store": str(out), "report": False, "margin": True},
    }
    for section, keys in sections.items():
        made[section].update(keys)
    return made


def job(store: Path, out: object, **sections: Any) -> JobConfig:
    return check_config(content(store, out, **sections))


def local(folder: Path) -> dict[str, bytes]:
    files = (f for part in PARTS for f in ([folder / part] if part.count(".") and (folder / part).is_file() else []))
    below = (f for part in PARTS for f in (folder / part).rglob("*") if f.is_file())
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in (*files, *below)}


def results(files: Mapping[str, bytes]) -> dict[str, Any]:
    """What a run leaves, without its name, its place and its times."""
    kept: dict[str, Any] = {key: value for key, value in files.items() if key.split("/")[0] in PARTS}
    for part in ("labels.zarr", "model.zarr"):
        group = json.loads(kept.pop(f"{part}/zarr.json"))
        for name in ("run", "reads", "bytes_read"):
            group["attributes"].pop(name, None)
        kept[part] = group
    record = json.loads(kept.pop("run.json"))
    for name in (
        "run",
        "seconds",
        "peak_rss_bytes",
        "reads",
        "bytes_read",
        "residency",
        "finished_at",
        "promoted_at",
        "before",
    ):
        del record[name]
    if record["comparison"] is not None:
        del record["comparison"]["with"]
    for section, name in (("output", "store"), ("output", "overwrite"), ("compute", "cluster")):
        del record["config"][section][name]
    kept["run.json"] = record
    kept.pop("report.html", None)
    assert len(kept) > 20
    return kept


@pytest.fixture(scope="module")
def calm(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an uninterrupted run in a folder leaves."""
    out = tmp_path_factory.mktemp("calm") / "out"
    run_fit(job(store, out), Notes())
    return results(local(out))


@pytest.fixture(scope="module")
def calm_after(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run leaves after an earlier run, whose ids it keeps."""
    out = tmp_path_factory.mktemp("calm-after") / "out"
    run_fit(job(store, out, model={"k": 3}, fit={"max_iterations": 1}), Notes())
    run_fit(job(store, out, output={"overwrite": True}), Notes())
    return results(local(out))


@pytest.fixture(scope="module")
def model_path(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a saved model."""
    path = tmp_path_factory.mktemp("known") / "model.zarr"
    c.fit(store, c.KMeans(k=3), sample_dims=["row"], max_iterations=1).save(path)
    return path


def published(bucket: Bucket, prefix: str = "out") -> dict[str, Any]:
    """What a run leaves in a bucket under the plain names. It equals the files of its version."""
    objects = bucket.content(prefix)
    assert {key.split("/")[0] for key in objects} <= {*PARTS, ".output.json", "checkpoints", "current", "versions"}
    run = json.loads(objects["run.json"])["run"]
    assert json.loads(objects["current"]) == {"run": run}
    version = {key: value for key, value in objects.items() if key.startswith(f"versions/{run}/")}
    assert {key.removeprefix(f"versions/{run}/"): value for key, value in version.items()} == {
        key: value for key, value in objects.items() if key.split("/")[0] in PARTS
    }
    for part in ("labels.zarr", "model.zarr"):
        assert json.loads(objects[f"{part}/zarr.json"])["attributes"]["run"] == run
    return results(objects)


def test_a_bucket_holds_what_a_folder_would(
    store: Path, calm: dict[str, Any], bucket: Bucket, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, path = f"{bucket.url}/deep/out", tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content(store, out)))
    assert run(["fit", str(path), "--no-prefect", "--json"]) == 0
    assert f"output     {out}\n" in capsys.readouterr().out
    assert published(bucket, "deep/out") == calm
    assert not [key for key in bucket.content() if not key.startswith("deep/out/")]
    with xr.open_zarr(f"{out}/labels.zarr", consolidated=False, chunks=None) as labels:
        fit = c.load_fit(out)
        np.testing.assert_array_equal(labels["labels"], fit.predict(store, sample_dims=["row"]))
    # A finished output is not touched by the same command.
    before = bucket.content()
    assert run(["fit", str(path), "--no-prefect"]) == 2
    assert "holds a finished run" in capsys.readouterr().err
    assert bucket.content() == before


@pytest.mark.slow
def test_the_other_commands_and_python_take_urls(
    store: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, path = f"{bucket.url}/out", tmp_path / "job.yaml"
    run_fit(job(store, out, output={"report": True}), Notes())
    before = bucket.content("out")
    assert b"<html" in before["report.html"]
    assert run(["report", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"report": f"{out}/report.html"}
    after = bucket.content("out")
    version = f"versions/{json.loads(before['run.json'])['run']}"
    assert {key for key in after if after[key] != before.get(key)} <= {"report.html", f"{version}/report.html"}
    assert after["report.html"] == after[f"{version}/report.html"]
    path.write_text(yaml.safe_dump(content(store, f"{bucket.url}/other")))
    assert run(["predict", out, str(path), "--no-prefect"]) == 0
    labels = {key: value for key, value in before.items() if key.startswith("labels.zarr/labels/c/")}
    assert labels.items() <= bucket.content("other").items()
    fit = c.load_fit(f"{out}/model.zarr")
    fit.save(f"{bucket.url}/saved/model.zarr")
    again = c.load_fit(f"{bucket.url}/saved")
    assert again.fitted.centers.tobytes() == fit.fitted.centers.tobytes()
    with pytest.raises(SourceError, match=f"no model at '{bucket.url}/nothing'"):
        c.load_fit(f"{bucket.url}/nothing")
    with pytest.raises(SourceError, match="there is no bucket 'no-such-bucket'"):
        c.load_fit("s3://no-such-bucket/out")
    assert run(["report", f"{bucket.url}/nothing"]) == 1
    assert "no finished run at" in capsys.readouterr().err


def test_an_unfinished_run_is_neither_replaced_nor_mixed_up(
    store: Path, calm: dict[str, Any], model_path: Path, bucket: Bucket
) -> None:
    out = f"{bucket.url}/out"
    with pytest.raises(Crash):
        run_fit(job(store, out), Notes(2))
    before = bucket.content()
    with pytest.raises(CheckpointError, match=rf"model.k was 8 and is 5; .*{out}/checkpoints"):
        run_fit(job(store, out, model={"k": 5}), Notes())
    with pytest.raises(OutputError, match="holds an unfinished fit"):
        run_predict(str(model_path), job(store, out), Notes())
    assert bucket.content() == before


KILL = """
import os, signal, sys, threading
from clustering.storage import bucket_output, checkpoints, ledger
from clustering_flows.cli import main

owner, name, times = {"passes": (checkpoints, "save", 3), "labels": (ledger.Ledger, "save", 3),
                      "switch": (bucket_output.BucketOutput, "_copy", 10)}[sys.argv[1]]
act, lock, done = getattr(owner, name), threading.Lock(), []

def limited(*given):
    with lock:
        act(*given)
        done.append(1)
        if len(done) == times:
            os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, limited)
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", ["passes", "labels", "switch"])
def test_a_killed_run_loses_nothing(
    at: str,
    store: Path,
    calm_after: dict[str, Any],
    bucket: Bucket,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, path = f"{bucket.url}/out", tmp_path / "job.yaml"
    run_fit(job(store, out, model={"k": 3}, fit={"max_iterations": 1}), Notes())
    before = {key: value for key, value in bucket.content("out").items() if not key.startswith("checkpoints/")}
    path.write_text(yaml.safe_dump(content(store, out, output={"overwrite": True})))
    command = ["fit", str(path), "--no-prefect"]
    killed = subprocess.run([sys.executable, "-c", KILL, at, *command], capture_output=True, check=False)
    assert killed.returncode == -9
    left = bucket.content("out")
    assert ".lock" in left
    if at == "switch":
        # A part of the files is there, and a reader takes none of it for a whole output.
        assert not {"run.json", "labels.zarr/zarr.json", "model.zarr/zarr.json"} & left.keys()
        # `current` was switched first, so readers that follow it get the new version.
        assert c.load_fit(out).model.k == 8
        assert run(["models", "promote", out, "current"]) == 0
        assert published(bucket) == calm_after
    else:
        assert before.items() <= left.items()
    # The lock is not in the way, because its process has ended.
    if at == "switch":
        path.write_text(yaml.safe_dump(content(store, out)))
    assert run(command) == (2 if at == "switch" else 0)
    said = {
        "passes": "after pass 2",
        "labels": f"3 of {BLOCKS} blocks are labelled already",
        "switch": "holds a finished run",
    }
    assert said[at] in capsys.readouterr().err
    assert published(bucket) == calm_after
    # Blocks that were read before the kill are not read again.
    record = json.loads(bucket.content("out")["run.json"])
    assert record["reads"] == (round(1 + (BLOCKS - 3) / BLOCKS, 6) if at == "labels" else record["reads"])


@pytest.mark.slow
def test_objects_that_are_lost_are_made_again(store: Path, calm: dict[str, Any], bucket: Bucket) -> None:
    config = job(store, f"{bucket.url}/out")
    with pytest.raises(Crash):
        run_fit(config, Notes(), ending_after("label"))
    (lost,) = (key for key in bucket.content() if key.endswith("labels.zarr/margin/c/3"))
    bucket.ask("DELETE", f"/{lost}")
    watch = Notes()
    record = run_fit(config, watch)
    assert f"{BLOCKS} of {BLOCKS} blocks are labelled already" in watch.said
    assert record["reads"] == round(1 + 1 / BLOCKS, 6)
    assert published(bucket) == calm


@pytest.mark.slow
def test_overwriting_leaves_nothing_of_what_was_there(store: Path, calm: dict[str, Any], bucket: Bucket) -> None:
    out = f"{bucket.url}/out"
    first = run_fit(job(store, out, output={"distances": True}), Notes())
    second = run_fit(job(store, out, output={"overwrite": True}), Notes())
    assert first["run"] != second["run"]
    assert published(bucket)["run.json"]["n_rows"] == calm["run.json"]["n_rows"]
    shown = [key for key in bucket.content("out") if key.split("/")[0] in PARTS]
    assert shown
    assert not any("distances" in key for key in shown)


@pytest.mark.slow
def test_a_run_that_fails_leaves_the_finished_output(store: Path, bucket: Bucket) -> None:
    out = f"{bucket.url}/out"
    run_fit(job(store, out), Notes())
    before = bucket.content()
    with pytest.raises(Crash):
        run_predict(out, job(store, out, output={"overwrite": True}), Notes(), ending_after("label"))
    # The unfinished run lies beside it, and the next run continues it.
    left = bucket.content()
    assert before.items() <= left.items()
    assert {key.split("/")[:2][-1] for key in left.keys() - before.keys()} == {"versions"}


@pytest.mark.slow
def test_what_fails_for_the_moment_loses_nothing_of_worker_processes_either(
    store: Path, calm: dict[str, Any], bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first request for every second key fails, for reads and for writes.
    plan = Plan(lambda key, asked: "503" if asked == 0 and crc32(key.encode()) % 2 else None)
    with proxy(bucket.server, plan) as address:
        options = {"endpoint_url": address, "region_name": "us-east-1"}
        output = {"storage_options": options}
        run_fit(job(store, f"{bucket.url}/out", output=output, compute={"cluster": "local"}), Notes())
    assert plan.made["503"] > 20
    assert published(bucket) == calm


def test_a_store_that_refuses_writes_is_reported_in_one_line(store: Path, model_path: Path, bucket: Bucket) -> None:
    out = f"{bucket.url}/out"
    plan = Plan(lambda key, _: "403" if "/labels.zarr/labels/c/3" in key else None)
    with proxy(bucket.server, plan) as address:
        options = {"endpoint_url": address, "region_name": "us-east-1"}
        config = job(store, out, output={"storage_options": options})
        with pytest.raises(StoreError, match=rf"cannot write to {out}, key .*labels/c/3.*403.*credentials"):
            run_predict(str(model_path), config, Notes())
    assert bucket.content() == {}


@pytest.mark.slow
def test_google_holds_what_a_folder_would(
    store: Path, calm: dict[str, Any], bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials.json"

    def local_gcs_store(url: str, _: Any) -> Any:
        # The address of the server is read from the file of credentials only if the file is given as an option.
        place = urlsplit(url)
        options: Any = {"allow_http": True}
        config: Any = {"service_account": str(file)}
        made = GCSStore(place.netloc, prefix=place.path.strip("/") or None, config=config, client_options=options)
        return ObjectStore(made, read_only=True)

    monkeypatch.setattr(buckets, "_gcs", local_gcs_store)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    out = f"gs://{bucket.name}/out"
    with google(bucket.server, file):
        with pytest.raises(Crash):
            run_fit(job(store, out), Notes(2))
        watch = Notes()
        run_fit(job(store, out), watch)
        assert watch.iterations == [3, 4]
        assert published(bucket) == calm
        assert c.load_fit(out).model.k == 8
        with open_output(out).locked(), pytest.raises(OutputError, match="another run is writing"):
            run_fit(job(store, out, output={"overwrite": True}), Notes())
    assert published(bucket) == calm


SECRET = "planted-secret-0123456789"


@pytest.mark.slow
def test_no_secret_is_left_anywhere(
    store: Path,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    out, path = f"{bucket.url}/out", tmp_path / "job.yaml"
    options = {"endpoint_url": bucket.server, "region_name": "us-east-1"}
    path.write_text(yaml.safe_dump(content(store, out, output={"report": True, "storage_options": options})))
    seen = []

    class Looking(Notes):
        def passed(self, record: Any, rule: Any, reads: float) -> None:
            seen.append(bucket.content())

    with caplog.at_level(logging.DEBUG):
        run_fit(check_config(yaml.safe_load(path.read_text())), Looking(), _looking(bucket, seen))
        assert run(["report", out]) == 0
    assert any(".lock" in key for key in seen[-1])
    for objects in (*seen, bucket.content()):
        assert not [key for key, value in objects.items() if SECRET.encode() in value]
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err + caplog.text
    assert bucket.server not in bucket.content("out")["run.json"].decode()


def _looking(bucket: Bucket, seen: list[dict[str, bytes]]) -> Callable[[str, Callable[[], Any]], Any]:
    def step(_: str, work: Callable[[], Any]) -> Any:
        result = work()
        seen.append(bucket.content())
        return result

    return step


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a secret": (
        {"store": "s3://b/out", "storage_options": {"secret": SECRET}},
        r"^output.storage_options.secret holds a secret, .* set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the "
        r"environment$",
    ),
    "a password": ({"store": f"s3://me:{SECRET}@b/out"}, r"^output.store 's3://b/out' was given with .* a password"),
    "a query": ({"store": f"s3://b/out?key={SECRET}"}, r"^output.store 's3://b/out' was given with a query"),
    "an unknown key": (
        {"store": "s3://b/out", "storage_option": {"secret": SECRET}},
        r"^unknown key 'output.storage_option'; did you mean 'storage_options'",
    ),
}


@pytest.mark.parametrize(("output", "said"), REFUSED.values(), ids=REFUSED)
def test_a_config_with_a_secret_is_refused_without_showing_it(output: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        check_config({"source": {"store": "a.zarr"}, "output": output})
    assert SECRET not in str(caught.value)


PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "the web": ({"store": "https://example.org/out"}, "name a folder, or a URL of s3:// or gs://"),
    "a file URL": ({"store": "file:///data/out"}, "name a folder"),
    "options of a folder": ({"storage_options": {"anon": True}}, "output.storage_options are given for .*leave them"),
    "no such bucket": ({"store": "s3://no-such-bucket/out"}, "there is no bucket 'no-such-bucket'"),
    "options of s3fs alone": (
        {"storage_options": {"default_block_size": 7}, "store": "s3://BUCKET/out"},
        "cannot be written to s3://.*leave storage_options other than",
    ),
}


@pytest.mark.parametrize(("output", "said"), PLACES.values(), ids=PLACES)
def test_a_place_that_is_none_is_refused_before_anything_is_read(
    output: dict[str, Any], said: str, store: Path, bucket: Bucket, tmp_path: Path
) -> None:
    named = {"store": str(tmp_path / "out"), **output}
    named["store"] = named["store"].replace("BUCKET", bucket.name)
    with pytest.raises((OutputError, ConfigError, SourceError), match=said) as caught:
        run_fit(job(store, "", output=named), Notes())
    assert "\n" not in str(caught.value)
    assert bucket.content() == {}
    assert not (tmp_path / "out").exists()
