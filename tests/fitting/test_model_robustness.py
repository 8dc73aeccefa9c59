from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from brute import KINDS, blobs
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import clustering as c
from clustering.models.option_names import DIVERGENCES

# beta is 1 in some tests, at which all centers may become one, of which a user is warned.
pytestmark = pytest.mark.filterwarnings("ignore:beta is:clustering.ClusteringWarning")

seeds = st.integers(0, 2**32 - 1)


def model_named(name: str, k: int, regularization: float) -> Any:
    if name in KINDS:
        return c.GaussianMixture(k, name, regularization)  # type: ignore[arg-type]
    kind, divergence = name.split()
    if divergence == "directions":
        return c.VonMisesFisher(k, kind, regularization)  # type: ignore[arg-type]
    return (c.SoftKMeans if kind == "soft" else c.KMeans)(k, divergence=divergence)  # type: ignore[arg-type]


MIXTURES = (*KINDS, "hard directions", "soft directions")
NAMES = (*MIXTURES, *(f"{kind} {name}" for kind in ("hard", "soft") for name in DIVERGENCES))
every = pytest.mark.parametrize("name", NAMES)


def objective_history(fit: c.Fit) -> np.ndarray:
    """The objective after each assignment and each update, with the sign with which it falls."""
    history: np.ndarray = fit.history.ravel()
    return -history if fit.model.objective.rises else history


@every
@given(seed=seeds, n=st.integers(20, 120), d=st.integers(1, 4), k=st.integers(1, 4), weighted=st.booleans())
@settings(max_examples=8)
def test_no_objective_is_worse_than_the_one_before(
    name: str, seed: int, n: int, d: int, k: int, weighted: bool
) -> None:
    values = np.exp(blobs(seed, n, d, 3) / 4)
    weights = np.random.default_rng(seed).random(n) * 10.0 ** (seed % 9 - 4) if weighted else None
    model = model_named(name, k, 0.0)
    try:
        fit = c.fit(
            values, model, init="random", restarts=1, sample_rows=15, max_iterations=12, tolerance=0, weights=weights
        )
    except c.ClusteringError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        allowed = ("raise regularization", "fewer rows differ in direction", "directions of one feature")
        assert any(words in refused for words in allowed)
        return
    # A cluster that is placed anew may raise the objective.
    assume(not any("anew" in note or "seeded" in note for note in fit.fitted.notes))
    history = objective_history(fit)
    # Rounding of a free energy counts against the divergences that it is made of, and that of a distance by a nearly
    # singular covariance is as much larger as its condition.
    scale = np.abs(history).max() + (0.0 if name in MIXTURES else 1e-300)
    condition = np.linalg.cond(fit.fitted.params.covariances).max() if name in ("full", "tied") else 1.0
    assert (np.diff(history) <= 1e-11 * scale + np.finfo(float).eps * condition).all(), history
    assert fit.objective == pytest.approx(fit.score(values, weights=weights), rel=1e-9)


