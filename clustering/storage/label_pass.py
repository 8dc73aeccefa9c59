"""The label pass to disk: it continues after a kill, reuses unchanged blocks, and checks that all files are there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from clustering.data.block_fingerprints import BlockFingerprints
from clustering.data.plan import Plan
from clustering.data.rows import Rows
from clustering.errors import OutputError
from clustering.execution.held_out import HeldOut
from clustering.execution.passes import PassResult, PassRunner
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.fitted_model import FittedModel
from clustering.fitting.labelling import LabelOutputs, LabelStatistics, label_blocks
from clustering.fitting.scoring import HeldOutScorer, HeldOutScores
from clustering.models.model import AnyModel, Params, Statistics
from clustering.models.param_arrays import params_to_arrays
from clustering.storage.labels import CHANGED, LabelWriter, cautions_of, create_labels, open_writer
from clustering.storage.labels import NAME as LABELS_NAME
from clustering.storage.ledger import FOLDER, OF_LABELS, OF_MODEL, OF_SCORES, Ledger, digest
from clustering.storage.paths import StoragePath, translating_write_errors
from clustering.storage.previous_labels import PreviousLabels

LABELS = "labels.zarr"
RESUMABLE = (LABELS, FOLDER)
"""Names in a staging folder from which a killed label pass goes on."""


class ReusableLabels(NamedTuple):
    """Labels of an earlier version that today's unchanged blocks can reuse, found by block fingerprints."""

    ledger: Ledger
    """Ledger of the earlier version, with the fingerprints of today's blocks."""
    outputs_digest: str
    """Digest of the earlier label outputs, from `outputs_digest`."""


@dataclass(frozen=True)
class _ReusingRecords:
    """Block records of a pass that looks into the earlier version for blocks that it has not finished itself."""

    own: Ledger
    reusable: Ledger
    previous: PreviousLabels
    writer: LabelWriter
    plan: Plan

    def load(self, index: int) -> tuple[Any, ...] | None:
        """Return the statistics of a block; copy labels and record of an unchanged block from the earlier version.

        Parameters
        ----------
        index
            Number of the block in the plan.

        Returns
        -------
        tuple or None
            Statistics of the block; None where it must be worked on.
        """
        recorded = self.own.load(index)
        if recorded is None and (recorded := self.reusable.load(index)) is not None:
            recorded = tuple(
                made.as_unchanged() if isinstance(made, (LabelStatistics, HeldOutScores)) else made for made in recorded
            )
            region = self.plan.block(index).slices
            arrays = {name: self.previous.read(name, region) for name in self.writer.names if name != CHANGED}
            # The rows are unchanged and so are the labels: 0 everywhere, and −1 where masked.
            if CHANGED in self.writer.names:
                arrays[CHANGED] = np.where(arrays[LABELS_NAME] < 0, np.int8(-1), np.int8(0))
            self.writer(region, arrays)
            # The record comes after the labels, so that every record stands for whole files.
            self.own.save(index, recorded)
        return recorded

    def save(self, index: int, statistics: tuple[Any, ...]) -> None:
        """Record that a block is finished.

        Parameters
        ----------
        index
            Number of the block in the plan.
        statistics
            Statistics of the block, in the order of the kinds of the ledger.
        """
        self.own.save(index, statistics)


def outputs_digest(fitted: FittedModel, outputs: LabelOutputs) -> str:
    """Digest all that decides the label outputs of a row, apart from the run.

    Parameters
    ----------
    fitted
        Fitted model to label with.
    outputs
        Label outputs to write for each row; `changed` does not count, because it depends on the version before.
    """
    preparation = fitted.preparation
    arrays = {} if preparation is None else {n: getattr(preparation, n) for n in ("offset", "matrix")}
    unit_norm = preparation is not None and preparation.unit_norm
    return digest(
        {
            "model": repr(fitted.model),
            "params": _digest({**params_to_arrays(fitted.params), **arrays}),
            "unit_norm": unit_norm,
            "ids": fitted.ids.tolist(),
            "wanted": outputs.model_copy(update={"changed": False}).model_dump(),
        }
    )


