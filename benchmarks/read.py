"""How fast a pass reads: with almost no compute, beside the best plain read of the same store on the same threads.

The plain reads are zarr's own codec pipeline and, on a local disk, that of zarrs; each in blocks of one and of several
chunks. Pairs alternate, and the medians of the ratios count.

    python -m benchmarks.read --gigabytes 2
    python -m benchmarks.read --gigabytes 0.5 --s3
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import StorePath

from clustering.data.access import open_source
from clustering.data.codecs import accelerated
from clustering.data.rows import Rows
from clustering.data.source import Source
from clustering.data.stores import connect as connect_store
from clustering.execution.dask_clusters import available_processors
from clustering.execution.engine import connect
from clustering.execution.passes import pass_runner

RESULTS = Path(__file__).parent / "results"
MEMORY = 2 << 30
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """A store of float32 or packed values."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dims: tuple[str, ...]
    feature: str
    dtype: str = "f4"
    shards: tuple[int, ...] | None = None


def layouts(gigabytes: float) -> dict[str, Layout]:
    """List stores of about this size."""
    rows = int(gigabytes * 1e9 / 256)
    side = int((gigabytes * 1e9 / 64) ** 0.5) // 1024 * 1024 or 1024
    return {
        "rows × 64 float32": Layout((rows, 64), (65_536, 64), ("row", "feature"), "feature"),
        "64 bands first, int8, sharded": Layout(
            (64, side, side), (64, 128, 128), ("band", "y", "x"), "band", "i1", (64, 512, 512)
        ),
        "depth in the middle, int16": Layout(
            (int(gigabytes * 1e9 / (50 * 180 * 360 * 2)) // 12 * 12 or 12, 50, 180, 360), (12, 50, 90, 90),
            ("time", "depth", "lat", "lon"), "depth", "i2",
        ),
    }  # fmt: skip


def fill(array: zarr.Array[Any], layout: Layout) -> None:
    """Write values that compress to about a half, one chunk or shard at a time."""
    rng = np.random.default_rng(0)
    unit = layout.shards or layout.chunks
    for start in np.ndindex(*(-(-n // u) for n, u in zip(layout.shape, unit, strict=True))):
        region = tuple(slice(i * u, min(n, (i + 1) * u)) for i, u, n in zip(start, unit, layout.shape, strict=True))
        shape = tuple(s.stop - s.start for s in region)
        noise = rng.standard_normal(shape, np.float32)
        array[region] = np.round(noise, 2) if layout.dtype == "f4" else (noise * 20).astype(layout.dtype)


@dataclass(frozen=True)
class Counted:
    """Number of rows, which is the cheapest statistic of a block."""

    rows: int

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.rows + other.rows)


def count(rows: Rows) -> Counted:
    return Counted(len(rows))


def a_pass(source: Source, threads: int) -> float:
    """Seconds of a pass that keeps nothing."""
    with (
        connect("threads", threads) as engine,
        pass_runner(source, source.plan(memory=MEMORY), engine, memory=MEMORY, keep=False) as inside,
    ):
        passed = inside.run([count])
    assert passed.statistics[0].rows == np.prod(source.shape)
    return passed.seconds


def plain(array: zarr.Array[Any], threads: int, joined: int) -> float:
    """Seconds of a read of all chunks, or shards, so many at a time along the first dimension that is cut."""
    unit = list(array.shards or array.chunks)
    cut = next(i for i, (n, u) in enumerate(zip(array.shape, unit, strict=True)) if n > u)
    unit[cut] *= joined
    starts = list(np.ndindex(*(-(-n // u) for n, u in zip(array.shape, unit, strict=True))))

    def read(place: tuple[int, ...]) -> int:
        return array[tuple(slice(i * u, (i + 1) * u) for i, u in zip(place, unit, strict=True))].size

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(read, starts)) == array.size
    return time.perf_counter() - began


@contextmanager
def bucket() -> Iterator[str]:
    """Start a real S3 server on loopback, with one bucket."""
    import boto3

    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(CREDENTIALS)
    server = subprocess.Popen(
        [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        endpoint = f"http://127.0.0.1:{port}"
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bench")
        yield endpoint
    finally:
        server.terminate()
        server.wait()


def measure(name: str, layout: Layout, threads: int, repeats: int, local: Path, endpoint: str | None) -> list[str]:
    """Compare on one store; a row of the table."""
    options: dict[str, Any] = {}
    if endpoint is None:
        url, writable = str(local / "store.zarr"), str(local / "store.zarr")
    else:
        from obstore.store import S3Store
        from zarr.storage import ObjectStore

        url, options = "s3://bench/store.zarr", {"endpoint_url": endpoint}
        client = {"allow_http": True}
        store = S3Store("bench", prefix="store.zarr", endpoint=endpoint, region="us-east-1", client_options=client)
        writable = ObjectStore(store)  # type: ignore[assignment]
    group = zarr.create_group(writable, overwrite=True)
    array = group.create_array(
        "values", shape=layout.shape, chunks=layout.chunks, shards=layout.shards, dtype=layout.dtype,
        dimension_names=layout.dims,
    )  # fmt: skip
    fill(array, layout)
    source = open_source(url, feature_dims=[layout.feature], missing_chunks="fill", storage_options=options)
    opened = zarr.open_array(StorePath(connect_store(url, options), "values"), mode="r")
    ways: dict[str, Callable[[], float]] = {}
    for joined in (1, 4):
        ways[f"zarr × {joined}"] = lambda joined=joined: plain(opened, threads, joined)
        if endpoint is None:
            fast = accelerated(opened)
            ways[f"zarrs × {joined}"] = lambda joined=joined, fast=fast: plain(fast, threads, joined)
    ways["ours"] = lambda: a_pass(source, threads)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats + 1):
        for way, run in ways.items():
            took = run()
            if repeat:
                seconds[way].append(took)
    medians = {way: statistics.median(taken) for way, taken in seconds.items()}
    best = min((way for way in ways if way != "ours"), key=medians.__getitem__)
    ratio = statistics.median(a / b for a, b in zip(seconds[best], seconds["ours"], strict=True))
    size = np.prod(layout.shape) * np.dtype(layout.dtype).itemsize / 1e6
    speeds = ", ".join(f"{way} {size / medians[way]:,.0f}" for way in ways)
    return [name, "loopback S3" if endpoint else "local disk", f"{size:,.0f}", best, f"{ratio:.2f}", speeds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=available_processors())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--s3", action="store_true", help="a real S3 server on loopback instead of the local disk")
    chosen = parser.parse_args()
    head = ["store", "where", "MB as stored", "best plain read", "ours / best", "MB/s"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, layout in layouts(chosen.gigabytes).items():
        with tempfile.TemporaryDirectory() as folder:
            if chosen.s3:
                with bucket() as endpoint:
                    row = measure(name, layout, chosen.threads, chosen.repeats, Path(folder), endpoint)
            else:
                row = measure(name, layout, chosen.threads, chosen.repeats, Path(folder), None)
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"read-{'s3' if chosen.s3 else 'local'}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
