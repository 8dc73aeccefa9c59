"""A probe measures true shares and sizes. Its times are not tested here."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outlook import outlook, short_probes  # noqa: F401

from clustering.data.access import open_source
from clustering.data.reading import read_block
from clustering.data.source import Source
from clustering.fitting.options import Options
from clustering.fitting.probe import partial_source, spread_indices, statistics_bytes
from clustering.models.kmeans import KMeans
from clustering.models.mixture import GaussianMixture
from clustering.models.soft_kmeans import SoftKMeans
from clustering.models.von_mises_fisher import VonMisesFisher
from clustering.options import PreprocessOptions


def masked_rows(share: float, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((n, 2)), rng.random(n) >= share


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0], ids=["none", "some", "all"])
@pytest.mark.parametrize("n_blocks", [1, 2, 5])
def test_the_masked_share_is_exact_when_every_block_is_probed(share: float, n_blocks: int) -> None:
    values, use = masked_rows(share)
    result = outlook(open_source(values, mask=use), block_bytes=math.ceil(400 / n_blocks) * 16)
    assert (result.seen.blocks, result.inspection.n_blocks) == (n_blocks, n_blocks)
    assert result.expected.masked_share == pytest.approx(1 - use.mean())
    assert (result.seen.computed is None) == (share == 1.0)


def test_gaps_count_as_masked() -> None:
    values, use = masked_rows(0.25)
    values[~use, 1] = np.nan
    assert outlook(open_source(values)).expected.masked_share == pytest.approx(1 - use.mean())


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 9, 50, 10**9])
@pytest.mark.parametrize("most", [3, 8, 33])
def test_few_numbers_are_spread_out_with_the_ends_among_them(n: int, most: int) -> None:
    indices = spread_indices(n, most)
    assert len(indices) == len(set(indices)) == min(n, most)
    assert {0, n // 2, n - 1} <= set(indices)
    assert max(indices) < n
    assert min(indices) >= 0


def test_blocks_are_probed_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(np.random.default_rng(0).standard_normal((50, 2)))
    read: list[tuple[int, ...]] = []

    def reading(one: Source, block: Any, **options: Any) -> Any:
        if one is source:
            read.append(block.start)
        return read_block(one, block, **options)

    monkeypatch.setattr("clustering.fitting.probe.read_block", reading)
    result = outlook(source, block_bytes=16 * 5, threads=2)
    # The first block is read once more, to warm up.
    assert read.count(read[0]) == 2
    assert sorted(set(read)) == sorted(set(read[1:]))
    assert result.seen.blocks == len(set(read)) == 8


def test_a_part_of_a_source_holds_the_first_rows_of_a_block(field_store: Path) -> None:
    options: dict[str, Any] = {
        "variables": ["q", "t"], "sample_dims": ["time", "lat", "lon"], "mask": "sea", "weights": "cos(lat)",
        "isel": {"time": {"start": 1, "step": 2}, "lon": [1, 2, 5, 7]},
    }  # fmt: skip
    source = open_source(field_store, **options)
    plan = source.plan(block_bytes=1)
    block = plan.block(len(plan) - 1)
    part = partial_source(source, block, 2048)
    (only,) = [part.plan().block(i) for i in range(len(part.plan()))]
    whole, rows = read_block(source, block), read_block(part, only)
    assert np.array_equal(whole.values, rows.values)
    assert np.array_equal(whole.weights, rows.weights)
    tall = open_source(np.arange(10_000.0).reshape(5000, 2))
    part = partial_source(tall, tall.plan(block_bytes=10**9).block(0), 100)
    assert part.shape == (2048,)


MODELS = {
    "kmeans": KMeans(3),
    "cosine": KMeans(3, divergence="cosine"),
    "soft": SoftKMeans(3, beta="auto"),
    "mixture": GaussianMixture(3),
    "diagonal": GaussianMixture(3, covariance="diagonal"),
    "directions": VonMisesFisher(3),
}
WISHES: dict[str, tuple[dict[str, Any], int | None]] = {
    "as-it-is": ({}, None),
    "standardized": ({"standardize": "per_feature"}, 6),
    "components": ({"pca": 2, "whiten": True}, 2),
    "directions": ({"unit_norm": True}, 6),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_every_model_can_be_probed(model: Any) -> None:
    values = np.random.default_rng(0).standard_normal((3000, 6))
    result = outlook(open_source(values), model, threads=2)
    assert result.seen.computed is not None, result.seen.failure
    assert result.expected.pass_seconds is not None
    assert result.expected.pass_seconds > 0


@pytest.mark.parametrize(("wish", "components"), WISHES.values(), ids=WISHES.keys())
def test_the_features_after_preprocessing_are_forecast(wish: dict[str, Any], components: int | None) -> None:
    values = np.random.default_rng(0).standard_normal((3000, 6)).astype("f4")
    result = outlook(open_source(values), options=Options(preprocess=PreprocessOptions(**wish)))
    assert result.expected.n_components == components
    # Two components in double precision take less than six features in single precision.
    kept = 16 if components == 2 else 24
    assert result.expected.rows_bytes == 3000 * kept


def test_a_failure_to_compute_is_reported_and_not_raised() -> None:
    result = outlook(open_source(np.ones((100, 2))), KMeans(3))
    assert result.seen.computed is None
    assert "distinct row" in result.expected.failure
    assert (result.expected.pass_seconds, result.expected.label_seconds) == (None, None)
    assert result.expected.read_seconds > 0


def test_nothing_is_left_traced() -> None:
    outlook(open_source(np.random.default_rng(0).standard_normal((100, 2))))
    assert not tracemalloc.is_tracing()


def test_statistics_are_weighed_without_their_sample() -> None:
    result = outlook(open_source(np.random.default_rng(0).standard_normal((500, 4))), GaussianMixture(3))
    computed = result.seen.computed
    assert computed is not None
    # Mean, diagonal of the scatter and both ends of four features.
    assert computed.survey.node == 8 * (4 + 4 + 4 + 4)
    assert computed.iteration.node > 8 * 3 * (1 + 4 + 16)
    assert statistics_bytes((np.zeros(3), (np.zeros(2), 5, "x"))) == 40
