"""The accessor of xarray's objects, and what a fit remembers of dimensions."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
import clustering.xarray
from clustering.errors import DataError

SQUARE = np.random.default_rng(0).standard_normal((6, 6))
FIELD = xr.DataArray(SQUARE, dims=("station", "band"), name="t")


@pytest.mark.parametrize(
    ("method", "model", "options"),
    [
        ("kmeans", c.KMeans(2), {}),
        ("kmeans", c.KMeans(2, "cosine"), {"divergence": "cosine"}),
        ("soft_kmeans", c.SoftKMeans(2, 0.5), {"beta": 0.5}),
        ("gaussian_mixture", c.GaussianMixture(2, "diagonal"), {"covariance": "diagonal"}),
        ("von_mises_fisher", c.VonMisesFisher(2), {}),
    ],
)
@pytest.mark.parametrize("data", [FIELD, FIELD.to_dataset()], ids=["array", "dataset"])
def test_methods_fit_as_the_function_does(data: Any, method: str, model: Any, options: dict[str, Any]) -> None:
    fit = getattr(data.cluster, method)(k=2, sample_dims="station", **options)
    assert fit.model == model
    xr.testing.assert_identical(fit.centers, c.fit(data, model, sample_dims="station").centers)
    assert data.cluster.fit(model, sample_dims="station").objective == fit.objective


def test_methods_show_their_options() -> None:
    shown = inspect.signature(FIELD.cluster.gaussian_mixture).parameters
    assert {"k", "covariance", "sample_dims", "mask", "memory"} <= set(shown)


IMPORTS = {
    "xarray first": "import xarray as xr, clustering as c",
    "by name": "import clustering.xarray, xarray as xr",
    "loaded by the library": "import clustering as c, xarray as xr; c.open_source(xr.DataArray([[1.0]]))",
}


@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS)
def test_it_is_registered_in_any_order_of_imports(imports: str) -> None:
    code = f"{imports}\nassert xr.DataArray([[1.0], [2.0]]).cluster.kmeans"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_fit_needs_no_dimensions_again_and_finds_its_own_in_a_square(tmp_path: Path) -> None:
    fit = c.fit(FIELD, c.KMeans(2), sample_dims="station")
    labels = fit.predict(FIELD)
    xr.testing.assert_identical(fit.predict(FIELD.T), labels)
    swapped = zarr.create_array(tmp_path / "swapped", shape=(6, 6), dtype="f8", dimension_names=("band", "station"))
    swapped[:] = SQUARE.T
    assert fit.predict(swapped).values.tolist() == labels.values.tolist()
    dask = FIELD.T.chunk(3)
    assert fit.predict(dask).values.tolist() == labels.values.tolist()


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (FIELD, {"sample_dims": "band"}),
        (FIELD.T, {"sample_dims": "band"}),
        (FIELD, {"feature_dims": "station"}),
        (FIELD.rename(station="x", band="y"), {}),
    ],
)
def test_a_fit_refuses_a_square_whose_features_lie_elsewhere(data: Any, options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="and the model's along band; name feature_dims as for the fit"):
        c.fit(FIELD, c.KMeans(2), sample_dims="station").predict(data, **options)
