from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import xarray as xr
import yaml
import zarr
from s3 import Bucket

from benchmarks.embeddings import codebook, satellite, tissue
from benchmarks.fields import ocean, weather
from clustering.report.schema import config_schema
from clustering_flows.cli import run
from clustering_flows.init_command import _output_of
from clustering_flows.loading import load_config


def climate(path: Path) -> None:
    """Two variables of different units on a global grid, a mask and areas."""
    rng = np.random.default_rng(0)
    field = ("time", "lat", "lon")
    xr.Dataset(
        {
            "t2m": (field, rng.normal(size=(5, 6, 7)), {"units": "K"}),
            "pr": (field, rng.normal(size=(5, 6, 7)), {"units": "mm/day"}),
            "wet": (("lat", "lon"), np.ones((6, 7), bool)),
            "cell_area": (("lat", "lon"), np.ones((6, 7))),
        },
        coords={"lat": np.linspace(-60, 60, 6), "lon": np.arange(7.0) * 50, "time": np.arange(5.0)},
    ).to_zarr(path, zarr_format=2, consolidated=True)


def bare(path: Path) -> None:
    """An array of rows and features without names, of format 2, whose last chunks were never written."""
    array = zarr.create_array(path, shape=(300, 4), chunks=(100, 4), dtype="f4", zarr_format=2)
    array[:200] = np.random.default_rng(0).normal(size=(200, 4))


def cubes(path: Path) -> None:
    """A variable over nothing but unknown dimensions, of which the first is that of samples."""
    xr.Dataset({"a": (("p", "q", "r"), np.random.default_rng(0).normal(size=(40, 3, 2)))}).to_zarr(path, zarr_format=2)


def series(path: Path) -> None:
    """One variable over few times and many places."""
    values = np.random.default_rng(0).normal(size=(4, 9, 10))
    xr.Dataset({"t": (("time", "y", "x"), values)}).to_zarr(path, consolidated=False, zarr_format=3)


