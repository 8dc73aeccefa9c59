from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from brute import KINDS
from hypothesis import given
from hypothesis import strategies as st

import clustering as c
from clustering.models.covariances import as_full
from clustering.models.mixture_params import MixtureParams
from clustering.models.mixture_vectors import from_vector, to_vector
from clustering.models.param_arrays import params_to_arrays

kinds = pytest.mark.parametrize("kind", KINDS)


def params_of(kind: Any, seed: int, k: int = 3, d: int = 4) -> MixtureParams:
    rng = np.random.default_rng(seed)
    full = np.einsum("kij,klj->kil", *[rng.standard_normal((k, d, d + 2))] * 2) + 0.1 * np.eye(d)
    covariances = {
        "identity": np.zeros(0), "spherical": full[:, 0, 0], "diagonal": np.diagonal(full, axis1=1, axis2=2).copy(),
        "tied": full[0], "full": full,
    }[kind]  # fmt: skip
    weights = rng.dirichlet(np.full(k, 3.0))
    return MixtureParams(np.zeros(d), rng.standard_normal((k, d)), weights, covariances, np.ones(d), kind)


@kinds
@given(seeds=st.tuples(st.integers(0, 99), st.integers(100, 199)))
def test_a_vector_gives_its_params_back(kind: Any, seeds: tuple[int, int]) -> None:
    params, about = params_of(kind, seeds[0]), params_of(kind, seeds[1])
    back = from_vector(to_vector(params, about), about)
    assert back is not None
    for name in ("centers", "weights", "covariances"):
        np.testing.assert_allclose(getattr(back, name), getattr(params, name), rtol=1e-9, atol=1e-12)


@kinds
def test_the_params_themselves_are_at_zero(kind: Any) -> None:
    about = params_of(kind, 5)
    np.testing.assert_allclose(to_vector(about, about), 0.0, atol=1e-12)


@pytest.mark.parametrize("kind", ["diagonal", "tied", "full"])
def test_vectors_do_not_depend_on_the_units_of_features(kind: Any) -> None:
    units = np.array([1e-3, 1.0, 7.0, 1e5])

    def scaled(params: MixtureParams) -> MixtureParams:
        by = units**2 if kind == "diagonal" else np.outer(units, units)
        return replace(params, centers=params.centers * units, covariances=params.covariances * by)

    params, about = params_of(kind, 1), params_of(kind, 2)
    np.testing.assert_allclose(to_vector(scaled(params), scaled(about)), to_vector(params, about), rtol=1e-8, atol=1e-9)


def divergence(p: MixtureParams, q: MixtureParams) -> float:
    """Kullback–Leibler divergence of complete data: rows with their components."""
    k, d = p.centers.shape
    total = 0.0
    for i in range(k):
        a, b = (as_full(one.kind, one.covariances, i, d) for one in (p, q))
        step = q.centers[i] - p.centers[i]
        inverse = np.linalg.inv(b)
        logs = np.linalg.slogdet(b)[1] - np.linalg.slogdet(a)[1]
        gaussian = 0.5 * (np.trace(inverse @ a) - d + step @ inverse @ step + logs)
        total += p.weights[i] * (gaussian + np.log(p.weights[i] / q.weights[i]))
    return total


@kinds
def test_the_squared_length_of_a_small_step_is_twice_its_divergence(kind: Any) -> None:
    about, rng = params_of(kind, 3), np.random.default_rng(0)
    for _ in range(5):
        vector = 1e-3 * rng.standard_normal(to_vector(about, about).size)
        # Weights add up to 1, so their logarithms have one direction that changes nothing.
        params = from_vector(vector, about)
        assert params is not None
        length = float(np.sum(to_vector(params, about) ** 2))
        assert 2.0 * divergence(params, about) == pytest.approx(length, rel=2e-2)


@kinds
@pytest.mark.parametrize("size", [1e4, -1e4, np.inf, np.nan])
def test_vectors_beyond_all_params_give_none(kind: Any, size: float) -> None:
    about = params_of(kind, 4)
    vector = to_vector(about, about)
    vector[-1] = size
    params = from_vector(vector, about)
    if params is not None:
        # A mean, or a covariance that is far from singular.
        assert np.isfinite(size)
        assert all(np.isfinite(array).all() for array in params_to_arrays(params).values())
    vector[:] = 0.0
    vector[0] = size
    made = from_vector(vector, about)
    assert made is None or np.isfinite(size)


def test_directions_come_back_from_their_vectors() -> None:
    rng = np.random.default_rng(0)
    values = np.abs(rng.standard_normal((200, 3)))
    model = c.VonMisesFisher(3)
    params, about = (c.fit(values, model, init=values[i : i + 3], max_iterations=4).params for i in (0, 9))
    vector = model.to_vector(params, about)
    assert vector is not None
    back = model.from_vector(vector, about)
    assert back is not None
    for name in ("centers", "weights", "concentrations"):
        np.testing.assert_allclose(getattr(back, name), getattr(params, name), rtol=1e-10)
    assert model.from_vector(0.0 * vector, about) is None
    assert model.from_vector(np.inf * vector, about) is None


@pytest.mark.parametrize(
    "divergence", ["squared_euclidean", "cosine", "kullback_leibler", "itakura_saito", "mahalanobis"]
)
def test_centers_of_soft_clusters_come_back_from_their_vectors(divergence: Any) -> None:
    values = np.abs(np.random.default_rng(1).standard_normal((200, 3))) + 0.5
    model = c.SoftKMeans(3, 2.0, divergence)
    params = c.fit(values, model, init=values[:3], max_iterations=2, accelerate="none").params
    vector = model.to_vector(params, params)
    assert vector is not None
    back = model.from_vector(vector, params)
    assert back is not None
    np.testing.assert_allclose(back.centers, params.centers, rtol=1e-12, atol=1e-13)
    assert back.beta == params.beta
    assert model.from_vector(np.inf * vector, params) is None
