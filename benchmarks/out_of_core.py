"""k-means over a store of eight times the memory, from the same rows, beside dask-ml.

Both make the same number of passes, each in a process of its own, in turns; medians count. Imports of packages are not
timed. Memory is a budget of ours; dask-ml has no limit, and takes blocks of the size of a chunk. The store lies in the
page cache. The costs of both are recomputed in float64 and have to agree.

    python -m benchmarks.out_of_core [--rounds 3] [--scale 1.0]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks import blas
from benchmarks.drift_budget import Rows, gaussians, write
from benchmarks.resident import AGREEMENT, PEERS, cost
from benchmarks.results import Result, save

TIMES, PASSES = 8, 30
"""Size of the store over the memory, and passes at most."""
SETS = {
    "overlapping, d 16": Rows(gaussians(16, 8, 0.6), 4_000_000, 8),
    "overlapping, d 64": Rows(gaussians(64, 64, 0.4), 1_000_000, 64),
}
OURS, THEIRS = "zarr-clustering", "dask-ml"


def fit_ours(path: str, start: np.ndarray, passes: int) -> tuple[np.ndarray, dict[str, Any]]:
    import clustering as c

    memory = zarr.open_array(path, mode="r").nbytes // TIMES
    began = time.perf_counter()
    fit = c.fit(path, c.KMeans(len(start)), init=start, memory=memory, max_iterations=passes, tolerance=0)
    return fit.centers, {"seconds": time.perf_counter() - began, "passes": fit.iterations, "reads": fit.reads}


def fit_theirs(path: str, start: np.ndarray, passes: int) -> tuple[np.ndarray, dict[str, Any]]:
    import dask.array
    from dask_ml.cluster import KMeans

    model = KMeans(len(start), init=start.astype(np.float32), max_iter=passes, tol=0)
    began = time.perf_counter()
    model.fit(dask.array.from_zarr(path))
    facts = {"seconds": time.perf_counter() - began, "passes": int(model.n_iter_), "reads": float(model.n_iter_)}
    return model.cluster_centers_, facts


def child(way: str, path: str, folder: Path, passes: int) -> None:
    warnings.simplefilter("ignore")
    fit = fit_ours if way == OURS else fit_theirs
    centers, facts = fit(path, np.load(folder / "start.npy"), passes)
    np.save(folder / f"{way}.npy", centers)
    print(json.dumps(facts))


def run_child(way: str, path: Path, passes: int) -> dict[str, Any]:
    """Fit in a process of its own."""
    python = sys.executable if way == OURS else str(PEERS)
    command = [python, "-m", "benchmarks.out_of_core", "--child", way, str(path), str(path.parent), str(passes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def measure(rows: Rows, rounds: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return the medians of both ways on a store, and check that their costs agree."""
    path = folder / "store.zarr"
    write(path, rows, rows.n)
    np.save(folder / "start.npy", rows.draw(np.random.default_rng(1), rows.k).astype(np.float64))
    # The first fit compiles the kernels, and says how many passes there are.
    passes = int(run_child(OURS, path, PASSES)["passes"])
    runs: dict[str, list[dict[str, Any]]] = {OURS: [], THEIRS: []}
    for _ in range(rounds):
        for way, made in runs.items():
            made.append(run_child(way, path, passes))
    values = zarr.open_array(path, mode="r")[:]
    costs = [cost(values, np.load(folder / f"{way}.npy")) for way in runs]
    if max(costs) / min(costs) - 1 > AGREEMENT:
        raise SystemExit(f"the costs differ: {costs}")
    return {way: {key: statistics.median(run[key] for run in made) for key in made[0]} for way, made in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--child", nargs=4, metavar=("WAY", "STORE", "FOLDER", "PASSES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, path, folder, passes = options.child
        child(way, path, Path(folder), int(passes))
        return
    blas.use_own_kernels("benchmarks.out_of_core")
    results = []
    for name, rows in SETS.items():
        part = rows._replace(n=int(rows.n * options.scale))
        with tempfile.TemporaryDirectory() as folder:
            medians = measure(part, options.rounds, Path(folder))
        case = f"{part.n:,}, {name}, k {part.k}: {medians[OURS]['passes']:.0f} passes"
        ours, theirs = (medians[way]["seconds"] for way in (OURS, THEIRS))
        reads, others = (medians[way]["reads"] for way in (OURS, THEIRS))
        results += [
            Result(f"k-means, store {TIMES} × the memory", case, ours, "s", {THEIRS: theirs}, "≥", 8.0),
            Result(f"full reads, store {TIMES} × the memory", case, reads, "reads", {THEIRS: others}, "≥"),
        ]
        print(*results[-2:], sep="\n", flush=True)
    save("out_of_core", results)


if __name__ == "__main__":
    main()
