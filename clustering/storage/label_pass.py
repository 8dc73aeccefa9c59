"""The label pass onto disk: it goes on where it was killed, takes over what is as it was, and ends when all is in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from clustering.data.identity import Identities
from clustering.data.plan import Plan
from clustering.data.rows import Rows
from clustering.errors import OutputError
from clustering.execution.held_out import HeldOut
from clustering.execution.passes import Passed, Rounds
from clustering.fitting.clusters import Clusters
from clustering.fitting.fitted import Fitted
from clustering.fitting.labelling import LabelStatistics, Wanted, label
from clustering.fitting.scoring import Scores, Scoring
from clustering.models.model import stored
from clustering.storage.earlier import Earlier
from clustering.storage.labels import CHANGED, LabelWriter, cautions_of, create_labels, writer_of
from clustering.storage.labels import NAME as LABELS_NAME
from clustering.storage.ledger import FOLDER, OF_LABELS, OF_MODEL, OF_SCORES, Ledger, digest
from clustering.storage.places import Place, writing

LABELS = "labels.zarr"
RESUMABLE = (LABELS, FOLDER)
"""What of a staging folder a label pass goes on from."""


class Kept(NamedTuple):
    """What an earlier version knows of its blocks, by what they hold."""

    ledger: Ledger
    """With the identities of today's blocks."""
    told: str
    """What its labels are, as `telling` says."""


@dataclass(frozen=True)
class _TakingOver:
    """Records of a pass that looks into the version before for what it has not done itself."""

    own: Ledger
    kept: Ledger
    before: Earlier
    writer: LabelWriter
    plan: Plan

    def find(self, index: int) -> tuple[Any, ...] | None:
        """Give what is known of a block; what only the version before knows becomes this one's."""
        known = self.own.find(index)
        if known is None and (known := self.kept.find(index)) is not None:
            known = tuple(made.stayed() if hasattr(made, "stayed") else made for made in known)
            region = self.plan.block(index).slices
            arrays = {name: self.before.read(name, region) for name in self.writer.names if name != CHANGED}
            if CHANGED in self.writer.names:
                arrays[CHANGED] = np.where(arrays[LABELS_NAME] < 0, np.int8(-1), np.int8(0))
            self.writer(region, arrays)
            self.own.keep(index, known)
        return known

    def keep(self, index: int, statistics: tuple[Any, ...]) -> None:
        """Record that a block is finished."""
        self.own.keep(index, statistics)


def telling(fitted: Fitted, wanted: Wanted) -> str:
    """Digest what a label pass tells of a row, whichever run it belongs to."""
    preparation = fitted.preparation
    arrays = {} if preparation is None else {n: getattr(preparation, n) for n in ("offset", "matrix")}
    unit_norm = preparation is not None and preparation.unit_norm
    return digest(
        {
            "model": repr(fitted.model), "params": _digest({**stored(fitted.params), **arrays}), "unit_norm": unit_norm,
            "ids": fitted.ids.tolist(), "wanted": asdict(replace(wanted, changed=False)),
        }
    )  # fmt: skip


