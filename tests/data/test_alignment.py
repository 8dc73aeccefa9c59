"""Masks, weights, labels and feature weights given as arrays lie where their names and labels say, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.data.access import open_source
from clustering.data.reading import read_block
from clustering.errors import ClusteringError, ConfigError, DataError, SourceError

LAT, LON = np.linspace(-50, 50, 6), np.arange(0.0, 360.0, 90.0)
CELLS = np.arange(24.0).reshape(6, 4)
FIELD = xr.DataArray(CELLS, {"lat": LAT, "lon": LON}, ("lat", "lon"), name="t")
MASK = xr.DataArray(np.arange(24).reshape(6, 4) % 5 > 1, FIELD.coords, FIELD.dims)
OPTIONS: dict[str, Any] = {"feature_dims": []}


def on_grid(data: Any, **options: Any) -> dict[str, np.ndarray]:
    """Read which cells of the grid are used, and their weights and labels."""
    source = open_source(data, **{**OPTIONS, **options})
    rows = read_block(source, source.plan().block(0))
    used = rows.to_grid(np.ones(len(rows), bool), False).reshape(source.shape)
    labels = np.zeros(len(rows), "i4") if rows.labels is None else rows.labels
    return {
        "mask": used,
        "weights": rows.to_grid(np.array(rows.weights), 0.0).reshape(source.shape),
        "labels": rows.to_grid(np.array(labels), -1).reshape(source.shape),
    }


WAYS: dict[str, Callable[[xr.DataArray], Any]] = {
    "as-it-is": lambda a: a,
    "transposed": lambda a: a.T,
    "from-north": lambda a: a[::-1],
    "shuffled": lambda a: a[[3, 0, 5, 1, 4, 2], [2, 0, 3, 1]].T,
    "without-labels": lambda a: a.drop_vars(["lat", "lon"]),
    "without-some-labels": lambda a: a.drop_vars("lon").T,
    "more-than-is-needed": lambda a: a.reindex(lat=[-70, -60, *LAT[::-1]], lon=[*LON, 45.0], fill_value=7),
    "single-precision": lambda a: a.assign_coords(lat=LAT.astype("f4"))[::-1],
    "another-turn": lambda a: a.assign_coords(lon=[0.0, 90.0, -180.0, -90.0]).sortby("lon"),
    "one-long-dimension": lambda a: a.expand_dims(member=[3]),
    "lazy": lambda a: a[::-1].chunk(lat=4),
    "variable": lambda a: a.T.variable,
    "pandas": lambda a: a.T.to_series().sample(frac=1, random_state=0),
    "frame": lambda a: a.T.to_pandas(),
    "zarr": lambda a: named_zarr(a.T),
    "ndarray": lambda a: a.values,
    "list": lambda a: a.values.tolist(),
    "dask": lambda a: da.from_array(a.values, chunks=3),
    "unnamed-zarr": lambda a: zarr.create_array({}, data=a.values),
}


def named_zarr(array: xr.DataArray) -> zarr.Array[Any]:
    return zarr.create_array({}, data=array.values, dimension_names=array.dims)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("where", ["mask", "weights", "labels"])
def test_an_array_is_matched_by_name_and_label(where: str, way: Callable[[xr.DataArray], Any]) -> None:
    array = MASK if where == "mask" else xr.DataArray(np.arange(24).reshape(6, 4), FIELD.coords, FIELD.dims)
    assert np.array_equal(on_grid(FIELD, **{where: way(array)})[where], array.values)


@pytest.mark.parametrize("way", [WAYS["from-north"], WAYS["ndarray"]], ids=["xarray", "ndarray"])
def test_a_store_takes_arrays_as_data_in_memory_do(tmp_path: Any, way: Callable[[xr.DataArray], Any]) -> None:
    FIELD.to_zarr(tmp_path / "s", consolidated=False)
    assert np.array_equal(on_grid(tmp_path / "s", mask=way(MASK), weights=way(MASK))["weights"], MASK.values)


def test_fewer_dimensions_than_the_samples_are_spread_by_name() -> None:
    by_lon = xr.DataArray([0, 1, 2, 3], {"lon": LON}, ("lon",))
    assert np.array_equal(on_grid(FIELD, weights=by_lon[::-1])["weights"], np.tile([0, 1, 2, 3], (6, 1)))
    assert np.array_equal(on_grid(FIELD, mask=MASK[:, 1])["mask"], np.tile(MASK[:, 1:2].values, (1, 4)))
    series = pd.Series([3, 2, 1, 0], pd.Index(LON[::-1], name="lon"))
    assert np.array_equal(on_grid(FIELD, weights=series)["weights"], np.tile([0, 1, 2, 3], (6, 1)))


def test_labels_decide_after_a_selection_too() -> None:
    isel = {"lat": [4, 1, 2], "lon": {"start": 1, "step": 2}}
    expected = MASK[[4, 1, 2], 1::2]
    for array in (MASK, MASK.T[::-1], expected, expected.values, expected.drop_vars(["lat", "lon"])):
        assert np.array_equal(on_grid(FIELD, mask=array, isel=isel)["mask"], expected.values)
    # Where one position of a dimension was selected, the array is read at this position.
    for array in (MASK, MASK.T[::-1], MASK[:, 2].drop_vars("lon")):
        assert np.array_equal(on_grid(FIELD, mask=array, isel={"lon": 2})["mask"], MASK[:, 2].values)


TIMES = pd.date_range("2000-01-01", periods=4)
OTHER_LABELS = {
    "dates": TIMES,
    "words": ["b", "a", "d", "c"],
    "other-calendar": xr.date_range("2000-02-27", periods=4, calendar="360_day", use_cftime=True),
    "mixed": np.array([1, "a", 2.5, "b"], object),
}


@pytest.mark.parametrize("labels", OTHER_LABELS.values(), ids=OTHER_LABELS)
def test_labels_of_any_kind_are_matched(labels: Any) -> None:
    field = xr.DataArray(np.arange(4.0), {"x": labels}, ("x",))
    weights = xr.DataArray([1.0, 2.0, 3.0, 4.0], {"x": labels}, ("x",))
    assert on_grid(field, weights=weights[[2, 0, 3, 1]])["weights"].tolist() == [1, 2, 3, 4]
    with pytest.raises(SourceError, match="'weights' has no value for 1 of 4 labels of 'x'"):
        on_grid(field, weights=weights[:3])


def test_equal_labels_are_taken_in_their_order_or_not_at_all() -> None:
    field = xr.DataArray(np.arange(4.0), {"x": [1.0, 2.0, 2.0, 3.0]}, ("x",))
    weights = xr.DataArray([1.0, 2.0, 3.0, 4.0], field.coords, ("x",))
    assert on_grid(field, weights=weights)["weights"].tolist() == [1, 2, 3, 4]
    # One value may apply to several cells, but a cell must not have several values.
    assert on_grid(field, weights=weights[[3, 1, 0]])["weights"].tolist() == [1, 2, 2, 4]
    for labels in ([1.0, 2.0, 2.0, 3.0], list("abbc")):
        both = (a.assign_coords(x=labels) for a in (field, weights))
        with pytest.raises(SourceError, match=r"'weights' has several values for 2 of 4 labels of 'x', (2.0|b) among"):
            on_grid(next(both), weights=next(both)[::-1])


REFUSED: dict[str, tuple[Any, str]] = {
    "other-labels": (MASK.assign_coords(lat=LAT + 1000), "no value for 6 of 6 labels of 'lat', -50.0 .* from 950.0"),
    "some-labels": (MASK[1:, ::-1], "no value for 1 of 6 labels of 'lat', -50.0 among"),
    "dates-for-numbers": (MASK.assign_coords(lon=TIMES), "no value for 4 of 4 labels of 'lon'"),
    "other-names": (
        MASK.rename(lat="y", lon="x"),
        "lies along y, x, and 'y' is no sample dimension; allowed: lat, lon",
    ),
    "no-names": (xr.DataArray(MASK.values), "dim_0, dim_1, and 'dim_0' is no sample dimension"),
    "one-more-dimension": (MASK.expand_dims(member=2), "'member' is no sample dimension"),
    "another-length": (MASK.drop_vars("lat")[1:], "length 5 along 'lat', and the selected samples have 6"),
    "no-dimension": (xr.DataArray(True), "no dimension of the samples"),
    "dataset": (MASK.to_dataset(name="m"), "is a Dataset; give one of its variables"),
    "transposed-ndarray": (MASK.values.T, r"mask has shape \(4, 6\); the samples have shape \(6, 4\)"),
    "ragged": ([[1, 0], [1]], "lists of several lengths"),
    "series-without-a-name": (pd.Series(np.ones(24)), "Series whose index has no name"),
    "frame-without-names": (pd.DataFrame(MASK.values), "DataFrame whose index has no name"),
    "series-twice": (pd.concat([MASK.to_series()] * 2), "makes no grid"),
    "named-zarr": (zarr.create_array({}, data=MASK.values.T, dimension_names=("x", "y")), "'x' is no sample dimension"),
    "strings": (np.full((6, 4), "a"), "has type"),
}


@pytest.mark.parametrize(("array", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(array: Any, said: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        on_grid(FIELD, mask=array)
    assert "\n" not in str(caught.value)


def test_arrays_along_features_are_refused() -> None:
    mask = xr.DataArray(np.ones((6, 4), bool), FIELD.coords, FIELD.dims)
    with pytest.raises(SourceError, match="lies along lat, lon, and 'lon' is no sample dimension; allowed: lat"):
        on_grid(FIELD, mask=mask, feature_dims="lon")


ROWS = np.arange(12.0).reshape(6, 2)


@pytest.mark.parametrize("wrap", [np.asarray, lambda a: da.from_array(a, chunks=(4, 2))], ids=["ndarray", "dask"])
def test_rows_without_names_take_arrays_by_position(wrap: Callable[[np.ndarray], Any]) -> None:
    weights = np.arange(6.0)
    dated = xr.DataArray(weights, {"time": pd.date_range("2000-01-01", periods=6)}, "time")
    for array in (
        weights, weights.tolist(), dated,
        pd.Series(weights, list("abcdef")), da.from_array(weights), zarr.create_array({}, data=weights),
    ):  # fmt: skip
        assert on_grid(wrap(ROWS), feature_dims=["feature"], weights=array)["weights"].tolist() == weights.tolist()
    with pytest.raises(SourceError, match="'lat' is no sample dimension"):
        on_grid(wrap(ROWS), feature_dims=["feature"], weights=MASK)


def test_all_that_a_fit_does_takes_arrays_in_the_same_way() -> None:
    turned = MASK.T[::-1]
    fit = c.fit(FIELD, c.GaussianMixture(k=1), restarts=1, mask=turned, weights=turned + 1, **OPTIONS)
    same = c.fit(FIELD, c.GaussianMixture(k=1), restarts=1, mask=MASK.values, weights=MASK.values + 1, **OPTIONS)
    assert np.array_equal(fit.centers, same.centers)
    for name in ("predict", "margin", "distance", "distances", "log_density", "outlier_score", "responsibilities"):
        actual, expected = (getattr(fit, name)(FIELD, mask=mask, **OPTIONS) for mask in (turned, MASK.values))
        assert np.array_equal(actual, expected, equal_nan=True), name
        with pytest.raises(SourceError, match="no value for 6 of 6 labels"):
            getattr(fit, name)(FIELD, mask=MASK.assign_coords(lat=LAT + 1000), **OPTIONS)
    assert fit.score(FIELD, weights=turned + 1, **OPTIONS) == fit.score(FIELD, weights=MASK.values + 1, **OPTIONS)


def test_labels_start_clusters_where_their_names_say() -> None:
    labels = xr.where(FIELD < 12, 0, 1)
    options = {**OPTIONS, "init": "labels", "max_iterations": 0}
    for array in (labels, labels.T[::-1], labels.values):
        assert c.fit(FIELD, c.KMeans(k=2), labels=array, **options).centers.values[:, 0].tolist() == [5.5, 17.5]


# Masked arrays

HIDDEN = np.arange(24).reshape(6, 4) % 7 == 3


def test_masked_cells_of_masks_weights_and_labels_do_not_count() -> None:
    for wrap in (np.asanyarray, lambda a: da.from_array(a, chunks=2)):
        masked = wrap(np.ma.masked_array(MASK.values, HIDDEN))
        assert np.array_equal(on_grid(FIELD, mask=masked)["mask"], MASK.values & ~HIDDEN)
        for dtype in ("f8", "i4"):
            masked = wrap(np.ma.masked_array(np.where(HIDDEN, 9999, 2).astype(dtype), HIDDEN))
            assert np.array_equal(on_grid(FIELD, weights=masked)["weights"], np.where(HIDDEN, 0, 2))
            assert np.array_equal(on_grid(FIELD, labels=masked)["labels"], np.where(HIDDEN, -1, 2))
    named = xr.DataArray(np.ma.masked_array(MASK.values, HIDDEN), FIELD.coords, FIELD.dims)
    assert np.array_equal(on_grid(FIELD, mask=named.T)["mask"], MASK.values & ~HIDDEN)
    unmasked = np.ma.masked_array(MASK.values)
    assert np.array_equal(on_grid(FIELD, mask=unmasked)["mask"], MASK.values)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u1", "i8"])
@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda a: a, id="ndarray"),
        pytest.param(lambda a: da.from_array(a, chunks=(4, 2)), id="dask"),
        pytest.param(lambda a: xr.DataArray(a, dims=("row", "feature")), id="xarray"),
        pytest.param(
            lambda a: xr.DataArray(da.from_array(a, chunks=(4, 2)), dims=("row", "feature")), id="xarray-dask"
        ),
        pytest.param(lambda a: xr.Dataset({"x": (("row", "feature"), da.from_array(a))}), id="Dataset"),
    ],
)
def test_masked_cells_of_the_data_are_missing(wrap: Callable[[Any], Any], dtype: str) -> None:
    rows = np.ma.masked_array(np.where(np.arange(12).reshape(6, 2) == 5, 99, ROWS).astype(dtype), ROWS == 5)
    source = open_source(wrap(rows))
    read = read_block(source, source.plan().block(0))
    assert read.cells is not None
    assert read.cells.tolist() == [0, 1, 3, 4, 5]
    assert np.array_equal(read.values, ROWS[[0, 1, 3, 4, 5]])
    labels = c.fit(wrap(rows), c.KMeans(k=1), restarts=1).predict(wrap(rows))
    assert np.asarray(labels).tolist() == [0, 0, -1, 0, 0, 0]


def test_masked_cells_that_a_graph_does_not_declare_are_missing_or_refused() -> None:
    def hide(block: np.ndarray) -> np.ndarray:
        return np.ma.masked_array(block, block == 5)

    for dtype, kept in (("f8", [0, 1, 3, 4, 5]), ("i4", None)):
        rows = da.from_array(ROWS.astype(dtype), chunks=(6, 2))
        source = open_source(rows.map_blocks(hide, meta=np.empty((0, 0), dtype)))
        if kept is None:
            with pytest.raises(DataError, match=r"int32 holds masked cells.*astype\(float\)"):
                read_block(source, source.plan().block(0))
        else:
            cells = read_block(source, source.plan().block(0)).cells
            assert cells is not None
            assert cells.tolist() == kept


# Dask arrays of unknown length


def lazy_subset(array: np.ndarray, chunk: int = 20) -> Any:
    lazy = da.from_array(array, chunks=(chunk, *array.shape[1:]))
    return lazy[lazy[:, 0] % 3 > 0] if array.ndim > 1 else lazy[lazy % 3 > 0]


MANY = np.random.default_rng(0).integers(0, 99, (60, 3)).astype("f8")
CHOSEN = MANY[MANY[:, 0] % 3 > 0]


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda a: a, id="dask"),
        pytest.param(lambda a: xr.DataArray(a, dims=("row", "feature")), id="DataArray"),
        pytest.param(lambda a: xr.Dataset({"x": (("row", "feature"), a)}), id="Dataset"),
    ],
)
def test_unknown_lengths_are_computed(wrap: Callable[[Any], Any]) -> None:
    lazy = lazy_subset(MANY)
    data = wrap(lazy)
    fit = c.fit(data, c.KMeans(k=2), restarts=1)
    assert np.array_equal(fit.predict(data).values, c.fit(CHOSEN, c.KMeans(k=2), restarts=1).predict(CHOSEN))
    assert np.isnan(lazy.shape[0])  # The user's own array is left as it is.


def test_unknown_lengths_of_arrays_beside_the_data_are_computed_and_compared() -> None:
    weights = on_grid(lazy_subset(MANY), feature_dims=["feature"], weights=lazy_subset(MANY)[:, 0])["weights"]
    assert np.array_equal(weights, CHOSEN[:, 0])
    named = xr.DataArray(lazy_subset(MANY)[:, 0], dims="row")
    assert np.array_equal(on_grid(CHOSEN, feature_dims=["feature"], weights=named)["weights"], CHOSEN[:, 0])
    with pytest.raises(SourceError, match=r"weights has shape"):
        on_grid(lazy_subset(MANY), feature_dims=["feature"], weights=lazy_subset(MANY + 1)[:, 0])


def test_unknown_numbers_of_features_are_computed() -> None:
    wide = lazy_subset(MANY.T.copy(), 3).T
    source = open_source(wide)
    assert np.array_equal(read_block(source, source.plan().block(0)).values, MANY[:, MANY[0] % 3 > 0])


def test_other_things_that_dask_computes_are_refused_in_one_line() -> None:
    import dask
    import dask.bag

    for data in (dask.bag.from_sequence([1, 2]), dask.delayed(ROWS)):
        with pytest.raises(SourceError, match=r"cannot cluster a (Bag|DelayedLeaf|Delayed); allowed: .*dask array"):
            open_source(data)


# Feature weights

MAPS = xr.DataArray(
    np.random.default_rng(1).normal(size=(9, 6, 4)), {"lat": LAT, "lon": LON}, ("time", "lat", "lon"), name="t"
)
BY_CELL = xr.DataArray(1.0 + np.arange(24).reshape(6, 4), FIELD.coords, FIELD.dims)


def matrix(data: Any, weights: Any, **options: Any) -> list[float]:
    preparation = c.fit(data, c.KMeans(k=1), restarts=1, feature_weights=weights, **options).fitted.preparation
    assert preparation is not None
    return np.asarray(preparation.matrix).tolist()


@pytest.mark.parametrize(
    "way", [WAYS[name] for name in ("as-it-is", "transposed", "shuffled", "without-labels", "pandas", "lazy")]
)
def test_feature_weights_are_matched_by_name_and_label(way: Callable[[xr.DataArray], Any]) -> None:
    assert matrix(MAPS, way(BY_CELL), sample_dims="time") == BY_CELL.values.ravel().tolist()


def test_feature_weights_may_name_features_and_variables() -> None:
    by_lat = xr.DataArray(1.0 + np.arange(6), {"lat": LAT}, "lat")
    assert matrix(MAPS, by_lat[::-1], sample_dims="time") == np.repeat(1.0 + np.arange(6), 4).tolist()
    pair = xr.Dataset({"a": MAPS, "b": MAPS[:, :, 0]})
    weights = xr.DataArray([3.0, 2.0], {"variable": ["b", "a"]}, "variable")
    options: dict[str, Any] = {"variables": ["a", "b"], "sample_dims": "time"}
    assert matrix(pair, weights, **options) == [*[2.0] * 24, *[3.0] * 6]
    columns = xr.Dataset({"a": ("row", ROWS[:, 0]), "b": ("row", ROWS[:, 1])})
    assert matrix(columns, pd.Series({"b": 3.0, "a": 2.0}), variables=["a", "b"]) == [2.0, 3.0]
    assert matrix(ROWS, pd.Series({"b": 3.0, "a": 2.0})) == [3.0, 2.0]
    assert matrix(ROWS, xr.DataArray([3.0, 2.0], dims="channel")) == [3.0, 2.0]
    fit = c.fit(columns, c.KMeans(k=1), variables=["a", "b"], restarts=1)
    assert matrix(columns, fit.centers[0], variables=["a", "b"]) == [5.0, 6.0]


FEATURE_FAULTS: dict[str, tuple[Any, str]] = {
    "other-labels": (
        BY_CELL.assign_coords(lat=LAT + 1000),
        "'feature_weights' has no value for 6 of 6 labels of 'lat'",
    ),
    "along-samples": (xr.DataArray(np.ones(9), dims="time"), "'time' is no feature dimension; allowed: lat, lon"),
    "other-names": (BY_CELL.stack(x=("lat", "lon")).drop_vars(["lat", "lon", "x"]), "'x' is no feature dimension"),
    "other-variables": (pd.Series({"u": 1.0}), r"name the features u, and the data have t\[lat"),
    "masked": (np.ma.masked_array(np.ones(24), np.arange(24) == 3), "nan for feature 3"),
    "negative": (-BY_CELL, "-1 for feature 0"),
    "transposed-ndarray": (BY_CELL.values, r"shape \(6, 4\), and there are 24 features"),
    "dataset": (BY_CELL.to_dataset(name="w"), "is a Dataset"),
    "dates": (xr.DataArray(TIMES[:1].repeat(6), {"lat": LAT}, "lat"), "are no numbers"),
    "words": (["a"] * 24, "no array of numbers"),
}


@pytest.mark.parametrize(("weights", "said"), FEATURE_FAULTS.values(), ids=FEATURE_FAULTS)
def test_feature_weights_that_do_not_fit_are_refused(weights: Any, said: str) -> None:
    with pytest.raises((SourceError, DataError, ConfigError), match=said) as caught:
        matrix(MAPS, weights, sample_dims="time")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ClusteringError)


def test_whole_numbers_that_floats_cannot_tell_apart_are_distinguished() -> None:
    """Such numbers may be station ids of 64 bits."""
    first = 2**53
    names = np.array([first + 3, first, first + 1, first + 2])
    data = xr.DataArray(np.arange(4.0)[:, None], {"station": names}, ("station", "f"), name="v")
    weights = xr.DataArray([0.0, 1.0, 2.0, 3.0], {"station": np.sort(names)}, ("station",))
    source = open_source(data, sample_dims="station", weights=weights)
    assert read_block(source, source.plan().block(0)).weights.tolist() == [3, 0, 1, 2]
    chosen = open_source(data, sample_dims="station", select={"station": [first + 1, first + 2]})
    assert read_block(chosen, chosen.plan().block(0)).values.ravel().tolist() == [2, 3]
    with pytest.raises(SourceError, match="station"):
        open_source(data, sample_dims="station", select={"station": [first + 4]})
