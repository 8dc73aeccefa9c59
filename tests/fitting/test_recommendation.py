from __future__ import annotations

from typing import Any, get_args

import pytest

from clustering.fitting.recommendation import Recommendation, recommend
from clustering.options import Criterion

ALL = get_args(Criterion)


def shapes(peak: int, ks: range = range(2, 9), **changed: dict[int, float]) -> list[dict[str, Any]]:
    """Rows of k-means whose criteria all prefer one k; `changed` holds other values of a criterion by k."""
    rows = []
    for k in ks:
        near = 1.0 - 0.1 * abs(k - peak)
        row = {
            "k": k, "failed": None, "within": 100.0 / k, "calinski_harabasz": 100 * near,
            "davies_bouldin": 1.0 - near / 2, "silhouette": near, "simplified_silhouette": near,
            "gap": 0.3 * min(k, peak), "gap_error": 0.01, "stability_restarts": near, "stability_halves": near,
        }  # fmt: skip
        rows.append(row | {name: values[k] for name, values in changed.items() if k in values})
    return rows


def mixtures(bic: dict[int, float], icl: dict[int, float] | None = None, **also: Any) -> list[dict[str, Any]]:
    icl = bic if icl is None else icl
    return [{"k": k, "failed": None, "aic": bic[k], "bic": bic[k], "icl": icl[k], **also} for k in bic]


def test_criteria_that_agree_recommend_their_k() -> None:
    answer = recommend(shapes(4), [], ALL, one_cluster=0.3)
    assert answer.recommended == {"k": 4}
    assert answer.reason.startswith("k = 4: ")
    assert "the gap statistic" in answer.reason
    assert {votes for name, votes in answer.votes.items() if name != "elbow"} == {4}


def test_a_few_other_votes_are_named_and_change_nothing() -> None:
    answer = recommend(shapes(4, davies_bouldin={3: 0.0}, silhouette={3: 2.0}), [], ALL, one_cluster=0.3)
    assert answer.recommended == {"k": 4}
    assert "(Davies–Bouldin and the silhouette prefer 3)" in answer.reason


def test_there_is_no_clear_answer_where_the_gap_statistic_disagrees() -> None:
    gaps = {k: 0.3 * min(k, 6) for k in range(2, 9)}
    answer = recommend(shapes(4, gap=gaps), [], ALL, one_cluster=0.3)
    assert answer.recommended is None
    assert answer.reason.startswith("No clear answer: the criteria disagree: the gap statistic prefers 6; ")


def test_the_gap_statistic_prefers_no_k_whose_gap_is_below_that_of_a_smaller_one() -> None:
    gaps = {2: 0.3, 3: 0.6, 4: 0.9, 5: 0.5, 6: 0.8, 7: 0.75, 8: 0.7}
    answer = recommend(shapes(4, gap=gaps), [], ALL, one_cluster=0.0)
    assert (answer.recommended, answer.votes["gap"]) == ({"k": 4}, 4)


def test_the_gap_statistic_may_rise_again_above_all_smaller_k() -> None:
    gaps = {2: 0.3, 3: 0.6, 4: 0.5, 5: 0.4, 6: 0.9, 7: 0.85, 8: 0.8}
    answer = recommend(shapes(6, gap=gaps), [], ALL, one_cluster=0.0)
    assert (answer.recommended, answer.votes["gap"]) == ({"k": 6}, 6)


SEPARATION = ("calinski_harabasz", "davies_bouldin", "silhouette", "simplified_silhouette")


def test_the_gap_statistic_and_the_stability_are_enough_together() -> None:
    fewer = {row["k"]: row for row in shapes(3)}
    changed = {name: {k: row[name] for k, row in fewer.items()} for name in SEPARATION}
    answer = recommend(shapes(4, **changed), [], ALL, one_cluster=0.0)
    assert answer.recommended == {"k": 4}
    assert answer.reason.startswith("k = 4: the gap statistic and the stability prefer it (Calinski–Harabasz, Davies")
    # Alone, the gap statistic is not.
    changed["stability_halves"] = {k: row["stability_halves"] for k, row in fewer.items()}
    assert recommend(shapes(4, **changed), [], ALL, one_cluster=0.0).recommended is None


