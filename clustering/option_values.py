"""Types of option values. Each type says what is allowed, so that configs and calls in Python are checked alike."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from typing import Annotated, Any, get_args

from annotated_types import Ge, Gt, Le
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema

IN_PYTHON = {"in_python": True}
"""Validation context of calls in Python, where options may also be arrays, clusters and secrets in memory."""
RECORDED = {"recorded": True}
"""Validation context of configs in ``run.json``, where a text stands for an object that was given in Python."""
_STANDS_FOR_ARRAY = "array"


def in_python(info: ValidationInfo) -> bool:
    """Return whether options come from a call in Python, not from a config.

    Parameters
    ----------
    info
        Facts of a validation, which pydantic gives to validators.
    """
    return bool((info.context or {}).get("in_python"))


def _plain(value: Any) -> Any:
    """Turn NumPy's numbers and arrays into those of Python."""
    # The check does without NumPy, which takes time to load.
    return value.tolist() if hasattr(value, "dtype") and hasattr(value, "tolist") else value


def number(value: Any) -> Any:
    """Turn a number of NumPy into that of Python, and refuse truth values.

    Parameters
    ----------
    value
        Value of an option.
    """
    return _without_truth(value, "a number is needed")


def _whole(value: Any) -> Any:
    return _without_truth(value, "a whole number is needed")


def _without_truth(value: Any, remedy: str) -> Any:
    value = _plain(value)
    if isinstance(value, bool):
        # YAML reads yes and no as truth values, and Python counts them as 1 and 0.
        raise ValueError(remedy)
    return value


def _stored_whole(value: int) -> int:
    # A larger number fits no stored type; it is compared as a float.
    if not -(2**63) <= value < 2**64:
        raise ValueError("a whole number of at most 64 bits is needed")
    return value


def _flag(value: Any, info: ValidationInfo) -> Any:
    # A config may write a flag as 1 or "true". In Python, such a value is more likely meant for another option.
    if in_python(info) and not isinstance(_plain(value), bool):
        raise ValueError("true or false is needed")
    return _plain(value)


def _size(value: Any) -> Any:
    value = _plain(value)
    # YAML reads 2e9 as a number, which counts bytes. A larger number than any disk is a mistake, and so is infinity.
    whole = isinstance(value, (int, float)) and abs(value) < 2**63 and value == int(value)
    if isinstance(value, bool) or not (whole or isinstance(value, str)):
        raise ValueError("a size such as 2GiB or 500MB is needed")
    text = value if isinstance(value, str) else str(int(value))
    try:
        size = TypeAdapter(ByteSize).validate_python(text)
    except ValidationError:
        size = ByteSize(0)
    if size < 1:
        raise ValueError("a size such as 2GiB or 500MB is needed")
    return text


def _names(value: Any) -> Any:
    value = _plain(value)
    if isinstance(value, str):
        return [value]
    # Bytes and dicts are collections too, and would become lists of numbers and of keys.
    return list(value) if isinstance(value, Collection) and not isinstance(value, (bytes, dict)) else value


def _in_memory(value: Any, info: ValidationInfo) -> Any:
    if (info.context or {}).get("recorded") and isinstance(value, str) and value.startswith(_STANDS_FOR_ARRAY):
        return value
    # Numbers and text are never arrays, so a wrong word is refused here and not when the data are read.
    if not in_python(info) or value is None or isinstance(value, (str, bytes, bool, int, float)):
        raise ValueError("text is needed")
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else _STANDS_FOR_ARRAY


def _with_digest(value: Any) -> str:
    """Write numbers in memory as a text that differs for other numbers, as configs decide which runs are equal."""
    if isinstance(value, str):
        return value
    # Configs are checked without NumPy, which takes time to load.
    import numpy as np

    digest = hashlib.sha256()
    for name, part in sorted(value.items()) if isinstance(value, Mapping) else [("", value)]:
        array = np.asarray(part)
        # The bytes of an array of objects are addresses, which differ from run to run.
        content = repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes()
        # Type, shape and length keep different arrays with the same bytes apart.
        digest.update(repr((name, array.dtype.str, array.shape, len(content))).encode() + content)
    return f"{_STANDS_FOR_ARRAY}, sha256 {digest.hexdigest()[:16]}"


def _as_address(value: Any) -> Any:
    """Write a `distributed.Client` as the address of its scheduler."""
    if isinstance(value, str):
        return value
    address = getattr(getattr(value, "scheduler", None), "address", None)
    return _STANDS_FOR_ARRAY if address is None else {"address": str(address)}


