"""The label pass onto disk: it goes on where it was killed, and ends when every block is there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from clustering.data.plan import Plan
from clustering.errors import OutputError
from clustering.execution.passes import Passed, Rounds
from clustering.fitting.clusters import Clusters, numbered
from clustering.fitting.labelling import Wanted, label
from clustering.models.model import stored
from clustering.storage.earlier import Earlier
from clustering.storage.labels import LabelWriter, create_labels, writer_of
from clustering.storage.ledger import FOLDER, Ledger
from clustering.storage.places import Place, writing

LABELS = "labels.zarr"
RESUMABLE = (LABELS, FOLDER)
"""What of a staging folder a label pass goes on from."""


def write_labels(
    rounds: Rounds,
    model: Any,
    params: Any,
    folder: Place,
    attributes: Mapping[str, Any],
    wanted: Wanted,
    on_resume: Callable[[int], None] | None = None,
    clusters: Clusters | None = None,
    before: Earlier | None = None,
) -> Passed:
    """Label every row, and write what is wanted of it to ``labels.zarr`` of a staging folder.

    What an earlier attempt at the same wish finished in this folder is neither read nor made again. Its statistics are
    added in their places of the tree, so that the outcome has the same bits.

    Parameters
    ----------
    rounds
        With the plan of the label pass.
    attributes
        JSON attributes of ``labels.zarr``; they name the run, the config and the source.
    on_resume
        Called with the number of blocks that are there already, if any are.
    clusters
        Whose ids are told; 0 … k − 1 where None.
    before
        Labels that these are compared with; None where there are none.

    Returns
    -------
    Passed
        With one `LabelStatistics` of all rows; the reading is that of this attempt.

    Raises
    ------
    OutputError
        If files are missing in the end, although they were written twice.
    """
    source, plan = rounds.source, rounds.plan
    path, ledger = folder / LABELS, Ledger(folder / FOLDER)
    clusters = clusters or numbered(model.k)
    wish = {
        "attributes": dict(attributes), "wanted": asdict(wanted), "model": repr(model), "params": _digest(params),
        "plan": repr(plan), "clusters": clusters.attributes, "before": None if before is None else before.identity,
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
        ledger.begin(wish)
    passed = label(rounds, model, params, writer, wanted, ledger, clusters, before)
    if not _whole(writer, ledger, plan):
        for index in range(len(plan)):
            if not writer.holds(plan.block(index).slices):
                ledger.drop(index)
        again = label(rounds, model, params, writer, wanted, ledger, clusters, before)
        passed = replace(again, reading=passed.reading + again.reading, seconds=passed.seconds + again.seconds)
        if not _whole(writer, ledger, plan):
            raise OutputError(
                f"files of {str(path)!r} are missing although they were written twice; "
                "keep other programs off the output, and check its disk"
            )
    return passed


def _whole(writer: LabelWriter, ledger: Ledger, plan: Plan) -> bool:
    """Tell whether every block has its record and every chunk its file, by listing."""
    return len(ledger) == len(plan) and writer.complete()


def _digest(params: Any) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(stored(params).items()):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
