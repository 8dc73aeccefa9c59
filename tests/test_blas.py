"""BLAS has one thread as long as anyone asks for it, and its own number of threads afterwards."""

from __future__ import annotations

import subprocess
import sys

import threadpoolctl

from clustering.blas import one_blas_thread, scipy

LATE = """
import threadpoolctl
from clustering.blas import one_blas_thread, scipy
import numpy, sys
assert "scipy.linalg" not in sys.modules

def threads():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

with threadpoolctl.threadpool_limits(3, user_api="blas"):
    with one_blas_thread():
        scipy.linalg.eigh(numpy.eye(2))
        inside = threads()
    assert set(inside) == {1}, inside
    # The libraries that were there before have their threads back.
    assert 3 in threads() and 1 not in threads(), threads()
"""


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


def test_a_library_that_is_loaded_inside_has_one_thread_too() -> None:
    environment = {"OPENBLAS_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"}
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_first_to_end_leaves_the_limit_to_the_others() -> None:
    assert scipy.linalg
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == {2}
