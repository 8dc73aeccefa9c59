"""Cell types of a multiplexed tissue image, OME-Zarr 0.4 and 0.5: channels by name, each in chunks of its own."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from shipped import Quiet, listening, shipped
from sklearn.metrics import adjusted_rand_score

import clustering as c
from benchmarks.embeddings import CHANNELS, tissue
from clustering.run.job import run_fit

SIDE, CHUNK = 512, 128


@pytest.fixture(scope="module", params=[2, 3], ids=["0.4", "0.5"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tissue")
    store = tissue(folder / "image.zarr", side=SIDE, chunk=CHUNK, zarr_format=request.param)
    job = shipped("tissue-image", store, folder / "out")
    with listening() as requests:
        record = run_fit(job, Quiet(), requests)
    return store, folder / "out", requests, record, job


def array(path: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(path, mode="r")[...])


def test_planted_cell_types_are_found_and_background_is_masked(run: Any) -> None:
    store, out, _, record, _ = run
    planted, labels = array(store / "planted" / "0"), array(out / "labels.zarr" / "labels")
    assert labels.dtype == np.int8
    assert np.array_equal(labels == -1, array(store / "labels" / "tissue" / "0") == 0)
    inside = labels >= 0
    assert adjusted_rand_score(planted[inside], labels[inside]) > 0.99
    assert record["n_masked"] == (~inside).sum()
    assert record["n_fitted"] == pytest.approx(0.05 * inside.sum(), rel=0.05)


def test_centers_are_mean_lights_of_named_channels(run: Any) -> None:
    store, out, _, _, job = run
    centers = c.load_fit(out).centers
    names = job.source.select["c"]
    assert centers["c"].values.tolist() == names
    assert not {"SMA", "Autofluorescence"} & set(names)
    image, labels = array(store / "0"), array(out / "labels.zarr" / "labels")
    for name in ("CD3", "PanCK"):
        channel = image[CHANNELS.index(name)]
        means = [channel[labels == k].mean() for k in range(20)]
        # They were learned from one pixel in twenty.
        np.testing.assert_allclose(centers[:, names.index(name)], means, rtol=0.05)


def test_chunks_of_the_channels_are_read_once_in_a_pass_and_others_not_at_all(run: Any) -> None:
    _, _, requests, record, _ = run
    for step in ("sample", "label"):
        chunks: Counter[tuple[int, ...]] = Counter()
        for (key, _), n in requests.asked(step, "image.zarr/0/").items():
            numbers = re.search(r"image\.zarr/0/(?:c/)?(\d+)/(\d+)/(\d+)$", key)
            if numbers:
                chunks[tuple(map(int, numbers.groups()))] += n
        assert chunks == {(k, i, j): 1 for k in range(10) for i in range(4) for j in range(4)}
    assert not requests.asked("fit", "image.zarr/")
    masks = sum((requests.asked(step, "labels/tissue/0/") for step in ("sample", "fit", "label")), Counter())
    assert set(masks.values()) == {1}
    assert record["reads"] == 2
