"""Compare the forecast of `clustering inspect` with the fit that follows: seconds per pass and peak memory.

Four kinds of stores, each with room for all rows between passes and with room for few. The inspection and the fit each
run in a process of their own, on all processors. The stores lie in the page cache.

    python -m benchmarks.inspect --scale 1.0
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.results import RESULTS, Result, save

ITERATIONS = 4
MEMORY = {"all kept": "6GiB", "few kept": "256MiB"}
SECONDS = 600


def rows(folder: str, scale: float) -> dict[str, Any]:
    """Rows of 64 numbers in single precision."""
    n = int(4_000_000 * scale)
    array = zarr.create_array(f"{folder}/rows", shape=(n, 64), chunks=(32_768, 64), dtype="f4")
    _fill(array, np.float32, 2.0)
    return {"source": {"store": f"{folder}/rows"}, "model": {"k": 16}}


def field(folder: str, scale: float) -> dict[str, Any]:
    """Profiles packed in two bytes a number, depth before latitude and longitude; a third is land."""
    times = max(2, int(24 * scale))
    group = zarr.create_group(f"{folder}/field")
    dims = ("time", "depth", "lat", "lon")
    array = group.create_array(
        "t", shape=(times, 37, 360, 720), chunks=(1, 37, 180, 180), dtype="i2", fill_value=-32768, dimension_names=dims
    )
    array.attrs.update({"scale_factor": 0.001, "add_offset": 10.0, "_FillValue": -32768})
    rng = np.random.default_rng(0)
    land = rng.random((60, 120)).repeat(6, 0).repeat(6, 1) < 0.33
    for i in range(times):
        values = (1000 * rng.standard_normal((37, 360, 720)) + 3000 * rng.standard_normal((360, 720))).astype("i2")
        values[:, land] = -32768
        array[i] = values
    return {
        "source": {"store": f"{folder}/field", "variables": ["t"], "feature_dims": ["depth"]},
        "model": {"kind": "gaussian_mixture", "k": 8},
    }


def embeddings(folder: str, scale: float) -> dict[str, Any]:
    """Embeddings of 64 numbers in a byte each, in shards."""
    n = int(6_000_000 * scale)
    array = zarr.create_array(
        f"{folder}/embeddings", shape=(n, 64), chunks=(16_384, 64), shards=(65_536, 64), dtype="i1", fill_value=-128
    )
    _fill(array, np.int8, 30.0)
    source = {"store": f"{folder}/embeddings", "decode": "signed_square", "nodata": -128}
    return {"source": source, "model": {"k": 32}}


def wide(folder: str, scale: float) -> dict[str, Any]:
    """Rows of 1000 numbers, brought to unit variance."""
    n = int(250_000 * scale)
    array = zarr.create_array(f"{folder}/wide", shape=(n, 1000), chunks=(2_000, 1000), dtype="f4")
    _fill(array, np.float32, 2.0)
    return {"source": {"store": f"{folder}/wide"}, "model": {"k": 10}, "preprocess": {"standardize": "per_feature"}}


STORES = {"rows": rows, "field": field, "embeddings": embeddings, "wide": wide}


def _fill(array: Any, dtype: Any, spread: float) -> None:
    rng = np.random.default_rng(0)
    d, step = array.shape[1], (array.shards or array.chunks)[0]
    centers = rng.standard_normal((16, d)) * spread
    for start in range(0, array.shape[0], step):
        m = min(step, array.shape[0] - start)
        noise = rng.standard_normal((m, d), np.float32) * spread
        array[start : start + m] = np.clip(centers[rng.integers(0, 16, m)] + noise, -127, 127).astype(dtype)


class _Timed:
    """Keeps the seconds of each pass."""

    def __init__(self) -> None:
        self.passes: list[float] = []

    def say(self, line: str) -> None: ...

    def warn(self, line: str) -> None: ...

    def step(self, name: str, work: Any) -> Any:
        return work()

    def working(self, engine: Any) -> Any:
        return nullcontext()

    def event(self, name: str, payload: Any) -> None: ...

    def passed(self, record: Any, rule: Any, reads: float) -> None:
        self.passes.append(record.seconds)

    def finished(self, record: Any, pictures: Any) -> None: ...


def child(path: str) -> None:
    from clustering.run.job import run_fit
    from clustering_flows.loading import load_config

    watch = _Timed()
    record = run_fit(load_config(path), watch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"passes": watch.passes, "label": record["seconds"]["label"], "peak": peak}))


INSPECT = ("-c", "from clustering_flows.cli import main; main()", "inspect")


def _last_line(*arguments: str) -> Any:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, room: str, job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Inspect a job, run it, and return both results."""
    fit = {"max_iterations": ITERATIONS, "tolerance": 0}
    output = {"store": f"{folder}/out", "report": False, "overwrite": True}
    content = {**job, "fit": fit, "compute": {"memory": MEMORY[room]}, "output": output}
    path = f"{folder}/{name}.yaml"
    # JSON is YAML.
    Path(path).write_text(json.dumps(content))
    inspection = _last_line(*INSPECT, path, "--json")
    truth = _last_line("-m", "benchmarks.inspect", "--child", path)
    return {"store": name, "room": room, "inspection": inspection, "truth": truth}


def records(comparison: dict[str, Any]) -> list[Result]:
    """Compare the peak of memory with the plan, and show the seconds of a pass beside the forecast."""
    forecast, truth = comparison["inspection"]["forecast"], comparison["truth"]
    case = f"{comparison['store']}, {comparison['room']}"
    peak, planned = truth["peak"] / 2**20, {"plan": forecast["memory_bytes"] / 2**20}
    taken, expected = float(np.median(truth["passes"])), {"forecast": forecast["pass_seconds"]}
    return [
        Result("peak of memory beside the plan", case, peak, "MiB", planned, "≤", 1.1),
        Result("seconds of a pass beside the forecast", case, taken, "s", expected, "≤"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--stores", nargs="*", default=list(STORES))
    parser.add_argument("--folder", default=None)
    parser.add_argument("--child", metavar="CONFIG", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    lines = [
        f"Stores at {options.scale:g} of 0.5 to 1 GiB, {ITERATIONS} passes at most; forecast by `clustering inspect`, "
        "measured in the fit: the median pass, the label pass, peak resident memory.",
        "",
        "| store | memory | forecast s, pass | measured | forecast s, labels | measured | forecast MiB | measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in options.stores:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            job = STORES[name](folder, options.scale)
            for room in MEMORY:
                comparison = compare(name, room, job, folder)
                forecast, truth = comparison["inspection"]["forecast"], comparison["truth"]
                lines.append(
                    f"| {name} | {MEMORY[room]}, {100 * forecast['kept_share']:.0f} % kept | "
                    f"{forecast['pass_seconds']:.2f} | {np.median(truth['passes']):.2f} | "
                    f"{forecast['label_seconds']:.2f} | {truth['label']:.2f} | "
                    f"{forecast['memory_bytes'] / 2**20:,.0f} | {truth['peak'] / 2**20:,.0f} |"
                )
                print(lines[-1], flush=True)
                results += records(comparison)
    print("\n".join(lines))
    save("inspect", results)
    (RESULTS / "inspect.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
