"""A first look at a store that a user knows nothing of: its variables, and a guess of how to cluster them.

Only metadata, index coordinates and the list of chunks are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from clustering.data.addresses import shown
from clustering.data.angles import units_of
from clustering.data.coordinates import is_latitude, is_longitude
from clustering.data.dimension_names import finest_level
from clustering.data.listing import key_shape, list_keys
from clustering.data.opening import BARE, OpenedDataset, open_node, open_store
from clustering.data.reading import has_cosine
from clustering.deferred import xr, zarr
from clustering.errors import ClusteringError, SourceError

Kind = Literal["time", "latitude", "longitude", "vertical", "channel", "member", "space", "rows", "unknown"]
"""What runs along a dimension."""

NAMES: dict[Kind, tuple[str, ...]] = {
    "time": ("time", "t", "date", "datetime", "valid_time", "year", "month", "day"),
    "latitude": ("lat", "latitude", "nav_lat"),
    "longitude": ("lon", "longitude", "nav_lon"),
    "vertical": ("depth", "lev", "level", "plev", "pressure", "altitude", "height", "isobaric", "pres", "z_level"),
    "channel": ("band", "bands", "channel", "channels", "c", "feature", "features", "dim", "embedding", "component",
                "wavelength", "gene", "genes", "marker"),
    "member": ("member", "ensemble", "realization", "number"),
    "space": ("x", "y", "z", "easting", "northing", "row_index", "column_index"),
    "rows": ("row", "rows", "sample", "samples", "obs", "id", "station", "profile", "cell", "point", "record", "pixel"),
}  # fmt: skip
"""Usual names of dimensions, in lower case."""
VERTICAL = ("depth", "height", "altitude", "air_pressure", "ocean_sigma_coordinate", "atmosphere_sigma_coordinate")
"""CF standard names of vertical axes."""
PRESSURES = ("pa", "hpa", "mbar", "millibar", "mb", "dbar")
FEATURE_KINDS: tuple[Kind, ...] = ("vertical", "channel")
"""Kinds along which a row has its features."""
PLACES: tuple[Kind, ...] = ("latitude", "longitude", "space")
MOST_CHUNKS = 200_000
"""Largest number of chunks that are listed: a bucket takes a request for a thousand of them."""
_MASK_WORDS = ("mask", "valid", "flag", "qc", "wet")
_WEIGHT_NAMES = ("weight", "weights", "area", "cell_area", "areacello", "areacella")


@dataclass(frozen=True)
class VariableFacts:
    """What the metadata say of a variable."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    units: str
    """Empty where it has none."""
    long_name: str
    fill: float | None
    """Fill value of the array that its attributes do not declare as missing; None for 0, NaN, or a declared one."""
    declared: bool
    """Whether cells of absent chunks are missing values: the fill value is NaN, or declared as missing."""
    chunks: int | None
    """Number of chunks; of shards where there are shards. None for too many, or a store that cannot list."""
    absent: int = 0
    """How many of them were never written."""


class DimensionGuess(NamedTuple):
    """A dimension of the variables to cluster, and what runs along it."""

    name: str
    size: int
    kind: Kind
    why: str
    """What gave it away, in words."""


@dataclass(frozen=True)
class FirstLook:
    """A store, and a guess of how to cluster it."""

    store: str
    group: str | None
    facts: tuple[VariableFacts, ...]
    """Of all variables of numbers."""
    unusable: Mapping[str, str]
    """Variables that cannot be clustered, with the reason."""
    variables: tuple[str, ...] | None
    """Variables to cluster; None for a bare array, which has no name."""
    sample_dims: tuple[DimensionGuess, ...]
    feature_dims: tuple[DimensionGuess, ...]
    latitude: str | None
    """Sample dimension of latitudes, whose cosine weighs rows by the area of their cells."""
    masks: tuple[str, ...]
    """Variables on sample dimensions that may say which cells to use."""
    weights: tuple[str, ...]
    """Variables on sample dimensions that may be weights."""
    labels: tuple[str, ...] = ()
    """Paths of label images of an OME-Zarr image."""
    turned: bool = False
    """Whether samples and features might as well be the other way round."""

    @property
    def chosen(self) -> tuple[VariableFacts, ...]:
        """The variables to cluster."""
        names = (BARE,) if self.variables is None else self.variables
        return tuple(facts for name in names for facts in self.facts if facts.name == name)

    @property
    def cells(self) -> int:
        """Number of cells of the sample grid."""
        return math.prod(guess.size for guess in self.sample_dims)

    @property
    def n_features(self) -> int:
        """Number of features."""
        sizes = {guess.name: guess.size for guess in self.feature_dims}
        return sum(math.prod(sizes.get(d, 1) for d in facts.dims) for facts in self.chosen)

    @property
    def row_bytes(self) -> int:
        """Decoded size of a row, in bytes."""
        sizes = {guess.name: guess.size for guess in self.feature_dims}
        items = (
            np.dtype(facts.dtype).itemsize * math.prod(sizes.get(d, 1) for d in facts.dims) for facts in self.chosen
        )
        return sum(items)


