from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import clustering as c
from clustering.errors import ConfigError, DataError

QUICK = ["silhouette", "calinski_harabasz", "davies_bouldin"]
"""Criteria that need no repeated fits."""


def numbers(selection: c.Selection) -> list[dict[str, Any]]:
    return [dict(row) for row in selection.table]


def test_well_separated_clusters_are_recommended(blobs: np.ndarray) -> None:
    selection = c.select_k(blobs, c.KMeans, k=range(2, 8))
    assert selection.recommended == {"k": 4}
    assert selection.fit is not None
    assert selection.fit.model.k == 4
    assert "4" in selection.reason
    assert [row["k"] for row in selection.table] == [2, 3, 4, 5, 6, 7]
    assert "k = 4" in repr(selection)


def test_mixtures_are_compared_by_k_and_covariance(blobs: np.ndarray) -> None:
    selection = c.select_k(
        blobs, c.GaussianMixture(1), k="3..5", covariance=["spherical", "full"], criteria=["bic", "icl", "silhouette"]
    )
    assert selection.recommended == {"k": 4, "covariance": "spherical"}
    assert len(selection.table) == 6
    assert selection.fit_of(5, covariance="full").model == c.GaussianMixture(5, "full")


def test_a_fit_is_asked_for_by_all_that_varies(blobs: np.ndarray) -> None:
    selection = c.select_k(blobs, c.GaussianMixture, k=[3, 4], covariance=["diagonal", "full"], criteria=["bic"])
    assert selection.fit_of(3, covariance="full").model == c.GaussianMixture(k=3, covariance="full")
    message = "2 choices have k = 3; give covariance too: covariance = diagonal; covariance = full"
    with pytest.raises(LookupError, match=message):
        selection.fit_of(3)


def test_each_fit_is_that_of_the_call_that_fits_it_alone(blobs: np.ndarray) -> None:
    selection = c.select_k(blobs, c.KMeans, k=[2, 5], criteria=QUICK)
    for k in (2, 5):
        alone = c.fit(blobs, c.KMeans(k))
        np.testing.assert_array_equal(selection.fit_of(k).centers, alone.centers)
        assert selection.fit_of(k).objective == alone.objective
        assert selection.table[[2, 5].index(k)]["cost"] == alone.objective


def test_the_criteria_of_a_mixture_are_those_of_its_fit(blobs: np.ndarray) -> None:
    selection = c.select_k(blobs, c.GaussianMixture, k=[2, 3], criteria=["aic", "bic", "icl"])
    for row, fit in zip(selection.table, selection.fits, strict=True):
        assert fit is not None
        assert fit.criteria is not None
        for name in ("aic", "bic", "icl", "parameters"):
            assert row[name] == pytest.approx(fit.criteria[name], rel=1e-12)


def test_the_numbers_of_the_smallest_component_are_compared_with_its_parameters(blobs: np.ndarray) -> None:
    few = np.concatenate([blobs, blobs[:6] / 50 + 400.0])
    selection = c.select_k(few, c.GaussianMixture, k=[4, 5], criteria=["bic"])
    n, d = few.shape
    for row, fit in zip(selection.table, selection.fits, strict=True):
        assert fit is not None
        smallest = np.bincount(fit.predict(few)).min()
        each = (row["k"] * (1 + d + d * (d + 1) / 2) - 1) / row["k"]
        assert row["numbers_per_parameter"] == pytest.approx(smallest * d / each * selection_share(row, n))
    assert selection.table[1]["smallest"] == 6.0
    assert selection.recommended is None
    assert "2 choices, such as k = 4, have a component of too few rows" in selection.reason


@pytest.mark.parametrize(("covariance", "each"), [("full", 9), ("diagonal", 6), ("spherical", 4), ("tied", 3)])
def test_parameters_of_a_component_count_against_its_own_rows(blobs: np.ndarray, covariance: Any, each: int) -> None:
    selection = c.select_k(blobs, c.GaussianMixture, k=[2, 3], covariance=[covariance], criteria=["bic"])
    for row, fit in zip(selection.table, selection.fits, strict=True):
        assert fit is not None
        shares = fit.responsibilities(blobs).mean(axis=0)
        assert row["bic_by_component"] == pytest.approx(row["bic"] + each * np.log(shares).sum())


def selection_share(row: dict[str, Any], n: int) -> float:
    """The share of independent rows, from the penalty of BIC: p log(n share) = BIC + 2 log L."""
    return float(np.exp((row["bic"] + 2.0 * row["log_likelihood"]) / row["parameters"]) / n)


def test_a_sweep_shares_its_passes(rng: np.random.Generator) -> None:
    rows = rng.random((6000, 3))
    # Starts on few rows leave work for the passes, and rows that do not fit into memory are read in each.
    options = {"sample_rows": 100, "memory": "200KB", "block": "48KB", "workers": 1}
    selection = c.select_k(rows, c.KMeans, k=range(2, 21), criteria=QUICK, **options)
    largest = c.fit(rows, c.KMeans(20), accelerate="none", **options)
    passes = [row["passes"] for row in selection.table]
    assert selection.reads <= 1 + max(passes) + 2
    assert selection.reads <= 3 * largest.reads


