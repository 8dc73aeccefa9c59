"""Compile the kernels before the suites run, in two processes: `python -m tests.kernels`.

Test processes that start together would each compile the same kernels. Small fits of every kind of model need most
kernels. The first test that needs another kernel compiles it.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from typing import Any

import numpy as np

import clustering as c

HARD: list[Any] = [c.KMeans(3), c.KMeans(20), c.KMeans(3, "cosine"), c.KMeans(3, "kullback_leibler")]
SOFT: list[Any] = [
    *(c.GaussianMixture(3, kind) for kind in ("full", "tied", "diagonal", "spherical", "identity")),
    c.SoftKMeans(3, 1.0), c.VonMisesFisher(3), c.KMeans(3, "itakura_saito"),
]  # fmt: skip


def fit_all(models: list[Any]) -> None:
    """Fit models to rows of both precisions, with and without weights and missing features."""
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    for model in models:
        # Different kernels serve few and many centers and features.
        rows = np.exp(rng.standard_normal((600, max(4, model.k))))
        row_weights, missing = rng.random(len(rows)), rng.random(rows.shape) < 0.05
        for dtype, weights in product(("float32", "float64"), (None, row_weights)):
            fit(rows.astype(dtype), model, weights=weights)
            # Without room for all rows, kernels split them by their margins.
            fit(rows.astype(dtype), model, weights=weights, memory=rows.nbytes // 4, block_bytes=rows.nbytes // 16)
            if model.k == 3 and (isinstance(model, c.GaussianMixture) or model in (c.KMeans(3), c.SoftKMeans(3, 1.0))):
                fit(np.where(missing, np.nan, rows).astype(dtype), model, weights=weights, missing="marginalize")
        if model == c.KMeans(3):
            # Rows may stay stored integers.
            for dtype in ("uint8", "int16"):
                fit(rows.astype(dtype), model)


def fit(rows: np.ndarray, model: Any, **how: Any) -> None:
    """Fit a model, and label the rows."""
    model_fit = c.fit(rows, model, cluster="synchronous", restarts=2, max_iterations=3, **how)
    how.pop("weights", None)
    model_fit.predict(rows, **how)


if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(fit_all, [HARD, SOFT]))
