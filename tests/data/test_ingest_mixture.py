"""Rows drawn from a mixture become a store of any size, the same whatever its chunks, or nothing is left behind."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
import zarr

import clustering
from clustering.data.ingest import CHUNK_BYTES
from clustering.errors import ConfigError
from clustering.models.sampling import BLOCK, mixture_from_user
from clustering.storage.synthetic_data import LARGEST_CHUNK, write_synthetic
from clustering_flows.cli import run

PARAMETERS: dict[str, Any] = {
    "weights": [0.2, 0.5, 0.3],
    "means": [[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]],
    "covariances": [[[2.0, 1.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]], [[3.0, -1.0], [-1.0, 1.0]]],
    "rows": 700,
    "seed": 4,
}
MIXTURE = mixture_from_user(*(PARAMETERS[name] for name in ("weights", "means", "covariances")))


def stored(path: Path) -> xr.Dataset:
    with xr.open_zarr(path, consolidated=False, chunks=None) as opened:
        return opened.load()


def write(folder: Path, content: Any = PARAMETERS) -> str:
    path = folder / "mixture.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def draw(folder: Path, name: str, *tokens: str) -> xr.Dataset:
    assert run(["ingest", "mixture", str(folder / name), "--parameters", write(folder), *tokens]) == 0
    return stored(folder / name)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.zarr"


def test_the_group_holds_rows_true_labels_and_how_they_came_about(tmp_path: Path) -> None:
    dataset = draw(tmp_path, "out.zarr")
    assert (dataset["rows"].dims, dataset["rows"].shape, dataset["rows"].dtype) == (
        ("row", "feature"),
        (700, 2),
        np.float64,
    )
    assert (dataset["labels"].dims, dataset["labels"].dtype) == (("row",), np.int8)
    # The components lie far apart, so that the nearest mean of each row is that of its component.
    nearest = np.abs(dataset["rows"].values[:, None] - PARAMETERS["means"]).sum(axis=2).argmin(axis=1)
    assert np.array_equal(dataset["labels"], nearest)
    assert dataset["labels"].attrs["flag_values"] == [0, 1, 2]
    assert len(dataset["labels"].attrs["flag_meanings"].split()) == 3
    kept = {name: dataset.attrs[name] for name in PARAMETERS if name != "rows"}
    assert kept == {name: value for name, value in PARAMETERS.items() if name != "rows"}
    assert dataset.attrs["covariance"] == "full"
    assert zarr.open_group(tmp_path / "out.zarr", mode="r").metadata.zarr_format == 3


def test_what_was_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path, "out.zarr", "--chunk-rows", "300", "--json")
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines[0] == "rows (row 700, feature 2) float64, chunks 300 × 2"
    assert lines[1] == "labels (row 700) int8, chunks 300"
    assert json.loads(last)["variables"]["rows"]["chunks"] == [300, 2]


@pytest.mark.parametrize("chunk_rows", [1, 50, 699, 700, 10_000])
def test_chunks_do_not_change_the_data(tmp_path: Path, chunk_rows: int) -> None:
    before, after = draw(tmp_path, "a.zarr"), draw(tmp_path, "b.zarr", "--chunk-rows", str(chunk_rows))
    assert after.drop_encoding().identical(before.drop_encoding())
    assert zarr.open_array(tmp_path / "b.zarr" / "rows", mode="r").chunks == (min(700, chunk_rows), 2)


def test_chunks_across_the_blocks_of_the_draw_do_not_change_the_data(tmp_path: Path) -> None:
    for name, chunk_rows in (("a", None), ("b", 50_000)):
        write_synthetic(MIXTURE, tmp_path / name, rows=2 * BLOCK + 77, chunk_rows=chunk_rows)
    assert stored(tmp_path / "a").equals(stored(tmp_path / "b"))


def test_more_rows_begin_with_fewer_and_another_seed_gives_others(tmp_path: Path) -> None:
    few, many = draw(tmp_path, "a.zarr"), draw(tmp_path, "b.zarr", "--rows", "1000")
    assert many.isel(row=slice(700)).equals(few)
    other = draw(tmp_path, "c.zarr", "--seed", "5")
    assert not np.isin(other["rows"], few["rows"]).any()
    assert (few.attrs["seed"], other.attrs["seed"]) == (4, 5)


def test_rows_are_streamed(out: Path) -> None:
    mixture = mixture_from_user([0.5, 0.5], np.zeros((2, 16)), 1.0)
    n = 500_000
    write_synthetic(mixture, out, rows=10)
    tracemalloc.start()
    write_synthetic(mixture, out, rows=n, overwrite=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * CHUNK_BYTES < n * 16 * 8
    assert zarr.open_array(out / "rows", mode="r").nchunks > 10


def test_a_fitted_model_is_drawn_from(tmp_path: Path, out: Path) -> None:
    first = draw(tmp_path, "a.zarr")
    fit = clustering.fit(first["rows"].values, clustering.GaussianMixture(3))
    fit.save(tmp_path / "model.zarr")
    tokens = [
        "ingest",
        "mixture",
        str(out),
        "--parameters",
        str(tmp_path / "model.zarr"),
        "--rows",
        "90",
        "--seed",
        "8",
    ]
    assert run(tokens) == 0
    rows, labels = fit.sample(90, seed=8)
    assert np.array_equal(stored(out)["rows"], rows)
    assert np.array_equal(stored(out)["labels"], labels)


def test_centers_may_be_said_for_means_and_no_covariances_mean_identity(tmp_path: Path, out: Path) -> None:
    path = write(tmp_path, {"weights": [1.0], "centers": [[5.0, 6.0, 7.0]], "rows": 2000})
    assert run(["ingest", "mixture", str(out), "--parameters", path]) == 0
    dataset = stored(out)
    assert dataset.attrs["covariance"] == "identity"
    assert np.allclose(dataset["rows"].mean("row"), [5.0, 6.0, 7.0], atol=0.2)
    assert np.allclose(dataset["rows"].std("row"), 1.0, atol=0.1)


def test_a_store_is_replaced_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = draw(tmp_path, "a.zarr")
    tokens = ["ingest", "mixture", str(tmp_path / "a.zarr"), "--parameters", write(tmp_path), "--seed", "9"]
    assert run(tokens) == 2
    assert "use --overwrite" in capsys.readouterr().err
    assert stored(tmp_path / "a.zarr").identical(before)
    assert run([*tokens, "--overwrite"]) == 0
    assert not stored(tmp_path / "a.zarr").equals(before)


def without(*names: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**PARAMETERS, **changes}.items() if name not in names}


BAD: dict[str, tuple[Any, str]] = {
    "weights over 1": (without(weights=[0.2, 0.5, 0.4]), "weights are [0.2, 0.5, 0.4], which add up to 1.1"),
    "two weights": (without(weights=[0.5, 0.5]), "weights have shape (2,)"),
    "ragged means": (without(means=[[0.0], [1.0, 2.0], [3.0]]), "means are"),
    "covariances of another shape": (without(covariances=[1.0, 2.0]), "covariances have shape (2,)"),
    "an indefinite covariance": (without(covariances=[[1.0, 2.0], [2.0, 1.0]]), "not positive definite"),
    "no rows": (without(rows=0), "rows is 0; a whole number of 1 or more is needed"),
    "half a row": (without(rows=1.5), "rows is 1.5; a whole number"),
    "a seed below 0": (without(seed=-1), "seed is -1; a whole number"),
    "rows not named": (without("rows"), "the number of rows is missing"),
    "weights missing": (without("weights"), "key 'weights' is missing"),
    "means missing": (without("means"), "keys 'means' and 'centers' are missing"),
    "means twice": (without(centers=[[0.0]]), "keys 'means' and 'centers' are both there"),
    "an unknown key": (without(weigths=1), "unknown key 'weigths'; did you mean 'weights'?"),
    "a key that is no word": ({**PARAMETERS, 3: 1}, "unknown key '3'"),
    "a config": ({"source": {"store": "a"}}, "unknown key 'source'; allowed: weights, means"),
    "a list": ([1, 2], "holds no keys; allowed: weights, means"),
    "nothing": ("", "holds no keys"),
    "no YAML": ("weights: [", "is not YAML, line "),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD)
def test_bad_parameters_are_refused_in_one_line_and_leave_nothing(
    tmp_path: Path, content: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, content)
    assert run(["ingest", "mixture", str(tmp_path / "new" / "out.zarr"), "--parameters", path]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert path in err
    assert [p.name for p in tmp_path.iterdir()] == ["mixture.yaml"]


WRONG: dict[str, tuple[list[str], str]] = {
    "parameters not given": (["mixture", "OUT"], "give --parameters FILE"),
    "parameters for a file": (["a.npy", "OUT", "--parameters", "FILE"], "leave it out"),
    "rows for a file": (["a.npy", "OUT", "--rows", "5"], "--rows is 5"),
    "seed for a file": (["a.npy", "OUT", "--seed", "0"], "--seed is 0"),
    "chunks for a file": (["a.npy", "OUT", "--chunk-rows", "5"], "--chunk-rows is 5"),
    "no such file": (["mixture", "OUT", "--parameters", "none.yaml"], "No such file"),
    "a folder without a model": (["mixture", "OUT", "--parameters", "."], "no model at '.'"),
    "no rows": (["mixture", "OUT", "--parameters", "FILE", "--rows", "0"], "rows is 0; a whole number of 1 or more"),
    "a seed below 0": (["mixture", "OUT", "--parameters", "FILE", "--seed", "-1"], "seed is -1"),
    "no chunks": (["mixture", "OUT", "--parameters", "FILE", "--chunk-rows", "0"], "chunk_rows is 0"),
    "a word for rows": (["mixture", "OUT", "--parameters", "FILE", "--rows", "many"], "many"),
}


@pytest.mark.parametrize(("tokens", "said"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_refused_in_one_line_and_leave_nothing(
    tmp_path: Path,
    tokens: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"OUT": str(tmp_path / "new" / "out.zarr"), "FILE": write(tmp_path)}
    assert run(["ingest", *(names.get(token, token) for token in tokens)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert [p.name for p in tmp_path.iterdir()] == ["mixture.yaml"]


def test_a_model_that_describes_no_rows_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clustering.fit(np.arange(10.0).reshape(5, 2), clustering.KMeans(2)).save(tmp_path / "model.zarr")
    tokens = ["--parameters", str(tmp_path / "model.zarr"), "--rows", "5"]
    assert run(["ingest", "mixture", str(out), *tokens]) == 2
    assert "fit gaussian_mixture, von_mises_fisher, or soft_kmeans" in capsys.readouterr().err
    assert not out.exists()


def test_a_chunk_that_would_not_fit_memory_is_refused(out: Path) -> None:
    most = LARGEST_CHUNK // 16
    with pytest.raises(ConfigError, match=f"at most {most:,} rows of 2 features"):
        write_synthetic(MIXTURE, out, rows=10 * most, chunk_rows=most + 1)
    assert not out.exists()


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["stop", "full"])
def test_a_draw_that_stops_halfway_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    original = zarr.Group.create_array

    def create_array(self: zarr.Group, name: str, **options: Any) -> Any:
        if name == "labels":
            raise fault
        return original(self, name, **options)

    monkeypatch.setattr(zarr.Group, "create_array", create_array)
    with pytest.raises((KeyboardInterrupt, OSError)):
        write_synthetic(MIXTURE, tmp_path / "new" / "out.zarr", rows=700)
    assert list(tmp_path.iterdir()) == []
