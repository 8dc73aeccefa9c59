"""What the drift budget saves: full reads and seconds of k-means on stores of several times the memory for rows.

Each set is fitted with ``accelerate: none`` and ``auto`` in turns, in one process, and medians count. Two starts are
compared: the default one, which has converged on the row sample, and rows of the data, which take the most passes. The
objectives and the numbers of passes have to agree. Stores lie in the page cache, so that reading means decoding alone:
a slower disk or a bucket adds its time to each read.

    python -m benchmarks.drift_budget --scale 1.0
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from sklearn.datasets import load_sample_image

import clustering as c
from benchmarks.results import RESULTS, Result, save

AT_ONCE = 100_000
"""Rows that are drawn together."""
MANY, MOST_READS = 20, 7
"""Plain passes from which a fit counts as long, and the full reads that such fits may take, in the median."""
Draw = Callable[[np.random.Generator, int], np.ndarray]


class Rows(NamedTuple):
    """A set of rows: how they are drawn, how many there are, and the number of clusters."""

    draw: Draw
    n: int
    k: int


def gaussians(d: int, k: int, spread: float = 1.0) -> Draw:
    """Draw from overlapping clusters of variance 1, whose means have the given spread in each feature."""
    means = np.random.default_rng(d).standard_normal((k, d)) * spread
    return lambda rng, n: (means[rng.integers(0, k, n)] + rng.standard_normal((n, d))).astype("f4")


def grid(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw from a hundred clusters on a grid, as in the set Birch1."""
    means = np.stack(np.meshgrid(*[np.arange(10.0)] * 2), -1).reshape(-1, 2) * 4 * 2**0.5
    return (means[rng.integers(0, 100, n)] + rng.standard_normal((n, 2))).astype("f4")


def pixels(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw colours of a photograph, with the noise of a camera."""
    colours = load_sample_image("china.jpg").reshape(-1, 3)
    return (colours[rng.integers(0, len(colours), n)] + rng.normal(0, 3, (n, 3))).clip(0, 255).astype("u1")


def frequencies(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw 57 skewed features, mostly zero, of very unequal scales, as in the set Spambase."""
    kinds = np.random.default_rng(57)
    scales, shares = 10.0 ** kinds.uniform(-1, 1, 57), kinds.uniform(0.05, 0.6, (20, 57))
    values = rng.lognormal(0.0, 1.0, (n, 57)) * scales
    return (values * (rng.random((n, 57)) < shares[rng.integers(0, 20, n)])).astype("f4")


SETS = {
    "overlapping, d 8": Rows(gaussians(8, 16), 4_000_000, 16),
    "grid of 100, d 2": Rows(grid, 8_000_000, 100),
    "overlapping, d 32": Rows(gaussians(32, 64, 0.6), 1_000_000, 64),
    "pixels, d 3": Rows(pixels, 8_000_000, 32),
    "frequencies, d 57": Rows(frequencies, 600_000, 50),
}


def write(path: Path, rows: Rows, n: int) -> int:
    """Write a store of `n` rows in 128 chunks, and give its decoded size in bytes."""
    rng, first = np.random.default_rng(0), rows.draw(np.random.default_rng(0), 1)
    array = zarr.create_array(path, shape=(n, first.shape[1]), chunks=(-(-n // 128), first.shape[1]), dtype=first.dtype)
    for start in range(0, n, AT_ONCE):
        array[start : start + AT_ONCE] = rows.draw(rng, min(AT_ONCE, n - start))
    return array.nbytes


def measure(path: Path, rows: Rows, memory: int, rounds: int, **options: Any) -> tuple[str, c.Fit, c.Fit]:
    """Fit in both ways in turns; return the cells of a row of the table, and the fit without and with the budget."""
    seconds: dict[str, list[float]] = {"none": [], "auto": []}
    fits: dict[str, c.Fit] = {}
    for _ in range(rounds):
        for accelerate, taken in seconds.items():
            began = time.perf_counter()
            fits[accelerate] = c.fit(path, c.KMeans(rows.k), memory=memory, accelerate=accelerate, **options)
            taken.append(time.perf_counter() - began)
    plain, fit = fits["none"], fits["auto"]
    assert abs(fit.iterations - plain.iterations) <= 1
    np.testing.assert_allclose(fit.objective, plain.objective, rtol=1e-10)
    without, taken = (statistics.median(seconds[accelerate]) for accelerate in ("none", "auto"))
    cells = [f"{fit.iterations}", *(f"{x:.1f}" for x in (plain.reads, fit.reads)), f"{without:.2f}", f"{taken:.2f}"]
    return " | ".join([*cells, f"{without / taken:.2f}"]), plain, fit


def records(reads: Mapping[str, list[tuple[float, float, int]]], times: float) -> list[Result]:
    """Compare the full reads with the limit where plain passes are many.

    `reads` has, for each start, the reads of plain passes, ours, and the number of passes.
    """
    made = []
    for start, fits in reads.items():
        long = [(plain, ours) for plain, ours, passes in fits if passes >= MANY]
        if long:
            plain, ours = (statistics.median(numbers) for numbers in zip(*long, strict=True))
            case = f"{start}: median of {len(long)} fits of {MANY} passes or more, which read {plain:.1f} times"
            bar = f"full reads, store {times:g} × the memory for rows"
            made.append(Result(bar, case, ours, "reads", {"limit": MOST_READS}, "≤", 1.0))
    return made


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows")
    parser.add_argument(
        "--times", type=float, nargs="+", default=[4.0, 8.0], help="sizes of a store, in rooms for rows"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    lines = [
        "| rows | store / room | start | passes | reads, none | reads, auto | s, none | s, auto | none / auto |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    reads: dict[str, list[tuple[float, float, int]]] = {"default start": [], "rows as start": []}
    with tempfile.TemporaryDirectory() as name:
        for title, rows in SETS.items():
            path, n = Path(name) / "store.zarr", int(rows.n * options.scale)
            size = write(path, rows, n)
            first = rows.draw(np.random.default_rng(1), rows.k).astype("f8")
            for times in options.times:
                # Half of the memory is for rows.
                memory = int(2 * size / times)
                for start, how in zip(reads, ({}, {"init": first}), strict=True):
                    # The first fits compile the kernels.
                    c.fit(path, c.KMeans(rows.k), memory=memory, max_iterations=2, restarts=1)
                    cells, plain, fit = measure(path, rows, memory, options.rounds, **how)
                    lines.append(f"| {n:,}, {title}, k {rows.k} | {times:g} | {start} | {cells} |")
                    print(lines[-1], flush=True)
                    if times == max(options.times):
                        reads[start].append((plain.reads, fit.reads, plain.iterations))
            for file in sorted(path.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
    RESULTS.mkdir(exist_ok=True)
    save("drift_budget", records(reads, max(options.times)))
    (RESULTS / "drift_budget.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
