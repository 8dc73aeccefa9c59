"""What configs and users choose about the data, by name: light to load."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal, get_args

Missing = Literal["drop", "error", "marginalize"]
"""What is done with a row that lacks features."""
MISSING: tuple[Missing, ...] = get_args(Missing)

MissingChunks = Literal["error", "mask", "fill"]
"""What a chunk means that was never written."""
MISSING_CHUNKS: tuple[MissingChunks, ...] = get_args(MissingChunks)

OnBadChunk = Literal["error", "mask"]
"""What is done with a chunk that does not decode."""
ON_BAD_CHUNK: tuple[OnBadChunk, ...] = get_args(OnBadChunk)
MAX_BAD_FRACTION = 0.25
"""Share of the chunks that may be masked so, where the user names none."""

ValidRange = Literal["cf", "ignore"]
"""Whether valid_range, valid_min and valid_max count, as the CF conventions say, or are passed over."""
VALID_RANGE: tuple[ValidRange, ...] = get_args(ValidRange)

Decoder = Literal["signed_square"]
"""Codes of numbers that no scale and offset describe."""
DECODERS: tuple[Decoder, ...] = get_args(Decoder)


def is_number(value: Any) -> bool:
    """Tell a number from what Python and YAML take for one: truth values."""
    return isinstance(value, Real) and not isinstance(value, bool)
