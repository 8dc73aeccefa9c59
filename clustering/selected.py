"""The outcome of a sweep over k as users hold it: a table of choices, the recommended one, and the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clustering.deferred import pd
from clustering.fitted import Fit
from clustering.options import VARIED
from clustering.plotting import load_plots


@dataclass(frozen=True, eq=False)
class Selection:
    """Choices of k that were compared, and the recommended one. Immutable."""

    table: tuple[Mapping[str, Any], ...]
    """One row for each choice: what varies, such as ``k``, then its criteria; ``failed`` is the reason of a failure."""
    recommended: Mapping[str, Any] | None
    """The recommended choice by what varies, such as ``{"k": 5}``; None where there is no clear answer."""
    reason: str
    """Why it is recommended, or why there is no clear answer."""
    votes: Mapping[str, int | None]
    """The k that each criterion prefers; None where it prefers none."""
    fits: tuple[Fit | None, ...]
    """The fit of each row of the table; None where the choice failed."""
    reads: float
    """Number of full reads of the source, which all choices shared."""
    warnings: tuple[str, ...] = ()

    @property
    def fit(self) -> Fit | None:
        """The recommended fit; None where there is no clear answer."""
        if self.recommended is None:
            return None
        return self._fits_of(self.recommended)[0][1]

    @property
    def frame(self) -> pd.DataFrame:
        """The table as a DataFrame of pandas."""
        return pd.DataFrame([dict(row) for row in self.table])

    def fit_of(self, k: int, **options: Any) -> Fit:
        """Return the fit of one choice.

        Parameters
        ----------
        k
            Number of clusters.
        options
            Values of the further options that vary, such as ``covariance="full"``.

        Raises
        ------
        LookupError
            If there is no such choice, it failed, or several have these options; the message says which there are.
        """
        wanted = {"k": k, **options}
        chosen = self._fits_of(wanted)
        if len(chosen) > 1:
            names = [name for name in chosen[0][0] if name not in wanted]
            raise LookupError(
                f"{len(chosen)} choices have {_in_words(wanted)}; give {' and '.join(names)} too: "
                f"{'; '.join(_in_words({name: about[name] for name in names}) for about, _ in chosen)}"
            )
        if not chosen:
            ks = ", ".join(str(row["k"]) for row, fit in zip(self.table, self.fits, strict=True) if fit is not None)
            raise LookupError(f"no choice with k = {k} and {options or 'no further options'} has a fit; k may be {ks}")
        return chosen[0][1]

    def plot(self, *, ax: Any = None, criteria: Sequence[str] | None = None) -> Any:
        """Draw the criteria over k, a panel each, with the recommended choice.

        Parameters
        ----------
        ax
            Axes or a figure of matplotlib to draw on; a new figure of pyplot where None.
        criteria
            Criteria to draw, such as ``["silhouette", "gap"]``; all that were measured where None.

        Returns
        -------
        Axes, or ndarray of Axes
            One for each criterion.

        Raises
        ------
        ConfigError
            If there is no such criterion, or no choice has a fit.
        MissingDependencyError
            If matplotlib is not installed.
        """
        return load_plots("choices").selection(self.table, self.recommended, ax, criteria=criteria)

    def _fits_of(self, wanted: Mapping[str, Any]) -> list[tuple[dict[str, Any], Fit]]:
        """Return the fits of the choices that have these options, with all that varies."""
        return [
            ({name: row[name] for name in VARIED if name in row}, fit)
            for row, fit in zip(self.table, self.fits, strict=True)
            if fit is not None and all(name in row and row[name] == value for name, value in wanted.items())
        ]

    def __repr__(self) -> str:
        ks = [row["k"] for row in self.table]
        answer = "no clear answer" if self.recommended is None else _in_words(self.recommended)
        return f"<Selection of {len(ks)} choices, k {min(ks)} to {max(ks)}: {answer}>"


def _in_words(choice: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in choice.items())
