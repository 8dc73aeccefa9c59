from __future__ import annotations

import dataclasses
import doctest
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import clustering as c
import clustering.api

FIELD: dict[str, Any] = {
    "variables": ["t", "q"],
    "sample_dims": ["time", "lat"],
    "feature_dims": ["lon"],
}


@pytest.fixture
def field(field_store: Path) -> xr.Dataset:
    return xr.open_zarr(field_store, consolidated=False).load()


def test_the_example_of_fit_runs() -> None:
    runner = doctest.DocTestRunner()
    examples = [e for e in doctest.DocTestFinder().find(clustering.api.fit, "fit") if e.examples]
    for example in examples:
        runner.run(example)
    assert runner.tries > 0
    assert runner.failures == 0


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


HEAVY = "[name for name in ('prefect', 'distributed', 'matplotlib', 'clustering_flows') if name in sys.modules]"


@pytest.mark.parametrize(
    "use",
    ["", "[getattr(c, name) for name in c.__all__]", "c.fit([[0.0], [1.0]] @ np.ones((1, 1)), c.KMeans(2))"],
    ids=["import", "every-name", "fit"],
)
def test_the_library_is_light(use: str) -> None:
    done = python(f"import sys, numpy as np, clustering as c\n{use}\nprint({HEAVY})")
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_no_other() -> None:
    assert set(c.__all__) <= set(dir(c))
    assert all(hasattr(c, name) for name in c.__all__)
    with pytest.raises(AttributeError, match="Kmeans"):
        c.Kmeans  # noqa: B018


def test_an_ndarray_gives_ndarrays(blobs: np.ndarray) -> None:
    before = blobs.copy()
    fit = c.fit(blobs, c.KMeans(4))
    assert (type(fit.centers), fit.centers.shape) == (np.ndarray, (4, 3))
    assert (type(fit.weights), fit.weights.shape) == (np.ndarray, (4,))
    assert fit.weights.sum() == pytest.approx(1.0, rel=1e-14)
    labels = fit.predict(blobs)
    assert (type(labels), labels.shape, labels.dtype) == (np.ndarray, (600,), np.int8)
    np.testing.assert_allclose(fit.weights, np.bincount(labels) / 600, rtol=1e-13)
    assert fit.score(blobs) == pytest.approx(fit.objective, rel=1e-13)
    np.testing.assert_array_equal(blobs, before)


@pytest.mark.parametrize("as_source", [False, True], ids=["dataset", "source"])
def test_labelled_data_give_labelled_results(as_source: bool, field: xr.Dataset) -> None:
    data, options = (c.open_source(field, **FIELD), {}) if as_source else (field, FIELD)
    fit = c.fit(data, c.KMeans(3), **options)
    assert fit.centers.dims == ("cluster", "feature")
    np.testing.assert_array_equal(fit.centers["lon"], np.tile(field["lon"], 2))
    assert fit.weights.dims == ("cluster",)
    labels = fit.predict(data, **options)
    assert isinstance(labels, xr.DataArray)
    assert labels.dims == ("time", "lat")
    for name in ("time", "lat"):
        xr.testing.assert_identical(labels[name], field[name])
    assert labels.attrs["flag_values"] == [0, 1, 2]
    rows = np.concatenate([field["t"], field["q"]], axis=2).reshape(-1, 20)
    distances = ((rows[:, None].astype(float) - fit.centers.values) ** 2).sum(axis=2)
    np.testing.assert_array_equal(labels.values.ravel(), distances.argmin(axis=1))


def test_a_path_gives_labelled_results(field_store: Path, field: xr.Dataset) -> None:
    stored, held = (c.fit(data, c.KMeans(3), **FIELD) for data in (field_store, field))
    np.testing.assert_allclose(stored.centers, held.centers, rtol=1e-10)
    xr.testing.assert_equal(stored.predict(str(field_store), **FIELD), held.predict(field, **FIELD))


def test_a_source_of_an_ndarray_gives_ndarrays(blobs: np.ndarray) -> None:
    source = c.open_source(blobs)
    fit = c.fit(source, c.KMeans(4))
    assert type(fit.centers) is np.ndarray
    assert type(fit.predict(source)) is np.ndarray


