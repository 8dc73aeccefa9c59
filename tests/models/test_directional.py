from __future__ import annotations

from functools import cache
from typing import NamedTuple

import mpmath as mp
import numpy as np
import pytest
from scipy import integrate, stats

from clustering.models import directional as vmf
from clustering.models.directional import MeanResultant

EPS = float(np.finfo(float).eps)
DIMENSIONS = (2, 3, 4, 5, 10, 50, 65, 66, 128, 768, 4096, 10_000)
# The values include both sides of max(32, d / 2), where the log density changes its form.
KAPPAS = np.array(sorted([10.0**e for e in range(-12, 13) if e != 5] + [0.3, 3.7, 17.3, 31.99, 32.01, 250.0, 5005.0]))
dimensions = pytest.mark.parametrize("d", DIMENSIONS, ids="d-{}".format)


class Reference(NamedTuple):
    cumulant: list[mp.mpf]
    length: list[mp.mpf]
    complement: list[mp.mpf]


@cache
def reference(d: int) -> Reference:
    """Reference values at `KAPPAS`, from mpmath's Bessel functions with 50 digits."""
    values = Reference([], [], [])
    with mp.workdps(50):
        order = mp.mpf(d) / 2 - 1
        for kappa in map(mp.mpf, KAPPAS.tolist()):
            one, two = mp.besseli(order, kappa), mp.besseli(order + 1, kappa)
            values.cumulant.append(mp.loggamma(order + 1) + order * mp.log(2 / kappa) + mp.log(one))
            values.length.append(two / one)
            values.complement.append((one - two) / one)
    return values


def uniform(d: int) -> mp.mpf:
    with mp.workdps(50):
        return mp.loggamma(mp.mpf(d) / 2) - mp.log(2) - mp.mpf(d) / 2 * mp.log(mp.pi)


def errors(actual: np.ndarray, expected: list[mp.mpf]) -> np.ndarray:
    with mp.workdps(50):
        return np.array([float(abs(mp.mpf(one) - two)) for one, two in zip(actual.tolist(), expected, strict=True)])


def floats(numbers: list[mp.mpf]) -> np.ndarray:
    return np.array([float(number) for number in numbers])


@dimensions
def test_the_cumulant_function_is_that_of_mpmath(d: int) -> None:
    expected = reference(d).cumulant
    assert (errors(vmf.cumulant(d, KAPPAS), expected) <= 10 * EPS * floats(expected)).all()


@dimensions
def test_the_log_normaliser_is_that_of_mpmath(d: int) -> None:
    with mp.workdps(50):
        expected = [uniform(d) - one for one in reference(d).cumulant]
    bound = 10 * EPS * (KAPPAS + d * np.log1p(d))
    assert (errors(vmf.log_normalizer(d, KAPPAS), expected) <= bound).all()
    assert abs(vmf.log_uniform_density(d) - float(uniform(d))) <= 4 * EPS * (1 + d * np.log1p(d))


@dimensions
def test_the_log_density_at_the_mean_direction_is_that_of_mpmath(d: int) -> None:
    with mp.workdps(50):
        expected = [
            uniform(d) - one + mp.mpf(kappa) for one, kappa in zip(reference(d).cumulant, KAPPAS.tolist(), strict=True)
        ]
    bound = 10 * EPS * (1 + d) * (2 + np.log1p(d) + np.log1p(KAPPAS))
    assert (errors(vmf.log_peak_density(d, KAPPAS), expected) <= bound).all()


@dimensions
def test_the_mean_resultant_length_is_that_of_mpmath(d: int) -> None:
    expected = reference(d)
    resultant = vmf.mean_resultant_length(d, KAPPAS)
    assert (errors(resultant.length, expected.length) <= 10 * EPS * floats(expected.length)).all()
    assert (errors(resultant.complement, expected.complement) <= 10 * EPS * floats(expected.complement)).all()


@dimensions
def test_the_concentration_follows_from_the_mean_resultant_length_of_mpmath(d: int) -> None:
    expected = reference(d)
    concentrations = vmf.concentration(d, MeanResultant(floats(expected.length), floats(expected.complement)))
    # The length and the complement are each rounded, by half of ε.
    np.testing.assert_allclose(concentrations, KAPPAS, rtol=21 * EPS)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 17, 66, 300, 10_000, 1_000_000], ids="d-{}".format)
def test_the_concentration_undoes_the_mean_resultant_length(d: int, rng: np.random.Generator) -> None:
    kappas = 10 ** rng.uniform(-12, 12 if d > 1 else 2, 500)
    concentrations = vmf.concentration(d, vmf.mean_resultant_length(d, kappas))
    np.testing.assert_allclose(concentrations, kappas, rtol=40 * EPS)


