"""The command that writes a first config for a store."""

from __future__ import annotations

import os
import shlex
from pathlib import Path, PurePosixPath
from typing import Annotated

from cyclopts import Parameter

from clustering.errors import ConfigError, OutputError, SourceError

PRINTED = "-"
"""Name of a config that is printed, and not written."""
Store = Annotated[
    str, Parameter(name="STORE", help="Path or URL of a Zarr store: a group, an array or an OME-Zarr image.")
]
Config = Annotated[
    str | None,
    Parameter(
        name="CONFIG",
        allow_leading_hyphen=True,
        help="File to write, or - to print it. Default: the name of the store in this folder.",
    ),
]


def init(
    store: Store,
    config: Config = None,
    /,
    *,
    group: str | None = None,
    schema: str | None = None,
) -> None:
    """Look at a store, and write a first config for it, with the reasons in comments.

    It reads metadata, coordinates and the list of chunks alone. A file that is there is never replaced.

    Example: clustering init demo/ocean.zarr ocean.yaml

    Example: clustering init s3://bucket/field.zarr -

    Parameters
    ----------
    group
        Path of a group or array in the store.
    schema
        File to write the JSON schema of configs to, which the config names, so that editors complete its keys.
    """
    path = _config_of(store) if config is None else config
    # This comes before the store is read, which may take a while.
    if path != PRINTED:
        _check_free(Path(path), "init")
    if schema is not None:
        _check_schema(Path(schema))
    from clustering.data.first_look import look
    from clustering_flows.first_config import first_config

    try:
        seen = look(store, group)
    except SourceError as error:
        raise SourceError(_in_words_of_init(store, str(error))) from error
    text = first_config(seen, _output_of(store), "CONFIG" if path == PRINTED else path, _relative(schema, path))
    if schema is not None:
        from clustering.report.schema import schema_text

        try:
            Path(schema).write_text(schema_text(), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {schema!r}: {error.strerror}; name another file") from error
    if path == PRINTED:
        print(text, end="")
        return
    # Another process may have made the file meanwhile; "x" then fails instead of replacing it.
    try:
        with Path(path).open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"cannot write {path!r}: {error.strerror}; name another file") from error
    print(f"written to {path}; next: clustering inspect {shlex.quote(path)}")


def _in_words_of_init(store: str, fault: str) -> str:
    """Name the arguments of this command in place of keys of a config, and the way from a file to a store."""
    if Path(store).is_file() and Path(store).suffix != ".zip":
        return (
            f"{store!r} is a file, and no Zarr store; convert it first: clustering ingest {shlex.quote(store)} "
            f"{shlex.quote(_stem(store) + '.zarr')}"
        )
    return fault.replace("source.group", "--group").replace("source.store", "STORE")


def _check_free(path: Path, what: str) -> None:
    """Refuse a file that is there, one whose folder is missing, and one inside a store or an output of runs."""
    from clustering.data.ownership import check_outside

    if os.path.lexists(path):
        raise ConfigError(f"{what} is to write {str(path)!r}, which is there already; name another file, or remove it")
    if not path.parent.is_dir():
        raise ConfigError(
            f"{what} is to write {str(path)!r}, and there is no folder {str(path.parent)!r}; make it first"
        )
    check_outside(path)


def _check_schema(path: Path) -> None:
    """Refuse to replace any other file than a schema."""
    from clustering.report.schema import is_schema

    if not (path.is_file() and is_schema(path.read_text(encoding="utf-8", errors="replace"))):
        _check_free(path, "--schema")


def _named(store: str) -> str:
    """Return a path that ends with the name of the store, which ``.`` and ``..`` do not."""
    return str(Path(store).resolve()) if PurePosixPath(store).name in ("", "..") else store


def _stem(store: str) -> str:
    """Return the name of a store without its endings."""
    name = PurePosixPath(_named(store).replace(os.sep, "/").rstrip("/")).name
    stem = name.removesuffix(".zip").removesuffix(".zarr").removesuffix(".ome")
    # The name of a file of another program has an ending of its own.
    return (stem if stem != name else PurePosixPath(name).stem) or "job"


def _config_of(store: str) -> str:
    return f"{_stem(store)}.yaml"


def _output_of(store: str) -> str:
    """Return the place of the results: beside the store, or in this folder where the store can only be read."""
    name, store = f"{_stem(store)}-clusters", _named(store)
    before, slash, _ = store.rstrip("/").rpartition("/")
    # Beside the root of a bucket there are only other buckets.
    if store.startswith(("http://", "https://")) or before.endswith(":/"):
        return name
    return f"{before}{slash}{name}"


def _relative(schema: str | None, path: str) -> str | None:
    """Return the path of the schema as the config names it: from the folder of the config."""
    if schema is None:
        return None
    folder = Path.cwd() if path == PRINTED else Path(path).parent
    return Path(os.path.relpath(schema, folder)).as_posix()