def test_masked_samples_are_labelled_minus_one_and_take_no_part(field: xr.Dataset) -> None:
    options = {"variables": ["t", "q"], "sample_dims": ["time", "lat", "lon"], "mask": "sea"}
    fit = c.fit(field, c.KMeans(3), **options)
    labels = fit.predict(field, **options)
    sea = field["sea"].broadcast_like(labels).values
    assert (labels.values[~sea] == -1).all()
    assert (labels.values[sea] >= 0).all()
    rows = np.stack([field["t"], field["q"]], axis=-1)[sea]
    np.testing.assert_allclose(fit.centers[0], rows[labels.values[sea] == 0].mean(axis=0), rtol=1e-6)
    assert fit.fitted.summary.count == sea.sum()


def test_rows_with_missing_features_are_labelled_minus_one(blobs: np.ndarray) -> None:
    holed = blobs.copy()
    holed[[3, 77], [0, 2]] = np.nan
    fit = c.fit(holed, c.KMeans(4))
    assert np.flatnonzero(fit.predict(holed) == -1).tolist() == [3, 77]
    assert np.isfinite(fit.centers).all()
    with pytest.raises(c.ClusteringError, match="missing value"):
        c.fit(holed, c.KMeans(4), missing="error")


def test_given_centers_and_data_are_left_as_they_were(blobs: np.ndarray) -> None:
    init = blobs[:4].copy()
    c.fit(blobs, c.KMeans(4), init=init)
    np.testing.assert_array_equal(init, blobs[:4])


def test_on_pass_receives_the_record_of_each_pass(blobs: np.ndarray) -> None:
    records: list[Any] = []
    fit = c.fit(blobs, c.KMeans(4), init=blobs[:4], on_pass=records.append)
    assert [record.iteration for record in records] == list(range(1, fit.iterations + 1))
    np.testing.assert_array_equal([record.objective for record in records], fit.history[:, 1])


LIMITS = {
    "one-pass": {"max_iterations": 1},
    "no-pass": {"max_iterations": 0},
    "no-time": {"max_seconds": 1e-9},
    "tolerance": {"tolerance": 1e-2},
    "given-centers": {"init": np.arange(12.0).reshape(4, 3), "max_iterations": 0},
}


@pytest.mark.parametrize("options", LIMITS.values(), ids=LIMITS)
def test_a_fit_that_a_limit_stopped_reports_what_it_measured(options: dict[str, Any], blobs: np.ndarray) -> None:
    fit = c.fit(blobs, c.KMeans(4), **options)
    labels = fit.predict(blobs)
    assert fit.objective == pytest.approx(fit.score(blobs), rel=1e-14)
    np.testing.assert_allclose(fit.objective, np.sum((blobs - fit.centers[labels]) ** 2), rtol=1e-12)
    np.testing.assert_allclose(fit.weights, np.bincount(labels, minlength=4) / 600, rtol=1e-13)


def test_the_objective_keeps_its_digits_where_centers_come_from_very_far(rng: np.random.Generator) -> None:
    values = np.concatenate([rng.standard_normal((200, 1)), 1e8 + rng.standard_normal((200, 1))])
    fit = c.fit(values, c.KMeans(2), init=values[:2], max_iterations=2)
    assert fit.objective == fit.score(values)
    assert fit.objective == pytest.approx(2 * 200, rel=0.3)


def test_data_of_other_variables_are_refused(field: xr.Dataset) -> None:
    fit = c.fit(field, c.KMeans(2), variables=["t"], sample_dims=["time", "lat", "lon"])
    with pytest.raises(c.ClusteringError, match="the data have the variables q and the model was fitted on t"):
        fit.predict(field, variables=["q"], sample_dims=["time", "lat", "lon"])


def assert_same_fit(a: c.Fit, b: c.Fit) -> None:
    for mine, others in (
        (a.params.origin, b.params.origin), (a.params.centers, b.params.centers), (a.history, b.history),
        (a.fitted.shares, b.fitted.shares), (a.fitted.centers, b.fitted.centers),
    ):  # fmt: skip
        assert mine.tobytes() == others.tobytes()
        assert mine.dtype == others.dtype
    for name in ("model", "features", "objective", "iterations", "stop", "reads", "bytes_read", "notes"):
        assert getattr(a.fitted, name) == getattr(b.fitted, name), name
    for field in dataclasses.fields(a.fitted.summary):
        np.testing.assert_array_equal(getattr(a.fitted.summary, field.name), getattr(b.fitted.summary, field.name))


