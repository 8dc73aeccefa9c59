"""EM for Gaussian mixtures through the public call, on all processors, beside scikit-learn.

Both start from the same weights, means and covariances. Measured are one pass (a fit of many passes less one of few,
over the difference in passes, both without acceleration), and the time to a log-likelihood within 1e-6 nats per row of
the best that ours reaches, with our defaults. Runs alternate in processes of their own; ratios are of medians.

    python -m benchmarks.mixtures [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import blas
from benchmarks.results import RESULTS, Result, save

KINDS = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
"""Our names of the covariances, and theirs."""
FEW, MANY, MANY_OURS = 2, 6, 30
"""Passes of the two fits that a pass is measured by; ours are shorter beside the rest of a fit, so there are more."""
NEAR = 1e-6
"""Nats per row from the best log-likelihood that count as reaching it."""
MOST_PASSES = 1500


class Shape(NamedTuple):
    """Rows, features and components of a set of planted Gaussians."""

    n: int
    d: int
    k: int

    def __str__(self) -> str:
        return f"{self.n:,} × {self.d}, k {self.k}"


SHAPES = (Shape(1_000_000, 2, 4), Shape(1_000_000, 16, 8), Shape(200_000, 32, 32), Shape(200_000, 64, 16))
SLOW = Shape(100_000, 8, 16)
"""Overlapping Gaussians, on which EM takes up to a hundred passes."""


def planted(shape: Shape, overlap: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw rows, and a start near the planted components: weights, means and full covariances."""
    rng = np.random.default_rng(0)
    n, d, k = shape
    centers, shapes = rng.standard_normal((k, d)), overlap * rng.standard_normal((k, d, d)) / np.sqrt(d)
    labels = rng.choice(k, n, p=rng.dirichlet(np.full(k, 3.0)))
    rows = centers[labels] + 0.3 * overlap * rng.standard_normal((n, d))
    for i in range(k):
        own = labels == i
        rows[own] += rng.standard_normal((int(own.sum()), d)) @ shapes[i].T
    start = {
        "weights": np.full(k, 1.0 / k),
        "centers": centers + 0.3 * rng.standard_normal((k, d)),
        "covariances": np.repeat(np.cov(rows[:10_000].T).reshape(1, d, d), k, axis=0),
    }
    return rows, start


