"""Zarr groups outside of outputs in a bucket, such as saved models: the allowed places, and how a group is replaced.

A bucket cannot rename a prefix. So `zarr.json` at the root of a group is removed first and written last, and a mark
names the writer in between. Nobody can open the rest of a killed writer as a group, and the next writer replaces it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from clustering.data.ownership import MARK, OUTPUT_MARK, group_fault, mark, refuse, unfinished_mark
from clustering.errors import ClusteringError, PlaceError
from clustering.storage.layout import CURRENT
from clustering.storage.paths import BucketPath, write_bytes

_ROOT = "zarr.json"


def put_group(path: BucketPath, content: Mapping[str, bytes], writer: str, replace: bool, remedy: str) -> None:
    """Write a group to a prefix; an earlier group of the same writer may be replaced.

    Parameters
    ----------
    path
        Prefix of the group.
    content
        Contents of all objects of the group, by key from the prefix.
    writer, replace, remedy
        As for `clustering.data.ownership.check_target`.

    Raises
    ------
    OutputError
        If the prefix holds something that may not be replaced, or lies inside a store or an output.
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
    # The mark comes before the first change, so that a killed writer leaves a group that the next writer may replace.
    marks = {name for name in there if name.endswith(f"/{MARK}")}
    for name in marks or {key}:
        write_bytes(path / name, unfinished_mark(writer))
    # Without its root, nobody opens the group while its objects change.
    if _ROOT in there:
        (path / _ROOT).unlink(missing_ok=True)
    for name in sorted(there - marks - content.keys() - {key, _ROOT}):
        (path / name).unlink(missing_ok=True)
    for name in sorted(content.keys() - {_ROOT}):
        write_bytes(path / name, content[name])
    # The finished mark holds a digest of all arrays, so it comes after them.
    write_bytes(path / key, made)
    for name in marks - {key}:
        (path / name).unlink(missing_ok=True)
    write_bytes(path / _ROOT, content[_ROOT])


def check_outside(path: BucketPath) -> None:
    """Refuse a prefix inside a Zarr store or an output of runs.

    Parameters
    ----------
    path
        Prefix that something shall be written to.

    Raises
    ------
    OutputError
        If the prefix lies inside of one; the message names it.
    """
    for above in _parents(path):
        for names, what in (((OUTPUT_MARK, CURRENT), "the output of runs"), ((_ROOT, ".zgroup"), "a Zarr store")):
            if any(_is_there(above / name) for name in names):
                raise PlaceError(f"{str(path)!r} is inside {str(above)!r}, {what}; name a prefix outside")


def _is_there(path: BucketPath) -> bool:
    try:
        return path.is_file()
    except ClusteringError:
        # Credentials may allow the prefix alone. Then nothing above it can be seen.
        return False


def _parents(path: BucketPath) -> Iterator[BucketPath]:
    """Yield the prefixes above a path, from the bucket down."""
    protocol, _, rest = str(path).partition("://")
    bucket, *parts = rest.split("/")
    root = BucketPath(f"{protocol}://{bucket}", path.options)
    for length in range(len(parts)):
        yield BucketPath(root.url, root.options, "/".join(parts[:length]))