SAVED = {
    "converged": {},
    "stopped": {"max_iterations": 1},
    "not-begun": {"max_iterations": 0},
    "empty-clusters": {"init": np.zeros((4, 3))},
}


@pytest.mark.parametrize("options", SAVED.values(), ids=SAVED)
def test_a_model_is_read_back_to_the_last_bit(options: dict[str, Any], blobs: np.ndarray, tmp_path: Path) -> None:
    fit = c.fit(blobs, c.KMeans(4), **options)
    fit.save(tmp_path / "model.zarr")
    for place in (tmp_path / "model.zarr", tmp_path, str(tmp_path)):
        again = c.load_fit(place)
        assert_same_fit(again, fit)
        np.testing.assert_array_equal(again.predict(blobs), fit.predict(blobs))


def test_a_labelled_model_is_read_back_with_its_features(field: xr.Dataset, tmp_path: Path) -> None:
    fit = c.fit(field, c.KMeans(3), **FIELD)
    fit.save(tmp_path / "m")
    again = c.load_fit(tmp_path / "m")
    assert_same_fit(again, fit)
    xr.testing.assert_identical(again.centers, fit.centers)
    xr.testing.assert_identical(again.predict(field, **FIELD), fit.predict(field, **FIELD))


def test_a_model_of_an_ndarray_is_read_back_as_one(blobs: np.ndarray, tmp_path: Path) -> None:
    c.fit(blobs, c.KMeans(4)).save(tmp_path / "m")
    assert type(c.load_fit(tmp_path / "m").centers) is np.ndarray


@pytest.mark.parametrize("name", ["step", "cluster", "feature", "mean"])
def test_a_feature_dimension_may_have_any_name(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    data = xr.DataArray(rng.standard_normal((30, 4)), dims=("t", name), coords={name: np.arange(4.0)}, name="v")
    fit = c.fit(data, c.KMeans(2), sample_dims=["t"])
    assert fit.centers.shape == (2, 4)
    fit.save(tmp_path / "m")
    assert_same_fit(c.load_fit(tmp_path / "m"), fit)


@pytest.mark.parametrize("place", ["nowhere", "."], ids=["no-folder", "no-model"])
def test_a_missing_model_is_reported_with_its_place(place: str, tmp_path: Path) -> None:
    with pytest.raises(c.ClusteringError, match="no model at") as caught:
        c.load_fit(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)


def test_a_fit_cannot_be_changed(blobs: np.ndarray) -> None:
    fit = c.fit(blobs, c.KMeans(4))
    with pytest.raises(dataclasses.FrozenInstanceError):
        fit.labelled = True  # type: ignore[misc]
    with pytest.raises(AttributeError):
        fit.objective = 0.0  # type: ignore[misc]


@pytest.mark.parametrize("name", ["centers", "weights", "history", "params.centers", "params.origin"])
def test_writing_to_what_a_fit_gave_does_not_change_the_fit(name: str, blobs: np.ndarray) -> None:
    def given(name: str) -> np.ndarray:
        value: Any = fit
        for part in name.split("."):
            value = getattr(value, part)
        return np.asarray(value)

    fit = c.fit(blobs, c.KMeans(4))
    before = given(name).copy()
    # An array that cannot be written to is just as good as a copy.
    with suppress(ValueError):
        given(name)[...] = 5.0
    np.testing.assert_array_equal(given(name), before)


def test_a_fit_shows_what_matters(blobs: np.ndarray) -> None:
    shown = repr(c.fit(blobs, c.KMeans(4)))
    assert all(
        part in shown for part in ("KMeans(k=4, divergence='squared_euclidean')", "converged", "600 rows", "3 features")
    )
    assert "stopped by max_iterations" in repr(c.fit(blobs, c.KMeans(4), init=blobs[:4], max_iterations=1))


def test_more_clusters_than_distinct_rows_are_refused_with_both_numbers() -> None:
    rows = np.array([[0.0, 1.0], [0.0, 1.0], [-0.0, 1.0], [2.0, 1.0], [2.0, 1.0], [3.0, 0.0]])
    assert c.fit(rows, c.KMeans(3)).objective == pytest.approx(0.0, abs=1e-28)
    with pytest.raises(c.ClusteringError, match=r"k is 5 .* 3 distinct rows"):
        c.fit(rows, c.KMeans(5))
    with pytest.raises(c.ClusteringError, match=r"k is 3 .* 2 distinct rows of positive weight"):
        c.fit(rows, c.KMeans(3), weights=[1, 1, 1, 1, 1, 0])
    with pytest.raises(c.ClusteringError, match=r"k is 2 .* 1 distinct row of"):
        c.fit(rows[:2], c.KMeans(2))


def test_data_without_any_weight_or_row_are_refused(blobs: np.ndarray) -> None:
    with pytest.raises(c.ClusteringError, match="weights of all 600 rows are zero"):
        c.fit(blobs, c.KMeans(2), weights=np.zeros(600))
    with pytest.raises(c.ClusteringError, match="all 600 cells are masked"):
        c.fit(blobs, c.KMeans(2), mask=np.zeros(600, bool))
    with pytest.raises(c.ClusteringError, match="no row takes part"):
        c.fit(np.full((5, 2), np.nan), c.KMeans(2))


def test_rows_whose_distances_overflow_are_refused() -> None:
    # In a process of its own: a label that was never set would be an index out of bounds.
    done = python(
        "import warnings, numpy as np, clustering as c\n"
        "warnings.simplefilter('error')\n"
        "rows = np.random.default_rng(0).standard_normal((500, 2)) * 1e200\n"
        "try: c.fit(rows, c.KMeans(20))\n"
        "except c.ClusteringError as error: print('refused', error)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused")


WRONG_OPTIONS = {
    "seed-negative": {"seed": -1},
    "seed-fraction": {"seed": 0.5},
    "seed-too-large": {"seed": 2**64},
    "restarts-zero": {"restarts": 0},
    "restarts-true": {"restarts": True},
    "finalists-zero": {"finalists": 0},
    "finalists-above-restarts": {"finalists": 11},
    "sample-rows-zero": {"sample_rows": 0},
    "init-unknown": {"init": "kmean++"},
    "init-shape": {"init": np.zeros((4, 2))},
    "init-nan": {"init": np.full((4, 3), np.nan)},
    "max-iterations-negative": {"max_iterations": -1},
    "tolerance-negative": {"tolerance": -0.1},
    "max-seconds-zero": {"max_seconds": 0.0},
    "cluster-unknown": {"cluster": "thread"},
    "workers-zero": {"workers": 0},
    "missing-unknown": {"missing": "skip"},
}


@pytest.mark.parametrize("options", WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], blobs: np.ndarray) -> None:
    with pytest.raises(c.ClusteringError, match=next(iter(options))) as caught:
        c.fit(blobs, c.KMeans(4), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [0, 2**63 - 1, np.int64(7)], ids=["zero", "largest", "numpy"])
