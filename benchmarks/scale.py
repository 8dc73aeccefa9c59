"""Where a pass meets its limit on a large cluster: a simulation from measured costs, checked on real worker processes.

Measured on this machine: the processor time of the scheduler and of a worker for a task, one byte read, one byte of
rows in the kernel, one byte of statistics added up and moved, and the time of a block and of a run that holds Python's
lock. The simulation runs the tasks of one pass through them: homes, runs and additions are those of the library. One
scheduler serves all tasks one after the other; a worker has a few threads and one network card; all workers share the
bandwidth of the store, which is an assumption, as is that of the cards.

The check runs passes over a store with 1, 2 and 4 local workers. This machine's processors are shared by workers and
scheduler, so the simulation shares them too.

    python -m benchmarks.scale [--threads 4] [--memory 16] [--store 25] [--card 1.25]
    python -m benchmarks.scale --costs benchmarks/results/scale.json    # simulates again, and measures nothing
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import clustering as c
from benchmarks.results import RESULTS, Result, save
from clustering.data.access import open_source
from clustering.data.plan import MIB
from clustering.execution.engine import Engine, connect
from clustering.execution.homes import Homes, assign_homes
from clustering.execution.map_reduce import FAN_IN, map_reduce, split_runs
from clustering.execution.passes import MEMORY_SHARE, PassRunner, pass_runner
from clustering.models.tree import fold

FEATURES, CLUSTERS = 64, 32
STATISTICS = 8 * CLUSTERS * (FEATURES + 2)
"""Size of the statistics of k-means, in bytes."""
BLOCK = 256 * MIB
SIZES = {"1 TB": 10**12, "100 TB": 10**14, "1 PB": 10**15}
WORKERS = (16, 64, 256, 1024, 4096)
CHECKED = (1, 2, 4)
BIG = 4 * MIB
"""Size of the nodes whose addition and way between workers are timed, in bytes."""


@dataclass(frozen=True)
class Costs:
    """Seconds that one unit of work takes."""

    scheduler: float
    """Of the scheduler and its client, for a task."""
    worker: float
    """Of a worker, for a task, beyond its work."""
    round_trip: float
    """Wall time of a pass of one task, which does nothing."""
    read: float
    """Of a worker's thread, to read and decode a byte of rows."""
    read_processors: float
    """Processors that a reading thread keeps busy, as some decoders have threads of their own."""
    compute: float
    """Of a thread, to make the statistics of a byte of cached rows."""
    add: float
    """To add up one byte of statistics."""
    move: float
    """To bring one byte of statistics to another worker of this machine."""
    block_lock: float
    """For a cached block, with Python's lock held."""
    run_lock: float
    """For a run of cached blocks, with Python's lock held."""


@dataclass(frozen=True)
class Cluster:
    """A cluster as the simulation sees it; speeds in bytes per second."""

    workers: int
    threads: int
    memory: int
    """Budget of a worker, in bytes."""
    store: float = float("inf")
    """All that the store gives to all workers together."""
    card: float = float("inf")
    """What a worker's network card takes in."""
    processors: float = float("inf")
    """Processors of the machine that all workers share; infinite where each has its own."""


@dataclass(frozen=True)
class Pass:
    """A simulated pass, with the seconds that each part alone would need."""

    seconds: float
    tasks: int
    scheduler: float
    store: float
    compute: float
    tree: float
    lock: float

    @property
    def limit(self) -> str:
        """The part that alone needs most."""
        return max(("scheduler", "store", "compute", "tree", "lock"), key=lambda part: getattr(self, part))


# --- the simulation --------------------------------------------------------------------------------------------------


