"""Parts of numba that are not public."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any


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
