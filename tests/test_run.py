"""A run from Python equals a run from the command line with the same config, and fits as `fit` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import yaml
from s3 import Bucket

import clustering as c
from clustering.errors import CheckpointError, ClusteringWarning, ConfigError, OutputError
from clustering.run.report import redo_report
from clustering_flows.cli import run as command
from tests.run.notes import Crash
from tests.run.test_resume import results

ROWS: dict[str, Any] = {"variables": ["t", "q"], "sample_dims": ["time", "lat", "lon"], "mask": "sea"}
SMALL: dict[str, Any] = {"report": False, "block": "1600B", "workers": 2}
MODELS = [c.KMeans(3), c.SoftKMeans(3, beta=2.0), c.GaussianMixture(3, covariance="diagonal"), c.VonMisesFisher(3)]
TIMES = ("run", "seconds", "peak_rss_bytes", "finished_at", "promoted_at")


def record_of(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / "run.json").read_text())
    return record


def lasting(out: Path) -> dict[str, Any]:
    """The record, less what differs from run to run."""
    record = {name: value for name, value in record_of(out).items() if name not in TIMES}
    record["config"]["output"]["store"] = None
    return record


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "weights": ({"weights": "cos(lat)"}, {"source": {"weights": "cos(lat)"}}),
    "prepared": ({"standardize": "per_feature", "pca": 1}, {"preprocess": {"standardize": "per_feature", "pca": 1}}),
    "selected": (
        {"select": {"lat": slice(60, -60)}, "isel": {"lon": np.arange(5)}},
        {"source": {"select": {"lat": {"start": 60, "stop": -60}}, "isel": {"lon": [0, 1, 2, 3, 4]}}},
    ),
    "profiles": (
        {"sample_dims": ["lat", "lon"], "feature_dims": ["time"], "seed": 3, "restarts": 2},
        {"source": {"sample_dims": ["lat", "lon"], "feature_dims": ["time"]}, "fit": {"seed": 3, "restarts": 2}},
    ),
    "outputs": ({"distance": True, "margin": True}, {"output": {"distance": True, "margin": True}}),
}


@pytest.mark.filterwarnings("ignore::clustering.ClusteringWarning")
@pytest.mark.parametrize(
    ("model", "case"),
    [(model, "weights") for model in MODELS] + [(MODELS[0], case) for case in CASES if case != "weights"],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_it_is_the_job_of_the_command_and_the_fit_of_the_library(
    model: Any, case: str, field_store: Path, tmp_path: Path
) -> None:
    options, sections = CASES[case]
    done = c.run(field_store, model, output=tmp_path / "run", **{**SMALL, **ROWS, **options})
    given = {"kind": model.kind, "k": model.k}
    given |= {
        name: getattr(model, name) for name in ("beta", "covariance") if case == "weights" and hasattr(model, name)
    }
    config: dict[str, Any] = {
        "source": {"store": str(field_store), **ROWS},
        "model": given,
        "compute": {"block": "1600B", "workers": 2},
        "output": {"store": str(tmp_path / "command"), "report": False},
    }
    for section, keys in sections.items():
        config.setdefault(section, {}).update(keys)
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    assert command(["fit", str(tmp_path / "config.yml")]) == 0
    assert results(tmp_path / "run") == results(tmp_path / "command")
    assert lasting(tmp_path / "run") == lasting(tmp_path / "command")
    assert done.record == record_of(tmp_path / "run")
    fitting = {name: value for name, value in {**ROWS, **options}.items() if name not in ("distance", "margin")}
    fit = c.fit(field_store, model, block="1600B", **fitting)
    assert np.array_equal(done.fit.centers, fit.centers)
    assert done.labels["labels"].load().equals(fit.predict(field_store, **ROWS | {
        name: value for name, value in fitting.items() if name in ("select", "isel", "sample_dims", "feature_dims")
    }))  # fmt: skip


def test_a_run_says_what_it_is(field_store: Path, tmp_path: Path) -> None:
    done = c.run(field_store, c.KMeans(3), output=tmp_path / "out", **SMALL, **ROWS)
    assert done.published
    assert done.path == tmp_path / "out" / "versions" / done.name
    assert repr(done) == f"<Run {done.name}: kmeans, k = 3, published, at {done.path}>"
    assert done.labels.chunks
    second = c.run(field_store, c.KMeans(2), output=tmp_path / "out", overwrite=True, publish="manual", **SMALL, **ROWS)
    assert not second.published
    assert second.name != done.name
    assert record_of(tmp_path / "out")["run"] == done.name
    assert len(second.fit.ids) == 2
    assert "k = 2, waiting, at" in repr(second)


def test_a_finished_output_is_refused_in_the_words_of_python(field_store: Path, tmp_path: Path) -> None:
    first = c.run(field_store, c.KMeans(3), output=tmp_path / "out", **SMALL, **ROWS)
    with pytest.raises(OutputError, match=r"^output '.*' holds a finished run; set overwrite to true") as caught:
        c.run(field_store, c.KMeans(3), output=tmp_path / "out", **SMALL, **ROWS)
    assert "output." not in str(caught.value)
    assert record_of(tmp_path / "out")["run"] == first.name
    again = c.run(field_store, c.KMeans(3), output=tmp_path / "out", overwrite=True, **SMALL, **ROWS)
    assert again.record["repeats"] == first.name or again.name != first.name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mas": "sea"}, r"^unknown option 'mas'; did you mean 'mask'"),
        ({"gate": {"chrn": 1}}, r"^unknown option 'gate\.chrn'; did you mean 'churn'"),
        ({"storage_options": {"anon": True}}, r"^storage_options are given for the local store"),
        ({"output_options": {"anon": True}}, r"^output_options are given for"),
        ({"k": 3}, r"^unknown option 'k'"),
        ({"max_iterations": -1}, r"^max_iterations is -1"),
    ],
)
def test_options_are_named_as_they_are_given(options: Any, said: str, field_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        c.run(field_store, c.KMeans(3), output=tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_output_and_a_model_are_needed(field_store: Path) -> None:
    with pytest.raises(ConfigError, match=r"^option 'output' is missing; give it$"):
        c.run(field_store, c.KMeans(3))  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="cannot fit 3; give a model"):
        c.run(field_store, 3, output="out")  # type: ignore[arg-type]


# Interruptions


def stop_after(passes: int) -> Callable[[Any], None]:
    def stop(record: Any) -> None:
        if record.iteration == passes:
            raise Crash

    return stop


@pytest.fixture
def rows() -> np.ndarray:
    """Rows without clusters, so that many passes are needed."""
    return np.random.default_rng(2).random((3000, 2))


LONG: dict[str, Any] = {"init": "random", "restarts": 2, "sample_rows": 60, "max_iterations": 8, "report": False}


def test_an_interrupted_call_goes_on_to_the_same_bits(rows: np.ndarray, tmp_path: Path) -> None:
    calm = c.run(rows, c.KMeans(8), output=tmp_path / "calm", **LONG)
    for crash in (2, 5):
        with pytest.raises(Crash):
            c.run(rows, c.KMeans(8), output=tmp_path / "out", on_pass=stop_after(crash), **LONG)
    seen: list[int] = []
    done = c.run(
        rows, c.KMeans(8), output=tmp_path / "out", on_pass=lambda record: seen.append(record.iteration), **LONG
    )
    assert seen == [6, 7, 8]
    assert results(tmp_path / "out") == results(tmp_path / "calm")
    assert np.array_equal(done.fit.centers, calm.fit.centers)


CENTERS = np.random.default_rng(1).random((8, 2))
OTHERS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "model": (c.KMeans(7), {}, r"another config: k was 8 and is 7"),
    "seed": (c.KMeans(8), {"seed": 1}, r"another config: seed was 0 and is 1"),
    "centers": (c.KMeans(8), {"init": CENTERS + 0.5}, "init was 'array, sha256 .*' and is 'array, sha256"),
    "weights": (c.KMeans(8), {"weights": np.arange(3000.0)}, "another source"),
    "feature weights": (c.KMeans(8), {"feature_weights": np.array([1.0, 3.0])}, "feature_weights was"),
    "data": (c.KMeans(8), {"data": 1.0}, "another source"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_call_is_another_run(what: str, rows: np.ndarray, tmp_path: Path) -> None:
    model, options, said = OTHERS[what]
    common = {
        **LONG, "init": CENTERS, "weights": np.ones(3000), "feature_weights": np.array([1.0, 2.0]),
        "output": tmp_path / "out",
    }  # fmt: skip
    with pytest.raises(Crash):
        c.run(rows, c.KMeans(8), on_pass=stop_after(2), **common)
    data = rows + options.pop("data", 0.0)
    with pytest.raises(CheckpointError, match=said):
        c.run(data, model, **{**common, **options})


def test_a_run_from_the_current_model_reads_new_blocks_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    values = np.repeat([[0.0, 0.0], [9.0, 9.0]], 50, axis=0) + rng.random((100, 2))
    data = xr.Dataset({"x": (("row", "feature"), values)})
    data.to_zarr(tmp_path / "s.zarr", consolidated=False, encoding={"x": {"chunks": (20, 2)}})
    options: dict[str, Any] = {
        "output": tmp_path / "out", "init": "model", "sample_dims": ["row"], "block": "320B", "report": False,
    }  # fmt: skip
    first = c.run(tmp_path / "s.zarr", c.KMeans(2), **options)
    data.isel(row=slice(0, 40)).to_zarr(tmp_path / "s.zarr", append_dim="row", consolidated=False)
    second = c.run(tmp_path / "s.zarr", c.KMeans(2), **options)
    assert second.record["n_rows"] == 140
    assert second.record["followed"]["run"] == first.name if "run" in second.record["followed"] else True
    assert 0 < second.record["bytes_read"] < second.record["n_rows"] * 16 * 2
    assert second.labels.sizes["row"] == 140
    third = c.run(tmp_path / "s.zarr", c.KMeans(2), **options)
    assert third.record["repeats"] == second.name


# Data that no config can name


@pytest.mark.filterwarnings("error::clustering.ClusteringWarning")
@pytest.mark.parametrize("how", ["ndarray", "dask", "xarray", "source", "source with arrays", "arrays beside a path"])
def test_any_data_can_be_run_and_their_report_drawn_again(how: str, field_store: Path, tmp_path: Path) -> None:
    with xr.open_zarr(field_store, consolidated=False, chunks=None) as opened:
        field = opened.load()
    values = np.random.default_rng(0).random((60, 3))
    beside = {"mask": field["sea"], "weights": np.ones((12, 9, 10))}
    subset = {**ROWS, "isel": {"time": slice(0, 6)}}
    given: dict[str, tuple[Any, dict[str, Any]]] = {
        "ndarray": (values, {}),
        "dask": (da.from_array(values, chunks=(20, 3)), {}),
        "xarray": (field, subset),
        "source": (c.open_source(field_store, **subset), {}),
        "source with arrays": (c.open_source(field_store, **{**ROWS, **beside}), {}),
        "arrays beside a path": (field_store, {**ROWS, **beside, "feature_weights": np.array([1.0, 2.0])}),
    }
    data, options = given[how]
    done = c.run(data, c.KMeans(3), output=tmp_path / "out", init=_first_centers(data, options), **options)
    fit = c.fit(data, c.KMeans(3), init=_first_centers(data, options), **options)
    assert np.array_equal(done.fit.centers, fit.centers)
    assert done.record["warnings"] == []
    source = done.record["config"]["source"]
    if how == "source":
        assert source["store"] == str(field_store)
        assert source["isel"] == {"time": {"start": 0, "stop": 6}}
        assert source["mask"] == "sea"
    if how == "source with arrays":
        assert source["variables"] == ["t", "q"]
    if how == "arrays beside a path":
        assert source["mask"] == source["weights"] == "array"
    before = len((tmp_path / "out" / "report.html").read_text())
    redo_report(str(tmp_path / "out"))
    # Without its source, it is without figures of rows.
    assert len((tmp_path / "out" / "report.html").read_text()) > before / 3


def _first_centers(data: Any, options: dict[str, Any]) -> np.ndarray:
    """Centers in an array, which the record holds as a text."""
    return np.array(c.fit(data, c.KMeans(3), max_iterations=0, **options).centers)


def test_options_beside_an_opened_source_are_refused(field_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="option 'weights' cannot change a Source; give it when the source is opened"):
        c.run(c.open_source(field_store, **ROWS), c.KMeans(2), output=tmp_path / "out", weights="cos(lat)")


def test_cautions_name_options_as_python_does(field_store: Path, tmp_path: Path) -> None:
    first = c.run(field_store, c.KMeans(3), output=tmp_path / "out", **SMALL, **ROWS)
    with pytest.warns(ClusteringWarning, match=f"held back, and {first.name} stays the current version"):
        held = c.run(
            field_store, c.KMeans(2), output=tmp_path / "out", overwrite=True, publish="gate",
            gate={"objective": 0.0, "sizes": 0.0, "churn": 0.0}, **SMALL, **ROWS,
        )  # fmt: skip
    assert held.record["status"] == "held"
    assert not held.published


def test_secrets_of_storage_are_written_nowhere(bucket: Bucket, field_store: Path, tmp_path: Path) -> None:
    url = bucket.upload(field_store)
    secret = "wJalrXUtnFEMI"
    options = {"key": "AKIAEXAMPLE", "secret": secret, "client_kwargs": {"endpoint_url": bucket.server}}
    with pytest.raises(Crash):
        c.run(url, c.KMeans(3), output=tmp_path / "out", storage_options=options, on_pass=stop_after(1), **ROWS)

    def leaks() -> list[Path]:
        files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        return [path for path in files for word in (secret, "AKIAEXAMPLE") if word.encode() in path.read_bytes()]

    assert leaks() == []
    c.run(url, c.KMeans(3), output=tmp_path / "out", storage_options=options, **ROWS)
    assert leaks() == []
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


def test_an_output_may_be_in_a_bucket(bucket: Bucket, field_store: Path, tmp_path: Path) -> None:
    there = c.run(field_store, c.KMeans(3), output=f"{bucket.url}/out", **SMALL, **ROWS)
    here = c.run(field_store, c.KMeans(3), output=tmp_path / "out", **SMALL, **ROWS)
    assert there.published
    assert there.labels["labels"].load().equals(here.labels["labels"].load())
    assert np.array_equal(there.fit.centers, here.fit.centers)
    assert f"published, at {bucket.url}/out/versions/{there.name}>" in repr(there)
