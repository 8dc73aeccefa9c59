"""Checks that data have the features that a model was fitted on: variables, dimensions, labels and units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from clustering.data.dimension_names import numbered
from clustering.data.opening import BARE
from clustering.data.source import About, Feature, Source
from clustering.data.units import relation
from clustering.deferred import pd
from clustering.errors import DataError
from clustering.fitting.fitted_model import FittedModel

_DATE = re.compile(r"(-?\d+-\d\d-\d\d)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?)?")
_SPAN = re.compile(r"-?\d+ [a-z]+")
_SINGLE = 2.0**-22
"""Largest relative difference of two labels that were both rounded to single precision, with a margin of 2."""
_SHOWN = 6
"""Largest number of labels that a message lists."""


def check_features(source: Source, fitted: FittedModel) -> tuple[str, ...]:
    """Refuse data whose features are not those of the model.

    Variables and dimensions are compared by name and order. Labels are compared by value: numbers to within rounding,
    dates in any precision. Units are compared by their meaning. A bare array has no names, so only the number of its
    features is compared.

    Parameters
    ----------
    source
        Data to label.
    fitted
        The fitted model.

    Returns
    -------
    tuple of str
        A line for everything that could not be compared, in words for a user.

    Raises
    ------
    DataError
        If features differ. The message names the difference and its remedy.
    """
    if source.n_features != len(fitted.features):
        raise DataError(
            f"the data have {source.n_features} features and the model was fitted on {len(fitted.features)}; "
            "select the same variables and feature dimensions"
        )
    ours, theirs = _by_variable(source.features), _by_variable(fitted.features)
    _check_variables(list(ours), list(theirs))
    if len(ours) != len(theirs):
        # One of them is a bare array, whose features lie side by side.
        return ()
    cautions = list[str]()
    untold: dict[str, list[str]] = {}
    for (name, own), (their_name, their) in zip(ours.items(), theirs.items(), strict=True):
        if len(own) != len(their):
            raise DataError(
                f"variable {name!r} has {len(own)} features and the model was fitted on {len(their)} of it; "
                "select the same labels along its feature dimensions"
            )
        cautions += _check_labels(name, own, their, source.about, fitted.about)
        own_about, model_about = source.about.get(name, {}), fitted.about.get(their_name, {})
        cautions += _check_unit(f"variable {name!r}", own_about, model_about)
        unit, wanted = own_about.get("units"), model_about.get("units")
        if unit and wanted:
            _refuse_convertible(name, unit, wanted)
        elif (unit or wanted) and BARE not in (name, their_name):
            # Collected first, so that many variables without units make one line.
            untold.setdefault("the model remembers" if unit else "the data have", []).append(repr(name))
    for d in dict.fromkeys(d for own in ours.values() for d, _ in own[0].at):
        cautions += _check_unit(f"the coordinate {d!r}", source.about.get(d, {}), fitted.about.get(d, {}))
    cautions += [f"{who} no units of {', '.join(names)}: the same units are assumed" for who, names in untold.items()]
    # Variables that share a dimension give the same line, which is shown once.
    return tuple(dict.fromkeys(cautions))


def _by_variable(features: Sequence[Feature]) -> dict[str, list[Feature]]:
    """Group features by their variable, in order."""
    by_variable: dict[str, list[Feature]] = {}
    for feature in features:
        by_variable.setdefault(feature.variable, []).append(feature)
    return by_variable


def _check_variables(ours: list[str], theirs: list[str]) -> None:
    """Compare the names of variables, and their order."""
    # A bare array has a stand-in for a name, which can be compared with nothing.
    data_names, model_names = ([name for name in names if name != BARE] for names in (ours, theirs))
    if not data_names or not model_names:
        return
    if set(model_names) != set(data_names):
        raise DataError(
            f"the data have the variables {', '.join(data_names)} and the model was fitted on "
            f"{', '.join(model_names)}; "
            "name the same variables"
        )
    if data_names != model_names:
        raise DataError(
            f"the features, of the variables {', '.join(data_names)}, are in another order than the model's "
            f"{', '.join(model_names)}; name them as for the fit"
        )


def _check_labels(name: str, own: list[Feature], their: list[Feature], ours: About, theirs: About) -> Iterator[str]:
    """Compare the dimensions of one variable's features, and the labels along them."""
    dims, model_dims = [d for d, _ in own[0].at], [d for d, _ in their[0].at]
    if dims != model_dims and not (_unnamed(name, dims) or _unnamed(their[0].variable, model_dims)):
        raise DataError(
            f"the features of variable {name!r} lie along {', '.join(dims) or 'no dimension'}, and the model's along "
            f"{', '.join(model_dims) or 'none'}; name source.feature_dims as for the fit, or rename the dimensions"
        )
    if len(dims) != len(model_dims):
        return
    for index, (d, their_d) in enumerate(zip(dims, model_dims, strict=True)):
        labels, wanted = [f.at[index][1] for f in own], [f.at[index][1] for f in their]
        labelled, was_labelled = d in ours or not _counted(labels), their_d in theirs or not _counted(wanted)
        if labelled and was_labelled:
            _compare(d, labels, wanted, ours, theirs.get(their_d, {}).get("units"))
            continue
        if _ranks(labels) != _ranks(wanted):
            raise DataError(
                f"dimension {d!r} has length {len(set(labels))} and the model's {their_d!r} {len(set(wanted))}; "
                "name and select source.feature_dims as for the fit"
            )
        if labelled != was_labelled and not (_unnamed(name, dims) or _unnamed(their[0].variable, model_dims)):
            who = "the data have no labels" if was_labelled else "the model remembers no labels"
            yield f"{who} along {d!r}: the features are compared by position"


