"""How far rows are from the components of a mixture: what is told of them; see `clustering.models.distances`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from clustering.data.rows import Rows
from clustering.models import covariances as kinds
from clustering.models import gap_kernels, gaps
from clustering.models.columns import columns_of
from clustering.models.distances import Away
from clustering.models.mixture_params import MixtureParams
from clustering.models.names import Covariance

MEASURE: Mapping[str, str] = {"long_name": "Mahalanobis distance under the component's covariance", "units": "1"}


def from_components(kind: Covariance, params: MixtureParams, rows: Rows) -> Iterator[Away]:
    """Tell how far rows are from the components of a mixture, under the covariance of each.

    Of rows with missing features, under the covariance of what was observed.
    """
    k = params.k
    if kind in ("identity", "spherical", "diagonal"):
        _, scales, densities = gaps.independent(kind, params.centers, params.factors)
        for start, stop, columns in columns_of(rows, params.shift, k):
            out, offsets = np.empty((k, stop - start)), np.empty((k, stop - start))
            gap_kernels.squares(columns, params.centers, scales, densities, out, offsets)
            yield Away(slice(start, stop), np.sqrt(out))
        return
    whole = None if rows.gaps is None else np.flatnonzero(~rows.gaps)
    for start, stop, columns in columns_of(rows if rows.gaps is None else rows.some(~rows.gaps), params.shift, k):
        out = np.empty((k, stop - start))
        kinds.factored(params.factors, params.centers, columns, out)
        yield Away(slice(start, stop) if whole is None else whole[start:stop], np.sqrt(out))
    if rows.gaps is not None:
        holed = np.flatnonzero(rows.gaps)
        for some in gaps.patterns(rows.some(rows.gaps), params.shift, k):
            given = gaps.conditioned(kind, params.centers, params.covariances, some)
            yield Away(holed[some.places], np.sqrt(given.squares))
