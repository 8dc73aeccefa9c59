"""Parts of other packages that this library uses, and that these do not promise to keep.

Each function does one thing and says why there is no other way. `tests/test_compat.py` checks that the names are where
they are sought. Packages are imported inside the functions, so that this module costs nothing to import.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    import zarr
    from zarr.abc.codec import CodecPipeline
    from zarr.abc.store import Store

T = TypeVar("T")


# zarr


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


# fsspec


async def fetch_file(fs: Any, path: str) -> bytes:
    """Read a file of a file system. The coroutines of fsspec have names with an underscore, in all versions so far.

    Parameters
    ----------
    fs
        An asynchronous file system of fsspec.
    path
        Path of the file.
    """
    content: bytes = await fs._cat_file(path)
    return content


async def list_folder(fs: Any, path: str) -> list[str]:
    """Name what is in a folder of a file system, by the coroutine of fsspec, as `fetch_file` does.

    Parameters
    ----------
    fs
        An asynchronous file system of fsspec.
    path
        Path of the folder.
    """
    names: list[str] = await fs._ls(path, detail=False)
    return names


async def find_files(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """Describe all files below a path of a file system, by the coroutine of fsspec, as `fetch_file` does.

    Parameters
    ----------
    fs
        An asynchronous file system of fsspec.
    path
        Path of a folder.
    """
    files: dict[str, dict[str, Any]] = await fs._find(path, detail=True)
    return files


# xarray


def lazy_zarr_data(array: zarr.Array[Any]) -> Any:
    """Wrap a stored array as lazy data of a variable.

    ``xarray.open_zarr`` opens whole groups, which fails for all arrays where one is damaged.

    Parameters
    ----------
    array
        A stored array.
    """
    from xarray.backends.zarr import ZarrArrayWrapper
    from xarray.core.indexing import LazilyIndexedArray

    return LazilyIndexedArray(ZarrArrayWrapper(array))  # type: ignore[no-untyped-call]


def lazy_data(variable: xr.Variable) -> Any:
    """Give the data of a variable without reading lazy ones; the public ``data`` reads them.

    Parameters
    ----------
    variable
        A variable, lazy or in memory.
    """
    return variable._data


def apply_lazily(data: Any, function: Callable[[Any], Any], dtype: np.dtype[Any]) -> Any:
    """Apply a function to data element by element, when they are read.

    ``xarray.apply_ufunc`` is lazy for dask arrays alone.

    Parameters
    ----------
    data
        Data of a variable, as `lazy_data` or `lazy_zarr_data` gives them.
    function
        Takes an array and returns one of the same shape.
    dtype
        Type of its result.
    """
    from xarray.coding.common import lazy_elemwise_func

    return lazy_elemwise_func(data, function, dtype)


def encode_fill_value(value: float, dtype: np.dtype[Any]) -> Any:
    """Encode a fill value as the attribute ``_FillValue`` of Zarr format 3, as xarray reads it.

    The form is a convention of xarray, which has no public function for it.

    Parameters
    ----------
    value
        The fill value.
    dtype
        Type of the stored numbers, in the byte order of this machine.
    """
    from xarray.backends.zarr import FillValueCoder

    return FillValueCoder.encode(value, dtype)


# dask, distributed and dask-jobqueue


def holds_masked_arrays(data: Any) -> bool:
    """Tell whether the chunks of a dask array are masked arrays.

    Dask keeps an empty example of a chunk for this, and gives it no public name.

    Parameters
    ----------
    data
        A dask array. Nothing is computed.
    """
    import numpy as np

    return isinstance(data._meta, np.ma.MaskedArray)


def fail_jobs_without_id(cluster: Any) -> None:
    """Mark the jobs of a cluster that were not submitted as failed.

    Closing a cluster of dask-jobqueue 0.9 asserts that every job is closed or failed, and never closes a job without
    an id.

    Parameters
    ----------
    cluster
        A cluster of dask-jobqueue.
    """
    from distributed import Status

    for job in cluster.workers.values():
        if job.job_id is None:
            job.status = Status.failed


def close_certificates(cluster: Any) -> None:
    """Remove the files of the certificates that a cluster made for its workers.

    dask-jobqueue 0.9 removes them only when the cluster is collected as garbage.

    Parameters
    ----------
    cluster
        A cluster of dask-jobqueue, with certificates or without.
    """
    for name in ("_job_ca_file", "_job_cert", "_job_key"):
        if name in vars(cluster):
            vars(cluster)[name].close()


# numba


def kernel_locators() -> list[type]:
    """List the classes that choose the folder of the kernel cache; numba has no public list.

    The variable ``NUMBA_CACHE_LOCATOR_CLASSES`` would change the cache of all kernels in the process.
    """
    from numba.core.caching import CompileResultCacheImpl

    return list(CompileResultCacheImpl._locator_classes)


def set_kernel_locators(files: type, locators: Sequence[type]) -> None:
    """Set the classes that choose the folder of a kernel cache, as subclasses in numba do.

    Parameters
    ----------
    files
        Subclass of ``CompileResultCacheImpl`` of numba.
    locators
        Classes that are asked in this order.
    """
    files._locator_classes = list(locators)  # type: ignore[attr-defined]


def set_cache_files(cache: type, files: type) -> None:
    """Set the class that keeps the files of a kernel cache, as subclasses in numba do.

    Parameters
    ----------
    cache
        Subclass of ``FunctionCache`` of numba.
    files
        Subclass of ``CompileResultCacheImpl`` of numba.
    """
    cache._impl_class = files  # type: ignore[attr-defined]


def set_locator_folder(locator: Any, folder: str) -> None:
    """Set the folder of one locator, which numba derives from its own rules.

    Parameters
    ----------
    locator
        Instance of ``UserWideCacheLocator`` of numba, or of a subclass.
    folder
        Folder of the kernel cache.
    """
    locator._cache_path = folder


def set_kernel_cache(kernel: Any, cache: Any) -> None:
    """Give a kernel a cache; ``enable_caching`` of numba takes none.

    Parameters
    ----------
    kernel
        A function compiled by ``numba.njit``.
    cache
        Instance of ``FunctionCache`` of numba, or of a subclass.
    """
    kernel._cache = cache


def start_kernel_runtime(target: Any) -> None:
    """Make the functions available that compiled kernels call for memory; loading a kernel needs nothing else of numba.

    numba has no public way to load a kernel without preparing the compiler as well.

    Parameters
    ----------
    target
        Target context of numba, as the methods of a cache get it.
    """
    from numba.core.runtime.nrt import rtsys

    rtsys.initialize(target)


@contextmanager
def plain_kernel_errors() -> Iterator[None]:
    """Let numba write errors without colours while it compiles a kernel.

    Where colorama is installed, numba colours each of the thousands of errors that it raises and catches itself, and
    replaces the standard output meanwhile.
    """
    from numba.core import errors
    from numba.core.compiler_lock import global_compiler_lock

    scheme: Any = type(errors.termcolor())
    # Nothing else is compiled under the lock, so that no two threads undo each other.
    with global_compiler_lock:
        # Without colorama, numba neither has this function nor calls it.
        coloured = getattr(scheme, "_markup", None)
        scheme._markup = lambda _, text, *__: text
        try:
            yield
        finally:
            scheme._markup = coloured


@cache
def kernel_compiler() -> type:
    """Return the class of numba's compiler for kernels, whose code is optimised with that of all functions they call.

    numba optimises each function by itself before that, which takes time and makes no better code.
    """
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import Compiler

    class KernelLibrary(JITCodeLibrary):
        """The code of a kernel with all that it calls."""

        def _optimize_functions(self, ll_module: Any) -> None:
            ll_module.data_layout = self._codegen._data_layout

    return _compiler_into(Compiler, KernelLibrary)


def _compiler_into(compiler: Any, library: Any) -> type:
    """Return a class of numba's compiler that puts the code of a function into its own class of libraries."""

    class CompilerInto(compiler):  # type: ignore[misc]
        def compile_extra(self, func: Any) -> Any:
            self.state.library = library(self.state.targetctx.codegen(), func.__qualname__)
            self.state.library.enable_object_caching()
            return super().compile_extra(func)

    return CompilerInto


