"""Estimators with scikit-learn's names: they keep its rules, and give what `clustering.fit` gives."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pandas as pd
import pytest
import sklearn.exceptions
import sklearn.mixture
import xarray as xr
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import clustering as c
from clustering.errors import ConfigError
from clustering.sklearn import ConvergenceWarning, GaussianMixture, KMeans, SoftKMeans

TOO_MANY_CLUSTERS = "the check has 4 distinct rows, and more clusters than distinct rows are an error here"
FEW_ROWS = dict.fromkeys(("check_sample_weights_shape", "check_sample_weights_not_overwritten"), TOO_MANY_CLUSTERS)
OTHER_STARTS = {
    "check_sample_weight_equivalence_on_dense_data": "starts are drawn from other rows, and 15 rows in 10 dimensions "
    "have many optima; the objective itself counts a weight of 2 as two rows"
}
BOTH = [(KMeans(3), c.KMeans(3)), (SoftKMeans(3), c.SoftKMeans(3)), (GaussianMixture(3), c.GaussianMixture(3))]


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((300, 2)) + 6.0 * rng.integers(0, 3, (300, 1))


@pytest.fixture
def field(rows: NDArray[np.float64]) -> xr.DataArray:
    labels = {"time": np.arange(15), "depth": [0.0, 10.0]}
    return xr.DataArray(rows.reshape(15, 20, 2), labels, ("time", "lat", "depth"), name="t", attrs={"units": "K"})


@pytest.mark.parametrize(
    ("estimator", "failing"),
    [
        (KMeans(3), {}),
        (SoftKMeans(3), {}),
        (GaussianMixture(), {}),
        (KMeans(), FEW_ROWS),
        (GaussianMixture(2), OTHER_STARTS),
    ],
    ids=["kmeans", "soft k-means", "normal distribution", "default k", "mixture"],
)
def test_estimators_keep_the_rules_of_scikit_learn(estimator: Any, failing: dict[str, str]) -> None:
    with warnings.catch_warnings():
        # Checks fit a few rows on purpose.
        warnings.simplefilter("ignore")
        done = check_estimator(estimator, expected_failed_checks=failing, on_skip=None, on_fail="raise")
    assert {one["check_name"] for one in done if one["status"] == "xfail"} == set(failing)
    # It wants another package, array-api-strict, and an estimator that claims to take its arrays.
    assert {one["check_name"] for one in done if one["status"] == "skipped"} <= {"check_array_api_input"}


@pytest.mark.parametrize(("estimator", "model"), BOTH, ids=["kmeans", "soft k-means", "mixture"])
def test_results_are_those_of_a_fit_to_the_bit(estimator: Any, model: Any, rows: NDArray[np.float64]) -> None:
    made, fit = clone(estimator).fit(rows), c.fit(rows, model)
    centers = made.means_ if hasattr(made, "means_") else made.cluster_centers_
    assert centers.tobytes() == fit.centers.tobytes()
    labels = made.predict(rows)
    assert labels.dtype == np.int32
    assert labels.tolist() == fit.predict(rows).tolist() == clone(estimator).fit_predict(rows).tolist()
    assert made.n_iter_ == fit.iterations
    assert pickle.loads(pickle.dumps(made)).score(rows) == made.score(rows)
    if model.soft:
        assert made.predict_proba(rows).tobytes() == fit.responsibilities(rows).tobytes()


def test_parameters_have_the_names_of_scikit_learn_and_ours_in_fit(rows: NDArray[np.float64]) -> None:
    made = KMeans(3, n_init=2, max_iter=50, tol=1e-3, random_state=7, init="random").fit(rows, workers=1)
    fit = c.fit(rows, c.KMeans(3), restarts=2, max_iterations=50, tolerance=1e-3, seed=7, init="random")
    assert made.inertia_ == fit.objective
    assert {"sample_dims", "feature_dims", "mask", "memory"} <= set(inspect.signature(KMeans.fit).parameters)
    with pytest.raises(ConfigError, match="'restarts' is no option of fit; set n_init of KMeans"):
        KMeans(3).fit(rows, restarts=2)
    with pytest.raises(ConfigError, match="init is 'k-means'; did you mean 'k-means"):
        KMeans(3, init="k-means").fit(rows)
    given = KMeans(init=rows[:3].tolist(), n_clusters=3).fit(rows)
    assert given.cluster_centers_.tobytes() == c.fit(rows, c.KMeans(3), init=rows[:3]).centers.tobytes()


def test_weights_of_rows_count(rows: NDArray[np.float64]) -> None:
    weights = np.arange(300.0)
    made, fit = KMeans(3).fit(rows, sample_weight=weights), c.fit(rows, c.KMeans(3), weights=weights)
    assert made.inertia_ == fit.objective
    assert made.score(rows, sample_weight=weights) == pytest.approx(-fit.objective)


def test_they_work_in_pipelines_and_searches(rows: NDArray[np.float64]) -> None:
    pipeline = make_pipeline(StandardScaler(), KMeans(3))
    assert len(set(pipeline.fit_predict(rows))) == 3
    assert pipeline.transform(rows).shape == (300, 3)
    assert list(pipeline.get_feature_names_out()) == ["kmeans0", "kmeans1", "kmeans2"]
    search = GridSearchCV(GaussianMixture(), {"n_components": [1, 3], "covariance_type": ["full", "diag"]}, cv=3)
    assert search.fit(rows).best_params_["n_components"] == 3


def test_data_frames_give_their_names(rows: NDArray[np.float64]) -> None:
    frame = pd.DataFrame(rows, columns=["x", "y"])
    made = KMeans(3).fit(frame)
    assert list(made.feature_names_in_) == ["x", "y"]
    with pytest.raises(ValueError, match="order"):
        made.predict(frame[["y", "x"]])
    assert made.set_output(transform="pandas").transform(frame).columns.tolist() == ["kmeans0", "kmeans1", "kmeans2"]


def test_xarray_objects_dask_arrays_and_stores_are_taken(
    field: xr.DataArray, rows: NDArray[np.float64], tmp_path: Path
) -> None:
    dims = ["time", "lat"]
    made, fit = KMeans(3).fit(field, sample_dims=dims), c.fit(field, c.KMeans(3), sample_dims=dims)
    xr.testing.assert_identical(made.cluster_centers_, fit.centers)
    # The fit remembers the dimensions.
    xr.testing.assert_identical(made.labels_, fit.predict(field))
    xr.testing.assert_identical(made.predict(field), made.labels_)
    assert made.transform(field).sizes == {"time": 15, "lat": 20, "cluster": 3}

    field.to_dataset().to_zarr(tmp_path / "field.zarr", consolidated=False)
    stored = KMeans(3).fit(str(tmp_path / "field.zarr"), sample_dims=dims)
    assert stored.inertia_ == made.inertia_
    masked = KMeans(3, compute_labels=False)
    labels = masked.fit_predict(tmp_path / "field.zarr", sample_dims=dims, mask=field.time < 10)
    assert int((labels == -1).sum()) == 5 * 20
    assert not hasattr(masked, "labels_")

    assert KMeans(3).fit(dask.array.from_array(rows, (100, 2))).labels_.shape == (300,)


def test_mixtures_have_what_users_of_scikit_learn_expect(rows: NDArray[np.float64]) -> None:
    for kind in ("full", "tied", "diag", "spherical"):
        ours = GaussianMixture(3, covariance_type=kind, reg_covar=0.0).fit(rows)
        theirs = sklearn.mixture.GaussianMixture(
            3, covariance_type=kind, reg_covar=0.0, tol=1e-9, max_iter=500, means_init=ours.means_
        ).fit(rows)
        assert ours.precisions_.shape == theirs.precisions_.shape
        for name in ("means_", "weights_", "covariances_", "precisions_", "precisions_cholesky_"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0.02, atol=0.02)
        # The same params give the same numbers.
        for name in ("means_", "weights_", "covariances_", "precisions_", "precisions_cholesky_"):
            setattr(theirs, name, getattr(ours, name))
        np.testing.assert_allclose(ours.score_samples(rows), theirs.score_samples(rows))
        assert (ours.bic(rows), ours.aic(rows)) == pytest.approx((theirs.bic(rows), theirs.aic(rows)))
        again = GaussianMixture(
            3,
            covariance_type=kind,
            max_iter=1,
            weights_init=ours.weights_,
            means_init=ours.means_,
            precisions_init=ours.precisions_,
        ).fit(rows)
        np.testing.assert_allclose(again.means_, ours.means_, rtol=1e-3)
    drawn, components = ours.sample(5)
    assert (drawn.shape, components.dtype) == ((5, 2), np.int32)
    assert not hasattr(GaussianMixture(2, covariance_type="identity").fit(rows), "precisions_")
    with pytest.raises(ConfigError, match="precisions_init is given without means_init"):
        GaussianMixture(3, precisions_init=ours.precisions_).fit(rows)


def test_a_fit_that_a_limit_ends_warns_in_the_categories_of_both_libraries(rows: NDArray[np.float64]) -> None:
    assert issubclass(ConvergenceWarning, sklearn.exceptions.ConvergenceWarning)
    with pytest.warns(ConvergenceWarning, match="stopped by max_iterations after 1 pass") as caught:
        KMeans(3, init="random", max_iter=1, n_init=1).fit(rows)
    assert isinstance(caught[0].message, c.ConvergenceWarning)
    assert caught[0].filename == __file__


def test_without_scikit_learn_the_message_names_the_extra() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import clustering; import clustering.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        "the estimators need the package 'scikit-learn'; pip install 'zarr-clustering[sklearn]'"
    )


def test_importing_the_library_does_not_import_scikit_learn() -> None:
    code = "import sys, clustering as c; c.fit, c.KMeans; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
