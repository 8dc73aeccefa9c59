"""The ledger of a label pass: one small record for every finished block, so that a killed pass goes on from there.

::

    ledger/
      wish.json          digest of what is written; another wish begins a new ledger
      block-00000012     SHA-256 of the rest, then an npz of the block's statistics, nothing pickled

A record is written once the arrays of its block are, in one step. A damaged one counts as none.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clustering.fitting.labelling import LabelStatistics
from clustering.storage.places import Place, children, make_folder, remove, write_bytes, write_json

FOLDER = "ledger"
_WISH = "wish.json"


@dataclass(frozen=True)
class Ledger:
    """Records of finished blocks in a folder; picklable."""

    path: Place

    def find(self, index: int) -> tuple[LabelStatistics] | None:
        """Give the statistics of a finished block, to the last bit; None where it is not finished."""
        try:
            content = self._file(index).read_bytes()
        except FileNotFoundError:
            return None
        digest, record = content[:32], content[32:]
        if hashlib.sha256(record).digest() != digest:
            return None
        try:
            with np.load(io.BytesIO(record), allow_pickle=False) as arrays:
                if int(arrays["index"]) != index:
                    return None
                sums = LabelStatistics(
                    float(arrays["objective"]), arrays["weight"], arrays["rows"], float(arrays["entropy"]),
                    arrays["moves"], arrays["moved"],
                )  # fmt: skip
        except (ValueError, KeyError, OSError, zipfile.BadZipFile):
            return None
        return (sums,)

    def keep(self, index: int, statistics: tuple[LabelStatistics]) -> None:
        """Record that a block is finished, all of it or nothing."""
        buffer = io.BytesIO()
        np.savez(buffer, index=index, **asdict(statistics[0]))
        record = buffer.getvalue()
        write_bytes(self._file(index), hashlib.sha256(record).digest() + record)

    def drop(self, index: int) -> None:
        """Take a record back."""
        self._file(index).unlink(missing_ok=True)

    def __len__(self) -> int:
        return sum(1 for file in children(self.path) if file.name.startswith("block-"))

    def begin(self, wish: Mapping[str, Any]) -> None:
        """Start without records."""
        self.remove()
        make_folder(self.path)
        write_json(self.path / _WISH, {"sha256": _digest(wish)})

    def continues(self, wish: Mapping[str, Any]) -> bool:
        """Tell whether its records are of this wish."""
        try:
            found = json.loads((self.path / _WISH).read_bytes())
        except (OSError, ValueError):
            return False
        return bool(found == {"sha256": _digest(wish)})

    def remove(self) -> None:
        """Remove all of it."""
        remove(self.path)

    def _file(self, index: int) -> Place:
        return self.path / f"block-{index:08d}"


def _digest(wish: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(wish, sort_keys=True).encode()).hexdigest()
