from __future__ import annotations

import datetime
import errno
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

import clustering
from clustering.config import JobConfig, check_config
from clustering.errors import CheckpointError, DataError, OutputError
from clustering.run import initialize as run_initialize
from clustering.run.inspect import inspect_job
from clustering.run.job import run_fit, run_predict
from clustering.run.report import redo_report
from clustering.storage import labels as storage_labels


class Notes:
    """Keeps what a job says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.passes: list[Any] = []
        self.events: list[Any] = []
        self.record: Mapping[str, Any] | None = None
        self.pictures: Sequence[Any] = ()

    def say(self, line: str) -> None:
        self.said.append(line)

    def warn(self, line: str) -> None:
        self.warned.append(line)

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        return work()

    def working(self, engine: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        pass

    def passed(self, record: Any, rule: Any, reads: float) -> None:
        self.passes.append((record, reads))

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Any]) -> None:
        self.record, self.pictures = record, pictures


Make = Callable[..., JobConfig]


@pytest.fixture
def config(field_store: Path, tmp_path: Path) -> Make:
    """Makes configs that cluster the field into ``tmp_path / out``."""

    def make(out: str = "out", **sections: Any) -> JobConfig:
        content: dict[str, Any] = {
            "source": {
                "store": str(field_store),
                "variables": ["t", "q"],
                "sample_dims": ["time", "lat", "lon"],
                "mask": "sea",
                "weights": "cos(lat)",
            },
            "model": {"k": 4},
            "compute": {"workers": 2, "block": "1600B"},
            "output": {"store": str(tmp_path / out), "report": False},
        }
        for section, keys in sections.items():
            content.setdefault(section, {}).update(keys)
        return check_config(content)

    return make


def without_times(page: Path) -> str:
    """The report without its durations. Its own duration is not known while it is made."""
    text = re.sub(r"<tr><th scope=\"row\">time: .*?</tr>", "", page.read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<b>[\d.]+ (s|min)</b>", "", text))


def labels_of(out: Path) -> xr.DataArray:
    with xr.open_zarr(out / "labels.zarr", consolidated=False, chunks=None) as opened:
        return opened["labels"].load()


def brute_force(store: Path, out: Path) -> tuple[float, np.ndarray, np.ndarray]:
    """J, labels and shares of the clusters, computed from all rows at once."""
    with xr.open_zarr(store, consolidated=False, chunks=None) as data:
        rows = np.stack([data["t"].values, data["q"].values], -1).astype(np.float64)
        used = np.broadcast_to(data["sea"].values, rows.shape[:-1])
        weights = np.broadcast_to(np.cos(np.deg2rad(data["lat"].values))[:, None], rows.shape[:-1])
    with xr.open_zarr(out / "model.zarr", consolidated=False) as model:
        centers = model["centers"].values
    distances = ((rows[..., None, :] - centers) ** 2).sum(-1)
    labels = np.where(used, distances.argmin(-1), -1)
    objective = float((weights * distances.min(-1))[used].sum())
    shares = np.array([weights[labels == c].sum() for c in range(len(centers))])
    return objective, labels, shares / shares.sum()


def test_a_run_leaves_what_it_promises(config: Make, field_store: Path, tmp_path: Path) -> None:
    watch, out = Notes(), tmp_path / "out"
    job = config(output={"report": True}, source={"storage_options": {}})
    record = run_fit(job, watch)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads((out / "run.json").read_text(), parse_constant=refuse) == record
    objective, labels, shares = brute_force(field_store, out)
    assert record["objective"] == pytest.approx(objective, rel=1e-12)
    assert np.array_equal(labels_of(out), labels)
    fit = clustering.load_fit(out)
    assert fit.objective == record["objective"]
    assert np.allclose(fit.weights, shares, rtol=1e-12)
    with xr.open_zarr(field_store, consolidated=False, chunks=None) as data:
        cells, rows = data["t"].size, int(data["sea"].values.sum()) * data.sizes["time"]
        stored = data["t"].nbytes + data["q"].nbytes
    expected = {
        "status": "finished",
        "kind": "kmeans",
        "k": 4,
        "source": str(field_store),
        "n_rows": rows,
        "n_features": 2,
        "n_masked": cells - rows,
        "n_sampled": rows,
        "iterations": len(fit.history),
        "converged": True,
        "stop_reason": "converged",
        "reads": 1,
        "bytes_read": stored,
        "residency": {**record["residency"], "scratch": 0, "source": 0},
        "seed": 0,
        "warnings": [],
    }
    assert {key: record[key] for key in expected} == expected
    assert set(record["seconds"]) == {"sample", "fit", "label", "report", "total"}
    parts = [seconds for stage, seconds in record["seconds"].items() if stage != "total"]
    assert record["seconds"]["total"] == pytest.approx(sum(parts), abs=1e-3)
    assert record["peak_rss_bytes"] > 50 * 2**20
    assert re.fullmatch("[0-9a-f]{64}", record["config_sha256"])
    assert re.fullmatch("[0-9a-f]{64}", record["source_fingerprint"])
    assert record["versions"]["numpy"] == np.__version__
    assert {"python", "zarr-clustering", "zarr", "xarray", "dask", "numba"} <= set(record["versions"])
    assert watch.record == record
    assert [p.title for p in watch.pictures] == [
        "Labels", "Sizes", "Centers", "Cost curve", "Simplified silhouettes",
    ]  # fmt: skip
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", ".output.json", "checkpoints", "current", "labels.zarr", "model.zarr", "report.html", "run.json",
        "versions",
    ]  # fmt: skip


def test_model_and_labels_name_the_run_that_made_them(config: Make, tmp_path: Path) -> None:
    record = run_fit(config(), Notes())
    for part in ("model.zarr", "labels.zarr"):
        attributes = json.loads((tmp_path / "out" / part / "zarr.json").read_text())["attributes"]
        for key in ("run", "source", "config_sha256", "source_fingerprint"):
            assert attributes[key] == record[key]
        assert attributes["version"] == record["versions"]["zarr-clustering"]


def test_the_config_in_the_record_runs_the_same_job(config: Make, tmp_path: Path) -> None:
    job = config(source={"isel": {"time": {"start": 1, "stop": 9}}})
    record = run_fit(job, Notes())
    again = JobConfig.model_validate(record["config"])
    assert again.result_keys == job.result_keys
    repeated = run_fit(again.model_copy(update={"output": config("again").output}), Notes())
    assert repeated["config_sha256"] == record["config_sha256"]
    assert repeated["objective"] == record["objective"]


def test_every_pass_is_reported(config: Make) -> None:
    watch = Notes()
    record = run_fit(config(fit={"sample_rows": 50, "init": "random"}), watch)
    assert [pass_record.iteration for pass_record, _ in watch.passes] == list(range(1, record["iterations"] + 1))
    objectives = [pass_record.objective for pass_record, _ in watch.passes]
    assert objectives == sorted(objectives, reverse=True)
    assert watch.passes[-1][1] == record["reads"]
    assert watch.said[0].startswith("source ")


STEPS = ["open", "sample", "fit", "label", "report"]


def test_the_steps_are_run_in_turn_by_whoever_runs_them(config: Make) -> None:
    done = []

    def step(name: str, work: Callable[[], Any]) -> Any:
        done.append(name)
        return work()

    run_fit(config(), Notes(), step)
    assert done == STEPS


def test_a_selection_inside_a_chunk_is_read_once_more_for_its_labels(
    config: Make, field_store: Path, tmp_path: Path
) -> None:
    record = run_fit(config(source={"isel": {"time": {"start": 2, "stop": 11}}}), Notes())
    assert record["reads"] == 2
    labels = labels_of(tmp_path / "out")
    assert np.array_equal(labels, brute_force(field_store, tmp_path / "out")[1][2:11])


def test_rows_beyond_the_memory_budget_are_read_in_every_pass(config: Make, field_store: Path) -> None:
    sections = {"fit": {"sample_rows": 50, "init": "random", "accelerate": "none"}, "compute": {"memory": "6400B"}}
    record = run_fit(config(**sections), Notes())
    assert 1 < record["reads"] <= record["iterations"] + 2
    with xr.open_zarr(field_store, consolidated=False, chunks=None) as data:
        once = data["t"].nbytes + data["q"].nbytes
    # Pass 0 reads everything, and each pass after it reads what lives in the source alone.
    passes, rest = divmod(record["bytes_read"] - once, record["residency"]["source"])
    assert (passes, rest) == (record["iterations"] + 1, 0)


def test_a_run_says_where_its_rows_lived_as_the_inspection_did(config: Make, tmp_path: Path) -> None:
    for compute in ({}, {"memory": "6400B", "scratch": str(tmp_path / "scratch")}):
        # Passes over near rows alone would take the memory of the other rows.
        sections = {"fit": {"accelerate": "none"}, "output": {"store": str(tmp_path / f"out{len(compute)}")}}
        job = config(compute=compute, **sections)
        expected = inspect_job(job)["forecast"]["residency"]
        lives = run_fit(job, Notes())["residency"]
        assert lives["workers"] == {"threads": {name: lives[name] for name in ("memory", "scratch")}}
        assert (lives["scratch"] > 0, lives["source"]) == (bool(compute), 0)
        # The probe looks at some of the blocks, and whole blocks alone have room.
        assert lives["memory"] + lives["scratch"] == pytest.approx(expected["memory"] + expected["scratch"], rel=0.1)
        assert lives["memory"] == pytest.approx(expected["memory"], rel=0.5)


def test_scratch_is_emptied(config: Make, tmp_path: Path) -> None:
    compute = {"memory": "6400B", "scratch": str(tmp_path / "scratch")}
    record = run_fit(config(compute=compute), Notes())
    assert record["reads"] == 1
    assert list((tmp_path / "scratch").iterdir()) == []


def test_parts_that_are_not_wanted_are_not_made(config: Make, tmp_path: Path) -> None:
    record = run_fit(config(output={"labels": False}), Notes())
    assert record["reads"] == 1
    assert not (tmp_path / "out" / "labels.zarr").exists()
    assert not (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "out" / "model.zarr").is_dir()


def test_a_limit_on_the_passes_is_reported(config: Make) -> None:
    sections = {"fit": {"max_iterations": 1, "sample_rows": 50, "init": "random"}}
    record = run_fit(config(**sections), Notes())
    assert (record["converged"], record["stop_reason"], record["iterations"]) == (False, "max_iterations", 1)
    assert "max_iterations" in record["warnings"][0]


def test_a_finished_output_is_refused_and_replaced_only_on_demand(config: Make, tmp_path: Path) -> None:
    first = run_fit(config(), Notes())
    with pytest.raises(OutputError, match=r"holds a finished run; set output\.overwrite"):
        run_fit(config(), Notes())
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == first
    second = run_fit(config(model={"k": 3}, output={"overwrite": True}), Notes())
    assert second["run"] != first["run"]
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == second


def test_a_run_that_was_finished_meanwhile_is_not_replaced(config: Make, tmp_path: Path) -> None:
    other: list[dict[str, Any]] = []

    def step(name: str, work: Callable[[], Any]) -> Any:
        result = work()
        if name == "open":
            other.append(run_fit(config(), Notes()))
        return result

    with pytest.raises(OutputError, match="holds a finished run"):
        run_fit(config(), Notes(), step)
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == other[0]


@pytest.mark.parametrize("at", STEPS)
def test_a_step_that_fails_publishes_nothing(at: str, config: Make, tmp_path: Path) -> None:
    def step(name: str, work: Callable[[], Any]) -> Any:
        if name == at:
            raise ArithmeticError(name)
        return work()

    with pytest.raises(ArithmeticError, match=at):
        run_fit(config(), Notes(), step)
    out = tmp_path / "out"
    if at in ("open", "sample"):
        assert not out.exists()
    else:
        # What was made before the failure stays, so that the run can go on from it.
        assert sorted(path.name for path in out.iterdir()) == [".lock", ".output.json", "checkpoints", "versions"]


def test_a_report_that_cannot_be_drawn_does_not_cost_the_result(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such font")

    watch = Notes()
    with monkeypatch.context() as patch:
        patch.setattr("clustering.report.page.draw", broken)
        record = run_fit(config(output={"report": True}), watch)
    fault = "no report could be drawn (no such font); 'clustering report' tries again"
    assert fault in record["warnings"]
    assert fault in watch.warned
    assert (tmp_path / "out/labels.zarr").exists()
    assert not (tmp_path / "out/report.html").exists()
    assert redo_report(str(tmp_path / "out")).is_file()


def test_what_places_the_samples_is_written_before_the_first_pass(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinates are not written again for the labels. A failure to write them costs no pass."""
    frames: list[Any] = []
    surveyed: list[dict[str, Any]] = []
    write, survey = storage_labels.write_frame, run_initialize.initialize

    def counted(path: Path, *options: Any) -> None:
        write(path, *options)
        frames.append(path)

    def looked(*options: Any) -> Any:
        group = zarr.open_group(frames[0], mode="r")
        surveyed.append({name: array[...] for name, array in group.arrays()})
        return survey(*options)

    for module in (run_initialize, storage_labels):
        monkeypatch.setattr(module, "write_frame", counted)
    monkeypatch.setattr(run_initialize, "initialize", looked)
    record = run_fit(config(), Notes())
    assert [path.parent.name for path in frames] == [record["run"]]
    (before,) = surveyed
    assert set(before) == {"time", "lat", "lon"}
    group = zarr.open_group(tmp_path / "out/labels.zarr", mode="r")
    assert all(np.array_equal(group[name][...], values) for name, values in before.items())
    assert "frame" not in group.attrs

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_initialize, "write_frame", full)
    watch = Notes()
    with pytest.raises(OSError, match="No space"):
        run_fit(config(output={"store": str(tmp_path / "other")}), watch)
    assert len(surveyed) == 1
    assert not (tmp_path / "other").exists()


