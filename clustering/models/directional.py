"""The von Mises–Fisher distribution on the unit sphere: normaliser, mean resultant length, concentration and draws.

The density of a direction x of d features is c_d(κ) exp(κ μ·x), with mean direction μ and concentration κ (Mardia &
Jupp 2000, "Directional Statistics", section 9.3; Banerjee, Dhillon, Ghosh & Sra 2005, JMLR 6, 1345–1382):

    c_d(κ) = κ^ν / ((2π)^(d/2) I_ν(κ)),  ν = d/2 − 1,
    A_d(κ) = I_{ν+1}(κ) / I_ν(κ), the mean resultant length.

d = 1 has the same formulas, with ν = −1/2: there are two directions, −1 and 1, c_1 = 1 / (2 cosh κ) is a probability,
and A_1 = tanh κ.

One expansion serves all κ and d. log I_ν is taken from the uniform expansion for large orders (DLMF 10.41.3) at an
order of `LEAST_ORDER` or more. Its leading terms cancel against log Γ(ν + 1), and this is done on paper, so that no
digits are lost for small κ. Lower orders follow by the recurrence I_{ν−1} − I_{ν+1} = (2ν/κ) I_ν (DLMF 10.29.1) from
above, where all terms are positive. So κ has no ranges of their own formulas, but for two: the log density at the mean
direction of small and of large κ, and 1 − A below and above A = 1/2. Both formulas hold to the bound where they meet.

Bounds on errors below are those of float64 with ε = 2.2e-16. They hold for d from 1 to 10 000 at least and for κ from 0
to `MOST_KAPPA` at least.
"""

from __future__ import annotations

from functools import cache
from math import ceil, lgamma, log, pi
from typing import NamedTuple

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

MOST_KAPPA = 1e12
"""The largest concentration: that of rows that all have one direction, were it not for the rounding of float32."""
LEAST_ORDER = 32
"""The least order that the uniform expansion is used for: terms beyond its last one are below 1e-17 there."""
TERMS = 12
"""Terms of the uniform expansion."""
NEWTON_STEPS = 6
"""Newton steps for a concentration. Three or four are enough, as each error is about the square of the last."""
STEEPEST = 1.5604
"""The largest d log(A / (1 − A)) / d log κ for d ≥ 2. It is that of d = 2 and κ = 1.86; the least is 1."""


class MeanResultant(NamedTuple):
    """Mean resultant lengths, with their differences to 1."""

    length: Array
    """r or A_d(κ), from 0 to 1 ``(k,)``."""
    complement: Array
    """1 − r, which keeps its digits where r rounds to 1 ``(k,)``."""


class _Uniform(NamedTuple):
    """Variables of the uniform expansion (DLMF 10.41)."""

    order: float
    z: Array
    """κ / ν."""
    root: Array
    """√(1 + z²)."""
    excess: Array
    """√(1 + z²) − 1, without cancellation."""
    p: Array
    """1 / √(1 + z²)."""


def log_uniform_density(d: int) -> float:
    """Log density of the uniform distribution, log c_d(0) = −log of the area of the sphere.

    Parameters
    ----------
    d
        Number of features, 1 or more.

    Returns
    -------
    float
        With an error below 4 ε (1 + d log(1 + d)).
    """
    return lgamma(d / 2) - log(2.0) - (d / 2) * log(pi)


def cumulant(d: int, kappa: ArrayLike) -> Array:
    """Cumulant function log c_d(0) − log c_d(κ), which is log E exp(κ μ·x) under the uniform distribution.

    It is κ² / (2 d) for small κ, and about κ for large κ. Its derivative is A_d(κ).

    Parameters
    ----------
    d
        Number of features, 1 or more.
    kappa
        Concentrations ``(k,)``, 0 or more and finite.

    Returns
    -------
    ndarray
        ``(k,)``, with a relative error below 10 ε.
    """
    kappa = np.asarray(kappa, np.float64)
    at = _uniform(d, kappa)
    first, order = at.excess - np.log1p(at.excess / 2), at.order
    total = order * first - 0.5 * np.log1p(at.excess) + at.excess * at.p * polynomial.polyval(at.p, _quotient(order))
    ratio = _uniform_ratio(at)
    # 0F1(; ν + 1; κ²/4) / 0F1(; ν + 2; κ²/4) is 1 + κ A / (2 ν + 2), with A of the order ν + 1.
    for lower in _lower_orders(d):
        product = kappa * ratio
        total = total + np.log1p(product / (2 * lower + 2))
        ratio = kappa / (2 * lower + 2 + product)
    return total


