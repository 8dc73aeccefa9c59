"""Fits what the shipped configs describe, in a folder that is thrown away."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import clustering as c
from clustering.config import JobConfig
from clustering_flows.cli import run
from clustering_flows.loading import load_config

Array = NDArray[np.float64]

ROOT = Path(__file__).parents[2]
CONFIGS = (*sorted((ROOT / "configs" / "lecture").glob("*.yaml")), ROOT / "configs" / "lecture.yaml")
"""All configs that figures are made from."""


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """Work in a temporary folder with the stores of all configs, whose relative paths lead there."""
    with tempfile.TemporaryDirectory(prefix="clustering-gallery-") as name, contextlib.chdir(name):
        make_stores()
        yield Path(name)


def commands(config: Path) -> list[list[str]]:
    """Return the commands of the comment at the top of a config, without the word ``clustering``.

    Parameters
    ----------
    config
        A shipped config.
    """
    return [shlex.split(line) for line in re.findall(r"^#   clustering (.+)$", config.read_text(), flags=re.M)]


def make_stores() -> None:
    """Make the stores of all configs in the working folder, by the commands that their comments name.

    Raises
    ------
    RuntimeError
        If a command fails; it has said why.
    """
    Path("configs").symlink_to(ROOT / "configs")
    ingests = {tuple(words) for config in CONFIGS for words in commands(config) if words[0] == "ingest"}
    for words in sorted(ingests):
        with contextlib.redirect_stdout(io.StringIO()):
            status = run(list(words))
        if status:
            raise RuntimeError(f"clustering {shlex.join(words)} failed with exit status {status}")


def config_of(name: str, *overrides: str) -> JobConfig:
    """Read a config of the lecture.

    Parameters
    ----------
    name
        Path below ``configs``, without its ending.
    *overrides
        Changes, as ``--set`` takes them.
    """
    return load_config(Path("configs") / f"{name}.yaml", overrides)


def fit(name: str, *overrides: str) -> c.Fit:
    """Fit what a config describes, as ``clustering fit`` does, to the same bits.

    Parameters
    ----------
    name, *overrides
        As for `config_of`.
    """
    config = config_of(name, *overrides)
    source = config.source.model_dump(exclude={"store"}, exclude_unset=True)
    sections = (config.preprocess, config.fit, config.compute)
    options = {key: value for part in sections for key, value in part.model_dump(exclude_unset=True).items()}
    return c.fit(config.source.store, config.model.build(), **source, **options)


def each_pass(name: str) -> list[c.Fit]:
    """Fit what a config describes up to each of its passes: the start first, the finished fit last.

    Parameters
    ----------
    name
        As for `config_of`.
    """
    last = fit(name)
    with warnings.catch_warnings():
        # Fits that end early are what is wanted here.
        warnings.simplefilter("ignore", c.ConvergenceWarning)
        return [*(fit(name, f"fit.max_iterations={passes}") for passes in range(last.iterations)), last]


def in_step(means: Array, fitted: c.Fit) -> NDArray[np.int64]:
    """Find which cluster of a fit is which of the pass before ``(k,)``, as a fit lists its clusters by size.

    Parameters
    ----------
    means
        Means of all rows by the assignment of the pass before ``(k, d)``, to which the step moves the centers.
    fitted
        Fit up to the pass.
    """
    centers = np.asarray(fitted.centers)
    spread = np.ptp(centers, axis=0) + np.ptp(means, axis=0)
    return np.asarray((np.abs(centers - means[:, None]) / spread).sum(axis=-1).argmin(axis=1), np.int64)


def rows_of(name: str) -> Array:
    """Read the rows ``(n, d)`` that a config clusters.

    Parameters
    ----------
    name
        As for `config_of`.
    """
    source = config_of(name).source
    with _opened(source.store) as data:
        variables = [data[variable].values.astype(np.float64) for variable in source.variables or ()]
    return np.column_stack(variables)


def truth_of(name: str) -> NDArray[np.int64]:
    """Read what each row of a config was drawn from ``(n,)``.

    Parameters
    ----------
    name
        As for `config_of`.
    """
    source = config_of(name).source
    with _opened(source.store) as data:
        return np.asarray(data[source.labels].values, np.int64)


def labels(fitted: c.Fit, name: str) -> NDArray[np.int64]:
    """Label the rows of a config ``(n,)``.

    Parameters
    ----------
    fitted
        A fit of it.
    name
        As for `config_of`.
    """
    return np.asarray(fitted.predict(config_of(name).source.store), np.int64)


def responsibilities(fitted: c.Fit, name: str) -> Array:
    """Compute the responsibilities of the rows of a config ``(n, k)``.

    Parameters
    ----------
    fitted, name
        As for `labels`.
    """
    return np.asarray(fitted.responsibilities(config_of(name).source.store), np.float64)


def dataset(points: Array, name: str) -> xr.Dataset:
    """Give points the names that the rows of a config have, so that its fit can label them.

    Parameters
    ----------
    points
        Points ``(m, d)``.
    name
        As for `config_of`.
    """
    variables = config_of(name).source.variables or ()
    if len(variables) == points.shape[1]:
        return xr.Dataset({variable: ("row", points[:, i]) for i, variable in enumerate(variables)})
    return xr.Dataset({variables[0]: (("row", "feature"), points)})


def _opened(store: str) -> Any:
    return xr.open_zarr(store, consolidated=False, chunks=None)
