"""A dataset of plain arrays, which stands in for that of xarray, whose loading takes longer than a small fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from clustering.deferred import xr

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class PlainVariable:
    """An array with names of its dimensions and without attributes, as an `xarray.Variable` or a `xarray.DataArray`."""

    dims: tuple[str, ...]
    data: NDArray[Any] = field(repr=False)

    attrs = encoding = _NOTHING
    chunks = None

    @property
    def variable(self) -> PlainVariable:
        """The variable itself; that of a `xarray.DataArray` has no coordinates."""
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each dimension."""
        return self.data.shape

    @property
    def sizes(self) -> Mapping[str, int]:
        """Length along each dimension, by its name."""
        return dict(zip(self.dims, self.shape, strict=True))

    @property
    def dtype(self) -> Any:
        """Type of the values."""
        return self.data.dtype

    def isel(self, region: Mapping[str, slice]) -> PlainVariable:
        """Select by position.

        Parameters
        ----------
        region
            Dimension → slice of positions.
        """
        return PlainVariable(self.dims, self.data[tuple(region.get(d, slice(None)) for d in self.dims)])

    def transpose(self, *dims: str) -> PlainVariable:
        """Bring the dimensions into an order.

        Parameters
        ----------
        dims
            All dimensions, in their new order.
        """
        return PlainVariable(dims, self.data.transpose([self.dims.index(d) for d in dims]))

    def __getattr__(self, name: str) -> Any:
        # Python asks for methods of copying and pickling before the fields are there.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(xr.DataArray(self.data, dims=self.dims), name)


@dataclass(frozen=True, eq=False)
class PlainDataset:
    """Arrays by name without coordinates, as an `xarray.Dataset`.

    What passes ask of a dataset is answered here. Whatever else is asked of it, an `xarray.Dataset` answers.
    """

    variables: Mapping[str, PlainVariable]

    coords = indexes = attrs = _NOTHING

    @property
    def data_vars(self) -> Mapping[str, PlainVariable]:
        """The variables, of which none is a coordinate."""
        return self.variables

    @property
    def sizes(self) -> Mapping[str, int]:
        """Length along each dimension, by its name."""
        return {d: n for variable in self.variables.values() for d, n in variable.sizes.items()}

    @cached_property
    def in_xarray(self) -> Any:
        """The same as an `xarray.Dataset`."""
        return xr.Dataset({name: (variable.dims, variable.data) for name, variable in self.variables.items()})

    def isel(self, region: Mapping[str, Any]) -> Any:
        """Select by position.

        Parameters
        ----------
        region
            Dimension → slice of positions; with positions of another kind, the result is an `xarray.Dataset`.
        """
        if not all(isinstance(positions, slice) for positions in region.values()):
            return self.in_xarray.isel(region)
        return PlainDataset({name: variable.isel(region) for name, variable in self.variables.items()})

    def __getitem__(self, name: Any) -> Any:
        return self.variables[name] if isinstance(name, str) and name in self.variables else self.in_xarray[name]

    def __getattr__(self, name: str) -> Any:
        # Python asks for methods of copying and pickling before the fields are there.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.in_xarray, name)
