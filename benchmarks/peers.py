"""The whole job, from a Zarr store to labels, beside the usual ways: time, peak memory, reads, and the true objective.

Every way runs in a process of its own, on all processors, from the same store of float32 rows around planted centers.
The objective is recomputed here for all, in float64, from the labels and the means of their rows.

    python -m benchmarks.peers --rows 4000000 --features 32 --clusters 16
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from matplotlib.figure import Figure

from benchmarks import blas
from benchmarks.results import RESULTS, Result, save

ROUNDS = 3


def make(path: str, n: int, d: int, k: int) -> None:
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((k, d)) * 2
    array = zarr.create_array(path, shape=(n, d), chunks=(max(1, 2_000_000 // d), d), dtype="f4")
    for start in range(0, n, array.chunks[0]):
        m = min(array.chunks[0], n - start)
        array[start : start + m] = centers[rng.integers(0, k, m)] + rng.standard_normal((m, d))


def run_ours(path: str, k: int, memory: str) -> np.ndarray:
    from clustering.run.job import run_fit
    from clustering_flows.loading import check_config
    from clustering_flows.terminal import terminal_watch

    with tempfile.TemporaryDirectory() as folder:
        job = {
            "source": {"store": path},
            "model": {"k": k},
            "compute": {"memory": memory},
            "output": {"store": f"{folder}/out", "report": False},
        }
        with Path("/dev/null").open("w") as devnull, terminal_watch(devnull) as watch:
            record = run_fit(check_config(job), watch)
        labels = zarr.open_array(f"{folder}/out/labels.zarr/labels", mode="r")[:]
    print(json.dumps({"reads": record["reads"], "passes": record["iterations"]}))
    return labels


def run_sklearn(path: str, k: int, kind: str) -> np.ndarray:
    from sklearn.cluster import KMeans, MiniBatchKMeans

    values = zarr.open_array(path, mode="r")[:]
    if kind == "minibatch":
        model = MiniBatchKMeans(k, n_init=3, random_state=0).fit(values)
    else:
        model = KMeans(k, n_init=int(kind), random_state=0).fit(values)
    print(json.dumps({"reads": 1, "passes": int(model.n_iter_)}))
    return model.labels_


WAYS = {
    "zarr-clustering": lambda path, k: run_ours(path, k, "4GiB"),
    "zarr-clustering, 256 MiB": lambda path, k: run_ours(path, k, "256MiB"),
    "scikit-learn, n_init=1": lambda path, k: run_sklearn(path, k, "1"),
    "scikit-learn, n_init=10": lambda path, k: run_sklearn(path, k, "10"),
    "MiniBatchKMeans": lambda path, k: run_sklearn(path, k, "minibatch"),
}

OURS = ("zarr-clustering", "zarr-clustering, 256 MiB")


def objective(path: str, labels: np.ndarray, k: int) -> float:
    array = zarr.open_array(path, mode="r")
    step = array.chunks[0]
    sums, counts = np.zeros((k, array.shape[1])), np.zeros(k)
    for start in range(0, array.shape[0], step):
        values, chosen = array[start : start + step].astype(np.float64), labels[start : start + step]
        counts += np.bincount(chosen, minlength=k)
        for j in range(values.shape[1]):
            sums[:, j] += np.bincount(chosen, weights=values[:, j], minlength=k)
    means, total = sums / np.maximum(counts, 1)[:, None], 0.0
    for start in range(0, array.shape[0], step):
        values = array[start : start + step].astype(np.float64)
        total += float(((values - means[labels[start : start + step]]) ** 2).sum())
    return total


def child(way: str, path: str, k: int, labels: str) -> None:
    started = time.perf_counter()
    row_labels = WAYS[way](path, k)
    seconds = time.perf_counter() - started
    np.save(labels, row_labels)
    print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def records(medians: dict[str, float], case: str) -> list[Result]:
    """Show the seconds from a store to labels, with room for all rows and for few."""
    peers = {way: seconds for way, seconds in medians.items() if way not in OURS}
    return [Result("from a store to labels", f"{case}; {way}", medians[way], "s", peers, "≥") for way in OURS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--clusters", type=int, default=16)
    parser.add_argument("--child", nargs=3, metavar=("WAY", "STORE", "LABELS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, path, labels = options.child
        child(way, path, options.clusters, labels)
        return
    blas.use_own_kernels("benchmarks.peers")
    RESULTS.mkdir(parents=True, exist_ok=True)
    runs_by_way: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/rows.zarr"
        make(path, options.rows, options.features, options.clusters)
        for number in range(ROUNDS):
            for way, runs in runs_by_way.items():
                command = [sys.executable, "-m", "benchmarks.peers", "--clusters", str(options.clusters)]
                command += ["--child", way, path, f"{folder}/labels.npy"]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                facts: dict[str, float] = {}
                for line in done.stdout.splitlines():
                    facts |= json.loads(line)
                if number == 0:
                    facts["objective"] = objective(path, np.load(f"{folder}/labels.npy"), options.clusters)
                runs.append(facts)
                print(way, facts, flush=True)
    best = min(runs[0]["objective"] for runs in runs_by_way.values())
    size = options.rows * options.features * 4 / 2**20
    lines = [
        f"{options.rows:,} rows × {options.features} features, float32, {size:,.0f} MiB decoded; "
        f"{options.clusters} clusters; median of {ROUNDS} alternating runs, each from the store to labels.",
        "",
        "| | seconds | peak memory, MiB | reads | passes | objective over the best |",
        "|---|---|---|---|---|---|",
    ]
    medians = {}
    for way, runs in runs_by_way.items():
        medians[way] = float(np.median([run["seconds"] for run in runs]))
        lines.append(
            f"| {way} | {medians[way]:.1f} | {max(run['peak'] for run in runs) / 2**20:,.0f} | {runs[0]['reads']:g} | "
            f"{runs[0]['passes']:g} | +{100 * (runs[0]['objective'] / best - 1):.4f} % |"
        )
    print("\n".join(lines))
    save("peers", records(medians, f"{options.rows:,} × {options.features}, k {options.clusters}"))
    (RESULTS / "peers.md").write_text("\n".join(lines) + "\n")
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(list(medians), list(medians.values()), color="#2563eb")
    axes.invert_yaxis()
    axes.set_xlabel("seconds from the store to labels")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / "peers.png", dpi=120)


if __name__ == "__main__":
    main()
