"""Homes are even and depend on names alone; a worker that leaves or comes moves its own share of the runs only."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clustering.execution.homes import Homes, assign_homes

RUNS = st.integers(1, 200)
NAMES = st.text("abcdef0123456789-", min_size=1, max_size=8)
WORKERS = st.dictionaries(NAMES, st.integers(1, 8), min_size=1, max_size=12)
ALIKE = st.sets(NAMES, min_size=1, max_size=12).map(lambda names: dict.fromkeys(names, 2))


@given(RUNS, WORKERS)
def test_each_worker_gets_its_whole_share_and_at_most_one_run_more(runs: int, threads: dict[str, int]) -> None:
    load = Counter(assign_homes(runs, threads))
    assert load.total() == runs
    for name, n in threads.items():
        assert load[name] - runs * n // sum(threads.values()) in (0, 1)


@given(RUNS, WORKERS, st.randoms())
def test_the_order_in_which_workers_came_does_not_matter(runs: int, threads: dict[str, int], random: Any) -> None:
    shuffled = list(threads.items())
    random.shuffle(shuffled)
    assert assign_homes(runs, dict(shuffled)) == assign_homes(runs, threads)


@given(RUNS, WORKERS, st.data())
def test_a_lost_worker_moves_only_its_own_runs(runs: int, threads: dict[str, int], data: st.DataObject) -> None:
    assume(len(threads) > 1)
    before = assign_homes(runs, threads)
    lost = data.draw(st.sampled_from(sorted(threads)))
    left = {name: n for name, n in threads.items() if name != lost}
    after = assign_homes(runs, left, before)
    assert all(now == home for now, home in zip(after, before, strict=True) if home != lost)
    assert set(after) <= set(left)


@given(RUNS, ALIKE, st.data())
def test_runs_of_lost_workers_spread_evenly_however_many_go(
    runs: int, threads: dict[str, int], data: st.DataObject
) -> None:
    homes = assign_homes(runs, threads)
    for name in data.draw(st.permutations(sorted(threads)))[1:]:
        threads = {other: n for other, n in threads.items() if other != name}
        homes = assign_homes(runs, threads, homes)
        load = Counter(homes)
        assert max(load.values()) - min(load[name] for name in threads) <= 1


@given(RUNS, ALIKE, NAMES)
def test_a_new_worker_takes_its_share_and_no_other_run_moves(runs: int, threads: dict[str, int], new: str) -> None:
    assume(new not in threads)
    before = assign_homes(runs, threads)
    after = assign_homes(runs, {**threads, new: 2}, before)
    moved = [now for now, home in zip(after, before, strict=True) if now != home]
    assert set(moved) <= {new}
    assert len(moved) in (runs // (len(threads) + 1), -(-runs // (len(threads) + 1)))


@given(RUNS, WORKERS)
def test_homes_stay_while_the_workers_do(runs: int, threads: dict[str, int]) -> None:
    homes = assign_homes(runs, threads)
    assert assign_homes(runs, threads, homes) == homes


def test_homes_are_the_same_in_every_process_and_version() -> None:
    # Python's own hash of strings differs from process to process.
    assert "".join(assign_homes(12, {"a": 1, "b": 1, "c": 2})) == "bcacaaccbccb"


class Client:
    """A cluster whose workers have names, addresses and threads, and which writes down what it is asked to drop."""

    status = "running"

    def __init__(self, **addresses: str) -> None:
        self.addresses = addresses
        self.dropped: list[tuple[str, str, list[range]]] = []

    def nthreads(self) -> dict[str, int]:
        return dict.fromkeys(self.addresses.values(), 1)

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {address: {"name": name} for name, address in self.addresses.items()}}

    def run(self, function: Any, session: str, runs: list[range], *, workers: list[str], on_error: str) -> None:
        (address,) = workers
        self.dropped.append((address, session, runs))


RANGES = [range(4 * i, 4 * i + 4) for i in range(8)]


def test_a_restarted_worker_gets_its_runs_at_its_new_address() -> None:
    homes, client = Homes(), Client(a="tcp://1", b="tcp://2")
    before = homes.update(client, RANGES)
    client.addresses["b"] = "tcp://3"
    after = homes.update(client, RANGES)
    assert [name for name, _ in after] == [name for name, _ in before]
    assert {address for name, address in after if name == "b"} == {"tcp://3"}
    assert client.dropped == []


def test_rows_that_moved_are_dropped_where_they_were() -> None:
    homes, client = Homes(), Client(a="tcp://1", b="tcp://2")
    homes.prepare(None, ("all", "near"))
    before = homes.update(client, RANGES)
    client.addresses["c"] = "tcp://3"
    after = homes.update(client, RANGES)
    moved: dict[str, list[range]] = {}
    for run, (_, address), (now, _) in zip(RANGES, before, after, strict=True):
        if now == "c":
            assert address is not None
            moved.setdefault(address, []).append(run)
    for cache in ("all", "near"):
        assert {address: runs for address, session, runs in client.dropped if session == cache} == moved
    assert sum(map(len, moved.values())) == 2


def test_runs_that_nobody_could_cache_are_free_until_rows_or_workers_change() -> None:
    homes, client = Homes(), Client(a="tcp://1", b="tcp://2")
    homes.prepare(None, ("s",))

    def free() -> list[int]:
        return [run.start for run, (name, _) in zip(RANGES, homes.update(client, RANGES), strict=True) if not name]

    assert free() == []
    homes.release([4, 12])
    assert free() == [4, 12]
    homes.prepare(None, ("s",))
    assert free() == [4, 12]
    homes.prepare("another map", ("s",))
    assert free() == []
    homes.release([4])
    homes.prepare("another map", ("s", "near"))
    assert free() == []
    homes.release([8])
    client.addresses["c"] = "tcp://3"
    assert free() == []


@pytest.mark.parametrize(("workers", "free"), [(3, True), (4, False)])
def test_a_pass_that_caches_nothing_has_no_homes_unless_its_runs_are_few(workers: int, free: bool) -> None:
    client = Client(**{f"w{i}": f"tcp://{i}" for i in range(workers)})
    assert all((name == "") is free for name, _ in Homes(keep=False).update(client, RANGES))


def test_a_cluster_without_workers_has_no_homes() -> None:
    assert Homes().update(Client(), RANGES) == []


def test_a_scheduler_that_is_gone_is_left_to_the_tasks() -> None:
    class Gone(Client):
        def nthreads(self) -> dict[str, int]:
            raise ConnectionError("the scheduler closed")

    assert Homes().update(Gone(), RANGES) == []
    closed = Client(a="tcp://1")
    closed.status = "closed"
    assert Homes().update(closed, RANGES) == []
