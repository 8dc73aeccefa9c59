"""Rows per second of one pass, beside scikit-learn's, on one thread, for every model and shape.

k-means: one assignment-and-sum pass beside scikit-learn's Lloyd step. Ours adds up in float64, takes the objective and
the farthest rows, and labels as float64 does whatever the rows' type; scikit-learn's adds up in the rows' own type and
takes neither. Mixtures: one expectation-and-sum pass beside one E and M step of scikit-learn's. Ours works in float64
whatever the rows' type; scikit-learn's in the rows' own. Alternating runs, median of the ratios.

    python -m benchmarks.kernels [MODEL …]
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure
from sklearn.cluster._k_means_lloyd import lloyd_iter_chunked_dense
from sklearn.mixture import GaussianMixture as Reference
from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky
from threadpoolctl import threadpool_limits

from benchmarks import blas
from benchmarks.results import RESULTS, Result, save
from clustering.data.rows import in_memory_rows
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.models.mixture import GaussianMixture
from clustering.models.mixture_params import MixtureParams

FEATURES, CLUSTERS = (2, 3, 8, 16, 32, 64, 256), (2, 8, 16, 64, 256)
KINDS = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
"""Our names of the covariances, and theirs."""
Pass = Callable[[], None]


def kmeans_passes(values: np.ndarray, k: int) -> tuple[Pass, Pass]:
    """Make one pass of each."""
    n, d = values.shape
    centers = values[:k].astype(np.float64)
    rows, params, model = in_memory_rows(values), KMeansParams(np.zeros(d), centers), KMeans(k)
    own = centers.astype(values.dtype)
    buffers = (np.zeros_like(own), np.zeros(k, values.dtype), np.zeros(n, np.int32), np.zeros(k, values.dtype))
    weights = np.ones(n, values.dtype)
    return (
        lambda: model.statistics(params, rows) and None,
        lambda: lloyd_iter_chunked_dense(values, weights, own, *buffers, 1),
    )


def mixture_passes(kind: str, values: np.ndarray, k: int) -> tuple[Pass, Pass]:
    """Make one pass of each, from the same params."""
    d = values.shape[1]
    centers, weights = 0.3 * values[:k].astype(np.float64), np.full(k, 1.0 / k)
    covariances = {
        "full": np.repeat(np.eye(d)[None], k, axis=0), "tied": np.eye(d), "diagonal": np.ones((k, d)),
        "spherical": np.ones(k),
    }[kind]  # fmt: skip
    rows, model = in_memory_rows(values), GaussianMixture(k, kind)
    params = MixtureParams(np.zeros(d), centers, weights, covariances, np.ones(d), kind)
    theirs = Reference(k, covariance_type=KINDS[kind])

    def reference() -> None:
        theirs.weights_, theirs.means_ = weights, centers.astype(values.dtype)
        theirs.precisions_cholesky_ = cholesky
        _, logs = theirs._e_step(values)
        theirs._m_step(values, logs)

    cholesky = _compute_precision_cholesky(covariances, KINDS[kind]).astype(values.dtype)
    return lambda: model.statistics(params, rows) and None, reference


def measure(model: str, dtype: str, d: int, k: int) -> tuple[float, float, float]:
    """Return millions of rows per second, ours and theirs, and the median of the paired ratios."""
    rng = np.random.default_rng(d * 1000 + k)
    work = k * d * (d if model == "full" else 1 if model == "kmeans" else 4)
    n = int(np.clip(3e8 / work, 20_000 if model == "kmeans" else 2_000, 500_000))
    values = rng.standard_normal((n, d)).astype(dtype)
    ours, theirs = kmeans_passes(values, k) if model == "kmeans" else mixture_passes(model, values, k)
    seconds(ours)
    seconds(theirs)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(5 if model == "kmeans" else 3)]
    ratio = statistics.median(b / a for a, b in pairs)
    return n / min(a for a, _ in pairs) / 1e6, n / min(b for _, b in pairs) / 1e6, ratio


def seconds(run: Pass) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def product_seconds() -> float:
    """Return the seconds of one multiplication and addition of float64 in a large square product of BLAS."""
    square, product = np.ones((2048, 2048)), np.empty((2048, 2048))
    return min(seconds(lambda: np.matmul(square, square, out=product)) for _ in range(5)) / 2048**3


def records(speeds: dict[tuple[str, str, int, int], tuple[float, float]], product: float) -> list[Result]:
    """Compare the passes of mixtures over float64 rows, 2 to 64 features and components.

    The products of a pass with full covariances are k of (n, d) by (d, d) in each step.
    """
    results, bounds = [], []
    for (model, dtype, d, k), (a, b) in speeds.items():
        if model not in KINDS or dtype != "float64" or max(d, k) > 64:
            continue
        ours, theirs = 1000 / a, {"scikit-learn": 1000 / b}
        pair, target = ("full, tied", 10.0) if model in ("full", "tied") else ("diagonal, spherical", 5.0)
        case = f"{model}, d {d}, k {k}"
        results.append(Result(f"EM pass, one thread: {pair}", case, ours, "ns a row", theirs, "≥", target))
        if model == "full" and d >= 16:
            least = {"dgemm": 1e9 * 2 * k * d * d * product}
            bounds.append(Result("EM pass, one thread: full beside dgemm", case, ours, "ns a row", least, "≤", 3.0))
    return results + bounds


def main() -> None:
    blas.use_own_kernels("benchmarks.kernels")
    warnings.simplefilter("ignore")
    RESULTS.mkdir(parents=True, exist_ok=True)
    models = sys.argv[1:] or ["kmeans", *KINDS]
    lines = [
        "| model | rows | d | k | ours, M rows/s | scikit-learn, M rows/s | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    ratios = {(m, dtype): np.zeros((len(FEATURES), len(CLUSTERS))) for m in models for dtype in ("float64", "float32")}
    speeds = {}
    with threadpool_limits(1):
        product = product_seconds()
        for (model, dtype), table in ratios.items():
            for i, d in enumerate(FEATURES):
                for j, k in enumerate(CLUSTERS):
                    a, b, table[i, j] = measure(model, dtype, d, k)
                    speeds[model, dtype, d, k] = a, b
                    lines.append(f"| {model} | {dtype} | {d} | {k} | {a:.3g} | {b:.3g} | {table[i, j]:.2f} |")
                    print(lines[-1], flush=True)
    (RESULTS / "kernels.md").write_text("\n".join(lines) + "\n")
    save("kernels", records(speeds, product), multiplication=product)
    figure = Figure(figsize=(9, 3.4 * len(models)), layout="constrained")
    for axes, ((model, dtype), table) in zip(figure.subplots(len(models), 2).flat, ratios.items(), strict=True):
        image = axes.imshow(np.log2(table), cmap="RdBu", vmin=-3, vmax=3)
        axes.set_title(f"{model}, {dtype} rows: speed over scikit-learn's")
        axes.set_xticks(range(len(CLUSTERS)), CLUSTERS)
        axes.set_yticks(range(len(FEATURES)), FEATURES)
        axes.set_xlabel("clusters")
        axes.set_ylabel("features")
        for i, j in np.ndindex(table.shape):
            axes.text(j, i, f"{table[i, j]:.2f}", ha="center", va="center", fontsize=8)
    figure.colorbar(image, ax=figure.axes, label="log2 of the ratio")
    figure.savefig(RESULTS / "kernels.png", dpi=110)
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
