"""Labels out of core are those in memory, go on after an interruption, and replace nothing of others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import clustering as c
from clustering.data import replacing
from clustering.errors import ConfigError, DataError, OutputError
from clustering.storage.labels import LabelWriter
from tests.run.notes import Crash

ROWS: dict[str, Any] = {
    "variables": ["t", "q"],
    "sample_dims": ["time", "lat", "lon"],
    "mask": "sea",
    "weights": "cos(lat)",
}
BLOCKS = 9
SMALL: dict[str, Any] = {**ROWS, "block": "1600B", "cluster": "synchronous"}
MODELS = [c.KMeans(3), c.SoftKMeans(3, beta=2.0), c.GaussianMixture(3), c.VonMisesFisher(3)]


@pytest.fixture
def fit(field_store: Path, monkeypatch: pytest.MonkeyPatch) -> c.Fit:
    monkeypatch.chdir(field_store.parent)
    return c.fit(field_store, c.KMeans(3), **ROWS)


def opened(path: Path | str) -> xr.Dataset:
    with xr.open_zarr(path, consolidated=False, chunks=None) as dataset:
        return dataset.load()


def content(folder: Path | str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def names(folder: Path | str = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


class Writes:
    """Counts the blocks that are written, and raises an error after a given number of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None, after: int = -1) -> None:
        self.blocks, write = 0, LabelWriter.__call__

        def counted(writer: LabelWriter, *given: Any) -> None:
            if error is not None and self.blocks == after:
                raise error
            write(writer, *given)
            self.blocks += 1

        monkeypatch.setattr(LabelWriter, "__call__", counted)


