"""Many clusters, from rows in memory to their labels, with defaults, beside scikit-learn and FAISS.

As in `benchmarks.whole_jobs`, ways run in processes of their own. scikit-learn would take an hour for 4096 clusters of
a million rows. So it draws 64 centers, makes a few passes from given ones, and its time is extrapolated to all centers
and as many passes as FAISS makes, which is less than it would take to its end.

    python -m benchmarks.large_k [--rounds 3] [--jobs 0 1]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import blas
from benchmarks.results import Result, save
from benchmarks.whole_jobs import OURS, Fit, Job, child, compared, faiss_clusters, fit_ours, measure

FAISS_PASSES = 25
"""Passes that FAISS makes by default."""
FAISS_COST = 0.95
"""Share of the cost of FAISS that ours may have at most, as FAISS stops after those passes."""
EXTRAPOLATED = "scikit-learn, extrapolated"
DRAWN, PASSES = 64, 2
"""Centers that scikit-learn draws, and passes that it makes, where its time is extrapolated."""
MOST_SECONDS = 600.0
"""Seconds that ten thousand clusters may take."""


def fit_sklearn(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.cluster import KMeans

    model = KMeans(k, random_state=0).fit(rows)
    return model.cluster_centers_, model.labels_


def fit_faiss(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    return faiss_clusters(rows, k, niter=FAISS_PASSES)


WAYS: dict[str, Fit] = {OURS: fit_ours, "scikit-learn": fit_sklearn, "FAISS": fit_faiss}


class Bar(NamedTuple):
    """A job, and how many times as long as ours each peer should take."""

    job: Job
    targets: dict[str, float]


BARS = (
    Bar(Job(200_000, 64, 1000), {"scikit-learn": 4.0}),
    Bar(Job(200_000, 64, 1000, planted=1000, spread=0.5), {"scikit-learn": 4.0}),
    Bar(Job(1_000_000, 128, 4096, planted=4096, spread=0.5), {"FAISS": 0.5, EXTRAPOLATED: 4.0}),
    Bar(Job(500_000, 64, 10_000, planted=10_000, spread=0.5), {}),
)


def extrapolated_seconds(rows: np.ndarray, k: int) -> float:
    """Extrapolate the seconds of scikit-learn from a few draws and passes.

    Parameters
    ----------
    rows, k
        Rows ``(n, d)`` and number of clusters.
    """
    from sklearn.cluster import KMeans, kmeans_plusplus

    started = time.perf_counter()
    # It tries 2 + ln k points for each center.
    kmeans_plusplus(rows, DRAWN, random_state=0, n_local_trials=2 + int(np.log(k)))
    drawing = (time.perf_counter() - started) / DRAWN
    times = []
    for passes in (1, 1 + PASSES):
        started = time.perf_counter()
        KMeans(k, init=rows[:k], n_init=1, max_iter=passes, tol=0).fit(rows)
        times.append(time.perf_counter() - started)
    return k * drawing + FAISS_PASSES * (times[1] - times[0]) / PASSES


def records(rounds: int, bars: Iterable[Bar]) -> list[Result]:
    """Measure jobs, and compare seconds and costs with each peer; a job without peers with `MOST_SECONDS`.

    Parameters
    ----------
    rounds
        Number of alternating runs.
    bars
        What to measure.
    """
    made: list[Result] = []
    for job, targets in bars:
        ways = [way for way in WAYS if way == OURS or way in targets]
        seconds, costs = measure("benchmarks.large_k", ways, job, rounds, [w for w in targets if w == EXTRAPOLATED])
        if not targets:
            made.append(Result("many clusters, alone", str(job), seconds[OURS], "s", {"limit": MOST_SECONDS}, "≤", 1.0))
        for way, target in targets.items():
            most_cost = FAISS_COST if way == "FAISS" else 1.0
            made += compared("many clusters", job, way, seconds, costs, target, most_cost)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, nargs="*", default=range(len(BARS)), help="numbers of jobs, from 0")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, folder = options.child[0], Path(options.child[1])
        if way == EXTRAPOLATED:
            rows, k = np.load(folder / "rows.npy"), json.loads((folder / "k.json").read_text())
            print(json.dumps([extrapolated_seconds(rows, k), blas.kernels()]))
        else:
            child(WAYS[way], way, folder)
        return
    blas.use_own_kernels("benchmarks.large_k")
    save("large_k", records(options.rounds, [BARS[i] for i in options.jobs]))


if __name__ == "__main__":
    main()