def test_any_seed_of_63_bits_will_do(seed: int, blobs: np.ndarray) -> None:
    assert c.fit(blobs, c.KMeans(4), seed=seed).converged


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("seeds", "seed"), ("max_iteration", "max_iterations"), ("wieghts", "weights"), ("blockbytes", "block_bytes")],
    ids=lambda name: name,
)
def test_an_unknown_option_is_refused_with_the_nearest_name(wrong: str, meant: str, blobs: np.ndarray) -> None:
    with pytest.raises(c.ClusteringError, match=f"unknown option '{wrong}'; did you mean '{meant}'"):
        c.fit(blobs, c.KMeans(4), **{wrong: 1})


def test_predict_takes_no_options_of_fitting(blobs: np.ndarray) -> None:
    fit = c.fit(blobs, c.KMeans(4))
    with pytest.raises(c.ClusteringError, match="unknown option 'seed'"):
        fit.predict(blobs, seed=1)
    with pytest.raises(c.ClusteringError, match="unknown option 'weihgts'; did you mean 'weights'"):
        fit.score(blobs, weihgts=np.ones(600))


def test_options_of_the_source_beside_a_source_are_refused(blobs: np.ndarray) -> None:
    source = c.open_source(blobs)
    with pytest.raises(c.ClusteringError, match="weights"):
        c.fit(source, c.KMeans(4), weights=np.ones(600))


@pytest.mark.parametrize("model", [4, c.KMeans], ids=["number", "class"])
def test_what_is_no_model_is_refused(model: Any, blobs: np.ndarray) -> None:
    with pytest.raises(c.ClusteringError, match="KMeans"):
        c.fit(blobs, model)