def test_the_result_does_not_depend_on_the_number_of_workers(blobs: np.ndarray) -> None:
    one, three = (c.select_k(blobs, c.KMeans, k=[2, 3, 4], block="2KB", workers=workers) for workers in (1, 3))
    assert numbers(one) == numbers(three)
    assert one.reason == three.reason


def test_the_result_hardly_depends_on_the_blocks(blobs: np.ndarray) -> None:
    one, other = (c.select_k(blobs, c.KMeans, k=[2, 4], criteria=QUICK, block=block) for block in ("2KB", "1MB"))
    for row, twin in zip(one.table, other.table, strict=True):
        assert row["silhouette"] == pytest.approx(twin["silhouette"], rel=1e-10)


def test_weights_count_as_repeated_rows(blobs: np.ndarray) -> None:
    times = np.random.default_rng(3).integers(1, 4, len(blobs))
    weighted = c.select_k(blobs, c.GaussianMixture, k=[4], criteria=["bic"], weights=times)
    # Copies of a row beside it would count as rows that depend on each other.
    copies = np.random.default_rng(4).permutation(np.repeat(blobs, times, axis=0))
    repeated = c.select_k(copies, c.GaussianMixture, k=[4], criteria=["bic"])
    for name in ("silhouette", "calinski_harabasz", "davies_bouldin", "bic"):
        assert weighted.table[0][name] == pytest.approx(repeated.table[0][name], rel=1e-4), name


def test_a_choice_that_fails_is_a_row_and_takes_no_other_down() -> None:
    rows = np.repeat(np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]), 5, axis=0)
    rows += 1e-3 * np.arange(15)[:, None] % 2
    selection = c.select_k(rows, c.KMeans, k=[2, 3, 40], criteria=QUICK)
    assert [row["failed"] is None for row in selection.table] == [True, True, False]
    assert "k is 40 and the data have" in selection.table[2]["failed"]
    assert selection.fits[2] is None
    with pytest.raises(LookupError, match=r"k = 40 .* k may be 2, 3"):
        selection.fit_of(40)


def test_a_sweep_of_which_all_fail_is_an_error() -> None:
    with pytest.raises(DataError, match="k is 5 and the data have 2 distinct rows"):
        c.select_k(np.array([[0.0], [1.0]]), c.KMeans, k=[5, 6])


def test_a_divergence_outside_its_domain_is_a_failed_choice(blobs: np.ndarray) -> None:
    selection = c.select_k(blobs, c.KMeans, k=[4], divergence=["squared_euclidean", "kullback_leibler"], criteria=QUICK)
    fine, failed = selection.table
    assert fine["failed"] is None
    assert "in variable 'values': kullback_leibler compares numbers of zero or more; mask such rows" in failed["failed"]


@pytest.fixture
def zeros_in_a_row() -> np.ndarray:
    """Rows of which one has zeros in the first two features, and a small sample does not hold it."""
    rng = np.random.default_rng(0)
    rows = np.array([[9.0, 1.0], [1.0, 9.0], [9.0, 9.0]])[rng.integers(0, 3, 5000)] + rng.uniform(0, 1, (5000, 2))
    rows[3333] = 0.0
    return np.column_stack([rows, rng.uniform(1, 2, 5000)])


WITHOUT_THE_LAST: dict[str, Any] = {
    "feature_weights": [1.0, 1.0, 0.0], "sample_rows": 200, "block": "12KB", "criteria": QUICK,
}  # fmt: skip


@pytest.mark.parametrize("limits", [{}, {"max_iterations": 1}, {"max_seconds": 1e-9}], ids=str)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_row_that_only_a_pass_finds_fails_one_choice(
    zeros_in_a_row: np.ndarray, limits: dict[str, Any], workers: int
) -> None:
    both, alone = (
        c.select_k(
            zeros_in_a_row, c.KMeans, k=[2, 3], divergence=divergences, workers=workers, **WITHOUT_THE_LAST, **limits
        )
        for divergences in (["cosine", "squared_euclidean"], ["squared_euclidean"])
    )
    for row in both.table[:2]:
        assert row["failed"].startswith("a row of zeros in block 6 [3000:3500]: it has no direction")
    assert [row["failed"] for row in both.table[2:]] == [None, None]
    assert both.table[2:] == alone.table
    assert both.recommended == alone.recommended


def test_a_sweep_of_which_all_fail_in_a_pass_is_an_error(zeros_in_a_row: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"every choice fails; the first, k = 2: a row of zeros in block 6"):
        c.select_k(zeros_in_a_row, c.KMeans(k=2, divergence="cosine"), k=[2, 3], **WITHOUT_THE_LAST)


