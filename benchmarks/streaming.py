"""What surrounds the compute of a streaming pass: reading, the memory of a worker, and several candidates in one pass.

- A pass that keeps no rows, and pass 0, against the slower of a plain read and the same compute on rows in memory.
- The memory of a job with ten times the rows, against the forecast of `clustering inspect`, and against that of fewer.
- Eight candidates in one pass against one, where reading bounds.

Ways take turns, and medians are compared. Stores lie in the page cache, so reading means decoding, on the
processors that also compute: a pass takes the sum of both. One store is compressed by gzip, whose decoding takes most
of a pass; with the other, compute takes most.

    python -m benchmarks.streaming --scale 1.0
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import GzipCodec

import clustering as c
from benchmarks import blas
from benchmarks.results import Result, save
from clustering.data.access import open_source
from clustering.data.codecs import accelerated
from clustering.data.source import Source
from clustering.execution.dask_clusters import available_processors
from clustering.execution.engine import connect
from clustering.execution.passes import PassRunner, pass_runner
from clustering.fitting.survey_pass import SIDE_SHARE
from clustering.models.survey import SurveyModel, priority_floor

SAMPLE = 200_000
MEMORY = 1 << 30
JOB_MEMORY = "128MiB"
"""Half of it is for rows, so that even the smaller of two stores does not fit."""
CANDIDATES = 8


def make(path: str, n: int, d: int, **encoding: Any) -> zarr.Array[Any]:
    """Write rows of float32 that compress to about a half."""
    rng = np.random.default_rng(0)
    step = max(1, 1_000_000 // d)
    array = zarr.create_array(path, shape=(n, d), chunks=(step, d), dtype="f4", **encoding)
    centers = rng.standard_normal((16, d), np.float32)
    for start in range(0, n, step):
        m = min(step, n - start)
        array[start : start + m] = np.round(
            centers[rng.integers(0, 16, m)] + rng.standard_normal((m, d), np.float32), 2
        )
    return array


def plain_read(array: zarr.Array[Any], threads: int) -> float:
    """Return the seconds of a read of all chunks on all threads, with zarr or with zarrs, whichever is faster."""
    starts = range(0, array.shape[0], array.chunks[0])
    taken = []
    for opened in (array, accelerated(array)):
        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            read = pool.map(lambda start, opened=opened: opened[start : start + array.chunks[0]].shape[0], starts)
            assert sum(read) == array.shape[0]
        taken.append(time.perf_counter() - began)
    return min(taken)


def medians(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure ways in turns; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, measure in ways.items():
            took = measure()
            if number:
                seconds[way].append(took)
    return seconds


def seconds_of(runner: PassRunner, functions: list[Any]) -> float:
    return runner.run(functions).seconds


def passes(source: Source, array: zarr.Array[Any], k: int, rounds: int) -> list[Result]:
    """Compare pass 0, a streaming pass, and one of several candidates with what they cannot do without."""
    threads, plan = available_processors(), source.plan(memory=MEMORY)
    fit = c.fit(np.asarray(array[:100_000]), c.KMeans(k), restarts=1, max_iterations=2).fitted
    lloyd: Any = fit.model
    candidates = [lloyd.for_pass(fit.params)] * CANDIDATES
    floor, beside = priority_floor(plan.cells, SAMPLE), MEMORY // SIDE_SHARE
    survey = SurveyModel(0, SAMPLE, k, floor, side_bytes=beside).statistics
    with (
        connect("threads", threads) as engine,
        pass_runner(source, plan, engine, memory=1 << 40) as kept,
        pass_runner(source, plan, engine, memory=MEMORY, keep=False) as streaming,
    ):
        runs = medians(
            {
                "read": partial(plain_read, array, threads),
                **{
                    f"{name}, {where}": partial(seconds_of, runner, functions)
                    for name, functions in {"pass 0": [survey], "pass": candidates[:1], "eight": candidates}.items()
                    for where, runner in {"kept": kept, "streaming": streaming}.items()
                },
            },
            rounds,
        )
    shape = f"{array.shape[0]:,} × {array.shape[1]} k {k}"
    made = []
    for name, words in {"pass 0": "pass 0 of a streaming fit", "pass": "streaming pass"}.items():
        read, compute = statistics.median(runs["read"]), statistics.median(runs[f"{name}, kept"])
        bound = {"larger of read and compute": max(read, compute)}
        ours = statistics.median(runs[f"{name}, streaming"])
        made.append(Result(words, shape, ours, "s", bound, "≤", 1.2))
    if statistics.median(runs["eight, kept"]) < statistics.median(runs["read"]):
        eight, one = (statistics.median(runs[f"{name}, streaming"]) for name in ("eight", "pass"))
        bar = f"{CANDIDATES} candidates in one pass, where reading bounds"
        made.append(Result(bar, shape, eight, "s", {"one candidate": one}, "≤", 1.3))
    return made


def memory(folder: str, n: int, d: int, k: int) -> list[Result]:
    """Run a job over some rows, and over ten times as many, in processes of their own, and compare their peaks."""
    peaks, planned = [], 0
    for rows in (n, 10 * n):
        store = f"{folder}/rows-{rows}"
        make(store, rows, d)
        job = {
            "source": {"store": store}, "model": {"k": k}, "fit": {"max_iterations": 3, "restarts": 2},
            "compute": {"memory": JOB_MEMORY}, "output": {"store": f"{folder}/out-{rows}", "report": False},
        }  # fmt: skip
        path = f"{folder}/{rows}.yaml"
        # JSON is YAML.
        Path(path).write_text(json.dumps(job))
        planned = _last_line("-m", "benchmarks.streaming", "--child", "inspect", path)
        peaks.append(_last_line("-m", "benchmarks.streaming", "--child", "fit", path))
    shape = f"{10 * n:,} × {d} k {k}, compute.memory {JOB_MEMORY}"
    fewer, more, plan = (size / 2**20 for size in (*peaks, planned))
    return [
        Result("peak memory beside the plan", shape, more, "MiB", {"forecast": plan}, "≤", 1.1),
        Result("peak memory at ten times the rows", shape, more, "MiB", {"a tenth of the rows": fewer}, "≤", 1.05),
    ]


def child(command: str, path: str) -> None:
    """Print the memory that a job is forecast to take, or that it takes, in bytes."""
    from clustering.run.inspect import inspect_job
    from clustering_flows.cli import main as command_line
    from clustering_flows.loading import load_config

    if command == "inspect":
        print(inspect_job(load_config(path))["forecast"]["memory_bytes"])
        return
    with suppress(SystemExit):
        command_line(["fit", path, "--no-prefect"])
    # The peak of `getrusage` would count the memory of the process that started this one too.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) * 1024)


def _last_line(*arguments: str) -> Any:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def records(rounds: int, scale: float) -> list[Result]:
    """Measure passes over two stores, and the memory of jobs."""
    made: list[Result] = []
    for n, d, k, encoding in ((4_000_000, 16, 4, {"compressors": GzipCodec(level=1)}), (1_000_000, 64, 256, {})):
        with tempfile.TemporaryDirectory() as folder:
            array = make(f"{folder}/rows", int(n * scale), d, **encoding)
            made += passes(open_source(f"{folder}/rows"), array, k, rounds)
    with tempfile.TemporaryDirectory() as folder:
        made += memory(folder, 750_000, 32, 16)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows, but for memory")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    blas.use_own_kernels("benchmarks.streaming")
    save("streaming", records(options.rounds, options.scale))


if __name__ == "__main__":
    main()
