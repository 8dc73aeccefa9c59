"""Runs the shipped configs on other stores and with other sizes, and counts the requests to stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from zarr.storage import LocalStore

from clustering.config import JobConfig
from clustering.data import codecs
from clustering_flows.loading import load_config

CONFIGS = Path(__file__).parents[2] / "configs"


def shipped(name: str, store: Path, out: Path, *overrides: str) -> JobConfig:
    """A config of the product, on another store."""
    places = (f"source.store={store}", f"output.store={out}", "output.report=false")
    return load_config(CONFIGS / f"{name}.yaml", [*places, *overrides])


class Quiet:
    """A watcher that keeps what a job says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    warn = say

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        return work()

    def working(self, engine: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        pass

    def passed(self, record: Any, rule: Any, reads: float) -> None:
        pass

    def finished(self, record: Mapping[str, Any], pictures: Sequence[Any]) -> None:
        pass


@dataclass
class Requests:
    """What a job asks of stores on disk, by the step of the job."""

    step: str = "before"
    got: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    """Key and range of bytes, with how often."""
    put: Counter[str] = field(default_factory=Counter)
    """Keys written."""

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Run a step of a job."""
        self.step = name
        return work()

    def asked(self, step: str, part: str) -> Counter[tuple[str, str]]:
        """Requests of a step for keys that contain this."""
        return Counter({key: n for key, n in self.got.get(step, {}).items() if part in key[0]})


@contextmanager
def listening() -> Iterator[Requests]:
    """Count requests. The codecs in Rust are switched off, because they read the disk themselves."""
    heard = Requests()
    get, put = LocalStore.get, LocalStore.set

    async def count_get(self: LocalStore, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        heard.got.setdefault(heard.step, Counter())[f"{self.root}/{key}", repr(byte_range)] += 1
        return await get(self, key, prototype, byte_range)

    async def count_put(self: LocalStore, key: str, value: Any) -> None:
        heard.put[f"{self.root}/{key}"] += 1
        await put(self, key, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codecs, "rust", lambda: None)
        patch.setattr(LocalStore, "get", count_get)
        patch.setattr(LocalStore, "set", count_put)
        yield heard
