"""The label pass onto disk: it goes on where it was killed, takes over what is as it was, and ends when all is in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
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
from clustering.models.model import params_to_arrays
from clustering.storage.labels import CHANGED, LabelWriter, cautions_of, create_labels, open_writer
from clustering.storage.labels import NAME as LABELS_NAME
from clustering.storage.ledger import FOLDER, OF_LABELS, OF_MODEL, OF_SCORES, Ledger, digest
from clustering.storage.paths import StoragePath, translating_write_errors
from clustering.storage.previous_labels import PreviousLabels

LABELS = "labels.zarr"
RESUMABLE = (LABELS, FOLDER)
"""What of a staging folder a label pass goes on from."""


class ReusableLabels(NamedTuple):
    """What an earlier version knows of its blocks, by what they hold."""

    ledger: Ledger
    """With the identities of today's blocks."""
    outputs_digest: str
    """What its labels are, as `outputs_digest` says."""


@dataclass(frozen=True)
class _ReusingRecords:
    """Records of a pass that looks into the version before for what it has not done itself."""

    own: Ledger
    reusable: Ledger
    previous: PreviousLabels
    writer: LabelWriter
    plan: Plan

    def load(self, index: int) -> tuple[Any, ...] | None:
        """Give what is known of a block; what only the version before knows becomes this one's."""
        recorded = self.own.load(index)
        if recorded is None and (recorded := self.reusable.load(index)) is not None:
            recorded = tuple(made.as_unchanged() if hasattr(made, "as_unchanged") else made for made in recorded)
            region = self.plan.block(index).slices
            arrays = {name: self.previous.read(name, region) for name in self.writer.names if name != CHANGED}
            if CHANGED in self.writer.names:
                arrays[CHANGED] = np.where(arrays[LABELS_NAME] < 0, np.int8(-1), np.int8(0))
            self.writer(region, arrays)
            self.own.save(index, recorded)
        return recorded

    def save(self, index: int, statistics: tuple[Any, ...]) -> None:
        """Record that a block is finished."""
        self.own.save(index, statistics)


def outputs_digest(fitted: FittedModel, outputs: LabelOutputs) -> str:
    """Digest what a label pass tells of a row, whichever run it belongs to."""
    preparation = fitted.preparation
    arrays = {} if preparation is None else {n: getattr(preparation, n) for n in ("offset", "matrix")}
    unit_norm = preparation is not None and preparation.unit_norm
    return digest(
        {
            "model": repr(fitted.model),
            "params": _digest({**params_to_arrays(fitted.params), **arrays}),
            "unit_norm": unit_norm,
            "ids": fitted.ids.tolist(),
            "wanted": asdict(replace(outputs, changed=False)),
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
    """Label every row, and write what is wanted of it to ``labels.zarr`` of a staging folder.

    What an earlier attempt at the same wish finished in this folder is neither read nor made again, and nor is what a
    version before tells of the same rows. Their statistics are added in their places of the tree, so that the outcome
    has the same bits.

    Parameters
    ----------
    runner
        With the plan of the label pass.
    fitted
        The model, at the params to label with.
    attributes
        JSON attributes of ``labels.zarr``; they name the run, the config and the source.
    on_resume
        Called with the number of blocks that are there already, if any are.
    clusters
        Whose ids are told; those of the model where None.
    previous
        Labels that these are compared with; None where there are none.
    fingerprints
        Of the blocks of the plan: the ledger can be gone on from by later runs then.
    statistics
        Whether the ledger keeps the statistics of the model too, from which a later fit goes on.
    held_out
        Blocks whose rows are not among those statistics.
    scoring
        Compares the version with the one before on the rows of some blocks.
    reusable
        What of `previous` may be taken over.
    on_caution
        Called with each line that says what of the source could not be written beside the labels.

    Returns
    -------
    Passed
        With one `LabelStatistics` of all rows, then the `HeldOutScores` where there is `scoring`, then the model's
        statistics
        where they are kept; the reading is that of this attempt.

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
    wish = {
        "attributes": dict(attributes), "told": content_digest, "changed": outputs.changed, "plan": repr(plan),
        "kinds": list(kinds), "held_out": every, "clusters": clusters.attributes,
        "before": None if previous is None else previous.fingerprint,
    }  # fmt: skip
    if ledger.continues(wish) and (path / "zarr.json").is_file():
        writer = open_writer(path, clusters, outputs)
        writer.tidy()
        if on_resume is not None and len(ledger):
            on_resume(len(ledger))
    else:
        ledger.remove()
        with translating_write_errors(path):
            writer = create_labels(path, source, plan, clusters, attributes, outputs, model)
        ledger.begin(wish, {"told": content_digest, "joined": plan.joined, "statistics": statistics, "held_out": every})
    if on_caution is not None:
        for caution in cautions_of(path):
            on_caution(caution)
    records: Any = ledger
    if previous is not None and reusable is not None and reusable.outputs_digest == content_digest:
        records = _ReusingRecords(ledger, replace(reusable.ledger, kinds=kinds), previous, writer, plan)
    passed = label_blocks(runner, model, params, writer, outputs, records, clusters, previous, beside)
    if not _whole(writer, ledger, plan):
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


def _fitted_statistics(model: Any, params: Any, held_out: HeldOut | None, rows: Rows) -> Any:
    """Make the statistics of the rows that a fit sees."""
    if held_out is not None and held_out.contains(rows.start):
        rows = rows.select(np.zeros(len(rows), bool))
    return model.statistics(params, rows)


def _whole(writer: LabelWriter, ledger: Ledger, plan: Plan) -> bool:
    """Tell whether every block has its record and every chunk its file, by listing."""
    return len(ledger) == len(plan) and writer.complete()


def _digest(arrays: Mapping[str, Any]) -> str:
    sha256 = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha256.update(repr((name, array.dtype.str, array.shape)).encode())
        sha256.update(np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()
