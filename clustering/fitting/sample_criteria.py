"""Criteria of a sweep that are measured on the row sample, in memory: the gap statistic and the stability."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from clustering.execution.engine import Engine
from clustering.fitting.gap import Gap, gap_statistic
from clustering.fitting.initialization import SurveyedRows
from clustering.fitting.options import Options
from clustering.fitting.recommendation import has_enough_rows
from clustering.fitting.stability import stability
from clustering.fitting.sweep import MeasuredChoice

ON_SAMPLE = ("gap", "stability")
"""Criteria that need repeated fits on the row sample."""
CONTENDERS = 3
"""Best choices by BIC, and by ICL, whose stability is measured. Repeated fits of mixtures take long, and the likelihood
has ruled out the others."""


def sample_criteria(
    measured: Mapping[str, MeasuredChoice],
    surveyed: SurveyedRows,
    options: Mapping[str, Options],
    wanted: Collection[str],
    say: Callable[[str], None],
) -> tuple[dict[str, dict[str, float | None]], float | None]:
    """Measure gap statistic and stability of all choices.

    Parameters
    ----------
    measured
        Choices with a model, by name.
    surveyed
        Rows after pass 0, with the row sample.
    options
        How to fit each choice, by name.
    wanted
        Which of `ON_SAMPLE` are measured.
    say
        Called with a line about the progress.

    Returns
    -------
    dict
        Criteria by choice: ``gap``, ``gap_error``, ``stability_restarts``, ``stability_halves``.
    float or None
        Gap statistic of a single cluster; None where it was not measured.
    """
    engine = surveyed.runner.engine
    criteria: dict[str, dict[str, float | None]] = {name: {} for name in measured}
    one_cluster = None
    if "gap" in wanted:
        gaps, one_cluster = _gaps(measured, surveyed, options, engine)
        for name, gap in gaps.items():
            criteria[name] |= {"gap": gap.gap, "gap_error": gap.error}
        say("the gap statistic is measured on the row sample")
    if "stability" in wanted:
        for name in _contenders(measured):
            one = measured[name]
            survey = surveyed.prepared(one.choice.model.start_divergence)
            alike = stability(
                one.choice.model, one.candidate.params, survey, options[name], surveyed.preparation, engine
            )
            criteria[name] |= {"stability_restarts": alike.restarts, "stability_halves": alike.halves}
        say("the stability is measured on the row sample")
    return criteria, one_cluster


def _contenders(measured: Mapping[str, MeasuredChoice]) -> list[str]:
    """Name the choices whose stability is measured: all, or the likeliest mixtures that can be recommended."""
    names: set[str] = set()
    for criterion in ("bic", "icl"):
        scored = {
            name: value
            for name, one in measured.items()
            if (value := one.criteria.get(criterion)) is not None and has_enough_rows(one.criteria)
        }
        names.update(sorted(scored, key=scored.__getitem__)[:CONTENDERS])
    return [name for name in measured if not names or name in names]


def _gaps(
    measured: Mapping[str, MeasuredChoice], surveyed: SurveyedRows, options: Mapping[str, Options], engine: Engine
) -> tuple[dict[str, Gap], float | None]:
    """Compute the gap statistic of each divergence, which choices of one k share."""
    gaps: dict[str, Gap] = {}
    one_cluster = None
    for divergence in dict.fromkeys(one.choice.model.start_divergence for one in measured.values()):
        own = {name: one.choice.k for name, one in measured.items() if one.choice.model.start_divergence == divergence}
        ks = sorted({1, *own.values()})
        seed = options[next(iter(own))].fit.seed
        by_k = dict(zip(ks, gap_statistic(ks, surveyed.prepared(divergence), divergence, seed, engine), strict=True))
        gaps |= {name: by_k[k] for name, k in own.items()}
        one_cluster = by_k[1].gap if one_cluster is None else one_cluster
    return gaps, one_cluster
