"""Candidates that fail alone."""

from __future__ import annotations

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from clustering.execution.apart import Failed, merged

PARTS = st.one_of(st.integers(), st.sampled_from("abc").map(Failed))


@given(st.lists(PARTS, min_size=1, max_size=8), st.integers(1, 7))
def test_a_sum_fails_for_its_first_reason_however_its_parts_are_grouped(parts: list[int | Failed], cut: int) -> None:
    first = next((part for part in parts if isinstance(part, Failed)), None)
    expected = sum(part for part in parts if isinstance(part, int)) if first is None else first
    assert reduce(merged, parts) == expected
    groups = [part for part in (parts[:cut], parts[cut:]) if part]
    assert reduce(merged, [reduce(merged, group) for group in groups]) == expected
