"""What is announced of reads is what a pass reads, chunk by chunk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from clustering.data.access import open_source
from clustering.data.amplification import count_chunk_reads
from clustering.data.reading import read_block

SELECTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "inside-chunks": {"y": {"start": 3, "stop": 19}, "x": {"start": 2}},
    "step": {"y": {"start": 1, "step": 3}},
    "long-step": {"y": {"step": 11}},
    "scattered": {"y": [1, 2, 6, 8, 19]},
    "there-and-back": {"y": [1, 9, 2, 8, 19]},
    "one-feature": {"f": [3]},
}


@pytest.mark.parametrize("whole_chunks", [True, False])
@pytest.mark.parametrize("block_bytes", [1, 300, 10_000])
@pytest.mark.parametrize("isel", SELECTIONS.values(), ids=SELECTIONS.keys())
def test_reads_are_announced_exactly(
    tmp_path: Path, requests: Counter[str], isel: dict[str, Any], block_bytes: int, whole_chunks: bool
) -> None:
    group = zarr.create_group(tmp_path / "s")
    for name, chunks in {"a": (5, 3, 2), "b": (4, 6, 4)}.items():
        group.create_array(name, data=np.ones((20, 6, 4)), chunks=chunks, dimension_names=tuple("yxf"))
    source = open_source(tmp_path / "s", variables=["a", "b"], sample_dims=["y", "x"], isel=isel)
    plan = source.plan(block_bytes=block_bytes, whole_chunks=whole_chunks)
    requests.clear()
    for i in range(len(plan)):
        read_block(source, plan.block(i))
    for told in count_chunk_reads(source, plan):
        read = {key: n for key, n in requests.items() if key.startswith(f"{told.variable}/c/")}
        assert (told.chunks, told.reads) == (len(read), sum(read.values()))
    if whole_chunks and isel.get("y") != [1, 9, 2, 8, 19]:
        assert all(told.amplification == 1 for told in count_chunk_reads(source, plan) if told.variable == "a")
