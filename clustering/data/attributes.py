"""Repair of attributes: they are brought to the forms that xarray decodes, where their meaning is plain.

JSON has neither types nor NaN, and every library writes these attributes in its own way. Every variable is opened with
the attributes from here, so that they mean the same in every format, store and object in memory.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

PACKING = ("scale_factor", "add_offset")
FILLS = ("_FillValue", "missing_value")
UNDECODED = (*PACKING, *FILLS, "_Unsigned")
"""Attributes that decoding removes from a variable."""

_LINKS = ("coordinates", "bounds", "climatology", "grid_mapping", "ancillary_variables", "cell_measures",
          "formula_terms")  # fmt: skip
"""Attributes that name other variables."""
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)[fdbslu]*", re.IGNORECASE)
"""A number, with the suffix that CDL, the text form of NetCDF, gives some types."""
_NOTHING = ("", "none", "null", "nan", "n/a", "na")
"""Texts that mean that there is no number."""


class RepairedAttributes(NamedTuple):
    """Attributes of one variable that xarray takes."""

    attributes: dict[str, Any]
    dtype: np.dtype[Any]
    """Type that the stored bits are read as. ``_Unsigned`` is applied and removed from the attributes."""
    cautions: tuple[str, ...]
    """Messages to the user about attributes that are ignored or read in another way than they are written."""
    fault: str | None
    """Message why the variable cannot be decoded, with the remedy; None where it can."""


def repair_attributes(
    name: str, attributes: Mapping[str, Any], dtype: np.dtype[Any], *, base64_fill: bool = False
) -> RepairedAttributes:
    """Bring the attributes of a variable to the forms that xarray decodes.

    Parameters
    ----------
    name
        Name of the variable, for the cautions.
    attributes
        Attributes as stored; they are not changed.
    dtype
        Type of the stored numbers.
    base64_fill
        Whether the ``_FillValue`` of floats may be eight bytes in base64, as xarray writes it in format 3.
    """
    clean, cautions = dict(attributes), list[str]()
    meant, caution = _reinterpreted(name, clean.pop("_Unsigned", None), dtype)
    cautions += caution
    cautions += _texts(name, clean)
    fault = None
    if meant.kind in "iuf":
        # "_Encoding" is the character set of texts; xarray would turn numbers that have it into texts.
        clean.pop("_Encoding", None)
        cautions += _fills(name, clean, meant, base64_fill, wraps="_Unsigned" in attributes)
        fault = _packing(name, clean, cautions)
        if clean.get("dtype") == "bool" and any(key in clean for key in FILLS):
            # These are truth values stored as numbers, and xarray would turn missing ones into True.
            del clean["dtype"]
    else:
        _other_fill(clean, meant, base64_fill)
    return RepairedAttributes(clean, meant, tuple(cautions), fault)


def number_of(value: Any) -> int | float | None:
    """Read the number in an attribute; None where there is none. NaN is a number.

    Parameters
    ----------
    value
        A number, a text such as ``0.01f``, or a list or array that holds one of these. Truth values are no numbers.
    """
    if isinstance(value, (list, tuple, np.ndarray)):
        flat = np.ravel(np.asarray(value, object)) if isinstance(value, np.ndarray) else value
        return number_of(flat[0]) if len(flat) == 1 else None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return _from_text(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def numbers_of(value: Any) -> tuple[int | float, ...] | None:
    """Read all numbers in an attribute; None where one of its parts is no number, or where it has none.

    Parameters
    ----------
    value
        A number, a list or array of them, or a text with commas, semicolons or spaces between the numbers.
    """
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        value = re.split(r"[\s,;]+", value.strip().strip("[]()").strip())
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    read = [number_of(part) for part in (value if isinstance(value, (list, tuple)) else [value])]
    return None if not read or any(part is None for part in read) else tuple(n for n in read if n is not None)


def is_nothing(value: Any) -> bool:
    """Return whether an attribute is null, empty, or a text that means none, such as ``n/a``.

    Parameters
    ----------
    value
        Value of the attribute. A float NaN is a number, while the text ``nan`` is nothing.
    """
    if value is None:
        return True
    if isinstance(value, (list, tuple, np.ndarray)):
        return np.size(value) == 0
    return isinstance(value, str) and value.strip().lower() in _NOTHING


def as_type(dtype: np.dtype[Any], number: float) -> Any:
    """Cast a number to a type, so that values of this type can equal it; None where none can.

    Parameters
    ----------
    dtype
        Type of whole numbers or floats.
    number
        Number to cast. Floats are rounded, and whole numbers must be exact.
    """
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            # A number beyond the range of the type becomes infinite here, and the next line refuses it.
            cast = dtype.type(number)
        return cast if np.isfinite(cast) or not np.isfinite(number) else None
    if not np.isfinite(number) or number != int(number):
        return None
    limits = np.iinfo(dtype)
    return dtype.type(int(number)) if limits.min <= number <= limits.max else None


def wrapped(dtype: np.dtype[Any], number: float) -> float:
    """Read a whole number of the other signedness by its bits: for 8 bits, −1 becomes 255, and 255 becomes −1.

    Parameters
    ----------
    dtype
        Type of the result; floats leave the number as it is.
    number
        Number to read. It is returned as it is where it fits the type already.
    """
    if dtype.kind not in "iu":
        return number
    limits = np.iinfo(dtype)
    turn = 1 << (8 * dtype.itemsize)
    if np.isfinite(number) and number == int(number):
        if dtype.kind == "u" and -turn // 2 <= number < 0:
            return int(number) + turn
        if dtype.kind == "i" and limits.max < number < turn:
            return int(number) - turn
    return number


def meant_type(attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that stored bits are read as, which ``_Unsigned`` may change.

    Parameters
    ----------
    attributes
        Attributes as stored.
    dtype
        Type of the stored numbers.
    """
    return _reinterpreted("", attributes.get("_Unsigned"), dtype)[0]


