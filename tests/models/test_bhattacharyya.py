from __future__ import annotations

import numpy as np
from scipy import integrate, stats

from clustering.models.bhattacharyya import bhattacharyya


def test_distances_are_the_overlap_of_densities() -> None:
    means, widths = np.array([0.0, 1.0, 5.0]), np.array([1.0, 0.3, 2.0])
    found = bhattacharyya(means[:, None], widths[:, None] ** 2, means[:, None], widths[:, None] ** 2)
    for i in range(3):
        for j in range(3):
            one, other = stats.norm(means[i], widths[i]), stats.norm(means[j], widths[j])
            overlap, _ = integrate.quad(lambda x, p=one, q=other: np.sqrt(p.pdf(x) * q.pdf(x)), -40, 40)
            np.testing.assert_allclose(found[i, j], -np.log(overlap), atol=1e-7)


def test_matrices_and_variances_say_the_same(rng: np.random.Generator) -> None:
    centers, others = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    widths, other_widths = rng.random((4, 3)) + 0.1, rng.random((5, 3)) + 0.1
    diagonal = bhattacharyya(centers, widths, others, other_widths)
    full = bhattacharyya(centers, widths[:, :, None] * np.eye(3), others, other_widths[:, :, None] * np.eye(3))
    np.testing.assert_allclose(full, diagonal, rtol=1e-12)
    # A linear map changes nothing.
    turn = rng.standard_normal((3, 3))
    turned = bhattacharyya(
        centers @ turn, turn.T @ (widths[:, :, None] * np.eye(3)) @ turn,
        others @ turn, turn.T @ (other_widths[:, :, None] * np.eye(3)) @ turn,
    )  # fmt: skip
    np.testing.assert_allclose(turned, full, rtol=1e-9)


def test_a_gaussian_is_at_no_distance_from_itself(rng: np.random.Generator) -> None:
    root = rng.standard_normal((3, 4, 4))
    shapes, centers = root @ root.transpose(0, 2, 1) + np.eye(4), rng.standard_normal((3, 4))
    found = bhattacharyya(centers, shapes, centers, shapes)
    assert (np.diagonal(found) < 1e-13).all()
    assert (found >= 0.0).all()
