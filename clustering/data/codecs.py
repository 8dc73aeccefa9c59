"""Codecs of stored arrays: their checksums, and their decoding in Rust where the package `zarrs` is installed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clustering.compat.zarr import codec_pipeline, with_codec_pipeline
from clustering.deferred import zarr

CHECKSUMS = frozenset({"crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"})
"""Codecs that only add a checksum, by their names in Zarr version 2, and in version 3 without ``numcodecs.``."""
CHECKED = frozenset({"gzip", "zlib", "bz2"})
"""Compressors whose format has a checksum, which decoding verifies."""


def checksummed(metadata: Mapping[str, Any]) -> bool:
    """Return whether every chunk of an array carries a checksum of its data.

    Parameters
    ----------
    metadata
        Metadata of a Zarr array as parsed JSON: of version 2 (``filters``, ``compressor``) or 3 (``codecs``, also
        those in shards).
    """
    return any(_checks(name, options) for name, options in _codecs(metadata))


def separately_checksummed(metadata: Mapping[str, Any]) -> bool:
    """Return whether checksums of chunks come from a codec of their own, which some decoders of partial reads skip.

    Parameters
    ----------
    metadata
        Metadata of a Zarr array, as for `checksummed`.
    """
    return any(name in CHECKSUMS for name, _ in _codecs(metadata))


def checksum_remark(arrays: Iterable[Mapping[str, Any]]) -> str | None:
    """Return a message for the user if none of the arrays has checksums; None otherwise, or without arrays.

    Parameters
    ----------
    arrays
        Metadata of Zarr arrays, as for `checksummed`.
    """
    metadata_list = list(arrays)
    if not metadata_list or any(checksummed(metadata) for metadata in metadata_list):
        return None
    return "the source has no checksums: a flipped bit in a chunk would go unnoticed"


def _codecs(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the names of the codecs of chunks, with their options."""
    if metadata.get("zarr_format") == 2:
        for codec in (*(metadata.get("filters") or ()), metadata.get("compressor") or {}):
            yield str(codec.get("id", "")), codec
        return
    for codec in metadata.get("codecs") or ():
        name, options = (codec, {}) if isinstance(codec, str) else (codec["name"], codec.get("configuration") or {})
        yield name.removeprefix("numcodecs."), options
        # Codecs of the index of a shard (index_codecs) do not check its chunks, so they are skipped.
        if name == "sharding_indexed":
            yield from _codecs(options)


def _checks(name: str, options: Mapping[str, Any]) -> bool:
    # The checksum of zstd is optional.
    return name in CHECKSUMS or name in CHECKED or (name == "zstd" and bool(options.get("checksum")))


def rust() -> Any:
    """Find the codec pipeline of `zarrs`; None where it is not installed."""
    try:
        from zarrs import ZarrsCodecPipeline
    except ImportError:
        return None
    return ZarrsCodecPipeline


def accelerated(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Give a copy of an array that decodes in Rust, or the array itself where that is impossible or slower.

    The copy is for reading only, since local writes of `zarrs` are not atomic. Each read decodes on one thread, so a
    process decodes on as many threads as it has tasks. Arrays in buckets stay with zarr's own pipeline, which requests
    many chunks at once and so is faster there.

    Parameters
    ----------
    array
        A stored array.
    """
    kind = rust()
    if kind is None or not isinstance(array.store_path.store, zarr.storage.LocalStore):
        return array
    # zarrs does not verify separate checksums where it decodes part of a chunk, as at every edge of an array.
    if separately_checksummed(array.metadata.to_dict()):
        return array
    with zarr.config.set({"threading.max_workers": 1}), warnings.catch_warnings():
        # zarrs warns about codecs that it does not know. They are left to zarr's own pipeline, see `is_accelerated`.
        warnings.simplefilter("ignore", UserWarning)
        pipeline = kind.from_array_metadata_and_store(array.metadata, array.store_path.store)
    if pipeline.impl is None:
        return array
    return with_codec_pipeline(array, pipeline)


def is_accelerated(array: zarr.Array[Any]) -> bool:
    """Tell whether an array decodes in Rust.

    Parameters
    ----------
    array
        A stored array, as `accelerated` gives it.
    """
    kind = rust()
    return kind is not None and isinstance(codec_pipeline(array), kind)