@pytest.mark.parametrize(
    "data",
    [[[0.0], [1.0, 2.0]], np.zeros(5), np.zeros((5, 2), "U3"), np.zeros((5, 2), complex), None],
    ids=["list", "one-dimension", "words", "complex", "none"],
)
def test_what_cannot_be_clustered_is_refused(data: Any) -> None:
    with pytest.raises(c.ClusteringError):
        c.fit(data, c.KMeans(2))


@pytest.mark.parametrize("shape", [(0, 3), (5, 0)], ids=["no-rows", "no-features"])
def test_data_without_rows_or_features_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(c.ClusteringError):
        c.fit(np.zeros(shape), c.KMeans(1))


def test_predict_refuses_another_number_of_features(blobs: np.ndarray) -> None:
    fit = c.fit(blobs, c.KMeans(4))
    with pytest.raises(c.ClusteringError, match=r"2 features .* fitted on 3"):
        fit.predict(blobs[:, :2])


def test_predict_refuses_other_variables(field: xr.Dataset) -> None:
    samples = ["time", "lat", "lon"]
    fit = c.fit(field, c.KMeans(2), variables=["t", "q"], sample_dims=samples)
    with pytest.raises(c.ClusteringError, match="features"):
        fit.predict(field, variables=["q", "t"], sample_dims=samples)


def test_a_labelled_model_predicts_bare_rows(field: xr.Dataset) -> None:
    fit = c.fit(field, c.KMeans(2), **FIELD)
    rows = np.concatenate([field["t"], field["q"]], axis=2).reshape(-1, 20)
    np.testing.assert_array_equal(fit.predict(rows), fit.predict(field, **FIELD).values.ravel())


def test_predict_labels_a_single_row(blobs: np.ndarray) -> None:
    fit = c.fit(blobs, c.KMeans(4))
    np.testing.assert_array_equal([fit.predict(row[None])[0] for row in blobs[:20]], fit.predict(blobs)[:20])


# Warnings


def odd_field() -> xr.DataArray:
    """Make data in memory of which a user should know one thing."""
    values = np.random.default_rng(5).normal(size=(40, 3)) + 10.0 * (np.arange(40) % 2)[:, None]
    return xr.DataArray(values, dims=("x", "band"), name="t", attrs={"valid_max": "high"})


CALLS: dict[str, Any] = {
    "fit": lambda _, data, options: c.fit(data, c.GaussianMixture(2), **options),
    "fit-of-a-source": lambda _, data, options: c.fit(c.open_source(data, **options), c.KMeans(2)),
    "predict": lambda fit, data, options: fit.predict(data, **options),
    "score": lambda fit, data, options: fit.score(data, **options),
    **{
        name: lambda fit, data, options, name=name: getattr(fit, name)(data, **options)
        for name in ("responsibilities", "log_density", "outlier_score", "distance", "distances", "margin")
    },
}


@pytest.mark.parametrize("kind", ["DataArray", "store"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_a_user_should_know_of_the_data_is_a_warning_at_the_line_of_the_user(
    tmp_path: Path, call: Any, kind: str
) -> None:
    data = odd_field()
    options = {"sample_dims": ["x"], "feature_dims": ["band"]}
    fit = c.fit(data.drop_attrs(), c.GaussianMixture(2), **options)
    if kind == "store":
        data.to_dataset().to_zarr(tmp_path / "s.zarr", consolidated=False, zarr_format=3)
    with pytest.warns(c.ClusteringWarning) as caught:
        result = call(fit, data if kind == "DataArray" else tmp_path / "s.zarr", options)
    assert [str(one.message) for one in caught] == ["valid_max of variable 't' is 'high', no number, and is ignored"]
    assert caught[0].filename == __file__
    if isinstance(result, c.Fit):
        assert str(caught[0].message) in result.warnings


def test_warnings_of_this_library_are_silenced_by_their_category() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=c.ClusteringWarning)
        fit = c.fit(odd_field(), c.KMeans(2), sample_dims=["x"])
    assert [str(one.message) for one in caught] == []
    assert "valid_max of variable 't' is 'high', no number, and is ignored" in fit.warnings


def test_what_leaves_most_rows_out_is_a_warning() -> None:
    data = odd_field().assign_attrs(valid_max=5.0)
    data[:10] = 50.0
    with pytest.warns(c.ClusteringWarning, match="valid_max of variable 't' leaves out 25 of 40 rows") as caught:
        fit = c.fit(data, c.KMeans(2), sample_dims=["x"])
    assert (len(caught), caught[0].filename) == (1, __file__)
    assert fit.fitted.summary.count == 15
