from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.models import soft_kernels


def soften(squared: np.ndarray, rates: np.ndarray, constants: np.ndarray, weights: np.ndarray) -> Any:
    m = squared.shape[1]
    shares, density, labels, least = squared.copy(), np.empty(m), np.empty(m, np.int32), np.empty(m)
    totals = soft_kernels.softmax(shares, rates, constants, weights, shares, density, labels, least)
    return shares, density, labels, least, *totals


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 70), st.floats(-3, 4))
def test_shares_are_the_softmax_in_long_double(seed: int, k: int, m: int, exponent: float) -> None:
    rng = np.random.default_rng(seed)
    squared, weights = 10**exponent * rng.random((k, m)), rng.random(m)
    rates, constants = rng.random(k), rng.standard_normal(k)
    shares, density, labels, least, likelihood, energy = soften(squared, rates, constants, weights)
    logs = constants[:, None] - rates[:, None] * squared
    wide = logs.astype(np.longdouble)
    exponentials = np.exp(wide - wide.max(axis=0))
    expected = exponentials / exponentials.sum(axis=0)
    np.testing.assert_allclose(shares, (weights * expected).astype(float), rtol=2e-12, atol=1e-300)
    np.testing.assert_allclose(shares.sum(axis=0), weights, rtol=1e-15 * (k + 4))
    exact = (wide.max(axis=0) + np.log(exponentials.sum(axis=0))).astype(float)
    np.testing.assert_allclose(density, exact, rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(labels, logs.argmax(axis=0))
    np.testing.assert_array_equal(least, squared[labels, np.arange(m)])
    assert likelihood == pytest.approx(float(weights @ exact), rel=1e-12, abs=1e-12)
    assert energy == pytest.approx(float(np.sum(weights * expected * wide)), rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("away", [0.0, 1e-300, 700.0, 707.9, 708.1, 745.0, 1e5, 1e308, np.inf], ids="{:g}".format)
def test_no_share_is_nan_however_far_a_cluster_is(away: float) -> None:
    for near in (0.0, 1e5):
        squared = np.array([[near], [near + away]])
        shares, density, labels, _, likelihood, energy = soften(squared, np.ones(2), np.zeros(2), np.ones(1))
        ratio = np.exp(-away) if away <= 708 else 0.0
        np.testing.assert_allclose(shares[:, 0], [1 / (1 + ratio), ratio / (1 + ratio)], rtol=1e-13 * (1 + near))
        assert labels[0] == 0
        assert density[0] == likelihood == pytest.approx(np.log1p(ratio) - near, abs=1e-10)
        assert np.isfinite(energy)


def test_exponentials_are_right_to_the_last_bits() -> None:
    places = -np.concatenate([np.linspace(0, 50, 4001), np.linspace(50, 707, 4001), 10.0 ** np.arange(-18, 0)])
    squared = np.vstack([np.zeros_like(places), -places])
    shares = soften(squared, np.ones(2), np.zeros(2), np.ones(len(places)))[0]
    expected = np.exp(places.astype(np.longdouble))
    np.testing.assert_allclose(shares[1] / shares[0], expected.astype(float), rtol=1.5e-15)


def test_ties_go_to_the_first_cluster() -> None:
    shares, _, labels, *_ = soften(np.ones((3, 4)), np.ones(3), np.zeros(3), np.ones(4))
    assert labels.tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(shares, 1 / 3, rtol=1e-15)
