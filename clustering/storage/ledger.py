"""The ledger of a label pass: one small record for every finished block.

::

    ledger/
      wish.json              digest of the settings of the pass; other settings begin a new ledger
      <start>-<content>      SHA-256 of the rest, then an npz of the block's statistics, without pickle

A killed pass goes on from its records. Where the store tells when its chunks change, records have the block fingerprint
as their name, and the ledger stays with its version: the next run neither reads nor labels unchanged blocks again.
Otherwise records have the number of the block as their name (``block-00000012``). A record is written in one step,
after the arrays of its block. A damaged record is ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from clustering.data.block_fingerprints import BlockFingerprints
from clustering.fitting.labelling import LabelStatistics
from clustering.models.farthest import BlockPosition
from clustering.storage.layout import LEDGER, is_record, is_written_by_runs
from clustering.storage.paths import StoragePath, children, make_folder, remove_keys, write_bytes, write_json
from clustering.storage.records import pack_statistics, unpack_statistics

FOLDER = LEDGER
_WISH = "wish.json"
OF_LABELS, OF_SCORES, OF_MODEL = "labels", "scores", "model"
"""Names of the statistics that a record may hold: of the label pass, of held-out rows, and of the model."""


@dataclass(frozen=True)
class Ledger:
    """Records of finished blocks in a folder; picklable."""

    path: StoragePath
    fingerprints: BlockFingerprints | None = None
    """Block fingerprints that name the records; None: records are named by the number of their block."""
    kinds: Mapping[str, type] = field(default_factory=lambda: {OF_LABELS: LabelStatistics})
    """Classes of the statistics of a record, by name."""

    def load(self, index: int) -> tuple[Any, ...] | None:
        """Return the statistics of a finished block, to the last bit; None where it is not finished.

        Parameters
        ----------
        index
            Number of the block in the plan.
        """
        file = self._file(index)
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        record = unpack_statistics(content, self.kinds)
        # A record that was copied to the name of another block passes its checksum, so it also holds its own name.
        if record is None or "name" not in record[1] or record[1]["name"].tobytes() != file.name.encode():
            return None
        loaded, more = record
        if self.fingerprints is None:
            return loaded
        if not {"start", "grid"} <= more.keys():
            return None
        # The block may lie elsewhere in the plan of today, and its farthest rows name their positions.
        before = BlockPosition(tuple(more["start"].tolist()), tuple(more["grid"].tolist()))
        now = self._position(index)
        return loaded if before == now else tuple(statistics.repositioned(before, now) for statistics in loaded)

    def save(self, index: int, statistics: tuple[Any, ...]) -> None:
        """Record in one step that a block is finished.

        Parameters
        ----------
        index
            Number of the block in the plan.
        statistics
            Statistics of the block, in the order of `kinds`.
        """
        file, position = self._file(index), None if self.fingerprints is None else self._position(index)
        where = {} if position is None else {"start": np.array(position.start), "grid": np.array(position.grid)}
        by_name = dict(zip(self.kinds, statistics, strict=True))
        content = pack_statistics(by_name, name=np.frombuffer(file.name.encode(), np.uint8), **where)
        # Like the labels of its block, a record is synced before the switch. One that a power cut damages is ignored.
        write_bytes(file, content, synced=False)

    def drop(self, index: int) -> None:
        """Remove a record.

        Parameters
        ----------
        index
            Number of the block in the plan.
        """
        self._file(index).unlink(missing_ok=True)

    def __len__(self) -> int:
        return sum(1 for file in children(self.path) if is_record(file.name))

    def begin(self, settings: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        """Remove all records, and begin a ledger for these settings.

        Parameters
        ----------
        settings
            All that decides the files of the pass, as JSON.
        about
            Facts that later runs read from `about`, as JSON.
        """
        self.remove()
        make_folder(self.path)
        write_json(self.path / _WISH, {"sha256": digest(settings), **(about or {})})

    def continues(self, settings: Mapping[str, Any]) -> bool:
        """Return whether the records belong to a pass with these settings.

        Parameters
        ----------
        settings
            All that decides the files of the pass, as JSON.
        """
        return self.about.get("sha256") == digest(settings)

    @property
    def about(self) -> dict[str, Any]:
        """Facts that `begin` wrote; empty where there is no ledger."""
        try:
            content = json.loads((self.path / _WISH).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def changes(self) -> Changes:
        """Compare the records with the blocks of the plan of the fingerprints."""
        assert self.fingerprints is not None
        recorded = dict(file.name.split("-") for file in children(self.path) if is_record(file.name))
        new, changed, starts = [], [], set()
        for index, (start, content) in enumerate(self.fingerprints):
            starts.add(start)
            if start not in recorded:
                new.append(index)
            elif recorded[start] != content:
                changed.append(index)
        return Changes(len(self.fingerprints.plan), tuple(new), tuple(changed), len(set(recorded) - starts))

    def tidy(self) -> None:
        """Remove the temporary files of a killed run; in a bucket there are none."""
        remove_keys(self.path, lambda key: key.startswith(".") and is_written_by_runs(f"{FOLDER}/{key}"))

    def remove(self) -> None:
        """Remove the ledger."""
        remove_keys(self.path, lambda key: is_written_by_runs(f"{FOLDER}/{key}"))

    def _file(self, index: int) -> StoragePath:
        return self.path / (f"block-{index:08d}" if self.fingerprints is None else "-".join(self.fingerprints[index]))

    def _position(self, index: int) -> BlockPosition:
        assert self.fingerprints is not None
        plan = self.fingerprints.plan
        return BlockPosition(plan.block(index).start, plan.shape)


class Changes(NamedTuple):
    """Blocks that differ between a ledger and the store of today."""

    blocks: int
    """Number of blocks of the plan."""
    new: tuple[int, ...]
    """Blocks that have no record at their place."""
    changed: tuple[int, ...]
    """Blocks that were written anew in part or whole, or have grown."""
    gone: int
    """Number of records whose block no longer exists."""

    @property
    def unchanged(self) -> int:
        """Number of blocks that did not change."""
        return self.blocks - len(self.new) - len(self.changed)

    @property
    def none(self) -> bool:
        """Whether nothing changed."""
        return not (self.new or self.changed or self.gone)


def digest(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON, in hexadecimal.

    Parameters
    ----------
    settings
        Any JSON object.
    """
    # Sorted keys make the digest independent of the order of the settings.
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
