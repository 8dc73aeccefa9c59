from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import clustering as c
from clustering.data.access import open_source
from clustering.data.source import Source
from clustering.errors import OutputError
from clustering.execution.engine import connect
from clustering.execution.passes import PassResult, PassRunner, pass_runner
from clustering.fitting.labelling import LabelOutputs, LabelStatistics
from clustering.storage import label_pass
from clustering.storage.label_pass import LABELS, write_labels
from clustering.storage.ledger import FOLDER, Ledger

MIXTURE = c.GaussianMixture(3, "diagonal")
OUTPUTS = LabelOutputs(responsibilities="max", margin=True)
BLOCKS = 12


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = np.random.default_rng(0).standard_normal((6000, 2)) * [1.0, 3.0]
    path = tmp_path_factory.mktemp("store") / "rows.zarr"
    data = xr.Dataset({"x": (("row", "feature"), values)})
    data.to_zarr(path, consolidated=False, zarr_format=3, encoding={"x": {"chunks": (500, 2)}})
    return path


@pytest.fixture(scope="module")
def fit(store: Path) -> c.Fit:
    return c.fit(store, MIXTURE, sample_dims=["row"], max_iterations=3)


@contextmanager
def at_work(store: Path, cluster: Any = "threads") -> Iterator[PassRunner]:
    source: Source = open_source(store, sample_dims=["row"])
    plan = source.plan(block_bytes=8000, whole_chunks=False)
    assert len(plan) == BLOCKS
    with connect(cluster, 2) as engine, pass_runner(source, plan, engine, memory=2**26, keep=False) as inside:
        yield inside


def attempt(store: Path, fit: c.Fit, folder: Path, outputs: LabelOutputs = OUTPUTS, **options: Any) -> PassResult:
    with at_work(store, **options) as inside:
        return write_labels(inside, fit.fitted, folder, {"run": "a1"}, outputs)


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted((folder / LABELS).rglob("*")) if f.is_file()}


def bits(passed: PassResult) -> bytes:
    sums: LabelStatistics = passed.statistics[0]
    return pickle.dumps((sums.objective, sums.weight.tobytes(), sums.rows.tobytes(), sums.entropy))


@pytest.fixture(scope="module")
def calm(store: Path, fit: c.Fit, tmp_path_factory: pytest.TempPathFactory) -> tuple[PassResult, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("calm")
    passed = attempt(store, fit, folder)
    assert passed.read_stats.blocks == BLOCKS
    assert len(Ledger(folder / FOLDER)) == BLOCKS
    return passed, content(folder)


class Stop(BaseException):
    pass


def stop_after(monkeypatch: pytest.MonkeyPatch, records: int) -> None:
    """Raise `Stop`, as if the process ended, before a further record is written."""
    keep = Ledger.save

    def limited(self: Ledger, index: int, statistics: Any) -> None:
        if len(self) >= records:
            raise Stop
        keep(self, index, statistics)

    monkeypatch.setattr(Ledger, "save", limited)


@pytest.mark.parametrize("cluster", ["synchronous", pytest.param("local", marks=pytest.mark.slow)])
def test_finished_blocks_are_neither_read_nor_made_again(
    cluster: str, store: Path, fit: c.Fit, calm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stop_after(patched, 5)
        with pytest.raises(Stop):
            attempt(store, fit, tmp_path, cluster="synchronous")
    ledger = Ledger(tmp_path / FOLDER)
    assert len(ledger) == 5
    touched = {f: os.stat(tmp_path / f).st_mtime_ns for f in content(tmp_path)}
    resumed: list[int] = []
    with at_work(store, cluster) as inside:
        again = write_labels(inside, fit.fitted, tmp_path, {"run": "a1"}, OUTPUTS, resumed.append)
    assert resumed == [5]
    assert again.read_stats.blocks == BLOCKS - 5
    assert again.read_stats.bytes == (BLOCKS - 5) * 8000
    passed, files = calm
    assert bits(again) == bits(passed)
    assert content(tmp_path) == files
    # One block was written without a record, so it was written again; the chunks of the five with records stayed.
    same = [f for f, time in touched.items() if os.stat(tmp_path / f).st_mtime_ns == time]
    assert sum("/c/" in f for f in same) == 5 * 3
    # A third attempt reuses all blocks.
    third = attempt(store, fit, tmp_path)
    assert third.read_stats.blocks == 0
    assert bits(third) == bits(passed)


def test_what_is_lost_is_made_again(store: Path, fit: c.Fit, calm: Any, tmp_path: Path) -> None:
    attempt(store, fit, tmp_path)
    ledger = Ledger(tmp_path / FOLDER)
    (tmp_path / LABELS / "labels" / "c" / "3").unlink()
    (tmp_path / LABELS / "responsibility" / "c" / "3").unlink()
    (tmp_path / LABELS / "margin" / "c" / "7").write_bytes(b"")
    (tmp_path / LABELS / "margin" / "c" / "8.0123.partial").write_bytes(b"half")
    # The temporary file of a record that was being written when the run was killed is no record.
    (tmp_path / FOLDER / ".block-00000009.0123abcd").write_bytes(b"half")
    ledger.drop(9)
    assert len(ledger) == BLOCKS - 1
    damaged = ledger._file(10)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = attempt(store, fit, tmp_path)
    assert again.read_stats.blocks == 4
    passed, files = calm
    assert bits(again) == bits(passed)
    assert content(tmp_path) == files


@pytest.mark.parametrize("other", ["variables", "params", "header"])
def test_another_wish_starts_anew(other: str, store: Path, fit: c.Fit, tmp_path: Path) -> None:
    attempt(store, fit, tmp_path)
    outputs = OUTPUTS
    match other:
        case "variables":
            outputs = LabelOutputs(distance=True)
        case "params":
            fit = c.fit(store, MIXTURE, sample_dims=["row"], max_iterations=1)
        case "header":
            (tmp_path / FOLDER / "wish.json").write_text("nonsense")
    assert attempt(store, fit, tmp_path, outputs).read_stats.blocks == BLOCKS
    with xr.open_zarr(tmp_path / LABELS, consolidated=False, chunks=None) as dataset:
        expected = {"labels", "distance"} if other == "variables" else {"labels", "responsibility", "margin"}
        assert set(dataset.data_vars) == expected
        np.testing.assert_array_equal(dataset["labels"], fit.predict(store, sample_dims=["row"]))


def test_files_that_vanish_again_and_again_end_in_one_line(
    store: Path, fit: c.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Ledger.save

    def vanish(self: Ledger, index: int, statistics: Any) -> None:
        if index == 2:
            (tmp_path / LABELS / "labels" / "c" / "2").unlink()
        keep(self, index, statistics)

    monkeypatch.setattr(label_pass.Ledger, "save", vanish)
    with pytest.raises(OutputError, match="are missing although they were written twice") as caught:
        attempt(store, fit, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / LABELS) in str(caught.value)
