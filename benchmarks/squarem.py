"""Count the passes of plain EM and of accelerated EM from the same starts.

Counted are the passes until the mean log-likelihood is within 1e-6 nats per row of the best that the run reaches, and
the passes until the default tolerance stops the run. Starts are hard clusters of one run of k-means. The two ways may
end in different optima, as EM from a nearby start may; the table shows the difference.

    python -m benchmarks.squarem --starts 3 --folder sets

Every ``.npz`` in the folder holds the rows of one set as ``X (n, d)`` and their clusters as ``labels (n,)``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets
from sklearn.decomposition import PCA

import clustering as c
from benchmarks.results import RESULTS, Result, save
from clustering.errors import DataError

NEAR = 1e-6
"""Nats per row from the best."""
PASSES = 1500
SLOW = 60
"""Plain passes from which EM counts as slow."""
KINDS = ("full", "tied", "diagonal", "spherical")


class Set(NamedTuple):
    """Rows of a set, and their number of clusters."""

    name: str
    rows: np.ndarray
    k: int


class Run(NamedTuple):
    """Plain or accelerated EM from one start."""

    passes: int
    """Passes to within `NEAR` of the best."""
    stopped: int
    """Passes until the default tolerance stops."""
    best: float
    end: float
    """Mean log-likelihood where the default tolerance stops."""


def planted(n: int, d: int, k: int, overlap: float, seed: int) -> np.ndarray:
    """Draw rows of Gaussians of unequal weights and covariances."""
    rng = np.random.default_rng(seed)
    centers, shapes = rng.standard_normal((k, d)), overlap * rng.standard_normal((k, d, d)) / np.sqrt(d)
    labels = rng.choice(k, n, p=rng.dirichlet(np.full(k, 3.0)))
    noise = np.einsum("nij,nj->ni", shapes[labels], rng.standard_normal((n, d)))
    return centers[labels] + noise + 0.3 * overlap * rng.standard_normal((n, d))


def sets(folder: Path | None) -> Iterator[Set]:
    iris, wine = datasets.load_iris().data, datasets.load_wine().data
    digits = PCA(10, random_state=0).fit_transform(datasets.load_digits().data)
    yield Set("iris", iris, 3)
    yield Set("wine", (wine - wine.mean(0)) / wine.std(0), 3)
    yield Set("digits, 10 components", digits, 10)
    yield Set("planted, 2 features", planted(5000, 2, 15, 0.35, 1), 15)
    yield Set("planted, 8 features", planted(8000, 8, 10, 0.9, 0), 10)
    for path in sorted(folder.glob("*.npz")) if folder else ():
        content = np.load(path)
        yield Set(path.stem, content["X"].astype(float), len(np.unique(content["labels"])))


def start(rows: np.ndarray, k: int, kind: str, seed: int) -> dict[str, Any]:
    """Return weights, means and covariances of the hard clusters of k-means."""
    hard = c.fit(rows, c.KMeans(k), restarts=1, seed=seed, max_iterations=20)
    labels = np.asarray(hard.predict(rows))
    weights = np.bincount(labels, minlength=k) / len(rows)
    d = rows.shape[1]
    floor = 1e-6 * rows.var(axis=0).mean()
    each = np.array([np.cov(rows[labels == i].T, bias=True).reshape(d, d) + floor * np.eye(d) for i in range(k)])
    variances = np.diagonal(each, axis1=1, axis2=2)
    covariances = {
        "full": each, "tied": np.tensordot(weights, each, axes=1), "diagonal": variances,
        "spherical": variances.mean(axis=1),
    }[kind]  # fmt: skip
    centers = np.array([rows[labels == i].mean(axis=0) for i in range(k)])
    return {"centers": centers, "weights": weights, "covariances": covariances}


def count(rows: np.ndarray, model: c.GaussianMixture, init: dict[str, Any], accelerate: Any) -> Run:
    options: dict[str, Any] = {"init": init, "accelerate": accelerate, "max_iterations": PASSES}
    long = c.fit(rows, model, tolerance=1e-13, **options)
    stopped = c.fit(rows, model, **options)
    reached = long.history[:, 0]
    near = int(np.argmax(reached >= reached.max() - NEAR)) + 1
    return Run(near, stopped.iterations, float(reached.max()), float(stopped.objective))


class Pair(NamedTuple):
    """Plain and accelerated EM from one start."""

    name: str
    kind: str
    plain: Run
    fast: Run


def table(pairs: list[Pair]) -> str:
    lines = [
        f"Passes from the same starts to within {NEAR:g} nats per row of the best of each way, {PASSES} at most, and "
        "to the default tolerance; medians over starts. Differences are accelerated less plain, in nats per row; the "
        "largest of all starts.",
        "",
        "| set | covariance | EM | SQUAREM | ratio | difference | EM, default | SQUAREM, default | difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, kind in dict.fromkeys((pair.name, pair.kind) for pair in pairs):
        own = [pair for pair in pairs if (pair.name, pair.kind) == (name, kind)]
        best = max((fast.best - plain.best for _, _, plain, fast in own), key=abs)
        end = max((fast.end - plain.end for _, _, plain, fast in own), key=abs)
        ratio = statistics.median(fast.passes / plain.passes for _, _, plain, fast in own)
        passes, stopped = (
            " | ".join(f"{statistics.median(getattr(run, field) for run in runs):.0f}" for runs in (plain, fast))
            for plain, fast in [([pair.plain for pair in own], [pair.fast for pair in own])]
            for field in ("passes", "stopped")
        )
        lines.append(f"| {name} | {kind} | {passes} | {ratio:.2f} | {best:+.1e} | {stopped} | {end:+.1e} |")
    slow = [fast.passes / plain.passes for _, _, plain, fast in pairs if plain.passes >= SLOW]
    if slow:
        lines += [
            "",
            f"Where EM takes {SLOW} passes or more: median ratio {statistics.median(slow):.2f} (target: 0.5).",
        ]
    share = sum(pair.fast.stopped for pair in pairs) / sum(pair.plain.stopped for pair in pairs)
    better = sum(fast.end > plain.end + NEAR for _, _, plain, fast in pairs)
    worse = sum(fast.end < plain.end - NEAR for _, _, plain, fast in pairs)
    lines += [
        "",
        f"To the default tolerance, {len(pairs)} starts take {share:.2f} of the passes of plain EM; {better} end "
        f"higher than EM by more than {NEAR:g}, and {worse} lower.",
    ]
    return "\n".join(lines) + "\n"


def records(pairs: list[Pair]) -> list[Result]:
    """Compare the passes of accelerated and plain EM, where plain EM is slow."""
    slow = [pair for pair in pairs if pair.plain.passes >= SLOW]
    if not slow:
        return []
    plain, fast = (statistics.median(getattr(pair, way).passes for pair in slow) for way in ("plain", "fast"))
    case = f"median of {len(slow)} starts of {SLOW} plain passes or more"
    return [Result("passes of accelerated EM", case, fast, "passes", {"plain EM": plain}, "≤", 0.5)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--sets", nargs="*", help="names of sets; all by default")
    parser.add_argument("--folder", type=Path, help="folder with further sets")
    options = parser.parse_args()
    pairs = []
    for name, rows, k in sets(options.folder):
        if options.sets and name not in options.sets:
            continue
        for kind in options.kinds:
            for seed in range(options.starts):
                model, init = c.GaussianMixture(k, kind), start(rows, k, kind, seed)
                try:
                    pair = Pair(name, kind, count(rows, model, init, "none"), count(rows, model, init, "auto"))
                except DataError as error:
                    print(f"{name}, {kind}, start {seed}: {error}", flush=True)
                    continue
                pairs.append(pair)
                print(*pair, flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = table(pairs)
    (RESULTS / "squarem.md").write_text(text)
    facts = [{**pair._asdict(), "plain": pair.plain._asdict(), "fast": pair.fast._asdict()} for pair in pairs]
    save("squarem", records(pairs), runs=facts)
    print(text)


if __name__ == "__main__":
    main()
