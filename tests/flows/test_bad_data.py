"""Data and options that cannot be clustered as asked, through the command line and through Python."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

import clustering as c
from clustering.config import JobConfig
from clustering.errors import ClusteringError, ConfigError, DataError, SourceError
from clustering_flows.cli import run

DIMS = ("time", "lat", "lon")
VALUES = np.random.default_rng(0).standard_normal((12, 9, 10))


def spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 8 :]
    elif how == "empty":
        content.clear()
    else:
        content[len(content) // 8] ^= 1
    path.write_bytes(bytes(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stores, some of whose arrays and chunks are faulty."""
    folder = tmp_path_factory.mktemp("bad-data")
    ones = np.ones((9, 10))
    one = ones.copy()
    one[5, 5] = 0
    fields = {"negative": one - 0.5, "holed": np.where(one, 1.0, np.nan), "endless": np.where(one, 1.0, np.inf)}
    data = xr.Dataset(
        {
            "t": (DIMS, VALUES),
            "q": (DIMS, -VALUES),
            "flat": (DIMS[:2], VALUES[..., 0]),
            "constant": (DIMS, np.full(VALUES.shape, 3.0)),
            "nothing": (DIMS[1:], ones * 0),
            **{name: (DIMS[1:], values) for name, values in fields.items()},
        },
        {"time": np.arange(12), "lat": np.linspace(80, -80, 9), "lon": np.arange(0.0, 360.0, 36.0)},
    )
    encoding = {name: {"chunks": (5, 9, 10)} for name in ("t", "q")}
    data.to_zarr(folder / "field.zarr", consolidated=False, zarr_format=3, encoding=encoding)
    root = zarr.open_group(folder / "field.zarr")
    root.create_array("masks/other", data=np.ones((4, 4), bool), dimension_names=DIMS[1:])
    root.create_array("masks/bare", data=np.ones((4, 4), bool))
    for name, other in (("uneven", VALUES[:6]), ("unlike", VALUES)):
        root.create_array(f"{name}/a", data=VALUES, dimension_names=DIMS)
        names = DIMS if name == "uneven" else ("time", "y", "x")
        root.create_array(f"{name}/b", data=other, dimension_names=names)
    for name, how, compressors in (
        ("truncated", "truncated", None),
        ("truncated-zstd", "truncated", ZstdCodec()),
        ("empty", "empty", ZstdCodec()),
        ("checksum", "flipped", [ZstdCodec(), Crc32cCodec()]),
    ):
        zarr.create_group(folder / f"{name}.zarr").create_array(
            "t", data=VALUES, chunks=(5, 9, 10), compressors=compressors, dimension_names=DIMS
        )
        # The last chunk lies half beyond the array.
        spoil(folder / f"{name}.zarr" / "t" / "c" / "2" / "0" / "0", how)
    zarr.create_group(folder / "absent.zarr").create_array(
        "t", data=VALUES, chunks=(5, 9, 10), fill_value=0, dimension_names=DIMS
    )
    (folder / "absent.zarr" / "t" / "c" / "1" / "0" / "0").unlink()
    (folder / "file").write_text("no store")
    return folder


@pytest.fixture
def out(folder: Path) -> Iterator[Path]:
    yield folder / "out"
    shutil.rmtree(folder / "out", ignore_errors=True)


@dataclass(frozen=True)
class Case:
    """What is wrong, what must be named, and what it is called in Python and on the command line."""

    named: list[str]
    error: type[ClusteringError]
    source: dict[str, Any] = field(default_factory=dict)
    preprocess: dict[str, Any] = field(default_factory=dict)
    k: int = 3


def store(name: str, **more: Any) -> dict[str, Any]:
    return {"store": name, "variables": ["t"], **more}


