from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from clustering.fitting.labelling import LabelStatistics
from clustering.storage.ledger import Ledger


def sums(seed: int = 0, k: int = 3) -> LabelStatistics:
    rng = np.random.default_rng(seed)
    weight = rng.random(k)
    weight[0] = np.nextafter(0.1, 1.0)
    rows, entropy = rng.integers(0, 2**40, k), float(rng.random())
    moves = np.unique(rng.integers(-1, 4, (5, 2)), axis=0)
    return LabelStatistics(float(rng.standard_normal()) / 3, weight, rows, entropy, moves, rng.random(len(moves)))


def bits(a: LabelStatistics) -> tuple[object, ...]:
    arrays = (a.weight, a.rows, a.moves, a.moved)
    return (a.objective, a.entropy, *((array.tobytes(), array.dtype, array.shape) for array in arrays))


def same(a: LabelStatistics, b: LabelStatistics) -> bool:
    return bits(a) == bits(b)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "ledger")
    made.begin({"k": 3})
    return made


def test_statistics_come_back_to_the_last_bit(ledger: Ledger) -> None:
    for index in (0, 7, 123_456_789_012):
        ledger.save(index, (sums(index % 97),))
    other = pickle.loads(pickle.dumps(ledger))
    for index in (0, 7, 123_456_789_012):
        statistics = other.load(index)
        assert statistics is not None
        assert same(statistics[0], sums(index % 97))
    assert other.load(1) is None
    assert len(other) == 3
    assert not list(Path(ledger.path).glob(".*"))
    other.drop(7)
    other.drop(7)
    assert ledger.load(7) is None
    assert len(ledger) == 2


def test_numbers_that_are_not_finite_are_kept(ledger: Ledger) -> None:
    odd = LabelStatistics(float("inf"), np.array([np.nan, -0.0]), np.array([1, 2]), float("nan"))
    ledger.save(0, (odd,))
    statistics = ledger.load(0)
    assert statistics is not None
    assert statistics[0].weight.tobytes() == odd.weight.tobytes()
    assert (statistics[0].objective, str(statistics[0].entropy)) == (float("inf"), "nan")


def test_a_damaged_record_counts_as_none(ledger: Ledger) -> None:
    ledger.save(4, (sums(),))
    (file,) = Path(ledger.path).glob("block-*")
    whole = file.read_bytes()
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << place % 8
        file.write_bytes(broken)
        assert ledger.load(4) is None
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        assert ledger.load(4) is None
    # A record under the name of another block counts as none too.
    file.rename(file.with_name("block-00000005"))
    file.with_name("block-00000005").write_bytes(whole)
    assert ledger.load(5) is None
    ledger.save(4, (sums(),))
    assert ledger.load(4) is not None


def test_another_wish_does_not_continue(ledger: Ledger) -> None:
    ledger.save(0, (sums(),))
    assert ledger.continues({"k": 3})
    assert not ledger.continues({"k": 4})
    ledger.begin({"k": 4})
    assert ledger.continues({"k": 4})
    assert len(ledger) == 0
    Path(ledger.path, "wish.json").write_text("{")
    assert not ledger.continues({"k": 4})
    ledger.remove()
    ledger.remove()
    assert not ledger.continues({"k": 4})
