"""Probe: a short measured trial of a job's work on this machine, for the forecast of its time and memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from clustering.blas import one_blas_thread
from clustering.data.plan import MIB, Axis, Block, Plan
from clustering.data.reading import read_block
from clustering.data.source import Source
from clustering.errors import DataError
from clustering.execution.engine import connect
from clustering.execution.passes import PassRunner, pass_runner
from clustering.fitting.drift_budget import has_margins
from clustering.fitting.initialization import Initialization, initialize
from clustering.fitting.labelling import LabelOutputs, LabelStatistics, discard, label_blocks
from clustering.fitting.options import Options
from clustering.fitting.preprocessing import scatter_refusal
from clustering.fitting.survey_pass import few_rows, makes_full_scatter
from clustering.models.model import AnyModel
from clustering.models.survey import SurveyModel

READ_SECONDS = 1.0
"""Time for which blocks are read, in seconds. A read that has begun is finished."""
STAGE_SECONDS = 0.3
"""Time for which each kind of pass runs, in seconds. A shorter run would not average over other load of the machine."""
LARGEST = 32 * MIB
"""Largest decoded size of a probed block in bytes, unless a chunk is larger."""
PART = 32 * MIB
"""Largest decoded size in bytes of the rows that a thread computes on. It is more than caches hold."""
PRODUCTS = 4e9
"""Approximate number of products that a thread computes in one run, which limits its rows."""
BLOCKS_PER_THREAD = 4
"""Largest number of blocks that each thread reads."""
START_ROWS = 5_000
"""Size of the row sample from which the probe makes its params."""


@dataclass(frozen=True)
class ProbedStage:
    """Measured time and memory of one kind of pass."""

    seconds: float
    """Seconds per row of one thread while all threads work, for rows in memory."""
    work: float
    """Memory that a thread takes beside kept rows, in bytes per cell."""
    node: int
    """Size of the statistics without the row sample, in bytes."""


@dataclass(frozen=True)
class ProbedWork:
    """Measured work on rows: pass 0, an iteration and the label pass."""

    survey: ProbedStage
    iteration: ProbedStage
    label: ProbedStage
    n_components: int | None
    """Number of components of prepared rows; None where nothing is prepared."""
    kept_row_bytes: float | None
    """Size of a kept row in bytes, where prepared rows are kept; None where decoded rows are."""
    start_passes: int = 0
    """Number of passes over all rows between pass 0 and the loop."""
    has_margins: bool = False
    """Whether passes of the model can go over the rows near a boundary alone, see `clustering.fitting.drift_budget`."""


@dataclass(frozen=True)
class Probe:
    """Measured reads of some blocks, and measured work on some of their rows."""

    blocks: int
    cells: int
    rows: int
    read_seconds: float
    """Seconds per cell of one thread that reads while all threads read."""
    read_work: float
    """Memory that a thread takes while it reads, in bytes per cell; the decoded rows are included."""
    kept_row_bytes: float
    """Size of a row as it is read, in bytes."""
    computed: ProbedWork | None
    """Measured work; None where nothing could be computed on the rows."""
    failure: str = ""
    """Why nothing could be computed, in words; empty where it could."""


def probe(
    source: Source, plan: Plan, model: AnyModel, options: Options, outputs: LabelOutputs, *, threads: int
) -> Probe:
    """Read some blocks on all threads at once, and run each kind of pass on some of their rows.

    This takes about three seconds, and longer where a single chunk does. Compilation is not part of the times.

    Parameters
    ----------
    source
        Data of the job.
    plan
        Blocks of the passes.
    model
        The model to fit.
    options
        How to fit.
    outputs
        Label outputs that the job writes.
    threads
        Number of threads of a worker. Each works on one block at a time.
    """
    small = source.plan(block_bytes=min(plan.block_bytes, LARGEST))
    blocks = [small.block(i) for i in spread_indices(len(small), BLOCKS_PER_THREAD * max(2, threads))]
    # The first read includes work that is done once in a process, so it gives the memory and no time.
    with _trace_peak() as peak:
        first = read_block(source, blocks[0], packed=True)
        read_work = peak() / max(1, int(np.prod(blocks[0].shape)))
    timings: list[tuple[Block, int, int, float]] = []
    left, lock, started = iter(blocks), Lock(), time.perf_counter()
    del first

    def reading() -> None:
        """Read blocks until the time is up; the first block is read in any case."""
        while not timings or time.perf_counter() - started < READ_SECONDS:
            with lock:
                block = next(left, None)
            if block is None:
                return
            began = time.perf_counter()
            rows = read_block(source, block, packed=True)
            timings.append((block, len(rows), rows.nbytes, time.perf_counter() - began))

    _run_concurrently([reading] * min(threads, len(blocks)))
    cells = sum(int(np.prod(block.shape)) for block, *_ in timings)
    rows = sum(n for _, n, _, _ in timings)
    kept = sum(size for *_, size, _ in timings) / max(1, rows)
    seconds = sum(seconds for *_, seconds in timings) / cells
    computed, failure = None, "all cells that were probed are masked"
    if rows:
        # Blocks with the most rows say most about the work on rows.
        fullest = [block for block, *_ in sorted(timings, key=lambda f: -f[1])]
        few = few_rows(source, plan)
        full_scatter = makes_full_scatter(model, options.preprocess, source.n_features, few=few)
        most = int(PRODUCTS / _products(model, source.n_features, full_scatter))
        parts = [partial_source(source, fullest[i % len(fullest)], most) for i in range(threads)]
        try:
            computed = _probe_work(parts, model, options, outputs, kept, few=few)
        except DataError as error:
            failure = str(error)
    return Probe(len(timings), cells, rows, seconds, read_work, kept, computed, failure)


def spread_indices(n: int, most: int) -> list[int]:
    """Choose numbers below `n`: the middle, both ends, and then between them, so that even a few are far apart.

    Parameters
    ----------
    n
        Number of indices to choose from.
    most
        Largest number of chosen indices.
    """
    order = dict.fromkeys([n // 2, 0, n - 1])
    step = 4
    while len(order) < min(n, most):
        order |= dict.fromkeys(n * odd // step for odd in range(1, step, 2))
        step *= 2
    return list(order)[:most]


def partial_source(source: Source, block: Block, most_rows: int) -> Source:
    """Make a source of the first cells of a block, with at most `PART` bytes of rows.

    Parameters
    ----------
    source
        Data of the job.
    block
        Block from which cells are taken.
    most_rows
        Largest number of cells; at least 2048 are allowed.
    """
    cells = max(1, min(PART // source.row_bytes, max(2048, most_rows)))
    lengths = []
    # The last dimension is filled first, as its cells lie together in chunks.
    for length in reversed(block.shape):
        lengths.append(min(length, cells))
        cells = max(1, cells // length)
    region = {
        d: slice(start, start + n)
        for d, start, n in zip(source.sample_dims, block.start, reversed(lengths), strict=True)
    }
    stored = {
        name: replace(s, indexers={d: p[region[d]] if d in region else p for d, p in s.indexers.items()})
        for name, s in source.stored.items()
    }
    axes = tuple(Axis(n, n) for n in reversed(lengths))
    return replace(
        source, dataset=source.dataset.isel(region), axes=axes, stored=stored, in_memory={}, recipe=None, listings={}
    )


def _probe_work(
    parts: Sequence[Source], model: AnyModel, options: Options, outputs: LabelOutputs, kept: float, *, few: bool
) -> ProbedWork:
    """Run each kind of pass on the parts, one part per thread, and measure time and memory."""
    model = model.probed()
    # Only the work on rows is measured, so params of a quick start are good enough.
    started = {"init": "kmeans++", "restarts": 1, "finalists": 1, "sample_rows": START_ROWS, "fraction": 1.0}
    probe_options = replace(options, fit=options.fit.model_copy(update=started))
    whole = probe_options.preprocess.needs_covariance and not few
    full_scatter = makes_full_scatter(model, probe_options.preprocess, parts[0].n_features, few=few)
    look = SurveyModel(probe_options.fit.seed, START_ROWS, model.k, full_scatter=full_scatter)
    with ExitStack() as stack:
        # Parts run in threads of their own, so the engine must not start further ones.
        engine = stack.enter_context(connect("synchronous"))
        # Tasks of a job run with one BLAS thread, so the measured ones do too.
        stack.enter_context(one_blas_thread())
        runners = [stack.enter_context(_cached_runner(part, engine)) for part in parts]
        # A part may have fewer rows than features where the whole source has more, so `few` is that of the whole.
        if whole and (refusal := scatter_refusal(parts[0].n_features, runners[0].plan, engine, 16 * LARGEST)):
            raise DataError(refusal)
        begun: Initialization = initialize(runners[0], model, probe_options, 16 * LARGEST)
        params = begun.state.best.params
        prepared = [replace(one, preparation=begun.preparation) for one in runners]
        surveys = [partial(one.run, [look.statistics]) for one in runners]
        passes = [partial(one.run, [partial(model.statistics, params)]) for one in prepared]
        labels = [partial(label_blocks, one, model, params, discard, outputs) for one in prepared]
        survey, iteration, labelling = (_stage(runs, runners[0].plan.cells) for runs in (surveys, passes, labels))
        instead = None
        if begun.preparation is not None and begun.preparation.row_bytes <= parts[0].kept_row_bytes:
            instead = kept - parts[0].kept_row_bytes + begun.preparation.row_bytes
        components = None if begun.preparation is None else begun.preparation.p
        # Drawn starts need only the row sample. Starts from labels or given centers may need a pass over all rows.
        first = model.start_needs_pass and not options.fit.draws_starts and not isinstance(options.fit.init, Mapping)
        before = int(options.fit.uses_labels) + int(first)
        margins = has_margins(begun.state.best.statistics)
    return ProbedWork(survey, iteration, labelling, components, instead, before, margins)


@contextmanager
def _cached_runner(part: Source, engine: Any) -> Iterator[PassRunner]:
    """Offer passes over a part as a single block, with memory enough to keep its rows."""
    plan = part.plan(block_bytes=1 << 62)
    with pass_runner(part, plan, engine, memory=64 * (plan.block_bytes + MIB)) as runner:
        yield runner


def _stage(runs: Sequence[Callable[[], Any]], cells: int) -> ProbedStage:
    """Measure memory and time of one kind of pass, where `runs` has one pass for each part."""
    # The first runs compile kernels and bring rows into memory, so that the measured runs need neither.
    runs[0]()
    _run_concurrently(runs)
    with _trace_peak() as peak:
        made = runs[0]()
        work = peak()
    node = statistics_bytes(made.statistics[0])
    times: list[tuple[float, int]] = []
    _run_concurrently([partial(_run_timed, run, times) for run in runs])
    rows = sum(n for _, n in times)
    return ProbedStage(sum(seconds for seconds, _ in times) / max(1, rows), max(0.0, work - node) / cells, node)


def _run_timed(run: Callable[[], Any], times: list[tuple[float, int]]) -> None:
    """Repeat a pass for `STAGE_SECONDS`, and append its seconds and rows to `times`."""
    rows, began = 0, time.perf_counter()
    while True:
        (made,) = run().statistics
        rows += int(made.rows.sum()) if isinstance(made, LabelStatistics) else made.count
        seconds = time.perf_counter() - began
        if seconds >= STAGE_SECONDS:
            break
    times.append((seconds, rows))


def _run_concurrently(functions: Sequence[Callable[[], Any]]) -> None:
    """Run functions in threads of their own, and raise the first error."""
    with ThreadPoolExecutor(len(functions)) as pool:
        for done in [pool.submit(function) for function in functions]:
            done.result()


def _products(model: AnyModel, d: int, full_scatter: bool) -> int:
    """Estimate the products per row: those of the model, or of the covariance in pass 0 where that is more."""
    return max(model.row_products(d), d * d if full_scatter else d)


def statistics_bytes(value: Any) -> int:
    """Add up the sizes of all arrays of some statistics, except those of the row sample, in bytes.

    Parameters
    ----------
    value
        Statistics, or a part of them: dataclasses and tuples of arrays.
    """
    if isinstance(value, np.ndarray):
        return value.nbytes
    if is_dataclass(value):
        names = (f.name for f in fields(value) if f.name not in ("samples", "distinct"))
        return sum(statistics_bytes(getattr(value, name)) for name in names)
    return sum(map(statistics_bytes, value)) if isinstance(value, tuple) else 0


@contextmanager
def _trace_peak() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the peak of memory allocated since the context was entered, in bytes."""
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        if not running:
            tracemalloc.stop()
