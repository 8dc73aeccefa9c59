"""Valid ranges: ``valid_range``, ``valid_min`` and ``valid_max``, brought to the stored numbers of a variable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clustering.data.attributes import ignored_attribute, is_nothing, number_of, numbers_of, wrapped
from clustering.data.decoding import MissingRule

NAMES = ("valid_range", "valid_min", "valid_max")
_NEAR = 1e-6
"""Share by which a bound in decoded units may miss a packed number, which it was written from in single precision."""

_Number = int | float


def valid_rules(
    name: str, attributes: Mapping[str, Any], stored: np.dtype[Any], scale: Any = None, offset: Any = None
) -> tuple[tuple[MissingRule, ...], tuple[str, ...]]:
    """Read what stored numbers are valid.

    The attributes are in the unit that their type tells (CF conventions, sections 2.5.1 and 8.1; NetCDF User Guide,
    appendix A, ``valid_range``): of the type of the packed numbers, they are packed numbers; of the type of the
    unpacked numbers, they are in the unit of those. JSON knows whole numbers and others, so that

    - beside whole numbers with ``scale_factor`` or ``add_offset``, bounds with a decimal point are in the unpacked
      unit, and so are whole bounds that the packed type cannot hold;
    - whole bounds that it can hold are packed numbers;
    - ``valid_min`` and ``valid_max`` have one unit: where one is unpacked, the other is, as a writer that turns 40.0
      into 40 does so by chance;
    - beside packed floats, whose type is that of the unpacked ones, they are packed numbers;
    - without packing there is one unit.

    Under ``_Unsigned``, whole bounds are of the signed type that is stored, as the guide says, or of the unsigned one.

    Parameters
    ----------
    name
        Of the variable, for the cautions.
    attributes
        Of the variable.
    stored
        Type that the stored bits are read as.
    scale, offset
        Of the packing; None where there is none.

    Returns
    -------
    tuple of Rule
        In stored numbers, one for each attribute that counts.
    tuple of str
        Which attributes are passed over, in words for a user.
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
    # As CF forbids both, the one that says less gives way.
    if "valid_range" in bounds and len(bounds) > 1:
        del bounds["valid_range"]
    if "_Unsigned" in attributes:
        bounds = {key: (_signed(stored, low), _signed(stored, high)) for key, (low, high) in bounds.items()}
    low, high = (max((b[0] for b in bounds.values()), default=-np.inf),
                 min((b[1] for b in bounds.values()), default=np.inf))  # fmt: skip
    if low > high:
        keys = " and ".join(bounds)
        cautions.append(f"{keys} of variable {name!r} allow nothing, from {low:g} to {high:g}, and are passed over")
        return (), tuple(cautions)
    if _unpacked(bounds.values(), stored, packed=scale is not None or offset is not None):
        bounds = {key: _packed(b, 1.0 if scale is None else float(scale), float(offset or 0.0))
                  for key, b in bounds.items()}  # fmt: skip
    return tuple(MissingRule(key, (), float(b[0]), float(b[1])) for key, b in bounds.items()), tuple(cautions)


def _range(value: Any) -> tuple[_Number, ...] | str:
    if is_nothing(value):
        return "no pair of numbers"
    numbers = numbers_of(value)
    if numbers is None or len(numbers) != 2:
        return "no pair of numbers"
    return "not a number" if any(n != n for n in numbers) else numbers


def _bound(value: Any) -> tuple[_Number] | str:
    number = None if is_nothing(value) else number_of(value)
    return "no number" if number is None or number != number else (number,)


def _signed(stored: np.dtype[Any], bound: _Number) -> _Number:
    return wrapped(stored, bound) if isinstance(bound, int) else bound


def _unpacked(bounds: Any, stored: np.dtype[Any], *, packed: bool) -> bool:
    """Tell whether bounds are in the unit of the unpacked numbers."""
    if not packed or stored.kind not in "iu":
        return False
    limits = np.iinfo(stored)
    finite = [bound for pair in bounds for bound in pair if np.isfinite(bound)]
    return any(isinstance(bound, float) or not limits.min <= bound <= limits.max for bound in finite)


def _packed(bounds: tuple[_Number, _Number], scale: float, offset: float) -> tuple[float, float]:
    """Bring bounds from the unpacked unit to whole packed numbers, both of them inside."""
    low, high = sorted((float(bound) - offset) / scale for bound in bounds)
    slack = [min(0.25, _NEAR * max(1.0, abs(b), abs(offset / scale))) if np.isfinite(b) else 0.0 for b in (low, high)]
    return float(np.ceil(low - slack[0])), float(np.floor(high + slack[1]))
