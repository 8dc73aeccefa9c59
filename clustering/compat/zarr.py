"""Parts of zarr that are not public."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import zarr
    from zarr.abc.codec import CodecPipeline
    from zarr.abc.store import Store

T = TypeVar("T")


def run_in_zarr(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the event loop of zarr, and wait for its result.

    Stores are bound to the loop on which they sent their first request, and zarr 3 has no public way onto its own.

    Parameters
    ----------
    coroutine
        The coroutine, such as a request to a store.
    """
    from zarr.core.sync import sync

    return sync(coroutine)


def array_of_metadata(metadata: dict[str, Any], store: Store, path: str, *, v3: bool) -> zarr.AsyncArray[Any]:
    """Make an array from metadata that are at hand, without a request to its store.

    The public functions of zarr 3 read the metadata from the store, which may take a request for every array.

    Parameters
    ----------
    metadata
        Content of ``zarr.json``; or of ``.zarray``, with the attributes in it.
    store
        Store that holds the array.
    path
        Path of the array in the store.
    v3
        Whether the format is 3, not 2.

    Raises
    ------
    Exception
        Of any type, if the metadata are not valid.
    """
    from zarr import AsyncArray
    from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata
    from zarr.storage import StorePath

    kind = ArrayV3Metadata if v3 else ArrayV2Metadata
    return AsyncArray(kind.from_dict(metadata), StorePath(store, path))


def async_group(group: zarr.Group) -> zarr.AsyncGroup:
    """Give the asynchronous twin of a group.

    It opens many members at once. In zarr 3, arrays have a public name for their twin, and groups have none.

    Parameters
    ----------
    group
        A group.
    """
    return group._async_group


def innermost_store(store: Store) -> Store:
    """Give the store inside all wrappers.

    The documentation of zarr 3 names the attribute, and there is no public one.

    Parameters
    ----------
    store
        A store, wrapped or not.
    """
    from zarr.storage import WrapperStore

    while isinstance(store, WrapperStore):
        store = store._store
    return store


def with_codec_pipeline(array: zarr.Array[Any], pipeline: CodecPipeline) -> zarr.Array[Any]:
    """Give a copy of an array with a codec pipeline of its own.

    The configuration of zarr 3 sets the pipeline of all arrays in the process, and an array is frozen once it is made.

    Parameters
    ----------
    array
        A stored array.
    pipeline
        Pipeline that decodes its chunks.
    """
    from zarr import Array, AsyncArray

    twin: AsyncArray[Any] = AsyncArray(array.metadata, array.store_path)
    object.__setattr__(twin, "codec_pipeline", pipeline)
    return Array(twin)


def codec_pipeline(array: zarr.Array[Any]) -> CodecPipeline:
    """Give the codec pipeline of an array; zarr 3 does not document where it is.

    Parameters
    ----------
    array
        A stored array.
    """
    return array.async_array.codec_pipeline
