"""From numbers as they are stored to the values they mean: fill values, valid ranges, scale and offset, named codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from clustering.data.policies import DECODERS, Decoder
from clustering.errors import SourceError

_PIECE = 65_536
_UNDERSTOOD = {"_FillValue", "missing_value", "scale_factor", "add_offset"}


def _signed_square(stored: NDArray[Any], out: NDArray[Any]) -> None:
    """Decode bytes to ``(v / 127.5)² sign(v)``, as satellite embeddings are stored."""
    np.divide(stored, 127.5, out=out)
    np.multiply(out, np.abs(out), out=out)


_DECODE: Mapping[Decoder, Callable[[NDArray[Any], NDArray[Any]], None]] = {"signed_square": _signed_square}


@dataclass(frozen=True)
class Decoding:
    """What stored numbers of one variable mean: the steps of the CF conventions, in their order."""

    stored: np.dtype[Any]
    """Type as stored."""
    dtype: np.dtype[Any]
    """Type once decoded."""
    missing: tuple[int | float, ...] = ()
    """Stored numbers that mean a missing value."""
    valid: tuple[float, float] = (-np.inf, np.inf)
    """Stored numbers outside are missing."""
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

    def absent(self, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Tell missing values among stored ones, in their shape; None where none is."""
        found = [values == number for number in self.missing if _holds(self.stored, number)]
        low, high = self.valid
        if low > -np.inf:
            found.append(values < low)
        if high < np.inf:
            found.append(values > high)
        if not found:
            return None
        every = reduce(np.logical_or, found)
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


@dataclass(frozen=True)
class Columns:
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


def packing(decodings: Sequence[tuple[int, Decoding]], dtype: np.dtype[Any]) -> Columns | None:
    """Find how the rows of variables with so many features each stay packed; None where that saves nothing."""
    if not decodings or not all(decoding.packed for _, decoding in decodings):
        return None
    stored = np.result_type(*(decoding.stored for _, decoding in decodings))
    if stored.kind not in "iu" or stored.itemsize >= dtype.itemsize:
        return None
    ends = accumulate(n for n, _ in decodings)
    return Columns(stored, dtype, tuple(zip(ends, (decoding for _, decoding in decodings), strict=True)))


def _holds(dtype: np.dtype[Any], number: float) -> bool:
    """Tell whether a type can hold a number, so that some stored value may equal it."""
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    return limits is not None and number == int(number) and limits.min <= number <= limits.max


def decoding_of(variable: xr.Variable, stored: np.dtype[Any], valid: tuple[float, float]) -> Decoding | None:
    """Read how xarray decodes a variable from what it keeps in the encoding.

    Parameters
    ----------
    variable
        As decoded by xarray.
    stored
        Type in the store.
    valid
        From `valid_range`.

    Returns
    -------
    Decoding or None
        None where only xarray itself can decode it, such as unsigned numbers in a signed type.
    """
    encoding = variable.encoding
    if stored.kind not in "iuf" or variable.dtype.kind not in "iuf" or encoding.get("_Unsigned") is not None:
        return None
    missing = tuple(
        number.item()
        for key in ("_FillValue", "missing_value")
        for number in np.ravel(encoding.get(key, ()))
        if number == number
    )
    return Decoding(
        stored, variable.dtype, tuple(dict.fromkeys(missing)), valid,
        _scalar(encoding.get("scale_factor")), _scalar(encoding.get("add_offset")),
    )  # fmt: skip


def _scalar(value: Any) -> Any:
    return value if value is None or np.ndim(value) == 0 else np.asarray(value).item()


def valid_range(attributes: Mapping[str, Any]) -> tuple[float, float]:
    """Read ``valid_range``, ``valid_min`` and ``valid_max``, which are in stored numbers."""
    low, high = attributes.get("valid_range", (-np.inf, np.inf))
    return float(attributes.get("valid_min", low)), float(attributes.get("valid_max", high))


def with_wishes(decoding: Decoding, name: str, nodata: float | None, decoder: str | None) -> Decoding:
    """Add what the user says about a variable to what its attributes say.

    Raises
    ------
    SourceError
        For a decoder that does not fit the variable.
    """
    if nodata is not None:
        decoding = replace(decoding, missing=(*decoding.missing, nodata))
    if decoder is None:
        return decoding
    if not decoding.plain or decoding.stored.kind not in "iu":
        raise SourceError(
            f"decode is {decoder!r} for variable {name!r}, which is stored as {decoding.stored} "
            f"{'with scale_factor or add_offset' if not decoding.plain else 'numbers'}; "
            "named decoders are for plain whole numbers: leave it out"
        )
    known = next(known for known in DECODERS if known == decoder)
    return replace(decoding, decoder=known, dtype=np.dtype(np.float64))
