"""The ledger of a label pass: one small record for every finished block.

::

    ledger/
      wish.json              digests of what is written; another wish begins a new ledger
      <start>-<content>      SHA-256 of the rest, then an npz of the block's statistics, nothing pickled

A killed pass goes on from its records. Where the store tells when its chunks change, records are called by what their
blocks hold, and a ledger that stays with its version is where the next run goes on from: what is as it was is neither
read nor made again. Where it does not, they are called by number (``block-00000012``). A record is written once the
arrays of its block are, in one step. A damaged one counts as none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from clustering.data.block_fingerprints import BlockFingerprints
from clustering.fitting.labelling import LabelStatistics
from clustering.models.kmeans import BlockPosition
from clustering.storage.layout import LEDGER, is_written_by_runs
from clustering.storage.paths import StoragePath, children, make_folder, remove_keys, write_bytes, write_json
from clustering.storage.records import pack_statistics, unpack_statistics

FOLDER = LEDGER
_WISH = "wish.json"
OF_LABELS, OF_SCORES, OF_MODEL = "labels", "scores", "model"
"""Names of the statistics that a record may hold: of the label pass, of held-out rows, of the model at its params."""


@dataclass(frozen=True)
class Ledger:
    """Records of finished blocks in a folder; picklable."""

    path: StoragePath
    fingerprints: BlockFingerprints | None = None
    """What records are called by; None: by the number of their block."""
    kinds: Mapping[str, type] = field(default_factory=lambda: {OF_LABELS: LabelStatistics})
    """Classes of the statistics of a record, by name."""

    def load(self, index: int) -> tuple[Any, ...] | None:
        """Give the statistics of a finished block, to the last bit; None where it is not finished."""
        file = self._file(index)
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        record = unpack_statistics(content, self.kinds)
        if record is None or "name" not in record[1] or record[1]["name"].tobytes() != file.name.encode():
            return None
        loaded, more = record
        if self.fingerprints is None:
            return loaded
        if not {"start", "grid"} <= more.keys():
            return None
        before = BlockPosition(tuple(more["start"].tolist()), tuple(more["grid"].tolist()))
        now = self._position(index)
        return loaded if before == now else tuple(_repositioned(statistics, before, now) for statistics in loaded)

    def save(self, index: int, statistics: tuple[Any, ...]) -> None:
        """Record that a block is finished, all of it or nothing."""
        file, position = self._file(index), None if self.fingerprints is None else self._position(index)
        where = {} if position is None else {"start": np.array(position.start), "grid": np.array(position.grid)}
        by_name = dict(zip(self.kinds, statistics, strict=True))
        write_bytes(file, pack_statistics(by_name, name=np.frombuffer(file.name.encode(), np.uint8), **where))

    def drop(self, index: int) -> None:
        """Take a record back."""
        self._file(index).unlink(missing_ok=True)

    def __len__(self) -> int:
        return sum(1 for file in children(self.path) if _is_record(file.name))

    def begin(self, settings: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        """Start without records.

        Parameters
        ----------
        about
            What is told of it to later runs, as JSON.
        """
        self.remove()
        make_folder(self.path)
        write_json(self.path / _WISH, {"sha256": digest(settings), **(about or {})})

    def continues(self, settings: Mapping[str, Any]) -> bool:
        """Tell whether its records are of this wish."""
        return self.about.get("sha256") == digest(settings)

    @property
    def about(self) -> dict[str, Any]:
        """What `begin` was told; nothing where there is no ledger."""
        try:
            content = json.loads((self.path / _WISH).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def changes(self) -> Changes:
        """Compare its records with the blocks of the plan that it has identities of."""
        assert self.fingerprints is not None
        recorded = dict(file.name.split("-") for file in children(self.path) if _is_record(file.name))
        new, changed, starts = [], [], set()
        for index, (start, content) in enumerate(self.fingerprints):
            starts.add(start)
            if start not in recorded:
                new.append(index)
            elif recorded[start] != content:
                changed.append(index)
        return Changes(len(self.fingerprints.plan), tuple(new), tuple(changed), len(set(recorded) - starts))

    def remove(self) -> None:
        """Remove all of it."""
        remove_keys(self.path, lambda key: is_written_by_runs(f"{FOLDER}/{key}"))

    def _file(self, index: int) -> StoragePath:
        return self.path / (f"block-{index:08d}" if self.fingerprints is None else "-".join(self.fingerprints[index]))

    def _position(self, index: int) -> BlockPosition:
        assert self.fingerprints is not None
        plan = self.fingerprints.plan
        return BlockPosition(plan.block(index).start, plan.shape)


class Changes(NamedTuple):
    """What of a store is no longer as a ledger knows it."""

    blocks: int
    """Blocks of the plan."""
    new: tuple[int, ...]
    """Blocks where there was none."""
    changed: tuple[int, ...]
    """Blocks of which something was written anew, or that have grown."""
    gone: int
    """Blocks that are there no more."""

    @property
    def unchanged(self) -> int:
        """Blocks that are as they were."""
        return self.blocks - len(self.new) - len(self.changed)

    @property
    def none(self) -> bool:
        """Whether all is as it was."""
        return not (self.new or self.changed or self.gone)


def _is_record(name: str) -> bool:
    return "-" in name and is_written_by_runs(f"{FOLDER}/{name}")


def _repositioned(statistics: Any, before: BlockPosition, now: BlockPosition) -> Any:
    """Tell where rows are that the statistics of a block name."""
    if not hasattr(statistics, "farthest"):
        return statistics
    return replace(statistics, farthest=statistics.farthest.repositioned(before, now))


def digest(settings: Mapping[str, Any]) -> str:
    """Digest what JSON can hold."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
