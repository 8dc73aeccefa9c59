from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from clustering.errors import ConfigError
from clustering.fitting.choices import choices_of
from clustering.fitting.criteria import elbow, likelihood_criteria
from clustering.fitting.stability import adjusted_rand_index
from clustering.models.kmeans import KMeans
from clustering.models.mixture import GaussianMixture
from clustering.models.soft_kmeans import SoftKMeans


def test_choices_are_all_combinations_in_the_order_of_k() -> None:
    choices = choices_of(GaussianMixture(2), [3, 2, 3], {"covariance": ["full", "tied"], "beta": ()})
    assert [choice.about for choice in choices] == [
        {"k": 2, "covariance": "full"}, {"k": 3, "covariance": "full"},
        {"k": 2, "covariance": "tied"}, {"k": 3, "covariance": "tied"},
    ]  # fmt: skip
    assert choices[0].name == "k = 2, covariance = full"


def test_options_that_do_not_vary_are_those_of_the_model() -> None:
    (choice,) = choices_of(SoftKMeans(2, beta=3.0), [7], {})
    assert choice.model == SoftKMeans(7, beta=3.0)


def test_an_option_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"select\.covariance is set, and kmeans has no option 'covariance'"):
        choices_of(KMeans(2), [2], {"covariance": ["full"]})


def test_a_value_that_is_not_allowed_is_refused() -> None:
    with pytest.raises(ConfigError, match="covariance is 'round'"):
        choices_of(GaussianMixture(2), [2], {"covariance": ["round"]})


def test_the_elbow_is_farthest_below_the_chord() -> None:
    ks = np.arange(2.0, 9.0)
    costs = np.array([100.0, 60.0, 10.0, 9.0, 8.2, 7.6, 7.0])
    assert elbow(ks, costs)[0] == 4


def test_a_straight_curve_has_no_elbow() -> None:
    ks = np.arange(2.0, 9.0)
    assert elbow(ks, 100.0 / ks)[1] == pytest.approx(0.0, abs=1e-12)
    assert elbow(ks[:2], ks[:2]) == (None, 0.0)


def test_criteria_of_dependent_rows_are_those_of_fewer_rows() -> None:
    whole, half = (likelihood_criteria(5, -300.0, 20.0, 100.0, share) for share in (1.0, 0.5))
    assert whole["bic"] == pytest.approx(5 * np.log(100) + 600)
    assert half["bic"] == pytest.approx(5 * np.log(50) + 300)
    assert half["icl"] == pytest.approx(half["bic"] + 20.0)


def test_the_rand_index_equals_that_of_scikit_learn_and_takes_weights_as_repeated_rows() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 4, 300).astype(np.int32), generator.integers(0, 3, 300).astype(np.int32)
    other[:150] = one[:150] % 3
    assert adjusted_rand_index(one, other, np.ones(300)) == pytest.approx(adjusted_rand_score(one, other), abs=1e-12)
    alike = adjusted_rand_index(np.repeat(one, 2), np.repeat(other, 2), np.ones(600))
    assert adjusted_rand_index(one, other, np.full(300, 2.0)) == pytest.approx(alike, abs=1e-2)
    assert adjusted_rand_index(one, one, np.ones(300)) == 1.0
