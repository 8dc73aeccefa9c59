"""One k-means pass over rows in memory, through the public call, on all processors, beside the fastest peers.

A fit with many passes less one with few, over the difference in passes: so the time of a start, a sample and a final
measurement counts for nobody. Every way starts from the same centers, in processes of its own that alternate; ratios
are of medians. The costs of all ways are recomputed in float64 and have to agree.

The bound of the hardware is the larger of two times: 2·n·k·d operations at the speed of a large square product of BLAS,
and one read of the rows at the speed at which all processors sum an array.

    python -m benchmarks.resident [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import blas
from benchmarks.results import RESULTS, Result, save

PEERS = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
FEW, MANY = 2, 32
"""Passes of the two fits."""
AGREEMENT = 1e-4
"""Largest relative difference of costs: rounding in float32 changes labels of rows that are nearly as close to two."""


class Shape(NamedTuple):
    """Rows, features, clusters and type of a data set."""

    n: int
    d: int
    k: int
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.n:,} × {self.d}, k {self.k}, {self.dtype}"


SHAPES = (
    Shape(2_000_000, 4, 8), Shape(2_000_000, 16, 8), Shape(1_000_000, 16, 64), Shape(1_000_000, 64, 32),
    Shape(500_000, 64, 256), Shape(100_000, 784, 10), Shape(200_000, 256, 64), Shape(200_000, 128, 1024),
    Shape(1_000_000, 16, 64, "float64"), Shape(500_000, 64, 32, "float64"),
)  # fmt: skip
Fit = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, int]]
"""Fits rows from centers in at most so many passes; returns the centers and the number of passes."""


def fit_ours(rows: np.ndarray, centers: np.ndarray, passes: int) -> tuple[np.ndarray, int]:
    import clustering as c

    fit = c.fit(rows, c.KMeans(len(centers)), init=centers.astype(np.float64), max_iterations=passes, tolerance=0)
    return fit.centers, len(fit.history)


def fit_sklearn(rows: np.ndarray, centers: np.ndarray, passes: int) -> tuple[np.ndarray, int]:
    from sklearn.cluster import KMeans

    return _fitted(KMeans(len(centers), init=centers, n_init=1, max_iter=passes, tol=0, algorithm="lloyd").fit(rows))


def fit_sklearnex(rows: np.ndarray, centers: np.ndarray, passes: int) -> tuple[np.ndarray, int]:
    from sklearnex.cluster import KMeans

    return _fitted(KMeans(len(centers), init=centers, n_init=1, max_iter=passes, tol=0, algorithm="lloyd").fit(rows))


def _fitted(model: Any) -> tuple[np.ndarray, int]:
    return model.cluster_centers_, int(model.n_iter_)


def fit_faiss(rows: np.ndarray, centers: np.ndarray, passes: int) -> tuple[np.ndarray, int]:
    import faiss

    # The limit on points per centroid is lifted, because it would subsample.
    model = faiss.Kmeans(
        rows.shape[1], len(centers), niter=passes, max_points_per_centroid=len(rows), min_points_per_centroid=1
    )
    model.train(rows, init_centroids=centers)
    return model.centroids, passes


WAYS: dict[str, Fit] = {
    "zarr-clustering": fit_ours,
    "scikit-learn": fit_sklearn,
    "scikit-learn-intelex": fit_sklearnex,
    "FAISS": fit_faiss,
}
OURS = "zarr-clustering"


def seconds_per_pass(fit: Fit, rows: np.ndarray, centers: np.ndarray) -> tuple[float, np.ndarray]:
    """Time a fit of few and one of many passes.

    Returns
    -------
    float
        Seconds of a pass.
    ndarray
        Centers after the many passes.
    """
    # Compiles and imports what a pass needs.
    fit(rows, centers, 1)
    times, passes = [], []
    for wanted in (FEW, MANY):
        started = time.perf_counter()
        fitted, made = fit(rows, centers, wanted)
        times.append(time.perf_counter() - started)
        passes.append(made)
    return (times[1] - times[0]) / (passes[1] - passes[0]), fitted


def hardware() -> dict[str, float]:
    """Measure operations per second of a product of BLAS, by type, and bytes per second of reading."""
    speeds: dict[str, float] = {}
    for dtype in ("float32", "float64"):
        square = np.ones((4096, 4096), dtype)
        speeds[dtype] = 2 * 4096**3 / _least_seconds(lambda square=square: square @ square)
    halves = np.ones((2, 1 << 27), np.float32)
    with ThreadPoolExecutor(2) as pool:
        speeds["bytes"] = halves.nbytes / _least_seconds(lambda: list(pool.map(np.sum, halves)))
    return speeds


def _least_seconds(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def bound(shape: Shape, speeds: dict[str, float]) -> float:
    """Return the least seconds of a pass on this hardware."""
    size = shape.n * shape.d * np.dtype(shape.dtype).itemsize
    return max(2.0 * shape.n * shape.k * shape.d / speeds[shape.dtype], size / speeds["bytes"])


def cost(rows: np.ndarray, centers: np.ndarray) -> float:
    """Compute the k-means cost of centers in float64."""
    centers, total = centers.astype(np.float64), 0.0
    for start in range(0, len(rows), 20_000):
        part = rows[start : start + 20_000].astype(np.float64)
        squares = (part**2).sum(1)[:, None] - 2.0 * part @ centers.T + (centers**2).sum(1)
        total += float(np.maximum(squares.min(1), 0.0).sum())
    return total


def run_child(way: str, folder: Path) -> tuple[float, str]:
    """Time a way in a process of its own; return the seconds of a pass, and the kernels of BLAS."""
    python = sys.executable if way == OURS else str(PEERS)
    command = [python, "-m", "benchmarks.resident", "--child", way, str(folder)]
    # The BLAS of FAISS knows no recent processor, and would run kernels of an old one.
    environment = os.environ | ({"OPENBLAS_CORETYPE": blas.core_type()} if way == "FAISS" else {})
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seconds, kernels = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), str(kernels)


def child(way: str, folder: Path) -> None:
    warnings.simplefilter("ignore")
    rows, centers = np.load(folder / "rows.npy"), np.load(folder / "centers.npy")
    seconds, fitted = seconds_per_pass(WAYS[way], rows, centers)
    np.save(folder / f"{way}.npy", fitted)
    print(json.dumps([seconds, blas.kernels()]))


def measure(shape: Shape, rounds: int, folder: Path, kernels: dict[str, str]) -> dict[str, float]:
    """Return the median seconds of a pass of each way, and check that their costs agree; note the kernels of BLAS."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((shape.n, shape.d), dtype=np.dtype(shape.dtype).type)
    np.save(folder / "rows.npy", rows)
    np.save(folder / "centers.npy", rows[: shape.k])
    # FAISS takes float32 alone.
    ways = [way for way in WAYS if way != "FAISS" or shape.dtype == "float32"]
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            seconds, kernels[way] = run_child(way, folder)
            times[way].append(seconds)
    costs = {way: cost(rows, np.load(folder / f"{way}.npy")) for way in ways}
    spread = max(costs.values()) / min(costs.values()) - 1
    if spread > AGREEMENT:
        raise SystemExit(f"{shape}: the costs differ by {spread:.1e}: {costs}")
    return {way: statistics.median(seconds) for way, seconds in times.items()}


