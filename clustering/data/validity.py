"""Valid ranges: ``valid_range``, ``valid_min`` and ``valid_max``, converted to the stored numbers of a variable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clustering.data.attributes import ignored_attribute, is_nothing, number_of, numbers_of, wrapped
from clustering.data.decoding import MissingRule

NAMES = ("valid_range", "valid_min", "valid_max")
_NEAR = 1e-6
"""Relative tolerance of bounds in unpacked units. Writers often round them to single precision."""

_Number = int | float


def valid_rules(
    name: str, attributes: Mapping[str, Any], stored: np.dtype[Any], scale: Any = None, offset: Any = None
) -> tuple[tuple[MissingRule, ...], tuple[str, ...]]:
    """Read the valid range of a variable, in stored numbers.

    The type of an attribute says in which unit it is (CF conventions, sections 2.5.1 and 8.1; NetCDF User Guide,
    appendix A, ``valid_range``): attributes of the packed type are packed numbers, and attributes of the unpacked type
    are in the unpacked unit. JSON only distinguishes integers from floats. So the rules are:

    - For packed integers, floats are in the unpacked unit, and so are integers that the packed type cannot hold.
    - Other integers are packed numbers.
    - ``valid_min`` and ``valid_max`` have the same unit. If one is unpacked, so is the other, since some writers turn
      40.0 into 40.
    - For packed floats, where both types are the same, all bounds are packed numbers.
    - Without packing there is only one unit.

    Under ``_Unsigned``, integers may be given in the signed stored type, as the guide says, or in the unsigned type.

    Parameters
    ----------
    name
        Name of the variable, for cautions.
    attributes
        Attributes of the variable.
    stored
        Type that the stored bits are read as. ``_Unsigned`` may change it from the type in the store.
    scale, offset
        Scale factor and offset of the packing; None where there is none.

    Returns
    -------
    tuple of MissingRule
        One for each attribute that is used, in stored numbers.
    tuple of str
        Cautions about attributes that are ignored.
    """
    bounds, cautions = dict[str, tuple[_Number, _Number]](), list[str]()
    for key in NAMES:
        if key not in attributes or attributes[key] is None:
            continue
        value = attributes[key]
        read = _range(value) if key == "valid_range" else _bound(value)
        if isinstance(read, str):
            cautions.append(ignored_attribute(name, key, value, read))
        elif key == "valid_range":
            bounds[key] = read[0], read[1]
        else:
            bounds[key] = (read[0], np.inf) if key == "valid_min" else (-np.inf, read[0])
    # CF forbids valid_range beside the others. The separate bounds are kept.
    if "valid_range" in bounds and len(bounds) > 1:
        del bounds["valid_range"]
    if "_Unsigned" in attributes:
        bounds = {key: (_signed(stored, low), _signed(stored, high)) for key, (low, high) in bounds.items()}
    low, high = (max((b[0] for b in bounds.values()), default=-np.inf),
                 min((b[1] for b in bounds.values()), default=np.inf))  # fmt: skip
    if low > high:
        keys = " and ".join(bounds)
        cautions.append(f"{keys} of variable {name!r} allow no value, from {low:g} to {high:g}, and are ignored")
        return (), tuple(cautions)
    if _unpacked(bounds.values(), stored, packed=scale is not None or offset is not None):
        bounds = {key: _packed(b, 1.0 if scale is None else float(scale), float(offset or 0.0))
                  for key, b in bounds.items()}  # fmt: skip
    return tuple(MissingRule(key, (), float(b[0]), float(b[1])) for key, b in bounds.items()), tuple(cautions)


def _range(value: Any) -> tuple[_Number, ...] | str:
    """Read a pair of bounds, or say why the value is none."""
    if is_nothing(value):
        return "no pair of numbers"
    numbers = numbers_of(value)
    if numbers is None or len(numbers) != 2:
        return "no pair of numbers"
    return "not a number" if any(n != n for n in numbers) else numbers


def _bound(value: Any) -> tuple[_Number] | str:
    """Read one bound, or say why the value is none."""
    number = None if is_nothing(value) else number_of(value)
    return "no number" if number is None or number != number else (number,)


def _signed(stored: np.dtype[Any], bound: _Number) -> _Number:
    """Give the number of the stored type with the bits of an integer bound."""
    return wrapped(stored, bound) if isinstance(bound, int) else bound


def _unpacked(bounds: Any, stored: np.dtype[Any], *, packed: bool) -> bool:
    """Tell whether bounds are in the unpacked unit."""
    if not packed or stored.kind not in "iu":
        return False
    limits = np.iinfo(stored)
    finite = [bound for pair in bounds for bound in pair if np.isfinite(bound)]
    return any(isinstance(bound, float) or not limits.min <= bound <= limits.max for bound in finite)


def _packed(bounds: tuple[_Number, _Number], scale: float, offset: float) -> tuple[float, float]:
    """Convert bounds from the unpacked unit to packed integers: the smallest and the largest valid one."""
    # A negative scale swaps the bounds.
    low, high = sorted((float(bound) - offset) / scale for bound in bounds)
    slack = [min(0.25, _NEAR * max(1.0, abs(b), abs(offset / scale))) if np.isfinite(b) else 0.0 for b in (low, high)]
    return float(np.ceil(low - slack[0])), float(np.floor(high + slack[1]))
