"""Files become stores that hold the same values, or nothing is left behind."""

from __future__ import annotations

import math
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image

from clustering.data.access import open_source
from clustering.data.ingest import CHUNK_BYTES, LEAST_CHUNK_BYTES, choose_chunks, ingest
from clustering.data.reading import read_block
from clustering.errors import ClusteringError, DataError, OutputError, SourceError

RNG = np.random.default_rng(4)
MATRIX = RNG.standard_normal((50, 3))


def stored(path: Path) -> xr.Dataset:
    with xr.open_zarr(path, consolidated=False, chunks=None) as opened:
        return opened.load()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.zarr"


# Images


PICTURES: dict[str, np.ndarray] = {
    "grey": RNG.integers(0, 256, (20, 30), np.uint8),
    "colour": RNG.integers(0, 256, (20, 30, 3), np.uint8),
    "transparent": RNG.integers(0, 256, (20, 30, 4), np.uint8),
    "sixteen-bit": RNG.integers(0, 1 << 16, (20, 30), np.uint16),
}


@pytest.mark.parametrize("pixels", PICTURES.values(), ids=PICTURES.keys())
def test_pixels_of_an_image_are_kept(tmp_path: Path, out: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.PNG")
    ingest(tmp_path / "a.PNG", out)
    image = stored(out)["image"]
    assert (image.dims, image.dtype) == (("y", "x", "channel"), pixels.dtype)
    assert np.array_equal(image, pixels.reshape(20, 30, -1))


def test_a_photograph_has_a_row_for_each_pixel(tmp_path: Path, out: Path) -> None:
    pixels = load_sample_image("china.jpg")
    Image.fromarray(pixels).save(tmp_path / "china.png")
    ingest(tmp_path / "china.png", out)
    source = open_source(out, feature_dims=["channel"])
    plan = source.plan()
    assert (source.shape, source.n_features) == ((427, 640), 3)
    assert np.array_equal(stored(out)["image"], pixels)
    assert sum(len(read_block(source, plan.block(i))) for i in range(len(plan))) == 427 * 640


def test_a_turned_photograph_is_held_upright(tmp_path: Path, out: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # the top of the scene is at the right of the stored pixels
    Image.fromarray(PICTURES["colour"]).save(tmp_path / "a.png", exif=turned)
    ingest(tmp_path / "a.png", out)
    assert np.array_equal(stored(out)["image"], np.rot90(PICTURES["colour"], -1))


@pytest.mark.parametrize("limit", [400, 100], ids=["warned-of", "refused"])
def test_an_image_over_the_readers_limit_is_ingested(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    Image.fromarray(PICTURES["colour"]).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    ingest(tmp_path / "a.png", out)
    assert np.array_equal(stored(out)["image"], PICTURES["colour"])


# Arrays


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(MATRIX, id="matrix"),
        pytest.param(MATRIX[:, 0], id="vector"),
        pytest.param(RNG.integers(-9, 9, (4, 5, 6, 2), np.int16), id="four-dimensions"),
        pytest.param(np.asfortranarray(MATRIX), id="fortran-order"),
        pytest.param(MATRIX.astype(">f4"), id="big-endian"),
        pytest.param(MATRIX > 0, id="boolean"),
        pytest.param(MATRIX.astype("f2"), id="half-precision"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_array_is_kept_to_the_last_bit(tmp_path: Path, out: Path, array: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez_compressed(path, values=array)
    ingest(path, out)
    variable = stored(out)["values"]
    assert np.array_equal(variable, array)
    assert variable.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    assert variable.dims[: 1 if array.ndim < 3 else 0] == (("row",) if array.ndim < 3 else ())


@pytest.mark.parametrize(
    ("suffix", "save"),
    [
        pytest.param(".npy", np.save, id="npy"),
        pytest.param(".npz", np.savez, id="npz"),
        pytest.param(".npz", np.savez_compressed, id="npz-compressed"),
    ],
)
def test_an_array_is_streamed(tmp_path: Path, out: Path, suffix: str, save: Callable[..., None]) -> None:
    array = np.arange(4_000_000.0).reshape(-1, 8)
    path = tmp_path / f"a{suffix}"
    save(path, array)
    name = "values" if suffix == ".npy" else "arr_0"
    tracemalloc.start()
    ingest(path, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * CHUNK_BYTES < array.nbytes
    assert np.array_equal(zarr.open_array(out / name, mode="r")[:], array)


def test_members_of_an_archive_become_variables(tmp_path: Path, out: Path) -> None:
    members = {
        "x": MATRIX,
        "y": np.arange(50, dtype="i2"),
        "x_test": RNG.random((20, 3)),
        "wide": np.asfortranarray(RNG.random((50, 7))),
        "cube": RNG.random((4, 5, 6)),
    }
    np.savez(tmp_path / "a.npz", **members, names=np.array(["a"]), scalar=np.array(3.0))
    assert set(ingest(tmp_path / "a.npz", out).variables) == set(members)
    dataset = stored(out)
    assert {name: np.array_equal(dataset[name], values) for name, values in members.items()} == dict.fromkeys(
        members, True
    )
    assert dataset["x"].dims[0] == dataset["y"].dims[0]
    assert open_source(out, variables=["x_test"]).shape == (20,)


@pytest.mark.parametrize("name", ["row", "feature", "a/b"])
def test_a_member_of_any_name_can_be_clustered(tmp_path: Path, out: Path, name: str) -> None:
    np.savez(tmp_path / "a.npz", **{name: np.arange(50.0)}, x=MATRIX)
    (variable,) = set(ingest(tmp_path / "a.npz", out).variables) - {"x"}
    source = open_source(out, variables=[variable])
    assert np.array_equal(read_block(source, source.plan().block(0)).values, np.arange(50.0)[:, None])


# Tables


FRAME = pd.DataFrame(
    {
        "whole": np.arange(400),
        "fraction": RNG.standard_normal(400),
        "gaps": np.where(np.arange(400) % 7 == 0, np.nan, np.arange(400.0)),
        "flag": np.arange(400) % 3 == 0,
        "choice": np.arange(400) % 2,
        "word": [f"w{i}" for i in range(400)],
    }
)


def save_frame(frame: pd.DataFrame, path: Path, **options: Any) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path, **{"index": False, **options})
    else:
        frame.to_parquet(path, row_group_size=37)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_numeric_columns_become_variables_and_gaps_become_nan(tmp_path: Path, out: Path, suffix: str) -> None:
    frame = FRAME.assign(holes=pd.array(np.arange(400), "Int64"))
    frame.loc[[3, 9], "holes"] = pd.NA
    written = ingest(save_frame(frame, tmp_path / f"t{suffix}"), out).variables
    dataset = stored(out)
    assert {n: v.dims for n, v in dataset.items()} == dict.fromkeys(frame.columns.drop("word"), ("row",))
    assert {n: str(v.dtype) for n, v in dataset.items()} == {n: kind for n, (_, _, _, kind) in written.items()}
    for name, kind in {"whole": "i8", "choice": "i8", "fraction": "f8", "flag": "?"}.items():
        assert np.array_equal(dataset[name], FRAME[name])
        assert (name, dataset[name].dtype) == (name, kind)
    assert np.array_equal(dataset["gaps"], FRAME["gaps"], equal_nan=True)
    assert np.flatnonzero(np.isnan(dataset["holes"])).tolist() == [3, 9]


def test_columns_make_rows_with_gaps_left_out(tmp_path: Path, out: Path) -> None:
    ingest(save_frame(FRAME, tmp_path / "t.csv"), out)
    source = open_source(out, variables=["fraction", "gaps"])
    rows = read_block(source, source.plan().block(0))
    assert np.array_equal(rows.values, FRAME[["fraction", "gaps"]].dropna().values)


def test_many_batches_are_joined_in_order(tmp_path: Path, out: Path) -> None:
    values = RNG.random(1_300_000)
    pq.write_table(pa.table({"x": values}), tmp_path / "t.parquet", row_group_size=70_001)
    ingest(tmp_path / "t.parquet", out)
    assert np.array_equal(stored(out)["x"], values)


def test_a_csv_with_an_unnamed_index_column_is_ingested(tmp_path: Path, out: Path) -> None:
    ingest(save_frame(FRAME, tmp_path / "t.csv", index=True), out)
    assert np.array_equal(stored(out)["fraction"], FRAME["fraction"])


@pytest.mark.parametrize("first", ["1", ""], ids=["whole-numbers-first", "gaps-first"])
def test_the_type_of_a_csv_column_is_that_of_all_its_rows(tmp_path: Path, out: Path, first: str) -> None:
    (tmp_path / "t.csv").write_text("x,y\n" + f"{first},2\n" * 300_000 + "1.5,2\n")
    ingest(tmp_path / "t.csv", out)
    column = stored(out)["x"].values
    assert np.array_equal(column, [float(first or "nan")] * 300_000 + [1.5], equal_nan=True)


def test_a_csv_column_that_turns_into_text_is_left_out(tmp_path: Path, out: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n" + "1,2\n" * 300_000 + "n/k,3\n")
    assert set(ingest(tmp_path / "t.csv", out).variables) == {"y"}
    assert stored(out)["y"].values.tolist() == [2] * 300_000 + [3]


@pytest.mark.parametrize("number", ["3", "2.5"], ids=["whole", "fraction"])
def test_spaces_after_commas_do_not_make_text_of_numbers(tmp_path: Path, out: Path, number: str) -> None:
    (tmp_path / "t.csv").write_text(f"x, y\n7, {number}\n8, 9\n")
    ingest(tmp_path / "t.csv", out)
    assert sorted(v.values.tolist() for v in stored(out).values()) == sorted([[7, 8], [float(number), 9]])


def test_large_whole_numbers_beside_a_gap_are_ingested_as_the_nearest_float(tmp_path: Path, out: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n9007199254740993,1\n,1\n")
    ingest(tmp_path / "t.csv", out)
    assert np.array_equal(stored(out)["x"], [9007199254740992.0, np.nan], equal_nan=True)


@pytest.mark.parametrize("name", ["row", "a/b", "mean.5"])
def test_a_column_of_any_name_can_be_clustered(tmp_path: Path, out: Path, name: str) -> None:
    (tmp_path / "t.csv").write_text(f"{name},other\n1,2\n3,4\n")
    (variable, _) = ingest(tmp_path / "t.csv", out).variables
    source = open_source(out, variables=[variable])
    assert read_block(source, source.plan().block(0)).values.tolist() == [[1], [3]]


def test_columns_whose_names_become_alike_are_kept_apart(tmp_path: Path, out: Path) -> None:
    (tmp_path / "t.csv").write_text("x.,.x,a/b,a_b,row,row_\n1,2,3,4,5,6\n")
    ingest(tmp_path / "t.csv", out)
    assert sorted(v.item() for v in stored(out).data_vars.values()) == [1, 2, 3, 4, 5, 6]


# Grids


def grid() -> xr.Dataset:
    t = RNG.random((6, 4, 5)) * 10 + 280
    q = RNG.random((6, 4, 5)).astype("f4")
    t[0, 1, 2] = q[3, 2, 1] = np.nan
    time = np.arange("2001-01-01", "2001-01-07", dtype="datetime64[D]").astype("datetime64[ns]")
    return xr.Dataset(
        {
            "t": (("time", "lat", "lon"), t, {"units": "K", "long_name": "temperature"}),
            "q": (("time", "lat", "lon"), q, {"units": "1"}),
            "crs": ((), np.int32(0), {"grid_mapping_name": "latitude_longitude"}),
        },
        coords={
            "time": time,
            "lat": ("lat", np.linspace(60, -60, 4), {"units": "degrees_north"}),
            "lon": np.arange(5.0),
            "area": (("lat", "lon"), RNG.random((4, 5)), {"units": "m2"}),
        },
        attrs={"title": "a field", "version": 3},
    )


PACKED = {"t": {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "netcdf4": ("a.nc", {"engine": "h5netcdf"}),
    "netcdf3": ("a.nc", {"engine": "scipy", "format": "NETCDF3_64BIT"}),
    "hdf5-with-scales": ("a.h5", {"engine": "h5netcdf"}),
}


@pytest.mark.parametrize("encoding", [{}, PACKED], ids=["plain", "packed"])
@pytest.mark.parametrize(("name", "options"), KINDS.values(), ids=KINDS.keys())
def test_a_grid_decodes_to_what_the_file_decodes_to(
    tmp_path: Path, out: Path, name: str, options: dict[str, Any], encoding: dict[str, Any]
) -> None:
    grid().to_netcdf(tmp_path / name, encoding=encoding, **options)
    written = ingest(tmp_path / name, out).variables
    with xr.open_dataset(tmp_path / name, engine=options["engine"]) as original:
        xr.testing.assert_identical(stored(out), original.load())
    assert zarr.open_array(out / "t", mode="r").dtype == ("i2" if encoding else "f8")
    assert (written["q"][-1], zarr.open_array(out / "q", mode="r").dtype) == ("float32", "f4")
    source = open_source(out, variables=["t"], feature_dims=["lon"], weights="cos(lat)", mask=None)
    assert np.flatnonzero(~np.isin(np.arange(24), read_block(source, source.plan().block(0)).cells)).tolist() == [1]


def test_text_coordinates_of_a_grid_survive(tmp_path: Path, out: Path) -> None:
    dataset = xr.Dataset({"x": (("station", "month"), RNG.random((3, 2)))}, coords={"station": ["a", "bb", "c"]})
    dataset.to_netcdf(tmp_path / "a.nc", engine="scipy", format="NETCDF3_64BIT")
    ingest(tmp_path / "a.nc", out)
    assert stored(out)["station"].values.tolist() == ["a", "bb", "c"]


def test_plain_hdf5_is_read_without_dimension_scales(tmp_path: Path, out: Path) -> None:
    import h5py

    labels = np.arange(50, dtype="i4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = MATRIX, labels
        file["x"].attrs["units"] = np.bytes_(b"K")
        file.attrs["tags"] = np.array([b"a", b"b"])
    ingest(tmp_path / "a.h5", out)
    dataset = stored(out)
    assert np.array_equal(dataset["x"], MATRIX)
    assert np.array_equal(dataset["y"], labels)
    assert (dataset["x"].attrs, dataset.attrs["tags"]) == ({"units": "K"}, ["a", "b"])
    assert open_source(out, variables=["x"]).shape == (50,)


# Chunks


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=5).map(tuple), st.sampled_from([1, 2, 4, 8]))
def test_chunks_fit_the_array_and_have_about_the_wanted_size(shape: tuple[int, ...], itemsize: int) -> None:
    chunks = choose_chunks(shape, itemsize)
    total, size = math.prod(shape) * itemsize, math.prod(chunks) * itemsize
    target_bytes = min(CHUNK_BYTES, max(LEAST_CHUNK_BYTES, total // 8))
    assert all(1 <= c <= n for c, n in zip(chunks, shape, strict=True))
    assert chunks == shape if total <= target_bytes else 0.5 * target_bytes < size < 1.5 * target_bytes


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=5).map(tuple), st.sampled_from([1, 2, 4, 8]))
def test_trailing_dimensions_are_cut_only_when_leading_ones_cannot_be_cut_further(
    shape: tuple[int, ...], itemsize: int
) -> None:
    chunks = choose_chunks(shape, itemsize)
    cut = [axis for axis, (c, n) in enumerate(zip(chunks, shape, strict=True)) if c < n]
    assert all(c == 1 for c in chunks[: max(cut, default=0)])


def test_what_was_written_is_reported(tmp_path: Path, out: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((30_000, 8)))
    ingested = ingest(tmp_path / "a.npy", out)
    array = zarr.open_array(out / "values", mode="r")
    assert ingested.path == out
    assert ingested.variables == {"values": (("row", "feature"), array.shape, array.chunks, str(array.dtype))}
    assert array.nchunks > 1


# Existing destinations


def test_a_destination_is_replaced_only_when_asked(tmp_path: Path, out: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        np.save(tmp_path / f"{name}.npy", np.full((4, 2), value))
    ingest(tmp_path / "a.npy", out)
    before = contents(out)
    with pytest.raises(OutputError, match="exists; name another destination, or use --overwrite"):
        ingest(tmp_path / "b.npy", out)
    assert contents(out) == before
    ingest(tmp_path / "b.npy", out, overwrite=True)
    assert (stored(out)["values"] == 2).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "b.npy", "out.zarr"]


@pytest.mark.parametrize("folder", [True, False], ids=["folder", "file"])
def test_what_is_no_store_is_never_replaced(tmp_path: Path, folder: bool) -> None:
    np.save(tmp_path / "a.npy", MATRIX)
    target = tmp_path / "mine"
    if folder:
        target.mkdir()
    (target / "letter.txt" if folder else target).write_text("dear")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="not a Zarr store"):
        ingest(tmp_path / "a.npy", target, overwrite=True)
    assert contents(tmp_path) == before


def test_a_file_is_never_replaced_by_its_own_store(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MATRIX)
    before = contents(tmp_path)
    with pytest.raises(ClusteringError, match="name another destination"):
        ingest(tmp_path / "a.npy", tmp_path / "a.npy", overwrite=True)
    assert contents(tmp_path) == before


def test_a_destination_inside_a_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MATRIX)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="cannot write"):
        ingest(tmp_path / "a.npy", tmp_path / "a.npy" / "b" / "out.zarr")
    assert contents(tmp_path) == before


def test_a_url_is_no_destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.npy"
    np.save(path, MATRIX)
    with pytest.raises(OutputError, match=r"'s3://bucket/out.zarr': name a local path"):
        ingest(path, "s3://bucket/out.zarr")
    assert set(contents(tmp_path)) == {"a.npy"}


# Broken files


def spoil(path: Path, at: float = 0.5) -> Path:
    raw = bytearray(path.read_bytes())
    place = int(len(raw) * at)
    raw[place : place + 64] = bytes(b ^ 255 for b in raw[place : place + 64])
    path.write_bytes(raw)
    return path


def shorten(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def npy(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


def npz(path: Path, compressed: bool = True, **arrays: Any) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "not an array")
    return path


def png(path: Path) -> Path:
    Image.fromarray(PICTURES["colour"]).save(path)
    return path


def checked_hdf5(path: Path) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", data=RNG.random((4000, 4)), chunks=(1000, 4), fletcher32=True)
        for number, name in enumerate(("row", "feature")):
            file[name] = np.arange(float(data.shape[number]))
            file[name].make_scale(name)
            data.dims[number].attach_scale(file[name])
        place = data.id.get_chunk_info(2).byte_offset
    return spoil(path, (place + 100) / path.stat().st_size)


BIG = RNG.random((1000, 3))
BROKEN: dict[str, Callable[[Path], Path]] = {
    "image": lambda p: write(p / "a.png", b"garbage"),
    "image-cut-short": lambda p: shorten(png(p / "a.png")),
    "npy": lambda p: write(p / "a.npy", b"garbage"),
    "npy-cut-short": lambda p: shorten(npy(p / "a.npy", BIG)),
    "npy-of-objects": lambda p: npy(p / "a.npy", np.array([{}], object)),
    "npy-of-text": lambda p: npy(p / "a.npy", np.array(["a"])),
    "npy-of-complex-numbers": lambda p: npy(p / "a.npy", np.zeros(3, complex)),
    "npy-of-one-number": lambda p: npy(p / "a.npy", np.float64(3)),
    "npz": lambda p: write(p / "a.npz", b"garbage"),
    "npz-of-no-arrays": lambda p: zipped(p / "a.npz"),
    "npz-of-no-numbers": lambda p: npz(p / "a.npz", names=np.array(["a"])),
    "npz-spoilt": lambda p: spoil(npz(p / "a.npz", compressed=False, x=BIG)),
    "npz-spoilt-compressed": lambda p: spoil(npz(p / "a.npz", x=BIG)),
    "npz-spoilt-deflated": lambda p: spoil(npz(p / "a.npz", x=BIG.round(1))),
    "npz-spoilt-fortran": lambda p: spoil(npz(p / "a.npz", x=np.asfortranarray(BIG))),
    "npz-second-member-spoilt": lambda p: spoil(npz(p / "a.npz", x=BIG, y=BIG + 1), 0.75),
    "csv-empty": lambda p: write(p / "a.csv", ""),
    "csv-header-only": lambda p: write(p / "a.csv", "x,y\n"),
    "csv-ragged": lambda p: write(p / "a.csv", "x,y\n1,2\n3\n"),
    "csv-of-words": lambda p: write(p / "a.csv", "x,y\na,b\n"),
    "parquet": lambda p: write(p / "a.parquet", b"garbage"),
    "parquet-cut-short": lambda p: shorten(save_frame(FRAME, p / "a.parquet")),
    "netcdf": lambda p: write(p / "a.nc", b"garbage"),
    "hdf5": lambda p: write(p / "a.h5", b"garbage"),
    "hdf5-spoilt": lambda p: checked_hdf5(p / "a.h5"),
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_named_and_leaves_nothing_behind(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(DataError) as caught:
        ingest(path, tmp_path / "new" / "folder" / "out.zarr")
    assert contents(tmp_path) == before
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_file_leaves_the_store_it_would_have_replaced(tmp_path: Path, out: Path) -> None:
    ingest(npy(tmp_path / "a.npy", MATRIX), out)
    broken = spoil(npz(tmp_path / "b.npz", x=BIG))
    before = contents(tmp_path)
    with pytest.raises(DataError):
        ingest(broken, out, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(KeyboardInterrupt(), KeyboardInterrupt, id="interrupted"),
        pytest.param(OSError(28, "No space left on device"), OutputError, id="disk-full"),
    ],
)
def test_a_write_that_stops_halfway_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, kind: type[BaseException]
) -> None:
    path = npz(tmp_path / "a.npz", x=BIG, y=BIG)
    before = contents(tmp_path)
    original = zarr.Group.create_array

    def create_array(self: zarr.Group, name: str, **options: Any) -> Any:
        if name == "y":
            raise fault
        return original(self, name, **options)

    monkeypatch.setattr(zarr.Group, "create_array", create_array)
    with pytest.raises(kind):
        ingest(path, tmp_path / "new" / "out.zarr")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "fragments"),
    [
        pytest.param("a.xyz", ["'a.xyz'", "unknown kind '.xyz'", ".npy", ".png", ".csv", ".nc"], id="unknown-suffix"),
        pytest.param("a.parque", ["unknown kind '.parque'", "did you mean '.parquet'"], id="nearly-a-suffix"),
        pytest.param("plain", ["'plain'", "allowed: "], id="no-suffix"),
    ],
)
def test_a_file_of_unknown_kind_is_refused_with_the_kinds_allowed(
    tmp_path: Path, out: Path, name: str, fragments: list[str]
) -> None:
    with pytest.raises(SourceError) as caught:
        ingest(write(tmp_path / name, "1"), out)
    assert [f for f in fragments if f not in str(caught.value)] == []
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param("nothing.npy", r"no file at .*check the path", id="nothing"),
        pytest.param("pictures", "a folder without a parquet file; name a file", id="folder"),
        pytest.param("store.zarr", "a Zarr store already; name it as source.store", id="store"),
        pytest.param("https://host/a.csv", "download the file first", id="url"),
        pytest.param("s3://bucket/a.parquet", "download the file first", id="bucket"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path: Path, out: Path, name: str, said: str) -> None:
    (tmp_path / "pictures").mkdir()
    png(tmp_path / "pictures" / "a.png")
    zarr.create_group(tmp_path / "store.zarr")
    with pytest.raises(SourceError, match=said):
        ingest(name if "://" in name else tmp_path / name, out)
