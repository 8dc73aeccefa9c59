"""Exact, reproducible clustering of Zarr data larger than memory.

The names below are loaded when they are first used, so that ``import clustering`` stays light.
"""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from clustering.deferred import load_module

# Type checkers and editors do not run `__getattr__`, so they find the names here.
if TYPE_CHECKING:
    from clustering.api import Fit, Run, Selection, fit, load_fit, run, select_k
    from clustering.data.access import open_source
    from clustering.data.source import Source
    from clustering.errors import ClusteringError, ClusteringWarning, ConvergenceWarning
    from clustering.images.quantization import Quantized, quantize
    from clustering.images.segmentation import Segmented, segment
    from clustering.models.kmeans import KMeans
    from clustering.models.mixture import GaussianMixture
    from clustering.models.soft_kmeans import SoftKMeans
    from clustering.models.von_mises_fisher import VonMisesFisher

__version__ = "0.1.0"

# The program that uses the library decides where its log goes.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = {
    "ClusteringError": "clustering.errors",
    "ClusteringWarning": "clustering.errors",
    "ConvergenceWarning": "clustering.errors",
    "Fit": "clustering.fitted",
    "GaussianMixture": "clustering.models.mixture",
    "KMeans": "clustering.models.kmeans",
    "SoftKMeans": "clustering.models.soft_kmeans",
    "VonMisesFisher": "clustering.models.von_mises_fisher",
    "Source": "clustering.data.source",
    "fit": "clustering.api",
    "load_fit": "clustering.fitted",
    "Run": "clustering.api",
    "run": "clustering.api",
    "open_source": "clustering.data.access",
    "Selection": "clustering.selected",
    "select_k": "clustering.api",
    "Quantized": "clustering.images.quantization",
    "quantize": "clustering.images.quantization",
    "Segmented": "clustering.images.segmentation",
    "segment": "clustering.images.segmentation",
}

__all__ = [
    "ClusteringError", "ClusteringWarning", "ConvergenceWarning", "Fit", "GaussianMixture", "KMeans", "Quantized",
    "Run", "Segmented", "Selection", "SoftKMeans", "Source", "VonMisesFisher", "fit", "load_fit", "open_source",
    "quantize", "run", "segment", "select_k",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clustering' has no attribute {name!r}")
    value = getattr(load_module(_HOMES[name]), name)
    # The next use finds the name without this function.
    globals()[name] = value
    return value


class _Package(ModuleType):
    """The type of this package, whose attribute ``run`` is always the function.

    Python would set the attribute to the subpackage of the same name as soon as one of its modules is imported.
    """

    @property
    def run(self) -> Any:
        return load_module("clustering.api").run

    @run.setter
    def run(self, _: ModuleType) -> None:
        """Keep the function. The subpackage is found by the import system without this attribute."""


# Objects of xarray have the accessor if xarray is loaded already, or when this library loads it.
if "xarray" in sys.modules:
    load_module("clustering.xarray")

# A property works only in a class, and Python makes a package as a plain module.
sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    # Consoles complete these names. Modules are no part of the interface.
    return [*__all__, "__version__"]