def look(store: str, group: str | None = None, storage_options: Mapping[str, Any] | None = None) -> FirstLook:
    """Look at a store, and guess how to cluster it.

    Parameters
    ----------
    store
        Path or URL of a Zarr store.
    group
        Path of a group or array in it; the root where None, and the finest level of an OME-Zarr image.
    storage_options
        Options of the file system.

    Raises
    ------
    SourceError
        If there is no Zarr store, or nothing in it to cluster.
    StoreError
        If the store cannot be reached or denies access.
    """
    level, labels = _image_parts(store, group, storage_options or {})
    opened = open_store(store, level or group, storage_options or {})
    dataset, bare = opened.dataset, isinstance(opened.node, zarr.Array)
    facts, unusable = _all_facts(opened)
    if not facts:
        reasons = "; ".join(f"{name!r} {why}" for name, why in unusable.items())
        raise SourceError(
            f"{shown(store)!r} holds no variable of numbers over a dimension: {reasons}; name another group"
        )
    names = _to_cluster(facts, dataset)
    guesses = [_guess(dataset, d) for d in dict.fromkeys(d for name in names for d in facts[name].dims)]
    sample, feature, turned = _split(guesses, len(names))
    dims = {guess.name for guess in sample}
    beside = [one for one in facts.values() if one.name not in names and one.dims and {*one.dims} <= dims]
    # Weights of a config are the cosine of a coordinate of the sample grid.
    latitudes = [guess.name for guess in sample if guess.kind == "latitude" and guess.name in dataset.coords]
    latitude = next(filter(has_cosine, latitudes), None)
    chosen = [one for one in facts.values() if one.name in names]
    counted = {one.name: _counted(one, opened) for one in chosen}
    return FirstLook(
        store, level or group, tuple(counted.get(one.name, one) for one in facts.values()), unusable,
        None if bare else names, tuple(sample), tuple(feature), latitude,
        tuple(one.name for one in beside if _named(one.name, _MASK_WORDS) or one.dtype == "bool"),
        tuple(one.name for one in beside if one.name.lower() in _WEIGHT_NAMES), labels, turned,
    )  # fmt: skip


