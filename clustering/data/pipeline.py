"""Decoding chunks in Rust, where the package `zarrs` is installed and it helps."""

from __future__ import annotations

import warnings
from typing import Any

import zarr
from zarr.core.array import AsyncArray
from zarr.storage import LocalStore

from clustering.data.codecs import separately_checksummed


def rust() -> Any:
    """Find the codec pipeline of `zarrs`; None where it is not installed."""
    try:
        from zarrs import ZarrsCodecPipeline
    except ImportError:
        return None
    return ZarrsCodecPipeline


def accelerated(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Give a twin of an array that decodes faster; the array itself where nothing does.

    It is for reading alone: local writes of `zarrs` are not atomic. Each read decodes on one thread, so that a
    process decodes on as many as it has tasks. Of a bucket, zarr's own pipeline reads faster: it asks for many chunks
    at once.
    """
    kind = rust()
    if kind is None or not isinstance(array.store_path.store, LocalStore):
        return array
    # It passes over such checksums where it decodes a part of a chunk, as it does at every edge of an array.
    if separately_checksummed(array.metadata.to_dict()):
        return array
    with zarr.config.set({"threading.max_workers": 1}), warnings.catch_warnings():
        # Codecs that it does not know are left to zarr's own pipeline, see `is_accelerated`.
        warnings.simplefilter("ignore", UserWarning)
        pipeline = kind.from_array_metadata_and_store(array.metadata, array.store_path.store)
    if pipeline.impl is None:
        return array
    twin: AsyncArray[Any] = AsyncArray(array.metadata, array.store_path)
    # The configuration names one pipeline for reads and writes of a whole process, and arrays are opened by many.
    object.__setattr__(twin, "codec_pipeline", pipeline)
    return zarr.Array(twin)


def is_accelerated(array: zarr.Array[Any]) -> bool:
    """Tell whether an array decodes in Rust."""
    kind = rust()
    return kind is not None and isinstance(array._async_array.codec_pipeline, kind)
