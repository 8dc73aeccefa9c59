"""Preprocessing and fractions from the config to the files of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import clustering
from clustering.config import JobConfig, check_config
from clustering.errors import CheckpointError, ConfigError
from clustering.run.job import run_fit, run_predict
from clustering.run.report import redo_report
from clustering.storage.model import load_model
from clustering_flows.parameters import load_parameters
from tests.run.test_job import Notes
from tests.run.test_resume import Crash, results
from tests.run.test_resume import Notes as Crashing

STEPS: dict[str, Any] = {"standardize": "per_variable", "feature_weights": "thickness", "pca": 0.9, "whiten": True}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Profiles of two variables without clusters, so that many passes are needed, with some missing."""
    rng = np.random.default_rng(6)
    t = rng.random((3000, 4)).cumsum(axis=1)
    t[::50, 2] = np.nan
    data = xr.Dataset(
        {
            "t": (("row", "depth"), t),
            "s": (("row", "depth"), 35.0 + 0.01 * rng.random((3000, 4))),
            "thickness": ("depth", [1.0, 2.0, 2.0, 3.0]),
        },
        coords={"depth": [0.0, 10.0, 30.0, 60.0]},
    )
    path = tmp_path_factory.mktemp("profiles") / "profiles.zarr"
    data.to_zarr(
        path, consolidated=False, zarr_format=3, encoding={"t": {"chunks": (500, 4)}, "s": {"chunks": (500, 4)}}
    )
    return path


def job(store: Path, out: Path, **sections: Any) -> JobConfig:
    content: dict[str, Any] = {
        "source": {"store": str(store), "variables": ["t", "s"], "sample_dims": ["row"]},
        "preprocess": STEPS,
        "model": {"k": 6},
        "fit": {"init": "random", "restarts": 2, "sample_rows": 60, "max_iterations": 8},
        "compute": {"workers": 2, "block": "32KB"},
        "output": {"store": str(out), "report": False},
    }
    for section, keys in sections.items():
        content[section] = {**content[section], **keys}
    return check_config(content)


def arrays(out: Path) -> dict[str, bytes]:
    """The bytes of all arrays of model and labels."""
    return {name: value for name, value in results(out).items() if "/c/" in name}


def test_a_run_reports_what_was_done_to_its_rows(store: Path, tmp_path: Path) -> None:
    watch, out = Notes(), tmp_path / "out"
    record = run_fit(job(store, out, output={"report": True}), watch)
    assert json.loads((out / "run.json").read_text()) == record
    preprocessing = record["preprocess"]
    assert (preprocessing["n_components"] < 8, 0.9 < preprocessing["explained_variance"] < 1.0) == (True, True)
    words = "standardize per variable; feature weights thickness; PCA: "
    assert preprocessing["words"].startswith(words)
    assert record["remarks"][0] == f"preprocessing: {preprocessing['words']}"
    assert any(preprocessing["words"] in line for line in watch.said)
    page = (out / "report.html").read_text()
    assert preprocessing["words"] in page
    assert "objective J of prepared rows" in page
    assert "n_fitted" not in record
    redo_report(str(out))
    with xr.open_zarr(out / "model.zarr", consolidated=False) as model:
        assert model.attrs["preparation"]["wish"] == STEPS
        assert model["centers"].sizes == {"cluster": 6, "feature": 8}
        assert model["centers_prepared"].sizes == {"cluster": 6, "component": preprocessing["n_components"]}
        assert float(model["preparation_explained"].sum()) == pytest.approx(preprocessing["explained_variance"])
    with xr.open_zarr(store, consolidated=False) as data, xr.open_zarr(out / "labels.zarr", consolidated=False) as done:
        again = clustering.load_fit(out).predict(data, variables=["t", "s"], sample_dims=["row"])
        np.testing.assert_array_equal(done["labels"].values, again.values)
        assert record["n_masked"] == int((again.values < 0).sum()) == 60


