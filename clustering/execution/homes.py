"""Homes: each run of blocks has one worker that it returns to in every pass, where its rows are cached.

Homes are chosen by rendezvous hashing (Thaler and Ravishankar 1998, https://doi.org/10.1109/90.663936): every worker
has a score for every run, and the highest score wins. Few runs would be uneven, so no worker gets more than its share,
in proportion to its threads. When a worker leaves, only its runs move. When one comes, it gets its share, and no other
run moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.execution.block_cache import drop_blocks


def assign_homes(runs: int, threads: Mapping[str, int], previous: Sequence[str] = ()) -> tuple[str, ...]:
    """Choose the home of each run.

    Parameters
    ----------
    runs
        Number of runs.
    threads
        Number of threads of each present worker, by name; at least one worker.
    previous
        Earlier homes of the same runs; empty where there are none.

    Returns
    -------
    tuple of str
        Name of a worker for each run. Without previous homes, it depends on names and threads alone.
    """
    names = sorted(threads)
    number = {name: i for i, name in enumerate(names)}
    weights = np.array([threads[name] for name in names], np.int64)
    share = runs * weights // weights.sum()
    # Whole shares leave a few runs over: so many workers take one run more.
    surplus = runs - int(share.sum())
    homes = np.array([number.get(home, -1) for home in previous] or [-1] * runs, np.int64)
    load = np.bincount(homes[homes >= 0], minlength=len(names))
    seeds = np.array([_digest(name) for name in names], np.uint64)
    # Runs leave a present worker only to make room for a new one.
    if set(names) - set(previous):
        keeps = share.copy()
        # Those that have more than their share may keep one run more, as long as there are any over.
        keeps[np.flatnonzero(load > share)[:surplus]] += 1
        for worker in np.flatnonzero(load > keeps).tolist():
            own = np.flatnonzero(homes == worker)
            scores = [_scores(seeds[worker : worker + 1], run)[0] for run in own.tolist()]
            homes[own[np.argsort(scores, kind="stable")[: load[worker] - keeps[worker]]]] = -1
        load = np.bincount(homes[homes >= 0], minlength=len(names))
    surplus -= int(np.minimum(np.maximum(load - share, 0), 1).sum())
    for run in np.flatnonzero(homes < 0).tolist():
        has_room = (load < share) | ((load == share) & (surplus > 0))
        home = int(np.where(has_room, _scores(seeds, run), 0).argmax())
        surplus -= int(load[home] == share[home])
        load[home] += 1
        homes[run] = home
    return tuple(names[home] for home in homes.tolist())


def _digest(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def _scores(seeds: NDArray[np.uint64], run: int) -> NDArray[np.uint64]:
    """Mix seeds of workers with a run, by the finalizer of splitmix64 (https://doi.org/10.1145/2660193.2660195)."""
    x = seeds ^ np.uint64(_digest(str(run)))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    # A score is never 0, which stands for a worker without room.
    return (x ^ (x >> np.uint64(31))) | np.uint64(1)


class Homes:
    """The homes of the runs of one pass runner, which follow the workers of its cluster.

    Workers go by their names, because one that is restarted keeps its name and gets another address. A run of which no
    row could be cached is free: any worker takes it as soon as it has nothing else to do.
    """

    def __init__(self, *, keep: bool = True) -> None:
        self._sessions: tuple[str, ...] = ()
        self._keep = keep
        self._runs: tuple[range, ...] = ()
        self._homes: tuple[str, ...] = ()
        self._uncached: set[int] = set()
        self._preparation: object = None
        self._names: dict[str, str] = {}

    def update(self, client: Any, runs: Sequence[range]) -> list[tuple[str, str | None]]:
        """Return name and address of the home of each run, chosen among the workers that are present now.

        Rows of runs that moved away from a present worker are dropped there, to make room.

        Parameters
        ----------
        client
            The `distributed.Client`.
        runs
            Runs of block numbers of the pass.

        Returns
        -------
        list of tuple
            Name and address of a worker for each run; an empty name and None for a free run. Empty where no worker is
            present, or the scheduler does not answer.
        """
        try:
            # A client that has given its scheduler up has nobody to ask.
            threads = {} if client.status == "closed" else client.nthreads()
            if not threads:
                return []
            if threads.keys() != self._names.keys() or tuple(runs) != self._runs:
                self._move(client, threads, tuple(runs))
        except OSError:
            # The tasks of the pass meet the same fault, and their error says what is lost.
            return []
        addresses = {name: address for address, name in self._names.items()}
        # Dask gives tasks out one by one only if there are more than two for each thread. A few it would give to the
        # worker that has the params, so these keep their homes.
        many = len(runs) > 2 * sum(threads.values())
        return [
            ("", None) if many and (not self._keep or run.start in self._uncached) else (home, addresses[home])
            for run, home in zip(runs, self._homes, strict=True)
        ]

    def prepare(self, preparation: object, sessions: tuple[str, ...]) -> None:
        """Begin a pass. Where it caches other rows than the pass before, all of them may be cached again.

        Parameters
        ----------
        preparation
            Map from decoded to prepared rows; None: rows are used as decoded.
        sessions
            Names of the block caches that hold rows of the runs, see `block_cache.BlockCache`.
        """
        if preparation is not self._preparation or sessions != self._sessions:
            self._preparation, self._sessions = preparation, sessions
            self._uncached.clear()

    def release(self, uncached: Iterable[int]) -> None:
        """Make runs free for the next passes.

        Parameters
        ----------
        uncached
            First block of each run of which no row could be cached.
        """
        self._uncached.update(uncached)

    def _move(self, client: Any, threads: Mapping[str, int], runs: tuple[range, ...]) -> None:
        """Choose homes again, and drop the rows that have moved away."""
        previous = self._homes if runs == self._runs else ()
        self._names, self._runs = worker_names(client, threads), runs
        self._homes = assign_homes(len(runs), {self._names[address]: n for address, n in threads.items()}, previous)
        # Other workers have other room.
        self._uncached.clear()
        moved: dict[str, list[range]] = {}
        for run, before, now in zip(runs, previous, self._homes, strict=bool(previous)):
            if before != now:
                moved.setdefault(before, []).append(run)
        for address, name in self._names.items():
            if name in moved:
                for session in self._sessions:
                    client.run(drop_blocks, session, moved[name], workers=[address], on_error="ignore")


def worker_names(client: Any, addresses: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of workers by address; the address itself where a worker has left.

    Parameters
    ----------
    client
        The `distributed.Client`.
    addresses
        Addresses of workers, as keys.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {address: str(workers[address]["name"]) if address in workers else address for address in addresses}
