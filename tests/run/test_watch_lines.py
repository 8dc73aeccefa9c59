from __future__ import annotations

import pytest

from clustering.run.watch import counted


@pytest.mark.parametrize(
    ("number", "word", "text"),
    [(1, "block", "1 block"), (0, "block", "0 blocks"), (2000, "start", "2,000 starts"), (1, "pass", "1 pass"),
     (3, "pass", "3 passes")],
)  # fmt: skip
def test_a_number_of_things_has_its_singular(number: int, word: str, text: str) -> None:
    assert counted(number, word) == text