def write_labels(
    runner: PassRunner,
    fitted: FittedModel,
    folder: StoragePath,
    attributes: Mapping[str, Any],
    outputs: LabelOutputs,
    on_resume: Callable[[int], None] | None = None,
    clusters: ClusterNames | None = None,
    previous: PreviousLabels | None = None,
    *,
    fingerprints: BlockFingerprints | None = None,
    statistics: bool = False,
    held_out: HeldOut | None = None,
    scoring: HeldOutScorer | None = None,
    reusable: ReusableLabels | None = None,
    on_caution: Callable[[str], None] | None = None,
) -> PassResult:
    """Label every row, and write the label outputs to ``labels.zarr`` of a staging folder.

    Blocks that an earlier attempt with the same settings finished in this folder are neither read nor labelled again,
    and neither are unchanged blocks of an earlier version. Their statistics are added at their places in the tree, so
    that the result has the same bits.

    Parameters
    ----------
    runner
        Runs the pass; holds the source and the plan.
    fitted
        Fitted model to label with.
    folder
        Staging folder of the run.
    attributes
        JSON attributes of ``labels.zarr``; they name the run, the config and the source.
    outputs
        Label outputs to write for each row.
    on_resume
        Called with the number of finished blocks, if there are any.
    clusters
        Ids, names and colours of the clusters; ids of the model where None.
    previous
        Labels to compare with; None where there are none.
    fingerprints
        Block fingerprints of the plan, by which later runs find the records; None where the store cannot tell.
    statistics
        Whether the ledger also keeps the statistics of the model, from which a later fit goes on.
    held_out
        Held-out blocks, whose rows do not enter those statistics.
    scoring
        Scores this version and the one before on the held-out blocks.
    reusable
        Which of the previous labels may be reused; None for none.
    on_caution
        Called with a line for each coordinate that could not be written beside the labels.

    Returns
    -------
    PassResult
        One `LabelStatistics` of all rows, then the `HeldOutScores` where there is `scoring`, then the statistics of the
        model where they are kept. The read stats are those of this attempt.

    Raises
    ------
    OutputError
        If files are missing in the end, although they were written twice.
    """
    source, plan, model, params = runner.source, runner.plan, fitted.model, fitted.params
    clusters = clusters or ClusterNames(fitted.ids)
    kinds: dict[str, type] = {OF_LABELS: LabelStatistics}
    beside: list[Any] = []
    if scoring is not None:
        kinds[OF_SCORES] = HeldOutScores
        beside.append(scoring)
    if statistics:
        kinds[OF_MODEL] = model.statistics_type
        beside.append(partial(_fitted_statistics, model, params, held_out))
    path, ledger, content_digest = (
        folder / LABELS,
        Ledger(folder / FOLDER, fingerprints, kinds),
        outputs_digest(fitted, outputs),
    )
    every = None if held_out is None else held_out.every
    # A killed attempt is continued only if all of this is equal: it decides every byte of files and records.
    wish = {
        "attributes": dict(attributes), "told": content_digest, "changed": outputs.changed, "plan": repr(plan),
        "kinds": list(kinds), "held_out": every, "clusters": clusters.attributes,
        "before": None if previous is None else previous.fingerprint,
    }  # fmt: skip
    if ledger.continues(wish) and (path / "zarr.json").is_file():
        writer = open_writer(path, clusters, outputs)
        # The same pass was begun before: its files stay.
        writer.tidy()
        ledger.tidy()
        if on_resume is not None and len(ledger):
            on_resume(len(ledger))
    else:
        # Records go first: they would stand for files of arrays that are now created anew.
        ledger.remove()
        with translating_write_errors(path):
            writer = create_labels(path, source, plan, clusters, attributes, outputs, model)
        # The settings come after the arrays, so that a run that continues the ledger finds its arrays.
        ledger.begin(wish, {"told": content_digest, "joined": plan.joined, "statistics": statistics, "held_out": every})
    if on_caution is not None:
        for caution in cautions_of(path):
            on_caution(caution)
    records: Any = ledger
    if previous is not None and reusable is not None and reusable.outputs_digest == content_digest:
        records = _ReusingRecords(ledger, replace(reusable.ledger, kinds=kinds), previous, writer, plan)
    passed = label_blocks(runner, model, params, writer, outputs, records, clusters, previous, beside)
    if not _whole(writer, ledger, plan):
        # A machine that loses its power may lose files after their record was written. Those blocks are done again.
        for index in range(len(plan)):
            if not writer.holds(plan.block(index).slices):
                ledger.drop(index)
        again = label_blocks(runner, model, params, writer, outputs, ledger, clusters, previous, beside)
        passed = replace(again, read_stats=passed.read_stats + again.read_stats, seconds=passed.seconds + again.seconds)
        if not _whole(writer, ledger, plan):
            raise OutputError(
                f"files of {str(path)!r} are missing although they were written twice; "
                "keep other programs off the output, and check its disk"
            )
    return passed


def _fitted_statistics(model: AnyModel, params: Params, held_out: HeldOut | None, rows: Rows) -> Statistics:
    """Make the statistics of the rows that a fit sees; a held-out block gives those of no rows."""
    if held_out is not None and held_out.contains(rows.start):
        rows = rows.select(np.zeros(len(rows), bool))
    statistics: Statistics = model.statistics(params, rows)
    return statistics


def _whole(writer: LabelWriter, ledger: Ledger, plan: Plan) -> bool:
    """Check by listing that every block has its record and every chunk its file."""
    return len(ledger) == len(plan) and writer.complete()


def _digest(arrays: Mapping[str, Any]) -> str:
    sha256 = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        # Type and shape count too, because other arrays may have the same bytes.
        sha256.update(repr((name, array.dtype.str, array.shape)).encode())
        sha256.update(np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()