def _from_text(text: str) -> int | float | None:
    word = text.strip().lower()
    if word.lstrip("+-") in ("nan", "inf", "infinity"):
        return float(word)
    match = _NUMBER.fullmatch(word)
    if match is None:
        return None
    # A text without a point means a whole number, as in JSON. Suffixes f and d mean a float in CDL.
    return int(match[1]) if match[1].lstrip("+-").isdigit() and "f" not in word and "d" not in word else float(match[1])


def _reinterpreted(name: str, unsigned: Any, dtype: np.dtype[Any]) -> tuple[np.dtype[Any], list[str]]:
    """Return the type that ``_Unsigned`` asks for, with cautions."""
    if unsigned is None or dtype.kind not in "iu":
        # ``_Unsigned`` is for whole numbers only; xarray ignores it for others too.
        return dtype, []
    word = str(unsigned[0] if isinstance(unsigned, (list, tuple)) and len(unsigned) == 1 else unsigned).strip().lower()
    if word not in ("true", "1", "false", "0"):
        return dtype, [ignored_attribute(name, "_Unsigned", unsigned, "neither true nor false")]
    kind = "u" if word in ("true", "1") else "i"
    return np.dtype(f"{kind}{dtype.itemsize}").newbyteorder(dtype.byteorder), []


def _texts(name: str, clean: dict[str, Any]) -> list[str]:
    """Turn attributes that xarray takes as texts into texts, in place; remove those that are none."""
    cautions = []
    for key in (*_LINKS, "units", "calendar"):
        if key not in clean:
            continue
        value = clean[key]
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value):
            clean[key] = " ".join(value)
        elif key == "units" and isinstance(value, (int, float, np.number)):
            # Some writers store the unit 1, of dimensionless numbers, as a number.
            clean[key] = str(value)
        elif not isinstance(value, str):
            del clean[key]
            if value is not None:
                what = "no text" if key in ("units", "calendar") else "no name of a variable"
                cautions.append(ignored_attribute(name, key, value, what))
    return cautions


