from __future__ import annotations

import numpy as np
import pytest
from brute import KINDS, blobs, holes, mixture_pass, random_params, relative

from clustering.data.rows import in_memory_rows
from clustering.models.mixture import GaussianMixture

kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("share", [0.0, 0.3], ids=["complete", "with-gaps"])
@pytest.mark.parametrize("d", [1, 2, 5, 30], ids="d-{}".format)
@kinds
def test_a_pass_is_that_of_plain_numpy(kind: str, d: int, share: float, rng: np.random.Generator) -> None:
    k, n = 3, 120
    values = holes(1, blobs(0, n, d, k), share)
    weights, params = rng.random(n) * 2, random_params(3, kind, k, d)
    model = GaussianMixture(k, kind, regularization=0.05)
    statistics = model.statistics(params, in_memory_rows(values, weights, gaps=True))
    update = model.update(params, statistics)
    expected = mixture_pass(params, values, weights, floor=0.05)
    assert statistics.objective == pytest.approx(-expected.likelihood, rel=1e-12)
    np.testing.assert_allclose(statistics.weight, expected.shares.sum(axis=0), rtol=1e-11)
    assert relative(update.params.weights, expected.weights) < 1e-12
    assert relative(update.params.shift + update.params.centers, expected.centers) < 1e-11
    assert relative(update.params.covariances, expected.covariances) < 1e-11
    assert update.objective == pytest.approx(-expected.bound, rel=1e-10)
