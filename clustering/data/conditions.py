"""Masks: the cells where a variable is true, or where one comparison of it holds."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.deferred import xr
from clustering.errors import ConfigError, DataError, SourceError

ATTACHED = "_mask"
"""Name of a mask that was given as an array."""
_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_FORM = re.compile(r"\s*([^<>=!]*[^<>=!\s])(?:\s*(<=|>=|==|!=|<|>)\s*|\s+(in)\s*(?=\[))(.*\S)\s*")
_COMPARED = re.compile(r"[<>=!]|\sin\b")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FLAGS = ("flag_values", "flag_masks")
_LISTED = 5
"""Values and meanings that a message lists at most."""


@dataclass(frozen=True)
class Condition:
    """Condition for the use of a cell: a variable is true, or one comparison of it holds."""

    variable: str
    comparison: str | None = None
    """``<``, ``<=``, ``>``, ``>=``, ``==``, ``!=`` or ``in``; None where the variable itself is true or false."""
    numbers: tuple[int | float, ...] = ()
    """The number to compare with; for ``in`` one or more."""

    def used(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which cells are used, in the shape of the values.

        Parameters
        ----------
        values
            Decoded values of the variable, of any shape. Cells with a missing value are not used.

        Raises
        ------
        DataError
            If a mask without comparison has other values than true and false, or 1 and 0; or if values are no numbers.
        """
        if values.dtype.kind == "O":
            values = _numbers(values, self.variable)
        if self.comparison is None:
            return self._true(values)
        compare = _COMPARISONS["==" if self.comparison == "in" else self.comparison]
        met = reduce(np.logical_or, [np.asarray(compare(values, number), bool) for number in self.numbers])
        # NaN is unequal to every number, so that "!=" alone would use cells with missing values.
        return np.asarray(met & (values == values), bool)

    def _true(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        used = np.asarray(values == 1, bool)
        other = ~(used | (values == 0) | (values != values))
        if other.any():
            raise DataError(
                f"{_called(self.variable)} holds {values[other].flat[0].item():g}, and a mask is true and false, or 1 "
                f"and 0; {_remedy(self.variable, values)}"
            )
        return used


@lru_cache(maxsize=64)
def condition(mask: str) -> Condition:
    """Parse a mask.

    Parameters
    ----------
    mask
        Name of a variable, or one comparison of it such as ``landfrac > 0.5`` or ``surface in [1, 2]``.

    Raises
    ------
    ConfigError
        For anything but one variable, or one comparison with a number, or ``in`` and a list of numbers.
    """
    if not _COMPARED.search(mask):
        return Condition(mask)
    form = _FORM.fullmatch(mask)
    if form is not None:
        name, comparison, text = form[1], form[2] or form[3], form[4]
        several = text.startswith("[") and text.endswith("]")
        parts = [part.strip() for part in text[1:-1].split(",")] if several else [text]
        if several == (comparison == "in") and all(map(_NUMBER.fullmatch, parts)):
            return Condition(name, comparison, tuple(map(_number, parts)))
    raise ConfigError(
        f"mask is {mask!r}; allowed: the name of a variable, or one comparison of it ({', '.join(_COMPARISONS)}) with "
        "a number, or 'in' and a list of numbers: 'landfrac > 0.5', 'surface in [1, 2]'"
    )


def mask_condition(mask: Any) -> Condition | None:
    """Parse the option mask of `open_source`; None where it is None or an array.

    Parameters
    ----------
    mask
        Text for `condition`, an array or None.
    """
    return condition(mask) if isinstance(mask, str) else None


def check_truth(dataset: xr.Dataset, name: str) -> None:
    """Refuse a variable whose metadata say that it does not hold true and false.

    Parameters
    ----------
    dataset
        Dataset with the mask.
    name
        Variable that is the mask without a comparison.

    Raises
    ------
    SourceError
        For CF flags, whose numbers stand for words, and for coordinates of dimensions.
    """
    variable = dataset[name].variable
    flags = next((key for key in _FLAGS if variable.attrs.get(key) is not None), None)
    if flags is not None and variable.dtype.kind != "b":
        values = np.ravel(variable.attrs[flags]).tolist()
        if isinstance(values[0], str):
            # Some writers give a text: "0b, 1b".
            values = re.findall(r"[+-]?\d+", values[0]) or [1]
        meanings = str(variable.attrs.get("flag_meanings", "")).split()
        words = [f"{v}: {word}" for v, word in zip(values[:_LISTED], meanings, strict=False)]
        means = f" ({', '.join(words)}{', …' if len(values) > _LISTED else ''})" if words else ""
        raise SourceError(
            f"{_called(name)} holds flags{means}, not true and false; {_compared(name, f'== {values[0]}')}"
        )
    if name in dataset.dims and variable.dtype.kind != "b":
        raise SourceError(f"{_called(name)} is a coordinate, not true and false; {_compared(name, '> 0')}")


def _numbers(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Turn objects into floats: xarray decodes truth values to objects where some are missing."""
    try:
        return np.where(values == values, values, np.nan).astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{_called(name)} holds values that are neither true nor false; give 1 and 0") from None


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)


def _called(name: str) -> str:
    # A mask that was given as an array has no name that the user knows.
    return "the mask" if name == ATTACHED else f"mask {name!r}"


def _remedy(name: str, values: NDArray[Any]) -> str:
    """Suggest a comparison that makes a mask of values that are not true and false."""
    distinct = np.unique(values[values == values])
    # Values from 0 to 1 are likely shares of a cell, such as that of land.
    if distinct.dtype.kind == "f" and distinct[0] >= 0 and distinct[-1] <= 1:
        return _compared(name, "> 0.5")
    if 0 in distinct or len(distinct) > _LISTED:
        return _compared(name, "> 0")
    return _compared(name, f"== {distinct[-1]:g}")


def _compared(name: str, comparison: str) -> str:
    if name == ATTACHED:
        return f"give an array of true and false, such as array {comparison}"
    return f'compare it: mask: "{name} {comparison}"'
