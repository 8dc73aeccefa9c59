"""The recommendation of a sweep: one choice where the criteria that can be trusted agree, and otherwise none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clustering.fitting.criteria import elbow

Row = Mapping[str, Any]

STABLE, STABLE_MIXTURE = 0.9, 0.8
"""Least stability of a recommended choice: the mean adjusted Rand index of fits to halves. Components of a mixture may
overlap, and labels of rows between them differ."""
AGREE = 0.5
"""Share of the votes that a recommended k must exceed."""
STRONG = 10.0
"""A difference of BIC or ICL that counts as very strong (Kass & Raftery 1995, doi:10.1080/01621459.1995.10476572)."""
ERRORS, RISE = 3.0, 0.2
"""Errors of the gap statistic, and share of its largest rise, by which a further cluster must raise it."""
LEAST_NUMBERS = 4.0
"""Numbers for each parameter that the smallest component of a recommended mixture must have.

A Gaussian fits the n rows that it is made from better than n others: −2 log L is lower by
n d (n + 1) / (n − d − 2) − n d on average, as the inverse of its covariance has the mean n Σ⁻¹ / (n − d − 2). Below
about three numbers for each parameter this exceeds what BIC subtracts for a component, at any d, and a few rows that
lie close together by chance would make one. The fourth number is a margin, as these rows are the luckiest of many.
"""
SAME = 0.002
"""Stabilities that differ by no more than this count as equal."""

NAMES = {
    "elbow": "the elbow of the cost", "calinski_harabasz": "Calinski–Harabasz", "davies_bouldin": "Davies–Bouldin",
    "silhouette": "the silhouette", "simplified_silhouette": "the simplified silhouette",
    "gap": "the gap statistic", "stability": "the stability", "aic": "AIC", "bic": "BIC", "icl": "ICL",
}  # fmt: skip
GEOMETRY = ("calinski_harabasz", "davies_bouldin", "silhouette", "simplified_silhouette", "gap", "stability")
"""Criteria that have a vote on clusters without a likelihood. The elbow has none, as every curve has one."""


@dataclass(frozen=True)
class Recommendation:
    """One choice, or none, with the reason in words."""

    recommended: Mapping[str, Any] | None
    """What varies in the choice, by name: k and perhaps more; None where there is no clear answer."""
    reason: str
    votes: Mapping[str, int | None] = field(default_factory=dict)
    """The k that each criterion prefers; None where it prefers none."""


def recommend(
    rows: Sequence[Row],
    varied: Sequence[str],
    criteria: Collection[str],
    one_cluster: float | None = None,
    references: Sequence[Row] = (),
) -> Recommendation:
    """Recommend a choice, or say that there is no clear answer.

    Mixtures are compared by their likelihood: BIC and ICL have to prefer the same k to every other k, by a difference
    that counts as very strong, and fits to halves have to agree. BIC has to prefer it too where the parameters of a
    component count against its own rows only, which asks less of a further component. Choices with a component of too
    few rows do not compete, as their likelihood may come from chance. Other models are compared by the shape of their
    clusters: more than half of the criteria have to prefer one k, or the gap statistic and the stability together, and
    fits to halves of the rows have to agree. The gap statistic has to be among them. A k at an end of the range is no
    clear answer, as the best may lie beyond it.

    Parameters
    ----------
    rows
        Table of a sweep. A choice that failed has its reason under ``failed``.
    varied
        Names of the options besides k that the sweep varies.
    criteria
        Names of the criteria that count.
    one_cluster
        Gap statistic of a single cluster; None where it was not measured.
    references
        Rows of mixtures of one component, which any recommended one must beat.
    """
    made = [row for row in rows if not row["failed"]]
    families: dict[tuple[Any, ...], list[Row]] = {}
    for row in made:
        families.setdefault(tuple(row[name] for name in varied), []).append(row)
    if any(name in criteria and row.get(name) is not None for name in ("bic", "icl") for row in made):
        return _by_likelihood(made, varied, criteria, references)
    answers = {family: _by_shape(own, criteria, one_cluster) for family, own in families.items()}
    if len(answers) == 1:
        return next(iter(answers.values()))
    return _of_families(answers, families, varied)


def has_enough_rows(row: Row) -> bool:
    """Say whether the smallest component of a mixture has enough rows for its likelihood to be trusted.

    The likelihood has no upper limit where a component shrinks onto a few rows (McLachlan & Peel 2000, Finite Mixture
    Models, section 3.10, doi:10.1002/0471721182).

    Parameters
    ----------
    row
        Criteria of a choice.
    """
    numbers = row.get("numbers_per_parameter")
    return numbers is None or bool(numbers >= LEAST_NUMBERS)


def _by_likelihood(
    rows: Sequence[Row], varied: Sequence[str], criteria: Collection[str], references: Sequence[Row]
) -> Recommendation:
    names = [name for name in ("bic", "icl") if name in criteria]
    running = [row for row in rows if has_enough_rows(row)]
    if not running:
        return Recommendation(None, f"No clear answer: {_too_small(rows)}.")
    votes: dict[str, int | None] = {
        name: int(min(running, key=lambda row: row[name])["k"]) for name in ("aic", "bic", "icl") if name in criteria
    }
    first = min(running, key=lambda row: row[names[0]])
    chosen = {"k": first["k"], **{name: first[name] for name in varied}}
    doubts = _ends(first["k"], [row["k"] for row in rows], alone=not references)
    # A choice that is out of the running and not preferred all the same needs no word.
    out = [row for row in rows if not has_enough_rows(row) and row[names[0]] < first[names[0]]]
    aside = f". Out of the running: {_too_small(out)}" if out else ""
    if out and first["k"] == max(row["k"] for row in running):
        doubts.append("no larger k that was compared has enough rows in each component")
    for name in names:
        others = [row for row in (*running, *references) if row["k"] != first["k"]]
        rival = min(others, key=lambda row: row[name], default=None)
        if rival is not None and rival[name] - first[name] < STRONG:
            margin = rival[name] - first[name]
            text = (
                f"by {margin:.3g} only, and {STRONG:g} would be very strong" if margin > 0 else f"by {-margin:.3g} less"
            )
            prefers = f"prefers k = {first['k']} to k = {rival['k']}" if margin > 0 else f"prefers k = {rival['k']}"
            doubts.append(f"{NAMES[name]} {prefers} {text}")
    if all(row.get("bic_by_component") is not None for row in running) and "bic" in criteria:
        k = int(min(running, key=lambda row: row["bic_by_component"])["k"])
        if k != first["k"]:
            doubts.append(f"BIC prefers k = {k} where the parameters of a component count against its own rows only")
    best = f"{NAMES[names[0]]} is least for {_in_words(chosen)}"
    alike = first.get("stability_halves") if "stability" in criteria else None
    if alike is not None and alike < STABLE_MIXTURE:
        doubts.append(
            f"fits to halves of the rows disagree (adjusted Rand index {alike:.2f}, below {STABLE_MIXTURE:g})"
        )
    if doubts:
        return Recommendation(None, f"No clear answer: {best}, but {'; '.join(doubts)}{aside}.", votes)
    both = " and ".join(NAMES[name] for name in names)
    agree = "prefers" if len(names) == 1 else "prefer"
    return Recommendation(
        chosen,
        f"{_in_words(chosen)}: {both} {agree} it to every other k by {STRONG:g} or more, which is very strong{aside}.",
        votes,
    )  # fmt: skip


def _too_small(rows: Sequence[Row]) -> str:
    """Say that choices have a component of too few rows."""
    first = min(rows, key=lambda row: row["k"])
    which = f"k = {first['k']} has" if len(rows) == 1 else f"{len(rows)} choices, such as k = {first['k']}, have"
    return (
        f"{which} a component of too few rows ({first['numbers_per_parameter']:.2g} numbers for each of its "
        f"parameters, and {LEAST_NUMBERS:g} are needed)"
    )


def _by_shape(rows: Sequence[Row], criteria: Collection[str], one_cluster: float | None) -> Recommendation:
    votes = _votes(rows, criteria, one_cluster)
    counted = {name: k for name, k in votes.items() if name in GEOMETRY and k is not None}
    if not counted:
        return Recommendation(None, "No clear answer: no criterion that has a vote was measured.", votes)
    ks = [row["k"] for row in rows]
    if votes.get("gap") == 1:
        reason = "No clear answer: by the gap statistic, the rows have no clusters; one cluster is as good."
        return Recommendation(None, reason, votes)
    # The gap statistic decides, where it was measured, because the others also prefer some k where there is none.
    k = votes["gap"] if votes.get("gap") is not None else Counter(counted.values()).most_common(1)[0][0]
    assert k is not None
    those = [NAMES[name] for name, vote in counted.items() if vote == k]
    rivals: dict[int, list[str]] = {}
    for name, vote in counted.items():
        if vote != k:
            rivals.setdefault(vote, []).append(NAMES[name])
    others = [f"{_joined(names)} {_verb(names)} {vote}" for vote, names in sorted(rivals.items())]
    doubts = _ends(k, ks, alone=one_cluster is None)
    # One compares clusters with chance, and one with other rows. The other four all measure how far clusters lie apart,
    # and prefer fewer where some lie close together.
    trusted = all(votes.get(name) == k for name in ("gap", "stability"))
    if len(those) <= AGREE * len(counted) and not trusted:
        doubts.append(f"the criteria disagree: {_joined(those)} {_verb(those)} {k}; {'; '.join(others)}")
    halves = next(row for row in rows if row["k"] == k).get("stability_halves")
    alike = halves if "stability" in criteria else None
    if alike is not None and alike < STABLE:
        doubts.append(f"fits to halves of the rows disagree (adjusted Rand index {alike:.2f}, below {STABLE:g})")
    if doubts:
        return Recommendation(None, f"No clear answer: {'; '.join(doubts)}.", votes)
    same = "" if alike is None else f"; fits to halves of the rows agree (adjusted Rand index {alike:.2f})"
    against = f" ({'; '.join(others)})" if others else ""
    return Recommendation({"k": k}, f"k = {k}: {_joined(those)} {_verb(those)} it{against}{same}.", votes)


def _votes(rows: Sequence[Row], criteria: Collection[str], one_cluster: float | None) -> dict[str, int | None]:
    """Return the k that each criterion prefers."""
    ks = np.array([row["k"] for row in rows])
    votes: dict[str, int | None] = {}
    if "elbow" in criteria:
        votes["elbow"] = elbow(ks.astype(float), np.array([row["within"] for row in rows]))[0]
    for name, sign in (
        ("calinski_harabasz", 1),
        ("davies_bouldin", -1),
        ("silhouette", 1),
        ("simplified_silhouette", 1),
    ):
        if name in criteria:
            votes[name] = _peak(ks, _numbers(rows, name) * sign)
    if "gap" in criteria and one_cluster is not None:
        votes["gap"] = _last_rise(ks, one_cluster, _numbers(rows, "gap"), _numbers(rows, "gap_error"))
    if "stability" in criteria:
        votes["stability"] = _last_stable(ks, _numbers(rows, "stability_halves"))
    return votes


def _numbers(rows: Sequence[Row], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([math.nan if row.get(name) is None else row[name] for row in rows], np.float64)


def _peak(ks: Any, values: Any) -> int | None:
    return None if np.isnan(values).all() else int(ks[np.nanargmax(values)])


def _last_rise(ks: Any, one_cluster: float, gaps: Any, errors: Any) -> int | None:
    """Return the last k that raises the gap clearly: by some errors, and by a share of the largest rise; 1 if none.

    The rule of Tibshirani et al. takes the first k that the next does not improve on. Clusters of clusters make it stop
    too early. A k whose gap is below that of a smaller one splits clusters, however much it is above the k before it.
    """
    if np.isnan(gaps).any():
        return None
    before = np.concatenate([[one_cluster], gaps[:-1]])
    rises = gaps - before
    clear = (rises > ERRORS * errors) & (rises >= RISE * rises.max()) & (gaps > np.maximum.accumulate(before))
    return int(ks[clear][-1]) if clear.any() else 1


def _last_stable(ks: Any, values: Any) -> int | None:
    """Return the largest k that is as stable as any."""
    if np.isnan(values).all():
        return None
    return int(ks[values >= np.nanmax(values) - SAME][-1])


def _ends(k: int, ks: Sequence[int], *, alone: bool) -> list[str]:
    """Say that a k is at an end of the range, so that the best may lie beyond it."""
    if k == max(ks):
        return [f"k = {k} is the largest that was compared; compare larger ones"]
    if k == min(ks) and k > (1 if alone else 2):
        return [f"k = {k} is the smallest that was compared; compare smaller ones"]
    return []


def _of_families(
    answers: Mapping[tuple[Any, ...], Recommendation],
    families: Mapping[tuple[Any, ...], Sequence[Row]],
    varied: Sequence[str],
) -> Recommendation:
    """Recommend a k that all combinations of the other options agree on, with the most stable of them."""
    clear = {family: answer for family, answer in answers.items() if answer.recommended is not None}
    votes = next(iter(clear.values() or answers.values())).votes
    named = {family: ", ".join(map(str, family)) for family in answers}
    if not clear:
        first = next(iter(answers))
        reason = f"No clear answer for any {' and '.join(varied)}; for {named[first]}: {answers[first].reason}"
        return Recommendation(None, reason, votes)
    ks = {family: int((answer.recommended or {})["k"]) for family, answer in clear.items()}
    if len(set(ks.values())) > 1:
        each = ", ".join(f"{k} for {named[family]}" for family, k in ks.items())
        return Recommendation(None, f"No clear answer: k depends on {' and '.join(varied)}: {each}.", votes)

    def stability_of(family: tuple[Any, ...]) -> float:
        row = next(row for row in families[family] if row["k"] == ks[family])
        return float(row.get("stability_halves") or 0.0)

    best = max(clear, key=stability_of)
    chosen = {"k": ks[best], **dict(zip(varied, best, strict=True))}
    return Recommendation(chosen, f"{_in_words(chosen)}: {clear[best].reason}", clear[best].votes)


def _in_words(choice: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in choice.items())


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _verb(names: Sequence[str]) -> str:
    return "prefers" if len(names) == 1 else "prefer"
