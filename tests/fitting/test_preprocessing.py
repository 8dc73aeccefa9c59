from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from sklearn.cluster import KMeans as TheirKMeans
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import clustering as c
from clustering.errors import ClusteringError, ConfigError, DataError
from clustering.options import FitCall, PreprocessOptions
from clustering.signatures import check_call

K = 4
BLOCKS = [None, 3_000, 700]
"""Block sizes in bytes; the default is one block."""


@pytest.fixture
def rows(rng: np.random.Generator) -> np.ndarray:
    """Rows (900, 7) of three clusters, with features that depend on each other, of very different units."""
    mixed = rng.standard_normal((900, 7)) @ rng.standard_normal((7, 7))
    mixed[:300] += 6.0
    mixed[300:500, :3] -= 9.0
    return mixed * np.array([1.0, 100.0, 1e-3, 5.0, 1.0, 2.0, 30.0]) + np.array([0.0, 5.0, 1.0, -3e3, 1.0, 0.0, 9.0])


def fit(rows: Any, model: Any = None, **options: Any) -> c.Fit:
    return c.fit(rows, model or c.KMeans(K), **{"max_iterations": 20, "restarts": 2, **options})


def prepared(model_fit: c.Fit, rows: np.ndarray) -> np.ndarray:
    values: np.ndarray = model_fit.fitted.preparation.apply_to_values(rows)[0]
    return values


def parts(model_fit: c.Fit, rows: np.ndarray) -> list[bytes]:
    """Return the centers, history, labels, weights and preparation of a fit, as bytes."""
    p = model_fit.fitted.preparation
    arrays = [p.offset, p.matrix, p.inverse] if p is not None else []
    return [
        np.asarray(a).tobytes()
        for a in (model_fit.centers, model_fit.history, model_fit.predict(rows), model_fit.weights, *arrays)
    ]


@pytest.mark.parametrize("block_bytes", BLOCKS)
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
def test_features_are_standardized_as_by_scikit_learn(
    weighted: bool, block_bytes: int | None, rows: np.ndarray, rng: np.random.Generator
) -> None:
    weights = rng.uniform(0, 3, len(rows)) if weighted else None
    theirs = StandardScaler().fit(rows, sample_weight=weights)
    model_fit = fit(rows, standardize="per_feature", weights=weights, block_bytes=block_bytes)
    np.testing.assert_allclose(model_fit.fitted.preparation.offset, theirs.mean_, rtol=1e-10)
    np.testing.assert_allclose(model_fit.fitted.preparation.inverse, theirs.scale_, rtol=1e-10)
    np.testing.assert_allclose(prepared(model_fit, rows), theirs.transform(rows), rtol=1e-8, atol=1e-8)
    back = theirs.inverse_transform(model_fit.fitted.centers_prepared)
    np.testing.assert_allclose(model_fit.centers, back, rtol=1e-8)


def rounding(variances: np.ndarray) -> float:
    """The error of components of these variances: rounding of the largest is an error of the least."""
    return max(1e-8, 16 * np.finfo(float).eps * float(variances.max() / variances.min()))


@pytest.mark.parametrize("block_bytes", BLOCKS)
@pytest.mark.parametrize("whiten", [False, True], ids=["", "whiten"])
@pytest.mark.parametrize("pca", [1, 4, 7, 0.5, 0.9, 0.999999])
def test_components_are_those_of_scikit_learn(
    pca: float, whiten: bool, block_bytes: int | None, rows: np.ndarray
) -> None:
    theirs = PCA(pca, whiten=whiten, svd_solver="full").fit(rows)
    model_fit = fit(rows, pca=pca, whiten=whiten, block_bytes=block_bytes)
    preparation = model_fit.fitted.preparation
    assert preparation.facts["n_components"] == theirs.n_components_
    np.testing.assert_allclose(preparation.explained, theirs.explained_variance_ratio_, rtol=1e-8, atol=1e-12)
    expected = theirs.transform(rows)
    near = rounding(theirs.explained_variance_)
    np.testing.assert_allclose(prepared(model_fit, rows), expected, rtol=1e-7, atol=near * np.abs(expected).max())
    back = theirs.inverse_transform(model_fit.fitted.centers_prepared)
    np.testing.assert_allclose(model_fit.centers, back, rtol=1e-8, atol=1e-8 * np.abs(back).max())


