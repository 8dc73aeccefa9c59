"""Label images and maps that the readers of other programs open."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

import clustering as c
from clustering.errors import OutputError
from clustering.exports.ome_zarr import mode_of_squares

FIELDS: dict[str, Any] = {"variables": ["t"], "sample_dims": ["time", "lat", "lon"]}
UTM = rasterio.crs.CRS.from_epsg(32633).to_wkt()


def map_store(path: Path, **changes: Any) -> Path:
    """A map of two bands (y 700, x 530), in UTM, whose first rows are masked."""
    rng = np.random.default_rng(5)
    classes = np.kron(rng.integers(0, 3, (70, 53)), np.ones((10, 10), int))
    values = np.stack([classes * 4.0, classes * -3.0]) + rng.normal(0, 0.2, (2, 700, 530))
    values[:, :5] = np.nan
    coords = {"y": 5e6 - 10.0 * np.arange(700), "x": 4e5 + 10.0 * np.arange(530), **changes}
    field = xr.Dataset({"v": (("band", "y", "x"), values, {"grid_mapping": "spatial_ref"})}, coords)
    field["spatial_ref"] = xr.DataArray(0, attrs={"crs_wkt": UTM})
    field.to_zarr(path, consolidated=False, encoding={"v": {"chunks": (2, 256, 256)}})
    return path


def labelled(folder: Path, **changes: Any) -> c.Run:
    store = map_store(folder / "map.zarr", **changes)
    options: dict[str, Any] = {"variables": ["v"], "sample_dims": ["y", "x"], "feature_dims": ["band"]}
    job = c.run(str(store), c.KMeans(3), output=folder / "out", report=False, **options)
    (folder / "out" / "names.json").write_text(json.dumps({"1": {"name": "forest & fen", "colour": "#00aa11"}}))
    return job


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> c.Run:
    return labelled(tmp_path_factory.mktemp("labels"))


@pytest.fixture
def labels(job: c.Run) -> np.ndarray:
    return np.asarray(job.labels["labels"].values)


def nodes(path: Path) -> list[Any]:
    location = parse_url(path)
    assert location is not None
    return list(Reader(location)())


def test_a_reader_of_ome_zarr_opens_the_labels(job: c.Run, labels: np.ndarray, tmp_path: Path) -> None:
    assert job.export(tmp_path / "made.ome.zarr", to="ome-zarr") == [tmp_path / "made.ome.zarr"]

    (node,) = [node for node in nodes(tmp_path / "made.ome.zarr") if node.data]
    assert (np.asarray(node.data[0]) == labels + 1).all()
    assert [level.shape for level in node.data] == [(700, 530), (350, 265)]
    assert node.metadata["color"][2] == [0.0, 0xAA / 255, 0x11 / 255, 1.0]
    assert node.metadata["properties"][2]["name"] == "forest & fen"
    assert node.metadata["properties"][2]["cluster"] == 1
    sizes = [node.metadata["properties"][i]["size"] for i in (1, 2, 3)]
    assert sizes == pytest.approx(np.bincount(labels[labels >= 0]), rel=1e-12)
    assert [axis["name"] for axis in node.metadata["axes"]] == ["y", "x"]
    coarse = zarr.open_group(tmp_path / "made.ome.zarr" / "clusters").attrs["ome"]["multiscales"][0]["datasets"][1]
    # y descends, so it is counted in cells; x is 10 m.
    assert coarse["coordinateTransformations"][0] == {"type": "scale", "scale": [2.0, 20.0]}
    assert coarse["coordinateTransformations"][1]["translation"] == [0.5, 4e5 + 5.0]


@pytest.mark.parametrize("version", [2, 3])
def test_labels_become_a_part_of_an_image(
    job: c.Run, labels: np.ndarray, version: Literal[2, 3], tmp_path: Path
) -> None:
    image = zarr.open_group(tmp_path / "image.zarr", mode="w", zarr_format=version)
    key = {"name": "v2" if version == 2 else "default", "separator": "/"}
    image.create_array("0", data=np.zeros((700, 530), np.uint8), chunk_key_encoding=key)
    unit = [{"type": "scale", "scale": [1.0, 1.0]}]
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    scales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": unit}], "version": "0.4"}]
    image.attrs.update({"multiscales": scales} if version == 2 else {"ome": {"version": "0.5", "multiscales": scales}})

    for name in ("clusters", "again"):
        job.export(tmp_path / "image.zarr" / "labels" / name, to="ome-zarr")

    about = zarr.open_group(tmp_path / "image.zarr" / "labels").attrs
    assert (about if version == 2 else about["ome"])["labels"] == ["clusters", "again"]
    opened = [node for node in nodes(tmp_path / "image.zarr") if "properties" in node.metadata]
    assert [node.metadata["name"] for node in opened] == ["clusters", "again"]
    assert all((np.asarray(node.data[0]) == labels + 1).all() for node in opened)
    assert "multiscales" in (image.attrs if version == 2 else image.attrs["ome"])


def test_labels_lie_on_the_level_of_their_size(job: c.Run, tmp_path: Path) -> None:
    image = zarr.open_group(tmp_path / "image.zarr", mode="w", zarr_format=3)
    datasets = []
    for i, shape in enumerate([(3, 1400, 1060), (3, 700, 530)]):
        image.create_array(str(i), shape=shape, dtype="u1", chunks=(1, 700, 530))
        scale, shift = [1.0, 0.5 * 2**i, 0.25 * 2**i], [0.0, 10.0 + i, 20.0 + i]
        steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
        datasets.append({"path": str(i), "coordinateTransformations": steps})
    space = {"type": "space", "unit": "micrometer"}
    axes = [{"name": "c", "type": "channel"}, {"name": "y", **space}, {"name": "x", **space}]
    whole = [{"type": "scale", "scale": [1.0, 2.0, 2.0]}]
    scales = [{"axes": axes, "datasets": datasets, "coordinateTransformations": whole}]
    image.attrs["ome"] = {"version": "0.5", "multiscales": scales}

    job.export(tmp_path / "image.zarr" / "labels" / "clusters", to="ome-zarr")

    (made,) = zarr.open_group(tmp_path / "image.zarr" / "labels" / "clusters").attrs["ome"]["multiscales"]
    assert made["axes"] == axes[1:]
    fine, coarse = (one["coordinateTransformations"] for one in made["datasets"])
    assert [step.get("scale", step.get("translation")) for step in fine] == [[2.0, 1.0], [22.0, 42.0]]
    assert [step.get("scale", step.get("translation")) for step in coarse] == [[4.0, 2.0], [23.0, 42.5]]


def test_label_images_of_others_are_never_replaced(job: c.Run, tmp_path: Path) -> None:
    place = tmp_path / "made.zarr"
    job.export(place, to="ome-zarr")
    with pytest.raises(OutputError, match="exists; name another destination, or use --overwrite"):
        job.export(place, to="ome-zarr")
    job.export(place, to="ome-zarr", overwrite=True)

    (place / "note.txt").write_text("mine")

    with pytest.raises(OutputError, match=r"holds 'note.txt': it is not a label image as 'export' wrote it"):
        job.export(place, to="ome-zarr", overwrite=True)


def test_a_coarse_label_is_the_most_frequent_one() -> None:
    labels = np.array([[1, 2, 3], [2, 2, 4], [5, 6, 7]])

    # Odd lengths are continued, and a tie goes to the first cell.
    assert mode_of_squares(labels).tolist() == [[2, 3], [5, 7]]


def test_a_map_has_ids_palette_nodata_and_place(job: c.Run, labels: np.ndarray, tmp_path: Path) -> None:
    assert job.export(tmp_path / "m.tif", to="geotiff") == [tmp_path / "m.tif", tmp_path / "m.qml"]

    with rasterio.open(tmp_path / "m.tif") as file:
        assert (np.where(file.read(1) == 255, -1, file.read(1).astype(int)) == labels).all()
        assert (file.dtypes, file.nodata) == (("uint8",), 255)
        assert file.crs.to_epsg() == 32633
        assert file.xy(0, 0) == (4e5, 5e6)
        assert file.xy(699, 529) == (4e5 + 5290, 5e6 - 6990)
        assert file.colorinterp[0] == rasterio.enums.ColorInterp.palette
        assert file.colormap(1)[1] == (0, 0xAA, 0x11, 255)
        assert file.tags()["cluster_1"] == "forest & fen"
    entries = ET.parse(tmp_path / "m.qml").getroot().iter("paletteEntry")
    assert [entry.get("label") for entry in entries] == ["0", "forest & fen", "2"]


def test_a_map_from_south_to_north_is_turned(tmp_path: Path) -> None:
    job = labelled(tmp_path, y=5e6 + 10.0 * np.arange(700))

    job.export(tmp_path / "m.tif", to="geotiff")

    with rasterio.open(tmp_path / "m.tif") as file:
        read = file.read(1)[::-1]
        assert (np.where(read == 255, -1, read.astype(int)) == job.labels["labels"].values).all()
        assert file.xy(0, 0) == (4e5, 5e6 + 6990)


def test_what_a_map_or_an_image_cannot_hold_is_refused(field_store: Path, tmp_path: Path) -> None:
    uneven = labelled(tmp_path, x=np.arange(530.0) ** 2)
    with pytest.raises(OutputError, match=r"evenly spaced coordinates, and those of 'x' are not; export to netcdf"):
        uneven.export(tmp_path / "m.tif", to="geotiff")
    places = c.run(str(field_store), c.KMeans(2), **FIELDS, output=tmp_path / "fields", report=False)
    with pytest.raises(OutputError, match=r"a map, and the samples lie along \(time, lat, lon\); export to netcdf"):
        places.export(tmp_path / "m.tif", to="geotiff")
    series = c.run(
        str(field_store), c.KMeans(2), variables=["t"], sample_dims=["time"], output=tmp_path / "series", report=False
    )
    with pytest.raises(OutputError, match=r"\(t, c, z, y, x\), .* these lie along \(time\); export to netcdf"):
        series.export(tmp_path / "m.zarr", to="ome-zarr")
    assert not [*tmp_path.glob("m.*"), *tmp_path.glob(".m.*")]
