"""Whole jobs with defaults, from rows in memory to their labels, beside scikit-learn and FAISS with ten starts each.

Every way runs in a process of its own, on all processors; ways alternate, and ratios are of medians. Imports and
compilation are left out by a small job before. FAISS takes all rows, and not a part of them as by default. The costs of
all ways are recomputed in float64 from their centers.

    python -m benchmarks.whole_jobs [--rounds 3] [--jobs 0 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import blas
from benchmarks.results import PEERS, Result, save

OURS = "zarr-clustering"
WARM_ROWS, WARM_CLUSTERS = 20_000, 120
"""Size of the small job."""


class Job(NamedTuple):
    """Rows, features and clusters of a job, and what the rows are like."""

    n: int
    d: int
    k: int
    planted: int = 0
    """Number of centers that rows are drawn around, with sizes that differ; 0 for rows without clusters."""
    spread: float = 1.0
    """Deviation of the planted centers, in deviations of the rows around them."""

    def __str__(self) -> str:
        kind = f"{self.planted} planted, {self.spread:g} apart" if self.planted else "no clusters"
        return f"{self.n:,} × {self.d}, k {self.k}, {kind}"

    def rows(self) -> np.ndarray:
        """Draw the rows ``(n, d)``, in float32."""
        rng = np.random.default_rng(0)
        rows = rng.standard_normal((self.n, self.d), dtype=np.float32)
        if self.planted:
            centers = (self.spread * rng.standard_normal((self.planted, self.d))).astype(np.float32)
            shares = rng.uniform(0.5, 1.5, self.planted)
            labels = rng.choice(self.planted, self.n, p=shares / shares.sum())
            for start in range(0, self.n, 100_000):
                rows[start : start + 100_000] += centers[labels[start : start + 100_000]]
        return rows


JOBS = (
    Job(1_000_000, 16, 8, planted=8), Job(1_000_000, 16, 8), Job(200_000, 64, 64, planted=64), Job(200_000, 64, 64),
    Job(100_000, 32, 100, planted=100), Job(100_000, 32, 100),
)  # fmt: skip
Fit = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Fits k clusters to rows; returns centers and labels."""


