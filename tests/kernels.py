"""Compile the kernels before the suites run, in two processes: `python -m tests.kernels`.

Processes that begin side by side would each compile the same kernels. Small fits of every kind of model need most of
them; the others are compiled by the first test that needs them.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from typing import Any

import numpy as np

import clustering as c

EUCLIDEAN: list[Any] = [c.KMeans(3), c.SoftKMeans(3, 1.0)]
MIXTURES: list[Any] = [c.GaussianMixture(3, kind) for kind in ("full", "tied", "diagonal", "spherical", "identity")]
OTHERS: list[Any] = [
    c.KMeans(3, "cosine"), c.KMeans(3, "kullback_leibler"), c.KMeans(3, "itakura_saito"), c.VonMisesFisher(3),
]  # fmt: skip


def fit_all(models: list[Any]) -> None:
    """Fit models to rows of both precisions, with and without weights and missing features."""
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    rows, weights = np.exp(rng.standard_normal((600, 4))), rng.random(600)
    gaps = rng.random(rows.shape) < 0.05
    for model, dtype, weighted, missing in product(models, ("float32", "float64"), (False, True), (False, True)):
        if missing and model in OTHERS:
            continue
        given = np.where(gaps, np.nan, rows).astype(dtype) if missing else rows.astype(dtype)
        how: dict[str, Any] = {"missing": "marginalize"} if missing else {}
        fit = c.fit(
            given, model, cluster="synchronous", weights=weights if weighted else None, restarts=2, max_iterations=3,
            **how,
        )  # fmt: skip
        fit.predict(given, **how)


if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(fit_all, [EUCLIDEAN, MIXTURES + OTHERS]))