def test_a_point_beyond_the_grid_of_mpmath() -> None:
    # With mpmath 1.3: mp.dps = 50; i = [mp.besseli(n, 10**5, maxterms=10**6) for n in (4999, 5000)];
    # mp.loggamma(5000) + 4999 * mp.log(2 / mp.mpf(10**5)) + mp.log(i[0]), and (i[0] - i[1]) / i[0].
    assert vmf.cumulant(10_000, 1e5) == pytest.approx(83362.95464427870990173696, rel=10 * EPS)
    assert vmf.mean_resultant_length(10_000, 1e5).complement == pytest.approx(0.048746267149761908561357, rel=10 * EPS)


@pytest.mark.parametrize("d", [1, 2, 3, 64, 10_000], ids="d-{}".format)
def test_a_concentration_of_zero_is_the_uniform_distribution(d: int) -> None:
    zero = np.zeros(1)
    assert vmf.cumulant(d, zero) == 0.0
    assert vmf.log_normalizer(d, zero) == vmf.log_peak_density(d, zero) == vmf.log_uniform_density(d)
    assert vmf.mean_resultant_length(d, zero) == (0.0, 1.0)
    assert vmf.concentration(d, MeanResultant(zero, zero + 1)) == 0.0


def test_the_area_of_the_sphere_is_that_of_school() -> None:
    areas = np.exp([-vmf.log_uniform_density(d) for d in (1, 2, 3, 4)])
    np.testing.assert_allclose(areas, [2, 2 * np.pi, 4 * np.pi, 2 * np.pi**2], rtol=1e-15)


@pytest.mark.parametrize("d", [1, 2, 3, 20, 64, 65, 1000], ids="d-{}".format)
def test_small_concentrations_tend_to_the_power_series(d: int) -> None:
    kappas = 10.0 ** np.arange(-150, -7)
    resultant = vmf.mean_resultant_length(d, kappas)
    np.testing.assert_allclose(vmf.cumulant(d, kappas), kappas**2 / (2 * d), rtol=1e-14)
    np.testing.assert_allclose(resultant.length, kappas / d, rtol=1e-14)
    np.testing.assert_allclose(resultant.complement, 1 - kappas / d, rtol=1e-14)


@pytest.mark.parametrize("d", [2, 3, 20, 64, 65, 1000], ids="d-{}".format)
def test_large_concentrations_tend_to_a_gaussian_of_d_minus_1_features(d: int) -> None:
    kappas = 1e5 * d**2 * 10.0 ** np.arange(0, 150)
    gaussian = (d - 1) / 2 * np.log(kappas / (2 * np.pi))
    np.testing.assert_allclose(vmf.log_peak_density(d, kappas), gaussian, rtol=2e-5 / d)
    complement = vmf.mean_resultant_length(d, kappas).complement
    np.testing.assert_allclose(kappas * complement, (d - 1) / 2, rtol=1e-5)
    np.testing.assert_allclose(kappas[40:] * complement[40:], (d - 1) / 2, rtol=1e-15)


def test_on_three_features_the_closed_form_holds() -> None:
    kappas = KAPPAS[KAPPAS >= 0.3]
    far = -np.expm1(-2 * kappas)
    np.testing.assert_allclose(vmf.log_peak_density(3, kappas), np.log(kappas / (2 * np.pi * far)), atol=1e-14)
    closed = 1 / kappas - 2 * np.exp(-2 * kappas) / far
    np.testing.assert_allclose(vmf.mean_resultant_length(3, kappas).complement, closed, rtol=4e-15)


def test_on_one_feature_there_are_two_directions() -> None:
    kappas = np.array([0.0, 1e-9, 0.4, 3.0, 31.9, 32.1, 300.0])
    shares = np.exp([vmf.log_peak_density(1, kappas), vmf.log_peak_density(1, kappas) - 2 * kappas])
    np.testing.assert_allclose(shares.sum(axis=0), 1.0, rtol=1e-14)
    resultant = vmf.mean_resultant_length(1, kappas)
    np.testing.assert_allclose(resultant.length, shares[0] - shares[1], atol=1e-14)
    np.testing.assert_allclose(resultant.complement, 2 * shares[1], rtol=1e-12)


@pytest.mark.parametrize("kappa", [0.0, 0.7, 12.0, 90.0])
@pytest.mark.parametrize("d", [2, 3, 9, 70], ids="d-{}".format)
def test_the_density_integrates_to_one(d: int, kappa: float) -> None:
    def density(angle: float) -> float:
        log_density = float(vmf.log_peak_density(d, kappa)) - kappa * (1 - np.cos(angle))
        return float(np.exp(log_density - vmf.log_uniform_density(d - 1)) * np.sin(angle) ** (d - 2))

    assert integrate.quad(density, 0.0, np.pi, epsabs=1e-12)[0] == pytest.approx(1.0, abs=1e-10)


