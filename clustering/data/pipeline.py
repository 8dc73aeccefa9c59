"""Decoding of chunks in Rust, where the package `zarrs` is installed and is faster."""

from __future__ import annotations

import warnings
from typing import Any

import zarr
from zarr.storage import LocalStore

from clustering.compat import codec_pipeline, with_codec_pipeline
from clustering.data.codecs import separately_checksummed


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
    if kind is None or not isinstance(array.store_path.store, LocalStore):
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
