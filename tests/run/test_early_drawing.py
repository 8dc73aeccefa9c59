"""Pictures of the model are drawn while labels are written, and the report is the one that is drawn afterwards."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from notes import Crash, Notes

from clustering.config import JobConfig, check_config
from clustering.data.source import Source
from clustering.report import model_figures, samples
from clustering.report.figures import Figure
from clustering.report.model_figures import ModelFigures
from clustering.run import job as run_job
from clustering.run import label as run_label
from clustering.run.job import run_fit, run_predict
from clustering.run.report import redo_report
from clustering.storage.names_file import write_names

DrawIn = Callable[..., Any]


def photograph(path: Path) -> dict[str, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    xr.Dataset({"image": (("y", "x", "band"), pixels)}).to_zarr(path, consolidated=False, zarr_format=3)
    return {"source": {"store": str(path), "sample_dims": ["y", "x"]}, "model": {"k": 4}}


def rows(path: Path, d: int, **job: Any) -> dict[str, Any]:
    values = np.random.default_rng(1).standard_normal((400, d))
    zarr.create_array(str(path), shape=values.shape, chunks=(100, d), dtype="f8")[:] = values
    return {"source": {"store": str(path)}, **job}


JOBS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "kmeans": lambda path: rows(path, 5, model={"k": 3}, fit={"max_iterations": 2}),
    "many clusters, whose order by size changes": lambda path: rows(
        path, 5, model={"k": 30}, fit={"max_iterations": 1, "sample_rows": 60}
    ),
    "no pass": lambda path: rows(path, 5, model={"k": 3}, fit={"max_iterations": 0}),
    "mixture, with its samples": lambda path: rows(path, 2, model={"kind": "gaussian_mixture", "k": 2}),
    "part of the rows": lambda path: rows(path, 5, model={"k": 3}, fit={"fraction": 0.5}),
    "photograph": photograph,
    "photograph, softly": lambda path: (
        photograph(path) | {"model": {"kind": "soft_kmeans", "k": 4}, "fit": {"max_iterations": 5}}
    ),
}


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., JobConfig]:
    def make(content: dict[str, Any], out: str = "out") -> JobConfig:
        return check_config({**content, "output": {"store": str(tmp_path / out), "report": True}})

    return make


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that drew the pictures of a model."""
    threads: list[str] = []
    draw = ModelFigures.draw

    def watched(*inputs: Any, **options: Any) -> ModelFigures:
        threads.append(threading.current_thread().name.removesuffix("_0"))
        return draw(*inputs, **options)

    monkeypatch.setattr(ModelFigures, "draw", watched)
    return threads


def shown(page: Path) -> list[str]:
    """Return what a report draws, with titles and captions. Its header also says how long the run took."""
    parts = re.findall("<figure.*?</figure>", page.read_text(), re.DOTALL)
    assert parts
    return parts


@pytest.mark.parametrize("name", JOBS)
def test_a_report_is_the_same_whether_drawn_beside_the_labels_or_afterwards(
    name: str, job: Callable[..., JobConfig], tmp_path: Path, drawn: list[str]
) -> None:
    config = job(JOBS[name](tmp_path / "source"))
    run_fit(config, Notes())
    assert drawn == ["report"]
    beside = shown(tmp_path / "out/report.html")
    assert shown(redo_report(str(tmp_path / "out"))) == beside
    assert drawn[1:] == [threading.current_thread().name]


def test_a_prediction_draws_its_model_beside_the_labels_too(
    job: Callable[..., JobConfig], tmp_path: Path, drawn: list[str]
) -> None:
    content = JOBS["kmeans"](tmp_path / "source")
    run_fit(job(content), Notes())
    run_predict(str(tmp_path / "out"), job(content, "labelled"), Notes())
    assert drawn == ["report", "report"]
    beside = shown(tmp_path / "labelled/report.html")
    assert shown(redo_report(str(tmp_path / "labelled"))) == beside


