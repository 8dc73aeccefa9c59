"""Options about the data that are chosen by name. This module imports no heavy packages."""

from __future__ import annotations

from typing import Literal, get_args

Missing = Literal["drop", "error", "marginalize"]
"""Treatment of rows with missing features: drop the row, raise an error, or integrate over what is missing."""

MissingChunks = Literal["error", "mask", "fill"]
"""Meaning of absent chunks: an error, masked cells, or the fill value."""

OnBadChunk = Literal["error", "mask"]
"""Treatment of bad chunks: an error, or masked cells."""
MAX_BAD_FRACTION = 0.25
"""Default of the largest share of bad chunks that may be masked."""

ValidRange = Literal["cf", "ignore"]
"""Whether values outside valid_range, valid_min and valid_max are missing, by the CF conventions, or are used."""

Decoder = Literal["signed_square"]
"""Encodings of numbers beyond scale and offset."""
DECODERS: tuple[Decoder, ...] = get_args(Decoder)