def degenerate(seed: int, n: int, d: int, shape: str, exponent: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.exp(rng.standard_normal((n, d)))
    match shape:
        case "duplicates":
            values = values[rng.integers(0, max(1, n // 4), n)]
        case "constant column":
            values[:, 0] = 3.0
        case "all equal":
            values[:] = values[0]
        case "one far row":
            values[0] *= 1e9
        case "dependent columns":
            values[:] = values[:, :1]
        case "whole numbers":
            values = np.ceil(values)
    return values * 10.0**exponent


SHAPES = ("plain", "duplicates", "constant column", "all equal", "one far row", "dependent columns", "whole numbers")


@pytest.mark.parametrize(
    ("name", "regularization"),
    [*((name, 0.0) for name in NAMES), *((name, 1e-6) for name in MIXTURES)],
    ids=lambda value: value if isinstance(value, str) else f"regularization-{value:g}",
)
@given(
    seed=seeds, n=st.integers(1, 30), d=st.integers(1, 4), k=st.integers(1, 5), shape=st.sampled_from(SHAPES),
    exponent=st.just(0) | st.integers(-165, 155), weighted=st.booleans(),
)  # fmt: skip
@settings(max_examples=15)
def test_numbers_are_finite_or_the_error_says_why(
    name: str, regularization: float, seed: int, n: int, d: int, k: int, shape: str, exponent: int, weighted: bool
) -> None:
    values = degenerate(seed, n, d, shape, exponent)
    weights = np.random.default_rng(seed).integers(0, 3, n) * 10.0 ** (seed % 13 - 6) if weighted else None
    try:
        fit = c.fit(values, model_named(name, k, regularization), weights=weights, restarts=2, max_iterations=15)
    except c.ClusteringError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert "; " in refused, "the remedy comes after the cause"
        return
    for field in ("centers", "weights", "covariances", "objective", "history"):
        assert getattr(fit, field) is None or np.isfinite(getattr(fit, field)).all(), field
    labels = fit.predict(values)
    assert ((labels >= 0) & (labels < k)).all()
    assert fit.weights.sum() == pytest.approx(1.0, rel=1e-12)
    assert np.isfinite(fit.score(values, weights=weights))


def test_a_component_that_collapses_onto_a_row_is_rescued_and_noted() -> None:
    values = np.vstack([blobs(0, 200, 2, 1), [[500.0, 500.0]]])
    init = {
        "centers": np.array([[0.0, 0.0], [500.0, 500.0]]), "weights": np.array([0.5, 0.5]),
        "covariances": np.repeat(np.eye(2)[None], 2, axis=0),
    }  # fmt: skip
    fit = c.fit(values, c.GaussianMixture(2, "full", regularization=0.0), init=init, max_iterations=3)
    assert fit.fitted.notes[0] == (
        "pass 1: component 1 collapsed; placed anew at the row farthest from its component, with the pooled covariance"
    )
    assert np.isfinite(fit.covariances).all()
    regularised = c.fit(values, c.GaussianMixture(2, "full"), init=init, max_iterations=3)
    assert regularised.fitted.notes[:-1] == ()


@pytest.mark.parametrize("name", ["squared_euclidean", "kullback_leibler", "itakura_saito"])
def test_a_free_energy_beyond_float64_is_an_error_that_says_what_to_do(name: Any) -> None:
    values = np.exp(blobs(0, 40, 2, 2) * 3)
    assert np.isfinite(c.fit(values, c.SoftKMeans(2, 1e290, name)).history).all()
    with pytest.raises(c.ClusteringError, match=r"beyond float64; lower beta, or rescale"):
        c.fit(1e10 * values, c.SoftKMeans(2, 1.7e308, name))


@every
def test_squares_beyond_float64_are_an_error_whatever_the_weights(name: str) -> None:
    values = np.array([[1e155, 2e155], [3e155, 2.5e155], [1.2e155, 7e154]])
    with pytest.raises(c.ClusteringError, match=r"their squares overflow float64; rescale the data"):
        c.fit(values, model_named(name, 1, 0.0), weights=np.full(3, 1e-6))


def test_features_of_any_scale_have_a_condition_number(rng: np.random.Generator) -> None:
    values = np.column_stack([rng.random(50) * 1e100, rng.random(50) * 1e-60])
    fit = c.fit(values, c.GaussianMixture(2, "diagonal", regularization=0.0), max_iterations=3)
    assert (fit.fitted.track["conditions"] == np.inf).all()


def test_labelled_directions_that_cancel_are_named() -> None:
    values = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [3.0, 1.0]])
    for model in (c.KMeans(2, "cosine"), c.SoftKMeans(2, 1.0, "cosine")):
        with pytest.raises(c.ClusteringError, match=r"rows of label 1 point everywhere"):
            c.fit(values, model, labels=np.array([0, 1, 1, 0]), init="labels")


@pytest.mark.parametrize("kind", ["spherical", "diagonal", "tied", "full"])
def test_data_without_a_covariance_are_an_error_that_says_what_to_do(kind: Any) -> None:
    values = np.repeat([[1.0, 2.0], [3.0, 7.0]], 20, axis=0)
    with pytest.raises(c.ClusteringError, match=r"singular.*another covariance.*raise regularization, which is 0"):
        c.fit(values, c.GaussianMixture(2, kind, regularization=0.0))
