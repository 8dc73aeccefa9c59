"""Label outputs on disk: arrays on the sample grid, with the coordinates of the samples.

Each chunk, or shard, lies in one block of the label pass. So the task of a block writes whole files, and two tasks
never write the same file.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clustering.data.plan import MIB, Plan
from clustering.data.source import Source
from clustering.deferred import xr, zarr
from clustering.errors import OutputError
from clustering.fitting.cluster_names import ClusterNames
from clustering.fitting.labelling import LabelOutputs, OutputVariable, output_variables
from clustering.models.model import AnyModel
from clustering.storage.layout import is_of_an_array
from clustering.storage.ledger import digest
from clustering.storage.paths import StoragePath, remove_keys, size, sizes, translating_write_errors, zarr_store
from clustering.storage.sample_coordinates import coordinates_of, given_way, left_out, references, write_carried

NAME, CHANGED = "labels", "changed"
_CAUTIONS = "left_out"
"""Attribute of the group that lists the coordinates that could not be written, and why."""
_FRAME = "frame"
"""Attribute of a group that has coordinates and no labels yet: a digest of the names and attributes for which they
are written."""
SMALL_CHUNK = 4096
"""Chunks of fewer cells than this are replaced by chunks as large as the `units` of the plan."""
LARGE_CHUNK = 64 * MIB
"""Chunks of more bytes than this are cut along the dimensions after the sample dimensions."""
MANY_FILES = 100_000
"""Arrays of more chunks than this are written in shards."""


def check_names(source: Source, clusters: ClusterNames, outputs: LabelOutputs) -> None:
    """Refuse a source whose sample dimensions have the name of a dimension of a result.

    Parameters
    ----------
    source
        Source to label.
    clusters
        Ids of the clusters.
    outputs
        Label outputs to write for each row.

    Raises
    ------
    OutputError
        If a name is taken; the message names the dimension and the output variable.
    """
    for array in output_variables(outputs, clusters):
        for name, _ in array.extra:
            if name in source.sample_dims:
                raise OutputError(
                    f"a sample dimension is called {name!r}, and so is one of output variable {array.name!r}; "
                    "rename it in the source, or do not ask for that variable"
                )


def _taken(arrays: Sequence[OutputVariable]) -> set[str]:
    """Name the results and their own dimensions; a coordinate of the source with such a name is left out."""
    return {name for array in arrays for name in (array.name, *(d for d, _ in array.extra))}


def coordinate_cautions(
    source: Source, clusters: ClusterNames, outputs: LabelOutputs, model: AnyModel | None = None
) -> tuple[str, ...]:
    """List, in words for a user, the coordinates that cannot be written beside the labels; nothing is written.

    Parameters
    ----------
    source
        Source to label.
    clusters
        Ids of the clusters.
    outputs
        Label outputs to write for each row.
    model
        Model whose words for distances go into attributes; not needed for labels alone.
    """
    taken = _taken(output_variables(outputs, clusters, model))
    return (*left_out(coordinates_of(source, taken)), *given_way(source, taken))


def cautions_of(path: StoragePath) -> tuple[str, ...]:
    """List the coordinates that were left out when these labels were created, in words for a user.

    Parameters
    ----------
    path
        Path of a ``labels.zarr``.
    """
    return tuple(zarr.open_group(zarr_store(path), mode="r").attrs.get(_CAUTIONS, ()))  # type: ignore[arg-type]


def write_frame(
    path: StoragePath,
    source: Source,
    clusters: ClusterNames,
    attributes: Mapping[str, Any],
    wanted: LabelOutputs | None = None,
    model: AnyModel | None = None,
) -> None:
    """Begin ``labels.zarr`` with the coordinates of the samples, before the labels are known.

    Coordinates that cannot be written are left out, see `cautions_of`.

    Parameters
    ----------
    path
        Path of the ``labels.zarr`` to create.
    source
        Source to label.
    clusters
        Ids of the clusters.
    attributes
        JSON attributes of the group.
    wanted
        Label outputs to write for each row; labels alone where None.
    model
        Model whose words for distances go into attributes; not needed for labels alone.
    """
    taken = _taken(output_variables(wanted or LabelOutputs(), clusters, model))
    carried = coordinates_of(source, taken)
    _, unwritten = write_carried(path, carried.assign_attrs(attributes))
    cautions = (*unwritten, *given_way(source, taken))
    about: dict[str, Any] = {_CAUTIONS: list(cautions)} if cautions else {}
    # This attribute is written last, so that it stands for a complete frame.
    zarr.open_group(zarr_store(path), mode="r+").attrs.update({**about, _FRAME: _frame_of(taken, attributes)})


def _frame_of(taken: Collection[str], attributes: Mapping[str, Any]) -> str:
    return digest({"taken": sorted(taken), "attributes": dict(attributes)})


def _framed(path: StoragePath, frame_of: str) -> zarr.Group | None:
    """Open labels that `write_frame` began with the same arguments; None where there are none."""
    try:
        group = zarr.open_group(zarr_store(path), mode="r+")
    except (FileNotFoundError, KeyError, ValueError):
        return None
    return group if group.attrs.get(_FRAME) == frame_of else None


class Chunking(NamedTuple):
    """How an array is stored."""

    chunks: tuple[int, ...]
    """Lengths of a chunk, which is decoded at once."""
    shards: tuple[int, ...] | None
    """Lengths of a shard, which is one file; None where each chunk is a file."""


def units(plan: Plan) -> tuple[int, ...]:
    """Return the largest length along each sample dimension that divides all block edges.

    It is the whole length of a dimension that has one block.

    Parameters
    ----------
    plan
        Plan of the label pass.
    """
    lengths = []
    for axis, count in enumerate(plan.grid):
        # Blocks are counted in C order: this many lie between neighbours along the axis.
        stride = math.prod(plan.grid[axis + 1 :])
        edges = (plan.block(i * stride).start[axis] for i in range(count))
        # With one block the only edge is 0, and so is the divisor.
        lengths.append(math.gcd(*edges) or plan.shape[axis])
    return tuple(lengths)


def inner_chunks(source: Source) -> tuple[tuple[int, ...], bool]:
    """Return the chunk lengths of a source along its sample dimensions, and whether the chunks lie in shards.

    Parameters
    ----------
    source
        Source to label.
    """
    for stored in source.stored.values():
        if stored.array.shards:
            lengths = dict(zip(stored.dims, stored.array.chunks, strict=True))
            return tuple(min(lengths[d], unit) for d, unit in zip(source.sample_dims, source.chunks, strict=True)), True
    return source.chunks, False


def chunking(
    shape: tuple[int, ...],
    whole: tuple[int, ...],
    inner: tuple[int, ...],
    sharded: bool,
    extra: tuple[int, ...] = (),
    item_bytes: int = 1,
) -> Chunking:
    """Choose chunks and shards.

    Parameters
    ----------
    shape, whole
        Lengths of the sample dimensions, and the `units` of the label pass.
    inner, sharded
        See `inner_chunks`.
    extra
        Lengths of the dimensions after the sample dimensions.
    item_bytes
        Size of a cell, in bytes.

    Returns
    -------
    Chunking
        Chunks as long as the source's, unless these are tiny or do not divide the blocks. They lie in shards of whole
        blocks where the source has shards, or where there would be very many files.
    """
    # A dimension with one unit needs no divisor: its last chunk may reach over the end.
    divides = all(u % c == 0 or u == n for c, u, n in zip(inner, whole, shape, strict=True))
    chunks = tuple(min(c, n) for c, n in zip(inner, shape, strict=True))
    if not divides or math.prod(chunks) < SMALL_CHUNK:
        chunks = whole
    room = max(1, LARGE_CHUNK // (math.prod(chunks) * item_bytes))
    beyond = []
    for length in reversed(extra):
        beyond.append(min(length, room))
        room = max(1, room // length)
    lengths = (*chunks, *reversed(beyond))
    files = math.prod(-(-n // c) for n, c in zip((*shape, *extra), lengths, strict=True))
    shards = tuple(-(-u // c) * c for u, c in zip((*whole, *extra), lengths, strict=True))
    return Chunking(lengths, shards if shards != lengths and (sharded or files > MANY_FILES) else None)


def create_labels(
    path: StoragePath,
    source: Source,
    plan: Plan,
    clusters: ClusterNames,
    attributes: Mapping[str, Any],
    outputs: LabelOutputs | None = None,
    model: AnyModel | None = None,
) -> LabelWriter:
    """Create the arrays of the label outputs, all masked, and return their writer.

    A frame that `write_frame` wrote with the same arguments is used; without one, `write_frame` is called.

    Chunk edges lie on those of the source, and each chunk, or shard, belongs to one block of the plan, so that two
    tasks never write the same file. Every chunk has a checksum.

    Parameters
    ----------
    path
        Path of the ``labels.zarr``.
    source
        Source to label.
    plan
        Plan of the label pass, counted from the start of the selection; see `Source.plan`.
    clusters
        Ids, names and colours of the clusters.
    attributes
        JSON attributes of the group; they take precedence over those of the source.
    outputs
        Label outputs to write for each row; labels alone where None.
    model
        Model whose words for distances go into attributes; not needed for labels alone.
    """
    arrays = output_variables(outputs or LabelOutputs(), clusters, model)
    own = dict.fromkeys(dim for array in arrays for dim in array.extra)
    taken = _taken(arrays)
    group = _framed(path, _frame_of(taken, attributes))
    if group is None:
        write_frame(path, source, clusters, attributes, outputs, model)
        group = zarr.open_group(zarr_store(path), mode="r+")
    else:
        # A killed attempt may have made some of the arrays.
        for name in (*(array.name for array in arrays), *(name for name, _ in own)):
            remove_keys(path / name, is_of_an_array)
    carried, there = coordinates_of(source, taken), set(group.array_keys())
    unwritten = [name for name in carried.variables if name not in there]
    carried = carried.drop_vars(unwritten) if unwritten else carried
    whole, (inner, sharded) = units(plan), inner_chunks(source)
    pointed: set[str] = set()
    for array in arrays:
        lengths, dims = tuple(n for _, n in array.extra), tuple(d for d, _ in array.extra)
        layout = chunking(source.shape, whole, inner, sharded, lengths, array.dtype.itemsize)
        about = references(source, carried, (*source.sample_dims, *dims))
        pointed.update(about.get("coordinates", "").split())
        group.create_array(
            array.name,
            shape=(*source.shape, *lengths),
            chunks=layout.chunks,
            shards=layout.shards,
            dtype=array.dtype,
            fill_value=array.fill,
            dimension_names=(*source.sample_dims, *dims),
            attributes={**about, **array.attributes},
            # The checksum is last, so that it covers the bytes as they are stored, and damage shows before they are
            # unpacked.
            compressors=[zarr.codecs.ZstdCodec(level=3), zarr.codecs.Crc32cCodec()],
            # Zarr leaves out chunks of fill values by default. With all of them written, a missing chunk is a lost one.
            config={"write_empty_chunks": True},
        )
    for name, length in own:
        numbers = clusters.ids if name == "cluster" else np.arange(1, length + 1)
        group.create_array(name, data=numbers, dimension_names=(name,))
    # As xarray does, the group lists the coordinates that no variable refers to.
    left = [n for n in map(str, carried.coords) if n not in carried.dims and n not in pointed and " " not in n]
    if left:
        group.attrs["coordinates"] = " ".join(left)
    elif "coordinates" in group.attrs:
        del group.attrs["coordinates"]
    # From here on the group holds labels, and the next run does not take it for a mere frame.
    del group.attrs[_FRAME]
    return open_writer(path, clusters, outputs or LabelOutputs())


def open_writer(path: StoragePath, clusters: ClusterNames, outputs: LabelOutputs) -> LabelWriter:
    """Return a writer of label outputs that exist already.

    Parameters
    ----------
    path
        Path of a ``labels.zarr``.
    clusters
        Ids of the clusters.
    outputs
        Label outputs to write for each row.
    """
    return LabelWriter(path, tuple(array.name for array in output_variables(outputs, clusters)))


@dataclass(frozen=True)
class LabelWriter:
    """Writes regions of label outputs; picklable."""

    path: StoragePath
    names: tuple[str, ...]
    """Names of the arrays."""
    opening: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)
    """Unique name of this writer: a process opens the arrays once for it, and anew after they were created again."""

    def __call__(self, region: tuple[slice, ...], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the label outputs of a region of the sample grid."""
        from clustering.local_arrays import write

        with translating_write_errors(self.path):
            for name, array in arrays.items():
                write(self._array(name), region, array)

    def tidy(self) -> None:
        """Remove the temporary files of a killed writer; in a bucket there are none."""
        if isinstance(self.path, Path):
            for name in self.names:
                for file in (self.path / name).rglob("*.partial"):
                    file.unlink(missing_ok=True)

    def complete(self) -> bool:
        """Return whether there are as many files as chunks, or shards."""
        return all(_count(self.path / name / "c") == math.prod(self._files(name)) for name in self.names)

    def holds(self, region: tuple[slice, ...]) -> bool:
        """Return whether all files of a region of the sample grid are there.

        Parameters
        ----------
        region
            Start and stop along each sample dimension.
        """
        for name in self.names:
            array = self._array(name)
            lengths = array.shards or array.chunks
            grid = self._files(name)
            ranges = [range(part.start // n, -(-part.stop // n)) for part, n in zip(region, lengths, strict=False)]
            ranges += [range(count) for count in grid[len(region) :]]
            folder = self.path / name / "c"
            # A machine that lost its power may leave empty files.
            if not all(size(folder / "/".join(map(str, index))) for index in product(*ranges)):
                return False
        return True

    def _array(self, name: str) -> zarr.Array[Any]:
        return _open(self.path, name, self.opening)

    def _files(self, name: str) -> tuple[int, ...]:
        """Count files along each dimension of an array."""
        array = self._array(name)
        return tuple(-(-n // c) for n, c in zip(array.shape, array.shards or array.chunks, strict=True))


def _count(folder: StoragePath) -> int:
    """Count the chunk files below a folder that are not empty."""
    return sum(1 for name, length in sizes(folder) if name.isdecimal() and length > 0)


@lru_cache(maxsize=64)
def _open(path: StoragePath, name: str, _: str) -> zarr.Array[Any]:
    # `zarr.open_array` ignores this setting among its arguments.
    return zarr.open_array(zarr_store(path), path=name, mode="r+").with_config({"write_empty_chunks": True})


def results_in_memory(
    source: Source, clusters: ClusterNames, outputs: LabelOutputs, model: AnyModel | None = None
) -> dict[str, xr.DataArray]:
    """Make the label outputs of a source in memory, all masked, with coordinates.

    Parameters
    ----------
    source
        Source to label.
    clusters
        Ids, names and colours of the clusters.
    outputs
        Label outputs to write for each row.
    model
        Model whose words for distances go into attributes; not needed for labels alone.

    Returns
    -------
    dict
        Data arrays on the sample dimensions, by name of the output variable.
    """
    arrays = output_variables(outputs, clusters, model)
    carried = coordinates_of(source, {name for array in arrays for name, _ in array.extra})
    # A data array has only coordinates, so the grid mapping is made one.
    scalars = {name: v for name, v in carried.data_vars.items() if not v.dims}
    coordinates = {n: c for n, c in {**carried.coords, **scalars}.items() if set(c.dims) <= set(source.sample_dims)}
    made = {}
    for array in arrays:
        values = np.full((*source.shape, *(n for _, n in array.extra)), array.fill, array.dtype)
        dims = (*source.sample_dims, *(d for d, _ in array.extra))
        about = references(source, carried, dims)
        # A data array holds its coordinates itself, and needs no attribute that names them.
        about.pop("coordinates", None)
        own = {"cluster": clusters.ids} if "cluster" in dims[len(source.shape) :] else {}
        made[array.name] = xr.DataArray(values, {**coordinates, **own}, dims, array.name, {**about, **array.attributes})
    return made
