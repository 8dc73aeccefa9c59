"""Labels outside of outputs: a Zarr group of its own, written block by block, that goes on after an interruption."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clustering.data.addresses import local_path, shown
from clustering.data.excluded_rows import explain_no_rows
from clustering.data.ownership import LABELLED, check_place, check_target, mark_folder
from clustering.data.preparation import usable_memory
from clustering.data.replacing import continued
from clustering.data.source import Source
from clustering.data.source_fingerprint import check_unchanged, source_fingerprint
from clustering.errors import DataError, PlaceError
from clustering.execution.engine import connect
from clustering.execution.passes import pass_runner
from clustering.fitting.fitted_model import FittedModel
from clustering.fitting.labelling import LabelOutputs, check_outputs
from clustering.fitting.preprocessing import zero_row_notes
from clustering.option_values import in_bytes
from clustering.options import LabelToCall, RowOutputs, SourceOptions, cluster_of, wanted_block
from clustering.storage.label_pass import LABELS, write_labels
from clustering.storage.labels import check_names, coordinate_cautions
from clustering.storage.ledger import digest


def label_to(fitted: FittedModel, source: Source, options: LabelToCall, warn: Callable[[str], None]) -> Path:
    """Label every row of a source, and write the label outputs to a Zarr group in a folder.

    The group grows in a staging folder beside its place. A killed attempt leaves that, and the next one with the same
    model, data and outputs goes on after the finished blocks.

    Parameters
    ----------
    fitted
        The fitted model.
    source
        Data to label.
    options
        Where the group goes, and what is written.
    warn
        Called with each warning.

    Returns
    -------
    Path
        Path of the group.

    Raises
    ------
    OutputError
        If the place holds something that may not be replaced, or cannot be written.
    DataError
        If no row can be labelled, or the data change meanwhile.
    """
    target = _checked_place(os.fspath(options.to), source)
    outputs = LabelOutputs(**{name: getattr(options, name) for name in RowOutputs.model_fields})
    check_outputs(outputs, fitted.model)
    check_names(source, fitted.clusters, outputs)
    for caution in coordinate_cautions(source, fitted.clusters, outputs, fitted.model):
        warn(caution)
    memory, preparation = in_bytes(options.memory), fitted.preparation
    within = usable_memory(source, memory, preparation is not None)
    plan = source.plan(block_bytes=wanted_block(options, options.block_bytes), memory=within, whole_chunks=False)
    recipe = source.recipe or {"data": "data in memory"}
    about = {
        "source": shown(str(recipe["data"])),
        "source_fingerprint": source_fingerprint(source),
        "config_sha256": _options_digest(recipe),
        "version": version("zarr-clustering"),
    }

    def check() -> None:
        check_target(target, LABELLED, options.overwrite, "overwrite=True")

    with (
        continued(target, LABELS, check) as staging,
        connect(cluster_of(options), options.workers, memory, options.wait_seconds) as engine,
        pass_runner(
            source, plan, engine, memory=memory, scratch=options.scratch, keep=False, preparation=preparation
        ) as runner,
    ):
        passed = write_labels(runner, fitted, staging, about, outputs, clusters=fitted.clusters)
        (sums,) = passed.statistics
        if not sums.rows.any():
            raise DataError(explain_no_rows(source, plan))
        # Blocks are read at different times, so labels fit together only if the store stayed the same.
        check_unchanged(source)
        # The mark lets a later call with overwrite=True replace the folder.
        mark_folder(staging / LABELS, LABELLED)
    for note in zero_row_notes(sums.zero_rows):
        warn(note)
    return target


def _checked_place(place: str, source: Source) -> Path:
    """Refuse a place that no new folder may be written to, or that is the source."""
    if "://" in place:
        raise PlaceError(f"cannot write labels to {shown(place)!r}: name a local path, and copy the group from there")
    store = None if source.recipe is None else local_path(source.recipe["data"])
    if store is not None and store.resolve() == Path(place).resolve():
        raise PlaceError(f"{place!r} is the source itself; name another place")
    return check_place(place)


def _options_digest(recipe: Mapping[str, Any]) -> str:
    """Digest the options that a source was opened with.

    The fingerprint of a stored source covers neither comparisons of masks nor rules for missing values. That of data in
    memory covers its values as these options left them.
    """
    options = {
        name: recipe[name] for name in SourceOptions.model_fields if name in recipe and name != "storage_options"
    }
    return digest(SourceOptions.model_construct(**options).model_dump(mode="json", include=set(options), fallback=str))
