"""Decoding: from stored numbers to values, by missing rules, scale and offset, or named decoders."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.data.attributes import FILLS, PACKING, as_type
from clustering.deferred import xr
from clustering.errors import SourceError
from clustering.policies import DECODERS, Decoder

_PIECE = 65_536


def _signed_square(stored: NDArray[Any], out: NDArray[Any]) -> None:
    """Decode bytes to ``(v / 127.5)² sign(v)``, as satellite embeddings are stored."""
    np.divide(stored, 127.5, out=out)
    np.multiply(out, np.abs(out), out=out)


_DECODE: Mapping[Decoder, Callable[[NDArray[Any], NDArray[Any]], None]] = {"signed_square": _signed_square}


@dataclass(frozen=True)
class MissingRule:
    """One attribute or option that says which stored numbers are missing."""

    name: str
    """Name of the attribute, or ``nodata``."""
    numbers: tuple[int | float, ...] = ()
    """Numbers that are missing."""
    low: float = -np.inf
    """Numbers below this are missing."""
    high: float = np.inf
    """Numbers above this are missing."""

    def is_missing(self, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return which stored numbers are missing by this rule; None where no number of their type can be.

        Parameters
        ----------
        values
            Stored numbers of any shape.

        Returns
        -------
        ndarray or None
            In the shape of `values`.
        """
        # Numbers that the type cannot hold are skipped, as no stored number equals them.
        matches = [values == number for number in self.numbers if as_type(values.dtype, number) is not None]
        if self.low > -np.inf:
            matches.append(values < self.low)
        if self.high < np.inf:
            matches.append(values > self.high)
        return reduce(np.logical_or, matches) if matches else None


