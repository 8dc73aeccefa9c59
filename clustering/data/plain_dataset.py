"""Plain arrays with names of dimensions, which stand in for those of xarray.

Loading xarray takes longer than a small fit, and most of what a job asks of plain arrays is answered here. xarray
answers the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clustering.compat.xarray import lazy_zarr_data
from clustering.data.encoding import in_memory
from clustering.deferred import xr


@dataclass(frozen=True, eq=False)
class PlainVariable:
    """An array with names of its dimensions, as an `xarray.Variable` or a `xarray.DataArray`."""

    dims: tuple[str, ...]
    data: Any = field(repr=False)
    """An ndarray, or a stored array, of which only what is asked for is read."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    encoding: Mapping[str, Any] = field(default_factory=dict)
    coords: Mapping[str, PlainVariable] = field(default_factory=dict)

    chunks: ClassVar[None] = None

    @property
    def variable(self) -> PlainVariable:
        """The array without its coordinates."""
        return replace(self, coords={}) if self.coords else self

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each dimension."""
        return tuple(self.data.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.dims)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(self.data.size)

    @property
    def sizes(self) -> Mapping[Any, int]:
        """Length along each dimension, by its name."""
        return dict(zip(self.dims, self.shape, strict=True))

    @property
    def dtype(self) -> Any:
        """Type of the values."""
        return self.data.dtype

    @property
    def values(self) -> NDArray[Any]:
        """The values in memory."""
        return np.asarray(self.data)

    def to_xarray(self) -> Any:
        """Give the same as an `xarray.DataArray`, which reads a stored array when it is used."""
        return xr.DataArray(self.to_variable(), {name: one.to_variable() for name, one in self.coords.items()})

    def to_variable(self) -> Any:
        """Give the same as an `xarray.Variable`, without coordinates."""
        if isinstance(self.data, np.ndarray):
            made = in_memory(self.dims, self.data, self.attrs)
        else:
            made = xr.Variable(self.dims, lazy_zarr_data(self.data), self.attrs)
        made.encoding = dict(self.encoding)
        return made

    def isel(self, region: Mapping[Any, Any]) -> Any:
        """Select by position.

        Parameters
        ----------
        region
            Dimension → slice of positions, or a single one; with several of another kind, xarray selects them.
        """
        if not all(isinstance(positions, int | slice) for positions in region.values()):
            return self.to_xarray().isel(region)
        own = {d: region[d] for d in self.dims if d in region}
        if not own:
            return self
        data = np.asarray(self.data[tuple(own.get(d, slice(None)) for d in self.dims)])
        dims = tuple(d for d in self.dims if not isinstance(own.get(d), int))
        return replace(self, dims=dims, data=data, coords={name: one.isel(own) for name, one in self.coords.items()})

    def transpose(self, *dims: str) -> PlainVariable:
        """Bring the dimensions into an order.

        Parameters
        ----------
        dims
            All dimensions, in their new order.
        """
        return replace(self, dims=dims, data=self.values.transpose([self.dims.index(d) for d in dims]))

    def copy(self, data: NDArray[Any]) -> PlainVariable:
        """Put other values of the same shape in the place of these.

        Parameters
        ----------
        data
            The values.
        """
        return replace(self, data=data)

    def load(self) -> PlainVariable:
        """Read a stored array into memory."""
        return replace(self, data=self.values)

    def assign_attrs(self, **attributes: Any) -> PlainVariable:
        """Add attributes.

        Parameters
        ----------
        **attributes
            Attributes by name.
        """
        return replace(self, attrs={**self.attrs, **attributes})

    def assign_coords(self, labels: Mapping[str, NDArray[Any]]) -> PlainVariable:
        """Add labels of dimensions.

        Parameters
        ----------
        labels
            Dimension → its labels.
        """
        return replace(self, coords={**self.coords, **{d: PlainVariable((d,), one) for d, one in labels.items()}})

    def __getitem__(self, key: Any) -> Any:
        return self.coords[key] if isinstance(key, str) and key in self.coords else self.to_xarray()[key]

    def __getattr__(self, name: str) -> Any:
        # Python asks for methods of copying and pickling before the fields are there.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.to_xarray(), name)


Labelled: TypeAlias = "PlainVariable | xr.DataArray"
"""An array with names of its dimensions, and with labels where it has some."""


def as_plain(array: Labelled) -> PlainVariable:
    """Give an array of xarray as a plain one, in memory.

    Parameters
    ----------
    array
        Array of either kind.
    """
    if isinstance(array, PlainVariable):
        return array
    # A single date is a scalar in xarray.
    labels = {
        str(name): PlainVariable(tuple(map(str, one.dims)), np.asarray(one.values), one.attrs)
        for name, one in array.coords.items()
    }
    return PlainVariable(tuple(map(str, array.dims)), array.values, array.attrs, coords=labels)


@dataclass(frozen=True, eq=False)
class PlainDataset:
    """Arrays by name, as an `xarray.Dataset` without indexes."""

    data_vars: Mapping[str, PlainVariable]
    coords: Mapping[str, PlainVariable] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)

    indexes: ClassVar[Mapping[Any, Any]] = MappingProxyType({})

    @property
    def variables(self) -> Mapping[str, PlainVariable]:
        """All arrays, coordinates among them."""
        return {**self.data_vars, **self.coords} if self.coords else self.data_vars

    @property
    def sizes(self) -> Mapping[Any, int]:
        """Length along each dimension, by its name."""
        return {d: n for variable in self.variables.values() for d, n in variable.sizes.items()}

    @cached_property
    def in_xarray(self) -> Any:
        """The same as an `xarray.Dataset`."""
        variables, coordinates = (
            {name: variable.to_variable() for name, variable in group.items()}
            for group in (self.data_vars, self.coords)
        )
        return xr.Dataset(variables, coordinates, self.attrs)

    def isel(self, region: Mapping[Any, Any]) -> Any:
        """Select by position.

        Parameters
        ----------
        region
            Dimension → slice of positions; with positions of another kind, the result is an `xarray.Dataset`.
        """
        if not region:
            return self
        # A slice of an ndarray is a view of it, and one of a stored array would be read.
        plain = all(isinstance(variable.data, np.ndarray) for variable in self.variables.values())
        if not plain or not all(isinstance(positions, slice) for positions in region.values()):
            return self.in_xarray.isel(region)
        data_vars, coords = (
            {name: variable.isel(region) for name, variable in group.items()} for group in (self.data_vars, self.coords)
        )
        return replace(self, data_vars=data_vars, coords=coords)

    def assign_attrs(self, attributes: Mapping[str, Any]) -> PlainDataset:
        """Add attributes.

        Parameters
        ----------
        attributes
            Attributes by name.
        """
        return replace(self, attrs={**self.attrs, **attributes})

    def __getitem__(self, name: Any) -> Any:
        variables = self.variables
        return variables[name] if isinstance(name, str) and name in variables else self.in_xarray[name]

    def __getattr__(self, name: str) -> Any:
        # Python asks for methods of copying and pickling before the fields are there.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.in_xarray, name)
