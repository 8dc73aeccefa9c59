"""Estimators, indexes and graphs of other programs label as the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx
import onnxruntime
import pytest
import skops.io
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline

import clustering as c
from clustering.errors import OutputError
from clustering_flows.cli import run as command

pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")

EUCLIDEAN = [c.KMeans(4), c.SoftKMeans(4, beta=2.0)]
NEAREST = [*EUCLIDEAN, c.KMeans(4, divergence="cosine"), c.KMeans(4, divergence="mahalanobis")]
COVARIANCES = ("identity", "spherical", "diagonal", "tied", "full")
MIXTURES: list[Any] = [c.GaussianMixture(4, covariance=kind) for kind in COVARIANCES]
OTHERS = [
    c.KMeans(4, divergence="kullback_leibler"),
    c.SoftKMeans(4, beta=2.0, divergence="itakura_saito"),
    c.VonMisesFisher(4),
    c.VonMisesFisher(4, assignment="hard"),
]
PREPARATIONS: list[dict[str, Any]] = [
    {"standardize": "per_feature"},
    {"unit_norm": True},
    {"pca": 2, "whiten": True},
    {"standardize": "per_feature", "feature_weights": [2.0, 0.0, 1.0]},
]


def words(value: Any) -> str:
    return str(value)


@pytest.fixture
def rows(blobs: np.ndarray) -> np.ndarray:
    """Rows above zero, for which all divergences are defined."""
    return np.abs(blobs) + 0.1


def labelled(fit: c.Fit, rows: np.ndarray) -> np.ndarray:
    return np.asarray(fit.predict(rows), np.int64)


def graph_labels(path: Path, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["labels"], {"rows": rows})[0])


@pytest.mark.parametrize("model", [*NEAREST, *MIXTURES], ids=words)
def test_estimators_of_scikit_learn_give_equal_labels(model: Any, rows: np.ndarray, tmp_path: Path) -> None:
    fit = c.fit(rows, model)

    fit.export(tmp_path / "model.skops", to="sklearn")

    assert skops.io.get_untrusted_types(file=tmp_path / "model.skops") == []
    for estimator in (fit.to_sklearn(), skops.io.load(tmp_path / "model.skops")):
        assert (estimator.predict(rows) == labelled(fit, rows)).all()


@pytest.mark.parametrize("preparation", PREPARATIONS, ids=words)
@pytest.mark.parametrize("model", [c.KMeans(4), c.GaussianMixture(4)], ids=words)
def test_preparations_are_steps_of_a_pipeline(
    model: Any, preparation: dict[str, Any], rows: np.ndarray, tmp_path: Path
) -> None:
    fit = c.fit(rows, model, **preparation)

    pipeline = fit.to_sklearn()

    assert isinstance(pipeline, Pipeline)
    assert (pipeline.predict(rows) == labelled(fit, rows)).all()
    fit.export(tmp_path / "model.onnx", to="onnx")
    assert (graph_labels(tmp_path / "model.onnx", rows) == labelled(fit, rows)).all()


def test_estimators_hold_the_params(rows: np.ndarray) -> None:
    hard, soft = c.fit(rows, c.KMeans(4)), c.fit(rows, c.GaussianMixture(4))

    k_means, mixture = hard.to_sklearn(), soft.to_sklearn()

    assert isinstance(k_means, KMeans)
    assert k_means.cluster_centers_.tobytes() == hard.centers.tobytes()
    assert k_means.cluster_ids_.tolist() == hard.ids.tolist()
    assert k_means.transform(rows).min(axis=1) == pytest.approx(hard.distance(rows), rel=1e-12, abs=1e-7)
    assert isinstance(mixture, GaussianMixture)
    assert mixture.predict_proba(rows) == pytest.approx(soft.responsibilities(rows), abs=1e-12)
    assert mixture.score(rows) == pytest.approx(soft.score(rows), rel=1e-12)


@pytest.mark.parametrize("model", [c.KMeans(4), c.GaussianMixture(4)], ids=words)
def test_rows_far_from_zero_get_equal_labels(model: Any, rows: np.ndarray, tmp_path: Path) -> None:
    far = rows + 1e8
    fit = c.fit(far, model)

    assert (fit.to_sklearn().predict(far) == labelled(fit, far)).all()
    fit.export(tmp_path / "model.onnx", to="onnx")
    assert (graph_labels(tmp_path / "model.onnx", far) == labelled(fit, far)).all()


@pytest.mark.parametrize("model", [*NEAREST, *MIXTURES, *OTHERS], ids=words)
def test_graphs_of_onnx_give_equal_labels(model: Any, rows: np.ndarray, tmp_path: Path) -> None:
    fit = c.fit(rows, model)

    fit.export(tmp_path / "model.onnx", to="onnx")

    assert (graph_labels(tmp_path / "model.onnx", rows) == labelled(fit, rows)).all()
    about = {prop.key: prop.value for prop in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert about["kind"].startswith(model.kind)


def test_scores_of_a_mixture_are_its_log_densities(rows: np.ndarray, tmp_path: Path) -> None:
    fit = c.fit(rows, c.GaussianMixture(4))
    fit.export(tmp_path / "model.onnx", to="onnx")

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    scores = session.run(["scores"], {"rows": rows})[0]

    log_density = np.logaddexp.reduce(scores, axis=1) - 1.5 * np.log(2 * np.pi)
    assert log_density == pytest.approx(fit.log_density(rows), abs=1e-11)


@pytest.mark.parametrize(
    ("model", "preparation"),
    [*((model, {}) for model in NEAREST), *((c.KMeans(4), one) for one in PREPARATIONS)],
    ids=words,
)
def test_an_index_of_faiss_searches_the_lists_of_the_centers(
    model: Any, preparation: dict[str, Any], rows: np.ndarray, tmp_path: Path
) -> None:
    single = rows.astype(np.float32)
    fit = c.fit(single, model, **preparation)

    fit.export(tmp_path / "model.faiss", to="faiss")

    index = faiss.read_index(str(tmp_path / "model.faiss"))
    assert index.is_trained
    index.add(single)
    inverted = faiss.extract_index_ivf(index)
    sizes = [inverted.invlists.list_size(i) for i in range(inverted.nlist)]
    # Rows within a rounding error of a boundary may be on either side in single precision.
    assert np.abs(sizes - np.bincount(labelled(fit, single), minlength=4)).max() <= 1
    assert (index.search(single, 1)[1] >= 0).all()
    if inverted is index and model in EUCLIDEAN:
        assert (index.search(single, 1)[1][:, 0] == np.arange(600)).all()


@pytest.mark.parametrize(
    ("to", "model", "message"),
    [
        ("faiss", c.GaussianMixture(4), r"FAISS cannot hold gaussian_mixture \(full\); .*fit kmeans"),
        ("faiss", c.VonMisesFisher(4), r"FAISS cannot hold von_mises_fisher \(cosine\); "),
        ("sklearn", c.VonMisesFisher(4), r"scikit-learn cannot hold von_mises_fisher \(cosine\); export to onnx"),
        ("sklearn", OTHERS[0], r"scikit-learn cannot hold kmeans \(kullback_leibler\); export to onnx"),
        ("geotiff", c.KMeans(4), r"the target 'geotiff' needs labels, and there are none; export the output of a run"),
    ],
)
def test_models_that_a_target_cannot_hold_are_refused(
    to: str, model: Any, message: str, rows: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = c.fit(rows, model)
    fit.save(tmp_path / "model.zarr")

    with pytest.raises(OutputError, match=message):
        fit.export(tmp_path / "made", to=to)
    assert command(["export", str(tmp_path / "model.zarr"), str(tmp_path / "made"), "--to", to]) == 1

    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.zarr"]


@pytest.mark.parametrize("to", ["sklearn", "faiss", "onnx"])
def test_models_of_rows_with_missing_features_are_refused(to: str, rows: np.ndarray, tmp_path: Path) -> None:
    rows[::7, 1] = np.nan
    fit = c.fit(rows, c.KMeans(4), missing="marginalize")
    fit.save(tmp_path / "model.zarr")

    with pytest.raises(OutputError, match=r"rows with missing features .*; fit with source.missing: drop, or export"):
        c.load_fit(tmp_path / "model.zarr").export(tmp_path / "made", to=to)
