from __future__ import annotations

import json
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import clustering
from clustering.data.source import Feature
from clustering.errors import OutputError, SourceError
from clustering.fitting.fitted_model import FittedModel, Summary
from clustering.fitting.loop import Stop
from clustering.models.kmeans import KMeans
from clustering.models.kmeans_params import KMeansParams
from clustering.storage.model import from_dataset, load_model, save_model, to_dataset, write_model

FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**53)
NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8)
LABELS = st.one_of(
    st.integers(-(2**53), 2**53), FINITE, st.text(max_size=5), st.booleans(), st.just("2001-01-01T00:00:00.000000000")
)
OUR_NAMES = ["centers", "weights", "history", "mean", "variance", "minimum", "maximum"]
OUR_DIMS = ["cluster", "feature", "pass", "step"]


def same_bits(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def assert_same(read: FittedModel, written: FittedModel) -> None:
    assert (read.model, read.features, read.stop, read.notes) == (
        written.model, written.features, written.stop, written.notes
    )  # fmt: skip
    for name in ("objective", "iterations", "history", "shares", "centers", "reads", "bytes_read"):
        assert same_bits(getattr(read, name), getattr(written, name)), name
    assert same_bits(read.params.origin, written.params.origin)
    assert same_bits(read.params.centers, written.params.centers)
    for field in fields(Summary):
        assert same_bits(getattr(read.summary, field.name), getattr(written.summary, field.name)), field.name


@st.composite
def fitted_values(draw: st.DrawFn) -> FittedModel:
    k, d, passes = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(0, 3))

    def array(*shape: int) -> Any:
        return draw(hnp.arrays(np.float64, shape, elements=FINITE))

    dim = draw(NAMES.filter(lambda name: name not in OUR_NAMES))
    at = st.one_of(st.just(()), st.tuples(st.tuples(st.just(dim), LABELS)))
    return FittedModel(
        model=KMeans(k),
        params=KMeansParams(array(d), array(k, d)),
        features=tuple(Feature(draw(NAMES), draw(at)) for _ in range(d)),
        summary=Summary(draw(COUNTS), draw(COUNTS), draw(FINITE), array(d), array(d), array(d), array(d), draw(COUNTS)),
        objective=draw(FINITE),
        history=array(passes, 2),
        iterations=passes,
        stop=draw(st.sampled_from(list(Stop))),
        shares=array(k),
        reads=draw(st.floats(0, 1e6)),
        bytes_read=draw(COUNTS),
        notes=tuple(draw(st.lists(st.text(), max_size=2))),
    )


def a_model(*features: Feature) -> FittedModel:
    rng = np.random.default_rng(5)
    d = len(features)
    return FittedModel(
        KMeans(3),
        KMeansParams(rng.random(d), rng.random((3, d))),
        features,
        Summary(10, 9, 9.5, rng.random(d), rng.random(d), rng.random(d), rng.random(d), 9),
        12.5,
        rng.random((4, 2)),
        4,
        Stop.CONVERGED,
        np.array([0.5, 0.25, 0.25]),
        1.0,
        4096,
        ("pass 1: empty cluster 2 re-seeded at the farthest row",),
    )


@given(fitted_values())
def test_a_model_survives_its_description_to_the_last_bit(written: FittedModel) -> None:
    assert_same(from_dataset(to_dataset(written)), written)


@settings(max_examples=15)
@given(fitted_values())
def test_a_model_comes_back_from_disk_to_the_last_bit(written: FittedModel) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_model(written, folder)
        assert_same(load_model(folder)[0], written)


@pytest.mark.parametrize("dim", OUR_NAMES + OUR_DIMS)
def test_a_feature_dimension_may_have_any_name(dim: str, tmp_path: Path) -> None:
    written = a_model(*(Feature("t", ((dim, level),)) for level in (0.0, 5.0, 10.0)))
    save_model(written, tmp_path / "model.zarr")
    assert_same(load_model(tmp_path / "model.zarr")[0], written)


def test_the_model_opens_in_xarray_in_the_datas_own_units(tmp_path: Path) -> None:
    written = a_model(*(Feature("t", (("depth", level),)) for level in (0.0, 5.0, 10.0)))
    save_model(written, tmp_path / "model.zarr")
    with xr.open_zarr(tmp_path / "model.zarr", consolidated=False) as opened:
        assert opened["centers"].dims == ("cluster", "feature")
        assert same_bits(opened["centers"].values, written.params.origin + written.params.centers)
        assert opened["depth"].values.tolist() == [0.0, 5.0, 10.0]
        assert opened["depth"].dims == ("feature",)
        assert opened["weights"].values.tolist() == [0.5, 0.25, 0.25]
        assert opened["history"].dims == ("pass", "step")