def interrupt(fit: c.Fit, data: Any, to: str, after: int = 4, **options: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Writes(patch, Crash(), after)
        with pytest.raises(Crash):
            fit.label(data, to=to, **{**SMALL, **options})
    assert f".{to}.unfinished" in names()


@pytest.mark.filterwarnings("ignore::clustering.ClusteringWarning")
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_outputs_are_those_in_memory(model: Any, field_store: Path, tmp_path: Path) -> None:
    fit = c.fit(field_store, model, **ROWS)
    outputs: dict[str, Any] = {"distance": True, "distances": True, "margin": True, "precision": "float64"}
    if model.kind != "kmeans":
        outputs["responsibilities"] = "all"
    if fit.criteria is not None:
        outputs |= {"log_density": True}
    written = opened(fit.label(field_store, to=tmp_path / "labels.zarr", block="1600B", **ROWS, **outputs))
    expected = {"labels": fit.predict} | {name: getattr(fit, name) for name in outputs if name != "precision"}
    assert set(expected) <= set(written.data_vars)
    for name, of in expected.items():
        xr.testing.assert_equal(
            written[name].drop_vars("cluster", errors="ignore").variable, of(field_store, **ROWS).variable
        )
    assert {"time", "lat", "lon"} <= set(written.coords)


def test_chunks_of_the_data_and_the_place_they_are_in_change_no_label(fit: c.Fit, field_store: Path) -> None:
    expected = fit.predict(field_store, **ROWS)
    data = opened(field_store)
    given: dict[str, tuple[Any, dict[str, Any]]] = {
        "stored": (field_store, {"block_bytes": 400}),
        "in-memory": (data, {}),
        "dask": (data.chunk(time=7, lat=2), {}),
        "mask-array": (field_store, {"mask": data["sea"]}),
    }
    for name, (source, options) in given.items():
        assert opened(fit.label(source, to=name, **{**ROWS, **options}))["labels"].equals(expected), name
    assert opened(fit.label(c.open_source(field_store, **ROWS), to="source"))["labels"].equals(expected)


@pytest.mark.parametrize("missing", ["drop", "marginalize"])
def test_rows_with_missing_features_are_labelled_as_in_memory(missing: Any, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((40, 3))
    fit = c.fit(rows, c.KMeans(2))
    rows[3, 1] = np.nan
    path = fit.label(rows, to=tmp_path / "labels", missing=missing)
    assert np.array_equal(opened(path)["labels"], fit.predict(rows, missing=missing))
    assert (opened(path)["labels"][3] == -1) == (missing == "drop")


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_its_own_is_refused_in_one_line_and_stays(
    overwrite: bool, fit: c.Fit, field_store: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "chapter.txt").write_text("three years of work")
    (tmp_path / "letter.txt").write_text("dear")
    (tmp_path / "link").symlink_to("folder")
    fit.save(tmp_path / "model.zarr")
    c.run(field_store, c.KMeans(2), output=tmp_path / "run", report=False, **ROWS)
    before = content(tmp_path)
    places = [
        "folder", "letter.txt", "letter.txt/x", "link", "model.zarr", "model.zarr/x", "field.zarr", "field.zarr/x",
        ".", "..", "", "/", "run", "run/x", "run/labels.zarr", "run/current/labels.zarr", "s3://bucket/x", "x" * 300,
    ]  # fmt: skip
    for place in places:
        with pytest.raises(OutputError) as caught:
            fit.label(field_store, to=place, overwrite=overwrite, **ROWS)
        assert "\n" not in str(caught.value), place
        assert content(tmp_path) == before, place


def test_own_labels_are_replaced_on_request_alone_and_never_where_they_are_the_source(
    fit: c.Fit, field_store: Path
) -> None:
    fit.label(field_store, to="labels.zarr", **ROWS)
    before = content("labels.zarr")
    with pytest.raises(OutputError, match=r"^'labels.zarr' exists; name another destination, or use overwrite=True$"):
        fit.label(field_store, to="labels.zarr", **ROWS)
    of_labels = c.fit("labels.zarr", c.KMeans(2), variables=["labels"], feature_dims=[])
    with pytest.raises(OutputError, match="is the source itself"):
        of_labels.label("labels.zarr", to="labels.zarr", overwrite=True)
    assert content("labels.zarr") == before
    fit.label(field_store, to="labels.zarr", overwrite=True, distance=True, **ROWS)
    assert "distance" in opened("labels.zarr")
    assert names() == ["field.zarr", "labels.zarr"]


@pytest.mark.parametrize("after", [0, 4, BLOCKS - 1])
def test_an_interrupted_call_goes_on_to_the_same_bytes(
    after: int, fit: c.Fit, field_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit.label(field_store, to="calm", **SMALL)
    interrupt(fit, field_store, "labels", after)
    writes = Writes(monkeypatch)
    fit.label(field_store, to="labels", **SMALL)
    assert writes.blocks == BLOCKS - after
    assert content("labels") == content("calm")
    assert names() == ["calm", "field.zarr", "labels"]


OTHERS: dict[str, dict[str, Any]] = {
    "outputs": {"distance": True},
    "mask": {"mask": "sea > 0.7"},
    "comparison": {"mask": "sea > 0.9"},
    "select": {"isel": {"time": slice(0, 10)}},
    "missing": {"missing": "error"},
    "blocks": {"block": "1MB"},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_call_after_an_interruption_starts_anew(
    what: str, fit: c.Fit, field_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**SMALL, **OTHERS[what]}
    with pytest.MonkeyPatch.context() as patch:
        writes = Writes(patch)
        fit.label(field_store, to="calm", **options)
    interrupt(fit, field_store, "labels", mask="sea > 0.7" if what == "comparison" else "sea")
    again = Writes(monkeypatch)
    fit.label(field_store, to="labels", **options)
    assert again.blocks == writes.blocks
    assert content("labels") == content("calm")


def test_another_model_after_an_interruption_starts_anew(fit: c.Fit, field_store: Path) -> None:
    other = c.fit(field_store, c.KMeans(2), **ROWS)
    other.label(field_store, to="calm", **SMALL)
    interrupt(fit, field_store, "labels")
    other.label(field_store, to="labels", **SMALL)
    assert content("labels") == content("calm")


def test_data_in_memory_that_changed_start_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).random((90, 2))
    fit = c.fit(rows, c.KMeans(3))
    options: dict[str, Any] = {"block_bytes": 160, "cluster": "synchronous"}
    interrupt(fit, rows, "labels", 3, **{**dict.fromkeys(ROWS), **options})
    fit.label(rows[::-1], to="labels", **options)
    assert np.array_equal(opened("labels")["labels"], fit.predict(rows[::-1]))


def test_a_full_disk_is_reported_in_one_line_and_leaves_the_place_as_it_was(
    fit: c.Fit, field_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Writes(patch, OSError(28, "No space left on device"), 4)
        with pytest.raises(OutputError, match=r"cannot write .*labels.*No space left on device"):
            fit.label(field_store, to="labels", **SMALL)
    assert not Path("labels").exists()
    writes = Writes(monkeypatch)
    fit.label(field_store, to="labels", **SMALL)
    assert writes.blocks == BLOCKS - 4


def test_faults_of_the_data_leave_nothing(fit: c.Fit, field_store: Path) -> None:
    with pytest.raises(DataError, match="no row"):
        fit.label(field_store, to="deeper/labels", **{**SMALL, "mask": "sea > 2"})
    assert not Path("deeper").exists() or names("deeper") == []


@pytest.mark.slow
@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_call_that_was_killed_in_the_switch_mixes_nothing_up(
    moment: str, swaps: bool, fit: c.Fit, field_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replaced labels then lie in the staging folder, beside the records of the new ones."""
    other = c.fit(field_store, c.KMeans(2), **ROWS)
    other.label(field_store, to="labels", **SMALL)
    fit.label(field_store, to="calm", **SMALL)
    switch = replacing._switch

    def killed(*given: Path) -> None:
        if moment == "after":
            switch(*given)
        raise Crash

    if not swaps:
        monkeypatch.setattr(replacing, "_exchange", lambda *_: False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replacing, "_switch", killed)
        with pytest.raises(Crash):
            fit.label(field_store, to="labels", overwrite=True, **SMALL)
    assert (content("labels") == content("calm")) == (moment == "after")
    with pytest.raises(OutputError, match="exists"):
        fit.label(field_store, to="labels", **SMALL)
    assert names() == ["calm", "field.zarr", "labels"]
    fit.label(field_store, to="labels", overwrite=True, **SMALL)
    assert content("labels") == content("calm")


def test_options_are_checked_before_anything_is_read(fit: c.Fit) -> None:
    with pytest.raises(ConfigError, match="unknown option 'distanc'; did you mean 'distance'"):
        fit.label("nowhere", to="labels", distanc=True)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="option 'to' is missing"):
        fit.label("nowhere")  # type: ignore[call-arg]


KILLED = """
import json, os, signal, sys
import clustering as c
from clustering.storage.labels import LabelWriter

write, left = LabelWriter.__call__, [int(sys.argv[3])]

def counted(writer, *given):
    if left[0] == 0:
        if sys.argv[4] == "waits":
            print("here", flush=True)
            sys.stdin.read()
        os.kill(os.getpid(), signal.SIGKILL)
    write(writer, *given)
    left[0] -= 1

LabelWriter.__call__ = counted
c.load_fit(sys.argv[1]).label(sys.argv[2], to="labels", **json.loads(sys.argv[5]))
"""


@pytest.mark.slow
def test_a_killed_process_leaves_its_blocks_and_a_busy_one_keeps_others_off(
    fit: c.Fit, field_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit.save("model.zarr")
    fit.label(field_store, to="calm", **SMALL)
    command = [sys.executable, "-c", KILLED, "model.zarr", str(field_store), "4", "waits", json.dumps(SMALL)]
    environment = {**os.environ, "PYTHONPATH": str(Path(c.__file__).parents[1])}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "here\n"
        with pytest.raises(OutputError, match=r"^another process is writing 'labels'; wait for it, or name another"):
            fit.label(field_store, to="labels", **SMALL)
        process.stdin.close()
    assert process.returncode == -signal.SIGKILL
    writes = Writes(monkeypatch)
    fit.label(field_store, to="labels", **SMALL)
    assert writes.blocks == BLOCKS - 4
    assert content("labels") == content("calm")
    assert names() == ["calm", "field.zarr", "labels", "model.zarr"]