def log_normalizer(d: int, kappa: ArrayLike) -> Array:
    """Log normaliser log c_d(κ) of the density with respect to the area of the sphere.

    Parameters
    ----------
    d
        Number of features, 1 or more.
    kappa
        Concentrations ``(k,)``, 0 or more and finite.

    Returns
    -------
    ndarray
        ``(k,)``, with an error below 10 ε (κ + d log(1 + d)).
    """
    return log_uniform_density(d) - cumulant(d, kappa)


def log_peak_density(d: int, kappa: ArrayLike) -> Array:
    """Log density at the mean direction, log c_d(κ) + κ.

    The log density of x is this less κ (1 − μ·x). Neither part is larger than it need be, while log c_d(κ) and κ μ·x
    cancel for large κ.

    Parameters
    ----------
    d
        Number of features, 1 or more.
    kappa
        Concentrations ``(k,)``, 0 or more and finite.

    Returns
    -------
    ndarray
        ``(k,)``, with an error below 10 ε (1 + d) (2 + log(1 + d) + log(1 + κ)).
    """
    kappa = np.asarray(kappa, np.float64)
    concentrated = kappa > max(LEAST_ORDER, d / 2)
    if not concentrated.any():
        diffuse: Array = log_normalizer(d, kappa) + kappa
        return diffuse
    large = np.where(concentrated, kappa, 2.0 * max(LEAST_ORDER, d))
    at = _uniform(d, large)
    gap = 1 / (at.root + at.z)
    # √(1 + z²) − z is 1 / (√(1 + z²) + z), so that the exponent η − z of I_ν(κ) exp(−κ) loses nothing.
    exponent = at.order * (gap - np.log1p((1 + gap) / at.z))
    series = float(_values_at_one(at.order)) + at.excess * at.p * polynomial.polyval(at.p, _quotient(at.order))
    scaled_bessel = exponent - 0.5 * np.log(2 * pi * np.hypot(at.order, large)) + series
    ratio = _uniform_ratio(at)
    product = np.ones_like(large)
    for lower in _lower_orders(d):
        ratio = large / (2 * lower + 2 + large * ratio)
        product = product * ratio
    peak = (d / 2 - 1) * np.log(large) - (d / 2) * log(2 * pi) - scaled_bessel + np.log(product)
    return np.where(concentrated, peak, log_normalizer(d, kappa) + kappa)


def mean_resultant_length(d: int, kappa: ArrayLike) -> MeanResultant:
    """Mean resultant length A_d(κ) = |E x|, and 1 − A_d(κ).

    Parameters
    ----------
    d
        Number of features, 1 or more.
    kappa
        Concentrations ``(k,)``, 0 or more and finite.

    Returns
    -------
    MeanResultant
        ``(k,)`` each, with relative errors below 10 ε.
    """
    kappa = np.asarray(kappa, np.float64)
    if d == 1:
        far = np.exp(-2 * kappa)
        return MeanResultant(np.tanh(kappa), 2 * far / (1 + far))
    ratio, remainder = _ratio_and_remainder(d, kappa)
    complement = _complement(d, kappa, ratio, remainder)
    # The recurrence rounds A at each order, and 1 − A less.
    return MeanResultant(np.where(ratio > 0.5, 1 - complement, ratio), complement)


