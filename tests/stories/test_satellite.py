"""Land cover from satellite embeddings: bytes in shards, half of them never written, clustered by direction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from shipped import Quiet, Requests, listening, shipped
from sklearn.metrics import adjusted_rand_score

import clustering as c
from benchmarks.embeddings import satellite
from clustering.data.reading import read_block
from clustering.run.job import run_fit
from clustering.run.prepare import open_configured

SHARD, SIDE = 512, 1024
ALIGNED = "source.bbox=[8.0, 47.92, 8.085, 48.0]"
"""From the corner of the grid, where shards begin."""


@dataclass(frozen=True)
class FinishedRun:
    store: Path
    out: Path
    requests: Requests
    record: dict[str, Any]
    job: Any

    @property
    def labels(self) -> xr.Dataset:
        return xr.open_zarr(self.out / "labels.zarr", consolidated=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return satellite(tmp_path_factory.mktemp("satellite") / "satellite.zarr")


@pytest.fixture(scope="module", params=[(), (ALIGNED,)], ids=["inside shards", "from a shard's edge"])
def run(request: pytest.FixtureRequest, store: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    out = tmp_path_factory.mktemp("satellite") / "out"
    job = shipped("satellite-embeddings", store, out, *request.param)
    with listening() as requests:
        record = run_fit(job, Quiet(), requests)
    return FinishedRun(store, out, requests, record, job)


def test_planted_clusters_are_found_and_what_has_no_data_is_masked(run: FinishedRun) -> None:
    labels = run.labels
    planted = xr.open_zarr(run.store, consolidated=False)["planted"].sel(y=labels.y, x=labels.x).values
    predicted = labels["labels"].values
    assert predicted.shape == planted.shape
    assert predicted.dtype == np.int8
    assert 0.1 < (planted >= 0).mean() < 0.9
    assert np.array_equal(predicted == -1, planted == -1)
    assert adjusted_rand_score(planted[planted >= 0], predicted[planted >= 0]) > 0.99
    margin = labels["margin"]
    assert margin.dtype == np.float32
    assert np.array_equal(np.isnan(margin.values), planted == -1)
    assert (margin.values[planted >= 0] >= 0).all()
    # The fit uses one row in fifty, and the record says so.
    assert run.record["n_rows"] == (planted >= 0).sum()
    assert run.record["n_fitted"] == pytest.approx(0.02 * run.record["n_rows"], rel=0.1)


def test_centers_are_directions_and_know_their_bands(run: FinishedRun) -> None:
    centers = c.load_fit(run.out).centers
    assert centers["band"].values.tolist() == [f"A{band:02d}" for band in range(64)]
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1.0)


def test_labels_lie_where_the_data_do(run: FinishedRun) -> None:
    labels, source = run.labels, xr.open_zarr(run.store, consolidated=False)
    for name in ("y", "x"):
        part = source[name].sel({name: labels[name].values})
        assert labels[name].variable.identical(part.variable)
    for name in ("labels", "margin"):
        assert labels[name].encoding.get("grid_mapping", labels[name].attrs.get("grid_mapping")) == "spatial_ref"
    assert labels["spatial_ref"].attrs == source["spatial_ref"].attrs
    assert labels.attrs["proj:code"] == "EPSG:4326"
    # The transform is that of the whole grid, and the labels cover only a part of it.
    assert "spatial:transform" not in labels.attrs


def test_shards_of_labels_are_whole_blocks_and_each_is_written_once(run: FinishedRun) -> None:
    for name in ("labels", "margin"):
        array = zarr.open_array(run.out / "labels.zarr" / name, mode="r")
        assert (array.chunks, array.shards) == ((SHARD // 4,) * 2, (SHARD, SHARD))
        written = {
            key.rpartition("/c/")[2]: n for key, n in run.requests.put.items() if f"labels.zarr/{name}/c/" in key
        }
        assert written == {f"{i}/{j}": 1 for i in range(2) for j in range(2)}


def test_shards_are_read_once_in_a_pass_and_those_that_were_never_written_not_at_all(run: FinishedRun) -> None:
    first, label = (run.requests.asked(step, "embeddings/c/") for step in ("sample", "label"))
    held = {f"{run.store}/embeddings/c/0/0/{i}/{i}" for i in range(2)}
    assert {key for key, _ in first} == {key for key, _ in label} == held
    # Most cells have no data, and a few blocks are looked at once more to say why.
    assert set(first.values()) == {2}
    assert not run.requests.asked("fit", "embeddings/c/")
    assert run.record["reads"] == 2
    if ALIGNED.startswith("source.bbox=" + str(run.job.source.bbox)):
        assert label == dict.fromkeys(first, 1)
    # Where the selection starts inside a shard, blocks of labels end inside shards, and these are asked for twice.
    inner = {key for key in label if "RangeByte" in key[1]}
    assert max(label[key] for key in inner) <= 2


def test_rows_stay_bytes(run: FinishedRun) -> None:
    source = open_configured(run.job.source)
    block = source.plan().block(0)
    assert read_block(source, block, packed=True).values.dtype == np.int8
    assert source.kept_row_bytes == 64
