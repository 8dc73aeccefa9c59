"""The source: labelled N-d data, as a value. `clustering.data.reading` reads it block by block as rows ``(n, d)``."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from clustering.data.decoding import InMemoryVariable, RowPacking, find_packing
from clustering.data.grouped import SMALL_LABELS
from clustering.data.listing import Listing
from clustering.data.plan import MIB, Axis, Plan, plan_blocks
from clustering.data.reading_options import ReadingOptions
from clustering.data.stored import StoredVariable
from clustering.deferred import pd, xr
from clustering.errors import DataError
from clustering.html_repr import page, section
from clustering.policies import Missing, ValidRange

About = Mapping[str, Mapping[str, str]]
"""Name of a variable or feature dimension → its attributes, such as units, long name and calendar."""
DATES = "numpy"
"""Name for the calendar of numpy's dates, beside the calendars of CF."""
_ATTRIBUTES = ("units", "long_name", "standard_name", "positive", "axis")


@dataclass(frozen=True)
class Feature:
    """One column of the rows: a variable at one label of each feature dimension."""

    variable: str
    at: tuple[tuple[str, Any], ...] = ()
    """``(dimension, label)`` pairs."""

    def __str__(self) -> str:
        return self.variable + (f"[{', '.join(f'{d}={v}' for d, v in self.at)}]" if self.at else "")


