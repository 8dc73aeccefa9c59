"""Reference implementations of the models, row by row in plain numpy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from clustering.models import covariances as kinds
from clustering.models.mixture_params import MixtureParams

KINDS = ("identity", "spherical", "diagonal", "tied", "full")


def blobs(seed: int, n: int, d: int, k: int, spread: float = 4.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-spread, spread, (k, d))[rng.integers(0, k, n)] + rng.standard_normal((n, d))


def holes(seed: int, values: np.ndarray, share: float) -> np.ndarray:
    """Set features to NaN at random, but never all features of a row."""
    rng = np.random.default_rng(seed)
    gone = rng.random(values.shape) < share
    gone[np.arange(len(values)), rng.integers(0, values.shape[1], len(values))] = False
    return np.where(gone, np.nan, values)


def random_params(seed: int, kind: Any, k: int, d: int, shift: float = 0.5) -> MixtureParams:
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((k, d, d + 3))
    matrices = made @ made.transpose(0, 2, 1) / (d + 3) + 0.3 * np.eye(d)
    covariances = {
        "identity": np.zeros(0),
        "spherical": rng.uniform(0.5, 2.0, k),
        "diagonal": rng.uniform(0.5, 2.0, (k, d)),
        "tied": matrices[0],
        "full": matrices,
    }[kind]
    weights = rng.uniform(0.5, 1.5, k)
    centers = 3 * rng.standard_normal((k, d))
    return MixtureParams(np.full(d, shift), centers, weights / weights.sum(), covariances, np.ones(d), kind)


class Passed(NamedTuple):
    log_likelihood: float
    weighted_resp: np.ndarray
    weights: np.ndarray
    centers: np.ndarray
    covariances: np.ndarray
    bound: float


def log_normal(away: np.ndarray, covariance: np.ndarray) -> float:
    solved = np.linalg.solve(covariance, away)
    return -0.5 * float(away @ solved + np.linalg.slogdet(2 * np.pi * covariance)[1])


def softmax(logs: np.ndarray) -> tuple[np.ndarray, float]:
    greatest = logs.max()
    exponentials = np.exp(logs - greatest)
    return exponentials / exponentials.sum(), float(greatest + np.log(exponentials.sum()))


def of_kind(kind: str, each: np.ndarray, sizes: np.ndarray, floor: float) -> np.ndarray:
    """Covariances of a kind, given the full ones ``(k, d, d)`` and the sizes of the components."""
    d = each.shape[1]
    match kind:
        case "identity":
            return np.zeros(0)
        case "spherical":
            return np.trace(each, axis1=1, axis2=2) / d + floor
        case "diagonal":
            return np.diagonal(each, axis1=1, axis2=2) + floor
        case "tied":
            return np.tensordot(sizes / sizes.sum(), each, axes=1) + floor * np.eye(d)
    return each + floor * np.eye(d)


def mixture_pass(params: MixtureParams, values: np.ndarray, weights: np.ndarray, floor: float = 0.0) -> Passed:
    """One E-step and one M-step. NaN marks features that are missing at random."""
    kind, (k, d), n = params.kind, params.centers.shape, len(values)
    means = params.origin + params.centers
    old = np.array([kinds.as_full(kind, params.covariances, i, d) for i in range(k)])
    shares, likelihood = np.zeros((n, k)), 0.0
    filled, rest = np.zeros((n, k, d)), np.zeros((n, k, d, d))
    for r, x in enumerate(values):
        o, m = np.flatnonzero(~np.isnan(x)), np.flatnonzero(np.isnan(x))
        logs = np.empty(k)
        for i in range(k):
            observed = old[i][np.ix_(o, o)]
            logs[i] = np.log(params.weights[i]) + log_normal(x[o] - means[i, o], observed)
            gain = np.linalg.solve(observed, old[i][np.ix_(o, m)]).T
            filled[r, i, o], filled[r, i, m] = x[o], means[i, m] + gain @ (x[o] - means[i, o])
            rest[r, i][np.ix_(m, m)] = old[i][np.ix_(m, m)] - gain @ old[i][np.ix_(o, m)]
        shares[r], density = softmax(logs)
        shares[r] *= weights[r]
        likelihood += weights[r] * density
    sizes = shares.sum(axis=0)
    centers = np.einsum("nk,nkd->kd", shares, filled) / sizes[:, None]
    away = filled - centers
    each = np.einsum("nk,nkd,nke->kde", shares, away, away) + np.einsum("nk,nkde->kde", shares, rest)
    each /= sizes[:, None, None]
    new = of_kind(kind, each, sizes, floor)
    mixing = sizes / sizes.sum()

    def expected(centers: np.ndarray, covariances: np.ndarray, mixing: np.ndarray) -> float:
        total = 0.0
        for i in range(k):
            inverse = np.linalg.inv(covariances[i])
            apart = filled[:, i] - centers[i]
            squares = np.einsum("nd,de,ne->n", apart, inverse, apart) + np.einsum("nde,de->n", rest[:, i], inverse)
            constant = np.log(mixing[i]) - 0.5 * np.linalg.slogdet(2 * np.pi * covariances[i])[1]
            total += float(shares[:, i] @ (constant - 0.5 * squares))
        return total

    full = np.array([kinds.as_full(kind, new, i, d) for i in range(k)])
    risen = expected(centers, full, mixing) - expected(means, old, params.weights)
    return Passed(likelihood, shares, mixing, centers, new, likelihood + risen)


def whitened(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return rows @ matrix.T


def divergences(name: str, values: np.ndarray, centers: np.ndarray, matrix: np.ndarray | None = None) -> np.ndarray:
    """Divergence of each row from each center ``(n, k)``, over the features that a row has."""
    out = np.empty((len(values), len(centers)))
    for r, x in enumerate(values):
        for i, c in enumerate(centers):
            match name:
                case "squared_euclidean":
                    out[r, i] = np.nansum((x - c) ** 2)
                case "mahalanobis":
                    assert matrix is not None
                    out[r, i] = np.sum((matrix @ (x - c)) ** 2)
                case "cosine":
                    out[r, i] = 1 - x @ c / np.linalg.norm(x) / np.linalg.norm(c)
                case "kullback_leibler":
                    logs = np.log(np.where(x > 0, x, 1.0)) - np.log(np.maximum(c, np.finfo(float).tiny))
                    out[r, i] = np.sum(x * logs - x + c)
                case "itakura_saito":
                    out[r, i] = np.sum(x / c - np.log(x / c) - 1)
    return out


def means(name: str, values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Best centers for shares ``(n, k)``: the means over the rows that have each feature."""
    if name == "cosine":
        sums = shares.T @ (values / np.linalg.norm(values, axis=1)[:, None])
        return sums / np.linalg.norm(sums, axis=1)[:, None]
    seen = ~np.isnan(values)
    return (shares.T @ np.where(seen, values, 0.0)) / (shares.T @ seen)


def relative(actual: Any, expected: Any) -> float:
    """Largest difference, relative to the largest expected magnitude."""
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    if not expected.size:
        return 0.0
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def least_distances(distances: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """A later center takes a row only where it is nearer by more than the rounding of both centers."""
    lengths = np.array([np.hypot.reduce(center) for center in centers])
    lengths = np.maximum(lengths, np.sort(lengths)[len(lengths) // 2])
    places, labels = np.arange(len(distances)), np.zeros(len(distances), int)
    for k in range(1, len(centers)):
        least, place = distances[places, labels], 2.0**-48 * (lengths[labels] + lengths[k])
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            tie = 2.0**-40 * least + place * np.sqrt(least) + place**2
            labels[distances[:, k] < np.where(np.isinf(least), least, least - tie)] = k
    return labels