def _fills(name: str, clean: dict[str, Any], dtype: np.dtype[Any], base64_fill: bool, wraps: bool) -> list[str]:
    """Bring ``_FillValue`` and ``missing_value`` to numbers that stored values may equal, in place."""
    cautions, read = list[str](), dict[str, list[Any]]()
    for key in FILLS:
        if key not in clean:
            continue
        value = clean.pop(key)
        eight = _eight_bytes(value) if base64_fill and key == "_FillValue" and dtype.kind == "f" else None
        numbers = (eight,) if eight is not None else () if is_nothing(value) else numbers_of(value)
        if numbers is None:
            cautions.append(ignored_attribute(name, key, value, "no number"))
            continue
        kept = []
        for number in numbers:
            if np.isnan(number):
                # NaN is missing anyhow.
                continue
            # A fill value may have the sign of the stored type, while the data are read with the other.
            same = as_type(dtype, wrapped(dtype, number) if wraps else number)
            if same is None:
                cautions.append(
                    f"{key} {shown(number)} of variable {name!r} can never be among its numbers of type {dtype}, so "
                    "that it masks nothing; name the number that means missing in source.nodata"
                )
            else:
                kept.append(same)
        read[key] = kept
    # xarray takes one number as _FillValue, and several as missing_value.
    fills, missing = read.get("_FillValue", []), read.get("missing_value", [])
    if fills:
        clean["_FillValue"] = fills[0]
    more = [number for number in dict.fromkeys([*fills[1:], *missing]) if number not in fills[:1]]
    if more:
        clean["missing_value"] = more[0] if len(more) == 1 else np.array(more, dtype)
    return cautions


def _other_fill(clean: dict[str, Any], dtype: np.dtype[Any], base64_fill: bool) -> None:
    """Remove fill values of texts and truth values that xarray cannot read, in place; decode the others."""
    for key in FILLS:
        if is_nothing(clean.get(key)) or isinstance(clean.get(key), (list, tuple, dict)):
            clean.pop(key, None)
    value = clean.get("_FillValue")
    # In format 3, xarray writes fill values of bytes in base64.
    if base64_fill and value is not None and dtype.kind == "S":
        try:
            clean["_FillValue"] = base64.standard_b64decode(value)
        except (binascii.Error, TypeError, ValueError):
            del clean["_FillValue"]


def _packing(name: str, clean: dict[str, Any], cautions: list[str]) -> str | None:
    """Turn ``scale_factor`` and ``add_offset`` into floats, in place; return the fault where they are no numbers."""
    for key in PACKING:
        if key not in clean:
            continue
        value = clean[key]
        if is_nothing(value) and not (isinstance(value, str) and value.strip().lower() == "nan"):
            del clean[key]
            cautions.append(ignored_attribute(name, key, value, "no number"))
            continue
        number = number_of(value)
        if number is None or not np.isfinite(number) or (key == "scale_factor" and number == 0):
            needed = "a finite number other than 0" if key == "scale_factor" else "a finite number"
            return (
                f"its {key} is {shown(value)}, and {needed} is needed; correct the attribute, or leave the variable out"
            )
        if isinstance(value, (str, bytes)):
            cautions.append(f"{key} of variable {name!r} is the text {shown(value)}, and is read as {number:g}")
        # xarray decodes to the type of this number, so that a whole number would round the values.
        clean[key] = value if isinstance(value, np.floating) else float(number)
    return None


def _eight_bytes(value: Any) -> float | None:
    """Read a float that xarray wrote as base64 into the metadata of format 3; None for other values."""
    # Eight bytes make twelve characters of base64.
    if not isinstance(value, (str, bytes)) or len(value) != 12:
        return None
    try:
        return float(struct.unpack("<d", base64.b64decode(value, validate=True))[0])
    except (binascii.Error, ValueError, struct.error):
        return None


def ignored_attribute(name: str, key: str, value: Any, why: str) -> str:
    """Return the caution that an attribute is ignored.

    Parameters
    ----------
    name
        Name of the variable.
    key
        Name of the attribute.
    value
        Its value.
    why
        Reason, such as ``no number``.
    """
    return f"{key} of variable {name!r} is {shown(value)}, {why}, and is ignored"


def shown(value: Any) -> str:
    """Return the value of an attribute as text for a message, of 60 characters at most.

    Parameters
    ----------
    value
        Any value; numpy's are written as those of Python.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
