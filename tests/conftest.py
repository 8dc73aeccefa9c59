"""What all tests share: a home folder that is thrown away, and small stores."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

# This runs before imports that read settings or caches from the home folder. Processes that tests start inherit it.
_HOME = tempfile.TemporaryDirectory(prefix="clustering-tests-")
os.environ.update(
    HOME=_HOME.name,
    PREFECT_HOME=f"{_HOME.name}/prefect",
    MPLCONFIGDIR=f"{_HOME.name}/matplotlib",
    DASK_CONFIG=f"{_HOME.name}/dask",
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW="ignore",
)
os.environ.pop("PREFECT_API_URL", None)
# The tests use no credentials of the user, and ask no cloud machine for any.
for _name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
    del os.environ[_name]
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
# Parallel test processes slow each other down if each of them starts one thread per processor.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import xarray as xr  # noqa: E402
from hypothesis import settings  # noqa: E402
from s3 import bucket, s3_server  # noqa: E402, F401

# The suite tries the same examples each time; --hypothesis-profile=search looks for others.
settings.register_profile("suite", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=50)
settings.load_profile("suite")


def pytest_collection_finish() -> None:
    # Imported modules and collected tests live until the end. Freezing them saves the collector a second each time.
    gc.collect()
    gc.freeze()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def blobs(rng: np.random.Generator) -> np.ndarray:
    """Rows (600, 3) around four well separated centers."""
    centers = np.array([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [0.0, 10.0, 0.0], [0.0, 0.0, 10.0]])
    return centers[rng.integers(0, 4, 600)] + rng.standard_normal((600, 3))


@pytest.fixture
def field_store(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A Zarr group with a field (time 12, lat 9, lon 10), chunked (5, 4, 10), and a mask."""
    time = np.arange("2001-01-01", "2001-01-13", dtype="datetime64[D]").astype("datetime64[ns]")
    values = rng.standard_normal((12, 9, 10)).astype(np.float32)
    dataset = xr.Dataset(
        {
            "t": (("time", "lat", "lon"), values + 280, {"units": "K"}),
            "q": (("time", "lat", "lon"), values[::-1] * 2),
            "sea": (("lat", "lon"), rng.random((9, 10)) > 0.3),
        },
        coords={"time": time, "lat": np.linspace(80, -80, 9), "lon": np.arange(0.0, 360.0, 36.0)},
    )
    path = tmp_path / "field.zarr"
    encoding = {name: {"chunks": (5, 4, 10)} for name in ("t", "q")}
    dataset.to_zarr(path, consolidated=False, zarr_format=3, encoding=encoding)
    return path
