"""Cost of a nightly run on a store that is unchanged or has grown by 1 % or 10 %, beside a fit from nothing.

Rows of 16 numbers in single precision, a chunk a day, with room for all of them between passes and with room for few.
Each run is a process of its own, and continues from a copy of the same output. The store lies in the page cache.

    python -m benchmarks.nightly --scale 1.0
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr

RESULTS = Path(__file__).parent / "results"
DAYS, CELLS, FEATURES = 200, 40_000, 16
MODELS: dict[str, dict[str, Any]] = {
    "k-means, k = 8": {"kind": "kmeans", "k": 8},
    "mixture, full, k = 8": {"kind": "gaussian_mixture", "k": 8},
}
MEMORY = {"all kept": "4GiB", "few kept": "256MiB"}
GROWTH = {"+1 %": 0.01, "+10 %": 0.1}
REFRESH = ("full", "new-only", "none")


def day(number: int, cells: int) -> np.ndarray:
    """Rows of eight overlapping groups, which a fit finds to its fixed point ``(cells, features)``."""
    rng = np.random.default_rng(number)
    centers = np.random.default_rng(10**6).standard_normal((8, FEATURES)) * 1.2
    return (centers[rng.integers(0, 8, cells)] + rng.standard_normal((cells, FEATURES))).astype("f4")


def grow(path: Path, days: int, cells: int) -> None:
    """Write a store, or append to it, until it holds so many days."""
    if path.exists():
        array = zarr.open_array(path, mode="r+")
        first = array.shape[0]
        array.resize((days, cells, FEATURES))
    else:
        first = 0
        array = zarr.create_array(
            path, shape=(days, cells, FEATURES), chunks=(1, cells, FEATURES), dtype="f4",
            dimension_names=("day", "cell", "feature"),
        )  # fmt: skip
    for number in range(first, days):
        array[number] = day(number, cells)


def run(folder: Path, out: Path, model: dict[str, Any], memory: str, **fit: Any) -> dict[str, Any]:
    """Carry out a job by the command, and give its ``run.json``."""
    config = {
        "source": {"store": str(folder / "store"), "sample_dims": ["day", "cell"]},
        "model": model,
        "fit": {"init": "model", **fit},
        "compute": {"memory": memory},
        "output": {"store": str(out), "report": False, "overwrite": True},
    }
    (folder / "job.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-c", "from clustering_flows.cli import main; main()", "fit", str(folder / "job.yaml")]
    done = subprocess.run([*command, "--no-prefect", "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows")
    cells = int(CELLS * parser.parse_args().scale)
    lines = [
        f"{DAYS} days of {cells:,} rows × {FEATURES} float32, {DAYS * cells * FEATURES * 4 / 1e6:,.0f} MB",
        "",
        "| model | rows | store | refresh | passes | reads | MB read | seconds | of a fit from nothing |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, model in MODELS.items():
            for kept, memory in MEMORY.items():
                shutil.rmtree(folder / "store", ignore_errors=True)
                grow(folder / "store", DAYS, cells)
                base = folder / "base"
                shutil.rmtree(base, ignore_errors=True)
                # The first run compiles the kernels.
                run(folder, folder / "warm", model, memory, max_iterations=1)
                shutil.rmtree(folder / "warm")
                whole = run(folder, base, model, memory)
                rows = [("first", "", whole)]
                cases = [("unchanged", 0.0, ("full",)), *((t, g, REFRESH) for t, g in GROWTH.items())]
                for store, growth, wishes in cases:
                    grow(folder / "store", DAYS + round(DAYS * growth), cells)
                    for refresh in wishes:
                        out = folder / "out"
                        shutil.copytree(base, out, symlinks=True)
                        rows.append((store, refresh, run(folder, out, model, memory, refresh=refresh)))
                        shutil.rmtree(out)
                fresh = run(folder, folder / "fresh", model, memory)
                shutil.rmtree(folder / "fresh")
                rows.append(("+10 %", "from nothing", fresh))
                for store, refresh, record in rows:
                    seconds = record["seconds"]["total"]
                    lines.append(
                        f"| {title} | {kept} | {store} | {refresh} | {record['iterations']} | {record['reads']:.3g} | "
                        f"{record['bytes_read'] / 1e6:,.0f} | {seconds:.2f} | "
                        f"{100 * seconds / fresh['seconds']['total']:.0f} % |"
                    )
                    print(lines[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "nightly.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
