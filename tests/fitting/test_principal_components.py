"""Principal components of fewer rows than features follow from the rows, and are those of the covariance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import PCA

import clustering as c
from clustering.errors import DataError
from clustering.fitting import principal_components, survey_pass
from clustering.models import survey

N, D = 25, 40


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Treat 40 features as too many for a covariance."""
    monkeypatch.setattr(survey, "WIDEST_COVARIANCE", 16)
    monkeypatch.setattr(survey_pass, "WIDEST_COVARIANCE", 16)
    return monkeypatch


@pytest.fixture
def rows(rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal((N, D)) @ rng.standard_normal((D, D)) + 50.0
    values[:12, :20] += 9.0
    return values


WISHES: dict[str, dict[str, Any]] = {
    "5": {"pca": 5},
    "all that vary": {"pca": N - 1},
    "a share": {"pca": 0.8},
    "whiten": {"pca": 6, "whiten": True},
    "standardize": {"pca": 4, "standardize": "per_feature"},
    "feature weights": {"pca": 4, "feature_weights": np.linspace(0.0, 2.0, D)},
    "unit norm": {"pca": 4, "unit_norm": True},
}


@pytest.mark.parametrize("block_bytes", [None, 2000], ids=["one block", "blocks"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("wish", WISHES.values(), ids=WISHES)
def test_they_are_those_of_the_covariance(
    wish: Any, weighted: bool, block_bytes: int | None, rows: np.ndarray, narrow: pytest.MonkeyPatch
) -> None:
    weights = None
    if weighted:
        weights = np.random.default_rng(0).random(N)
        weights[[3, 17]] = 0.0
        wish = {**wish, "pca": min(wish["pca"], N - 3)}
    rows[5, 7] = np.nan
    wish = {**wish, "pca": min(wish["pca"], N - 4 if weighted else N - 2)}
    options = {"weights": weights, "block_bytes": block_bytes, "restarts": 2, "init": rows[[0, 20]], **wish}
    calls: list[int] = []
    plain = principal_components.of_rows
    narrow.setattr(
        "clustering.fitting.preprocessing.of_rows", lambda sample: calls.append(len(sample)) or plain(sample)
    )
    fit = c.fit(rows, c.KMeans(2), **options)
    assert calls == [N - 1 - 2 * weighted]
    narrow.setattr(survey_pass, "few_rows", lambda *_, **__: False)
    other = c.fit(rows, c.KMeans(2), **options)
    assert len(calls) == 1
    mine, theirs = fit.fitted.preparation, other.fitted.preparation
    assert mine.p == theirs.p
    np.testing.assert_allclose(mine.explained, theirs.explained, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(mine.matrix, theirs.matrix, rtol=1e-6, atol=1e-9 * np.abs(theirs.matrix).max())
    np.testing.assert_array_equal(fit.predict(rows), other.predict(rows))
    assert fit.objective == pytest.approx(other.objective, rel=1e-10)
    np.testing.assert_allclose(fit.centers, other.centers, rtol=1e-8)


def test_they_are_those_of_each_variable(rng: np.random.Generator, narrow: pytest.MonkeyPatch) -> None:
    # One variable has more features than there are rows, and one fewer.
    data = xr.Dataset({"a": (("x", "s"), rng.standard_normal((N, 32))), "b": (("x", "u"), rng.standard_normal((N, 9)))})
    wish: dict[str, Any] = {"pca": 3, "pca_per_variable": True}
    options = {"variables": ["a", "b"], "sample_dims": ["x"], "feature_dims": ["s", "u"], **wish}
    fit = c.fit(data, c.KMeans(2), **options)
    assert fit.fitted.preparation.facts["components"] == {"a": 3, "b": 3}
    for name, part in (("a", slice(0, 32)), ("b", slice(32, 41))):
        theirs = PCA(3).fit(data[name].values)
        own = fit.fitted.preparation.matrix[part, slice(0, 3) if name == "a" else slice(3, 6)]
        np.testing.assert_allclose(np.abs(own), np.abs(theirs.components_.T), atol=1e-9)
        assert (own[np.abs(own).argmax(axis=0), np.arange(3)] > 0.0).all()


def test_components_without_variance_are_orthonormal_directions(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((10, 30))
    rows -= rows.mean(axis=0)
    spectrum = principal_components.of_rows(rows)
    loadings = spectrum.loadings(10)
    np.testing.assert_allclose(loadings.T @ loadings, np.eye(10), atol=1e-13)
    assert spectrum.values[-1] < 1e-13 * spectrum.values[0]
    np.testing.assert_allclose(spectrum.values[:9], np.linalg.svd(rows)[1][:9] ** 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"pca": N + 1}, f"pca is {N + 1}, and there are {N} rows of positive weight; set pca to {N}"),
        ({"pca": N, "whiten": True}, f"{N - 1} of {N} components vary; set pca to {N - 1}"),
    ],
    ids=["too many", "whiten"],
)
def test_more_components_than_rows_have_are_refused(
    wish: Any, said: str, rows: np.ndarray, narrow: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=said):
        c.fit(rows, c.KMeans(2), **wish)


def test_rows_that_do_not_vary_have_none(narrow: pytest.MonkeyPatch) -> None:
    rows = np.ones((N, D))
    with pytest.raises(DataError, match="do not vary"):
        c.fit(rows, c.KMeans(1), pca=2)


def test_a_sample_that_lacks_rows_is_not_enough(rows: np.ndarray, narrow: pytest.MonkeyPatch) -> None:
    few, all_of_them = (c.fit(rows, c.KMeans(2), pca=3, sample_rows=n, init=rows[[0, 20]]) for n in (10, 1000))
    np.testing.assert_allclose(few.fitted.preparation.matrix, all_of_them.fitted.preparation.matrix, atol=1e-9)


def test_the_bits_do_not_depend_on_the_engine(rows: np.ndarray, narrow: pytest.MonkeyPatch) -> None:
    one, other = (
        c.fit(rows, c.KMeans(2), pca=3, block_bytes=1500, cluster=cluster, workers=workers)
        for cluster, workers in (("synchronous", None), ("threads", 3))
    )
    np.testing.assert_array_equal(one.fitted.preparation.matrix, other.fitted.preparation.matrix)
    assert one.objective == other.objective


def test_a_year_of_maps_takes_no_sums_of_products(rng: np.random.Generator) -> None:
    # Sums of products of 12,000 features would take 1.1 GiB for each of several nodes.
    values = rng.standard_normal((40, 12_000)).astype(np.float32)
    values[:20, :6000] += 3.0
    fit = c.fit(values, c.KMeans(2), pca=5, memory=2**27)
    theirs = PCA(5, svd_solver="full").fit(values.astype(np.float64))
    np.testing.assert_allclose(fit.fitted.preparation.explained, theirs.explained_variance_ratio_, rtol=1e-9)
    np.testing.assert_allclose(np.abs(fit.fitted.preparation.matrix.T), np.abs(theirs.components_), atol=1e-8)
    assert len(set(fit.predict(values)[:20])) == len(set(fit.predict(values)[20:])) == 1
