"""A span of labels that are not sorted holds all labels between its ends, where they stand, or is refused."""

from __future__ import annotations

from typing import Any

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from clustering.data import coordinates, selection
from clustering.data.coordinates import slack
from clustering.data.selection import positions
from clustering.errors import SourceError

SHUFFLED: dict[str, tuple[Any, Any, Any]] = {
    "numbers": (np.array([3.0, 0.0, 9.0, 4.0, 7.0, 5.0]), 3, 7),
    "whole-numbers": (np.array([3, 0, 9, 4, 7, 5]), 3, 7),
    "ends-between-labels": (np.array([3.0, 0.0, 9.0, 4.0, 7.0, 5.0]), 3.5, 8),
    "ends-off-by-rounding": (np.array([0.3, 0.0, 0.9, 0.4, 0.7, 0.5], "f4"), 0.3, 0.7),
    "duplicates": (np.array([5.0, 0.0, 5.0, 4.0, 5.0, 9.0, 4.0]), 4, 5),
    "missing": (np.array([5.0, np.nan, 1.0, 4.0, np.nan, 9.0]), 4, 9),
    "open-start": (np.array([3.0, 0.0, 9.0, np.nan, 4.0]), None, 4),
    "open-stop": (np.array([3.0, 0.0, 9.0, np.nan, 4.0]), 4, None),
    "dates": (
        pd.to_datetime(["2001-03-05", "2001-01-01", "2003-01-01", "2001-02-28", "2001-03-01"]), "2001-02", "2001-03"
    ),
    "date-twice": (
        pd.to_datetime(["2001-03-05", "2001-01-01", "2001-03-05", "2001-02-28"]), "2001-03-05", "2001-03-05"
    ),
    "durations": (pd.to_timedelta([3, 0, 9, 4, 7], "h"), pd.Timedelta("3h"), pd.Timedelta("7h")),
    "another-calendar": (
        np.array([cftime.Datetime360Day(2001, month, 30) for month in (3, 1, 12, 2, 2, 5)]), "2001-02", "2001-03"
    ),
}  # fmt: skip


def between(label: Any, start: Any, stop: Any) -> bool:
    """Return whether a label lies between two ends, without regard to other labels."""
    if isinstance(start, str):
        return bool(start <= str(label)[: len(start)] <= stop)
    near = 1e-6 if isinstance(label, (float, np.floating)) else label - label
    return bool((start is None or label >= start - near) and (stop is None or label <= stop + near))


@pytest.mark.parametrize(("labels", "start", "stop"), SHUFFLED.values(), ids=SHUFFLED)
def test_a_span_of_unsorted_labels_takes_all_between_its_ends(labels: Any, start: Any, stop: Any) -> None:
    expected = [i for i, label in enumerate(labels) if between(label, start, stop)]
    dataset = xr.Dataset(coords={"x": ("x", labels)})
    assert 0 < len(expected) < len(labels)
    for ends in ({"start": start, "stop": stop}, {"start": stop, "stop": start}):
        if None in (start, stop) and ends["start"] is not start:
            continue
        indexer = positions(dataset, {"x": ends}, {})["x"]
        assert np.arange(len(labels))[indexer].tolist() == expected
    every_other = positions(dataset, {"x": {"start": start, "stop": stop, "step": 2}}, {})["x"]
    assert np.arange(len(labels))[every_other].tolist() == expected[::2]


def test_a_span_of_all_unsorted_labels_takes_all() -> None:
    dataset = xr.Dataset(coords={"x": [3.0, np.nan, 1.0]})
    assert positions(dataset, {"x": {"step": 2}}, {})["x"] == slice(0, 3, 2)
    with pytest.raises(SourceError, match="'x' holds nothing"):
        positions(dataset, {"x": {"start": 1.5, "stop": 2.5}}, {})
    with pytest.raises(SourceError, match=r"label \['a', 3\] is not on dimension 'x'"):
        positions(dataset, {"x": {"start": "a", "stop": 3}}, {})


def test_a_span_of_unsorted_words_needs_a_list() -> None:
    for labels in (["red", "swir", "nir"], np.array(["b", 1, "a"], object)):
        dataset = xr.Dataset(coords={"band": ("band", labels)})
        with pytest.raises(SourceError, match=r"'band' are words and not sorted, .*; give a list"):
            positions(dataset, {"band": {"start": "nir", "stop": "swir"}}, {})
    words = xr.Dataset(coords={"band": ["d", "c", "b", "a"]})
    assert positions(words, {"band": {"start": "b", "stop": "c"}}, {})["band"] == slice(1, 3, None)


SCATTERED = np.array([10.0, 350.0, 190.0, 10.0, 0.0, 300.0, 355.0, 360.0])


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        pytest.param(340, 20, [0, 1, 3, 4, 6], id="across-the-meridian"),
        pytest.param(-20, 20, [0, 1, 3, 4, 6], id="another-turn"),
        pytest.param(5, 200, [0, 2, 3], id="duplicates"),
        pytest.param(200, None, [1, 5, 6, 7], id="open-stop"),
        pytest.param(None, 10, [0, 3, 4], id="open-start"),
        pytest.param(0, 360, list(range(8)), id="all"),
    ],
)
def test_unsorted_longitudes_are_taken_where_they_stand(start: Any, stop: Any, expected: list[int]) -> None:
    dataset = xr.Dataset(coords={"lon": SCATTERED})
    indexer = positions(dataset, {"lon": {"start": start, "stop": stop}}, {})["lon"]
    assert np.arange(8)[indexer].tolist() == expected


def test_a_label_that_stands_several_times_is_taken_each_time_also_by_rounding() -> None:
    labels = np.array([0.1, 0.5, 0.1, 0.9], "f4")
    dataset = xr.Dataset(coords={"x": labels, "gaps": [np.nan, 1.0, 2.0, 3.0]})
    assert positions(dataset, {"x": 0.1}, {})["x"] == slice(0, 3, 2)
    assert positions(dataset, {"gaps": 2.9999999}, {})["gaps"] == 3


@pytest.mark.parametrize("kind", ["rising", "falling", "shuffled", "twice", "gaps", "one", "same", "small-type"])
def test_many_labels_are_looked_at_in_parts_with_the_same_outcome(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    numbers = np.cumsum(rng.integers(1, 9, 37)) / 4
    labels = {
        "rising": numbers, "falling": numbers[::-1], "shuffled": rng.permutation(numbers), "twice": numbers.repeat(2),
        "gaps": np.where(np.arange(37) % 5 == 2, np.nan, numbers), "one": numbers[:1], "same": np.full(9, 2.5),
        "small-type": numbers.astype("f4"),
    }[kind]  # fmt: skip
    dataset = xr.Dataset(coords={"x": labels})
    wishes: list[Any] = [{"start": 9.1, "stop": 20.0}, {"start": None, "stop": numbers[12] + 1e-9}, labels[0] + 1e-9]
    whole = [slack(labels), *(positions(dataset, {"x": wish}, {}) for wish in wishes[kind in ("one", "same") :])]
    for module in (coordinates, selection):
        monkeypatch.setattr(module, "PART", 4)
    assert [
        slack(labels),
        *(positions(dataset, {"x": wish}, {}) for wish in wishes[kind in ("one", "same") :]),
    ] == whole
    finite = np.unique(labels[np.isfinite(labels)].astype("f8"))
    gap = np.diff(finite).min() if finite.size > 1 else finite[0]
    assert slack(labels) == min(max(1e-6 * gap, 4.0 * float(np.spacing(labels.dtype.type(finite[-1])))), gap / 4)
