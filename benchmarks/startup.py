"""The time before and around the work: imports, the first fit of a process, a small job, and the first run ever.

Each measurement is of a process of its own, and reports the wall time and the processor time. Kernels are kept in a
folder that is empty for a first run, and full otherwise. Modules are compiled to bytecode before anything is measured,
as an installation does it.

    python -m benchmarks.startup [--rounds 5]
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from benchmarks.results import RESULTS, Result, save

ROOT = Path(__file__).parents[1]
IMPORT = """
import time
began = time.perf_counter()
import clustering
print(time.perf_counter() - began)
"""
FIT = """
import time
import numpy as np
import clustering as c
rows = np.random.default_rng(0).standard_normal((10_000, 16)).astype(np.float32)
began = time.perf_counter()
c.fit(rows, c.KMeans(8))
print(time.perf_counter() - began)
"""
COMMAND = "from clustering_flows.cli import main; main()"


class Measurement(NamedTuple):
    """Seconds of a process."""

    wall: float
    """Of the whole process, or of the statements that it timed itself."""
    cpu: float
    """Of all processors, for the whole process."""


def measure(arguments: list[str], kernels: str, folder: str, *, inside: bool) -> Measurement:
    """Run a process; where `inside`, the last line that it prints is the wall time."""
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": kernels,
        "PREFECT_HOME": f"{folder}/prefect",
        "PYTHONPATH": str(ROOT),
    }
    # Without a configured API, a command runs the job by itself.
    for name in ("PYTHONDONTWRITEBYTECODE", "PREFECT_API_URL"):
        environment.pop(name, None)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measurement(float(done.stdout.splitlines()[-1]) if inside else wall, cpu)


def write_jobs(folder: str) -> None:
    """Write 1,000 rows of 16 features, and jobs that cluster them with a report and under Prefect."""
    array = zarr.create_array(f"{folder}/rows", shape=(1_000, 16), chunks=(1_000, 16), dtype="f4")
    array[:] = np.random.default_rng(0).standard_normal(array.shape).astype(np.float32)
    job = {"source": {"store": "rows"}, "model": {"k": 8}, "output": {"store": "out", "keep": 1}}
    # JSON is YAML.
    Path(f"{folder}/job.yaml").write_text(json.dumps(job))


def command(number: int, *more: str) -> list[str]:
    """Name the arguments of a job with an output of its own, as a finished output is compared with the next run."""
    return ["-c", COMMAND, "fit", "job.yaml", "--set", f"output.store=out-{number}", *more]


class Case(NamedTuple):
    """What is measured, and how long it may take."""

    name: str
    arguments: Any
    """Arguments of a process, by the number of the round."""
    inside: bool
    first_ever: bool
    target: float | None
    """Seconds; None for a figure that is only shown."""


CASES = (
    Case("`import clustering`", lambda _: ["-c", IMPORT], True, False, 0.1),
    Case("first `c.fit` of a process, 10,000 × 16", lambda _: ["-c", FIT], True, False, 0.7),
    Case("`clustering --help`, whole process", lambda _: ["-c", COMMAND, "--help"], False, False, None),
    Case("`clustering fit`, 1,000 × 16, whole process", lambda i: command(i, "--no-prefect"), False, False, 2.0),
    Case("the same as a Prefect flow", lambda i: command(1000 + i, "--prefect"), False, False, None),
    Case("first `c.fit` ever, no kernels yet", lambda _: ["-c", FIT], True, True, None),
    Case("first `clustering fit` ever", lambda i: command(2000 + i, "--no-prefect"), False, True, None),
)
COMPILING = 6.0
"""Seconds that the first fit ever may take longer than a first fit with compiled kernels."""


def row(name: str, wall: float, cpu: float | None, target: float | None) -> str:
    """Write a row of the table, which says where a target is missed."""
    limit = "" if target is None else f"{target:g}" + (" **missed**" if wall > target else "")
    return f"| {name} | {wall:.3f} | {'' if cpu is None else f'{cpu:.2f}'} | {limit} |"


def records(facts: list[dict[str, Any]]) -> list[Result]:
    """Compare with the limits."""
    return [
        Result("start and small jobs", fact["name"], fact["wall"], "s", {"limit": fact["target"]}, "≤", 1.0)
        for fact in facts
        if fact["target"] is not None
    ]


def measured(rounds: int) -> list[dict[str, Any]]:
    """Measure all cases in turns, and return the name, the medians and the target of each."""
    for package in ("clustering", "flows/clustering_flows"):
        compileall.compile_dir(str(ROOT / package), quiet=1)
    measurements: list[list[Measurement]] = [[] for _ in CASES]
    with tempfile.TemporaryDirectory() as folder:
        write_jobs(folder)
        full = f"{folder}/kernels"
        measure(["-c", FIT], full, folder, inside=True)
        measure(command(-1, "--no-prefect"), full, folder, inside=False)
        # A round measures each case once, so that a busy minute of the machine slows all of them down.
        for i in range(rounds):
            for number, case in enumerate(CASES):
                kernels = f"{folder}/kernels-{i}-{number}" if case.first_ever else full
                measurements[number].append(measure(case.arguments(i), kernels, folder, inside=case.inside))
    medians = [Measurement(*map(statistics.median, zip(*group, strict=True))) for group in measurements]
    facts = [
        {"name": case.name, **median._asdict(), "target": case.target}
        for case, median in zip(CASES, medians, strict=True)
    ]
    first_ever, first = (
        next(median.wall for case, median in zip(CASES, medians, strict=True) if case.name.startswith(name))
        for name in ("first `c.fit` ever", "first `c.fit` of")
    )
    facts.append(
        {"name": "compiling, in the first `c.fit` ever", "wall": first_ever - first, "cpu": None, "target": COMPILING}
    )
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    RESULTS.mkdir(parents=True, exist_ok=True)
    facts = measured(rounds)
    lines = ["| | s | processor s | at most |", "|---|---|---|---|", *(row(**fact) for fact in facts)]
    text = f"Medians of {rounds} rounds on {os.cpu_count()} processors.\n\n" + "\n".join(lines) + "\n"
    print(text, end="")
    (RESULTS / "startup.md").write_text(text)
    save("startup", records(facts), measurements=facts)


if __name__ == "__main__":
    main()
