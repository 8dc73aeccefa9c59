"""Candidates of a pass that must not fail together: one that fails has a reason in place of its statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clustering.data.plan import Block
from clustering.data.rows import Rows
from clustering.data.source import Feature
from clustering.errors import DomainError


@dataclass(frozen=True)
class Failed:
    """Stands for the statistics of a candidate that cannot use the rows of a block; picklable."""

    reason: str
    """Message of the error, which names the block."""


def merged(one: Any, other: Any) -> Any:
    """Add up the statistics of two parts of the rows; the sum with a failed part has failed, for the first reason.

    Parameters
    ----------
    one, other
        Statistics of the parts, in the order of their rows.
    """
    if isinstance(one, Failed):
        return one
    return other if isinstance(other, Failed) else one + other


def statistics_of(
    candidate: Callable[[Rows], Any], rows: Rows, features: Sequence[Feature], block: Block, *, apart: bool
) -> Any:
    """Make the statistics of a candidate. A row outside its domain is an error that says where the row is.

    Parameters
    ----------
    candidate
        Makes statistics from the rows of a block.
    rows
        Prepared rows of the block.
    features, block
        Features of the source, and the block, which the message names.
    apart
        Whether the error is returned as a `Failed`, and not raised.

    Raises
    ------
    DataError
        Unless `apart`.
    """
    try:
        return candidate(rows)
    except DomainError as error:
        place = f"block {block}"
        if error.column is not None:
            feature = features[error.column]
            place = f"variable {feature.variable!r} ({feature}), {place}"
        located = error.in_block(place)
    if not apart:
        raise located
    return Failed(str(located))
