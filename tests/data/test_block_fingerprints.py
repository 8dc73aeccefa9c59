from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from clustering.data.access import open_source
from clustering.data.block_fingerprints import BlockFingerprints, extent
from clustering.data.plan import plan_like


@pytest.fixture
def store(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    data = xr.Dataset(
        {
            "a": (("time", "lat", "level"), rng.random((12, 6, 4)), {"units": "K", "history": "made"}),
            "b": (("time", "lat"), rng.random((12, 6))),
            "sea": (("lat",), rng.random(6) > 0.3),
        },
        coords={"time": np.arange(12), "lat": np.linspace(-60, 60, 6)},
    )
    path = tmp_path / "store.zarr"
    encoding = {"a": {"chunks": (2, 3, 4)}, "b": {"chunks": (4, 6)}}
    data.to_zarr(path, consolidated=False, zarr_format=3, encoding=encoding)
    return path


def identities(store: Path, **options: Any) -> BlockFingerprints:
    source = open_source(store, **{"variables": ["a"], "sample_dims": ["time", "lat"], **options})
    fingerprints = BlockFingerprints.for_plan(source, source.plan(block_bytes=1, whole_chunks=False))
    assert fingerprints is not None
    return fingerprints


def test_each_block_has_its_own_fingerprint_and_another_opening_gives_the_same(store: Path) -> None:
    fingerprints = identities(store)
    assert len({*fingerprints}) == len({start for start, _ in fingerprints}) == len(fingerprints.plan) == 12
    assert [*identities(store)] == [*fingerprints] == [*pickle.loads(pickle.dumps(fingerprints))]


def test_a_chunk_that_is_written_anew_changes_the_blocks_that_it_belongs_to(store: Path) -> None:
    before = [*identities(store, variables=["a", "b"])]
    zarr.open_group(store)["b"][4] = 0.5
    after = [*identities(store, variables=["a", "b"])]
    changed = [i for i, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    # With both variables, each block holds four times.
    assert [start for start, _ in before] == [start for start, _ in after]
    assert changed == [1]
    # A variable that is not clustered does not count.
    assert [*identities(store)] == [*identities(store, variables=["a"])]


@pytest.mark.parametrize(
    "options",
    [
        {"missing": "error"}, {"weights": "cos(lat)"}, {"mask": "sea"}, {"isel": {"level": slice(0, 3)}},
        {"nodata": 3.5}, {"missing_chunks": "mask"},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_another_way_of_reading_is_another_content(store: Path, options: dict[str, Any]) -> None:
    before, after = [*identities(store)], [*identities(store, **options)]
    assert not {content for _, content in before} & {content for _, content in after}


def test_values_of_masks_and_coordinates_count_where_they_are_used(store: Path) -> None:
    before = [*identities(store, mask="sea")]
    group = zarr.open_group(store)
    group["sea"][0] = not group["sea"][0]
    after = [*identities(store, mask="sea")]
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, False] * 6


def test_growth_and_a_history_leave_what_is_there_as_it_is(store: Path) -> None:
    before = [*identities(store)]
    group = zarr.open_group(store)
    for name in ("a", "b", "time"):
        group[name].resize((14, *group[name].shape[1:]))
        group[name][12:] = 1 if name != "time" else [12, 13]
    array = group["a"]
    array.attrs["history"] = "grown"
    after = [*identities(store)]
    assert after[:12] == before
    assert len(after) == 14
    array.attrs["scale_factor"] = 2.0
    assert not {*identities(store)} & {*after}


def test_places_count_in_the_store_and_not_in_the_selection(store: Path) -> None:
    whole = {*identities(store)}
    later = {*identities(store, isel={"time": slice(4, 12)})}
    assert later < whole
    assert len(later) == 8


def test_data_in_memory_and_stores_that_cannot_list_have_none(store: Path) -> None:
    source = open_source(np.zeros((4, 2)))
    assert BlockFingerprints.for_plan(source, source.plan()) is None


def test_a_plan_like_another_keeps_its_blocks_while_the_store_grows(store: Path) -> None:
    source = open_source(store, variables=["a"], sample_dims=["time", "lat"])
    plan = source.plan(block_bytes=4 * 6 * 4 * 8)
    assert plan.joined == (2, 2)
    alike = plan_like(source.plan(block_bytes=1), plan.joined, 10**9)
    assert [alike.block(i) for i in range(len(alike))] == [plan.block(i) for i in range(len(plan))]
    assert plan_like(source.plan(block_bytes=1), plan.joined, 100) == source.plan(block_bytes=1)
    assert plan_like(plan, (1,), 10**9) is plan


def test_extent_names_labels_of_what_does_not_fill_a_dimension(store: Path) -> None:
    source = open_source(store, variables=["a"], sample_dims=["time", "lat"])
    plan = source.plan(block_bytes=1)
    assert extent(source, [plan.block(2), plan.block(5)]) == {"time": [2, 5]}
    assert extent(source, [plan.block(11)]) == {"time": [10, 11], "lat": [12.0, 60.0]}
    assert extent(source, []) == {}
