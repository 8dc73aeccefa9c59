"""Places of written files: files appear whole, and only what the same command wrote is ever replaced.

::

    model.npz                       the file
    .model.npz.exported.json        digests of the files that the export wrote
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from clustering.data.ownership import check_place
from clustering.data.replacing import sync_folder, sync_tree
from clustering.errors import OutputError, PlaceError

REMEDY = "--overwrite (overwrite=True in Python)"
"""Option that allows replacing, for messages."""


def write_files(
    target: Path, companions: Sequence[str], overwrite: bool, write: Callable[[Path], None], writer: str = "export"
) -> list[Path]:
    """Write a file, and perhaps companions of it, in a temporary folder, and move them to their places.

    Parameters
    ----------
    target
        Path of the file. Missing parent folders are made.
    companions
        Names of all files that `write` may make beside it.
    overwrite
        Whether files that an export wrote are replaced. Others are never replaced.
    write
        Function that writes the files, given the path of the first one in the temporary folder.
    writer
        Command that writes them, as marks and messages name it.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    OutputError
        If a place holds something that may not be replaced, or the disk refuses.
    """
    check_place(os.fspath(target))
    places = [target, *(target.with_name(name) for name in companions)]
    check_replaceable(places, overwrite, writer)
    above = target.absolute().parent
    staging = above / f".{target.name}.{uuid.uuid4().hex[:8]}"
    try:
        above.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        write(staging / target.name)
        sync_tree(staging)
        # Others may have put files there in the meantime.
        check_replaceable(places, overwrite, writer)
        made = [place for place in places if (staging / place.name).exists()]
        mark = {"wrote": _wrote(writer), "files": {place.name: _digest(staging / place.name) for place in made}}
        for place in places:
            if place in made:
                (staging / place.name).replace(place)
            else:
                place.unlink(missing_ok=True)
        (staging / "mark").write_text(json.dumps(mark))
        (staging / "mark").replace(_mark_of(target))
        sync_folder(above)
        return made
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {str(target)!r}: {error.strerror or error}; name another place") from error
    finally:
        if staging.is_dir():
            for file in staging.iterdir():
                file.unlink()
            with suppress(OSError):
                staging.rmdir()


def check_file_place(target: Path) -> None:
    """Refuse a place that cannot hold a new file, before the work for it begins.

    Parameters
    ----------
    target
        Path of the file. Missing parent folders would be made.

    Raises
    ------
    OutputError
        If the place is inside a store or an output of runs, or if no file can be made there.
    """
    check_place(os.fspath(target))
    above = next(folder for folder in target.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise PlaceError(f"{str(target)!r} cannot be written, because {str(above)!r} is no folder; name another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PlaceError(f"{str(target)!r} cannot be written: no permission in {str(above)!r}; name another place")


def check_replaceable(places: Sequence[Path], overwrite: bool, writer: str = "export") -> None:
    """Refuse places that hold something else than this command wrote, or that may not be replaced.

    Parameters
    ----------
    places
        Paths of the files, the first of which names their mark.
    overwrite
        Whether files of an earlier command may be replaced.
    writer
        The command, as marks and messages name it.
    """
    digests = _digests(places[0], writer)
    for place in places:
        if not os.path.lexists(place):
            continue
        if place.is_symlink() or not place.is_file() or digests.get(place.name) != _digest(place):
            raise PlaceError(
                f"{str(place)!r} is not a file as {writer!r} wrote it, so it is not replaced; "
                "name another destination, or remove it by hand"
            )
        if not overwrite:
            raise PlaceError(f"{str(place)!r} exists; name another destination, or use {REMEDY}")


def _mark_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.exported.json")


def _wrote(writer: str) -> str:
    return f"zarr-clustering {writer}"


def _digests(target: Path, writer: str) -> dict[str, str]:
    """Return the digests of the files that a command wrote, by name; empty where there is no mark."""
    try:
        mark = json.loads(_mark_of(target).read_bytes())
        return dict(mark["files"]) if mark["wrote"] == _wrote(writer) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
