from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.data.reading_options import ReadingOptions
from clustering.options import SourceOptions

ROWS = np.repeat([[1.0, 2.0], [20.0, 30.0]], 6, axis=0) + np.arange(24).reshape(12, 2) / 100


def written(path: Path, values: Any, chunks: tuple[int, int] = (4, 2), **options: Any) -> str:
    array = zarr.create_array(str(path), shape=values.shape, dtype=values.dtype, chunks=chunks, **options)
    array[:] = values
    return str(path)


def test_new_data_are_read_with_the_nodata_of_the_fit(tmp_path: Path) -> None:
    values = ROWS.copy()
    values[3] = -9999.0
    store = written(tmp_path / "a.zarr", values)
    fit = c.fit(store, c.KMeans(2), nodata=-9999)
    fit.save(tmp_path / "model.zarr")
    for one in (fit, c.load_fit(tmp_path / "model.zarr")):
        assert one.predict(store).values[3] == -1
        assert one.predict(zarr.open_array(store)).values[3] == -1
        # Its own value comes first, and None is one.
        assert one.predict(store, nodata=None).values[3] >= 0


def test_data_in_memory_are_read_with_the_nodata_of_a_fit_in_memory() -> None:
    values = ROWS.copy()
    values[3] = -9999.0
    data = xr.DataArray(values, dims=("x", "band"), name="v")
    fit = c.fit(data, c.KMeans(2), sample_dims=["x"], nodata={"v": -9999})
    assert fit.predict(data).values[3] == -1
    # A bare array has no names, so a number of the only variable is that of the array.
    assert fit.predict(values)[3] == -1


def test_a_number_of_a_store_says_nothing_of_data_in_memory(tmp_path: Path) -> None:
    store = written(tmp_path / "a.zarr", ROWS.astype(np.uint8) + np.arange(12, dtype=np.uint8)[:, None])
    fit = c.fit(store, c.KMeans(2), nodata=3)
    assert fit.predict(store).values[1] == fit.predict(store).values[2] == -1
    assert fit.predict(np.array([[3.0, 3.0]]))[0] >= 0


def test_new_stores_are_read_with_the_decoder_of_the_fit(tmp_path: Path) -> None:
    stored = np.repeat(np.array([[-120, 10], [60, -90]], np.int8), 6, axis=0)
    store = written(tmp_path / "a.zarr", stored)
    fit = c.fit(store, c.KMeans(2), decode="signed_square")
    np.testing.assert_array_equal(fit.predict(store), fit.predict(store, decode="signed_square"))
    decoded = np.sign(stored) * (stored / 127.5) ** 2
    np.testing.assert_array_equal(fit.predict(decoded), fit.predict(store))
    assert fit.score(store) == pytest.approx(fit.objective)


def test_absent_chunks_of_new_stores_mean_what_they_meant_in_the_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(str(path), shape=(12, 2), dtype="f8", chunks=(4, 2), fill_value=0.0)
    array[4:] = ROWS[4:]
    fit = c.fit(str(path), c.KMeans(2), missing_chunks="mask")
    assert (fit.predict(str(path)).values[:4] == -1).all()


def test_valid_ranges_are_ignored_where_the_fit_ignored_them() -> None:
    data = xr.DataArray(ROWS, dims=("x", "band"), name="v", attrs={"valid_max": 10.0})
    fit = c.fit(data, c.KMeans(2), sample_dims=["x"], valid_range="ignore")
    assert (fit.predict(data).values >= 0).all()


def test_a_run_keeps_the_options_in_its_model(tmp_path: Path) -> None:
    values = ROWS.copy()
    values[3] = -9999.0
    store = written(tmp_path / "a.zarr", values)
    run = c.run(store, c.KMeans(2), output=tmp_path / "out", nodata=-9999)
    assert run.fit.predict(store).values[3] == -1


def test_numbers_of_several_variables_are_not_those_of_an_array_without_names() -> None:
    options = {name: field.default for name, field in SourceOptions.model_fields.items()}
    reading = ReadingOptions.from_options({**options, "nodata": {"a": -1}}, ["a", "b"], stored=False)
    assert reading.values == {"nodata": {"a": -1}}
    assert reading.fill_in(SourceOptions(), stored=False, named=False).nodata is None
    assert reading.fill_in(SourceOptions(), stored=False, named=True).nodata == {"a": -1}
