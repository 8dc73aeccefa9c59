"""Whether data have the features that a model was fitted on."""

from __future__ import annotations

from clustering.data.opening import BARE
from clustering.data.source import Source
from clustering.errors import DataError
from clustering.fitting.fitted import Fitted


def check_features(source: Source, fitted: Fitted) -> None:
    """Refuse data whose features are not those of the model.

    Raises
    ------
    DataError
        If their number, their variables or their order differ. A bare array names no variable, and may hold any.
    """
    if source.n_features != len(fitted.features):
        raise DataError(
            f"the data have {source.n_features} features and the model was fitted on {len(fitted.features)}; "
            "select the same variables and feature dimensions"
        )
    theirs, ours = [str(f) for f in fitted.features], [str(f) for f in source.features]
    variables = [dict.fromkeys(f.variable for f in features) for features in (fitted.features, source.features)]
    known, given = ([name for name in names if name != BARE] for names in variables)
    if known and given and set(known) != set(given):
        raise DataError(
            f"the data have the variables {', '.join(given)} and the model was fitted on {', '.join(known)}; "
            "name the same variables"
        )
    if theirs != ours and sorted(theirs) == sorted(ours):
        first = next(i for i, pair in enumerate(zip(theirs, ours, strict=True)) if pair[0] != pair[1])
        raise DataError(
            f"the features {', '.join(ours[first : first + 3])} are in another order than the model's "
            f"{', '.join(theirs[first : first + 3])}; name and select them as for the fit"
        )
