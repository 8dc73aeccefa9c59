"""The fingerprint of a source, and the check that its store has not changed since."""

from __future__ import annotations

import hashlib

import numpy as np

from clustering.data import opening
from clustering.data.addresses import shown
from clustering.data.chunks import snapshot
from clustering.data.listing import describe_changes
from clustering.data.reading import read_block
from clustering.data.source import Source
from clustering.data.store_errors import translate_errors
from clustering.errors import DataError, SourceError


def source_fingerprint(source: Source) -> str:
    """Digest the identity of a source: the listings of a store, or the values of data held in memory.

    The digest covers the selection and the companions too.

    Parameters
    ----------
    source
        Data to cluster.
    """
    digest = hashlib.sha256()
    if source.recipe is not None:
        for name, listing in sorted(source.listings.items()):
            digest.update(name.encode() + listing.digest)
        for name, stored in sorted(source.stored.items()):
            for d, indexer in stored.indexers.items():
                # The text of a long array leaves out most of its numbers, so its bytes are taken.
                digest.update(f"{name} {d} {indexer!r}".encode() if isinstance(indexer, range) else indexer.tobytes())
        return digest.hexdigest()
    digest.update(repr((source.variables, source.sample_dims, source.shape, str(source.dtype))).encode())
    for d in (*source.sample_dims, *source.feature_dims):
        digest.update(repr(source.dataset[d].values.tolist()).encode() if source.has_labels(d) else b"")
    # A dask array may be larger than the memory, so it is read block by block.
    plan = source.plan()
    for index in range(len(plan)):
        rows = read_block(source, plan.block(index))
        for part in (rows.values, rows.weights, rows.cells, rows.labels):
            digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def check_unchanged(source: Source) -> None:
    """Compare the store of a source with its listings, and refuse to go on if it has changed.

    Parameters
    ----------
    source
        Data to cluster; nothing is compared for data in memory.

    Raises
    ------
    DataError
        Naming the first change.
    """
    if source.recipe is None or not source.listings:
        return
    data, group, options = (source.recipe[key] for key in ("data", "group", "storage_options"))
    try:
        with translate_errors(shown(data), (FileNotFoundError,)):
            node = opening.open_node(data, group, options or {})
    except (FileNotFoundError, SourceError) as error:
        raise DataError(
            f"the source changed during the run: there is nothing at {shown(data)} any more; run again"
        ) from error
    # An opened array keeps the metadata of its opening, so all are opened anew from the node.
    now = snapshot(opening.OpenedDataset(source.dataset, node, shown(data)), source.listings)
    for name, before in source.listings.items():
        changed = describe_changes(before, now.get(name), name)
        if changed:
            raise DataError(
                f"the source changed during the run: {changed}; earlier and later reads do not belong together: "
                "run again"
            )