ZOO: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "climate": (climate, {"variables": ["pr", "t2m"], "sample_dims": ["time", "lat", "lon"], "feature_dims": [],
                          "weights": "cos(lat)"}),
    "ocean": (ocean, {"variables": ["salt", "temp"], "sample_dims": ["time", "lat", "lon"], "feature_dims": ["depth"],
                      "weights": "cos(lat)"}),
    "weather": (weather, {"variables": ["z500"], "sample_dims": ["time"], "feature_dims": ["lat", "lon"],
                          "missing_chunks": "mask"}),
    "satellite": (lambda path: satellite(path, side=256, shard=128),
                  {"variables": ["embeddings"], "sample_dims": ["time", "y", "x"], "feature_dims": ["band"],
                   "weights": "cos(y)", "missing_chunks": "mask"}),
    "tissue": (tissue, {"group": "0", "sample_dims": ["y", "x"], "feature_dims": ["c"]}),
    "bare": (bare, {"sample_dims": ["dim_0"], "feature_dims": ["dim_1"], "missing_chunks": "fill"}),
    "cubes": (cubes, {"variables": ["a"], "sample_dims": ["p"], "feature_dims": ["q", "r"]}),
    "series": (series, {"variables": ["t"], "sample_dims": ["y", "x"], "feature_dims": ["time"]}),
}  # fmt: skip
"""Makes a store of each kind, and what the source of its first config says besides the store."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ZOO)
def test_a_first_config_parses_suits_the_schema_and_can_be_inspected(
    here: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, expected = ZOO[kind]
    make(here / f"{kind}.zarr")
    assert run(["init", f"{kind}.zarr"]) == 0
    content = yaml.safe_load((here / f"{kind}.yaml").read_text())
    assert content["source"] == {"store": f"{kind}.zarr", **expected}
    assert content["model"] == {"kind": "kmeans", "k": 8}
    assert content["output"] == {"store": f"{kind}-clusters"}
    jsonschema.validate(content, config_schema())
    capsys.readouterr()
    assert run(["inspect", f"{kind}.yaml"]) == 0
    assert "time       not known" not in capsys.readouterr().out


def test_a_store_in_a_bucket_has_its_output_beside_it(here: Path, bucket: Bucket) -> None:
    bare(here / "bare.zarr")
    url = bucket.upload(here / "bare.zarr")
    assert run(["init", url, "job.yaml"]) == 0
    config = load_config(here / "job.yaml")
    assert (config.source.store, config.output.store) == (url, f"{bucket.url}/bare-clusters")
    assert config.source.missing_chunks == "fill"
    assert run(["inspect", "job.yaml"]) == 0


def test_names_with_any_characters_make_a_config_that_can_be_inspected(here: Path) -> None:
    name, latitude = "wind\nspeed: 10 m # \u00a0", "lat: #1"
    degrees = (latitude, [-10.0, 0.0, 10.0], {"units": "degrees_north"})
    field = xr.DataArray(np.random.default_rng(0).random((5, 3)), {latitude: degrees}, ("time", latitude))
    xr.Dataset({name: field}).to_zarr(here / "my wind.zarr", consolidated=False)
    assert run(["init", "my wind.zarr"]) == 0
    text = (here / "my wind.yaml").read_text()
    source = yaml.safe_load(text)["source"]
    assert (source["variables"], source["sample_dims"], source["feature_dims"]) == ([name], ["time"], [latitude])
    assert "clustering fit 'my wind.yaml'" in text
    assert run(["inspect", "my wind.yaml"]) == 0


def test_nothing_is_written_into_the_store(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare(here / "bare.zarr")
    before = sorted((here / "bare.zarr").rglob("*"))
    monkeypatch.chdir(here / "bare.zarr")
    assert run(["init", "."]) == 2
    assert "is inside the Zarr store" in capsys.readouterr().err
    assert run(["init", ".", "../job.yaml"]) == 0
    assert yaml.safe_load((here / "job.yaml").read_text())["output"] == {"store": str(here / "bare-clusters")}
    assert sorted((here / "bare.zarr").rglob("*")) == before


def test_results_of_a_whole_bucket_go_to_no_other_bucket() -> None:
    assert _output_of("s3://bucket") == _output_of("s3://bucket/") == "bucket-clusters"
    assert _output_of("s3://bucket/field.zarr") == "s3://bucket/field-clusters"


def test_variables_of_different_units_are_standardized_and_companions_are_offered(here: Path) -> None:
    climate(here / "climate.zarr")
    assert run(["init", "climate.zarr"]) == 0
    text = (here / "climate.yaml").read_text()
    assert load_config(here / "climate.yaml").preprocess.standardize == "per_feature"
    assert "# mask: wet" in text
    assert "# weights: cell_area" in text
    assert "* t2m (time 5, lat 6, lon 7) float64, units K" in text
    assert run(["fit", "climate.yaml", "--no-prefect", "--set", "output.report=false"]) == 0


def test_every_option_in_a_comment_is_one(here: Path) -> None:
    climate(here / "climate.zarr")
    assert run(["init", "climate.zarr"]) == 0
    lines = (here / "climate.yaml").read_text().splitlines()
    # The active weights and the head of `preprocess` would come twice.
    offered = [re.sub(r"^( *)# ?( *\w+:( |$))", r"\1\2", line) for line in lines if "weights: cos" not in line]
    Path("whole.yaml").write_text("\n".join(offered))
    config = load_config("whole.yaml")
    assert (config.source.weights, config.source.mask) == ("cell_area", "wet")
    assert config.source.isel == {"time": {"start": 0, "stop": 2}}
    assert config.select.k == "2..20"
    assert config.compute.memory == "2GiB"


def test_the_labels_of_an_image_are_offered_as_a_mask(here: Path) -> None:
    tissue(here / "tissue.zarr")
    assert run(["init", "tissue.zarr", "other.yaml"]) == 0
    text = (here / "other.yaml").read_text().replace("# mask:", "mask:")
    (here / "masked.yaml").write_text(text)
    assert run(["inspect", "masked.yaml"]) == 0


def test_a_group_is_named_where_there_are_several(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codebook(here / "codebook.zarr")
    assert run(["init", "codebook.zarr"]) == 2
    assert "name a group that does: 2026-01, 2026-02" in capsys.readouterr().err
    assert run(["init", "codebook.zarr", "--group", "2026-01"]) == 0
    config = load_config(here / "codebook.yaml")
    assert (config.source.group, config.source.variables) == ("2026-01", ["emb"])
    assert "# divergence: cosine" in (here / "codebook.yaml").read_text()


def test_a_file_that_is_there_is_never_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare(here / "bare.zarr")
    (here / "bare.yaml").write_text("mine")
    assert run(["init", "bare.zarr"]) == 2
    assert "'bare.yaml', which is there already; name another file" in capsys.readouterr().err
    assert (here / "bare.yaml").read_text() == "mine"
    assert run(["init", "bare.zarr", "no/bare.yaml"]) == 2
    assert "there is no folder 'no'" in capsys.readouterr().err


def test_a_config_is_not_written_into_a_store(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare(here / "bare.zarr")
    before = sorted(here.rglob("*"))
    assert run(["init", "bare.zarr", "bare.zarr/job.yaml"]) == 2
    assert "is inside the Zarr store" in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


def test_a_file_that_the_system_refuses_is_named_with_the_remedy(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare(here / "bare.zarr")
    name = "long" * 70 + ".yaml"
    assert run(["init", "bare.zarr", name]) != 0
    error = capsys.readouterr().err
    assert (len(error.splitlines()), "internal error" in error) == (1, False)
    assert run(["init", "bare.zarr", "/proc/job.yaml"]) == 1
    assert capsys.readouterr().err.endswith("; name another file\n")


def test_numbers_in_names_are_in_the_order_of_their_values(here: Path) -> None:
    names = [f"e{i}" for i in range(12)]
    xr.Dataset({name: ("row", np.arange(5.0)) for name in names}).to_zarr(here / "table.zarr", zarr_format=2)
    assert run(["init", "table.zarr"]) == 0
    assert load_config(here / "table.yaml").source.variables == names


def test_the_next_command_can_be_pasted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare(here / "bare.zarr")
    assert run(["init", "bare.zarr", "my job.yaml"]) == 0
    assert capsys.readouterr().out.endswith("next: clustering inspect 'my job.yaml'\n")
    (here / "my field.nc").write_bytes(b"CDF")
    assert run(["init", "my field.nc"]) == 2
    assert "clustering ingest 'my field.nc' 'my field.zarr'" in capsys.readouterr().err


def test_a_dash_prints_the_config_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare(here / "bare.zarr")
    assert run(["init", "bare.zarr", "-"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["source"]["sample_dims"] == ["dim_0"]
    assert [path.name for path in here.iterdir()] == ["bare.zarr"]


def test_the_schema_is_written_on_request_and_named_from_the_folder_of_the_config(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare(here / "bare.zarr")
    (here / "jobs").mkdir()
    for name in ("one", "other"):
        assert run(["init", "bare.zarr", f"jobs/{name}.yaml", "--schema", "schema.json"]) == 0
        first = (here / "jobs" / f"{name}.yaml").read_text().splitlines()[0]
        assert first == "# yaml-language-server: $schema=../schema.json"
    assert json.loads((here / "schema.json").read_text()) == config_schema()
    (here / "mine.json").write_text("{}")
    assert run(["init", "bare.zarr", "jobs/third.yaml", "--schema", "mine.json"]) == 2
    assert "--schema is to write 'mine.json', which is there already" in capsys.readouterr().err
    assert not (here / "jobs" / "third.yaml").exists()


def nothing(path: Path) -> None:
    zarr.create_group(path)


def texts(path: Path) -> None:
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("name", shape=(2,), dtype="<U3").attrs["_ARRAY_DIMENSIONS"] = ["row"]


def netcdf(path: Path) -> None:
    xr.Dataset({"a": (("y", "x"), np.zeros((3, 4)))}).to_netcdf(path)


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (None, "nowhere.zarr", "no store at 'nowhere.zarr'; check STORE"),
        (nothing, "empty.zarr", "holds no variables of its own; nor does any group in it; name another store"),
        (texts, "texts.zarr", "holds no variable of numbers over a dimension: 'name' has type"),
        (netcdf, "field.nc", "is a file, and no Zarr store; convert it first: clustering ingest field.nc field.zarr"),
        (Path.mkdir, "folder", "'folder' holds no Zarr array or group"),
    ],
)
def test_what_cannot_be_clustered_is_refused_in_a_line(
    here: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], Any] | None, name: str, message: str
) -> None:
    if make is not None:
        make(here / name)
    assert run(["init", name]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(here.glob("*.yaml"))
