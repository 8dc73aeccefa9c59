"""The forecast of the rows that stay in memory is exact to the byte, and memory grows with each part that needs it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from outlook import outlook, short_probes  # noqa: F401

from clustering.data.access import open_source
from clustering.data.plan import MIB
from clustering.execution.block_cache import SCRATCH_SHARE
from clustering.fitting.forecast import Memory
from clustering.fitting.options import Options
from clustering.options import FitOptions

VALUES = np.random.default_rng(0).standard_normal((400, 2))


@pytest.mark.parametrize(
    ("memory", "share", "expected"),
    [
        pytest.param(6400, 0.0, 0.5, id="half-of-memory-holds-half-the-rows"),
        pytest.param(12800, 0.0, 1.0, id="all-rows-fit"),
        pytest.param(2048 * MIB, 0.0, 1.0, id="never-more-than-all"),
    ],
)
def test_half_of_the_memory_holds_rows(memory: int, share: float, expected: float) -> None:
    forecast = outlook(open_source(VALUES), memory=memory, block_bytes=400 * 4).expected
    assert forecast.rows_bytes == 6400
    assert forecast.kept_share == pytest.approx(expected)
    assert forecast.reread_share == pytest.approx(1 - expected)
    assert forecast.memory.kept == expected * 6400


def test_masked_rows_take_no_room_and_the_places_of_the_others_do() -> None:
    use = np.arange(400) % 2 == 0
    forecast = outlook(open_source(VALUES, mask=use), block_bytes=400 * 4).expected
    assert forecast.rows_bytes == 200 * (16 + 8)


def test_packed_rows_are_kept_as_they_are_stored(tmp_path: Path) -> None:
    import xarray as xr

    dataset = xr.Dataset({"t": (("x", "y"), np.linspace(0, 9, 600).reshape(200, 3))})
    packing = {"t": {"dtype": "i2", "scale_factor": 0.001, "_FillValue": -1, "chunks": (50, 3)}}
    dataset.to_zarr(tmp_path / "s", zarr_format=3, consolidated=False, encoding=packing)
    assert outlook(open_source(tmp_path / "s")).expected.rows_bytes == 200 * 6


def test_workers_share_the_rows() -> None:
    source = open_source(VALUES)
    one = outlook(source, memory=6400, block_bytes=1600).expected
    two = outlook(source, memory=6400, block_bytes=1600, processes=2).expected
    assert (one.kept_share, two.kept_share) == (0.5, 1.0)
    assert one.memory.kept == two.memory.kept == 3200
    assert one.residency == {"memory": 3200, "scratch": 0, "source": 3200}
    assert two.residency == {"memory": 6400, "scratch": 0, "source": 0}


def test_a_share_of_the_rows_takes_a_share_of_the_room() -> None:
    forecast = outlook(open_source(VALUES), options=Options(FitOptions(fraction=0.25)), block_bytes=1600).expected
    assert forecast.rows_bytes == 1600


def test_what_has_no_room_in_memory_goes_to_scratch(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    forecast = outlook(open_source(VALUES), memory=6400, block_bytes=1600, scratch=str(folder)).expected
    assert (forecast.kept_share, forecast.scratch_share, forecast.reread_share) == (0.5, 0.5, 0.0)
    assert forecast.scratch_bytes == pytest.approx(SCRATCH_SHARE * shutil.disk_usage(tmp_path).free, rel=0.2)
    assert forecast.residency == {"memory": 3200, "scratch": 3200, "source": 0}
    assert not folder.parent.exists()


def test_seconds_add_up() -> None:
    forecast = outlook(open_source(VALUES), memory=6400, block_bytes=1600).expected
    assert forecast.kept_seconds is not None
    assert forecast.reread_seconds == pytest.approx(forecast.kept_seconds + forecast.read_seconds)
    assert forecast.pass_seconds == pytest.approx(forecast.kept_seconds + 0.5 * forecast.read_seconds)
    assert forecast.most_passes == 300


def test_memory_is_the_sum_of_its_parts_and_each_thread_takes_some() -> None:
    source = open_source(np.random.default_rng(0).standard_normal((400_000, 2)))
    one, four = (outlook(source, threads=n, block_bytes=MIB).expected.memory for n in (1, 4))
    assert one.total == one.libraries + one.kept + one.at_work + one.statistics + one.sample
    assert one.kept == four.kept == 6_400_000
    assert four.at_work >= 3 * one.at_work > 0
    # Two samples that become one: four copies of 200,000 rows with their places, weights and priorities.
    assert one.sample == 4 * 200_000 * (16 + 24)


def test_memory_counts_libraries() -> None:
    assert Memory(1, 2, 3, 4, 5, 6).total == 21
    assert outlook(open_source(VALUES)).expected.memory.libraries > 50 * MIB
