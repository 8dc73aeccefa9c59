"""Parts of other packages that are used without being documented exist, and behave as the code expects."""

from __future__ import annotations

import asyncio
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.array
import fsspec.asyn
import numba
import numpy as np
import prefect.blocks.system
import pytest
import xarray as xr
import zarr
from distributed import Status
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from numba.core import errors
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserWideCacheLocator
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from zarr.abc.codec import CodecPipeline
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.registry import get_pipeline_class
from zarr.storage import MemoryStore, WrapperStore

import clustering.compat
from clustering import compiling
from clustering.compat.dask import close_certificates, fail_jobs_without_id, holds_masked_arrays
from clustering.compat.fsspec import fetch_file, find_files, list_folder
from clustering.compat.numba import (
    kernel_compiler,
    kernel_locators,
    linked_compiler,
    plain_kernel_errors,
    set_cache_files,
    set_kernel_cache,
    set_kernel_locators,
    set_locator_folder,
)
from clustering.compat.xarray import apply_lazily, encode_fill_value, lazy_data, lazy_zarr_data
from clustering.compat.zarr import (
    array_of_metadata,
    async_group,
    codec_pipeline,
    innermost_store,
    run_in_zarr,
    with_codec_pipeline,
)
from clustering.execution.slurm import jobqueue
from clustering_flows.compat import end_process, load_block

VALUES = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def array() -> zarr.Array[Any]:
    return zarr.create_array(MemoryStore(), name="group/a", data=VALUES, chunks=(2, 3), attributes={"units": "K"})


def test_importing_them_imports_no_other_package() -> None:
    heavy = "{'dask', 'distributed', 'fsspec', 'matplotlib', 'numba', 'numpy', 'prefect', 'xarray', 'zarr'}"
    ours = [f"clustering.compat.{module.name}" for module in pkgutil.iter_modules(clustering.compat.__path__)]
    assert len(ours) == 5
    modules = ", ".join(["sys", *ours, "clustering_flows.compat"])
    look = f"import {modules}; sys.exit(bool({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", look]).returncode == 0


# zarr


def test_a_coroutine_runs_on_the_loop_of_zarr() -> None:
    from zarr.core.sync import _get_loop

    async def loop() -> Any:
        return asyncio.get_running_loop()

    assert run_in_zarr(loop()) is _get_loop()
    store = MemoryStore()
    assert run_in_zarr(store.get("nothing", default_buffer_prototype())) is None


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_is_made_of_given_metadata(zarr_format: Any) -> None:
    store = MemoryStore()
    stored = zarr.create_array(
        store, name="a", data=VALUES, chunks=(2, 3), zarr_format=zarr_format, attributes={"units": "K"}
    )
    metadata: dict[str, Any] = stored.metadata.to_dict()
    # The store holds no metadata, so that none can be read from it.
    bare = MemoryStore({key: value for key, value in store._store_dict.items() if "z" not in key})
    opened = zarr.Array(array_of_metadata(metadata, bare, "a", v3=zarr_format == 3))
    np.testing.assert_array_equal(opened[:], VALUES)
    assert opened.attrs["units"] == "K"
    with pytest.raises((KeyError, TypeError, ValueError)):
        array_of_metadata({}, bare, "a", v3=zarr_format == 3)


def test_the_asynchronous_twin_of_a_group_opens_its_members(array: zarr.Array[Any]) -> None:
    group = zarr.open_group(array.store_path.store, path="group", mode="r")
    twin = async_group(group)
    assert isinstance(twin, zarr.AsyncGroup)
    assert (twin.store, twin.path) == (group.store, "group")
    member = run_in_zarr(twin.getitem("a"))
    assert isinstance(member, zarr.AsyncArray)
    np.testing.assert_array_equal(zarr.Array(member)[:], VALUES)


def test_the_store_inside_all_wrappers_is_found() -> None:
    store = MemoryStore()
    assert innermost_store(store) is store
    assert innermost_store(WrapperStore(WrapperStore(store))) is store


def test_wrappers_of_stores_are_made_anew_by_the_method_that_subclasses_have() -> None:
    class Named(WrapperStore[Store]):
        def __init__(self, store: Store, name: str) -> None:
            super().__init__(store)
            self.name = name

        def _with_store(self, store: Store) -> Named:
            return Named(store, self.name)

    assert inspect.isasyncgenfunction(WrapperStore._get_many)
    made = Named(MemoryStore(), "x").with_read_only(True)
    assert (made.name, made.read_only) == ("x", True)


