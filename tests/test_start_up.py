"""What is loaded by ``import clustering``, by a fit of an array and by a small job: heavy packages only where used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

HEAVY = (
    "dask",
    "distributed",
    "fsspec",
    "matplotlib",
    "numba",
    "numpy",
    "pandas",
    "prefect",
    "pydantic",
    "xarray",
    "zarr",
)
FIT = """
import numpy as np, clustering as c
rows = np.random.default_rng(0).standard_normal((300, 4)).astype({dtype!r})
fit = c.fit(rows, {model}{options})
"""


def loaded(code: str) -> set[str]:
    """Names of the modules that a new process has loaded after some code."""
    look = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_library_loads_no_other_package() -> None:
    assert not loaded("import clustering") & {*HEAVY, "asyncio", "clustering.options"}


@pytest.mark.parametrize("options", ["", ", weights=rows[:, 0] ** 2, missing='marginalize'"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_fit_of_an_array_loads_neither_xarray_nor_zarr_nor_dask(dtype: str, options: str) -> None:
    code = FIT.format(dtype=dtype, model="c.KMeans(3)", options=options) + "fit.objective, fit.centers"
    # numba loads SciPy when it compiles, which the first process may have to do.
    loaded(code)
    modules = loaded(code)
    unused = {"asyncio", "dask", "fsspec", "matplotlib", "pandas", "scipy.linalg", "scipy.special", "xarray", "zarr"}
    assert not modules & unused
    assert {"numba", "pydantic"} <= modules


def test_declaring_the_options_reads_no_source_and_prepares_no_class() -> None:
    # Python keeps the source files it has read, and pydantic looks for plugins when it prepares its first class.
    modules = loaded("import linecache, clustering.config\nassert not linecache.cache, list(linecache.cache)")
    assert "clustering.options" in modules
    assert "pydantic.plugin._loader" not in modules


@pytest.mark.parametrize("report", [False, True])
def test_a_job_over_an_array_loads_neither_xarray_nor_dask_nor_matplotlib(tmp_path: Path, report: bool) -> None:
    zarr.create_array(str(tmp_path / "rows"), shape=(60, 2), chunks=(30, 2), dtype="f8")[:] = np.arange(120.0).reshape(
        60, 2
    )
    job = {
        "source": {"store": str(tmp_path / "rows")},
        "model": {"k": 2},
        "output": {"store": str(tmp_path / "out"), "report": report},
    }
    # JSON is YAML.
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    modules = loaded(
        f"from clustering_flows.cli import run; run(['fit', {str(tmp_path / 'job.yaml')!r}, '--no-prefect'])"
    )
    assert (tmp_path / "out" / "run.json").is_file()
    assert (tmp_path / "out" / "report.html").is_file() == report
    # A progress bar is drawn by rich, and only in a terminal.
    heavy = {
        "dask",
        "distributed",
        "matplotlib",
        "pandas",
        "prefect",
        "rich",
        "scipy.linalg",
        "scipy.optimize",
        "xarray",
    }
    assert not modules & heavy


def test_a_fit_with_compiled_kernels_does_not_prepare_the_compiler() -> None:
    code = FIT.format(dtype="f8", model="c.KMeans(3)", options="")
    loaded(code)
    # The first process has compiled what the cache lacked.
    # numba imports this module when it prepares to compile.
    assert "numba.np.arraymath" not in loaded(code)


def test_idle_threads_of_blas_sleep_soon_unless_the_user_says_otherwise() -> None:
    code = """
import os, sys
from clustering_flows import __main__ as command
# OpenBLAS reads the variable when numpy loads it.
assert "numpy" not in sys.modules
import clustering_flows.cli
clustering_flows.cli.main = lambda: print(os.environ["OPENBLAS_THREAD_TIMEOUT"])
command.main()
"""
    for given, expected in ({}, "20"), ({"OPENBLAS_THREAD_TIMEOUT": "26"}, "26"):
        environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_THREAD_TIMEOUT"} | given
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.split() == [expected]
