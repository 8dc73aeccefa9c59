"""A mask is true and false, or one comparison; anything else is refused with the comparison that would do."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import clustering as c
from clustering.data.access import open_source
from clustering.data.block_fingerprints import BlockFingerprints
from clustering.data.conditions import Condition, condition
from clustering.data.reading import read_block
from clustering.errors import ClusteringError, ConfigError, DataError, SourceError


@pytest.mark.parametrize(
    ("text", "variable", "comparison", "numbers"),
    [
        ("sea", "sea", None, ()),
        ("labels/tissue/0", "labels/tissue/0", None, ()),
        ("within", "within", None, ()),
        ("in", "in", None, ()),
        ("landfrac > 0.5", "landfrac", ">", (0.5,)),
        ("landfrac>.5", "landfrac", ">", (0.5,)),
        ("  lat<=-30  ", "lat", "<=", (-30,)),
        ("qc!=+4", "qc", "!=", (4,)),
        ("qc == 1", "qc", "==", (1,)),
        ("depth < 1e-3", "depth", "<", (0.001,)),
        ("depth >= 2.", "depth", ">=", (2.0,)),
        ("surface in [1, 2]", "surface", "in", (1, 2)),
        ("surface in[1]", "surface", "in", (1,)),
        ("/labels/tissue/0 == 3", "/labels/tissue/0", "==", (3,)),
        ("land area fraction > 0.5", "land area fraction", ">", (0.5,)),
        ("main-in in [2]", "main-in", "in", (2,)),
    ],
)
def test_a_mask_is_a_name_or_one_comparison(
    text: str, variable: str, comparison: str | None, numbers: tuple[float, ...]
) -> None:
    assert condition(text) == Condition(variable, comparison, numbers)


@pytest.mark.parametrize(
    "text",
    [
        "a = 1", "a > b", "0.5 < a", "0 < a < 1", "a > 1 and b > 2", "a > 1 & b > 2", "a in 1", "a in []", "a in [1,]",
        "a in [b]", "a in (1, 2)", "a in [1, 2", "a == [1, 2]", "a > ", "> 1", "a =< 1", "a <> 1", "a > nan", "a > inf",
        "a > 1_000", "a > 0x10", "a > 1j", "a > __import__('os')", "a in [[1]]", "a == 'b'", "not a == 1", "a > 1;",
        "a >> 1", "a === 1",
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    if text in ("0.5 < a", "not a == 1"):
        # Names may hold dots and spaces, so the left side is read as the name of an unknown variable.
        with pytest.raises(ClusteringError, match="allowed"):
            open_source(xr.Dataset({"a": ("row", [1.0])}), feature_dims=[], mask=text)
        return
    with pytest.raises(ConfigError, match=r"'landfrac > 0\.5', 'surface in \[1, 2\]'") as caught:
        condition(text)
    assert "\n" not in str(caught.value)


FRACTIONS = np.array([0.0, 0.25, 0.5, 0.75, 1.0, np.nan])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v > 0.5", [0, 0, 0, 1, 1, 0]),
        ("v >= 0.5", [0, 0, 1, 1, 1, 0]),
        ("v < 0.5", [1, 1, 0, 0, 0, 0]),
        ("v <= 0.5", [1, 1, 1, 0, 0, 0]),
        ("v == 0.5", [0, 0, 1, 0, 0, 0]),
        ("v != 0.5", [1, 1, 0, 1, 1, 0]),
        ("v in [0.25, 1]", [0, 1, 0, 0, 1, 0]),
    ],
)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_comparison_holds_where_it_holds_and_never_where_values_are_missing(
    text: str, expected: list[int], dtype: str
) -> None:
    assert condition(text).used(FRACTIONS.astype(dtype)).tolist() == [bool(e) for e in expected]


def test_whole_numbers_are_compared_exactly() -> None:
    large = np.array([2**53, 2**53 + 1], "i8")
    assert condition(f"v == {2**53 + 1}").used(large).tolist() == [False, True]
    assert condition(f"v in [0.5, {2**53 + 1}]").used(large).tolist() == [False, True]
    assert condition("v != 300").used(np.array([44], "u1")).tolist() == [True]
    assert condition("v > -1").used(np.array([0], "u1")).tolist() == [True]


# Variables that are not boolean

N = 6


def data(values: Any, **attributes: Any) -> xr.Dataset:
    return xr.Dataset({"t": ("cell", np.arange(float(N))), "v": ("cell", np.asarray(values), attributes)})


def used(dataset: Any, mask: Any, **options: Any) -> list[bool]:
    source = open_source(dataset, variables=["t"], feature_dims=[], mask=mask, **options)
    rows = read_block(source, source.plan().block(0))
    return [i in (range(N) if rows.cells is None else rows.cells.tolist()) for i in range(N)]


TRUTH = [True, False, True, True, False, False]


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "f4", "O"])
def test_true_and_false_pass_in_any_type(dtype: str) -> None:
    assert used(data(np.array(TRUTH).astype(dtype)), "v") == TRUTH
    assert used(data(np.zeros(N)), np.array(TRUTH).astype(dtype)) == TRUTH


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("dtype", "fill", "attributes"),
    [("u1", 255, {}), ("i2", -1, {}), ("?", False, {}), pytest.param("i1", 0, {"dtype": "bool"}, id="? in bytes")],
)
def test_what_equals_the_fill_value_of_a_mask_is_not_used(
    tmp_path: Path, zarr_format: Any, dtype: str, fill: Any, attributes: dict[str, Any]
) -> None:
    mask = np.array([1, 0, 1, fill, 0, fill]).astype(dtype)
    group = zarr.create_group(tmp_path / "s", zarr_format=zarr_format)
    dims: dict[str, Any] = {"_ARRAY_DIMENSIONS": ["cell"]} if zarr_format == 2 else {}
    names = ["cell"] if zarr_format == 3 else None
    group.create_array("t", data=np.arange(1.0, N + 1), dimension_names=names, attributes=dims)
    about = {"_FillValue": fill, **attributes, **dims}
    group.create_array("v", data=mask, fill_value=fill, dimension_names=names, attributes=about)
    assert used(str(tmp_path / "s"), "v") == [True, False, True, False, False, False]


NO_TRUTH: dict[str, tuple[xr.Dataset, str, str]] = {
    "fractions": (data([0, 0.2, 0.7, 1, 1, 0]), "v", "holds 0.2.*v > 0.5"),
    "percent": (data([0, 20, 70, 100, 100, 0]), "v", "holds 20.*v > 0"),
    "plus-and-minus-one": (data([1, -1, 1, 1, -1, 1]), "v", "holds -1.*v == 1"),
    "float-plus-and-minus-one": (data([1.0, -1.0, 1, 1, -1, 1]), "v", "holds -1.*v == 1"),
    "one-and-two": (data([1, 2, 1, 1, 2, 1]), "v", "holds 2.*v == 2"),
    "numbers-of-regions": (data([0, 2, 1, 1, 2, 1]), "v", "holds 2.*v > 0"),
    "infinity": (data([0, np.inf, 1, 1, 0, 1]), "v", "holds inf"),
    "a-coordinate": (data(np.linspace(-60, 60, N)).set_coords("v"), "v", "holds -60.*v > 0"),
    "its-own-dimension": (data(TRUTH).assign_coords(cell=[0, 1, 2, 3, 4, 5]), "cell", "is a coordinate.*cell > 0"),
    "flags": (
        data([0, 1, 0, 0, 1, 1], flag_values=np.array([0, 1, 4]), flag_meanings="good fair bad"),
        "v",
        r"holds flags \(0: good, 1: fair, 4: bad\).*v == 0",
    ),
    "flag-masks": (data([0, 1, 0, 0, 1, 1], flag_masks=[1, 2]), "v", "holds flags, not.*v == 1"),
    "flags-as-text": (data([0, 1, 0, 0, 1, 1], flag_values="0b, 1b", flag_meanings="a b"), "v", r"0: a, 1: b.*v == 0"),
    "one-flag": (data([0, 1, 0, 0, 1, 1], flag_values=1, flag_meanings="land"), "v", r"\(1: land\).*v == 1"),
}


@pytest.mark.parametrize(("dataset", "name", "said"), NO_TRUTH.values(), ids=NO_TRUTH)
def test_what_is_no_truth_is_refused_with_the_comparison_that_would_do(
    dataset: xr.Dataset, name: str, said: str
) -> None:
    with pytest.raises((DataError, SourceError), match=rf"mask '{name}' .*{said}") as caught:
        used(dataset, name)
    assert "\n" not in str(caught.value)
    text = str(caught.value).partition('mask: "')[2].removesuffix('"')
    used(dataset, text)  # The comparison named is one.


@pytest.mark.parametrize("values", [[0, 0.2, 0.7, 1, 1, 0], [1, -1, 1, 1, -1, 1], [0, 3, 0, 0, 0, 1]])
def test_an_array_that_is_no_truth_is_refused_too(values: list[float]) -> None:
    for array in (np.array(values), xr.DataArray(values, dims="cell"), values):
        with pytest.raises(DataError, match=r"the mask holds .* array of true and false, such as array [=>]"):
            used(data(values), array)
    flags = xr.DataArray([0, 1, 0, 0, 1, 1], dims="cell", attrs={"flag_values": [0, 1], "flag_meanings": "sea land"})
    with pytest.raises(SourceError, match=r"the mask holds flags \(0: sea, 1: land\).*array == 0"):
        used(data(values), flags)


def test_words_are_no_truth() -> None:
    for values in ([None, "a", True, True, False, False], ["a"] * N):
        with pytest.raises(ClusteringError, match="mask"):
            used(data(np.array(values, object)), "v")
    with pytest.raises(SourceError, match=r"'mask' variable 'v' has type datetime64"):
        used(data(np.arange(N).astype("M8[ns]")), "v > 3")


# Comparisons in stores, in memory and in other processes


@pytest.fixture
def store(tmp_path: Path) -> Path:
    fractions = np.array([[0.2, 0.6], [0.9, np.nan], [0.5, 1.0]], "f4")
    field = np.arange(6.0).reshape(3, 2)
    xr.Dataset(
        {"t": (("lat", "lon"), field), "landfrac": (("lat", "lon"), fractions)}, {"lat": [-60.0, 0.0, 60.0]}
    ).to_zarr(tmp_path / "s.zarr", consolidated=False)
    return tmp_path / "s.zarr"


OPTIONS: dict[str, Any] = {"variables": ["t"], "feature_dims": []}
LAND = np.array([[False, True], [True, False], [False, True]])


def test_a_comparison_works_for_stores_and_data_in_memory_in_fit_and_predict(store: Path) -> None:
    memory = xr.open_zarr(store, consolidated=False)
    for data in (store, memory, memory.load()):
        options = {**OPTIONS, "mask": "landfrac > 0.5"}
        fit = c.fit(data, c.KMeans(k=1), restarts=1, **options)
        assert fit.centers.values.item() == np.mean([1, 2, 5])
        for labels in (fit.predict(data, **options), fit.margin(data, **options), fit.distance(data, **options)):
            assert np.array_equal(~np.isnan(labels.where(labels != -1).values), LAND)
        assert (fit.predict(data, **{**options, "mask": "lat >= 0"}).values[0] == -1).all()


def test_a_comparison_belongs_to_the_source_wherever_it_is_opened(store: Path) -> None:
    source = open_source(store, **OPTIONS, mask="landfrac > 0.5")
    rows = read_block(pickle.loads(pickle.dumps(source)), source.plan().block(0))
    assert rows.values[:, 0].tolist() == [1.0, 2.0, 5.0]
    others = [
        open_source(store, **OPTIONS, mask=mask) for mask in ("landfrac > 0.6", "landfrac >= 0.5", "landfrac < 1")
    ]
    contents = set()
    for each in (source, *others):
        identities = BlockFingerprints.for_plan(each, each.plan())
        assert identities is not None
        contents.add(identities[0].content)
    assert len(contents) == 4
    # Changes of the compared variable are noticed too.
    assert {"t", "landfrac"} <= set(source.listings)


def test_an_unknown_variable_of_a_comparison_is_named(store: Path) -> None:
    with pytest.raises(SourceError, match="unknown variable 'landfrc' in 'mask'; did you mean 'landfrac'"):
        open_source(store, **OPTIONS, mask="landfrc > 0.5")
