"""What the codecs of stored arrays tell: whether a flipped bit would be noticed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

CHECKSUMS = frozenset({"crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"})
"""Codecs whose purpose it is, by the names of Zarr version 2 and, less ``numcodecs.``, of version 3."""
CHECKED = frozenset({"gzip", "zlib", "bz2"})
"""Compressors whose format has a checksum that decoding compares."""


def checksummed(metadata: Mapping[str, Any]) -> bool:
    """Tell whether every chunk of an array carries a checksum of its data.

    Parameters
    ----------
    metadata
        Of a Zarr array, as JSON has it: of version 2 (``filters``, ``compressor``) or 3 (``codecs``, also in shards).
    """
    return any(_checks(name, options) for name, options in _codecs(metadata))


def separately_checksummed(metadata: Mapping[str, Any]) -> bool:
    """Tell whether a codec of its own keeps the checksums of chunks, which not every reader of a part looks at."""
    return any(name in CHECKSUMS for name, _ in _codecs(metadata))


def checksum_remark(arrays: Iterable[Mapping[str, Any]]) -> str | None:
    """Say so, in words for a user, if none of the arrays has checksums; None otherwise, or without arrays."""
    metadata_list = list(arrays)
    if not metadata_list or any(checksummed(metadata) for metadata in metadata_list):
        return None
    return "the source has no checksums: a flipped bit in a chunk would go unnoticed"


def _codecs(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name the codecs of chunks, with their options."""
    if metadata.get("zarr_format") == 2:
        for codec in (*(metadata.get("filters") or ()), metadata.get("compressor") or {}):
            yield str(codec.get("id", "")), codec
        return
    for codec in metadata.get("codecs") or ():
        name, options = (codec, {}) if isinstance(codec, str) else (codec["name"], codec.get("configuration") or {})
        yield name.removeprefix("numcodecs."), options
        # What checks the index of a shard says nothing of its chunks.
        if name == "sharding_indexed":
            yield from _codecs(options)


def _checks(name: str, options: Mapping[str, Any]) -> bool:
    return name in CHECKSUMS or name in CHECKED or (name == "zstd" and bool(options.get("checksum")))