CASES = {
    # Chunks.
    **{
        f"{name} chunk": Case(
            ["chunk 'c/2/0/0'", "variable 't'", "does not decode", "source.on_bad_chunk"], DataError,
            store(f"{name}.zarr"),
        )
        for name in ("truncated", "truncated-zstd", "empty", "checksum")
    },
    "more bad chunks than allowed": Case(
        ["1 of 3 chunks", "'t/c/2/0/0'", "0.1", "source.max_bad_fraction"], DataError,
        store("checksum.zarr", on_bad_chunk="mask", max_bad_fraction=0.1),
    ),
    "chunk that was never written": Case(
        ["1 of 3 chunks", "variable 't'", "'c/1/0/0'", "source.missing_chunks"], DataError, store("absent.zarr")
    ),
    # Shapes.
    "fewer dimensions": Case(["'flat'", "'lon'", "time, lat"], SourceError, {"variables": ["t", "flat"]}),
    "other dimensions": Case(
        ["'b'", "'lat'", "time, y, x"], SourceError, {"group": "unlike", "variables": ["a", "b"]}
    ),
    "dimension of two lengths": Case(
        ["'time'", "12", "'uneven/a'", "6", "'uneven/b'", "name one array as the group"], SourceError,
        {"group": "uneven", "variables": ["a", "b"]},
    ),
    "mask of another shape": Case(
        ["'mask' 'masks/other'", "4 along 'lat'", "9", "same grid"], SourceError, {"mask": "masks/other"}
    ),
    "mask of another shape without names": Case(
        ["'/masks/bare'", "(4, 4)", "(12, 9, 10)"], SourceError, {"mask": "/masks/bare"}
    ),
    "mask along features": Case(
        ["'mask' variable 't'", "'time'", "lat, lon"], SourceError, {"mask": "t", "sample_dims": ["lat", "lon"]}
    ),
    # Weights.
    **{
        f"{name} weight": Case(
            [f"weights '{name}'", "negative or not finite", "block 0 [", "zero or more", "mask"], DataError,
            {"weights": name},
        )
        for name in ("negative", "holed", "endless")
    },
    "no weight": Case(["weights of all 1080 rows are zero", "source.weights"], DataError, {"weights": "nothing"}),
    # What preprocessing needs.
    "constant feature": Case(
        ["'constant'", "is constant", "preprocess.standardize"], DataError, {"variables": ["t", "constant"]},
        {"standardize": "per_feature"},
    ),
    "more components than rows": Case(
        ["pca is 200", "12 rows", "12 or fewer"], DataError, {"variables": ["t"], "sample_dims": ["time"]},
        {"pca": 200},
    ),
    "fewer rows than clusters": Case(["k is 20", "12 distinct"], DataError, {"sample_dims": ["time"]}, k=20),
    "negative feature weight": Case(
        ["feature_weights 'negative'", "-0.5", "0 or more"], DataError, {"sample_dims": ["time"]},
        {"feature_weights": "negative"},
    ),
    # Selections and names.
    "selection of nothing": Case(
        ["'lat'", "holds nothing", "80.0 to -80.0", "widen"], SourceError,
        {"select": {"lat": {"start": 81, "stop": 89}}},
    ),
    "box of nothing": Case(["holds nothing", "widen"], SourceError, {"bbox": [1, 1, 2, 2]}),
    "box upside down": Case(["south 50", "swap"], SourceError, {"bbox": [0, 50, 10, -50]}),
    "unknown variable": Case(["'tt'", "allowed: "], SourceError, {"variables": ["tt"]}),
    "unknown dimension": Case(["'tim'", "did you mean 'time'"], SourceError, {"sample_dims": ["tim"]}),
    "unknown group": Case(["'unevn'", "did you mean 'uneven'"], SourceError, {"group": "unevn"}),
    "store that is a file": Case(["{folder}/file", "ingest"], SourceError, store("file")),
    # Wishes that do not fit the data.
    "decoder of floats": Case(
        ["signed_square", "'t'", "float64", "leave it out"], SourceError, {"decode": "signed_square"}
    ),
    "number of another variable": Case(["nodata", "'z'", "t, q"], ConfigError, {"nodata": {"z": 1}}),
}  # fmt: skip


def opened(folder: Path, case: Case) -> dict[str, Any]:
    source = {"store": "field.zarr", "variables": ["t", "q"], "sample_dims": list(DIMS), **case.source}
    return {**source, "store": str(folder / source["store"])}