def _as_selection(value: Any) -> Any:
    """Write slices, arrays and dates of NumPy as a config would."""
    if isinstance(value, slice):
        ends = {"start": value.start, "stop": value.stop, "step": value.step}
        return {name: _as_selection(end) for name, end in ends.items() if end is not None}
    if isinstance(value, Mapping):
        return {name: _as_selection(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_as_selection(part) for part in value]
    value = getattr(value, "values", value)
    if hasattr(value, "dtype") and value.dtype.kind in "mM":
        value = value.astype(str)
    return _plain(value)


MOST_COUNTS = 1000
"""Numbers that a range or a list of counts may have."""


def _many_counts(value: Any) -> Any:
    value = _plain(value)
    if isinstance(value, range):
        value = list(value)
    counts = [value] if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(counts, str):
        first, dots, last = (part.strip() for part in counts.partition(".."))
        if not (dots and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
            raise ValueError("a list such as [2, 3, 5] or a range such as 2..40 is needed, with numbers of 1 or more")
        many = int(last) - int(first) + 1
    else:
        if not isinstance(counts, (list, tuple)) or not counts:
            raise ValueError("a list such as [2, 3, 5] or a range such as 2..40 is needed, with numbers of 1 or more")
        many = len(counts)
    if many > MOST_COUNTS:
        raise ValueError(f"{many:,} numbers are too many; give at most {MOST_COUNTS:,}")
    return counts


def expanded(counts: str | list[int]) -> list[int]:
    """List the numbers of a range or a list, ascending and each once.

    Parameters
    ----------
    counts
        Value of type `ManyCounts`.
    """
    if isinstance(counts, str):
        first, _, last = counts.partition("..")
        return list(range(int(first), int(last) + 1))
    return sorted(set(counts))


def in_bytes(size: str | int) -> int:
    """Convert a size with a unit to bytes.

    Parameters
    ----------
    size
        Such as ``2GiB``, ``500MB``, or a number of bytes.
    """
    return int(TypeAdapter(ByteSize).validate_python(size))


Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer. Truth values are refused."""
StoredWhole = Annotated[Whole, AfterValidator(_stored_whole)]
"""An integer of at most 64 bits, as arrays hold them."""
# Limits stand before the validator, so that the schema for forms has them too.
Count = Annotated[int, Ge(1), BeforeValidator(_whole)]
"""An integer of 1 or more."""
ManyCounts = Annotated[str | list[Count], BeforeValidator(_many_counts)]
"""Integers of 1 or more: a list, or a range with both ends such as ``2..40``."""
Natural = Annotated[int, Ge(0), BeforeValidator(_whole)]
"""An integer of 0 or more."""
Seed = Annotated[int, Ge(0), Le(2**63 - 1), BeforeValidator(_whole)]
"""An integer of at most 63 bits."""
Number = Annotated[float, BeforeValidator(number)]
"""A number. Truth values are refused."""
NonNegative = Annotated[float, Ge(0), BeforeValidator(number)]
"""A number of 0 or more."""
Positive = Annotated[float, Gt(0), BeforeValidator(number)]
"""A number above 0."""
Share = Annotated[float, Ge(0), Le(1), BeforeValidator(number)]
"""A number from 0 to 1."""
Flag = Annotated[bool, BeforeValidator(_flag)]
"""True or false."""
# Forms show the first type of each; callers in Python may also give the others.
Size = Annotated[str | SkipJsonSchema[int], BeforeValidator(_size)]
"""A size with a unit, such as ``2GiB`` or ``500MB``, or a number of bytes."""
Names = Annotated[list[str] | SkipJsonSchema[str] | SkipJsonSchema[tuple[str, ...]], BeforeValidator(_names)]
"""Names, or one by itself."""
Numbers = Annotated[list[Number], BeforeValidator(_plain)]
"""Numbers in a list or an array."""
Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""A name. Levels of image pyramids are named 0, 1, 2, which YAML reads as numbers."""
IS_PATH = "path"
"""Marks the type of an option that holds a path or URL, which may be relative to the working directory."""
Location = Annotated[str, IS_PATH]
"""Path of a file or folder, or URL of a bucket."""
Folder = Annotated[
    str | SkipJsonSchema[os.PathLike[str]],
    BeforeValidator(lambda value: os.fspath(value) if isinstance(value, os.PathLike) else value),
    IS_PATH,
]
"""Path of a folder."""


def holds_path(option: FieldInfo) -> bool:
    """Return whether an option holds a path or URL.

    Parameters
    ----------
    option
        Declaration of an option, such as one of type `Folder` or ``Folder | None``.
    """
    return IS_PATH in option.metadata or _names_path(option.annotation)


def _names_path(annotation: Any) -> bool:
    return IS_PATH in getattr(annotation, "__metadata__", ()) or any(map(_names_path, get_args(annotation)))


InMemory = SkipJsonSchema[Annotated[Any, BeforeValidator(_in_memory), PlainSerializer(_as_text, when_used="json")]]
"""An array beside the data, which only calls in Python can give. The fingerprint of the source covers its values."""
InMemoryNumbers = SkipJsonSchema[
    Annotated[Any, BeforeValidator(_in_memory), PlainSerializer(_with_digest, when_used="json")]
]
"""Numbers that only calls in Python can give, and that no fingerprint of a source covers."""
InMemoryCluster = SkipJsonSchema[
    Annotated[Any, BeforeValidator(_in_memory), PlainSerializer(_as_address, when_used="json")]
]
"""A connected cluster, which only calls in Python can give."""
Selection = Annotated[dict[str, Any], PlainSerializer(_as_selection, when_used="json")]
"""What is selected, by dimension."""
