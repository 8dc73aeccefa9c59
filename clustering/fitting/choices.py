"""Choices of a sweep: models of one kind that differ in k, and perhaps in their covariance, β or divergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from clustering.errors import ConfigError
from clustering.models.model import AnyModel


@dataclass(frozen=True)
class Choice:
    """One model of a sweep."""

    model: AnyModel
    options: tuple[tuple[str, Any], ...] = ()
    """Options besides k that the sweep varies, with their values."""

    @property
    def k(self) -> int:
        """Number of clusters."""
        return int(self.model.k)

    @property
    def about(self) -> dict[str, Any]:
        """What the sweep varies, by name, as the table shows it."""
        return {"k": self.k, **dict(self.options)}

    @property
    def name(self) -> str:
        """The choice in words: ``k = 5, covariance = full``."""
        return ", ".join(f"{name} = {value}" for name, value in self.about.items())


def choices_of(model: AnyModel, ks: Sequence[int], options: Mapping[str, Sequence[Any]]) -> tuple[Choice, ...]:
    """Make the choices of a sweep, in the order of k within each combination of the other options.

    Parameters
    ----------
    model
        Gives the kind, and the options that do not vary.
    ks
        Numbers of clusters, each 1 or more.
    options
        Values of further options of the model, by name; no values mean that the option does not vary.

    Raises
    ------
    ConfigError
        If the model has no such option, or a value is not allowed.
    """
    allowed = [field.name for field in fields(model) if field.name != "k"]
    varied = {name: tuple(dict.fromkeys(values)) for name, values in options.items() if values}
    for name in varied:
        if name not in allowed:
            raise ConfigError(
                f"select.{name} is set, and {model.kind} has no option {name!r}; "
                f"it can vary {', '.join(['k', *allowed])}: leave select.{name} out, or choose another model.kind"
            )
    combinations = [tuple(zip(varied, values, strict=True)) for values in product(*varied.values())]
    return tuple(
        Choice(replace(model, k=k, **dict(combination)), combination)
        for combination in combinations
        for k in sorted(set(ks))
    )