@cache
def linked_compiler() -> type:
    """Return the class of numba's compiler for functions that only kernels call.

    numba optimises each function by itself, again in every function that calls it, and turns each of them into machine
    code. Where Python does not call a function, only the code of the kernels that it becomes a part of is ever run.
    """
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import Compiler
    from numba.core.compiler_machinery import PassManager
    from numba.core.typed_passes import NopythonRewrites
    from numba.core.untyped_passes import InlineClosureLikes

    class WithoutEnvironments:
        """The code generator for a function without machine code, in which no environment could be put."""

        def __init__(self, codegen: Any) -> None:
            self._codegen = codegen

        def set_env(self, name: str, environment: Any) -> None:
            pass

        def __getattr__(self, name: str) -> Any:
            return getattr(self._codegen, name)

    class LinkedLibrary(JITCodeLibrary):
        """The code of a function as it was lowered, until a kernel takes it."""

        linked = True

        @property
        def codegen(self) -> Any:
            return WithoutEnvironments(self._codegen)

        def get_pointer_to_function(self, name: str) -> int:
            self._ensure_finalized()  # type: ignore[no-untyped-call]
            # So numba says that there is none.
            return 0

        def serialize_using_object_code(self) -> Any:
            return self.serialize_using_bitcode()  # type: ignore[no-untyped-call]

        def _optimize_functions(self, ll_module: Any) -> None:
            pass

        def _optimize_final_module(self) -> None:
            pass

        def _finalize_final_module(self) -> None:
            self._finalize_dynamic_globals()  # type: ignore[no-untyped-call]
            self._verify_declare_only_symbols()  # type: ignore[no-untyped-call]
            self._finalized = True

    class LinkedCompiler(_compiler_into(Compiler, LinkedLibrary)):  # type: ignore[misc]
        """A compiler without the passes that look for closures and for expressions of whole arrays."""

        def define_pipelines(self) -> list[Any]:
            (pipeline,) = super().define_pipelines()
            needless = InlineClosureLikes, NopythonRewrites
            short = PassManager(pipeline.pipeline_name)  # type: ignore[no-untyped-call]
            short.passes.extend((kind, text) for kind, text in pipeline.passes if kind not in needless)
            short.finalize()  # type: ignore[no-untyped-call]
            return [short]

    return LinkedCompiler


def is_linked(library: Any) -> bool:
    """Tell whether the compiler of `linked_compiler` made some code.

    Parameters
    ----------
    library
        Code of a function, as numba holds it.
    """
    return getattr(library, "linked", False)