def named(case: Case, message: str, folder: Path, *, sections: bool = True) -> None:
    """Check that a message names what is wrong; a call in Python has options without a section."""
    assert "\n" not in message
    for name in case.named:
        expected = name if sections else name.removeprefix("source.").removeprefix("preprocess.")
        assert expected.replace("{folder}", str(folder)) in message


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_fault_of_the_data_is_reported_in_one_line_by_the_command_line(
    case: Case, folder: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {
        "source": opened(folder, case),
        "preprocess": case.preprocess,
        "model": {"k": case.k},
        "output": {"store": str(out), "report": False},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
    before = sorted(folder.rglob("*"))
    code = run(["fit", str(tmp_path / "job.yaml"), "--no-prefect"])
    output = capsys.readouterr()
    assert code == (1 if case.error is DataError else 2)
    assert output.out == ""
    assert [line for line in output.err.splitlines() if line.startswith("clustering: ")] == output.err.splitlines()[-1:]
    assert "Traceback" not in output.err
    named(case, output.err.splitlines()[-1], folder)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_fault_of_the_data_is_reported_in_one_line_by_python(case: Case, folder: Path) -> None:
    options = {**opened(folder, case), **case.preprocess}
    with pytest.raises(case.error) as caught:
        c.fit(options.pop("store"), c.KMeans(case.k), cluster="synchronous", **options)
    named(case, str(caught.value), folder, sections=False)


# Wrong types

KEYS = [
    (section, key)
    for section, about in JobConfig.model_fields.items()
    for key in about.annotation.model_fields  # type: ignore[union-attr]
]
MAPPINGS = {"storage_options", "select", "isel", "nodata", "decode"}


@pytest.mark.parametrize(("section", "key"), KEYS, ids=[".".join(pair) for pair in KEYS])
def test_a_value_of_another_type_is_reported_in_one_line_that_names_the_key(
    section: str, key: str, folder: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in ([[1]], [{"a": 1}] if key in MAPPINGS else {"a": [1]}):
        content: dict[str, Any] = {
            "source": {"store": str(folder / "field.zarr"), "variables": ["t"]},
            "output": {"store": str(out)},
        }
        content.setdefault(section, {})[key] = wrong
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
        assert run(["fit", str(tmp_path / "job.yaml"), "--no-prefect"]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        # For a nested section, the message names the key that is missing in it.
        assert re.match(rf"clustering: (unknown key ')?{section}\.{key}", message)
        # The message says first what is there and then what is needed, in words of this project.
        assert "; " in message
        assert "Config" not in message
    assert not out.exists()


@pytest.mark.parametrize("section", JobConfig.model_fields)
def test_a_section_that_is_none_is_reported_with_its_keys(
    section: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"source": {"store": str(folder / "field.zarr")}, "output": {"store": str(tmp_path / "out")}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**content, section: "text"}))
    assert run(["fit", str(tmp_path / "job.yaml")]) == 2
    keys = ", ".join(JobConfig.model_fields[section].annotation.model_fields)  # type: ignore[union-attr]
    assert capsys.readouterr().err == f"clustering: {section} is 'text'; it is a section; allowed keys: {keys}\n"


OPTIONS = {
    "source": (
        "group", "variables", "sample_dims", "feature_dims", "select", "isel", "bbox", "mask", "weights", "labels",
        "missing", "missing_chunks", "on_bad_chunk", "max_bad_fraction", "nodata", "decode", "valid_range",
        "storage_options",
    ),
    "fit": (
        "seed", "restarts", "finalists", "sample_rows", "init", "max_iterations", "tolerance", "max_seconds",
        "fraction",
    ),
    "preprocess": ("standardize", "unit_norm", "pca", "pca_per_variable", "whiten", "feature_weights"),
    "compute": ("cluster", "workers", "memory", "scratch", "block_bytes"),
}  # fmt: skip


@pytest.mark.parametrize("option", [option for options in OPTIONS.values() for option in options])
@pytest.mark.parametrize("wrong", [[[1]], {"no such": [1]}, 1j], ids=["list", "mapping", "number"])
def test_an_option_of_another_type_is_an_error_of_this_library(option: str, wrong: Any, folder: Path) -> None:
    options = {"variables": ["t"], "cluster": "synchronous", option: wrong}
    with pytest.raises(ClusteringError) as caught:
        c.fit(folder / "field.zarr", c.KMeans(2), **options)
    assert "\n" not in str(caught.value)


WRONG_ARRAYS = {
    "mask": (np.ones((3, 3), bool), "mask has shape (3, 3); the samples have shape (12, 9, 10)"),
    "weights": (np.ones(5), "weights has shape (5,); the samples have shape (12, 9, 10)"),
    "labels": (np.ones((9, 10)), "labels has shape (9, 10); the samples have shape (12, 9, 10)"),
    "feature_weights": (np.ones(7), "feature_weights have shape (7,), and there are 1 features"),
}


@pytest.mark.parametrize("option", WRONG_ARRAYS)
def test_arrays_of_another_shape_are_refused(option: str, folder: Path) -> None:
    array, said = WRONG_ARRAYS[option]
    with pytest.raises(ClusteringError) as caught:
        c.fit(folder / "field.zarr", c.KMeans(2), variables=["t"], sample_dims=DIMS, **{option: array})
    assert said in str(caught.value)