@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_an_interrupted_run_goes_on_to_the_same_bytes(fraction: float, store: Path, tmp_path: Path) -> None:
    fit = {
        "init": "random",
        "restarts": 2,
        "finalists": 2,
        "sample_rows": 60,
        "max_iterations": 6,
        "fraction": fraction,
    }
    calm, crashed = (job(store, tmp_path / name, fit=fit) for name in ("calm", "crashed"))
    run_fit(calm, Notes())
    for after in (1, 4):
        with pytest.raises(Crash):
            run_fit(crashed, Crashing(after))
    record = run_fit(crashed, Crashing())
    assert record["iterations"] == 6
    assert results(tmp_path / "crashed") == results(tmp_path / "calm")
    before = json.loads((tmp_path / "calm" / "run.json").read_text())
    for key in ("objective", "n_rows", "n_masked", "remarks", "preprocess"):
        assert record[key] == before[key]


def test_an_unfinished_run_with_other_feature_weights_is_not_continued(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    config = job(tmp_path / "store", tmp_path / "out")
    with pytest.raises(Crash):
        run_fit(config, Crashing(2))
    weights = zarr.open_array(tmp_path / "store" / "thickness", mode="r+")
    weights[0] = 5.0
    with pytest.raises(CheckpointError, match="another source"):
        run_fit(config, Notes())


def test_the_preprocessing_decides_the_result(store: Path, tmp_path: Path) -> None:
    one, other = job(store, tmp_path), job(store, tmp_path, preprocess={"whiten": False})
    assert one.result_keys["preprocess"] != other.result_keys["preprocess"]


def test_a_run_on_a_fraction_labels_all_and_says_so(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    output = {"labels": False, "report": True}
    record = run_fit(job(store, out, fit={"fraction": 0.2, "max_iterations": 100}, output=output), Notes())
    fit = clustering.load_fit(out)
    assert record["n_rows"] == 2940
    assert 400 < record["n_fitted"] < 800
    assert (record["n_fitted"], record["n_masked"], record["reads"]) == (fit.fitted.summary.drawn, 60, 2)
    assert record["remarks"][0].startswith(f"fitted on {record['n_fitted']} of 2,940 rows (")
    assert record["remarks"][0] in (out / "report.html").read_text()
    with xr.open_zarr(store, consolidated=False) as data:
        source: dict[str, Any] = {"variables": ["t", "s"], "sample_dims": ["row"]}
        assert fit.score(data, **source) == pytest.approx(record["objective"], rel=1e-12)


def test_a_prediction_uses_the_preprocessing_of_the_model(store: Path, tmp_path: Path) -> None:
    run_fit(job(store, tmp_path / "fit"), Notes())
    run_predict(str(tmp_path / "fit"), job(store, tmp_path / "same"), Notes())
    content = job(store, tmp_path / "bare").model_dump(mode="json", exclude={"preprocess"})
    record = run_predict(str(tmp_path / "fit"), check_config(content), Notes())
    assert record["preprocess"]["words"].startswith("standardize per variable")
    fitted, *predicted = (arrays(tmp_path / name) for name in ("fit", "same", "bare"))
    assert predicted == [fitted, fitted]
    with pytest.raises(ConfigError, match=r"preprocess\.pca is 2, and the model was fitted with 0\.9; leave"):
        run_predict(str(tmp_path / "fit"), job(store, tmp_path / "other", preprocess={"pca": 2}), Notes())
    assert not (tmp_path / "other").exists()


def test_rows_are_drawn_from_a_model_of_standardized_rows_in_the_units_of_the_data(store: Path, tmp_path: Path) -> None:
    model = {"kind": "gaussian_mixture", "k": 2, "covariance": "diagonal"}
    plain = {"feature_weights": None, "pca": None, "whiten": False}
    run_fit(job(store, tmp_path / "out", model=model, preprocess=plain), Notes())
    fitted, _ = load_model(tmp_path / "out")
    mixture = load_parameters(str(tmp_path / "out")).mixture
    np.testing.assert_allclose(mixture.means, fitted.centers)
    np.testing.assert_allclose(np.diagonal(mixture.covariances, axis1=1, axis2=2), fitted.covariances)
    assert not np.allclose(fitted.model.generative(fitted.params).means, fitted.centers)
    shutil.rmtree(tmp_path / "out")
    run_fit(job(store, tmp_path / "out", model=model), Notes())
    with pytest.raises(ConfigError, match=r"prepared rows .*whitened.*fitted without unit_n"):
        load_parameters(str(tmp_path / "out"))
