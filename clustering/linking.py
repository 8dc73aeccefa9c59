"""Compiles functions that only kernels call: they are linked into the kernels, and optimised and translated there.

numba optimises each function by itself, again in every function that calls it, and turns each of them into machine
code. For a function without a way into it from Python, only the kernel at the end of the calls matters.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler


class _NoEnvironments:
    """A code generator that is not told the environment of a function, which has no machine code of its own."""

    def __init__(self, codegen: Any) -> None:
        self._codegen = codegen

    def set_env(self, name: str, environment: Any) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)


class _LinkedLibrary(JITCodeLibrary):
    """The code of a function as it comes from the compiler, until a kernel takes it."""

    @property
    def codegen(self) -> Any:
        return _NoEnvironments(self._codegen)

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    def serialize_using_object_code(self) -> Any:
        return self.serialize_using_bitcode()

    def _optimize_functions(self, module: Any) -> None:
        pass

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class LinkedCompiler(Compiler):
    """Compiler of functions that only kernels call."""

    def compile_extra(self, func: Any) -> Any:
        self.state.library = _LinkedLibrary(self.state.targetctx.codegen(), func.__qualname__)
        self.state.library.enable_object_caching()
        return super().compile_extra(func)