def table(
    results: list[tuple[Shape, dict[str, float]]], speeds: dict[str, float], rounds: int, kernels: dict[str, str]
) -> str:
    lines = [
        f"One pass of k-means over rows in memory, milliseconds; medians of {rounds} alternating runs. "
        f"BLAS: {speeds['float32'] / 1e9:.0f} GFlop/s in float32, {speeds['float64'] / 1e9:.0f} in float64; "
        f"reading: {speeds['bytes'] / 1e9:.0f} GB/s. Kernels of BLAS: "
        + "; ".join(f"{way} {name}" for way, name in kernels.items())
        + ".",
        "",
        f"| rows × features | {' | '.join(WAYS)} | fastest peer / ours | ours / bound of the hardware |",
        f"|---|{'---|' * len(WAYS)}---|---|",
    ]
    ratios = []
    for shape, medians in results:
        ratio = min(seconds for way, seconds in medians.items() if way != OURS) / medians[OURS]
        ratios.append(ratio)
        cells = [f"{1000 * medians[way]:.0f}" if way in medians else "" for way in WAYS]
        lines.append(f"| {shape} | {' | '.join(cells)} | {ratio:.2f} | {medians[OURS] / bound(shape, speeds):.1f} |")
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    lines += ["", f"Geometric mean of the ratios: {mean:.2f} (target: 1.5, and none below 1)."]
    return "\n".join(lines) + "\n"


def records(measured: list[tuple[Shape, dict[str, float]]], speeds: dict[str, float]) -> list[Result]:
    """Compare each shape with the fastest peer and with the hardware, and the geometric means of all."""
    results, fastest = [], []
    for shape, medians in measured:
        peers = {way: 1000 * seconds for way, seconds in medians.items() if way != OURS}
        fastest.append((1000 * medians[OURS], min(peers.values())))
        results.append(
            Result("k-means pass, rows in memory: fastest peer", str(shape), fastest[-1][0], "ms", peers, "≥", 1.0)
        )
    ours, theirs = (math.exp(statistics.fmean(map(math.log, times))) for times in zip(*fastest, strict=True))
    mean = f"geometric mean of {len(measured)} shapes"
    bar = "k-means pass, rows in memory: fastest peer, mean"
    results.append(Result(bar, mean, ours, "ms", {"fastest peers": theirs}, "≥", 1.5))
    for shape, medians in measured:
        large = shape.d * shape.k >= 1024
        bar = f"k-means pass, rows in memory: hardware, d·k {'≥' if large else '<'} 1024"
        least = {"bound": 1000 * bound(shape, speeds)}
        results.append(Result(bar, str(shape), 1000 * medians[OURS], "ms", least, "≤", 2.0 if large else 3.0))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", type=int, nargs="*", default=range(len(SHAPES)), help="numbers of shapes, from 0")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    blas.use_own_kernels("benchmarks.resident")
    RESULTS.mkdir(parents=True, exist_ok=True)
    speeds, results = hardware(), []
    kernels: dict[str, str] = {}
    for shape in (SHAPES[i] for i in options.shapes):
        with tempfile.TemporaryDirectory() as folder:
            results.append((shape, measure(shape, options.rounds, Path(folder), kernels)))
        print(shape, {way: f"{1000 * seconds:.0f} ms" for way, seconds in results[-1][1].items()}, flush=True)
    text = table(results, speeds, options.rounds, kernels)
    (RESULTS / "resident.md").write_text(text)
    save("resident", records(results, speeds), speeds=speeds, kernels=kernels)
    print(text)


if __name__ == "__main__":
    main()
