from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from clustering.data.access import open_source
from clustering.data.feature_weights import feature_weights
from clustering.data.source import Source
from clustering.errors import ClusteringError


@pytest.fixture
def dataset(rng: np.random.Generator) -> xr.Dataset:
    return xr.Dataset(
        {
            "field": (("time", "lat", "lon"), rng.standard_normal((5, 3, 4))),
            "profile": (("lat", "time"), rng.standard_normal((3, 5))),
            "index": ("time", rng.standard_normal(5)),
            "thickness": (("lon", "lat"), np.arange(12.0).reshape(4, 3)),
            "hours": ("time", np.arange(5.0)),
            "below": ("lat", [1.0, -1.0, 1.0]),
            "unknown": ("lat", [1.0, np.nan, 1.0]),
            "nothing": ("lat", [0.0, 0.0, 0.0]),
            "words": ("lat", ["a", "b", "c"]),
        },
        coords={"lat": [-90.0, 0.0, 60.0], "lon": np.arange(4.0)},
    )


def opened(dataset: xr.Dataset, *variables: str, **options: Any) -> Source:
    return open_source(dataset, variables=variables, feature_dims=["lat", "lon"], sample_dims=["time"], **options)


COSINES = np.array([0.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("name", "expected"), [("cos(lat)", COSINES), ("sqrt(cos(lat))", np.sqrt(COSINES)), ("lon", None)]
)
def test_weights_lie_along_their_own_dimensions_and_others_have_one(
    name: str, expected: np.ndarray | None, dataset: xr.Dataset
) -> None:
    weights = feature_weights(opened(dataset, "field", "profile", "index"), name)
    if expected is None:
        np.testing.assert_allclose(weights, [*np.tile(np.arange(4.0), 3), 1.0, 1.0, 1.0, 1.0])
    else:
        np.testing.assert_allclose(weights, [*np.repeat(expected, 4), *expected, 1.0], atol=1e-7)


def test_weights_of_several_dimensions_are_in_the_order_of_the_features(dataset: xr.Dataset) -> None:
    source = opened(dataset, "field")
    np.testing.assert_array_equal(feature_weights(source, "thickness"), dataset["thickness"].values.T.ravel())


def test_weights_are_read_after_the_selection(dataset: xr.Dataset, tmp_path: Path) -> None:
    dataset.drop_vars("words").to_zarr(tmp_path / "data.zarr", consolidated=False, zarr_format=3)
    source = open_source(
        str(tmp_path / "data.zarr"), variables=["field"], feature_dims=["lat", "lon"], select={"lat": {"start": 0}}
    )
    np.testing.assert_allclose(feature_weights(source, "cos(lat)"), np.repeat(COSINES[1:], 4))


MISTAKES = {
    "unknown": ("latt", ["'latt'", "did you mean 'lat'?"]),
    "unknown in a cosine": ("cos(latitude)", ["'latitude'", "lat, lon"]),
    "no formula": ("sqrt(cos(lat)", ["'sqrt(cos(lat)'"]),
    "along samples": ("hours", ["'hours'", "lie along time", "features along lat, lon", "source.weights"]),
    "negative": ("below", ["'below'", "-1"]),
    "missing": ("unknown", ["'unknown'", "nan"]),
    "all zero": ("nothing", ["'nothing'", "all 0"]),
    "words": ("words", ["'words'", "no numbers"]),
}


@pytest.mark.parametrize(("name", "named"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_in_one_line(name: str, named: list[str], dataset: xr.Dataset) -> None:
    with pytest.raises(ClusteringError) as caught:
        feature_weights(opened(dataset, "field"), name)
    assert "\n" not in str(caught.value)
    for text in named:
        assert text in str(caught.value)


def test_weights_along_more_dimensions_than_a_variable_has_are_refused(dataset: xr.Dataset) -> None:
    with pytest.raises(ClusteringError, match=r"'thickness' lie along lon, lat, and variable 'profile' along lat only"):
        feature_weights(opened(dataset, "field", "profile"), "thickness")
