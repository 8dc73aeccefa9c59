"""Opening reads metadata only, a pass reads each chunk once, and the fingerprint follows what is stored."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from clustering.data.access import open_source
from clustering.data.reading import read_block
from clustering.data.source import Source
from clustering.data.source_fingerprint import check_unchanged, source_fingerprint
from clustering.errors import DataError, SourceError

CUBE = np.random.default_rng(11).standard_normal((12, 9, 10)).astype("f4")


def rows(source: Source, **plan: Any) -> np.ndarray:
    cut = source.plan(**plan)
    read = [read_block(source, cut.block(i)) for i in range(len(cut))]
    order = np.argsort(np.concatenate([r.positions(np.arange(len(r))) for r in read]))
    return np.concatenate([r.values for r in read])[order]


# Bare arrays


@pytest.mark.parametrize("zarr_format", [2, 3], ids=["v2", "v3"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("in_memory", [True, False], ids=["array", "path"])
def test_a_bare_array_is_rows_and_features(tmp_path: Path, zarr_format: Any, named: bool, in_memory: bool) -> None:
    names = ("place", "profile") if named else None
    array = zarr.create_array(
        tmp_path / "a.zarr",
        data=CUBE[0],
        chunks=(4, 3),
        zarr_format=zarr_format,
        dimension_names=names if zarr_format == 3 else None,
    )
    if named and zarr_format == 2:
        array.attrs["_ARRAY_DIMENSIONS"] = list(names or ())
    source = open_source(array if in_memory else tmp_path / "a.zarr")
    assert (source.variables, source.sample_dims + source.feature_dims) == (("values",), names or ("dim_0", "dim_1"))
    assert source.axes[0].unit == 4
    assert np.array_equal(rows(source, block_bytes=1), CUBE[0])


def test_only_the_unnamed_dimensions_of_a_bare_array_are_numbered(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a", data=CUBE, chunks=(4, 4, 4), dimension_names=("time", None, "lon"))
    assert open_source(array, sample_dims=["lon", "time"]).feature_dims == ("dim_1",)


@pytest.mark.parametrize("zarr_format", [2, 3], ids=["v2", "v3"])
def test_the_fill_value_of_an_array_from_elsewhere_is_a_number(tmp_path: Path, zarr_format: Any) -> None:
    data = np.array([[0.0, 1.0], [2.0, 3.0]])
    zarr.create_array(tmp_path / "a", data=data, zarr_format=zarr_format, fill_value=0)
    assert np.array_equal(rows(open_source(tmp_path / "a")), data)


PACKED = {"dtype": "i2", "scale_factor": 0.5, "add_offset": 1.0, "_FillValue": -1}


@pytest.mark.parametrize("zarr_format", [2, 3], ids=["v2", "v3"])
@pytest.mark.parametrize(
    "encoding", [PACKED, {"_FillValue": -999.0}, {"_FillValue": np.nan}], ids=["packed", "float-fill", "nan-fill"]
)
@pytest.mark.parametrize("by", ["path", "group", "array"])
def test_an_array_of_a_group_decodes_alone_as_it_does_in_the_group(
    tmp_path: Path, zarr_format: Any, encoding: dict[str, Any], by: str
) -> None:
    values = np.arange(12.0).reshape(4, 3)
    values[2, 1] = np.nan
    path = tmp_path / "g"
    xr.Dataset({"t": (("row", "feature"), values)}).to_zarr(
        path, consolidated=False, zarr_format=zarr_format, encoding={"t": encoding}
    )
    opened = {
        "path": lambda: open_source(path / "t"),
        "group": lambda: open_source(path, group="t"),
        "array": lambda: open_source(zarr.open_array(path / "t", mode="r")),
    }
    assert np.array_equal(rows(opened[by]()), values[[0, 1, 3]])


def test_a_group_inside_a_store_is_opened(tmp_path: Path) -> None:
    dataset = xr.Dataset({"t": (("row", "feature"), CUBE[0])})
    dataset.to_zarr(tmp_path / "s", group="daily/mean", consolidated=False, zarr_format=3)
    assert np.array_equal(rows(open_source(tmp_path / "s", group="daily/mean")), CUBE[0])


# Reads


def chunks(keys: Counter[str], variable: str) -> dict[str, int]:
    return {key: n for key, n in keys.items() if key.startswith(f"{variable}/c/")}


def test_opening_planning_and_pickling_read_no_values(field_store: Path, requests: Counter[str]) -> None:
    source = open_source(
        field_store,
        variables=["t", "q"],
        feature_dims=["lon"],
        select={"lat": {"start": -60, "stop": 60}, "time": {"start": "2001-01-03"}},
        weights="cos(lat)",
    )
    source.plan()
    source_fingerprint(source)
    assert (source.shape, source.n_features) == ((10, 7), 20)
    assert requests["t/zarr.json"] > 0
    assert chunks(requests, "t") | chunks(requests, "q") | chunks(requests, "sea") == {}


TOUCHED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "everything": ({}, {f"t/c/{i}/{j}/0" for i in range(3) for j in range(3)}),
    "aligned": ({"time": {"start": 5}, "lat": {"start": 4, "stop": 8}}, {"t/c/1/1/0", "t/c/2/1/0"}),
    "inside-chunks": (
        {"time": {"start": 3, "stop": 11}, "lat": {"start": 5}},
        {f"t/c/{i}/{j}/0" for i in range(3) for j in (1, 2)},
    ),
}


@pytest.mark.parametrize("block_bytes", [1, 700, None], ids=["one-chunk", "a-few-chunks", "chosen"])
@pytest.mark.parametrize(("isel", "expected"), TOUCHED.values(), ids=TOUCHED.keys())
def test_a_pass_reads_each_chunk_of_the_selection_once(
    field_store: Path, requests: Counter[str], isel: dict[str, Any], expected: set[str], block_bytes: int | None
) -> None:
    rows(open_source(field_store, variables=["t"], feature_dims=["lon"], isel=isel), block_bytes=block_bytes)
    assert chunks(requests, "t") == dict.fromkeys(expected, 1)


def test_a_pass_reads_each_shard_once(tmp_path: Path, requests: Counter[str]) -> None:
    array = zarr.create_array(tmp_path / "s" / "t", data=CUBE[:, :8], chunks=(2, 2, 5), shards=(4, 4, 10))
    requests.clear()
    source = open_source(tmp_path / "s" / "t", sample_dims=["dim_0", "dim_1"])
    assert np.array_equal(rows(source, block_bytes=1), CUBE[:, :8].reshape(-1, 10))
    assert tuple(axis.unit for axis in source.axes) == array.shards[:2]
    expected = {f"c/{i}/{j}/0" for i in range(3) for j in range(2)}
    assert {k: n for k, n in requests.items() if k.startswith("c/")} == dict.fromkeys(expected, 1)


def test_a_chunked_feature_axis_is_read_once_for_all_its_features(tmp_path: Path, requests: Counter[str]) -> None:
    zarr.create_array(tmp_path / "a", data=CUBE[0], chunks=(4, 3))
    requests.clear()
    rows(open_source(tmp_path / "a"), block_bytes=1)
    assert {k: n for k, n in requests.items() if k.startswith("c/")} == {
        f"c/{i}/{j}": 1 for i in range(3) for j in range(4)
    }


def test_units_of_variables_chunked_differently_hold_whole_chunks_of_both(
    tmp_path: Path, requests: Counter[str]
) -> None:
    dataset = xr.Dataset(dict.fromkeys("ab", (("row", "feature"), CUBE[:, :, 0])))
    encoding = {"a": {"chunks": (2, 9)}, "b": {"chunks": (3, 9)}}
    dataset.to_zarr(tmp_path / "s", consolidated=False, zarr_format=3, encoding=encoding)
    requests.clear()
    source = open_source(tmp_path / "s", variables=["a", "b"])
    rows(source, block_bytes=1)
    assert source.axes[0].unit == 6
    assert set((chunks(requests, "a") | chunks(requests, "b")).values()) == {1}


# Labels


@pytest.mark.parametrize(
    ("options", "indexed"),
    [({}, set()), ({"isel": {"lat": {"start": 2}}}, set()), ({"select": {"lat": {"start": 40, "stop": 0}}}, {"lat"})],
)
def test_large_labels_are_indexed_only_where_they_are_selected_by(
    field_store: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], indexed: set[str]
) -> None:
    """An index holds all labels in memory. Without an index, the labels are still the same."""
    uses: dict[str, Any] = {"variables": ["t"], "sample_dims": ["lat", "lon"]} | options
    expected = open_source(field_store, **uses)
    assert set(expected.dataset.indexes) == {"time", "lat", "lon"}
    monkeypatch.setattr("clustering.data.grouped.SMALL_LABELS", 8)
    source = open_source(field_store, **uses)
    assert set(source.dataset.indexes) == indexed
    assert np.array_equal(source.dataset["lat"].values, expected.dataset["lat"].values)
    assert np.array_equal(rows(source), rows(expected))


# Fingerprint


def rewrite(array: zarr.Array[Any]) -> None:
    array[0] = array[0] + 1


def recut(group: zarr.Group) -> None:
    group.create_array(
        "t", data=group["t"][:], chunks=(12, 3, 10), dimension_names=("time", "lat", "lon"), overwrite=True
    )


CHANGES: dict[str, Callable[[Path], Any]] = {
    "values": lambda path: rewrite(zarr.open_array(path / "t")),
    "a-chunk-removed": lambda path: (path / "t" / "c" / "1" / "1" / "0").unlink(),
    "attributes": lambda path: zarr.open_array(path / "t").attrs.update(scale_factor=2.0),
    "chunking": lambda path: recut(zarr.open_group(path)),
    "mask": lambda path: zarr.open_array(path / "sea").__setitem__(0, False),
    "latitude-of-the-weights": lambda path: zarr.open_array(path / "lat").__setitem__(0, 70.0),
    "labels-of-the-samples": lambda path: zarr.open_array(path / "lon").__setitem__(9, 359.0),
    "labels-of-the-features": lambda path: zarr.open_array(path / "time").__setitem__(11, 12),
}
USES: dict[str, Any] = {"variables": ["t"], "sample_dims": ["lat", "lon"], "mask": "sea", "weights": "cos(lat)"}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_fingerprint_changes_with_what_is_clustered(field_store: Path, change: Callable[[Path], Any]) -> None:
    before = source_fingerprint(open_source(field_store, **USES))
    change(field_store)
    assert source_fingerprint(open_source(field_store, **USES)) != before


@pytest.mark.parametrize("how", [{"select": {"time": "2001-01-03"}}, {"bbox": [-180, -85, 170, 85]}])
def test_the_fingerprint_changes_with_the_labels_that_select(field_store: Path, how: dict[str, Any]) -> None:
    """The same selection by label may mean other positions, whether its dimension is kept or dropped."""
    options: dict[str, Any] = {"variables": ["t"], "sample_dims": ["lat", "lon"], "feature_dims": []} | how
    if "bbox" in how:
        options["feature_dims"] = ["time"]
    before = open_source(field_store, **options)
    name = next(iter(how.get("select", {"lat": 0})))
    labels = zarr.open_array(field_store / name)
    labels[...] = labels[...][::-1]
    with pytest.raises(DataError, match=f"variable '{name}' was written anew"):
        check_unchanged(before)
    assert source_fingerprint(open_source(field_store, **options)) != source_fingerprint(before)


def test_the_fingerprint_of_data_in_memory_follows_their_labels(field_store: Path) -> None:
    """Rows with other labels are other data."""
    options: dict[str, Any] = {"variables": ["t"], "sample_dims": ["lat", "lon"]}
    with xr.open_zarr(field_store, consolidated=False) as stored:
        field = stored.load()
    before = source_fingerprint(open_source(field, **options))
    assert source_fingerprint(open_source(field, **options)) == before
    for other in (field.assign_coords(lat=field["lat"] + 1), field.assign_coords(time=field["time"].values[::-1])):
        assert source_fingerprint(open_source(other, **options)) != before


@pytest.mark.parametrize("prefix", ["file://", ""], ids=["url", "path"])
def test_the_fingerprint_of_a_local_store_follows_its_values_however_it_is_named(
    field_store: Path, prefix: str
) -> None:
    before = source_fingerprint(open_source(f"{prefix}{field_store}", **USES))
    rewrite(zarr.open_array(field_store / "t"))
    assert source_fingerprint(open_source(f"{prefix}{field_store}", **USES)) != before


def test_the_fingerprint_stays_while_the_store_does(field_store: Path) -> None:
    source = open_source(field_store, **USES)
    before = source_fingerprint(source)
    rows(source)
    rewrite(zarr.open_array(field_store / "q"))
    assert source_fingerprint(source) == before
    assert source_fingerprint(open_source(field_store, **USES)) == before


def test_the_fingerprint_stays_when_a_neighbour_of_a_variable_named_values_changes(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "g", mode="w")
    for name in ("values", "other"):
        group.create_array(name, data=CUBE[0], chunks=(4, 10), dimension_names=("row", "feature"))
    before = source_fingerprint(open_source(tmp_path / "g", variables=["values"]))
    rewrite(group["other"])
    assert source_fingerprint(open_source(tmp_path / "g", variables=["values"])) == before


def test_the_fingerprint_distinguishes_variables_and_masks(field_store: Path) -> None:
    choices: list[dict[str, Any]] = [
        {"variables": ["t"]},
        {"variables": ["q"]},
        {"variables": ["t", "q"]},
        {"variables": ["t"], "mask": "sea"},
    ]
    fingerprints = {
        source_fingerprint(open_source(field_store, sample_dims=["lat", "lon"], **choice)) for choice in choices
    }
    assert len(fingerprints) == len(choices)


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda a: a, id="ndarray"),
        pytest.param(lambda a: xr.DataArray(a, dims=["row", "feature"]), id="DataArray"),
        pytest.param(lambda a: zarr.create_array({}, data=a, chunks=(2, 10)), id="zarr-array"),
    ],
)
def test_the_fingerprint_of_data_in_memory_follows_their_values(wrap: Callable[[np.ndarray], Any]) -> None:
    changed = CUBE[0].copy()
    changed[3, 3] += 1
    before = source_fingerprint(open_source(wrap(CUBE[0])))
    assert source_fingerprint(open_source(wrap(CUBE[0].copy()))) == before
    assert source_fingerprint(open_source(wrap(changed))) != before


# Faults


def damage(path: Path) -> Path:
    (path / "zarr.json").write_text("{")
    return path


def empty(path: Path) -> Path:
    (path.parent / "empty").mkdir()
    return path.parent / "empty"


FAULTS: dict[str, tuple[Callable[[Path], Path], str | None, list[str]]] = {
    "no-store": (lambda p: p.with_name("no.zarr"), None, ["no store at", "no.zarr", "check source.store"]),
    "no-store-of-the-group": (lambda p: p.with_name("no.zarr"), "a", ["no store at", "no.zarr", "check source.store"]),
    "a-folder-of-a-store": (lambda p: p.parent, None, ["holds one in the folder 'field.zarr'", "in group"]),
    "a-folder": (empty, None, ["holds no Zarr array or group", "'ingest'"]),
    "a-file": (lambda p: p / "zarr.json", None, ["holds no Zarr array or group", "'ingest'"]),
    "wrong-group": (lambda p: p, "dayly", ["no group 'dayly'", "did you mean 'daily'?", "allowed: "]),
    "wrong-inner-group": (lambda p: p, "daily/men", ["no group 'daily/men'", "did you mean 'daily/mean'?"]),
    "broken-metadata": (damage, None, ["field.zarr", "check the path"]),
}


@pytest.mark.parametrize(("place", "group", "fragments"), FAULTS.values(), ids=FAULTS.keys())
def test_a_store_that_cannot_be_opened_is_named_with_the_remedy(
    field_store: Path, place: Callable[[Path], Path], group: str | None, fragments: list[str]
) -> None:
    inner = xr.Dataset({"t": (("row", "feature"), CUBE[0])})
    inner.to_zarr(field_store, group="daily/mean", consolidated=False, zarr_format=3)
    with pytest.raises(SourceError) as caught:
        open_source(place(field_store), group=group, variables=["t"])
    message = str(caught.value)
    assert "\n" not in message
    assert [f for f in fragments if f not in message] == []


@pytest.mark.parametrize(
    "url",
    ["s3://bucket/a.zarr", "nosuch://a.zarr", "memory://nothing.zarr"],
    ids=["no-package", "no-protocol", "empty"],
)
def test_a_url_that_cannot_be_opened_is_named(url: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(url)
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_store_is_named_by_path_or_string_alike(field_store: Path) -> None:
    opened = [open_source(p, **USES) for p in (field_store, str(field_store), os.fspath(field_store) + "/")]
    assert len({source_fingerprint(s) for s in opened}) == 1
    shutil.rmtree(field_store)
    with pytest.raises(SourceError, match="no store at"):
        open_source(field_store, **USES)