@dataclass(frozen=True, eq=False, repr=False)
class Source:
    """Data to cluster: its variables, sample dimensions and feature dimensions. It holds metadata and no values.

    Build one with `open_source`. Reading a block asks for most properties, so they are computed once.
    """

    dataset: xr.Dataset = field(repr=False)
    """The selected data, lazily decoded."""
    variables: tuple[str, ...]
    sample_dims: tuple[str, ...]
    feature_dims: tuple[str, ...]
    mask: str | None
    """Variable over sample dimensions, true for used cells; or a comparison of it, see `clustering.data.conditions`."""
    weights: str | None
    """Variable over sample dimensions, or ``cos(name)`` of a latitude."""
    missing: Missing
    """Treatment of rows with missing features."""
    axes: tuple[Axis, ...]
    """The sample dimensions: their selected positions, and the lengths that are read at once."""
    labelled: bool
    """False for data without names of dimensions, such as an ndarray. Results are ndarrays then."""
    recipe: Mapping[str, Any] | None = field(repr=False)
    """Arguments that open the same source in another process; None for data held in memory."""
    labels: str | None = None
    """Variable of known clusters over sample dimensions. Values other than 0, 1, … mean unknown."""
    stored: Mapping[str, StoredVariable] = field(default_factory=dict, repr=False)
    """Variables by name that this library reads from their store without xarray."""
    listings: Mapping[str, Listing] = field(default_factory=dict, repr=False)
    """Listings by name of the variables and companions, made when the source was opened."""
    cautions: tuple[str, ...] = ()
    """Cautions for the user about the data."""
    max_bad_fraction: float = 1.0
    """Largest share of bad chunks, where they are masked."""
    in_memory: Mapping[str, InMemoryVariable] = field(default_factory=dict, repr=False)
    """In-memory variables by name that this library decoded, as they were given."""
    unusable: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Name of another variable that cannot be used → the reason."""
    valid_range: ValidRange = "cf"
    """Whether values outside a valid range are missing."""
    reading: ReadingOptions = field(default_factory=lambda: ReadingOptions(False, {}), repr=False)
    opening: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)
    """Random name of this opening. A process opens a source once for each name, so a changed store is opened again."""

    def __repr__(self) -> str:
        shape = " × ".join(f"{d} {n:,}" for d, n in zip(self.sample_dims, self.shape, strict=True))
        return f"<Source of {', '.join(self.variables)}: {shape}; {self.n_features:,} features, {self.dtype}>"

    def _repr_html_(self) -> str:
        """Show the source in a notebook: its dimensions, features and cautions."""
        lengths = zip(self.sample_dims, self.shape, self.chunks, strict=True)
        dims = [(d, f"{n:,}", f"{chunk:,}") for d, n, chunk in lengths]
        facts = {
            "features of a row": f"{self.n_features:,}",
            "type": str(self.dtype),
            "size": f"{math.prod(self.shape) * self.row_bytes / MIB:,.1f} MiB decoded",
            "mask": self.mask or "none",
            "weights": self.weights or "none",
            "missing": self.missing,
        }
        variables = [
            (name, ", ".join(map(str, self.dataset[name].dims)), self.about.get(name, {}).get("units", ""))
            for name in self.variables
        ]
        return page(
            "clustering.Source",
            ", ".join(self.variables),
            section("Sample dimensions", dims, count=len(dims), is_open=True, head=("name", "length", "chunk")),
            section("Variables", variables, count=len(variables), is_open=True, head=("name", "dimensions", "units")),
            section("Facts", facts.items(), count=None),
            section("Warnings", [(line,) for line in self.cautions], count=len(self.cautions)),
        )

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Length of each sample dimension."""
        return tuple(self.dataset.sizes[d] for d in self.sample_dims)

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Length that is read at once along each sample dimension, in selected positions."""
        return tuple(axis.regular.longest(1) for axis in self.axes)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Type of the decoded rows: the common type of all variables."""
        # Booleans become integers, since numpy cannot subtract them.
        kinds = [self.stored[v].decoding.dtype if v in self.stored else self.dataset[v].dtype for v in self.variables]
        return np.dtype(np.uint8) if all(k.kind == "b" for k in kinds) else np.result_type(*kinds)

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """The columns of the rows, in order."""
        columns: list[Feature] = []
        for name in self.variables:
            array = self.dataset[name]
            dims = [d for d in self.feature_dims if d in array.dims]
            labels = [self.dataset[d].values if self.has_labels(d) else range(array.sizes[d]) for d in dims]
            for index in np.ndindex(*(array.sizes[d] for d in dims)):
                at = tuple((d, _plain(values[i])) for d, values, i in zip(dims, labels, index, strict=True))
                columns.append(Feature(name, at))
        return tuple(columns)

    @property
    def held_labels(self) -> Mapping[str, int]:
        """Dimension → memory in bytes of its labels, which every process holds. Small labels are left out."""
        if self.recipe is None:
            return {}
        sizes = {str(d): _held_bytes(index) for d, index in self.dataset.indexes.items()}
        return {d: size for d, size in sizes.items() if size > SMALL_LABELS}

    def has_labels(self, d: str) -> bool:
        """Tell whether a dimension has labels.

        Parameters
        ----------
        d
            Name of the dimension.
        """
        # A coordinate may have the name of a dimension and lie along others.
        return d in self.dataset.coords and self.dataset[d].dims == (d,)

    @property
    def about(self) -> About:
        """Attributes of variables that have some, and of all feature dimensions with labels."""
        attributes: dict[str, dict[str, str]] = {}
        for name in (*self.variables, *filter(self.has_labels, self.feature_dims)):
            variable = self.dataset[name].variable
            own = {key: str(variable.attrs[key]) for key in _ATTRIBUTES if key in variable.attrs}
            if name not in self.variables and variable.size:
                first = variable.values.flat[0]
                # xarray takes the calendar out of the attributes of decoded dates, so the dates are asked.
                calendar = DATES if variable.dtype.kind == "M" else getattr(first, "calendar", None)
                own |= {"calendar": calendar} if calendar else {}
            if own or name not in self.variables:
                attributes[name] = own
        return attributes

    @cached_property
    def n_features(self) -> int:
        """Number of columns of the rows."""
        return sum(map(self._count, self.variables))

    def _count(self, name: str) -> int:
        """Count the features of a variable."""
        return math.prod(self.dataset.sizes[d] for d in self.feature_dims if d in self.dataset[name].dims)

    @cached_property
    def row_bytes(self) -> int:
        """Size of one decoded row, in bytes."""
        return self.n_features * self.dtype.itemsize

    @cached_property
    def kept_row_bytes(self) -> int:
        """Size of one row in the block cache, in bytes."""
        return self.n_features * (self.packing.stored if self.packing else self.dtype).itemsize

    def plan(self, *, block_bytes: int | None = None, memory: int = 2048 * MIB, whole_chunks: bool = True) -> Plan:
        """Cut the sample grid into blocks.

        Parameters
        ----------
        block_bytes
            Wanted size of a decoded block, in bytes; chosen where None.
        memory
            Memory budget of a worker, in bytes.
        whole_chunks
            True: block edges lie on chunk edges of the source, so that no chunk is decoded twice. False: they lie on
            multiples of the chunk length counted from the start of the selection, as the chunks of the labels do.
        """
        axes = self.axes if whole_chunks else tuple(axis.regular for axis in self.axes)
        return plan_blocks(axes, row_bytes=self.row_bytes, block_bytes=block_bytes, memory=memory)

    @cached_property
    def packing(self) -> RowPacking | None:
        """Row packing of the source; None where it saves no memory."""
        # Missing features stay in their rows as NaN, which stored integers cannot hold.
        if self.missing == "marginalize" or not all(name in self.stored for name in self.variables):
            return None
        counts = [self._count(name) for name in self.variables]
        pairs = [(n, self.stored[name].decoding) for n, name in zip(counts, self.variables, strict=True)]
        return find_packing(pairs, self.dtype)

    def check_bad(self, bad: Sequence[str]) -> None:
        """Refuse data with too many bad chunks.

        Parameters
        ----------
        bad
            Names of the bad chunks of a pass.

        Raises
        ------
        DataError
            If their share is larger than `max_bad_fraction`.
        """
        # Counting all chunks takes time, and without bad chunks there is nothing to compare.
        total = sum(stored.count for stored in self.stored.values()) if bad else 0
        if len(bad) > self.max_bad_fraction * total:
            raise DataError(
                f"{len(bad):,} of {total:,} chunks do not decode, {bad[0]!r} among them, more than max_bad_fraction "
                f"{self.max_bad_fraction:g} allows; write them anew, or raise source.max_bad_fraction"
            )

    def preview(self, most: int = 1000) -> xr.Dataset:
        """Read a thinned sample grid into memory, for a picture.

        Parameters
        ----------
        most
            Largest number of cells along each sample dimension.
        """
        steps = {d: slice(None, None, max(1, -(-self.dataset.sizes[d] // most))) for d in self.sample_dims}
        return self.dataset[list(self.variables)].isel(steps).load()


def _held_bytes(index: pd.Index) -> int:
    """Memory that an index holds, in bytes. A slice of an index holds the memory of the whole index."""
    array = index.to_numpy()
    while isinstance(array.base, np.ndarray):
        array = array.base
    # The first object stands for all, as there may be millions.
    objects = sys.getsizeof(array.flat[0]) * array.size if array.dtype.kind == "O" and array.size else 0
    return int(array.nbytes + objects)


def _plain(value: Any) -> Any:
    """Convert a label to a type that JSON has. Dates of any calendar become text."""
    if isinstance(value, np.generic) and value.dtype.kind not in "mM":
        value = value.item()
    return value if isinstance(value, (bool, int, float, str)) else str(value)
