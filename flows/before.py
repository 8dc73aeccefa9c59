"""The version that is current when a run begins: its model, its labels, and what it knows of its blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from clustering.data.identity import Identities
from clustering.data.source import Source
from clustering.errors import OutputError, reason
from clustering.execution.held_out import HeldOut
from clustering.fitting.comparison import comparison
from clustering.fitting.fitted import Fitted
from clustering.fitting.labelling import LabelStatistics
from clustering.fitting.scoring import Scores
from clustering.storage.earlier import Earlier, earlier_labels
from clustering.storage.label_pass import LABELS, Kept
from clustering.storage.ledger import FOLDER, OF_MODEL, Changes, Ledger
from clustering.storage.model import load_model
from clustering.storage.places import Place


@dataclass(frozen=True, eq=False)
class Before:
    """A version that is there already; what is asked of it is read once."""

    run: str
    folder: Place
    source: Source
    """The source of today."""
    identities: Identities | None = None
    """Of the blocks of today; None where the store does not tell when its chunks change, or nobody asks."""

    @cached_property
    def fitted(self) -> Fitted:
        """Its model.

        Raises
        ------
        OutputError
            If it cannot be read.
        """
        try:
            return load_model(self.folder)[0]
        except MemoryError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error

    @cached_property
    def labels(self) -> Earlier | None:
        """Its labels, on the grid of today; None where it has none on these sample dimensions.

        Raises
        ------
        OutputError
            If they cannot be read.
        """
        try:
            return earlier_labels(self.folder / LABELS, self.source)
        except MemoryError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error

    @cached_property
    def about(self) -> Mapping[str, Any]:
        """What its ledger tells of itself; nothing where it left none."""
        return Ledger(self.folder / FOLDER).about

    @cached_property
    def changes(self) -> Changes | None:
        """What is no longer as it knew it; None where nothing is known of its blocks."""
        return None if self.identities is None or not self.about else self._ledger.changes()

    @property
    def kept(self) -> Kept | None:
        """What may be taken over of its labels, block by block; None where nothing is known of its blocks."""
        return None if self.changes is None else Kept(self._ledger, str(self.about.get("told")))

    def repeated_by(self, folder: Place) -> bool:
        """Whether what is in the folder of a new version tells the same of the same blocks."""
        told = Ledger(folder / FOLDER).about.get("told")
        return told is not None and told == self.about.get("told") and self.changes is not None and self.changes.none

    @property
    def _ledger(self) -> Ledger:
        return Ledger(self.folder / FOLDER, self.identities)

    def statistics(self, model: Any, held_out: HeldOut | None) -> Ledger | None:
        """Give the statistics of the model that it kept of its blocks; None where it kept none, or of other rows."""
        every = None if held_out is None else held_out.every
        if self.changes is None or not self.about.get("statistics") or self.about.get("held_out") != every:
            return None
        return replace(self._ledger, kinds={OF_MODEL: model.statistics_type})

    def compare(self, fitted: Fitted, sums: LabelStatistics | None, scores: Scores | None) -> dict[str, Any]:
        """Tell what a new version changes, see `clustering.fitting.comparison`."""
        held_out = None if scores is None else scores.told(fitted.model)
        return {**comparison(self.run, self.fitted, fitted, sums), "held_out": held_out}

    def _unreadable(self, error: Exception) -> OutputError:
        return OutputError(
            f"the version before, of run {self.run}, cannot be read, and labels keep its ids ({reason(error)}); "
            f"restore {self.folder}, or name another output.store"
        )
