"""Writes rows drawn from a mixture to a Zarr group of any size, with the component of each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.ingest import Ingested, destination_of, write_piece, writing_to
from clustering.data.plan import MIB
from clustering.data.readers import FileVariable
from clustering.deferred import zarr
from clustering.errors import ConfigError
from clustering.fitting.cluster_names import default_names
from clustering.models.sampling import RowGenerator, check_whole_number

LARGEST_CHUNK = 1024 * MIB
"""Largest size of a chunk in bytes: a whole chunk is held in memory."""


def write_synthetic(
    mixture: RowGenerator,
    destination: str | Path,
    *,
    rows: int,
    seed: int = 0,
    chunk_rows: int | None = None,
    overwrite: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> Ingested:
    """Draw rows from a mixture and write them chunk by chunk, so that memory does not grow with the rows.

    The group holds ``rows (row, feature)`` and ``labels (row)``, the component of each row. Its attributes hold the
    parameters and the seed.

    Parameters
    ----------
    mixture
        Mixture to draw from.
    destination
        Folder of the Zarr group; it appears once all of it is written.
    rows
        Number of rows.
    seed
        Seed of the draws; the same seed gives the same data.
    chunk_rows
        Rows of a chunk; chosen where None. It does not change the data.
    overwrite
        Whether a store that was ingested or drawn may be replaced. Anything else is never replaced.
    attributes
        More JSON attributes of the group.

    Raises
    ------
    ConfigError
        If a number is out of its range.
    OutputError
        If the destination exists or cannot be written.
    """
    rows, seed = check_whole_number("rows", rows, 1), check_whole_number("seed", seed, 0)
    along = None
    if chunk_rows is not None:
        along = min(rows, check_whole_number("chunk_rows", chunk_rows, 1))
        if along * mixture.d * 8 > LARGEST_CHUNK:
            most = max(1, LARGEST_CHUNK // (mixture.d * 8))
            raise ConfigError(
                f"chunk_rows is {chunk_rows}, and a chunk of that is {along * mixture.d * 8 / MIB:,.0f} MiB; "
                f"at most {most:,} rows of {mixture.d} features are allowed"
            )
    target = destination_of(destination)
    clusters = default_names(mixture.k)
    kind = clusters.dtype

    # Both are drawn anew from the seed, so that neither has to wait in memory for the other.
    def values(length: int) -> Iterator[NDArray[Any]]:
        return (part for part, _ in mixture.draw(rows, seed, length))

    def labels(length: int) -> Iterator[NDArray[Any]]:
        return (part.astype(kind) for part in mixture.draw_labels(rows, seed, length))

    flags = {**clusters.attributes, "long_name": "component that each row was drawn from"}
    float64 = np.dtype(np.float64)
    pieces = [
        (
            FileVariable("rows", ("row", "feature"), (rows, mixture.d), float64, values, {}),
            along and (along, mixture.d),
        ),
        (FileVariable("labels", ("row",), (rows,), kind, labels, flags), along and (along,)),
    ]
    with writing_to(target, overwrite) as staging:
        facts = {**mixture.to_json(), "seed": seed, **(attributes or {})}
        group = zarr.create_group(staging, zarr_format=3, attributes=facts)
        written = {piece.name: write_piece(group, piece, chunks or None) for piece, chunks in pieces}
    return Ingested(target, written)