def concentration(d: int, resultant: MeanResultant, most: float = MOST_KAPPA) -> Array:
    """Concentration κ of which the mean resultant length is A_d(κ) = r: the estimate of maximum likelihood.

    log(A / (1 − A)) is almost a straight line in log κ: its slope lies between 1 and `STEEPEST`. So a Newton step on it
    leaves at most 0.57 of the error in log κ, wherever it starts. Steps start from r (d − r²) / (1 − r²) (Banerjee et
    al. 2005, section 4). They stay within the bounds of Amos 1974 (doi:10.1090/S0025-5718-1974-0333287-7), solved for κ
    (Hornik & Grün 2014, doi:10.1007/s00180-013-0471-0).

    Parameters
    ----------
    d
        Number of features, 1 or more.
    resultant
        Mean resultant lengths r with 1 − r, ``(k,)`` each.
    most
        κ of 1 − r = 0, and of any r that would give more. The likelihood is concave in κ, so this is the best κ of
        those that are no larger.

    Returns
    -------
    ndarray
        ``(k,)``. Its relative error is below 20 ε, plus the sum of the relative errors of r and of 1 − r. It is 0 for
        r = 0.
    """
    length = np.clip(np.asarray(resultant.length, np.float64), 0.0, 1.0)
    given = np.clip(np.asarray(resultant.complement, np.float64), 0.0, 1.0)
    # Smaller ones would make κ overflow, and they are far beyond any use.
    complement = np.maximum(given, 1e-280)
    r = np.where(length > 0.0, length, 0.5)
    if d == 1:
        kappa = 0.5 * np.log1p(2 * r / complement)
    else:
        # 1 − r², without cancellation.
        distance = complement * (1 + r)
        low, high = _concentration_bounds(d, r, distance)
        kappa = np.clip(r * (d - r**2) / distance, low, high)
        for _ in range(NEWTON_STEPS):
            kappa = np.clip(_newton_step(d, kappa, r, complement), low, high)
    kappa = np.where(given > 0.0, np.minimum(kappa, most), most)
    return np.where(length > 0.0, kappa, 0.0)


def mean_resultant(weight: Array, first: Array, distance: Array, directions: Array) -> tuple[Array, MeanResultant]:
    """Mean directions and mean resultant lengths of weighted rows of length 1, from their sums.

    Sums are about directions m that are near the mean ones. With S = Σ w x = W m + D is
    ‖S‖² = W² − 2 W T + ‖D‖², so that 1 − ‖S‖ / W is a sum of small numbers.

    Parameters
    ----------
    weight
        W = Σ w ``(k,)``.
    first
        D = Σ w (x − m) ``(k, d)``.
    distance
        T = Σ w (1 − m·x) = Σ w ‖x − m‖² / 2 ``(k,)``.
    directions
        m of length 1 ``(k, d)``.

    Returns
    -------
    ndarray, MeanResultant
        Mean directions S / ‖S‖ ``(k, d)``, and r = ‖S‖ / W. Without rows, or with rows that cancel, the direction is m
        and r is 0.
    """
    safe = np.where(weight > 0.0, weight, 1.0)
    step, apart = first / safe[:, None], distance / safe
    sums = directions + step
    norms = np.linalg.norm(sums, axis=1)
    directed = (weight > 0.0) & (norms > 0.0)
    means = np.where(directed[:, None], sums / np.where(directed, norms, 1.0)[:, None], directions)
    lacking = (2 * apart - np.sum(step**2, axis=1)) / (1 + norms)
    complement = np.where(directed, np.clip(lacking, 0.0, 1.0), 1.0)
    return means, MeanResultant(np.where(directed, np.minimum(norms, 1.0), 0.0), complement)


