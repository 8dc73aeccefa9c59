"""A source gives the rows that xarray and numpy give, whatever the layout of the store."""

from __future__ import annotations

import gc
import pickle
import shutil
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cloudpickle
import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr
from distributed.protocol import pickle as distributed_pickle
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.data.access import open_source
from clustering.data.plan import Plan
from clustering.data.reading import companion, read_block
from clustering.data.source import Source
from clustering.data.source_fingerprint import source_fingerprint
from clustering.errors import ClusteringError, ConfigError, DataError, SourceError

SIZES = {"time": 6, "lat": 5, "depth": 4, "band": 3}


def on_grid(source: Source, plan: Plan | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read values `(*shape, d)` and weights `(*shape)` of all blocks, with NaN at cells that are not used."""
    plan = plan or source.plan()
    values = np.full((*source.shape, source.n_features), np.nan)
    weights = np.full(source.shape, np.nan)
    for i in range(len(plan)):
        block = plan.block(i)
        rows = read_block(source, block)
        assert rows.values.dtype == source.dtype
        assert rows.weights.shape == (len(rows),)
        cells = np.arange(np.prod(block.shape)) if rows.cells is None else rows.cells
        flat = np.ravel_multi_index(
            [p + a for p, a in zip(np.unravel_index(cells, block.shape), block.start, strict=True)], source.shape
        )
        assert np.array_equal(flat, rows.positions(np.arange(len(rows))))
        values.reshape(-1, source.n_features)[flat] = rows.values
        weights.reshape(-1)[flat] = rows.weights
    return values, weights


def truth(dataset: xr.Dataset, variables: Sequence[str], sample: Sequence[str], feature: Sequence[str]) -> np.ndarray:
    shape = tuple(dataset.sizes[d] for d in sample)
    columns = [
        dataset[v].transpose(*sample, *(f for f in feature if f in dataset[v].dims)).values.reshape(*shape, -1)
        for v in variables
    ]
    return np.concatenate(columns, axis=-1).astype(np.float64)


def values(dims: Sequence[str], dtype: str = "f4", seed: int = 3) -> xr.DataArray:
    shape = [SIZES[d] for d in dims]
    return xr.DataArray((np.random.default_rng(seed).standard_normal(shape) * 100).astype(dtype), dims=list(dims))


def save(dataset: xr.Dataset, path: Path, zarr_format: int = 3, **encoding: dict[str, Any]) -> Path:
    dataset.to_zarr(path, consolidated=False, zarr_format=zarr_format, encoding=encoding)
    return path


LAYOUTS: dict[str, tuple[list[list[str]], list[str], list[str]]] = {
    "features-first": ([["depth", "time", "lat"]], ["time", "lat"], ["depth"]),
    "features-in-the-middle": ([["time", "depth", "lat"]], ["time", "lat"], ["depth"]),
    "features-last": ([["time", "lat", "depth"]], ["time", "lat"], ["depth"]),
    "variables-as-features": ([["time", "lat"], ["lat", "time"]], ["time", "lat"], []),
    "two-feature-dims": ([["band", "time", "depth", "lat"]], ["lat", "time"], ["depth", "band"]),
    "profile-beside-a-scalar": ([["depth", "lat", "time"], ["time", "lat"]], ["time", "lat"], ["depth"]),
    "four-sample-dims": ([["band", "time", "depth", "lat"]], ["time", "lat", "depth", "band"], []),
}


@pytest.mark.parametrize("zarr_format", [2, 3], ids=["v2", "v3"])
@pytest.mark.parametrize(("dims", "sample", "feature"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_rows_of_any_layout_are_those_of_xarray(
    tmp_path: Path, dims: list[list[str]], sample: list[str], feature: list[str], zarr_format: int
) -> None:
    dataset = xr.Dataset({f"v{i}": values(names, seed=i) for i, names in enumerate(dims)})
    # Every dimension is chunked, also the feature dimension.
    path = save(dataset, tmp_path / "s", zarr_format, **{n: {"chunks": (2,) * v.ndim} for n, v in dataset.items()})
    source = open_source(path, variables=list(dataset), sample_dims=sample, feature_dims=feature)
    expected = truth(dataset, list(dataset), sample, feature)
    assert (source.n_features, source.row_bytes) == (expected.shape[-1], expected.shape[-1] * 4)
    assert np.array_equal(on_grid(source, source.plan(block_bytes=1))[0], expected)


@st.composite
def stores(draw: st.DrawFn) -> tuple[xr.Dataset, dict[str, Any], list[str], list[str]]:
    order = draw(st.permutations(list(SIZES)))
    n_sample = draw(st.integers(1, 4))
    sample, feature = order[:n_sample], order[n_sample:]
    variables, encoding = {}, {}
    for name in draw(st.sampled_from([["a"], ["a", "b"], ["a", "b", "c"]])):
        dims = draw(st.permutations([*sample, *(f for f in feature if draw(st.booleans()))]))
        variables[name] = values(dims, draw(st.sampled_from(["f4", "f8", "i2", "u1"])), seed=ord(name))
        chunks = tuple(draw(st.integers(1, SIZES[d])) for d in dims)
        encoding[name] = {"chunks": chunks}
        if draw(st.booleans()):
            encoding[name]["shards"] = tuple(c * draw(st.integers(1, 3)) for c in chunks)
    return xr.Dataset(variables), encoding, sample, feature


@settings(max_examples=30)
@given(
    stores(),
    st.integers(1, 2000),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2)), min_size=4, max_size=4),
)
def test_blocks_of_any_chunking_and_selection_make_up_the_array(
    store: tuple[xr.Dataset, dict[str, Any], list[str], list[str]],
    block_bytes: int,
    whole_chunks: bool,
    cuts: list[tuple[int, int]],
) -> None:
    dataset, encoding, sample, feature = store
    variables = list(dataset)
    isel = {d: {"start": a, "step": b} for d, (a, b) in zip(SIZES, cuts, strict=True) if d in dataset.dims}
    with TemporaryDirectory() as folder:
        path = save(dataset, Path(folder, "s"), **encoding)
        used = [f for f in feature if f in dataset.dims]
        # A chunk that holds only zeros is not written, because zero is the fill value.
        how: dict[str, Any] = {"sample_dims": sample, "feature_dims": used, "isel": isel, "missing_chunks": "fill"}
        source = open_source(path, variables=variables, **how)
        actual, weights = on_grid(source, source.plan(block_bytes=block_bytes, whole_chunks=whole_chunks))
    taken = dataset.isel({d: slice(s["start"], None, s["step"]) for d, s in isel.items()})
    assert np.array_equal(actual, truth(taken, variables, sample, used))
    assert (weights == 1).all()


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        pytest.param(["u1"], "u1", id="bytes-stay-bytes"),
        pytest.param(["f4", "f4"], "f4", id="float32-stays"),
        pytest.param(["f4", "f8"], "f8", id="wider-float"),
        pytest.param(["i2", "f4"], "f4", id="small-int-and-float32"),
        pytest.param(["i4", "f4"], "f8", id="int32-needs-float64"),
        pytest.param(["?", "?"], "u1", id="booleans-become-bytes"),
        pytest.param(["?", "f4"], "f4", id="boolean-and-float"),
        pytest.param([">f4"], "f4", id="big-endian-becomes-native"),
        pytest.param([">i2", "<i2"], "i2", id="both-byte-orders"),
    ],
)
def test_rows_have_the_type_that_holds_every_variable(dtypes: list[str], expected: str) -> None:
    dataset = xr.Dataset({f"v{i}": values(["time"], dtype, seed=i) for i, dtype in enumerate(dtypes)})
    source = open_source(dataset, variables=list(dataset), feature_dims=[])
    rows = read_block(source, source.plan().block(0))
    assert (source.dtype, rows.values.dtype) == (np.dtype(expected), np.dtype(expected))
    assert rows.values.dtype.isnative
    assert np.array_equal(rows.values, truth(dataset, list(dataset), ["time"], []))


def test_features_are_named_in_the_order_of_the_columns(field_store: Path) -> None:
    source = open_source(field_store, variables=["q", "t"], sample_dims=["lat"], isel={"lon": {"stop": 2}, "time": [4]})
    assert [str(f) for f in source.features] == [
        f"{v}[time=2001-01-05T00:00:00.000000000, lon={lon}]" for v in ("q", "t") for lon in (0.0, 36.0)
    ]


@pytest.mark.parametrize("zarr_format", [2, 3], ids=["v2", "v3"])
def test_packed_values_are_decoded_and_fills_leave_rows_out(tmp_path: Path, zarr_format: int) -> None:
    original = values(["time", "lat", "depth"], "f8") / 10
    original[0, 2, 1] = original[3, 3, :] = np.nan
    packing = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 5.0, "_FillValue": -32768, "chunks": (2, 2, 4)}
    path = save(xr.Dataset({"t": original}), tmp_path / "s", zarr_format, t=packing)
    with xr.open_zarr(path, consolidated=False, chunks=None) as opened:
        expected = truth(opened.load(), ["t"], ["time", "lat"], ["depth"])
    actual, _ = on_grid(open_source(path, variables=["t"], feature_dims=["depth"]))
    masked = np.isnan(expected).any(axis=-1)
    assert np.argwhere(masked).tolist() == [[0, 2], [3, 3]]
    assert np.isnan(actual[masked]).all()
    assert np.array_equal(actual[~masked], expected[~masked])


# Mask


def masked_cells(source: Source) -> np.ndarray:
    return np.isnan(on_grid(source, source.plan(block_bytes=200))[0]).all(axis=-1)


GRID = ("time", "lat", "depth")
USE = np.random.default_rng(1).random((6, 5)) > 0.4


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(xr.DataArray(USE, dims=["time", "lat"]), id="all-sample-dims"),
        pytest.param(xr.DataArray(USE.T.copy(), dims=["lat", "time"]), id="transposed"),
        pytest.param(xr.DataArray(USE[2], dims=["lat"]), id="one-sample-dim"),
        pytest.param(xr.DataArray(USE[:, 0], dims=["time"]), id="the-other-sample-dim"),
        pytest.param(xr.DataArray(USE.astype("i1"), dims=["time", "lat"]), id="whole-numbers"),
        pytest.param(xr.DataArray(np.zeros((6, 5), bool), dims=["time", "lat"]), id="nothing-is-used"),
    ],
)
def test_a_mask_says_which_rows_are_used(tmp_path: Path, mask: xr.DataArray) -> None:
    path = save(xr.Dataset({"t": values(GRID), "use": mask}), tmp_path / "s", t={"chunks": (4, 2, 4)})
    source = open_source(path, variables=["t"], feature_dims=["depth"], mask="use")
    expected = mask.astype(bool).broadcast_like(values(["time", "lat"])).transpose("time", "lat")
    assert np.array_equal(~masked_cells(source), expected.values)


@pytest.mark.parametrize("dtype", ["u1", "?"])
def test_zero_in_a_version_2_mask_is_not_used_though_it_is_the_fill_value(tmp_path: Path, dtype: str) -> None:
    group = zarr.open_group(tmp_path / "s", mode="w", zarr_format=2)
    t = group.create_array("t", shape=(4, 2), chunks=(2, 2), dtype="f8", fill_value=None)
    use = group.create_array("use", shape=(4,), chunks=(4,), dtype=dtype, fill_value=0)
    t.attrs["_ARRAY_DIMENSIONS"], use.attrs["_ARRAY_DIMENSIONS"] = ["row", "feature"], ["row"]
    t[:], use[:] = np.arange(8.0).reshape(4, 2), [1, 0, 1, 0]
    source = open_source(tmp_path / "s", variables=["t"], feature_dims=["feature"], mask="use")
    assert (~masked_cells(source)).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    "wrap", [np.asarray, list, lambda a: xr.DataArray(a, dims=["time", "lat"])], ids=["ndarray", "list", "xarray"]
)
def test_a_mask_may_be_given_as_an_array(wrap: Callable[[Any], Any]) -> None:
    source = open_source(xr.Dataset({"t": values(GRID)}), feature_dims=["depth"], mask=wrap(USE))
    assert np.array_equal(~masked_cells(source), USE)


def test_a_mask_array_has_the_shape_of_the_selected_samples() -> None:
    kwargs: dict[str, Any] = {"feature_dims": ["depth"], "isel": {"time": {"start": 2}, "lat": [3, 0]}}
    shape = open_source(values(GRID), **kwargs).shape
    use = np.arange(np.prod(shape)).reshape(shape) % 3 > 0
    assert np.array_equal(~masked_cells(open_source(values(GRID), mask=use, **kwargs)), use)


@pytest.mark.parametrize(
    ("isel", "expected"),
    [
        pytest.param({"time": {"start": 3}}, USE[3:], id="slice"),
        pytest.param({"lat": [4, 0], "time": {"step": 2}}, USE[::2][:, [4, 0]], id="list-and-step"),
        pytest.param({"lat": 2}, USE[:, 2], id="one-place"),
    ],
)
def test_a_mask_is_selected_with_the_data(isel: dict[str, Any], expected: np.ndarray) -> None:
    dataset = xr.Dataset({"t": values(GRID), "use": (("time", "lat"), USE)})
    source = open_source(dataset, variables=["t"], feature_dims=["depth"], mask="use", isel=isel)
    assert np.array_equal(~masked_cells(source), expected)


# Weights


def weighted(weights: Any, dims: Sequence[str], **options: Any) -> Source:
    dataset = xr.Dataset({"t": values(GRID), "w": (dims, np.asarray(weights))})
    return open_source(dataset, variables=["t"], feature_dims=["depth"], weights="w", **options)


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        pytest.param(["time", "lat"], (6, 5), id="all-sample-dims"),
        pytest.param(["lat", "time"], (5, 6), id="transposed"),
        pytest.param(["lat"], (5,), id="one-sample-dim"),
    ],
)
def test_weights_come_from_a_variable(dims: list[str], shape: tuple[int, ...]) -> None:
    weights = xr.DataArray(np.random.default_rng(2).random(shape), dims=dims)
    source = weighted(weights.values, dims)
    expected = weights.broadcast_like(values(["time", "lat"])).transpose("time", "lat")
    assert np.array_equal(on_grid(source, source.plan(block_bytes=100))[1], expected.values)


def test_weights_may_be_given_as_an_array() -> None:
    weights = np.random.default_rng(2).random((6, 5))
    source = open_source(values(GRID), feature_dims=["depth"], weights=weights)
    assert np.array_equal(on_grid(source)[1], weights)


LATITUDE = np.linspace(90, -90, 5)


@pytest.mark.parametrize(
    ("dims", "degrees"),
    [
        pytest.param(["lat"], LATITUDE, id="one-dimensional"),
        pytest.param(["lat"], LATITUDE.astype("f4"), id="single-precision"),
        pytest.param(["lat"], np.nextafter(LATITUDE.astype("f4"), np.float32(999)), id="a-hair-beyond-the-pole"),
        pytest.param(["time", "lat"], LATITUDE * (1 - np.arange(6)[:, None] / 50), id="two-dimensional"),
    ],
)
def test_weights_are_the_cosine_of_the_latitude(tmp_path: Path, dims: list[str], degrees: np.ndarray) -> None:
    dataset = xr.Dataset({"t": values(GRID)}, coords={"latitude" if len(dims) > 1 else "lat": (dims, degrees)})
    path = save(dataset, tmp_path / "s", t={"chunks": (2, 2, 4)})
    name = "latitude" if len(dims) > 1 else "lat"
    source = open_source(path, variables=["t"], feature_dims=["depth"], weights=f"cos({name})")
    weights = on_grid(source)[1]
    expected = np.broadcast_to(np.cos(np.deg2rad(degrees.astype("f8"))).clip(0), (6, 5))
    assert (weights >= 0).all()
    assert np.allclose(weights, expected, rtol=0, atol=1e-15)


def test_the_latitude_of_one_chosen_place_gives_one_weight() -> None:
    data = values(GRID).assign_coords(lat=LATITUDE)
    source = open_source(data, feature_dims=["depth"], weights="cos(lat)", isel={"lat": 1})
    assert np.allclose(on_grid(source)[1], np.cos(np.deg2rad(45)))


@pytest.mark.parametrize("bad", [-0.5, np.nan, np.inf], ids=["negative", "missing", "infinite"])
def test_bad_weights_are_refused_only_where_the_row_is_used(bad: float) -> None:
    weights = np.ones(5)
    weights[3] = bad
    source = weighted(weights, ["lat"])
    plan = source.plan(block_bytes=1)
    block = plan.block(3)
    with pytest.raises(DataError, match=r"'w' .* block 3 \[0:1, 3:4\]; .*zero or more"):
        read_block(source, block)
    kept = weighted(weights, ["lat"], mask=np.broadcast_to(np.arange(5) != 3, (6, 5)))
    assert np.array_equal(masked_cells(kept), np.broadcast_to(np.arange(5) == 3, (6, 5)))


def test_a_missing_weight_is_no_fault_where_the_features_are_missing_too() -> None:
    data = values(GRID)
    data[:, 3] = np.nan
    weights = np.where(np.arange(5) == 3, np.nan, 1.0)
    dataset = xr.Dataset({"t": data, "w": ("lat", weights)})
    actual = on_grid(open_source(dataset, variables=["t"], feature_dims=["depth"], weights="w"))[1]
    assert np.array_equal(actual, np.broadcast_to(weights, (6, 5)), equal_nan=True)


# Missing and infinite values


def with_value(bad: float, dtype: str = "f8") -> xr.Dataset:
    b = values(GRID, dtype, seed=9)
    b[4, 1, 2] = bad
    return xr.Dataset({"a": values(GRID, dtype), "b": b}, coords={"depth": [5, 10, 20, 40]})


def test_rows_with_a_gap_are_dropped_by_default() -> None:
    source = open_source(with_value(np.nan), variables=["a", "b"], feature_dims=["depth"])
    assert np.argwhere(masked_cells(source)).tolist() == [[4, 1]]


@pytest.mark.parametrize(
    ("bad", "missing", "word", "remedy"),
    [
        pytest.param(np.nan, "error", "missing value", "'drop'", id="nan-as-an-error"),
        pytest.param(np.inf, "drop", "infinite value", "source.mask", id="infinity"),
        pytest.param(-np.inf, "error", "infinite value", "source.mask", id="negative-infinity"),
    ],
)
def test_refusals_name_variable_feature_and_block(bad: float, missing: Any, word: str, remedy: str) -> None:
    source = open_source(with_value(bad), variables=["a", "b"], feature_dims=["depth"], missing=missing)
    plan = source.plan(block_bytes=1)
    number = 4 * 5 + 1
    for index in range(number):
        assert len(read_block(source, plan.block(index))) == 1
    with pytest.raises(DataError) as caught:
        read_block(source, plan.block(number))
    message = str(caught.value)
    named = [word, "variable 'b'", "b[depth=20]", f"block {number} [4:5, 1:2]", remedy]
    assert [n for n in named if n not in message] == []
    assert "\n" not in message


@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=["nan", "infinity"])
def test_a_mask_comes_before_the_values(bad: float) -> None:
    use = np.ones((6, 5), bool)
    use[4, 1] = False
    source = open_source(with_value(bad), variables=["a", "b"], feature_dims=["depth"], mask=use, missing="error")
    assert np.array_equal(~masked_cells(source), use)


def test_an_infinity_beside_a_gap_is_still_refused() -> None:
    data = values(GRID, "f8")
    data[0, 0, 0], data[0, 0, 1] = np.nan, np.inf
    with pytest.raises(DataError, match="infinite value"):
        on_grid(open_source(data, feature_dims=["depth"]))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_the_largest_numbers_are_no_infinities(dtype: str) -> None:
    data = values(GRID, dtype)
    data[1] = np.finfo(dtype).max
    data[2] = np.finfo(dtype).min
    source = open_source(data, feature_dims=["depth"], missing="error")
    assert np.array_equal(on_grid(source)[0], data.values)


# Kinds of data


MATRIX = np.random.default_rng(5).standard_normal((40, 3))


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda a: a, id="ndarray"),
        pytest.param(lambda a: np.asfortranarray(a), id="fortran-ndarray"),
        pytest.param(lambda a: dask.array.from_array(a, chunks=(7, 2)), id="dask-array"),
        pytest.param(lambda a: zarr.create_array({}, data=a, chunks=(7, 2)), id="zarr-array"),
        pytest.param(lambda a: xr.DataArray(a, dims=["row", "feature"]), id="DataArray"),
        pytest.param(lambda a: xr.DataArray(a, dims=["row", "feature"], name="x"), id="named-DataArray"),
        pytest.param(lambda a: xr.DataArray(a, dims=["row", "feature"]).chunk(row=7), id="chunked-DataArray"),
        pytest.param(lambda a: xr.Dataset({"x": (["row", "feature"], a)}), id="Dataset"),
    ],
)
def test_data_in_memory_are_read_like_a_store(wrap: Callable[[np.ndarray], Any]) -> None:
    data = wrap(MATRIX)
    source = open_source(data)
    again = pickle.loads(pickle.dumps(source))
    assert np.array_equal(on_grid(source, source.plan(block_bytes=200))[0], MATRIX)
    assert np.array_equal(on_grid(again)[0], MATRIX)
    assert source.labelled is not isinstance(data, np.ndarray)
    assert source_fingerprint(again) == source_fingerprint(source)


def test_blocks_of_a_chunked_array_in_memory_are_whole_chunks() -> None:
    source = open_source(dask.array.from_array(MATRIX, chunks=(7, 2)))
    plan = source.plan(block_bytes=1)
    assert [plan.block(i).start[0] for i in range(len(plan))] == list(range(0, 40, 7))


def test_a_source_is_passed_through() -> None:
    source = open_source(MATRIX)
    assert open_source(source) is source


@pytest.mark.parametrize(
    "option",
    [{"mask": np.zeros(40, bool)}, {"variables": ["values"]}, {"isel": {"row": [0]}}, {"missing": "error"}],
    ids=["mask", "variables", "isel", "missing"],
)
def test_options_beside_a_source_are_not_ignored(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        open_source(open_source(MATRIX), **option)


def test_a_preview_is_thinned_to_the_length_asked(field_store: Path) -> None:
    source = open_source(field_store, variables=["t"], feature_dims=["time"])
    preview = source.preview(most=4)
    assert {d: n for d, n in preview.sizes.items() if d in source.sample_dims} == {"lat": 3, "lon": 4}
    assert preview.t.identical(source.dataset.t.isel(lat=slice(None, None, 3), lon=slice(None, None, 3)).load())


# Opening again elsewhere


def test_a_pickled_source_is_a_name_and_opens_the_same_rows(field_store: Path) -> None:
    source = open_source(field_store, variables=["t"], feature_dims=["lon"], mask=None, weights="cos(lat)")
    pickled = pickle.dumps(source)
    again = pickle.loads(pickled)
    assert len(pickled) < 4000
    assert again.plan() == source.plan()
    assert source_fingerprint(again) == source_fingerprint(source)
    for actual, expected in zip(on_grid(again), on_grid(source), strict=True):
        assert np.array_equal(actual, expected)


def test_a_pickled_source_opens_the_same_rows_from_another_folder(
    field_store: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(field_store.parent)
    source = open_source(field_store.name, variables=["t"], feature_dims=["lon"])
    expected = on_grid(source)[0]
    pickled = pickle.dumps(source)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert np.array_equal(on_grid(pickle.loads(pickled))[0], expected)


def test_a_store_that_has_grown_is_opened_at_its_new_length(field_store: Path) -> None:
    kwargs: dict[str, Any] = {"variables": ["t"], "feature_dims": ["lon"]}
    assert pickle.loads(pickle.dumps(open_source(field_store, **kwargs))).shape == (12, 9)
    with xr.open_zarr(field_store, consolidated=False, chunks=None) as opened:
        longer = xr.concat([opened.drop_vars("sea").load()] * 2, "time")
    shutil.rmtree(field_store)
    longer.drop_encoding().to_zarr(field_store, consolidated=False, zarr_format=3)
    assert pickle.loads(pickle.dumps(open_source(field_store, **kwargs))).shape == (24, 9)


def test_a_store_that_was_written_anew_is_decoded_anew(tmp_path: Path) -> None:
    dataset = xr.Dataset({"t": values(["time", "depth"], "i2").astype("f8")})
    for scale in (0.5, 0.25):
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        save(dataset, tmp_path / "s", t={"dtype": "i2", "scale_factor": scale, "_FillValue": -32768})
        again = pickle.loads(pickle.dumps(open_source(tmp_path / "s")))
        assert np.array_equal(on_grid(again)[0], dataset.t.values)


def test_data_with_a_mask_array_are_pickled_with_it(field_store: Path) -> None:
    use = np.random.default_rng(0).random((12, 9)) > 0.5
    source = open_source(field_store, variables=["t"], feature_dims=["lon"], mask=use)
    assert np.array_equal(~masked_cells(pickle.loads(pickle.dumps(source))), use)


# Faults


def fields() -> xr.Dataset:
    return xr.Dataset(
        {
            "temp": values(["time", "lat", "depth"]),
            "salt": values(["time", "lat", "depth"]),
            "flat": values(["time", "depth"]),
            "name": ("lat", list("abcde")),
            "when": ("time", np.arange(6).astype("datetime64[s]")),
            "sea": (("time", "lat"), USE),
            "area": (("lat", "depth"), np.ones((5, 4))),
        },
        coords={"lat": LATITUDE},
    )


TEMP: dict[str, Any] = {"variables": ["temp"], "feature_dims": ["depth"]}
FAULTS: dict[str, tuple[dict[str, Any], type[ClusteringError], list[str]]] = {
    "unknown-variable": ({"variables": ["tmp"]}, SourceError, ["variable 'tmp'", "did you mean 'temp'"]),
    "which-variable": ({}, SourceError, ["7 variables", "name those to cluster", "temp, salt"]),
    "no-variables": ({"variables": []}, SourceError, ["no variables named", "temp, salt"]),
    "variable-twice": ({"variables": ["temp", "temp"]}, SourceError, ["named twice", "name each once"]),
    "text-variable": ({"variables": ["name"]}, SourceError, ["'name' has type", "only numbers"]),
    "date-variable": ({"variables": ["when"]}, SourceError, ["'when' has type datetime64", "only numbers"]),
    "unknown-sample-dim": (
        {"variables": ["temp"], "sample_dims": ["tim"]},
        SourceError,
        ["'tim' in 'sample_dims'", "did you mean 'time'"],
    ),
    "unknown-feature-dim": (
        {"variables": ["temp"], "feature_dims": ["dept"]},
        SourceError,
        ["'dept' in 'feature_dims'", "did you mean 'depth'"],
    ),
    "extra-dim": (
        {"variables": ["temp"], "sample_dims": ["time"], "feature_dims": ["depth"]},
        SourceError,
        ["'lat' of variable 'temp'", "'sample_dims' or 'feature_dims'", "'isel'"],
    ),
    "dim-in-both": (
        {"variables": ["temp"], "sample_dims": ["time", "lat"], "feature_dims": ["lat", "depth"]},
        SourceError,
        ["'lat' is in both 'sample_dims' and 'feature_dims'", "keep it in one"],
    ),
    "dim-twice": (
        {"variables": ["temp"], "sample_dims": ["time", "time", "lat"], "feature_dims": ["depth"]},
        SourceError,
        ["'time'", "twice"],
    ),
    "no-sample-dim": (
        {"variables": ["temp"], "feature_dims": ["time", "lat", "depth"]},
        SourceError,
        ["no sample dimension", "'sample_dims'", "time, lat, depth"],
    ),
    "sample-dim-selected-away": ({**TEMP, "isel": {"time": 0, "lat": 0}}, SourceError, ["no sample dimension"]),
    "variable-without-sample-dim": (
        {"variables": ["temp", "flat"], "feature_dims": ["depth"]},
        SourceError,
        ["'flat' has no sample dimension 'lat'", "time, depth"],
    ),
    "unknown-mask": ({**TEMP, "mask": "see"}, SourceError, ["'see' in 'mask'", "did you mean 'sea'"]),
    "mask-along-features": ({**TEMP, "mask": "area"}, SourceError, ["'mask' variable 'area'", "'depth'", "time, lat"]),
    "mask-of-text": ({**TEMP, "mask": "name"}, SourceError, ["'mask' variable 'name'", "boolean is needed"]),
    "mask-of-another-shape": ({**TEMP, "mask": USE.T}, SourceError, ["mask has shape (5, 6)", "(6, 5)"]),
    "unknown-weights": ({**TEMP, "weights": "aera"}, SourceError, ["'aera' in 'weights'", "did you mean 'area'"]),
    "unknown-latitude": ({**TEMP, "weights": "cos(latt)"}, SourceError, ["'latt' in 'weights'", "did you mean 'lat'"]),
    "weights-along-features": ({**TEMP, "weights": "area"}, SourceError, ["'weights' variable 'area'", "'depth'"]),
    "weights-of-dates": ({**TEMP, "weights": "when"}, SourceError, ["'weights' variable 'when'", "a number"]),
    "weights-of-another-shape": (
        {**TEMP, "weights": np.ones(6)},
        SourceError,
        ["weights has shape (6,)", "samples have shape (6, 5)"],
    ),
    "unknown-policy": ({**TEMP, "missing": "keep"}, ConfigError, ["missing is 'keep'", "drop, error"]),
    "unknown-selection": ({**TEMP, "isel": {"lot": 0}}, SourceError, ["'lot' in 'isel'", "did you mean 'lat'"]),
}


@pytest.mark.parametrize(("options", "kind", "fragments"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_its_remedy_on_one_line(
    options: dict[str, Any], kind: type[ClusteringError], fragments: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        open_source(fields(), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert [f for f in fragments if f not in message] == []


@pytest.mark.parametrize(
    ("data", "fragments"),
    [
        pytest.param(np.zeros(3), ["1 dimensions", "(3,)", "(n, d)"], id="vector"),
        pytest.param(np.zeros((2, 3, 4)), ["3 dimensions", "(2, 3, 4)", "names its dimensions"], id="cube"),
        pytest.param({1.0}, ["a set", "ndarray (n, d)"], id="set"),
        pytest.param(None, ["NoneType", "path or URL"], id="nothing"),
        pytest.param(np.array([["a", "b"]]), ["'values' has type <U1", "only numbers"], id="text"),
        pytest.param(np.zeros((2, 2), complex), ["complex128", "only numbers"], id="complex"),
        pytest.param(np.zeros((0, 3)), ["row"], id="no-rows"),
        pytest.param(np.zeros((3, 0)), ["feature"], id="no-features"),
    ],
)
def test_data_of_the_wrong_kind_or_shape_are_refused(data: Any, fragments: list[str]) -> None:
    with pytest.raises(ClusteringError) as caught:
        on_grid(open_source(data))
    message = str(caught.value)
    assert "\n" not in message
    assert [f for f in fragments if f not in message] == []


def test_a_worker_reads_what_the_store_holds_now(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", data=np.arange(6.0)[:, None], chunks=(2, 1))
    last_two = {"dim_0": {"start": -2}}

    def as_a_worker_reads() -> list[float]:
        source = pickle.loads(pickle.dumps(open_source(tmp_path / "a.zarr", isel=last_two)))
        plan = source.plan()
        return [x for i in range(len(plan)) for x in read_block(source, plan.block(i)).values[:, 0].tolist()]

    assert as_a_worker_reads() == [4, 5]
    array.append(np.array([[6.0], [7.0]]))
    # The selection has the same shape as before, but other values.
    assert as_a_worker_reads() == [6, 7]


@pytest.mark.parametrize("dumps", [cloudpickle.dumps, distributed_pickle.dumps], ids=["cloudpickle", "distributed"])
def test_picklers_of_dask_send_the_name_too(dumps: Callable[[Any], bytes], field_store: Path) -> None:
    source = open_source(field_store, variables=["t"], feature_dims=["lon"], weights="cos(lat)")
    read_block(source, source.plan().block(0))
    pickled = dumps((source, [source]))
    assert len(pickled) < 4000
    first, (second,) = pickle.loads(pickled)
    assert first is second
    assert (first.opening, first is not source) == (pickle.loads(dumps(source)).opening, True)


def test_small_companions_are_read_once_and_dropped_with_their_source(field_store: Path) -> None:
    source = open_source(field_store, variables=["t"], feature_dims=["lon"], weights="cos(lat)")
    read_block(source, source.plan().block(0))
    lat = companion(source, "lat")
    assert companion(source, "lat") is lat
    gone = weakref.ref(source)
    del source
    gc.collect()
    assert gone() is None
