"""A result is a measurement beside its peers and its target; results of a benchmark are stored as one JSON file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Literal

from benchmarks import PARTS, blas

RESULTS = Path(__file__).parent / "results"
PEERS = Path(__file__).parents[1] / ".venv-peers"
PACKAGES = (
    "numpy", "scipy", "numba", "zarr", "dask", "scikit-learn", "scikit-learn-intelex", "faiss-cpu", "dask-ml",
    "scikit-image",
)  # fmt: skip
"""Packages whose versions matter to a result."""


@dataclass(frozen=True)
class Result:
    """One measurement. Less is better, for us and for peers: seconds, bytes, reads or costs."""

    bar: str
    """What is compared. All cases of a bar have the same target."""
    case: str
    ours: float
    unit: str
    peers: Mapping[str, float]
    """Of each peer, or of the bound or plan that ours is compared with; infinite where a peer never gets there."""
    sign: Literal["≥", "≤"]
    """≥: the ratio says how many times better we are; ≤: how many times more we take."""
    target: float | None = None
    """What the ratio has to be; None for a result that is only shown."""

    @property
    def ratio(self) -> float:
        """The best of the peers over ours, or ours over the best of the peers."""
        best = min(self.peers.values())
        return best / self.ours if self.sign == "≥" else self.ours / best

    @property
    def margin(self) -> float:
        """How many times better than its target the ratio is; below 1, the target is missed."""
        if self.target is None:
            return float("nan")
        if self.sign == "≥":
            return self.ratio / self.target
        # A count may be zero, and there is nothing better.
        return self.target / self.ratio if self.ratio else float("inf")

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        return None if self.target is None else self.margin >= 1


def save(name: str, results: Iterable[Result], **facts: Any) -> None:
    """Write the results of a benchmark to ``<name>.json``, with the machine and the versions.

    Parameters
    ----------
    name
        Name of the part, as `PARTS` has it.
    results
        Results, in the order in which they are shown.
    **facts
        Other numbers of the benchmark, kept beside the results.
    """
    lines = [{**asdict(result), "ratio": result.ratio, "met": result.met} for result in results]
    content = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "results": lines, **facts}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def load(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Read the stored files of all benchmarks, in the order of `PARTS`; others follow by name."""
    order = {name: i for i, name in enumerate(PARTS)}
    paths = sorted(folder.glob("*.json"), key=lambda path: (order.get(path.stem, len(order)), path.stem))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def stored_results(files: Mapping[str, Mapping[str, Any]]) -> Iterator[Result]:
    """Return the results in stored files."""
    names = [field.name for field in fields(Result)]
    for content in files.values():
        for line in content["results"]:
            yield Result(**{name: line[name] for name in names})


def machine() -> dict[str, Any]:
    """Describe the processor, the kernels of BLAS and the versions, and nothing that names the machine."""
    # Peers have an environment of their own.
    peers = PEERS.glob("lib/python*/site-packages")
    installed = {d.name.lower(): d.version for d in distributions(path=[str(path) for path in peers])}
    installed |= {d.name.lower(): d.version for d in distributions()}
    return {
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "blas": blas.kernels(),
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in PACKAGES if name in installed},
    }


def processor() -> str:
    """Return the name of the processor."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
