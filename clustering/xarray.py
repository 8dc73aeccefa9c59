"""Gives objects of xarray the accessor ``cluster``: ``ds.cluster.kmeans(k=8, sample_dims=…)``.

``import clustering.xarray`` registers it in any order of imports. ``import clustering`` does so where xarray was
imported before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from clustering.accessor import ClusterAccessor


# A function in place of the class, so that this module costs nothing to import.
def _cluster(data: Any) -> ClusterAccessor:
    from clustering.accessor import ClusterAccessor

    return ClusterAccessor(data)


xr.register_dataset_accessor("cluster")(_cluster)  # type: ignore[no-untyped-call]
xr.register_dataarray_accessor("cluster")(_cluster)  # type: ignore[no-untyped-call]