def test_a_row_of_zeros_that_pass_0_finds_fails_one_choice(zeros_in_a_row: np.ndarray) -> None:
    rows = zeros_in_a_row[3300:3400, :2]
    selection = c.select_k(rows, c.KMeans, k=[3], divergence=["cosine", "squared_euclidean"], criteria=QUICK)
    assert selection.table[0]["failed"].startswith("a row of zeros in the data: it has no direction")
    assert selection.table[1]["failed"] is None


def test_a_covariance_that_cannot_be_factored_fails_one_choice(blobs: np.ndarray) -> None:
    rows = np.column_stack([blobs, blobs.sum(axis=1)])
    model = c.GaussianMixture(k=4, regularization=0.0)
    selection = c.select_k(rows, model, k=[4], covariance=["full", "diagonal"], criteria=["bic"])
    assert "the covariance of the data is singular" in selection.table[0]["failed"]
    assert selection.table[1]["failed"] is None


def test_numbers_too_small_for_one_divergence_fail_that_one_alone() -> None:
    rows = np.random.default_rng(1).uniform(1.0, 9.0, (200, 2)) * 1e-170
    divergences = ["squared_euclidean", "itakura_saito"]
    selection = c.select_k(rows, c.KMeans, k=[2], divergence=divergences, criteria=QUICK)
    assert "their squares underflow float64" in selection.table[0]["failed"]
    assert selection.table[1]["failed"] is None


def test_least_values_of_zero_are_no_row_of_zeros() -> None:
    rows = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [2.0, 0.1]] * 10)
    selection = c.select_k(rows, c.KMeans, k=[2], divergence=["squared_euclidean", "cosine"], criteria=QUICK)
    assert [row["failed"] for row in selection.table] == [None, None]


def test_rows_are_masked_and_prepared_as_for_a_fit(blobs: np.ndarray) -> None:
    gappy = blobs.copy()
    gappy[::7, 0] = np.nan
    selection = c.select_k(gappy, c.KMeans, k=[3, 4], criteria=QUICK, standardize="per_feature")
    whole = blobs[~np.isnan(gappy).any(axis=1)]
    scaled = (whole - whole.mean(axis=0)) / whole.std(axis=0)
    direct = c.select_k(scaled, c.KMeans, k=[3, 4], criteria=QUICK)
    for row, twin in zip(selection.table, direct.table, strict=True):
        assert row["silhouette"] == pytest.approx(twin["silhouette"], rel=1e-6)


def test_missing_features_may_be_marginalized(blobs: np.ndarray) -> None:
    gappy = blobs.copy()
    gappy[::11, 2] = np.nan
    selection = c.select_k(gappy, c.KMeans, k=[3, 4, 5], missing="marginalize")
    assert selection.table[1]["silhouette"] > 0.8


def test_labelled_data_give_labelled_fits(blobs: np.ndarray) -> None:
    data = xr.DataArray(blobs, dims=("row", "feature"))
    selection = c.select_k(data, c.KMeans, k=[4, 5], criteria=QUICK)
    assert isinstance(selection.fit_of(4).centers, xr.DataArray)
    assert list(selection.frame["k"]) == [4, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": "2...5"}, "a range such as 2..40"),
        ({"k": []}, "a list such as"),
        ({"k": [0, 2]}, "k"),
        ({"k": "2..5000"}, "4,999 numbers are too many"),
        ({"init": "labels"}, "init is 'labels', which has one number of clusters"),
        ({"covariance": ["full"]}, "kmeans has no option 'covariance'"),
        ({"criteria": ["elbows"]}, "elbow"),
    ],
)
def test_wrong_options_are_refused_in_a_line(blobs: np.ndarray, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("..", r"\.\.")) as caught:
        c.select_k(blobs, c.KMeans, **options)
    assert "\n" not in str(caught.value)


def test_a_sweep_that_does_not_fit_into_memory_says_which_part(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(400, 60))
    with pytest.raises(DataError, match=r"the statistics of \d+ candidates take [\d,]+ bytes .* or lower finalists"):
        c.select_k(rows, c.GaussianMixture, k="2..6", memory="1MB", block="20KB", criteria=["bic"])


def test_a_selection_draws_its_criteria() -> None:
    rows = np.random.default_rng(0).normal(0, 1, (40, 2)) + 8 * (np.arange(40) % 2)[:, None]
    selection = c.select_k(rows, c.KMeans(2), k=[2, 3, 4, 50])
    axes = selection.plot(ax=Figure(), criteria=["silhouette", "cost"])
    drawn = axes[0].lines[0].get_ydata()
    assert drawn[:3].tolist() == [row["silhouette"] for row in selection.table[:3]]
    # The choice that failed is a gap.
    assert np.isnan(drawn[3])
    assert len(selection.plot(ax=Figure())) > 4
