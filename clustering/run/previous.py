"""The previous version, which was current when a run began: its model, its labels, and its ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from clustering.data.block_fingerprints import BlockFingerprints
from clustering.data.source import Source
from clustering.errors import OutputError, reason
from clustering.execution.held_out import HeldOut
from clustering.fitting.comparison import comparison
from clustering.fitting.fitted_model import FittedModel
from clustering.fitting.labelling import LabelStatistics
from clustering.fitting.scoring import HeldOutScores
from clustering.models.model import AnyModel
from clustering.storage.label_pass import LABELS, ReusableLabels
from clustering.storage.ledger import FOLDER, OF_MODEL, Changes, Ledger
from clustering.storage.model import load_model
from clustering.storage.paths import StoragePath
from clustering.storage.previous_labels import PreviousLabels, open_previous_labels


@dataclass(frozen=True, eq=False)
class PreviousVersion:
    """The previous version of an output. Its parts are read when first used, and kept."""

    run: str
    folder: StoragePath
    source: Source
    """The source in its present state."""
    fingerprints: BlockFingerprints | None = None
    """Fingerprints of the present blocks; None where the store cannot show changes of chunks, or they are not used."""

    @cached_property
    def fitted(self) -> FittedModel:
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
    def labels(self) -> PreviousLabels | None:
        """Its labels on the present grid; None where it has none on these sample dimensions.

        Raises
        ------
        OutputError
            If they cannot be read.
        """
        try:
            return open_previous_labels(self.folder / LABELS, self.source)
        except MemoryError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error

    @cached_property
    def about(self) -> Mapping[str, Any]:
        """Metadata of its ledger; empty where it left no ledger."""
        return Ledger(self.folder / FOLDER).about

    @cached_property
    def changes(self) -> Changes | None:
        """Blocks that are new, changed or gone since; None where it has no ledger to compare with."""
        return None if self.fingerprints is None or not self.about else self._ledger.changes()

    @property
    def reusable_labels(self) -> ReusableLabels | None:
        """Its labels of unchanged blocks, which need not be made again; None where it has no ledger."""
        return None if self.changes is None else ReusableLabels(self._ledger, str(self.about.get("told")))

    def is_repeated_by(self, folder: StoragePath) -> bool:
        """Return whether a new version has the same label outputs of the same blocks, so that it repeats this one.

        Parameters
        ----------
        folder
            Folder of the new version.
        """
        digest = Ledger(folder / FOLDER).about.get("told")
        return (
            digest is not None and digest == self.about.get("told") and self.changes is not None and self.changes.none
        )

    @property
    def _ledger(self) -> Ledger:
        return Ledger(self.folder / FOLDER, self.fingerprints)

    def statistics(self, model: AnyModel, held_out: HeldOut | None) -> Ledger | None:
        """Return the statistics that it kept of its blocks; None where it kept none, or held out other blocks.

        Parameters
        ----------
        model
            The model.
        held_out
            Rule for held-out blocks; None where there are none.
        """
        # With other held-out blocks, the statistics are sums over other rows.
        every = None if held_out is None else held_out.every
        if self.changes is None or not self.about.get("statistics") or self.about.get("held_out") != every:
            return None
        # Records also hold sums of labels, which the first pass of a fit does not use.
        return replace(self._ledger, kinds={OF_MODEL: model.statistics_type})

    def compare(
        self, fitted: FittedModel, sums: LabelStatistics | None, scores: HeldOutScores | None
    ) -> dict[str, Any]:
        """Compare a new version with this one; see `clustering.fitting.comparison`.

        Parameters
        ----------
        fitted
            Fitted model of the new version.
        sums
            Statistics of its label pass; None where there was none.
        scores
            Scores on held-out rows; None where there are none.
        """
        held_out = None if scores is None else scores.to_json(fitted.model)
        return {**comparison(self.run, self.fitted, fitted, sums), "held_out": held_out}

    def _unreadable(self, error: Exception) -> OutputError:
        return OutputError(
            f"the version before, of run {self.run}, cannot be read, and labels keep its ids ({reason(error)}); "
            f"restore {self.folder}, or name another output.store"
        )