def _image_parts(store: str, group: str | None, options: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """Return the finest level of an OME-Zarr image, and the paths of its label images; None and none without one."""
    try:
        node = open_node(store, group, options)
    except Exception:
        # Opening the store as a dataset says what is wrong with it.
        return None, ()
    if not isinstance(node, zarr.Group) or (level := finest_level(node)) is None:
        return None, ()
    try:
        listed = node["labels"].attrs.asdict()
    except KeyError:
        return level, ()
    inner = listed.get("ome", listed)
    names = inner.get("labels") if isinstance(inner, Mapping) else None
    where = f"/{node.path}/labels" if node.path else "/labels"
    return level, tuple(f"{where}/{name}/0" for name in (names if isinstance(names, list) else []))


def _all_facts(opened: OpenedDataset) -> tuple[dict[str, VariableFacts], dict[str, str]]:
    """Collect the facts of all variables of numbers, and the reasons why others cannot be clustered."""
    facts, unusable = {}, dict(opened.unusable)
    for key, array in sorted(opened.dataset.data_vars.items(), key=lambda item: _counted_order(str(item[0]))):
        name = str(key)
        dims = tuple(map(str, array.dims))
        if not dims or 0 in array.shape:
            unusable[name] = "is a single value" if not dims else "is empty"
        elif array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            unusable[name] = f"has type {array.dtype}"
        elif len({*dims}) < len(dims):
            unusable[name] = "has a dimension twice"
        else:
            facts[name] = _facts(name, array, opened)
    return facts, unusable


def _counted_order(name: str) -> list[tuple[bool, int, str]]:
    """Give the key that sorts numbers in names by their values: ``e2`` before ``e10``."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _facts(name: str, array: xr.DataArray, opened: OpenedDataset) -> VariableFacts:
    stored = opened.array(name)
    fill = None if stored is None else stored.fill_value
    number = float(fill) if isinstance(fill, int | float | np.number) else None
    missing = {"_FillValue", "missing_value"} & {*array.attrs, *array.encoding}
    declared = bool(missing) or (number is not None and math.isnan(number))
    undeclared = None if declared or not number else number
    units, long_name = (" ".join(str(array.attrs.get(key, "")).split()) for key in ("units", "long_name"))
    dims, shape = tuple(map(str, array.dims)), tuple(array.shape)
    return VariableFacts(name, dims, shape, str(array.dtype), units, long_name, undeclared, declared, None)


def _counted(facts: VariableFacts, opened: OpenedDataset) -> VariableFacts:
    """Add how many chunks there are, and how many of them were never written."""
    stored = opened.array(facts.name)
    if stored is None:
        return facts
    chunks = math.prod(-(-n // c) for n, c in zip(stored.shape, key_shape(stored), strict=True))
    if chunks > MOST_CHUNKS:
        return facts
    try:
        listing = list_keys(stored)
    except (ClusteringError, OSError):
        # A store may let keys be read and not listed.
        return facts
    if not listing.complete:
        return facts
    return replace(facts, chunks=chunks, absent=chunks - len(listing.chunks))


def _to_cluster(facts: Mapping[str, VariableFacts], dataset: xr.Dataset) -> tuple[str, ...]:
    """Choose the variables on the grid that holds the most numbers, without masks, weights and bounds."""
    bounds = {str(array.attrs.get("bounds", "")) for array in dataset.variables.values()}
    plain = {name: one for name, one in facts.items() if name not in bounds and not _is_companion(one)} or facts
    grids: dict[frozenset[str], list[VariableFacts]] = {}
    for one in plain.values():
        grids.setdefault(frozenset(one.dims), []).append(one)
    # A grid with more dimensions comes first among equals, so that an axis of length 1 decides nothing.
    largest = max(grids.values(), key=lambda part: (sum(math.prod(one.shape) for one in part), len(part[0].dims)))
    return tuple(one.name for one in largest)


def _is_companion(facts: VariableFacts) -> bool:
    """Return whether a variable is a mask, weights or bounds, by its type or name."""
    words = (*_MASK_WORDS, "bnds", "bounds")
    return facts.dtype == "bool" or _named(facts.name, words) or facts.name.lower() in _WEIGHT_NAMES


def _named(name: str, words: Sequence[str]) -> bool:
    parts = name.lower().replace("-", "_").split("_")
    return any(part == word or part == f"{word}s" for part in parts for word in words)


def _guess(dataset: xr.Dataset, name: str) -> DimensionGuess:
    """Guess what runs along a dimension, from its coordinate if it has one, and from its name."""
    size, coordinate = int(dataset.sizes[name]), dataset.coords.get(name)
    if coordinate is not None and (kind_and_reason := _by_coordinate(coordinate, name)) is not None:
        return DimensionGuess(name, size, *kind_and_reason)
    for kind, names in NAMES.items():
        if name.lower() in names:
            return DimensionGuess(name, size, kind, "by its name")
    return DimensionGuess(name, size, "unknown", "its name tells nothing")


def _by_coordinate(coordinate: xr.DataArray, name: str) -> tuple[Kind, str] | None:
    attributes = {
        key: str(coordinate.attrs.get(key, "")).strip().lower() for key in ("standard_name", "axis", "positive")
    }
    units = units_of(coordinate)
    if coordinate.dtype.kind in "Mm" or _has_dates(coordinate):
        return "time", "its labels are dates"
    if attributes["axis"] == "t" or attributes["standard_name"] == "time":
        return "time", "by its attributes"
    if is_latitude(coordinate, name):
        return "latitude", f"units {units}" if units else "by its name"
    if is_longitude(coordinate, name):
        return "longitude", f"units {units}" if units else "by its name"
    if attributes["axis"] == "z" or attributes["positive"] or attributes["standard_name"] in VERTICAL:
        return "vertical", f"units {units}" if units else "by its attributes"
    if units.lower() in PRESSURES:
        return "vertical", f"units {units}"
    if attributes["standard_name"].startswith("projection_") or attributes["axis"] in ("x", "y"):
        return "space", "by its attributes"
    if attributes["standard_name"] == "realization":
        return "member", "by its attributes"
    if coordinate.dtype.kind in "UTO":
        return "channel", "its labels are names"
    return None


def _has_dates(coordinate: xr.DataArray) -> bool:
    """Return whether labels are dates of a calendar that numpy does not know."""
    if coordinate.dtype.kind != "O" or not coordinate.size:
        return False
    import cftime

    return isinstance(coordinate.values.flat[0], cftime.datetime)


def _split(
    guesses: Sequence[DimensionGuess], n_variables: int
) -> tuple[list[DimensionGuess], list[DimensionGuess], bool]:
    """Split dimensions into those of samples and of features, and say whether the other way round is as likely."""
    feature = [guess for guess in guesses if guess.kind in FEATURE_KINDS]
    sample = [guess for guess in guesses if guess not in feature]
    if feature and sample:
        return sample, feature, False
    if not sample:
        # Nothing but channels or levels: the first dimension counts rows, as in a table.
        return list(guesses[:1]), list(guesses[1:]), False
    times = [guess for guess in sample if guess.kind == "time"]
    places = [guess for guess in sample if guess.kind in PLACES]
    if n_variables == 1 and times and places:
        # Series of places, or maps of times: whichever has fewer features.
        along = min((times, places), key=lambda part: math.prod(guess.size for guess in part))
        return [guess for guess in sample if guess not in along], along, True
    on_a_grid = len(places) + len(times) == len(sample)
    if n_variables == 1 and len(sample) > 1 and not on_a_grid:
        return sample[:1], sample[1:], False
    return sample, [], False
