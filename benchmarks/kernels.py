"""Rows per second of one assignment-and-sum pass, beside scikit-learn's Lloyd step, on one thread.

Ours adds up in float64, takes the objective and the farthest rows, and labels as float64 does whatever the rows' type;
scikit-learn's adds up in the rows' own type and takes neither. Alternating runs, median of the ratios.

    python -m benchmarks.kernels
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.cluster._k_means_lloyd import lloyd_iter_chunked_dense
from threadpoolctl import threadpool_limits

from clustering.data.rows import in_memory_rows
from clustering.models.kmeans import KMeans, KMeansParams

RESULTS = Path(__file__).parent / "results"
FEATURES, CLUSTERS = (2, 3, 8, 16, 32, 64, 256), (2, 8, 16, 64, 256)
RUNS = 5


def ours(values: np.ndarray, centers: np.ndarray) -> float:
    rows = in_memory_rows(values)
    params = KMeansParams(np.zeros(values.shape[1]), centers)
    started = time.perf_counter()
    KMeans(len(centers)).statistics(params, rows)
    return time.perf_counter() - started


def theirs(values: np.ndarray, centers: np.ndarray) -> float:
    n, k = len(values), len(centers)
    own = centers.astype(values.dtype)
    buffers = (np.zeros_like(own), np.zeros(k, values.dtype), np.zeros(n, np.int32), np.zeros(k, values.dtype))
    weights = np.ones(n, values.dtype)
    started = time.perf_counter()
    lloyd_iter_chunked_dense(values, weights, own, *buffers, 1)
    return time.perf_counter() - started


def measure(dtype: str, d: int, k: int) -> tuple[float, float, float]:
    """Return millions of rows per second, ours and theirs, and the median of the paired ratios."""
    rng = np.random.default_rng(d * 1000 + k)
    n = int(np.clip(3e8 / (k * d), 20_000, 500_000))
    values = rng.standard_normal((n, d)).astype(dtype)
    centers = values[:k].astype(np.float64)
    ours(values, centers)
    theirs(values, centers)
    pairs = [(ours(values, centers), theirs(values, centers)) for _ in range(RUNS)]
    ratio = statistics.median(b / a for a, b in pairs)
    return n / min(a for a, _ in pairs) / 1e6, n / min(b for _, b in pairs) / 1e6, ratio


def main() -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    lines = ["| rows | d | k | ours, M rows/s | scikit-learn, M rows/s | ratio |", "|---|---|---|---|---|---|"]
    ratios = {dtype: np.zeros((len(FEATURES), len(CLUSTERS))) for dtype in ("float64", "float32")}
    with threadpool_limits(1):
        for dtype, table in ratios.items():
            for i, d in enumerate(FEATURES):
                for j, k in enumerate(CLUSTERS):
                    a, b, table[i, j] = measure(dtype, d, k)
                    lines.append(f"| {dtype} | {d} | {k} | {a:.2f} | {b:.2f} | {table[i, j]:.2f} |")
                    print(lines[-1], flush=True)
    (RESULTS / "kernels.md").write_text("\n".join(lines) + "\n")
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, (dtype, table) in zip(figure.subplots(1, 2), ratios.items(), strict=True):
        image = axes.imshow(np.log2(table), cmap="RdBu", vmin=-2, vmax=2)
        axes.set_title(f"{dtype} rows: speed over scikit-learn's")
        axes.set_xticks(range(len(CLUSTERS)), CLUSTERS)
        axes.set_yticks(range(len(FEATURES)), FEATURES)
        axes.set_xlabel("clusters")
        axes.set_ylabel("features")
        for i, j in np.ndindex(table.shape):
            axes.text(j, i, f"{table[i, j]:.2f}", ha="center", va="center", fontsize=8)
    figure.colorbar(image, label="log2 of the ratio")
    figure.savefig(RESULTS / "kernels.png", dpi=120)
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
