"""Preprocessing: fits the preparation of rows from the survey of pass 0, so that no further pass is needed.

The order of the steps is: unit norm, standardization, feature weights, principal components, whitening.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.blas import one_blas_thread, scipy
from clustering.data import alignment, in_memory_variables
from clustering.data.feature_weights import check_feature_weights, feature_weights
from clustering.data.plan import Plan
from clustering.data.preparation import Preparation
from clustering.data.source import Source
from clustering.data.source_fingerprint import source_fingerprint
from clustering.errors import ConfigError, DataError, DomainError
from clustering.execution.engine import Engine
from clustering.execution.map_reduce import most_tasks
from clustering.fitting.principal_components import Spectrum, centred_rows, of_covariance, of_rows, scatter_of
from clustering.models import divergences as geometry
from clustering.models.option_names import Divergence
from clustering.models.survey import WIDEST_COVARIANCE, DistinctRows, Survey
from clustering.options import PreprocessOptions

Array = NDArray[np.float64]

_NODES_AT_WORK = 4
"""Scatter matrices that a task holds beside those of its part of the tree: of the block, of a sub-block, their sum and
a temporary."""


def check_preprocess(preprocess: PreprocessOptions, source: Source, divergence: Divergence) -> None:
    """Refuse options that do not go with the data or the divergence.

    Parameters
    ----------
    preprocess
        Preprocessing of the rows.
    source
        Data to cluster.
    divergence
        Divergence of the model.

    Raises
    ------
    ConfigError
        If two settings exclude each other; the message names both.
    """
    if source.missing == "marginalize":
        for name in ("unit_norm", "pca", "whiten"):
            value = getattr(preprocess, name)
            if value is not None and value is not False:
                raise ConfigError(
                    f"missing is 'marginalize' and {name} is {value!r}, which needs all features of a row; "
                    "set source.missing to 'drop'"
                )
    if preprocess.removes_mean and divergence in ("kullback_leibler", "itakura_saito"):
        name = "standardize" if preprocess.standardize else "pca" if preprocess.pca is not None else "whiten"
        raise ConfigError(
            f"{name} is {getattr(preprocess, name)!r} and divergence is {divergence!r}, which compares numbers above "
            "zero, not differences from a mean; leave it out, or choose another model.divergence"
        )


def scatter_refusal(d: int, plan: Plan, engine: Engine, memory: int) -> str | None:
    """Say why the scatter of all features does not fit into memory in pass 0; None where it fits.

    A task holds one ``(d, d)`` matrix for each level of its part of the tree, and a few temporaries. The matrices of
    finished tasks wait beside them to be added.

    Parameters
    ----------
    d
        Number of features.
    plan
        Blocks of pass 0.
    engine
        Engine that runs it; its numbers of threads and workers count.
    memory
        Memory budget of a worker, in bytes; half of it is for decoded rows.
    """
    if d <= WIDEST_COVARIANCE:
        return None
    threads = -(-engine.threads // engine.workers)
    tasks = most_tasks(len(plan), engine.threads)
    levels = math.ceil(math.log2(-(-len(plan) // tasks))) + 1
    nodes = threads * (levels + _NODES_AT_WORK) + -(-tasks // engine.workers)
    needed = nodes * 8 * d * d
    if needed <= memory // 2:
        return None
    return (
        f"principal components of {d} features take {needed / 2**20:,.0f} MiB for sums of products in pass 0, and "
        f"half of compute.memory is {memory / 2**21:,.0f} MiB; raise compute.memory, lower compute.workers, or "
        "select fewer features, or fewer rows than features"
    )


def fingerprint(preprocess: PreprocessOptions, source: Source) -> str:
    """Digest the identity of a source, and of the feature weights where there are any.

    Parameters
    ----------
    preprocess
        Options of preprocessing; only its feature weights count.
    source
        Data to cluster.
    """
    digest = source_fingerprint(source)
    if preprocess.feature_weights is None:
        return digest
    # The values count and not the name, because the content of a named variable may change.
    return hashlib.sha256(digest.encode() + _weights(preprocess, source).tobytes()).hexdigest()


def fit_preparation(preprocess: PreprocessOptions, survey: Survey, source: Source) -> Preparation | None:
    """Fit the preparation to the mean and scatter of pass 0.

    Standardization is that of scikit-learn's ``StandardScaler``: variances are divided by the total weight. Principal
    components are those of its ``PCA``: eigenvectors of the covariance, with the largest loading of each positive. A
    share f keeps the fewest components that explain more than f of the variance. Whitening divides by the square root
    of scatter / W · n / (n − 1), with n the number of rows of positive weight and W the total weight.

    Parameters
    ----------
    preprocess
        Options of preprocessing.
    survey
        Survey of the decoded rows; of rows of length 1 where ``unit_norm`` is set.
    source
        Data to cluster, for the names and weights of its features.

    Returns
    -------
    Preparation or None
        None where no preprocessing is asked for.

    Raises
    ------
    DataError
        For features that are constant, or fewer components than asked for.
    """
    if not preprocess.requested:
        return None
    d, groups, words = source.n_features, _groups(source), []
    offset, scale = np.zeros(d), np.ones(d)
    if preprocess.unit_norm:
        words.append("rows to unit norm")
    weights = _weights(preprocess, source)
    if preprocess.standardize:
        offset, scale = _standards(preprocess, survey, source, groups, weights)
        words.append(f"standardize {preprocess.standardize.replace('_', ' ')}")
    if preprocess.feature_weights is not None:
        scale = scale * weights
        named = preprocess.feature_weights if isinstance(preprocess.feature_weights, str) else "an array"
        words.append(f"feature weights {named}")
    # Feature weights of 0 cannot be undone. On the way back, such a feature gets its mean.
    offset = np.where(scale > 0.0, offset, survey.mean)
    back = np.where(scale > 0.0, 1.0 / np.where(scale > 0.0, scale, 1.0), 0.0)
    facts: dict[str, Any] = {"n_components": d}
    if not preprocess.needs_covariance:
        return Preparation(preprocess.unit_norm, offset, scale, back, preprocess.requested, facts, "; ".join(words))
    parts = groups if preprocess.pca_per_variable else {None: slice(0, d)}
    # Where rows are fewer than features, the components follow from the rows and no covariance was made.
    with np.errstate(over="ignore", invalid="ignore"):
        rows, total = centred_rows(survey, scale), survey.variance * scale * scale
        covariance = survey.covariance * np.outer(scale, scale) if rows is None else total
    _check_finite(covariance)
    bases = {
        name: _components(
            preprocess, of_covariance(covariance[part, part]) if rows is None else of_rows(rows[:, part]), survey, name
        )
        for name, part in parts.items()
    }
    values = np.concatenate([variances for variances, _ in bases.values()])
    loadings = scipy.linalg.block_diag(*(vectors for _, vectors in bases.values()))
    roots = np.ones(len(values))
    if preprocess.whiten:
        # Whitening follows scikit-learn, whose PCA divides the scatter by n − 1.
        roots = np.sqrt(values * (survey.n_positive / max(1, survey.n_positive - 1)))
    explained = values / float(np.trace(covariance) if rows is None else total.sum())
    share = float(explained.sum())
    facts = {"n_components": len(values), "explained_variance": share}
    if preprocess.pca_per_variable:
        facts["components"] = {name: len(variances) for name, (variances, _) in bases.items()}
    each = " of each variable" if preprocess.pca_per_variable else ""
    words.append(f"PCA{each}: {len(values)} of {d} components, {100 * share:.4g} % of variance")
    words += ["whitened"] * preprocess.whiten
    return Preparation(
        preprocess.unit_norm,
        survey.mean,
        np.ascontiguousarray(loadings * scale[:, None] / roots),
        np.ascontiguousarray(loadings.T * back * roots[:, None]),
        preprocess.requested,
        facts,
        "; ".join(words),
        explained,
    )


def prepare_survey(survey: Survey, preparation: Preparation, divergence: Divergence) -> Survey:
    """Turn the survey of decoded rows into the survey of prepared rows, without a further pass.

    For principal components, the least and greatest values are bounds, which the rows need not reach.

    Parameters
    ----------
    survey
        Survey of the decoded rows.
    preparation
        The fitted preparation.
    divergence
        Divergence of the model, whose domain the prepared sample must lie in.

    Raises
    ------
    DataError
        If the divergence is not defined for a prepared row of the sample.
    """
    matrix = preparation.matrix
    values, _ = preparation.apply_to_values(survey.sample.values)
    try:
        geometry.check_domain(divergence, values)
    except DomainError as error:
        raise DataError(
            f"{error.fault} after preprocessing: {error.reason}; change preprocess, or choose another model.divergence"
        ) from None
    low, high = survey.least - preparation.offset, survey.greatest - preparation.offset
    if preparation.diagonal:
        with np.errstate(over="ignore", invalid="ignore"):
            low, high = low * matrix, high * matrix
            scatter = survey.scatter * (np.outer(matrix, matrix) if survey.scatter.ndim == 2 else matrix * matrix)
    else:
        # Interval arithmetic: positive loadings carry upper limits to upper limits, negative ones to lower limits.
        up, down = np.maximum(matrix, 0.0), np.minimum(matrix, 0.0)
        low, high = low @ up + high @ down, high @ up + low @ down
        if survey.scatter.ndim == 1:
            scatter = scatter_of(values, survey.sample.weights, preparation.to_prepared(survey.mean[None])[0])
        else:
            # One thread, as the number of BLAS threads changes the order of sums.
            with one_blas_thread():
                scatter = matrix.T @ survey.scatter @ matrix
            scatter = 0.5 * (scatter + scatter.T)
    _check_finite(scatter)
    return replace(
        survey,
        mean=preparation.to_prepared(survey.mean[None])[0],
        scatter=scatter,
        least=low,
        greatest=high,
        samples=(survey.sample._replace(values=values),),
        distinct=DistinctRows(survey.distinct.digests, preparation.apply_to_values(survey.distinct.values)[0]),
    )


def zero_row_notes(rows: int) -> tuple[str, ...]:
    """Warn of zero rows, which are left out where rows are brought to length 1; empty where there are none.

    Parameters
    ----------
    rows
        Number of zero rows.
    """
    if not rows:
        return ()
    what = (
        "1 row of zeros has no direction and is" if rows == 1 else f"{rows:,} rows of zeros have no direction and are"
    )
    return (
        f"{what} left out, as preprocess.unit_norm asks for one; labels there are -1: mask such rows with source.mask, "
        "or set preprocess.unit_norm to false",
    )


def _check_finite(scatter: Array) -> None:
    if not np.isfinite(scatter).all():
        raise DataError(
            "squares overflow float64 after preprocessing; lower preprocess.feature_weights, or rescale the data"
        )


def _groups(source: Source) -> dict[str, slice]:
    """Return the columns of each variable, which lie side by side."""
    names = [feature.variable for feature in source.features]
    return {name: slice(names.index(name), names.index(name) + names.count(name)) for name in dict.fromkeys(names)}


def _weights(preprocess: PreprocessOptions, source: Source) -> Array:
    """Return the feature weights ``(d,)``; all 1 where none are set."""
    d = source.n_features
    if preprocess.feature_weights is None:
        return np.ones(d)
    if isinstance(preprocess.feature_weights, str):
        return feature_weights(source, preprocess.feature_weights)
    values, _ = in_memory_variables.array_meant(
        "feature_weights", preprocess.feature_weights, valid=source.valid_range == "cf"
    )
    array = alignment.as_named(values, "feature_weights", "feature")
    if array is not None and not (array.ndim == 1 and not source.labelled):
        return feature_weights(source, array)
    try:
        given = np.ma.filled(np.ma.asarray(values if array is None else array.values, np.float64), np.nan)
    except (TypeError, ValueError):
        raise ConfigError(f"feature_weights are no array of numbers; give {d} numbers, or a name") from None
    if given.shape != (d,):
        raise ConfigError(f"feature_weights have shape {given.shape}, and there are {d} features; give shape ({d},)")
    check_feature_weights(given)
    return given


def _standards(
    preprocess: PreprocessOptions, survey: Survey, source: Source, groups: Mapping[str, slice], weights: Array
) -> tuple[Array, Array]:
    """Return the mean that is subtracted from each feature ``(d,)``, and its factor ``(d,)``."""
    mean, variance = survey.mean, survey.variance
    if preprocess.standardize == "per_variable":
        mean, variance = mean.copy(), variance.copy()
        for part in groups.values():
            # Law of total variance: mean of the variances plus variance of the means, with equal shares of features.
            middle = float(survey.mean[part].mean())
            variance[part] = float((survey.variance[part] + (survey.mean[part] - middle) ** 2).mean())
            mean[part] = middle
    # A constant feature of weight 0 is dropped anyway, and does no harm.
    constant = np.flatnonzero((variance == 0.0) & (weights > 0.0))
    if len(constant):
        feature = source.features[constant[0]]
        what = f"feature {feature} of variable" if preprocess.standardize == "per_feature" else "variable"
        raise DataError(
            f"{what} {feature.variable!r} is constant, and preprocess.standardize divides by its standard deviation; "
            "leave it out with source.select or source.variables, or set preprocess.standardize to false"
        )
    return mean, 1.0 / np.sqrt(np.where(variance > 0.0, variance, 1.0))


def _components(
    preprocess: PreprocessOptions, spectrum: Spectrum, survey: Survey, name: str | None
) -> tuple[Array, Array]:
    """Return the variances ``(p,)`` of the wanted principal components, and their loadings ``(d, p)``."""
    values, d, where = spectrum.values, len(spectrum.values), "" if name is None else f" of variable {name!r}"
    most = min(survey.n_positive, d)
    whole = isinstance(preprocess.pca, int)
    if whole and preprocess.pca > most:  # type: ignore[operator]
        what = f"features{where}" if most < survey.n_positive else "rows of positive weight"
        raise DataError(f"pca is {preprocess.pca}, and there are {most} {what}; set preprocess.pca to {most} or fewer")
    if not values[0] > 0.0:
        raise DataError(f"the features{where} do not vary, so that there are no principal components; leave them out")
    p = most
    if whole:
        p = int(preprocess.pca)  # type: ignore[arg-type]
    elif preprocess.pca is not None:
        shares = np.cumsum(values / values.sum())
        p = min(most, int(np.searchsorted(shares, preprocess.pca, side="right")) + 1)
    if preprocess.whiten:
        # Variances within rounding of zero are noise, and whitening would divide by them.
        rank = int((values[:p] > 16 * d * np.finfo(float).eps * values[0]).sum())
        if rank < p:
            raise DataError(
                f"whiten divides by standard deviations, and {rank} of {p} components{where} vary; "
                f"set preprocess.pca to {rank} or fewer"
            )
    return values[:p], spectrum.loadings(p)
