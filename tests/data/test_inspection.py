"""Inspection tells the truth about the source and the plan, and advises where it should."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from clustering.data.access import open_source
from clustering.data.inspection import Inspection, inspect_source
from clustering.data.plan import MIB
from clustering.data.source import Source


def inspect(
    source: Source, *, memory: int = 2048 * MIB, threads: int = 1, block_bytes: int | None = None
) -> Inspection:
    plan = source.plan(block_bytes=block_bytes, memory=memory)
    return inspect_source(source, plan, threads=threads, memory=memory)


def test_numbers_are_those_of_the_source_and_the_plan(field_store: Path) -> None:
    source = open_source(field_store, variables=["t", "q"], feature_dims=["lon"], isel={"time": {"start": 5}})
    plan = source.plan(block_bytes=1)
    found = inspect_source(source, plan, threads=2, memory=MIB)
    assert (found.sample_dims, found.feature_dims) == ({"time": 7, "lat": 9}, {"lon": 10})
    assert (found.cells, found.n_features) == (63, 20)
    assert (found.row_bytes, found.pass_bytes) == (80, 63 * 80)
    assert (found.n_blocks, found.block_shape, found.block_bytes) == (len(plan), (5, 4), 5 * 4 * 80)
    assert found.n_blocks == 2 * 3


def test_the_layout_of_each_variable_is_told(tmp_path: Path) -> None:
    dataset = xr.Dataset({n: (("row", "feature"), np.zeros((8, 6), "f4")) for n in ("plain", "sharded")})
    encoding = {"plain": {"chunks": (4, 6)}, "sharded": {"chunks": (2, 3), "shards": (4, 6)}}
    dataset.to_zarr(tmp_path / "s", consolidated=False, zarr_format=3, encoding=encoding)
    found = inspect(open_source(tmp_path / "s", variables=["sharded", "plain"])).variables
    assert [(v.name, v.dims, v.shape, v.dtype, v.chunks, v.shards) for v in found] == [
        ("sharded", ("row", "feature"), (8, 6), "float32", (2, 3), (4, 6)),
        ("plain", ("row", "feature"), (8, 6), "float32", (4, 6), None),
    ]


def masked_rows(share: float, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((n, 2)), np.random.default_rng(3).random(n) >= share


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0], ids=["none", "some", "all"])
@pytest.mark.parametrize("n_blocks", [1, 2, 3, 4, 5])
def test_the_masked_share_is_exact_when_every_block_is_probed(share: float, n_blocks: int) -> None:
    values, use = masked_rows(share)
    found = inspect(open_source(values, mask=use), block_bytes=math.ceil(400 / n_blocks) * 16)
    assert (found.probed_blocks, found.n_blocks) == (n_blocks, n_blocks)
    assert found.masked_share == 1 - use.mean()


def test_gaps_count_as_masked() -> None:
    values, use = masked_rows(0.25)
    values[~use, 1] = np.nan
    assert inspect(open_source(values)).masked_share == 1 - use.mean()


@pytest.mark.parametrize("n_blocks", [6, 7, 8, 9, 50, 400])
def test_few_blocks_are_probed_each_once_and_the_ends_among_them(
    monkeypatch: pytest.MonkeyPatch, n_blocks: int
) -> None:
    read: list[int] = []
    original = Source.read
    monkeypatch.setattr(Source, "read", lambda self, block: read.append(block.number) or original(self, block))
    found = inspect(open_source(np.zeros((n_blocks, 2))), block_bytes=16)
    assert found.n_blocks == n_blocks
    assert found.probed_blocks == len(read) == len(set(read)) <= 8
    assert {0, n_blocks // 2, n_blocks - 1} <= set(read)


@pytest.mark.parametrize(
    ("memory", "share", "expected"),
    [
        pytest.param(6400, 0.0, 0.5, id="half-of-memory-holds-half-the-rows"),
        pytest.param(12800, 0.0, 1.0, id="all-rows-fit"),
        pytest.param(2048 * MIB, 0.0, 1.0, id="never-more-than-all"),
        pytest.param(3200, 0.5, 0.5, id="masked-rows-take-no-memory"),
    ],
)
def test_half_of_the_memory_holds_rows(memory: int, share: float, expected: float) -> None:
    use = np.arange(400) % 2 >= 2 * share
    source = open_source(np.zeros((400, 2)), mask=use)
    found = inspect(source, memory=memory, block_bytes=400 * 4)
    assert found.resident_share == pytest.approx(expected)
    assert found.memory_bytes >= expected * 6400 * (1 - share) + found.block_bytes


def test_each_thread_takes_memory_for_its_blocks() -> None:
    source = open_source(np.zeros((400_000, 2)))
    one, four = (inspect(source, threads=n, block_bytes=MIB) for n in (1, 4))
    assert four.memory_bytes - one.memory_bytes >= 3 * one.block_bytes


def tall(path: Path, chunks: tuple[int, int]) -> Source:
    """An array of 70 MiB without a chunk on disk, so that it takes no time."""
    zarr.create_array(path / "tall", shape=(17_920, 512), chunks=chunks, dtype="f8", fill_value=0)
    return open_source(path / "tall", missing_chunks="fill")


SMALL = "small: reading spends its time"
WAITING = "threads waiting"
UNALIGNED = "starts inside a chunk"
MASKED = "every cell probed is masked"
HUGE = "over half of compute.memory"
RESIDENT = "of the decoded rows stay in memory"
ADVICE: dict[str, tuple[Callable[[Path], Source], dict[str, Any], list[str]]] = {
    "nothing-to-say": (lambda p: tall(p, (1024, 512)), {}, []),
    "small-chunks": (lambda p: tall(p, (8, 512)), {}, [SMALL]),
    "one-row-per-chunk": (lambda p: tall(p, (1, 512)), {}, [SMALL]),
    "small-data-in-small-chunks": (
        lambda _: open_source(zarr.create_array({}, data=np.ones((40, 4)), chunks=(2, 4))),
        {},
        [],
    ),
    "fewer-blocks-than-threads": (lambda p: tall(p, (17_920, 512)), {"threads": 2}, [WAITING]),
    "as-many-blocks-as-threads": (lambda p: tall(p, (8960, 512)), {"threads": 2}, []),
    "block-too-large": (lambda p: tall(p, (17_920, 512)), {"memory": 128 * MIB}, [HUGE, RESIDENT]),
    "block-just-fits": (lambda p: tall(p, (17_920, 512)), {"memory": 140 * MIB}, []),
    "not-resident": (lambda p: tall(p, (1024, 512)), {"memory": 100 * MIB}, [RESIDENT]),
    "selection-inside-a-chunk": (
        lambda _: open_source(
            zarr.create_array({}, data=np.ones((40, 4)), chunks=(8, 4)), isel={"dim_0": {"start": 3}}
        ),
        {},
        [UNALIGNED],
    ),
    "selection-at-a-chunk-edge": (
        lambda _: open_source(
            zarr.create_array({}, data=np.ones((40, 4)), chunks=(8, 4)), isel={"dim_0": {"start": 8}}
        ),
        {},
        [],
    ),
    "all-masked": (lambda _: open_source(np.ones((40, 2)), mask=np.zeros(40, bool)), {}, [MASKED]),
}


@pytest.mark.parametrize(("make", "options", "expected"), ADVICE.values(), ids=ADVICE.keys())
def test_advice_is_given_where_it_is_due(
    tmp_path: Path, make: Callable[[Path], Source], options: dict[str, Any], expected: list[str]
) -> None:
    advice = inspect(make(tmp_path), **options).advice
    every = (SMALL, WAITING, UNALIGNED, MASKED, HUGE, RESIDENT)
    assert [next((known for known in every if known in line), line) for line in advice] == expected


def test_the_share_that_stays_in_memory_is_not_rounded_up_to_all() -> None:
    source = open_source(np.zeros((400, 2)))
    (line,) = inspect(source, memory=12_790, block_bytes=400).advice
    assert "100 %" not in line


@pytest.mark.parametrize(("dtype", "cautioned"), [("i4", True), ("f4", False)], ids=["whole-numbers", "fractions"])
def test_whole_numbers_whose_zeros_count_as_missing_are_pointed_out(
    tmp_path: Path, dtype: str, cautioned: bool
) -> None:
    group = zarr.open_group(tmp_path / "g", mode="w", zarr_format=2)
    array = group.create_array("counts", shape=(4, 2), chunks=(2, 2), dtype=dtype, fill_value=0)
    array.attrs["_ARRAY_DIMENSIONS"] = ["row", "feature"]
    array[:] = np.arange(8).reshape(4, 2)
    found = inspect(open_source(tmp_path / "g"))
    assert found.masked_share == 0.25
    assert any("'counts'" in line and "fill_value null" in line for line in found.advice) is cautioned