@dataclass(frozen=True)
class Decoding:
    """Steps from the stored numbers of one variable to values, in the order of the CF conventions."""

    stored: np.dtype[Any]
    """Type that the stored bits are read as, which ``_Unsigned`` may have changed."""
    dtype: np.dtype[Any]
    """Type of decoded values."""
    rules: tuple[MissingRule, ...] = ()
    """Rules for missing values; a number is missing if one of them says so."""
    scale: Any = None
    offset: Any = None
    decoder: Decoder | None = None

    @property
    def plain(self) -> bool:
        """Whether stored numbers that are not missing are the values themselves."""
        return self.scale is None and self.offset is None and self.decoder is None

    @property
    def packed(self) -> bool:
        """Whether decoded values take more memory than stored numbers."""
        return self.stored.kind in "iu" and self.stored.itemsize < self.dtype.itemsize

    def is_missing(self, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return which stored numbers are missing by any rule; None where none is.

        Parameters
        ----------
        values
            Stored numbers of any shape.

        Returns
        -------
        ndarray or None
            In the shape of `values`.
        """
        masks = [absent for rule in self.rules if (absent := rule.is_missing(values)) is not None]
        if not masks:
            return None
        every = reduce(np.logical_or, masks)
        return every if every.any() else None

    def decode(self, values: NDArray[Any], out: NDArray[Any]) -> None:
        """Decode stored numbers into `out`; the values of missing ones are arbitrary.

        Parameters
        ----------
        values
            Stored numbers ``(n, f)``.
        out
            Decoded values ``(n, f)``, of type `dtype`; written to.
        """
        if self.plain:
            out[...] = values
            return
        # Pieces of rows stay in the cache of the processor between the steps.
        step = max(1, _PIECE // max(1, values.shape[1]))
        for start in range(0, len(values), step):
            part = out[start : start + step]
            if self.decoder is not None:
                _DECODE[self.decoder](values[start : start + step], part)
                continue
            part[...] = values[start : start + step]
            # CF conventions, section 8.1: the scale comes before the offset.
            if self.scale is not None:
                part *= self.scale
            if self.offset is not None:
                part += self.offset


@dataclass(frozen=True, eq=False)
class InMemoryVariable:
    """A variable in memory as it was given, undecoded, and its decoding."""

    variable: xr.Variable
    decoding: Decoding

    def select(self, positions: Mapping[Hashable, Any]) -> InMemoryVariable:
        """Select positions along some dimensions.

        Parameters
        ----------
        positions
            Indexers by dimension, as for ``isel``; dimensions that the variable lacks are skipped.
        """
        return replace(self, variable=self.variable.isel(positions, missing_dims="ignore"))


@dataclass(frozen=True)
class RowPacking:
    """How rows ``(n, d)`` of several variables are kept as stored integers, and decoded when they are used."""

    stored: np.dtype[Any]
    """Type that holds the stored numbers of all variables."""
    dtype: np.dtype[Any]
    """Type of the decoded rows."""
    parts: tuple[tuple[int, Decoding], ...]
    """End of the columns, and decoding, of each variable in order."""

    def decode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Decode packed rows.

        Parameters
        ----------
        values
            Stored numbers ``(n, d)``.

        Returns
        -------
        ndarray
            Decoded rows ``(n, d)``.
        """
        out = np.empty(values.shape, self.dtype)
        start = 0
        for stop, decoding in self.parts:
            if decoding.dtype == self.dtype:
                decoding.decode(values[:, start:stop], out[:, start:stop])
            else:
                # Decoded in its own type first, a variable has the same values as without packing.
                own = np.empty((len(values), stop - start), decoding.dtype)
                decoding.decode(values[:, start:stop], own)
                out[:, start:stop] = own
            start = stop
        return out


def find_packing(decodings: Sequence[tuple[int, Decoding]], dtype: np.dtype[Any]) -> RowPacking | None:
    """Return the row packing of variables; None where packing saves no memory.

    Parameters
    ----------
    decodings
        Number of features, and decoding, of each variable in order.
    dtype
        Type of the decoded rows.
    """
    if not decodings or not all(decoding.packed for _, decoding in decodings):
        return None
    # Types of both signs, such as int8 and uint8, need a wider one.
    stored = np.result_type(*(decoding.stored for _, decoding in decodings))
    if stored.kind not in "iu" or stored.itemsize >= dtype.itemsize:
        return None
    ends = accumulate(n for n, _ in decodings)
    return RowPacking(stored, dtype, tuple(zip(ends, (decoding for _, decoding in decodings), strict=True)))


def decoding_of(variable: xr.Variable, stored: np.dtype[Any], valid: tuple[MissingRule, ...]) -> Decoding | None:
    """Build the decoding of a variable from its encoding, so that values are those that xarray decodes.

    Parameters
    ----------
    variable
        Variable as decoded by xarray, from repaired attributes.
    stored
        Type that the stored bits are read as.
    valid
        Missing rules of the valid range, from `clustering.data.validity.valid_rules`.

    Returns
    -------
    Decoding or None
        None where only xarray itself can decode the variable, such as truth values.
    """
    encoding = variable.encoding
    if stored.kind not in "iuf" or variable.dtype.kind not in "iuf":
        return None
    # NaN is left out, as it is missing without a rule.
    fills = []
    for key in FILLS:
        numbers = tuple(number.item() for number in np.ravel(encoding.get(key, ())) if number == number)
        fills += [MissingRule(key, numbers)] if numbers else []
    scale, offset = (_scalar(encoding.get(key)) for key in PACKING)
    return Decoding(stored, variable.dtype, (*fills, *valid), scale, offset)


def _scalar(value: Any) -> Any:
    return value if value is None or np.ndim(value) == 0 else np.asarray(value).item()


def with_nodata(decoding: Decoding, name: str, number: float) -> tuple[Decoding, tuple[str, ...]]:
    """Add the missing rule of the option nodata.

    Parameters
    ----------
    decoding
        Decoding of the variable.
    name
        Name of the variable, for the caution.
    number
        Stored number that means missing; NaN changes nothing, as it is missing anyhow.

    Returns
    -------
    Decoding
        With the rule.
    tuple of str
        A caution where no stored number can equal `number`.
    """
    if number != number:
        return decoding, ()
    if as_type(decoding.stored, number) is None:
        return decoding, (
            f"nodata {number:g} can never be among the numbers of variable {name!r}, of type {decoding.stored}, so "
            "that it masks nothing",
        )
    return replace(decoding, rules=(*decoding.rules, MissingRule("nodata", (number,)))), ()


def with_decoder(decoding: Decoding, name: str, decoder: str) -> Decoding:
    """Set the named decoder of a variable.

    Parameters
    ----------
    decoding
        Decoding of the variable, without scale and offset.
    name
        Name of the variable, for the message.
    decoder
        One of `clustering.policies.DECODERS`.

    Raises
    ------
    SourceError
        If the variable does not hold whole numbers, or has a scale or offset.
    """
    if not decoding.plain or decoding.stored.kind not in "iu":
        raise SourceError(
            f"decode is {decoder!r} for variable {name!r}, which is stored as {decoding.stored} "
            f"{'with scale_factor or add_offset' if not decoding.plain else 'numbers'}; "
            "named decoders are for plain whole numbers: leave it out"
        )
    checked = next(checked for checked in DECODERS if checked == decoder)
    return replace(decoding, decoder=checked, dtype=np.dtype(np.float64))
