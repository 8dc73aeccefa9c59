"""How often `select_k` recommends the number of clusters that data are known to have.

``python -m benchmarks.choosing_k FOLDER`` reads s1 … s4, a1, a2 and unbalance (Fränti & Sieranoja 2018,
doi:10.1007/s10489-018-1238-7) from npz files with ``X`` in a folder, Old Faithful (``faithful.csv`` of R's datasets)
from the same folder, adds iris and mixtures drawn here, stores every answer beside the bar for wrong ones, and prints
them as a table. Sets without files are left out. The rules were tuned on other seeds of the mixtures than those of the
table.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import clustering as c
from benchmarks.results import Result, load, save

Array = NDArray[np.float64]

FRANTI = {"s1": 15, "s2": 15, "s3": 15, "s4": 15, "a1": 20, "a2": 35, "unbalance": 8}
PLANTED = 20
WITHOUT_CLUSTERS = 3
"""Further sets of a single Gaussian, whose right answer is k = 1 or no clear answer."""
MODELS: dict[str, tuple[Any, list[str] | None]] = {
    "kmeans": (c.KMeans, None),
    # The likelihood has votes on mixtures, and the stability can refuse one. The gap statistic takes time for neither.
    "gaussian_mixture": (c.GaussianMixture, ["aic", "bic", "icl", "stability"]),
}
"""Models that are compared, and by which criteria; None for all."""
FIRST_SEED = 1000
"""Seed of the first drawn mixture. Seeds below it served for tuning."""
PART = "choosing_k"
WRONG, UNCLEAR = "WRONG", "no clear answer"
MOST_WRONG = 0.05
"""Largest share of sets that may get a wrong number of clusters."""
LEAST_ROWS = 60
"""Rows of a drawn component, at least."""


class KnownSet(NamedTuple):
    """Data with a known number of clusters."""

    name: str
    rows: Array
    k: int
    ks: range
    """Numbers of clusters to compare."""


def planted(seed: int, k: int | None = None) -> KnownSet:
    """Draw a mixture of Gaussians of unequal sizes, volumes and shapes, which may overlap.

    Parameters
    ----------
    seed
        Seed of all draws.
    k
        Number of components; drawn from 2 … 12 where None.
    """
    generator = np.random.default_rng(seed)
    k = int(generator.integers(2, 13)) if k is None else k
    d = round(2 ** generator.uniform(1, 4))
    n = int(generator.integers(1500, 5000))
    shares = generator.dirichlet(np.full(k, 4.0))
    counts = np.maximum(LEAST_ROWS, np.round(shares * n).astype(int))
    factors = [_factor(generator, d) for _ in range(k)]
    # Half the distance of two centers, in deviations along the line between them: at 1.5 about 7 % of the rows overlap.
    apart, scale = generator.uniform(1.5, 3.0), 1.0
    directions = generator.normal(size=(k, d))
    while k > 1 and _separation(directions * scale, factors) < apart:
        scale *= 1.05
        if generator.uniform() < 0.2:
            directions = generator.normal(size=(k, d))
    parts = [generator.normal(size=(m, d)) @ factor.T + center
             for m, factor, center in zip(counts, factors, directions * scale, strict=True)]  # fmt: skip
    rows = np.concatenate(parts)[generator.permutation(int(counts.sum()))]
    return KnownSet(f"planted {seed} (d {d}, overlap {apart:.2f})", rows, k, range(2, 21))


def _factor(generator: np.random.Generator, d: int) -> Array:
    """Draw the factor of a covariance: axes of lengths that differ up to threefold, in a random direction."""
    axes = np.exp(generator.uniform(-0.55, 0.55, d)) * np.exp(0.35 * generator.normal())
    return np.linalg.qr(generator.normal(size=(d, d)))[0] * axes


def _separation(centers: Array, factors: list[Array]) -> float:
    """Return the least distance of two centers over the sum of the deviations along the line between them."""
    least = np.inf
    for i in range(len(centers)):
        for j in range(i):
            line = centers[i] - centers[j]
            length = float(np.linalg.norm(line))
            spread = sum(float(np.linalg.norm(factors[m].T @ line)) / length for m in (i, j))
            least = min(least, length / spread)
    return least


def known_sets(folder: Path | None, first_seed: int) -> Iterator[KnownSet]:
    """Yield all sets of the benchmark.

    Parameters
    ----------
    folder
        Folder of the npz files; None where there is none.
    first_seed
        Seed of the first drawn mixture.
    """
    for name, k in FRANTI.items():
        file = None if folder is None else folder / f"{name}.npz"
        if file is not None and file.is_file():
            yield KnownSet(name, np.load(file)["X"], k, range(2, max(21, 3 * k // 2 + 1)))
    from sklearn.datasets import load_iris  # type: ignore[import-untyped]

    yield KnownSet("iris", load_iris().data, 3, range(2, 21))
    file = None if folder is None else folder / "faithful.csv"
    if file is not None and file.is_file():
        yield KnownSet("faithful", np.loadtxt(file, delimiter=",", skiprows=1, usecols=(-2, -1)), 2, range(2, 21))
    for i in range(PLANTED):
        yield planted(first_seed + i)
    for i in range(WITHOUT_CLUSTERS):
        yield planted(first_seed + PLANTED + i, k=1)


class Answer(NamedTuple):
    """The answer for one set."""

    name: str
    k: int
    recommended: int | None
    votes: dict[str, int | None]
    reason: str
    seconds: float

    @property
    def verdict(self) -> str:
        """Whether the answer is right, wrong, or that there is no clear one."""
        if self.recommended is None:
            return UNCLEAR
        return "right" if self.recommended == self.k else WRONG


def ask(known: KnownSet, kind: str) -> Answer:
    """Choose the number of clusters of one set.

    Parameters
    ----------
    known
        The set.
    kind
        Kind of model.
    """
    model, criteria = MODELS[kind]
    began = time.thread_time()
    selection = c.select_k(known.rows, model, k=known.ks, criteria=criteria)
    k = None if selection.recommended is None else selection.recommended["k"]
    return Answer(known.name, known.k, k, dict(selection.votes), selection.reason, time.thread_time() - began)


def results(kind: str, answers: Sequence[Answer]) -> list[Result]:
    """Count the answers of a kind of model: wrong ones and unclear ones, against the shares that are allowed.

    Parameters
    ----------
    kind
        Kind of model.
    answers
        Answers for all sets.
    """
    case = f"{kind}, {len(answers)} sets"
    wrong = sum(one.verdict == WRONG for one in answers)
    unclear = sum(one.verdict == UNCLEAR and one.k > 1 for one in answers)
    allowed = {f"{MOST_WRONG:.0%} of the sets": MOST_WRONG * len(answers)}
    return [
        Result("confidently wrong number of clusters", case, wrong, "sets", allowed, "≤", 1.0),
        Result("no clear answer, where there are clusters", case, unclear, "sets", {"sets": len(answers)}, "≤"),
    ]


def table(answers: Mapping[str, Sequence[Answer]]) -> str:
    """Write the answers of all kinds as Markdown, a row for each set.

    Parameters
    ----------
    answers
        Answers by kind of model.
    """
    kinds = list(answers)
    by_name = {kind: {one.name: one for one in answers[kind]} for kind in kinds}
    ks = {one.name: one.k for one_kind in answers.values() for one in one_kind}
    lines = [f"| data | clusters | {' | '.join(f'`{kind}`' for kind in kinds)} |", "|---|---|" + "---|" * len(kinds)]
    for name, k in ks.items():
        cells = (by_name[kind].get(name) for kind in kinds)
        lines.append(f"| {name} | {k} | {' | '.join('' if one is None else _told(one) for one in cells)} |")
    return "\n".join(lines)


def _told(answer: Answer) -> str:
    return answer.verdict if answer.recommended is None else f"{answer.recommended}, {answer.verdict}"


def main() -> None:
    """Ask for all sets, store the answers, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="folder of the npz files and of faithful.csv")
    parser.add_argument("--kind", choices=[*MODELS], default=[*MODELS], nargs="+")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    options = parser.parse_args()
    # A run of one kind keeps the stored answers of the others.
    answers = stored_answers()
    for kind in options.kind:
        answers[kind] = []
        for known in known_sets(options.folder, options.first_seed):
            one = ask(known, kind)
            answers[kind].append(one)
            print(f"{kind}: {one.name}, k {one.k}: {_told(one)}. {one.reason}", file=sys.stderr, flush=True)
    store(answers)
    print(table(answers))


def stored_answers() -> dict[str, list[Answer]]:
    """Read the answers of earlier runs, by kind of model."""
    answers = load().get(PART, {}).get("answers", {})
    return {kind: [Answer(**one) for one in answers[kind]] for kind in MODELS if kind in answers}


def store(answers: Mapping[str, Sequence[Answer]]) -> None:
    """Store the counts beside their bar, and every answer.

    Parameters
    ----------
    answers
        Answers by kind of model.
    """
    lines = [result for kind in answers for result in results(kind, answers[kind])]
    save(PART, lines, answers={kind: [one._asdict() for one in answers[kind]] for kind in answers})


if __name__ == "__main__":
    main()
