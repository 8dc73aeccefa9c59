"""The compiled pass over a block adds what plain numpy adds, for every kind of covariance and type of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import special

from clustering.data.rows import in_memory_rows
from clustering.models import covariances as kinds
from clustering.models.em import add_block
from clustering.models.mixture import GaussianMixture
from clustering.models.mixture_params import MixtureParams


def random_covariances(kind: str, k: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Covariances in the shape of their kind."""
    half = rng.standard_normal((k, d, d)) / np.sqrt(d)
    full = half @ half.transpose(0, 2, 1) + 0.5 * np.eye(d)
    return {
        "identity": np.zeros(0), "spherical": 0.5 + rng.random(k), "diagonal": 0.5 + rng.random((k, d)),
        "tied": full[0], "full": full,
    }[kind]  # fmt: skip


def added(kind: Any, params: MixtureParams, rows: Any) -> tuple[kinds.Accumulator, Any]:
    """Sums of a block, and its totals."""
    components = kinds.make_kind(kind, params.centers, params.factors)
    sums = kinds.Accumulator(kind, components)
    return sums, add_block(rows, params.origin, components, 0.5, params.constants, sums.sums)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (7, 3, 2), (1030, 9, 5), (300, 26, 3)])
@pytest.mark.parametrize("kind", ["identity", "spherical", "diagonal", "tied", "full"])
def test_sums_are_those_of_plain_numpy(
    kind: Any, n: int, d: int, k: int, weighted: bool, rng: np.random.Generator
) -> None:
    values = 5.0 + rng.standard_normal((n, d)) + 3.0 * rng.integers(0, k, (n, 1))
    weights = rng.random(n) * (rng.random(n) > 0.2) if weighted else np.ones(n)
    origin, covariances = values.mean(axis=0), random_covariances(kind, k, d, rng)
    mixing = rng.dirichlet(np.ones(k))
    params = MixtureParams(origin, rng.standard_normal((k, d)), mixing, covariances, np.ones(d), kind)
    rows = in_memory_rows(values, weights if weighted else None)
    sums, totals = added(kind, params, rows)

    away = (values - origin)[None] - params.centers[:, None]
    matrices = np.array([kinds.as_full(kind, covariances, i, d) for i in range(k)])
    squares = np.einsum("knd,kde,kne->kn", away, np.linalg.inv(matrices), away)
    logs = np.log(mixing) - 0.5 * (d * np.log(2 * np.pi) + np.linalg.slogdet(matrices)[1])
    logits = logs[:, None] - 0.5 * squares
    shares = weights * special.softmax(logits, axis=0)
    weight, first, second, _ = sums.total()
    np.testing.assert_allclose(weight, shares.sum(axis=1), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(first, np.einsum("kn,knd->kd", shares, away), rtol=1e-8, atol=1e-9)
    moments = np.einsum("kn,knd,kne->kde", shares, away, away)
    if kind == "full":
        np.testing.assert_allclose(second, moments, rtol=1e-8, atol=1e-9)
    elif kind == "diagonal":
        np.testing.assert_allclose(second, np.einsum("kdd->kd", moments), rtol=1e-8, atol=1e-9)
    elif kind == "spherical":
        np.testing.assert_allclose(second, np.einsum("kdd->k", moments), rtol=1e-8, atol=1e-9)
    elif kind == "tied":
        about_origin = (values - origin).T @ (weights[:, None] * (values - origin))
        np.testing.assert_allclose(second, about_origin, rtol=1e-8, atol=1e-9)
    log_prob = special.logsumexp(logits, axis=0)
    assert totals.log_likelihood == pytest.approx(weights @ log_prob, rel=1e-10, abs=1e-10)
    assert totals.expected_complete_log_likelihood == pytest.approx(np.sum(shares * logits), rel=1e-9, abs=1e-9)
    own = squares[logits.argmax(axis=0), np.arange(n)]
    candidates = np.where(weights > 0.0, own, -1.0)
    if candidates.max() > 0.0:
        assert totals.farthest.positions[0] == candidates.argmax()
        assert totals.farthest.distances[0] == pytest.approx(candidates.max(), rel=1e-9)
        np.testing.assert_allclose(totals.farthest.rows[0], (values - origin)[candidates.argmax()])


@pytest.mark.parametrize("kind", ["diagonal", "tied", "full"])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int16", "bool", ">f4"])
def test_rows_of_any_type_give_the_sums_of_their_values_in_float64(
    kind: Any, dtype: str, rng: np.random.Generator
) -> None:
    values = rng.integers(0, 2 if dtype == "bool" else 9, (333, 11)).astype(dtype)
    params = MixtureParams(
        np.full(11, 0.5), rng.standard_normal((3, 11)), np.full(3, 1 / 3), random_covariances(kind, 3, 11, rng),
        np.ones(11), kind,
    )  # fmt: skip
    model = GaussianMixture(3, kind)
    one, other = (model.statistics(params, in_memory_rows(v)) for v in (values, values.astype(np.float64)))
    for name, total in one.sums.items():
        np.testing.assert_array_equal(total, other.sums[name])
    assert (one.objective, one.neg_expected_complete_log_likelihood) == (
        other.objective, other.neg_expected_complete_log_likelihood
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["identity", "spherical", "diagonal", "tied", "full"])
def test_responsibilities_of_labels_are_those_of_the_sums(kind: Any, rng: np.random.Generator) -> None:
    values = rng.standard_normal((2050, 5))
    params = MixtureParams(
        np.zeros(5),
        rng.standard_normal((4, 5)),
        np.full(4, 0.25),
        random_covariances(kind, 4, 5, rng),
        np.ones(5),
        kind,
    )
    rows, model = in_memory_rows(values), GaussianMixture(4, kind)
    sums, totals = added(kind, params, rows)
    again = kinds.Accumulator(kind, sums.components)
    log_likelihood = 0.0
    for part in model.e_step(params, rows):
        again.add(part.columns, part.weighted_resp, np.ones(part.stop - part.start))
        log_likelihood += part.log_likelihood
    for one, other in zip(sums.total(), again.total(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert totals.log_likelihood == log_likelihood


def test_tied_moments_of_far_centers_keep_their_digits(rng: np.random.Generator) -> None:
    centers = np.array([[-1e6, 0.0, 0.0], [1e6, 0.0, 0.0]])
    noise = rng.standard_normal((400, 3))
    rows = in_memory_rows(noise + centers[np.arange(400) % 2])
    params = MixtureParams(np.zeros(3), centers, np.full(2, 0.5), np.eye(3), np.ones(3), "tied")
    model = GaussianMixture(2, "tied", regularization=0.0)
    after = model.update(params, model.statistics(params, rows)).params
    apart = noise - np.stack([noise[::2].mean(axis=0), noise[1::2].mean(axis=0)])[np.arange(400) % 2]
    np.testing.assert_allclose(after.covariances, apart.T @ apart / 400, rtol=1e-8, atol=1e-9)