def write_labels(
    rounds: Rounds,
    fitted: Fitted,
    folder: Place,
    attributes: Mapping[str, Any],
    wanted: Wanted,
    on_resume: Callable[[int], None] | None = None,
    clusters: Clusters | None = None,
    before: Earlier | None = None,
    *,
    identities: Identities | None = None,
    statistics: bool = False,
    held_out: HeldOut | None = None,
    scoring: Scoring | None = None,
    kept: Kept | None = None,
    on_caution: Callable[[str], None] | None = None,
) -> Passed:
    """Label every row, and write what is wanted of it to ``labels.zarr`` of a staging folder.

    What an earlier attempt at the same wish finished in this folder is neither read nor made again, and nor is what a
    version before tells of the same rows. Their statistics are added in their places of the tree, so that the outcome
    has the same bits.

    Parameters
    ----------
    rounds
        With the plan of the label pass.
    fitted
        The model, at the params to label with.
    attributes
        JSON attributes of ``labels.zarr``; they name the run, the config and the source.
    on_resume
        Called with the number of blocks that are there already, if any are.
    clusters
        Whose ids are told; those of the model where None.
    before
        Labels that these are compared with; None where there are none.
    identities
        Of the blocks of the plan: the ledger can be gone on from by later runs then.
    statistics
        Whether the ledger keeps the statistics of the model too, from which a later fit goes on.
    held_out
        Blocks whose rows are not among those statistics.
    scoring
        Compares the version with the one before on the rows of some blocks.
    kept
        What of `before` may be taken over.
    on_caution
        Called with each line that says what of the source could not be written beside the labels.

    Returns
    -------
    Passed
        With one `LabelStatistics` of all rows, then the `Scores` where there is `scoring`, then the model's statistics
        where they are kept; the reading is that of this attempt.

    Raises
    ------
    OutputError
        If files are missing in the end, although they were written twice.
    """
    source, plan, model, params = rounds.source, rounds.plan, fitted.model, fitted.params
    clusters = clusters or Clusters(fitted.ids)
    kinds: dict[str, type] = {OF_LABELS: LabelStatistics}
    beside: list[Any] = []
    if scoring is not None:
        kinds[OF_SCORES] = Scores
        beside.append(scoring)
    if statistics:
        kinds[OF_MODEL] = model.statistics_type
        beside.append(partial(_seen, model, params, held_out))
    path, ledger, told = folder / LABELS, Ledger(folder / FOLDER, identities, kinds), telling(fitted, wanted)
    every = None if held_out is None else held_out.every
    wish = {
        "attributes": dict(attributes), "told": told, "changed": wanted.changed, "plan": repr(plan),
        "kinds": list(kinds), "held_out": every, "clusters": clusters.attributes,
        "before": None if before is None else before.identity,
    }  # fmt: skip
    if ledger.continues(wish) and (path / "zarr.json").is_file():
        writer = writer_of(path, clusters, wanted)
        writer.tidy()
        if on_resume is not None and len(ledger):
            on_resume(len(ledger))
    else:
        ledger.remove()
        with writing(path):
            writer = create_labels(path, source, plan, clusters, attributes, wanted, model)
        ledger.begin(wish, {"told": told, "joined": plan.joined, "statistics": statistics, "held_out": every})
    if on_caution is not None:
        for caution in cautions_of(path):
            on_caution(caution)
    records: Any = ledger
    if before is not None and kept is not None and kept.told == told:
        records = _TakingOver(ledger, replace(kept.ledger, kinds=kinds), before, writer, plan)
    passed = label(rounds, model, params, writer, wanted, records, clusters, before, beside)
    if not _whole(writer, ledger, plan):
        for index in range(len(plan)):
            if not writer.holds(plan.block(index).slices):
                ledger.drop(index)
        again = label(rounds, model, params, writer, wanted, ledger, clusters, before, beside)
        passed = replace(again, reading=passed.reading + again.reading, seconds=passed.seconds + again.seconds)
        if not _whole(writer, ledger, plan):
            raise OutputError(
                f"files of {str(path)!r} are missing although they were written twice; "
                "keep other programs off the output, and check its disk"
            )
    return passed


def _seen(model: Any, params: Any, held_out: HeldOut | None, rows: Rows) -> Any:
    """Make the statistics of the rows that a fit sees."""
    if held_out is not None and held_out.holds(rows.start):
        rows = rows.some(np.zeros(len(rows), bool))
    return model.statistics(params, rows)


def _whole(writer: LabelWriter, ledger: Ledger, plan: Plan) -> bool:
    """Tell whether every block has its record and every chunk its file, by listing."""
    return len(ledger) == len(plan) and writer.complete()


def _digest(arrays: Mapping[str, Any]) -> str:
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(repr((name, array.dtype.str, array.shape)).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