def fit_ours(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    import clustering as c

    fit = c.fit(rows, c.KMeans(k))
    return fit.centers, np.asarray(fit.predict(rows))


def fit_sklearn(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.cluster import KMeans

    model = KMeans(k, n_init=10, random_state=0).fit(rows)
    return model.cluster_centers_, model.labels_


def fit_faiss(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    return faiss_clusters(rows, k, nredo=10)


def faiss_clusters(rows: np.ndarray, k: int, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Fit by FAISS, with all rows.

    Parameters
    ----------
    rows, k
        Rows ``(n, d)`` and number of clusters.
    options
        Options of ``faiss.Kmeans``.
    """
    import faiss

    # The limits on points per centroid are lifted, because they would subsample.
    model = faiss.Kmeans(rows.shape[1], k, max_points_per_centroid=len(rows), min_points_per_centroid=1, **options)
    model.train(rows)
    return model.centroids, model.index.search(rows, 1)[1][:, 0]


TARGETS = {"scikit-learn, n_init=10": 5.0, "FAISS, nredo=10": 3.0}
"""How many times as long each peer should take, at no lower cost."""
WAYS: dict[str, Fit] = {OURS: fit_ours, "scikit-learn, n_init=10": fit_sklearn, "FAISS, nredo=10": fit_faiss}


def cost(rows: np.ndarray, centers: np.ndarray) -> float:
    """Compute the k-means cost of centers in float64.

    Parameters
    ----------
    rows, centers
        Rows ``(n, d)`` and centers ``(k, d)``.
    """
    centers, total = centers.astype(np.float64), 0.0
    step = max(256, 40_000_000 // len(centers))
    for start in range(0, len(rows), step):
        part = rows[start : start + step].astype(np.float64)
        nearest = ((centers**2).sum(1) - 2.0 * part @ centers.T).argmin(1)
        total += float(((part - centers[nearest]) ** 2).sum())
    return total


def child(fit: Fit, way: str, folder: Path) -> None:
    """Do a small job and then the job of a folder; print the seconds and the kernels of BLAS.

    Parameters
    ----------
    fit, way
        How to fit, and the name of the way, under which its centers are kept.
    folder
        Folder with ``rows.npy`` and ``k.json``.
    """
    warnings.simplefilter("ignore")
    rows, k = np.load(folder / "rows.npy"), json.loads((folder / "k.json").read_text())
    fit(rows[:WARM_ROWS], min(k, WARM_CLUSTERS))
    started = time.perf_counter()
    centers, _ = fit(rows, k)
    seconds = time.perf_counter() - started
    np.save(folder / f"{way}.npy", centers)
    print(json.dumps([seconds, blas.kernels()]))


def seconds_of(module: str, way: str, folder: Path) -> float:
    """Run a way on the job of a folder, in a process of its own, and return its seconds.

    Parameters
    ----------
    module
        Program whose ``--child`` runs the way.
    way, folder
        As in `child`.
    """
    python = sys.executable if way == OURS else str(PEERS / "bin" / "python")
    # The BLAS of FAISS knows no recent processor, and would run kernels of an old one.
    environment = os.environ | ({"OPENBLAS_CORETYPE": blas.core_type()} if way.startswith("FAISS") else {})
    command = [python, "-m", module, "--child", way, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seconds, _ = json.loads(done.stdout.splitlines()[-1])
    return float(seconds)


def measure(
    module: str, ways: Sequence[str], job: Job, rounds: int, partial_ways: Sequence[str] = ()
) -> tuple[dict[str, float], dict[str, float]]:
    """Run a job in each way; return median seconds and costs of the ways.

    Parameters
    ----------
    module
        Program whose ``--child`` runs a way.
    ways
        Names of the ways.
    job
        The job.
    rounds
        Number of alternating runs.
    partial_ways
        Names of ways that make no clusters, and so have no cost.
    """
    rows = job.rows()
    times: dict[str, list[float]] = {way: [] for way in (*ways, *partial_ways)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "rows.npy", rows)
        (folder / "k.json").write_text(json.dumps(job.k))
        for number in range(rounds):
            # What is extrapolated is measured once.
            for way in times if number == 0 else ways:
                times[way].append(seconds_of(module, way, folder))
        costs = {way: cost(rows, np.load(folder / f"{way}.npy")) for way in ways}
    return {way: statistics.median(seconds) for way, seconds in times.items()}, costs


def records(rounds: int, jobs: Iterable[Job]) -> list[Result]:
    """Measure jobs, and compare seconds and costs with each peer.

    Parameters
    ----------
    rounds
        Number of alternating runs.
    jobs
        Jobs to measure.
    """
    made: list[Result] = []
    for job in jobs:
        seconds, costs = measure("benchmarks.whole_jobs", list(WAYS), job, rounds)
        for way, target in TARGETS.items():
            made += compared("whole job", job, way, seconds, costs, target)
    return made


def compared(
    bar: str,
    job: Job,
    way: str,
    seconds: Mapping[str, float],
    costs: Mapping[str, float],
    target: float,
    most_cost: float = 1.0,
) -> list[Result]:
    """Compare the seconds of our way with those of a peer, and the cost where the peer has one.

    Parameters
    ----------
    bar, job, way
        Name of the comparison, the job, and the peer.
    seconds, costs
        Of all ways, by name.
    target
        Least wanted ratio of the peer's seconds to ours.
    most_cost
        Largest wanted ratio of our cost to the peer's.
    """
    made = [Result(f"{bar}, beside {way}", str(job), seconds[OURS], "s", {way: seconds[way]}, "≥", target)]
    if way in costs:
        peers = {way: costs[way]}
        made.append(Result(f"{bar}, cost beside {way}", str(job), costs[OURS], "J", peers, "≤", most_cost))
    for result in made:
        print(result, flush=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, nargs="*", default=range(len(JOBS)), help="numbers of jobs, from 0")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(WAYS[options.child[0]], options.child[0], Path(options.child[1]))
        return
    blas.use_own_kernels("benchmarks.whole_jobs")
    save("whole_jobs", records(options.rounds, [JOBS[i] for i in options.jobs]))


if __name__ == "__main__":
    main()