@dimensions
def test_the_mean_resultant_length_is_the_slope_of_the_cumulant_function(d: int) -> None:
    kappas = np.array([0.02, 0.5, 3.0, 31.0, 33.0, 200.0]) * np.sqrt(d)
    step = 1e-4 * kappas
    slope = (vmf.cumulant(d, kappas + step) - vmf.cumulant(d, kappas - step)) / (2 * step)
    np.testing.assert_allclose(vmf.mean_resultant_length(d, kappas).length, slope, rtol=1e-7)


@dimensions
def test_nothing_jumps_and_lengths_rise(d: int) -> None:
    border = max(32.0, d / 2)
    half = float(vmf.concentration(d, MeanResultant(np.array(0.5), np.array(0.5))))
    for middle in (border, half):
        near = middle * (1 + 1e-9 * np.arange(-50, 51))
        peaks, resultant = vmf.log_peak_density(d, near), vmf.mean_resultant_length(d, near)
        straight = peaks[0] + (peaks[-1] - peaks[0]) * np.linspace(0, 1, 101)
        np.testing.assert_allclose(peaks, straight, rtol=0, atol=20 * EPS * (1 + d) * (2 + 2 * np.log1p(d)))
        assert (np.diff(resultant.length) > 0).all()
        assert (np.diff(resultant.complement) < 0).all()


def test_a_value_does_not_depend_on_those_beside_it() -> None:
    for d in (1, 2, 7, 500):
        resultant = vmf.mean_resultant_length(d, KAPPAS)
        for i in range(0, len(KAPPAS), 5):
            alone = MeanResultant(resultant.length[i : i + 1], resultant.complement[i : i + 1])
            assert vmf.concentration(d, resultant)[i] == vmf.concentration(d, alone)[0]
            assert vmf.log_peak_density(d, KAPPAS)[i] == vmf.log_peak_density(d, KAPPAS[i : i + 1])[0]


def test_rows_of_one_direction_have_the_largest_concentration() -> None:
    certain = MeanResultant(np.array([1.0, 1.0, 1.0 + EPS, 1.0]), np.array([0.0, 1e-300, -EPS, 1e-14]))
    for d in (1, 2, 30, 5000):
        concentrations = vmf.concentration(d, certain)
        assert concentrations[0] == concentrations[2] == vmf.MOST_KAPPA
        # On one feature, 1 − r falls as exp(−2 κ).
        assert concentrations[1] == (vmf.MOST_KAPPA if d > 1 else pytest.approx(140 * np.log(10) + np.log(2) / 2))
        assert (vmf.concentration(d, certain, most=10.0) == 10.0).all()


@dimensions
def test_the_bounds_hold_the_concentration(d: int) -> None:
    expected = reference(d)
    length, complement = floats(expected.length), floats(expected.complement)
    low, high = vmf._concentration_bounds(d, length, complement * (1 + length))
    assert (low <= KAPPAS).all()
    assert (high >= KAPPAS).all()
    assert (high <= 2.1 * low).all()


