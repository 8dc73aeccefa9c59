"""Types of values that several sections of a config share."""

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
"""A size with a unit, such as ``2GiB`` or ``500MB``."""


def in_bytes(size: str) -> int:
    """Convert a size with a unit to bytes."""
    return int(TypeAdapter(ByteSize).validate_python(size))


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth)]
"""An integer. Truth values are refused: YAML reads yes and no as such, and Python counts them as 1 and 0."""
Number = Annotated[float, BeforeValidator(_no_truth)]