def draw_directions(direction: Array, kappa: float, n: int, rng: np.random.Generator) -> Array:
    """Draw rows of one component (Wood 1994, doi:10.1080/03610919408813161).

    Wood's algorithm VM* draws the cosine w = μ·x by rejection. Here its beta variate comes as that of two gamma
    variates. 1 − w, 1 + w and the log of the acceptance probability are then products and sums of positive numbers,
    which keep their digits for large κ and d.

    Parameters
    ----------
    direction
        Mean direction μ of length 1 ``(d,)``.
    kappa
        Concentration, 0 or more and finite.
    n
        Number of rows.
    rng
        Where random numbers come from.

    Returns
    -------
    ndarray
        Rows of length 1 ``(n, d)``.
    """
    d = len(direction)
    if d == 1:
        signs = np.where(rng.random(n) * (1 + np.exp(-2 * kappa)) < 1.0, 1.0, -1.0)
        return signs[:, None] * direction
    cosines, sines = _draw_cosines(d, kappa, n, rng)
    tangents = rng.standard_normal((n, d - 1))
    rows = np.empty((n, d))
    rows[:, 1:] = tangents * (sines / np.linalg.norm(tangents, axis=1))[:, None]
    # The reflection that takes the first axis to −sign · μ; of the two signs, the one without cancellation.
    sign = 1.0 if direction[0] >= 0.0 else -1.0
    rows[:, 0] = -sign * cosines
    normal = direction.astype(np.float64)
    normal[0] += sign
    rows -= (rows @ normal)[:, None] * (2 * normal / (normal @ normal))
    # Sums of many features leave a few ε.
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _draw_cosines(d: int, kappa: float, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Cosines and sines ``(n,)`` of the angles between rows and their mean direction."""
    m = d - 1
    b = m / (2 * kappa + np.hypot(2 * kappa, m))
    cosines, sines = np.empty(n), np.empty(n)
    missing = np.arange(n)
    while len(missing):
        one, other = rng.standard_gamma(m / 2, len(missing)), rng.standard_gamma(m / 2, len(missing))
        whole = other + b * one
        # The log of the acceptance probability is m (log(1 + h) − h), which is 0 at the mode of the envelope.
        h = (1 - b) * (one - other) / (2 * whole)
        accepted = rng.standard_exponential(len(missing)) >= m * (h - np.log1p(h))
        places = missing[accepted]
        one, other, whole = one[accepted], other[accepted], whole[accepted]
        cosines[places] = (other - b * one) / whole
        sines[places] = 2 * np.sqrt(b * one * other) / whole
        missing = missing[~accepted]
    return cosines, sines


def _newton_step(d: int, kappa: Array, length: Array, complement: Array) -> Array:
    """One Newton step on log(A / (1 − A)) as a function of log κ, for d ≥ 2."""
    ratio, remainder = _ratio_and_remainder(d, kappa)
    lacking = _complement(d, kappa, ratio, remainder)
    # κ A' is κ (1 − A²) − (d − 1) A, which equals (d − 1)(1 − A)/2 + e (1 + A). The first loses digits for large κ, the
    # other for small κ.
    diffuse = kappa * (1 + ratio) / ratio - (d - 1) / lacking
    concentrated = ((d - 1) / 2 + remainder * (1 + ratio) / lacking) / ratio
    slope = np.clip(np.where(ratio > 0.5, concentrated, diffuse), 1.0, STEEPEST)
    stepped: Array = kappa * np.exp(-np.log((ratio / length) * (complement / lacking)) / slope)
    return stepped


def _concentration_bounds(d: int, length: Array, distance: Array) -> tuple[Array, Array]:
    """Bounds on κ ``(k,)``, from 1 − r² ``(k,)``.

    κ / (a + √(κ² + b²)) is no more than A for a = ν + 1/2, b = ν + 3/2, and no less for a = ν + 1/2,
    b² = (ν + 1/2)(ν + 3/2), and for a = ν, b = ν + 2.
    """
    order = d / 2 - 1

    def solved(a: float, b: float) -> Array:
        bound: Array = length * (a + np.sqrt(a**2 * length**2 + b**2 * distance)) / distance
        return bound

    low = np.maximum(solved(order + 0.5, np.sqrt((order + 0.5) * (order + 1.5))), solved(order, order + 2))
    # The bounds meet at both ends, where rounding must not put them the wrong way around.
    margin = 16 * np.finfo(float).eps
    return low * (1 - margin), solved(order + 0.5, order + 1.5) * (1 + margin)


def _complement(d: int, kappa: Array, ratio: Array, remainder: Array) -> Array:
    """1 − A ``(k,)``: plainly where it is large, and otherwise from κ (1 − A) = (d − 1)/2 + e."""
    concentrated = ratio > 0.5
    return np.where(concentrated, ((d - 1) / 2 + remainder) / np.where(concentrated, kappa, 1.0), 1 - ratio)


def _ratio_and_remainder(d: int, kappa: Array) -> tuple[Array, Array]:
    """A_d(κ), and e = κ (1 − A_d(κ)) − (d − 1)/2, which falls as 1/κ, ``(k,)`` each.

    The recurrence for A is a continued fraction of positive terms (DLMF 10.33.1). That for e has errors that do not
    grow, while 1 − A would lose digits at every order.
    """
    at = _uniform(d, kappa)
    ratio, remainder = _uniform_ratio(at), _uniform_remainder(at)
    for lower in _lower_orders(d):
        ratio = kappa / (2 * lower + 2 + kappa * ratio)
        b = lower + 0.5 - remainder
        remainder = -remainder - b * (b / (kappa + b))
    return ratio, remainder


def _uniform(d: int, kappa: Array) -> _Uniform:
    """Variables of the expansion at the order of d, or so many whole numbers above it."""
    order = d / 2 - 1 + len(_lower_orders(d))
    z = kappa / order
    root = np.hypot(1.0, z)
    return _Uniform(order, z, root, z * (z / (1 + root)), 1 / root)


def _lower_orders(d: int) -> list[float]:
    """Orders that follow by recurrence, from the highest one to that of d."""
    order = d / 2 - 1
    return [order + i for i in reversed(range(ceil(LEAST_ORDER - order)))]


def _uniform_ratio(at: _Uniform) -> Array:
    """I_{ν+1}(κ) / I_ν(κ) at a high order: the derivative of the cumulant function, term by term."""
    series = polynomial.polyval(at.p, _derivative(at.order))
    ratio: Array = at.z * (1 / (1 + at.root) - at.p**2 * (0.5 + at.p * series) / at.order)
    return ratio


def _uniform_remainder(at: _Uniform) -> Array:
    """κ (1 − I_{ν+1}(κ) / I_ν(κ)) − ν − 1/2 at a high order, where terms of order ν cancel on paper."""
    series = polynomial.polyval(at.p, _derivative(at.order))
    remainder: Array = -at.order / (at.root + at.z) - at.p**2 / 2 + (at.z * at.p) ** 2 * at.p * series
    return remainder


@cache
def _derivatives() -> Array:
    """Polynomials g_k(p) of which log Σ U_k(p) / ν^k has the derivative Σ g_k(p) / ν^k ``(terms, 3 · terms)``.

    Taking the log of the recurrence of U_k (DLMF 10.41.9) gives
    g_{k+1} = (½ p² (1 − p²) g_k)' + ½ p² (1 − p²) Σ_{i+j=k} g_i g_j.
    """
    factor = np.array([0.0, 0.0, 0.5, 0.0, -0.5])
    made = [np.array([0.125, 0.0, -0.625])]
    for k in range(1, TERMS):
        squares = np.sum([polynomial.polymul(made[i], made[k - 2 - i]) for i in range(k - 1)], axis=0)
        following = polynomial.polyder(polynomial.polymul(factor, made[-1]))
        made.append(polynomial.polyadd(following, polynomial.polymul(factor, np.atleast_1d(squares))))
    table = np.zeros((TERMS, 3 * TERMS))
    for row, coefficients in zip(table, made, strict=True):
        row[: len(coefficients)] = coefficients
    return table


@cache
def _integrals() -> Array:
    """Coefficients of p, p², … of ∫₀ᵖ g_k ``(terms, 3 · terms)``: the terms of log Σ U_k(p) / ν^k."""
    made: Array = _derivatives() / np.arange(1, 3 * TERMS + 1)
    return made


def _powers(order: float) -> Array:
    """1 / ν, 1 / ν², … ``(terms,)``."""
    powers: Array = float(order) ** -np.arange(1.0, TERMS + 1)
    return powers


def _derivative(order: float) -> Array:
    """Coefficients of Σ g_k(p) / ν^k in powers of p."""
    coefficients: Array = _powers(order) @ _derivatives()
    return coefficients


def _values_at_one(order: float) -> Array:
    """Log of Σ U_k(1) / ν^k: Stirling's series of log Γ with the sign turned."""
    value: Array = _powers(order) @ _integrals().sum(axis=1)
    return value


def _quotient(order: float) -> Array:
    """Coefficients of the factor of (1 − p) in log Σ U_k(p) / ν^k − log Σ U_k(1) / ν^k.

    p^j − 1 is −(1 − p)(1 + p + … + p^(j−1)).
    """
    from_the_end = np.cumsum((_powers(order) @ _integrals())[::-1])[::-1]
    coefficients: Array = -from_the_end
    return coefficients
