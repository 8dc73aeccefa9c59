"""The forecast of the rows that stay in memory is exact to the byte, and memory grows with each part that needs it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from outlook import outlook, short_probes  # noqa: F401

import clustering
from clustering.data.access import open_source
from clustering.data.plan import MIB
from clustering.execution.block_cache import SCRATCH_SHARE
from clustering.fitting.forecast import Memory
from clustering.fitting.options import Options, options_for
from clustering.models.kmeans import KMeans
from clustering.models.mixture import GaussianMixture
from clustering.options import FitOptions, PreprocessOptions

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
    options = Options(FitOptions(accelerate="none"))
    forecast = outlook(open_source(VALUES), memory=6400, block_bytes=1600, options=options).expected
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


@pytest.mark.parametrize("accelerate", ["auto", "none"])
def test_a_fit_reads_as_often_as_forecast(accelerate: str, tmp_path: Path) -> None:
    """Passes over rows near a boundary read nothing, and the full reads between them read all of the source."""
    values = np.random.default_rng(0).standard_normal((4000, 8))
    array = zarr.create_array(str(tmp_path / "s"), shape=values.shape, chunks=(100, 8), dtype="f8")
    array[:] = values
    options: Any = {"max_iterations": 12, "accelerate": accelerate, "tolerance": 0.0}
    source, memory = open_source(str(tmp_path / "s")), 2 * array.nbytes // 4
    chosen = options_for(KMeans(3), FitOptions(**options), PreprocessOptions())
    expected = outlook(source, KMeans(3), memory=memory, block_bytes=6400, options=chosen).expected
    # Rows as centers have a longer way than a start that has converged on the row sample.
    fit = clustering.fit(source, KMeans(3), memory=memory, block_bytes=6400, init=values[:3], **options)
    # The passes ended before they converged, so a label pass measured the objective.
    reads = fit.reads - expected.first_reads - expected.label_reads
    least, most = expected.fit_reads
    assert (expected.near_share is None) == (accelerate == "none")
    if accelerate == "none":
        assert least == most == pytest.approx(12 * expected.reread_share)
        assert reads == pytest.approx(most)
    else:
        assert (least, most) == (1.0, 12.0)
        assert least <= reads < most
        assert expected.near_seconds is not None
        assert expected.near_seconds < (expected.kept_seconds or 0.0)


def test_rows_near_a_boundary_leave_none_for_the_label_pass() -> None:
    source = open_source(VALUES)
    budgeted = outlook(source, memory=6400, block_bytes=1600).expected
    plain = outlook(source, memory=6400, block_bytes=1600, options=Options(FitOptions(accelerate="none"))).expected
    assert (budgeted.label_reads, plain.label_reads) == (1.0, 0.5)
    assert outlook(source).expected.near_share is None


def test_what_workers_keep_together_does_not_spare_full_reads() -> None:
    """The budget follows the memory of one worker, so that its result does not depend on their number."""
    two = outlook(open_source(VALUES), memory=6400, block_bytes=1600, processes=2).expected
    assert (two.kept_share, two.near_share, two.fit_reads) == (1.0, 0.45, (1.0, 300.0))


def test_models_without_margins_pass_over_all_rows() -> None:
    forecast = outlook(open_source(VALUES), GaussianMixture(2), memory=6400, block_bytes=1600).expected
    assert (forecast.near_share, forecast.near_seconds) == (None, None)
    assert forecast.fit_reads == (150.0, 150.0)