def of_kind(kind: str, start: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a start with covariances in the shape of a kind."""
    full = start["covariances"]
    diagonal = np.einsum("kdd->kd", full)
    shaped = {"full": full, "tied": full[0], "diagonal": diagonal, "spherical": diagonal.mean(axis=1)}[kind]
    return {**start, "covariances": shaped}


def seconds_per_pass(fit: Callable[[int], int], most: int) -> float:
    """Time a pass, by a fit of few and one of many; `fit` returns the number of passes that it made."""
    fit(1)
    times, passes = [], []
    for wanted in (FEW, most):
        started = time.perf_counter()
        passes.append(fit(wanted))
        times.append(time.perf_counter() - started)
    return (times[1] - times[0]) / (passes[1] - passes[0])


def ours(kind: str, rows: np.ndarray, start: dict[str, np.ndarray], goal: float | None) -> dict[str, float]:
    """Time one pass, and the passes to a log-likelihood, if it is finite; without one, find the best."""
    import clustering as c

    model = c.GaussianMixture(len(start["weights"]), kind, regularization=0.0)

    def plain(passes: int) -> int:
        fit = c.fit(rows, model, init=start, max_iterations=passes, tolerance=1e-300, accelerate="none")
        return len(fit.history)

    if goal is None:
        return {"best": c.fit(rows, model, init=start, tolerance=1e-12, max_iterations=MOST_PASSES).objective}
    each = seconds_per_pass(plain, MANY_OURS)
    if goal == -np.inf:
        return {"pass": each}
    reached: list[tuple[int, float]] = []
    started = time.perf_counter()

    def on_pass(record: Any) -> None:
        if record.objective >= goal - NEAR and not reached:
            reached.append((record.iteration, time.perf_counter() - started))

    fit = c.fit(rows, model, init=start, tolerance=1e-9, max_iterations=MOST_PASSES, on_pass=on_pass)
    passes, seconds = reached[0] if reached else (len(fit.history), float("nan"))
    return {"pass": each, "passes": passes, "seconds": seconds, "end": fit.objective}


def theirs(kind: str, rows: np.ndarray, start: dict[str, np.ndarray], goal: float) -> dict[str, float]:
    """Do the same with scikit-learn."""
    from sklearn.mixture import GaussianMixture

    full = start["covariances"]
    precisions = np.linalg.inv(full) if kind in ("full", "tied") else 1.0 / full

    def model(passes: int, **more: Any) -> Any:
        return GaussianMixture(
            len(start["weights"]), covariance_type=KINDS[kind], max_iter=passes, tol=0.0, reg_covar=0.0,
            weights_init=start["weights"], means_init=start["centers"], precisions_init=precisions, **more,
        )  # fmt: skip

    each = seconds_per_pass(lambda passes: int(model(passes).fit(rows).n_iter_), MANY)
    if goal == -np.inf:
        return {"pass": each}
    # Its likelihood is that before the last step, and is looked at every few steps, which costs little.
    going, passes, started = model(10, warm_start=True), 0, time.perf_counter()
    while passes < MOST_PASSES:
        before = getattr(going, "lower_bound_", -np.inf)
        going.fit(rows)
        passes += 10
        if going.lower_bound_ >= goal - NEAR or going.lower_bound_ - before < 1e-11:
            break
    end = float(going.lower_bound_)
    seconds = time.perf_counter() - started if end >= goal - NEAR else float("nan")
    return {"pass": each, "passes": passes, "seconds": seconds, "end": end}


WAYS: dict[str, Callable[..., dict[str, float]]] = {"zarr-clustering": ours, "scikit-learn": theirs}
OURS, THEIRS = WAYS


def run_child(way: str, folder: Path, goals: Mapping[str, float | None]) -> dict[str, dict[str, float]]:
    """Run a way in a process of its own, for every kind of covariance."""
    (folder / "goals.json").write_text(json.dumps(goals))
    command = [sys.executable, "-m", "benchmarks.mixtures", "--child", way, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def child(way: str, folder: Path) -> None:
    warnings.simplefilter("ignore")
    goals = json.loads((folder / "goals.json").read_text())
    rows, start = np.load(folder / "rows.npy"), dict(np.load(folder / "start.npz"))
    print(json.dumps({kind: WAYS[way](kind, rows, of_kind(kind, start), goal) for kind, goal in goals.items()}))


def measure(shape: Shape, overlap: float, rounds: int) -> list[dict[str, Any]]:
    """Return the medians of both ways for each kind of covariance."""
    slow = shape is SLOW
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, start = planted(shape, overlap)
        np.save(folder / "rows.npy", rows)
        np.savez(folder / "start.npz", **start)
        del rows
        goals = dict.fromkeys(KINDS, -np.inf)
        if slow:
            # The slow set is run to the end once, to know the goal; elsewhere one pass is measured alone.
            goals = {kind: end["best"] for kind, end in run_child(OURS, folder, dict.fromkeys(KINDS)).items()}
        runs = [{way: run_child(way, folder, goals) for way in WAYS} for _ in range(rounds)]
    facts = []
    for kind in KINDS:
        medians = {
            way: {key: statistics.median(run[way][kind][key] for run in runs) for key in runs[0][way][kind]}
            for way in WAYS
        }
        facts.append({"shape": str(shape), "kind": kind, "slow": slow, **medians})
        print(facts[-1], flush=True)
    return facts


def table(facts: list[dict[str, Any]]) -> str:
    lines = ["| rows × features | covariance | ours, ms a pass | scikit-learn | ratio |", "|---|---|---|---|---|"]
    lines += [
        f"| {f['shape']} | {f['kind']} | {1000 * f[OURS]['pass']:.1f} | {1000 * f[THEIRS]['pass']:.1f} | "
        f"{f[THEIRS]['pass'] / f[OURS]['pass']:.1f} |"
        for f in facts
    ]
    lines += [
        "",
        f"To within {NEAR:g} nats per row of our best log-likelihood:",
        "",
        "| rows × features | covariance | ours: passes, seconds | scikit-learn | ratio | ends, ours less theirs |",
        "|---|---|---|---|---|---|",
    ]
    for f in (f for f in facts if f["slow"]):
        mine, other = f[OURS], f[THEIRS]
        lines.append(
            f"| {f['shape']} | {f['kind']} | {mine['passes']:.0f}, {mine['seconds']:.2f} | {other['passes']:.0f}, "
            f"{other['seconds']:.2f} | {other['seconds'] / mine['seconds']:.1f} | {mine['end'] - other['end']:+.1e} |"
        )
    return "\n".join(lines) + "\n"


def records(facts: list[dict[str, Any]]) -> list[Result]:
    """Compare the passes of all sets, and the seconds to the same log-likelihood on the slow one."""
    results = []
    for f in facts:
        pair, target = ("full, tied", 10.0) if f["kind"] in ("full", "tied") else ("diagonal, spherical", 5.0)
        ours, theirs = (1000 * f[way]["pass"] for way in WAYS)
        case = f"{f['kind']}, {f['shape']}"
        results.append(Result(f"EM pass, whole fit: {pair}", case, ours, "ms", {THEIRS: theirs}, "≥", target))
    for f in (f for f in facts if f["slow"]):
        # Not a number says that a way never comes to the likelihood.
        ours, theirs = (f[way]["seconds"] if f[way]["seconds"] > 0 else math.inf for way in WAYS)
        case = f"{f['kind']}, {f['shape']}"
        results.append(Result("EM to the same log-likelihood", case, ours, "s", {THEIRS: theirs}, "≥", 20.0))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", type=int, nargs="*", default=range(len(SHAPES) + 1), help="numbers, from 0")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    blas.use_own_kernels("benchmarks.mixtures")
    RESULTS.mkdir(parents=True, exist_ok=True)
    facts = []
    for i in options.shapes:
        shape = (*SHAPES, SLOW)[i]
        facts += measure(shape, 0.6 if shape is SLOW else 0.9, options.rounds)
    save("mixtures", records(facts))
    (RESULTS / "mixtures.md").write_text(table(facts))
    print(table(facts))


if __name__ == "__main__":
    main()
