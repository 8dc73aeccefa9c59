"""What the codecs of stored arrays tell: whether a flipped bit would be noticed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    if metadata.get("zarr_format") == 2:
        found = [*(metadata.get("filters") or ()), metadata.get("compressor") or {}]
        return any(_checks(str(codec.get("id", "")), codec) for codec in found)
    return _any_checks(metadata.get("codecs") or ())


def unchecked(arrays: Iterable[Mapping[str, Any]]) -> str | None:
    """Say so, in words for a user, if none of the arrays has checksums; None otherwise, or without arrays."""
    found = list(arrays)
    if not found or any(checksummed(metadata) for metadata in found):
        return None
    return "the source has no checksums: a flipped bit in a chunk would go unnoticed"


def _any_checks(codecs: Sequence[Any]) -> bool:
    for codec in codecs:
        name, options = (codec, {}) if isinstance(codec, str) else (codec["name"], codec.get("configuration") or {})
        # What checks the index of a shard says nothing of its chunks.
        if name == "sharding_indexed" and _any_checks(options.get("codecs") or ()):
            return True
        if _checks(name.removeprefix("numcodecs."), options):
            return True
    return False


def _checks(name: str, options: Mapping[str, Any]) -> bool:
    return name in CHECKSUMS or name in CHECKED or (name == "zstd" and bool(options.get("checksum")))
