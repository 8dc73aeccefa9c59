"""Options of a fit, and the check of their combinations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clustering.data.source import Source
from clustering.errors import ConfigError
from clustering.execution.fraction import RowFraction
from clustering.fitting.loop import StoppingRule
from clustering.fitting.preprocessing import (
    Preprocess,
)
from clustering.fitting.seeding import Init
from clustering.models.model import AnyModel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """Options of a fit; see the keys of `fit` in the config.

    Raises
    ------
    ConfigError
        For a value outside its range.
    """

    seed: int = 0
    restarts: int = 10
    """Number of starts that compete on the row sample."""
    finalists: int = 1
    """Number of best restarts that go over the full data."""
    sample_rows: int = 200_000
    init: Init | Literal["labels"] | NDArray[Any] | Mapping[str, Any] = "kmeans++"
    """``kmeans++`` or ``random`` draw starts from the row sample. ``labels`` starts from the means of labelled rows. An
    array of centers ``(k, d)`` in the data's units, or a mapping with centers, weights and covariances of a mixture,
    is the only start."""
    rule: StoppingRule = field(default_factory=StoppingRule)
    fraction: float = 1.0
    """Share of the rows that pass 0 and the passes go over, drawn at random. Labels are written for all rows."""
    preprocess: Preprocess = field(default_factory=Preprocess)
    """Preprocessing of the rows."""

    def __post_init__(self) -> None:
        for name, least in (("restarts", 1), ("finalists", 1), ("sample_rows", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ConfigError(f"{name} is {value!r}; a whole number of {least} or more is needed")
        if self.seed >= 2**63:
            raise ConfigError(f"seed is {self.seed}; a whole number below 2**63 is needed")
        if self.finalists > self.restarts:
            raise ConfigError(
                f"finalists is {self.finalists} and restarts is {self.restarts}; there cannot be more finalists"
            )
        if isinstance(self.init, str) and self.init not in ("kmeans++", "random", "labels"):
            raise ConfigError(
                f"init is {self.init!r}; allowed: kmeans++, random, labels, or an array of centers (k, d)"
            )
        number = isinstance(self.fraction, (int, float, np.number)) and not isinstance(self.fraction, bool)
        if not number or not 0.0 < self.fraction <= 1.0:
            raise ConfigError(f"fraction is {self.fraction!r}; a number above 0 and up to 1 is needed")

    @property
    def draws_starts(self) -> bool:
        """Whether starts are drawn at random, so that the order of the clusters has no meaning."""
        return isinstance(self.init, str) and self.init != "labels"

    @property
    def row_fraction(self) -> RowFraction | None:
        """Rule that draws the rows of the fit; None where all rows take part."""
        return None if self.fraction == 1.0 else RowFraction(float(self.fraction), int(self.seed))

    @property
    def uses_labels(self) -> bool:
        """Whether clusters start from the means of labelled rows."""
        return isinstance(self.init, str) and self.init == "labels"


def check_combination(source: Source, model: AnyModel, options: Options) -> None:
    """Refuse options that cannot be combined, before any data are read.

    Parameters
    ----------
    source
        Data to cluster.
    model
        The model to fit.
    options
        How to fit.

    Raises
    ------
    ConfigError
        If two settings exclude each other; the message names both.
    """
    if source.missing == "marginalize" and model.start_divergence != "squared_euclidean":
        raise ConfigError(
            f"missing is 'marginalize' and divergence is {model.start_divergence!r}; only squared_euclidean leaves out "
            "single features; set source.missing to 'drop'"
        )
    options.preprocess.check(source, model.start_divergence)
    if options.uses_labels and source.labels is None:
        raise ConfigError("init is 'labels' and no labels are named; set source.labels to a variable of known clusters")
    if isinstance(options.init, Mapping):
        # Covariances are left out for the kind `identity`, which has none to give. The model checks the other kinds.
        keys = model.init_arrays | {"centers"}
        if not model.init_arrays or not {"centers", "weights"} <= set(options.init) <= keys:
            allowed = f", or from {', '.join(sorted(keys))} (centers and weights at least)" if model.init_arrays else ""
            raise ConfigError(
                f"init has the keys {', '.join(map(str, options.init))}; {model.kind} starts from an array of centers"
                f"{allowed}"
            )
