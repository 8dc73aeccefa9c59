from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import clustering as c
from clustering.errors import ClusteringError, ConfigError, DataError, SourceError

ROWS = np.arange(12.0).reshape(6, 2)

WRONG: dict[str, Any] = {
    "k": lambda: c.KMeans(0),
    "shape of centers": lambda: c.fit(ROWS, c.KMeans(2), init=np.zeros((3, 2))),
    "weights of another length": lambda: c.fit(ROWS, c.KMeans(2), weights=np.ones(5)),
    "mask of another length": lambda: c.fit(ROWS, c.KMeans(2), mask=np.ones(5, bool)),
    "negative weights": lambda: c.fit(ROWS, c.KMeans(2), weights=-np.ones(6)),
    "an unknown option": lambda: c.fit(ROWS, c.KMeans(2), sed=1),
    "an unknown dimension": lambda: c.fit(ROWS, c.KMeans(2), sample_dims=["x"]),
    "too large k": lambda: c.fit(ROWS, c.KMeans(7)),
    "words": lambda: c.fit(np.array([["a"], ["b"]]), c.KMeans(2)),
    "more than 64 bits": lambda: c.fit(ROWS.astype(np.longdouble), c.KMeans(2)),
    "complex numbers": lambda: c.fit(ROWS * 1j, c.KMeans(2)),
    "a number": lambda: c.fit(3, c.KMeans(2)),
    "no rows": lambda: c.fit(np.zeros((0, 2)), c.KMeans(2)),
    "other features": lambda: c.fit(ROWS, c.KMeans(2)).predict(np.zeros((3, 3))),
    "rows of a draw": lambda: c.fit(ROWS, c.GaussianMixture(1)).sample(-1),
    "infinities": lambda: c.fit(np.array([[0.0], [np.inf]]), c.KMeans(2)),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_wrong_shapes_and_values_are_value_errors(call: Any) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    assert isinstance(caught.value, ClusteringError)
    assert "\n" not in str(caught.value)


def test_who_caught_lookup_errors_catches_them_still() -> None:
    assert issubclass(SourceError, LookupError)
    for kind in (ConfigError, SourceError, DataError):
        assert issubclass(kind, ValueError)