@pytest.mark.parametrize("block_bytes", BLOCKS)
def test_a_pipeline_of_both_gives_the_same_clusters(block_bytes: int | None, rows: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), PCA(3, whiten=True, svd_solver="full"))
    transformed = pipeline.fit_transform(rows)
    start = rows[:K]
    theirs = TheirKMeans(K, init=pipeline.transform(start), n_init=1, tol=0, algorithm="lloyd").fit(transformed)
    model_fit = c.fit(
        rows, c.KMeans(K), init=start, standardize="per_feature", pca=3, whiten=True, block_bytes=block_bytes
    )
    np.testing.assert_allclose(prepared(model_fit, rows), transformed, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(model_fit.predict(rows), theirs.labels_)
    np.testing.assert_allclose(model_fit.objective, theirs.inertia_, rtol=1e-9)
    np.testing.assert_allclose(model_fit.fitted.centers_prepared, theirs.cluster_centers_, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(model_fit.centers, pipeline.inverse_transform(theirs.cluster_centers_), rtol=1e-7)
    assert model_fit.reads == 1


def test_whitening_alone_keeps_all_components(rows: np.ndarray) -> None:
    model_fit = fit(rows, whiten=True)
    near = rounding(PCA(svd_solver="full").fit(rows).explained_variance_)
    np.testing.assert_allclose(np.cov(prepared(model_fit, rows).T), np.eye(7), atol=near)
    assert model_fit.fitted.preparation.facts["n_components"] == 7


OPTIONS: dict[str, dict[str, Any]] = {
    "per feature": {"standardize": "per_feature"},
    "unit norm and weights": {"unit_norm": True, "feature_weights": np.array([1.0, 0.0, 2.0, 1.0, 0.5, 1.0, 3.0])},
    "components": {"standardize": "per_feature", "pca": 3, "whiten": True},
    "fraction": {"fraction": 0.3, "pca": 0.9},
}


@pytest.mark.filterwarnings("ignore:beta is:clustering.ClusteringWarning")
@pytest.mark.parametrize("model", [c.KMeans(K), c.SoftKMeans(3), c.GaussianMixture(2)], ids=lambda m: m.kind)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_model_that_is_saved_and_loaded_gives_the_same_results(
    name: str, model: Any, rows: np.ndarray, tmp_path: Path
) -> None:
    model_fit = fit(rows, model, block_bytes=7_000, **OPTIONS[name])
    model_fit.save(tmp_path / "model.zarr")
    again = c.load_fit(tmp_path / "model.zarr")
    assert parts(again, rows) == parts(model_fit, rows)
    assert again.score(rows) == model_fit.score(rows)
    assert repr(again) == repr(model_fit)
    assert again.fitted.preparation.summary == model_fit.fitted.preparation.summary
    np.testing.assert_array_equal(again.fitted.covariances, model_fit.fitted.covariances)
    with xr.open_zarr(tmp_path / "model.zarr", consolidated=False) as stored:
        assert stored["centers"].dims == ("cluster", "feature")
        assert stored["centers_prepared"].dims == ("cluster", "component")
        np.testing.assert_array_equal(stored["centers"], model_fit.centers)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_engine_gives_the_same_bits(name: str, rows: np.ndarray) -> None:
    calm, *others = (
        parts(fit(rows, block_bytes=4_000, init=rows[:K], **how, **OPTIONS[name]), rows)
        for how in (
            {"cluster": "synchronous"},
            {"workers": 3},
            # Passes over the rows near a boundary would add up in another order.
            {"cluster": "synchronous", "memory": 30_000, "accelerate": "none"},
        )
    )
    assert all(other == calm for other in others)


@pytest.mark.slow
def test_processes_give_the_same_bits(rows: np.ndarray) -> None:
    options: dict[str, Any] = {"block_bytes": 4_000, "init": rows[:K], **OPTIONS["components"]}
    processes = fit(rows, cluster="local", workers=2, memory=2**26, **options)
    assert parts(processes, rows) == parts(fit(rows, cluster="synchronous", memory=2**26, **options), rows)


def test_whole_weights_are_rows_repeated(rows: np.ndarray, rng: np.random.Generator) -> None:
    times = rng.integers(0, 4, len(rows))
    options: dict[str, Any] = {"standardize": "per_feature", "pca": 4, "init": rows[:K]}
    weighted, repeated = (
        fit(rows, weights=times.astype(float), **options),
        fit(np.repeat(rows, times, axis=0), **options),
    )
    np.testing.assert_allclose(prepared(weighted, rows), prepared(repeated, rows), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(weighted.objective, repeated.objective, rtol=1e-9)
    np.testing.assert_allclose(weighted.centers, repeated.centers, rtol=1e-8, atol=1e-8)


def test_feature_weights_are_columns_scaled_by_hand(rows: np.ndarray) -> None:
    weights = np.array([0.0, 0.1, 50.0, 1.0, 3.0, 2.0, 1.0])
    model_fit = fit(rows, feature_weights=weights, init=rows[:K])
    by_hand = fit(rows * weights, init=(rows * weights)[:K])
    np.testing.assert_array_equal(model_fit.predict(rows), by_hand.predict(rows * weights))
    np.testing.assert_allclose(model_fit.objective, by_hand.objective, rtol=1e-12)
    np.testing.assert_allclose(model_fit.centers[:, 1:], by_hand.centers[:, 1:] / weights[1:], rtol=1e-9)
    np.testing.assert_allclose(model_fit.centers[:, 0], rows[:, 0].mean())


@pytest.fixture
def ocean(rng: np.random.Generator) -> xr.Dataset:
    """Profiles of two variables and a surface field."""
    shape = (20, 15)
    depth = np.arange(6.0)
    warm = rng.integers(0, 2, shape)[..., None]
    return xr.Dataset(
        {
            "t": (("y", "x", "depth"), 15.0 - depth + 5 * warm + rng.standard_normal((*shape, 6))),
            "s": (("y", "x", "depth"), 35.0 + 0.1 * depth + 0.01 * rng.standard_normal((*shape, 6))),
            "ice": (("y", "x"), rng.random(shape)),
        },
        coords={"depth": depth},
    )


SOURCE: dict[str, Any] = {"variables": ["t", "s", "ice"], "sample_dims": ["y", "x"]}


def by_variable(ocean: xr.Dataset) -> list[np.ndarray]:
    return [ocean[name].values.reshape(300, -1) for name in SOURCE["variables"]]


def test_a_variable_is_standardized_by_all_of_its_values(ocean: xr.Dataset) -> None:
    model_fit = fit(ocean, standardize="per_variable", block_bytes=4_000, **SOURCE)
    columns = by_variable(ocean)
    expected = np.concatenate([(x - x.mean()) / x.std() for x in columns], axis=1)
    np.testing.assert_allclose(prepared(model_fit, np.concatenate(columns, axis=1)), expected, rtol=1e-8, atol=1e-8)


def test_a_mixture_of_components_of_each_variable(ocean: xr.Dataset) -> None:
    """The usual way with profiles: one scale for each variable, its leading components, and a mixture on them."""
    columns = by_variable(ocean)
    options: dict[str, Any] = {"standardize": "per_variable", "pca": 0.95, "pca_per_variable": True}
    model_fit = fit(ocean, c.GaussianMixture(2), **options, **SOURCE)
    expected = [PCA(0.95, svd_solver="full").fit_transform((x - x.mean()) / x.std()) for x in columns]
    facts = model_fit.fitted.preparation.facts
    assert facts["components"] == {name: x.shape[1] for name, x in zip(SOURCE["variables"], expected, strict=True)}
    rows, joined = np.concatenate(columns, axis=1), np.concatenate(expected, axis=1)
    np.testing.assert_allclose(prepared(model_fit, rows), joined, rtol=1e-7, atol=1e-8)
    start = {"centers": model_fit.centers, "weights": model_fit.weights, "covariances": model_fit.covariances}
    again = fit(
        joined, c.GaussianMixture(2), init={**start, "centers": model_fit.fitted.centers_prepared}, tolerance=1e-9
    )
    assert again.objective == pytest.approx(model_fit.objective, abs=1e-4)
    assert fit(ocean, c.GaussianMixture(2), init=start, **options, **SOURCE).objective >= model_fit.objective - 1e-9
    assert model_fit.centers.dims == ("cluster", "feature")
    assert model_fit.covariances.dims == ("cluster", "component", "component_too")
    assert "PCA of each variable" in model_fit.fitted.remarks[0]


@pytest.mark.parametrize("covariance", ["diagonal", "tied", "full"])
def test_covariances_of_standardized_rows_come_back_and_are_a_start(covariance: Any, rows: np.ndarray) -> None:
    model = c.GaussianMixture(2, covariance, regularization=0)
    model_fit = fit(rows, model, standardize="per_feature", max_iterations=200, tolerance=1e-10)
    start = {name: getattr(model_fit, name) for name in ("weights", "centers", "covariances")}
    plain = fit(rows, model, init=start, tolerance=1e-10)
    # A mixture by maximum likelihood does not care for units: the start is a fixed point in the data's own.
    assert plain.iterations <= 3
    np.testing.assert_allclose(model_fit.covariances, plain.covariances, rtol=1e-4)
    np.testing.assert_allclose(model_fit.centers, plain.centers, rtol=1e-4)
    again = fit(rows, model, standardize="per_feature", init=start, tolerance=1e-10)
    assert again.iterations <= 3
    np.testing.assert_allclose(again.covariances, model_fit.covariances, rtol=1e-6)


def test_drawn_rows_are_in_the_units_of_the_data(rows: np.ndarray) -> None:
    model_fit = fit(rows, c.GaussianMixture(3), standardize="per_feature", pca=7)
    drawn, _ = model_fit.sample(20_000, seed=1)
    np.testing.assert_allclose(drawn.mean(axis=0), rows.mean(axis=0), atol=0.1 * rows.std(axis=0).max())
    np.testing.assert_allclose(drawn.std(axis=0), rows.std(axis=0), rtol=0.1)


def test_far_from_zero_nothing_is_lost(rng: np.random.Generator) -> None:
    near = rng.integers(-1000, 1000, (600, 5)) @ rng.integers(-3, 4, (5, 5)) / 2.0**12
    far = near + 2.0**26
    for options in OPTIONS["components"], {"standardize": "per_feature"}:
        one, other = fit(near, init=near[:K], **options), fit(far, init=far[:K], **options)
        np.testing.assert_allclose(prepared(other, far), prepared(one, near), rtol=1e-7, atol=1e-8)
        np.testing.assert_array_equal(other.predict(far), one.predict(near))


def test_gaps_stay_gaps(rows: np.ndarray, rng: np.random.Generator) -> None:
    holed = np.where(rng.random(rows.shape) < 0.1, np.nan, rows)
    holed[:, 0] = rows[:, 0]
    theirs = StandardScaler().fit(holed)
    start = rows[:K]
    model_fit = fit(holed, standardize="per_feature", missing="marginalize", init=start)
    by_hand = fit(theirs.transform(holed), missing="marginalize", init=theirs.transform(start))
    np.testing.assert_allclose(model_fit.fitted.preparation.inverse, theirs.scale_, rtol=1e-10)
    np.testing.assert_allclose(model_fit.objective, by_hand.objective, rtol=1e-9)
    np.testing.assert_allclose(model_fit.centers, theirs.inverse_transform(by_hand.centers), rtol=1e-8)


def test_more_features_than_a_covariance_is_kept_for_have_components_too(rng: np.random.Generator) -> None:
    wide = (rng.standard_normal((100, 3)) * [9.0, 5.0, 3.0]) @ rng.standard_normal((3, 1030))
    wide += rng.standard_normal(wide.shape)
    model_fit = fit(wide.astype(np.float32), pca=2, block_bytes=200_000)
    theirs = PCA(2, svd_solver="full").fit(wide.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(
        prepared(model_fit, wide.astype(np.float32)), theirs.transform(wide), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(model_fit.fitted.preparation.explained, theirs.explained_variance_ratio_, rtol=1e-6)


def test_components_are_kept_in_memory_where_rows_do_not_fit(rng: np.random.Generator) -> None:
    """Pass 0 reads all; the first pass after reads what did not fit, and keeps the smaller prepared rows of all."""
    values = rng.standard_normal((4000, 32))
    memory = values.nbytes
    plain = fit(values, memory=memory, block_bytes=16_000, max_iterations=5, sample_rows=250)
    smaller = fit(values, memory=memory, block_bytes=16_000, max_iterations=5, sample_rows=250, pca=4)
    assert plain.reads > 3
    assert smaller.reads < 1.8


def test_rows_of_zeros_have_no_direction(rows: np.ndarray) -> None:
    rows[5] = rows[700] = 0.0
    with pytest.warns(c.ClusteringWarning, match="2 rows of zeros have no direction"):
        model_fit = fit(rows, unit_norm=True, block_bytes=3_000)
    with pytest.warns(c.ClusteringWarning, match="2 rows of zeros have no direction"):
        labels = model_fit.predict(rows)
    assert np.flatnonzero(labels < 0).tolist() == [5, 700]
    assert model_fit.fitted.summary.count == len(rows) - 2
    with pytest.raises(DataError, match=r"row of zeros in block 0 .*unit_norm.*set missing"):
        fit(rows, unit_norm=True, missing="error")


@pytest.mark.filterwarnings("ignore::clustering.ClusteringWarning")
@pytest.mark.parametrize(
    ("zeros", "model", "block_bytes"),
    [
        *((zeros, c.KMeans(2), block) for zeros in (0, 1, 3) for block in BLOCKS),
        *((3, model, 700) for model in (c.SoftKMeans(2), c.GaussianMixture(2))),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_rows_of_zeros_are_counted_and_reported(
    zeros: int, model: Any, block_bytes: int | None, rows: np.ndarray, tmp_path: Path
) -> None:
    rows[100 : 100 + zeros] = 0.0
    rows[400] = np.nan
    for fraction in (1.0, 0.5):
        model_fit = fit(rows, model, unit_norm=True, block_bytes=block_bytes, fraction=fraction)
        zero_row_warnings = [line for line in model_fit.warnings if "no direction" in line]
        assert len(zero_row_warnings) == (zeros > 0)
        assert all(line.startswith(f"{zeros} row") and "preprocess.unit_norm" in line for line in zero_row_warnings)
        assert model_fit.fitted.summary.count == len(rows) - zeros - 1
    model_fit.save(tmp_path / "m.zarr")
    assert c.load_fit(tmp_path / "m.zarr").warnings == model_fit.warnings
    assert not [line for line in fit(rows, model, block_bytes=block_bytes).warnings if "no direction" in line]


def test_rows_of_zeros_alone_are_named() -> None:
    with pytest.raises(DataError, match=r"no row takes part.*rows of zeros, which unit_norm leaves out"):
        fit(np.zeros((5, 2)), unit_norm=True)


WISHES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown scale": ({"standardize": "per_featur"}, ["'per_featur'", "did you mean 'per_feature'?"]),
    "true scale": ({"standardize": True}, ["standardize is True", "per_variable"]),
    "no components": ({"pca": 0}, ["pca is 0", "1 or more"]),
    "true components": ({"pca": True}, ["pca is True"]),
    "all of the variance": ({"pca": 1.0}, ["pca is 1.0", "between 0 and 1"]),
    "word for components": ({"pca": "all"}, ["pca is 'all'"]),
    "components of each variable and none wanted": ({"pca_per_variable": True}, ["pca_per_variable", "pca is null"]),
    "word for a truth": ({"whiten": "yes"}, ["whiten is 'yes'", "true or false"]),
    "too many components": ({"pca": 8}, ["pca is 8", "7 features", "7 or fewer"]),
    "weights of another shape": ({"feature_weights": np.ones(3)}, ["(3,)", "7 features"]),
    "negative weights": ({"feature_weights": -np.ones(7)}, ["feature_weights are -1"]),
    "no weight": ({"feature_weights": np.zeros(7)}, ["feature_weights are all 0"]),
    "words for weights": ({"feature_weights": ["a"] * 7}, ["no array of numbers"]),
    "unknown weights": ({"feature_weights": "depth"}, ["'depth'", "unknown variable"]),
    "components of gaps": ({"pca": 2, "missing": "marginalize"}, ["marginalize", "pca is 2", "drop"]),
    "norm of gaps": ({"unit_norm": True, "missing": "marginalize"}, ["marginalize", "unit_norm", "drop"]),
    "fraction of nothing": ({"fraction": 0}, ["fraction is 0", "more than 0"]),
    "more than all": ({"fraction": 1.5}, ["fraction is 1.5", "1 or less"]),
    "no row drawn": ({"fraction": 1e-12}, ["fraction is 1e-12", "none of the rows", "raise fraction"]),
    "fewer drawn than clusters": ({"fraction": 0.002}, ["k is 4", "distinct row", "or raise fraction"]),
}


@pytest.mark.parametrize(("options", "named"), WISHES.values(), ids=WISHES)
def test_a_mistake_is_named_in_one_line(options: dict[str, Any], named: list[str], rows: np.ndarray) -> None:
    with pytest.raises(ClusteringError) as caught:
        fit(rows, **options)
    assert "\n" not in str(caught.value)
    for text in named:
        assert text in str(caught.value)


def test_more_components_than_rows_are_refused(rows: np.ndarray) -> None:
    weights = np.zeros(len(rows))
    weights[:5] = 1.0
    with pytest.raises(DataError, match=r"pca is 6, and there are 5 rows of positive weight"):
        fit(rows, pca=6, weights=weights)


def test_what_does_not_vary_is_named(rows: np.ndarray, ocean: xr.Dataset) -> None:
    rows[:, 2] = 0.1
    with pytest.raises(DataError, match=r"feature values\[.*2\] of variable .* is constant, .* leave it out"):
        fit(rows, standardize="per_feature")
    weights = np.ones(7)
    weights[2] = 0.0
    assert np.isfinite(fit(rows, standardize="per_feature", feature_weights=weights).objective)
    with pytest.raises(DataError, match=r"6 of 7 components vary; set pca to 6 or fewer"):
        fit(rows, whiten=True)
    ocean["s"][:] = 35.0
    with pytest.raises(DataError, match=r"variable 's' is constant"):
        fit(ocean, standardize="per_variable", **SOURCE)
    with pytest.raises(DataError, match=r"features of variable 's' do not vary"):
        fit(ocean, pca=1, pca_per_variable=True, **SOURCE)


@pytest.mark.parametrize("divergence", ["kullback_leibler", "itakura_saito"])
def test_divergences_of_positive_numbers_want_no_mean_taken_off(divergence: Any, rows: np.ndarray) -> None:
    model = c.KMeans(2, divergence=divergence)
    with pytest.raises(ConfigError, match=rf"standardize is 'per_feature' and divergence is '{divergence}'"):
        fit(np.abs(rows) + 1, model, standardize="per_feature")
    assert np.isfinite(fit(np.abs(rows) + 1, model, unit_norm=True, feature_weights=np.arange(1.0, 8.0)).objective)


def test_directions_of_standardized_rows_are_those_of_standardizing_by_hand(rows: np.ndarray) -> None:
    rows[3] = 0.0
    by_hand, start = StandardScaler().fit_transform(rows), rows[:3]
    model = c.KMeans(3, divergence="cosine")
    model_fit = fit(rows, model, standardize="per_feature", init=start)
    expected = fit(by_hand, model, init=by_hand[:3])
    np.testing.assert_allclose(model_fit.objective, expected.objective, rtol=1e-9)
    np.testing.assert_array_equal(model_fit.predict(rows), expected.predict(by_hand))


def test_sums_of_products_that_do_not_fit_are_refused_before_they_are_made(rng: np.random.Generator) -> None:
    wide = np.ones((3000, 3000), np.float32)
    with pytest.raises(DataError, match=r"principal components of 3000 features take .* MiB .*raise memory"):
        fit(wide, pca=2, memory=2**27)


def test_what_was_requested_is_given_as_json() -> None:
    assert PreprocessOptions().requested == {}
    wish = check_call(FitCall, {"standardize": "per_feature", "pca": np.int64(3), "feature_weights": np.ones(2)})
    asked = wish.requested
    # Other weights are another text, so that a model is not taken for one with these weights.
    assert asked.pop("feature_weights").startswith("array, sha256 ")
    assert asked == {"standardize": "per_feature", "pca": 3}


@pytest.mark.parametrize("model", [c.KMeans(K), c.GaussianMixture(2)], ids=lambda m: m.kind)
def test_a_fraction_is_the_same_rows_for_all_blocks_and_engines(model: Any, rows: np.ndarray) -> None:
    fits = [
        fit(rows, model, fraction=0.4, init="kmeans++", block_bytes=size, cluster=cluster)
        for size, cluster in ((None, "synchronous"), (1_000, "threads"), (9_999, "threads"))
    ]
    assert len({f.fitted.summary.drawn for f in fits}) == 1
    assert fits[0].fitted.summary.drawn == pytest.approx(0.4 * len(rows), abs=5 * np.sqrt(0.24 * len(rows)))
    for other in fits[1:]:
        np.testing.assert_allclose(other.fitted.summary.mean, fits[0].fitted.summary.mean, rtol=1e-12)
        np.testing.assert_allclose(other.objective, fits[0].objective, rtol=1e-6)


def test_a_fit_of_a_fraction_is_that_of_the_rows_drawn_and_describes_all(rows: np.ndarray) -> None:
    model_fit = fit(rows, fraction=0.25, init=rows[:K], max_iterations=100)
    # Twice as many rows hold those of the smaller fraction: a row takes part by its own number.
    more = fit(rows, fraction=0.5, max_iterations=0)
    assert more.fitted.summary.drawn > model_fit.fitted.summary.drawn
    drawn = model_fit.fitted.summary.drawn
    assert (model_fit.fitted.summary.count, model_fit.fitted.summary.weight) == (len(rows), len(rows))
    labels = model_fit.predict(rows)
    assert (labels >= 0).all()
    np.testing.assert_allclose(model_fit.objective, np.sum((rows - model_fit.centers[labels]) ** 2), rtol=1e-9)
    assert model_fit.history[-1, 1] < model_fit.objective
    assert model_fit.fitted.remarks[0].startswith(f"fitted on {drawn} of {len(rows)} rows (")
    assert model_fit.reads == 2
    assert fit(rows, fraction=0.25, seed=5, max_iterations=0).fitted.summary.drawn != drawn
    assert fit(rows, fraction=1.0).fitted.summary.drawn is None


@pytest.mark.parametrize("options", [{}, {"pca": 2}, {"whiten": True}], ids=str)
def test_feature_weights_beyond_float64_are_refused(options: dict[str, Any], rows: np.ndarray) -> None:
    with pytest.raises(c.ClusteringError, match=r"overflow float64 after preprocessing; lower feature_weights"):
        fit(rows, feature_weights=np.full(7, 1e200), **options)
