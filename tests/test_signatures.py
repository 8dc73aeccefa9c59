"""Options are declared once: configs, forms and signatures in Python show the same names, defaults and texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import clustering as c
from clustering.config import JobConfig
from clustering.errors import ConfigError
from clustering.option_texts import option_texts

SECTIONS: dict[str, Any] = {name: field.annotation for name, field in JobConfig.model_fields.items()}
RENAMED = {"output": {"store": "output", "storage_options": "output_options", "labels": "write_labels"}}
NOT_IN_PYTHON = {"source": {"store", "credentials"}}
ROWS = np.arange(12.0).reshape(6, 2)


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def options_of(*sections: str) -> dict[str, tuple[Any, str]]:
    """Default and text of the options of sections, by their name in Python."""
    options = {}
    for section in sections:
        group: type[BaseModel] = SECTIONS[section]
        for name, field in group.model_fields.items():
            if name not in NOT_IN_PYTHON.get(section, set()):
                default = (
                    inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
                )
                options[RENAMED.get(section, {}).get(name, name)] = (default, option_texts(group).get(name, ""))
    return options


@pytest.mark.parametrize(
    ("function", "sections", "without"),
    [
        (c.fit, ("source", "preprocess", "fit", "compute"), {"refresh", "held_out"}),
        (c.run, ("source", "preprocess", "fit", "compute", "output"), set()),
        (c.open_source, ("source",), set()),
    ],
    ids=["fit", "run", "open_source"],
)
def test_every_option_of_a_config_is_a_keyword_with_the_same_default_and_text(
    function: Callable[..., Any], sections: tuple[str, ...], without: set[str]
) -> None:
    shown, help_text = parameters(function), " ".join((inspect.getdoc(function) or "").split())
    expected = {name: option for name, option in options_of(*sections).items() if name not in without}
    for name, (default, text) in expected.items():
        assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert shown[name].default == default, name
        # The texts of source.storage_options and output.storage_options belong to two keywords.
        assert " ".join(text.split()) in help_text, name
    assert set(shown) - set(expected) <= {"data", "model", "on_pass", "progress", "block_bytes"}
    assert not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in shown.values())


@pytest.mark.parametrize("method", ["predict", "responsibilities", "distance", "score", "label"])
def test_methods_of_a_fit_show_their_options(method: str) -> None:
    shown = parameters(getattr(c.Fit, method))
    assert {"self", "data", "mask", "memory", "workers"} <= shown.keys()
    assert ("to" in shown) == (method == "label")


def test_arguments_may_be_given_by_name() -> None:
    by_name = c.fit(data=ROWS, model=c.KMeans(k=2), restarts=2)
    np.testing.assert_array_equal(by_name.centers, c.fit(ROWS, c.KMeans(k=2), restarts=2).centers)
    assert by_name.predict(data=ROWS).tolist() == by_name.predict(ROWS).tolist()


NUMPY = {
    "whole": {"restarts": np.int64(2), "sample_rows": np.int32(5)},
    "number": {"fraction": np.float32(1.0), "tolerance": np.float64(0)},
    "flag": {"unit_norm": np.True_},
    "size": {"memory": np.int64(2**28), "block_bytes": np.int64(64)},
    "size as a float": {"memory": 2e8},
    "size in words": {"memory": "200MB", "block": "1KiB"},
    "names": {"weights": None, "sample_dims": None},
}


@pytest.mark.parametrize("options", NUMPY.values(), ids=NUMPY)
def test_numbers_of_numpy_are_numbers(options: dict[str, Any]) -> None:
    assert c.fit(ROWS + 1, c.KMeans(k=2), **options).iterations >= 1


WRONG = {
    "unknown": ({"restart": 3}, "unknown option 'restart'; did you mean 'restarts'? allowed: "),
    "below": ({"restarts": 0}, "restarts is 0; 1 or more is needed"),
    "above": ({"fraction": 1.5}, "fraction is 1.5; 1 or less is needed"),
    "no number": ({"tolerance": "small"}, "tolerance is 'small'; a number is needed"),
    "not a number": ({"tolerance": float("nan")}, "tolerance is nan; 0 or more is needed"),
    "no time": ({"max_seconds": 0}, "max_seconds is 0; more than 0 is needed"),
    "no workers": ({"workers": 0}, "workers is 0; 1 or more is needed"),
    "no whole number": ({"restarts": 2.5}, "restarts is 2.5; a whole number is needed"),
    "truth": ({"restarts": True}, "restarts is True; a whole number is needed"),
    "choice": ({"missing": "dorp"}, "missing is 'dorp'; did you mean 'drop'? allowed: drop, error, marginalize"),
    "choice or array": ({"init": "kmeans+"}, "init is 'kmeans+'; did you mean 'kmeans++'? allowed: kmeans++, random, "),
    "size": ({"memory": "lots"}, "memory is 'lots'; a size such as 2GiB or 500MB is needed"),
    "two options": (
        {"restarts": 2, "finalists": 3},
        "finalists is 3 and restarts is 2; there cannot be more",
    ),
    "the current model": ({"init": "model"}, "init is 'model', which goes on from the current model of an output"),
    "box": ({"bbox": [1, 2]}, "bbox is [1, 2]; allowed: four numbers, [west, south, east, north]"),
    "mapping": ({"select": 3}, "select is 3; names and values are needed: {name: value}"),
}


@pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_option_is_named_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        c.fit(ROWS, c.KMeans(k=2), **options)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)
