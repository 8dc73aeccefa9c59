"""Twenty Lloyd iterations from a Zarr store to labels: whole processes, timed from their start to their end.

The command, with its report, is compared with small scripts that read the store with zarr and fit with a peer. Ways
take turns on all processors, so a ratio compares runs of the same minute. The clusters overlap, so that nobody
converges sooner. FAISS labels in a further step, as it returns none. Spark runs only if pyspark is installed beside the
peers.

    python -m benchmarks.from_store --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr

from benchmarks import blas
from benchmarks.results import PEERS, Result, save

PYTHON = PEERS / "bin" / "python"
"""Python of the peers."""
OURS = "zarr-clustering"
ITERATIONS = 20
CHUNK = 2_000_000
"""Values of a chunk."""


class Shape(NamedTuple):
    """Rows of float32, and the number of clusters."""

    n: int
    d: int
    k: int

    def __str__(self) -> str:
        return f"{self.n:,} × {self.d} k {self.k}"


SHAPES = (Shape(4_000_000, 16, 8), Shape(1_000_000, 64, 64), Shape(1_000_000, 32, 256))
TARGETS = {"scikit-learn": 2.5, "scikit-learn-intelex": 2.0, "FAISS": 1.5, "dask-ml": 10.0, "Spark": 25.0}
"""Peer → how many times as long as the command it has to take at least."""

_READ = (
    "import sys, numpy as np, zarr; path, k = sys.argv[1], int(sys.argv[2]); rows = zarr.open_array(path, mode='r')[:]"
)
_FIT = "model = KMeans(k, max_iter={n}, tol=0, n_init=1, random_state=0).fit(rows); labels = model.labels_"
SCRIPTS = {
    "scikit-learn": f"{_READ}\nfrom sklearn.cluster import KMeans\n{_FIT}\nprint(model.n_iter_)",
    "scikit-learn-intelex": f"{_READ}\nfrom sklearnex.cluster import KMeans\n{_FIT}\nprint(model.n_iter_)",
    # The limit on rows of a centroid is lifted, because it would subsample.
    "FAISS": f"""{_READ}
import faiss
model = faiss.Kmeans(rows.shape[1], k, niter={{n}}, max_points_per_centroid=len(rows), min_points_per_centroid=1)
model.train(rows)
labels = model.assign(rows)[1]
print({{n}})""",
    "dask-ml": """import sys, dask.array as da
from dask_ml.cluster import KMeans
rows = da.from_zarr(sys.argv[1]).persist()
model = KMeans(int(sys.argv[2]), max_iter={n}, tol=0, random_state=0).fit(rows)
labels = model.labels_.compute()
print(model.n_iter_)""",
    "Spark": f"""{_READ}
import pandas as pd
from pyspark.ml.clustering import KMeans
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[*]").config("spark.driver.memory", "8g").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
frame = spark.createDataFrame(pd.DataFrame(rows, columns=[f"x{{{{i}}}}" for i in range(rows.shape[1])]))
frame = VectorAssembler(inputCols=frame.columns, outputCol="features").transform(frame).select("features").cache()
model = KMeans(k=k, maxIter={{n}}, tol=0.0, seed=0).fit(frame)
labels = model.transform(frame).select("prediction").toPandas().prediction.to_numpy()
print(model.summary.numIter)""",
}


class Run(NamedTuple):
    """What one process took."""

    wall: float
    cpu: float
    """Seconds of all processors."""
    iterations: int


def make(path: str, shape: Shape) -> None:
    """Write rows of clusters that overlap."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((shape.k, shape.d), np.float32) * np.float32(0.2)
    step = max(1, CHUNK // shape.d)
    array = zarr.create_array(path, shape=(shape.n, shape.d), chunks=(step, shape.d), dtype="f4")
    for start in range(0, shape.n, step):
        m = min(step, shape.n - start)
        noise = rng.standard_normal((m, shape.d), np.float32)
        array[start : start + m] = centers[rng.integers(0, shape.k, m)] + noise


def run(command: list[str], folder: str) -> Run:
    """Run a process, whose last line of output is its number of iterations, or ``run.json``."""
    # Modules are compiled to bytecode by the first run, as an installation has them.
    left_out = ("PREFECT_API_URL", "PYTHONDONTWRITEBYTECODE", *blas.VARIABLES)
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    said = json.loads(done.stdout.splitlines()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall, cpu, said["iterations"] if isinstance(said, dict) else said)


def ours(path: str, k: int, folder: str, number: int) -> list[str]:
    """Write a job with an output of its own, and return the command that runs it."""
    fit = {"max_iterations": ITERATIONS, "tolerance": 0, "restarts": 1}
    job = {"source": {"store": path}, "model": {"k": k}, "fit": fit, "output": {"store": f"{folder}/out-{number}"}}
    # JSON is YAML.
    Path(f"{folder}/job-{number}.yaml").write_text(json.dumps(job))
    command = Path(sys.executable).with_name("clustering")
    return [str(command), "fit", f"{folder}/job-{number}.yaml", "--no-prefect", "--json"]


def available(peer: str) -> bool:
    """Return whether a peer can run here, and print why where it cannot."""
    package = {"Spark": "pyspark", "dask-ml": "dask_ml", "FAISS": "faiss", "scikit-learn-intelex": "sklearnex"}
    wanted = package.get(peer, "sklearn")
    if not PYTHON.is_file():
        print(f"{peer}: left out, as {PYTHON.parents[1].name} is not there; make .venv-peers/.ready makes it")
        return False
    find = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({wanted!r}) is None)"
    if subprocess.run([str(PYTHON), "-c", find], check=False).returncode:
        print(f"{peer}: left out, as {wanted} is not installed beside the peers")
        return False
    return True


def records(rounds: int, shapes: Iterable[Shape], peers: list[str] | None = None) -> list[Result]:
    """Measure each shape, and compare with each peer."""
    chosen = [peer for peer in (peers or TARGETS) if available(peer)]
    made: list[Result] = []
    for shape in shapes:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/rows.zarr"
            make(path, shape)
            # Kernels are compiled, and files are in the page cache.
            run(ours(path, shape.k, folder, 0), folder)
            runs: dict[str, list[Run]] = {way: [] for way in (OURS, *chosen)}
            for number in range(1, rounds + 1):
                for way, taken in runs.items():
                    if way == OURS:
                        command = ours(path, shape.k, folder, number)
                    else:
                        script = SCRIPTS[way].format(n=ITERATIONS)
                        command = [str(PYTHON), "-W", "ignore", "-c", script, path, str(shape.k)]
                    taken.append(run(command, folder))
                    print(f"{shape}, {way}: {taken[-1]}", flush=True)
            made += compared(shape, runs)
    return made


def compared(shape: Shape, runs: Mapping[str, list[Run]]) -> list[Result]:
    """Compare the command with each peer."""
    walls = {way: statistics.median(one.wall for one in taken) for way, taken in runs.items()}
    bar = f"{ITERATIONS} iterations from a store, whole process"
    return [
        Result(f"{bar}, beside {peer}", str(shape), walls[OURS], "s", {peer: walls[peer]}, "≥", target)
        for peer, target in TARGETS.items()
        if peer in walls
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", choices=list(TARGETS), default=None)
    parser.add_argument("--shapes", nargs="*", type=int, default=range(len(SHAPES)), help="numbers of shapes, from 0")
    options = parser.parse_args()
    blas.use_own_kernels("benchmarks.from_store")
    shapes = [SHAPES[i] for i in options.shapes]
    save("from_store", records(options.rounds, shapes, options.peers))


if __name__ == "__main__":
    main()
