"""Options of a fit, and the check of their combinations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clustering.data.source import Source
from clustering.errors import ConfigError
from clustering.execution.fraction import RowFraction
from clustering.fitting.acceleration import Acceleration
from clustering.fitting.loop import StoppingRule
from clustering.fitting.preprocessing import check_preprocess
from clustering.models.model import AnyModel
from clustering.options import DEFAULT_RESTARTS, FitOptions, PreprocessOptions


@dataclass(frozen=True, eq=False)
class Options:
    """All options of a fit."""

    fit: FitOptions = field(default_factory=FitOptions)
    preprocess: PreprocessOptions = field(default_factory=PreprocessOptions)
    rule: StoppingRule = field(default_factory=StoppingRule)

    @property
    def finalists(self) -> int:
        """Largest number of candidates that go over the full data."""
        return 1 if self.fit.finalists is None else self.fit.finalists

    @property
    def acceleration(self) -> Acceleration | None:
        """State of the acceleration before the first pass; None where all steps are plain."""
        return Acceleration() if self.fit.accelerate == "auto" else None

    @property
    def row_fraction(self) -> RowFraction | None:
        """Rule that draws the rows of the fit; None where all rows take part."""
        return None if self.fit.fraction == 1.0 else RowFraction(self.fit.fraction, self.fit.seed)


def options_for(model: AnyModel, fit: FitOptions, preprocess: PreprocessOptions) -> Options:
    """Collect the options of a fit. A tolerance and a number of finalists that are not given are those of the model.

    Parameters
    ----------
    model
        The model to fit.
    fit
        How to fit.
    preprocess
        Preprocessing of the rows.
    """
    tolerance = model.tolerance if fit.tolerance is None else fit.tolerance
    if fit.finalists is None:
        most = DEFAULT_RESTARTS if fit.restarts is None else fit.restarts
        fit = fit.model_copy(update={"finalists": min(model.finalists, most)})
    return Options(fit, preprocess, StoppingRule(tolerance, fit.max_iterations, fit.max_seconds))


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
    check_preprocess(options.preprocess, source, model.start_divergence)
    if options.fit.uses_labels and source.labels is None:
        raise ConfigError("init is 'labels' and no labels are named; set source.labels to a variable of known clusters")
    if isinstance(options.fit.init, Mapping):
        # Covariances are left out for the kind `identity`, which has none to give. The model checks the other kinds.
        keys = model.init_arrays | {"centers"}
        if not model.init_arrays or not {"centers", "weights"} <= set(options.fit.init) <= keys:
            allowed = f", or from {', '.join(sorted(keys))} (centers and weights at least)" if model.init_arrays else ""
            raise ConfigError(
                f"init has the keys {', '.join(map(str, options.fit.init))}; "
                f"{model.kind} starts from an array of centers{allowed}"
            )
