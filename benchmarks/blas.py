"""Which kernels OpenBLAS runs: those of this processor, whatever the environment asks for."""

from __future__ import annotations

import os
import sys

VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Environment variables that make OpenBLAS run kernels of another processor, usually slower ones."""


def use_own_kernels(module: str) -> None:
    """Start the program again without the variables, if one is set: libraries read them when they load.

    Parameters
    ----------
    module
        Name of the program, as ``python -m`` takes it.
    """
    if any(name in os.environ for name in VARIABLES):
        environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)


def kernels() -> str:
    """Name the libraries of BLAS that this process has loaded, with their kernels."""
    from threadpoolctl import threadpool_info

    loaded = {(i["internal_api"], i.get("architecture") or "") for i in threadpool_info() if i["user_api"] == "blas"}
    return ", ".join(sorted(f"{api} {architecture}".strip() for api, architecture in loaded)) or "none"


def core_type() -> str:
    """Return the kernels that fit this processor, for libraries of BLAS that are too old to know it."""
    from clustering.models.lanes import MANY_REGISTERS

    return "SkylakeX" if MANY_REGISTERS else "Haswell"
