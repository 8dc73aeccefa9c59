"""Reads the parameters of a mixture to draw rows from, from a YAML file or a fitted model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clustering.errors import ConfigError, SourceError, nearest
from clustering.fitting.fitted_model import FittedModel
from clustering.models.sampling import (
    RowGenerator,
    check_whole_number,
    mixture_from_user,
)
from clustering.storage.model import load_model
from clustering.storage.paths import in_bucket
from clustering_flows.documents import kind_of, read_document

KEYS = ("weights", "means", "centers", "covariances", "covariance", "rows", "seed")


@dataclass(frozen=True, eq=False)
class Parameters:
    """A mixture, and the number of rows and the seed where the file gives them."""

    mixture: RowGenerator
    rows: int | None = None
    seed: int | None = None


def _of_model(fitted: FittedModel) -> Parameters:
    """Take the parameters of a fitted model, in the data's own units."""
    mixture = fitted.model.generative(fitted.params)
    return Parameters(mixture if fitted.preparation is None else mixture.before(fitted.preparation))


def load_parameters(path: str) -> Parameters:
    """Read the parameters of a mixture.

    Parameters
    ----------
    path
        A YAML file with ``weights (k,)``, ``means (k, d)``, ``covariances`` as for
        `clustering.models.sampling.mixture_from_user`, and optionally ``rows`` and ``seed``; or a model.zarr, or the
        output of a run.

    Raises
    ------
    ConfigError, SourceError
        If there is no such file, or it does not describe a mixture.
    """
    if in_bucket(path) or Path(path).is_dir():
        fitted, _ = load_model(path)
        return _of_model(fitted)
    what = f"the parameter file {path!r}"
    try:
        content = read_document(path, what)
    except OSError as error:
        raise SourceError(f"cannot read {what}: {error.strerror}; name a YAML file, or a fitted model") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{what} {kind_of(content or None)} and holds no keys; {nearest('', KEYS)}")
    try:
        return _checked(content)
    except ConfigError as error:
        # The checks of the library do not know the file, so its name is added here.
        raise ConfigError(f"{what}: {error}") from error


def _checked(content: dict[Any, Any]) -> Parameters:
    for key in content:
        if key not in KEYS:
            raise ConfigError(f"unknown key {key!r}; {nearest(str(key), KEYS)}")
    if ("means" in content) == ("centers" in content):
        fault = "are both there" if "means" in content else "are missing"
        raise ConfigError(f"keys 'means' and 'centers' {fault}; give one of them, the means (k, d)")
    if "weights" not in content:
        raise ConfigError("key 'weights' is missing; give the share of each component, adding up to 1")
    means = content.get("means", content.get("centers"))
    numbers = {
        name: check_whole_number(name, content[name], least)
        for name, least in (("rows", 1), ("seed", 0))
        if content.get(name) is not None
    }
    mixture = mixture_from_user(content["weights"], means, content.get("covariances"), content.get("covariance"))
    return Parameters(mixture, **numbers)