def _unnamed(variable: str, dims: list[str]) -> bool:
    """Return whether dimensions have stand-in names, because the array came without names."""
    return bool(dims) and (numbered(dims) or (variable == BARE and dims == ["feature"]))


def _counted(labels: Sequence[Any]) -> bool:
    """Return whether labels are 0, 1, 2, …, so that they may be positions rather than coordinates."""
    distinct = list(dict.fromkeys(labels))
    return all(type(label) is int for label in distinct) and distinct == list(range(len(distinct)))


def _ranks(labels: Sequence[Any]) -> list[int]:
    """Replace each label by its position among the distinct labels."""
    order = {label: rank for rank, label in enumerate(dict.fromkeys(labels))}
    return [order[label] for label in labels]


def _compare(d: str, labels: Sequence[Any], wanted: Sequence[Any], about: About, unit: str | None) -> None:
    """Refuse other labels along one dimension; numbers are converted to the model's unit first."""
    own_unit = about.get(d, {}).get("units")
    everything = (*labels, *wanted)
    if own_unit == unit and all(type(label) is int for label in everything):
        # 64-bit integers, such as sensor numbers, may differ by less than float64 can hold.
        same = np.array([a == b for a, b in zip(labels, wanted, strict=True)])
    elif all(_is_number(label) for label in everything):
        own, their = np.asarray(labels, np.float64), np.asarray(wanted, np.float64)
        if unit and own_unit:
            to = relation(own_unit, unit)
            own = own * to.factor + to.summand
        with np.errstate(invalid="ignore"):
            same = (np.abs(own - their) <= _near(their)) | (np.isnan(own) & np.isnan(their))
    else:
        same = np.array([_value(a) == _value(b) for a, b in zip(labels, wanted, strict=True)])
    if same.all():
        return
    first = int(np.argmin(same))
    data_labels, model_labels = list(dict.fromkeys(labels)), list(dict.fromkeys(wanted))
    sides = (own_unit, unit) if own_unit != unit else (None, None)
    # Units are printed only where they differ: then they may be all that differs.
    data_text, model_text = (_shown(one, u) for one, u in zip((data_labels, model_labels), sides, strict=True))
    if sides == (None, None) and sorted(map(str, data_labels)) == sorted(map(str, model_labels)):
        raise DataError(
            f"the labels of {d!r}, {data_text}, are in another order than the model's, {model_text}; "
            "select them as for the fit"
        )
    raise DataError(
        f"the labels of {d!r} are {data_text}, and the model was fitted on {model_text} ({labels[first]} where it has "
        f"{wanted[first]}); select the model's labels, or bring the data to them"
    )


def _is_number(label: Any) -> bool:
    return isinstance(label, (int, float)) and not isinstance(label, bool)


def _near(labels: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Return the difference up to which two labels count as equal.

    It is a millionth of the least spacing, or the rounding of single precision where that is more. It stays below a
    quarter of the spacing, so that neighbouring labels never count as equal.
    """
    numbers = np.unique(labels[np.isfinite(labels)])
    largest = float(np.abs(numbers).max(initial=0.0))
    gap = float(np.diff(numbers).min()) if numbers.size > 1 else largest
    return min(max(1e-6 * gap, _SINGLE * largest), 0.25 * gap)


def _value(label: Any) -> Any:
    """Bring a label to a form that can be compared: dates and time spans are written in several precisions."""
    if not isinstance(label, str):
        return label
    date = _DATE.fullmatch(label)
    if date is not None:
        day, hour, minute, second, fraction = date.groups()
        # The same date may be written with or without a time, so missing parts count as zero.
        return day, hour or "00", minute or "00", second or "00", (fraction or "").rstrip("0")
    if _SPAN.fullmatch(label):
        try:
            return pd.Timedelta(label)
        except ValueError:
            return label
    return label


def _shown(labels: Sequence[Any], unit: str | None) -> str:
    """Write the first labels, and their unit, for a message."""
    text = ", ".join(map(str, labels[:_SHOWN])) + (", …" if len(labels) > _SHOWN else "")
    return f"{text} {unit}" if unit else text


def _check_unit(what: str, data_about: Mapping[str, str], model_about: Mapping[str, str]) -> Iterator[str]:
    """Refuse units of another kind and the opposite direction; yield a line for units that are not recognised."""
    unit, wanted = data_about.get("units"), model_about.get("units")
    directions = data_about.get("positive", "").lower(), model_about.get("positive", "").lower()
    if all(directions) and directions[0] != directions[1]:
        raise DataError(
            f"{what} counts {directions[0]} as positive and the model's counts {directions[1]}; "
            "change its sign and its attribute 'positive'"
        )
    # Many stores have no units, so a missing unit is no reason to refuse data.
    kind = relation(unit, wanted).kind if unit and wanted else "same"
    if kind == "different":
        raise DataError(
            f"{what} is in {unit!r} and the model was fitted on {wanted!r}, which is of another kind; "
            "name the variable that the model was fitted on, or correct its attribute 'units'"
        )
    if kind == "unknown":
        yield f"{what} is in {unit!r} and the model was fitted on {wanted!r}: the same units are assumed"


def _refuse_convertible(name: str, unit: str, wanted: str) -> None:
    """Refuse other units of the same kind. The message gives the factor and summand that convert them."""
    conversion = relation(unit, wanted)
    if conversion.kind == "convertible":
        factor = "" if conversion.factor == 1.0 else f" times {conversion.factor:.12g}"
        summand = (
            f" {'plus' if conversion.summand > 0 else 'minus'} {abs(conversion.summand):.12g}"
            if conversion.summand
            else ""
        )
        raise DataError(
            f"variable {name!r} is in {unit!r} and the model was fitted on {wanted!r}; convert it (its value{factor}"
            f"{summand}), and set its attribute 'units' to {wanted!r}"
        )