def test_an_array_gets_a_codec_pipeline_of_its_own(array: zarr.Array[Any]) -> None:
    class Own(get_pipeline_class()):  # type: ignore[misc]
        """A pipeline that differs from the usual one in its type."""

    before = codec_pipeline(array)
    assert isinstance(before, CodecPipeline)
    own = Own.from_codecs(list(before))
    twin = with_codec_pipeline(array, own)
    assert codec_pipeline(twin) is own
    assert codec_pipeline(array) is before
    np.testing.assert_array_equal(twin[:], VALUES)

    def refuse(*_: Any, **__: Any) -> Any:
        raise LookupError("this pipeline reads")

    # Reads go through this pipeline only.
    own.read = refuse
    with pytest.raises(LookupError, match="this pipeline"):
        twin[:]
    np.testing.assert_array_equal(array[:], VALUES)


# fsspec


def test_coroutines_of_file_systems_read_and_list(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_bytes(b"abc")
    fs = AsyncFileSystemWrapper(fsspec.filesystem("file"), asynchronous=True)
    root = str(tmp_path)
    assert asyncio.run(fetch_file(fs, f"{root}/folder/a")) == b"abc"
    assert asyncio.run(list_folder(fs, root)) == [f"{root}/folder"]
    files = asyncio.run(find_files(fs, root))
    assert list(files) == [f"{root}/folder/a"]
    assert files[f"{root}/folder/a"]["size"] == 3
    for name in ("_cat_file", "_ls", "_find"):
        assert inspect.iscoroutinefunction(getattr(fsspec.asyn.AsyncFileSystem, name)), name


# xarray


def test_stored_arrays_are_lazy_data(array: zarr.Array[Any]) -> None:
    data = lazy_zarr_data(array)
    variable = xr.Variable(("x", "y"), data, {"units": "K"})
    assert not isinstance(lazy_data(variable), np.ndarray)
    part = variable.isel(x=[3, 0])
    assert not isinstance(lazy_data(part), np.ndarray)
    np.testing.assert_array_equal(part.values, VALUES[[3, 0]])


def test_the_data_of_a_variable_are_given_as_they_are() -> None:
    assert lazy_data(xr.Variable("x", VALUES[0])) is not None
    np.testing.assert_array_equal(lazy_data(xr.Variable("x", VALUES[0])), VALUES[0])
    chunked = dask.array.from_array(VALUES[0])
    assert lazy_data(xr.Variable("x", chunked)) is chunked


def test_functions_are_applied_when_data_are_read(array: zarr.Array[Any]) -> None:
    seen: list[tuple[int, ...]] = []

    def doubled(values: Any) -> Any:
        seen.append(values.shape)
        return (2 * values).astype("f4")

    variable = xr.Variable(("x", "y"), apply_lazily(lazy_zarr_data(array), doubled, np.dtype("f4")))
    assert (variable.dtype, seen) == (np.float32, [])
    np.testing.assert_array_equal(variable[1:3].values, 2 * VALUES[1:3])
    # The function is given the part that is read, and not the whole array.
    assert seen == [(2, 3)]
    lazily = apply_lazily(dask.array.from_array(VALUES, chunks=2), doubled, np.dtype("f4"))
    assert isinstance(lazily, dask.array.Array)
    np.testing.assert_array_equal(lazily.compute(scheduler="synchronous"), 2 * VALUES)


@pytest.mark.parametrize(("fill", "dtype"), [(-9999.5, "f4"), (1e20, "f8"), (np.nan, "f4")])
def test_xarray_reads_an_encoded_fill_value(fill: float, dtype: str, tmp_path: Path) -> None:
    stored = np.array([1, fill, 3], dtype)
    attributes = {"_FillValue": encode_fill_value(np.dtype(dtype).type(fill).item(), np.dtype(dtype))}
    group = zarr.create_group(tmp_path / "g")
    group.create_array("a", data=stored, chunks=(3,), dimension_names=["x"], attributes=attributes)
    with xr.open_zarr(tmp_path / "g", consolidated=False) as dataset:
        np.testing.assert_array_equal(dataset.a.values, np.array([1, np.nan, 3], dtype))


# dask, distributed and dask-jobqueue


def test_dask_arrays_of_masked_arrays_are_recognized() -> None:
    masked = dask.array.from_array(np.ma.masked_less(VALUES, 3), chunks=2)
    assert holds_masked_arrays(masked)
    assert holds_masked_arrays(masked + 1)
    assert not holds_masked_arrays(dask.array.from_array(VALUES, chunks=2))


def test_jobs_without_id_become_failed_jobs() -> None:
    kind = jobqueue().slurm.SLURMJob
    jobs = [kind(scheduler="tcp://127.0.0.1:1", name=str(i), cores=1, memory="1GiB") for i in range(2)]
    assert [job.job_id for job in jobs] == [None, None]
    jobs[1].job_id, jobs[1].status = "7", Status.running
    fail_jobs_without_id(SimpleNamespace(workers=dict(enumerate(jobs))))
    assert [job.status for job in jobs] == [Status.failed, Status.running]


def test_files_of_certificates_are_removed(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    with jobqueue().SLURMCluster(
        cores=1, memory="1GiB", security=True, shared_temp_directory=str(tmp_path),
        scheduler_options={"dashboard_address": ":0"},
    ) as cluster:  # fmt: skip
        assert len(list(tmp_path.iterdir())) == 3
        close_certificates(cluster)
        assert not list(tmp_path.iterdir())
    close_certificates(SimpleNamespace())


# numba


def test_locators_of_kernel_caches_are_classes_that_find_a_folder() -> None:
    locators = kernel_locators()
    assert UserWideCacheLocator in locators
    assert all(callable(locator.from_function) for locator in locators)  # type: ignore[attr-defined]


def test_a_kernel_is_cached_where_it_is_said(tmp_path: Path) -> None:
    class Locator(UserWideCacheLocator):  # type: ignore[misc]
        def __init__(self, function: Any, path: str) -> None:
            super().__init__(function, path)
            set_locator_folder(self, str(tmp_path / "kernels"))

    class Files(CompileResultCacheImpl):  # type: ignore[misc]
        pass

    class Cache(FunctionCache):  # type: ignore[misc]
        pass

    def twice(x: float) -> float:
        return 2 * x

    before = kernel_locators()
    set_kernel_locators(Files, [Locator])
    set_cache_files(Cache, Files)
    assert kernel_locators() == before
    kernel = numba.njit(twice)
    set_kernel_cache(kernel, Cache(twice))
    assert kernel(4) == 8
    assert sorted({path.suffix for path in (tmp_path / "kernels").iterdir()}) == [".nbc", ".nbi"]
    again = numba.njit(twice)
    set_kernel_cache(again, Cache(twice))
    assert again(4) == 8
    assert sum(again.stats.cache_hits.values()) == 1


KERNEL = """
import numpy as np
from clustering.compiling import njit
@njit(cache=True)
def zeros(n):
    return np.zeros(n)
"""
LOAD = """
import module
assert module.zeros(3).tolist() == [0.0, 0.0, 0.0]
assert sum(module.zeros.stats.cache_hits.values()) == HITS
"""


def test_a_kernel_that_makes_arrays_is_loaded_by_a_new_process(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(KERNEL)
    for hits in range(2):
        code = LOAD.replace("HITS", str(hits))
        assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


# Prefect


def test_a_block_is_awaited_inside_a_running_loop() -> None:
    async def loaded() -> Any:
        return load_block(prefect.blocks.system.Secret, "reader")

    # Nothing listens at this address. A call that returned a coroutine would make no request and raise nothing.
    unreachable_api = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(unreachable_api), pytest.raises(Exception, match=r"(?i)connect"):
        asyncio.run(loaded())


def test_the_code_of_linked_functions_replaces_methods_that_numba_has() -> None:
    replaced = (
        "get_pointer_to_function", "serialize_using_object_code", "serialize_using_bitcode", "_optimize_functions",
        "_optimize_final_module", "_finalize_final_module", "_finalize_dynamic_globals",
        "_verify_declare_only_symbols", "_ensure_finalized",
    )  # fmt: skip
    assert all(callable(getattr(JITCodeLibrary, name, None)) for name in replaced)
    assert issubclass(linked_compiler(), CompilerBase)
    assert issubclass(kernel_compiler(), CompilerBase)


def test_errors_of_numba_have_their_colours_again_after_kernels_are_compiled() -> None:
    coloured = errors.termcolor().errmsg("fault")
    assert "fault" in coloured
    with plain_kernel_errors():
        with plain_kernel_errors():
            assert errors.termcolor().errmsg("fault") == "fault"
        assert errors.termcolor().errmsg("fault") == "fault"
    assert errors.termcolor().errmsg("fault") == coloured


def test_linked_functions_skip_passes_that_numba_has() -> None:
    def passes(**options: Any) -> set[str]:
        function = numba.njit(**options)(lambda x: 2 * x)
        function.compile((numba.float64,))
        (compiled,) = function.overloads.values()
        return {name.split("_", 1)[1] for name in compiled.metadata["pipeline_times"]["nopython"]}

    skipped = {"inline_closure_likes", "nopython_rewrites"}
    assert passes() - passes(**compiling.INNER) == skipped


# Python


def test_a_process_ends_after_its_threads_and_all_that_waits_for_its_end() -> None:
    program = f"""
import atexit, threading, time
from {end_process.__module__} import end_process

class Kept:
    def __del__(self):
        print("modules are taken apart")

kept = Kept()
atexit.register(print, "then what waits for the end")
threading.Thread(target=lambda: (time.sleep(0.2), print("threads first"))).start()
end_process(3)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stdout.splitlines() == ["threads first", "then what waits for the end"]
    assert not done.stderr