def test_one_cluster_may_be_as_good() -> None:
    gaps = {k: 0.3 - 0.01 * k for k in range(2, 9)}
    answer = recommend(shapes(2, gap=gaps), [], ALL, one_cluster=0.3)
    assert answer.recommended is None
    assert "the rows have no clusters" in answer.reason


def test_a_choice_must_be_stable() -> None:
    answer = recommend(shapes(4, stability_halves={k: 0.6 - 0.01 * abs(k - 4) for k in range(2, 9)}), [], ALL, 0.3)
    assert answer.recommended is None
    assert "fits to halves of the rows disagree (adjusted Rand index 0.60" in answer.reason


@pytest.mark.parametrize(("peak", "word"), [(8, "compare larger ones"), (4, "compare smaller ones")])
def test_an_end_of_the_range_is_no_clear_answer(peak: int, word: str) -> None:
    answer = recommend(shapes(peak, range(4, 9)), [], ALL, one_cluster=0.0)
    assert answer.recommended is None
    assert word in answer.reason


def test_two_clusters_are_compared_with_one_by_the_gap_statistic() -> None:
    assert recommend(shapes(2), [], ALL, one_cluster=0.0).recommended == {"k": 2}


def test_criteria_that_are_left_out_have_no_vote() -> None:
    rows = shapes(4, silhouette={6: 5.0})
    assert recommend(rows, [], ["silhouette"]).recommended == {"k": 6}
    assert set(recommend(rows, [], ["silhouette", "davies_bouldin"]).votes) == {"silhouette", "davies_bouldin"}
    assert recommend(rows, [], ["elbow"]).recommended is None


def test_failed_choices_have_no_vote() -> None:
    rows = [*shapes(4), {"k": 9, "failed": "k is 9"}]
    assert recommend(rows, [], ALL, one_cluster=0.3).recommended == {"k": 4}


def test_options_that_agree_on_k_are_chosen_between_by_stability() -> None:
    one, other = shapes(4), shapes(4, stability_halves={4: 1.001})
    rows = [row | {"divergence": "cosine"} for row in one] + [row | {"divergence": "mahalanobis"} for row in other]
    answer = recommend(rows, ["divergence"], ALL, one_cluster=0.3)
    assert answer.recommended == {"k": 4, "divergence": "mahalanobis"}


def test_options_that_disagree_on_k_give_no_clear_answer() -> None:
    rows = [row | {"beta": 1.0} for row in shapes(3)] + [row | {"beta": 2.0} for row in shapes(5)]
    answer = recommend(rows, ["beta"], ALL, one_cluster=0.3)
    assert answer.recommended is None
    assert "k depends on beta: 3 for 1.0, 5 for 2.0" in answer.reason


def likely(bic: dict[int, float], icl: dict[int, float] | None = None, one: float = 1000.0) -> Recommendation:
    return recommend(mixtures(bic, icl), [], ALL, references=mixtures({1: one}))


def test_mixtures_are_recommended_by_bic_and_icl() -> None:
    answer = likely({2: 300.0, 3: 100.0, 4: 120.0})
    assert answer.recommended == {"k": 3}
    assert answer.votes == {"aic": 3, "bic": 3, "icl": 3}


@pytest.mark.parametrize(
    ("bic", "icl", "one", "doubt"),
    [
        ({2: 300.0, 3: 100.0, 4: 104.0}, None, 1000.0, "BIC prefers k = 3 to k = 4 by 4 only"),
        ({2: 300.0, 3: 100.0, 4: 120.0}, {2: 200.0, 3: 250.0, 4: 300.0}, 1000.0, "ICL prefers k = 2 by 50 less"),
        ({2: 300.0, 3: 200.0, 4: 100.0}, None, 1000.0, "k = 4 is the largest that was compared"),
        ({2: 100.0, 3: 120.0, 4: 140.0}, None, 50.0, "BIC prefers k = 1 by 50 less"),
    ],
)
def test_mixtures_without_a_clear_answer(
    bic: dict[int, float], icl: dict[int, float] | None, one: float, doubt: str
) -> None:
    answer = likely(bic, icl, one)
    assert answer.recommended is None
    assert answer.reason.startswith("No clear answer: BIC is least for k = ")
    assert doubt in answer.reason


