"""Kinds of values that several sections of a config have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, TypeAdapter, ValidationError


def _size(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("a size such as 2GiB or 500MB is needed")
    try:
        size = TypeAdapter(ByteSize).validate_python(value)
    except ValidationError:
        size = ByteSize(0)
    if size < 1:
        raise ValueError("a size such as 2GiB or 500MB is needed")
    return str(value)


Size = Annotated[str, BeforeValidator(_size)]
"""Bytes, such as ``2GiB`` or ``500MB``."""


def in_bytes(size: str) -> int:
    """Read a size in bytes."""
    return int(TypeAdapter(ByteSize).validate_python(size))


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth)]
"""A whole number; YAML reads yes and no as truth values, which are none."""
Number = Annotated[float, BeforeValidator(_no_truth)]