def simulate(cluster: Cluster, costs: Costs, size: float, block: float, resident: float) -> Pass:
    """Run the tasks of one pass through the scheduler, the workers and the tree.

    Parameters
    ----------
    cluster
        Number, threads and speeds of the workers.
    costs
        Measured costs.
    size
        Decoded size of all rows, in bytes.
    block
        Decoded size of a block, in bytes.
    resident
        Share of the rows that workers cache.
    """
    n_blocks = max(1, round(size / block))
    runs = split_runs(n_blocks, cluster.workers * cluster.threads)
    names = {f"worker-{i}": cluster.threads for i in range(cluster.workers)}
    number = {name: i for i, name in enumerate(names)}
    homes = [number[name] for name in assign_homes(len(runs), names)]
    # More threads than processors share them.
    busy = min(cluster.workers * cluster.threads, len(runs))
    slowdown = max(1.0, busy / cluster.processors)
    decoding = max(1.0, busy * costs.read_processors / cluster.processors) * costs.read
    reading = max(decoding, min(cluster.threads, len(runs) / cluster.workers) / cluster.card, busy / cluster.store)
    # The next block is read while the present one is worked on.
    computing = slowdown * costs.compute

    def seconds_of(run: range) -> float:
        rows = len(run) * size / n_blocks
        work = resident * computing + (1 - resident) * max(reading, computing)
        return rows * work + len(run) * costs.block_lock + costs.run_lock + slowdown * costs.worker

    hop = costs.round_trip / 2
    fold_seconds = FAN_IN * STATISTICS * (costs.add + max(costs.move, 1 / cluster.card)) + slowdown * costs.worker
    total, ends = _events([seconds_of(run) for run in runs], homes, cluster, costs.scheduler, hop, fold_seconds)
    tasks = len(runs) + sum(_widths(len(runs)))
    # The busiest thread makes so many runs, one after the other.
    rounds = max(-(-int(n) // cluster.threads) for n in _sums(homes, [1] * len(runs)).values())
    rows = rounds * len(runs[0]) * size / n_blocks
    lock = max(_sums(homes, [len(run) * costs.block_lock + costs.run_lock for run in runs]).values())
    return Pass(
        total,
        tasks,
        tasks * costs.scheduler,
        (1 - resident) * rows * reading,
        rows * computing,
        total - ends,
        lock,
    )


def _events(
    durations: list[float], homes: list[int], cluster: Cluster, scheduler: float, hop: float, fold_seconds: float
) -> tuple[float, float]:
    """Return when the pass ends, and when its last run does, in seconds."""
    free_threads = [cluster.threads] * cluster.workers
    waiting: dict[int, list[int]] = defaultdict(list)
    widths = [len(durations), *_widths(len(durations))]
    missing = {(level, i): min(FAN_IN, below - FAN_IN * i) for level, below in enumerate(widths[:-1], 1)
               for i in range(widths[level])}  # fmt: skip
    # An event is a time, a kind, and a node of the tree. Half of a task's time at the scheduler is before its work.
    events: list[tuple[float, int, tuple[int, int]]] = []
    busy_until = ends = 0.0
    for i in range(len(durations)):
        busy_until += scheduler / 2
        heapq.heappush(events, (busy_until + hop, 0, (0, i)))
    while events:
        now, kind, (level, i) = heapq.heappop(events)
        if kind == 0 and level == 0:
            waiting[homes[i]].insert(0, i)
        elif kind == 0:
            heapq.heappush(events, (now + fold_seconds, 1, (level, i)))
        else:
            if level == 0:
                free_threads[homes[i]] += 1
                ends = now
            busy_until = max(busy_until, now) + scheduler / 2
            parent = (level + 1, i // FAN_IN)
            if parent in missing:
                missing[parent] -= 1
                if missing[parent] == 0:
                    busy_until += scheduler / 2
                    heapq.heappush(events, (busy_until + hop / 2, 0, parent))
        # A worker has its tasks already, and does not wait for the scheduler between them.
        if level == 0:
            home = homes[i]
            while free_threads[home] and waiting[home]:
                started = waiting[home].pop()
                free_threads[home] -= 1
                heapq.heappush(events, (now + durations[started], 1, (0, started)))
    return busy_until + hop, ends


def _widths(n: int) -> list[int]:
    """Return the number of additions at each height of the tree."""
    widths = []
    while n > 1:
        n = -(-n // FAN_IN)
        widths.append(n)
    return widths


def _sums(groups: list[int], values: list[float]) -> dict[int, float]:
    sums: dict[int, float] = defaultdict(float)
    for group, value in zip(groups, values, strict=True):
        sums[group] += value
    return sums


# --- what is measured ------------------------------------------------------------------------------------------------


def _ones(run: range, *, keep: bool = True) -> Iterator[Any]:  # noqa: ARG001
    return iter([1] * len(run))


def _nodes(run: range, *, keep: bool = True) -> Iterator[Any]:  # noqa: ARG001
    return (np.ones(BIG // 8) for _ in run)


def _least(work: Callable[[], Any], rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _of_tasks(engine: Engine, n: int, leaves: Any = _ones, rounds: int = 5) -> tuple[float, float]:
    """Return wall and processor seconds of a pass with a task for each of n blocks."""
    wide, homes = replace(engine, threads=n), Homes()
    processor = []

    def run() -> None:
        started = time.process_time()
        map_reduce(leaves, n, wide, homes)
        processor.append(time.process_time() - started)

    return _least(run, rounds), min(processor)


def _runner(rows: Any, engine: Engine, block: int, memory: int = 1 << 33) -> Any:
    source = open_source(rows, sample_dims=["row"]) if isinstance(rows, Path) else open_source(rows)
    return pass_runner(source, source.plan(block_bytes=block), engine, memory=memory)


def _statistics() -> Any:
    model = c.KMeans(CLUSTERS)
    rows = np.random.default_rng(0).standard_normal((4000, FEATURES), np.float32)
    return model.for_pass(c.fit(rows, model, max_iterations=1, restarts=1, init="random").params)


def _cached_seconds(runner: PassRunner, statistics: Any, rounds: int = 7) -> float:
    runner.run([statistics])
    return _least(lambda: runner.run([statistics]), rounds)


def measure(store: Path, rows: int) -> Costs:
    """Measure all costs; the store holds the rows ``(rows, FEATURES)`` in float32."""
    statistics, size = _statistics(), rows * FEATURES * 4
    few, many = 64, 1024
    with connect("local", 2) as engine:
        round_trip = _of_tasks(engine, 1, rounds=20)[0]
        walls, processors = zip(*(_of_tasks(engine, n, rounds=3) for n in (few, many)), strict=True)
        tasks = [n + sum(_widths(n)) for n in (few, many)]
        scheduler = (processors[1] - processors[0]) / (tasks[1] - tasks[0])
        wall = (walls[1] - walls[0]) / (tasks[1] - tasks[0])
        # The additions of a pass of 32 nodes bring them from one worker to the other, half of them on average.
        heavy = _of_tasks(engine, 32, _nodes, rounds=3)[0] - _of_tasks(engine, 32, rounds=3)[0]
    pair = [np.ones(BIG // 8) for _ in range(FAN_IN)]
    add = _least(lambda: fold(pair)) / (FAN_IN * BIG)
    with connect("local", 1) as engine, _runner(store, engine, 8 * MIB, memory=16 * MIB) as runner:
        runner.run([len])
        busy = _worker_seconds(engine)
        started = time.perf_counter()
        reading = _least(lambda: runner.run([len]), 9)
        read_processors = (_worker_seconds(engine) - busy) / (time.perf_counter() - started)
    with connect("threads", 1) as engine:
        with _runner(store, engine, 8 * MIB) as runner:
            compute = _cached_seconds(runner, statistics) / size
        # Blocks of one row leave nothing but what Python does.
        tiny = np.zeros((4096, FEATURES), np.float32)
        lock = []
        for threads in (1, 64):
            with _runner(tiny, replace(engine, threads=threads), FEATURES * 4) as runner:
                lock.append(_cached_seconds(runner, statistics))
        run_lock = max(0.0, lock[1] - lock[0]) / (len(split_runs(4096, 64)) - len(split_runs(4096, 1)))
        block_lock = (lock[0] - len(split_runs(4096, 1)) * run_lock) / 4096
    return Costs(
        scheduler, max(0.0, 2 * (wall - scheduler)), round_trip, (reading - round_trip) / size, read_processors,
        compute, add,
        max(0.0, 2 * heavy / (32 * BIG) - add), block_lock, run_lock,
    )  # fmt: skip


def _worker_seconds(engine: Engine) -> float:
    """Return the processor time that all workers have taken."""
    return sum(engine.client.run(time.process_time).values())


def check(store: Path, rows: int, costs: Costs) -> list[dict[str, Any]]:
    """Time passes on local workers, and simulate the same passes."""
    statistics, size, block, lines = _statistics(), rows * FEATURES * 4, 8 * MIB, []
    processors = float(os.cpu_count() or 1)
    for workers in CHECKED:
        with connect("threads", workers) as engine, _runner(store, engine, block) as runner:
            on_threads = _cached_seconds(runner, statistics, 9)
        with connect("local", workers) as engine:
            with _runner(store, engine, block) as runner:
                # Workers import and compile in their first pass.
                runner.run([statistics])
                cached = _least(lambda: runner.run([statistics]), 9)
                lives = runner.residency
                assert lives.source == 0, "all rows are cached"
            with _runner(store, engine, block, memory=2 * block) as runner:
                runner.run([statistics])
                again = _least(lambda: runner.run([statistics]), 9)
        cluster = Cluster(workers, 1, 1 << 33, processors=processors)
        for kind, seconds, resident in (("cached", cached, 1.0), ("read again", again, 0.0)):
            expected = simulate(cluster, costs, size, block, resident)
            lines.append(
                {"workers": workers, "rows": kind, "measured": seconds, "simulated": expected.seconds,
                 "on_threads": on_threads if resident else None}
            )  # fmt: skip
            print(lines[-1], flush=True)
    return lines


# --- the tables ------------------------------------------------------------------------------------------------------


def scale(costs: Costs, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Simulate passes over every size on every number of workers."""
    lines = []
    for name, size in SIZES.items():
        for workers in WORKERS:
            cluster = Cluster(
                workers, options.threads, int(options.memory * 2**30), options.store * 1e9, options.card * 1e9
            )
            kept = min(1.0, workers * cluster.memory / MEMORY_SHARE / size)
            passed = simulate(cluster, costs, size, BLOCK, kept)
            held = simulate(cluster, costs, size, BLOCK, 1.0)
            lines.append(
                {"size": name, "workers": workers, "cached": kept, **asdict(passed), "limit": passed.limit,
                 "if_all_cached": held.seconds, "limit_if_all_cached": held.limit}
            )  # fmt: skip
    return lines


def table(costs: Costs, checked: list[dict[str, Any]], lines: list[dict[str, Any]], options: argparse.Namespace) -> str:
    text = [
        f"Measured on {os.cpu_count()} processors: {1e3 * costs.scheduler:.2f} ms of the scheduler and "
        f"{1e3 * costs.worker:.2f} ms of a worker for a task, {1e3 * costs.round_trip:.0f} ms for a pass of one task; "
        f"a thread reads {1e-9 / costs.read:.2f} GB/s and computes {1e-9 / costs.compute:.2f} GB/s "
        f"({FEATURES} features, k = {CLUSTERS}, float32); additions take {1e9 * costs.add:.2f} s and ways between "
        f"workers {1e9 * costs.move:.2f} s for each GB of statistics; Python's lock is held "
        f"{1e6 * costs.block_lock:.0f} µs for a cached block and {1e6 * costs.run_lock:.0f} µs for a run.",
        "",
        "| local workers | rows | measured, ms | simulated, ms | simulated / measured | on threads, ms | beyond, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in checked:
        ratio = line["simulated"] / line["measured"]
        kernel = line["on_threads"]
        beyond = "| |" if kernel is None else f"{1e3 * kernel:.0f} | {1e3 * (line['measured'] - kernel):.0f} |"
        text.append(
            f"| {line['workers']} | {line['rows']} | {1e3 * line['measured']:.0f} | {1e3 * line['simulated']:.0f} | "
            f"{ratio:.2f} | {beyond}"
        )
    text += [
        "",
        f"Simulated: one pass; workers of {options.threads} threads and {options.memory:g} GiB, cards of "
        f"{options.card:g} GB/s, a store of {options.store:g} GB/s, blocks of {BLOCK // MIB} MiB.",
        "",
        "The parts are what each would take alone, in seconds; the limit is the longest of them.",
        "",
        "| rows | workers | tasks | cached | pass, s | scheduler | store | compute | tree | limit "
        "| if all were cached, s | limit |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        parts = " | ".join(f"{line[part]:,.3g}" for part in ("scheduler", "store", "compute", "tree"))
        text.append(
            f"| {line['size']} | {line['workers']:,} | {line['tasks']:,} | {100 * line['cached']:.3g} % | "
            f"{line['seconds']:,.3g} | {parts} | {line['limit']} | {line['if_all_cached']:,.3g} | "
            f"{line['limit_if_all_cached']} |"
        )
    return "\n".join(text) + "\n"


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw the seconds of a pass against the number of workers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(SIZES):
        of_size = [line for line in lines if line["size"] == name]
        x = [line["workers"] for line in of_size]
        axes.plot(x, [line["seconds"] for line in of_size], f"C{i}o-", label=name)
        axes.plot(x, [line["if_all_cached"] for line in of_size], f"C{i}o--", label=f"{name}, if all were cached")
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="seconds of a pass (simulated)")
    axes.set_xticks(WORKERS, [f"{n:,}" for n in WORKERS], minor=False)
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=150)


def records(checked: list[dict[str, Any]]) -> list[Result]:
    """Show the passes on local workers beside the simulated ones."""
    return [
        Result(
            "pass on local workers beside the simulation", f"{line['workers']} workers, rows {line['rows']}",
            1e3 * line["measured"], "ms", {"simulated": 1e3 * line["simulated"]}, "≤",
        )
        for line in checked
    ]  # fmt: skip


def main() -> None:
    """Measure, check, simulate, and write tables and a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=4, help="threads of a worker")
    parser.add_argument("--memory", type=float, default=16, help="budget of a worker, GiB")
    parser.add_argument("--store", type=float, default=25, help="bandwidth of the store, GB/s")
    parser.add_argument("--card", type=float, default=1.25, help="bandwidth of a worker's network card, GB/s")
    parser.add_argument("--rows", type=int, default=300_000, help="rows of the measurements")
    parser.add_argument("--costs", type=Path, help="JSON file with costs of an earlier run, instead of measuring")
    options = parser.parse_args()
    checked: list[dict[str, Any]] = []
    if options.costs is None:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "rows.zarr"
            array = zarr.create_array(
                store, shape=(options.rows, FEATURES), chunks=(32_768, FEATURES), dtype="f4",
                dimension_names=("row", "feature"),
            )  # fmt: skip
            array[:] = np.random.default_rng(0).standard_normal(array.shape, np.float32)
            costs = measure(store, options.rows)
            print(costs, flush=True)
            checked = check(store, options.rows, costs)
    else:
        earlier: Mapping[str, Any] = json.loads(options.costs.read_text())
        costs, checked = Costs(**earlier["costs"]), earlier["checked"]
    lines = scale(costs, options)
    text = table(costs, checked, lines, options)
    RESULTS.mkdir(parents=True, exist_ok=True)
    save("scale", records(checked), costs=asdict(costs), checked=checked, passes=lines)
    (RESULTS / "scale.md").write_text(text)
    draw(lines, RESULTS / "scale.png")
    print(text)


if __name__ == "__main__":
    main()