def test_pictures_are_begun_before_labels_are_written(
    job: Callable[..., JobConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The label pass waits for a picture here, so a report that waits for the labels would never be drawn."""
    curve, begun = model_figures.cost, threading.Event()

    def noted(*inputs: Any) -> Figure:
        begun.set()
        return curve(*inputs)

    write = run_label.write_labels

    def late(*inputs: Any, **options: Any) -> Any:
        assert begun.wait(60)
        return write(*inputs, **options)

    monkeypatch.setattr(model_figures, "cost", noted)
    monkeypatch.setattr(run_label, "write_labels", late)
    run_fit(job(JOBS["kmeans"](tmp_path / "source")), Notes())
    assert (tmp_path / "out/report.html").is_file()


def test_rows_are_read_for_the_pictures_before_there_is_a_model(
    job: Callable[..., JobConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fit waits for the rows here, so a job that reads them afterwards would never end."""
    read, all_read = samples.read_rows, threading.Event()

    def noted(source: Source) -> Any:
        rows = read(source)
        all_read.set()
        return rows

    passes = run_job.fit

    def late(*inputs: Any, **options: Any) -> Any:
        assert all_read.wait(60)
        return passes(*inputs, **options)

    monkeypatch.setattr(samples, "read_rows", noted)
    monkeypatch.setattr(run_job, "fit", late)
    run_fit(job(JOBS["kmeans"](tmp_path / "source")), Notes())
    assert (tmp_path / "out/report.html").is_file()


def test_names_that_are_given_while_labels_are_written_are_in_the_report(
    job: Callable[..., JobConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[str]
) -> None:
    write = run_label.write_labels

    def named(*inputs: Any, **options: Any) -> Any:
        passed = write(*inputs, **options)
        while not drawn:
            threading.Event().wait(0.01)
        write_names(tmp_path / "out", {"0": {"name": "calm", "colour": "#123456"}})
        return passed

    monkeypatch.setattr(run_label, "write_labels", named)
    run_fit(job(JOBS["kmeans"](tmp_path / "source")), Notes())
    beside = shown(tmp_path / "out/report.html")
    assert "calm" in (tmp_path / "out/report.html").read_text()
    assert shown(redo_report(str(tmp_path / "out"))) == beside


def test_a_picture_that_fails_at_first_is_drawn_again(
    job: Callable[..., JobConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = model_figures.cost

    def broken_beside(*inputs: Any) -> Figure:
        if threading.current_thread().name == "report":
            raise MemoryError
        return curve(*inputs)

    monkeypatch.setattr(model_figures, "cost", broken_beside)
    record = run_fit(job(JOBS["kmeans"](tmp_path / "source")), Notes())
    assert not [warning for warning in record["warnings"] if "report" in warning]
    beside = shown(tmp_path / "out/report.html")
    assert shown(redo_report(str(tmp_path / "out"))) == beside


def test_a_picture_that_fails_does_not_cost_the_labels(
    job: Callable[..., JobConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Figure:
        raise RuntimeError("no such font")

    content = JOBS["kmeans"](tmp_path / "source")
    run_fit(job(content, "whole"), Notes())
    with monkeypatch.context() as patch:
        patch.setattr(model_figures, "cost", broken)
        record = run_fit(job(content), Notes())
    assert "no report could be drawn (no such font); 'clustering report' tries again" in record["warnings"]
    labels = [zarr.open_array(str(tmp_path / out / "labels.zarr/labels"), mode="r")[:] for out in ("out", "whole")]
    assert np.array_equal(*labels)
    assert redo_report(str(tmp_path / "out")).is_file()


def test_a_run_that_ends_in_the_label_pass_goes_on_to_the_same_pictures(
    job: Callable[..., JobConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = JOBS["mixture, with its samples"](tmp_path / "source")
    run_fit(job(content, "whole"), Notes())

    def crash(*_: Any, **__: Any) -> Any:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(run_label, "write_labels", crash)
        with pytest.raises(Crash):
            run_fit(job(content), Notes())
    run_fit(job(content), Notes())
    assert shown(tmp_path / "out/report.html") == shown(tmp_path / "whole/report.html")
