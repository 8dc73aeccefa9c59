"""Plots of a run show what it wrote, with the names that users gave, and what moved since the version before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import clustering as c
from clustering.storage.names_file import write_names

WHERE: dict[str, Any] = {"sample_dims": ["time", "y", "x"], "feature_dims": []}


def field(shift: float = 0.0) -> xr.Dataset:
    rng = np.random.default_rng(4)
    values = 5.0 * rng.integers(0, 3, (3, 6, 8)) + rng.standard_normal((3, 6, 8))
    values[0] += shift
    return xr.Dataset({"t": (("time", "y", "x"), values)})


@pytest.fixture
def runs(tmp_path: Path) -> tuple[c.Run, c.Run]:
    options = {**WHERE, "variables": ["t"], "output": tmp_path / "out", "init": "model", "margin": True}
    first = c.run(field(), c.GaussianMixture(3), responsibilities="max", **options)
    return first, c.run(field(6.0), c.GaussianMixture(3), responsibilities="max", **options)


def test_what_a_run_wrote_is_drawn(runs: tuple[c.Run, c.Run], tmp_path: Path) -> None:
    write_names(tmp_path / "out", {"0": {"name": "cold", "colour": "#123456"}})
    run = runs[1]
    axes = run.plot.labels(time=0, ax=Figure())
    np.testing.assert_array_equal(axes.collections[0].get_array(), run.labels["labels"][0])
    for drawn, name in (
        (run.plot.margin(time=2, ax=Figure()), "margin"),
        (run.plot.responsibilities(time=2, ax=Figure()), "responsibility"),
    ):
        np.testing.assert_array_equal(drawn.collections[0].get_array(), run.labels[name][2])
    assert run.plot.sizes(ax=Figure()).get_xticklabels()[0].get_text() == "cold"
    assert len(run.plot.labels(frequency=True, ax=Figure()).collections) == 3


def test_transitions_are_the_weights_of_the_pairs_of_labels(runs: tuple[c.Run, c.Run]) -> None:
    first, second = runs
    before, now = (run.labels["labels"].values.reshape(-1) for run in runs)
    table = np.array([[np.sum((before == a) & (now == b)) for b in np.unique(now)] for a in np.unique(before)])
    image = second.plot.transitions(ax=Figure()).images[0].get_array()
    np.testing.assert_allclose(image, 100 * table / table.sum(axis=1, keepdims=True))
    with pytest.raises(c.ClusteringError, match="has no transitions"):
        first.plot.transitions()


def test_an_output_that_was_not_written_is_named_with_its_option(tmp_path: Path) -> None:
    run = c.run(field(), c.KMeans(2), variables=["t"], output=tmp_path / "out", write_labels=False, **WHERE)
    for draw, message in ((run.plot.labels, "wrote no labels; .*write_labels"), (run.plot.margin, "margin=True")):
        with pytest.raises(c.ClusteringError, match=message):
            draw()
    assert run.plot.labels(field(), ax=Figure(), **WHERE).collections
