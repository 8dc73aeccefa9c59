"""Which cells a mask uses: those where a variable is true, or where one comparison holds."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

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
    """What a cell has to meet to be used: a variable that is true, or one comparison of it."""

    variable: str
    comparison: str | None = None
    """``<``, ``<=``, ``>``, ``>=``, ``==``, ``!=`` or ``in``; None: the variable is true or false itself."""
    numbers: tuple[int | float, ...] = ()
    """What it is compared with: one number, or any number of them for ``in``."""

    def used(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which cells are used, in the shape of their values; a missing value is not.

        Raises
        ------
        DataError
            For a mask without comparison whose values are not true and false, or 1 and 0; and for values that are no
            numbers.
        """
        if values.dtype.kind == "O":
            values = _numbers(values, self.variable)
        if self.comparison is None:
            return self._true(values)
        compare = _COMPARISONS["==" if self.comparison == "in" else self.comparison]
        met = reduce(np.logical_or, [np.asarray(compare(values, number), bool) for number in self.numbers])
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
    """Read a mask: the name of a variable, or one comparison such as ``landfrac > 0.5`` or ``surface in [1, 2]``.

    Raises
    ------
    ConfigError
        For anything but one variable, one comparison, and one number, or for ``in`` one list of numbers.
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
    """Read what is given as a mask; None for no mask, and for an array."""
    return condition(mask) if isinstance(mask, str) else None


def check_truth(dataset: xr.Dataset, name: str) -> None:
    """Refuse a variable that cannot be true and false by itself, as its metadata say.

    Raises
    ------
    SourceError
        For flags, whose numbers stand for words, and for the numbers that a dimension counts by.
    """
    variable = dataset[name].variable
    flags = next((key for key in _FLAGS if variable.attrs.get(key) is not None), None)
    if flags is not None and variable.dtype.kind != "b":
        values = np.ravel(variable.attrs[flags]).tolist()
        if isinstance(values[0], str):
            # Some write them as text: "0b, 1b".
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
    """Read truth values beside missing ones, which xarray decodes to objects."""
    try:
        return np.where(values == values, values, np.nan).astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{_called(name)} holds values that are neither true nor false; give 1 and 0") from None


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)


def _called(name: str) -> str:
    return "the mask" if name == ATTACHED else f"mask {name!r}"


def _remedy(name: str, values: NDArray[Any]) -> str:
    """Say which comparison would make a mask of values that are none."""
    distinct = np.unique(values[values == values])
    if distinct.dtype.kind == "f" and distinct[0] >= 0 and distinct[-1] <= 1:
        return _compared(name, "> 0.5")
    if 0 in distinct or len(distinct) > _LISTED:
        return _compared(name, "> 0")
    return _compared(name, f"== {distinct[-1]:g}")


def _compared(name: str, comparison: str) -> str:
    if name == ATTACHED:
        return f"give an array of true and false, such as array {comparison}"
    return f'compare it: mask: "{name} {comparison}"'
