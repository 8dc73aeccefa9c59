"""Lists of rows and data frames: columns are features, and results have the index of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import clustering as c
from clustering.errors import DataError, SourceError

ROWS = np.random.default_rng(0).standard_normal((30, 2)) + 9.0 * (np.arange(30) % 2)[:, None]
FRAME = pd.DataFrame(ROWS, [f"r{i}" for i in range(30)], ["x", "y"])


@pytest.mark.parametrize("data", [ROWS.tolist(), tuple(map(tuple, ROWS)), FRAME], ids=["list", "tuple", "frame"])
def test_the_fit_is_that_of_the_array(data: Any) -> None:
    made, plain = c.fit(data, c.GaussianMixture(2)), c.fit(ROWS, c.GaussianMixture(2))
    assert np.asarray(made.centers).tobytes() == plain.centers.tobytes()
    assert list(made.predict(data)) == plain.predict(ROWS).tolist()


def test_columns_become_features_and_results_have_the_index() -> None:
    fit = c.fit(FRAME, c.GaussianMixture(2))
    assert fit.centers["column"].values.tolist() == ["x", "y"]
    labels, shares = fit.predict(FRAME), fit.responsibilities(FRAME)
    assert isinstance(labels, pd.Series)
    assert labels.index.equals(FRAME.index)
    assert isinstance(shares, pd.DataFrame)
    assert shares.index.equals(FRAME.index)
    assert shares.columns.tolist() == [0, 1]


@pytest.mark.parametrize("other", [FRAME[["y", "x"]], FRAME.rename(columns={"x": "z"}), FRAME[["x"]]])
def test_a_fit_refuses_other_columns(other: pd.DataFrame) -> None:
    with pytest.raises(DataError):
        c.fit(FRAME, c.KMeans(2)).predict(other)


def test_missing_values_of_pandas_are_missing() -> None:
    frame = pd.DataFrame({"a": pd.array([1, None, 8, 9], dtype="Int64"), "b": [True, False, True, True]})
    assert c.fit(frame, c.KMeans(2)).predict(frame).tolist()[1] == -1


def test_a_run_takes_a_list_and_a_data_frame(tmp_path: Path) -> None:
    for name, data in {"list": ROWS.tolist(), "frame": FRAME}.items():
        made = c.run(data, c.KMeans(2), output=tmp_path / name, report=False)
        assert made.fit.objective == c.fit(ROWS, c.KMeans(2)).objective


WRONG: dict[str, tuple[Any, str]] = {
    "text": (FRAME.assign(n="a"), "column 'n' of the data frame has type str; only numbers can be clustered"),
    "twice": (FRAME.set_axis(["x", "x"], axis=1), "the data frame has the column 'x' twice; rename one of the two"),
    "empty": (FRAME[[]], "the data frame has no columns"),
    "ragged": ([[1, 2], [3]], "cannot cluster a list that is no list of rows of numbers of equal length"),
    "words": (["a", "b"], "cannot cluster a list that is no list of rows of numbers of equal length"),
    "flat": ([1, 2, 3], "the array has 1 dimensions"),
}


@pytest.mark.parametrize(("data", "said"), WRONG.values(), ids=WRONG)
def test_what_is_no_table_of_numbers_is_refused(data: Any, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        c.fit(data, c.KMeans(1))


def test_a_frame_of_polars_is_taken() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"x": ROWS[:, 0], "y": ROWS[:, 1]})
    labels: NDArray[Any] = c.fit(frame, c.KMeans(2)).predict(frame)
    assert labels.tolist() == c.fit(ROWS, c.KMeans(2)).predict(ROWS).tolist()