def test_a_run_killed_in_its_passes_goes_on_with_what_places_the_samples(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_fit(config(output={"store": str(tmp_path / "whole")}), Notes())
    stopped = Notes()
    monkeypatch.setattr(stopped, "passed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_fit(config(), stopped)
    (version,) = (tmp_path / "out/versions").iterdir()
    assert set(zarr.open_group(version / "labels.zarr", mode="r").array_keys()) == {"time", "lat", "lon"}

    def again(*_: Any) -> None:
        raise AssertionError("written twice")

    monkeypatch.setattr(storage_labels, "write_frame", again)
    record = run_fit(config(), Notes())
    assert (record["run"], record["objective"]) == (version.name, whole["objective"])
    one, other = (xr.open_zarr(tmp_path / name / "labels.zarr", consolidated=False) for name in ("out", "whole"))
    assert one.drop_attrs(deep=False).identical(other.drop_attrs(deep=False))


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_coordinate_that_cannot_be_written_does_not_cost_the_result(
    config: Make, field_store: Path, tmp_path: Path, when: str
) -> None:
    """The coordinate is left out with a warning, before the first pass if possible. `inspect` reports it too."""
    chunk = field_store / "place/c/0/0"
    group = zarr.open_group(field_store)
    group.create_array("place", data=np.ones((9, 10)), dimension_names=["lat", "lon"])
    for name in ("t", "q"):
        group[name].attrs["coordinates"] = "place"
    watch = Notes()

    def step(name: str, work: Callable[[], Any]) -> Any:
        if name == {"before": "open", "during": "sample"}[when]:
            chunk.write_bytes(b"nothing")
        return work()

    record = run_fit(config(output={"report": True}), watch, step)
    fault = "coordinate 'place' is left out of labels.zarr: it cannot be read"
    assert [line for line in record["warnings"] if line.startswith(fault)]
    assert len([line for line in watch.warned if line.startswith(fault)]) == 1
    with xr.open_zarr(tmp_path / "out/labels.zarr", consolidated=False, chunks=None) as opened:
        assert set(opened["labels"].coords) == {"time", "lat", "lon"}
    assert (tmp_path / "out/report.html").exists()
    if when == "before":
        assert [line for line in inspect_job(config())["advice"] if line.startswith(fault)]


def test_a_mask_by_comparison_goes_through_fit_predict_and_going_on(
    config: Make, field_store: Path, tmp_path: Path
) -> None:
    """The cells of a comparison are labelled by both, and another comparison is another run."""
    with xr.open_zarr(field_store, consolidated=False, chunks=None) as data:
        south = np.broadcast_to(
            data["lat"].values[None, :, None] < -10, [data.sizes[d] for d in ("time", "lat", "lon")]
        )
    mask = {"mask": "lat < -10"}
    run_fit(config(source=mask), Notes())
    run_predict(str(tmp_path / "out"), config("new", source=mask), Notes())
    for out in ("out", "new"):
        assert np.array_equal(labels_of(tmp_path / out).values >= 0, south)
    with pytest.raises(KeyboardInterrupt):
        run_fit(config("third", source=mask), Notes(), interrupt)
    with pytest.raises(CheckpointError, match=r"source\.mask"):
        run_fit(config("third", source={"mask": "lat < 10"}), Notes())


def interrupt(name: str, work: Callable[[], Any]) -> Any:
    if name == "label":
        raise KeyboardInterrupt
    return work()


def test_names_that_cannot_be_read_stop_a_run_before_it_begins(config: Make, tmp_path: Path) -> None:
    """Names of clusters are looked at before the first pass, and `inspect` says what is wrong with them."""
    run_fit(config(), Notes())
    (tmp_path / "out/names.json").write_text("[1]")
    again = config(output={"overwrite": True})
    assert any("does not hold names by id" in fault for fault in inspect_job(again)["faults"])
    with pytest.raises(OutputError, match="does not hold names by id"):
        run_fit(again, Notes())


def test_predict_remembers_dimensions_and_says_what_it_could_not_compare(
    config: Make, field_store: Path, tmp_path: Path
) -> None:
    """A config need not name the dimensions again. Missing units cause a warning, and other units are refused."""
    run_fit(config(), Notes())
    expected = labels_of(tmp_path / "out")
    unnamed: Any = {"sample_dims": None, "variables": None, "mask": "sea"}
    run_predict(str(tmp_path / "out"), config("same", source=unnamed), Notes())
    assert labels_of(tmp_path / "same").equals(expected)
    array = zarr.open_group(field_store)["t"]
    array.attrs["units"] = ""
    record = run_predict(str(tmp_path / "out"), config("bare", source=unnamed), Notes())
    assert "the data have no units of 't': the same units are assumed" in record["warnings"]
    array.attrs["units"] = "degC"
    with pytest.raises(DataError, match=r"'degC'.*'K'.*plus 273.15"):
        run_predict(str(tmp_path / "out"), config("other", source=unnamed), Notes())


def test_predicting_equals_the_fits_own_prediction(config: Make, field_store: Path, tmp_path: Path) -> None:
    run_fit(config(source={"isel": {"time": {"start": 0, "stop": 5}}}), Notes())
    other = {"isel": {"time": {"start": 4}}, "mask": None}
    record = run_predict(str(tmp_path / "out"), config("new", source=other), Notes())
    fit = clustering.load_fit(tmp_path / "out")
    options = {
        "variables": ["t", "q"],
        "sample_dims": ["time", "lat", "lon"],
        "isel": other["isel"],
        "weights": "cos(lat)",
    }
    labels = labels_of(tmp_path / "new")
    xr.testing.assert_identical(labels.drop_attrs(), fit.predict(field_store, **options).drop_attrs())
    assert record["objective"] == pytest.approx(fit.score(field_store, **options), rel=1e-12)
    assert (record["n_rows"], record["n_masked"]) == (8 * 9 * 10, 0)
    assert record["reads"] == 1


def test_predicting_on_the_data_of_the_fit_gives_its_labels(config: Make, tmp_path: Path) -> None:
    record = run_fit(config(), Notes())
    predicted = run_predict(str(tmp_path / "out" / "model.zarr"), config("new"), Notes())
    assert np.array_equal(labels_of(tmp_path / "out"), labels_of(tmp_path / "new"))
    for key in ("objective", "n_rows", "n_masked", "k"):
        assert predicted[key] == record[key]


def test_the_report_of_a_prediction_is_about_its_data(config: Make, field_store: Path, tmp_path: Path) -> None:
    run_fit(config(), Notes())
    part = {"isel": {"time": {"start": 0, "stop": 3}}, "weights": None}
    record = run_predict(str(tmp_path / "out"), config("new", source=part, output={"report": True}), Notes())
    page = (tmp_path / "new" / "report.html").read_text()
    shown = re.search(r"<b>([^<]*)</b><span>J per unit weight", page)
    assert shown is not None
    # Without weights each row weighs 1.
    assert float(shown[1]) == pytest.approx(record["objective"] / record["n_rows"], rel=1e-5)


PROFILES = {
    "variables": ["t"],
    "sample_dims": ["time", "lon"],
    "feature_dims": ["lat"],
    "mask": None,
    "weights": None,
}
OTHER_FEATURES = {
    "fewer": ({}, {"variables": ["t"]}, "the data have 1 features and the model was fitted on 2"),
    "variables in another order": ({}, {"variables": ["q", "t"]}, "in another order"),
    "levels in another order": (PROFILES, {**PROFILES, "isel": {"lat": list(range(9))[::-1]}}, "in another order"),
}


@pytest.mark.parametrize(("fitted", "given", "said"), OTHER_FEATURES.values(), ids=OTHER_FEATURES)
def test_other_features_are_refused(
    fitted: dict[str, Any], given: dict[str, Any], said: str, config: Make, tmp_path: Path
) -> None:
    run_fit(config(source=fitted), Notes())
    with pytest.raises(DataError, match=said):
        run_predict(str(tmp_path / "out"), config("new", source=given), Notes())
    assert not (tmp_path / "new").exists()


def test_predicting_where_no_row_takes_part_is_refused(config: Make, field_store: Path, tmp_path: Path) -> None:
    run_fit(config(), Notes())
    with xr.open_zarr(field_store, consolidated=False) as data:
        data.assign(nowhere=data["sea"] & False)[["nowhere"]].to_zarr(field_store, mode="a", consolidated=False)
    with pytest.raises(DataError, match="no row takes part"):
        run_predict(str(tmp_path / "out"), config("new", source={"mask": "nowhere"}), Notes())
    assert not (tmp_path / "new").exists()


def test_a_fit_may_follow_a_prediction_in_the_same_place(config: Make, tmp_path: Path) -> None:
    run_fit(config(), Notes())
    run_fit(config("model"), Notes())
    run_predict(str(tmp_path / "model"), config(output={"overwrite": True}), Notes())
    with pytest.raises(OutputError, match="holds a finished run"):
        run_fit(config(), Notes())
    record = run_fit(config(model={"k": 2}, output={"overwrite": True}), Notes())
    assert record["k"] == 2


@pytest.mark.parametrize("gone", [False, True], ids=["source at hand", "source gone"])
def test_a_report_is_made_anew_from_the_files(gone: bool, config: Make, field_store: Path, tmp_path: Path) -> None:
    run_fit(config(output={"report": True}), Notes())
    page = tmp_path / "out" / "report.html"
    before = without_times(page)
    page.unlink()
    if gone:
        field_store.rename(tmp_path / "moved.zarr")
    assert redo_report(str(tmp_path / "out")) == page
    if not gone:
        assert without_times(page) == before
        return
    # Silhouettes are of rows of the source, and all else is in the files of the run.
    figures = [re.findall("<figure.*?</figure>", text) for text in (before, without_times(page))]
    assert [one for one in figures[0] if "Simplified silhouettes" not in one] == figures[1]


def test_no_report_is_made_of_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no finished run at") as caught:
        redo_report(str(tmp_path / "out"))
    assert str(tmp_path / "out") in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_dates_are_selected_as_yaml_reads_them(config: Make, field_store: Path) -> None:
    first, last = datetime.date(2001, 1, 3), datetime.date(2001, 1, 6)
    part = run_fit(config("a", source={"select": {"time": {"start": first, "stop": last}}}), Notes())
    listed = run_fit(config("b", source={"select": {"time": [first, last]}}), Notes())
    assert part["n_rows"] == 2 * listed["n_rows"]
    one = {"select": {"time": first}, "sample_dims": ["lat", "lon"]}
    assert run_fit(config("c", source=one), Notes())["n_rows"] * 2 == listed["n_rows"]


def test_labels_of_a_box_across_a_meridian_lie_on_the_longitudes_of_the_source(config: Make, tmp_path: Path) -> None:
    job = config(source={"bbox": [-75, -45, 75, 45]}, model={"kind": "kmeans", "k": 2})
    run_fit(job, Notes())
    source = job.source.model_dump(exclude={"store", "credentials"})
    with xr.open_zarr(tmp_path / "out" / "labels.zarr", consolidated=False) as written:
        assert written.lon.values.tolist() == [288.0, 324.0, 0.0, 36.0, 72.0]
        assert written.lat.values.tolist() == [40.0, 20.0, 0.0, -20.0, -40.0]
        labels = clustering.load_fit(tmp_path / "out").predict(job.source.store, **source)
        assert written.labels.drop_attrs().equals(labels.drop_attrs())
        assert (written.labels >= 0).any()


def test_what_a_user_should_know_is_remarked_once(config: Make, tmp_path: Path) -> None:
    watch, wishes = Notes(), {"responsibilities": "top", "top": 9, "distances": True, "margin": True}
    soft = {"kind": "soft_kmeans", "beta": 1.0}
    record = run_fit(config(model=soft, output=wishes), watch)
    remarks = [
        "output.top is 9 and k is 4: the responsibilities of all 4 clusters are written",
        "the source has no checksums: a flipped bit in a chunk would go unnoticed",
    ]
    assert record["remarks"] == remarks
    assert [watch.said.count(remark) for remark in remarks] == [1, 1]
    assert not set(remarks) & {*record["warnings"], *watch.warned}
    with xr.open_zarr(tmp_path / "out" / "labels.zarr", consolidated=False, chunks=None) as opened:
        assert opened.sizes["rank"] == 4
        assert opened["distances"].dims == ("time", "lat", "lon", "cluster")
        used = opened["labels"].values >= 0
        for name in ("distances", "margin"):
            assert np.array_equal(~np.isnan(opened[name].values).reshape(*used.shape, -1).any(-1), used)


def test_a_source_with_checksums_is_not_remarked_on(config: Make, field_store: Path, tmp_path: Path) -> None:
    with xr.open_zarr(field_store, consolidated=False, chunks=None) as data:
        data = data.load().drop_encoding()
    checked = {"compressors": [ZstdCodec(checksum=True)]}
    data.to_zarr(tmp_path / "checked.zarr", consolidated=False, zarr_format=3, encoding={"t": checked})
    assert run_fit(config(source={"store": str(tmp_path / "checked.zarr")}), Notes())["remarks"] == []


def test_a_dimension_called_like_that_of_a_result_is_refused_before_anything_is_read(
    config: Make, field_store: Path, tmp_path: Path
) -> None:
    with xr.open_zarr(field_store, consolidated=False, chunks=None) as data:
        renamed = data[["t", "q"]].rename(lat="cluster").load().drop_encoding()
    renamed.to_zarr(tmp_path / "renamed.zarr", consolidated=False, zarr_format=3)
    source = {"store": str(tmp_path / "renamed.zarr"), "sample_dims": ["time", "cluster", "lon"], "mask": None}
    plain = run_fit(config(source={**source, "weights": None}), Notes())
    assert plain["n_rows"] == 12 * 9 * 10
    with pytest.raises(OutputError, match="a sample dimension is called 'cluster', and so is one of output variable"):
        run_fit(config("other", source={**source, "weights": None}, output={"distances": True}), Notes())
    assert not (tmp_path / "other").exists()


def test_rows_that_unit_norm_leaves_out_are_counted_in_every_record(config: Make, field_store: Path) -> None:
    store = zarr.open_group(field_store, mode="r+")
    store["sea"][:2, :2] = True
    for name in ("t", "q"):
        store[name][3, :2, :2] = 0.0
    said = Notes()
    fitted = run_fit(config(preprocess={"unit_norm": True}), said)
    warnings = [line for line in fitted["warnings"] if "no direction" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("4 rows of zeros have no direction and are left out, as preprocess.unit_norm asks")
    assert said.warned.count(warnings[0]) == 1
    assert fitted["n_masked"] - 4 == 12 * (90 - int(store["sea"][:].sum()))
    again = Notes()
    predicted = run_predict(config().output.store, config("new"), again)
    assert warnings[0] in predicted["warnings"]
    assert again.warned.count(warnings[0]) == 1


def test_rows_beyond_float64_are_labelled_and_reported_in_the_record(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = np.concatenate([rng.normal(0.0, 1.0, (40, 2)), rng.normal(6.0, 1.0, (40, 2))])
    for name in ("near", "far"):
        zarr.save_array(str(tmp_path / f"{name}.zarr"), rows)
        rows[0] = [1e155, 1e155]

    def made(name: str) -> JobConfig:
        source, output = {"store": str(tmp_path / f"{name}.zarr")}, {"store": str(tmp_path / f"out-{name}")}
        return check_config({"source": source, "model": {"k": 2}, "output": {**output, "report": False}})

    run_fit(made("near"), Notes())
    record = run_predict(str(tmp_path / "out-near"), made("far"), Notes())
    assert [line for line in record["warnings"] if "beyond float64" in line]
    stored_record = json.loads((tmp_path / "out-far" / "run.json").read_text())
    assert stored_record["objective"] == np.finfo(float).max
    labels = labels_of(tmp_path / "out-far").values
    assert labels[0] == labels[-1]
