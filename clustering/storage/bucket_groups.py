"""Zarr groups of their own in a bucket, such as saved models: where they may stand, and how one replaces another.

A bucket renames nothing. So the root of a group goes first and comes last, and a mark says in between whose it is: what
a killed writer left is no group to anybody, and the next writer replaces it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from clustering.data.ownership import MARK, OUTPUT_MARK, group_fault, mark, refuse, unfinished_mark
from clustering.errors import ClusteringError, OutputError
from clustering.storage.layout import CURRENT
from clustering.storage.paths import BucketPath, write_bytes

_ROOT = "zarr.json"


def put_group(path: BucketPath, content: Mapping[str, bytes], writer: str, replace: bool, remedy: str) -> None:
    """Write a group to a prefix, in the place of one that the same writer wrote.

    Parameters
    ----------
    content
        Of all objects, by key.
    writer, replace, remedy
        As for `clustering.data.ownership.check_target`.

    Raises
    ------
    OutputError
        If something is there that is not to be replaced.
    StoreError
        If the bucket refuses.
    """
    check_outside(path)
    start = f"{path.key}/".lstrip("/")
    there = {key.removeprefix(start) for key, _ in path.objects()}
    if there:
        output = bool(there & {OUTPUT_MARK, CURRENT})
        fault = "is the output of runs" if output else group_fault(there, lambda key: (path / key).read_bytes(), writer)
        refuse(str(path), fault, writer, replace, remedy)
    key, made = mark(writer, content)
    marks = {name for name in there if name.endswith(f"/{MARK}")}
    for name in marks or {key}:
        write_bytes(path / name, unfinished_mark(writer))
    if _ROOT in there:
        (path / _ROOT).unlink(missing_ok=True)
    for name in sorted(there - marks - content.keys() - {key, _ROOT}):
        (path / name).unlink(missing_ok=True)
    for name in sorted(content.keys() - {_ROOT}):
        write_bytes(path / name, content[name])
    write_bytes(path / key, made)
    for name in marks - {key}:
        (path / name).unlink(missing_ok=True)
    write_bytes(path / _ROOT, content[_ROOT])


def check_outside(path: BucketPath) -> None:
    """Refuse a prefix inside a Zarr store or an output of runs.

    Raises
    ------
    OutputError
        Naming what it is inside of.
    """
    for above in _parents(path):
        for names, what in (((OUTPUT_MARK, CURRENT), "the output of runs"), ((_ROOT, ".zgroup"), "a Zarr store")):
            if any(_is_there(above / name) for name in names):
                raise OutputError(f"{str(path)!r} is inside {str(above)!r}, {what}; name a prefix outside")


def _is_there(path: BucketPath) -> bool:
    try:
        return path.is_file()
    except ClusteringError:
        # Whoever may see the prefix alone is told of nothing above it.
        return False


def _parents(path: BucketPath) -> Iterator[BucketPath]:
    """Give the prefixes above a place, from the bucket down."""
    protocol, _, rest = str(path).partition("://")
    bucket, *parts = rest.split("/")
    root = BucketPath(f"{protocol}://{bucket}", path.options)
    for length in range(len(parts)):
        yield BucketPath(root.url, root.options, "/".join(parts[:length]))