def test_names_along_a_feature_dimension_are_its_labels_on_disk_too(tmp_path: Path, rng: np.random.Generator) -> None:
    data = xr.DataArray(
        rng.normal(size=(20, 3)), dims=("pixel", "channel"), coords={"channel": ["DAPI", "CD3", "CD8 é"]}, name="image"
    )
    fit = clustering.fit(data, clustering.KMeans(2), sample_dims=["pixel"])
    fit.save(tmp_path / "model.zarr")
    with xr.open_dataset(str(tmp_path / "model.zarr"), engine="zarr", consolidated=False) as read:
        for centers in (fit.centers, read["centers"]):
            assert centers["channel"].values.tolist() == ["DAPI", "CD3", "CD8 é"]
            assert centers.dims == ("cluster", "feature")


def test_attributes_are_kept_as_plain_json(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    save_model(a_model(Feature("t")), tmp_path / "model.zarr", {"run": "a1", "labelled": True})
    for file in (tmp_path / "model.zarr").rglob("zarr.json"):
        stored = json.loads(file.read_text(), parse_constant=refuse)
    stored = json.loads((tmp_path / "model.zarr" / "zarr.json").read_text())["attributes"]
    assert (stored["run"], stored["labelled"], stored["k"], stored["kind"]) == ("a1", True, 3, "kmeans")
    assert load_model(tmp_path / "model.zarr")[1] == stored


def test_saving_replaces_the_model_before(tmp_path: Path) -> None:
    save_model(a_model(*(Feature("t", (("depth", level),)) for level in (0.0, 5.0))), tmp_path / "model.zarr")
    written = a_model(Feature("q"))
    with pytest.raises(OutputError, match="exists; name another destination, or use overwrite=True"):
        save_model(written, tmp_path / "model.zarr")
    save_model(written, tmp_path / "model.zarr", overwrite=True)
    assert_same(load_model(tmp_path / "model.zarr")[0], written)
    assert not (tmp_path / "model.zarr" / "depth").exists()


def test_a_model_is_found_by_the_output_that_holds_it(tmp_path: Path) -> None:
    written = a_model(Feature("t"))
    write_model(written, tmp_path / "model.zarr")
    assert_same(load_model(tmp_path)[0], written)


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no model at") as caught:
        load_model(tmp_path / "nothing")[0]
    assert str(tmp_path / "nothing") in str(caught.value)


def test_a_group_that_is_no_model_is_refused(field_store: Path) -> None:
    with pytest.raises(SourceError, match="is not a model") as caught:
        load_model(field_store)[0]
    assert str(field_store) in str(caught.value)


def test_a_bare_array_is_refused(tmp_path: Path) -> None:
    xr.Dataset({"x": ("row", np.arange(3.0))}).to_zarr(tmp_path / "g.zarr", consolidated=False, zarr_format=3)
    with pytest.raises(SourceError, match="is not a model"):
        load_model(tmp_path / "g.zarr" / "x")[0]


def test_another_format_is_refused(tmp_path: Path) -> None:
    save_model(a_model(Feature("t")), tmp_path / "model.zarr", {"format": 99})
    with pytest.raises(SourceError, match="has format 99; this version reads format 1"):
        load_model(tmp_path / "model.zarr")[0]


@pytest.mark.parametrize("labelled", [False, True], ids=["ndarray", "labelled"])
def test_a_fit_comes_back_as_it_was_saved(labelled: bool, blobs: np.ndarray, tmp_path: Path) -> None:
    data = xr.DataArray(blobs, dims=("row", "channel"), name="x") if labelled else blobs
    saved = clustering.fit(data, clustering.KMeans(4))
    saved.save(tmp_path / "model.zarr")
    loaded = clustering.load_fit(tmp_path / "model.zarr")
    assert_same(loaded.fitted, saved.fitted)
    assert type(loaded.centers) is type(saved.centers)
    assert np.array_equal(loaded.predict(data), saved.predict(data))
    assert loaded.score(data) == saved.score(data)
