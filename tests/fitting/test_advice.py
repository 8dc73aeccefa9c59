"""Each piece of advice is given where it is due, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from outlook import outlook, short_probes  # noqa: F401

from clustering.data import codecs, grouped
from clustering.data import source as source_module
from clustering.data.access import open_source
from clustering.data.plan import MIB
from clustering.data.source import Source


def tall(path: Path, chunks: tuple[int, int], **options: Any) -> Source:
    """An array of 70 MiB without a chunk on disk, so that it takes no time."""
    zarr.create_array(path / "tall", shape=(17_920, 512), chunks=chunks, dtype="f8", fill_value=0)
    return open_source(path / "tall", missing_chunks="fill", **options)


def small(path: Path, chunks: tuple[int, int] = (8, 4), **options: Any) -> Source:
    array = zarr.create_array(path / "small", shape=(40, 4), chunks=chunks, dtype="f8")
    array[...] = np.random.default_rng(0).standard_normal((40, 4))
    return open_source(path / "small", **options)


def two_chunkings(path: Path) -> Source:
    values = np.random.default_rng(0).standard_normal((34, 2))
    dataset = xr.Dataset(dict.fromkeys(("a", "b"), (("x", "y"), values)))
    encoding = {"a": {"chunks": (5, 2)}, "b": {"chunks": (17, 2)}}
    dataset.to_zarr(path / "s", zarr_format=3, consolidated=False, encoding=encoding)
    return open_source(path / "s", variables=["a", "b"])


SMALL = "small: reading spends its time"
WAITING = "block(s) are too few for"
READS = "times in a pass"
LABELS = "times in the label pass"
OTHERS = "other blocks than the passes"
SURPLUS = "times the selected values"
SLOW = "not in Rust"
MASKED = "every cell probed is masked"
HUGE = "over half of compute.memory"
RESIDENT = "stay in memory or on scratch between passes"
SAMPLE = "set fit.sample_rows to"
EVERY = (SAMPLE, SMALL, WAITING, READS, LABELS, OTHERS, SURPLUS, SLOW, MASKED, HUGE, RESIDENT)

ADVICE: dict[str, tuple[Callable[[Path], Source], dict[str, Any], list[str]]] = {
    "nothing-to-say": (lambda p: tall(p, (1024, 512)), {}, []),
    "small-chunks": (lambda p: tall(p, (8, 512)), {}, [SMALL]),
    "small-data-in-small-chunks": (lambda p: small(p, (2, 4)), {}, []),
    "fewer-blocks-than-threads": (lambda p: tall(p, (17_920, 512)), {"threads": 2}, [WAITING]),
    "as-many-blocks-as-threads": (lambda p: tall(p, (8960, 512)), {"threads": 2}, []),
    "block-too-large": (lambda p: tall(p, (17_920, 512)), {"memory": 128 * MIB}, [HUGE, SAMPLE, RESIDENT]),
    "block-just-fits": (lambda p: tall(p, (17_920, 512)), {"memory": 140 * MIB}, [SAMPLE]),
    "sample-just-fits": (lambda p: tall(p, (17_920, 512)), {"memory": 16 * 70 * MIB}, []),
    "not-resident": (lambda p: tall(p, (1024, 512)), {"memory": 100 * MIB}, [SAMPLE, RESIDENT]),
    "selection-inside-a-chunk": (lambda p: small(p, isel={"dim_0": {"start": 3}}), {"block_bytes": 256}, [LABELS]),
    "selection-inside-a-chunk-in-one-block": (lambda p: small(p, isel={"dim_0": {"start": 3}}), {}, [OTHERS]),
    "selection-at-a-chunk-edge": (lambda p: small(p, isel={"dim_0": {"start": 8}}), {}, []),
    "chunks-that-differ": (two_chunkings, {"block_bytes": 1}, [READS]),
    "chunks-that-differ-in-one-block": (two_chunkings, {}, []),
    "one-feature-of-a-chunk": (lambda p: small(p, isel={"dim_1": [2]}), {}, [SURPLUS]),
    "three-features-of-a-chunk": (lambda p: small(p, isel={"dim_1": [0, 1, 2]}), {}, []),
    "one-feature-in-chunks-of-one": (lambda p: small(p, (8, 1), isel={"dim_1": [2]}), {}, []),
    "all-masked": (lambda _: open_source(np.ones((40, 2)), mask=np.zeros(40, bool)), {}, [MASKED]),
}  # fmt: skip


@pytest.mark.parametrize(("make", "options", "expected"), ADVICE.values(), ids=ADVICE.keys())
def test_advice_is_given_where_it_is_due(
    tmp_path: Path, make: Callable[[Path], Source], options: dict[str, Any], expected: list[str]
) -> None:
    advice = outlook(make(tmp_path), **options).advice
    assert [next((text for text in EVERY if text in line), line) for line in advice] == expected


def test_advice_names_the_numbers_and_the_remedy(tmp_path: Path) -> None:
    (line,) = outlook(small(tmp_path, isel={"dim_0": {"start": 3}}), block_bytes=256).advice
    # Five chunks; five blocks that begin inside them, the last of which ends in its own.
    assert line.startswith("each chunk of 'values' is read 1.80 times in the label pass")
    assert "select along chunk edges" in line


def test_what_chunks_hold_beside_the_selection_can_go_to_scratch(tmp_path: Path) -> None:
    source = small(tmp_path, isel={"dim_1": [2]})
    (line,) = outlook(source).advice
    assert "4.0 times along dim_1), and the first pass reads" in line
    assert "compute.scratch" not in line
    line, _ = outlook(source, memory=320, block_bytes=64).advice
    assert "each pass reads" in line
    assert line.endswith("or set compute.scratch")
    (line,) = outlook(source, memory=320, block_bytes=64, scratch=str(tmp_path)).advice
    assert "the first pass reads" in line


def test_the_share_that_stays_is_not_rounded_up_to_all() -> None:
    source = open_source(np.random.default_rng(0).standard_normal((400, 2)))
    (line,) = outlook(source, memory=12_790, block_bytes=400).advice
    assert line.startswith("99 % of the rows")


def test_zarr_in_place_of_rust_is_pointed_out_where_it_costs(tmp_path: Path) -> None:
    source = tall(tmp_path, (1024, 512))
    held_by_others = open_source(zarr.open_array(tmp_path / "tall"), missing_chunks="fill")
    advice = outlook(held_by_others).advice
    assert [SLOW in line for line in advice] == ([True] if codecs.rust() else [])
    assert outlook(source).advice == []


@pytest.mark.parametrize(("dtype", "cautioned"), [("i4", True), ("f4", False)], ids=["whole-numbers", "fractions"])
def test_whole_numbers_whose_zeros_count_as_missing_are_pointed_out(
    tmp_path: Path, dtype: str, cautioned: bool
) -> None:
    group = zarr.open_group(tmp_path / "g", mode="w", zarr_format=2)
    array = group.create_array("counts", shape=(4, 2), chunks=(2, 2), dtype=dtype, fill_value=0)
    array.attrs["_ARRAY_DIMENSIONS"] = ["row", "feature"]
    array[:] = np.arange(8).reshape(4, 2)
    result = outlook(open_source(tmp_path / "g"))
    assert result.expected.masked_share == 0.25
    assert any("'counts'" in line and "fill_value null" in line for line in result.advice) is cautioned


def test_labels_that_take_too_much_memory_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (grouped, source_module):
        monkeypatch.setattr(module, "SMALL_LABELS", 100)
    labelled = xr.Dataset({"t": ("x", np.arange(400.0)), "u": ("x", np.ones(400))}, {"x": np.arange(400.0)})
    labelled.to_zarr(tmp_path / "s.zarr", zarr_format=3, consolidated=False)
    source = open_source(
        tmp_path / "s.zarr", select={"x": {"start": 0, "stop": 50}}, variables=["t", "u"], sample_dims=["x"]
    )
    looked = outlook(source, memory=8_000)
    assert looked.expected.memory.labels == 3_200
    assert not [line for line in looked.advice if "labels of" in line]
    (line,) = [line for line in outlook(source, memory=5_000).advice if "labels of" in line]
    assert line.startswith("the job would stop at once: the labels of 'x', ")
