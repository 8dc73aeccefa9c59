"""Excluded rows: how many of them each missing rule of each variable causes, counted in a few blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.decoding import Decoding, MissingRule
from clustering.data.plan import Block, Plan
from clustering.data.reading import load_variable, used_cells
from clustering.data.source import Source
from clustering.data.validity import NAMES

BLOCKS = 4
"""Largest number of blocks that are read to count causes."""
_SHARE = 0.1
"""Smallest share of the used rows that makes a cause worth a message."""


class Cause(NamedTuple):
    """One missing rule of one variable, and what it excludes beyond the rules before it."""

    variable: str
    rule: MissingRule
    values: int
    """Missing values of used cells."""
    rows: int
    """Rows with such a value."""


def explain_excluded_rows(source: Source, plan: Plan) -> tuple[str, ...]:
    """Return messages about the attributes, or the option `nodata`, that exclude many rows.

    Call it only where most rows are excluded, as it reads some blocks once more.

    Parameters
    ----------
    source
        Source of the rows.
    plan
        Plan of its blocks; `BLOCKS` of them are read.

    Returns
    -------
    tuple of str
        Messages for the user, the rule that excludes most rows first.
    """
    # The blocks are spread over the whole plan, as missing values often lie together.
    blocks = [plan.block(int(i)) for i in np.unique(np.linspace(0, len(plan) - 1, BLOCKS).astype(int))]
    causes: dict[tuple[str, str], Cause] = {}
    used = 0
    for block in blocks:
        mask = used_cells(source, block)
        keep = np.ones(math.prod(block.shape), bool) if mask is None else mask
        used += int(keep.sum())
        for cause in _causes(source, block, keep):
            key = cause.variable, cause.rule.name
            before = causes.get(key, cause._replace(values=0, rows=0))
            causes[key] = before._replace(values=before.values + cause.values, rows=before.rows + cause.rows)
    where = "" if len(blocks) == len(plan) else f" in {len(blocks)} of {len(plan):,} blocks"
    return tuple(
        f"{cause.rule.name} of variable {cause.variable!r} leaves out {cause.rows:,} of {used:,} rows{where} "
        f"({cause.values:,} values{_rule_text(cause.rule)}){_remedy(cause.rule)}"
        for cause in sorted(causes.values(), key=lambda cause: -cause.rows)
        if cause.rows and cause.rows >= _SHARE * used
    )


def explain_no_rows(source: Source, plan: Plan, *, zeros: bool = False) -> str:
    """Return the message that no row takes part, with the causes.

    Parameters
    ----------
    source
        Source of the rows.
    plan
        Plan of its blocks; some of them are read once more.
    zeros
        Whether zero rows were left out too.
    """
    also = ", or are rows of zeros, which preprocess.unit_norm leaves out" if zeros else ""
    remedy = "; ".join(explain_excluded_rows(source, plan)) or "check source.mask, source.select and the fill values"
    return f"no row takes part: all {plan.cells} cells are masked or have missing features{also}; {remedy}"


def _causes(source: Source, block: Block, keep: NDArray[np.bool_]) -> Iterator[Cause]:
    """Yield the causes in one block, of which `keep` marks the used cells ``(cells,)``."""
    region = dict(zip(source.sample_dims, block.slices, strict=True))
    for name in source.variables:
        decoding = _decoding(source, name)
        if decoding is None or not decoding.rules:
            continue
        dims = [d for d in source.feature_dims if d in source.dataset[name].dims]
        if name in source.stored:
            # Rows as the fit gets them are decoded, with NaN for every cause alike, so stored numbers are read.
            values, lost, _ = source.stored[name].read(region, (*source.sample_dims, *dims))
        else:
            variable = source.in_memory[name].variable
            values = load_variable(source, name, variable.isel(region).transpose(*source.sample_dims, *dims, ...))
            # ``_Unsigned`` changes the type that the bits are read as.
            values = np.ascontiguousarray(values).view(decoding.stored).reshape(math.prod(block.shape), -1)
            lost = None
        left = np.broadcast_to(keep[:, None], values.shape).copy()
        if lost is not None:
            left &= ~lost
        # A value that two rules exclude counts for the first of them only.
        for rule in decoding.rules:
            absent = rule.is_missing(values)
            if absent is None:
                continue
            taken = absent & left
            left &= ~absent
            yield Cause(name, rule, int(taken.sum()), int(taken.any(axis=1).sum()))


def _decoding(source: Source, name: str) -> Decoding | None:
    if name in source.stored:
        return source.stored[name].decoding
    return source.in_memory[name].decoding if name in source.in_memory else None


def _rule_text(rule: MissingRule) -> str:
    if rule.numbers:
        return f", {' or '.join(f'{number:g}' for number in rule.numbers[:3])} as stored"
    ends = [f"below {rule.low:g}"] * (rule.low > -np.inf) + [f"above {rule.high:g}"] * (rule.high < np.inf)
    return f", {' or '.join(ends)} as stored"


def _remedy(rule: MissingRule) -> str:
    if rule.name in NAMES:
        return "; correct it where it is in another unit, or set source.valid_range to ignore"
    return ""