def test_the_slope_that_newton_steps_rely_on() -> None:
    logs = np.linspace(np.log(1e-3), np.log(1e6), 4001)
    for d in (2, 3, 4, 10, 100):
        resultant = vmf.mean_resultant_length(d, np.exp(logs))
        slope = np.diff(np.log(resultant.length / resultant.complement)) / np.diff(logs)
        assert slope.min() > 1 - 1e-11
        assert slope.max() < vmf.STEEPEST


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-7])
def test_sums_give_the_mean_resultant_with_its_digits(spread: float, rng: np.random.Generator) -> None:
    rows = rng.standard_normal(4) + spread * rng.standard_normal((50, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    weights = rng.random(50)
    near = rows[:3].sum(axis=0) / np.linalg.norm(rows[:3].sum(axis=0))
    apart = rows - near
    means, resultant = vmf.mean_resultant(
        np.array([weights.sum(), 0.0]),
        np.array([weights @ apart, np.zeros(4)]),
        np.array([weights @ np.sum(apart**2, axis=1) / 2, 0.0]),
        np.array([near, near]),
    )
    with mp.workdps(60):
        # Rows are scaled to length 1 with 60 digits.
        exact = [[mp.mpf(x) for x in row] for row in rows.tolist()]
        exact = [[x / mp.sqrt(mp.fsum(y * y for y in row)) for x in row] for row in exact]
        sums = [mp.fsum(w * row[j] for w, row in zip(weights.tolist(), exact, strict=True)) for j in range(4)]
        length = mp.sqrt(mp.fsum(x * x for x in sums)) / mp.fsum(weights.tolist())
        expected, mean = float(1 - length), [float(x / length / mp.fsum(weights.tolist())) for x in sums]
    assert resultant.complement[0] == pytest.approx(expected, rel=1e-13 + 1e-15 / spread)
    assert resultant.length[0] == pytest.approx(1 - expected, rel=4e-16)
    np.testing.assert_allclose(means[0], mean, atol=1e-15)
    assert (resultant.length[1], resultant.complement[1]) == (0.0, 1.0)
    np.testing.assert_array_equal(means[1], near)


def direction(d: int, rng: np.random.Generator) -> np.ndarray:
    made = rng.standard_normal(d)
    return made / np.linalg.norm(made)


@pytest.mark.parametrize("d", [2, 3, 5, 50, 768, 10_000], ids="d-{}".format)
@pytest.mark.parametrize("share", [0.0, 0.3, 5.0, 1e8])
def test_draws_have_the_mean_direction_and_the_resultant_length(d: int, share: float, rng: np.random.Generator) -> None:
    n, kappa, mean = max(200, min(20_000, 1_000_000 // d)), share * d, direction(d, rng)
    rows = vmf.draw_directions(mean, kappa, n, rng)
    assert rows.shape == (n, d)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=2e-15)
    length, complement = (float(x) for x in vmf.mean_resultant_length(d, kappa))
    lacking = np.sum((rows - mean) ** 2, axis=1) / 2
    # The variance of μ·x is A' = 1 − A² − (d − 1) A / κ; that of 1 − μ·x is (d − 1) / (2 κ²) where A is near 1.
    variance = 1 / d if share < 1e-3 else (d - 1) / (2 * kappa**2)
    if 1e-3 < share < 100:
        variance = complement * (1 + length) - (d - 1) * length / kappa
    assert abs(lacking.mean() - complement) < 4.5 * np.sqrt(variance / n)
    # The relative variance of the variance of n draws is (kurtosis − 1) / n. The largest kurtosis here is that of a
    # chi-square with d − 1 degrees of freedom.
    bound = 4.5 * np.sqrt((2 + 12 / (d - 1)) / n)
    assert lacking.var() == pytest.approx(variance, rel=bound)
    # All directions perpendicular to the mean direction are equally likely.
    other = direction(d, rng)
    other -= (other @ mean) * mean
    across = (rows - mean) @ (other / np.linalg.norm(other))
    square = np.mean(lacking * (2 - lacking)) / (d - 1)
    assert abs(across.mean()) < 4.5 * np.sqrt(square / n)
    assert np.mean(across**2) == pytest.approx(square, rel=bound)


@pytest.mark.parametrize("kappa", [1e-3, 0.8, 12.0, 1e4])
def test_draws_have_the_closed_distributions_of_two_and_three_features(kappa: float, rng: np.random.Generator) -> None:
    mean = np.array([np.cos(2.0), np.sin(2.0)])
    rows = vmf.draw_directions(mean, kappa, 20_000, rng)
    angles = np.arctan2(mean[0] * rows[:, 1] - mean[1] * rows[:, 0], rows @ mean)
    assert stats.kstest(angles, stats.vonmises(kappa).cdf).pvalue > 1e-3
    rows = vmf.draw_directions(np.array([0.0, 0.0, -1.0]), kappa, 20_000, rng)
    lacking = 1 + rows[:, 2]
    assert stats.kstest(lacking, lambda x: np.expm1(-kappa * x) / np.expm1(-2 * kappa)).pvalue > 1e-3


@pytest.mark.parametrize("d", [2, 3, 40], ids="d-{}".format)
def test_draws_of_the_largest_concentration_are_gaussian(d: int, rng: np.random.Generator) -> None:
    mean = direction(d, rng)
    rows = vmf.draw_directions(mean, vmf.MOST_KAPPA, 10_000, rng)
    squares = vmf.MOST_KAPPA * np.sum((rows - mean) ** 2, axis=1)
    assert stats.kstest(squares, stats.chi2(d - 1).cdf).pvalue > 1e-3


def test_draws_of_one_feature_are_signs(rng: np.random.Generator) -> None:
    rows = vmf.draw_directions(np.array([-1.0]), 0.4, 20_000, rng)
    assert set(rows[:, 0].tolist()) == {-1.0, 1.0}
    assert -rows.mean() == pytest.approx(np.tanh(0.4), abs=4.5 / np.sqrt(20_000))
    assert (vmf.draw_directions(np.array([1.0]), 1e12, 100, rng) == 1.0).all()
