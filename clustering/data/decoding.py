"""From numbers as they are stored to the values they mean: fill values, valid ranges, scale and offset, named codes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from clustering.data.attributes import FILLS, PACKING, as_type
from clustering.data.policies import DECODERS, Decoder
from clustering.errors import SourceError

_PIECE = 65_536


def _signed_square(stored: NDArray[Any], out: NDArray[Any]) -> None:
    """Decode bytes to ``(v / 127.5)² sign(v)``, as satellite embeddings are stored."""
    np.divide(stored, 127.5, out=out)
    np.multiply(out, np.abs(out), out=out)


_DECODE: Mapping[Decoder, Callable[[NDArray[Any], NDArray[Any]], None]] = {"signed_square": _signed_square}


@dataclass(frozen=True)
class MissingRule:
    """Which stored numbers are missing by one attribute, or by a wish of the user."""

    name: str
    """Of the attribute, or ``nodata``."""
    numbers: tuple[int | float, ...] = ()
    """These are missing."""
    low: float = -np.inf
    """What is below is missing."""
    high: float = np.inf
    """What is above is missing."""

    def is_missing(self, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Tell missing values among stored ones, in their shape; None where none can be."""
        matches = [values == number for number in self.numbers if as_type(values.dtype, number) is not None]
        if self.low > -np.inf:
            matches.append(values < self.low)
        if self.high < np.inf:
            matches.append(values > self.high)
        return reduce(np.logical_or, matches) if matches else None


@dataclass(frozen=True)
class Decoding:
    """What stored numbers of one variable mean: the steps of the CF conventions, in their order."""

    stored: np.dtype[Any]
    """Type as stored; where ``_Unsigned`` says so, the type of the other sign that the same bits are read as."""
    dtype: np.dtype[Any]
    """Type once decoded."""
    rules: tuple[MissingRule, ...] = ()
    """What tells missing values."""
    scale: Any = None
    offset: Any = None
    decoder: Decoder | None = None

    @property
    def plain(self) -> bool:
        """Whether numbers mean what they are, where they are not missing."""
        return self.scale is None and self.offset is None and self.decoder is None

    @property
    def packed(self) -> bool:
        """Whether values take more room once decoded."""
        return self.stored.kind in "iu" and self.stored.itemsize < self.dtype.itemsize

    def is_missing(self, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Tell missing values among stored ones, in their shape; None where none is."""
        masks = [absent for rule in self.rules if (absent := rule.is_missing(values)) is not None]
        if not masks:
            return None
        every = reduce(np.logical_or, masks)
        return every if every.any() else None

    def decode(self, values: NDArray[Any], out: NDArray[Any]) -> None:
        """Decode stored values ``(n, f)`` into `out`, of type `dtype`; what is missing becomes some number."""
        if self.plain:
            out[...] = values
            return
        step = max(1, _PIECE // max(1, values.shape[1]))
        for start in range(0, len(values), step):
            part = out[start : start + step]
            if self.decoder is not None:
                _DECODE[self.decoder](values[start : start + step], part)
                continue
            part[...] = values[start : start + step]
            if self.scale is not None:
                part *= self.scale
            if self.offset is not None:
                part += self.offset


@dataclass(frozen=True, eq=False)
class InMemoryVariable:
    """A variable held in memory as it was given, and what its numbers mean."""

    variable: xr.Variable
    decoding: Decoding

    def select(self, positions: Mapping[Hashable, Any]) -> InMemoryVariable:
        """Select positions along some dimensions."""
        return replace(self, variable=self.variable.isel(positions, missing_dims="ignore"))


@dataclass(frozen=True)
class RowPacking:
    """How packed rows ``(n, d)`` of several variables are decoded."""

    stored: np.dtype[Any]
    """Type that holds the stored numbers of all of them."""
    dtype: np.dtype[Any]
    """Type of the decoded rows."""
    parts: tuple[tuple[int, Decoding], ...]
    """For each variable where its columns end."""

    def decode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Decode rows."""
        out = np.empty(values.shape, self.dtype)
        start = 0
        for stop, decoding in self.parts:
            if decoding.dtype == self.dtype:
                decoding.decode(values[:, start:stop], out[:, start:stop])
            else:
                own = np.empty((len(values), stop - start), decoding.dtype)
                decoding.decode(values[:, start:stop], own)
                out[:, start:stop] = own
            start = stop
        return out


def find_packing(decodings: Sequence[tuple[int, Decoding]], dtype: np.dtype[Any]) -> RowPacking | None:
    """Find how the rows of variables with so many features each stay packed; None where that saves nothing."""
    if not decodings or not all(decoding.packed for _, decoding in decodings):
        return None
    stored = np.result_type(*(decoding.stored for _, decoding in decodings))
    if stored.kind not in "iu" or stored.itemsize >= dtype.itemsize:
        return None
    ends = accumulate(n for n, _ in decodings)
    return RowPacking(stored, dtype, tuple(zip(ends, (decoding for _, decoding in decodings), strict=True)))


def decoding_of(variable: xr.Variable, stored: np.dtype[Any], valid: tuple[MissingRule, ...]) -> Decoding | None:
    """Read how xarray decodes a variable from what it keeps in the encoding.

    Parameters
    ----------
    variable
        As decoded by xarray, from attributes that were repaired.
    stored
        Type that the stored bits are read as.
    valid
        From `clustering.data.validity.valid_rules`.

    Returns
    -------
    Decoding or None
        None where only xarray itself can decode it, such as truth values.
    """
    encoding = variable.encoding
    if stored.kind not in "iuf" or variable.dtype.kind not in "iuf":
        return None
    fills = []
    for key in FILLS:
        numbers = tuple(number.item() for number in np.ravel(encoding.get(key, ())) if number == number)
        fills += [MissingRule(key, numbers)] if numbers else []
    scale, offset = (_scalar(encoding.get(key)) for key in PACKING)
    return Decoding(stored, variable.dtype, (*fills, *valid), scale, offset)


def _scalar(value: Any) -> Any:
    return value if value is None or np.ndim(value) == 0 else np.asarray(value).item()


def with_nodata(decoding: Decoding, name: str, number: float) -> tuple[Decoding, tuple[str, ...]]:
    """Add a number that means missing; tell if none of the stored numbers can be it. NaN is missing anyhow."""
    if number != number:
        return decoding, ()
    if as_type(decoding.stored, number) is None:
        return decoding, (
            f"nodata {number:g} can never be among the numbers of variable {name!r}, of type {decoding.stored}, so "
            "that it masks nothing",
        )
    return replace(decoding, rules=(*decoding.rules, MissingRule("nodata", (number,)))), ()


def with_decoder(decoding: Decoding, name: str, decoder: str) -> Decoding:
    """Decode the numbers of a variable by a decoder that the user names.

    Raises
    ------
    SourceError
        If it does not fit the variable.
    """
    if not decoding.plain or decoding.stored.kind not in "iu":
        raise SourceError(
            f"decode is {decoder!r} for variable {name!r}, which is stored as {decoding.stored} "
            f"{'with scale_factor or add_offset' if not decoding.plain else 'numbers'}; "
            "named decoders are for plain whole numbers: leave it out"
        )
    checked = next(checked for checked in DECODERS if checked == decoder)
    return replace(decoding, decoder=checked, dtype=np.dtype(np.float64))