def test_the_two_smallest_k_of_a_mixture_may_be_recommended_where_one_component_is_worse() -> None:
    assert likely({2: 100.0, 3: 140.0, 4: 180.0}).recommended == {"k": 2}


def test_covariances_compete_by_the_same_criteria() -> None:
    rows = mixtures({2: 300.0, 3: 150.0, 4: 170.0}, covariance="full")
    rows += mixtures({2: 400.0, 3: 100.0, 4: 130.0}, covariance="tied")
    assert recommend(rows, ["covariance"], ALL).recommended == {"k": 3, "covariance": "tied"}


def test_a_mixture_must_be_stable() -> None:
    answer = recommend(mixtures({2: 300.0, 3: 100.0, 4: 120.0}, stability_halves=0.5), [], ALL)
    assert answer.recommended is None
    assert "fits to halves of the rows disagree (adjusted Rand index 0.50, below 0.8)" in answer.reason


def test_a_mixture_must_be_preferred_where_components_count_against_their_own_rows() -> None:
    rows = mixtures({2: 300.0, 3: 100.0, 4: 120.0})
    for row in rows:
        row["bic_by_component"] = {2: 290.0, 3: 60.0, 4: 59.0}[row["k"]]
    answer = recommend(rows, [], ALL)
    assert answer.recommended is None
    assert "but BIC prefers k = 4 where the parameters of a component count against its own rows only" in answer.reason
    rows[2]["bic_by_component"] = 61.0
    assert recommend(rows, [], ALL).recommended == {"k": 3}


def sparse(bic: dict[int, float], numbers: dict[int, float]) -> Recommendation:
    """The answer for mixtures of which some have few numbers for each parameter of the smallest component."""
    rows = [row | {"numbers_per_parameter": numbers.get(row["k"], 50.0)} for row in mixtures(bic)]
    return recommend(rows, [], ALL, references=mixtures({1: 1000.0}))


def test_a_component_of_too_few_rows_takes_its_choice_out_of_the_running() -> None:
    answer = sparse({2: 300.0, 3: 100.0, 4: 120.0, 5: 50.0, 6: 60.0, 7: 200.0}, {5: 0.8, 6: 3.9, 7: 0.3})
    assert answer.recommended == {"k": 3}
    assert answer.votes == {"aic": 3, "bic": 3, "icl": 3}
    # The choice of 7 would not be preferred, so nothing is said of it.
    assert answer.reason == (
        "k = 3: BIC and ICL prefer it to every other k by 10 or more, which is very strong. Out of the running: 2 "
        "choices, such as k = 5, have a component of too few rows (0.8 numbers for each of its parameters, and 4 are "
        "needed)."
    )


def test_a_choice_that_is_out_of_the_running_is_no_rival() -> None:
    assert sparse({2: 300.0, 3: 100.0, 4: 150.0, 5: 101.0}, {5: 0.8}).recommended == {"k": 3}


def test_the_last_k_with_enough_rows_is_no_clear_answer_where_larger_ones_are_preferred() -> None:
    answer = sparse({2: 300.0, 3: 200.0, 4: 100.0, 5: 50.0, 6: 20.0}, {5: 0.8, 6: 0.5})
    assert answer.recommended is None
    assert "but no larger k that was compared has enough rows in each component. Out of the running: " in answer.reason
    # Their likelihood is too high if anything, so the choice is clear where even that does not make them preferred.
    assert sparse({2: 300.0, 3: 200.0, 4: 100.0, 5: 150.0, 6: 120.0}, {5: 0.8, 6: 0.5}).recommended == {"k": 4}


def test_there_is_no_clear_answer_where_no_choice_has_enough_rows() -> None:
    answer = sparse({2: 300.0, 3: 200.0}, {2: 1.5, 3: 0.8})
    assert answer.recommended is None
    assert answer.reason.startswith("No clear answer: 2 choices, such as k = 2, have a component of too few rows (1.5 ")
